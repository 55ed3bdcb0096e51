//! The plain case, fast: one context, 4 KiB pages, true LRU in one or two levels, linear index.
//!
//! Ideas, all exact (measured in `benches/bench_tlb.py`):
//! - The recency order is the layout: a set is its pages, newest first, so hit and miss are one shift.
//! - The levels are decoupled: the second level never feeds back into the first, so a batch runs through the first
//!   level, its misses through the second.
//! - Pages are interned to 32 bits: the low 31 bits of the page number, as all pages of a call lie in one window of
//!   2^31 pages. What else a set holds becomes a token above them, that no page equals.
//! - Where the pages of a call lie near each other, 16 bits a way do ([`super::narrow`]).
//! - A page that repeats its predecessor is the newest of its set already; such repeats are dropped first where a
//!   sample of the stream shows that they are common.
//!
//! The same loop exists twice: here, and for AVX2 in [`super::simd`]. A call that cannot be run this way returns
//! `None` and has changed nothing.

use super::array::{Array, Entry};
use super::narrow::Narrow;
use super::simd;
use super::tlb::Tlb;
use super::{Kind, PageSize, Pcid, Vpn};

/// Accesses per batch: the buffers stay in the first-level cache.
pub(super) const BATCH: usize = 512;
/// Room for a batch and two vectors beyond its end.
pub(super) const ROOM: usize = BATCH + 16;
/// Bits of an interned page.
pub(super) const WINDOW: u32 = 31;
/// An empty way.
pub(super) const EMPTY: u32 = u32::MAX;
/// Shorter calls do not pay for packing the state.
const WORTH_PACKING: usize = 4096;
/// Accesses sampled for repeats, and how many per thousand of them make the filter pay.
const SAMPLE: usize = 4096;
const REPEATS_PER_1000: usize = 150;
/// How many per thousand must hit the first level for words of four ways to pay, which take as long for a miss.
const HITS_PER_1000: usize = 100;

/// One level, packed: every set is a row of `STRIDE[ways]` interned pages.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    /// Rows, newest page first.
    pub(super) rows: Vec<Row>,
    pub(super) sets: usize,
    pub(super) ways: usize,
    /// Interned pages per set, a power of two, so that no set straddles two rows.
    pub(super) stride: usize,
    /// Whether no way is empty, as far as was looked.
    pub(super) full: bool,
}

/// One cache line of interned pages.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Row(pub(super) [u32; 16]);

/// Both levels and what the tokens stand for.
#[derive(Debug)]
pub(super) struct State {
    pub(super) first: Packed,
    pub(super) second: Option<Packed>,
    /// The levels instead, as long as they have this form.
    pub(super) narrow: [Option<Narrow>; 2],
    tokens: Vec<Entry>,
}

/// Where the two levels are in a TLB.
#[derive(Clone, Copy, Debug)]
struct Place {
    array: usize,
    level: usize,
}

/// Hits of both levels; the rest walked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hits {
    pub(super) first: u64,
    pub(super) second: u64,
}

/// Runs `vpns` through `tlb` in context `pcid`, with vectors if `vector`. `None`: not a plain case; nothing has changed.
pub(super) fn run(
    tlb: &mut Tlb,
    vpns: &[u64],
    pcid: Pcid,
    kind: Kind,
    levels: Option<&mut [u8]>,
    vector: bool,
) -> Option<()> {
    if vpns.len() < WORTH_PACKING {
        return None;
    }
    let (first, second) = places(tlb, kind)?;
    // A switch of context costs entries where PCID slots are few: then it comes first, elsewhere.
    if pcid != tlb.pcid() && tlb.has_slots() {
        return None;
    }
    let base = vpns[0] & !((1 << WINDOW) - 1);
    let mut state = pack(tlb, first, second, Vpn::new(base).ok()?, pcid)?;
    let answers =
        levels.map(|levels| (levels, first.level as u8, second.map_or(tlb.levels(), |p| p.level as u8)));
    let filter = answers.is_none() && repeats(vpns);
    let (low, high) = range(vpns, base);
    // Without vectors only sets of four ways gain by it, and only by hits.
    let words = !vector && hits_often(&state.first, vpns, base);
    let narrow = |level: &Packed| Narrow::of(level, low, high).filter(|_| vector || words && level.ways == 4);
    state.narrow = [Some(&state.first), state.second.as_ref()].map(|level| level.and_then(narrow));
    let hits = if vector {
        simd::run(&mut state, vpns, base, filter, answers, tlb.levels())?
    } else {
        run_scalar(&mut state, vpns, base, filter, answers, tlb.levels())?
    };
    tlb.switch(pcid);
    if let Some(narrow) = &state.narrow[0] {
        narrow.back(&mut state.first);
    }
    if let (Some(narrow), Some(second)) = (&state.narrow[1], &mut state.second) {
        narrow.back(second);
    }
    unpack(tlb, &state, first, second, Vpn(base & Vpn::MASK), pcid);
    let walks = vpns.len() as u64 - hits.first - hits.second;
    let loads = u64::from(tlb.geometry().table_levels());
    let counters = tlb.counters_mut();
    counters.accesses += vpns.len() as u64;
    counters.hits[first.level] += hits.first;
    if let Some(second) = second {
        counters.hits[second.level] += hits.second;
    }
    counters.walks += walks;
    counters.walk_loads += walks * loads;
    Some(())
}

