//! Accesses and events carried out: the fast loops where they can, one by one where not.

use super::broadcast::Invlpgb;
use super::carry::carry_out;
use super::cpus::Cpus;
use super::event::{EVENT_BYTES, Event, NO_ACCESS, Op, flags};
use super::fast::flow::{self, Flow};
use super::fast::{by_cpu, events, interned, lru, regions};
use super::{Contexts, Kind, PageSize, Pcid, TlbError, Vpn, vectors};

/// Fewer accesses go one by one.
const WORTH_A_FLOW: usize = 8;
/// Fewer pages do not pay for packing where eight ways are one vector.
const WORTH_PACKING_WHERE_EIGHT: usize = 1 << 15;

impl Cpus {
    /// Accesses in order on one CPU; what [`Cpus::check_access`] has accepted. `levels`, if given, receives the level
    /// that answered each. Fails, and changes nothing, for pages of no canonical address; `offset` is the number of the
    /// first access in its message.
    #[allow(clippy::too_many_arguments)] // one call of Python's
    pub fn access(
        &mut self,
        cpu: usize,
        vpns: &[u64],
        contexts: Contexts<'_>,
        kind: Kind,
        size: PageSize,
        mut levels: Option<&mut [u8]>,
        offset: usize,
    ) -> Result<(), TlbError> {
        let tlb = &mut self.tlbs[cpu];
        let alike = match contexts {
            Contexts::One(pcid) if size == PageSize::K4 && !vpns.is_empty() => Some(pcid),
            Contexts::One(_) | Contexts::Each(_) => None,
        };
        // What is sooner packed or renamed: where eight ways are one vector, only plain orders of pages that lie together.
        let renamed = !(self.vectors && vectors::eights());
        let long = vpns.len() >= if renamed { lru::WORTH_PACKING } else { WORTH_PACKING_WHERE_EIGHT };
        let apart = long && alike.is_some() && regions::apart(vpns);
        if let Some(pcid) = alike
            && long
            && !apart
            && lru::run(tlb, vpns, pcid, kind, levels.as_deref_mut(), self.vectors).is_some()
        {
            return Ok(());
        }
        let flows =
            vpns.len() >= WORTH_A_FLOW && self.scratch.flows(tlb, size == PageSize::G1) && !tlb.holds_stale();
        // Long calls that flow are checked as they do, and undone if need be: their pages are read from memory once.
        let undone = long && !renamed && flows;
        if !undone {
            Vpn::check(vpns, offset)?;
        }
        let each = matches!(contexts, Contexts::Each(_)) && size == PageSize::K4;
        let done = if renamed && (apart || each) {
            regions::run(tlb, vpns, contexts, kind, levels.as_deref_mut(), self.vectors)
        } else {
            0
        };
        let contexts = contexts.part(done..vpns.len());
        let vpns = &vpns[done..];
        let mut levels = levels.map(|levels| &mut levels[done..]);
        if let Some(pcid) = alike
            && self.vectors
            && renamed
            && interned::run(tlb, vpns, pcid, kind, levels.as_deref_mut()).is_some()
        {
            return Ok(());
        }
        if flows && vpns.len() >= WORTH_A_FLOW {
            let globals = flow::holds_globals(tlb);
            let before = (globals || undone).then(|| tlb.clone());
            let mut flow = Flow::new(tlb, self.scratch.buffers(), vpns.len(), (globals, self.vectors));
            if !flow.run_pages(vpns, contexts, (size, kind), levels.as_deref_mut(), undone) {
                *tlb = before.expect("only what is undone is checked there");
                return Vpn::check(vpns, offset);
            }
            if !flow.crossed() {
                return Ok(());
            }
            *tlb = before.expect("nothing crosses where nothing is global");
        }
        for (index, &vpn) in vpns.iter().enumerate() {
            tlb.switch(match contexts {
                Contexts::One(pcid) => pcid,
                Contexts::Each(pcids) => Pcid(pcids[index] & Pcid::MAX),
            });
            let answer = tlb.access(Vpn(vpn & Vpn::MASK), kind, size, false);
            if let Some(levels) = levels.as_deref_mut() {
                levels[index] = answer.level;
            }
        }
        Ok(())
    }

    /// Events in order. Fails at the first chunk with an event that no CPU could execute; `offset` is the number of the
    /// first event in the message, and the state is then that of somewhere before it: whoever needs the old one keeps it.
    ///
    /// `bytes` may be memory that another thread of the interpreter writes to, so each event is copied, and what is
    /// checked and used is the copy: nothing decided about an event is read again.
    pub fn run(
        &mut self,
        bytes: &[u8],
        mut levels: Option<&mut [u8]>,
        offset: usize,
    ) -> Result<(), TlbError> {
        let (events, _) = bytes.as_chunks::<EVENT_BYTES>();
        if events::run(self, events, levels.as_deref_mut(), offset)? {
            return Ok(());
        }
        by_cpu::run(self, events, levels, offset)
    }

    /// One event; returns the level that answered, or [`NO_ACCESS`].
    #[inline]
    pub(crate) fn step(&mut self, event: Event) -> u8 {
        let vpn = Vpn(event.vpn & Vpn::MASK);
        let pcid = Pcid(event.pcid);
        match Op::from_number(event.op) {
            Some(Op::Invlpgb) => {
                let what = Invlpgb {
                    page: (event.flags & flags::VA != 0).then_some(vpn.0),
                    extra: event.pages.saturating_sub(1),
                    pcid: (event.flags & flags::PCID != 0).then_some(pcid),
                    globals: event.flags & flags::GLOBAL != 0,
                    final_only: event.flags & flags::FINAL_ONLY != 0,
                    ..Invlpgb::default()
                };
                for tlb in &mut self.tlbs {
                    what.scopes().for_each(|scope| {
                        tlb.invalidate(scope);
                    });
                }
            }
            Some(Op::Edit) => {
                let context = (event.flags & flags::ANY_PCID == 0).then_some(pcid);
                for tlb in &mut self.tlbs {
                    tlb.mark_stale(vpn, u64::from(event.pages.max(1)), context);
                }
            }
            _ => return carry_out(&mut self.tlbs[usize::from(event.cpu)], event),
        }
        NO_ACCESS
    }
}
