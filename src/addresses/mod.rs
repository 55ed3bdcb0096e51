//! Address traces of other tools: each access's address, kind and CPU, in pieces of bounded size.
//!
//! [`Reader::open`] tells the format by content: the binary ones are in [`binary`], the ones of lines in [`text`]. A
//! format is one variant of [`Format`], its sample in `Format::of` and its record's parser. What a record does not
//! hold is never made up: a format without CPUs has everything on CPU 0, one without fetches yields none.

pub mod binary;
pub mod text;

use std::io::Read;

use crate::trace::{TraceError, source};

/// Bytes that are read at once; no record is longer.
const BLOCK: usize = 1 << 20;
/// Accesses that one record holds at most.
const MOST: usize = 8;
/// Bytes of a line at most.
const LINE: usize = 1 << 16;

/// Why a trace cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// It cannot be opened or unpacked.
    #[error(transparent)]
    Source(#[from] TraceError),
    /// No format is like this.
    #[error("{path}: is no address trace of a known format ({formats}): begins with {head}")]
    Unknown {
        /// File as given.
        path: String,
        /// The formats there are.
        formats: String,
        /// Its first bytes.
        head: String,
    },
    /// A format that is known and not read.
    #[error("{path}: {what}")]
    Unsupported {
        /// File as given.
        path: String,
        /// What it looks like, and what to do.
        what: String,
    },
    /// A line breaks a rule of its format.
    #[error("{path}:{line}: {rule}: got {shown:?}")]
    Line {
        /// File as given.
        path: String,
        /// Number of the line, from 1.
        line: u64,
        /// The rule.
        rule: String,
        /// The line, shortened.
        shown: String,
    },
    /// Bytes break a rule of their format.
    #[error("{path}: byte {offset} (unpacked): {rule}")]
    Byte {
        /// File as given.
        path: String,
        /// Where in the unpacked bytes the record begins.
        offset: u64,
        /// The rule.
        rule: String,
    },
}

/// A kind of address trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// ChampSim's `input_instr`: 64 bytes per instruction.
    ChampSim,
    /// DynamoRIO's offline traces: `trace_entry_t` of a 64-bit build, 12 bytes each.
    DrMemTrace,
    /// Valgrind's `--tool=lackey --trace-mem=yes`.
    Lackey,
    /// Pin's example tool pinatrace.
    PinATrace,
    /// gem5's packet traces, printed by its `decode_packet_trace.py`.
    Gem5Packets,
    /// gem5's text of `--debug-flags=MemoryAccess` or `Exec`.
    Gem5Text,
    /// Columns with a header, or one column of addresses.
    Csv,
}

impl Format {
    /// All of them, in the order in which content is held against them.
    pub const ALL: [Format; 7] = [
        Format::DrMemTrace,
        Format::Lackey,
        Format::PinATrace,
        Format::Gem5Packets,
        Format::Gem5Text,
        Format::Csv,
        Format::ChampSim,
    ];

    /// The name that users see.
    pub const fn name(self) -> &'static str {
        match self {
            Format::ChampSim => "champsim",
            Format::DrMemTrace => "drmemtrace",
            Format::Lackey => "lackey",
            Format::PinATrace => "pinatrace",
            Format::Gem5Packets => "gem5-packets",
            Format::Gem5Text => "gem5-text",
            Format::Csv => "csv",
        }
    }

    /// From its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// What content that begins like this is; `whole` if there is no more of it.
    fn of(head: &[u8], whole: bool) -> Option<Self> {
        let text = text::is_text(head);
        Self::ALL.into_iter().find(|format| match format {
            Format::DrMemTrace => binary::is_drmemtrace(head),
            Format::ChampSim => !text && binary::is_champsim(head),
            lines => text && text::begins(*lines, head, whole),
        })
    }
}

/// Accesses, as columns of one length.
#[derive(Debug, Default)]
pub struct Chunk {
    /// Byte addresses.
    pub addresses: Vec<u64>,
    /// Numbers of [`crate::hw::Kind`].
    pub kinds: Vec<u8>,
    /// CPUs.
    pub cpus: Vec<u16>,
}

impl Chunk {
    fn push(&mut self, address: u64, kind: crate::hw::Kind, cpu: u16) {
        self.addresses.push(address);
        self.kinds.push(kind as u8);
        self.cpus.push(cpu);
    }
}

/// A trace that is being read.
pub struct Reader {
    path: String,
    source: Box<dyn Read + Send>,
    format: Format,
    buffer: Vec<u8>,
    /// What of `buffer` is not parsed yet.
    left: std::ops::Range<usize>,
    ended: bool,
    /// Lines, or bytes, before `left`.
    at: u64,
    state: State,
    /// What stopped the last piece, to be said after it.
    fault: Option<AddressError>,
}

/// What a record depends on beside its own bytes.
#[derive(Debug, Default)]
pub struct State {
    columns: text::Columns,
    thread: binary::Thread,
}

impl Reader {
    /// Opens a trace, plain or packed (.gz, .xz, .zst, .zip), and tells its format, unless it is given.
    pub fn open(path: &str, format: Option<Format>) -> Result<Self, AddressError> {
        Self::new(path, source::unpack(path)?, format)
    }

