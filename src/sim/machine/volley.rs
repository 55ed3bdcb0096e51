//! What volleys have done to CPUs that have not run since: a remote call to CPUs in user mode that all look alike does
//! the same to each of them, so it is counted here and written into the CPU when somebody needs to know.
//!
//! Invariant: a CPU with an [`Effect`] is in user mode, looks as that effect found it, and nothing has happened to it
//! since but the `times` that are counted; [`Timed::settle_volleys`] makes it the CPU it would be otherwise.

use super::super::queue::NEVER;
use super::super::stats::{Cause, FlushKind, Stat, Window};
use super::super::timeline::{Event, Kind};
use super::Timed;
use crate::kernel::program::ProgId;
use crate::kernel::step::Cpu;

/// A CPU in user mode as the interrupt of a remote call finds it, apart from times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // registers of one bit
pub struct Shape {
    cr3: u64,
    nmi_blocked: bool,
    gs_kernel: bool,
    sync_owed: bool,
    view: bool,
    window: Window,
    flushed_by: FlushKind,
    cold: bool,
    owe_user: u8,
    owe_others: bool,
    broadcast: Option<bool>,
    loop_next: Cpu,
    in_call_irq: bool,
    entry_code: bool,
    owed: bool,
    sets: u8,
    /// `loaded_mm`, `is_lazy`.
    vars: u64,
}

/// What is asked of every CPU that a call goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What runs there.
    pub run: ProgId,
    /// Everything is flushed.
    pub full: bool,
    /// Pages otherwise.
    pub pages: u32,
    /// Why.
    pub cause: Cause,
    /// Of a user range: its address space, and how far `tlb_gen` has gone beyond the request's generation.
    pub mm: Option<(u16, u64)>,
}

/// What such a call does to a CPU of such a shape, which it leaves in the same shape.
#[derive(Clone, Debug)]
pub struct Effect {
    /// What was asked.
    pub asked: Asked,
    /// Of whom, and how many pages of the kernel and of its own that CPU touches after a flush.
    pub shape: (Shape, (u32, u32)),
    /// How far the CPU's `ctx_gen` is behind the request's generation before and ahead of it after (both wrap).
    pub generations: Option<(u64, u64)>,
    /// From the interrupt to the return to user mode.
    pub took: u64,
    /// From the interrupt to the acknowledgement.
    pub acked: u64,
    /// From the interrupt to the last serialising instruction, flush of everything.
    pub serialised: Option<u64>,
    /// ... flush of everything.
    pub flushed: Option<u64>,
    /// It served the request page by page.
    pub served: bool,
    /// Events; times from the interrupt on.
    pub events: Vec<Event>,
    /// Statistics that grow.
    pub delta: Vec<(usize, u64)>,
}

/// A call that is about to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Shots {
    /// Who sends it.
    pub from: Cpu,
    /// What it asks.
    pub asked: Asked,
    /// Number and generation of the request.
    pub id: u32,
    /// See `id`.
    pub generation: u64,
    /// When interrupts come on the same socket, on another one.
    pub at: (u64, u64),
}

/// What is counted of one CPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shot {
    /// Number of its effect plus one; 0: none.
    pub effect: u32,
    /// How often.
    pub times: u32,
    /// End of the last one.
    pub quiet_from: u64,
    /// Longest time between two.
    pub longest: u64,
    /// Its `ctx_gen`.
    pub generation: u64,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Volleys {
    /// By CPU; empty where there are none.
    pub shots: Vec<Shot>,
    /// What is known.
    pub effects: Vec<Effect>,
    /// Of the call that is being sent: who has had it already, in how many words of 64 CPUs.
    pub had: Vec<u64>,
}

impl Volleys {
    /// How many have had the call that is being sent.
    pub fn count(&self) -> u32 {
        self.had.iter().map(|word| word.count_ones()).sum()
    }

    /// What is counted of a CPU.
    #[inline]
    pub fn of(&self, cpu: Cpu) -> Option<Shot> {
        self.shots.get(usize::from(cpu)).copied().filter(|shot| shot.effect > 0)
    }
}

