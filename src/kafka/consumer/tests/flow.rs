use super::*;

#[test]
fn a_fetcher_can_move_to_another_thread() {
    fn check<T: Send>() {}
    check::<Fetcher>();
}

#[test]
fn everything_comes_in_order_from_both_leaders() {
    let mut world = World::new(Setup { leaders: vec![1, 2, 1], ..Setup::default() });
    world.add(0, 0, -1);
    world.add(1, 7, -1);
    world.add(2, 0, -1);
    world.read_to(&[(0, 60), (1, 60), (2, 60)]);
    let scene = world.scene.lock();
    assert_eq!(scene.metadata_count, 1);
    assert!(scene.seen.iter().all(|seen| seen.version == 17));
    // The epoch of what was read last is sent from the second fetch on.
    let last = scene.seen.last().unwrap().asks[0].clone();
    assert_eq!((last.epoch, last.last_epoch), (0, 0));
}

#[test]
fn old_and_new_versions_are_spoken() {
    for most in [4, 9, 11, 12, 13, 16, 17] {
        let mut world = World::new(Setup { leaders: vec![1], ..Setup::default() });
        world.scene.lock().most = most;
        world.add(0, 0, 0);
        world.read_to(&[(0, 60)]);
        assert!(world.scene.lock().seen.iter().all(|seen| seen.version == most));
    }
}

#[test]
fn a_leader_that_never_answers_holds_up_nobody_else() {
    for part in [0, 3, 50, 90] {
        let twist: Twist = Box::new(move |id, _, asked, scene| {
            // Not even half of an answer.
            let Reply::Bytes(mut bytes) = changed(id, asked, scene, |_| {}) else { unreachable!() };
            bytes.truncate(part);
            (id == 2).then_some(Reply::Bytes(bytes))
        });
        let mut world = World::new(Setup { leaders: vec![1, 2], twist: Some(twist), ..Setup::default() });
        world.add(1, 0, -1);
        world.add(0, 0, -1);
        let begun = Instant::now();
        world.read_to(&[(0, 60)]);
        assert_eq!(world.at[&1], 0);
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn the_next_fetch_is_sent_before_the_answer_is_worked_on() {
    let mut world = World::new(Setup { leaders: vec![1], ..Setup::default() });
    world.add(0, 0, -1);
    world.next(LONG).unwrap();
    // Nobody calls the fetcher, and yet the next request arrives.
    let deadline = Instant::now() + LONG;
    while world.scene.lock().seen.len() < 2 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    assert_eq!(world.scene.lock().seen[1].asks[0].offset, 3);
}

#[test]
fn with_nothing_to_do_next_sleeps_until_the_timeout() {
    let mut world = World::new(Setup { leaders: vec![1], ..Setup::default() });
    let timeout = Duration::from_millis(60);
    let check = |world: &mut World| {
        let (begun, waits) = (Instant::now(), world.fetcher.waits);
        assert!(world.next(timeout).unwrap().is_none());
        assert!(begun.elapsed() >= timeout);
        world.fetcher.waits - waits
    };
    assert!(check(&mut world) <= 3);
    world.add(0, 60, -1);
    // The watermarks are news.
    let news = world.next(LONG).unwrap().unwrap();
    assert!(news.records.is_empty() && news.high_watermark == 60);
    // Each empty answer, of which one comes in 5 ms, wakes it up, and nothing else does.
    assert!(check(&mut world) <= 20);
    world.fetcher.pause(&World::of(0));
    check(&mut world);
    assert!(check(&mut world) <= 3);
}

#[test]
fn a_paused_partition_is_not_asked_for_and_what_came_of_it_is_kept() {
    let mut world = World::new(Setup { leaders: vec![1, 1], ..Setup::default() });
    world.scene.lock().batches = 2;
    world.add(0, 0, -1);
    world.add(1, 0, -1);
    world.read_to(&[(0, 6), (1, 6)]);
    world.fetcher.pause(&World::of(0));
    let seen = world.scene.lock().seen.len();
    let stood = world.at[&0];
    world.read_to(&[(1, 60)]);
    assert_eq!(world.at[&0], stood);
    // One request may have been on its way.
    let asked = |world: &World, since: usize| {
        world.scene.lock().seen[since..]
            .iter()
            .filter(|seen| seen.asks.iter().any(|ask| ask.partition == 0))
            .count()
    };
    assert!(asked(&world, seen) <= 1);
    world.fetcher.resume(&World::of(0));
    world.read_to(&[(0, 60)]);
}

#[test]
fn what_is_removed_is_dropped_and_can_begin_anew() {
    let mut world = World::new(Setup { leaders: vec![1, 1], ..Setup::default() });
    world.scene.lock().batches = 2;
    world.add(0, 0, -1);
    world.add(1, 0, -1);
    world.read_to(&[(0, 3)]);
    world.fetcher.remove(&World::of(0));
    let stood = world.at[&0];
    world.read_to(&[(1, 30)]);
    assert_eq!(world.at[&0], stood);
    world.add(0, 31, -1);
    world.add(1, 3, -1);
    world.read_to(&[(0, 60), (1, 60)]);
}

#[test]
fn partitions_take_turns_when_an_answer_holds_only_one() {
    let mut world = World::new(Setup { leaders: vec![1, 1, 1], ..Setup::default() });
    for partition in 0..3 {
        world.add(partition, 0, -1);
    }
    let mut turns = [0usize; 3];
    for _ in 0..30 {
        let fetched = loop {
            let fetched = world.next(LONG).unwrap().unwrap();
            if !fetched.records.is_empty() {
                break fetched;
            }
        };
        turns[fetched.of.partition as usize] += 1;
    }
    assert_eq!(turns, [10, 10, 10]);
}

#[test]
fn throttling_is_honoured() {
    let throttle = Duration::from_millis(120);
    let twist: Twist = Box::new(move |id, count, asked, scene| {
        let (answer, _) = scene.fetch(id, &scene.seen.last().unwrap().asks, asked.version);
        let answer = answer.with_throttle_time_ms(120);
        (count == 1).then(|| asked.answer::<FetchRequest>(&answer))
    });
    let mut world = World::new(Setup { leaders: vec![1], twist: Some(twist), ..Setup::default() });
    world.add(0, 0, -1);
    world.read_to(&[(0, 60)]);
    let seen = world.scene.lock().seen.clone();
    assert!(seen[1].at - seen[0].at >= throttle);
}

/// That is how brokers throttle who fetches.
#[test]
fn an_answer_that_only_throttles_is_no_trouble() {
    let twist: Twist = Box::new(|_, count, asked, _| {
        let answer = FetchResponse::default().with_throttle_time_ms(10);
        (count < 5).then(|| asked.answer::<FetchRequest>(&answer))
    });
    let mut world = World::new(Setup { leaders: vec![1], twist: Some(twist), ..Setup::default() });
    world.add(0, 0, -1);
    world.read_to(&[(0, 60)]);
    assert_eq!(world.scene.lock().metadata_count, 1);
}

#[test]
fn a_batch_larger_than_asked_for_makes_progress() {
    // Brokers send the first batch whole; one that does not is asked for more and more.
    let settings = FetchSettings { partition_max_bytes: 10, ..settings() };
    let twist: Twist = Box::new(|id, _, asked, scene| {
        let most = scene.seen.last().unwrap().asks[0].max_bytes as usize;
        Some(changed(id, asked, scene, |data| {
            let records = data.records.take().unwrap();
            data.records = Some(records.slice(..records.len().min(most)));
        }))
    });
    for twist in [None, Some(twist)] {
        let mut world = World::new(Setup {
            leaders: vec![1],
            settings: Some(settings.clone()),
            twist,
            ..Setup::default()
        });
        world.add(0, 0, -1);
        world.read_to(&[(0, 60)]);
    }
}

#[test]
fn an_answer_is_freed_when_the_last_of_it_is_dropped() {
    let mut world = World::new(Setup { leaders: vec![1, 1], ..Setup::default() });
    world.scene.lock().batches = 40;
    world.add(0, 0, -1);
    world.add(1, 0, -1);
    let (first, second) = (world.next(LONG).unwrap().unwrap(), world.next(LONG).unwrap().unwrap());
    // Both are slices of the one answer.
    assert_ne!(first.of, second.of);
    let distance = (first.records.as_ptr() as usize).abs_diff(second.records.as_ptr() as usize);
    assert!(distance < 10_000);
}

#[test]
fn an_abort_ends_the_wait() {
    let mut world = World::new(Setup { leaders: vec![1], ..Setup::default() });
    world.add(0, 60, -1);
    world.next(LONG).unwrap();
    let stop = world.stop.clone();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| world.fetcher.next(Duration::from_secs(1000)));
        stop.abort();
        assert!(matches!(waiting.join().unwrap(), Err(Error::HungUp)));
    });
}

