//! Text that is no trace this program reads, recognised by its shape so that the refusal can say what it looks like and
//! which command prints a form that is read.

use super::scan::decimal;

/// What a text looks like, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Completes "looks like ...".
    pub looks: &'static str,
    /// A command that prints a usable form.
    pub instead: &'static str,
}

/// A trace clock that counts cycles, jiffies or events.
pub static CLOCK: Refusal = Refusal {
    looks: "a recording with a trace clock that counts no time (x86-tsc, counter or uptime: its time stamps have no \
            decimal point)",
    instead: "record with `trace-cmd record -C mono ...`, or `echo mono > /sys/kernel/tracing/trace_clock` first",
};
/// `trace-cmd report -R`.
pub static RAW: Refusal = Refusal {
    looks: "raw fields (`trace-cmd report -R`, or the trace option `fields`)",
    instead: "print it without -R: `trace-cmd report -i trace.dat > trace.txt`",
};
/// `perf script --deltatime`.
pub static DELTA: Refusal = Refusal {
    looks: "`perf script --deltatime` (times step back on many lines: each is the time since the line before)",
    instead: "print it without --deltatime: `perf script -F comm,tid,cpu,time,event,trace > trace.txt`",
};
static PERF_NO_CPU: Refusal = Refusal {
    looks: "perf script without its CPU column",
    instead: "`perf script -F comm,tid,cpu,time,event,trace > trace.txt`; the CPU is in perf.data if it was recorded \
              with `perf record -a` or --sample-cpu",
};
static PERF_NO_TIME: Refusal = Refusal {
    looks: "perf script without its time column",
    instead: "`perf script -F comm,tid,cpu,time,event,trace > trace.txt`",
};
static JSON: Refusal = Refusal {
    looks: "JSON",
    instead: "trace text is read: `trace-cmd report -i trace.dat > trace.txt`, or `perf script > trace.txt`",
};
static INTERRUPTS: Refusal = Refusal {
    looks: "a copy of /proc/interrupts",
    instead: "give two of them: `tlbcore explain --interrupts BEFORE AFTER --isolated CPUS`",
};
static BABELTRACE: Refusal = Refusal {
    looks: "babeltrace's print of an LTTng recording",
    instead: "record with ftrace: `tlbcore record --out trace.txt`, or `trace-cmd record -e irq_vectors -e irq -e sched \
              -e ipi -e csd` and `trace-cmd report > trace.txt`",
};
static BPFTRACE: Refusal = Refusal {
    looks: "output of bpftrace, which has counts and no events",
    instead: "record with ftrace: `tlbcore record --out trace.txt`, or `trace-cmd record -e irq_vectors -e sched` and \
              `trace-cmd report > trace.txt`",
};
static RTLA: Refusal = Refusal {
    looks: "the summary of rtla",
    instead: "save its trace: `rtla osnoise top -t trace.txt` or `rtla timerlat top -T 50 -t trace.txt` (older ones save \
              osnoise_trace.txt and timerlat_trace.txt)",
};
static OSNOISE_TABLE: Refusal = Refusal {
    looks: "the table of the osnoise tracer, which has sums and no events",
    instead: "switch its events on: `trace-cmd record -p osnoise -e osnoise` and `trace-cmd report > trace.txt`",
};
static WEB_PAGE: Refusal =
    Refusal { looks: "a web page", instead: "download the raw file, not the page around it" };
static KERNEL_LOG: Refusal = Refusal {
    looks: "a kernel log without a dump of the trace ring",
    instead: "with ftrace_dump_on_oops=1 the kernel prints the ring at an oops; else `cat /sys/kernel/tracing/trace > \
              trace.txt`",
};
static PERF_STAT: Refusal = Refusal {
    looks: "a report of perf with sums and no events",
    instead: "`perf record -a -e irq_vectors:* -e sched:sched_switch`, then `perf script > trace.txt`",
};

