//! The plain case, fast: one context, 4 KiB pages, true LRU in one or two levels, linear index.
//!
//! Ideas, all exact (measured in `benches/bench_tlb.py`):
//! - The recency order is the layout: a set is its pages, newest first, so hit and miss are one shift.
//! - The levels are decoupled: the second level never feeds back into the first, so a batch runs through the first
//!   level, its misses through the second.
//! - Pages are interned to 32 bits: the low 31 bits of the page number, as all pages of a call lie in one window of
//!   2^31 pages. What else a set holds becomes a token above them, that no page equals.
//! - Where the pages of a call lie near each other, 16 bits a way do ([`super::tags`]).
//! - A page that repeats its predecessor is the newest of its set already; such repeats are dropped first where a
//!   sample of the stream shows that they are common.
//!
//! The same loop exists twice: here, and for AVX2 in [`super::avx2`]. A call that cannot be run this way returns
//! `None` and has changed nothing.

use super::avx2;
use super::rows::{BATCH, EMPTY, Packed, WINDOW, Window};
use super::state::{Answers, Hits, State};
use super::tags::Narrow;
use crate::hw::tlb::Tlb;
use crate::hw::{Kind, PageSize, Pcid, Vpn};

/// Shorter calls do not pay for packing the state.
pub(in crate::hw) const WORTH_PACKING: usize = 4096;
/// Accesses sampled for repeats, and how many per thousand of them make the filter pay.
const SAMPLE: usize = 4096;
const REPEATS_PER_1000: usize = 150;
/// How many per thousand must hit the first level for words of four ways to pay, which take as long for a miss.
const HITS_PER_1000: usize = 100;

/// Where the two levels are in a TLB.
#[derive(Clone, Copy, Debug)]
struct Place {
    array: usize,
    level: usize,
}

/// Runs `vpns` through `tlb` in context `pcid`, with vectors if `vector`. `None`: not a plain case; nothing has changed.
pub(in crate::hw) fn run(
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
        avx2::run(&mut state, vpns, base, filter, answers, tlb.levels())?
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

/// Whether a TLB is a plain case for this kind of access.
pub(super) fn fits(tlb: &Tlb, kind: Kind) -> bool {
    places(tlb, kind).is_some()
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
pub(super) fn repeats(vpns: &[u64]) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hw::Geometry;
    use crate::hw::array::splitmix64;
    use crate::hw::fast::rows::Row;
    use crate::hw::geometry::{Index, Level, Psc, Replacement, Structure};
    use crate::hw::vectors;
    use std::sync::Arc;

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
            for vector in [false, vectors::available()] {
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
                        run(&mut same, part, Pcid(0), Kind::Load, out, vectors::available())
                            .expect("a plain case");
                        assert!(!with_levels || levels == wanted, "seed {seed}, at {at}");
                        assert!(same == expected, "seed {seed}, at {at}");
                    }
                    run(&mut plain, part, Pcid(0), Kind::Load, None, vectors::available())
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
        run(&mut plain, &vpns, Pcid(3), Kind::Load, None, vectors::available()).unwrap();
        assert!(plain == expected);
    }

    #[test]
    fn a_stream_that_leaves_its_window_or_meets_globals_is_left_to_the_full_engine() {
        let mut tlb = Tlb::new(Geometry::peers());
        let mut vpns = stream(1, 5_000, 50);
        vpns[4_999] = 1 << 40;
        let before = tlb.clone();
        assert!(run(&mut tlb, &vpns, Pcid(0), Kind::Load, None, vectors::available()).is_none());
        assert!(tlb == before);
        tlb.access(Vpn(7), Kind::Load, PageSize::K4, true);
        assert!(
            run(&mut tlb, &stream(1, 5_000, 50), Pcid(0), Kind::Load, None, vectors::available()).is_none()
        );
    }

    #[test]
    fn a_level_of_other_ways_or_another_order_is_left_to_the_full_engine() {
        let vpns = stream(1, 5_000, 50);
        for (ways, replacement, packed) in [
            (4, Replacement::Lru, true),
            (8, Replacement::Lru, true),
            (12, Replacement::Lru, false),
            (2, Replacement::Lru, false),
            (4, Replacement::Fifo, false),
            (8, Replacement::TreePlru, false),
        ] {
            let mut tlb = Tlb::new(one_level(ways, replacement, None));
            let mut expected = tlb.clone();
            slowly(&mut expected, &vpns);
            let ran = run(&mut tlb, &vpns, Pcid(0), Kind::Load, None, vectors::available());
            assert_eq!(ran.is_some(), packed, "{ways} ways, {replacement:?}");
            assert!(!packed || tlb == expected);
        }
    }

    #[test]
    fn a_switch_where_slots_for_contexts_are_few_is_left_to_the_full_engine() {
        let vpns = stream(1, 5_000, 50);
        let mut tlb = Tlb::new(one_level(4, Replacement::Lru, Some(2)));
        for (pcid, packed) in [(0, true), (1, false)] {
            let ran = run(&mut tlb, &vpns, Pcid(pcid), Kind::Load, None, vectors::available());
            assert_eq!(ran.is_some(), packed, "context {pcid}");
        }
    }

    fn one_level(ways: u32, replacement: Replacement, pcid_slots: Option<u32>) -> Arc<Geometry> {
        let structure = Structure {
            name: "a".into(),
            sets: 16,
            ways,
            sizes: vec![PageSize::K4],
            kinds: vec![Kind::Load],
            index: Index::Linear,
            replacement,
            pcid_slots,
            smt_split: false,
            smashes_1g: false,
        };
        let level = Level { name: "L1".into(), structures: vec![structure], inclusive: false };
        Arc::new(Geometry::new("one", vec![level], Psc::default(), 4).unwrap())
    }
}
