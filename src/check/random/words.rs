//! Random models of words that have a rule of their own: large pages (SEMANTICS H9), tasks that migrate (L11).

use std::fmt::Write;

use super::Rng;

/// The text of a random way to split and collapse a large entry, flush it and use what it maps.
pub(super) fn large(seed: u64) -> String {
    let mut rng = Rng::new(seed ^ 0x1a_26e0_0000);
    let region = rng.pick(&["vmalloc", "vmalloc", "direct map"]);
    let global = rng.pick(&["", "", ", global"]);
    let absent = [rng.pick(&["", "", ", absent"]), rng.pick(&["", "", ", absent"])];
    let mut out = format!(
        "litmus l{seed}\n  verdict \"verified\"\n  page large : {region}{global}{}\n  page small : {region}{global}{}, in large\n",
        absent[0], absent[1]
    );
    out.push_str(rng.pick(&["", "", "  assume \"stores=sc\"\n", "  assume \"invpcid=publishes\"\n"]));
    for cpu in 0..2 {
        let _ = write!(out, "\ncpu {cpu}\n");
        for _ in 0..=rng.below(if cpu == 0 { 4 } else { 2 }) {
            let (p, q) = (rng.pick(&["large", "small", "small"]), rng.pick(&["large", "small", "small"]));
            let locked = rng.pick(&["", " locked"]);
            let line = match rng.below(15) {
                0..=2 => {
                    format!(
                        "pte {p} = {}{locked}",
                        rng.pick(&["none", "none", "fresh", "less-rights", "initial"])
                    )
                }
                3 => format!("invlpg {p}"),
                4 => format!("invpcid address kernel {p}"),
                5 => format!("invlpgb {p}\n  tlbsync"),
                6 => rng.pick(&["mov cr3, kernel", "invpcid all-including-global", "fence"]).into(),
                7 | 8 => format!("request {p}\n  invlpg {q}\n  promise {p}"),
                9 => format!("request {p}\n  ipi others, handler\n  invlpg {q}\n  await acks\n  promise {p}"),
                10 => "touch kernel".into(),
                _ => {
                    let flush = rng.pick(&["fence", "invlpg large", "invlpg small"]);
                    format!(
                        "pte {p} = none locked\n  request {p}\n  {flush}\n  promise {p}\n  pte {q} = fresh locked"
                    )
                }
            };
            let _ = writeln!(out, "  {line}");
        }
    }
    let _ = write!(out, "\nhandler\n  invlpg {}\n", rng.pick(&["large", "small", "small"]));
    out
}

/// The text of a random column or three whose tasks go on on other CPUs.
pub(super) fn migrating(seed: u64) -> String {
    let mut rng = Rng::new(seed ^ 0x3164_0000_0000);
    let mut out = format!(
        "litmus g{seed}\n  verdict \"verified\"\n  page a : vmalloc\n  var v : 1 bit, per cpu, starts 0\n  var x : 1 bit, shared, \
         starts 0\n"
    );
    out.push_str(rng.pick(&["", "  never \"x == 1\"\n"]));
    for cpu in 0..2 + rng.below(4) / 3 {
        let _ = write!(out, "\ncpu {cpu}\n");
        for _ in 0..=rng.below(if cpu == 0 { 5 } else { 2 }) {
            let line = rng.pick(&[
                "migrate",
                "migrate",
                "if either\n    migrate",
                "v = 1",
                "v = 0",
                "x = 1",
                "fence",
                "xchg v, 1",
                "invlpg a",
                "let r = v\n  x = r",
                "ipi others, handler\n  await acks",
                "ipi others, handler",
                "pte a = none locked",
                "pte a = fresh locked",
                "request a\n  invlpg a\n  ipi others, handler\n  migrate\n  await acks\n  promise a",
                "request a\n  invlpg a\n  ipi others, handler\n  migrate\n  if v\n    await acks\n  promise a",
                "cli\n  migrate\n  sti",
            ]);
            let _ = writeln!(out, "  {line}");
        }
    }
    let handler = rng.pick(&["invlpg a", "invlpg a\n  v = 0", "v = 1\n  invlpg a", "lfence"]);
    let _ = write!(out, "\nhandler\n  {handler}\n");
    out
}
