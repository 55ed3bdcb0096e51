//! What a word of a text costs: the same question with one op in place of an LFENCE takes the bits that are worked out
//! here, and takes them where that op runs.

use crate::check::litmus::Litmus;
use crate::check::machine::Model;

/// Bits of each CPU and of what is shared, with store buffers of this depth.
fn bits(header: &str, columns: [&str; 2], depth: usize) -> (Vec<usize>, usize) {
    let column = |text: &str| text.split("; ").fold(String::new(), |all, op| all + "  " + op + "\n");
    let text = format!(
        "litmus bits\n  verdict \"verified\"\n  page p : vmalloc\n  var x : 3 bits, shared, starts 0\n  var f : 2 bits, per \
         cpu, starts 0\n{header}\ncpu 0\n{}\ncpu 1\n{}",
        column(columns[0]),
        column(columns[1])
    );
    let test = Litmus::new("bits", &text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let model = Model::new(&test.code, test.features, &test.scope, test.assume, depth).unwrap();
    model.layout.bits.clone()
}

#[test]
fn an_op_takes_the_bits_that_it_needs_where_it_runs() {
    // (header, CPU 0, CPU 1 before, CPU 1 after, depth before and after, bits that CPU 1 gains).
    let rows = [
        // One bit says whether the section is open.
        ("", "synchronize", "lfence; lfence", "rcu lock; rcu unlock", (2, 2), 1),
        // How many stores wait, 0 to 2, takes two bits; each is three bits of value, of one kind.
        ("", "lfence", "lfence; lfence", "lfence; x = 1", (2, 2), 2 + 2 * 3),
        // Of two kinds: a bit more for each that waits, and as wide as the wider value.
        ("", "lfence", "lfence; lfence", "f = 1; x = 1", (2, 2), 2 + 2 * (1 + 3)),
        ("", "lfence", "lfence; lfence", "f = 1; f = 2", (2, 2), 2 + 2 * 2),
        // Deeper: 0 to 3 takes two bits as well, 0 to 4 three.
        ("", "lfence", "lfence; x = 1", "lfence; x = 1", (2, 3), 3),
        ("", "lfence", "lfence; x = 1", "lfence; x = 1", (3, 4), 1 + 3),
        // A local that is read later is kept with all bits of what it was loaded from.
        ("", "lfence", "lfence; lfence", "let a = x; x = a", (2, 2), 3 + 2 + 2 * 3),
        ("", "lfence", "lfence; lfence", "let a = f; f = a", (2, 2), 2 + 2 + 2 * 2),
        // LOCKed ops do not wait.
        ("", "lfence", "lfence; lfence", "lfence; xchg x, 1", (2, 2), 0),
        ("  assume \"stores=sc\"\n", "lfence", "lfence; lfence", "lfence; x = 1", (2, 2), 0),
    ];
    let mut wrong = Vec::new();
    for (header, first, before, after, (narrow, wide), gained) in rows {
        let (was, is) = (bits(header, [first, before], narrow), bits(header, [first, after], wide));
        if is.0[1] != was.0[1] + gained || (was.0[0], was.1) != (is.0[0], is.1) {
            wrong.push(format!("{first} beside {before} and {after}: {was:?} {is:?}, not {gained} more"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_cpu_that_does_nothing_takes_a_bit_for_each_of_few_things_and_its_place() {
    // CR3, IF and GSBASE a bit each, whether the page is cached a bit, and two of `f`.
    let always = 3 + 1 + 2;
    // Nowhere, at one of the ops, or behind them.
    for (ops, places) in [(1, 2), (2, 2), (3, 3), (6, 3), (7, 4)] {
        let column = vec!["lfence"; ops].join("; ");
        assert_eq!(bits("", [&column, "lfence"], 2).0, [always + places, always + 2], "{ops}");
    }
}
