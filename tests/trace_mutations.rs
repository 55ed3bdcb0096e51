//! Damaged recordings: whatever is done to a real one, reading it ends, without panic, and its figures stay consistent.
//!
//! `TLBCORE_FUZZ_CASES=100000 cargo test --release --test trace_mutations` runs longer.

use std::io::Read;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use tlbcore::trace::{
    analysis::{Analysis, Isolated},
    import::Reader,
    source,
};

fn recording(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut text = Vec::new();
    source::open(&path).expect("test data").read_to_end(&mut text).expect("test data");
    text
}

fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    (rng.next_u64() % n.max(1) as u64) as usize
}

/// One to a dozen changes of the kinds that happen: flipped bytes, lost, doubled and swapped stretches, foreign bytes,
/// long lines, huge numbers, a cut.
fn damage(text: &mut Vec<u8>, rng: &mut ChaCha8Rng) {
    const PIECES: &[&[u8]] = &[
        b"18446744073709551616",
        b"-1",
        b"[99999]",
        b"CPU:2 [LOST 99999999999999999999 EVENTS]\n",
        b"##### CPU 4294967295 buffer started ####\n",
        b"\xff\xfe\x00",
        b"cpumask=ffffffff,ffffffff",
        b"cpumask=0-4294967295",
        b"  => ",
        b"<stack trace>\n",
        b"99999999999999999999.999999:",
        b"=",
        b"\n\n\r\n",
    ];
    for _ in 0..=below(rng, 12) {
        let (a, b) = (below(rng, text.len()), below(rng, text.len()));
        let (from, to) = (a.min(b), a.max(b).min(a.min(b) + 400));
        match below(rng, 8) {
            0 => text[a] ^= 1 << below(rng, 8),
            1 => drop(text.drain(from..to)),
            2 => {
                let copy = text[from..to].to_vec();
                text.splice(b..b, copy);
            }
            3 => text.swap(a, b),
            4 | 5 => {
                let piece = PIECES[below(rng, PIECES.len())];
                text.splice(a..a, piece.iter().copied());
            }
            6 => {
                let long = vec![b'x'; 1 << below(rng, 18)];
                text.splice(a..a, long);
            }
            _ => text.truncate(text.len() - below(rng, text.len() / 20)),
        }
        if text.is_empty() {
            text.push(b'x');
        }
    }
}

#[test]
fn a_damaged_recording_is_read_to_its_end_or_refused_and_never_panics() {
    let names =
        ["p4.w7.trace.txt.xz", "q4.w8lost.trace.txt.xz", "k61.w3i.trace.txt.xz", "q4.w9local.trace.txt.xz"];
    let cases: u64 = std::env::var("TLBCORE_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let clean: Vec<_> = names.iter().map(|name| recording(name)).collect();
    let mut read = 0;
    for seed in 0..cases {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut text = clean[seed as usize % clean.len()].clone();
        damage(&mut text, &mut rng);
        let isolated = if seed % 2 == 0 { Isolated::Deduce } else { Isolated::Given(vec![2, 3]) };
        let mut pass = Analysis::new(isolated);
        let mut reader = Reader::new("damaged", Box::new(std::io::Cursor::new(text)));
        let outcome = reader.run(&mut pass);
        pass.finish();
        let report = pass.report();
        read += u64::from(outcome.is_ok());
        for cpu in &report.isolated {
            assert_eq!(
                cpu.interrupts_by_cause.values().sum::<u64>(),
                cpu.interrupts.unwrap_or(0),
                "seed {seed}, CPU {}",
                cpu.cpu
            );
            assert!(cpu.baseline.executions_equal, "seed {seed}, CPU {}", cpu.cpu);
        }
        for (purges, _) in [pass.purges()] {
            for p in purges {
                let charged: u64 = p.charged.iter().map(|(_, c)| c.areas).sum();
                assert_eq!(charged + p.unknown, p.areas, "seed {seed}");
            }
        }
    }
    assert!(read * 10 >= cases * 9, "nearly every damaged recording still says something: {read} of {cases}");
}
