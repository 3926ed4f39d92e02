//! The boundary plan as a property: random histories over the real code, and what each of its rules is for.
//!
//! A **history** is some processes, each made of the real parts (`process`): cutters, shop and assembler, the commit
//! thread with its ledgers, the group's state, rounds of commits, metadata and their judgement, the start of a
//! partition, names, and what is decided about an object. Simulated are the log (`log`), the coordinator
//! (`coordinator`), the store (`store`), and whoever waits for an answer in between (`tend`, `read`, `commits`,
//! `publish`). Threads take steps in any order. Processes are killed at any step, drain, or are forgotten by the
//! coordinator and go on as zombies; commits and their answers are lost or late; requests to the store arrive long
//! after their sender has died; records vanish; partitions are added and topics created again; an operator sets
//! offsets, and moves the output. Then nothing goes wrong any more, until all is stored and committed; late requests
//! arrive last of all. At the end each record that had not vanished before it was stored stands in the objects exactly
//! once, in order (`oracle`).
//!
//! A rule of the plan is taken away by a step that skips the real code or falsifies what it is told; then some
//! histories end with records lost or doubled. Two seeds a rule are kept in [`SEEDS`].
//!
//! | rule | without it | shown by |
//! |---|---|---|
//! | 1 | a commit whose answer is lost is just sent again | `SEEDS` |
//! | 2 | partitions are not let go of before the join, and go on in its generation | `SEEDS` |
//! | 3 | a ledger survives every rebalance | `SEEDS` |
//! | 4 | offsets may be read before they are stable | `SEEDS` |
//! | 5 | an answer acknowledges all that is cut by then | `SEEDS` |
//! | 6 | recovered ends are not carried in commits | `SEEDS` |
//! | 7 | a start is not committed before the first fetch | `SEEDS` |
//! | 8 | each commit is taken for one of this topic and this output | `SEEDS` |
//! | 9 | | `kafka/group/tests/proof.rs`; `fault::metadata_that_are_too_large_are_cut_and_that_is_told` |
//! | 10 | commits carry no generation | `SEEDS` |
//! | 11 | recovered ends do not decide where batches end | `SEEDS`; beyond the log's end: `source/kafka/start.rs` |
//! | 12 | a batch starts at its first record | `SEEDS` |
//! | 13 | `opened_at` is not in the plan | `SEEDS` |
//! | 14 | | `tests/it/engine`: `rules::rule_6_partitions_with_planned_ends_wait_for_a_slot_and_end_there` |
//! | 15 | a redo does not look first | `SEEDS` |
//! | 16 | | `tests/it/engine`: `doubt`; `tests/services/s3`: `gone` |
//! | 17 | names lack the topic's id | `SEEDS` |
//! | 18 | | `tests/it/engine`: `streams::a_revoked_partition_is_released_at_once_and_behind_its_commit`, `streams::a_drain_plans_publishes_and_commits_all_open_batches`; `kafka/group/tests/leaving.rs` |
//! | 19 | | `tests/services`: `planned::a_run_to_the_end_waits_for_what_others_have_in_hand`, `directory::records_of_aborted_transactions_are_read_only_when_asked` |
//! | 20 | | `fault::a_lost_reply_ends_all_tenancies_and_forces_a_new_generation`, `fault::a_heartbeat_that_is_fenced_loses_all` |
//!
//! `MODEL_SEED=7 cargo test --lib model::one_history -- --nocapture` prints what happens in one history,
//! `MODEL_WITHOUT=3` takes a rule away. Real code that changes may change histories: a test whose seeds do not show
//! what they did looks for others and names them.

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

use std::sync::atomic::{AtomicU64, Ordering};

use history::{Trace, play};
use outside::Without;

/// How many histories are played with all rules.
const HISTORIES: u64 = 20_000;

/// Seeds of histories that go wrong without a rule.
const SEEDS: [(u8, [u64; 2]); 14] = [
    (1, [26, 537]),
    (2, [14, 73]),
    (3, [212, 241]),
    (4, [11, 41]),
    (5, [13, 16]),
    (6, [100, 203]),
    (7, [3, 9]),
    (8, [38, 91]),
    (10, [7, 524]),
    (11, [4, 6]),
    (12, [25, 90]),
    (13, [4, 6]),
    (15, [25, 90]),
    (17, [61, 91]),
];

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("it is a number"))
}

/// How to see this history again, and what happened in it.
fn told(seed: u64, without: Without, found: &str) -> String {
    let trace = play(seed, without, Trace::Keep).trace.join("\n");
    format!("{trace}\n{found}\nMODEL_SEED={seed} cargo test --lib model::one_history -- --nocapture")
}

#[test]
fn twenty_thousand_histories_lose_nothing_and_store_nothing_twice() {
    let (next, worst) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let work = || {
        while worst.load(Ordering::Relaxed) == u64::MAX {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= HISTORIES {
                break;
            }
            if play(seed, Without(None), Trace::Skip).found.is_err() {
                worst.fetch_min(seed, Ordering::Relaxed);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let worst = worst.into_inner();
    if let Err(found) = play(worst, Without(None), Trace::Skip).found
        && worst < u64::MAX
    {
        panic!("{}", told(worst, Without(None), &found));
    }
}

#[test]
fn without_any_one_rule_some_history_goes_wrong() {
    for (rule, seeds) in SEEDS {
        for seed in seeds {
            let (without, with) = (Without(Some(rule)), Without(None));
            if play(seed, without, Trace::Skip).found.is_ok() {
                panic!("history {seed} does without rule {rule}; these do not: {:?}", other_seeds(without));
            }
            if let Err(found) = play(seed, with, Trace::Skip).found {
                panic!("{}", told(seed, with, &found));
            }
        }
    }
}

/// Seeds on which records are lost or doubled without a rule. Takes minutes.
fn other_seeds(without: Without) -> Vec<u64> {
    let is_wrong = |seed: &u64| {
        let found = play(*seed, without, Trace::Skip).found;
        found.is_err_and(|found| found.contains("lost") || found.contains("times"))
    };
    (0..HISTORIES).filter(is_wrong).take(4).collect()
}

#[test]
fn the_same_seed_is_the_same_history() {
    for seed in 0..20 {
        let once = play(seed, Without(None), Trace::Keep).trace;
        assert!(once == play(seed, Without(None), Trace::Keep).trace, "{seed}");
    }
}

/// For people: prints the history of `MODEL_SEED`, without the rule `MODEL_WITHOUT`.
#[test]
fn one_history() {
    let Some(seed) = variable("MODEL_SEED") else { return };
    let without = Without(variable("MODEL_WITHOUT").map(|rule| rule as u8));
    let played = play(seed, without, Trace::Keep);
    println!("{}", played.trace.join("\n"));
    if let Err(found) = played.found {
        panic!("history {seed}: {found}");
    }
}
