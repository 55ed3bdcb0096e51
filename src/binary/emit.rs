//! The walked paths as a kernel text: the same sections that `linux.kernel` writes by hand, read from the machine code.
//!
//! A path is cut at its ops. Between two ops only which classes of memory are touched matters, not how often, so each
//! class stands once, at its last access there: what is stale for an earlier one is stale for it too. Ways that differ
//! in their accesses alone are one, with the accesses of all; ways that part at a test of the nohz_full mask are `if`
//! and `else`, and ways that part at any other test are `if either`: no state of the model decides it. CR3 writes are the
//! macros of `calling.h`, and the atomics those of context tracking, so that a policy plugs in; any other op on the TLB
//! stands as it is. In a kernel that has a policy's variable the policy is in the machine code: there CR3 writes, flushes,
//! tests and stores to the variable stand in place of the macros.

use super::BinaryError;
use super::image::Image;
use super::kallsyms::Symbols;
use super::step::{Op, Region, Step, Way, What, Zone};
use super::walk::{End, Kernel, Path, Walked, Walker};

/// Sections of the text: name, symbol of the entry, whether it is the one from kernel code, and its kind.
const SECTIONS: [(&str, &str, Kind); 7] = [
    ("syscall", "entry_SYSCALL_64", Kind::Syscall),
    ("syscall_compat", "entry_SYSCALL_compat", Kind::Syscall),
    ("sysenter_compat", "entry_SYSENTER_compat", Kind::Syscall),
    ("exception", "asm_exc_page_fault", Kind::Syscall),
    ("interrupt", "asm_sysvec_call_function", Kind::Interrupt),
    ("nmi_user", "asm_exc_nmi (from user mode)", Kind::NmiUser),
    ("nmi", "asm_exc_nmi (from kernel code, user CR3)", Kind::Nmi),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Syscall,
    Interrupt,
    NmiUser,
    Nmi,
}

/// A kernel text of an image's paths. `variables` are pairs of a policy's variable and the symbol that holds it, beside
/// those whose symbol has their name.
pub fn extract(file: Vec<u8>, features: &str, variables: &[(String, String)]) -> Result<String, BinaryError> {
    let image = Image::parse(file)?;
    let symbols = Symbols::read(&image)?;
    let mut kernel = Kernel::new(&image, &symbols, features)?;
    kernel.find_variables(variables)?;
    let release = image.release.clone().unwrap_or_else(|| "unknown".into());
    let mut out = format!(
        "kernel linux-{}\n  \"Entry and exit paths read from the machine code; what is missing here is that of linux.kernel.\"\n  \
         from \"Linux {release}\"\n  source \"{}, with {}\"\n",
        release.replace(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '-', "-"),
        image.packing,
        kernel.features.names().join(" ")
    );
    if !kernel.variables.is_empty() {
        let names: Vec<String> =
            kernel.variables.iter().map(|v| format!("{} at {:#x}", v.name, v.address)).collect();
        out.push_str(&format!("  source \"with its own policy: {}\"\n", names.join(", ")));
    }
    let mut walker = Walker::new(&kernel);
    let entries = kernel.entries();
    for (section, name, kind) in SECTIONS {
        let Some(entry) = entries.iter().find(|e| e.name == name) else { continue };
        let walked = walker.walk(entry)?;
        out.push_str(&section_text(&kernel, section, kind, &walked)?);
    }
    Ok(out)
}

