//! The abstract machine: every interleaving of the same programs, within stated bounds.

pub mod promela;
