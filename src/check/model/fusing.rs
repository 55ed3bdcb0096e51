//! Which ops happen with the op before them, and why no violation is lost by it.
//!
//! After a move of a CPU its next op, `t`, may be carried out at once: then the state between the two is never seen, and
//! in no run does anything, `X`, happen there. That loses nothing if every run `.. a X t ..` has a run `.. a t X ..` that
//! breaks the same rules and shows the same witnesses (`t` is a left mover; Lipton, CACM 18(12), 1975). `X` is what
//! other CPUs do, and what happens to this one by itself: walks that cache, evictions, drains, interrupts, NMIs. A walk may
//! itself be the violation (S6, S9), so `t` must not take from `X` what it walks through.
//!
//! Likewise the op behind it may be carried out at once after an op `a` where every run `.. a X t ..` has a run
//! `.. X a t ..` that does the same, or in which `a` itself breaks a rule (`a` is a right mover). Both fit together as long
//! as what happens at once is first such ops, then any one op, then left movers: `X` between the first ones goes to the
//! front, `X` between the last ones to the end, and neither comes back.
//!
//! **Lines of caches** (SEMANTICS H11) are one more `X`. A line comes through a translation that is cached or walked, and to the
//! tables below it is what the caching of that translation is: ops that happen at once change neither entries nor what a TLB
//! holds, nor under which CR3 (`mov cr3, kernel noflush` does, and under the table that it leaves no page is mapped), so where
//! a line may come before or behind such an op it may come on the other side of it. That a line is written back breaks S14,
//! and depends on entries, promises and lines alone, which these ops leave as they are: it ends the run as well before them or
//! behind. What drops lines (`clflush`, `wbinvd`) is never fused.
//!
//! [`ROWS`] and [`BEHIND`] hold the proof: for each class of ops what it [`Need`]s, and an argument for each rule. The code
//! below asks for the needs and for nothing else, the page on checking prints the tables, and `random` holds the reduced
//! search against the plain one over all rules.

mod table;

pub use table::{BEHIND, CELLS, Need, ROWS, Row, Why};
use table::{behind, row_of};

use crate::check::layout::Device;
use crate::check::machine::{Abs, Model, Seen};
use crate::check::scope::{Fills, Rest};
use crate::kernel::program::{Ask, At, Cond, Op, Pc, Place, Slot, Touch, Zone};
use crate::kernel::step::{NO_PC, Outcome, Violation};

/// Ops that happen at once at most: a loop of local ops may have no end.
const MOST: usize = 200;
/// Of an op that is never fused.
const NEVER: u32 = u32::MAX;

impl Model {
    /// Are NMIs blocked on this CPU (SEMANTICS H5)? Without machine checks in them they are while one runs.
    pub(super) fn nmis_blocked<const W: usize>(&self, a: &Abs<'_, W>, cpu: usize) -> bool {
        let blocked = self.layout.cpus[cpu].nmi_blocked;
        if blocked.exists() {
            return a.get(blocked) != 0;
        }
        self.layout.cpus[cpu].frames.iter().any(|f| {
            let n = a.get(f.at);
            n != 0 && f.locations[n as usize - 1].nmi && a.get(f.mce) == 0
        })
    }

    /// Can an NMI, a machine check or an interrupt arrive on this CPU now, or before its next op?
    fn disturbed<const W: usize>(&self, a: &Abs<'_, W>, cpu: usize, top: usize) -> bool {
        self.interrupted(a, cpu, top) || self.hit(a, cpu)
    }

    /// Can an NMI or a machine check arrive on this CPU now?
    fn hit<const W: usize>(&self, a: &Abs<'_, W>, cpu: usize) -> bool {
        let shared = &self.layout.shared;
        if !self.assume.nmis_arrive || self.role(cpu).deaf {
            return false;
        }
        a.get(shared.mces) > 0 || a.get(shared.nmis) > 0 && !self.nmis_blocked(a, cpu)
    }

