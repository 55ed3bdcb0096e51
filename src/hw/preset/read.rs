//! Preset text to [`Preset`]. Every complaint names file, line and, for a misspelt key, the nearest known one.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::de::DeTable;

use super::value::{Known, Reader, Unit, Value, named};
use super::{COSTS, Costs, Fact, Features, Figure, Mark, Preset, TlbError, nearest, text_of};
use crate::hw::geometry::{Geometry, Index, Level, Psc, Replacement, Structure};
use crate::hw::{Kind, PageSize};

/// Sections of plain values: key and meaning.
const VALUES: &[(&str, &str)] = &[
    ("cpu.mhz", "core frequency, MHz"),
    ("cpu.pcid", "process-context identifiers"),
    ("cpu.invpcid", "INVPCID"),
    ("cpu.invlpgb_extra", "extra pages of one INVLPGB; 0: no INVLPGB"),
    ("cpu.rar", "Remote Action Request"),
    ("cpu.meltdown", "affected by Meltdown: PTI on by default"),
    ("cpu.invlpg_erratum", "INVLPG leaves globals while PCIDs are on"),
    ("cpu.tce", "translation cache extension"),
    ("cpu.lines_at_once", "lines of other CPUs a sender looks at at once; 0: not told apart"),
    ("walker.table_levels", "levels of the page tables"),
    ("walker.walkers", "page walkers"),
    ("walker.overlap", "divisor for overlapped walks"),
    ("walker.pde", "PDE cache entries"),
    ("walker.pdpte", "PDPTE cache entries"),
    ("walker.pml4e", "PML4E cache entries"),
    ("walker.pml5e", "PML5E cache entries"),
];

const TOP: &[&str] =
    &["name", "title", "aliases", "inherits", "vendor", "signature", "cpu", "walker", "costs", "level"];
const STRUCTURE: &[&str] = &[
    "name",
    "sets",
    "ways",
    "sizes",
    "kinds",
    "index",
    "replacement",
    "groups",
    "seed",
    "pcid_slots",
    "smt_split",
    "smashes_1g",
    "from",
];
const ASPECTS: &[&str] = &["entries", "index", "replacement", "pcid_slots"];

#[derive(Clone, Debug)]
struct DraftStructure {
    shape: Structure,
    groups: u8,
    seed: u64,
    from: BTreeMap<String, (Mark, String)>,
}

#[derive(Clone, Debug)]
struct DraftLevel {
    name: String,
    inclusive: bool,
    structures: Vec<DraftStructure>,
}

/// A text read over its parent.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    name: String,
    title: String,
    aliases: Vec<String>,
    vendor: String,
    signature: String,
    values: BTreeMap<String, Known>,
    levels: Vec<DraftLevel>,
}

impl Draft {
    pub(super) fn read(text: &str, origin: &str) -> Result<Draft, TlbError> {
        Self::read_below(text, origin, 0)
    }

    fn read_below(text: &str, origin: &str, depth: u8) -> Result<Draft, TlbError> {
        let reader = Reader { text, origin };
        let parsed = DeTable::parse(text)
            .map_err(|error| reader.fail(error.span().map_or(0, |span| span.start), error.message()))?;
        let table = parsed.get_ref();
        let mut draft = Draft::default();
        if let Some(value) = table.get("inherits") {
            let parent = reader.string("inherits", value)?;
            let at = value.span().start;
            if depth > 8 {
                return Err(reader.fail(at, format!("inherits goes in a circle: got {parent:?}")));
            }
            let parent_text = text_of(&parent).map(|text| (text, parent.clone())).or_else(|| {
                let preset = Preset::file_of_alias(&parent)?;
                text_of(&preset).map(|text| (text, preset))
            });
            let Some((parent_text, parent_name)) = parent_text else {
                let hint = nearest(&parent, Preset::names())
                    .map_or_else(String::new, |n| format!("; did you mean {n:?}?"));
                return Err(
                    reader.fail(at, format!("inherits names no built-in machine: got {parent:?}{hint}"))
                );
            };
            draft = Self::read_below(parent_text, &parent_name, depth + 1)?;
            draft.aliases.clear();
            if !parent_name.starts_with('_') {
                draft.costs_of_another_cpu();
            }
        }
        for (key, value) in table {
            let at = key.span().start;
            match key.get_ref().as_ref() {
                "inherits" => {}
                "name" => draft.name = reader.string("name", value)?,
                "title" => draft.title = reader.string("title", value)?,
                "vendor" => draft.vendor = reader.string("vendor", value)?,
                "signature" => draft.signature = reader.string("signature", value)?,
                "aliases" => draft.aliases = reader.strings("aliases", value)?,
                section @ ("cpu" | "walker" | "costs") => draft.section(&reader, section, value)?,
                "level" => {
                    let levels = value
                        .get_ref()
                        .as_array()
                        .ok_or_else(|| reader.wrong(value, "level", "[[level]] tables"))?;
                    for level in levels {
                        draft.level(&reader, level)?;
                    }
                }
                other => return Err(reader.unknown(at, other, TOP)),
            }
        }
        Ok(draft)
    }

