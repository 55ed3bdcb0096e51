//! The kernel's own symbol table, which stays in an image whose ELF symbols are stripped.
//!
//! Names are packed with a table of 256 tokens; nothing in the image says where the tables are, so they are found by
//! their shape: the tokens of the ten digits stand one after another, and every table is checked against the others.
//! Layouts (scripts/kallsyms.c): before 6.5 offsets and base come first and the tokens last; from 6.5 on the names come
//! first. Before 6.15 per-CPU symbols are small absolute numbers and all others are negative offsets.

use std::ops::Range;

use super::BinaryError;
use super::image::{Image, u16_at, u32_at, u64_at};

/// One symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Address, or offset into the per-CPU area in kernels where that starts at 0.
    pub address: u64,
    /// Type letter as `nm` prints it; upper case is global.
    pub kind: u8,
    /// Name.
    pub name: String,
}

/// All symbols, by address.
#[derive(Debug, Default)]
pub struct Symbols {
    list: Vec<Symbol>,
    by_name: rustc_hash::FxHashMap<String, u32>,
}

/// What to do without symbols.
const GIVE: &str = "build with CONFIG_KALLSYMS_ALL, or give a vmlinux that has its symbol table";

impl Symbols {
    /// From a list in any order.
    pub fn new(mut list: Vec<Symbol>) -> Self {
        list.sort_by_key(|s| s.address);
        let mut by_name = rustc_hash::FxHashMap::default();
        for (i, symbol) in list.iter().enumerate() {
            by_name.entry(symbol.name.clone()).or_insert(i as u32);
        }
        Self { list, by_name }
    }

    /// Decode an image's table; without one, its ELF symbols.
    pub fn read(image: &Image) -> Result<Self, BinaryError> {
        if let Some(list) = decode(image)? {
            return Ok(Self::new(list));
        }
        let list = elf_symbols(image);
        if list.is_empty() {
            return Err(BinaryError(format!("the kernel has no kallsyms and no ELF symbols: {GIVE}")));
        }
        Ok(Self::new(list))
    }

    /// All of them, by address.
    pub fn all(&self) -> &[Symbol] {
        &self.list
    }

    /// The first symbol of that name.
    pub fn named(&self, name: &str) -> Option<&Symbol> {
        self.by_name.get(name).map(|i| &self.list[*i as usize])
    }

    /// Address of a symbol.
    pub fn address(&self, name: &str) -> Option<u64> {
        self.named(name).map(|s| s.address)
    }

    /// Address of a symbol, or an error that says what its absence means.
    pub fn need(&self, name: &str) -> Result<u64, BinaryError> {
        self.address(name).ok_or_else(|| {
            BinaryError(format!("the kernel has no symbol `{name}`, which the walk starts from: {GIVE}"))
        })
    }

    /// The last symbol at or before an address, the most telling one of several at the same place.
    pub fn at(&self, address: u64) -> Option<&Symbol> {
        let end = self.list.partition_point(|s| s.address <= address);
        let last = self.list[..end].last()?;
        let first = self.list[..end].partition_point(|s| s.address < last.address);
        // Bounds such as `__entry_text_start` share their address with a function.
        self.list[first..end].iter().max_by_key(|s| {
            let bound = s.name.starts_with("__") && (s.name.ends_with("_start") || s.name.ends_with("_end"));
            (!bound, s.kind.is_ascii_uppercase(), !s.name.starts_with('_'))
        })
    }

    /// The first address after this one that a symbol has.
    pub fn next(&self, address: u64) -> Option<u64> {
        self.list.get(self.list.partition_point(|s| s.address <= address)).map(|s| s.address)
    }

    /// `name` or `name+0x10`.
    pub fn place(&self, address: u64) -> String {
        match self.at(address) {
            Some(s) if s.address == address => s.name.clone(),
            Some(s) => format!("{}+{:#x}", s.name, address - s.address),
            None => format!("{address:#x}"),
        }
    }
}

struct Tables<'a> {
    /// The section's bytes.
    bytes: &'a [u8],
    /// Address of its first byte.
    address: u64,
    tokens: Vec<&'a [u8]>,
    /// Just after `kallsyms_token_index`.
    after: usize,
    /// Where `kallsyms_token_table` starts.
    before: usize,
}

