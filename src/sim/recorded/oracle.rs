//! Random recordings whose truth is decided first: stays in the kernel with their reasons, and who asked for what. What
//! a policy makes of them is followed by hand, on flags and lists, and must be every figure that a run gives.
//!
//! No program is interpreted here. Of a policy only this is known: what it may defer it does not send to a CPU that is
//! in user mode, and the next entry of such a CPU flushes (or every entry does).

use super::tests::{costs_and_code, run_file};
use super::*;
use crate::kernel::policy::builtin;
use crate::kernel::program::Op;
use crate::sim::draw::Draws;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Defers {
    Nothing,
    /// An entry flushes if something is pending.
    IfPending,
    /// Every entry flushes.
    AtEachEntry,
}

const KINDS: [(&str, Defers); 3] = [
    ("ipi", Defers::Nothing),
    ("pending-bit", Defers::IfPending),
    ("coalesce-v7-fixed", Defers::AtEachEntry),
];

#[derive(Clone, Debug)]
struct Stay {
    begin: u64,
    /// `None`: to the end of the recording.
    end: Option<u64>,
    counted: bool,
    /// Nothing has to call the CPU in.
    own: bool,
    reasons: Vec<Marked>,
}

/// A recording, and by CPU the stays in the run in favour and in the run against.
struct Truth {
    w: Workload,
    stays: [Vec<Vec<Stay>>; 2],
}

/// CPUs that no outcome is told of; all of them send.
const SENDERS: [Cpu; 5] = [0, 3, 4, 6, 7];

