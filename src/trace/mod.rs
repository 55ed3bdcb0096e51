//! Recordings of real kernels: importers, one event model, causes of interference.
//!
//! Reading order: [`event`] (the model), [`source`] (bytes in, decompressed on a second thread), [`import`] (one file per
//! text format), [`cause`] (the catalogue), [`analysis`] (one streaming pass that keeps counts, not events),
//! [`range`] (figures that are left open), [`replay`] (the same recording under another policy), [`noise`] (a threshold
//! watched while recording), [`live`] (counts while recording), [`shootdown`] (the other pass: flushes of user ranges,
//! every CPU a victim).

pub mod analysis;
pub mod cause;
pub mod event;
pub mod import;
pub mod live;
pub mod noise;
pub mod range;
pub mod replay;
pub mod shootdown;
pub mod source;

/// CPU numbers at or above this are a broken line, not a machine.
pub const MAX_CPUS: u32 = 8192;

/// Why a recording could not be read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The operating system refused.
    #[error("{path}: {reason}")]
    Open {
        /// File as given.
        path: String,
        /// In the system's words.
        reason: String,
    },
    /// There is nothing in it.
    #[error("{path}: the file is empty")]
    Empty {
        /// File as given.
        path: String,
    },
    /// Not text at all.
    #[error("{path}: {what}")]
    Binary {
        /// File as given.
        path: String,
        /// What it looks like, and what to do.
        what: String,
    },
    /// Text without one trace line.
    #[error("{path}: no line of {lines} is a trace event; first line is {first:?}")]
    NoTrace {
        /// File as given.
        path: String,
        /// Lines read.
        lines: u64,
        /// The first that was not understood.
        first: String,
    },
    /// Text of a shape that is known and not read.
    #[error("{path}:{line}: looks like {looks}; {instead}")]
    Unsupported {
        /// File as given.
        path: String,
        /// Where that shows.
        line: u64,
        /// What it looks like.
        looks: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// The compressed stream ends early or is damaged; what came before it was read.
    #[error("{path}: {reason} (after line {lines}); the figures cover what came before")]
    Damaged {
        /// File as given.
        path: String,
        /// The decoder's words.
        reason: String,
        /// Complete lines before the damage.
        lines: u64,
    },
}
