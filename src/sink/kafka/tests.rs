//! Sinks against a small cluster in this process.

use std::sync::atomic::{AtomicI32, Ordering};

use kafka_protocol::messages::{
    ApiKey, TxnOffsetCommitRequest, TxnOffsetCommitResponse, txn_offset_commit_response as committed,
};

use super::*;
use crate::batch::{BatchId, Body, Counts, Piece};
use crate::cut::Close;
use crate::kafka::TopicPartition;
use crate::kafka::fake::Reply;
use crate::kafka::group::state::Fetched;
use crate::kafka::group::{GroupSettings, Remembered};
use crate::kafka::producer::Transactional;
use crate::kafka::producer::tests::world::{TOPIC, World, refuse};
use crate::kafka::producer::tests::{cluster, settings, wait};
use crate::outgoing::{Outgoing, put};
use crate::record::{Identity as PartitionIdentity, Partition};

/// A batch of partition `in:number` with these values, that ends at `end`.
fn batch(number: i32, epoch: u64, end: u64, values: &[&str]) -> Batch {
    let partition = Partition::new(PartitionIdentity {
        source: "kafka",
        name: format!("in:{number}"),
        epoch,
        ..PartitionIdentity::default()
    });
    let count = values.len() as u64;
    let counts = Counts { read: count, stored: count, ..Counts::default() };
    Batch {
        id: BatchId { partition, start: end - count, first_time: 0, opened_at: 1_000 },
        end,
        line: 0,
        resume: None,
        counts,
        close: Close::Open,
        stored: body(values),
        failed: Body::default(),
    }
}

fn body(values: &[&str]) -> Body {
    let mut bytes = Vec::new();
    for value in values {
        put(&mut bytes, &Outgoing { key: Some(b"k"), value: Some(value.as_bytes()), ..Outgoing::default() });
    }
    let mut body = Body::default();
    if !bytes.is_empty() {
        body.push(Piece::owned(bytes));
    }
    body
}

/// A member whose generation and partitions the test sets.
struct Member {
    /// What the sink has told, with the generation of then.
    told: Mutex<Vec<(&'static str, i64)>>,
    generation: AtomicI32,
    /// The epoch below which partitions are lost.
    lost_below: AtomicI32,
}

impl Member {
    fn new() -> Arc<Self> {
        let told = Mutex::default();
        Arc::new(Member { told, generation: AtomicI32::new(1), lost_below: AtomicI32::new(0) })
    }
}

impl Membership for Member {
    fn identity(&self) -> Option<Identity> {
        let generation = self.generation.load(Ordering::SeqCst);
        let (group, member) = ("g".to_string(), "me".to_string());
        (generation >= 0).then_some(Identity { group, generation, member, instance: None })
    }

    fn is_owned(&self, _: &TopicPartition, epoch: u64) -> bool {
        epoch >= self.lost_below.load(Ordering::SeqCst) as u64
    }

    fn metadata(&self, of: &TopicPartition, epoch: u64, offset: i64) -> Option<String> {
        self.is_owned(of, epoch).then(|| format!("at {offset}"))
    }

    fn sending(&self, commit: &Sent) {
        self.told.lock().push(("sending", commit.offset.offset));
    }

    fn stored(&self, commit: &Sent) {
        self.told.lock().push(("stored", commit.offset.offset));
    }

