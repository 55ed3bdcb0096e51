//! Events on many CPUs, fast: PCIDs, globals and invalidations over true LRU in two levels with 4 KiB pages.
//!
//! As in [`super::plain`] the recency order is the layout and the levels are decoupled, but a way is a whole
//! [`Entry`], so every context and global entry keeps its key. An invalidation ends a batch and is vectorised too:
//! survivors move up within their set.
//!
//! Each access looks for its own key only, and notes whether the other one (the same page, global instead of in
//! context, or the other way round) was there. It never is while a page's G bit does not change; if it was, the block
//! is thrown away and run by the full engine. Work on a copy makes that free, and also whatever this loop cannot do
//! (stale marks, huge pages, speculative fills, INVLPGB) goes to the full engine.

use super::array::Entry;
use super::simd;
use super::stream::{Cpus, EVENT_BYTES, Event, Op, flags};
use super::tlb::Tlb;
use super::{Kind, PageSize, Pcid, Vpn};

/// Events per block: what one mismatch of a G bit throws away.
const BLOCK: usize = 1 << 18;
/// Events that the full engine runs after one that this loop cannot, before the state is packed again.
const APART: usize = 1024;
/// Fewer events do not pay for packing the state.
const WORTH_PACKING: usize = 4096;

/// One cache line of entries.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u64; 8]);

/// What is known per CPU: its context, and counts. One cache line each.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Cpu {
    pub(super) pcid: u64,
    pub(super) accesses: u64,
    pub(super) first: u64,
    pub(super) second: u64,
    pub(super) switches: u64,
    pub(super) invalidated: u64,
}

/// Both levels of every CPU, packed.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) lines: Vec<Line>,
    /// Words per CPU, a whole number of lines; the second level begins at `second_at`.
    pub(super) words: usize,
    pub(super) second_at: usize,
    pub(super) first_sets: usize,
    pub(super) second_sets: usize,
    pub(super) first_ways: usize,
    pub(super) second_ways: usize,
    pub(super) cpus: Vec<Cpu>,
}

/// How far a block came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ran {
    /// So many events; the next one, if any, is for the full engine.
    Events(usize),
    /// A page was global in one place and not in another: nothing of the block counts.
    Mixed,
}

/// Where the two levels are.
#[derive(Clone, Copy, Debug)]
struct Places {
    first: (usize, usize),
    second: (usize, usize),
}

/// Runs events; `false`: not a shape for this loop, and nothing was done.
pub(super) fn run(cpus: &mut Cpus, events: &[[u8; EVENT_BYTES]], mut levels: Option<&mut [u8]>) -> bool {
    let Some(places) = places(&cpus.tlbs()[0]).filter(|_| simd::available()) else { return false };
    let mut at = 0;
    while at < events.len() {
        let block = &events[at..(at + BLOCK).min(events.len())];
        let mut apart = APART;
        if block.len() >= WORTH_PACKING && !cpus.tlbs().iter().any(Tlb::holds_stale) {
            let mut job = pack(cpus.tlbs(), places);
            let out = levels.as_deref_mut().map(|levels| &mut levels[at..at + block.len()]);
            match simd::run_events(&mut job, block, out) {
                Ran::Events(count) => {
                    unpack(cpus, &job, places);
                    at += count;
                    apart = APART.min(BLOCK - count);
                }
                Ran::Mixed => apart = block.len(),
            }
        }
        for event in events.iter().skip(at).take(apart) {
            let level = cpus.step(Event::read(event));
            if let Some(levels) = levels.as_deref_mut() {
                levels[at] = level;
            }
            at += 1;
        }
    }
    true
}

fn places(tlb: &Tlb) -> Option<Places> {
    let geometry = tlb.geometry();
    let mut found = Vec::new();
    let mut array = 0;
    for (level, shape) in geometry.levels().iter().enumerate() {
        if shape.inclusive {
            return None;
        }
        for structure in &shape.structures {
            if structure.pcid_slots.is_some() {
                return None;
            }
            let kinds = Kind::ALL.into_iter().filter(|kind| structure.kinds.contains(kind)).count();
            if structure.sizes.contains(&PageSize::K4) {
                let ways = structure.ways as usize;
                let fits = [4, 8, 12, 16].contains(&ways) && tlb.arrays()[array].is_plain_lru();
                // Loads, stores and fetches take the same way.
                if kinds != Kind::ALL.len() || !fits {
                    return None;
                }
                found.push((array, level));
            }
            array += 1;
        }
    }
    let only_4k =
        geometry.levels().iter().flat_map(|level| &level.structures).all(|s| s.sizes == [PageSize::K4]);
    match found[..] {
        [first, second] if first.1 < second.1 && geometry.psc().sizes() == [0; 4] && only_4k => {
            Some(Places { first, second })
        }
        _ => None,
    }
}

