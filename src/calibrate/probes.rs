//! What the kernel and the interconnect cost, as a process without privileges can see it: system calls, interrupts to
//! another CPU (`membarrier`, `mprotect` and `munmap` while a thread runs there), a cache line passed to and fro, and
//! how fast threads come and go.

use std::hint::{black_box, spin_loop};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use memmap2::MmapMut;
use rustix::thread::{CpuSet, MembarrierCommand, membarrier, sched_getaffinity, sched_setaffinity};

use super::chase::PAGE;

/// CPUs this process may run on, in order.
pub fn allowed() -> io::Result<Vec<u32>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).map(|cpu| cpu as u32).collect())
}

/// Binds the calling thread to one CPU.
pub fn pin(cpu: u32) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu as usize);
    Ok(sched_setaffinity(None, &set)?)
}

/// A system call without work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Null {
    /// `getpid`: what the others shall predict.
    Getpid,
    /// `getppid`.
    Getppid,
    /// `getuid`.
    Getuid,
    /// `getgid`.
    Getgid,
}

/// Nanoseconds of one call, over `calls` calls in a row.
pub fn system_call(which: Null, calls: u32) -> f64 {
    let began = Instant::now();
    match which {
        Null::Getpid => repeat(calls, rustix::process::getpid),
        Null::Getppid => repeat(calls, rustix::process::getppid),
        Null::Getuid => repeat(calls, rustix::process::getuid),
        Null::Getgid => repeat(calls, rustix::process::getgid),
    }
    began.elapsed().as_nanos() as f64 / f64::from(calls)
}

fn repeat<T>(calls: u32, call: impl Fn() -> T) {
    for _ in 0..calls {
        black_box(call());
    }
}

/// Nanoseconds of one step of a chain of multiplications, each of them 3 cycles and an OR: 4 cycles on every x86 core
/// since Sandy Bridge and Zen (uops.info).
pub fn multiply_step(steps: u32) -> f64 {
    let mut x = black_box(3_u64);
    let began = Instant::now();
    for _ in 0..steps {
        x = x.wrapping_mul(x | 1);
    }
    let ns = began.elapsed().as_nanos() as f64 / f64::from(steps);
    black_box(x);
    ns
}

/// Cycles of [`multiply_step`].
pub const MULTIPLY_CYCLES: f64 = 4.0;

/// Nanoseconds of one locked addition to a line in the L1, each waiting for the one before.
pub fn locked_add(steps: u32) -> f64 {
    let word = AtomicU32::new(black_box(0));
    let mut last = 0;
    let began = Instant::now();
    for _ in 0..steps {
        last = word.fetch_add(last | 1, Ordering::SeqCst);
    }
    let ns = began.elapsed().as_nanos() as f64 / f64::from(steps);
    black_box(last);
    ns
}

