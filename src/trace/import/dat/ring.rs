//! Pages of the kernel's ring buffer: events with the time since the one before (kernel/trace/ring_buffer.c).

use super::{
    bytes::Fault,
    chunk::Pages,
    format::{Format, field_place},
};

const PADDING: u32 = 29;
const TIME_EXTEND: u32 = 30;
const TIME_STAMP: u32 = 31;
/// Bits of a time stamp that the buffer does not store in an absolute one.
const HIGH: u64 = 0xf8 << 56;
const MISSED: u64 = 1 << 31;
const MISSED_STORED: u64 = 1 << 30;

/// Where things stand in a page, by `events/header_page`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    commit: usize,
    commit_size: usize,
    data: usize,
}

impl Layout {
    /// Reads `header_page`.
    pub fn of(text: &[u8]) -> Result<Self, Fault> {
        let place = |name: &str| field_place(text, name).ok_or(format!("its header_page has no {name}"));
        let ((commit, commit_size), (data, _)) = (place("commit")?, place("data")?);
        if place("timestamp")? != (0, 8) || !matches!(commit_size, 4 | 8) || commit > 64 || data > 256 {
            return Err("its header_page describes a ring buffer that is not known".into());
        }
        Ok(Self { commit, commit_size, data })
    }
}

/// What a ring lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Nothing that it knows of.
    Nothing,
    /// So many events.
    Events(u64),
    /// Some: it does not say how many.
    Some,
}

/// One CPU's events, oldest first.
pub struct Ring {
    /// The CPU.
    pub cpu: u32,
    /// When the event at hand was recorded.
    pub at: u64,
    /// Events that the ring lost before the event at hand.
    pub lost: Lost,
    pages: Pages,
    layout: Layout,
    page: Vec<u8>,
    next: usize,
    end: usize,
    event: (usize, usize),
}

impl Ring {
    /// Before the first event.
    pub fn new(cpu: u32, pages: Pages, layout: Layout) -> Self {
        Self {
            cpu,
            at: 0,
            lost: Lost::Nothing,
            pages,
            layout,
            page: Vec::new(),
            next: 0,
            end: 0,
            event: (0, 0),
        }
    }

    /// The event at hand, as `events/*/format` describes it.
    pub fn data(&self) -> &[u8] {
        &self.page[self.event.0..self.event.1]
    }

    fn word(&self, at: usize) -> Option<u32> {
        let bytes = self.page[..self.end].get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().expect("four bytes")))
    }

    /// Moves to the next event; false at the end.
    pub fn advance(&mut self) -> Result<bool, Fault> {
        self.lost = Lost::Nothing;
        loop {
            let Some(head) = self.word(self.next) else {
                if !self.turn()? {
                    return Ok(false);
                }
                continue;
            };
            let (kind, delta) = (head & 31, u64::from(head >> 5));
            let at = self.next + 4;
            let behind = self.word(at);
            let beyond = || format!("a page of CPU {} holds an event that is longer than the page", self.cpu);
            match kind {
                PADDING if delta == 0 => self.next = self.end, // the rest of the page
                PADDING => {
                    self.at = self.at.wrapping_add(delta);
                    self.next = at + behind.ok_or_else(beyond)? as usize;
                }
                TIME_EXTEND => {
                    let high = u64::from(behind.ok_or_else(beyond)?) << 27;
                    self.at = self.at.wrapping_add(high | delta);
                    self.next = at + 4;
                }
                TIME_STAMP => {
                    let stamp = u64::from(behind.ok_or_else(beyond)?) << 27 | delta;
                    let whole = stamp & !HIGH | self.at & HIGH;
                    // The bits that are not stored may have carried since.
                    self.at = if whole < self.at { whole.wrapping_add(1 << 59) } else { whole };
                    self.next = at + 4;
                }
                0 => {
                    let len = behind.ok_or_else(beyond)? as usize;
                    self.event = (at + 4, at.saturating_add(len));
                }
                words => self.event = (at, at + words as usize * 4),
            }
            if kind < PADDING {
                if self.event.1 > self.end || self.event.0 > self.event.1 {
                    return Err(beyond());
                }
                self.at = self.at.wrapping_add(delta);
                self.next = self.event.1.next_multiple_of(4);
                return Ok(true);
            }
        }
    }

    /// Turns to the next page.
    fn turn(&mut self) -> Result<bool, Fault> {
        let Layout { commit, commit_size, data } = self.layout;
        self.page.clear();
        let page = self.pages.next()?;
        self.page.extend_from_slice(page);
        self.next = data;
        self.end = data;
        if self.page.is_empty() {
            self.end = 0;
            return Ok(false);
        }
        let number = |at: usize, n: usize| {
            let bytes = self.page.get(at..at + n)?;
            Some(bytes.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte)))
        };
        let (Some(stamp), Some(written)) = (number(0, 8), number(commit, commit_size)) else {
            return Err(format!("a page of CPU {} ends before its head does", self.cpu));
        };
        self.at = stamp;
        let len = (written & 0x07ff_ffff) as usize;
        let stored = data.saturating_add(len);
        if written & MISSED != 0 {
            let count = number(stored, commit_size).filter(|_| written & MISSED_STORED != 0);
            self.lost = count.filter(|n| *n > 0).map_or(Lost::Some, Lost::Events);
        }
        self.end = stored;
        if stored > self.page.len() {
            return Err(format!("a page of CPU {} claims {len} bytes and has fewer", self.cpu));
        }
        Ok(true)
    }
}

/// The common head of an event.
#[derive(Clone, Copy)]
pub struct Common {
    kind: (usize, usize),
    flags: (usize, usize),
    preempt: (usize, usize),
    pid: (usize, usize),
}

impl Common {
    /// From any event's format: all have the same.
    pub fn of(format: &Format) -> Result<Self, Fault> {
        let place = |name: &str| {
            let field = format.fields.iter().find(|f| f.name == name.as_bytes());
            field.map(|f| (f.at, f.size)).ok_or(format!("an event format has no {name}"))
        };
        Ok(Self {
            kind: place("common_type")?,
            flags: place("common_flags")?,
            preempt: place("common_preempt_count")?,
            pid: place("common_pid")?,
        })
    }

    fn number(data: &[u8], (at, size): (usize, usize)) -> Option<u64> {
        let bytes = data.get(at..at.checked_add(size)?)?;
        Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// Format, flags, preemption depth and task of an event.
    pub fn read(&self, data: &[u8]) -> Option<(u16, u8, u8, u32)> {
        let of = |place| Self::number(data, place);
        Some((of(self.kind)? as u16, of(self.flags)? as u8, of(self.preempt)? as u8, of(self.pid)? as u32))
    }
}
