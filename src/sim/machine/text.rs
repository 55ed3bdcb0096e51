//! Syncs of text patching (SEMANTICS S7): who has serialised since one was asked for, and who still has to.

use super::super::levels::Pending;
use super::super::stats::{Cause, Stat};
use super::super::timeline::Kind;
use super::Timed;
use crate::kernel::step::Cpu;

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
}
