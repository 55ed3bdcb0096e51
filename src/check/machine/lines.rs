//! Lines of caches (SEMANTICS H11, S14): which CPU may hold one of a page, who brings one in, and what drops it.
//!
//! Invariant: only lines of pages whose type some program changes are followed (`Layout::typed`), and a line is one of the
//! frame that the page maps, or mapped last: where that becomes another one, no CPU holds a line of it. A line does no
//! harm but where it is written back or read, so nothing is lost if none ever leaves by itself: whatever a run breaks in
//! which one did, the run in which it stayed breaks too.

use super::{Abs, Model};

impl Model {
    /// Are lines of this page followed?
    #[inline]
    pub fn is_typed(&self, p: usize) -> bool {
        self.layout.typed >> p & 1 != 0
    }
}

impl<const W: usize> Abs<'_, W> {
    /// Would an access of this CPU now, or one that it speculates, go through a translation to this frame of the type
    /// cached?
    pub fn brings_in(&self, cpu: usize, p: usize) -> bool {
        let cr3 = self.get(self.m.layout.cpus[cpu].cr3);
        let since = self.get(self.m.layout.shared.since[p]);
        matches!(self.used(cpu, p, cr3), Ok(Some(leaf)) if !leaf.uncached && leaf.version >= since)
    }

    /// Is somebody entitled to believe that no CPU holds a line of the page (SEMANTICS S14)? It is uncached, and every
    /// translation of the type cached has been promised to be out of use.
    pub fn is_relied_on(&self, p: usize) -> bool {
        let s = &self.m.layout.shared;
        self.get(s.kind[p]) == UNCACHED && self.get(s.dead[p]) > self.get(s.cached_at[p])
    }

    /// The page's lines go, on every CPU.
    pub(super) fn drop_lines(&mut self, p: usize) {
        self.others = self.m.masks[3];
        for c in &self.m.layout.cpus {
            self.set(c.lines[p], 0);
        }
    }

    /// Every line goes that this CPU holds.
    pub(super) fn write_back(&mut self, cpu: usize) {
        for b in self.m.layout.cpus[cpu].lines {
            self.set(b, 0);
        }
    }
}

/// The kind of an entry that is present and of the type uncached.
pub const UNCACHED: u64 = 4;
