//! Any accesses of one CPU, level after level in batches, on the arrays as they are.
//!
//! An access is one word, the key that arrays hold: page, size and context, or global. So pages may lie anywhere, contexts
//! change from access to access, sizes mix, and nothing is packed or unpacked: what this costs does not depend on how long a
//! call is. The loops over the words are in [`avx2`]; long recency orders become a list with a hash table ([`Linked`]) for as
//! long as only accesses come.
//!
//! Why the result is that of [`Tlb::access`], access by access:
//! - A level that is not inclusive never feeds back into the one before it, but for one thing: what fills the levels above
//!   a hit is a copy of the entry that hit, so it is global or stale as that is. Nothing is stale here. That an entry is
//!   global in one place and would enter another as not global is noticed: wherever a page is looked for, its other key is
//!   looked for too, if there is anything global at all, and then the accesses are undone and done one by one.
//! - A walk begins at the deepest cached entry and fills what is below, so each paging-structure cache sees what the one
//!   below it missed, as levels do; a 2 MiB page joins at the second, a 1 GiB page at the third.
//! - What an array loses by a change of context, for it has few slots, it loses between the same two accesses: an array's
//!   part of a batch is cut there. Which contexts it holds depends on the changes alone, so that is settled at once.

mod keys;
mod pass;
mod walks;

use self::keys::gather;
use self::pass::{Form, run};
use super::avx2;
use super::lru;
pub(in crate::hw) use super::stream::Buffers;
use super::stream::{BATCH, Before, NOWHERE, Place};
use crate::hw::addr::Together;
use crate::hw::array::{Array, Entry};
use crate::hw::geometry::Structure;
use crate::hw::tlb::Tlb;
use crate::hw::{Contexts, Kind, PageSize, Pcid, Vpn};

/// An array loses a context before the access with this number.
#[derive(Clone, Copy, Debug)]
struct Loss {
    number: u32,
    gone: Pcid,
}

/// Accesses of one CPU on their way through its levels.
#[derive(Debug)]
pub(in crate::hw) struct Flow<'a> {
    tlb: &'a mut Tlb,
    with: &'a mut Buffers,
    /// Of the arrays, and of the paging-structure caches; none until one is needed.
    forms: Vec<Form>,
    walkers: Vec<Form>,
    /// Of each array, in order; none until there is one.
    losses: Vec<Vec<Loss>>,
    /// Accesses gathered.
    count: usize,
    /// Bit `3 * size + kind` for those among them.
    whats: u16,
    slots: bool,
    /// Whether anything is or will be global.
    globals: bool,
    vector: bool,
    /// Ways of an order for which making a list pays.
    worth: usize,
}

/// Whether accesses of a TLB can flow: no level inclusive, banks that bits pick, and, with `giant` pages among them, none of
/// these cached in pieces. What is stale is asked apart.
pub(in crate::hw) fn flows(tlb: &Tlb, giant: bool) -> bool {
    let fits = |s: &Structure| s.sets.is_power_of_two() && !(giant && s.smashes_1g);
    let levels = tlb.geometry().levels();
    levels.iter().all(|level| !level.inclusive && level.structures.iter().all(fits))
        && (0..levels.len()).all(|level| {
            (0..9).all(|what| {
                let banks = tlb.banks(level, PageSize::ALL[what / 3], Kind::ALL[what % 3]);
                banks.is_none_or(|(_, banks, _)| banks.is_power_of_two())
            })
        })
}

/// Whether a TLB holds anything global.
pub(in crate::hw) fn holds_globals(tlb: &mut Tlb) -> bool {
    tlb.arrays_mut().iter_mut().any(Array::holds_globals)
}

