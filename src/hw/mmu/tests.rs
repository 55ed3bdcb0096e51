//! One test per cell of the table "what each operation invalidates": SDM Vol. 3A 4.10.4.1 (edition checked: the copy
//! with pages 4-41 and 4-42), the INVPCID instruction page in Vol. 2A, APM Vol. 3 for INVLPGB. The survivors of every
//! operation are compared as a whole, so a cell also fails if the operation removes more.

use super::*;
use crate::hw::Geometry;
use crate::hw::broadcast::{Broadcast, Invlpgb, Rar};
use crate::hw::geometry::Psc;
use crate::hw::table::Rights;

const HERE: Pcid = Pcid(1);
const OTHER: Pcid = Pcid(2);
/// Two pages under the same PDE and one under another PML4E.
const NEAR: Vpn = Vpn(0x400);
const NEXT: Vpn = Vpn(0x401);
const FAR: Vpn = Vpn(0x10_0000_0000);
/// Global pages.
const SHARED: Vpn = Vpn(0x800);
const SHARED_NEXT: Vpn = Vpn(0x801);

fn preset() -> Preset {
    let mut preset = Preset::clone(&Preset::builtin("skylake-sp").unwrap());
    preset.geometry = Arc::new(preset.geometry.without_pcid_slots());
    preset
}

/// What is cached, in the table's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    /// NEAR, NEXT, FAR in the current context.
    here: [bool; 3],
    /// The same in another context.
    other: [bool; 3],
    /// SHARED, SHARED_NEXT.
    global: [bool; 2],
    /// PDEs of NEAR and FAR, current context.
    psc_here: [bool; 2],
    /// The same, another context.
    psc_other: [bool; 2],
}

const EVERYTHING: Held =
    Held { here: [true; 3], other: [true; 3], global: [true; 2], psc_here: [true; 2], psc_other: [true; 2] };
const NOTHING: Held = Held {
    here: [false; 3],
    other: [false; 3],
    global: [false; 2],
    psc_here: [false; 2],
    psc_other: [false; 2],
};

fn filled_with(preset: &Preset) -> Mmu {
    let mut mmu = Mmu::new(preset);
    for context in [OTHER, HERE] {
        mmu.mov_cr3(context, true).unwrap();
        for page in [NEAR, NEXT, FAR] {
            mmu.access_page(page, Kind::Load, PageSize::K4, false);
        }
    }
    for page in [SHARED, SHARED_NEXT] {
        mmu.access_page(page, Kind::Load, PageSize::K4, true);
    }
    assert_eq!(held(&mmu), EVERYTHING, "the stage is set");
    mmu
}

fn filled() -> Mmu {
    filled_with(&preset())
}

fn held(mmu: &Mmu) -> Held {
    let entries = mmu.tlb().entries();
    let psc = mmu.tlb().psc_entries();
    let leaf = |page: Vpn, context: Option<Pcid>| entries.iter().any(|e| e.vpn == page && e.pcid == context);
    let pde = |page: Vpn, context| {
        psc.iter()
            .any(|&(level, first, pcid, _)| level == 0 && first.0 >> 9 == page.0 >> 9 && pcid == context)
    };
    Held {
        here: [NEAR, NEXT, FAR].map(|page| leaf(page, Some(HERE))),
        other: [NEAR, NEXT, FAR].map(|page| leaf(page, Some(OTHER))),
        global: [SHARED, SHARED_NEXT].map(|page| leaf(page, None)),
        psc_here: [NEAR, FAR].map(|page| pde(page, HERE)),
        psc_other: [NEAR, FAR].map(|page| pde(page, OTHER)),
    }
}

/// What is left of everything after `operation`.
fn after(operation: impl FnOnce(&mut Mmu)) -> Held {
    let mut mmu = filled();
    operation(&mut mmu);
    held(&mmu)
}

// MOV CR3, CR4.PCIDE = 0 (SDM 4.10.4.1: "all TLB entries associated with PCID 000H except those for global pages ...
// all entries in all paging-structure caches associated with PCID 000H").

fn without_pcide() -> Mmu {
    let mut mmu = Mmu::new(&preset());
    mmu.mov_cr4_pcide(false).unwrap();
    mmu.access_page(NEAR, Kind::Load, PageSize::K4, false);
    mmu.access_page(SHARED, Kind::Load, PageSize::K4, true);
    mmu
}

