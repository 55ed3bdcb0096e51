use std::collections::{HashMap, HashSet};
use std::fmt::Debug;

use super::*;

/// Keys of so many bits, each once, in an order that says nothing.
fn keys<K: Key + std::hash::Hash>(bits: u32, count: usize) -> Vec<K> {
    let mut seen = HashSet::new();
    let draw = |i: u128| K::of(u128::from((i as u64).hash()) << 64 | u128::from((i as u64 ^ 1 << 40).hash()));
    (1..)
        .map(|i| draw(i) & K::ones(bits))
        .filter(|&k| k != K::default() && seen.insert(k))
        .take(count)
        .collect()
}

/// A table takes keys one batch after the other, each twice, and says what a plain set says; all of them are there.
fn is_a_set<K: Key + std::hash::Hash + Ord + Debug>(bits: u32, shards: usize, count: usize) {
    let spread = Spread::new(bits, shards);
    let shard = shards - 1;
    let mixed: Vec<K> = keys::<K>(bits, count * shards)
        .into_iter()
        .map(|k| spread.mixed(k))
        .filter(|&m| spread.shard(m) == shard)
        .collect();
    let mut table = Table::new(spread, shard, 0).unwrap();
    let mut set = HashSet::new();
    // What is new, what was just there, and what was there long ago, together; a batch holds some twice.
    for (i, some) in mixed.chunks(5).enumerate() {
        let old = (0..5).map(|j| mixed[(i * 977 + j * 31) % (5 * i + 1)]);
        let batch: Vec<K> = some.iter().copied().chain(some.iter().copied()).chain(old).collect();
        let want: Vec<usize> = (0..batch.len()).filter(|&j| set.insert(batch[j])).collect();
        let mut got = Vec::new();
        assert!(table.make_room());
        table.insert(&batch, |j| got.push(j));
        assert_eq!(got, want, "{bits} bits, {shards} shards, after {}", set.len());
    }
    assert_eq!(table.held(), set.len());
    let mut all = Vec::new();
    table.each(|m| all.push(m));
    let mut want: Vec<K> = set.into_iter().collect();
    all.sort_unstable();
    want.sort_unstable();
    assert!(all == want, "{bits} bits, {shards} shards: what is held is not what was inserted");
}

#[test]
fn a_table_is_a_set_at_every_load_and_through_all_its_growth() {
    for bits in [22, 33, 40, 47, 53, 58, 63, 64] {
        for shards in [1, 16] {
            is_a_set::<u64>(bits, shards, 40_000);
        }
    }
    for bits in [24, 40, 64, 65, 77, 90, 104, 117, 128] {
        for shards in [1, 16] {
            is_a_set::<u128>(bits, shards, 40_000);
        }
    }
}

#[test]
fn a_table_of_all_numbers_of_few_bits_holds_each() {
    for bits in [1, 2, 7, 15] {
        let spread = Spread::new(bits, 1);
        let mut table = Table::new(spread, 0, 0).unwrap();
        for round in 0..2 {
            for k in 1..1_u64 << bits {
                let mut new = false;
                assert!(table.make_room());
                table.insert(&[spread.mixed(k)], |_| new = true);
                assert_eq!(new, round == 0, "{k} of {bits} bits");
            }
        }
    }
}

#[test]
fn keys_that_crowd_in_one_line_are_kept_apart() {
    let spread = Spread::new(64, 1);
    let mut table = Table::new(spread, 0, 10_000).unwrap();
    // The first mixed bits decide the line: these are all in one.
    let crowd = |i: u64| 0x1234_5678_u64 << 32 | i;
    for round in 0..2 {
        for i in 0..500 {
            let mut new = false;
            assert!(table.make_room());
            table.insert(&[crowd(i)], |_| new = true);
            assert_eq!(new, round == 0, "{i}");
        }
    }
    let mut all = Vec::new();
    table.each(|m| all.push(m));
    all.sort_unstable();
    assert!(all.into_iter().eq((0..500).map(crowd)));
}

#[test]
fn mixed_bits_can_be_undone_and_are_as_many() {
    for bits in 1..=64 {
        for k in keys::<u64>(bits, 1.max((1 << bits.min(9)) - 1)) {
            let mixed = k.mix(bits);
            assert!(mixed & !u64::ones(bits) == 0 && mixed.unmix(bits) == k, "{k} of {bits} bits");
        }
    }
    for bits in 1..=128 {
        for k in keys::<u128>(bits, 1.max((1 << bits.min(9)) - 1)) {
            let mixed = k.mix(bits);
            assert!(mixed & !u128::ones(bits) == 0 && mixed.unmix(bits) == k, "{k} of {bits} bits");
        }
    }
}

