//! The kernel's own trace text (`cat trace`, `cat trace_pipe`) and `trace-cmd report`, which is nearly the same.
//!
//! `            init-1       [000] .....   443.518717: tracing_mark_write: GT_BEGIN w1`. The task column is 16 wide and
//! may hold spaces, `-`, `[`, `/` and `:`; with `record-tgid` a column is added; trace-cmd leaves the flags out and
//! pads event names; stack traces follow their event on lines of their own, sometimes after other CPUs' events.

use super::{
    Sink,
    scan::{Fields, decimal, hex, number, plain_function, spaces, symbol},
};
use crate::trace::{
    MAX_CPUS,
    event::{Csd, Event, Hole, HoleKind, Task, Vector, What},
};

/// Column (from 0) and what was expected there.
pub type Fault = (usize, &'static str);

const MAX_STACK: usize = 16 << 10;

/// The importer: only a stack trace needs memory from one line to the next.
#[derive(Default)]
pub struct Ftrace {
    stack: Option<StackHead>,
    frames: Vec<u8>,
    /// CPUs of the machine, from `#P:4` or `cpus=4`.
    pub cpus: Option<u32>,
}

struct StackHead {
    at_ns: u64,
    cpu: u32,
    pid: u32,
    comm: Vec<u8>,
    line: u64,
}

impl Ftrace {
    /// Reads one line and delivers what it says.
    #[inline]
    pub fn line(&mut self, text: &[u8], number: u64, to: &mut impl Sink) -> Result<(), Fault> {
        if self.stack.is_some() {
            // trace-cmd leaves out the first space and adds the address in brackets.
            if let Some(frame) = text.strip_prefix(b" ").unwrap_or(text).strip_prefix(b"=> ") {
                if self.frames.len() < MAX_STACK {
                    let frame = frame.trim_ascii();
                    let name = &frame[..memchr::memchr(b' ', frame).unwrap_or(frame.len())];
                    self.frames.extend_from_slice(symbol(name));
                    self.frames.push(b'\n');
                }
                return Ok(());
            }
            self.finish(to);
        }
        match text.first() {
            None => return Ok(()),
            Some(b'#') => {
                self.cpus = count(text, b"#P:").or(self.cpus);
                if let Some(note) = text.strip_prefix(b"# tlbcore ")
                    && let Some(bar) = memchr::memmem::find(note, b" | ")
                {
                    to.note(&note[..bar], &note[bar + 3..]);
                }
                if let Some(hole) = comment(text, number) {
                    to.hole(&hole);
                }
                return Ok(());
            }
            Some(_) => {}
        }
        let (head, name) = match header(text) {
            Ok(found) => found,
            Err(fault) => {
                if text.starts_with(b"cpus=") {
                    self.cpus = count(text, b"cpus=");
                }
                return aside(text, number, to).ok_or(fault);
            }
        };
        if name.start == name.end || text[name.start..name.end] == *b"kernel_stack" {
            // `<stack trace>` stands in place of `event: body`, or behind trace-cmd's `kernel_stack:`.
            self.stack = Some(StackHead {
                at_ns: head.at_ns,
                cpu: head.cpu,
                pid: head.task.pid,
                comm: head.task.comm.to_vec(),
                line: number,
            });
            self.frames.clear();
            return Ok(());
        }
        let what = what(text, name)?;
        to.event(&Event {
            at_ns: head.at_ns,
            cpu: head.cpu,
            task: head.task,
            in_interrupt: head.in_interrupt,
            line: number,
            what,
        });
        Ok(())
    }

    /// Delivers a stack trace that the end of the text or another line has closed.
    pub fn finish(&mut self, to: &mut impl Sink) {
        if let Some(head) = self.stack.take() {
            to.event(&Event {
                at_ns: head.at_ns,
                cpu: head.cpu,
                task: Task { comm: &head.comm, pid: head.pid, tgid: None },
                in_interrupt: None,
                line: head.line,
                what: What::Stack { frames: &self.frames },
            });
        }
    }
}

struct Head<'a> {
    task: Task<'a>,
    cpu: u32,
    in_interrupt: Option<bool>,
    at_ns: u64,
}

/// Where an event's name stands.
#[derive(Clone, Copy)]
struct Name {
    start: usize,
    end: usize,
}

