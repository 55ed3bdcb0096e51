//! babeltrace's print of an LTTng kernel recording: `[00:42:51.993131831] (+0.000000370) host sched_switch: { cpu_id = 11 },
//! { tid = 50605, procname = "dockerd" }, { prev_comm = "dockerd", prev_tid = 50605, ..., next_prio = 20 }`.
//!
//! The first braces hold the packet's context, the last the event's fields, those between contexts that were asked for. LTTng
//! records no task by itself: it is the `tid` context, or whom the last `sched_switch` of that CPU switched to. Functions are
//! addresses, so what a timer ran is not known. The names of events are those of lttng-modules.

use super::{
    Sink,
    ftrace::Fault,
    scan::{decimal, hex, number},
};
use crate::trace::{
    MAX_CPUS,
    event::{Event, Hole, HoleKind, Task, Vector, What},
};

const DAY_NS: u64 = 86_400_000_000_000;
/// Soft interrupts by number (`enum` in `linux/interrupt.h`), as the kernel's own events print them.
const SOFTIRQS: [&[u8]; 10] =
    [b"HI", b"TIMER", b"NET_TX", b"NET_RX", b"BLOCK", b"IRQ_POLL", b"TASKLET", b"SCHED", b"HRTIMER", b"RCU"];

/// The importer: per CPU who runs there, and how many handlers are open.
#[derive(Default)]
pub struct Lttng {
    cpus: Vec<Cpu>,
    /// Days that have passed: the time of day begins again at midnight.
    days_ns: u64,
    last_ns: u64,
}

#[derive(Clone, Default)]
struct Cpu {
    /// Whom the last `sched_switch` switched to.
    runs: Option<u32>,
    comm: Vec<u8>,
    /// Interrupts and soft interrupts that have begun and not ended.
    inside: u32,
}

struct Line<'a> {
    at_ns: u64,
    /// The time of day, without a date.
    of_day: bool,
    name: &'a [u8],
    cpu: u32,
    /// Between the packet's context and the fields.
    contexts: &'a [u8],
    fields: &'a [u8],
}

impl Lttng {
    /// Is this a line of babeltrace's?
    pub fn recognises(text: &[u8]) -> bool {
        text.first() == Some(&b'[') && parse(text).is_ok()
    }

    /// Reads one line and delivers what it says.
    pub fn line(&mut self, text: &[u8], number: u64, to: &mut impl Sink) -> Result<(), Fault> {
        if text.trim_ascii().is_empty() {
            return Ok(());
        }
        if let Some(hole) = discarded(text, number) {
            let forgets = |cpu: &mut Cpu| *cpu = Cpu::default();
            match hole.cpu {
                Some(cpu) => forgets(self.cpu(cpu)),
                None => self.cpus.iter_mut().for_each(forgets),
            }
            to.hole(&hole);
            return Ok(());
        }
        let line = parse(text)?;
        let mut at_ns = line.at_ns.saturating_add(if line.of_day { self.days_ns } else { 0 });
        if line.of_day && at_ns + DAY_NS / 2 < self.last_ns {
            self.days_ns += DAY_NS;
            at_ns += DAY_NS;
        }
        self.last_ns = self.last_ns.max(at_ns);
        let what = what(line.name, line.fields).map_err(|why| (0, why))?;
        let cpu = self.cpu(line.cpu);
        let begins = matches!(what, What::IrqEntry { .. } | What::SoftirqEntry { .. });
        cpu.inside += u32::from(begins);
        let tid = field(line.contexts, b"tid").and_then(number_of);
        let procname = field(line.contexts, b"procname").map(quoted);
        let pid = tid.or(cpu.runs);
        let comm = match (pid, procname) {
            (Some(0), _) => &b"<idle>"[..],
            (_, Some(procname)) => procname,
            (Some(pid), None) if cpu.runs == Some(pid) => &cpu.comm,
            _ => b"<...>",
        };
        // A thread of its own per CPU where the recording tells none, never the idle task.
        let task = Task { comm, pid: pid.unwrap_or(u32::MAX - line.cpu), tgid: None };
        // Without such events nothing says where the task itself runs.
        let in_interrupt = (cpu.inside > 0).then_some(true);
        to.event(&Event { at_ns, cpu: line.cpu, task, in_interrupt, line: number, what });
        match what {
            What::IrqExit { .. } | What::SoftirqExit => cpu.inside = cpu.inside.saturating_sub(1),
            What::Switch { next_pid, next_comm, .. } => {
                (cpu.runs, cpu.inside) = (Some(next_pid), 0);
                cpu.comm.clear();
                cpu.comm.extend_from_slice(next_comm);
            }
            _ => {}
        }
        Ok(())
    }