impl Timed {
    /// How a CPU looks to a remote call; `None`: not in user mode, or something is under way.
    pub fn shape_of(&self, cpu: Cpu) -> Option<Shape> {
        let c = &self.cores[usize::from(cpu)];
        let calm = c.depth == 0
            && c.if_on
            && c.working == 0
            && c.acks_left == 0
            && !c.waiting
            && c.call.is_none()
            && c.calls.is_empty()
            && c.irq_at == NEVER
            && c.fg_next == NEVER
            && c.exposed_from == NEVER
            && c.resume == 0
            && self.vars <= 4;
        calm.then(|| Shape {
            cr3: c.cr3,
            nmi_blocked: c.nmi_blocked,
            gs_kernel: c.gs_kernel,
            sync_owed: c.sync_owed,
            view: c.view,
            window: c.window,
            flushed_by: c.flushed_by,
            cold: c.cold,
            owe_user: c.owe_user,
            owe_others: c.owe_others,
            broadcast: c.broadcast,
            loop_next: c.loop_next,
            in_call_irq: c.in_call_irq,
            entry_code: c.entry_code,
            owed: self.debts[usize::from(cpu)].owed,
            sets: self.sets_of(cpu),
            vars: self.packed_vars(cpu),
        })
    }

    /// The `ctx_gen` that a CPU has of what is loaded.
    pub fn generation_of(&mut self, cpu: Cpu) -> Option<u64> {
        let (_, ctx_gen) = self.lag?;
        let asid = (self.cores[usize::from(cpu)].cr3 >> 8 & 0xff) as u16;
        self.contexts.of_asid(ctx_gen, cpu, asid).ok().copied()
    }

    /// Sets it.
    pub fn set_generation(&mut self, cpu: Cpu, generation: u64) {
        let asid = (self.cores[usize::from(cpu)].cr3 >> 8 & 0xff) as u16;
        if let Some((_, ctx_gen)) = self.lag
            && let Ok(seen) = self.contexts.of_asid(ctx_gen, cpu, asid)
        {
            *seen = generation;
        }
    }

    /// What a call of this CPU asks.
    pub fn asked(&mut self, cpu: Cpu, run: ProgId) -> Option<Asked> {
        let request = self.cores[usize::from(cpu)].request;
        let mm = match (request.user, self.tlb_gen) {
            (false, _) => None,
            (true, None) => return None,
            (true, Some(var)) => {
                let now = *self.contexts.of_mm(var, request.mm).ok()?;
                Some((request.mm, now.wrapping_sub(request.generation)))
            }
        };
        Some(Asked { run, full: request.full, pages: request.pages, cause: request.cause, mm })
    }

    /// Writes what is counted of a CPU into it.
    #[inline]
    pub fn settle_volleys(&mut self, cpu: Cpu) {
        if self.volleys.of(cpu).is_some() {
            self.settle_shot(cpu);
        }
    }

    /// Writes everything that is counted.
    pub fn settle_all_volleys(&mut self) {
        for cpu in 0..self.volleys.shots.len() as Cpu {
            self.settle_volleys(cpu);
        }
    }

    #[inline(never)]
    fn settle_shot(&mut self, cpu: Cpu) {
        let i = usize::from(cpu);
        let shot = std::mem::take(&mut self.volleys.shots[i]);
        if shot.times == 0 {
            return;
        }
        let effect = &self.volleys.effects[shot.effect as usize - 1];
        let times = u64::from(shot.times);
        let c = &mut self.cores[i];
        (c.clock, c.quiet_from) = (shot.quiet_from, shot.quiet_from);
        if let Some(after) = effect.serialised {
            c.serialised_at = shot.quiet_from - effect.took + after;
        }
        let row = &mut self.stats[i];
        for &(stat, by) in &effect.delta {
            row[stat] += by * times;
        }
        let longest = &mut row[Stat::longest_quiet_ps as usize];
        *longest = (*longest).max(shot.longest);
        self.by_cause[i][effect.asked.cause as usize] += times;
        if !self.keeps_events {
            self.timelines[i].dropped += times * effect.events.len() as u64;
        }
        if effect.generations.is_some() {
            self.set_generation(cpu, shot.generation);
        }
    }

