//! What is counted, against the events that were kept, the draws of an actor, and numbers by hand.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;

use super::super::draw::Draws;
use super::super::input::Input;
use super::super::scenario::Scenario;
use super::super::stats::{CAUSES, Cause, Stat};
use super::super::timeline::{Event, Kind};
use super::ways::{drawn, total};
use super::{Output, Run, simulate};
use crate::hw::Preset;
use crate::kernel::config::Config;
use crate::kernel::policy::shared_builtin;

/// Two CPUs, the second isolated, for 1 ms under `policy`, with these actors.
fn two(actors: &str, policy: &str) -> Input {
    let text = format!(
        r#"{{"name": "two", "duration_ps": 1000000000, "cpus": 2, "isolated": [1], "rcu_ps": 2000000,
            "lazy_max_pages": 40, "actors": [{actors}]}}"#
    );
    Input {
        scenario: Scenario::parse(&text).unwrap(),
        machine: Preset::builtin("skylake-sp").unwrap(),
        kernel: Config { pti: Some(true), ..Config::default() },
        policy: shared_builtin(policy).unwrap(),
        skip: false,
        keep: usize::MAX,
        full: false,
        ..drawn(0).0
    }
}

fn of(o: &Output, cpu: usize, stat: Stat) -> u64 {
    o.stats[cpu][stat as usize]
}

/// Beside what is under way at the end, each event is counted once and each count has its event.
fn events_are_counts(input: &Input, o: &Output) {
    let requests = o.events.iter().filter(|e| e.kind == Kind::Request);
    let ended: HashSet<(u32, u64, Cause)> =
        requests.map(|r| (u32::from(r.cpu), r.time_ps + r.duration_ps, r.cause)).collect();
    let mut by_cpu = vec![Vec::new(); o.stats.len()];
    o.events.iter().for_each(|e| by_cpu[usize::from(e.cpu)].push(*e));
    for (cpu, row) in o.stats.iter().enumerate() {
        let get = |s: Stat| row[s as usize];
        let mine = || by_cpu[cpu].iter();
        let ones = |kind: Kind, text: bool| {
            mine().filter(move |e| e.kind == kind && (e.cause == Cause::TextPoke) == text)
        };
        let took = |events: &mut dyn Iterator<Item = &Event>| events.map(|e| e.duration_ps).sum::<u64>();
        let count = |kind, text| ones(kind, text).count() as u64;
        assert!(mine().all(|e| e.time_ps + e.duration_ps <= o.reached_ps + 1_000_000_000), "CPU {cpu}");
        assert_eq!(count(Kind::Deferral, false), get(Stat::deferrals), "CPU {cpu}");
        assert_eq!(count(Kind::Deferral, true), get(Stat::sync_deferrals), "CPU {cpu}");
        assert_eq!(count(Kind::Hazard, false), get(Stat::hazards), "CPU {cpu}");
        assert_eq!(count(Kind::Hazard, true), get(Stat::text_hazards), "CPU {cpu}");
        assert_eq!(count(Kind::EntryFlush, false), get(Stat::entry_flushes_needed), "CPU {cpu}");
        assert!(took(&mut ones(Kind::EntryFlush, false)) <= get(Stat::entry_flush_ps), "CPU {cpu}");
        if get(Stat::entry_flushes_unneeded) == 0 {
            assert_eq!(took(&mut ones(Kind::EntryFlush, false)), get(Stat::entry_flush_ps), "CPU {cpu}");
        }
        for kind in [Kind::EntryFlush, Kind::Hazard] {
            assert!(mine().all(|e| e.kind != kind || e.other == 0), "CPU {cpu}: {kind:?} has no other side");
        }
        // A request that is under way has been counted and has no event yet. A CPU has one at a time.
        let asked = get(Stat::flush_requests) + get(Stat::user_flush_requests);
        assert!(asked - count(Kind::Request, false) <= 1, "CPU {cpu}: {asked} requests");
        assert!(get(Stat::sync_requests) - count(Kind::Request, true) <= 1, "CPU {cpu}");
        assert_eq!(
            took(&mut ones(Kind::Request, false)),
            get(Stat::flush_request_ps) + get(Stat::user_flush_request_ps),
            "CPU {cpu}"
        );
        for e in mine().filter(|e| e.kind == Kind::Deferral) {
            assert!(ended.contains(&(e.other, e.time_ps, e.cause)), "CPU {cpu}: {e:?}");
        }
        for (cause, taken) in o.by_cause[cpu].iter().enumerate() {
            let events = mine().filter(|e| e.kind == Kind::Interrupt && e.cause as usize == cause).count();
            let open = taken - events as u64;
            assert!(open <= 3, "CPU {cpu}: {taken} by {} and {events} events", CAUSES[cause].0);
        }
        for e in mine().filter(|e| e.kind == Kind::Interrupt) {
            let other = match e.cause {
                Cause::Nmi => e.other == 0,
                Cause::Tick | Cause::Device | Cause::Residual => e.other == u32::from(u16::MAX),
                // Of a remote call: who sent the first, or nobody where another interrupt has taken it.
                _ => e.other < u32::from(input.scenario.cpus) || e.other == u32::from(u16::MAX),
            };
            assert!(other && (e.other != cpu as u32 || e.cause == Cause::Nmi), "CPU {cpu}: {e:?}");
        }
        let hidden = get(Stat::user_ps) + get(Stat::idle_ps);
        assert!(
            get(Stat::exposure_ps) + hidden <= o.reached_ps,
            "CPU {cpu}: a view of the kernel ends with it"
        );
    }
    assert_eq!(total(o, Stat::purges), o.purges.len() as u64);
    assert_eq!(total(o, Stat::purges_tail), o.purges.iter().filter(|p| p.tail).count() as u64);
    let freed: u64 = o.purges.iter().map(|p| u64::from(p.areas)).sum();
    assert!(freed <= total(o, Stat::areas_purged));
    assert!(o.purges.iter().all(|p| p.forks <= total(o, Stat::forks)));
}