#[inline]
fn header(text: &[u8]) -> Result<(Head<'_>, Name), Fault> {
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

#[inline]
fn header_from(text: &[u8], dash: usize) -> Result<(Head<'_>, Name), Fault> {
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
        let len = memchr::memchr(b' ', &text[at.min(text.len())..]).ok_or((at, "expected a time stamp"))?;
        at += len;
        spaces(text, &mut at);
    }
    let stamp = at;
    let seconds = decimal(text, &mut at).ok_or((at, "expected a time stamp"))?;
    let mut fraction = 0;
    if text.get(at) == Some(&b'.') {
        let from = at + 1;
        at = from;
        fraction = decimal(text, &mut at).ok_or((at, "expected a time stamp"))?;
        fraction *= match at - from {
            6 => 1000,
            9 => 1,
            digits @ 1..9 => 10u64.pow(9 - digits as u32),
            _ => return Err((from, "time stamp has more than nine decimals")),
        };
    }
    let at_ns = seconds
        .checked_mul(1_000_000_000)
        .and_then(|s| s.checked_add(fraction))
        .ok_or((stamp, "time stamp does not fit 64 bits of nanoseconds"))?;
    if text.get(at) != Some(&b':') {
        return Err((at, "expected `:` behind the time stamp"));
    }
    at += 1;
    spaces(text, &mut at);
    let start = at;
    let end = if text.get(start) == Some(&b'<') && text[start..].starts_with(b"<stack trace>") {
        start
    } else {
        let colon = memchr::memchr(b':', &text[start.min(text.len())..]);
        start + colon.ok_or((start, "expected `event:`"))?
    };
    let comm = text[..dash].trim_ascii_start();
    let task = Task { comm, pid, tgid };
    Ok((Head { task, cpu: cpu as u32, in_interrupt, at_ns }, Name { start, end }))
}

/// When a line says it was recorded.
pub fn stamp(text: &[u8]) -> Option<u64> {
    header(text).ok().map(|(head, _)| head.at_ns)
}

/// What the event says. The body begins behind the name and its padding.
#[inline]
fn what(text: &[u8], name: Name) -> Result<What<'_>, Fault> {
    let mut from = name.end + 1;
    spaces(text, &mut from);
    let body = text.get(from..).unwrap_or_default();
    body_of(&text[name.start..name.end], body).map_err(|why| (from, why))
}

