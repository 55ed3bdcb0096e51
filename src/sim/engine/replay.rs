//! Replay: of a system call whose course is known, what differs from call to call is done and nothing else. Its ops are
//! those that [`is_known`] lets through: they read and change nothing but the state a [`Course`] is known by, and the TLB; of
//! what is shared they read only what stays as it is until somebody brings this CPU to his time (`class::reads_freely`).
//! So from that state a call always takes the same ops, and where no interrupt comes before its end nobody can tell it from
//! an interpreted one. `handlers` does the same for interrupts, NMIs and exceptions.
//!
//! While pages are looked up a call seldom leaves the TLB as it found it, so it cannot be skipped; but what it does there,
//! in which order and how long everything between takes, follows from the state it begins in. Only the time that misses
//! take differs from one call to the next, and it shifts what comes after it. In summary, where misses are a sum that
//! [`Core::cold`] decides, not even that differs, and calls are replayed where they are not skipped.
//!
//! Invariant: results are those of the interpreted call (`ways.rs`, `replaying_changes_nothing`).
//!
//! [`Core::cold`]: super::super::machine::Core::cold

use super::super::machine::{Core, CpuTlb, Debt, Recorded, Step};
use super::super::scenario::Kind as ActorKind;
use super::super::stats::{FlushKind, Row, STATS, Stat};
use super::skip::Patience;
use super::{Engine, draw_gap};
use crate::kernel::program::{At, Code, Cond, Invpcid, Op, ProgId, Rcu, Set};
use crate::kernel::step::Cpu;

/// Courses kept for a CPU: variables, who flushed last and which user half owes a flush make up few. Where a generation is among
/// the variables there is no end of them: then the oldest go.
const KEPT: usize = 16;

/// What goes and was run less often was not worth finding out.
const SELDOM: u64 = 8;

/// What a program does from a state.
#[derive(Clone, Debug)]
pub(super) struct Course {
    vars: Vec<u16>,
    /// Shared variables that may be read late.
    shared: Vec<u16>,
    cr3: u64,
    /// GSBASE is the kernel's.
    gs_kernel: bool,
    /// Kernel translations are loaded and kernel code runs, before and after: out of idle.
    view: (bool, bool),
    /// What flushed last, before and after.
    flushed_by: (FlushKind, FlushKind),
    /// In summary: pages must be walked again, before and after.
    cold: (bool, bool),
    /// User halves that owe a flush, before and after.
    owe_user: (u8, u8),
    steps: Vec<Step>,
    /// Time without misses, and with as many misses as there are pages.
    fixed: u64,
    longest: u64,
    /// Interrupts are open for a part of it.
    pub(super) opens: bool,
    /// Flushes it counts on its TLB.
    flushes: u64,
    delta: Vec<(usize, u64)>,
    times: u64,
    /// How often it was run since it is known.
    used: u64,
}

/// What is counted of each anew: time, which misses change, and what [`Engine::ended`] counts.
const COUNTED: [Stat; 8] = [
    Stat::kernel_ps,
    Stat::interrupt_ps,
    Stat::interference,
    Stat::interference_ps,
    Stat::faults,
    Stat::syscalls,
    Stat::longest_quiet_ps,
    Stat::wait_max_ps,
];

impl Course {
    /// Does a CPU stand where it begins?
    #[inline(always)]
    #[allow(clippy::inline_always)]
    pub(super) fn is_from(&self, c: &Core, vars: &[u16], shared: impl Iterator<Item = u16>) -> bool {
        // The variables are few: a loop over them is faster than the call that `==` makes of slices.
        self.cr3 == c.cr3
            && self.gs_kernel == c.gs_kernel
            && self.view.0 == c.view
            && self.flushed_by.0 == c.flushed_by
            && self.cold.0 == c.cold
            && self.owe_user.0 == c.owe_user
            && self.vars.iter().eq(vars)
            && self.shared.iter().copied().eq(shared)
    }

