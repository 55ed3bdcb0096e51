use super::*;

#[test]
fn every_entry_is_complete_and_no_id_occurs_twice() {
    let mut ids: Vec<_> = CATALOGUE.iter().map(|e| e.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), Cause::ALL.len());
    for e in CATALOGUE {
        assert!(
            [e.title, e.signature, e.chain, e.meaning, e.because, e.helps, e.kernels]
                .iter()
                .all(|t| !t.is_empty()),
            "{}",
            e.id
        );
    }
}

#[test]
fn only_leaf_unmaps_are_deferrable() {
    let deferrable: Vec<_> =
        CATALOGUE.iter().filter(|e| e.deferral == Deferral::KernelRange).map(|e| e.class.name()).collect();
    assert_eq!(deferrable, ["purge", "vunmap", "alias", "alias"]);
}
