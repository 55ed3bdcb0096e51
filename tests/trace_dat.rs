//! `trace.dat`: the same events as from `trace-cmd report -t` of the same file, whatever the bytes are no panic.
//!
//! The recordings are of Linux 7.3.4 and 6.12.117 with the formats and symbols that no event needs taken out; the texts
//! beside them are trace-cmd's. `TLBCORE_FUZZ_CASES=100000 cargo test --release --test trace_dat` damages more.

use std::{
    fmt::Write as _,
    fs::File,
    io::{Cursor, Read},
};

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use tlbcore::trace::{
    event::{Event, Hole, What, for_each_cpu},
    import::{
        Reader, Sink,
        dat::{self, bytes::Bytes},
    },
    source,
};

fn path(name: &str) -> String {
    format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Events as text, without what trace-cmd's report leaves out: where a probe sits, and how a mask is spelt.
#[derive(Default)]
struct Seen {
    events: Vec<String>,
    holes: Vec<String>,
    in_interrupt: usize,
}

impl Sink for Seen {
    fn event(&mut self, e: &Event<'_>) {
        let mut what = format!("{:?}", e.what);
        match e.what {
            What::Probe { name, returns, args, .. } => what = format!("probe {name:?} {returns} {args:?}"),
            What::IpiSendMask { mask, callsite, callback } => {
                what = format!("mask {callsite:?} {callback:?}");
                for_each_cpu(mask, |cpu| write!(what, " {cpu}").expect("memory"));
            }
            // trace-cmd spells a frame without a name `ffffffffc048c0de`, the kernel `0xffffffffc048c0de`.
            What::Stack { frames } => what = String::from_utf8_lossy(frames).replace("0xffff", "ffff"),
            // 6.12 has a fifth reason, which trace-cmd's own list lacks.
            What::TlbFlush { pages, .. } => what = format!("flush {pages}"),
            _ => {}
        }
        let comm = String::from_utf8_lossy(e.task.comm);
        self.events.push(format!("{} {} {comm}-{} {what}", e.at_ns, e.cpu, e.task.pid));
        self.in_interrupt += usize::from(e.in_interrupt == Some(true));
    }

    fn hole(&mut self, hole: &Hole) {
        self.holes.push(format!("{:?} {:?} {:?}", hole.kind, hole.cpu, hole.events));
    }
}

fn events(name: &str) -> (Seen, Reader) {
    let mut seen = Seen::default();
    let mut reader = Reader::open(&path(name)).expect("opens");
    reader.run(&mut seen).expect("reads");
    assert_eq!(reader.stats.broken, 0, "{name}: {:?}", reader.stats.broken_first);
    (seen, reader)
}

#[test]
fn every_event_is_that_of_trace_cmds_report() {
    for (dat, report, count) in [
        ("dat.p73.us8.v6.trace.dat", "dat.p73.us8.report.txt.xz", 1107),
        ("dat.p73.us8.v7.trace.dat", "dat.p73.us8.report.txt.xz", 1107),
        ("dat.q4.w1st.v7.trace.dat", "dat.q4.w1st.report.txt.xz", 4_253),
    ] {
        let ((ours, reader), (theirs, _)) = (events(dat), events(report));
        assert_eq!(reader.machine_cpus(), Some(4), "{dat}");
        for (mine, want) in ours.events.iter().zip(&theirs.events) {
            assert_eq!(mine, want, "{dat}");
        }
        assert_eq!((ours.events.len(), ours.holes), (theirs.events.len(), theirs.holes), "{dat}");
        assert_eq!(ours.events.len(), count, "{dat}");
        assert!(ours.in_interrupt > 0, "the recording says what trace-cmd's report leaves out");
    }
}

#[test]
fn a_probe_is_named_by_the_recorded_symbols() {
    let mut text = String::new();
    source::open(&path("dat.p73.us8.v7.trace.dat")).expect("opens").read_to_string(&mut text).expect("text");
    assert!(text.contains("mm_range: (flush_tlb_mm_range+0x4/"), "as the kernel prints it");
    assert!(text.contains("cpumask=00000000,0000000e callsite=sync_runqueues_membarrier_state+0x106/"));
    assert!(text.contains("prev_state=I ==> next_comm=swapper/1"));
}

#[test]
fn a_recording_on_standard_input_or_packed_once_more_is_read_too() {
    let bytes = std::fs::read(path("dat.p73.us8.v7.trace.dat")).expect("test data");
    let mut plain = Vec::new();
    source::open(&path("dat.p73.us8.v7.trace.dat")).expect("opens").read_to_end(&mut plain).expect("text");
    let mut memory = Vec::new();
    dat::open(Bytes::Memory(bytes.clone())).expect("opens").read_to_end(&mut memory).expect("text");
    assert!(memory == plain);
    let packed = std::env::temp_dir().join(format!("tlbcore-dat-{}.zst", std::process::id()));
    std::fs::write(&packed, zstd::encode_all(&bytes[..], 1).expect("memory")).expect("temporary file");
    let mut unpacked = Vec::new();
    source::open(packed.to_str().expect("UTF-8")).expect("opens").read_to_end(&mut unpacked).expect("text");
    std::fs::remove_file(packed).expect("temporary file");
    assert!(unpacked == plain);
}

#[test]
fn a_file_that_was_cut_gives_its_beginning_and_then_says_so() {
    for (name, keep) in [("dat.p73.us8.v6.trace.dat", 40_000), ("dat.p73.us8.v6.trace.dat", 64_000)] {
        let mut bytes = std::fs::read(path(name)).expect("test data");
        bytes.truncate(keep);
        let mut seen = Seen::default();
        let source = dat::open(Bytes::Memory(bytes)).expect("its head is whole");
        let fault = Reader::new("cut.dat", source).run(&mut seen).expect_err("it was cut").to_string();
        assert!(!seen.events.is_empty() && seen.events.len() < 1107, "{keep}: {}", seen.events.len());
        assert!(fault.starts_with("cut.dat: trace.dat ") && fault.contains("what came before"), "{fault}");
    }
    for keep in [11, 20, 100, 5000] {
        let mut bytes = std::fs::read(path("dat.p73.us8.v7.trace.dat")).expect("test data");
        bytes.truncate(keep);
        let fault = dat::open(Bytes::Memory(bytes)).err().expect("its head was cut");
        assert!(fault.contains("ends early") || fault.contains("beyond"), "{keep}: {fault}");
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let whole = std::fs::read(path("dat.p73.us8.v6.trace.dat")).expect("test data");
    let refused = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        dat::open(Bytes::Memory(bytes)).err().expect("refused")
    };
    assert!(refused(10, b'8').starts_with("is of a format other than 6 and 7; `trace-cmd report"));
    assert!(refused(12, 1).starts_with("is of a big-endian machine, which is not read; `trace-cmd"));
    assert_eq!(refused(13, 3), "a long has 4 or 8 bytes: got 3");
    assert_eq!(refused(18, b'x'), "has no header_page where it should be");
    let clock = memchr::memmem::find(&whole, b"perf [mono]").expect("its clock") + 5;
    let mut bytes = whole.clone();
    bytes[clock..clock + 6].copy_from_slice(b"[coun]");
    let fault = dat::open(Bytes::Memory(bytes)).err().expect("refused");
    assert_eq!(fault, "its clock \"coun\" counts no time: record with `trace-cmd record -C mono`");
}

fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    (rng.next_u64() % n.max(1) as u64) as usize
}

