//! Names: fixed ones, and what must hold for all of them.

use super::*;
use crate::record::Identity;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

fn file(name: &str, start: u64) -> BatchId {
    let identity = Identity { source: "file", name: name.into(), ..Identity::default() };
    BatchId { partition: Partition::new(identity), start, first_time: 0, opened_at: 0 }
}

#[track_caller]
fn check(name: &str, directory: &str) {
    let namer = Namer::new("", Codec::None);
    assert_eq!(namer.directory(Stream::Stored, "file", name), format!("processed/{directory}"));
}

#[test]
fn plain_paths_stand_as_they_are() {
    check("data1.json", "data1.json");
    check("a/dt=2026-11-23/b_c.json.gz", "a/dt=2026-11-23/b_c.json.gz");
    check("/var/log/x", "var/log/x");
    check("events-20261123", "events-20261123");
}

#[test]
fn other_characters_are_marked() {
    check("my file.json", "my_file.json--c635e7ca");
    check("../x", "__--5ec1f7e7/x");
    check("a//b", "a/_--e3b0c442/b");
    // What is hidden is passed over where the output is read again.
    check("a/.cache/.x", "a/_cache--f45810ed/_x--bb42e4c6");
    check("", "_--e3b0c442");
}

#[test]
fn names_have_prefix_start_and_extension() {
    let id = file("data1.json", 1234);
    let namer = Namer::new("jobs/7", Codec::Gzip(1));
    assert_eq!(namer.stored(&id), "jobs/7/processed/data1.json/00000000000000001234.ndjson.gz");
    assert_eq!(namer.failed(&id), "jobs/7/failed/data1.json/00000000000000001234.ndjson.gz");
    let largest = Namer::new("", Codec::Zstd(1)).stored(&file("x", u64::MAX));
    assert_eq!(largest, "processed/x/18446744073709551615.ndjson.zst");
}

#[test]
fn other_sources_have_their_kind_in_front() {
    let namer = Namer::new("", Codec::None);
    let id = BatchId { partition: Partition::named("memory", "x y"), start: 0, first_time: 0, opened_at: 0 };
    assert!(namer.stored(&id).starts_with("processed/memory/x_y--"));
}

#[test]
fn what_looks_marked_or_like_an_object_is_marked() {
    let namer = Namer::new("", Codec::None);
    let once = namer.directory(Stream::Stored, "file", "a b");
    let name = once.strip_prefix("processed/").unwrap();
    assert_ne!(namer.directory(Stream::Stored, "file", name), once);
    let object = "00000000000000000000.ndjson.gz";
    assert!(is_object(object));
    assert!(!is_object("0000000000000000000.ndjson"));
    assert!(!is_object("00000000000000000000.ndjson.bak"));
    assert!(!is_object("é0000000000000000000.ndjson"));
    assert_ne!(namer.directory(Stream::Stored, "file", object), format!("processed/{object}"));
}

#[test]
fn each_pass_over_an_endpoint_has_a_place_of_its_own() {
    let name = "api.example.com/v1/items".to_owned();
    let identity = Identity { source: "http", name, cycle: Some(3), ..Identity::default() };
    let partition = Partition::new(identity);
    let id = BatchId { partition, start: 7 << 32 | 5, first_time: 0, opened_at: 0 };
    let stored = Namer::new("p", Codec::None).stored(&id);
    assert_eq!(stored, "p/processed/api.example.com/v1/items/3/00000000030064771077.ndjson");
    let port = Namer::new("", Codec::None).directory(Stream::Stored, "http", "127.0.0.1:80/a");
    assert!(port.starts_with("processed/127.0.0.1_80--") && port.ends_with("/a"), "{port}");
}

#[test]
fn a_clash_is_found() {
    let namer = Namer::new("", Codec::None);
    assert_eq!(namer.clash("file", ["/a", "b", "a"]), Some(("/a", "a")));
    assert_eq!(namer.clash("file", ["/a", "b", "c"]), None);
}

fn topic(topic: &str, partition: i32, start: u64, first_time: i64) -> BatchId {
    let topic = TopicPart { topic: topic.to_owned(), partition, id: 0x0a1b_2c3d };
    let identity =
        Identity { source: "kafka", name: "t:0".into(), topic: Some(topic), ..Identity::default() };
    BatchId { partition: Partition::new(identity), start, first_time, opened_at: 0 }
}