    fn doubt(&self, _: &str) {
        self.told.lock().push(("doubt", 0));
        self.lost_below.store(i32::MAX, Ordering::SeqCst);
    }
}

fn long() -> Duration {
    Duration::from_secs(20)
}

/// A time that is waited to its end; what works must be done within it on a busy machine, too.
fn short() -> Duration {
    Duration::from_secs(2)
}

fn transactional(delivery: Duration) -> ProducerSettings {
    let of = Transactional { id: "mover".into(), timeout: Duration::from_secs(60) };
    ProducerSettings { transactional: Some(of), delivery_timeout: delivery, ..settings() }
}

fn plain(world: &World, settings: ProducerSettings) -> KafkaSink {
    KafkaSink::prepare(cluster(world, long()), TOPIC, settings, None).unwrap()
}

fn exact(world: &World, member: &Arc<Member>, delivery: Duration) -> KafkaSink {
    KafkaSink::with(
        cluster(world, long()),
        TOPIC,
        transactional(delivery),
        Some(member.clone()),
        Whose::Anyones,
    )
    .unwrap()
}

fn offset(world: &World, partition: i32) -> Option<(i64, String)> {
    world.with(|state| state.offsets.get(&("in".to_string(), partition)).cloned())
}

fn ends(receipts: &[Receipt]) -> Vec<(String, u64)> {
    receipts.iter().map(|receipt| (receipt.id.partition.name().to_string(), receipt.end)).collect()
}

#[test]
fn the_shape_says_who_commits() {
    let world = World::start(1, &[1], |_, _, _| None);
    let shape = plain(&world, settings()).shape();
    assert_eq!((shape.commits, shape.records, shape.writers, shape.part), (Commits::Engine, true, 1, None));
    assert_eq!(exact(&world, &Member::new(), long()).shape().commits, Commits::Sink);
    let offsets_alone =
        KafkaSink::with(cluster(&world, long()), TOPIC, settings(), Some(Member::new()), Whose::Mine)
            .err()
            .unwrap();
    assert_eq!(offsets_alone.exit_code(), 2);
}

#[test]
fn a_missing_topic_is_permanent_and_named() {
    let world = World::start(1, &[1], |_, _, _| None);
    let soon = ProducerSettings { topic_timeout: Duration::from_millis(50), ..settings() };
    let error = KafkaSink::prepare(cluster(&world, long()), "nowhere", soon, None).err().unwrap();
    assert_eq!(error.exit_code(), 4);
    assert!(error.to_string().contains("topic nowhere does not exist"), "{error}");
}

#[test]
fn batches_are_stored_in_order_with_receipts() {
    let world = World::start(1, &[1], |_, _, _| None);
    let sink = plain(&world, settings());
    let mut receipts = Vec::new();
    let batches = [batch(0, 1, 2, &["a", "b"]), batch(0, 1, 3, &["c"]), batch(1, 1, 9, &[])];
    sink.store(&batches, &mut receipts).unwrap();
    assert_eq!(world.values(0), ["a", "b", "c"]);
    assert_eq!(ends(&receipts), [("in:0".into(), 2), ("in:0".into(), 3), ("in:1".into(), 9)]);
    assert_eq!(receipts[0].key.as_deref(), Some("kafka:out"));
    assert_eq!(receipts[2].key, None);
}

#[test]
fn a_store_that_is_tried_again_goes_on_and_stores_once() {
    let deaf = Arc::new(AtomicI32::new(1));
    let now = deaf.clone();
    let world = World::start(1, &[1], move |state, node, asked| {
        (asked.key == ApiKey::Produce && now.load(Ordering::SeqCst) == 1).then(|| {
            state.serve(node, asked);
            Reply::Cut
        })
    });
    let sink = plain(&world, ProducerSettings { delivery_timeout: short(), ..settings() });
    let (batches, mut receipts) = ([batch(0, 1, 2, &["a", "b"])], Vec::new());
    let error = sink.store(&batches, &mut receipts).unwrap_err();
    assert!(error.is_transient() && receipts.is_empty(), "{error}");
    deaf.store(0, Ordering::SeqCst);
    sink.store(&batches, &mut receipts).unwrap();
    assert_eq!((world.values(0), receipts.len()), (vec!["a".into(), "b".into()], 1));
    // What comes next is another delivery.
    sink.store(&[batch(0, 1, 3, &["c"])], &mut receipts).unwrap();
    assert_eq!(world.values(0), ["a", "b", "c"]);
}

#[test]
fn a_transaction_holds_the_ends_of_all_partitions() {
    let world = World::start(1, &[1], |_, _, _| None);
    let sink = exact(&world, &Member::new(), long());
    let mut receipts = Vec::new();
    let batches = [batch(0, 1, 2, &["a", "b"]), batch(1, 1, 7, &["x"]), batch(0, 1, 3, &["c"])];
    sink.store(&batches, &mut receipts).unwrap();
    assert_eq!(world.values(0), ["a", "b", "x", "c"]);
    assert_eq!(offset(&world, 0), Some((3, "at 3".into())));
    assert_eq!(offset(&world, 1), Some((7, "at 7".into())));
    assert_eq!(receipts.len(), 3);
    assert_eq!(world.calls(ApiKey::EndTxn).len(), 1);
    // A range without records moves the offset.
    sink.store(&[batch(0, 1, 10, &[])], &mut receipts).unwrap();
    assert_eq!(offset(&world, 0), Some((10, "at 10".into())));
}

/// Refuses the offsets of generation 1.
fn refusing(member: &Arc<Member>, lost_below: i32) -> World {
    let member = member.clone();
    World::start(1, &[1], move |_, _, asked| {
        if asked.key != ApiKey::TxnOffsetCommit {
            return None;
        }
        let request = asked.request::<TxnOffsetCommitRequest>();
        (request.generation_id == 1).then(|| {
            member.lost_below.store(lost_below, Ordering::SeqCst);
            member.generation.store(2, Ordering::SeqCst);
            let partition = committed::TxnOffsetCommitResponsePartition::default().with_error_code(22);
            let topic = committed::TxnOffsetCommitResponseTopic::default().with_partitions(vec![partition]);
            asked.answer::<TxnOffsetCommitRequest>(
                &TxnOffsetCommitResponse::default().with_topics(vec![topic]),
            )
        })
    })
}

#[test]
fn what_is_lost_is_left_out_of_the_next_try() {
    let member = Member::new();
    let world = refusing(&member, 5);
    let sink = exact(&world, &member, long());
    let mut receipts = Vec::new();
    let batches = [batch(0, 5, 2, &["a", "b"]), batch(1, 4, 7, &["lost"]), batch(0, 5, 3, &["c"])];
    sink.store(&batches, &mut receipts).unwrap();
    assert_eq!(world.values(0), ["a", "b", "c"]);
    assert_eq!(ends(&receipts), [("in:0".into(), 2), ("in:0".into(), 3)]);
    assert_eq!((offset(&world, 0), offset(&world, 1)), (Some((3, "at 3".into())), None));
}

#[test]
fn where_all_is_lost_nothing_is_stored() {
    let member = Member::new();
    let world = refusing(&member, 9);
    let sink = exact(&world, &member, long());
    let mut receipts = Vec::new();
    sink.store(&[batch(0, 5, 2, &["a", "b"])], &mut receipts).unwrap();
    assert!(world.values(0).is_empty() && receipts.is_empty());
    // Nothing is begun for what is known to be lost.
    let begun = world.calls(ApiKey::Produce).len();
    sink.store(&[batch(0, 5, 2, &["a", "b"])], &mut receipts).unwrap();
    assert_eq!(world.calls(ApiKey::Produce).len(), begun);
}

#[test]
fn a_generation_is_waited_for() {
    let member = Member::new();
    member.generation.store(-1, Ordering::SeqCst);
    let world = World::start(1, &[1], |_, _, _| None);
    let sink = exact(&world, &member, short());
    let mut receipts = Vec::new();
    let error = sink.store(&[batch(0, 1, 1, &["a"])], &mut receipts).unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("no generation"), "{error}");
    member.generation.store(3, Ordering::SeqCst);
    sink.store(&[batch(0, 1, 1, &["a"])], &mut receipts).unwrap();
    assert_eq!(world.values(0), ["a"]);
}

