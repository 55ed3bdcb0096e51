//! The policy table. A new policy is one text file and one row here.

mod questions;
mod versions;

use std::sync::{Arc, LazyLock};

use super::assemble::{self, assemble};
use super::program::{Code, Features};
use super::text::{Fact, File, LINUX, Loc, PolicyError, parse};
use crate::cache::Cache;
use crate::names;
pub use questions::{Asked, asked_as, initiators_asked, not_asked, questions, with_question};
pub use versions::{kernels, other_files, version, versions};

/// One built-in policy.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Name, as on the command line.
    pub id: &'static str,
    /// Its text.
    pub text: &'static str,
    /// What the checker must say in every world the policy is asked about, at the standard scope (2 CPUs, 1 vmalloc page, 2 entries): without NMI and with
    /// D=N=none; without NMI and with D=recycled; with one NMI and N=recycled. Of a policy that defers syncs of
    /// text (1 patched instruction): without NMI and with T=instr; with T=danger; with one NMI and T=instr.
    pub stated: [Stated; 3],
}

/// A stated verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stated {
    /// Verified within bounds.
    Verified,
    /// Violated.
    Violated,
}

use Stated::{Verified, Violated};

macro_rules! policy {
    ($id:literal, $stated:expr) => {
        Row { id: $id, text: include_str!(concat!($id, ".policy")), stated: $stated }
    };
}

/// Every built-in policy that is asked about the kernel's range or text.
pub const POLICIES: &[Row] = &[
    policy!("ipi", [Verified, Verified, Verified]),
    policy!("ct-late", [Verified, Violated, Verified]),
    policy!("coalesce-v7", [Violated, Violated, Violated]),
    policy!("coalesce-v7-fixed", [Verified, Verified, Violated]),
    policy!("coalesce-tri-state", [Verified, Verified, Verified]),
    policy!("pending-bit", [Verified, Verified, Verified]),
    policy!("fancy-state", [Verified, Verified, Verified]),
    policy!("coalesce-v6", [Violated, Violated, Violated]),
    policy!("coalesce-all", [Verified, Verified, Violated]),
    policy!("track-cr3-reconstructed", [Verified, Verified, Violated]),
    policy!("track-cr3-invpcid", [Verified, Verified, Violated]),
    policy!("track-cr3-saved-flag", [Verified, Verified, Violated]),
    policy!("pending-bit-plain", [Violated, Violated, Violated]),
    policy!("pending-bit-recheck", [Verified, Verified, Verified]),
    policy!("fancy-state-or", [Verified, Verified, Verified]),
    policy!("fancy-state-indeterminate", [Verified, Verified, Verified]),
    policy!("generation-at-entry", [Verified, Verified, Verified]),
    policy!("quarantine", [Verified, Verified, Verified]),
    policy!("quarantine-by-grace", [Verified, Violated, Verified]),
    policy!("invlpgb", [Verified, Verified, Verified]),
    policy!("invlpgb-from-4-cpus", [Verified, Verified, Verified]),
    policy!("rar", [Verified, Verified, Verified]),
    policy!("lazy-tune", [Verified, Verified, Verified]),
    policy!("flush-on-exit", [Violated, Violated, Violated]),
    policy!("noinstr-c", [Verified, Violated, Verified]),
    policy!("text-defer-v7", [Verified, Violated, Verified]),
    policy!("text-sync-cr3-reconstructed", [Verified, Verified, Violated]),
    policy!("text-sync-tri-state", [Verified, Verified, Verified]),
];

/// Every built-in policy that replaces flushes of user ranges alone. Their stated verdicts: flushes of user memory, frees of
/// user page tables, and the worse of both with one NMI, each at the standard scope and in every world.
pub const USER_POLICIES: &[Row] = &[
    policy!("latr", [Verified, Verified, Verified]),
    policy!("latr-two-ticks", [Violated, Verified, Violated]),
    policy!("luf", [Verified, Verified, Verified]),
    policy!("early-ack", [Verified, Verified, Verified]),
    policy!("early-ack-tables", [Verified, Violated, Violated]),
    policy!("switch-deferred", [Verified, Verified, Verified]),
    policy!("tables-by-rcu", [Verified, Verified, Verified]),
    policy!("tables-at-once", [Verified, Violated, Violated]),
];

/// Every built-in policy, those of user ranges last.
pub fn all() -> impl Iterator<Item = &'static Row> {
    POLICIES.iter().chain(USER_POLICIES)
}

/// The paths every policy plugs into.
pub const KERNEL: &str = include_str!("linux.kernel");

/// Memory contexts: switching, lazy TLB, user ranges. Part of a program text that uses it.
pub const CONTEXTS: &str = include_str!("contexts.kernel");

/// Both, with the names that messages call them by.
pub const KERNEL_FILES: [(&str, &str); 2] = [("linux.kernel", KERNEL), ("contexts.kernel", CONTEXTS)];

