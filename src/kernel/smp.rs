//! Call-function queues (FACTS 2.9; Linux 6.12 `kernel/smp.c`): an interrupt is sent only for a call that finds
//! the queue empty, so there are fewer interrupts than calls. No clock.

use std::collections::VecDeque;

use super::program::ProgId;
use super::step::Cpu;

/// One queued call (a `call_single_data`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Call {
    /// Who waits for it.
    pub from: Cpu,
    /// What runs.
    pub run: ProgId,
    /// The driver's number of the request it serves.
    pub request: u32,
    /// How many CPUs have the same call and come after this one, on the sender's socket and on others: the sender
    /// waits for one after the other.
    pub behind: (Cpu, Cpu),
}

/// The queue of one CPU.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct CallQueue(VecDeque<Call>);

impl CallQueue {
    /// `llist_add`: `true` if the queue was empty, so that an interrupt must be sent.
    pub fn add(&mut self, call: Call) -> bool {
        self.0.push_back(call);
        self.0.len() == 1
    }

    /// The oldest call.
    pub fn take(&mut self) -> Option<Call> {
        self.0.pop_front()
    }

    /// The oldest call, left where it is.
    pub fn first(&self) -> Option<&Call> {
        self.0.front()
    }

    /// No call is queued.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
