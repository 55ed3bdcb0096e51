//! Remote calls: queued by one CPU, announced by an interrupt, run by another.

use super::{
    Analysis, MARGIN_NS,
    cpu::{IpiKey, Queued, Sent, Unexplained},
    kept::Kept,
    knowledge::{CALLS, RESCHEDULES},
    row::{Mode, NEVER, NONE, Row},
    sender::{Evidence, Op},
    tasks::Sym,
};
use crate::trace::{
    MAX_CPUS,
    cause::{self, Cause},
    event::Event,
};

const MAX_QUEUE: usize = 4096;
const MAX_SENT: usize = 256;
const MAX_UNEXPLAINED: usize = 100;

impl Analysis {
    pub(super) fn sender_name(&mut self, e: &Event<'_>) -> Sym {
        self.tasks.name(e.task.pid, e.task.comm, &mut self.symbols)
    }

    pub(super) fn new_op(&mut self, e: &Event<'_>, func: Sym, cause: Cause, evidence: Evidence) -> u32 {
        let comm = self.sender_name(e);
        let op = Op {
            func,
            comm,
            pid: e.task.pid,
            cpu: e.cpu,
            in_interrupt: e.in_interrupt.unwrap_or(false),
            at_ns: e.at_ns,
            line: e.line,
            cause,
            evidence,
        };
        self.add_op(op)
    }

    pub(super) fn add_op(&mut self, op: Op) -> u32 {
        if self.ops.is_full() {
            self.rows.seal(); // a call that is kept belongs to an operation that is
        }
        self.ops.push(op).0
    }

    pub(super) fn new_row(&mut self, row: Row) -> u32 {
        if !self.may_be_isolated(row.cpu) {
            return NONE;
        }
        let counted = row.counted;
        let (number, gone) = self.rows.push(row);
        self.rows_dropped += u64::from(counted && !self.rows.keeps(number));
        if let Some(row) = gone {
            self.fold(&row);
        }
        number
    }

    /// Queues a call for `target`; the row remembers what the target was doing.
    pub(super) fn queue(&mut self, e: &Event<'_>, target: u32, func: Sym, csd: u64, op: u32, raced: bool) {
        let counted = self.window.open;
        let at = e.at_ns;
        let cpu = self.cpu(target);
        let mode = cpu.mode();
        let sure = mode != Mode::Unknown && at.saturating_sub(cpu.changed_ns) > MARGIN_NS;
        let row = self.new_row(Row {
            op,
            func,
            cpu: target,
            queued_ns: at,
            ran_ns: NEVER,
            ran_line: 0,
            irq_line: 0,
            other_ns: NEVER,
            irq: 0,
            irq_len_ns: 0,
            stay: 0,
            mode,
            mode_sure: sure,
            stay_other: false,
            first: false,
            outermost: true,
            traced: false,
            counted,
        });
        let listed = self.rows.keeps(row);
        let cpu = self.cpu(target);
        if listed {
            cpu.awaiting_other.push(row);
            cpu.awaiting_mode.push(row);
        }
        if cpu.queue.len() >= MAX_QUEUE {
            cpu.queue.pop_front();
        }
        cpu.queue.push_back(Queued { func, csd, op, row, line: e.line, sender: e.cpu, raced });
    }