#[test]
fn a_commit_that_may_count_is_not_done_again() {
    let deaf = Arc::new(AtomicI32::new(1));
    let now = deaf.clone();
    let world = World::start(1, &[1], move |state, node, asked| {
        (asked.key == ApiKey::EndTxn && now.load(Ordering::SeqCst) == 1).then(|| {
            state.serve(node, asked);
            Reply::Cut
        })
    });
    let sink = exact(&world, &Member::new(), short());
    let (batches, mut receipts) = ([batch(0, 1, 2, &["a", "b"])], Vec::new());
    let error = sink.store(&batches, &mut receipts).unwrap_err();
    assert!(error.is_transient() && receipts.is_empty(), "{error}");
    deaf.store(0, Ordering::SeqCst);
    sink.store(&batches, &mut receipts).unwrap();
    assert_eq!((world.values(0), receipts.len()), (vec!["a".into(), "b".into()], 1));
}

#[test]
fn a_transaction_that_failed_is_aborted_and_done_again() {
    let mut first = true;
    let world = World::start(1, &[1], move |_, _, asked| {
        (asked.key == ApiKey::Produce && std::mem::take(&mut first)).then(|| refuse(asked, 120))
    });
    let sink = exact(&world, &Member::new(), long());
    let (batches, mut receipts) = ([batch(0, 1, 2, &["a", "b"])], Vec::new());
    assert!(sink.store(&batches, &mut receipts).unwrap_err().is_transient());
    sink.store(&batches, &mut receipts).unwrap();
    assert_eq!((world.values(0), receipts.len()), (vec!["a".into(), "b".into()], 1));
}