    fn cpu(&mut self, cpu: u32) -> &mut Cpu {
        let cpu = cpu as usize;
        if cpu >= self.cpus.len() {
            self.cpus.resize_with(cpu + 1, Cpu::default);
        }
        &mut self.cpus[cpu]
    }
}

fn parse(text: &[u8]) -> Result<Line<'_>, Fault> {
    const STAMP: &str = "expected `[hh:mm:ss.nnnnnnnnn]`";
    let close = memchr::memchr(b']', &text[..text.len().min(40)]).ok_or((0, STAMP))?;
    let (at_ns, of_day) = time(text.get(1..close).unwrap_or_default()).ok_or((1, STAMP))?;
    let colon = memchr::memmem::find(text, b": { ").ok_or((close + 1, "expected `event: { cpu_id = N }`"))?;
    let from = memchr::memrchr(b' ', &text[..colon]).map_or(0, |space| space + 1);
    if from <= close {
        return Err((close + 1, "expected `event: { cpu_id = N }`"));
    }
    let mut groups = &text[colon + 2..];
    let mut at = colon + 2;
    let (mut cpu, mut contexts, mut fields) = (None, &b""[..], &b""[..]);
    let mut first_context = None;
    // The packet's context, then others, then the fields; one that is empty is `{ }`.
    while groups.first() == Some(&b'{') {
        let len = group(groups).ok_or((at, "braces without an end: the line was cut"))?;
        if cpu.is_none() {
            let found = field(&groups[1..len], b"cpu_id").and_then(number_of);
            cpu = Some(found.ok_or((at, "expected `cpu_id = N`"))?);
        } else {
            if let Some(first) = first_context {
                contexts = &text[first..at];
            }
            first_context.get_or_insert(at);
            fields = &groups[1..len];
        }
        let behind = groups[len + 1..].strip_prefix(b", ").unwrap_or_default();
        at = text.len() - behind.len();
        groups = behind;
    }
    let cpu = cpu.filter(|cpu| *cpu < MAX_CPUS).ok_or((colon + 2, "CPU number is beyond 8191"))?;
    Ok(Line { at_ns, of_day, name: &text[from..colon], cpu, contexts, fields })
}

/// `00:42:51.993131831`, with a date in front, or seconds; and whether it is the time of an unknown day.
fn time(text: &[u8]) -> Option<(u64, bool)> {
    let (date, clock) = match memchr::memchr(b' ', text) {
        Some(space) => (Some(&text[..space]), &text[space + 1..]),
        None => (None, text),
    };
    let dot = memchr::memchr(b'.', clock)?;
    let fraction = number(&clock[dot + 1..]).filter(|_| clock.len() - dot == 10)?;
    let mut seconds = 0u64;
    for part in clock[..dot].split(|b| *b == b':') {
        seconds = seconds.checked_mul(60)?.checked_add(number(part)?)?;
    }
    let of_day = date.is_none() && clock.contains(&b':');
    if let Some(date) = date {
        seconds = seconds.checked_add(days(date)?.checked_mul(86_400)?)?;
    }
    Some((seconds.checked_mul(1_000_000_000)?.checked_add(fraction)?, of_day))
}

