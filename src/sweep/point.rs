//! What one point computes: a simulation, reduced to a few figures.

use std::sync::Arc;

use crate::hw::Preset;
use crate::kernel::config::Config;
use crate::kernel::text::File;
use crate::pool::Stop;
use crate::sim::cost::Bound;
use crate::sim::figures::{Class, Metric, Sums};
use crate::sim::run::Run;
use crate::sim::{Input, Output, Scenario};

/// The distinct parts of the points of a batch; a part that does not parse is its message.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// Workloads.
    pub scenarios: Vec<Result<Scenario, String>>,
    /// CPU models.
    pub machines: Vec<Result<Arc<Preset>, String>>,
    /// Kernels.
    pub kernels: Vec<Result<Config, String>>,
    /// Policies.
    pub policies: Vec<Result<Arc<File>, String>>,
}

/// One point: an index into each list of [`Parts`], and its seed.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// Index of the workload.
    pub scenario: usize,
    /// Index of the CPU model.
    pub machine: usize,
    /// Index of the kernel.
    pub kernel: usize,
    /// Index of the policy.
    pub policy: usize,
    /// Seed.
    pub seed: u64,
}

impl Parts {
    /// Simulate one point; `None` when `cancel` was set before it ended.
    pub fn simulate(&self, choice: Choice, cancel: &dyn Stop) -> Result<Option<Output>, String> {
        let input = Input {
            scenario: self.scenarios[choice.scenario].clone()?,
            machine: self.machines[choice.machine].clone()?,
            kernel: self.kernels[choice.kernel].clone()?,
            policy: self.policies[choice.policy].clone()?,
            seed: choice.seed,
            skip: true,
            keep: 0,
            full: false,
            bound: Bound::Best,
        };
        let mut run = Run::new(input).map_err(|error| error.to_string())?;
        run.finish(cancel, |_| {});
        if let Some(why) = run.starved() {
            return Err(why.to_string());
        }
        let output = run.into_output();
        Ok((!output.interrupted).then_some(output))
    }
}

/// Metrics of one run, in the order asked for.
pub fn metrics(output: &Output, wanted: &[Metric]) -> Vec<f64> {
    let used = |class: Class| wanted.iter().any(|metric| metric.class == class);
    let sums = Class::EACH.map(|class| used(class).then(|| Sums::new(output, class)));
    let value = |metric: &Metric| {
        sums[metric.class as usize].as_ref().map_or(f64::NAN, |sums| sums.figure(metric.figure.how))
    };
    wanted.iter().map(value).collect()
}
