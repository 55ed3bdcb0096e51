//! Names of addresses, from the recorded /proc/kallsyms.

use rustc_hash::FxHashMap;

use crate::trace::import::scan::hex;

/// Bytes of a line, as far as space is made for its symbol.
const LINE: usize = 40;

/// Symbols by address, and what was asked for before.
#[derive(Default)]
pub struct Symbols {
    text: Vec<u8>,
    /// Address, and where its name stands in `text`.
    sorted: Vec<(u64, u32, u32)>,
    known: FxHashMap<u64, Option<(u32, u32, u64, u64)>>,
}

impl Symbols {
    /// Reads `ADDRESS TYPE NAME [MODULE]` lines.
    pub fn new(text: Vec<u8>) -> Self {
        let mut sorted = Vec::with_capacity(text.len() / LINE);
        let mut at = 0;
        while at < text.len() {
            let start = at;
            let end = memchr::memchr(b'\n', &text[at..]).map_or(text.len(), |len| at + len);
            let line = &text[start..end];
            at = end + 1;
            // The kernel prints sixteen digits, a 32-bit one eight.
            let digits = match line.get(16) {
                Some(b' ') => 16,
                _ => memchr::memchr(b' ', line).unwrap_or(0),
            };
            let address = hex(&line[..digits]);
            let (Some(address), Some(name)) = (address.filter(|a| *a != 0), line.get(digits + 3..)) else {
                continue;
            };
            let len = memchr::memchr3(b'\t', b' ', b'\r', name).unwrap_or(name.len());
            if let Ok(start) = u32::try_from(start + digits + 3) {
                sorted.push((address, start, len as u32));
            }
        }
        // The first of several names of an address stays the first.
        sorted.sort_by_key(|symbol| symbol.0);
        Self { text, sorted, known: FxHashMap::default() }
    }

    fn find(&mut self, address: u64) -> Option<(u32, u32, u64, u64)> {
        let sorted = &self.sorted;
        *self.known.entry(address).or_insert_with(|| {
            let behind = sorted.partition_point(|symbol| symbol.0 <= address);
            let start = sorted.get(behind.checked_sub(1)?)?.0;
            let first = sorted.partition_point(|symbol| symbol.0 < start);
            let (_, at, len) = sorted[first];
            // Where the last symbol ends is not known, so nothing is said to lie in it.
            let end = sorted.get(behind)?.0;
            Some((at, len, address - start, end - start))
        })
    }

    /// Writes the name of an address as `%ps` does, with offset and size as `%pS`; an unknown one in hexadecimal.
    pub fn write(&mut self, address: u64, offset: bool, out: &mut Vec<u8>) {
        // Nothing of a kernel is this low: 0 and small numbers that stand for none.
        let found = if address < 1 << 16 { None } else { self.find(address) };
        let Some((at, len, from, size)) = found else {
            out.extend_from_slice(format!("{address:#x}").as_bytes());
            return;
        };
        out.extend_from_slice(&self.text[at as usize..][..len as usize]);
        if offset {
            out.extend_from_slice(format!("+{from:#x}/{size:#x}").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Symbols;

    #[test]
    fn the_first_line_is_read_as_any_other_and_the_last_symbol_has_no_end() {
        let text = "ffffffff81000000 T _text\nffffffff81000040 t next [mod]\nffffffff81000080 T end\n";
        let mut symbols = Symbols::new(text.into());
        let mut named = |address: u64, offset: bool| {
            let mut out = Vec::new();
            symbols.write(address, offset, &mut out);
            String::from_utf8(out).unwrap()
        };

        assert_eq!(named(0xffff_ffff_8100_0000, false), "_text");
        assert_eq!(named(0xffff_ffff_8100_003f, true), "_text+0x3f/0x40");
        assert_eq!(named(0xffff_ffff_8100_0040, true), "next+0x0/0x40");
        assert_eq!(named(0xffff_ffff_80ff_ffff, true), "0xffffffff80ffffff");
        assert_eq!(named(0xffff_ffff_8100_0080, true), "0xffffffff81000080");
        assert_eq!(named(0xffff, false), "0xffff");
    }
}
