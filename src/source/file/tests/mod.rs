//! Drives the source as the engine does, on small files in a directory of their own.

mod far;
mod found;
mod known;
mod packed;
mod stock;
mod streaming;

use std::fs;
use std::io::Write;

use super::bytes::{Bytes, End, Got};
use super::fill::{Begin, Filled, Filler};
use super::*;
use crate::cut::{Close, Cutters, Limits};
use crate::json::{Scanner, Syntax, is_decided};
use crate::record::{Payload, RejectKind};
use crate::source::{Forget, Marks};

/// A directory that is removed when it is dropped.
struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Dir(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn options(inputs: &[&str]) -> FileOptions {
    FileOptions {
        inputs: inputs.iter().map(|input| (*input).to_owned()).collect(),
        format: Format::Auto,
        max_record_bytes: 16 << 20,
        shard: None,
        limit: None,
        window_limit: 8 << 20,
        outputs: Vec::new(),
    }
}

/// One record as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    position: u64,
    end: u64,
    line: u64,
    text: String,
    fault: Option<RejectKind>,
    length: Option<u64>,
}

/// What came of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Heard {
    records: Vec<Seen>,
    /// Ends of batches, with their lines.
    cuts: Vec<(u64, u64, Close)>,
    /// Ends of chunks, and whether of blocks.
    chunks: Vec<(u64, u64, bool)>,
}

impl Heard {
    fn add(&mut self, chunk: &Chunk) {
        let mut next = chunk.start;
        for section in chunk.sections() {
            let faults: Vec<_> = section.faults().collect();
            for (index, entry) in section.entries().iter().enumerate() {
                assert!(entry.position >= next, "positions ascend");
                let fault = faults.iter().find(|(at, _)| *at == index).map(|(_, why)| *why);
                next = if fault.is_some() { chunk.end } else { entry.end() };
                self.records.push(Seen {
                    position: entry.position,
                    end: next,
                    line: section.line(entry.at as usize).unwrap(),
                    text: String::from_utf8_lossy(section.record(entry).bytes).into_owned(),
                    fault: fault.map(|why| why.kind),
                    length: fault.and_then(|why| why.length),
                });
            }
        }
        assert!(next <= chunk.end);
        assert_eq!(
            chunk.start,
            self.chunks.last().map_or(chunk.start, |last| last.0),
            "chunks are contiguous"
        );
        self.cuts.extend(chunk.cuts.iter().map(|cut| (cut.end, cut.line, cut.close)));
        let end_line = chunk.errand.as_ref().map_or(chunk.end_line, |errand| errand.lines().unwrap().1);
        self.chunks.push((chunk.end, end_line, chunk.block_end));
    }

    fn texts(&self) -> Vec<&str> {
        self.records.iter().map(|seen| seen.text.as_str()).collect()
    }
}

fn limits(batch_size: u64, block_bytes: u64) -> Limits {
    Limits { batch_size, batch_bytes: 0, block_bytes, block_records: 1000 }
}

/// What one reader says until it is done; `each` is called before every read.
fn drive(
    source: &FileSource,
    marks: &dyn Marks,
    mut each: impl FnMut(usize),
) -> Vec<(String, Heard, String)> {
    let stop = Stop::new();
    let mut readers = source.open(&Start { marks, readers: 1, workers: 0, stop: &stop }).unwrap();
    let mut chunk = Chunk { cutters: Cutters::new(limits(3, 64)), ..Chunk::default() };
    let mut all: Vec<(String, Heard, String)> = Vec::new();
    for call in 0.. {
        each(call);
        match readers[0].read(&mut chunk).unwrap() {
            Read::Assigned(partition, _) => {
                chunk.cutters.assign(&partition, &[]);
                all.push((partition.name().to_owned(), Heard::default(), String::new()));
            }
            Read::Chunk => all.last_mut().unwrap().1.add(&chunk),
            Read::Ended(_) => all.last_mut().unwrap().2 = "ended".into(),
            Read::Failed(_, error) => all.last_mut().unwrap().2 = error.to_string(),
            Read::Idle => std::thread::yield_now(),
            Read::Done => break,
            other => panic!("{other:?}"),
        }
    }
    all
}

