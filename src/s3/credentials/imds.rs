//! Keys of the role of a virtual machine, by version 2 of its metadata service: a session first, then the role's
//! name, then its keys. Version 1, which forged requests can reach, is not asked.

use ureq::http::{Method, StatusCode};
use url::Url;

use super::super::error::Result;
use super::http::{Service, Told, refused, shown};
use super::{Lent, Provider, failed};
use crate::error::Retry;

const WHOM: &str = "the instance metadata service";
const V4: &str = "http://169.254.169.254";
const V6: &str = "http://[fd00:ec2::254]";
const ROLE: &str = "latest/meta-data/iam/security-credentials/";

pub(super) struct Instance {
    service: Service,
    base: String,
}

impl Instance {
    /// `None` where it is switched off.
    pub fn new(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let is =
            |name: &str, value: &str| variable(name).is_some_and(|text| text.eq_ignore_ascii_case(value));
        if is("AWS_EC2_METADATA_DISABLED", "true") {
            return Ok(None);
        }
        let usual = if is("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "ipv6") { V6 } else { V4 };
        let base = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| usual.into());
        let url = Url::parse(&base).ok().filter(|url| matches!(url.scheme(), "http" | "https")).ok_or_else(
            || {
                failed(
                    Retry::Permanent,
                    "AWS_EC2_METADATA_SERVICE_ENDPOINT: expected a URL like http://HOST".into(),
                )
            },
        )?;
        let service = Service::near(WHOM, &url)?.guessed();
        Ok(Some(Instance { service, base: base.trim_end_matches('/').to_owned() }))
    }

    fn get(&self, path: &str, token: &str) -> Result<(String, StatusCode, String)> {
        let url = format!("{}/{path}", self.base);
        let (status, text) =
            self.service.ask(Method::GET, &url, &[("x-aws-ec2-metadata-token", token)], "")?;
        Ok((url, status, text))
    }
}

impl Provider for Instance {
    fn lend(&self) -> Result<Lent> {
        let url = format!("{}/latest/api/token", self.base);
        let headers = [("x-aws-ec2-metadata-token-ttl-seconds", "21600")];
        let (status, token) = self.service.ask(Method::PUT, &url, &headers, "")?;
        if status != StatusCode::OK || token.trim().is_empty() {
            return Err(refused(WHOM, &url, status, "it gives no session (IMDSv2)"));
        }
        let token = token.trim();
        let (url, status, roles) = self.get(ROLE, token)?;
        let role = roles.lines().next().unwrap_or_default().trim();
        if status == StatusCode::NOT_FOUND || (status == StatusCode::OK && role.is_empty()) {
            return Err(failed(
                Retry::Permanent,
                format!("{WHOM} at {}: this machine has no role", shown(&url)),
            ));
        }
        if status != StatusCode::OK {
            return Err(refused(WHOM, &url, status, ""));
        }
        let (url, status, text) = self.get(&format!("{ROLE}{role}"), token)?;
        let odd = |why: String| failed(Retry::Transient, format!("{WHOM} at {}: {why}", shown(&url)));
        if status != StatusCode::OK {
            return Err(refused(WHOM, &url, status, ""));
        }
        let told = Told::read(&text).map_err(odd)?;
        if told.code.as_deref().is_some_and(|code| code != "Success") {
            return Err(odd(told.said()));
        }
        told.lent().map_err(odd)
    }

    fn end(&self) {
        self.service.end();
    }
}
