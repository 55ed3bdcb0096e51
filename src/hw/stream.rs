//! Many accesses, switches and invalidations on many CPUs at once: the array interface of the model.
//!
//! One event is 16 bytes, laid out as NumPy's structured dtype `tlbcore.EVENT`. A caller in Python may write to its
//! array while it is read here: events are copied before they are checked, and pages and contexts are masked where they
//! are used.

use super::broadcast::Invlpgb;
use super::invalidate::{Invpcid, Scope};
use super::tlb::{Counters, Tlb};
use super::{Geometry, Kind, PageSize, Pcid, TlbError, Vpn};
use super::{batch, decoupled, plain, simd};

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
    fn check(self, index: usize, cpus: usize, held: &[[bool; 3]; 3]) -> Result<(), TlbError> {
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

/// Events that are copied and checked at once: they stay in the first caches.
pub(super) const CHUNK: usize = 4096;

/// What events must be to run on some CPUs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    cpus: usize,
    held: [[bool; 3]; 3],
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

    fn check(&self, events: &[[u8; EVENT_BYTES]], offset: usize) -> Result<(), TlbError> {
        let held = &self.held;
        // Most streams are ordinary as a whole, which three sums of bits show: small pages and contexts, 4 KiB, ops up to
        // 11 (12 to 15 have bits 2 and 3 both), CPUs whose OR is below their number.
        let (pages, rests, ops) = events.iter().fold((0, 0, 0), |(pages, rests, ops), bytes| {
            let (halves, _) = bytes.as_chunks::<8>();
            let (vpn, rest) = (u64::from_le_bytes(halves[0]), u64::from_le_bytes(halves[1]));
            (pages | vpn, rests | rest, ops | rest & rest >> 1)
        });
        let never = 0xf000 | 0xf0 << 48 | 0x0c << 56;
        let few_cpus = (rests >> 16 & 0xffff) < self.cpus as u64;
        let all_held = held[PageSize::K4 as usize] == [true; 3];
        if all_held && few_cpus && pages >> Vpn::BITS == 0 && rests & never == 0 && ops & 1 << 50 == 0 {
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
            all | vpn >> Vpn::BITS
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

/// The TLBs of several CPUs of one shape.
#[derive(Clone, Debug)]
pub struct Cpus {
    tlbs: Vec<Tlb>,
    vectors: bool,
}

/// How they are computed is no part of what they are.
impl PartialEq for Cpus {
    fn eq(&self, other: &Self) -> bool {
        self.tlbs == other.tlbs
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

/// The number `levels` shows for an event that is no access.
pub const NO_ACCESS: u8 = u8::MAX;

impl Cpus {
    /// Empty TLBs.
    pub fn new(geometry: &std::sync::Arc<Geometry>, cpus: usize) -> Result<Self, TlbError> {
        if cpus == 0 || cpus > 4096 {
            return Err(TlbError::shape("cpus", format!("must be 1 to 4096: got {cpus}")));
        }
        Ok(Self::from_tlbs(vec![Tlb::new(std::sync::Arc::clone(geometry)); cpus]))
    }

    /// From TLBs of one geometry.
    pub fn from_tlbs(tlbs: Vec<Tlb>) -> Self {
        Cpus { tlbs, vectors: simd::available() }
    }

    /// Leaves the vector loops out, or takes them again where the CPU runs them. Results are the same: this is for
    /// comparing speeds, and the scalar loops with the vector loops.
    pub fn set_vectors(&mut self, vectors: bool) {
        self.vectors = vectors && simd::available();
    }

    /// Whether the vector loops run.
    pub fn vectors(&self) -> bool {
        self.vectors
    }

    /// One TLB per CPU.
    pub fn tlbs(&self) -> &[Tlb] {
        &self.tlbs
    }

    /// One TLB per CPU.
    pub fn tlbs_mut(&mut self) -> &mut [Tlb] {
        &mut self.tlbs
    }

    /// Sum of the counters.
    pub fn counters(&self) -> Counters {
        self.tlbs.iter().fold(Counters::default(), |mut sum, tlb| {
            sum.add(tlb.counters());
            sum
        })
    }

    fn held(&self) -> [[bool; 3]; 3] {
        PageSize::ALL.map(|size| Kind::ALL.map(|kind| self.tlbs[0].check_held(size, kind).is_ok()))
    }

    /// Refuses accesses that no CPU could make; [`Cpus::access`] then looks at the pages only.
    pub fn check_access(
        &self,
        cpu: usize,
        vpns: &[u64],
        contexts: Contexts<'_>,
        kind: Kind,
        size: PageSize,
    ) -> Result<(), TlbError> {
        if cpu >= self.tlbs.len() {
            return Err(TlbError::shape("cpu", format!("must be below {}: got {cpu}", self.tlbs.len())));
        }
        self.tlbs[0].check_held(size, kind)?;
        if let Contexts::Each(pcids) = contexts {
            if pcids.len() != vpns.len() {
                let rule = format!("must be as long as vpn ({}): got {}", vpns.len(), pcids.len());
                return Err(TlbError::shape("pcid", rule));
            }
            if let Some(index) = pcids.iter().position(|&pcid| pcid > Pcid::MAX) {
                return Err(TlbError::PcidTooBig { pcid: u64::from(pcids[index]) }.at("pcid", index));
            }
        }
        Ok(())
    }

    /// Accesses in order on one CPU; what [`Cpus::check_access`] has accepted. `levels`, if given, receives the level
    /// that answered each. Fails, and changes nothing, for pages of no canonical address; `offset` is the number of the
    /// first access in its message.
    #[allow(clippy::too_many_arguments)] // one call of Python's
    pub fn access(
        &mut self,
        cpu: usize,
        vpns: &[u64],
        contexts: Contexts<'_>,
        kind: Kind,
        size: PageSize,
        mut levels: Option<&mut [u8]>,
        offset: usize,
    ) -> Result<(), TlbError> {
        let tlb = &mut self.tlbs[cpu];
        let alike = match contexts {
            Contexts::One(pcid) if size == PageSize::K4 && !vpns.is_empty() => Some(pcid),
            Contexts::One(_) | Contexts::Each(_) => None,
        };
        if let Some(pcid) = alike
            && plain::run(tlb, vpns, pcid, kind, levels.as_deref_mut(), self.vectors).is_some()
        {
            return Ok(());
        }
        // One OR over all pages decides nearly always; only a suspect array is looked at page by page.
        if vpns.iter().fold(0, |all, &vpn| all | vpn) >> Vpn::BITS != 0 {
            for (index, &vpn) in vpns.iter().enumerate() {
                Vpn::new(vpn).map_err(|error| error.at("vpn", offset + index))?;
            }
        }
        if let Some(pcid) = alike {
            tlb.switch(pcid);
            if decoupled::run(tlb, vpns, pcid, kind, levels.as_deref_mut(), self.vectors).is_some() {
                return Ok(());
            }
        }
        for (index, &vpn) in vpns.iter().enumerate() {
            tlb.switch(match contexts {
                Contexts::One(pcid) => pcid,
                Contexts::Each(pcids) => Pcid(pcids[index] & Pcid::MAX),
            });
            let answer = tlb.access(Vpn(vpn & Vpn::MASK), kind, size, false);
            if let Some(levels) = levels.as_deref_mut() {
                levels[index] = answer.level;
            }
        }
        Ok(())
    }

    /// What events must be to run here.
    pub(super) fn rules(&self) -> Rules {
        Rules { cpus: self.tlbs.len(), held: self.held() }
    }

    /// Refuses events that no CPU could execute.
    pub fn check_events(&self, bytes: &[u8]) -> Result<(), TlbError> {
        let (events, rest) = bytes.as_chunks::<EVENT_BYTES>();
        if !rest.is_empty() {
            return Err(TlbError::shape("events", format!("must be whole events of {EVENT_BYTES} bytes")));
        }
        self.rules().check(events, 0)
    }

    /// Events in order. Fails at the first chunk with an event that no CPU could execute; `offset` is the number of the
    /// first event in the message, and the state is then that of somewhere before it: whoever needs the old one keeps it.
    ///
    /// `bytes` may be memory that another thread of the interpreter writes to, so each event is copied, and what is
    /// checked and used is the copy: nothing decided about an event is read again.
    pub fn run(
        &mut self,
        bytes: &[u8],
        mut levels: Option<&mut [u8]>,
        offset: usize,
    ) -> Result<(), TlbError> {
        let (events, _) = bytes.as_chunks::<EVENT_BYTES>();
        if batch::run(self, events, levels.as_deref_mut(), offset)? {
            return Ok(());
        }
        let rules = self.rules();
        let mut copy = Vec::new();
        for (chunk, events) in events.chunks(CHUNK).enumerate() {
            let start = chunk * CHUNK;
            rules.copy(events, &mut copy, offset + start)?;
            for (index, &event) in copy.iter().enumerate() {
                let level = self.step(Event::read(&event));
                if let Some(levels) = levels.as_deref_mut() {
                    levels[start + index] = level;
                }
            }
        }
        Ok(())
    }

    /// One event; returns the level that answered, or [`NO_ACCESS`].
    #[inline]
    pub(crate) fn step(&mut self, event: Event) -> u8 {
        let tlb = &mut self.tlbs[usize::from(event.cpu)];
        let vpn = Vpn(event.vpn & Vpn::MASK);
        let pcid = Pcid(event.pcid);
        let size = event.size().unwrap_or_default();
        let global = event.flags & flags::GLOBAL != 0;
        let pages = u64::from(event.pages.max(1));
        let op = Op::from_number(event.op).unwrap_or(Op::Fill);
        match op {
            Op::Load | Op::Store | Op::Fetch => {
                tlb.switch(pcid);
                return tlb.access(vpn, Kind::ALL[op as usize], size, global).level;
            }
            Op::Fill => {
                tlb.switch(pcid);
                tlb.fill(vpn, Kind::Load, size, global);
            }
            Op::MovCr3 => {
                tlb.switch(pcid);
                if event.flags & flags::NOFLUSH == 0 {
                    tlb.invalidate(Scope::mov_cr3(pcid));
                }
            }
            Op::Invlpg => {
                let current = tlb.pcid();
                (0..pages).for_each(|i| {
                    tlb.invalidate(Scope::invlpg(Vpn(vpn.0 + i), current));
                });
            }
            Op::InvpcidAddress => (0..pages).for_each(|i| {
                tlb.invalidate(Scope::invpcid(Invpcid::Address(pcid, Vpn(vpn.0 + i))));
            }),
            Op::InvpcidContext => _ = tlb.invalidate(Scope::invpcid(Invpcid::SingleContext(pcid))),
            Op::InvpcidAll => _ = tlb.invalidate(Scope::ALL),
            Op::InvpcidNonGlobal => _ = tlb.invalidate(Scope::ALL_NON_GLOBAL),
            Op::Invlpgb => {
                let what = Invlpgb {
                    page: (event.flags & flags::VA != 0).then_some(vpn.0),
                    extra: event.pages.saturating_sub(1),
                    pcid: (event.flags & flags::PCID != 0).then_some(pcid),
                    globals: global,
                    final_only: event.flags & flags::FINAL_ONLY != 0,
                    ..Invlpgb::default()
                };
                for tlb in &mut self.tlbs {
                    what.scopes().for_each(|scope| {
                        tlb.invalidate(scope);
                    });
                }
            }
            Op::Edit => {
                let context = (event.flags & flags::ANY_PCID == 0).then_some(pcid);
                for tlb in &mut self.tlbs {
                    tlb.mark_stale(vpn, pages, context);
                }
            }
        }
        NO_ACCESS
    }
}
