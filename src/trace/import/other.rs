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
    /// Its lines are nearly events: some that are read prove nothing.
    pub of_events: bool,
}

/// A trace clock that counts cycles, jiffies or events.
pub static CLOCK: Refusal = Refusal {
    looks: "a recording with a trace clock that counts no time (x86-tsc, counter or uptime: its time stamps have no \
            decimal point)",
    instead: "record with `trace-cmd record -C mono ...`, or `echo mono > /sys/kernel/tracing/trace_clock` first",
    of_events: true,
};
/// `trace-cmd report -R`.
pub static RAW: Refusal = Refusal {
    looks: "raw fields (`trace-cmd report -R`, or the trace option `fields`)",
    instead: "print it without -R: `trace-cmd report -i trace.dat > trace.txt`",
    of_events: true,
};
/// `perf script --deltatime`.
pub static DELTA: Refusal = Refusal {
    looks: "`perf script --deltatime` (times step back on many lines: each is the time since the line before)",
    instead: "print it without --deltatime: `perf script -F comm,tid,cpu,time,event,trace > trace.txt`",
    of_events: true,
};
static PERF_NO_CPU: Refusal = Refusal {
    looks: "perf script without its CPU column",
    instead: "`perf script -F comm,tid,cpu,time,event,trace > trace.txt`; the CPU is in perf.data if it was recorded \
              with `perf record -a` or --sample-cpu",
    of_events: true,
};
static PERF_NO_TIME: Refusal = Refusal {
    looks: "perf script without its time column",
    instead: "`perf script -F comm,tid,cpu,time,event,trace > trace.txt`",
    of_events: true,
};
static JSON: Refusal = Refusal {
    looks: "JSON",
    instead: "trace text is read: `trace-cmd report -i trace.dat > trace.txt`, or `perf script > trace.txt`",
    of_events: false,
};
static INTERRUPTS: Refusal = Refusal {
    looks: "a copy of /proc/interrupts",
    instead: "give two of them: `tlbcore explain --interrupts BEFORE AFTER --isolated CPUS`",
    of_events: false,
};
static BABELTRACE: Refusal = Refusal {
    looks: "babeltrace's print of an LTTng recording with options that leave out times or CPUs, or spell names out",
    instead: "print it as it is without options: `babeltrace2 DIR > trace.txt`",
    of_events: false,
};
static BPFTRACE: Refusal = Refusal {
    looks: "output of bpftrace, which has counts and no events",
    instead: "record with ftrace: `tlbcore record --out trace.txt`, or `trace-cmd record -e irq_vectors -e sched` and \
              `trace-cmd report > trace.txt`",
    of_events: false,
};
/// rtla without a table.
pub static RTLA: Refusal = Refusal {
    looks: "rtla's analysis of one wakeup, without its table",
    instead: "save its trace: `rtla timerlat top -a 50 -t trace.txt` (older ones save timerlat_trace.txt), or let it print \
              its table: `rtla timerlat top -q -d 60 > table.txt`",
    of_events: false,
};
/// `rtla osnoise hist`.
pub static NOISE_HISTOGRAM: Refusal = Refusal {
    looks: "rtla's histogram of noise, which tells neither how long was measured nor what took the time",
    instead: "print sums with `rtla osnoise top -q -d 60 > table.txt`, or save the trace: `rtla osnoise top -a 20 -t \
              trace.txt`",
    of_events: false,
};
static FUNCCOUNT: Refusal = Refusal {
    looks: "counts of functions (funccount, trace-cmd's profile), without CPUs and times",
    instead: "record the events of these functions: `trace-cmd record -p function -l 'smp_call_function*' -e irq_vectors` \
              and `trace-cmd report > trace.txt`, or perf-tools' `functrace -d 10 'smp_call_function*' > trace.txt`",
    of_events: false,
};
static HISTOGRAM: Refusal = Refusal {
    looks: "a histogram or a table of a BPF tool (hardirqs, softirqs, cpudist, runqlat), summed over all CPUs",
    instead: "record events: `tlbcore record --out trace.txt`, or `trace-cmd record -e irq_vectors -e irq -e sched` and \
              `trace-cmd report > trace.txt`",
    of_events: false,
};
static PERF_TRACE: Refusal = Refusal {
    looks: "perf trace, which prints no CPU",
    instead: "`perf record -a -e irq_vectors:* -e sched:sched_switch`, then `perf script > trace.txt`",
    of_events: false,
};
static TIMEHIST: Refusal = Refusal {
    looks: "perf sched timehist, latency or map, which leave out who was kept waiting on which CPU",
    instead: "print the events of the same perf.data: `perf sched script > trace.txt`",
    of_events: false,
};
static CYCLICTEST: Refusal = Refusal {
    looks: "cyclictest or another measurement of wakeups, which names no cause",
    instead: "record what happens meanwhile: `tlbcore record --out trace.txt -- cyclictest ...`",
    of_events: false,
};
static WEB_PAGE: Refusal = Refusal {
    looks: "a web page",
    instead: "download the raw file, not the page around it",
    of_events: false,
};
/// A kernel log in which nothing is of the ring.
pub static KERNEL_LOG: Refusal = Refusal {
    looks: "a kernel log without a dump of the trace ring",
    instead: "with ftrace_dump_on_oops=1 the kernel prints the ring at an oops; else `cat /sys/kernel/tracing/trace > \
              trace.txt`",
    of_events: false,
};
/// Counts of all CPUs together, or of samples.
pub static PERF_STAT: Refusal = Refusal {
    looks: "a report of perf that adds up CPUs or samples",
    instead: "per CPU: `perf stat -a -A -e 'irq_vectors:*_entry' sleep 60 2> counts.txt`; or events: `perf record -a -e \
              irq_vectors:* -e sched:sched_switch`, then `perf script > trace.txt`",
    of_events: false,
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
        b'[' if clock_of_day(&inner[1..]) || has(b"{ cpu_id = ") => return Some(&BABELTRACE),
        b'[' if stamp(inner[1..].trim_ascii_start(), b']') => return Some(&KERNEL_LOG),
        b'<' if inner.len() > 5
            && (inner[1..5].eq_ignore_ascii_case(b"html") || inner.starts_with(b"<!")) =>
        {
            return Some(&WEB_PAGE);
        }
        b'@' if inner.contains(&b':') => return Some(&BPFTRACE),
        _ if has(b"{ cpu_id = ") => return Some(&BABELTRACE),
        _ => {}
    }
    let mut words = inner.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty());
    if words.clone().all(|w| w.starts_with(b"CPU") && w.len() > 3 && w[3..].iter().all(u8::is_ascii_digit)) {
        return Some(&INTERRUPTS);
    }
    if let Some(table) = headline(inner) {
        return Some(table);
    }
    // `4.000 ( 0.002 ms): app/812 munmap(addr: 0x7f, len: 4096) = 0`
    if let Some(bracket) = memchr::memchr(b'(', inner)
        && fraction(inner[..bracket].trim_ascii_end())
        && memchr::memmem::find(&inner[bracket..], b"): ").is_some_and(|end| end < 20)
    {
        return Some(&PERF_TRACE);
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

/// What the first line of a table says it is.
fn headline(inner: &[u8]) -> Option<&'static Refusal> {
    let starts = |these: &[&str]| these.iter().any(|t| inner.starts_with(t.as_bytes()));
    let has = |what: &[u8]| memchr::memmem::find(inner, what).is_some();
    let of_analysis =
        starts(&["IRQ handler delay:", "IRQ latency:", "Timerlat IRQ duration:", "Blocking thread"]);
    Some(if starts(&["Attaching ", "Attached "]) && has(b" probe") {
        &BPFTRACE
    } else if starts(&["rtla timerlat hit stop", "## CPU "]) && has(b"hit stop tracing") || of_analysis {
        &RTLA
    } else if starts(&["Performance counter stats", "# Overhead"]) {
        &PERF_STAT
    } else if starts(&["FUNC ", "Functions matched"]) || has(b" functions for ") || inner == b"FUNC" {
        &FUNCCOUNT
    } else if starts(&[
        "HARDIRQ ",
        "SOFTIRQ ",
        "Tracing hard irq",
        "Tracing soft irq",
        "Tracing on-CPU",
        "Tracing run",
    ]) || has(b": count ") && inner.ends_with(b"distribution")
    {
        &HISTOGRAM
    } else if starts(&["time    cpu  task name", "Task                  |", "*A0"]) {
        &TIMEHIST
    } else if starts(&["# /dev/cpu_dma_latency", "T: ", "# Histogram", "oslat ", "Version: oslat"])
        && !has(b"[")
    {
        &CYCLICTEST
    } else {
        return None;
    })
}

