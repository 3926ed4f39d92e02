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
        source.open(&Start { marks: &Forget, readers: 4, stop: &stop }).unwrap().len()
    };
    assert_eq!((readers(Some(1)), readers(None)), (1, 2));
}