/// Fences the first EndTxn, as after the transaction's timeout or by another producer.
fn fenced_after(timeout: Duration, whose: Whose) -> (World, Result<()>, Result<()>) {
    fenced(timeout, Some(Member::new()), whose)
}

fn fenced(timeout: Duration, member: Option<Arc<Member>>, whose: Whose) -> (World, Result<()>, Result<()>) {
    let mut first = true;
    let world = World::start(1, &[1], move |_, _, asked| {
        (asked.key == ApiKey::EndTxn && std::mem::take(&mut first)).then(|| {
            let answer = kafka_protocol::messages::EndTxnResponse::default().with_error_code(90);
            asked.answer::<kafka_protocol::messages::EndTxnRequest>(&answer)
        })
    });
    let mut settings = transactional(long());
    settings.transactional = Some(Transactional { id: "mover".into(), timeout });
    let group = member.map(|member| member as Arc<dyn Membership>);
    let sink = KafkaSink::with(cluster(&world, long()), TOPIC, settings, group, whose).unwrap();
    let batches = [batch(0, 1, 2, &["a", "b"])];
    let outcomes = [(), ()].map(|()| sink.store(&batches, &mut Vec::new()));
    let [one, other] = outcomes;
    (world, one, other)
}

#[test]
fn a_transaction_that_took_too_long_is_done_again() {
    let (world, one, other) = fenced_after(Duration::ZERO, Whose::Anyones);
    assert!(one.unwrap_err().is_transient());
    other.unwrap();
    assert_eq!(
        (world.values(0), offset(&world, 0)),
        (vec!["a".into(), "b".into()], Some((2, "at 2".into())))
    );
}

/// Nobody else uses this id: it was ended for others that waited for it.
#[test]
fn a_transaction_that_was_ended_by_the_group_is_done_again() {
    let (world, one, other) = fenced_after(Duration::from_secs(60), Whose::Mine);
    assert!(one.unwrap_err().is_transient());
    other.unwrap();
    assert_eq!(world.values(0), ["a", "b"]);
}

/// The first EndTxn is done, but its answer is lost, or the coordinator says that it could not; then the id is fenced.
#[test]
fn what_was_fenced_while_it_was_committed_is_doubted() {
    for first in [None, Some(15), Some(16)] {
        let mut tries = 0;
        let world = World::start(1, &[1], move |state, node, asked| {
            if asked.key != ApiKey::EndTxn {
                return None;
            }
            tries += 1;
            let code = if tries > 1 { Some(90) } else { first };
            if tries == 1 {
                state.serve(node, asked);
            }
            let Some(code) = code else { return Some(Reply::Cut) };
            let answer = kafka_protocol::messages::EndTxnResponse::default().with_error_code(code);
            Some(asked.answer::<kafka_protocol::messages::EndTxnRequest>(&answer))
        });
        let (member, settings) = (Member::new(), transactional(long()));
        let group: Arc<dyn Membership> = member.clone();
        let sink =
            KafkaSink::with(cluster(&world, long()), TOPIC, settings, Some(group), Whose::Mine).unwrap();
        let (batches, mut receipts) = ([batch(0, 1, 2, &["a", "b"])], Vec::new());
        assert!(sink.store(&batches, &mut receipts).unwrap_err().is_transient(), "{first:?}");
        assert_eq!(*member.told.lock(), [("sending", 2), ("doubt", 0)], "{first:?}");
        // It is lost now, and not stored again: the group tells where to go on.
        sink.store(&batches, &mut receipts).unwrap();
        assert_eq!((world.values(0), receipts.len()), (vec!["a".into(), "b".into()], 0));
    }
}

/// Its offset would count for the topic that has its name now, whose first records nobody would read.
#[test]
fn offsets_name_the_topic_that_was_assigned() {
    let world = World::start(1, &[1], |_, _, _| None);
    let cluster = cluster(&world, long());
    let group = Group::new(cluster.clone(), GroupSettings::new("g", vec![TOPIC.into()]));
    let (of, topic_id) = (TopicPartition::new(TOPIC, 0), uuid::Uuid::from_u128(7));
    let fetched = Fetched { topic_id, stored: None, committed: None };
    {
        let mut state = group.state();
        state.set_member("me");
        state.settle(1, std::slice::from_ref(&of), [(of.clone(), fetched)].into());
    }
    let sink = KafkaSink::prepare(cluster.clone(), TOPIC, transactional(long()), Some(group)).unwrap();
    assert_ne!(cluster.topic(TOPIC).unwrap().id, topic_id, "it was created anew");
    let mut batch = batch(0, 1, 2, &["a", "b"]);
    let name = format!("{TOPIC}:0");
    batch.id.partition =
        Partition::new(PartitionIdentity { source: "kafka", name, epoch: 1, ..PartitionIdentity::default() });
    sink.store(&[batch], &mut Vec::new()).unwrap();
    let (offset, text) = world.with(|state| state.offsets[&(TOPIC.to_string(), 0)].clone());
    match Remembered::read(Some(&text), offset) {
        Remembered::Ours(metadata) => assert_eq!(metadata.topic_id, topic_id),
        other => panic!("{other}"),
    }
}

