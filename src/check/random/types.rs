//! Random models of pages whose type of memory changes (SEMANTICS H11): the texts of the others, with types for some of
//! their entries, and lines dropped here and there.

use std::fmt::Write;

use super::Rng;

/// The same text with types. Page tables and data are not followed beside them, so leaves are changed instead.
pub(super) fn typed(seed: u64, text: &str) -> String {
    let mut rng = Rng::new(seed ^ 0x0c1f_0000_0000);
    let (mut out, mut programs) = (String::new(), false);
    for line in text.lines() {
        programs |= line.is_empty();
        let words: Vec<&str> = line.split_whitespace().collect();
        let indent = &line[..line.len() - line.trim_start().len()];
        if line.starts_with("  frames ") {
            continue;
        }
        if programs && indent == "  " && words[0] != "else" && rng.one_in(9) {
            let more =
                ["clflush a", "clflush a", "wbinvd", "pte a = uncached", "pte a = cached locked", "fence"];
            let _ = writeln!(out, "  {}", rng.pick(&more));
        }
        let line = match words.as_slice() {
            [level @ ("pte" | "table"), page, "=", v, locked @ ..] => {
                let like_before = *level == "pte" && rng.one_in(3);
                let v =
                    if like_before { v } else { rng.pick(&["uncached", "uncached", "uncached", "cached"]) };
                format!("{indent}pte {page} = {v} {}", locked.concat())
            }
            ["free", "table", page] => format!("{indent}clflush {page}"),
            ["promise", page] => {
                let lines = match rng.below(8) {
                    0..=3 => format!("clflush {page}"),
                    4 => "wbinvd".into(),
                    5 => format!("pte {page} = uncached locked\n{indent}clflush {page}"),
                    _ => "fence".into(),
                };
                format!("{indent}{lines}\n{line}")
            }
            _ => line.into(),
        };
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

/// The text of a random way to make a page uncached on one CPU or two, with other CPUs that are told, or not.
pub(super) fn changing(seed: u64) -> String {
    let mut rng = Rng::new(seed ^ 0x0c20_0000_0000);
    let region = rng.pick(&["vmalloc", "direct map", "direct map", "vmalloc, global"]);
    let mut out = format!("litmus t{seed}\n  verdict \"verified\"\n  page a : {region}\n");
    let assume =
        ["", "  assume \"stores=sc\"\n", "  assume \"fills=demand\"\n", "  assume \"invpcid=publishes\"\n"];
    out.push_str(rng.pick(&assume));
    let cpus = 2 + rng.below(8) / 7;
    for cpu in 0..cpus {
        let _ = write!(out, "\ncpu {cpu}\n");
        if cpu > 0 && !rng.one_in(3) {
            let line = rng.pick(&[
                "touch kernel",
                "read a",
                "wbinvd",
                "invlpg a",
                "cli\n  read a\n  sti",
                "mov cr3, user noflush\n  mov cr3, kernel",
                "clflush a",
            ]);
            let _ = writeln!(out, "  {line}");
            continue;
        }
        let locked = rng.pick(&["", " locked", " locked"]);
        let first = rng.pick(&["uncached", "uncached", "none", "less-rights"]);
        let _ = writeln!(out, "  pte a = {first}{locked}\n  request a");
        for _ in 0..=rng.below(4) {
            let line = rng.pick(&[
                "invlpg a",
                "ipi others, handler\n  await acks",
                "ipi others, handler\n  invlpg a\n  await acks",
                "ipi others, handler\n  invlpg a\n  await acks\n  clflush a",
                "clflush a",
                "clflush a\n  fence",
                "wbinvd",
                "pte a = uncached locked",
                "pte a = cached",
                "fence",
                "invlpgb a\n  tlbsync\n  clflush a",
                "rar others",
            ]);
            let _ = writeln!(out, "  {line}");
        }
        out.push_str("  promise a\n");
        if rng.one_in(4) {
            let _ = writeln!(
                out,
                "  {}",
                rng.pick(&["pte a = cached", "pte a = fresh", "read a", "pte a = initial"])
            );
        }
    }
    let handler =
        ["invlpg a", "invlpg a", "invlpg a\n  wbinvd", "wbinvd", "invpcid all", "clflush a\n  invlpg a"];
    let _ = write!(out, "\nhandler\n  {}\n", rng.pick(&handler));
    out
}
