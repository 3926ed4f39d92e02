//! Holds the README against what it talks about: tests that it names, options, keys, the command of `make run`.

use std::fs;
use std::path::Path;
use std::process::Command;

const README: &str = include_str!("../../README.md");

/// What stands between backticks.
fn quoted() -> impl Iterator<Item = &'static str> {
    README.split('`').skip(1).step_by(2)
}

/// Each `file::test`: the test stands in a file of that name, or in the tests of a module of that name.
#[test]
fn tests_that_are_named_exist() {
    let mut files = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    collect(&root.join("src"), &mut files);
    collect(&root.join("tests"), &mut files);
    let mut named = 0;
    for (module, test) in quoted().filter_map(|name| name.split_once("::")).filter(|(m, _)| *m != "Stop") {
        let definition = format!("fn {test}(");
        let in_module =
            |path: &str| path.ends_with(&format!("/{module}.rs")) || path.contains(&format!("/{module}/"));
        let found = files.iter().any(|(path, text)| in_module(path) && text.contains(&definition));
        assert!(found, "README names the test {module}::{test}, which does not exist");
        named += 1;
    }
    assert!(named > 10, "the guarantees name their tests");
}

fn collect(dir: &Path, into: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).expect("the sources are there").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("sources are text");
            into.push((path.display().to_string(), text));
        }
    }
}

fn pipeline(args: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_pipeline")).args(args).output().expect("it starts");
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// All words of the README that look like an option, but for lines with other programs' commands.
#[test]
fn options_and_keys_exist() {
    let (_, help) = pipeline(&["--help"]);
    let others = ["cargo", "aws configure", "docker run", "apk add", "COPY --from"];
    let commands = README.lines().filter(|line| !others.iter().any(|other| line.contains(other)));
    let words: Vec<&str> = commands
        .flat_map(|line| line.split(|c: char| c.is_whitespace() || "`(),;:/=".contains(c)))
        .filter(|word| word.strip_prefix("--").is_some_and(|name| name.starts_with(char::is_alphabetic)))
        .collect();
    assert!(words.len() > 10);
    for option in words {
        assert!(help.contains(option), "README names {option}, which does not exist");
    }
    let settings = README.split("--set ").skip(1).filter_map(|rest| rest.split([' ', '`', '\n']).next());
    for setting in settings.filter(|setting| setting.contains('.')) {
        let (known, said) = pipeline(&["--set", setting, "x", "--print-config"]);
        assert!(known, "README sets {setting}: {said}");
    }
}

#[test]
fn the_first_command_is_what_make_run_runs() {
    let makefile = include_str!("../../Makefile");
    let command = "-s file -b 50 testdata/data1.json testdata/data2.json";
    assert!(
        README.contains(&format!("pipeline {command}")) && makefile.contains(&format!("$(BINARY) {command}"))
    );
}