/// A policy's text, parsed once.
pub fn shared(file: &str, text: &str) -> Result<Arc<File>, PolicyError> {
    static FILES: Cache<(String, String), Arc<File>> = Cache::new(256);
    FILES.get_or((file.into(), text.into()), || parse(file, text).map(Arc::new))
}

/// The programs of a policy with the kernel programs `wants`, assembled once.
pub fn code(file: &Arc<File>, wants: &[&str], features: Features) -> Result<Arc<Code>, PolicyError> {
    type Key = (usize, Vec<String>, Features);
    // The file is kept with its code, so that no other one gets its address.
    static CODES: Cache<Key, (Arc<File>, Arc<Code>)> = Cache::new(256);
    let key = (Arc::as_ptr(file) as usize, wants.iter().map(ToString::to_string).collect(), features);
    let made = CODES.get_or(key, || Ok((Arc::clone(file), Arc::new(load_with(file, wants, features)?))));
    made.map(|(_, code)| code)
}

/// The built-in policy of that name, or an error that names the nearest.
pub fn builtin(name: &str) -> Result<File, PolicyError> {
    shared_builtin(name).map(|file| File::clone(&file))
}

/// The same, parsed once.
pub fn shared_builtin(name: &str) -> Result<Arc<File>, PolicyError> {
    match all().find(|p| p.id == name) {
        Some(row) => shared(&format!("{}.policy", row.id), row.text),
        None => {
            let near = names::hint(name, all().map(|p| p.id));
            Err(PolicyError {
                file: name.into(),
                at: Loc { line: 1, col: 1 },
                message: format!("no policy is called `{name}`{near}"),
            })
        }
    }
}

/// What runs where a policy does not: mainline, of the version of Linux that it stands on.
pub fn mainline(beside: &File) -> Result<Arc<File>, PolicyError> {
    static NEWER: Cache<&str, Arc<File>> = Cache::new(8);
    let (own, version) = (shared_builtin("ipi")?, kernels(beside)?.version);
    if version == kernel_version() {
        return Ok(own);
    }
    NEWER.get_or(version, || Ok(Arc::new(on_linux(&own, version)?)))
}

/// What a policy defers, by the initiators that rely on it: `purge` for flushes of the kernel range, `text_poke` for
/// syncs of patched text, or both; `flush_mm` if it is about user ranges alone. Any other one that defers nothing counts
/// as one of flushes. What it is asked is in [`questions`].
pub fn initiators(file: &File) -> Vec<&'static str> {
    let chain = questions::chain(file);
    let defines = |name: &str| chain.iter().any(|f| f.section(name).is_some());
    match (defines("flush_kernel_range"), defines("text_sync")) {
        (true, true) => vec!["purge", "text_poke"],
        (false, true) => vec!["text_poke"],
        (false, false) if questions(file).iter().all(|q| q.initiator.starts_with("flush_mm")) => {
            vec!["flush_mm"]
        }
        (_, false) => vec!["purge"],
    }
}

/// The policies that a file is based on, nearest first; what is wrong with the chain `load` says.
pub fn bases(file: &File) -> Vec<File> {
    let mut chain: Vec<File> = Vec::new();
    while let Some(base) = base(chain.last().unwrap_or(file)).and_then(Result::ok) {
        if base.name == file.name || chain.iter().any(|f| f.name == base.name) {
            break;
        }
        chain.push(base);
    }
    chain
}

/// The version of Linux that the kernel's files are written from, such as `6.12`: their header line `from` says it.
pub fn kernel_version() -> &'static str {
    let from = kernel().facts.iter().find(|f| f.key == "from").map_or("", |f| f.text.as_str());
    from.strip_prefix("Linux ").unwrap_or(from)
}

/// The kernel's own file.
pub fn kernel() -> &'static File {
    static FILE: LazyLock<File> =
        LazyLock::new(|| parse("linux.kernel", KERNEL).expect("the embedded file parses: tested"));
    &FILE
}

/// The kernel's file of memory contexts.
fn contexts() -> &'static File {
    static FILE: LazyLock<File> =
        LazyLock::new(|| parse("contexts.kernel", CONTEXTS).expect("the embedded file parses: tested"));
    &FILE
}

/// Assemble a parsed policy against the kernel's paths and the built-in policies.
pub fn load(file: &File, features: Features) -> Result<Code, PolicyError> {
    load_with(file, &[], features)
}

/// The same, with the kernel programs of these names among those that are not always there.
pub fn load_with(file: &File, wants: &[&str], features: Features) -> Result<Code, PolicyError> {
    load_keeping(file, wants, &[], features)
}

