use std::time::Duration;

use lotic_log::{ManualClock, SystemClock};

use super::*;
use crate::event_log::EventLog;
use crate::memory_log::MemoryLog;
use crate::state::MemoryState;
use crate::test_flow::{expected, failing_once_at, found, graph, log_with, produce};

/// How long a test waits for what must come.
const DEADLINE: Duration = Duration::from_secs(60);

fn start(log: &Arc<MemoryLog>, graph: Graph, options: EngineOptions) -> Result<Processor> {
    start_by(SystemClock::new(), log, graph, options)
}

fn start_by(
    clock: Arc<dyn Clock>,
    log: &Arc<MemoryLog>,
    graph: Graph,
    options: EngineOptions,
) -> Result<Processor> {
    let log = Arc::clone(log);
    Processor::start(ProcessorSetup {
        graph,
        open_log: Box::new(move || {
            // As a new holder of the id would.
            log.abort()?;
            Ok(Arc::clone(&log) as Arc<dyn EventLog>)
        }),
        home: Arc::new(MemoryState::new()),
        clock,
        options,
        is_stopping: Box::new(|| false),
    })
}

fn options(workers: usize, bounded: bool) -> EngineOptions {
    EngineOptions {
        workers,
        bounded,
        epoch_interval: Duration::from_millis(5),
        frame_rows_max: 4,
        restarts: RestartOptions { backoff: Duration::from_millis(1), ..RestartOptions::default() },
        ..EngineOptions::default()
    }
}

/// Waits until `condition` holds.
fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let clock = SystemClock::new();
    while !condition() {
        assert!(clock.elapsed() < DEADLINE, "{what} did not come within {DEADLINE:?}");
        std::thread::yield_now();
    }
}

#[test]
fn bounded_input_is_run_to_its_end_on_threads() {
    for workers in [1, 2, 4] {
        let (log, _) = log_with(500);
        let processor = start(&log, graph(|_| Ok(())), options(workers, true)).unwrap();
        processor.wait().unwrap();
        assert_eq!(found(&log), expected(500), "{workers} workers");
    }
}

#[test]
fn a_stop_commits_what_was_read_and_ends() {
    let (log, numbers) = log_with(100);
    let processor = start(&log, graph(|_| Ok(())), options(2, false)).unwrap();
    wait_for("the first result", || found(&log) == expected(100));
    produce(&log, &numbers, 100..150);
    wait_for("what came later", || found(&log) == expected(150));
    processor.stop();
    // A result is there before the metrics tell of the epoch that committed it.
    wait_for("the end", || processor.has_ended());
    let metrics = processor.metrics();
    processor.wait().unwrap();
    assert_eq!(found(&log), expected(150));
    assert!(metrics.last_committed >= Epoch(2));
    assert_eq!((metrics.steps[0].step.as_str(), metrics.steps[0].emitted), ("numbers", 150));
}

#[test]
fn a_flow_that_may_go_on_is_started_again_from_its_last_epoch() {
    let (log, _) = log_with(300);
    let watch = failing_once_at(120, ErrorKind::Restart);
    let processor = start(&log, graph(watch), options(2, true)).unwrap();
    wait_for("the end", || processor.has_ended());
    assert_eq!(processor.metrics().restarts, 1);
    processor.wait().unwrap();
    assert_eq!(found(&log), expected(300));
}

#[test]
fn a_flow_that_cannot_go_on_tells_its_error() {
    let check = |graph: Graph, kind, named: &str| {
        let (log, _) = log_with(300);
        let processor = start(&log, graph, options(2, true)).unwrap();
        let error = processor.wait().unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(named), "{error}");
    };
    check(graph(failing_once_at(120, ErrorKind::User)), ErrorKind::User, "step watched: the operator fails");
    check(graph(|_| panic!("out of cheese")), ErrorKind::User, "panicked: out of cheese");
    let always = |_: &[i64]| Err(Error::new(ErrorKind::Restart, "it fails each time"));
    check(graph(always), ErrorKind::Restart, "given up after 8 restarts in a row: step watched");
}

#[test]
fn pauses_double_up_to_a_bound_and_so_often_and_begin_anew_after_progress() {
    let options = RestartOptions {
        attempts_max: 5,
        backoff: Duration::from_millis(100),
        backoff_max: Duration::from_secs(1),
    };
    let mut backoff = Backoff::new(options);
    let mut pauses =
        || std::iter::from_fn(|| backoff.next()).map(|pause| pause.as_millis()).collect::<Vec<_>>();
    assert_eq!(pauses(), [100, 200, 400, 800, 1000]);
    assert_eq!(pauses(), [0u128; 0]);
    backoff.reset();
    assert_eq!(backoff.next(), Some(Duration::from_millis(100)));
}

