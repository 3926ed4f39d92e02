//! Which files are found, and under which name.

use std::os::unix::fs::symlink;

use super::*;

/// The inputs of `given`, without the directory that all are in.
fn found(dir: &Dir, options: FileOptions) -> Vec<String> {
    let source = FileSource::new(options).unwrap();
    let inputs = source.inputs();
    let name = |input: &FileInput| input.partition.name().strip_prefix(&dir.path("")).unwrap().to_owned();
    inputs.iter().map(name).collect()
}

/// One that is made later must give no file another name, or it would be stored again.
#[test]
fn links_change_neither_names_nor_order() {
    let dir = Dir::new();
    for name in ["d/b/1", "d/z/1", "far/x/1"] {
        dir.write(name, "1\n");
    }
    assert_eq!(found(&dir, options(&[&dir.path("d")])), ["d/b/1", "d/z/1"]);
    symlink(dir.path("d/z"), dir.path("d/a")).unwrap();
    assert_eq!(found(&dir, options(&[&dir.path("d")])), ["d/b/1", "d/z/1"]);
    symlink(dir.path("far/x"), dir.path("d/c")).unwrap();
    assert_eq!(found(&dir, options(&[&dir.path("d")])), ["d/b/1", "d/c/1", "d/z/1"]);
}

#[test]
fn files_of_the_same_name_in_directories_beside_each_other_are_two() {
    let dir = Dir::new();
    for name in ["d/x/1", "d/y/1"] {
        dir.write(name, "1\n");
    }
    // Real names are compared where there are links.
    symlink(dir.path("d/x/1"), dir.path("d/z")).unwrap();
    assert_eq!(found(&dir, options(&[&dir.path("d")])), ["d/x/1", "d/y/1"]);
}

#[test]
fn a_link_to_what_was_named_before_is_passed_over() {
    let dir = Dir::new();
    let named = dir.write("a", "1\n");
    dir.write("d/b", "1\n");
    symlink(&named, dir.path("d/link")).unwrap();
    assert_eq!(found(&dir, options(&[&named, &dir.path("d")])), ["a", "d/b"]);
}

/// Reading it would never end, or destroy it.
#[test]
fn what_the_run_writes_cannot_be_named() {
    let dir = Dir::new();
    for name in ["own/a", "own/d/b", "file"] {
        dir.write(name, "1\n");
    }
    symlink(dir.path("own"), dir.path("link")).unwrap();
    for given in ["own", "own/d", "own/a", "file", "link", "link/d/b"] {
        let outputs = ["own", "file"].map(|name| dir.path(name).into()).to_vec();
        let why = usage(FileOptions { outputs, ..options(&[&dir.path(given)]) });
        assert!(why.contains("is where this run writes"), "{given}: {why}");
    }
}

#[test]
fn a_directory_with_nothing_but_what_the_run_writes_is_said_so() {
    let dir = Dir::new();
    dir.write("d/own/a", "1\n");
    fs::create_dir(dir.path("d/empty")).unwrap();
    for own in ["d/own", "d/own/a"] {
        let outputs = vec![dir.path(own).into()];
        let why = usage(FileOptions { outputs, ..options(&[&dir.path("d")]) });
        assert!(why.contains("no file in it but what this run writes"), "{why}");
    }
}

