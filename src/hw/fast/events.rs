//! Events on many CPUs, fast: PCIDs, globals and invalidations over true LRU in two levels with 4 KiB pages.
//!
//! As in [`super::lru`] the recency order is the layout, the levels are decoupled and a way is 32 bits: a [`Names`]
//! gives every page its name in each context and as a global page. An invalidation ends a batch and is vectorised too:
//! survivors move up within their set.
//!
//! Each access looks for its own name only, and notes whether the other one (the same page, global instead of in
//! context, or the other way round) was there. It never is while a page's G bit does not change; if it was, the block
//! is thrown away and run by the full engine. Work on a copy makes that free, and also whatever this loop cannot do
//! (stale marks, huge pages, speculative fills, INVLPGB) goes to the full engine.

use super::avx2;
use super::job::{Counts, Job, Names, Ran};
use super::rows::{EMPTY, Row};
use crate::hw::cpus::Cpus;
use crate::hw::event::{CHUNK, EVENT_BYTES, Event, Rules};
use crate::hw::tlb::Tlb;
use crate::hw::{Kind, PageSize, Pcid, TlbError};

/// Events per block: what one mismatch of a G bit throws away.
const BLOCK: usize = 1 << 18;
/// Events that the full engine runs after one that this loop cannot, before the state is packed again.
const APART: usize = 1024;
/// Fewer events do not pay for packing the state.
const WORTH_PACKING: usize = 4096;

/// Where the two levels are.
#[derive(Clone, Copy, Debug)]
struct Places {
    first: (usize, usize),
    second: (usize, usize),
}

/// Runs events; `false`: not a shape for this loop, and nothing was done.
///
/// Fails as [`Cpus::run`] does.
pub(in crate::hw) fn run(
    cpus: &mut Cpus,
    events: &[[u8; EVENT_BYTES]],
    mut levels: Option<&mut [u8]>,
    offset: usize,
) -> Result<bool, TlbError> {
    let Some(places) = places(&cpus.tlbs()[0]).filter(|_| cpus.vectors()) else { return Ok(false) };
    let rules = cpus.rules();
    let mut copy = Vec::new();
    let mut context_bits = Names::FEW;
    let mut at = 0;
    while at < events.len() {
        let mut apart = APART;
        if events.len() - at >= WORTH_PACKING && !cpus.tlbs().iter().any(Tlb::holds_stale) {
            let out = levels.as_deref_mut().map(|levels| &mut levels[at..]);
            let done;
            (done, apart) = run_packed(cpus, &events[at..], out, places, &mut context_bits, offset + at)?;
            at += done;
        }
        let end = (at + apart).min(events.len());
        while at < end {
            rules.copy(&events[at..end.min(at + CHUNK)], &mut copy, offset + at)?;
            for event in &copy {
                let level = cpus.step(Event::read(event));
                if let Some(levels) = levels.as_deref_mut() {
                    levels[at] = level;
                }
                at += 1;
            }
        }
    }
    Ok(true)
}

/// Runs block after block as far as the loop can; returns the events done and how many the full engine shall do next.
fn run_packed(
    cpus: &mut Cpus,
    events: &[[u8; EVENT_BYTES]],
    mut levels: Option<&mut [u8]>,
    places: Places,
    context_bits: &mut u32,
    offset: usize,
) -> Result<(usize, usize), TlbError> {
    let mut job = pack(cpus.tlbs(), places, *context_bits);
    if job.is_none() {
        *context_bits = Names::FEW + Names::MANY - *context_bits;
        job = pack(cpus.tlbs(), places, *context_bits);
    }
    let Some(mut job) = job else { return Ok((0, APART)) };
    let rules = cpus.rules();
    let mut copy = Vec::new();
    let (mut rows, mut pcids) = (job.rows.clone(), job.pcids.clone());
    let mut at = 0;
    let mut apart = 0;
    while at < events.len() {
        let block = &events[at..(at + BLOCK).min(events.len())];
        let out = levels.as_deref_mut().map(|levels| &mut levels[at..at + block.len()]);
        let ran = run_block(&mut job, block, out, &rules, &mut copy, offset + at)?;
        job.settle(ran != Ran::Mixed);
        match ran {
            Ran::Events(count) => {
                at += count;
                if count < block.len() {
                    apart = APART;
                    break;
                }
                rows.copy_from_slice(&job.rows);
                pcids.copy_from_slice(&job.pcids);
            }
            Ran::Nameless(count) => {
                at += count;
                *context_bits = Names::FEW + Names::MANY - *context_bits;
                // A block that needs more of both is left to the full engine piece by piece.
                apart = if count < APART { APART } else { 0 };
                break;
            }
            Ran::Mixed => {
                (job.rows, job.pcids) = (rows, pcids);
                apart = block.len();
                break;
            }
        }
    }
    unpack(cpus, &job, places);
    Ok((at, apart))
}

