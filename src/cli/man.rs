//! The man page, made from the table of options and the table of configuration keys.

use std::fmt::Write;

use super::help::{ABOUT, EXAMPLES, EXIT_CODES, USAGE};
use super::table::{Group, shown};
use pipeline::config::env::COMMON;
use pipeline::config::key::{Default, KEYS};

/// `pipeline.1`.
pub fn page() -> String {
    let mut out = format!(
        ".TH PIPELINE 1 \"\" \"pipeline {}\" \"User Commands\"\n.SH NAME\npipeline \\- {}\n.SH SYNOPSIS\n{}\n",
        env!("CARGO_PKG_VERSION"),
        escape("moves JSON records from files, Kafka and HTTP to directories, files, S3, Kafka and stdout"),
        escape(USAGE),
    );
    let _ = writeln!(out, ".SH DESCRIPTION\n{}", escape(ABOUT));
    out.push_str(&escape(
        "Inputs are files, directories (with everything in them, sorted, but for hidden names) and - for standard input; gzip and zstd \
         are recognised. Options may stand before, between or after inputs; -- ends them.\n",
    ));
    out.push_str(".PP\n");
    out.push_str(&escape(
        "Without -s, named inputs are files, and where only topics or URLs are named they are read. Jobs that read \
         Kafka with the same group share the partitions, and a job that is started again goes on where its group stopped. A run \
         to stdout joins no group unless -g names one; --dry-run and --check never do.\n",
    ));
    options(&mut out);
    configuration(&mut out);
    environment(&mut out);
    out.push_str(".SH EXIT STATUS\n");
    for (code, meaning) in EXIT_CODES {
        item(&mut out, &bold(code), meaning);
    }
    out.push_str(".SH EXAMPLES\n");
    for (command, what) in EXAMPLES {
        item(&mut out, &bold(command), what);
    }
    out
}

fn options(out: &mut String) {
    out.push_str(".SH OPTIONS\n");
    for group in Group::SHOWN {
        let _ = writeln!(out, ".SS {}", escape(group.title()));
        for option in shown().filter(|option| option.group == group) {
            let short =
                option.short.map_or_else(String::new, |short| format!("{}, ", bold(&format!("-{short}"))));
            let value = option.value.map_or_else(String::new, |value| format!(" \\fI{}\\fR", escape(value)));
            let key = option.key.map_or_else(String::new, |key| format!(" (configuration: {key})"));
            item(
                out,
                &format!("{short}{}{value}", bold(&format!("--{}", option.long))),
                &format!("{}{key}", option.help),
            );
        }
    }
}

fn configuration(out: &mut String) {
    out.push_str(".SH CONFIGURATION\n");
    out.push_str(&escape(
        "Flags come before --set, --set before the environment, that before the file, and the file before the \
         defaults. Each key has an environment variable PIPELINE_<SECTION>__<KEY>; with _FILE behind it, the value \
         is read from a file. A secret may be env:NAME or file:PATH, and is never printed.\n",
    ));
    for key in KEYS {
        let default = match key.default {
            Default::Is(text) => format!("default: {text}"),
            Default::Absent(_, meaning) => format!("default: {meaning}"),
        };
        item(out, &bold(&key.path()), &format!("{} ({default})", key.help));
    }
}

fn environment(out: &mut String) {
    out.push_str(".SH ENVIRONMENT\n");
    item(out, &bold("PIPELINE_CONFIG"), "the configuration file, where --config names none");
    for (name, key) in COMMON {
        item(out, &bold(name), &format!("{key}, where no flag, no --set and no PIPELINE_ variable says it"));
    }
    let others = [
        (
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN",
            "the keys of buckets, where neither the configuration nor a profile that is named has some; those of web \
             identities and containers are looked for behind them",
        ),
        ("AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE", "where profiles stand, instead of ~/.aws"),
        (
            "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY",
            "plain HTTP proxies for endpoints and buckets, and hosts that are reached without",
        ),
        ("SSL_CERT_FILE, SSL_CERT_DIR", "authorities instead of the system's, where no key ca names some"),
    ];
    for (names, what) in others {
        item(out, &bold(names), what);
    }
    item(
        out,
        &bold("RUST_LOG"),
        "what is logged, by module, where no flag and no PIPELINE_LOG__LEVEL says it",
    );
    item(out, &bold("NO_COLOR"), "no colours in log lines, if it is not empty");
}

fn item(out: &mut String, name: &str, text: &str) {
    let _ = writeln!(out, ".TP\n{name}\n{}", escape(text));
}

fn bold(text: &str) -> String {
    format!("\\fB{}\\fR", escape(text))
}

/// Text that roff takes as text: no commands at the beginning of a line, no hyphens instead of dashes.
fn escape(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-").replace('…', "...");
    if escaped.starts_with(['.', '\'']) { format!("\\&{escaped}") } else { escaped }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_page_has_every_option_and_every_key() {
        let page = page();
        for option in shown() {
            assert!(page.contains(&bold(&format!("--{}", option.long))), "{}", option.long);
        }
        for key in KEYS {
            assert!(page.contains(&bold(&key.path())), "{}", key.path());
        }
    }

    #[test]
    fn the_page_has_the_variables_that_are_no_settings() {
        for name in ["AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "RUST_LOG"] {
            assert!(page().contains(name), "{name}");
        }
    }

    #[test]
    fn man_renders_it_without_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipeline.1");
        std::fs::write(&path, page()).unwrap();
        let rendered =
            Command::new("man").args(["--warnings", "-l"]).arg(&path).env("MANWIDTH", "100").output();
        let Ok(rendered) = rendered else { return eprintln!("skipped: no man here") };
        if rendered.status.code() == Some(127) {
            return eprintln!("skipped: no man here");
        }
        let text = String::from_utf8_lossy(&rendered.stdout);
        let warnings = String::from_utf8_lossy(&rendered.stderr);
        assert!(rendered.status.success() && text.contains("SYNOPSIS"), "{text} {warnings}");
        assert_eq!(warnings, "");
    }
}
