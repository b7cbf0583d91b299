//! The only place that starts a thread. A simulator starts none: it steps everything itself.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;

/// Starts a named thread that runs `body`.
#[expect(clippy::disallowed_methods, reason = "this is the one place that starts a thread")]
pub fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body)
}

/// Does `work` for each of `jobs` on at most so many threads, and gives what came of each in their order.
/// With one thread it is done here, one after the other. No job is begun once one has failed or a thread
/// cannot be started, and none goes on when this returns; the error is that of the first of those that were.
pub(crate) fn in_parallel<J, T, E>(
    name: &str,
    threads_max: usize,
    jobs: Vec<J>,
    work: impl Fn(J) -> Result<T, E> + Send + Sync + 'static,
) -> io::Result<Result<Vec<T>, E>>
where
    J: Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    let threads = threads_max.min(jobs.len());
    if threads <= 1 {
        return Ok(jobs.into_iter().map(work).collect());
    }
    let jobs: Arc<Mutex<VecDeque<_>>> = Arc::new(Mutex::new(jobs.into_iter().enumerate().collect()));
    let work = Arc::new(work);
    let mut handles = Vec::with_capacity(threads);
    let mut started = Ok(());
    for _ in 0..threads {
        let (mine, work) = (jobs.clone(), work.clone());
        match spawn(name, move || work_off(&mine, &*work)) {
            Ok(handle) => handles.push(handle),
            Err(error) => {
                jobs.lock().clear();
                started = Err(error);
                break;
            }
        }
    }
    let ended: Vec<_> = handles.into_iter().map(JoinHandle::join).collect();
    started?;
    let mut done = Vec::new();
    for some in ended {
        done.extend(some.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    }
    done.sort_unstable_by_key(|(place, _)| *place);
    Ok(done.into_iter().map(|(_, outcome)| outcome).collect())
}

/// What came of the jobs that one thread did, with their places among all.
fn work_off<J, T, E>(
    jobs: &Mutex<VecDeque<(usize, J)>>,
    work: &impl Fn(J) -> Result<T, E>,
) -> Vec<(usize, Result<T, E>)> {
    let _stop = ClearOnPanic(jobs);
    let mut done = Vec::new();
    loop {
        let next = jobs.lock().pop_front();
        let Some((place, job)) = next else { return done };
        let outcome = work(job);
        if outcome.is_err() {
            jobs.lock().clear();
        }
        done.push((place, outcome));
    }
}

/// Lets the other threads begin nothing more.
struct ClearOnPanic<'a, J>(&'a Mutex<VecDeque<J>>);

impl<J> Drop for ClearOnPanic<'_, J> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().clear();
        }
    }
}

/// Who moves background work (group commit, linger, transaction markers) along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drive {
    /// The log's own thread.
    Thread,
    /// The caller, by `Log::step`; waiting on a ticket steps too. Nothing happens otherwise.
    Manual,
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Barrier;
    use std::time::Duration;

    use parking_lot::Condvar;

    use super::*;

    #[test]
    fn what_came_of_each_job_is_in_their_order_whoever_did_it() {
        for threads in [1, 2, 7, 100] {
            let squares = in_parallel("square", threads, (0..50).collect(), |n: u64| Ok::<_, ()>(n * n));
            let expected: Vec<u64> = (0..50).map(|n| n * n).collect();
            assert_eq!(squares.expect("threads start"), Ok(expected));
        }
    }

    /// How many jobs are waited for, that others do while one fails.
    const THREADS: usize = 4;

    /// How many jobs there are.
    const JOBS: usize = 1000;

    /// What has become of the jobs.
    #[derive(Default)]
    struct Tally {
        begun: Mutex<usize>,
        dropped: Mutex<usize>,
        is_dropped: Condvar,
    }

    /// A job that is counted when it goes, done or not.
    struct Job {
        number: usize,
        tally: Arc<Tally>,
    }

    impl Drop for Job {
        fn drop(&mut self) {
            *self.tally.dropped.lock() += 1;
            self.tally.is_dropped.notify_all();
        }
    }

    impl Tally {
        /// Waits until nothing is left that could be begun; not for ever, if something is.
        fn wait_for_the_others_to_go(&self) {
            let mut dropped = self.dropped.lock();
            while *dropped < JOBS - THREADS {
                if self.is_dropped.wait_for(&mut dropped, Duration::from_secs(10)).timed_out() {
                    return;
                }
            }
        }
    }

    /// What comes of jobs of which the first one does `fail` once every thread has one, while the others
    /// are in the middle of theirs. Returns how many were begun too.
    fn fail_first(
        threads: usize,
        fail: fn() -> Result<usize, usize>,
    ) -> (std::thread::Result<Result<Vec<usize>, usize>>, usize) {
        let tally = Arc::<Tally>::default();
        let jobs = (0..JOBS).map(|number| Job { number, tally: tally.clone() }).collect();
        let all_have_one = Barrier::new(threads);
        let counted = tally.clone();
        let work = move |job: Job| {
            *counted.begun.lock() += 1;
            if job.number < threads {
                all_have_one.wait();
            }
            if job.number == 0 {
                return fail();
            }
            if job.number >= threads {
                return Ok(job.number);
            }
            counted.wait_for_the_others_to_go();
            // One that fails later is not the one that is told.
            Err(job.number)
        };
        let run = || in_parallel("fail", threads, jobs, work).expect("threads start");
        let outcome = catch_unwind(AssertUnwindSafe(run));
        let begun = *tally.begun.lock();
        (outcome, begun)
    }

    #[test]
    fn after_a_failure_no_job_is_begun_and_the_first_one_that_failed_is_told() {
        for threads in [1, THREADS] {
            let (outcome, begun) = fail_first(threads, || Err(0));
            assert_eq!(outcome.expect("nothing panics"), Err(0));
            assert_eq!(begun, threads, "each thread has begun one");
        }
    }

    #[test]
    fn after_a_panic_no_job_is_begun_and_it_goes_on_where_the_jobs_came_from() {
        let (outcome, begun) = fail_first(THREADS, || panic!("as this test wants it"));
        outcome.expect_err("it panics here too");
        assert_eq!(begun, THREADS);
    }
}
