use super::*;

/// Everything comes although the first answers have this code.
fn passes(code: i16) -> usize {
    let twist: Twist = Box::new(move |id, count, asked, scene| {
        (matches!(count, 1 | 3 | 4)).then(|| changed(id, asked, scene, |data| data.error_code = code))
    });
    let mut world = World::new(Setup { leaders: vec![1], twist: Some(twist), ..Setup::default() });
    world.add(0, 0, -1);
    world.read_to(&[(0, 60)]);
    world.scene.lock().metadata_count
}

#[test]
fn codes_that_pass_are_followed_by_a_refresh() {
    for code in [-1, 2, 3, 5, 6, 7, 9, 13, 56, 72, 74, 75, 78, 89, 100, 103, 106] {
        assert!(passes(code) >= 3, "{code}");
    }
}

#[test]
fn codes_for_the_whole_answer_that_pass_do_too() {
    for code in [-1, 13, 70, 71, 106] {
        let twist: Twist = Box::new(move |_, count, asked, _| {
            (count < 3).then(|| asked.answer::<FetchRequest>(&FetchResponse::default().with_error_code(code)))
        });
        let mut world = World::new(Setup { leaders: vec![1], twist: Some(twist), ..Setup::default() });
        world.add(0, 0, -1);
        world.read_to(&[(0, 60)]);
    }
}

#[test]
fn codes_that_stay_are_told_and_end_the_partition_alone() {
    for (code, expected) in [
        (29, FetchFault::Denied(Code(29))),
        (4, FetchFault::Other(Code(4))),
        (35, FetchFault::Other(Code(35))),
        (76, FetchFault::Other(Code(76))),
        (109, FetchFault::Other(Code(109))),
        (999, FetchFault::Other(Code(999))),
    ] {
        let twist: Twist = Box::new(move |id, _, asked, scene| {
            Some(changed(id, asked, scene, |data| {
                if data.partition_index == 0 {
                    data.error_code = code;
                }
            }))
        });
        let mut world = World::new(Setup { leaders: vec![1, 1], twist: Some(twist), ..Setup::default() });
        world.add(0, 0, -1);
        world.add(1, 0, -1);
        assert_eq!(world.fault(), (0, expected));
        world.read_to(&[(1, 60)]);
        let asked = |seen: &Seen| seen.asks.iter().any(|ask| ask.partition == 0);
        assert!(world.scene.lock().seen.iter().filter(|seen| asked(seen)).count() <= 2);
    }
}

#[test]
fn codes_that_pass_do_so_where_a_position_is_validated_too() {
    for code in [-1, 3, 6, 74, 75] {
        let mut world = World::new(Setup { leaders: vec![1], ..Setup::default() });
        world.scene.lock().refusals = vec![code; 2];
        world.add(0, 30, 0);
        world.read_to(&[(0, 60)]);
        assert_eq!(world.scene.lock().validated, 3, "{code}");
    }
}

#[test]
fn partitions_that_are_left_out_of_an_answer_are_asked_for_again() {
    let twist: Twist = Box::new(|_, count, asked, _| {
        (count < 3).then(|| asked.answer::<FetchRequest>(&FetchResponse::default()))
    });
    let mut world = World::new(Setup { leaders: vec![1], twist: Some(twist), ..Setup::default() });
    world.add(0, 0, -1);
    world.read_to(&[(0, 60)]);
}

#[test]
fn an_offset_out_of_range_is_told_and_the_caller_can_begin_elsewhere() {
    for (offset, epoch) in [(61, -1), (5, -1), (61, 0), (5, 0)] {
        let mut world = World::new(Setup { leaders: vec![1], ..Setup::default() });
        world.scene.lock().logs.get_mut(&0).unwrap().start = 30;
        world.add(0, offset, epoch);
        let expected = FetchFault::OutOfRange { log_start: 30, high_watermark: 60 };
        assert_eq!(world.fault(), (0, expected));
        // With the epoch of the last record, the leader was asked whether it has it before and after.
        assert_eq!(world.scene.lock().validated, if epoch < 0 { 0 } else { 2 });
        world.add(0, 30, -1);
        world.read_to(&[(0, 60)]);
    }
}

#[test]
fn an_offset_out_of_range_because_the_log_was_cut_back_is_a_truncation() {
    let twist: Twist = Box::new(|id, count, asked, scene| {
        (count > 3).then(|| changed(id, asked, scene, |data| data.error_code = 1))
    });
    let mut world = World::new(Setup { leaders: vec![1], twist: Some(twist), ..Setup::default() });
    world.scene.lock().ends.insert(0, (-1, -1));
    world.add(0, 0, -1);
    assert_eq!(world.fault(), (0, FetchFault::Truncated { offset: 9, epoch: 0, end: -1 }));
}