#[test]
fn mov_cr3_without_pcide_removes_every_non_global_entry() {
    let mut mmu = without_pcide();
    mmu.mov_cr3(Pcid(0), false).unwrap();
    assert!(mmu.tlb().probe(NEAR, Pcid(0), Kind::Load, PageSize::K4).is_none());
}

#[test]
fn mov_cr3_without_pcide_keeps_global_entries() {
    let mut mmu = without_pcide();
    mmu.mov_cr3(Pcid(0), false).unwrap();
    assert!(mmu.tlb().probe(SHARED, Pcid(0), Kind::Load, PageSize::K4).is_some());
}

#[test]
fn mov_cr3_without_pcide_removes_every_paging_structure_cache_entry() {
    let mut mmu = without_pcide();
    assert!(!mmu.tlb().psc_entries().is_empty());
    mmu.mov_cr3(Pcid(0), false).unwrap();
    assert!(mmu.tlb().psc_entries().is_empty());
}

#[test]
fn without_pcide_there_is_no_other_context_and_no_noflush_bit() {
    let mut mmu = without_pcide();
    assert!(mmu.mov_cr3(Pcid(3), false).is_err());
    assert!(mmu.mov_cr3(Pcid(0), true).is_err());
}

// MOV CR3, CR4.PCIDE = 1, bit 63 = 0 (SDM 4.10.4.1: "all TLB entries associated with the PCID specified in bits 11:0 of
// the instruction's source operand except those for global pages" and that PCID's paging-structure caches; "not
// required to invalidate entries ... associated with any other PCID").

#[test]
fn mov_cr3_removes_the_new_contexts_entries_and_not_the_old_ones() {
    let left = after(|mmu| drop(mmu.mov_cr3(OTHER, false)));
    assert_eq!(left.other, [false; 3]);
    assert_eq!(left.here, [true; 3], "kept: other PCIDs");
}

#[test]
fn mov_cr3_to_the_same_context_removes_its_entries() {
    let left = after(|mmu| drop(mmu.mov_cr3(HERE, false)));
    assert_eq!(left, Held { here: [false; 3], psc_here: [false; 2], ..EVERYTHING });
}

#[test]
fn mov_cr3_keeps_global_entries() {
    assert_eq!(after(|mmu| drop(mmu.mov_cr3(OTHER, false))).global, [true; 2]);
}

#[test]
fn mov_cr3_removes_the_new_contexts_paging_structure_caches_only() {
    let left = after(|mmu| drop(mmu.mov_cr3(OTHER, false)));
    assert_eq!((left.psc_other, left.psc_here), ([false; 2], [true; 2]));
}

// MOV CR3, bit 63 = 1 (SDM 4.10.4.1: "not required to invalidate any TLB entries or entries in paging-structure
// caches").

#[test]
fn mov_cr3_with_noflush_removes_nothing() {
    assert_eq!(after(|mmu| drop(mmu.mov_cr3(OTHER, true))), EVERYTHING);
}

#[test]
fn mov_cr3_with_noflush_loads_the_context_so_that_its_entries_answer() {
    let mut mmu = filled();
    mmu.mov_cr3(OTHER, true).unwrap();
    assert!(mmu.access_page(NEAR, Kind::Load, PageSize::K4, false).level < mmu.tlb().levels());
    mmu.mov_cr3(Pcid(9), true).unwrap();
    assert_eq!(mmu.access_page(NEAR, Kind::Load, PageSize::K4, false).level, mmu.tlb().levels());
}

// MOV CR4 (SDM 4.10.4.1: "invalidates all TLB entries (including global entries) and all entries in all paging-structure
// caches (for all PCIDs) if (1) it changes the value of CR4.PGE; or (2) it changes the value of the CR4.PCIDE from 1 to
// 0"; "all TLB entries and all entries in all paging-structure caches for the current PCID if ... it changes the value
// of CR4.SMEP from 0 to 1").

#[test]
fn changing_pge_either_way_removes_everything() {
    assert_eq!(
        after(|mmu| {
            mmu.mov_cr4_pge(false);
        }),
        NOTHING
    );
    let mut mmu = Mmu::new(&preset());
    mmu.mov_cr4_pge(false);
    mmu.access_page(NEAR, Kind::Load, PageSize::K4, false);
    mmu.mov_cr4_pge(true);
    assert!(mmu.tlb().entries().is_empty());
}

