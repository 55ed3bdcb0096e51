use super::*;
use crate::hw::array::splitmix64;
use crate::hw::cpus::Cpus;
use crate::hw::{Geometry, Preset};
use std::sync::Arc;

/// Pages of four places far from each other.
fn pages(seed: u64, count: u64, span: u64) -> Vec<u64> {
    let place = [0x5_5d5c_1000, 0x7_f3a4_0000, 0x1f_ffff_8000_0000 & Vpn::MASK, 0];
    let page = |draw: u64| {
        let near = if draw.is_multiple_of(4) { draw >> 8 } else { draw >> 40 & 0x3ff } % span;
        (place[(draw >> 6 & 3) as usize] + near) & Vpn::MASK
    };
    (0..count).map(|n| page(splitmix64(seed, n))).collect()
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
            let vpns = pages(seed, count, [40, 700, 60_000][turn as usize % 3]);
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

#[test]
fn pages_that_nothing_holds_as_global_are_never_done_twice() {
    let preset = Preset::builtin("skylake-sp").unwrap();
    let mut tlb = Tlb::new(Arc::clone(&preset.geometry));
    tlb.fill(Vpn(0x999), Kind::Load, PageSize::K4, true);
    let mut buffers = Buffers::new();
    let mut flow = Flow::new(&mut tlb, &mut buffers, 3_000, (true, true));
    flow.run_pages(&pages(1, 30, 20), Contexts::One(Pcid(1)), (PageSize::K4, Kind::Load), None);
    assert!(!flow.crossed());
    flow.run_pages(&[7, 0x999], Contexts::One(Pcid(1)), (PageSize::K4, Kind::Load), None);
    assert!(flow.crossed());
}
