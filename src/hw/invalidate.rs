//! What an invalidation removes, in one predicate. The lookup rule is another one: a global entry answers every
//! context, yet leaves with few operations (SDM 4.10.2.4).
//!
//! Every instruction becomes a [`Scope`]; the table is SDM Vol. 3A 4.10.4.1 (and APM Vol. 3 for INVLPGB). Where the
//! manual allows more to be removed ("may"), the engine keeps it, unless [`Quirks::drops_what_may_be_kept`].

use super::{Pcid, TlbError, Vpn};

/// Which paging-structure-cache entries an operation removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PscScope {
    /// None (MOV CR3 with bit 63 set; INVLPGB with FINAL_ONLY).
    None,
    /// Those that translate the scope's page, in its contexts (INVPCID type 0).
    Page,
    /// All of the scope's contexts, whatever the address (INVLPG does this too).
    Context,
}

/// What one operation removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// Only this page, whatever the size of the page that maps it; `None`: every address.
    pub page: Option<Vpn>,
    /// Only this context; `None`: every context.
    pub pcid: Option<Pcid>,
    /// Whether global entries leave too, regardless of their context.
    pub globals: bool,
    /// What happens to the paging-structure caches.
    pub psc: PscScope,
}

impl Scope {
    /// INVLPG: the page in the current context and any global entry for it; all paging-structure-cache entries of
    /// the current context, whatever their address.
    pub const fn invlpg(page: Vpn, current: Pcid) -> Self {
        Scope { page: Some(page), pcid: Some(current), globals: true, psc: PscScope::Context }
    }

    /// MOV CR3 without NOFLUSH: every non-global entry of the new context (of PCID 0 if CR4.PCIDE = 0).
    pub const fn mov_cr3(new: Pcid) -> Self {
        Scope { page: None, pcid: Some(new), globals: false, psc: PscScope::Context }
    }

    /// MOV CR4 that changes PGE, or PCIDE from 1 to 0; INVPCID type 2: everything.
    pub const ALL: Self = Scope { page: None, pcid: None, globals: true, psc: PscScope::Context };

    /// INVPCID type 3: every context; globals stay.
    pub const ALL_NON_GLOBAL: Self = Scope { page: None, pcid: None, globals: false, psc: PscScope::Context };

    /// The scope of one INVPCID.
    pub const fn invpcid(what: Invpcid) -> Self {
        match what {
            Invpcid::Address(pcid, page) => {
                Scope { page: Some(page), pcid: Some(pcid), globals: false, psc: PscScope::Page }
            }
            Invpcid::SingleContext(pcid) => Scope::mov_cr3(pcid),
            Invpcid::AllIncludingGlobal => Scope::ALL,
            Invpcid::AllNonGlobal => Scope::ALL_NON_GLOBAL,
        }
    }

    /// The same operation on hardware that removes everything the manual lets it keep.
    pub(crate) const fn dropping_what_may_be_kept(self) -> Self {
        Scope { globals: true, ..self }
    }
}

/// INVPCID and its descriptor, in the words of the SDM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Invpcid {
    /// Type 0: one address in one context; globals may stay.
    Address(Pcid, Vpn),
    /// Type 1: one context; globals may stay.
    SingleContext(Pcid),
    /// Type 2: everything.
    AllIncludingGlobal,
    /// Type 3: every context; globals may stay.
    AllNonGlobal,
}

impl Invpcid {
    /// From the type number and the descriptor.
    pub fn new(kind: u8, pcid: Pcid, page: Vpn) -> Result<Self, TlbError> {
        match kind {
            0 => Ok(Invpcid::Address(pcid, page)),
            1 => Ok(Invpcid::SingleContext(pcid)),
            2 => Ok(Invpcid::AllIncludingGlobal),
            3 => Ok(Invpcid::AllNonGlobal),
            _ => Err(TlbError::Fault {
                instruction: "INVPCID",
                rule: format!("type must be 0 to 3: got {kind}"),
            }),
        }
    }
}

/// Ways in which one machine differs from the architecture. All off: "may be kept" is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Quirks {
    /// Erratum of Alder and Raptor Lake (Linux ce0b15d11ad8): INVLPG leaves global entries while CR4.PCIDE = 1.
    pub invlpg_keeps_globals: bool,
    /// Fault injection: every operation that removes something also removes the globals it may remove, and the
    /// paging-structure caches it may spare.
    pub drops_what_may_be_kept: bool,
}
