//! A run in a given order: a schedule of the checker (`1.step*3 1.fill:va 0.drain`) through the timed machine.
//!
//! The programs, the interpreter, the costs and the TLB are those of every simulation; the store queue is on, and who
//! goes on is the schedule's decision: a CPU whose turn comes late stood still until then. So each move has a time.
//! What the timed machine does not have (walks through freed tables, patched text, user memory, data words, questions
//! about final states) is said by [`Setup`]'s maker, before anything runs.

use super::cost::{Bound, Times};
use super::machine::scripted::{Rules, Scripted, Tracked};
use super::machine::{Layout, Timed};
use crate::hw::{Mmu, Preset};
use crate::kernel::program::{Code, Cond, Features, Op, Pc, ProgId, Slot, Zone};
use crate::kernel::step::{Cpu, Frame, NO_PC, Outcome, Violation, step};

/// A path that an entry may take.
#[derive(Clone, Debug)]
pub struct Start {
    /// Its name.
    pub name: String,
    /// Where it starts.
    pub at: Pc,
    /// By an exception or interrupt, whole: it is delivered with an empty store buffer (SEMANTICS H5).
    pub delivered: bool,
    /// A device sends it.
    pub device: bool,
}

/// What one CPU does.
#[derive(Clone, Debug)]
pub struct Task {
    /// The program it starts in.
    pub first: String,
    /// What it runs next, each time.
    pub again: String,
    /// The paths that an entry chooses from; the first is that of a plain `enter`.
    pub paths: Vec<Start>,
    /// How often.
    pub left: u32,
    /// What a device interrupt by itself is amid the kernel, and amid the idle loop.
    pub devices: [Interrupt; 2],
    /// Those of a CPU that rests in the kernel; in user mode they count as entries.
    pub interrupts: u32,
    /// In NOHZ_FULL.
    pub isolated: bool,
    /// In the mask that the entry flush tests.
    pub in_flush_mask: bool,
    /// Between its programs it is in user mode; otherwise in ordinary kernel code.
    pub rests_in_user: bool,
    /// Interrupts are off in its first program.
    pub irqs_off: bool,
    /// Pages that `range` means when it writes entries; a bit each.
    pub own: u8,
}

/// A device interrupt that comes by itself, amid the kernel.
#[derive(Clone, Debug)]
pub enum Interrupt {
    /// There is none.
    Never,
    /// It touches these zones.
    Checks(Vec<Zone>),
    /// It runs the program at this op.
    Runs(Pc),
}

/// Everything a schedule needs.
#[derive(Clone, Debug)]
pub struct Setup {
    /// One per CPU.
    pub tasks: Vec<Task>,
    /// Pages whose translations are tracked.
    pub pages: Vec<Tracked>,
    /// NMIs and machine checks in all.
    pub nmis: u32,
    /// Machine checks in all.
    pub mces: u32,
    /// Address-space identifiers per CPU.
    pub asids: usize,
    /// Assumptions.
    pub rules: Rules,
}

/// Why a schedule does not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("move {number} of the schedule, `{token}`: {why}")]
pub struct ScriptError {
    /// From 1.
    pub number: usize,
    /// As written.
    pub token: String,
    /// What is wrong.
    pub why: String,
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Played {
    /// The rule that the last move breaks, or the deadlock it leads to.
    pub violation: Option<Violation>,
    /// When the last move happened, picoseconds from the start.
    pub time_ps: u64,
    /// Moves carried out.
    pub moves: usize,
}

#[derive(Clone, Copy, Debug)]
struct Active {
    frame: Frame,
    /// It masks NMIs until its IRET.
    nmi: bool,
    /// It ends in IRET, which publishes.
    iret: bool,
    /// A device sent it: it takes no remote calls (SEMANTICS H5).
    device: bool,
}

#[derive(Clone, Debug)]
struct Player<'a> {
    code: &'a Code,
    setup: &'a Setup,
    m: Scripted,
    /// Task, interrupt or NMI of the task, NMI of those: from a rest in the kernel the second is the first.
    frames: Vec<[Option<Active>; 3]>,
    left: Vec<u32>,
    devices: Vec<u32>,
    nmis: u32,
    mces: u32,
    now: u64,
}

