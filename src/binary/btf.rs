//! Names of fields from the image's own type information (`.BTF`): which member of which struct an offset is.
//! Layout: Documentation/bpf/btf.rst.

use super::image::{Image, u16_at, u32_at};

/// A type's number; 0 is void.
pub type Type = u32;

/// The types of one image.
#[derive(Debug)]
pub struct Btf<'a> {
    strings: &'a [u8],
    types: &'a [u8],
    /// Where each type starts in `types`; type 0 has no bytes.
    starts: Vec<u32>,
    /// Variables by name.
    variables: rustc_hash::FxHashMap<&'a str, Type>,
}

const INT: u32 = 1;
const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const TYPEDEF: u32 = 8;
const VAR: u32 = 14;

impl<'a> Btf<'a> {
    /// `None` where the image has none, or none that can be read: fields are then offsets.
    pub fn read(image: &'a Image) -> Option<Self> {
        let bytes = image.content(image.section(".BTF")?);
        if u16_at(bytes, 0)? != 0xeb9f {
            return None;
        }
        let at = |i: usize| u32_at(bytes, i).map(|w| w as usize);
        let header = at(4)?;
        let slice = |offset: usize, len: usize| bytes.get(header.checked_add(offset)?..)?.get(..len);
        let types = slice(at(8)?, at(12)?)?;
        let strings = slice(at(16)?, at(20)?)?;
        let mut starts = vec![0];
        let mut next = 0;
        while next < types.len() {
            starts.push(next as u32);
            let info = u32_at(types, next + 4)?;
            let count = (info & 0xffff) as usize;
            let more = match info >> 24 & 0x1f {
                INT | VAR | 17 => 4,
                ARRAY => 12,
                STRUCT | UNION | 15 | 19 => 12 * count,
                6 | 13 => 8 * count,
                2 | 7..=12 | 16 | 18 => 0,
                _ => return None,
            };
            next += 12 + more;
        }
        let mut out = Self { strings, types, starts, variables: rustc_hash::FxHashMap::default() };
        for id in 1..out.starts.len() as u32 {
            if out.kind(id) == VAR {
                let name = out.text(out.word(id, 0).unwrap_or(0));
                out.variables.insert(name, id);
            }
        }
        Some(out)
    }

    fn word(&self, id: Type, word: usize) -> Option<u32> {
        if id == 0 {
            return None;
        }
        u32_at(self.types, *self.starts.get(id as usize)? as usize + 4 * word)
    }

    fn kind(&self, id: Type) -> u32 {
        self.word(id, 1).map_or(0, |info| info >> 24 & 0x1f)
    }

    fn text(&self, offset: u32) -> &'a str {
        let rest = self.strings.get(offset as usize..).unwrap_or(&[]);
        let end = memchr::memchr(0, rest).unwrap_or(0);
        std::str::from_utf8(&rest[..end]).unwrap_or("")
    }

    fn named(&self, name: &str, kinds: &[u32]) -> Option<Type> {
        (1..self.starts.len() as u32)
            .find(|id| kinds.contains(&self.kind(*id)) && self.text(self.word(*id, 0).unwrap_or(0)) == name)
    }

    /// The struct of that name.
    pub fn structure(&self, name: &str) -> Option<Type> {
        self.named(name, &[STRUCT])
    }

    /// The type of a variable; only per-CPU variables have one.
    pub fn variable(&self, name: &str) -> Option<Type> {
        self.word(*self.variables.get(name)?, 2)
    }

    /// Without typedefs and qualifiers.
    fn plain(&self, mut id: Type) -> Type {
        for _ in 0..32 {
            match self.kind(id) {
                TYPEDEF | 9..=11 | 18 => id = self.word(id, 2).unwrap_or(0),
                _ => break,
            }
        }
        id
    }

    /// What a pointer points to.
    pub fn pointee(&self, id: Type) -> Option<Type> {
        let id = self.plain(id);
        (self.kind(id) == PTR).then(|| self.plain(self.word(id, 2).unwrap_or(0)))
    }

    /// The name of a struct or union.
    pub fn name(&self, id: Type) -> &'a str {
        self.text(self.word(self.plain(id), 0).unwrap_or(0))
    }

    fn size(&self, id: Type) -> u32 {
        let id = self.plain(id);
        match self.kind(id) {
            PTR => 8,
            ARRAY => self.size(self.word(id, 3).unwrap_or(0)).saturating_mul(self.word(id, 5).unwrap_or(0)),
            _ => self.word(id, 2).unwrap_or(0),
        }
    }

    /// The member at an offset, as `.x86_tss.sp2`, with its type; the empty text is the whole.
    pub fn field(&self, id: Type, offset: u32) -> (String, Type) {
        let mut out = String::new();
        let found = self.descend(id, offset, &mut out, 0);
        (out, found)
    }

    fn descend(&self, id: Type, offset: u32, out: &mut String, depth: u32) -> Type {
        let id = self.plain(id);
        if depth > 16 {
            return id;
        }
        match self.kind(id) {
            ARRAY => {
                let (element, size) =
                    (self.word(id, 3).unwrap_or(0), self.size(self.word(id, 3).unwrap_or(0)));
                if size == 0 {
                    return id;
                }
                out.push_str(&format!("[{}]", offset / size));
                self.descend(element, offset % size, out, depth + 1)
            }
            STRUCT | UNION => {
                let info = self.word(id, 1).unwrap_or(0);
                let bitfields = info >> 31 != 0;
                for m in 0..(info & 0xffff) as usize {
                    let (name, kind, place) =
                        (self.word(id, 3 + 3 * m), self.word(id, 4 + 3 * m), self.word(id, 5 + 3 * m));
                    let (Some(name), Some(kind), Some(place)) = (name, kind, place) else { break };
                    let bits = if bitfields { place & 0xff_ffff } else { place };
                    let (start, size) = (bits / 8, self.size(kind));
                    if offset >= start && (offset - start < size || (size == 0 && offset == start)) {
                        let name = self.text(name);
                        if !name.is_empty() {
                            out.push('.');
                            out.push_str(name);
                        }
                        return self.descend(kind, offset - start, out, depth + 1);
                    }
                }
                if offset != 0 {
                    out.push_str(&format!("+{offset:#x}"));
                }
                id
            }
            _ => {
                if offset != 0 {
                    out.push_str(&format!("+{offset:#x}"));
                }
                id
            }
        }
    }
}