#[test]
fn a_damaged_file_is_read_to_some_end_or_refused_and_never_panics() {
    let cases: u64 = std::env::var("TLBCORE_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(150);
    let names = ["dat.p73.us8.v6.trace.dat", "dat.p73.us8.v7.trace.dat", "dat.q4.w1st.v7.trace.dat"];
    let clean = names.map(|name| std::fs::read(path(name)).expect("test data"));
    let (mut refused, mut ended, mut whole) = (0, 0, 0);
    for seed in 0..cases {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // Two of three are of the format whose every byte is plain.
        let mut bytes = clean[[0, 0, 1, 0, 0, 2][seed as usize % 6]].clone();
        for _ in 0..=below(&mut rng, 6) {
            let at = below(&mut rng, bytes.len());
            let to = (at + below(&mut rng, 64)).min(bytes.len());
            match below(&mut rng, 7) {
                0 => bytes[at] ^= 1 << below(&mut rng, 8),
                1 => bytes[at..to].fill(0xff),
                2 => bytes[at..to].fill(0),
                3 => drop(bytes.drain(at..to)),
                4 => bytes.truncate(at.max(8)),
                5 => {
                    let from = below(&mut rng, bytes.len() - (to - at) + 1);
                    bytes.copy_within(from..from + (to - at), at);
                }
                _ => {
                    // A length that lies: any four bytes become a large number.
                    let huge = (rng.next_u64() as u32 >> below(&mut rng, 24)).to_le_bytes();
                    for (place, byte) in bytes[at..to].iter_mut().zip(huge) {
                        *place = byte;
                    }
                }
            }
            if bytes.is_empty() {
                bytes.push(0);
            }
        }
        let Ok(text) = dat::open(Bytes::Memory(bytes)) else {
            refused += 1;
            continue;
        };
        // One file cannot give more text than this: an event has at least four bytes and one line at most 8 KiB.
        let mut seen = Seen::default();
        let mut reader = Reader::new("damaged", Box::new(text.take(1 << 28)));
        match reader.run(&mut seen) {
            Ok(()) => whole += 1,
            Err(_) => ended += 1,
        }
    }
    assert!(refused > 0 && ended > 0 && whole > 0, "{refused} refused, {ended} cut short, {whole} read");
}

#[test]
fn a_file_and_its_bytes_are_the_same_recording() {
    let file = File::open(path("dat.q4.w1st.v7.trace.dat")).expect("test data");
    let len = file.metadata().expect("test data").len();
    let mut text = Vec::new();
    dat::open(Bytes::File(file, len)).expect("opens").read_to_end(&mut text).expect("text");
    let mut seen = Seen::default();
    Reader::new("text", Box::new(Cursor::new(text))).run(&mut seen).expect("reads");
    assert_eq!(seen.events, events("dat.q4.w1st.v7.trace.dat").0.events);
}
