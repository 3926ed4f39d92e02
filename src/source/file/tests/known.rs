//! What an earlier run has read of a file: whether it is still that file, and where it goes on.

use super::bytes::Raw;
use super::identity::{Fingerprint, compare, fingerprint};
use super::*;
use crate::source::Same;

/// Longer than what is hashed at either place: lines of 10 bytes.
fn lines() -> Vec<u8> {
    (0..30_000).flat_map(|n| format!("{n:09}\n").into_bytes()).collect()
}

/// What is read up to a mark, and what becomes of it.
struct Known {
    dir: Dir,
    before: Vec<u8>,
    old: Fingerprint,
    watermark: u64,
}

impl Known {
    fn new(before: Vec<u8>, watermark: u64) -> Self {
        let dir = Dir::new();
        let path = dir.write("a", &before);
        let old = fingerprint(Path::new(&path), Some(watermark), u64::MAX).unwrap();
        Known { dir, before, old, watermark }
    }

    fn after(&self, change: impl FnOnce(&mut Vec<u8>)) -> Same {
        let mut bytes = self.before.clone();
        change(&mut bytes);
        compare(&self.old, self.watermark, Path::new(&self.dir.write("a", bytes))).unwrap()
    }
}

#[track_caller]
fn changed(same: Same, how: &str) {
    let Same::Changed { what } = same else { panic!("{same:?}") };
    assert!(what.contains(how), "{what}");
}

#[test]
fn a_large_file_is_recognised_by_its_beginning_and_by_what_stands_before_the_mark() {
    let read = Known::new(lines(), 200_000);
    assert_eq!(read.after(|_| {}), Same::Unchanged);
    changed(read.after(|bytes| bytes[5] = b'x'), "another beginning");
    for at in [200_000 - (64 << 10), 199_998] {
        changed(read.after(|bytes| bytes[at] = b'x'), "other bytes before byte 200000");
    }
    changed(read.after(|bytes| bytes.truncate(250_000)), "shrank from 300000 to 250000 bytes");
    // Nobody has read that yet.
    assert_eq!(read.after(|bytes| bytes[200_000] = b'x'), Same::Unchanged);
    let grown = Same::Grown { from: 300_000, to: 300_001 };
    assert_eq!(read.after(|bytes| bytes.push(b'x')), grown);
}

/// Its mark counts decoded bytes, and may be larger than the file.
#[test]
fn a_compressed_file_is_recognised_by_its_end_wherever_its_mark_is() {
    let packed = [&[0x1f, 0x8b, 8, 0][..], &[7; 200_000]].concat();
    for watermark in [10, 100_000, 1 << 30] {
        let read = Known::new(packed.clone(), watermark);
        assert_eq!(read.after(|_| {}), Same::Unchanged);
        changed(read.after(|bytes| bytes[5] = b'x'), "another beginning");
        changed(read.after(|bytes| bytes[200_000] = b'x'), "other bytes before byte 200004");
        let grown = Same::Grown { from: 200_004, to: 200_005 };
        assert_eq!(read.after(|bytes| bytes.push(b'x')), grown);
    }
}

#[test]
fn what_came_since_it_was_opened_is_not_known() {
    let dir = Dir::new();
    let path = dir.write("a", "1\n2\n3\n");
    let path = Path::new(&path);
    let old = fingerprint(path, None, 4).unwrap();
    assert_eq!(compare(&old, 4, path).unwrap(), Same::Grown { from: 4, to: 6 });
    let none = fingerprint(path, Some(0), 0).unwrap();
    assert_eq!(compare(&none, 0, path).unwrap(), Same::Grown { from: 0, to: 6 });
}

/// A run that was killed between the last batch and the end has a mark at the very end.
#[test]
fn a_mark_at_the_end_leaves_nothing_to_read() {
    let dir = Dir::new();
    let (small, large) = (b"1\n2\n".to_vec(), lines());
    for (data, record) in [(&small, 2), (&large, 10)] {
        let end = data.len() as u64;
        let packed = [data.clone(), gzip(data), zstd::bulk::compress(data, 1).unwrap()];
        for bytes in packed {
            let source = FileSource::new(options(&[&dir.write("a", bytes)])).unwrap();
            let (_, heard, how) = drive(&source, &At(end, 3, false), |_| {}).remove(0);
            assert_eq!((heard.records.len(), how.as_str()), (0, "ended"));
            let (_, heard, how) = drive(&source, &At(end - record, 3, false), |_| {}).remove(0);
            assert!(heard.records.len() == 1 && how == "ended", "{how}");
        }
    }
}

