//! The container of trace-cmd: formats 6 (one header behind the other) and 7 (sections that options point to).

pub use super::buffer::Buffer;
use super::{
    buffer::{INSTEAD, Part},
    bytes::{At, Bytes, Fault, Take},
    chunk::{Packing, unpack_section},
};

const NAME: usize = 4096;
const MOST_CPUS: u64 = 8192;
/// Those of a large kernel have about ten megabytes.
const MOST_FORMATS: usize = 128 << 20;
const MOST_SECTIONS: usize = 200;

/// What a file holds.
#[derive(Default)]
pub struct Contents {
    /// Bytes of a `long` of the kernel.
    pub long: usize,
    /// `events/header_page`.
    pub header_page: Vec<u8>,
    /// `events/*/*/format`, each a text.
    pub formats: Vec<Vec<u8>>,
    format_bytes: usize,
    /// `/proc/kallsyms`.
    pub symbols: Vec<u8>,
    /// `printk_formats`.
    pub printk: Vec<u8>,
    /// `saved_cmdlines`.
    pub comms: Vec<u8>,
    /// CPUs of the machine, if told.
    pub cpus: Option<u32>,
    /// `per_cpu/cpu*/stats`.
    pub stats: Vec<Vec<u8>>,
    /// Time stamps of the TSC in ns: multiplier, shift, offset.
    pub tsc: Option<(u64, u32, u64)>,
    /// How the file is packed.
    pub packing: Option<Packing>,
    /// The ring buffers.
    pub buffers: Vec<Buffer>,
    /// Trace text, where a latency tracer was recorded.
    pub text: Option<Vec<u8>>,
}

/// Reads all but the ring buffers.
pub fn read(bytes: &Bytes) -> Result<Contents, Fault> {
    let mut from = At { bytes, at: 10 };
    let version = from.text(16)?;
    let version = std::str::from_utf8(&version).ok().and_then(|text| text.parse::<u32>().ok());
    let endian = from.number::<1>()?;
    let long = from.number::<1>()? as usize;
    let page = from.number::<4>()? as usize;
    if endian != 0 {
        return Err(format!("is of a big-endian machine, which is not read{INSTEAD}"));
    }
    if long != 4 && long != 8 {
        return Err(format!("a long has 4 or 8 bytes: got {long}"));
    }
    let mut contents = Contents { long, ..Contents::default() };
    match version {
        Some(6) => six(&mut from, page, &mut contents)?,
        Some(7) => seven(&mut from, page, &mut contents)?,
        _ => return Err(format!("is of a format other than 6 and 7{INSTEAD}")),
    }
    Ok(contents)
}

fn header_info(from: &mut impl Take, into: &mut Contents) -> Result<(), Fault> {
    if from.take(12)? != b"header_page\0" {
        return Err("has no header_page where it should be".into());
    }
    into.header_page = from.sized::<8>()?;
    if from.take(13)? != b"header_event\0" {
        return Err("has no header_event where it should be".into());
    }
    from.sized::<8>()?;
    Ok(())
}

fn formats(from: &mut impl Take, into: &mut Contents) -> Result<(), Fault> {
    for _ in 0..from.number::<4>()? {
        let format = from.sized::<8>()?;
        into.format_bytes += format.len();
        if into.format_bytes > MOST_FORMATS || into.formats.len() > MOST_FORMATS / 64 {
            return Err(format!("holds more than {MOST_FORMATS} bytes of event formats"));
        }
        into.formats.push(format);
    }
    Ok(())
}

fn systems(from: &mut impl Take, into: &mut Contents) -> Result<(), Fault> {
    for _ in 0..from.number::<4>()? {
        from.text(NAME)?;
        formats(from, into)?;
    }
    Ok(())
}

fn six(from: &mut At<'_>, page: usize, into: &mut Contents) -> Result<(), Fault> {
    header_info(from, into)?;
    formats(from, into)?;
    systems(from, into)?;
    into.symbols = from.sized::<4>()?;
    into.printk = from.sized::<4>()?;
    into.comms = from.sized::<8>()?;
    let cpus = cpu_count(from.number::<4>()?)?;
    into.cpus = Some(cpus);
    let mut clock = Vec::new();
    let mut kind = from.take(10)?;
    if kind == b"options  \0" {
        loop {
            let id = from.number::<2>()?;
            if id == 0 {
                break;
            }
            let data = from.sized::<4>()?;
            match id {
                4 => clock = selected(&data),
                _ => option(id, &data, into),
            }
        }
        kind = from.take(10)?;
    }
    match &kind[..] {
        b"flyrecord\0" => {
            let parts = (0..cpus)
                .map(|cpu| Ok(Part { cpu, at: from.number::<8>()?, len: from.number::<8>()? }))
                .collect::<Result<_, Fault>>()?;
            into.buffers.push(Buffer { name: Vec::new(), clock, page, parts, packed: false });
        }
        b"latency  \0" => into.text = Some(from.take(from.bytes.length() - from.at)?),
        _ => return Err("has neither flyrecord nor latency data where they should be".into()),
    }
    Ok(())
}

