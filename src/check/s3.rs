//! The part of `--check` that asks the object store.

use pipeline::config::{Config, Place};
use pipeline::error::Retry;
use pipeline::job::s3::bucket;
use pipeline::metrics::Services;
use pipeline::s3::Error;
use pipeline::s3::probe::{Probed, probe};

use super::{Finding, PATIENCE, Verdict};

/// A line for everything that a run with this output needs of its bucket.
pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let Place::S3 { bucket: name, prefix } = &config.output.to else { return Vec::new() };
    let mut config = config.clone();
    config.processing.timeout = config.processing.timeout.min(PATIENCE);
    match bucket(&config, name, &Services::default()) {
        Ok(bucket) => probe(&bucket, prefix).into_iter().map(finding).collect(),
        Err(error) => {
            vec![Finding { what: format!("output s3://{name}/{prefix}"), verdict: verdict(&error) }]
        }
    }
}

fn finding(probed: Probed) -> Finding {
    match probed.outcome {
        Ok(detail) => Finding { what: format!("{}: {detail}", probed.what), verdict: Verdict::Fine },
        Err(error) => Finding { verdict: verdict(&error), what: probed.what },
    }
}

fn verdict(error: &Error) -> Verdict {
    let why = error.to_string();
    match (error, error.retry()) {
        (Error::Config(_) | Error::Credentials { .. }, Retry::Permanent) => Verdict::Wrong(why),
        (_, Retry::Permanent) => Verdict::Refused(why),
        (_, Retry::Transient) => Verdict::Failed(why),
    }
}
