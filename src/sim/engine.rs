//! The loop. [`Engine::run_until`] takes the first CPU of the global queue and runs it until the next one's time;
//! `Engine::run` is one CPU's own timeline, the same code whether the CPU is driven or lazily brought forward.

use std::sync::atomic::{AtomicBool, Ordering};

mod save;

pub use save::Saved;

use super::draw::Draws;
use super::machine::Timed;
use super::queue::{Key, NEVER};
use super::scenario::{Gap, Kind as ActorKind, Scenario};
use super::stats::{Cause, STATS, Stat};
use super::timeline::Kind as EventKind;
use crate::kernel::program::{At, Code, Cond, Op, Pc, ProgId, REGS, Set, Slot};
use crate::kernel::step::{Cpu, Frame, Machine, Outcome, Violation, step};
use crate::kernel::vmalloc::{Area, Vmalloc};

/// A purge that had to give up tries again after this; own choice.
const RETRY_PS: u64 = 1_000_000_000_000;

/// `ready` of work that waits for the purge mutex.
const BLOCKED: u64 = NEVER - 1;

/// Frames of a CPU: task, kernel work in it, interrupt, NMI.
const DEPTH: usize = 5;

/// A wait on a variable longer than this is a deadlock.
const STUCK_PS: u64 = 1_000_000_000_000;

/// Programs that only initiators run.
const INITIATORS: [&str; 8] =
    ["purge", "vunmap", "table_free", "set_memory", "text_poke", "switch_mm", "enter_lazy", "flush_mm"];

/// Why a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
enum Why {
    Enter,
    Syscall,
    Work,
    Idle,
    Interrupt,
    Nmi,
}

/// One activation.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
struct Act {
    frame: Frame,
    why: Why,
    began: u64,
    /// [`NEVER`]: the body has not begun.
    body_left: u64,
    body_ps: u64,
    cause: Cause,
    from: u32,
    /// What the CPU had before, restored at the end.
    if_on: bool,
    entry_code: bool,
    in_call_irq: bool,
    loop_next: Cpu,
    user_left: u64,
}

/// What kind of step an op is to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Class {
    /// Nobody else notices.
    Private,
    /// May change which interrupts are due.
    Mask,
    /// Charges a workload.
    Body,
    /// Others notice, or it reads what others write.
    Cross,
    /// Waits for acknowledgements.
    Acks,
    /// Head of a loop over CPUs that only looks at them.
    Scan,
}

fn class_of(op: Op) -> Class {
    match op {
        Op::Irq(_) => Class::Mask,
        Op::Body(_) => Class::Body,
        Op::AwaitAcks => Class::Acks,
        Op::Load { from: p, .. } | Op::Store { to: p, .. } | Op::Rmw { at: p, .. } => place(p.at),
        Op::Cas { at: p, .. } | Op::Await { at: p, .. } => place(p.at),
        Op::Ipi { .. } | Op::Tlbsync | Op::Rar(_) | Op::Request(_) | Op::Promise(_) => Class::Cross,
        Op::Move { .. }
        | Op::Alu { .. }
        | Op::Unless { .. }
        | Op::Jump(_)
        | Op::Loop(_)
        | Op::Each { .. } => Class::Private,
        Op::Clear | Op::Put | Op::Fence(_) | Op::SwapGs | Op::ReadGs(_) | Op::SetGs(_) => Class::Private,
        Op::ReadCr3(_) | Op::MovCr3 { .. } | Op::MovCr4Pge(_) | Op::Invlpg(_) | Op::Invpcid { .. } => {
            Class::Private
        }
        Op::LoadPage { .. } | Op::StorePage { .. } => Class::Private,
        Op::Invlpgb(_) | Op::InvlpgbAll | Op::Touch(_) | Op::Pte { .. } | Op::FreeTable(_) => Class::Private,
        Op::HandleCalls | Op::OweUser | Op::OweOthers | Op::Return => Class::Private,
    }
}

/// Is this the head of a loop whose turns depend on nothing but the CPU they look at, and change nothing but
/// registers and the collected set?
fn only_looks(code: &Code, head: usize) -> bool {
    let Op::Each { done, .. } = code.ops[head] else { return false };
    (head + 1..usize::from(done)).all(|pc| match code.ops[pc] {
        Op::Load { from, .. } => from.at == At::Cur,
        Op::Unless { c: Cond::Cmp(..) | Cond::CurIn(_) | Cond::CurIsMe, to } | Op::Jump(to) => {
            (head..usize::from(done)).contains(&usize::from(to))
        }
        Op::Move { .. } | Op::Alu { .. } | Op::Put => true,
        _ => false,
    }) && !matches!(code.ops[head], Op::Each { of: Set::Targets, .. })
}

fn reads_cur(op: Op) -> bool {
    match op {
        Op::Load { from: p, .. }
        | Op::Store { to: p, .. }
        | Op::Rmw { at: p, .. }
        | Op::Cas { at: p, .. } => p.at == At::Cur,
        _ => false,
    }
}

fn place(at: At) -> Class {
    if at == At::Me { Class::Private } else { Class::Cross }
}

