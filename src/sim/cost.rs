//! What an op takes, in picoseconds: one number per op of the assembled policy, from the CPU's preset.

use super::scenario::Path;
use crate::hw::preset::{Figure, Preset};
use crate::kernel::program::{At, Code, Feature, Features, Fence, Invpcid, NoFlush, Op, Rcu, Walk};

/// Plain instructions have no source of their own: one cycle each.
const PLAIN: u64 = 1;

/// A serialising instruction such as CPUID or IRET to self, cycles; unsourced.
const SERIALIZE: u64 = 100;

/// Which end of each cost's interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Bound {
    /// The best estimate.
    #[default]
    Best,
    /// Everything as cheap as its source allows.
    Low,
    /// As dear.
    High,
}

/// The preset's name for what an op takes; plain instructions have none.
pub fn name_of(op: Op) -> Option<&'static str> {
    Some(match op {
        Op::Load { .. } | Op::Await { .. } | Op::Ask { .. } | Op::FlushInfo { .. } => "mem_l1",
        Op::Mask { .. }
        | Op::Rmw { .. }
        | Op::Cas { .. }
        | Op::Pte { locked: true, .. }
        | Op::HandleCalls => "lock",
        Op::Fence(Fence::Full) => "mfence",
        Op::SwapGs | Op::SetGs(_) => "swapgs",
        Op::MovCr3 { keep: NoFlush::Keep | NoFlush::Owed, .. } => "mov_cr3_noflush",
        Op::MovCr3 { keep: NoFlush::Flush, .. } => "mov_cr3_flush",
        Op::MovCr4Pge(_) => "cr4_pge_toggle",
        Op::Invlpg(_) => "invlpg",
        Op::Invpcid { kind, .. } => match kind {
            Invpcid::Address => "invpcid_address",
            Invpcid::Context => "invpcid_context",
            Invpcid::AllGlobal => "invpcid_all",
            Invpcid::All => "invpcid_non_global",
        },
        Op::Invlpgb(_) | Op::InvlpgbOf { .. } | Op::InvlpgbAll => "invlpgb",
        Op::Tlbsync => "tlbsync",
        Op::Rar(_) => "rar",
        // A cycle or so, or nothing: no preset has a cost for it.
        Op::Move { .. } | Op::MoveWide { .. } | Op::Alu { .. } | Op::Unless { .. } => return None,
        Op::Jump(_) | Op::Return => return None,
        Op::Loop(_) | Op::Each { .. } | Op::Clear | Op::Put | Op::Ipi { .. } => return None,
        Op::Store { .. } | Op::Irq(_) | Op::ReadGs(_) | Op::ReadCr3(_) | Op::Rsp(_) => return None,
        Op::Pte { locked: false, .. } | Op::FreeTable(_) | Op::FreeMm(_) => return None,
        // Not recorded of any CPU: [`refuse`](super::refuse) says so before a run.
        Op::Clflush(_) | Op::Wbinvd => return None,
        // The timed machine's tasks stay where they are: there is nobody to preempt them.
        Op::Migrate => return None,
        Op::OweUser | Op::OweOthers | Op::Touch(_) | Op::Body(_) => return None,
        Op::Request(_) | Op::Promise(_) => return None,
        Op::Fence(Fence::Serialize) => return None,
        // Priced as a load from the L1 in `Times::new`.
        Op::Fence(Fence::Load | Fence::Store) => "mem_l1",
        Op::AwaitAcks | Op::LoadPage { .. } | Op::StorePage { .. } => "mem_l1",
        // An entry comes from where the hardware's walks find theirs after a flush.
        Op::Walk { step: Walk::Use, .. } => "mem_l1",
        Op::Walk { .. } => "mem_l2",
        // The locked operation of context tracking.
        Op::Rcu(Rcu::Watch | Rcu::Unwatch) => "lock",
        Op::Rcu(_) | Op::CallLater(_) => return None,
    })
}