    /// A cost that was published or measured for the CPU inherited from is a prediction for this one.
    fn costs_of_another_cpu(&mut self) {
        for (_, known) in self.values.iter_mut().filter(|(key, _)| key.starts_with("costs.")) {
            if matches!(known.mark, Mark::Published | Mark::Measured) {
                known.mark = Mark::Predicted;
            }
        }
    }

    fn section(&mut self, reader: &Reader<'_>, section: &str, value: &Value<'_>) -> Result<(), TlbError> {
        let prefix = format!("{section}.");
        let known: Vec<&str> = if section == "costs" {
            COSTS.iter().map(|(name, _)| *name).collect()
        } else {
            VALUES.iter().filter_map(|(name, _)| name.strip_prefix(&prefix)).collect()
        };
        for (key, value) in reader.table(section, value)? {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                return Err(reader.unknown(key.span().start, name, &known));
            }
            self.values.insert(format!("{section}.{name}"), reader.known(name, value, section == "costs")?);
        }
        Ok(())
    }

    fn level(&mut self, reader: &Reader<'_>, value: &Value<'_>) -> Result<(), TlbError> {
        let table = reader.table("level", value)?;
        let at = value.span().start;
        let name = table.get("name").ok_or_else(|| reader.fail(at, "a level needs a name"))?;
        let name = reader.string("name", name)?;
        let place = self.levels.iter().position(|level| level.name == name).unwrap_or_else(|| {
            self.levels.push(DraftLevel { name, inclusive: false, structures: Vec::new() });
            self.levels.len() - 1
        });
        let level = &mut self.levels[place];
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "name" => {}
                "inclusive" => level.inclusive = reader.flag("inclusive", value)?,
                "drop" => {
                    let names = reader.strings("drop", value)?;
                    level.structures.retain(|structure| !names.contains(&structure.shape.name));
                }
                "structure" => {
                    let all = value
                        .get_ref()
                        .as_array()
                        .ok_or_else(|| reader.wrong(value, "structure", "[[level.structure]] tables"))?;
                    for structure in all {
                        level.structure(reader, structure)?;
                    }
                }
                other => {
                    let known = ["name", "inclusive", "drop", "structure"];
                    return Err(reader.unknown(key.span().start, other, &known));
                }
            }
        }
        Ok(())
    }

    pub(super) fn resolve(self, origin: &str) -> Result<Preset, TlbError> {
        let fail = |rule: String| TlbError::Preset(format!("{origin}: {rule}"));
        if self.name.is_empty() {
            return Err(fail("a machine needs a name".into()));
        }
        let get =
            |key: &str| self.values.get(key).ok_or_else(|| fail(format!("{key} is missing (inherit it?)")));
        let plain = |key: &str| get(key).map(|known| known.value);
        let flag = |key: &str| plain(key).map(|value| value != 0.0);
        let mhz = plain("cpu.mhz")?;
        if !(100.0..=20_000.0).contains(&mhz) {
            return Err(fail(format!("cpu.mhz must be between 100 and 20000: got {mhz}")));
        }
        let figure = |key: &str| {
            let known = get(key)?;
            let scale = if known.unit == Unit::Nanoseconds { mhz / 1000.0 } else { 1.0 };
            let cycles = |value: f64| (value * scale).round() as u32;
            Ok(Figure {
                cycles: cycles(known.value),
                low: cycles(known.low),
                high: cycles(known.high),
                mark: known.mark,
            })
        };
        let overlap = plain("walker.overlap")?;
        if !(1.0..=100.0).contains(&overlap) {
            return Err(fail(format!("walker.overlap must be between 1 and 100: got {overlap}")));
        }
        plain("walker.walkers")?;
        let at_once = plain("cpu.lines_at_once")?;
        if !(0.0..=100.0).contains(&at_once) {
            return Err(fail(format!("cpu.lines_at_once must be between 0 and 100: got {at_once}")));
        }
        let costs = Costs::read(figure, (overlap * 10.0).round() as u32)?;
        let psc = Psc {
            pde: plain("walker.pde")? as u32,
            pdpte: plain("walker.pdpte")? as u32,
            pml4e: plain("walker.pml4e")? as u32,
            pml5e: plain("walker.pml5e")? as u32,
        };
        let table_levels = plain("walker.table_levels")? as u8;
        let extra = plain("cpu.invlpgb_extra")? as u16;
        let features = Features {
            pcid: flag("cpu.pcid")?,
            invpcid: flag("cpu.invpcid")?,
            invlpgb: (extra > 0).then_some(extra),
            rar: flag("cpu.rar")?,
            meltdown: flag("cpu.meltdown")?,
            invlpg_erratum: flag("cpu.invlpg_erratum")?,
            tce: flag("cpu.tce")?,
            table_levels,
        };
        let mut facts = Vec::new();
        let mut levels = Vec::new();
        for level in &self.levels {
            let mut structures = Vec::new();
            for structure in &level.structures {
                structures.push(structure.finish());
                structure.describe(&mut facts);
            }
            levels.push(Level { name: level.name.clone(), structures, inclusive: level.inclusive });
        }
        let geometry =
            Geometry::new(&self.name, levels, psc, table_levels).map_err(|error| fail(error.to_string()))?;
        let order = VALUES.iter().map(|(key, _)| (*key).to_owned());
        for key in order.chain(COSTS.iter().map(|(key, _)| format!("costs.{key}"))) {
            let known = &self.values[&key];
            let value = known.show(&key, mhz);
            facts.push(Fact { key, value, mark: known.mark, source: known.source.clone() });
        }
        Ok(Preset {
            name: self.name,
            title: self.title,
            aliases: self.aliases,
            vendor: self.vendor,
            signature: self.signature,
            mhz: mhz as u32,
            lines_at_once: (at_once >= 1.0).then_some(at_once as u32),
            features,
            geometry: Arc::new(geometry),
            costs: Arc::new(costs),
            facts,
        })
    }
}

