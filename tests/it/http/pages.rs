//! Every style of pagination and every form of a body: all records, each once, and not a request too many.

use std::io::{BufRead, BufReader, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::server::{Reply, Seen};
use super::{Api, array, slice};
use crate::runs::{self, until};

/// How many records there are, unless a test says more.
const TOTAL: usize = 23;

const PAGE: &[&str] = &["--set", "http.pagination.style=page", "--set", "http.pagination.page_size=5"];
const CURSOR: &[&str] = &["--set", "http.pagination.style=cursor", "--set", "http.records=/items"];

/// Page `page` of five records each, counted from `first`.
fn page(seen: &Seen, first: usize) -> String {
    array(slice((seen.number("page").expect("it is asked for") - first) * 5, 5, TOTAL))
}

#[test]
fn without_pages_one_answer_is_all() {
    let api = Api::new(|_| Reply::ok(array(0..TOTAL)));
    api.run(&[]).expect(0, &[]);
    api.stored(0..TOTAL as u64);
    let [seen] = &api.server.seen()[..] else { panic!("one request: {:?}", api.server.seen()) };
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/items"));
}

#[test]
fn ids_and_names_tell_host_path_cycle_page_and_index() {
    let api = Api::new(|seen| Reply::ok(page(seen, 1)));
    api.run(PAGE).expect(0, &[]);
    let objects = api.bench.objects("out");
    let name = objects.keys().next().expect("there is one");
    let parts: Vec<&str> = name.split('/').collect();
    let (start, named) = (parts.last().expect("a name"), parts[1..parts.len() - 2].join("/"));
    assert_eq!(parts[0], "processed");
    assert!(named.starts_with("127.0.0.1") && named.contains("items"), "{name}");
    assert_eq!(start.len(), "00000000000000000000.ndjson".len(), "{name}");
    let text = runs::text(name, &objects[name]);
    let ids: Vec<String> = text.lines().map(id).collect();
    assert!(ids[0].starts_with("http:127.0.0.1") && ids[0].contains("/items:"), "{ids:?}");
    let ends: Vec<String> = ids.iter().map(|id| tail(id)).collect();
    let cycle = ends[0].split(':').next().expect("a number").to_owned();
    assert_eq!(parts[parts.len() - 2], cycle, "the cycle is in the name: {name}");
    let places: Vec<(u64, u64)> = ends.iter().map(|end| place(end)).collect();
    let expected: Vec<(u64, u64)> = (0..TOTAL as u64).map(|n| (n / 5, n % 5)).collect();
    let first = places[0].0;
    assert_eq!(places.iter().map(|(page, index)| (page - first, *index)).collect::<Vec<_>>(), expected);
}

fn id(line: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(line).expect("it is JSON");
    assert_eq!(value["source"], "http");
    value["message_id"].as_str().expect("a text").to_owned()
}

/// The last three parts of an id: cycle, page, index.
fn tail(id: &str) -> String {
    let parts: Vec<&str> = id.rsplitn(4, ':').collect();
    format!("{}:{}:{}", parts[2], parts[1], parts[0])
}

fn place(tail: &str) -> (u64, u64) {
    let numbers: Vec<u64> = tail.split(':').map(|part| part.parse().expect("a number")).collect();
    (numbers[1], numbers[2])
}

#[test]
fn pages_are_counted_until_one_is_empty() {
    let api = Api::new(|seen| Reply::ok(page(seen, 1)));
    api.run(PAGE).expect(0, &[]);
    api.stored(0..TOTAL as u64);
    let asked: Vec<String> = api.server.seen().iter().map(|seen| seen.target.clone()).collect();
    for (at, target) in asked.iter().enumerate() {
        assert_eq!(*target, format!("/items?page={}&per_page=5", at + 1));
    }
    assert!(asked.len() == 5 || asked.len() == 6, "{asked:?}");
}

#[test]
fn parameters_of_pages_have_names_of_their_own_and_keep_the_query() {
    let api = Api::new(|seen| {
        assert_eq!(seen.query("kind").as_deref(), Some("a b&c"));
        assert_eq!(seen.query("limit").as_deref(), Some("5"));
        Reply::ok(array(slice(seen.number("p").expect("it is asked for") * 5, 5, TOTAL)))
    });
    let names =
        ["page_param=p", "first_page=0", "size_param=limit"].map(|it| format!("http.pagination.{it}"));
    let names =
        ["--set", &names[0], "--set", &names[1], "--set", &names[2], "--set", "http.query=kind=a b&c"];
    api.run(&[PAGE, &names].concat()).expect(0, &[]);
    api.stored(0..TOTAL as u64);
}

#[test]
fn offsets_go_on_by_what_came() {
    let api = Api::new(|seen| {
        assert_eq!(seen.query("limit").as_deref(), Some("5"));
        Reply::ok(array(slice(seen.number("offset").expect("it is asked for"), 5, TOTAL)))
    });
    let style = ["--set", "http.pagination.style=offset", "--set", "http.pagination.page_size=5"];
    api.run(&style).expect(0, &[]);
    api.stored(0..TOTAL as u64);
    let offsets: Vec<Option<usize>> = api.server.seen().iter().map(|seen| seen.number("offset")).collect();
    assert_eq!(offsets[..5], [0, 5, 10, 15, 20].map(Some));
}

/// Pages of four by a cursor, which stands before or behind the records.
fn by_cursor(seen: &Seen, before: bool) -> Reply {
    let at = seen.query("cursor").map_or(0, |cursor| cursor["c/+&=".len()..].parse().expect("our own"));
    let (next, items) = (at + 4, array(slice(at, 4, TOTAL)));
    let cursor = if next < TOTAL { format!("\"c/+&={next}\"") } else { "null".into() };
    Reply::ok(match before {
        true => format!("{{\"next_cursor\":{cursor},\"deep\":{{\"items\":[1]}},\"items\":{items}}}"),
        false => format!("{{\"x\":[{{\"items\":2}}],\"items\":{items},\"next_cursor\": {cursor} }}"),
    })
}

#[test]
fn cursors_are_found_before_and_behind_the_records() {
    for before in [true, false] {
        let api = Api::new(move |seen| by_cursor(seen, before));
        api.run(CURSOR).expect(0, &[]);
        api.stored(0..TOTAL as u64);
        assert_eq!(api.server.seen().len(), TOTAL.div_ceil(4));
    }
}

#[test]
fn a_cursor_that_was_seen_before_ends_the_run_without_asking_for_ever() {
    let api = Api::new(|seen| {
        let at = seen.query("cursor").map_or(0, |cursor| cursor.parse().expect("our own"));
        let next = if at == 3 { 1 } else { at + 1 };
        Reply::ok(format!("{{\"items\":{},\"next_cursor\":\"{next}\"}}", array(at..at + 1)))
    });
    let ran = api.run(CURSOR);
    assert_eq!(api.server.seen().len(), 4, "{}", ran.stderr);
    api.stored(0..4);
    assert!(ran.stderr.contains("led here before"), "it is told: {}", ran.stderr);
}

#[test]
fn links_of_the_header_are_followed() {
    let api = Api::new(|seen| {
        let at = seen.number("after").unwrap_or(0);
        let reply = Reply::ok(array(slice(at, 5, TOTAL)));
        let links = format!(
            "</items?after=0>; rel=first, </items?x=%2C,a&after={}>; title=\"a, b\"; rel=\"prefetch next\"",
            at + 5
        );
        if at + 5 < TOTAL { reply.with("Link", links) } else { reply.with("Link", "</items>; rel=\"first\"") }
    });
    api.run(&["--set", "http.pagination.style=link"]).expect(0, &[]);
    api.stored(0..TOTAL as u64);
    assert_eq!(api.server.seen().len(), 5);
}

#[test]
fn addresses_of_the_next_page_in_the_body_are_followed() {
    let api = Api::new(|seen| {
        let at = seen.number("after").unwrap_or(0);
        let next = match at + 5 < TOTAL {
            // Once as a whole address, once as one that is relative.
            true if at % 2 == 0 => {
                format!("\"http:\\/\\/{}/items?after={}\"", seen.header("host").expect("one"), at + 5)
            }
            true => format!("\"?after={}\"", at + 5),
            false => "null".into(),
        };
        Reply::ok(format!(
            "{{\"data\":{{\"list\":{}}},\"links\":{{\"next\":{next}}}}}",
            array(slice(at, 5, TOTAL))
        ))
    });
    let style = ["--set", "http.pagination.style=next-url", "--set", "http.pagination.next=/links/next"];
    api.run(&[&style[..], &["--set", "http.records=/data/list"]].concat()).expect(0, &[]);
    api.stored(0..TOTAL as u64);
    assert_eq!(api.server.seen().len(), 5);
}

#[test]
fn an_empty_page_ends_every_style() {
    for style in ["page", "offset"] {
        let api = Api::new(|seen| {
            let asked = seen.number("page").map(|page| page - 1).or(seen.number("offset").map(|at| at / 5));
            Reply::ok(if asked.unwrap_or(0) < 2 {
                array(asked.unwrap_or(0) * 5..asked.unwrap_or(0) * 5 + 5)
            } else {
                "[]".into()
            })
        });
        let style = format!("http.pagination.style={style}");
        api.run(&["--set", &style, "--set", "http.pagination.page_size=5"]).expect(0, &[]);
        api.stored(0..10);
        assert_eq!(api.server.seen().len(), 3);
    }
}

#[test]
fn no_more_pages_are_asked_for_than_allowed() {
    let api = Api::new(|seen| {
        let page = seen.number("page").expect("it is asked for") - 1;
        Reply::ok(array(page * 5..page * 5 + 5))
    });
    let ran = api.run(&[PAGE, &["--set", "http.pagination.max_pages=7"]].concat());
    api.stored(0..35);
    assert_eq!(api.server.seen().len(), 7);
    assert!(ran.stderr.contains("max_pages"), "it is told: {}", ran.stderr);
}

#[test]
fn a_body_of_lines_is_known_by_looking() {
    for body in [
        runs::lines(0..TOTAL),
        runs::lines(0..TOTAL).trim_end().into(),
        format!("\n \n{}\n", runs::lines(0..TOTAL)),
    ] {
        let api = Api::new(move |_| Reply::ok(body.clone()));
        api.run(&[]).expect(0, &[]);
        api.stored(0..TOTAL as u64);
    }
}

#[test]
fn a_body_that_says_nothing_has_no_records() {
    for body in ["", "[]", " [ ] ", "\n\n"] {
        let api = Api::new(move |_| Reply::ok(body));
        api.run(&[]).expect(0, &[]);
        assert_eq!(api.numbers(), Vec::<u64>::new());
    }
    for more in [&[][..], &["--set", "http.records=/items"], CURSOR] {
        let api = Api::new(|_| Reply::new(204, ""));
        api.run(more).expect(0, &["read      0 records"]);
        assert_eq!(api.server.seen().len(), 1, "{more:?}");
    }
}

#[test]
fn links_beyond_ascii_are_followed_and_one_to_itself_is_not() {
    let api = Api::new(|seen| {
        let page = seen.number("page").unwrap_or(1);
        // The last one leads to itself.
        let next = (page + 1).min(4);
        let link = format!("</items?q=\u{e9}&page={next}>; title=\"caf\u{e9}\"; rel=\"next\"");
        Reply::ok(array((page - 1) * 5..page * 5)).with("Link", &link)
    });
    api.run(&["--set", "http.pagination.style=link"]).expect(0, &["led here before"]);
    api.stored(0..20);
    assert!(api.server.seen()[1].target.contains("q=%C3%A9"), "{:?}", api.server.seen()[1]);

    let api = Api::new(|_| Reply::ok(array(0..5)).with("Link", "</items>; rel=next"));
    api.run(&["--set", "http.pagination.style=link"]).expect(0, &["led here before"]);
    api.stored(0..5);
    assert_eq!(api.server.seen().len(), 1);
}

#[test]
fn a_first_page_that_is_full_and_leads_nowhere_is_told() {
    let api = Api::new(|_| Reply::ok(format!("{{\"items\":{},\"meta\":{{\"next\":\"a\"}}}}", array(0..5))));
    let said = "the first page is full and has nothing at /next_cursor, so the pass ends behind it";
    let ran = api.run(&[CURSOR, &["--set", "http.pagination.page_size=5"]].concat()).expect(0, &[said]);
    assert!(ran.stderr.contains("http.pagination is wrong"), "{}", ran.stderr);
    let ran =
        api.run(&[CURSOR, &["--set", "http.pagination.page_size=6", "--fresh"]].concat()).expect(0, &[]);
    assert!(!ran.stderr.contains("the pass ends"), "{}", ran.stderr);
}

#[test]
fn an_empty_page_ends_the_pass_and_says_what_it_leaves() {
    let api = Api::new(|seen| match seen.query("cursor") {
        None => Reply::ok(format!("{{\"items\":{},\"next_cursor\":\"a\"}}", array(0..5))),
        Some(_) => Reply::ok("{\"items\":[],\"next_cursor\":\"b\"}"),
    });
    api.run(CURSOR)
        .expect(0, &["page 1 has no records, so the pass ends, although something leads on from it"]);
    api.stored(0..5);
}

#[test]
fn records_are_handed_on_while_the_rest_of_their_page_is_still_coming() {
    let forms: [(&[&str], [&str; 2]); 3] = [
        (&[], ["[{\"n\":0},{\"n\":1},{", "\"n\":2}]"]),
        (&[], ["{\"n\":0}\n{\"n\":1}\n", "{\"n\":2}\n"]),
        (&["--set", "http.records=/items"], ["{\"items\":[{\"n\":0},{\"n\":1},", "{\"n\":2}]}"]),
    ];
    for (more, [first, rest]) in forms {
        let seen = Arc::new(AtomicBool::new(false));
        let goes_on = seen.clone();
        let api = Api::new(move |_| {
            let (goes_on, length) = (goes_on.clone(), first.len() + rest.len());
            Reply::bare(move |wire| {
                wire.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{first}").as_bytes())?;
                while !goes_on.load(Ordering::SeqCst) {
                    wire.rest(Duration::from_millis(5))?;
                }
                wire.write(rest.as_bytes())
            })
        });
        let run = api.start(&[&["-o", "-"], more].concat());
        until("the first are there", || run.printed().lines().count() == 2);
        seen.store(true, Ordering::SeqCst);
        assert_eq!(run.ended().expect(0, &[]).stdout.lines().count(), 3);
    }
}

#[test]
fn records_are_found_by_a_pointer_with_escapes() {
    let api = Api::new(|_| {
        let items = array(0..TOTAL);
        Reply::ok(format!(
            "{{\"a\":[[1,2],{{\"x/y~\":null}}],\"b\":[[],{{\"x/y~\" : {items}}}],\"c\":\"]}}\"}}"
        ))
    });
    api.run(&["--set", "http.records=/b/1/x~1y~0"]).expect(0, &[]);
    api.stored(0..TOTAL as u64);
}

#[test]
fn a_pointer_that_leads_nowhere_is_told() {
    let api = Api::new(|_| Reply::ok("{\"elements\":[]}"));
    let ran = api.run(&["--set", "http.records=/items"]);
    assert_ne!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("/items"), "{}", ran.stderr);
}

