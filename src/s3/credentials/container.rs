//! Keys of a task of ECS or a pod of EKS: one request to an address that the service put into the environment.

use std::path::PathBuf;

use ureq::http::{Method, StatusCode};
use url::Url;

use super::super::error::Result;
use super::http::{Service, Told, is_safe, refused, shown};
use super::{Lent, Provider, failed, of_file};
use crate::error::Retry;

const WHOM: &str = "the container's credential service";
const RELATIVE: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
const FULL: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
/// Where relative addresses are.
const HOST: &str = "http://169.254.170.2";

pub(super) struct Container {
    service: Service,
    url: Url,
    authorization: Authorization,
}

enum Authorization {
    None,
    Text(String),
    /// Read for each request: the service renews it.
    File(PathBuf),
}

impl Container {
    /// `None` outside of containers with roles.
    pub fn new(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<(Self, &'static str)>> {
        let (name, text) = match (variable(RELATIVE), variable(FULL)) {
            (Some(path), _) => (RELATIVE, format!("{HOST}/{}", path.trim_start_matches('/'))),
            (None, Some(url)) => (FULL, url),
            (None, None) => return Ok(None),
        };
        // What is no URL is not told: nobody knows where its secrets are.
        let url = Url::parse(&text).map_err(|_| {
            failed(Retry::Permanent, format!("{name}: expected a URL like https://HOST/PATH"))
        })?;
        if !is_safe(&url) {
            let expected = "expected https://, or http:// and an address of this machine or of ECS or EKS";
            return Err(failed(Retry::Permanent, format!("{name} {}: {expected}", shown(&text))));
        }
        let authorization = match variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            Some(path) => Authorization::File(path.into()),
            None => {
                variable("AWS_CONTAINER_AUTHORIZATION_TOKEN").map_or(Authorization::None, Authorization::Text)
            }
        };
        Ok(Some((Container { service: Service::near(WHOM, &url)?, url, authorization }, name)))
    }
}

impl Provider for Container {
    fn lend(&self) -> Result<Lent> {
        let token = match &self.authorization {
            Authorization::None => None,
            Authorization::Text(text) => Some(text.clone()),
            Authorization::File(path) => Some(of_file("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", path)?),
        };
        let headers: Vec<(&str, &str)> =
            token.iter().map(|token| ("authorization", token.as_str())).collect();
        let url = self.url.as_str();
        let (status, text) = self.service.ask(Method::GET, url, &headers, "")?;
        if status != StatusCode::OK {
            let said = Told::read(&text).map(|told| told.said()).unwrap_or_default();
            let said = token.as_ref().map_or(said.clone(), |token| said.replace(token.as_str(), "***"));
            return Err(refused(WHOM, url, status, &said));
        }
        let odd = |why: String| failed(Retry::Transient, format!("{WHOM} at {}: {why}", shown(url)));
        Told::read(&text).and_then(Told::lent).map_err(odd)
    }

    fn end(&self) {
        self.service.end();
    }
}
