//! `step` executes one op of a program on a [`Machine`]: the one interpreter of the timed and the abstract machine.
//!
//! An op happens at once. What may happen *between* ops (drains, fills, interrupts) is the driver's business; an
//! op that needs an empty store buffer waits until the machine says it is.

use super::program::{
    Alu, Ask, At, Code, Cond, Cr3, Fence, Index, Op, Pages, Pc, Place, ProgId, REGS, Rcu, Reg, Set, Site,
    Slot, Touch, Val, Walk,
};
use super::program::{Entry, Invpcid, Level, NoFlush, PcidOf};

/// A CPU number. Programs never contain one.
pub type Cpu = u16;

/// No CPU: outside a loop.
pub const NO_CPU: Cpu = Cpu::MAX;

/// No return address: not inside a remote call.
pub const NO_PC: Pc = Pc::MAX;

/// One activation of a program on a CPU: task, interrupt, or NMI/#MC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Frame {
    /// Next op.
    pub pc: Pc,
    /// Where to go when the remote call being run is done; [`NO_PC`] outside one.
    pub ret: Pc,
    /// The CPU the enclosing loop is at.
    pub cur: Cpu,
    /// Registers.
    pub regs: [u64; REGS],
}

impl Frame {
    /// At the start of a program.
    pub fn new(pc: Pc) -> Self {
        Frame { pc, ret: NO_PC, cur: NO_CPU, regs: [0; REGS] }
    }

    fn val(&self, v: Val) -> u64 {
        match v {
            Val::Imm(n) => u64::from(n),
            Val::Reg(r) => self.regs[usize::from(r.0)],
        }
    }

    fn set(&mut self, r: Reg, v: u64) {
        self.regs[usize::from(r.0)] = v;
    }
}

/// What a rule of SEMANTICS forbids; the names are the ones reports use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Violation {
    /// S5: an architectural access through a covered version; the address is mapped again.
    StaleAccessReused,
    /// S5: an architectural access through a covered version; the address is not mapped again.
    StaleAccessNotReused,
    /// S6: a walk through a cached pointer to a freed page-table page.
    FreedTableWalk,
    /// S12: a walk in software reads a page-table page that was freed.
    FreedTableRead,
    /// S14: a cache line of a page is written back, or read, that a change of its type was relied on to have removed.
    StaleLine,
    /// S7: old code runs after a sync.
    StaleText,
    /// S8: a touch of what the loaded table does not map.
    UnmappedAccess,
    /// S8: a %gs-relative access while GSBASE is the user's.
    WrongGsAccess,
    /// S13: an exception or interrupt without a stack of its own where RSP holds none.
    UnusableStack,
    /// S9: user memory through another mm's translation.
    WrongAddressSpace,
    /// S9: an mm used after it was freed.
    FreedMm,
    /// S11: a sender that waits for ever.
    Deadlock,
    /// S11: a CPU that goes round a loop for ever.
    Livelock,
    /// A named condition holds, or an end asked for is reached.
    Invariant,
    /// A value does not fit its declared width: the run says nothing (never a wrap).
    Overflow,
}

impl Violation {
    /// Every rule.
    pub const ALL: [Violation; 15] = [
        Violation::StaleAccessReused,
        Violation::StaleAccessNotReused,
        Violation::FreedTableWalk,
        Violation::FreedTableRead,
        Violation::StaleLine,
        Violation::StaleText,
        Violation::UnmappedAccess,
        Violation::WrongGsAccess,
        Violation::UnusableStack,
        Violation::WrongAddressSpace,
        Violation::FreedMm,
        Violation::Deadlock,
        Violation::Livelock,
        Violation::Invariant,
        Violation::Overflow,
    ];

    /// The name SEMANTICS gives it.
    pub fn name(self) -> &'static str {
        match self {
            Violation::StaleAccessReused => "stale_access (reused)",
            Violation::StaleAccessNotReused => "stale_access (not_reused)",
            Violation::FreedTableWalk => "freed_table_walk",
            Violation::FreedTableRead => "freed_table_read",
            Violation::StaleLine => "stale_line",
            Violation::StaleText => "stale_text",
            Violation::UnmappedAccess => "unmapped_access",
            Violation::WrongGsAccess => "wrong_gs_access",
            Violation::UnusableStack => "unusable_stack",
            Violation::WrongAddressSpace => "wrong_address_space",
            Violation::FreedMm => "freed_mm",
            Violation::Deadlock => "deadlock",
            Violation::Livelock => "livelock",
            Violation::Invariant => "invariant",
            Violation::Overflow => "overflow",
        }
    }
}