    pub(super) fn csd_queue(
        &mut self,
        e: &Event<'_>,
        target: u32,
        (name, callsite): (&[u8], &[u8]),
        csd: u64,
    ) {
        let func = self.symbols.number(name);
        let mut cause = cause::of_call(name, e.task.comm);
        let kernel = cause == Cause::KernelFlushUnknown;
        let mut founded = Evidence::Function;
        let from = cause::of_callsite(callsite);
        if let Some(place) = from.filter(|_| !kernel && matches!(cause, Cause::NohzKick | Cause::CallOther)) {
            (cause, founded) = (place, Evidence::Callsite);
        } else if cause == Cause::NohzKick
            && let Some((armed, via)) = self.armed_on(e, target)
        {
            (cause, founded) = (armed, Evidence::Before);
            *self.cpu(target).figures.vias.entry((armed, via)).or_default() += 1;
        }
        let context = self.contexts.of(e.task.pid);
        let open = context.continued(func, target);
        let announced = if kernel { context.announced.take() } else { None };
        let unannounced = context.unannounced();
        let same = |op: &u32, ops: &Kept<Op>| ops.get(*op).is_some_and(|o| o.func == func && o.cpu == e.cpu);
        let op = announced.or(open.filter(|op| same(op, &self.ops))).unwrap_or_else(|| {
            let (cause, evidence) = if kernel { unannounced } else { (cause, founded) };
            self.new_op(e, func, cause, evidence)
        });
        if let Some(o) = self.ops.get_mut(op) {
            o.func = func;
            // Since 7.3 the call site of a flush names the function that asked for it.
            if let Some(place) = from.filter(|_| kernel && o.cause == Cause::KernelFlushUnknown) {
                o.refine(place, Evidence::Callsite);
            }
        }
        let context = self.contexts.of(e.task.pid);
        context.queued(func, op, target);
        context.last = Some(op);
        if kernel {
            context.latest = Some(op);
        }
        // A broadcast may have been queued for everyone by its probe, before the first csd event was seen.
        if let Some(already) =
            self.cpu(target).queue.iter_mut().find(|q| q.op == op && op != NONE && q.csd == 0)
        {
            already.csd = csd;
            already.func = func;
            return;
        }
        let to = self.cpu(target);
        let derived = to.queue.is_empty();
        let raced = derived && to.in_call_irq() && to.irqs.last().is_some_and(|i| !i.ran);
        self.settle(e.cpu, |s| s.target == target && s.func == func);
        self.queue(e, target, func, csd, op, raced);
        self.cpu(target).is_named(CALLS, e.at_ns);
        let counted = self.window.open;
        let sender = self.cpu(e.cpu);
        sender.last_queued = func;
        if sender.sent.len() >= MAX_SENT {
            self.settle(e.cpu, |_| true);
        }
        self.cpu(e.cpu).sent.push(Sent {
            target,
            func,
            derived,
            recorded: false,
            raced,
            line: e.line,
            counted,
        });
    }

    /// Decides the calls of `sender` that match: is the interrupt call-queue order asks for the one recorded?
    pub(super) fn settle(&mut self, sender: u32, which: impl Fn(&Sent) -> bool) {
        if self.kinds.ipi == 0 {
            return;
        }
        let mut i = 0;
        while i < self.cpu(sender).sent.len() {
            if !which(&self.cpus[sender as usize].sent[i]) {
                i += 1;
                continue;
            }
            let sent = self.cpus[sender as usize].sent.remove(i);
            if !sent.counted {
                continue;
            }
            let figures = &mut self.cpu(sent.target).figures;
            let derived = if sent.raced { sent.recorded } else { sent.derived };
            figures.raced += u64::from(sent.raced);
            *figures.derived.entry(sent.func).or_default() += u64::from(derived);
            *figures.recorded.entry(sent.func).or_default() += u64::from(sent.recorded);
            if derived != sent.recorded {
                figures.unexplained_count += 1;
                if figures.unexplained.len() < MAX_UNEXPLAINED {
                    figures.unexplained.push(Unexplained {
                        line: sent.line,
                        func: sent.func,
                        derived,
                        recorded: sent.recorded,
                    });
                }
            }
        }
    }

    pub(super) fn ipi(&mut self, e: &Event<'_>, target: u32, callsite: &[u8], callback: &[u8]) {
        if target >= MAX_CPUS {
            return;
        }
        let counted = u64::from(self.window.open);
        if callback.is_empty() {
            let place = self.symbols.number(callsite);
            let comm = self.sender_name(e);
            let cause = cause::of_reschedule(callsite);
            let inside = e.in_interrupt.unwrap_or(false);
            let cpu = self.cpu(target);
            cpu.is_named(RESCHEDULES, e.at_ns);
            if cpu.reschedules.len() >= 64 {
                cpu.reschedules.pop_front();
            }
            cpu.reschedules.push_back((cause, comm, inside));
            *cpu.figures.sent_reschedules.entry((cause, comm, inside)).or_default() += counted;
            *cpu.figures.ipis.entry(IpiKey::Reschedule(place)).or_default() += counted;
            return;
        }
        if !callback.starts_with(b"generic_smp") {
            let key = IpiKey::Other(self.symbols.number(callback));
            *self.cpu(target).figures.ipis.entry(key).or_default() += counted;
            return;
        }
        self.cpu(target).is_named(CALLS, e.at_ns);
        // The callback is the same for every call; the function is in the csd_queue_cpu events just before.
        let func = self.cpu(e.cpu).last_queued;
        *self.cpu(target).figures.ipis.entry(IpiKey::Call(func)).or_default() += counted;
        let sender = self.cpu(e.cpu);
        if let Some(sent) = sender.sent.iter_mut().rev().find(|s| s.target == target && !s.recorded) {
            sent.recorded = true;
            let (line, derived) = (sent.line, sent.derived);
            if !derived {
                // The queue was empty after all: what was before this call has run unseen.
                let queue = &mut self.cpu(target).queue;
                while queue.front().is_some_and(|q| q.line < line) {
                    queue.pop_front();
                }
            }
        }
    }

