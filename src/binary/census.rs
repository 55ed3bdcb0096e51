//! The census of an image: per entry and zone, which memory is accessed and which ops are made; as data and as text.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::BinaryError;
use super::image::Image;
use super::kallsyms::Symbols;
use super::scenario::{ASSUMED, Entry};
use super::step::{Region, What, Zone};
use super::walk::{End, Kernel, Path, Walked, Walker};
use crate::order;

/// What an image says of all its entries, for one set of CPU features.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// `tlbcore.census`.
    pub schema: String,
    /// Version of this form.
    pub version: u32,
    /// The kernel's release; empty if the image has none.
    pub release: String,
    /// How the image is packed.
    pub packing: String,
    /// CPU features that are on.
    pub features: Vec<String>,
    /// Assumptions of the walk.
    pub assumed: Vec<String>,
    /// What else to know of it.
    pub notes: Vec<String>,
    /// Entries, in a fixed order.
    pub entries: Vec<EntryRow>,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryRow {
    /// Name: the symbol, and how it is reached where there are several ways.
    pub name: String,
    /// Address of its first instruction.
    pub address: String,
    /// Ways in.
    pub ways_in: usize,
    /// Do all of them reach the atomic of context tracking?
    pub reaches_tracking: bool,
    /// Ways out.
    pub ways_out: usize,
    /// Ways that warn or panic, which were not followed.
    pub cut: usize,
    /// What was not walked, and why; empty if all was.
    pub gave_up: String,
    /// Zones that something happens in.
    pub zones: Vec<ZoneRow>,
}

/// One zone of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneRow {
    /// Its name.
    pub zone: String,
    /// Accesses by region: fewest and most over the ways.
    pub counts: BTreeMap<String, [u32; 2]>,
    /// The accesses, by address.
    pub accesses: Vec<AccessRow>,
    /// The ops, by first appearance.
    pub ops: Vec<OpRow>,
}

/// One instruction's access.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AccessRow {
    /// Address of the instruction.
    pub address: String,
    /// Its symbol and offset.
    pub place: String,
    /// Region.
    pub region: String,
    /// `load`, `store`, `rmw`, `locked rmw`, `prefetch`, `implicit load`.
    pub way: String,
    /// What is there.
    pub object: String,
    /// Relative to the user's GS base?
    pub user_gs: bool,
    /// How often in one way, at most.
    pub times: u32,
}

/// One instruction's op.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpRow {
    /// Address of the instruction.
    pub address: String,
    /// Its symbol and offset.
    pub place: String,
    /// The op.
    pub op: String,
    /// Does it change what a TLB holds, or which table fills it?
    pub tlb: bool,
}

const SCHEMA: &str = "tlbcore.census";
const VERSION: u32 = 1;

/// Walk all entries of a file.
pub fn census(file: Vec<u8>, features: &str) -> Result<Census, BinaryError> {
    let image = Image::parse(file)?;
    let symbols = Symbols::read(&image)?;
    walked(&Kernel::new(&image, &symbols, features)?)
}

/// Walk all entries of a kernel.
pub fn walked(kernel: &Kernel<'_>) -> Result<Census, BinaryError> {
    let image = kernel.image;
    let mut walker = Walker::new(kernel);
    let entries = kernel.entries();
    if entries.is_empty() {
        return Err(BinaryError(
            "the kernel has none of the entry symbols (entry_SYSCALL_64, asm_exc_*, asm_sysvec_*): with --features fred \
             it must have asm_fred_entrypoint_user; else give another image"
                .into(),
        ));
    }
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for entry in &entries {
        match walker.walk(entry) {
            Ok(walked) => rows.push(row(kernel, &walked)),
            Err(error) => {
                rows.push(not_walked(entry, &error));
                failed.push(error);
            }
        }
    }
    // One that cannot be walked is listed as such; if it is all of them, there is no census.
    if failed.len() == entries.len() {
        return Err(failed.swap_remove(0));
    }
    let mut notes = Vec::new();
    if let Some(version) = kernel.borrowed {
        notes.push(format!(
            "numbers of features that /proc/cpuinfo does not show are recorded for 6.1, 6.12 and 7.3; those of {version} were taken"
        ));
    }
    if kernel.btf.is_none() {
        notes.push("the image has no BTF: fields are offsets".into());
    }
    Ok(Census {
        schema: SCHEMA.into(),
        version: VERSION,
        release: image.release.clone().unwrap_or_default(),
        packing: image.packing.clone(),
        features: kernel.features.names().into_iter().map(str::to_owned).collect(),
        assumed: ASSUMED.iter().map(|a| (*a).to_owned()).collect(),
        notes,
        entries: rows,
    })
}

