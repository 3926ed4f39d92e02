//! [`Options`]: how brokers are spoken to. Checked once, before the first connection.

use std::time::Duration;

use crate::kafka::error::{Error, Result};
use crate::kafka::sasl::{Mechanism, Plaintext, Sasl};
use crate::kafka::tls::Tls;
use crate::metrics::Services;

/// What all connections of a client share.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name that the broker's logs, metrics and quotas show.
    pub client_id: String,
    /// For each address, and for TLS.
    pub connect_timeout: Duration,
    /// From sending a request to having its whole answer.
    pub request_timeout: Duration,
    /// The largest answer that is read, in bytes. Fetches must ask for less.
    pub max_answer: usize,
    /// Encrypts, where it is set.
    pub tls: Option<Tls>,
    /// Logs in, where it is set.
    pub sasl: Option<Sasl>,
    /// Where it is counted what fails, and what is tried again.
    pub services: Services,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            client_id: "pipeline".into(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            max_answer: 64 << 20,
            tls: None,
            sasl: None,
            services: Services::default(),
        }
    }
}

impl Options {
    /// # Errors
    /// [`Error::Config`] if a password would go over the wire in the clear, or the client id is too long.
    pub fn check(&self) -> Result<()> {
        let wrong = |text: &str| Err(Error::Config(text.into()));
        // A string's length has 15 bits on the wire.
        if self.client_id.len() > i16::MAX as usize {
            return wrong("kafka.client_id is too long");
        }
        match &self.sasl {
            Some(sasl) if sasl.username.is_empty() || sasl.password.is_empty() => {
                wrong("kafka.sasl.username and kafka.sasl.password must not be empty")
            }
            Some(Sasl { mechanism: Mechanism::Plain, plaintext: Plaintext::Refuse, .. })
                if self.tls.is_none() =>
            {
                wrong(
                    "kafka.sasl.mechanism PLAIN would send the password without encryption: set \
                     kafka.tls.enabled = true, or kafka.sasl.allow_plaintext = true if that is meant",
                )
            }
            _ => Ok(()),
        }
    }
}
