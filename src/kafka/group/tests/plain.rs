//! The usual life of a member.

use super::super::*;
use super::world::*;

#[test]
fn a_member_joins_commits_and_leaves() {
    let mut setup = Setup::new(settings(Assignor::Range), |_| {});
    let tenancies = setup.assigned::<3>();
    assert_eq!(tenancies.each_ref().map(|tenancy| tenancy.of.partition), [0, 1, 2]);
    assert!(tenancies.iter().all(|tenancy| tenancy.committed.is_none()));
    assert!(setup.commit(&tenancies[1], 42).is_empty());
    assert_eq!(setup.world.lock().offsets[&1].0, 42);
    let identity = setup.group.identity().unwrap();
    assert_eq!((identity.generation, &identity.member[..]), (1, "m1"));
    setup.end().unwrap();
    assert_eq!(setup.log().last().unwrap(), "LeaveGroup m1");
    assert!(setup.group.identity().is_none());
    assert!(!setup.group.is_owned(&tenancies[0].of, tenancies[0].epoch));
}

#[test]
fn a_static_member_says_its_name_and_does_not_leave() {
    let instance_id = Some("one".to_string());
    let mut setup = Setup::new(GroupSettings { instance_id, ..settings(Assignor::Range) }, |_| {});
    setup.assigned::<3>();
    setup.end().unwrap();
    assert_eq!(setup.world.lock().count("JoinGroup"), 1, "no member id was asked for");
    assert_eq!(setup.world.lock().count("LeaveGroup"), 0);
}

#[test]
fn an_eager_rebalance_waits_for_release_before_it_joins() {
    let setup =
        Setup::new(GroupSettings { heartbeat_every: Some(LONG / 400), ..settings(Assignor::Range) }, |_| {});
    let tenancies = setup.assigned::<3>();
    setup.world.lock().rebalancing = true;
    for tenancy in &tenancies {
        assert_eq!(setup.change(), Change::Revoked(tenancy.of.clone(), tenancy.epoch));
    }
    // Commits go on while the others wait, and heartbeats too.
    assert!(setup.commit(&tenancies[2], 5).is_empty());
    let beats = setup.world.lock().count("Heartbeat");
    setup.wait_for("Heartbeat", beats + 2);
    assert_eq!(setup.world.lock().joins.len(), 1);
    tenancies.iter().for_each(|tenancy| setup.group.released(&tenancy.of, tenancy.epoch));
    let again = setup.assigned::<3>();
    assert!(again[0].epoch > tenancies[2].epoch);
    assert_eq!(again[2].committed.as_ref().unwrap().offset, 5);
    assert!(setup.world.lock().joins[1].owned.is_empty());
    // The old tenancy is over.
    assert_eq!(setup.commit(&tenancies[0], 9), [(tenancies[0].of.clone(), tenancies[0].epoch)]);
    assert!(!setup.world.lock().offsets.contains_key(&0));
}

#[test]
fn what_is_not_released_in_time_is_lost() {
    let release_within = LONG / 20;
    let setup = Setup::new(
        GroupSettings { heartbeat_every: Some(LONG / 400), release_within, ..settings(Assignor::Range) },
        |_| {},
    );
    let [first, second, third] = setup.assigned::<3>();
    setup.world.lock().rebalancing = true;
    for _ in 0..3 {
        assert!(matches!(setup.change(), Change::Revoked(..)));
    }
    setup.group.released(&second.of, second.epoch);
    assert_eq!(setup.change(), Change::Lost(first.of, first.epoch));
    assert_eq!(setup.change(), Change::Lost(third.of, third.epoch));
    setup.assigned::<3>();
}
