//! One CPU's marks become steps: the stays in the kernel, each with its reasons, in the order in which they happen.

#[cfg(test)]
mod tests;

use super::{Mark, Marked, NEVER, Target, Workload};
use crate::kernel::step::Cpu;

/// What happens to a CPU at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It enters the kernel for a reason of its own, if it is not there.
    Enter {
        /// Number of the stay.
        stay: u32,
        /// By an interrupt.
        irq: bool,
        /// The stay was recorded and counted.
        counted: bool,
    },
    /// It enters the kernel if a call waits that this interrupt ran.
    Arm {
        /// See there.
        stay: u32,
        /// See there.
        irq: u32,
        /// See there.
        counted: bool,
    },
    /// This interrupt takes what waits, if anything does.
    Take {
        /// See there.
        irq: u32,
        /// The stay it lies in.
        stay: u32,
        /// It was counted.
        counted: bool,
        /// How long it lasted, at most four seconds.
        length_ns: u32,
    },
    /// The idle task begins or stops to run.
    Idle(bool),
    /// An interrupt out of idle begins, if it is no call's, or ends.
    IdleIrq(bool),
    /// It returns to user mode.
    Leave {
        /// The stay that ends.
        stay: u32,
        /// It was recorded as an entry into the kernel, and counted.
        counted: bool,
    },
}

/// A stay in the kernel as it is put together.
struct Stay {
    begin: u64,
    /// `Exit` was recorded and counted.
    counted: bool,
    /// It needs no reason among `inner`.
    own: bool,
    inner: Vec<Marked>,
}

/// What an interrupt that ran calls was about.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// First and last time one of its calls was queued.
    pub queued: (u64, u64),
}

/// Where the walk is.
enum At {
    /// In user mode.
    User,
    /// In the kernel.
    Kernel(Stay),
    /// In the kernel in the run against, in user mode in the run in favour.
    Unknown(Option<Stay>),
}

/// See the module.
pub struct Timeline<'a> {
    favour: bool,
    margin: u64,
    cpu: Cpu,
    /// Its entries are recorded.
    tracked: bool,
    served: &'a rustc_hash::FxHashMap<(Cpu, u32), Served>,
    stays: u32,
    out: Vec<(u64, Step)>,
}

impl<'a> Timeline<'a> {
    /// The steps of a CPU.
    pub fn of(
        target: &Target,
        workload: &Workload,
        favour: bool,
        served: &'a rustc_hash::FxHashMap<(Cpu, u32), Served>,
    ) -> Vec<(u64, Step)> {
        let mut t = Timeline {
            favour,
            margin: workload.margin_ns,
            cpu: target.cpu,
            tracked: target.marks.iter().any(|m| m.mark == Mark::Exit),
            served,
            stays: 0,
            out: Vec::with_capacity(target.marks.len()),
        };
        let mut at = At::Unknown(t.unknown(0));
        for mark in &target.marks {
            if matches!(mark.mark, Mark::Idle(_)) && !workload.idle_known {
                continue;
            }
            at = t.walk(at, *mark);
        }
        if let At::Kernel(stay) | At::Unknown(Some(stay)) = at {
            t.close(&stay, NEVER);
        }
        let mut latest = 0;
        for (time, _) in &mut t.out {
            latest = latest.max(*time);
            *time = latest;
        }
        t.out
    }

    /// What is not known begins.
    fn unknown(&self, begin: u64) -> Option<Stay> {
        (!self.favour).then(|| Stay { begin, counted: false, own: true, inner: Vec::new() })
    }

    fn walk(&mut self, at: At, m: Marked) -> At {
        let time = m.at_ns;
        match (m.mark, at) {
            (Mark::Enter, At::Kernel(stay) | At::Unknown(Some(stay))) => {
                self.close(&stay, time);
                At::User
            }
            (Mark::Enter, At::User | At::Unknown(None)) => At::User,
            (Mark::Exit, at) => {
                // Whatever was unknown: it comes from user mode.
                if let At::Kernel(stay) | At::Unknown(Some(stay)) = at {
                    self.close(&stay, time);
                }
                At::Kernel(Stay { begin: time, counted: m.counted, own: false, inner: Vec::new() })
            }
            (Mark::Lost, At::Kernel(mut stay)) => {
                if self.favour {
                    stay.counted = false;
                    self.close(&stay, time);
                    return At::Unknown(None);
                }
                At::Unknown(Some(stay))
            }
            (Mark::Lost, At::Unknown(Some(stay))) if self.favour => {
                self.close(&stay, time);
                At::Unknown(None)
            }
            (Mark::Lost, At::Unknown(stay)) => At::Unknown(stay),
            (Mark::Lost, At::User) => At::Unknown(self.unknown(time)),
            (_, At::Kernel(mut stay)) => {
                stay.inner.push(m);
                At::Kernel(stay)
            }
            (mark, At::Unknown(Some(mut stay))) => {
                stay.inner.push(m);
                if self.favour && mark == Mark::Idle(false) {
                    self.close(&stay, time);
                    return At::Unknown(None);
                }
                At::Unknown(Some(stay))
            }
            (Mark::Idle(true), At::Unknown(None)) => {
                At::Unknown(Some(Stay { begin: time, counted: false, own: true, inner: vec![m] }))
            }
            (mark, at @ (At::User | At::Unknown(None))) => {
                let (end, own) = match mark {
                    Mark::Calls { end_ns, .. } => (end_ns, false),
                    Mark::OwnIrq { end_ns } => (end_ns, true),
                    Mark::Own => (time, true),
                    Mark::Idle(_) | Mark::Enter | Mark::Exit | Mark::Lost => return at,
                };
                // Seen in the kernel, though no entry was.
                let counted = m.counted && !self.tracked;
                self.close(&Stay { begin: time, counted, own, inner: vec![m] }, end);
                at
            }
        }
    }

