//! Threads that share numbered jobs.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two calls of `keep_going`.
const TICK: Duration = Duration::from_millis(50);

/// Run `job(0..count)` on `threads` threads and return the results in order. A job that panics is an `Err` with
/// the panic's message.
///
/// The calling thread only waits and asks `keep_going` every 50 ms. Once that says no, the flag every job is
/// given is set; jobs that return `None` because of it, and those never begun, are `None`.
pub fn run<T: Send>(
    count: usize,
    threads: usize,
    job: impl Fn(usize, &AtomicBool) -> Option<T> + Sync,
    mut keep_going: impl FnMut() -> bool,
) -> Vec<Option<Result<T, String>>> {
    let mut results: Vec<Mutex<Option<Result<T, String>>>> = Vec::new();
    results.resize_with(count, Mutex::default);
    let work = |index: usize, stop: &AtomicBool| {
        let result =
            catch_unwind(AssertUnwindSafe(|| job(index, stop))).map_err(|panic| message(&*panic)).transpose();
        *results[index].lock().unwrap_or_else(PoisonError::into_inner) = result;
    };
    share(count, threads.clamp(1, count.max(1)), &work, &mut keep_going);
    results.into_iter().map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
}

/// What does not depend on the kind of results, compiled once: `work` never panics.
fn share(
    count: usize,
    threads: usize,
    work: &(dyn Fn(usize, &AtomicBool) + Sync),
    keep_going: &mut dyn FnMut() -> bool,
) {
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let working = Mutex::new(threads);
    let over = Condvar::new();
    let follow = || {
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            work(index, &stop);
        }
        *working.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        over.notify_one();
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(follow);
        }
        let _leaving = Leaving(&stop);
        let mut asked = Instant::now();
        let mut left = working.lock().unwrap_or_else(PoisonError::into_inner);
        while *left > 0 {
            left = over.wait_timeout(left, TICK).unwrap_or_else(PoisonError::into_inner).0;
            if asked.elapsed() >= TICK && !stop.load(Ordering::Relaxed) {
                drop(left);
                asked = Instant::now();
                stop.store(!keep_going(), Ordering::Relaxed);
                left = working.lock().unwrap_or_else(PoisonError::into_inner);
            }
        }
    });
}

/// Stops the threads when the one that waits for them panics.
struct Leaving<'a>(&'a AtomicBool);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("without a message"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_for_any_number_of_threads() {
        for threads in [1, 2, 8, 1000] {
            let results = run(100, threads, |i, _| Some(i * i), || true);
            let squares: Vec<usize> = results.into_iter().map(|r| r.unwrap().unwrap()).collect();
            assert_eq!(squares, (0..100).map(|i| i * i).collect::<Vec<_>>());
        }
        assert!(run(0, 2, |i, _| Some(i), || true).is_empty());
    }

    #[test]
    fn a_panic_is_that_points_error_alone() {
        let quiet = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let results = run(3, 2, |i, _| (i != 1).then_some(i).or_else(|| panic!("point {i} is odd")), || true);
        std::panic::set_hook(quiet);
        assert_eq!(results[1], Some(Err("panic: point 1 is odd".into())));
        assert_eq!((&results[0], &results[2]), (&Some(Ok(0)), &Some(Ok(2))));
    }

    #[test]
    fn stopping_keeps_what_is_done_and_marks_the_rest() {
        let mut asked = 0;
        let results = run(
            10_000,
            2,
            |i, _| {
                std::thread::sleep(Duration::from_millis(1));
                Some(i)
            },
            || {
                asked += 1;
                asked < 3
            },
        );
        let done = results.iter().filter(|r| r.is_some()).count();
        assert!((20..2000).contains(&done), "{done}");
    }

    #[test]
    fn a_job_that_is_told_to_stop_is_not_done() {
        let results = run(
            2,
            2,
            |i, stop| {
                while i == 1 && !stop.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
                (i == 0).then_some(i)
            },
            || false,
        );
        assert_eq!(results, [Some(Ok(0)), None]);
    }
}
