//! Profiles of the files that Amazon's tools share: keys, a program that prints keys, or a role for a token.
//!
//! Files are read again whenever keys are renewed: other programs renew what stands there.

use std::fmt;
use std::path::PathBuf;

use super::super::error::{Error, Result};
use super::process::Process;
use super::web_identity::WebIdentity;
use super::{Asks, Keys, Lent, Provider, failed};
use crate::config::secret::Lookup;
use crate::error::Retry;

/// The files that Amazon's tools share.
#[derive(Clone)]
pub(super) struct Files {
    credentials: Option<PathBuf>,
    config: Option<PathBuf>,
}

/// The settings of one profile.
struct Settings {
    /// The text of each file that is there, and what the profile's section is called in it.
    texts: Vec<(String, String)>,
}

impl Settings {
    fn get(&self, name: &str) -> Option<String> {
        self.texts.iter().find_map(|(text, section)| ini(text, section, name).map(str::to_owned))
    }

    /// Keys that stand in one file: those of two are never mixed.
    fn keys(&self) -> Option<Keys> {
        self.texts.iter().find_map(|(text, section)| {
            let value = |name: &str| ini(text, section, name).map(str::to_owned);
            let (id, secret) = (value("aws_access_key_id")?, value("aws_secret_access_key")?);
            Some(Keys {
                access_key_id: id,
                secret_access_key: secret,
                session_token: value("aws_session_token"),
            })
        })
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
        let in_config = if profile == "default" { profile.into() } else { format!("profile {profile}") };
        let mut texts = Vec::new();
        for (path, section) in [(&self.credentials, profile), (&self.config, &in_config)] {
            let Some(path) = path else { continue };
            match (lookup.read)(path) {
                Ok(text) => texts.push((text, section.to_owned())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(failed(Retry::Permanent, format!("cannot read {}: {error}", path.display())));
                }
            }
        }
        Ok(Settings { texts })
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
        if let Some(keys) = settings.keys() {
            let it = OfFile { files: self.clone(), profile: profile.into(), first: Some(keys).into() };
            return Ok(Some((Box::new(it), place)));
        }
        if let Some(command) = settings.get("credential_process") {
            let it = Process::new(command, profile.into());
            return Ok(Some((Box::new(it), format!("credential_process of {place}"))));
        }
        if let (Some(token), Some(role)) = (settings.get("web_identity_token_file"), settings.get("role_arn"))
        {
            let session = settings.get("role_session_name");
            let name = "web_identity_token_file";
            let variable = |name: &str| lookup.text(name).ok().flatten();
            let it = WebIdentity::new(name, token.into(), role.clone(), session, &variable, asks)?;
            return Ok(Some((Box::new(it), format!("web identity of {place} (role {role})"))));
        }
        let other = ["source_profile", "credential_source", "sso_session", "sso_start_url", "login_session"];
        match other.into_iter().find(|name| settings.get(name).is_some()) {
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
        let keys = self.files.settings(&self.profile, &Lookup::process())?.keys();
        let gone = || -> Error {
            failed(
                Retry::Transient,
                format!("profile {} has no keys any more in {}", self.profile, self.files),
            )
        };
        keys.map(|keys| Lent::new(keys, None)).ok_or_else(gone)
    }
}

/// The region that a profile names.
pub fn region_of(profile: Option<&str>, lookup: &Lookup<'_>) -> Option<String> {
    let variable = |name: &str| lookup.text(name).ok().flatten();
    let files = Files::new(&|name| variable(name).filter(|value| !value.trim().is_empty()));
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