    /// Can an interrupt arrive on this CPU now, or before its next op?
    fn interrupted<const W: usize>(&self, a: &Abs<'_, W>, cpu: usize, top: usize) -> bool {
        let c = &self.layout.cpus[cpu];
        let open = top == 0 && a.get(c.irqs) != 0;
        open && (c.irq.exists()
            || !c.later.is_empty()
            || self.devices[cpu].iter().any(|d| matches!(d, Device::Runs(_))))
    }

    /// May a device interrupt look at what this CPU can reach now? It changes nothing, so only ops that change what it
    /// would use must not be passed over.
    fn watched<const W: usize>(&self, a: &Abs<'_, W>, cpu: usize, top: usize) -> bool {
        let looks = |d: &Device| matches!(d, Device::Checks(_));
        top == 0 && a.get(self.layout.cpus[cpu].irqs) != 0 && self.devices[cpu].iter().any(looks)
    }

    /// Is it enough to fetch text while a store to it is buffered?
    ///
    /// Let a CPU fetch a part of text in some run. Until the next store to this part becomes visible the copy is what
    /// memory has: whoever runs the text reads the same with it and without it, and nothing but running it looks at
    /// the copy. A CPU that drops the copy before that store need not have fetched it. For any other, the fetch can be
    /// put off to just before that store: by then the CPU has not lost the right to fetch, as all that changes which
    /// text it can reach drops what it fetched (writes of CR3, IRET), and the store is in a buffer, so that the fetch
    /// is one of those that are still followed. What a promise makes dead while it is current it covers by a store in a
    /// buffer (S2), so a CPU that holds a dead copy is seen too. Ops that happen at once never make such a store visible,
    /// and the one that puts it into the buffer is the last of them.
    ///
    /// The same holds of an instruction that decides a branch: with the copy and without it the CPU runs the same bytes, so
    /// it goes the same way, meets the same INT3, and that finds the same RSP, CR3 and GSBASE. The handler's IRET drops the
    /// copy as any IRET does. And an INT3 whose delivery waits for the store buffer, where the store that drains is one to
    /// this very instruction, is fetched before that store is visible: until then it waits in a buffer.
    ///
    /// It rests on this: stores to text are never locked and go through buffers; a fetch breaks no rule, so no mm is
    /// freed (S9); and where fills are on demand a copy is made by the access.
    pub(super) fn fetches_late(&self) -> bool {
        let waits = |&p: &usize| self.layout.shared.waiting[p].exists();
        let text = self.layout.text..self.layout.pages.len();
        let buffered = self.assume.store_buffers && !text.is_empty() && text.into_iter().all(|p| waits(&p));
        buffered && self.assume.fills == Fills::Speculative && !self.layout.shared.freed_mms.exists()
    }

    /// What must still hold where an op is fused, a bit for each [`Need`]; [`NEVER`] if it never is.
    pub(super) fn fusing_of(&self, op: Op) -> u32 {
        let mut left = 0;
        for &need in row_of(op).needs.unwrap_or(&[]) {
            match self.always(need, op) {
                Some(true) => {}
                Some(false) => return NEVER,
                None => left |= 1 << need as u8,
            }
        }
        if row_of(op).needs.is_some() { left } else { NEVER }
    }