fn not_walked(entry: &Entry, why: &BinaryError) -> EntryRow {
    EntryRow {
        name: entry.name.clone(),
        address: hex(entry.address),
        ways_in: 0,
        reaches_tracking: false,
        ways_out: 0,
        cut: 0,
        gave_up: format!("not walked: {why}"),
        zones: Vec::new(),
    }
}

fn row(kernel: &Kernel<'_>, walked: &Walked) -> EntryRow {
    let zones = Zone::LISTED
        .into_iter()
        .filter_map(|zone| {
            let ways = if zone <= Zone::Tracking { &walked.ways_in } else { &walked.ways_out };
            let found = zone_row(kernel, zone, ways);
            (!found.accesses.is_empty() || !found.ops.is_empty()).then_some(found)
        })
        .collect();
    EntryRow {
        name: walked.entry.name.clone(),
        address: hex(walked.entry.address),
        ways_in: walked.ways_in.len(),
        reaches_tracking: walked.ways_in.iter().all(|p| p.end == End::Tracking),
        ways_out: walked.ways_out.len(),
        cut: walked.cut,
        gave_up: walked
            .gave_up
            .as_ref()
            .map_or(String::new(), |why| format!("the way out was not walked: {why}")),
        zones,
    }
}

fn hex(address: u64) -> String {
    format!("{address:016x}")
}

fn zone_row(kernel: &Kernel<'_>, zone: Zone, ways: &[Path]) -> ZoneRow {
    let mut counts: BTreeMap<String, [u32; 2]> = BTreeMap::new();
    let mut times: BTreeMap<AccessRow, u32> = BTreeMap::new();
    let mut ops: Vec<OpRow> = Vec::new();
    for region in Region::ALL {
        let of = |path: &Path| -> u32 {
            let in_zone = path.steps.iter().filter(|s| s.zone == zone);
            in_zone
                .filter_map(|s| match &s.what {
                    What::Access { region: r, way, .. } if *r == region => Some(way.count()),
                    _ => None,
                })
                .sum()
        };
        let each: Vec<u32> = ways.iter().map(of).collect();
        let (least, most) =
            (each.iter().min().copied().unwrap_or(0), each.iter().max().copied().unwrap_or(0));
        if most > 0 {
            counts.insert(region.name().into(), [least, most]);
        }
    }
    for path in ways {
        let mut here: BTreeMap<AccessRow, u32> = BTreeMap::new();
        for step in path.steps.iter().filter(|s| s.zone == zone) {
            let place = || kernel.symbols.place(step.at);
            match &step.what {
                What::Access { region, way, object, user_gs } => {
                    *here
                        .entry(AccessRow {
                            address: hex(step.at),
                            place: place(),
                            region: region.name().into(),
                            way: way.name().into(),
                            object: object.to_string(),
                            user_gs: *user_gs,
                            times: 0,
                        })
                        .or_default() += 1;
                }
                What::Op(op) => {
                    let row =
                        OpRow { address: hex(step.at), place: place(), op: op.text(), tlb: op.on_tlb() };
                    if !ops.contains(&row) {
                        ops.push(row);
                    }
                }
                What::Branch { .. } | What::Key { .. } | What::Call(_) => {}
            }
        }
        for (row, n) in here {
            let most = times.entry(row).or_default();
            *most = n.max(*most);
        }
    }
    let accesses = times.into_iter().map(|(row, times)| AccessRow { times, ..row }).collect();
    ZoneRow { zone: zone.name().into(), counts, accesses, ops }
}

impl Census {
    /// Read a saved one.
    pub fn parse(json: &str) -> Result<Self, BinaryError> {
        let census: Self = serde_json::from_str(json).map_err(|e| {
            BinaryError(format!("no saved census: {e}; save one with tlbcore census IMAGE --json"))
        })?;
        if census.schema != SCHEMA || census.version != VERSION {
            return Err(BinaryError(format!(
                "a saved census of form {} {}: this version reads {SCHEMA} {VERSION}; save it anew",
                census.schema, census.version
            )));
        }
        Ok(census)
    }

