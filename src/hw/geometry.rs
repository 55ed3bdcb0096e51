//! The shape of a TLB as data: levels made of structures. A [`Geometry`] that exists is valid, so the engine that
//! runs it neither checks nor fails.
//!
//! A *structure* is one physical array: sets, ways, the page sizes and kinds of access it serves, how it picks a set
//! and a victim, and how many contexts it keeps. A *level* is the structures that are probed together. Two structures
//! of a level that hold the same size are banks: the page-number bit just above the set index picks one [own reading;
//! Intel does not say how Ice Lake's two second-level arrays share 4 KiB pages].

use super::{Kind, PageSize, TlbError};

/// Most structures a geometry may have.
pub const MAX_STRUCTURES: usize = 32;
/// Most structures of a level that may share a page size.
pub const MAX_BANKS: usize = 4;
/// Most levels a geometry may have.
pub const MAX_LEVELS: usize = 8;

/// How a page number becomes a set number (HARDWARE 1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Index {
    /// The low bits of the page number.
    Linear,
    /// Two adjacent groups of `log2(sets)` bits of the page number, combined with XOR.
    Xor,
    /// Page number modulo the number of sets, which need not be a power of two.
    Modulo,
}

/// Which entry of a full set leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Replacement {
    /// Least recently used.
    Lru,
    /// Binary tree of direction bits; ways are a power of two.
    TreePlru,
    /// Groups of a power of two ways; the victim's group follows the most recently used one, tree-PLRU inside
    /// (the "(MRU+1) mod 3 PLRU4" of 12-way STLBs).
    MruPlru {
        /// Number of groups.
        groups: u8,
    },
    /// First in, first out.
    Fifo,
    /// Uniform from a seeded counter-based generator.
    Random {
        /// Seed; the n-th eviction of the structure uses `splitmix64(seed, n)`.
        seed: u64,
    },
}

/// One physical array.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Structure {
    /// Name such as `dtlb-4k`.
    pub name: String,
    /// Sets.
    pub sets: u32,
    /// Ways per set.
    pub ways: u32,
    /// Page sizes it holds.
    pub sizes: Vec<PageSize>,
    /// Kinds of access it serves.
    pub kinds: Vec<Kind>,
    /// How a set is picked.
    pub index: Index,
    /// How a victim is picked.
    pub replacement: Replacement,
    /// Contexts whose entries it keeps at one time, the current one included, least recently loaded first out.
    /// `None`: any number (the architectural idealisation). 0 and 1 both mean that a switch of context leaves
    /// nothing but global entries.
    pub pcid_slots: Option<u32>,
    /// Whether it is cut into halves (of its sets) when the SMT sibling is on.
    pub smt_split: bool,
    /// Whether 1 GiB pages are entered as 2 MiB pieces (Zen 2, HARDWARE 1.2).
    pub smashes_1g: bool,
}

impl Structure {
    /// Entries it has room for.
    pub fn entries(&self) -> u64 {
        u64::from(self.sets) * u64::from(self.ways)
    }

    /// Index, replacement, groups and seed in the words of a preset.
    pub fn names(&self) -> (&'static str, &'static str, u8, u64) {
        let index = match self.index {
            Index::Linear => "linear",
            Index::Xor => "xor",
            Index::Modulo => "modulo",
        };
        match self.replacement {
            Replacement::Lru => (index, "lru", 0, 0),
            Replacement::TreePlru => (index, "tree-plru", 0, 0),
            Replacement::MruPlru { groups } => (index, "mru-plru", groups, 0),
            Replacement::Fifo => (index, "fifo", 0, 0),
            Replacement::Random { seed } => (index, "random", 0, seed),
        }
    }

