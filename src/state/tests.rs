//! Tests of the state: what one run leaves and the next one makes of it.

mod begin;
#[cfg(all(feature = "s3", feature = "http"))]
mod bucket;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::codec::Codec;
use crate::record::Identity;
use crate::sink::dir::tests::Scratch;
use crate::sink::key::Namer;

/// Inputs by name: their contents and their length.
#[derive(Default)]
struct Inputs(Mutex<HashMap<String, (String, u64)>>);

impl Inputs {
    fn set(&self, name: &str, content: &str, len: u64) {
        self.0.lock().insert(name.into(), (content.into(), len));
    }
}

impl Identify for Inputs {
    fn identify(&self, partition: &str, watermark: u64) -> Result<Option<Value>> {
        Ok(self.0.lock().get(partition).map(|(content, _)| json!({ "content": content, "at": watermark })))
    }

    fn compare(&self, partition: &str, watermark: u64, old: &Value) -> Result<Same> {
        let inputs = self.0.lock();
        let (content, len) = &inputs[partition];
        Ok(match old["content"] == json!(content) {
            false => Same::Changed { what: format!("the input {partition} was changed since it was read") },
            true if *len > watermark => Same::Grown { from: watermark, to: *len },
            true => Same::Unchanged,
        })
    }
}

/// An output directory and inputs `a` and `b` of 100 bytes each.
struct Bench {
    dir: Scratch,
    inputs: Arc<Inputs>,
}

impl Bench {
    fn new() -> Self {
        let inputs = Arc::new(Inputs::default());
        inputs.set("a", "A", 100);
        inputs.set("b", "B", 100);
        Bench { dir: Scratch::new(), inputs }
    }

    fn options(&self, now_ms: i64) -> StateOptions {
        let settings = [("batch_size", "50"), ("compress", "none")];
        StateOptions {
            home: Arc::new(DirHome(self.dir.0.join(".pipeline"))),
            settings: settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            output: "here".into(),
            source: "file",
            processed_by: format!("host{now_ms}"),
            now_ms,
            fresh: Fresh::No,
            identify: self.inputs.clone(),
            cuts: Cuts::Fixed,
            leftovers: Some(self.leftovers()),
        }
    }

    fn leftovers(&self) -> Leftovers {
        Leftovers::Dir(DirLeftovers {
            stored: self.dir.0.clone(),
            failed: self.dir.0.clone(),
            namer: Namer::new("", Codec::None),
            source: "file".into(),
        })
    }

    fn open(&self, now_ms: i64) -> State {
        State::open(self.options(now_ms)).unwrap()
    }

    /// Begins a run over `names`.
    #[track_caller]
    fn run(&self, now_ms: i64, names: &[&str]) -> (State, Outcome) {
        let state = self.open(now_ms);
        let outcome = state.outcome(names.iter().copied()).unwrap();
        state.begin(names.iter().copied(), &outcome).unwrap();
        (state, outcome)
    }

    /// Leaves an object in the output.
    fn object(&self, key: &str) {
        let path = self.dir.0.join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }

    fn has(&self, key: &str) -> bool {
        self.dir.0.join(key).exists()
    }
}

fn mark(name: &str, watermark: u64, ended: bool) -> Mark {
    let identity = Identity { source: "file", name: name.into(), ..Identity::default() };
    Mark {
        partition: Partition::new(identity),
        watermark,
        line: watermark / 10 + 1,
        resume: Some(Arc::from(&b"\0cursor"[..])),
        plan: vec![Planned { end: watermark + 5, first_time: 7, opened_at: 8 }],
        rejected: 2,
        ended,
        fresh: false,
    }
}

fn text(result: Result<impl Sized>) -> String {
    result.err().expect("it must fail").to_string()
}