#[test]
fn a_leader_that_names_another_replica_is_asked_as_by_those_who_know_no_replicas() {
    // It sends no records with it, and answers at once.
    let twist: Twist = Box::new(|id, _, asked, scene| {
        (asked.version > 10).then(|| {
            changed(id, asked, scene, |data| {
                (data.preferred_read_replica, data.records) = (2.into(), None);
            })
        })
    });
    let mut world = World::new(Setup { leaders: vec![1, 1], twist: Some(twist), ..Setup::default() });
    world.add(0, 0, -1);
    world.add(1, 0, -1);
    world.read_to(&[(0, 60), (1, 60)]);
    let scene = world.scene.lock();
    let named = scene.seen.iter().filter(|seen| seen.version > 10).count();
    assert!(named <= 2, "{named}");
    assert!(scene.seen.iter().all(|seen| seen.broker == 1));
}

#[test]
fn another_leader_may_answer_in_any_version() {
    let twist: Twist = Box::new(|id, _, asked, scene| {
        (id == 1 && asked.version > 10).then(|| {
            changed(id, asked, scene, |data| {
                (data.preferred_read_replica, data.records) = (2.into(), None);
            })
        })
    });
    let mut world = World::new(Setup { leaders: vec![1], twist: Some(twist), ..Setup::default() });
    world.add(0, 0, -1);
    world.read_to(&[(0, 9)]);
    world.scene.lock().lead(0, 2, 1);
    world.read_to(&[(0, 60)]);
    let scene = world.scene.lock();
    let of = |broker| scene.seen.iter().filter(move |seen| seen.broker == broker).map(|seen| seen.version);
    assert!(of(1).any(|version| version == 10) && of(2).all(|version| version > 10));
}
