//! Events on many CPUs, fast: PCIDs, globals and invalidations over true LRU in two levels with 4 KiB pages.
//!
//! As in [`super::plain`] the recency order is the layout, the levels are decoupled and a way is 32 bits: a [`Names`]
//! gives every page its name in each context and as a global page. An invalidation ends a batch and is vectorised too:
//! survivors move up within their set.
//!
//! Each access looks for its own name only, and notes whether the other one (the same page, global instead of in
//! context, or the other way round) was there. It never is while a page's G bit does not change; if it was, the block
//! is thrown away and run by the full engine. Work on a copy makes that free, and also whatever this loop cannot do
//! (stale marks, huge pages, speculative fills, INVLPGB) goes to the full engine.

use rustc_hash::FxHashMap;

use super::array::Entry;
use super::plain::{EMPTY, Row};
use super::simd;
use super::stream::{CHUNK, Cpus, EVENT_BYTES, Event, Op, Rules, flags};
use super::tlb::Tlb;
use super::{Kind, PageSize, Pcid, TlbError, Vpn};

/// Events per block: what one mismatch of a G bit throws away.
const BLOCK: usize = 1 << 18;
/// Events that the full engine runs after one that this loop cannot, before the state is packed again.
const APART: usize = 1024;
/// Fewer events do not pay for packing the state.
const WORTH_PACKING: usize = 4096;

/// 32-bit names of pages in contexts: `context | window | low bits of the page number`. Context 0 stands for global
/// pages, and the last one is in no use, so that no name is [`EMPTY`].
#[derive(Debug)]
pub(super) struct Names {
    /// What was named last, by [`Names::slot`]: the loop looks only here.
    pub(super) known: Vec<Known>,
    /// First bit of the context.
    pub(super) shift: u32,
    index_of: Vec<u16>,
    contexts: Vec<Pcid>,
    window_of: FxHashMap<u32, u32>,
    windows: Vec<u32>,
}

/// The names of one window of pages in one context, without the low bits.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub(super) struct Known {
    window: u32,
    pcid: u32,
    pub(super) own: u32,
    pub(super) global: u32,
}

impl Names {
    /// Bits of a page number that its name keeps, by which sets are picked.
    pub(super) const LOW: u32 = 17;
    /// log2 of the places in `known`.
    pub(super) const KNOWN: u32 = 10;
    /// Odd numbers that spread windows and contexts over them.
    pub(super) const SPREAD: [u32; 2] = [0x9e37_79b1, 0x85eb_ca77];
    /// Contexts are given so many bits; where they do not suffice, all that there can be.
    const FEW: u32 = 7;
    const MANY: u32 = 13;

    fn new(context_bits: u32) -> Self {
        Names {
            known: vec![Known { window: 0, pcid: u32::MAX, own: 0, global: 0 }; 1 << Self::KNOWN],
            shift: u32::BITS - context_bits,
            index_of: vec![0; usize::from(Pcid::MAX) + 1],
            contexts: Vec::new(),
            window_of: FxHashMap::default(),
            windows: Vec::new(),
        }
    }

    fn slot(window: u32, pcid: u32) -> usize {
        let mixed = window.wrapping_mul(Self::SPREAD[0]) ^ pcid.wrapping_mul(Self::SPREAD[1]);
        (mixed >> (u32::BITS - Self::KNOWN)) as usize
    }

    /// The names of a window, made if need be; `None`: there are no more.
    pub(super) fn of(&mut self, window: u32, pcid: u32) -> Option<Known> {
        let slot = Self::slot(window, pcid);
        let known = self.known[slot];
        if (known.window, known.pcid) == (window, pcid) {
            return Some(known);
        }
        let index = match self.index_of[pcid as usize] {
            0 => {
                // Context 0 and the last one are not given.
                if self.contexts.len() + 2 >= 1 << (u32::BITS - self.shift) {
                    return None;
                }
                self.contexts.push(Pcid(pcid as u16));
                self.index_of[pcid as usize] = self.contexts.len() as u16;
                self.contexts.len() as u32
            }
            index => u32::from(index),
        };
        let number = match self.window_of.get(&window) {
            Some(&number) => number,
            None => {
                let number = self.windows.len() as u32;
                if number >> (self.shift - Self::LOW) != 0 {
                    return None;
                }
                self.windows.push(window);
                self.window_of.insert(window, number);
                number
            }
        };
        let global = number << Self::LOW;
        self.known[slot] = Known { window, pcid, own: index << self.shift | global, global };
        Some(self.known[slot])
    }

    /// The bits that all names of this context share; `None`: nothing has such a name.
    pub(super) fn context(&self, pcid: Pcid) -> Option<u32> {
        let index = self.index_of[usize::from(pcid.0)];
        (index > 0).then(|| u32::from(index) << self.shift)
    }

    /// The name of a page as a global one, if it has one.
    pub(super) fn global(&self, page: u64) -> Option<u32> {
        let number = self.window_of.get(&((page >> Self::LOW) as u32))?;
        Some(number << Self::LOW | page as u32 & ((1 << Self::LOW) - 1))
    }

