//! The kernel's own trace text (`cat trace`, `cat trace_pipe`) and `trace-cmd report`, which is nearly the same.
//!
//! `            init-1       [000] .....   443.518717: tracing_mark_write: GT_BEGIN w1`. The task column is 16 wide and
//! may hold spaces, `-`, `[`, `/` and `:`; with `record-tgid` a column is added; trace-cmd leaves the flags out and
//! pads event names; stack traces follow their event on lines of their own, sometimes after other CPUs' events.

use super::{
    Lexed, Sink,
    body::body_of,
    head::{Head, Name, front, header},
    scan::{decimal, number, spaces, symbol},
};
use crate::trace::{
    MAX_CPUS,
    event::{Event, Hole, HoleKind, NoiseSums, Sum, Task, What},
};

pub use super::head::{Fault, stamp};

const MAX_STACK: usize = 16 << 10;

/// A line of the kernel log in front of, between or behind the lines of the ring's dump.
pub(super) const KERNEL_LINE: &str = "a line of the kernel log";

/// The importer: only a stack trace needs memory from one line to the next.
#[derive(Default)]
pub struct Ftrace {
    stack: Option<StackHead>,
    comm: Vec<u8>,
    frames: Vec<u8>,
    /// An event was seen since the last header.
    begun: bool,
    /// CPUs of the machine, from `#P:4` or `cpus=4`.
    pub cpus: Option<u32>,
}

struct StackHead {
    at_ns: u64,
    cpu: u32,
    pid: u32,
    line: u64,
}

/// What a line says by itself, whatever stands in front of it; the rest is for [`Ftrace::plain`].
#[inline]
pub(super) fn lex(text: &[u8]) -> Lexed<'_> {
    if text.starts_with(b" => ") || text.starts_with(b"=> ") {
        return frame(text).map_or(Lexed::Plain(text), |name| Lexed::Frame { text, name });
    }
    match text.first() {
        None | Some(b'#') => return Lexed::Plain(text),
        Some(_) => {}
    }
    let inner = journal(text);
    let Ok((head, name)) = header(inner) else { return Lexed::Plain(text) };
    if head.task.comm.starts_with(b"=> ") {
        return Lexed::Plain(text); // a frame, if a stack is open
    }
    if is_stack(inner, name) {
        return Lexed::Stack(head);
    }
    let Ok(what) = what(inner, name) else { return Lexed::Plain(text) };
    let Head { task, cpu, in_interrupt, at_ns } = head;
    Lexed::Event(Event { at_ns, cpu, task, in_interrupt, line: 0, what })
}

/// `<stack trace>` stands in place of `event: body`, or behind trace-cmd's `kernel_stack:`.
#[inline]
fn is_stack(text: &[u8], name: Name) -> bool {
    name.start == name.end || text[name.start..name.end] == *b"kernel_stack"
}

/// The function of a frame; trace-cmd leaves out the first space and adds the address in brackets.
#[inline]
fn frame(text: &[u8]) -> Option<&[u8]> {
    let frame = text.trim_ascii_start().strip_prefix(b"=> ")?.trim_ascii();
    Some(symbol(&frame[..memchr::memchr(b' ', frame).unwrap_or(frame.len())]))
}

impl Ftrace {
    /// Reads one line and delivers what it says.
    #[inline]
    pub fn line(&mut self, text: &[u8], number: u64, to: &mut impl Sink) -> Result<(), Fault> {
        self.apply(&mut lex(text), number, to)
    }

    /// Delivers what a line says, in the order of the lines.
    #[inline]
    pub(super) fn apply(
        &mut self,
        lexed: &mut Lexed<'_>,
        number: u64,
        to: &mut impl Sink,
    ) -> Result<(), Fault> {
        match lexed {
            Lexed::Event(event) => {
                self.finish(to);
                self.begun = true;
                event.line = number;
                to.event(event);
            }
            Lexed::Frame { name, .. } if self.stack.is_some() => self.push(name),
            Lexed::Stack(head) => {
                self.finish(to);
                self.open(head, number);
            }
            Lexed::Frame { text, .. } | Lexed::Plain(text) => return self.plain(text, number, to),
        }
        Ok(())
    }

    fn push(&mut self, name: &[u8]) {
        if self.frames.len() < MAX_STACK {
            self.frames.extend_from_slice(name);
            self.frames.push(b'\n');
        }
    }

    fn open(&mut self, head: &Head<'_>, line: u64) {
        self.begun = true;
        let &Head { at_ns, cpu, task, .. } = head;
        self.comm.clear();
        self.comm.extend_from_slice(task.comm);
        self.stack = Some(StackHead { at_ns, cpu, pid: task.pid, line });
        self.frames.clear();
    }

