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

#[test]
fn a_frame_that_ends_forgets_its_loop_and_no_other() {
    let mut m = with_a_page_everywhere();
    m.visited[0] = [1, 2, 3];
    m.frame_ends(0, 1);
    assert_eq!(m.visited[0], [1, 0, 3]);
    for (level, left) in [(0, vec![]), (1, vec![0]), (2, vec![])] {
        m.level = level;
        assert_eq!(m.unvisited(0, Set::Online), left, "frame {level}");
        assert!(m.unvisited(0, Set::Others).is_empty(), "there is nobody else");
    }
}

#[test]
fn a_range_is_flushed_page_by_page_where_the_question_says_so() {
    let mut m = with_a_page_everywhere();
    for ranged in [false, true] {
        m.rules.ranged = ranged;
        assert_eq!(m.range_is_full(0), !ranged);
    }
}

#[test]
fn an_address_that_is_mapped_again_was_handed_on_and_others_keep_their_frame() {
    use Entry::{Cached, Fresh, Initial, Int3, LessRights, Uncached};

    // Of a page: it goes to somebody else when it is mapped again, it is mapped, its entry has been written: then what is
    // cached of before is nobody's to use.
    for (handed_on, mapped, version, dead) in [
        (true, false, 2, 3),
        (false, false, 2, 0),
        (true, true, 2, 0),
        (true, false, 1, 0),
        (false, true, 2, 0),
        (false, false, 1, 0),
    ] {
        let mut m = with_a_page_everywhere();
        (m.pages[0].handed_on, m.mapped[0], m.version[0]) = (handed_on, mapped, version);
        m.commit(0, Stored::Entry { page: 0, v: Fresh }).unwrap();
        assert_eq!(
            (m.dead[0], m.version[0], m.mapped[0]),
            (dead, version + 1, true),
            "{handed_on} {mapped} {version}"
        );
    }
    // What is written, whether only rights change here, whether it was mapped, and whether the frame is the same as before.
    let rows = [
        (Entry::None, false, true, true),
        (Int3, false, true, true),
        (Uncached, false, false, true),
        (Cached, false, false, true),
        (LessRights, false, true, true),
        (LessRights, false, false, false),
        (Fresh, false, true, false),
        (Fresh, true, true, true),
        (Fresh, true, false, false),
        (Initial, true, true, true),
        (Initial, true, false, false),
        (Initial, false, true, true),
        (Initial, false, false, false),
    ];
    for (v, direct, mapped, same) in rows {
        let mut m = with_a_page_everywhere();
        (m.pages[0].direct, m.mapped[0]) = (direct, mapped);
        m.commit(0, Stored::Entry { page: 0, v }).unwrap();
        assert_eq!(m.since[0], if same { 1 } else { 2 }, "{v:?} {direct} {mapped}");
        assert_eq!(m.mapped[0], !matches!(v, Entry::None | Int3), "{v:?}");
        assert_eq!(m.less[0], v == LessRights, "{v:?}");
    }
}

#[test]
fn a_stale_entry_is_harmless_where_it_has_the_frame_and_no_more_rights() {
    use Violation::{StaleAccessNotReused, StaleAccessReused};
    // Mapped, with fewer rights now, first version of the frame, first version that may be used; of the entry that is used
    // its version and whether it has fewer rights.
    let rows = [
        (true, false, 1, 0, 1, false, Ok(())),
        (true, false, 1, 3, 2, false, Ok(())),
        (true, true, 1, 3, 2, false, Err(StaleAccessReused)),
        (true, true, 1, 3, 2, true, Ok(())),
        (true, false, 3, 3, 2, false, Err(StaleAccessReused)),
        (true, false, 3, 3, 3, false, Ok(())),
        (false, false, 1, 3, 2, false, Err(StaleAccessNotReused)),
        (false, false, 1, 2, 2, false, Ok(())),
    ];
    for (mapped, less, since, dead, version, of, told) in rows {
        let mut m = with_a_page_everywhere();
        (m.mapped[0], m.less[0], m.since[0], m.dead[0], m.version[0]) = (mapped, less, since, dead, 4);
        let told_now = m.uses(0, Leaf { version, less: of });
        assert_eq!(told_now, told, "{mapped} {less} {since} {dead}: {version} {of}");
    }
    let mut m = with_a_page_everywhere();
    (m.version[0], m.dead[0]) = (2, 3);
    assert_eq!(m.uses(0, Leaf { version: 1, less: false }), Err(StaleAccessNotReused), "it is out of use");
}
