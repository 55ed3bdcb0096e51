//! What an assembled text must hold to be a question at all: each `promise` has its `request`, and nobody waits for
//! other CPUs with interrupts off.

use super::Result2;
use crate::kernel::program::{BREAKPOINT, Code, Op, Pages, Pc, Program, Span};
use crate::kernel::text::{Loc, PolicyError};

/// Refuses a `promise` that no `request` of its program leads to: it would promise nothing, and a check of it would
/// pass whatever the policy does.
pub(super) fn every_promise_is_requested(code: &Code) -> Result2<()> {
    for program in &code.programs {
        let asked = flow(code, program, 0, |op, asked| match op {
            Op::Request(pages) => asked | bit(pages),
            Op::Promise(pages) => asked & !bit(pages),
            _ => asked,
        });
        for (pc, asked) in (program.start..program.end).zip(asked) {
            let Op::Promise(pages) = code.ops[usize::from(pc)] else { continue };
            if asked.is_some_and(|asked| asked & bit(pages) == 0) {
                let line = &code.text[usize::from(pc)];
                let what = line.strip_prefix("promise ").unwrap_or("range");
                let message = format!(
                    "`{line}` promises nothing: no `request {what}` comes before it in `{}`; a request covers what was \
                     overwritten when it was made, and the same CPU promises it",
                    program.name
                );
                return Err(error(code, code.at[usize::from(pc)], message));
            }
        }
    }
    Ok(())
}

/// Programs that start with interrupts off, remote calls aside.
const IRQS_OFF: [&str; 13] = [
    "enter_user",
    "syscall",
    "syscall_compat",
    "sysenter_compat",
    "exception",
    "exception_espfix",
    "exception_bad_iret",
    "interrupt",
    "interrupt_kernel",
    "interrupt_idle",
    "nmi_user",
    "nmi",
    BREAKPOINT,
];

/// Refuses to wait for other CPUs with interrupts off on the way into the kernel, out of it, or in a remote call: two
/// CPUs there wait for each other for ever. `smp_call_function_many_cond` warns of it. A program of one's own, or a
/// column of a litmus test, may: there the deadlock is what is asked about.
pub(super) fn nobody_waits_with_interrupts_off(code: &Code, waits: &[(Pc, Span)]) -> Result2<()> {
    let handlers: Vec<_> = code
        .ops
        .iter()
        .filter_map(|op| match op {
            Op::Ipi { run, .. } | Op::CallLater(run) => Some(run.0),
            _ => None,
        })
        .collect();
    for (i, program) in code.programs.iter().enumerate() {
        if !IRQS_OFF.contains(&program.name.as_str()) && !handlers.contains(&(i as u8)) {
            continue;
        }
        // Bit 0: reached with interrupts off; bit 1: with interrupts on.
        let above = ["nmi", "interrupt_", BREAKPOINT];
        let level = !above.iter().any(|above| program.name.starts_with(above));
        let irqs = flow(code, program, 1, |op, irqs| match op {
            Op::Irq(on) if level => {
                if on {
                    2
                } else {
                    1
                }
            }
            _ => irqs,
        });
        for (pc, irqs) in (program.start..program.end).zip(irqs) {
            if code.ops[usize::from(pc)] == Op::AwaitAcks && irqs.is_some_and(|irqs| irqs & 1 != 0) {
                let message = format!(
                    "`{}` waits here for other CPUs with interrupts off: two CPUs that do wait for each other for ever",
                    program.name
                );
                let used_at = waits.iter().find(|w| w.0 == pc).map_or(code.at[usize::from(pc)], |w| w.1);
                return Err(error(code, used_at, message));
            }
        }
    }
    Ok(())
}

fn bit(pages: Pages) -> u64 {
    match pages {
        Pages::Range => 1,
        Pages::Text(site, part) => 2 << (2 * site + part as u8),
        Pages::One(page) => 256 << page,
    }
}

pub(super) fn error(code: &Code, span: Span, message: String) -> PolicyError {
    let file = code.files[usize::from(span.file)].clone();
    PolicyError { file, at: Loc { line: span.line, col: span.col }, message }
}

/// The union over all ways to each op of what `change` makes of `start` on them; none where no way leads.
pub(super) fn flow(
    code: &Code,
    program: &Program,
    start: u64,
    change: impl Fn(Op, u64) -> u64,
) -> Vec<Option<u64>> {
    let at = |pc: Pc| usize::from(pc - program.start);
    let mut found = vec![None; at(program.end)];
    let mut todo = vec![(program.start, start)];
    while let Some((pc, bits)) = todo.pop() {
        let Some(slot) = found.get_mut(at(pc)) else { continue };
        let new = slot.unwrap_or(0) | bits;
        if *slot == Some(new) {
            continue;
        }
        *slot = Some(new);
        let op = code.ops[usize::from(pc)];
        let after = change(op, new);
        match op {
            Op::Return => {}
            Op::Jump(to) => todo.push((to, after)),
            Op::Unless { to, .. } | Op::Each { done: to, .. } => todo.extend([(to, after), (pc + 1, after)]),
            _ => todo.push((pc + 1, after)),
        }
    }
    found
}
