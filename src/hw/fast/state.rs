//! What [`super::lru`] runs on, and what it hands back.

use super::rows::Packed;
use super::tags::Narrow;
use crate::hw::array::Entry;

/// Both levels and what the tokens stand for.
#[derive(Debug)]
pub(super) struct State {
    pub(super) first: Packed,
    pub(super) second: Option<Packed>,
    /// The levels instead, as long as they have this form.
    pub(super) narrow: [Option<Narrow>; 2],
    pub(super) tokens: Vec<Entry>,
}

/// Hits of both levels; the rest walked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hits {
    pub(super) first: u64,
    pub(super) second: u64,
}

/// Where answers go: the array, and the numbers of the two levels.
pub(super) type Answers<'a> = Option<(&'a mut [u8], u8, u8)>;
