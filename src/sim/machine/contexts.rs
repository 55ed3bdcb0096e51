//! Memory contexts (FACTS 2.2, 2.3): the address spaces, and what each CPU keeps of them for itself. What other CPUs
//! read or write is an op of a program; this is where those ops find it.
//!
//! Invariant: a slot of a CPU holds an address space's identity, which is never given twice, so a number that is
//! reused never matches what an older process left in a slot.

use crate::kernel::program::{Code, Copies, Holds};
use crate::kernel::step::{Cpu, Violation};

/// `TLB_NR_DYN_ASIDS`.
pub const ASIDS: usize = 6;

/// The kernel's own address space.
pub const INIT_MM: u16 = 0;

/// The number that says "switching" (`LOADED_MM_SWITCHING`): no address space has it.
const SWITCHING: u16 = 1;

/// Largest number of an address space.
const MOST: usize = u16::MAX as usize - 1;

/// An address space.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Mm {
    /// `context.ctx_id`.
    id: u64,
    vars: Vec<u64>,
    /// `mm_cpumask`, 64 CPUs a word.
    mask: Vec<u64>,
    /// CPUs whose CR3 points to it.
    loaded: u32,
}

/// What one CPU keeps for itself.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Slots {
    /// `ctxs[].ctx_id`; 0: nothing.
    ids: [u64; ASIDS],
    /// `next_asid`.
    next: u8,
    vars: Vec<[u64; ASIDS]>,
    next_mm: u16,
    flush_mm: u16,
}

/// What `choose_new_asid` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The slot.
    pub asid: u8,
    /// It held this address space already.
    pub hit: bool,
    /// Other slots given up because of `invalidate_other`.
    pub dropped: u32,
}

/// See the module.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Contexts {
    words: usize,
    mm_init: Vec<u64>,
    asid_init: Vec<u64>,
    last_id: u64,
    mms: Vec<Mm>,
    /// Numbers of processes that are gone, perhaps still loaded by a lazy CPU.
    gone: Vec<u16>,
    cpus: Vec<Slots>,
    /// How many ASIDs a CPU gives, where a test wants fewer; 0: all.
    #[cfg(test)]
    #[serde(skip)]
    pub fewer: usize,
}

impl Contexts {
    /// Every CPU has `init_mm` loaded, in slot 0 and up to date. Empty for a code without memory contexts.
    pub fn new(code: &Code, cpus: usize) -> Self {
        let init = |copies: Copies| -> Vec<u64> {
            code.vars.iter().filter(|v| v.copies == copies).map(|v| u64::from(v.init)).collect()
        };
        let (mm_init, asid_init) = (init(Copies::Mm), init(Copies::Asid));
        if mm_init.is_empty() && asid_init.is_empty() {
            return Contexts::default();
        }
        let mut ids = [0; ASIDS];
        ids[0] = 1;
        let vars = code
            .vars
            .iter()
            .filter(|v| v.copies == Copies::Asid)
            .map(|v| {
                let mut all = [u64::from(v.init); ASIDS];
                if v.holds == Holds::Generation {
                    all[0] = 1;
                }
                all
            })
            .collect();
        let slots = Slots { ids, next: 1, vars, next_mm: INIT_MM, flush_mm: INIT_MM };
        let words = cpus.div_ceil(64);
        let mut out = Contexts {
            words,
            mm_init,
            asid_init,
            last_id: 0,
            mms: Vec::new(),
            gone: Vec::new(),
            cpus: vec![slots; cpus],
            #[cfg(test)]
            fewer: 0,
        };
        out.add();
        out.mms[0].loaded = cpus as u32;
        let switching = Mm { id: 0, vars: vec![0; out.mm_init.len()], mask: vec![0; words], loaded: 0 };
        out.mms.push(switching);
        out
    }

    fn add(&mut self) {
        self.last_id += 1;
        let (vars, mask) = (self.mm_init.clone(), vec![0; self.words]);
        self.mms.push(Mm { id: self.last_id, vars, mask, loaded: 0 });
    }

