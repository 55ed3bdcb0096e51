//! Formats of lines: Valgrind's lackey, pinatrace, gem5, CSV.

use memchr::memmem;

use super::{Chunk, Format};
use crate::hw::Kind;

/// What a column of addresses may be called, in lower case.
pub const ADDRESS: &[&str] = &["address", "addr", "vaddr", "virtual_address"];
/// What a column of kinds may be called.
pub const KIND: &[&str] = &["kind", "type", "op", "access", "rw"];
/// What a column of CPUs may be called.
pub const CPU: &[&str] = &["cpu", "core"];
/// Words for kinds in such columns, in lower case.
pub const KINDS: &[(&str, Kind)] = &[
    ("load", Kind::Load),
    ("read", Kind::Load),
    ("r", Kind::Load),
    ("l", Kind::Load),
    ("0", Kind::Load),
    ("store", Kind::Store),
    ("write", Kind::Store),
    ("w", Kind::Store),
    ("s", Kind::Store),
    ("1", Kind::Store),
    ("fetch", Kind::Fetch),
    ("ifetch", Kind::Fetch),
    ("instr", Kind::Fetch),
    ("exec", Kind::Fetch),
    ("i", Kind::Fetch),
    ("x", Kind::Fetch),
    ("2", Kind::Fetch),
];

/// Whether bytes are text of the kind that traces have: no control characters but those of lines.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().take(4096).all(|byte| !matches!(byte, 0..=8 | 14..=31 | 127))
}

/// A line for people.
pub(super) fn shorten(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned();
    text.lines().next().unwrap_or_default().to_owned()
}

/// The lines of a text.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// Whether a text begins as this format does: its first line with an access can be read.
pub(super) fn begins(format: Format, head: &[u8], whole: bool) -> bool {
    let most = if whole { usize::MAX } else { lines(head).count() - 1 }; // the last may be cut
    if format == Format::Csv {
        return Columns::of(head).is_ok();
    }
    let mut chunk = Chunk::default();
    lines(head)
        .take(most)
        .find_map(|line| match self::line(format, &Columns::default(), line, &mut chunk) {
            Ok(()) if chunk.addresses.is_empty() => None,
            done => Some(done.is_ok()),
        })
        .unwrap_or(false)
}

/// The accesses of one line.
pub(super) fn line(format: Format, columns: &Columns, line: &[u8], chunk: &mut Chunk) -> Result<(), String> {
    match format {
        Format::Lackey => lackey(line, chunk),
        Format::PinATrace => pinatrace(line, chunk),
        Format::Gem5Packets => gem5_packet(line, chunk),
        Format::Gem5Text => gem5_text(line, chunk),
        Format::Csv => columns.line(line, chunk),
        Format::ChampSim | Format::DrMemTrace => Err("not a format of lines".into()),
    }
}

fn hex(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0, |value, &digit| Some(value << 4 | u64::from((digit as char).to_digit(16)?)))
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, &digit| {
        value.checked_mul(10)?.checked_add(u64::from((digit as char).to_digit(10)?))
    })
}

/// `0x` and hexadecimal digits, or decimal ones; a kernel address may be written as a negative number.
fn number(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii();
    if let Some(digits) = text.strip_prefix(b"0x").or_else(|| text.strip_prefix(b"0X")) {
        return hex(digits);
    }
    match text.strip_prefix(b"-") {
        Some(digits) => decimal(digits).filter(|&value| value <= 1 << 63).map(u64::wrapping_neg),
        None => decimal(text),
    }
}

/// `I  04016b00,3`, ` L 1ffeffe7e,8`, ` S ...`, ` M ...`: an access and its size. Valgrind's own lines begin with
/// `==` or `--`.
fn lackey(line: &[u8], chunk: &mut Chunk) -> Result<(), String> {
    const RULE: &str = "a line of lackey must be `I  ADDRESS,SIZE` or ` L|S|M ADDRESS,SIZE`";
    if line.is_empty() || line.starts_with(b"==") || line.starts_with(b"--") || line.starts_with(b"SB ") {
        return Ok(());
    }
    let [a, b, b' ', rest @ ..] = line else { return Err(RULE.into()) };
    let mut parts = rest.splitn(2, |&byte| byte == b',');
    let address = parts.next().and_then(hex).ok_or(RULE)?;
    parts.next().and_then(decimal).ok_or(RULE)?;
    match (a, b) {
        (b'I', b' ') => chunk.push(address, Kind::Fetch, 0),
        (b' ', b'L') => chunk.push(address, Kind::Load, 0),
        (b' ', b'S') => chunk.push(address, Kind::Store, 0),
        (b' ', b'M') => {
            chunk.push(address, Kind::Load, 0);
            chunk.push(address, Kind::Store, 0);
        }
        _ => return Err(RULE.into()),
    }
    Ok(())
}