    /// A call ran here.
    pub(super) fn ran(&mut self, e: &Event<'_>, func: Sym, call: Option<Queued>, traced: bool) {
        // A call belongs to its interrupt, also where the window begins or ends in the middle of one.
        let open = self.window.open;
        let irq = self.cpu(e.cpu).irqs.last().filter(|i| i.vector.runs_call_queue());
        let counted = irq.map_or(open, |i| i.counted);
        let call = call.unwrap_or_else(|| {
            let (op, row) = self.unqueued(e, func);
            Queued { func, csd: 0, op, row, line: e.line, sender: e.cpu, raced: false }
        });
        if let Some(b) = self.broadcasts.iter_mut().find(|b| b.op == call.op) {
            b.done.push(e.cpu);
        }
        let cause =
            self.ops.get(call.op).map_or_else(|| cause::of_function(self.symbols.bytes(func)), |op| op.cause);
        let row = call.row;
        let cpu = self.cpu(e.cpu);
        let figures = &mut cpu.figures;
        if counted {
            *(if traced { &mut figures.calls } else { &mut figures.implied }).entry(func).or_default() += 1;
        }
        let (irq, irq_line) = cpu.irqs.last().map_or((0, 0), |i| (i.number, i.line));
        let stay = cpu.stay;
        let mut first = false;
        if let Some(irq) = cpu.irqs.last_mut().filter(|i| i.vector.runs_call_queue()) {
            first = !irq.ran;
            irq.ran = true;
            if first {
                irq.first = row;
                irq.bare = (row == NONE).then_some(cause);
            }
        }
        if self.rows.keeps(row) {
            self.cpu(e.cpu).stay_rows.push(row);
        }
        if let Some(r) = self.rows.get_mut(row) {
            r.ran_ns = e.at_ns;
            r.ran_line = e.line;
            r.irq = irq;
            r.irq_line = irq_line;
            r.stay = stay;
            r.first = first;
            r.traced = traced;
            r.counted = counted;
        }
    }

    /// A call that no event queued: find the broadcast it belongs to, or leave its sender unknown.
    pub(super) fn unqueued(&mut self, e: &Event<'_>, func: Sym) -> (u32, u32) {
        let here = e.cpu;
        let op =
            self.broadcasts.iter().find(|b| b.func == func && !b.done.contains(&here)).map_or(NONE, |b| b.op);
        let op = if op == NONE { self.heard_op(e, func) } else { op };
        let queued_ns = self.ops.get(op).map_or(NEVER, |o| o.at_ns);
        let row = self.new_row(Row {
            op,
            func,
            cpu: here,
            queued_ns,
            ran_ns: NEVER,
            ran_line: 0,
            irq_line: 0,
            other_ns: NEVER,
            irq: 0,
            irq_len_ns: 0,
            stay: 0,
            mode: Mode::Unknown,
            mode_sure: false,
            stay_other: false,
            first: false,
            outermost: true,
            traced: true,
            counted: self.window.open,
        });
        if self.rows.keeps(row) {
            self.cpu(here).awaiting_other.push(row);
        }
        (op, row)
    }

    /// The handler on `target` has taken its queue. A call queued since the handler began joined it if no interrupt
    /// was sent for it: `csd_queue_cpu` and `call_function_entry` are both recorded before the list is touched.
    pub(super) fn join_race(&mut self, target: u32) {
        if self.cpu(target).irqs.last().is_none_or(|i| i.ran) {
            return;
        }
        let mut i = 0;
        while let Some(q) = self.cpu(target).queue.get(i).copied() {
            let sent_for = |s: &Sent| s.line == q.line && s.target == target && s.recorded;
            if q.raced && !self.cpu(q.sender).sent.iter().any(sent_for) {
                let cpu = self.cpu(target);
                cpu.queue.remove(i);
                cpu.running.push(q);
            } else {
                i += 1;
            }
        }
    }
}
