//! What can happen next: initial state, enabled actions, successors.
//!
//! [`Action`] enumerates *all* nondeterminism: a schedule, a list of CPUs and actions, determines a run.

use super::layout::{Layout, MAX_WORDS, TEXT, narrow, renames, tags, versions_needed};
use super::machine::{Abs, CR3_USER, Entries, INIT_MM, Model, NO_MM, Seen};
use super::scope::{Assume, CheckError, Fills, Rest, Scope, UNBOUNDED};
use crate::kernel::program::{
    At, Code, Cond, Cr3, Feature, Features, Holds, Invpcid, NoFlush, Op, PageKind, Place, Set, Slot, Touch,
    Zone,
};
use crate::kernel::step::{NO_PC, Outcome, Violation};

/// One thing that can happen on one CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Execute the next op.
    Step,
    /// Go on with this CPU in a loop over a set.
    Pick(u8),
    /// The oldest buffered store becomes visible.
    Drain,
    /// Start the next round or entry from where the CPU rests.
    Enter,
    /// Ordinary kernel code on a CPU that rests in the kernel.
    Use,
    /// Deliver the pending interrupt.
    Irq,
    /// Deliver an NMI.
    Nmi,
    /// Deliver a machine check.
    Mce,
    /// `switch_mm` to the other ASID, amid a system call's own work.
    Switch,
    /// A walk caches a page's leaf.
    Fill(u8),
    /// A walk caches the entry above a page's leaf.
    FillUpper(u8),
    /// A cached leaf is evicted.
    Drop(u8),
}

/// An action and where it happens.
pub type Move = (u8, Action);

impl Model {
    /// A model of `code` in `scope`. `buffer` is the depth of store buffers.
    pub fn new(
        code: &Code,
        features: Features,
        scope: &Scope,
        assume: Assume,
        buffer: usize,
    ) -> Result<Model, CheckError> {
        let code = narrow(code, scope, assume)?;
        let renamed = renames(&code, scope)?;
        let layout = Model::layout(&code, scope, assume, buffer)?;
        if layout.words > MAX_WORDS {
            return Err(CheckError::TooWide { bits: layout.words * 64, most: MAX_WORDS });
        }
        let all = (1u16 << scope.roles.len()) as u8 - 1;
        let isolated = scope.roles.iter().enumerate().fold(0, |m, (i, r)| m | u8::from(r.isolated) << i);
        let flushes = scope.roles.iter().enumerate().fold(0, |m, (i, r)| m | u8::from(r.flushes) << i);
        let nothing_user =
            layout.pages.iter().all(|p| !p.user_mapped && !matches!(p.kind, PageKind::User(_)));
        let written = |f: &crate::kernel::program::Field| {
            code.ops.iter().any(|op| {
                let at = match *op {
                    Op::Store { to, .. } => to,
                    Op::Rmw { at, .. } | Op::Cas { at, .. } => at,
                    _ => return false,
                };
                code.fields[usize::from(at.field)].var == f.var && at.at != At::Me
            })
        };
        let private = code.fields.iter().map(|f| !written(f)).collect();
        let writers = scope
            .roles
            .iter()
            .filter(|r| writes_entries(&code, &r.first) || writes_entries(&code, &r.again))
            .count();
        let entry = Entries {
            interrupt: code.program("interrupt"),
            interrupt_kernel: code.program("interrupt_kernel"),
            nmi_user: code.program("nmi_user"),
            nmi: code.program("nmi"),
        };
        let mut model = Model {
            checked_zones: 0,
            fuse: false,
            renamed,
            nothing_user,
            private,
            writers,
            code,
            scope: scope.clone(),
            assume,
            layout,
            entry,
            pti: features.has(Feature::Pti),
            pcid: features.has(Feature::Pcid),
            masks: [isolated, isolated & flushes, all & !isolated, all],
        };
        for zone in Zone::ALL {
            let checks = model.layout.pages.iter().any(|p| model.zone_may(zone, p.kind));
            model.checked_zones |= u8::from(checks) << zone as u8;
        }
        Ok(model)
    }

    /// Where a state of `code`, as [`narrow`] makes it, keeps things.
    pub fn layout(code: &Code, scope: &Scope, assume: Assume, buffer: usize) -> Result<Layout, CheckError> {
        let buffer = if assume.store_buffers { buffer } else { 0 };
        Layout::new(code, scope, assume, buffer, versions_needed(code, scope))
    }