    /// Is the kernel's table loaded in a zone, and has no late flush been made?
    pub(super) fn dangerous(&self, zone: &str) -> bool {
        let pti = self.features.iter().any(|f| f == "pti");
        zone == Zone::Danger.name()
            || zone == Zone::Tracking.name()
            || zone == Zone::Exit.name()
            || (!pti && zone == Zone::Before.name())
    }

    /// Accesses whose memory is not told, and branches out of noinstr text or to where the walk cannot follow.
    pub fn findings(&self) -> Vec<String> {
        let mut out = Vec::new();
        for entry in &self.entries {
            for zone in &entry.zones {
                for a in zone.accesses.iter().filter(|a| is_foreign(&a.region) || a.user_gs) {
                    let why = if a.user_gs {
                        "with the user's GS base"
                    } else {
                        "to memory that is none of the above"
                    };
                    out.push(format!(
                        "{}, {}: {} of {} {why} at {} ({})",
                        entry.name, zone.zone, a.way, a.object, a.address, a.place
                    ));
                }
                for op in
                    zone.ops.iter().filter(|op| op.op.starts_with("calls ") || op.op.starts_with("branches "))
                {
                    out.push(format!(
                        "{}, {}: {} at {} ({})",
                        entry.name, zone.zone, op.op, op.address, op.place
                    ));
                }
            }
        }
        out
    }

    /// As text: rows of equal counts once. Where the table is wider than so many columns, what a zone accesses is listed.
    pub fn text(&self, room: Option<usize>) -> String {
        let mut out = format!(
            "Linux {} ({}), with {}\n\n",
            or_unknown(&self.release),
            self.packing,
            self.features.join(" ")
        );
        let regions: Vec<&str> = Region::ALL
            .iter()
            .map(|r| r.name())
            .filter(|r| self.entries.iter().any(|e| e.zones.iter().any(|z| z.counts.contains_key(*r))))
            .collect();
        let tables: Vec<String> = self.entries.iter().map(|e| e.table(&regions)).collect();
        let head =
            regions.iter().fold(format!("{:18}", "accesses"), |head, r| format!("{head} {r:>14}")) + "  ops";
        let widest = tables.iter().flat_map(|t| t.lines()).map(str::len).fold(head.len(), usize::max);
        let narrow = room.filter(|room| widest > *room);
        let mut groups: Vec<(Vec<&EntryRow>, String)> = Vec::new();
        for (entry, table) in self.entries.iter().zip(tables) {
            let table = narrow.map_or(table, |room| entry.list(&regions, room));
            match groups.iter_mut().find(|(_, t)| *t == table) {
                Some((members, _)) => members.push(entry),
                None if entry.zones.is_empty() => {} // listed below as not walked
                None => groups.push((vec![entry], table)),
            }
        }
        out.push_str(if narrow.is_some() { "Accesses by region; TLB ops" } else { &head });
        out.push('\n');
        for (members, table) in &groups {
            let names: Vec<&str> = members.iter().map(|e| e.name.as_str()).collect();
            out.push_str(&format!(
                "\n{}\n{table}",
                wrapped(&names, room.map_or(MOST, |room| room.min(MOST)))
            ));
        }
        out.push_str(&format!(
            "\n{} entries, {} of them walked to the atomic of context tracking in every way.\n",
            self.entries.len(),
            self.entries.iter().filter(|e| e.reaches_tracking).count()
        ));
        let findings = self.findings();
        let unwalked = self.entries.iter().filter(|e| !e.gave_up.is_empty()).count();
        if findings.is_empty() {
            let known = Region::ALL.iter().filter(|r| !is_foreign(r.name()));
            out.push_str(&format!(
                "No access outside of {}, and no call out of noinstr text{}.\n",
                known.map(|r| r.name()).collect::<Vec<_>>().join(", "),
                match unwalked {
                    0 => String::new(),
                    n => format!(", on what was walked: of {n} entries it was not all"),
                }
            ));
        }
        for finding in findings {
            out.push_str(&format!("  {finding}\n"));
        }
        for entry in self.entries.iter().filter(|e| !e.gave_up.is_empty()) {
            out.push_str(&format!("  {}: {}\n", entry.name, entry.gave_up));
        }
        out.push_str(&format!("Assumed: {}.\n", self.assumed.join("; ")));
        for note in &self.notes {
            out.push_str(&format!("Note: {note}.\n"));
        }
        out
    }

