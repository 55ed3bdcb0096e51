//! One streaming pass over a recording. It keeps counts, the calls to isolated CPUs and the purges, never the events,
//! so memory does not depend on the length of the recording.

pub mod cpu;
pub mod lazy;
mod report;
pub mod sender;
pub mod tasks;

use std::collections::VecDeque;

use cpu::{Cpu, IpiKey, Irq, Mode, NEVER, NONE, Queued, Row, Sent, Unexplained, histogram};
use sender::{Contexts, Evidence, Op, Step, pages, probed, range};
use tasks::{Sym, Symbols, Tasks};

pub use report::{CpuReport, Range, Report, poisson_95};

use super::{
    cause::{self, Cause},
    event::{Csd, Event, Hole, Vector, What, for_each_cpu},
    import::Sink,
};

/// Rows and operations kept; what comes later is counted but not replayed.
const MAX_ROWS: usize = 1 << 20;
const MAX_QUEUE: usize = 4096;
const MAX_SENT: usize = 256;
const MAX_UNEXPLAINED: usize = 100;
const MAX_BROADCASTS: usize = 64;
const MAX_NESTED: usize = 8;
const MAX_LINES: usize = 1000;
const MAX_NOISES: usize = 1024;
/// Time stamps have microseconds, and asm entry code runs before `user_exit` and after `user_enter`: a change this
/// close to a decision leaves it open.
const MARGIN_NS: u64 = 2_000;

/// Programs that record, by the beginning of their names.
const RECORDERS: &[&[u8]] =
    &[b"trace-cmd", b"perf", b"bpftrace", b"rtla", b"osnoise", b"timerlat", b"tlbcore", b"cyclictest"];

/// Which kinds of events a recording has; what is missing decides what can be said.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Kinds {
    /// context_tracking.
    pub user: u64,
    /// irq_vectors.
    pub vectors: u64,
    /// csd_queue_cpu.
    pub csd_queue: u64,
    /// csd_function_entry.
    pub csd_entry: u64,
    /// ipi_send_*.
    pub ipi: u64,
    /// vmalloc.
    pub vmalloc: u64,
    /// kprobes.
    pub probes: u64,
    /// Stack traces.
    pub stacks: u64,
    /// sched_switch.
    pub switches: u64,
    /// System calls.
    pub syscalls: u64,
    /// tlb_flush.
    pub tlb_flush: u64,
    /// osnoise.
    pub noise: u64,
}

/// Calls of `flush_tlb_kernel_range` seen by a probe.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct RangeCalls {
    /// All.
    pub calls: u64,
    /// More than 33 pages, so `do_flush_tlb_all` on every CPU.
    pub full: u64,
    /// The others.
    pub ranged: u64,
}

/// The stretch of the recording that is counted.
#[derive(Clone, Debug, Default)]
struct Window {
    open: bool,
    begun: bool,
    begin: Option<(u64, String)>,
    end: Option<(u64, String)>,
}

/// Which CPUs are isolated.
#[derive(Clone, Debug)]
pub enum Isolated {
    /// The user said so.
    Given(Vec<u32>),
    /// The recorder wrote it down.
    Recorded(Vec<u32>),
    /// Those with `user_enter`/`user_exit` events.
    Deduce,
}

/// A broadcast whose handlers are recognised by probes, for kernels without csd events.
struct Broadcast {
    op: u32,
    func: Sym,
    done: Vec<u32>,
}

/// The pass.
pub struct Analysis {
    isolated: Isolated,
    window: Window,
    cpus: Vec<Cpu>,
    symbols: Symbols,
    tasks: Tasks,
    lazy: lazy::Lazy,
    contexts: Contexts,
    ops: Vec<Op>,
    rows: Vec<Row>,
    rows_dropped: u64,
    broadcasts: VecDeque<Broadcast>,
    kinds: Kinds,
    range_calls: RangeCalls,
    flush_all_calls: u64,
    probe_counts: rustc_hash::FxHashMap<Sym, u64>,
    purge_probes: u64,
    forks: u64,
    events: u64,
    first_ns: Option<u64>,
    last_ns: u64,
    backwards: u64,
    no_clock: bool,
}

