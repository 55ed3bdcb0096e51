//! What a system call does to its CPU's TLB, step by step: recorded once, done again by each replay.

use super::super::stats::FlushKind;
use super::Timed;
use crate::hw::invalidate::Scope;
use crate::kernel::step::Cpu;

/// A step of a system call. Times count from its beginning, without those of misses before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// MOV CR3.
    Switch {
        /// Address-space slot.
        asid: u16,
        /// The user half.
        user: bool,
        /// Without a flush.
        keep: bool,
    },
    /// MOV CR4 that changes PGE.
    Pge(bool),
    /// INVPCID.
    Apply(Scope),
    /// One page, whose misses are counted with the flush before.
    Touch {
        /// Page number.
        page: u64,
        /// Its translation is global.
        global: bool,
        /// What flushed last.
        by: FlushKind,
    },
    /// Pages one after the other.
    Pages {
        /// First page number.
        first: u64,
        /// How many.
        pages: u32,
        /// Their translations are global.
        global: bool,
        /// What flushed last.
        by: FlushKind,
    },
    /// Everything is flushed by then.
    Flushed(u64),
    /// The instruction stream is serialised by then.
    Serialised(u64),
    /// The body begins.
    Entered(u64),
}

/// Steps so far.
#[derive(Clone, Debug)]
pub(super) struct Log {
    began: u64,
    steps: Vec<Step>,
    /// Time of misses, and pages touched.
    late: u64,
    pages: u64,
    /// Interrupts were open.
    opens: bool,
}

/// What was recorded.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// In order.
    pub steps: Vec<Step>,
    /// Time of misses.
    pub late: u64,
    /// Pages touched.
    pub pages: u64,
    /// IF was set by an op.
    pub opens: bool,
}

impl Log {
    fn after(&self, clock: u64) -> u64 {
        clock - self.began - self.late
    }

    /// Keeps the last mark of a kind: nobody sees those before.
    fn mark(&mut self, step: Step) {
        let kind = std::mem::discriminant(&step);
        self.steps.retain(|s| std::mem::discriminant(s) != kind);
        self.steps.push(step);
    }

    pub(super) fn flushed(&mut self, clock: u64) {
        self.mark(Step::Flushed(self.after(clock)));
    }

    pub(super) fn serialised(&mut self, clock: u64) {
        self.mark(Step::Serialised(self.after(clock)));
    }
}

impl Timed {
    /// Records what is done from now on, in a call that begins at `began`.
    pub fn record(&mut self, began: u64) {
        self.log = Some(Log { began, steps: Vec::new(), late: 0, pages: 0, opens: false });
    }

    /// Ends the recording.
    pub fn recorded(&mut self) -> Recorded {
        let Log { steps, late, pages, opens, .. } = self.log.take().expect("`record` began it");
        Recorded { steps, late, pages, opens }
    }

    /// An op sets or clears IF.
    #[inline]
    pub(super) fn note_if(&mut self, on: bool) {
        if let Some(log) = &mut self.log {
            log.opens |= on;
        }
    }

    /// Does a step on a CPU's TLB. (time, walks)
    #[inline]
    pub(super) fn on_tlb(&mut self, cpu: Cpu, step: Step) -> (u64, u64) {
        let Some(tlbs) = &mut self.tlbs else { return (0, 0) };
        let (time, walks) = tlbs[usize::from(cpu)].take(&step);
        if let Some(log) = &mut self.log {
            log.steps.push(step);
            log.late += time;
            log.pages += match step {
                Step::Touch { .. } => 1,
                Step::Pages { pages, .. } => u64::from(pages),
                _ => 0,
            };
        }
        (time, walks)
    }

    /// The body of the program that is recorded begins.
    #[inline]
    pub fn note_entered(&mut self, cpu: Cpu) {
        if let Some(log) = &mut self.log {
            log.mark(Step::Entered(log.after(self.cores[usize::from(cpu)].clock)));
        }
    }

    /// Flushes of a CPU's TLB so far.
    pub fn tlb_flushes(&self, cpu: Cpu) -> u64 {
        self.tlbs.as_ref().map_or(0, |tlbs| tlbs[usize::from(cpu)].flushes)
    }

    /// The time of so many pages if each of them misses everything.
    pub fn longest_misses(&self, cpu: Cpu, pages: u64) -> u64 {
        self.tlbs.as_ref().map_or(0, |tlbs| tlbs[usize::from(cpu)].longest(pages))
    }
}
