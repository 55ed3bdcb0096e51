//! CPU models as data. A preset is a TOML text: geometry, features, walker and costs, each number with a mark and a
//! source. The built-in ones are the CPUs of HARDWARE 1.1 and 1.2; a user's text works the same and may inherit.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use super::TlbError;
use super::geometry::Geometry;
use crate::cache::Cache;
use crate::names::nearest;
use crate::order;

mod read;
mod value;

/// How a number came to be known. Nothing is shown without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mark {
    /// Measured for this project.
    Measured,
    /// Read in a primary or near-primary source (arithmetic on such a number says so in its source).
    Published,
    /// Chosen so that the model meets a published or measured figure.
    Fitted,
    /// Taken over from another CPU or computed by the model.
    Predicted,
    /// From memory or a guess; results that rest on it are intervals.
    Unsourced,
}

impl Mark {
    /// From the strongest to the weakest.
    pub const ALL: [Mark; 5] =
        [Mark::Measured, Mark::Published, Mark::Fitted, Mark::Predicted, Mark::Unsourced];

    /// As written in presets and outputs.
    pub const fn name(self) -> &'static str {
        match self {
            Mark::Measured => "measured",
            Mark::Published => "published",
            Mark::Fitted => "fitted",
            Mark::Predicted => "predicted",
            Mark::Unsourced => "unsourced",
        }
    }
}

/// A cost in core cycles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// Best estimate.
    pub cycles: u32,
    /// Lower end of what the source allows; equal to `cycles` if it gives one number.
    pub low: u32,
    /// Upper end.
    pub high: u32,
    /// How it came to be known.
    pub mark: Mark,
}

macro_rules! costs {
    ($($field:ident: $what:literal,)*) => {
        /// What the operations of one CPU cost, in core cycles at its frequency.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Costs {
            $(#[doc = $what] pub $field: Figure,)*
            /// Tenths of the divisor for independent misses (HARDWARE 2.1: dependent walks cost about 45 cycles,
            /// overlapped ones 10 to 20).
            pub overlap_tenths: u32,
        }

        /// Names and meanings of the costs, in the order in which they are shown.
        pub const COSTS: &[(&str, &str)] = &[$((stringify!($field), $what),)*];

        impl Costs {
            fn read(get: impl Fn(&str) -> Result<Figure, TlbError>, overlap_tenths: u32) -> Result<Self, TlbError> {
                Ok(Costs { $($field: get(concat!("costs.", stringify!($field)))?,)* overlap_tenths })
            }

            /// A cost by its name in the preset.
            pub fn get(&self, name: &str) -> Option<Figure> {
                match name {
                    $(stringify!($field) => Some(self.$field),)*
                    _ => None,
                }
            }
        }
    };
}

costs! {
    mov_cr3_flush: "MOV CR3 without NOFLUSH, refills not included",
    mov_cr3_noflush: "MOV CR3 with NOFLUSH",
    invpcid_address: "INVPCID type 0, one address",
    invpcid_context: "INVPCID type 1, one context",
    invpcid_all: "INVPCID type 2, everything",
    invpcid_non_global: "INVPCID type 3, everything but globals",
    invlpg: "INVLPG",
    cr4_pge_toggle: "CR4.PGE off and on, two MOV CR4",
    mfence: "MFENCE",
    lock: "a LOCKed read-modify-write on a line in the L1",
    syscall: "SYSCALL, without the kernel's entry code",
    sysret: "SYSRET",
    swapgs: "SWAPGS",
    interrupt_entry: "interrupt delivery from user mode up to the handler, without CR3",
    interrupt_exit: "interrupt return to user mode, without CR3",
    nmi_entry: "NMI delivery up to the handler, without CR3",
    nmi_exit: "return from an NMI, without CR3",
    ipi_send: "sender's share of one IPI: the write to the APIC",
    ipi_same_socket: "from the write to the target taking the interrupt, same socket",
    ipi_cross_socket: "the same, other socket",
    ipi_first: "IPI round trip to the first target: sent, handled, acknowledged",
    ipi_next: "each further target of the same round",
    remote_line: "a load of a line another core has just written, same socket",
    remote_line_cross_socket: "the same, other socket",
    invlpgb: "INVLPGB, on the sender",
    tlbsync: "TLBSYNC, until every CPU has carried out the sender's INVLPGBs",
    rar: "Remote Action Request, until acknowledged",
    stlb_hit: "hit in the second level, beyond a first-level hit",
    walk_setup: "a page walk, without its memory reads",
    mem_l1: "load that hits the L1D",
    mem_l2: "load that hits the L2",
    mem_l3: "load that hits the L3",
    mem_dram: "load from memory",
}

impl Costs {
    /// A dependent walk that reads `loads` entries, all of them in the L2.
    pub fn walk_cycles(&self, loads: u8) -> u32 {
        self.walk_setup.cycles + u32::from(loads) * self.mem_l2.cycles
    }

