//! Small edits of a policy: what happens without each op ([`necessary`]), and which edits make a policy pass
//! ([`repair`]).
//!
//! An edit works on the parsed text, so its result is a policy like any other: it prints, it has sources, it is
//! checked by the same search.

use super::scope::{Assume, CheckError, Scope};
use super::{Counts, Question, SECOND, Status, check_confirmed};
use crate::kernel::policy::{bases, initiators, kernel, kernels, load_with, with_question};
use crate::kernel::program::{Code, Copies, Features};
use crate::kernel::text::{Expr, File, Loc, Section, Stmt, StmtKind, print, statement, statements};
use crate::kernel::{program::Rmw, step::Violation, text::Value};
use crate::order;

/// What is asked of every edited policy.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Each question; one at least.
    pub asks: Vec<Ask>,
    /// Bytes one search may hold.
    pub memory: usize,
}

/// One question of those.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What the first CPU runs, if the policy is to be prepared for it (`policy::with_question`).
    pub initiator: String,
    /// Machine.
    pub features: Features,
    /// Scope.
    pub scope: Scope,
    /// Assumptions, under each set of which it must hold; one that is implied by an earlier one is not searched.
    pub assume: Vec<Assume>,
}

/// What the checker says of one edited policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Outcome under the worst assumptions.
    pub status: Status,
    /// The broken rule.
    pub rule: Option<Violation>,
    /// States of all searches.
    pub states: u64,
}

impl Bounds {
    /// Check one policy; `None` if it does not assemble.
    pub fn judge(
        &self,
        file: &File,
        go_on: &mut dyn FnMut(&Counts) -> bool,
    ) -> Result<Option<Judged>, CheckError> {
        let mut out = Judged { status: Status::Verified, rule: None, states: 0 };
        for ask in &self.asks {
            let roles = ask.scope.roles.iter();
            let wants: Vec<&str> = roles.flat_map(|r| [r.first.as_str(), r.again.as_str()]).collect();
            let asked = with_question(file, &ask.initiator);
            let Ok(code) = load_with(&asked, &wants, ask.features) else { return Ok(None) };
            if !self.holds(&code, ask, &mut out, go_on)? {
                break;
            }
        }
        Ok(Some(out))
    }

    /// Does it hold under every set of assumptions?
    fn holds(
        &self,
        code: &Code,
        ask: &Ask,
        out: &mut Judged,
        go_on: &mut dyn FnMut(&Counts) -> bool,
    ) -> Result<bool, CheckError> {
        let mut held: Vec<Assume> = Vec::new();
        for &assume in &ask.assume {
            if held.iter().any(|harsher| harsher.implies(&assume)) {
                continue;
            }
            let question = Question {
                code,
                features: ask.features,
                scope: ask.scope.clone(),
                assume,
                memory: self.memory,
                plain: false,
                trace: false,
                threads: 0,
            };
            // What a reduction lets pass by mistake must not be said to be unneeded, or to repair anything.
            let answer = check_confirmed(&question, 8 * SECOND, go_on)?;
            out.states += answer.counts.states;
            if answer.status() != Status::Verified {
                out.status = answer.status();
                out.rule = answer.violation().map(|v| v.0);
                return Ok(false);
            }
            held.push(assume);
        }
        Ok(true)
    }
}

/// One op, or one order, of a policy and what becomes of the policy without it.
#[derive(Clone, Debug)]
pub struct Need {
    /// Section.
    pub section: String,
    /// File and line.
    pub place: String,
    /// What is taken away.
    pub what: String,
    /// What supplies it in today's source, where that is known.
    pub supplied_by: &'static str,
    /// The verdict without it.
    pub judged: Judged,
}

/// Sections of the kernel whose ops a policy relies on.
const KERNEL_SECTIONS: [&str; 9] = [
    "purge",
    "flush_kernel_range",
    "flush_kernel_now",
    "flush_here",
    "flush_all_here",
    "flush_handler",
    "to_kernel",
    "to_user",
    "paranoid_save",
];

/// The same for a policy that defers syncs of text.
const TEXT_SECTIONS: [&str; 6] =
    ["text_poke", "text_sync", "text_sync_now", "sync_handler", "to_kernel", "to_user"];

/// The sections that count for a policy, its own first, each with the name of the file it stands in.
fn sections(file: &File) -> Vec<(String, Section)> {
    let mut chain = vec![file.clone()];
    chain.extend(bases(file));
    let mut out: Vec<(String, Section)> = Vec::new();
    let mut add = |file: &File, s: &Section| {
        if out.iter().all(|(_, o)| o.name != s.name) {
            out.push((file.file.clone(), s.clone()));
        }
    };
    for file in &chain {
        file.sections.iter().for_each(|s| add(file, s));
    }
    let counts: Vec<&str> = initiators(file)
        .into_iter()
        .flat_map(|i| if i == "text_poke" { &TEXT_SECTIONS[..] } else { &KERNEL_SECTIONS[..] })
        .copied()
        .collect();
    for kernel in newer(file).into_iter().chain([kernel()]) {
        kernel.sections.iter().filter(|s| counts.contains(&s.name.as_str())).for_each(|s| add(kernel, s));
    }
    out
}

