//! Page tables: 4- or 5-level radix trees in which several roots may share tables, as the two halves of a PTI pair
//! do. Every store to an entry bumps its version (SEMANTICS S1) and returns a [`Change`], which tells an MMU what may
//! now be cached in an older form.

use super::{PageSize, TlbError, Vpn};

const ENTRIES: usize = 512;

/// A top-level table: what CR3 points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Root(u32);

/// What a mapping allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rights {
    /// R/W.
    pub write: bool,
    /// U/S.
    pub user: bool,
    /// Not XD.
    pub execute: bool,
}

impl Rights {
    /// Supervisor data: the kernel's usual mapping.
    pub const KERNEL: Rights = Rights { write: true, user: false, execute: false };
    /// User data.
    pub const USER: Rights = Rights { write: true, user: true, execute: false };

    /// What both allow: rights are the AND along the walk (SDM 4.6).
    #[must_use]
    pub const fn and(self, other: Rights) -> Rights {
        Rights {
            write: self.write && other.write,
            user: self.user && other.user,
            execute: self.execute && other.execute,
        }
    }
}

/// One entry of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pte(u64);

impl Pte {
    const PRESENT: u64 = 1;
    const WRITE: u64 = 1 << 1;
    const USER: u64 = 1 << 2;
    const LEAF: u64 = 1 << 7;
    const GLOBAL: u64 = 1 << 8;
    const NX: u64 = 1 << 63;
    const FRAME: u64 = ((1 << 40) - 1) << 12;

    const fn new(frame: u64, rights: Rights) -> Self {
        Pte(Self::PRESENT
            | (frame << 12) & Self::FRAME
            | if rights.write { Self::WRITE } else { 0 }
            | if rights.user { Self::USER } else { 0 }
            | if rights.execute { 0 } else { Self::NX })
    }

    const fn is(self, bit: u64) -> bool {
        self.0 & bit != 0
    }

    const fn frame(self) -> u64 {
        (self.0 & Self::FRAME) >> 12
    }

    const fn rights(self) -> Rights {
        Rights { write: self.is(Self::WRITE), user: self.is(Self::USER), execute: !self.is(Self::NX) }
    }
}

#[derive(Clone, Debug)]
struct Table {
    entries: Box<[Pte; ENTRIES]>,
    versions: Box<[u32; ENTRIES]>,
    freed: bool,
}

impl Table {
    fn new() -> Self {
        Table { entries: Box::new([Pte::default(); ENTRIES]), versions: Box::new([0; ENTRIES]), freed: false }
    }
}

/// A present translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First 4 KiB frame of the page.
    pub frame: u64,
    /// Page size.
    pub size: PageSize,
    /// AND of the rights along the walk.
    pub rights: Rights,
    /// Whether the leaf has its G bit.
    pub global: bool,
    /// Version of the leaf entry.
    pub version: u32,
}

/// A walk that found nothing, and the level (0 = PTE) whose entry was not present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotPresent {
    /// 0 PTE, 1 PDE, 2 PDPTE, 3 PML4E, 4 PML5E.
    pub level: u8,
}

/// A store to a table entry that was present: what may be cached in its older form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// First page the entry maps or leads to.
    pub first: Vpn,
    /// Pages it maps or leads to.
    pub pages: u64,
    /// Level of the entry: 0 PTE ... 4 PML5E.
    pub level: u8,
    /// Whether it was a leaf (a translation) or a pointer to a table.
    pub leaf: bool,
    /// Whether the table it led to is now free memory (SEMANTICS S6).
    pub frees_table: bool,
    /// Whether the old leaf was global.
    pub global: bool,
}

/// All tables of a machine.
#[derive(Clone, Debug)]
pub struct Tables {
    levels: u8,
    tables: Vec<Table>,
}

/// Kernel and user tables of one address space under page-table isolation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PtiPair {
    /// Maps everything.
    pub kernel: Root,
    /// Maps user memory and what the entry code needs.
    pub user: Root,
}

impl Tables {
    /// No tables yet; `levels` is 4 or 5.
    pub fn new(levels: u8) -> Result<Self, TlbError> {
        if !(4..=5).contains(&levels) {
            return Err(TlbError::Table(format!("table levels must be 4 or 5: got {levels}")));
        }
        Ok(Tables { levels, tables: Vec::new() })
    }

    /// Levels of every tree.
    pub fn levels(&self) -> u8 {
        self.levels
    }

