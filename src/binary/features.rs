//! CPU features by name: which number a kernel gives each, and which sets the walk is made for.
//!
//! A feature that /proc/cpuinfo shows has its name in the image (`x86_cap_flags`). The others, which mostly say which
//! mitigation is chosen, have none: their numbers stand here, read from the `cpufeatures.h` of that version.

use std::collections::BTreeSet;

use super::BinaryError;
use super::image::{Image, u64_at};
use super::kallsyms::Symbols;
use crate::hw::preset::Preset;
use crate::names;
use crate::order;

/// A set of feature names, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureSet {
    on: BTreeSet<String>,
}

/// The set that the census was measured with (docs/binary.md): PTI without PCID, under a hypervisor.
pub const DEFAULT: &str = "pti,pcid,invpcid,pge,fsgsbase,smap,hypervisor";

/// What every x86-64 kernel finds.
const ALWAYS: [&str; 3] = ["always", "pge", "rep_good"];

/// Names for features that `/proc/cpuinfo` does not show, with their numbers: in 6.1 (stable), 6.12 and 7.3.
const HIDDEN: &[(&str, [Option<u16>; 3])] = &[
    ("always", [Some(3 * 32 + 21); 3]),
    ("clear_cpu_buf", [Some(11 * 32 + 18), Some(3 * 32 + 18), Some(3 * 32 + 18)]),
    ("kernel_ibrs", [Some(7 * 32 + 12); 3]),
    ("xenpv", [Some(8 * 32 + 16); 3]),
    ("fence_swapgs_user", [Some(11 * 32 + 4); 3]),
    ("fence_swapgs_kernel", [Some(11 * 32 + 5); 3]),
    ("entry_ibpb", [Some(11 * 32 + 10); 3]),
    ("retpoline", [Some(11 * 32 + 12); 3]),
    ("retpoline_lfence", [Some(11 * 32 + 13); 3]),
    ("rethunk", [Some(11 * 32 + 14); 3]),
    ("unret", [Some(11 * 32 + 15); 3]),
    ("srso", [Some(11 * 32 + 24); 3]),
    ("srso_alias", [Some(11 * 32 + 25); 3]),
    ("clear_bhb_loop", [Some(21 * 32 + 1); 3]),
    ("clear_bhb_hw", [Some(21 * 32 + 3); 3]),
    ("fred", [None, Some(12 * 32 + 17), Some(12 * 32 + 17)]),
];

/// What changes no path that is walked, and so may be named without having a number.
const PLAIN: [&str; 4] = ["pti", "pcid", "invpcid", "pge"];

impl FeatureSet {
    /// From `pti,pcid,...`; a name that no kernel of this version has is refused.
    pub fn parse(text: &str, numbers: &Numbers) -> Result<Self, BinaryError> {
        let mut on: BTreeSet<String> = order::gather(ALWAYS.iter().map(|s| (*s).to_owned()));
        for word in text.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            let name = word.to_ascii_lowercase();
            if name == "xenpv" {
                return Err(BinaryError(
                    "feature `xenpv`: entries of a Xen PV guest go through the hypervisor and are not modelled; leave it out".into(),
                ));
            }
            if name == "call_depth" {
                return Err(BinaryError(
                    "feature `call_depth`: call depth tracking patches every call, which is not modelled; leave it out \
                     (it adds per-CPU accesses only)"
                        .into(),
                ));
            }
            if numbers.number(&name).is_none() && !PLAIN.contains(&name.as_str()) {
                if !numbers.shown() {
                    return Err(BinaryError(format!(
                        "feature `{word}`: the image has no table of feature names (x86_cap_flags), so that it cannot be \
                         told which alternatives it turns on; without it are known: {}",
                        numbers.all.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>().join(", ")
                    )));
                }
                let hint = names::hint(&name, numbers.all.iter().map(|(n, _)| n.as_str()));
                return Err(BinaryError(format!("this kernel has no feature `{word}`{hint}")));
            }
            on.insert(name);
        }
        let set = Self { on };
        if set.has("pcid") && !set.has("pge") {
            return Err(BinaryError("`pcid` without `pge`: no such CPU".into()));
        }
        if set.has("fred") && set.has("pti") {
            return Err(BinaryError(
                "`fred` with `pti`: CPUs that have FRED need no page table isolation; leave one out".into(),
            ));
        }
        Ok(set)
    }

    /// Is it on?
    pub fn has(&self, name: &str) -> bool {
        self.on.contains(name)
    }

    /// The names, sorted.
    pub fn names(&self) -> Vec<&str> {
        self.on.iter().map(String::as_str).filter(|n| *n != "always").collect()
    }
}

