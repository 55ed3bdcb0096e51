//! The event loop of [`super::super::events`].

use super::lanes::{COMPACT, lanes8, vector8, words8};
use super::step::step;
use crate::hw::Vpn;
use crate::hw::event::{EVENT_BYTES, Event, NO_ACCESS};
use crate::hw::fast::job::{Job, Names, Ran, Removal, control};
#[allow(clippy::wildcard_imports)] // intrinsics name themselves
use std::arch::x86_64::*;

/// Accesses per batch of the event loop.
pub(super) const EVENTS: usize = 256;

/// So many CPUs may be looked at once per batch.
pub(super) const FEW_CPUS: usize = 64;

/// What the accesses of a batch are, column by column, and the numbers of those that missed the first level.
#[repr(C, align(64))]
pub(super) struct Decoded {
    names: [u32; EVENTS + 8],
    others: [u32; EVENTS + 8],
    firsts: [u32; EVENTS + 8],
    seconds: [u32; EVENTS + 8],
    cpus: [u32; EVENTS + 8],
    missed: [u32; EVENTS + 8],
}

#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn run_events(
    job: &mut Job,
    events: &[[u8; EVENT_BYTES]],
    levels: Option<&mut [u8]>,
) -> Ran {
    // SAFETY: as the caller's.
    unsafe {
        match (job.first_ways, job.second_ways) {
            (4, 4) => event_loop::<4, 4>(job, events, levels),
            (4, 8) => event_loop::<4, 8>(job, events, levels),
            (4, 12) => event_loop::<4, 12>(job, events, levels),
            (4, 16) => event_loop::<4, 16>(job, events, levels),
            (8, 8) => event_loop::<8, 8>(job, events, levels),
            (8, 12) => event_loop::<8, 12>(job, events, levels),
            (8, 16) => event_loop::<8, 16>(job, events, levels),
            _ => Ran::Events(0),
        }
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn event_loop<const FIRST: usize, const SECOND: usize>(
    job: &mut Job,
    events: &[[u8; EVENT_BYTES]],
    mut levels: Option<&mut [u8]>,
) -> Ran {
    const BLANK: [u32; EVENTS + 8] = [0; EVENTS + 8];
    let mut decoded =
        Decoded { names: BLANK, others: BLANK, firsts: BLANK, seconds: BLANK, cpus: BLANK, missed: BLANK };
    let mut crossed = _mm256_setzero_si256();
    // The context that all CPUs are in, if they are: then accesses in it switch nothing.
    let mut common = None;
    let mut start = 0;
    while start < events.len() {
        let batch = &events[start..(start + EVENTS).min(events.len())];
        if common.is_none() && job.pcids.len() <= FEW_CPUS {
            let first = job.pcids[0];
            common = job.pcids.iter().all(|&pcid| pcid == first).then_some(u32::from(first));
        }
        // SAFETY: the features are the caller's.
        let (ran, nameless) = unsafe { decode::<FIRST, SECOND>(job, batch, &mut decoded, &mut common) };
        let rows = job.rows.as_mut_ptr().cast::<u32>();
        let mut misses = 0;
        for i in 0..ran {
            // SAFETY: `ran` is at most EVENTS; `decode` gives places of whole sets.
            unsafe {
                let set = rows.add(*decoded.firsts.get_unchecked(i) as usize);
                let (name, other) = (*decoded.names.get_unchecked(i), *decoded.others.get_unchecked(i));
                let hit = step::<FIRST, true>(set, name, other, &mut crossed);
                *decoded.missed.get_unchecked_mut(misses) = i as u32;
                misses += usize::from(!hit);
            }
        }
        if let Some(levels) = levels.as_deref_mut() {
            levels[start..start + ran].fill(0);
        }
        for at in 0..misses {
            // SAFETY: as above; `decode` has checked that the CPU exists.
            unsafe {
                let i = *decoded.missed.get_unchecked(at) as usize;
                let set = rows.add(*decoded.seconds.get_unchecked(i) as usize);
                let (name, other) = (*decoded.names.get_unchecked(i), *decoded.others.get_unchecked(i));
                let hit = step::<SECOND, true>(set, name, other, &mut crossed);
                let cpu = *decoded.cpus.get_unchecked(i) as usize;
                *job.missed.get_unchecked_mut(cpu) += 1 << 32 | u64::from(hit);
                if let Some(levels) = levels.as_deref_mut() {
                    levels[start + i] = 2 - u8::from(hit);
                }
            }
        }
        start += ran;
        if _mm256_testz_si256(crossed, crossed) == 0 {
            return Ran::Mixed;
        }
        if nameless {
            return Ran::Nameless(start);
        }
        // What ended the batch early: a control event.
        if ran < batch.len() {
            let event = Event::read(&events[start]);
            let cpu = usize::from(event.cpu);
            let Some((pcid, removal)) = control(event, job.pcids[cpu]) else {
                return Ran::Events(start);
            };
            job.accesses[cpu] += u64::from(job.pcids[cpu] != pcid) << 32;
            job.pcids[cpu] = pcid;
            common = common.filter(|&common| common == u32::from(pcid));
            // SAFETY: the features are the caller's; the CPU exists, as it was an index just now.
            let removed = unsafe { remove::<FIRST, SECOND>(job, cpu, removal) };
            job.removed[cpu] += removed;
            if let Some(levels) = levels.as_deref_mut() {
                levels[start] = NO_ACCESS;
            }
            start += 1;
        }
    }
    Ran::Events(start)
}

/// Rows of four 32-bit words, eight of them, as four columns.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn columns(row: impl Fn(usize) -> *const __m128i) -> [__m256i; 4] {
    // SAFETY: the caller's rows are 16 readable bytes each.
    let pair = |i: usize| unsafe {
        _mm256_inserti128_si256::<1>(
            _mm256_castsi128_si256(_mm_loadu_si128(row(i))),
            _mm_loadu_si128(row(i + 4)),
        )
    };
    let [a, b, c, d] = [pair(0), pair(1), pair(2), pair(3)];
    let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
    let (ab_high, cd_high) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
    [
        _mm256_unpacklo_epi64(ab, cd),
        _mm256_unpackhi_epi64(ab, cd),
        _mm256_unpacklo_epi64(ab_high, cd_high),
        _mm256_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// Decodes the accesses at the head of a batch and counts them; returns how many there are, and whether what
/// follows has no name.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn decode<const FIRST: usize, const SECOND: usize>(
    job: &mut Job,
    batch: &[[u8; EVENT_BYTES]],
    decoded: &mut Decoded,
    common: &mut Option<u32>,
) -> (usize, bool) {
    let all = |word: u32| _mm256_set1_epi32(word.cast_signed());
    let cpus = job.pcids.len() as u32;
    let low_bits = all((1 << Names::LOW) - 1);
    let mut ran = 0;
    while ran < batch.len() {
        let left = (batch.len() - ran).min(8);
        let mut padded = [[0; EVENT_BYTES]; 8];
        let group = match batch[ran..].first_chunk::<8>() {
            Some(group) => group,
            None => {
                padded[..left].copy_from_slice(&batch[ran..]);
                &padded
            }
        };
        // SAFETY: eight events of 16 bytes.
        let [page, page_high, who, what] = unsafe { columns(|i| group[i].as_ptr().cast()) };
        // An access to a 4 KiB page: op 0 to 2, no size bits. One addition makes op 3 fail the same test as op 4.
        let odd = _mm256_and_si256(_mm256_add_epi32(what, all(1 << 16)), all(0x0cfc_0000));
        let plain = lanes8(_mm256_cmpeq_epi32(odd, _mm256_setzero_si256()));
        let mut taken = (plain.trailing_ones() as usize).min(left);
        let cpu = _mm256_srli_epi32::<16>(who);
        let pcid = _mm256_and_si256(who, all(0xffff));
        // Signed compares are right: both are 16 bits.
        assert!(lanes8(_mm256_cmpgt_epi32(all(cpus), cpu)) == 0xff, "events were checked");
        let low = _mm256_and_si256(page, low_bits);
        let window = _mm256_or_si256(
            _mm256_srli_epi32::<{ Names::LOW.cast_signed() }>(page),
            _mm256_slli_epi32::<{ 32 - Names::LOW.cast_signed() }>(_mm256_and_si256(
                page_high,
                all((Vpn::MASK >> 32) as u32),
            )),
        );
        let mixed = _mm256_xor_si256(
            _mm256_mullo_epi32(window, all(Names::SPREAD[0])),
            _mm256_mullo_epi32(pcid, all(Names::SPREAD[1])),
        );
        let slots = words8(_mm256_srli_epi32::<{ 32 - Names::KNOWN.cast_signed() }>(mixed));
        let known = job.names.known.as_ptr();
        // SAFETY: a slot has `KNOWN` bits, and there are 2^KNOWN places of 16 bytes.
        let [of_window, of_pcid, mut own, mut global] =
            unsafe { columns(|i| known.add(slots[i] as usize).cast()) };
        let same = _mm256_and_si256(_mm256_cmpeq_epi32(of_window, window), _mm256_cmpeq_epi32(of_pcid, pcid));
        let mut nameless = false;
        if lanes8(same) != 0xff {
            let (windows, pcids) = (words8(window), words8(pcid));
            let (mut owns, mut globals) = ([0; 8], [0; 8]);
            let mut i = 0;
            while i < taken {
                match job.names.of(windows[i], pcids[i]) {
                    Some(known) => (owns[i], globals[i]) = (known.own, known.global),
                    None => (taken, nameless) = (i, true),
                }
                i += 1;
            }
            (own, global) = (vector8(owns), vector8(globals));
        }
        let (own, global) = (_mm256_or_si256(own, low), _mm256_or_si256(global, low));
        // The lowest flag, as a sign.
        let choice = _mm256_castsi256_ps(_mm256_slli_epi32::<7>(what));
        let choose = |a, b| {
            let chosen = _mm256_blendv_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), choice);
            _mm256_castps_si256(chosen)
        };
        let base = _mm256_mullo_epi32(cpu, all(job.words as u32));
        let place = |sets: usize, ways: usize| {
            let set = _mm256_and_si256(low, all(sets as u32 - 1));
            _mm256_mullo_epi32(set, all(ways.next_power_of_two() as u32))
        };
        let first = _mm256_add_epi32(base, place(job.first_sets, FIRST));
        let second = _mm256_add_epi32(
            _mm256_add_epi32(base, all(job.second_at as u32)),
            place(job.second_sets, SECOND),
        );
        // SAFETY: `ran` is at most EVENTS, and the columns have room for eight more.
        unsafe {
            let store = |column: &mut [u32; EVENTS + 8], lanes| {
                _mm256_storeu_si256(column.as_mut_ptr().add(ran).cast(), lanes);
            };
            store(&mut decoded.names, choose(own, global));
            store(&mut decoded.others, choose(global, own));
            store(&mut decoded.firsts, first);
            store(&mut decoded.seconds, second);
            store(&mut decoded.cpus, cpu);
        }
        let usual = common.is_some_and(|common| lanes8(_mm256_cmpeq_epi32(pcid, all(common))) == 0xff);
        if usual && taken == 8 {
            for event in group {
                // SAFETY: the CPU was checked above.
                unsafe { *job.accesses.get_unchecked_mut(cpu_of(event)) += 1 };
            }
        } else {
            for event in &group[..taken] {
                let cpu = cpu_of(event);
                let pcid = u16::from_le_bytes([event[8], event[9]]);
                // SAFETY: as above.
                unsafe {
                    let current = job.pcids.get_unchecked_mut(cpu);
                    *job.accesses.get_unchecked_mut(cpu) += 1 + (u64::from(*current != pcid) << 32);
                    *current = pcid;
                }
            }
            *common = common.filter(|_| usual);
        }
        ran += taken;
        if taken < left {
            return (ran, nameless);
        }
    }
    (ran, false)
}