fn drawn(seed: u64) -> Truth {
    let mut d = Draws::new(seed, 5, 11);
    let mut pick = |n: u64| d.below(n);
    let targets: &[Cpu] = [&[1][..], &[1, 2], &[2, 5, 8]][pick(3) as usize];
    let mut w = Workload {
        cpus: 9,
        margin_ns: pick(3),
        begin_ns: [0, 60][pick(2) as usize],
        idle_known: true,
        ..Workload::default()
    };
    w.end_ns = w.begin_ns + 60 + pick(600);
    let window = w.begin_ns..=w.end_ns;
    let mut stays = [Vec::new(), Vec::new()];
    let mut calls: Vec<(Call, Ask)> = Vec::new();
    for &cpu in targets {
        let (mut now, mut irq, mut marks) = (pick(4), 0, Vec::new());
        let unknown = |begin| Stay { begin, end: None, counted: false, own: true, reasons: Vec::new() };
        let (mut for_it, mut against) = (Vec::new(), vec![unknown(0)]);
        for _ in 0..=pick(12) {
            now += 1 + pick(50);
            let begin = now;
            let mark = |at_ns, mark| Marked { at_ns, counted: window.contains(&at_ns), mark };
            marks.push(mark(begin, Mark::Exit));
            let mut reasons = Vec::new();
            now += pick(2) * pick(6);
            for _ in 0..pick(4) {
                let end_ns = now + pick(7);
                match pick(5) {
                    0 => reasons.push(mark(now, Mark::Own)),
                    1 => reasons.push(mark(now, Mark::OwnIrq { end_ns })),
                    _ => {
                        irq += 1;
                        for _ in 0..pick(8).div_ceil(3) {
                            // Just before it, or while it runs.
                            let queued_ns = if pick(4) > 0 {
                                now.saturating_sub(pick(12))
                            } else {
                                now + pick(end_ns - now + 1)
                            };
                            let guessed = pick(12) == 0;
                            let irq = if pick(15) > 0 { irq } else { 0 };
                            let counted = window.contains(&now);
                            let asks = [
                                Ask::Purge,
                                Ask::Purge,
                                Ask::Unmap,
                                Ask::Tables,
                                Ask::Rights,
                                Ask::Kernel,
                                Ask::Sync,
                                Ask::Other,
                                Ask::Unknown,
                                Ask::User,
                            ];
                            let ask = asks[pick(asks.len() as u64) as usize];
                            calls.push((Call { cpu, queued_ns, guessed, irq, counted }, ask));
                        }
                        reasons.push(mark(now, Mark::Calls { irq, end_ns }));
                        now = end_ns;
                    }
                }
                now += pick(4);
            }
            marks.extend(&reasons);
            let counted = window.contains(&begin);
            let whole = Stay { begin, end: Some(now), counted, own: false, reasons };
            for known in [&mut for_it, &mut against] {
                if let Some(before) = known.last_mut().filter(|s: &&mut Stay| s.end.is_none()) {
                    before.end = Some(begin); // it was in the kernel until then, for all that is known
                }
                known.push(whole.clone());
            }
            match pick(8) {
                0 => {
                    // Events are missing from here on: in favour it is back in user mode, else still in the kernel.
                    marks.push(mark(now, Mark::Lost));
                    let last = for_it.last_mut().unwrap();
                    (last.end, last.counted) = (Some(now), false);
                    against.last_mut().unwrap().end = None;
                }
                1 => {
                    marks.push(mark(now, Mark::Enter));
                    now += pick(5);
                    marks.push(mark(now, Mark::Lost));
                    against.push(unknown(now));
                }
                _ => marks.push(mark(now, Mark::Enter)),
            }
        }
        w.targets.push(Target { cpu, housekeeping: false, marks });
        stays[0].push(for_it);
        stays[1].push(against);
    }
    // Requests: a call, or calls of several CPUs that a loop over CPUs visited one after the other.
    calls.sort_by_key(|(c, _)| (c.queued_ns, c.cpu));
    let mut busy = [(0, false); SENDERS.len() + 1];
    while !calls.is_empty() {
        let (first, ask) = calls.remove(0);
        let mut mine = vec![first];
        while let Some(next) = calls.iter().position(|(c, a)| *a == ask && c.cpu > mine.last().unwrap().cpu)
            && calls[next].0.queued_ns < mine.last().unwrap().queued_ns + 9
        {
            mine.push(calls.remove(next).0);
        }
        let last = mine.last().unwrap().queued_ns;
        let free = |at: &usize| !busy[*at].1 || busy[*at].0 <= first.queued_ns;
        let from = pick(busy.len() as u64) as usize;
        let Some(sender) = (0..busy.len()).map(|i| (from + i) % busy.len()).find(free) else { continue };
        busy[sender] = (last, true);
        let place = w.calls.len();
        w.requests.push(Request {
            sender: SENDERS.get(sender).copied(),
            ask,
            full: pick(2) == 0,
            complete: mine.len() == targets.len(),
            line: place as u64,
            calls: place..place + mine.len(),
        });
        w.calls.extend(mine);
    }
    Truth { w, stays }
}

#[derive(Clone, Copy, Debug)]
enum Does {
    /// A request is at the CPU of this call.
    Asks(usize, usize),
    Enters {
        t: usize,
        stay: usize,
        irq: bool,
    },
    /// It enters as soon as a call waits for this interrupt or an earlier one.
    MayEnter {
        t: usize,
        stay: usize,
        irq: u32,
    },
    Takes {
        t: usize,
        stay: usize,
        irq: u32,
        counted: bool,
        length: u64,
    },
    Leaves {
        t: usize,
        stay: usize,
    },
}

/// No stay that is recorded, but one before all of them.
const BEFORE: usize = usize::MAX;

/// One CPU as it is followed.
#[derive(Clone, Default)]
struct Followed {
    /// The stay it is in.
    inside: Option<usize>,
    /// Its stay counts.
    counts: bool,
    happened: Option<usize>,
    door: Option<(usize, u32)>,
    /// Calls that wait: interrupt, request.
    waiting: Vec<(u32, Option<usize>)>,
    pending: bool,
    /// The number of its last flush of everything.
    flushed: u64,
    since: Option<u64>,
    levels: Vec<(u64, u32)>,
    out: CpuPlayed,
    /// From stays that count.
    exits: u64,
}

struct Open {
    request: usize,
    began: u64,
    /// CPUs that have not acknowledged yet.
    unanswered: usize,
}

