//! What a [`super::flow`] works on: accesses as words, and the buffers of a batch.

use crate::hw::addr::Together;
use crate::hw::array::Entry;
use crate::hw::{Pcid, Vpn};

/// Accesses per batch.
pub(super) const BATCH: usize = 512;
/// An array that no access goes to.
pub(super) const NOWHERE: u8 = u8::MAX;

/// Accesses that are still to be answered.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    /// What each looks for.
    pub(super) keys: [u64; BATCH],
    /// The key of its page that would be global if it is not, and the other way round.
    pub(super) others: [u64; BATCH],
    /// Which of the batch it is; these rise.
    pub(super) numbers: [u32; BATCH],
    /// Whether one of the others was met.
    pub(super) crossed: bool,
}

impl Stream {
    const EMPTY: Stream =
        Stream { keys: [0; BATCH], others: [0; BATCH], numbers: [0; BATCH], crossed: false };

    #[inline]
    pub(super) fn copy(&mut self, to: usize, other: &Stream, from: usize) {
        self.keys[to] = other.keys[from];
        self.others[to] = other.others[from];
        self.numbers[to] = other.numbers[from];
    }
}

/// What came before the next access of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    /// The key; before the first one none that an access has, of the current context.
    pub(super) key: u64,
    /// Changes of context so far.
    pub(super) switches: u64,
    /// The pages so far, as they were given.
    pub(super) pages: Together,
}

impl Before {
    pub(super) fn first(current: Pcid) -> Self {
        let key = Entry::VALID | Entry::GLOBAL | u64::from(current.0) << Entry::PCID_SHIFT;
        Before { key, switches: 0, pages: Together::default() }
    }

    /// Whether one of these pages, which have come since this was asked, is none.
    #[inline]
    pub(super) fn refuses(&mut self, vpns: &[u64]) -> bool {
        !std::mem::take(&mut self.pages).fit() && Vpn::check(vpns, 0).is_err()
    }

    /// The context of what came before.
    pub(super) fn pcid(self) -> Pcid {
        Entry(self.key).pcid()
    }
}

/// What a [`super::flow::Flow`] works in; whoever has many of one geometry makes it once.
#[derive(Clone, Debug)]
pub(in crate::hw) struct Buffers {
    pub(super) stream: Stream,
    pub(super) aside: Stream,
    /// By number: size and kind, `3 * size + kind`.
    pub(super) whats: [u8; BATCH],
    /// By number: where the answer goes.
    pub(super) outs: [u32; BATCH],
    /// By number: the level that answered.
    pub(super) answers: [u8; BATCH],
    pub(super) missed: [bool; BATCH],
    pub(super) arrays: [u8; BATCH],
    /// By level, then by `3 * size + kind`; empty until it is known. All are of one geometry.
    pub(super) places: Vec<[Place; 9]>,
    /// Whether accesses of such TLBs can flow, without 1 GiB pages and with; `None` until it is asked.
    pub(in crate::hw) flows: [Option<bool>; 2],
}

impl Buffers {
    pub(in crate::hw) fn new() -> Box<Self> {
        Box::new(Buffers {
            stream: Stream::EMPTY,
            aside: Stream::EMPTY,
            whats: [0; BATCH],
            outs: [0; BATCH],
            answers: [0; BATCH],
            missed: [false; BATCH],
            arrays: [NOWHERE; BATCH],
            places: Vec::new(),
            flows: [None; 2],
        })
    }
}

/// Where a level keeps pages of one size for one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) arrays: [u8; 4],
    pub(super) banks: u8,
    pub(super) shift: u8,
}

impl Place {
    pub(super) const NOWHERE: Place = Place { arrays: [NOWHERE; 4], banks: 1, shift: 0 };

    #[inline]
    pub(super) fn array(self, key: u64) -> u8 {
        // Of one bank there is no other: the mask is 0.
        let bank = (key & Vpn::MASK) >> self.shift & (u64::from(self.banks) - 1);
        self.arrays[bank as usize & 3]
    }
}