#[track_caller]
fn read(options: FileOptions) -> Vec<(String, Heard, String)> {
    drive(&FileSource::new(options).unwrap(), &Forget, |_| {})
}

#[track_caller]
fn read_one(options: FileOptions) -> (Heard, String) {
    let (_, heard, end) = read(options).remove(0);
    (heard, end)
}

#[track_caller]
fn usage(options: FileOptions) -> String {
    match FileSource::new(options) {
        Err(error) if error.exit_code() == 2 => error.to_string(),
        Err(error) => panic!("{error:?}"),
        Ok(source) => panic!("{:?}", source.inputs()),
    }
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn records_have_positions_lines_and_batches() {
    let dir = Dir::new();
    let path = dir.write("a.json", "\u{feff}1\r\n\n2\n3\n4\n\n5");
    let (heard, end) = read_one(options(&[&path]));
    assert_eq!(end, "ended");
    assert_eq!(heard.texts(), ["1", "2", "3", "4", "5"]);
    let places: Vec<_> = heard.records.iter().map(|seen| (seen.position, seen.line)).collect();
    assert_eq!(places, [(3, 1), (7, 3), (9, 4), (11, 5), (14, 7)]);
    assert_eq!(heard.cuts, [(11, 5, Close::Count)]);
    assert_eq!(heard.chunks, [(15, 7, false)]);
}

#[test]
fn inputs_without_records_end() {
    let dir = Dir::new();
    for (text, end) in [("", None), (" \n\n", Some((3, 3, false))), ("[]", Some((2, 1, false)))] {
        let (heard, how) = read_one(options(&[&dir.write("a", text)]));
        assert_eq!((heard.chunks.first().copied(), how.as_str()), (end, "ended"), "{text:?}");
        assert!(heard.records.is_empty());
    }
}

#[test]
fn every_format_is_read() {
    let dir = Dir::new();
    for (text, expected) in [
        ("[{\"a\":1},\n 2]\n", vec!["{\"a\":1}", "2"]),
        ("{\n\"a\":1\n}\n{\n}", vec!["{\n\"a\":1\n}", "{\n}"]),
        ("{}\n{\n", vec!["{}", "{"]),
    ] {
        assert_eq!(read_one(options(&[&dir.write("a", text)])).0.texts(), expected);
    }
    let text = FileOptions { format: Format::Text, ..options(&[&dir.write("a", "[x\n\ny")]) };
    assert_eq!(read_one(text).0.texts(), ["[x", "", "y"]);
}

#[test]
fn faults_of_the_whole_input_are_rejections() {
    let dir = Dir::new();
    let check = |text: &str, kind: RejectKind, last: &str| {
        let (heard, end) = read_one(options(&[&dir.write("a", text)]));
        let seen = heard.records.last().unwrap();
        assert_eq!((seen.fault, seen.text.as_str(), end.as_str()), (Some(kind), last, "ended"));
        assert_eq!(heard.chunks.last().unwrap().0, text.len() as u64);
    };
    check("[1,2", RejectKind::Incomplete, "2");
    check("[1,2] x \n", RejectKind::InvalidJson, "x");
    // A block ends behind the element, so the comma comes with the next chunk.
    check(&format!("[\"{}\",", "x".repeat(70)), RejectKind::Incomplete, ",");
    check(&format!("[\"{}\",,", "x".repeat(70)), RejectKind::Incomplete, ",");
    check("{\n\"a\":1}\n{\n", RejectKind::Incomplete, "{\n");
}

#[test]
fn compressed_input_reads_like_plain() {
    let dir = Dir::new();
    let data: Vec<u8> = (0..5000).flat_map(|n| format!("{{\"n\":{n}}}\n").into_bytes()).collect();
    let plain = read_one(options(&[&dir.write("a", &data)]));
    let (head, tail) = data.split_at(777);
    let members = [gzip(head), gzip(tail)].concat();
    let frames = [zstd::bulk::compress(head, 1).unwrap(), zstd::bulk::compress(tail, 1).unwrap()].concat();
    for packed in [members, frames] {
        assert!(read_one(options(&[&dir.write("a", packed)])) == plain);
    }
}

#[test]
fn a_cut_gzip_gives_what_stood_before_the_cut() {
    let dir = Dir::new();
    let data: Vec<u8> = (0..50_000).flat_map(|n| format!("{{\"n\":{n}}}\n").into_bytes()).collect();
    let packed = gzip(&data);
    let (heard, end) = read_one(options(&[&dir.write("a", &packed[..packed.len() - 20])]));
    assert!(heard.records.len() > 40_000, "{}", heard.records.len());
    assert!(heard.records.iter().all(|seen| seen.text.ends_with('}')), "no half record");
    assert!(end.contains("damaged at byte") && end.contains("in the middle of a gzip member"), "{end}");
}

#[test]
fn a_record_that_is_too_large_is_a_rejection_in_every_format() {
    let dir = Dir::new();
    let long = format!("\"{}\n\"", "x".repeat(300_000));
    for (text, format) in [
        (format!("1\n{}\n2\n", long.replace('\n', "y")), Format::Ndjson),
        (format!("[1,\n{long},2]"), Format::Auto),
        (format!("1\n{long} 2\n"), Format::Json),
    ] {
        let path = dir.write("a", &text);
        let (heard, end) = read_one(FileOptions { format, max_record_bytes: 100_000, ..options(&[&path]) });
        assert_eq!(end, "ended");
        let [one, large, two] = &heard.records[..] else { panic!("{:?}", heard.texts().len()) };
        assert_eq!((one.text.as_str(), two.text.as_str(), two.line), ("1", "2", 3), "{}", &text[..10]);
        assert_eq!(large.fault, Some(RejectKind::TooLarge));
        assert_eq!(large.length, Some(long.len() as u64));
        assert_eq!(large.text.len(), crate::record::BEGINNING);
        assert_eq!(two.position, text.rfind('2').unwrap() as u64);
        assert_eq!(heard.chunks.last().unwrap().0, text.len() as u64);
    }
}

#[test]
fn a_limit_ends_the_run() {
    let dir = Dir::new();
    let (a, b, c) = (dir.write("a", "1\n2\n"), dir.write("b", "3\n4\n5\n"), dir.write("c", "6\n"));
    let all = read(FileOptions { limit: Some(3), ..options(&[&a, &b, &c]) });
    let texts: Vec<_> = all.iter().map(|(_, heard, end)| (heard.texts(), end.as_str())).collect();
    assert_eq!(texts, [(vec!["1", "2"], "ended"), (vec!["3"], "ended")]);
    assert_eq!(all[1].1.chunks.last().unwrap().0, 2);
}

/// Marks of a run that stopped at a position.
struct At(u64, u64, bool);

impl Marks for At {
    fn load(&self, name: &str) -> Result<Option<Mark>> {
        let partition = Partition::named("file", name);
        let (watermark, line, ended) = (self.0, self.1, self.2);
        Ok(Some(Mark {
            partition,
            watermark,
            line,
            resume: None,
            plan: vec![],
            rejected: 0,
            ended,
            fresh: false,
        }))
    }

    fn store(&self, _marks: &mut [Mark], _refused: &mut Vec<Partition>) -> Result<()> {
        Ok(())
    }
}

#[test]
fn a_run_goes_on_at_every_batch_end() {
    let dir = Dir::new();
    let lines: String = (0..40).map(|n| format!("{{\"n\":{n}}}\n\n")).collect();
    let array = format!("[{}]\n", (0..40).map(|n| format!("[{n}]\n")).collect::<Vec<_>>().join(" ,"));
    let values: String = (0..40).map(|n| format!("{{\"n\":\n{n}}}\n")).collect();
    for data in [
        lines.as_bytes(),
        array.as_bytes(),
        values.as_bytes(),
        &gzip(lines.as_bytes()),
        &gzip(array.as_bytes()),
    ] {
        let source = FileSource::new(options(&[&dir.write("a", data)])).unwrap();
        let whole = drive(&source, &Forget, |_| {}).remove(0).1;
        assert_eq!(whole.cuts.len(), 13);
        for (end, line, _) in &whole.cuts {
            let rest = drive(&source, &At(*end, *line, false), |_| {}).remove(0).1;
            let expected: Vec<_> =
                whole.records.iter().filter(|seen| seen.position >= *end).cloned().collect();
            assert_eq!(rest.records, expected);
            assert!(whole.cuts.ends_with(&rest.cuts));
        }
    }
}

#[test]
fn a_run_goes_on_before_the_commas_that_an_array_ends_with() {
    let dir = Dir::new();
    for commas in 1..8 {
        let path = dir.write("a", format!("[1{}", ",".repeat(commas)));
        let source = FileSource::new(options(&[&path])).unwrap();
        let whole = drive(&source, &Forget, |_| {}).remove(0).1;
        assert_eq!(whole.records.len(), commas.max(2));
        for (end, line, _) in &whole.cuts {
            let rest = drive(&source, &At(*end, *line, false), |_| {}).remove(0).1;
            let before = whole.records.len() - rest.records.len();
            assert_eq!(rest.records, whole.records[before..], "{commas} commas, from {end}");
            assert_eq!(before % 3, 0, "{commas} commas, from {end}");
        }
    }
}

#[test]
fn what_was_read_to_its_end_is_not_opened() {
    let dir = Dir::new();
    let source = FileSource::new(options(&[&dir.write("a", "1\n")])).unwrap();
    fs::remove_file(dir.path("a")).unwrap();
    let (_, heard, end) = drive(&source, &At(2, 2, true), |_| {}).remove(0);
    assert_eq!((heard, end.as_str()), (Heard::default(), "ended"));
}

#[test]
fn a_file_that_is_gone_fails_alone() {
    let dir = Dir::new();
    let source = FileSource::new(options(&[&dir.write("a", "1\n"), &dir.write("b", "2\n")])).unwrap();
    fs::remove_file(dir.path("a")).unwrap();
    let all = drive(&source, &Forget, |_| {});
    assert!(all[0].2.contains("is gone since the run began"), "{}", all[0].2);
    assert_eq!((all[1].1.texts(), all[1].2.as_str()), (vec!["2"], "ended"));
}

/// Reads a large file and changes it between the first chunks.
fn change(name: &str, change: impl Fn(&Path)) -> (Heard, String) {
    let dir = Dir::new();
    let data: String = (0..200_000).map(|n| format!("{{\"n\":{n:06}}}\n")).collect();
    let path = dir.write(name, data + "{\"half\"");
    let source = FileSource::new(options(&[&path])).unwrap();
    let (_, heard, end) = drive(&source, &Forget, |call| {
        if call == 5 {
            change(Path::new(&path));
        }
    })
    .remove(0);
    (heard, end)
}

#[test]
fn a_file_that_changes_while_it_is_read_is_reported() {
    let (heard, end) =
        change("a", |path| fs::OpenOptions::new().write(true).open(path).unwrap().set_len(1 << 20).unwrap());
    assert!(end.contains("truncated"), "{end}");
    assert!(heard.records.len() > 60_000 && heard.records.iter().all(|seen| seen.text.len() == 12));
    let (_, end) = change("a", |path| {
        fs::rename(path, path.with_extension("old")).unwrap();
        fs::write(path, "1\n").unwrap();
    });
    assert!(end.contains("replaced"), "{end}");
    let (_, end) = change("a", |path| {
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    });
    assert!(end.contains("changed"), "{end}");
    let (_, end) = change("a", |path| fs::write(path, "{\"b\":1}\n".repeat(400_000)).unwrap());
    assert!(end.contains("overwritten"), "{end}");
}

#[test]
fn a_file_that_grows_is_read_up_to_the_last_line_that_was_whole() {
    let (heard, end) = change("a", |path| {
        fs::OpenOptions::new().append(true).open(path).unwrap().write_all(b":1}\n{}\n").unwrap();
    });
    assert_eq!(end, "ended");
    assert_eq!(heard.records.len(), 200_000);
    assert_eq!(heard.chunks.last().unwrap().0, 200_000 * 13);
}

/// A pause of a pipe is no reason to guess.
#[test]
fn the_form_of_a_pipe_is_decided_by_what_nothing_can_change() {
    let auto = |head: &str| is_decided(Format::Auto, head.as_bytes());
    for head in
        ["", "\n\n \n", "{\"x\":{\"cut\n", "{\n", "1", "{}", "x\ny\n", "{\"x\":\n{}\n", "{\n\"a\":[\n2\n"]
    {
        assert!(!auto(head), "{head:?}");
    }
    for head in ["[", " \n[1", "{}\n", "{\"x\":1\"\n{}\n", "\n\n1\n{", "{\n\"a\":1\n}"] {
        assert!(auto(head), "{head:?}");
    }
    let json = |head: &str| is_decided(Format::Json, head.as_bytes());
    assert!(!json("\n\n") && json("{") && json("\n["));
}

trait FromBytes {
    fn from_encoded_bytes_checked(bytes: &[u8]) -> &std::ffi::OsStr;
}

impl FromBytes for std::ffi::OsStr {
    fn from_encoded_bytes_checked(bytes: &[u8]) -> &std::ffi::OsStr {
        std::os::unix::ffi::OsStrExt::from_bytes(bytes)
    }
}

#[test]
fn a_pipe_is_read_until_it_is_closed_and_a_stop_is_seen() {
    let dir = Dir::new();
    let path = dir.path("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::from(0o600), 0)
        .unwrap();
    let source = FileSource::new(options(&[&path])).unwrap();
    assert_eq!(source.size(), None);
    let mut writer = None;
    let (_, heard, end) = drive(&source, &Forget, |call| match call {
        // The first reads find no writer, then one that has written half a record.
        3 => {
            let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all(b"{\"a\":").unwrap();
            writer = Some(file);
        }
        5 => {
            writer.take().unwrap().write_all(b"1}\n2\n").unwrap();
        }
        _ => {}
    })
    .remove(0);
    assert_eq!((heard.texts(), end.as_str()), (vec!["{\"a\":1}", "2"], "ended"));

    let stop = Stop::new();
    let mut readers = source.open(&Start { marks: &Forget, readers: 1, workers: 0, stop: &stop }).unwrap();
    let mut chunk = Chunk::default();
    assert!(matches!(readers[0].read(&mut chunk), Ok(Read::Assigned(..))));
    stop.drain();
    assert!(matches!(readers[0].read(&mut chunk), Ok(Read::Done)));
}

/// A pause in the middle of what tells the form of the input decides nothing.
#[test]
fn a_pause_does_not_change_what_the_records_of_a_pipe_are() {
    for (format, first, second, records) in [
        (Format::Auto, "{\"x\":{\"cut\n", "{\"n\":1}\n{\"n\":2}\n", 3),
        (Format::Json, "\n\n\n\n", "[{\"n\":1},{\"n\":2},{\"n\":3}]\n", 3),
        (Format::Auto, "\n\n\n\n", "{\n\"n\":1\n}\n{\n\"n\":2\n}\n", 2),
    ] {
        let dir = Dir::new();
        let path = dir.path("pipe");
        let mode = rustix::fs::Mode::from(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let source = FileSource::new(FileOptions { format, ..options(&[&path]) }).unwrap();
        let mut writer = None;
        let (_, heard, end) = drive(&source, &Forget, |call| match call {
            3 => {
                let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
                file.write_all(first.as_bytes()).unwrap();
                writer = Some(file);
            }
            // The reads between find nothing more.
            7 => writer.take().unwrap().write_all(second.as_bytes()).unwrap(),
            _ => {}
        })
        .remove(0);
        assert_eq!((heard.records.len(), end.as_str()), (records, "ended"), "{first:?}");
    }
}

#[test]
fn a_file_is_recognised() {
    use crate::source::Same;
    use identity::{compare, fingerprint};
    let dir = Dir::new();
    let path = dir.write("a", "1\n2\n3\n");
    let path = Path::new(&path);
    let old = fingerprint(path, Some(4), u64::MAX).unwrap();
    let now = |bytes: &[u8]| {
        fs::write(path, bytes).unwrap();
        compare(&old, 4, path).unwrap()
    };
    assert_eq!(now(b"1\n2\n3\n"), Same::Unchanged);
    assert_eq!(now(b"1\n2\n3\n4\n"), Same::Grown { from: 6, to: 8 });
    for changed in [&b"1\n2\n3"[..], b"0\n2\n3\n4\n"] {
        assert!(matches!(now(changed), Same::Changed { .. }));
    }
    fs::write(path, "1\n2").unwrap();
    let old = fingerprint(path, None, u64::MAX).unwrap();
    fs::write(path, "1\n23\n").unwrap();
    let Same::Changed { what } = compare(&old, 3, path).unwrap() else { panic!() };
    assert!(what.contains("in the middle of a record"), "{what}");
}