    /// An empty address space.
    pub fn new_root(&mut self) -> Root {
        Root(self.new_table())
    }

    /// Two empty halves.
    pub fn new_pti_pair(&mut self) -> PtiPair {
        PtiPair { kernel: self.new_root(), user: self.new_root() }
    }

    fn new_table(&mut self) -> u32 {
        self.tables.push(Table::new());
        self.tables.len() as u32 - 1
    }

    fn slot(vpn: Vpn, level: u8) -> usize {
        (vpn.0 >> (9 * u32::from(level))) as usize % ENTRIES
    }

    fn entry(&self, table: u32, slot: usize) -> Pte {
        self.tables[table as usize].entries[slot]
    }

    /// A store: bumps the version and says what it made old.
    fn store(&mut self, table: u32, slot: usize, level: u8, vpn: Vpn, new: Pte) -> Option<Change> {
        let table = &mut self.tables[table as usize];
        let old = std::mem::replace(&mut table.entries[slot], new);
        table.versions[slot] = table.versions[slot].wrapping_add(1);
        // What is not present is not cached (FACTS 2.8), so making an entry present makes nothing old.
        old.is(Pte::PRESENT).then(|| {
            let pages = 1 << (9 * u32::from(level));
            let leaf = level == 0 || old.is(Pte::LEAF);
            let global = leaf && old.is(Pte::GLOBAL);
            Change { first: Vpn(vpn.0 & !(pages - 1)), pages, level, leaf, frees_table: false, global }
        })
    }

    /// Looks a page up.
    pub fn walk(&self, root: Root, vpn: Vpn) -> Result<Mapping, NotPresent> {
        let mut table = root.0;
        let mut rights = Rights { write: true, user: true, execute: true };
        for level in (0..self.levels).rev() {
            let slot = Self::slot(vpn, level);
            let entry = self.entry(table, slot);
            if !entry.is(Pte::PRESENT) {
                return Err(NotPresent { level });
            }
            rights = rights.and(entry.rights());
            if level == 0 || entry.is(Pte::LEAF) {
                let size = PageSize::ALL[usize::from(level)];
                let version = self.tables[table as usize].versions[slot];
                return Ok(Mapping {
                    frame: entry.frame(),
                    size,
                    rights,
                    global: entry.is(Pte::GLOBAL),
                    version,
                });
            }
            table = entry.frame() as u32;
        }
        unreachable!("a PTE is always a leaf")
    }

    /// The table that holds the entry of `level` for `vpn`, made if `make`; `None` if a larger page is in the way or
    /// nothing is there.
    fn table_for(&mut self, root: Root, vpn: Vpn, level: u8, make: bool) -> Option<u32> {
        let mut table = root.0;
        for upper in (level + 1..self.levels).rev() {
            let slot = Self::slot(vpn, upper);
            let entry = self.entry(table, slot);
            if entry.is(Pte::LEAF) {
                return None;
            }
            table = if entry.is(Pte::PRESENT) {
                entry.frame() as u32
            } else if make {
                let below = self.new_table();
                let all = Rights { write: true, user: true, execute: true };
                self.store(table, slot, upper, vpn, Pte::new(u64::from(below), all));
                below
            } else {
                return None;
            };
        }
        Some(table)
    }

    fn check_size(&self, vpn: Vpn, size: PageSize) -> Result<(), TlbError> {
        if !vpn.0.is_multiple_of(size.pages()) {
            let rule = format!("page {:#x} must be aligned to {} pages", vpn.0, size.name());
            return Err(TlbError::Table(rule));
        }
        if vpn.0 >> (9 * u32::from(self.levels)) != 0 && self.levels == 5 {
            return Err(TlbError::NonCanonicalPage { vpn: vpn.0 });
        }
        Ok(())
    }

    /// Maps a page; a present entry is overwritten, which is a [`Change`] (as is a table that a huge page replaces).
    pub fn map(
        &mut self,
        root: Root,
        vpn: Vpn,
        size: PageSize,
        frame: u64,
        rights: Rights,
        global: bool,
    ) -> Result<Option<Change>, TlbError> {
        self.check_size(vpn, size)?;
        let level = size as u8;
        let Some(table) = self.table_for(root, vpn, level, true) else {
            return Err(TlbError::Table(format!("page {:#x} lies in a larger page: split it first", vpn.0)));
        };
        let slot = Self::slot(vpn, level);
        let old = self.entry(table, slot);
        let frees = level > 0 && old.is(Pte::PRESENT) && !old.is(Pte::LEAF);
        let mut entry = Pte::new(frame, rights);
        entry.0 |= if level > 0 { Pte::LEAF } else { 0 } | if global { Pte::GLOBAL } else { 0 };
        let change = self.store(table, slot, level, vpn, entry);
        if frees {
            self.tables[old.frame() as usize].freed = true;
        }
        Ok(change.map(|change| Change { frees_table: frees, ..change }))
    }

