//! Loops that leave the state, counters and answers of [`super::tlb::Tlb::access`], access by access, sooner.
//!
//! Data first: [`rows`] of 32-bit pages, [`tags`] of 16 bits, [`log`] of uses, [`stacks`], the [`job`] of many CPUs. Loops
//! over them: [`lru`] (one context, plain LRU), [`levels`] and [`interned`] (real shapes), [`events`] (many CPUs),
//! [`curve`] (many TLBs at once). Their vector twins are in [`avx2`], the only folder with `unsafe`; beside it only
//! `hw/vectors.rs`, which asks the CPU what it has, and compares keys.

pub(super) mod avx2;
pub mod curve;
pub(super) mod events;
mod interned;
mod job;
pub(super) mod levels;
mod log;
pub(super) mod lru;
mod rows;
mod stacks;
mod state;
mod tags;
