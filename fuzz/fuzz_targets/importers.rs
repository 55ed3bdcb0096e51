//! Any bytes are a recording that is read to its end or refused: no panic, no hang, and figures that agree with
//! themselves. The first byte chooses how the bytes arrive and which CPUs are isolated.

#![no_main]

use std::io::{Cursor, Read};

use libfuzzer_sys::fuzz_target;
use tlbcore::kernel::policy::{POLICIES, builtin};
use tlbcore::trace::{
    analysis::{Analysis, Isolated},
    import::Reader,
    noise::Meter,
    replay::replay,
};

/// Hands out a few bytes at a time, as a pipe does.
struct Dribble(Cursor<Vec<u8>>, usize);

impl Read for Dribble {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let room = into.len().min(self.1);
        self.0.read(&mut into[..room])
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, text)) = data.split_first() else { return };
    let isolated = match choice & 3 {
        0 => Isolated::Given(vec![2, 3]),
        1 => Isolated::Recorded(vec![1]),
        _ => Isolated::Deduce,
    };
    let source: Box<dyn Read + Send> = match choice >> 2 & 3 {
        0 => Box::new(Dribble(Cursor::new(text.to_vec()), 1)),
        1 => Box::new(Dribble(Cursor::new(text.to_vec()), 7)),
        _ => Box::new(Cursor::new(text.to_vec())),
    };
    let mut pass = Analysis::new(isolated);
    let mut reader = Reader::new("fuzzed", source);
    let _ = reader.run(&mut pass);
    pass.finish();
    let report = pass.report();
    for cpu in &report.isolated {
        if let Some(interrupts) = cpu.interrupts {
            assert_eq!(cpu.interrupts_by_cause.values().sum::<u64>(), interrupts);
        }
        assert!(cpu.baseline.executions_equal);
    }
    for purge in pass.purges().0 {
        let charged: u64 = purge.charged.iter().map(|(_, c)| c.areas).sum();
        assert_eq!(charged + purge.unknown, purge.areas);
    }
    let wanted = POLICIES[usize::from(choice) % POLICIES.len()].id;
    let policy = builtin(wanted).expect("it is in the table");
    // `lazy-tune` is refused: what it changes is not in a recording.
    if let Ok(outcome) = replay(&pass.recorded(), &policy, choice & 16 == 0, None) {
        assert!(outcome.deferred.low <= outcome.deferred.high);
    }

    let whole = Meter::new(20_000, &[2, 3]).feed(text);
    let mut pieces = Meter::new(20_000, &[2, 3]);
    let found: Vec<_> = text.chunks(13).flat_map(|piece| pieces.feed(piece)).collect();
    assert_eq!(found, whole);
});
