use super::*;
use crate::hw::array::splitmix64;
use crate::hw::cpus::Cpus;
use crate::hw::geometry::{Index, Replacement};
use crate::hw::{Geometry, Preset, vectors};
use std::sync::Arc;

/// Pages of four places far from each other.
fn pages(seed: u64, count: u64, span: u64) -> Vec<u64> {
    repeated(seed, count, span, 1)
}

/// As [`pages`], each `often` times.
fn repeated(seed: u64, count: u64, span: u64, often: u64) -> Vec<u64> {
    let place = [0x5_5d5c_1000, 0x7_f3a4_0000, 0x1f_ffff_8000_0000 & Vpn::MASK, 0];
    let page = |draw: u64| {
        let near = if draw.is_multiple_of(4) { draw >> 8 } else { draw >> 40 & 0x3ff } % span;
        (place[(draw >> 6 & 3) as usize] + near) & Vpn::MASK
    };
    (0..count).map(|n| page(splitmix64(seed, n / often))).collect()
}

/// Presets and shapes that none of them has: ways that are no whole vectors, orders that no vector loop knows.
fn geometries() -> Vec<Arc<Geometry>> {
    let mut all: Vec<Arc<Geometry>> = Preset::names()
        .into_iter()
        .map(|name| Arc::clone(&Preset::builtin(name).unwrap().geometry))
        .collect();
    for (sets, ways, more) in [
        (1, 1536, ""),
        (1, 33, ""),
        (1, 7, ""),
        (64, 6, ""),
        (8, 5, ""),
        (4, 16, "replacement = \"tree-plru\""),
        (4, 2, "replacement = \"tree-plru\""),
        (16, 3, "replacement = \"fifo\""),
        (16, 4, "replacement = \"random\"\nseed = 7"),
        (12, 4, "index = \"modulo\""),
    ] {
        let text = format!(
            "name = \"made\"\ninherits = \"_generic\"\n[cpu]\nmhz = 1000\n[[level]]\nname = \"l1\"\n[[level.structure]]\n\
             name = \"l1\"\nsets = {sets}\nways = {ways}\nsizes = [\"4K\"]\n{more}\n"
        );
        all.push(Arc::clone(&Preset::parse(&text, "made").unwrap().geometry));
    }
    all
}

#[test]
fn accesses_in_batches_leave_what_accesses_one_by_one_leave() {
    for (number, geometry) in geometries().iter().enumerate() {
        let mut expected = Tlb::new(Arc::clone(geometry));
        let mut batched = Cpus::from_tlbs(vec![expected.clone()]);
        for turn in 0..9 {
            let seed = 100 * number as u64 + turn;
            let count = [9, 200, 600, 5_000][turn as usize % 4];
            let span = [40, 700, 60_000][turn as usize % 3];
            let vpns = repeated(seed, count, span, [1, 3][(turn / 4) as usize % 2]);
            // One context, contexts in turns, contexts at random.
            let length = [1 << 40, 50, 1][turn as usize / 3];
            let pcids: Vec<u16> = (0..count)
                .map(|n| 1 + splitmix64(seed, n / length) as u16 % [3, 70][turn as usize % 2])
                .collect();
            let kind = Kind::ALL[turn as usize % 3];
            let size = PageSize::ALL[[0, 1, 0, 2, 0][turn as usize % 5]];
            if expected.check_held(size, kind).is_err() {
                continue;
            }
            // Something global, of which no page of the turn is another form, or is.
            if turn > 4 {
                for tlb in [&mut expected, &mut batched.tlbs_mut()[0]] {
                    tlb.fill(Vpn(if turn == 5 { 0x123_4567 } else { vpns[3] }), kind, size, true);
                }
            }
            let mut wanted = Vec::new();
            for (&vpn, &pcid) in vpns.iter().zip(&pcids) {
                expected.switch(Pcid(pcid));
                wanted.push(expected.access(Vpn(vpn), kind, size, false).level);
            }
            let before = batched.clone();
            for (with_levels, vectors) in [(true, true), (false, true), (true, false)] {
                batched = before.clone();
                batched.set_vectors(vectors);
                let mut levels = vec![9; vpns.len()];
                let out = with_levels.then_some(&mut levels[..]);
                let contexts = if turn < 3 { Contexts::One(Pcid(pcids[0])) } else { Contexts::Each(&pcids) };
                batched.access(0, &vpns, contexts, kind, size, out, 0).unwrap();
                let name = geometry.name();
                assert!(!with_levels || levels == wanted, "{name} {number}, turn {turn}");
                assert!(batched.tlbs()[0] == expected, "{name} {number}, turn {turn}, vectors {vectors}");
            }
        }
    }
}