/// An invalidation, in the words of the SDM and APM (FACTS 2.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Invalidate {
    /// MOV to CR4 that changes PGE.
    Cr4Pge(bool),
    /// INVLPG of each page.
    Page(Pages),
    /// INVPCID.
    Invpcid(Invpcid, PcidOf, Pages),
    /// INVLPGB of the pages on every CPU; globals included unless it names an ASID.
    Broadcast {
        /// Which.
        pages: Pages,
        /// Leaves alone ("final translation only").
        leaves: bool,
        /// The ASID, if it names one.
        asid: Option<u8>,
    },
    /// INVLPGB of everything, globals included; on every CPU.
    BroadcastAll,
}

/// How strongly an op orders memory: an op with `Publishes` waits until this CPU's earlier stores are visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// SEMANTICS H4 (a): MOV CR, INVLPG, LOCKed ops, MFENCE.
    Publishes,
    /// INVPCID and INVLPGB: what they wait for is an assumption about the machine.
    Invpcid,
}

/// What became of a patched instruction that a CPU ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ran {
    /// The old instruction: the branch goes the other way.
    Old,
    /// The new one: the branch goes on.
    New,
    /// An INT3. Its handler goes on as if the instruction that is being written stood there: is that the new one?
    Int3(bool),
    /// An INT3 whose delivery waits for the store buffer (SEMANTICS H5).
    Wait,
}