#[test]
fn writing_the_same_pge_removes_nothing() {
    assert_eq!(
        after(|mmu| {
            mmu.mov_cr4_pge(true);
        }),
        EVERYTHING
    );
}

#[test]
fn clearing_pcide_removes_everything_and_leaves_context_zero() {
    let mut mmu = filled();
    mmu.mov_cr4_pcide(false).unwrap();
    assert_eq!(held(&mmu), NOTHING);
    assert_eq!(mmu.pcid(), Pcid(0));
}

#[test]
fn setting_pcide_removes_nothing_and_needs_context_zero() {
    let mut mmu = without_pcide();
    mmu.mov_cr4_pcide(true).unwrap();
    assert!(mmu.tlb().probe(NEAR, Pcid(0), Kind::Load, PageSize::K4).is_some());
    let amd = Preset::builtin("zen2-epyc").unwrap();
    assert!(Mmu::new(&amd).mov_cr4_pcide(true).is_err(), "a CPU without PCIDs");
}

#[test]
fn setting_smep_removes_the_current_contexts_entries() {
    let left = after(|mmu| {
        mmu.mov_cr4_set_smep();
    });
    assert_eq!(left, Held { here: [false; 3], psc_here: [false; 2], ..EVERYTHING });
}

#[test]
fn with_pge_off_the_global_bit_means_nothing() {
    let mut mmu = Mmu::new(&preset());
    mmu.mov_cr4_pge(false);
    mmu.access_page(SHARED, Kind::Load, PageSize::K4, true);
    mmu.mov_cr3(Pcid(0), false).unwrap();
    assert!(mmu.tlb().entries().is_empty(), "SDM 4.10.2.4");
}

// INVLPG (SDM 4.10.4.1: "any TLB entries that are for a page number corresponding to the linear address and that are
// associated with the current PCID. It also invalidates any global TLB entries with that page number, regardless of
// PCID ... all entries in all paging-structure caches associated with the current PCID, regardless of the linear
// addresses to which they correspond").

#[test]
fn invlpg_removes_that_page_in_the_current_context_only() {
    let left = after(|mmu| {
        mmu.invlpg(NEAR);
    });
    assert_eq!((left.here, left.other), ([false, true, true], [true; 3]));
}

#[test]
fn invlpg_removes_the_global_entry_of_that_page_from_any_context() {
    let left = after(|mmu| {
        mmu.mov_cr3(OTHER, true).unwrap();
        mmu.invlpg(SHARED);
    });
    assert_eq!(left.global, [false, true]);
}

#[test]
fn invlpg_removes_all_paging_structure_caches_of_the_current_context_whatever_the_address() {
    let left = after(|mmu| {
        mmu.invlpg(NEAR);
    });
    assert_eq!((left.psc_here, left.psc_other), ([false; 2], [true; 2]));
}

#[test]
fn invlpg_of_any_address_removes_a_huge_page_and_every_size_cached_for_it() {
    let mut mmu = Mmu::new(&preset());
    mmu.access_page(Vpn(0x400), Kind::Load, PageSize::M2, false);
    mmu.access_page(Vpn(0x4ff), Kind::Load, PageSize::K4, false);
    mmu.invlpg(Vpn(0x4ff));
    assert!(mmu.tlb().entries().is_empty());
}

#[test]
fn invlpg_removes_every_piece_of_a_smashed_gigabyte() {
    let mut mmu = Mmu::new(&Preset::builtin("zen2-epyc").unwrap());
    for piece in 0..4 {
        mmu.access_page(Vpn(piece * 512), Kind::Load, PageSize::G1, false);
    }
    assert_eq!(
        mmu.tlb().entries().iter().filter(|entry| entry.level == 1).count(),
        1,
        "the L1 holds it whole"
    );
    for piece in 1..4 {
        // The L1 answers for the whole page; another page's worth of entries pushes it out.
        (0..64).for_each(|i| {
            mmu.access_page(Vpn(0x100_0000 + i), Kind::Load, PageSize::K4, false);
        });
        mmu.access_page(Vpn(piece * 512), Kind::Load, PageSize::G1, false);
    }
    let pieces =
        |mmu: &Mmu| mmu.tlb().entries().iter().filter(|e| e.level == 1 && e.size == PageSize::M2).count();
    assert_eq!(pieces(&mmu), 4);
    mmu.invlpg(Vpn(7 * 512));
    assert_eq!(pieces(&mmu), 0, "SDM 4.10.2.3");
}

