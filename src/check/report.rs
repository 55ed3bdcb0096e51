//! Counterexamples and verdicts for people: one lane per CPU, 72 columns, what changed, and where it stands.

use super::layout::{Bits, TEXT, Target};
use super::machine::counts::rank;
use super::machine::lines::UNCACHED;
use super::machine::{CR3_USER, Model};
use super::model::{Action, Move};
use super::schedule::{self, Replay};
use super::scope::{CheckError, Rest};
use crate::kernel::program::is_site;
use crate::kernel::program::{At, Cond, Copies, Entry, Holds, Index, Level, Op, PageKind, Pc, Place};
use crate::kernel::step::Violation;

mod closing;
mod verdict;

use closing::closing;
pub use verdict::{sentence, verified, witnesses};

/// Width of everything printed.
pub const WIDTH: usize = 72;

/// One move of a counterexample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepView {
    /// Number in the schedule, from 1.
    pub number: usize,
    /// CPU.
    pub cpu: usize,
    /// What happens.
    pub what: String,
    /// Where the op comes from; none for events of the hardware.
    pub source: Option<String>,
    /// What changed.
    pub changes: Vec<String>,
    /// Worth a line: it changes something another agent, or a later walk, can see.
    pub shown: bool,
}

/// A counterexample, ready to print.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// The broken rule.
    pub rule: Violation,
    /// The moves as text; replays.
    pub schedule: String,
    /// Lane headings.
    pub lanes: Vec<String>,
    /// The version of Linux that the kernel's own places are of.
    pub linux: String,
    /// The moves.
    pub steps: Vec<StepView>,
    /// One sentence on what went wrong.
    pub closing: String,
}

/// Explain a schedule that ends in a violation.
pub fn explain(model: &Model, moves: &[Move], rule: Violation) -> Result<Counterexample, CheckError> {
    let replay = schedule::replay(model, moves)?;
    let steps = moves.iter().enumerate().map(|(i, &mv)| view(model, &replay, i, mv)).collect::<Vec<_>>();
    let lanes = model.scope.roles.iter().enumerate().map(|(i, r)| format!("cpu {i} {}", r.name)).collect();
    let closing = closing(model, &replay, moves, rule);
    Ok(Counterexample {
        rule,
        schedule: schedule::format(model, moves),
        lanes,
        linux: model.code.linux.clone(),
        steps,
        closing,
    })
}

/// The op a CPU is about to execute in a state.
fn next_op(model: &Model, s: &[u64], cpu: usize) -> Option<(Pc, Op)> {
    let c = &model.layout.cpus[cpu];
    (0..3).rev().find_map(|l| {
        let f = &c.frames[l];
        let n = f.at.get(s) as usize;
        (n != 0).then(|| {
            let pc = f.locations[n - 1].pc;
            (pc, model.code.ops[usize::from(pc)])
        })
    })
}

fn page_names(model: &Model) -> Vec<&str> {
    model.layout.pages.iter().map(|p| p.name.as_str()).collect()
}

fn store_text(model: &Model, cpu: usize, s: &[u64], slot: usize) -> String {
    let c = &model.layout.cpus[cpu];
    let e = c.stores[slot].get(s);
    let v = e & ((1 << c.value_bits) - 1);
    match c.targets[(e >> c.value_bits) as usize] {
        Target::Field { field, owner } => {
            let f = &model.code.fields[usize::from(field)];
            match model.code.vars[usize::from(f.var)].copies {
                Copies::One => format!("{}={}", f.name, shown(model, f.var, v)),
                Copies::Cpu | Copies::Mm | Copies::Asid => {
                    format!("{}[{owner}]={}", f.name, shown(model, f.var, v))
                }
            }
        }
        Target::Entry { page, level, v } => {
            let text = model.layout.pages[usize::from(page)].kind == PageKind::Text;
            let level = match level {
                Level::Leaf if text => "text",
                Level::Leaf => "pte",
                Level::Table => "table",
            };
            let v = match v {
                Entry::None => "none",
                Entry::Fresh if text => "new",
                Entry::Fresh => "fresh",
                Entry::Int3 => "int3",
                Entry::LessRights => "less rights",
                Entry::Initial => "initial",
                Entry::Uncached => "uncached",
                Entry::Cached => "cached",
            };
            format!("{level} {}={v}", page_names(model)[usize::from(page)])
        }
        Target::Lines { page } => format!("clflush {}", page_names(model)[usize::from(page)]),
        Target::Ack { sender } => format!("ack to cpu {sender}"),
    }
}

