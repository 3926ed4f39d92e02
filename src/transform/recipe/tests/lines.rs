//! Lines that nobody has looked for are the records that a scanner finds in them.

use super::*;
use crate::record::Lined;

/// A chunk as the file source takes it whole: these bytes, which end with a line feed, and how many lines they are.
pub(super) fn lined(bytes: &[u8]) -> Chunk {
    let mut chunk = started(bytes);
    chunk.lined = Lined::new(memchr::memchr_iter(b'\n', bytes).count() as u32);
    chunk
}

/// The same with an entry a record.
fn marked(bytes: &[u8]) -> Chunk {
    let mut chunk = started(bytes);
    for entry in lined(bytes).lined.entries(bytes, chunk.start) {
        let _ = chunk.mark(*entry);
    }
    chunk.end = chunk.start + bytes.len() as u64;
    chunk
}

fn started(bytes: &[u8]) -> Chunk {
    let mut chunk = Chunk::default();
    chunk.start(&partition("file", "data1.json"), 1000);
    (chunk.line, chunk.end) = (7, 1000 + bytes.len() as u64);
    chunk.bytes.extend_from_slice(bytes);
    chunk
}

/// Whatever a line may be.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let odd: Vec<&[u8]> = vec![
        b"",
        b" ",
        b"\t",
        b"\x0c",
        b" 1 ",
        b"1 2",
        b"{",
        b"}",
        b"[",
        b"]",
        b"[1,",
        b"2]",
        b"{\"a\":1,",
        b"\"b\":2}",
        b"\"",
        b"\"\xff\"",
        b"\xff",
        b"\"\xc3",
        b"\xa9\"",
        b"{\"\xc3\xa9\":1}",
        b"{\"a\":1,\"\xc3\xa9\":\"\xc3\xa9\"}",
        b"{\"a\":\"\\u00e9\"}",
        b"tru",
        b"nul\r",
        b"1\r",
        b" {\"a\":1}",
        b"{\"a\":1} ",
        b"-0",
        b"1e",
        b"\xef\xbb\xbf1",
    ];
    let plain = ("[a-c]{1,20}", "\\PC{0,20}", any::<i32>()).prop_map(|(key, text, number)| {
        serde_json::json!({ key: text, "n": number, "list": [number, null, true] }).to_string().into_bytes()
    });
    let ending = prop_oneof![4 => Just(&b"\n"[..]), 1 => Just(&b"\r\n"[..])];
    let text = prop_oneof![4 => plain, 1 => prop::sample::select(odd).prop_map(<[u8]>::to_vec)];
    (text, ending).prop_map(|(text, ending)| [&text, ending].concat())
}

proptest! {
    #[test]
    fn they_become_what_records_become(lines in prop::collection::vec(line(), 1..60)) {
        let bytes = lines.concat();
        let (lined, marked) = (lined(&bytes), marked(&bytes));
        for envelope in [EnvelopeKind::None, EnvelopeKind::Default] {
            for letters in [Letters::Keep, Letters::Drop] {
                let options = || RecipeOptions { envelope, dead_letters: letters, ..options() };
                let (left, right) = (run(options(), &lined), run(options(), &marked));
                prop_assert_eq!(text(&left.stored), text(&right.stored));
                prop_assert_eq!(text(&left.failed), text(&right.failed));
                prop_assert_eq!(&left.rejects, &right.rejects);
                prop_assert_eq!((&left.samples, left.counts), (&right.samples, right.counts));
            }
        }
        prop_assert_eq!(lined.len(), marked.len());
        prop_assert_eq!(lined.is_empty(), marked.is_empty());
    }

    #[test]
    fn transforms_and_keys_see_the_same_records(lines in prop::collection::vec(line(), 1..30)) {
        let bytes = lines.concat();
        let (lined, marked) = (lined(&bytes), marked(&bytes));
        let keyed = |chunk: &Chunk| {
            let (recipe, mut out) = (Recipe::new(options()).records(Key::Source), Out::default());
            chunk.sections().for_each(|section| recipe.run(&section, &mut out));
            (out.stored, out.failed)
        };
        prop_assert_eq!(keyed(&lined), keyed(&marked));
        let seen = |chunk: &Chunk| -> Vec<Entry> {
            chunk.sections().flat_map(|section| section.entries().to_vec()).collect()
        };
        prop_assert_eq!(seen(&lined), seen(&marked));
    }
}
