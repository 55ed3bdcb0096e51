//! The proof: op x rules x what makes it commute.
//!
//! Invariant: an op whose row has no needs listed is never fused, and a row with needs has an argument for every rule.
//! [`ROWS`] are the ops that happen with the one before them, [`BEHIND`] those that happen with the one behind them.

use crate::kernel::program::{At, Cond, Cr3, Fence, Invpcid, NoFlush, Op, Place, Set, Touch, Zone};

/// What must hold where an op is fused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Need {
    /// No interrupt, NMI or machine check can arrive on this CPU before the op: what only this CPU's ops change stays.
    Undisturbed,
    /// No interrupt can arrive on this CPU before the op; an NMI or a machine check may.
    Uninterrupted,
    /// An NMI or a machine check that can arrive before the op runs the same program behind it.
    SameNmi,
    /// No device interrupt looks at what this CPU can reach: with which CR3, GSBASE and IF it does is not to be passed over.
    Unwatched,
    /// A loop has one CPU to go to, or none.
    OneChoice,
    /// A %gs-relative load of a variable that no other CPU, and no page, gives a way to.
    OwnCopy,
    /// Stores are buffered: nobody else sees it yet.
    Buffered,
    /// No access of this zone looks at a tracked page.
    NoPageOfZone,
    /// The scheduler does not switch here.
    NoSwitch,
    /// The request asked about is this CPU's own.
    OwnRequest,
    /// No remote call of this CPU is under way, so nobody reads the request it replaces.
    NoCallOut,
    /// No other CPU writes page-table entries or text, in whatever program.
    SoleWriter,
    /// The user table maps no tracked page: nothing is walked, evicted or fetched under it.
    NothingInUserTable,
    /// PCIDs are on: bit 63 keeps everything.
    Pcid,
    /// No mm is ever freed.
    NoMmFreed,
    /// No text is patched: nobody holds fetched code.
    NoText,
    /// The same, where the return serialises.
    NoTextIfSerialises,
    /// Nobody waits for a grace period: when a section ends, or what it has stored is visible, tells nobody anything.
    NoGrace,
    /// It ends the program, not a remote call.
    NotARemoteCall,
    /// It is no IRET, or nothing is buffered.
    DrainedIfIret,
    /// Walks and fetches come at any time, not only where an access is next.
    FillsAtAnyTime,
    /// Whatever rule breaks ends the run: none is passed over in search of another one.
    AnyRule,
}

/// Why a rule loses nothing, or why it would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It neither reads nor writes what the rule looks at, and nothing that X writes.
    Apart,
    /// The rule looks at what only this CPU's ops change: found now or later, it is the same.
    Own,
    /// It takes nothing away: whatever X could do before it, X can do behind it.
    Opens,
    /// Under the table that is loaded before it nothing is walked, evicted or fetched: there is no such X.
    NoX,
    /// It changes nothing, or only keeps interrupts away: whatever X could do behind it, X can do before it. A rule that
    /// it breaks there is broken in a run of the machine.
    Earlier,
    /// What would break it is ruled out by a need.
    Ruled,
    /// This breaks it: not fused.
    Breaks(&'static str),
    /// Broken by another rule already.
    Moot,
}

impl Why {
    /// The letter of the printed table.
    pub fn letter(self) -> &'static str {
        match self {
            Apart => "a",
            Own => "o",
            Opens => "p",
            NoX => "x",
            Earlier => "e",
            Ruled => "n",
            Breaks(_) => "**no**",
            Moot => "",
        }
    }
}

/// The columns of [`Row::why`].
pub const CELLS: [&str; 7] = ["S5", "S6", "S7", "S8", "S9", "S10", "S11"];

/// A class of ops.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// In the words of the policy language.
    pub ops: &'static str,
    /// What must hold; `None`: never fused.
    pub needs: Option<&'static [Need]>,
    /// An argument for each of [`CELLS`]; S10 stands for every witness and finding, S11 for deadlock and livelock.
    pub why: [Why; 7],
}

