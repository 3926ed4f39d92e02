//! Servers that are busy, broken, slow or wrong: what can be asked again is, the rest is an error that says so, and
//! nothing is there twice.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, SystemTime};

use super::server::{Reply, Seen, Wire};
use super::{Api, array, command, slice};
use crate::runs::{self, Bench, Running};

const TOTAL: usize = 23;
const PAGE: &[&str] = &["--set", "http.pagination.style=page", "--set", "http.pagination.page_size=5"];
/// Few attempts, so that errors which stay come soon.
const TWICE: &[&str] = &["--set", "processing.max_retries=2"];

fn body(seen: &Seen) -> String {
    array(slice((seen.number("page").expect("it is asked for") - 1) * 5, 5, TOTAL))
}

/// An API that does something else the first `count` times that page 3 is asked for.
fn third(count: usize, fault: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Api {
    let left = Arc::new(AtomicUsize::new(count));
    Api::new(move |seen| {
        let is_due = || left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        if seen.number("page") == Some(3) && is_due() { fault(seen) } else { Reply::ok(body(seen)) }
    })
}

/// The times between requests for page 3.
fn pauses(api: &Api) -> Vec<Duration> {
    let times: Vec<_> =
        api.server.seen().iter().filter(|seen| seen.number("page") == Some(3)).map(|seen| seen.at).collect();
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[test]
fn a_busy_server_is_asked_again_when_it_says() {
    for status in [429, 503] {
        let api = third(1, move |_| Reply::new(status, "").with("Retry-After", "1"));
        api.run(PAGE).expect(0, &[]);
        api.stored(0..TOTAL as u64);
        let pauses = pauses(&api);
        assert!(pauses.len() == 1 && pauses[0] >= Duration::from_secs(1), "{pauses:?}");
    }
}

#[test]
fn the_time_to_ask_again_may_be_a_date() {
    let api = third(1, |_| {
        // Whole seconds only: at least one and at most two from now.
        let at = jiff::Timestamp::try_from(SystemTime::now() + Duration::from_secs(2)).expect("a time");
        Reply::new(429, "").with("Retry-After", at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
    });
    api.run(PAGE).expect(0, &[]);
    api.stored(0..TOTAL as u64);
    let pauses = pauses(&api);
    assert!(pauses.len() == 1 && pauses[0] >= Duration::from_millis(900), "{pauses:?}");
}

/// A date that is over, one that is none, and one in a year do not stop a run for good.
#[test]
fn nonsense_in_retry_after_is_no_reason_to_hang() {
    for nonsense in ["Wed, 21 Oct 2015 07:28:00 GMT", "soon", "-1", "", "1e9"] {
        let api = third(1, move |_| Reply::new(429, "").with("Retry-After", nonsense));
        api.run(PAGE).expect(0, &[]);
        api.stored(0..TOTAL as u64);
    }
    let api = third(usize::MAX, |_| Reply::new(429, "").with("Retry-After", "86400"));
    let running = api.start(PAGE);
    runs::until("page 3 is asked for", || {
        api.server.seen().iter().any(|seen| seen.number("page") == Some(3))
    });
    running.heard("429");
    running.signal(rustix::process::Signal::TERM);
    running.ended_within(Duration::from_secs(15)).expect(143, &[]);
}

#[test]
fn a_storm_of_errors_is_outlived() {
    let asked = AtomicUsize::new(0);
    let api = Api::new(move |seen| match asked.fetch_add(1, SeqCst) % 4 {
        0 => Reply::new(500, "<html>oh no</html>"),
        1 => Reply::new(502, ""),
        2 => Reply::new(504, vec![b'x'; 200_000]),
        _ => Reply::ok(body(seen)),
    });
    api.run(PAGE).expect(0, &[]);
    api.stored(0..TOTAL as u64);
}

#[test]
fn errors_that_do_not_end_end_the_run_and_the_next_one_goes_on() {
    let broken = Arc::new(AtomicUsize::new(1));
    let is_broken = broken.clone();
    let api = Api::new(move |seen| match seen.number("page") {
        Some(3) if is_broken.load(SeqCst) == 1 => Reply::new(500, "out of order"),
        _ => Reply::ok(body(seen)),
    });
    api.run(&[PAGE, TWICE].concat()).expect(1, &["500", "/items"]);
    let count = pauses(&api).len() + 1;
    assert_eq!(count, 3, "one attempt and two more");
    let before = api.bench.objects("out");
    let stored = runs::numbers(&before).len();
    assert!(stored <= 10, "{stored}");
    broken.store(0, SeqCst);
    api.run(PAGE).expect(0, &[]);
    api.stored(0..TOTAL as u64);
    let after = api.bench.objects("out");
    assert!(before.iter().all(|(name, bytes)| after.get(name) == Some(bytes)), "what was stored stays");
}

/// Ways to break an answer in the middle of it. All are asked for again, and none gives a record twice.
#[test]
fn an_answer_that_is_cut_is_asked_for_again() {
    type Cut = fn(&str, &mut Wire<'_>) -> std::io::Result<()>;
    let cuts: [(&str, Cut); 7] = [
        ("nothing", |_, _| Ok(())),
        ("a length that lies", |text, wire| {
            wire.write(
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}",
                    text.len(),
                    &text[..text.len() / 2]
                )
                .as_bytes(),
            )
        }),
        ("a length that lies behind whole records", |text, wire| {
            wire.write(
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len() + 1).as_bytes(),
            )
        }),
        ("in a chunk", |text, wire| {
            wire.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            wire.write(format!("{:x}\r\n{}", text.len(), &text[..text.len() / 2]).as_bytes())
        }),
        ("without the last chunk", |text, wire| {
            wire.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            wire.chunk(text.as_bytes())
        }),
        ("by a reset", |text, wire| {
            wire.write(
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", text.len(), &text[..20])
                    .as_bytes(),
            )?;
            wire.reset()
        }),
        ("in the head", |_, wire| wire.write(b"HTTP/1.1 200 OK\r\nContent-Le")),
    ];
    for (name, cut) in cuts {
        let api = third(2, move |seen| {
            let text = body(seen);
            Reply::bare(move |wire| cut(&text, wire))
        });
        let ran = api.run(PAGE);
        assert_eq!(ran.code, Some(0), "{name}: {}", ran.stderr);
        assert_eq!(api.numbers(), (0..TOTAL as u64).collect::<Vec<u64>>(), "{name}");
    }
}

/// The connection that ends an answer without a length may as well have broken: JSON tells.
#[test]
fn an_array_without_its_end_is_no_whole_answer() {
    let api = third(1, |seen| {
        let text = body(seen);
        Reply::script(move |wire| wire.write(&text.as_bytes()[..text.len() - 1]))
    });
    let ran = api.run(PAGE);
    let stored = api.numbers();
    match ran.code {
        Some(0) => assert_eq!(stored, (0..TOTAL as u64).collect::<Vec<u64>>()),
        _ => assert!(ran.stderr.contains("/items"), "{}", ran.stderr),
    }
}

#[test]
fn an_answer_without_a_length_is_read_to_its_end() {
    let api = third(1, |seen| {
        let text = body(seen);
        Reply::script(move |wire| text.as_bytes().chunks(7).try_for_each(|piece| wire.write(piece)))
    });
    api.run(PAGE).expect(0, &[]);
    api.stored(0..TOTAL as u64);
}

#[test]
fn a_length_that_is_too_short_makes_a_dead_letter_of_the_record_that_it_cuts() {
    let api = third(usize::MAX, |seen| {
        let text = body(seen);
        Reply::bare(move |wire| {
            wire.write(
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
                    text.len() - 9
                )
                .as_bytes(),
            )
        })
    });
    // It stays so: what came of the record that was cut is a dead letter.
    api.run(&[PAGE, TWICE].concat()).expect(3, &[]);
    assert_eq!(api.numbers(), (0..TOTAL as u64).filter(|n| *n != 14).collect::<Vec<u64>>());
    let objects = api.bench.objects("out");
    let (_, letter) = objects.iter().find(|(name, _)| name.starts_with("failed/")).expect("a dead letter");
    assert!(String::from_utf8_lossy(letter).contains("\\\"n\\\":14"), "{}", String::from_utf8_lossy(letter));
}