    /// Is it sure to be over before `until`, if it begins at `start`?
    #[inline]
    pub(super) fn is_over(&self, start: u64, until: u64) -> bool {
        start + self.longest < until
    }

    /// What it does but for time and what is counted: (time, time from its beginning to that of its body).
    #[inline(always)]
    #[allow(clippy::inline_always)]
    pub(super) fn run(
        &self,
        start: u64,
        tlb: Option<&mut CpuTlb>,
        row: &mut Row,
        c: &mut Core,
        debt: &mut Debt,
    ) -> (u64, u64) {
        let (late, entered) = match tlb {
            Some(tlb) => looked_up(&self.steps, start, tlb, row, c, debt),
            None => summed_up(&self.steps, start, c, debt),
        };
        (self.fixed + late, entered)
    }

    /// It was run so often, one after the other.
    #[inline]
    pub(super) fn ends(&mut self, times: u64, tlb: Option<&mut CpuTlb>, c: &mut Core) {
        if let Some(tlb) = tlb {
            tlb.flushes += self.flushes * times;
        }
        (c.view, c.flushed_by, c.cold, c.owe_user) =
            (self.view.1, self.flushed_by.1, self.cold.1, self.owe_user.1);
        c.resume = 0;
        self.times += times;
        self.used += times;
    }

    /// Writes what was replayed into the statistics.
    pub(super) fn settle(&mut self, row: &mut [u64; STATS]) {
        let times = std::mem::take(&mut self.times);
        for (stat, by) in &self.delta {
            row[*stat] += by * times;
        }
    }

    /// It ends in the state it begins in, as far as that decides the next one.
    fn repeats(&self) -> bool {
        self.view.0 == self.view.1
            && self.flushed_by.0 == self.flushed_by.1
            && self.cold.0 == self.cold.1
            && self.owe_user.0 == self.owe_user.1
    }
}

/// Makes room for a course among `kept`. Where those that go were hardly run, nothing repeats, and it is tried ever more seldom.
pub(super) fn make_room<T>(
    known: &mut Vec<T>,
    kept: usize,
    row: &mut [u64; STATS],
    course: impl Fn(&mut T) -> &mut Course,
) -> Patience {
    let mut patience = Patience::default();
    if known.len() == kept {
        let mut oldest = known.remove(0);
        let oldest = course(&mut oldest);
        oldest.settle(row);
        if oldest.used < SELDOM {
            patience.failed();
        }
    }
    patience
}

/// The courses a CPU knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Courses {
    known: Vec<Course>,
    /// The one taken last.
    last: usize,
    patience: Patience,
}

impl Courses {
    /// Writes what was replayed into the statistics.
    pub(super) fn settle(&mut self, row: &mut [u64; STATS]) {
        self.known.iter_mut().for_each(|course| course.settle(row));
    }
}

/// Does an op depend on, and change, nothing but what a [`Course`] is known by? What it reads freely is.
fn is_known(op: Op) -> bool {
    let mine = |at| matches!(at, At::Me);
    match op {
        Op::Load { from: p, .. } | Op::Store { to: p, .. } => mine(p.at),
        Op::Rmw { at: p, .. } | Op::Cas { at: p, .. } => mine(p.at),
        Op::Unless { c, .. } => {
            let fixed = |set| !matches!(set, Set::Targets | Set::MmCpumask);
            match c {
                Cond::Cmp(..) | Cond::Cr3User | Cond::RegUser(_) | Cond::Either => true,
                Cond::MeIn(set) => fixed(set),
                Cond::CurIn(_) | Cond::CurIsMe | Cond::Empty(_) | Cond::RangeFull | Cond::Text(_) => false,
            }
        }
        Op::Move { .. } | Op::MoveWide { .. } | Op::Alu { .. } | Op::Jump(_) => true,
        Op::Fence(_) | Op::Irq(_) => true,
        Op::SwapGs | Op::ReadGs(_) | Op::SetGs(_) | Op::ReadCr3(_) | Op::MovCr3 { .. } => true,
        Op::MovCr4Pge(_) | Op::Touch(_) | Op::Body(_) | Op::OweUser | Op::Return => true,
        Op::Invpcid { kind, .. } => kind != Invpcid::Address,
        // Whether a section is open is told by the program that runs.
        Op::Rcu(what) => what != Rcu::Wait,
        // Only the interrupt of remote calls takes any, and that is not replayed.
        Op::HandleCalls => true,
        _ => false,
    }
}

