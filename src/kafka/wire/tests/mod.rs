//! Tests of the record batches: what is written is read, golden batches of Kafka's own, and hostile bytes.

mod rows;
mod batch;
mod hostile;
mod golden;
mod aborted;
mod frame;
