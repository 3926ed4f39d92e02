//! Signature version 4 of one request, made of rust-s3's parts. Pure: the time is a parameter.
//!
//! The canonical headers are our own: rust-s3 sorts them with their values, so that a header whose name begins
//! with another's (`x-amz-server-side-encryption` and `…-aws-kms-key-id`) would stand in another order than in the
//! list of names, and the service would refuse the signature.

use s3::Region;
use s3::signing::{
    authorization_header, canonical_query_string, canonical_uri_string, signed_header_string, signing_key,
    string_to_sign, uri_encode,
};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use url::Url;

use super::credentials::Keys;
use super::endpoint::authority;
use super::error::{Error, Result};

/// What stands for the body where TLS protects it: the checksum header is signed, the body is not hashed.
pub(super) const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// SHA-256 in hexadecimal digits.
pub(super) fn hash<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = Sha256::new();
    pieces.into_iter().for_each(|piece| hasher.update(piece));
    hex(&hasher.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is signed besides the headers.
pub(super) struct Subject<'a> {
    pub method: &'a Method,
    pub url: &'a Url,
    pub region: &'a str,
    /// SHA-256 of the body, or [`UNSIGNED`].
    pub payload: &'a str,
    pub now: OffsetDateTime,
}

/// Adds what says who sends the request, and that nobody changed it. All headers that are there are signed.
pub(super) fn sign(subject: &Subject<'_>, keys: &Keys, headers: &mut HeaderMap) -> Result<()> {
    let now = subject.now;
    let date = format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        now.year(),
        u8::from(now.month()),
        now.day(),
        now.hour(),
        now.minute(),
        now.second()
    );
    put(headers, header::HOST, &authority(subject.url))?;
    put(headers, HeaderName::from_static("x-amz-date"), &date)?;
    put(headers, HeaderName::from_static("x-amz-content-sha256"), subject.payload)?;
    if let Some(token) = &keys.session_token {
        put(headers, HeaderName::from_static("x-amz-security-token"), token)?;
    }
    let names = signed_header_string(headers);
    let region = Region::Custom { region: subject.region.into(), endpoint: String::new() };
    let canonical = format!(
        "{}\n{}\n{}\n{}\n{names}\n{}",
        subject.method,
        canonical_uri_string(subject.url),
        canonical_query_string(subject.url),
        canonical_headers(headers)?,
        subject.payload,
    );
    let odd = |error: s3::error::S3Error| Error::Config(format!("the request cannot be signed: {error}"));
    let text = string_to_sign(&now, &region, &canonical).map_err(odd)?;
    let key = signing_key(&now, &keys.secret_access_key, &region, "s3").map_err(odd)?;
    let signature = hex(&mac(&key, text.as_bytes()));
    let value = authorization_header(&keys.access_key_id, &now, &region, &names, &signature).map_err(odd)?;
    put(headers, header::AUTHORIZATION, &value)
}

/// HMAC-SHA-256 (RFC 2104): rust-s3 does not hand on the crate that it uses.
fn mac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let pad = |with: u8| block.map(|byte| byte ^ with);
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

/// A line for each header, sorted by name, with single spaces inside.
fn canonical_headers(headers: &HeaderMap) -> Result<String> {
    let mut lines: Vec<(&str, String)> = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        let value = value.to_str().map_err(|_| unsendable(name.as_str()))?;
        lines.push((name.as_str(), value.split_ascii_whitespace().collect::<Vec<_>>().join(" ")));
    }
    lines.sort();
    Ok(lines.into_iter().map(|(name, value)| format!("{name}:{value}\n")).collect())
}

/// Sets a header.
///
/// # Errors
/// [`Error::Config`] if it has characters that cannot be sent.
pub(super) fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) -> Result<()> {
    let value = HeaderValue::from_str(value).map_err(|_| unsendable(name.as_str()))?;
    headers.insert(name, value);
    Ok(())
}

fn unsendable(name: &str) -> Error {
    Error::Config(format!("the value of the header {name} has characters that cannot be sent"))
}

/// `a=b&c=d`, as the tags of an object are sent.
pub fn form(pairs: &[(String, String)]) -> String {
    let pair =
        |(name, value): &(String, String)| format!("{}={}", uri_encode(name, true), uri_encode(value, true));
    pairs.iter().map(pair).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            session_token: None,
        }
    }

    /// The examples of Amazon's documentation of signature version 4.
    #[test]
    fn the_documented_examples_have_their_signatures() {
        let now = OffsetDateTime::from_unix_timestamp(1_369_353_600).unwrap();
        let sign = |method: Method, url: &str, payload: &str, extra: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in extra {
                put(&mut headers, HeaderName::from_static(name), value).unwrap();
            }
            let url = Url::parse(url).unwrap();
            let subject = Subject { method: &method, url: &url, region: "us-east-1", payload, now };
            super::sign(&subject, &keys(), &mut headers).unwrap();
            headers["authorization"].to_str().unwrap().to_owned()
        };
        let empty = hash([]);
        let got = sign(
            Method::GET,
            "https://examplebucket.s3.amazonaws.com/test.txt",
            &empty,
            &[("range", "bytes=0-9")],
        );
        assert!(got.ends_with("f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"), "{got}");
        let got =
            sign(Method::GET, "https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J", &empty, &[]);
        assert!(got.ends_with("34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"), "{got}");
        let got = sign(
            Method::PUT,
            "https://examplebucket.s3.amazonaws.com/test%24file.text",
            &hash([b"Welcome to Amazon S3.".as_slice()]),
            &[("date", "Fri, 24 May 2013 00:00:00 GMT"), ("x-amz-storage-class", "REDUCED_REDUNDANCY")],
        );
        assert!(got.ends_with("98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"), "{got}");
    }

    #[test]
    fn headers_are_sorted_by_name_alone() {
        let mut headers = HeaderMap::new();
        for name in ["x-amz-server-side-encryption-aws-kms-key-id", "x-amz-server-side-encryption"] {
            put(&mut headers, HeaderName::from_static(name), "v  v").unwrap();
        }
        let lines = canonical_headers(&headers).unwrap();
        assert_eq!(
            lines,
            "x-amz-server-side-encryption:v v\nx-amz-server-side-encryption-aws-kms-key-id:v v\n"
        );
    }
}
