//! The stretch of time that is counted: of the whole recording, and of each CPU.
//!
//! A recording may hold several pieces: the snapshots of a flight recorder, two boots, files put one behind the other. A
//! CPU's own window is the time of the pieces that have events of it; where rings were overwritten, it begins with the
//! first event that is left of that CPU.

use super::{
    Analysis, RangeCalls,
    cpu::{self, Cpu},
};

/// A step back this far is another recording, not clocks of CPUs that disagree.
const ANOTHER_NS: u64 = 1_000_000_000;
const MAX_PIECES: usize = 1 << 16;

/// One piece.
#[derive(Clone, Copy, Debug, Default)]
struct Piece {
    first_ns: Option<u64>,
    last_ns: u64,
    /// Of the time between, what was not recorded or not asked for.
    gaps: u64, // nanoseconds
}

impl Piece {
    fn length_ns(&self) -> u64 {
        let first = self.first_ns.unwrap_or(self.last_ns);
        self.last_ns.saturating_sub(first).saturating_sub(self.gaps)
    }
}

/// See above.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// Events are counted now.
    pub open: bool,
    between: Option<(Vec<u8>, Vec<u8>)>,
    begun: bool,
    /// First marker and last, as written.
    pub markers: Option<(String, String)>,
    done: Vec<Piece>,
    now: Piece,
    /// Recording or counting stopped here.
    paused_at: Option<u64>,
    /// Times that stepped back so far that another recording began.
    pub boots: u64,
    /// Headers of further recordings in the text.
    pub files: u64,
    /// Such a header was just read: a step back right behind it is the same beginning.
    pub header: bool,
    /// Rings were overwritten, so each CPU has its own beginning.
    pub overwritten: bool,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            open: true,
            between: None,
            begun: false,
            markers: None,
            done: Vec::new(),
            now: Piece::default(),
            paused_at: None,
            boots: 0,
            files: 0,
            header: false,
            overwritten: false,
        }
    }
}

impl Window {
    pub(super) fn between(begin: &str, end: &str) -> Self {
        let between = Some((begin.as_bytes().to_vec(), end.as_bytes().to_vec()));
        // Without a first text counting begins with the recording.
        let begun = begin.is_empty();
        let markers = begun.then(|| ("beginning of the recording".into(), "end of the recording".into()));
        Self { open: begun, begun, between, markers, ..Self::default() }
    }

    /// Was the first marker seen, or none asked for?
    pub(super) fn found(&self) -> bool {
        self.between.is_none() || self.begun
    }

    /// What comes next is not joined to what came before; false if nothing came.
    pub(super) fn pause(&mut self) -> bool {
        if self.now.first_ns.is_none() {
            return false;
        }
        self.paused_at.get_or_insert(self.now.last_ns);
        true
    }

    /// Number of the recording that is being read.
    pub(super) fn recording(&self) -> u64 {
        self.boots + self.files
    }

    /// Number of the piece that is being read.
    pub(super) fn number(&self) -> u32 {
        self.done.len() as u32
    }

    fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.done.iter().chain([&self.now])
    }
}

impl Analysis {
    /// An event that is counted: time passes.
    #[inline]
    pub(super) fn passes(&mut self, at_ns: u64, from_ns: u64) {
        let stepped_back = at_ns < self.last_ns;
        let another = stepped_back && self.last_ns - at_ns >= ANOTHER_NS;
        self.backwards += u64::from(stepped_back && !another);
        if another {
            self.forget(None);
            let window = &mut self.window;
            window.boots += u64::from(!window.header);
            window.paused_at = None;
            if window.done.len() < MAX_PIECES {
                window.done.push(window.now);
                window.now = Piece::default();
            }
            self.last_ns = 0;
        }
        self.window.header = false;
        let now = &mut self.window.now;
        if let Some(paused) = self.window.paused_at.take() {
            now.gaps += at_ns.saturating_sub(paused);
        }
        match now.first_ns {
            Some(first) if first <= from_ns => {}
            _ => now.first_ns = Some(from_ns),
        }
        now.last_ns = now.last_ns.max(at_ns);
        self.last_ns = self.last_ns.max(at_ns);
    }

    /// A text in `trace_marker`; true if it opens or closes what is counted.
    pub(super) fn marker(&mut self, text: &[u8], at_ns: u64) -> bool {
        let Some((begin, end)) = &self.window.between else { return false };
        let text = text.trim_ascii();
        let label = || String::from_utf8_lossy(text).into_owned();
        if !self.window.open && !begin.is_empty() && text.starts_with(begin) {
            if !self.window.begun {
                self.restart();
                self.window.begun = true;
                self.window.markers = Some((label(), "end of the recording".into()));
            }
            self.window.open = true;
            self.passes(at_ns, at_ns);
            true
        } else if self.window.open && !end.is_empty() && text.starts_with(end) {
            self.passes(at_ns, at_ns);
            self.window.pause();
            self.window.open = false;
            if let Some((_, last)) = &mut self.window.markers {
                *last = label();
            }
            true
        } else {
            false
        }
    }

    /// Counting starts here: context is kept, figures are not.
    fn restart(&mut self) {
        for cpu in &mut self.cpus {
            cpu.figures = cpu::Figures::default();
            cpu.sent.iter_mut().for_each(|s| s.counted = false);
            cpu.irqs.iter_mut().for_each(|i| i.counted = false);
            cpu.pending_timer = None;
            cpu.away = None;
        }
        self.displaced = 0;
        self.rows.iter_mut().for_each(|r| r.counted = false);
        self.lazy.restart();
        self.log.restart();
        self.range_calls = RangeCalls::default();
        self.flush_all_calls = 0;
        self.probe_counts.clear();
        self.purge_probes = 0;
        self.forks = 0;
        self.events = 0;
        self.rows_dropped = 0;
    }

    /// When counting began and ended, in nanoseconds of the trace clock.
    pub fn span_ns(&self) -> (u64, u64) {
        let first = self.window.pieces().find_map(|piece| piece.first_ns).unwrap_or(0);
        let last = self.window.now.last_ns;
        (first, last.max(first))
    }

    /// Seconds that were recorded; 0 for a clock that has none.
    pub(super) fn seconds(&self) -> f64 {
        if self.no_clock { 0.0 } else { self.window.pieces().map(Piece::length_ns).sum::<u64>() as f64 / 1e9 }
    }

    /// Those of one CPU, and when they began and ended.
    pub(super) fn seconds_of(&self, cpu: &Cpu) -> (f64, u64, u64) {
        let (first, last) = self.span_ns();
        let figures = &cpu.figures;
        // Of a row of osnoise only the time counts in which it measured.
        if let Some(sums) = &figures.sums {
            return (sums.runtime_ns as f64 / 1e9, figures.first_ns.unwrap_or(first), last);
        }
        let Some(own) = figures.first_ns.filter(|_| !self.no_clock) else {
            return (self.seconds(), first, last);
        };
        if self.window.done.is_empty() {
            let begin = if self.window.overwritten { own } else { first };
            let ns = last.saturating_sub(begin).saturating_sub(self.window.now.gaps);
            return (ns as f64 / 1e9, begin, last);
        }
        let mine = figures.pieces.iter().filter_map(|&piece| self.window.pieces().nth(piece as usize));
        (mine.map(Piece::length_ns).sum::<u64>() as f64 / 1e9, own, last)
    }
}