#[test]
fn a_file_that_ends_before_its_mark_is_damaged() {
    let dir = Dir::new();
    let (small, large) = (b"1\n2\n".to_vec(), lines());
    for data in [&small, &large] {
        for bytes in [data.clone(), gzip(data)] {
            let source = FileSource::new(options(&[&dir.write("a", bytes)])).unwrap();
            for behind in [1, 2, 100_000] {
                let mark = At(data.len() as u64 + behind, 3, false);
                let (_, heard, how) = drive(&source, &mark, |_| {}).remove(0);
                assert!(
                    heard.records.is_empty() && how.contains("shorter than what an earlier run"),
                    "{how}"
                );
            }
        }
    }
}

/// Decoding what is done takes long, and a stop is seen meanwhile.
#[test]
fn what_is_passed_over_may_take_many_calls() {
    let dir = Dir::new();
    let data = format!("\"{}\"\n", "x".repeat((1 << 20) - 3)).repeat(20);
    let packed = zstd::bulk::compress(data.as_bytes(), 1).unwrap();
    let source = FileSource::new(options(&[&dir.write("a", packed)])).unwrap();
    let mut calls = 0;
    let heard = drive(&source, &At(19 << 20, 20, false), |call| calls = call).remove(0).1;
    assert_eq!(
        heard.records.iter().map(|seen| (seen.position, seen.line)).collect::<Vec<_>>(),
        [(19 << 20, 20)]
    );
    assert!(calls >= 4, "{calls}");
}

#[test]
fn a_mark_that_knows_no_line_is_at_the_first_one() {
    let dir = Dir::new();
    let source = FileSource::new(options(&[&dir.write("a", "1\n")])).unwrap();
    assert_eq!(drive(&source, &At(0, 0, false), |_| {}).remove(0).1.records[0].line, 1);
}

