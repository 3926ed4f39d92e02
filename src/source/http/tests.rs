//! Whole jobs against a scripted server: every style, what is gone on with, and what is made of damaged pages.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::http::{Method, Style};
use crate::config::{Config, OnReject, Place, StateAt};
use crate::http::script::{Answer, Asked, Server};
use crate::job::{self, Done, Mode};
use crate::stop::Stop;
use crate::summary::Outcome;

/// Records a page and pages in most of these tests.
const SIZE: u64 = 7;

fn items(page: u64, count: u64) -> Vec<Value> {
    (0..count).map(|index| json!({ "id": page * 100 + index, "updated_at": page * 100 + index })).collect()
}

fn array(page: u64, pages: u64) -> Answer {
    Answer::ok(Value::from(items(page, if page < pages { SIZE } else { 0 })).to_string())
}

/// An endpoint of `pages` pages by number, from 1.
fn numbered(pages: u64) -> Server {
    Server::new(move |asked: &Asked| array(asked.number("page").unwrap() - 1, pages))
}

fn config(server: &Server, out: &Path, style: Style) -> Config {
    let mut config = Config::from_http(vec![server.url("/items?token=secret")], Place::Dir(out.join("out")));
    config.http.pagination.style = style;
    config.processing.retry.delay = Duration::from_millis(1);
    config.processing.retry.max_retries = 3;
    config.processing.processed_by = Some("host1".into());
    config.output.fsync = false;
    config
}

fn run(config: &Config) -> Done {
    job::run(config, Mode::Store, &Stop::new(), &|_| {})
}

#[track_caller]
fn finished(config: &Config) -> Done {
    let done = run(config);
    assert!(done.error.is_none(), "{:?}", done.error);
    assert_eq!(done.summary.as_ref().unwrap().outcome, Outcome::Finished);
    done
}

/// Every file below a directory with its contents, but for the state.
fn files(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true if path.ends_with(".pipeline") => {}
                true => todo.push(path),
                false => drop(found.insert(path.clone(), fs::read_to_string(path).unwrap())),
            }
        }
    }
    found
}

/// The objects of `processed` or `failed`, by cycle and start, with their lines.
fn lines(out: &Path, stream: &str) -> Vec<Value> {
    let files = files(&out.join("out").join(stream));
    let mut lines: Vec<Value> = files
        .values()
        .flat_map(|text| text.lines())
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let key = |line: &Value| {
        let place = |name: &str| line["metadata"][name].as_u64();
        (place("cycle"), place("page"), place("index"))
    };
    lines.sort_by_key(key);
    lines
}

fn ids(out: &Path) -> Vec<u64> {
    lines(out, "processed").iter().map(|line| line["data"]["id"].as_u64().unwrap()).collect()
}

fn expected(pages: u64) -> Vec<u64> {
    (0..pages).flat_map(|page| (0..SIZE).map(move |index| page * 100 + index)).collect()
}

#[test]
fn pages_by_number_come_to_their_end() {
    let (server, dir) = (numbered(4), tempfile::tempdir().unwrap());
    finished(&config(&server, dir.path(), Style::Page));
    assert_eq!(ids(dir.path()), expected(4));
    let asked: Vec<String> = server.asked().into_iter().map(|it| it.target).collect();
    assert_eq!(asked.len(), 5);
    assert_eq!(asked[1], "/items?token=secret&page=2");
    let all = lines(dir.path(), "processed");
    let id = all[8]["message_id"].as_str().unwrap();
    assert!(id.starts_with("http:127.0.0.1:") && id.ends_with("/items:0:1:1"), "{id}");
    let names: Vec<&String> = all[8]["metadata"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["cycle", "index", "name", "page"]);
    for (path, text) in files(dir.path()) {
        assert!(!path.display().to_string().contains("secret") && !text.contains("secret"), "{path:?}");
    }
}