#[test]
fn events_and_counts_tell_the_same() {
    let mut seen = [0; 6];
    for n in 8000..8100 {
        let (mut input, of) = drawn(n);
        input.keep = usize::MAX;
        let o = simulate(input.clone()).unwrap();
        let told = std::panic::catch_unwind(|| events_are_counts(&input, &o));
        assert!(told.is_ok(), "{of}");
        o.events.iter().for_each(|e| seen[e.kind as usize] += 1);
    }
    assert!(seen[..5].iter().all(|n| *n > 100), "{seen:?}");
}

#[test]
fn between_two_calls_a_task_has_its_gap_of_user_time_whatever_interrupts_it() {
    let gap = 7_000_000;
    let calls = format!(
        r#"{{"name": "loop", "on": {{"cpus": [1]}}, "kind": "syscalls", "gap": {{"mean_ps": {gap}}}, "base_ps": 770000,
            "kernel_pages": 0, "user_pages": 0}}"#
    );
    let rows = [
        ("nothing", String::new(), 0),
        (
            "interrupts",
            r#", {"name": "tick", "on": {"cpus": [1]}, "kind": "interrupts", "gap": {"mean_ps": 4100000}, "body_ps": 900000, "cause": "tick"}"#
                .into(),
            150,
        ),
        (
            "NMIs",
            r#", {"name": "perf", "on": {"cpus": [1]}, "kind": "nmis", "gap": {"mean_ps": 4100000}, "body_ps": 900000}"#.into(),
            150,
        ),
        (
            "faults",
            r#", {"name": "faults", "on": {"cpus": [1]}, "kind": "faults", "gap": {"mean_ps": 4100000}, "body_ps": 900000, "by": "exception"}"#
                .into(),
            150,
        ),
        (
            "calls of others",
            r#", {"name": "purge", "on": {"cpus": [0]}, "kind": "chain", "gap": {"mean_ps": 4100000}, "steps": [{"program": "purge", "pages": 0, "cause": "purge"}]}"#
                .into(),
            150,
        ),
    ];
    for (by, more, least) in rows {
        for (skip, replays) in [(false, false), (false, true), (true, true)] {
            let mut run = Run::new(Input { skip, ..two(&format!("{calls}{more}"), "ipi") }).unwrap();
            run.engine.replays = replays;
            run.finish(&AtomicBool::new(false), |_| {});
            let o = run.into_output();
            let (user, calls) = (of(&o, 1, Stat::user_ps), of(&o, 1, Stat::syscalls));
            let came = of(&o, 1, Stat::interrupts) + of(&o, 1, Stat::nmis) + of(&o, 1, Stat::faults);
            assert!(came >= least && (least > 0 || came == 0), "{by}: {came}");
            // The last call may be under way, and the last gap not over.
            assert!(
                (calls..=calls + 1).contains(&(user / gap)),
                "{by}: {user} ps of user time, {calls} calls"
            );
        }
    }
}

