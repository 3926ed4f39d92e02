//! [`Endpoint`]: where a bucket is and how its URLs look. Validated before the first request; no IO.
//!
//! With an endpoint of one's own the bucket stands in the path, because hosts like MinIO's have no names for
//! buckets; at AWS it stands in the host, unless it has a dot, which no certificate covers.

use s3::signing::uri_encode;
use url::Url;

use super::error::{Error, Result};
use crate::config::secret::without_user;

/// Where a bucket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Everything before the key, without a slash at the end.
    base: String,
    /// The service, as users name it.
    service: String,
    bucket: String,
    region: String,
    encrypted: bool,
}

/// Where the bucket's name stands in a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `https://host/bucket/key`.
    Path,
    /// `https://bucket.host/key`.
    Host,
}

impl Endpoint {
    /// The bucket at `endpoint`, or at AWS. `style`: what fits, where `None`.
    ///
    /// # Errors
    /// [`Error::Config`] with what was expected.
    pub fn new(endpoint: Option<&str>, bucket: &str, region: &str, style: Option<Style>) -> Result<Self> {
        check_bucket(bucket).map_err(Error::Config)?;
        check_region(region).map_err(Error::Config)?;
        let url = match endpoint {
            Some(text) => parse(text).map_err(Error::Config)?,
            None => parse(&of_aws(region)).map_err(Error::Config)?,
        };
        let fits = if endpoint.is_some() || bucket.contains('.') { Style::Path } else { Style::Host };
        let (scheme, host) = (url.scheme(), authority(&url));
        let path = url.path().trim_end_matches('/');
        let base = match style.unwrap_or(fits) {
            Style::Path => format!("{scheme}://{host}{path}/{bucket}"),
            Style::Host => format!("{scheme}://{bucket}.{host}{path}"),
        };
        Ok(Endpoint {
            base,
            service: format!("{scheme}://{host}"),
            bucket: bucket.into(),
            region: region.into(),
            encrypted: scheme == "https",
        })
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The region that requests are signed for.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Scheme, host and port of the service.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Whether nobody on the way can change what is sent.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// URL of an object, or with an empty key of the bucket.
    ///
    /// # Errors
    /// [`Error::Config`] if no URL can name it.
    pub(super) fn url(&self, key: &str, query: &[(&str, &str)]) -> Result<Url> {
        let mut text = self.base.clone();
        text.push('/');
        text.push_str(&uri_encode(key, false));
        for (index, (name, value)) in query.iter().enumerate() {
            text.push(if index == 0 { '?' } else { '&' });
            text.push_str(&format!("{}={}", uri_encode(name, true), uri_encode(value, true)));
        }
        let odd = key.split('/').any(|segment| matches!(segment, "." | ".."));
        match Url::parse(&text) {
            Ok(url) if !odd => Ok(url),
            _ => Err(Error::Config(format!("{key:?} cannot be the key of an object"))),
        }
    }
}

/// Host and port of a URL, the port only where it is not the scheme's own: as it stands in `Host`.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn of_aws(region: &str) -> String {
    let top = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("https://s3.{region}.{top}")
}

/// Whether a bucket may be called so: 3 to 63 lower-case letters, digits, dots and dashes. Some stores take
/// upper-case letters and underscores too.
///
/// # Errors
/// One sentence on what was expected.
pub fn check_bucket(name: &str) -> Result<(), String> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let ends = name.bytes().next().zip(name.bytes().last());
    let fine = (3..=63).contains(&name.len())
        && name.bytes().all(inner)
        && !name.contains("..")
        && ends.is_some_and(|(first, last)| first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric());
    if fine {
        return Ok(());
    }
    Err(format!("expected the name of a bucket (3 to 63 letters, digits, dots and dashes), not {name:?}"))
}

fn check_region(name: &str) -> Result<(), String> {
    let fine = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if fine { Ok(()) } else { Err(format!("s3.region: expected a name like eu-central-1, not {name:?}")) }
}

/// The URL of a service.
fn parse(text: &str) -> Result<Url, String> {
    check_endpoint(text)?;
    Url::parse(text).map_err(|error| format!("s3.endpoint {text:?}: {error}"))
}

/// Whether this is the URL of a service: `http://localhost:9000`.
///
/// # Errors
/// One sentence on what was expected.
pub fn check_endpoint(text: &str) -> Result<(), String> {
    const EXPECTED: &str = "expected a URL like http://localhost:9000 or https://s3.example.com";
    // Users and parameters are not what it may hold, but may be what it holds.
    let told = without_user(text.split(['?', '#']).next().unwrap_or_default());
    if !text.contains("://") {
        return Err(format!("s3.endpoint: {EXPECTED}, not {told:?}, which has no http:// or https://"));
    }
    let url = Url::parse(text).map_err(|error| format!("s3.endpoint: {EXPECTED}, not {told:?}: {error}"))?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.host_str().is_some_and(|host| !host.is_empty())
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if plain { Ok(()) } else { Err(format!("s3.endpoint: {EXPECTED}, not {told:?}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(endpoint: Option<&str>, bucket: &str, style: Option<Style>, expected: &str) {
        let endpoint = Endpoint::new(endpoint, bucket, "eu-central-1", style).unwrap();
        assert_eq!(endpoint.url("a/b c+ü", &[("x", "1/2")]).unwrap().as_str(), expected);
    }

    #[test]
    fn buckets_stand_where_they_can() {
        check(None, "logs", None, "https://logs.s3.eu-central-1.amazonaws.com/a/b%20c%2B%C3%BC?x=1%2F2");
        check(None, "l.x", None, "https://s3.eu-central-1.amazonaws.com/l.x/a/b%20c%2B%C3%BC?x=1%2F2");
        check(Some("http://h:9000"), "logs", None, "http://h:9000/logs/a/b%20c%2B%C3%BC?x=1%2F2");
        check(Some("https://h/"), "logs", Some(Style::Host), "https://logs.h/a/b%20c%2B%C3%BC?x=1%2F2");
    }

    #[test]
    fn what_is_no_endpoint_is_said() {
        for text in ["localhost:9000", "ftp://h", "http://", "http://u:p@h", "http://h?x", "h"] {
            let said = check_endpoint(text).unwrap_err();
            assert!(said.contains("expected a URL like http://localhost:9000"), "{said}");
        }
        for text in
            ["http://u:s3cret@h", "http://s3cret@h", "u:s3cret@h", "http://h?s3cret", "ftp://u:s3cret@h"]
        {
            let said = check_endpoint(text).unwrap_err();
            assert!(said.contains("h\"") && !said.contains("s3cret"), "{said}");
        }
        assert!(check_endpoint("localhost:9000").unwrap_err().contains("no http://"));
        assert!(check_bucket("a/b").is_err() && check_bucket("ab").is_err() && check_bucket("-ab").is_err());
        assert!(Endpoint::new(None, "logs", "eu west", None).is_err());
    }

    #[test]
    fn no_key_leaves_its_prefix() {
        let endpoint = Endpoint::new(Some("http://h"), "logs", "x", None).unwrap();
        assert!(endpoint.url("a/../b", &[]).is_err());
        assert!(endpoint.url("a/./b", &[]).is_err());
        assert_eq!(endpoint.url("a/..b", &[]).unwrap().as_str(), "http://h/logs/a/..b");
    }
}
