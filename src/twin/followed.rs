//! What the timed engine does, the checker can do: its runs are followed in the abstract machine, op by op and interrupt by
//! interrupt, and each CPU is in the same state in both.
//!
//! Some CPUs idle, and kernel work that flushes comes to them, or turns of processes: switches, lazy TLBs, flushes of user
//! ranges. The others are isolated and in user mode, some as threads of a process. Who runs next is the timed engine's
//! choice. Stores are visible at once (the timed engine's are), and the hardware fills no translation.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::check::layout::{Bits, Device, MAX_WORDS};
use crate::check::machine::{Abs, CR3_USER, Model, Seen};
use crate::check::scope::UNBOUNDED;
use crate::check::{Action, Assume, Role, Scope};
use crate::hw::Preset;
use crate::kernel::config::Config;
use crate::kernel::policy::{self, POLICIES, initiators};
use crate::kernel::program::{Ask, Op, Pc, ProgId, Reg};
use crate::kernel::step::Violation;
use crate::kernel::text::{File, parse};
use crate::sim::cost::Bound;
use crate::sim::draw::Draws;
use crate::sim::machine::journal::{Did, Mark};
use crate::sim::scenario::TASK_PROGRAMS;
use crate::sim::stats::Cause;
use crate::sim::{Input, Run, Scenario};

/// Purges of a run, about.
const ROUNDS: u64 = 6;
/// NMIs that are always left, and device interrupts of a CPU that rests in the kernel.
const NMIS: u8 = 7;
const DEVICES: u8 = 3;

/// A frame of the timed engine: which frame was on top below it, and whether the abstract machine has none for it.
struct Frame {
    top: Option<usize>,
    shadow: bool,
}

/// How often something came.
#[derive(Debug, Default)]
struct Tally {
    ops: u64,
    calls: u64,
    devices: u64,
    shadows: u64,
    entries: u64,
    nmis: u64,
    idle: u64,
    broken: u64,
    /// Loads of CR3 that changed the address space, and runs that ended where a generation did not fit.
    switches: u64,
    full: u64,
    /// CPUs that a walk passed by.
    passed: u64,
}

struct Follower<'m> {
    m: &'m Model,
    s: [u64; MAX_WORDS],
    frames: Vec<Vec<Frame>>,
    tally: Tally,
    /// What broke a rule.
    broken: Option<(Mark, Violation)>,
    /// A generation did not fit: the abstract machine goes no further.
    full: bool,
    /// For messages: what runs, and the moves so far.
    of: String,
    last: Vec<String>,
}