/// Days since 1970 of `2026-03-24`.
fn days(date: &[u8]) -> Option<u64> {
    let mut parts = date.split(|b| *b == b'-').map(number);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if !(1970..10_000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years begin in March, so that the day of a leap year is their last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_year = (153 * month + 2) / 5 + day - 1;
    (year * 365 + year / 4 - year / 100 + year / 400 + of_year).checked_sub(719_468)
}

/// Where the braces that open here close.
fn group(text: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match text[at] {
            b'"' => at += string(&text[at..])?,
            b'{' => depth += 1,
            b'}' if depth == 1 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    None
}

/// Where the quotes that open here close.
fn string(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

/// The value of `key = value`, in braces or between them; strings and what is nested are not searched for it.
fn field<'a>(text: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let mut at = 0;
    while at < text.len() {
        if matches!(text[at], b' ' | b',' | b'{' | b'}') {
            at += 1;
            continue;
        }
        let equals = at + memchr::memmem::find(&text[at..], b" = ")?;
        let from = equals + 3;
        let end = from + value(&text[from..]);
        if &text[at..equals] == key {
            return Some(&text[from..end]);
        }
        at = end.max(at + 1);
    }
    None
}

/// How long a value is: to the comma or the brace behind it.
fn value(text: &[u8]) -> usize {
    let (mut depth, mut at) = (0u32, 0);
    while at < text.len() {
        match text[at] {
            b'"' => match string(&text[at..]) {
                Some(end) => at += end,
                None => return text.len(),
            },
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            b'}' if depth > 0 => depth -= 1,
            b',' | b'}' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
    }
    at
}

/// `7`, `0x1F`, or `( "TASK_RUNNING" : container = 7 )`.
fn number_of(value: &[u8]) -> Option<u32> {
    let value = value.trim_ascii();
    let value = match memchr::memmem::find(value, b"container = ") {
        Some(at) => value[at + 12..].split(|b| *b == b' ').next()?,
        None => value,
    };
    let value = if value.starts_with(b"0x") { hex(value) } else { number(value) };
    value.and_then(|value| u32::try_from(value).ok())
}

/// What stands between quotes.
fn quoted(value: &[u8]) -> &[u8] {
    let value = value.trim_ascii();
    value.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\"")).unwrap_or(value)
}

/// Did the task that was switched away from still want to run? 0 is `TASK_RUNNING`; one that was preempted has the bit
/// above all states: `TASK_REPORT_MAX` since Linux 4.14, `TASK_STATE_MAX` before.
fn preempted(state: u32) -> Option<bool> {
    match state {
        0 | 0x100 | 0x400 | 0x800 | 0x1000 => Some(true),
        _ if state & 0xff != 0 => Some(false),
        _ => None,
    }
}

fn what<'a>(name: &'a [u8], fields: &'a [u8]) -> Result<What<'a>, &'static str> {
    let text = |key: &[u8]| field(fields, key).map(quoted);
    let figure = |key: &[u8]| field(fields, key).and_then(number_of);
    Ok(match name {
        b"sched_switch" => {
            let next_pid = figure(b"next_tid").ok_or("sched_switch without next_tid")?;
            What::Switch {
                prev_pid: figure(b"prev_tid"),
                preempted: figure(b"prev_state").and_then(preempted),
                next_comm: if next_pid == 0 { b"<idle>" } else { text(b"next_comm").unwrap_or_default() },
                next_pid,
            }
        }
        b"sched_process_fork" => What::Fork {
            child_comm: text(b"child_comm").unwrap_or_default(),
            child_pid: figure(b"child_tid").ok_or("sched_process_fork without child_tid")?,
        },
        b"sched_process_exit" => What::Exit {
            comm: text(b"comm").unwrap_or_default(),
            pid: figure(b"tid").ok_or("sched_process_exit without tid")?,
        },
        b"sched_migrate_task" => What::Migrate {
            pid: figure(b"tid").ok_or("sched_migrate_task without tid")?,
            to: figure(b"dest_cpu")
                .filter(|cpu| *cpu < MAX_CPUS)
                .ok_or("sched_migrate_task without dest_cpu")?,
        },
        b"irq_handler_entry" => {
            let name = text(b"name").unwrap_or_default();
            What::IrqEntry { vector: Vector::of_device(name), name }
        }
        b"irq_handler_exit" => What::IrqExit { vector: Vector::Device },
        b"irq_softirq_entry" | b"softirq_entry" => {
            let vec = figure(b"vec").ok_or("soft interrupt without vec")?;
            What::SoftirqEntry { action: SOFTIRQS.get(vec as usize).copied().unwrap_or(b"unknown") }
        }
        b"irq_softirq_exit" | b"softirq_exit" => What::SoftirqExit,
        b"x86_exceptions_page_fault_user" | b"x86_exceptions_page_fault_kernel" => What::PageFault,
        b"lttng_logger" => What::Marker { text: text(b"msg").unwrap_or_default() },
        _ if name.starts_with(b"syscall_entry_") || name.starts_with(b"compat_syscall_entry_") => {
            What::SyscallEntry { name, args: fields }
        }
        _ if name.starts_with(b"syscall_exit_") || name.starts_with(b"compat_syscall_exit_") => {
            What::SyscallExit
        }
        _ => vector(name).unwrap_or(What::Other { name }),
    })
}

