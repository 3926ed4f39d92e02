//! What goes wrong, and what comes of it.

use super::super::round::Round;
use super::super::*;
use super::ApiKey;
use super::world::*;

fn short(assignor: Assignor) -> GroupSettings {
    GroupSettings { heartbeat_every: Some(LONG / 400), ..settings(assignor) }
}

/// All are lost, then assigned again.
#[track_caller]
fn lost_and_assigned(setup: &Setup, tenancies: &[Tenancy; 3]) -> [Tenancy; 3] {
    for tenancy in tenancies {
        assert_eq!(setup.change(), Change::Lost(tenancy.of.clone(), tenancy.epoch));
        assert!(!setup.group.is_owned(&tenancy.of, tenancy.epoch));
    }
    setup.assigned::<3>()
}

#[test]
fn a_heartbeat_that_is_fenced_loses_all() {
    for code in [22, 25] {
        for assignor in [Assignor::Range, Assignor::CooperativeSticky] {
            let setup = Setup::new(short(assignor), |_| {});
            let tenancies = setup.assigned::<3>();
            setup.world.lock().act(ApiKey::Heartbeat, Act::Code(code));
            lost_and_assigned(&setup, &tenancies);
            let member = if code == 25 { "m2" } else { "m1" };
            assert_eq!(setup.group.identity().unwrap().member, member);
        }
    }
}

#[test]
fn a_commit_that_is_fenced_loses_all() {
    for code in [22, 25] {
        for assignor in [Assignor::Range, Assignor::CooperativeSticky] {
            let setup = Setup::new(settings(assignor), |_| {});
            let tenancies = setup.assigned::<3>();
            setup.world.lock().act(ApiKey::OffsetCommit, Act::Code(code));
            assert_eq!(setup.commit(&tenancies[0], 5), [(tenancies[0].of.clone(), tenancies[0].epoch)]);
            lost_and_assigned(&setup, &tenancies);
            assert!(setup.world.lock().offsets.is_empty());
        }
    }
}

#[test]
fn a_lost_reply_ends_all_tenancies_and_forces_a_new_generation() {
    for (act, stored) in [(Act::DoneSilently, true), (Act::Silence, false), (Act::Cut, false)] {
        let setup = Setup::with(settings(Assignor::CooperativeSticky), LONG / 20, |_| {});
        let tenancies = setup.assigned::<3>();
        setup.world.lock().act(ApiKey::OffsetCommit, act);
        assert_eq!(setup.commit(&tenancies[0], 5), [(tenancies[0].of.clone(), tenancies[0].epoch)]);
        let again = lost_and_assigned(&setup, &tenancies);
        let world = setup.world.lock();
        assert_eq!(world.generation, 2);
        assert!(world.joins[1].owned.is_empty());
        assert_ne!(world.joins[0].user_data, world.joins[1].user_data);
        assert_eq!(again[0].committed.is_some(), stored);
    }
}

#[test]
fn retriable_codes_of_a_commit_are_tried_again() {
    for code in [7, 14, 15, 16, 27, 3] {
        let setup = Setup::new(settings(Assignor::CooperativeSticky), |_| {});
        let [first, ..] = setup.assigned::<3>();
        setup.world.lock().act(ApiKey::OffsetCommit, Act::Code(code));
        assert!(setup.commit(&first, 5).is_empty(), "{code}");
        assert_eq!(setup.world.lock().offsets[&0].0, 5);
        assert!(setup.group.next_change().is_none());
    }
}

#[test]
fn a_commit_in_doubt_says_which_try_it_was_and_what_the_next_waits_for() {
    let setup = Setup::new(settings(Assignor::CooperativeSticky), |_| {});
    let mut round = Round::new(&setup.group, &[]);
    let lost = || crate::kafka::Error::Unavailable("no answer".into());
    assert!(
        round.doubted(&lost()).ends_with("no answer; attempt 1, next when the group has a new generation")
    );
    assert!(round.doubted(&lost()).contains("attempt 2, next when"));
    assert_eq!(setup.group.cluster.options().services.told()[&("kafka", lost().kind())].retries, 2);
}

