//! Any state, sealed as a checkpoint is, is gone on from or refused, now or by a panic that the pool of threads catches;
//! it neither hangs nor takes all memory. What is fuzzed is the state within, since a flipped
//! bit of the file is found by its digest: the bytes are edits (a place, a length, what stands there) of a real state.

#![no_main]

use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;
use std::sync::atomic::AtomicBool;

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use tlbcore::hw::Preset;
use tlbcore::kernel::config::Config;
use tlbcore::kernel::policy::shared_builtin;
use tlbcore::sim::cost::Bound;
use tlbcore::sim::{Input, Run, Scenario};

const SEAL: usize = b"tlbcore checkpoint\n".len();

const SCENARIO: &str = r#"{"name": "storm", "duration_ps": 2000000000, "cpus": 3, "isolated": [1, 2],
"rcu_ps": 2000000000, "lazy_max_pages": 500, "actors": [
{"name": "forks", "on": "housekeeping", "kind": "forks", "gap": {"mean_ps": 50000000, "exponential": true}, "batch": 24},
{"name": "loop", "on": {"cpus": [1]}, "kind": "syscalls", "gap": {"mean_ps": 40000000}, "base_ps": 770000, "kernel_pages": 2, "user_pages": 1},
{"name": "tick", "on": "all", "kind": "interrupts", "gap": {"mean_ps": 300000000, "exponential": true}, "body_ps": 1000000, "cause": "tick"}
]}"#;

fn run() -> Run {
    Run::new(Input {
        scenario: Scenario::parse(SCENARIO).expect("a scenario"),
        machine: Preset::builtin("skylake-sp").expect("it is in the table"),
        kernel: Config::default(),
        policy: shared_builtin("coalesce-v7").expect("it is in the table"),
        seed: 1,
        skip: true,
        keep: 16,
        full: false,
        bound: Bound::Best,
    })
    .expect("a run")
}

static STATE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut at_work = run();
    at_work.advance(at_work.duration() / 2, &AtomicBool::new(false));
    let mut state = Vec::new();
    GzDecoder::new(&at_work.checkpoint()[SEAL + 32..]).read_to_end(&mut state).expect("it was packed");
    state
});

fuzz_target!(init: std::panic::set_hook(Box::new(|_| {})), |data: &[u8]| {
    let mut state = STATE.clone();
    for edit in data.chunks(8) {
        let [a, b, c, length, text @ ..] = edit else { break };
        let at = u32::from_le_bytes([*a, *b, *c, 0]) as usize % state.len();
        let end = state.len().min(at + usize::from(length % 8));
        state.splice(at..end, text.iter().copied());
    }
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&state).expect("memory");
    let packed = packed.finish().expect("memory");
    let sealed = [b"tlbcore checkpoint\n", Sha256::digest(&packed).as_slice(), &packed].concat();
    let mut run = run();
    if run.resume(&sealed).is_ok() {
        let _ = catch_unwind(AssertUnwindSafe(|| run.finish(&AtomicBool::new(false), |_| ())));
    }
});