/// `x86_irq_vectors_local_timer_entry` and its like; `ipi` is the kernel's `x86_platform_ipi`.
fn vector(name: &[u8]) -> Option<What<'_>> {
    let stem = name.strip_prefix(b"x86_irq_vectors_").or_else(|| name.strip_prefix(b"irq_vectors_"))?;
    let platform = |stem| if stem == b"ipi" { &b"x86_platform_ipi"[..] } else { stem };
    let vector = |stem| Vector::of_x86(stem).unwrap_or(Vector::Platform);
    if let Some(stem) = stem.strip_suffix(b"_entry") {
        let name = platform(stem);
        return Some(What::IrqEntry { vector: vector(name), name });
    }
    let stem = platform(stem.strip_suffix(b"_exit")?);
    Some(What::IrqExit { vector: vector(stem) })
}

/// `[warning] Tracer discarded 328 events between [10:46:15.566916889] and [...] in trace UUID ..., within stream id 0, at
/// relative path: "channel0_3". You should consider ...`: the file of CPU 3.
fn discarded(text: &[u8], line: u64) -> Option<Hole> {
    const WORDS: &[u8] = b"racer discarded ";
    // Events hold any text; the warning has no braces.
    if text.first() == Some(&b'[') && text.get(1).is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let mut at = memchr::memmem::find(text, WORDS)? + WORDS.len();
    let events = decimal(text, &mut at);
    let path = memchr::memmem::find(text, b"relative path: \"").map(|at| &text[at + 16..]);
    let path = path.map(|path| &path[..memchr::memchr(b'"', path).unwrap_or(path.len())]);
    let file = path.map(|path| path.rsplit(|b| *b == b'/').next().unwrap_or_default());
    // Of `channel0_3_1` the last number may count files, and the name of a channel may end in one.
    let mut parts = file.into_iter().flat_map(|file| file.rsplit(|b| *b == b'_'));
    let cpu = parts.next().and_then(number).filter(|cpu| *cpu < u64::from(MAX_CPUS));
    let sure = parts.next().is_some_and(|before| number(before).is_none());
    Some(Hole { kind: HoleKind::Lost, cpu: cpu.filter(|_| sure).map(|cpu| cpu as u32), events, line })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen(Vec<String>);

    impl Sink for Seen {
        fn event(&mut self, e: &Event<'_>) {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let what = match e.what {
                What::Switch { prev_pid, preempted, next_comm, next_pid } => {
                    format!("{prev_pid:?} {preempted:?} to {}/{next_pid}", text(next_comm))
                }
                What::IrqEntry { vector, name } => format!("{} {} begins", vector.name(), text(name)),
                What::IrqExit { vector } => format!("{} ends", vector.name()),
                What::SoftirqEntry { action } => format!("{} begins", text(action)),
                What::SyscallEntry { name, .. } => text(name),
                What::Other { name } => format!("other {}", text(name)),
                What::Fork { child_comm, child_pid } => format!("fork {}/{child_pid}", text(child_comm)),
                What::Marker { text: mark } => format!("marker {}", text(mark)),
                other => format!("{other:?}"),
            };
            let inside = if e.in_interrupt == Some(true) { " inside" } else { "" };
            self.0.push(format!(
                "{} {} {}/{}{inside}: {what}",
                e.at_ns,
                e.cpu,
                text(e.task.comm),
                e.task.pid
            ));
        }
        fn hole(&mut self, hole: &Hole) {
            self.0.push(format!("lost {:?} on {:?}", hole.events, hole.cpu));
        }
    }

    fn read(text: &str) -> Vec<String> {
        let (mut seen, mut importer) = (Seen::default(), Lttng::default());
        for (n, line) in text.lines().enumerate() {
            importer.line(line.as_bytes(), n as u64 + 1, &mut seen).expect(line);
        }
        seen.0
    }

    /// The shapes of these lines, contexts included, are those of a print by babeltrace2 that somebody published.
    #[test]
    fn tasks_come_from_contexts_or_from_the_switch_before() {
        let found = read(
            "\
[00:42:51.993131831] (+?.?????????) node-7 sched_switch: { cpu_id = 11 }, { pid = 50594, tid = 50605, procname = \"my, } prog\" }, { prev_comm = \"my, } prog\", prev_tid = 50605, prev_prio = 20, prev_state = 1, next_comm = \"python3\", next_tid = 78339, next_prio = 20 }
[00:42:51.993135361] (+0.000003530) node-7 syscall_exit_futex: { cpu_id = 11 }, { pid = 78339, tid = 78339, procname = \"python3\" }, { ret = 0, uaddr = 108935974470848, uaddr2 = 0 }
[00:42:51.993139351] (+0.000003990) node-7 syscall_entry_futex: { cpu_id = 11 }, { uaddr = 108935595519116, op = 137 }
[00:42:51.993144411] (+0.000005060) node-7 sched_switch: { cpu_id = 0 }, { prev_comm = \"swapper/0\", prev_tid = 0, prev_prio = 20, prev_state = ( \"TASK_RUNNING\" : container = 0 ), next_comm = \"java\", next_tid = 78397, next_prio = 20 }
[00:42:51.993144500] (+0.000000089) node-7 timer_hrtimer_cancel: { cpu_id = 3 }, { hrtimer = 0xFFFFCE3B4A0A7570 }
",
        );
        assert_eq!(
            found,
            [
                "2571993131831 11 my, } prog/50605: Some(50605) Some(false) to python3/78339",
                "2571993135361 11 python3/78339: SyscallExit",
                "2571993139351 11 python3/78339: syscall_entry_futex",
                "2571993144411 0 <...>/4294967295: Some(0) Some(true) to java/78397",
                "2571993144500 3 <...>/4294967292: other timer_hrtimer_cancel",
            ]
        );
    }

    /// UNVERIFIED: names and fields by lttng-modules' sources; no print of these was at hand.
    #[test]
    fn interrupts_soft_interrupts_and_faults() {
        let found = read(
            "\
[23:59:59.999999000] (+?.?????????) h sched_switch: { cpu_id = 2 }, { prev_comm = \"a\", prev_tid = 1, prev_prio = 20, prev_state = 256, next_comm = \"swapper/2\", next_tid = 0, next_prio = 20 }
[00:00:00.000001000] (+0.000002000) h x86_irq_vectors_call_function_single_entry: { cpu_id = 2 }, { vector = 251 }
[00:00:00.000002000] (+0.000001000) h x86_irq_vectors_call_function_single_exit: { cpu_id = 2 }, { vector = 251 }
[00:00:00.000003000] (+0.000001000) h irq_handler_entry: { cpu_id = 2 }, { irq = 42, name = \"eth0-TxRx-1\" }
[00:00:00.000004000] (+0.000001000) h irq_handler_exit: { cpu_id = 2 }, { irq = 42, ret = 1 }
[00:00:00.000005000] (+0.000001000) h irq_softirq_entry: { cpu_id = 2 }, { vec = 3 }
[00:00:00.000006000] (+0.000001000) h x86_irq_vectors_ipi_entry: { cpu_id = 2 }, { vector = 247 }
[00:00:00.000007000] (+0.000001000) h x86_irq_vectors_ipi_exit: { cpu_id = 2 }, { vector = 247 }
[00:00:00.000008000] (+0.000001000) h irq_softirq_exit: { cpu_id = 2 }, { vec = 3 }
[00:00:00.000009000] (+0.000001000) h x86_exceptions_page_fault_user: { cpu_id = 2 }, { address = 0x7F00, ip = 0x5500, error_code = 0x4 }
[00:00:00.000010000] (+0.000001000) h lttng_logger: { cpu_id = 2 }, { _msg_length = 8, msg = \"GT_BEGIN\" }
[warning] Tracer discarded 328 events between [00:00:00.000011000] and [00:00:00.000012000] in trace UUID 353a, at path: \"k\", within stream id 0, at relative path: \"channel0_2\". You should consider recording a new trace.
[00:00:00.000013000] (+0.000001000) h syscall_exit_read: { cpu_id = 2 }, { ret = 4 }
",
        );
        let times: Vec<u64> =
            found.iter().filter_map(|line| line.split(' ').next()?.parse::<u64>().ok()).collect();
        assert!(times.is_sorted(), "midnight: {times:?}");
        let ends: Vec<&str> =
            found.iter().filter_map(|line| line.split_once(' ')).map(|(_, end)| end).collect();
        assert_eq!(
            ends,
            [
                "2 <...>/4294967293: Some(1) Some(true) to <idle>/0",
                "2 <idle>/0 inside: call_function_single call_function_single begins",
                "2 <idle>/0 inside: call_function_single ends",
                "2 <idle>/0 inside: device eth0-TxRx-1 begins",
                "2 <idle>/0 inside: device ends",
                "2 <idle>/0 inside: NET_RX begins",
                "2 <idle>/0 inside: x86_platform_ipi x86_platform_ipi begins",
                "2 <idle>/0 inside: x86_platform_ipi ends",
                "2 <idle>/0 inside: SoftirqExit",
                "2 <idle>/0: PageFault",
                "2 <idle>/0: marker GT_BEGIN",
                "Some(328) on Some(2)",
                "2 <...>/4294967293: SyscallExit",
            ]
        );
    }

    #[test]
    fn dates_and_seconds_are_times_and_what_was_cut_is_told() {
        assert_eq!(time(b"1970-01-02 00:00:01.000000005"), Some((86_401_000_000_005, false)));
        assert_eq!(time(b"2026-03-24 04:42:59.336311000").map(|t| t.0 / 1_000_000_000), Some(1_774_327_379));
        assert_eq!(time(b"1774327379.336311000"), Some((1_774_327_379_336_311_000, false)));
        assert_eq!(time(b"00000123456789"), None);
        let mut importer = Lttng::default();
        for cut in [
            "[00:00:00.000000001] (+0.000000001) h irq_handler_entry: { cpu_id = 2 }, { irq = 42, name = \"et",
            "[00:00:00.000000001] (+0.000000001) h irq_handler_entry: { cpu",
            "[00:00:00.000000001] (+0.000000001) h irq_ha",
            "[00:00:0",
        ] {
            assert!(importer.line(cut.as_bytes(), 1, &mut Seen::default()).is_err(), "{cut}");
        }
    }
}
