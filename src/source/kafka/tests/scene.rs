//! The source against a scripted broker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use kafka_protocol::messages::*;
use parking_lot::Mutex;

use super::{PLAIN, batch};
use crate::config::kafka::{From, OutOfRange, Until};
use crate::kafka::cluster::tests::{broker, cluster_with, coordinator, metadata, soon, topic};
use crate::kafka::cluster::{ClusterSettings, TopicPartition};
use crate::kafka::consumer::FetchSettings;
use crate::kafka::fake::{Asked, Fake, Reply, answer_versions};
use crate::kafka::group::{Change, Committed, GroupSettings, Remembered, Tenancy};
use crate::kafka::wire::Compression;
use crate::record::{Chunk, Payload};
use crate::source::kafka::fill::resume;
use crate::source::kafka::{KafkaOptions, KafkaSource};
use crate::source::{Forget, Read, Reader, Source, Start};
use crate::stop::Stop;

const TOPIC: &str = "t";
/// Far more than any of these tests takes.
const LONG: Duration = Duration::from_secs(20);

/// A broker that leads everything and coordinates all groups. Each partition has the records 0 to 3.
fn scene(partitions: &Arc<Mutex<usize>>) -> Fake {
    scene_with(partitions, fetch)
}

/// The same with other answers to who fetches.
fn scene_with(partitions: &Arc<Mutex<usize>>, fetch: fn(&Asked) -> Reply) -> Fake {
    let own = Arc::new(Mutex::new(None));
    let (at, partitions) = (own.clone(), partitions.clone());
    let fake = Fake::start(move |asked| {
        let at: Arc<crate::kafka::Address> = at.lock().clone().unwrap();
        match asked.key {
            ApiKey::ApiVersions => answer_versions(asked),
            ApiKey::Metadata => {
                let topics = vec![topic(TOPIC, 5, &vec![(1, 0); *partitions.lock()])];
                asked.answer::<MetadataRequest>(&metadata(vec![broker(1, &at)], topics))
            }
            ApiKey::FindCoordinator => coordinator(asked, &at),
            // It has nothing to say about any partition.
            ApiKey::OffsetFetch => {
                let group =
                    OffsetFetchResponseGroup::default().with_group_id(GroupId("g".to_string().into()));
                asked.answer::<OffsetFetchRequest>(&OffsetFetchResponse::default().with_groups(vec![group]))
            }
            ApiKey::ListOffsets => list(asked),
            _ => fetch(asked),
        }
    });
    *own.lock() = Some(fake.address.clone());
    fake
}

fn list(asked: &Asked) -> Reply {
    let request = asked.request::<ListOffsetsRequest>();
    let topics = request.topics.iter().map(|topic| {
        let rows = topic.partitions.iter().map(|one| {
            ListOffsetsPartitionResponse::default()
                .with_partition_index(one.partition_index)
                .with_offset(if one.timestamp == -2 { 0 } else { 3 })
        });
        ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(rows.collect())
    });
    asked.answer::<ListOffsetsRequest>(&ListOffsetsResponse::default().with_topics(topics.collect()))
}

/// All records were deleted.
fn fetch_deleted(asked: &Asked) -> Reply {
    fetch_with(asked, |offset, row| {
        row.with_log_start_offset(3).with_error_code(if offset < 3 { 1 } else { 0 })
    })
}

fn fetch(asked: &Asked) -> Reply {
    fetch_with(asked, |offset, row| {
        let records = (offset == 0).then(|| batch(0, 3, Compression::None, &PLAIN).into());
        row.with_log_start_offset(0).with_records(records)
    })
}