#[test]
fn batches_of_topics_stand_by_the_hour_of_their_first_record() {
    let namer = Namer::new("jobs", Codec::Gzip(1));
    let id = topic("data-input", 3, 42, 1_795_435_200_999);
    let name = "2026/11/23/12/data-input-3-0a1b2c3d-00000000000000000042.ndjson.gz";
    assert_eq!(namer.stored(&id), format!("jobs/processed/{name}"));
    assert_eq!(namer.failed(&id), format!("jobs/failed/{name}"));
}

#[test]
fn every_time_has_an_hour() {
    for (time, expected) in [
        (0, "1970/01/01/00"),
        (-1, "1970/01/01/00"),
        (i64::MIN, "1970/01/01/00"),
        (3_599_999, "1970/01/01/00"),
        (3_600_000, "1970/01/01/01"),
        (i64::MAX, "9999/12/30/22"),
    ] {
        assert_eq!(date(time, "%Y/%m/%d/%H"), expected, "{time}");
    }
}

#[test]
fn long_and_odd_topics_are_marked() {
    let namer = Namer::new("", Codec::Zstd(1));
    let last = |name: &str, partition: i32| {
        let name = namer.stored(&topic(name, partition, u64::MAX, 0));
        name.rsplit_once('/').map(|(_, last)| last.to_owned()).unwrap_or_default()
    };
    let long = "t".repeat(249);
    assert!(last(&long, 0).len() <= SEGMENT && last(&long, 0).starts_with("ttt"), "{}", last(&long, 0));
    assert_ne!(last(&long, 0), last(&long, 1));
    assert!(last("../x", 0).starts_with("___x-0-0a1b2c3d--"), "{}", last("../x", 0));
    assert!(last("a b", 0).starts_with("a_b-0-") && last("a b", 0).chars().all(is_allowed));
    assert_ne!(last("a_b", 0), last("a b", 0));
}

fn templated(text: &str, codec: Codec) -> Namer {
    Namer::new("jobs", codec).with_template(Some(Template::parse(text).unwrap()))
}

#[test]
fn a_template_names_batches_of_topics() {
    let check = |text: &str, expected: &str| {
        let id = topic("data-input", 3, 42, 1_795_435_200_999);
        assert_eq!(
            templated(text, Codec::Gzip(1)).stored(&id),
            format!("jobs/processed/{expected}.ndjson.gz")
        );
        assert_eq!(templated(text, Codec::Gzip(1)).failed(&id), format!("jobs/failed/{expected}.ndjson.gz"));
    };
    let last = "data-input-3-0a1b2c3d-00000000000000000042";
    check("hive", &format!("dt=2026-11-23/hour=12/{last}"));
    check("x={topic}/", &format!("x=data-input/{last}"));
    check("{topic}-{partition}-{topic_id}-{start}", last);
    check(
        "{source}/{year}{month}/{day}-{minute}/{partition}={topic}/{topic_id}_{start}",
        "kafka/202611/23-00/3=data-input/0a1b2c3d_00000000000000000042",
    );
}

#[test]
fn a_template_names_batches_of_files_and_knows_them_again() {
    let check = |text: &str, expected: &str| {
        let namer = templated(text, Codec::Zstd(1));
        let name = namer.stored(&file("in/a b.json", 7));
        assert_eq!(name, format!("jobs/processed/{expected}.ndjson.zst"));
        let (dir, last) = name.rsplit_once('/').unwrap();
        assert_eq!(namer.directory(Stream::Stored, "file", "in/a b.json"), dir);
        assert_eq!(namer.start("file", last), Some(7));
        for other in [
            format!("x{last}"),
            format!("{last}.bak"),
            last.replace("0007", "007"),
            last.replace(".zst", "x"),
        ] {
            assert_eq!(namer.start("file", &other), None, "{other}");
        }
        let plain = last.strip_suffix(".zst").unwrap();
        assert_eq!(namer.start("file", plain), Some(7), "another codec's");
    };
    let (path, start) = ("in/a_b.json--8a4b2ac4", "00000000000000000007");
    let path = &{
        let default = Namer::new("", Codec::None).directory(Stream::Stored, "file", "in/a b.json");
        assert!(default.len() == "processed/".len() + path.len());
        default["processed/".len()..].to_owned()
    };
    check("x/", &format!("x/{path}/{start}"));
    check("x/{path}/", &format!("x/{path}/{start}"));
    check("{path}/y/part-{start}-{source}", &format!("{path}/y/part-{start}-file"));
    let other = BatchId { partition: Partition::named("memory", "m"), start: 0, first_time: 0, opened_at: 0 };
    assert_eq!(
        templated("x/", Codec::None).stored(&other),
        "jobs/processed/x/memory/m/00000000000000000000.ndjson"
    );
    let named = templated("{name}/{start}", Codec::None).stored(&other);
    assert_eq!(named, "jobs/processed/m/00000000000000000000.ndjson");
}