#[test]
fn no_http_at_all_is_an_error() {
    for answer in [
        &b"SSH-2.0-OpenSSH_9.6\r\n"[..],
        b"HTTP/1.1 banana\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n",
    ] {
        let api = Api::new(move |_| Reply::bare(move |wire| wire.write(answer)));
        let ran = api.run(TWICE);
        assert!(matches!(ran.code, Some(1 | 4)), "{:?} {}", ran.code, ran.stderr);
        assert!(ran.stderr.contains("/items"), "{}", ran.stderr);
    }
}

#[test]
fn a_head_without_end_is_an_error() {
    let api = Api::new(|_| {
        Reply::bare(|wire| {
            wire.write(b"HTTP/1.1 200 OK\r\n")?;
            (0..1_000_000).try_for_each(|number| wire.write(format!("X-{number}: {number}\r\n").as_bytes()))
        })
    });
    let ran = api.run(TWICE);
    assert!(matches!(ran.code, Some(1 | 4)), "{:?} {}", ran.code, ran.stderr);
}

/// Says nothing, half a head, or half a body.
#[test]
fn a_server_that_stops_talking_is_given_up_after_the_timeout() {
    let pieces: [&[u8]; 3] =
        [b"", b"HTTP/1.1 200 OK\r\nContent-", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[{\"n\":10},"];
    for piece in pieces {
        let api = third(1, move |_| {
            Reply::bare(move |wire| {
                wire.write(piece)?;
                wire.hold()
            })
        });
        api.run(&[PAGE, &["--timeout", "500ms"]].concat()).expect(0, &[]);
        api.stored(0..TOTAL as u64);
        let api = third(usize::MAX, move |_| {
            Reply::bare(move |wire| {
                wire.write(piece)?;
                wire.hold()
            })
        });
        let ran = api.run(&[PAGE, TWICE, &["--timeout", "300ms"]].concat()).expect(1, &["/items"]);
        assert!(ran.stderr.contains("time"), "{}", ran.stderr);
    }
}

/// A byte now and then, forever: no single read is late.
#[test]
fn a_head_that_trickles_is_given_up() {
    let api = Api::new(|_| {
        Reply::bare(|wire| {
            wire.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")?;
            loop {
                wire.write(b"x")?;
                wire.rest(Duration::from_millis(50))?;
            }
        })
    });
    api.run(&[&["--timeout", "1s"][..], TWICE].concat()).expect(1, &["/items"]);
}

#[test]
fn nobody_who_listens_is_an_error_after_some_attempts() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = format!("http://127.0.0.1:{}/items", free.local_addr().expect("it is bound").port());
    drop(free);
    let ran = |url: &str| {
        let bench = Bench::new();
        Running::start(command(&bench, &[&["--url", url], TWICE].concat())).ended()
    };
    ran(&url).expect(1, &["127.0.0.1", "/items"]);
    ran("http://no-such-host.invalid/items").expect(1, &["no-such-host.invalid"]);
}

/// Page 3 has something that is no JSON.
fn broken(text: &'static str) -> Api {
    third(usize::MAX, move |_| Reply::ok(text))
}

const LINES: &str = "{\"n\":10}\n{\"n\":11}\nnot json\n{\"n\":12}\n{\"n\":13}\n{\"n\":14}\n";

#[test]
fn a_broken_line_is_a_dead_letter() {
    let api = broken(LINES);
    api.run(PAGE).expect(3, &[]);
    api.stored(0..TOTAL as u64);
    let failed = api.bench.objects("out");
    let (name, bytes) = failed.iter().find(|(name, _)| name.starts_with("failed/")).expect("a dead letter");
    let letter: serde_json::Value = serde_json::from_slice(bytes).expect("one line of JSON");
    assert!(name.contains("items"), "{name}");
    assert_eq!((&letter["payload"], &letter["error"]["kind"]), (&"not json".into(), &"invalid_json".into()));
    assert_eq!(letter["source"], "http");
    let id = letter["message_id"].as_str().expect("a text");
    assert!(id.starts_with("http:127.0.0.1") && id.ends_with(":2"), "{id}");
}

#[test]
fn a_broken_line_ends_the_run_where_that_is_wanted() {
    let api = broken(LINES);
    let ran = api.run(&[PAGE, &["--set", "processing.on_reject=fail"]].concat()).expect(1, &["invalid_json"]);
    assert!(ran.stderr.contains("127.0.0.1"), "{}", ran.stderr);
    let api = broken(LINES);
    api.run(&[PAGE, &["--set", "processing.on_reject=drop"]].concat()).expect(3, &[]);
    api.stored(0..TOTAL as u64);
}

/// An array in which something stands that is no value, and answers that are no JSON at all.
#[test]
fn a_page_that_is_no_json_is_never_skipped_in_silence() {
    for text in [
        "[{\"n\":10},{\"n\":11},oops,{\"n\":12}]",
        "<html>Please log in</html>",
        "{\"error\":",
        "[{\"n\":10} {\"n\":11}]",
        "[{\"n\":10}]]",
    ] {
        let api = broken(text);
        let ran = api.run(&[PAGE, TWICE].concat());
        assert!(matches!(ran.code, Some(1 | 3 | 4)), "{text}: {:?} {}", ran.code, ran.stderr);
        let numbers = api.numbers();
        let unique: std::collections::BTreeSet<_> = numbers.iter().collect();
        assert_eq!(unique.len(), numbers.len(), "{text}: nothing is there twice: {numbers:?}");
    }
}
