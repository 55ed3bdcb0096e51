//! What a CPU keeps cached, load of CR3 by load of CR3.

use super::*;
use crate::hw::Preset;
use crate::kernel::policy::{builtin, load_with};
use crate::kernel::program::{Features, NoFlush};
use crate::sim::cost::{Bound, Times};
use crate::sim::machine::Layout;

/// One CPU, and a page that both halves of two ASIDs hold: its kernel half of ASID 0 is loaded.
fn with_a_page_everywhere() -> Scripted {
    let (features, preset) = (Features::PTI_PCID, Preset::builtin("skylake-sp").unwrap());
    let code = load_with(&builtin("ipi").unwrap(), &[], features).unwrap();
    let layout = Layout { cpus: 1, isolated: &[], flush_mask: &[], sockets: 1, keep: 0 };
    let timed = Timed::new(&code, features, Times::new(&code, &preset, features, Bound::Best), &layout);
    let page = Tracked {
        name: "u".into(),
        global: false,
        user_mapped: true,
        present: true,
        handed_on: false,
        direct: false,
    };
    let rules = Rules {
        zones: [0; Zone::ALL.len()],
        lasting: 0,
        invpcid_publishes: false,
        invpcid_ordered: false,
        broadcast_drains: false,
        interrupts_drain: true,
        store_buffers: true,
        gs_faults: true,
        ranged: false,
    };
    let mut ideal = Preset::clone(&preset);
    ideal.geometry = std::sync::Arc::new(ideal.geometry.without_pcid_slots());
    let mut m = Scripted::new(timed, &Mmu::new(&ideal), vec![page], vec![0], rules);
    for _ in 0..2 {
        assert!(m.speculate(0, 0));
        to_user(&mut m, NoFlush::Keep);
        assert!(m.speculate(0, 0));
        to_kernel(&mut m);
        m.switch_asid(0);
    }
    assert_eq!(held(&m), "k0 u0 k1 u1");
    m
}

fn to_user(m: &mut Scripted, keep: NoFlush) {
    m.mov_cr3(0, m.cr3_of(0) | USER, keep).unwrap();
}

fn to_kernel(m: &mut Scripted) {
    m.mov_cr3(0, m.cr3_of(0) & !USER, NoFlush::Keep).unwrap();
}

/// In which half of which ASID the page is cached.
fn held(m: &Scripted) -> String {
    let base = m.cr3_of(0) & !USER & !(1 << ASID_SHIFT);
    let words = [("k0", 0), ("u0", USER), ("k1", 1 << ASID_SHIFT), ("u1", USER | 1 << ASID_SHIFT)];
    let holds = |bits: u64| {
        let pcid = Scripted::pcid(base | bits);
        m.mmus[0].tlb().probe(Scripted::page_number(0), pcid, Access::Load, PageSize::K4).is_some()
    };
    let held: Vec<&str> = words.iter().filter(|(_, bits)| holds(*bits)).map(|(name, _)| *name).collect();
    held.join(" ")
}

#[test]
fn the_flush_of_a_user_half_is_owed_to_its_asid_alone_and_once() {
    let mut m = with_a_page_everywhere();
    m.owe(0, false);
    m.switch_asid(0);
    to_user(&mut m, NoFlush::Owed);
    assert_eq!(held(&m), "k0 u0 k1 u1", "ASID 1 is owed nothing");
    to_kernel(&mut m);
    m.switch_asid(0);
    to_user(&mut m, NoFlush::Keep);
    assert_eq!(held(&m), "k0 u0 k1 u1", "its load does not ask");
    to_kernel(&mut m);
    to_user(&mut m, NoFlush::Owed);
    assert_eq!(held(&m), "k0 k1 u1");
    assert!(m.speculate(0, 0));
    to_kernel(&mut m);
    to_user(&mut m, NoFlush::Owed);
    assert_eq!(held(&m), "k0 u0 k1 u1", "it is owed no more");
}

#[test]
fn each_asid_may_be_owed_one() {
    let mut m = with_a_page_everywhere();
    m.owe(0, false);
    m.switch_asid(0);
    m.owe(0, false);
    to_user(&mut m, NoFlush::Owed);
    assert_eq!(held(&m), "k0 u0 k1");
    to_kernel(&mut m);
    m.switch_asid(0);
    to_user(&mut m, NoFlush::Owed);
    assert_eq!(held(&m), "k0 k1");
}

#[test]
fn what_is_owed_to_the_others_is_both_halves_of_the_next_one_once() {
    let mut m = with_a_page_everywhere();
    m.owe(0, true);
    to_user(&mut m, NoFlush::Owed);
    assert_eq!(held(&m), "k0 u0 k1 u1", "its own halves are owed nothing");
    to_kernel(&mut m);
    m.switch_asid(0);
    assert_eq!(held(&m), "k0 u0");
    assert!(m.speculate(0, 0));
    m.switch_asid(0);
    m.switch_asid(0);
    assert_eq!(held(&m), "k0 u0 k1");
}
