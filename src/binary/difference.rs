//! One census against another: which regions, objects and ops the second adds or drops, and in which zone.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::census::{Census, EntryRow, MOST, or_unknown, wrapped};
use super::step::Region;
use crate::order;

/// What one census has that the other has not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Entries that only the second has.
    pub new_entries: Vec<String>,
    /// Entries that only the first has.
    pub gone_entries: Vec<String>,
    /// What the second adds.
    pub added: Vec<Change>,
    /// What it drops.
    pub dropped: Vec<Change>,
    /// Does it add a region, an object or a TLB op in a danger zone?
    pub danger: bool,
}

/// A region, an object or an op that one census has in a zone, and the other has not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Change {
    /// Zone.
    pub zone: String,
    /// `region`, `object` or `op`.
    pub kind: String,
    /// Which.
    pub what: String,
    /// Is it in a danger zone, and a region, an object or a TLB op?
    pub danger: bool,
    /// Where, one place for all.
    pub place: String,
    /// The entries.
    pub entries: Vec<String>,
}

/// (zone, kind, what) of an entry, with a place.
type Facts = BTreeMap<(String, String, String), (String, bool)>;

fn facts(entry: &EntryRow) -> Facts {
    let mut out = Facts::new();
    for zone in &entry.zones {
        for a in &zone.accesses {
            let place = format!("{} ({})", a.address, a.place);
            let mut put = |kind: &str, what: String| {
                out.entry((zone.zone.clone(), kind.into(), what)).or_insert_with(|| (place.clone(), true));
            };
            put("region", a.region.clone());
            let stack = a.region == Region::TaskStack.name() || a.region == Region::EntryArea.name();
            if !stack {
                put("object", format!("{} {} {}", a.region, a.way, a.object));
            }
        }
        for op in &zone.ops {
            let key = (zone.zone.clone(), "op".into(), op.op.clone());
            out.entry(key).or_insert_with(|| (format!("{} ({})", op.address, op.place), op.tlb));
        }
    }
    out
}

/// What `new` adds to `old`, and what it drops. An entry that only `new` has is held against all entries of `old`.
pub fn compare(old: &Census, new: &Census) -> Difference {
    let names = |c: &Census| -> BTreeSet<String> { order::gather(c.entries.iter().map(|e| e.name.clone())) };
    let (olds, news) = (names(old), names(new));
    let whole = |c: &Census| -> Facts { order::gather(c.entries.iter().flat_map(facts)) };
    let (all_old, all_new) = (whole(old), whole(new));
    let changes = |of: &Census, against: &Census, all_against: &Facts| -> Vec<Change> {
        let mut found: BTreeMap<(String, String, String), Change> = BTreeMap::new();
        for entry in &of.entries {
            let other = against.entries.iter().find(|e| e.name == entry.name).map(facts);
            let other = other.as_ref().unwrap_or(all_against);
            for (key, (place, matters)) in facts(entry) {
                if other.contains_key(&key) {
                    continue;
                }
                let danger = matters && of.dangerous(&key.0);
                let (zone, kind, what) = key.clone();
                found
                    .entry(key)
                    .or_insert_with(|| Change { zone, kind, what, danger, place, entries: Vec::new() })
                    .entries
                    .push(entry.name.clone());
            }
        }
        found.into_values().collect()
    };
    let added = changes(new, old, &all_old);
    let dropped = changes(old, new, &all_new);
    Difference {
        new_entries: news.difference(&olds).cloned().collect(),
        gone_entries: olds.difference(&news).cloned().collect(),
        danger: added.iter().any(|c| c.danger),
        added,
        dropped,
    }
}

impl Difference {
    /// As text.
    pub fn text(&self, old: &Census, new: &Census) -> String {
        let mut out = format!("Linux {} against {}\n", or_unknown(&new.release), or_unknown(&old.release));
        if old.features != new.features {
            out.push_str(&format!(
                "Features differ: {} against {}\n",
                new.features.join(" "),
                old.features.join(" ")
            ));
        }
        let list = |title: &str, changes: &[Change], mark: &str| {
            let mut out = String::new();
            if !changes.is_empty() {
                out.push_str(&format!("\n{title}\n"));
            }
            for c in changes {
                let who = match c.entries.as_slice() {
                    [one] => one.clone(),
                    [one, rest @ ..] => format!("{one} and {} more", rest.len()),
                    [] => String::new(),
                };
                let mark = if c.danger { mark } else { " " };
                out.push_str(&format!(
                    "{mark} {}: {} {}\n      {who}, at {}\n",
                    c.zone, c.kind, c.what, c.place
                ));
            }
            out
        };
        for (title, names) in
            [("New entries", &self.new_entries), ("Entries that are gone", &self.gone_entries)]
        {
            if !names.is_empty() {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                out.push_str(&format!("\n{title}\n  {}\n", wrapped(&names, MOST)));
            }
        }
        out.push_str(&list("Added (! in a danger zone)", &self.added, "!"));
        out.push_str(&list("Dropped", &self.dropped, " "));
        for entry in new.entries.iter().filter(|e| !e.gave_up.is_empty()) {
            out.push_str(&format!("\nNot told of {}: {}", entry.name, entry.gave_up));
        }
        out.push_str(if self.danger {
            "\nA region, an object or a TLB op is new in a danger zone.\n"
        } else {
            "\nNo region, object or TLB op is new in a danger zone.\n"
        });
        out
    }
}