/// Of logs that end at 3; `more` is what is told of a partition beside that, by the offset that is asked for.
fn fetch_with(asked: &Asked, more: fn(i64, PartitionData) -> PartitionData) -> Reply {
    let request = asked.request::<FetchRequest>();
    let topics = request.topics.iter().map(|topic| {
        let rows = topic.partitions.iter().map(|one| {
            let row = PartitionData::default()
                .with_partition_index(one.partition)
                .with_high_watermark(3)
                .with_last_stable_offset(3);
            more(one.fetch_offset, row)
        });
        FetchableTopicResponse::default().with_topic_id(topic.topic_id).with_partitions(rows.collect())
    });
    let answer = FetchResponse::default().with_responses(topics.collect());
    // What a broker does while it has nothing.
    std::thread::sleep(Duration::from_millis(5));
    asked.answer::<FetchRequest>(&answer)
}

fn source(fake: &Fake, group: Option<GroupSettings>, until: Until) -> KafkaSource {
    source_with(fake, group, until, |_| {})
}

fn source_with(
    fake: &Fake,
    group: Option<GroupSettings>,
    until: Until,
    change: impl FnOnce(&mut KafkaOptions),
) -> KafkaSource {
    let settings = ClusterSettings { retry: soon(), metadata_age: Duration::from_millis(20) };
    let mut options = KafkaOptions {
        topics: vec![TOPIC.into()],
        group,
        from: From::Latest,
        until,
        on_out_of_range: OutOfRange::Error,
        fetch: FetchSettings::default(),
        payload: Payload::Json,
        max_record_bytes: 1 << 20,
        limit: None,
        plans: false,
    };
    change(&mut options);
    KafkaSource::new(cluster_with(&[&fake.address], settings), options).unwrap()
}

/// The readers of a run without a group, at the end of partition 0.
fn begun(fake: &Fake, until: Until, readers: usize) -> (KafkaSource, Vec<Box<dyn Reader>>) {
    let source = source(fake, None, until);
    let mut readers =
        source.open(&Start { marks: &Forget, readers, workers: 0, stop: &Stop::new() }).unwrap();
    assert_eq!(next(&mut readers), ("t:0 from".into(), 3));
    (source, readers)
}

/// What came next of any reader but idleness: which partition was assigned at which offset, or where a chunk ends.
fn next(readers: &mut [Box<dyn Reader>]) -> (String, u64) {
    next_into(readers, &mut Chunk::default())
}