/// A section: its number and its contents, unpacked.
fn section(bytes: &Bytes, at: u64, packing: Option<Packing>) -> Result<(u64, Vec<u8>), Fault> {
    let mut from = At { bytes, at };
    let (id, flags) = (from.number::<2>()?, from.number::<2>()?);
    from.take(4)?;
    let data = from.sized::<8>()?;
    Ok((id, if flags & 1 == 0 { data } else { unpack_section(&data, packing)? }))
}

fn seven(from: &mut At<'_>, page: usize, into: &mut Contents) -> Result<(), Fault> {
    let name = from.text(NAME)?;
    from.text(NAME)?;
    into.packing = Packing::named(&name)?;
    let mut next = from.number::<8>()?;
    let mut seen = 0;
    while next != 0 {
        let (id, data) = section(from.bytes, next, into.packing)?;
        if id != 0 {
            return Err(format!("has no options at {next}, where they should be"));
        }
        let mut data = &data[..];
        next = 0;
        while !data.is_empty() {
            let id = data.number::<2>()?;
            let option_data = data.sized::<4>()?;
            let mut fields = &option_data[..];
            seen += usize::from(matches!(id, 0 | 16..=22));
            if seen > MOST_SECTIONS {
                return Err(format!("has more than {MOST_SECTIONS} sections"));
            }
            match id {
                0 => {
                    next = fields.number::<8>()?;
                    break;
                }
                3 => into.buffers.push(buffer(from.bytes, fields, page, into.packing)?),
                22 => {
                    let (_, text) = section(from.bytes, fields.number::<8>()?, into.packing)?;
                    into.text = Some(text);
                }
                16..=21 => {
                    let (_, text) = section(from.bytes, fields.number::<8>()?, into.packing)?;
                    let mut text = &text[..];
                    match id {
                        16 => header_info(&mut text, into)?,
                        17 => formats(&mut text, into)?,
                        18 => systems(&mut text, into)?,
                        19 => into.symbols = text.sized::<4>()?,
                        20 => into.printk = text.sized::<4>()?,
                        _ => into.comms = text.sized::<8>()?,
                    }
                }
                _ => option(id, &option_data, into),
            }
        }
    }
    Ok(())
}

/// Options that both formats have.
fn option(id: u64, data: &[u8], into: &mut Contents) {
    let mut fields = data;
    match id {
        2 => into.stats.push(data.to_vec()),
        8 => into.cpus = fields.number::<4>().ok().and_then(|n| cpu_count(n).ok()).or(into.cpus),
        14 => {
            if let (Ok(mult), Ok(shift), Ok(offset)) =
                (fields.number::<4>(), fields.number::<4>(), fields.number::<8>())
            {
                into.tsc = Some((mult, shift as u32, offset));
            }
        }
        _ => {}
    }
}

fn buffer(bytes: &Bytes, mut fields: &[u8], page: usize, packing: Option<Packing>) -> Result<Buffer, Fault> {
    let from = &mut fields;
    let head = from.number::<8>()?;
    let name = from.text(NAME)?;
    let clock = from.text(NAME)?;
    let own = from.number::<4>()? as usize;
    let parts = (0..cpu_count(from.number::<4>()?)?)
        .map(|_| {
            let cpu = from.number::<4>()?;
            if cpu >= MOST_CPUS {
                return Err(format!("CPU number {cpu} is beyond {}", MOST_CPUS - 1));
            }
            Ok(Part { cpu: cpu as u32, at: from.number::<8>()?, len: from.number::<8>()? })
        })
        .collect::<Result<_, Fault>>()?;
    let packed = At { bytes, at: head.saturating_add(2) }.number::<2>()? & 1 != 0;
    if packed && packing.is_none() {
        return Err("is packed, and does not say how".into());
    }
    Ok(Buffer { name, clock, page: if own == 0 { page } else { own }, parts, packed })
}

fn cpu_count(n: u64) -> Result<u32, Fault> {
    if n == 0 || n > MOST_CPUS { Err(format!("claims {n} CPUs")) } else { Ok(n as u32) }
}

/// The clock in brackets of `local [global] counter`.
fn selected(clocks: &[u8]) -> Vec<u8> {
    let open = memchr::memchr(b'[', clocks).map_or(0, |at| at + 1);
    let end = memchr::memchr(b']', &clocks[open..]).map_or(clocks.len(), |at| open + at);
    clocks[open..end].iter().copied().filter(|b| *b != 0).collect()
}