/// What [`avx2::stream_pass`] leaves: the arrays, what missed, and whether another key was met.
type Left = (Array, Array, Vec<u64>, Vec<u32>, bool);

/// Accesses through one array, or two, by vectors of four ways or eight.
fn passed(
    shape: &Structure,
    start: &[Array; 2],
    keys: &[u64],
    banks: bool,
    others: bool,
    eights: bool,
) -> Option<Left> {
    let mut arrays = start.clone();
    let mut buffers = Buffers::new();
    let stream = &mut buffers.stream;
    let mut missed = 0;
    let mut missing = (Vec::new(), Vec::new());
    for (part, keys) in keys.chunks(BATCH).enumerate() {
        for (i, &key) in keys.iter().enumerate() {
            stream.keys[i] = key;
            stream.others[i] =
                if Entry(key).is_global() { key & !Entry::GLOBAL } else { Entry(key).as_global().0 };
            stream.numbers[i] = (part * BATCH + i) as u32;
        }
        let [one, two] = &mut arrays;
        let second = banks.then_some((two, 3));
        // In two parts, as where an array loses a context.
        let (half, range) = (keys.len() / 2, 0..keys.len());
        missed = if banks {
            avx2::stream_pass(one, second, stream, range, 0, (others, eights))?
        } else {
            let ended = avx2::stream_pass(one, None, stream, 0..half, 0, (others, eights))?;
            avx2::stream_pass(one, None, stream, half..keys.len(), ended, (others, eights))?
        };
        missing.0.extend_from_slice(&stream.keys[..missed]);
        missing.1.extend_from_slice(&stream.numbers[..missed]);
    }
    assert!(missed <= BATCH && arrays[0].ways() == shape.ways as usize);
    let [one, two] = arrays;
    Some((one, two, missing.0, missing.1, buffers.stream.crossed))
}

/// The same, by lookups and fills.
fn slowly_passed(start: &[Array; 2], keys: &[u64], banks: bool, others: bool) -> Left {
    let mut arrays = start.clone();
    let (mut missing, mut numbers, mut crossed) = (Vec::new(), Vec::new(), false);
    for (number, &key) in keys.iter().enumerate() {
        let array = &mut arrays[if banks { (key >> 3 & 1) as usize } else { 0 }];
        let key = Entry(key);
        let other = if key.is_global() { Entry(key.0 & !Entry::GLOBAL) } else { key.as_global() };
        let set = array.set_of(key.page());
        crossed |= others && array.peek(set, other, other) != Entry::EMPTY;
        if array.lookup(set, key, key) == Entry::EMPTY {
            array.fill(set, key);
            missing.push(key.0);
            numbers.push(number as u32);
        }
    }
    let [one, two] = arrays;
    (one, two, missing, numbers, crossed)
}