#[test]
fn a_task_that_nobody_interrupts_is_quiet_all_its_user_time() {
    let spin = r#"{"name": "spin", "on": {"cpus": [1]}, "kind": "spin"}"#;
    let o = simulate(two(spin, "ipi")).unwrap();
    assert_eq!(of(&o, 1, Stat::user_ps), 1_000_000_000);
    assert_eq!(of(&o, 1, Stat::longest_quiet_ps), 1_000_000_000, "since the start");
    assert_eq!(of(&o, 1, Stat::interference), 0);
    // One interrupt, at 300 us: the longest is the time behind it. At 800 us it is the time before it.
    for (at, longest) in [(300_000_000u64, None), (800_000_000, Some(800_000_000))] {
        let tick = format!(
            r#"{spin}, {{"name": "tick", "on": {{"cpus": [1]}}, "kind": "interrupts", "gap": {{"mean_ps": {at}}}, "body_ps": 900000, "cause": "tick"}}"#
        );
        let mut input = two(&tick, "ipi");
        input.scenario.duration_ps = at + 500_000_000.min(at - 1);
        let o = simulate(input).unwrap();
        let took = of(&o, 1, Stat::interrupt_ps);
        assert_eq!((of(&o, 1, Stat::interference), of(&o, 1, Stat::interference_ps)), (1, took));
        assert!(took > 900_000, "{took}");
        let longest = longest.unwrap_or(at);
        assert_eq!(of(&o, 1, Stat::longest_quiet_ps), longest, "{at}");
    }
}

