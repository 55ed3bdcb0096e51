//! The loop. [`Engine::run_until`] takes the first CPU of the global queue and runs it until the next one's time;
//! `Engine::run` is one CPU's own timeline, the same code whether the CPU is driven or lazily brought forward.
//!
//! Reading order: `build` (time 0), `class` (what an op is to the loop), `ops` (a program is carried forward), `frames` (programs
//! begin and end), `work` (what initiators do), `stream` (user pages), `scan` and `skip` (what is jumped over),
//! `replay` and `handlers` (what is known but for its misses), `volley` (one call to many), `save`.

use std::sync::Arc;

mod build;
mod class;
mod frames;
mod handlers;
mod ops;
mod queued;
mod replay;
mod roam;
mod save;
mod scan;
mod skip;
mod stream;
pub mod tasks;
mod volley;
mod watch;
mod work;

pub use save::Saved;

use super::draw::Draws;
use super::latencies::Latencies;
use super::levels::Level;
use super::machine::Timed;
use super::queue::{Key, NEVER};
use super::scenario::{Gap, Kind as ActorKind, Path, Scenario};
use super::stats::{Cause, Stat, Window};
use crate::kernel::program::{Code, Pc, ProgId};
use crate::kernel::step::{Cpu, Frame};
use crate::kernel::vmalloc::{Area, Vmalloc};
use crate::pool::Stop;
use class::{Class, Known};
use handlers::Handlers;
use queued::Work;
use replay::Courses;
use scan::Turn;
use skip::{Memo, Patience};
use stream::Streaming;
use volley::Rehearsals;
use watch::Watch;

/// Frames of a CPU: task, kernel work in it, interrupt, NMI.
const DEPTH: usize = 5;

/// Why a program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
enum Why {
    #[default]
    Enter,
    Syscall,
    Fault,
    Work,
    Idle,
    Interrupt,
    Nmi,
    /// An INT3 in the kernel.
    Breakpoint,
}

/// One activation.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
struct Act {
    frame: Frame,
    why: Why,
    began: u64,
    /// [`NEVER`]: the body has not begun.
    body_left: u64,
    body_ps: u64,
    /// From its beginning to that of its body.
    entered: u64,
    cause: Cause,
    from: u32,
    /// What the CPU had before, restored at the end.
    if_on: bool,
    entry_code: bool,
    window: Window,
    in_call_irq: bool,
    loop_next: Cpu,
    user_left: u64,
}

/// One actor's state on one CPU.
#[derive(Clone, Debug)]
struct ActorState {
    actor: u16,
    next: u64,
    draws: Draws,
    /// Children alive (`Forks`): their stacks.
    alive: Vec<Area>,
    exiting: bool,
    /// Address spaces (`Tasks`), and which one is current.
    mms: Vec<u16>,
    at: u16,
    /// Where a process that roams went while kernel work occupies this CPU, and when it arrives here.
    pulled: Option<roam::Pulled>,
    arrives: u64,
}

/// The parts of a CPU the machine does not know.
#[derive(Clone, Debug)]
struct Own {
    acts: [Act; DEPTH],
    actors: Vec<ActorState>,
    works: Vec<Work>,
    /// Stacks waiting for the grace period that ends at `rcu_at`, and those after it.
    rcu_at: u64,
    rcu: Vec<Area>,
    rcu_next: Vec<Area>,
    /// Index of the foreground actor.
    foreground: Option<usize>,
    idle: bool,
    base_body: u64,
    /// Entry path of the foreground's system calls.
    by: Path,
    /// Exceptions happen in its user mode.
    faults: bool,
    memo: Option<Memo>,
    patience: Patience,
    /// Its system calls can be replayed, and those it knows.
    replayable: bool,
    courses: Courses,
    /// The handlers it knows.
    handlers: Handlers,
    stream: Option<Streaming>,
}

/// Entry points of the assembled policy.
#[derive(Clone, Copy, Debug)]
struct Entries {
    enter_user: ProgId,
    /// By number of [`Path`].
    paths: [ProgId; Path::ALL.len()],
    interrupt: ProgId,
    interrupt_kernel: ProgId,
    interrupt_idle: ProgId,
    nmi_user: ProgId,
    nmi: ProgId,
    /// Where a patched instruction decides a branch.
    breakpoint: Option<ProgId>,
    idle: ProgId,
    purge: ProgId,
}

