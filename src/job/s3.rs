//! Jobs whose output is a bucket: how it is reached, and how objects are stored there.

use std::sync::Arc;

use super::Job;
use crate::codec::Codec;
use crate::config::s3::{Conditional, Sse};
use crate::config::secret::{Lookup, Secret};
use crate::config::{Config, SourceKind};
use crate::error::{Error, Result};
use crate::metrics::Services;
use crate::s3::{Asks, Bucket, Credentials, Endpoint, Keys, Options, Style, region_of};
use crate::sink::key::Namer;
use crate::sink::s3::{Conditions, Occupied, S3Options, S3Sink};
use crate::state::Tries;

/// The region of services that have none.
const REGION: &str = "us-east-1";

/// The bucket of a configuration, which counts its trouble into `services`. Asks nobody.
///
/// # Errors
/// If it cannot be reached so, or nobody signs.
pub fn bucket(config: &Config, name: &str, services: &Services) -> crate::s3::Result<Bucket> {
    let s3 = &config.s3;
    let lookup = Lookup::process();
    let profile = s3.profile.as_deref();
    let region = s3.region.clone().or_else(|| region_of(profile, &lookup)).unwrap_or_else(|| REGION.into());
    let style = s3.path_style.map(|path| if path { Style::Path } else { Style::Host });
    let endpoint = Endpoint::new(s3.endpoint.as_deref(), name, &region, style)?;
    let exposed = |secret: &Option<Secret>| secret.as_ref().and_then(Secret::expose).map(str::to_owned);
    let credentials = match (&s3.access_key_id, exposed(&s3.secret_access_key)) {
        (Some(access_key_id), Some(secret_access_key)) => Credentials::fixed(Keys {
            access_key_id: access_key_id.clone(),
            secret_access_key,
            session_token: exposed(&s3.session_token),
        }),
        _ => {
            let asks = Asks { region: &region, ca: s3.ca.as_deref(), timeout: config.processing.timeout };
            Credentials::find(profile, &lookup, &asks)?
        }
    };
    let (timeout, connections) = (config.processing.timeout, s3.concurrency + 1);
    let services = services.clone();
    Bucket::new(Options { endpoint, credentials, ca: s3.ca.clone(), timeout, connections, services })
}

impl Job<'_> {
    /// The bucket, after it has answered.
    pub(super) fn bucket(&self, name: &str) -> Result<Arc<Bucket>> {
        if let Some(bucket) = self.bucket.get() {
            return Ok(bucket.clone());
        }
        let bucket = Arc::new(bucket(self.config, name, &self.metrics.services)?);
        bucket.hang_up_with(self.stop);
        let namer = self.config.namer();
        let prefix = namer.prefix();
        // Wrong keys, a wrong name and a wrong region are told before anything is read.
        let tried = bucket.patiently(self.config.processing.retry, self.stop, || {
            match bucket.list(prefix, None, 1, None) {
                // Who may write need not be allowed to list.
                Err(error) if error.has_code("AccessDenied") => {
                    log::debug!("{error}");
                    Ok(())
                }
                other => other.map(drop),
            }
        });
        tried?;
        log::info!("{} with the keys of the {}", bucket.url(prefix), bucket.credentials().place());
        Ok(self.bucket.get_or_init(|| bucket).clone())
    }

    /// How patiently the bucket is asked before and after the run.
    pub(super) fn tries(&self) -> Tries {
        Tries { policy: self.config.processing.retry, stop: self.stop.clone() }
    }

    /// An object a batch.
    pub(super) fn bucket_sink(&self, name: &str, namer: &Namer) -> Result<S3Sink> {
        let s3 = &self.config.s3;
        let part = usize::try_from(s3.part_size)
            .map_err(|_| Error::Usage("s3.part_size is more than this machine can address".into()))?;
        let plans = self.config.plans();
        let is_file = self.config.input.source == SourceKind::File;
        let conditions = match s3.conditional {
            Conditional::On => Conditions::Must,
            Conditional::Auto if is_file || plans => Conditions::Try,
            Conditional::Auto | Conditional::Off => Conditions::Never,
        };
        Ok(S3Sink::new(S3Options {
            bucket: self.bucket(name)?,
            namer: namer.clone(),
            part,
            writers: s3.concurrency,
            conditions,
            occupied: if is_file { Occupied::Refuse } else { Occupied::Replace },
            redo: plans,
            headers: self.object_headers(),
            metadata: s3.metadata.clone(),
        }))
    }

    /// How objects are stored.
    fn object_headers(&self) -> Vec<(&'static str, String)> {
        let s3 = &self.config.s3;
        let encoding = match self.config.output.codec {
            Codec::None => None,
            Codec::Gzip(_) => Some("gzip"),
            Codec::Zstd(_) => Some("zstd"),
        };
        let sse = s3.sse.map(|sse| match sse {
            Sse::Aes256 => "AES256",
            Sse::Kms => "aws:kms",
        });
        let tags = (!s3.tags.is_empty()).then(|| crate::s3::form(&s3.tags));
        let headers = [
            ("content-type", Some("application/x-ndjson".to_owned())),
            ("content-encoding", encoding.filter(|_| s3.content_encoding).map(str::to_owned)),
            ("x-amz-storage-class", s3.storage_class.clone()),
            ("x-amz-server-side-encryption", sse.map(str::to_owned)),
            ("x-amz-server-side-encryption-aws-kms-key-id", s3.kms_key_id.clone()),
            ("x-amz-acl", s3.acl.clone()),
            ("x-amz-tagging", tags),
        ];
        headers.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}
