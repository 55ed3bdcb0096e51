//! What silicon does: addresses, TLB geometry, page tables, invalidations, costs. No Linux, no clock.
//!
//! Reading order: [`addr`] names, [`geometry`] as data, one [`mod@array`] of entries, the [`tlb`] made of arrays,
//! what an operation removes ([`invalidate`]), page [`table`]s, one CPU's [`mmu`], broadcast operations between
//! CPUs ([`broadcast`]), and [`preset`]s of real CPUs. Streams of accesses and operations: [`event`]s for many [`cpus`] at
//! once, carried out by `drive`, sooner where a loop of `fast` knows the shape.

pub mod addr;
pub mod array;
pub mod broadcast;
mod carry;
pub mod cpus;
mod drive;
mod entry;
pub mod error;
pub mod event;
mod fast;
pub mod geometry;
pub mod invalidate;
pub mod mmu;
pub mod preset;
pub mod table;
#[cfg(test)]
mod tests;
pub mod tlb;
mod vectors;
pub mod walker;

pub use addr::{Asid, Contexts, Kind, PageSize, Pcid, Vpn};
pub use error::TlbError;
pub use fast::curve;
pub use geometry::Geometry;
pub use invalidate::{Invpcid, Scope};
pub use mmu::Mmu;
pub use preset::Preset;
pub use tlb::Tlb;