#[test]
fn pages_by_offset_cursor_link_and_next_url_come_to_their_end() {
    let server = Server::new(|asked: &Asked| {
        let page =
            |name: &str| asked.param(name).map_or(0, |text| text.trim_start_matches('c').parse().unwrap());
        let more = |page: u64| (page < 2).then_some(page + 1);
        match asked.path() {
            "/offset" => array(asked.number("offset").unwrap() / SIZE, 3),
            "/cursor" => {
                let at = page("cursor");
                let next = more(at).map(|next| format!("c{next}"));
                Answer::ok(json!({ "meta": { "next": next }, "data": items(at, SIZE) }).to_string())
            }
            "/link" => {
                let at = page("p");
                let link = more(at).map(|next| format!("</link?p={next}>; rel=\"next\"")).unwrap_or_default();
                let lines: Vec<String> = items(at, SIZE).iter().map(Value::to_string).collect();
                Answer::ok(lines.join("\n")).header("Link", link)
            }
            _ => {
                let at = page("p");
                let next = more(at).map(|next| format!("?p={next}"));
                Answer::ok(json!({ "items": items(at, SIZE), "next": next }).to_string())
            }
        }
    });
    for style in [Style::Offset, Style::Cursor, Style::Link, Style::NextUrl] {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&server, dir.path(), style);
        config.http.urls = vec![server.url(&format!("/{}", style.name()))];
        match style {
            Style::Cursor => {
                config.http.records = Some("/data".into());
                config.http.pagination.cursor = "/meta/next".into();
            }
            Style::NextUrl => config.http.records = Some("/items".into()),
            _ => {}
        }
        finished(&config);
        assert_eq!(ids(dir.path()), expected(3), "{}", style.name());
    }
}

#[test]
fn one_page_is_an_array_lines_or_values() {
    for body in ["[1,\n {\"id\":2}]", "1\n{\"id\":2}\n", "1 {\"id\":\n2}", " \n\n [1,{\"id\":2}] "] {
        let server = Server::new(move |_| Answer::ok(body));
        let dir = tempfile::tempdir().unwrap();
        finished(&config(&server, dir.path(), Style::None));
        let data: Vec<Value> =
            lines(dir.path(), "processed").into_iter().map(|line| line["data"].clone()).collect();
        assert_eq!(data, [json!(1), json!({ "id": 2 })], "{body}");
    }
    let empty = Server::new(|_| Answer::status(204));
    let dir = tempfile::tempdir().unwrap();
    finished(&config(&empty, dir.path(), Style::None));
    assert!(files(dir.path()).is_empty());
}

#[test]
fn what_is_asked_besides_goes_with_every_page() {
    let (server, dir) = (numbered(2), tempfile::tempdir().unwrap());
    let mut config = config(&server, dir.path(), Style::Page);
    config.http.query = vec![("q".into(), "a&b".into())];
    config.http.headers = vec![("X-Team".into(), "data".into())];
    (config.http.method, config.http.body) = (Method::Post, Some("{\"a\":1}".into()));
    config.http.pagination.page_size = Some(SIZE);
    finished(&config);
    for asked in server.asked() {
        assert_eq!((asked.method.as_str(), asked.body.as_str()), ("POST", "{\"a\":1}"));
        assert_eq!((asked.param("q").as_deref(), asked.header("x-team")), (Some("a&b"), Some("data")));
        assert_eq!(asked.param("per_page").as_deref(), Some("7"));
    }
}

