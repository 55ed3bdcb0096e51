//! Threads that take the steps of a search together. What they share they only read, so their number changes no
//! result.
//!
//! Who comes too late for a step misses it: the others have taken its pieces meanwhile, and where other programs run, a
//! thread that waits for one of them may wait for milliseconds.

use std::hint;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
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

/// Of [`Crew::turn`]: what counts steps, and the bit of a step that is closed.
const STEP: u64 = 1 << 32;
const CLOSED: u64 = 1 << 31;

/// Threads that wait for a step to take.
#[derive(Debug)]
pub struct Crew<J> {
    size: usize,
    job: Mutex<Option<J>>,
    /// Steps begun, above [`CLOSED`]; whether nobody may join the last of them any more; below, how many have.
    turn: AtomicU64,
    /// How many of those have left it.
    left: AtomicU64,
    failed: AtomicBool,
    asleep: AtomicUsize,
    lock: Mutex<()>,
    bell: Condvar,
}

/// Run `lead` with a crew of `size`, this thread among them. [`Crew::all`] then runs `work(i, job)` for places `i` below
/// `size`, each on its own thread, as many as come in time.
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
        self.0.left.fetch_add(1, SeqCst);
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
            turn: AtomicU64::new(0),
            left: AtomicU64::new(0),
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

    /// Take a step together: `mine` is what this thread does, and when it is done, nobody joins any more.
    pub fn all(&self, job: J, mine: impl FnOnce()) {
        self.begin(Some(job));
        mine();
        let joined = self.turn.fetch_or(CLOSED, SeqCst) % CLOSED;
        self.wait(|| self.left.load(SeqCst) == joined);
        assert!(!self.failed.load(SeqCst), "a thread of the search failed");
    }

    /// All who joined the step before have left it.
    fn begin(&self, job: Option<J>) {
        *self.job.lock().unwrap_or_else(PoisonError::into_inner) = job;
        self.left.store(0, SeqCst);
        self.turn.store((self.turn.load(SeqCst) / STEP + 1) * STEP, SeqCst);
        self.ring();
    }

    fn follow(&self, work: impl Fn(J)) {
        let mut seen = 0;
        loop {
            self.wait(|| self.turn.load(SeqCst) / STEP != seen);
            let joins = |turn: u64| (turn & CLOSED == 0).then_some(turn + 1);
            let turn = self.turn.fetch_update(SeqCst, SeqCst, joins);
            seen = turn.unwrap_or_else(|closed| closed) / STEP;
            if turn.is_err() {
                continue;
            }
            // It stays until this one has left.
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
    fn every_piece_is_taken_once_and_members_take_steps_in_turn() {
        let taken: Vec<Mutex<Vec<u32>>> = (0..4).map(|_| Mutex::default()).collect();
        let next = AtomicUsize::new(0);
        let pieces: Vec<AtomicUsize> = (0..8).map(|_| AtomicUsize::new(0)).collect();
        let work = |i: usize, job: u32| {
            taken[i].lock().unwrap().push(job);
            while let Some(piece) = pieces.get(next.fetch_add(1, SeqCst)) {
                piece.fetch_add(1, SeqCst);
                if job.is_multiple_of(64) {
                    thread::sleep(std::time::Duration::from_micros(200)); // leaves pieces to the others
                }
            }
        };
        with_crew(4, work, |crew, work| {
            for job in 0..2_000 {
                if job == 1_000 {
                    thread::sleep(std::time::Duration::from_millis(20)); // they sleep, and wake again
                }
                next.store(0, SeqCst);
                crew.all(job, || work(0, job));
                assert!(pieces.iter().all(|piece| piece.load(SeqCst) == job as usize + 1));
            }
        });
        for (i, taken) in taken.into_iter().enumerate() {
            let taken = taken.into_inner().unwrap();
            assert!(taken.is_sorted_by(|one, next| one < next));
            assert!(taken.len() == 2_000 || i > 0 && taken.len() > 10, "{i}: {}", taken.len());
        }
    }

    #[test]
    fn nobody_waits_for_a_member_that_does_not_come() {
        let crew: Crew<u32> = Crew::new(2);
        let mut done = 0;
        (0..3).for_each(|job| crew.all(job, || done += 1));
        assert_eq!(done, 3);
    }

    #[test]
    fn a_member_that_has_come_is_waited_for() {
        let slow = AtomicUsize::new(0);
        let joined = AtomicBool::new(false);
        let work = |i: usize, (): ()| {
            if i == 1 {
                joined.store(true, SeqCst);
                thread::sleep(std::time::Duration::from_millis(10));
                slow.fetch_add(1, SeqCst);
            }
            while !joined.load(SeqCst) {
                thread::yield_now();
            }
        };
        with_crew(2, work, |crew, work| {
            crew.all((), || work(0, ()));
            assert_eq!(slow.load(SeqCst), 1);
        });
    }

    #[test]
    #[should_panic(expected = "a thread of the search failed")]
    fn a_member_that_fails_ends_the_search() {
        let joined = AtomicBool::new(false);
        let work = |i: usize, (): ()| {
            joined.fetch_or(i == 1, SeqCst);
            assert!(i == 0);
            while !joined.load(SeqCst) {
                thread::yield_now();
            }
        };
        with_crew(2, work, |crew, work| crew.all((), || work(0, ())));
    }
}
