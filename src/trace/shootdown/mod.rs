//! User shootdowns: flushes of user ranges, what asked for them, which CPUs they interrupted, and what both sides lost.
//!
//! One streaming pass beside [`super::analysis`], in which every CPU can be a victim. A flush begins with a probe on
//! `flush_tlb_mm_range`, or with its own `tlb_flush` where that is not probed; the calls its thread queues next are its
//! victims, found again on their CPUs by the call data. Memory holds counts and what is under way, never events.

mod batch;
mod call;
mod flush;
mod report;
mod spans;
mod tasks;
mod victim;

use rustc_hash::{FxHashMap, FxHashSet};

use self::tasks::{Id, NOBODY, Threads};
use super::{
    analysis::tasks::{Sym, Symbols},
    event::{Event, Hole, Task, Vector, What, for_each_cpu},
    import::{Sink, scan::number},
};

pub use report::Report;
pub use spans::{Span, What as SpanOf};

/// A step back this far is another recording, not clocks of CPUs that disagree.
const ANOTHER_NS: u64 = 1_000_000_000;
/// `tlb_single_page_flush_ceiling`, as it is by default.
const CEILING: u64 = 33;
/// Different rows, pairs of CPUs, and pairs of threads that are kept.
const MOST: usize = 1 << 18;

const TABLES: &[u8] = b"tlb_remove_table_smp_sync";
const NONE: u32 = u32::MAX;

/// What was flushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Extent {
    /// Page by page.
    Ranged,
    /// Everything of the address space.
    Full,
    /// Nothing: page tables are freed, and whoever walks them is waited for.
    TableSync,
    /// Not recorded.
    #[default]
    Unknown,
}

/// What the victim's CPU was doing for the address space that was flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// It ran the process.
    Running,
    /// It was idle.
    Idle,
    /// A kernel thread ran, which has borrowed an address space.
    Lazy,
    /// Another process ran: the interrupt was for nothing.
    Elsewhere,
    /// Not recorded.
    Unknown,
}

/// What rows are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    task: Id,
    call: Where,
    size: u8,
    extent: Extent,
    tables: Option<bool>,
    stack: Sym,
}

/// What the thread was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Where {
    /// This.
    Known(&'static str),
    /// No system call is known to be in progress; what that means depends on whether this CPU has any.
    Outside(u32),
}

/// Counts of a row.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    flushes: u64,
    shootdowns: u64,
    unknown_victims: u64,
    victims: u64,
    ran: u64,
    waits: u64,
    wait_ns: u64,
    longest_ns: u64,
    victim_ns: u64,
    pages: Option<(u64, u64)>,
}

/// Counts of a pair.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    calls: u64,
    interrupts: u64,
    ns: u64,
}

/// Counts of an address space.
#[derive(Clone, Copy, Debug, Default)]
struct OfMm {
    flushes: u64,
    full: u64,
    victims: u64,
}

/// A flush under way.
#[derive(Clone, Copy, Debug)]
struct Op {
    task: Id,
    cpu: u32,
    call: Where,
    /// Pages of the range, from the probe; `None`: not recorded, or everything.
    range: Option<u64>,
    /// Pages the system call was given.
    asked: Option<u64>,
    extent: Extent,
    tables: Option<bool>,
    mm: u64,
    /// `tlb_flush` says that CPUs are about to be interrupted.
    sent: bool,
    local: bool,
    queued: u32,
    ran: u32,
    /// References: runs that have not ended, interrupts that have not.
    held: u32,
    last_queue_ns: u64,
    local_end_ns: u64,
    last_end_ns: u64,
    victim_ns: u64,
    stack: Sym,
    began_ns: u64,
    began_on: u32,
    counted: bool,
    closed: bool,
}

/// A function of ours that runs on a CPU.
#[derive(Clone, Copy, Debug)]
struct Running {
    op: u32,
    sender: Id,
    sender_cpu: u32,
    victim: Id,
    queued_ns: u64,
    at_ns: u64,
    reason: Option<u8>,
    counted: bool,
}

/// An interrupt that runs calls.
#[derive(Clone, Copy, Debug)]
struct Irq {
    at_ns: u64,
    /// Time in functions of ours.
    ours_ns: u64,
    others: bool,
    first: Option<(u32, Id, u32, Id, State)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cpu {
    seen: bool,
    syscalls: bool,
    running: Option<Running>,
    local: Option<u32>,
    irq: Option<Irq>,
}

/// How much of what kind was recorded.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Kinds {
    /// Beginnings of system calls.
    pub syscalls: u64,
    /// Queued calls and functions run.
    pub csd: u64,
    /// IPIs sent.
    pub ipi: u64,
    /// `tlb_flush`.
    pub tlb_flush: u64,
    /// A probe on `flush_tlb_mm_range`.
    pub range_probe: u64,
    /// Interrupts that run calls.
    pub vectors: u64,
    /// Page faults.
    pub page_faults: u64,
    /// Call chains.
    pub stacks: u64,
}

