//! What the Kafka client takes, made of the configuration. Reads the files and variables that it names.

use std::sync::Arc;
use std::time::Duration;

use super::{Compression, From, Isolation, Kafka, Mechanism, Sasl};
use crate::config::secret::Lookup;
use crate::error::Result;
use crate::kafka;
use crate::kafka::{Address, Error, cluster};

/// A host that is down and says nothing is given up after so long, if `timeout` is not shorter.
const CONNECT: Duration = Duration::from_secs(10);
/// An answer holds more than the records of a fetch; and what is not a fetch is never larger than this.
const AROUND_A_FETCH: usize = 1 << 20;

impl Kafka {
    /// How brokers are spoken to. `timeout` limits one request. Blocks while certificates are read.
    ///
    /// # Errors
    /// [`crate::Error::Usage`] if a file or a variable is not what it must be, or a password would go over the
    /// wire in the clear.
    pub fn options(&self, timeout: Duration) -> Result<kafka::Options> {
        let defaults = kafka::Options::default();
        let fetch = usize::try_from(self.source.fetch_max_bytes).unwrap_or(usize::MAX);
        let options = kafka::Options {
            client_id: self.client_id.clone(),
            connect_timeout: timeout.min(CONNECT),
            request_timeout: timeout,
            max_answer: defaults.max_answer.max(fetch.saturating_add(AROUND_A_FETCH)),
            tls: self.tls()?,
            sasl: self.sasl.login()?,
            services: defaults.services,
        };
        options.check()?;
        Ok(options)
    }

    /// Where to begin.
    ///
    /// # Errors
    /// [`crate::Error::Usage`] if there is no broker, or one is no address.
    pub fn addresses(&self) -> Result<Vec<Arc<Address>>> {
        let parsed = self.brokers.iter().map(|broker| broker.parse::<Address>().map(Arc::new));
        let addresses: Vec<_> = parsed.collect::<std::result::Result<_, _>>().map_err(Error::Config)?;
        if addresses.is_empty() {
            return Err(Error::Config("no brokers: set kafka.brokers".into()).into());
        }
        Ok(addresses)
    }

    fn tls(&self) -> Result<Option<kafka::Tls>> {
        if !self.tls.enabled {
            return Ok(None);
        }
        let files = kafka::TlsFiles {
            ca: self.tls.ca.clone(),
            cert: self.tls.cert.clone(),
            key: self.tls.key.clone(),
            verify: if self.tls.verify { kafka::Verify::Host } else { kafka::Verify::Nothing },
        };
        Ok(Some(kafka::Tls::new(&files)?))
    }
}

impl Sasl {
    fn login(&self) -> Result<Option<kafka::Sasl>> {
        let wrong = |why: String| Error::Config(format!("kafka.sasl.password: {why}"));
        let Some(username) = &self.username else { return Ok(None) };
        let password = self.password.as_ref().ok_or_else(|| wrong("it is not set".into()))?;
        let password = password.load(&Lookup::process()).map_err(wrong)?;
        Ok(Some(kafka::Sasl {
            mechanism: self.mechanism.unwrap_or_default().into(),
            username: username.clone(),
            password: password.expose().unwrap_or_default().to_owned(),
            plaintext: match self.allow_plaintext {
                true => kafka::Plaintext::Allow,
                false => kafka::Plaintext::Refuse,
            },
        }))
    }
}

impl std::convert::From<Mechanism> for kafka::Mechanism {
    fn from(mechanism: Mechanism) -> Self {
        match mechanism {
            Mechanism::Plain => kafka::Mechanism::Plain,
            Mechanism::ScramSha256 => kafka::Mechanism::ScramSha256,
            Mechanism::ScramSha512 => kafka::Mechanism::ScramSha512,
        }
    }
}

impl std::convert::From<Compression> for kafka::wire::Compression {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::None => kafka::wire::Compression::None,
            Compression::Gzip => kafka::wire::Compression::Gzip,
            Compression::Snappy => kafka::wire::Compression::Snappy,
            Compression::Lz4 => kafka::wire::Compression::Lz4,
            Compression::Zstd => kafka::wire::Compression::Zstd,
        }
    }
}

impl std::convert::From<Isolation> for cluster::Isolation {
    fn from(isolation: Isolation) -> Self {
        match isolation {
            Isolation::ReadCommitted => cluster::Isolation::ReadCommitted,
            Isolation::ReadUncommitted => cluster::Isolation::ReadUncommitted,
        }
    }
}

impl std::convert::From<From> for cluster::At {
    fn from(from: From) -> Self {
        match from {
            From::Earliest => cluster::At::Earliest,
            From::Latest => cluster::At::Latest,
            From::Time(millis) => cluster::At::Time(millis),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secret::Secret;

    #[test]
    fn the_defaults_are_those_of_the_client() {
        let (ours, its) =
            (Kafka::default().options(Duration::from_secs(30)).unwrap(), kafka::Options::default());
        assert_eq!(
            (ours.client_id, ours.connect_timeout, ours.request_timeout, ours.max_answer),
            (its.client_id, its.connect_timeout, its.request_timeout, its.max_answer)
        );
        assert!(ours.tls.is_none() && ours.sasl.is_none());
    }

    #[test]
    fn a_login_is_made_of_its_parts() {
        let sasl = Sasl {
            mechanism: Some(Mechanism::ScramSha512),
            username: Some("alice".into()),
            password: Some(Secret::new("alice-secret")),
            allow_plaintext: false,
        };
        let with = |sasl: Sasl| Kafka { sasl, ..Kafka::default() }.options(Duration::from_secs(1));
        let made = with(sasl.clone()).unwrap();
        assert_eq!(made.connect_timeout, Duration::from_secs(1));
        let login = made.sasl.unwrap();
        assert_eq!((login.mechanism.name(), &login.password[..]), ("SCRAM-SHA-512", "alice-secret"));
        let missing = Sasl { password: Secret::parse("file:/none/there"), ..sasl.clone() };
        let error = with(missing).unwrap_err();
        assert!(error.to_string().starts_with("kafka.sasl.password: cannot read /none/there: "), "{error}");
        assert_eq!(error.exit_code(), 2);
        let plain = Sasl { mechanism: None, ..sasl };
        assert!(with(plain.clone()).unwrap_err().to_string().contains("allow_plaintext"));
        assert!(with(Sasl { allow_plaintext: true, ..plain }).is_ok());
    }

    #[test]
    fn brokers_are_addresses() {
        let with = |brokers: &[&str]| {
            let brokers = brokers.iter().map(|broker| (*broker).to_owned()).collect();
            Kafka { brokers, ..Kafka::default() }.addresses()
        };
        let found = with(&["a", "[::1]:7"]).unwrap();
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["a:9092", "[::1]:7"]);
        for wrong in [&[][..], &["a:b"]] {
            assert_eq!(with(wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
    }

    #[test]
    fn a_larger_fetch_takes_a_larger_answer() {
        let mut kafka = Kafka::default();
        kafka.source.fetch_max_bytes = 100 << 20;
        assert_eq!(kafka.options(Duration::from_secs(1)).unwrap().max_answer, 101 << 20);
    }
}