fn pack(tlbs: &[Tlb], places: Places) -> Job {
    let shape = |array: usize| (tlbs[0].arrays()[array].sets() as usize, tlbs[0].arrays()[array].ways());
    let (first_sets, first_ways) = shape(places.first.0);
    let (second_sets, second_ways) = shape(places.second.0);
    let second_at = (first_sets * first_ways).next_multiple_of(8);
    let words = second_at + (second_sets * second_ways).next_multiple_of(8);
    let mut job = Job {
        lines: vec![Line([0; 8]); words / 8 * tlbs.len()],
        words,
        second_at,
        first_sets,
        second_sets,
        first_ways,
        second_ways,
        cpus: tlbs.iter().map(|tlb| Cpu { pcid: u64::from(tlb.pcid().0), ..Cpu::default() }).collect(),
    };
    for (cpu, tlb) in tlbs.iter().enumerate() {
        for (array, start) in [(places.first.0, 0), (places.second.0, second_at)] {
            for (i, key) in tlb.arrays()[array].keys().iter().enumerate() {
                let word = cpu * words + start + i;
                job.lines[word / 8].0[word % 8] = key.0;
            }
        }
    }
    job
}

fn unpack(cpus: &mut Cpus, job: &Job, places: Places) {
    for (cpu, tlb) in cpus.tlbs_mut().iter_mut().enumerate() {
        for (array, start) in [(places.first.0, 0), (places.second.0, job.second_at)] {
            for (i, key) in tlb.arrays_mut()[array].keys_mut().iter_mut().enumerate() {
                let word = cpu * job.words + start + i;
                *key = Entry(job.lines[word / 8].0[word % 8]);
            }
        }
        let counts = job.cpus[cpu];
        let loads = u64::from(tlb.geometry().table_levels());
        let walks = counts.accesses - counts.first - counts.second;
        tlb.set_pcid(Pcid(counts.pcid as u16));
        let counters = tlb.counters_mut();
        counters.accesses += counts.accesses;
        counters.hits[places.first.1] += counts.first;
        counters.hits[places.second.1] += counts.second;
        counters.walks += walks;
        counters.walk_loads += walks * loads;
        counters.switches += counts.switches;
        counters.invalidated += counts.invalidated;
    }
}

/// What a control event removes, for the vector loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    /// Nothing.
    Nothing,
    /// Everything.
    All,
    /// Entries whose word, under `mask`, is `value`.
    Matching { mask: u64, value: u64 },
    /// In the sets of `pages` pages from `first`: entries with the key of `own`, or the global key too.
    Pages { first: Vpn, pages: u64, own: Pcid, globals: bool },
}

/// What a control event does on its CPU: the context it leaves current, and what it removes. `None`: for the full
/// engine.
#[inline]
pub(super) fn control(event: Event, current: u16) -> Option<(u16, Removal)> {
    let pages = u64::from(event.pages.max(1));
    let first = Vpn(event.vpn & Vpn::MASK);
    let context = |pcid: u16| Removal::Matching {
        mask: Entry::VALID | Entry::GLOBAL | Entry::PCID_FIELD,
        value: Entry::VALID | u64::from(pcid) << Entry::PCID_SHIFT,
    };
    Some(match Op::from_number(event.op)? {
        Op::MovCr3 if event.flags & flags::NOFLUSH != 0 => (event.pcid, Removal::Nothing),
        Op::MovCr3 => (event.pcid, context(event.pcid)),
        Op::Invlpg => (current, Removal::Pages { first, pages, own: Pcid(current), globals: true }),
        Op::InvpcidAddress => {
            (current, Removal::Pages { first, pages, own: Pcid(event.pcid), globals: false })
        }
        Op::InvpcidContext => (current, context(event.pcid)),
        Op::InvpcidAll => (current, Removal::All),
        Op::InvpcidNonGlobal => {
            (current, Removal::Matching { mask: Entry::VALID | Entry::GLOBAL, value: Entry::VALID })
        }
        Op::Load | Op::Store | Op::Fetch | Op::Fill | Op::Invlpgb | Op::Edit => return None,
    })
}