    /// The one initial state.
    pub fn initial<const W: usize>(&self) -> [u64; W] {
        let mut a: Abs<'_, W> = Abs::new(self, [0; W]);
        for (i, role) in self.scope.roles.iter().enumerate() {
            let c = &self.layout.cpus[i];
            let first = self.code.program(&role.first).expect("the layout looked");
            a.enter(i, 0, first);
            a.set(c.irqs, u64::from(!role.irqs_off));
            a.set(c.gs, 1);
            if role.left != UNBOUNDED {
                a.set(c.left, u64::from(role.left));
            }
            for (v, b) in self.code.vars.iter().zip(&c.vars) {
                if v.per_cpu {
                    a.set(*b, u64::from(v.init));
                }
            }
            // Slot 0 holds init_mm, which is loaded and up to date; the others hold nothing.
            for (v, copies) in self.code.vars.iter().zip(&c.asid_vars) {
                for (asid, b) in copies.iter().enumerate() {
                    let current = asid == 0 && v.holds == Holds::Generation;
                    a.set(*b, if current { 1 } else { u64::from(v.init) });
                }
            }
            for (asid, b) in c.contexts.iter().enumerate() {
                a.set(*b, if asid == 0 { INIT_MM } else { NO_MM });
            }
            a.set(c.next_asid, 1);
            for f in &c.frames {
                if f.cur.exists() {
                    a.set(f.cur, self.layout.cpus.len() as u64);
                }
            }
        }
        let s = &self.layout.shared;
        a.set(s.nmis, u64::from(self.scope.nmis));
        a.set(s.mces, u64::from(self.scope.mces));
        for (v, b) in self.code.vars.iter().zip(&s.vars) {
            if !v.per_cpu {
                a.set(*b, u64::from(v.init));
            }
        }
        for (v, copies) in self.code.vars.iter().zip(&s.mm_vars) {
            for b in copies {
                a.set(*b, u64::from(v.init));
            }
        }
        for (p, page) in self.layout.pages.iter().enumerate() {
            a.set(s.version[p], if page.kind == PageKind::Text { TEXT.initial } else { 1 });
            a.set(s.kind[p], u64::from(page.present));
            a.set(s.upper[p], 1);
            a.set(s.upper_kind[p], 1);
            a.seen &= !Seen::OVERFLOW; // fields that a scope has no use for hold nothing
        }
        a.s
    }

    /// The state after one move, if it is possible and breaks no rule.
    pub fn after<const W: usize>(&self, s: &[u64; W], mv: Move) -> Option<[u64; W]> {
        let mut found = None;
        self.each_successor(s, &mut |m, next| {
            if m == mv {
                found = next.ok();
            }
            m != mv
        });
        found
    }

    /// Does a state show what the scope asks about?
    pub fn asked(&self, s: &[u64], e: &Expansion) -> Option<Violation> {
        let never = self.scope.never.as_ref().is_some_and(|c| c.holds(self, s));
        let end = !e.progress && !e.deadlock;
        let exists = end && self.scope.exists.as_ref().is_some_and(|c| c.holds(self, s));
        (never || exists).then_some(Violation::Invariant)
    }

    /// [`Model::successors`] where speed does not matter.
    pub fn each_successor<const W: usize>(
        &self,
        s: &[u64; W],
        mut out: &mut dyn FnMut(Move, Result<[u64; W], Violation>) -> bool,
    ) -> Expansion {
        self.successors(s, &mut out)
    }

    /// Every enabled action of a state with its outcome, in a fixed order. `out` may end the enumeration by
    /// returning `false`. Returns what was seen on the way, and whether anything but hardware speculation and
    /// NMIs can happen, or every CPU rests.
    pub fn successors<const W: usize>(
        &self,
        s: &[u64; W],
        out: &mut impl FnMut(Move, Result<[u64; W], Violation>) -> bool,
    ) -> Expansion {
        let mut e = Expansion::default();
        for cpu in 0..self.layout.cpus.len() {
            if !self.of_cpu(s, cpu, &mut e, out) {
                return e;
            }
        }
        e.deadlock = e.busy && !e.progress;
        e
    }