    /// Clears the leaf that maps `vpn`, whatever its size; page-table pages stay.
    pub fn unmap(&mut self, root: Root, vpn: Vpn) -> Result<Change, NotPresent> {
        let size = self.walk(root, vpn)?.size;
        let level = size as u8;
        let table = self.table_for(root, vpn, level, false).expect("just walked");
        let change = self.store(table, Self::slot(vpn, level), level, vpn, Pte::default());
        Ok(change.expect("it was present"))
    }

    /// Replaces a huge page by 512 of the next smaller size with the same frames and rights. Both sizes may be
    /// cached until an invalidation (FACTS 2.8).
    pub fn split(&mut self, root: Root, vpn: Vpn) -> Result<Change, TlbError> {
        let mapping =
            self.walk(root, vpn).map_err(|_| TlbError::Table(format!("page {:#x} is not mapped", vpn.0)))?;
        if mapping.size == PageSize::K4 {
            return Err(TlbError::Table(format!("page {:#x} is a 4K page: nothing to split", vpn.0)));
        }
        let level = mapping.size as u8;
        let table = self.table_for(root, vpn, level, false).expect("just walked");
        let slot = Self::slot(vpn, level);
        let old = self.entry(table, slot);
        let below = self.new_table();
        let step = PageSize::ALL[usize::from(level) - 1].pages();
        for i in 0..ENTRIES {
            let mut entry = Pte::new(old.frame() + i as u64 * step, old.rights());
            entry.0 |= old.0 & Pte::GLOBAL | if level > 1 { Pte::LEAF } else { 0 };
            self.tables[below as usize].entries[i] = entry;
        }
        let pointer = Pte::new(u64::from(below), Rights { write: true, user: true, execute: true });
        Ok(self.store(table, slot, level, vpn, pointer).expect("it was present"))
    }

    /// Replaces a full table of contiguous, equal leaves by one huge page. The table becomes free memory, and cached
    /// pointers to it dangerous (SEMANTICS S6).
    pub fn collapse(&mut self, root: Root, vpn: Vpn, size: PageSize) -> Result<Change, TlbError> {
        self.check_size(vpn, size)?;
        let level = size as u8;
        let refuse = |why: &str| {
            TlbError::Table(format!("page {:#x} cannot collapse to {}: {why}", vpn.0, size.name()))
        };
        if level == 0 {
            return Err(refuse("it is the smallest size"));
        }
        let table =
            self.table_for(root, vpn, level, false).ok_or_else(|| refuse("nothing is mapped there"))?;
        let slot = Self::slot(vpn, level);
        let pointer = self.entry(table, slot);
        if !pointer.is(Pte::PRESENT) || pointer.is(Pte::LEAF) {
            return Err(refuse("no table is there"));
        }
        let below = &self.tables[pointer.frame() as usize];
        let first = below.entries[0];
        let step = PageSize::ALL[usize::from(level) - 1].pages();
        let bits = |entry: Pte| entry.0 & !Pte::FRAME;
        let contiguous = below.entries.iter().enumerate().all(|(i, entry)| {
            entry.is(Pte::PRESENT)
                && bits(*entry) == bits(first)
                && entry.frame() == first.frame() + i as u64 * step
        });
        if !contiguous || (level > 1 && !first.is(Pte::LEAF)) || !first.frame().is_multiple_of(size.pages()) {
            return Err(refuse("its frames must be present, contiguous, aligned and alike"));
        }
        self.tables[pointer.frame() as usize].freed = true;
        let change = self.store(table, slot, level, vpn, Pte(first.0 | Pte::LEAF));
        Ok(Change { frees_table: true, ..change.expect("it was present") })
    }

