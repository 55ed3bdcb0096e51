//! Lines of a recording handed to their importer, in order, and what they say to the statistics and the sink.

use super::{
    Event, Format, Hole, HoleKind, LONGEST_LINE, Lexed, NOTES_KEPT, ReadStats, Sink, What, chunks::Chunk,
    ftrace, perf,
};

/// What the lines of a recording act upon, one line after the other.
pub(super) struct Lines<'r, S: Sink> {
    pub format: &'r mut Format,
    pub stats: &'r mut ReadStats,
    pub sink: &'r mut S,
}

impl<S: Sink> Lines<'_, S> {
    /// The lines of a chunk; the last chunk ends the recording.
    pub(super) fn chunk(&mut self, chunk: &Chunk, last: bool) {
        let text = chunk.lines();
        let mut at = 0;
        while let Some(len) = memchr::memchr(b'\n', &text[at..]) {
            self.line(&text[at..at + len]);
            at += len + 1;
        }
        if last {
            self.end(chunk);
        }
    }

    /// The end of the recording.
    pub(super) fn end(&mut self, chunk: &Chunk) {
        if let Some(text) = chunk.last_line() {
            self.last_line(text);
        }
        self.format.finish(&mut Delivery { stats: self.stats, sink: self.sink });
    }

    #[inline]
    fn line(&mut self, text: &[u8]) {
        match plain_end(text) {
            Some(text) => {
                self.stats.lines += 1;
                let number = self.stats.lines;
                let mut to = Delivery { stats: self.stats, sink: self.sink };
                if let Err((column, why)) = self.format.line(text, number, &mut to) {
                    self.stats.broken(number, column, why, text);
                }
            }
            None => self.too_long(text),
        }
    }

    /// Lines that were lexed before, by whatever thread. As [`Self::line`] of each: both are `lex`, and then `apply`.
    pub(super) fn lexed(&mut self, lines: &mut [Lexed<'_>], kind: Kind) {
        for lexed in lines.iter_mut() {
            let text = match *lexed {
                Lexed::Plain(text) if text.len() > LONGEST_LINE => {
                    self.too_long(text);
                    continue;
                }
                Lexed::Plain(text) | Lexed::Frame { text, .. } => text,
                Lexed::Event(_) | Lexed::Stack(_) => &[], // no fault
            };
            self.stats.lines += 1;
            let number = self.stats.lines;
            let mut to = Delivery { stats: self.stats, sink: self.sink };
            let outcome = match (kind, &mut *self.format) {
                (Kind::Ftrace, Format::Ftrace(ftrace)) => ftrace.apply(lexed, number, &mut to),
                (Kind::Perf, Format::Perf(perf)) => perf.apply(lexed, number, &mut to),
                _ => unreachable!("the format of a recording does not change once it is known"),
            };
            if let Err((column, why)) = outcome {
                self.stats.broken(number, column, why, text);
            }
        }
    }

    fn too_long(&mut self, text: &[u8]) {
        self.stats.lines += 1;
        self.stats.broken(self.stats.lines, LONGEST_LINE, "line is longer than 64 KiB", text);
    }

    /// A recording that was cut ends in mid-line: whatever of it is not a whole event is a hole, not an error.
    fn last_line(&mut self, text: &[u8]) {
        if text.len() > LONGEST_LINE {
            return self.too_long(text);
        }
        self.stats.lines += 1;
        let number = self.stats.lines;
        let mut known = OnlyKnown { to: Delivery { stats: self.stats, sink: self.sink }, cut: false };
        let fault = self.format.line(text, number, &mut known).err();
        let cut = fault.is_some() || known.cut;
        if let Some((column, why)) = fault.filter(|_| self.stats.events == 0) {
            self.stats.broken(number, column, why, text); // no recording that was cut: there is none
        } else if cut {
            let hole = Hole { kind: HoleKind::Cut, cpu: None, events: None, line: number };
            Delivery { stats: self.stats, sink: self.sink }.hole(&hole);
        }
    }
}

/// A line without its carriage return, if it is not too long.
#[inline]
fn plain_end(text: &[u8]) -> Option<&[u8]> {
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    (text.len() <= LONGEST_LINE).then_some(text)
}

/// Formats whose lines are lexed side by side.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ftrace,
    Perf,
}

impl Kind {
    /// What to do with the lines of this recording; `None` while that is not known, and for tools' tables.
    pub(super) fn of(format: &Format) -> Option<Self> {
        match format {
            Format::Ftrace(_) => Some(Self::Ftrace),
            Format::Perf(_) => Some(Self::Perf),
            Format::Unknown(..) | Format::Graph(_) | Format::Lttng(_) | Format::Sums(_) => None,
        }
    }

    /// What each line of a chunk says by itself.
    pub(super) fn lex<'a>(self, text: &'a [u8], into: &mut Vec<Lexed<'a>>) {
        match self {
            Self::Ftrace => lex(text, ftrace::lex, into),
            Self::Perf => lex(text, perf::lex, into),
        }
    }
}

#[inline]
fn lex<'a>(text: &'a [u8], one: impl Fn(&'a [u8]) -> Lexed<'a>, into: &mut Vec<Lexed<'a>>) {
    let mut at = 0;
    while let Some(len) = memchr::memchr(b'\n', &text[at..]) {
        let line = &text[at..at + len];
        into.push(plain_end(line).map_or(Lexed::Plain(line), &one));
        at += len + 1;
    }
}

struct Delivery<'s, S: Sink> {
    stats: &'s mut ReadStats,
    sink: &'s mut S,
}

impl<S: Sink> Sink for Delivery<'_, S> {
    #[inline]
    fn event(&mut self, event: &Event<'_>) {
        self.stats.event(event);
        self.sink.event(event);
    }

    fn hole(&mut self, hole: &Hole) {
        self.stats.hole(hole);
        self.sink.hole(hole);
    }

    fn note(&mut self, key: &[u8], value: &[u8]) {
        if self.stats.notes.len() < NOTES_KEPT {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            self.stats.notes.push((text(key), text(value)));
        }
        self.sink.note(key, value);
    }

    fn piece(&mut self) {
        self.sink.piece();
    }
}

/// For a line without its newline: half an event name would be an unknown event.
struct OnlyKnown<'s, S: Sink> {
    to: Delivery<'s, S>,
    cut: bool,
}

impl<S: Sink> Sink for OnlyKnown<'_, S> {
    fn event(&mut self, event: &Event<'_>) {
        if matches!(event.what, What::Other { .. }) {
            self.cut = true;
        } else {
            self.to.event(event);
        }
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