fn view(model: &Model, replay: &Replay, i: usize, (cpu, action): Move) -> StepView {
    let cpu = usize::from(cpu);
    let before = &replay.states[i];
    let after = replay.states.get(i + 1);
    let op = next_op(model, before, cpu);
    let names = page_names(model);
    let page = |p: u8| names[usize::from(p)];
    let c = &model.layout.cpus[cpu];
    let mut source = None;
    let what = match action {
        Action::Step | Action::Pick(_) | Action::Take(_) => match op {
            Some((pc, _)) => {
                source = Some(model.code.source(pc));
                let text = model.code.text[usize::from(pc)].clone();
                match action {
                    Action::Step if is_site(model.code.ops[usize::from(pc)]) => {
                        format!("{text}: {}", decided(model, before, cpu, pc))
                    }
                    Action::Pick(w) => format!("{text}: cpu {w}"),
                    Action::Take(first) => format!("{text}: {}", if first { "yes" } else { "no" }),
                    _ => text,
                }
            }
            None => "(rests)".into(),
        },
        Action::Pass(w) => format!("(the walk passes cpu {w} by)"),
        Action::Drain => "(store visible)".into(),
        Action::Enter if model.role(cpu).rest == Rest::User => format!("({})", model.paths[cpu][0].name),
        Action::EnterBy(i) => format!("({})", model.paths[cpu][usize::from(i)].shown(&model.code)),
        Action::Device => "(device interrupt)".into(),
        Action::Enter => format!("(again: {})", model.role(cpu).again),
        Action::Use => "(ordinary kernel code)".into(),
        Action::Switch => "(switch_mm to the other ASID)".into(),
        Action::Irq => "(interrupt)".into(),
        Action::Later => "(a grace period is over)".into(),
        Action::Nmi => "(NMI)".into(),
        Action::Mce => "(#MC)".into(),
        Action::Fill(p) if model.layout.pages[usize::from(p)].kind == PageKind::Text => {
            format!("(fetches {} of the patched instruction)", page(p))
        }
        Action::Fill(p) => format!("(walk caches {})", page(p)),
        Action::FillUpper(p) => format!("(walk caches table of {})", page(p)),
        Action::Drop(p) => format!("(evicts {})", page(p)),
        Action::Line(p) => format!("(brings in a line of {})", page(p)),
        Action::WriteBack(p) => format!("(writes back a line of {}, or reads it)", page(p)),
    };
    let text = |p: usize| model.layout.pages[p].kind == PageKind::Text;
    let mut changes = Vec::new();
    if let (Action::Step, Some((_, Op::Load { from, .. })), true) = (action, op, after.is_some()) {
        changes.push(format!("reads {}", loaded(model, before, cpu, from)));
    }
    if let Some(after) = after {
        let s = &model.layout.shared;
        for (p, name) in names.iter().enumerate() {
            if text(p) {
                if s.version[p].get(before) != s.version[p].get(after) {
                    changes.push(format!("text {name}: {}", instruction(s.version[p].get(after))));
                }
                if s.dead[p].get(before) != s.dead[p].get(after) {
                    changes.push(format!("{name}: older than {} is dead", instruction(s.dead[p].get(after))));
                }
                continue;
            }
            if s.version[p].get(before) != s.version[p].get(after) {
                changes.push(format!("pte {name}: {}", pte(model, after, p)));
            }
            if s.upper[p].get(before) != s.upper[p].get(after) {
                let there = if s.upper_kind[p].get(after) == 0 {
                    "none".into()
                } else {
                    format!("t{}", s.upper[p].get(after))
                };
                changes.push(format!("table {name}: {there}"));
            }
            if s.dead[p].get(before) != s.dead[p].get(after) {
                changes.push(format!("{name}: v{} is dead", s.dead[p].get(after) - 1));
            }
            if s.freed[p].get(before) != s.freed[p].get(after) {
                changes.push(format!("{name}: t{} is free", s.freed[p].get(after) - 1));
            }
        }
        for (k, o) in model.layout.cpus.iter().enumerate() {
            if o.cr3.get(before) != o.cr3.get(after) {
                changes.push(format!("cr3: {}", cr3_text(model, o.cr3.get(after))));
            }
            for (p, name) in names.iter().enumerate() {
                if text(p) {
                    let (x, y) = (o.tlb[p][0].get(before), o.tlb[p][0].get(after));
                    match (x, y) {
                        (x, y) if x == y => {}
                        (_, 0) => changes.push(format!("fetched{k}: -{name}")),
                        (_, y) => changes.push(format!("fetched{k}: {name}:{}", instruction(y))),
                    }
                    continue;
                }
                match (o.lines[p].get(before), o.lines[p].get(after)) {
                    (0, 1) => changes.push(format!("lines{k}: {name}")),
                    (1, 0) => changes.push(format!("lines{k}: -{name}")),
                    _ => {}
                }
                for (what, bits, v) in [("tlb", &o.tlb[p], 'v'), ("upper", &o.upper[p], 't')] {
                    for b in bits {
                        let (x, y) = (b.get(before), b.get(after));
                        if x != y && y == 0 {
                            changes.push(format!("{what}{k}: -{name}"));
                        } else if x != y {
                            changes.push(format!("{what}{k}: {name}:{v}{y}"));
                        }
                    }
                }
            }
            for (n, (var, b)) in model.code.vars.iter().zip(&o.vars).enumerate() {
                if b.get(before) != b.get(after) {
                    changes.push(format!("{}[{k}]={}", var.name, shown(model, n as u8, b.get(after))));
                }
            }
            if o.pending.get(after) > o.pending.get(before) {
                for slot in o.pending.get(before)..o.pending.get(after) {
                    changes.push(format!("buffer{k}: {}", store_text(model, k, after, slot as usize)));
                }
            }
            if let Some(p) = (o.fault.get(after) as usize).checked_sub(1)
                && o.fault.get(before) == 0
            {
                changes.push(format!("faults at {}: its column ends", names[p]));
            }
            if o.queued.get(after) > o.queued.get(before) {
                changes.push(format!("IPI to cpu {k}"));
            }
            if o.waits.get(after) < o.waits.get(before) {
                changes.push("ack".into());
            }
        }
        let freed = s.freed_mms.get(after) & !s.freed_mms.get(before);
        changes.extend(
            (0..model.layout.mms).filter(|mm| freed >> mm & 1 != 0).map(|mm| format!("mm {mm} is free")),
        );
        for (n, (var, b)) in model.code.vars.iter().zip(&s.vars).enumerate() {
            if b.get(before) != b.get(after) {
                changes.push(format!("{}={}", var.name, shown(model, n as u8, b.get(after))));
            }
        }
        for (n, (var, copies)) in model.code.vars.iter().zip(&s.mm_vars).enumerate() {
            for (mm, b) in copies.iter().enumerate().filter(|(_, b)| b.get(before) != b.get(after)) {
                changes.push(format!("{}[mm {mm}]={}", var.name, shown(model, n as u8, b.get(after))));
            }
        }
        for (mm, b) in s.masks.iter().enumerate().filter(|(_, b)| b.get(before) != b.get(after)) {
            changes.push(format!("mm_cpumask[mm {mm}]={:#b}", b.get(after)));
        }
    }
    let last = after.is_none();
    let visible = match (action, op) {
        (Action::Step, Some((_, op))) => {
            matches!(
                op,
                Op::Load { .. }
                    | Op::Rmw { .. }
                    | Op::Cas { .. }
                    | Op::Await { .. }
                    | Op::MovCr3 { .. }
                    | Op::Fence(_)
                    | Op::Invpcid { .. }
                    | Op::Invlpg(_)
                    | Op::Unless { c: Cond::Text(_), .. }
                    | Op::MovCr4Pge(_)
                    | Op::Promise(_)
                    | Op::Request(_)
            )
        }
        _ => true,
    };
    let _ = c;
    StepView { number: i + 1, cpu, what, source, shown: visible || last || !changes.is_empty(), changes }
}

