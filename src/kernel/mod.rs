//! What Linux does: policies as programs of micro-ops, and `step`, which executes one op on a machine.
//!
//! Reading order: [`program`] (the alphabet), [`step`] (what each op means to a [`step::Machine`]), [`text`]
//! (the one language for policy files, litmus columns, prints, pickles and counterexamples), [`assemble`]
//! (text to program), [`policy`] (the catalogue), [`world`] (which machine and kernel a question is about).

pub mod assemble;
pub mod config;
pub mod policy;
pub mod program;
pub mod smp;
pub mod step;
pub mod text;
pub mod vmalloc;
pub mod world;
