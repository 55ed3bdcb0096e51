//! What a TLB counts.

use serde::{Deserialize, Serialize};

use super::MAX_LEVELS;

/// Counts since the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Accesses.
    pub accesses: u64,
    /// Hits per level, nearest level first.
    pub hits: [u64; MAX_LEVELS],
    /// Accesses that no level answered.
    pub walks: u64,
    /// Walks that began at a cached PDE, PDPTE, PML4E or PML5E.
    pub psc_hits: [u64; 4],
    /// Paging-structure entries that walks read from memory.
    pub walk_loads: u64,
    /// Hits on an entry whose table has changed since it was filled.
    pub stale_hits: u64,
    /// Walks that began at a cached paging-structure entry whose table has changed since.
    pub stale_walks: u64,
    /// Changes of context.
    pub switches: u64,
    /// Entries removed by invalidations and by lack of PCID slots.
    pub invalidated: u64,
}

impl Counters {
    /// Adds another set of counts.
    pub fn add(&mut self, other: &Counters) {
        self.accesses += other.accesses;
        self.walks += other.walks;
        self.walk_loads += other.walk_loads;
        self.stale_hits += other.stale_hits;
        self.stale_walks += other.stale_walks;
        self.switches += other.switches;
        self.invalidated += other.invalidated;
        for (sum, more) in self.hits.iter_mut().zip(other.hits) {
            *sum += more;
        }
        for (sum, more) in self.psc_hits.iter_mut().zip(other.psc_hits) {
            *sum += more;
        }
    }
}

impl Counters {
    /// What has been counted since `before`.
    #[must_use]
    pub fn since(&self, before: &Counters) -> Counters {
        let mut rest = self.clone();
        rest.accesses -= before.accesses;
        rest.walks -= before.walks;
        rest.walk_loads -= before.walk_loads;
        rest.stale_hits -= before.stale_hits;
        rest.stale_walks -= before.stale_walks;
        rest.switches -= before.switches;
        rest.invalidated -= before.invalidated;
        for (count, earlier) in rest.hits.iter_mut().zip(before.hits) {
            *count -= earlier;
        }
        for (count, earlier) in rest.psc_hits.iter_mut().zip(before.psc_hits) {
            *count -= earlier;
        }
        rest
    }
}