/// What a purge was: areas, and whether another one had just waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PurgeRecord {
    /// When its request was made.
    pub time_ps: u64,
    /// Where.
    pub cpu: Cpu,
    /// Areas.
    pub areas: u32,
    /// Pages of the hull.
    pub hull: u64,
    /// Forks so far.
    pub forks: u64,
    /// Queued while another purge waited.
    pub tail: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Engine {
    code: Arc<Code>,
    /// By op.
    known: Vec<Known>,
    /// Turns of loops that only look.
    turns: Vec<Turn>,
    entries: Entries,
    scenario: Scenario,
    /// The machine.
    pub m: Timed,
    own: Vec<Own>,
    vmalloc: Vmalloc,
    /// Pages on its lazy list and in the running purge, as they change.
    pub lazy: Level,
    /// The purge that runs was queued while another one waited.
    tail: bool,
    /// Where `drain_vmap_area_work` runs.
    draining: Option<Cpu>,
    last_purge_end: u64,
    /// Purges in order.
    pub purges: Vec<PurgeRecord>,
    forks: u64,
    /// How long things took.
    pub latencies: Latencies,
    /// Program runs: the unit of throughput.
    pub runs: u64,
    /// Programs interpreted, and turns of draws that were jumped over: the unit of work.
    pub work: u64,
    /// Of the runs: replayed.
    pub replayed: u64,
    /// Jump over proven fixed points.
    skip: bool,
    /// Replay system calls and handlers whose course is known.
    pub replays: bool,
    /// By program: it can be replayed.
    replayable: Vec<bool>,
    /// Leave driven CPUs behind while what they do is their own.
    pub looks_ahead: bool,
    /// Some CPU has an access stream.
    streams: bool,
    /// Work may wait for the purge mutex.
    blocked: bool,
    refill_pages: Vec<(u32, u32)>,
    housekeeping: Vec<Cpu>,
    /// By CPU: 0 isolated, 1 housekeeping, the index into [`Latencies`].
    class_of_cpu: Vec<u8>,
    /// Time reached.
    pub now: u64,
    /// Nothing moves time on any more.
    pub halted: bool,
    /// Of chains, by actor and step.
    programs: Vec<Vec<ProgId>>,
    tasks: Option<tasks::Programs>,
    /// Some process moves between CPUs.
    roamers: bool,
    /// Calls to many CPUs in user mode may be carried out at once.
    pub(super) volleys: bool,
    rehearsals: Rehearsals,
    /// Interrupts taken in volleys.
    pub(super) hit: u64,
    /// Room for whoever is early in the queue, and for how often each effect was met by class of CPU.
    early: Vec<Key>,
    hits: Vec<[u64; 2]>,
    /// The CPUs that are not isolated, 64 a word.
    housekeeping_words: Vec<u64>,
    kernel: Kernel,
}

/// What the kernel's configuration and the policy decide for initiators.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// `lazy_max_pages()`, where the policy tunes it.
    pub lazy_max: Option<u64>,
    /// `CONFIG_VMAP_STACK`: kernel stacks are in vmalloc space.
    pub vmap_stack: bool,
    /// `tlb_single_page_flush_ceiling`.
    pub flush_ceiling: u64,
    /// Nothing that runs differs from mainline 6.12, whose remote calls `volley` knows.
    pub is_mainline: bool,
}

impl Engine {
    fn kind(&self, cpu: Cpu, k: usize) -> &ActorKind {
        &self.scenario.actors[usize::from(self.own[usize::from(cpu)].actors[k].actor)].kind
    }

    /// A CPU without foreground is idle.
    fn is_idle_cpu(&self, cpu: Cpu) -> bool {
        self.own[usize::from(cpu)].idle
    }

