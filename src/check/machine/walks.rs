//! Walks in software (SEMANTICS H8, S12): code that holds no lock loads one entry after the other, and uses what it found.
//!
//! Invariant: a frame's `walked` is 0 unless its next op is a step that needs it, so the op says of which page it is.

use super::translations::Leaf;
use super::{Abs, CR3_USER};
use crate::check::layout::{Bits, Target};
use crate::kernel::program::{Op, PageKind, Walk};
use crate::kernel::step::Violation;

impl<const W: usize> Abs<'_, W> {
    /// One step of a walk of page `p`, in the frame that runs.
    pub(super) fn walk_in_software(&mut self, cpu: usize, p: usize, step: Walk) -> Result<(), Violation> {
        let c = &self.m.layout.cpus[cpu];
        let f = &c.frames[self.level];
        let s = &self.m.layout.shared;
        // Page-table pages and what they map are reached through the direct map.
        if self.get(c.cr3) & CR3_USER != 0 {
            return Err(Violation::UnmappedAccess);
        }
        // A load would be served from the own buffer, which is not modelled for entries: no verdict.
        let own = |i| matches!(self.decode(cpu, i).0, Target::Entry { page, .. } if usize::from(page) == p);
        if step != Walk::Use && (0..self.buffered(cpu)).any(own) {
            return Err(Violation::Overflow);
        }
        let last = self.get(f.walked);
        match step {
            Walk::Table => {
                if let PageKind::User(mm) = self.m.layout.pages[p].kind
                    && self.get(s.freed_mms) >> mm & 1 != 0
                {
                    return Err(Violation::FreedMm);
                }
                let found = match self.m.layout.tables {
                    true if self.get(s.upper_kind[p]) == 0 => 0,
                    true => self.get(s.upper[p]),
                    false => 1,
                };
                self.set(f.walked, found);
            }
            Walk::Leaf | Walk::Last => {
                let leaf = if last == 0 { None } else { self.leaf_in(p, last)? };
                let leaf = leaf.filter(|_| step == Walk::Leaf);
                self.set(f.walked, leaf.map_or(0, |l| l.version));
                if f.walked_less.exists() {
                    self.set(f.walked_less, u64::from(leaf.is_some_and(|l| l.less)));
                }
            }
            Walk::Use => {
                let less = self.get(f.walked_less) != 0;
                self.set(f.walked, 0);
                if f.walked_less.exists() {
                    self.set(f.walked_less, 0);
                }
                if last != 0 {
                    return self.uses(p, Leaf { version: last, less, uncached: false });
                }
            }
        }
        Ok(())
    }

    /// The leaf in the table that an upper entry of this version pointed to.
    fn leaf_in(&self, p: usize, table: u64) -> Result<Option<Leaf>, Violation> {
        let s = &self.m.layout.shared;
        if self.m.layout.tables && table < self.get(s.freed[p]) {
            return Err(Violation::FreedTableRead);
        }
        if self.m.layout.tables && table != self.get(s.upper[p]) {
            let at = table as usize - 1;
            let version = self.get(s.old_leaf[p][at]);
            let less = self.get(s.old_less[p][at]) != 0;
            return Ok((version != 0).then_some(Leaf { version, less, uncached: false }));
        }
        Ok(self.leaf_in_memory(p))
    }

    /// What walks of a page that are under way have loaded: upper entries, and leaves.
    pub(super) fn under_way(&self, p: usize) -> [Vec<Bits>; 2] {
        let mut out = [Vec::new(), Vec::new()];
        if !self.m.layout.walks {
            return out;
        }
        for f in self.m.layout.cpus.iter().flat_map(|c| &c.frames).filter(|f| f.walked.exists()) {
            let Some(at) = self.get(f.at).checked_sub(1) else { continue };
            match f.locations[at as usize].op {
                Op::Walk { page, step: Walk::Leaf | Walk::Last } if usize::from(page) == p => {
                    out[0].push(f.walked);
                }
                Op::Walk { page, step: Walk::Use } if usize::from(page) == p => out[1].push(f.walked),
                _ => {}
            }
        }
        out
    }
}
