//! Where the ring buffers of a file are.

/// What makes a text of any recording that trace-cmd itself reads.
pub const INSTEAD: &str = "; `trace-cmd report FILE > FILE.txt` makes a text of it";

/// One CPU's part of the ring buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its number.
    pub cpu: u32,
    /// Where it begins in the file.
    pub at: u64,
    /// How long it is there.
    pub len: u64,
}

/// Where the ring buffers of one instance are.
#[derive(Clone, Debug, Default)]
pub struct Buffer {
    /// The instance; empty for the one that everybody has.
    pub name: Vec<u8>,
    /// Its clock.
    pub clock: Vec<u8>,
    /// Bytes of a page of it.
    pub page: usize,
    /// Its CPUs.
    pub parts: Vec<Part>,
    /// Whether the parts are cut into packed chunks.
    pub packed: bool,
}