    /// One entry, access by access.
    pub fn entry_text(&self, name: &str) -> Result<String, BinaryError> {
        let chosen: Vec<&EntryRow> = self
            .entries
            .iter()
            .filter(|e| e.name == name || e.name.split(" (").next() == Some(name))
            .collect();
        if chosen.is_empty() {
            let hint = crate::names::hint(name, self.entries.iter().map(|e| e.name.as_str()));
            return Err(BinaryError(format!("no entry `{name}`{hint}")));
        }
        let mut out = String::new();
        for entry in chosen {
            out.push_str(&format!(
                "{} at {}, {} ways in, {} out\n",
                entry.name, entry.address, entry.ways_in, entry.ways_out
            ));
            for zone in &entry.zones {
                out.push_str(&format!("  {}\n", zone.zone));
                let mut lines: Vec<(&str, String)> = Vec::new();
                for a in &zone.accesses {
                    let times = if a.times > 1 { format!(" x{}", a.times) } else { String::new() };
                    let gs = if a.user_gs { " WITH THE USER'S GS BASE" } else { "" };
                    lines.push((
                        &a.address,
                        format!("{} {} {}{times}{gs}  ({})", a.region, a.way, a.object, a.place),
                    ));
                }
                for op in &zone.ops {
                    lines.push((&op.address, format!("{}  ({})", op.op, op.place)));
                }
                order::natural(&mut lines);
                for (address, line) in lines {
                    out.push_str(&format!("    {address} {line}\n"));
                }
            }
        }
        Ok(out)
    }
}

pub(super) fn or_unknown(text: &str) -> &str {
    if text.is_empty() { "of unknown version" } else { text }
}

fn is_foreign(region: &str) -> bool {
    region == Region::Unknown.name() || region == Region::Vmalloc.name()
}

/// Columns of a list of names, at most.
pub(super) const MOST: usize = 110;

pub(super) fn wrapped(names: &[&str], room: usize) -> String {
    let mut out = String::new();
    let mut width = 0;
    for (i, name) in names.iter().enumerate() {
        let text = if i + 1 < names.len() { format!("{name}, ") } else { (*name).to_owned() };
        if width + text.len() > room && width > 0 {
            out = format!("{}\n", out.trim_end());
            width = 0;
        }
        width += text.len();
        out.push_str(&text);
    }
    out
}

impl ZoneRow {
    /// Its ops, each once.
    fn op_names(&self) -> Vec<&str> {
        let mut ops: Vec<&str> = Vec::new();
        for op in &self.ops {
            if !ops.contains(&op.op.as_str()) {
                ops.push(&op.op);
            }
        }
        ops
    }
}

impl EntryRow {
    /// What each zone accesses, without the regions that it leaves alone.
    fn list(&self, regions: &[&str], room: usize) -> String {
        let mut out = String::new();
        for zone in &self.zones {
            let accessed = regions.iter().filter(|r| zone.counts.contains_key(**r));
            let mut parts: Vec<String> =
                accessed.map(|r| format!("{r} {}", cell(zone.counts.get(*r)))).collect();
            if parts.is_empty() {
                parts.push("no access".into());
            }
            let ops = zone.op_names();
            let said = parts.join(", ") + if ops.is_empty() { "" } else { "; " } + &ops.join("; ");
            let words: Vec<&str> = said.split_inclusive([',', ';']).map(str::trim).collect();
            let mut line = format!("  {:16}", zone.zone);
            for word in words {
                if line.len() + 1 + word.len() > room && line.trim_end().len() > 18 {
                    out.push_str(&format!("{}\n", line.trim_end()));
                    line = " ".repeat(18);
                }
                line.push_str(&format!(" {word}"));
            }
            out.push_str(&format!("{}\n", line.trim_end()));
        }
        out
    }

    fn table(&self, regions: &[&str]) -> String {
        let mut out = String::new();
        for zone in &self.zones {
            out.push_str(&format!("  {:16}", zone.zone));
            for region in regions {
                out.push_str(&format!(" {:>14}", cell(zone.counts.get(*region))));
            }
            out = format!("{out}  {}", zone.op_names().join("; ")).trim_end().to_owned() + "\n";
        }
        out
    }
}

fn cell(counts: Option<&[u32; 2]>) -> String {
    match counts {
        None => "0".into(),
        Some([least, most]) if least == most => most.to_string(),
        Some([least, most]) => format!("{least}-{most}"),
    }
}