/// The one or two levels that hold 4 KiB pages for `kind`, if they are plain.
fn places(tlb: &Tlb, kind: Kind) -> Option<(Place, Option<Place>)> {
    let geometry = tlb.geometry();
    let simple = geometry.psc().sizes() == [0; 4] && geometry.levels().iter().all(|level| !level.inclusive);
    if !simple || tlb.holds_stale() {
        return None;
    }
    let mut found = Vec::new();
    let mut array = 0;
    for (level, shape) in geometry.levels().iter().enumerate() {
        for structure in &shape.structures {
            if structure.sizes.contains(&PageSize::K4) && structure.kinds.contains(&kind) {
                found.push(Place { array, level });
            }
            array += 1;
        }
    }
    let plain = |place: &Place, ways: &[usize]| {
        let array = &tlb.arrays()[place.array];
        array.is_plain_lru() && ways.contains(&array.ways())
    };
    match found[..] {
        [one] if plain(&one, &[4, 8]) => Some((one, None)),
        [one, two] if one.level < two.level && plain(&one, &[4, 8]) && plain(&two, &[8, 12, 16]) => {
            Some((one, Some(two)))
        }
        _ => None,
    }
}

/// Whether a sample of the stream repeats pages often enough for the filter to pay.
fn repeats(vpns: &[u64]) -> bool {
    let start = vpns.len() / 2 - SAMPLE.min(vpns.len()) / 2;
    let sample = &vpns[start..(start + SAMPLE).min(vpns.len())];
    let repeated = sample.windows(2).filter(|pair| pair[0] == pair[1]).count();
    repeated * 1000 >= sample.len() * REPEATS_PER_1000
}

/// Whether the first level answers enough of a sample of the stream for [`Narrow::pass4`] to pay.
fn hits_often(first: &Packed, vpns: &[u64], base: u64) -> bool {
    let count = SAMPLE.min(vpns.len() / 8);
    let sample = &vpns[vpns.len() / 2..][..count];
    let mut ids: Vec<u32> = sample.iter().map(|vpn| (vpn ^ base) as u32).collect();
    let misses = first.clone().pass(&mut ids, &mut []);
    (count - misses) * 1000 >= count * HITS_PER_1000
}

/// The least and the greatest page, interned, of a sample of the stream.
fn range(vpns: &[u64], base: u64) -> (u32, u32) {
    let ids = vpns.iter().step_by(vpns.len().div_ceil(SAMPLE)).map(|vpn| (vpn ^ base) as u32);
    ids.fold((u32::MAX, 0), |(low, high), id| (low.min(id), high.max(id)))
}

/// Both levels; `None` if a global entry could answer, which has another key.
fn pack(tlb: &Tlb, first: Place, second: Option<Place>, base: Vpn, pcid: Pcid) -> Option<State> {
    let mut tokens = Vec::new();
    let mut level = |place: Place| {
        Packed::of(&tlb.arrays()[place.array], Window { base: base.0, bits: WINDOW }, pcid, &mut tokens)
    };
    let first = level(first)?;
    let second = match second {
        Some(second) => Some(level(second)?),
        None => None,
    };
    Some(State { first, second, narrow: [None, None], tokens })
}

fn unpack(tlb: &mut Tlb, state: &State, first: Place, second: Option<Place>, base: Vpn, pcid: Pcid) {
    let window = Window { base: base.0, bits: WINDOW };
    let mut level = |place: Place, packed: &Packed| {
        packed.back(&mut tlb.arrays_mut()[place.array], window, pcid, &state.tokens);
    };
    level(first, &state.first);
    if let (Some(place), Some(packed)) = (second, &state.second) {
        level(place, packed);
    }
}