/// Kernel work an initiator does.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
struct Work {
    ready: u64,
    run: Run,
    full: bool,
    pages: u32,
    cause: Cause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
enum Run {
    /// `drain_vmap_area_work`.
    Drain,
    /// A program; `Some(purge)` when it consumes the lazy list (`_vm_unmap_aliases`).
    Program(ProgId, bool),
}

impl Run {
    fn purges(self) -> bool {
        matches!(self, Run::Drain | Run::Program(_, true))
    }
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
    memo: Option<Memo>,
}

/// A proven fixed point: a system call from this state takes this long and ends in this state.
#[derive(Clone, Debug)]
struct Memo {
    vars: Vec<u16>,
    cr3: u64,
    cold: bool,
    cost: u64,
    delta: Vec<(usize, u64)>,
    times: u64,
    /// Offset of the last full flush from the start, if there was one.
    flush_at: Option<u64>,
}

/// One turn of a loop that only looks at CPUs: what it did for a CPU that looked like this.
#[derive(Clone, Debug)]
struct Turn {
    pc: Pc,
    sets: u8,
    me: bool,
    vars: u64,
    before: [u64; REGS],
    after: [u64; REGS],
    cost: u64,
    put: bool,
}

/// Different looks that are remembered; more would mean that nothing repeats.
const TURNS: usize = 16;

/// Entry points of the assembled policy.
#[derive(Clone, Copy, Debug)]
struct Entries {
    enter_user: ProgId,
    syscall: ProgId,
    interrupt: ProgId,
    interrupt_kernel: ProgId,
    interrupt_idle: ProgId,
    nmi_user: ProgId,
    nmi: ProgId,
    idle: ProgId,
    purge: ProgId,
}

/// How long system calls and interruptions took, by class of CPU (0 isolated, 1 housekeeping).
#[derive(Clone, Debug)]
pub struct Latencies {
    /// System calls.
    pub syscall: [hdrhistogram::Histogram<u64>; 2],
    /// Interruptions of user mode.
    pub interruption: [hdrhistogram::Histogram<u64>; 2],
    /// Waits of initiators.
    pub wait: hdrhistogram::Histogram<u64>,
}

impl Latencies {
    fn new() -> Self {
        let h =
            || hdrhistogram::Histogram::new_with_bounds(1000, 1 << 50, 2).expect("the bounds are constants");
        Latencies { syscall: [h(), h()], interruption: [h(), h()], wait: h() }
    }
}

/// What a purge was: areas, and whether another one had just waited.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub struct PurgeRecord {
    /// When its request was made.
    pub time_ps: u64,
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
    code: Code,
    class: Vec<Class>,
    /// Turns of loops that only look.
    turns: Vec<Turn>,
    /// By op: it reads or writes a variable of the loop's CPU.
    reads_cur: Vec<bool>,
    entries: Entries,
    scenario: Scenario,
    /// The machine.
    pub m: Timed,
    own: Vec<Own>,
    vmalloc: Vmalloc,
    /// The purge that runs was queued while another one waited.
    tail: bool,
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
    /// Jump over proven fixed points.
    skip: bool,
    refill_pages: Vec<(u32, u32)>,
    housekeeping: Vec<Cpu>,
    /// By CPU: 0 isolated, 1 housekeeping, the index into [`Latencies`].
    class_of_cpu: Vec<u8>,
    /// Time reached.
    pub now: u64,
    programs: Vec<Vec<Option<ProgId>>>,
}

impl Engine {
    /// Ready at time 0. `base_bodies` by actor: what the entry code leaves of a system call.
    pub fn new(
        code: Code,
        mut m: Timed,
        scenario: &Scenario,
        seed: u64,
        lazy_max: Option<u64>,
        base_bodies: &[u64],
        skip: bool,
    ) -> Result<Self, String> {
        let find = |name: &str| {
            code.program(name).ok_or_else(|| format!("policy `{}` has no program `{name}`", code.name))
        };
        let entries = Entries {
            enter_user: find("enter_user")?,
            syscall: find("syscall")?,
            interrupt: find("interrupt")?,
            interrupt_kernel: find("interrupt_kernel")?,
            interrupt_idle: find("interrupt_idle")?,
            nmi_user: find("nmi_user")?,
            nmi: find("nmi")?,
            idle: find("idle")?,
            purge: find("purge")?,
        };
        let mut programs = Vec::new();
        for actor in &scenario.actors {
            programs.push(match &actor.kind {
                ActorKind::Chain { steps, .. } => {
                    steps.iter().map(|s| find(&s.program).map(Some)).collect::<Result<Vec<_>, _>>()?
                }
                _ => Vec::new(),
            });
        }
        let n = usize::from(scenario.cpus);
        let act = Act {
            frame: Frame::new(0),
            why: Why::Enter,
            began: 0,
            body_left: NEVER,
            body_ps: 0,
            cause: Cause::Other,
            from: 0,
            if_on: true,
            entry_code: false,
            in_call_irq: false,
            loop_next: 0,
            user_left: NEVER,
        };
        let mut own = vec![
            Own {
                acts: [act; DEPTH],
                actors: Vec::new(),
                works: Vec::new(),
                rcu_at: NEVER,
                rcu: Vec::new(),
                rcu_next: Vec::new(),
                foreground: None,
                idle: true,
                base_body: 0,
                memo: None,
            };
            n
        ];
        let mut refill_pages = vec![(0, 0); n];
        for (i, actor) in scenario.actors.iter().enumerate() {
            for cpu in scenario.cpus_of(&actor.on) {
                let o = &mut own[usize::from(cpu)];
                if actor.kind.is_foreground() {
                    o.foreground = Some(o.actors.len());
                    o.idle = matches!(actor.kind, ActorKind::Idle);
                    o.base_body = base_bodies[i];
                    match actor.kind {
                        ActorKind::Syscalls { kernel_pages, user_pages, .. } => {
                            refill_pages[usize::from(cpu)] = (kernel_pages, user_pages);
                        }
                        ActorKind::Spin { user_pages } => refill_pages[usize::from(cpu)] = (0, user_pages),
                        _ => {}
                    }
                }
                o.actors.push(ActorState {
                    actor: i as u16,
                    next: NEVER,
                    draws: Draws::new(seed, cpu, i as u16),
                    alive: Vec::new(),
                    exiting: false,
                });
            }
        }
        let mut class: Vec<Class> = code.ops.iter().map(|op| class_of(*op)).collect();
        if code.vars.len() <= 4 {
            for (pc, class) in class.iter_mut().enumerate() {
                if only_looks(&code, pc) {
                    *class = Class::Scan;
                }
            }
        }
        // Entry code that looks at others must run in the global order: then every CPU is driven.
        m.all_driven = code.programs.iter().any(|p| {
            !INITIATORS.contains(&p.name.as_str())
                && (p.start..p.end).any(|pc| class[usize::from(pc)] == Class::Cross)
        });
        let mut engine = Engine {
            reads_cur: code.ops.iter().map(|op| reads_cur(*op)).collect(),
            class,
            turns: Vec::new(),
            entries,
            scenario: scenario.clone(),
            m,
            own,
            vmalloc: Vmalloc::new(u32::from(scenario.cpus), lazy_max.or(scenario.lazy_max_pages)),
            tail: false,
            last_purge_end: 0,
            purges: Vec::new(),
            forks: 0,
            latencies: Latencies::new(),
            runs: 0,
            work: 0,
            skip,
            refill_pages,
            housekeeping: (0..scenario.cpus).filter(|c| !scenario.is_isolated(*c)).collect(),
            class_of_cpu: (0..scenario.cpus).map(|c| u8::from(!scenario.is_isolated(c))).collect(),
            now: 0,
            programs,
            code,
        };
        for cpu in 0..scenario.cpus {
            engine.start(cpu);
        }
        Ok(engine)
    }

