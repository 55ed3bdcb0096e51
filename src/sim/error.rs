//! Why a simulation cannot start.

use crate::kernel::config::ConfigError;
use crate::kernel::text::PolicyError;

/// Why a simulation cannot start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SimError {
    /// The scenario breaks a rule.
    #[error("{0}")]
    Scenario(String),
    /// The kernel's configuration breaks a rule.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The policy does not assemble for this machine.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// There is too little memory.
    #[error("not enough memory: {0}")]
    Memory(String),
}