#[test]
fn a_new_coordinator_is_found_by_commits_and_heartbeats() {
    for code in [14, 15, 16] {
        let setup = Setup::new(short(Assignor::CooperativeSticky), |_| {});
        setup.assigned::<3>();
        let found = setup.world.lock().count("FindCoordinator");
        setup.world.lock().act(ApiKey::Heartbeat, Act::Code(code));
        setup.world.lock().act(ApiKey::FindCoordinator, Act::Code(15));
        setup.wait_for("FindCoordinator", found + 2);
        let beats = setup.world.lock().count("Heartbeat");
        setup.wait_for("Heartbeat", beats + 2);
        assert_eq!(setup.world.lock().generation, 1);
        assert!(setup.group.next_change().is_none());
        let told = setup.group.cluster.options().services.told();
        for code in [crate::kafka::Code(code), crate::kafka::Code::COORDINATOR_NOT_AVAILABLE] {
            assert!(told[&("kafka", code.name())].retries >= 1, "{told:?}");
        }
    }
}

#[test]
fn without_heartbeats_all_is_lost_when_the_session_must_have_expired() {
    let settings = GroupSettings { session_timeout: LONG / 20, ..settings(Assignor::CooperativeSticky) };
    let setup = Setup::new(settings, |_| {});
    let tenancies = setup.assigned::<3>();
    {
        let mut world = setup.world.lock();
        (0..100).for_each(|_| world.act(ApiKey::Heartbeat, Act::Silence));
    }
    for tenancy in &tenancies {
        assert_eq!(setup.change(), Change::Lost(tenancy.of.clone(), tenancy.epoch));
    }
    assert_eq!(setup.commit(&tenancies[0], 5).len(), 1);
    setup.world.lock().acts.clear();
    setup.assigned::<3>();
}

#[test]
fn codes_of_a_join_are_answered() {
    // Retriable ones are tried again; an unknown member joins as a new one.
    for code in [14, 15, 16, 25, 27] {
        let setup =
            Setup::new(settings(Assignor::Range), |world| world.act(ApiKey::JoinGroup, Act::Code(code)));
        setup.assigned::<3>();
    }
    for code in [14, 15, 16, 22, 25, 27] {
        let setup =
            Setup::new(settings(Assignor::Range), |world| world.act(ApiKey::SyncGroup, Act::Code(code)));
        setup.assigned::<3>();
        assert_eq!(setup.world.lock().count("SyncGroup"), 2, "{code}");
    }
}

#[test]
fn what_no_try_can_help_ends_the_run_and_says_what_to_do() {
    for (code, advice) in [
        (30, "an ACL must allow READ"),
        (23, "set kafka.assignor"),
        (81, "group.max.size"),
        (26, "kafka.session_timeout"),
        (24, "set another kafka.group"),
        (82, "kafka.instance_id"),
    ] {
        let mut setup =
            Setup::new(settings(Assignor::Range), |world| world.act(ApiKey::JoinGroup, Act::Code(code)));
        let error = setup.failed();
        assert!(error.to_string().contains(advice), "{error}");
        assert!(error.to_string().contains(crate::kafka::Code(code).name()), "{error}");
        assert_eq!(error.exit_code(), 4);
    }
    let mut setup =
        Setup::new(settings(Assignor::Range), |world| world.act(ApiKey::FindCoordinator, Act::Code(30)));
    assert!(setup.failed().to_string().contains("an ACL must allow READ"));
}

#[test]
fn a_fenced_instance_ends_the_run_wherever_it_shows() {
    for key in [ApiKey::Heartbeat, ApiKey::SyncGroup, ApiKey::OffsetCommit] {
        let instance_id = Some("one".to_string());
        let mut setup = Setup::new(GroupSettings { instance_id, ..short(Assignor::Range) }, |world| {
            world.act(key, Act::Code(82));
        });
        if key == ApiKey::OffsetCommit {
            let [first, ..] = setup.assigned::<3>();
            assert_eq!(setup.commit(&first, 1).len(), 1);
        }
        let error = setup.failed();
        assert!(error.to_string().contains("instance id \"one\""), "{error}");
    }
}