/// Carries a schedule out on a machine.
pub fn play(
    code: &Code,
    features: Features,
    preset: &Preset,
    setup: &Setup,
    schedule: &str,
) -> Result<Played, ScriptError> {
    let mut player = Player::new(code, features, preset, setup)?;
    let (mut number, mut violation) = (0, None);
    for token in schedule.split_whitespace() {
        let (body, times) = match token.split_once('*') {
            Some((body, times)) => (body, times.parse().unwrap_or(0)),
            None => (token, 1),
        };
        for _ in 0..times {
            number += 1;
            let fail = |why: String| ScriptError { number, token: token.into(), why };
            if let Some(rule) = violation {
                return Err(fail(format!("the move before broke a rule ({})", Violation::name(rule))));
            }
            match player.play(body) {
                Ok(true) => {}
                Ok(false) => return Err(fail("it is not possible there".into())),
                Err(Fault::Broken(rule)) => violation = Some(rule),
                Err(Fault::Unreadable(why)) => return Err(fail(why)),
            }
        }
    }
    if violation.is_none() && player.is_stuck() {
        violation = Some(Violation::Deadlock);
    }
    Ok(Played { violation, time_ps: player.now, moves: number })
}

enum Fault {
    Broken(Violation),
    Unreadable(String),
}

impl From<Violation> for Fault {
    fn from(rule: Violation) -> Self {
        Fault::Broken(rule)
    }
}

impl<'a> Player<'a> {
    fn new(
        code: &'a Code,
        features: Features,
        preset: &Preset,
        setup: &'a Setup,
    ) -> Result<Self, ScriptError> {
        let those = |is: fn(&Task) -> bool| -> Vec<Cpu> {
            (0..setup.tasks.len()).filter(|i| is(&setup.tasks[*i])).map(|i| i as Cpu).collect()
        };
        let (isolated, flush_mask) = (those(|t| t.isolated), those(|t| t.in_flush_mask));
        let layout = Layout {
            cpus: setup.tasks.len() as Cpu,
            isolated: &isolated,
            flush_mask: &flush_mask,
            sockets: 1,
            keep: 0,
        };
        let timed = Timed::new(code, features, Times::new(code, preset, features, Bound::Best), &layout);
        // What stays cached is the schedule's decision, so nothing leaves for lack of PCID slots.
        let mut ideal = preset.clone();
        ideal.geometry = std::sync::Arc::new(ideal.geometry.without_pcid_slots());
        let own = setup.tasks.iter().map(|t| t.own).collect();
        let m = Scripted::new(timed, &Mmu::new(&ideal), setup.pages.clone(), own, setup.rules.clone());
        let mut player = Player {
            code,
            setup,
            m,
            frames: vec![[None; 3]; setup.tasks.len()],
            left: setup.tasks.iter().map(|t| t.left).collect(),
            devices: setup.tasks.iter().map(|t| t.interrupts).collect(),
            nmis: setup.nmis,
            mces: setup.mces,
            now: 0,
        };
        for (cpu, task) in setup.tasks.iter().enumerate() {
            let Some(first) = player.program(&task.first) else {
                let why = format!("policy `{}` has no program `{}`", code.name, task.first);
                return Err(ScriptError { number: 0, token: String::new(), why });
            };
            player.start(cpu, 0, first, false);
            player.m.t.cores[cpu].if_on = !task.irqs_off;
        }
        Ok(player)
    }

    fn program(&self, name: &str) -> Option<ProgId> {
        self.code.program(name)
    }

    fn start(&mut self, cpu: usize, level: usize, run: ProgId, nmi: bool) {
        self.start_at(cpu, level, self.code.start(run), nmi);
    }

    fn start_at(&mut self, cpu: usize, level: usize, start: Pc, nmi: bool) {
        let iret = self.code.program_of(start).is_some_and(|p| self.code.ends_by_iret(&p.name));
        self.frames[cpu][level] = Some(Active { frame: Frame::new(start), nmi, iret, device: false });
    }

    fn start_for_device(&mut self, cpu: usize, level: usize, start: Pc) {
        self.start_at(cpu, level, start, false);
        self.frames[cpu][level].as_mut().expect("just started").device = true;
    }

    fn begin(&mut self, cpu: usize, level: usize, name: &str, nmi: bool) -> Result<(), Fault> {
        let run =
            self.program(name).ok_or_else(|| Fault::Unreadable(format!("there is no program `{name}`")))?;
        self.start(cpu, level, run, nmi);
        Ok(())
    }

    fn top(&self, cpu: usize) -> Option<usize> {
        self.frames[cpu].iter().rposition(Option::is_some)
    }

    fn in_user(&self, cpu: usize) -> bool {
        self.setup.tasks[cpu].rests_in_user && self.top(cpu).is_none()
    }