    /// Unlinks the table that the entry of `level` (1 PDE ... ) leads to, and frees it.
    pub fn free_table(&mut self, root: Root, vpn: Vpn, level: u8) -> Result<Change, TlbError> {
        let missing = || TlbError::Table(format!("no table below level {level} for page {:#x}", vpn.0));
        if level == 0 || level >= self.levels {
            return Err(missing());
        }
        let table = self.table_for(root, vpn, level, false).ok_or_else(missing)?;
        let slot = Self::slot(vpn, level);
        let entry = self.entry(table, slot);
        if !entry.is(Pte::PRESENT) || entry.is(Pte::LEAF) {
            return Err(missing());
        }
        self.tables[entry.frame() as usize].freed = true;
        let change = self.store(table, slot, level, vpn, Pte::default()).expect("it was present");
        Ok(Change { frees_table: true, ..change })
    }

    /// Whether the table that translates `vpn` at `level` (0: the PTE's table) is still in use.
    pub fn table_is_live(&self, root: Root, vpn: Vpn, level: u8) -> bool {
        let mut table = root.0;
        for upper in (level + 1..self.levels).rev() {
            let entry = self.entry(table, Self::slot(vpn, upper));
            if !entry.is(Pte::PRESENT) || entry.is(Pte::LEAF) {
                return false;
            }
            table = entry.frame() as u32;
        }
        !self.tables[table as usize].freed
    }

    /// Makes `to` use the same top-level entry as `from` for `vpn`: everything below is shared from now on.
    pub fn share(&mut self, from: Root, to: Root, vpn: Vpn) -> Option<Change> {
        let level = self.levels - 1;
        let slot = Self::slot(vpn, level);
        let entry = self.entry(from.0, slot);
        self.store(to.0, slot, level, vpn, entry)
    }

    /// Maps user memory in both halves of a pair. The halves share everything below the top level; the kernel's top
    /// level has NX (FACTS 2.7), so that the kernel cannot return to user mode on the wrong table unnoticed.
    pub fn map_user(
        &mut self,
        pair: PtiPair,
        vpn: Vpn,
        size: PageSize,
        frame: u64,
        rights: Rights,
    ) -> Result<Option<Change>, TlbError> {
        let change = self.map(pair.user, vpn, size, frame, rights, false)?;
        let slot = Self::slot(vpn, self.levels - 1);
        let mut entry = self.entry(pair.user.0, slot);
        entry.0 |= Pte::NX;
        if self.entry(pair.kernel.0, slot) != entry {
            self.store(pair.kernel.0, slot, self.levels - 1, vpn, entry);
        }
        Ok(change)
    }

