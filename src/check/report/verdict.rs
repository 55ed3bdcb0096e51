//! The sentence of a verdict, and its witnesses.

use crate::check::machine::{Model, Seen};
use crate::check::scope::{Rest, Scope, UNBOUNDED, USER_ENTRIES};
use crate::check::{Answer, Cut, End};
use crate::kernel::program::{Op, PageKind};
use crate::kernel::world::World;

/// What a pass within this scope is called (SEMANTICS "Words"): what has no bound is named.
pub fn verified(scope: &Scope) -> String {
    let any = |rest: Rest| {
        scope
            .roles
            .iter()
            .any(|r| r.rest == rest && r.left == UNBOUNDED && !(rest == Rest::Kernel && r.is_beside()))
    };
    let free = match (any(Rest::User), any(Rest::Kernel)) {
        (false, false) => return "verified (bounded)".into(),
        (true, false) => "entries",
        (false, true) => "flush rounds",
        (true, true) => "entries and flush rounds",
    };
    format!("verified (any number of {free}, the rest bounded)")
}

/// Does this program of a scope ask for a flush or sync, or send one?
fn flushes(m: &Model, name: &str) -> bool {
    let flushes =
        |op: &Op| matches!(op, Op::Request(_) | Op::Promise(_) | Op::Ipi { .. } | Op::Rar(_) | Op::Tlbsync);
    m.code.ops_of(name).iter().any(flushes)
}

/// Whether a search without reductions came to the same.
fn confirmed(answer: &Answer) -> String {
    match answer.confirmed {
        Some(states) => format!(" Confirmed unreduced ({states} states)."),
        None if answer.model.fuse => " Not confirmed unreduced.".into(),
        None => String::new(),
    }
}

/// With how many CPUs it was searched, if each stands for any number of its kind.
fn stands(answer: &Answer) -> String {
    answer.stands.map_or(String::new(), |n| {
        format!(" of {n} CPUs, where one isolated CPU stands for any number of its kind")
    })
}

/// By which paths CPUs could come into the kernel.
fn entry_paths(scope: &Scope) -> String {
    let mut names: Vec<&str> = Vec::new();
    for role in scope.roles.iter().filter(|r| r.rest == Rest::User && r.left > 0) {
        for path in role.entries() {
            if !names.contains(&path.as_str()) {
                names.push(path);
            }
        }
    }
    let entries = match &names[..] {
        [] => String::new(),
        names if names == USER_ENTRIES => {
            ", entries by any system call, exception or device interrupt".into()
        }
        names => format!(", entries by {}", names.join(", ")),
    };
    let amid = scope.roles.iter().any(|r| r.takes_devices() && (r.rest == Rest::Kernel || r.left > 0));
    format!("{entries}{}", if amid { ", device interrupts amid the kernel" } else { "" })
}

/// Is one CPU alone no isolated one?
fn alone(scope: &Scope) -> bool {
    scope.roles.iter().filter(|r| !r.isolated).count() == 1
}