/// What a patched instruction that decides a branch is to the CPU that runs it.
fn decided(model: &Model, s: &[u64], cpu: usize, pc: Pc) -> &'static str {
    let Op::Unless { c: Cond::Text(site), .. } = model.code.ops[usize::from(pc)] else { return "" };
    let Some([head, _]) = model.layout.sites[usize::from(site)] else { return "old" };
    let fetched = model.layout.cpus[cpu].tlb[head][0].get(s);
    let version = if fetched == 0 { model.layout.shared.version[head].get(s) } else { fetched };
    match (TEXT.is_whole(version), TEXT.is_new(version)) {
        (false, _) => "INT3",
        (true, true) => "new",
        (true, false) => "old",
    }
}

/// What a register of the topmost frame holds.
fn register(model: &Model, s: &[u64], cpu: usize, level: usize, i: Index) -> usize {
    let f = &model.layout.cpus[cpu].frames[level];
    let Some(at) = (f.at.get(s) as usize).checked_sub(1).map(|n| &f.locations[n]) else { return 0 };
    at.regs[..usize::from(at.live)]
        .iter()
        .find(|r| r.0 == i.reg().0)
        .map_or(0, |r| (f.area.get(s) >> r.1 & u64::from(r.2)) as usize)
}

/// What a load sees: memory, with this CPU's own buffered stores on top.
fn loaded(model: &Model, s: &[u64], cpu: usize, from: Place) -> u64 {
    let c = &model.layout.cpus[cpu];
    let level = (0..3).rev().find(|&l| c.frames[l].at.get(s) != 0).unwrap_or(0);
    let owner = match from.at {
        At::Shared => 0,
        At::Me => cpu,
        At::Cur => c.frames[level].cur.get(s) as usize,
        At::Mm(i) | At::Asid(i) => register(model, s, cpu, level, i),
    };
    let f = &model.code.fields[usize::from(from.field)];
    let var = usize::from(f.var);
    let none = Bits::default();
    let bits = match from.at {
        At::Shared => model.layout.shared.vars[var],
        At::Me | At::Cur => model.layout.cpus[owner].vars[var],
        At::Mm(_) => *model.layout.shared.mm_vars[var].get(owner).unwrap_or(&none),
        At::Asid(_) => *c.asid_vars[var].get(owner).unwrap_or(&none),
    };
    let mut word = bits.get(s);
    for slot in 0..c.pending.get(s) as usize {
        let e = c.stores[slot].get(s);
        let v = e & ((1 << c.value_bits) - 1);
        if let Target::Field { field, owner: o } = c.targets[(e >> c.value_bits) as usize] {
            let g = &model.code.fields[usize::from(field)];
            if usize::from(g.var) == var && usize::from(o) == owner {
                word = word & !g.mask() | v << g.shift & g.mask();
            }
        }
    }
    shown(model, f.var, (word & f.mask()) >> f.shift)
}