use Need::{
    AnyRule, Buffered, DrainedIfIret, FillsAtAnyTime, NoCallOut, NoGrace, NoMmFreed, NoPageOfZone, NoSwitch,
    NoText, NoTextIfSerialises, NotARemoteCall, NothingInUserTable, OneChoice, OwnCopy, OwnRequest, Pcid,
    SameNmi, SoleWriter, Undisturbed, Uninterrupted, Unwatched,
};
use Why::{Apart, Breaks, Earlier, Moot, NoX, Opens, Own, Ruled};

/// Why an op is not fused that changes what other CPUs see, or looks at what they change.
const SHARED: &str = "others write what it reads, or read what it writes";
/// The same of an access.
const LOOKS: &str = "a promise, a free or a walk between decides what it breaks";

macro_rules! rows {
    ($($id:ident: $ops:literal, $needs:expr, $why:expr;)*) => {
        /// Which row.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        enum Class { $($id),* }

        /// The proof table.
        pub const ROWS: &[Row] = &[$(Row { ops: $ops, needs: $needs, why: $why }),*];
    };
}

rows! {
    Registers: "moves and arithmetic of locals, branches on them and on fixed sets, `each` over a fixed set, `put`, `clear`, `lfence`, `sfence`",
        Some(&[OneChoice]), [Apart, Apart, Apart, Apart, Apart, Apart, Opens];
    OwnRegisters: "`swapgs`, `rsp`, reading and writing GSBASE, reading CR3, `if cr3 is user`",
        Some(&[Undisturbed, Unwatched]), [Apart, Apart, Apart, Own, Apart, Apart, Opens];
    Sti: "`sti`",
        Some(&[Uninterrupted, NoGrace]), [Opens, Opens, Opens, Opens, Opens, Opens, Opens];
    OwnContexts: "questions about this CPU's ASIDs and the request it serves",
        Some(&[Undisturbed, OwnRequest]), [Apart, Apart, Apart, Apart, Apart, Apart, Opens];
    Info: "filling `flush_tlb_info`",
        Some(&[Undisturbed, NoCallOut]), [Apart, Apart, Apart, Apart, Apart, Apart, Opens];
    AsidCopy: "loads and stores of per-ASID variables",
        Some(&[Undisturbed]), [Apart, Apart, Apart, Own, Apart, Apart, Opens];
    OwnLoad: "load of this CPU's copy of a variable",
        Some(&[Undisturbed, OwnCopy]), [Apart, Apart, Apart, Own, Apart, Own, Opens];
    Store: "plain store of a variable",
        Some(&[Undisturbed, Buffered, NoGrace]), [Apart, Apart, Apart, Own, Apart, Own, Opens];
    EmptyTouchEntry: "`touch entry` where no tracked page is of that zone",
        Some(&[NoPageOfZone]), [Ruled, Apart, Ruled, Apart, Ruled, Apart, Opens];
    EmptyTouch: "other touches and bodies where no tracked page is of that zone",
        Some(&[Undisturbed, NoPageOfZone, NoSwitch]), [Ruled, Apart, Ruled, Own, Ruled, Own, Opens];
    MovCr3Kernel: "`mov cr3, kernel noflush`",
        Some(&[Undisturbed, Unwatched, NothingInUserTable, Pcid, NoMmFreed, NoText]), [Apart, NoX, Ruled, Own, Ruled, Apart, Opens];
    Request: "`request`",
        Some(&[Undisturbed, SoleWriter]), [Ruled, Apart, Ruled, Apart, Apart, Apart, Opens];
    Return: "end of a program",
        Some(&[Uninterrupted, SameNmi, Unwatched, NotARemoteCall, DrainedIfIret, NoTextIfSerialises, NoGrace]), [Opens, Opens, Ruled, Opens, Opens, Opens, Opens];
    FlushAll: "`invpcid all-including-global`, `mov cr4`",
        None, [Moot, Breaks("a walk between them may go through a freed table"), Breaks("`mov cr4` serialises: code fetched between them is gone"), Moot,
            Breaks("a walk between them may be through a freed mm"), Breaks("a CPU held between them what a promise made dead"), Moot];
    OtherInvalidation: "other invalidations, other writes of CR3, broadcasts",
        None, [Breaks("what is cached between them is not undone by it, or its order against promises is seen"), Breaks("as above"), Moot, Moot, Breaks("what is loaded may have been freed"), Moot, Moot];
    Access: "touches of a tracked page, loads and stores through one, bodies that use one, steps of a walk in software, `if text is new`",
        None, [Breaks(LOOKS), Breaks(LOOKS), Breaks(LOOKS), Moot, Breaks(LOOKS), Moot, Moot];
    Shared: "locked ops, waits, full fences, other loads, `mm_cpumask`, remote calls, `cli`, marks of owed flushes, sections of RCU, `synchronize`, `call later`, `clflush`, `wbinvd`",
        None, [Breaks(SHARED), Moot, Moot, Moot, Moot, Moot, Breaks(SHARED)];
    Undecided: "`if either`",
        None, [Breaks("which way it goes is a move of its own"), Moot, Moot, Moot, Moot, Moot, Moot];
    Promises: "page-table entries, `promise`, `free table`, `free mm`",
        None, [Breaks(SHARED), Breaks(SHARED), Breaks(SHARED), Moot, Breaks(SHARED), Breaks(SHARED), Moot];
}