fn gzip(text: &str) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).expect("it is memory");
    gzip.finish().expect("it is memory")
}

#[test]
fn answers_may_be_compressed() {
    let api = Api::new(|seen| {
        let accepted = seen.header("accept-encoding").unwrap_or_default();
        assert!(accepted.contains("gzip") && accepted.contains("zstd"), "{accepted}");
        let text = page(seen, 1);
        match seen.number("page") {
            Some(1) => Reply::ok(gzip(&text)).with("Content-Encoding", "gzip"),
            Some(2) => Reply::ok(zstd::bulk::compress(text.as_bytes(), 1).expect("it is memory"))
                .with("Content-Encoding", "zstd"),
            // Two members are one body.
            Some(3) => {
                Reply::ok([gzip(&text[..7]), gzip(&text[7..])].concat()).with("content-encoding", "GZIP")
            }
            Some(4) => Reply::ok(text).with("Content-Encoding", "identity"),
            _ => Reply::ok(text),
        }
    });
    api.run(PAGE).expect(0, &[]);
    api.stored(0..TOTAL as u64);
}

#[test]
fn an_encoding_that_was_not_asked_for_is_told() {
    let api = Api::new(|_| Reply::ok("what is this").with("Content-Encoding", "br"));
    let ran = api.run(&[]);
    assert!(matches!(ran.code, Some(1 | 4)), "{}", ran.stderr);
    assert!(ran.stderr.contains("br"), "{}", ran.stderr);
}