    /// What a need is for an op in every state; `None` if that depends on the state.
    fn always(&self, need: Need, op: Op) -> Option<bool> {
        Some(match need {
            Need::OwnCopy => match op {
                Op::Load { from: Place { field, at: At::Me }, .. } => self.is_private(field),
                _ => false,
            },
            Need::Buffered => self.assume.store_buffers,
            Need::NoPageOfZone => match op {
                Op::Touch(Touch::Zone(z)) => !self.zone_checks(z),
                _ => Model::zone_of(op).is_some_and(|z| !self.zone_checks(z)),
            },
            Need::NoSwitch => op != Op::Body(Slot::Syscall) || self.layout.asids < 2,
            Need::OwnRequest if !matches!(op, Op::Ask { what: Ask::InfoMm | Ask::InfoGen, .. }) => true,
            Need::OneChoice if !matches!(op, Op::Each { .. }) => true,
            Need::NothingInUserTable => self.nothing_user,
            Need::Pcid => self.pcid,
            Need::NoMmFreed => !self.layout.shared.freed_mms.exists(),
            Need::NoText => !self.layout.has_text(),
            Need::NoGrace => self.layout.graces == 0,
            Need::NoTextIfSerialises if !self.layout.has_text() => true,
            Need::FillsAtAnyTime => self.assume.fills == Fills::Speculative,
            Need::AnyRule => self.scope.sought.is_none(),
            Need::Undisturbed | Need::Uninterrupted | Need::SameNmi | Need::OneChoice => return None,
            Need::OwnRequest | Need::NoCallOut => return None,
            Need::Unwatched | Need::SoleWriter | Need::NoTextIfSerialises => return None,
            Need::NotARemoteCall | Need::DrainedIfIret => return None,
        })
    }

    /// Take each op as a transition of its own: where a task may come from another CPU, the arguments of the table, which are
    /// about a CPU and its program, do not hold.
    pub(super) fn never_fuse(&mut self) {
        self.late = false;
        self.fusing.fill(NEVER);
        self.behind.fill(false);
    }

    /// Need nothing happen behind this op, wherever it is carried out?
    pub(super) fn nothing_behind(&self, op: Op) -> bool {
        let holds = |&need: &Need| self.always(need, op) == Some(true);
        behind(op).is_some_and(|row| row.needs.is_some_and(|needs| needs.iter().all(holds)))
    }

    /// Does no other CPU, and no page, give a way to a CPU's copy of this variable?
    fn is_private(&self, field: u8) -> bool {
        let var = |field: u8| self.code.fields[usize::from(field)].var;
        let mapped = self.scope.frames.iter().flatten().any(|&f| var(f) == var(field));
        let written = self.code.ops.iter().any(|op| {
            let at = match *op {
                Op::Store { to, .. } => to,
                Op::Rmw { at, .. } | Op::Cas { at, .. } => at,
                _ => return false,
            };
            var(at.field) == var(field) && at.at != At::Me
        });
        !mapped && !written
    }

    /// Does the next op of a CPU commute with everything else that can happen now?
    #[inline]
    fn local<const W: usize>(&self, a: &Abs<'_, W>, cpu: usize, top: usize) -> bool {
        let c = &self.layout.cpus[cpu];
        let f = &c.frames[top];
        let at = &f.locations[a.get(f.at) as usize - 1];
        let needs = self.fusing[usize::from(at.pc)];
        if needs == 0 || needs == NEVER {
            return needs == 0;
        }
        let needed = |need: Need| needs & 1 << need as u8 != 0;
        if needed(Need::Undisturbed) && self.disturbed(a, cpu, top) {
            return false;
        }
        if needed(Need::Uninterrupted) && self.interrupted(a, cpu, top) {
            return false;
        }
        // In user mode it comes by another path, and the return from one decides whether the next is blocked.
        if needed(Need::SameNmi)
            && (at.nmi || top == 0 && self.role(cpu).rest == Rest::User)
            && self.hit(a, cpu)
        {
            return false;
        }
        if needed(Need::Unwatched) && self.watched(a, cpu, top) {
            return false;
        }
        if needed(Need::OneChoice)
            && let Op::Each { of, .. } = at.op
        {
            let mut probe = Abs::new(self, a.s);
            probe.level = top;
            let choices = u64::from(probe.members(of, cpu as u16)) & !a.get(f.visited);
            return choices.count_ones() < 2;
        }
        !(needed(Need::OwnRequest) && a.get(c.serving) != 0
            || needed(Need::NoCallOut) && a.get(c.waits) != 0
            || needed(Need::SoleWriter) && self.layout.writers & !(1 << cpu) != 0
            || needed(Need::NotARemoteCall) && at.ret != NO_PC
            || needed(Need::DrainedIfIret) && at.iret && a.get(c.pending) != 0
            || needed(Need::NoTextIfSerialises) && at.iret)
    }