#[test]
fn the_invlpg_erratum_leaves_globals_only_while_pcids_are_on() {
    let raptor = Preset::builtin("raptor-cove").unwrap();
    let mut mmu = Mmu::new(&raptor);
    mmu.access_page(SHARED, Kind::Load, PageSize::K4, true);
    mmu.invlpg(SHARED);
    assert!(!mmu.tlb().entries().is_empty(), "erratum");
    mmu.mov_cr4_pcide(false).unwrap();
    mmu.access_page(SHARED, Kind::Load, PageSize::K4, true);
    mmu.invlpg(SHARED);
    assert!(mmu.tlb().entries().is_empty(), "the workaround of Linux ce0b15d11ad8");
}

// INVPCID (SDM Vol. 2A: type 0 "mappings - except global translations - for the linear address and PCID specified";
// type 1 "all mappings - except global translations - associated with the PCID"; type 2 "all mappings - including
// global translations - associated with any PCID"; type 3 "all mappings - except global translations - associated with
// any PCID").

#[test]
fn invpcid_0_removes_one_page_of_one_context() {
    let left = after(|mmu| drop(mmu.invpcid(Invpcid::Address(OTHER, NEAR))));
    assert_eq!((left.here, left.other), ([true; 3], [false, true, true]));
}

#[test]
fn invpcid_0_keeps_globals() {
    assert_eq!(after(|mmu| drop(mmu.invpcid(Invpcid::Address(HERE, SHARED)))).global, [true; 2]);
}

#[test]
fn invpcid_0_removes_the_paging_structure_caches_that_translate_the_page() {
    let left = after(|mmu| drop(mmu.invpcid(Invpcid::Address(OTHER, NEAR))));
    assert_eq!((left.psc_here, left.psc_other), ([true; 2], [false, true]));
}

#[test]
fn invpcid_1_removes_one_context_but_no_globals() {
    let left = after(|mmu| drop(mmu.invpcid(Invpcid::SingleContext(OTHER))));
    assert_eq!(left, Held { other: [false; 3], psc_other: [false; 2], ..EVERYTHING });
}

#[test]
fn invpcid_2_removes_everything() {
    assert_eq!(after(|mmu| drop(mmu.invpcid(Invpcid::AllIncludingGlobal))), NOTHING);
}

#[test]
fn invpcid_3_removes_every_context_but_no_globals() {
    let left = after(|mmu| drop(mmu.invpcid(Invpcid::AllNonGlobal)));
    assert_eq!(left, Held { global: [true; 2], ..NOTHING });
}

#[test]
fn without_pcide_invpcid_0_and_1_accept_only_context_zero_and_2_and_3_work() {
    let mut mmu = without_pcide();
    assert!(mmu.invpcid(Invpcid::Address(Pcid(1), NEAR)).is_err(), "SDM Vol. 2A: #GP(0)");
    assert!(mmu.invpcid(Invpcid::SingleContext(Pcid(1))).is_err());
    mmu.invpcid(Invpcid::AllNonGlobal).unwrap();
    assert_eq!(mmu.tlb().entries().len(), 2, "the global page in both levels");
    mmu.invpcid(Invpcid::AllIncludingGlobal).unwrap();
    assert!(mmu.tlb().entries().is_empty());
}

#[test]
fn a_cpu_without_invpcid_refuses_it() {
    let haswell = Preset::builtin("haswell-e3-1231v3").unwrap();
    assert!(Mmu::new(&haswell).invpcid(Invpcid::AllIncludingGlobal).is_err());
    assert!(Invpcid::new(4, Pcid(0), NEAR).is_err());
}

// "The processor is always free to invalidate additional entries" (SDM 4.10.4.1).

#[test]
fn fault_injection_drops_what_may_be_kept() {
    let eager = Quirks { drops_what_may_be_kept: true, ..Quirks::default() };
    let mut mmu = filled().with_quirks(eager);
    mmu.invpcid(Invpcid::AllNonGlobal).unwrap();
    assert_eq!(held(&mmu), NOTHING);
    let mut mmu = filled().with_quirks(eager);
    mmu.mov_cr3(OTHER, true).unwrap();
    assert_eq!((held(&mmu).other, held(&mmu).global), ([false; 3], [false; 2]));
}