    /// The same cycles when other work overlaps them.
    pub fn overlapped(&self, cycles: u64) -> u64 {
        cycles * 10 / u64::from(self.overlap_tenths)
    }
}

/// What the CPU can do.
#[allow(clippy::struct_excessive_bools)] // each is a bit of CPUID
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// CR4.PCIDE may be set.
    pub pcid: bool,
    /// INVPCID exists (some CPUs with PCID lack it).
    pub invpcid: bool,
    /// Extra pages of one INVLPGB (CPUID 8000_0008h.EDX), if it exists.
    pub invlpgb: Option<u16>,
    /// Remote Action Request exists.
    pub rar: bool,
    /// Affected by Meltdown: page-table isolation is on unless turned off.
    pub meltdown: bool,
    /// The INVLPG erratum of FACTS B11 is present.
    pub invlpg_erratum: bool,
    /// AMD's translation cache extension.
    pub tce: bool,
    /// Levels of its page tables.
    pub table_levels: u8,
}

/// One line of a preset as it is shown: what, its value, how it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// `section.key`, or `structure.aspect`.
    pub key: String,
    /// Value with unit.
    pub value: String,
    /// How it is known.
    pub mark: Mark,
    /// Where from.
    pub source: String,
}

/// One CPU model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preset {
    /// The name it is called by.
    pub name: String,
    /// One line for people.
    pub title: String,
    /// Other names: parts that share this preset.
    pub aliases: Vec<String>,
    /// `intel`, `amd` or whatever the text says.
    pub vendor: String,
    /// CPUID signature(s).
    pub signature: String,
    /// Core frequency in MHz: what nanoseconds are converted with.
    pub mhz: u32,
    /// How many lines of other CPUs are under way at once where a sender looks at one CPU after the other. `None`: the
    /// lines of other CPUs are not told apart.
    pub lines_at_once: Option<u32>,
    /// What it can do.
    pub features: Features,
    /// Its TLB, SMT siblings idle.
    pub geometry: Arc<Geometry>,
    /// Its costs.
    pub costs: Arc<Costs>,
    /// Every number with its mark and source.
    pub facts: Vec<Fact>,
}

macro_rules! texts {
    ($($file:literal,)*) => {
        &[$(($file, include_str!(concat!("presets/", $file, ".toml"))),)*]
    };
}

/// Embedded texts. Those that begin with `_` are parents only.
const TEXTS: &[(&str, &str)] = texts![
    "_generic",
    "_intel",
    "_amd",
    "haswell-ep-e5-2699v3",
    "haswell-e3-1231v3",
    "haswell-ep-calls",
    "latr-2x8",
    "latr-8x15",
    "broadwell-ep-e5-2699v4",
    "broadwell-ex-e7-8890v4",
    "skylake-sp",
    "cascade-lake-sp",
    "ice-lake-sp",
    "sapphire-rapids",
    "emerald-rapids",
    "granite-rapids",
    "golden-cove",
    "raptor-cove",
    "lion-cove",
    "zen2-epyc",
    "zen3-epyc",
    "zen4-epyc",
    "zen5-epyc",
    "zen3-client",
    "zen4-client",
    "zen5-client",
    "peers-64x4-1536x12",
];

static BUILTIN: LazyLock<BTreeMap<&'static str, Arc<Preset>>> = LazyLock::new(|| {
    order::gather(TEXTS.iter().filter(|(file, _)| !file.starts_with('_')).map(|(file, text)| {
        let preset = Preset::parse(text, file).unwrap_or_else(|error| panic!("embedded preset: {error}"));
        (*file, Arc::new(preset))
    }))
});

impl Preset {
    /// Built-in names, without aliases.
    pub fn names() -> Vec<&'static str> {
        TEXTS.iter().map(|(file, _)| *file).filter(|file| !file.starts_with('_')).collect()
    }

    /// A built-in preset by name or alias.
    pub fn builtin(name: &str) -> Result<Arc<Preset>, TlbError> {
        if let Some(preset) = BUILTIN.get(name) {
            return Ok(Arc::clone(preset));
        }
        if let Some(preset) = BUILTIN.values().find(|preset| preset.aliases.iter().any(|alias| alias == name))
        {
            return Ok(Arc::clone(preset));
        }
        let known = BUILTIN.values().flat_map(|preset| {
            std::iter::once(preset.name.as_str()).chain(preset.aliases.iter().map(String::as_str))
        });
        let hint = nearest(name, known).map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
        Err(TlbError::Preset(format!("no machine is called {name:?}{hint}")))
    }

    /// File name of the built-in preset with this alias. Reads texts, not presets, so that a preset may be read while
    /// the table of all presets is being built.
    fn file_of_alias(alias: &str) -> Option<String> {
        TEXTS
            .iter()
            .find(|(_, text)| {
                text.lines().any(|line| line.starts_with("aliases") && line.contains(&format!("{alias:?}")))
            })
            .map(|(file, _)| (*file).to_owned())
    }

    /// Reads a text; `origin` (a file name) stands in messages.
    pub fn parse(text: &str, origin: &str) -> Result<Preset, TlbError> {
        read::Draft::read(text, origin)?.resolve(origin)
    }

    /// The preset of a text, read once.
    pub fn shared(text: &str, origin: &str) -> Result<Arc<Preset>, TlbError> {
        static READ: Cache<(String, String), Arc<Preset>> = Cache::new(64);
        READ.get_or((text.into(), origin.into()), || Preset::parse(text, origin).map(Arc::new))
    }

    /// Nanoseconds in core cycles of this CPU.
    pub fn cycles(&self, ns: u64) -> u64 {
        ns * u64::from(self.mhz) / 1000
    }

    /// Core cycles in picoseconds.
    pub fn picoseconds(&self, cycles: u64) -> u64 {
        (u128::from(cycles) * 1_000_000 / u128::from(self.mhz)) as u64
    }
}