struct Follower<'a> {
    w: &'a Workload,
    stays: &'a [Vec<Stay>],
    favour: bool,
    defers: Defers,
    now: u64,
    cpus: Vec<Followed>,
    sent: Vec<bool>,
    /// By request.
    collected: Vec<Vec<usize>>,
    left_out: Vec<Vec<usize>>,
    began: Vec<Option<(u64, u64)>>,
    open: Vec<Open>,
    /// Numbers flushes and beginnings of requests.
    number: u64,
    wait_ns: u64,
    /// Counted requests that were over.
    over: Vec<usize>,
    postponed: u64,
}

impl Follower<'_> {
    fn ask(&self, r: usize) -> Ask {
        let request = &self.w.requests[r];
        let guessed = self.w.calls[request.calls.clone()].iter().any(|c| c.guessed);
        match (request.ask, self.favour) {
            (Ask::Unknown | Ask::Kernel, true) => Ask::Purge,
            (Ask::Unknown | Ask::Sync, false) => Ask::Other,
            (Ask::Kernel, false) => Ask::Rights,
            (_, false) if guessed => Ask::Other,
            (ask, _) => ask,
        }
    }

    fn enters(&mut self, t: usize, stay: usize, irq: bool, counted: bool) {
        let (now, end, begin, defers) = (self.now, self.w.end_ns, self.w.begin_ns, self.defers);
        self.number += 1;
        let number = self.number;
        let c = &mut self.cpus[t];
        (c.door, c.happened, c.counts) = (None, Some(stay), counted);
        if c.inside.replace(stay).is_some() {
            return;
        }
        let flushes = defers == Defers::AtEachEntry || defers == Defers::IfPending && c.pending;
        c.pending = false;
        if flushes {
            c.flushed = number;
        }
        if counted {
            c.out.entered[usize::from(irq)] += 1;
            c.out.entry_flushes += u64::from(flushes);
        }
        if flushes && let Some(since) = c.since.take() {
            c.stretch(since, now.min(end), begin);
            c.levels.push((now.min(end).max(c.levels.last().map_or(0, |l| l.0)), 0));
        }
    }

    /// A call reaches a CPU.
    fn arrives(&mut self, t: usize, irq: u32, request: Option<usize>) {
        self.cpus[t].waiting.push((irq, request));
        if let Some((stay, until)) = self.cpus[t].door
            && irq != 0
            && irq <= until
        {
            self.enters(t, stay, true, self.stays[t][stay].counted);
        }
    }

    fn place(&self, cpu: Cpu) -> usize {
        self.w.targets.iter().position(|t| t.cpu == cpu).unwrap()
    }

    fn asks(&mut self, r: usize, row: usize) {
        let (request, now) = (&self.w.requests[r], self.now);
        let (call, ask) = (self.w.calls[row], self.ask(r));
        if ask == Ask::Other {
            self.sent[row] = true;
            return self.arrives(self.place(call.cpu), call.irq, None);
        }
        if self.began[r].is_none() {
            self.number += 1;
            self.began[r] = Some((now, self.number));
            // The request before of the same CPU is over, whatever it waits for.
            if let Some(at) =
                self.open.iter().position(|o| self.w.requests[o.request].sender == request.sender)
            {
                let before = self.open.remove(at);
                self.is_over(&before);
            }
        }
        let deferrable = self.defers != Defers::Nothing && matches!(ask, Ask::Purge | Ask::Unmap);
        // Whom the loop passes on the way from the call before to the next one, without a call in the recording, too.
        let rows: Vec<Cpu> = self.w.calls[request.calls.clone()].iter().map(|c| c.cpu).collect();
        let until = rows.iter().find(|c| **c > call.cpu).copied().unwrap_or(Cpu::MAX);
        let from = if rows[0] == call.cpu { 0 } else { call.cpu };
        for t in 0..self.cpus.len() {
            let cpu = self.w.targets[t].cpu;
            if cpu < from || cpu >= until {
                continue;
            }
            if deferrable && self.cpus[t].inside.is_none() {
                self.cpus[t].pending = true;
                self.left_out[r].push(t);
            } else if rows.contains(&cpu) {
                self.collected[r].push(t);
            }
        }
        if until != Cpu::MAX {
            return;
        }
        let rows = request.calls.clone();
        let mut sent = 0;
        for t in std::mem::take(&mut self.collected[r]) {
            let row = rows.clone().find(|row| self.w.calls[*row].cpu == self.w.targets[t].cpu).unwrap();
            self.sent[row] = true;
            sent += 1;
            self.arrives(t, self.w.calls[row].irq, Some(r));
        }
        let open = Open { request: r, began: self.began[r].unwrap().0, unanswered: sent };
        if sent == 0 { self.is_over(&open) } else { self.open.push(open) }
    }

    fn is_over(&mut self, open: &Open) {
        let (r, now) = (open.request, self.now);
        if (self.w.begin_ns..=self.w.end_ns).contains(&now) {
            self.wait_ns += now - open.began;
            self.over.push(r);
        }
        for t in std::mem::take(&mut self.left_out[r]) {
            let cpu = self.w.targets[t].cpu;
            let row = self.w.requests[r].calls.clone().find(|row| self.w.calls[*row].cpu == cpu);
            let begun = self.began[r].unwrap().1;
            let (Some(row), true) = (row, self.cpus[t].flushed < begun) else { continue };
            let from = self.w.calls[row].queued_ns;
            let c = &mut self.cpus[t];
            let value = if c.since.is_some() { c.levels.last().unwrap().1 + 1 } else { 1 };
            c.since.get_or_insert(from);
            c.levels.push((from.max(c.levels.last().map_or(0, |l| l.0)), value));
        }
    }

    fn takes(&mut self, t: usize, stay: usize, irq: u32, counted: bool, length: u64) {
        let waits = |w: &(u32, Option<usize>)| w.0 != 0 && w.0 <= irq;
        if !self.cpus[t].waiting.iter().any(waits) {
            self.cpus[t].out.gone_interrupts += u64::from(counted);
            return;
        }
        if self.cpus[t].inside.is_none() {
            let armed = self.cpus[t].door.is_some_and(|(at, _)| at == stay);
            self.enters(t, stay, true, armed && self.stays[t][stay].counted);
        }
        let c = &mut self.cpus[t];
        c.out.calls_ns += if counted { length } else { 0 };
        let (taken, left) = c.waiting.iter().partition(|w| waits(w));
        c.waiting = left;
        let taken: Vec<(u32, Option<usize>)> = taken;
        for request in taken.iter().filter_map(|w| w.1) {
            let whole = self.w.requests[request].full && !matches!(self.ask(request), Ask::User | Ask::Sync);
            self.number += 1;
            self.cpus[t].flushed = if whole { self.number } else { self.cpus[t].flushed };
            if let Some(open) = self.open.iter_mut().find(|o| o.request == request) {
                open.unanswered -= 1;
            }
        }
        while let Some(at) = self.open.iter().position(|o| o.unanswered == 0) {
            let over = self.open.remove(at);
            self.is_over(&over);
        }
    }

    fn leaves(&mut self, t: usize, stay: usize) {
        let counted = self.stays[t][stay].counted;
        let c = &mut self.cpus[t];
        c.door = None;
        if c.happened != Some(stay) {
            c.out.gone_entries += u64::from(counted);
        }
        if c.inside == Some(stay) {
            c.inside = None;
            c.exits += u64::from(c.counts);
            c.counts = false;
        }
    }
}