/// `None` where no table is found.
fn decode(image: &Image) -> Result<Option<Vec<Symbol>>, BinaryError> {
    let Some(tables) = image.sections.iter().filter(|s| s.loaded && !s.code).find_map(|section| {
        let bytes = image.content(section);
        find_tokens(bytes, section.address)
    }) else {
        return Ok(None);
    };
    let Some((names, addresses)) = find_names(image, &tables) else {
        return Err(BinaryError(format!(
            "kallsyms_token_table is at {:#x}, but no tables of names and addresses fit it: the layout of this kernel is \
             not known here; {GIVE}",
            tables.address + tables.before as u64
        )));
    };
    let list = names.into_iter().zip(addresses).map(|((kind, name), address)| Symbol { address, kind, name });
    Ok(Some(list.collect()))
}

/// The 256 tokens, and the index that must agree with them.
fn find_tokens(bytes: &[u8], address: u64) -> Option<Tables<'_>> {
    let digits = b"\x000\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00";
    memchr::memmem::find_iter(bytes, digits).find_map(|found| {
        let zero = found + 1;
        // Forward to the end of token 255.
        let mut end = zero;
        for _ in b'0'..=255 {
            end += memchr::memchr(0, bytes.get(end..(end + 512).min(bytes.len()))?)? + 1;
        }
        (0..16).find_map(|gap| {
            let index = end + gap;
            let offset = |token: usize| u16_at(bytes, index + 2 * token).map(usize::from);
            let start = zero.checked_sub(offset(usize::from(b'0'))?)?;
            if offset(0)? != 0 || !(address + index as u64).is_multiple_of(4) {
                return None;
            }
            let mut tokens = Vec::with_capacity(256);
            for token in 0..256 {
                let from = start + offset(token)?;
                let len = memchr::memchr(0, bytes.get(from..end)?)?;
                let next = if token == 255 { end } else { start + offset(token + 1)? };
                if from + len + 1 != next {
                    return None;
                }
                tokens.push(&bytes[from..from + len]);
            }
            Some(Tables { bytes, address, tokens, after: index + 512, before: start })
        })
    })
}

/// Names and their addresses. `kallsyms_num_syms` is where the names after it can be walked to the end and agree with
/// the markers, and where a table of that many addresses fits.
fn find_names(image: &Image, tables: &Tables<'_>) -> Option<Found> {
    // Where the markers stand just before the tokens their last one says about where the names start.
    let near = last_marker(tables).and_then(|(start, offset, markers)| {
        let latest = start.checked_sub(offset)?;
        let counts = 256 * (markers - 1) + 1..256 * markers + 1;
        find_names_in(image, tables, latest.saturating_sub(256 * 600)..latest, &counts)
    });
    near.or_else(|| {
        let window = tables.before.saturating_sub(48 << 20)..tables.before;
        find_names_in(image, tables, window, &(2..4 << 20))
    })
}

/// Where `kallsyms_markers` starts, what its last entry says, and how many it has, if it stands just before the tokens.
fn last_marker(tables: &Tables<'_>) -> Option<(usize, usize, usize)> {
    (0..8).find_map(|gap| {
        let end = tables.before.checked_sub(gap)?;
        let last = u32_at(tables.bytes, end.checked_sub(4)?)?;
        let mut at = end - 4;
        let mut value = last;
        while value > 0 {
            at = at.checked_sub(4)?;
            let before = u32_at(tables.bytes, at)?;
            if before >= value {
                return None;
            }
            value = before;
        }
        (last > 0).then_some((at, last as usize, (end - at) / 4))
    })
}

fn find_names_in(
    image: &Image,
    tables: &Tables<'_>,
    window: Range<usize>,
    counts: &Range<usize>,
) -> Option<Found> {
    let bytes = tables.bytes;
    let mut at = window.start.next_multiple_of(4);
    while at + 16 < window.end {
        let count = u32_at(bytes, at)? as usize;
        if counts.contains(&count) {
            // Aligned to 8 bytes up to 6.x, to 4 in 7.x.
            let padded = u32_at(bytes, at + 4) == Some(0);
            for start in if padded { [at + 8, at + 4] } else { [at + 4; 2] } {
                if names(tables, start, count.min(3)).is_some_and(|n| n.iter().all(plausible))
                    && markers_agree(tables, start, count)
                    && let Some(all) = names(tables, start, count)
                    && let Some(addresses) = addresses(image, tables, at, count)
                {
                    return Some((all, addresses));
                }
            }
        }
        at += 4;
    }
    None
}

/// Names with their type letters, and their addresses.
type Found = (Vec<(u8, String)>, Vec<u64>);

fn plausible((kind, name): &(u8, String)) -> bool {
    kind.is_ascii_alphabetic() && !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic())
}