/// The pages that are interned as their low `bits`; all others become tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) base: u64,
    pub(super) bits: u32,
}

impl Window {
    /// An entry as 32 bits; `None` for a global one.
    pub(super) fn intern(self, entry: Entry, pcid: Pcid, tokens: &mut Vec<Entry>) -> Option<u32> {
        if entry == Entry::EMPTY {
            return Some(EMPTY);
        }
        if entry.is_global() {
            return None;
        }
        let page = entry.page();
        let known = entry == Entry::new(page, PageSize::K4, pcid, false);
        if known && page >> self.bits == self.base >> self.bits {
            return Some((page & ((1 << self.bits) - 1)) as u32);
        }
        tokens.push(entry);
        Some((1 << WINDOW) | (tokens.len() as u32 - 1))
    }

    /// The entry again.
    pub(super) fn entry(self, id: u32, pcid: Pcid, tokens: &[Entry]) -> Entry {
        if id == EMPTY {
            Entry::EMPTY
        } else if id >> WINDOW == 0 {
            Entry::new(self.base | u64::from(id), PageSize::K4, pcid, false)
        } else {
            tokens[(id & (u32::MAX >> 1)) as usize]
        }
    }
}

/// Where answers go: the array, and the numbers of the two levels.
pub(super) type Answers<'a> = Option<(&'a mut [u8], u8, u8)>;

/// The loop without vectors; `None` if a page lies outside the window.
fn run_scalar(
    state: &mut State,
    vpns: &[u64],
    base: u64,
    filter: bool,
    mut answers: Answers<'_>,
    walk: u8,
) -> Option<Hits> {
    let State { first, second, narrow, .. } = state;
    let mut hits = Hits::default();
    let (mut ids, mut all_numbers) = ([0_u32; BATCH], [0_u32; BATCH]);
    let mut previous = EMPTY;
    for (number, batch) in vpns.chunks(BATCH).enumerate() {
        let mut outside = 0;
        let mut kept = 0;
        if filter {
            for &vpn in batch {
                let id = (vpn ^ base) as u32;
                outside |= (vpn ^ base) >> WINDOW;
                ids[kept] = id;
                kept += usize::from(id != previous);
                previous = id;
            }
        } else {
            for (id, &vpn) in ids.iter_mut().zip(batch) {
                *id = (vpn ^ base) as u32;
                outside |= (vpn ^ base) >> WINDOW;
            }
            kept = batch.len();
        }
        if outside != 0 {
            return None;
        }
        let ids = &mut ids[..kept];
        let numbers = if answers.is_some() { &mut all_numbers[..kept] } else { &mut [][..] };
        numbers.iter_mut().enumerate().for_each(|(i, number)| *number = i as u32);
        if let Some(form) = narrow[0].take_if(|form| !form.holds(ids)) {
            form.back(first);
        }
        let misses = match &mut narrow[0] {
            Some(form) => form.pass4(ids, numbers),
            None => first.pass(ids, numbers),
        };
        if let Some((out, first_level, second_level)) = &mut answers {
            let out = &mut out[number * BATCH..][..batch.len()];
            out.fill(*first_level);
            numbers[..misses].iter().for_each(|&i| out[i as usize] = *second_level);
        }
        let left = match second {
            Some(second) => second.pass(&mut ids[..misses], numbers),
            None => misses,
        };
        if let Some((out, ..)) = &mut answers {
            numbers[..left].iter().for_each(|&i| out[number * BATCH + i as usize] = walk);
        }
        hits.first += (batch.len() - misses) as u64;
        hits.second += (misses - left) as u64;
    }
    Some(hits)
}

impl Packed {
    /// An array as rows; `None` if it holds a global entry.
    pub(super) fn of(array: &Array, window: Window, pcid: Pcid, tokens: &mut Vec<Entry>) -> Option<Self> {
        let (sets, ways) = (array.sets() as usize, array.ways());
        let stride = ways.next_power_of_two();
        let mut rows = vec![Row([EMPTY; 16]); (sets * stride).div_ceil(16)];
        for (at, &entry) in array.keys().iter().enumerate() {
            let slot = at / ways * stride + at % ways;
            rows[slot / 16].0[slot % 16] = window.intern(entry, pcid, tokens)?;
        }
        Some(Packed { rows, sets, ways, stride, full: false })
    }

