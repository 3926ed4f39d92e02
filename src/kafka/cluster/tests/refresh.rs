use super::*;

/// What is known of partition 0 after these answers, one a refresh.
fn epochs(answers: Vec<MetadataResponseTopic>) -> Vec<(Option<i32>, i32)> {
    let count = answers.len();
    let fake = telling(move |number, asked| {
        let request = asked.request::<MetadataRequest>();
        assert!(!request.allow_auto_topic_creation);
        assert_eq!(request.topics.unwrap().len(), 1);
        let somewhere = Address { host: "b".into(), port: 1 };
        Some(metadata(vec![broker(1, &somewhere)], vec![answers[number - 1].clone()]))
    });
    let cluster = cluster(&[&fake.address]);
    let mut seen = Vec::new();
    for _ in 0..count {
        cluster.refresh(&names(&["t"]), late()).unwrap();
        let topic = cluster.topic("t").unwrap();
        seen.push((topic.partitions[0].leader, topic.partitions[0].epoch));
    }
    seen
}

#[test]
fn the_leader_epoch_never_goes_back_unless_the_topic_is_another() {
    let seen = epochs(vec![
        topic("t", 5, &[(1, 7)]),
        topic("t", 5, &[(2, 6)]),
        topic("t", 5, &[(3, 8)]),
        topic("t", 5, &[(-1, 8)]),
        // An error tells nothing new about partitions.
        topic("t", 0, &[]).with_error_code(3),
        topic("t", 5, &[(4, 7)]),
        topic("t", 6, &[(5, 0)]),
    ]);
    let expected = [(Some(1), 7), (Some(1), 7), (Some(3), 8), (None, 8), (None, 8), (None, 8), (Some(5), 0)];
    assert_eq!(seen, expected);
}