#[test]
fn unstable_offsets_are_waited_for() {
    let setup = Setup::new(settings(Assignor::Range), |world| {
        world.offsets.insert(0, (5, "x".into()));
        (0..2).for_each(|_| world.act(ApiKey::OffsetFetch, Act::Code(88)));
    });
    let [first, ..] = setup.assigned::<3>();
    assert_eq!(first.committed.unwrap().metadata, Remembered::Foreign("x".into()));
    assert_eq!(setup.world.lock().count("OffsetFetch"), 3);
}

/// How often was told that a coordinator left something out, as of metrics; that is said in the log too.
fn omissions(setup: &Setup) -> u64 {
    let told = setup.group.cluster.options().services.told();
    told.get(&("kafka", "unavailable")).map_or(0, |trouble| trouble.retries)
}

#[test]
fn offsets_that_are_left_out_are_asked_for_again_later_and_later_and_that_is_told_once() {
    let begun = Instant::now();
    let setup = Setup::new(settings(Assignor::Range), |world| world.left_out = (6, vec![1]));
    assert_eq!(setup.assigned::<3>().map(|tenancy| tenancy.of.partition), [0, 1, 2]);
    let delays: u64 = [20, 40, 80, 160, 320, 640].iter().sum();
    assert!(begun.elapsed() >= Duration::from_millis(delays));
    assert_eq!((setup.world.lock().count("OffsetFetch"), omissions(&setup)), (7, 1));
}

#[test]
fn heartbeats_go_on_while_offsets_are_left_out() {
    let setup = Setup::new(short(Assignor::Range), |world| world.left_out = (usize::MAX, vec![0, 2]));
    setup.wait_for("Heartbeat", 5);
    setup.world.lock().left_out.0 = 0;
    setup.assigned::<3>();
    assert_eq!((setup.world.lock().generation, omissions(&setup)), (1, 1));
}

#[test]
fn offsets_that_are_left_out_for_long_are_an_error_that_names_them() {
    let give_up_after = LONG / 100;
    let mut setup = Setup::new(GroupSettings { give_up_after, ..settings(Assignor::Range) }, |world| {
        world.left_out = (usize::MAX, vec![0, 2]);
    });
    let error = setup.failed();
    let text = error.to_string();
    assert!(text.contains("group g: asking for offsets: gave up after "), "{text}");
    let coordinator = setup.world.lock().address.clone().unwrap();
    let what =
        format!("coordinator {coordinator} left 2 partitions out of its answer about offsets: in-0, in-2");
    assert!(text.ends_with(&what), "{text}");
    assert_eq!(error.exit_code(), 1);
}

#[test]
fn commits_of_another_topic_of_that_name_are_ignored_and_plans_of_another_output_refused() {
    let plan = vec![crate::source::Planned { end: 9, first_time: 1, opened_at: 2 }];
    let text =
        |id, location, plan| Metadata { topic_id: Uuid::from_u128(id), location, plan }.write(5, 9, 0).text;
    let (foreign, ours) = (text(8, 0, plan.clone()), text(7, 0, plan.clone()));
    let setup = Setup::new(settings(Assignor::Range), |world| {
        world.offsets.insert(0, (5, foreign));
        world.offsets.insert(1, (5, ours));
        world.offsets.insert(2, (5, text(7, 99, vec![])));
    });
    let [first, second, third] = setup.assigned::<3>();
    assert_eq!(first.committed, None);
    let Remembered::Ours(metadata) = second.committed.unwrap().metadata else { panic!() };
    assert_eq!(metadata.plan, plan);
    assert_eq!(third.committed.unwrap().offset, 5);
    let mut setup = Setup::new(settings(Assignor::Range), |world| {
        world.offsets.insert(0, (5, text(7, 99, plan)));
    });
    let error = setup.failed();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("for another output"), "{error}");
}

#[test]
fn what_another_version_has_planned_is_not_passed_by() {
    let metadata = Metadata { topic_id: Uuid::from_u128(7), location: 0, plan: vec![] }.write(5, 9, 0).text;
    for text in [metadata.replacen('1', "2", 1), "pipeline1.?".into()] {
        let mut setup = Setup::new(settings(Assignor::Range), |world| {
            world.offsets.insert(0, (5, text));
        });
        let error = setup.failed();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("another version"), "{error}");
    }
}

