//! The run: visits of requests and steps of CPUs in the order of their times.

mod calls;
mod own;
mod senders;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use super::timeline::{Served, Step, Timeline};
use super::{Ask, Call, NEVER, Request, Variant, Workload};
use crate::kernel::program::{Code, Features, Op, Pc, ProgId};
use crate::kernel::step::{Cpu, Frame, NO_PC, Outcome, step};
use crate::sim::cost::Times;
use crate::sim::machine::{Layout, Timed};
use crate::sim::stats::Stat;
use own::Own;
use senders::Work;

/// Clocks number the steps of a run this far apart, so that what ops take stays between two of them.
const STRIDE: u64 = 1 << 30;

/// Looks at variables in a run; a sender that nobody answers is then left alone.
const MOST_SPINS: u64 = 1_000_000;

/// Stay of a CPU that must be in the kernel although no entry was seen.
pub(super) const FORCED: u32 = u32::MAX;

/// What came of one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuPlayed {
    /// Counted interrupts that ran calls, none of which was sent.
    pub gone_interrupts: u64,
    /// Counted entries into the kernel that nothing gave a reason for.
    pub gone_entries: u64,
    /// Interrupts that the recording has not got.
    pub more_interrupts: u64,
    /// Entries by these.
    pub more_entries: u64,
    /// Flushes in entry and exit code.
    pub entry_flushes: u64,
    /// Time with something pending.
    pub pending_ns: u64,
    /// The longest stretch of it.
    pub pending_longest_ns: u64,
    /// What entry and exit code took, picoseconds.
    pub entry_ps: u64,
    /// Entries whose code ran: by system call or fault, by interrupt.
    pub entered: [u64; 2],
    /// Recorded time in call interrupts that still happen.
    pub calls_ns: u64,
}

impl CpuPlayed {
    /// Something was pending from one time to another, of which counts what is after `begin`.
    fn pending(&mut self, from: u64, to: u64, begin: u64) {
        let stretch = to.saturating_sub(from.max(begin));
        self.pending_ns += stretch;
        self.pending_longest_ns = self.pending_longest_ns.max(stretch);
    }
}

/// By target: how many requests wait there to be made up for, from when on.
pub type Levels = Vec<Vec<(u64, u32)>>;

/// What came of the whole.
#[derive(Clone, Debug, Default)]
pub struct Played {
    /// By call: it was not sent.
    pub spared: Vec<bool>,
    /// By target.
    pub cpus: Vec<CpuPlayed>,
    /// Empty unless asked for.
    pub levels: Levels,
    /// Lines of requests that called a CPU for which the recording has no call; the first hundred.
    pub more_lines: Vec<u64>,
    /// How many such calls.
    pub more_calls: u64,
    /// Requests that ended without the promise their caller wanted.
    pub postponed: u64,
    /// Requests whose sender did not get to its end.
    pub unfinished: u64,
    /// Steps that broke a rule of the machine, or waited where nothing waits.
    pub broken: u64,
    /// Entry code did not come to an end; the rest says nothing.
    pub endless: bool,
    /// How often each op of entry and exit code ran in what is counted, those that did.
    pub counted_ops: Vec<(Pc, u32)>,
    /// Time that senders waited for isolated CPUs, and what their programs took: picoseconds.
    pub wait_ps: u64,
}

/// What a run needs beside the workload.
#[derive(Clone, Debug)]
pub struct Costs {
    /// Of each op.
    pub times: Times,
    /// What the code was assembled for.
    pub features: Features,
}

/// Why a program stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// At its body.
    Body,
    /// At the call queue.
    Calls,
    /// It is over.
    Done,
    /// It waits.
    Wait,
    /// A loop is at this CPU, whose time has not come.
    Visit,
    /// It has run for very long.
    Long,
}

/// Where a program stops.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stops {
    pub(super) calls: bool,
    /// Its ops are counted.
    pub(super) counts: bool,
    /// The request that it serves.
    pub(super) request: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Programs {
    pub(super) boot: ProgId,
    pub(super) syscall: ProgId,
    pub(super) interrupt: ProgId,
    pub(super) interrupt_kernel: ProgId,
    pub(super) interrupt_idle: ProgId,
    pub(super) idle: ProgId,
}

/// An interrupt that the recording has not got, or the return from it.
pub(super) type More = Reverse<(u64, u64, u32, bool)>;

