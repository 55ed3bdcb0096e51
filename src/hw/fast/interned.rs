//! Real shapes, faster than as a [`super::flow`]: with pages interned to 32 bits, for long calls whose pages lie together.
//!
//! One context, 4 KiB pages of one window of 2^31, level after level in batches. An array is packed once per call in the
//! form that suits its replacement: recency orders and direction-bit trees as rows; a fully associative recency order as
//! a hash table and a [`Log`] of its uses. What no vector loop knows passes access by access.

use super::avx2;
use super::flow::holds_globals;
use super::log::Log;
use super::rows::{BATCH, Packed, WINDOW, Window};
use crate::hw::array::{Array, Entry, Order, TreeShape};
use crate::hw::tlb::Tlb;
use crate::hw::vectors;
use crate::hw::{Kind, PageSize, Pcid, Vpn};

/// Shorter calls do not pay for packing the state.
const WORTH_PACKING: usize = 4096;
/// Fully associative orders from this many ways on are logs, up to [`MOST_LOGGED`].
const LOGGED: usize = 20;
/// Most ways of a log: a table so much larger never fills a bucket for long.
const MOST_LOGGED: usize = 128;

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
            Order::Recency if avx2::LRU_WAYS.contains(&ways) => {
                Form::Recency(Packed::of(array, window, pcid, tokens)?)
            }
            Order::Trees(TreeShape::Sixteen) => Form::Other,
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
            Form::Recency(packed) => avx2::lru_pass(packed, self.fold, ids, numbers),
            Form::Trees(packed, shape) => {
                avx2::tree_pass(packed, array.tree_mut(), self.fold, *shape, ids, numbers)
            }
            Form::Log(log) => avx2::log_pass(log, ids, numbers),
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

/// Whether a TLB is such a case, but for what is global.
pub(super) fn fits(tlb: &Tlb) -> bool {
    let levels = tlb.geometry().levels();
    let long = |array: &Array| array.is_plain_lru() && array.sets() == 1 && array.ways() > MOST_LOGGED;
    levels.iter().all(|level| !level.inclusive && level.structures.iter().all(|s| s.sets.is_power_of_two()))
        && !tlb.arrays().iter().any(long)
        && !tlb.holds_stale()
        && vectors::available()
}

/// Whether pages lie in one window.
pub(super) fn together(vpns: &[u64]) -> bool {
    let base = vpns.first().copied().unwrap_or(0);
    vpns.iter().fold(0, |all, &vpn| all | (vpn ^ base)) & Vpn::MASK >> WINDOW << WINDOW == 0
}

/// Runs `vpns`, all valid, in context `pcid`. `None`: not such a case; nothing has changed.
///
/// Levels decouple as in [`super::flow`]; nothing here is global.
pub(in crate::hw) fn run(
    tlb: &mut Tlb,
    vpns: &[u64],
    pcid: Pcid,
    kind: Kind,
    mut levels: Option<&mut [u8]>,
) -> Option<()> {
    if vpns.len() < WORTH_PACKING || !fits(tlb) {
        return None;
    }
    let base = vpns[0] & Vpn::MASK & !((1 << WINDOW) - 1);
    if !together(vpns) || holds_globals(tlb) {
        return None;
    }
    tlb.switch(pcid);
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
        if !vectors::available() {
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
            let missed = avx2::log_pass(&mut log, &mut ids, &mut []);
            assert_eq!(ids[..missed], expected);
        }
        let mut same = Array::associative(40);
        log.back(&mut same, window, Pcid(1), &[]);
        assert!(same == array);
    }
}
