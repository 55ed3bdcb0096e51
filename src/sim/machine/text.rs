//! Text patching. Syncs (SEMANTICS S7): who has serialised since one was asked for, and who still has to. Where a patched
//! instruction decides a branch (SEMANTICS H10): what stands there in memory, which is what every CPU runs here, since none
//! holds what it fetched. Delivery and return of an INT3 are not recorded for any CPU that we know of, so they take no time.

use super::super::levels::Pending;
use super::super::stats::{Cause, Stat};
use super::super::timeline::Kind;
use super::Timed;
use crate::kernel::program::{Entry, Feature, Part, Site};
use crate::kernel::step::{Cpu, Ran};

impl Timed {
    /// The instruction stream is serialised: MOV CR, CPUID, IRET to itself.
    #[inline]
    pub(super) fn serialised(&mut self, cpu: Cpu) {
        let c = &mut self.cores[usize::from(cpu)];
        c.serialised_at = c.clock;
        if let Some(log) = &mut self.log {
            log.serialised(c.clock);
        }
        if c.sync_owed {
            c.sync_owed = false;
            let at = c.clock;
            self.levels[usize::from(cpu)][Pending::Syncs as usize].set(at, 0);
            self.add(cpu, Stat::syncs_caught_up, 1);
        }
    }

    /// An initiator calls for a sync.
    pub(super) fn sync_requested(&mut self, cpu: Cpu) {
        let c = &mut self.cores[usize::from(cpu)];
        c.request.at = c.clock;
        c.sent = 0;
        self.add(cpu, Stat::sync_requests, 1);
    }

    /// It goes on: whoever has not serialised since then was left out, and may hold text it fetched before.
    pub(super) fn sync_promised(&mut self, cpu: Cpu) {
        self.settle_all_volleys();
        let (request, now, sent) = {
            let c = &self.cores[usize::from(cpu)];
            (c.request, c.clock, c.sent)
        };
        self.event(cpu, request.at, now - request.at, Kind::Request, Cause::TextPoke, sent);
        for who in 0..self.cores.len() as Cpu {
            let c = &mut self.cores[usize::from(who)];
            if c.serialised_at >= request.at {
                continue;
            }
            c.sync_owed = true;
            self.add(who, Stat::sync_deferrals, 1);
            if self.keeps_events {
                self.levels[usize::from(who)][Pending::Syncs as usize].rise(now);
                self.event(who, now, 0, Kind::Deferral, Cause::TextPoke, u32::from(cpu));
            }
        }
    }

    /// What stands at a patched instruction: an INT3 (bit 0), the new one (bit 1) or the old one.
    fn stands(&mut self, site: Site) -> Option<(&mut u16, u32)> {
        let keeps = self.keeps_text;
        self.shared.last_mut().filter(|_| keeps).map(|word| (word, 2 * u32::from(site)))
    }

    /// A store to a part of it. Its tail decides nothing while the first byte is an INT3.
    pub(super) fn patch(&mut self, site: Site, part: Part, v: Entry) {
        let Some((word, shift)) = self.stands(site) else { return };
        match (part, v) {
            (Part::Head, Entry::Int3) => *word |= 1 << shift,
            (Part::Head, _) => *word = (*word & !(1 << shift)) ^ 2 << shift,
            (Part::Tail, _) => {}
        }
    }

    /// Run it. The handler of an INT3 goes on as if what is being written stood there.
    pub(super) fn ran(&mut self, site: Site) -> Ran {
        let Some((word, shift)) = self.stands(site) else { return Ran::Old };
        let (int3, new) = (*word >> shift & 1 != 0, *word >> shift & 2 != 0);
        match (int3, new) {
            (true, new) => Ran::Int3(!new),
            (false, true) => Ran::New,
            (false, false) => Ran::Old,
        }
    }

    /// The IRET of an INT3's handler.
    pub(in crate::sim) fn breakpoint_ends(&mut self, cpu: Cpu) {
        if !self.features.has(Feature::Fred) {
            self.cores[usize::from(cpu)].nmi_blocked = false;
            self.serialised(cpu);
        }
    }
}