/// Makes a pipe; what is given is written to it when it is asked for the second time, piece by piece.
fn piped(source: impl Fn(&str) -> FileSource, marks: &dyn Marks, pieces: &[&[u8]]) -> (Heard, String) {
    let dir = Dir::new();
    let path = dir.path("pipe");
    let mode = rustix::fs::Mode::from(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let (mut writer, mut pieces) = (None, pieces.iter());
    let (_, heard, end) = drive(&source(&path), marks, |call| {
        if call >= 2 {
            let open = || fs::OpenOptions::new().write(true).open(&path).unwrap();
            match pieces.next() {
                Some(piece) => writer.get_or_insert_with(open).write_all(piece).unwrap(),
                None => writer = None,
            }
        }
    })
    .remove(0);
    (heard, end)
}

#[test]
fn a_pipe_is_read_from_its_beginning_whatever_is_remembered() {
    let source = |path: &str| FileSource::new(options(&[path])).unwrap();
    let (heard, end) = piped(source, &At(2, 2, false), &[b"1\n", b"2\n"]);
    assert_eq!((heard.texts(), end.as_str()), (vec!["1", "2"], "ended"));
}

/// Whether it is compressed is known by several bytes, and the first may come alone.
#[test]
fn a_compressed_pipe_that_begins_slowly_is_decoded() {
    let source = |path: &str| FileSource::new(options(&[path])).unwrap();
    for packed in [gzip(b"1\n2\n"), zstd::bulk::compress(b"1\n2\n", 1).unwrap()] {
        let (heard, end) = piped(source, &Forget, &[&packed[..1], &packed[1..3], &packed[3..]]);
        assert_eq!((heard.texts(), end.as_str()), (vec!["1", "2"], "ended"));
    }
}

#[test]
fn what_looks_like_no_text_is_read_where_a_format_is_asked_for() {
    let dir = Dir::new();
    let path = dir.write("a", b"PAR1\nx\n");
    assert!(read_one(options(&[&path])).1.contains("it is Parquet"));
    let (heard, end) = read_one(FileOptions { format: Format::Text, ..options(&[&path]) });
    assert_eq!((heard.texts(), end.as_str()), (vec!["PAR1", "x"], "ended"));
}

/// The cut is found before there are enough bytes to tell the form of the input.
#[test]
fn a_small_file_that_is_cut_gives_what_stood_before_the_cut_and_fails() {
    let dir = Dir::new();
    let data: Vec<u8> = (0..500).flat_map(|n| format!("{{\"n\":{n}}}\n").into_bytes()).collect();
    let packed = gzip(&data);
    let (heard, end) = read_one(options(&[&dir.write("a", &packed[..packed.len() - 8])]));
    assert_eq!(heard.records.len(), 500);
    assert!(end.contains("in the middle of a gzip member"), "{end}");
}

/// The last line needs no line feed to tell that records are lines.
#[test]
fn a_broken_line_does_not_hide_the_last_one() {
    let dir = Dir::new();
    let heard = read_one(options(&[&dir.write("a", "{\"cut\n{\"n\":1}")])).0;
    assert_eq!(heard.texts(), ["{\"cut", "{\"n\":1}"]);
}

/// What is found out when all was read, since nothing before it was short.
#[test]
fn a_file_that_is_cut_behind_the_reader_is_reported_at_its_end() {
    let dir = Dir::new();
    let path = dir.write("a", "1\n2\n");
    let mut raw = Raw::regular("a", Path::new(&path), &Arc::default()).unwrap();
    let mut bytes = Vec::with_capacity(100);
    assert!(matches!(raw.read(&mut bytes), Got::Bytes));
    assert_eq!((bytes.as_slice(), raw.at()), (&b"1\n2\n"[..], 4));
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(2).unwrap();
    let Got::Failed(error) = raw.read(&mut bytes) else { panic!() };
    assert!(error.to_string().contains("from 4 to 2 bytes"), "{error}");
}

#[test]
fn a_compressed_file_that_grew_in_the_middle_of_a_record_is_refused() {
    let dir = Dir::new();
    let goes_on = |format: Format, old: &str, new: &str, at: usize| {
        let path = dir.write("a", [gzip(old.as_bytes()), gzip(new.as_bytes())].concat());
        let options = FileOptions { format, ..options(&[&path]) };
        let marks = At(at as u64, 1, false);
        let (_, heard, end) = drive(&FileSource::new(options).unwrap(), &marks, |_| {}).remove(0);
        match end.as_str() {
            "ended" => Some(heard.texts().join(" ")),
            _ => {
                assert!(end.contains("it has grown in the middle of the last record"), "{end}");
                assert!(heard.records.is_empty());
                None
            }
        }
    };
    let goes_on_behind = |format, old: &str, new: &str| goes_on(format, old, new, old.len());
    let long = "1\n".repeat(40_000);
    for before in ["", &long] {
        let lines = |last: &str, new: &str| goes_on_behind(Format::Ndjson, &(before.to_owned() + last), new);
        assert_eq!(lines("1\n2\n", "3\n").as_deref(), Some("3"));
        assert_eq!(lines("1\n2", "").as_deref(), Some(""), "nothing has come");
        assert_eq!(lines("1\n2", "3\n"), None);
        assert_eq!(lines("1\n2", "\n3\n"), None, "as of a plain file");
    }
    assert_eq!(goes_on_behind(Format::Text, "a\nb", "c\n"), None);
    let values = |old: &str, new: &str| goes_on_behind(Format::Json, old, new);
    assert_eq!(values("1 2", "3\n"), None);
    assert_eq!(values("1 2", " 3\n").as_deref(), Some("3"));
    assert_eq!(values("1 {}", "2\n").as_deref(), Some("2"));
    assert_eq!(values("1 \"a", "b\"\n"), None);
    // What was cut there is followed by what ended it.
    assert_eq!(goes_on(Format::Json, "1 2{}", "", 3).as_deref(), Some("{}"));
    assert_eq!(goes_on(Format::Auto, "[1,2", ",3]", 3).as_deref(), Some("2 3"));
}