    fn start(&mut self, cpu: Cpu) {
        let i = usize::from(cpu);
        for k in 0..self.own[i].actors.len() {
            let gap = match self.kind(cpu, k) {
                ActorKind::Idle | ActorKind::Spin { .. } | ActorKind::Syscalls { .. } => continue,
                ActorKind::Interrupts { gap, .. }
                | ActorKind::Nmis { gap, .. }
                | ActorKind::Forks { gap, .. }
                | ActorKind::Vfree { gap, .. }
                | ActorKind::Chain { gap, .. } => *gap,
            };
            let a = &mut self.own[i].actors[k];
            a.next = draw_gap(&mut a.draws, gap);
        }
        self.refresh(cpu);
        if self.is_idle_cpu(cpu) {
            // Between two turns of idle it is never quiet: the next turn is to begin.
            self.m.cores[i].fg_next = 0;
        } else {
            self.push(cpu, self.entries.enter_user, Why::Enter, Cause::Other, 0);
        }
        let demand = self.m.demand(cpu);
        self.m.queue.set(cpu, demand);
    }

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
                ActorKind::Nmis { .. } => nmi = nmi.min(next),
                ActorKind::Forks { .. } | ActorKind::Vfree { .. } | ActorKind::Chain { .. } => {
                    init = init.min(next);
                }
                ActorKind::Idle | ActorKind::Spin { .. } | ActorKind::Syscalls { .. } => {}
            }
        }
        let o = &self.own[i];
        init = init.min(o.rcu_at);
        for work in &o.works {
            init = init.min(work.ready);
        }
        let c = &mut self.m.cores[i];
        (c.device_next, c.nmi_next, c.init_next) = (device, nmi, init);
    }

    /// Where an op comes from.
    pub fn source(&self, pc: Pc) -> String {
        self.code.source(pc)
    }

    // -- the global loop ---------------------------------------------------------------------------------

    /// Runs every action before `end`, then brings every CPU there. `false`: `cancel` was set.
    pub fn run_until(&mut self, end: u64, cancel: &AtomicBool) -> bool {
        let mut turns = 0u32;
        loop {
            let (time, cpu) = self.m.queue.top();
            if time >= end {
                break;
            }
            if turns.is_multiple_of(256) && cancel.load(Ordering::Relaxed) {
                return false;
            }
            turns = turns.wrapping_add(1);
            self.m.queue.set(cpu, NEVER);
            self.run(cpu, (end, 0), true);
            let demand = self.m.demand(cpu);
            self.m.queue.set(cpu, demand);
        }
        for cpu in 0..self.scenario.cpus {
            if cancel.load(Ordering::Relaxed) {
                return false;
            }
            self.run(cpu, (end, 0), false);
        }
        self.now = end;
        true
    }

    /// Brings `who` to the time of `cpu`'s next op.
    #[inline]
    fn bring(&mut self, who: Cpu, cpu: Cpu) {
        let now = self.m.cores[usize::from(cpu)].clock;
        if who != cpu && !self.m.cores[usize::from(who)].is_quiet_until(now) {
            self.run(who, (now, cpu), false);
        }
    }

    /// Runs one CPU up to `stop`. Driven, it executes what others notice and stops when nobody waits for it;
    /// otherwise it stops before what others would notice, which by the order of the queue lies beyond `stop`.
    fn run(&mut self, cpu: Cpu, stop: Key, driven: bool) {
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
                self.take_interrupt(cpu, due);
                continue;
            }
            let top = usize::from(c.depth) - 1;
            let pc = self.own[i].acts[top].frame.pc;
            match self.class[usize::from(pc)] {
                Class::Private | Class::Mask => {
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
                Class::Body => {
                    if !self.run_body(cpu, top, due, limit, driven) {
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
                    self.run_cross(cpu, top, pc);
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

    /// Ops nobody else notices, up to `until` or the first that is not so. Driven, it also reads and writes the
    /// variables of CPUs that are quiet, which concerns nobody else either: a broadcast examines its targets here.
    #[inline]
    fn run_private(&mut self, cpu: Cpu, top: usize, until: u64, driven: bool) {
        let i = usize::from(cpu);
        let frame = &mut self.own[i].acts[top].frame;
        loop {
            match step(&self.code, frame, &mut self.m, cpu) {
                Outcome::Next => {
                    let now = self.m.cores[i].clock;
                    if now >= until {
                        return;
                    }
                    match self.class[usize::from(frame.pc)] {
                        Class::Private => {}
                        Class::Cross if driven && self.reads_cur[usize::from(frame.pc)] => {
                            let who = &self.m.cores[usize::from(frame.cur)];
                            if frame.cur != cpu && !who.is_quiet_until(now) {
                                return;
                            }
                        }
                        Class::Mask | Class::Body | Class::Cross | Class::Acks | Class::Scan => return,
                    }
                }
                Outcome::Done => return self.pop(cpu),
                Outcome::Wait => return self.spin(cpu, top),
                Outcome::Violated(v) => {
                    let pc = frame.pc;
                    frame.pc += 1;
                    return self.violated(cpu, pc, v);
                }
            }
        }
    }

    /// At the head of a loop that only looks. CPUs that are quiet and look like one seen before need no op by op.
    fn run_scan(&mut self, cpu: Cpu, top: usize, until: u64, driven: bool) {
        let i = usize::from(cpu);
        let head = self.own[i].acts[top].frame.pc;
        let Op::Each { of, .. } = self.code.ops[usize::from(head)] else { unreachable!("the class says so") };
        if !driven || !self.skip {
            return self.run_private(cpu, top, until, driven);
        }
        loop {
            let (now, place) = (self.m.cores[i].clock, self.m.cores[i].loop_next);
            let who = self.m.next_in(cpu, of);
            let quiet = who.is_some_and(|w| w == cpu || self.m.cores[usize::from(w)].is_quiet_until(now));
            let Some(who) = who.filter(|_| quiet) else {
                self.m.cores[i].loop_next = place;
                return self.run_private(cpu, top, until, true);
            };
            let frame = &mut self.own[i].acts[top].frame;
            let (sets, me) = (self.m.sets_of(who), who == cpu);
            let vars = self.m.vars_of(who).iter().fold(0u64, |all, v| all << 16 | u64::from(*v));
            let known = self.turns.iter().find(|t| {
                t.pc == head && t.sets == sets && t.me == me && t.vars == vars && t.before == frame.regs
            });
            if let Some(turn) = known {
                if now + turn.cost >= until {
                    self.m.cores[i].loop_next = place;
                    return self.run_private(cpu, top, until, true);
                }
                frame.regs = turn.after;
                frame.cur = who;
                self.m.cores[i].clock = now + turn.cost;
                if turn.put {
                    self.m.put(cpu, who);
                }
                continue;
            }
            self.m.cores[i].loop_next = place;
            let (before, was) = (frame.regs, self.m.is_target(cpu, who));
            loop {
                if step(&self.code, frame, &mut self.m, cpu) != Outcome::Next {
                    return; // a rule was broken: the op by op way reports it
                }
                if frame.pc == head {
                    break;
                }
                let now = self.m.cores[i].clock;
                let busy = !me && !self.m.cores[usize::from(who)].is_quiet_until(now);
                if now >= until || busy {
                    return;
                }
            }
            let after = self.own[i].acts[top].frame.regs;
            let cost = self.m.cores[i].clock - now;
            let put = self.m.is_target(cpu, who);
            if !was && self.turns.len() < TURNS {
                self.turns.push(Turn { pc: head, sets, me, vars, before, after, cost, put });
            }
            if self.m.cores[i].clock >= until {
                return;
            }
        }
    }

    fn spin(&mut self, cpu: Cpu, top: usize) {
        let i = usize::from(cpu);
        self.m.cores[i].clock += self.m.times.poll;
        let act = &self.own[i].acts[top];
        if self.m.cores[i].clock > act.began + STUCK_PS {
            let pc = act.frame.pc;
            self.own[i].acts[top].frame.pc += 1;
            self.violated(cpu, pc, Violation::Deadlock);
        }
    }

    fn violated(&mut self, cpu: Cpu, pc: Pc, v: Violation) {
        let clock = self.m.cores[usize::from(cpu)].clock;
        self.m.add(cpu, Stat::violations, 1);
        self.m.event(cpu, clock, 0, EventKind::Violation, Cause::Other, u32::from(pc));
        if self.m.violation.is_none_or(|(t, c, ..)| (clock, cpu) < (t, c)) {
            self.m.violation = Some((clock, cpu, pc, v));
        }
    }

    /// One op that others notice: first everyone it concerns is brought to its time.
    fn run_cross(&mut self, cpu: Cpu, top: usize, pc: Pc) {
        let i = usize::from(cpu);
        match self.code.ops[usize::from(pc)] {
            Op::Load { from: p, .. }
            | Op::Store { to: p, .. }
            | Op::Rmw { at: p, .. }
            | Op::Cas { at: p, .. }
            | Op::Await { at: p, .. }
                if p.at == At::Cur =>
            {
                let who = self.own[i].acts[top].frame.cur;
                self.bring(who, cpu);
            }
            Op::Ipi { to, .. } => {
                for who in 0..self.scenario.cpus {
                    if self.m.in_set(cpu, to, who) {
                        self.bring(who, cpu);
                    }
                }
            }
            Op::Tlbsync | Op::Rar(_) | Op::Promise(_) => {
                for who in 0..self.scenario.cpus {
                    self.bring(who, cpu);
                }
            }
            _ => {}
        }
        let frame = &mut self.own[i].acts[top].frame;
        match step(&self.code, frame, &mut self.m, cpu) {
            Outcome::Next => {}
            Outcome::Done => self.pop(cpu),
            Outcome::Wait => self.spin(cpu, top),
            Outcome::Violated(v) => {
                frame.pc += 1;
                self.violated(cpu, pc, v);
            }
        }
    }

    /// At `await acks`. `false`: nothing more can happen before `limit`.
    fn run_acks(&mut self, cpu: Cpu, top: usize, due: u64, limit: Key, driven: bool) -> bool {
        let c = &mut self.m.cores[usize::from(cpu)];
        if c.wait_from == NEVER {
            c.wait_from = c.clock;
        }
        c.waiting = c.acks_left > 0;
        let until = if c.waiting { NEVER } else { c.clock.max(c.acked_at) };
        if due <= until && due != NEVER {
            if (due, cpu) >= limit {
                return false;
            }
            c.clock = c.clock.max(due);
            return true; // the interrupt is taken at the next turn
        }
        if c.waiting || !driven {
            return false;
        }
        c.clock = until;
        if (until, cpu) >= limit {
            return false;
        }
        let waited = until - std::mem::replace(&mut c.wait_from, NEVER);
        c.acked_at = 0;
        self.m.add(cpu, Stat::wait_ps, waited);
        let longest = &mut self.m.stats[usize::from(cpu)][Stat::wait_max_ps as usize];
        *longest = (*longest).max(waited);
        self.latencies.wait.saturating_record(waited.max(1000));
        let frame = &mut self.own[usize::from(cpu)].acts[top].frame;
        step(&self.code, frame, &mut self.m, cpu);
        true
    }

    /// At `body`. `false`: it lasts beyond `limit`.
    fn run_body(&mut self, cpu: Cpu, top: usize, due: u64, limit: Key, driven: bool) -> bool {
        let i = usize::from(cpu);
        let pc = self.own[i].acts[top].frame.pc;
        let Op::Body(slot) = self.code.ops[usize::from(pc)] else { unreachable!("the class says so") };
        let clock = self.m.cores[i].clock;
        if (clock, cpu) >= limit {
            return false;
        }
        self.m.cores[i].resume = 0;
        if slot == Slot::Idle {
            self.m.view_ends(cpu);
            let c = &mut self.m.cores[i];
            let end = c.clock.max(c.init_next);
            let until = end.min(due).min(limit.0);
            c.clock = c.clock.max(until);
            if until == end && (end, cpu) < limit {
                let act = &mut self.own[i].acts[top];
                self.m.stats[i][Stat::idle_ps as usize] += end - act.began;
                act.began = end;
                let frame = &mut act.frame;
                step(&self.code, frame, &mut self.m, cpu);
                return true;
            }
            let c = &mut self.m.cores[i];
            c.resume = end.min(due);
            return due <= c.clock;
        }
        let act = &mut self.own[i].acts[top];
        if act.body_left == NEVER {
            act.body_left = act.body_ps;
            if self.m.tlbs.is_some() {
                let pages = self.refill_pages[i].0;
                self.m.look_up(cpu, true, pages);
                return true;
            }
            if self.m.cores[i].cold {
                self.refill(cpu, true);
                return true;
            }
        }
        if slot == Slot::Syscall && self.work_due(cpu) {
            if !driven {
                return false;
            }
            self.start_work(cpu);
            return true;
        }
        let act = &mut self.own[i].acts[top];
        let c = &mut self.m.cores[i];
        let end = c.clock + act.body_left;
        let until = end.min(due).min(limit.0);
        if until > c.clock {
            act.body_left -= until - c.clock;
            c.clock = until;
        }
        if due <= c.clock {
            return true;
        }
        if act.body_left > 0 || (c.clock, cpu) >= limit {
            // Nothing happens before this; whoever drives this CPU need not ask earlier.
            c.resume = end.min(due).min(if slot == Slot::Syscall { c.init_next } else { NEVER });
            return false;
        }
        let frame = &mut act.frame;
        step(&self.code, frame, &mut self.m, cpu);
        true
    }

    /// Charges the misses after a flush: the kernel's pages in a body, all that is left on return to user mode.
    fn refill(&mut self, cpu: Cpu, kernel: bool) {
        let i = usize::from(cpu);
        let (k, u) = self.refill_pages[i];
        let pages = u64::from(if kernel { k } else { u });
        let time = pages * self.m.times.refill;
        self.m.cores[i].clock += time;
        if !kernel {
            self.m.cores[i].cold = false;
        }
        self.m.stats[i][Stat::refill_misses as usize] += pages;
        self.m.stats[i][Stat::refill_ps as usize] += time;
    }

    // -- leaving and entering user mode ------------------------------------------------------------------

    /// In user mode, or between two turns of idle. `false`: nothing happens before `limit`.
    fn leave_user(&mut self, cpu: Cpu, limit: Key, driven: bool) -> bool {
        let i = usize::from(cpu);
        if self.is_idle_cpu(cpu) {
            let c = &mut self.m.cores[i];
            if (c.clock, cpu) >= limit {
                return false;
            }
            if c.init_next <= c.clock {
                if !driven {
                    return false;
                }
                if self.work_due(cpu) {
                    self.start_work(cpu);
                }
            } else {
                self.push(cpu, self.entries.idle, Why::Idle, Cause::Other, 0);
            }
            return true;
        }
        let c = &mut self.m.cores[i];
        let due = c.nmi_next.min(c.irq_at).min(c.device_next);
        let others = due.min(c.init_next);
        let fg = c.fg_next;
        if fg < others {
            if (fg.max(c.clock), cpu) >= limit {
                return false;
            }
            if self.skip && self.m.tlbs.is_none() && self.jump(cpu, others.min(limit.0)) {
                return true;
            }
            let c = &mut self.m.cores[i];
            c.clock = c.clock.max(fg);
            self.syscall(cpu);
            return true;
        }
        let at = others.max(c.clock);
        if others == NEVER || (at, cpu) >= limit {
            return false;
        }
        c.clock = at;
        if due <= at {
            self.take_interrupt(cpu, due);
        } else {
            if !driven {
                return false;
            }
            // Kernel work of this task: a system call whose body does it.
            if self.work_due(cpu) {
                self.syscall(cpu);
            }
        }
        true
    }

    fn syscall(&mut self, cpu: Cpu) {
        let i = usize::from(cpu);
        let body = self.own[i].base_body;
        let left = self.m.cores[i].fg_next.saturating_sub(self.m.cores[i].clock);
        self.push(cpu, self.entries.syscall, Why::Syscall, Cause::Other, 0);
        let top = usize::from(self.m.cores[i].depth) - 1;
        self.own[i].acts[top].body_ps = body;
        self.own[i].acts[top].user_left = left;
    }

    /// Starts a program on a CPU.
    fn push(&mut self, cpu: Cpu, run: ProgId, why: Why, cause: Cause, from: u32) {
        let i = usize::from(cpu);
        let pti = self.m.has_pti();
        let times = &self.m.times;
        self.m.cores[i].resume = 0;
        let enters = match why {
            Why::Enter | Why::Work | Why::Idle => 0,
            Why::Syscall => times.syscall.0,
            Why::Interrupt => times.interrupt.0,
            Why::Nmi => times.nmi.0,
        };
        let c = &mut self.m.cores[i];
        let depth = usize::from(c.depth);
        self.own[i].acts[depth] = Act {
            frame: Frame::new(self.code.start(run)),
            why,
            began: c.clock,
            body_left: NEVER,
            body_ps: 0,
            cause,
            from,
            if_on: c.if_on,
            entry_code: c.entry_code,
            in_call_irq: c.in_call_irq,
            loop_next: c.loop_next,
            user_left: NEVER,
        };
        c.clock += enters;
        c.depth += 1;
        c.entry_code = why != Why::Work;
        match why {
            Why::Syscall | Why::Interrupt => c.if_on = false,
            Why::Nmi => c.nmi_blocked = true,
            Why::Work => c.working += 1,
            Why::Enter | Why::Idle => {}
        }
        if !pti || why == Why::Work {
            self.m.view_begins(cpu);
        }
        self.runs += 1;
        self.work += 1;
    }

    /// A program is over.
    fn pop(&mut self, cpu: Cpu) {
        let i = usize::from(cpu);
        let isolated = usize::from(self.class_of_cpu[i]);
        let times = &self.m.times;
        let depth = usize::from(self.m.cores[i].depth) - 1;
        let act = self.own[i].acts[depth];
        let leaves = match act.why {
            Why::Enter | Why::Work | Why::Idle => 0,
            Why::Syscall => times.syscall.1,
            Why::Interrupt => times.interrupt.1,
            Why::Nmi => times.nmi.1,
        };
        let c = &mut self.m.cores[i];
        c.clock += leaves;
        c.depth -= 1;
        c.if_on = act.if_on;
        c.entry_code = act.entry_code;
        c.in_call_irq = act.in_call_irq;
        c.loop_next = act.loop_next;
        if act.why == Why::Nmi {
            c.nmi_blocked = false;
        }
        if act.why == Why::Work {
            c.working -= 1;
            let idle = c.depth == 0;
            self.work_ends(cpu);
            if idle {
                let took = self.m.cores[i].clock - act.began;
                self.m.add(cpu, Stat::kernel_ps, took);
            }
            return;
        }
        let to_user = c.depth == 0 && act.why != Why::Idle;
        if to_user {
            if !self.m.has_pti() {
                self.m.view_ends(cpu);
            }
            if self.m.cores[i].cold {
                self.refill(cpu, false);
            }
            if self.m.tlbs.is_some() {
                let pages = self.refill_pages[i].1;
                self.m.look_up(cpu, false, pages);
            }
        }
        let c = &self.m.cores[i];
        let (clock, took) = (c.clock, c.clock - act.began);
        match act.why {
            Why::Syscall => {
                self.m.add(cpu, Stat::syscalls, 1);
                self.m.add(cpu, Stat::kernel_ps, took);
                self.latencies.syscall[isolated].saturating_record(took.max(1000));
            }
            Why::Interrupt | Why::Nmi => {
                let in_idle = depth == 1 && self.own[i].acts[0].why == Why::Idle;
                if to_user || in_idle {
                    self.m.add(cpu, Stat::interrupt_ps, took);
                }
                if in_idle {
                    self.own[i].acts[0].began += took; // not idle time
                }
                self.m.event(cpu, act.began, took, EventKind::Interrupt, act.cause, act.from);
            }
            Why::Enter | Why::Work | Why::Idle => {}
        }
        if to_user {
            self.return_to_user(cpu, act, clock, took, isolated);
        }
    }

    fn return_to_user(&mut self, cpu: Cpu, act: Act, clock: u64, took: u64, class: usize) {
        let i = usize::from(cpu);
        match act.why {
            Why::Interrupt | Why::Nmi => {
                self.m.add(cpu, Stat::interference, 1);
                self.m.add(cpu, Stat::interference_ps, took);
                let c = &mut self.m.cores[i];
                let quiet = act.began - c.quiet_from;
                c.quiet_from = clock;
                let longest = &mut self.m.stats[i][Stat::longest_quiet_ps as usize];
                *longest = (*longest).max(quiet);
                self.latencies.interruption[class].saturating_record(took.max(1000));
                // The user time that was interrupted goes on.
                let c = &mut self.m.cores[i];
                c.fg_next = if act.user_left == NEVER { NEVER } else { clock + act.user_left };
            }
            Why::Syscall | Why::Enter => {
                let Some(k) = self.own[i].foreground else { return };
                let next = match *self.kind(cpu, k) {
                    ActorKind::Syscalls { gap, .. } if act.user_left == NEVER || act.user_left == 0 => {
                        let draws = &mut self.own[i].actors[k].draws;
                        clock + draw_gap(draws, gap)
                    }
                    ActorKind::Syscalls { .. } => clock + act.user_left,
                    _ => NEVER,
                };
                self.m.cores[i].fg_next = next;
            }
            Why::Work | Why::Idle => {}
        }
    }

    fn take_interrupt(&mut self, cpu: Cpu, due: u64) {
        let i = usize::from(cpu);
        let c = &self.m.cores[i];
        let depth = usize::from(c.depth);
        let idle = depth == 1 && self.own[i].acts[0].why == Why::Idle;
        let user_left =
            if depth == 0 && c.fg_next != NEVER { c.fg_next.saturating_sub(c.clock) } else { NEVER };
        if !c.nmi_blocked && c.nmi_next == due {
            let k = self.actor_due(cpu, due, |kind| matches!(kind, ActorKind::Nmis { .. }));
            let ActorKind::Nmis { gap, body_ps } = *self.kind(cpu, k) else { unreachable!("just matched") };
            self.reschedule(cpu, k, gap);
            let run = if depth == 0 { self.entries.nmi_user } else { self.entries.nmi };
            self.push(cpu, run, Why::Nmi, Cause::Nmi, 0);
            self.own[i].acts[depth].body_ps = body_ps;
            self.own[i].acts[depth].user_left = user_left;
            self.m.add(cpu, Stat::nmis, 1);
            self.m.by_cause[i][Cause::Nmi as usize] += 1;
            return;
        }
        let run = if depth == 0 {
            self.entries.interrupt
        } else if idle {
            self.entries.interrupt_idle
        } else {
            self.entries.interrupt_kernel
        };
        self.m.add(cpu, Stat::interrupts, 1);
        if c_irq(&self.m, cpu) == due {
            let c = &mut self.m.cores[i];
            c.irq_at = NEVER;
            let (cause, from) = match c.calls.first() {
                Some(call) => {
                    let from = call.from;
                    (self.m.cores[usize::from(from)].request.cause, u32::from(from))
                }
                None => (Cause::Other, u32::from(u16::MAX)),
            };
            self.m.add(cpu, Stat::ipis_received, 1);
            self.m.by_cause[i][cause as usize] += 1;
            if from == u32::from(u16::MAX) {
                self.m.add(cpu, Stat::ipis_empty, 1);
            }
            self.push(cpu, run, Why::Interrupt, cause, from);
            self.m.cores[i].in_call_irq = true;
        } else {
            let k = self.actor_due(cpu, due, |kind| matches!(kind, ActorKind::Interrupts { .. }));
            let ActorKind::Interrupts { gap, body_ps, cause } = *self.kind(cpu, k) else {
                unreachable!("just matched")
            };
            self.reschedule(cpu, k, gap);
            self.m.by_cause[i][cause as usize] += 1;
            self.push(cpu, run, Why::Interrupt, cause, u32::from(u16::MAX));
            self.own[i].acts[depth].body_ps = body_ps;
            self.m.cores[i].in_call_irq = false;
        }
        self.own[i].acts[depth].user_left = user_left;
        if idle {
            self.m.view_begins(cpu);
        }
    }

    fn actor_due(&self, cpu: Cpu, due: u64, is: impl Fn(&ActorKind) -> bool) -> usize {
        let actors = &self.own[usize::from(cpu)].actors;
        (0..actors.len())
            .find(|&k| actors[k].next == due && is(self.kind(cpu, k)))
            .expect("`refresh` took the time from one of them")
    }

    fn reschedule(&mut self, cpu: Cpu, k: usize, gap: Gap) {
        let a = &mut self.own[usize::from(cpu)].actors[k];
        a.next = a.next.saturating_add(draw_gap(&mut a.draws, gap));
        self.refresh(cpu);
    }

    // -- skipping ----------------------------------------------------------------------------------------

    /// Jumps over system calls whose course is known, as many as end before `until`. `false`: none.
    fn jump(&mut self, cpu: Cpu, until: u64) -> bool {
        let i = usize::from(cpu);
        let Some(k) = self.own[i].foreground else { return false };
        let ActorKind::Syscalls { gap, .. } = *self.kind(cpu, k) else { return false };
        if self.m.cores[i].owed {
            return false;
        }
        let known = match &self.own[i].memo {
            Some(memo) => {
                let c = &self.m.cores[i];
                memo.cr3 == c.cr3 && memo.cold == c.cold && memo.vars == self.m.vars_of(cpu)
            }
            None => false,
        };
        if !known {
            return self.learn(cpu, until);
        }
        let own = &mut self.own[i];
        let memo = own.memo.as_mut().expect("known");
        let c = &mut self.m.cores[i];
        let (cost, mut start, mut n) = (memo.cost, c.fg_next.max(c.clock), 0u64);
        if start + cost >= until {
            return false;
        }
        if gap.exponential {
            let draws = &mut own.actors[k].draws;
            while start + cost < until {
                n += 1;
                c.clock = start + cost;
                start = c.clock + draw_gap(draws, gap);
            }
        } else {
            let period = cost + gap.mean_ps;
            n = (until - 1 - start - cost) / period + 1;
            c.clock = start + (n - 1) * period + cost;
            start = c.clock + gap.mean_ps;
        }
        c.fg_next = start;
        if let Some(offset) = memo.flush_at {
            c.flushed_at = c.clock - cost + offset;
        }
        self.work += if gap.exponential { n / 8 } else { 0 };
        memo.times += n;
        self.runs += n;
        true
    }

    /// Interprets one system call that nothing interrupts and remembers it if it ends where it began.
    fn learn(&mut self, cpu: Cpu, until: u64) -> bool {
        let i = usize::from(cpu);
        self.settle(cpu);
        let before = self.m.stats[i];
        let (vars, cr3, cold) = {
            let c = &self.m.cores[i];
            (self.m.vars_of(cpu).to_vec(), c.cr3, c.cold)
        };
        let c = &mut self.m.cores[i];
        c.clock = c.clock.max(c.fg_next);
        let began = c.clock;
        self.syscall(cpu);
        while self.m.cores[i].depth > 0 {
            let c = &self.m.cores[i];
            let top = usize::from(c.depth) - 1;
            let pc = self.own[i].acts[top].frame.pc;
            if c.clock >= until {
                return true;
            }
            match self.class[usize::from(pc)] {
                Class::Private | Class::Mask | Class::Scan => self.run_private(cpu, top, until, false),
                Class::Body => {
                    if !self.run_body(cpu, top, NEVER, (until, 0), false) {
                        return true;
                    }
                }
                Class::Cross | Class::Acks => return true,
            }
        }
        let c = &self.m.cores[i];
        if c.clock >= until || vars != self.m.vars_of(cpu) || cr3 != c.cr3 || cold != c.cold || c.owed {
            return true;
        }
        let delta: Vec<(usize, u64)> = (0..STATS)
            .filter(|&s| s != Stat::longest_quiet_ps as usize && s != Stat::wait_max_ps as usize)
            .map(|s| (s, self.m.stats[i][s] - before[s]))
            .filter(|(_, d)| *d > 0)
            .collect();
        let flush_at = (c.flushed_at >= began && c.flushed_at > 0).then(|| c.flushed_at - began);
        let violated = delta.iter().any(|(s, _)| *s == Stat::violations as usize);
        let cost = c.clock - began;
        if !violated {
            self.own[i].memo = Some(Memo { vars, cr3, cold, cost, delta, times: 0, flush_at });
        }
        true
    }

    /// Writes what was jumped over into the statistics.
    fn settle(&mut self, cpu: Cpu) {
        let i = usize::from(cpu);
        let class = usize::from(self.class_of_cpu[i]);
        if let Some(memo) = &mut self.own[i].memo {
            for (s, d) in &memo.delta {
                self.m.stats[i][*s] += d * memo.times;
            }
            if memo.times > 0 {
                let h = &mut self.latencies.syscall[class];
                let value = memo.cost.max(1000).min(h.high());
                h.record_n(value, memo.times).expect("within its bounds");
            }
            memo.times = 0;
        }
    }

    /// Makes statistics final at `end`.
    pub fn finish(&mut self, end: u64) {
        for cpu in 0..self.scenario.cpus {
            self.settle(cpu);
            let i = usize::from(cpu);
            self.m.view_ends(cpu);
            let c = &mut self.m.cores[i];
            let quiet = end.saturating_sub(c.quiet_from);
            let idle_from = self.own[i].acts[0];
            let row = &mut self.m.stats[i];
            let longest = &mut row[Stat::longest_quiet_ps as usize];
            *longest = (*longest).max(quiet);
            if self.m.cores[i].depth > 0 && idle_from.why == Why::Idle {
                row[Stat::idle_ps as usize] += end.saturating_sub(idle_from.began);
            }
            if !self.is_idle_cpu(cpu) {
                let row = &mut self.m.stats[i];
                let out = row[Stat::kernel_ps as usize] + row[Stat::interrupt_ps as usize];
                row[Stat::user_ps as usize] = end.saturating_sub(out);
            }
        }
    }

    // -- initiators --------------------------------------------------------------------------------------

    /// Handles what is due among private kernel events, and says whether a program is to run.
    fn work_due(&mut self, cpu: Cpu) -> bool {
        let i = usize::from(cpu);
        let now = self.m.cores[i].clock;
        if self.m.cores[i].init_next > now {
            return false;
        }
        while self.own[i].rcu_at <= now {
            self.grace_period(cpu);
        }
        for k in 0..self.own[i].actors.len() {
            while self.own[i].actors[k].next <= now {
                let kind = self.kind(cpu, k).clone();
                match kind {
                    ActorKind::Forks { gap, batch, spread } => self.fork(cpu, k, gap, batch, spread),
                    ActorKind::Vfree { gap, pages } => {
                        let at = self.own[i].actors[k].next;
                        let area = self.vmalloc.alloc(pages);
                        self.vfree(cpu, area, at);
                        self.next_gap(cpu, k, gap);
                    }
                    ActorKind::Chain { gap, steps } => {
                        let at = self.own[i].actors[k].next;
                        let actor = usize::from(self.own[i].actors[k].actor);
                        for (j, s) in steps.iter().enumerate() {
                            let draws = &mut self.own[i].actors[k].draws;
                            if s.per_mille < 1000 && draws.below(1000) >= u64::from(s.per_mille) {
                                continue;
                            }
                            let run = Run::Program(
                                self.programs[actor][j].expect("looked up at the start"),
                                s.cause == Cause::Aliases,
                            );
                            let full =
                                s.pages == 0 || u64::from(s.pages) > crate::kernel::vmalloc::FLUSH_CEILING;
                            self.own[i].works.push(Work {
                                ready: at,
                                run,
                                full,
                                pages: s.pages,
                                cause: s.cause,
                            });
                        }
                        self.next_gap(cpu, k, gap);
                    }
                    _ => break,
                }
            }
        }
        if self.vmalloc.in_purge() {
            // The purge mutex: another purge waits for this one.
            for work in self.own[i].works.iter_mut().filter(|w| w.run.purges() && w.ready <= now) {
                work.ready = BLOCKED;
            }
        }
        self.refresh(cpu);
        self.own[i].works.iter().any(|w| w.ready <= now)
    }

    fn next_gap(&mut self, cpu: Cpu, k: usize, gap: Gap) {
        let a = &mut self.own[usize::from(cpu)].actors[k];
        a.next = a.next.saturating_add(draw_gap(&mut a.draws, gap).max(1));
    }

    fn fork(&mut self, cpu: Cpu, k: usize, gap: Gap, batch: u32, spread: bool) {
        let i = usize::from(cpu);
        let at = self.own[i].actors[k].next;
        if self.own[i].actors[k].exiting {
            // One after the other, each on the CPU it ran on.
            while let Some(area) = self.own[i].actors[k].alive.pop() {
                let on = if spread {
                    let n = self.housekeeping.len() as u64;
                    self.housekeeping[self.own[i].actors[k].draws.below(n) as usize]
                } else {
                    cpu
                };
                if !self.vmalloc.cache_stack(on, area) {
                    self.call_rcu(cpu, area, at);
                }
            }
            self.own[i].actors[k].exiting = false;
        }
        let (area, reused) = self.vmalloc.alloc_stack(cpu);
        self.forks += 1;
        self.m.add(cpu, Stat::forks, 1);
        self.m.add(cpu, if reused { Stat::stacks_reused } else { Stat::stacks_allocated }, 1);
        let a = &mut self.own[i].actors[k];
        a.alive.push(area);
        a.exiting = a.alive.len() as u32 >= batch;
        self.next_gap(cpu, k, gap);
    }

    /// Callbacks queued while a grace period runs wait for the one after it.
    fn call_rcu(&mut self, cpu: Cpu, area: Area, at: u64) {
        let o = &mut self.own[usize::from(cpu)];
        if o.rcu_at == NEVER {
            o.rcu_at = at + self.scenario.rcu_ps;
            o.rcu.push(area);
        } else {
            o.rcu_next.push(area);
        }
    }

    fn grace_period(&mut self, cpu: Cpu) {
        let i = usize::from(cpu);
        let o = &mut self.own[i];
        let at = o.rcu_at;
        let mut done = std::mem::take(&mut o.rcu);
        std::mem::swap(&mut o.rcu, &mut o.rcu_next);
        o.rcu_at = if o.rcu.is_empty() { NEVER } else { at + self.scenario.rcu_ps };
        for area in done.drain(..) {
            if !self.vmalloc.cache_stack(cpu, area) {
                self.vfree(cpu, area, at);
            }
        }
        if self.own[i].rcu_next.capacity() == 0 {
            self.own[i].rcu_next = done;
        }
    }

    fn vfree(&mut self, cpu: Cpu, area: Area, at: u64) {
        if self.vmalloc.vfree(area) {
            let ready = at + self.scenario.work_delay_ps;
            let work = Work { ready, run: Run::Drain, full: true, pages: 0, cause: Cause::Purge };
            self.own[usize::from(cpu)].works.push(work);
        }
    }

    /// Starts the oldest work that is due.
    fn start_work(&mut self, cpu: Cpu) {
        let i = usize::from(cpu);
        let now = self.m.cores[i].clock;
        let Some(at) = self.own[i].works.iter().position(|w| w.ready <= now) else { return };
        let mut work = self.own[i].works.remove(at);
        self.refresh(cpu);
        let mut taken = work.run == Run::Drain;
        let run = match work.run {
            Run::Drain => {
                self.vmalloc.drain_starts();
                let Some(purge) = self.vmalloc.purge_starts() else { return };
                (work.full, work.pages) = (purge.is_full(), purge.hull as u32);
                self.tail = now <= self.last_purge_end.saturating_add(self.scenario.work_delay_ps)
                    && self.last_purge_end > 0;
                self.m.add(cpu, Stat::purges, 1);
                self.m.add(cpu, Stat::purges_tail, u64::from(self.tail));
                self.m.add(cpu, Stat::areas_purged, u64::from(purge.areas));
                self.purges.push(PurgeRecord {
                    time_ps: now,
                    areas: purge.areas,
                    hull: purge.hull,
                    forks: self.forks,
                    tail: self.tail,
                });
                self.entries.purge
            }
            Run::Program(run, purges) => {
                if purges && let Some(purge) = self.vmalloc.purge_starts() {
                    work.full |= purge.is_full();
                    taken = true;
                    self.m.add(cpu, Stat::areas_purged, u64::from(purge.areas));
                }
                run
            }
        };
        let c = &mut self.m.cores[i];
        c.request.full = work.full;
        c.request.pages = if work.full { 0 } else { work.pages };
        c.request.cause = work.cause;
        c.promised = false;
        self.push(cpu, run, Why::Work, work.cause, 0);
        self.own[i].acts[usize::from(self.m.cores[i].depth) - 1].from = u32::from(taken);
    }

    fn work_ends(&mut self, cpu: Cpu) {
        let i = usize::from(cpu);
        let depth = usize::from(self.m.cores[i].depth);
        let purged = self.own[i].acts[depth].from == 1;
        if purged {
            if self.m.cores[i].promised {
                self.vmalloc.purge_ends();
            } else {
                self.vmalloc.purge_postponed();
                self.m.add(cpu, Stat::purges_postponed, 1);
                let ready = self.m.cores[i].clock + RETRY_PS;
                let work = Work { ready, run: Run::Drain, full: true, pages: 0, cause: Cause::Purge };
                self.own[i].works.push(work);
            }
            self.last_purge_end = self.m.cores[i].clock;
            // A purge that waited for the mutex may start now.
            let now = self.m.cores[i].clock;
            for who in 0..self.scenario.cpus {
                let own = &mut self.own[usize::from(who)];
                let mut woken = false;
                for work in &mut own.works {
                    if work.ready == BLOCKED {
                        work.ready = now;
                        woken = true;
                    }
                }
                if woken && who != cpu {
                    self.refresh(who);
                    let demand = self.m.demand(who);
                    self.m.queue.set(who, demand);
                }
            }
            self.refresh(cpu);
        }
    }
}

fn c_irq(m: &Timed, cpu: Cpu) -> u64 {
    let c = &m.cores[usize::from(cpu)];
    if c.if_on { c.irq_at } else { NEVER }
}

fn draw_gap(draws: &mut Draws, gap: Gap) -> u64 {
    if gap.exponential { draws.exponential(gap.mean_ps) } else { gap.mean_ps }
}
