//! What silicon does: addresses, TLB geometry, page tables, invalidations, costs.
