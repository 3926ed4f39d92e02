//! [`Sasl`] and the exchange of tokens: PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512. No socket.
//!
//! `rsasl` computes; what a server sends is checked here before it gets there, for two reasons. Its parser
//! slices attributes without looking at their length, so `r=x,,` is a panic. And it does as many iterations as
//! the server asks for, which may be four billion: hours of one core.

use std::fmt;

use rsasl::prelude::{Mechname, SASLClient, SASLConfig, Session, State};

/// More iterations than this are refused: about a second of work.
const MOST_ITERATIONS: u32 = 1_000_000;
/// Fewer are refused, as RFC 7677 and Kafka's own client do: whoever stands between would get a proof that is guessed at
/// one hash a try.
const LEAST_ITERATIONS: u32 = 4096;

/// How a user proves to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// The password goes over the wire as it is.
    Plain,
    /// RFC 7677.
    ScramSha256,
    /// The same with SHA-512.
    ScramSha512,
}

impl Mechanism {
    /// All of them.
    pub const ALL: [Mechanism; 3] = [Mechanism::Plain, Mechanism::ScramSha256, Mechanism::ScramSha512];

    /// The name on the wire and in settings.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Whether a password may go over a connection without TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plaintext {
    /// It may not: PLAIN without TLS is a usage error.
    #[default]
    Refuse,
    /// Somebody asked for it.
    Allow,
}

/// Who logs in, and how.
#[derive(Clone, PartialEq, Eq)]
pub struct Sasl {
    /// The mechanism.
    pub mechanism: Mechanism,
    /// The user's name.
    pub username: String,
    /// The user's password.
    pub password: String,
    /// Whether PLAIN may be used without TLS.
    pub plaintext: Plaintext,
}

impl fmt::Debug for Sasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sasl {{ {}, {:?}, *** }}", self.mechanism.name(), self.username)
    }
}

/// One run of a mechanism.
pub(crate) struct Exchange {
    session: Session,
    mechanism: Mechanism,
    step: u8,
}

impl Exchange {
    /// # Errors
    /// A text, if the name or the password cannot be used.
    pub(crate) fn new(sasl: &Sasl) -> Result<Self, String> {
        let text = |error: &dyn fmt::Display| error.to_string();
        let config = SASLConfig::with_credentials(None, sasl.username.clone(), sasl.password.clone());
        let name = Mechname::parse(sasl.mechanism.name().as_bytes()).map_err(|error| text(&error))?;
        let client = SASLClient::new(config.map_err(|error| text(&error))?);
        let session = client.start_suggested(&[name]).map_err(|error| text(&error))?;
        Ok(Exchange { session, mechanism: sasl.mechanism, step: 0 })
    }

    /// The next token to send. The first call takes no challenge. `None`: the server has proved itself, or need
    /// not.
    ///
    /// # Errors
    /// A text, if the server's token is not what it must be.
    pub(crate) fn step(&mut self, challenge: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let step = self.step;
        self.step += 1;
        match (self.mechanism, step) {
            (Mechanism::Plain, 0) => self.run(None).map(|(token, _)| Some(token)),
            // The broker answers PLAIN with nothing, or with an error code.
            (Mechanism::Plain, _) => Ok(None),
            (_, 0) => self.run(None).map(|(token, _)| Some(token)),
            (_, 1) => {
                check_first(challenge)?;
                self.run(Some(challenge)).map(|(token, _)| Some(token))
            }
            _ => {
                check_final(challenge)?;
                match self.run(Some(challenge))? {
                    (_, State::Finished(_)) => Ok(None),
                    _ => Err("it did not prove that it knows the password".into()),
                }
            }
        }
    }

    fn run(&mut self, challenge: Option<&[u8]>) -> Result<(Vec<u8>, State), String> {
        let mut token = Vec::new();
        let state = self.session.step(challenge, &mut token).map_err(|error| error.to_string())?;
        Ok((token, state))
    }
}

