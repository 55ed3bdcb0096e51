//! The front of a line of trace text: task, CPU, flags and time, in every layout the kernel and trace-cmd print.

use super::scan::{decimal, spaces, to_space};
use crate::trace::{MAX_CPUS, event::Task};

/// Column (from 0) and what was expected there.
pub type Fault = (usize, &'static str);

/// A time stamp that is a bare number belongs to a clock that does not count time.
pub(super) const NO_CLOCK: &str = "time stamp has no decimal point: this trace clock counts no time";

/// Task, CPU and time.
pub(super) struct Head<'a> {
    /// Who ran there.
    pub task: Task<'a>,
    /// Where.
    pub cpu: u32,
    /// From the flags column.
    pub in_interrupt: Option<bool>,
    /// When.
    pub at_ns: u64,
}

/// Where an event's name stands.
#[derive(Clone, Copy)]
pub(super) struct Name {
    /// First byte.
    pub start: usize,
    /// Behind the last; equal to `start` for a `<stack trace>`.
    pub end: usize,
}

#[inline]
pub(super) fn header(text: &[u8]) -> Result<(Head<'_>, Name), Fault> {
    // Names of up to 15 bytes are right-aligned in 16 columns: the dash is nearly always here.
    if text.get(16) == Some(&b'-')
        && let Ok(found) = header_from(text, 16)
    {
        return Ok(found);
    }
    let mut furthest: Option<Fault> = None;
    for dash in memchr::memchr_iter(b'-', &text[..text.len().min(64)]) {
        match header_from(text, dash) {
            Ok(found) => return Ok(found),
            Err(fault) if furthest.is_none_or(|f| fault.0 > f.0) => furthest = Some(fault),
            Err(_) => {}
        }
    }
    Err(furthest.unwrap_or((0, "expected `task-pid [cpu]`")))
}

/// Task, CPU and time of a line that has no event, and where the rest begins.
pub(super) fn front(text: &[u8]) -> Option<(Head<'_>, usize)> {
    memchr::memchr_iter(b'-', &text[..text.len().min(64)]).find_map(|dash| front_from(text, dash).ok())
}

#[inline]
fn header_from(text: &[u8], dash: usize) -> Result<(Head<'_>, Name), Fault> {
    let (head, at) = front_from(text, dash)?;
    let name = name_from(text, at)?;
    Ok((head, name))
}

#[inline]
fn front_from(text: &[u8], dash: usize) -> Result<(Head<'_>, usize), Fault> {
    let mut first = 0;
    spaces(text, &mut first);
    let comm = text[first.min(dash)..dash].trim_ascii_start();
    if comm.starts_with(b":-") {
        return Err((0, "expected `task-pid [cpu]`")); // perf's name of a task it does not know
    }
    let mut at = dash + 1;
    let pid = decimal(text, &mut at).ok_or((at, "expected a task id"))?;
    let pid = u32::try_from(pid).map_err(|_| (dash + 1, "task id does not fit 32 bits"))?;
    spaces(text, &mut at);
    let mut tgid = None;
    if text.get(at) == Some(&b'(') {
        at += 1;
        spaces(text, &mut at);
        if text.get(at) == Some(&b'-') {
            while text.get(at) == Some(&b'-') {
                at += 1;
            }
        } else {
            let id = decimal(text, &mut at).ok_or((at, "expected a process id"))?;
            tgid = u32::try_from(id).ok();
        }
        if text.get(at) != Some(&b')') {
            return Err((at, "expected `)` behind the process id"));
        }
        at += 1;
        spaces(text, &mut at);
    }
    if text.get(at).is_some_and(u8::is_ascii_digit) {
        return latency(text, dash, at, pid);
    }
    if text.get(at) != Some(&b'[') {
        return Err((at, "expected `[cpu]`"));
    }
    at += 1;
    let cpu = decimal(text, &mut at).ok_or((at, "expected a CPU number"))?;
    if cpu >= u64::from(MAX_CPUS) {
        return Err((at, "CPU number is beyond 8191"));
    }
    if text.get(at) != Some(&b']') {
        return Err((at, "expected `]` behind the CPU number"));
    }
    at += 1;
    spaces(text, &mut at);
    let mut in_interrupt = None;
    if !text.get(at).is_some_and(u8::is_ascii_digit) {
        // irqs-off, need-resched, hardirq/softirq, preempt depth, migrate disable
        in_interrupt = text.get(at + 2).map(|b| matches!(b, b'h' | b'H' | b'z' | b'Z' | b's'));
        at = to_space(text, at).ok_or((at, "expected a time stamp"))?;
        spaces(text, &mut at);
    }
    let at_ns = time(text, &mut at)?;
    let task = Task { comm, pid, tgid };
    Ok((Head { task, cpu: cpu as u32, in_interrupt, at_ns }, at))
}

