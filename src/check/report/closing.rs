//! The sentence that ends a counterexample: what went wrong, and by which rule.

use super::{instruction, next_op, page_names, pte};
use crate::check::machine::Model;
use crate::check::model::{Action, Move};
use crate::check::schedule::Replay;
use crate::kernel::program::{Cond, Op};
use crate::kernel::step::Violation;

/// Say what the last move of a run breaks.
pub(super) fn closing(model: &Model, replay: &Replay, moves: &[Move], rule: Violation) -> String {
    let (cpu, action) = moves.last().copied().unwrap_or((0, Action::Step));
    let cpu = usize::from(cpu);
    let s = &replay.states[replay.states.len() - 1];
    let at = match (action, next_op(model, s, cpu)) {
        (Action::Step | Action::Pick(_) | Action::Take(_), Some((pc, _))) => {
            format!(" at {}", model.code.source(pc))
        }
        _ => String::new(),
    };
    let sh = &model.layout.shared;
    let c = &model.layout.cpus[cpu];
    let cr3 = c.cr3.get(s);
    let stale = model.layout.pages.iter().enumerate().find_map(|(p, page)| {
        let slot = model.slot(page, cr3)?;
        let cached = c.tlb[p][slot].get(s);
        let used = if cached == 0 { sh.version[p].get(s) } else { cached };
        (used < sh.dead[p].get(s)).then(|| (p, page.name.clone(), used, cached != 0))
    });
    match (rule, stale) {
        (Violation::StaleAccessReused | Violation::StaleAccessNotReused, Some((p, name, v, cached))) => {
            let how = if cached { "its TLB still holds" } else { "the page table still holds" };
            let now = match (rule, model.layout.pages[p].kind) {
                (Violation::StaleAccessNotReused, _) => "the flush that covered it had returned".to_string(),
                _ if model.is_typed(p) => format!("its type or rights changed with {}", pte(model, s, p)),
                (_, kind) if kind.is_lasting() => format!("its rights changed with {}", pte(model, s, p)),
                _ => format!("the address has been handed on and is {} now", pte(model, s, p)),
            };
            format!("cpu {cpu} uses {name} through v{v}{at}: {how} it, but {now}. {} (S5).", rule.name())
        }
        (Violation::StaleText, _) => stale_text(model, s, cpu, &at),
        (Violation::FreedTableWalk, _) => format!(
            "cpu {cpu} walks through a page-table page that was freed{at}: what it reads there is anyone's data. {} (S6).",
            rule.name()
        ),
        (Violation::FreedTableRead, _) => format!(
            "cpu {cpu} walks in software, and reads a page-table page that was freed{at}: what it finds there is anyone's \
             data. {} (S12).",
            rule.name()
        ),
        (Violation::StaleLine, _) => {
            let page = match action {
                Action::WriteBack(p) => page_names(model)[usize::from(p)],
                _ => "the page",
            };
            format!(
                "cpu {cpu} still holds a line of {page}, and {page} was promised to be uncached: the line is written back \
                 over what a device has written since, or read in its place. {} (S14).",
                rule.name()
            )
        }
        (Violation::UnmappedAccess, _) => format!(
            "cpu {cpu} touches memory that the loaded table does not map{at}, and nothing handles the fault. {} (S8).",
            rule.name()
        ),
        (Violation::WrongGsAccess, _) => format!(
            "cpu {cpu} makes a %gs-relative access while GSBASE is the user's{at}. {} (S8).",
            rule.name()
        ),
        (Violation::UnusableStack, _) => {
            let what = match action {
                Action::Irq | Action::Device => "an interrupt",
                _ => "the INT3 that it runs",
            };
            format!(
                "cpu {cpu} takes {what}{at} where RSP holds no stack: there is none of its own for the frame, and the next \
                 exception is a double fault. {} (S13).",
                rule.name()
            )
        }
        (Violation::WrongAddressSpace, _) => {
            format!(
                "cpu {cpu} uses user memory through the translation of another mm{at}. {} (S9).",
                rule.name()
            )
        }
        (Violation::FreedMm, _) => {
            let how = match (action, next_op(model, s, cpu)) {
                (Action::Step | Action::Pick(_), Some((_, Op::MovCr3 { .. }))) => "loads",
                _ => "walks",
            };
            format!(
                "cpu {cpu} {how} the page tables of an mm that was freed{at}: they are anyone's memory. {} (S9).",
                rule.name()
            )
        }
        (Violation::Deadlock | Violation::Livelock, _) => {
            let stuck: Vec<String> = (0..model.layout.cpus.len())
                .filter_map(|k| {
                    next_op(model, s, k)
                        .filter(|&(pc, _)| rule == Violation::Deadlock || model.is_in_loop(pc))
                        .map(|(pc, _)| format!("cpu {k} at `{}`", model.code.text[usize::from(pc)]))
                })
                .collect();
            let stuck = stuck.join(" and ");
            let how = match rule {
                Violation::Deadlock => format!("nothing can happen any more: {stuck} waits for ever"),
                _ => format!("from here on no run ends: {stuck} goes round for ever"),
            };
            format!("{how}. {} (S11).", rule.name())
        }
        (Violation::Invariant, _) => "this is the state the test asks about.".into(),
        (rule, _) => format!("cpu {cpu}{at}: {}.", rule.name()),
    }
}

/// What is wrong with the instruction that a CPU runs.
fn stale_text(model: &Model, s: &[u64], cpu: usize, at: &str) -> String {
    let site = match next_op(model, s, cpu) {
        Some((_, Op::Unless { c: Cond::Text(site), .. })) => usize::from(site),
        _ => 0,
    };
    let parts = model.layout.sites[site].expect("no stale_text without text");
    let sh = &model.layout.shared;
    let fetched = parts.map(|p| model.layout.cpus[cpu].tlb[p][0].get(s));
    let [head, tail] = [0, 1].map(|i| if fetched[i] == 0 { sh.version[parts[i]].get(s) } else { fetched[i] });
    let what = if head < sh.dead[parts[0]].get(s) {
        format!("the first byte of {}, which it fetched before a sync that made it dead", instruction(head))
    } else if tail < sh.dead[parts[1]].get(s) {
        format!(
            "the first byte of {} with the tail of {}, which it fetched before a sync that made it dead",
            instruction(head),
            instruction(tail)
        )
    } else {
        format!(
            "the first byte of {} with the tail of {}: an instruction that nobody wrote",
            instruction(head),
            instruction(tail)
        )
    };
    format!("cpu {cpu} runs {what}{at}. stale_text (S7).")
}
