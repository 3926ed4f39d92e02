//! What a run begins with: whose start it carries, what is forgotten, and what of it is deleted.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// A mark without what a source or a plan adds to it.
fn plain(name: &str, watermark: u64, ended: bool) -> Mark {
    Mark { resume: None, plan: Vec::new(), ..mark(name, watermark, ended) }
}

fn at(name: &str, start: u64) -> String {
    format!("processed/{name}/{start:020}.ndjson")
}

#[test]
fn what_is_remembered_is_looked_at_without_a_lock() {
    let bench = Bench::new();
    assert!(!State::look(&bench.options(1000)).unwrap());
    let (state, _) = bench.run(1000, &["a"]);
    state.store(&mut [mark("a", 40, false)], &mut Vec::new()).unwrap();
    assert!(State::look(&bench.options(2000)).unwrap());
    let mut other = bench.options(2000);
    other.settings.clear();
    assert!(text(State::look(&other)).contains("batch_size was 50 and is not set now"));
    bench.inputs.set("a", "another", 100);
    assert!(text(State::look(&bench.options(2000))).contains("input a was changed"));
}

/// What comes next is another pass, whatever became of the endpoint since.
#[test]
fn a_look_at_a_pass_that_is_over_asks_for_no_input() {
    let bench = Bench::new();
    let state = State::open(paged(&bench, 1000)).unwrap();
    state.begin(["a"], &Outcome::Begin).unwrap();
    state.store(&mut [mark("a", 40, true)], &mut Vec::new()).unwrap();
    bench.inputs.set("a", "another", 100);
    assert!(State::look(&paged(&bench, 2000)).is_err());
    state.finished().unwrap();
    assert!(State::look(&paged(&bench, 2000)).unwrap());
}

#[test]
fn an_input_that_changed_before_its_first_mark_is_refused() {
    let bench = Bench::new();
    drop(bench.run(1000, &["a"]));
    bench.inputs.set("a", "another", 100);
    assert!(text(bench.open(2000).outcome(["a"])).contains("input a was changed"));
}

#[test]
fn another_pass_is_known_by_what_its_source_was_when_it_began() {
    let bench = Bench::new();
    let state = State::open(paged(&bench, 1000)).unwrap();
    state.begin_again(["a"], &Outcome::Begin, &[("a".into(), Arc::from(&b"next"[..]))]).unwrap();
    assert_eq!(state.partition("a").unwrap().identity, Some(json!({ "content": "A", "at": 0 })));
}

/// An input without a record has no place to go on from, and was read all the same; so was one that is planned.
#[test]
fn nothing_but_a_beginning_is_untouched() {
    let bench = Bench::new();
    bench.inputs.set("a", "A", 0);
    let (state, _) = bench.run(1000, &["a", "b"]);
    state.store(&mut [plain("a", 0, true)], &mut Vec::new()).unwrap();
    drop(state);
    let state = bench.open(2000);
    assert_eq!(state.outcome(["a"]).unwrap(), Outcome::NothingToDo { rejected: 2 });
    assert_eq!(state.outcome(["b"]).unwrap(), Outcome::Begin);
    let planned = Mark { resume: None, ..mark("b", 0, false) };
    state.store(&mut [planned.clone()], &mut Vec::new()).unwrap();
    let open = Outcome::Resume(Resume { open: 1, rejected: 2, ..Resume::default() });
    assert_eq!(state.outcome(["b"]).unwrap(), open);
    assert_eq!(state.load("b").unwrap(), Some(planned));
}

#[test]
fn what_was_begun_and_is_not_named_is_told() {
    let bench = Bench::new();
    let (state, _) = bench.run(1000, &["a", "b", "c", "d"]);
    let mut marks = [mark("a", 50, false), mark("b", 60, false), mark("c", 100, true)];
    state.store(&mut marks, &mut Vec::new()).unwrap();
    assert_eq!(state.abandoned(&["a".into()]), [("b".to_string(), 60)]);
}

/// Its batches carry the start of the run that left it, and the name of the machine.
#[test]
fn an_input_left_open_by_a_run_before_the_last_is_gone_on_with_as_it_began() {
    let bench = Bench::new();
    let (state, _) = bench.run(1000, &["a", "b"]);
    state.store(&mut [mark("a", 50, false)], &mut Vec::new()).unwrap();
    drop(state);
    let (state, _) = bench.run(2000, &["b"]);
    state.store(&mut [mark("b", 100, true)], &mut Vec::new()).unwrap();
    state.finished().unwrap();
    drop(state);
    let (state, _) = bench.run(3000, &["a", "b"]);
    assert_eq!((state.started_at(), state.processed_by().as_str()), (1000, "host1000"));
}