/// Costs of one run, in picoseconds.
#[derive(Clone, Debug)]
pub struct Times {
    /// By op.
    pub op: Vec<u64>,
    /// SYSCALL, SYSRET.
    pub syscall: (u64, u64),
    /// Interrupt delivery and return.
    pub interrupt: (u64, u64),
    /// NMI delivery and return.
    pub nmi: (u64, u64),
    /// One more INVLPG of a range.
    pub invlpg: u64,
    /// One more INVLPGB of a range.
    pub invlpgb: u64,
    /// MOV CR3 that flushes, beyond one that does not.
    pub cr3_flush_extra: u64,
    /// One more INVPCID of type 0 of a range.
    pub invpcid_address: u64,
    /// INVPCID types 2, 3 and 1.
    pub invpcid: (u64, u64, u64),
    /// CR4.PGE off and on.
    pub cr4_pge: u64,
    /// Queueing one remote call, same socket and other socket.
    pub queue_call: (u64, u64),
    /// Lines of other CPUs are told apart ([`Preset::lines_at_once`]): those on another socket take longer, and
    /// acknowledgements are read one after the other, in the order of CPUs (`csd_lock_wait` in
    /// `smp_call_function_many_cond`).
    pub apart: bool,
    /// What a load from, and a change of, a line on another socket takes beyond one on the same.
    pub far: (u64, u64),
    /// Sending one interrupt.
    pub send: u64,
    /// From sending to taking, same socket and other socket.
    pub ipi: (u64, u64),
    /// A line another core has just written, same socket and other socket.
    pub line: (u64, u64),
    /// One refill miss, overlapped with others.
    pub refill: u64,
    /// One poll of a waiting loop.
    pub poll: u64,
}

impl Times {
    /// What the hardware takes to enter and to leave by a path. No source has SYSENTER: it takes what SYSCALL does.
    /// A faulting IRET is a second delivery and a second return.
    pub fn path(&self, by: Path) -> (u64, u64) {
        match by {
            Path::Syscall | Path::SyscallCompat | Path::SysenterCompat => self.syscall,
            Path::Exception | Path::ExceptionEspfix => self.interrupt,
            Path::ExceptionBadIret => (self.interrupt.0, self.interrupt.0 + 2 * self.interrupt.1),
        }
    }

