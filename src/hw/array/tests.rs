use super::*;

fn array(replacement: Replacement, ways: u32) -> Array {
    Array::new(&Structure {
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
    })
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
