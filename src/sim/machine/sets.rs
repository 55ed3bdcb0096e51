//! Sets of CPUs: those that the kernel's masks name, the targets that a loop collects, and loops that look at many
//! members which all look the same.

#[cfg(test)]
mod tests;

use super::{Layout, Timed};
use crate::kernel::program::Set;
use crate::kernel::step::Cpu;

/// Bits of `Timed::sets`.
const HOUSEKEEPING: u8 = 1;
const NOHZ_FULL: u8 = 2;
const FLUSH_MASK: u8 = 4;

/// How a CPU looks to a loop that only looks, and what the loop then does.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// The sets it is in.
    pub sets: u8,
    /// Its variables, packed.
    pub vars: u64,
    /// Time of the turn.
    pub cost: u64,
    /// It is put into the collected set.
    pub put: bool,
}

/// At most four variables in one word.
#[inline]
fn pack(vars: &[u16]) -> u64 {
    vars.iter().fold(0, |all, v| all << 16 | u64::from(*v))
}

/// The sets of each CPU.
pub(super) fn of(layout: &Layout<'_>) -> Vec<u8> {
    let mut sets = vec![HOUSEKEEPING; usize::from(layout.cpus)];
    for cpu in layout.isolated {
        sets[usize::from(*cpu)] = NOHZ_FULL;
    }
    for cpu in layout.flush_mask {
        sets[usize::from(*cpu)] |= FLUSH_MASK;
    }
    sets
}

impl Timed {
    /// The targets a frame collected.
    pub fn is_target(&self, cpu: Cpu, who: Cpu) -> bool {
        let word = usize::from(cpu) * self.words + usize::from(who) / 64;
        self.targets[word] >> (who % 64) & 1 == 1
    }

    /// The first member of the collected targets from `who` on.
    pub fn next_target(&self, cpu: Cpu, who: Cpu) -> Option<Cpu> {
        let words = &self.targets[usize::from(cpu) * self.words..][..self.words];
        let (first, bit) = (usize::from(who) / 64, who % 64);
        let word = words.get(first)? >> bit << bit;
        if word != 0 {
            return Some(64 * first as Cpu + word.trailing_zeros() as Cpu);
        }
        let more = words[first + 1..].iter().position(|word| *word != 0)?;
        let at = first + 1 + more;
        Some(64 * at as Cpu + words[at].trailing_zeros() as Cpu)
    }

    /// The first member of a set from `who` on, as seen from `cpu`.
    #[inline]
    pub fn next_member(&self, cpu: Cpu, set: Set, who: Cpu) -> Option<Cpu> {
        match set {
            Set::Targets => self.next_target(cpu, who),
            Set::Online
            | Set::Others
            | Set::Housekeeping
            | Set::NohzFull
            | Set::FlushMask
            | Set::MmCpumask => (who..self.cores.len() as Cpu).find(|&who| self.in_set(cpu, set, who)),
        }
    }

    /// Members of a set, as seen from `cpu`.
    #[inline]
    pub fn in_set(&self, cpu: Cpu, set: Set, who: Cpu) -> bool {
        let sets = self.sets[usize::from(who)];
        match set {
            Set::Online => true,
            Set::Others => who != cpu,
            Set::Housekeeping => sets & HOUSEKEEPING != 0,
            Set::NohzFull => sets & NOHZ_FULL != 0,
            Set::FlushMask => sets & FLUSH_MASK != 0,
            Set::Targets => self.is_target(cpu, who),
            Set::MmCpumask => who != cpu && self.contexts.has(self.cores[usize::from(cpu)].request.mm, who),
        }
    }