#[test]
fn marks_come_back() {
    let bench = Bench::new();
    let (state, outcome) = bench.run(1000, &["a", "b"]);
    assert_eq!(outcome, Outcome::Begin);
    assert_eq!(state.load("a").unwrap(), None);
    state.store(&mut [mark("a", 40, false)], &mut Vec::new()).unwrap();
    drop(state);
    let (state, outcome) = bench.run(2000, &["a", "b"]);
    assert_eq!(outcome, Outcome::Resume(Resume { open: 1, new: 1, rejected: 2, ..Resume::default() }));
    assert_eq!(state.load("a").unwrap(), Some(mark("a", 40, false)));
    assert_eq!(state.load("b").unwrap(), None);
    let remembered = state.partition("a").unwrap();
    assert_eq!((remembered.watermark, remembered.line, remembered.rejected), (40, 5, 2));
    assert_eq!(remembered.identity, Some(json!({ "content": "A", "at": 40 })));
    // The unfinished run goes on: what it began with stays.
    assert_eq!((state.started_at(), state.processed_by().as_str()), (1000, "host1000"));
}

#[test]
fn a_finished_run_has_nothing_to_do_and_a_new_file_a_new_start() {
    let bench = Bench::new();
    let (state, _) = bench.run(1000, &["a", "b"]);
    state.store(&mut [mark("a", 100, true), mark("b", 100, true)], &mut Vec::new()).unwrap();
    state.finished().unwrap();
    drop(state);
    let state = bench.open(2000);
    assert_eq!(state.outcome(["a", "b"]).unwrap(), Outcome::NothingToDo { rejected: 4 });
    assert_eq!(state.outcome(["b"]).unwrap(), Outcome::NothingToDo { rejected: 2 });
    drop(state);
    let (state, outcome) = bench.run(3000, &["a", "c"]);
    assert_eq!(outcome, Outcome::Resume(Resume { done: 1, new: 1, ..Resume::default() }));
    assert_eq!((state.started_at(), state.processed_by().as_str()), (3000, "host3000"));
    assert_eq!((state.started_at_of("a"), state.started_at_of("c")), (1000, 3000));
    // Not named this time, and still there.
    assert!(state.partition("b").is_some());
}

#[test]
fn a_grown_input_goes_on_with_a_new_start_that_a_crash_does_not_change() {
    let bench = Bench::new();
    let (state, _) = bench.run(1000, &["a", "b"]);
    state.store(&mut [mark("a", 100, true), mark("b", 100, true)], &mut Vec::new()).unwrap();
    state.finished().unwrap();
    drop(state);
    bench.inputs.set("a", "A", 150);
    let (state, outcome) = bench.run(2000, &["a", "b"]);
    let grown = vec!["a".to_string()];
    assert_eq!(outcome, Outcome::Resume(Resume { done: 1, grown, ..Resume::default() }));
    assert_eq!((state.started_at_of("a"), state.started_at_of("b")), (2000, 1000));
    drop(state);
    let (state, outcome) = bench.run(3000, &["a", "b"]);
    assert_eq!(outcome, Outcome::Resume(Resume { done: 1, open: 1, rejected: 4, ..Resume::default() }));
    assert_eq!((state.started_at_of("a"), state.started_at_of("b")), (2000, 1000));
    assert_eq!(state.load("a").unwrap().unwrap().watermark, 100);
}

#[test]
fn an_input_left_unfinished_keeps_its_start_although_others_finished() {
    let bench = Bench::new();
    let (state, _) = bench.run(1000, &["a", "b"]);
    state.store(&mut [mark("a", 50, false), mark("b", 50, false)], &mut Vec::new()).unwrap();
    drop(state);
    let (state, _) = bench.run(2000, &["a"]);
    state.store(&mut [mark("a", 100, true)], &mut Vec::new()).unwrap();
    state.finished().unwrap();
    drop(state);
    let (state, _) = bench.run(3000, &["c"]);
    state.finished().unwrap();
    assert_eq!((state.started_at_of("b"), state.started_at_of("c")), (1000, 3000));
    drop(state);
    let (state, _) = bench.run(4000, &["b"]);
    assert_eq!(state.started_at_of("b"), 1000);
}

#[test]
fn a_changed_input_is_refused() {
    let bench = Bench::new();
    let (state, _) = bench.run(1000, &["a", "b"]);
    state.store(&mut [mark("a", 40, false)], &mut Vec::new()).unwrap();
    drop(state);
    bench.inputs.set("a", "another", 100);
    let state = bench.open(2000);
    let error = state.outcome(["a"]).unwrap_err();
    assert!(matches!(error, Error::Changed { .. }));
    assert!(error.to_string().contains("input a was changed"), "{error}");
    assert!(state.outcome(["b"]).is_ok());
}

