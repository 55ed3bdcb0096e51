use super::*;

fn array(replacement: Replacement, ways: u32) -> Array {
    Array::new(&structure(replacement, ways))
}

fn structure(replacement: Replacement, ways: u32) -> Structure {
    Structure {
        name: "a".into(),
        sets: 1,
        ways,
        sizes: vec![PageSize::K4],
        kinds: vec![super::super::Kind::Load],
        index: Index::Linear,
        replacement,
        pcid_slots: None,
        smt_split: false,
        smashes_1g: false,
    }
}

fn key(page: u64) -> Entry {
    Entry::new(page, PageSize::K4, Pcid(0), false)
}

fn victim_after(array: &mut Array, hits: &[u64], next: u64) -> u64 {
    for &page in hits {
        assert_ne!(array.lookup(0, key(page), key(page)), Entry::EMPTY);
    }
    array.fill(0, key(next)).page()
}

#[test]
fn lru_evicts_the_page_used_longest_ago_and_fifo_the_page_entered_first() {
    for (policy, victim) in [(Replacement::Lru, 1), (Replacement::Fifo, 0)] {
        let mut array = array(policy, 4);
        (0..4).for_each(|page| assert_eq!(array.fill(0, key(page)), Entry::EMPTY));
        assert_eq!(victim_after(&mut array, &[0], 9), victim);
    }
}

#[test]
fn tree_plru_of_four_ways_follows_its_permutations() {
    let mut array = array(Replacement::TreePlru, 4);
    (0..4).for_each(|page| {
        array.fill(0, key(page));
    });
    // Root points left (3 was last), left pair points to 0.
    assert_eq!(victim_after(&mut array, &[], 4), 0);
    // 4 took way 0: root right, right pair still points to 2.
    assert_eq!(victim_after(&mut array, &[], 5), 2);
    // A hit on 4 leaves 1 as the left victim but the root points right, to 3.
    assert_eq!(victim_after(&mut array, &[4], 6), 3);
}

#[test]
fn the_victim_group_of_a_twelve_way_set_follows_the_most_recent_group() {
    let mut array = array(Replacement::MruPlru { groups: 3 }, 12);
    (0..12).for_each(|page| {
        array.fill(0, key(page));
    });
    // Way 11 was last, group 2; the victim is in group 0, where 3 was last: 0.
    assert_eq!(victim_after(&mut array, &[], 20), 0);
    // 20 sits in group 0, so the next victim is in group 1.
    assert_eq!(victim_after(&mut array, &[], 21), 4);
    assert_eq!(victim_after(&mut array, &[], 22), 8);
    assert_eq!(victim_after(&mut array, &[5], 23), 10, "5 is in group 1, so group 2 gives its victim");
}

#[test]
fn a_partial_flush_keeps_the_survivors_order_and_frees_the_dead_ways() {
    let mut array = array(Replacement::Lru, 4);
    (0..4).for_each(|page| {
        array.fill(0, key(page));
    });
    assert_eq!(array.remove(|entry| entry.page() % 2 == 1), 2);
    assert_eq!(array.fill(0, key(10)), Entry::EMPTY);
    assert_eq!(array.fill(0, key(11)), Entry::EMPTY);
    assert_eq!(array.fill(0, key(12)).page(), 0);
    assert_eq!(array.fill(0, key(13)).page(), 2);
}

#[test]
fn random_replacement_repeats_with_its_seed() {
    let run = |seed| {
        let mut array = array(Replacement::Random { seed }, 6);
        (0..200).map(|page| array.fill(0, key(page)).0).collect::<Vec<_>>()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn splitmix64_gives_its_published_first_number() {
    assert_eq!(splitmix64(0, 0), 0xe220_a839_7b1d_cdaf);
}

#[test]
fn what_grows_stale_is_counted_once_and_gone_when_it_leaves() {
    let mut array = array(Replacement::Lru, 4);
    (0..3).for_each(|page| {
        array.fill(0, key(page));
    });
    assert_eq!(array.mark_stale(|_| false), 0);
    assert_eq!(array.stale, 0);
    assert_eq!(array.mark_stale(|entry| entry.page() < 2), 2);
    assert_eq!(array.stale, 2);
    assert_eq!(array.mark_stale(|_| true), 1, "only the one that was not marked");
    assert_eq!(array.stale, 3);
    assert_eq!(array.remove(|entry| entry.page() == 0), 1);
    assert_eq!(array.stale, 2);
}

#[test]
fn a_context_leaves_an_array_as_anything_else_would() {
    let shapes = [
        // Places with a bit each and without, orders with a bit each and without, and what is too large to be compared.
        (Replacement::TreePlru, 16, 4),
        (Replacement::TreePlru, 32, 4),
        (Replacement::MruPlru { groups: 3 }, 8, 12),
        (Replacement::Random { seed: 3 }, 4, 3),
        (Replacement::Lru, 16, 6),
        (Replacement::Fifo, 64, 1),
        (Replacement::Lru, 128, 2),
        (Replacement::Lru, 1, 40),
        (Replacement::TreePlru, 128, 4),
        (Replacement::Lru, 64, 8),
    ];
    for (number, (replacement, sets, ways)) in shapes.into_iter().enumerate() {
        let shape = Structure { sets, ways, ..structure(replacement, ways) };
        for (globals, filled) in [(0, 0), (0, 3), (9, 9), (2, 60), (20, 400), (0, 2000), (30, 2000)] {
            let mut fast = Array::new(&shape);
            for n in 0..filled {
                let draw = splitmix64(number as u64, n);
                let entry = Entry::new(n, PageSize::K4, Pcid((draw % 3) as u16), false);
                let entry = if draw >> 8 & 31 < globals { entry.as_global() } else { entry };
                fast.fill(
                    fast.set_of(n),
                    if n % 50 == 49 && sets == 16 { Entry(entry.0 | Entry::STALE) } else { entry },
                );
            }
            let mut slow = fast.clone();
            for pcid in [Pcid(1), Pcid(1), Pcid(0), Pcid(7), Pcid(2)] {
                let field =
                    |entry: Entry| entry != Entry::EMPTY && !entry.is_global() && entry.pcid() == pcid;
                let removed = slow.remove(field);
                assert_eq!(fast.remove_context(pcid), removed);
                assert!(fast == slow, "{replacement:?}, {sets} sets of {ways}");
                assert_eq!(fast.holds_globals(), slow.keys().iter().any(|entry| entry.is_global()));
                let held = slow.keys().iter().any(|&entry| entry != Entry::EMPTY);
                let own = |entry: &Entry| *entry != Entry::EMPTY && !entry.is_global();
                assert!(!fast.is_untouched() || !slow.keys().iter().any(own), "what is taken to be empty is");
                assert!(held || fast.is_untouched(), "what is emptied by this is known to be");
            }
            let entries = fast.keys().iter().filter(|&&entry| entry != Entry::EMPTY).count();
            assert_eq!((fast.clear(), slow.remove(|_| true)), (entries, entries));
            assert!(fast == slow && fast.is_untouched() && fast.stale() == 0);
        }
    }
}
