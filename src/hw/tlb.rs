//! A complete TLB: levels of arrays, contexts, paging-structure caches. Full semantics, one access at a time; the
//! vectorised loop for plain LRU shapes must give the same state and counters.
//!
//! Rules kept here: a hit at a level fills the levels above it; a hit does not touch the levels below; an entry that
//! leaves a level stays in the others unless the level is inclusive; a switch of context costs a level the contexts
//! that it has no slot for (HARDWARE 1.4).

mod counters;
mod remove;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use counters::Counters;

use super::array::{Array, Entry, neighbours};
use super::fast::avx2;
use super::geometry::{Geometry, MAX_LEVELS};
use super::vectors;
use super::{Kind, PageSize, Pcid, TlbError, Vpn};

/// How one access was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The level that hit, 0 nearest; the number of levels if the page tables were walked.
    pub level: u8,
    /// Entries the walk read from memory; 0 without a walk.
    pub loads: u8,
    /// Whether the answer came through something cached before its table changed.
    pub stale: bool,
}

/// One entry, for people and tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached {
    /// Level, 0 nearest.
    pub level: u8,
    /// Structure, counted over all levels.
    pub structure: u8,
    /// Set.
    pub set: u32,
    /// Way; for LRU and FIFO the position in recency order, newest first.
    pub way: u32,
    /// First 4 KiB page it maps.
    pub vpn: Vpn,
    /// Size it is cached at.
    pub size: PageSize,
    /// Context; `None` for a global entry.
    pub pcid: Option<Pcid>,
    /// Whether its table has changed since it was filled.
    pub stale: bool,
}

/// Which arrays serve one size and kind at one level.
#[derive(Clone, Copy, Debug, Default)]
struct Route {
    banks: u8,
    arrays: [u8; 4],
    shift: u8,
    piece: bool,
    bank_shift: u8,
}

impl Route {
    /// The array and the page number it knows `vpn` by.
    #[inline]
    #[allow(clippy::trivially_copy_pass_by_ref)] // it stays in the table
    fn resolve(&self, vpn: Vpn) -> Option<(usize, u64)> {
        if self.banks == 0 {
            return None;
        }
        let page = vpn.0 >> self.shift;
        let bank = if self.banks == 1 { 0 } else { (page >> self.bank_shift) % u64::from(self.banks) };
        Some((usize::from(self.arrays[bank as usize]), page))
    }
}

/// The contexts an array has room for, most recent first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Slots {
    array: usize,
    room: usize,
    held: Vec<Pcid>,
}

impl Slots {
    /// Makes a context the most recent one; the array and the context that has no slot there any more.
    #[inline]
    fn take_in(&mut self, pcid: Pcid) -> Option<(usize, Pcid)> {
        let Slots { array, room, held } = self;
        if let [only] = &mut held[..]
            && *room == 1
        {
            let gone = std::mem::replace(only, pcid);
            return (gone != pcid).then_some((*array, gone));
        }
        if let [first, second, ..] = &mut held[..]
            && *second == pcid
        {
            std::mem::swap(first, second);
            return None;
        }
        self.take_in_another(pcid)
    }

    /// The same, for one that is neither the only one nor the last but one.
    fn take_in_another(&mut self, pcid: Pcid) -> Option<(usize, Pcid)> {
        if let Some(place) = self.held.iter().position(|&other| other == pcid) {
            self.held[..=place].rotate_right(1);
            return None;
        }
        self.held.insert(0, pcid);
        if self.held.len() <= self.room {
            return None;
        }
        let gone = self.held.pop().expect("just grown past its room");
        (gone != pcid).then_some((self.array, gone))
    }
}

/// The state that a pickle carries; the rest follows from the geometry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    arrays: Vec<Array>,
    psc: Vec<Array>,
    slots: Vec<Slots>,
    pcid: Pcid,
    counters: Counters,
}

/// A TLB of any geometry.
#[derive(Clone, Debug)]
pub struct Tlb {
    geometry: Arc<Geometry>,
    routes: Vec<[[Route; 3]; 3]>,
    /// By kind: the arrays of the first two levels, where each has one for 4 KiB pages.
    pairs: [Option<[u8; 2]>; 3],
    /// By kind: the first of those, if it is a tree of four ways.
    fours: [Option<u8>; 3],
    /// Whether there are vectors to search with.
    vectors: bool,
    /// Level of each array.
    level_of: Vec<u8>,
    /// Of each array: bit `size` for the sizes of pages that it holds whole.
    sizes: Vec<u8>,
    inclusive: bool,
    state: State,
}