impl Follower<'_> {
    fn top(&self, cpu: usize) -> Option<usize> {
        Abs::new(self.m, self.s).top(cpu)
    }

    /// The one move that is asked for.
    fn go(&mut self, cpu: usize, action: Action, mark: Mark) {
        self.last.push(format!("{} ps {cpu}.{action:?} {:?}", mark.time, mark.did));
        let (mut found, mut all) = (None, Vec::new());
        let e = self.m.each_successor(&self.s, &mut |mv, next| {
            if mv == (cpu as u8, action) {
                found = Some(next);
            }
            all.push(mv);
            true
        });
        match found {
            Some(Ok(next)) => self.s = next,
            Some(Err(rule)) => self.broken = Some((mark, rule)),
            None if e.seen & Seen::OVERFLOW != 0 => self.full = true,
            other => self.fail(mark, &format!("{action:?} is {other:?}, of {all:?}")),
        }
    }

    /// There are always some of those that the scope bounds.
    fn refill(&mut self, budget: Bits, to: u64) {
        let mut a = Abs::new(self.m, self.s);
        if budget.exists() {
            a.set(budget, to);
        }
        self.s = a.s;
    }

    fn fail(&self, mark: Mark, why: &str) -> ! {
        let from = self.last.len().saturating_sub(40);
        panic!("{}\n{}\n{mark:?}: {why}", self.of, self.last[from..].join("\n"));
    }

    /// Are interrupts open in the abstract machine, and amid none that it has no frame for?
    fn can_be_interrupted(&self, cpu: usize) -> bool {
        let shadow = self.frames[cpu].iter().any(|f| f.shadow);
        let open = Abs::new(self.m, self.s).get(self.m.layout.cpus[cpu].irqs) != 0;
        !shadow && matches!(self.top(cpu), None | Some(0)) && open
    }

    /// The address space and the ASID that a CPU has loaded.
    fn context(&self, cpu: usize) -> (u16, u8) {
        let cr3 = Abs::new(self.m, self.s).get(self.m.layout.cpus[cpu].cr3);
        (self.m.mm(cr3) as u16, self.m.asid(cr3) as u8)
    }

    /// Both machines agree about a CPU.
    fn compare(&self, mark: Mark) {
        let cpu = usize::from(mark.cpu);
        let (c, a) = (&self.m.layout.cpus[cpu], Abs::new(self.m, self.s));
        let irqs = self.can_be_interrupted(cpu);
        let nmi = c.frames.iter().any(|f| {
            let at = a.get(f.at);
            at != 0 && f.locations[at as usize - 1].nmi
        });
        let user_table = a.get(c.cr3) & CR3_USER != 0;
        let is = (irqs, nmi, a.get(c.gs) != 0, user_table, self.context(cpu));
        if is != (mark.irqs, mark.nmi_blocked, mark.kernel_gs, mark.user_table, mark.context) {
            self.fail(mark, &format!("IF, NMIs blocked, GS, user table, mm and ASID: {is:?}"));
        }
    }

    fn begins(&mut self, mark: Mark, program: ProgId, cause: Cause) {
        let (m, cpu) = (self.m, usize::from(mark.cpu));
        let name = &*m.code.programs[usize::from(program.0)].name;
        let (role, mut top) = (&m.scope.roles[cpu], self.top(cpu));
        let device = matches!(cause, Cause::Tick | Cause::Device | Cause::Residual);
        let mut shadow = false;
        match name {
            "interrupt_kernel" | "interrupt_idle" if device => {
                let waits = || m.code.is_idle_at(Abs::new(m, self.s).next_op(cpu, 0).0);
                let idle = name == "interrupt_idle";
                self.tally.idle += u64::from(idle);
                match m.devices[cpu][usize::from(idle)] {
                    _ if top != Some(0) || idle != waits() || !self.can_be_interrupted(cpu) => {
                        self.fail(mark, "no such device interrupt comes")
                    }
                    Device::Never => self.fail(mark, "no device interrupt comes"),
                    Device::Checks(_) => (shadow, self.tally.shadows) = (true, self.tally.shadows + 1),
                    Device::Runs(_) => {
                        self.tally.devices += 1;
                        self.go(cpu, Action::Device, mark);
                        self.refill(m.layout.cpus[cpu].devices, u64::from(DEVICES));
                    }
                }
            }
            "interrupt" | "interrupt_kernel" | "interrupt_idle" if !device => {
                self.tally.calls += 1;
                self.tally.idle += u64::from(name == "interrupt_idle");
                self.go(cpu, Action::Irq, mark);
            }
            "nmi" | "nmi_user" => {
                self.tally.nmis += 1;
                self.go(cpu, Action::Nmi, mark);
                self.refill(m.layout.shared.nmis, u64::from(NMIS));
            }
            _ if name == role.first && self.frames[cpu].is_empty() && self.at_first(cpu) => top = None,
            _ => {
                self.tally.entries += 1;
                let path = m.paths[cpu].iter().position(|p| p.name == name);
                match path {
                    Some(0) => self.go(cpu, Action::Enter, mark),
                    Some(i) => self.go(cpu, Action::EnterBy(i as u8), mark),
                    None => self.fail(mark, &format!("no path is `{name}`: {:?}", m.paths[cpu])),
                }
            }
        }
        self.frames[cpu].push(Frame { top, shadow });
        if !shadow && !self.full {
            let (Some(level), at) = (self.top(cpu), m.code.start(program)) else {
                self.fail(mark, "nothing began")
            };
            let (first, _) = Abs::new(m, self.s).next_op(cpu, level);
            let end = m.code.programs[usize::from(program.0)].end;
            if !(at..end).contains(&first) {
                self.fail(mark, &format!("`{name}` is at {at} to {end}, and what began at {first}"));
            }
        }
    }

    /// Has this CPU not left the program that it starts in?
    fn at_first(&self, cpu: usize) -> bool {
        let first = self.m.code.program(&self.m.scope.roles[cpu].first).unwrap();
        let programs = &self.m.code.programs[usize::from(first.0)];
        self.top(cpu) == Some(0) && {
            let (pc, _) = Abs::new(self.m, self.s).next_op(cpu, 0);
            (programs.start..programs.end).contains(&pc)
        }
    }

    fn op(&mut self, mark: Mark, pc: Pc) {
        let (m, cpu) = (self.m, usize::from(mark.cpu));
        if self.frames[cpu].last().unwrap().shadow {
            return;
        }
        let Some(level) = self.top(cpu) else { self.fail(mark, "an op at rest") };
        if !m.layout.cpus[cpu].frames[level].locations.iter().any(|l| l.pc == pc) {
            return; // it concerns nobody there
        }
        loop {
            let (at, op) = Abs::new(m, self.s).next_op(cpu, level);
            let mut moves = Vec::new();
            if at != pc && !matches!(op, Op::Touch(_)) {
                let near: Vec<String> = (pc.min(at).saturating_sub(4)..=pc.max(at) + 2)
                    .map(|pc| format!("{pc} {:?}", m.code.ops[usize::from(pc)]))
                    .collect();
                self.fail(mark, &format!("it is at {at}: {}\n{}", m.code.source(at), near.join("\n")));
            }
            let e = m.each_successor(&self.s, &mut |(c, action), _| {
                let steps =
                    matches!(action, Action::Step | Action::Pick(_) | Action::Take(_) | Action::Pass(_));
                if usize::from(c) == cpu && steps {
                    moves.push(action);
                }
                true
            });
            // The timed engine goes from the first CPU on, past those that are not in the set, and takes a way that nothing
            // decides.
            let passed = moves
                .iter()
                .find(|a| matches!(a, Action::Pass(c) if usize::from(*c) < self.next_in(cpu, level, op)));
            if let Some(&action) = passed {
                self.go(cpu, action, mark);
                self.tally.passed += 1;
                continue;
            }
            moves.retain(|a| !matches!(a, Action::Pass(_)));
            let pick = |a: &&Action| if let Action::Pick(w) = a { *w } else { 0 };
            let takes = moves.iter().find(|a| **a == Action::Take(true));
            match takes.or(moves.iter().min_by_key(pick)) {
                Some(&action) => self.go(cpu, action, mark),
                None if e.seen & Seen::OVERFLOW != 0 => self.full = true,
                None => self.fail(mark, &format!("{op:?} waits")),
            }
            self.tally.ops += 1;
            if let Op::Ask { what, to } = op {
                self.answer(cpu, level, what, to, mark);
            }
            if at == pc || self.broken.is_some() || self.full {
                return;
            }
        }
    }

    /// The first CPU that a walk over a set has left.
    fn next_in(&self, cpu: usize, level: usize, op: Op) -> usize {
        let Op::Each { of, .. } = op else { return 0 };
        let mut a = Abs::new(self.m, self.s);
        a.level = level;
        let visited = a.get(self.m.layout.cpus[cpu].frames[level].visited);
        (u64::from(a.members(of, cpu as u16)) & !visited).trailing_zeros() as usize
    }

    /// The scheduler's choice, and that of who flushes, is the timed engine's.
    fn answer(&mut self, cpu: usize, level: usize, what: Ask, to: Reg, mark: Mark) {
        let answer = match what {
            Ask::NextMm => mark.asked.0,
            Ask::FlushMm => mark.asked.1,
            Ask::InfoMm | Ask::InfoGen | Ask::LoadedAsid | Ask::AsidFor(_) => return,
        };
        let mut a = Abs::new(self.m, self.s);
        let frame = &self.m.layout.cpus[cpu].frames[level];
        let at = &frame.locations[a.get(frame.at) as usize - 1];
        let area = a.get(frame.area);
        for &(_, shift, mask) in at.regs[..usize::from(at.live)].iter().filter(|(r, ..)| *r == to.0) {
            a.set(frame.area, area & !(u64::from(mask) << shift) | u64::from(answer) << shift);
        }
        self.s = a.s;
    }

    fn follow(&mut self, journal: &[Mark]) {
        for &mark in journal {
            if mark.did != Did::Over {
                self.compare(mark);
            }
            let before = self.context(usize::from(mark.cpu)).0;
            match mark.did {
                Did::Op(pc) => self.op(mark, pc),
                Did::Begins(program, cause) => self.begins(mark, program, cause),
                Did::Over => {
                    let frame = self.frames[usize::from(mark.cpu)].pop().unwrap();
                    if self.top(usize::from(mark.cpu)) != frame.top && !frame.shadow {
                        self.fail(mark, &format!("{:?} is on top", self.top(usize::from(mark.cpu))));
                    }
                    self.compare(mark);
                }
            }
            self.tally.switches += u64::from(self.context(usize::from(mark.cpu)).0 != before);
            if self.broken.is_some() || self.full {
                return;
            }
        }
    }
}

