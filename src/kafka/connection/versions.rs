//! [`Versions`]: which versions of which requests a broker has, asked once a connection (KIP-35).

use std::collections::HashMap;
use std::sync::Arc;

use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::{Message, StrBytes};

use super::Connection;
use super::address::Address;
use crate::kafka::code::Code;
use crate::kafka::error::{Error, Result};
use crate::kafka::wire::{Api, frame};

/// The broker's versions by the request's number, and the cluster's features.
#[derive(Default)]
pub(crate) struct Versions {
    requests: HashMap<i16, (i16, i16)>,
    features: Vec<(String, i16)>,
}

impl Versions {
    fn of(answer: &ApiVersionsResponse) -> Self {
        let finalized = answer.finalized_features.iter();
        Versions {
            requests: answer
                .api_keys
                .iter()
                .map(|api| (api.api_key, (api.min_version, api.max_version)))
                .collect(),
            features: finalized.map(|one| (one.name.to_string(), one.max_version_level)).collect(),
        }
    }

    fn feature(&self, name: &str) -> Option<i16> {
        self.features.iter().find(|feature| feature.0 == name).map(|feature| feature.1)
    }

    pub(crate) fn choose<R: Api>(&self, broker: &Arc<Address>, most: i16) -> Result<i16> {
        let ours = (R::VERSIONS.min, R::VERSIONS.max.min(most));
        let theirs = self.requests.get(&(R::KEY as i16)).copied();
        match theirs {
            Some((min, max)) if min.max(ours.0) <= max.min(ours.1) => Ok(max.min(ours.1)),
            _ => Err(Error::Version { broker: broker.clone(), api: R::NAME, ours, theirs }),
        }
    }
}

impl Connection {
    /// The level at which the cluster has finalized a feature (KIP-584), as this broker knew when the connection
    /// was opened.
    pub(crate) fn feature(&self, name: &str) -> Option<i16> {
        self.versions.feature(name)
    }

    /// Asks in our highest version. A broker that does not have it answers in version 0 with error 35, and its
    /// own versions where it is from after 2.4: then the highest common one is asked for, else version 0.
    pub(super) fn learn_versions(&mut self) -> Result<()> {
        let highest = ApiVersionsRequest::VERSIONS.max;
        let mut answer = self.ask_versions(highest)?;
        if Code(answer.error_code) == Code::UNSUPPORTED_VERSION {
            let known = Versions::of(&answer).choose::<ApiVersionsRequest>(&self.broker, highest - 1);
            answer = self.ask_versions(known.unwrap_or(0))?;
        }
        Code(answer.error_code).check().map_err(|code| {
            self.close();
            Error::Refused { call: self.name::<ApiVersionsRequest>(0), code }
        })?;
        self.versions = Versions::of(&answer);
        Ok(())
    }

    fn ask_versions(&mut self, version: i16) -> Result<ApiVersionsResponse> {
        let request = match version {
            3.. => ApiVersionsRequest::default()
                .with_client_software_name(StrBytes::from_static_str("pipeline"))
                .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION"))),
            _ => ApiVersionsRequest::default(),
        };
        let pending = self.shake(&request, version)?;
        let frame = self.receive_frame(&pending, self.options.request_timeout)?;
        // The code stands first in all versions, and tells which version the rest is.
        let unsupported = frame.get(4..6) == Some(&Code::UNSUPPORTED_VERSION.0.to_be_bytes()[..]);
        let decoded = frame::decode::<ApiVersionsRequest>(frame, if unsupported { 0 } else { version });
        match decoded {
            Ok(answer) => Ok(answer),
            // Before 2.4 nothing stands behind the code.
            Err(_) if unsupported => {
                Ok(ApiVersionsResponse::default().with_error_code(Code::UNSUPPORTED_VERSION.0))
            }
            Err(fault) => {
                self.close();
                Err(Error::Frame { call: self.name::<ApiVersionsRequest>(version), fault })
            }
        }
    }
}