    fn name(&mut self, entry: Entry) -> Option<u32> {
        if entry == Entry::EMPTY {
            return Some(EMPTY);
        }
        // A global entry's window is named in context 0, like any other.
        let pcid = if entry.is_global() { 0 } else { u32::from(entry.pcid().0) };
        let known = self.of((entry.page() >> Self::LOW) as u32, pcid)?;
        let low = entry.page() as u32 & ((1 << Self::LOW) - 1);
        Some(low | if entry.is_global() { known.global } else { known.own })
    }

    fn entry(&self, name: u32) -> Entry {
        if name == EMPTY {
            return Entry::EMPTY;
        }
        let number = name >> Self::LOW & ((1 << (self.shift - Self::LOW)) - 1);
        let page =
            u64::from(self.windows[number as usize]) << Self::LOW | u64::from(name & ((1 << Self::LOW) - 1));
        match name >> self.shift {
            0 => Entry::new(page, PageSize::K4, Pcid(0), true),
            index => Entry::new(page, PageSize::K4, self.contexts[index as usize - 1], false),
        }
    }
}

/// Counts of one CPU.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    accesses: u64,
    first: u64,
    second: u64,
    switches: u64,
    invalidated: u64,
}

/// Both levels of every CPU, packed.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) rows: Vec<Row>,
    pub(super) names: Names,
    /// Ways per CPU, whole rows; the second level begins at `second_at`.
    pub(super) words: usize,
    pub(super) second_at: usize,
    pub(super) first_sets: usize,
    pub(super) second_sets: usize,
    pub(super) first_ways: usize,
    pub(super) second_ways: usize,
    /// Contexts of the CPUs.
    pub(super) pcids: Vec<u16>,
    /// Of one block, per CPU: accesses, and above 32 bits switches.
    pub(super) accesses: Vec<u64>,
    /// Of one block, per CPU: second-level hits, and above 32 bits first-level misses.
    pub(super) missed: Vec<u64>,
    /// Of one block, per CPU: entries removed.
    pub(super) removed: Vec<u64>,
    counts: Vec<Counts>,
}

impl Job {
    /// Takes the counts of a block that is over; with `kept` false it never was.
    fn settle(&mut self, kept: bool) {
        for cpu in 0..self.counts.len() {
            let (accesses, missed) = (self.accesses[cpu], self.missed[cpu]);
            if kept {
                let counts = &mut self.counts[cpu];
                counts.accesses += accesses & u64::from(u32::MAX);
                counts.switches += accesses >> 32;
                counts.first += (accesses & u64::from(u32::MAX)) - (missed >> 32);
                counts.second += missed & u64::from(u32::MAX);
                counts.invalidated += self.removed[cpu];
            }
            (self.accesses[cpu], self.missed[cpu], self.removed[cpu]) = (0, 0, 0);
        }
    }
}

/// How far a block came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ran {
    /// So many events; the next one, if any, is for the full engine.
    Events(usize),
    /// So many events; the next one has no name.
    Nameless(usize),
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
///
/// Fails as [`Cpus::run`] does.
pub(super) fn run(
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
        match simd::run_events(job, copy, out) {
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

/// What a control event removes, for the vector loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    /// Nothing.
    Nothing,
    /// Everything.
    All,
    /// Everything but globals.
    NonGlobal,
    /// One context; globals stay.
    Context(Pcid),
    /// `pages` pages from `first` in context `own`, and perhaps as global pages.
    Pages { first: Vpn, pages: u64, own: Pcid, globals: bool },
}

/// What a control event does on its CPU: the context it leaves current, and what it removes. `None`: for the full
/// engine.
#[inline]
pub(super) fn control(event: Event, current: u16) -> Option<(u16, Removal)> {
    let pages = u64::from(event.pages.max(1));
    let first = Vpn(event.vpn & Vpn::MASK);
    let named = Pcid(event.pcid);
    Some(match Op::from_number(event.op)? {
        Op::MovCr3 if event.flags & flags::NOFLUSH != 0 => (event.pcid, Removal::Nothing),
        Op::MovCr3 => (event.pcid, Removal::Context(named)),
        Op::Invlpg => (current, Removal::Pages { first, pages, own: Pcid(current), globals: true }),
        Op::InvpcidAddress => (current, Removal::Pages { first, pages, own: named, globals: false }),
        Op::InvpcidContext => (current, Removal::Context(named)),
        Op::InvpcidAll => (current, Removal::All),
        Op::InvpcidNonGlobal => (current, Removal::NonGlobal),
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
                let ran = run(&mut cpus, &events, with_levels.then_some(&mut levels[..]), 0).unwrap();
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
        if let Some(places) = places(&cpus.tlbs()[0]).filter(|_| simd::available()) {
            let run = |mixed| {
                simd::run_events(
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
            assert_eq!(simd::run_events(&mut job, &[access; 9], None), Ran::Events(9));
            assert_eq!(run(false), Ran::Events(9000));
        }
    }
}