/// See the module.
pub struct Player<'a> {
    pub(super) w: &'a Workload,
    pub(super) code: &'a Code,
    pub(super) variant: Variant,
    pub(super) m: Timed,
    pub(super) programs: Programs,
    /// By CPU: its place among the targets.
    pub(super) place: Vec<Option<u32>>,
    pub(super) own: Vec<Own>,
    pub(super) works: Vec<Option<Work>>,
    pub(super) queued: Vec<std::collections::VecDeque<u32>>,
    pub(super) sent: Vec<bool>,
    pub(super) more: BinaryHeap<More>,
    pub(super) out: Played,
    pub(super) now: u64,
    /// By request: it has begun.
    pub(super) begun: Vec<bool>,
    /// Senders that look at a variable again and again.
    pub(super) spinning: Vec<Cpu>,
    spins: u64,
    /// By op.
    ran: Vec<u32>,
    /// Somebody who is not recorded.
    pub(super) nobody: Cpu,
    /// Senders that do not wait any more.
    pub(super) gone: Cpu,
    /// The one address space of user flushes.
    pub(super) mm: Option<u16>,
    pub(super) in_mask: Vec<Cpu>,
    /// From queueing to taking, and how long an interrupt lasts, where nothing was recorded.
    pub(super) typical: (u64, u64),
    number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A call of a request is due to be queued.
    Visit(u32, u32),
    /// By target and place among its steps.
    Step(u32, u32),
}

/// Runs a policy over a workload.
pub fn play(w: &Workload, code: &Code, costs: Costs, variant: Variant) -> Played {
    let mut served: FxHashMap<(Cpu, u32), Served> = FxHashMap::default();
    for call in w.calls.iter().filter(|c| c.irq != 0) {
        let s = served.entry((call.cpu, call.irq)).or_insert(Served { queued: (NEVER, 0) });
        if !call.guessed {
            s.queued = (s.queued.0.min(call.queued_ns), s.queued.1.max(call.queued_ns));
        }
    }
    let of = |target| Timeline::of(target, w, variant.favour, &served);
    let steps: Vec<_> = w.targets.iter().map(of).collect();
    let mut events: Vec<(u64, Event)> =
        Vec::with_capacity(w.calls.len() + steps.iter().map(Vec::len).sum::<usize>());
    for (r, request) in (0_u32..).zip(&w.requests) {
        let visit = |c: usize| (w.calls[c].queued_ns, Event::Visit(r, c as u32));
        events.extend(request.calls.clone().map(visit));
    }
    for (t, steps) in (0_u32..).zip(&steps) {
        events.extend((0_u32..).zip(steps).map(|(i, (time, _))| (*time, Event::Step(t, i))));
    }
    events.sort_unstable();
    let mut player = Player::new(w, code, costs, variant);
    if variant.favour {
        // Before all that is recorded: a call at time 0 finds user mode, too.
        (0..w.targets.len()).for_each(|t| player.boots(t));
    }
    for (time, event) in events {
        player.until(time);
        player.now = time;
        match event {
            Event::Visit(request, call) => player.visit(request, call),
            Event::Step(target, i) => player.step(target as usize, steps[target as usize][i as usize].1),
        }
        player.poll();
        if player.out.endless {
            break;
        }
    }
    player.until(w.end_ns);
    player.finish()
}

/// The median of what is known, or a value of our own [OWN].
fn median(mut all: Vec<u64>, otherwise: u64) -> u64 {
    let middle = all.len() / 2;
    if all.is_empty() { otherwise } else { *all.select_nth_unstable(middle).1 }
}

