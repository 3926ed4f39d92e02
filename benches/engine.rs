//! The engine: records in memory to a null sink, and a file to a directory.

#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

mod corpus;
mod fake;

use std::fs;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fake::{Memory, Null, recipe};
use pipeline::config::{Config, Place, StateAt};
use pipeline::cut::Limits;
use pipeline::job::{Mode, run};
use pipeline::pipeline::{Pipeline, Settings};
use pipeline::stop::Stop;

const BYTES: usize = 64 << 20;

fn memory_to_null(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("memory_to_null");
    group.throughput(Throughput::Bytes(BYTES as u64)).sample_size(10);
    let source = Memory(Arc::new(corpus::flat(BYTES)));
    for (name, workers, batch_size) in [("w1", 1, 0), ("w2", 2, 0), ("w2_b50", 2, 50), ("w2_b1", 2, 1)] {
        let limits = Limits { batch_size, ..Limits::default() };
        let settings = Settings { workers, limits, ..Settings::default() };
        group.bench_function(name, |bench| {
            bench.iter(|| {
                Pipeline::new(&source, &recipe(), &Null::default()).settings(settings.clone()).run().unwrap()
            });
        });
    }
    group.finish();
}

fn file_to_directory(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("file_to_directory");
    group.throughput(Throughput::Bytes(BYTES as u64)).sample_size(10);
    let dir = std::env::temp_dir().join(format!("pipeline-engine-bench-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let file = dir.join("flat.ndjson");
    fs::write(&file, corpus::flat(BYTES)).unwrap();
    for (name, batch_size) in [("64_mib", 0), ("b5000", 5000)] {
        let out = dir.join("out");
        let mut config = Config::new(vec![file.display().to_string()], Place::Dir(out.clone()));
        config.processing.batch_size = batch_size;
        config.processing.state = StateAt::None;
        group.bench_function(name, |bench| {
            bench.iter_with_setup(
                || drop(fs::remove_dir_all(&out)),
                |()| assert!(run(&config, Mode::Store, &Stop::new(), &|_| {}).error.is_none()),
            );
        });
    }
    group.finish();
    fs::remove_dir_all(&dir).unwrap();
}

criterion_group!(benches, memory_to_null, file_to_directory);
criterion_main!(benches);