/// Interprets one event by its name; shared with importers whose lines differ only in front of it.
#[inline]
pub fn body_of<'a>(name: &'a [u8], body: &'a [u8]) -> Result<What<'a>, &'static str> {
    let mut f = Fields(body);
    Ok(match name {
        b"user_enter" => What::UserEnter,
        b"user_exit" => What::UserExit,
        b"sys_enter" => What::SyscallEntry,
        b"sys_exit" => What::SyscallExit,
        b"csd_queue_cpu" => What::CsdQueue {
            cpu: cpu(f.get(b"cpu="))?,
            callsite: symbol(f.get(b"callsite=").unwrap_or_default()),
            func: plain_function(symbol(f.get(b"func=").ok_or("csd_queue_cpu without func=")?)),
            csd: f.get(b"csd=").and_then(hex).unwrap_or(0),
        },
        b"csd_function_entry" => What::CsdEntry {
            func: plain_function(symbol(f.get(b"func=").ok_or("csd_function_entry without func=")?)),
            csd: match f.get(b"csd=").and_then(hex).ok_or("csd_function_entry without csd=")? {
                0 => Csd::Local,
                csd => Csd::Queued(csd),
            },
        },
        b"csd_function_exit" => What::CsdExit,
        b"ipi_send_cpu" => What::IpiSend {
            cpu: cpu(f.get(b"cpu="))?,
            callsite: symbol(f.get(b"callsite=").unwrap_or_default()),
            callback: callback(f.get(b"callback=")),
        },
        b"ipi_send_cpumask" => What::IpiSendMask {
            mask: f.get(b"cpumask=").ok_or("ipi_send_cpumask without cpumask=")?,
            callsite: symbol(f.get(b"callsite=").unwrap_or_default()),
            callback: callback(f.get(b"callback=")),
        },
        b"alloc_vmap_area" if !body.starts_with(b"(") => What::AllocArea {
            start: f.get(b"va_start:").and_then(number).ok_or("alloc_vmap_area without va_start:")?,
            size: f.get(b"size=").and_then(number).ok_or("alloc_vmap_area without size=")?,
            align: f.get(b"align=").and_then(number).unwrap_or(1),
            ok: !body.ends_with(b"failed=1"),
        },
        b"free_vmap_area_noflush" if !body.starts_with(b"(") => What::FreeArea {
            start: f.get(b"va_start=").and_then(hex).ok_or("free_vmap_area_noflush without va_start=")?,
            nr_lazy: f.get(b"nr_lazy=").and_then(number).ok_or("free_vmap_area_noflush without nr_lazy=")?,
            nr_lazy_max: f.get(b"nr_lazy_max=").and_then(number).unwrap_or(0),
        },
        b"purge_vmap_area_lazy" if !body.starts_with(b"(") => What::Purge {
            start: f.get(b"start=").and_then(hex).ok_or("purge_vmap_area_lazy without start=")?,
            end: f.get(b"end=").and_then(hex).ok_or("purge_vmap_area_lazy without end=")?,
            areas: f
                .get(b"num_purged=")
                .and_then(number)
                .ok_or("purge_vmap_area_lazy without num_purged=")?,
        },
        b"sched_process_fork" => {
            let (rest, pid) =
                split_last(body, b" child_pid=").ok_or("sched_process_fork without child_pid=")?;
            let (_, child_comm) = split_last(rest, b" child_comm=").unwrap_or((rest, b""));
            What::Fork { child_comm, child_pid: pid_of(pid).ok_or("child_pid is not a task id")? }
        }
        b"cgroup_attach_task" | b"cgroup_transfer_tasks" => {
            // `dst_root=0 dst_id=1 dst_level=2 dst_path=/a b pid=7 comm=sh`; a path may hold spaces.
            let (rest, _) = split_last(body, b" comm=").ok_or("cgroup event without comm=")?;
            let (rest, pid) = split_last(rest, b" pid=").ok_or("cgroup event without pid=")?;
            let from = memchr::memmem::find(rest, b"dst_path=").ok_or("cgroup event without dst_path=")?;
            What::CgroupAttach {
                root: f.get(b"dst_root=").and_then(number).map_or(0, |root| root as u32),
                path: &rest[from + 9..],
                pid: pid_of(pid).ok_or("pid is not a task id")?,
            }
        }
        b"softirq_entry" => What::SoftirqEntry {
            action: memchr::memmem::find(body, b"action=")
                .map_or(body, |at| body[at + 7..].strip_suffix(b"]").unwrap_or(&body[at + 7..])),
        },
        b"softirq_exit" => What::SoftirqExit,
        b"workqueue_execute_start" => What::Work {
            function: memchr::memmem::find(body, b"function ")
                .map_or(&b""[..], |at| plain_function(symbol(body[at + 9..].trim_ascii()))),
        },
        b"sched_process_exit" => {
            let (comm, rest) = split_last(body, b" pid=").ok_or("sched_process_exit without pid=")?;
            let comm = comm.strip_prefix(b"comm=").unwrap_or(comm);
            What::Exit { comm, pid: pid_of(rest).ok_or("pid is not a task id")? }
        }
        b"sched_switch" => switch(body).ok_or("sched_switch without the next task")?,
        b"page_fault_user" | b"page_fault_kernel" => What::PageFault,
        b"tlb_flush" => tlb_flush(body),
        b"tick_stop" => What::TickStop { dependency: f.get(b"dependency=").unwrap_or_default() },
        b"tracing_mark_write" => What::Marker { text: body },
        b"print" => What::Marker {
            text: body.strip_prefix(b"tracing_mark_write:").map_or(body, <[u8]>::trim_ascii_start),
        },
        b"irq_handler_entry" => What::IrqEntry {
            vector: Vector::Device,
            name: memchr::memmem::find(body, b"name=").map_or(&b""[..], |at| &body[at + 5..]),
        },
        b"irq_handler_exit" => What::IrqExit { vector: Vector::Device },
        b"irq_noise" | b"softirq_noise" | b"thread_noise" | b"nmi_noise" | b"sample_threshold" => {
            noise(name, body).ok_or("osnoise event without duration")?
        }
        _ if body.first() == Some(&b'(') && !name.starts_with(b"ipi_") => probe(name, body),
        _ if name.starts_with(b"sys_enter_") => What::SyscallEntry,
        _ if name.starts_with(b"sys_exit_") => What::SyscallExit,
        _ if body.starts_with(b"vector=") => vector_event(name),
        _ => What::Other { name },
    })
}

