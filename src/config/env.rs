//! The environment as a layer of settings: `PIPELINE_<SECTION>__<KEY>`, with `_FILE` behind it from a file, and
//! below those the names that are common where these services are used: [`COMMON`].
//!
//! The environment is a parameter, and so is reading a file: nothing here touches the process.

use super::key::{KEYS, Key};
use super::nearest::did_you_mean;
use super::secret::without_newline;
use super::setting::{Layer, Origin, Setting};

/// The variable that names the configuration file.
pub const CONFIG: &str = "PIPELINE_CONFIG";

/// Names that other programs use too, and the keys that they set; the first ones of a key come first. What stands
/// in them is taken as it is: a password that begins with `env:` is that password.
pub const COMMON: [(&str, &str); 12] = [
    ("KAFKA_BROKERS", "kafka.brokers"),
    ("KAFKA_BOOTSTRAP_SERVERS", "kafka.brokers"),
    ("KAFKA_SASL_USERNAME", "kafka.sasl.username"),
    ("KAFKA_SASL_PASSWORD", "kafka.sasl.password"),
    ("S3_BUCKET", "s3.bucket"),
    ("AWS_ENDPOINT_URL_S3", "s3.endpoint"),
    ("AWS_ENDPOINT_URL", "s3.endpoint"),
    ("S3_ENDPOINT", "s3.endpoint"),
    ("AWS_REGION", "s3.region"),
    ("AWS_DEFAULT_REGION", "s3.region"),
    ("AWS_PROFILE", "s3.profile"),
    ("AWS_CA_BUNDLE", "s3.ca"),
];

/// Whether this variable says something here: one that is no text must be told then.
pub fn is_read(name: &str) -> bool {
    let common = || COMMON.iter().any(|(other, _)| *other == name);
    (name.starts_with("PIPELINE_") && !is_service_link(name)) || common()
}

/// The settings among the variables, and everything that is wrong with them: unknown variables, files that cannot
/// be read, and a key that is set both ways. Other variables are
/// nobody's business, but one that begins with `PIPELINE_` and sets nothing is a typo.
pub fn parse(variables: &[(String, String)], read: &dyn Fn(&str) -> std::io::Result<String>) -> Layer {
    let mut layer = ours(variables, read);
    for (name, path) in COMMON {
        let found = variables.iter().find(|(other, value)| other == name && !value.is_empty());
        let key = KEYS.iter().find(|key| key.path() == path);
        let (Some((_, value)), Some(key)) = (found, key) else { continue };
        // Before what covers it.
        let setting = Setting { key, value: key.read_as_it_is(value), origin: Origin::Env(name.into()) };
        layer.settings.insert(0, setting);
    }
    layer
}

fn ours(variables: &[(String, String)], read: &dyn Fn(&str) -> std::io::Result<String>) -> Layer {
    let mut layer = Layer::default();
    for (name, value) in variables.iter().filter(|(name, _)| name.starts_with("PIPELINE_")) {
        if name == CONFIG || is_service_link(name) {
            continue;
        }
        match setting(name, value, read) {
            Ok(setting) if layer.settings.iter().any(|other| std::ptr::eq(other.key, setting.key)) => {
                let variable = setting.key.variable();
                layer
                    .problems
                    .push(format!("{variable} and {variable}_FILE are both set; expected one of them"));
            }
            Ok(setting) => layer.settings.push(setting),
            Err(problem) => layer.problems.push(problem),
        }
    }
    layer
}

fn setting(
    name: &str,
    value: &str,
    read: &dyn Fn(&str) -> std::io::Result<String>,
) -> Result<Setting, String> {
    if let Some(key) = find(name) {
        return Ok(Setting { key, value: key.read(value), origin: Origin::Env(name.into()) });
    }
    let Some(key) = name.strip_suffix("_FILE").and_then(find) else {
        let mut names: Vec<String> = KEYS.iter().map(Key::variable).collect();
        names.push(CONFIG.into());
        let mut meant = did_you_mean(name, names.iter().map(String::as_str));
        if meant.is_empty() {
            meant = "; expected PIPELINE_CONFIG or PIPELINE_<SECTION>__<KEY>".into();
        }
        return Err(format!("unknown environment variable {name}{meant}"));
    };
    let text = read(value).map_err(|error| format!("{name}: cannot read {value}: {error}"))?;
    let value = key.read_as_it_is(without_newline(&text));
    Ok(Setting { key, value, origin: Origin::EnvFile(name.into()) })
}

fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.variable() == name)
}

