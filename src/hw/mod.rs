//! What silicon does: addresses, TLB geometry, page tables, invalidations, costs. No Linux, no clock.
//!
//! Reading order: [`addr`] names, [`geometry`] as data, one [`mod@array`] of entries, the [`tlb`] made of arrays,
//! what an operation removes ([`invalidate`]), page [`table`]s, one CPU's [`mmu`], broadcast operations between
//! CPUs ([`broadcast`]), and [`preset`]s of real CPUs.

pub mod addr;
pub mod array;
mod batch;
pub mod broadcast;
pub mod curve;
mod decoupled;
pub mod error;
pub mod geometry;
pub mod invalidate;
pub mod mmu;
mod narrow;
mod packed;
mod plain;
pub mod preset;
mod simd;
pub mod stream;
pub mod table;
pub mod tlb;
pub mod walker;

pub use addr::{Asid, Kind, PageSize, Pcid, Vpn};
pub use error::TlbError;
pub use geometry::Geometry;
pub use invalidate::{Invpcid, Scope};
pub use mmu::Mmu;
pub use preset::Preset;
pub use tlb::Tlb;