#[test]
fn a_record_may_have_an_identity_of_its_own() {
    let server = Server::new(|_| Answer::ok(r#"[{"id":"a\"b"},{"id":17},{"x":1},nul]"#));
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&server, dir.path(), Style::None);
    config.http.id = Some("/id".into());
    assert!(run(&config).error.is_none());
    let id = |line: &Value| line["message_id"].as_str().unwrap().split_once("/items:").unwrap().1.to_owned();
    let stored: Vec<String> = lines(dir.path(), "processed").iter().map(id).collect();
    assert_eq!(stored, ["a\"b", "17", "0:0:2"]);
    let failed = lines(dir.path(), "failed");
    assert_eq!((id(&failed[0]), &failed[0]["payload"]), ("0:0:3".into(), &json!("nul")));
}

#[test]
fn a_finished_run_is_followed_by_the_next_pass() {
    let (server, dir) = (numbered(2), tempfile::tempdir().unwrap());
    let mut config = config(&server, dir.path(), Style::Page);
    finished(&config);
    let first = files(dir.path());
    // The next pass may be stored in other batches.
    config.processing.batch_size = 5;
    finished(&config);
    assert_eq!(ids(dir.path()), [expected(2), expected(2)].concat());
    assert!(first.iter().all(|(path, text)| files(dir.path()).get(path) == Some(text)));
    let ids: Vec<Value> =
        lines(dir.path(), "processed").iter().map(|line| line["message_id"].clone()).collect();
    assert!(ids.iter().enumerate().all(|(at, id)| !ids[..at].contains(id)), "no id twice");
    config.processing.fresh = true;
    finished(&config);
    assert_eq!(self::ids(dir.path()), expected(2));
    assert!(files(dir.path()).keys().all(|path| path.parent().unwrap().ends_with("0")));
}

#[test]
fn a_run_that_was_killed_goes_on_and_ends_like_one_that_was_not() {
    for page in [0, 1, 3, 5] {
        let (undisturbed, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let stop = Mutex::new(None::<Stop>);
        let shared = std::sync::Arc::new(stop);
        let seen = shared.clone();
        let server = Server::new(move |asked: &Asked| {
            let at = asked.number("page").unwrap() - 1;
            if at == page
                && let Some(stop) = seen.lock().unwrap().take()
            {
                std::thread::sleep(Duration::from_millis(100));
                stop.abort();
            }
            array(at, 5)
        });
        let prepare = |dir: &Path| {
            let mut config = config(&server, dir, Style::Page);
            config.processing.batch_size = 5;
            config
        };
        finished(&prepare(undisturbed.path()));
        let (killing, disturbed) = (Stop::new(), prepare(dir.path()));
        *shared.lock().unwrap() = Some(killing.clone());
        let done = job::run(&disturbed, Mode::Store, &killing, &|_| {});
        assert!(done.error.is_some());
        let before = server.asked().len();
        finished(&disturbed);
        assert_eq!(ids(dir.path()), expected(5), "killed at page {page}");
        let again = server.asked()[before].number("page").unwrap();
        assert!(again <= page + 1, "it goes on with a page that was not whole: {again}");
        let names = |dir: &Path| -> Vec<PathBuf> {
            files(&dir.join("out")).keys().map(|path| path.strip_prefix(dir).unwrap().to_owned()).collect()
        };
        assert_eq!(names(dir.path()), names(undisturbed.path()), "killed at page {page}");
    }
}

#[test]
fn a_drain_in_the_middle_is_gone_on_with_at_the_very_record() {
    let dir = tempfile::tempdir().unwrap();
    let stop = Stop::new();
    let draining = stop.clone();
    let server = Server::new(move |asked: &Asked| {
        let at = asked.number("page").unwrap() - 1;
        if at == 2 {
            draining.drain();
        }
        array(at, 4)
    });
    let config = config(&server, dir.path(), Style::Page);
    let done = job::run(&config, Mode::Store, &stop, &|_| {});
    assert!(done.error.is_none(), "{:?}", done.error);
    assert_eq!(done.summary.unwrap().outcome, Outcome::Drained);
    assert_eq!(ids(dir.path()), expected(2));
    finished(&config);
    assert_eq!(ids(dir.path()), expected(4));
}

#[test]
fn a_page_that_breaks_off_is_asked_for_again_and_what_was_taken_is_not_taken_twice() {
    let server = Server::new(|asked: &Asked| {
        let body = Value::from(items(0, SIZE)).to_string();
        match asked.index {
            0 => Answer::ok(&body.as_bytes()[..body.len() / 2]).declaring(body.len()),
            1 => Answer::ok(&body.as_bytes()[..body.len() - 1]).declaring(body.len()),
            _ => Answer::ok(body),
        }
    });
    let dir = tempfile::tempdir().unwrap();
    finished(&config(&server, dir.path(), Style::None));
    assert_eq!(ids(dir.path()), expected(1));
    assert_eq!(server.asked().len(), 3);
}

#[test]
fn a_page_that_never_comes_whole_keeps_what_came_and_fails() {
    let server = Server::new(|asked: &Asked| match asked.number("page") {
        Some(1) => array(0, 9),
        _ => Answer::ok("[{\"id\":100},{\"id\":101},{").declaring(1000),
    });
    let dir = tempfile::tempdir().unwrap();
    let config = config(&server, dir.path(), Style::Page);
    let done = run(&config);
    let error = done.error.unwrap();
    assert_eq!(error.exit_code(), 1, "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");
    assert_eq!(ids(dir.path()), [expected(1), vec![100, 101]].concat());
}

#[test]
fn a_damaged_page_is_asked_for_again_and_then_a_dead_letter_or_the_end() {
    let broken = |whole: u32| {
        Server::new(move |asked: &Asked| match asked.number("page").unwrap() {
            2 if (asked.index as u32) < whole => {
                Answer::ok(r#"{"items":[{"id":100},{"id":101}] oops {"id":102}]}"#)
            }
            page => Answer::ok(json!({ "items": items(page - 1, if page < 4 { 2 } else { 0 }) }).to_string()),
        })
    };
    let prepare = |server: &Server, dir: &Path| {
        let mut config = config(server, dir, Style::Page);
        config.http.records = Some("/items".into());
        config
    };
    let (server, dir) = (broken(2), tempfile::tempdir().unwrap());
    finished(&prepare(&server, dir.path()));
    assert_eq!(ids(dir.path()), [0, 1, 100, 101, 200, 201], "it was right the second time");

    let (server, dir) = (broken(100), tempfile::tempdir().unwrap());
    let done = finished(&prepare(&server, dir.path()));
    assert_eq!(done.summary.unwrap().records_rejected, 1);
    assert_eq!(ids(dir.path()), [0, 1, 100, 101, 200, 201]);
    let failed = lines(dir.path(), "failed");
    assert_eq!(failed[0]["payload"], "oops {\"id\":102}]}");
    assert_eq!(failed[0]["metadata"]["page"], 1);

    let dir = tempfile::tempdir().unwrap();
    let mut config = prepare(&server, dir.path());
    config.processing.on_reject = OnReject::Fail;
    assert_eq!(run(&config).error.unwrap().exit_code(), 1);
}

#[test]
fn where_nothing_leads_on_from_a_damaged_page_the_run_fails() {
    let server = Server::new(|_| Answer::ok(r#"{"items":[{"id":1}],"#));
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&server, dir.path(), Style::Cursor);
    config.http.records = Some("/items".into());
    let error = run(&config).error.unwrap();
    assert_eq!(error.exit_code(), 1, "{error}");
    assert!(error.to_string().contains("nothing in it leads on"), "{error}");
    assert_eq!(ids(dir.path()), [1]);
}

#[test]
fn records_that_are_none_are_dead_letters_and_long_ones_keep_their_beginning() {
    let long = format!("[{{\"id\":1}},nul,\"{}\",{{\"id\":2}}]", "x".repeat(300_000));
    let server = Server::new(move |_| Answer::ok(long.clone()));
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&server, dir.path(), Style::None);
    config.input.max_record_bytes = 100_000;
    assert!(run(&config).error.is_none());
    assert_eq!(ids(dir.path()), [1, 2]);
    let failed = lines(dir.path(), "failed");
    let kinds: Vec<&str> = failed.iter().map(|line| line["error"]["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["invalid_json", "too_large"]);
    assert_eq!(failed[1]["error"]["length"], 300_002);
    assert!(failed[1]["payload"].as_str().unwrap().len() < 5000);
}

#[test]
fn a_pointer_to_nothing_is_told_at_once() {
    let server = Server::new(|_| Answer::ok(r#"{"data":[1]}"#));
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&server, dir.path(), Style::None);
    config.http.records = Some("/items".into());
    let error = run(&config).error.unwrap();
    assert_eq!(error.exit_code(), 4, "{error}");
    assert!(error.to_string().contains("http.records"), "{error}");
}

#[test]
fn loops_and_caps_end_a_pass() {
    let server = Server::new(|asked: &Asked| {
        let next = if asked.param("cursor").as_deref() == Some("b") { "a" } else { "b" };
        let at = asked.param("cursor").map_or(0, |cursor| if cursor == "a" { 1 } else { 2 });
        let next = if asked.param("cursor").is_none() { "a" } else { next };
        Answer::ok(json!({ "items": items(at, 1), "next_cursor": next }).to_string())
    });
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&server, dir.path(), Style::Cursor);
    config.http.records = Some("/items".into());
    finished(&config);
    assert_eq!(ids(dir.path()), [0, 100, 200]);
    let (server, dir) = (numbered(9), tempfile::tempdir().unwrap());
    let mut config = self::config(&server, dir.path(), Style::Page);
    config.http.pagination.max_pages = Some(2);
    finished(&config);
    assert_eq!(ids(dir.path()), expected(2));
}

#[test]
fn refusals_say_what_to_do_and_name_nothing_secret() {
    for (status, code) in [(401, 4), (403, 4), (404, 4), (500, 1)] {
        let server = Server::new(move |_| Answer::status(status));
        let dir = tempfile::tempdir().unwrap();
        let error = run(&config(&server, dir.path(), Style::None)).error.unwrap();
        assert_eq!(error.exit_code(), code, "{error}");
        assert!(error.to_string().contains(&format!("answers {status}")), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
        assert_eq!(error.hint().is_some(), code == 4);
    }
    let gone = Server::new(|_| Answer::ok("")).url("/items");
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::from_http(vec![gone], Place::Dir(dir.path().join("out")));
    config.processing.retry =
        crate::retry::Policy { max_retries: 1, delay: Duration::from_millis(1), ..config.processing.retry };
    assert_eq!(run(&config).error.unwrap().exit_code(), 1);
}

#[test]
fn several_endpoints_are_partitions_and_one_failure_stops_no_other() {
    let server = Server::new(|asked: &Asked| match asked.path() {
        "/bad" => Answer::status(404),
        _ => array(asked.number("page").unwrap() - 1, 3),
    });
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&server, dir.path(), Style::Page);
    config.http.urls = ["/a", "/bad", "/b", "/c"].map(|path| server.url(path)).to_vec();
    let error = run(&config).error.unwrap();
    assert!(error.to_string().contains("/bad"), "{error}");
    assert_eq!(lines(dir.path(), "processed").len() as u64, 3 * 3 * SIZE);
    // Started again, what is done is done.
    let before = server.asked().len();
    assert!(run(&config).error.is_some());
    let asked = server.asked();
    assert!(asked[before..].iter().all(|it| it.path() == "/bad"));
    assert_eq!(lines(dir.path(), "processed").len() as u64, 3 * 3 * SIZE);
    let dir = tempfile::tempdir().unwrap();
    let mut config = self::config(&server, dir.path(), Style::Page);
    config.http.urls = ["/a", "/bad", "/b", "/c"].map(|path| server.url(path)).to_vec();
    config.processing.shard = Some((0, 2));
    finished(&config);
    assert_eq!(lines(dir.path(), "processed").len() as u64, 2 * 3 * SIZE);
}

#[test]
fn the_next_pass_asks_for_what_is_new() {
    let server = Server::new(|asked: &Asked| {
        let since = asked.number("updated_at").unwrap_or(0);
        let new: Vec<Value> =
            items(0, 5).into_iter().filter(|it| it["id"].as_u64().unwrap() >= since).collect();
        Answer::ok(Value::from(new).to_string())
    });
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&server, dir.path(), Style::None);
    config.http.since = Some("/updated_at".into());
    finished(&config);
    finished(&config);
    finished(&config);
    let sent: Vec<Option<u64>> = server.asked().iter().map(|it| it.number("updated_at")).collect();
    assert_eq!(sent, [None, Some(4), Some(4)]);
    assert_eq!(ids(dir.path()), [0, 1, 2, 3, 4, 4, 4]);
}

#[test]
fn polling_goes_on_until_it_is_told_to_stop() {
    let stop = Stop::new();
    let draining = stop.clone();
    let server = Server::new(move |asked: &Asked| {
        if asked.index == 6 {
            draining.drain();
        }
        let since = asked.number("since").unwrap_or(0);
        Answer::ok(Value::from(items(since, 1)).to_string())
    });
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&server, dir.path(), Style::None);
    config.http.poll = Some(Duration::from_millis(10));
    (config.http.since, config.http.since_param) = (Some("/id".into()), Some("since".into()));
    config.processing.batch_wait = Some(Duration::from_millis(20));
    let done = job::run(&config, Mode::Store, &stop, &|_| {});
    assert!(done.error.is_none(), "{:?}", done.error);
    assert_eq!(done.summary.unwrap().outcome, Outcome::Ended);
    let sent: Vec<Option<u64>> = server.asked().iter().map(|it| it.number("since")).collect();
    // Each pass knows what the one before it has stored.
    assert_eq!(sent[..4], [None, Some(0), Some(0), Some(0)]);
    let stored = lines(dir.path(), "processed");
    let cycles: Vec<u64> = stored.iter().map(|line| line["metadata"]["cycle"].as_u64().unwrap()).collect();
    assert_eq!(cycles[..6], [0, 1, 2, 3, 4, 5]);
}

#[test]
fn polling_outlives_a_server_that_is_down() {
    let stop = Stop::new();
    let draining = stop.clone();
    let server = Server::new(move |asked: &Asked| match asked.index {
        0..=5 => Answer::status(503),
        6 => Answer::ok("[{\"id\":1}]"),
        _ => {
            draining.drain();
            Answer::status(503)
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&server, dir.path(), Style::None);
    config.http.poll = Some(Duration::from_millis(20));
    let done = job::run(&config, Mode::Store, &stop, &|_| {});
    assert!(done.error.is_none(), "{:?}", done.error);
    assert_eq!(ids(dir.path()), [1]);
    let denied = Server::new(|_| Answer::status(401));
    let dir = tempfile::tempdir().unwrap();
    let mut config = self::config(&denied, dir.path(), Style::None);
    config.http.poll = Some(Duration::from_millis(20));
    assert_eq!(run(&config).error.unwrap().exit_code(), 4);
}

#[test]
fn without_a_state_what_is_there_is_refused() {
    let (server, dir) = (numbered(1), tempfile::tempdir().unwrap());
    let mut config = config(&server, dir.path(), Style::Page);
    config.processing.state = StateAt::None;
    finished(&config);
    let error = run(&config).error.unwrap();
    assert_eq!(error.exit_code(), 2, "{error}");
    config.processing.fresh = true;
    finished(&config);
    assert_eq!(ids(dir.path()), expected(1));
    let one = dir.path().join("one.ndjson");
    config.output.to = Place::File(one.clone());
    config.processing.fresh = false;
    finished(&config);
    assert_eq!(fs::read_to_string(one).unwrap().lines().count() as u64, SIZE);
}

#[test]
fn a_limit_ends_a_run_in_the_middle_of_a_page() {
    let (server, dir) = (numbered(9), tempfile::tempdir().unwrap());
    let mut config = config(&server, dir.path(), Style::Page);
    config.processing.limit = Some(SIZE + 2);
    finished(&config);
    assert_eq!(ids(dir.path()).len() as u64, SIZE + 2);
    assert!(server.asked().len() <= 3);
}

#[test]
fn other_settings_are_refused_in_the_middle_of_a_pass() {
    let dir = tempfile::tempdir().unwrap();
    let stop = Stop::new();
    let draining = stop.clone();
    let server = Server::new(move |asked: &Asked| {
        if asked.number("page") == Some(2) {
            draining.drain();
        }
        array(asked.number("page").unwrap() - 1, 3)
    });
    let mut config = config(&server, dir.path(), Style::Page);
    job::run(&config, Mode::Store, &stop, &|_| {});
    config.http.query = vec![("token".into(), "another".into())];
    let error = run(&config).error.unwrap();
    assert_eq!(error.exit_code(), 2, "{error}");
    assert!(error.to_string().contains("is asked with another query"), "{error}");
    assert!(!error.to_string().contains("token"), "{error}");
    config.http.query.clear();
    config.http.pagination.first_page = 0;
    assert!(run(&config).error.unwrap().to_string().contains("first_page was 1"));
    config.http.pagination.first_page = 1;
    config.http.urls.push(server.url("/more"));
    finished(&config);
    assert_eq!(lines(dir.path(), "processed").len() as u64, 2 * 3 * SIZE);
}

#[test]
fn what_was_planned_ends_there_again() {
    let (server, dir) = (numbered(3), tempfile::tempdir().unwrap());
    let mut config = config(&server, dir.path(), Style::Page);
    config.processing.batch_size = 5;
    finished(&config);
    let objects = || -> Vec<u64> {
        let name = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        files(&dir.path().join("out/processed")).keys().map(name).collect()
    };
    let page = |page: u64, index: u64| page << 32 | index;
    assert_eq!(objects(), [0, 5, page(1, 3), page(2, 1), page(2, 6)]);
    // As a run leaves it that closed batches early, and was killed when their ends were planned, and one was there.
    let path = dir.path().join("out/.pipeline/state.json");
    let mut state: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let started = state["run"]["started_at"].as_i64().unwrap();
    state["run"]["finished"] = json!(false);
    let resume = json!({ "cycle": 0, "started": started, "page": 0, "at": { "number": 1 } }).to_string();
    let entry = state["partitions"].as_object_mut().unwrap().values_mut().next().unwrap();
    (entry["watermark"], entry["ended"]) = (json!(0), json!(false));
    entry["resume"] = json!(base64::Engine::encode(&base64::prelude::BASE64_STANDARD, resume));
    let end = |end: u64| json!({ "end": end, "first_time": 0, "opened_at": started });
    entry["plan"] = json!([end(3), end(page(1, 2))]);
    fs::write(&path, state.to_string() + "\n").unwrap();
    for object in files(&dir.path().join("out/processed")).keys() {
        fs::remove_file(object).unwrap();
    }
    finished(&config);
    assert_eq!(objects(), [0, 3, page(1, 2), page(1, 7), page(2, 5)]);
    assert_eq!(ids(dir.path()), expected(3));
}
