//! Text of a recording, cut into lines and handed to the importer of its format; one file per format.
//!
//! A line that is not understood is counted, the first few are kept with file, line, column and text, and reading goes
//! on. Memory is a buffer per thread, however long the recording.

mod body;
mod chunks;
pub mod dat;
pub mod ftrace;
pub mod graph;
mod head;
mod lines;
pub mod lttng;
pub mod other;
mod parallel;
pub mod perf;
pub mod scan;
pub mod sums;

use std::io::{self, Read};

use chunks::{Chunk, Chunks};
use lines::Lines;
use rustc_hash::FxHashMap;

use super::{
    TraceError,
    event::{Event, Hole, HoleKind, What},
    source,
};

/// Read at once; the same on every thread.
const CHUNK: usize = 1 << 17;
const LONGEST_LINE: usize = 1 << 16;
const BROKEN_KEPT: usize = 20;
const HOLES_KEPT: usize = 1000;
const NAMES_KEPT: usize = 4096;
const NOTES_KEPT: usize = 10_000;
const HOPELESS_AFTER: u64 = 20_000;
const LOOKED_AT: u64 = 100;

/// Who receives the events of a recording, in the order of the file.
pub trait Sink {
    /// One event.
    fn event(&mut self, event: &Event<'_>);
    /// Something is missing at this place.
    fn hole(&mut self, hole: &Hole);
    /// `# tlbcore key | value`: what `tlbcore record` wrote about the machine.
    fn note(&mut self, _key: &[u8], _value: &[u8]) {}
    /// Another recording begins in the same text.
    fn piece(&mut self) {}
}

/// What a line says by itself, whatever stood in front of it: what threads find out side by side.
enum Lexed<'a> {
    /// An event, without its number.
    Event(Event<'a>),
    /// The head of a call chain.
    Stack(head::Head<'a>),
    /// A frame of one, if one is open.
    Frame {
        /// The line.
        text: &'a [u8],
        /// Its function.
        name: &'a [u8],
    },
    /// Any other line.
    Plain(&'a [u8]),
}

/// A line that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct BrokenLine {
    /// Line, from 1.
    pub line: u64,
    /// Column in bytes, from 1.
    pub column: usize,
    /// What was expected there.
    pub why: &'static str,
    /// The line, at most 200 bytes of it, bad UTF-8 replaced.
    pub text: String,
}

/// What reading met, apart from events.
#[derive(Clone, Debug, Default)]
pub struct ReadStats {
    /// Lines read.
    pub lines: u64,
    /// Bytes of text read.
    pub bytes: u64,
    /// Events delivered.
    pub events: u64,
    /// Events by name, for those nobody interprets.
    pub unknown: FxHashMap<Box<[u8]>, u64>,
    /// Lines that could not be read.
    pub broken: u64,
    /// The first of them.
    pub broken_first: Vec<BrokenLine>,
    /// Where events are missing; the first thousand places.
    pub holes: Vec<Hole>,
    /// How many such places.
    pub hole_count: u64,
    /// Notes of the recorder, in order.
    pub notes: Vec<(String, String)>,
    /// What the text looks like if it is not for this program, where first, and on how many lines.
    refused: Option<(&'static other::Refusal, u64, u64)>,
}

impl ReadStats {
    fn broken(&mut self, line: u64, column: usize, why: &'static str, text: &[u8]) {
        if why == ftrace::KERNEL_LINE {
            // The dump of the ring stands in the middle of a kernel log: its other lines are no fault.
            return self.refuse(other::recognise(text).unwrap_or(&other::KERNEL_LOG), line);
        }
        self.broken += 1;
        match why {
            head::NO_CLOCK => self.refuse(&other::CLOCK, line),
            body::RAW => self.refuse(&other::RAW, line),
            sums::NOISE_HISTOGRAM => self.refuse(&other::NOISE_HISTOGRAM, line),
            _ if self.events == 0 && self.broken <= LOOKED_AT => {
                if let Some(refusal) = other::recognise(text) {
                    self.refuse(refusal, line);
                }
            }
            _ => {}
        }
        if self.broken_first.len() < BROKEN_KEPT {
            let text = String::from_utf8_lossy(&text[..text.len().min(200)]).into_owned();
            self.broken_first.push(BrokenLine { line, column: column + 1, why, text });
        }
    }

    fn refuse(&mut self, refusal: &'static other::Refusal, line: u64) {
        match &mut self.refused {
            Some((first, _, count)) => *count += u64::from(*first == refusal),
            None => self.refused = Some((refusal, line, 1)),
        }
    }

    fn hole(&mut self, hole: &Hole) {
        self.hole_count += 1;
        if self.holes.len() < HOLES_KEPT {
            self.holes.push(hole.clone());
        }
    }

    fn event(&mut self, event: &Event<'_>) {
        self.events += 1;
        if let What::Other { name } = event.what {
            if let Some(count) = self.unknown.get_mut(name) {
                *count += 1;
            } else if self.unknown.len() < NAMES_KEPT {
                self.unknown.insert(name.into(), 1);
            }
        }
    }
}

/// The importers. A text is what its first event is.
enum Format {
    Unknown(ftrace::Ftrace, perf::Perf),
    Ftrace(ftrace::Ftrace),
    Perf(perf::Perf),
    Graph(graph::Graph),
    Lttng(lttng::Lttng),
    Sums(sums::Sums),
}

impl Format {
    #[inline]
    fn line(&mut self, text: &[u8], number: u64, to: &mut impl Sink) -> Result<(), ftrace::Fault> {
        match self {
            Self::Ftrace(importer) => importer.line(text, number, to),
            Self::Perf(importer) => importer.line(text, number, to),
            Self::Graph(importer) => importer.line(text, number, to),
            Self::Lttng(importer) => importer.line(text, number, to),
            Self::Sums(importer) => importer.line(text, number),
            Self::Unknown(ftrace, perf) => {
                if text.starts_with(b"# RTLA")
                    && let Some(mut importer) = sums::Sums::recognise(text)
                {
                    let outcome = importer.line(text, number);
                    *self = Self::Sums(importer);
                    return outcome;
                }
                if lttng::Lttng::recognises(text) {
                    let mut importer = lttng::Lttng::default();
                    let outcome = importer.line(text, number, to);
                    *self = Self::Lttng(importer);
                    return outcome;
                }
                let mut first = First { to, event: false };
                let fault = ftrace.line(text, number, &mut first).err();
                if first.event {
                    *self = Self::Ftrace(std::mem::take(ftrace));
                    return Ok(());
                }
                if fault.is_some() && perf.line(text, number, &mut first).is_ok() && first.event {
                    *self = Self::Perf(std::mem::take(perf));
                    return Ok(());
                }
                if fault.is_some() && graph::Graph::recognises(text) {
                    let mut importer = graph::Graph::default();
                    let outcome = importer.line(text, number, to);
                    *self = Self::Graph(importer);
                    return outcome;
                }
                if fault.is_some()
                    && let Some(mut importer) = sums::Sums::recognise(text)
                {
                    let outcome = importer.line(text, number);
                    *self = Self::Sums(importer);
                    return outcome;
                }
                fault.map_or(Ok(()), Err)
            }
        }
    }

    /// Why the whole of it is not for this program, if only the whole shows that.
    fn refused(&self) -> Option<&'static other::Refusal> {
        match self {
            Self::Perf(perf) if perf.is_deltas() => Some(&other::DELTA),
            Self::Sums(sums) => sums.refused(),
            Self::Perf(_) | Self::Unknown(..) | Self::Ftrace(_) | Self::Graph(_) | Self::Lttng(_) => None,
        }
    }

    fn finish(&mut self, to: &mut impl Sink) {
        match self {
            Self::Unknown(ftrace, _) | Self::Ftrace(ftrace) => ftrace.finish(to),
            Self::Perf(perf) => perf.finish(to),
            Self::Sums(sums) => sums.finish(to),
            Self::Graph(_) | Self::Lttng(_) => {}
        }
    }
}

/// Notices the first event.
struct First<'s, S: Sink> {
    to: &'s mut S,
    event: bool,
}

impl<S: Sink> Sink for First<'_, S> {
    fn event(&mut self, event: &Event<'_>) {
        self.event = true;
        self.to.event(event);
    }

