//! One CPU as the trace shows it: its call queue, the interrupt it is in, its stay in the kernel, and its figures.

use std::collections::VecDeque;

use hdrhistogram::Histogram;
use rustc_hash::FxHashMap;

use super::{
    folded::Folded,
    lengths::{Lengths, Times},
    row::Mode,
    tasks::Sym,
};
use crate::trace::{
    cause::Cause,
    event::{NoiseSums, Vector},
};

/// A call waiting in a queue.
#[derive(Clone, Copy, Debug)]
pub struct Queued {
    /// Function.
    pub func: Sym,
    /// Call data, 0 if unknown.
    pub csd: u64,
    /// Operation.
    pub op: u32,
    /// Row, or [`NONE`](super::row::NONE).
    pub row: u32,
    /// Line where it was queued.
    pub line: u64,
    /// CPU that queued it.
    pub sender: u32,
    /// Queued between the beginning of a handler and its first call: it may have joined that run.
    pub raced: bool,
}

/// An interrupt being handled.
#[derive(Clone, Copy, Debug)]
pub struct Irq {
    /// Vector.
    pub vector: Vector,
    /// When it began.
    pub at_ns: u64,
    /// Line of its beginning.
    pub line: u64,
    /// Number on this CPU, from 1.
    pub number: u32,
    /// Its cause, if it is not a call.
    pub cause: Option<Cause>,
    /// Sender, for a reschedule; and whether that task was only interrupted.
    pub comm: Sym,
    /// See there.
    pub by_interrupt: bool,
    /// First call it ran.
    pub first: u32,
    /// It ran a call, with or without a row.
    pub ran: bool,
    /// Function of an hrtimer it ran, the tick's only if there was no other; for timers.
    pub hrtimer: Sym,
    /// It took the CPU from a task, and nothing else had taken it before.
    pub outermost: bool,
    /// It came while the CPU was idle.
    pub idle: bool,
    /// Cause of the first call, if that has no row.
    pub bare: Option<Cause>,
    /// It began inside the window.
    pub counted: bool,
}

/// What the last `tick_stop` said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TickState {
    /// None was recorded.
    #[default]
    Unknown,
    /// It could not be stopped.
    Kept,
    /// It was.
    Stopped,
    /// It was, for the idle loop: a task that runs has it again, unless a later one says otherwise.
    StoppedInIdle,
}

/// A timer interrupt that has ended; whether it was a kept tick, the next `tick_stop` may tell.
#[derive(Clone, Copy, Debug)]
pub struct PendingTimer {
    /// The interrupt.
    pub irq: Irq,
    /// How long it took, if its end was recorded.
    pub length_ns: Option<u64>,
    /// What it is if no `tick_stop` says more.
    pub otherwise: Cause,
}

/// A task that still wanted to run when another took its CPU.
#[derive(Clone, Copy, Debug)]
pub struct Away {
    /// The task.
    pub pid: u32,
    /// Who runs in its place.
    pub by: Sym,
    /// The work item that runs there, if any.
    pub work: Sym,
    /// Since when.
    pub since_ns: u64,
}

/// A call this CPU has queued for another, until it is clear whether an interrupt was sent for it.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools)] // as above
pub struct Sent {
    /// Target.
    pub target: u32,
    /// Function.
    pub func: Sym,
    /// The target's queue was empty, so an interrupt must follow.
    pub derived: bool,
    /// One did.
    pub recorded: bool,
    /// See [`Queued::raced`]: both are consistent.
    pub raced: bool,
    /// Line where it was queued.
    pub line: u64,
    /// Inside the window.
    pub counted: bool,
}

/// An interrupt that call-queue order does not explain, or a missing one.
#[derive(Clone, Copy, Debug)]
pub struct Unexplained {
    /// Line where the call was queued.
    pub line: u64,
    /// Function.
    pub func: Sym,
    /// Call-queue order asks for an interrupt.
    pub derived: bool,
    /// The trace has one.
    pub recorded: bool,
}

/// Key of an IPI sent to this CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpiKey {
    /// For a queued call of this function.
    Call(Sym),
    /// A reschedule, by the place it was sent from.
    Reschedule(Sym),
    /// Another handler.
    Other(Sym),
}

/// Time between interrupts.
#[derive(Clone, Debug, Default)]
pub struct Quiet {
    /// How long, in microseconds.
    pub histogram: Option<Histogram<u64>>,
    /// The longest.
    pub longest_ns: u64,
    /// When that began.
    pub longest_from_ns: u64,
    /// End of the last interrupt.
    pub since_ns: Option<u64>,
}

/// Interrupts over time, in 64 equal stretches whose length doubles when the recording outgrows them.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// Beginning of the first stretch.
    pub from_ns: Option<u64>,
    /// Length of a stretch.
    pub step_ns: u64,
    /// Interrupts in each.
    pub counts: [u32; 64],
}

impl Default for Timeline {
    fn default() -> Self {
        Self { from_ns: None, step_ns: 1_000_000, counts: [0; 64] }
    }
}

