//! LRU stacks of one set count, and how deep in them pages are found.

use super::rows::Row;

/// Deepest stack.
pub const MAX_WAYS: usize = 32;
/// Empty place of a stack.
pub(super) const EMPTY: u32 = u32::MAX;

/// Stacks of one set count.
#[derive(Debug)]
pub(super) struct Stacks {
    pub(super) rows: Vec<Row>,
    pub(super) sets: usize,
    /// Depth: 8, 16 or 32.
    pub(super) depth: usize,
    /// How often a page was found at each depth; the last counts those that were not found.
    pub(super) found: [u64; MAX_WAYS + 1],
}

impl Stacks {
    /// Accesses in order, without vectors.
    pub(super) fn find_depths(&mut self, names: &[u32]) {
        for &name in names {
            let slot = (name as usize & (self.sets - 1)) * self.depth;
            let mut carry = name;
            let mut depth = 0;
            while depth < self.depth {
                let place = &mut self.rows[(slot + depth) / 16].0[(slot + depth) % 16];
                let old = std::mem::replace(place, carry);
                if old == name {
                    break;
                }
                carry = old;
                depth += 1;
            }
            self.found[depth.min(MAX_WAYS)] += u64::from(depth < self.depth);
        }
    }
}
