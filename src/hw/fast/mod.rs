//! Loops that leave the state, counters and answers of [`super::tlb::Tlb::access`], access by access, sooner.
//!
//! Data first: [`rows`] of 32-bit pages, [`tags`] of 16 bits, [`log`] of uses, [`linked`] orders, [`stacks`], [`orders`] of
//! any depth, the [`job`] of many CPUs. Loops over them: [`lru`] (one context, plain LRU), [`interned`] (real shapes),
//! [`regions`] (both, for pages far from each other), [`flow`] (any accesses of one CPU), [`events`] and [`by_cpu`] (many
//! CPUs), [`curve`] (many TLBs at once). Their vector twins are in [`avx2`], the only folder with `unsafe`; beside it only
//! `hw/vectors.rs`, which asks the CPU what it has, and compares keys.

// Elsewhere than on x86-64 there are no vector loops, which alone use a part of what is here.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code, unused_imports))]

pub(super) mod avx2;
pub(super) mod by_cpu;
pub mod curve;
pub(super) mod events;
pub(super) mod flow;
pub(super) mod interned;
mod job;
mod linked;
mod log;
pub(super) mod lru;
mod orders;
pub(super) mod regions;
mod rows;
mod stacks;
mod state;
mod stream;
mod tags;
