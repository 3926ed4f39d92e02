//! `[s3]`: the bucket, and how objects are stored there.

use super::read::{FILE, SIZE, SWITCH, check, file, name, number, one_of, put, secret, size, switch, text};
use super::{Default, Key, Shape, Wrong};
use crate::config::s3::{self, Conditional, LARGEST_PART, LEAST_PART, Sse};
use crate::config::setting::Value;

const SECTION: &str = "s3";
const PAIRS: &str = "NAME=VALUE, several with commas between";

pub(super) const KEYS: &[Key] = &[
    Key {
        section: SECTION,
        name: "bucket",
        shape: Shape::Text,
        default: Default::Absent("my-bucket", "named by the output: s3://BUCKET; also S3_BUCKET"),
        help: "bucket of the output, the same as the output s3://BUCKET; above another output it takes its place",
        expected: "the name of a bucket",
        set: |draft, value| {
            let bucket = name(value)?;
            check(
                bucket.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')),
            )?;
            put(&mut draft.config.s3.bucket, Some(bucket.to_owned()))
        },
    },
    Key {
        section: SECTION,
        name: "prefix",
        shape: Shape::Text,
        default: Default::Absent("events", "none, or named by the output: s3://BUCKET/PREFIX"),
        help: "what keys begin with in s3.bucket, or in an output s3://BUCKET that no stronger layer names",
        expected: "a prefix like events/2026",
        set: |draft, value| {
            put(&mut draft.config.s3.prefix, s3::prefix(name(value)?).map_err(Wrong::Because)?)
        },
    },
    Key {
        section: SECTION,
        name: "endpoint",
        shape: Shape::Text,
        default: Default::Absent(
            "http://localhost:9000",
            "AWS; also AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, S3_ENDPOINT",
        ),
        help: "URL of the service, for MinIO, R2, Ceph and others",
        expected: "a URL like http://localhost:9000 or https://s3.example.com",
        set: |draft, value| {
            let endpoint = name(value)?;
            #[cfg(feature = "s3")]
            crate::s3::check_endpoint(endpoint).map_err(Wrong::Because)?;
            put(&mut draft.config.s3.endpoint, Some(endpoint.to_owned()))
        },
    },
    Key {
        section: SECTION,
        name: "region",
        shape: Shape::Text,
        default: Default::Absent(
            "eu-central-1",
            "the profile's, else us-east-1; also AWS_REGION, AWS_DEFAULT_REGION",
        ),
        help: "the bucket's region",
        expected: "a name like eu-central-1",
        set: |draft, value| {
            let region = name(value)?;
            check(region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'))?;
            put(&mut draft.config.s3.region, Some(region.to_owned()))
        },
    },
    Key {
        section: SECTION,
        name: "path_style",
        shape: Shape::Switch,
        default: Default::Absent("true", "true with an endpoint, false at AWS"),
        help: "the bucket stands in the path of URLs, not in the host",
        expected: SWITCH,
        set: |draft, value| put(&mut draft.config.s3.path_style, Some(switch(value)?)),
    },
    Key {
        section: SECTION,
        name: "part_size",
        shape: Shape::Text,
        default: Default::Is("8MiB"),
        help: "larger batches are stored in parts of this size, while they are still open",
        expected: SIZE,
        set: |draft, value| {
            let part = size(value)?;
            if !(LEAST_PART..=LARGEST_PART).contains(&part) {
                return Err(Wrong::Because(format!(
                    "stores take parts from 5MiB to 5GiB; expected {SIZE} in between"
                )));
            }
            put(&mut draft.config.s3.part_size, part)
        },
    },
    Key {
        section: SECTION,
        name: "concurrency",
        shape: Shape::Number,
        default: Default::Is("4"),
        help: "requests side by side; each needs memory for two parts",
        expected: "a whole number from 1 to 256",
        set: |draft, value| {
            let count: usize = number(value)?;
            check((1..=256).contains(&count))?;
            put(&mut draft.config.s3.concurrency, count)
        },
    },
    Key {
        section: SECTION,
        name: "conditional",
        shape: Shape::Text,
        default: Default::Is("auto"),
        help: "objects are stored with If-None-Match: auto (where the store can), on (or the run ends) or off",
        expected: "auto, on or off",
        set: |draft, value| {
            let kinds = [("auto", Conditional::Auto), ("on", Conditional::On), ("off", Conditional::Off)];
            put(&mut draft.config.s3.conditional, one_of(value, &kinds)?)
        },
    },
    Key {
        section: SECTION,
        name: "storage_class",
        shape: Shape::Text,
        default: Default::Absent("STANDARD_IA", "the bucket's"),
        help: "what the store keeps objects in",
        expected: "a storage class like STANDARD_IA",
        set: |draft, value| {
            let class = name(value)?;
            check(
                class.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_'),
            )?;
            put(&mut draft.config.s3.storage_class, Some(class.to_owned()))
        },
    },
    Key {
        section: SECTION,
        name: "sse",
        shape: Shape::Text,
        default: Default::Absent("AES256", "the bucket's"),
        help: "encryption at rest: AES256 or aws:kms",
        expected: "AES256 or aws:kms",
        set: |draft, value| {
            let kinds = [("AES256", Sse::Aes256), ("aws:kms", Sse::Kms)];
            put(&mut draft.config.s3.sse, Some(one_of(value, &kinds)?))
        },
    },
    Key {
        section: SECTION,
        name: "kms_key_id",
        shape: Shape::Text,
        default: Default::Absent("alias/events", "the account's own key"),
        help: "the key that aws:kms uses",
        expected: "the id, ARN or alias of a key",
        set: |draft, value| put(&mut draft.config.s3.kms_key_id, Some(sendable(value)?)),
    },
    Key {
        section: SECTION,
        name: "acl",
        shape: Shape::Text,
        default: Default::Absent("bucket-owner-full-control", "the bucket's"),
        help: "who may read objects, as one of the store's canned lists",
        expected: "a canned ACL like private or bucket-owner-full-control",
        set: |draft, value| {
            let acl = name(value)?;
            check(acl.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'))?;
            put(&mut draft.config.s3.acl, Some(acl.to_owned()))
        },
    },
    Key {
        section: SECTION,
        name: "tags",
        shape: Shape::List,
        default: Default::Absent("[\"team=data\"]", "none"),
        help: "tags of each object, NAME=VALUE each",
        expected: PAIRS,
        set: |draft, value| put(&mut draft.config.s3.tags, pairs(value)?),
    },
    Key {
        section: SECTION,
        name: "metadata",
        shape: Shape::List,
        default: Default::Absent("[\"origin=nightly\"]", "none"),
        help: "metadata of each object, NAME=VALUE each",
        expected: PAIRS,
        set: |draft, value| {
            let pairs = pairs(value)?;
            let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            check(pairs.iter().all(|(name, value)| is_name(name) && value.is_ascii()))?;
            if pairs.iter().any(|(name, _)| name.to_ascii_lowercase().starts_with("pipeline-")) {
                return Err(Wrong::Because(
                    "names that begin with pipeline- are this program's; expected others".into(),
                ));
            }
            put(&mut draft.config.s3.metadata, pairs)
        },
    },
    Key {
        section: SECTION,
        name: "content_encoding",
        shape: Shape::Switch,
        default: Default::Is("false"),
        help: "declare compressed objects as such, so that browsers and some clients unpack them",
        expected: SWITCH,
        set: |draft, value| put(&mut draft.config.s3.content_encoding, switch(value)?),
    },
    Key {
        section: SECTION,
        name: "ca",
        shape: Shape::Text,
        default: Default::Absent("ca.pem", "the system's; also AWS_CA_BUNDLE"),
        help: "PEM file of the authorities that the service is verified against",
        expected: FILE,
        set: |draft, value| put(&mut draft.config.s3.ca, file(value)?),
    },
    Key {
        section: SECTION,
        name: "profile",
        shape: Shape::Text,
        default: Default::Absent("nightly", "the keys of the environment, else default; also AWS_PROFILE"),
        help: "profile of ~/.aws/credentials or ~/.aws/config whose keys are used",
        expected: "the name of a profile",
        set: |draft, value| put(&mut draft.config.s3.profile, Some(name(value)?.to_owned())),
    },
    Key {
        section: SECTION,
        name: "access_key_id",
        shape: Shape::Text,
        default: Default::Absent("AKIDEXAMPLE", "those of the environment (AWS_ACCESS_KEY_ID) or a profile"),
        help: "keys that come before those of the environment and of profiles",
        expected: "the id of an access key",
        set: |draft, value| put(&mut draft.config.s3.access_key_id, Some(sendable(value)?)),
    },
    Key {
        section: SECTION,
        name: "secret_access_key",
        shape: Shape::Secret,
        default: Default::Absent("file:/run/secrets/s3", "see access_key_id"),
        help: "the secret of access_key_id: env:NAME (a variable), file:PATH or the secret itself",
        expected: "env:NAME, file:PATH or the secret itself",
        set: |draft, value| put(&mut draft.config.s3.secret_access_key, Some(secret(value)?)),
    },
    Key {
        section: SECTION,
        name: "session_token",
        shape: Shape::Secret,
        default: Default::Absent("env:TOKEN", "none"),
        help: "what comes with keys that expire",
        expected: "env:NAME, file:PATH or the token itself",
        set: |draft, value| put(&mut draft.config.s3.session_token, Some(secret(value)?)),
    },
];

/// A text that can stand in a header.
fn sendable(value: &Value) -> Result<String, Wrong> {
    let text = name(value)?;
    check(text.bytes().all(|byte| byte.is_ascii_graphic()))?;
    Ok(text.to_owned())
}

/// `NAME=VALUE`, one an item or several with commas between.
fn pairs(value: &Value) -> Result<Vec<(String, String)>, Wrong> {
    let items = match value {
        Value::List(items) => items.clone(),
        one => vec![text(one)?.to_owned()],
    };
    let pair = |item: &str| {
        let (name, value) = item.trim().split_once('=')?;
        let fine = !name.is_empty() && !item.chars().any(char::is_control);
        fine.then(|| (name.to_owned(), value.to_owned()))
    };
    let pairs: Option<Vec<_>> = items.iter().flat_map(|item| item.split(',')).map(pair).collect();
    pairs.filter(|pairs| !pairs.is_empty()).ok_or(Wrong::Expected)
}