    /// Back into the array.
    pub(super) fn back(&self, array: &mut Array, window: Window, pcid: Pcid, tokens: &[Entry]) {
        for (at, entry) in array.keys_mut().iter_mut().enumerate() {
            let slot = at / self.ways * self.stride + at % self.ways;
            *entry = window.entry(self.rows[slot / 16].0[slot % 16], pcid, tokens);
        }
    }

    /// Whether no way is empty.
    pub(super) fn is_full(&self) -> bool {
        let words = self.rows.iter().flat_map(|row| row.0);
        words
            .enumerate()
            .take(self.sets * self.stride)
            .all(|(at, id)| id != EMPTY || at % self.stride >= self.ways)
    }

    /// Pages in order, without vectors; those not found move to the front, with their numbers if there are any. Returns
    /// how many these are.
    fn pass(&mut self, ids: &mut [u32], numbers: &mut [u32]) -> usize {
        match (self.ways, numbers.is_empty()) {
            (4, true) => self.pass_ways::<4, 4, false>(ids, numbers),
            (4, false) => self.pass_ways::<4, 4, true>(ids, numbers),
            (8, true) => self.pass_ways::<8, 8, false>(ids, numbers),
            (8, false) => self.pass_ways::<8, 8, true>(ids, numbers),
            (12, true) => self.pass_ways::<12, 16, false>(ids, numbers),
            (12, false) => self.pass_ways::<12, 16, true>(ids, numbers),
            (16, true) => self.pass_ways::<16, 16, false>(ids, numbers),
            (16, false) => self.pass_ways::<16, 16, true>(ids, numbers),
            (ways, _) => unreachable!("no plain level has {ways} ways"),
        }
    }

    fn pass_ways<const WAYS: usize, const STRIDE: usize, const NUMBERS: bool>(
        &mut self,
        ids: &mut [u32],
        numbers: &mut [u32],
    ) -> usize {
        assert!(self.ways == WAYS && self.stride == STRIDE);
        let (mask, rows) = (self.sets - 1, &mut self.rows[..]);
        let mut misses = 0;
        for i in 0..ids.len() {
            let id = ids[i];
            let set = id as usize & mask;
            let row = &mut rows[set * STRIDE / 16].0;
            // Where a set is a row, its place is a constant, and so are those of its ways.
            let at = if STRIDE == 16 { 0 } else { set * STRIDE % 16 };
            let ways = row[at..].first_chunk_mut::<WAYS>().expect("a stride has room");
            let hit = to_front(ways, id);
            ids[misses] = id;
            if NUMBERS {
                numbers[misses] = numbers[i];
            }
            misses += usize::from(!hit);
        }
        misses
    }
}

