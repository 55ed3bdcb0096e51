//! One streaming pass over a recording. It keeps counts, the calls to isolated CPUs and the purges, never the events,
//! so memory does not depend on the length of the recording.

mod calls;
pub mod cpu;
mod cpu_report;
mod flushes;
mod folded;
mod heard;
mod interference;
mod interrupts;
mod kept;
mod kinds;
pub mod knowledge;
pub mod lazy;
mod lengths;
mod per_cpu;
mod report;
pub mod row;
pub mod sender;
mod spans;
mod sums;
pub mod tasks;
mod window;
mod workload;

use std::collections::VecDeque;

use cpu::Cpu;
use kept::Kept;
use row::Row;
use sender::{Contexts, Evidence, Op};
use tasks::{Sym, Symbols, Tasks};
use window::Window;

pub use super::range::{Range, poisson_95};
pub use cpu_report::CpuReport;
pub use kinds::{Kinds, RangeCalls};
pub use report::Report;
pub use spans::Span;

use super::{
    cause::{self, Cause},
    event::{Csd, Event, Hole, What, for_each_cpu, for_each_number},
    import::{
        Sink,
        scan::{decimal, plain_function},
    },
};
use crate::sim::recorded::Mark;

/// Calls, operations and spans kept one by one; what comes later is counted, but neither listed nor replayed.
const MAX_ROWS: usize = 1 << 17;
/// Calls of which more may be heard, behind those.
const ROWS_OPEN: usize = 1 << 13;
/// Operations that they may belong to.
const OPS_OPEN: usize = 1 << 17;
const MAX_TASKS: usize = 1024;
/// Time stamps have microseconds, and asm entry code runs before `user_exit` and after `user_enter`: a change this
/// close to a decision leaves it open.
const MARGIN_NS: u64 = 2_000;

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
    ops: Kept<Op>,
    rows: Kept<Row>,
    spans: Vec<Span>,
    rows_dropped: u64,
    broadcasts: VecDeque<Broadcast>,
    kinds: Kinds,
    range_calls: RangeCalls,
    flush_all_calls: u64,
    probe_counts: rustc_hash::FxHashMap<Sym, u64>,
    purge_probes: u64,
    forks: u64,
    events: u64,
    last_ns: u64,
    backwards: u64,
    no_clock: bool,
    cgroup_root: u32,
    snapshots: u64,
    /// What is heard of senders that no csd event names.
    heard: VecDeque<heard::Heard>,
    /// Functions that ask for calls, entered lately: by which thread, when, and what for.
    asked: VecDeque<(u32, u64, Cause)>,
    /// What functions ask for, of those met.
    asking: rustc_hash::FxHashMap<Sym, Option<Cause>>,
    /// What call chains say, of those met.
    chains: rustc_hash::FxHashMap<Box<[u8]>, Option<Cause>>,
    /// CPUs whose task another has displaced.
    displaced: usize,
    /// The recorder noted which CPUs it recorded.
    noted: bool,
    /// Kinds of events that it noted to be on, bits of [`knowledge`].
    noted_kinds: u32,
    /// Samples are of the hwlat tracer, which looks at one CPU at a time.
    hwlat: bool,
}

impl Analysis {
    /// A pass over one recording.
    pub fn new(isolated: Isolated) -> Self {
        Self {
            isolated,
            window: Window::default(),
            cpus: Vec::new(),
            symbols: Symbols::default(),
            tasks: Tasks::default(),
            lazy: lazy::Lazy::default(),
            log: workload::Log::default(),
            contexts: Contexts::default(),
            ops: Kept::new(MAX_ROWS, OPS_OPEN),
            rows: Kept::new(MAX_ROWS, ROWS_OPEN),
            spans: Vec::new(),
            rows_dropped: 0,
            broadcasts: VecDeque::new(),
            kinds: Kinds::default(),
            range_calls: RangeCalls::default(),
            flush_all_calls: 0,
            probe_counts: rustc_hash::FxHashMap::default(),
            purge_probes: 0,
            forks: 0,
            events: 0,
            last_ns: 0,
            backwards: 0,
            no_clock: false,
            cgroup_root: 0,
            snapshots: 0,
            heard: VecDeque::new(),
            asked: VecDeque::new(),
            asking: rustc_hash::FxHashMap::default(),
            chains: rustc_hash::FxHashMap::default(),
            displaced: 0,
            noted: false,
            noted_kinds: 0,
            hwlat: false,
        }
    }

