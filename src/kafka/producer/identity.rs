//! Who this producer is: InitProducerId (KIP-98), and the epoch that an idempotent producer raises by itself when
//! a broker has lost track of its numbers (KIP-360).

use std::time::Instant;

use kafka_protocol::messages::InitProducerIdRequest;

use super::Producer;
use super::desk::{Answer, Desk, usual};
use super::queue::ProducerId;
use crate::kafka::code::Code;
use crate::kafka::error::{Error, Result};

impl Producer {
    /// Makes sure that there is a producer id. Blocks until about `deadline`.
    pub(super) fn identify(&mut self, deadline: Instant) -> Result<()> {
        if self.producer.is_some() {
            return Ok(());
        }
        if self.transaction.is_some() {
            return self.identify_transactional(None, deadline);
        }
        let patience = self.patience(deadline);
        let request = |_| {
            InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(i32::MAX)
        };
        let found = Desk::any().ask(&patience, i16::MAX, request, |call, answer, _| {
            match usual(Code(answer.error_code)) {
                Some(answer) => answer,
                None if answer.error_code == 0 => {
                    Answer::Done(ProducerId { id: answer.producer_id.0, epoch: answer.producer_epoch })
                }
                None => Answer::Failed(Error::Refused { call, code: Code(answer.error_code) }),
            }
        })?;
        log::debug!("producer id {} with epoch {}", found.id, found.epoch);
        self.producer = Some(found);
        Ok(())
    }

    /// From now on batches that have no number yet are numbered from 0 under another epoch. Nobody has to be
    /// asked: only this producer uses its id. When epochs run out there is a new id.
    pub(super) fn bump(&mut self) {
        self.producer = self
            .producer
            .and_then(|now| Some(ProducerId { epoch: now.epoch.checked_add(1)?, ..now }))
            .filter(|next| next.epoch < i16::MAX);
    }
}
