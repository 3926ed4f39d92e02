//! Profiles of the files that Amazon's tools share: keys, a program that prints keys, or a role for a token.
//!
//! Files are read again whenever keys are renewed: other programs renew what stands there.

use std::fmt;
use std::path::{Path, PathBuf};

use super::super::error::{Error, Result};
use super::process::Process;
use super::web_identity::WebIdentity;
use super::{Asks, Keys, Lent, Provider, failed};
use crate::config::secret::Lookup;
use crate::error::Retry;

/// The profile of whoever names none.
pub(super) const DEFAULT: &str = "default";

/// The files that Amazon's tools share.
#[derive(Clone)]
pub(super) struct Files {
    credentials: Option<PathBuf>,
    config: Option<PathBuf>,
}

/// The settings of one profile.
struct Settings {
    profile: String,
    /// Where they may stand, in the order in which they are looked up.
    sections: Vec<Section>,
}

/// A section of a file that is there; it need not have it.
struct Section {
    path: PathBuf,
    text: String,
    title: Title,
}

/// What stands between the brackets before a section.
#[derive(Clone, PartialEq, Eq)]
struct Title {
    /// Whether the word `profile` stands before the name, as it must in the configuration.
    is_profile: bool,
    name: String,
}

impl Title {
    /// Names may be quoted behind that word.
    fn read(header: &str) -> Self {
        let header = header.trim();
        match header.split_once(char::is_whitespace) {
            Some(("profile", name)) => {
                let name = name.trim();
                let bare = |quote: char| name.strip_prefix(quote)?.strip_suffix(quote);
                let name = bare('"').or_else(|| bare('\'')).unwrap_or(name);
                Title { is_profile: true, name: name.to_owned() }
            }
            _ => Title { is_profile: false, name: header.to_owned() },
        }
    }

    fn in_credentials(profile: &str) -> Vec<Self> {
        vec![Title { is_profile: false, name: profile.to_owned() }]
    }

    /// Only `default` may do without the word.
    fn in_config(profile: &str) -> Vec<Self> {
        let mut titles = vec![Title { is_profile: true, name: profile.to_owned() }];
        if profile == DEFAULT {
            titles.extend(Title::in_credentials(profile));
        }
        titles
    }
}

impl Settings {
    fn get(&self, name: &str) -> Option<String> {
        self.sections.iter().find_map(|section| section.get(name))
    }

    /// Keys that stand in one section: those of two are never mixed, and half of them are none.
    fn keys(&self) -> Result<Option<Keys>> {
        const NAMES: [&str; 2] = ["aws_access_key_id", "aws_secret_access_key"];
        for section in &self.sections {
            match NAMES.map(|name| section.get(name)) {
                [Some(access_key_id), Some(secret_access_key)] => {
                    let session_token = section.get("aws_session_token");
                    return Ok(Some(Keys { access_key_id, secret_access_key, session_token }));
                }
                [None, None] => {}
                [id, _] => {
                    let [id_name, secret_name] = NAMES;
                    let (set, not) =
                        if id.is_some() { (id_name, secret_name) } else { (secret_name, id_name) };
                    return Err(self.half(set, not, &section.path));
                }
            }
        }
        Ok(None)
    }

    fn half(&self, set: &str, not: &str, path: &Path) -> Error {
        let why = format!(
            "profile {} has {set} and no {not} in {}; expected both there",
            self.profile,
            path.display()
        );
        failed(Retry::Permanent, why)
    }

    /// The file in which a setting stands.
    fn path(&self, name: &str) -> &Path {
        let section = self.sections.iter().find(|section| section.get(name).is_some());
        section.map_or(Path::new(""), |section| &section.path)
    }
}

impl Section {
    fn get(&self, name: &str) -> Option<String> {
        ini(&self.text, &self.title, name).map(str::to_owned)
    }
}

impl Files {
    pub fn new(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let home = |name: &str| variable("HOME").map(|home| PathBuf::from(home).join(".aws").join(name));
        let path = |name: &str, at: &str| variable(name).map(PathBuf::from).or_else(|| home(at));
        Files {
            credentials: path("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
            config: path("AWS_CONFIG_FILE", "config"),
        }
    }

    fn settings(&self, profile: &str, lookup: &Lookup<'_>) -> Result<Settings> {
        let mut sections = Vec::new();
        let places =
            [(&self.credentials, Title::in_credentials(profile)), (&self.config, Title::in_config(profile))];
        for (path, titles) in places {
            let Some(path) = path else { continue };
            let text = match (lookup.read)(path) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => {
                    return Err(failed(Retry::Permanent, format!("cannot read {}: {error}", path.display())));
                }
            };
            let section = |title| Section { path: path.clone(), text: text.clone(), title };
            sections.extend(titles.into_iter().map(section));
        }
        Ok(Settings { profile: profile.to_owned(), sections })
    }

