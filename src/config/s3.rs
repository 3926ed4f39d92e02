//! `[s3]`: which bucket, how it is reached, and how objects are stored there.

use std::path::PathBuf;

use super::secret::Secret;

/// Smallest part that stores take, but for the last one of an object.
pub const LEAST_PART: u64 = 5 << 20;
/// Largest part that stores take.
pub const LARGEST_PART: u64 = 5 << 30;

/// How a bucket is reached and what is stored there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3 {
    /// The bucket of the output `s3:`, and of a run that names no other output.
    pub bucket: Option<String>,
    /// What its keys begin with.
    pub prefix: String,
    /// URL of the service; `None`: AWS.
    pub endpoint: Option<String>,
    /// The region; `None`: that of the profile, else `us-east-1`.
    pub region: Option<String>,
    /// Whether the bucket stands in the path of URLs; `None`: where that fits.
    pub path_style: Option<bool>,
    /// Batches of more bytes are stored in parts of so many.
    pub part_size: u64,
    /// Requests side by side.
    pub concurrency: usize,
    /// Whether objects may be replaced.
    pub conditional: Conditional,
    /// What the store keeps objects in.
    pub storage_class: Option<String>,
    /// Encryption at rest.
    pub sse: Option<Sse>,
    /// The key that it uses.
    pub kms_key_id: Option<String>,
    /// Who may read objects: `private`, `bucket-owner-full-control`.
    pub acl: Option<String>,
    /// Tags of objects.
    pub tags: Vec<(String, String)>,
    /// Metadata of objects.
    pub metadata: Vec<(String, String)>,
    /// Whether compressed objects are declared as such, so that clients unpack them.
    pub content_encoding: bool,
    /// PEM file of the authorities that the service is verified against; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// The profile of the shared files; `None`: the environment's keys, else the default one.
    pub profile: Option<String>,
    /// Keys, whatever the environment says.
    pub access_key_id: Option<String>,
    /// Their secret.
    pub secret_access_key: Option<Secret>,
    /// What comes with keys that expire.
    pub session_token: Option<Secret>,
}

/// Whether objects may be replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conditional {
    /// Not by accident, where the store can tell.
    #[default]
    Auto,
    /// Not by accident, and the store must be able to tell.
    On,
    /// The store is not asked.
    Off,
}

/// Encryption at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sse {
    /// With keys of the store.
    Aes256,
    /// With a key of KMS.
    Kms,
}

impl Default for S3 {
    fn default() -> Self {
        S3 {
            bucket: None,
            prefix: String::new(),
            endpoint: None,
            region: None,
            path_style: None,
            part_size: 8 << 20,
            concurrency: 4,
            conditional: Conditional::default(),
            storage_class: None,
            sse: None,
            kms_key_id: None,
            acl: None,
            tags: Vec::new(),
            metadata: Vec::new(),
            content_encoding: false,
            ca: None,
            profile: None,
            access_key_id: None,
            secret_access_key: None,
            session_token: None,
        }
    }
}

/// A prefix as keys begin with it: empty, or with a slash at its end.
///
/// # Errors
/// One sentence on what was expected.
pub fn prefix(text: &str) -> Result<String, String> {
    let text = text.trim_end_matches('/');
    if text.is_empty() {
        return Ok(String::new());
    }
    let odd = |segment: &str| matches!(segment, "" | "." | "..") || segment.chars().any(char::is_control);
    if text.len() > 512 || text.split('/').any(odd) {
        return Err(format!("expected a prefix like events/2026, not {text:?}"));
    }
    Ok(format!("{text}/"))
}

impl S3 {
    /// What several of these settings may be together, a line for each problem.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut when = |wrong: bool, line: &str| {
            if wrong {
                problems.push(line.to_owned());
            }
        };
        when(!cfg!(feature = "s3"), "this build has no S3 client; expected one with the feature s3");
        when(
            self.kms_key_id.is_some() && self.sse != Some(Sse::Kms),
            "s3.kms_key_id without s3.sse = \"aws:kms\"; expected both",
        );
        when(
            self.access_key_id.is_some() != self.secret_access_key.is_some(),
            "s3.access_key_id and s3.secret_access_key belong together; expected both or none",
        );
        when(
            self.session_token.is_some() && self.secret_access_key.is_none(),
            "s3.session_token without s3.access_key_id and s3.secret_access_key",
        );
        when(self.tags.len() > 10, "s3.tags: expected at most 10 tags");
        when(
            !(LEAST_PART..=LARGEST_PART).contains(&self.part_size),
            "s3.part_size: expected a size from 5MiB to 5GiB",
        );
        when(self.concurrency == 0, "s3.concurrency: expected 1 or more");
        problems
    }

    /// Bytes of the parts that wait or are sent.
    pub fn parts(&self) -> usize {
        usize::try_from(self.part_size).unwrap_or(usize::MAX).saturating_mul(2 * self.concurrency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_have_one_slash_at_their_end() {
        for (text, expected) in [("", ""), ("a", "a/"), ("a/b//", "a/b/"), ("/", "")] {
            assert_eq!(prefix(text).as_deref(), Ok(expected));
        }
        for text in ["a//b", "/a", "a/../b", "./a", "a\nb"] {
            assert!(prefix(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_belongs_together_is_said() {
        let s3 = S3 {
            kms_key_id: Some("k".into()),
            access_key_id: Some("a".into()),
            part_size: 1,
            ..S3::default()
        };
        let problems = s3.problems();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(S3::default().problems().is_empty());
    }
}