/// `irq_noise: local_timer:236 start 16.008 duration 1234 ns`, `nmi_noise: start ... duration ...`,
/// `sample_threshold: start 16.008 duration 1234 ns interference 1`.
fn noise<'a>(name: &'a [u8], body: &'a [u8]) -> Option<What<'a>> {
    let start = memchr::memmem::find(body, b"start ")?;
    let mut at = memchr::memmem::find(body, b"duration ")? + 9;
    let duration_ns = decimal(body, &mut at)?;
    let what = body[..start].trim_ascii();
    // The number behind the last colon is a vector or a thread id.
    let what = memchr::memrchr(b':', what).map_or(what, |colon| &what[..colon]);
    let kind = name.strip_suffix(b"_noise").unwrap_or(b"sample");
    Some(What::Noise { kind, name: what, duration_ns })
}

fn vector_event(name: &[u8]) -> What<'_> {
    let vector = |stem: &[u8]| match stem {
        b"call_function" => Vector::CallFunction,
        b"call_function_single" => Vector::CallFunctionSingle,
        b"reschedule" => Vector::Reschedule,
        b"irq_work" => Vector::IrqWork,
        b"local_timer" => Vector::LocalTimer,
        _ => Vector::Other,
    };
    if let Some(stem) = name.strip_suffix(b"_entry") {
        What::IrqEntry { vector: vector(stem), name: stem }
    } else if let Some(stem) = name.strip_suffix(b"_exit") {
        What::IrqExit { vector: vector(stem) }
    } else {
        What::Other { name }
    }
}

/// `(flush_tlb_kernel_range+0x4/0xc0) start=...`, `(caller+0xb1/0x150 <- alloc_vmap_area) ret=...`, or a bare address.
fn probe<'a>(name: &'a [u8], body: &'a [u8]) -> What<'a> {
    let close = memchr::memchr(b')', body).unwrap_or(body.len());
    let inside = &body[1..close];
    let args = body.get(close + 1..).unwrap_or_default().trim_ascii_start();
    let (place, returns) = match memchr::memmem::find(inside, b" <- ") {
        Some(arrow) => (&inside[arrow + 4..], true),
        None => (inside, false),
    };
    let place = plain_function(symbol(place));
    let function = if hex(place).is_some() { &b""[..] } else { place };
    What::Probe { name, function, returns, args }
}

/// `pages:-1 reason:remote shootdown (1)`, with `=` for `:` from trace-cmd.
fn tlb_flush(body: &[u8]) -> What<'_> {
    let mut pages = 0;
    if let Some(rest) = body.strip_prefix(b"pages") {
        let rest = rest.get(1..).unwrap_or_default();
        let digits = rest.strip_prefix(b"-").unwrap_or(rest);
        let value = decimal(digits, &mut 0).and_then(|v| i64::try_from(v).ok()).unwrap_or(0);
        pages = if digits.len() < rest.len() { -value } else { value };
    }
    let reason =
        memchr::memmem::find(body, b"reason").map_or(&b""[..], |at| body.get(at + 7..).unwrap_or_default());
    What::TlbFlush { pages, reason: reason.trim_ascii() }
}

/// `... ==> next_comm=%s next_pid=%d next_prio=%d`, or trace-cmd's `... ==> %s:%d [%d]`.
fn switch(body: &[u8]) -> Option<What<'_>> {
    let next = &body[memchr::memmem::find(body, b"==> ")? + 4..];
    if let Some(next) = next.strip_prefix(b"next_comm=") {
        let (comm, pid) = split_last(next, b" next_pid=")?;
        return Some(What::Switch { next_comm: comm, next_pid: pid_of(pid)? });
    }
    let next = split_last(next, b" [").map_or(next, |(task, _)| task);
    let (comm, pid) = split_last(next, b":")?;
    Some(What::Switch { next_comm: comm, next_pid: pid_of(pid)? })
}

fn split_last<'a>(text: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (last, _) = at.split_last()?;
    let end = memchr::memrchr_iter(*last, text).map(|i| i + 1).find(|&end| text[..end].ends_with(at))?;
    Some((&text[..end - at.len()], &text[end..]))
}

