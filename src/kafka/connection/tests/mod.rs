//! Tests of a connection against a scripted broker.

mod ask;
mod fault;
mod login;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::{ApiKey, MetadataRequest, MetadataResponse, metadata_response};

use super::options::Options;
use crate::kafka::fake::{Asked, Fake, Reply, answer_versions};
use crate::kafka::{Connection, Hangup, Result};

fn options() -> Options {
    // Far more than any of these tests takes.
    let long = Duration::from_secs(20);
    Options { request_timeout: long, connect_timeout: long, ..Options::default() }
}

fn open(fake: &Fake, options: Options) -> Result<Connection> {
    Connection::open(&fake.address, &Arc::new(options), &Hangup::new())
}

fn metadata() -> MetadataResponse {
    let broker = metadata_response::MetadataResponseBroker::default().with_node_id(7.into());
    MetadataResponse::default().with_brokers(vec![broker])
}

/// Answers ApiVersions and Metadata.
fn serve(asked: &Asked) -> Reply {
    match asked.key {
        ApiKey::ApiVersions => answer_versions(asked),
        ApiKey::Metadata => asked.answer::<MetadataRequest>(&metadata()),
        key => panic!("unexpected {key:?}"),
    }
}

/// Asks for metadata and checks the answer.
fn ask(connection: &mut Connection) -> Result<()> {
    let answer = connection.call(&MetadataRequest::default())?;
    assert_eq!(answer.brokers[0].node_id, 7);
    Ok(())
}
