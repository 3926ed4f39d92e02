//! What is gone on with, what is read again, and what is refused: runs behind runs over the same endpoint.

use super::*;

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
        let (seen, out) = (shared.clone(), dir.path().join("out/processed"));
        let server = Server::new(move |asked: &Asked| {
            let at = asked.number("page").unwrap() - 1;
            if at == page
                && let Some(stop) = seen.lock().unwrap().take()
            {
                // A batch for each page before this one.
                let end = Instant::now() + Duration::from_secs(60);
                while files(&out).len() < page as usize {
                    assert!(Instant::now() < end, "the pages before are never stored");
                    std::thread::sleep(Duration::from_millis(1));
                }
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

/// A run that polls goes on for days over many starts, and each pass has its own time.
#[test]
fn the_first_pass_of_a_start_has_the_time_of_this_start() {
    let server = Server::new(|_: &Asked| Answer::ok("[1]"));
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&server, dir.path(), Style::None);
    config.http.poll = Some(Duration::from_millis(1));
    config.processing.batch_wait = Some(Duration::from_millis(1));
    let polled = |passes: usize| {
        let (stop, wanted) = (Stop::new(), lines(dir.path(), "processed").len() + passes);
        std::thread::scope(|scope| {
            let run = scope.spawn(|| job::run(&config, Mode::Store, &stop, &|_| {}));
            while lines(dir.path(), "processed").len() < wanted && !run.is_finished() {
                std::thread::park_timeout(Duration::from_millis(1));
            }
            stop.drain();
            assert!(run.join().unwrap().error.is_none());
        });
    };
    polled(1);
    let state = dir.path().join("out/.pipeline/state.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&state).unwrap()).unwrap();
    record["run"]["started_at"] = 1000.into();
    fs::write(&state, record.to_string() + "\n").unwrap();
    polled(1);
    let stored = lines(dir.path(), "processed");
    let times: Vec<&str> = stored.iter().map(|line| line["processed_at"].as_str().unwrap()).collect();
    assert!(times.len() >= 2 && times.iter().all(|time| !time.starts_with("1970")), "{times:?}");
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