// INVLPGB and TLBSYNC (APM Vol. 3; flags as in Linux asm/tlb.h).

fn broadcast(what: Invlpgb) -> [Held; 2] {
    let mut mmus = [filled(), filled()];
    let mut broadcast = Broadcast::new(2);
    broadcast.invlpgb(0, Some(7), what).unwrap();
    assert!(!broadcast.may_complete(0), "nobody has carried it out yet");
    assert_eq!(held(&mmus[1]), EVERYTHING);
    broadcast.tlbsync(0, &mut mmus);
    assert!(broadcast.may_complete(0));
    mmus.map(|mmu| held(&mmu))
}

#[test]
fn invlpgb_with_no_flag_removes_all_non_globals_everywhere() {
    for left in broadcast(Invlpgb::default()) {
        assert_eq!(left, Held { global: [true; 2], ..NOTHING });
    }
}

#[test]
fn invlpgb_with_globals_and_no_address_removes_everything_everywhere() {
    assert_eq!(broadcast(Invlpgb { globals: true, ..Invlpgb::default() }), [NOTHING; 2]);
}

#[test]
fn invlpgb_of_an_address_takes_it_from_every_context_and_counts_extra_pages() {
    let what = Invlpgb { page: Some(NEAR.0), extra: 1, asid: Some(0), globals: true, ..Invlpgb::default() };
    let left = broadcast(what)[1];
    assert_eq!((left.here, left.other), ([false, false, true], [false, false, true]));
    assert_eq!((left.psc_here, left.psc_other), ([false, true], [false, true]));
}

#[test]
fn invlpgb_of_an_address_without_include_global_keeps_its_global_entry() {
    let what = Invlpgb { page: Some(SHARED.0), ..Invlpgb::default() };
    assert_eq!(broadcast(what)[0].global, [true; 2]);
    assert_eq!(broadcast(Invlpgb { globals: true, ..what })[0].global, [false, true]);
}

#[test]
fn invlpgb_with_a_pcid_spares_the_others() {
    let left = broadcast(Invlpgb { pcid: Some(OTHER), ..Invlpgb::default() })[1];
    assert_eq!(left, Held { other: [false; 3], psc_other: [false; 2], ..EVERYTHING });
}

#[test]
fn invlpgb_final_only_keeps_the_paging_structure_caches() {
    let left = broadcast(Invlpgb { page: Some(NEAR.0), final_only: true, ..Invlpgb::default() })[1];
    assert_eq!((left.here[0], left.psc_here, left.psc_other), (false, [true; 2], [true; 2]));
}

#[test]
fn invlpgb_for_a_guest_removes_nothing_from_the_host() {
    let mut mmu = filled();
    let mut broadcast = Broadcast::new(1);
    broadcast.invlpgb(0, Some(7), Invlpgb { asid: Some(5), globals: true, ..Invlpgb::default() }).unwrap();
    broadcast.carry_out(0, &mut mmu);
    assert_eq!(held(&mmu), EVERYTHING);
}

#[test]
fn invlpgb_steps_by_two_megabytes_on_request() {
    let pages: Vec<Option<Vpn>> =
        Invlpgb { page: Some(0x400), extra: 2, stride_2m: true, ..Invlpgb::default() }
            .scopes()
            .map(|scope| scope.page)
            .collect();
    assert_eq!(pages, [Some(Vpn(0x400)), Some(Vpn(0x600)), Some(Vpn(0x800))]);
}

#[test]
fn invlpgb_is_refused_without_the_feature_and_beyond_its_count() {
    let mut broadcast = Broadcast::new(1);
    assert!(broadcast.invlpgb(0, None, Invlpgb::default()).is_err());
    assert!(
        broadcast.invlpgb(0, Some(7), Invlpgb { page: Some(0), extra: 8, ..Invlpgb::default() }).is_err()
    );
}

#[test]
fn tlbsync_waits_for_its_own_cpus_requests_only() {
    let mut broadcast = Broadcast::new(2);
    broadcast.invlpgb(1, Some(7), Invlpgb::default()).unwrap();
    assert!(broadcast.may_complete(0));
    assert!(!broadcast.may_complete(1));
}

// RAR (published list of operations; Intel data sheets 655258 and 743844).