/// What the version of Linux that it stands on has in place of the kernel's sections.
fn newer(file: &File) -> Option<&'static File> {
    kernels(file).ok().and_then(|k| k.newer)
}

/// A policy with one section replaced.
fn with(file: &File, section: &Section, body: Vec<Stmt>) -> File {
    let mut out = file.clone();
    out.sections.retain(|s| s.name != section.name);
    out.sections.push(Section { body, ..section.clone() });
    out
}

/// Where a statement is: indices from the section's body inwards; the second of a pair says which block of an
/// `if` it is in.
type Path = Vec<(usize, u8)>;

fn walk(body: &[Stmt], at: &mut Path, f: &mut dyn FnMut(&Path, &Stmt)) {
    for (i, s) in body.iter().enumerate() {
        at.push((i, 0));
        f(at, s);
        match &s.kind {
            StmtKind::If(_, a, b) => {
                walk(a, at, f);
                at.last_mut().expect("pushed").1 = 1;
                walk(b, at, f);
            }
            StmtKind::While(_, b) | StmtKind::Loop(b) | StmtKind::Each(_, b) => walk(b, at, f),
            _ => {}
        }
        at.pop();
    }
}

/// The block a path's last index counts in.
fn block<'a>(body: &'a mut Vec<Stmt>, path: &[(usize, u8)]) -> &'a mut Vec<Stmt> {
    match path {
        [] | [_] => body,
        [(i, which), rest @ ..] => match &mut body[*i].kind {
            StmtKind::If(_, a, b) => block(if *which == 0 { a } else { b }, rest),
            StmtKind::While(_, b) | StmtKind::Loop(b) | StmtKind::Each(_, b) => block(b, rest),
            _ => unreachable!("only blocks have statements inside"),
        },
    }
}

/// Statements that say what is asked, not what is done.
fn is_question(s: &Stmt) -> bool {
    match &s.kind {
        StmtKind::Plain(w) => {
            ["request", "promise", "touch", "body", "read", "write", "run"].contains(&w[0].as_str())
        }
        _ => false,
    }
}

/// What supplies an order today (SEMANTICS L3).
fn supplier(s: &Stmt) -> &'static str {
    match &s.kind {
        StmtKind::Plain(w) if w.last().is_some_and(|x| x == "locked") => {
            "XCHG in ptep_get_and_clear (vunmap_pte_range); then the purge mutex and the lazy-list lock"
        }
        StmtKind::Use(w) if w == "serialize" => {
            "in text_poke the CR3 write that leaves the poking mm; in a sync iret_to_self or CPUID (sync_core)"
        }
        StmtKind::Plain(w) if w[0] == "await" => "csd_lock_wait in smp_call_function_many_cond",
        StmtKind::Plain(w) if w[0] == "mov" && w.iter().any(|x| x == "cr3") => {
            "MOV CR3, a serialising instruction"
        }
        StmtKind::Ipi(..) => "smp_call_function_many_cond; the llist_add is LOCKed",
        StmtKind::Locked(_) | StmtKind::Let(_, Expr::Rmw(..) | Expr::Cas(..)) => "a LOCKed instruction",
        _ => "",
    }
}

/// Ways to take a statement away or weaken it.
fn weaker(s: &Stmt) -> Vec<(String, Option<StmtKind>)> {
    let text = statement(&s.kind);
    let mut out = Vec::new();
    match &s.kind {
        StmtKind::Plain(w) if w.last().is_some_and(|x| x == "locked") => {
            let plain = w[..w.len() - 1].to_vec();
            out.push((format!("`{text}` as a plain store"), Some(StmtKind::Plain(plain))));
        }
        StmtKind::Locked(Expr::Rmw(Rmw::Xchg, n, v)) => {
            out.push((format!("`{text}` as a plain store"), Some(StmtKind::Store(n.clone(), v.clone()))));
            out.push((format!("no `{text}`"), None));
        }
        StmtKind::Let(to, Expr::Rmw(Rmw::Xchg, n, _)) => {
            let load = StmtKind::Let(to.clone(), Expr::Value(Value::Name(n.clone())));
            out.push((format!("`{text}` as a plain load"), Some(load)));
        }
        StmtKind::Use(w) if w == "fence" => {
            out.push(("no `fence`".into(), None));
            out.push(("`lfence` instead of `fence`".into(), Some(StmtKind::Use("lfence".into()))));
        }
        StmtKind::Let(..) | StmtKind::Break | StmtKind::While(..) | StmtKind::Loop(_) => {}
        StmtKind::If(..) | StmtKind::Each(..) => {}
        _ => out.push((format!("no `{text}`"), None)),
    }
    out
}

