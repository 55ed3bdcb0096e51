//! What a run is made of.

use std::sync::Arc;

use super::cost::Bound;
use super::scenario::Scenario;
use crate::hw::Preset;
use crate::kernel::config::Config;
use crate::kernel::step::Cpu;
use crate::kernel::text::{File, LAZY_MAX_FACTOR};

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Input {
    /// Workload.
    pub scenario: Scenario,
    /// CPU model.
    pub machine: Arc<Preset>,
    /// Kernel.
    pub kernel: Config,
    /// Policy.
    pub policy: Arc<File>,
    /// Seed.
    pub seed: u64,
    /// Jump over proven fixed points.
    pub skip: bool,
    /// Events to keep per CPU.
    pub keep: usize,
    /// Look every touched page up in the CPU's TLB, instead of charging a sum after each flush.
    pub full: bool,
    /// Which end of the costs' intervals.
    pub bound: Bound,
}

/// `lazy-tune`: a policy's header line `lazy_max_factor "N"` multiplies the threshold.
pub(super) fn lazy_max_of(policy: &File, cpus: Cpu) -> Option<u64> {
    let factor = policy.facts.iter().find(|f| f.key == LAZY_MAX_FACTOR)?;
    let factor: u64 = factor.text.parse().expect("the parser looked");
    Some(crate::kernel::vmalloc::lazy_max_pages(u32::from(cpus)) * factor)
}
