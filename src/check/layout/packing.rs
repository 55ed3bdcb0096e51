//! Bit fields of a state, and how they are handed out.

/// A bit field of a state. The zero width field reads 0 and holds nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bits {
    word: u8,
    shift: u8,
    width: u8,
}

impl Bits {
    /// Its value.
    #[inline]
    pub fn get(self, s: &[u64]) -> u64 {
        (s[usize::from(self.word)] >> self.shift) & self.max()
    }

    /// Write; `false` if the value does not fit.
    #[inline]
    #[must_use]
    pub fn put(self, s: &mut [u64], v: u64) -> bool {
        let mask = self.max();
        let w = &mut s[usize::from(self.word)];
        *w = *w & !(mask << self.shift) | (v & mask) << self.shift;
        v <= mask
    }

    /// Is it there at all?
    #[inline]
    pub fn exists(self) -> bool {
        self.width != 0
    }

    /// Largest value. No field is 64 bits wide.
    #[inline]
    pub fn max(self) -> u64 {
        (1u64 << self.width) - 1
    }
}

/// Bits needed for values up to `max`.
pub fn width(max: u64) -> u32 {
    64 - max.leading_zeros()
}

/// Hands out fields of one CPU's words, or of the shared ones.
pub(super) struct Allocator {
    first: usize,
    pub(super) used: Vec<u32>,
    pub(super) total: usize,
}

impl Allocator {
    pub(super) fn new(first: usize) -> Self {
        Allocator { first, used: vec![0], total: 0 }
    }

    pub(super) fn take(&mut self, bits: u32) -> Bits {
        if bits == 0 {
            return Bits::default();
        }
        self.total += bits as usize;
        let at = self.used.iter().position(|u| u + bits <= 64).unwrap_or_else(|| {
            self.used.push(0);
            self.used.len() - 1
        });
        let shift = self.used[at];
        self.used[at] += bits;
        Bits { word: (self.first + at) as u8, shift: shift as u8, width: bits as u8 }
    }
}
