//! Whether the coordinator keeps what stands beside an offset is found out with the first plan.

use super::super::*;
use super::ApiKey;
use super::world::*;

fn reads(setup: &Setup) -> usize {
    setup.world.lock().count("OffsetFetch")
}

#[test]
fn the_first_plan_of_a_tenancy_is_read_back() {
    let setup = Setup::new(settings(Assignor::CooperativeSticky), |_| {});
    let [first, second, _] = setup.assigned::<3>();
    let commit = |commits: &[Commit]| setup.group.commit(commits, &mut vec![]).unwrap();
    let before = reads(&setup);
    commit(&[commit_of(&first, 1), commit_of(&second, 1)]);
    assert_eq!(reads(&setup), before, "there is no plan yet");
    // What is unstable or fails for now is asked for again.
    setup.world.lock().act(ApiKey::OffsetFetch, Act::Code(88));
    setup.world.lock().act(ApiKey::OffsetFetch, Act::Cut);
    commit(&[planned(&setup, &first, 2, 3), commit_of(&second, 2)]);
    assert_eq!(reads(&setup), before + 3);
    commit(&[planned(&setup, &first, 5, 3), planned(&setup, &second, 5, 3)]);
    assert_eq!(reads(&setup), before + 4, "of the second one only");
    commit(&[planned(&setup, &first, 6, 3), planned(&setup, &second, 6, 3)]);
    assert_eq!(reads(&setup), before + 4);
}

#[test]
fn a_plan_that_an_earlier_owner_left_is_proof() {
    let plan = vec![crate::source::Planned { end: 9, first_time: 1, opened_at: 2 }];
    let text = Metadata { topic_id: Uuid::from_u128(7), location: 0, plan }.write(5, 9, 0).text;
    let setup = Setup::new(settings(Assignor::CooperativeSticky), |world| {
        world.offsets.insert(0, (5, text));
    });
    let [first, ..] = setup.assigned::<3>();
    let before = reads(&setup);
    setup.group.commit(&[planned(&setup, &first, 6, 3)], &mut vec![]).unwrap();
    assert_eq!(reads(&setup), before);
}

#[test]
fn metadata_that_are_dropped_or_cut_end_the_run_before_anything_is_published_by_them() {
    for keeps in [0, 50, 60] {
        let setup = Setup::new(settings(Assignor::CooperativeSticky), |world| world.keeps = Some(keeps));
        let [first, ..] = setup.assigned::<3>();
        setup.group.commit(&[commit_of(&first, 1)], &mut vec![]).unwrap();
        let error = setup.group.commit(&[planned(&setup, &first, 2, 9)], &mut vec![]).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("does not keep the metadata of commits"), "{text}");
        assert!(text.contains(&format!("{keeps} came back for in-0")), "{text}");
        assert_eq!(error.exit_code(), 4);
    }
}

#[test]
fn a_plan_that_is_left_out_of_the_answer_is_asked_for_again_and_not_for_ever() {
    let give_up_after = LONG / 100;
    let times = GroupSettings { give_up_after, ..settings(Assignor::CooperativeSticky) };
    let setup = Setup::new(times, |_| {});
    let [first, second, _] = setup.assigned::<3>();
    let before = reads(&setup);
    setup.world.lock().left_out = (2, vec![0]);
    setup.group.commit(&[planned(&setup, &first, 2, 3)], &mut vec![]).unwrap();
    assert_eq!(reads(&setup), before + 3);
    setup.world.lock().left_out = (usize::MAX, vec![1]);
    let error = setup.group.commit(&[planned(&setup, &second, 2, 3)], &mut vec![]).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("gave up after ") && text.ends_with("out of its answer about offsets: in-1"),
        "{text}"
    );
    assert_eq!(error.exit_code(), 1);
}