/// `90.774922:`; moves `*at` behind the colon and spaces.
#[inline]
fn time(text: &[u8], at: &mut usize) -> Result<u64, Fault> {
    let stamp = *at;
    let seconds = decimal(text, at).ok_or((*at, "expected a time stamp"))?;
    if text.get(*at) != Some(&b'.') {
        return Err((stamp, if text.get(*at) == Some(&b':') { NO_CLOCK } else { "expected a time stamp" }));
    }
    let from = *at + 1;
    *at = from;
    let mut fraction = decimal(text, at).ok_or((from, "expected a time stamp"))?;
    fraction *= match *at - from {
        6 => 1000,
        9 => 1,
        digits @ 1..9 => 10u64.pow(9 - digits as u32),
        _ => return Err((from, "time stamp has more than nine decimals")),
    };
    if text.get(*at) != Some(&b':') {
        return Err((*at, "expected `:` behind the time stamp"));
    }
    *at += 1;
    spaces(text, at);
    seconds
        .checked_mul(1_000_000_000)
        .and_then(|s| s.checked_add(fraction))
        .ok_or((stamp, "time stamp does not fit 64 bits of nanoseconds"))
}

/// The latency format (`trace-cmd report -l`, the kernel's latency tracers and its dump at an oops): the CPU stands
/// in front of the flags without brackets, and the time may be microseconds since the beginning: `3d.h1.  123us+:`.
fn latency(text: &[u8], dash: usize, from: usize, pid: u32) -> Result<(Head<'_>, usize), Fault> {
    let mut at = from;
    let cpu = decimal(text, &mut at).ok_or((at, "expected `[cpu]`"))?;
    if cpu >= u64::from(MAX_CPUS) {
        return Err((from, "CPU number is beyond 8191"));
    }
    let flags = at;
    while text.get(at).is_some_and(|b| *b == b'.' || b.is_ascii_alphanumeric()) {
        at += 1;
    }
    if !(4..=8).contains(&(at - flags)) || text.get(flags).is_none_or(u8::is_ascii_digit) {
        return Err((from, "expected `[cpu]`"));
    }
    let in_interrupt = Some(matches!(text[flags + 2], b'h' | b'H' | b'z' | b'Z' | b's'));
    spaces(text, &mut at);
    let stamp = at;
    let value = decimal(text, &mut at).ok_or((at, "expected a time stamp"))?;
    let at_ns = if text.get(at..).is_some_and(|t| t.starts_with(b"us")) {
        at += 2;
        // How long until the next event: a blank or one of `+!#*@$`.
        while text.get(at).is_some_and(|b| b" +!#*@$".contains(b)) {
            at += 1;
        }
        if text.get(at) != Some(&b':') {
            return Err((at, "expected `:` behind the time stamp"));
        }
        at += 1;
        spaces(text, &mut at);
        value.checked_mul(1000).ok_or((stamp, "time stamp does not fit 64 bits of nanoseconds"))?
    } else {
        at = stamp;
        time(text, &mut at)?
    };
    let task = Task { comm: text[..dash].trim_ascii_start(), pid, tgid: None };
    Ok((Head { task, cpu: cpu as u32, in_interrupt, at_ns }, at))
}

/// Where the event's name stands, from behind the time stamp on.
#[inline]
fn name_from(text: &[u8], from: usize) -> Result<Name, Fault> {
    let mut start = from;
    // `trace-cmd report --ts-diff` puts the time since the line before in brackets.
    if text.get(start..).is_some_and(|t| t.starts_with(b"(+"))
        && let Some(close) = memchr::memchr(b')', &text[start..])
    {
        start += close + 1;
        spaces(text, &mut start);
    }
    // `#1034 context irq timer_latency`, and the samples of the hwlat tracer, have no name of an event.
    if text.get(start) == Some(&b'#') {
        return Ok(Name { start, end: start + 1 });
    }
    if text.get(start) == Some(&b'<') && text[start..].starts_with(b"<stack trace>") {
        return Ok(Name { start, end: start });
    }
    let rest = text.get(start..).unwrap_or_default();
    match memchr::memchr(b':', rest) {
        Some(colon) => Ok(Name { start, end: start + colon }),
        // The function tracer: `smp_call_function_single <-text_poke_bp`.
        None => match memchr::memmem::find(rest, b" <-") {
            Some(arrow) if arrow > 0 => Ok(Name { start, end: start + arrow }),
            _ => Err((start, "expected `event:`")),
        },
    }
}

/// When a line says it was recorded.
pub fn stamp(text: &[u8]) -> Option<u64> {
    header(text).ok().map(|(head, _)| head.at_ns)
}