impl Followed {
    fn stretch(&mut self, from: u64, to: u64, begin: u64) {
        let length = to.saturating_sub(from.max(begin));
        self.out.pending_ns += length;
        self.out.pending_longest_ns = self.out.pending_longest_ns.max(length);
    }
}

/// What happens to a CPU, in order.
fn plan(truth: &Truth, favour: bool, t: usize) -> Vec<(u64, Does)> {
    let (w, cpu) = (&truth.w, truth.w.targets[t].cpu);
    let m = w.margin_ns;
    // In favour the kernel begins later and ends earlier, by what the clock cannot tell.
    let begins = |at: u64| if favour { at + m } else { at.saturating_sub(m + 1) };
    let ends = |at: u64| if favour { at.saturating_sub(m + 1) } else { at + m };
    let queued = |irq: u32| {
        w.calls.iter().filter(move |c| c.cpu == cpu && c.irq == irq && !c.guessed).map(|c| c.queued_ns)
    };
    let mut out = Vec::new();
    for (stay, s) in truth.stays[usize::from(!favour)][t].iter().enumerate() {
        let first = s.reasons.first().map(|m| m.mark);
        let door = match first {
            Some(Mark::Calls { irq, .. }) if !s.own && queued(irq).min().is_none_or(|q| q <= s.begin) => {
                Some(irq)
            }
            _ => None,
        };
        let is_irq = |mark| matches!(mark, Mark::OwnIrq { .. });
        out.push(match door {
            Some(irq) => (begins(s.begin), Does::MayEnter { t, stay, irq }),
            None => (begins(s.begin), Does::Enters { t, stay, irq: first.is_some_and(is_irq) }),
        });
        let mut held = door.is_none();
        for r in &s.reasons {
            if let Mark::Calls { irq, end_ns } = r.mark {
                let at = queued(irq).max().unwrap_or(0).min(end_ns).max(r.at_ns);
                out.push((at, Does::Takes { t, stay, irq, counted: r.counted, length: end_ns - r.at_ns }));
            } else if !held {
                held = true;
                out.push((begins(r.at_ns), Does::Enters { t, stay, irq: is_irq(r.mark) }));
            }
        }
        if let Some(end) = s.end {
            out.push((ends(end), Does::Leaves { t, stay }));
        }
    }
    let mut latest = 0;
    for (at, _) in &mut out {
        latest = latest.max(*at);
        *at = latest;
    }
    out
}

