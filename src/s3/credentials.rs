//! Who signs: [`Credentials`] yields [`Keys`], from the first place that has some.
//!
//! Keys of one place belong together: a session token of the environment is never used with keys of the
//! configuration. Empty values count as absent. Nothing here is ever printed but the place's name.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::{Error, Result};
use crate::config::secret::Lookup;
use crate::error::Retry;

/// What a request is signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// Public.
    pub access_key_id: String,
    /// Secret.
    pub secret_access_key: String,
    /// Comes with keys that expire.
    pub session_token: Option<String>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.access_key_id)
    }
}

/// Who signs, and where that was found.
#[derive(Clone, Debug)]
pub struct Credentials {
    keys: Arc<Keys>,
    place: String,
}

impl Credentials {
    /// These keys, whatever the environment says.
    pub fn fixed(keys: Keys) -> Self {
        Credentials { keys: Arc::new(keys), place: "configuration".into() }
    }

    /// The first of: environment, profile `profile` or `default` of the shared files.
    ///
    /// # Errors
    /// [`Error::Credentials`] with everything that was tried.
    pub fn find(profile: Option<&str>, lookup: &Lookup<'_>) -> Result<Self> {
        let variable = |name: &str| (lookup.variable)(name).filter(|value| !value.trim().is_empty());
        // A profile that was named comes first, as with Amazon's own tools.
        if profile.is_none()
            && let Some(keys) = of_environment(&variable)?
        {
            return Ok(Credentials { keys: Arc::new(keys), place: "environment".into() });
        }
        let files = Files::new(&variable);
        let name = profile.unwrap_or("default");
        if let Some(found) = files.keys(name, lookup)? {
            return Ok(Credentials { keys: Arc::new(found), place: format!("profile {name}") });
        }
        let tried = match profile {
            Some(name) => format!("profile {name:?} has no keys in {files}"),
            None => format!(
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set, and there is no profile in {files}"
            ),
        };
        Err(Error::Credentials { why: tried, retry: Retry::Permanent })
    }

    /// Keys that are valid now.
    pub fn keys(&self) -> Arc<Keys> {
        self.keys.clone()
    }

    /// Where they were found.
    pub fn place(&self) -> &str {
        &self.place
    }
}

