//! Rebalances in which members keep what they can.

use super::super::protocol::Subscription;
use super::super::*;
use super::ApiKey;
use super::world::*;

fn cooperative() -> GroupSettings {
    GroupSettings { heartbeat_every: Some(LONG / 400), ..settings(Assignor::CooperativeSticky) }
}

fn other(owned: &[i32]) -> (String, bytes::Bytes) {
    let owned = owned.iter().map(|partition| TopicPartition::new("in", *partition)).collect();
    let subscription = Subscription { topics: vec!["in".into()], owned, generation: 1, ..Default::default() };
    ("z".into(), subscription.encode())
}

#[test]
fn what_is_kept_goes_on_and_what_is_taken_is_given_up_before_the_next_join() {
    let setup = Setup::new(cooperative(), |_| {});
    // The first is the one that will move.
    let [third, second, first] = setup.assigned::<3>();
    assert!(setup.commit(&first, 10).is_empty());
    {
        let mut world = setup.world.lock();
        world.others.push(other(&[]));
        world.rebalancing = true;
    }
    let (of, epoch) = match setup.change() {
        Change::Revoked(of, epoch) => (of, epoch),
        other => panic!("{other:?}"),
    };
    assert_eq!((&of, epoch), (&third.of, third.epoch));
    // It joined with all that it owns, and has not joined again.
    setup.wait_for("Heartbeat 2", 1);
    {
        let world = setup.world.lock();
        assert_eq!(world.joins.len(), 2);
        assert_eq!((world.joins[1].owned.len(), world.joins[1].generation), (3, 1));
        // The newcomer got nothing yet.
        let share = world.shares.iter().find(|share| share.0 == "z").unwrap();
        assert!(super::super::protocol::decode_assignment(&share.1).unwrap().is_empty());
    }
    // What was taken may still be committed, in the new generation.
    assert!(setup.commit(&third, 30).is_empty());
    assert!(setup.commit(&first, 11).is_empty());
    assert_eq!(setup.world.lock().count("OffsetCommit 2 0@30 0"), 1);
    setup.group.released(&of, epoch);
    setup.wait_for("Heartbeat 3", 1);
    let world = setup.world.lock();
    assert_eq!(world.joins[2].owned.len(), 2);
    let share = world.shares.iter().find(|share| share.0 == "z").unwrap();
    assert_eq!(super::super::protocol::decode_assignment(&share.1).unwrap(), std::slice::from_ref(&third.of));
    drop(world);
    assert!(setup.group.next_change().is_none(), "what was kept is not told of");
    assert!(setup.commit(&second, 20).is_empty());
    assert_eq!(setup.commit(&third, 31).len(), 1);
}

#[test]
fn a_generation_too_far_ends_what_was_kept() {
    let setup = Setup::new(cooperative(), |_| {});
    let tenancies = setup.assigned::<3>();
    {
        let mut world = setup.world.lock();
        // It was joined without us.
        world.generation += 1;
        world.rebalancing = true;
        world.act(ApiKey::Heartbeat, Act::Code(27));
    }
    for tenancy in &tenancies {
        assert_eq!(setup.change(), Change::Lost(tenancy.of.clone(), tenancy.epoch));
    }
    assert!(setup.assigned::<3>()[0].epoch > tenancies[2].epoch);
}

#[test]
fn a_generation_that_was_not_settled_ends_what_was_kept() {
    let setup = Setup::new(cooperative(), |_| {});
    let tenancies = setup.assigned::<3>();
    {
        let mut world = setup.world.lock();
        world.act(ApiKey::SyncGroup, Act::Code(27));
        world.rebalancing = true;
    }
    assert_eq!(setup.change(), Change::Lost(tenancies[0].of.clone(), tenancies[0].epoch));
    assert_eq!(setup.world.lock().generation, 3);
}

