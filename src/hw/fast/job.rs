//! The state of many CPUs, packed for the event loop, and what a control event does to it.

use rustc_hash::FxHashMap;

use super::rows::{EMPTY, Row};
use crate::hw::array::Entry;
use crate::hw::event::{Event, Op, flags};
use crate::hw::{PageSize, Pcid, Vpn};

/// 32-bit names of pages in contexts: `context | window | low bits of the page number`. Context 0 stands for global
/// pages, and the last one is in no use, so that no name is [`EMPTY`].
#[derive(Debug)]
pub(super) struct Names {
    /// What was named last, by [`Names::slot`]: the loop looks only here.
    pub(super) known: Vec<Known>,
    /// First bit of the context.
    pub(super) shift: u32,
    index_of: Vec<u16>,
    contexts: Vec<Pcid>,
    window_of: FxHashMap<u32, u32>,
    windows: Vec<u32>,
}

/// The names of one window of pages in one context, without the low bits.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub(super) struct Known {
    window: u32,
    pcid: u32,
    pub(super) own: u32,
    pub(super) global: u32,
}

impl Names {
    /// Bits of a page number that its name keeps, by which sets are picked.
    pub(super) const LOW: u32 = 17;
    /// log2 of the places in `known`.
    pub(super) const KNOWN: u32 = 10;
    /// Odd numbers that spread windows and contexts over them.
    pub(super) const SPREAD: [u32; 2] = [0x9e37_79b1, 0x85eb_ca77];
    /// Contexts are given so many bits; where they do not suffice, all that there can be.
    pub(super) const FEW: u32 = 7;
    pub(super) const MANY: u32 = 13;

    pub(super) fn new(context_bits: u32) -> Self {
        Names {
            known: vec![Known { window: 0, pcid: u32::MAX, own: 0, global: 0 }; 1 << Self::KNOWN],
            shift: u32::BITS - context_bits,
            index_of: vec![0; usize::from(Pcid::MAX) + 1],
            contexts: Vec::new(),
            window_of: FxHashMap::default(),
            windows: Vec::new(),
        }
    }

    fn slot(window: u32, pcid: u32) -> usize {
        let mixed = window.wrapping_mul(Self::SPREAD[0]) ^ pcid.wrapping_mul(Self::SPREAD[1]);
        (mixed >> (u32::BITS - Self::KNOWN)) as usize
    }

    /// The names of a window, made if need be; `None`: there are no more.
    pub(super) fn of(&mut self, window: u32, pcid: u32) -> Option<Known> {
        let slot = Self::slot(window, pcid);
        let known = self.known[slot];
        if (known.window, known.pcid) == (window, pcid) {
            return Some(known);
        }
        let index = match self.index_of[pcid as usize] {
            0 => {
                // Context 0 and the last one are not given.
                if self.contexts.len() + 2 >= 1 << (u32::BITS - self.shift) {
                    return None;
                }
                self.contexts.push(Pcid(pcid as u16));
                self.index_of[pcid as usize] = self.contexts.len() as u16;
                self.contexts.len() as u32
            }
            index => u32::from(index),
        };
        let number = match self.window_of.get(&window) {
            Some(&number) => number,
            None => {
                let number = self.windows.len() as u32;
                if number >> (self.shift - Self::LOW) != 0 {
                    return None;
                }
                self.windows.push(window);
                self.window_of.insert(window, number);
                number
            }
        };
        let global = number << Self::LOW;
        self.known[slot] = Known { window, pcid, own: index << self.shift | global, global };
        Some(self.known[slot])
    }

    /// The bits that all names of this context share; `None`: nothing has such a name.
    pub(super) fn context(&self, pcid: Pcid) -> Option<u32> {
        let index = self.index_of[usize::from(pcid.0)];
        (index > 0).then(|| u32::from(index) << self.shift)
    }

    /// The name of a page as a global one, if it has one.
    pub(super) fn global(&self, page: u64) -> Option<u32> {
        let number = self.window_of.get(&((page >> Self::LOW) as u32))?;
        Some(number << Self::LOW | page as u32 & ((1 << Self::LOW) - 1))
    }

    pub(super) fn name(&mut self, entry: Entry) -> Option<u32> {
        if entry == Entry::EMPTY {
            return Some(EMPTY);
        }
        // A global entry's window is named in context 0, like any other.
        let pcid = if entry.is_global() { 0 } else { u32::from(entry.pcid().0) };
        let known = self.of((entry.page() >> Self::LOW) as u32, pcid)?;
        let low = entry.page() as u32 & ((1 << Self::LOW) - 1);
        Some(low | if entry.is_global() { known.global } else { known.own })
    }