fn pid_of(text: &[u8]) -> Option<u32> {
    decimal(text, &mut 0).and_then(|v| u32::try_from(v).ok())
}

fn cpu(token: Option<&[u8]>) -> Result<u32, &'static str> {
    let cpu = token.and_then(number).ok_or("expected cpu=")?;
    if cpu >= u64::from(MAX_CPUS) {
        return Err("CPU number is beyond 8191");
    }
    Ok(cpu as u32)
}

/// A handler's name; a reschedule prints a null pointer.
fn callback(token: Option<&[u8]>) -> &[u8] {
    match token.map(symbol) {
        None | Some(b"0x0" | b"(nil)" | b"0") => b"",
        Some(name) => name,
    }
}

/// The number of CPUs behind `key`.
fn count(text: &[u8], key: &[u8]) -> Option<u32> {
    let mut at = memchr::memmem::find(text, key)? + key.len();
    decimal(text, &mut at).filter(|n| *n <= u64::from(MAX_CPUS)).map(|n| n as u32)
}

/// `# entries-in-buffer/entries-written: 3792/15169   #P:4` and `##### CPU 3 buffer started ####`.
fn comment(text: &[u8], line: u64) -> Option<Hole> {
    if text.starts_with(b"##### CPU ") {
        let cpu = decimal(text, &mut 10).map(|c| c as u32);
        return Some(Hole { kind: HoleKind::BufferStarted, cpu, events: None, line });
    }
    let mut at = memchr::memmem::find(text, b"entries-written:")? + 16;
    spaces(text, &mut at);
    let kept = decimal(text, &mut at)?;
    at += 1;
    let lost = decimal(text, &mut at)?.checked_sub(kept).filter(|lost| *lost > 0)?;
    Some(Hole { kind: HoleKind::Overwritten, cpu: None, events: Some(lost), line })
}

