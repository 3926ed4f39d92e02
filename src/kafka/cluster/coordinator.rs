//! Who coordinates a group or a transaction (FindCoordinator; several keys a request since KIP-699, of which we
//! use one).

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use kafka_protocol::messages::FindCoordinatorRequest;
use kafka_protocol::protocol::StrBytes;

use super::Cluster;
use crate::kafka::code::Code;
use crate::kafka::connection::Connection;
use crate::kafka::connection::address::Address;
use crate::kafka::error::{Error, Result};

/// From this version on a request has several keys.
const BATCHED: i16 = 4;
/// From this version on there are other coordinators than those of groups.
const KINDS: i16 = 1;

/// What a coordinator coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coordinates {
    /// A consumer group, by its id.
    Group,
    /// The transactions of a transactional id.
    Transaction,
}

impl fmt::Display for Coordinates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Coordinates::Group => "group",
            Coordinates::Transaction => "transactional id",
        })
    }
}

impl Cluster {
    /// A new connection to the coordinator of `key`, which is found first. Blocks until about `deadline`.
    ///
    /// # Errors
    /// [`Error::Coordinator`] if the user is not allowed to use it; [`Error::GaveUp`] with the last error at the
    /// deadline; at once what another try cannot help.
    pub fn coordinator(&self, kind: Coordinates, key: &str, deadline: Instant) -> Result<Connection> {
        let what = || format!("coordinator of {kind} {key}");
        self.persist(what, deadline, || {
            let address = self.ask(deadline, |connection| self.find(connection, kind, key, deadline))?;
            // It may have moved when this fails: then it is found anew.
            self.dial(&address, deadline)
        })
    }

    pub(super) fn find(
        &self,
        connection: &mut Connection,
        kind: Coordinates,
        key: &str,
        deadline: Instant,
    ) -> Result<Arc<Address>> {
        let version = connection.version::<FindCoordinatorRequest>(i16::MAX)?;
        let (name, kind_id) = (StrBytes::from_string(key.to_string()), kind as i8);
        let request = match version {
            BATCHED.. => {
                FindCoordinatorRequest::default().with_key_type(kind_id).with_coordinator_keys(vec![name])
            }
            KINDS.. => FindCoordinatorRequest::default().with_key_type(kind_id).with_key(name),
            _ => FindCoordinatorRequest::default().with_key(name),
        };
        let answer = connection.call_within(&request, version, self.patience(deadline))?;
        let (code, host, port) = if version >= BATCHED {
            let ours = answer.coordinators.iter().find(|found| found.key[..] == *key);
            ours.map(|found| (Code(found.error_code), found.host.to_string(), found.port)).unwrap_or((
                Code::COORDINATOR_NOT_AVAILABLE,
                String::new(),
                -1,
            ))
        } else {
            (Code(answer.error_code), answer.host.to_string(), answer.port)
        };
        let failed = |code| Error::Coordinator { kind, key: key.to_string(), code };
        code.check().map_err(failed)?;
        match u16::try_from(port) {
            Ok(port @ 1..) if !host.is_empty() => Ok(Arc::new(Address { host, port })),
            _ => Err(failed(Code::COORDINATOR_NOT_AVAILABLE)),
        }
    }
}
