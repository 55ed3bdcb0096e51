//! The timed machine: it counts.
//!
//! Each CPU owns a clock (u64 picoseconds) and runs its programs op by op through [`crate::kernel::step::step`],
//! alone, until its next *cross-CPU action*; only those stand in the global queue. A remote read or an interrupt
//! at time t first brings its target to t, in mid-program if need be, so race windows exist. Ties break by (time,
//! CPU). There is no float in the engine and every draw comes from a counter-based generator keyed by (seed, CPU,
//! actor), so results depend neither on threads nor on chunks nor on the machine.
//!
//! Reading order: [`draw`] (randomness), [`scenario`] and [`stream`] (workloads as data), [`cost`] (what an op takes), [`stats`]
//! (what is counted), [`figures`]
//! (what results say of it), [`machine`] (one CPU and what an op does to it), [`engine`] (the loop), [`timeline`].

pub mod cost;
pub mod draw;
pub mod engine;
mod error;
pub mod figures;
mod inert;
mod input;
pub mod latencies;
pub mod levels;
pub mod machine;
pub mod outlook;
mod prepare;
pub mod queue;
pub mod recorded;
mod refuse;
pub mod run;
pub mod scenario;
pub mod scripted;
pub mod stats;
pub mod stream;
pub mod timeline;

pub use error::SimError;
pub use input::Input;
pub use run::{Output, Run, simulate};
pub use scenario::Scenario;
