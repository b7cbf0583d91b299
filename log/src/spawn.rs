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
    use super::*;

    #[test]
    fn what_came_of_each_job_is_in_their_order_whoever_did_it() {
        for threads in [1, 2, 7, 100] {
            let squares = in_parallel("square", threads, (0..50).collect(), |n: u64| Ok::<_, ()>(n * n));
            let expected: Vec<u64> = (0..50).map(|n| n * n).collect();
            assert_eq!(squares.expect("threads start"), Ok(expected));
        }
    }

    #[test]
    fn after_a_failure_no_job_is_begun() {
        for threads in [1, 4] {
            let begun = Arc::new(Mutex::new(0));
            let count = begun.clone();
            let outcome = in_parallel("fail", threads, (0..1000).collect(), move |n: u64| {
                *count.lock() += 1;
                if n == 0 { Err(n) } else { Ok(n) }
            });
            assert_eq!(outcome.expect("threads start"), Err(0));
            assert!(*begun.lock() < 1000 || threads > 1);
        }
    }
}