/// The CPU of an event.
#[inline]
pub(super) fn cpu_of(event: &[u8; EVENT_BYTES]) -> usize {
    usize::from(u16::from_le_bytes([event[10], event[11]]))
}

/// Carries out a removal on one CPU; returns the entries that left.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn remove<const FIRST: usize, const SECOND: usize>(
    job: &mut Job,
    cpu: usize,
    removal: Removal,
) -> u64 {
    assert!(cpu < job.pcids.len());
    // SAFETY: the CPU's words.
    let rows = unsafe { job.rows.as_mut_ptr().cast::<u32>().add(cpu * job.words) };
    let second_at = job.second_at;
    let (first_stride, second_stride) = (FIRST.next_power_of_two(), SECOND.next_power_of_two());
    let everywhere = |dies: Dies| {
        let mut removed = 0;
        // SAFETY: every set of both levels.
        unsafe {
            for set in 0..job.first_sets {
                removed += squeeze::<FIRST>(rows.add(set * first_stride), dies);
            }
            for set in 0..job.second_sets {
                removed += squeeze::<SECOND>(rows.add(second_at + set * second_stride), dies);
            }
        }
        removed
    };
    let context = u32::MAX << job.names.shift;
    match removal {
        Removal::Nothing => 0,
        Removal::All => {
            let empty = _mm256_set1_epi32(-1);
            let mut free = _mm256_setzero_si256();
            for at in (0..job.words).step_by(8) {
                // SAFETY: the CPU's words are whole rows of sixteen.
                unsafe {
                    let old = _mm256_load_si256(rows.add(at).cast());
                    free = _mm256_sub_epi32(free, _mm256_cmpeq_epi32(old, empty));
                    _mm256_store_si256(rows.add(at).cast(), empty);
                }
            }
            job.words as u64 - words8(free).into_iter().map(u64::from).sum::<u64>()
        }
        // Neither global (context 0) nor empty (all bits).
        Removal::NonGlobal => everywhere(Dies { mask: context, value: 0, also: context, but: true }),
        Removal::Context(pcid) => match job.names.context(pcid) {
            None => 0,
            Some(value) => everywhere(Dies { mask: context, value, also: value, but: false }),
        },
        Removal::Pages { first, pages, own, globals } => {
            let mut removed = 0;
            let context = job.names.context(own);
            for page in first.0..(first.0 + pages).min(Vpn::MASK + 1) {
                let Some(global) = job.names.global(page) else { continue };
                let value = match context {
                    Some(context) => context | global,
                    None if globals => global,
                    None => continue,
                };
                let also = if globals { global } else { value };
                let dies = Dies { mask: u32::MAX, value, also, but: false };
                // SAFETY: the page's sets.
                unsafe {
                    let set = page as usize & (job.first_sets - 1);
                    removed += squeeze::<FIRST>(rows.add(set * first_stride), dies);
                    let set = page as usize & (job.second_sets - 1);
                    removed += squeeze::<SECOND>(rows.add(second_at + set * second_stride), dies);
                }
            }
            removed
        }
    }
}