/// Who is on its way to user mode was so before the first mark.
fn started(role: &Role) -> Vec<Frame> {
    let on_its_way = role.first == "enter_user";
    on_its_way.then_some(Frame { top: None, shadow: false }).into_iter().collect()
}

/// A scenario by chance, and the roles of its CPUs.
fn drawn(draws: &mut Draws, initiator: &str, pages: u64, processes: bool) -> (String, Vec<Role>) {
    let cpus = 2 + draws.below(2);
    let duration = 60_000_000 + draws.below(60_000_000);
    let gap = |draws: &mut Draws, mean: u64| {
        let mean = mean / 2 + draws.below(mean);
        format!(r#""gap": {{"mean_ps": {mean}, "exponential": true}}"#)
    };
    let (mut actors, mut roles) = (Vec::new(), Vec::new());
    let (mut housekeeping, mut user) = (Vec::new(), Vec::new());
    for cpu in 0..cpus {
        let mut actor = |text: String| {
            let name = actors.len();
            actors.push(format!(r#"{{"name": "a{name}", "on": {{"cpus": [{cpu}]}}, {text}}}"#));
        };
        if cpu == 0 || draws.below(3) == 0 {
            actor(r#""kind": "idle""#.into());
            let gaps = gap(draws, duration / ROUNDS);
            // One at a time patches text: `text_mutex`.
            let works = cpu == 0 || initiator != "text_poke" && draws.below(2) == 0;
            if works {
                actor(format!(
                    r#""kind": "chain", {gaps}, "steps": [{{"program": "{initiator}", "pages": {pages}, "cause": "purge"}}]"#
                ));
            }
            let mut paths = ["idle", initiator].map(String::from).to_vec();
            paths.extend(TASK_PROGRAMS.iter().filter(|_| processes).map(|name| (*name).to_owned()));
            housekeeping.push(cpu);
            let idle =
                Role { first: "idle".into(), again: "idle".into(), paths, ..Role::initiator(initiator, 2) };
            roles.push(Role { left: 250, devices: DEVICES, isolated: cpu > 0, ..idle });
        } else {
            let by = ["syscall", "syscall_compat", "sysenter_compat", "exception", "exception_espfix"]
                [draws.below(5) as usize];
            let gaps = gap(draws, 2_000_000);
            let base = 300_000 + draws.below(900_000);
            actor(format!(
                r#""kind": "syscalls", {gaps}, "base_ps": {base}, "kernel_pages": 0, "user_pages": 0, "by": "{by}""#
            ));
            let fault = if by.starts_with("exception") { by } else { "exception" };
            if draws.below(2) == 0 {
                let gaps = gap(draws, 4_000_000);
                let body = draws.below(700_000);
                actor(format!(r#""kind": "faults", {gaps}, "body_ps": {body}, "by": "{fault}""#));
            }
            user.push(cpu);
            let mut paths = vec![by.to_owned()];
            paths.extend((fault != by).then(|| fault.to_owned()));
            paths.push("interrupt".into());
            roles.push(Role { left: UNBOUNDED, again: by.into(), paths, ..Role::isolated(2) });
        }
        if draws.below(3) > 0 {
            // Now and then so many that some come amid the few ops in which interrupts are off.
            let often = draws.below(3) == 0;
            let gaps = gap(draws, if often { 300_000 } else { 3_000_000 });
            let body = draws.below(if often { 50_000 } else { 900_000 });
            actor(format!(r#""kind": "interrupts", {gaps}, "body_ps": {body}, "cause": "tick""#));
        }
    }
    for cpu in 0..cpus {
        if draws.below(2) == 0 {
            let (gaps, name) = (gap(draws, 4_000_000), actors.len());
            let body = draws.below(900_000);
            actors.push(format!(
                r#"{{"name": "n{name}", "on": {{"cpus": [{cpu}]}}, "kind": "nmis", {gaps}, "body_ps": {body}}}"#
            ));
        }
    }
    if processes {
        let also_on: Vec<u64> = user.into_iter().filter(|_| draws.below(3) > 0).collect();
        let also_on = if also_on.is_empty() {
            String::new()
        } else {
            format!(r#""also_on": {{"cpus": {also_on:?}}}, "#)
        };
        let alone = housekeeping[draws.below(housekeeping.len() as u64) as usize];
        let threads = [
            (format!("{housekeeping:?}"), format!(r#""shared": true, {also_on}"#)),
            (format!("[{alone}]"), String::new()),
        ];
        for (on, more) in threads {
            let (gaps, steps) = (gap(draws, duration / (3 * ROUNDS)), turn(draws, pages));
            actors.push(format!(
                r#"{{"name": "t{}", "on": {{"cpus": {on}}}, "kind": "tasks", {gaps}, {more}"steps": [{steps}]}}"#,
                actors.len()
            ));
        }
    }
    let isolated: Vec<String> = (1..cpus).map(|c| c.to_string()).collect();
    let sockets = 1 + draws.below(2);
    let text = format!(
        r#"{{"name": "drawn", "duration_ps": {duration}, "cpus": {cpus}, "isolated": [{}], "sockets": {sockets}, "actors": [{}]}}"#,
        isolated.join(", "),
        actors.join(",\n"),
    );
    (text, roles)
}

/// What a turn does to address spaces.
fn turn(draws: &mut Draws, pages: u64) -> String {
    let steps = (0..=draws.below(3)).map(|_| {
        // The abstract machine counts few generations.
        let (what, often) = match draws.below(5) {
            0 | 1 => (r#""do": "switch""#.to_owned(), 800),
            2 => (r#""do": "sleep""#.to_owned(), 500),
            _ => {
                let tables = draws.below(3) == 0;
                (format!(r#""do": "unmap", "pages": {pages}, "tables": {tables}"#), 150)
            }
        };
        format!(r#"{{{what}, "per_mille": {}}}"#, often - draws.below(often / 2))
    });
    steps.collect::<Vec<_>>().join(", ")
}

/// A machine and a kernel by chance on which a policy works.
fn works_on(file: &File, draws: &mut Draws) -> (Arc<Preset>, Config) {
    let names = Preset::names();
    loop {
        let machine = Preset::builtin(names[draws.below(names.len() as u64) as usize]).unwrap();
        let kernel = Config {
            pti: [Some(true), Some(true), None, Some(false)][draws.below(4) as usize],
            nopcid: draws.below(6) == 0,
            noinvpcid: draws.below(6) == 0,
            broadcast_tlb_flush: true,
            rar: true,
            ..Config::default()
        };
        if kernel.inert(&file.name, &file.needs, &machine.features, true).is_empty() {
            return (machine, kernel);
        }
    }
}

/// The same policy with a page of user memory, which gives the abstract machine two processes.
fn with_processes(file: &Arc<File>) -> Arc<File> {
    let mut file = File::clone(file);
    if file.pages.is_empty() {
        file.pages = parse("page.policy", "policy page\n  \"x\"\n  page u : user of 3\n").unwrap().pages;
    }
    Arc::new(file)
}

/// At the start a process is loaded where the timed engine has loaded one, and has been for long.
fn loaded(m: &Model, run: &Run) -> [u64; MAX_WORDS] {
    let mut a = Abs::new(m, m.initial());
    for (cpu, c) in m.layout.cpus.iter().enumerate() {
        let cr3 = run.engine.m.cores[cpu].cr3;
        let (mm, asid) = (cr3 >> 16, cr3 >> 8 & 0xff);
        if mm == 0 {
            continue;
        }
        let bits = (asid << 1 | mm << (1 + u32::from(m.layout.asids > 1))) | a.get(c.cr3) & CR3_USER;
        a.set(c.cr3, bits);
        for (held, b) in (0..).zip(&c.contexts) {
            if held == asid {
                a.set(*b, mm);
            }
        }
        if m.pcid {
            a.set(c.next_asid, asid + 1);
        }
        for (v, b) in m.code.vars.iter().zip(&c.vars) {
            if v.name == "loaded_mm" {
                a.set(*b, mm);
            }
        }
        for (v, copies) in m.code.vars.iter().zip(&c.asid_vars) {
            if v.name == "ctx_gen" {
                a.set(copies[asid as usize], 1);
            }
        }
        let mask = m.layout.shared.masks[mm as usize];
        a.set(mask, a.get(mask) | 1 << cpu);
    }
    a.s
}

/// A run by chance, followed. `false`: the policy has an op that the machine lacks.
fn follow(file: &Arc<File>, initiator: &str, draws: &mut Draws, tally: &mut Tally) -> bool {
    let ranged = draws.below(3) == 0;
    let processes = initiator != "text_poke" && draws.below(2) == 0;
    let (text, roles) = drawn(draws, initiator, if ranged { 4 } else { 64 }, processes);
    let file = &if processes { with_processes(file) } else { Arc::clone(file) };
    let version = policy::versions().nth(draws.below(2) as usize).expect("there are two");
    let file = &Arc::new(policy::on_linux(file, version).unwrap());
    let scenario = Scenario::parse(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let (machine, kernel) = works_on(file, draws);
    let features = kernel.features(&machine.features, true);
    let code = policy::code(file, &scenario.programs(), features).unwrap();
    let scope = Scope {
        roles,
        nmis: NMIS,
        every_path: true,
        asids: if processes { 2 } else { 1 },
        rename: processes,
        ..Scope::standard(2, 1)
    };
    let assume = Assume { store_buffers: false, gs_faults: true, ranged, ..Assume::default() };
    let model = Model::new(&code, features, &scope, assume, 0).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!(model.code.ops, code.ops);
    let of = format!("{} on {}, {kernel:?}: {text}", code.name, machine.name);
    let input = Input {
        scenario,
        machine,
        kernel,
        policy: Arc::clone(file),
        seed: draws.below(1 << 40),
        skip: false,
        keep: 0,
        full: false,
        bound: Bound::Best,
    };
    let Ok(mut run) = Run::new(input) else { return false };
    run.engine.replays = false;
    run.engine.looks_ahead = draws.below(2) == 0;
    run.engine.m.journal = Some(Vec::new());
    run.engine.m.contexts.fewer = scope.asids;
    let s = loaded(&model, &run);
    run.finish(&AtomicBool::new(false), |_| {});
    let mut journal = run.engine.m.journal.take().unwrap();
    journal.sort_by_key(|mark| (mark.time, mark.cpu));
    let mut follower = Follower {
        m: &model,
        s,
        full: false,
        frames: scope.roles.iter().map(started).collect(),
        tally: std::mem::take(tally),
        broken: None,
        of,
        last: Vec::new(),
    };
    follower.follow(&journal);
    let place = |mark: Mark| if let Did::Op(pc) = mark.did { pc } else { Pc::MAX };
    let broken = follower.broken.map(|(mark, rule)| (mark.cpu, place(mark), rule));
    let told = run.engine.m.violation.map(|(_, cpu, pc, rule)| (cpu, pc, rule));
    assert!(follower.full || broken == told, "{broken:?} {told:?} {}", follower.of);
    follower.tally.broken += u64::from(broken.is_some());
    follower.tally.full += u64::from(follower.full);
    *tally = follower.tally;
    true
}

/// A device's interrupt runs a program of its own, which in one reads what a sender has told.
const TICKING: &str = "policy ticking\n  \"x\"\n  needs pti\n  based on coalesce-v7\n\ntick\n  lfence\n";
const TOLD: &str = "policy told\n  \"x\"\n  based on ipi\n  var told : 1 bit, per cpu, starts 0\n\nflush_kernel_range\n  each cpu in others\n    told[cpu] = 1\n  ipi others, flush_handler\n  flush_here\n  await acks\n  cli\n  fence\n  sti\n\ntick\n  if told\n    told = 0\n    fence\n";
/// A variable is written in user mode.
const LATE: &str = "policy late\n  \"x\"\n  needs pti\n  based on coalesce-v7\n  var left : 1 bit, per cpu, starts 0, user mapped\n\nto_user\n  mov cr3, user owed\n  left = 1\n";

#[test]
fn what_the_timed_engine_does_the_checker_can_do() {
    let mut tally = Tally::default();
    let own = [TICKING, TOLD, LATE].map(|text| Arc::new(parse("own.policy", text).unwrap()));
    let files = POLICIES.iter().map(|row| policy::shared_builtin(row.id).unwrap());
    for (number, file) in (0..).zip(files.chain(own)) {
        for initiator in initiators(&file) {
            let mut draws = Draws::new(1, number, 41);
            let mut runs = 0;
            while runs < 10 {
                runs += u32::from(follow(&file, initiator, &mut draws, &mut tally));
            }
        }
    }
    let Tally { ops, calls, devices, shadows, entries, nmis, idle, broken, switches, full, passed } = tally;
    assert!(ops > 300_000 && calls > 1000 && devices > 300 && shadows > 3000, "{tally:?}");
    assert!(
        entries > 10_000
            && nmis > 4000
            && idle > 2000
            && broken > 10
            && switches > 200
            && full > 3
            && passed > 5,
        "{tally:?}"
    );
}