    fn hole(&mut self, hole: &Hole) {
        self.to.hole(hole);
    }

    fn note(&mut self, key: &[u8], value: &[u8]) {
        self.to.note(key, value);
    }

    fn piece(&mut self) {
        self.to.piece();
    }
}

/// A recording being read.
pub struct Reader {
    path: String,
    chunks: Chunks,
    chunk: Chunk,
    size: usize,
    format: Format,
    /// What was met so far.
    pub stats: ReadStats,
}

impl Reader {
    /// Opens a recording; `-` is standard input.
    pub fn open(path: &str) -> Result<Self, TraceError> {
        Ok(Self::new(path, source::open(path)?))
    }

    /// Opens several recordings of one machine, such as per-CPU files, as one.
    pub fn open_merged(paths: &[String]) -> Result<Self, TraceError> {
        Ok(Self::new(&paths.join(" + "), source::merge(paths, ftrace::stamp)?))
    }

    /// Reads from any source; `path` is only for messages.
    pub fn new(path: &str, source: Box<dyn Read + Send>) -> Self {
        Self {
            path: path.to_owned(),
            chunks: Chunks::new(source),
            chunk: Chunk::default(),
            size: CHUNK,
            format: Format::Unknown(ftrace::Ftrace::default(), perf::Perf::default()),
            stats: ReadStats::default(),
        }
    }

