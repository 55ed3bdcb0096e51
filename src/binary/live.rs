//! The kernel that runs against its file: the text in memory, as the kernel has patched it, is walked like the file with
//! the patches that were predicted, and both must give the same census.
//!
//! The text comes from `/proc/kcore`, an ELF core of the kernel's address space; where it lies (KASLR) from
//! `/proc/kallsyms`. A 32-bit address that the loader has moved is moved back before the walk.

use std::collections::BTreeSet;
use std::io::{Read, Seek, SeekFrom};

use super::BinaryError;
use super::census::{Census, EntryRow, walked};
use super::image::{Image, u16_at, u32_at, u64_at};
use super::kallsyms::Symbols;
use super::walk::Kernel;

/// What the comparison found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Census of the running text.
    pub live: Census,
    /// As text.
    pub report: String,
    /// Is every entry the same?
    pub same: bool,
}

/// Symbols whose distances must be those of the file.
const FIXED: [&str; 3] = ["entry_SYSCALL_64", "asm_exc_page_fault", "asm_exc_nmi"];

/// Compare a file with the kernel whose core and symbols these are.
pub fn verify(
    file: Vec<u8>,
    features: &str,
    core: &mut (impl Read + Seek),
    kallsyms: &str,
) -> Result<Verified, BinaryError> {
    let image = Image::parse(file)?;
    let symbols = Symbols::read(&image)?;
    let slide = slide(&symbols, kallsyms)?;
    let text = image.sections.iter().find(|s| s.code && s.loaded).expect("an image has code");
    let mut bytes = read(core, text.address.wrapping_add(slide), text.size as usize)?;
    move_back(&mut bytes, image.content(text), slide);
    let changed = bytes.iter().zip(image.content(text)).filter(|(a, b)| a != b).count();
    let running = image.with(text, &bytes);
    let predicted = walked(&Kernel::new(&image, &symbols, features)?)?;
    let live = walked(&Kernel::new(&running, &symbols, features)?.as_it_runs())?;
    let mut lines = Vec::new();
    for old in &predicted.entries {
        match live.entries.iter().find(|e| e.name == old.name) {
            Some(new) => lines.extend(differ(old, new)),
            None => lines.push(format!("{}: not in the running kernel", old.name)),
        }
    }
    let same = lines.is_empty();
    let mut report = format!(
        "{} of {} bytes of the running text of Linux {} differ from the file, moved by {slide:#x}.\n",
        changed,
        text.size,
        if image.release.is_none() { "of unknown version" } else { &live.release }
    );
    for line in &lines {
        report.push_str(&format!("  {line}\n"));
    }
    report.push_str(&if same {
        format!("All {} entries are in memory as predicted from the file.\n", predicted.entries.len())
    } else {
        "The running text is not the predicted one: see the features (--this-machine), or what has patched the kernel.\n"
            .into()
    });
    Ok(Verified { live, report, same })
}

/// What is in one entry and not in the other, per zone; nothing where they are the same.
fn differ(old: &EntryRow, new: &EntryRow) -> Vec<String> {
    let rows =
        |entry: &EntryRow| -> BTreeSet<String> {
            let mut out = BTreeSet::new();
            for zone in &entry.zones {
                let at = |address: &str, place: &str| format!("at {address} ({place})");
                out.extend(zone.accesses.iter().map(|a| {
                    format!("{}: {} of {} {}", zone.zone, a.way, a.object, at(&a.address, &a.place))
                }));
                out.extend(
                    zone.ops.iter().map(|o| format!("{}: {} {}", zone.zone, o.op, at(&o.address, &o.place))),
                );
            }
            if !entry.gave_up.is_empty() {
                out.insert(entry.gave_up.clone());
            }
            out
        };
    let (old_rows, new_rows) = (rows(old), rows(new));
    let only = |a: &BTreeSet<String>, b: &BTreeSet<String>, whose: &str| -> Vec<String> {
        a.difference(b).map(|row| format!("{}: only {whose}: {row}", old.name)).collect()
    };
    let mut out = only(&old_rows, &new_rows, "predicted");
    out.extend(only(&new_rows, &old_rows, "in memory"));
    out
}