    /// The actions of one CPU; `false` if `out` ended the enumeration.
    pub fn of_cpu<const W: usize>(
        &self,
        s: &[u64; W],
        cpu: usize,
        e: &mut Expansion,
        out: &mut impl FnMut(Move, Result<[u64; W], Violation>) -> bool,
    ) -> bool {
        self.steps(s, cpu, e, out) && self.events(s, cpu, e, out)
    }

    /// Pass on what an action leads to, with the local ops that happen at once.
    fn emit<const W: usize>(
        &self,
        (me, action): Move,
        mut a: Abs<'_, W>,
        mut broken: Option<Violation>,
        e: &mut Expansion,
        out: &mut impl FnMut(Move, Result<[u64; W], Violation>) -> bool,
    ) -> bool {
        if self.fuse
            && broken.is_none()
            && !matches!(action, Action::Fill(_) | Action::FillUpper(_) | Action::Drop(_))
        {
            broken = self.tail(&mut a, usize::from(me));
        }
        e.seen |= a.seen;
        e.others |= a.others;
        if a.seen & Seen::FULL != 0 {
            return true; // no such run with this depth; the caller repeats with a deeper buffer
        }
        if a.seen & Seen::OVERFLOW != 0 || broken == Some(Violation::Overflow) {
            e.seen |= Seen::OVERFLOW;
            return true;
        }
        out((me, action), broken.map_or(Ok(a.s), Err))
    }

