use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use kafka_protocol::messages::{
    ApiKey, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use sha2::{Digest, Sha256, Sha512};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::error::Retry;
use crate::kafka::{Error, Mechanism, Plaintext, Sasl};

fn sasl(mechanism: Mechanism) -> Options {
    let plaintext = Plaintext::Allow;
    let sasl = Sasl { mechanism, username: "alice".into(), password: "alice-secret".into(), plaintext };
    Options { sasl: Some(sasl), ..options() }
}

fn hmac<D: Digest>(block: usize, key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut key = key.to_vec();
    key.resize(block, 0);
    let pad = |byte: u8| key.iter().map(|k| k ^ byte).collect::<Vec<_>>();
    let inner = D::new().chain_update(pad(0x36)).chain_update(message).finalize();
    D::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

/// RFC 5802's server side, as Kafka has it.
struct Scram<D> {
    block: usize,
    iterations: u32,
    /// What the client sent first, and what was answered.
    first: Vec<(String, String)>,
    digest: std::marker::PhantomData<D>,
}

impl<D: Digest> Scram<D> {
    fn new(block: usize, iterations: u32) -> Self {
        Scram { block, iterations, first: Vec::new(), digest: std::marker::PhantomData }
    }

    /// The answer to a token; `Err` if the proof is wrong.
    fn answer(&mut self, token: &str) -> Result<String, ()> {
        let Some((bare, server_first)) = self.first.pop() else {
            let bare = token.strip_prefix("n,,").unwrap().to_string();
            let nonce = bare.split(",r=").nth(1).unwrap();
            let answer = format!("r={nonce}SERVER,s={},i={}", BASE64.encode("salt"), self.iterations);
            self.first.push((bare, answer.clone()));
            return Ok(answer);
        };
        let (without_proof, proof) = token.split_once(",p=").unwrap();
        let message = format!("{bare},{server_first},{without_proof}");
        let salted = self.salted(b"alice-secret");
        let client_key = hmac::<D>(self.block, &salted, b"Client Key");
        let signature = hmac::<D>(self.block, &D::digest(&client_key), message.as_bytes());
        let expected: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        if BASE64.decode(proof).unwrap() != expected {
            return Err(());
        }
        let server_key = hmac::<D>(self.block, &salted, b"Server Key");
        Ok(format!("v={}", BASE64.encode(hmac::<D>(self.block, &server_key, message.as_bytes()))))
    }

    fn salted(&self, password: &[u8]) -> Vec<u8> {
        let mut last = hmac::<D>(self.block, password, b"salt\0\0\0\x01");
        let mut sum = last.clone();
        for _ in 1..self.iterations {
            last = hmac::<D>(self.block, password, &last);
            sum.iter_mut().zip(&last).for_each(|(a, b)| *a ^= b);
        }
        sum
    }
}

fn handshake(asked: &Asked) -> Reply {
    let mechanisms = Mechanism::ALL.map(|mechanism| mechanism.name().to_string().into()).to_vec();
    asked.answer::<SaslHandshakeRequest>(&SaslHandshakeResponse::default().with_mechanisms(mechanisms))
}

fn refuse(asked: &Asked) -> Reply {
    let answer = SaslAuthenticateResponse::default()
        .with_error_code(58)
        .with_error_message(Some("invalid credentials".to_string().into()));
    asked.answer::<SaslAuthenticateRequest>(&answer)
}

/// A broker whose answers to tokens are `tokens`; `None` refuses.
fn broker(mut tokens: impl FnMut(&str) -> Option<String> + Send + 'static) -> Fake {
    Fake::start(move |asked| match asked.key {
        ApiKey::SaslHandshake => handshake(asked),
        ApiKey::SaslAuthenticate => {
            let token = asked.request::<SaslAuthenticateRequest>().auth_bytes;
            match tokens(std::str::from_utf8(&token).unwrap()) {
                None => refuse(asked),
                Some(answer) => {
                    let answer =
                        SaslAuthenticateResponse::default().with_auth_bytes(answer.into_bytes().into());
                    asked.answer::<SaslAuthenticateRequest>(&answer)
                }
            }
        }
        _ => serve(asked),
    })
}

fn scram<D: Digest + Send + 'static>(block: usize, iterations: u32) -> Fake {
    let mut server = Scram::<D>::new(block, iterations);
    broker(move |token| server.answer(token).ok())
}

#[test]
fn scram_logs_in_and_the_server_is_verified() {
    ask(&mut open(&scram::<Sha256>(64, 4096), sasl(Mechanism::ScramSha256)).unwrap()).unwrap();
    ask(&mut open(&scram::<Sha512>(128, 4096), sasl(Mechanism::ScramSha512)).unwrap()).unwrap();
}

#[track_caller]
fn refused(fake: &Fake, options: Options, expected: &str) {
    let error = open(fake, options).err().unwrap();
    assert_eq!(error.retry(), Retry::Permanent);
    assert!(matches!(error, Error::Authenticate { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(expected) && !text.contains("alice-secret"), "{text}");
}

#[test]
fn a_wrong_password_is_permanent_and_says_so() {
    let mut options = sasl(Mechanism::ScramSha256);
    options.sasl.as_mut().unwrap().password = "wrong".into();
    refused(&scram::<Sha256>(64, 4096), options, "SASL_AUTHENTICATION_FAILED (58)");
    refused(&broker(|_| None), sasl(Mechanism::Plain), "invalid credentials");
}

#[test]
fn a_server_that_does_not_know_the_password_is_refused() {
    // It says yes to everything, as a thief of connections would.
    let yes = |last: &'static str| {
        let mut server = Scram::<Sha256>::new(64, 4096);
        broker(move |token| {
            Some(if token.contains(",p=") { last.into() } else { server.answer(token).unwrap() })
        })
    };
    refused(&yes("v=AAAA"), sasl(Mechanism::ScramSha256), "mutual authentication");
    refused(&yes(""), sasl(Mechanism::ScramSha256), "did not prove");
    refused(&yes("e=other-error"), sasl(Mechanism::ScramSha256), "other-error");
}

#[test]
fn hours_of_iterations_are_refused() {
    let fake = broker(|token| {
        let nonce = token.split(",r=").nth(1).unwrap();
        Some(format!("r={nonce}SERVER,s=QUJD,i=2000000000"))
    });
    refused(&fake, sasl(Mechanism::ScramSha512), "2000000000 SCRAM iterations");
}

#[test]
fn a_mechanism_that_the_broker_does_not_have_names_those_it_has() {
    let fake = Fake::start(|asked| match asked.key {
        ApiKey::SaslHandshake => asked.answer::<SaslHandshakeRequest>(
            &SaslHandshakeResponse::default()
                .with_error_code(33)
                .with_mechanisms(vec!["GSSAPI".to_string().into(), "OAUTHBEARER".to_string().into()]),
        ),
        _ => serve(asked),
    });
    refused(&fake, sasl(Mechanism::ScramSha256), "it has GSSAPI, OAUTHBEARER");
}

#[test]
fn plain_without_tls_is_a_usage_error_unless_it_is_meant() {
    let fake = broker(|token| {
        assert_eq!(token, "\0alice\0alice-secret");
        Some(String::new())
    });
    let mut options = sasl(Mechanism::Plain);
    ask(&mut open(&fake, options.clone()).unwrap()).unwrap();
    options.sasl.as_mut().unwrap().plaintext = Plaintext::Refuse;
    let error = open(&fake, options).err().unwrap();
    assert!(error.to_string().contains("kafka.sasl.allow_plaintext"), "{error}");
    assert!(matches!(crate::Error::from(error), crate::Error::Usage(_)));
}

#[test]
fn a_login_that_is_about_to_expire_is_renewed_on_the_same_connection() {
    let logins = Arc::new(AtomicUsize::new(0));
    let seen = logins.clone();
    let fake = Fake::start(move |asked| match asked.key {
        ApiKey::SaslHandshake => handshake(asked),
        ApiKey::SaslAuthenticate => {
            // The first two logins last no time at all, the third for an hour.
            let lifetime = if seen.fetch_add(1, Ordering::SeqCst) < 2 { 1 } else { 3_600_000 };
            let answer = SaslAuthenticateResponse::default().with_session_lifetime_ms(lifetime);
            asked.answer::<SaslAuthenticateRequest>(&answer)
        }
        _ => serve(asked),
    });
    let mut connection = open(&fake, sasl(Mechanism::Plain)).unwrap();
    assert_eq!(logins.load(Ordering::SeqCst), 1);
    for expected in [2, 3, 3, 3] {
        ask(&mut connection).unwrap();
        assert_eq!(logins.load(Ordering::SeqCst), expected);
    }
}
