//! Preset text to [`Preset`]. Every complaint names file, line and, for a misspelt key, the nearest known one.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{COSTS, Costs, Fact, Features, Figure, Mark, Preset, TlbError, nearest, text_of};
use crate::hw::geometry::{Geometry, Index, Level, Psc, Replacement, Structure};
use crate::hw::{Kind, PageSize};

/// A number or flag with what is known about it.
#[derive(Clone, Debug)]
struct Known {
    value: f64,
    low: f64,
    high: f64,
    unit: Unit,
    mark: Mark,
    source: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Plain,
    Cycles,
    Nanoseconds,
}

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

/// Where in which text.
struct Reader<'a> {
    text: &'a str,
    origin: &'a str,
}

type Table<'a> = DeTable<'a>;
type Value<'a> = Spanned<DeValue<'a>>;

impl Reader<'_> {
    fn fail(&self, at: usize, rule: impl std::fmt::Display) -> TlbError {
        let line = self.text[..at.min(self.text.len())].matches('\n').count() + 1;
        TlbError::Preset(format!("{}:{line}: {rule}", self.origin))
    }

    fn unknown(&self, at: usize, key: &str, known: &[&str]) -> TlbError {
        let hint = nearest(key, known.iter().copied()).map_or_else(
            || format!("; known: {}", known.join(", ")),
            |near| format!("; did you mean {near:?}?"),
        );
        self.fail(at, format!("unknown key {key:?}{hint}"))
    }

    fn wrong(&self, value: &Value<'_>, key: &str, wanted: &str) -> TlbError {
        self.fail(value.span().start, format!("{key} must be {wanted}: got {}", value.get_ref().type_str()))
    }

    fn string(&self, key: &str, value: &Value<'_>) -> Result<String, TlbError> {
        value.get_ref().as_str().map(str::to_owned).ok_or_else(|| self.wrong(value, key, "a string"))
    }

    fn strings(&self, key: &str, value: &Value<'_>) -> Result<Vec<String>, TlbError> {
        let array =
            value.get_ref().as_array().ok_or_else(|| self.wrong(value, key, "an array of strings"))?;
        array.iter().map(|item| self.string(key, item)).collect()
    }

    fn table<'a, 'i>(&self, key: &str, value: &'a Value<'i>) -> Result<&'a Table<'i>, TlbError> {
        value.get_ref().as_table().ok_or_else(|| self.wrong(value, key, "a table"))
    }

    fn flag(&self, key: &str, value: &Value<'_>) -> Result<bool, TlbError> {
        value.get_ref().as_bool().ok_or_else(|| self.wrong(value, key, "true or false"))
    }

    fn number(&self, key: &str, value: &Value<'_>) -> Result<f64, TlbError> {
        let inner = value.get_ref();
        let parsed = if let Some(flag) = inner.as_bool() {
            Some(f64::from(u8::from(flag)))
        } else if let Some(integer) = inner.as_integer() {
            i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(|n| n as f64)
        } else {
            inner.as_float().and_then(|float| float.as_str().parse().ok())
        };
        match parsed {
            None => Err(self.wrong(value, key, "a number")),
            Some(n) if !n.is_finite() || n < 0.0 => {
                Err(self.fail(value.span().start, format!("{key} must be finite and not negative: got {n}")))
            }
            Some(n) => Ok(n),
        }
    }

    fn count(&self, key: &str, value: &Value<'_>) -> Result<u32, TlbError> {
        let n = self.number(key, value)?;
        if n.fract() == 0.0 && n <= f64::from(u32::MAX) && !value.get_ref().is_bool() {
            return Ok(n as u32);
        }
        Err(self.fail(value.span().start, format!("{key} must be a whole number: got {n}")))
    }

    fn mark(&self, value: &Value<'_>) -> Result<Mark, TlbError> {
        let name = self.string("mark", value)?;
        let known = Mark::ALL.map(Mark::name);
        Mark::ALL.into_iter().find(|mark| mark.name() == name).ok_or_else(|| {
            let hint =
                nearest(&name, known).map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
            self.fail(
                value.span().start,
                format!("mark must be one of {}: got {name:?}{hint}", known.join(", ")),
            )
        })
    }

    /// `{ value | cycles | ns = ..., low = ..., high = ..., mark = ..., source = ... }`, or a bare number.
    fn known(&self, key: &str, value: &Value<'_>, cost: bool) -> Result<Known, TlbError> {
        let bare = |value: f64, unit| Known {
            value,
            low: value,
            high: value,
            unit,
            mark: Mark::Unsourced,
            source: format!("stated without a source in {}", self.origin),
        };
        let unit = if cost { Unit::Cycles } else { Unit::Plain };
        let Some(table) = value.get_ref().as_table() else { return Ok(bare(self.number(key, value)?, unit)) };
        let units: &[&str] = if cost { &["cycles", "ns"] } else { &["value"] };
        let mut found = None;
        let (mut low, mut high) = (None, None);
        let (mut mark, mut source) = (None, None);
        for (name, item) in table {
            match name.get_ref().as_ref() {
                "mark" => mark = Some(self.mark(item)?),
                "source" => source = Some(self.string("source", item)?),
                "low" => low = Some(self.number("low", item)?),
                "high" => high = Some(self.number("high", item)?),
                other if units.contains(&other) => {
                    let unit = match other {
                        "ns" => Unit::Nanoseconds,
                        "cycles" => Unit::Cycles,
                        _ => Unit::Plain,
                    };
                    if found.replace((self.number(other, item)?, unit)).is_some() {
                        return Err(
                            self.fail(name.span().start, format!("{key} has two units: cycles or ns"))
                        );
                    }
                }
                other => {
                    let all: Vec<&str> =
                        units.iter().chain(&["low", "high", "mark", "source"]).copied().collect();
                    return Err(self.unknown(name.span().start, other, &all));
                }
            }
        }
        let at = value.span().start;
        let (value, unit) =
            found.ok_or_else(|| self.fail(at, format!("{key} needs {}", units.join(" or "))))?;
        let mut known = bare(value, unit);
        known.low = low.unwrap_or(value);
        known.high = high.unwrap_or(value);
        if !(known.low <= value && value <= known.high) {
            let rule = format!(
                "{key} must lie between its low and high: got {} <= {value} <= {}",
                known.low, known.high
            );
            return Err(self.fail(at, rule));
        }
        known.mark = mark.unwrap_or(known.mark);
        known.source = source.unwrap_or(known.source);
        Ok(known)
    }
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
            features,
            geometry: Arc::new(geometry),
            costs: Arc::new(costs),
            facts,
        })
    }
}