    /// How many targets a frame collected.
    pub fn count_targets(&self, cpu: Cpu) -> u64 {
        self.words_of(cpu).iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// The targets a frame collected, 64 CPUs a word.
    #[inline]
    pub fn words_of(&self, cpu: Cpu) -> &[u64] {
        &self.targets[usize::from(cpu) * self.words..][..self.words]
    }

    /// Those who have had the call that is being sent are, or are no longer, among the targets.
    pub fn had_are_targets(&mut self, cpu: Cpu, are: bool) {
        let targets = &mut self.targets[usize::from(cpu) * self.words..][..self.words];
        for (word, had) in targets.iter_mut().zip(&self.volleys.had) {
            *word = if are { *word | had } else { *word & !had };
        }
    }

    /// Are both CPUs on one socket?
    #[inline]
    pub fn is_near(&self, cpu: Cpu, other: Cpu) -> bool {
        self.socket[usize::from(cpu)] == self.socket[usize::from(other)]
    }

    /// Does a look at a CPU take longer where that is on another socket?
    pub fn looks_differ(&self) -> bool {
        self.times.far.0 > 0 && self.socket.last() > self.socket.first()
    }

    /// The sets a CPU is in, packed.
    pub fn sets_of(&self, cpu: Cpu) -> u8 {
        self.sets[usize::from(cpu)]
    }

    /// The same as one word; for at most four variables.
    #[inline]
    pub fn packed_vars(&self, cpu: Cpu) -> u64 {
        pack(self.vars_of(cpu))
    }

    /// Goes on with the loop of `cpu` over `of` while the CPUs are quiet and look like this one; the last of them.
    pub fn repeat(&mut self, cpu: Cpu, of: Set, look: Look, until: u64) -> Option<Cpu> {
        let c = &self.cores[usize::from(cpu)];
        let (mut clock, mut place, mut last) = (c.clock, c.loop_next, None);
        let first = usize::from(place);
        // A loop that only looks is over one of these.
        let members = match of {
            Set::Online | Set::Others => 0,
            Set::Housekeeping => HOUSEKEEPING,
            Set::NohzFull => NOHZ_FULL,
            Set::FlushMask => FLUSH_MASK,
            Set::MmCpumask => return self.repeat_in_mask(cpu, look, until),
            Set::Targets => return None,
        };
        let targets = &mut self.targets[usize::from(cpu) * self.words..][..self.words];
        let (stride, vars) = (self.vars, self.values.get(first * self.vars..).unwrap_or(&[]));
        let alike = |nth: usize| match stride {
            1 => u64::from(vars[nth]) == look.vars,
            _ => pack(&vars[nth * stride..][..stride]) == look.vars,
        };
        let whole = members == 0 || look.sets & members != 0;
        while usize::from(place) < self.quiet.len() {
            let (at, nth) = (usize::from(place), usize::from(place) - first);
            // Of a word of CPUs that look the same and are quiet until the last of them was looked at, each turn goes on.
            let end = clock + 64 * look.cost;
            if whole
                && at % 64 == 0
                && at + 64 <= self.quiet.len()
                && at / 64 != usize::from(cpu) / 64
                && end < until
            {
                let quiet =
                    self.quiet[at..at + 64].iter().fold(u64::MAX, |least, quiet| least.min(*quiet)) > end;
                let same = self.sets[at..at + 64].iter().fold(0, |more, sets| more | (sets ^ look.sets)) == 0;
                if quiet && same && (nth..nth + 64).all(alike) {
                    (clock, last, place) = (end, Some(place + 63), place + 64);
                    targets[at / 64] |= if look.put { u64::MAX } else { 0 };
                    continue;
                }
            }
            let (quiet, sets) = (&self.quiet[at], &self.sets[at]);
            if members == 0 && place != cpu || sets & members != 0 {
                let same = place != cpu
                    && *quiet > clock
                    && *sets == look.sets
                    && alike(nth)
                    && clock + look.cost < until;
                if !same {
                    break;
                }
                clock += look.cost;
                last = Some(place);
                if look.put {
                    targets[usize::from(place) / 64] |= 1 << (place % 64);
                }
            } else if members == 0 && of == Set::Online {
                break; // this CPU itself
            }
            place += 1;
        }
        let c = &mut self.cores[usize::from(cpu)];
        (c.clock, c.loop_next) = (clock, place);
        last
    }

    /// The same for the CPUs of an address space.
    fn repeat_in_mask(&mut self, cpu: Cpu, look: Look, until: u64) -> Option<Cpu> {
        let c = &self.cores[usize::from(cpu)];
        let (mut clock, mut place, mut last) = (c.clock, c.loop_next, None);
        let targets = &mut self.targets[usize::from(cpu) * self.words..][..self.words];
        let (stride, values) = (self.vars, &self.values);
        let vars = |who: usize| match stride {
            2 => u64::from(values[2 * who]) << 16 | u64::from(values[2 * who + 1]),
            _ => pack(&values[who * stride..][..stride]),
        };
        let mask = self.contexts.mask_of(c.request.mm);
        'words: for word in usize::from(place) / 64..mask.len() {
            let mut bits = mask[word];
            if word == usize::from(place) / 64 {
                bits &= u64::MAX << (place % 64);
            }
            if word == usize::from(cpu) / 64 {
                bits &= !(1 << (cpu % 64));
            }
            while bits != 0 {
                let bit = bits.trailing_zeros();
                bits &= bits - 1;
                let who = 64 * word + bit as usize;
                let same = self.quiet[who] > clock
                    && self.sets[who] == look.sets
                    && vars(who) == look.vars
                    && clock + look.cost < until;
                if !same {
                    break 'words;
                }
                clock += look.cost;
                last = Some(who as Cpu);
                place = who as Cpu + 1;
                targets[word] |= u64::from(look.put) << bit;
            }
        }
        let c = &mut self.cores[usize::from(cpu)];
        (c.clock, c.loop_next) = (clock, place);
        last
    }
}