/// `0x7f1e2c: R 0x7ffc10`: an instruction that accesses memory, and what it accesses. Other instructions are not in
/// the trace, so no fetch is made of it. It ends with `#eof`.
fn pinatrace(line: &[u8], chunk: &mut Chunk) -> Result<(), String> {
    const RULE: &str = "a line of pinatrace must be `0xIP: R|W 0xADDRESS`";
    if line.is_empty() || line.starts_with(b"#") {
        return Ok(());
    }
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let address = |word: Option<&[u8]>| word.and_then(|word| hex(word.strip_prefix(b"0x")?));
    address(words.next().and_then(|word| word.strip_suffix(b":"))).ok_or(RULE)?;
    let kind = match words.next() {
        Some(b"R") => Kind::Load,
        Some(b"W") => Kind::Store,
        _ => return Err(RULE.into()),
    };
    chunk.push(address(words.next()).ok_or(RULE)?, kind, 0);
    Ok(())
}

/// `[ID,]r|w|u,ADDRESS,SIZE[,FLAGS],TICK[,PC]`; `u` is any other command, and no access.
fn gem5_packet(line: &[u8], chunk: &mut Chunk) -> Result<(), String> {
    const RULE: &str = "a packet of gem5 must be `[id,]r|w|u,address,size,[flags,]tick[,pc]`";
    if line.is_empty() {
        return Ok(());
    }
    let fields: Vec<_> = line.split(|&byte| byte == b',').collect();
    let at = fields.iter().take(2).position(|field| matches!(*field, b"r" | b"w" | b"u")).ok_or(RULE)?;
    if fields.len() < at + 4
        || !fields[at + 1..].iter().chain(&fields[..at]).all(|field| decimal(field).is_some())
    {
        return Err(RULE.into());
    }
    let address = decimal(fields[at + 1]).ok_or(RULE)?;
    match fields[at] {
        b"r" => chunk.push(address, Kind::Load, 0),
        b"w" => chunk.push(address, Kind::Store, 0),
        _ => {}
    }
    Ok(())
}

/// `TICK: OBJECT: Read|Write|IFetch from REQUESTOR of size N on address 0x...` (MemoryAccess: physical addresses), or
/// `TICK: OBJECT: T0 : ... : MemRead|MemWrite : ... A=0x...` (Exec: virtual ones, of data). Other lines are other
/// messages. The CPU is the number in the requestor's, or the object's, name.
fn gem5_text(line: &[u8], chunk: &mut Chunk) -> Result<(), String> {
    if let Some(at) = memmem::find(line, b" on address 0x") {
        let rule =
            || "an access of gem5 must be `TICK: OBJECT: Read|Write|IFetch ... on address 0x...`".to_owned();
        let address = hex_prefix(&line[at + 14..]).ok_or_else(rule)?;
        let mut parts = line[..at].splitn(3, |&byte| byte == b':');
        parts.next().and_then(|tick| decimal(tick.trim_ascii())).ok_or_else(rule)?;
        let said = parts.nth(1).ok_or_else(rule)?.trim_ascii();
        let end =
            memmem::find(said, b" from ").or_else(|| memmem::find(said, b" of size ")).ok_or_else(rule)?;
        let cpu = cpu_of(&said[end..]);
        match &said[..end] {
            b"Read" => chunk.push(address, Kind::Load, cpu),
            b"Write" => chunk.push(address, Kind::Store, cpu),
            b"IFetch" => chunk.push(address, Kind::Fetch, cpu),
            b"Swap" | b"Atomic" | b"Read/Write" => {
                chunk.push(address, Kind::Load, cpu);
                chunk.push(address, Kind::Store, cpu);
            }
            _ => return Err(rule()),
        }
    } else if let Some(at) = memmem::find(line, b": Mem") {
        let kind = match &line[at + 5..] {
            [b'R', b'e', b'a', b'd', ..] => Kind::Load,
            [b'W', b'r', b'i', b't', b'e', ..] => Kind::Store,
            _ => return Ok(()),
        };
        if let Some(place) = memmem::find(&line[at..], b"A=0x") {
            let digits = &line[at + place + 4..];
            let address = hex_prefix(digits).ok_or("an access of gem5 must have an address A=0x...")?;
            let object = line[..at].splitn(3, |&byte| byte == b':').nth(1).unwrap_or_default();
            chunk.push(address, kind, cpu_of(object));
        }
    }
    Ok(())
}

