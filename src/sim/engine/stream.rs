//! Access streams on CPUs: touches in user mode, at a rate of user time, each looked up in the CPU's TLB.
//!
//! A stream disturbs nobody, so its touches are made up for when the CPU leaves user mode, when another CPU's
//! broadcast reaches it, and at the end of a block. What misses cost is counted, not added to the task's time: the
//! rate includes it.

use super::super::draw::Draws;
use super::super::scenario::{Gap, Kind as ActorKind};
use super::super::stats::Stat;
use super::super::stream::Stream;
use super::{Engine, draw_gap};
use crate::kernel::step::Cpu;

/// Page numbers of streams that do not name their own, above those of the foreground.
const STREAM_PAGES: u64 = 0x7000_0000_0000 >> 12;

/// Touches that count as one program run when work is divided into blocks.
const TOUCHES_PER_RUN: u64 = 16;

/// The stream of one CPU.
#[derive(Clone, Debug)]
pub(super) struct Streaming {
    stream: Stream,
    gap: Gap,
    draws: Draws,
    /// Up to when user time has been made up for.
    since: u64,
    /// User time to the next touch.
    left: u64,
    /// By page: flushes of the CPU's TLB at its last touch, plus one; 0: never touched.
    stamps: Vec<u64>,
}

/// A [`Streaming`] in a checkpoint.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct SavedStream {
    place: (usize, u64, Vec<u32>),
    position: u128,
    since: u64,
    left: u64,
    stamps: Vec<u64>,
}

impl Streaming {
    pub(super) fn save(&self) -> SavedStream {
        SavedStream {
            place: self.stream.place(),
            position: self.draws.position(),
            since: self.since,
            left: self.left,
            stamps: self.stamps.clone(),
        }
    }

    /// `false`: it is of another stream.
    pub(super) fn restore(&mut self, saved: SavedStream) -> bool {
        self.draws.seek(saved.position);
        (self.since, self.left) = (saved.since, saved.left);
        let fits = saved.stamps.len() == self.stamps.len();
        self.stamps = saved.stamps;
        fits && self.stream.go_to(saved.place)
    }
}

impl Engine {
    /// Gives every CPU its stream.
    pub(super) fn attach_streams(&mut self) {
        for own in &mut self.own {
            for actor in &own.actors {
                let ActorKind::Stream { gap, phases } = &self.scenario.actors[usize::from(actor.actor)].kind
                else {
                    continue;
                };
                let mut draws = actor.draws.clone();
                let stream = Stream::new(phases, STREAM_PAGES, &mut draws);
                let left = draw_gap(&mut draws, *gap);
                let stamps = vec![0; stream.pages()];
                self.streams = true;
                own.stream = Some(Streaming { stream, gap: *gap, draws, since: 0, left, stamps });
            }
        }
    }

    /// User mode begins.
    #[inline]
    pub(super) fn stream_begins(&mut self, cpu: Cpu) {
        let i = usize::from(cpu);
        if let Some(s) = &mut self.own[i].stream {
            s.since = self.m.cores[i].clock;
        }
    }

    /// Makes the touches that are due in user mode before `now`.
    pub(super) fn stream_until(&mut self, cpu: Cpu, now: u64) {
        let i = usize::from(cpu);
        let Some(s) = &mut self.own[i].stream else { return };
        if self.m.cores[i].depth > 0 || now <= s.since {
            return;
        }
        let mut elapsed = now - s.since;
        s.since = now;
        let mut touches = 0;
        while s.left <= elapsed {
            elapsed -= s.left;
            let (page, dependent) = s.stream.next(&mut s.draws);
            let flushes =
                self.m.look_up_stream(cpu, s.stream.number(page), dependent, s.stamps[page as usize]);
            s.stamps[page as usize] = flushes + 1;
            touches += 1;
            s.left = draw_gap(&mut s.draws, s.gap).max(1);
        }
        s.left -= elapsed;
        self.m.add(cpu, Stat::stream_touches, touches);
        self.work += touches / TOUCHES_PER_RUN;
    }
}
