//! Logging in over a connection: SaslHandshake, then tokens in SaslAuthenticate (KIP-43, KIP-152).
//!
//! A broker that limits how long a login lasts says so, and is logged in to again before that time is over, on
//! the same connection (KIP-368). Java does so at 85 to 95 per cent of it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::Connection;
use crate::kafka::code::Code;
use crate::kafka::error::{Error, Result};
use crate::kafka::sasl::{Exchange, Sasl};

impl Connection {
    /// Logs in, where the options say who.
    pub(super) fn login(&mut self) -> Result<()> {
        let Some(sasl) = self.options.sasl.clone() else { return Ok(()) };
        let done = self.login_as(&sasl);
        if done.is_err() {
            self.close();
        }
        done
    }

    fn login_as(&mut self, sasl: &Sasl) -> Result<()> {
        self.shake_hands(sasl)?;
        let mut exchange = Exchange::new(sasl).map_err(|reason| self.refused(sasl, reason))?;
        let (mut challenge, mut lifetime) = (Bytes::new(), 0);
        // Each token is answered; the last answer brings no token of ours but must be looked at.
        while let Some(token) = exchange.step(&challenge).map_err(|reason| self.refused(sasl, reason))? {
            let answer = self.authenticate(sasl, token)?;
            (challenge, lifetime) = (answer.auth_bytes, answer.session_lifetime_ms);
        }
        let lifetime = u64::try_from(lifetime).ok().filter(|lifetime| *lifetime > 0);
        self.login_again_at = lifetime
            .and_then(|lifetime| Instant::now().checked_add(Duration::from_millis(lifetime / 20 * 17)));
        Ok(())
    }

    fn shake_hands(&mut self, sasl: &Sasl) -> Result<()> {
        let name = sasl.mechanism.name();
        let request = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(name));
        // Version 0 sends tokens without frames of their own, from before Kafka 1.0.
        let version = self.version::<SaslHandshakeRequest>(i16::MAX)?;
        if version < 1 {
            return Err(self.refused(sasl, "it is from before Kafka 1.0".into()));
        }
        let pending = self.shake(&request, version)?;
        let answer: SaslHandshakeResponse = self.receive(pending, self.options.request_timeout)?;
        Code(answer.error_code).check().map_err(|code| {
            let offered: Vec<_> = answer.mechanisms.iter().map(|name| name.as_str()).collect();
            let reason = match offered.is_empty() {
                true => format!("{code}; leave kafka.sasl out for this listener"),
                false => format!("{code}; it has {}", offered.join(", ")),
            };
            self.refused(sasl, reason)
        })
    }

    fn authenticate(&mut self, sasl: &Sasl, token: Vec<u8>) -> Result<SaslAuthenticateResponse> {
        let request = SaslAuthenticateRequest::default().with_auth_bytes(token.into());
        let version = self.version::<SaslAuthenticateRequest>(i16::MAX)?;
        let pending = self.shake(&request, version)?;
        let answer = self.receive(pending, self.options.request_timeout)?;
        Code(answer.error_code).check().map_err(|code| {
            let said = answer.error_message.as_deref().unwrap_or_default();
            self.refused(sasl, if said.is_empty() { code.to_string() } else { format!("{code} ({said})") })
        })?;
        Ok(answer)
    }

    fn refused(&self, sasl: &Sasl, reason: String) -> Error {
        Error::Authenticate { broker: self.broker.clone(), mechanism: sasl.mechanism.name(), reason }
    }
}