    /// One more of them: the interrupt comes at `at`.
    #[inline]
    pub fn shoot(&mut self, cpu: Cpu, at: u64, call: &Shots) {
        let i = usize::from(cpu);
        let shot = &mut self.volleys.shots[i];
        let effect = &self.volleys.effects[shot.effect as usize - 1];
        shot.longest = shot.longest.max(at - shot.quiet_from);
        shot.quiet_from = at + effect.took;
        shot.times += 1;
        if let Some((_, ahead)) = effect.generations {
            shot.generation = call.generation.wrapping_add(ahead);
        }
        if effect.served || effect.flushed.is_some() {
            let debt = &mut self.debts[i];
            if let Some(after) = effect.flushed {
                debt.flushed_at = at + after;
            }
            if effect.served {
                debt.served = call.id;
            }
        }
        if self.keeps_events {
            for event in &effect.events {
                let other = if event.kind == Kind::Interrupt { u32::from(call.from) } else { event.other };
                self.timelines[i].push(Event { time_ps: at + event.time_ps, cpu, other, ..*event });
            }
        }
    }

    /// Of 64 CPUs, those of which this effect is counted and on whom the call has it again; and who is near. It is
    /// [`Timed::shoot`] for each of them.
    pub fn sweep(&mut self, word: usize, bits: u64, number: usize, call: &Shots) -> (u64, u64) {
        let effect = &self.volleys.effects[number];
        let writes =
            effect.served || effect.flushed.is_some() || self.keeps_events && !effect.events.is_empty();
        if writes {
            return (0, 0);
        }
        let (took, wanted) = (effect.took, number as u32 + 1);
        // Without generations any will do.
        let (before, after, every) = match effect.generations {
            Some((behind, ahead)) => {
                (call.generation.wrapping_sub(behind), call.generation.wrapping_add(ahead), false)
            }
            None => (0, 0, true),
        };
        let first = 64 * word;
        let end = self.quiet.len().min(first + 64);
        let (quiet, socket) = (&self.quiet[first..end], &self.socket[first..end]);
        let here = self.socket[usize::from(call.from)];
        let shots = &mut self.volleys.shots[first..end];
        let (mut left, mut hit, mut near) = (bits, 0, 0);
        while left != 0 {
            let bit = left.trailing_zeros() as usize;
            left &= left - 1;
            let same = socket[bit] == here;
            let at = if same { call.at.0 } else { call.at.1 };
            let shot = &mut shots[bit];
            if shot.effect == wanted
                && (every || shot.generation == before)
                && quiet[bit] > at + took
                && shot.quiet_from <= at
            {
                shot.longest = shot.longest.max(at - shot.quiet_from);
                shot.quiet_from = at + took;
                shot.times += 1;
                if !every {
                    shot.generation = after;
                }
                hit |= 1 << bit;
                near |= u64::from(same) << bit;
            }
        }
        if cfg!(any(test, debug_assertions)) {
            let shape = Some(self.volleys.effects[number].shape.0);
            let all = (0..64).filter(|bit| hit >> bit & 1 == 1).map(|bit| (first + bit) as Cpu);
            all.for_each(|who| assert_eq!(self.shape_of(who), shape, "CPU {who} has changed unnoticed"));
        }
        (hit, near)
    }

    /// The sender sees the acknowledgements of those near and far, if there are any.
    pub fn acknowledged(&mut self, number: usize, call: &Shots, near: bool, far: bool) {
        let acked = self.volleys.effects[number].acked;
        let sender = &mut self.cores[usize::from(call.from)];
        for (any, at, line) in [(near, call.at.0, self.times.line.0), (far, call.at.1, self.times.line.1)] {
            if any {
                sender.acked_at = sender.acked_at.max(at + acked + line);
            }
        }
    }

    /// The first CPU of an address space from `from` on of which is not known that it has seen a generation.
    #[inline]
    pub fn next_behind(&self, mm: u16, from: Cpu, generation: u64) -> Option<Cpu> {
        let next = self.contexts.next_in(mm, from);
        if self.volleys.shots.is_empty() {
            return next;
        }
        let mask = self.contexts.mask_of(mm);
        let first = usize::from(next?);
        let mut bits = mask[first / 64] & u64::MAX << (first % 64);
        for (word, more) in mask.iter().enumerate().skip(first / 64) {
            if word > first / 64 {
                bits = *more;
            }
            while bits != 0 {
                let who = 64 * word + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let shot = &self.volleys.shots[who];
                if shot.effect == 0 || shot.generation < generation {
                    return Some(who as Cpu);
                }
            }
        }
        None
    }
}
