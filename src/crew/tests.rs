use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// How many workers are called where tasks come like this, one after another.
fn called(workers: usize, tasks: &[Next]) -> Vec<bool> {
    let crew = Crew::new(workers);
    tasks.iter().map(|next| crew.put((), *next)).collect()
}

#[test]
fn a_second_worker_is_called_when_the_first_falls_behind() {
    let mut expected = vec![true];
    expected.extend([false; LEFT - 1]);
    expected.extend([true, false, false]);
    assert_eq!(called(2, &[Next::Soon; LEFT + 3]), expected);
    assert_eq!(called(2, &[Next::Unknown; 4]), [true, true, false, false], "nobody knows what comes");
    assert_eq!(called(1, &[Next::Unknown; 3]), [true, false, false]);
    assert_eq!(called(0, &[Next::Unknown; 3]), [true, false, false], "somebody has to do it");
}

#[test]
fn before_a_reader_waits_there_is_a_worker_for_each_task() {
    let crew = Crew::new(3);
    assert!(!crew.hurry(), "there is nothing to do");
    assert!(crew.put(1, Next::Soon));
    assert_eq!(crew.next(Next::Unknown), Some(1));
    assert!(!crew.hurry(), "somebody has it");
    assert!(!crew.put(2, Next::Soon) && !crew.put(3, Next::Soon));
    assert!(crew.hurry() && crew.hurry());
    assert!(!crew.hurry(), "these are all");
}

#[test]
fn the_oldest_task_is_the_next_and_behind_the_last_a_worker_leaves() {
    let crew = Crew::new(1);
    assert!(crew.put(1, Next::Unknown) && !crew.put(2, Next::Unknown));
    assert_eq!([(); 3].map(|()| crew.next(Next::Unknown)), [Some(1), Some(2), None]);
    assert!(crew.put(3, Next::Unknown), "it has left");
    assert!(crew.leave(), "there is a task, and nobody at work");
    assert_eq!(crew.next(Next::Unknown), Some(3));
    assert!(!crew.leave());
    assert_eq!(crew.state.lock().at_work, 0);
}

/// Nobody is woken then: that is what it is for.
#[test]
fn a_worker_that_waits_has_the_next_task_and_nobody_is_called() {
    let crew = Crew { patience: HOUR, ..Crew::new(2) };
    assert!(crew.put(1, Next::Soon));
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| [crew.next(Next::Unknown), crew.next(Next::Soon)]);
        while !crew.state.lock().waits {
            assert!(!worker.is_finished());
            std::thread::yield_now();
        }
        // One waits at a time.
        crew.state.lock().at_work += 1;
        assert_eq!(crew.next(Next::Soon), None);
        assert!(!crew.put(2, Next::Unknown));
        assert_eq!(worker.join().unwrap(), [Some(1), Some(2)]);
    });
    assert!(!crew.state.lock().waits);
}

#[test]
fn where_waiting_is_in_vain_it_is_done_seldom() {
    let crew = Crew { patience: Duration::ZERO, ..Crew::new(1) };
    let mut waits = Vec::new();
    for at in 0..200 {
        crew.state.lock().at_work = 1;
        waits.extend((crew.state.lock().skips == 0).then_some(at));
        assert_eq!(crew.next(Next::Soon), None);
    }
    assert_eq!(waits, [0, 2, 5, 10, 19, 36, 69, 134, 199]);
    crew.state.lock().skips = 0;
    let crew = Crew { patience: HOUR, ..crew };
    crew.state.lock().at_work = 1;
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| crew.next(Next::Soon));
        while !crew.state.lock().waits {
            std::thread::yield_now();
        }
        assert!(!crew.put((), Next::Soon));
        assert!(worker.join().unwrap().is_some());
    });
    let state = crew.state.lock();
    assert_eq!((state.skips, state.again), (0, 1), "it was worth it");
}

/// Whatever readers say of what comes, every task is done once, and then all workers have left.
#[test]
fn every_task_is_done_once() {
    const TASKS: usize = 20_000;
    for workers in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(workers).build().unwrap();
        let crew = Crew::new(workers);
        let done: Vec<AtomicUsize> = (0..TASKS).map(|_| AtomicUsize::new(0)).collect();
        let work = || {
            let mut next = Next::Unknown;
            while let Some((task, then)) = crew.next(next) {
                done[task as usize].fetch_add(1, Ordering::Relaxed);
                next = then;
                if task % 7 == 0 {
                    return crew.leave();
                }
            }
            false
        };
        pool.in_place_scope(|scope| {
            fn call<'s>(scope: &rayon::Scope<'s>, work: &'s (impl Fn() -> bool + Sync)) {
                scope.spawn(move |scope| {
                    if work() {
                        call(scope, work);
                    }
                });
            }
            std::thread::scope(|threads| {
                for lane in 0..2 {
                    let (crew, work, scope) = (&crew, &work, &scope);
                    threads.spawn(move || {
                        for task in (lane..TASKS).step_by(2) {
                            let next = if task % 5 < 2 { Next::Unknown } else { Next::Soon };
                            if crew.put((task as u32, next), next) {
                                call(scope, work);
                            }
                            while task % 11 == 0 && crew.hurry() {
                                call(scope, work);
                            }
                        }
                    });
                }
            });
        });
        assert!(done.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        assert_eq!((crew.state.lock().at_work, crew.waiting()), (0, 0));
    }
}
