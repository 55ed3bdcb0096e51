//! Invalidations that one CPU causes on others without an interrupt: AMD's INVLPGB with TLBSYNC (APM Vol. 3), and
//! Intel's Remote Action Request. Both are requests that the targets carry out later; only TLBSYNC, or the
//! acknowledgement of a RAR, says that they have.

use super::invalidate::{Invpcid, PscScope, Scope};
use super::mmu::Mmu;
use super::{Pcid, TlbError, Vpn};

/// INVLPGB's operand, in the kernel's names (`asm/tlb.h`); rAX, rCX, rDX of the APM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Invlpgb {
    /// VA valid (bit 0): the first page.
    pub page: Option<u64>,
    /// Further pages after `page` (rCX); each is `stride` 4 KiB pages long.
    pub extra: u16,
    /// Whether pages are counted in 2 MiB steps (rCX bit 31).
    pub stride_2m: bool,
    /// PCID valid (bit 1).
    pub pcid: Option<Pcid>,
    /// ASID valid (bit 2): 0 is the host. Without it guests lose their entries too.
    pub asid: Option<u16>,
    /// INCLUDE_GLOBAL (bit 3).
    pub globals: bool,
    /// FINAL_ONLY (bit 4): leaf translations only; paging-structure caches stay.
    pub final_only: bool,
}

impl Invlpgb {
    /// What it removes on one CPU that runs the host (ASID 0).
    pub fn scopes(self) -> impl Iterator<Item = Scope> {
        let step = if self.stride_2m { 512 } else { 1 };
        let psc = match (self.final_only, self.page) {
            (true, _) => PscScope::None,
            (false, Some(_)) => PscScope::Page,
            (false, None) => PscScope::Context,
        };
        // A host CPU holds only ASID 0's entries here; a request for a guest removes nothing from them.
        let count = match (self.asid.unwrap_or(0), self.page) {
            (0, Some(_)) => u64::from(self.extra) + 1,
            (0, None) => 1,
            _ => 0,
        };
        (0..count).map(move |i| Scope {
            page: self.page.map(|page| Vpn(page + i * step)),
            pcid: self.pcid,
            globals: self.globals,
            psc,
        })
    }
}

/// What a RAR asks of its targets (published list of operations; payload layouts are not public, FACTS 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rar {
    /// As INVLPG on each page, but only where the given root is loaded.
    Page {
        /// First page.
        first: Vpn,
        /// Pages.
        pages: u64,
        /// The context that must be current; `None`: page invalidation without CR3 match.
        current: Option<Pcid>,
    },
    /// As INVPCID.
    Invpcid(Invpcid),
    /// As MOV CR3 or a CR4.PGE toggle: everything.
    All,
}

/// Broadcasts in flight. `pending[c]` are scopes that CPU `c` has not carried out yet, with their sender.
#[derive(Clone, Debug, Default)]
pub struct Broadcast {
    pending: Vec<Vec<(usize, Scope)>>,
}

impl Broadcast {
    /// Nothing in flight between `cpus` CPUs.
    pub fn new(cpus: usize) -> Self {
        Broadcast { pending: vec![Vec::new(); cpus] }
    }

    /// INVLPGB on `sender`: queued on every CPU, the sender included. Refused if the machine lacks it or the page
    /// count exceeds what CPUID 8000_0008h.EDX\[15:0\] reports.
    pub fn invlpgb(&mut self, sender: usize, max_extra: Option<u16>, what: Invlpgb) -> Result<(), TlbError> {
        let fault = |rule: String| Err(TlbError::Fault { instruction: "INVLPGB", rule });
        let Some(max_extra) = max_extra else { return fault("this machine does not have it".into()) };
        if what.extra > max_extra {
            return fault(format!("extra pages must be at most {max_extra}: got {}", what.extra));
        }
        for queue in &mut self.pending {
            queue.extend(what.scopes().map(|scope| (sender, scope)));
        }
        Ok(())
    }

    /// RAR from `sender` to `targets`; `current[c]` is the context loaded on CPU `c`.
    pub fn rar(&mut self, sender: usize, targets: impl IntoIterator<Item = usize>, mmus: &[Mmu], what: Rar) {
        for cpu in targets {
            let here = mmus[cpu].pcid();
            match what {
                Rar::Page { first, pages, current } if current.is_none_or(|pcid| pcid == here) => {
                    let scopes = (0..pages).map(|i| (sender, Scope::invlpg(Vpn(first.0 + i), here)));
                    self.pending[cpu].extend(scopes);
                }
                Rar::Page { .. } => {}
                Rar::Invpcid(what) => self.pending[cpu].push((sender, Scope::invpcid(what))),
                Rar::All => self.pending[cpu].push((sender, Scope::ALL)),
            }
        }
    }

    /// The CPU carries out what is pending on it, at a moment of its own choice.
    pub fn carry_out(&mut self, cpu: usize, mmu: &mut Mmu) -> usize {
        self.pending[cpu].drain(..).map(|(_, scope)| mmu.apply(scope)).sum()
    }

    /// Whether TLBSYNC on `sender` (or its wait for a RAR) may complete: only its own requests count.
    pub fn may_complete(&self, sender: usize) -> bool {
        self.pending.iter().flatten().all(|&(from, _)| from != sender)
    }

    /// TLBSYNC: every CPU carries out what `sender` asked for.
    pub fn tlbsync(&mut self, sender: usize, mmus: &mut [Mmu]) -> usize {
        let mut removed = 0;
        for (queue, mmu) in self.pending.iter_mut().zip(mmus) {
            queue.retain(|&(from, scope)| {
                if from == sender {
                    removed += mmu.apply(scope);
                }
                from != sender
            });
        }
        removed
    }
}