/// What can be read once is handed on as it comes, and nothing is remembered of it.
#[test]
fn pipes_are_read_once_and_files_again() {
    let dir = Dir::new();
    let (file, pipe) = (dir.write("a", "1\n"), dir.path("pipe"));
    let mode = rustix::fs::Mode::from(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let source = FileSource::new(options(&[&file, &pipe, "-"])).unwrap();
    let once: Vec<bool> = source.inputs().iter().map(|input| input.partition.identity().once).collect();
    assert_eq!(once, [false, true, true]);
}

#[test]
fn a_limit_is_kept_by_one_reader() {
    let dir = Dir::new();
    let (a, b) = (dir.write("a", "1\n"), dir.write("b", "2\n"));
    let stop = Stop::new();
    let readers = |limit| {
        let source = FileSource::new(FileOptions { limit, ..options(&[&a, &b]) }).unwrap();
        source.open(&Start { marks: &Forget, readers: 4, workers: 0, stop: &stop }).unwrap().len()
    };
    assert_eq!((readers(Some(1)), readers(None)), (1, 2));
}

#[test]
fn directories_are_walked_in_order() {
    let dir = Dir::new();
    for name in ["d/b/2", "d/a", "d/b/1", "d/c", "d/.hidden", "d/.git/x"] {
        dir.write(name, "1\n");
    }
    std::os::unix::fs::symlink(dir.path("d"), dir.path("d/b/loop")).unwrap();
    std::os::unix::fs::symlink(dir.path("d/a"), dir.path("d/link")).unwrap();
    std::os::unix::fs::symlink(dir.path("d/c"), dir.path("d/a-link")).unwrap();
    let names = |options| -> Vec<String> {
        let source = FileSource::new(options).unwrap();
        source
            .inputs()
            .iter()
            .map(|input| input.partition.name().rsplit('/').next().unwrap().to_owned())
            .collect()
    };
    let path = dir.path("d");
    assert_eq!(names(options(&[&path])), ["a", "1", "2", "c"]);
    assert_eq!(names(FileOptions { shard: Some((1, 3)), ..options(&[&path]) }), ["1"]);
    assert_eq!(FileSource::new(options(&[&path])).unwrap().size(), Some(8));
}

#[test]
fn links_that_lead_nowhere_are_passed_over() {
    let dir = Dir::new();
    dir.write("d/a", "1\n");
    for (to, link) in [("self", "d/self"), ("pong", "d/ping"), ("ping", "d/pong"), ("none", "d/none")] {
        std::os::unix::fs::symlink(to, dir.path(link)).unwrap();
    }
    assert_eq!(FileSource::new(options(&[&dir.path("d")])).unwrap().inputs().len(), 1);
}

/// A link is the file it leads to, however it is reached; what is no link has its directory's real path.
#[test]
fn a_file_behind_a_linked_directory_is_found_once() {
    let dir = Dir::new();
    for name in ["far/x/1", "far/x/2", "d/a", "d/b/3"] {
        dir.write(name, "1\n");
    }
    std::os::unix::fs::symlink(dir.path("far"), dir.path("d/link")).unwrap();
    std::os::unix::fs::symlink(dir.path("far/x/2"), dir.path("d/b/2")).unwrap();
    let inputs = |given: &[&str]| FileSource::new(options(given)).unwrap().inputs().len();
    assert_eq!(inputs(&[&dir.path("d")]), 4);
    assert_eq!(inputs(&[&dir.path("d/a"), &dir.path("d/link/x")]), 3);
    assert!(usage(options(&[&dir.path("far/x/1"), &dir.path("d")])).contains("d/link/x/1 is given by"));
}

/// There may be a place for each input that is replayed.
#[test]
fn what_the_run_writes_is_passed_over_wherever_it_stands() {
    let dir = Dir::new();
    for name in ["d/a", "d/own/b", "d/owner", "d/x/own/deep/c", "d/file"] {
        dir.write(name, "1\n");
    }
    let outputs = ["d/own", "d/x/own", "d/file", "none"].map(|name| dir.path(name).into()).to_vec();
    let found = FileSource::new(FileOptions { outputs, ..options(&[&dir.path("d")]) }).unwrap().inputs();
    let names = found.iter().map(|input| input.partition.name().rsplit('/').next().unwrap());
    assert_eq!(names.collect::<Vec<_>>(), ["a", "owner"]);
}

#[test]
fn inputs_that_cannot_be_are_named() {
    let dir = Dir::new();
    let a = dir.write("data1.json", "1\n");
    let dotted = dir.path("./x/../data1.json");
    fs::create_dir(dir.path("x")).unwrap();
    assert!(usage(options(&[&a, &dotted])).contains("data1.json is given by"));
    assert!(usage(options(&[&a, &dir.path("")])).contains("data1.json is given by"));
    assert!(usage(options(&["-", "-"])).contains("stdin is given by -, twice"));
    assert!(usage(options(&[&dir.path("data2.json")])).ends_with("data1.json?"));
    assert!(!usage(options(&[&dir.path("other")])).contains("did you mean"));
    assert!(usage(options(&[&dir.path("x")])).contains("no file in it"));
    let _socket = std::os::unix::net::UnixListener::bind(dir.path("s")).unwrap();
    assert!(usage(options(&[&dir.path("s")])).contains("socket"));
}

#[test]
fn names_are_normalised() {
    for (given, expected) in [
        ("./a//b", "a/b"),
        ("/a/./b/../c", "/a/c"),
        ("../a/../../b", "../../b"),
        ("/../a", "/a"),
        ("a/..", ""),
    ] {
        assert_eq!(inputs::name(Path::new(given)), expected);
    }
    let odd = std::ffi::OsStr::from_encoded_bytes_checked(b"a\xff");
    assert!(inputs::name(Path::new(odd)).starts_with("a\u{fffd}-"));
}