    /// The times of a policy's ops on a CPU.
    pub fn new(code: &Code, cpu: &Preset, features: Features, bound: Bound) -> Self {
        let c = &cpu.costs;
        let ps = |cycles: u64| cpu.picoseconds(cycles);
        let of = |figure: Figure| {
            u64::from(match bound {
                Bound::Best => figure.cycles,
                Bound::Low => figure.low,
                Bound::High => figure.high,
            })
        };
        // Loads of a loop over CPUs do not wait for each other.
        let at_once = u64::from(cpu.lines_at_once.unwrap_or(1));
        let looked = |line: u64| (line + at_once / 2) / at_once;
        let look = |at: At| match at {
            At::Me | At::Asid(_) => 0,
            At::Cur => looked(of(c.remote_line)),
            At::Shared | At::Mm(_) => of(c.remote_line),
        };
        let remote = |at: At| match at {
            At::Me | At::Asid(_) => 0,
            At::Shared | At::Cur | At::Mm(_) => of(c.remote_line),
        };
        let op = code
            .ops
            .iter()
            .map(|op| {
                ps(match *op {
                    Op::Move { .. } | Op::MoveWide { .. } | Op::Alu { .. } => PLAIN,
                    Op::Unless { .. } | Op::Jump(_) => PLAIN,
                    Op::Loop(_) | Op::Each { .. } | Op::Clear | Op::Put => PLAIN,
                    Op::Load { from, .. } => of(c.mem_l1) + look(from.at),
                    Op::Store { to, .. } => PLAIN + remote(to.at),
                    Op::Rmw { at, .. } | Op::Cas { at, .. } => of(c.lock) + remote(at.at),
                    Op::Await { at, .. } => of(c.mem_l1) + remote(at.at),
                    Op::AwaitAcks => of(c.mem_l1),
                    Op::Fence(Fence::Full) => of(c.mfence),
                    Op::Fence(Fence::Load | Fence::Store) => of(c.mem_l1),
                    Op::Fence(Fence::Serialize) => SERIALIZE,
                    Op::Irq(_) | Op::ReadGs(_) | Op::ReadCr3(_) => PLAIN,
                    Op::SwapGs | Op::SetGs(_) => of(c.swapgs),
                    Op::MovCr3 { keep: NoFlush::Keep | NoFlush::Owed, .. } if features.has(Feature::Pcid) => {
                        of(c.mov_cr3_noflush)
                    }
                    Op::MovCr3 { .. } => of(c.mov_cr3_flush),
                    Op::MovCr4Pge(_) => of(c.cr4_pge_toggle) / 2,
                    Op::Invlpg(_) => of(c.invlpg),
                    Op::Invpcid { kind, .. } => of(match kind {
                        Invpcid::Address => c.invpcid_address,
                        Invpcid::Context => c.invpcid_context,
                        Invpcid::AllGlobal => c.invpcid_all,
                        Invpcid::All => c.invpcid_non_global,
                    }),
                    Op::Invlpgb(_) | Op::InvlpgbOf { .. } | Op::InvlpgbAll => of(c.invlpgb),
                    Op::Tlbsync => of(c.tlbsync),
                    Op::Rar(_) => of(c.rar),
                    Op::LoadPage { .. } | Op::StorePage { .. } => of(c.mem_l1),
                    Op::Walk { step: Walk::Use, .. } => of(c.mem_l1),
                    Op::Walk { .. } => of(c.mem_l2),
                    Op::Rcu(Rcu::Watch | Rcu::Unwatch) => of(c.lock),
                    Op::Rcu(Rcu::Wait) => 0,
                    Op::Rcu(_) | Op::CallLater(_) => PLAIN,
                    Op::Touch(_) | Op::Body(_) | Op::Request(_) | Op::Promise(_) | Op::Rsp(_) => 0,
                    Op::Pte { locked: true, .. } => of(c.lock),
                    Op::Pte { .. } | Op::FreeTable(_) | Op::FreeMm(_) | Op::OweUser | Op::OweOthers => PLAIN,
                    Op::Migrate | Op::Clflush(_) | Op::Wbinvd => 0,
                    // The six slots of choose_new_asid are one cache line.
                    Op::Ask { .. } | Op::FlushInfo { .. } => of(c.mem_l1),
                    Op::Mask { .. } => of(c.lock) + of(c.remote_line),
                    Op::Ipi { .. } => PLAIN,
                    Op::HandleCalls => of(c.lock),
                    Op::Return => PLAIN,
                })
            })
            .collect();
        // After a full flush the paging-structure caches are empty too; most walks then read the PDE and the PTE.
        let walk = of(c.walk_setup) + 2 * of(c.mem_l2);
        let near = of(c.remote_line);
        let far = if cpu.lines_at_once.is_some() { near.max(of(c.remote_line_cross_socket)) } else { near };
        Times {
            op,
            syscall: (ps(of(c.syscall)), ps(of(c.sysret))),
            interrupt: (ps(of(c.interrupt_entry)), ps(of(c.interrupt_exit))),
            nmi: (ps(of(c.nmi_entry)), ps(of(c.nmi_exit))),
            invlpg: ps(of(c.invlpg)),
            invlpgb: ps(of(c.invlpgb)),
            cr3_flush_extra: ps(of(c.mov_cr3_flush).saturating_sub(of(c.mov_cr3_noflush))),
            invpcid_address: ps(of(c.invpcid_address)),
            invpcid: (ps(of(c.invpcid_all)), ps(of(c.invpcid_non_global)), ps(of(c.invpcid_context))),
            cr4_pge: ps(of(c.cr4_pge_toggle)),
            queue_call: (ps(of(c.lock) + near), ps(of(c.lock) + far)),
            apart: cpu.lines_at_once.is_some(),
            far: (ps(looked(far) - looked(near)), ps(far - near)),
            send: ps(of(c.ipi_send)),
            ipi: (ps(of(c.ipi_same_socket)), ps(of(c.ipi_cross_socket))),
            line: (ps(of(c.remote_line)), ps(of(c.remote_line_cross_socket))),
            refill: ps(c.overlapped(walk)),
            poll: ps(of(c.remote_line)).max(1000),
        }
    }
}
