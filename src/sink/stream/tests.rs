//! Tests of the streams, over real pipes and files.

use std::fs::{self, File};
use std::io::{PipeReader, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use super::*;
use crate::sink::Sink;
use crate::sink::dir::place::Fsync;
use crate::sink::dir::tests::{Scratch, batch};
use crate::sink::key::Namer;

fn pipe() -> (PipeReader, StdoutSink, Stop) {
    let (reader, writer) = std::io::pipe().unwrap();
    let stop = Stop::new();
    let sink = StdoutSink::on(File::from(OwnedFd::from(writer)), Codec::None, &stop).unwrap();
    (reader, sink, stop)
}

fn file(path: &Path) -> Result<FileSink> {
    let (codec, fsync) = (Codec::None, Fsync::On);
    FileSink::create(FileOptions { path: path.to_owned(), codec, fsync, stop: Stop::new() })
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn stdout_has_everything_in_order() {
    let (mut reader, sink, _) = pipe();
    let large = "x".repeat(300_000);
    let batches = [batch("a", 0, &["1\n", &large], &[]), batch("a", 10, &["\n2\n"], &[])];
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        let mut receipts = Vec::new();
        sink.store(&batches, &mut receipts).unwrap();
        sink.finish().unwrap();
        assert_eq!((receipts.len(), &receipts[0].key), (2, &None));
        drop(sink);
        assert_eq!(reading.join().unwrap(), format!("1\n{large}\n2\n"));
    });
}

#[test]
fn a_reader_that_goes_away_is_output_closed() {
    let (reader, sink, _) = pipe();
    drop(reader);
    let mut receipts = Vec::new();
    let error = sink.store(&[batch("a", 0, &["1\n"], &[])], &mut receipts).unwrap_err();
    assert!(matches!(error, Error::OutputClosed), "{error}");
    assert!(receipts.is_empty());
}

#[test]
fn a_reader_that_stalls_does_not_hold_an_abort() {
    for kind in [Kind::Open, Kind::Shared] {
        let (_reader, sink, stop) = pipe();
        let (other, writer) = std::io::pipe().unwrap();
        let sink = match kind {
            Kind::Open => sink,
            _ => {
                let out = Out::new(OwnedFd::from(writer).into(), "-".into(), Codec::None, stop.clone());
                let out = out.unwrap();
                assert_eq!(out.kind, Kind::Shared);
                StdoutSink::of(out)
            }
        };
        let large = batch("a", 0, &[&"x".repeat(1 << 20)], &[]);
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| sink.store(std::slice::from_ref(&large), &mut Vec::new()));
            let begun = Instant::now();
            stop.abort();
            assert!(matches!(writing.join().unwrap(), Err(Error::Stopped)));
            assert!(begun.elapsed() < Duration::from_secs(1));
        });
        // What was written half-way is not begun again.
        assert!(sink.store(std::slice::from_ref(&large), &mut Vec::new()).is_err());
        drop(other);
    }
}

#[test]
fn a_shared_pipe_gets_everything_too() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut out = Out::new(OwnedFd::from(writer).into(), "-".into(), Codec::None, Stop::new()).unwrap();
    let text = "abcdefg".repeat(30_000);
    let batches = [batch("a", 0, &[&text], &[])];
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || out.store(&batches, &mut Vec::new()));
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        writing.join().unwrap().unwrap();
        assert_eq!(read, text);
    });
}

#[test]
fn a_file_is_visible_when_it_is_finished() {
    let dir = Scratch::new();
    let path = dir.0.join("result.ndjson");
    fs::write(&path, "old").unwrap();
    let sink = file(&path).unwrap();
    sink.store(&[batch("a", 0, &["1\n"], &[]), batch("a", 10, &["2\n"], &[])], &mut Vec::new()).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    sink.finish().unwrap();
    sink.finish().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "1\n2\n");
    assert!(sink.store(&[batch("a", 20, &["3\n"], &[])], &mut Vec::new()).is_err());
    drop(sink);
    assert_eq!(names(&dir.0), ["result.ndjson"]);
}