/// Can this program be replayed? With the ops that read freely.
pub(super) fn is_replayable(code: &Code, free: &[bool], program: ProgId) -> bool {
    let program = &code.programs[usize::from(program.0)];
    (usize::from(program.start)..usize::from(program.end)).all(|pc| free[pc] || is_known(code.ops[pc]))
}

/// Does a course that begins at `start` on a TLB. (time of misses, time from SYSCALL to the body)
#[inline(always)]
#[allow(clippy::inline_always)]
fn looked_up(
    steps: &[Step],
    start: u64,
    tlb: &mut CpuTlb,
    row: &mut Row,
    c: &mut Core,
    debt: &mut Debt,
) -> (u64, u64) {
    let (mut late, mut entered) = (0, 0);
    for step in steps {
        match *step {
            Step::Touch { by, .. } | Step::Pages { by, .. } => {
                let (time, walks) = tlb.take(step);
                if time > 0 || walks > 0 {
                    late += time;
                    row[Stat::refill_misses as usize] += walks;
                    row[by.misses() as usize] += walks;
                    row[Stat::refill_ps as usize] += time;
                }
            }
            Step::Switch { .. } | Step::Pge(_) | Step::Apply(_) => {
                tlb.take(step);
            }
            Step::Flushed(at) => debt.flushed_at = start + at + late,
            Step::Serialised(at) => c.serialised_at = start + at + late,
            Step::Entered(at) => entered = at + late,
        }
    }
    (late, entered)
}

/// The same where no page is looked up: the misses stand in the course's time.
#[inline]
fn summed_up(steps: &[Step], start: u64, c: &mut Core, debt: &mut Debt) -> (u64, u64) {
    let mut entered = 0;
    for step in steps {
        match *step {
            Step::Flushed(at) => debt.flushed_at = start + at,
            Step::Serialised(at) => c.serialised_at = start + at,
            Step::Entered(at) => entered = at,
            Step::Touch { .. } | Step::Pages { .. } | Step::Switch { .. } | Step::Pge(_) | Step::Apply(_) => {
            }
        }
    }
    (0, entered)
}

impl Engine {
    /// Replays the next system calls, as many as are sure to be over before `until`, or runs one and remembers its course.
    /// `false`: neither.
    pub(super) fn replay_calls(&mut self, cpu: Cpu, until: u64) -> bool {
        let i = usize::from(cpu);
        let Some(k) = self.own[i].foreground else { return false };
        let ActorKind::Syscalls { gap, .. } = *self.kind(cpu, k) else { return false };
        let Engine { own, m, latencies, .. } = self;
        let own = &mut own[i];
        let mut tlb = m.tlbs.as_mut().map(|tlbs| &mut tlbs[i]);
        let (c, debt) = (&mut m.cores[i], &mut m.debts[i]);
        if !own.replayable || own.stream.is_some() || debt.owed || c.sync_owed {
            return false;
        }
        let vars = &m.values[i * m.vars..][..m.vars];
        let shared = || m.free.iter().map(|at| m.shared[*at]);
        let Courses { known, last, patience } = &mut own.courses;
        if !known.get(*last).is_some_and(|course| course.is_from(c, vars, shared())) {
            match known.iter().rposition(|course| course.is_from(c, vars, shared())) {
                Some(at) => *last = at,
                None if patience.waits() => return false,
                None => return self.find_out(cpu, until),
            }
        }
        let course = &mut known[*last];
        let row = &mut m.stats[i];
        let draws = &mut own.actors[k].draws;
        let class = usize::from(self.class_of_cpu[i]);
        let mut times = 0;
        loop {
            let start = c.fg_next.max(c.clock);
            if !course.is_over(start, until) {
                break;
            }
            let (took, entered) = course.run(start, tlb.as_deref_mut(), row, c, debt);
            c.clock = start + took;
            c.fg_next = c.clock + draw_gap(draws, gap);
            row[Stat::kernel_ps as usize] += took;
            latencies.entered(class, entered);
            latencies.returned(class, took);
            times += 1;
            // Where calls may be skipped as well, that comes first.
            if !course.repeats() || self.skip {
                break;
            }
        }
        if times == 0 {
            return false;
        }
        row[Stat::syscalls as usize] += times;
        course.ends(times, tlb, c);
        self.runs += times;
        self.replayed += times;
        self.work += times;
        true
    }

