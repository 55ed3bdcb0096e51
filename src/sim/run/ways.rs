//! However a run is carried out, it is the same run: with jumps, replays and volleys or without any, in one piece or in
//! many. Scenarios, policies, kernels and machines by chance; and what must add up in each of them does.

use std::sync::atomic::AtomicBool;

use super::super::cost::Bound;
use super::super::draw::Draws;
use super::super::input::Input;
use super::super::scenario::Scenario;
use super::super::stats::{CAUSES, Cause, Stat, TABLE};
use super::super::timeline::Kind as EventKind;
use super::{Output, Run, simulate};
use crate::hw::Preset;
use crate::kernel::config::Config;
use crate::kernel::policy::{POLICIES, shared_builtin};
use crate::kernel::step::Cpu;

/// Programs that initiators and foregrounds of a scenario start, about.
const EVENTS: u64 = 160;

/// Draws scenarios.
struct Drawing {
    draws: Draws,
    duration: u64,
    actors: Vec<String>,
}

impl Drawing {
    fn below(&mut self, n: u64) -> u64 {
        self.draws.below(n)
    }

    fn chance(&mut self, per_cent: u64) -> bool {
        self.below(100) < per_cent
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }

    /// A gap such that so many CPUs do it `EVENTS` times or fewer, and none more often than each `least` picoseconds.
    fn gap(&mut self, cpus: u64, least: u64) -> String {
        let events = EVENTS >> self.below(6);
        let mean = (self.duration * cpus.max(1) / events.max(1)).max(least);
        format!(r#""gap": {{"mean_ps": {mean}, "exponential": {}}}"#, self.chance(50))
    }

    fn actor(&mut self, on: &str, rest: &str) {
        let name = self.actors.len();
        self.actors.push(format!(r#"{{"name": "a{name}", "on": {on}, {rest}}}"#));
    }

    fn foreground(&mut self, on: &str, cpus: u64, full: bool) {
        let gap = self.gap(cpus, 0);
        let kind = self.pick(&["spin", "spin", "syscalls", "syscalls", "idle", "nothing"]);
        let pages = self.pick(&["0", "3", "32"]);
        match kind {
            "spin" => self.actor(on, &format!(r#""kind": "spin", "user_pages": {pages}"#)),
            "syscalls" => {
                let by = self.pick(&[
                    "syscall",
                    "syscall",
                    "syscall_compat",
                    "sysenter_compat",
                    "exception",
                    "exception_espfix",
                    "exception_bad_iret",
                ]);
                // Now and then back to back, thousands of them: what is jumped over.
                let gap = if self.chance(40) { r#""gap": {"mean_ps": 300000}"#.to_owned() } else { gap };
                let base = self.pick(&["300000", "5000000"]);
                let rest = format!(
                    r#""kind": "syscalls", {gap}, "base_ps": {base}, "kernel_pages": {pages}, "user_pages": 2, "by": "{by}""#
                );
                self.actor(on, &rest);
            }
            "idle" => self.actor(on, r#""kind": "idle""#),
            _ => {}
        }
        let user = matches!(kind, "spin" | "syscalls");
        if user && self.chance(30) {
            let gap = self.gap(cpus, 20_000_000);
            let by = self.pick(&["exception", "exception_espfix"]);
            self.actor(on, &format!(r#""kind": "faults", {gap}, "body_ps": 700000, "by": "{by}""#));
        }
        if user && full && self.chance(40) {
            let gap = self.gap(cpus, 1_000_000);
            let pattern = self.pick(&[
                r#"{"chase": {"pages": 9}}"#,
                r#"{"weighted": {"weights": [9, 1, 5]}}"#,
                r#"{"sequential": {"pages": 90, "stride": 3}}"#,
            ]);
            self.actor(on, &format!(r#""kind": "stream", {gap}, "phases": [{{"pattern": {pattern}}}]"#));
        }
        if self.chance(40) {
            let gap = self.gap(cpus, 20_000_000);
            let cause = self.pick(&["tick", "residual", "device"]);
            self.actor(
                on,
                &format!(r#""kind": "interrupts", {gap}, "body_ps": 1100000, "cause": "{cause}""#),
            );
        }
        if self.chance(30) {
            let gap = self.gap(cpus, 20_000_000);
            self.actor(on, &format!(r#""kind": "nmis", {gap}, "body_ps": 500000"#));
        }
    }

    fn turn(&mut self, shared: bool) -> String {
        let mut steps = Vec::new();
        for _ in 0..=self.below(4) {
            let most = if shared { 6 } else { 8 };
            let kind = ["unmap", "unmap", "switch", "sleep", "fork", "exit", "exec", "migrate"]
                [self.below(most) as usize];
            let more = match kind {
                "unmap" => {
                    let pages = self.pick(&["0", "1", "4", "33", "34"]);
                    format!(r#", "pages": {pages}, "tables": {}"#, self.chance(30))
                }
                "exit" => format!(r#", "spread": {}"#, self.below(2) * 500),
                _ => String::new(),
            };
            let chance = if self.chance(30) { 1 + self.below(999) } else { 1000 };
            steps.push(format!(r#"{{"do": "{kind}"{more}, "per_mille": {chance}}}"#));
        }
        steps.join(", ")
    }

    fn initiator(&mut self, on: &str, cpus: u64) {
        let gap = self.gap(cpus, 2_000_000);
        match self.below(5) {
            0 => {
                let batch = self.pick(&["1", "3", "20"]);
                let spread = self.chance(50);
                self.actor(on, &format!(r#""kind": "forks", {gap}, "batch": {batch}, "spread": {spread}"#));
            }
            1 => {
                let pages = self.pick(&["1", "5", "300"]);
                let more =
                    self.pick(&["", r#", "then": [2, 7], "apart_ps": 3000000"#, r#", "roams_ps": 40000000"#]);
                self.actor(on, &format!(r#""kind": "vfree", {gap}, "pages": {pages}{more}"#));
            }
            2 => {
                let mut steps = Vec::new();
                for _ in 0..=self.below(3) {
                    let program = self.pick(&[
                        "purge",
                        "vunmap",
                        "table_free",
                        "set_memory",
                        "text_poke",
                        "flush_all",
                        "sync_table_free",
                    ]);
                    let (pages, chance) = (self.pick(&["0", "1", "12"]), 1000 - self.below(2) * 400);
                    let cause = self.pick(&["vunmap", "aliases", "other", "percpu"]);
                    steps.push(format!(
                        r#"{{"program": "{program}", "pages": {pages}, "cause": "{cause}", "per_mille": {chance}}}"#
                    ));
                }
                self.actor(on, &format!(r#""kind": "chain", {gap}, "steps": [{}]"#, steps.join(", ")));
            }
            3 => {
                let also = self.pick(&["null", r#""isolated""#, r#""all""#]);
                let steps = self.turn(true);
                let rest = format!(
                    r#""kind": "tasks", {gap}, "shared": true, "also_on": {also}, "steps": [{steps}]"#
                );
                self.actor(on, &rest);
            }
            _ => {
                let (processes, steps) = (1 + self.below(8), self.turn(false));
                self.actor(
                    on,
                    &format!(r#""kind": "tasks", {gap}, "processes": {processes}, "steps": [{steps}]"#),
                );
            }
        }
    }
}

pub(super) fn drawn(n: u64) -> (Input, String) {
    let mut d = Drawing { draws: Draws::new(n, 3, 7), duration: 0, actors: Vec::new() };
    d.duration = [300_000_000, 3_000_000_000, 30_000_000_000][d.below(3) as usize];
    let cpus = [1u64, 2, 2, 3, 4, 5, 9, 33, 64, 70, 150][d.below(11) as usize];
    let first = 1 + d.below(cpus);
    let full = d.chance(35);
    d.foreground(r#""isolated""#, cpus - first, full);
    d.foreground(r#""housekeeping""#, first, full);
    for _ in 0..=d.below(3) {
        match d.below(4) {
            0 => d.initiator(r#""all""#, cpus),
            1 => d.initiator(r#"{"cpus": [0]}"#, 1),
            _ => d.initiator(r#""housekeeping""#, first),
        }
    }
    let isolated: Vec<String> = (first..cpus).map(|c| c.to_string()).collect();
    let mask = if d.chance(10) { format!(r#""flush_mask": [{}], "#, cpus - 1) } else { String::new() };
    let sockets = 1 + d.below(2.min(cpus));
    let (rcu, most) = ([2_000_000, 90_000_000][d.below(2) as usize], [40, 400][d.below(2) as usize]);
    let extra = d.below(8) / 7 * 2_000_000;
    let text = format!(
        r#"{{"name": "drawn", "duration_ps": {}, "cpus": {cpus}, "isolated": [{}], {mask}"sockets": {sockets},
            "rcu_ps": {rcu}, "lazy_max_pages": {most}, "extra_ipi_ps": {extra}, "actors": [{}]}}"#,
        d.duration,
        isolated.join(", "),
        d.actors.join(",\n"),
    );
    let scenario = Scenario::parse(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let machines = Preset::names();
    let machine = machines[d.below(machines.len() as u64) as usize];
    let policy = if d.chance(30) { "ipi" } else { POLICIES[d.below(POLICIES.len() as u64) as usize].id };
    // Broadcasts and remote actions, which few machines have.
    let reached = match n % 12 {
        5 => Some(("zen3-epyc", "invlpgb")),
        8 => Some(("sapphire-rapids", "rar")),
        11 => Some(("zen4-epyc", "invlpgb-from-4-cpus")),
        _ => None,
    };
    let (machine, policy) = reached.unwrap_or((machine, policy));
    let pti = [None, None, Some(true), Some(false)][d.below(4) as usize];
    let kernel = Config {
        pti: pti.filter(|_| reached.is_none()),
        broadcast_tlb_flush: reached.is_some(),
        rar: reached.is_some(),
        nopcid: d.chance(15),
        noinvpcid: d.chance(15),
        vmap_stack: !d.chance(10),
        flush_ceiling: [33, 33, 1, 5][d.below(4) as usize],
        ..Config::default()
    };
    let input = Input {
        scenario,
        machine: Preset::builtin(machine).unwrap(),
        kernel,
        policy: shared_builtin(policy).unwrap(),
        seed: n,
        skip: true,
        keep: [0, 3, 4096][d.below(3) as usize],
        full,
        bound: [Bound::Best, Bound::Low, Bound::High][d.below(3) as usize],
    };
    // A policy may need what this machine or kernel lacks.
    let input = if Run::new(input.clone()).is_ok() {
        input
    } else {
        Input { policy: shared_builtin("ipi").unwrap(), ..input }
    };
    let of = format!("{n}: {} on {machine}, {:?}, {text}", input.policy.name, input.kernel);
    (input, of)
}

/// How a run is carried out.
#[derive(Clone, Copy)]
pub(super) struct Way {
    pub(super) skip: bool,
    pub(super) replays: bool,
    pub(super) volleys: bool,
    pub(super) ahead: bool,
}

pub(super) const QUICK: Way = Way { skip: true, replays: true, volleys: true, ahead: true };
pub(super) const PLAIN: Way = Way { skip: false, replays: false, volleys: false, ahead: false };

pub(super) fn carried_out(input: &Input, way: Way) -> Run {
    let mut run = Run::new(Input { skip: way.skip, ..input.clone() }).unwrap();
    run.engine.replays &= way.replays;
    run.engine.volleys &= way.volleys;
    run.engine.looks_ahead = way.ahead;
    run.finish(&AtomicBool::new(false), |_| {});
    run
}

pub(super) fn total(o: &Output, stat: Stat) -> u64 {
    o.stats.iter().map(|row| row[stat as usize]).sum()
}

/// A policy that breaks a rule on each way into the kernel: the user's table does not map its page.
fn broken() -> std::sync::Arc<crate::kernel::text::File> {
    let text = "policy broken\n  based on coalesce-v7\n  page x : vmalloc\n\ncoalesce\n  mov cr3, user\n  read x\n  mov cr3, kernel\n";
    std::sync::Arc::new(crate::kernel::text::parse("broken.policy", text).unwrap())
}

#[test]
fn the_violation_that_is_told_is_the_first() {
    let mut later = 0;
    for n in 3000..3080 {
        let (input, of) = drawn(n);
        let kernel = Config { pti: Some(true), ..Config::default() };
        let keep = 100_000;
        let Ok(o) = simulate(Input { policy: broken(), kernel, keep, ..input }) else { continue };
        let events = || o.events.iter().filter(|e| e.kind == EventKind::Violation);
        let first = events().map(|e| (e.time_ps, e.cpu)).min();
        assert_eq!(o.violation.as_ref().map(|v| (v.0, v.1)), first, "{of}");
        assert_eq!(events().count() as u64, total(&o, Stat::violations), "{of}");
        if let Some((_, _, place, rule)) = &o.violation {
            assert_eq!((&place[..], *rule), ("broken.policy:7", "unmapped_access"), "{of}");
            later += u32::from(first.is_some_and(|(_, cpu)| cpu > 0));
        }
    }
    assert!(later > 10, "{later} runs whose first is not CPU 0's");
}

/// What holds of every run.
fn adds_up(input: &Input, o: &Output) {
    assert_eq!(o.reached_ps, input.scenario.duration_ps);
    let idle = |cpu: Cpu| {
        !input.scenario.actors.iter().any(|a| {
            let runs = a.kind.is_foreground() && a.kind != super::Kind::Idle;
            runs && input.scenario.cpus_of(&a.on).contains(&cpu)
        })
    };
    for (cpu, row) in (0..).zip(&o.stats) {
        let get = |s: Stat| row[s as usize];
        let time = [Stat::user_ps, Stat::kernel_ps, Stat::interrupt_ps, Stat::idle_ps].map(get);
        if idle(cpu) {
            assert_eq!(get(Stat::user_ps) + get(Stat::syscalls) + get(Stat::interference), 0, "CPU {cpu}");
            assert!(time.iter().sum::<u64>() <= o.reached_ps, "CPU {cpu} is idle: {time:?}");
        } else {
            assert_eq!(get(Stat::idle_ps), 0, "CPU {cpu}");
            assert_eq!(time.iter().sum::<u64>(), o.reached_ps, "CPU {cpu}: {time:?}");
        }
        let caused: u64 = o.by_cause[usize::from(cpu)].iter().sum();
        assert_eq!(caused, get(Stat::interrupts) + get(Stat::nmis), "CPU {cpu}: each has a cause");
        assert_eq!(o.by_cause[usize::from(cpu)][Cause::Nmi as usize], get(Stat::nmis), "CPU {cpu}");
        assert!(get(Stat::ipis_received) <= get(Stat::interrupts), "CPU {cpu}");
        assert!(get(Stat::ipis_empty) <= get(Stat::ipis_received), "CPU {cpu}");
        assert!(get(Stat::interference_ps) <= get(Stat::interrupt_ps), "CPU {cpu}");
        assert!(get(Stat::wait_max_ps) <= get(Stat::wait_ps), "CPU {cpu}");
        assert!(get(Stat::longest_quiet_ps) <= o.reached_ps, "CPU {cpu}");
        assert!(get(Stat::flush_requests_full) <= get(Stat::flush_requests), "CPU {cpu}");
        assert!(get(Stat::user_flush_requests_full) <= get(Stat::user_flush_requests), "CPU {cpu}");
        assert!(get(Stat::ipi_rounds) <= get(Stat::ipis_sent), "CPU {cpu}");
        assert!(get(Stat::ipis_sent) <= get(Stat::calls_queued), "CPU {cpu}");
        let misses = [
            Stat::refill_misses_entry,
            Stat::refill_misses_remote,
            Stat::refill_misses_local,
            Stat::refill_misses_other,
        ];
        assert_eq!(misses.map(get).iter().sum::<u64>(), get(Stat::refill_misses), "CPU {cpu}");
        let windows = [
            [Stat::exposures_syscall, Stat::exposures_interrupt, Stat::exposures_nmi, Stat::exposures_other],
            [
                Stat::exposure_syscall_ps,
                Stat::exposure_interrupt_ps,
                Stat::exposure_nmi_ps,
                Stat::exposure_other_ps,
            ],
        ];
        for (parts, whole) in windows.iter().zip([Stat::exposures, Stat::exposure_ps]) {
            assert_eq!(parts.map(get).iter().sum::<u64>(), get(whole), "CPU {cpu}: {parts:?}");
        }
        assert_eq!(
            get(Stat::stacks_reused) + get(Stat::stacks_allocated),
            if input.kernel.vmap_stack { get(Stat::forks) } else { 0 }
        );
        assert!(get(Stat::asid_hits) + get(Stat::asid_misses) >= get(Stat::mm_switches), "CPU {cpu}");
        assert!(get(Stat::mm_switches_flushed) <= get(Stat::mm_switches), "CPU {cpu}");
    }
    // What is under way at the end was sent and not received, or received and not executed.
    let flying = u64::from(input.scenario.cpus);
    let (queued, executed) = (total(o, Stat::calls_queued), total(o, Stat::calls_executed));
    assert!(
        executed <= queued && queued - executed <= flying * flying,
        "{queued} queued, {executed} executed"
    );
    let (sent, received) = (total(o, Stat::ipis_sent), total(o, Stat::ipis_received));
    assert!(received <= sent, "{sent} sent, {received} received");
    assert_eq!(o.by_cause[0].len(), CAUSES.len());
}

/// What differs between two runs.
pub(super) fn difference(a: &Output, b: &Output) -> Option<String> {
    for (cpu, (x, y)) in a.stats.iter().zip(&b.stats).enumerate() {
        if let Some(s) = (0..x.len()).find(|s| x[*s] != y[*s]) {
            return Some(format!("{} of CPU {cpu}: {} and {}", TABLE[s].0, x[s], y[s]));
        }
    }
    let same = [
        ("interrupts by cause", a.by_cause == b.by_cause),
        ("events", a.events == b.events),
        ("levels", a.levels == b.levels),
        ("purges", a.purges == b.purges),
        ("the time reached", a.reached_ps == b.reached_ps),
        ("events dropped", a.dropped == b.dropped),
        ("the violation", a.violation == b.violation),
        ("latencies", a.latencies.each().eq(b.latencies.each())),
        ("program runs", a.runs == b.runs),
    ];
    same.iter().find(|(_, same)| !same).map(|(what, _)| (*what).to_owned())
}

#[test]
fn what_is_not_kept_of_a_timeline_is_counted_and_changes_nothing() {
    let poking = |mean: u64| {
        let text = format!(
            r#"{{"name": "poking", "duration_ps": 1000, "cpus": 1, "isolated": [], "actors": [
            {{"name": "poke", "on": {{"cpus": [0]}}, "kind": "chain", "gap": {{"mean_ps": {mean}}},
              "steps": [{{"program": "text_poke", "pages": 1, "cause": "text_poke", "per_mille": 1000}}]}}]}}"#
        );
        Scenario::parse(&text).unwrap().actors
    };
    let mut deferred = [0; 2];
    for n in 7000..7050 {
        let (mut input, of) = drawn(n);
        if n % 2 == 0 {
            input.policy = shared_builtin("text-sync-tri-state").unwrap(); // defers syncs
            input.kernel.pti = Some(true);
            input.scenario.actors.extend(poking(input.scenario.duration_ps / 20));
        }
        let kept = |keep| simulate(Input { keep, ..input.clone() }).unwrap();
        let all = kept(usize::MAX);
        assert_eq!(all.dropped, 0, "{of}");
        for e in all.events.iter().filter(|e| e.kind == EventKind::Deferral) {
            deferred[usize::from(e.cause == Cause::TextPoke)] += 1;
        }
        for keep in [0, 3] {
            let few = kept(keep);
            for cpu in 0..input.scenario.cpus {
                let count = |o: &Output| o.events.iter().filter(|e| e.cpu == cpu).count();
                assert_eq!(count(&few), count(&all).min(keep), "CPU {cpu} of {of}");
            }
            assert_eq!(few.dropped as usize, all.events.len() - few.events.len(), "{keep} kept of {of}");
            assert!(few.events.iter().all(|e| all.events.contains(e)), "{of}");
            let rest = Output { events: all.events.clone(), levels: all.levels.clone(), dropped: 0, ..few };
            assert_eq!(difference(&rest, &all), None, "{of}");
        }
    }
    assert!(deferred[0] > 1000 && deferred[1] > 100, "{deferred:?}");
}

/// A CPU in system calls back to back loses its translations to a broadcast now and then: the call behind one has to load
/// them again, and the next has not.
#[test]
fn a_call_that_begins_without_translations_is_not_repeated() {
    let text = r#"{"name": "cold", "duration_ps": 3000000000, "cpus": 2, "isolated": [1], "actors": [
        {"name": "loop", "on": {"cpus": [1]}, "kind": "syscalls", "gap": {"mean_ps": 150000}, "base_ps": 60000,
         "kernel_pages": 2, "user_pages": 1},
        {"name": "flush", "on": {"cpus": [0]}, "kind": "chain", "gap": {"mean_ps": 90000000, "exponential": true},
         "steps": [{"program": "vunmap", "pages": 0, "cause": "vunmap", "per_mille": 1000}]}]}"#;
    let input = Input {
        scenario: Scenario::parse(text).unwrap(),
        machine: Preset::builtin("zen3-epyc").unwrap(),
        policy: shared_builtin("invlpgb").unwrap(),
        ..drawn(0).0
    };
    let kernel = Config { broadcast_tlb_flush: true, ..Config::default() };
    let input = Input { kernel, full: false, ..input };
    let replayed = carried_out(&input, Way { skip: false, ..QUICK });
    assert!(replayed.engine.replayed > 1000, "{}", replayed.engine.replayed);
    let (replayed, plain) = (replayed.into_output(), carried_out(&input, PLAIN).into_output());
    assert!(total(&plain, Stat::refill_misses) > 40, "{}", total(&plain, Stat::refill_misses));
    assert_eq!(difference(&replayed, &plain), None);
}

/// Compares runs of scenarios by chance, however they are carried out.
fn compare(seeds: std::ops::Range<u64>, mut other: impl FnMut(u64, &Input, &Run) -> Output) {
    let mut wrong = Vec::new();
    for n in seeds {
        let (input, of) = drawn(n);
        let quick = carried_out(&input, QUICK);
        let other = other(n, &input, &quick);
        let quick = quick.into_output();
        adds_up(&input, &quick);
        if let Some(what) = difference(&quick, &other) {
            wrong.push(format!("{what}: {of}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ, the first: {}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_quick_way_and_the_plain_way_give_the_same_bytes() {
    let (mut shorter, mut hit, mut replayed) = (0, 0, 0);
    compare(0..120, |_, input, quick| {
        let plain = carried_out(input, PLAIN);
        shorter += u64::from(quick.engine.work * 2 < plain.engine.work);
        hit += quick.engine.hit;
        replayed += quick.engine.replayed;
        assert_eq!((plain.engine.hit, plain.engine.replayed), (0, 0));
        plain.into_output()
    });
    assert!(
        shorter > 15 && hit > 1000 && replayed > 20,
        "{shorter} took half the work or less, {hit} calls in volleys, {replayed} replayed"
    );
}

#[test]
fn each_short_cut_alone_changes_nothing() {
    compare(1000..1060, |n, input, _| {
        let way = match n % 7 {
            0 => Way { skip: false, ..QUICK },
            1 => Way { replays: false, ..QUICK },
            2 => Way { volleys: false, ..QUICK },
            3 => Way { ahead: false, ..QUICK },
            4 => Way { skip: true, ..PLAIN },
            5 => Way { ahead: true, ..PLAIN },
            _ => Way { replays: true, ..PLAIN },
        };
        carried_out(input, way).into_output()
    });
}

#[test]
fn pieces_and_checkpoints_change_nothing() {
    let never = AtomicBool::new(false);
    compare(2000..2050, |n, input, _| {
        let mut run = Run::new(input.clone()).unwrap();
        let mut draws = Draws::new(n, 1, 1);
        while run.now() < run.duration() {
            let at = run.now() + 1 + draws.below(run.duration() / 5);
            run.advance(at, &never);
            if n % 2 == 0 {
                let bytes = run.checkpoint();
                run = Run::new(input.clone()).unwrap();
                run.resume(&bytes).unwrap();
            }
        }
        run.finish(&never, |_| {});
        run.into_output()
    });
}

/// Every CPU is driven, as it must be where entry code reads what others write: nobody is left behind. Random draws are
/// no reason for a difference: each actor has its own on each CPU, and extra times of IPIs are drawn in the order of time.
fn all_driven(input: &Input) -> Run {
    let mut run = Run::new(Input { skip: false, ..input.clone() }).unwrap();
    (run.engine.replays, run.engine.volleys) = (false, false);
    run.engine.looks_ahead = input.seed.is_multiple_of(2);
    run.engine.drive_all();
    run.finish(&AtomicBool::new(false), |_| {});
    run
}

#[test]
fn nobody_who_is_left_behind_misses_anything() {
    compare(4000..4060, |_, input, _| all_driven(input).into_output());
}

#[test]
fn a_run_that_was_under_way_takes_a_checkpoint_over_as_a_new_one_does() {
    let never = AtomicBool::new(false);
    compare(5000..5040, |n, input, _| {
        let mut run = Run::new(input.clone()).unwrap();
        let mut draws = Draws::new(n, 2, 2);
        let mut at = 0;
        for _ in 0..3 {
            at += draws.below(run.duration() / 3);
            run.advance(at, &never);
            let bytes = run.checkpoint();
            // It goes on a little, or to the end, and then back.
            run.advance(at + draws.below(run.duration()), &never);
            run.resume(&bytes).unwrap();
            assert_eq!(run.now(), at);
        }
        run.finish(&never, |_| {});
        run.into_output()
    });
}

#[test]
fn a_run_that_stops_at_the_very_moment_of_an_event_goes_on_with_it() {
    let never = AtomicBool::new(false);
    compare(6000..6050, |n, input, _| {
        let mut run = Run::new(input.clone()).unwrap();
        let mut draws = Draws::new(n, 4, 4);
        for _ in 0..30 {
            let cores = &run.engine.m.cores;
            let of = |c: &super::super::machine::Core| {
                [c.init_next, c.irq_at, c.device_next, c.nmi_next, c.fg_next, c.resume]
            };
            let next: Vec<u64> =
                cores.iter().flat_map(of).filter(|at| (run.now()..run.duration()).contains(at)).collect();
            if next.is_empty() {
                break;
            }
            let at = next[draws.below(next.len() as u64) as usize];
            run.advance(at + draws.below(2), &never);
        }
        run.finish(&never, |_| {});
        run.into_output()
    });
}
