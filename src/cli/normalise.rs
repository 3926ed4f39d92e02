//! Arguments as people write them become the one form that argh takes: [`normalise`]. Pure.
//!
//! argh 0.1 knows no `--name=value`, `-b50`, `-qb 50`, `-h` and no options behind a positional `-`, and takes a
//! file called `help` for a question. So every option comes out as `--long` with its value behind it, and every
//! input stands behind one `--`.

use pipeline::config::nearest::nearest;

use super::table::{OPTIONS, Opt, Times, shown};

/// Arguments in the form that argh takes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Normal {
    /// `--long` names, values behind them, then `--` and the inputs.
    pub args: Vec<String>,
    /// Each option as the user spelled it, by long name: errors use the user's word.
    pub spelled: Vec<(&'static str, String)>,
}

impl Normal {
    /// An option as the user spelled it.
    pub fn spelling<'a>(&'a self, long: &'a str) -> &'a str {
        self.spelled.iter().find(|(name, _)| *name == long).map_or(long, |(_, spelled)| spelled)
    }
}

/// What the arguments come to.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// A run, or one of its rehearsals.
    Run(Normal),
    /// `-h`, `--help`.
    Help,
    /// `-V`, `--version`.
    Version,
}

/// Brings the arguments (without the program's name) into argh's form.
///
/// # Errors
/// One line: an unknown option, a missing value, a value where none belongs.
pub fn normalise(args: &[String]) -> Result<Asked, String> {
    // The optional subcommand word; a file of that name is `./process`.
    let args = if args.first().is_some_and(|word| word == "process") { &args[1..] } else { args };
    let mut reader = Reader { rest: args, options: Vec::new(), inputs: Vec::new() };
    while let Some((arg, rest)) = reader.rest.split_first() {
        reader.rest = rest;
        if arg == "--" {
            reader.inputs.extend_from_slice(rest);
            break;
        }
        let asked = match arg.strip_prefix("--") {
            Some(long) => reader.long(long)?,
            None if arg.len() > 1 && arg.starts_with('-') => reader.shorts(&arg[1..])?,
            None => {
                reader.inputs.push(arg.clone());
                None
            }
        };
        if let Some(asked) = asked {
            return Ok(asked);
        }
    }
    Ok(Asked::Run(reader.finish()))
}

struct Reader<'a> {
    rest: &'a [String],
    /// Option, spelling, value.
    options: Vec<(&'static Opt, String, Option<String>)>,
    inputs: Vec<String>,
}

impl Reader<'_> {
    fn long(&mut self, text: &str) -> Result<Option<Asked>, String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        let option = OPTIONS.iter().find(|option| option.long == name).ok_or_else(|| unknown_long(name))?;
        self.take(option, format!("--{name}"), value)
    }

    /// One or more letters behind a dash, the last of which may have its value attached.
    fn shorts(&mut self, text: &str) -> Result<Option<Asked>, String> {
        for (at, letter) in text.char_indices() {
            let option = OPTIONS.iter().find(|option| option.short == Some(letter));
            let option = option.ok_or_else(|| unknown_short(letter, text))?;
            let spelled = format!("-{letter}");
            let rest = &text[at + letter.len_utf8()..];
            if option.value.is_some() && !rest.is_empty() {
                let value = rest.strip_prefix('=').unwrap_or(rest);
                return self.take(option, spelled, Some(value.to_owned()));
            }
            if rest.starts_with('=') {
                return Err(format!("{spelled} takes no value; expected {spelled} alone"));
            }
            if let Some(asked) = self.take(option, spelled, None)? {
                return Ok(Some(asked));
            }
        }
        Ok(None)
    }

    fn take(
        &mut self,
        option: &'static Opt,
        spelled: String,
        value: Option<String>,
    ) -> Result<Option<Asked>, String> {
        let value = match (option.value, value) {
            (None, Some(_)) => return Err(format!("{spelled} takes no value; expected {spelled} alone")),
            (None, None) => None,
            (Some(_), Some(value)) => Some(value),
            (Some(name), None) => Some(self.next_value(option, &spelled, name)?),
        };
        match option.long {
            "help" => return Ok(Some(Asked::Help)),
            "version" => return Ok(Some(Asked::Version)),
            _ => self.options.push((option, spelled, value)),
        }
        Ok(None)
    }

    /// The next argument, unless it is an option of ours: then the value was forgotten.
    fn next_value(&mut self, option: &Opt, spelled: &str, name: &str) -> Result<String, String> {
        match self.rest.split_first() {
            Some((value, rest)) if !is_option(value) => {
                self.rest = rest;
                Ok(value.clone())
            }
            _ => Err(format!("{spelled} needs a value: expected {spelled} {name} ({})", option.help)),
        }
    }

    fn finish(self) -> Normal {
        let mut normal = Normal::default();
        for (at, (option, spelled, value)) in self.options.iter().enumerate() {
            let again = self.options[at + 1..].iter().any(|(later, ..)| later.long == option.long);
            if again && option.times == Times::Last {
                continue;
            }
            normal.args.push(format!("--{}", option.long));
            normal.args.extend(value.clone());
            normal.spelled.push((option.long, spelled.clone()));
        }
        normal.args.push("--".into());
        normal.args.extend(self.inputs);
        normal
    }
}