    /// The same of bytes that come from anywhere; `path` is what errors name.
    pub fn new(
        path: &str,
        source: Box<dyn Read + Send>,
        format: Option<Format>,
    ) -> Result<Self, AddressError> {
        let mut reader = Reader {
            path: path.to_owned(),
            source,
            format: Format::Csv,
            buffer: vec![0; BLOCK],
            left: 0..0,
            ended: false,
            at: 0,
            state: State::default(),
            fault: None,
        };
        reader.refill();
        if let Some(fault) = reader.fault.take() {
            return Err(fault);
        }
        let head = &reader.buffer[reader.left.clone()];
        if head.starts_with(b"gem5") && !text::is_text(head) {
            let what = "is a binary packet trace of gem5; print it with gem5's util/decode_packet_trace.py";
            return Err(AddressError::Unsupported { path: path.to_owned(), what: what.to_owned() });
        }
        reader.format =
            format.or_else(|| Format::of(head, reader.ended)).ok_or_else(|| AddressError::Unknown {
                path: path.to_owned(),
                formats: Format::ALL.map(Format::name).join(", "),
                head: shown(&head[..head.len().min(40)]),
            })?;
        if reader.format == Format::Csv {
            let (columns, header) = text::Columns::of(head).map_err(|rule| AddressError::Line {
                path: path.to_owned(),
                line: 1,
                rule,
                shown: text::shorten(text::lines(head).next().unwrap_or_default()),
            })?;
            reader.state.columns = columns;
            reader.left.start += header;
            reader.at += u64::from(header > 0);
        }
        Ok(reader)
    }

    /// Its format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Appends up to `count` further accesses, about a block of the file at a time; `false` at the end. What came
    /// before a fault is handed out first.
    pub fn read(&mut self, chunk: &mut Chunk, count: usize) -> Result<bool, AddressError> {
        let before = chunk.addresses.len();
        let enough = before + count.saturating_sub(MOST);
        if self.fault.is_none() {
            let done = match self.format {
                Format::ChampSim | Format::DrMemTrace => self.read_records(chunk, enough),
                _ => self.read_lines(chunk, enough),
            };
            match done {
                Err(fault) => self.fault = Some(fault),
                Ok(()) if chunk.addresses.len() > enough => {}
                Ok(()) if !self.ended => self.refill(),
                Ok(()) if self.format == Format::DrMemTrace => {
                    self.fault = self.state.thread.end().err().map(|rule| self.at_byte(rule));
                    return Ok(self.fault.is_some() || chunk.addresses.len() > before);
                }
                Ok(()) => return Ok(chunk.addresses.len() > before),
            }
        }
        if chunk.addresses.len() > before {
            return Ok(true);
        }
        match self.fault.take() {
            None => Ok(true),
            Some(fault) => {
                (self.left, self.ended) = (0..0, true);
                Err(fault)
            }
        }
    }

    fn at_byte(&self, rule: String) -> AddressError {
        AddressError::Byte { path: self.path.clone(), offset: self.at, rule }
    }

    /// Moves what is left to the front and reads behind it.
    fn refill(&mut self) {
        self.buffer.copy_within(self.left.clone(), 0);
        self.left = 0..self.left.len();
        while !self.ended && self.left.end < BLOCK {
            match self.source.read(&mut self.buffer[self.left.end..]) {
                Ok(0) => self.ended = true,
                Ok(n) => self.left.end += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.ended = true;
                    let unit = if matches!(self.format, Format::ChampSim | Format::DrMemTrace) {
                        "byte"
                    } else {
                        "line"
                    };
                    self.fault = Some(AddressError::Unsupported {
                        path: self.path.clone(),
                        what: format!("the packed data is damaged after {unit} {}: {e}", self.at),
                    });
                }
            }
        }
    }

    fn read_records(&mut self, chunk: &mut Chunk, enough: usize) -> Result<(), AddressError> {
        let size = if self.format == Format::ChampSim { binary::CHAMPSIM } else { binary::ENTRY };
        while chunk.addresses.len() <= enough && self.left.len() >= size {
            let record = &self.buffer[self.left.start..self.left.start + size];
            let done = if self.format == Format::ChampSim {
                binary::champsim(record, chunk)
            } else {
                self.state.thread.entry(record, chunk)
            };
            done.map_err(|rule| self.at_byte(rule))?;
            self.left.start += size;
            self.at += size as u64;
        }
        if self.ended && !self.left.is_empty() && self.left.len() < size {
            let rule = format!("the trace ends inside a record: {} of {size} bytes", self.left.len());
            return Err(self.at_byte(rule));
        }
        Ok(())
    }

    fn read_lines(&mut self, chunk: &mut Chunk, enough: usize) -> Result<(), AddressError> {
        while chunk.addresses.len() <= enough && !self.left.is_empty() {
            let left = &self.buffer[self.left.clone()];
            let (line, taken) = match memchr::memchr(b'\n', left) {
                Some(end) => (&left[..end], end + 1),
                None if self.ended => (left, left.len()),
                None if left.len() < LINE => return Ok(()),
                None => (left, LINE + 1),
            };
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let done = if taken > LINE {
                Err(format!("a line must have at most {LINE} bytes"))
            } else {
                text::line(self.format, &self.state.columns, line, chunk)
            };
            done.map_err(|rule| AddressError::Line {
                path: self.path.clone(),
                line: self.at + 1,
                rule,
                shown: text::shorten(line),
            })?;
            self.left.start += taken;
            self.at += 1;
        }
        Ok(())
    }
}

/// Bytes for people: text where it is some.
fn shown(bytes: &[u8]) -> String {
    if text::is_text(bytes) && std::str::from_utf8(bytes).is_ok() {
        return format!("{:?}", text::shorten(bytes));
    }
    bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