impl<'a> Flow<'a> {
    /// For a TLB that [`flows`], and about so many accesses; `globals` if it holds anything global or will.
    pub(in crate::hw) fn new(
        tlb: &'a mut Tlb,
        with: &'a mut Buffers,
        accesses: usize,
        (globals, vector): (bool, bool),
    ) -> Self {
        if with.places.is_empty() {
            let place = |level: usize, what: usize| {
                let found = tlb.banks(level, PageSize::ALL[what / 3], Kind::ALL[what % 3]);
                found.map_or(Place::NOWHERE, |(arrays, banks, shift)| Place {
                    arrays,
                    banks: banks as u8,
                    shift,
                })
            };
            let levels = 0..usize::from(tlb.levels());
            with.places = levels.map(|level| std::array::from_fn(|what| place(level, what))).collect();
        }
        let slots = tlb.has_slots();
        with.stream.crossed = false;
        with.aside.crossed = false;
        Flow {
            tlb,
            with,
            forms: Vec::new(),
            walkers: Vec::new(),
            losses: Vec::new(),
            count: 0,
            whats: 0,
            slots,
            globals,
            vector,
            worth: 2 * accesses,
        }
    }

    /// The next access; its answer goes to place `out` of what [`Flow::drain`] is given.
    #[inline]
    pub(in crate::hw) fn push(
        &mut self,
        vpn: u64,
        (size, kind): (PageSize, usize),
        pcid: Pcid,
        global: bool,
        out: u32,
    ) {
        if pcid != self.tlb.pcid() {
            self.switch(pcid);
        }
        let (what, i) = (3 * size as usize + kind, self.count);
        let own = Entry::new((vpn & Vpn::MASK) >> size.shift(), size, pcid, false);
        let (key, other) = if global { (own.as_global(), own) } else { (own, own.as_global()) };
        self.with.stream.keys[i] = key.0;
        self.with.stream.others[i] = other.0;
        self.with.whats[i] = what as u8;
        self.with.outs[i] = out;
        self.whats |= 1 << what;
        self.count += 1;
    }

    /// All accesses of a call, to pages of one size and kind, and all of it carried out. With `unchecked` some may be no pages:
    /// then it is `false`, and what has been done must be undone.
    pub(in crate::hw) fn run_pages(
        &mut self,
        vpns: &[u64],
        contexts: Contexts<'_>,
        (size, kind): (PageSize, Kind),
        mut out: Option<&mut [u8]>,
        unchecked: bool,
    ) -> bool {
        self.with.whats.fill(3 * size as u8 + kind as u8);
        if out.is_none() && !self.globals && size == PageSize::K4 && lru::repeats(vpns) {
            let fit = self.run_but_repeats(vpns, contexts, kind, unchecked);
            if fit {
                self.settle();
            }
            return fit;
        }
        if let Contexts::One(pcid) = contexts {
            self.switch(pcid);
        }
        let (mut before, all) = (Before::first(self.tlb.pcid()), vpns);
        for (batch, vpns) in all.chunks(BATCH).enumerate() {
            let start = batch * BATCH;
            let next = start + vpns.len()..all.len().min(start + vpns.len() + BATCH);
            avx2::ahead(&all[next.clone()]);
            if let Contexts::Each(pcids) = contexts {
                avx2::ahead(&pcids[next]);
            }
            let contexts = contexts.part(start..start + vpns.len());
            match contexts {
                Contexts::Each(pcids) if self.slots => {
                    before.pages = vpns.iter().fold(Together::default(), |all, &vpn| all.with(vpn));
                    for (i, (&vpn, &pcid)) in vpns.iter().zip(pcids).enumerate() {
                        self.count = i;
                        self.switch(Pcid(pcid & Pcid::MAX));
                        let page = (vpn & Vpn::MASK) >> size.shift();
                        self.with.stream.keys[i] = Entry::new(page, size, self.tlb.pcid(), false).0;
                    }
                }
                Contexts::One(_) | Contexts::Each(_) => {
                    let how = (size, false, self.vector);
                    gather(&mut before, &mut self.with.stream.keys, 0, vpns, contexts, how);
                    self.switched(&mut before);
                }
            }
            if unchecked && before.refuses(vpns) {
                return false;
            }
            if self.globals {
                let stream = &mut self.with.stream;
                for (other, &key) in stream.others.iter_mut().zip(&stream.keys[..vpns.len()]) {
                    *other = Entry(key).as_global().0;
                }
            }
            self.count = 0;
            self.levels(vpns.len(), 1 << (3 * size as u16 + kind as u16), out.is_some());
            if let Some(out) = out.as_deref_mut() {
                out[start..start + vpns.len()].copy_from_slice(&self.with.answers[..vpns.len()]);
            }
            self.drain(None);
        }
        self.settle();
        true
    }