    /// Recomputes when this CPU's actors act next.
    fn refresh(&mut self, cpu: Cpu) {
        let i = usize::from(cpu);
        let (mut device, mut nmi, mut init) = (NEVER, NEVER, NEVER);
        for k in 0..self.own[i].actors.len() {
            let next = self.own[i].actors[k].next;
            match self.kind(cpu, k) {
                ActorKind::Interrupts { .. } => device = device.min(next),
                // The task of a CPU in the kernel makes none.
                ActorKind::Faults { .. } if self.m.cores[i].depth > 0 => {}
                ActorKind::Faults { .. } => device = device.min(next),
                ActorKind::Nmis { .. } => nmi = nmi.min(next),
                ActorKind::Forks { .. }
                | ActorKind::Vfree { .. }
                | ActorKind::Tasks { .. }
                | ActorKind::Chain { .. } => {
                    init = init.min(next);
                }
                ActorKind::Idle
                | ActorKind::Spin { .. }
                | ActorKind::Syscalls { .. }
                | ActorKind::Stream { .. } => {}
            }
        }
        let o = &self.own[i];
        init = init.min(o.rcu_at);
        for work in &o.works {
            init = init.min(work.ready);
        }
        let c = &mut self.m.cores[i];
        (c.device_next, c.nmi_next, c.init_next) = (device, nmi, init);
        self.m.note_quiet(cpu);
    }

    /// Where an op comes from.
    pub fn source(&self, pc: Pc) -> String {
        self.code.source(pc)
    }

    // -- the global loop ---------------------------------------------------------------------------------

    /// Runs every action before `end`, then brings every CPU there. `false`: `cancel` was set, or time stands still and
    /// [`Engine::halted`] says so.
    pub fn run_until(&mut self, end: u64, cancel: &dyn Stop) -> bool {
        let mut turns = 0u32;
        let mut watch = Watch::default();
        loop {
            let (time, cpu) = self.m.queue.top();
            if time >= end {
                break;
            }
            if watch.stands_still(time, self.scenario.cpus) {
                self.halt(time);
                return false;
            }
            if turns.is_multiple_of(256) && cancel.is_set() {
                return false;
            }
            turns = turns.wrapping_add(1);
            self.m.queue.set(cpu, NEVER);
            let before = cfg!(debug_assertions).then(|| self.standing(cpu));
            self.run(cpu, (end, 0), true);
            let demand = self.m.demand(cpu);
            debug_assert!(
                demand > time || before != Some(self.standing(cpu)),
                "CPU {cpu} was asked at {time} and did nothing"
            );
            self.m.queue.set(cpu, demand);
        }
        for cpu in 0..self.scenario.cpus {
            if cancel.is_set() {
                return false;
            }
            self.run(cpu, (end, 0), false);
            self.stream_until(cpu, end);
        }
        self.now = end;
        true
    }

    /// Where a CPU is: what changes with each op.
    fn standing(&self, cpu: Cpu) -> (u64, u8, Pc, u64) {
        let c = &self.m.cores[usize::from(cpu)];
        let pc = usize::from(c.depth)
            .checked_sub(1)
            .map_or(0, |top| self.own[usize::from(cpu)].acts[top].frame.pc);
        (c.clock, c.depth, pc, self.work)
    }

    /// Brings `who` to the time of `cpu`'s next op.
    #[inline]
    fn bring(&mut self, who: Cpu, cpu: Cpu) {
        let now = self.m.cores[usize::from(cpu)].clock;
        if who != cpu && !self.m.is_quiet_until(who, now) {
            self.run(who, (now, cpu), false);
        }
    }

    /// Runs one CPU up to `stop`. Driven, it executes what others notice and stops when nobody waits for it;
    /// otherwise it stops before what others would notice, which by the order of the queue lies beyond `stop`.
    fn run(&mut self, cpu: Cpu, stop: Key, driven: bool) {
        self.m.settle_volleys(cpu);
        self.forward(cpu, stop, driven);
        self.look_ahead(cpu);
        self.m.note_quiet(cpu);
    }

    /// Nobody notices a driven CPU before the first op that is not its own, or an interrupt that is due: until then it is
    /// left behind like one that nobody waits for, and whoever comes to it brings it to his time. Its own ops are then
    /// carried out at once and not one for each turn of the queue.
    fn look_ahead(&mut self, cpu: Cpu) {
        let c = &mut self.m.cores[usize::from(cpu)];
        let driven = self.m.all_driven || c.working > 0;
        if !self.looks_ahead || !driven || c.depth == 0 || c.call.is_some() || c.waiting {
            return;
        }
        let top = usize::from(c.depth) - 1;
        let ahead = self.known[usize::from(self.own[usize::from(cpu)].acts[top].frame.pc)].ahead;
        if ahead > 0 {
            let due = c.nmi_next.min(c.irq_at).min(c.device_next);
            c.resume = c.clock.saturating_add(ahead).min(due);
        }
    }