    pub(super) fn entry(&self, name: u32) -> Entry {
        if name == EMPTY {
            return Entry::EMPTY;
        }
        let number = name >> Self::LOW & ((1 << (self.shift - Self::LOW)) - 1);
        let page =
            u64::from(self.windows[number as usize]) << Self::LOW | u64::from(name & ((1 << Self::LOW) - 1));
        match name >> self.shift {
            0 => Entry::new(page, PageSize::K4, Pcid(0), true),
            index => Entry::new(page, PageSize::K4, self.contexts[index as usize - 1], false),
        }
    }
}

/// Counts of one CPU.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) accesses: u64,
    pub(super) first: u64,
    pub(super) second: u64,
    pub(super) switches: u64,
    pub(super) invalidated: u64,
}

/// Both levels of every CPU, packed.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) rows: Vec<Row>,
    pub(super) names: Names,
    /// Ways per CPU, whole rows; the second level begins at `second_at`.
    pub(super) words: usize,
    pub(super) second_at: usize,
    pub(super) first_sets: usize,
    pub(super) second_sets: usize,
    pub(super) first_ways: usize,
    pub(super) second_ways: usize,
    /// Contexts of the CPUs.
    pub(super) pcids: Vec<u16>,
    /// Of one block, per CPU: accesses, and above 32 bits switches.
    pub(super) accesses: Vec<u64>,
    /// Of one block, per CPU: second-level hits, and above 32 bits first-level misses.
    pub(super) missed: Vec<u64>,
    /// Of one block, per CPU: entries removed.
    pub(super) removed: Vec<u64>,
    pub(super) counts: Vec<Counts>,
}

impl Job {
    /// Takes the counts of a block that is over; with `kept` false it never was.
    pub(super) fn settle(&mut self, kept: bool) {
        for cpu in 0..self.counts.len() {
            let (accesses, missed) = (self.accesses[cpu], self.missed[cpu]);
            if kept {
                let counts = &mut self.counts[cpu];
                counts.accesses += accesses & u64::from(u32::MAX);
                counts.switches += accesses >> 32;
                counts.first += (accesses & u64::from(u32::MAX)) - (missed >> 32);
                counts.second += missed & u64::from(u32::MAX);
                counts.invalidated += self.removed[cpu];
            }
            (self.accesses[cpu], self.missed[cpu], self.removed[cpu]) = (0, 0, 0);
        }
    }
}

/// How far a block came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ran {
    /// So many events; the next one, if any, is for the full engine.
    Events(usize),
    /// So many events; the next one has no name.
    Nameless(usize),
    /// A page was global in one place and not in another: nothing of the block counts.
    Mixed,
}

/// What a control event removes, for the vector loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    /// Nothing.
    Nothing,
    /// Everything.
    All,
    /// Everything but globals.
    NonGlobal,
    /// One context; globals stay.
    Context(Pcid),
    /// `pages` pages from `first` in context `own`, and perhaps as global pages.
    Pages { first: Vpn, pages: u64, own: Pcid, globals: bool },
}

/// What a control event does on its CPU: the context it leaves current, and what it removes. `None`: for the full
/// engine.
#[inline]
pub(super) fn control(event: Event, current: u16) -> Option<(u16, Removal)> {
    let pages = u64::from(event.pages.max(1));
    let first = Vpn(event.vpn & Vpn::MASK);
    let named = Pcid(event.pcid);
    Some(match Op::from_number(event.op)? {
        Op::MovCr3 if event.flags & flags::NOFLUSH != 0 => (event.pcid, Removal::Nothing),
        Op::MovCr3 => (event.pcid, Removal::Context(named)),
        Op::Invlpg => (current, Removal::Pages { first, pages, own: Pcid(current), globals: true }),
        Op::InvpcidAddress => (current, Removal::Pages { first, pages, own: named, globals: false }),
        Op::InvpcidContext => (current, Removal::Context(named)),
        Op::InvpcidAll => (current, Removal::All),
        Op::InvpcidNonGlobal => (current, Removal::NonGlobal),
        Op::Load | Op::Store | Op::Fetch | Op::Fill | Op::Invlpgb | Op::Edit => return None,
    })
}
