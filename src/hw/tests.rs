//! What is refused, at its boundary; and the quick look at a whole stream against the slow one at each event.

use super::cpus::Cpus;
use super::event::{EVENT_BYTES, Event, OPS, Op, Rules};
use super::geometry::{Index, Level, Psc, Replacement, Structure};
use super::walker::TableLines;
use super::*;
use std::sync::Arc;

fn structure(name: &str, sizes: &[PageSize], kinds: &[Kind]) -> Structure {
    Structure {
        name: name.into(),
        sets: 4,
        ways: 4,
        sizes: sizes.to_vec(),
        kinds: kinds.to_vec(),
        index: Index::Linear,
        replacement: Replacement::Lru,
        pcid_slots: None,
        smt_split: false,
        smashes_1g: false,
    }
}

fn level(name: &str, structures: Vec<Structure>) -> Level {
    Level { name: name.into(), structures, inclusive: false }
}

#[test]
fn structures_of_one_name_are_refused_in_one_level_and_in_two() {
    let one = |name: &str, kind| structure(name, &[PageSize::K4], &[kind]);
    let made = |levels| Geometry::new("x", levels, Psc::default(), 4).map(|_| ());
    let twice = vec![level("l1", vec![one("a", Kind::Load), one("a", Kind::Fetch)])];
    assert!(made(twice).unwrap_err().to_string().contains("names of structures must differ"));
    let apart = vec![level("l1", vec![one("a", Kind::Load)]), level("l2", vec![one("a", Kind::Load)])];
    assert!(made(apart).unwrap_err().to_string().contains("names of structures must differ"));
    made(vec![level("l1", vec![one("a", Kind::Load), one("b", Kind::Fetch)])]).unwrap();
}

#[test]
fn a_stream_is_refused_exactly_where_one_of_its_events_is() {
    let event = |vpn: u64, pcid: u16, cpu: u16, op: u8, bits: u8| {
        let mut bytes = [0; EVENT_BYTES];
        bytes[..8].copy_from_slice(&vpn.to_le_bytes());
        bytes[8..10].copy_from_slice(&pcid.to_le_bytes());
        bytes[10..12].copy_from_slice(&cpu.to_le_bytes());
        (bytes[14], bytes[15]) = (op, bits);
        bytes
    };
    let every = [[true; 3]; 3];
    let mut small_loads = [[false; 3]; 3];
    small_loads[PageSize::K4 as usize][Kind::Load as usize] = true;
    let mut no_large_fetches = every;
    no_large_fetches[PageSize::G1 as usize][Kind::Fetch as usize] = false;
    let (mut refused, mut taken) = (0, 0);
    for held in [every, small_loads, no_large_fetches] {
        let rules = Rules { cpus: 3, held };
        for (vpn, pcid, cpu) in
            [(0, 0, 0), (Vpn::MASK, 4095, 2), (Vpn::MASK + 1, 0, 0), (0, 4096, 0), (0, 0, 3), (1 << 63, 0, 0)]
        {
            for op in [0..=OPS.len() as u8, 15..=16, 255..=255].into_iter().flatten() {
                for bits in 0..=0x7f {
                    let one = event(vpn, pcid, cpu, op, bits);
                    let alone = Event::read(&one).check(7, 3, &held);
                    let ordinary = event(5, 1, 1, Op::Load as u8, 0);
                    let stream = rules.check(&[ordinary, one, ordinary], 6);
                    assert_eq!(stream, alone, "{vpn:#x} {pcid} {cpu} {op} {bits:#x}");
                    refused += u32::from(alone.is_err());
                    taken += u32::from(alone.is_ok());
                }
            }
        }
    }
    assert!(refused > 5_000 && taken > 2_000, "{refused} {taken}");
}

#[test]
fn events_and_accesses_are_refused_from_the_first_context_and_cpu_that_there_is_none_of() {
    let cpus = Cpus::new(&Arc::new(Geometry::peers()), 2).unwrap();
    let access = |cpu, pcids: &[u16]| {
        cpus.check_access(cpu, &[1, 2], Contexts::Each(pcids), Kind::Load, PageSize::K4)
            .map_err(|e| e.to_string())
    };
    access(1, &[0, 4095]).unwrap();
    assert!(access(1, &[0, 4096]).unwrap_err().contains("pcid[1]"));
    assert!(access(1, &[0]).unwrap_err().contains("must be as long as vpn (2): got 1"));
    assert!(access(2, &[0, 0]).unwrap_err().contains("must be below 2: got 2"));
    assert!(cpus.check_events(&[0; EVENT_BYTES]).is_ok());
    assert!(cpus.check_events(&[0; EVENT_BYTES + 1]).unwrap_err().to_string().contains("whole events"));
    let mut other = [0; EVENT_BYTES];
    other[10] = 2;
    assert!(cpus.check_events(&other).unwrap_err().to_string().contains("must be below 2: got 2"));
}

#[test]
fn with_a_model_of_lines_no_state_is_said_to_be_the_same() {
    let plain = Mmu::new(&Preset::builtin("skylake-sp").unwrap());
    let lined = plain.clone().with_table_lines(TableLines::new(64, 64));
    assert!(plain.same_state(&plain.clone()));
    assert!(!lined.same_state(&plain));
    assert!(!plain.same_state(&lined));
    assert!(!lined.same_state(&lined.clone()));
}