    fn check(&self) -> Result<(), TlbError> {
        let at = |field: &str| format!("{}.{field}", self.name);
        if self.ways == 0 {
            return Err(TlbError::shape(at("ways"), "must be at least 1: got 0"));
        }
        if self.sets == 0 {
            return Err(TlbError::shape(at("sets"), "must be at least 1: got 0"));
        }
        if self.entries() > 1 << 24 {
            let rule = format!("sets * ways must be at most 2**24: got {} * {}", self.sets, self.ways);
            return Err(TlbError::shape(at("sets"), rule));
        }
        if self.index != Index::Modulo && !self.sets.is_power_of_two() {
            let rule =
                format!("must be a power of two for this index (or index = \"modulo\"): got {}", self.sets);
            return Err(TlbError::shape(at("sets"), rule));
        }
        match self.replacement {
            Replacement::TreePlru if !self.ways.is_power_of_two() || self.ways > 64 => {
                let rule = format!("must be a power of two, at most 64, for tree-plru: got {}", self.ways);
                return Err(TlbError::shape(at("ways"), rule));
            }
            Replacement::MruPlru { groups } => {
                let groups = u32::from(groups);
                let fits = groups >= 2
                    && self.ways.is_multiple_of(groups)
                    && (self.ways / groups).is_power_of_two()
                    && self.ways <= 48
                    && groups <= 16;
                if !fits {
                    let rule = format!(
                        "must be 2 to 16 groups of a power of two (48 ways at most) for mru-plru: got {} ways in {groups} groups",
                        self.ways
                    );
                    return Err(TlbError::shape(at("ways"), rule));
                }
            }
            Replacement::Lru | Replacement::TreePlru | Replacement::Fifo | Replacement::Random { .. } => {}
        }
        if self.sizes.is_empty() {
            return Err(TlbError::shape(
                at("sizes"),
                "must name at least one of \"4K\", \"2M\", \"1G\": got none",
            ));
        }
        if self.kinds.is_empty() {
            return Err(TlbError::shape(
                at("kinds"),
                "must name at least one of \"load\", \"store\", \"fetch\": got none",
            ));
        }
        Ok(())
    }
}

/// Structures that are probed together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Level {
    /// Name of the level; its hit counter is called `{name}_hits`.
    pub name: String,
    /// Its arrays.
    pub structures: Vec<Structure>,
    /// Whether an entry that leaves this level is also removed from the levels above it.
    pub inclusive: bool,
}

/// Paging-structure caches (SDM 4.10.3): entries of each, fully associative, true LRU; 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Psc {
    /// PDE cache.
    pub pde: u32,
    /// PDPTE cache.
    pub pdpte: u32,
    /// PML4E cache.
    pub pml4e: u32,
    /// PML5E cache (five-level paging only).
    pub pml5e: u32,
}

impl Psc {
    /// By the level of the entry they hold, deepest first: PDE, PDPTE, PML4E, PML5E.
    pub const fn sizes(self) -> [u32; 4] {
        [self.pde, self.pdpte, self.pml4e, self.pml5e]
    }
}

/// A whole TLB: what the engine runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    name: String,
    levels: Vec<Level>,
    psc: Psc,
    table_levels: u8,
}

