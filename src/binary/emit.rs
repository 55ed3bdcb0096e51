//! The walked paths as a kernel text: the same sections that `linux.kernel` writes by hand, read from the machine code.
//!
//! A path is cut at its ops. Between two ops only which classes of memory are touched matters, not how often, so each
//! class stands once, at its last access there: what is stale for an earlier one is stale for it too. Ways that differ
//! in their accesses alone are one, with the accesses of all. CR3 writes are the macros of `calling.h`, and the atomics
//! those of context tracking, so that a policy plugs in; any other op on the TLB stands as it is.

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

/// A kernel text of an image's paths.
pub fn extract(file: Vec<u8>, features: &str) -> Result<String, BinaryError> {
    let image = Image::parse(file)?;
    let symbols = Symbols::read(&image)?;
    let kernel = Kernel::new(&image, &symbols, features)?;
    let release = image.release.clone().unwrap_or_else(|| "unknown".into());
    let mut out = format!(
        "kernel linux-{}\n  \"Entry and exit paths read from the machine code; what is missing here is that of linux.kernel.\"\n  \
         from \"Linux {release}\"\n  source \"{}, with {}\"\n",
        release.replace(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '-', "-"),
        image.packing,
        kernel.features.names().join(" ")
    );
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
        Kind::Interrupt => &["ct_enter", "handle calls", "body interrupt", "ct_exit"],
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

/// One op, and the accesses before it since the last: class and the place of its last access.
#[derive(Default)]
struct Segment {
    touches: Vec<(&'static str, String)>,
    op: Option<(Vec<String>, String)>,
}

fn statements(
    kernel: &Kernel<'_>,
    kind: Kind,
    name: &str,
    ways: &[&Path],
    inward: bool,
) -> Result<Vec<String>, BinaryError> {
    let mut merged: Option<Vec<Segment>> = None;
    for way in ways {
        let segments = segments(kernel, kind, &way.steps, inward);
        match &mut merged {
            None => merged = Some(segments),
            Some(all) => {
                let ops =
                    |s: &[Segment]| s.iter().map(|s| s.op.as_ref().map(|o| o.0.clone())).collect::<Vec<_>>();
                if ops(all) != ops(&segments) {
                    let differs = segments
                        .iter()
                        .zip(all.iter())
                        .find(|(a, b)| a.op.as_ref().map(|o| &o.0) != b.op.as_ref().map(|o| &o.0));
                    let place =
                        differs.and_then(|(a, b)| a.op.as_ref().or(b.op.as_ref())).map_or("", |o| &o.1);
                    return Err(BinaryError(format!(
                        "{name}: two ways differ in an op on TLB or GS ({place}), on a test that the language has no word \
                         for; see it with tlbcore census --entry, and write this path by hand"
                    )));
                }
                for (into, from) in all.iter_mut().zip(segments) {
                    for touch in from.touches {
                        if into.touches.iter().all(|t| t.0 != touch.0) {
                            into.touches.push(touch);
                        }
                    }
                }
            }
        }
    }
    let mut out = Vec::new();
    for segment in merged.unwrap_or_default() {
        for (class, place) in segment.touches {
            out.push(format!("touch {class} @ \"{place}\""));
        }
        if let Some((texts, place)) = segment.op {
            for text in texts {
                // A macro of one word is a section, which has its own place.
                let bare = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                out.push(if bare && text != "swapgs" && text != "lfence" {
                    text
                } else {
                    format!("{text} @ \"{place}\"")
                });
            }
        }
    }
    Ok(out)
}

fn segments(kernel: &Kernel<'_>, kind: Kind, steps: &[Step], inward: bool) -> Vec<Segment> {
    let mut out = vec![Segment::default()];
    for step in steps {
        let place = |what: &str| {
            let text = format!("{} {:x}{what}", kernel.symbols.place(step.at), step.at);
            text.replace('"', "'")
        };
        match &step.what {
            What::Access { region, way, object, .. } if !matches!(way, Way::Prefetch) => {
                let last = out.last_mut().expect("never empty");
                // cpu_tss_rw is part of cpu_entry_area: its page is in the user's table too.
                let class = if object.starts_with("cpu_tss_rw") { "entry" } else { class(*region) };
                last.touches.retain(|t| t.0 != class);
                last.touches.push((class, place(&format!(": {object}"))));
            }
            What::Op(op) => {
                if let Some(texts) = op_text(op, kind, step.zone, inward) {
                    let last = out.last_mut().expect("never empty");
                    last.op = Some((texts, place("")));
                    out.push(Segment::default());
                }
            }
            _ => {}
        }
    }
    out
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

/// The statements of an op; `None` for what has no effect in the model.
fn op_text(op: &Op, kind: Kind, zone: Zone, inward: bool) -> Option<Vec<String>> {
    let one = |text: &str| Some(vec![text.to_owned()]);
    match op {
        Op::WriteCr3 { user: Some(false), noflush } if inward && zone == Zone::Danger => {
            match (kind, noflush) {
                (Kind::Nmi, _) => one("paranoid_save"),
                _ => one("to_kernel"),
            }
        }
        Op::WriteCr3 { user: Some(true), .. } => {
            if kind == Kind::Nmi {
                one("paranoid_restore")
            } else {
                one("to_user")
            }
        }
        Op::Invlpg(_) => one("invlpg range"),
        Op::WriteCr3 { .. } | Op::WriteCr4(_) | Op::Invpcid(_) => Some(vec![op.text()]),
        Op::Swapgs { .. } => one("swapgs"),
        Op::WriteGs { user: false } => {
            Some(["let saved_gs = gsbase", "mov gsbase, kernel", "nmi_guard"].map(str::to_owned).to_vec())
        }
        Op::WriteGs { user: true } => Some(vec!["mov gsbase, saved_gs".into()]),
        Op::Lfence => one("lfence"),
        Op::Mfence => one("fence"),
        Op::Serialize => one("serialize"),
        Op::ReadCr3 | Op::ReadGs | Op::Msr(_) | Op::Sti | Op::Cli | Op::Verw => None,
        Op::LeavesNoinstr(_) | Op::Unresolved(_) => None,
    }
}