/// A kernel's feature numbers.
#[derive(Debug)]
pub struct Numbers {
    all: Vec<(String, u16)>,
    /// Version whose table of hidden features was taken, if it is another one.
    pub borrowed: Option<&'static str>,
}

impl Numbers {
    /// Shown names out of the image, hidden ones out of the table.
    pub fn read(image: &Image, symbols: &Symbols) -> Self {
        let version = image.version().unwrap_or((6, 12));
        let (column, name, exact) = match version {
            (..6, _) | (6, ..=5) => (0, "6.1", version == (6, 1)),
            (6, _) => (1, "6.12", version == (6, 12)),
            _ => (2, "7.3", version == (7, 3)),
        };
        let mut all: Vec<(String, u16)> = HIDDEN
            .iter()
            .filter_map(|(name, numbers)| Some(((*name).to_owned(), numbers[column]?)))
            .collect();
        for (number, name) in shown(image, symbols) {
            if all.iter().all(|(n, _)| *n != name) {
                all.push((name, number));
            }
        }
        Self { all, borrowed: (!exact).then_some(name) }
    }

    /// Of a kernel of which nothing is known.
    #[cfg(test)]
    pub fn none() -> Self {
        Self { all: Vec::new(), borrowed: None }
    }

    /// Do the tables name any feature that `/proc/cpuinfo` shows?
    fn shown(&self) -> bool {
        self.all.iter().any(|(name, _)| name == "fpu")
    }

    /// The number of a name.
    pub fn number(&self, name: &str) -> Option<u16> {
        self.all.iter().find(|(n, _)| n == name).map(|(_, number)| *number)
    }

    /// The numbers that are on.
    pub fn of(&self, set: &FeatureSet) -> BTreeSet<u16> {
        order::gather(self.all.iter().filter(|(name, _)| set.has(name)).map(|(_, number)| *number))
    }
}

/// Words of `x86_cap_flags`: 32 for each of the 20 to 24 words of bits.
const WORDS: u64 = 32 * 32;

/// `x86_cap_flags`: by number, the names that `/proc/cpuinfo` shows. Kernels that leave data out of kallsyms do not say
/// where it is; then it is the one table whose first pointers lead to the names of the first four features.
fn shown(image: &Image, symbols: &Symbols) -> Vec<(u16, String)> {
    let Some(start) = symbols.address("x86_cap_flags").or_else(|| by_shape(image)) else { return Vec::new() };
    let end = symbols.named("x86_cap_flags").and_then(|s| symbols.next(s.address)).unwrap_or(u64::MAX);
    let words = ((end - start) / 8).min(WORDS);
    let mut out = Vec::new();
    for i in 0..words {
        let Some(pointer) = image.read(start + 8 * i, 8).and_then(|b| u64_at(b, 0)) else { break };
        if pointer == 0 {
            continue;
        }
        // What follows the table is no pointer, or one to no name.
        let Some(name) = text(image, pointer).filter(|n| is_name(n)) else { break };
        out.push((i as u16, name.to_owned()));
    }
    out
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-".contains(&b))
}

fn text(image: &Image, address: u64) -> Option<&str> {
    let bytes = image.from(address)?;
    let bytes = &bytes[..bytes.len().min(64)];
    std::str::from_utf8(&bytes[..memchr::memchr(0, bytes)?]).ok()
}