    /// `mm_alloc`: a number for a new address space; `None` if there are too many.
    pub fn create(&mut self) -> Option<u16> {
        let mms = &self.mms;
        let free = self.gone.iter().position(|&n| {
            let mm = &mms[usize::from(n)];
            mm.loaded == 0 && mm.mask.iter().all(|w| *w == 0)
        });
        if let Some(at) = free {
            let n = self.gone.remove(at);
            self.last_id += 1;
            let mm = &mut self.mms[usize::from(n)];
            mm.id = self.last_id;
            mm.vars.clone_from(&self.mm_init);
            return Some(n);
        }
        if self.mms.len() > MOST {
            return None;
        }
        self.add();
        Some((self.mms.len() - 1) as u16)
    }

    /// The last user of an address space is gone.
    pub fn destroy(&mut self, mm: u16) {
        self.gone.push(mm);
    }

    /// A variable of an address space.
    pub fn of_mm(&mut self, var: usize, mm: Cpu) -> Result<&mut u64, Violation> {
        self.mms
            .get_mut(usize::from(mm))
            .filter(|_| mm != SWITCHING)
            .map(|m| &mut m.vars[var])
            .ok_or(Violation::Overflow)
    }

    /// A CPU's variable of an ASID.
    pub fn of_asid(&mut self, var: usize, cpu: Cpu, asid: u16) -> Result<&mut u64, Violation> {
        self.cpus[usize::from(cpu)].vars[var].get_mut(usize::from(asid)).ok_or(Violation::Overflow)
    }

    /// Is the CPU in `mm_cpumask`?
    #[inline]
    pub fn has(&self, mm: u16, cpu: Cpu) -> bool {
        self.mask_of(mm).get(usize::from(cpu) / 64).is_some_and(|word| word >> (cpu % 64) & 1 == 1)
    }

    /// `mm_cpumask`, 64 CPUs a word; no words of an address space that there is none of: a program may ask where nothing
    /// creates any.
    #[inline]
    pub fn mask_of(&self, mm: u16) -> &[u64] {
        self.mms.get(usize::from(mm)).map_or(&[], |mm| &mm.mask)
    }

    /// How many CPUs are in `mm_cpumask` from `from` on.
    pub fn members_from(&self, mm: u16, from: Cpu) -> u64 {
        let words = self.mask_of(mm).iter().enumerate().skip(usize::from(from) / 64);
        let count = |(n, word): (usize, &u64)| {
            let bits = if n == usize::from(from) / 64 { word & u64::MAX << (from % 64) } else { *word };
            u64::from(bits.count_ones())
        };
        words.map(count).sum()
    }

    /// How many CPUs are in `mm_cpumask`.
    pub fn members(&self, mm: u16) -> u64 {
        self.mask_of(mm).iter().map(|w| u64::from(w.count_ones())).sum()
    }

    /// The first CPU of `mm_cpumask` from `from` on.
    pub fn next_in(&self, mm: u16, from: Cpu) -> Option<Cpu> {
        let mask = self.mask_of(mm);
        let mut word = usize::from(from) / 64;
        let mut bits = mask.get(word)? & u64::MAX << (from % 64);
        while bits == 0 {
            word += 1;
            bits = *mask.get(word)?;
        }
        Some((word * 64) as Cpu + bits.trailing_zeros() as Cpu)
    }

    /// Sets or clears a CPU's bit.
    pub fn mask(&mut self, mm: u64, cpu: Cpu, on: bool) -> Result<(), Violation> {
        let mm = usize::try_from(mm).ok().filter(|n| *n != usize::from(SWITCHING));
        let mm = mm.and_then(|n| self.mms.get_mut(n)).ok_or(Violation::Overflow)?;
        let word = &mut mm.mask[usize::from(cpu) / 64];
        *word = *word & !(1 << (cpu % 64)) | u64::from(on) << (cpu % 64);
        Ok(())
    }

