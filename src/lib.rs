//! tlbcore: who interrupts isolated CPUs, is a TLB-flush deferral safe, and what does it cost?
//!
//! Reading order, which is also the order of dependence:
//!
//! 1. [`hw`]: what silicon does. TLBs, page tables, invalidations, costs. Knows no Linux.
//! 2. [`kernel`]: what Linux does. Policies as programs of micro-ops, and `step`, which executes one op on a
//!    machine. Knows no clock.
//! 3. [`sim`]: the timed machine. It counts.
//! 4. [`check`]: the abstract machine. Every interleaving, within bounds.
//! 5. [`twin`]: one question in both drivers.
//! 6. [`trace`]: recordings of real kernels, and who caused what in them.
//! 7. [`addresses`]: address traces of other tools, for the TLBs of [`hw`].
//! 8. [`sweep`]: many configurations and seeds.
//! 9. [`binary`]: kernel images, and what their machine code does between user mode and the flush. Knows `kernel` by
//!    its text alone.
//! 10. [`calibrate`]: measurements of the machine this runs on. Apart from the rest.
//!
//! `sim` and `check` do not know each other, `twin` knows both; nothing but `py` knows Python.

pub mod addresses;
pub mod binary;
pub mod calibrate;
pub mod check;
pub mod hw;
pub mod interval;
pub mod kernel;
pub mod perfetto;
pub mod sim;
pub mod sweep;
pub mod trace;
pub mod twin;

mod bounded;
mod cache;
mod names;
mod order;
pub mod pool;
mod room;

#[cfg(feature = "python")]
mod py;

#[cfg(test)]
extern crate self as tlbcore;

/// The crate's tests from outside, once more as tests of the library: who runs these needs no second build of it.
#[cfg(test)]
#[path = "../tests"]
mod outside {
    mod policy_language;
    mod trace_dat;
    mod trace_mutations;
}
