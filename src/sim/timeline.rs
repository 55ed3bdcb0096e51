//! What happened when, on one CPU: a ring of the last events, or all of them. Each CPU has its own, so that the
//! order in which CPUs are brought forward never shows.

use std::collections::VecDeque;

use super::stats::Cause;
use crate::kernel::step::Cpu;

/// Kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum Kind {
    /// An interrupt; the duration is until its return.
    Interrupt,
    /// A flush in entry code that was owed.
    EntryFlush,
    /// A flush request was over before this CPU flushed.
    Deferral,
    /// An initiator's request, from call to consumption; `other` is its number of interrupts.
    Request,
    /// Ordinary kernel code ran while a flush was owed.
    Hazard,
    /// A rule of the machine was broken.
    Violation,
}

/// Names of the kinds, in order.
pub const KINDS: [&str; 6] = ["interrupt", "entry_flush", "deferral", "request", "hazard", "violation"];

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Event {
    /// When it began.
    pub time_ps: u64,
    /// How long it took; 0 for a moment.
    pub duration_ps: u64,
    /// Where.
    pub cpu: Cpu,
    /// What.
    pub kind: Kind,
    /// Why.
    pub cause: Cause,
    /// The other CPU, or a count.
    pub other: u32,
}

/// The events of one CPU.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Timeline {
    keep: usize,
    events: VecDeque<Event>,
    /// Events that no longer are in the ring.
    pub dropped: u64,
}

impl Timeline {
    /// Keeps the last `keep` events.
    pub fn new(keep: usize) -> Self {
        Timeline { keep, events: VecDeque::new(), dropped: 0 }
    }

    /// Adds one.
    pub fn push(&mut self, event: Event) {
        if self.events.len() >= self.keep {
            self.dropped += 1;
            if self.events.pop_front().is_none() {
                return;
            }
        }
        self.events.push_back(event);
    }

    /// All kept events.
    pub fn events(&self) -> impl ExactSizeIterator<Item = &Event> {
        self.events.iter()
    }
}