#[test]
fn vectors_of_four_ways_and_of_eight_leave_what_lookups_leave() {
    if !vectors::available() {
        return;
    }
    let lru = |sets, ways| (sets, ways, Replacement::Lru);
    let mut shapes = vec![
        (16, 4, Replacement::TreePlru),
        (8, 8, Replacement::TreePlru),
        (4, 16, Replacement::TreePlru),
        (8, 12, Replacement::MruPlru { groups: 3 }),
        (1, 8, Replacement::TreePlru),
    ];
    for ways in [4, 6, 8, 12, 16, 24, 32] {
        shapes.extend([lru(1, ways), lru(2, ways), lru(16, ways), lru(128, ways)]);
    }
    shapes.extend(
        [1, 2, 3, 5, 9, 15, 17, 31, 33, 40, 41, 47, 48, 50, 57, 63, 64, 65, 72, 80, 81, 95, 96]
            .map(|ways| lru(1, ways)),
    );
    let mut compared = [0; 2];
    for (number, &(sets, ways, replacement)) in shapes.iter().enumerate() {
        for xor in [false, true] {
            if xor && sets == 1 {
                continue;
            }
            let shape = Structure {
                sets,
                ways,
                replacement,
                index: if xor { Index::Xor } else { Index::Linear },
                ..Geometry::peers().levels()[0].structures[0].clone()
            };
            // Where few bits tell keys apart, an order of one set has a loop of its own.
            let nears: &[bool] = if sets == 1 && ways > 16 { &[false, true] } else { &[false] };
            for (&near, turn) in nears.iter().flat_map(|near| (0..8).map(move |turn| (near, turn))) {
                let (banks, others) = (turn % 2 == 1, turn / 2 % 2 == 1);
                let place =
                    |draw: u64| if near { 0x7_f3a4_0000 | draw & 0xff_ffff } else { draw & Vpn::MASK };
                let seed = 1_000 * number as u64 + 10 * turn + u64::from(xor);
                // Few pages hit often, many seldom; some are what the array does not hold in this form.
                let span = u64::from(sets * ways) * [1, 3][(turn / 4) as usize];
                let key = |n: u64| {
                    let draw = splitmix64(seed, n);
                    let page = place(splitmix64(1, draw % (span + 1)));
                    let global = others
                        && page.is_multiple_of(5) != draw.is_multiple_of(if turn < 4 { 1 << 40 } else { 97 });
                    Entry::new(page, PageSize::K4, Pcid((page % 3) as u16), global).0
                };
                let keys: Vec<u64> = (0..1_300).map(key).collect();
                let mut start = [Array::new(&shape), Array::new(&shape)];
                // Half full, with what nobody asks for.
                if turn % 3 == 0 {
                    for n in 0..u64::from(sets * ways / 2) {
                        let entry = Entry::new(place(splitmix64(3, n)), PageSize::M2, Pcid(9), false);
                        let set = start[0].set_of(entry.page());
                        start[0].fill(set, entry);
                    }
                }
                let wanted = slowly_passed(&start, &keys, banks, others);
                for eights in [false, true] {
                    let Some(left) = passed(&shape, &start, &keys, banks, others, eights) else { continue };
                    assert!(
                        left == wanted,
                        "{sets} x {ways} {replacement:?}, xor {xor}, near {near}, turn {turn}, eights {eights}"
                    );
                    // What it has noted of where entries are lets each of them be found.
                    for (array, same) in [(&left.0, &wanted.0), (&left.1, &wanted.1)] {
                        let (mut array, mut same) = (array.clone(), same.clone());
                        assert_eq!(array.remove_context(Pcid(1)), same.remove_context(Pcid(1)));
                        assert_eq!((array.clear(), array), (same.clear(), same));
                    }
                    compared[usize::from(eights)] += 1;
                }
            }
        }
    }
    assert!(compared[0] > 300 && compared[1] >= compared[0], "{compared:?}");
}

#[test]
fn pages_that_nothing_holds_as_global_are_never_done_twice() {
    let preset = Preset::builtin("skylake-sp").unwrap();
    let mut tlb = Tlb::new(Arc::clone(&preset.geometry));
    tlb.fill(Vpn(0x999), Kind::Load, PageSize::K4, true);
    let mut buffers = Buffers::new();
    let mut flow = Flow::new(&mut tlb, &mut buffers, 3_000, (true, true));
    flow.run_pages(&pages(1, 30, 20), Contexts::One(Pcid(1)), (PageSize::K4, Kind::Load), None, false);
    assert!(!flow.crossed());
    flow.run_pages(&[7, 0x999], Contexts::One(Pcid(1)), (PageSize::K4, Kind::Load), None, false);
    assert!(flow.crossed());
}

#[test]
fn a_page_that_is_none_is_refused_where_it_stands_and_nothing_has_changed() {
    const COUNT: usize = 34_000;
    for (number, geometry) in geometries().iter().enumerate() {
        for often in [1, 3] {
            let kernel = |vpn: u64| if vpn & 1 == 0 { vpn } else { Vpn(vpn).of_canonical() };
            let seed = number as u64;
            let vpns: Vec<u64> =
                repeated(seed, COUNT as u64, 60_000, often).into_iter().map(kernel).collect();
            let pcids: Vec<u16> = (0..COUNT).map(|n| (n / 900 % 5) as u16).collect();
            for contexts in [Contexts::One(Pcid(3)), Contexts::Each(&pcids)] {
                let mut cpus = Cpus::new(geometry, 1).unwrap();
                cpus.access(0, &vpns[..5_000], contexts.part(0..5_000), Kind::Load, PageSize::K4, None, 0)
                    .unwrap();
                let before = cpus.tlbs()[0].clone();
                for bad in [0, 20_000, COUNT - 1] {
                    let mut vpns = vpns.clone();
                    vpns[bad] = 1 << 45;
                    for wanted in [false, true] {
                        let mut levels = vec![0; if wanted { COUNT } else { 0 }];
                        let levels = wanted.then_some(&mut levels[..]);
                        let told = cpus.access(0, &vpns, contexts, Kind::Load, PageSize::K4, levels, 11);
                        let expected = Vpn::new(1 << 45).unwrap_err().at("vpn", 11 + bad);
                        assert_eq!(told, Err(expected), "{number}");
                        assert!(cpus.tlbs()[0] == before, "{number}, {bad}, levels {wanted}");
                    }
                }
            }
        }
    }
}