impl PartialEq for Tlb {
    fn eq(&self, other: &Self) -> bool {
        self.geometry == other.geometry && self.state == other.state
    }
}

impl Tlb {
    /// An empty TLB in context 0.
    pub fn new(geometry: impl Into<Arc<Geometry>>) -> Self {
        let geometry = geometry.into();
        let mut arrays = Vec::new();
        let (mut level_of, mut sizes) = (Vec::new(), Vec::new());
        let mut slots = Vec::new();
        for (level, shape) in geometry.levels().iter().enumerate() {
            for structure in &shape.structures {
                if let Some(room) = structure.pcid_slots {
                    slots.push(Slots {
                        array: arrays.len(),
                        room: room.max(1) as usize,
                        held: vec![Pcid(0)],
                    });
                }
                arrays.push(Array::new(structure));
                level_of.push(level as u8);
                sizes.push(structure.sizes.iter().fold(0, |all, &size| all | 1 << size as u8));
            }
        }
        let routes = routes(&geometry);
        let psc = geometry.psc().sizes().map(Array::associative).into();
        let inclusive = geometry.levels().iter().any(|level| level.inclusive);
        let state = State { arrays, psc, slots, pcid: Pcid(0), counters: Counters::default() };
        let pairs = std::array::from_fn(|kind| match &routes[..] {
            [near, far, ..] => {
                let [near, far] = [near, far].map(|level| level[PageSize::K4 as usize][kind]);
                (near.banks == 1 && far.banks == 1).then_some([near.arrays[0], far.arrays[0]])
            }
            _ => None,
        });
        let fours = pairs.map(|pair: Option<[u8; 2]>| {
            pair.map(|[near, _]| near).filter(|&near| state.arrays[usize::from(near)].is_tree_of_four())
        });
        let vectors = vectors::available();
        Tlb { geometry, routes, pairs, fours, vectors, level_of, sizes, inclusive, state }
    }

    /// Its shape.
    pub fn geometry(&self) -> &Arc<Geometry> {
        &self.geometry
    }

    /// Number of levels, which is also the level an access that walks reports.
    pub fn levels(&self) -> u8 {
        self.routes.len() as u8
    }

    /// The context loaded last.
    pub fn pcid(&self) -> Pcid {
        self.state.pcid
    }

    /// Counts since the last reset.
    pub fn counters(&self) -> &Counters {
        &self.state.counters
    }

    /// The arrays of a level that share such pages, and the bits of a page number below those that pick one.
    pub(crate) fn banks(&self, level: usize, size: PageSize, kind: Kind) -> Option<([u8; 4], usize, u8)> {
        let route = &self.routes[level][size as usize][kind as usize];
        (route.banks > 0).then_some((route.arrays, usize::from(route.banks), route.bank_shift))
    }

    /// The paging-structure caches, PDEs first, that a walk may use.
    pub(crate) fn psc_mut(&mut self) -> &mut [Array] {
        let used = usize::from(self.geometry.table_levels()) - 1;
        &mut self.state.psc[..used]
    }

    /// Whether some array keeps a limited number of contexts.
    pub(crate) fn has_slots(&self) -> bool {
        !self.state.slots.is_empty()
    }

    /// Sets the context of a TLB without PCID slots, whose change was counted elsewhere.
    pub(crate) fn set_pcid(&mut self, pcid: Pcid) {
        self.state.pcid = pcid;
    }

    pub(crate) fn counters_mut(&mut self) -> &mut Counters {
        &mut self.state.counters
    }

    pub(crate) fn arrays_mut(&mut self) -> &mut [Array] {
        &mut self.state.arrays
    }

    pub(crate) fn arrays(&self) -> &[Array] {
        &self.state.arrays
    }

    /// Whether it holds the same as another of its geometry, in the same order; counters do not matter.
    pub fn same_contents(&self, other: &Tlb) -> bool {
        let (a, b) = (&self.state, &other.state);
        a.pcid == b.pcid && a.slots == b.slots && a.arrays == b.arrays && a.psc == b.psc
    }

    /// Empties everything and zeroes the counters.
    pub fn reset(&mut self) {
        *self = Tlb::new(Arc::clone(&self.geometry));
    }

    /// Whether some level holds pages of this size for this kind of access.
    pub fn check_held(&self, size: PageSize, kind: Kind) -> Result<(), TlbError> {
        if self.routes.iter().any(|level| level[size as usize][kind as usize].banks > 0) {
            return Ok(());
        }
        Err(TlbError::SizeNotHeld {
            tlb: self.geometry.name().to_owned(),
            size: size.name(),
            kind: kind.name(),
        })
    }