impl Timeline {
    /// Counts one at this time.
    pub fn count(&mut self, at_ns: u64) {
        let after = at_ns.saturating_sub(*self.from_ns.get_or_insert(at_ns));
        while after / self.step_ns >= 64 {
            for i in 0..32 {
                self.counts[i] = self.counts[2 * i].saturating_add(self.counts[2 * i + 1]);
            }
            self.counts[32..].fill(0);
            self.step_ns = self.step_ns.saturating_mul(2);
        }
        let slot = &mut self.counts[(after / self.step_ns) as usize];
        *slot = slot.saturating_add(1);
    }
}

/// Interrupts less than 10 ms apart, three or more of them.
#[derive(Clone, Debug, Default)]
pub struct Bursts {
    /// How many.
    pub count: u64,
    /// Most interrupts in one.
    pub largest: u64,
    /// When that began.
    pub largest_at_ns: u64,
    run: u64,
    run_from_ns: u64,
    last_ns: u64,
}

impl Bursts {
    /// One interrupt.
    pub fn count(&mut self, at_ns: u64) {
        if self.run > 0 && at_ns.saturating_sub(self.last_ns) < 10_000_000 {
            self.run += 1;
        } else {
            self.run = 1;
            self.run_from_ns = at_ns;
        }
        self.last_ns = at_ns;
        self.count += u64::from(self.run == 3);
        if self.run >= 3 && self.run > self.largest {
            self.largest = self.run;
            self.largest_at_ns = self.run_from_ns;
        }
    }
}

/// Latencies that were summed before.
#[derive(Clone, Debug)]
pub struct LatencySum {
    /// `irq`, `thread` or `user-ret`.
    pub context: Sym,
    /// Measurements, if printed.
    pub n: Option<u64>,
    /// Their mean.
    pub mean_ns: Option<u64>,
    /// The longest.
    pub max_ns: u64,
}

/// What is counted per CPU.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Events recorded on this CPU.
    pub events: u64,
    /// Interrupts by vector.
    pub vectors: [u64; Vector::COUNT],
    /// Interrupts by cause, except those whose first call has a row (its cause may become clearer later).
    pub causes: FxHashMap<Cause, u64>,
    /// Calls executed by function: `csd_function_entry`, or a probe on the function.
    pub calls: FxHashMap<Sym, u64>,
    /// Calls that must have run, since an interrupt emptied the queue they were in.
    pub implied: FxHashMap<Sym, u64>,
    /// Functions this CPU, as a sender, ran itself.
    pub local: FxHashMap<Sym, u64>,
    /// IPIs sent to it.
    pub ipis: FxHashMap<IpiKey, u64>,
    /// Interrupts call-queue order asks for, by function.
    pub derived: FxHashMap<Sym, u64>,
    /// Of those calls, interrupts recorded.
    pub recorded: FxHashMap<Sym, u64>,
    /// Calls queued while a handler was about to take the queue, where both outcomes are consistent.
    pub raced: u64,
    /// Where the two differ; the first hundred.
    pub unexplained: Vec<Unexplained>,
    /// How often they differ.
    pub unexplained_count: u64,
    /// Reschedules by sender, whether that was only interrupted, and cause.
    pub reschedulers: FxHashMap<(Sym, bool, Cause), u64>,
    /// Entries into the kernel (`user_exit`).
    pub entries: u64,
    /// Returns to user mode.
    pub returns: u64,
    /// Quiet time.
    pub quiet: Quiet,
    /// How long handlers ran, by cause; not those with rows.
    pub lengths: FxHashMap<Cause, Lengths>,
    /// Calls that are not kept one by one, summed.
    pub folded: Folded,
    /// What else took the CPU: soft interrupts, tasks, NMIs, firmware, by cause and name.
    pub others: FxHashMap<(Cause, Sym), Lengths>,
    /// Through what senders came to interrupt it: the function that had text patched, the timer that was armed here.
    pub vias: FxHashMap<(Cause, Sym), u64>,
    /// Interrupts while the CPU was idle.
    pub idle_interrupts: u64,
    /// Functions of hrtimers that ran in timer interrupts.
    pub hrtimers: FxHashMap<Sym, u64>,
    /// Latencies timerlat measured, by context, in nanoseconds.
    pub latencies: FxHashMap<Sym, Times>,
    /// Reschedules sent to it: cause, sender, whether that was only interrupted.
    pub sent_reschedules: FxHashMap<(Cause, Sym, bool), u64>,
    /// First event on it that is counted.
    pub first_ns: Option<u64>,
    /// Pieces of the recording with events of it.
    pub pieces: Vec<u32>,
    /// Lines at which interrupts without rows began, by cause; the first thousand of each.
    pub lines: FxHashMap<Cause, Vec<u64>>,
    /// Interrupts over time.
    pub timeline: Timeline,
    /// Interrupts close together.
    pub bursts: Bursts,
    /// osnoise events and soft interrupts, by kind and name, in nanoseconds.
    pub noise: FxHashMap<(Sym, Sym), Times>,
    /// Ticks kept, by dependency.
    pub tick_kept: FxHashMap<Sym, u64>,
    /// Times another task was switched in, by its name.
    pub switched_to: FxHashMap<Sym, u64>,
    /// Work items run, by function.
    pub work: FxHashMap<Sym, u64>,
    /// Rows of osnoise, added up.
    pub sums: Option<NoiseSums>,
    /// Latencies that were summed before.
    pub latency_sums: Vec<LatencySum>,
    /// Interrupts of which not even the vector is known.
    pub unnamed: u64,
    /// What took the CPU, how often but not for how long: soft interrupts, tasks, NMIs, firmware.
    pub untimed: FxHashMap<Cause, u64>,
    /// Events missing on this CPU.
    pub holes: u64,
}