/// What `step` needs of a machine. Statically dispatched; the hot methods should inline.
pub trait Machine {
    /// May an op of this order execute now? `false`: earlier stores must drain first.
    fn ordered(&self, cpu: Cpu, order: Order) -> bool;
    /// About to execute `op`: the timed machine charges its cost here.
    fn charge(&mut self, cpu: Cpu, pc: Pc, op: Op);
    /// Load a field of `of`'s copy; sees this CPU's own buffered stores. `of` is a CPU, or the number of the address
    /// space or ASID that `at` chooses.
    fn read(&mut self, cpu: Cpu, field: u8, at: At, of: Cpu) -> Result<u64, Violation>;
    /// Store: may be buffered.
    fn write(&mut self, cpu: Cpu, field: u8, at: At, of: Cpu, v: u64) -> Result<(), Violation>;
    /// Locked: old value to new value, in memory, at once. Only called when `ordered(.., Publishes)`.
    fn rmw(
        &mut self,
        cpu: Cpu,
        field: u8,
        at: At,
        of: Cpu,
        f: impl FnOnce(u64) -> u64,
    ) -> Result<u64, Violation>;
    /// Is `who` in `set`, seen from `cpu`?
    fn contains(&self, cpu: Cpu, set: Set, who: Cpu) -> bool;
    /// Has the set no member?
    fn is_empty(&self, cpu: Cpu, set: Set) -> bool;
    /// Which way an undecided branch goes. A machine that explores both says which.
    fn decides(&self, _cpu: Cpu) -> bool {
        true
    }
    /// Start a loop.
    fn start_loop(&mut self, cpu: Cpu, set: Set);
    /// Next member not visited yet. A machine that explores orders decides which.
    fn next_in(&mut self, cpu: Cpu, set: Set) -> Option<Cpu>;
    /// Empty this frame's collected set.
    fn clear_targets(&mut self, cpu: Cpu);
    /// Add to this frame's collected set.
    fn put(&mut self, cpu: Cpu, who: Cpu);
    /// Set or clear IF.
    fn irq(&mut self, cpu: Cpu, on: bool);
    /// Whose GSBASE: `true` the kernel's.
    fn gs(&self, cpu: Cpu) -> bool;
    /// Change whose GSBASE is loaded.
    fn set_gs(&mut self, cpu: Cpu, kernel: bool);
    /// CR3 as a word only this machine reads; must be stable under copying between registers.
    fn cr3(&self, cpu: Cpu) -> u64;
    /// Is that CR3 word a user one?
    fn cr3_is_user(&self, cpu: Cpu, cr3: u64) -> bool;
    /// The CR3 word for `to` (registers resolved: `mm` and `asid` for [`Cr3::Mm`], the word for [`Cr3::Reg`]).
    fn cr3_for(&self, cpu: Cpu, to: Cr3, a: u64, b: u64) -> u64;
    /// Write CR3.
    fn mov_cr3(&mut self, cpu: Cpu, cr3: u64, keep: NoFlush) -> Result<(), Violation>;
    /// Write CR3 with another address space, or the same one, under an ASID of this CPU.
    fn load_mm(&mut self, cpu: Cpu, cr3: u64, keep: NoFlush) -> Result<(), Violation> {
        self.mov_cr3(cpu, cr3, keep)
    }
    /// Answer about address spaces; `v` is the question's operand.
    fn ask(&mut self, cpu: Cpu, what: Ask, v: u64) -> Result<u64, Violation>;
    /// Fill what the remote handler of this CPU's flush will read.
    fn flush_info(&mut self, cpu: Cpu, mm: u64, generation: u64);
    /// Set or clear this CPU's bit in `mm_cpumask` of `mm`. Only called when `ordered(.., Publishes)`.
    fn mask(&mut self, cpu: Cpu, mm: u64, on: bool) -> Result<(), Violation>;
    /// Invalidate.
    fn invalidate(&mut self, cpu: Cpu, what: Invalidate) -> Result<(), Violation>;
    /// Has every broadcast of this CPU completed? `false`: wait.
    fn tlbsync(&mut self, cpu: Cpu) -> bool;
    /// Remote action request to a set.
    fn rar(&mut self, cpu: Cpu, to: Set) -> Result<(), Violation>;
    /// Text fetched before must not run any more: CPUID, IRET, MOV CR (SEMANTICS H4 c). A machine whose CPUs hold
    /// no fetched text has nothing to do.
    fn serialise(&mut self, _cpu: Cpu) {}
    /// Set this CPU's owed flush of the user PCID (`others`: of the other ASIDs).
    fn owe(&mut self, cpu: Cpu, others: bool);
    /// An access whose translation matters.
    fn touch(&mut self, cpu: Cpu, what: Touch) -> Result<(), Violation>;
    /// Run a patched instruction that decides a branch.
    fn run_site(&mut self, cpu: Cpu, site: Site) -> Result<Ran, Violation>;
    /// RSP holds a stack from here on, or something else. A machine that follows no RSP has nothing to do.
    fn rsp(&mut self, _cpu: Cpu, _stack: bool) {}
    /// Load the data a page maps, through the TLB. A machine without data memory reads 0.
    fn load_page(&mut self, cpu: Cpu, page: u8) -> Result<u64, Violation> {
        self.touch(cpu, Touch::Read(page)).map(|()| 0)
    }
    /// Store to the data a page maps, through the TLB.
    fn store_page(&mut self, cpu: Cpu, page: u8, _v: u64) -> Result<(), Violation> {
        self.touch(cpu, Touch::Write(page))
    }
    /// A step of a walk in software, by loads from memory.
    fn walk(&mut self, cpu: Cpu, page: u8, step: Walk) -> Result<(), Violation>;
    /// What a CPU does about grace periods. `Start` only when `ordered(.., Publishes)`; `Wait` only when [`Machine::graced`].
    fn rcu(&mut self, cpu: Cpu, what: Rcu) -> Result<(), Violation>;
    /// Is the grace period over that this CPU has asked for?
    fn graced(&self, cpu: Cpu) -> bool;
    /// Run a program on this CPU once a grace period is over.
    fn call_later(&mut self, cpu: Cpu, run: ProgId) -> Result<(), Violation>;
    /// A workload's own work: ordinary kernel code.
    fn body(&mut self, cpu: Cpu, slot: Slot) -> Result<(), Violation>;
    /// Write page-table entries. `locked`: only called when `ordered(.., Publishes)`.
    fn pte(&mut self, cpu: Cpu, pages: Pages, level: Level, v: Entry, locked: bool) -> Result<(), Violation>;
    /// The lines of pages go from every cache. A machine without caches has nothing to do.
    fn clflush(&mut self, _cpu: Cpu, _pages: Pages) -> Result<(), Violation> {
        Ok(())
    }
    /// Every line goes that this CPU holds; text fetched before must not run any more.
    fn wbinvd(&mut self, cpu: Cpu) {
        self.serialise(cpu);
    }
    /// Free page-table pages.
    fn free_table(&mut self, cpu: Cpu, pages: Pages) -> Result<(), Violation>;
    /// Free an mm: whoever loads its table from now on, or still has it loaded and walks, breaks S9.
    fn free_mm(&mut self, _cpu: Cpu, _mm: u8) {}
    /// The task of this CPU goes on on another one. A machine whose tasks stay has nothing to do.
    fn migrate(&mut self, _cpu: Cpu) {}
    /// Is the requested range flushed as a whole?
    fn range_is_full(&self, cpu: Cpu) -> bool;
    /// A flush is called for.
    fn request(&mut self, cpu: Cpu, pages: Pages);
    /// The caller relies on it.
    fn promise(&mut self, cpu: Cpu, pages: Pages) -> Result<(), Violation>;
    /// Queue a remote call; a sender's own CPU in the set runs it through `HandleCalls` semantics of the machine.
    fn ipi(&mut self, cpu: Cpu, to: Set, run: ProgId);
    /// Have all remote calls of this frame completed?
    fn acked(&self, cpu: Cpu) -> bool;
    /// Take the oldest queued remote call.
    fn take_call(&mut self, cpu: Cpu) -> Option<ProgId>;
    /// The call taken last has completed.
    fn ack(&mut self, cpu: Cpu);
}