#[test]
fn steps_of_an_actor_happen_by_its_draws() {
    let gap = 3_000_000;
    let tasks = |step: &str| {
        format!(
            r#"{{"name": "tasks", "on": {{"cpus": [0]}}, "kind": "tasks", "gap": {{"mean_ps": {gap}}}, "processes": 3, "steps": [{step}]}}"#
        )
    };
    let chain = format!(
        r#"{{"name": "chain", "on": {{"cpus": [0]}}, "kind": "chain", "gap": {{"mean_ps": {gap}}},
            "steps": [{{"program": "vunmap", "pages": 1, "cause": "vunmap", "per_mille": 400}}]}}"#
    );
    let rows = [
        (tasks(r#"{"do": "switch", "per_mille": 500}"#), 500, Stat::mm_switches),
        (tasks(r#"{"do": "fork", "per_mille": 1}"#), 1, Stat::forks),
        (tasks(r#"{"do": "exec", "per_mille": 999}"#), 999, Stat::execs),
        (tasks(r#"{"do": "unmap", "pages": 1, "per_mille": 250}"#), 250, Stat::user_flush_requests),
        (chain, 400, Stat::flush_requests),
    ];
    for (actor, per_mille, stat) in rows {
        for seed in 0..12 {
            let o = simulate(Input { seed, ..two(&actor, "ipi") }).unwrap();
            let mut draws = Draws::new(seed, 0, 0);
            let turns = 1_000_000_000 / gap;
            let happen = (0..turns).filter(|_| draws.below(1000) < per_mille).count() as u64;
            let counted = of(&o, 0, stat);
            // What the last turn queued may be under way.
            assert!(counted <= happen && happen <= counted + 1, "{stat:?}: {counted} of {happen}");
        }
    }
}

#[test]
fn a_step_that_flushes_nothing_asks_for_no_pages() {
    let tasks = |more: &str| {
        format!(
            r#"{{"name": "tasks", "on": {{"cpus": [0, 1]}}, "kind": "tasks", "gap": {{"mean_ps": 9000000, "exponential": true}}, "processes": 3,
                "steps": [{{"do": "switch"}}, {{"do": "sleep"}}, {{"do": "migrate", "per_mille": 300}}{more}]}}"#
        )
    };
    let asked = |actors: &str| {
        let mut run = Run::new(two(actors, "ipi")).unwrap();
        let (mut pages, never) = (Vec::new(), AtomicBool::new(false));
        for step in 1..=400 {
            run.advance(step * 2_500_000, &never);
            pages.extend(run.engine.m.cores.iter().map(|c| c.request.pages));
        }
        pages.sort_unstable();
        pages.dedup();
        pages
    };
    assert_eq!(asked(&tasks("")), [0]);
    assert_eq!(asked(&tasks(r#", {"do": "unmap", "pages": 5, "per_mille": 400}"#)), [0, 5]);
}

#[test]
fn an_interrupt_that_is_not_sent_takes_no_time() {
    let purge = |cpu: u16| {
        format!(
            r#"{{"name": "purge", "on": {{"cpus": [{cpu}]}}, "kind": "chain", "gap": {{"mean_ps": 90000000}}, "steps": [{{"program": "purge", "pages": 0, "cause": "purge"}}]}}"#
        )
    };
    let took = |cpus: u16, send: u64| {
        let mut input = two(&purge(0), "ipi");
        input.scenario.cpus = cpus;
        input.scenario.isolated.retain(|c| *c < cpus);
        let mut run = Run::new(input).unwrap();
        (run.engine.volleys, run.engine.m.times.send) = (false, send);
        run.finish(&AtomicBool::new(false), |_| {});
        let o = run.into_output();
        assert_eq!(of(&o, 0, Stat::flush_requests), 11);
        assert_eq!(of(&o, 0, Stat::ipi_rounds), if cpus > 1 { 11 } else { 0 });
        (of(&o, 0, Stat::flush_request_ps), of(&o, 0, Stat::wait_ps))
    };
    assert_eq!(took(1, 5_000_000), took(1, 0), "there is nobody to send one to");
    let (more, less) = (took(2, 5_000_000), took(2, 0));
    assert_eq!(more.0 - less.0, 11 * 5_000_000);
    assert_eq!(more.1, less.1, "it waits from the sending on");
}

#[test]
fn a_policy_rests_on_those_of_its_costs_that_have_no_source() {
    let broadcasts = Config { pti: Some(false), broadcast_tlb_flush: true, rar: true, ..Config::default() };
    let rows: [(&str, &str, &[&str]); 4] = [
        ("ipi", "skylake-sp", &[]),
        ("coalesce-v7", "skylake-sp", &[]),
        ("rar", "sapphire-rapids", &["rar"]),
        ("invlpgb", "zen3-epyc", &["invlpgb", "tlbsync"]),
    ];
    for (policy, machine, costs) in rows {
        let purge = r#"{"name": "purge", "on": {"cpus": [0]}, "kind": "chain", "gap": {"mean_ps": 90000000}, "steps": [{"program": "purge", "pages": 0, "cause": "purge"}]}"#;
        let machine = Preset::builtin(machine).unwrap();
        let kernel = if costs.is_empty() { two(purge, policy).kernel } else { broadcasts.clone() };
        let run = Run::new(Input { machine, kernel, ..two(purge, policy) }).unwrap();
        assert_eq!(run.output().unsourced, costs, "{policy}");
        assert_eq!(run.notes.iter().any(|note| note.contains("unsourced")), !costs.is_empty(), "{policy}");
    }
}
