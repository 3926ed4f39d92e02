//! Partitions that are given up out of turn: in doubt, at the end of a run, or lost between a join and its answer.

use super::super::*;
use super::ApiKey;
use super::world::*;

fn short(assignor: Assignor) -> GroupSettings {
    GroupSettings { heartbeat_every: Some(LONG / 400), ..settings(assignor) }
}

#[test]
fn a_partition_in_doubt_is_given_anew_and_the_others_stay() {
    let setup = Setup::new(short(Assignor::CooperativeSticky), |_| {});
    let [first, second, _] = setup.assigned::<3>();
    assert!(setup.commit(&first, 5).is_empty());
    setup.group.doubted(&first.of, first.epoch);
    assert_eq!(setup.change(), Change::Lost(first.of.clone(), first.epoch));
    assert_eq!(setup.commit(&first, 6).len(), 1, "nothing more of it is committed");
    let [again] = setup.assigned::<1>();
    assert_eq!((&again.of, again.committed.unwrap().offset), (&first.of, 5));
    assert!(again.epoch > first.epoch);
    assert!(setup.group.is_owned(&second.of, second.epoch));
    // It is over already.
    setup.group.doubted(&first.of, first.epoch);
    assert!(setup.group.next_change().is_none());
}

/// Of what a member has claimed and is not given, others wait for its next join, even if it lost that meanwhile.
#[test]
fn what_was_claimed_and_lost_is_not_withheld_from_others() {
    let setup = Setup::new(short(Assignor::CooperativeSticky), |_| {});
    let tenancies = setup.assigned::<3>();
    {
        let mut world = setup.world.lock();
        // A generation is joined and not settled: with the next one all is lost.
        world.act(ApiKey::SyncGroup, Act::Code(27));
        world.given = Some(vec![1, 2]);
        world.rebalancing = true;
    }
    for tenancy in &tenancies {
        assert_eq!(setup.change(), Change::Lost(tenancy.of.clone(), tenancy.epoch));
    }
    setup.assigned::<2>();
    setup.wait_for("SyncGroup 4", 1);
    let world = setup.world.lock();
    assert_eq!((world.joins[2].owned.len(), world.joins[3].owned.len()), (3, 2));
}

#[test]
fn a_member_whose_run_drains_lets_go_and_leaves() {
    for assignor in [Assignor::Range, Assignor::CooperativeSticky] {
        let mut setup = Setup::new(short(assignor), |_| {});
        let tenancies = setup.assigned::<3>();
        setup.stop.drain();
        // Nobody asks for it yet.
        setup.group.released(&tenancies[2].of, tenancies[2].epoch);
        assert!(setup.commit(&tenancies[0], 5).is_empty());
        setup.world.lock().rebalancing = true;
        for tenancy in &tenancies[..2] {
            assert_eq!(setup.change(), Change::Revoked(tenancy.of.clone(), tenancy.epoch));
        }
        assert!(setup.commit(&tenancies[0], 6).is_empty(), "what is in flight is still committed");
        assert_eq!(setup.world.lock().count("LeaveGroup"), 0);
        tenancies[..2].iter().for_each(|tenancy| setup.group.released(&tenancy.of, tenancy.epoch));
        setup.wait_for("LeaveGroup m1", 1);
        setup.end().unwrap();
        let world = setup.world.lock();
        assert_eq!((world.joins.len(), world.count("LeaveGroup")), (1, 1));
        assert!(setup.group.next_change().is_none());
    }
}

/// What is in flight when a next generation was joined, and not settled, is fenced: nobody waits for it.
#[test]
fn a_draining_member_does_not_wait_for_what_is_fenced() {
    let setup = Setup::new(settings(Assignor::CooperativeSticky), |_| {});
    let tenancies = setup.assigned::<3>();
    assert_eq!(setup.group.state().departing(1).len(), 3, "this generation is settled");
    assert!(setup.group.state().departing(2).is_empty());
    for tenancy in &tenancies {
        assert_eq!(setup.change(), Change::Lost(tenancy.of.clone(), tenancy.epoch));
    }
}
