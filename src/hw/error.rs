//! What the hardware model refuses. Each message names the value, its place and the rule it broke.

use thiserror::Error;

/// Input that no TLB, page table or preset can have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TlbError {
    /// An address whose upper bits are not copies of its sign bit.
    #[error("address must be canonical (57 bits): got {va:#x}")]
    NonCanonical {
        /// The address.
        va: u64,
    },
    /// A page number that no canonical address has.
    #[error("vpn must be the page number of a canonical address (57 bits): got {vpn:#x}")]
    NonCanonicalPage {
        /// The page number.
        vpn: u64,
    },
    /// A context tag wider than CR3 holds.
    #[error("pcid must be at most 4095: got {pcid}")]
    PcidTooBig {
        /// The value.
        pcid: u64,
    },
    /// Not a page size of x86-64.
    #[error("page_size must be 4096, 2097152 or 1073741824 bytes: got {bytes}")]
    PageSize {
        /// The value.
        bytes: u64,
    },
    /// No structure of the geometry holds pages of this size for this kind of access.
    #[error("no level of {tlb} holds {size} pages for {kind} accesses")]
    SizeNotHeld {
        /// Name of the geometry.
        tlb: String,
        /// Page size.
        size: &'static str,
        /// Kind of access.
        kind: &'static str,
    },
    /// A structure's shape breaks a rule.
    #[error("{place}: {rule}")]
    Shape {
        /// Which structure and field.
        place: String,
        /// The rule and the value.
        rule: String,
    },
    /// A page-table operation that breaks a rule.
    #[error("{0}")]
    Table(String),
    /// An instruction that this machine, or its present state, does not allow.
    #[error("{instruction}: {rule}")]
    Fault {
        /// The instruction.
        instruction: &'static str,
        /// The rule and the value.
        rule: String,
    },
    /// A preset text that cannot be read.
    #[error("{0}")]
    Preset(String),
    /// An element of an input array.
    #[error("{field}[{index}]: {rule}")]
    Element {
        /// The array or column.
        field: &'static str,
        /// Its element.
        index: usize,
        /// The rule and the value.
        rule: String,
    },
}

impl TlbError {
    /// The same complaint about element `index` of the array `field`.
    #[must_use]
    pub fn at(self, field: &'static str, index: usize) -> Self {
        TlbError::Element { field, index, rule: self.to_string() }
    }

    /// A broken rule of a structure's shape.
    pub(crate) fn shape(place: impl Into<String>, rule: impl Into<String>) -> Self {
        TlbError::Shape { place: place.into(), rule: rule.into() }
    }
}