fn of_environment(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Keys>> {
    let [id, secret] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(variable);
    match (id, secret) {
        (Some(access_key_id), Some(secret_access_key)) => {
            let session_token = variable("AWS_SESSION_TOKEN");
            Ok(Some(Keys { access_key_id, secret_access_key, session_token }))
        }
        (None, None) => Ok(None),
        (id, _) => {
            let (set, not) = if id.is_some() {
                ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")
            } else {
                ("SECRET_ACCESS_KEY", "ACCESS_KEY_ID")
            };
            let why = format!("AWS_{set} is set and AWS_{not} is not; expected both");
            Err(Error::Credentials { why, retry: Retry::Permanent })
        }
    }
}

/// The files that Amazon's tools share.
struct Files {
    credentials: Option<PathBuf>,
    config: Option<PathBuf>,
}

impl Files {
    fn new(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let home = |name: &str| variable("HOME").map(|home| PathBuf::from(home).join(".aws").join(name));
        let path = |name: &str, at: &str| variable(name).map(PathBuf::from).or_else(|| home(at));
        Files {
            credentials: path("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
            config: path("AWS_CONFIG_FILE", "config"),
        }
    }

    fn keys(&self, profile: &str, lookup: &Lookup<'_>) -> Result<Option<Keys>> {
        let in_config = if profile == "default" { profile.into() } else { format!("profile {profile}") };
        for (path, section) in [(&self.credentials, profile), (&self.config, &in_config)] {
            let Some(path) = path else { continue };
            let text = match (lookup.read)(path) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => {
                    let why = format!("cannot read {}: {error}", path.display());
                    return Err(Error::Credentials { why, retry: Retry::Permanent });
                }
            };
            let value = |name: &str| ini(&text, section, name).map(str::to_owned);
            if let (Some(access_key_id), Some(secret_access_key)) =
                (value("aws_access_key_id"), value("aws_secret_access_key"))
            {
                let session_token = value("aws_session_token");
                return Ok(Some(Keys { access_key_id, secret_access_key, session_token }));
            }
        }
        Ok(None)
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<String> = [&self.credentials, &self.config]
            .into_iter()
            .flatten()
            .map(|it| it.display().to_string())
            .collect();
        f.write_str(&if paths.is_empty() { "no file (HOME is not set)".into() } else { paths.join(" or ") })
    }
}

/// The region that a profile names.
pub fn region_of(profile: Option<&str>, lookup: &Lookup<'_>) -> Option<String> {
    let files = Files::new(&|name| (lookup.variable)(name).filter(|value| !value.trim().is_empty()));
    let section = profile.filter(|name| *name != "default").map(|name| format!("profile {name}"));
    let text = (lookup.read)(files.config.as_ref()?).ok()?;
    ini(&text, section.as_deref().unwrap_or("default"), "region").map(str::to_owned)
}

/// A value of a section; nested settings, which are indented, and comments do not count.
fn ini<'a>(text: &'a str, section: &str, name: &str) -> Option<&'a str> {
    let mut within = false;
    for line in text.lines() {
        if line.starts_with(['#', ';']) || line.starts_with(char::is_whitespace) {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            let header = header.split(']').next().unwrap_or_default();
            within = header.split_ascii_whitespace().eq(section.split_ascii_whitespace());
        } else if within
            && let Some((key, value)) = line.split_once('=')
            && key.trim() == name
            && !value.trim().is_empty()
        {
            return Some(value.trim());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::path::Path;

    const FILE: &str = "# a\n[default]\naws_access_key_id = D\naws_secret_access_key=DS\n\n\
                        [ci]\naws_access_key_id=C\naws_secret_access_key = C=S\naws_session_token = T\n\
                        s3 =\n  aws_secret_access_key = nested\n[half]\naws_access_key_id = H\n";

    fn find(profile: Option<&str>, set: &[(&str, &str)]) -> Result<(Keys, String)> {
        let variable = |name: &str| {
            let all = set.iter().chain(&[("HOME", "/home/u")]);
            all.into_iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned())
        };
        let read = |path: &Path| match path.to_str() {
            Some("/home/u/.aws/credentials") => Ok(FILE.to_owned()),
            Some("/home/u/.aws/config") => Ok("[profile ci]\nregion = eu-west-3\n".to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        let lookup = Lookup { variable: &variable, read: &read };
        let found = Credentials::find(profile, &lookup)?;
        assert_eq!(region_of(Some("ci"), &lookup).as_deref(), Some("eu-west-3"));
        assert_eq!(region_of(None, &lookup), None);
        Ok(((*found.keys()).clone(), found.place().to_owned()))
    }

    #[test]
    fn the_environment_comes_first_and_empty_values_are_none() {
        let (id, secret) = (("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "ES"));
        let (keys, place) = find(None, &[id, secret]).unwrap();
        assert_eq!((keys.access_key_id.as_str(), place.as_str()), ("E", "environment"));
        let (keys, place) = find(None, &[("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", " ")]).unwrap();
        assert_eq!((keys.access_key_id.as_str(), place.as_str()), ("D", "profile default"));
        let error = find(None, &[id]).unwrap_err().to_string();
        assert!(error.contains("AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not"), "{error}");
    }

    #[test]
    fn a_named_profile_is_the_one() {
        let set = [("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "ES"), ("AWS_SESSION_TOKEN", "ET")];
        let (keys, _) = find(Some("ci"), &set).unwrap();
        assert_eq!(keys.secret_access_key, "C=S");
        assert_eq!(keys.session_token.as_deref(), Some("T"));
        for missing in ["half", "none"] {
            let error = find(Some(missing), &set).unwrap_err().to_string();
            assert!(error.contains("has no keys in /home/u/.aws/credentials"), "{error}");
        }
        let elsewhere = [("AWS_SHARED_CREDENTIALS_FILE", "/x"), ("AWS_CONFIG_FILE", "/y")];
        let error = find(None, &elsewhere).unwrap_err().to_string();
        assert!(error.contains("no profile in /x or /y"), "{error}");
    }

    #[test]
    fn keys_are_never_printed() {
        let keys = Keys { access_key_id: "A".into(), secret_access_key: "S".into(), session_token: None };
        assert_eq!(format!("{keys:?}"), "Keys(A)");
    }
}