    /// CR3 points to another address space.
    pub fn loaded(&mut self, from: u16, to: u16) -> Result<(), Violation> {
        if usize::from(to) >= self.mms.len() || to == SWITCHING {
            return Err(Violation::Overflow);
        }
        self.mms[usize::from(from)].loaded -= 1;
        self.mms[usize::from(to)].loaded += 1;
        Ok(())
    }

    /// The ASIDs of a CPU that hold an address space, a bit each.
    pub fn slots_of(&self, cpu: Cpu, mm: u16) -> u8 {
        let Some(id) = self.mms.get(usize::from(mm)).map(|m| m.id) else { return 0 };
        let held = self.cpus[usize::from(cpu)].ids.iter().enumerate().filter(|(_, held)| **held == id);
        held.fold(0, |all, (asid, _)| all | 1 << asid)
    }

    /// `choose_new_asid`. `others`: `invalidate_other` is set, so every slot but the loaded one is given up.
    pub fn choose(
        &mut self,
        cpu: Cpu,
        mm: u64,
        loaded: usize,
        others: bool,
        pcid: bool,
    ) -> Result<Choice, Violation> {
        let id = usize::try_from(mm).ok().and_then(|n| self.mms.get(n)).ok_or(Violation::Overflow)?.id;
        #[cfg(not(test))]
        let most = ASIDS;
        #[cfg(test)]
        let most = if self.fewer > 0 { self.fewer } else { ASIDS };
        let slots = &mut self.cpus[usize::from(cpu)];
        let mut dropped = 0;
        if others {
            for (asid, held) in slots.ids.iter_mut().enumerate().filter(|(asid, _)| *asid != loaded) {
                debug_assert_ne!(asid, loaded);
                dropped += u32::from(*held != 0);
                *held = 0;
            }
        }
        if pcid && let Some(asid) = slots.ids.iter().position(|held| *held == id) {
            return Ok(Choice { asid: asid as u8, hit: true, dropped });
        }
        let asid = if pcid && usize::from(slots.next) < most { slots.next } else { 0 };
        slots.next = asid + 1;
        slots.ids[usize::from(asid)] = id;
        for (all, init) in slots.vars.iter_mut().zip(&self.asid_init) {
            all[usize::from(asid)] = *init;
        }
        Ok(Choice { asid, hit: false, dropped })
    }

    /// What this CPU's next `next mm` answers.
    pub fn set_next(&mut self, cpu: Cpu, mm: u16) {
        self.cpus[usize::from(cpu)].next_mm = mm;
    }

    /// What this CPU's next `mm to flush` answers.
    pub fn set_flush(&mut self, cpu: Cpu, mm: u16) {
        self.cpus[usize::from(cpu)].flush_mm = mm;
    }

    /// What [`Contexts::set_next`] and [`Contexts::set_flush`] said; of a code without memory contexts `init_mm`.
    pub fn asked(&self, cpu: Cpu) -> (u16, u16) {
        self.cpus.get(usize::from(cpu)).map_or((INIT_MM, INIT_MM), |slots| (slots.next_mm, slots.flush_mm))
    }