#[test]
fn the_group_hears_of_offsets_before_and_after() {
    let member = Member::new();
    let world = refusing(&member, 0);
    let sink = exact(&world, &member, long());
    sink.store(&[batch(0, 1, 2, &["a", "b"]), batch(0, 1, 3, &["c"])], &mut Vec::new()).unwrap();
    // The first try is refused: a generation forgets what was told in the one before.
    assert_eq!(*member.told.lock(), [("sending", 3), ("sending", 3), ("stored", 3)]);
}

/// Files have no group: nobody can tell whether brokers were away for longer than the timeout, or whether somebody took
/// over and stored what this process has. Either way it stores nothing more.
#[test]
fn a_transaction_without_a_group_that_took_too_long_ends_a_run_that_can_be_run_again() {
    for (timeout, code) in [(Duration::ZERO, 1), (Duration::from_secs(60), 4)] {
        let (world, one, other) = fenced(timeout, None, Whose::Anyones);
        for error in [one, other].map(Result::unwrap_err) {
            assert!(!error.is_transient(), "{error}");
            assert_eq!(error.exit_code(), code, "{error}");
        }
        assert!(world.values(0).is_empty());
    }
}

/// The first answer to its end is lost, the next says that there is no such transaction.
#[test]
fn a_transaction_that_took_too_long_and_may_count_ends_a_run_without_a_group_that_can_be_run_again() {
    for (timeout, code) in [(Duration::ZERO, 1), (Duration::from_secs(60), 4)] {
        let mut tries = 0;
        let world = World::start(1, &[1], move |_, _, asked| {
            (asked.key == ApiKey::EndTxn).then(|| {
                tries += 1;
                let answer = kafka_protocol::messages::EndTxnResponse::default().with_error_code(48);
                match tries {
                    1 => Reply::Cut,
                    _ => asked.answer::<kafka_protocol::messages::EndTxnRequest>(&answer),
                }
            })
        });
        let mut settings = transactional(long());
        settings.transactional = Some(Transactional { id: "mover".into(), timeout });
        let sink = plain(&world, settings);
        let mut receipts = Vec::new();
        let error = sink.store(&[batch(0, 1, 2, &["a", "b"])], &mut receipts).unwrap_err();
        assert!(!error.is_transient() && receipts.is_empty(), "{error}");
        assert_eq!(error.exit_code(), code, "{error}");
    }
}

#[test]
fn a_transactional_id_that_was_taken_over_is_left_to_the_other() {
    let (world, one, other) = fenced_after(Duration::from_secs(60), Whose::Anyones);
    for error in [one.unwrap_err(), other.unwrap_err()] {
        assert!(!error.is_transient() && error.to_string().contains("took over"), "{error}");
    }
    assert!(world.values(0).is_empty());
}

#[test]
fn a_stop_ends_the_wait_for_a_generation() {
    let member = Member::new();
    member.generation.store(-1, Ordering::SeqCst);
    let world = World::start(1, &[1], |_, _, _| None);
    let sink = exact(&world, &member, long());
    let stop = sink.cluster.stop().clone();
    std::thread::scope(|scope| {
        let storing = scope.spawn(|| sink.store(&[batch(0, 1, 1, &["a"])], &mut Vec::new()));
        stop.abort();
        assert!(matches!(storing.join().unwrap(), Err(Error::Stopped)));
    });
    wait("nothing was begun", || world.calls(ApiKey::Produce).is_empty());
}

/// A main sink that keeps what it is given, and fails so many times before or after it.
#[derive(Default)]
struct Main {
    fails: AtomicI32,
    stored: Mutex<Vec<(u64, u64)>>,
}