#[test]
fn a_file_that_is_not_finished_leaves_what_was_there() {
    let dir = Scratch::new();
    let path = dir.0.join("result.ndjson");
    fs::write(&path, "old").unwrap();
    let sink = file(&path).unwrap();
    sink.store(&[batch("a", 0, &["1\n"], &[])], &mut Vec::new()).unwrap();
    drop(sink);
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(names(&dir.0), ["result.ndjson"]);
}

#[test]
fn what_a_dead_run_left_is_swept_and_a_live_one_is_refused() {
    let dir = Scratch::new();
    let path = dir.0.join("r.ndjson");
    fs::write(dir.0.join(".r.ndjson.1.tmp"), "half").unwrap();
    fs::write(dir.0.join(".r.ndjson.x.tmp"), "not ours").unwrap();
    let sink = file(&path).unwrap();
    assert!(matches!(file(&path), Err(Error::Locked { .. })));
    sink.finish().unwrap();
    assert_eq!(names(&dir.0), [".r.ndjson.x.tmp", "r.ndjson"]);
}

#[test]
fn a_link_stays_and_its_target_is_replaced() {
    let dir = Scratch::new();
    let (link, target) = (dir.0.join("link"), dir.0.join("target"));
    fs::write(&target, "old").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let sink = file(&link).unwrap();
    sink.store(&[batch("a", 0, &["1\n"], &[])], &mut Vec::new()).unwrap();
    sink.finish().unwrap();
    assert!(link.is_symlink());
    assert_eq!(fs::read_to_string(&target).unwrap(), "1\n");
}

#[test]
fn devices_are_written_as_they_are() {
    let sink = file(Path::new("/dev/null")).unwrap();
    sink.store(&[batch("a", 0, &["1\n"], &[])], &mut Vec::new()).unwrap();
    sink.finish().unwrap();
    let full = file(Path::new("/dev/full")).unwrap();
    let error = full.store(&[batch("a", 0, &["1\n"], &[])], &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("/dev/full"), "{error}");
    assert!(matches!(&error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull));
}

#[test]
fn a_fifo_is_waited_for_and_written_as_it_is() {
    let dir = Scratch::new();
    let path = dir.0.join("fifo");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| fs::read_to_string(&path).unwrap());
        let sink = file(&path).unwrap();
        let large = "x".repeat(200_000);
        sink.store(&[batch("a", 0, &[&large], &[])], &mut Vec::new()).unwrap();
        sink.finish().unwrap();
        drop(sink);
        assert_eq!(reading.join().unwrap(), large);
    });
    assert_eq!(names(&dir.0), ["fifo"]);
    // Nobody reads: an abort ends the wait.
    let stop = Stop::new();
    stop.abort();
    let options = FileOptions { path, codec: Codec::None, fsync: Fsync::On, stop };
    assert!(matches!(FileSink::create(options), Err(Error::Stopped)));
}

/// A batch whose pieces are blocks of this codec.
fn encoded(codec: Codec, start: u64, stored: &str, failed: &str) -> Batch {
    let block = |text: &str| {
        let mut body = Body::default();
        if !text.is_empty() {
            let mut bytes = Vec::new();
            let crc = crate::codec::Encoder::new(codec).encode(text.as_bytes(), &mut bytes);
            let mut piece = crate::batch::Piece::owned(bytes);
            (piece.raw_len, piece.raw_crc) = (text.len() as u64, crc);
            body.push(piece);
        }
        body
    };
    Batch { stored: block(stored), failed: block(failed), ..batch("a", start, &[], &[]) }
}

/// One gzip member, and nothing behind it.
#[track_caller]
fn check_gzip(path: &Path, expected: &str) {
    let bytes = fs::read(path).unwrap();
    let mut decoder = flate2::bufread::GzDecoder::new(bytes.as_slice());
    let mut text = String::new();
    decoder.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), decoder.into_inner().len()), (expected, 0));
}

