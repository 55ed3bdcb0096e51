//! The kernel's texts by version of Linux: the oldest whole, of a newer one the sections that differ.

use std::sync::LazyLock;

use super::{contexts, kernel, kernel_version, shared_builtin};
use crate::kernel::assemble::Kernels;
use crate::kernel::text::{File, LINUX, PolicyError, parse};

/// Newer versions than that of the whole texts, oldest first: version, file, text.
const NEWER: [(&str, &str, &str); 1] = [("7.3", "linux-7.3.kernel", include_str!("linux-7.3.kernel"))];

/// Where FRED delivers events, whatever the version.
const FRED: (&str, &str) = ("linux-fred.kernel", include_str!("linux-fred.kernel"));

/// How long a chain of bases is followed; one that goes round is refused where it is assembled.
const DEEPEST: usize = 64;

/// The versions there are texts of, oldest first.
pub fn versions() -> impl Iterator<Item = &'static str> {
    [kernel_version()].into_iter().chain(NEWER.iter().map(|n| n.0))
}

/// The files of what differs, by version and with FRED, with the names that messages call them by.
pub fn other_files() -> impl Iterator<Item = (&'static str, &'static str)> {
    NEWER.iter().map(|n| (n.1, n.2)).chain([FRED])
}

/// That version's name as it is kept here, or what versions there are.
pub fn version(name: &str) -> Result<&'static str, String> {
    versions().find(|v| *v == name).ok_or_else(|| {
        let known: Vec<&str> = versions().collect();
        format!("there are no programs of Linux {name}; these are: {}", known.join(", "))
    })
}

/// What a policy stands on: what it, or the nearest that it is based on, says with `linux "VERSION"`, else the oldest.
pub fn kernels(file: &File) -> Result<Kernels, PolicyError> {
    let all =
        |version, newer| Kernels { version, newer, fred: &FRED_FILE, contexts: contexts(), kernel: kernel() };
    let says = |file: &File| {
        let fact = file.facts.iter().find(|fact| fact.key == LINUX)?;
        Some((file.file.clone(), fact.clone()))
    };
    // Asked at every run: bases are looked at where they are kept, not copied.
    let mut last = file;
    let mut said = says(last);
    while let Some(base) = last.base.as_deref().filter(|_| said.is_none()) {
        (said, last) = (says(base), base);
    }
    let mut base = last.based_on.clone();
    for _ in 0..DEEPEST {
        let Some(next) = base.filter(|_| said.is_none()).and_then(|name| shared_builtin(&name).ok()) else {
            break;
        };
        (said, base) = (says(&next), next.based_on.clone());
    }
    let Some((of, fact)) = said else { return Ok(all(kernel_version(), None)) };
    let version = version(&fact.text).map_err(|message| PolicyError { file: of, at: fact.at, message })?;
    Ok(all(version, NEWER.iter().position(|n| n.0 == version).map(|i| &FILES[i])))
}

static FRED_FILE: LazyLock<File> =
    LazyLock::new(|| parse(FRED.0, FRED.1).expect("the embedded file parses: tested"));

static FILES: LazyLock<Vec<File>> = LazyLock::new(|| {
    NEWER.iter().map(|(_, file, text)| parse(file, text).expect("the embedded file parses: tested")).collect()
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::policy::{all, builtin, load, on_linux};
    use crate::kernel::program::{Features, Op};
    use crate::kernel::world::World;

    #[test]
    fn a_newer_file_says_its_version_and_replaces_only_what_there_is() {
        for ((version, file, _), text) in NEWER.iter().zip(FILES.iter()) {
            assert_eq!(*file, format!("linux-{version}.kernel"));
            assert_eq!(text.name, format!("linux-{version}"));
            assert!(text.facts.iter().any(|f| f.key == "from" && f.text == format!("Linux {version}")));
            for section in &text.sections {
                let name = &section.name;
                let old = kernel().section(name).or_else(|| contexts().section(name));
                assert!(old.is_some_and(|old| old != section), "{name} replaces nothing, or by the same");
                assert!(section.place.is_some(), "{name} has no place");
            }
        }
    }

    #[test]
    fn every_policy_assembles_on_every_version() {
        for row in all() {
            for version in versions() {
                let file = on_linux(&builtin(row.id).unwrap(), version).unwrap();
                assert_eq!(kernels(&file).unwrap().version, version, "{}", row.id);
                for world in ["pti", "nopti", "nopti+invlpgb", "nopti+rar", "nopti+fred"] {
                    let code = load(&file, World::parse(world).unwrap().features);
                    assert_eq!(code.unwrap_or_else(|e| panic!("{e}")).linux, version);
                }
            }
        }
    }

    #[test]
    fn with_fred_no_program_swaps_gs_or_writes_cr3_on_its_way_and_each_section_replaces_another() {
        assert_eq!(FRED_FILE.name, "linux-fred");
        for section in &FRED_FILE.sections {
            let old = kernel().section(&section.name);
            assert!(old.is_some_and(|old| old != section), "{}", section.name);
            assert!(section.place.is_some(), "{} has no place", section.name);
        }
        let by_hand = |op: &Op| matches!(op, Op::SwapGs | Op::SetGs(_) | Op::MovCr3 { .. });
        for (world, fred) in [("nopti+fred", true), ("nopti", false)] {
            let code = load(&builtin("ipi").unwrap(), World::parse(world).unwrap().features).unwrap();
            assert_eq!(code.fred, fred);
            for name in ["syscall", "exception", "exception_bad_iret", "interrupt", "nmi_user", "nmi"] {
                assert_eq!(code.ops_of(name).iter().any(by_hand), !fred, "{world}: {name}");
                assert_eq!(code.ends_by_iret(name), !fred && name != "syscall", "{world}: {name}");
            }
        }
    }

    #[test]
    fn mainline_broadcasts_since_invlpgb_came_and_interrupts_before() {
        let ipi = builtin("ipi").unwrap();
        let invlpgb = World::parse("nopti+invlpgb").unwrap().features;
        for (version, broadcasts) in [("6.12", false), ("7.3", true)] {
            let code = load(&on_linux(&ipi, version).unwrap(), invlpgb).unwrap();
            let has = |name: &str, wanted: fn(&Op) -> bool| code.ops_of(name).iter().any(wanted);
            assert_eq!(has("purge", |op| matches!(op, Op::Invlpgb(_))), broadcasts, "{version}");
            assert_eq!(has("purge", |op| matches!(op, Op::Ipi { .. })), !broadcasts, "{version}");
            assert!(has("set_memory", |op| matches!(op, Op::Ipi { .. })), "{version}");
            let pti = load(&on_linux(&ipi, version).unwrap(), Features::PTI_PCID).unwrap();
            assert!(pti.ops_of("purge").iter().any(|op| matches!(op, Op::Ipi { .. })), "{version}");
        }
    }

    #[test]
    fn an_unknown_version_is_refused_at_its_line() {
        let file = parse("p.policy", "policy p\n  \"p\"\n  linux \"7.4\"\n").unwrap();
        let error = load(&file, Features::PTI_PCID).unwrap_err();
        assert_eq!((error.file.as_str(), error.at.line), ("p.policy", 3));
        assert!(
            error.message.contains("no programs of Linux 7.4; these are: 6.12, 7.3"),
            "{}",
            error.message
        );
        assert!(on_linux(&file, "7.5").is_err());
    }
}