impl Sink for &Main {
    fn store(&self, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
        if self.fails.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Err(Error::other("main", Retry::Transient, "not now"));
        }
        for batch in batches {
            self.stored.lock().push((batch.id.start, batch.failed.len()));
            receipts.push(Receipt::of(batch, Some(format!("object{}", batch.end)), None));
        }
        Ok(())
    }
}

fn with_letter(mut batch: Batch, letter: &str) -> Batch {
    batch.failed = body(&[letter]);
    batch.counts.rejected = 1;
    batch
}

#[test]
fn letters_go_to_their_topic_before_the_rest_and_once() {
    let world = World::start(1, &[1], |_, _, _| None);
    let main = Main { fails: AtomicI32::new(1), ..Main::default() };
    let sink = WithLetterTopic::prepare(&main, cluster(&world, long()), TOPIC, settings()).unwrap();
    let shape = sink.shape();
    assert_eq!((shape.dead_letters, shape.letter_records), (DeadLetters::Store, true));
    let batches = [batch(0, 1, 1, &["a"]), with_letter(batch(0, 1, 2, &["b"]), "bad")];
    let (letter, mut receipts) = (batches[1].failed.len(), Vec::new());
    assert!(sink.store(&batches, &mut receipts).is_err());
    // The main sink has failed, but the letter is there.
    assert_eq!(world.values(0), ["bad"]);
    sink.store(&batches, &mut receipts).unwrap();
    assert_eq!(world.values(0), ["bad"]);
    assert_eq!(*main.stored.lock(), [(0, 0), (1, 0)]);
    assert_eq!(receipts[0].failed_key, None);
    assert_eq!(receipts[1].failed_key.as_deref(), Some("kafka:out"));
    assert_eq!(receipts[1].bytes, batches[1].stored.len() + letter);
}

#[test]
fn each_published_batch_is_told_of_once() {
    let mut first = true;
    let world = World::start(1, &[1], move |state, node, asked| {
        (asked.key == ApiKey::Produce && std::mem::take(&mut first)).then(|| {
            state.serve(node, asked);
            refuse(asked, 14)
        })
    });
    let main = Main::default();
    let sink = Notifying::prepare(&main, cluster(&world, long()), TOPIC, settings()).unwrap();
    let mut receipts = Vec::new();
    let batches = [batch(0, 1, 2, &["a", "b"]), batch(0, 1, 5, &[]), batch(3, 1, 9, &["c"])];
    sink.store(&batches, &mut receipts).unwrap();
    assert_eq!(receipts.len(), 3);
    let told = world.values(0);
    assert_eq!(told.len(), 2);
    let note: serde_json::Value = serde_json::from_str(&told[0]).unwrap();
    assert_eq!(note["batch_id"], "kafka:in:0:0");
    assert_eq!((&note["partition"], &note["start"], &note["end"]), (&"in:0".into(), &0.into(), &2.into()));
    assert_eq!((&note["key"], &note["failed_key"]), (&"object2".into(), &serde_json::Value::Null));
    assert_eq!((&note["read"], &note["stored"], &note["rejected"]), (&2.into(), &2.into(), &0.into()));
    assert_eq!(note["opened_at"], "1970-01-01T00:00:01Z");
    assert!(note["published_at"].as_str().unwrap().ends_with('Z'));
    let keys = world.with(|state| state.rows(0));
    assert_eq!(keys[1].key.as_deref(), Some(&b"in:3"[..]));
}

#[test]
fn a_notification_that_failed_does_not_publish_again() {
    let deaf = Arc::new(AtomicI32::new(1));
    let now = deaf.clone();
    let world = World::start(1, &[1], move |state, node, asked| {
        (asked.key == ApiKey::Produce && now.load(Ordering::SeqCst) == 1).then(|| {
            state.serve(node, asked);
            Reply::Cut
        })
    });
    let main = Main::default();
    let short = ProducerSettings { delivery_timeout: short(), ..settings() };
    let sink = Notifying::prepare(&main, cluster(&world, long()), TOPIC, short).unwrap();
    let (batches, mut receipts) = ([batch(0, 1, 2, &["a", "b"]), batch(0, 1, 3, &["c"])], Vec::new());
    let error = sink.store(&batches, &mut receipts).unwrap_err();
    assert!(error.is_transient() && receipts.is_empty(), "{error}");
    deaf.store(0, Ordering::SeqCst);
    sink.store(&batches, &mut receipts).unwrap();
    assert_eq!((receipts.len(), main.stored.lock().len(), world.values(0).len()), (2, 2, 2));
}