    /// Counts only what lies between two texts in `trace_marker`, as often as they come.
    #[must_use]
    pub fn between(mut self, begin: &str, end: &str) -> Self {
        self.window = Window::between(begin, end);
        self
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

    /// Ends the pass: what is still open is decided.
    pub fn finish(&mut self) {
        for cpu in 0..self.cpus.len() as u32 {
            self.settle(cpu, |_| true);
            self.cut_short(cpu);
        }
        for row in self.rows.drain() {
            self.fold(&row);
        }
        self.settle_sums();
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
            cpu.tick = cpu::TickState::Unknown;
            cpu.softirq = None;
            cpu.queue.clear();
            cpu.running.clear();
            cpu.irqs.clear();
            cpu.reschedules.clear();
            cpu.figures.quiet.since_ns = None;
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
        self.name_of(folded::Who { comm: op.comm, pid: op.pid })
    }

    /// What a replay needs of the recording.
    pub fn recorded(&self) -> super::replay::Recorded {
        report::recorded(self)
    }

    /// Calls to isolated CPUs, in the order they were queued, with their operations.
    pub fn calls(&self) -> (Vec<Row>, &[Op], &Symbols) {
        let isolated = self.isolated_cpus();
        let rows =
            self.rows.first().iter().filter(|r| r.counted && isolated.contains(&r.cpu)).copied().collect();
        (rows, self.ops.first(), &self.symbols)
    }

    /// Pages on the lazy list after each free, from when on.
    pub fn lazy_pages(&self) -> &[(u64, u64)] {
        &self.lazy.levels
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
}

impl Sink for Analysis {
    fn event(&mut self, e: &Event<'_>) {
        if let What::Marker { text } = e.what
            && self.marker(text, e.at_ns)
        {
            return;
        }
        let open = self.window.open;
        let from = match e.what {
            // These are written when what they tell of has ended.
            What::Noise { duration_ns: ns, .. } | What::Latency { ns, .. } => e.at_ns.saturating_sub(ns),
            What::Sum(sum) => e.at_ns.saturating_sub(sum.over_ns()),
            _ => e.at_ns,
        };
        if open && !matches!(e.what, What::Stack { .. }) {
            self.events += 1;
            self.passes(e.at_ns, from);
        }
        let piece = self.window.number();
        let recording = self.window.recording();
        let cpu = self.cpu(e.cpu);
        cpu.seen = true;
        cpu.in_several |= *cpu.recording.get_or_insert(recording) != recording;
        cpu.pid = e.task.pid;
        if open {
            let figures = &mut cpu.figures;
            figures.events += 1;
            match figures.first_ns {
                Some(first) if first <= from => {}
                _ => figures.first_ns = Some(from),
            }
            if figures.pieces.last() != Some(&piece) {
                figures.pieces.push(piece);
            }
        }
        self.mark(e.cpu, e.at_ns, Mark::Idle(e.task.pid == 0));
        match e.what {
            What::UserEnter => {
                self.kinds.user += 1;
                self.cpu(e.cpu).kinds |= knowledge::MODES;
                self.mode_change(e, true);
            }
            What::UserExit => {
                self.kinds.user += 1;
                self.cpu(e.cpu).kinds |= knowledge::MODES;
                self.mode_change(e, false);
            }
            What::IrqEntry { vector, name } => {
                self.kinds.vectors += 1;
                self.cpu(e.cpu).kinds |= knowledge::of_vector(vector);
                self.irq_entry(e, vector, name);
            }
            What::IrqExit { vector } => {
                self.irq_exit(e, vector);
                if open {
                    self.cpu(e.cpu).figures.quiet.since_ns = Some(e.at_ns);
                }
            }
            What::CsdQueue { cpu, func, callsite, csd } => {
                self.kinds.csd_queue += 1;
                self.csd_queue(e, cpu, (func, callsite), csd);
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
            What::FreeArea { start, nr_lazy, nr_lazy_max } => {
                self.kinds.vmalloc += 1;
                self.lazy.free(start, (nr_lazy, nr_lazy_max), e.at_ns, open);
            }
            What::Purge { start, end, areas } => {
                self.kinds.vmalloc += 1;
                let by = self.sender_name(e);
                // Without a probe that says so, only a worker that finds the list full is sure to drain it.
                let drains = self.symbols.bytes(by).starts_with(b"kworker/") && self.lazy.was_full();
                self.lazy.purge((start, end, areas), e.at_ns, e.line, by, &self.tasks, open);
                if let Some((op, cause)) = self.contexts.of(e.task.pid).purged(areas, drains)
                    && let Some(op) = self.ops.get_mut(op)
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
                self.kinds.softirqs += 1;
                let action = self.symbols.number(action);
                let cpu = self.cpu(e.cpu);
                cpu.kinds |= knowledge::SOFTIRQS;
                cpu.softirq = Some((e.at_ns, action));
            }
            What::SoftirqExit => self.softirq_ended(e),
            What::Work { function } => {
                let function = self.symbols.number(function);
                self.works(e.cpu, function);
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
            What::Switch { prev_pid, preempted, next_comm, next_pid } => {
                self.kinds.switches += 1;
                let comm = self.symbols.number(next_comm);
                self.tasks.named(next_pid, comm);
                self.switched(e, (prev_pid, preempted), (next_pid, comm), next_comm);
                let cpu = self.cpu(e.cpu);
                cpu.kinds |= knowledge::TASKS;
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
                    self.hear_function(e, function);
                }
            }
            What::SyscallEntry { .. } | What::PageFault => {
                self.kinds.syscalls += 1;
                self.mark(e.cpu, e.at_ns, Mark::Own);
                self.entered_otherwise(e);
            }
            What::TlbFlush { .. } => self.kinds.tlb_flush += 1,
            What::TickStop { dependency } => {
                self.kinds.tick_stop += 1;
                self.cpu(e.cpu).kinds |= knowledge::TICK_STOP;
                self.tick_stop(e, dependency);
            }
            What::HrtimerExpire { function } => {
                self.kinds.hrtimers += 1;
                self.cpu(e.cpu).kinds |= knowledge::HRTIMERS;
                self.hrtimer(e.cpu, function);
            }
            What::TimerStart { function, cpu } => {
                if let Some(target) = cpu {
                    self.hear_timer(e, target, function);
                }
            }
            What::IpiRaise { mask, vector } => {
                self.kinds.ipi += 1;
                self.ipi_raise(e, mask, vector);
            }
            What::Function { name } if self.kinds.csd_entry == 0 && cause::is_handler(name) => {
                let function = self.symbols.number(plain_function(name));
                self.handler(e, function);
            }
            What::Function { name } => self.hear_function(e, name),
            What::Sum(sum) => self.sum(e, sum),
            What::Migrate { pid, to } => {
                if self.displaced > 0 {
                    self.moved_to(to, pid, e.at_ns);
                }
            }
            What::Latency { context, ns } => {
                let context = self.symbols.number(context);
                let latencies = &mut self.cpu(e.cpu).figures.latencies;
                if open {
                    latencies.entry(context).or_default().add(ns);
                }
            }
            What::Stack { frames } => {
                self.kinds.stacks += 1;
                self.hear_stack(e, frames);
                self.stack(e, frames);
            }
            What::Noise { kind, name, duration_ns } => {
                let firmware = kind == b"hardware";
                self.hwlat |= firmware && name == b"hwlat";
                self.kinds.nmis += u64::from(kind == b"nmi");
                self.kinds.noise += u64::from(!firmware && kind != b"nmi");
                self.kinds.firmware += u64::from(firmware);
                self.cpu(e.cpu).kinds |= knowledge::of_noise(kind);
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
            b"event" => self.noted_kinds |= knowledge::of_event(value.trim_ascii()),
            // The next piece of a flight recorder: what lies between is not known.
            b"snapshot" => {
                self.snapshots += 1;
                if self.window.pause() {
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
        self.noted |= key == b"isolated";
    }

    fn piece(&mut self) {
        if self.window.pause() {
            self.window.files += 1;
            self.window.header = true;
            self.forget(None);
        }
    }

    fn hole(&mut self, hole: &Hole) {
        use super::event::HoleKind::{BufferStarted, Cut, Lost, Overwritten};
        match hole.kind {
            Lost => {}
            // Every ring has its own beginning; what lies before is outside what was recorded.
            BufferStarted | Overwritten => {
                self.window.overwritten = true;
                return;
            }
            Cut => return,
        }
        self.forget(hole.cpu);
        for (number, cpu) in (0u32..).zip(&mut self.cpus) {
            cpu.figures.holes += u64::from(hole.cpu.is_none_or(|c| c == number));
        }
    }
}
