use super::*;
use crate::hw::array::splitmix64;
use crate::hw::{Geometry, Preset, Vpn};
use std::sync::Arc;

/// Events of every op, size and kind, that come in turns of a few kinds so that parts of every length occur; where pages
/// lie, whether their G bit holds and how often contexts change follow from the seed.
fn stream(seed: u64, count: u64, cpus: u64, held: impl Fn(PageSize, usize) -> bool) -> Vec<Bytes> {
    let mixed = seed % 4 == 3;
    let contexts = [1, 2, 9][(seed % 3) as usize];
    (0..count)
        .map(|n| {
            let (draw, rare) = (splitmix64(seed, n), splitmix64(seed ^ 0x5eed, n));
            let kind = (draw & 3) as usize % 3;
            let mut size = [PageSize::K4, PageSize::K4, PageSize::M2, PageSize::G1][(draw >> 2 & 3) as usize];
            let region =
                [0x5_5d5c_0000, 0x7_f3a4_0000, 0x1f_ffff_8000_0000 - 0x1000, draw >> 20 & 0xf_ffff_0000];
            let pages = [30, 500, 6_000][(seed / 3 % 3) as usize];
            let page = if draw >> 8 & 3 == 0 { draw >> 40 } else { draw >> 40 & 0x3f } % pages;
            // By region of 1 GiB, so that pages of one size do not overlap those of another too often.
            let place = (draw >> 10 & 0x3f) as usize;
            let base = if place < 60 { region[place % 3] } else { region[3] };
            let vpn = (base + page * if size == PageSize::K4 { 1 } else { size.pages() }) & Vpn::MASK;
            let op = match rare % 1_000 {
                0..30 => 4,
                30..40 => 5 + (rare >> 20) % 5,
                40..43 => 3,
                43 if rare >> 60 < 4 => 10,
                44 if rare >> 60 == 0 => 11,
                _ => kind as u64,
            };
            if op < 4 && !held(size, if op == 3 { 0 } else { op as usize }) {
                size = PageSize::K4;
            }
            let global = if mixed { rare >> 33 & 15 == 0 } else { seed % 2 == 1 && vpn.is_multiple_of(16) };
            let noflush = op == 4 && rare >> 40 & 3 > 0;
            let pcid = (1 + (rare >> 44) % contexts * u64::from(rare >> 50 & 7 == 0)) as u16;
            let mut bytes = [0; EVENT_BYTES];
            bytes[..8].copy_from_slice(&vpn.to_le_bytes());
            bytes[8..10].copy_from_slice(&pcid.to_le_bytes());
            bytes[10] = ((draw >> 56) % cpus) as u8;
            bytes[12] = (rare >> 48) as u8 % 5;
            bytes[OP] = op as u8;
            bytes[FLAGS] = u8::from(global)
                | if noflush { flags::NOFLUSH } else { 0 }
                | if op < 4 { (size as u8) << flags::SIZE_SHIFT } else { 0 }
                | if op == 10 { (rare >> 52) as u8 & (flags::VA | flags::PCID) } else { 0 };
            bytes
        })
        .collect()
}

#[test]
fn events_by_cpu_leave_what_events_one_by_one_leave() {
    let mut geometries: Vec<Arc<Geometry>> = Preset::names()
        .into_iter()
        .map(|name| Arc::clone(&Preset::builtin(name).unwrap().geometry))
        .collect();
    geometries.push(Arc::new(geometries[7].without_pcid_slots()));
    geometries.push(Arc::new(geometries[7].with_smt()));
    for (number, geometry) in geometries.iter().enumerate() {
        for turn in 0..6 {
            let (seed, count) = (12 * number as u64 + turn, [3_000, 9_000][turn as usize % 2]);
            let cpus = [1, 3, 40][turn as usize % 3];
            let mut expected = Cpus::new(geometry, cpus).unwrap();
            let held = expected.rules().held;
            let events = stream(seed, count, cpus as u64, |size, kind| held[size as usize][kind]);
            let wanted: Vec<u8> = events.iter().map(|event| expected.step(Event::read(event))).collect();
            for (with_levels, vectors) in [(true, true), (false, true), (true, false)] {
                let mut found = Cpus::new(geometry, cpus).unwrap();
                found.set_vectors(vectors);
                let mut levels = vec![77; events.len()];
                for at in (0..events.len()).step_by(2_000) {
                    let end = (at + 2_000).min(events.len());
                    let out = with_levels.then_some(&mut levels[at..end]);
                    run(&mut found, &events[at..end], out, at).unwrap();
                }
                assert!(!with_levels || levels == wanted, "{}, seed {seed}", geometry.name());
                assert!(found == expected, "{}, seed {seed}, vectors {vectors}", geometry.name());
            }
        }
    }
}

#[test]
fn an_event_that_no_cpu_could_execute_is_named_by_its_number() {
    let preset = Preset::builtin("skylake-sp").unwrap();
    let mut cpus = Cpus::new(&preset.geometry, 2).unwrap();
    let mut events = vec![[0; EVENT_BYTES]; BLOCK + 10];
    events[BLOCK + 7][10] = 2;
    let error = run(&mut cpus, &events, None, 100).unwrap_err().to_string();
    assert!(error.contains(&format!("cpu[{}]", 100 + BLOCK + 7)), "{error}");
}
