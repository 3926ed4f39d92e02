use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[test]
fn a_leader_that_moves_is_followed() {
    let mut world = World::new(Setup { leaders: vec![1, 1], ..Setup::default() });
    world.add(0, 0, -1);
    world.add(1, 0, -1);
    world.read_to(&[(0, 9), (1, 9)]);
    world.scene.lock().lead(0, 2, 1);
    world.read_to(&[(0, 60), (1, 60)]);
    let scene = world.scene.lock();
    assert!(scene.seen.iter().any(|seen| seen.broker == 2));
    assert_eq!(scene.validated, 1);
    let told = world.fetcher.cluster.options().services.told();
    let moved = told[&("kafka", "NOT_LEADER_OR_FOLLOWER")];
    assert_eq!((moved.errors, moved.retries), (1, 1), "{told:?}");
    assert_eq!(told.len(), 1);
}

#[test]
fn a_leader_of_a_newer_epoch_that_lacks_what_was_read_is_a_truncation() {
    for (end, expected) in [((0, 5), 5), ((-1, -1), -1)] {
        let mut world = World::new(Setup { leaders: vec![1], ..Setup::default() });
        world.add(0, 0, -1);
        world.read_to(&[(0, 9)]);
        {
            let mut scene = world.scene.lock();
            scene.lead(0, 2, 1);
            scene.ends.insert(0, end);
        }
        let (_, fault) = world.fault();
        let FetchFault::Truncated { offset, epoch: 0, end } = fault else { panic!("{fault:?}") };
        assert_eq!((offset, end), (world.at[&0], expected));
        assert!(world.next(Duration::from_millis(20)).unwrap().is_none());
    }
}

#[test]
fn a_position_is_validated_before_the_first_fetch_if_its_epoch_is_known() {
    let mut world = World::new(Setup { leaders: vec![1], ..Setup::default() });
    world.scene.lock().ends.insert(0, (0, 30));
    world.add(0, 31, 0);
    assert_eq!(world.fault(), (0, FetchFault::Truncated { offset: 31, epoch: 0, end: 30 }));
    assert!(world.scene.lock().seen.is_empty());
    world.add(0, 30, 0);
    world.read_to(&[(0, 60)]);
}

#[test]
fn a_leader_from_before_what_was_read_cannot_tell_whether_it_is_there() {
    let mut world = World::new(Setup { leaders: vec![1], ..Setup::default() });
    // Epoch 1 has begun elsewhere, and this broker has not heard of it.
    world.scene.lock().ends.insert(0, (-1, -1));
    world.add(0, 30, 1);
    while world.scene.lock().validated < 3 {
        assert!(world.next(Duration::from_millis(10)).unwrap().is_none());
    }
    let trouble = world.fetcher.partitions[&World::of(0)].trouble.clone().unwrap();
    assert!(trouble.ends_with("reset the group's offset"), "{trouble}");
    {
        let mut scene = world.scene.lock();
        scene.lead(0, 2, 1);
        scene.ends.clear();
    }
    world.read_to(&[(0, 60)]);
}

#[test]
fn a_leader_that_finds_the_logs_parted_is_believed() {
    let twist: Twist = Box::new(|id, count, asked, scene| {
        (count == 3).then(|| {
            changed(id, asked, scene, |data| {
                data.diverging_epoch.epoch = 0;
                data.diverging_epoch.end_offset = 4;
                data.records = None;
            })
        })
    });
    let mut world = World::new(Setup { leaders: vec![1], twist: Some(twist), ..Setup::default() });
    world.add(0, 0, -1);
    assert_eq!(world.fault(), (0, FetchFault::Truncated { offset: 6, epoch: 0, end: 4 }));
}

#[test]
fn an_epoch_that_only_has_another_number_is_no_truncation() {
    let twist: Twist = Box::new(|id, count, asked, scene| {
        (count == 3).then(|| {
            changed(id, asked, scene, |data| {
                data.diverging_epoch.epoch = 0;
                data.diverging_epoch.end_offset = 6;
                data.records = None;
            })
        })
    });
    let mut world = World::new(Setup { leaders: vec![1], twist: Some(twist), ..Setup::default() });
    world.add(0, 0, -1);
    world.read_to(&[(0, 60)]);
}

