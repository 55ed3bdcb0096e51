//! Addresses and tags, each its own type, so that a page number and a context cannot be swapped.

use serde::{Deserialize, Serialize};

use super::TlbError;

/// Virtual page number in units of 4 KiB, whatever the size of the page that maps it: `va >> 12`.
///
/// Canonical kernel addresses are stored without their sign extension: 45 bits are enough for 57-bit addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vpn(pub u64);

impl Vpn {
    /// Bits of a page number with five-level paging (57-bit linear addresses).
    pub const BITS: u32 = 45;
    /// All bits a page number may have.
    pub const MASK: u64 = (1 << Self::BITS) - 1;

    /// Page number of a 64-bit linear address. Bits 63:56 must be copies of bit 56 (SDM 3.3.7.1 for LA57).
    pub fn of_address(va: u64) -> Result<Self, TlbError> {
        let sign = va.cast_signed() >> 56;
        if sign == 0 || sign == -1 {
            Ok(Vpn((va >> 12) & Self::MASK))
        } else {
            Err(TlbError::NonCanonical { va })
        }
    }

    /// Accepts `va >> 12` of a canonical address, sign-extended (52 bits) or already cut to 45 bits.
    pub fn new(vpn: u64) -> Result<Self, TlbError> {
        if Self::fits(vpn) { Ok(Vpn(vpn & Self::MASK)) } else { Err(TlbError::NonCanonicalPage { vpn }) }
    }

    /// Whether [`Vpn::new`] accepts it.
    #[allow(clippy::needless_bitwise_bool)] // no branch: user and kernel pages in turns are ordinary
    pub(super) fn fits(vpn: u64) -> bool {
        let high = vpn >> (Self::BITS - 1);
        (high <= 1) | (high == (1 << 8) - 1)
    }

    /// Checks many; the error is about the first that [`Vpn::new`] does not accept, and `offset` is the number of the first of
    /// all.
    pub(super) fn check(vpns: &[u64], offset: usize) -> Result<(), TlbError> {
        if vpns.iter().fold(0, |all, &vpn| all | vpn) >> Self::BITS == 0 {
            return Ok(());
        }
        let together = vpns.iter().fold(Together::default(), |all, &vpn| all.with(vpn));
        if together.fit() || vpns.iter().fold(true, |all, &vpn| all & Self::fits(vpn)) {
            return Ok(());
        }
        let accepted =
            |(index, &vpn)| Vpn::new(vpn).map(drop).map_err(|error| error.at("vpn", offset + index));
        vpns.iter().enumerate().try_for_each(accepted)
    }
}

/// Bits of many page numbers, which decide of nearly all that come together whether each of them is accepted.
///
/// Below 2^45 each is. Where all are below 2^52, half of the 45 bits is added: those of user space stay below 2^45, those of
/// the kernel, sign-extended, are from 2^52 on and again below 2^45 without that bit, and what lies between keeps one of bits
/// 45 to 51.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Together {
    all: u64,
    moved: u64,
}

impl Together {
    const EXTENDED: u32 = 52;
    /// What is added to a page, and which bits are looked at then.
    pub(super) const HALF: u64 = 1 << (Vpn::BITS - 1);
    pub(super) const LOOKED_AT: u64 = !(1 << Self::EXTENDED);

    #[inline]
    pub(super) fn with(self, vpn: u64) -> Self {
        self.with_those(vpn, vpn.wrapping_add(Self::HALF) & Self::LOOKED_AT)
    }

    /// With many pages, and many to each of which half of the bits was added.
    #[inline]
    pub(super) fn with_those(self, pages: u64, moved: u64) -> Self {
        Together { all: self.all | pages, moved: self.moved | moved }
    }

    /// Whether each is accepted; if not, some may not be.
    #[inline]
    pub(super) fn fit(self) -> bool {
        self.all >> Vpn::BITS == 0 || self.all >> Self::EXTENDED == 0 && self.moved >> Vpn::BITS == 0
    }
}

impl Vpn {
    /// `va >> 12` of the canonical address: 52 bits, with the sign of a kernel address.
    pub const fn of_canonical(self) -> u64 {
        let sign = if self.0 >> (Self::BITS - 1) & 1 == 1 { (1 << 52) - 1 - Self::MASK } else { 0 };
        self.0 | sign
    }
}

/// Process-context identifier: the 12-bit tag in CR3 (SDM 4.10.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pcid(pub u16);

impl Pcid {
    /// The largest PCID.
    pub const MAX: u16 = 0xfff;

    /// A PCID must fit 12 bits.
    pub fn new(pcid: u64) -> Result<Self, TlbError> {
        if pcid <= u64::from(Self::MAX) { Ok(Pcid(pcid as u16)) } else { Err(TlbError::PcidTooBig { pcid }) }
    }

    /// Checks many; the error is about the first that [`Pcid::new`] does not accept.
    pub(super) fn check(pcids: &[u16]) -> Result<(), TlbError> {
        // The largest is all ones, so bits beyond it in all of them together are bits of one of them.
        if pcids.iter().fold(0, |all, &pcid| all | pcid) <= Self::MAX {
            return Ok(());
        }
        let accepted =
            |(index, &pcid)| Pcid::new(u64::from(pcid)).map(drop).map_err(|error| error.at("pcid", index));
        pcids.iter().enumerate().try_for_each(accepted)
    }
}