#[test]
fn rar_page_invalidation_acts_where_the_context_is_loaded_and_its_sibling_everywhere() {
    for (current, expected) in [(Some(OTHER), true), (Some(HERE), false), (None, false)] {
        let mut mmus = [filled(), filled()];
        let mut broadcast = Broadcast::new(2);
        broadcast.rar(0, [1], &mmus, Rar::Page { first: NEAR, pages: 1, current });
        broadcast.carry_out(1, &mut mmus[1]);
        assert_eq!(held(&mmus[1]).here[0], expected, "{current:?}");
        assert_eq!(held(&mmus[0]), EVERYTHING, "not a target");
    }
}

#[test]
fn rar_imitates_invpcid_and_a_full_flush() {
    for (what, left) in [
        (Rar::All, NOTHING),
        (
            Rar::Invpcid(Invpcid::SingleContext(OTHER)),
            Held { other: [false; 3], psc_other: [false; 2], ..EVERYTHING },
        ),
    ] {
        let mut mmus = [filled()];
        let mut broadcast = Broadcast::new(1);
        broadcast.rar(0, [0], &mmus, what);
        broadcast.carry_out(0, &mut mmus[0]);
        assert_eq!(held(&mmus[0]), left);
    }
}

// PCID slots (HARDWARE 1.4): what a real Skylake loses that the architecture would let it keep.

#[test]
fn a_switch_of_context_empties_the_l1_dtlb_and_the_fifth_context_pushes_the_first_out_of_the_stlb() {
    let skylake = Preset::builtin("skylake-sp").unwrap();
    let mut mmu = Mmu::new(&skylake);
    let level = |mmu: &mut Mmu, context: u16| {
        mmu.mov_cr3(Pcid(context), true).unwrap();
        mmu.access_page(NEAR, Kind::Load, PageSize::K4, false).level
    };
    for context in 1..=4 {
        assert_eq!(level(&mut mmu, context), 2, "cold");
    }
    assert_eq!(level(&mut mmu, 1), 1, "four contexts fit; the L1 was emptied");
    level(&mut mmu, 5);
    assert_eq!(level(&mut mmu, 2), 2, "2 was loaded longest ago");
    assert_eq!(level(&mut mmu, 1), 1);
}

// Staleness (SEMANTICS S1, S5, S6).

fn with_tables() -> (Mmu, Tables, Root) {
    let mut tables = Tables::new(4).unwrap();
    let root = tables.new_root();
    let mut mmu = Mmu::new(&preset());
    mmu.load_cr3(root, HERE, false).unwrap();
    tables.map(root, NEAR, PageSize::K4, 1, Rights::KERNEL, false).unwrap();
    (mmu, tables, root)
}

#[test]
fn a_cached_translation_outlives_its_table_entry_until_it_is_invalidated() {
    let (mut mmu, mut tables, root) = with_tables();
    mmu.access(&tables, NEAR, Kind::Load).unwrap();
    let change = tables.unmap(root, NEAR).unwrap();
    mmu.table_changed(root, change);
    assert!(mmu.access(&tables, NEAR, Kind::Load).unwrap().0.stale);
    mmu.invlpg(NEAR);
    assert!(mmu.access(&tables, NEAR, Kind::Load).is_err());
}

#[test]
fn a_stale_huge_page_answers_before_the_small_pages_it_was_split_into() {
    let (mut mmu, mut tables, root) = with_tables();
    tables.map(root, Vpn(0x600), PageSize::M2, 512, Rights::KERNEL, false).unwrap();
    mmu.access(&tables, Vpn(0x605), Kind::Load).unwrap();
    mmu.table_changed(root, tables.split(root, Vpn(0x605)).unwrap());
    assert!(mmu.access(&tables, Vpn(0x605), Kind::Load).unwrap().0.stale);
    mmu.invlpg(Vpn(0x605));
    let (access, mapping) = mmu.access(&tables, Vpn(0x605), Kind::Load).unwrap();
    assert_eq!((access.stale, mapping.unwrap().size), (false, PageSize::K4));
}

#[test]
fn a_walk_through_a_cached_pointer_to_a_freed_table_is_marked() {
    let (mut mmu, mut tables, root) = with_tables();
    tables.map(root, NEXT, PageSize::K4, 2, Rights::KERNEL, false).unwrap();
    mmu.access(&tables, NEAR, Kind::Load).unwrap();
    let change = tables.free_table(root, NEAR, 1).unwrap();
    mmu.table_changed(root, change);
    tables.map(root, NEXT, PageSize::K4, 3, Rights::KERNEL, false).unwrap();
    let access = mmu.access(&tables, NEXT, Kind::Load).unwrap().0;
    assert!(access.stale && access.loads == 1, "the PDE cache leads into the freed table");
    assert_eq!(mmu.tlb().counters().stale_walks, 1);
}