#[test]
fn a_pause_lasts_however_often_a_bell_rings_and_a_stop_ends_it() {
    let hour = Duration::from_secs(3600);
    for is_stopped in [false, true] {
        let shared = Arc::new(Shared::of(&graph(|_| Ok(()))));
        let clock = ManualClock::new();
        let pausing = (Arc::clone(&shared), Arc::clone(&clock));
        let ring = || shared.bell.lock().ring();
        ring();
        let pause = spawn("pause", move || pausing.0.pause(&*pausing.1, hour)).unwrap();
        for _ in 0..2_000 {
            ring();
            std::thread::yield_now();
        }
        assert!(!pause.is_finished(), "no time has passed");
        if is_stopped {
            shared.stop();
        }
        while !is_stopped && !pause.is_finished() {
            // Again where the pause had not begun.
            clock.advance(hour);
            // Nothing else tells whoever waits that this clock has moved.
            ring();
            std::thread::yield_now();
        }
        assert_eq!(pause.join().unwrap(), !is_stopped);
    }
}

#[test]
fn a_start_that_is_told_to_stop_while_state_is_restored_is_none() {
    let (log, _) = log_with(100);
    let home = MemoryState::new();
    let setup = |is_stopping: IsStopping| ProcessorSetup {
        graph: graph(|_| Ok(())),
        open_log: Box::new({
            let log = Arc::clone(&log);
            move || Ok(Arc::clone(&log) as Arc<dyn EventLog>)
        }),
        home: Arc::new(home.clone()),
        clock: SystemClock::new(),
        options: options(2, true),
        is_stopping,
    };
    let error = Processor::start(setup(Box::new(|| true))).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Stopped, "{error}");
    assert_eq!(log.transactions(), 0);
    Processor::start(setup(Box::new(|| false))).unwrap().wait().unwrap();
    assert_eq!(found(&log), expected(100));
}

#[test]
fn a_restart_that_is_told_to_stop_while_state_is_restored_tells_what_it_was_for() {
    let (log, _) = log_with(300);
    let opened = Arc::new(AtomicUsize::new(0));
    let (opening, counted) = (Arc::clone(&log), Arc::clone(&opened));
    let setup = ProcessorSetup {
        graph: graph(failing_once_at(120, ErrorKind::Restart)),
        open_log: Box::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            opening.abort()?;
            Ok(Arc::clone(&opening) as Arc<dyn EventLog>)
        }),
        home: Arc::new(MemoryState::new()),
        clock: SystemClock::new(),
        options: options(2, true),
        is_stopping: Box::new(move || opened.load(Ordering::SeqCst) == 2),
    };
    let error = Processor::start(setup).unwrap().wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Restart, "{error}");
    assert!(error.to_string().contains("the operator fails"), "{error}");
}

/// An epoch is open and the worker is in the midst of a frame of it when the stop comes, and stays there however much
/// time passes.
#[test]
fn a_flow_that_does_not_come_to_rest_is_stopped_all_the_same_and_the_next_run_does_it_again() {
    let (log, numbers) = log_with(100);
    let (entered, released) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
    let (enter, hold) = (Arc::clone(&entered), Arc::clone(&released));
    let watch = move |rows: &[i64]| {
        if rows.contains(&100) {
            enter.ring();
            hold.wait(DEADLINE);
        }
        Ok(())
    };
    let clock = ManualClock::new();
    let limit = Duration::from_secs(5);
    let options = |bounded| EngineOptions { stop_timeout: limit, ..options(1, bounded) };
    let manual = Arc::clone(&clock) as Arc<dyn Clock>;
    let processor = start_by(manual, &log, graph(watch), options(false)).unwrap();
    // No time passes, so that it does not end before it is told to.
    wait_for("an epoch", || log.transactions() == 1);
    produce(&log, &numbers, 100..101);
    entered.wait(DEADLINE);
    processor.stop();
    wait_for("the end", || {
        clock.advance(limit);
        processor.has_ended()
    });
    let error = processor.wait().unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Restart, "{text}");
    let said =
        "flow flow did not come to rest within 5s of being stopped; what it had not committed is done again";
    assert!(text.contains(said), "{text}");
    assert!(text.contains("1 workers did not come back within 1s"), "{text}");

    // With the worker goes what it holds of the flow.
    wait_for("the worker's end", || {
        released.ring();
        Arc::strong_count(&released) == 1
    });
    assert_eq!(found(&log), expected(0), "nothing was committed");
    start(&log, graph(|_| Ok(())), options(true)).unwrap().wait().unwrap();
    assert_eq!(found(&log), expected(101));
}

#[test]
fn a_worker_that_is_stuck_is_left_behind() {
    for kind in [ErrorKind::User, ErrorKind::Restart] {
        let (log, _) = log_with(300);
        let released = Arc::new(Bell::default());
        let (calls, held) = (AtomicUsize::new(0), Arc::clone(&released));
        let watch = move |_: &[i64]| match calls.fetch_add(1, Ordering::SeqCst) {
            0 => {
                held.wait(DEADLINE);
                Ok(())
            }
            _ => Err(Error::new(kind, "the other one fails")),
        };
        let options = EngineOptions { stop_timeout: Duration::from_millis(50), ..options(2, true) };
        let clock = SystemClock::new();
        let processor = start(&log, graph(watch), options).unwrap();
        let error = processor.wait().unwrap_err();
        assert!(clock.elapsed() < DEADLINE / 2);
        released.ring();
        assert_eq!(error.kind(), ErrorKind::User, "no other attempt is made beside it: {error}");
        let text = error.to_string();
        assert!(
            text.contains("1 workers did not come back within 50ms") && text.contains("the other one fails"),
            "{text}"
        );
    }
}