/// Does the condition look at a set that others join and leave?
fn in_mask(c: Cond) -> bool {
    matches!(c, Cond::MeIn(Set::MmCpumask) | Cond::CurIn(Set::MmCpumask) | Cond::Empty(Set::MmCpumask))
}

fn class_of(op: Op) -> Class {
    match op {
        Op::Unless { c, .. } if in_mask(c) => Class::Shared,
        Op::Unless { c: Cond::Either, .. } => Class::Undecided,
        // What was fetched decides the way, and an INT3 starts a program.
        Op::Unless { c: Cond::Text(_), .. } => Class::Access,
        Op::Each { of: Set::MmCpumask, .. } | Op::Mask { .. } => Class::Shared,
        Op::Unless { c: Cond::Cr3User, .. } => Class::OwnRegisters,
        Op::Move { .. }
        | Op::MoveWide { .. }
        | Op::Alu { .. }
        | Op::Jump(_)
        | Op::Loop(_)
        | Op::Clear
        | Op::Put => Class::Registers,
        // Nothing is reordered but by the store buffer, which neither touches.
        Op::Fence(Fence::Load | Fence::Store) => Class::Registers,
        Op::Unless { .. } | Op::Each { .. } => Class::Registers,
        Op::SwapGs | Op::ReadGs(_) | Op::SetGs(_) | Op::Rsp(_) | Op::ReadCr3(_) => Class::OwnRegisters,
        Op::Irq(true) => Class::Sti,
        Op::Ask { .. } => Class::OwnContexts,
        Op::FlushInfo { .. } => Class::Info,
        Op::Load { from: Place { at: At::Asid(_), .. }, .. }
        | Op::Store { to: Place { at: At::Asid(_), .. }, .. } => Class::AsidCopy,
        Op::Load { from: Place { at: At::Me, .. }, .. } => Class::OwnLoad,
        Op::Load { .. } => Class::Shared,
        Op::Store { .. } => Class::Store,
        Op::Touch(Touch::Zone(Zone::Entry)) => Class::EmptyTouchEntry,
        Op::Touch(Touch::Zone(_)) | Op::Body(_) => Class::EmptyTouch,
        Op::Touch(Touch::Read(_) | Touch::Write(_) | Touch::Text) => Class::Access,
        Op::LoadPage { .. } | Op::StorePage { .. } | Op::Walk { .. } => Class::Access,
        Op::MovCr3 { to: Cr3::Kernel, keep: NoFlush::Keep } => Class::MovCr3Kernel,
        Op::Invpcid { kind: Invpcid::AllGlobal, .. } | Op::MovCr4Pge(_) => Class::FlushAll,
        Op::MovCr3 { .. } | Op::Invlpg(_) | Op::Invpcid { .. } => Class::OtherInvalidation,
        Op::Invlpgb(_) | Op::InvlpgbOf { .. } | Op::InvlpgbAll | Op::Tlbsync | Op::Rar(_) => {
            Class::OtherInvalidation
        }
        Op::Request(_) => Class::Request,
        Op::Return => Class::Return,
        Op::Rmw { .. } | Op::Cas { .. } | Op::Await { .. } | Op::AwaitAcks => Class::Shared,
        Op::Fence(Fence::Full | Fence::Serialize) | Op::Irq(false) => Class::Shared,
        Op::Ipi { .. } | Op::HandleCalls | Op::OweUser | Op::OweOthers => Class::Shared,
        Op::Rcu(_) | Op::CallLater(_) | Op::Clflush(_) | Op::Wbinvd => Class::Shared,
        Op::Pte { .. } | Op::FreeTable(_) | Op::FreeMm(_) | Op::Promise(_) => Class::Promises,
        // Where a task migrates nothing is fused at all.
        Op::Migrate => Class::Shared,
    }
}