    /// In the run in favour the kernel begins later and ends earlier than recorded, by what the clock cannot tell.
    fn begins(&self, time: u64) -> u64 {
        // What happens at the same time as a call comes after it.
        if self.favour { time.saturating_add(self.margin) } else { time.saturating_sub(self.margin + 1) }
    }

    fn ends(&self, time: u64) -> u64 {
        if self.favour { time.saturating_sub(self.margin + 1) } else { time.saturating_add(self.margin) }
    }

    fn close(&mut self, stay: &Stay, end: u64) {
        let number = self.stays;
        self.stays += 1;
        let by_call = |m: &Marked| match m.mark {
            Mark::Calls { irq, .. } => Some(irq),
            _ => None,
        };
        let own = |m: &&Marked| matches!(m.mark, Mark::Own | Mark::OwnIrq { .. } | Mark::Idle(_));
        let first = stay.inner.first();
        // A call that was queued when the CPU was in the kernel already did not bring it there.
        let brought = first.and_then(by_call).filter(|irq| {
            !stay.own
                && self
                    .served
                    .get(&(self.cpu, *irq))
                    .is_none_or(|s| s.queued.0 == NEVER || s.queued.0 <= stay.begin)
        });
        let begin = self.begins(stay.begin);
        match brought {
            Some(irq) => {
                self.out.push((begin, Step::Arm { stay: number, irq, counted: stay.counted }));
            }
            None => {
                let irq = first.is_some_and(|m| matches!(m.mark, Mark::OwnIrq { .. }));
                self.out.push((begin, Step::Enter { stay: number, irq, counted: stay.counted }));
            }
        }
        let mut held = brought.is_none();
        let mut idle = false;
        let mut irq_ends = NEVER;
        for m in &stay.inner {
            if irq_ends <= m.at_ns {
                self.out.push((irq_ends, Step::IdleIrq(false)));
                irq_ends = NEVER;
            }
            if !held && own(&m) {
                held = true;
                let irq = matches!(m.mark, Mark::OwnIrq { .. });
                let enter = Step::Enter { stay: number, irq, counted: stay.counted };
                self.out.push((self.begins(m.at_ns), enter));
            }
            match m.mark {
                Mark::Calls { irq, end_ns } => {
                    let last = self.served.get(&(self.cpu, irq)).map_or(0, |s| s.queued.1);
                    let time = if last == NEVER { m.at_ns } else { m.at_ns.max(last.min(end_ns)) };
                    let length_ns = u32::try_from(end_ns.saturating_sub(m.at_ns)).unwrap_or(u32::MAX);
                    if idle && irq_ends == NEVER {
                        irq_ends = end_ns.max(time);
                    }
                    self.out.push((time, Step::Take { irq, stay: number, counted: m.counted, length_ns }));
                }
                Mark::OwnIrq { end_ns } if idle && irq_ends == NEVER => {
                    self.out.push((m.at_ns, Step::IdleIrq(true)));
                    irq_ends = end_ns;
                }
                Mark::Idle(on) if on != idle => {
                    if irq_ends != NEVER {
                        self.out.push((m.at_ns, Step::IdleIrq(false)));
                        irq_ends = NEVER;
                    }
                    idle = on;
                    let time = if on { self.ends(m.at_ns) } else { self.begins(m.at_ns) };
                    self.out.push((time, Step::Idle(on)));
                }
                Mark::Idle(_) | Mark::Own | Mark::OwnIrq { .. } | Mark::Enter | Mark::Exit | Mark::Lost => {}
            }
        }
        if irq_ends != NEVER {
            self.out.push((irq_ends.min(end), Step::IdleIrq(false)));
        }
        if idle && end != NEVER {
            self.out.push((end, Step::Idle(false)));
        }
        if end != NEVER {
            let counted = stay.counted && self.tracked;
            self.out.push((self.ends(end), Step::Leave { stay: number, counted }));
        }
    }
}