#[test]
fn what_is_wrong_with_a_topic_is_told_and_is_no_error() {
    let fake = telling(|_, _| {
        let here = Address { host: "b".into(), port: 1 };
        let with = |name: &str, code| topic(name, 0, &[]).with_error_code(code);
        Some(metadata(vec![broker(1, &here)], vec![with("a", 3), with("b", 29), with("c", 17)]))
    });
    let cluster = cluster(&[&fake.address]);
    cluster.refresh(&names(&["a", "b", "c"]), late()).unwrap();
    let error = |name: &str| cluster.topic(name).unwrap().error;
    assert_eq!(error("a"), Code::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(error("b"), Code::TOPIC_AUTHORIZATION_FAILED);
    assert_eq!(error("c"), Code::INVALID_TOPIC_EXCEPTION);
    assert!(cluster.topic("d").is_none());
}

#[test]
fn topics_are_remembered() {
    let asked_for = Arc::new(Mutex::new(Vec::<Vec<String>>::new()));
    let seen = asked_for.clone();
    let fake = telling(move |_, asked| {
        let topics = asked.request::<MetadataRequest>().topics.unwrap();
        seen.lock().push(topics.iter().map(|topic| topic.name.clone().unwrap().to_string()).collect());
        let here = Address { host: "b".into(), port: 1 };
        Some(metadata(vec![broker(1, &here)], vec![]))
    });
    let cluster = cluster(&[&fake.address]);
    for topics in [&["b"][..], &["a"], &[]] {
        cluster.refresh(&names(topics), late()).unwrap();
    }
    let expected: Vec<Vec<String>> =
        vec![vec!["b".into()], vec!["a".into(), "b".into()], vec!["a".into(), "b".into()]];
    assert_eq!(*asked_for.lock(), expected);
}

#[test]
fn bootstrap_goes_on_to_an_address_that_answers() {
    let fake =
        telling(|_, _| Some(metadata(vec![broker(3, &Address { host: "b".into(), port: 1 })], vec![])));
    let unknown = Arc::new(Address { host: "no-such-host.invalid".into(), port: 9092 });
    // The order is random: often enough, the others come first.
    for _ in 0..8 {
        let cluster = cluster(&[&nobody(), &fake.address, &unknown]);
        cluster.refresh(&[], late()).unwrap();
        assert_eq!(cluster.brokers(), [3]);
    }
}

#[test]
fn when_all_known_brokers_are_gone_bootstrap_begins_again() {
    let gone = nobody();
    let fake = telling(move |number, _| match number {
        1 => Some(metadata(vec![broker(1, &gone), broker(2, &gone)], vec![])),
        // The control connection breaks, and with it all that is left.
        2 => None,
        _ => Some(metadata(vec![broker(3, &gone)], vec![])),
    });
    let cluster = cluster(&[&fake.address]);
    cluster.refresh(&[], late()).unwrap();
    assert_eq!(cluster.brokers(), [1, 2]);
    cluster.refresh(&[], late()).unwrap();
    assert_eq!(cluster.brokers(), [3]);
}

#[test]
fn a_broker_that_sends_back_to_bootstrap_is_followed() {
    let fake = telling(|number, _| {
        let here = Address { host: "b".into(), port: 1 };
        let answer = metadata(vec![broker(number as i32, &here)], vec![]);
        Some(if number == 2 { answer.with_error_code(129) } else { answer })
    });
    let cluster = cluster(&[&fake.address]);
    cluster.refresh(&[], late()).unwrap();
    cluster.refresh(&[], late()).unwrap();
    assert_eq!(cluster.brokers(), [3]);
}

#[test]
fn a_broker_that_knows_nobody_yet_is_asked_again() {
    let fake = telling(|number, _| {
        let here = Address { host: "b".into(), port: 1 };
        let brokers = if number < 3 { vec![] } else { vec![broker(9, &here)] };
        Some(metadata(brokers, vec![]))
    });
    let cluster = cluster(&[&fake.address]);
    cluster.refresh(&[], late()).unwrap();
    assert_eq!(cluster.brokers(), [9]);
}

#[test]
fn a_broker_that_is_not_listed_cannot_be_connected_to() {
    let cluster = cluster(&[&nobody()]);
    let error = cluster.connect(4).err().unwrap();
    assert!(matches!(error, Error::Unavailable(_)) && error.to_string().contains("broker 4"), "{error}");
}

#[test]
fn the_deadline_ends_a_hopeless_refresh_with_the_last_error() {
    let unknown = Arc::new(Address { host: "no-such-host.invalid".into(), port: 9092 });
    for (address, expected) in [(nobody(), "cannot connect to 127.0.0.1"), (unknown, "no-such-host.invalid")]
    {
        let begun = Instant::now();
        let cluster = cluster(&[&address]);
        let error = cluster.refresh(&names(&["t"]), begun + Duration::from_millis(100)).unwrap_err();
        assert!(matches!(error, Error::GaveUp { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(expected) && text.starts_with("metadata of t: gave up"), "{text}");
        assert_eq!(error.retry(), Retry::Transient);
        assert!(begun.elapsed() < Duration::from_secs(15));
    }
}

#[test]
fn a_silent_broker_does_not_outlast_the_deadline() {
    let fake = Fake::start(|asked| match asked.key {
        ApiKey::ApiVersions => answer_versions(asked),
        _ => Reply::Silence,
    });
    let begun = Instant::now();
    let cluster = cluster(&[&fake.address]);
    let error = cluster.refresh(&[], begun + Duration::from_millis(100)).unwrap_err();
    assert!(error.to_string().contains("no answer within"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_silent_broker_is_the_last_that_is_asked_again() {
    let others = [nobody(), nobody()];
    let fake = telling(move |_, _| {
        let all = others.iter().map(|at| broker(2, at));
        Some(metadata(all.collect(), vec![]))
    });
    let connections = Arc::new(AtomicUsize::new(0));
    // The order is random: often enough, it comes first.
    for round in 1..=8 {
        let seen = connections.clone();
        let silent = Fake::start(move |_| {
            seen.fetch_add(1, Ordering::SeqCst);
            Reply::Silence
        });
        let cluster = cluster(&[&silent.address, &fake.address]);
        let call = Call { broker: silent.address.clone(), api: "Produce", version: 9 };
        cluster.suspect(&Error::Timeout { call, after: Duration::ZERO });
        cluster.refresh(&[], late()).unwrap();
        assert_eq!(connections.load(Ordering::SeqCst), 0, "round {round}");
    }
}

#[test]
fn what_another_try_cannot_help_ends_a_refresh_at_once() {
    let count = Arc::new(AtomicUsize::new(0));
    let seen = count.clone();
    let fake = telling(move |_, _| {
        seen.fetch_add(1, Ordering::SeqCst);
        Some(metadata(vec![], vec![]).with_error_code(31))
    });
    let error = cluster(&[&fake.address]).refresh(&[], late()).unwrap_err();
    assert!(matches!(error, Error::Refused { code: Code(31), .. }), "{error}");
    assert_eq!(count.load(Ordering::SeqCst), 1);
    let error = cluster(&[]).refresh(&[], late()).unwrap_err();
    assert!(matches!(error, Error::Config(_)), "{error}");
}

#[test]
fn an_abort_ends_the_wait() {
    let stop = Stop::new();
    let policy = Policy { delay: Duration::from_secs(1000), max_delay: Duration::from_secs(1000), ..soon() };
    let cluster = Cluster::new(vec![nobody()], Arc::new(Options::default()), &stop, policy);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| cluster.refresh(&[], Instant::now() + Duration::from_secs(10_000)));
        stop.abort();
        assert!(matches!(waiting.join().unwrap(), Err(Error::HungUp)));
    });
    // A cluster that comes too late waits for nothing either.
    let cluster = Cluster::new(vec![nobody()], Arc::new(Options::default()), &stop, policy);
    assert!(matches!(cluster.refresh(&[], late()), Err(Error::HungUp)));
}

#[test]
fn a_topic_loses_no_partitions_unless_it_is_another() {
    let told = [topic("t", 5, &[(1, 0), (1, 0)]), topic("t", 5, &[(1, 1)]), topic("t", 6, &[(1, 0)])];
    let fake = telling(move |number, _| {
        let here = Address { host: "b".into(), port: 1 };
        Some(metadata(vec![broker(1, &here)], vec![told[number - 1].clone()]))
    });
    let cluster = cluster(&[&fake.address]);
    let counts = [(); 3].map(|()| {
        cluster.refresh(&names(&["t"]), late()).unwrap();
        let topic = cluster.topic("t").unwrap();
        let of = |index: usize| topic.partitions.get(index).map(|one| (one.index, one.epoch));
        (of(0), of(1), topic.partitions.len())
    });
    let expected =
        [(Some((0, 0)), Some((1, 0)), 2), (Some((0, 1)), Some((1, 0)), 2), (Some((0, 0)), None, 1)];
    assert_eq!(counts, expected);
}

#[test]
fn no_broker_is_asked_for_longer_than_metadata_may_be_old() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let addresses = Arc::new(Mutex::new(Vec::new()));
    let fakes = [1, 2, 3].map(|id| {
        let (asked, addresses) = (asked.clone(), addresses.clone());
        telling(move |_, _| {
            asked.lock().push(id);
            let all: Vec<Arc<Address>> = addresses.lock().clone();
            Some(metadata((1..).zip(&all).map(|(id, at)| broker(id, at)).collect(), vec![]))
        })
    });
    *addresses.lock() = fakes.iter().map(|fake| fake.address.clone()).collect();
    let count = |settings| {
        asked.lock().clear();
        let cluster = cluster_with(&[&fakes[0].address], settings);
        (0..20).for_each(|_| cluster.refresh(&[], late()).unwrap());
        let asked = asked.lock().clone();
        assert_eq!(asked.len(), 20);
        asked.windows(2).filter(|pair| pair[0] != pair[1]).count()
    };
    assert_eq!(count(restless()), 19);
    // Else it is one connection to one broker.
    assert_eq!(count(soon().into()), 0);
}

#[test]
fn a_broker_that_answers_is_asked_on_where_no_other_connection_can_be_had() {
    let gone = nobody();
    let connections = Arc::new(AtomicUsize::new(0));
    let seen = connections.clone();
    let fake = Fake::start(move |asked| match asked.key {
        ApiKey::ApiVersions if seen.fetch_add(1, Ordering::SeqCst) == 0 => answer_versions(asked),
        ApiKey::ApiVersions => Reply::Cut,
        _ => asked.answer::<MetadataRequest>(&metadata(vec![broker(1, &gone), broker(2, &gone)], vec![])),
    });
    let cluster = cluster_with(&[&fake.address], restless());
    (0..3).for_each(|_| cluster.refresh(&[], late()).unwrap());
    assert_eq!(connections.load(Ordering::SeqCst), 3);
}

#[test]
fn only_so_much_time_is_spent_on_another_broker() {
    // It takes connections and says nothing.
    let silent = Fake::start(|_| Reply::Silence);
    let (other, own) = (silent.address.clone(), Arc::new(Mutex::new(None)));
    let at: Arc<Mutex<Option<Arc<Address>>>> = own.clone();
    let fake = telling(move |_, _| {
        let own = at.lock().clone().unwrap();
        Some(metadata(vec![broker(1, &other), broker(2, &own)], vec![]))
    });
    *own.lock() = Some(fake.address.clone());
    let cluster = cluster_with(&[&fake.address], restless());
    cluster.refresh(&[], late()).unwrap();
    cluster.refresh(&[], Instant::now() + Duration::from_secs(4)).unwrap();
}
