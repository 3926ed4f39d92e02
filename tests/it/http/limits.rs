//! Bodies that are too large: what streams does so in bounded memory, and what has no end is ended.

use std::io::Write;

use serde_json::Value;

use super::Api;
use super::server::{Reply, Wire};
use crate::runs::Ran;

/// What a run may have at its peak: `memory_limit` below, and what a debug build, TLS and jq take.
const PEAK: u64 = 160 << 20;
const LIMITED: &[&str] = &["--set", "processing.memory_limit=64MiB", "--summary", "json=s.json"];
const MIB: usize = 1 << 20;

impl Api {
    /// What the summary of the last run says.
    fn summary(&self) -> Value {
        let text = std::fs::read(self.bench.path("s.json")).expect("there is a summary");
        serde_json::from_slice(&text).expect("it is JSON")
    }

    #[track_caller]
    fn stayed_small(&self) {
        let peak = self.summary()["peak_memory_bytes"].as_u64().expect("a number");
        assert!(peak < PEAK, "{} MiB", peak >> 20);
    }
}

/// Writes `piece` for `total` bytes in chunks.
fn flood(wire: &mut Wire<'_>, piece: &[u8], total: usize) -> std::io::Result<()> {
    (0..total / piece.len()).try_for_each(|_| wire.chunk(piece))
}

fn chunked(script: impl FnOnce(&mut Wire<'_>) -> std::io::Result<()> + Send + 'static) -> Reply {
    Reply::script(script).with("Transfer-Encoding", "chunked").with("Content-Type", "application/json")
}

#[test]
fn whitespace_is_read_in_bounded_memory() {
    let api = Api::new(|_| {
        chunked(|wire| {
            let spaces = [b' '; 256 << 10];
            for piece in ["{\"x\":", "1,\"items\"", ":[", "{\"n\":0},", "{\"n\":1}]", "}"] {
                flood(wire, &spaces, 40 * MIB)?;
                wire.chunk(piece.as_bytes())?;
            }
            flood(wire, &spaces, 40 * MIB)?;
            wire.chunk(b"")
        })
    });
    let size = ["--set", "http.max_body_bytes=1GiB", "--set", "http.records=/items"];
    api.run(&[LIMITED, &size].concat()).expect(0, &[]);
    api.stored(0..2);
    api.stayed_small();
}

/// The same without an end: the limit of a body ends it, wherever the flood stands.
#[test]
fn a_body_without_end_is_ended() {
    let heads: [(&[u8], &[u8]); 5] =
        [(b"", b" "), (b"[", b"\n"), (b"{\"x\":\"", b"a"), (b"{\"items\":[{\"n\":0}", b"\t"), (b"[\"", b"a")];
    for (head, filler) in heads {
        let api = Api::new(move |_| {
            let piece = filler.repeat(256 << 10);
            chunked(move |wire| {
                if !head.is_empty() {
                    wire.chunk(head)?;
                }
                // As long as the client takes it.
                loop {
                    wire.chunk(&piece)?;
                }
            })
        });
        let records = if head.starts_with(b"{") { "http.records=/items" } else { "http.method=GET" };
        let size =
            ["--set", "http.max_body_bytes=100MiB", "--set", records, "--set", "processing.max_retries=2"];
        let ran = api.run(&[LIMITED, &size].concat());
        assert!(matches!(ran.code, Some(1 | 3 | 4)), "{:?} {}", ran.code, ran.stderr);
        assert!(ran.stderr.contains("max_body_bytes"), "{}", ran.stderr);
        api.stayed_small();
    }
}

#[test]
fn a_large_body_streams() {
    let api = Api::new(|_| {
        chunked(|wire| {
            wire.chunk(b"[")?;
            let filler = "x".repeat(1000);
            for at in 0..100 {
                let records: Vec<String> = (at * 1000..at * 1000 + 1000)
                    .map(|n| format!("{{\"n\":{n},\"text\":\"{filler}\"}}"))
                    .collect();
                let comma = if at == 0 { "" } else { "," };
                wire.chunk(format!("{comma}{}", records.join(",\n")).as_bytes())?;
            }
            wire.chunk(b"]")?;
            wire.chunk(b"")
        })
    });
    api.run(&[LIMITED, &["--set", "http.max_body_bytes=200MiB", "-b", "10000"]].concat()).expect(0, &[]);
    assert_eq!(api.summary()["records_stored"], 100_000);
    api.stayed_small();
}

#[test]
fn a_length_above_the_limit_is_refused_before_it_is_read() {
    let api = Api::new(|_| {
        Reply::script(|wire| {
            wire.write(b"[")?;
            wire.hold()
        })
        .with("Content-Length", "2000000000000")
    });
    let ran = api.run(&[
        "--set",
        "http.max_body_bytes=1MiB",
        "--timeout",
        "5s",
        "--set",
        "processing.max_retries=1",
    ]);
    assert!(matches!(ran.code, Some(1 | 4)), "{:?} {}", ran.code, ran.stderr);
    assert!(ran.stderr.contains("max_body_bytes"), "{}", ran.stderr);
}

/// Small on the wire, huge behind it: the limit is of what comes out.
#[test]
fn what_decompresses_to_too_much_is_ended() {
    let bombs: [(&str, Vec<u8>); 2] = [("gzip", gzip_of_spaces(40)), ("zstd", zstd_of_spaces(40))];
    for (encoding, bomb) in bombs {
        assert!(bomb.len() < MIB, "it is small: {}", bomb.len());
        let api = Api::new(move |_| Reply::ok(bomb.clone()).with("Content-Encoding", encoding));
        let size = ["--set", "http.max_body_bytes=8MiB", "--set", "processing.max_retries=1"];
        let ran = api.run(&[LIMITED, &size].concat());
        assert!(matches!(ran.code, Some(1 | 4)), "{encoding}: {}", explain(&ran));
        assert!(ran.stderr.contains("max_body_bytes"), "{encoding}: {}", explain(&ran));
        api.stayed_small();
    }
}

fn explain(ran: &Ran) -> String {
    format!("{:?} {}", ran.code, ran.stderr)
}

fn gzip_of_spaces(mib: usize) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"[").expect("it is memory");
    (0..mib).for_each(|_| gzip.write_all(&[b' '; MIB]).expect("it is memory"));
    gzip.finish().expect("it is memory")
}

fn zstd_of_spaces(mib: usize) -> Vec<u8> {
    let mut zstd = zstd::stream::write::Encoder::new(Vec::new(), 3).expect("it starts");
    zstd.write_all(b"[").expect("it is memory");
    (0..mib).for_each(|_| zstd.write_all(&[b' '; MIB]).expect("it is memory"));
    zstd.finish().expect("it is memory")
}

/// One record that is larger than a record may be is a dead letter, and those beside it are stored.
#[test]
fn a_record_that_is_too_large_is_a_dead_letter() {
    let api = Api::new(|_| {
        let large = "x".repeat(3 * MIB);
        Reply::ok(format!("[{{\"n\":0}},{{\"n\":9,\"text\":\"{large}\"}},{{\"n\":1}}]"))
    });
    api.run(&["--set", "input.max_record_bytes=1MiB"]).expect(3, &[]);
    api.stored(0..2);
}