/// A variable's value for people: of a count its rank, without whose it is (SEMANTICS A8).
fn shown(model: &Model, var: u8, v: u64) -> u64 {
    match model.code.vars[usize::from(var)].holds {
        Holds::Count(_) => rank(v),
        Holds::Bits | Holds::Mm | Holds::Generation => v,
    }
}

/// A version of a part of the patched instruction, for people: `i1` at first, then `i2`, ...
fn instruction(version: u64) -> String {
    if TEXT.is_whole(version) { format!("i{}", version / TEXT.step) } else { "int3".into() }
}

fn pte(model: &Model, s: &[u64], p: usize) -> String {
    let sh = &model.layout.shared;
    let v = sh.version[p].get(s);
    match sh.kind[p].get(s) {
        0 => "none".into(),
        2 => format!("v{v}, less rights"),
        UNCACHED => format!("v{v}, uncached"),
        _ => format!("v{v}"),
    }
}

fn cr3_text(model: &Model, cr3: u64) -> String {
    let half = if cr3 & CR3_USER != 0 { "user" } else { "kernel" };
    let mut out = half.to_string();
    if model.layout.mms > 1 {
        out.push_str(&format!(" mm {}", model.mm(cr3)));
    }
    if model.layout.asids > 1 {
        out.push_str(&format!(" asid {}", model.asid(cr3)));
    }
    out
}