impl Figures {
    /// Interrupts of every vector, and those of which none is known.
    pub fn interrupts(&self) -> u64 {
        self.vectors.iter().sum::<u64>() + self.unnamed
    }
}

/// One CPU.
#[derive(Default)]
#[allow(clippy::struct_excessive_bools)] // as above
pub struct Cpu {
    /// It has `user_enter` or `user_exit` events, which exist only on nohz_full CPUs.
    pub tracked: bool,
    /// Any event was recorded on it.
    pub seen: bool,
    /// Task of the last event.
    pub pid: u32,
    /// In user mode.
    pub user: Option<bool>,
    /// When that last changed.
    pub changed_ns: u64,
    /// The soft interrupt that runs, and since when.
    pub softirq: Option<(u64, Sym)>,
    /// What the last `tick_stop` said.
    pub tick: TickState,
    /// The last timer interrupt, until it is clear what it was.
    pub pending_timer: Option<PendingTimer>,
    /// Kinds of events seen on it, bits of [`super::knowledge`].
    pub kinds: u32,
    /// In which of the recordings that the text holds it has events: the first, and whether there is another.
    pub recording: Option<u64>,
    /// See above.
    pub in_several: bool,
    /// What was sent to it, as bits of [`super::knowledge`], and when the first of each.
    pub named: Vec<(u32, u64)>,
    /// The task that was displaced, and by whom.
    pub away: Option<Away>,
    /// A kernel thread runs, as far as `sched_switch` tells.
    pub kernel_thread: bool,
    /// An `irq_handler_entry` of arm64's inter-processor interrupts whose `ipi_entry` has not come: when, and its line.
    pub wrapper: Option<(u64, u64)>,
    /// One whose `ipi_entry` has come: its exit says nothing more.
    pub wrapped: bool,
    /// `sched_switch` is recorded on it, so idle is known.
    pub switches: bool,
    /// Its call queue.
    pub queue: VecDeque<Queued>,
    /// Calls the running interrupt took from the queue.
    pub running: Vec<Queued>,
    /// Interrupts being handled, innermost last.
    pub irqs: Vec<Irq>,
    /// Interrupts so far.
    pub irq_number: u32,
    /// Function of the call that runs now.
    pub calling: Sym,
    /// Stays so far.
    pub stay: u32,
    /// This stay has a reason other than remote calls.
    pub stay_other: bool,
    /// Rows that ran in this stay.
    pub stay_rows: Vec<u32>,
    /// Rows queued since the CPU last entered for another reason.
    pub awaiting_other: Vec<u32>,
    /// Rows queued since its mode last changed.
    pub awaiting_mode: Vec<u32>,
    /// Reschedules sent and not yet arrived: cause, sender, whether that was only interrupted.
    pub reschedules: VecDeque<(Cause, Sym, bool)>,
    /// Calls it queued for others.
    pub sent: Vec<Sent>,
    /// Function of the last call it queued.
    pub last_queued: Sym,
    /// What is counted.
    pub figures: Figures,
}

impl Cpu {
    /// Something of this kind was sent to it.
    pub fn is_named(&mut self, kind: u32, at_ns: u64) {
        if self.named.iter().all(|&(other, _)| other != kind) {
            self.named.push((kind, at_ns));
        }
    }

    /// What it is doing now.
    pub fn mode(&self) -> Mode {
        match self.user {
            Some(true) => Mode::User,
            _ if self.seen && self.pid == 0 && self.irqs.is_empty() && (self.tracked || self.switches) => {
                Mode::Idle
            }
            Some(false) => Mode::Kernel,
            None => Mode::Unknown,
        }
    }

    /// In an interrupt that runs the call queue.
    pub fn in_call_irq(&self) -> bool {
        self.irqs.last().is_some_and(|irq| irq.vector.runs_call_queue())
    }

    /// Takes a call out of what runs, or out of the queue if the whole of it is taken now.
    pub fn take(&mut self, func: Sym, csd: u64) -> Option<Queued> {
        let find = |list: &[Queued]| {
            let by_data = list.iter().position(|q| csd != 0 && q.csd == csd && q.func == func);
            by_data.or_else(|| list.iter().position(|q| q.func == func && (csd == 0 || q.csd == 0)))
        };
        if let Some(i) = find(&self.running) {
            return Some(self.running.remove(i));
        }
        let i = find(self.queue.make_contiguous())?;
        let found = self.queue.remove(i);
        self.running.extend(self.queue.drain(..));
        found
    }
}