    /// Do accesses of this zone look at any tracked page?
    #[inline]
    fn zone_checks(&self, zone: Zone) -> bool {
        self.checked_zones >> zone as u8 & 1 != 0
    }

    /// Would the next op store into a full buffer? Where none is deeper it waits, and what came before it has happened.
    fn overfills<const W: usize>(&self, a: &Abs<'_, W>, cpu: usize, top: usize) -> bool {
        let c = &self.layout.cpus[cpu];
        let full = !c.stores.is_empty() && a.get(c.pending) == c.stores.len() as u64;
        full && matches!(a.next_op(cpu, top).1, Op::Store { .. })
    }

    /// Can something happen before the next op, at `to`, that could not before the op carried out last, at `from`? What
    /// depends on the place is a switch of ASIDs and which interrupt a device sends; and an op that is a choice, or waits
    /// for the store buffer where it stands, is none to be carried out at once.
    fn begins<const W: usize>(&self, a: &Abs<'_, W>, cpu: usize, top: usize, from: Pc) -> bool {
        let c = &self.layout.cpus[cpu];
        let f = &c.frames[top];
        let at = &f.locations[a.get(f.at) as usize - 1];
        let open = top == 0 && a.get(c.irqs) != 0;
        match at.op {
            Op::Body(Slot::Syscall) if self.layout.asids > 1 => return true,
            Op::Each { .. } | Op::Unless { c: Cond::Either, .. } => return true,
            // Where fills are on demand, it is fetched once the CPU stands at it, and run later.
            Op::Unless { c: Cond::Text(_), .. } if self.assume.fills == Fills::Demand => return true,
            Op::Return if at.iret && a.get(c.pending) != 0 => return true,
            _ => {}
        }
        open && self.code.is_idle_at(from) != self.code.is_idle_at(at.pc)
            || self.deepest && self.overfills(a, cpu, top)
    }

    /// Behind an op at `from` that was carried out alone: go on as long as nothing need happen behind the last one.
    pub(super) fn ahead<const W: usize>(
        &self,
        a: &mut Abs<'_, W>,
        cpu: usize,
        top: usize,
        mut from: Pc,
    ) -> Option<Violation> {
        for _ in 0..MOST {
            if !self.behind[usize::from(from)] || self.begins(a, cpu, top, from) {
                return None;
            }
            from = a.next_op(cpu, top).0;
            match Self::at_once(a, cpu, top) {
                Outcome::Next => {}
                // What runs next is the handler's.
                Outcome::Done | Outcome::Wait | Outcome::Breakpoint => return None,
                Outcome::Violated(v) => return Some(v),
            }
        }
        None
    }

    /// Carry out local ops until there is none.
    pub(super) fn tail<const W: usize>(&self, a: &mut Abs<'_, W>, cpu: usize) -> Option<Violation> {
        for _ in 0..MOST {
            let top = a.top(cpu)?;
            if !self.local(a, cpu, top) || self.deepest && self.overfills(a, cpu, top) {
                return None;
            }
            a.pick = None;
            match Self::at_once(a, cpu, top) {
                Outcome::Next => {}
                Outcome::Done | Outcome::Wait | Outcome::Breakpoint => return None,
                Outcome::Violated(v) => return Some(v),
            }
        }
        None
    }

    /// Carry out the next op with the one before it. One whose value does not fit is left for a move of its own: what
    /// other CPUs can do before it is no part of a run that says nothing.
    #[inline]
    fn at_once<const W: usize>(a: &mut Abs<'_, W>, cpu: usize, top: usize) -> Outcome {
        let (before, seen) = (a.s, a.seen);
        let outcome = a.run(cpu, top);
        if outcome == Outcome::Violated(Violation::Overflow) || a.seen & Seen::OVERFLOW != 0 {
            (a.s, a.seen) = (before, seen);
            return Outcome::Wait;
        }
        if a.seen & Seen::FULL != 0 { Outcome::Wait } else { outcome }
    }
}