impl Analysis {
    /// A pass over one recording.
    pub fn new(isolated: Isolated) -> Self {
        Self {
            isolated,
            window: Window { open: true, ..Window::default() },
            cpus: Vec::new(),
            symbols: Symbols::default(),
            tasks: Tasks::default(),
            lazy: lazy::Lazy::default(),
            contexts: Contexts::default(),
            ops: Vec::new(),
            rows: Vec::new(),
            rows_dropped: 0,
            broadcasts: VecDeque::new(),
            kinds: Kinds::default(),
            range_calls: RangeCalls::default(),
            flush_all_calls: 0,
            probe_counts: rustc_hash::FxHashMap::default(),
            purge_probes: 0,
            forks: 0,
            events: 0,
            first_ns: None,
            last_ns: 0,
            backwards: 0,
            no_clock: false,
        }
    }

    fn cpu(&mut self, cpu: u32) -> &mut Cpu {
        let cpu = cpu as usize;
        if cpu >= self.cpus.len() {
            self.cpus.resize_with(cpu + 1, Cpu::default);
        }
        &mut self.cpus[cpu]
    }

    fn may_be_isolated(&self, cpu: u32) -> bool {
        match &self.isolated {
            Isolated::Given(list) | Isolated::Recorded(list) => list.contains(&cpu),
            Isolated::Deduce => true,
        }
    }

    /// `X_BEGIN` and `X_END` in `trace_marker` frame what is counted; without them it is everything.
    fn marker(&mut self, text: &[u8], at_ns: u64) -> bool {
        let first = text.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        let label = || String::from_utf8_lossy(text.trim_ascii()).into_owned();
        if first.ends_with(b"BEGIN") {
            if !self.window.begun {
                self.restart();
                self.window.begun = true;
                self.window.begin = Some((at_ns, label()));
            }
            self.window.open = true;
            true
        } else if first.ends_with(b"_END") || first == b"END" {
            self.window.open = false;
            self.window.end = Some((at_ns, label()));
            true
        } else {
            false
        }
    }

    /// Counting starts here: context is kept, figures are not.
    fn restart(&mut self) {
        for cpu in &mut self.cpus {
            cpu.figures = cpu::Figures::default();
            cpu.sent.iter_mut().for_each(|s| s.counted = false);
            cpu.irqs.iter_mut().for_each(|i| i.counted = false);
        }
        self.rows.iter_mut().for_each(|r| r.counted = false);
        self.lazy.restart();
        self.range_calls = RangeCalls::default();
        self.flush_all_calls = 0;
        self.probe_counts.clear();
        self.purge_probes = 0;
        self.forks = 0;
        self.events = 0;
        self.first_ns = None;
        self.rows_dropped = 0;
    }

    fn sender_name(&mut self, e: &Event<'_>) -> Sym {
        self.tasks.name(e.task.pid, e.task.comm, &mut self.symbols)
    }

    fn new_op(&mut self, e: &Event<'_>, func: Sym, cause: Cause, evidence: Evidence) -> u32 {
        if self.ops.len() >= MAX_ROWS {
            return NONE;
        }
        let comm = self.sender_name(e);
        self.ops.push(Op {
            func,
            comm,
            pid: e.task.pid,
            cpu: e.cpu,
            in_interrupt: e.in_interrupt.unwrap_or(false),
            at_ns: e.at_ns,
            line: e.line,
            cause,
            evidence,
        });
        self.ops.len() as u32 - 1
    }

    fn new_row(&mut self, row: Row) -> u32 {
        if !self.may_be_isolated(row.cpu) {
            return NONE;
        }
        if self.rows.len() >= MAX_ROWS {
            self.rows_dropped += u64::from(row.counted);
            return NONE;
        }
        self.rows.push(row);
        self.rows.len() as u32 - 1
    }