fn by_shape(image: &Image) -> Option<u64> {
    const FIRST: [&str; 4] = ["fpu", "vme", "de", "pse"];
    // The linker may make a name the tail of another text; of these one stands alone.
    const ALONE: [(u64, &[u8]); 4] =
        [(1, b"\0vme\0"), (13, b"\0pge\0"), (15, b"\0cmov\0"), (19, b"\0clflush\0")];
    let rodata = image.section(".rodata")?;
    let bytes = image.content(rodata);
    let is_table = |table: u64| {
        table.is_multiple_of(8)
            && FIRST.iter().enumerate().all(|(i, first)| {
                let pointer = image.read(table + 8 * i as u64, 8).and_then(|b| u64_at(b, 0));
                pointer.and_then(|p| text(image, p)) == Some(first)
            })
    };
    ALONE.iter().find_map(|(number, name)| {
        memchr::memmem::find_iter(bytes, name).find_map(|at| {
            let name = (rodata.address + at as u64 + 1).to_le_bytes();
            memchr::memmem::find_iter(bytes, &name)
                .map(|at| (rodata.address + at as u64).wrapping_sub(8 * number))
                .find(|table| is_table(*table))
        })
    })
}

/// What a CPU preset says of its machine, with all mitigations that its facts ask for.
pub fn of_preset(preset: &Preset) -> String {
    let mut names = vec!["pge", "fsgsbase", "smap"];
    for (name, on) in [
        ("pti", preset.features.meltdown),
        ("pcid", preset.features.pcid),
        ("invpcid", preset.features.invpcid),
    ] {
        if on {
            names.push(name);
        }
    }
    names.join(",")
}

/// Shown features that entry code asks about.
const SHOWN: [&str; 9] = ["pti", "pcid", "invpcid", "pge", "fsgsbase", "smap", "hypervisor", "fred", "la57"];

/// (file under /sys/devices/system/cpu/vulnerabilities, words in it, features that are on then).
const MITIGATIONS: [(&str, &str, &[&str]); 9] = [
    ("mds", "Clear CPU buffers", &["clear_cpu_buf"]),
    ("mmio_stale_data", "Clear CPU buffers", &["clear_cpu_buf"]),
    ("reg_file_data_sampling", "Clear Register File", &["clear_cpu_buf"]),
    ("spectre_v2", "Mitigation: IBRS", &["kernel_ibrs"]),
    ("spectre_v2", "BHI: SW loop", &["clear_bhb_loop"]),
    ("retbleed", "Mitigation: IBRS", &["kernel_ibrs"]),
    ("retbleed", "untrained return thunk", &["rethunk", "unret"]),
    ("retbleed", "Mitigation: IBPB", &["entry_ibpb"]),
    ("spectre_v1", "swapgs barriers", &["fence_swapgs_kernel"]),
];

/// What /proc/cpuinfo shows, and what the vulnerability files say of features that it does not show.
pub fn of_machine(cpuinfo: &str, vulnerabilities: &[(String, String)]) -> String {
    let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or("");
    let shown: BTreeSet<&str> = order::gather(flags.split_whitespace());
    let mut on: BTreeSet<&str> = order::gather(SHOWN.into_iter().filter(|f| shown.contains(f)));
    for (file, words, features) in MITIGATIONS {
        if vulnerabilities.iter().any(|(name, text)| name == file && text.contains(words)) {
            on.extend(features);
        }
    }
    if shown.contains("fred") {
        on.remove("pti");
    }
    on.into_iter().collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mitigation_that_cpuinfo_does_not_show_comes_from_its_vulnerability_file() {
        let cpuinfo = "processor\t: 0\nflags\t\t: fpu pge pcid smap pti fsgsbase\n";
        let files = [("mds".to_owned(), "Mitigation: Clear CPU buffers; SMT vulnerable".to_owned())];

        assert_eq!(of_machine(cpuinfo, &files), "clear_cpu_buf,fsgsbase,pcid,pge,pti,smap");
        assert_eq!(of_machine(cpuinfo, &[]), "fsgsbase,pcid,pge,pti,smap");
    }
}
