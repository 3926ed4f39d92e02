//! Whole jobs against a scripted server: every style, and what is made of damaged pages; `passes`: one run behind
//! another.

mod passes;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

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