    /// One move. `false`: it is not possible now.
    fn play(&mut self, body: &str) -> Result<bool, Fault> {
        let unreadable = |why: &str| Fault::Unreadable(why.into());
        let (cpu, word) = body.split_once('.').ok_or_else(|| unreadable("expected CPU.ACTION"))?;
        let cpu: usize = cpu.parse().map_err(|_| unreadable("a CPU is a number"))?;
        if cpu >= self.frames.len() {
            return Err(Fault::Unreadable(format!("there are {} CPUs", self.frames.len())));
        }
        let (name, about) = word.split_once(':').unwrap_or((word, ""));
        let who = cpu as Cpu;
        // Until now it stood still.
        let clock = &mut self.m.t.cores[cpu].clock;
        *clock = self.now.max(*clock);
        let done = match name {
            "step" | "pick" => {
                let pick = if name == "pick" {
                    Some(about.parse().map_err(|_| unreadable("a CPU stands after `pick:`"))?)
                } else {
                    None
                };
                self.step(cpu, pick)
            }
            "take" => {
                self.m.takes = match about {
                    "yes" => Some(true),
                    "no" => Some(false),
                    _ => return Err(unreadable("`yes` or `no` stands after `take:`")),
                };
                let done = self.step(cpu, None);
                self.m.takes = None;
                done
            }
            "drain" => Ok(self.m.drain(who)?),
            "enter" => self.enter(cpu, about),
            "device" => self.device(cpu),
            "use" => {
                let rests = self.top(cpu).is_none() && !self.setup.tasks[cpu].rests_in_user;
                if rests {
                    self.m.zone(who, Zone::Kernel)?;
                }
                Ok(rests)
            }
            "switch" => {
                let at_work = self.top(cpu) == Some(0)
                    && matches!(self.next_op(cpu), Some(Op::Body(Slot::Syscall)))
                    && self.m.pending(who) == 0;
                if at_work && self.setup.asids > 1 {
                    self.m.switch_asid(who);
                }
                Ok(at_work && self.setup.asids > 1)
            }
            "irq" => self.interrupt(cpu),
            "nmi" | "mce" => self.nmi(cpu, name == "mce"),
            "fill" => {
                let page = self.setup.pages.iter().position(|p| p.name == about);
                let page = page.ok_or_else(|| unreadable("no such page"))?;
                Ok(self.m.speculate(who, page))
            }
            _ => Err(Fault::Unreadable(format!("the timed engine has no `{name}`"))),
        }?;
        self.now = self.now.max(self.m.t.cores[cpu].clock);
        Ok(done)
    }

    fn next_op(&self, cpu: usize) -> Option<Op> {
        let active = self.frames[cpu].iter().rev().flatten().next()?;
        Some(self.code.ops[usize::from(active.frame.pc)])
    }

    fn step(&mut self, cpu: usize, pick: Option<Cpu>) -> Result<bool, Fault> {
        let Some(level) = self.top(cpu) else { return Ok(false) };
        let active = self.frames[cpu][level].expect("it is the topmost");
        let who = cpu as Cpu;
        let op = self.code.ops[usize::from(active.frame.pc)];
        // IRET publishes: earlier stores first.
        if op == Op::Return && active.frame.ret == NO_PC && active.iret && self.m.pending(who) > 0 {
            return Ok(false);
        }
        self.m.level = level;
        self.m.t.cores[cpu].in_call_irq = !active.device;
        if let Some(next) = pick {
            let Op::Each { of, .. } = op else { return Ok(false) };
            if !self.m.unvisited(who, of).contains(&next) {
                return Ok(false);
            }
        }
        if matches!(op, Op::Unless { c: Cond::Either, .. }) != self.m.takes.is_some() {
            return Ok(false);
        }
        self.m.pick = pick;
        let mut frame = active.frame;
        let outcome = step(self.code, &mut frame, &mut self.m, who);
        self.m.pick = None;
        match outcome {
            Outcome::Next => {
                self.frames[cpu][level] = Some(Active { frame, ..active });
                Ok(true)
            }
            Outcome::Done => {
                self.frames[cpu][level] = None;
                self.m.frame_ends(who, level);
                if level == 0 {
                    self.m.t.cores[cpu].if_on = true;
                }
                Ok(true)
            }
            // A question with such a branch tracks text, and is not played here.
            Outcome::Wait | Outcome::Breakpoint => Ok(false),
            Outcome::Violated(rule) => Err(rule.into()),
        }
    }