    /// As [`Flow::run_pages`], of 4 KiB pages, for streams in which many accesses repeat their predecessor: page and context.
    ///
    /// Such a one hits the first level that holds its kind of page, where its predecessor has left it as the most recently used
    /// entry, and changes nothing but the count of hits: to use that entry again leaves an order and direction bits as they
    /// are. Between the two no context is lost, for none is loaded.
    fn run_but_repeats(&mut self, vpns: &[u64], contexts: Contexts<'_>, kind: Kind, unchecked: bool) -> bool {
        let what = kind as usize;
        let near = self.with.places.iter().position(|places| places[what] != Place::NOWHERE).unwrap_or(0);
        if let Contexts::One(pcid) = contexts {
            self.switch(pcid);
        }
        let mut before = Before::first(self.tlb.pcid());
        let mut at = 0;
        while at < vpns.len() {
            let (from, mut kept) = (at, 0);
            // The stream has room for what may come, until little of it is left.
            while at < vpns.len() && kept <= BATCH - BATCH / 8 {
                let end = vpns.len().min(at + BATCH - kept);
                let contexts = contexts.part(at..end);
                match contexts {
                    Contexts::Each(pcids) if self.slots => {
                        before.pages =
                            vpns[at..end].iter().fold(Together::default(), |all, &vpn| all.with(vpn));
                        for (&vpn, &pcid) in vpns[at..end].iter().zip(pcids) {
                            self.count = kept;
                            self.switch(Pcid(pcid & Pcid::MAX));
                            let key = Entry::new(vpn & Vpn::MASK, PageSize::K4, self.tlb.pcid(), false).0;
                            self.with.stream.keys[kept] = key;
                            kept += usize::from(key != before.key);
                            before.key = key;
                        }
                    }
                    Contexts::One(_) | Contexts::Each(_) => {
                        let (keys, how) = (&mut self.with.stream.keys, (PageSize::K4, true, self.vector));
                        kept = gather(&mut before, keys, kept, &vpns[at..end], contexts, how);
                        self.switched(&mut before);
                    }
                }
                if unchecked && before.refuses(&vpns[at..end]) {
                    return false;
                }
                at = end;
            }
            self.count = 0;
            self.levels(kept, 1 << what, false);
            self.drain(None);
            let repeated = (at - from - kept) as u64;
            let counters = self.tlb.counters_mut();
            counters.accesses += repeated;
            counters.hits[near] += repeated;
        }
        true
    }

    /// Contexts were loaded, where none costs an array anything.
    fn switched(&mut self, before: &mut Before) {
        let switches = std::mem::take(&mut before.switches);
        debug_assert!(switches == 0 || !self.slots);
        if switches > 0 {
            self.tlb.set_pcid(before.pcid());
            self.tlb.counters_mut().switches += switches;
        }
    }

    /// The TLB, for what is no access; after [`Flow::drain`] and [`Flow::settle`].
    pub(in crate::hw) fn tlb(&mut self) -> &mut Tlb {
        self.tlb
    }

    /// Whether no further access can be pushed before [`Flow::drain`].
    #[inline]
    pub(in crate::hw) fn is_full(&self) -> bool {
        self.count == BATCH
    }

    /// Loads a context, as [`Tlb::switch`], between the accesses before and after.
    pub(in crate::hw) fn switch(&mut self, pcid: Pcid) {
        if pcid == self.tlb.pcid() {
            return;
        }
        if self.slots {
            let (losses, number) = (&mut self.losses, self.count as u32);
            if losses.is_empty() {
                losses.resize(self.tlb.arrays().len(), Vec::new());
            }
            self.tlb.switch_telling(pcid, |array, gone| losses[array].push(Loss { number, gone }));
        } else {
            self.tlb.switch(pcid);
        }
    }

    /// Whether a page was met as global and not as global: what has been done since must be undone.
    pub(in crate::hw) fn crossed(&self) -> bool {
        self.with.stream.crossed || self.with.aside.crossed
    }