/// One block, in chunks that are copied and checked first.
fn run_block(
    job: &mut Job,
    block: &[[u8; EVENT_BYTES]],
    mut levels: Option<&mut [u8]>,
    rules: &Rules,
    copy: &mut Vec<[u8; EVENT_BYTES]>,
    offset: usize,
) -> Result<Ran, TlbError> {
    for (chunk, events) in block.chunks(CHUNK).enumerate() {
        let start = chunk * CHUNK;
        rules.copy(events, copy, offset + start)?;
        let out = levels.as_deref_mut().map(|levels| &mut levels[start..start + events.len()]);
        match avx2::run_events(job, copy, out) {
            Ran::Events(count) if count == events.len() => {}
            Ran::Events(count) => return Ok(Ran::Events(start + count)),
            Ran::Nameless(count) => return Ok(Ran::Nameless(start + count)),
            Ran::Mixed => return Ok(Ran::Mixed),
        }
    }
    Ok(Ran::Events(block.len()))
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
                let fits = [4, 8, 12, 16].contains(&ways)
                    && structure.sets <= 1 << Names::LOW
                    && tlb.arrays()[array].is_plain_lru();
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

/// `None`: the state needs more names than there are.
fn pack(tlbs: &[Tlb], places: Places, context_bits: u32) -> Option<Job> {
    let shape = |array: usize| (tlbs[0].arrays()[array].sets() as usize, tlbs[0].arrays()[array].ways());
    let (first_sets, first_ways) = shape(places.first.0);
    let (second_sets, second_ways) = shape(places.second.0);
    let second_at = (first_sets * first_ways.next_power_of_two()).next_multiple_of(16);
    let words = second_at + (second_sets * second_ways.next_power_of_two()).next_multiple_of(16);
    // Places are 32-bit numbers too.
    if words.saturating_mul(tlbs.len()) > i32::MAX as usize {
        return None;
    }
    let mut job = Job {
        rows: vec![Row([EMPTY; 16]); words / 16 * tlbs.len()],
        names: Names::new(context_bits),
        words,
        second_at,
        first_sets,
        second_sets,
        first_ways,
        second_ways,
        pcids: tlbs.iter().map(|tlb| tlb.pcid().0).collect(),
        accesses: vec![0; tlbs.len()],
        missed: vec![0; tlbs.len()],
        removed: vec![0; tlbs.len()],
        counts: vec![Counts::default(); tlbs.len()],
    };
    for (cpu, tlb) in tlbs.iter().enumerate() {
        for (array, start) in [(places.first.0, 0), (places.second.0, second_at)] {
            let ways = tlb.arrays()[array].ways();
            for (i, &entry) in tlb.arrays()[array].keys().iter().enumerate() {
                let word = cpu * words + start + i / ways * ways.next_power_of_two() + i % ways;
                job.rows[word / 16].0[word % 16] = job.names.name(entry)?;
            }
        }
    }
    Some(job)
}

fn unpack(cpus: &mut Cpus, job: &Job, places: Places) {
    for (cpu, tlb) in cpus.tlbs_mut().iter_mut().enumerate() {
        for (array, start) in [(places.first.0, 0), (places.second.0, job.second_at)] {
            let ways = tlb.arrays()[array].ways();
            for (i, entry) in tlb.arrays_mut()[array].keys_mut().iter_mut().enumerate() {
                let word = cpu * job.words + start + i / ways * ways.next_power_of_two() + i % ways;
                *entry = job.names.entry(job.rows[word / 16].0[word % 16]);
            }
        }
        let counts = job.counts[cpu];
        let loads = u64::from(tlb.geometry().table_levels());
        let walks = counts.accesses - counts.first - counts.second;
        tlb.set_pcid(Pcid(job.pcids[cpu]));
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

#[cfg(test)]
#[allow(clippy::manual_is_multiple_of)] // bits of a draw
mod tests {
    use super::*;
    use crate::hw::Geometry;
    use crate::hw::array::splitmix64;
    use crate::hw::event::flags;
    use crate::hw::vectors;
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
                let ran = run(&mut cpus, &events, with_levels.then_some(&mut levels[..]), 0).unwrap();
                assert_eq!(ran, vectors::available());
                if ran {
                    assert!(!with_levels || levels == wanted, "seed {seed}");
                    assert!(cpus == expected, "seed {seed}, levels {with_levels}");
                    fast_blocks += 1;
                }
            }
        }
        assert!(fast_blocks > 0 || !vectors::available());
    }

    #[test]
    fn more_contexts_or_windows_than_there_are_names_for_change_nothing() {
        let geometry = Arc::new(Geometry::peers());
        for (seed, contexts, windows) in [(1, 400, 1), (2, 3, 2000), (3, 4000, 30), (4, 4000, 5000)] {
            let mut events = stream(seed, 20_000, 300, 2, false);
            for (n, event) in events.iter_mut().enumerate() {
                let draw = splitmix64(seed ^ 7, n as u64);
                // Neighbours share a context and a window, or else nothing is ever hit.
                let (context, window) = (n as u64 / 40 % contexts, draw % 4 + n as u64 / 200 % windows);
                event[8..10].copy_from_slice(&(context as u16).to_le_bytes());
                let page = u64::from_le_bytes(event[..8].try_into().unwrap()) & 0xffff | window << 17;
                event[..8].copy_from_slice(&page.to_le_bytes());
            }
            let mut expected = Cpus::new(&geometry, 4).unwrap();
            let wanted: Vec<u8> = events.iter().map(|event| expected.step(Event::read(event))).collect();
            let mut cpus = Cpus::new(&geometry, 4).unwrap();
            let mut levels = vec![7; events.len()];
            if run(&mut cpus, &events, Some(&mut levels), 0).unwrap() {
                assert!(levels == wanted, "seed {seed}");
                assert!(cpus == expected, "seed {seed}");
            }
        }
    }

    #[test]
    fn a_change_of_a_g_bit_throws_the_block_away() {
        let geometry = Arc::new(Geometry::peers());
        let cpus = Cpus::new(&geometry, 4).unwrap();
        if let Some(places) = places(&cpus.tlbs()[0]).filter(|_| vectors::available()) {
            let run = |mixed| {
                avx2::run_events(
                    &mut pack(cpus.tlbs(), places, Names::FEW).unwrap(),
                    &stream(5, 9000, 600, 0, mixed),
                    None,
                )
            };
            assert_eq!(run(true), Ran::Mixed);
            // The page called 0 is no global one.
            let mut job = pack(cpus.tlbs(), places, Names::FEW).unwrap();
            let mut access = [0; EVENT_BYTES];
            access[8] = 1;
            assert_eq!(avx2::run_events(&mut job, &[access; 9], None), Ran::Events(9));
            assert_eq!(run(false), Ran::Events(9000));
        }
    }

    #[test]
    fn a_block_thrown_away_leaves_the_contexts_that_the_block_before_it_chose() {
        let geometry = Arc::new(Geometry::peers());
        // The first block ends in context 2; the second is the first whose G bits change, and begins there.
        let mut events = stream(6, 2 * BLOCK as u64, 600, 0, false);
        let switch = |event: &mut [u8; EVENT_BYTES], pcid: u8| {
            event[8..10].copy_from_slice(&[pcid, 0]);
            (event[14], event[15]) = (4, flags::NOFLUSH);
        };
        for cpu in 0..4 {
            switch(&mut events[BLOCK - 8 + cpu], 2);
            events[BLOCK - 8 + cpu][10] = cpu as u8;
        }
        for event in &mut events[BLOCK..] {
            (event[14], event[15]) = (0, u8::from(event[0] % 2 == 1));
        }
        let last = 2 * BLOCK - 1;
        events[last] = events[BLOCK + 1];
        events[last][15] ^= 1;
        let mut expected = Cpus::new(&geometry, 4).unwrap();
        let wanted: Vec<u8> = events.iter().map(|event| expected.step(Event::read(event))).collect();
        let mut cpus = Cpus::new(&geometry, 4).unwrap();
        let mut levels = vec![7; events.len()];
        if run(&mut cpus, &events, Some(&mut levels), 0).unwrap() {
            assert!(levels == wanted);
            assert!(cpus == expected);
        }
    }
}