#[test]
fn changed_settings_are_refused_each_by_name() {
    let bench = Bench::new();
    let (state, _) = bench.run(1000, &["a"]);
    drop(state);
    let mut options = bench.options(2000);
    options.settings.insert("batch_size".into(), "100".into());
    options.settings.remove("compress");
    options.settings.insert("jq".into(), ".a".into());
    assert_eq!(
        text(State::open(options)),
        "batch_size was 50 and is 100 now; compress was none and is not set now; jq was not set and is .a now"
    );
    assert!(State::open(bench.options(2000)).is_ok());
}

#[test]
fn a_state_of_another_output_or_source_is_refused() {
    let bench = Bench::new();
    drop(bench.run(1000, &["a"]));
    let other = StateOptions { output: "there".into(), ..bench.options(2000) };
    assert!(text(State::open(other)).contains("belongs to the output that it stands in, not there"));
    let other = StateOptions { source: "http", ..bench.options(2000) };
    assert!(text(State::open(other)).contains("belongs to a file source, not http"));
}

#[test]
fn two_states_at_once_are_refused() {
    let bench = Bench::new();
    let state = bench.open(1000);
    let error = State::open(bench.options(2000)).err().unwrap();
    assert!(matches!(error, Error::Locked { .. }));
    let pid = std::process::id();
    assert!(error.to_string().ends_with(&format!("is locked by process {pid} on host1000")), "{error}");
    drop(state);
    assert!(State::open(bench.options(2000)).is_ok());
}

#[test]
fn a_damaged_state_is_refused_at_every_length() {
    let bench = Bench::new();
    let (state, _) = bench.run(1000, &["a", "b"]);
    state.store(&mut [mark("a", 40, false), mark("b", 100, true)], &mut Vec::new()).unwrap();
    drop(state);
    let path = bench.dir.0.join(".pipeline/state.json");
    let whole = fs::read(&path).unwrap();
    for len in 0..whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        let text = text(State::open(bench.options(2000)));
        assert!(text.contains("state.json") && text.contains("--fresh"), "{len}: {text}");
    }
    let foreign = ["{}", "[]", "{\"version\":1}\n", "{\"version\":2}\n", "nonsense", "\0"];
    for content in foreign {
        fs::write(&path, content).unwrap();
        let text = text(State::open(bench.options(2000)));
        assert!(text.contains("state.json") && text.contains("--fresh"), "{content}: {text}");
    }
    let fresh = StateOptions { fresh: Fresh::Yes, ..bench.options(2000) };
    assert!(State::open(fresh).is_ok());
}

#[test]
fn a_state_that_cannot_be_written_keeps_the_old_one() {
    let bench = Bench::new();
    let (state, _) = bench.run(1000, &["a"]);
    state.store(&mut [mark("a", 40, false)], &mut Vec::new()).unwrap();
    let new = bench.dir.0.join(".pipeline/state.json.new");
    fs::create_dir(&new).unwrap();
    assert!(text(state.store(&mut [mark("a", 50, false)], &mut Vec::new())).contains("state.json.new"));
    drop(state);
    fs::remove_dir(&new).unwrap();
    assert_eq!(bench.open(2000).load("a").unwrap().unwrap().watermark, 40);
}

const KEY: &str = "processed/a/00000000000000000000.ndjson";
const OLD_KEY: &str = "processed/a/00000000000000000777.ndjson.gz";
const FAILED: &str = "failed/a/00000000000000000000.ndjson";
const OTHER: &str = "processed/b/00000000000000000000.ndjson";

fn fresh(bench: &Bench, now_ms: i64) -> StateOptions {
    StateOptions { fresh: Fresh::Yes, ..bench.options(now_ms) }
}

