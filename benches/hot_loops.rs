//! The hot loops of the hardware model and of the timed machine, by the clock: `cargo bench --bench hot_loops`.
//!
//! `python -m benches.instructions` counts the instructions of such loops in the installed extension.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use tlbcore::hw::cpus::Cpus;
use tlbcore::hw::curve::{self, Question};
use tlbcore::hw::{Contexts, Geometry, Kind, PageSize, Pcid, Preset};
use tlbcore::kernel::config::Config;
use tlbcore::kernel::policy::shared_builtin;
use tlbcore::sim::Input;
use tlbcore::sim::cost::Bound;
use tlbcore::sim::run::Run;
use tlbcore::sim::scenario::Scenario;
use tlbcore::sim::stats::Stat;

const LOOPS: [&str; 4] = ["plain", "real", "events", "curve"];

/// Loops of the timed machine: system calls with 20 looked-up touches, the same without, and deferred flushes that
/// examine 1,024 CPUs.
const ENGINES: [&str; 3] = ["touches", "interpreted", "broadcast"];

/// The run of a loop of [`ENGINES`], when it is to end, and how many units it will have done by then.
fn engine(which: &str) -> (Run, u64) {
    let (policy, cpus, actors) = if which == "broadcast" {
        let purge = r#"{"name": "purge", "on": {"cpus": [0]}, "kind": "chain", "gap": {"mean_ps": 1000000000},
            "steps": [{"program": "purge", "pages": 0, "cause": "purge"}]}"#;
        ("coalesce-v7", 1024, format!(r#"{{"name": "spin", "on": "all", "kind": "spin"}}, {purge}"#))
    } else {
        let loops = r#"{"name": "loop", "on": "isolated", "kind": "syscalls", "gap": {"mean_ps": 230000, "exponential": true},
            "base_ps": 770000, "kernel_pages": 12, "user_pages": 4}"#;
        ("ipi", 4, format!(r#"{{"name": "idle", "on": {{"cpus": [0]}}, "kind": "idle"}}, {loops}"#))
    };
    let isolated: Vec<String> = (1..cpus).map(|cpu| cpu.to_string()).collect();
    let end = if which == "broadcast" { 200_000_000_000 } else { 10_000_000_000 };
    let scenario = format!(
        r#"{{"name": "{which}", "duration_ps": {end}, "cpus": {cpus}, "isolated": [{}], "actors": [{actors}]}}"#,
        isolated.join(", ")
    );
    let run = Run::new(Input {
        scenario: Scenario::parse(&scenario).expect("a valid scenario"),
        machine: Preset::builtin("broadwell-ep-e5-2699v4").expect("a built-in machine"),
        kernel: Config::default(),
        policy: shared_builtin(policy).expect("a built-in policy"),
        seed: 1,
        skip: which == "broadcast",
        keep: 0,
        full: which == "touches",
        bound: Bound::Best,
    });
    (run.expect("a valid run"), end)
}

/// Units of a finished run: targets examined, or program runs.
fn units(which: &str, run: &Run) -> u64 {
    let output = run.output();
    if which == "broadcast" {
        let requests: u64 = output.stats.iter().map(|row| row[Stat::flush_requests as usize]).sum();
        return requests * output.stats.len() as u64;
    }
    output.runs
}

/// One pass of a loop of [`LOOPS`].
fn measured(which: &str, words: &[u64], bytes: &[u8], cpus: &mut Cpus) -> u64 {
    match which {
        "plain" | "real" => {
            cpus.access(0, words, Contexts::One(Pcid(0)), Kind::Load, PageSize::K4, None, 0)
                .expect("valid pages");
        }
        "events" => {
            cpus.run(bytes, None, 0).expect("valid events");
        }
        _ => {
            let question = Question { vpns: words, pcids: None, flushes: &[], sets: &[16], ways: 8 };
            return curve::misses(&question).expect("a valid question")[0][3];
        }
    }
    cpus.counters().walks
}

fn cpus(which: &str) -> Cpus {
    let geometry = match which {
        "real" => Arc::clone(&Preset::builtin("skylake-sp").expect("a built-in machine").geometry),
        _ => Arc::new(Geometry::peers()),
    };
    Cpus::new(&geometry, if which == "events" { 8 } else { 1 }).expect("a valid number of CPUs")
}

/// SplitMix64, so that the streams never change.
fn draws(count: u64) -> impl Iterator<Item = u64> {
    (1..=count).map(|n| {
        let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    })
}

/// Half of the accesses to 64 pages, half to 65,536; as events: 8 CPUs, one page in 16 global, 0.1 % full flushes.
fn stream(which: &str, count: u64) -> Vec<u64> {
    let page = |draw: u64| 0x7_f000_0000 + if draw >> 63 == 0 { draw & 0x3f } else { draw & 0xffff };
    if which != "events" {
        return draws(count).map(page).collect();
    }
    let event = |draw: u64| {
        let op = if (draw >> 40).is_multiple_of(1000) { 8 } else { 0 };
        let global = u64::from(page(draw).is_multiple_of(16));
        [page(draw), 1 | (draw >> 32 & 7) << 16 | op << 48 | global << 56]
    };
    draws(count).flat_map(event).collect()
}

fn as_bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[allow(clippy::print_stdout)] // a bench reports to people
fn main() {
    let count = if cfg!(debug_assertions) { 1 << 14 } else { 1 << 22 };
    for which in LOOPS {
        let words = stream(which, count);
        let bytes = as_bytes(&words);
        let best = (0..5)
            .map(|_| {
                let mut cpus = cpus(which);
                let start = Instant::now();
                black_box(measured(which, &words, &bytes, &mut cpus));
                start.elapsed().as_secs_f64()
            })
            .fold(f64::INFINITY, f64::min);
        println!("{which:8} {:6.0} million/s", count as f64 / best / 1e6);
    }
    for which in ENGINES {
        let (done, best) = (0..5)
            .map(|_| {
                let (mut run, end) = engine(which);
                let start = Instant::now();
                run.advance(end, &AtomicBool::new(false));
                let took = start.elapsed().as_secs_f64();
                (units(which, &run), took)
            })
            .fold((0, f64::INFINITY), |best, one| if one.1 < best.1 { one } else { best });
        println!("{which:12} {:6.2} million/s", done as f64 / best / 1e6);
    }
}
