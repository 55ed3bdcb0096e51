//! What a policy must be asked: about everything that runs a section which it, or a policy it is based on, replaces.

use std::collections::BTreeSet;

use super::{bases, contexts, kernel, kernels};
use crate::kernel::text::{File, Section, Stmt, StmtKind, parse};
use crate::order;

/// A question: a program that relies on flushes or syncs, and what runs beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The program of the CPU that relies on them.
    pub initiator: &'static str,
    /// What it is about, for people.
    pub about: &'static str,
    /// What the other CPUs run, where they do not enter from user mode.
    pub beside: Option<&'static str>,
}

const fn asked(initiator: &'static str, about: &'static str, beside: Option<&'static str>) -> Asked {
    Asked { initiator, about, beside }
}

/// Every question there is. Where one has two companions they are questions of their own.
const ALL: [Asked; 11] = [
    asked("purge", "purges of vmalloc", None),
    asked("vunmap", "immediate unmaps", None),
    asked("table_free", "frees of page tables", None),
    asked("set_memory", "rights of the direct map", None),
    asked("text_poke", "patched text", None),
    asked("text_breakpoint", "breakpoints in text", None),
    asked("flush_all_asked", "flushes of everything", None),
    asked("flush_mm", "flushes of user memory", Some("run_process")),
    asked("flush_mm", "flushes of user memory, lazy CPUs", Some("run_process_lazily")),
    asked("flush_mm_tables", "frees of user page tables", Some("run_process")),
    asked("flush_mm_tables", "frees of user page tables, lazy CPUs", Some("run_process_lazily")),
];

/// The initiators of all questions.
pub fn initiators_asked() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|asked| asked.initiator)
}

/// The program that is run where another one is asked about: one that also does what its caller relies on it for.
pub fn asked_as(program: &str) -> &str {
    match program {
        "vunmap" => "vunmap_then_map",
        "flush_mm_tables" => "flush_mm_tables_then_free",
        other => other,
    }
}

/// The policy and what it is based on, nearest first.
pub fn chain(file: &File) -> Vec<File> {
    let mut chain = vec![file.clone()];
    chain.extend(bases(file));
    chain
}

/// What a policy must be asked. One that replaces nothing of what is asked about is asked about purges.
pub fn questions(file: &File) -> Vec<Asked> {
    let chain = chain(file);
    let own: BTreeSet<&str> = order::gather(chain.iter().flat_map(|f| &f.sections).map(|s| s.name.as_str()));
    let runs_own = |roots: &[&str]| used_by(&chain, roots).iter().any(|name| own.contains(name.as_str()));
    let replaces = |names: &[&str]| names.iter().any(|n| own.contains(n));
    let mut out: Vec<Asked> = Vec::new();
    for asked in ALL {
        let ask = match asked.initiator {
            // With the kernel's own programs they have the same ops as `purge`, or are where `text_poke` begins.
            "vunmap" if !replaces(&["purge", "vunmap"]) => false,
            "text_breakpoint" if !replaces(&["text_poke", "text_breakpoint"]) => false,
            "flush_all_asked" => replaces(&["flush_all", "flush_all_handler"]),
            "flush_mm" | "flush_mm_tables" => {
                runs_own(&[asked_as(asked.initiator), "switch_mm", "enter_lazy"])
            }
            program => runs_own(&[program]),
        };
        if ask {
            out.push(asked);
        }
    }
    if out.is_empty() {
        out.push(ALL[0].clone());
    }
    // An idle CPU comes into the kernel its own way.
    if runs_own(&["idle", "interrupt_idle"]) {
        let idle: Vec<Asked> = out
            .iter()
            .filter(|a| a.beside.is_none())
            .map(|a| Asked { beside: Some("idle"), ..a.clone() })
            .collect();
        out.extend(idle);
    }
    out
}