fn text_of(file: &str) -> Option<&'static str> {
    TEXTS.iter().find(|(name, _)| *name == file).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hw::{Kind, PageSize};

    #[test]
    fn every_builtin_preset_parses_and_every_number_has_a_source() {
        for name in Preset::names() {
            let preset = Preset::builtin(name).unwrap();
            assert_eq!(preset.name, name);
            for fact in &preset.facts {
                assert!(!fact.source.is_empty(), "{name}: {} has no source", fact.key);
            }
            assert!(preset.facts.len() > 10, "{name}");
        }
    }

    #[test]
    fn a_misspelt_name_is_answered_with_the_nearest_one() {
        let error = Preset::builtin("skylake-ps").unwrap_err().to_string();
        assert_eq!(error, "no machine is called \"skylake-ps\"; did you mean \"skylake-sp\"?");
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_the_nearest_known_one() {
        let error = Preset::parse(
            "name = \"x\"\ninherits = \"skylake-sp\"\n[cpu]\npcdi = { value = true }\n",
            "x.toml",
        );
        let error = error.unwrap_err().to_string();
        assert_eq!(error, "x.toml:4: unknown key \"pcdi\"; did you mean \"pcid\"?");
    }

    #[test]
    fn a_user_text_inherits_and_changes_one_structure() {
        let text = r#"
name = "mine"
inherits = "skylake-sp"
[[level]]
name = "stlb"
[[level.structure]]
name = "stlb"
ways = 8
replacement = "lru"
from = { entries = ["unsourced", "a what-if"], replacement = ["unsourced", "a what-if"] }
"#;
        let mine = Preset::parse(text, "mine.toml").unwrap();
        let stlb = &mine.geometry.levels()[1].structures[0];
        assert_eq!((stlb.sets, stlb.ways), (128, 8));
        let costs = |preset: &Preset| -> Vec<(String, String)> {
            let costs = preset.facts.iter().filter(|fact| fact.key.starts_with("costs."));
            costs.map(|fact| (fact.key.clone(), fact.value.clone())).collect()
        };
        assert!(costs(&mine).len() > 20);
        assert_eq!(costs(&mine), costs(&Preset::builtin("skylake-sp").unwrap()));
    }

    #[test]
    fn a_cost_published_for_another_cpu_is_a_prediction_and_one_of_the_common_base_is_not() {
        let mark = |name: &str, key: &str| {
            let preset = Preset::builtin(name).unwrap();
            let key = format!("costs.{key}");
            preset.facts.iter().find(|fact| fact.key == key).map(|fact| fact.mark)
        };
        assert_eq!(mark("zen4-epyc", "stlb_hit"), Some(Mark::Measured));
        assert_eq!(mark("zen4-client", "stlb_hit"), Some(Mark::Predicted));
        assert_eq!(mark("skylake-sp", "invlpg"), Some(Mark::Published));
        assert_eq!(mark("cascade-lake-sp", "invlpg"), Some(Mark::Predicted));
        assert_eq!(mark("cascade-lake-sp", "syscall"), Some(Mark::Unsourced));
    }

    #[test]
    fn the_peers_preset_is_the_geometry_of_published_simulators() {
        let peers = Preset::builtin("peers-64x4-1536x12").unwrap();
        let shape = |level: usize| {
            let s = &peers.geometry.levels()[level].structures[0];
            (s.sets, s.ways, s.replacement)
        };
        let wanted = Geometry::peers();
        assert_eq!(peers.geometry.levels().len(), 2);
        for level in 0..2 {
            let s = &wanted.levels()[level].structures[0];
            assert_eq!(shape(level), (s.sets, s.ways, s.replacement));
        }
    }

    #[test]
    fn every_machine_translates_every_page_size_it_can_meet() {
        for name in Preset::names().into_iter().filter(|name| !name.starts_with("peers")) {
            let tlb = crate::hw::Tlb::new(Arc::clone(&Preset::builtin(name).unwrap().geometry));
            for (size, kind) in PageSize::ALL.into_iter().flat_map(|s| Kind::ALL.map(|k| (s, k))) {
                tlb.check_held(size, kind).unwrap_or_else(|error| panic!("{name}: {error}"));
            }
        }
    }
}
