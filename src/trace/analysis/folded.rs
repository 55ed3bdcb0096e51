//! Remote calls to one CPU, summed: those that are kept one by one when the report is made, the others when they leave.

use rustc_hash::FxHashMap;

use super::{
    Analysis,
    lengths::Lengths,
    row::{NEVER, Row},
    sender::Op,
    tasks::Sym,
};
use crate::trace::cause::{self, Cause};

const MAX_LINES: usize = 1000;
const MAX_NAMES: usize = 4096;

/// Who sent a call: a name, or the thread whose name may still be heard of; neither if that is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Who {
    /// The name.
    pub comm: Sym,
    /// The thread, if there is no name.
    pub pid: u32,
}

impl Who {
    /// Nobody known.
    pub const UNKNOWN: Who = Who { comm: Sym::NONE, pid: u32::MAX };

    fn of(op: &Op) -> Self {
        if op.comm == Sym::NONE {
            Who { comm: Sym::NONE, pid: op.pid }
        } else {
            Who { comm: op.comm, pid: 0 }
        }
    }
}

/// See above.
#[derive(Clone, Debug, Default)]
pub struct Folded {
    /// Interrupts by the cause of the first call that they ran.
    pub interrupts: FxHashMap<Cause, u64>,
    /// Calls that ran.
    pub calls: FxHashMap<Cause, u64>,
    /// Calls that an event or a probe shows run, by function.
    pub traced: FxHashMap<Sym, u64>,
    /// Who had them run, whether that was only interrupted, and why.
    pub who: FxHashMap<(Who, bool, Cause), u64>,
    /// The same of calls that were sent.
    pub sent: FxHashMap<(Who, bool, Cause), u64>,
    /// How long those interrupts took.
    pub lengths: FxHashMap<Cause, Lengths>,
    /// Where they began; the first thousand of each cause.
    pub lines: FxHashMap<Cause, Vec<u64>>,
}

fn count(map: &mut FxHashMap<(Who, bool, Cause), u64>, key: (Who, bool, Cause)) {
    let key =
        if map.len() < MAX_NAMES || map.contains_key(&key) { key } else { (Who::UNKNOWN, key.1, key.2) };
    *map.entry(key).or_default() += 1;
}

impl Folded {
    /// One call.
    pub fn add(&mut self, row: &Row, cause: Cause, op: Option<&Op>) {
        if let Some(op) = op.filter(|_| row.queued_ns != NEVER) {
            count(&mut self.sent, (Who::of(op), op.in_interrupt, cause));
        }
        if row.ran_ns == NEVER {
            return;
        }
        *self.calls.entry(cause).or_default() += 1;
        if row.traced {
            *self.traced.entry(row.func).or_default() += 1;
        }
        let who = op.map_or(Who::UNKNOWN, Who::of);
        count(&mut self.who, (who, op.is_some_and(|op| op.in_interrupt), cause));
        if row.first && row.irq != 0 {
            *self.interrupts.entry(cause).or_default() += 1;
            let lines = self.lines.entry(cause).or_default();
            if lines.len() < MAX_LINES {
                lines.push(row.irq_line);
            }
            if row.irq_len_ns > 0 {
                let length = u64::from(row.irq_len_ns);
                self.lengths.entry(cause).or_default().add(row.ran_ns, length, row.outermost);
            }
        }
    }
}

impl Analysis {
    /// A call that is not kept leaves.
    pub(super) fn fold(&mut self, row: &Row) {
        if !row.counted {
            return;
        }
        let op = self.ops.get(row.op).copied();
        let cause = op.map_or_else(|| cause::of_function(self.symbols.bytes(row.func)), |op| op.cause);
        self.cpu(row.cpu).figures.folded.add(row, cause, op.as_ref());
    }

    /// The name behind a sender, which may have been heard since.
    pub(super) fn name_of(&self, who: Who) -> String {
        let comm = if who.comm == Sym::NONE { self.tasks.known(who.pid) } else { who.comm };
        if comm == Sym::NONE && who.pid < 1 << 22 {
            format!("pid {}", who.pid)
        } else {
            self.symbols.text(comm)
        }
    }
}