#[test]
fn an_offset_that_is_not_ours_ends_what_was_kept() {
    let setup = Setup::new(cooperative(), |_| {});
    let [first, second, _third] = setup.assigned::<3>();
    assert!(setup.commit(&first, 10).is_empty());
    assert!(setup.commit(&second, 20).is_empty());
    {
        let mut world = setup.world.lock();
        world.offsets.get_mut(&0).unwrap().0 = 5;
        world.rebalancing = true;
    }
    assert_eq!(setup.change(), Change::Lost(first.of.clone(), first.epoch));
    let [again] = setup.assigned::<1>();
    assert_eq!((again.of, again.committed.unwrap().offset), (first.of, 5));
    setup.wait_for("Heartbeat 2", 1);
    assert!(setup.group.next_change().is_none());
    assert!(setup.group.is_owned(&second.of, second.epoch));
}

#[test]
fn a_commit_that_meets_the_rebalance_goes_on_in_the_new_generation() {
    let setup = Setup::new(cooperative(), |_| {});
    let [first, _, _] = setup.assigned::<3>();
    {
        let mut world = setup.world.lock();
        // The coordinator is in the new generation, and we do not know it until the sync is answered.
        world.act(ApiKey::SyncGroup, Act::Code(15));
        world.act(ApiKey::OffsetCommit, Act::Code(27));
        world.act(ApiKey::OffsetCommit, Act::Code(27));
    }
    assert!(setup.commit(&first, 7).is_empty());
    assert_eq!(setup.world.lock().count("OffsetCommit 1 0@7"), 3);
}

#[test]
fn an_illegal_generation_while_joining_is_waited_out() {
    let setup = Setup::new(cooperative(), |_| {});
    let [first, _, _] = setup.assigned::<3>();
    {
        let mut world = setup.world.lock();
        world.rebalancing = true;
        // Offsets are unstable for a while: joined, but not settled.
        (0..3).for_each(|_| world.act(ApiKey::OffsetFetch, Act::Code(88)));
    }
    setup.wait_for("SyncGroup 2", 1);
    assert!(setup.commit(&first, 7).is_empty());
    let log = setup.log();
    assert!(log.contains(&"OffsetCommit 1 0@7 22".to_string()), "{log:?}");
    assert!(log.contains(&"OffsetCommit 2 0@7 0".to_string()), "{log:?}");
    assert!(setup.group.next_change().is_none());
}

#[test]
fn offsets_of_a_transaction_are_known_for_ours_if_they_were_told() {
    for told in [true, false] {
        let setup = Setup::new(cooperative(), |_| {});
        let [first, ..] = setup.assigned::<3>();
        let text = commit_of(&first, 50).metadata.write(50, 0, 0).text;
        if told {
            setup.group.sending(&first.of, first.epoch, 50, &text);
        }
        // The transaction's coordinator writes it.
        setup.world.lock().offsets.insert(0, (50, text));
        setup.world.lock().rebalancing = true;
        setup.wait_for("Heartbeat 2", 1);
        assert_eq!(setup.group.is_owned(&first.of, first.epoch), told);
        assert_eq!(setup.group.next_change().is_none(), told);
    }
}

#[test]
fn what_commits_refuse_while_no_join_is_answered_is_lost_in_the_end() {
    let setup = Setup::new(GroupSettings { session_timeout: LONG / 20, ..cooperative() }, |_| {});
    let [first, second, third] = setup.assigned::<3>();
    {
        let mut world = setup.world.lock();
        world.act(ApiKey::JoinGroup, Act::DoneSilently);
        world.rebalancing = true;
    }
    setup.wait_for("JoinGroup \"m1\" owned [0, 1, 2]", 1);
    // The coordinator's generation is over, the answer to the join never comes.
    assert_eq!(setup.commit(&first, 5), [(first.of.clone(), first.epoch)]);
    for tenancy in [&first, &second, &third] {
        assert_eq!(setup.change(), Change::Lost(tenancy.of.clone(), tenancy.epoch));
    }
    assert!(setup.world.lock().offsets.is_empty());
}

#[test]
fn a_member_that_says_nothing_readable_gets_nothing() {
    let setup = Setup::new(settings(Assignor::Range), |world| {
        world.others.push(("z".into(), bytes::Bytes::from_static(&[0, 1, 0x7f, 0xff, 0xff, 0xff])));
    });
    setup.assigned::<3>();
    assert_eq!(setup.world.lock().shares.len(), 2);
}