    /// Carries out what was pushed; the level that answered each goes to its place in `out`.
    pub(in crate::hw) fn drain(&mut self, out: Option<&mut [u8]>) {
        let count = std::mem::take(&mut self.count);
        let whats = std::mem::take(&mut self.whats);
        if count > 0 {
            self.levels(count, whats, out.is_some());
            if let Some(out) = out {
                for (answer, &at) in self.with.answers[..count].iter().zip(&self.with.outs) {
                    out[at as usize] = *answer;
                }
            }
        }
        // What is left is of arrays that nothing was looked for in since, so the order of losses does not matter.
        for (array, losses) in self.losses.iter_mut().enumerate() {
            if self.tlb.arrays()[array].is_untouched() {
                losses.clear();
            }
            if losses.len() > 1 {
                losses.sort_unstable_by_key(|loss| loss.gone.0);
                losses.dedup_by_key(|loss| loss.gone);
            }
            losses.drain(..).for_each(|loss| lose(self.tlb, array, loss.gone));
        }
    }

    fn loses(&self, array: u8) -> bool {
        self.losses.get(usize::from(array)).is_some_and(|losses| !losses.is_empty())
    }

    /// Gives every order back to its array.
    pub(in crate::hw) fn settle(&mut self) {
        debug_assert!(self.count == 0 && self.losses.iter().all(Vec::is_empty));
        for (array, form) in self.tlb.arrays_mut().iter_mut().zip(&mut self.forms) {
            if let Some(list) = form.list.take() {
                list.back(array);
            }
        }
        for (array, form) in self.tlb.psc_mut().iter_mut().zip(&mut self.walkers) {
            if let Some(list) = form.list.take() {
                list.back(array);
            }
        }
    }

    fn levels(&mut self, count: usize, whats: u16, wanted: bool) {
        for (i, number) in self.with.stream.numbers[..count].iter_mut().enumerate() {
            *number = i as u32;
        }
        let walk = self.tlb.levels();
        let mut left = count;
        for level in 0..walk {
            if wanted {
                for &number in &self.with.stream.numbers[..left] {
                    self.with.answers[number as usize] = level;
                }
            }
            let places = &self.with.places[usize::from(level)];
            let place = places[whats.trailing_zeros() as usize];
            let alike = (0..9).all(|what| whats >> what & 1 == 0 || places[what] == place);
            let missed = match place.arrays {
                [NOWHERE, ..] if alike => left,
                [array, ..] if alike && place.banks == 1 => self.pass(array, left),
                [one, two, ..] if alike && place.banks == 2 => {
                    let banked = self.pass_banks([one, two], place.shift, left);
                    banked.unwrap_or_else(|| self.pass_apart(level, left))
                }
                _ => self.pass_apart(level, left),
            };
            self.tlb.counters_mut().hits[usize::from(level)] += (left - missed) as u64;
            left = missed;
        }
        if wanted {
            for &number in &self.with.stream.numbers[..left] {
                self.with.answers[number as usize] = walk;
            }
        }
        let counters = self.tlb.counters_mut();
        counters.accesses += count as u64;
        counters.walks += left as u64;
        self.walks(left, whats >> 3 != 0);
    }

    /// The first `count` accesses through one array, cut where it loses a context; returns how many missed.
    fn pass(&mut self, array: u8, count: usize) -> usize {
        let mut missed = 0;
        let mut from = 0;
        if self.loses(array) {
            let mut losses = std::mem::take(&mut self.losses[usize::from(array)]);
            for loss in losses.drain(..) {
                let numbers = &self.with.stream.numbers[from..count];
                let to = from + numbers.iter().take_while(|&&number| number < loss.number).count();
                missed = self.part(array, from..to, missed);
                from = to;
                lose(self.tlb, usize::from(array), loss.gone);
            }
            self.losses[usize::from(array)] = losses;
        }
        self.part(array, from..count, missed)
    }

    fn part(&mut self, array: u8, range: std::ops::Range<usize>, missed: usize) -> usize {
        if range.is_empty() {
            return missed;
        }
        let at = usize::from(array);
        if self.forms.is_empty() {
            self.forms.resize(self.tlb.arrays().len(), Form::default());
        }
        let (array, form) = (&mut self.tlb.arrays_mut()[at], &mut self.forms[at]);
        // What may lose a context stays an array.
        let linked = if self.slots { 0 } else { self.worth };
        run(array, form, &mut self.with.stream, range, missed, (linked, self.globals, self.vector))
    }