fn next_into(readers: &mut [Box<dyn Reader>], chunk: &mut Chunk) -> (String, u64) {
    let deadline = Instant::now() + LONG;
    loop {
        assert!(Instant::now() < deadline, "nothing comes");
        for reader in &mut *readers {
            match reader.read(chunk).unwrap() {
                Read::Assigned(partition, mark) => {
                    return (format!("{} from", partition.identity().name), mark.unwrap().watermark);
                }
                Read::Chunk => {
                    return (chunk.partition.clone().unwrap().identity().name.clone(), chunk.end);
                }
                Read::Idle => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

fn after_idleness(reader: &mut Box<dyn Reader>, chunk: &mut Chunk) -> Read {
    let deadline = Instant::now() + LONG;
    loop {
        match reader.read(chunk).unwrap() {
            Read::Idle => assert!(Instant::now() < deadline, "nothing comes"),
            read => return read,
        }
    }
}

#[test]
fn partitions_that_are_added_are_read_from_their_beginning_without_a_group_too() {
    let partitions = Arc::new(Mutex::new(1));
    let fake = scene(&partitions);
    let (_source, mut readers) = begun(&fake, Until::Forever, 2);
    *partitions.lock() = 2;
    assert_eq!(next(&mut readers), ("t:1 from".into(), 0));
    assert_eq!(next(&mut readers), ("t:1".into(), 3));
}

#[test]
fn a_run_with_an_end_reads_the_partitions_that_were_there_when_it_began() {
    let partitions = Arc::new(Mutex::new(1));
    let fake = scene(&partitions);
    let (source, mut readers) = begun(&fake, Until::End, 1);
    *partitions.lock() = 2;
    source.reach().unwrap();
    let mut chunk = Chunk::default();
    assert!(matches!(readers[0].read(&mut chunk).unwrap(), Read::Ended(_)));
    let last = after_idleness(&mut readers[0], &mut chunk);
    assert!(matches!(last, Read::Done), "{last:?}");
}

/// Whoever waits until all is committed up to the end waits for this.
#[test]
fn a_gap_up_to_the_end_is_told() {
    let fake = scene_with(&Arc::new(Mutex::new(1)), fetch_deleted);
    let source = source_with(&fake, None, Until::End, |options| {
        (options.from, options.on_out_of_range) = (From::Earliest, OutOfRange::Latest);
    });
    let mut readers =
        source.open(&Start { marks: &Forget, readers: 1, workers: 0, stop: &Stop::new() }).unwrap();
    assert_eq!(next(&mut readers), ("t:0 from".into(), 0));
    let mut chunk = Chunk::default();
    assert_eq!(next_into(&mut readers, &mut chunk), ("t:0".into(), 3));
    // Whatever is planned to end in it goes on without the leader epoch of what stood before.
    assert_eq!(chunk.within, [(0, resume(-1))]);
}

/// What was read before is stored and committed: where it came from it is gone. The others are read to their ends; a run
/// without an end would go on without this one for months.
#[test]
fn a_partition_whose_rest_is_gone_fails_alone_and_ends_a_run_that_has_no_end() {
    for until in [Until::End, Until::Forever] {
        let fake = scene_with(&Arc::new(Mutex::new(1)), fetch_deleted);
        let source = source_with(&fake, None, until, |options| options.from = From::Earliest);
        let stop = Stop::new();
        let mut readers =
            source.open(&Start { marks: &Forget, readers: 1, workers: 0, stop: &stop }).unwrap();
        assert_eq!(next(&mut readers), ("t:0 from".into(), 0));
        let mut chunk = Chunk::default();
        match after_idleness(&mut readers[0], &mut chunk) {
            Read::Failed(partition, error) => {
                assert_eq!(partition.name(), "t:0");
                assert!(
                    error.to_string().contains("offset 0 is not there: the broker has 3 to 3"),
                    "{error}"
                );
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(stop.is_running(), until == Until::End);
        assert!(matches!(after_idleness(&mut readers[0], &mut chunk), Read::Done));
    }
}

/// Another member may have failed another partition, and would wait for this one to be committed to its end for ever.
#[test]
fn a_member_with_a_partition_that_failed_waits_for_no_other() {
    let fake = scene_with(&Arc::new(Mutex::new(2)), fetch_deleted);
    let group = GroupSettings::new("g", vec![TOPIC.into()]);
    let source = source(&fake, Some(group), Until::End);
    let mut readers =
        source.open(&Start { marks: &Forget, readers: 1, workers: 0, stop: &Stop::new() }).unwrap();
    let (shared, of) = (source.shared(), TopicPartition::new(TOPIC, 0));
    let committed = Some(Committed { offset: 0, leader_epoch: -1, metadata: Remembered::Absent });
    let tenancy = Tenancy { topic_id: shared.topic_id(&of), of, epoch: 1, committed };
    let mut change = Some(Change::Assigned(tenancy));
    shared.desk.pass_on(|| change.take(), |_| 0);
    assert_eq!(next(&mut readers), ("t:0 from".into(), 0));
    let mut chunk = Chunk::default();
    assert!(matches!(after_idleness(&mut readers[0], &mut chunk), Read::Failed(..)));
    assert!(matches!(after_idleness(&mut readers[0], &mut chunk), Read::Done));
}

#[test]
fn a_partition_that_a_coordinator_leaves_out_is_not_taken_for_one_without_a_commit() {
    let fake = scene(&Arc::new(Mutex::new(1)));
    let group = GroupSettings::new("g", vec![TOPIC.into()]);
    let source = source(&fake, Some(group), Until::End);
    let error = source.shared().is_committed(&[(TopicPartition::new(TOPIC, 0), 3)]).unwrap_err();
    let text = error.to_string();
    assert!(text.ends_with("left 1 partition out of its answer about offsets: t-0"), "{text}");
    assert!(error.is_transient());
}