/// Threads that run in user mode on other CPUs and can prove it: each counts.
pub struct Company {
    counts: Vec<Arc<AtomicU32>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Company {
    /// One spinning thread pinned to each of these CPUs.
    pub fn on(cpus: &[u32]) -> Company {
        let stop = Arc::new(AtomicBool::new(false));
        let mut company = Company { counts: Vec::new(), stop: Arc::clone(&stop), threads: Vec::new() };
        for &cpu in cpus {
            let count = Arc::new(AtomicU32::new(0));
            company.counts.push(Arc::clone(&count));
            let stop = Arc::clone(&stop);
            company.threads.push(std::thread::spawn(move || {
                // A CPU taken away meanwhile: the thread then spins elsewhere and still counts.
                let _ = pin(cpu);
                while !stop.load(Ordering::Relaxed) {
                    count.fetch_add(1, Ordering::Relaxed);
                    spin_loop();
                }
            }));
        }
        company
    }

    /// Waits until every thread has been seen to run just now; false if one does not for 20 ms.
    pub fn is_running(&self) -> bool {
        self.counts.iter().all(|count| {
            let before = count.load(Ordering::Relaxed);
            let began = Instant::now();
            while count.load(Ordering::Relaxed) == before {
                if began.elapsed() > Duration::from_millis(20) {
                    return false;
                }
                spin_loop();
            }
            true
        })
    }
}

impl Drop for Company {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The lower quartile, in nanoseconds, of `tries` timings of `call`, each made while the company was seen to run. The
/// minimum would pick the calls that found the other CPU doing something else and interrupted nobody.
pub fn disturbing(
    company: &Company,
    tries: u32,
    mut call: impl FnMut() -> io::Result<Duration>,
) -> Option<f64> {
    let mut times = Vec::with_capacity(tries as usize);
    for _ in 0..tries {
        if !company.is_running() {
            continue;
        }
        times.push(call().ok()?.as_nanos() as f64);
    }
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 4).copied()
}

/// Asks for the expedited kind of `membarrier`; an error where the kernel has none.
pub fn register_membarrier() -> io::Result<()> {
    Ok(membarrier(MembarrierCommand::RegisterPrivateExpedited)?)
}

/// One expedited `membarrier`: an interrupt to every CPU that runs a thread of this process, and their answers.
pub fn membarrier_call() -> io::Result<Duration> {
    let began = Instant::now();
    membarrier(MembarrierCommand::PrivateExpedited)?;
    Ok(began.elapsed())
}

/// Takes the right to write from one page just written: a flush on every CPU that runs this process.
pub fn mprotect_call() -> io::Result<Duration> {
    let mut page = MmapMut::map_anon(PAGE)?;
    page[0] = 1;
    let began = Instant::now();
    let page = page.make_read_only()?;
    let took = began.elapsed();
    drop(page);
    Ok(took)
}

/// Unmaps one page just written.
pub fn munmap_call() -> io::Result<Duration> {
    let mut page = MmapMut::map_anon(PAGE)?;
    page[0] = 1;
    let began = Instant::now();
    drop(page);
    Ok(began.elapsed())
}

/// Nanoseconds of passing a cache line to a thread on another CPU: half a round, over `rounds` rounds.
pub fn line_transfer(cpu: u32, rounds: u32) -> f64 {
    let ball = Arc::new(AtomicU32::new(0));
    let ready = Arc::new(Barrier::new(2));
    let other = {
        let (ball, ready) = (Arc::clone(&ball), Arc::clone(&ready));
        std::thread::spawn(move || {
            let _ = pin(cpu);
            ready.wait();
            for round in 0..rounds {
                while ball.load(Ordering::Acquire) != 2 * round + 1 {
                    spin_loop();
                }
                ball.store(2 * round + 2, Ordering::Release);
            }
        })
    };
    ready.wait();
    let began = Instant::now();
    for round in 0..rounds {
        ball.store(2 * round + 1, Ordering::Release);
        while ball.load(Ordering::Acquire) != 2 * round + 2 {
            spin_loop();
        }
    }
    let ns = began.elapsed().as_nanos() as f64 / f64::from(2 * rounds);
    let _ = other.join();
    ns
}

/// Nanoseconds of starting a thread and waiting for its end, over `count` threads in a row.
pub fn thread_life(count: u32) -> f64 {
    let began = Instant::now();
    for _ in 0..count {
        let _ = std::thread::spawn(|| {}).join();
    }
    began.elapsed().as_nanos() as f64 / f64::from(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_probe_takes_time_and_ends() {
        for which in [Null::Getpid, Null::Getppid, Null::Getuid, Null::Getgid] {
            assert!(system_call(which, 10) > 0.0);
        }
        assert!(multiply_step(1000) > 0.0 && locked_add(1000) > 0.0 && thread_life(2) > 0.0);
        assert!(mprotect_call().is_ok() && munmap_call().is_ok());
    }

    #[test]
    fn company_is_seen_to_run_and_goes_away() {
        let cpus = allowed().unwrap();
        let company = Company::on(&cpus[..1]);
        // Where others want this CPU, too, it may stand still for longer than is waited.
        assert!((0..1_000).any(|_| company.is_running()));
        assert!((0..1_000).any(|_| disturbing(&company, 4, munmap_call).is_some()));
        drop(company);
    }

    #[test]
    fn a_thread_can_be_bound_to_one_of_its_cpus() {
        let cpu = *allowed().unwrap().last().unwrap();
        std::thread::spawn(move || {
            pin(cpu).unwrap();
            assert_eq!(allowed().unwrap(), vec![cpu]);
        })
        .join()
        .unwrap();
    }
}