/// A policy with one op or order taken away or weakened.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// Section.
    pub section: String,
    /// File and line.
    pub place: String,
    /// What is taken away.
    pub what: String,
    /// What supplies it today.
    pub supplied_by: &'static str,
    /// The policy without it; it may not assemble.
    pub file: File,
}

/// Every policy that is one small step weaker.
pub fn mutants(file: &File) -> Vec<Mutant> {
    let mut out = Vec::new();
    for (source, section) in sections(file) {
        let mut places: Vec<(Path, Stmt)> = Vec::new();
        walk(&section.body, &mut Vec::new(), &mut |p, s| places.push((p.clone(), s.clone())));
        for (path, stmt) in places.iter().filter(|(_, s)| !is_question(s)) {
            let i = path[path.len() - 1].0;
            let mut add = |what: String, supplied_by, body| {
                let file = with(file, &section, body);
                let place = format!("{source}:{}", stmt.at.line);
                out.push(Mutant { section: section.name.clone(), place, what, supplied_by, file });
            };
            for (what, kind) in weaker(stmt) {
                let mut body = section.body.clone();
                let inside = block(&mut body, path);
                match kind {
                    Some(kind) => inside[i].kind = kind,
                    None if inside.len() == 1 => inside[i].kind = StmtKind::Use("lfence".into()),
                    None => drop(inside.remove(i)),
                }
                add(what, supplier(stmt), body);
            }
            let mut body = section.body.clone();
            let inside = block(&mut body, path);
            if i + 1 < inside.len() && swaps(&inside[i], &inside[i + 1]) {
                let (a, b) = (statement(&inside[i].kind), statement(&inside[i + 1].kind));
                inside.swap(i, i + 1);
                add(format!("the order `{a}` before `{b}`"), "program order", body);
            }
        }
    }
    out
}

/// Without each op in turn: is the policy still verified?
pub fn necessary(
    file: &File,
    bounds: &Bounds,
    go_on: &mut dyn FnMut(&Counts) -> bool,
) -> Result<Vec<Need>, CheckError> {
    // What changes nothing at all is not reached within these bounds.
    let whole = bounds.judge(file, go_on)?;
    let mut out = Vec::new();
    for m in mutants(file) {
        if let Some(judged) = bounds.judge(&m.file, go_on)?.filter(|j| Some(j) != whole.as_ref()) {
            let Mutant { section, place, what, supplied_by, .. } = m;
            out.push(Need { section, place, what, supplied_by, judged });
        }
    }
    Ok(out)
}

fn swaps(a: &Stmt, b: &Stmt) -> bool {
    let free = |s: &Stmt| {
        !is_question(s) && !matches!(s.kind, StmtKind::Let(..) | StmtKind::Break | StmtKind::While(..))
    };
    free(a) && free(b) && a.kind != b.kind
}

/// A set of edits that was tried.
#[derive(Clone, Debug)]
pub struct Repair {
    /// What was done, in words.
    pub edits: Vec<String>,
    /// The policy it makes.
    pub text: String,
    /// Its verdict.
    pub judged: Judged,
}

/// One edit: its words and the edited policy.
type Edited = (String, File);

