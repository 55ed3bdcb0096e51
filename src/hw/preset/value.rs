//! One value of a preset's text: numbers, flags and names, with what is known about them and where they stand.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Mark, TlbError, nearest};

/// A number or flag with what is known about it.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) unit: Unit,
    pub(super) mark: Mark,
    pub(super) source: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Plain,
    Cycles,
    Nanoseconds,
}

/// Where in which text.
pub(super) struct Reader<'a> {
    pub(super) text: &'a str,
    pub(super) origin: &'a str,
}

pub(super) type Table<'a> = DeTable<'a>;

pub(super) type Value<'a> = Spanned<DeValue<'a>>;

impl Reader<'_> {
    pub(super) fn fail(&self, at: usize, rule: impl std::fmt::Display) -> TlbError {
        let line = self.text[..at.min(self.text.len())].matches('\n').count() + 1;
        TlbError::Preset(format!("{}:{line}: {rule}", self.origin))
    }

    pub(super) fn unknown(&self, at: usize, key: &str, known: &[&str]) -> TlbError {
        let hint = nearest(key, known.iter().copied()).map_or_else(
            || format!("; known: {}", known.join(", ")),
            |near| format!("; did you mean {near:?}?"),
        );
        self.fail(at, format!("unknown key {key:?}{hint}"))
    }

    pub(super) fn wrong(&self, value: &Value<'_>, key: &str, wanted: &str) -> TlbError {
        self.fail(value.span().start, format!("{key} must be {wanted}: got {}", value.get_ref().type_str()))
    }

    pub(super) fn string(&self, key: &str, value: &Value<'_>) -> Result<String, TlbError> {
        value.get_ref().as_str().map(str::to_owned).ok_or_else(|| self.wrong(value, key, "a string"))
    }

    pub(super) fn strings(&self, key: &str, value: &Value<'_>) -> Result<Vec<String>, TlbError> {
        let array =
            value.get_ref().as_array().ok_or_else(|| self.wrong(value, key, "an array of strings"))?;
        array.iter().map(|item| self.string(key, item)).collect()
    }

    pub(super) fn table<'a, 'i>(&self, key: &str, value: &'a Value<'i>) -> Result<&'a Table<'i>, TlbError> {
        value.get_ref().as_table().ok_or_else(|| self.wrong(value, key, "a table"))
    }

    pub(super) fn flag(&self, key: &str, value: &Value<'_>) -> Result<bool, TlbError> {
        value.get_ref().as_bool().ok_or_else(|| self.wrong(value, key, "true or false"))
    }

    pub(super) fn number(&self, key: &str, value: &Value<'_>) -> Result<f64, TlbError> {
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

    pub(super) fn count(&self, key: &str, value: &Value<'_>) -> Result<u32, TlbError> {
        let n = self.number(key, value)?;
        if n.fract() == 0.0 && n <= f64::from(u32::MAX) && !value.get_ref().is_bool() {
            return Ok(n as u32);
        }
        Err(self.fail(value.span().start, format!("{key} must be a whole number: got {n}")))
    }

    pub(super) fn mark(&self, value: &Value<'_>) -> Result<Mark, TlbError> {
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
    pub(super) fn known(&self, key: &str, value: &Value<'_>, cost: bool) -> Result<Known, TlbError> {
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

impl Known {
    pub(super) fn show(&self, key: &str, mhz: f64) -> String {
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

pub(super) fn named<T: PartialEq>(
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