    /// A line of which [`lex`] does not tell what it is.
    #[cold]
    fn plain(&mut self, text: &[u8], number: u64, to: &mut impl Sink) -> Result<(), Fault> {
        if self.stack.is_some() {
            if let Some(name) = frame(text) {
                self.push(name);
                return Ok(());
            }
            self.finish(to);
        }
        match text.first() {
            None => return Ok(()),
            Some(b'#') => {
                self.cpus = count(text, b"#P:").or(self.cpus);
                if text.starts_with(b"# tracer:") && std::mem::take(&mut self.begun) {
                    to.piece(); // one recording behind another in the same file
                }
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
        let whole = text.len();
        let text = journal(text);
        let (head, name) = match header(text) {
            Ok(found) => found,
            Err(fault) => {
                if text.starts_with(b"cpus=") {
                    self.cpus = count(text, b"cpus=");
                    if std::mem::take(&mut self.begun) {
                        to.piece();
                    }
                }
                if let Some((head, sums)) =
                    front(text).and_then(|(head, at)| Some((head, osnoise_row(&text[at..])?)))
                {
                    self.begun = true;
                    let sum = Sum::Noise(sums);
                    let what = What::Sum(&sum);
                    let Head { task, cpu, in_interrupt, at_ns } = head;
                    to.event(&Event { at_ns, cpu, task, in_interrupt, line: number, what });
                    return Ok(());
                }
                let fault = if text.len() < whole || of_kernel_log(text) { (0, KERNEL_LINE) } else { fault };
                return aside(text, number, to).ok_or(fault);
            }
        };
        self.deliver(text, (head, name), number, to)
    }

    #[inline]
    fn deliver(
        &mut self,
        text: &[u8],
        (head, name): (Head<'_>, Name),
        number: u64,
        to: &mut impl Sink,
    ) -> Result<(), Fault> {
        if is_stack(text, name) {
            self.open(&head, number);
            return Ok(());
        }
        self.begun = true;
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
    #[inline]
    pub fn finish(&mut self, to: &mut impl Sink) {
        if let Some(head) = self.stack.take() {
            to.event(&Event {
                at_ns: head.at_ns,
                cpu: head.cpu,
                task: Task { comm: &self.comm, pid: head.pid, tgid: None },
                in_interrupt: None,
                line: head.line,
                what: What::Stack { frames: &self.frames },
            });
        }
    }
}

/// What the event says. The body begins behind the name and its padding.
#[inline]
fn what(text: &[u8], name: Name) -> Result<What<'_>, Fault> {
    let mut from = name.end + 1;
    spaces(text, &mut from);
    let body = text.get(from..).unwrap_or_default();
    body_of(&text[name.start..name.end], body).map_err(|why| (from, why))
}

/// The line without what a system log puts in front of it, `Nov 23 10:00:00 node7 kernel: `, and the kernel's own log, in
/// which the dump of the ring at an oops stands: `[  812.200000] `. A header may be found behind either without taking it
/// away, with the log's time as part of the task's name.
#[inline]
fn journal(text: &[u8]) -> &[u8] {
    // Names of tasks are right-aligned: hardly one begins in the first column.
    match text.first() {
        Some(b'[') => return logged(text),
        Some(b'A'..=b'Z') => {}
        _ if text.starts_with(b"20") => {}
        _ => return text,
    }
    match memchr::memmem::find(&text[..text.len().min(96)], b" kernel: ") {
        Some(at) => logged(&text[at + 9..]),
        None => text,
    }
}

/// A line of the kernel's log without its time, the caller (`[  812.200000][ T1234] `, `CONFIG_PRINTK_CALLER`) and a host.
fn logged(text: &[u8]) -> &[u8] {
    let Some(close) = memchr::memchr(b']', &text[..text.len().min(40)]).filter(|_| text[0] == b'[') else {
        return text;
    };
    let time = text[1..close].trim_ascii();
    let counted = time.contains(&b'.') && time.iter().all(|b| b.is_ascii_digit() || *b == b'.');
    let dated = time.len() == 24 && time[0].is_ascii_uppercase() && time[3] == b' '; // dmesg -T
    if !counted && !dated {
        return text;
    }
    let mut rest = &text[close + 1..];
    if rest.first() == Some(&b'[')
        && let Some(close) = memchr::memchr(b']', &rest[..rest.len().min(24)])
    {
        rest = &rest[close + 1..];
    }
    let Some(rest) = rest.strip_prefix(b" ") else { return text };
    match memchr::memmem::find(&rest[..rest.len().min(72)], b" kernel: ") {
        Some(at) if !rest[..at].contains(&b' ') => &rest[at + 9..],
        _ => rest,
    }
}

/// `[  812.200000] text` or `[Mon Nov 23 10:00:00 2026] text`.
fn of_kernel_log(text: &[u8]) -> bool {
    text.first() == Some(&b'[')
        && memchr::memmem::find(&text[..text.len().min(40)], b"] ").is_some()
        && text.get(1).is_some_and(|b| b.is_ascii_digit() || *b == b' ' || b.is_ascii_uppercase())
}

/// A row of the osnoise tracer's table behind its time stamp, of Linux 5.14 to 7.0: `1000000  190  99.98100  9  18  0  1007  18
/// 1`, in microseconds: runtime, noise, share, longest; then how often hardware, NMIs, interrupts, soft interrupts, threads.
fn osnoise_row(text: &[u8]) -> Option<NoiseSums> {
    let mut words = text.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty());
    let mut us = || words.next().and_then(number)?.checked_mul(1000);
    let (runtime_ns, noise_ns) = (us()?, us()?);
    words.next().filter(|share| share.iter().all(|b| b.is_ascii_digit() || *b == b'.'))?;
    let max_single_ns = words.next().and_then(number)?.checked_mul(1000)?;
    let mut counts = [None; 5];
    for count in &mut counts {
        *count = Some(words.next().and_then(number)?);
    }
    let sums = NoiseSums { periods: 1, runtime_ns, noise_ns, max_period_ns: noise_ns, max_single_ns, counts };
    words.next().is_none().then_some(sums)
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
    // What Brendan Gregg's perf-tools print around the lines of trace_pipe.
    let of_perf_tools = text == b"^C"
        || text.starts_with(b"Ending tracing")
        || text.starts_with(b"Tracing ") && text.ends_with(b"Ctrl-C to end.")
        || text.starts_with(b"Tracing ") && text.ends_with(b" seconds...");
    if of_perf_tools {
        return Some(());
    }
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
                What::Switch { next_comm, next_pid, .. } => {
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
