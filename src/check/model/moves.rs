//! What can happen next on one CPU: its program's move, and what happens to it whatever its program.

use std::ops::ControlFlow::{self, Break, Continue};

use super::{Action, Expansion};
use crate::check::layout::{Bits, Device, tags};
use crate::check::machine::{Abs, CR3_USER, Model, Seen};
use crate::check::scope::{Fills, Rest, Role, UNBOUNDED};
use crate::kernel::program::{Cond, Op, PageKind, Set, Slot, Touch};
use crate::kernel::step::{Outcome, Violation};

/// Where moves of one CPU in one state go to. `Break` says that the taker has seen enough.
struct Moves<'m, 'e, F, const W: usize> {
    m: &'m Model,
    s: &'e [u64; W],
    cpu: usize,
    e: &'e mut Expansion,
    out: &'e mut F,
}

type Go = ControlFlow<()>;

impl<F, const W: usize> Moves<'_, '_, F, W>
where
    F: FnMut((u8, Action), Result<[u64; W], Violation>) -> bool,
{
    fn get(&self, b: Bits) -> u64 {
        b.get(self.s)
    }

    /// A move that always succeeds.
    #[inline]
    fn may(&mut self, action: Action, change: impl FnOnce(&mut Abs<'_, W>)) -> Go {
        let mut a = Abs::new(self.m, *self.s);
        change(&mut a);
        self.pass(action, a, None)
    }

    /// The same, of what happens some day if nothing else does (S11).
    #[inline]
    fn will(&mut self, action: Action, change: impl FnOnce(&mut Abs<'_, W>)) -> Go {
        self.e.progress = true;
        self.may(action, change)
    }

    /// A move that breaks a rule.
    fn breaks(&mut self, action: Action, rule: Violation) -> Go {
        self.pass(action, Abs::new(self.m, *self.s), Some(rule))
    }

    /// Pass on what an action leads to, with the local ops that happen at once.
    #[inline]
    fn pass(&mut self, action: Action, mut a: Abs<'_, W>, mut broken: Option<Violation>) -> Go {
        let speculative = matches!(
            action,
            Action::Fill(_) | Action::FillUpper(_) | Action::Drop(_) | Action::Line(_) | Action::WriteBack(_)
        );
        if self.m.fuse && broken.is_none() && !speculative {
            broken = self.m.tail(&mut a, self.cpu);
        }
        if !speculative {
            a.rename_counts();
        }
        self.e.seen |= a.seen;
        self.e.others |= a.others;
        if a.seen & Seen::FULL != 0 {
            return Continue(()); // no such run with this depth; the caller repeats with a deeper buffer
        }
        if a.seen & Seen::OVERFLOW != 0 || broken == Some(Violation::Overflow) {
            self.e.seen |= Seen::OVERFLOW;
            return Continue(());
        }
        if broken.is_some_and(|rule| self.m.scope.sought.is_some_and(|sought| sought != rule)) {
            return Continue(());
        }
        let go_on = (self.out)((self.cpu as u8, action), broken.map_or(Ok(a.s), Err));
        if go_on { Continue(()) } else { Break(()) }
    }

    /// The next op of the frame at `level`.
    fn program(&mut self, level: usize) -> Go {
        self.e.busy = true;
        let (m, cpu) = (self.m, self.cpu);
        let c = &m.layout.cpus[cpu];
        let f = &c.frames[level];
        let (pc, op) = Abs::new(m, *self.s).next_op(cpu, level);
        if let Op::Each { of, .. } = op {
            let mut probe = Abs::new(m, *self.s);
            probe.level = level;
            let visited = self.get(f.visited);
            let choices = u64::from(probe.members(of, cpu as u16)) & !visited;
            // One that joins behind the walk is passed by (SEMANTICS L4), also where others that the walk may come to have
            // not joined yet. Without any the walk can only end, which passes this one by, too.
            if of == Set::MmCpumask {
                let beyond = u64::from(m.joiners) & !choices & !visited & !(1 << cpu);
                let others = |w: &usize| (choices | beyond) & !(1 << w) != 0;
                for w in (0..m.layout.cpus.len()).filter(|w| beyond >> w & 1 != 0).filter(others) {
                    self.will(Action::Pass(w as u8), |a| a.set(f.visited, visited | 1 << w))?;
                }
            }
            if choices.count_ones() < 2 {
                return self.will(Action::Step, |a| {
                    a.run(cpu, level);
                });
            }
            for w in (0..m.layout.cpus.len()).filter(|w| choices >> w & 1 != 0) {
                self.will(Action::Pick(w as u8), |a| {
                    a.pick = Some(w as u16);
                    a.run(cpu, level);
                })?;
            }
            return Continue(());
        }
        if matches!(op, Op::Unless { c: Cond::Either, .. }) {
            for way in [true, false] {
                self.will(Action::Take(way), |a| {
                    a.takes = way;
                    a.run(cpu, level);
                })?;
            }
            return Continue(());
        }
        if op == Op::Migrate {
            self.e.others |= m.masks[3];
            let free = if self.get(c.pending) == 0 { Abs::new(m, *self.s).free_for(cpu, level) } else { 0 };
            for to in (0..m.layout.cpus.len()).filter(|to| free >> to & 1 != 0) {
                self.will(Action::Pick(to as u8), |a| {
                    a.pick = Some(to as u16);
                    a.run(cpu, level);
                })?;
            }
            if free != 0 {
                return Continue(());
            }
        }
        // IRET publishes: earlier stores first.
        if op == Op::Return && f.locations[self.get(f.at) as usize - 1].iret && self.get(c.pending) != 0 {
            return Continue(());
        }
        let mut a = Abs::new(m, *self.s);
        let broken = match a.run(cpu, level) {
            Outcome::Wait => {
                self.e.others |= a.others;
                return Continue(());
            }
            Outcome::Next if m.fuse => m.ahead(&mut a, cpu, level, pc),
            Outcome::Next | Outcome::Done | Outcome::Breakpoint => None,
            Outcome::Violated(v) => Some(v),
        };
        self.e.progress = true;
        self.pass(Action::Step, a, broken)
    }

    /// A CPU at rest starts its next program; one that rests in the kernel runs ordinary kernel code.
    fn rest(&mut self, role: &Role) -> Go {
        let (m, cpu) = (self.m, self.cpu);
        let c = &m.layout.cpus[cpu];
        // Without bound nothing says that it ever does: a sender must not wait for it (S11).
        let unbounded = role.left == UNBOUNDED;
        let left = self.get(c.left);
        if self.get(c.fault) != 0 {
            return Continue(()); // its handler is no code of the test
        }
        if unbounded || left > 0 {
            self.e.progress |= !unbounded;
            let ready = self.deliverable();
            for (i, path) in m.paths[cpu].iter().enumerate() {
                // Of paths that are one the first stands for all, and a system call stands before exceptions.
                if !ready && path.is_delivered(&m.code) {
                    continue;
                }
                self.may(if i == 0 { Action::Enter } else { Action::EnterBy(i as u8) }, |a| {
                    if !unbounded {
                        a.set(c.left, left - 1);
                    }
                    if path.is_of_devices() && role.rest == Rest::User {
                        a.enter_for_device(cpu, 0, path.start);
                    } else {
                        a.enter_at(cpu, 0, path.start);
                    }
                    if role.rest == Rest::User {
                        a.set(c.irqs, 0);
                        if c.frames[0].scratch.exists() {
                            a.set(c.frames[0].scratch, u64::from(!path.has_stack(&m.code)));
                        }
                    }
                })?;
            }
        }
        if role.rest == Rest::Kernel && !role.deaf {
            let mut a = Abs::new(m, *self.s);
            if a.has_left(cpu) {
                return Continue(());
            }
            if let Err(v) = a.use_kernel(cpu) {
                return self.pass(Action::Use, a, Some(v));
            }
        }
        Continue(())
    }

    /// A switch to another mm's ASID: C code that keeps the kernel half mapped (FACTS 2.3, 2.5).
    fn switch(&mut self, role: &Role, top: Option<usize>) -> Go {
        let cpu = self.cpu;
        let in_syscall = self.m.layout.asids > 1
            && top == Some(0)
            && role.rest == Rest::User
            && matches!(Abs::new(self.m, *self.s).next_op(cpu, 0).1, Op::Body(Slot::Syscall));
        if in_syscall && self.get(self.m.layout.cpus[cpu].pending) == 0 {
            self.will(Action::Switch, |a| a.switch_asid(cpu))?;
        }
        Continue(())
    }

    /// Is the store buffer as empty as delivery of an interrupt or exception makes it (SEMANTICS H5)? It drains by itself.
    fn deliverable(&self) -> bool {
        !self.m.assume.interrupts_drain || self.get(self.m.layout.cpus[self.cpu].pending) == 0
    }

    /// Interrupts, at IF=1 (SEMANTICS H5): the pending one, and amid a program one that a device sends. In user mode
    /// that is an entry, and at rest in the kernel its touches are those of ordinary code.
    fn interrupt(&mut self, user: bool, top: Option<usize>) -> Go {
        let (m, cpu) = (self.m, self.cpu);
        let c = &m.layout.cpus[cpu];
        if !matches!(top, None | Some(0)) || self.get(c.irqs) == 0 || !self.deliverable() {
            return Continue(());
        }
        let stack = self.get(c.frames[0].scratch) == 0;
        let idle = top == Some(0) && m.code.is_idle_at(Abs::new(m, *self.s).next_op(cpu, 0).0);
        if top == Some(0) {
            self.device(idle, stack)?;
        }
        if !c.irq.exists() || self.get(c.irq) == 0 {
            return Continue(());
        }
        if !stack {
            return self.breaks(Action::Irq, Violation::UnusableStack);
        }
        self.will(Action::Irq, |a| {
            a.set(c.irq, 0);
            if user {
                a.enter(cpu, 0, m.entry.interrupt.expect("the layout looked"));
                a.set(c.irqs, 0);
            } else {
                let entry = if idle { m.entry.interrupt_idle } else { m.entry.interrupt_kernel };
                a.enter(cpu, 1, entry.expect("the layout looked"));
            }
        })
    }

    /// What was to run after a grace period runs like an interrupt of this CPU.
    fn later(&mut self, top: Option<usize>) -> Go {
        let (m, cpu) = (self.m, self.cpu);
        let c = &m.layout.cpus[cpu];
        if c.later.is_empty()
            || !matches!(top, None | Some(0))
            || self.get(c.irqs) == 0
            || !self.deliverable()
        {
            return Continue(());
        }
        match Abs::new(m, *self.s).due_later(cpu) {
            Some(run) => self.will(Action::Later, |a| a.start_later(cpu, run)),
            None => Continue(()),
        }
    }

    /// A device interrupt by itself, amid a program.
    fn device(&mut self, idle: bool, stack: bool) -> Go {
        let (m, cpu) = (self.m, self.cpu);
        let c = &m.layout.cpus[cpu];
        match &m.devices[cpu][usize::from(idle)] {
            Device::Never => Continue(()),
            // One of those that are left: it is taken, not only looked on.
            Device::Checks(_) if !stack => {
                let role = m.role(cpu);
                let some = role.rest == Rest::Kernel || role.left == UNBOUNDED || self.get(c.left) > 0;
                if some { self.breaks(Action::Device, Violation::UnusableStack) } else { Continue(()) }
            }
            Device::Checks(zones) => {
                let mut a = Abs::new(m, *self.s);
                match zones.iter().find_map(|&zone| a.touch_zone(cpu, zone).err()) {
                    Some(rule) => self.pass(Action::Device, a, Some(rule)),
                    None => Continue(()),
                }
            }
            Device::Runs(start) => {
                let role = m.role(cpu);
                let budget = if role.rest == Rest::User { c.left } else { c.devices };
                let left = self.get(budget);
                let unbounded = role.rest == Rest::User && role.left == UNBOUNDED;
                if left == 0 && !unbounded {
                    return Continue(());
                }
                if !stack {
                    return self.breaks(Action::Device, Violation::UnusableStack);
                }
                self.may(Action::Device, |a| {
                    if !unbounded {
                        a.set(budget, left - 1);
                    }
                    a.enter_for_device(cpu, 1, *start);
                })
            }
        }
    }

    /// An NMI outside of NMIs, and a machine check anywhere.
    fn nmis(&mut self, user: bool, top: Option<usize>) -> Go {
        let (m, cpu) = (self.m, self.cpu);
        let c = &m.layout.cpus[cpu];
        let shared = &m.layout.shared;
        let (nmis, mces) = (self.get(shared.nmis), self.get(shared.mces));
        if !m.assume.nmis_arrive || m.role(cpu).deaf || nmis == 0 && mces == 0 {
            return Continue(());
        }
        let level = if user { 0 } else { top.map_or(1, |l| l + 1) };
        if level == 3 || !c.frames[level].at.exists() || !self.deliverable() {
            return Continue(());
        }
        let enter = |a: &mut Abs<'_, W>| {
            if user {
                a.enter(cpu, 0, m.entry.nmi_user.expect("the layout looked"));
                a.set(c.irqs, 0);
                a.seen |= Seen::NMI_USER;
            } else {
                let under_user = a.get(c.cr3) & CR3_USER != 0;
                a.enter(cpu, level, m.entry.nmi.expect("the layout looked"));
                a.seen |= if under_user { Seen::NMI_USER_CR3 } else { Seen::NMI_KERNEL };
            }
        };
        if nmis > 0 && !m.nmis_blocked(&Abs::new(m, *self.s), cpu) {
            self.may(Action::Nmi, |a| {
                a.set(shared.nmis, nmis - 1);
                enter(a);
                a.set(c.nmi_blocked, u64::from(c.nmi_blocked.exists()));
            })?;
        }
        if mces > 0 {
            self.may(Action::Mce, |a| {
                a.set(shared.mces, mces - 1);
                enter(a);
                a.set(c.frames[level].mce, 1);
            })?;
        }
        Continue(())
    }

    /// The hardware fills and evicts (SEMANTICS H2).
    fn hardware(&mut self, top: Option<usize>) -> Go {
        let (m, cpu) = (self.m, self.cpu);
        let c = &m.layout.cpus[cpu];
        let shared = &m.layout.shared;
        let at = Abs::new(m, *self.s);
        let cr3 = self.get(c.cr3);
        for (p, page) in m.layout.pages.iter().enumerate() {
            if m.is_typed(p) {
                self.lines(&at, top, p)?;
            }
            let Some(slot) = m.slot(page, cr3) else { continue };
            let tables = m.layout.tables && page.kind != PageKind::Text;
            debug_assert!(slot < tags(page, m.layout.asids));
            if self.get(c.tlb[p][slot]) != 0 {
                if page.kind != PageKind::Text && (m.evicts || tables && !m.fuse) {
                    self.may(Action::Drop(p as u8), |a| a.forget(cpu, p, slot))?;
                }
                continue;
            }
            // Which table a walk goes through decides nothing while a leaf is cached: it is evicted first.
            if m.evicts
                && let Some(slot) = m.upper_slot(page, cr3)
                && self.get(c.upper[p][slot]) != 0
            {
                self.may(Action::Drop(p as u8), |a| a.forget_upper(cpu, p, slot))?;
            }
            if page.kind == PageKind::Text && m.fuse && m.late && self.get(shared.waiting[p]) == 0 {
                continue;
            }
            if !m.maps(page, cr3) || m.assume.fills == Fills::Demand && !m.demands(&at, cpu, top, p) {
                continue;
            }
            match at.walk(cpu, p, cr3) {
                Ok(Some(leaf)) => self.may(Action::Fill(p as u8), |a| a.hold(cpu, p, slot, leaf))?,
                Ok(None) => {}
                Err(v) => self.breaks(Action::Fill(p as u8), v)?,
            }
            let upper = m.upper_slot(page, cr3).map(|slot| c.upper[p][slot]);
            if let Some(upper) = upper
                && tables
                && self.get(upper) == 0
                && self.get(shared.upper_kind[p]) != 0
                && at.leads(p, cr3)
            {
                let version = self.get(shared.upper[p]);
                self.may(Action::FillUpper(p as u8), |a| a.set(upper, version))?;
            }
        }
        Continue(())
    }
}

impl<F, const W: usize> Moves<'_, '_, F, W>
where
    F: FnMut((u8, Action), Result<[u64; W], Violation>) -> bool,
{
    /// A line of a page comes, by an access or because the hardware fetches ahead; and it is written back or read, at any
    /// time and whatever table is loaded (SEMANTICS H11, S14).
    fn lines(&mut self, at: &Abs<'_, W>, top: Option<usize>, p: usize) -> Go {
        let (m, cpu) = (self.m, self.cpu);
        let held = m.layout.cpus[cpu].lines[p];
        if self.get(held) != 0 {
            if at.is_relied_on(p) {
                return self.breaks(Action::WriteBack(p as u8), Violation::StaleLine);
            }
            return Continue(());
        }
        let asked = m.assume.fills == Fills::Speculative || m.demands(at, cpu, top, p);
        if asked && at.brings_in(cpu, p) {
            return self.may(Action::Line(p as u8), |a| a.set(held, 1));
        }
        Continue(())
    }
}

impl Model {
    /// The actions of one CPU; `false` if `out` ended the enumeration.
    pub fn of_cpu<const W: usize>(
        &self,
        s: &[u64; W],
        cpu: usize,
        e: &mut Expansion,
        out: &mut impl FnMut((u8, Action), Result<[u64; W], Violation>) -> bool,
    ) -> bool {
        self.steps(s, cpu, e, out) && self.events(s, cpu, e, out)
    }

    /// What a CPU's program does next: these may read the words of other CPUs.
    pub fn steps<const W: usize>(
        &self,
        s: &[u64; W],
        cpu: usize,
        e: &mut Expansion,
        out: &mut impl FnMut((u8, Action), Result<[u64; W], Violation>) -> bool,
    ) -> bool {
        let at = Abs::new(self, *s);
        e.seen |= at.holds_dead(cpu);
        let mut moves = Moves { m: self, s, cpu, e, out };
        let done = match at.top(cpu) {
            Some(level) => moves.program(level),
            None => moves.rest(self.role(cpu)),
        };
        done.is_continue()
    }

    /// What happens to a CPU whatever its program: it takes interrupts, its buffer drains, the hardware fills.
    pub fn events<const W: usize>(
        &self,
        s: &[u64; W],
        cpu: usize,
        e: &mut Expansion,
        out: &mut impl FnMut((u8, Action), Result<[u64; W], Violation>) -> bool,
    ) -> bool {
        let top = Abs::new(self, *s).top(cpu);
        let role = self.role(cpu);
        let user = role.rest == Rest::User && top.is_none() && self.layout.cpus[cpu].fault.get(s) == 0;
        let mut moves = Moves { m: self, s, cpu, e, out };
        let mut all = || {
            moves.switch(role, top)?;
            if moves.get(self.layout.cpus[cpu].pending) > 0 {
                moves.will(Action::Drain, |a| a.drain(cpu))?;
            }
            moves.interrupt(user, top)?;
            moves.later(top)?;
            moves.nmis(user, top)?;
            moves.hardware(top)
        };
        all().is_continue()
    }

    /// Would the next op of this CPU walk for page `p`?
    fn demands<const W: usize>(&self, at: &Abs<'_, W>, cpu: usize, top: Option<usize>, p: usize) -> bool {
        let Some(level) = top else { return self.role(cpu).rest == Rest::Kernel };
        let op = at.next_op(cpu, level).1;
        match op {
            Op::Touch(Touch::Read(q) | Touch::Write(q)) => {
                usize::from(q) == p || self.layout.pages[usize::from(q)].within == Some(p)
            }
            Op::Touch(Touch::Text) => self.layout.sites[0].is_some_and(|parts| parts.contains(&p)),
            Op::Unless { c: Cond::Text(site), .. } => {
                self.layout.sites[usize::from(site)].is_some_and(|parts| parts.contains(&p))
            }
            Op::LoadPage { page: q, .. } | Op::StorePage { page: q, .. } => usize::from(q) == p,
            op => {
                Model::zone_of(op).is_some_and(|z| Model::zone_may(self.assume, z, self.layout.pages[p].kind))
            }
        }
    }
}
