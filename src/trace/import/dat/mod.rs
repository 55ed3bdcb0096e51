//! trace-cmd's `trace.dat`, formats 6 and 7, read without trace-cmd.
//!
//! The recording becomes the text that the kernel itself would have printed, so all that reads text reads it: line
//! numbers, merging, every importer of events. Reading order: `file` (the container), `chunk` (packed data),
//! `ring` (pages of the ring buffer), `format` (where fields stand), `expr` and `render` (how the kernel prints
//! them), `text` (one line per event). Whatever the bytes are, reading ends with text or with an error.

pub mod buffer;
pub mod bytes;
mod chunk;
mod expr;
mod file;
mod format;
mod render;
mod ring;
mod symbols;
mod text;

use std::{collections::BinaryHeap, io::Read, sync::Arc};

use rustc_hash::FxHashMap;

use bytes::{Bytes, Fault};
use chunk::Pages;
use file::{Buffer, Contents};
use format::Format;
use ring::{Common, Layout, Ring};
use symbols::Symbols;
use text::{Clock, Printing, Text};

/// How a `trace.dat` begins.
pub const MAGIC: &[u8] = b"\x17\x08\x44tracing";
const MOST_FORMATS: usize = 1 << 16;

/// Opens a `trace.dat` as text.
pub fn open(bytes: Bytes) -> Result<Box<dyn Read + Send>, Fault> {
    let contents = file::read(&bytes)?;
    if let Some(text) = contents.text {
        return Ok(Box::new(std::io::Cursor::new(text)));
    }
    let buffer = buffer(&contents.buffers)?.clone();
    let layout = Layout::of(&contents.header_page)?;
    if !(64..=1 << 24).contains(&buffer.page) {
        return Err(format!("claims ring-buffer pages of {} bytes", buffer.page));
    }
    let clock = clock(&contents, &buffer)?;
    let mut printers = Vec::new();
    let (mut common, mut stack) = (None, None);
    if contents.formats.len() > MOST_FORMATS {
        return Err(format!("claims {} event formats", contents.formats.len()));
    }
    // Of the thousands that a kernel has few occur: the others are not looked into.
    for text in contents.formats {
        let id = Format::number(&text)?;
        let of_stack = memchr::memmem::find(&text, b"name: kernel_stack\n").is_some();
        if common.is_none() || of_stack {
            let format = Format::parse(&text, contents.long)?;
            if common.is_none() {
                common = Some(Common::of(&format)?);
            }
            if format.name == b"kernel_stack" {
                let field = format.find(b"caller").ok_or("kernel_stack has no frames")?;
                stack = Some((id, format.fields[field].at, contents.long));
            }
        }
        let id = usize::from(id);
        if printers.len() <= id {
            printers.resize_with(id + 1, || Printing::Unknown);
        }
        printers[id] = Printing::Format(text);
    }
    let bytes = Arc::new(bytes);
    let held = Arc::default();
    let rings: Vec<Ring> = buffer
        .parts
        .iter()
        .map(|part| Ring::new(part.cpu, Pages::new(&bytes, &buffer, part, contents.packing, &held), layout))
        .collect();
    let cpus = contents.cpus.unwrap_or(rings.len() as u32);
    let out = format!("# tracer: nop\n#\n# trace.dat   #P:{cpus}\n");
    Ok(Box::new(Text {
        printers,
        long: contents.long,
        common: common.ok_or("holds no event formats")?,
        stack,
        symbols: Symbols::new(contents.symbols),
        comms: comms(&contents.comms),
        clock,
        rings,
        out: out.into_bytes(),
        read: 0,
        next: BinaryHeap::new(),
        fault: None,
        begun: false,
        lost: Some(overrun(&contents.stats)),
    }))
}

/// The ring buffers to read: those that everybody has, or the only instance that holds anything.
fn buffer(buffers: &[Buffer]) -> Result<&Buffer, Fault> {
    let full: Vec<&Buffer> = buffers.iter().filter(|b| b.parts.iter().any(|part| part.len > 0)).collect();
    match full[..] {
        [] => buffers.first().ok_or("holds no ring buffer".into()),
        [one] => Ok(one),
        _ => full.iter().find(|b| b.name.is_empty()).copied().ok_or_else(|| {
            let names: Vec<_> = full.iter().map(|b| String::from_utf8_lossy(&b.name)).collect();
            format!(
                "holds {} instances ({}); `trace-cmd split` or `trace-cmd report -B NAME` takes one out",
                names.len(),
                names.join(", ")
            )
        }),
    }
}

fn clock(contents: &Contents, buffer: &Buffer) -> Result<Clock, Fault> {
    match (&buffer.clock[..], contents.tsc) {
        (b"" | b"local" | b"global" | b"mono" | b"mono_raw" | b"boot" | b"tai" | b"perf", _) => {
            Ok(Clock::Nanoseconds)
        }
        (b"x86-tsc" | b"tsc2nsec", Some((mult, shift, offset))) => Ok(Clock::Tsc(mult, shift, offset)),
        (other, _) => Err(format!(
            "its clock {:?} counts no time: record with `trace-cmd record -C mono`",
            String::from_utf8_lossy(other)
        )),
    }
}

/// `PID COMM` lines.
fn comms(text: &[u8]) -> FxHashMap<u32, Box<[u8]>> {
    let mut out = FxHashMap::default();
    for line in text.split(|b| *b == b'\n') {
        let Some(space) = memchr::memchr(b' ', line) else { continue };
        let pid = std::str::from_utf8(&line[..space]).ok().and_then(|pid| pid.parse::<u32>().ok());
        let comm = text::clean(&line[space + 1..]);
        if let Some(pid) = pid {
            out.insert(pid, comm);
        }
    }
    out
}

/// Events that the rings lost, by the kernel's own statistics.
fn overrun(stats: &[Vec<u8>]) -> u64 {
    let number = |text: &Vec<u8>| {
        let mut at = memchr::memmem::find(text, b"\noverrun:")? + 9;
        super::scan::spaces(text, &mut at);
        super::scan::decimal(text, &mut at)
    };
    stats.iter().filter_map(number).fold(0, u64::saturating_add)
}