impl DraftLevel {
    fn structure(&mut self, reader: &Reader<'_>, value: &Value<'_>) -> Result<(), TlbError> {
        let table = reader.table("structure", value)?;
        let at = value.span().start;
        let name = table.get("name").ok_or_else(|| reader.fail(at, "a structure needs a name"))?;
        let name = reader.string("name", name)?;
        let place = self.structures.iter().position(|s| s.shape.name == name).unwrap_or_else(|| {
            self.structures.push(DraftStructure::new(name.clone()));
            self.structures.len() - 1
        });
        let draft = &mut self.structures[place];
        let shape = &mut draft.shape;
        for (key, value) in table {
            let at = value.span().start;
            match key.get_ref().as_ref() {
                "name" => {}
                "sets" => shape.sets = reader.count("sets", value)?,
                "ways" => shape.ways = reader.count("ways", value)?,
                "pcid_slots" => shape.pcid_slots = Some(reader.count("pcid_slots", value)?),
                "groups" => draft.groups = reader.count("groups", value)? as u8,
                "seed" => draft.seed = u64::from(reader.count("seed", value)?),
                "smt_split" => shape.smt_split = reader.flag("smt_split", value)?,
                "smashes_1g" => shape.smashes_1g = reader.flag("smashes_1g", value)?,
                "sizes" => {
                    shape.sizes = named(reader, value, "sizes", PageSize::from_name, &["4K", "2M", "1G"])?;
                }
                "kinds" => {
                    shape.kinds =
                        named(reader, value, "kinds", Kind::from_name, &["load", "store", "fetch"])?;
                }
                "index" => {
                    shape.index = match reader.string("index", value)?.as_str() {
                        "linear" => Index::Linear,
                        "xor" => Index::Xor,
                        "modulo" => Index::Modulo,
                        other => {
                            return Err(reader
                                .fail(at, format!("index must be linear, xor or modulo: got {other:?}")));
                        }
                    }
                }
                "replacement" => {
                    shape.replacement = match reader.string("replacement", value)?.as_str() {
                        "lru" => Replacement::Lru,
                        "tree-plru" => Replacement::TreePlru,
                        "mru-plru" => Replacement::MruPlru { groups: 0 },
                        "fifo" => Replacement::Fifo,
                        "random" => Replacement::Random { seed: 0 },
                        other => {
                            let known = "lru, tree-plru, mru-plru, fifo or random";
                            return Err(
                                reader.fail(at, format!("replacement must be {known}: got {other:?}"))
                            );
                        }
                    }
                }
                "from" => {
                    for (aspect, pair) in reader.table("from", value)? {
                        let name = aspect.get_ref().as_ref();
                        if !ASPECTS.contains(&name) {
                            return Err(reader.unknown(aspect.span().start, name, ASPECTS));
                        }
                        let items = pair.get_ref().as_array().filter(|items| items.len() == 2);
                        let items = items.ok_or_else(|| reader.wrong(pair, name, "[mark, source]"))?;
                        let known = (reader.mark(&items[0])?, reader.string("source", &items[1])?);
                        draft.from.insert(name.to_owned(), known);
                    }
                }
                other => return Err(reader.unknown(key.span().start, other, STRUCTURE)),
            }
        }
        Ok(())
    }
}