fn hex_prefix(text: &[u8]) -> Option<u64> {
    hex(&text[..text.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(text.len())])
}

/// The number of `cpu3` or `cpus3` in a name; 0 if it has none.
fn cpu_of(name: &[u8]) -> u16 {
    memmem::find_iter(name, b"cpu")
        .find_map(|at| {
            let rest = &name[at + 3..];
            let rest = rest.strip_prefix(b"s").unwrap_or(rest);
            let digits = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
            decimal(&rest[..digits]).and_then(|cpu| u16::try_from(cpu).ok())
        })
        .unwrap_or(0)
}

/// Which columns of a CSV file are what.
#[derive(Clone, Copy, Debug, Default)]
pub struct Columns {
    separator: u8,
    address: usize,
    kind: Option<usize>,
    cpu: Option<usize>,
    count: usize,
}

impl Columns {
    /// From the first line, and how many bytes of header there are. Names are compared without case.
    pub(super) fn of(head: &[u8]) -> Result<(Self, usize), String> {
        let first = lines(head).next().unwrap_or_default();
        let first = first.strip_prefix(b"\xef\xbb\xbf").unwrap_or(first); // a byte order mark
        if number(first).is_some() {
            return Ok((Columns { separator: b',', count: 1, ..Columns::default() }, 0));
        }
        let separator = [b',', b';', b'\t'].into_iter().find(|byte| first.contains(byte)).unwrap_or(b',');
        let names: Vec<String> = first
            .split(|&byte| byte == separator)
            .map(|name| String::from_utf8_lossy(name).trim().trim_matches('"').to_lowercase())
            .collect();
        let find = |known: &[&str]| names.iter().position(|name| known.contains(&name.as_str()));
        let address = find(ADDRESS)
            .ok_or("a CSV file must begin with a header that has a column `address`, or with an address")?;
        let end = memchr::memchr(b'\n', head).map_or(head.len(), |end| end + 1);
        let columns = Columns { separator, address, kind: find(KIND), cpu: find(CPU), count: names.len() };
        Ok((columns, end))
    }

    fn line(&self, line: &[u8], chunk: &mut Chunk) -> Result<(), String> {
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        let (mut address, mut kind, mut cpu, mut count) = (None, Kind::Load, 0, 0);
        for (place, field) in line.split(|&byte| byte == self.separator).enumerate() {
            let field = field.trim_ascii();
            let field = field.strip_prefix(b"\"").and_then(|f| f.strip_suffix(b"\"")).unwrap_or(field);
            count += 1;
            if place == self.address {
                let value =
                    number(field).ok_or("an address must be 0x and hexadecimal digits, or decimal ones")?;
                address = Some(value);
            } else if Some(place) == self.kind {
                kind = kind_of(field).ok_or("a kind must be load, store or fetch (or R, W, I; 0, 1, 2)")?;
            } else if Some(place) == self.cpu {
                let number = decimal(field).and_then(|cpu| u16::try_from(cpu).ok());
                cpu = number.ok_or("a CPU must be a whole number up to 65535")?;
            }
        }
        if count != self.count {
            return Err(format!("a row must have {} fields, as the header has: got {count}", self.count));
        }
        chunk.push(address.expect("the row has every column"), kind, cpu);
        Ok(())
    }
}

fn kind_of(name: &[u8]) -> Option<Kind> {
    let name = name.to_ascii_lowercase();
    KINDS.iter().find(|(known, _)| known.as_bytes() == name).map(|&(_, kind)| kind)
}