#[test]
fn keys_translated_to_another_width_and_number_of_shards_are_the_same() {
    let all = keys::<u64>(50, 30_000);
    let spread = Spread::new(50, 1);
    let mut old = Shard::all(spread, 1);
    for &k in &all {
        old[0].load(spread.mixed(k));
    }
    let wide = Spread::new(90, 16);
    let mut new = Shard::translated(old, wide, |k: u64| u128::from(k) << 40 | 5);
    let mut there = HashMap::new();
    for shard in &mut new {
        assert!(!shard.is_starved());
        shard.table.as_ref().unwrap().each(|m| *there.entry(m.unmix(90)).or_insert(0) += 1);
    }
    assert_eq!(there.len(), all.len());
    assert!(all.iter().all(|&k| there[&(u128::from(k) << 40 | 5)] == 1));
}

/// Bytes a key while a set of so many grows by a half: at the least and at the most.
fn bytes_a_key<K: Key>(bits: u32, count: usize) -> (f64, f64) {
    let spread = Spread::new(bits, 16);
    let mut shards = Shard::all(spread, 1 << 15);
    let (mut least, mut most) = (f64::MAX, 0_f64);
    for i in 1..=count + count / 2 {
        let mixed = spread.mixed(K::of(i as u128 * 0x1_0001));
        shards[spread.shard(mixed)].load(mixed);
        if i >= count && i.is_multiple_of(count / 64) {
            let held: usize = shards.iter().map(|s| s.table.as_ref().unwrap().bytes()).sum();
            (least, most) = (least.min(held as f64 / i as f64), most.max(held as f64 / i as f64));
        }
    }
    (least, most)
}

#[test]
fn a_state_of_a_large_search_takes_less_than_twelve_bytes() {
    for (bits, limit) in [(64, 10.), (60, 10.), (56, 8.4), (47, 7.)] {
        let count = 4_000_000;
        let (least, most) = bytes_a_key::<u64>(bits, count);
        assert!(most < limit, "{bits} bits: {least} to {most} bytes a key");
        // Of the states one in ten is still to be expanded, more than in the largest search of the benches.
        let other = (Births::bytes(count) + count / 10 * size_of::<u64>()) as f64 / count as f64;
        assert!(most + other < 12.);
        let said = table::bytes::<u64>(count, bits) as f64 / count as f64;
        assert!(said > most * 0.95 && said < most * 1.1, "{said} is said of {least} to {most}");
    }
    let (least, most) = bytes_a_key::<u128>(75, 2_000_000);
    let said = table::bytes::<u128>(2_000_000, 75) as f64 / 2e6;
    assert!(most < 18. && said > most * 0.95, "{said} is said of {least} to {most} bytes of a wide key");
}

#[test]
fn shards_and_a_filter_change_neither_the_new_ones_nor_their_order() {
    let draw = |i: u64| (i * i * 31) % 977 + 1;
    let run = |shards: usize, slots: usize| {
        let mut all = Visited::new(500_u64);
        let spread = Spread::new(10, shards);
        let mut set = Shard::all(spread, 1);
        set[spread.shard(spread.mixed(500_u64))].load(spread.mixed(500));
        let mut recent = Recent { slots: vec![0; slots] };
        for chunk in 0..40 {
            let mut c = Candidates::default();
            c.reserve(60);
            (0..60).for_each(|i| c.put(draw(chunk as u64 * 50 + i), Birth::new(0, i as usize), &mut recent));
            c.sort(spread);
            for shard in &mut set {
                shard.insert(0, &c);
            }
            let fresh: Vec<&[u32]> = set.iter().map(|s| &s.fresh[0][..]).collect();
            all.append(c.new_ones(&fresh), chunk);
        }
        let births: Vec<_> = all.births().from(0).collect();
        (all.from(0).collect::<Vec<_>>(), births)
    };
    let (order, births) = run(1, 1);
    let (mut plain, mut from) = (vec![500], vec![(0, 0)]);
    for (chunk, i) in (0..40).flat_map(|chunk| (0..60).map(move |i| (chunk, i))) {
        let k = draw(chunk * 50 + i);
        if !plain.contains(&k) {
            plain.push(k);
            from.push((chunk as usize, i as usize));
        }
    }
    assert_eq!((&order, &births), (&plain, &from));
    for shards in [1, 2, 4, 8] {
        for slots in [1, 16, 1024] {
            assert_eq!(run(shards, slots), (order.clone(), births.clone()), "{shards} shards, {slots} slots");
        }
    }
}

#[test]
fn keys_of_expanded_states_are_forgotten_and_the_others_keep_their_numbers() {
    let mut all = Visited::new(7_u64);
    for chunk in 0..50_u64 {
        let piece = (0..300).map(|i| chunk * 300 + i + 100).collect::<Vec<u64>>();
        let births = vec![Birth::new(0, 1); piece.len()];
        all.append(Piece { keys: piece, births }, all.count() - 1);
    }
    for from in [1, 299, 5_000, 14_999] {
        all.forget_before(from);
        assert_eq!(all.get(from), from as u64 + 99);
        assert!(all.from(from).eq((from as u64..15_001).map(|i| i + 99)));
        let kept: usize = all.pieces.iter().map(Vec::len).sum();
        assert!(kept <= all.count() - from + 2 * PIECE, "{kept} kept from {from} on");
    }
}
