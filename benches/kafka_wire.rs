//! Walks and writes record batches in memory: one core, 300-byte JSON records, batches of 1 MiB. Throughput is in
//! decompressed bytes. `crc` is the checksum alone, which bounds the walk where it is checked.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use pipeline::kafka::wire::{BatchWriter, Batches, Compression, Crc, Stamp, Unpacker};

const BATCH: usize = 1 << 20;

/// Records as services log them: the same fields each time, identifiers and numbers that differ, a few messages.
fn values() -> Vec<String> {
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let messages =
        ["request completed", "upstream timed out, trying again", "cache miss", "connection closed by peer"];
    let mut value = |id: u64| {
        let text = format!(
            concat!(
                r#"{{"id":{},"timestamp":"2026-11-23T12:{:02}:{:02}.{:03}Z","level":"{}","service":"checkout","#,
                r#""host":"node-{:02}","request_id":"{:016x}","method":"GET","path":"/api/v1/items/{}","#,
                r#""status":{},"duration_ms":{}.{:02},"message":"{}","#,
            ),
            id,
            id / 60_000 % 60,
            id / 1000 % 60,
            id % 1000,
            ["info", "warn", "error", "debug"][random(4) as usize],
            random(24),
            random(u64::MAX),
            random(1_000_000),
            200 + random(300),
            random(400),
            random(100),
            messages[random(4) as usize],
        );
        format!(r#"{text}"note":"{:.<1$}"}}"#, "", 300usize.saturating_sub(text.len() + 10))
    };
    (0..BATCH as u64 / 310).map(&mut value).collect()
}

fn fill(writer: &mut BatchWriter, values: &[String]) {
    for value in values {
        writer.push(1_700_000_000_000, None, Some(value.as_bytes()), std::iter::empty()).unwrap();
    }
}

fn batch(compression: Compression, values: &[String]) -> (Vec<u8>, usize) {
    let mut writer = BatchWriter::new(compression, None);
    fill(&mut writer, values);
    let (mut out, size) = (Vec::new(), writer.size());
    writer.finish(&Stamp::NONE, &mut out).unwrap();
    (out, size)
}

fn walk(bytes: &[u8], unpacker: &mut Unpacker, crc: Crc) -> usize {
    let mut sum = 0;
    for batch in Batches::with_crc(bytes, crc) {
        for record in unpacker.records(&batch.unwrap()).unwrap() {
            let record = record.unwrap();
            sum += record.value.map_or(0, <[u8]>::len) + record.offset as usize;
        }
    }
    sum
}

fn walks(c: &mut Criterion) {
    let values = values();
    let mut group = c.benchmark_group("walk");
    for compression in Compression::ALL {
        let (bytes, size) = batch(compression, &values);
        println!("{}: {:.1} bytes become one", compression.name(), size as f64 / bytes.len() as f64);
        group.throughput(Throughput::Bytes(size as u64));
        for (name, crc) in [("crc", Crc::Check), ("no_crc", Crc::Skip)] {
            let mut unpacker = Unpacker::new(16 << 20);
            group.bench_function(format!("{}/{name}", compression.name()), |b| {
                b.iter(|| walk(&bytes, &mut unpacker, crc));
            });
        }
    }
    group.finish();
}

fn checksum(c: &mut Criterion) {
    let (bytes, size) = batch(Compression::None, &values());
    let mut group = c.benchmark_group("crc");
    group.throughput(Throughput::Bytes(size as u64));
    group.bench_function("crc32c", |b| b.iter(|| crc32c::crc32c(&bytes)));
    group.finish();
}

fn writes(c: &mut Criterion) {
    let values = values();
    let mut group = c.benchmark_group("write");
    for compression in Compression::ALL {
        let (_, size) = batch(compression, &values);
        group.throughput(Throughput::Bytes(size as u64));
        let (mut writer, mut out) = (BatchWriter::new(compression, None), Vec::new());
        group.bench_function(compression.name(), |b| {
            b.iter_batched(
                || (),
                |()| {
                    out.clear();
                    fill(&mut writer, &values);
                    writer.finish(&Stamp::NONE, &mut out).unwrap();
                    out.len()
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, walks, checksum, writes);
criterion_main!(benches);
