//! Random models of words that have a rule of their own: large pages (SEMANTICS H9), tasks that migrate (L11), patched
//! instructions that decide branches (H10).

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

/// The text of a random way to patch instructions that decide branches (SEMANTICS H10): some stores and syncs in some order,
/// and CPUs that run them with what stack, CR3 and GSBASE they have there.
pub(super) fn sited(seed: u64) -> String {
    let mut rng = Rng::new(seed ^ 0x517e_0000_0000);
    let pti = rng.one_in(2);
    let sites: &[&str] = match rng.below(6) {
        0..=2 => &[""],
        3 => &["s "],
        4 => &["s ", "t "],
        _ => &["", "s "],
    };
    let mut out = format!(
        "litmus i{seed}\n  verdict \"verified\"\n  based on ipi\n  var f : 1 bit, per cpu, starts 1, user mapped\n"
    );
    for name in sites.iter().filter(|s| !s.is_empty()) {
        let _ = writeln!(out, "  site {}", name.trim_end());
    }
    let features = if pti {
        "pti pcid invpcid"
    } else {
        rng.pick(&["pcid invpcid", "pcid invpcid", "pcid invpcid fred"])
    };
    let _ = writeln!(out, "  features \"{features}\"");
    let mut assume = vec![rng.pick(&["T=instr", "T=instr", "T=danger", "T=noinstr"])];
    for (one_in, flag) in [
        (3, "gs=faults"),
        (4, "interrupts=keep"),
        (10, "stores=sc"),
        (12, "fills=demand"),
        (3, "invpcid=publishes"),
    ] {
        if rng.one_in(one_in) {
            assume.push(flag);
        }
    }
    let nmis = usize::from(rng.one_in(10)) * (1 + usize::from(rng.one_in(3)));
    let mces = usize::from(rng.one_in(24));
    let _ = writeln!(out, "  assume \"{}\"\n  nmis \"{nmis}\"\n  mces \"{mces}\"", assume.join(" "));
    let cpus = rng.pick(&[
        "purge; vunmap",
        "purge; vunmap",
        "purge; vunmap",
        "purge; isolated vunmap",
        "purge; isolated 1 by syscall",
        "purge; isolated 1 by syscall",
        "purge; isolated 1 by exception",
        "purge; isolated 1 by interrupt",
    ]);
    let _ = write!(out, "  cpus \"{cpus}\"\n\npurge\n");
    let site = |rng: &mut Rng| rng.pick(sites);
    let stores = [("head", "int3"), ("tail", "new"), ("head", "new")];
    let left_out = rng.below(5);
    for (i, (part, v)) in stores.into_iter().enumerate() {
        if i == left_out || rng.one_in(2) {
            continue;
        }
        let s = site(&mut rng);
        let barrier = rng.pick(&["serialize", "serialize", "fence", "lfence"]);
        let sync = rng.pick(&[
            "ipi others, handler\n  await acks",
            "ipi others, handler\n  await acks",
            "each cpu in others\n    if f[cpu]\n      put cpu into targets\n  ipi targets, handler\n  await acks",
            "lfence",
        ]);
        let _ = writeln!(out, "  text {s}{part} = {v}\n  {barrier}");
        if rng.one_in(2) {
            let _ = writeln!(out, "  request text {s}{part}\n  {sync}\n  promise text {s}{part}");
        } else {
            let _ = writeln!(out, "  {sync}");
        }
    }
    out.push_str("  lfence\n");
    let line = |rng: &mut Rng| -> String {
        let s = site(rng);
        match rng.below(16) {
            0..=2 => format!("if text {s}is new\n    f = 1\n  else\n    f = 0"),
            3 => format!("if not text {s}is new\n    {}", rng.pick(&["serialize", "lfence", "xchg f, 1"])),
            4 => format!("if text {s}is new and f\n    fence"),
            5 => format!("rsp scratch\n  if text {s}is new\n    lfence\n  rsp stack"),
            6 => rng.pick(&["rsp scratch", "rsp stack", "rsp stack"]).into(),
            7 => rng.pick(&["run text", "touch kernel", "touch danger", "touch entry"]).into(),
            8 => rng.pick(&["serialize", "fence", "lfence"]).into(),
            9 => rng.pick(&["f = 1", "f = 0", "xchg f, 1"]).into(),
            10 => "swapgs".into(),
            11 if pti => rng.pick(&["mov cr3, user noflush", "mov cr3, kernel noflush"]).into(),
            11 | 12 => rng.pick(&["cli", "sti"]).into(),
            13 => format!("text {s}{}", rng.pick(&["tail = new", "head = int3", "head = new"])),
            14 => format!("if either\n    if text {s}is new\n      lfence\n  else\n    serialize"),
            _ => "touch percpu".into(),
        }
    };
    let some = |rng: &mut Rng, most: usize| -> String {
        (0..=rng.below(most)).fold(String::new(), |all, _| all + "  " + &line(rng) + "\n")
    };
    let _ = write!(out, "\nvunmap\n{}\nhandler\n", some(&mut rng, 2));
    out.push_str(rng.pick(&[
        "  serialize\n",
        "  serialize\n",
        "  lfence\n",
        "  touch percpu\n  serialize\n",
    ]));
    let (to_kernel, to_user) =
        if pti { ("mov cr3, kernel noflush", "mov cr3, user noflush") } else { ("lfence", "lfence") };
    let gs = if features.contains("fred") || rng.one_in(3) { "lfence" } else { "swapgs" };
    let enter = [
        format!("  {gs}\n  {to_kernel}\n  rsp stack\n"),
        format!("  {gs}\n  {to_kernel}\n"),
        format!("  {to_kernel}\n  rsp stack\n  {gs}\n"),
    ];
    let enter = &enter[rng.below(enter.len())];
    let before = if rng.one_in(6) { some(&mut rng, 1) } else { String::new() };
    let leave = format!("  {to_user}\n{}  {gs}\n", rng.pick(&["", "  rsp scratch\n"]));
    let _ = write!(out, "\nenter_user\n  f = 0\n{leave}");
    for name in ["syscall", "exception"] {
        let body = some(&mut rng, 1);
        let _ = write!(out, "\n{name}\n{before}{enter}  f = 1\n{body}  f = 0\n{leave}");
    }
    let _ = write!(out, "\ninterrupt\n{before}{enter}  handle calls\n{leave}");
    let after = if rng.one_in(8) { some(&mut rng, 1) } else { String::new() };
    let _ = write!(out, "\ninterrupt_kernel\n  handle calls\n{after}");
    match rng.below(4) {
        0 => {}
        1 => out.push_str("\nbreakpoint\n  touch stack\n"),
        2 => {
            let line = rng.pick(&["f = 1", "serialize", "touch nmi", "fence", "let c = cr3\n  f = c"]);
            let _ = write!(out, "\nbreakpoint\n  touch stack\n  touch percpu\n  {line}\n");
        }
        _ => {
            let _ = write!(out, "\nbreakpoint\n{}", some(&mut rng, 1));
        }
    }
    if nmis + mces > 0 {
        let body = some(&mut rng, 1);
        let _ = write!(out, "\nnmi_user\n  {gs}\n  {to_kernel}\n{body}  {to_user}\n  {gs}\n");
        let _ = write!(out, "\nnmi\n  let saved = cr3\n  if saved is user\n    mov cr3, kernel noflush\n");
        let _ = write!(out, "{body}  if saved is user\n    mov cr3, saved noflush\n");
    }
    out
}