/// Kubernetes gives every pod variables for each service of its namespace. One that is called `pipeline`, or
/// `pipeline-kafka`, must not keep a job from running: `PIPELINE_PORT_80_TCP_ADDR`, `PIPELINE_SERVICE_HOST`.
fn is_service_link(name: &str) -> bool {
    let words: Vec<&str> = name.split('_').skip(1).collect();
    let Some(at) = words.iter().position(|word| *word == "PORT" || *word == "SERVICE") else { return false };
    let rest = &words[at + 1..];
    let is_link = match words[at] {
        "SERVICE" => matches!(rest.first(), Some(&("HOST" | "PORT"))),
        _ => rest.is_empty() || (rest.len() >= 2 && rest[0].bytes().all(|b| b.is_ascii_digit())),
    };
    is_link && !name.contains("__")
}

#[cfg(test)]
mod tests {
    use super::super::setting::Value;
    use super::*;

    fn run(variables: &[(&str, &str)]) -> Result<Vec<Setting>, Vec<String>> {
        let variables: Vec<_> = variables.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
        parse(&variables, &|path| match path {
            "/secret" => Ok("7\n".into()),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        })
        .checked()
    }

    #[test]
    fn every_key_has_its_variable() {
        for key in KEYS {
            let settings = run(&[(&key.variable(), "x")]).unwrap();
            assert!(std::ptr::eq(settings[0].key, key), "{}", key.path());
        }
    }

    #[test]
    fn a_value_may_stand_in_a_file() {
        let settings = run(&[("PIPELINE_PROCESSING__WORKERS_FILE", "/secret")]).unwrap();
        assert_eq!(settings[0].value.to_string(), "\"7\"");
        assert_eq!(settings[0].origin.to_string(), "environment PIPELINE_PROCESSING__WORKERS_FILE");
        let problems = run(&[("PIPELINE_PROCESSING__WORKERS_FILE", "/none")]).unwrap_err();
        assert!(
            problems[0].starts_with("PIPELINE_PROCESSING__WORKERS_FILE: cannot read /none:"),
            "{problems:?}"
        );
    }

    #[test]
    fn unknown_variables_are_told_with_the_nearest() {
        assert_eq!(
            run(&[("PIPELINE_PROCESSING__WORKRS", "2")]).unwrap_err(),
            ["unknown environment variable PIPELINE_PROCESSING__WORKRS; \
              did you mean PIPELINE_PROCESSING__WORKERS?"]
        );
        assert!(run(&[("PIPELINE_WORKERS", "2")]).is_err());
        assert!(run(&[("PIPELINE_CONFIG", "x"), ("HOME", "/"), ("PIPELINE", "1")]).unwrap().is_empty());
    }

    #[test]
    fn both_ways_at_once_are_refused() {
        let both = [("PIPELINE_PROCESSING__WORKERS", "1"), ("PIPELINE_PROCESSING__WORKERS_FILE", "/secret")];
        assert!(run(&both).unwrap_err()[0].contains("both set"));
    }

    #[test]
    fn common_names_are_below_ours() {
        let common = [("KAFKA_BOOTSTRAP_SERVERS", "b"), ("KAFKA_BROKERS", "a"), ("KAFKA_PORT", "1")];
        let last = |variables: &[(&str, &str)]| run(variables).unwrap().last().unwrap().origin.to_string();
        assert_eq!(run(&common).unwrap().len(), 2);
        assert_eq!(last(&common), "environment KAFKA_BROKERS");
        assert_eq!(
            last(&[common[0], ("PIPELINE_KAFKA__BROKERS", "c"), common[1]]),
            "environment PIPELINE_KAFKA__BROKERS"
        );
        assert!(run(&[("KAFKA_BROKERS", "")]).unwrap().is_empty());
    }

    #[test]
    fn secrets_of_files_and_common_names_are_no_references() {
        let secret = |name: &str, value: &str| match &run(&[(name, value)]).unwrap()[0].value {
            Value::Secret(secret) => secret.shown(),
            other => panic!("{other} is printed"),
        };
        assert_eq!(secret("PIPELINE_KAFKA__SASL__PASSWORD", "env:X"), "env:X");
        assert_eq!(secret("PIPELINE_KAFKA__SASL__PASSWORD", "x"), "***");
        assert_eq!(secret("PIPELINE_KAFKA__SASL__PASSWORD_FILE", "/secret"), "***");
        assert_eq!(secret("KAFKA_SASL_PASSWORD", "env:X"), "***");
    }

    #[test]
    fn service_links_are_no_settings() {
        for name in [
            "PIPELINE_SERVICE_HOST",
            "PIPELINE_SERVICE_PORT_HTTP",
            "PIPELINE_PORT",
            "PIPELINE_PORT_80_TCP",
            "PIPELINE_KAFKA_PORT_9092_TCP_ADDR",
        ] {
            assert!(run(&[(name, "tcp://10.0.0.1:80")]).unwrap().is_empty(), "{name}");
        }
        assert!(run(&[("PIPELINE_PORT_X", "1")]).is_err());
    }
}
