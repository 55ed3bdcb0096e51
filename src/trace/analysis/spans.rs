//! What took a CPU, one by one: from when, for how long, why. The sums of the report are of these; a timeline shows them.

use super::{Analysis, MAX_ROWS, row::NEVER};
use crate::trace::cause::Cause;

/// One interruption of a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The CPU.
    pub cpu: u32,
    /// When it began, ns of the recording's clock.
    pub at_ns: u64,
    /// How long it took; `None`: its end was not recorded.
    pub length_ns: Option<u64>,
    /// Why.
    pub cause: Cause,
}

impl Analysis {
    pub(super) fn span(&mut self, cpu: u32, at_ns: u64, length_ns: Option<u64>, cause: Cause) {
        if self.spans.len() < MAX_ROWS {
            self.spans.push(Span { cpu, at_ns, length_ns, cause });
        }
    }

    /// Interruptions of isolated CPUs, those by remote calls included, whose causes are given in the order of
    /// [`Analysis::calls`]; sorted by time. The first 131,072 of either sort.
    pub fn spans(&self, causes: &[Cause]) -> Vec<Span> {
        let isolated = self.isolated_cpus();
        let (rows, ..) = self.calls();
        let called = rows.iter().zip(causes).filter(|(r, _)| r.first && r.irq != 0 && r.ran_ns != NEVER).map(
            |(r, cause)| Span {
                cpu: r.cpu,
                at_ns: r.ran_ns,
                length_ns: (r.irq_len_ns > 0).then_some(u64::from(r.irq_len_ns)),
                cause: *cause,
            },
        );
        let mut spans: Vec<Span> =
            self.spans.iter().filter(|s| isolated.contains(&s.cpu)).copied().chain(called).collect();
        spans.sort_by_key(|s| (s.at_ns, s.cpu));
        spans
    }
}