#[test]
fn a_start_of_its_own_outlasts_marks_and_further_runs() {
    let bench = Bench::new();
    let (state, _) = bench.run(1000, &["a"]);
    state.store(&mut [mark("a", 50, false)], &mut Vec::new()).unwrap();
    state.finished().unwrap();
    drop(state);
    for now_ms in [2000, 3000] {
        let (state, _) = bench.run(now_ms, &["b", &format!("of {now_ms}")]);
        state.store(&mut [mark("b", 100, true)], &mut Vec::new()).unwrap();
        state.finished().unwrap();
    }
    for watermark in [60, 70] {
        let (state, _) = bench.run(4000, &["a"]);
        assert_eq!(state.started_at_of("a"), 1000);
        state.store(&mut [mark("a", watermark, false)], &mut Vec::new()).unwrap();
    }
}

#[test]
fn what_was_stored_beyond_a_mark_is_deleted_from_its_very_end_on() {
    let bench = Bench::new();
    let (state, _) = bench.run(1000, &["a", "b"]);
    state.store(&mut [mark("a", 40, false), mark("b", 100, true)], &mut Vec::new()).unwrap();
    drop(state);
    let (kept, gone) = ([at("a", 0), at("a", 39), at("b", 100)], [at("a", 40), at("a", 41)]);
    kept.iter().chain(&gone).for_each(|key| bench.object(key));
    let failed = gone.each_ref().map(|key| key.replace("processed", "failed"));
    failed.iter().for_each(|key| bench.object(key));
    bench.run(2000, &["a", "b"]);
    assert!(kept.iter().all(|key| bench.has(key)));
    assert!(!gone.iter().chain(&failed).any(|key| bench.has(key)));
}

#[test]
fn fresh_begins_an_unfinished_run_as_a_new_one_and_deletes_once() {
    let bench = Bench::new();
    let (state, _) = bench.run(1000, &["a"]);
    state.store(&mut [mark("a", 50, false)], &mut Vec::new()).unwrap();
    drop(state);
    let state = State::open(fresh(&bench, 2000)).unwrap();
    state.begin(["a"], &Outcome::Begin).unwrap();
    assert_eq!((state.started_at(), state.processed_by().as_str()), (2000, "host2000"));
    bench.object(KEY);
    state.store(&mut [mark("a", 100, true)], &mut Vec::new()).unwrap();
    drop(state);
    bench.run(3000, &["a"]);
    assert!(bench.has(KEY), "it is of the run that began again");
}

/// A run of others began again, too, and was killed while it deleted.
#[test]
fn a_deletion_that_was_cut_short_is_not_forgotten_by_another_one() {
    let bench = Bench::new();
    drop(bench.run(1000, &["a", "b"]));
    [KEY, OTHER].iter().for_each(|key| bench.object(key));
    let (dir, away) = (bench.dir.0.join("processed/a"), bench.dir.0.join("away"));
    fs::rename(&dir, &away).unwrap();
    std::os::unix::fs::symlink(&away, &dir).unwrap();
    let state = State::open(fresh(&bench, 2000)).unwrap();
    assert!(text(state.begin(["a"], &Outcome::Begin)).contains("symbolic link"));
    drop(state);
    fs::remove_file(&dir).unwrap();
    fs::rename(&away, &dir).unwrap();
    let state = State::open(fresh(&bench, 3000)).unwrap();
    state.begin(["b"], &Outcome::Begin).unwrap();
    assert!(!bench.has(KEY) && !bench.has(OTHER));
}

#[test]
fn fresh_makes_a_state_of_another_output_one_of_this() {
    let bench = Bench::new();
    let (state, _) = bench.run(1000, &["a", "b"]);
    state.store(&mut [mark("b", 100, true)], &mut Vec::new()).unwrap();
    drop(state);
    let there = |fresh| StateOptions { output: "there".into(), fresh, ..bench.options(2000) };
    let state = State::open(there(Fresh::Yes)).unwrap();
    state.begin(["a"], &Outcome::Begin).unwrap();
    drop(state);
    let state = State::open(there(Fresh::No)).unwrap();
    assert_eq!(state.partition("b"), None, "that was stored elsewhere");
}

