//! [`Fault`]: what the group's thread must do about an error. The one place where codes of group requests are
//! judged.

use super::settings::GroupSettings;
use crate::error::{Error, Retry};
use crate::kafka::code::Code;
use crate::kafka::error::Error as KafkaError;

/// Why a step of the group's thread did not end well.
#[derive(Debug)]
pub(super) enum Fault {
    /// The work is over, or the run is aborted.
    Over,
    /// Find the coordinator again; what is held stays, while the session lasts.
    Again(KafkaError),
    /// The group rebalances.
    Rejoin,
    /// The group went on without this member: everything is lost, then join again.
    Expelled(Code),
    /// Nothing helps.
    Fatal(Error),
}

impl Fault {
    pub fn of(settings: &GroupSettings, error: KafkaError) -> Self {
        match &error {
            KafkaError::HungUp => Fault::Over,
            KafkaError::Refused { code, .. } | KafkaError::Coordinator { code, .. } => match *code {
                Code::REBALANCE_IN_PROGRESS => Fault::Rejoin,
                Code::ILLEGAL_GENERATION | Code::UNKNOWN_MEMBER_ID => Fault::Expelled(*code),
                code => match advice(settings, code) {
                    Some(text) => Fault::Fatal(permanent(settings, format!("{text} ({error})"))),
                    None if code.retry() == Retry::Transient => Fault::Again(error),
                    None => Fault::Fatal(error.into()),
                },
            },
            error_ if error_.retry() == Retry::Transient => Fault::Again(error),
            _ => Fault::Fatal(error.into()),
        }
    }
}

pub(super) fn permanent(settings: &GroupSettings, text: String) -> Error {
    Error::other(format!("group {}", settings.group), Retry::Permanent, text)
}

/// What to do about a code that ends the run.
pub(super) fn advice(settings: &GroupSettings, code: Code) -> Option<String> {
    let text = match code {
        Code::FENCED_INSTANCE_ID => format!(
            "another process has joined with instance id {:?}: give each its own kafka.instance_id, or none",
            settings.instance_id.as_deref().unwrap_or_default()
        ),
        Code::GROUP_AUTHORIZATION_FAILED => {
            "the user may not use this group: an ACL must allow READ on it".to_string()
        }
        Code::INCONSISTENT_GROUP_PROTOCOL => format!(
            "its other members do not have the assignor {}, or are no consumers of the classic protocol: set \
             kafka.assignor to theirs, or use another group",
            settings.assignor.name()
        ),
        Code::GROUP_MAX_SIZE_REACHED => {
            "it takes no more members (group.max.size of the broker): stop another one, or use fewer processes"
                .to_string()
        }
        Code::INVALID_SESSION_TIMEOUT => format!(
            "the broker does not take kafka.session_timeout = {:?}: set it within the broker's \
             group.min.session.timeout.ms and group.max.session.timeout.ms",
            settings.session_timeout
        ),
        Code::INVALID_GROUP_ID => "the broker does not take this name: set another kafka.group".to_string(),
        _ => return None,
    };
    Some(text)
}