    fn forward(&mut self, cpu: Cpu, stop: Key, driven: bool) {
        let i = usize::from(cpu);
        loop {
            let limit = if driven {
                let top = self.m.queue.top();
                let demand = self.m.demand(cpu);
                if demand == NEVER || (demand, cpu) >= top.min(stop) {
                    return;
                }
                top.min(stop)
            } else {
                stop
            };
            let c = &self.m.cores[i];
            if c.depth == 0 {
                if !self.leave_user(cpu, limit, driven) {
                    return;
                }
                continue;
            }
            // Interrupts at this boundary.
            let due = self.due(cpu);
            if due <= c.clock {
                if (c.clock, cpu) >= limit {
                    return;
                }
                self.take_interrupt(cpu, due, limit.0);
                continue;
            }
            let top = usize::from(c.depth) - 1;
            let pc = self.own[i].acts[top].frame.pc;
            match self.known[usize::from(pc)].class {
                Class::Private | Class::Mask | Class::Calls => {
                    if (c.clock, cpu) >= limit {
                        return;
                    }
                    self.run_private(cpu, top, due.min(limit.0), driven);
                }
                Class::Scan => {
                    if (c.clock, cpu) >= limit {
                        return;
                    }
                    self.run_scan(cpu, top, due.min(limit.0), driven);
                }
                Class::ScanMask => {
                    if (c.clock, cpu) >= limit || !driven {
                        return;
                    }
                    self.run_scan(cpu, top, due.min(limit.0), true);
                }
                Class::Body => {
                    if !self.run_body(cpu, top, due, limit, driven) {
                        return;
                    }
                }
                Class::Grace => {
                    if !self.run_grace(cpu, top, due, limit, driven) {
                        return;
                    }
                }
                Class::Acks => {
                    if !self.run_acks(cpu, top, due, limit, driven) {
                        return;
                    }
                }
                Class::Cross => {
                    if (c.clock, cpu) >= limit || !driven {
                        return;
                    }
                    self.run_cross(cpu, top, pc, stop.0);
                }
            }
        }
    }

    /// When the next interrupt that can be taken is due.
    #[inline]
    fn due(&self, cpu: Cpu) -> u64 {
        let c = &self.m.cores[usize::from(cpu)];
        let mut due = if c.nmi_blocked { NEVER } else { c.nmi_next };
        if c.if_on {
            due = due.min(c.irq_at).min(c.device_next);
        }
        due
    }

    /// Counts the time of what still runs at `end`: the outermost program, and an interrupt out of idle.
    fn count_running(&mut self, cpu: Cpu, end: u64) {
        let i = usize::from(cpu);
        let [outer, inner, ..] = self.own[i].acts;
        let stat = |act: Act| match act.why {
            Why::Idle => Stat::idle_ps,
            Why::Interrupt | Why::Nmi | Why::Breakpoint => Stat::interrupt_ps,
            Why::Enter | Why::Syscall | Why::Fault | Why::Work => Stat::kernel_ps,
        };
        let depth = self.m.cores[i].depth;
        let out_of_idle = depth > 1 && outer.why == Why::Idle;
        if depth > 0 {
            let until = if out_of_idle { inner.began } else { end };
            self.m.add(cpu, stat(outer), until.saturating_sub(outer.began));
        }
        if out_of_idle {
            self.m.add(cpu, stat(inner), end.saturating_sub(inner.began));
        }
    }

    /// Makes statistics final at `end`.
    pub fn finish(&mut self, end: u64) {
        for cpu in 0..self.scenario.cpus {
            self.settle(cpu);
            let i = usize::from(cpu);
            let c = &mut self.m.cores[i];
            c.clock = c.clock.min(end); // an op may end later
            self.m.view_ends(cpu);
            let c = &mut self.m.cores[i];
            let quiet = end.saturating_sub(c.quiet_from);
            let row = &mut self.m.stats[i];
            let longest = &mut row[Stat::longest_quiet_ps as usize];
            *longest = (*longest).max(quiet);
            self.count_running(cpu, end);
            if !self.is_idle_cpu(cpu) {
                let row = &mut self.m.stats[i];
                let out = row[Stat::kernel_ps as usize] + row[Stat::interrupt_ps as usize];
                row[Stat::user_ps as usize] = end.saturating_sub(out);
            }
        }
    }
}

fn draw_gap(draws: &mut Draws, gap: Gap) -> u64 {
    if gap.exponential { draws.exponential(gap.mean_ps) } else { gap.mean_ps }
}