    /// Runs a system call and remembers its course, if nothing comes between.
    fn find_out(&mut self, cpu: Cpu, until: u64) -> bool {
        let i = usize::from(cpu);
        let c = &self.m.cores[i];
        let began = c.clock.max(c.fg_next);
        let course = self.course_of(cpu, began, |engine| engine.call_alone(cpu, until));
        let Courses { known, last, patience } = &mut self.own[i].courses;
        match course {
            Some(course) => {
                *patience = make_room(known, KEPT, &mut self.m.stats[i], |course| course);
                *last = known.len();
                known.push(course);
            }
            None => patience.failed(),
        }
        true
    }

    /// The course of what `run` runs, if it says that it is over, and nothing but what a course knows has changed.
    pub(super) fn course_of(
        &mut self,
        cpu: Cpu,
        began: u64,
        run: impl FnOnce(&mut Engine) -> bool,
    ) -> Option<Course> {
        let i = usize::from(cpu);
        let (before, vars) = (self.m.stats[i], self.m.vars_of(cpu).to_vec());
        let shared = self.m.read_late().collect();
        let flushes = self.m.tlb_flushes(cpu);
        let Core { cr3, gs_kernel, view, flushed_by, cold, owe_user, .. } = self.m.cores[i];
        self.m.record(began);
        let over = run(self);
        let Recorded { steps, late, pages, opens } = self.m.recorded();
        let after = &self.m.cores[i];
        if !over || vars != self.m.vars_of(cpu) || (cr3, gs_kernel) != (after.cr3, after.gs_kernel) {
            return None;
        }
        // Where pages are looked up, what misses change is counted anew, too; the longest of something is no sum.
        let looks_up = self.m.tlbs.is_some();
        let varies = |s: usize| {
            let of_misses = [FlushKind::Other, FlushKind::Entry, FlushKind::Remote, FlushKind::Local];
            let missed =
                [Stat::refill_misses, Stat::refill_ps].into_iter().chain(of_misses.map(FlushKind::misses));
            COUNTED.iter().any(|n| *n as usize == s)
                || looks_up && missed.into_iter().any(|n| n as usize == s)
        };
        let delta: Vec<(usize, u64)> = (0..STATS)
            .filter(|&s| !varies(s))
            .map(|s| (s, self.m.stats[i][s] - before[s]))
            .filter(|(_, by)| *by > 0)
            .collect();
        if delta.iter().any(|(s, _)| *s == Stat::violations as usize) {
            return None;
        }
        let fixed = after.clock - began - late;
        Some(Course {
            vars,
            shared,
            cr3,
            gs_kernel,
            view: (view, after.view),
            flushed_by: (flushed_by, after.flushed_by),
            cold: (cold, after.cold),
            owe_user: (owe_user, after.owe_user),
            steps,
            fixed,
            longest: fixed + self.m.longest_misses(cpu, pages),
            opens,
            flushes: self.m.tlb_flushes(cpu) - flushes,
            delta,
            times: 0,
            used: 0,
        })
    }
}