#[test]
fn metadata_that_are_too_large_are_cut_and_that_is_told() {
    let setup = Setup::new(settings(Assignor::Range), |world| {
        (0..2).for_each(|_| world.act(ApiKey::OffsetCommit, Act::Code(12)));
    });
    let [first, ..] = setup.assigned::<3>();
    let plan = (1..=8).map(|n| crate::source::Planned { end: 5 + n, first_time: 1, opened_at: 2 }).collect();
    let commit = Commit { metadata: setup.group.metadata(first.topic_id, plan), ..commit_of(&first, 5) };
    let mut refused = vec![];
    let short = setup.group.commit(std::slice::from_ref(&commit), &mut refused).unwrap();
    assert!(refused.is_empty());
    assert_eq!(short, [CutShort { of: first.of.clone(), epoch: first.epoch, ends: 2 }]);
    let (offset, text) = setup.world.lock().offsets[&0].clone();
    let Remembered::Ours(read) = Remembered::read(Some(&text), offset) else { panic!() };
    assert_eq!(read.plan, commit.metadata.plan[..2]);
    // Not even without a plan: nothing helps.
    (0..9).for_each(|_| setup.world.lock().act(ApiKey::OffsetCommit, Act::Code(12)));
    let error = setup.group.commit(&[commit], &mut refused).unwrap_err();
    assert!(error.to_string().contains("offset.metadata.max.bytes"), "{error}");
}

#[test]
fn a_stalled_pipeline_leaves_and_comes_back() {
    let times = GroupSettings {
        session_timeout: LONG / 20,
        max_poll_interval: LONG / 20,
        ..settings(Assignor::CooperativeSticky)
    };
    let setup = Setup::new(times, |_| {});
    let tenancies = setup.assigned::<3>();
    for tenancy in &tenancies {
        assert_eq!(setup.change(), Change::Lost(tenancy.of.clone(), tenancy.epoch));
    }
    setup.wait_for("LeaveGroup m1", 1);
    assert_eq!(setup.world.lock().joins.len(), 1);
    setup.group.polled();
    setup.assigned::<3>();
    assert_eq!(setup.group.identity().unwrap().member, "m2");
}

#[test]
fn new_partitions_are_found_and_a_topic_that_was_created_anew() {
    let settings = GroupSettings { metadata_every: LONG / 400, ..settings(Assignor::CooperativeSticky) };
    let setup = Setup::new(settings, |_| {});
    let tenancies = setup.assigned::<3>();
    setup.world.lock().partitions = 4;
    let [fourth] = setup.assigned::<1>();
    assert_eq!(fourth.of.partition, 3);
    setup.world.lock().topic_id = 8;
    for tenancy in tenancies.iter().chain([&fourth]) {
        assert_eq!(setup.change(), Change::Lost(tenancy.of.clone(), tenancy.epoch));
    }
    assert_eq!(setup.assigned::<4>()[0].topic_id, Uuid::from_u128(8));
}

#[test]
fn the_end_is_seen_while_a_join_waits() {
    let mut setup = Setup::new(settings(Assignor::Range), |world| world.act(ApiKey::JoinGroup, Act::Silence));
    setup.wait_for("JoinGroup silence", 1);
    setup.end().unwrap();
    let mut setup = Setup::new(settings(Assignor::Range), |world| world.act(ApiKey::JoinGroup, Act::Silence));
    setup.wait_for("JoinGroup silence", 1);
    setup.stop.abort();
    assert!(matches!(setup.failed(), crate::Error::Stopped));
}

#[test]
fn an_abort_ends_a_commit_that_waits() {
    let setup = Setup::new(settings(Assignor::Range), |_| {});
    let [first, ..] = setup.assigned::<3>();
    (0..1000).for_each(|_| setup.world.lock().act(ApiKey::OffsetCommit, Act::Code(27)));
    std::thread::scope(|scope| {
        let commit = scope.spawn(|| setup.group.commit(&[commit_of(&first, 5)], &mut vec![]));
        setup.wait_for("OffsetCommit", 2);
        setup.stop.abort();
        assert!(matches!(commit.join().unwrap(), Err(crate::Error::Stopped)));
    });
}