    /// Queues a call for `target`; the row remembers what the target was doing.
    fn queue(&mut self, e: &Event<'_>, target: u32, func: Sym, csd: u64, op: u32, raced: bool) {
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
            traced: false,
            counted,
        });
        let cpu = self.cpu(target);
        if row != NONE {
            cpu.awaiting_other.push(row);
            cpu.awaiting_mode.push(row);
        }
        if cpu.queue.len() >= MAX_QUEUE {
            cpu.queue.pop_front();
        }
        cpu.queue.push_back(Queued { func, csd, op, row, line: e.line, sender: e.cpu, raced });
    }

    fn csd_queue(&mut self, e: &Event<'_>, target: u32, name: &[u8], csd: u64) {
        let func = self.symbols.number(name);
        let cause = cause::of_function(name);
        let kernel = cause == Cause::KernelFlushUnknown;
        // Who switches probes and events on patches text on every CPU: the observer effect.
        let recorder = cause == Cause::TextSync && RECORDERS.iter().any(|r| e.task.comm.starts_with(r));
        let cause = if recorder { Cause::Recording } else { cause };
        let context = self.contexts.of(e.task.pid);
        let open = context.continued(func, target);
        let announced = if kernel { context.announced.take() } else { None };
        let unannounced = context.unannounced();
        let same =
            |op: &u32, ops: &[Op]| ops.get(*op as usize).is_some_and(|o| o.func == func && o.cpu == e.cpu);
        let op = announced.or(open.filter(|op| same(op, &self.ops))).unwrap_or_else(|| {
            let (cause, evidence) = if kernel { unannounced } else { (cause, Evidence::Function) };
            self.new_op(e, func, cause, evidence)
        });
        if let Some(o) = self.ops.get_mut(op as usize) {
            o.func = func;
        }
        let context = self.contexts.of(e.task.pid);
        context.queued(func, op, target);
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
    fn settle(&mut self, sender: u32, which: impl Fn(&Sent) -> bool) {
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

    fn ipi(&mut self, e: &Event<'_>, target: u32, callsite: &[u8], callback: &[u8]) {
        if target >= super::MAX_CPUS {
            return;
        }
        let counted = u64::from(self.window.open);
        if callback.is_empty() {
            let place = self.symbols.number(callsite);
            let comm = self.sender_name(e);
            let cpu = self.cpu(target);
            if cpu.reschedules.len() >= 64 {
                cpu.reschedules.pop_front();
            }
            cpu.reschedules.push_back((place, comm));
            *cpu.figures.ipis.entry(IpiKey::Reschedule(place)).or_default() += counted;
            return;
        }
        if !callback.starts_with(b"generic_smp") {
            let key = IpiKey::Other(self.symbols.number(callback));
            *self.cpu(target).figures.ipis.entry(key).or_default() += counted;
            return;
        }
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
    fn ran(&mut self, e: &Event<'_>, func: Sym, call: Option<Queued>, traced: bool) {
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
        let cause = self
            .ops
            .get(call.op as usize)
            .map_or_else(|| cause::of_function(self.symbols.bytes(func)), |op| op.cause);
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
        if row != NONE {
            cpu.stay_rows.push(row);
            let r = &mut self.rows[row as usize];
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
    fn unqueued(&mut self, e: &Event<'_>, func: Sym) -> (u32, u32) {
        let here = e.cpu;
        let op =
            self.broadcasts.iter().find(|b| b.func == func && !b.done.contains(&here)).map_or(NONE, |b| b.op);
        let queued_ns = self.ops.get(op as usize).map_or(NEVER, |o| o.at_ns);
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
            traced: true,
            counted: self.window.open,
        });
        if row != NONE {
            self.cpu(here).awaiting_other.push(row);
        }
        (op, row)
    }

    /// The handler on `target` has taken its queue. A call queued since the handler began joined it if no interrupt
    /// was sent for it: `csd_queue_cpu` and `call_function_entry` are both recorded before the list is touched.
    fn join_race(&mut self, target: u32) {
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

    fn irq_entry(&mut self, e: &Event<'_>, vector: Vector, name: &[u8]) {
        let open = self.window.open;
        let mut cause = match vector {
            Vector::CallFunction | Vector::CallFunctionSingle => None,
            Vector::Reschedule => Some(Cause::RescheduleOther),
            Vector::IrqWork => Some(Cause::IrqWork),
            Vector::LocalTimer => Some(Cause::Tick),
            Vector::Other => Some(Cause::OtherVector),
            Vector::Device => Some(Cause::Device),
        };
        let mut comm = if vector == Vector::Device { self.symbols.number(name) } else { Sym::NONE };
        while self.cpu(e.cpu).irqs.iter().any(|i| i.vector == vector)
            || self.cpu(e.cpu).irqs.len() >= MAX_NESTED
        {
            self.irq_close(e, None); // its exit was lost
        }
        if vector == Vector::Reschedule
            && let Some((place, by)) = self.cpu(e.cpu).reschedules.pop_front()
        {
            cause = Some(cause::of_reschedule(self.symbols.bytes(place)));
            comm = by;
        }
        let cpu = self.cpu(e.cpu);
        cpu.irq_number = cpu.irq_number.saturating_add(1);
        let number = cpu.irq_number;
        if vector.runs_call_queue() {
            cpu.running.extend(cpu.queue.drain(..));
        } else {
            self.entered_otherwise(e);
        }
        let cpu = self.cpu(e.cpu);
        cpu.irqs.push(Irq {
            vector,
            at_ns: e.at_ns,
            line: e.line,
            number,
            cause,
            comm,
            first: NONE,
            ran: false,
            bare: None,
            counted: open,
        });
        if open {
            cpu.figures.vectors[vector as usize] += 1;
            cpu.figures.timeline.count(e.at_ns);
            cpu.figures.bursts.count(e.at_ns);
            let quiet = &mut cpu.figures.quiet;
            if let Some(since) = quiet.since_ns {
                let gap = e.at_ns.saturating_sub(since);
                quiet.histogram.get_or_insert_with(histogram).record(gap / 1000).unwrap_or_default();
                if gap > quiet.longest_ns {
                    quiet.longest_ns = gap;
                    quiet.longest_from_ns = since;
                }
            }
            quiet.since_ns = Some(e.at_ns);
        }
    }

    /// The innermost interrupt ends; `None` if its end was not recorded.
    fn irq_close(&mut self, e: &Event<'_>, ended: Option<Vector>) {
        let cpu = self.cpu(e.cpu);
        let Some(at) =
            ended.map_or(cpu.irqs.len().checked_sub(1), |v| cpu.irqs.iter().rposition(|i| i.vector == v))
        else {
            return;
        };
        if cpu.irqs[at].vector.runs_call_queue() {
            // What is left of the queue has run without an event of its own (irq_work does).
            let left = std::mem::take(&mut cpu.running);
            for call in left {
                self.ran(e, call.func, Some(call), false);
            }
        }
        let queue_known = self.kinds.csd_queue > 0;
        let cpu = self.cpu(e.cpu);
        let irq = cpu.irqs.remove(at);
        let length = ended.map_or(0, |_| e.at_ns.saturating_sub(irq.at_ns));
        if irq.first != NONE {
            let row = &mut self.rows[irq.first as usize];
            row.irq_len_ns = u32::try_from(length).unwrap_or(u32::MAX);
            return;
        }
        let cause =
            irq.cause.or(irq.bare).unwrap_or(if queue_known { Cause::CallEmpty } else { Cause::CallUnknown });
        if cause == Cause::CallUnknown {
            cpu.stay_other = true;
        }
        if !irq.counted {
            return;
        }
        let figures = &mut cpu.figures;
        *figures.causes.entry(cause).or_default() += 1;
        let lines = figures.lines.entry(cause).or_default();
        if lines.len() < MAX_LINES {
            lines.push(irq.line);
        }
        if ended.is_some() {
            figures.lengths.entry(cause).or_insert_with(histogram).record(length).unwrap_or_default();
        }
        if irq.comm != Sym::NONE {
            *figures.reschedulers.entry((irq.comm, cause)).or_default() += 1;
        }
    }

    /// The CPU has a reason to be in the kernel that no remote call gave it.
    fn entered_otherwise(&mut self, e: &Event<'_>) {
        let cpu = self.cpu(e.cpu);
        cpu.stay_other = true;
        for row in std::mem::take(&mut cpu.awaiting_other) {
            self.rows[row as usize].other_ns = e.at_ns;
        }
    }

    fn mode_change(&mut self, e: &Event<'_>, user: bool) {
        let open = self.window.open;
        self.cpu(e.cpu).tracked = true;
        if user {
            while !self.cpu(e.cpu).irqs.is_empty() {
                self.irq_close(e, None); // its exit was lost
            }
        }
        let cpu = self.cpu(e.cpu);
        let waiting = std::mem::take(&mut cpu.awaiting_mode);
        cpu.user = Some(user);
        cpu.changed_ns = e.at_ns;
        if user {
            cpu.figures.returns += u64::from(open);
            let other = cpu.stay_other;
            for row in std::mem::take(&mut cpu.stay_rows) {
                self.rows[row as usize].stay_other = other;
            }
        } else {
            cpu.figures.entries += u64::from(open);
            cpu.stay = cpu.stay.saturating_add(1);
            cpu.stay_other = false;
            cpu.stay_rows.clear();
        }
        for row in waiting {
            let row = &mut self.rows[row as usize];
            if e.at_ns.saturating_sub(row.queued_ns) <= MARGIN_NS {
                row.mode_sure = false;
            }
        }
    }

    fn probe(&mut self, e: &Event<'_>, name: &[u8], function: &[u8], args: &[u8]) {
        let function = probed(name, function);
        let sym = self.symbols.number(function);
        let open = u64::from(self.window.open);
        *self.probe_counts.entry(sym).or_default() += open;
        if cause::is_handler(function) {
            // Its csd event, if there is one, has counted it; outside a call interrupt the sender runs it itself.
            if self.cpu(e.cpu).calling == sym {
                return;
            }
            if self.cpu(e.cpu).in_call_irq() {
                let call = self.cpu(e.cpu).take(sym, 0);
                self.ran(e, sym, call, true);
            } else {
                *self.cpu(e.cpu).figures.local.entry(sym).or_default() += open;
            }
            return;
        }
        let step = self.contexts.of(e.task.pid).probe(function, args);
        match step {
            Step::KernelRange => {
                let range = range(args);
                let full = range.is_none_or(|r| pages(r).1);
                self.range_calls.calls += open;
                *(if full { &mut self.range_calls.full } else { &mut self.range_calls.ranged }) += open;
                let (cause, evidence) = self.contexts.of(e.task.pid).kernel_range(range);
                self.contexts.of(e.task.pid).flushed();
                if matches!(cause, Cause::VmallocPurge | Cause::VmUnmapAliases | Cause::KernelFlushUnknown) {
                    self.lazy.detach();
                }
                let func: &[u8] = if full { b"do_flush_tlb_all" } else { b"do_kernel_range_flush" };
                self.broadcast(e, func, cause, evidence);
            }
            Step::FlushAll => {
                self.flush_all_calls += open;
                let (cause, evidence) = self.contexts.of(e.task.pid).flush_all();
                self.broadcast(e, b"do_flush_tlb_all", cause, evidence);
            }
            Step::Context => self.purge_probes += u64::from(function == b"__purge_vmap_area_lazy") * open,
            Step::Foreign => {}
        }
    }

    /// A probe announces a flush of every CPU. Kernels before 6.5 have no csd events: then the probe queues the calls.
    fn broadcast(&mut self, e: &Event<'_>, func: &[u8], cause: Cause, evidence: Evidence) {
        let func = self.symbols.number(func);
        let op = self.new_op(e, func, cause, evidence);
        let context = self.contexts.of(e.task.pid);
        context.announced = Some(op);
        context.latest = Some(op);
        context.close();
        if self.kinds.csd_queue > 0 {
            return;
        }
        if self.broadcasts.len() >= MAX_BROADCASTS {
            self.broadcasts.pop_front();
        }
        self.broadcasts.push_back(Broadcast { op, func, done: vec![e.cpu] });
        for target in 0..self.cpus.len() as u32 {
            let known = match &self.isolated {
                Isolated::Given(list) | Isolated::Recorded(list) => list.contains(&target),
                Isolated::Deduce => self.cpus[target as usize].tracked,
            };
            if known && target != e.cpu {
                self.queue(e, target, func, 0, op, false);
            }
        }
    }

    fn stack(&mut self, e: &Event<'_>, frames: &[u8]) {
        let Some(cause) = cause::of_stack(frames) else { return };
        let Some(context) = self.contexts.get(e.task.pid) else { return };
        let op = context.announced.or(context.latest);
        if let Some(op) = op.and_then(|op| self.ops.get_mut(op as usize))
            && (op.cause == Cause::KernelFlushUnknown || op.cause.entry().class != cause::Class::Other)
        {
            op.refine(cause, Evidence::Stack);
        }
    }

    /// osnoise tells a name and a length at the end of what took the time. Without irq_vectors it is all there is.
    fn noise(&mut self, e: &Event<'_>, kind: &[u8], name: &[u8], duration_ns: u64) {
        let key = (self.symbols.number(kind), self.symbols.number(name));
        let open = self.window.open;
        let noises = &mut self.cpu(e.cpu).figures.noise;
        if open && (noises.len() < MAX_NOISES || noises.contains_key(&key)) {
            noises.entry(key).or_insert_with(histogram).record(duration_ns).unwrap_or_default();
        }
        if kind != b"irq" || self.kinds.vectors > 0 {
            return;
        }
        let vector = match name {
            b"call_function" => Vector::CallFunction,
            b"call_function_single" => Vector::CallFunctionSingle,
            b"reschedule" => Vector::Reschedule,
            b"irq_work" => Vector::IrqWork,
            b"local_timer" => Vector::LocalTimer,
            b"x86_platform_ipi" | b"thermal_apic" | b"threshold_apic" | b"error_apic" | b"spurious_apic" => {
                Vector::Other
            }
            _ => Vector::Device,
        };
        let begin = Event { at_ns: e.at_ns.saturating_sub(duration_ns), ..*e };
        self.irq_entry(&begin, vector, name);
        self.irq_close(e, Some(vector));
    }

    /// Ends the pass: what is still open is decided.
    pub fn finish(&mut self) {
        for cpu in 0..self.cpus.len() as u32 {
            self.settle(cpu, |_| true);
            self.cut_short(cpu);
        }
    }

    /// What a CPU was in the middle of has no recorded end.
    fn cut_short(&mut self, cpu: u32) {
        let task = super::event::Task { comm: b"", pid: 0, tgid: None };
        let nothing = What::Other { name: b"" };
        let e = Event { at_ns: self.last_ns, cpu, task, in_interrupt: None, line: 0, what: nothing };
        while !self.cpu(cpu).irqs.is_empty() {
            self.irq_close(&e, None);
        }
    }

    /// What the pass found.
    pub fn report(&self) -> Report {
        report::build(self)
    }

    /// Who sent an operation; a name lost at the time may have been heard since, else the thread id must do.
    pub fn initiator(&self, op: &Op) -> String {
        let comm = if op.comm == Sym::NONE { self.tasks.known(op.pid) } else { op.comm };
        if comm == Sym::NONE && op.pid < 1 << 22 {
            format!("pid {}", op.pid)
        } else {
            self.symbols.text(comm)
        }
    }

    /// The recording under another policy.
    pub fn replay(&self, rule: &super::replay::Rule) -> super::replay::Outcome {
        report::outcome(self, rule)
    }

    /// Calls to isolated CPUs, in the order they were queued, with their operations.
    pub fn calls(&self) -> (Vec<Row>, &[Op], &Symbols) {
        let isolated = self.isolated_cpus();
        let rows = self.rows.iter().filter(|r| r.counted && isolated.contains(&r.cpu)).copied().collect();
        (rows, &self.ops, &self.symbols)
    }

    /// Purges that purged something, with their names.
    pub fn purges(&self) -> (&[lazy::PurgeRow], &Symbols) {
        (&self.lazy.purges, &self.symbols)
    }

    /// The isolated CPUs, given or deduced.
    pub fn isolated_cpus(&self) -> Vec<u32> {
        match &self.isolated {
            Isolated::Given(list) | Isolated::Recorded(list) => list.clone(),
            Isolated::Deduce => (0u32..).zip(&self.cpus).filter(|(_, c)| c.tracked).map(|(i, _)| i).collect(),
        }
    }

    /// When counting began and ended, in nanoseconds of the trace clock.
    pub fn span_ns(&self) -> (u64, u64) {
        let first = self.window.begin.as_ref().map(|(at, _)| *at).or(self.first_ns).unwrap_or(0);
        let last = self.window.end.as_ref().map_or(self.last_ns, |(at, _)| *at);
        (first, last.max(first))
    }
}

impl Sink for Analysis {
    fn event(&mut self, e: &Event<'_>) {
        if let What::Marker { text } = e.what
            && self.marker(text, e.at_ns)
        {
            return;
        }
        let open = self.window.open;
        if open && !matches!(e.what, What::Stack { .. }) {
            self.events += 1;
            self.first_ns.get_or_insert(e.at_ns);
            self.backwards += u64::from(e.at_ns < self.last_ns);
            self.last_ns = self.last_ns.max(e.at_ns);
        }
        let cpu = self.cpu(e.cpu);
        cpu.seen = true;
        cpu.pid = e.task.pid;
        cpu.figures.events += u64::from(open);
        match e.what {
            What::UserEnter => {
                self.kinds.user += 1;
                self.mode_change(e, true);
            }
            What::UserExit => {
                self.kinds.user += 1;
                self.mode_change(e, false);
            }
            What::IrqEntry { vector, name } => {
                self.kinds.vectors += 1;
                self.irq_entry(e, vector, name);
            }
            What::IrqExit { vector } => {
                self.irq_close(e, Some(vector));
                if open {
                    self.cpu(e.cpu).figures.quiet.since_ns = Some(e.at_ns);
                }
            }
            What::CsdQueue { cpu, func, csd, .. } => {
                self.kinds.csd_queue += 1;
                self.csd_queue(e, cpu, func, csd);
            }
            What::CsdEntry { func, csd } => {
                self.kinds.csd_entry += 1;
                let sym = self.symbols.number(func);
                self.cpu(e.cpu).calling = sym;
                match csd {
                    Csd::Local => {
                        *self.cpu(e.cpu).figures.local.entry(sym).or_default() += u64::from(open);
                        self.settle(e.cpu, |s| s.func == sym);
                        if let Some(context) = self.contexts.get(e.task.pid) {
                            context.close();
                        }
                    }
                    Csd::Queued(data) => {
                        self.join_race(e.cpu);
                        let call = self.cpu(e.cpu).take(sym, data);
                        self.ran(e, sym, call, true);
                    }
                }
            }
            What::CsdExit => self.cpu(e.cpu).calling = Sym::NONE,
            What::IpiSend { cpu, callsite, callback } => {
                self.kinds.ipi += 1;
                self.ipi(e, cpu, callsite, callback);
            }
            What::IpiSendMask { mask, callsite, callback } => {
                self.kinds.ipi += 1;
                for_each_cpu(mask, |cpu| self.ipi(e, cpu, callsite, callback));
            }
            What::AllocArea { start, size, align, ok } => {
                self.kinds.vmalloc += 1;
                if ok {
                    let comm = self.sender_name(e);
                    self.lazy.alloc(start, size, align, e.task.pid, comm);
                }
            }
            What::FreeArea { start, nr_lazy_max, .. } => {
                self.kinds.vmalloc += 1;
                self.lazy.free(start, nr_lazy_max);
            }
            What::Purge { start, end, areas } => {
                self.kinds.vmalloc += 1;
                let by = self.sender_name(e);
                self.lazy.purge((start, end, areas), e.at_ns, e.line, by, &self.tasks, open);
                if let Some((op, cause)) = self.contexts.of(e.task.pid).purged(areas)
                    && let Some(op) = self.ops.get_mut(op as usize)
                    && op.cause == Cause::KernelFlushUnknown
                {
                    op.refine(cause, Evidence::PurgeEvent);
                }
            }
            What::Fork { child_comm, child_pid } => {
                self.forks += u64::from(open);
                let comm = self.symbols.number(child_comm);
                self.tasks.named(child_pid, comm);
            }
            What::Exit { comm, pid } => {
                let comm = self.symbols.number(comm);
                self.tasks.named(pid, comm);
                self.contexts.end(pid);
            }
            What::Switch { next_comm, next_pid } => {
                self.kinds.switches += 1;
                let comm = self.symbols.number(next_comm);
                self.tasks.named(next_pid, comm);
                let cpu = self.cpu(e.cpu);
                cpu.switches = true;
                cpu.pid = next_pid;
                self.entered_otherwise(e);
            }
            What::Probe { name, function, returns, args } => {
                self.kinds.probes += 1;
                if !returns {
                    self.probe(e, name, function, args);
                }
            }
            What::SyscallEntry | What::PageFault => {
                self.kinds.syscalls += 1;
                self.entered_otherwise(e);
            }
            What::TlbFlush { .. } => self.kinds.tlb_flush += 1,
            What::TickStop { dependency } => {
                if dependency != b"NONE" {
                    let dependency = self.symbols.number(dependency);
                    *self.cpu(e.cpu).figures.tick_kept.entry(dependency).or_default() += u64::from(open);
                }
            }
            What::Stack { frames } => {
                self.kinds.stacks += 1;
                self.stack(e, frames);
            }
            What::Noise { kind, name, duration_ns } => {
                self.kinds.noise += 1;
                self.noise(e, kind, name, duration_ns);
            }
            What::SyscallExit | What::Marker { .. } | What::Other { .. } => {}
        }
    }

    fn note(&mut self, key: &[u8], value: &[u8]) {
        self.no_clock |= (key, value) == (b"clock", b"none");
        if key == b"isolated" && matches!(self.isolated, Isolated::Deduce) {
            let mut cpus = Vec::new();
            for_each_cpu(value.trim_ascii(), |cpu| cpus.push(cpu));
            if !cpus.is_empty() {
                self.isolated = Isolated::Recorded(cpus);
            }
        }
    }

    fn hole(&mut self, hole: &Hole) {
        use super::event::HoleKind::{BufferStarted, Cut, Lost, Overwritten};
        match hole.kind {
            Lost => {}
            // The ring's beginning, its header and the cut end lie outside what was recorded.
            BufferStarted | Overwritten | Cut => return,
        }
        self.lazy.hole();
        for cpu in 0..self.cpus.len() as u32 {
            if hole.cpu.is_none_or(|c| c == cpu) {
                self.cut_short(cpu);
            }
        }
        let forget = |cpu: &mut Cpu| {
            cpu.user = None;
            cpu.queue.clear();
            cpu.running.clear();
            cpu.irqs.clear();
            cpu.reschedules.clear();
            cpu.figures.holes += 1;
        };
        match hole.cpu {
            Some(cpu) => {
                if cpu < super::MAX_CPUS {
                    forget(self.cpu(cpu));
                }
            }
            None => self.cpus.iter_mut().for_each(forget),
        }
    }
}