fn section_text(
    kernel: &Kernel<'_>,
    section: &str,
    kind: Kind,
    walked: &Walked,
) -> Result<String, BinaryError> {
    let name = &walked.entry.name;
    if let Some(why) = &walked.gave_up {
        return Err(BinaryError(format!("{name}: the way out was not walked: {why}")));
    }
    let tracked: Vec<&Path> = walked.ways_in.iter().filter(|p| p.end == End::Tracking).collect();
    let left: Vec<&Path> = walked.ways_out.iter().filter(|p| matches!(p.end, End::Left(_))).collect();
    if tracked.is_empty() || left.is_empty() {
        return Err(BinaryError(format!(
            "{name}: no way in reaches the atomic of context tracking and comes back to user mode; lost: {}",
            lost(walked)
        )));
    }
    let ways = format!("{} ways in, {} out", tracked.len(), left.len());
    let mut out = format!("\n{section} @ \"{name} {:x}, {ways}\"\n", walked.entry.address);
    let mut line = |text: &str| out.push_str(&format!("  {text}\n"));
    for text in statements(kernel, kind, name, &tracked, true)? {
        line(&text);
    }
    let between: &[&str] = match kind {
        Kind::Syscall => &["ct_enter", "sti", "body syscall", "cli", "ct_exit"],
        Kind::Interrupt => &["ct_enter", "handle calls", "after_calls", "tick", "body interrupt", "ct_exit"],
        Kind::NmiUser | Kind::Nmi => &["ct_nmi_enter", "touch nmi", "body nmi", "ct_nmi_exit"],
    };
    for text in between {
        line(text);
    }
    for text in statements(kernel, kind, name, &left, false)? {
        line(&text);
    }
    Ok(out)
}

fn lost(walked: &Walked) -> String {
    let ends = walked.ways_in.iter().chain(&walked.ways_out).filter_map(|p| match &p.end {
        End::Lost(at) => Some(at.as_str()),
        _ => None,
    });
    ends.take(3).collect::<Vec<_>>().join(", ")
}