/// Whether an argument is an option of ours, so that it is no value.
fn is_option(arg: &str) -> bool {
    if arg == "--" {
        return true;
    }
    if let Some(long) = arg.strip_prefix("--") {
        let name = long.split('=').next().unwrap_or(long);
        return OPTIONS.iter().any(|option| option.long == name);
    }
    let letter = arg.strip_prefix('-').and_then(|letters| letters.chars().next());
    let is_letter = |letter| OPTIONS.iter().any(|option| option.short == Some(letter));
    arg.chars().count() == 2 && letter.is_some_and(is_letter)
}

fn unknown_long(name: &str) -> String {
    let meant = nearest(name, shown().map(|option| option.long));
    match meant {
        Some(long) => format!("unknown option --{name}; did you mean --{long}?"),
        None => format!("unknown option --{name}; expected one of those that --help lists"),
    }
}

fn unknown_short(letter: char, text: &str) -> String {
    // `-batch` and `-workers` are long names with a dash missing.
    let long = nearest(text, shown().map(|option| option.long)).filter(|_| text.chars().count() > 2);
    let other: Option<char> =
        shown().filter_map(|option| option.short).find(|s| s.eq_ignore_ascii_case(&letter));
    match (long, other) {
        (Some(long), _) => format!("unknown option -{text}; did you mean --{long}?"),
        (None, Some(other)) => format!("unknown option -{letter}; did you mean -{other}?"),
        _ => format!("unknown option -{letter}; expected one of those that --help lists"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').filter(|word| !word.is_empty()).map(|word| word.replace("''", "")).collect()
    }

    #[track_caller]
    fn check(args: &str, expected: &str) {
        match normalise(&words(args)) {
            Ok(Asked::Run(normal)) => assert_eq!(normal.args, words(expected), "{args}"),
            other => panic!("{args}: {other:?}"),
        }
    }

    #[track_caller]
    fn wrong(args: &str, expected: &str) {
        assert_eq!(normalise(&words(args)).unwrap_err(), expected, "{args}");
    }

    #[test]
    fn every_form_comes_to_one() {
        for form in ["-b 50", "-b50", "-b=50", "--batch-size 50", "--batch-size=50"] {
            check(form, "--batch-size 50 --");
        }
        check("a -b 50 b", "--batch-size 50 -- a b");
        check("process a", "-- a");
        check("a process", "-- a process");
        check("help", "-- help");
        check("-", "-- -");
        check("-o - -", "--output - -- -");
        check("-o- a", "--output - -- a");
        check("-- -b --help", "-- -b --help");
        check("-qv", "--quiet --verbose --");
        check("-qb50 a", "--quiet --batch-size 50 -- a");
        check("-qb 50 a", "--quiet --batch-size 50 -- a");
        check("-b -1", "--batch-size -1 --");
        check("-b-1", "--batch-size -1 --");
        check("--output= a", "--output '' -- a");
        check("-o '' ''", "--output '' -- ''");
        check("--set=a.b=c=d", "--set a.b=c=d --");
        check("--output=--fresh", "--output --fresh --");
        check("-o -x", "--output -x --");
        check("", "--");
    }

    #[test]
    fn the_last_one_counts_unless_all_do() {
        check("-b 1 --batch-size=2 -q -q", "--batch-size 2 --quiet --");
        check("--set a=1 --set b=2", "--set a=1 --set b=2 --");
    }

    #[test]
    fn questions_are_answered_at_once() {
        assert_eq!(normalise(&words("-b 1 -h --nonsense")), Ok(Asked::Help));
        assert_eq!(normalise(&words("a --help")), Ok(Asked::Help));
        assert_eq!(normalise(&words("process -V")), Ok(Asked::Version));
        assert_eq!(normalise(&words("-qV")), Ok(Asked::Version));
    }

    #[test]
    fn mistakes_are_one_line() {
        wrong("--bacth-size 5", "unknown option --bacth-size; did you mean --batch-size?");
        wrong("--batch 5", "unknown option --batch; did you mean --batch-size?");
        wrong("--jq .a", "unknown option --jq; expected one of those that --help lists");
        wrong("-B 5", "unknown option -B; did you mean -b?");
        wrong("-k", "unknown option -k; expected one of those that --help lists");
        wrong("-1", "unknown option -1; expected one of those that --help lists");
        wrong("-limit 5", "unknown option -limit; did you mean --limit?");
        wrong("--fresh=1", "--fresh takes no value; expected --fresh alone");
        wrong("-q=1", "-q takes no value; expected -q alone");
        wrong(
            "-b",
            "-b needs a value: expected -b N (records in a batch (0, the default: no limit by count))",
        );
        wrong(
            "-n --fresh",
            "-n needs a value: expected -n N (stop after N records; such a run remembers nothing)",
        );
        wrong(
            "-n -q a",
            "-n needs a value: expected -n N (stop after N records; such a run remembers nothing)",
        );
        wrong(
            "-n -- a",
            "-n needs a value: expected -n N (stop after N records; such a run remembers nothing)",
        );
    }

    proptest! {
        #[test]
        fn what_is_normal_stays_so(args in proptest::collection::vec("(-{0,2}[a-z=0-9ü-]{0,12})|(-[bqvonz])", 0..8)) {
            if let Ok(Asked::Run(normal)) = normalise(&args)
                && !normal.args.iter().any(|arg| is_option(arg) && arg.contains('='))
                && let Ok(Asked::Run(again)) = normalise(&normal.args)
            {
                prop_assert_eq!(normal.args, again.args);
            }
        }
    }
}