/// Sections of the policy itself that no question and no path into the kernel runs: a check says nothing of them.
pub fn not_asked(file: &File) -> Vec<String> {
    let chain = chain(file);
    let entries = crate::kernel::assemble::ENTRIES.iter().map(|e| e.0);
    let paths = entries.filter(|e| !["sync_table_free", "flush_all"].contains(e));
    let mut asked: BTreeSet<String> = used_by(&chain, &paths.collect::<Vec<_>>());
    for question in questions(file) {
        let beside = question.beside.unwrap_or(question.initiator);
        let question_itself = chain.iter().map(|f| with_question(f, question.initiator)).collect::<Vec<_>>();
        asked.extend(used_by(&question_itself, &[question.initiator, asked_as(question.initiator), beside]));
        if question.initiator == "flush_all_asked" {
            asked.extend(used_by(&chain, &["flush_all"]));
        }
    }
    file.sections.iter().map(|s| s.name.clone()).filter(|n| !asked.contains(n)).collect()
}

/// Names of the sections that run when one of `roots` does, remote calls included.
fn used_by(chain: &[File], roots: &[&str]) -> BTreeSet<String> {
    // A version that there is not is an error where the policy is assembled.
    let kernels: Vec<&File> =
        kernels(&chain[0]).map_or_else(|_| vec![contexts(), kernel()], |k| k.files().collect());
    let find = |name: &str| -> Option<&Section> {
        chain.iter().chain(kernels.iter().copied()).find_map(|f| f.section(name))
    };
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut todo: Vec<String> = roots.iter().map(|r| (*r).to_string()).collect();
    while let Some(name) = todo.pop() {
        if let Some(section) = find(&name)
            && seen.insert(name)
        {
            names(&section.body, &mut todo);
        }
    }
    seen
}

fn names(body: &[Stmt], out: &mut Vec<String>) {
    for s in body {
        match &s.kind {
            StmtKind::Use(n) | StmtKind::Ipi(_, n) | StmtKind::CallLater(n) => out.push(n.clone()),
            StmtKind::If(_, a, b) => {
                names(a, out);
                names(b, out);
            }
            StmtKind::While(_, b) | StmtKind::Loop(b) | StmtKind::Each(_, b) => names(b, out),
            _ => {}
        }
    }
}

/// The policy with what a question needs beside it: the page it is about, and the programs of its other CPUs.
pub fn with_question(file: &File, initiator: &str) -> File {
    let text = match initiator {
        "set_memory" => "  page dm : direct map\n".to_string(),
        "flush_all_asked" => FLUSH_ALL.to_string(),
        "flush_mm" | "flush_mm_tables" => format!("  page u : user of 2\n{PROCESS}"),
        _ => return file.clone(),
    };
    let more = parse("question.kernel", &format!("policy question\n{text}")).expect("a fixed text");
    let mut out = file.clone();
    // A policy with pages of its own is asked about those.
    let pages: Vec<_> = chain(file).iter().flat_map(|f| f.pages.clone()).collect();
    if pages.is_empty() {
        out.pages = more.pages;
    }
    let has = |name: &str| chain(file).iter().any(|f| f.section(name).is_some());
    let missing: Vec<Section> = more.sections.into_iter().filter(|s| !has(&s.name)).collect();
    out.sections.extend(missing);
    out
}

const FLUSH_ALL: &str = "
flush_all_asked
  pte range = none locked
  request range
  flush_all
  promise range
  pte range = fresh
";

/// What runs beside a question about user ranges, and a policy may replace.
pub const COMPANIONS: [&str; 3] = ["run_process", "run_process_lazily", "process_runs"];

/// A process: it is switched to, uses its memory from the kernel and from user mode, and leaves for a kernel thread,
/// or lends it what is loaded.
const PROCESS: &str = "
run_process
  let next = 2
  cli
  switch_mm_irqs_off
  sti
  process_runs
  let next = 0
  cli
  switch_mm_irqs_off
  sti

run_process_lazily
  let next = 2
  cli
  switch_mm_irqs_off
  sti
  process_runs
  enter_lazy

process_runs
  read u
  cli
  to_user
  read u
  to_kernel
  sti
";