#[test]
fn no_coordinator_for_long_is_an_error_that_says_so() {
    let give_up_after = LONG / 100;
    let mut setup = Setup::new(GroupSettings { give_up_after, ..short(Assignor::Range) }, |world| {
        (0..10_000).for_each(|_| world.act(ApiKey::FindCoordinator, Act::Code(15)));
    });
    let error = setup.failed();
    assert!(error.to_string().contains("COORDINATOR_NOT_AVAILABLE"), "{error}");
    assert_eq!(error.exit_code(), 1);
}

#[test]
fn a_partition_that_cannot_be_committed_for_long_is_lost_alone() {
    let setup = Setup::with(settings(Assignor::CooperativeSticky), LONG / 20, |_| {});
    let [first, second, _] = setup.assigned::<3>();
    {
        let mut world = setup.world.lock();
        (0..1000).for_each(|_| world.act(ApiKey::OffsetCommit, Act::Code(3)));
    }
    assert_eq!(setup.commit(&first, 5).len(), 1);
    assert_eq!(setup.change(), Change::Lost(first.of.clone(), first.epoch));
    setup.world.lock().acts.clear();
    // It joins again to learn what there is.
    assert_eq!(setup.assigned::<1>()[0].of, first.of);
    assert!(setup.group.is_owned(&second.of, second.epoch));
}

#[test]
fn a_static_member_keeps_its_id_over_a_stall() {
    let times = GroupSettings {
        session_timeout: LONG / 20,
        max_poll_interval: LONG / 20,
        instance_id: Some("one".into()),
        ..settings(Assignor::Range)
    };
    let setup = Setup::new(times, |_| {});
    setup.assigned::<3>();
    for _ in 0..3 {
        assert!(matches!(setup.change(), Change::Lost(..)));
    }
    setup.group.polled();
    setup.assigned::<3>();
    let world = setup.world.lock();
    assert_eq!((world.count("LeaveGroup"), &world.member[..], world.generation), (0, "m1", 2));
}

#[test]
fn after_a_lost_reply_no_old_generation_will_do() {
    let setup = Setup::new(settings(Assignor::CooperativeSticky), |_| {});
    let tenancies = setup.assigned::<3>();
    {
        let mut world = setup.world.lock();
        world.act(ApiKey::OffsetCommit, Act::Cut);
        world.stale = 1;
    }
    assert_eq!(setup.commit(&tenancies[0], 5).len(), 1);
    lost_and_assigned(&setup, &tenancies);
    let world = setup.world.lock();
    assert_eq!((world.joins.len(), world.count("SyncGroup 1"), world.count("SyncGroup 2")), (3, 1, 1));
}

/// As in a group of the newer protocol, whose epochs rise only when something changes.
#[test]
fn after_a_lost_reply_another_member_id_will_do_where_no_new_generation_comes() {
    for instance_id in [None, Some("one".to_string())] {
        let settings = GroupSettings { instance_id, ..settings(Assignor::CooperativeSticky) };
        let setup = Setup::new(settings, |_| {});
        let tenancies = setup.assigned::<3>();
        {
            let mut world = setup.world.lock();
            world.act(ApiKey::OffsetCommit, Act::Cut);
            world.stale = u32::MAX;
        }
        assert_eq!(setup.commit(&tenancies[0], 5).len(), 1);
        let again = lost_and_assigned(&setup, &tenancies);
        assert!(setup.commit(&again[0], 6).is_empty());
        let world = setup.world.lock();
        assert_eq!((world.generation, &world.member[..], world.offsets[&0].0), (1, "m2", 6));
        let is_static = setup.group.settings().instance_id.is_some();
        assert_eq!(world.count("LeaveGroup m1"), usize::from(!is_static));
    }
}

#[test]
fn a_member_that_is_refused_again_and_again_takes_its_time() {
    let begun = Instant::now();
    let setup = Setup::new(settings(Assignor::Range), |world| {
        (0..6).for_each(|_| world.act(ApiKey::JoinGroup, Act::Code(25)));
    });
    setup.assigned::<3>();
    // One is ordinary.
    let delays: u64 = [40, 80, 160, 320, 640].iter().sum();
    assert!(begun.elapsed() >= Duration::from_millis(delays));
}