/// Lines that are neither events nor errors: loss markers, trace-cmd's preamble, a stack frame without its head.
fn aside(text: &[u8], line: u64, to: &mut impl Sink) -> Option<()> {
    if let Some(rest) = text.strip_prefix(b"CPU:") {
        let mut at = 0;
        let cpu = decimal(rest, &mut at)?;
        let bracket = memchr::memchr(b'[', rest)?;
        let inside = &rest[bracket + 1..];
        let lost = memchr::memmem::find(inside, b"LOST").is_some();
        if !lost && memchr::memmem::find(inside, b"DROPPED").is_none() {
            return None;
        }
        let digit = inside.iter().position(u8::is_ascii_digit);
        let events = digit.and_then(|mut d| decimal(inside, &mut d));
        to.hole(&Hole { kind: HoleKind::Lost, cpu: Some(cpu as u32), events, line });
        return Some(());
    }
    let preamble =
        [&b"cpus="[..], b"version =", b"CPU ", b" => ", b"=> ", b"trace-cmd: ", b"TRACE_", b"Note: "];
    (text.trim_ascii().is_empty() || preamble.iter().any(|p| text.starts_with(p))).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen {
        events: Vec<String>,
        holes: Vec<Hole>,
    }

    impl Sink for Seen {
        fn event(&mut self, e: &Event<'_>) {
            let comm = String::from_utf8_lossy(e.task.comm).into_owned();
            let what = match e.what {
                What::Stack { frames } => String::from_utf8_lossy(frames).trim().replace('\n', "<"),
                What::Marker { text } => String::from_utf8_lossy(text).into_owned(),
                What::CsdQueue { cpu, func, .. } => {
                    format!("queue {} for {cpu}", String::from_utf8_lossy(func))
                }
                What::CsdEntry { csd, .. } => format!("{csd:?}"),
                What::IpiSend { cpu, callback, .. } => {
                    format!("ipi {cpu} {}", String::from_utf8_lossy(callback))
                }
                What::Probe { function, returns, args, .. } => format!(
                    "probe {} {returns} {}",
                    String::from_utf8_lossy(function),
                    String::from_utf8_lossy(args)
                ),
                What::Fork { child_comm, child_pid } => {
                    format!("fork {}/{child_pid}", String::from_utf8_lossy(child_comm))
                }
                What::Switch { next_comm, next_pid } => {
                    format!("switch {}/{next_pid}", String::from_utf8_lossy(next_comm))
                }
                What::TlbFlush { pages, reason } => {
                    format!("tlb {pages} {}", String::from_utf8_lossy(reason))
                }
                What::AllocArea { start, size, ok, .. } => format!("alloc {start:x} {size} {ok}"),
                What::IrqEntry { vector, .. } => format!("{} begins", vector.name()),
                What::Other { name } => format!("other {}", String::from_utf8_lossy(name)),
                other => format!("{other:?}"),
            };
            self.events
                .push(format!("{comm}/{} cpu{} {} {:?}: {what}", e.task.pid, e.cpu, e.at_ns, e.in_interrupt));
        }
        fn hole(&mut self, hole: &Hole) {
            self.holes.push(hole.clone());
        }
    }

    fn read(text: &str) -> (Seen, Vec<Fault>) {
        let (mut seen, mut faults, mut importer) = (Seen::default(), Vec::new(), Ftrace::default());
        for (number, line) in text.lines().enumerate() {
            if let Err(fault) = importer.line(line.as_bytes(), number as u64 + 1, &mut seen) {
                faults.push(fault);
            }
        }
        importer.finish(&mut seen);
        (seen, faults)
    }

    fn one(line: &str) -> String {
        let (seen, faults) = read(line);
        assert_eq!(faults, [], "{line}");
        seen.events.into_iter().next().expect("one event")
    }

    #[test]
    fn a_task_name_may_hold_anything() {
        for (comm, column) in
            [("my prog-1 [y]", "   my prog-1 [y]-4792   "), ("<...>", "           <...>-4792   ")]
        {
            let line = format!("{column} [000] d.h1.    60.364035: user_exit: ");
            assert_eq!(one(&line), format!("{comm}/4792 cpu0 60364035000 Some(true): UserExit"));
        }
        let line = "   my prog-1 [y]-4792    [000] .....    60.364035: sched_process_fork: comm=my prog-1 [y] pid=4792 child_comm=my prog-1 [y] child_pid=4793";
        assert!(one(line).ends_with("fork my prog-1 [y]/4793"), "{}", one(line));
        assert!(one("a-1-22 [001] ..... 1.5: user_enter: ").starts_with("a-1/22 cpu1 1500000000"));
    }

    #[test]
    fn the_tgid_column_is_skipped_and_trace_cmd_needs_no_flags() {
        let with = "       forkstorm-5135    (   5135) [000] d.h1.    78.877384: user_exit: ";
        assert_eq!(one(with), "forkstorm/5135 cpu0 78877384000 Some(true): UserExit");
        let idle = "          <idle>-0       (-------) [001] d.H1.    78.929077: call_function_single_entry: vector=251";
        assert_eq!(one(idle), "<idle>/0 cpu1 78929077000 Some(true): call_function_single begins");
        let report = "            init-1     [000]    90.774922: print:                tracing_mark_write: GT_BEGIN w5";
        assert_eq!(one(report), "init/1 cpu0 90774922000 None: GT_BEGIN w5");
    }

    #[test]
    fn kernel_and_trace_cmd_spellings_mean_the_same() {
        let head = "            init-1       [000] .....   443.518717: ";
        let same = [
            (
                "csd_function_entry: func=f, csd=0000000000000000",
                "csd_function_entry: func=f, csd=(nil)",
                "Local",
            ),
            (
                "tlb_flush: pages:-1 reason:remote shootdown (1)",
                "tlb_flush: pages=-1 reason=remote shootdown (1)",
                "tlb -1 remote shootdown (1)",
            ),
            (
                "ipi_send_cpu: cpu=1 callsite=a+0x1/0x2 callback=0x0",
                "ipi_send_cpu: cpu=1 callsite=a+0x1 callback=(nil)",
                "ipi 1 ",
            ),
            (
                "sched_switch: prev_comm=a prev_pid=1 prev_prio=120 prev_state=R ==> next_comm=k/3:1 next_pid=104 next_prio=120",
                "sched_switch: a:1 [120] R ==> k/3:1:104 [120]",
                "switch k/3:1/104",
            ),
            ("tracing_mark_write: hi", "print: tracing_mark_write: hi", "hi"),
        ];
        for (kernel, report, want) in same {
            for body in [kernel, report] {
                let got = one(&format!("{head}{body}"));
                assert!(got.ends_with(&format!(": {want}")), "{got}");
            }
        }
    }

    #[test]
    fn a_probe_tells_its_function_when_the_source_does() {
        let head = "     kworker/1:0-2282    [001] .....   473.182868: ";
        let probe = |body: &str| one(&format!("{head}{body}"));
        assert!(
            probe("tlbk: (flush_tlb_kernel_range+0x4/0xc0) start=0x1 end=0x2")
                .ends_with("probe flush_tlb_kernel_range false start=0x1 end=0x2")
        );
        assert!(
            probe("tlbk: (ffffffffa9cae744) start=0x1 end=0x2").ends_with("probe  false start=0x1 end=0x2")
        );
        assert!(
            probe("kp_alloc: (__get_vm_area_node+0xb1/0x150 <- alloc_vmap_area) ret=0x1")
                .ends_with("probe alloc_vmap_area true ret=0x1")
        );
        let noise = |text: &str| one(&format!("{head}{text}"));
        assert!(
            noise("irq_noise: local_timer:236 start 16.008 duration 1234 ns").contains("duration_ns: 1234")
        );
        assert!(
            noise("sample_threshold: start 16.0 duration 99 ns interference 1").contains("duration_ns: 99")
        );
        assert!(
            probe("r: (do_kernel_range_flush.isra.0+0x0/0x1)")
                .ends_with("probe do_kernel_range_flush false ")
        );
    }

    #[test]
    fn addresses_above_two_to_the_63_are_read_in_decimal() {
        let line = "           <...>-1260    [000] .....   443.522528: alloc_vmap_area: va_start: 18446688774948175872 size=20480 align=16384 vstart=0xffffcdb4c0000000 vend=0xffffedb4bfffffff failed=0";
        assert!(one(line).ends_with("alloc ffffcdb4c0f8c000 20480 true"), "{}", one(line));
    }

    #[test]
    fn a_stack_belongs_to_its_head_even_after_other_events() {
        let text = "\
     kworker/1:1-65      (     65) [001] .....    81.108620: <stack trace>
 => kprobe_trace_func
 => 0xffffffffc048c0de
 => flush_tlb_kernel_range+0x1/0x2
            spin-1       [002] d....    81.108621: user_exit: ";
        let report = "\
     kworker/1:1-65    [001]    81.108620: kernel_stack:         <stack trace >
=> kprobe_trace_func (ffffffff8a873a29)
=> 0xffffffffc048c0de
=> flush_tlb_kernel_range (ffffffff8a6ae749)
            spin-1     [002]    81.108621: user_exit: ";
        for text in [text, report] {
            let (seen, faults) = read(text);
            assert_eq!(faults, []);
            assert_eq!(seen.events.len(), 2);
            assert!(seen.events[0].starts_with("kworker/1:1/65 cpu1"), "{}", seen.events[0]);
            assert!(seen.events[0].ends_with("kprobe_trace_func<0xffffffffc048c0de<flush_tlb_kernel_range"));
        }
    }

    #[test]
    fn every_loss_marker_is_a_hole() {
        let text = "\
# entries-in-buffer/entries-written: 3792/15169   #P:4
##### CPU 3 buffer started ####
CPU:0 [LOST 1133 EVENTS]
CPU:1 [EVENTS DROPPED]
cpus=4
# entries-in-buffer/entries-written: 5/5   #P:4
";
        let (seen, faults) = read(text);
        assert_eq!(faults, []);
        let holes: Vec<_> = seen.holes.iter().map(|h| (h.kind.name(), h.cpu, h.events, h.line)).collect();
        assert_eq!(
            holes,
            [
                ("overwritten", None, Some(11377), 1),
                ("buffer_started", Some(3), None, 2),
                ("lost", Some(0), Some(1133), 3),
                ("lost", Some(1), None, 4),
            ]
        );
    }

    #[test]
    fn a_broken_line_tells_the_column_and_what_was_expected() {
        let fault = |line: &str| read(line).1[0];
        assert_eq!(fault("hello world"), (0, "expected `task-pid [cpu]`"));
        assert_eq!(fault("            init-1       [0x0] ....."), (27, "expected `]` behind the CPU number"));
        assert_eq!(
            fault("            init-1       [99999] ..... 1.0: user_exit: ").1,
            "CPU number is beyond 8191"
        );
        let line = "            init-1       [000] .....   443.518717: csd_queue_cpu: cpu=1 callsite=x";
        assert_eq!(fault(line), (66, "csd_queue_cpu without func="));
    }
}