fn follow(truth: &Truth, favour: bool, defers: Defers) -> Follower<'_> {
    let w = &truth.w;
    let n = w.requests.len();
    let start = Followed { inside: (!favour).then_some(BEFORE), ..Followed::default() };
    let mut f = Follower {
        w,
        stays: &truth.stays[usize::from(!favour)],
        favour,
        defers,
        now: 0,
        cpus: vec![start; w.targets.len()],
        sent: vec![false; w.calls.len()],
        collected: vec![Vec::new(); n],
        left_out: vec![Vec::new(); n],
        began: vec![None; n],
        open: Vec::new(),
        number: 0,
        wait_ns: 0,
        over: Vec::new(),
        postponed: 0,
    };
    // At one moment those who ask come first, then the CPUs in their order.
    let mut all: Vec<(u64, usize, Does)> = Vec::new();
    for (r, request) in w.requests.iter().enumerate() {
        all.extend(request.calls.clone().map(|row| (w.calls[row].queued_ns, 0, Does::Asks(r, row))));
    }
    for t in 0..w.targets.len() {
        all.extend(plan(truth, favour, t).into_iter().map(|(at, does)| (at, 1 + t, does)));
    }
    all.sort_by_key(|(at, who, _)| (*at, *who)); // stable: requests and steps stay in their order
    for (at, _, does) in all {
        f.now = at;
        match does {
            Does::Asks(r, row) => f.asks(r, row),
            Does::Enters { t, stay, irq } => f.enters(t, stay, irq, f.stays[t][stay].counted),
            Does::MayEnter { t, stay, irq } => {
                if f.cpus[t].waiting.iter().any(|w| w.0 != 0 && w.0 <= irq) {
                    f.enters(t, stay, true, f.stays[t][stay].counted);
                } else {
                    f.cpus[t].door = Some((stay, irq));
                }
            }
            Does::Takes { t, stay, irq, counted, length } => f.takes(t, stay, irq, counted, length),
            Does::Leaves { t, stay } => f.leaves(t, stay),
        }
    }
    for c in &mut f.cpus {
        if let Some(since) = c.since {
            c.stretch(since, w.end_ns, w.begin_ns);
            let last = *c.levels.last().unwrap();
            c.levels.push((w.end_ns.max(last.0), last.1));
        }
    }
    f
}

