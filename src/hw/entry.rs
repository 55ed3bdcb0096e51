//! One cached translation, as one word.

use serde::{Deserialize, Serialize};

use super::{PageSize, Pcid, Vpn};

/// One cached translation. The word is `stale | valid | global | piece | size | pcid | page number`; page numbers are
/// in units of the entry's own size. Globals answer every context, so they carry no PCID and one key finds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(transparent)]
pub struct Entry(pub(crate) u64);

impl Entry {
    pub(crate) const EMPTY: Entry = Entry(0);
    pub(crate) const STALE: u64 = 1 << 63;
    pub(crate) const VALID: u64 = 1 << 62;
    pub(crate) const GLOBAL: u64 = 1 << 60;
    /// A 2 MiB piece of a 1 GiB page: INVLPG of any address of the page removes every piece (SDM 4.10.2.3).
    pub(crate) const PIECE: u64 = 1 << 59;
    pub(crate) const SIZE_SHIFT: u32 = 57;
    pub(crate) const PCID_SHIFT: u32 = Vpn::BITS;
    pub(crate) const PCID_FIELD: u64 = (Pcid::MAX as u64) << Self::PCID_SHIFT;

    /// An entry for page number `page` (in units of `size`).
    #[inline]
    pub(crate) const fn new(page: u64, size: PageSize, pcid: Pcid, global: bool) -> Self {
        let context = if global { Self::GLOBAL } else { (pcid.0 as u64) << Self::PCID_SHIFT };
        Entry(Self::VALID | (size as u64) << Self::SIZE_SHIFT | context | page)
    }

    /// The key under which another context sees the same page if it is global.
    #[inline]
    pub(crate) const fn as_global(self) -> Self {
        Entry(self.0 & !Self::PCID_FIELD | Self::GLOBAL)
    }

    /// Whether it is a piece of a 1 GiB page.
    pub(crate) const fn is_piece(self) -> bool {
        self.0 & Self::PIECE != 0
    }

    /// Whether it is global.
    pub const fn is_global(self) -> bool {
        self.0 & Self::GLOBAL != 0
    }

    /// Whether the table it was filled from has changed since.
    pub const fn is_stale(self) -> bool {
        self.0 & Self::STALE != 0
    }

    /// Its context; meaningless for a global entry.
    pub const fn pcid(self) -> Pcid {
        Pcid((self.0 >> Self::PCID_SHIFT) as u16 & Pcid::MAX)
    }

    /// The size it is cached at (a piece of a 1 GiB page is cached at 2 MiB).
    pub const fn size(self) -> PageSize {
        PageSize::ALL[(self.0 >> Self::SIZE_SHIFT & 3) as usize]
    }

    /// Page number in units of its size.
    pub const fn page(self) -> u64 {
        self.0 & Vpn::MASK
    }

    /// First 4 KiB page it maps.
    pub const fn vpn(self) -> Vpn {
        Vpn(self.page() << self.size().shift())
    }

    /// First 4 KiB page and number of pages of the mapping it was filled from.
    pub(crate) const fn mapping(self) -> (u64, u64) {
        let size = if self.0 & Self::PIECE != 0 { PageSize::G1 } else { self.size() };
        (self.vpn().0 & !(size.pages() - 1), size.pages())
    }
}