impl<'a> Player<'a> {
    fn new(w: &'a Workload, code: &'a Code, costs: Costs, variant: Variant) -> Self {
        let isolated: Vec<Cpu> = w.targets.iter().map(|t| t.cpu).collect();
        let cpus = w.cpus + 2;
        let full: Vec<Cpu> = w.targets.iter().filter(|t| !t.housekeeping).map(|t| t.cpu).collect();
        let layout = Layout { cpus, isolated: &full, flush_mask: &full, sockets: 1, keep: 0 };
        let mut m = Timed::new(code, costs.features, costs.times, &layout);
        for core in &mut m.cores {
            core.in_call_irq = true; // a call is queued in the machine when its interrupt takes it
        }
        let find = |name: &str| code.program(name).expect("every policy has the kernel's entries");
        let mut place = vec![None; usize::from(cpus)];
        for (i, cpu) in (0..).zip(&isolated) {
            place[usize::from(*cpu)] = Some(i);
        }
        let mm = code.program("flush_mm").and_then(|_| m.contexts.create());
        let mut in_mask = Vec::new();
        if let Some(mm) = mm {
            for cpu in 0..cpus {
                m.load_at_start(code, cpu, mm);
                in_mask.push(cpu);
            }
        }
        Player {
            w,
            code,
            variant,
            m,
            programs: Programs {
                boot: find("enter_user"),
                syscall: find("syscall"),
                interrupt: find("interrupt"),
                interrupt_kernel: find("interrupt_kernel"),
                interrupt_idle: find("interrupt_idle"),
                idle: find("idle"),
            },
            place,
            own: isolated.iter().map(|cpu| Own::new(*cpu)).collect(),
            works: (0..cpus).map(|_| None).collect(),
            queued: vec![std::collections::VecDeque::new(); usize::from(cpus)],
            sent: vec![false; w.calls.len()],
            more: BinaryHeap::new(),
            out: Played::default(),
            now: 0,
            begun: vec![false; w.requests.len()],
            spinning: Vec::new(),
            spins: 0,
            ran: vec![0; code.ops.len()],
            nobody: w.cpus,
            gone: w.cpus + 1,
            mm,
            in_mask,
            typical: typical(w),
            number: 0,
        }
    }

    /// The next number, as a CPU's clock.
    pub(super) fn tick(&mut self, cpu: Cpu) -> u64 {
        self.number += 1;
        let clock = self.number * STRIDE;
        self.m.cores[usize::from(cpu)].clock = clock;
        clock
    }

    /// Interrupts that the recording has not got, up to a time.
    fn until(&mut self, time: u64) {
        while let Some(Reverse((at, _, target, leaves))) = self.more.peek().copied().filter(|m| m.0.0 < time)
        {
            self.more.pop();
            self.now = at;
            if leaves { self.more_leaves(target as usize) } else { self.more_arrives(target as usize) }
        }
    }