/// Break text into lines of at most `width` characters, at spaces where there are some.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut out = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let room = width.saturating_sub(line.chars().count() + usize::from(!line.is_empty()));
            if word.len() <= room {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.extend(&word);
                break;
            }
            if line.is_empty() {
                // A word longer than the lane: cut after a sign if there is one.
                let cut = (1..=width.min(word.len()))
                    .rev()
                    .find(|&i| "_[]=:/.".contains(word[i - 1]) && i > width / 2)
                    .unwrap_or(width);
                out.push(word.drain(..cut).collect());
            } else {
                out.push(std::mem::take(&mut line));
            }
        }
    }
    if !line.is_empty() || out.is_empty() {
        out.push(line);
    }
    out
}

impl Counterexample {
    /// Lanes and closing sentence, at most [`WIDTH`] columns.
    pub fn text(&self) -> String {
        let n = self.lanes.len();
        let number = 4;
        let changed = match n {
            1 | 2 => 24,
            3 => 20,
            _ => 16,
        };
        let lane = (WIDTH - number - changed - n) / n;
        let mut out = String::new();
        let mut row = |no: &str, cells: &[Vec<String>], what: &[String]| {
            let height = cells.iter().map(Vec::len).chain([what.len()]).max().unwrap_or(0);
            for i in 0..height {
                let mut line = format!("{:>3} ", if i == 0 { no } else { "" });
                for cell in cells {
                    line.push_str(&format!("{:<lane$} ", cell.get(i).map_or("", String::as_str)));
                }
                line.push_str(what.get(i).map_or("", String::as_str));
                out.push_str(line.trim_end());
                out.push('\n');
            }
        };
        let heads: Vec<Vec<String>> = self.lanes.iter().map(|l| wrap(l, lane)).collect();
        row("", &heads, &["changed".into()]);
        for s in self.steps.iter().filter(|s| s.shown) {
            let mut cells = vec![Vec::new(); n];
            cells[s.cpu] = wrap(&s.what, lane);
            let what: Vec<String> = s.changes.iter().flat_map(|c| wrap(c, changed)).collect();
            row(&s.number.to_string(), &cells, &what);
        }
        out.push_str(&format!("\nwhere (*.kernel: Linux {})\n", self.linux));
        let mut shown: Vec<(String, String)> = Vec::new();
        for s in self.steps.iter().filter(|s| s.shown) {
            let Some(source) = &s.source else { continue };
            match shown.last_mut() {
                Some((steps, place)) if place == source => steps.push_str(&format!(" {}", s.number)),
                _ => shown.push((s.number.to_string(), source.clone())),
            }
        }
        for (steps, place) in shown {
            let text = format!("{steps}  {place}");
            let mut lines = wrap(&text, WIDTH - 4).into_iter();
            out.push_str(&format!("  {}\n", lines.next().unwrap_or_default()));
            for l in lines {
                out.push_str(&format!("      {l}\n"));
            }
        }
        out.push('\n');
        for l in wrap(&self.closing, WIDTH) {
            out.push_str(&l);
            out.push('\n');
        }
        out
    }
}