/// The same, with these locals, by section, kept to the end of their programs: a litmus test asks about them.
pub fn load_keeping(
    file: &File,
    wants: &[&str],
    keep: &[(String, String)],
    features: Features,
) -> Result<Code, PolicyError> {
    let kernels = kernels(file)?;
    let mut code = assemble(file, &kernels, (wants, keep), &base, features)?;
    kernels.version.clone_into(&mut code.linux);
    Ok(code)
}

/// The policy that a file is based on: the file that goes with it, else the built-in one of that name.
fn base(file: &File) -> Option<Result<File, String>> {
    if let Some(base) = &file.base {
        return Some(Ok(File::clone(base)));
    }
    Some(builtin(file.based_on.as_ref()?).map_err(|error| error.message))
}

/// A policy on other paths than `linux.kernel`'s: those sections of a kernel text that neither the policy nor one that it
/// is based on replaces become its own. Each keeps the place that it was read from.
pub fn on_kernel(policy: &File, paths: &File) -> Result<File, PolicyError> {
    if !paths.is_kernel() {
        return Err(PolicyError {
            file: paths.file.clone(),
            at: Loc { line: 1, col: 1 },
            message: format!(
                "a kernel text starts with `kernel NAME`: this is the {} `{}`",
                paths.kind, paths.name
            ),
        });
    }
    let mut chain = bases(policy);
    chain.insert(0, policy.clone());
    let mut out = policy.clone();
    out.name = format!("{}-on-{}", policy.name, paths.name);
    for section in &paths.sections {
        if chain.iter().all(|f| f.section(&section.name).is_none()) {
            out.sections.push(section.clone());
        }
    }
    load(&out, Features::PTI_PCID)?;
    Ok(out)
}

/// A policy on another version of Linux: its header says which.
pub fn on_linux(policy: &File, name: &str) -> Result<File, PolicyError> {
    let at = Loc { line: 1, col: 1 };
    let found = version(name).map_err(|message| PolicyError { file: policy.file.clone(), at, message })?;
    let mut out = policy.clone();
    out.facts.retain(|f| f.key != LINUX);
    out.facts.push(Fact { at, key: LINUX.into(), text: found.into() });
    load(&out, Features::PTI_PCID)?;
    Ok(out)
}

/// Refuses a text with a section that nothing uses, and that is none of those that roles run.
pub fn all_used(file: &File, run: &[&str]) -> Result<(), PolicyError> {
    assemble::all_used(file, &kernels(file)?, &[run, &questions::COMPANIONS].concat(), &base)
}

/// Names of the sections that nothing uses.
pub fn unused(file: &File) -> Result<Vec<String>, PolicyError> {
    let found = assemble::unused(file, &kernels(file)?, &questions::COMPANIONS, &base)?;
    Ok(found.into_iter().map(|s| s.name.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::program::Feature;
    use crate::kernel::text::print;

    fn feature_sets() -> Vec<Features> {
        let all = Features::PTI_PCID;
        vec![all, all.without(Feature::Invpcid), Features::NONE.with(Feature::ContextTracking)]
    }

    #[test]
    fn every_policy_assembles_on_every_machine() {
        for row in all() {
            let file = builtin(row.id).unwrap();
            assert_eq!(file.name, row.id);
            for features in feature_sets() {
                let code = load(&file, features).unwrap_or_else(|e| panic!("{e}"));
                assert!(code.program("syscall").is_some() && code.program("purge").is_some());
                assert_eq!(code.ops.len(), code.live.len());
            }
        }
    }

    #[test]
    fn both_files_of_the_kernel_are_written_from_one_version() {
        assert!(kernel_version().starts_with(|c: char| c.is_ascii_digit()), "{}", kernel_version());
        for file in [kernel(), contexts()] {
            let from: Vec<_> = file.facts.iter().filter(|f| f.key == "from").collect();
            assert_eq!(from.len(), 1, "{}", file.file);
            assert_eq!(from[0].text, format!("Linux {}", kernel_version()), "{}", file.file);
        }
    }

    #[test]
    fn printing_is_the_inverse_of_parsing() {
        for text in all().map(|p| p.text).chain([KERNEL, CONTEXTS]) {
            let file = parse("a", text).unwrap();
            let printed = print(&file);
            let again = parse("a", &printed).unwrap_or_else(|e| panic!("{e}\n{printed}"));
            assert_eq!(print(&again), printed);
            assert_eq!(again.sections.len(), file.sections.len());
        }
    }

    #[test]
    fn policies_of_user_ranges_are_asked_about_those_alone() {
        for row in USER_POLICIES {
            assert_eq!(initiators(&builtin(row.id).unwrap()), ["flush_mm"], "{}", row.id);
        }
        for row in POLICIES {
            assert!(!initiators(&builtin(row.id).unwrap()).contains(&"flush_mm"), "{}", row.id);
        }
    }

    #[test]
    fn an_unknown_name_gets_the_nearest() {
        assert!(builtin("coalesce-v77").unwrap_err().message.contains("did you mean `coalesce-v7`"));
    }
}
