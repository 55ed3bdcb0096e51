//! CPU features by name: which number a kernel gives each, and which sets the walk is made for.
//!
//! A feature that /proc/cpuinfo shows has its name in the image (`x86_cap_flags`). The others, which mostly say which
//! mitigation is chosen, have none: their numbers stand here, read from the `cpufeatures.h` of that version.

use std::collections::BTreeSet;

use super::BinaryError;
use super::image::Image;
use super::kallsyms::Symbols;
use crate::hw::preset::Preset;
use crate::names;

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
        let mut on: BTreeSet<String> = ALWAYS.iter().map(|s| (*s).to_owned()).collect();
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
        let shown = |list: &str, first: u16, all: &mut Vec<(String, u16)>| {
            let Some(start) = symbols.address(list) else { return };
            let words = symbols.next(start).map_or(0, |end| (end - start) / 8).min(32 * 32);
            for i in 0..words {
                let Some(pointer) = image.read(start + 8 * i, 8) else { break };
                let pointer = u64::from_le_bytes(pointer.try_into().expect("eight"));
                let Some(text) = image.from(pointer).filter(|_| pointer != 0) else { continue };
                let end = memchr::memchr(0, &text[..text.len().min(64)]).unwrap_or(0);
                if let Ok(name) = std::str::from_utf8(&text[..end])
                    && !name.is_empty()
                    && all.iter().all(|(n, _)| n != name)
                {
                    all.push((name.to_owned(), first + i as u16));
                }
            }
        };
        shown("x86_cap_flags", 0, &mut all);
        Self { all, borrowed: (!exact).then_some(name) }
    }

    /// The number of a name.
    pub fn number(&self, name: &str) -> Option<u16> {
        self.all.iter().find(|(n, _)| n == name).map(|(_, number)| *number)
    }

    /// The numbers that are on.
    pub fn of(&self, set: &FeatureSet) -> BTreeSet<u16> {
        self.all.iter().filter(|(name, _)| set.has(name)).map(|(_, number)| *number).collect()
    }
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
    let shown: BTreeSet<&str> = flags.split_whitespace().collect();
    let mut on: BTreeSet<&str> = SHOWN.into_iter().filter(|f| shown.contains(f)).collect();
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
