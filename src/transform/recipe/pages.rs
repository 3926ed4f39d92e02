//! Envelopes of records that stand in pages.

use super::*;
use crate::record::{Chunk, Identity, Incoming, Partition};

/// The lines that become of records at these positions, with their own identities where they have some.
fn lines(kind: EnvelopeKind, records: &[(u64, Option<&str>)]) -> Vec<String> {
    let mut chunk = Chunk::default();
    let partition = Partition::new(Identity {
        source: "http",
        name: "h/a".into(),
        metadata: "\"name\":\"h/a\"".into(),
        opened_at: Some(0),
        cycle: Some(3),
        ..Identity::default()
    });
    chunk.start(&partition, 0);
    for (position, id) in records {
        let none: [(&[u8], Option<&[u8]>); 0] = [];
        let key = id.map(str::as_bytes);
        let _ = match key {
            Some(_) => {
                chunk.push_incoming(*position, Incoming { key, value: Some(b"1"), time: None, headers: none })
            }
            None => chunk.push(*position, b"1"),
        };
    }
    let recipe = Recipe::new(RecipeOptions { envelope: kind, ..RecipeOptions::default() });
    let mut out = Out::default();
    chunk.sections().for_each(|section| recipe.run(&section, &mut out));
    String::from_utf8(out.stored).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_position_is_cycle_page_and_index() {
    let at = |page: u64, index: u64| (page << 32 | index, None);
    let all =
        lines(EnvelopeKind::Default, &[at(0, 0), at(0, 9), at(0, 10), at(9, 10), at(10, 10), at(10, 0)]);
    let found: Vec<(&str, &str)> = all
        .iter()
        .map(|line| {
            let id = line.split('"').nth(3).unwrap();
            (id, line.split("\"metadata\":").nth(1).unwrap())
        })
        .collect();
    for ((id, metadata), (page, index)) in
        found.iter().zip([(0, 0), (0, 9), (0, 10), (9, 10), (10, 10), (10, 0)])
    {
        assert_eq!(*id, format!("http:h/a:3:{page}:{index}"));
        let expected =
            format!("{{\"name\":\"h/a\",\"cycle\":3,\"page\":{page},\"index\":{index}}},\"data\":1}}");
        assert_eq!(*metadata, expected);
    }
}

#[test]
fn an_identity_of_its_own_is_the_last_part() {
    let all = lines(EnvelopeKind::Default, &[(7, Some("a\"b")), (8, None)]);
    assert!(all[0].starts_with("{\"message_id\":\"http:h/a:a\\\"b\","), "{}", all[0]);
    assert!(all[0].contains("\"index\":7,\"key\":\"a\\\"b\"}"), "{}", all[0]);
    assert!(all[1].starts_with("{\"message_id\":\"http:h/a:3:0:8\","), "{}", all[1]);
    let events = lines(EnvelopeKind::CloudEvents, &[(7, Some("x")), (8, None)]);
    assert!(events[0].contains("\"id\":\"http:h/a:x\""), "{}", events[0]);
    assert!(events[1].contains("\"id\":\"http:h/a:3:0:8\""), "{}", events[1]);
}