    /// Maps kernel memory; what is `user_visible` (cpu_entry_area, entry text) is in both halves, each with tables of
    /// its own. Only that may be global under page-table isolation (FACTS 2.7).
    pub fn map_kernel(
        &mut self,
        pair: PtiPair,
        vpn: Vpn,
        size: PageSize,
        frame: u64,
        rights: Rights,
        user_visible: bool,
    ) -> Result<Option<Change>, TlbError> {
        let change = self.map(pair.kernel, vpn, size, frame, rights, user_visible)?;
        if user_visible {
            self.map(pair.user, vpn, size, frame, rights, true)?;
        }
        Ok(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL_PAGE: Vpn = Vpn(0x1f_ffff_8000_0000 >> 12);

    fn tables() -> (Tables, Root) {
        let mut tables = Tables::new(4).unwrap();
        let root = tables.new_root();
        (tables, root)
    }

    #[test]
    fn a_mapped_page_is_found_with_its_size_and_rights_and_an_unmapped_one_is_not() {
        let (mut tables, root) = tables();
        tables.map(root, Vpn(512), PageSize::M2, 1024, Rights::KERNEL, true).unwrap();
        let found = tables.walk(root, Vpn(700)).unwrap();
        assert_eq!((found.frame, found.size, found.global), (1024, PageSize::M2, true));
        assert_eq!(found.rights, Rights::KERNEL);
        assert_eq!(tables.walk(root, Vpn(0)), Err(NotPresent { level: 1 }));
    }

    #[test]
    fn every_store_bumps_the_version_and_only_a_present_entry_makes_anything_old() {
        let (mut tables, root) = tables();
        assert_eq!(tables.map(root, Vpn(7), PageSize::K4, 1, Rights::USER, false).unwrap(), None);
        let change = tables.map(root, Vpn(7), PageSize::K4, 2, Rights::USER, false).unwrap().unwrap();
        assert_eq!((change.first, change.pages, change.leaf), (Vpn(7), 1, true));
        assert_eq!(tables.walk(root, Vpn(7)).unwrap().version, 2);
    }

    #[test]
    fn splitting_keeps_every_translation_and_collapsing_undoes_it() {
        let (mut tables, root) = tables();
        tables.map(root, Vpn(1 << 18), PageSize::G1, 1 << 18, Rights::KERNEL, false).unwrap();
        for _ in 0..2 {
            tables.split(root, Vpn((1 << 18) + 5)).unwrap();
        }
        let small = tables.walk(root, Vpn((1 << 18) + 5)).unwrap();
        assert_eq!((small.frame, small.size), ((1 << 18) + 5, PageSize::K4));
        let change = tables.collapse(root, Vpn(1 << 18), PageSize::M2).unwrap();
        assert!(change.frees_table && !change.leaf);
        tables.collapse(root, Vpn(1 << 18), PageSize::G1).unwrap();
        assert_eq!(tables.walk(root, Vpn((1 << 18) + 5)).unwrap().size, PageSize::G1);
    }

    #[test]
    fn a_table_with_a_hole_does_not_collapse() {
        let (mut tables, root) = tables();
        for page in 0..511 {
            tables.map(root, Vpn(page), PageSize::K4, page, Rights::USER, false).unwrap();
        }
        assert!(tables.collapse(root, Vpn(0), PageSize::M2).is_err());
        tables.map(root, Vpn(511), PageSize::K4, 511, Rights::USER, false).unwrap();
        assert!(tables.collapse(root, Vpn(0), PageSize::M2).is_ok());
        assert!(!tables.table_is_live(root, Vpn(0), 0));
    }

    #[test]
    fn the_user_half_of_a_pair_maps_user_memory_and_entry_code_and_not_vmalloc() {
        let mut tables = Tables::new(4).unwrap();
        let pair = tables.new_pti_pair();
        let vmalloc = Vpn(KERNEL_PAGE.0 + 4096);
        tables.map_user(pair, Vpn(3), PageSize::K4, 9, Rights { execute: true, ..Rights::USER }).unwrap();
        tables.map_kernel(pair, KERNEL_PAGE, PageSize::K4, 10, Rights::KERNEL, true).unwrap();
        tables.map_kernel(pair, vmalloc, PageSize::K4, 11, Rights::KERNEL, false).unwrap();

        assert!(tables.walk(pair.user, Vpn(3)).unwrap().rights.execute);
        assert!(!tables.walk(pair.kernel, Vpn(3)).unwrap().rights.execute, "NX at the kernel's top level");
        assert!(tables.walk(pair.user, KERNEL_PAGE).unwrap().global);
        assert!(tables.walk(pair.user, vmalloc).is_err());
        assert!(!tables.walk(pair.kernel, vmalloc).unwrap().global);
    }

    #[test]
    fn user_memory_unmapped_through_one_half_is_gone_from_the_other() {
        let mut tables = Tables::new(5).unwrap();
        let pair = tables.new_pti_pair();
        tables.map_user(pair, Vpn(3), PageSize::K4, 9, Rights::USER).unwrap();
        tables.unmap(pair.kernel, Vpn(3)).unwrap();
        assert!(tables.walk(pair.user, Vpn(3)).is_err());
    }

    #[test]
    fn a_page_within_a_larger_one_is_refused_and_changes_nothing() {
        let (mut tables, root) = tables();
        tables.map(root, Vpn(512), PageSize::M2, 1024, Rights::KERNEL, false).unwrap();
        let refused = tables.map(root, Vpn(700), PageSize::K4, 1, Rights::KERNEL, false).unwrap_err();
        assert!(
            refused.to_string().contains("page 0x2bc lies in a larger page: split it first"),
            "{refused}"
        );
        assert_eq!(tables.walk(root, Vpn(700)).unwrap().size, PageSize::M2);
        tables.split(root, Vpn(700)).unwrap();
        tables.map(root, Vpn(700), PageSize::K4, 1, Rights::KERNEL, false).unwrap();
    }

    #[test]
    fn the_last_page_of_five_levels_can_be_mapped_and_the_next_is_not_canonical() {
        let mut tables = Tables::new(5).unwrap();
        let root = tables.new_root();
        tables.map(root, Vpn((1 << 45) - 1), PageSize::K4, 1, Rights::KERNEL, false).unwrap();
        let refused = tables.map(root, Vpn(1 << 45), PageSize::K4, 1, Rights::KERNEL, false).unwrap_err();
        assert_eq!(refused, TlbError::NonCanonicalPage { vpn: 1 << 45 });
    }
}
