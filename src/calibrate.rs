//! Loops that measure the machine they run on. Each returns a mean over its steps; who calls repeats it, pins the
//! thread and decides what the figures mean.

use std::{
    hint::{black_box, spin_loop},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

fn per_step(start: Instant, steps: u64) -> f64 {
    start.elapsed().as_nanos() as f64 / steps.max(1) as f64
}

/// Nanoseconds per dependent load along a chain: `next` holds, at each index, the index of the next load.
/// Indices beyond the end wrap to 0, so no chain can panic.
pub fn chase(next: &[u32], from: u32, steps: u64) -> f64 {
    let mut at = from;
    let start = Instant::now();
    for _ in 0..steps {
        at = next.get(at as usize).copied().unwrap_or(0);
    }
    black_box(at);
    per_step(start, steps)
}

/// Nanoseconds per round of one multiplication and one addition that depend on each other: four core cycles (three
/// and one) on every x86-64 core of the last fifteen years.
pub fn four_cycles(steps: u64) -> f64 {
    let mut x = black_box(1u64);
    let k = black_box(0x9e37_79b9_7f4a_7c15u64);
    let start = Instant::now();
    for _ in 0..steps {
        x = x.wrapping_mul(k).wrapping_add(k);
    }
    black_box(x);
    per_step(start, steps)
}

/// Nanoseconds per `getpid`.
pub fn getpid(steps: u64) -> f64 {
    let start = Instant::now();
    for _ in 0..steps {
        black_box(std::process::id());
    }
    per_step(start, steps)
}

/// Nanoseconds per `getppid`, a system call of about the same length.
pub fn getppid(steps: u64) -> f64 {
    let start = Instant::now();
    for _ in 0..steps {
        black_box(std::os::unix::process::parent_id());
    }
    per_step(start, steps)
}

/// Nanoseconds to start a thread that does nothing and wait for its end: clone, two switches, exit.
pub fn thread_round(steps: u64) -> f64 {
    let start = Instant::now();
    for _ in 0..steps {
        let _ = thread::spawn(|| {}).join();
    }
    per_step(start, steps)
}

/// Threads that do nothing but stay in user mode, so that interrupts to their CPUs can be timed.
pub struct Spinners {
    stop: Arc<AtomicBool>,
    alive: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Spinners {
    /// Starts some; they may run where the calling thread may run now.
    pub fn start(count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let alive = Arc::new(AtomicU64::new(0));
        let threads = (0..count)
            .map(|_| {
                let (stop, alive) = (Arc::clone(&stop), Arc::clone(&alive));
                thread::spawn(move || {
                    alive.fetch_add(1, Ordering::Relaxed);
                    while !stop.load(Ordering::Relaxed) {
                        spin_loop();
                    }
                })
            })
            .collect();
        Self { stop, alive, threads }
    }

    /// How many have begun to run.
    pub fn running(&self) -> u64 {
        self.alive.load(Ordering::Relaxed)
    }

    /// Ends them.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Spinners {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_that_leaves_its_buffer_wraps_instead_of_panicking() {
        assert!(chase(&[7, 0], 1, 1000) >= 0.0);
        assert!(chase(&[], 0, 10) >= 0.0);
    }

    #[test]
    fn spinners_run_and_end() {
        let mut two = Spinners::start(2);
        while two.running() < 2 {
            thread::yield_now();
        }
        two.stop();
        assert!(two.threads.is_empty());
    }

    #[test]
    fn every_loop_takes_time() {
        for ns in [four_cycles(100_000), getpid(1000), getppid(1000), thread_round(5)] {
            assert!(ns > 0.0);
        }
    }
}