#[cfg(test)]
#[allow(clippy::manual_is_multiple_of)] // bits of a draw
mod tests {
    use super::*;
    use crate::hw::Geometry;
    use crate::hw::array::splitmix64;
    use std::sync::Arc;

    /// A stream with rare flushes of every kind, `apart` in 65,536 of ops only the full engine knows, and perhaps
    /// pages whose G bit changes.
    fn stream(seed: u64, count: u64, pages: u64, apart: u64, mixed: bool) -> Vec<[u8; EVENT_BYTES]> {
        (0..count)
            .map(|n| {
                let draw = splitmix64(seed, n);
                let page = if draw % 4 == 0 { draw >> 8 } else { draw >> 40 & 0x3f } % pages;
                let rare = splitmix64(seed ^ 1, n);
                let mut op = [0, 1, 2, 0][(draw >> 3 & 3) as usize];
                if rare & 0xffff < 200 {
                    op = 4 + (rare >> 16) % 6;
                } else if rare & 0xffff < 200 + apart {
                    op = [3, 10, 11][(rare >> 16) as usize % 3];
                }
                let global = if mixed { (rare >> 33) % 16 == 0 } else { page % 16 == 0 };
                let flags =
                    u8::from(global) | if op == 4 && rare >> 40 & 1 == 1 { flags::NOFLUSH } else { 0 };
                let mut bytes = [0; EVENT_BYTES];
                bytes[..8].copy_from_slice(&(0xf_ffff_ff80_0000 + page).to_le_bytes());
                bytes[8..10].copy_from_slice(&[1 + u8::from(draw >> 5 & 7 == 0), 0]);
                bytes[10] = (draw >> 20 & 3) as u8;
                bytes[12] = (rare >> 48) as u8 % 40;
                bytes[14] = op as u8;
                bytes[15] = flags;
                bytes
            })
            .collect()
    }

    #[test]
    fn the_event_loop_leaves_the_same_state_counters_and_answers_as_the_full_engine() {
        let geometry = Arc::new(Geometry::peers());
        let mut fast_blocks = 0;
        for (seed, pages, apart, mixed) in [
            (1, 40, 0, false),
            (2, 900, 0, false),
            (3, 20_000, 4, false),
            (4, 900, 40, false),
            (5, 600, 0, true),
        ] {
            let events = stream(seed, 40_000, pages, apart, mixed);
            let mut expected = Cpus::new(&geometry, 4).unwrap();
            expected.check_events(events.as_flattened()).unwrap();
            let wanted: Vec<u8> = events.iter().map(|event| expected.step(Event::read(event))).collect();
            for with_levels in [false, true] {
                let mut cpus = Cpus::new(&geometry, 4).unwrap();
                let mut levels = vec![7; events.len()];
                let ran = run(&mut cpus, &events, with_levels.then_some(&mut levels[..]));
                assert_eq!(ran, simd::available());
                if ran {
                    assert!(!with_levels || levels == wanted, "seed {seed}");
                    assert!(cpus == expected, "seed {seed}, levels {with_levels}");
                    fast_blocks += 1;
                }
            }
        }
        assert!(fast_blocks > 0 || !simd::available());
    }

    #[test]
    fn a_change_of_a_g_bit_throws_the_block_away() {
        let geometry = Arc::new(Geometry::peers());
        let cpus = Cpus::new(&geometry, 4).unwrap();
        if let Some(places) = places(&cpus.tlbs()[0]).filter(|_| simd::available()) {
            let run = |mixed| {
                simd::run_events(&mut pack(cpus.tlbs(), places), &stream(5, 9000, 600, 0, mixed), None)
            };
            assert_eq!(run(true), Ran::Mixed);
            assert_eq!(run(false), Ran::Events(9000));
        }
    }
}