/// What one op did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Executed; the frame is at the next op.
    Next,
    /// Executed, and it was an INT3: the frame is where the branch goes on when the handler is over, and whoever drives
    /// the machine starts that above it.
    Breakpoint,
    /// Cannot execute yet; nothing changed.
    Wait,
    /// The program is over.
    Done,
    /// A rule is broken.
    Violated(Violation),
}

/// Execute the op at `frame.pc`.
#[inline(always)] // the loops that call it are the hot ones; what this machine never does folds away there
#[allow(clippy::inline_always)]
pub fn step<M: Machine>(code: &Code, frame: &mut Frame, m: &mut M, cpu: Cpu) -> Outcome {
    match try_step(code, frame, m, cpu) {
        Ok(outcome) => outcome,
        Err(violation) => Outcome::Violated(violation),
    }
}

/// Must earlier stores be visible before this op may execute?
#[inline]
pub fn order_of(op: Op) -> Option<Order> {
    match op {
        Op::Rmw { .. } | Op::Cas { .. } | Op::Fence(Fence::Full | Fence::Serialize) => Some(Order::Publishes),
        Op::MovCr3 { .. } | Op::MovCr4Pge(_) | Op::Invlpg(_) | Op::Wbinvd => Some(Order::Publishes),
        Op::Pte { locked: true, .. } | Op::Mask { .. } => Some(Order::Publishes),
        // `llist_add` of a queued call is LOCKed (SEMANTICS L3); an x2APIC ICR write is preceded by MFENCE.
        Op::Ipi { .. } | Op::Rar(_) | Op::Tlbsync => Some(Order::Publishes),
        // A context switch: what the task stored before, it and others see wherever it goes on (SEMANTICS L11).
        Op::Migrate => Some(Order::Publishes),
        Op::Invpcid { .. } | Op::Invlpgb(_) | Op::InvlpgbOf { .. } | Op::InvlpgbAll => Some(Order::Invpcid),
        Op::Move { .. } | Op::Alu { .. } | Op::Load { .. } | Op::Store { .. } | Op::Unless { .. } => None,
        Op::Jump(_) | Op::Loop(_) | Op::Each { .. } | Op::Clear | Op::Put | Op::Await { .. } => None,
        Op::MoveWide { .. } | Op::Fence(Fence::Load | Fence::Store) => None,
        Op::AwaitAcks | Op::Irq(_) | Op::SwapGs | Op::ReadGs(_) | Op::SetGs(_) | Op::Rsp(_) => None,
        Op::LoadPage { .. } | Op::StorePage { .. } | Op::Ask { .. } | Op::FlushInfo { .. } => None,
        Op::ReadCr3(_) | Op::Touch(_) | Op::Body(_) | Op::Pte { .. } | Op::FreeTable(_) => None,
        // CLFLUSH takes its place among this CPU's stores (SEMANTICS H11).
        Op::FreeMm(_) | Op::Walk { .. } | Op::Clflush(_) => None,
        // ct_kernel_enter_state and ct_kernel_exit_state are one locked operation each; synchronize_rcu takes locks.
        Op::Rcu(Rcu::Watch | Rcu::Unwatch | Rcu::Start) => Some(Order::Publishes),
        Op::Rcu(Rcu::Lock | Rcu::Unlock | Rcu::Wait) | Op::CallLater(_) => None,
        Op::Request(_) | Op::Promise(_) | Op::HandleCalls | Op::OweUser | Op::OweOthers | Op::Return => None,
    }
}