#[test]
fn an_answer_cut_at_any_place_is_fetched_again() {
    // The first answers of one broker are cut, each at the next place; they have about 200 bytes. Side by side, since a
    // leader that was lost is left alone for a moment.
    let check = |first: usize| {
        let places: Vec<usize> = (first..230).step_by(10).collect();
        let cut = Arc::new(AtomicUsize::new(0));
        let counter = cut.clone();
        let twist: Twist = Box::new(move |id, count, asked, scene| {
            let place = *places.get(count - 1).filter(|_| id == 1)?;
            let (answer, _) = scene.fetch(id, &scene.seen.last().unwrap().asks, asked.version);
            let Reply::Bytes(mut bytes) = asked.answer::<FetchRequest>(&answer) else { unreachable!() };
            counter.fetch_add(usize::from(place < bytes.len()), Ordering::SeqCst);
            bytes.truncate(place);
            Some(Reply::Part(bytes))
        });
        let mut world = World::new(Setup { leaders: vec![1, 2], twist: Some(twist), ..Setup::default() });
        world.add(0, 0, -1);
        world.add(1, 0, -1);
        world.read_to(&[(0, 60), (1, 60)]);
        let seen = world.scene.lock().seen.iter().filter(|seen| seen.broker == 1).count();
        let cut = cut.load(Ordering::SeqCst);
        assert!(cut > 15 && seen >= cut + 20, "{seen} requests, {cut} answers cut");
    };
    std::thread::scope(|scope| {
        (0..10).for_each(|first| drop(scope.spawn(move || check(first))));
    });
}

#[test]
fn an_answer_that_comes_too_late_is_asked_for_again() {
    let twist: Twist = Box::new(|id, count, _, _| (id == 1 && count == 2).then_some(Reply::Silence));
    let request_timeout = Some(Duration::from_millis(150));
    let mut world =
        World::new(Setup { leaders: vec![1, 2], twist: Some(twist), request_timeout, ..Setup::default() });
    world.add(0, 0, -1);
    world.add(1, 0, -1);
    world.read_to(&[(0, 60), (1, 60)]);
    let seen = world.scene.lock().seen.clone();
    let ours: Vec<_> = seen.iter().filter(|seen| seen.broker == 1).collect();
    assert_eq!(ours[2].asks[0].offset, ours[1].asks[0].offset);
    assert!(ours[2].at - ours[1].at >= Duration::from_millis(150));
}

#[test]
fn an_answer_to_another_request_is_not_taken() {
    let twist: Twist = Box::new(|id, count, asked, scene| {
        let (answer, _) = scene.fetch(id, &scene.seen.last().unwrap().asks, asked.version);
        (count % 2 == 0)
            .then(|| asked.answer_at::<FetchRequest>(&answer, asked.version, asked.correlation + 1))
    });
    let mut world = World::new(Setup { leaders: vec![1], twist: Some(twist), ..Setup::default() });
    world.add(0, 0, -1);
    world.read_to(&[(0, 60)]);
}

#[test]
fn a_topic_that_was_created_anew_is_told() {
    let twist: Twist = Box::new(|id, count, asked, scene| {
        (count > 2 && scene.id == 5)
            .then(|| changed(id, asked, scene, |data| data.error_code = Code::UNKNOWN_TOPIC_ID.0))
    });
    let mut world = World::new(Setup { leaders: vec![1], twist: Some(twist), ..Setup::default() });
    world.add(0, 0, -1);
    world.read_to(&[(0, 6)]);
    // For a while nobody knows the new one.
    let asked = world.scene.lock().metadata_count;
    while world.scene.lock().metadata_count < asked + 3 {
        assert!(world.next(Duration::from_millis(10)).unwrap().is_none());
    }
    world.scene.lock().id = 6;
    assert_eq!(world.fault(), (0, FetchFault::Recreated { id: Uuid::from_u128(6) }));
}

#[test]
fn silence_of_a_partition_is_an_error_in_the_end() {
    let twist: Twist =
        Box::new(|id, _, asked, scene| Some(changed(id, asked, scene, |data| data.error_code = 9)));
    let settings = FetchSettings { give_up_after: Duration::from_millis(500), ..settings() };
    let mut world = World::new(Setup {
        leaders: vec![1],
        twist: Some(twist),
        settings: Some(settings),
        ..Setup::default()
    });
    world.add(0, 0, -1);
    let error = world.next(LONG).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("fetching partition t-0: gave up after "), "{text}");
    assert!(text.contains("REPLICA_NOT_AVAILABLE"), "{text}");
    // It does not spin meanwhile: tries have delays.
    assert!(world.scene.lock().seen.len() < 500);
}

#[test]
fn a_leader_that_takes_connections_and_says_nothing_is_to_blame_and_nobody_else() {
    // Opening a connection to it takes longer than anyone may be silent.
    let settings = FetchSettings { give_up_after: Duration::from_millis(300), ..settings() };
    let mut leaders = vec![1; 8];
    leaders.push(3);
    let mut world = World::new(Setup { leaders, settings: Some(settings), ..Setup::default() });
    (0..9).for_each(|partition| world.add(partition, 0, -1));
    let error = loop {
        if let Err(error) = world.next(LONG) {
            break error.to_string();
        }
    };
    assert!(error.starts_with("fetching partition t-8: gave up"), "{error}");
    assert!(error.contains("ApiVersions") && error.contains("no answer within"), "{error}");
    // Whoever takes that as a reason to leave it out goes on with the others.
    world.fetcher.remove(&World::of(8));
    world.read_to(&(0..8).map(|partition| (partition, 60)).collect::<Vec<_>>());
}