/// An input may be called like an object of another one.
#[test]
fn no_object_of_a_template_is_a_directory() {
    let namer = templated("{path}/x-{start}", Codec::None);
    let object = namer.stored(&file("a", 0));
    assert_eq!(object, "jobs/processed/a/x-00000000000000000000.ndjson");
    let inside = namer.stored(&file("a/x-00000000000000000000.ndjson", 0));
    assert!(!inside.starts_with(&object) || inside.starts_with(&format!("{object}--")), "{inside}");
}

/// Each pass over an endpoint has a directory of its own, whatever the template is.
#[test]
fn a_template_names_batches_of_endpoints() {
    let identity = Identity { source: "http", name: "h/items".into(), cycle: Some(3), ..Identity::default() };
    let id = BatchId { partition: Partition::new(identity), start: 7, first_time: 0, opened_at: 0 };
    let start = "00000000000000000007";
    for (text, expected) in [
        ("x/", format!("x/h/items/3/{start}")),
        ("x/{name}/part-{start}", format!("x/h/items/3/part-{start}")),
    ] {
        assert_eq!(Template::parse(text).unwrap().check("http"), Ok(()));
        assert_eq!(templated(text, Codec::None).stored(&id), format!("jobs/processed/{expected}.ndjson"));
    }
}

#[test]
fn what_is_too_long_is_said() {
    let long = |namer: &Namer, id: &BatchId, most| namer.too_long(&id.partition, most).unwrap_or_default();
    let (plain, deep) = (Namer::new("", Codec::None), "x".repeat(200) + "/" + &"y".repeat(200));
    assert_eq!(long(&plain, &file(&deep, 0), LONGEST_KEY), "");
    assert!(long(&plain, &file(&deep, 0), 400).contains("bytes; expected 400 at most"));
    let topic = topic(&"t".repeat(249), 7, 0, 0);
    assert_eq!(long(&templated("hive", Codec::None), &topic, LONGEST_KEY), "");
    let namer = templated("{topic}-{partition}-{topic_id}-{start}", Codec::None);
    assert!(long(&namer, &topic, LONGEST_KEY).contains("has 288 bytes; expected 255 at most"));
}

/// Paths made of pieces that are hard to tell apart.
fn path() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("/"),
        Just("."),
        Just(".."),
        Just(" "),
        Just("_"),
        Just("a"),
        Just("A"),
        Just("é"),
        Just("\\"),
        Just("\0"),
        Just("\n"),
        Just("--e3b0c442"),
        Just("00000000000000000000"),
        Just(".ndjson"),
        Just("%2e"),
        Just("-"),
        Just("="),
        Just(
            "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
        ),
    ];
    prop_oneof![proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat()), any::<String>()]
}

/// Templates of pieces that are hard to tell apart; most are not fine.
fn template() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        3 => Just("/"),
        2 => proptest::sample::select(vec!["-", "0", "a", ".", "..", "_", "=", "00000000000000000000", "--e3b0c442"]),
        6 => proptest::sample::select(vec!["{topic}", "{partition}", "{topic_id}", "{start}", "{path}", "{name}"]),
        1 => proptest::sample::select(vec!["{source}", "{year}", "{date}", "{hour}", "{minute}", "{month}{day}"]),
    ];
    proptest::collection::vec(piece, 1..9).prop_map(|pieces| pieces.concat())
}

/// One that is fine for this source.
fn fine(source: &'static str) -> impl Strategy<Value = Template> {
    template().prop_filter_map("it is refused", move |text| {
        Template::parse(&text).ok().filter(|template| template.check(source).is_ok())
    })
}