/// The pass.
#[derive(Default)]
pub struct Shootdowns {
    between: Option<(Vec<u8>, Vec<u8>)>,
    open: bool,
    found: bool,
    since_ns: Option<u64>,
    last_ns: u64,
    counted_ns: u64,
    first_ns: u64,
    symbols: Symbols,
    threads: Threads,
    batches: batch::Batches,
    cpus: Vec<Cpu>,
    named: FxHashSet<u32>,
    ops: Vec<Op>,
    /// The CPUs that each of `ops` called.
    called: Vec<Vec<u32>>,
    free: Vec<u32>,
    /// By target and call data: the flush, whether it counts, and when it was queued.
    waiting: FxHashMap<(u32, u64), (u32, bool, u64)>,
    rows: FxHashMap<Key, Sum>,
    pairs: FxHashMap<(Id, u32, u32), Pair>,
    victims: FxHashMap<(Id, Id, State), Pair>,
    mms: FxHashMap<(Id, u64), OfMm>,
    last_stackable: FxHashMap<u32, u32>,
    spans: spans::Spans,
    kinds: Kinds,
    unmatched: u64,
    left_out: u64,
    holes: u64,
    events: u64,
    notes: Vec<String>,
}

impl Shootdowns {
    /// Counts everything, or what lies between two texts of `trace_marker`, and what is left if as many flushes in a row
    /// share one.
    pub fn new(between: Option<(&str, &str)>, batches: &[u32]) -> Self {
        let between = between.map(|(a, b)| (a.as_bytes().to_vec(), b.as_bytes().to_vec()));
        let open = between.as_ref().is_none_or(|(begin, _)| begin.is_empty());
        Self { between, open, found: open, batches: batch::Batches::new(batches), ..Self::default() }
    }

    /// Closes what is under way at the end of the text.
    pub fn finish(&mut self) {
        self.pause();
        self.forget();
    }

    fn pause(&mut self) {
        if let Some(since) = self.since_ns.take() {
            self.counted_ns += self.last_ns.saturating_sub(since);
        }
    }

    /// Nothing that is under way goes on: another recording begins, or this one ends.
    fn forget(&mut self) {
        self.waiting.clear();
        self.last_stackable.clear();
        for at in 0..self.ops.len() {
            if self.ops[at].task != NOBODY {
                self.ops[at].closed = true;
                self.ops[at].held = 0;
                self.settle(at as u32);
            }
        }
        self.threads.forget();
        for cpu in &mut self.cpus {
            (cpu.running, cpu.local, cpu.irq) = (None, None, None);
        }
    }

    fn cpu(&mut self, cpu: u32) -> &mut Cpu {
        let at = cpu as usize;
        if at >= self.cpus.len() {
            self.cpus.resize(at + 1, Cpu::default());
        }
        &mut self.cpus[at]
    }

    /// The thread of an event; none for the idle loop.
    fn thread(&mut self, e: &Event<'_>) -> Id {
        if e.task.pid == 0 { NOBODY } else { self.threads.met(e.task, e.at_ns, &mut self.symbols) }
    }

    fn marker(&mut self, text: &[u8], at_ns: u64) {
        let Some((begin, end)) = &self.between else { return };
        if self.open {
            if !end.is_empty() && text.starts_with(end) {
                self.open = false;
                self.last_ns = self.last_ns.max(at_ns);
                self.pause();
            }
        } else if text.starts_with(begin) {
            (self.open, self.found, self.since_ns) = (true, true, Some(at_ns));
        }
    }

    fn passes(&mut self, at_ns: u64) {
        if at_ns.saturating_add(ANOTHER_NS) < self.last_ns {
            self.pause();
            self.forget();
            self.last_ns = at_ns;
        }
        self.last_ns = self.last_ns.max(at_ns);
        if self.open {
            self.events += 1;
            if self.since_ns.is_none() {
                self.since_ns = Some(at_ns);
                if self.events == 1 {
                    self.first_ns = at_ns;
                }
            }
        }
    }
}

/// Bounds a table.
fn slot<'m, K: std::hash::Hash + Eq>(
    map: &'m mut FxHashMap<K, Pair>,
    key: K,
    left_out: &mut u64,
) -> Option<&'m mut Pair> {
    if map.len() >= MOST && !map.contains_key(&key) {
        *left_out += 1;
        return None;
    }
    Some(map.entry(key).or_default())
}

