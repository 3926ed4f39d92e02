//! Who asks: [`Login`] is what is known of it, [`Auth`] makes the header of a request of it. Tokens of OAuth 2 are
//! fetched with client credentials (RFC 6749, section 4.4) and renewed before they expire.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use parking_lot::Mutex;
use serde::Deserialize;
use ureq::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use ureq::http::{HeaderName, HeaderValue, Request, StatusCode};
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::Line;
use super::error::{Error, Result};
use super::shown;
use crate::config::secret::Secret;
use crate::error::Retry;

/// What is read of a token's answer at most.
const ANSWER: u64 = 256 << 10;
/// How long a token is good where nobody says.
const LIFE: Duration = Duration::from_secs(300);
/// A token is renewed so long before its end, or at half of a life that is shorter.
const EARLY: Duration = Duration::from_secs(60);

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Login {
    /// Nobody.
    #[default]
    None,
    /// The bearer of a token.
    Bearer(Secret),
    /// A user with a password.
    Basic {
        /// Who.
        username: String,
        /// The password.
        password: Secret,
    },
    /// Whoever knows a key.
    Key {
        /// The header that carries it.
        header: String,
        /// The key.
        value: Secret,
    },
    /// Whoever gets a token with these credentials.
    OAuth {
        /// Where tokens are.
        token_url: Url,
        /// Who.
        client_id: String,
        /// The secret.
        client_secret: Secret,
        /// What for.
        scope: Option<String>,
    },
}

/// Makes the header.
pub(super) struct Auth {
    login: Login,
    token: Mutex<Option<Token>>,
}

struct Token {
    text: Secret,
    until: Instant,
}

impl Auth {
    pub fn new(login: Login) -> Self {
        Auth { login, token: Mutex::default() }
    }

    /// The header that says who asks. Blocks while a token is fetched.
    ///
    /// # Errors
    /// If no token is had, or a secret cannot stand in a header.
    pub fn header(&self, line: &Line) -> Result<Option<(HeaderName, HeaderValue)>> {
        let bearer = |token: &Secret| format!("Bearer {}", exposed(token));
        let (name, value) = match &self.login {
            Login::None => return Ok(None),
            Login::Bearer(token) => (AUTHORIZATION, bearer(token)),
            Login::Basic { username, password } => (AUTHORIZATION, basic(username, exposed(password))),
            Login::Key { header, value } => {
                let name = header.parse().map_err(|_| unsendable("http.auth.header"))?;
                (name, exposed(value).to_owned())
            }
            Login::OAuth { .. } => (AUTHORIZATION, bearer(&self.token(line)?)),
        };
        let mut value = HeaderValue::from_str(&value).map_err(|_| unsendable("a secret of http.auth"))?;
        // Bytes beyond ASCII can stand in a header, but the client takes none there (RFC 9110, section 5.5).
        value.to_str().map_err(|_| unsendable("a secret of http.auth"))?;
        value.set_sensitive(true);
        Ok(Some((name, value)))
    }

    /// The server does not take the token. Whether another one may be had.
    pub fn refused(&self) -> bool {
        matches!(self.login, Login::OAuth { .. }) && self.token.lock().take().is_some()
    }

    fn token(&self, line: &Line) -> Result<Secret> {
        let mut held = self.token.lock();
        if let Some(token) = held.as_ref().filter(|token| token.until > Instant::now()) {
            return Ok(token.text.clone());
        }
        let token = self.fetch(line)?;
        Ok(held.insert(token).text.clone())
    }

    fn fetch(&self, line: &Line) -> Result<Token> {
        let Login::OAuth { token_url, client_id, client_secret, scope } = &self.login else {
            return Err(unsendable("http.auth"));
        };
        let secret = exposed(client_secret);
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if let Some(scope) = scope {
            form.append_pair("scope", scope);
        }
        // RFC 6749, section 2.3.1: both are form-encoded first.
        let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let header = basic(&encoded(client_id), &encoded(secret));
        let first = ask(line, token_url, Some(&header), &form.finish())?;
        if !matches!(first.0, StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED) {
            return token_of(token_url, first);
        }
        // Some servers take the credentials in the body only.
        form = Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        form.append_pair("client_id", client_id).append_pair("client_secret", secret);
        if let Some(scope) = scope {
            form.append_pair("scope", scope);
        }
        token_of(token_url, ask(line, token_url, None, &form.finish())?)
    }
}

fn exposed(secret: &Secret) -> &str {
    secret.expose().unwrap_or_default()
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{password}")))
}

fn unsendable(what: &str) -> Error {
    Error::Config(format!("{what} has characters that no header can have"))
}

fn ask(line: &Line, url: &Url, login: Option<&str>, form: &str) -> Result<(StatusCode, Vec<u8>)> {
    let what = format!("POST {}", shown(url));
    let mut request = Request::post(url.as_str())
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(ACCEPT, "application/json");
    if let Some(login) = login {
        request = request.header(AUTHORIZATION, login);
    }
    let request = request.body(form).map_err(|_| unsendable("http.auth"))?;
    let mut answer = line.send(&what, url, request)?;
    let body = answer.body_mut().with_config().limit(ANSWER).read_to_vec();
    let body = body.map_err(|error| Error::Transport { what, source: Box::new(error) })?;
    Ok((answer.status(), body))
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    #[serde(default)]
    expires_in: Option<serde_json::Value>,
}

fn token_of(url: &Url, (status, body): (StatusCode, Vec<u8>)) -> Result<Token> {
    let failed = |retry, why: String| Error::Token { why: format!("POST {}: {why}", shown(url)), retry };
    if !status.is_success() {
        let retry = match status.as_u16() {
            408 | 429 | 500.. => Retry::Transient,
            _ => Retry::Permanent,
        };
        return Err(failed(retry, format!("the server answers {status}")));
    }
    let granted: Granted = serde_json::from_slice(&body)
        .map_err(|_| failed(Retry::Permanent, "the answer holds no access_token".into()))?;
    let seconds = granted.expires_in.and_then(|value| match value {
        serde_json::Value::String(text) => text.parse().ok(),
        value => value.as_f64(),
    });
    let life = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(LIFE);
    let life = life.min(Duration::from_secs(86_400));
    Ok(Token { text: Secret::new(granted.access_token), until: Instant::now() + life - EARLY.min(life / 2) })
}