    /// The first `left` accesses through two arrays of one shape, of which a bit of the page picks one; returns how many
    /// missed. `None`: it cannot be done at once, and nothing was.
    fn pass_banks(&mut self, arrays: [u8; 2], shift: u8, left: usize) -> Option<usize> {
        if !self.vector || arrays.iter().any(|&array| self.loses(array)) {
            return None;
        }
        let listed = |array: &u8| self.forms.get(usize::from(*array)).is_some_and(|form| form.list.is_some());
        if arrays.iter().any(listed) {
            return None;
        }
        let [one, two] = self.tlb.arrays_mut().get_disjoint_mut(arrays.map(usize::from)).ok()?;
        if !one.same_shape(two) {
            return None;
        }
        avx2::stream_pass(one, Some((two, shift)), &mut self.with.stream, 0..left, 0, (self.globals, true))
    }

    /// The first `left` accesses through whichever array each goes to; returns how many missed.
    ///
    /// Nothing here branches on whose an access is: where arrays alternate, that is guessed wrong as often as not.
    fn pass_apart(&mut self, level: u8, left: usize) -> usize {
        let Buffers { stream, places, whats, missed, arrays, .. } = &mut *self.with;
        let mut by_what = [Place::NOWHERE; 16];
        by_what[..9].copy_from_slice(&places[usize::from(level)]);
        let mut met = 0_u64; // bit `array % 64`, which two may share
        for ((&key, &number), array) in stream.keys[..left].iter().zip(&stream.numbers).zip(&mut arrays[..]) {
            let number = number as usize % BATCH;
            *array = by_what[usize::from(whats[number]) % 16].array(key);
            missed[number] = *array == NOWHERE;
            met |= 1 << (*array % 64);
        }
        // Each array's own accesses pass through the stream, whose content stands aside meanwhile.
        std::mem::swap(&mut self.with.stream, &mut self.with.aside);
        for array in (0..self.tlb.arrays().len() as u8).filter(|array| met >> (array % 64) & 1 == 1) {
            let own = self.gather(array, left);
            let missed = self.pass(array, own);
            for &number in &self.with.stream.numbers[..missed] {
                self.with.missed[number as usize % BATCH] = true;
            }
        }
        std::mem::swap(&mut self.with.stream, &mut self.with.aside);
        self.close_up(left)
    }

    /// Copies those of the first `left` accesses aside that go to one array to the stream, in order; returns how many.
    fn gather(&mut self, array: u8, left: usize) -> usize {
        let Buffers { stream, aside, arrays, .. } = &mut *self.with;
        let (mut own, mut places) = (0, [0_u16; BATCH]);
        for (i, &its) in arrays[..left].iter().enumerate() {
            places[own % BATCH] = i as u16;
            own += usize::from(its == array);
        }
        for (to, &from) in places[..own].iter().enumerate() {
            let from = usize::from(from) % BATCH;
            stream.keys[to] = aside.keys[from];
            stream.numbers[to] = aside.numbers[from];
        }
        if self.globals {
            for (to, &from) in places[..own].iter().enumerate() {
                stream.others[to] = aside.others[usize::from(from) % BATCH];
            }
        }
        own
    }

    /// Leaves of the first `left` accesses those that missed, in order.
    fn close_up(&mut self, left: usize) -> usize {
        let mut missed = 0;
        let Buffers { stream, missed: misses, .. } = &mut *self.with;
        for i in 0..left {
            let number = stream.numbers[i];
            stream.keys[missed] = stream.keys[i];
            stream.others[missed] = stream.others[i];
            stream.numbers[missed] = number;
            missed += usize::from(misses[number as usize % BATCH]);
        }
        missed
    }
}

/// What an array loses when a context has no slot any more.
fn lose(tlb: &mut Tlb, array: usize, gone: Pcid) {
    let array = &mut tlb.arrays_mut()[array];
    if !array.is_untouched() {
        let removed = array.remove_context(gone);
        tlb.counters_mut().invalidated += removed as u64;
    }
}

#[cfg(test)]
mod tests;