/// What a line that is no event looks like.
pub fn recognise(text: &[u8]) -> Option<&'static Refusal> {
    let inner = text.trim_ascii();
    let has = |what: &[u8]| memchr::memmem::find(inner, what).is_some();
    match inner.first()? {
        b'{' => return Some(&JSON),
        b'[' if inner[1..].trim_ascii_start().first().is_none_or(|b| b"{[\"".contains(b)) => {
            return Some(&JSON);
        }
        b'[' if clock_of_day(&inner[1..]) => return Some(&BABELTRACE),
        b'[' if stamp(inner[1..].trim_ascii_start(), b']') => return Some(&KERNEL_LOG),
        b'<' if inner.len() > 5
            && (inner[1..5].eq_ignore_ascii_case(b"html") || inner.starts_with(b"<!")) =>
        {
            return Some(&WEB_PAGE);
        }
        b'@' if inner.contains(&b':') => return Some(&BPFTRACE),
        _ => {}
    }
    let mut words = inner.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty());
    if words.clone().all(|w| w.starts_with(b"CPU") && w.len() > 3 && w[3..].iter().all(u8::is_ascii_digit)) {
        return Some(&INTERRUPTS);
    }
    if inner.starts_with(b"Attaching ") && has(b" probe") {
        return Some(&BPFTRACE);
    }
    if has(b"Operating System Noise") || has(b"Timer Latency") || inner.starts_with(b"# RTLA") {
        return Some(&RTLA);
    }
    if inner.starts_with(b"Performance counter stats") || inner.starts_with(b"# Overhead") {
        return Some(&PERF_STAT);
    }
    // `osnoise/0-961 [000] .......  81.640102:  1000000  190  99.98100  9  18 0 1007 18 1`
    if let Some(at) = words.clone().position(|w| w.ends_with(b":") && stamp(w, b':'))
        && words.clone().skip(at + 1).count() >= 7
        && words.clone().skip(at + 1).all(|w| w.iter().all(|b| b.is_ascii_digit() || *b == b'.'))
    {
        return Some(&OSNOISE_TABLE);
    }
    // `comm 31625  1446.237623:  csd:csd_function_exit: ...`, and the same without the time.
    let event = |w: &[u8]| w.ends_with(b":") && memchr::memchr_iter(b':', w).count() == 2 && w.len() > 4;
    let mut before = words.next()?;
    let mut ids = false;
    for word in words {
        // perf prints at least six decimals.
        let timed = stamp(word, b':') && word.len() > 8 && has(b": ");
        if ids && (event(word) || timed) {
            return Some(if event(word) { &PERF_NO_TIME } else { &PERF_NO_CPU });
        }
        ids = !word.is_empty()
            && word.iter().all(|b| b.is_ascii_digit() || *b == b'/')
            && !before.ends_with(b":");
        before = word;
    }
    None
}

/// `1446.237623` and then this byte.
fn stamp(text: &[u8], end: u8) -> bool {
    let mut at = 0;
    decimal(text, &mut at).is_some()
        && text.get(at) == Some(&b'.')
        && {
            at += 1;
            decimal(text, &mut at).is_some()
        }
        && text.get(at) == Some(&end)
}

/// `12:34:56.789012345`
fn clock_of_day(text: &[u8]) -> bool {
    text.len() > 8 && text[2] == b':' && text[5] == b':' && text[..2].iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_of_other_tools_are_told_apart_and_prose_is_none_of_them() {
        let cases: &[(&str, &Refusal)] = &[
            ("{\"a\": \"b\"}", &JSON),
            ("[{\"ph\": \"X\"}", &JSON),
            ("            perf 31625  1446.237623:   csd:csd_function_exit: func=x", &PERF_NO_CPU),
            ("  my prog-1 77/78  1446.237623:   csd:csd_function_exit: func=x", &PERF_NO_CPU),
            ("            perf 31625 csd:csd_function_exit: func=x", &PERF_NO_TIME),
            ("           CPU0       CPU1       CPU2", &INTERRUPTS),
            ("[12:34:56.789012345] (+0.000001234) host irq_handler_entry: { cpu_id = 2 }", &BABELTRACE),
            ("[   12.345678] x86/fpu: Supporting XSAVE", &KERNEL_LOG),
            ("Attaching 3 probes...", &BPFTRACE),
            ("@us[2]: 17", &BPFTRACE),
            ("                     Timer Latency", &RTLA),
            (
                "  osnoise/0-961 [000] .......  81.640102:  1000000  190  99.98100  9 18 0 1007 18 1",
                &OSNOISE_TABLE,
            ),
            ("<!DOCTYPE html>", &WEB_PAGE),
        ];
        for (text, want) in cases {
            assert_eq!(recognise(text.as_bytes()).map(|r| r.looks), Some(want.looks), "{text}");
        }
        for prose in ["# README", "This is prose about traces.", "in 2026 4.5: see", "hello world", "a 5 b"] {
            assert_eq!(recognise(prose.as_bytes()), None, "{prose}");
        }
    }
}