#[test]
fn a_compressed_file_is_one_member_and_so_are_its_dead_letters() {
    let dir = Scratch::new();
    let path = dir.0.join("r.ndjson.gz");
    let codec = Codec::Gzip(1);
    let options = FileOptions { path: path.clone(), codec, fsync: Fsync::Off, stop: Stop::new() };
    let main = FileSink::create(options).unwrap();
    let dead = dir.0.join("dead");
    let sink = WithDeadLetters::prepare(main, &dead, Namer::new("", codec), Fsync::Off).unwrap();
    let batches =
        [encoded(codec, 0, "1\n", ""), encoded(codec, 10, "", "bad\n"), encoded(codec, 20, "2\n", "")];
    sink.store(&batches, &mut Vec::new()).unwrap();
    sink.finish().unwrap();
    drop(sink);
    check_gzip(&path, "1\n2\n");
    check_gzip(&dead.join("failed/a/00000000000000000010.ndjson.gz"), "bad\n");
    assert_eq!(names(&dead), ["failed"]);
}

#[test]
fn a_compressed_file_without_records_is_a_container_too() {
    let dir = Scratch::new();
    for (codec, name) in [(Codec::Gzip(6), "r.gz"), (Codec::Zstd(3), "r.zst"), (Codec::None, "r")] {
        let path = dir.0.join(name);
        let options = FileOptions { path, codec, fsync: Fsync::Off, stop: Stop::new() };
        let sink = FileSink::create(options).unwrap();
        sink.finish().unwrap();
        sink.finish().unwrap();
    }
    check_gzip(&dir.0.join("r.gz"), "");
    let bytes = fs::read(dir.0.join("r.zst")).unwrap();
    assert!(!bytes.is_empty());
    assert_eq!(zstd::stream::decode_all(bytes.as_slice()).unwrap(), b"");
    assert_eq!(fs::read(dir.0.join("r")).unwrap(), b"");
}

#[test]
fn a_directory_or_a_missing_directory_is_a_clear_error() {
    let dir = Scratch::new();
    assert!(matches!(file(&dir.0), Err(Error::Io { op: "write", .. })));
    fs::write(dir.0.join("file"), "").unwrap();
    let first = "not there; make it first";
    for (missing, what) in [("missing", first), ("file", "no directory"), ("file/below", first)] {
        let error = file(&dir.0.join(missing).join("r.ndjson")).err().unwrap();
        assert!(error.to_string().ends_with(&format!("{missing} is {what}")), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}

#[test]
fn dead_letters_of_a_stream_go_to_a_directory_first() {
    let dir = Scratch::new();
    let (mut reader, main, _) = pipe();
    let namer = Namer::new("", Codec::None);
    let sink = WithDeadLetters::prepare(main, &dir.0, namer, Fsync::On).unwrap();
    assert_eq!(sink.shape().dead_letters, DeadLetters::Store);
    let mut receipts = Vec::new();
    sink.store(&[batch("a", 0, &["1\n"], &["bad\n"]), batch("a", 10, &["2\n"], &[])], &mut receipts).unwrap();
    let key = "failed/a/00000000000000000000.ndjson";
    assert_eq!(receipts[0].failed_key.as_deref(), Some(key));
    assert_eq!((receipts.len(), &receipts[1].failed_key), (2, &None));
    assert_eq!(fs::read_to_string(dir.0.join(key)).unwrap(), "bad\n");
    drop(sink);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "1\n2\n");

    let (reader, main, _) = pipe();
    drop(reader);
    let sink = WithDeadLetters::prepare(main, &dir.0, Namer::new("", Codec::None), Fsync::On).unwrap();
    let error = sink.store(&[batch("a", 20, &["1\n"], &["worse\n"])], &mut Vec::new()).unwrap_err();
    assert!(matches!(error, Error::OutputClosed));
    assert_eq!(fs::read_to_string(dir.0.join("failed/a/00000000000000000020.ndjson")).unwrap(), "worse\n");
}