#[test]
fn fresh_deletes_what_was_left_of_these_inputs_and_nothing_else() {
    let bench = Bench::new();
    let (state, _) = bench.run(1000, &["a", "b"]);
    let kept = ["processed/a/notes.txt", "processed/a/deeper/00000000000000000000.ndjson", OTHER];
    [KEY, OLD_KEY, FAILED].iter().chain(&kept).for_each(|key| bench.object(key));
    state.store(&mut [mark("a", 100, true), mark("b", 100, true)], &mut Vec::new()).unwrap();
    state.finished().unwrap();
    drop(state);
    let state = State::open(fresh(&bench, 2000)).unwrap();
    let outcome = state.outcome(["a"]).unwrap();
    assert_eq!(outcome, Outcome::Begin);
    state.begin(["a"], &outcome).unwrap();
    assert!(![KEY, OLD_KEY, FAILED, "failed"].iter().any(|key| bench.has(key)));
    assert!(kept.iter().all(|key| bench.has(key)));
    assert_eq!(state.load("a").unwrap(), None);
    assert_eq!((state.started_at_of("a"), state.started_at_of("b")), (2000, 1000));
}

#[test]
fn fresh_never_deletes_through_a_link() {
    let bench = Bench::new();
    let elsewhere = Scratch::new();
    let precious = elsewhere.0.join("00000000000000000000.ndjson");
    fs::write(&precious, "x").unwrap();
    fs::create_dir_all(bench.dir.0.join("processed")).unwrap();
    std::os::unix::fs::symlink(&elsewhere.0, bench.dir.0.join("processed/a")).unwrap();
    let error = bench.leftovers().remove(["a"]).unwrap_err();
    assert!(error.to_string().contains("symbolic link"), "{error}");
    assert!(precious.exists());
    // Nor is an object removed that is a link itself.
    let link = bench.dir.0.join(OTHER);
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(&precious, &link).unwrap();
    assert_eq!(bench.leftovers().remove(["b"]).unwrap(), 0);
    assert!(precious.exists());
}

#[test]
fn a_deletion_that_was_cut_short_goes_on_in_the_next_run() {
    let bench = Bench::new();
    let (state, _) = bench.run(1000, &["a"]);
    state.store(&mut [mark("a", 50, false)], &mut Vec::new()).unwrap();
    drop(state);
    bench.object(KEY);
    // The deletion fails: a link is in the way.
    let away = bench.dir.0.join("away");
    fs::rename(bench.dir.0.join("processed"), &away).unwrap();
    std::os::unix::fs::symlink(&away, bench.dir.0.join("processed")).unwrap();
    let state = State::open(fresh(&bench, 2000)).unwrap();
    assert!(state.begin(["a"], &Outcome::Begin).is_err());
    drop(state);
    fs::remove_file(bench.dir.0.join("processed")).unwrap();
    fs::rename(&away, bench.dir.0.join("processed")).unwrap();
    // Not fresh any more, but the old objects must not stay beside the new ones.
    let (state, outcome) = bench.run(3000, &["a"]);
    assert_eq!(outcome, Outcome::Begin);
    assert_eq!(state.load("a").unwrap(), None);
    assert!(!bench.has(KEY));
}

#[test]
fn fresh_with_other_settings_must_name_what_was_left_unfinished() {
    let bench = Bench::new();
    let (state, _) = bench.run(1000, &["a", "b"]);
    state.store(&mut [mark("a", 50, false), mark("b", 50, false)], &mut Vec::new()).unwrap();
    drop(state);
    let mut options = fresh(&bench, 2000);
    options.settings.insert("batch_size".into(), "100".into());
    let state = State::open(options.clone()).unwrap();
    let text = text(state.begin(["a"], &Outcome::Begin));
    assert!(text.contains("batch_size was 50") && text.contains("b was left unfinished"), "{text}");
    drop(state);
    let state = State::open(options.clone()).unwrap();
    state.begin(["a", "b"], &Outcome::Begin).unwrap();
    drop(state);
    assert!(State::open(StateOptions { fresh: Fresh::No, ..options }).is_ok());
}

#[test]
fn objects_that_no_state_knows_of_are_refused() {
    let bench = Bench::new();
    bench.object(KEY);
    let state = bench.open(1000);
    assert!(text(state.outcome(["a"])).contains(KEY));
    let outcome = state.outcome(["b"]).unwrap();
    state.begin(["b"], &outcome).unwrap();
    drop(state);
    bench.object(OTHER);
    // A run that was killed before its first mark left objects that its state does know of.
    assert_eq!(bench.open(2000).outcome(["b"]).unwrap(), Outcome::Begin);
    let found = bench.leftovers().existing(["a", "b", "c"]).unwrap();
    assert_eq!(found, [KEY, OTHER].map(|key| bench.dir.0.join(key).display().to_string()));
}

