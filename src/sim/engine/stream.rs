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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::super::super::cost::Bound;
    use super::super::super::input::Input;
    use super::super::super::run::Run;
    use super::super::super::scenario::Scenario;
    use super::super::super::stats::Stat;
    use crate::hw::Preset;
    use crate::kernel::config::Config;
    use crate::kernel::policy::shared_builtin;

    #[test]
    fn a_touch_is_due_so_long_after_user_mode_began_and_at_that_very_moment() {
        let text = r#"{"name": "touches", "duration_ps": 1000000000, "cpus": 1, "isolated": [], "actors": [
            {"name": "spin", "on": "all", "kind": "spin"},
            {"name": "touch", "on": "all", "kind": "stream", "gap": {"mean_ps": 7000},
             "phases": [{"pattern": {"sequential": {"pages": 9, "stride": 1}}}]}]}"#;
        let run = Run::new(Input {
            scenario: Scenario::parse(text).unwrap(),
            machine: Preset::builtin("haswell-ep-e5-2699v3").unwrap(),
            kernel: Config::default(),
            policy: shared_builtin("ipi").unwrap(),
            seed: 1,
            skip: true,
            keep: 0,
            full: true,
            bound: Bound::Best,
        })
        .unwrap();
        let never = AtomicBool::new(false);
        let begins = {
            let mut run = run.clone();
            run.advance(900_000_000, &never);
            run.engine.m.cores[0].clock // it stays in user mode
        };
        assert!(0 < begins && begins < 10_000_000, "{begins}");
        for (after, touches) in [(6_999, 0), (7_000, 1), (13_999, 1), (14_000, 2), (70_000, 10)] {
            let mut run = run.clone();
            run.advance(begins + after, &never);
            assert_eq!(run.output().stats[0][Stat::stream_touches as usize], touches, "{after} ps");
        }
    }
}