/// Names that Kafka would and would not take, alike in beginning and end.
fn topics() -> impl Strategy<Value = String> {
    let piece = proptest::sample::select(vec![
        "a",
        "-",
        "0",
        "1",
        "11",
        "a-1",
        ".",
        "..",
        "/",
        " ",
        "_",
        "é",
        "--e3b0c442",
    ]);
    proptest::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

#[track_caller]
fn stays_inside(key: &str) -> Result<(), TestCaseError> {
    prop_assert!(key.starts_with("p/processed/") || key.starts_with("p/failed/"), "{}", key);
    for segment in key.split('/') {
        prop_assert!(!segment.is_empty() && segment != "." && segment != "..", "{}", key);
        prop_assert!(segment.chars().all(is_allowed), "{}", key);
    }
    Ok(())
}

proptest! {
    #[test]
    fn two_partitions_never_share_a_name(one in path(), other in path()) {
        let namer = Namer::new("p", Codec::None);
        let relative = |name: &str| name.strip_prefix('/').unwrap_or(name).to_owned();
        let same = relative(&one) == relative(&other);
        let names = |name: &str| namer.directory(Stream::Stored, "file", name);
        prop_assert_eq!(names(&one) == names(&other), same);
        // Nor is one's object another's directory.
        let object = namer.stored(&file(&one, 0));
        let inside = format!("{}/", names(&other));
        let beneath = inside.starts_with(&format!("{object}/"));
        prop_assert!(!beneath);
    }

    #[test]
    fn a_name_never_leaves_its_prefix(name in path(), source in "[a-z./ ]{0,9}", start: u64) {
        let source: &'static str = Box::leak(source.into_boxed_str());
        let id = BatchId { partition: Partition::named(source, name), start, first_time: 0, opened_at: 0 };
        for key in [Namer::new("p", Codec::None).stored(&id), Namer::new("p", Codec::None).failed(&id)] {
            stays_inside(&key)?;
            prop_assert!(key.split('/').all(|segment| segment.len() <= SEGMENT));
        }
    }

    /// Whatever is accepted as a template, topics and times are.
    #[test]
    fn no_template_lets_a_topic_leave_its_prefix(
        template in fine("kafka"),
        name in prop_oneof![topics(), any::<String>()],
        partition in 0..=i32::MAX, start: u64, time: i64,
    ) {
        let id = topic(&name, partition, start, time);
        let namer = Namer::new("p", Codec::Zstd(1)).with_template(Some(template));
        stays_inside(&namer.stored(&id))?;
        stays_inside(&namer.failed(&id))?;
        if namer.too_long(&id.partition, LONGEST_KEY).is_none() {
            prop_assert!(namer.stored(&id).len() <= LONGEST_KEY);
            prop_assert!(namer.stored(&id).split('/').all(|segment| segment.len() <= SEGMENT));
        }
    }

    #[test]
    fn no_template_gives_two_batches_of_topics_one_name(
        template in fine("kafka"),
        one in (topics(), 0..12, 0..2u64, 0..2u32),
        other in (topics(), 0..12, 0..2u64, 0..2u32),
    ) {
        let namer = Namer::new("p", Codec::None).with_template(Some(template));
        let name = |(name, partition, start, hours): &(String, i32, u64, u32)| {
            namer.stored(&topic(name, *partition, *start, i64::from(*hours) * 3_600_000))
        };
        let same = (&one.0, one.1, one.2) == (&other.0, other.1, other.2);
        prop_assert!(same || name(&one) != name(&other), "{}", name(&one));
    }

    #[test]
    fn no_template_mixes_files(template in fine("file"), one in path(), other in path(), start: u64) {
        let namer = Namer::new("p", Codec::Gzip(1)).with_template(Some(template));
        let relative = |name: &str| name.strip_prefix('/').unwrap_or(name).to_owned();
        let dir = |name: &str| namer.directory(Stream::Stored, "file", name);
        prop_assert_eq!(dir(&one) == dir(&other), relative(&one) == relative(&other));
        let object = namer.stored(&file(&one, start));
        stays_inside(&object)?;
        stays_inside(&namer.failed(&file(&one, start)))?;
        // It is found where it is looked for, and nobody's directory.
        let (found, last) = object.rsplit_once('/').expect("it has directories");
        prop_assert_eq!(found, dir(&one));
        prop_assert_eq!(namer.start("file", last), Some(start));
        let beneath = format!("{}/", dir(&other)).starts_with(&format!("{object}/"));
        prop_assert!(!beneath);
    }
}
