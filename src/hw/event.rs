//! What happens to TLBs, as an array: one event is 16 bytes, laid out as NumPy's structured dtype `tlbcore.EVENT`.
//!
//! A caller in Python may write to its array while it is read here: events are copied before they are checked, and pages
//! and contexts are masked where they are used.

use super::addr::Together;
use super::{Kind, PageSize, Pcid, TlbError, Vpn};

/// Bytes of one event.
pub const EVENT_BYTES: usize = 16;

macro_rules! ops {
    ($($variant:ident = $number:literal, $name:literal: $what:literal;)*) => {
        /// What an event does.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Op {
            $(#[doc = $what] $variant = $number,)*
        }

        /// Number, name and meaning of every op.
        pub const OPS: &[(u8, &str, &str)] = &[$(($number, $name, $what),)*];

        impl Op {
            /// From its number.
            pub const fn from_number(number: u8) -> Option<Op> {
                match number {
                    $($number => Some(Op::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

ops! {
    Load = 0, "load": "read `vpn` in context `pcid` (another context than the current one is a MOV CR3 with NOFLUSH)";
    Store = 1, "store": "write `vpn`";
    Fetch = 2, "fetch": "execute `vpn`";
    Fill = 3, "fill": "speculative fill of `vpn`, data side: not counted";
    MovCr3 = 4, "mov_cr3": "MOV CR3 to `pcid`; with flag NOFLUSH nothing is removed";
    Invlpg = 5, "invlpg": "INVLPG of `pages` pages from `vpn`";
    InvpcidAddress = 6, "invpcid_address": "INVPCID type 0, `pcid` and `pages` pages from `vpn`";
    InvpcidContext = 7, "invpcid_context": "INVPCID type 1, `pcid`";
    InvpcidAll = 8, "invpcid_all": "INVPCID type 2, or a CR4.PGE toggle: everything";
    InvpcidNonGlobal = 9, "invpcid_non_global": "INVPCID type 3: everything but globals";
    Invlpgb = 10, "invlpgb": "INVLPGB and TLBSYNC, on every CPU; flags VA (`pages` pages from `vpn`), PCID, GLOBAL, FINAL_ONLY";
    Edit = 11, "edit": "the tables of `pages` pages from `vpn` change: what every CPU caches of them in `pcid` (with ANY_PCID in any context) is stale";
}

/// Bits of an event's `flags`.
pub mod flags {
    /// The tables map the page globally; INVLPGB: include globals.
    pub const GLOBAL: u8 = 1;
    /// MOV CR3 with bit 63 set.
    pub const NOFLUSH: u8 = 2;
    /// Page size, 0 to 2, in bits 2 and 3.
    pub const SIZE_SHIFT: u8 = 2;
    /// INVLPGB: the address counts.
    pub const VA: u8 = 16;
    /// INVLPGB: the context counts.
    pub const PCID: u8 = 32;
    /// INVLPGB: leaves only.
    pub const FINAL_ONLY: u8 = 64;
    /// Edit: in every context.
    pub const ANY_PCID: u8 = 128;
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Page, as `va >> 12`.
    pub vpn: u64,
    /// Context.
    pub pcid: u16,
    /// CPU.
    pub cpu: u16,
    /// Length of a range; 0 counts as 1.
    pub pages: u16,
    /// Number of an [`Op`].
    pub op: u8,
    /// See [`flags`].
    pub flags: u8,
}

impl Event {
    /// From its 16 bytes.
    #[inline]
    pub fn read(bytes: &[u8; EVENT_BYTES]) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let vpn = u64::from_le_bytes([
            bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7],
        ]);
        Event { vpn, pcid: word(8), cpu: word(10), pages: word(12), op: bytes[14], flags: bytes[15] }
    }

    /// Its page size, if the bits name one.
    #[inline]
    pub const fn size(self) -> Option<PageSize> {
        match self.flags >> flags::SIZE_SHIFT & 3 {
            0 => Some(PageSize::K4),
            1 => Some(PageSize::M2),
            2 => Some(PageSize::G1),
            _ => None,
        }
    }

    /// Refuses an event that no CPU could execute.
    pub(super) fn check(self, index: usize, cpus: usize, held: &[[bool; 3]; 3]) -> Result<(), TlbError> {
        let complain = |field, rule: String| Err(TlbError::Element { field, index, rule });
        if Op::from_number(self.op).is_none() {
            return complain("op", format!("must be at most {}: got {}", OPS.len() - 1, self.op));
        }
        if usize::from(self.cpu) >= cpus {
            return complain("cpu", format!("must be below {cpus}: got {}", self.cpu));
        }
        if self.pcid > Pcid::MAX {
            return complain("pcid", format!("must be at most 4095: got {}", self.pcid));
        }
        Vpn::new(self.vpn).map_err(|error| error.at("vpn", index))?;
        let Some(size) = self.size() else {
            return complain(
                "flags",
                "page size must be 4K, 2M or 1G (0, 1 or 2 in bits 2 and 3): got 3".into(),
            );
        };
        if self.op <= Op::Fill as u8 {
            let kind = Kind::ALL[usize::from(self.op) % 3];
            if !held[size as usize][kind as usize] {
                let (size, kind) = (size.name(), kind.name());
                return complain("flags", format!("no level holds {size} pages for {kind} accesses"));
            }
        }
        Ok(())
    }
}

/// The number `levels` shows for an event that is no access.
pub const NO_ACCESS: u8 = u8::MAX;

/// Events that are copied and checked at once: they stay in the first caches.
pub(super) const CHUNK: usize = 4096;

/// What events must be to run on some CPUs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) cpus: usize,
    pub(super) held: [[bool; 3]; 3],
}

impl Rules {
    /// Copies events, and refuses those that no CPU could execute; `offset` is the number of the first.
    pub(super) fn copy(
        &self,
        events: &[[u8; EVENT_BYTES]],
        copy: &mut Vec<[u8; EVENT_BYTES]>,
        offset: usize,
    ) -> Result<(), TlbError> {
        copy.clear();
        copy.extend_from_slice(events);
        self.check(copy, offset)
    }

    pub(super) fn check(&self, events: &[[u8; EVENT_BYTES]], offset: usize) -> Result<(), TlbError> {
        let held = &self.held;
        // Most streams are ordinary as a whole, which sums of bits show: pages that fit together, small contexts, 4 KiB, ops
        // up to 11 (12 to 15 have bits 2 and 3 both), CPUs whose OR is below their number.
        let none = (Together::default(), 0, 0);
        let (pages, rests, ops) = events.iter().fold(none, |(pages, rests, ops), bytes| {
            let (halves, _) = bytes.as_chunks::<8>();
            let (vpn, rest) = (u64::from_le_bytes(halves[0]), u64::from_le_bytes(halves[1]));
            (pages.with(vpn), rests | rest, ops | rest & rest >> 1)
        });
        let never = 0xf000 | 0xf0 << 48 | 0x0c << 56;
        let few_cpus = (rests >> 16 & 0xffff) < self.cpus as u64;
        let all_held = held[PageSize::K4 as usize] == [true; 3];
        if all_held && few_cpus && pages.fit() && rests & never == 0 && ops & 1 << 50 == 0 {
            return Ok(());
        }
        // Otherwise, if some are not ordinary, each is looked at in turn. Bit `op * 4 + size` of `odd`
        // says that such an event needs the second look.
        let mut odd = u64::MAX;
        for op in 0..OPS.len() {
            for size in PageSize::ALL {
                let access = op <= Op::Fill as usize;
                if !access || held[size as usize][Kind::ALL[op % 3] as usize] {
                    odd &= !(1 << (op * 4 + size as usize));
                }
            }
        }
        let cpus = self.cpus as u64;
        let suspect = events.iter().fold(0, |all, bytes| {
            let (halves, _) = bytes.as_chunks::<8>();
            let (vpn, rest) = (u64::from_le_bytes(halves[0]), u64::from_le_bytes(halves[1]));
            let (pcid, cpu, op, bits) = (rest & 0xffff, rest >> 16 & 0xffff, rest >> 48 & 0xff, rest >> 56);
            let size = bits >> flags::SIZE_SHIFT & 3;
            // Shifting by the low six bits is right for the ops that exist; the others are caught by `op >> 4`.
            all | u64::from(!Vpn::fits(vpn))
                | pcid >> 12
                | u64::from(cpu >= cpus)
                | op >> 4
                | odd >> ((op * 4 + size) & 63) & 1
        });
        if suspect == 0 {
            return Ok(());
        }
        for (index, bytes) in events.iter().enumerate() {
            Event::read(bytes).check(offset + index, self.cpus, held)?;
        }
        Ok(())
    }
}
