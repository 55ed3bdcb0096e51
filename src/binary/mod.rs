//! What a kernel image says of its entry and exit paths, read from the machine code alone.
//!
//! [`image`] unpacks, [`kallsyms`] and [`btf`] name, [`patch`] applies what the kernel patches at boot for a set of
//! CPU features, [`scenario`] says in which state a path starts, [`walk`] follows it and lists each access and each op
//! on the TLB, [`emit`] writes that as a kernel text. Nothing here knows of Python.

// Methods of one walker, whether or not they look at it.
#![allow(clippy::unused_self)]
// Addresses are u64 and offsets i64: both wrap and extend their sign as the CPU's do.
#![allow(clippy::cast_possible_wrap, clippy::cast_lossless)]

pub mod btf;
pub mod census;
pub mod difference;
pub mod emit;
pub mod features;
pub mod image;
pub mod kallsyms;
pub mod live;
pub mod patch;
pub mod scenario;
pub mod step;
mod value;
pub mod walk;

/// An image that is refused, or a walk that cannot be made: what, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BinaryError(pub String);