/// The sentence SEMANTICS "Words" asks for.
pub fn sentence(answer: &Answer) -> String {
    let m = &answer.model;
    let scope = &m.scope;
    let s = |n: usize| if n == 1 { "" } else { "s" };
    let times = |n: u8, one: &str, many: &str| match n {
        UNBOUNDED => format!("any number of {many}"),
        1 => format!("1 {one}"),
        n => format!("{n} {many}"),
    };
    let entries = scope.roles.iter().filter(|r| r.rest == Rest::User).map(|r| r.left).max();
    let entries =
        entries.map_or(String::new(), |n| format!(", {} per isolated CPU", times(n, "entry", "entries")));
    let beside = scope.roles.iter().find(|r| r.rest == Rest::Kernel && r.is_beside());
    let beside = beside.map_or(String::new(), |r| {
        let rounds = if r.left == UNBOUNDED { r.left } else { r.left + 1 };
        let devices = times(r.devices, "device interrupt", "device interrupts");
        format!(", {} of `{}` and {devices} per isolated CPU", times(rounds, "round", "rounds"), r.first)
    });
    let kernel =
        || scope.roles.iter().filter(|r| r.rest == Rest::Kernel && !r.is_beside() && flushes(m, &r.first));
    let rounds = match kernel().map(|r| usize::from(r.left) + 1).sum() {
        0 => "no flush round".to_string(),
        _ if kernel().any(|r| r.left == UNBOUNDED) => "any number of flush rounds".to_string(),
        1 => "1 flush round".to_string(),
        n => format!("{n} flush rounds"),
    };
    let pages = m.layout.pages.iter().filter(|p| p.kind != PageKind::Text).count();
    let sites = m.layout.sites.iter().flatten().count();
    let patched = format!("{sites} patched instruction{}", s(sites));
    let tracked = match (pages, sites) {
        (n, 0) => format!("{n} page{}", s(n)),
        (0, _) => patched,
        (n, _) => format!("{n} page{}, {patched}", s(n)),
    };
    let bounds = format!(
        "{} CPUs, {tracked}, {} ASID{}{entries}{beside}, {rounds}, {} NMI{}, {} #MC{}{}",
        scope.roles.len(),
        scope.asids,
        s(scope.asids),
        if scope.nmis == 0 { "no".into() } else { format!("at most {}", scope.nmis) },
        s(usize::from(scope.nmis)),
        if scope.mces == 0 { "no".into() } else { format!("at most {}", scope.mces) },
        s(usize::from(scope.mces)),
        entry_paths(scope),
    );
    let mut assumed = m.assume.phrases();
    if m.layout.has_text() {
        assumed.insert(0, format!("T={}", m.assume.text.name()));
    }
    let assumed = assumed.join(", ");
    let world = format!("world {} of Linux {}", World { features: m.features }.name(), m.code.linux);
    let buffers = if m.assume.store_buffers { "store buffers exact; " } else { "" };
    if let (End::Complete, Some(why)) = (&answer.end, answer.is_empty()) {
        return format!(
            "Inconclusive: {why}; {} states, none of them violating; {bounds}; assuming {assumed}.",
            answer.counts.states
        );
    }
    match &answer.end {
        End::Complete => format!(
            "V{}: no violation in any interleaving of {bounds}, {world}; {buffers}{} states{}, none truncated; \
             assuming {assumed}; not modelled: hotplug, SMM, TLBs shared by SMT siblings, guests{}; larger scopes \
             unexplored{}.{}",
            &verified(scope)[1..],
            answer.counts.states,
            stands(answer),
            // A question that says which tables lead to a page has them.
            if scope.tops.is_empty() { ", top-level entries that some mm lacks" } else { "" },
            // Who flushes isolated CPUs alone passes where nobody else is.
            if alone(scope) { ", a second housekeeping CPU among them" } else { "" },
            confirmed(answer)
        ),
        End::Violated(v, path) => format!(
            "Violated: {} in {} moves{}, within {bounds}, {world}; {buffers}assuming {assumed}.",
            v.name(),
            path.len(),
            match (answer.missed, answer.shortest) {
                (true, _) =>
                    " (which the search with reductions missed: a fault of the checker, please report it)",
                (_, true) => "",
                (_, false) => " (there may be a shorter run)",
            }
        ),
        End::Cut(cut) => {
            let why = match cut {
                Cut::Memory => "the memory limit was reached",
                Cut::Overflow => "a value did not fit its declared width",
                Cut::Buffer => "more stores were pending than the deepest store buffer holds",
                Cut::Stopped => "the search was stopped",
            };
            format!(
                "Inconclusive: {why} at depth {} with {} states, none of them violating; {bounds}, {world}; assuming {assumed}.",
                answer.counts.depth, answer.counts.states
            )
        }
    }
}

/// What was seen at least once, and what never: a pass that saw nothing says nothing.
pub fn witnesses(answer: &Answer) -> Vec<(&'static str, bool)> {
    let nmis = answer.model.scope.nmis > 0 || answer.model.scope.mces > 0;
    let text = answer.model.layout.pages.len() - answer.model.layout.text;
    let absent = if text == 0 { Seen::STALE_TEXT } else { 0 }
        | if text == answer.model.layout.pages.len() { Seen::STALE } else { 0 }
        | if answer.model.layout.breakpoint.is_none() { Seen::BREAKPOINT } else { 0 };
    Seen::WITNESSES
        .iter()
        .filter(|(bit, _)| bit & absent == 0)
        .filter(|(bit, _)| nmis || *bit & (Seen::NMI_USER | Seen::NMI_USER_CR3 | Seen::NMI_KERNEL) == 0)
        .map(|&(bit, text)| (text, answer.counts.seen & bit != 0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::scope::Role;

    #[test]
    fn entries_and_device_interrupts_are_told_of_those_who_take_them() {
        let amid = ", device interrupts amid the kernel";
        let deaf = Role { deaf: true, ..Role::initiator("purge", 2) };
        for (roles, said) in [
            (vec![Role::column("1", "purge")], String::new()),
            (vec![deaf], String::new()),
            // Between its rounds or behind the last one: a CPU that rests in the kernel takes them.
            (vec![Role::initiator("purge", 1)], amid.into()),
            (vec![Role::initiator("purge", 2)], amid.into()),
            // In user mode a device interrupt is one of the entries.
            (vec![Role::isolated_by(1, "interrupt")], format!(", entries by interrupt{amid}")),
            (vec![Role::isolated_by(0, "interrupt")], String::new()),
            (vec![Role::isolated_by(1, "syscall")], ", entries by syscall".into()),
            (
                vec![Role::isolated(1)],
                format!(", entries by any system call, exception or device interrupt{amid}"),
            ),
        ] {
            assert_eq!(
                entry_paths(&Scope { roles: roles.clone(), ..Scope::standard(1, 0) }),
                said,
                "{roles:?}"
            );
        }
    }
}
