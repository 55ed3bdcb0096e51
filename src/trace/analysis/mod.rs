//! One streaming pass over a recording. It keeps counts, the calls to isolated CPUs and the purges, never the events,
//! so memory does not depend on the length of the recording.

mod calls;
pub mod cpu;
mod flushes;
mod interrupts;
pub mod lazy;
mod report;
pub mod sender;
pub mod tasks;
mod workload;

use std::collections::VecDeque;

use cpu::{Cpu, Row};
use sender::{Contexts, Evidence, Op};
use tasks::{Sym, Symbols, Tasks};

pub use report::{CpuReport, Range, Report, poisson_95};

use super::{
    cause::Cause,
    event::{Csd, Event, Hole, What, for_each_cpu, for_each_number},
    import::{Sink, scan::decimal},
};
use crate::sim::recorded::Mark;

/// Rows and operations kept; what comes later is counted but not replayed.
const MAX_ROWS: usize = 1 << 20;
const MAX_TASKS: usize = 1024;
/// Time stamps have microseconds, and asm entry code runs before `user_exit` and after `user_enter`: a change this
/// close to a decision leaves it open.
const MARGIN_NS: u64 = 2_000;

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
    /// cgroup_attach_task and cgroup_transfer_tasks.
    pub cgroups: u64,
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
    log: workload::Log,
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
    cgroup_root: u32,
    snapshots: u64,
    /// Time between the pieces of a flight recorder, which is not recorded.
    unrecorded_ns: u64,
    /// A piece ended here and the next has not begun.
    resumes_after: Option<u64>,
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
            log: workload::Log::default(),
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
            cgroup_root: 0,
            snapshots: 0,
            unrecorded_ns: 0,
            resumes_after: None,
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
        self.log.restart();
        self.range_calls = RangeCalls::default();
        self.flush_all_calls = 0;
        self.probe_counts.clear();
        self.purge_probes = 0;
        self.forks = 0;
        self.events = 0;
        self.first_ns = None;
        self.rows_dropped = 0;
        self.unrecorded_ns = 0;
    }

    /// Ends the pass: what is still open is decided.
    pub fn finish(&mut self) {
        for cpu in 0..self.cpus.len() as u32 {
            self.settle(cpu, |_| true);
            self.cut_short(cpu);
        }
    }

    /// Events are missing, on one CPU or on all: what was known of the state is not any more.
    fn forget(&mut self, only: Option<u32>) {
        self.lazy.hole();
        for cpu in 0..self.cpus.len() as u32 {
            if only.is_none_or(|c| c == cpu) {
                self.cut_short(cpu);
                self.mark(cpu, self.last_ns, Mark::Lost);
            }
        }
        let forget = |cpu: &mut Cpu| {
            cpu.user = None;
            cpu.tick_kept = false;
            cpu.softirq = None;
            cpu.queue.clear();
            cpu.running.clear();
            cpu.irqs.clear();
            cpu.reschedules.clear();
            cpu.figures.quiet.since_ns = None;
            cpu.figures.holes += 1;
        };
        match only {
            Some(cpu) => {
                if cpu < super::MAX_CPUS {
                    forget(self.cpu(cpu));
                }
            }
            None => self.cpus.iter_mut().for_each(forget),
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

    /// What a replay needs of the recording.
    pub fn recorded(&self) -> super::replay::Recorded {
        report::recorded(self)
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

    /// The isolated CPUs, given or deduced, and how they are known.
    pub fn isolated(&self) -> (Vec<u32>, &'static str) {
        let those = |which: fn(&Cpu) -> bool| -> Vec<u32> {
            (0u32..).zip(&self.cpus).filter(|(_, c)| which(c)).map(|(i, _)| i).collect()
        };
        match &self.isolated {
            Isolated::Given(list) => (list.clone(), "given"),
            Isolated::Recorded(list) => (list.clone(), "recorded"),
            Isolated::Deduce => {
                let (tracked, seen) = (those(|c| c.tracked), those(|c| c.seen));
                match (&tracked[..], &seen[..]) {
                    // The upstream recipe records one CPU only (Documentation/admin-guide/cpu-isolation.rst).
                    ([], [_]) if self.kinds.vectors > 0 => (seen, "only_cpu"),
                    ([], _) => (tracked, "none"),
                    _ => (tracked, "context_tracking"),
                }
            }
        }
    }

    /// Their numbers.
    pub fn isolated_cpus(&self) -> Vec<u32> {
        self.isolated().0
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
            if let Some(ended) = self.resumes_after.take() {
                self.unrecorded_ns += e.at_ns.saturating_sub(ended);
            }
            self.first_ns.get_or_insert(e.at_ns);
            self.backwards += u64::from(e.at_ns < self.last_ns);
            self.last_ns = self.last_ns.max(e.at_ns);
        }
        let cpu = self.cpu(e.cpu);
        cpu.seen = true;
        cpu.pid = e.task.pid;
        cpu.figures.events += u64::from(open);
        self.mark(e.cpu, e.at_ns, Mark::Idle(e.task.pid == 0));
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
                    let cgroup = self.tasks.cgroup(e.task.pid);
                    self.lazy.alloc(start, size, align, e.task.pid, comm, cgroup);
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
                self.tasks.forked(e.task.pid, child_pid);
            }
            What::CgroupAttach { root, path, pid } => {
                self.kinds.cgroups += 1;
                if root == self.cgroup_root {
                    let cgroup = self.symbols.number(path);
                    self.tasks.attach(pid, cgroup);
                }
            }
            What::SoftirqEntry { action } => {
                let action = self.symbols.number(action);
                self.cpu(e.cpu).softirq = Some((e.at_ns, action));
            }
            What::SoftirqExit => {
                if let Some((from, action)) = self.cpu(e.cpu).softirq.take() {
                    let kind = self.symbols.number(b"softirq");
                    self.lasted(e.cpu, (kind, action), e.at_ns.saturating_sub(from));
                }
            }
            What::Work { function } => {
                let function = self.symbols.number(function);
                let work = &mut self.cpu(e.cpu).figures.work;
                if open && (work.len() < MAX_TASKS || work.contains_key(&function)) {
                    *work.entry(function).or_default() += 1;
                }
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
                self.mark(e.cpu, e.at_ns, Mark::Idle(next_pid == 0));
                let cpu = self.cpu(e.cpu);
                let tasks = &mut cpu.figures.switched_to;
                if open && next_pid != 0 && (tasks.len() < MAX_TASKS || tasks.contains_key(&comm)) {
                    *tasks.entry(comm).or_default() += 1;
                }
                self.mark(e.cpu, e.at_ns, Mark::Own);
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
                self.mark(e.cpu, e.at_ns, Mark::Own);
                self.entered_otherwise(e);
            }
            What::TlbFlush { .. } => self.kinds.tlb_flush += 1,
            What::TickStop { dependency } => {
                let kept = dependency != b"NONE";
                if kept {
                    let dependency = self.symbols.number(dependency);
                    *self.cpu(e.cpu).figures.tick_kept.entry(dependency).or_default() += u64::from(open);
                }
                self.cpu(e.cpu).tick_kept = kept;
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
        match key {
            b"cgroup_root" => self.cgroup_root = decimal(value, &mut 0).map_or(0, |root| root as u32),
            // `2,7-9 /system.slice/a.service`: who was where when the recording began.
            b"cgroup" => {
                if let Some(space) = memchr::memchr(b' ', value) {
                    let cgroup = self.symbols.number(&value[space + 1..]);
                    for_each_number(&value[..space], 1 << 22, |pid| self.tasks.attach(pid, cgroup));
                }
            }
            // The next piece of a flight recorder: what lies between is not known.
            b"snapshot" => {
                self.snapshots += 1;
                if self.first_ns.is_some() {
                    self.resumes_after = Some(self.last_ns);
                    self.forget(None);
                }
            }
            _ => {}
        }
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
        self.forget(hole.cpu);
    }
}
