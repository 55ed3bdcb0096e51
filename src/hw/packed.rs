//! Real shapes, fast: what [`super::decoupled`] does, with vectors and with pages interned to 32 bits.
//!
//! One context, 4 KiB pages of one window of 2^31, level after level in batches. An array is packed once per call in the
//! form that suits its replacement: recency orders and direction-bit trees as rows; a fully associative recency order as
//! a hash table and a [`Log`] of its uses. What no vector loop knows passes access by access.

use super::array::{Array, Entry, Order, TreeShape};
use super::plain::{BATCH, EMPTY, Packed, Row, WINDOW, Window};
use super::simd;
use super::tlb::Tlb;
use super::{Kind, PageSize, Pcid, Vpn};

/// Shorter calls do not pay for packing the state.
const WORTH_PACKING: usize = 4096;
/// Fully associative orders from this many ways on are logs, up to [`MOST_LOGGED`].
const LOGGED: usize = 20;
/// Most ways of a log: a table so much larger never fills a bucket for long.
const MOST_LOGGED: usize = 128;

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

    fn of(array: &Array, window: Window, pcid: Pcid, tokens: &mut Vec<Entry>) -> Option<Self> {
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

    fn back(&self, array: &mut Array, window: Window, pcid: Pcid, tokens: &[Entry]) {
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

/// The form an array has during a call.
#[derive(Debug)]
enum Form {
    Recency(Packed),
    Trees(Packed, TreeShape),
    Log(Log),
    /// As it is.
    Other,
}

/// An array and its form.
#[derive(Debug)]
struct Bank {
    form: Form,
    fold: u32,
    window: Window,
}

impl Bank {
    /// `None` if a global entry could answer.
    fn of(array: &Array, window: Window, pcid: Pcid, tokens: &mut Vec<Entry>) -> Option<Self> {
        let (sets, ways) = (array.sets(), array.ways());
        let form = match array.order() {
            Order::Recency if sets == 1 && (LOGGED..=MOST_LOGGED).contains(&ways) => {
                Form::Log(Log::of(array, window, pcid, tokens)?)
            }
            Order::Recency if simd::LRU_WAYS.contains(&ways) => {
                Form::Recency(Packed::of(array, window, pcid, tokens)?)
            }
            Order::Trees(shape) => Form::Trees(Packed::of(array, window, pcid, tokens)?, shape),
            Order::Recency | Order::Other => Form::Other,
        };
        Some(Bank { form, fold: array.fold(), window })
    }

    fn back(&self, array: &mut Array, pcid: Pcid, tokens: &[Entry]) {
        match &self.form {
            Form::Recency(packed) | Form::Trees(packed, _) => packed.back(array, self.window, pcid, tokens),
            Form::Log(log) => log.back(array, self.window, pcid, tokens),
            Form::Other => {}
        }
    }

    /// One batch; misses move to the front, and their number is returned.
    fn pass(&mut self, array: &mut Array, pcid: Pcid, ids: &mut [u32], numbers: &mut [u32]) -> usize {
        match &mut self.form {
            Form::Recency(packed) => simd::lru_pass(packed, self.fold, ids, numbers),
            Form::Trees(packed, shape) => {
                simd::tree_pass(packed, array.tree_mut(), self.fold, *shape, ids, numbers)
            }
            Form::Log(log) => simd::log_pass(log, ids, numbers),
            Form::Other => {
                let mut missed = 0;
                for i in 0..ids.len() {
                    let page = self.window.base | u64::from(ids[i]);
                    let (set, key) = (array.set_of(page), Entry::new(page, PageSize::K4, pcid, false));
                    let hit = array.lookup(set, key, key) != Entry::EMPTY;
                    if !hit {
                        array.fill(set, key);
                    }
                    ids[missed] = ids[i];
                    if !numbers.is_empty() {
                        numbers[missed] = numbers[i];
                    }
                    missed += usize::from(!hit);
                }
                missed
            }
        }
    }
}

/// The arrays of one level, and the bits below those that pick one.
#[derive(Debug)]
struct Level {
    number: u8,
    banks: Vec<(usize, Bank)>,
    shift: u32,
}

/// Runs `vpns`, all valid, in context `pcid`, which is loaded, in a TLB without inclusive levels, stale marks and
/// globals. `None`: not such a case; nothing has changed.
pub(super) fn run(
    tlb: &mut Tlb,
    vpns: &[u64],
    pcid: Pcid,
    kind: Kind,
    mut levels: Option<&mut [u8]>,
) -> Option<()> {
    if vpns.len() < WORTH_PACKING || !simd::available() {
        return None;
    }
    let base = vpns[0] & Vpn::MASK & !((1 << WINDOW) - 1);
    if vpns.iter().fold(0, |all, &vpn| all | (vpn ^ base)) & Vpn::MASK >> WINDOW << WINDOW != 0 {
        return None;
    }
    let mut tokens = Vec::new();
    let mut banks = Vec::new();
    for number in 0..tlb.levels() {
        let Some((arrays, count, shift)) = tlb.banks(usize::from(number), PageSize::K4, kind) else {
            continue;
        };
        let mut level = Level { number, banks: Vec::new(), shift: u32::from(shift) };
        for &array in &arrays[..count] {
            let array = usize::from(array);
            let bank = Bank::of(&tlb.arrays()[array], Window { base, bits: WINDOW }, pcid, &mut tokens)?;
            level.banks.push((array, bank));
        }
        banks.push(level);
    }
    let mut psc = Vec::new();
    let mut shift = 0;
    for array in tlb.psc_mut() {
        shift += 9;
        let window = Window { base: base >> shift, bits: WINDOW.saturating_sub(shift) };
        psc.push(if array.ways() == 0 { None } else { Some(Bank::of(array, window, pcid, &mut tokens)?) });
    }

    let (mut ids, mut all_numbers) = ([0_u32; BATCH], [0_u32; BATCH]);
    let walk = tlb.levels();
    for (batch_number, batch) in vpns.chunks(BATCH).enumerate() {
        let start = batch_number * BATCH;
        let numbers = if levels.is_some() { &mut all_numbers[..batch.len()] } else { &mut [][..] };
        ids.iter_mut().zip(batch).for_each(|(id, &vpn)| *id = (vpn ^ base) as u32);
        numbers.iter_mut().enumerate().for_each(|(i, number)| *number = i as u32);
        let mut left = batch.len();
        for level in &mut banks {
            let numbers = if levels.is_some() { &mut numbers[..left] } else { &mut [][..] };
            if let Some(levels) = levels.as_deref_mut() {
                for &i in numbers.iter() {
                    levels[start + i as usize] = level.number;
                }
            }
            let arrays = tlb.arrays_mut();
            let missed = match &mut level.banks[..] {
                [(array, bank)] => bank.pass(&mut arrays[*array], pcid, &mut ids[..left], numbers),
                several => pass_banks(several, level.shift, arrays, pcid, &mut ids[..left], numbers),
            };
            tlb.counters_mut().hits[usize::from(level.number)] += (left - missed) as u64;
            left = missed;
        }
        if let Some(levels) = levels.as_deref_mut() {
            numbers[..left].iter().for_each(|&i| levels[start + i as usize] = walk);
        }
        let counters = tlb.counters_mut();
        counters.accesses += batch.len() as u64;
        counters.walks += left as u64;
        // A walk begins at the deepest cached entry and fills what is below, so each paging-structure cache sees what the
        // one below it missed, as the levels of the TLB do.
        for (level, bank) in psc.iter_mut().enumerate() {
            ids[..left].iter_mut().for_each(|id| *id >>= 9);
            tlb.counters_mut().walk_loads += left as u64;
            if let Some(bank) = bank {
                let missed = bank.pass(&mut tlb.psc_mut()[level], pcid, &mut ids[..left], &mut []);
                tlb.counters_mut().psc_hits[level] += (left - missed) as u64;
                left = missed;
            }
        }
        tlb.counters_mut().walk_loads += left as u64;
    }

    for (array, bank) in banks.iter().flat_map(|level| &level.banks) {
        bank.back(&mut tlb.arrays_mut()[*array], pcid, &tokens);
    }
    for (array, bank) in tlb.psc_mut().iter_mut().zip(&psc) {
        if let Some(bank) = bank {
            bank.back(array, pcid, &tokens);
        }
    }
    Some(())
}

/// One batch through several arrays that share the pages: each takes its own, and the misses are put back in order.
fn pass_banks(
    banks: &mut [(usize, Bank)],
    shift: u32,
    arrays: &mut [Array],
    pcid: Pcid,
    ids: &mut [u32],
    numbers: &mut [u32],
) -> usize {
    let mut missed = [false; BATCH];
    let (mut own, mut places) = ([0_u32; BATCH], [0_u32; BATCH]);
    let count = banks.len();
    for (bank_number, (array, bank)) in banks.iter_mut().enumerate() {
        let mut taken = 0;
        for (place, &id) in ids.iter().enumerate() {
            own[taken] = id;
            places[taken] = place as u32;
            taken += usize::from((id >> shift) as usize % count == bank_number);
        }
        let left = bank.pass(&mut arrays[*array], pcid, &mut own[..taken], &mut places[..taken]);
        places[..left].iter().for_each(|&place| missed[place as usize] = true);
    }
    let mut left = 0;
    for place in 0..ids.len() {
        ids[left] = ids[place];
        if !numbers.is_empty() {
            numbers[left] = numbers[place];
        }
        left += usize::from(missed[place]);
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hw::array::splitmix64;

    #[test]
    fn a_log_whose_buckets_overflow_and_whose_times_run_out_is_still_a_recency_order() {
        if !simd::available() {
            return;
        }
        // 40 ways with pages of one bucket of the first hash, so that it must be given up; hits to end times.
        let window = Window { base: 0, bits: WINDOW };
        let mut array = Array::associative(40);
        let mut log = Log::of(&array, window, Pcid(1), &mut Vec::new()).unwrap();
        let crowded: Vec<u32> = (1..2_000_000).filter(|&id| log.bucket(id) == 3).take(60).collect();
        for seed in 0..30 {
            let mut ids: Vec<u32> = (0..1000)
                .map(|n| splitmix64(seed, n))
                .map(|draw| crowded[(draw % if draw >> 60 == 0 { 60 } else { 10 + seed }) as usize])
                .collect();
            let expected: Vec<u32> = ids
                .iter()
                .filter(|&&id| {
                    let key = Entry::new(u64::from(id), PageSize::K4, Pcid(1), false);
                    let missed = array.lookup(0, key, key) == Entry::EMPTY;
                    if missed {
                        array.fill(0, key);
                    }
                    missed
                })
                .copied()
                .collect();
            let missed = simd::log_pass(&mut log, &mut ids, &mut []);
            assert_eq!(ids[..missed], expected);
        }
        let mut same = Array::associative(40);
        log.back(&mut same, window, Pcid(1), &[]);
        assert!(same == array);
    }
}