    /// Who lends the keys of a profile, and where they are from in words; `None` if it has none.
    pub fn provider(
        &self,
        profile: &str,
        lookup: &Lookup<'_>,
        asks: &Asks<'_>,
    ) -> Result<Option<(Box<dyn Provider>, String)>> {
        let settings = self.settings(profile, lookup)?;
        let place = format!("profile {profile}");
        let (token_name, role_name) = ("web_identity_token_file", "role_arn");
        let (token, role) = (settings.get(token_name), settings.get(role_name));
        // As Amazon's own tools have it: where a role is named, its keys sign and never those of the profile.
        if let (Some(token), Some(role)) = (&token, &role) {
            let session = settings.get("role_session_name");
            let told = format!("web identity of {place} (role {role})");
            let variable = |name: &str| lookup.text(name).ok().flatten();
            let it = WebIdentity::new(token_name, token.into(), role.clone(), session, &variable, asks)?;
            return Ok(Some((Box::new(it), told)));
        }
        if role.is_none()
            && let Some(keys) = settings.keys()?
        {
            let it = OfFile { files: self.clone(), profile: profile.into(), first: Some(keys).into() };
            return Ok(Some((Box::new(it), place)));
        }
        if let Some(command) = settings.get("credential_process") {
            let it = Process::new(command);
            return Ok(Some((Box::new(it), format!("credential_process of {place}"))));
        }
        if token.is_some() {
            return Err(settings.half(token_name, role_name, settings.path(token_name)));
        }
        let others = ["source_profile", "credential_source", "sso_session", "sso_start_url", "login_session"];
        match others.into_iter().find(|name| settings.get(name).is_some()) {
            None if role.is_some() => Err(settings.half(role_name, token_name, settings.path(role_name))),
            None => Ok(None),
            Some(name) => Err(failed(
                Retry::Permanent,
                format!(
                    "{place} has {name}, which is not supported; use a profile with credential_process = aws configure \
                     export-credentials --profile {profile} --format process"
                ),
            )),
        }
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

/// Keys that stand in a file.
struct OfFile {
    files: Files,
    profile: String,
    /// What stood there when it was looked first.
    first: parking_lot::Mutex<Option<Keys>>,
}

impl Provider for OfFile {
    fn lend(&self) -> Result<Lent> {
        if let Some(keys) = self.first.lock().take() {
            return Ok(Lent::new(keys, None));
        }
        // Whoever renews them may be about to write the rest.
        let later = |why: String| failed(Retry::Transient, why);
        match self.files.settings(&self.profile, &Lookup::process())?.keys() {
            Ok(Some(keys)) => Ok(Lent::new(keys, None)),
            Ok(None) => Err(later(format!("there are no keys any more in {}", self.files))),
            Err(Error::Credentials { why, .. }) => Err(later(why)),
            Err(other) => Err(other),
        }
    }
}

/// The region that a profile names.
pub fn region_of(profile: Option<&str>, lookup: &Lookup<'_>) -> Option<String> {
    let variable = |name: &str| lookup.text(name).ok().flatten();
    let files = Files::new(&|name| variable(name).filter(|value| !value.trim().is_empty()));
    let text = (lookup.read)(files.config.as_ref()?).ok()?;
    let titles = Title::in_config(profile.unwrap_or(DEFAULT));
    titles.iter().find_map(|title| ini(&text, title, "region").map(str::to_owned))
}

/// A value of a section; nested settings, which are indented, and comments do not count.
fn ini<'a>(text: &'a str, title: &Title, name: &str) -> Option<&'a str> {
    let mut within = false;
    for line in text.lines() {
        if line.starts_with(['#', ';']) || line.starts_with(char::is_whitespace) {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            let header = header.split(']').next().unwrap_or_default();
            within = Title::read(header) == *title;
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
    use std::io;
    use std::time::Duration;

    use super::*;

    /// Asks `what` of files with these contents.
    fn with<T>(credentials: &str, config: &str, what: impl FnOnce(&Files, &Lookup<'_>) -> T) -> T {
        let variable = |name: &str| (name == "HOME").then(|| "/u".to_owned());
        let read = |path: &Path| match path.to_str() {
            Some("/u/.aws/credentials") => Ok(credentials.to_owned()),
            Some("/u/.aws/config") => Ok(config.to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        what(
            &Files::new(&variable),
            &Lookup { variable: &|name| variable(name).map(Into::into), read: &read },
        )
    }

    /// The access key of a profile, or where else its keys are from; `None` if nothing says.
    fn found(profile: &str, credentials: &str, config: &str) -> Result<Option<String>> {
        let asks = Asks { region: "us-east-1", ca: None, timeout: Duration::from_secs(5) };
        with(credentials, config, |files, lookup| {
            let keys = files.settings(profile, lookup)?.keys()?.map(|keys| keys.access_key_id);
            let place = files.provider(profile, lookup, &asks)?.map(|(_, place)| place);
            Ok(place.map(|place| keys.filter(|_| place == format!("profile {profile}")).unwrap_or(place)))
        })
    }

    #[track_caller]
    fn refused(config: &str, said: &str) {
        let error = found("default", "", config).unwrap_err();
        assert_eq!(error.to_string(), format!("no credentials: {said}"));
        assert_eq!(error.retry(), Retry::Permanent);
    }

    #[test]
    fn half_a_profile_is_refused_with_what_is_missing() {
        let there = "in /u/.aws/config; expected both there";
        refused(
            "[default]\naws_access_key_id = A\n",
            &format!("profile default has aws_access_key_id and no aws_secret_access_key {there}"),
        );
        refused(
            "[default]\naws_access_key_id =\naws_secret_access_key = S\ncredential_process = c\n",
            &format!("profile default has aws_secret_access_key and no aws_access_key_id {there}"),
        );
        refused(
            "[default]\nweb_identity_token_file = t\n",
            &format!("profile default has web_identity_token_file and no role_arn {there}"),
        );
        refused(
            "[default]\nrole_arn = r\n",
            &format!("profile default has role_arn and no web_identity_token_file {there}"),
        );
        // Halves in two files are no whole.
        let (id, secret) = ("aws_access_key_id = A", "aws_secret_access_key = S");
        let error =
            found("default", &format!("[default]\n{id}"), &format!("[default]\n{secret}")).unwrap_err();
        assert!(error.to_string().contains("no aws_secret_access_key in /u/.aws/credentials"), "{error}");
        // What is no key at all is no half.
        assert_eq!(found("default", "[default]\nregion = r\n", "[default]\noutput = json\n").unwrap(), None);
    }

    #[test]
    fn keys_of_a_profile_with_a_role_never_sign_instead_of_it() {
        let keys = "aws_access_key_id = A\naws_secret_access_key = S\n";
        for source in ["source_profile = base", "credential_source = Environment"] {
            let name = source.split(' ').next().unwrap_or_default();
            for own in ["", keys] {
                refused(
                    &format!("[default]\n{own}role_arn = r\n{source}\n"),
                    &format!(
                        "profile default has {name}, which is not supported; use a profile with credential_process = \
                         aws configure export-credentials --profile default --format process"
                    ),
                );
            }
            // Without a role it names nothing that signs.
            let found = found("default", "", &format!("[default]\n{keys}{source}\n"));
            assert_eq!(found.unwrap().as_deref(), Some("A"));
        }
        refused(
            &format!("[default]\n{keys}role_arn = r\n"),
            "profile default has role_arn and no web_identity_token_file in /u/.aws/config; expected both there",
        );
        // Whoever names who lends the role's keys is asked.
        let role = format!("[default]\n{keys}role_arn = r\nsource_profile = base\n");
        let lent = found("default", "", &format!("{role}credential_process = c\n")).unwrap();
        assert_eq!(lent.as_deref(), Some("credential_process of profile default"));
        // Keys that a login left behind are what was asked for.
        let left = found("default", &format!("[default]\n{keys}"), "[default]\nsso_session = s\n");
        assert_eq!(left.unwrap().as_deref(), Some("A"));
    }

    #[test]
    fn default_may_be_called_a_profile() {
        let config = "[default]\naws_access_key_id = B\naws_secret_access_key = S\nregion = r-1\n\
                      [profile default]\naws_access_key_id = A\naws_secret_access_key = S\nregion = r-2\n";
        assert_eq!(found("default", "", config).unwrap().as_deref(), Some("A"));
        assert_eq!(with("", config, |_, lookup| region_of(None, lookup)).as_deref(), Some("r-2"));
        assert_eq!(with("", config, |_, lookup| region_of(Some("default"), lookup)).as_deref(), Some("r-2"));
        // Whatever else lacks the word is no profile, and the credentials have none with it.
        let keys = "aws_access_key_id = A\naws_secret_access_key = S\n";
        assert_eq!(found("p", "", &format!("[p]\n{keys}")).unwrap(), None);
        assert_eq!(found("p", &format!("[profile p]\n{keys}"), "").unwrap(), None);
    }

    #[test]
    fn names_of_profiles_may_be_quoted() {
        for header in ["[profile \"a b\"]", "[profile 'a b']", "[ profile\t a b ] # c"] {
            let config = format!("{header}\ncredential_process = c\nregion = r-1\n");
            let place = found("a b", "", &config).unwrap();
            assert_eq!(place.as_deref(), Some("credential_process of profile a b"), "{header}");
            let region = with("", &config, |_, lookup| region_of(Some("a b"), lookup));
            assert_eq!(region.as_deref(), Some("r-1"), "{header}");
            assert_eq!(found("a", "", &config).unwrap(), None, "{header}");
        }
    }
}