/// What of a path its text is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    /// An access: its class and place.
    Touch(&'static str, String),
    /// Statements, and the place of their instruction.
    Op(Vec<String>, String),
    /// A test of a set, whether this CPU is in it on this way, and the place.
    Test(&'static str, bool, String),
    /// A block that a test of the saved CR3 guards.
    Open,
    /// Its end.
    Close,
}

/// The text of several ways through the same code.
fn statements(
    kernel: &Kernel<'_>,
    kind: Kind,
    name: &str,
    ways: &[&Path],
    inward: bool,
) -> Result<Vec<String>, BinaryError> {
    let mut items: Vec<Vec<Item>> = Vec::new();
    for way in ways {
        let found = items_of(kernel, kind, name, &way.steps, inward)?;
        if !items.contains(&found) {
            items.push(found);
        }
    }
    let ways: Vec<&[Item]> = items.iter().map(Vec::as_slice).collect();
    Ok(merged(&ways))
}

fn merged(ways: &[&[Item]]) -> Vec<String> {
    let mut out = Vec::new();
    let mut ways = ways.to_vec();
    loop {
        let mut touches: Vec<(&'static str, &str)> = Vec::new();
        let mut keys = Vec::new();
        let mut from_here = Vec::new();
        for way in &mut ways {
            let cut = way.iter().position(|i| !matches!(i, Item::Touch(..))).unwrap_or(way.len());
            let mut own: Vec<(&'static str, &str)> = Vec::new();
            for item in &way[..cut] {
                if let Item::Touch(class, place) = item {
                    own.retain(|t| t.0 != *class);
                    own.push((class, place));
                }
            }
            for touch in own {
                if touches.iter().all(|t| t.0 != touch.0) {
                    touches.push(touch);
                }
            }
            keys.push(way.get(cut));
            from_here.push(&way[cut..]);
            *way = way.get(cut + 1..).unwrap_or(&[]);
        }
        out.extend(touches.iter().map(|(class, place)| format!("touch {class} @ \"{place}\"")));
        match keys[0] {
            None if keys.iter().all(Option::is_none) => return out,
            Some(Item::Op(texts, place))
                if keys.iter().all(|k| matches!(k, Some(Item::Op(t, _)) if t == texts)) =>
            {
                out.extend(texts.iter().map(|text| placed(text, place)));
            }
            Some(Item::Open) if keys.iter().all(|k| *k == Some(&Item::Open)) => {
                let mut blocks = Vec::new();
                for way in &mut ways {
                    let end = way.iter().position(|i| *i == Item::Close).unwrap_or(way.len());
                    blocks.push(&way[..end]);
                    *way = way.get(end + 1..).unwrap_or(&[]);
                }
                out.push("if saved_cr3 is user".into());
                out.extend(indented(merged(&blocks)));
            }
            Some(Item::Test(set, ..))
                if keys.iter().all(|k| matches!(k, Some(Item::Test(s, ..)) if s == set)) =>
            {
                let side = |member: bool| -> Vec<&[Item]> {
                    let chosen = ways.iter().zip(&keys);
                    chosen
                        .filter(|(_, k)| matches!(k, Some(Item::Test(_, m, _)) if *m == member))
                        .map(|(way, _)| *way)
                        .collect()
                };
                let (inside, outside) = (side(true), side(false));
                if inside.is_empty() || outside.is_empty() {
                    continue; // the other way warns
                }
                let tests = [format!("me in {set}"), format!("not me in {set}")];
                branch(&mut out, &tests, merged(&inside), merged(&outside));
                return out;
            }
            _ => {
                // They part at a test of something that is not modelled: either way is possible.
                let (like, other): (Vec<&[Item]>, Vec<&[Item]>) =
                    from_here.into_iter().partition(|way| alike(way.first(), keys[0]));
                let either = ["either".to_owned(), "either".to_owned()];
                branch(&mut out, &either, merged(&like), merged(&other));
                return out;
            }
        }
    }
}

/// Do ways that go on like this part later, or never?
fn alike(a: Option<&Item>, b: Option<&Item>) -> bool {
    match (a, b) {
        (Some(Item::Op(a, _)), Some(Item::Op(b, _))) => a == b,
        (Some(Item::Test(a, ..)), Some(Item::Test(b, ..))) => a == b,
        _ => a == b,
    }
}

/// `if` and `else`, with what both end with behind them. `tests` are the test and its contrary.
fn branch(
    out: &mut Vec<String>,
    [test, contrary]: &[String; 2],
    mut inside: Vec<String>,
    mut outside: Vec<String>,
) {
    let mut after = Vec::new();
    while let (Some(a), Some(b)) = (inside.last(), outside.last())
        && a == b
        && !a.starts_with(' ')
    {
        after.extend(inside.pop());
        outside.pop();
    }
    let blocks = match (inside.is_empty(), outside.is_empty()) {
        (true, true) => Vec::new(),
        (false, true) => vec![(format!("if {test}"), inside)],
        (true, false) => vec![(format!("if {contrary}"), outside)],
        (false, false) => vec![(format!("if {test}"), inside), ("else".into(), outside)],
    };
    for (title, block) in blocks {
        out.push(title);
        out.extend(indented(block));
    }
    out.extend(after.into_iter().rev());
}

fn indented(lines: Vec<String>) -> impl Iterator<Item = String> {
    lines.into_iter().map(|line| format!("  {line}"))
}

fn placed(text: &str, place: &str) -> String {
    // A macro of one word is a section, which has its own place.
    let bare = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if bare && text != "swapgs" && text != "lfence" {
        text.to_owned()
    } else {
        format!("{text} @ \"{place}\"")
    }
}

fn items_of(
    kernel: &Kernel<'_>,
    kind: Kind,
    name: &str,
    steps: &[Step],
    inward: bool,
) -> Result<Vec<Item>, BinaryError> {
    let own = !kernel.variables.is_empty();
    let (mut out, mut open) = (Vec::new(), false);
    for step in steps {
        let place = |what: &str| {
            let text = format!("{} {:x}{what}", kernel.symbols.place(step.at), step.at);
            text.replace('"', "'")
        };
        match &step.what {
            What::Access { region, way, object, .. } if !matches!(way, Way::Prefetch) => {
                // cpu_tss_rw is part of cpu_entry_area: its page is in the user's table too.
                let class = if object.starts_with("cpu_tss_rw") { "entry" } else { class(*region) };
                out.push(Item::Touch(class, place(&format!(": {object}"))));
            }
            What::Branch { asks: Some((set, member)), .. } => out.push(Item::Test(set, *member, place(""))),
            What::Op(op) => {
                let Some(texts) = op_text(op, kind, step.zone, inward, own) else { continue };
                if let Some(text) =
                    texts.iter().find(|t| t.contains("unknown") || t.starts_with("invpcid type"))
                {
                    return Err(BinaryError(format!(
                        "{name}: {text} at {}: the walk cannot tell the operand, and the language has no word for that",
                        place("")
                    )));
                }
                let from_kernel = own && kind == Kind::Nmi;
                let guarded = from_kernel && matches!(op, Op::WriteCr3 { .. } | Op::Store { .. });
                if guarded && !open {
                    if inward {
                        out.push(Item::Op(vec!["let saved_cr3 = cr3".into()], place("")));
                    }
                    out.push(Item::Open);
                    open = true;
                }
                if open && matches!(op, Op::Swapgs { .. } | Op::WriteGs { .. }) {
                    out.push(Item::Close);
                    open = false;
                }
                out.push(Item::Op(texts, place("")));
                if open && !inward && matches!(op, Op::WriteCr3 { .. }) {
                    out.push(Item::Close);
                    open = false;
                }
            }
            _ => {}
        }
    }
    if open {
        out.push(Item::Close);
    }
    Ok(out)
}

fn class(region: Region) -> &'static str {
    match region {
        Region::EntryArea | Region::EntryText => "entry",
        Region::PerCpu => "percpu",
        Region::Rodata | Region::Data => "image",
        Region::DirectMap => "directmap",
        Region::TaskStack => "stack",
        Region::Vmalloc => "recycled",
        Region::Unknown => "danger",
    }
}

/// The statements of an op; `None` for what has no effect in the model. `own` where the policy is in the machine code.
fn op_text(op: &Op, kind: Kind, zone: Zone, inward: bool, own: bool) -> Option<Vec<String>> {
    let one = |text: &str| Some(vec![text.to_owned()]);
    match op {
        Op::WriteCr3 { user: Some(false), .. } if inward && zone == Zone::Danger => match (own, kind) {
            (true, _) => one("mov cr3, kernel noflush"),
            (false, Kind::Nmi) => one("paranoid_save"),
            (false, _) => one("to_kernel"),
        },
        Op::WriteCr3 { user: Some(true), .. } => match (own, kind) {
            (true, Kind::Nmi) => one("mov cr3, saved_cr3 owed"),
            (true, _) => one("mov cr3, user owed"),
            (false, Kind::Nmi) => one("paranoid_restore"),
            (false, _) => one("to_user"),
        },
        Op::Invlpg(_) => one("invlpg range"),
        Op::WriteCr3 { .. } | Op::WriteCr4(_) | Op::Invpcid(_) | Op::Store { .. } => Some(vec![op.text()]),
        Op::Swapgs { .. } => one("swapgs"),
        Op::WriteGs { user: false } => {
            let mut texts = vec!["let saved_gs = gsbase".to_owned(), "mov gsbase, kernel".to_owned()];
            if !own {
                texts.push("nmi_guard".into());
            }
            Some(texts)
        }
        Op::WriteGs { user: true } => Some(vec!["mov gsbase, saved_gs".into()]),
        Op::Lfence => one("lfence"),
        Op::Mfence => one("fence"),
        Op::Serialize => one("serialize"),
        Op::ReadCr3 | Op::ReadGs | Op::Msr(_) | Op::Sti | Op::Cli | Op::Verw => None,
        Op::LeavesNoinstr(_) | Op::Unresolved(_) => None,
    }
}
