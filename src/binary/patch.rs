//! What the kernel patches into its own text at boot: alternatives and jump labels, for a set of CPU features.
//!
//! An alternative is not copied: the walk goes on in its replacement, where the assembler put it, and comes back after
//! the instruction it stands for. So relative operands need no relocation. Return and indirect thunks are known to the
//! walk by their symbols.

use rustc_hash::FxHashMap;

use super::BinaryError;
use super::features::{FeatureSet, Numbers};
use super::image::{Image, u16_at, u32_at, u64_at};
use super::kallsyms::Symbols;

/// A replaced stretch of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alternative {
    /// Where the replacement stands.
    pub code: u64,
    /// Its length; 0 leaves NOPs.
    pub len: u8,
    /// Length of what it replaces.
    pub replaced: u8,
}

/// A jump that a static key turns on and off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jump {
    /// Where it goes.
    pub target: u64,
    /// The key.
    pub key: u64,
    /// Does it jump?
    pub taken: bool,
    /// Is the key on?
    pub on: bool,
}

/// What is patched, by the address of the instruction.
#[derive(Debug, Default)]
pub struct Patches {
    /// Alternatives that apply.
    pub alternatives: FxHashMap<u64, Alternative>,
    /// Jump labels.
    pub jumps: FxHashMap<u64, Jump>,
    /// How many alternatives the table has.
    pub alternatives_seen: usize,
}

/// Keys that are on where a CPU is isolated, whatever the image starts with.
const ON: [&str; 2] = ["context_tracking_key", "housekeeping_overridden"];

impl Patches {
    /// Read the tables of an image.
    pub fn read(
        image: &Image,
        symbols: &Symbols,
        numbers: &Numbers,
        features: &FeatureSet,
    ) -> Result<Self, BinaryError> {
        let mut out = Self::default();
        out.alternatives(image, numbers, features)?;
        out.jump_labels(image, symbols)?;
        Ok(out)
    }

    /// `struct alt_instr`: 12 bytes with a 16-bit number up to 6.2, 14 with 32 bits of which 16 are flags after.
    fn alternatives(
        &mut self,
        image: &Image,
        numbers: &Numbers,
        features: &FeatureSet,
    ) -> Result<(), BinaryError> {
        let Some(section) = image.section(".altinstructions") else {
            return Err(BinaryError(
                "no section .altinstructions: which instructions run cannot be told; give the vmlinux of the build, with its sections".into(),
            ));
        };
        let bytes = image.content(section);
        let on = numbers.of(features);
        let size = [14, 12]
            .into_iter()
            .find(|size| fits(image, bytes, section.address, *size))
            .ok_or_else(|| {
                BinaryError(format!(
                    ".altinstructions at {:#x} has entries of neither 12 nor 14 bytes: the layout of this kernel is not known here",
                    section.address
                ))
            })?;
        for entry in 0..bytes.len() / size {
            let at = entry * size;
            let (instruction, code) = places(bytes, section.address, at).expect("fits");
            let (number, not, direct) = if size == 12 {
                let word = u16_at(bytes, at + 8).expect("fits");
                (word & 0x7fff, word & 0x8000 != 0, false)
            } else {
                let flags = u16_at(bytes, at + 10).expect("fits");
                (u16_at(bytes, at + 8).expect("fits"), flags & 1 != 0, flags & 2 != 0)
            };
            self.alternatives_seen += 1;
            // A direct call stands for the indirect one through pv_ops, which the walk resolves itself.
            if on.contains(&number) == not || direct {
                continue;
            }
            let (replaced, len) = (bytes[at + size - 2], bytes[at + size - 1]);
            self.alternatives.insert(instruction, Alternative { code, len, replaced });
        }
        Ok(())
    }

    /// `struct jump_entry`: two relative addresses and the key's, whose lowest bit says which way is the rare one.
    fn jump_labels(&mut self, image: &Image, symbols: &Symbols) -> Result<(), BinaryError> {
        let (Some(start), Some(end)) =
            (symbols.address("__start___jump_table"), symbols.address("__stop___jump_table"))
        else {
            return Ok(()); // a kernel without jump labels tests its keys in memory
        };
        let bytes = image.read(start, end.saturating_sub(start) as usize).ok_or_else(|| {
            BinaryError(format!(
                "the jump table at {start:#x} to {end:#x} is in no section: the image is damaged"
            ))
        })?;
        let on: Vec<u64> = ON.iter().filter_map(|name| symbols.address(name)).collect();
        for at in (0..bytes.len() / 16).map(|i| i * 16) {
            let relative = |i: usize| {
                (start + (at + i) as u64)
                    .wrapping_add(u32_at(bytes, at + i).expect("whole") as i32 as i64 as u64)
            };
            let word = u64_at(bytes, at + 8).expect("whole");
            let key = (start + at as u64 + 8).wrapping_add(word & !3);
            let initial =
                image.read(key, 4).is_some_and(|b| i32::from_le_bytes(b.try_into().expect("four")) > 0);
            let enabled = initial || on.contains(&key);
            let taken = enabled != (word & 1 != 0);
            self.jumps.insert(relative(0), Jump { target: relative(4), key, taken, on: enabled });
        }
        Ok(())
    }
}

fn places(bytes: &[u8], address: u64, at: usize) -> Option<(u64, u64)> {
    let relative = |i: usize| {
        Some((address + (at + i) as u64).wrapping_add(u32_at(bytes, at + i)? as i32 as i64 as u64))
    };
    Some((relative(0)?, relative(4)?))
}

/// Do entries of this size lead from text to replacements, all of them?
fn fits(image: &Image, bytes: &[u8], address: u64, size: usize) -> bool {
    if !bytes.len().is_multiple_of(size) {
        return false;
    }
    let replacement = image.section(".altinstr_replacement");
    (0..bytes.len() / size).all(|i| {
        let Some((instruction, code)) = places(bytes, address, i * size) else { return false };
        let len = bytes[i * size + size - 1];
        image.section_at(instruction).is_some_and(|s| s.code)
            && (len == 0 || replacement.is_some_and(|s| s.holds(code) && s.holds(code + u64::from(len) - 1)))
    })
}