/// Every single edit of a policy.
fn single_edits(file: &File, nmis: bool) -> Vec<Edited> {
    let mut out: Vec<Edited> = Vec::new();
    let entry = ["purge", "flush_here", "flush_all_here", "flush_handler", "flush_kernel_now"];
    let own: Vec<Section> = sections(file)
        .into_iter()
        .map(|(_, s)| s)
        .filter(|s| !entry.contains(&s.name.as_str()) && !s.name.starts_with("cpu ") && s.name != "nmi")
        .collect();
    for section in &own {
        let mut places: Vec<(Path, Stmt)> = Vec::new();
        walk(&section.body, &mut Vec::new(), &mut |p, s| places.push((p.clone(), s.clone())));
        for (path, stmt) in &places {
            let i = path[path.len() - 1].0;
            let text = statement(&stmt.kind);
            // Move a store to another place of its block.
            if matches!(stmt.kind, StmtKind::Store(..) | StmtKind::Locked(_)) {
                let len = block(&mut section.body.clone(), path).len();
                for to in (0..len).filter(|&to| to != i) {
                    let mut body = section.body.clone();
                    let inside = block(&mut body, path);
                    let moved = inside.remove(i);
                    inside.insert(to, moved);
                    let beside = if to == 0 {
                        "to the top of its block".to_string()
                    } else {
                        format!("behind `{}`", statement(&inside[to - 1].kind))
                    };
                    out.push((
                        format!("{}: move `{text}` {beside}", section.name),
                        with(file, section, body),
                    ));
                }
            }
            // Insert an order or a flush before it.
            for new in ["fence", "flush_all_here"] {
                if statement(&stmt.kind) == new {
                    continue;
                }
                let mut body = section.body.clone();
                block(&mut body, path).insert(i, line(new));
                out.push((
                    format!("{}: insert `{new}` before `{text}`", section.name),
                    with(file, section, body),
                ));
            }
            // Atomic for plain.
            if let StmtKind::Store(n, v) = &stmt.kind {
                let mut body = section.body.clone();
                let kind = StmtKind::Locked(Expr::Rmw(Rmw::Xchg, n.clone(), v.clone()));
                block(&mut body, path)[i].kind = kind;
                out.push((format!("{}: `{text}` as XCHG", section.name), with(file, section, body)));
            }
        }
    }
    if nmis {
        out.extend(nmi_edits(file));
    }
    out
}

fn line(text: &str) -> Stmt {
    Stmt { at: Loc::default(), place: None, kind: StmtKind::Use(text.into()) }
}

/// Rules for NMIs that come from kernel mode: flush; save and restore the policy's variables; announce.
fn nmi_edits(file: &File) -> Vec<Edited> {
    let base = kernel();
    let Some(path) = file.section("nmi").or_else(|| base.section("nmi")).cloned() else { return Vec::new() };
    let gs = path.body.iter().position(|s| matches!(s.kind, StmtKind::MovGs(None)));
    let end = path.body.iter().position(|s| matches!(&s.kind, StmtKind::Use(w) if w == "paranoid_restore"));
    let (Some(gs), Some(end)) = (gs, end) else { return Vec::new() };
    let mut vars: Vec<(String, u16)> = Vec::new();
    for f in [file.clone()].into_iter().chain(bases(file)) {
        vars.extend(f.vars.iter().filter(|v| v.copies == Copies::Cpu).map(|v| (v.name.clone(), v.init)));
    }
    order::natural(&mut vars);
    vars.dedup();
    let mut out = Vec::new();
    let mut add = |what: String, first: &str, last: &str| {
        // The exit macro may write the variable itself, and may leave a table that does not map it: both sides.
        let sides: &[(usize, &str)] = if last.is_empty() {
            &[(end, "")]
        } else {
            &[(end, " before the exit macro"), (end + 1, " after it")]
        };
        for &(at, side) in sides {
            let mut body = path.body.clone();
            if let (Ok(first), Ok(last)) = (statements("repair", first), statements("repair", last)) {
                body.splice(at..at, last);
                body.splice(gs + 1..=gs, first);
                out.push((format!("nmi: {what}{side}"), with(file, &path, body)));
            }
        }
    };
    add("flush after the GSBASE switch".into(), "flush_all_here", "");
    for (v, init) in &vars {
        add(format!("save `{v}` and put it back"), &format!("let found = {v}"), &format!("{v} = found"));
        add(
            format!("set `{v}` to {init} (in the kernel), fence, flush; put back what was found"),
            &format!("let found = {v}\n{v} = {init}\nfence\nflush_all_here"),
            &format!("{v} = found"),
        );
    }
    out
}

/// The smallest sets of edits that make a policy pass, up to `most` edits each; stops at the first size that has
/// one.
pub fn repair(
    file: &File,
    bounds: &Bounds,
    most: usize,
    go_on: &mut dyn FnMut(&Counts) -> bool,
) -> Result<Vec<Repair>, CheckError> {
    let nmis = bounds.asks.iter().any(|ask| ask.scope.nmis > 0 || ask.scope.mces > 0);
    let mut frontier: Vec<(Vec<String>, File)> = vec![(Vec::new(), file.clone())];
    let mut seen = std::collections::HashSet::from([print(file)]);
    for _ in 0..most {
        let mut next = Vec::new();
        let mut found = Vec::new();
        for (edits, base) in &frontier {
            for (what, edited) in single_edits(base, nmis) {
                let text = print(&edited);
                if !seen.insert(text.clone()) {
                    continue;
                }
                let Some(judged) = bounds.judge(&edited, go_on)? else { continue };
                let mut edits = edits.clone();
                edits.push(what);
                if judged.status == Status::Verified {
                    found.push(Repair { edits, text, judged });
                } else {
                    next.push((edits, edited));
                }
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
        frontier = next;
    }
    Ok(Vec::new())
}

#[cfg(test)]
mod tests;
