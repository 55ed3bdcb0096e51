//! What follows from the contents of an array and is sooner kept than looked for. It says nothing about equality.

/// Where entries may be: bit `set % 64` where the ways of a set are an order, bit `index % 64` where a way is a place.
/// It follows from the contents, so it says nothing about equality; whoever does not know sets every bit.
#[derive(Clone, Copy, Debug)]
pub(in crate::hw) struct Filled {
    /// Of any entries.
    pub(super) any: u64,
    /// Of entries that are not global, where `any` has it too.
    pub(super) own: u64,
}

impl Filled {
    pub(super) const NOTHING: Filled = Filled { any: 0, own: 0 };
    pub(super) const ANYTHING: Filled = Filled { any: !0, own: !0 };

    /// Something entered there.
    #[inline]
    pub(in crate::hw) fn enter(&mut self, bits: u64) {
        self.any |= bits;
        self.own |= bits;
    }
}

impl Default for Filled {
    fn default() -> Self {
        Filled::ANYTHING
    }
}

impl PartialEq for Filled {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Filled {}

/// Whether there may be an entry of a kind (a global one, a piece): once nobody has looked. It follows from the contents, as
/// [`Filled`] does.
#[derive(Clone, Copy, Debug)]
pub(super) struct MayBe(pub(super) bool);

impl Default for MayBe {
    fn default() -> Self {
        MayBe(true)
    }
}

impl PartialEq for MayBe {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for MayBe {}