impl Geometry {
    /// Checks every rule once.
    pub fn new(name: &str, levels: Vec<Level>, psc: Psc, table_levels: u8) -> Result<Self, TlbError> {
        if levels.is_empty() || levels.len() > MAX_LEVELS {
            let rule = format!("must be 1 to {MAX_LEVELS}: got {}", levels.len());
            return Err(TlbError::shape("levels", rule));
        }
        if !(4..=5).contains(&table_levels) {
            return Err(TlbError::shape("table_levels", format!("must be 4 or 5: got {table_levels}")));
        }
        if psc.sizes().iter().any(|&entries| entries > 4096) {
            return Err(TlbError::shape("psc", "a paging-structure cache has at most 4096 entries"));
        }
        let mut names: Vec<&str> = Vec::new();
        for level in &levels {
            if level.structures.is_empty() {
                return Err(TlbError::shape(
                    format!("level {}", level.name),
                    "must have a structure: got none",
                ));
            }
            for structure in &level.structures {
                structure.check()?;
                if names.contains(&structure.name.as_str()) {
                    return Err(TlbError::shape(&structure.name, "names of structures must differ"));
                }
                names.push(&structure.name);
            }
            for (size, kind) in PageSize::ALL.into_iter().flat_map(|s| Kind::ALL.map(|k| (s, k))) {
                let serves = |s: &&Structure| s.sizes.contains(&size) && s.kinds.contains(&kind);
                let smashes = |s: &&Structure| s.smashes_1g && s.kinds.contains(&kind) && !serves(s);
                let whole = level.structures.iter().filter(serves).count();
                if let Some(structure) = level.structures.iter().find(smashes)
                    && size == PageSize::G1
                    && whole > 0
                {
                    let rule = "no other structure of its level may hold 1G pages whole";
                    return Err(TlbError::shape(format!("{}.smashes_1g", structure.name), rule));
                }
                if whole > MAX_BANKS {
                    let rule = format!(
                        "at most {MAX_BANKS} structures may share {} pages: got {whole}",
                        size.name()
                    );
                    return Err(TlbError::shape(format!("level {}", level.name), rule));
                }
                let mut banks =
                    level.structures.iter().filter(|s| s.sizes.contains(&size) && s.kinds.contains(&kind));
                let Some(first) = banks.next() else { continue };
                if let Some(other) = banks.find(|other| other.sets != first.sets) {
                    let rule =
                        format!("banks that share {} pages must have the same number of sets", size.name());
                    return Err(TlbError::shape(format!("{} and {}", first.name, other.name), rule));
                }
            }
        }
        if names.len() > MAX_STRUCTURES {
            let rule = format!("must be at most {MAX_STRUCTURES}: got {}", names.len());
            return Err(TlbError::shape("structures", rule));
        }
        for (i, level) in levels.iter().enumerate() {
            if levels[..i].iter().any(|other| other.name == level.name) {
                return Err(TlbError::shape(&level.name, "names of levels must differ"));
            }
        }
        Ok(Geometry { name: name.to_owned(), levels, psc, table_levels })
    }

    /// Name, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Levels, nearest to the core first.
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// Paging-structure caches.
    pub fn psc(&self) -> Psc {
        self.psc
    }

    /// Levels of the page tables: 4 or 5.
    pub fn table_levels(&self) -> u8 {
        self.table_levels
    }

    /// The geometry one sibling sees while the other runs: structures that SMT splits have half their sets.
    #[must_use]
    pub fn with_smt(&self) -> Self {
        let mut geometry = self.clone();
        for structure in geometry.levels.iter_mut().flat_map(|level| &mut level.structures) {
            if structure.smt_split && structure.sets > 1 {
                structure.sets /= 2;
            } else if structure.smt_split && structure.ways > 1 {
                structure.ways /= 2;
            }
        }
        geometry
    }

    /// The same shape that keeps any number of contexts (the architectural idealisation).
    #[must_use]
    pub fn without_pcid_slots(&self) -> Self {
        let mut geometry = self.clone();
        for structure in geometry.levels.iter_mut().flat_map(|level| &mut level.structures) {
            structure.pcid_slots = None;
        }
        geometry
    }

    /// The geometry of published TLB simulators: 64 entries in 4 ways, 1,536 in 12, exact LRU (PEERS 2.2).
    pub fn peers() -> Self {
        let structure = |name: &str, sets, ways| Structure {
            name: name.into(),
            sets,
            ways,
            sizes: vec![PageSize::K4],
            kinds: Kind::ALL.to_vec(),
            index: Index::Linear,
            replacement: Replacement::Lru,
            pcid_slots: None,
            smt_split: false,
            smashes_1g: false,
        };
        let level = |name: &str, s| Level { name: name.into(), structures: vec![s], inclusive: false };
        let levels = vec![level("l1", structure("l1", 16, 4)), level("stlb", structure("stlb", 128, 12))];
        Geometry::new("peers-64x4-1536x12", levels, Psc::default(), 4).expect("a fixed valid shape")
    }
}
