//! Variables, store buffers and page-table entries: what programs read and write, and the versions of S1.

use super::lines::UNCACHED;
use super::{Abs, CR3_USER, Seen};
use crate::check::layout::{Bits, TEXT, Target};
use crate::kernel::program::{At, Copies, Entry, Level, PageKind};
use crate::kernel::step::Violation;

impl<const W: usize> Abs<'_, W> {
    #[inline]
    pub(super) fn place(&mut self, cpu: usize, field: u8, owner: usize) -> (Bits, u8, u64) {
        let f = &self.m.code.fields[usize::from(field)];
        let var = usize::from(f.var);
        let l = &self.m.layout;
        let b = match self.m.code.vars[var].copies {
            Copies::One => Some(&l.shared.vars[var]),
            Copies::Cpu => {
                if owner != cpu {
                    self.others |= 1 << owner;
                }
                Some(&l.cpus[owner].vars[var])
            }
            Copies::Mm => l.shared.mm_vars[var].get(owner),
            Copies::Asid => l.cpus[cpu].asid_vars[var].get(owner),
        };
        let b = b.copied().unwrap_or_default();
        if !b.exists() {
            self.seen |= Seen::OVERFLOW; // no such address space or ASID in this scope
        }
        (b, f.shift, f.mask())
    }

    #[inline]
    pub(super) fn decode(&self, cpu: usize, slot: usize) -> (Target, u64) {
        let c = &self.m.layout.cpus[cpu];
        let e = self.get(c.stores[slot]);
        (c.targets[(e >> c.value_bits) as usize], e & ((1 << c.value_bits) - 1))
    }

    #[inline]
    pub(super) fn buffered(&self, cpu: usize) -> usize {
        self.get(self.m.layout.cpus[cpu].pending) as usize
    }

    #[inline]
    pub(super) fn push_store(&mut self, cpu: usize, target: Target, v: u64) {
        let c = &self.m.layout.cpus[cpu];
        if c.stores.is_empty() || !self.m.assume.store_buffers {
            self.commit(cpu, target, v);
            return;
        }
        let n = self.buffered(cpu);
        if n == c.stores.len() {
            self.seen |= Seen::FULL;
            return;
        }
        let Some(kind) = c.targets.iter().position(|t| *t == target) else {
            debug_assert!(matches!(target, Target::Field { .. }), "every other store of a program is listed");
            self.seen |= Seen::OVERFLOW; // no such address space in this scope
            return;
        };
        self.waits(target, 1);
        self.set(c.stores[n], (kind as u64) << c.value_bits | v);
        self.set(c.pending, n as u64 + 1);
    }

    /// Make the oldest store visible.
    pub fn drain(&mut self, cpu: usize) {
        let (target, v) = self.decode(cpu, 0);
        let c = &self.m.layout.cpus[cpu];
        let n = self.buffered(cpu);
        for i in 1..n {
            let e = self.get(c.stores[i]);
            self.set(c.stores[i - 1], e);
        }
        self.set(c.stores[n - 1], 0);
        self.set(c.pending, n as u64 - 1);
        self.waits(target, -1);
        self.commit(cpu, target, v);
        self.pass(cpu);
    }

    /// A store to text enters or leaves a buffer.
    #[inline]
    fn waits(&mut self, target: Target, more: i64) {
        if let Target::Entry { page, .. } = target {
            let b = self.m.layout.shared.waiting[usize::from(page)];
            if b.exists() {
                self.set(b, self.get(b).wrapping_add_signed(more));
            }
        }
    }

    /// What the oldest buffered store writes.
    pub fn oldest(&self, cpu: usize) -> (Target, u64) {
        self.decode(cpu, 0)
    }

    #[inline]
    pub(super) fn commit(&mut self, cpu: usize, target: Target, v: u64) {
        match target {
            Target::Field { field, owner } => {
                let (b, shift, mask) = self.place(cpu, field, usize::from(owner));
                let old = self.get(b);
                if v << shift & !mask != 0 {
                    self.seen |= Seen::OVERFLOW;
                }
                self.set(b, old & !mask | v << shift & mask);
            }
            Target::Entry { page, level, v } => self.commit_entry(usize::from(page), level, v),
            Target::Lines { page } => self.drop_lines(usize::from(page)),
            Target::Ack { sender } => {
                self.others |= 1 << sender;
                let b = self.m.layout.cpus[usize::from(sender)].waits;
                let old = self.get(b);
                self.set(b, old & !(1 << cpu));
            }
        }
    }

    pub(super) fn commit_entry(&mut self, p: usize, level: Level, v: Entry) {
        let s = &self.m.layout.shared;
        let version = self.get(s.version[p]);
        if self.m.layout.pages[p].kind == PageKind::Text {
            self.set(s.version[p], patched(version, v));
            return;
        }
        let kind = match v {
            Entry::None | Entry::Int3 => 0,
            Entry::Initial if self.m.initial_told >> p & 1 != 0 => 3,
            Entry::Fresh | Entry::Initial | Entry::Cached => 1,
            Entry::LessRights => 2,
            Entry::Uncached => UNCACHED,
        };
        let old_kind = self.get(s.kind[p]);
        let upper = self.get(s.upper[p]);
        let linked = !self.m.layout.tables || self.get(s.upper_kind[p]) != 0;
        if level == Level::Table {
            if linked {
                self.keep_leaf(p, upper, version, old_kind);
            }
            // `none` where there is none leaves the entry as it is.
            self.set(s.upper[p], upper + u64::from(linked || kind != 0));
            self.set(s.upper_kind[p], u64::from(kind != 0));
        } else if !linked {
            // Into the table that was linked last: only a cached upper entry still leads there.
            self.keep_leaf(p, upper - 1, version + 1, kind);
            self.set(s.version[p], version + 1);
            self.rename(p);
            return;
        }
        if s.since[p].exists() {
            let direct = self.m.layout.pages[p].kind == PageKind::DirectMap;
            let first = !self.m.renamed && self.get(s.since[p]) == 1;
            let same = level == Level::Leaf
                && match v {
                    Entry::LessRights => old_kind != 0,
                    Entry::Fresh => direct && old_kind != 0,
                    Entry::Initial => (first || direct) && old_kind != 0,
                    // Of the frame that was mapped last, whether it is mapped still or not (SEMANTICS H11).
                    Entry::Uncached | Entry::Cached => true,
                    Entry::None | Entry::Int3 => true,
                };
            if !same {
                self.set(s.since[p], version + 1);
                if self.m.is_typed(p) {
                    self.drop_lines(p);
                }
            }
        }
        if self.m.is_typed(p) && !matches!(kind, 0 | UNCACHED) {
            self.set(s.cached_at[p], version + 1);
        }
        // S3: an address that is mapped again was handed on, whatever its unmapper has promised by then.
        let handed_on = level == Level::Leaf
            && v == Entry::Fresh
            && self.m.layout.pages[p].kind == PageKind::Vmalloc
            && self.get(s.kind[p]) == 0
            && version > 1; // it was mapped before
        if handed_on {
            self.seen |= Seen::HANDED_ON;
            let dead = self.get(s.dead[p]).max(version + 1);
            self.set(s.dead[p], dead);
        }
        self.set(s.version[p], version + 1);
        self.set(s.kind[p], kind);
        if self.is_mapped_behind(p, self.get(s.dead[p])) {
            self.seen |= Seen::ASKED;
        }
        self.rename(p);
    }

    /// Note that what was promised of a page may be broken: code uses what is mapped (SEMANTICS S4), or accesses the page
    /// by itself whether it is or not. What nobody can use again is promised to nobody.
    pub(super) fn asks(&mut self, p: usize, covered: u64) {
        let page = &self.m.layout.pages[p];
        let covers = self.m.renamed || covered > 1;
        let of_two_sizes = page.within.is_some() || self.m.layout.pages.iter().any(|q| q.within == Some(p));
        let used = self.m.layout.accessed >> p & 1 != 0 || of_two_sizes;
        if page.kind == PageKind::Text || covers && used || self.is_mapped_behind(p, covered) {
            self.seen |= Seen::ASKED;
        }
    }

    /// Is the page mapped by what is not older than `dead`, while something is?
    fn is_mapped_behind(&self, p: usize, dead: u64) -> bool {
        let something = u64::from(!self.m.renamed);
        dead > something && self.present(p) && self.get(self.m.layout.shared.version[p]) >= dead
    }

    /// Keep the leaf of the table that an upper entry of this version points to.
    fn keep_leaf(&mut self, p: usize, upper: u64, version: u64, kind: u64) {
        let s = &self.m.layout.shared;
        let table = upper as usize - 1;
        let (Some(&leaf), Some(&less)) = (s.old_leaf[p].get(table), s.old_less[p].get(table)) else {
            self.seen |= Seen::OVERFLOW; // a table more than the scope's programs have
            return;
        };
        self.set(leaf, if kind == 0 { 0 } else { version });
        if less.exists() {
            self.set(less, u64::from(kind == 2));
        }
    }

    /// Rename a page's versions to the least that compare alike (SEMANTICS S1): what is asked of a version is whether
    /// it is below what is dead, below what a flush under way covers, and below what is current. A number above the
    /// current version, which a flush covers by stores still in a buffer, stays as far above it.
    pub(super) fn rename(&mut self, p: usize) {
        if !self.m.renamed {
            return;
        }
        self.others = self.m.masks[3];
        let layout = &self.m.layout;
        let shared = &layout.shared;
        let covered = layout.cpus.iter().map(|c| c.covered[p]).filter(|b| b.exists());
        let since = [shared.since[p], shared.cached_at[p]].into_iter().filter(|b| b.exists());
        let marks = [shared.dead[p]].into_iter().chain(covered.clone()).chain(since);
        let held = layout.cpus.iter().flat_map(|c| c.tlb[p]).chain(shared.old_leaf[p].iter().copied());
        let [above, leaves] = self.under_way(p);
        self.renumber(shared.version[p], marks, held.chain(leaves).filter(|b| b.exists()));
        // `free table` tells the first table of all by its number.
        if self.get(shared.upper[p]) > 1 {
            let held = layout.cpus.iter().flat_map(|c| c.upper[p]).filter(|b| b.exists());
            self.renumber(shared.upper[p], [shared.freed[p]].into_iter(), held.chain(above));
        }
    }

    /// Number what is at most `current` by how many of the marks and of `current` itself it reaches. 0 is none.
    pub(super) fn renumber(
        &mut self,
        current: Bits,
        marks: impl Iterator<Item = Bits> + Clone,
        held: impl Iterator<Item = Bits>,
    ) {
        let now = self.get(current);
        let mut steps: u64 = 1 << now;
        for b in marks.clone() {
            match self.get(b) {
                0 => {}
                v if v <= now => steps |= 1 << v,
                _ => {}
            }
        }
        let new = |v: u64| match v {
            0 => 0,
            v if v <= now => u64::from((steps & ((2 << v) - 1)).count_ones()) + 1,
            v => u64::from(steps.count_ones()) + 1 + (v - now),
        };
        for b in held.chain(marks).chain([current]) {
            let v = self.get(b);
            self.set(b, new(v));
        }
    }

    /// The version of a part of text once this CPU's own stores are visible.
    pub(super) fn own_text(&self, cpu: usize, page: usize) -> u64 {
        (0..self.buffered(cpu)).fold(self.get(self.m.layout.shared.version[page]), |version, i| {
            match self.decode(cpu, i).0 {
                Target::Entry { page: p, v, .. } if usize::from(p) == page => patched(version, v),
                _ => version,
            }
        })
    }

    #[inline]
    pub(super) fn own_entries(&self, cpu: usize, page: usize, of: Option<Level>) -> u64 {
        (0..self.buffered(cpu))
            .filter(|&i| match self.decode(cpu, i).0 {
                Target::Entry { page: p, level, .. } => {
                    usize::from(p) == page && of.is_none_or(|l| l == level)
                }
                _ => false,
            })
            .count() as u64
    }

    /// Load a field of `owner`'s copy, wherever it is mapped: this CPU's own stores first, newest last.
    #[inline]
    pub(super) fn load_field(&mut self, cpu: usize, field: u8, owner: usize) -> u64 {
        let (b, shift, mask) = self.place(cpu, field, owner);
        let var = self.m.code.fields[usize::from(field)].var;
        let mut word = self.get(b);
        for i in 0..self.buffered(cpu) {
            if let (Target::Field { field: g, owner: o }, v) = self.decode(cpu, i) {
                let g = &self.m.code.fields[usize::from(g)];
                if g.var == var && usize::from(o) == owner {
                    word = word & !g.mask() | v << g.shift & g.mask();
                }
            }
        }
        (word & mask) >> shift
    }

    /// Store to a field of `owner`'s copy, wherever it is mapped.
    #[inline]
    pub(super) fn store_field(&mut self, cpu: usize, field: u8, owner: u8, v: u64) -> Result<(), Violation> {
        self.fits(field, v)?;
        self.push_store(cpu, Target::Field { field, owner }, v);
        Ok(())
    }

    #[inline]
    pub(super) fn fits(&self, field: u8, v: u64) -> Result<(), Violation> {
        let bits = self.m.code.fields[usize::from(field)].bits;
        if v >> bits == 0 { Ok(()) } else { Err(Violation::Overflow) }
    }

    #[inline]
    pub(super) fn reach_var(&mut self, cpu: usize, field: u8, at: At) -> Result<(), Violation> {
        let var = &self.m.code.vars[usize::from(self.m.code.fields[usize::from(field)].var)];
        if at == At::Me {
            self.gs_access(cpu)?;
        }
        let user = self.get(self.m.layout.cpus[cpu].cr3) & CR3_USER != 0;
        if user && !var.user_mapped { Err(Violation::UnmappedAccess) } else { Ok(()) }
    }
}

/// The version of a part of text after a store to it.
fn patched(version: u64, v: Entry) -> u64 {
    let whole = version - version % TEXT.step;
    if v == Entry::Int3 { whole + 1 } else { whole + TEXT.step }
}