#[test]
fn random_recordings_give_what_following_them_by_hand_gives() {
    let (mut gone, mut late, mut stretches, mut waited) = (0, 0, 0, 0);
    for seed in 0..250 {
        let truth = drawn(seed);
        for (policy, defers) in KINDS {
            let file = builtin(policy).unwrap();
            for favour in [true, false] {
                let of = format!(
                    "{policy} {favour} {seed}: {:#?} {:#?}",
                    truth.w,
                    truth.stays[usize::from(!favour)]
                );
                let variant = Variant { favour, unknown: Ask::Purge, tables: false, levels: true };
                let played = run_file(&truth.w, &file, variant);
                let hand = follow(&truth, favour, defers);
                let spared: Vec<bool> = hand.sent.iter().map(|s| !s).collect();
                assert_eq!(played.spared, spared, "{of}");
                for (t, (cpu, by_hand)) in played.cpus.iter().zip(&hand.cpus).enumerate() {
                    assert_eq!(CpuPlayed { entry_ps: 0, ..*cpu }, by_hand.out, "target {t} of {of}");
                    assert_eq!(played.levels[t], by_hand.levels, "target {t} of {of}");
                    gone += cpu.gone_entries;
                    late += u64::from(by_hand.levels.iter().any(|l| l.1 > 1));
                    stretches += u64::from(cpu.pending_longest_ns < cpu.pending_ns);
                }
                assert_eq!(
                    (played.more_calls, played.postponed, played.unfinished, played.broken, played.endless),
                    (0, hand.postponed, 0, 0, false),
                    "{of}"
                );
                assert!(played.more_lines.is_empty(), "{of}");
                // What programs of senders take is below a microsecond for each.
                let took = played.wait_ps.checked_sub(hand.wait_ns * 1000).unwrap();
                let most = 20_000_000 * hand.over.len() as u64;
                assert!(took <= most, "{took} {most} {of}");
                waited += hand.wait_ns;
                // What entries took is what their ops take.
                let (code, costs) = costs_and_code(&file);
                let ran = |which: fn(&Op) -> bool, each: &dyn Fn(usize) -> u64| -> u64 {
                    let those = played.counted_ops.iter().map(|(pc, n)| (usize::from(*pc), u64::from(*n)));
                    those.filter(|(pc, _)| which(&code.ops[*pc])).map(|(pc, n)| n * each(pc)).sum()
                };
                // The call queue is where it stops: an interrupt runs it.
                let ops = ran(|op| !matches!(op, Op::HandleCalls), &|pc| costs.times.op[pc]);
                let by_hand = |of: fn(&Followed) -> u64| hand.cpus.iter().map(of).sum::<u64>();
                // A user range that was flushed leaves the user's half of the PCIDs to the way out.
                let (more, extra) =
                    (played.cpus.iter().map(|c| c.entry_ps).sum::<u64>() - ops, costs.times.cr3_flush_extra);
                let user = truth.w.requests.iter().any(|r| r.ask == Ask::User);
                assert!(
                    more % extra == 0 && more / extra <= by_hand(|c| c.exits) * u64::from(user),
                    "{more} {extra} {of}"
                );
                let doors = by_hand(|c| c.out.entered.iter().sum::<u64>() + c.exits);
                assert_eq!(ran(|op| matches!(op, Op::SwapGs), &|_| 1), doors, "{of}");
                assert_eq!(
                    ran(|op| matches!(op, Op::HandleCalls), &|_| 1),
                    by_hand(|c| c.out.entered[1]),
                    "{of}"
                );
                assert_eq!(
                    ran(|op| matches!(op, Op::Invpcid { .. }), &|_| 1),
                    by_hand(|c| c.out.entry_flushes),
                    "{of}"
                );
            }
        }
    }
    assert!(gone > 100 && late > 50 && stretches > 50 && waited > 1000, "{gone} {late} {stretches} {waited}");
}
