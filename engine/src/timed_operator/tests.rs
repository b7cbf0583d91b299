use lotic_log::murmur2;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::frame::Batch;
use crate::key_group::KeyGroup;
use crate::operators::stateful_bench::{Bench, Emitted, Event, event, keyed};
use crate::timers::Timer;

/// Sets a timer for each number of milliseconds behind a record, and says when one has fired. A second one is set by
/// one of the hundreds: a millisecond later.
struct Alarm {
    answers_at_end: bool,
}

fn timer<'a>(time: i64, key: &'a [u8]) -> Timer<'a> {
    Timer { time: Timestamp(time), group: KeyGroup::of_hash(murmur2(key) as u32), key, namespace: &[] }
}

impl Alarm {
    fn emit(due: &mut DueTimers<'_>, context: &mut Context<'_>) -> Result<()> {
        let mut batch = Batch::default();
        while let Some(fired) = due.take()? {
            let Timer { time, key, .. } = fired.timer();
            if time.0 % 100 == 0 {
                due.timers.set(timer(time.0 + 1, key))?;
            }
            batch.rows.push(String::from_utf8(key.to_vec()).unwrap());
            batch.columns.times.push(time);
            batch.columns.watermarks.push(Timestamp(time.0 - 1));
            batch.columns.keys.push(key, murmur2(key) as u32);
        }
        context.emit(0, batch.into());
        Ok(())
    }
}

impl TimedOperator for Alarm {
    fn process(&mut self, frame: Frame, timers: &mut Timers, _: &mut Context<'_>) -> Result<()> {
        let Batch { rows, columns } = frame.into_batch::<(String, i64)>();
        for ((key, after), time) in rows.into_iter().zip(columns.times) {
            timers.set(timer(time.0 + after, key.as_bytes()))?;
        }
        Ok(())
    }

    fn fire(&mut self, due: &mut DueTimers<'_>, context: &mut Context<'_>) -> Result<()> {
        Self::emit(due, context)
    }

    fn end(&mut self, due: &mut DueTimers<'_>, context: &mut Context<'_>) -> Result<()> {
        if self.answers_at_end { Self::emit(due, context) } else { Ok(()) }
    }
}

fn bench(answers_at_end: bool) -> Bench {
    Bench::new(timed_operator_factory("due", move |_| Ok(Alarm { answers_at_end })), &["due"], &[])
}

fn add(bench: &mut Bench, events: &[Event<(&str, i64)>]) {
    assert!(bench.process(0, keyed(events)).is_empty());
}

fn check(mut emitted: Emitted, expected: &[(&str, i64)]) {
    let rows = expected.iter().map(|(key, time)| event(*time, time - 1, (*key).to_owned()));
    assert_eq!(emitted.rows::<String>(0), rows.collect::<Vec<_>>());
}

#[test]
fn what_is_due_fires_frame_by_frame_before_the_watermark_is_passed_on() {
    let mut bench = bench(false);
    let keys: Vec<String> = (10..17).map(|key| key.to_string()).collect();
    let events: Vec<_> = keys.iter().map(|key| event(20, 0, (key.as_str(), 10))).collect();
    add(&mut bench, &events);
    let emitted = bench.advance(0, None, 30);
    assert_eq!(emitted.watermarks, [30]);
    check(emitted, &[]);
    let mut fired = Vec::new();
    let watermark = loop {
        let (progress, mut emitted) = bench.advance_once(0, None, 31);
        fired.extend(emitted.rows::<String>(0).into_iter().map(|event| event.row));
        if progress == Progress::Done {
            break emitted.watermarks;
        }
        assert_eq!(emitted.watermarks, [0i64; 0], "not before all have fired");
        // What comes in between has its turn, and fires before what is due later.
        add(&mut bench, &[event(25, 0, ("17", 3))]);
        bench.commit();
    };
    assert_eq!(fired, ["10", "11", "12", "17", "13", "14", "17", "15", "16", "17"]);
    assert_eq!(watermark, [31]);
}

#[test]
fn a_timer_that_another_one_sets_is_due_by_the_same_watermark() {
    let mut bench = bench(false);
    add(&mut bench, &[event(20, 0, ("a", 80)), event(20, 0, ("b", 80)), event(20, 0, ("c", 81))]);
    check(bench.advance(0, None, 101), &[("a", 100), ("b", 100)]);
    bench.commit();
    bench.restart(&mut ChaCha8Rng::seed_from_u64(1));
    check(bench.advance(0, None, 102), &[("a", 101), ("b", 101), ("c", 101)]);
    bench.commit();
    assert_eq!(bench.stored("due"), 0, "what has fired takes no room");
}

#[test]
fn timers_of_an_epoch_that_is_lost_are_as_they_were_before_it() {
    let mut bench = bench(false);
    add(&mut bench, &[event(20, 0, ("a", 5))]);
    bench.commit();
    add(&mut bench, &[event(20, 0, ("b", 5))]);
    check(bench.advance(0, None, 40), &[("a", 25), ("b", 25)]);
    bench.restart(&mut ChaCha8Rng::seed_from_u64(1));
    check(bench.advance(0, None, 40), &[("a", 25)]);
}

#[test]
fn an_end_is_not_a_time_but_a_step_may_answer() {
    let mut silent = bench(false);
    add(&mut silent, &[event(20, 0, ("a", 5))]);
    check(silent.end(), &[]);
    check(silent.advance(0, None, 26), &[("a", 25)]);
    let mut answering = bench(true);
    let keys = ["a", "b", "c", "d"];
    add(&mut answering, &keys.map(|key| event(20, 0, (key, 5))));
    check(answering.end(), &keys.map(|key| (key, 25)));
    check(answering.advance(0, None, 26), &[]);
}

/// Takes so many of the timers that are due, however many there are.
struct Idler {
    takes: usize,
}

impl TimedOperator for Idler {
    fn process(&mut self, frame: Frame, timers: &mut Timers, context: &mut Context<'_>) -> Result<()> {
        Alarm { answers_at_end: false }.process(frame, timers, context)
    }

    fn fire(&mut self, due: &mut DueTimers<'_>, _: &mut Context<'_>) -> Result<()> {
        (0..self.takes).try_for_each(|_| due.take().map(|_| ()))
    }
}

fn idler(takes: usize, due: usize) -> Bench {
    let factory = timed_operator_factory("due", move |_| Ok(Idler { takes }));
    let mut bench = Bench::new(factory, &["due"], &[]);
    let events = ["a", "b", "c", "d", "e"].map(|key| event(20, 0, (key, 5)));
    add(&mut bench, &events[..due]);
    bench
}

#[test]
fn a_step_that_leaves_timers_which_are_due_fails_and_passes_no_watermark_on() {
    // One that takes the only timer and asks for no more does not know that it was the last.
    for (takes, due) in [(0, 1), (1, 1), (1, 2), (2, 5)] {
        let (error, emitted) = idler(takes, due).fail_to_advance(0, None, 26);
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("left timers that are due"), "{error}");
        assert!(emitted.watermarks.is_empty());
    }
}

#[test]
fn a_step_that_takes_timers_until_there_are_none_passes_the_watermark_on() {
    for due in 0..5 {
        assert_eq!(idler(due + 1, due).advance(0, None, 26).watermarks, [26]);
    }
}

#[test]
fn what_one_partition_promises_fires_nothing() {
    let mut bench = bench(false);
    add(&mut bench, &[event(20, 0, ("a", 5))]);
    let emitted = bench.advance(0, Some(0), 50);
    assert!(emitted.watermarks.is_empty());
    check(emitted, &[]);
}
