//! Holds the manifests and units of the README against the executable: their command lines and environments are ones
//! that it takes. That they are what Kubernetes and systemd take was tried with kubernetes-validate (1.37, strict) and
//! `systemd-analyze verify`.

use std::collections::BTreeMap;
use std::path::Path;

use crate::support::{TempDir, command, finish};

const README: &str = include_str!("../../README.md");

/// The blocks of a language.
fn blocks(language: &str) -> impl Iterator<Item = &'static str> {
    let begin = format!("```{language}\n");
    let mut rest = README;
    std::iter::from_fn(move || {
        let (_, behind) = rest.split_once(&begin)?;
        let (block, behind) = behind.split_once("```")?;
        rest = behind;
        Some(block)
    })
}

/// What stands between `begin` and `end`, each time.
fn between<'a>(text: &'a str, begin: &'a str, end: &'a str) -> Vec<&'a str> {
    text.split(begin).skip(1).filter_map(|rest| Some(rest.split_once(end)?.0)).collect()
}

/// The executable takes these.
#[track_caller]
fn taken(args: &[String], env: &BTreeMap<String, String>, said: &[&str]) {
    let dir = TempDir::new();
    let mut command = command(dir.path());
    command.args(args).envs(env).arg("--print-config");
    let ended = finish(command);
    assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.stderr);
    let printed = String::from_utf8_lossy(&ended.stdout);
    for text in said {
        assert!(printed.contains(text), "{text}: {printed}");
    }
}

#[test]
fn manifests_run_what_the_executable_takes() {
    let mut seen = Vec::new();
    for block in blocks("yaml") {
        let kind = between(block, "kind: ", "\n").first().copied().unwrap_or("a part of one");
        for args in between(block, "args: ", "]") {
            let args = args.replace("$(JOB_COMPLETION_INDEX)", "3") + "]";
            let args: Vec<String> = serde_json::from_str(&args).expect("arguments are a list of texts");
            let pairs = between(block, "- {name: ", "}").into_iter();
            let pairs = pairs.filter_map(|pair| pair.split_once(", value: "));
            let env = pairs.map(|(name, value)| (name.into(), value.trim_matches('"').into())).collect();
            let said: &[&str] = match kind {
                "Job" => {
                    &["shard = \"3/8\"", "output = \"s3://my-bucket/logs\"", "region = \"eu-central-1\""]
                }
                "Deployment" => &[
                    "group = \"orders-to-s3\"",
                    "key = \"hive\"",
                    "brokers = [\"kafka-0:9093,kafka-1:9093\"]",
                ],
                _ => &[],
            };
            taken(&args, &env, said);
            seen.push(kind);
        }
    }
    assert!(seen.contains(&"Job") && seen.contains(&"Deployment"), "{seen:?}");
}

#[test]
fn units_run_what_the_executable_takes() {
    let mut seen = 0;
    for block in blocks("ini") {
        let credentials = TempDir::new();
        let path = |name: &str| credentials.path().join(name);
        for credential in between(block, "LoadCredential=", ":") {
            std::fs::write(path(credential), "AKIDEXAMPLE\n").expect("it can be written");
        }
        let here = |text: &str| text.replace("%d", &credentials.path().display().to_string());
        let lines = between(block, "Environment=", "\n");
        let words = lines.iter().flat_map(|line| line.split_whitespace());
        let env =
            words.filter_map(|word| word.split_once('=')).map(|(name, value)| (name.into(), here(value)));
        let env = env.collect();
        for exec in between(block, "ExecStart=", "\n") {
            let mut words = exec.split_whitespace();
            let program = words.next().map(Path::new).and_then(Path::file_name);
            assert_eq!(program, Some("pipeline".as_ref()));
            taken(&words.map(str::to_owned).collect::<Vec<_>>(), &env, &[]);
            seen += 1;
        }
    }
    assert!(seen > 1);
}