/// Once another leads, the first leader goes on answering, without errors and without anything new: it is cut off from
/// the others and has not heard of it.
fn deposed() -> Option<Twist> {
    Some(Box::new(|id, _, asked, scene| {
        (id == 1 && scene.logs[&0].leader == 2).then(|| {
            let asks = &scene.seen.last().unwrap().asks;
            let nothing = asks.iter().map(|ask| scene.data(ask)).collect();
            asked.answer::<FetchRequest>(&answer(nothing, asked.version, scene.id))
        })
    }))
}

/// A partition is read from broker 1, and then broker 2 leads it.
fn moved(setup: Setup) -> World {
    let mut world = World::new(Setup { leaders: vec![1], ..setup });
    world.add(0, 0, -1);
    world.read_to(&[(0, 9)]);
    world.scene.lock().lead(0, 2, 1);
    world
}

/// What is asked again after this long, although nothing is wrong.
const SOON: Option<Duration> = Some(Duration::from_millis(50));

#[test]
fn a_leader_that_has_not_heard_that_another_leads_is_left_when_the_cluster_says_so() {
    let mut world = moved(Setup { twist: deposed(), ..Setup::default() });
    // As the group's thread asks now and then.
    world.fetcher.cluster.refresh(&[TOPIC.into()], Instant::now() + LONG).unwrap();
    world.read_to(&[(0, 60)]);
    let scene = world.scene.lock();
    assert_eq!((scene.validated, scene.metadata_count), (1, 2));
}

#[test]
fn a_leader_that_has_not_heard_that_another_leads_is_left_although_nobody_asks() {
    let mut world = moved(Setup { twist: deposed(), metadata_age: SOON, ..Setup::default() });
    world.read_to(&[(0, 60)]);
    assert_eq!(world.scene.lock().validated, 1);
}

#[test]
fn the_broker_that_is_asked_who_leads_may_be_cut_off_as_well() {
    let mut world =
        moved(Setup { twist: deposed(), metadata_age: SOON, behind: vec![0, 1], ..Setup::default() });
    world.read_to(&[(0, 60)]);
}

#[test]
fn a_broker_that_names_a_leader_who_is_none_is_not_the_only_one_that_is_asked() {
    // However young its answer is.
    let mut world = moved(Setup { behind: vec![0, 1], ..Setup::default() });
    world.read_to(&[(0, 60)]);
}

/// One that has just started knows of few topics.
#[test]
fn a_broker_that_does_not_know_of_what_is_read_is_not_believed_for_long() {
    let mut world = World::new(Setup { leaders: vec![1], ..Setup::default() });
    world.add(0, 0, -1);
    world.read_to(&[(0, 60)]);
    world.scene.lock().ignorant = vec![0];
    world.fetcher.cluster.refresh(&[TOPIC.into()], Instant::now() + LONG).unwrap();
    let error = |world: &World| world.fetcher.cluster.topic(TOPIC).unwrap().error;
    assert_eq!(error(&world), Code::UNKNOWN_TOPIC_OR_PARTITION);
    let deadline = Instant::now() + LONG;
    while error(&world) != Code::NONE {
        assert!(Instant::now() < deadline, "nobody else is asked");
        world.next(Duration::from_millis(5)).unwrap();
    }
}

#[test]
fn leaders_are_seen_to_where_something_is_always_ready() {
    let mut world = moved(Setup { twist: deposed(), metadata_age: SOON, ..Setup::default() });
    let (deadline, at) = (Instant::now() + LONG, world.at[&0]);
    while world.fetcher.partitions[&World::of(0)].leader != Some((2, 1)) {
        assert!(Instant::now() < deadline, "its leader is not left");
        let nothing = world.fetcher.partitions[&World::of(0)].nothing();
        world.fetcher.ready.push_front(Fetched { from: at, next: at, ..nothing });
        world.next(Duration::from_millis(5)).unwrap();
    }
    world.read_to(&[(0, 60)]);
}

#[test]
fn a_cluster_that_does_not_answer_holds_up_nobody_who_is_read() {
    let metadata_age = Some(Duration::from_millis(20));
    let mut world = World::new(Setup { leaders: vec![1], metadata_age, ..Setup::default() });
    world.add(0, 0, -1);
    world.read_to(&[(0, 3)]);
    world.scene.lock().silent = true;
    let failed = |world: &World| world.fetcher.refresh.failures;
    let deadline = Instant::now() + LONG;
    while failed(&world) == 0 {
        assert!(Instant::now() < deadline, "the cluster is not asked");
        let asked = Instant::now();
        world.next(Duration::from_millis(5)).unwrap();
        assert!(asked.elapsed() < LONG / 2, "it waits for as long as a request may take");
    }
    world.read_to(&[(0, 60)]);
    world.scene.lock().silent = false;
    while failed(&world) > 0 {
        assert!(Instant::now() < deadline, "the cluster is not asked again");
        world.next(Duration::from_millis(5)).unwrap();
    }
}