/// `4.000` and nothing else.
fn fraction(text: &[u8]) -> bool {
    memchr::memchr(b'.', text).is_some_and(|dot| dot > 0 && dot + 1 < text.len())
        && text.iter().all(|b| b.is_ascii_digit() || *b == b'.')
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
            ("## CPU 7 hit stop tracing, analyzing it ##", &RTLA),
            ("[1600000000.123456789] (+?.?????????) node7 sched_switch: { cpu_id = 2 }", &BABELTRACE),
            (
                "timestamp = 10:32:12.1, name = irq_handler_entry, stream.packet.context = { cpu_id = 2 }",
                &BABELTRACE,
            ),
            ("     5.000 ( 0.002 ms): app/812 munmap(addr: 0x7f, len: 4096) = 0", &PERF_TRACE),
            ("Tracing 4 functions for \"b'smp_call_function*'\"... Hit Ctrl-C to end.", &FUNCCOUNT),
            ("FUNC                              COUNT", &FUNCCOUNT),
            ("HARDIRQ                    TOTAL_usecs", &HISTOGRAM),
            ("     usecs               : count     distribution", &HISTOGRAM),
            ("           time    cpu  task name                       wait time  sch delay", &TIMEHIST),
            ("T: 0 (  812) P:95 I:1000 C:  10000 Min:      2 Act:    3 Avg:    3 Max:      14", &CYCLICTEST),
            ("<!DOCTYPE html>", &WEB_PAGE),
        ];
        for (text, want) in cases {
            assert_eq!(recognise(text.as_bytes()).map(|r| r.looks), Some(want.looks), "{text}");
        }
        for prose in ["# README", "This is prose about traces.", "in 2026 4.5: see", "hello world", "a 5 b"] {
            assert_eq!(recognise(prose.as_bytes()), None, "{prose}");
        }
    }

    #[test]
    fn a_list_is_json_by_what_it_begins_with() {
        let is_json = |text: &str| recognise(text.as_bytes()).is_some_and(|found| found.looks == JSON.looks);

        for text in ["{", "[", " [ ", "[{\"a\": 1}]", "[ \"a\", 1]", "[\"a\"]", "[[1]]", "[\t[]]"] {
            assert!(is_json(text), "{text}");
        }
        for text in ["[1, 2]", "[a{", "[ 12.3] x", "a [", ""] {
            assert!(!is_json(text), "{text}");
        }
    }
}