#[test]
fn a_request_has_method_headers_query_and_body() {
    let api = Api::new(|seen| {
        assert_eq!((seen.method.as_str(), seen.body.as_str()), ("POST", "{\"all\":true}"));
        assert_eq!(
            (seen.header("x-one"), seen.header("accept")),
            (Some("1=1"), Some("application/vnd.x+json"))
        );
        assert_eq!(seen.query("q").as_deref(), Some("ä"));
        assert!(seen.header("user-agent").is_some_and(|agent| agent.contains("pipeline")), "{seen:?}");
        Reply::ok(page(seen, 1))
    });
    let more = [
        "--set",
        "http.method=POST",
        "--set",
        "http.body={\"all\":true}",
        "--set",
        "http.query=q=ä",
        "--set",
        "http.headers=[\"X-One=1=1\", \"Accept=application/vnd.x+json\"]",
    ];
    api.run(&[PAGE, &more].concat()).expect(0, &[]);
    api.stored(0..TOTAL as u64);
}

#[test]
fn headers_that_frame_a_message_are_refused() {
    let api = Api::new(|_| Reply::ok("[]"));
    for set in ["http.headers=[\"Expect=100-continue\"]", "http.auth.header=Content-Length"] {
        let ran = api.run(&["--set", set, "--set", "http.auth.value=5"]);
        let name =
            set.split(['=', '"']).find(|it| ["Expect", "Content-Length"].contains(it)).expect("it is named");
        ran.expect(2, &[&format!("the header {name} is set by this program")]);
    }
    assert_eq!(api.server.seen().len(), 0);
}

