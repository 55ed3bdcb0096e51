//! Threads that take the steps of a search together. What they share they only read, so their number changes no
//! result.

use std::hint;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::thread;

/// How many threads this process may run at once; asking the system costs more than a small search.
pub fn available() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| thread::available_parallelism().map_or(1, usize::from))
}

/// Times a waiting thread looks before it lets others run, and before it sleeps: steps last microseconds to
/// milliseconds, and to wake a thread takes longer than most pauses between them.
const SPINS: usize = 2_000;
const YIELDS: usize = 20;

/// Threads that wait for a step to take.
#[derive(Debug)]
pub struct Crew<J> {
    size: usize,
    job: Mutex<Option<J>>,
    /// Steps begun.
    turn: AtomicUsize,
    /// Threads that have taken the current step.
    done: AtomicUsize,
    failed: AtomicBool,
    asleep: AtomicUsize,
    lock: Mutex<()>,
    bell: Condvar,
}

/// Run `lead` with a crew of `size`, this thread among them. [`Crew::all`] then runs `work(i, job)` for every place
/// `i` below `size`, each on its own thread.
pub fn with_crew<J: Copy + Send, R>(
    size: usize,
    work: impl Fn(usize, J) + Sync,
    lead: impl FnOnce(&Crew<J>, &dyn Fn(usize, J)) -> R,
) -> R {
    let crew = Crew::new(size);
    let (crew, work) = (&crew, &work);
    thread::scope(|scope| {
        for i in 1..size {
            scope.spawn(move || crew.follow(|job| work(i, job)));
        }
        let _dismissed = Dismissal(crew);
        lead(crew, work)
    })
}

/// Lets the crew go, also when the leader panics.
struct Dismissal<'a, J: Copy>(&'a Crew<J>);

impl<J: Copy> Drop for Dismissal<'_, J> {
    fn drop(&mut self) {
        self.0.begin(None);
    }
}

/// Says that a step is over, also when it panicked.
struct Step<'a, J: Copy>(&'a Crew<J>);

impl<J: Copy> Drop for Step<'_, J> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.failed.store(true, SeqCst);
        }
        self.0.done.fetch_add(1, SeqCst);
        self.0.ring();
    }
}

impl<J: Copy> Crew<J> {
    /// One thread alone.
    pub fn alone() -> Self {
        Self::new(1)
    }

    fn new(size: usize) -> Self {
        Crew {
            size,
            job: Mutex::new(None),
            turn: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            asleep: AtomicUsize::new(0),
            lock: Mutex::new(()),
            bell: Condvar::new(),
        }
    }

    /// How many.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Take a step together: `mine` is what this thread does.
    pub fn all(&self, job: J, mine: impl FnOnce()) {
        self.done.store(0, SeqCst);
        self.begin(Some(job));
        mine();
        self.wait(|| self.done.load(SeqCst) == self.size - 1);
        assert!(!self.failed.load(SeqCst), "a thread of the search failed");
    }

    fn begin(&self, job: Option<J>) {
        *self.job.lock().unwrap_or_else(PoisonError::into_inner) = job;
        self.turn.fetch_add(1, SeqCst);
        self.ring();
    }

    fn follow(&self, work: impl Fn(J)) {
        for turn in 1.. {
            self.wait(|| self.turn.load(SeqCst) == turn);
            let job = *self.job.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(job) = job else { return };
            let _step = Step(self);
            work(job);
        }
    }

    fn wait(&self, over: impl Fn() -> bool) {
        for _ in 0..SPINS {
            if over() {
                return;
            }
            hint::spin_loop();
        }
        for _ in 0..YIELDS {
            if over() {
                return;
            }
            thread::yield_now();
        }
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        // Announced before the last look: who ends the wait after that look sees it and rings.
        self.asleep.fetch_add(1, SeqCst);
        while !over() {
            lock = self.bell.wait(lock).unwrap_or_else(PoisonError::into_inner);
        }
        self.asleep.fetch_sub(1, SeqCst);
    }

    fn ring(&self) {
        if self.asleep.load(SeqCst) > 0 {
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.bell.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_takes_every_step_once_and_in_turn() {
        let taken: Vec<Mutex<Vec<u32>>> = (0..4).map(|_| Mutex::default()).collect();
        let work = |i: usize, job: u32| taken[i].lock().unwrap().push(job);
        with_crew(4, work, |crew, work| {
            for job in 0..2_000 {
                if job == 1_000 {
                    thread::sleep(std::time::Duration::from_millis(20)); // they sleep, and wake again
                }
                crew.all(job, || work(0, job));
                assert!(taken.iter().all(|t| t.lock().unwrap().last() == Some(&job)));
            }
        });
        assert!(taken.iter().all(|t| *t.lock().unwrap() == (0..2_000).collect::<Vec<_>>()));
    }

    #[test]
    #[should_panic(expected = "a thread of the search failed")]
    fn a_member_that_fails_ends_the_search() {
        with_crew(2, |i, ()| assert!(i == 0), |crew, work| crew.all((), || work(0, ())));
    }
}