/// By how much the running kernel is moved.
fn slide(symbols: &Symbols, kallsyms: &str) -> Result<u64, BinaryError> {
    let live = |name: &str| -> Option<u64> {
        kallsyms.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            let (address, _, found) = (words.next()?, words.next()?, words.next()?);
            // A module's symbol has its module behind it.
            (found == name && words.next().is_none()).then(|| u64::from_str_radix(address, 16).ok())?
        })
    };
    let moved = |name: &str| -> Option<(u64, u64)> { Some((live(name)?, symbols.address(name)?)) };
    let Some((running, linked)) = moved("_text").or_else(|| moved("_stext")) else {
        return Err(BinaryError(
            "/proc/kallsyms has no symbol `_text`: build with CONFIG_KALLSYMS, or compare with `census --against`".into(),
        ));
    };
    if running == 0 {
        return Err(BinaryError(
            "/proc/kallsyms shows no addresses: run as root, with kernel.kptr_restrict at 0 or 1".into(),
        ));
    }
    let slide = running.wrapping_sub(linked);
    for name in FIXED {
        if let Some((running, linked)) = moved(name)
            && running.wrapping_sub(linked) != slide
        {
            return Err(BinaryError(format!(
                "the image is not that of the running kernel: `{name}` is moved by {:#x}, its text by {slide:#x}",
                running.wrapping_sub(linked)
            )));
        }
    }
    Ok(slide)
}

/// Bytes of the kernel's address space out of an ELF core.
fn read(core: &mut (impl Read + Seek), address: u64, len: usize) -> Result<Vec<u8>, BinaryError> {
    let failed = |e: std::io::Error| BinaryError(format!("/proc/kcore cannot be read: {e}"));
    let no_core = || BinaryError("/proc/kcore is no 64-bit ELF core".into());
    let mut header = [0; 64];
    core.seek(SeekFrom::Start(0)).map_err(failed)?;
    core.read_exact(&mut header).map_err(failed)?;
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Err(no_core());
    }
    let table = u64_at(&header, 32).ok_or_else(no_core)?;
    let (size, count) = (u16_at(&header, 54).unwrap_or(0), u16_at(&header, 56).unwrap_or(0));
    if size != 56 {
        return Err(no_core());
    }
    let mut segments = vec![0; usize::from(size) * usize::from(count)];
    core.seek(SeekFrom::Start(table)).map_err(failed)?;
    core.read_exact(&mut segments).map_err(failed)?;
    for segment in segments.chunks_exact(usize::from(size)) {
        let word = |at: usize| u64_at(segment, at).expect("56 bytes");
        let (offset, start, held) = (word(8), word(16), word(32));
        // PT_LOAD
        if u32_at(segment, 0) == Some(1)
            && address >= start
            && (address - start).checked_add(len as u64).is_some_and(|end| end <= held)
        {
            let mut bytes = vec![0; len];
            core.seek(SeekFrom::Start(offset + (address - start))).map_err(failed)?;
            core.read_exact(&mut bytes).map_err(failed)?;
            return Ok(bytes);
        }
    }
    Err(BinaryError(format!("/proc/kcore holds no kernel text at {address:#x}")))
}

/// Where four bytes are those of the file plus the slide, they are an address that the loader moved.
fn move_back(live: &mut [u8], file: &[u8], slide: u64) {
    if slide == 0 {
        return;
    }
    let mut at = 0;
    while at + 4 <= live.len() {
        if live[at] != file[at] || live[at..at + 4] != file[at..at + 4] {
            let start = at.saturating_sub(3);
            let moved = (start..=at).find(|&i| {
                let (a, b) = (u32_at(live, i), u32_at(file, i));
                a.zip(b).is_some_and(|(a, b)| a == b.wrapping_add(slide as u32) && a != b)
            });
            if let Some(i) = moved {
                live[i..i + 4].copy_from_slice(&file[i..i + 4]);
                at = i + 4;
                continue;
            }
        }
        at += 1;
    }
}