    /// Same shape: a saved state fits.
    pub fn fits(&self, other: &Contexts) -> bool {
        self.cpus.len() == other.cpus.len()
            && self.words == other.words
            && other.mms.iter().all(|m| m.mask.len() == self.words && m.vars.len() == self.mm_init.len())
            && other.cpus.iter().all(|s| s.vars.len() == self.asid_init.len())
            && self.mm_init == other.mm_init
            && self.asid_init == other.asid_init
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::policy::{builtin, load_with};
    use crate::kernel::program::Features;

    fn contexts(cpus: usize) -> Contexts {
        let code = load_with(&builtin("ipi").unwrap(), &["switch_mm"], Features::PTI_PCID).unwrap();
        Contexts::new(&code, cpus)
    }

    #[test]
    fn six_in_turn_are_all_found_again_and_seven_never() {
        for (processes, found) in [(5, true), (6, true), (7, false)] {
            let mut c = contexts(1);
            let mms: Vec<u16> = (0..processes).map(|_| c.create().unwrap()).collect();
            for round in 0..5 {
                for mm in &mms {
                    let choice = c.choose(0, u64::from(*mm), 0, false, true).unwrap();
                    assert_eq!(choice.hit, found && round > 0, "{mm}");
                }
            }
        }
    }

    #[test]
    fn a_number_is_reused_only_when_nobody_has_it_loaded_and_never_matches_an_old_slot() {
        let mut c = contexts(2);
        let first = c.create().unwrap();
        assert!(!c.choose(0, u64::from(first), 0, false, true).unwrap().hit);
        c.loaded(INIT_MM, first).unwrap();
        c.destroy(first);
        assert_ne!(c.create().unwrap(), first, "a lazy CPU still has it loaded");
        c.loaded(first, INIT_MM).unwrap();
        assert_eq!(c.create().unwrap(), first);
        assert!(!c.choose(0, u64::from(first), 0, false, true).unwrap().hit, "another process");
    }

    #[test]
    fn invalidate_other_gives_up_every_slot_but_the_loaded_one() {
        let mut c = contexts(1);
        let (a, b) = (u64::from(c.create().unwrap()), u64::from(c.create().unwrap()));
        let (one, two) = (c.choose(0, a, 0, false, true).unwrap(), c.choose(0, b, 1, false, true).unwrap());
        assert_eq!((one.asid, two.asid), (1, 2));
        let again = c.choose(0, a, 2, true, true).unwrap();
        assert!(!again.hit);
        assert_eq!(again.dropped, 2, "init_mm's slot and a's");
        assert!(c.choose(0, b, 2, false, true).unwrap().hit);
    }

    #[test]
    fn members_of_a_mask_come_in_order() {
        let mut c = contexts(200);
        let mm = c.create().unwrap();
        for cpu in [3, 64, 199] {
            c.mask(u64::from(mm), cpu, true).unwrap();
        }
        let mut all = Vec::new();
        let mut at = 0;
        while let Some(cpu) = c.next_in(mm, at) {
            all.push(cpu);
            at = cpu + 1;
        }
        assert_eq!(all, [3, 64, 199]);
        for (from, left) in [(0, 3), (3, 3), (4, 2), (63, 2), (64, 2), (65, 1), (130, 1), (199, 1)] {
            assert_eq!(c.members_from(mm, from), left, "from {from}");
        }
        assert_eq!((c.members(mm), c.has(mm, 64), c.has(mm, 65), c.has(mm, 4)), (3, true, false, false));
        c.mask(u64::from(mm), 64, false).unwrap();
        assert_eq!((c.members(mm), c.members_from(mm, 4), c.has(mm, 64)), (2, 1, false));
        assert!(c.mask(1, 0, true).is_err(), "no address space has the number that says switching");
    }

    #[test]
    fn only_what_has_the_same_shape_fits() {
        let mut here = contexts(65);
        here.create().unwrap();
        let changed = |change: fn(&mut Contexts)| {
            let mut other = here.clone();
            change(&mut other);
            here.fits(&other)
        };
        assert!(changed(|_| {}));
        assert!(changed(|c| (c.last_id, c.cpus[64].next, c.mms[0].mask[1]) = (9, 3, 1)), "values may differ");
        assert!(!here.fits(&contexts(66)) && !here.fits(&contexts(64)) && !contexts(64).fits(&here));
        let changes: [fn(&mut Contexts); 7] = [
            |c| c.words += 1,
            |c| c.mms[0].mask.push(0),
            |c| c.mms[0].vars.push(0),
            |c| c.cpus[64].vars.clear(),
            |c| c.mm_init.push(0),
            |c| c.asid_init.push(0),
            |c| c.cpus.truncate(64),
        ];
        for (i, change) in changes.into_iter().enumerate() {
            assert!(!changed(change), "change {i}");
        }
    }
}