/// The row of an op.
pub fn row_of(op: Op) -> &'static Row {
    &ROWS[class_of(op) as usize]
}

/// The proof table of the ops that happen with the op behind them.
pub const BEHIND: &[Row] = &[
    Row {
        ops: "touches of zones, `run text`, bodies",
        needs: Some(&[FillsAtAnyTime, AnyRule]),
        why: [Earlier, Earlier, Earlier, Earlier, Earlier, Apart, Apart],
    },
    Row {
        ops: "`cli`",
        needs: Some(&[NoGrace]),
        why: [Earlier, Earlier, Earlier, Earlier, Earlier, Earlier, Apart],
    },
    Row {
        ops: "moves and arithmetic of locals, branches on them and on fixed sets, `lfence`, `sfence`",
        needs: Some(&[]),
        why: [Apart; 7],
    },
];

/// The row of an op behind which nothing need happen.
pub fn behind(op: Op) -> Option<&'static Row> {
    match op {
        Op::Touch(Touch::Zone(_) | Touch::Text) | Op::Body(_) => Some(&BEHIND[0]),
        Op::Irq(false) => Some(&BEHIND[1]),
        Op::Each { .. } | Op::Loop(_) | Op::Clear | Op::Put => None,
        _ => (class_of(op) == Class::Registers).then_some(&BEHIND[2]),
    }
}

/// A table as the page on checking prints it.
#[cfg(test)]
fn printed(rows: &[Row]) -> String {
    let mut out =
        format!("| Op | {} | Needs, or why not |\n|---|{}---|\n", CELLS.join(" | "), "---|".repeat(7));
    for row in rows {
        let cells: Vec<&str> = row.why.iter().map(|w| w.letter()).collect();
        let last = match row.needs {
            Some(needs) => needs.iter().map(|n| format!("`{n:?}`")).collect::<Vec<_>>().join(", "),
            None => {
                let mut whys: Vec<&str> = row
                    .why
                    .iter()
                    .filter_map(|w| if let Breaks(why) = w { Some(*why) } else { None })
                    .collect();
                whys.dedup();
                whys.join("; ")
            }
        };
        out.push_str(&format!("| {} | {} | {last} |\n", row.ops, cells.join(" | ")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fused_op_has_an_argument_for_every_rule_and_another_a_reason() {
        for row in ROWS {
            let broken = row.why.iter().any(|w| matches!(w, Breaks(_)));
            let open = row.why.contains(&Moot);
            match row.needs {
                Some(needs) => assert!(!broken && !open && !needs.is_empty(), "{}", row.ops),
                None => assert!(broken, "{}", row.ops),
            }
        }
        for row in BEHIND {
            assert!(
                row.needs.is_some() && !row.why.iter().any(|w| matches!(w, Moot | Breaks(_))),
                "{}",
                row.ops
            );
        }
    }

    #[test]
    fn the_page_on_checking_prints_the_tables() {
        let page = include_str!("../../../../docs/checking.md");
        for table in [printed(ROWS), printed(BEHIND)] {
            assert!(page.contains(&table), "docs/checking.md should hold:\n{table}");
        }
    }
}