/// Names by settings, each once, and not those that are in use.
#[test]
fn earlier_names_are_remembered_when_another_pass_has_others() {
    let bench = Bench::new();
    let named = |now_ms, key: &str| {
        let mut options = paged(&bench, now_ms);
        if !key.is_empty() {
            options.settings.insert(record::KEY.into(), key.into());
        }
        options.leftovers = Some(options.leftovers.unwrap().named(key).unwrap());
        options
    };
    for (now_ms, key) in
        [(1000, ""), (2000, ""), (3000, "x/"), (4000, ""), (5000, "x/"), (6000, "y/"), (7000, "y/")]
    {
        let state = State::open(named(now_ms, key)).unwrap();
        state.begin_again(["a"], &Outcome::Begin, &[("a".into(), Arc::from(&b"next"[..]))]).unwrap();
        state.finished().unwrap();
    }
    let read = Record::read(&*paged(&bench, 0).home).unwrap().unwrap();
    assert_eq!(read.earlier_keys, ["", "x/"]);
    let earlier =
        ["processed/a/0/00000000000000000000.ndjson", "processed/x/a/0/00000000000000000000.ndjson"];
    earlier.iter().for_each(|key| bench.object(key));
    let state = State::open(StateOptions { fresh: Fresh::Yes, ..named(8000, "y/") }).unwrap();
    state.begin(["a"], &Outcome::Begin).unwrap();
    assert!(!earlier.iter().any(|key| bench.has(key)));
}

#[test]
fn other_settings_are_refused_after_a_run_that_came_to_its_end() {
    let bench = Bench::new();
    let (state, _) = bench.run(1000, &["a"]);
    state.store(&mut [mark("a", 100, true)], &mut Vec::new()).unwrap();
    state.finished().unwrap();
    drop(state);
    let mut options = bench.options(2000);
    options.settings.insert("batch_size".into(), "100".into());
    assert!(text(State::open(options)).contains("batch_size was 50"));
}

#[test]
fn a_state_of_another_version_is_refused_by_its_version() {
    let bench = Bench::new();
    drop(bench.run(1000, &["a"]));
    let path = bench.dir.0.join(".pipeline/state.json");
    let whole = fs::read_to_string(&path).unwrap();
    fs::write(&path, whole.replace("\"version\":1", "\"version\":2")).unwrap();
    assert!(
        text(State::open(bench.options(2000))).contains("it has version 2, and this program knows version 1")
    );
    // What this program does not know may mean anything.
    for (place, more) in
        [("\"output\"", "\"new\":1,"), ("\"finished\"", "\"new\":1,"), ("\"watermark\"", "\"new\":1,")]
    {
        fs::write(&path, whole.replace(place, &format!("{more}{place}"))).unwrap();
        assert!(text(State::open(bench.options(2000))).contains("unknown field `new`"), "{place}");
    }
}

#[test]
fn ends_are_planned_only_where_there_are_objects_to_end() {
    let bench = Bench::new();
    let stream = StateOptions { leftovers: None, ..paged(&bench, 1000) };
    assert!(!State::open(stream).unwrap().plans());
}

#[test]
fn what_a_killed_run_left_of_a_write_goes_with_the_next_lock() {
    let bench = Bench::new();
    bench.object(".pipeline/state.json.new");
    let _state = bench.open(1000);
    assert!(!bench.has(".pipeline/state.json.new"));
}

/// Below an endpoint stand its passes, and what others put beside them.
#[test]
fn what_is_no_pass_of_an_endpoint_is_left_alone() {
    let bench = Bench::new();
    let leftovers = paged(&bench, 1000).leftovers.unwrap();
    let others = ["notes", "01", "-1"].map(|dir| format!("processed/a/{dir}/00000000000000000000.ndjson"));
    others.iter().for_each(|key| bench.object(key));
    assert!(leftovers.existing(["a"]).unwrap().is_empty());
    assert_eq!(leftovers.remove(["a"]).unwrap(), 0);
    assert!(others.iter().all(|key| bench.has(key)));
}