    /// Reads this many bytes at once; what is read does not depend on it.
    #[must_use]
    pub fn at_once(mut self, bytes: usize) -> Self {
        self.size = bytes.max(1);
        self
    }

    /// CPUs of the machine, if the recording says.
    pub fn machine_cpus(&self) -> Option<u32> {
        match &self.format {
            Format::Unknown(ftrace, _) | Format::Ftrace(ftrace) => ftrace.cpus,
            Format::Perf(_) | Format::Graph(_) | Format::Lttng(_) | Format::Sums(_) => None,
        }
    }

    /// Reads to the end.
    pub fn run(&mut self, sink: &mut impl Sink) -> Result<(), TraceError> {
        while self.pump(sink)? {}
        Ok(())
    }

    /// Reads one chunk; false at the end. After an error what came before it has been delivered.
    pub fn pump(&mut self, sink: &mut impl Sink) -> Result<bool, TraceError> {
        if self.chunks.done {
            return Ok(false);
        }
        let begins = self.chunks.bytes == 0;
        // What the file is shows in its first bytes, however few are read at once.
        let size = if begins { self.size.max(chunks::LOOKED_AT) } else { self.size };
        let error = self.chunks.fill(&mut self.chunk, size);
        if begins && self.chunk.is_binary() {
            self.chunks.done = true;
            return Err(TraceError::Binary {
                path: self.path.clone(),
                what: "holds binary data, not trace text".into(),
            });
        }
        self.stats.bytes = self.chunks.bytes;
        let mut lines = Lines { format: &mut self.format, stats: &mut self.stats, sink };
        lines.chunk(&self.chunk, self.chunks.done);
        self.ended(error)
    }

    /// After a chunk: is there more, and if not, was it a recording?
    fn ended(&mut self, error: Option<io::Error>) -> Result<bool, TraceError> {
        let done = self.chunks.done;
        if let Some(e) = error {
            let mut reason = e.to_string();
            if !reason.starts_with("trace.dat ") {
                reason = format!("compressed data ends early or is damaged: {reason}");
            }
            return Err(TraceError::Damaged { path: self.path.clone(), reason, lines: self.stats.lines });
        }
        if done && let Some(refusal) = self.format.refused() {
            self.stats.refused = Some((refusal, 1, u64::MAX));
        }
        // One damaged line may look like anything; a text is refused for what one line in a thousand says.
        if let Some((refusal, line, count)) = self.stats.refused
            && done
            && (self.stats.events == 0 || refusal.of_events && count > 2 && count > self.stats.events / 1000)
        {
            return Err(TraceError::Unsupported {
                path: self.path.clone(),
                line,
                looks: refusal.looks,
                instead: refusal.instead,
            });
        }
        let nothing = self.stats.broken > 0 || self.stats.hole_count > 0;
        let hopeless = self.stats.lines > HOPELESS_AFTER && matches!(self.format, Format::Unknown(..));
        if self.stats.events == 0 && (done || hopeless) && nothing {
            self.chunks.done = true;
            let first = self.stats.broken_first.first().map(|b| b.text.chars().take(60).collect());
            return Err(TraceError::NoTrace {
                path: self.path.clone(),
                lines: self.stats.lines,
                first: first.unwrap_or_default(),
            });
        }
        Ok(!done)
    }
}