    /// Whether anything cached is marked stale.
    pub fn holds_stale(&self) -> bool {
        self.state.arrays.iter().chain(&self.state.psc).any(|array| array.stale() > 0)
    }

    /// Loads a context without invalidating anything (MOV CR3 with NOFLUSH); levels without a slot for a former
    /// context lose its entries. PCID slots concern only the arrays that declare them.
    #[inline]
    pub fn switch(&mut self, pcid: Pcid) {
        if pcid == self.state.pcid {
            return;
        }
        let State { arrays, slots, counters, .. } = &mut self.state;
        // A loop: as a chain of closures `take_in` was a call of its own, wherever the compiler cut its units.
        for slots in slots {
            let Some((array, gone)) = slots.take_in(pcid) else { continue };
            let array = &mut arrays[array];
            if !array.is_untouched() {
                counters.invalidated += array.remove_context(gone) as u64;
            }
        }
        self.state.pcid = pcid;
        self.state.counters.switches += 1;
    }

    /// As [`Tlb::switch`] to another context, but what arrays lose is told and stays for the caller to remove.
    pub(crate) fn switch_telling(&mut self, pcid: Pcid, mut loses: impl FnMut(usize, Pcid)) {
        let lost = self.state.slots.iter_mut().filter_map(|slots| slots.take_in(pcid));
        lost.for_each(|(array, gone)| loses(array, gone));
        self.state.pcid = pcid;
        self.state.counters.switches += 1;
    }

    /// One access in the current context, to a page that the tables map with `size` and, perhaps, globally. A miss
    /// everywhere walks the tables and fills every level that holds such pages.
    #[inline]
    pub fn access(&mut self, vpn: Vpn, kind: Kind, size: PageSize, global: bool) -> Answer {
        self.state.counters.accesses += 1;
        let Some((array, page)) = self.routes[0][size as usize][kind as usize].resolve(vpn) else {
            return self.access_beyond(vpn, kind, size, global, (0, 0, Entry::EMPTY));
        };
        let own = key_for(page, size, self.routes[0][size as usize][kind as usize].piece, self.state.pcid);
        let nearest = &mut self.state.arrays[array];
        let set = nearest.set_of(page);
        let found = nearest.lookup(set, own, own.as_global());
        if found == Entry::EMPTY {
            return self.access_beyond(vpn, kind, size, global, (array, set, own));
        }
        let stale = found.is_stale();
        self.state.counters.hits[0] += 1;
        self.state.counters.stale_hits += u64::from(stale);
        Answer { level: 0, loads: 0, stale }
    }

    /// Accesses one 4 KiB page if the first level answers; `false`: nothing has changed.
    #[inline]
    pub fn access_first(&mut self, page: Vpn, kind: Kind) -> bool {
        let Some(near) = self.fours[kind as usize] else { return false };
        let own = key_for(page.0, PageSize::K4, false, self.state.pcid);
        let hit = self.state.arrays[usize::from(near)].hits_four(page.0, own, own.as_global());
        self.state.counters.accesses += u64::from(hit);
        self.state.counters.hits[0] += u64::from(hit);
        hit
    }

    /// Accesses consecutive 4 KiB pages as long as the first level or the second answers: how many those are, and how
    /// many of them the second did. It may stop early, and does so before anything has changed for the next page.
    #[inline]
    pub fn access_run(&mut self, first: Vpn, pages: u64, kind: Kind) -> (u64, u64) {
        let Some([near, far]) = self.pairs[kind as usize] else { return (0, 0) };
        let Ok([near, far]) = self.state.arrays.get_disjoint_mut([usize::from(near), usize::from(far)])
        else {
            return (0, 0);
        };
        let key = key_for(0, PageSize::K4, false, self.state.pcid);
        let counters = &mut self.state.counters;
        if !near.runs() || !far.runs() {
            return (0, 0);
        }
        let pages = first.0..first.0 + pages;
        let answered = if self.vectors {
            avx2::neighbours(near, far, key, pages)
        } else {
            neighbours::run::<neighbours::Scalar>(near, far, key, pages)
        };
        counters.accesses += answered.pages;
        counters.hits[0] += answered.pages - answered.second;
        counters.hits[1] += answered.second;
        (answered.pages, answered.second)
    }