#[test]
fn directories_that_are_empty_go_and_the_output_stays() {
    let dir = Scratch::new();
    let (stored, failed) = (dir.0.join("out"), dir.0.join("failures"));
    let leftovers = Leftovers::Dir(DirLeftovers {
        stored: stored.clone(),
        failed: failed.clone(),
        namer: Namer::new("", Codec::None),
        source: "file".into(),
    });
    let objects = [stored.join(at("x/a", 0)), failed.join("failed/x/a/00000000000000000000.ndjson")];
    for object in &objects {
        fs::create_dir_all(object.parent().unwrap()).unwrap();
        fs::write(object, "x").unwrap();
    }
    assert_eq!(leftovers.remove(["x/a"]).unwrap(), 2);
    let is_empty = |dir: &Path| fs::read_dir(dir).unwrap().next().is_none();
    assert!(is_empty(&stored) && is_empty(&failed));
}

/// Runs that remember nothing are kept apart where they would store, and nowhere else.
#[test]
fn two_runs_that_remember_nothing_do_not_store_the_same() {
    let dir = Scratch::new();
    let place = |stored: &str, failed: &str, key: &str| {
        let (stored, failed) = (dir.0.join(stored), dir.0.join(failed));
        [&stored, &failed].iter().for_each(|dir| fs::create_dir_all(dir).unwrap());
        let (namer, source) = (Namer::new("", Codec::None), "file".into());
        Leftovers::Dir(DirLeftovers { stored, failed, namer, source }).named(key).unwrap()
    };
    let _one = place("out", "failures", "").take(&["a", "b"], false).unwrap();
    let refused =
        |place: Leftovers, names: &[&str]| matches!(place.take(names, false), Err(Error::Locked { .. }));
    assert!(refused(place("out", "failures", ""), &["b"]));
    assert!(refused(place("out", "elsewhere", ""), &["b"]));
    assert!(refused(place("elsewhere", "failures", ""), &["b"]));
    assert!(refused(place("failures", "failures", ""), &["b"]));
    assert!(!refused(place("out", "failures", ""), &["c"]));
    assert!(!refused(place("out", "failures", "x/"), &["b"]), "under other names");
    let flat = || place("out", "failures", "{name}-{start}");
    let _one = flat().take(&["a"], false).unwrap();
    assert!(!refused(flat(), &["b"]), "in the same directory");
}

#[test]
fn a_run_that_remembers_nothing_and_begins_again_takes_what_is_there() {
    let bench = Bench::new();
    bench.object(KEY);
    assert!(text(bench.leftovers().take(&["a"], false)).contains(KEY));
    let claims = bench.leftovers().take(&["a"], true).unwrap();
    claims.remove(&bench.leftovers(), ["a"]).unwrap();
    assert!(!bench.has(KEY));
}

/// A directory whose lock can be lost, as that of a bucket can.
#[derive(Debug)]
struct Losable(DirHome, Arc<AtomicBool>);

struct Lost(#[allow(dead_code)] Box<dyn Held>, Arc<AtomicBool>);

impl Held for Lost {
    fn tend(&self) -> Result<()> {
        match self.1.load(Ordering::Relaxed) {
            true => Err(Error::Locked { path: "lock".into(), holder: "another run".into() }),
            false => Ok(()),
        }
    }
}

impl Home for Losable {
    fn name(&self) -> String {
        self.0.name()
    }

    fn lock(&self, host: &str) -> Result<Box<dyn Held>> {
        Ok(Box::new(Lost(self.0.lock(host)?, self.1.clone())))
    }

    fn read(&self) -> Result<Option<Vec<u8>>> {
        self.0.read()
    }

    fn write(&self, bytes: &[u8]) -> Result<()> {
        self.0.write(bytes)
    }
}

/// What the run that has taken over has stored must not be deleted.
#[test]
fn nothing_is_deleted_once_the_lock_is_lost() {
    let bench = Bench::new();
    let lost = Arc::<AtomicBool>::default();
    let losable = |options: StateOptions| {
        let home = Losable(DirHome(bench.dir.0.join(".pipeline")), lost.clone());
        State::open(StateOptions { home: Arc::new(home), ..options }).unwrap()
    };
    drop(bench.run(1000, &["a"]));
    bench.object(KEY);
    for options in [bench.options(2000), fresh(&bench, 3000)] {
        lost.store(false, Ordering::Relaxed);
        let state = losable(options);
        state.tend().unwrap();
        lost.store(true, Ordering::Relaxed);
        assert!(matches!(state.tend(), Err(Error::Locked { .. })));
        assert!(matches!(state.begin(["a"], &Outcome::Begin), Err(Error::Locked { .. })));
        assert!(bench.has(KEY));
    }
}