/// AMD address-space identifier of a guest (APM 15.16); 0 is the host. Only INVLPGB names one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asid(pub u16);

/// Size of the page that maps an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PageSize {
    /// 4 KiB: mapped by a PTE.
    #[default]
    K4 = 0,
    /// 2 MiB: mapped by a PDE with PS = 1.
    M2 = 1,
    /// 1 GiB: mapped by a PDPTE with PS = 1.
    G1 = 2,
}

impl PageSize {
    /// Smallest first.
    pub const ALL: [PageSize; 3] = [PageSize::K4, PageSize::M2, PageSize::G1];

    /// Bits of the 4 KiB page number that are an offset inside this page.
    pub const fn shift(self) -> u32 {
        9 * self as u32
    }

    /// 4 KiB pages in one page of this size.
    pub const fn pages(self) -> u64 {
        1 << self.shift()
    }

    /// The name used in presets and messages: `4K`, `2M`, `1G`.
    pub const fn name(self) -> &'static str {
        match self {
            PageSize::K4 => "4K",
            PageSize::M2 => "2M",
            PageSize::G1 => "1G",
        }
    }

    /// From a number of bytes.
    pub fn from_bytes(bytes: u64) -> Result<Self, TlbError> {
        Self::ALL.into_iter().find(|size| size.pages() << 12 == bytes).ok_or(TlbError::PageSize { bytes })
    }

    /// From its name in a preset.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|size| size.name() == name)
    }
}

/// What an access does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Data read.
    #[default]
    Load = 0,
    /// Data write.
    Store = 1,
    /// Instruction fetch.
    Fetch = 2,
}

impl Kind {
    /// In the order of their numbers.
    pub const ALL: [Kind; 3] = [Kind::Load, Kind::Store, Kind::Fetch];

    /// The name used in presets and in Python.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Load => "load",
            Kind::Store => "store",
            Kind::Fetch => "fetch",
        }
    }

    /// From its name in a preset.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What one context per access can be.
#[derive(Clone, Copy, Debug)]
pub enum Contexts<'a> {
    /// The same for all.
    One(Pcid),
    /// One for each access.
    Each(&'a [u16]),
}

impl<'a> Contexts<'a> {
    /// Of a part of the accesses.
    pub(crate) fn part(self, of: std::ops::Range<usize>) -> Contexts<'a> {
        match self {
            Contexts::One(pcid) => Contexts::One(pcid),
            Contexts::Each(pcids) => Contexts::Each(&pcids[of]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_extended_kernel_page_and_its_45_bit_form_are_the_same_page() {
        let va = 0xffff_c900_0000_1000_u64;
        let page = Vpn::of_address(va).unwrap();
        assert_eq!(Vpn::new(va >> 12).unwrap(), page);
        assert_eq!(Vpn::new(page.0).unwrap(), page);
    }

    #[test]
    fn a_hole_address_is_refused() {
        assert!(Vpn::of_address(0x0200_0000_0000_0000).is_err());
        assert!(Vpn::new(1 << 45).is_err());
        assert!(Vpn::new(u64::MAX).is_err());
    }

    #[test]
    fn pages_are_checked_together_as_one_by_one() {
        let edges = [0, 1 << 44, 1 << 45, 1 << 51, (1 << 52) - (1 << 44), 1 << 52, 1 << 53, 1 << 63];
        let near = |edge: u64| [edge.wrapping_sub(1), edge, edge + 1, edge ^ 0xf_ffff_ffff];
        let pages: Vec<u64> = edges.into_iter().flat_map(near).collect();
        let mut seen = [0; 2];
        for &one in &pages {
            for &other in &pages {
                for vpns in [vec![one], vec![one, other], vec![1, one, (1 << 52) - 2, other]] {
                    let bad = vpns.iter().position(|&vpn| Vpn::new(vpn).is_err());
                    let told = Vpn::check(&vpns, 7).map_err(|error| error.to_string());
                    let rule = |at: usize| Vpn::new(vpns[at]).unwrap_err().at("vpn", 7 + at).to_string();
                    assert_eq!(told, bad.map_or(Ok(()), |at| Err(rule(at))), "{vpns:x?}");
                    let together = vpns.iter().fold(Together::default(), |all, &vpn| all.with(vpn));
                    assert!(!together.fit() || bad.is_none(), "{vpns:x?}");
                    seen[usize::from(together.fit())] += 1;
                }
            }
        }
        assert!(seen[0] > 100 && seen[1] > 100, "{seen:?}");
        let ordinary = [0x7_f3a4_0000, 0xf_ffff_8881_2345, 0xf_ff11_0000_0000, (1 << 52) - 1, 0];
        assert!(ordinary.iter().fold(Together::default(), |all, &vpn| all.with(vpn)).fit());
    }

    #[test]
    fn a_pcid_has_twelve_bits() {
        assert_eq!(Pcid::new(4095).unwrap(), Pcid(4095));
        assert!(Pcid::new(4096).is_err());
        assert_eq!(Pcid::check(&[0, 4095, 1024]), Ok(()));
        let refused = Pcid::check(&[7, 4095, 4096, 8192]);
        assert_eq!(refused, Err(TlbError::PcidTooBig { pcid: 4096 }.at("pcid", 2)));
    }
}