#[test]
fn records_have_the_identity_that_they_bring() {
    let api = Api::new(|_| Reply::ok("[{\"id\":\"a-1\",\"n\":0},{\"id\":17,\"n\":1}]"));
    api.run(&["--set", "http.id=/id"]).expect(0, &[]);
    let objects = api.bench.objects("out");
    let ids: Vec<String> = objects
        .iter()
        .flat_map(|(name, bytes)| runs::text(name, bytes).lines().map(id).collect::<Vec<_>>())
        .collect();
    assert!(ids[0].contains("a-1") && ids[1].contains("17"), "{ids:?}");
    assert_eq!(ids.len(), 2);
}

#[test]
fn an_alias_and_a_limit_work() {
    let api = Api::new(|seen| Reply::ok(page(seen, 1)));
    let url = api.server.url("/items");
    let mut command =
        api.bench.command(&["process", "--source", "api", "--url", &url, "-n", "12", "--timeout", "5s"]);
    command.args(PAGE);
    crate::runs::Running::start(command).ended().expect(0, &[]);
    api.stored(0..12);
    assert!(api.server.seen().len() <= 4, "it stops asking");
}

/// Nobody reads what the run writes, and a page makes more of it than a pipe holds.
#[test]
fn pages_are_asked_for_while_those_before_are_not_stored() {
    let api = Api::new(|seen| {
        let page = seen.number("page").expect("it is asked for");
        Reply::ok(array(slice((page - 1) * 1000, 1000, 5500)))
    });
    let mut command = api.command(&["--set", "http.pagination.style=page", "-o", "-"]);
    command.stdout(std::process::Stdio::piped());
    let mut running = runs::Running::start_unread(command);
    let pipe = running.child().stdout.take().expect("it is piped");
    until("pages are asked for", || api.server.seen().len() >= 4);
    let numbers = BufReader::new(pipe).lines().map(|line| {
        let line: serde_json::Value =
            serde_json::from_str(&line.expect("it can be read")).expect("it is JSON");
        line["data"]["n"].as_u64().expect("it has a number")
    });
    assert!(numbers.eq(0..5500), "all of them come in order");
    running.ended().expect(0, &[]);
}