    /// What a CPU's program does next: these may read the words of other CPUs.
    pub fn steps<const W: usize>(
        &self,
        s: &[u64; W],
        cpu: usize,
        e: &mut Expansion,
        out: &mut impl FnMut(Move, Result<[u64; W], Violation>) -> bool,
    ) -> bool {
        let c = &self.layout.cpus[cpu];
        let role = self.role(cpu);
        let at = Abs::new(self, *s);
        let top = at.top(cpu);
        e.seen |= at.holds_dead(cpu);
        let get = |b: super::layout::Bits| b.get(s);
        let mut emit = |action: Action, a: Abs<'_, W>, broken: Option<Violation>, e: &mut Expansion| {
            self.emit((cpu as u8, action), a, broken, e, out)
        };
        if let Some(level) = top {
            e.busy = true;
            let (_, op) = at.next_op(cpu, level);
            let f = &c.frames[level];
            let blocked = op == Op::Return && f.locations[get(f.at) as usize - 1].iret && get(c.pending) != 0;
            if blocked {
                // IRET publishes: earlier stores first.
            } else if let Op::Each { of, .. } = op {
                let mut probe = Abs::new(self, *s);
                probe.level = level;
                let choices = u64::from(probe.members(of, cpu as u16)) & !get(f.visited);
                if choices.count_ones() < 2 {
                    let mut a = Abs::new(self, *s);
                    a.run(cpu, level);
                    e.progress = true;
                    if !emit(Action::Step, a, None, e) {
                        return false;
                    }
                } else {
                    for w in (0..self.layout.cpus.len()).filter(|w| choices >> w & 1 != 0) {
                        let mut a = Abs::new(self, *s);
                        a.pick = Some(w as u16);
                        a.run(cpu, level);
                        e.progress = true;
                        if !emit(Action::Pick(w as u8), a, None, e) {
                            return false;
                        }
                    }
                }
            } else {
                let mut a = Abs::new(self, *s);
                let outcome = a.run(cpu, level);
                let go = match outcome {
                    Outcome::Wait => {
                        e.others |= a.others;
                        true
                    }
                    Outcome::Next | Outcome::Done => {
                        e.progress = true;
                        emit(Action::Step, a, None, e)
                    }
                    Outcome::Violated(v) => {
                        e.progress = true;
                        emit(Action::Step, a, Some(v), e)
                    }
                };
                if !go {
                    return false;
                }
            }
        } else {
            // Without bound nothing says that it ever does: a sender must not wait for it (S11).
            let unbounded = role.left == UNBOUNDED;
            if unbounded || get(c.left) > 0 {
                e.progress |= !unbounded;
                let mut a = Abs::new(self, *s);
                if !unbounded {
                    a.set(c.left, get(c.left) - 1);
                }
                a.enter(cpu, 0, self.code.program(&role.again).expect("the layout looked"));
                if role.rest == Rest::User {
                    a.set(c.irqs, 0);
                }
                if !emit(Action::Enter, a, None, e) {
                    return false;
                }
            }
            if role.rest == Rest::Kernel && !role.deaf {
                let mut a = Abs::new(self, *s);
                if let Err(v) = a.use_kernel(cpu)
                    && !emit(Action::Use, a, Some(v), e)
                {
                    return false;
                }
            }
        }
        true
    }

    /// What happens to a CPU whatever its program: it takes interrupts, its buffer drains, the hardware fills.
    pub fn events<const W: usize>(
        &self,
        s: &[u64; W],
        cpu: usize,
        e: &mut Expansion,
        out: &mut impl FnMut(Move, Result<[u64; W], Violation>) -> bool,
    ) -> bool {
        let c = &self.layout.cpus[cpu];
        let role = self.role(cpu);
        let shared = &self.layout.shared;
        let at = Abs::new(self, *s);
        let top = at.top(cpu);
        let get = |b: super::layout::Bits| b.get(s);
        let mut emit = |action: Action, a: Abs<'_, W>, broken: Option<Violation>, e: &mut Expansion| {
            self.emit((cpu as u8, action), a, broken, e, out)
        };
        // A switch to another mm's ASID: C code that keeps the kernel half mapped (FACTS 2.3, 2.5).
        if self.layout.asids > 1
            && top == Some(0)
            && role.rest == Rest::User
            && matches!(at.next_op(cpu, 0).1, Op::Body(Slot::Syscall))
            && get(c.pending) == 0
        {
            e.progress = true;
            let mut a = Abs::new(self, *s);
            a.switch_asid(cpu);
            if !emit(Action::Switch, a, None, e) {
                return false;
            }
        }
        // The store buffer.
        if get(c.pending) > 0 {
            e.progress = true;
            let mut a = Abs::new(self, *s);
            a.drain(cpu);
            if !emit(Action::Drain, a, None, e) {
                return false;
            }
        }
        // Interrupts and NMIs.
        let user = role.rest == Rest::User && top.is_none();
        if c.irq.exists() && get(c.irq) != 0 && get(c.irqs) != 0 && matches!(top, None | Some(0)) {
            e.progress = true;
            let mut a = Abs::new(self, *s);
            a.set(c.irq, 0);
            if user {
                a.enter(cpu, 0, self.entry.interrupt.expect("the layout looked"));
                a.set(c.irqs, 0);
            } else {
                a.enter(cpu, 1, self.entry.interrupt_kernel.expect("the layout looked"));
            }
            if !emit(Action::Irq, a, None, e) {
                return false;
            }
        }
        if self.assume.nmis_arrive && !role.deaf && (get(shared.nmis) > 0 || get(shared.mces) > 0) {
            let level = if user { 0 } else { top.map_or(1, |l| l + 1) };
            let room = level < 3 && c.frames[level].at.exists();
            let masked = (0..3).any(|l| {
                let f = &c.frames[l];
                let n = get(f.at);
                n != 0 && f.locations[n as usize - 1].nmi && get(f.mce) == 0
            });
            for (action, left, may) in
                [(Action::Nmi, shared.nmis, room && !masked), (Action::Mce, shared.mces, room)]
            {
                if !may || get(left) == 0 {
                    continue;
                }
                let mut a = Abs::new(self, *s);
                a.set(left, get(left) - 1);
                if user {
                    a.enter(cpu, 0, self.entry.nmi_user.expect("the layout looked"));
                    a.set(c.irqs, 0);
                    a.seen |= Seen::NMI_USER;
                } else {
                    a.enter(cpu, level, self.entry.nmi.expect("the layout looked"));
                    a.seen |= if get(c.cr3) & CR3_USER != 0 { Seen::NMI_USER_CR3 } else { Seen::NMI_KERNEL };
                }
                if action == Action::Mce {
                    a.set(c.frames[level].mce, 1);
                }
                if !emit(action, a, None, e) {
                    return false;
                }
            }
        }
        // The hardware fills and evicts.
        let cr3 = get(c.cr3);
        for (p, page) in self.layout.pages.iter().enumerate() {
            let Some(slot) = self.slot(page, cr3) else { continue };
            let tables = self.layout.tables && page.kind != PageKind::Text;
            debug_assert!(slot < tags(page, self.layout.asids));
            let cached = get(c.tlb[p][slot]);
            if cached != 0 {
                if tables {
                    let mut a = Abs::new(self, *s);
                    a.set(c.tlb[p][slot], 0);
                    if !emit(Action::Drop(p as u8), a, None, e) {
                        return false;
                    }
                }
                continue;
            }
            if !self.maps(page, cr3) || self.assume.fills == Fills::Demand && !self.demands(&at, cpu, top, p)
            {
                continue;
            }
            match at.walk(cpu, p, slot) {
                Ok(Some(v)) => {
                    let mut a = Abs::new(self, *s);
                    a.set(c.tlb[p][slot], v);
                    if !emit(Action::Fill(p as u8), a, None, e) {
                        return false;
                    }
                }
                Ok(None) => {}
                Err(v) => {
                    if !emit(Action::Fill(p as u8), Abs::new(self, *s), Some(v), e) {
                        return false;
                    }
                }
            }
            if tables && get(c.upper[p][slot]) == 0 && get(shared.upper_kind[p]) != 0 {
                let mut a = Abs::new(self, *s);
                a.set(c.upper[p][slot], get(shared.upper[p]));
                if !emit(Action::FillUpper(p as u8), a, None, e) {
                    return false;
                }
            }
        }
        true
    }

    /// Can an NMI, a machine check or an interrupt arrive on this CPU now?
    fn disturbed<const W: usize>(&self, a: &Abs<'_, W>, cpu: usize, top: usize) -> bool {
        let c = &self.layout.cpus[cpu];
        let shared = &self.layout.shared;
        if c.irq.exists() && top == 0 && a.get(c.irqs) != 0 {
            return true;
        }
        if !self.assume.nmis_arrive || self.role(cpu).deaf {
            return false;
        }
        let masked = || {
            (0..=top).any(|l| {
                let f = &c.frames[l];
                let n = a.get(f.at);
                n != 0 && f.locations[n as usize - 1].nmi && a.get(f.mce) == 0
            })
        };
        a.get(shared.mces) > 0 || a.get(shared.nmis) > 0 && !masked()
    }

    /// Does the next op commute with everything else that can happen now, on this CPU and on others, so that it
    /// may as well happen at once?
    ///
    /// Register ops always do. While nothing can interrupt this CPU so do ops on what only it can see: its
    /// GSBASE and CR3, its store buffer's tail, a switch away from a table that maps no tracked page, and an
    /// invalidation of everything (a fill just before it is undone by it).
    fn local<const W: usize>(&self, a: &Abs<'_, W>, cpu: usize, top: usize) -> bool {
        let (pc, op) = a.next_op(cpu, top);
        match op {
            Op::Move { .. } | Op::Alu { .. } | Op::Jump(_) | Op::Loop(_) | Op::Clear | Op::Put => true,
            // Other CPUs join and leave an address space's mask.
            Op::Unless {
                c: Cond::MeIn(Set::MmCpumask) | Cond::CurIn(Set::MmCpumask) | Cond::Empty(Set::MmCpumask),
                ..
            }
            | Op::Each { of: Set::MmCpumask, .. }
            | Op::Mask { .. } => false,
            Op::Unless { c, .. } => c != Cond::Cr3User || !self.disturbed(a, cpu, top),
            Op::Ask { .. } | Op::FlushInfo { .. } => !self.disturbed(a, cpu, top),
            Op::Load { from: Place { at: At::Asid(_), .. }, .. }
            | Op::Store { to: Place { at: At::Asid(_), .. }, .. } => !self.disturbed(a, cpu, top),
            Op::Touch(Touch::Zone(z)) if z == Zone::Entry && !self.zone_checks(z) => true,
            Op::Touch(Touch::Zone(z)) => !self.zone_checks(z) && !self.disturbed(a, cpu, top),
            Op::Body(_) => {
                !self.zone_checks(Model::zone_of(op).expect("a body has a zone"))
                    && !self.disturbed(a, cpu, top)
            }
            Op::Store { .. } => self.assume.store_buffers && !self.disturbed(a, cpu, top),
            Op::SwapGs | Op::ReadGs(_) | Op::SetGs(_) | Op::ReadCr3(_) | Op::Irq(true) => {
                !self.disturbed(a, cpu, top)
            }
            Op::MovCr3 { to: Cr3::Kernel, keep: NoFlush::Keep } => {
                self.nothing_user && self.pcid && !self.disturbed(a, cpu, top)
            }
            Op::Invpcid { kind: Invpcid::AllGlobal, .. } | Op::MovCr4Pge(_) => !self.disturbed(a, cpu, top),
            Op::Load { from, .. } => {
                self.private[usize::from(from.field)] && from.at == At::Me && !self.disturbed(a, cpu, top)
            }
            Op::Request(_) => self.writers == 1 && !self.disturbed(a, cpu, top),
            Op::Return => {
                let c = &self.layout.cpus[cpu];
                let f = &c.frames[top];
                let at = &f.locations[a.get(f.at) as usize - 1];
                debug_assert_eq!(at.pc, pc);
                at.ret == NO_PC && !(at.iret && a.get(c.pending) != 0) && !self.disturbed(a, cpu, top)
            }
            Op::Each { of, .. } => {
                let mut probe = Abs::new(self, a.s);
                probe.level = top;
                let visited = a.get(self.layout.cpus[cpu].frames[top].visited);
                (u64::from(probe.members(of, cpu as u16)) & !visited).count_ones() < 2
            }
            Op::Rmw { .. } | Op::Cas { .. } | Op::Await { .. } | Op::AwaitAcks | Op::Fence(_) => false,
            Op::Irq(false) | Op::MovCr3 { .. } | Op::Invlpg(_) | Op::Invpcid { .. } | Op::Invlpgb(_) => false,
            Op::InvlpgbAll
            | Op::Tlbsync
            | Op::Rar(_)
            | Op::Touch(_)
            | Op::Pte { .. }
            | Op::FreeTable(_)
            | Op::FreeMm(_) => false,
            Op::LoadPage { .. } | Op::StorePage { .. } => false,
            Op::Promise(_) | Op::Ipi { .. } | Op::HandleCalls | Op::OweUser | Op::OweOthers => false,
        }
    }

    /// Do accesses of this zone look at any tracked page?
    #[inline]
    fn zone_checks(&self, zone: Zone) -> bool {
        self.checked_zones >> zone as u8 & 1 != 0
    }

    /// Carry out local ops until there is none.
    fn tail<const W: usize>(&self, a: &mut Abs<'_, W>, cpu: usize) -> Option<Violation> {
        const MOST: usize = 200;
        for _ in 0..MOST {
            let top = a.top(cpu)?;
            if !self.local(a, cpu, top) {
                return None;
            }
            a.pick = None;
            match a.run(cpu, top) {
                Outcome::Next => {}
                Outcome::Done | Outcome::Wait => return None,
                Outcome::Violated(v) => return Some(v),
            }
            if a.seen & (Seen::FULL | Seen::OVERFLOW) != 0 {
                return None;
            }
        }
        None
    }

    /// Would the next op of this CPU walk for page `p`?
    fn demands<const W: usize>(&self, at: &Abs<'_, W>, cpu: usize, top: Option<usize>, p: usize) -> bool {
        let Some(level) = top else { return self.role(cpu).rest == Rest::Kernel };
        let op = at.next_op(cpu, level).1;
        match op {
            Op::Touch(Touch::Read(q) | Touch::Write(q)) => usize::from(q) == p,
            Op::Touch(Touch::Text) => self.layout.pages[p].kind == PageKind::Text,
            Op::LoadPage { page: q, .. } | Op::StorePage { page: q, .. } => usize::from(q) == p,
            op => Model::zone_of(op).is_some_and(|z| self.zone_may(z, self.layout.pages[p].kind)),
        }
    }

    /// Could `set` hold more than one CPU: does a loop over it have a choice?
    pub fn has_choice(&self, set: Set) -> bool {
        let n = self.layout.cpus.len();
        !matches!(set, Set::Others) && n > 1 || n > 2
    }
}

/// Does a program write page-table entries?
fn writes_entries(code: &Code, name: &str) -> bool {
    code.program(name).is_some_and(|p| {
        let p = &code.programs[usize::from(p.0)];
        code.ops[usize::from(p.start)..usize::from(p.end)].iter().any(|op| matches!(op, Op::Pte { .. }))
    })
}

/// What an expansion found beside successors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expansion {
    /// [`Seen`] bits.
    pub seen: u32,
    /// Something other than speculation and NMIs can happen.
    pub progress: bool,
    /// Some CPU waits and nothing can happen.
    pub deadlock: bool,
    /// Some CPU is amid a program.
    pub busy: bool,
    /// CPUs on whose words, beside the acting CPU's and the shared ones, it depends what can happen: a bit each.
    pub others: u8,
}
