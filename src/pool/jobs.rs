//! Threads that share numbered jobs.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two calls of `keep_going`.
const TICK: Duration = Duration::from_millis(50);

/// What a job is to ask now and then: whether it shall end early.
pub trait Stop {
    /// Whether it shall.
    fn is_set(&self) -> bool;
}

impl Stop for AtomicBool {
    fn is_set(&self) -> bool {
        self.load(Ordering::Relaxed)
    }
}

/// Of a job on the calling thread, which asks `keep_going` itself.
struct Here<'a> {
    keep_going: RefCell<&'a mut dyn FnMut() -> bool>,
    asked: Cell<Instant>,
    over: Cell<bool>,
}

impl Stop for Here<'_> {
    fn is_set(&self) -> bool {
        if !self.over.get() && self.asked.get().elapsed() >= TICK {
            self.asked.set(Instant::now());
            self.over.set(!(self.keep_going.borrow_mut())());
        }
        self.over.get()
    }
}

/// Run `job(0..count)` on `threads` threads and return the results in order. A job that panics is an `Err` with
/// the panic's message.
///
/// The calling thread only waits and asks `keep_going` every 50 ms; where one thread is enough it is that thread, as to make
/// another and to wait for it takes longer than a short job, and asks when the job asks whether to stop. Once `keep_going` says
/// no, what every job is given is set; jobs that return `None` because of it, and those never begun, are `None`.
pub fn run<T: Send>(
    count: usize,
    threads: usize,
    job: impl Fn(usize, &dyn Stop) -> Option<T> + Sync,
    mut keep_going: impl FnMut() -> bool,
) -> Vec<Option<Result<T, String>>> {
    let mut results: Vec<Mutex<Option<Result<T, String>>>> = Vec::new();
    results.resize_with(count, Mutex::default);
    let work = |index: usize, stop: &dyn Stop| {
        let result =
            catch_unwind(AssertUnwindSafe(|| job(index, stop))).map_err(|panic| message(&*panic)).transpose();
        *results[index].lock().unwrap_or_else(PoisonError::into_inner) = result;
    };
    share(count, threads.min(count), &work, &mut keep_going);
    results.into_iter().map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
}

/// What does not depend on the kind of results, compiled once: `work` never panics.
fn share(
    count: usize,
    threads: usize,
    work: &(dyn Fn(usize, &dyn Stop) + Sync),
    keep_going: &mut dyn FnMut() -> bool,
) {
    if threads <= 1 {
        let asked = Cell::new(Instant::now());
        let here = Here { keep_going: RefCell::new(keep_going), asked, over: Cell::new(false) };
        (0..count).take_while(|_| !here.is_set()).for_each(|index| work(index, &here));
        return;
    }
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
        let odd = |i: usize, _: &dyn Stop| (i != 1).then_some(i).or_else(|| panic!("point {i} is odd"));
        let both = [1, 2].map(|threads| run(3, threads, odd, || true));
        std::panic::set_hook(quiet);
        for results in both {
            assert_eq!(results[1], Some(Err("panic: point 1 is odd".into())));
            assert_eq!((&results[0], &results[2]), (&Some(Ok(0)), &Some(Ok(2))));
        }
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
                while i == 1 && !stop.is_set() {
                    std::thread::yield_now();
                }
                (i == 0).then_some(i)
            },
            || false,
        );
        assert_eq!(results, [Some(Ok(0)), None]);
    }

    #[test]
    fn the_calling_thread_asks_every_tick_itself() {
        let (mine, begun) = (std::thread::current().id(), Instant::now());
        let mut asked = 0;
        let job = |i: usize, stop: &dyn Stop| {
            assert_eq!(std::thread::current().id(), mine);
            while i == 1 && !stop.is_set() {
                std::thread::yield_now();
            }
            (i != 1).then_some(i)
        };
        let results = run(4, 1, job, || {
            asked += 1;
            asked < 3
        });
        assert_eq!(results, [Some(Ok(0)), None, None, None]);
        assert!(asked == 3 && begun.elapsed() >= 3 * TICK);
    }
}