    /// The rest of an access that the first level does not answer; `first` is where that level would keep it.
    fn access_beyond(
        &mut self,
        vpn: Vpn,
        kind: Kind,
        size: PageSize,
        global: bool,
        first: (usize, usize, Entry),
    ) -> Answer {
        let pcid = self.state.pcid;
        let levels = self.routes.len();
        let mut hit = levels;
        let mut found = Entry::EMPTY;
        // Where each level would keep it, for the fills after a miss.
        let mut places = [(0_usize, 0_usize, Entry::EMPTY); MAX_LEVELS];
        places[0] = first;
        for (level, place) in places.iter_mut().enumerate().take(levels).skip(1) {
            let route = &self.routes[level][size as usize][kind as usize];
            let Some((array, page)) = route.resolve(vpn) else { continue };
            let own = key_for(page, size, route.piece, pcid);
            let array_ref = &mut self.state.arrays[array];
            let set = array_ref.set_of(page);
            *place = (array, set, own);
            found = array_ref.lookup(set, own, own.as_global());
            if found != Entry::EMPTY {
                hit = level;
                break;
            }
        }
        let (mut loads, mut stale) = (0, found.is_stale());
        let mut enters_as_global = found.is_global();
        if hit == levels {
            self.state.counters.walks += 1;
            let (read, through_stale) = self.walk(vpn, size);
            (loads, stale) = (read, through_stale);
            enters_as_global = global;
        } else {
            self.state.counters.hits[hit] += 1;
            self.state.counters.stale_hits += u64::from(stale);
        }
        // What fills the levels above a hit is a copy of the entry that hit, its age and reach included.
        let age = found.0 & Entry::STALE;
        for level in (0..hit).rev() {
            let (array, set, own) = places[level];
            if own == Entry::EMPTY {
                continue;
            }
            let entry = Entry(if enters_as_global { own.as_global().0 } else { own.0 } | age);
            let victim = self.state.arrays[array].fill(set, entry);
            if self.inclusive && victim != Entry::EMPTY && self.geometry.levels()[level].inclusive {
                self.evict_above(level, victim);
            }
        }
        Answer { level: hit as u8, loads, stale }
    }

    /// A fill that no access asked for (speculation, prefetch): as a walk would leave the arrays, without counts.
    pub fn fill(&mut self, vpn: Vpn, kind: Kind, size: PageSize, global: bool) {
        let counters = self.state.counters.clone();
        self.access(vpn, kind, size, global);
        self.state.counters = counters;
    }

    /// The nearest level that would hit, without any effect.
    pub fn probe(&self, vpn: Vpn, pcid: Pcid, kind: Kind, size: PageSize) -> Option<Answer> {
        self.routes.iter().enumerate().find_map(|(level, routes)| {
            let route = &routes[size as usize][kind as usize];
            let (array, page) = route.resolve(vpn)?;
            let own = key_for(page, size, route.piece, pcid);
            let array = &self.state.arrays[array];
            let found = array.peek(array.set_of(page), own, own.as_global());
            (found != Entry::EMPTY).then(|| Answer { level: level as u8, loads: 0, stale: found.is_stale() })
        })
    }

    /// Walks from the deepest cached paging-structure entry; returns the entries read and whether it was stale.
    fn walk(&mut self, vpn: Vpn, size: PageSize) -> (u8, bool) {
        let leaf = size as usize;
        let pcid = self.state.pcid;
        // With four levels there is no PML5E, so the PML4E is the topmost entry a cache may hold.
        let top = usize::from(self.geometry.table_levels()) - 1;
        let mut begin = top;
        let mut stale = false;
        for level in leaf..top {
            let psc = &mut self.state.psc[level];
            if psc.ways() == 0 {
                continue;
            }
            let key = psc_key(vpn, level, pcid);
            let found = psc.lookup(0, key, key);
            if found != Entry::EMPTY {
                self.state.counters.psc_hits[level] += 1;
                stale = found.is_stale();
                begin = level;
                break;
            }
        }
        self.state.counters.stale_walks += u64::from(stale);
        for level in leaf..begin {
            let psc = &mut self.state.psc[level];
            if psc.ways() > 0 {
                psc.fill(0, psc_key(vpn, level, pcid));
            }
        }
        let loads = (begin - leaf + 1) as u8;
        self.state.counters.walk_loads += u64::from(loads);
        (loads, stale)
    }

