//! `events/*/*/format`: where an event's fields stand, and how the kernel prints them.

use super::bytes::Fault;

/// How a field holds its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// In place.
    Plain,
    /// `__data_loc`: where in the event it stands, and its length.
    DataLoc,
    /// `__rel_loc`: the same from the end of the field on.
    RelLoc,
}

/// One field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: Vec<u8>,
    /// First byte.
    pub at: usize,
    /// Bytes; 0 for what fills the rest of the event.
    pub size: usize,
    /// Whether it is a signed number.
    pub signed: bool,
    /// How it holds its value.
    pub holds: Holds,
    /// Bytes of an element where it is an array, else 0.
    pub element: usize,
    /// Whether its elements are characters.
    pub chars: bool,
}

/// An event's format.
#[derive(Clone, Debug, Default)]
pub struct Format {
    /// Its name.
    pub name: Vec<u8>,
    /// Its number in this recording.
    pub id: u16,
    /// Its fields, the common ones among them.
    pub fields: Vec<Field>,
    /// What stands behind `print fmt:`.
    pub print: Vec<u8>,
}

impl Format {
    /// The number of the event whose format this is.
    pub fn number(text: &[u8]) -> Result<u16, Fault> {
        let mut lines = text.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
        let id = lines.find_map(|line| line.strip_prefix(b"ID: "));
        let id = id.and_then(|id| std::str::from_utf8(id).ok()?.trim().parse().ok());
        id.ok_or("an event format has no ID".into())
    }

    /// Reads a format.
    pub fn parse(text: &[u8], long: usize) -> Result<Self, Fault> {
        let mut out = Self::default();
        let mut id = None;
        for line in text.split(|b| *b == b'\n') {
            let line = line.trim_ascii();
            if let Some(name) = line.strip_prefix(b"name: ") {
                out.name = name.to_vec();
            } else if let Some(number) = line.strip_prefix(b"ID: ") {
                id = std::str::from_utf8(number).ok().and_then(|n| n.trim().parse::<u16>().ok());
            } else if line.starts_with(b"field:") || line.starts_with(b"field special:") {
                out.fields.push(field(line, long).ok_or_else(|| {
                    format!(
                        "an event format has a field that is not known: {:?}",
                        String::from_utf8_lossy(line)
                    )
                })?);
            } else if let Some(print) = line.strip_prefix(b"print fmt:") {
                // All that follows: some formats break the line.
                let at = print.as_ptr() as usize - text.as_ptr() as usize;
                out.print = text[at..].to_vec();
                break;
            }
        }
        out.id = id.ok_or("an event format has no ID")?;
        if out.name.is_empty() {
            return Err(format!("event format {} has no name", out.id));
        }
        Ok(out)
    }

    /// The field of that name.
    pub fn find(&self, name: &[u8]) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }
}

fn property<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a str> {
    let mut key = name.to_vec();
    key.push(b':');
    line.split(|b| *b == b';')
        .find_map(|part| part.trim_ascii().strip_prefix(&key[..]))
        .and_then(|value| std::str::from_utf8(value).ok())
        .map(str::trim)
}

fn field(line: &[u8], long: usize) -> Option<Field> {
    let declared = line.split(|b| *b == b';').next()?;
    let declared = &declared[memchr::memchr(b':', declared)? + 1..];
    let number = |name: &str| property(line, name.as_bytes())?.parse::<usize>().ok();
    let (at, size) = (number("offset")?, number("size")?);
    if at > 1 << 16 || size > 1 << 16 {
        return None;
    }
    let text = declared.trim_ascii();
    let (holds, text) = match (text.strip_prefix(b"__data_loc "), text.strip_prefix(b"__rel_loc ")) {
        (Some(rest), _) => (Holds::DataLoc, rest),
        (_, Some(rest)) => (Holds::RelLoc, rest),
        _ => (Holds::Plain, text),
    };
    let end = if text.ends_with(b"]") { memchr::memchr(b'[', text)? } else { text.len() };
    let words = text[..end].trim_ascii();
    let name_at =
        words.iter().rposition(|b| !(b.is_ascii_alphanumeric() || *b == b'_')).map_or(0, |at| at + 1);
    let array = end < text.len() || holds != Holds::Plain;
    let has = |word: &[u8]| memchr::memmem::find(text, word).is_some();
    let pointer = memchr::memchr(b'*', text).is_some();
    let element = match () {
        () if !array => 0,
        () if pointer || has(b"long") || has(b"64") => long.max(if has(b"64") { 8 } else { 0 }),
        () if has(b"char") || has(b"u8") || has(b"s8") || has(b"bool") => 1,
        () if has(b"short") || has(b"16") => 2,
        () => 4,
    };
    Some(Field {
        name: words[name_at..].to_vec(),
        at,
        size,
        signed: property(line, b"signed") == Some("1"),
        holds,
        element,
        chars: array && !pointer && has(b"char"),
    })
}

/// Where a field of `header_page` stands, and its size.
pub fn field_place(text: &[u8], name: &str) -> Option<(usize, usize)> {
    text.split(|b| *b == b'\n')
        .filter_map(|line| field(line.trim_ascii(), 8))
        .find_map(|field| (field.name == name.as_bytes()).then_some((field.at, field.size)))
}