    pub(super) fn request(&self, at: u32) -> &'a Request {
        &self.w.requests[at as usize]
    }

    pub(super) fn call(&self, at: u32) -> &'a Call {
        &self.w.calls[at as usize]
    }

    /// What a request asks for in this run.
    pub(super) fn ask_of(&self, at: u32) -> Ask {
        let request = self.request(at);
        let guessed = || request.calls.clone().any(|c| self.w.calls[c].guessed);
        match (request.ask, self.variant.favour) {
            (Ask::Unknown, true) => self.variant.unknown,
            (Ask::Kernel, true) => Ask::Purge,
            (Ask::Kernel, false) => Ask::Rights,
            (Ask::Sync | Ask::Unknown, false) => Ask::Other,
            (_, false) if guessed() => Ask::Other,
            (ask, _) => ask,
        }
    }

    /// Return to user mode before the beginning, from a boot that was not recorded.
    fn boots(&mut self, t: usize) {
        let mut frame = Frame::new(self.code.start(self.programs.boot));
        self.entry_code(t, &mut frame, false);
        self.own[t].base = None;
    }

    fn step(&mut self, t: usize, what: Step) {
        match what {
            Step::Enter { stay, irq, counted } => self.enter(t, stay, irq, counted),
            Step::Arm { stay, irq, counted } => {
                if self.waits(t, irq) {
                    self.enter(t, stay, true, counted);
                } else {
                    self.own[t].armed = Some((stay, irq, counted));
                }
            }
            Step::Take { irq, stay, counted, length_ns } => self.take(t, irq, stay, counted, length_ns),
            Step::Idle(true) => {
                if self.own[t].base.is_some() && self.own[t].idle.is_none() {
                    let mut frame = Frame::new(self.code.start(self.programs.idle));
                    self.entry_code(t, &mut frame, false);
                    self.own[t].idle = Some(frame);
                }
            }
            Step::Idle(false) => self.wakes(t),
            Step::IdleIrq(true) => {
                if self.own[t].idle.is_some() && self.own[t].idle_irq.is_none() {
                    let mut frame = Frame::new(self.code.start(self.programs.interrupt_idle));
                    self.entry_code(t, &mut frame, false);
                    self.own[t].idle_irq = Some(frame);
                }
            }
            Step::IdleIrq(false) => self.idle_irq_ends(t),
            Step::Leave { stay, counted } => {
                let o = &mut self.own[t];
                o.armed = None;
                if o.happened != stay && !(o.base.is_some() && o.stay == FORCED) {
                    o.out.gone_entries += u64::from(counted);
                }
                if o.base.is_some() && (o.stay == stay || o.stay == FORCED) {
                    self.leave(t);
                }
            }
        }
    }

    pub(super) fn idle_irq_ends(&mut self, t: usize) {
        if let Some(mut frame) = self.own[t].idle_irq.take() {
            frame.pc += 1;
            self.entry_code(t, &mut frame, false);
        }
    }

    fn wakes(&mut self, t: usize) {
        self.idle_irq_ends(t);
        if let Some(mut frame) = self.own[t].idle.take() {
            frame.pc += 1;
            self.entry_code(t, &mut frame, false);
        }
    }

    /// Into the kernel from user mode; nothing if it is there already.
    pub(super) fn enter(&mut self, t: usize, stay: u32, irq: bool, counted: bool) {
        let o = &mut self.own[t];
        o.armed = None;
        o.happened = stay;
        o.stay = stay;
        o.counted = counted;
        if o.base.is_some() {
            return;
        }
        o.out.entered[usize::from(irq)] += u64::from(counted);
        let run = if irq { self.programs.interrupt } else { self.programs.syscall };
        let mut frame = Frame::new(self.code.start(run));
        self.entry_code(t, &mut frame, irq);
        self.own[t].base = Some(frame);
    }

    /// Back to user mode.
    pub(super) fn leave(&mut self, t: usize) {
        self.wakes(t);
        let cpu = self.own[t].cpu;
        self.give_up(cpu); // nobody returns to user mode in the middle of a request
        let Some(mut frame) = self.own[t].base.take() else { return };
        // At the start, and where nothing says by what it came in, the way out is that of a first return.
        let pc = usize::from(frame.pc);
        match self.code.ops[pc] {
            Op::Body(_) => frame.pc += 1,
            Op::HandleCalls => {
                if self.advance(cpu, &mut frame, Stops { calls: false, counts: false, request: None })
                    == Pause::Body
                {
                    frame.pc += 1;
                }
            }
            _ => frame = Frame::new(self.code.start(self.programs.boot)),
        }
        self.entry_code(t, &mut frame, false);
        self.own[t].counted = false;
    }

    /// Entry or exit code of a CPU; its flushes and its time are counted.
    pub(super) fn entry_code(&mut self, t: usize, frame: &mut Frame, stop_at_calls: bool) -> Pause {
        let cpu = self.own[t].cpu;
        let i = usize::from(cpu);
        let before = self.tick(cpu);
        let flushes = |m: &Timed| {
            let stats = &m.stats[i];
            stats[Stat::entry_flushes_needed as usize] + stats[Stat::entry_flushes_unneeded as usize]
        };
        let flushed = flushes(&self.m);
        self.m.cores[i].entry_code = true;
        let stops = Stops { calls: stop_at_calls, counts: self.own[t].counted, request: None };
        let mut pause = self.advance(cpu, frame, stops);
        while pause == Pause::Wait {
            // Entry code that waits for others is outside of what a recording can tell.
            self.out.broken += 1;
            frame.pc += 1;
            pause = self.advance(cpu, frame, stops);
        }
        self.out.endless |= pause == Pause::Long;
        self.m.cores[i].entry_code = false;
        let took = self.m.cores[i].clock - before;
        let flushed = flushes(&self.m) - flushed;
        if self.own[t].counted {
            let out = &mut self.own[t].out;
            out.entry_flushes += flushed;
            out.entry_ps += took;
        }
        self.settle(t);
        pause
    }

    /// Is something pending on a CPU, and since when?
    pub(super) fn settle(&mut self, t: usize) {
        let o = &mut self.own[t];
        let i = usize::from(o.cpu);
        let owes = self.m.debts[i].owed || self.m.cores[i].sync_owed;
        if !owes && o.owes_since != NEVER {
            let from = std::mem::replace(&mut o.owes_since, NEVER);
            o.out.pending(from, self.now.min(self.w.end_ns), self.w.begin_ns);
            if self.variant.levels {
                o.level(self.now.min(self.w.end_ns), 0);
            }
        }
    }

    /// The run is in what is counted.
    pub(super) fn is_counted(&self) -> bool {
        (self.w.begin_ns..=self.w.end_ns).contains(&self.now)
    }

    /// Carries a program forward.
    pub(super) fn advance(&mut self, cpu: Cpu, frame: &mut Frame, stops: Stops) -> Pause {
        let mut left = 10_000 + 1000 * u32::from(self.w.cpus);
        loop {
            let pc: Pc = frame.pc;
            let op = self.code.ops[usize::from(pc)];
            if stops.counts {
                self.ran[usize::from(pc)] += 1;
            }
            match op {
                Op::Body(_) if stops.request.is_none() => return Pause::Body,
                Op::HandleCalls if stops.calls && frame.ret == NO_PC => return Pause::Calls,
                Op::Ipi { to, .. } => self.ipi(cpu, frame, to, stops.request),
                // Whose translations of a process are stale depends on which address spaces were loaded, which is
                // not recorded: nobody judges it here.
                Op::Promise(_) if self.m.cores[usize::from(cpu)].request.user => {
                    self.m.cores[usize::from(cpu)].promised = true;
                    frame.pc = pc + 1;
                }
                _ => match step(self.code, frame, &mut self.m, cpu) {
                    // Nobody records an INT3: what its handler does is left out.
                    Outcome::Next | Outcome::Breakpoint => {}
                    Outcome::Done => return Pause::Done,
                    Outcome::Wait => return Pause::Wait,
                    // Which rule is broken where is what the checker says; a replay goes on.
                    Outcome::Violated(_) => {
                        self.out.broken += 1;
                        frame.pc = pc + 1;
                    }
                },
            }
            if let (Op::Each { .. }, Some(request)) = (op, stops.request)
                && self.comes_later(request, frame.cur)
            {
                return Pause::Visit;
            }
            left -= 1;
            if left == 0 {
                return Pause::Long;
            }
        }
    }

    /// Senders that wait for a variable look at it.
    fn poll(&mut self) {
        if self.spinning.is_empty() || self.spins > MOST_SPINS {
            return;
        }
        for sender in std::mem::take(&mut self.spinning) {
            self.spins += 1;
            self.resume(sender);
        }
    }

    fn finish(mut self) -> Played {
        self.now = self.w.end_ns;
        for t in 0..self.own.len() {
            let o = &mut self.own[t];
            if o.owes_since != NEVER {
                o.out.pending(o.owes_since, self.w.end_ns, self.w.begin_ns);
                if let Some((_, value)) = o.levels.last().copied() {
                    o.level(self.w.end_ns, value); // it waits to the end
                }
            }
        }
        // The recording ends before the acknowledgements of some come.
        let waits = |w: &&Work| !matches!(self.code.ops[usize::from(w.frame.pc)], Op::AwaitAcks);
        self.out.unfinished += self.works.iter().flatten().filter(waits).count() as u64;
        self.out.spared = self.sent.iter().map(|sent| !sent).collect();
        let ran = (0..).zip(&self.ran).filter(|(_, times)| **times > 0);
        self.out.counted_ops = ran.map(|(pc, times)| (pc, *times)).collect();
        self.out.cpus = self.own.iter().map(|o| o.out).collect();
        self.out.levels = self.own.into_iter().map(|o| o.levels).collect();
        self.out
    }
}

fn typical(w: &Workload) -> (u64, u64) {
    let mut begins: FxHashMap<(Cpu, u32), u64> = FxHashMap::default();
    let mut lengths = Vec::new();
    for target in &w.targets {
        for m in &target.marks {
            if let super::Mark::Calls { irq, end_ns } = m.mark {
                begins.insert((target.cpu, irq), m.at_ns);
                lengths.push(end_ns.saturating_sub(m.at_ns));
            }
        }
    }
    let taken = |c: &Call| Some(begins.get(&(c.cpu, c.irq))?.saturating_sub(c.queued_ns));
    let delays = w.calls.iter().filter(|c| !c.guessed).filter_map(taken).collect();
    (median(delays, 2_000), median(lengths, 3_000))
}
