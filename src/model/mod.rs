//! The boundary plan as a property.
mod commits;
mod coordinator;
mod history;
mod log;
mod oracle;
mod outside;
mod process;
mod publish;
mod random;
mod read;
mod store;
mod tend;

use history::play;
use outside::Without;

fn histories(first: u64, count: u64) {
    for seed in first..first + count {
        if let Err((found, _)) = play(seed, Without(None), None) {
            let (_, trace) = play(seed, Without(None), Some(Vec::new())).unwrap_err();
            panic!("history {seed}: {found}\n{}\nMODEL_SEED={seed}", trace.join("\n"));
        }
    }
}

#[test]
fn all_rules() {
    let count = std::env::var("MODEL_COUNT").map_or(5000, |c| c.parse().unwrap());
    let first = std::env::var("MODEL_SEED").map_or(0, |c| c.parse().unwrap());
    histories(first, count);
}

#[test]
fn timing() {
    let t = std::time::Instant::now();
    let count = 500;
    let mut times = [0u128; 4];
    let mut marks = [0usize; 4];
    for seed in 0..count {
        history::TIMES.with(|t| *t.borrow_mut() = [0; 4]);
        let _ = play(seed, Without(None), None);
        history::TIMES.with(|t| t.borrow().iter().zip(&mut times).for_each(|(a, b)| *b += a));
        if let Err(t) = history::play_traced(seed) { let _ = t; }
        let trace = history::play_traced(seed).unwrap_or_default();
        let mut rec = false;
        for line in trace {
            rec |= line == "recovery";
            if !rec {
            marks[0] += usize::from(line.contains("has published"));
            marks[1] += usize::from(line.contains(" from ") && !line.ends_with("[]"));
            marks[2] += usize::from(line.contains("is there already"));
            } else { marks[3] += usize::from(line.contains(" from ") && !line.ends_with("[]")); }
        }
    }
    println!("{:?} {times:?} {marks:?}", t.elapsed());
}

#[test]
fn search() {
    let Ok(count) = std::env::var("MODEL_SEARCH") else { return };
    let count: u64 = count.parse().unwrap();
    for rule in [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17] {
        let mut found = Vec::new();
        let mut failures = 0;
        for seed in 0..count {
            if let Err((what, _)) = play(seed, Without(Some(rule)), None) {
                failures += 1;
                if found.len() < 4 {
                    found.push(format!("{seed}: {what}"));
                }
            }
        }
        println!("rule {rule}: {failures} of {count}: {found:?}");
    }
}