/// Expand `count` names; `None` if they run out of the section.
fn names(tables: &Tables<'_>, mut at: usize, count: usize) -> Option<Vec<(u8, String)>> {
    let mut out = Vec::with_capacity(count);
    let mut whole = Vec::new();
    for _ in 0..count {
        let len = length(tables.bytes, &mut at)?;
        whole.clear();
        for token in tables.bytes.get(at..at + len)? {
            whole.extend_from_slice(tables.tokens[usize::from(*token)]);
        }
        at += len;
        let (kind, name) = whole.split_first()?;
        out.push((*kind, std::str::from_utf8(name).ok()?.to_owned()));
    }
    Some(out)
}

/// A name's length in tokens: one byte, or two from 128 on (6.1).
fn length(bytes: &[u8], at: &mut usize) -> Option<usize> {
    let mut len = usize::from(*bytes.get(*at)?);
    *at += 1;
    if len & 0x80 != 0 {
        len = len & 0x7f | usize::from(*bytes.get(*at)?) << 7;
        *at += 1;
    }
    (len > 0).then_some(len)
}

/// `kallsyms_markers`: where each 256th name starts. Only lengths are read, since most places are none.
fn markers_agree(tables: &Tables<'_>, start: usize, count: usize) -> bool {
    let mut expected = Vec::new();
    let mut at = start;
    for i in 0..count {
        if i % 256 == 0 {
            expected.push((at - start) as u32);
        }
        match length(tables.bytes, &mut at) {
            Some(len) if at + len <= tables.before => at += len,
            _ => return false,
        }
    }
    (0..16).any(|gap| {
        expected.iter().enumerate().all(|(i, offset)| u32_at(tables.bytes, at + gap + 4 * i) == Some(*offset))
    })
}

fn addresses(image: &Image, tables: &Tables<'_>, num_syms: usize, count: usize) -> Option<Vec<u64>> {
    let bytes = tables.bytes;
    let text = image.sections.iter().find(|s| s.code)?.address;
    let up = |at: usize| at + (8 - (tables.address as usize + at) % 8) % 8;
    // Before 6.5: offsets, base, num_syms. From 6.5 on: token_index, offsets, base.
    let old = up((num_syms - 8).checked_sub((4 * count).next_multiple_of(8))?);
    let starts = [(tables.after, None), (up(tables.after), None), (old, Some(num_syms - 8))];
    starts.into_iter().find_map(|(start, base_at)| {
        let offsets: Vec<i32> =
            (0..count).map(|i| u32_at(bytes, start + 4 * i).map(|o| o as i32)).collect::<Option<_>>()?;
        let base = u64_at(bytes, base_at.unwrap_or_else(|| up(start + 4 * count)));
        let resolve = |offset: i32, absolute: bool| match (absolute, offset) {
            (true, 0..) => offset as u64,
            (true, _) => base.unwrap_or(0).wrapping_sub(1).wrapping_sub(offset as i64 as u64),
            (false, _) => base.unwrap_or(0).wrapping_add(u64::from(offset as u32)),
        };
        let negative = offsets.iter().filter(|o| **o < 0).count();
        let absolute = negative > count / 2;
        let with_base: Vec<u64> = offsets.iter().map(|o| resolve(*o, absolute)).collect();
        let sound =
            |list: &[u64]| list.iter().filter(|a| **a >= text).count() > count / 2 && list.contains(&text);
        if base.is_some_and(|b| b <= text && text - b < 1 << 30) && sound(&with_base) {
            return Some(with_base);
        }
        // Without a base each offset counts from its own place.
        let relative: Vec<u64> = offsets
            .iter()
            .enumerate()
            .map(|(i, o)| (tables.address + (start + 4 * i) as u64).wrapping_add(*o as i64 as u64))
            .collect();
        sound(&relative).then_some(relative)
    })
}

/// `.symtab` of a vmlinux.
fn elf_symbols(image: &Image) -> Vec<Symbol> {
    use object::read::elf::ElfFile64;
    use object::{Object, ObjectSymbol, SymbolKind};
    let Ok(file) = ElfFile64::<object::Endianness>::parse(image.bytes()) else { return Vec::new() };
    file.symbols()
        .filter(|s| s.is_definition() || s.kind() == SymbolKind::Label)
        .filter_map(|s| {
            let name = s.name().ok()?.to_owned();
            let kind = if s.kind() == SymbolKind::Text { b't' } else { b'd' };
            let kind = if s.is_global() { kind.to_ascii_uppercase() } else { kind };
            (!name.is_empty()).then(|| Symbol { address: s.address(), kind, name })
        })
        .collect()
}
