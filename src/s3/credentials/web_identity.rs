//! Keys of a role for a token that somebody else gave, by `AssumeRoleWithWebIdentity` of the security token service.
//! The request is not signed: the token is what proves who asks.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quick_xml::de::from_str;
use serde::Deserialize;
use ureq::http::{Method, StatusCode};
use url::Url;

use super::super::error::Result;
use super::super::sign::form;
use super::http::{Service, is_safe, lent, refused, shown};
use super::{Asks, Lent, Provider, failed, of_file};
use crate::error::Retry;

const WHOM: &str = "the security token service";

pub(super) struct WebIdentity {
    service: Service,
    url: Url,
    role: String,
    session: String,
    token: PathBuf,
    /// What the token's path was set by.
    by: &'static str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Response {
    assume_role_with_web_identity_result: Outcome,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Outcome {
    credentials: Credentials,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Credentials {
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    session_token: Option<String>,
    expiration: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Failure {
    error: Said,
    request_id: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Said {
    code: String,
    message: String,
}

impl WebIdentity {
    /// `None` unless the environment names a token.
    pub fn of_environment(
        variable: &dyn Fn(&str) -> Option<String>,
        asks: &Asks<'_>,
    ) -> Result<Option<Self>> {
        const TOKEN: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";
        let Some(token) = variable(TOKEN) else { return Ok(None) };
        let role = variable("AWS_ROLE_ARN").ok_or_else(|| {
            failed(Retry::Permanent, format!("{TOKEN} is set and AWS_ROLE_ARN is not; expected both"))
        })?;
        let session = variable("AWS_ROLE_SESSION_NAME");
        Self::new(TOKEN, token.into(), role, session, variable, asks).map(Some)
    }

    pub fn new(
        by: &'static str,
        token: PathBuf,
        role: String,
        session: Option<String>,
        variable: &dyn Fn(&str) -> Option<String>,
        asks: &Asks<'_>,
    ) -> Result<Self> {
        let set = ["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"].into_iter().find_map(variable);
        let top = if asks.region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let text = set.unwrap_or_else(|| format!("https://sts.{}.{top}/", asks.region));
        let url = Url::parse(&text).map_err(|_| {
            let why = "expected a URL like https://HOST in AWS_ENDPOINT_URL_STS or AWS_ENDPOINT_URL";
            failed(Retry::Permanent, format!("{WHOM}: {why}"))
        })?;
        if !is_safe(&url) {
            log::warn!(
                "{WHOM} at {} is asked without encryption: set AWS_ENDPOINT_URL_STS to an https:// URL",
                shown(&text)
            );
        }
        let session = session.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
            format!("pipeline-{}", now.as_millis())
        });
        let service = Service::far(WHOM, &url, asks.ca, asks.timeout, variable)?;
        Ok(WebIdentity { service, url, role, session, token, by })
    }
}

impl Provider for WebIdentity {
    fn lend(&self) -> Result<Lent> {
        let token = of_file(self.by, &self.token)?;
        let fields = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("RoleArn", &self.role),
            ("RoleSessionName", &self.session),
            ("WebIdentityToken", &token),
        ];
        let body = form(&fields.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let headers =
            [("content-type", "application/x-www-form-urlencoded; charset=utf-8"), ("accept", "text/xml")];
        let url = self.url.as_str();
        let (status, text) = self.service.ask(Method::POST, url, &headers, &body)?;
        if status == StatusCode::OK {
            let odd = |why: String| failed(Retry::Transient, format!("{WHOM} at {}: {why}", shown(url)));
            let found: Response = from_str(&text).map_err(|_| odd("the answer has no credentials".into()))?;
            let it = found.assume_role_with_web_identity_result.credentials;
            return lent(it.access_key_id, it.secret_access_key, it.session_token, it.expiration.as_deref())
                .map_err(odd);
        }
        let failure: Failure = from_str(&text).unwrap_or_default();
        let mut said = format!("{} {}", failure.error.code, failure.error.message).replace(&token, "***");
        if !failure.request_id.is_empty() {
            said = format!("{said} (request id {})", failure.request_id);
        }
        said = format!("{} for role {}", said.trim(), self.role);
        // The service could not reach whoever gave the token; or the token's file is about to be renewed.
        if matches!(
            failure.error.code.as_str(),
            "IDPCommunicationError" | "ExpiredTokenException" | "Throttling"
        ) {
            return Err(failed(
                Retry::Transient,
                format!("{WHOM} at {}: {} {said}", shown(url), status.as_u16()),
            ));
        }
        Err(refused(WHOM, url, status, &said))
    }

    fn end(&self) {
        self.service.end();
    }
}