    fn evict_above(&mut self, level: usize, victim: Entry) {
        let victim = Entry(victim.0 & !Entry::STALE);
        for array in 0..self.state.arrays.len() {
            if usize::from(self.level_of[array]) < level {
                let removed = self.state.arrays[array].remove(|entry| covers(victim, entry));
                self.state.counters.invalidated += removed as u64;
            }
        }
    }

    /// Everything cached, by level, structure, set and way.
    pub fn entries(&self) -> Vec<Cached> {
        let mut all = Vec::new();
        for (number, array) in self.state.arrays.iter().enumerate() {
            for (at, &entry) in array.keys().iter().enumerate() {
                if entry == Entry::EMPTY {
                    continue;
                }
                all.push(Cached {
                    level: self.level_of[number],
                    structure: number as u8,
                    set: (at / array.ways()) as u32,
                    way: (at % array.ways()) as u32,
                    vpn: entry.vpn(),
                    size: entry.size(),
                    pcid: (!entry.is_global()).then(|| entry.pcid()),
                    stale: entry.is_stale(),
                });
            }
        }
        all
    }

    /// Cached paging-structure entries: level (0 PDE ... 3 PML5E), first page covered, context, stale.
    pub fn psc_entries(&self) -> Vec<(u8, Vpn, Pcid, bool)> {
        let mut all = Vec::new();
        for (level, psc) in self.state.psc.iter().enumerate() {
            for entry in psc.keys().iter().filter(|&&entry| entry != Entry::EMPTY) {
                let first = Vpn(entry.page() << (9 * (level + 1)));
                all.push((level as u8, first, entry.pcid(), entry.is_stale()));
            }
        }
        all
    }

    /// The state as text, for [`Tlb::restore`].
    pub fn save(&self) -> String {
        serde_json::to_string(&self.state).expect("plain numbers always serialise")
    }

    /// A TLB of this geometry with a saved state.
    pub fn restore(geometry: impl Into<Arc<Geometry>>, saved: &str) -> Result<Self, TlbError> {
        let mut tlb = Tlb::new(geometry);
        let state: State = serde_json::from_str(saved)
            .map_err(|error| TlbError::shape("saved state", format!("cannot be read: {error}")))?;
        let alike =
            |a: &[Array], b: &[Array]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same_shape(b));
        let slots = |s: &State| s.slots.iter().map(|s| (s.array, s.room)).collect::<Vec<_>>();
        if !alike(&state.arrays, &tlb.state.arrays)
            || !alike(&state.psc, &tlb.state.psc)
            || slots(&state) != slots(&tlb.state)
        {
            return Err(TlbError::shape("saved state", "must come from the same geometry"));
        }
        tlb.state = state;
        Ok(tlb)
    }
}

#[inline]
fn key_for(page: u64, size: PageSize, piece: bool, pcid: Pcid) -> Entry {
    if piece {
        Entry(Entry::new(page, PageSize::M2, pcid, false).0 | Entry::PIECE)
    } else {
        Entry::new(page, size, pcid, false)
    }
}

fn psc_key(vpn: Vpn, level: usize, pcid: Pcid) -> Entry {
    Entry::new(vpn.0 >> (9 * (level + 1)), PageSize::K4, pcid, false)
}

/// Whether a mapping that left an inclusive level is the one `entry` holds (a piece counts for its whole page).
fn covers(victim: Entry, entry: Entry) -> bool {
    let context = |e: Entry| (e.is_global(), if e.is_global() { Pcid(0) } else { e.pcid() });
    context(victim) == context(entry) && victim.mapping() == entry.mapping()
}

/// Every level's table of arrays by size and kind.
fn routes(geometry: &Geometry) -> Vec<[[Route; 3]; 3]> {
    let mut number = 0_u8;
    let mut all = Vec::new();
    for level in geometry.levels() {
        let mut table = [[Route::default(); 3]; 3];
        for structure in &level.structures {
            for size in PageSize::ALL {
                let whole = structure.sizes.contains(&size);
                let piece = size == PageSize::G1 && structure.smashes_1g && !whole;
                if !whole && !piece {
                    continue;
                }
                for &kind in &structure.kinds {
                    let route = &mut table[size as usize][kind as usize];
                    if usize::from(route.banks) < route.arrays.len() {
                        route.arrays[usize::from(route.banks)] = number;
                        route.banks += 1;
                        route.shift = if piece { PageSize::M2 } else { size }.shift() as u8;
                        route.piece = piece;
                        route.bank_shift = structure.sets.next_power_of_two().trailing_zeros() as u8;
                    }
                }
            }
            number += 1;
        }
        all.push(table);
    }
    all
}
