//! Damaged recordings: whatever is done to a real one, reading it ends, without panic, and its figures stay consistent.
//!
//! `TLBCORE_FUZZ_CASES=100000 cargo test --release --test trace_mutations` runs longer.

use std::io::Read;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use tlbcore::trace::{
    analysis::{Analysis, Isolated},
    event::{Event, Hole},
    import::{Reader, Sink},
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

/// All that a sink is told, in order.
#[derive(Default)]
struct Told(Vec<String>);

impl Sink for Told {
    fn event(&mut self, event: &Event<'_>) {
        self.0.push(format!("{event:?}"));
    }
    fn hole(&mut self, hole: &Hole) {
        self.0.push(format!("{hole:?}"));
    }
    fn note(&mut self, key: &[u8], value: &[u8]) {
        self.0.push(format!("{key:?} {value:?}"));
    }
    fn piece(&mut self) {
        self.0.push("piece".into());
    }
}

/// What reading a text on so many threads, so many bytes at once, tells and ends with.
fn told(text: &[u8], threads: usize, at_once: usize) -> (Vec<String>, String, String) {
    let mut told = Told::default();
    let source = Box::new(std::io::Cursor::new(text.to_vec()));
    let mut reader = Reader::new("cut", source).at_once(at_once);
    let outcome = reader.run_on(threads, &mut told, &mut |_, _| true);
    let mut stats = reader.stats;
    let mut unknown: Vec<_> = stats.unknown.drain().collect();
    unknown.sort();
    (told.0, format!("{outcome:?}"), format!("{stats:?} {unknown:?}"))
}

#[test]
fn threads_and_cuts_change_nothing() {
    let mut texts: Vec<Vec<u8>> =
        ["q4.w8lost.trace.txt.xz", "k61.w3i.trace.txt.xz", "p4b.w5.head.report.txt.xz"]
            .map(|name| recording(name).into_iter().take(50_000).collect())
            .into();
    // The second part begins in the middle of whatever it is: call chains, comments, another header.
    texts.push([&texts[1][..20_000], b"\n", &texts[0][..9_000], b"\r\n", &texts[1][..9_000]].concat());
    let chain = b"\tffffffff8faae744 flush_tlb_kernel_range+0x4 ([kernel.kallsyms])\n".repeat(3);
    let perf = (0..200u32).flat_map(|n| {
        let head = format!(
            "  app {n} [002] {n}.000001: csd:csd_queue_cpu: cpu=2 callsite=a+0x2 func=f csd=0xffff8aaa\n"
        );
        [head.as_bytes(), &chain[..chain.len() / 3 * (n as usize % 4)], &b"\n"[..n as usize % 2]].concat()
    });
    texts.push(perf.collect());
    let cases: u64 = std::env::var("TLBCORE_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    for seed in 0..cases {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut text = texts[seed as usize % texts.len()].clone();
        if seed % 3 > 0 {
            damage(&mut text, &mut rng);
        }
        let whole = told(&text, 1, 1 << 20);
        let most = 1 << below(&mut rng, 14);
        let (threads, at_once) = (1 + below(&mut rng, 4), 1 + below(&mut rng, most));
        let cut = told(&text, threads, at_once);
        assert!(cut == whole, "seed {seed}: {threads} threads, {at_once} bytes at once");
    }
}

#[test]
fn a_sink_that_panics_ends_the_reading_on_every_thread() {
    struct Fails(u32);
    impl Sink for Fails {
        fn event(&mut self, _: &Event<'_>) {
            self.0 += 1;
            assert!(self.0 < 300, "it had enough");
        }
        fn hole(&mut self, _: &Hole) {}
    }
    let text = recording("p4.w7.trace.txt.xz");
    let end = std::panic::catch_unwind(move || {
        let mut reader = Reader::new("text", Box::new(std::io::Cursor::new(text))).at_once(1000);
        reader.run_on(4, &mut Fails(0), &mut |_, _| true).map_err(|e| e.to_string())
    });
    let text = *end.expect_err("it panics").downcast::<String>().expect("words");
    assert!(text.contains("it had enough"), "{text}");
}