/// `r=nonce,s=salt,i=iterations`, as RFC 5802 has it, with a bearable number of iterations.
fn check_first(message: &[u8]) -> Result<(), String> {
    let malformed = || "its first SCRAM message is malformed".to_string();
    let text = std::str::from_utf8(message).map_err(|_| malformed())?;
    let mut parts = text.split(',');
    let mut part = |name: &str| {
        parts
            .next()
            .and_then(|part| part.strip_prefix(name))
            .filter(|value| !value.is_empty())
            .ok_or_else(malformed)
    };
    part("r=")?;
    part("s=")?;
    let iterations: u32 = part("i=")?.parse().map_err(|_| malformed())?;
    match (LEAST_ITERATIONS..=MOST_ITERATIONS).contains(&iterations) {
        true => Ok(()),
        false => Err(format!(
            "it asks for {iterations} SCRAM iterations; {LEAST_ITERATIONS} to {MOST_ITERATIONS} are done, fewer make \
             the password easy to guess"
        )),
    }
}

/// `v=signature` or `e=error`.
fn check_final(message: &[u8]) -> Result<(), String> {
    match message {
        [b'v', b'=', ..] => Ok(()),
        [b'e', b'=', why @ ..] => Err(String::from_utf8_lossy(why).into_owned()),
        _ => Err("it did not prove that it knows the password".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sasl(mechanism: Mechanism) -> Sasl {
        let plaintext = Plaintext::Allow;
        Sasl { mechanism, username: "alice".into(), password: "alice-secret".into(), plaintext }
    }

    #[test]
    fn plain_sends_name_and_password_once() {
        let mut exchange = Exchange::new(&sasl(Mechanism::Plain)).unwrap();
        assert_eq!(exchange.step(b"").unwrap().unwrap(), b"\0alice\0alice-secret");
        assert_eq!(exchange.step(b"").unwrap(), None);
    }

    #[test]
    fn scram_begins_without_channel_binding() {
        for mechanism in [Mechanism::ScramSha256, Mechanism::ScramSha512] {
            let mut exchange = Exchange::new(&sasl(mechanism)).unwrap();
            let first = String::from_utf8(exchange.step(b"").unwrap().unwrap()).unwrap();
            assert!(first.starts_with("n,,n=alice,r="), "{first}");
        }
    }

    /// The server's first message to a client whose first message was `first`.
    fn reply(first: &[u8], rest: &str) -> Vec<u8> {
        let first = std::str::from_utf8(first).unwrap();
        let nonce = first.split(",r=").nth(1).unwrap();
        format!("r={nonce}SERVER,{rest}").into_bytes()
    }

    #[track_caller]
    fn check_first_message(rest: &str, expected: &str) {
        let mut exchange = Exchange::new(&sasl(Mechanism::ScramSha256)).unwrap();
        let first = exchange.step(b"").unwrap().unwrap();
        let error = exchange.step(&reply(&first, rest)).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn hostile_first_messages_are_errors() {
        for rest in [
            "",
            ",",
            "s=,i=1",
            "s",
            "s=QUJD",
            "s=QUJD,",
            "s=QUJD,i",
            "s=QUJD,i=",
            "s=QUJD,i=x",
            "s=QUJD,i=-1",
        ] {
            check_first_message(rest, "malformed");
        }
        check_first_message("s=QUJD,i=4294967295", "4294967295 SCRAM iterations");
        check_first_message("s=QUJD,i=0", "0 SCRAM iterations");
        check_first_message("s=QUJD,i=4095", "4095 SCRAM iterations");
        check_first_message("s=***,i=4096", "base64");
        let mut exchange = Exchange::new(&sasl(Mechanism::ScramSha256)).unwrap();
        exchange.step(b"").unwrap();
        assert!(exchange.step(b"r=another,s=QUJD,i=4096").unwrap_err().contains("nonce"));
    }

    #[test]
    fn a_server_without_a_right_signature_is_refused() {
        for last in ["", "v", "v=", "v=AAAA", "ok", "e=invalid-proof", "x=1"] {
            let mut exchange = Exchange::new(&sasl(Mechanism::ScramSha512)).unwrap();
            let first = exchange.step(b"").unwrap().unwrap();
            exchange.step(&reply(&first, "s=QUJD,i=4096")).unwrap();
            assert!(exchange.step(last.as_bytes()).is_err(), "{last}");
        }
    }

    #[test]
    fn the_password_is_never_printed() {
        assert!(!format!("{:?}", sasl(Mechanism::Plain)).contains("secret"));
    }
}
