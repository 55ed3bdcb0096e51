//! A fully associative recency order as a hash table and a log of its uses.

use super::rows::{EMPTY, Row, Window};
use crate::hw::Pcid;
use crate::hw::array::{Array, Entry};

/// A fully associative recency order. Its pages are in a hash table of buckets of eight; every use is logged, and the
/// last use of each page counts. What has to leave is the page of the first use that still counts.
#[derive(Debug)]
pub(super) struct Log {
    /// Buckets, two in each row.
    pub(super) rows: Vec<Row>,
    /// When each place of the table was used last.
    pub(super) at: Vec<u16>,
    /// The place used at each time.
    places: Vec<u16>,
    from: usize,
    to: usize,
    held: usize,
    ways: usize,
    factor: u32,
}

impl Log {
    pub(super) const BUCKETS: usize = 256;
    /// Times that a log can tell apart, before it begins anew.
    const TIMES: usize = 1 << 13;

    pub(super) fn of(array: &Array, window: Window, pcid: Pcid, tokens: &mut Vec<Entry>) -> Option<Self> {
        let mut log = Log {
            rows: vec![Row([EMPTY; 16]); Self::BUCKETS / 2],
            at: vec![0; 8 * Self::BUCKETS],
            places: vec![0; Self::TIMES],
            from: 0,
            to: 0,
            held: 0,
            ways: array.ways(),
            factor: 0x9e37_79b1,
        };
        for &entry in array.keys().iter().rev() {
            let id = window.intern(entry, pcid, tokens)?;
            if id != EMPTY {
                log.enter(id);
            }
        }
        Some(log)
    }

    pub(super) fn back(&self, array: &mut Array, window: Window, pcid: Pcid, tokens: &[Entry]) {
        let keys = array.keys_mut();
        keys.fill(Entry::EMPTY);
        for (entry, id) in keys.iter_mut().zip(self.ids().into_iter().rev()) {
            *entry = window.entry(id, pcid, tokens);
        }
    }

    /// What it holds, oldest first.
    fn ids(&self) -> Vec<u32> {
        let place = |time: usize| usize::from(self.places[time]);
        let counts = |time: &usize| usize::from(self.at[place(*time)]) == *time;
        let live = (self.from..self.to).filter(counts);
        live.map(|time| self.rows[place(time) / 16].0[place(time) % 16]).collect()
    }

    pub(super) fn bucket(&self, id: u32) -> usize {
        const { assert!(Self::BUCKETS == 1 << 8) };
        (id.wrapping_mul(self.factor) >> 24) as usize
    }

    /// Room for so many more times.
    pub(super) fn make_room(&mut self, times: usize) {
        if self.to + times > Self::TIMES {
            self.begin_anew();
        }
    }

    fn begin_anew(&mut self) {
        let ids = self.ids();
        self.rows.fill(Row([EMPTY; 16]));
        (self.from, self.to, self.held) = (0, 0, 0);
        for id in ids {
            self.enter(id);
        }
    }

    /// With another hash, as a bucket was full.
    #[cold]
    pub(super) fn spread_anew(&mut self) {
        self.factor = self.factor.wrapping_mul(0x85eb_ca77) | 1;
        let times = self.to;
        self.begin_anew();
        // The times promised by `make_room` remain, as beginning anew only makes more room.
        debug_assert!(self.to <= times);
    }

    fn enter(&mut self, id: u32) {
        loop {
            let bucket = 8 * self.bucket(id);
            let eight = &mut self.rows[bucket / 16].0[bucket % 16..][..8];
            if let Some(lane) = eight.iter().position(|&other| other == EMPTY) {
                eight[lane] = id;
                self.used(bucket + lane, true);
                return;
            }
            self.spread_anew();
        }
    }

    /// A use of the page in `place`; a new page may cost the oldest its place.
    #[inline(always)]
    #[allow(clippy::inline_always)] // a call from the vector loop would spill its registers
    pub(super) fn used(&mut self, place: usize, new: bool) {
        self.at[place] = self.to as u16;
        self.places[self.to] = place as u16;
        self.to += 1;
        self.held += usize::from(new);
        if self.held > self.ways {
            let oldest = loop {
                let (time, place) = (self.from, usize::from(self.places[self.from]));
                self.from += 1;
                if usize::from(self.at[place]) == time {
                    break place;
                }
            };
            self.rows[oldest / 16].0[oldest % 16] = EMPTY;
            self.held -= 1;
        }
    }
}