#[inline(always)]
#[allow(clippy::inline_always)]
fn try_step<M: Machine>(code: &Code, f: &mut Frame, m: &mut M, cpu: Cpu) -> Result<Outcome, Violation> {
    let pc = f.pc;
    let op = code.ops[usize::from(pc)];
    // Without a target nothing is queued, so nothing LOCKed is executed.
    if let Some(order) = order_of(op)
        && !m.ordered(cpu, order)
        && !matches!(op, Op::Ipi { to, .. } | Op::Rar(to) if m.is_empty(cpu, to))
    {
        return Ok(Outcome::Wait);
    }
    let of = |p: Place, f: &Frame| match p.at {
        At::Shared | At::Me => cpu,
        At::Cur => f.cur,
        At::Mm(i) | At::Asid(i) => chosen(f, i),
    };
    let mut next = pc + 1;
    match op {
        Op::Await { at, f: cmp, v } => {
            let seen = m.read(cpu, at.field, at.at, of(at, f))?;
            if !cmp.holds(seen, f.val(v)) {
                return Ok(Outcome::Wait);
            }
        }
        Op::AwaitAcks if !m.acked(cpu) => return Ok(Outcome::Wait),
        Op::Tlbsync if !m.tlbsync(cpu) => return Ok(Outcome::Wait),
        Op::Rcu(Rcu::Wait) if !m.graced(cpu) => return Ok(Outcome::Wait),
        _ => {}
    }
    m.charge(cpu, pc, op);
    match op {
        Op::Move { to, v } => f.set(to, f.val(v)),
        Op::MoveWide { to, v } => f.set(to, u64::from(v)),
        Op::Alu { f: alu, to, a, b } => {
            let (a, b) = (f.regs[usize::from(a.0)], f.val(b));
            f.set(
                to,
                match alu {
                    Alu::Add => a.wrapping_add(b),
                    Alu::Sub => a.wrapping_sub(b),
                    Alu::And => a & b,
                    Alu::Or => a | b,
                    Alu::Xor => a ^ b,
                },
            );
        }
        Op::Load { to, from } => {
            let v = m.read(cpu, from.field, from.at, of(from, f))?;
            f.set(to, v);
        }
        Op::Store { to, v } => m.write(cpu, to.field, to.at, of(to, f), f.val(v))?,
        Op::Rmw { f: rmw, to, at, v } => {
            let b = f.val(v);
            let old = m.rmw(cpu, at.field, at.at, of(at, f), |a| rmw.apply(a, b).0)?;
            f.set(to, rmw.apply(old, b).1);
        }
        Op::Cas { to, at, old, new } => {
            let (old, new) = (f.val(old), f.val(new));
            let seen = m.rmw(cpu, at.field, at.at, of(at, f), |a| if a == old { new } else { a })?;
            f.set(to, seen);
        }
        Op::Unless { c: Cond::Text(site), to } => match m.run_site(cpu, site)? {
            Ran::New => {}
            Ran::Old => next = to,
            Ran::Wait => return Ok(Outcome::Wait),
            Ran::Int3(new) => {
                f.pc = if new { next } else { to };
                return Ok(Outcome::Breakpoint);
            }
        },
        Op::Unless { c, to } => {
            if !holds(c, f, m, cpu) {
                next = to;
            }
        }
        Op::Jump(to) => next = to,
        Op::Loop(set) => m.start_loop(cpu, set),
        Op::Each { of, done } => match m.next_in(cpu, of) {
            Some(who) => f.cur = who,
            None => {
                f.cur = NO_CPU;
                next = done;
            }
        },
        Op::Clear => m.clear_targets(cpu),
        Op::Put => m.put(cpu, f.cur),
        Op::Fence(Fence::Serialize) => m.serialise(cpu),
        Op::Await { .. } | Op::AwaitAcks | Op::Tlbsync => {}
        Op::Fence(Fence::Full | Fence::Load | Fence::Store) => {}
        Op::Irq(on) => m.irq(cpu, on),
        Op::SwapGs => {
            let kernel = m.gs(cpu);
            m.set_gs(cpu, !kernel);
        }
        Op::Rsp(stack) => m.rsp(cpu, stack),
        Op::ReadGs(to) => f.set(to, u64::from(m.gs(cpu))),
        Op::SetGs(v) => m.set_gs(cpu, f.val(v) != 0),
        Op::ReadCr3(to) => f.set(to, m.cr3(cpu)),
        Op::MovCr3 { to, keep } => {
            let (a, b) = match to {
                Cr3::Kernel | Cr3::User => (0, 0),
                Cr3::Reg(r) => (f.regs[usize::from(r.0)], 0),
                Cr3::Mm { mm, asid } => (f.val(mm), f.val(asid)),
            };
            let cr3 = m.cr3_for(cpu, to, a, b);
            match to {
                Cr3::Mm { .. } => m.load_mm(cpu, cr3, keep)?,
                Cr3::Kernel | Cr3::User | Cr3::Reg(_) => m.mov_cr3(cpu, cr3, keep)?,
            }
        }
        Op::MovCr4Pge(on) => m.invalidate(cpu, Invalidate::Cr4Pge(on))?,
        Op::Invlpg(pages) => m.invalidate(cpu, Invalidate::Page(pages))?,
        Op::Invpcid { kind, pcid, pages } => m.invalidate(cpu, Invalidate::Invpcid(kind, pcid, pages))?,
        Op::Invlpgb(pages) => {
            m.invalidate(cpu, Invalidate::Broadcast { pages, leaves: false, asid: None })?;
        }
        Op::InvlpgbOf { pages, leaves, asid } => {
            m.invalidate(cpu, Invalidate::Broadcast { pages, leaves, asid })?;
        }
        Op::InvlpgbAll => m.invalidate(cpu, Invalidate::BroadcastAll)?,
        Op::Rar(to) => m.rar(cpu, to)?,
        Op::Touch(what) => m.touch(cpu, what)?,
        Op::LoadPage { to, page } => {
            let v = m.load_page(cpu, page)?;
            f.set(to, v);
        }
        Op::StorePage { page, v } => m.store_page(cpu, page, f.val(v))?,
        Op::Walk { page, step } => m.walk(cpu, page, step)?,
        Op::Rcu(what) => m.rcu(cpu, what)?,
        Op::CallLater(run) => m.call_later(cpu, run)?,
        Op::Body(slot) => m.body(cpu, slot)?,
        Op::Pte { pages, level, v, locked } => m.pte(cpu, pages, level, v, locked)?,
        Op::Clflush(pages) => m.clflush(cpu, pages)?,
        Op::Wbinvd => m.wbinvd(cpu),
        Op::FreeTable(pages) => m.free_table(cpu, pages)?,
        Op::FreeMm(mm) => m.free_mm(cpu, mm),
        Op::Migrate => m.migrate(cpu),
        Op::Request(pages) => m.request(cpu, pages),
        Op::Promise(pages) => m.promise(cpu, pages)?,
        Op::Ipi { to, run } => m.ipi(cpu, to, run),
        Op::HandleCalls => {
            if let Some(run) = m.take_call(cpu) {
                f.ret = pc;
                next = code.start(run);
            }
        }
        Op::Ask { to, what } => {
            let v = if let Ask::AsidFor(v) = what { f.val(v) } else { 0 };
            let answer = m.ask(cpu, what, v)?;
            f.set(to, answer);
        }
        Op::FlushInfo { mm, generation } => m.flush_info(cpu, f.val(mm), f.val(generation)),
        Op::Mask { mm, on } => m.mask(cpu, f.val(mm), on)?,
        Op::OweUser => m.owe(cpu, false),
        Op::OweOthers => m.owe(cpu, true),
        Op::Return => {
            if f.ret == NO_PC {
                return Ok(Outcome::Done);
            }
            m.ack(cpu);
            next = f.ret;
            f.ret = NO_PC;
        }
    }
    f.pc = next;
    Ok(Outcome::Next)
}

/// The number that chooses a copy. None that exists is as large as the largest.
fn chosen(f: &Frame, i: Index) -> Cpu {
    Cpu::try_from(f.regs[usize::from(i.reg().0)]).unwrap_or(NO_CPU)
}

fn holds<M: Machine>(c: Cond, f: &Frame, m: &M, cpu: Cpu) -> bool {
    match c {
        Cond::Cmp(cmp, a, b) => cmp.holds(f.regs[usize::from(a.0)], f.val(b)),
        Cond::MeIn(set) => m.contains(cpu, set, cpu),
        Cond::CurIn(set) => m.contains(cpu, set, f.cur),
        Cond::CurIsMe => f.cur == cpu,
        Cond::Empty(set) => m.is_empty(cpu, set),
        Cond::Cr3User => m.cr3_is_user(cpu, m.cr3(cpu)),
        Cond::RegUser(r) => m.cr3_is_user(cpu, f.regs[usize::from(r.0)]),
        Cond::RangeFull => m.range_is_full(cpu),
        Cond::Either => m.decides(cpu),
        Cond::Text(_) => unreachable!("`try_step` runs it"),
    }
}