#[test]
fn many_partitions_are_written_whole() {
    let bench = Bench::new();
    let names: Vec<String> = (0..3000).map(|number| format!("dir/file-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (state, _) = bench.run(1000, &names);
    let mut marks: Vec<Mark> = names.iter().map(|name| mark(name, 100, true)).collect();
    state.store(&mut marks, &mut Vec::new()).unwrap();
    drop(state);
    let state = bench.open(2000);
    assert_eq!(state.outcome(names.iter().copied()).unwrap(), Outcome::NothingToDo { rejected: 6000 });
}

#[test]
fn a_directory_that_cannot_be_made_is_a_clear_error() {
    let bench = Bench::new();
    fs::write(bench.dir.0.join(".pipeline"), "a file").unwrap();
    let error = State::open(bench.options(1000)).err().unwrap();
    assert!(matches!(error, Error::Usage(_)));
    assert!(error.to_string().contains(".pipeline is no directory"), "{error}");
    assert!(Path::new(&bench.dir.0).is_dir());
}

/// A state of endpoints: the ends of objects are planned.
fn paged(bench: &Bench, now_ms: i64) -> StateOptions {
    let leftovers = DirLeftovers {
        stored: bench.dir.0.clone(),
        failed: bench.dir.0.clone(),
        namer: Namer::new("", Codec::None),
        source: "http".into(),
    };
    let leftovers = Some(Leftovers::Dir(leftovers));
    StateOptions { source: "http", cuts: Cuts::Early, leftovers, ..bench.options(now_ms) }
}

#[test]
fn what_is_planned_is_remembered_before_anything_is_done_and_its_objects_stay() {
    let bench = Bench::new();
    let state = State::open(paged(&bench, 1000)).unwrap();
    let outcome = state.outcome(["a"]).unwrap();
    state.begin(["a"], &outcome).unwrap();
    assert!(state.plans());
    state.store(&mut [mark("a", 0, false)], &mut Vec::new()).unwrap();
    drop(state);
    let object = "processed/a/0/00000000000000000000.ndjson";
    bench.object(object);
    let state = State::open(paged(&bench, 2000)).unwrap();
    let outcome = state.outcome(["a"]).unwrap();
    assert_eq!(outcome, Outcome::Resume(Resume { open: 1, rejected: 2, ..Resume::default() }));
    state.begin(["a"], &outcome).unwrap();
    assert_eq!(state.load("a").unwrap().unwrap().plan, mark("a", 0, false).plan);
    assert!(bench.has(object));
}

#[test]
fn another_pass_begins_with_the_run_and_may_have_other_settings() {
    let bench = Bench::new();
    let state = State::open(paged(&bench, 1000)).unwrap();
    state.begin(["a"], &Outcome::Begin).unwrap();
    state.store(&mut [mark("a", 40, true)], &mut Vec::new()).unwrap();
    state.finished().unwrap();
    drop(state);
    for key in ["processed/a/0/00000000000000000000.ndjson", "failed/a/12/00000000000000000000.ndjson"] {
        bench.object(key);
    }
    let mut options = paged(&bench, 2000);
    options.settings.insert("batch_size".into(), "100".into());
    let state = State::open(options.clone()).unwrap();
    assert!(state.is_finished());
    let outcome = state.outcome(["a"]).unwrap();
    state.begin_again(["a"], &outcome, &[("a".into(), Arc::from(&b"next"[..]))]).unwrap();
    assert_eq!((state.started_at(), state.is_finished()), (2000, false));
    drop(state);
    // It was killed before it did anything: it is that pass that goes on.
    let state = State::open(StateOptions { now_ms: 3000, ..options.clone() }).unwrap();
    let mark = state.load("a").unwrap().unwrap();
    assert_eq!((mark.watermark, mark.ended, mark.resume.as_deref()), (0, false, Some(&b"next"[..])));
    drop(state);
    options.settings.insert("batch_size".into(), "7".into());
    assert!(text(State::open(options.clone())).contains("batch_size was 100"));
    let state = State::open(StateOptions { fresh: Fresh::Yes, ..options }).unwrap();
    state.begin(["a"], &Outcome::Begin).unwrap();
    assert!(!bench.has("processed/a") && !bench.has("failed/a"), "of every pass");
}
