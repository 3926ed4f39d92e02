//! Completions for bash, zsh and fish, made from the table of options.

use std::fmt::Write;

use super::table::{Complete, Opt, shown};
use pipeline::config::key::{KEYS, Key};

/// The completions for a shell.
///
/// # Errors
/// One line, for a shell that is not known.
pub fn completions(shell: &str) -> Result<String, String> {
    match shell {
        "bash" => Ok(bash()),
        "zsh" => Ok(zsh()),
        "fish" => Ok(fish()),
        other => Err(format!("--completions: expected bash, zsh or fish, not {other:?}")),
    }
}

/// What a shell proposes for the value of an option: `KEY=` for `--set`.
fn words(option: &Opt) -> Option<String> {
    match option.complete {
        Complete::Words(words) => Some(words.join(" ")),
        _ if option.long == "set" => {
            let keys: Vec<String> = KEYS.iter().map(Key::path).map(|path| path + "=").collect();
            Some(keys.join(" "))
        }
        _ => None,
    }
}

fn names(option: &Opt) -> Vec<String> {
    let short = option.short.map(|short| format!("-{short}"));
    short.into_iter().chain([format!("--{}", option.long)]).collect()
}

fn bash() -> String {
    let all: Vec<String> = shown().flat_map(names).collect();
    let mut cases = String::new();
    for option in shown().filter(|option| option.value.is_some()) {
        let pattern = names(option).join("|");
        let reply = match (words(option), option.complete) {
            (Some(words), _) => format!("mapfile -t COMPREPLY < <(compgen -W \"{words}\" -- \"$word\")"),
            (None, Complete::Paths) => "mapfile -t COMPREPLY < <(compgen -f -- \"$word\")".to_owned(),
            (None, _) => "COMPREPLY=()".to_owned(),
        };
        let _ = writeln!(cases, "        {pattern}) {reply}; return ;;");
    }
    format!(
        "# bash completion for pipeline\n_pipeline() {{\n    local word=\"${{COMP_WORDS[COMP_CWORD]}}\"\n    \
         local before=\"${{COMP_WORDS[COMP_CWORD-1]}}\"\n    \
         if [[ $before == = ]]; then before=\"${{COMP_WORDS[COMP_CWORD-2]}}\"; fi\n    \
         if [[ $word == = ]]; then word=; fi\n    \
         case \"$before\" in\n{cases}    esac\n    \
         if [[ $word == -* ]]; then\n        mapfile -t COMPREPLY < <(compgen -W \"{}\" -- \"$word\")\n    else\n        \
         mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n    fi\n}}\ncomplete -o filenames -o bashdefault -F _pipeline pipeline\n",
        all.join(" ")
    )
}

fn zsh() -> String {
    let mut out = String::from("#compdef pipeline\n_arguments -s -S \\\n");
    for option in shown() {
        let help: String = option
            .help
            .chars()
            .flat_map(|c| matches!(c, '[' | ']' | ':').then_some('\\').into_iter().chain([c]))
            .collect::<String>()
            .replace('\'', "'\\''");
        let action = match (option.value, words(option), option.complete) {
            (None, ..) => String::new(),
            (Some(name), Some(words), _) => format!(":{}:({words})", plain(name)),
            (Some(name), None, Complete::Paths) => format!(":{}:_files", plain(name)),
            (Some(name), None, _) => format!(":{}: ", plain(name)),
        };
        let every = option.times == super::table::Times::Every;
        for name in names(option) {
            let repeat = if every { "*" } else { "" };
            let attached = match (option.value, name.starts_with("--")) {
                (None, _) => "",
                (Some(_), true) => "=",
                (Some(_), false) => "+",
            };
            let _ = writeln!(out, "  '{repeat}{name}{attached}[{help}]{action}' \\");
        }
    }
    out.push_str("  '*:input:_files'\n");
    out
}

fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric()).collect::<String>().to_lowercase()
}

fn fish() -> String {
    let mut out = String::from("# fish completion for pipeline\n");
    for option in shown() {
        let short = option.short.map_or_else(String::new, |short| format!(" -s {short}"));
        let value = match (option.value, words(option), option.complete) {
            (None, ..) => String::new(),
            (Some(_), Some(words), _) => format!(" -x -a '{words}'"),
            (Some(_), None, Complete::Paths) => " -r -F".into(),
            (Some(_), None, _) => " -x".into(),
        };
        let help = option.help.replace('\\', "\\\\").replace('\'', "\\'");
        let _ = writeln!(out, "complete -c pipeline{short} -l {}{value} -d '{help}'", option.long);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    /// Runs a shell's own syntax check, where the shell is there.
    fn parses(shell: &str, text: &str) {
        let child = Command::new(shell)
            .args(if shell == "fish" { ["--no-execute", "/dev/stdin"] } else { ["-n", "/dev/stdin"] })
            .stdin(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            return eprintln!("skipped: no {shell} here");
        };
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{shell} does not take its completions:\n{text}");
    }

    #[test]
    fn every_shell_takes_its_completions() {
        for shell in ["bash", "zsh", "fish"] {
            let text = completions(shell).unwrap();
            parses(shell, &text);
            for option in shown() {
                assert!(text.contains(option.long), "{shell} {}", option.long);
            }
        }
        assert!(completions("tcsh").is_err());
    }

    #[test]
    fn bash_proposes_names_values_and_keys() {
        let script = format!(
            "{}\ntry() {{ COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _pipeline; echo \"${{COMPREPLY[*]}}\"; }}\n\
             try pipeline --bat\ntry pipeline -f nd\ntry pipeline --format = js\ntry pipeline --set log.l\n",
            completions("bash").unwrap()
        );
        let Ok(output) = Command::new("bash").args(["-c", &script]).output() else {
            return eprintln!("skipped: no bash here");
        };
        let out = String::from_utf8(output.stdout).unwrap();
        assert_eq!(out, "--batch-size\nndjson\njson\nlog.level=\n");
    }

    #[test]
    fn bash_proposes_names_with_spaces_whole() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("my data.json"), "").unwrap();
        let script = format!(
            "{}\ntry() {{ COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _pipeline; printf '<%s>\\n' \"${{COMPREPLY[@]}}\"; }}\n\
             try pipeline my\ntry pipeline -o my\n",
            completions("bash").unwrap()
        );
        let Ok(output) = Command::new("bash").args(["-c", &script]).current_dir(dir.path()).output() else {
            return eprintln!("skipped: no bash here");
        };
        assert_eq!(String::from_utf8_lossy(&output.stdout), "<my data.json>\n<my data.json>\n");
    }
}