/// Ways that, under `mask`, are `value` or `also`; with `but`, all others.
#[derive(Clone, Copy)]
pub(super) struct Dies {
    mask: u32,
    value: u32,
    also: u32,
    but: bool,
}

/// Takes the dying ways out of a set; survivors move up in order, freed ways are at the end.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) unsafe fn squeeze<const WAYS: usize>(set: *mut u32, dies: Dies) -> u64 {
    let all = |word: u32| _mm256_set1_epi32(word.cast_signed());
    let empty = all(u32::MAX);
    let stride = WAYS.next_power_of_two();
    let flip = if dies.but { 0xff } else { 0 };
    let dead = |ways| {
        let seen = _mm256_and_si256(ways, all(dies.mask));
        let same = _mm256_or_si256(
            _mm256_cmpeq_epi32(seen, all(dies.value)),
            _mm256_cmpeq_epi32(seen, all(dies.also)),
        );
        lanes8(same) ^ flip
    };
    let order = |dead: u32| {
        let lives = !dead as usize & 0xff;
        let order = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(COMPACT[lives].cast_signed()));
        (order, lives.count_ones() as usize)
    };
    // SAFETY: a set is `stride` aligned words, of which those beyond `WAYS` are empty, and empty ways live.
    unsafe {
        if stride == 4 {
            let ways = _mm256_inserti128_si256::<0>(empty, _mm_load_si128(set.cast()));
            let dead = dead(ways);
            if dead == 0 {
                return 0;
            }
            // The lanes beyond the four are empty and move up.
            let (order, _) = order(dead);
            let moved = _mm256_permutevar8x32_epi32(ways, order);
            _mm_store_si128(set.cast(), _mm256_castsi256_si128(moved));
            return u64::from(dead.count_ones());
        }
        let head = _mm256_load_si256(set.cast());
        let tail = if stride == 16 { _mm256_load_si256(set.add(8).cast()) } else { empty };
        let (head_dead, tail_dead) = (dead(head), dead(tail));
        if head_dead | tail_dead == 0 {
            return 0;
        }
        let mut kept = [u32::MAX; 24];
        let (head_order, head_kept) = order(head_dead);
        let (tail_order, tail_kept) = order(tail_dead);
        _mm256_storeu_si256(kept.as_mut_ptr().cast(), _mm256_permutevar8x32_epi32(head, head_order));
        let behind = kept.as_mut_ptr().add(head_kept);
        _mm256_storeu_si256(behind.cast(), _mm256_permutevar8x32_epi32(tail, tail_order));
        kept[head_kept + tail_kept..].fill(u32::MAX);
        std::ptr::copy_nonoverlapping(kept.as_ptr(), set, stride);
        u64::from(head_dead.count_ones() + tail_dead.count_ones())
    }
}