impl Known {
    fn show(&self, key: &str, mhz: f64) -> String {
        const FLAGS: [&str; 6] = ["pcid", "invpcid", "rar", "meltdown", "invlpg_erratum", "tce"];
        if FLAGS.iter().any(|flag| key.strip_prefix("cpu.") == Some(flag)) {
            return if self.value == 0.0 { "no".into() } else { "yes".into() };
        }
        let span =
            if self.low < self.high { format!(" ({} to {})", self.low, self.high) } else { String::new() };
        match self.unit {
            Unit::Plain => format!("{}{span}", self.value),
            Unit::Cycles => format!("{} cycles{span}", self.value),
            Unit::Nanoseconds => format!("{} ns{span} = {:.0} cycles", self.value, self.value * mhz / 1000.0),
        }
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

fn named<T: PartialEq>(
    reader: &Reader<'_>,
    value: &Value<'_>,
    key: &str,
    parse: impl Fn(&str) -> Option<T>,
    known: &[&str],
) -> Result<Vec<T>, TlbError> {
    let mut all = Vec::new();
    for name in reader.strings(key, value)? {
        let item = parse(&name).ok_or_else(|| {
            reader.fail(value.span().start, format!("{key} must name {}: got {name:?}", known.join(", ")))
        })?;
        if !all.contains(&item) {
            all.push(item);
        }
    }
    Ok(all)
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