impl Sink for Shootdowns {
    fn event(&mut self, e: &Event<'_>) {
        self.passes(e.at_ns);
        self.cpu(e.cpu).seen = true;
        match e.what {
            What::SyscallEntry { name, args } => {
                self.kinds.syscalls += 1;
                self.cpu(e.cpu).syscalls = true;
                let task = self.thread(e);
                if task != NOBODY {
                    self.close(task);
                    self.call_ends(task, None);
                    let (call, creates, executes) = call::of_event(name, args);
                    let thread = &mut self.threads[task];
                    (thread.call, thread.creates, thread.fault) = (Some(call), creates, false);
                    thread.called = Some((e.at_ns, e.cpu));
                    if executes {
                        self.threads.executes(task);
                    }
                }
            }
            What::SyscallExit => {
                self.cpu(e.cpu).syscalls = true;
                let task = self.thread(e);
                if task != NOBODY {
                    self.close(task);
                    self.call_ends(task, Some(e.at_ns));
                    let thread = &mut self.threads[task];
                    (thread.call, thread.creates, thread.fault) = (None, call::Creates::Unknown, false);
                }
            }
            What::PageFault => {
                self.kinds.page_faults += 1;
                let task = self.thread(e);
                if task != NOBODY && self.threads[task].call.is_none() {
                    self.close(task);
                    self.threads[task].fault = true;
                }
            }
            What::Probe { function: b"flush_tlb_mm_range", returns: false, args, .. } => self.range(e, args),
            What::Probe { name: b"mm_range" | b"flush_tlb_mm_range", returns: false, args, .. } => {
                self.range(e, args);
            }
            What::TlbFlush { pages, reason } => self.tlb_flush(e, pages, reason),
            What::CsdQueue { cpu, func, csd, .. } => self.queue(e, cpu, func, csd),
            What::CsdEntry { func, csd } => self.begins(e, func, csd),
            What::CsdExit => self.ends(e),
            What::IpiSendMask { mask, .. } => self.ipis(e, |each| for_each_cpu(mask, each)),
            What::IpiSend { cpu, callsite, .. } if flush::is_flush(callsite) => {
                self.ipis(e, |each| each(cpu));
            }
            What::IpiSend { .. } => self.kinds.ipi += 1,
            What::IrqEntry { vector, .. } if vector.runs_call_queue() => {
                self.kinds.vectors += 1;
                self.abandon_irq(e.cpu as usize);
                self.cpu(e.cpu).irq = Some(Irq { at_ns: e.at_ns, ours_ns: 0, others: false, first: None });
            }
            What::IrqExit { vector: Vector::CallFunction | Vector::CallFunctionSingle | Vector::IpiCall } => {
                self.irq_ends(e);
            }
            What::Fork { child_comm, child_pid } => {
                let parent = self.thread(e);
                if parent != NOBODY {
                    self.threads.forked(parent, child_comm, child_pid, e.at_ns, &mut self.symbols);
                }
            }
            What::Exit { pid, .. } => {
                self.thread(e);
                self.threads.ended(pid);
            }
            What::Switch { .. } => {
                self.thread(e);
            }
            What::UserEnter => {
                let task = self.thread(e);
                if task != NOBODY {
                    self.threads[task].fault = false;
                }
            }
            What::Stack { frames } => self.stack(e, frames),
            What::Marker { text } => self.marker(text, e.at_ns),
            What::UserExit
            | What::IrqEntry { .. }
            | What::IrqExit { .. }
            | What::AllocArea { .. }
            | What::FreeArea { .. }
            | What::Purge { .. }
            | What::SoftirqEntry { .. }
            | What::SoftirqExit
            | What::CgroupAttach { .. }
            | What::Work { .. }
            | What::Probe { .. }
            | What::TickStop { .. }
            | What::HrtimerExpire { .. }
            | What::TimerStart { .. }
            | What::IpiRaise { .. }
            | What::Function { .. }
            | What::Latency { .. }
            | What::Sum(_)
            | What::Migrate { .. }
            | What::Noise { .. }
            | What::Other { .. } => {}
        }
    }

    fn hole(&mut self, hole: &Hole) {
        self.holes += 1;
        // What was under way there may have ended unseen.
        let cpus = hole.cpu.map_or(0..self.cpus.len(), |cpu| cpu as usize..cpu as usize + 1);
        for cpu in cpus {
            self.abandon_run(cpu);
            self.abandon_irq(cpu);
        }
    }

    fn note(&mut self, key: &[u8], value: &[u8]) {
        if key == b"thread" {
            // `412 400 name`: thread, process, name.
            let mut words = value.splitn(3, |b| *b == b' ');
            let mut id = || words.next().and_then(number).and_then(|id| u32::try_from(id).ok());
            if let (Some(pid), Some(tgid)) = (id(), id()) {
                let comm = words.next().unwrap_or_default();
                self.threads.met(Task { comm, pid, tgid: Some(tgid) }, 0, &mut self.symbols);
            }
        }
        if key == b"event" && self.notes.len() < 1000 {
            self.notes.push(String::from_utf8_lossy(value).into_owned());
        }
    }

    fn piece(&mut self) {
        self.pause();
        self.forget();
        self.last_ns = 0;
    }
}