#[test]
fn the_two_halves_of_a_pti_pair_cache_apart_and_share_globals() {
    let mut tables = Tables::new(4).unwrap();
    let pair = tables.new_pti_pair();
    tables.map_kernel(pair, SHARED, PageSize::K4, 1, Rights::KERNEL, true).unwrap();
    tables.map_kernel(pair, NEAR, PageSize::K4, 2, Rights::KERNEL, false).unwrap();
    let mut mmu = Mmu::new(&preset());
    mmu.load_cr3(pair.kernel, HERE, false).unwrap();
    for page in [SHARED, NEAR] {
        mmu.access(&tables, page, Kind::Load).unwrap();
    }
    mmu.load_cr3(pair.user, OTHER, true).unwrap();
    assert_eq!(mmu.access(&tables, SHARED, Kind::Load).unwrap().0.level, 0);
    assert!(mmu.access(&tables, NEAR, Kind::Load).is_err(), "vmalloc is not in the user half");
}

#[test]
fn a_dependent_walk_costs_its_setup_and_one_read_per_missing_level() {
    let mut mmu = Mmu::new(&preset());
    let cold = mmu.access_page(NEAR, Kind::Load, PageSize::K4, false);
    let warm = mmu.access_page(NEXT, Kind::Load, PageSize::K4, false);
    assert_eq!((cold.loads, warm.loads), (4, 1));
    let read = mmu.costs().mem_l2.cycles;
    assert_eq!(cold.cycles - warm.cycles, 3 * read);
    assert_eq!(mmu.access_page(NEXT, Kind::Load, PageSize::K4, false).cycles, 0);
}

#[test]
fn with_table_lines_a_first_walk_reads_memory_and_a_second_the_l2() {
    let mut mmu = Mmu::new(&preset()).with_table_lines(TableLines::new(1024, 8192));
    let cold = mmu.access_page(NEAR, Kind::Load, PageSize::K4, false).cycles;
    mmu.invpcid(Invpcid::AllIncludingGlobal).unwrap();
    let warm = mmu.access_page(NEAR, Kind::Load, PageSize::K4, false).cycles;
    let costs = mmu.costs();
    assert_eq!(cold, costs.walk_setup.cycles + 4 * costs.mem_dram.cycles);
    assert_eq!(warm, costs.walk_cycles(4));
}

/// Marks are of whole entries that lie in a range, in part or in full, and of no neighbour: at either end.
#[test]
fn a_range_marks_the_structures_over_it_and_not_those_beside_it() {
    let marked = |first: u64, pages: u64| {
        let mut mmu = Mmu::new(&preset());
        for page in [0x400, 0x600, 0x800] {
            mmu.access_page(Vpn(page), Kind::Load, PageSize::K4, false);
        }
        let marks = mmu.tlb_mut().mark_psc_stale(0, Vpn(first), pages, None);
        let stale = mmu.tlb().psc_entries().into_iter().filter(|&(level, .., stale)| level == 0 && stale);
        let mut pages: Vec<u64> = stale.map(|(_, first, ..)| first.0).collect();
        pages.sort_unstable();
        assert_eq!(marks, pages.len());
        pages
    };
    assert_eq!(marked(0x600, 0x200), [0x600]);
    assert_eq!(marked(0x5ff, 1), [0x400]);
    assert_eq!(marked(0x5ff, 2), [0x400, 0x600]);
    assert_eq!(marked(0x7ff, 1), [0x600]);
    assert_eq!(marked(0x7ff, 2), [0x600, 0x800]);
    assert_eq!(marked(0x400, 0x401), [0x400, 0x600, 0x800]);
}

#[test]
fn a_paging_structure_cache_has_up_to_4096_entries() {
    let of = |pde: u32| {
        let shape = preset().geometry;
        Geometry::new("p", shape.levels().to_vec(), Psc { pde, ..shape.psc() }, 4)
    };
    assert_eq!(of(4096).unwrap().psc().pde, 4096);
    assert!(of(4097).unwrap_err().to_string().contains("at most 4096 entries"));
}