    fn enter(&mut self, cpu: usize, by: &str) -> Result<bool, Fault> {
        if self.top(cpu).is_some() || self.left[cpu] == 0 {
            return Ok(false);
        }
        let task = &self.setup.tasks[cpu];
        let Some(&Start { at, delivered, device, .. }) =
            task.paths.iter().find(|p| by.is_empty() || p.name == by)
        else {
            return Err(Fault::Unreadable(format!("this CPU does not enter by `{by}`")));
        };
        if delivered && !self.is_deliverable(cpu) {
            return Ok(false);
        }
        self.left[cpu] -= 1;
        if task.rests_in_user {
            self.m.t.cores[cpu].if_on = false;
        }
        if device && task.rests_in_user {
            self.start_for_device(cpu, 0, at);
        } else {
            self.start_at(cpu, 0, at, false);
        }
        Ok(true)
    }

    /// A device interrupt by itself, amid a program with interrupts on.
    fn device(&mut self, cpu: usize) -> Result<bool, Fault> {
        if self.top(cpu) != Some(0) || !self.m.t.cores[cpu].if_on || !self.is_deliverable(cpu) {
            return Ok(false);
        }
        match &self.setup.tasks[cpu].devices[usize::from(self.in_idle(cpu))] {
            Interrupt::Never => Ok(false),
            Interrupt::Checks(zones) => {
                for &zone in zones {
                    self.m.zone(cpu as Cpu, zone)?;
                }
                Ok(true)
            }
            Interrupt::Runs(start) => {
                let user = self.setup.tasks[cpu].rests_in_user;
                let left = if user { &mut self.left[cpu] } else { &mut self.devices[cpu] };
                if *left == 0 {
                    return Ok(false);
                }
                *left -= 1;
                self.start_for_device(cpu, 1, *start);
                Ok(true)
            }
        }
    }

    fn in_idle(&self, cpu: usize) -> bool {
        self.frames[cpu][0].is_some_and(|active| self.code.is_idle_at(active.frame.pc))
    }

    fn interrupt(&mut self, cpu: usize) -> Result<bool, Fault> {
        if !self.takes_interrupt(cpu) {
            return Ok(false);
        }
        let user = self.in_user(cpu);
        let c = &mut self.m.t.cores[cpu];
        let at = std::mem::replace(&mut c.irq_at, super::queue::NEVER);
        c.clock = c.clock.max(at);
        if user {
            c.if_on = false;
            self.begin(cpu, 0, "interrupt", false)?;
        } else {
            let entry = if self.in_idle(cpu) { "interrupt_idle" } else { "interrupt_kernel" };
            self.begin(cpu, 1, entry, false)?;
        }
        Ok(true)
    }

    fn takes_interrupt(&self, cpu: usize) -> bool {
        self.m.t.takes_irq(cpu as Cpu)
            && self.top(cpu).is_none_or(|level| level == 0)
            && self.is_deliverable(cpu)
    }

    /// What interrupts a CPU makes its earlier stores visible, unless the question says otherwise.
    fn is_deliverable(&self, cpu: usize) -> bool {
        !self.setup.rules.interrupts_drain || self.m.pending(cpu as Cpu) == 0
    }

    fn nmi(&mut self, cpu: usize, mce: bool) -> Result<bool, Fault> {
        let left = if mce { self.mces } else { self.nmis };
        let masked = self.frames[cpu].iter().flatten().any(|a| a.nmi);
        let level = if self.in_user(cpu) { 0 } else { self.top(cpu).map_or(1, |level| level + 1) };
        if left == 0 || level > 2 || !mce && masked || !self.is_deliverable(cpu) {
            return Ok(false);
        }
        if mce {
            self.mces -= 1;
        } else {
            self.nmis -= 1;
        }
        if level == 0 {
            self.m.t.cores[cpu].if_on = false;
            self.begin(cpu, 0, "nmi_user", !mce)?;
        } else {
            self.begin(cpu, level, "nmi", !mce)?;
        }
        Ok(true)
    }

    /// Somebody waits, and nothing but speculation and NMIs can happen any more.
    fn is_stuck(&self) -> bool {
        let mut busy = false;
        for cpu in 0..self.frames.len() {
            let rests = self.top(cpu).is_none();
            let waits =
                rests && self.left[cpu] == 0 || !rests && matches!(self.clone().step(cpu, None), Ok(false));
            if !waits || self.m.pending(cpu as Cpu) > 0 || self.takes_interrupt(cpu) {
                return false;
            }
            busy |= !rests;
        }
        busy
    }
}