/// One access: the page becomes the newest of its set, and what stood before it moves down.
#[inline]
fn to_front<const WAYS: usize>(ways: &mut [u32; WAYS], id: u32) -> bool {
    let mut carry = id;
    for way in ways {
        let old = std::mem::replace(way, carry);
        if old == id {
            return true;
        }
        carry = old;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hw::Geometry;
    use crate::hw::array::splitmix64;

    /// Pages with hot spots and repeats.
    fn stream(seed: u64, count: usize, pages: u64) -> Vec<u64> {
        (0..count as u64)
            .map(|n| {
                let draw = splitmix64(seed, n);
                0x7_f000_0000 + if draw.is_multiple_of(4) { draw >> 8 } else { draw >> 40 & 0x3f } % pages
            })
            .collect()
    }

    fn slowly(tlb: &mut Tlb, vpns: &[u64]) -> Vec<u8> {
        vpns.iter().map(|&vpn| tlb.access(Vpn(vpn), Kind::Load, PageSize::K4, false).level).collect()
    }

    #[test]
    fn the_plain_loops_leave_the_same_state_counters_and_answers_as_the_full_engine() {
        // Miri takes a minute for what else is a millisecond: there one stream, one part, the shortest that is packed.
        let streams = [(2, 300), (1, 40), (3, 5_000), (4, 100_000)];
        let (count, parts) = if cfg!(miri) { (4_100, 1) } else { (5_000, 3) };
        for (seed, pages) in streams.into_iter().take(if cfg!(miri) { 1 } else { 4 }) {
            for vector in [false, simd::available()] {
                for with_levels in [false, true] {
                    let mut expected = Tlb::new(Geometry::peers());
                    let mut plain = expected.clone();
                    for part in 0..parts {
                        let vpns = stream(seed + part, count, pages);
                        let wanted = slowly(&mut expected, &vpns);
                        let mut levels = vec![9; vpns.len()];
                        let out = with_levels.then_some(&mut levels[..]);
                        run(&mut plain, &vpns, Pcid(0), Kind::Load, out, vector).expect("a plain case");
                        assert!(!with_levels || levels == wanted);
                        assert!(plain == expected, "seed {seed}, vector {vector}");
                    }
                }
            }
        }
    }

    #[test]
    fn pages_that_leave_the_windows_of_narrow_levels_within_a_call_change_nothing_but_the_form() {
        // Windows of 16 and of 128 sets have 2^19 and 2^22 pages; the one page may come in the sample or not.
        for (seed, far) in
            [(1, 0), (2, 1 << 17), (3, 1 << 19), (4, 1 << 21), (5, 1 << 23), (6, (1 << 27) - 1)]
        {
            for at in [0, 1, 4095, 7_001, 11_999] {
                let mut vpns = stream(seed, 12_000, 3_000);
                vpns[at] += far;
                vpns[at / 2] = 0x7_ffff_ffff - far;
                let mut expected = Tlb::new(Geometry::peers());
                let mut plain = expected.clone();
                for part in [&vpns[..6_000], &vpns[6_000..]] {
                    let wanted = slowly(&mut expected, part);
                    for with_levels in [true, false] {
                        let mut same = plain.clone();
                        let mut levels = vec![9; part.len()];
                        let out = with_levels.then_some(&mut levels[..]);
                        run(&mut same, part, Pcid(0), Kind::Load, out, simd::available())
                            .expect("a plain case");
                        assert!(!with_levels || levels == wanted, "seed {seed}, at {at}");
                        assert!(same == expected, "seed {seed}, at {at}");
                    }
                    run(&mut plain, part, Pcid(0), Kind::Load, None, simd::available())
                        .expect("a plain case");
                }
            }
        }
    }

    #[test]
    fn a_narrow_level_is_its_rows_again() {
        let mut rows = Packed { rows: vec![Row([EMPTY; 16]); 8], sets: 8, ways: 12, stride: 16, full: false };
        for set in 0..8 {
            let page = |way: u32| (splitmix64(u64::from(way), u64::from(set)) as u32 & 0x3f_ffff) << 3 | set;
            let token = |way: u32| 1 << WINDOW | way;
            let ways = (0..set + 3).map(|way| if way % 3 == 1 { token(way) } else { page(way) });
            ways.enumerate().for_each(|(way, id)| rows.rows[set as usize].0[way] = id);
        }
        for middle in [0, 1 << 17, 0x55_5555, u32::MAX >> 1] {
            let mut same = rows.clone();
            same.rows.fill(Row([7; 16]));
            Narrow::of(&rows, middle, middle).unwrap().back(&mut same);
            for (row, again) in rows.rows.iter().zip(&same.rows) {
                assert_eq!(row.0[..12], again.0[..12]);
            }
        }
        assert!(Narrow::of(&rows, 0, (1 << 17) - 1).is_some());
        assert!(Narrow::of(&rows, 0, 1 << 17).is_none());
        assert!(Narrow::of(&rows, 1, 0).is_none(), "an empty sample");
    }

    #[test]
    fn entries_of_another_context_stay_apart_and_survive() {
        let mut expected = Tlb::new(Geometry::peers());
        for pcid in [3, 4, 3] {
            expected.switch(Pcid(pcid));
            slowly(&mut expected, &stream(9, 3_000, 700));
        }
        let mut plain = expected.clone();
        let vpns = stream(10, 5_000, 900);
        slowly(&mut expected, &vpns);
        run(&mut plain, &vpns, Pcid(3), Kind::Load, None, simd::available()).unwrap();
        assert!(plain == expected);
    }

    #[test]
    fn a_stream_that_leaves_its_window_or_meets_globals_is_left_to_the_full_engine() {
        let mut tlb = Tlb::new(Geometry::peers());
        let mut vpns = stream(1, 5_000, 50);
        vpns[4_999] = 1 << 40;
        let before = tlb.clone();
        assert!(run(&mut tlb, &vpns, Pcid(0), Kind::Load, None, simd::available()).is_none());
        assert!(tlb == before);
        tlb.access(Vpn(7), Kind::Load, PageSize::K4, true);
        assert!(run(&mut tlb, &stream(1, 5_000, 50), Pcid(0), Kind::Load, None, simd::available()).is_none());
    }
}