impl DraftStructure {
    fn new(name: String) -> Self {
        let shape = Structure {
            name,
            sets: 1,
            ways: 0,
            sizes: Vec::new(),
            kinds: Kind::ALL.to_vec(),
            index: Index::Linear,
            replacement: Replacement::Lru,
            pcid_slots: None,
            smt_split: false,
            smashes_1g: false,
        };
        DraftStructure { shape, groups: 3, seed: 1, from: BTreeMap::new() }
    }

    fn finish(&self) -> Structure {
        let mut shape = self.shape.clone();
        shape.replacement = match shape.replacement {
            Replacement::MruPlru { .. } => Replacement::MruPlru { groups: self.groups },
            Replacement::Random { .. } => Replacement::Random { seed: self.seed },
            Replacement::Lru | Replacement::TreePlru | Replacement::Fifo => shape.replacement,
        };
        shape
    }

    fn describe(&self, facts: &mut Vec<Fact>) {
        let shape = &self.shape;
        let sizes: Vec<&str> = shape.sizes.iter().map(|size| size.name()).collect();
        let kinds: Vec<&str> = shape.kinds.iter().map(|kind| kind.name()).collect();
        let ways = if shape.sets == 1 {
            "fully associative".into()
        } else {
            format!("{} sets x {} ways", shape.sets, shape.ways)
        };
        let split = if shape.smt_split { ", halved under SMT" } else { "" };
        let smash = if shape.smashes_1g { ", 1G in 2M pieces" } else { "" };
        let policy = match shape.replacement {
            Replacement::Lru => "LRU".to_owned(),
            Replacement::TreePlru => "tree-PLRU".to_owned(),
            Replacement::MruPlru { .. } => {
                format!("(MRU+1) mod {} PLRU{}", self.groups, shape.ways / u32::from(self.groups).max(1))
            }
            Replacement::Fifo => "FIFO".to_owned(),
            Replacement::Random { .. } => format!("random, seed {}", self.seed),
        };
        let index = match shape.index {
            Index::Linear => "linear".to_owned(),
            Index::Xor => format!("XOR-{}", shape.sets.max(1).ilog2()),
            Index::Modulo => "modulo".to_owned(),
        };
        let slots = shape.pcid_slots.map_or_else(
            || "any number of contexts".into(),
            |n| if n == 1 { "one context".into() } else { format!("{n} contexts") },
        );
        let what = [
            (
                "entries",
                format!(
                    "{} entries, {ways}, {}, {}{split}{smash}",
                    shape.entries(),
                    sizes.join("+"),
                    kinds.join("+")
                ),
            ),
            ("index", index),
            ("replacement", policy),
            ("pcid_slots", slots),
        ];
        for (aspect, value) in what {
            if aspect == "index" && shape.sets == 1 {
                continue;
            }
            let (mark, source) = self.from.get(aspect).cloned().unwrap_or((
                Mark::Unsourced,
                match aspect {
                    "pcid_slots" => "not known for this part: the architectural idealisation".to_owned(),
                    _ => "not known for this part: the simplest choice".to_owned(),
                },
            ));
            facts.push(Fact { key: format!("{}.{aspect}", shape.name), value, mark, source });
        }
    }
}
