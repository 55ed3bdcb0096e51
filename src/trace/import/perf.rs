//! `perf script`: `comm  pid [cpu] seconds: system:event: body`, with the call chain on indented lines behind it.
//!
//! Bodies are libtraceevent's, as in `trace-cmd report`; a probe set with `perf probe` carries its function's name.

use super::{
    Lexed, Sink,
    body::body_of,
    ftrace::Fault,
    scan::{decimal, hex, plain_function, spaces, symbol},
};
use crate::trace::{
    MAX_CPUS,
    event::{Event, Hole, HoleKind, Task, What},
};

const MAX_STACK: usize = 16 << 10;
/// A task perf has no number of.
const NOBODY: u32 = u32::MAX - MAX_CPUS;

/// The importer: it remembers whose call chain follows.
#[derive(Default)]
pub struct Perf {
    owner: Option<(u64, u32, u32, u64)>,
    comm: Vec<u8>,
    frames: Vec<u8>,
    events: u64,
    /// Events whose time is before that of the event in front of them.
    back: u64,
    last_ns: u64,
}

/// What a line says by itself; the rest is for [`Perf::plain`].
pub(super) fn lex(text: &[u8]) -> Lexed<'_> {
    if let Some(name) = frame(text) {
        return Lexed::Frame { text, name };
    }
    match event(text) {
        Ok(event) if !text.starts_with(b"#") => Lexed::Event(event),
        _ => Lexed::Plain(text),
    }
}

impl Perf {
    /// Reads one line and delivers what it says.
    pub fn line(&mut self, text: &[u8], number: u64, to: &mut impl Sink) -> Result<(), Fault> {
        self.apply(&mut lex(text), number, to)
    }

    /// Delivers what a line says, in the order of the lines.
    pub(super) fn apply(
        &mut self,
        lexed: &mut Lexed<'_>,
        number: u64,
        to: &mut impl Sink,
    ) -> Result<(), Fault> {
        match lexed {
            Lexed::Event(event) => {
                self.finish(to);
                event.line = number;
                self.owner = Some((event.at_ns, event.cpu, event.task.pid, number));
                self.events += 1;
                self.back += u64::from(event.at_ns < self.last_ns);
                self.last_ns = event.at_ns;
                self.comm.clear();
                self.comm.extend_from_slice(event.task.comm);
                to.event(event);
                Ok(())
            }
            Lexed::Frame { name, .. } => {
                if self.owner.is_some() && self.frames.len() < MAX_STACK {
                    self.frames.extend_from_slice(name);
                    self.frames.push(b'\n');
                }
                Ok(())
            }
            Lexed::Stack(_) => Ok(()), // of the kernel's own text
            Lexed::Plain(text) => self.plain(text, number, to),
        }
    }

    #[cold]
    fn plain(&mut self, text: &[u8], number: u64, to: &mut impl Sink) -> Result<(), Fault> {
        if text.trim_ascii().is_empty() {
            self.finish(to);
            return Ok(());
        }
        if text.starts_with(b"#") {
            return Ok(());
        }
        self.finish(to);
        if let Some(at) = memchr::memmem::find(text, b": PERF_RECORD_LOST") {
            // `app 5 [002] 15.000000: PERF_RECORD_LOST lost 42` of perf script --show-lost-events.
            let mut digit = memchr::memmem::rfind(&text[at..], b"lost ").map_or(text.len(), |l| at + l + 5);
            let hole = Hole {
                kind: HoleKind::Lost,
                cpu: bracketed(text),
                events: decimal(text, &mut digit),
                line: number,
            };
            to.hole(&hole);
            return Ok(());
        }
        event(text).map(|_| ())
    }

    /// Are the times differences? perf script sorts by time, so real ones hardly ever step back.
    pub fn is_deltas(&self) -> bool {
        self.back > 2 && self.back * 8 > self.events
    }

    /// Delivers a call chain that a blank line, the next event or the end of the text has closed.
    pub fn finish(&mut self, to: &mut impl Sink) {
        let Some((at_ns, cpu, pid, line)) = self.owner.take() else { return };
        if self.frames.is_empty() {
            return;
        }
        let task = Task { comm: &self.comm, pid, tgid: None };
        let what = What::Stack { frames: &self.frames };
        to.event(&Event { at_ns, cpu, task, in_interrupt: None, line, what });
        self.frames.clear();
    }
}

/// `\tffffffff8faae744 flush_tlb_kernel_range+0x4 ([kernel.kallsyms])`
fn frame(text: &[u8]) -> Option<&[u8]> {
    let inner = text.trim_ascii_start();
    if inner.len() == text.len() {
        return None;
    }
    let space = memchr::memchr(b' ', inner)?;
    if space < 8 || hex(&inner[..space]).is_none() {
        return None;
    }
    let name = &inner[space + 1..];
    Some(plain_function(symbol(&name[..memchr::memchr(b' ', name).unwrap_or(name.len())])))
}

/// The CPU in brackets.
fn bracketed(text: &[u8]) -> Option<u32> {
    let mut at = memchr::memchr(b'[', text)? + 1;
    let cpu = decimal(text, &mut at).filter(|cpu| *cpu < u64::from(MAX_CPUS))?;
    (text.get(at) == Some(&b']')).then_some(cpu as u32)
}

fn event(text: &[u8]) -> Result<Event<'_>, Fault> {
    const WANT: &str = "expected `task pid [cpu] time: event:`";
    for open in memchr::memchr_iter(b'[', &text[..text.len().min(80)]) {
        let mut at = open + 1;
        let Some(cpu) = decimal(text, &mut at) else { continue };
        if text.get(at) != Some(&b']') {
            continue;
        }
        let who = text[..open].trim_ascii_end();
        // `perf script -F tid,cpu,time,event,trace` has no name, and without tid no task at all.
        let space = memchr::memrchr(b' ', who).map_or(0, |space| space + 1);
        let nobody = who.is_empty();
        // `pid`, or `pid/tid`; the thread is what ftrace calls pid.
        let ids = &who[space..];
        let slash = memchr::memchr(b'/', ids);
        let thread = slash.map_or(ids, |s| &ids[s + 1..]);
        let mut end = 0;
        // perf knows of no task for some samples: `:-1    -1/-1   [002]`.
        let pid = match thread {
            b"-1" => Some(u64::from(NOBODY)),
            b"" if nobody => Some(u64::from(u32::MAX).wrapping_sub(cpu)),
            _ => decimal(thread, &mut end),
        };
        let Some(pid) = pid.filter(|_| end == thread.len() || thread == b"-1") else { continue };
        if cpu >= u64::from(MAX_CPUS) {
            return Err((open + 1, "CPU number is beyond 8191"));
        }
        let pid = u32::try_from(pid).map_err(|_| (space, "task id does not fit 32 bits"))?;
        let comm = who[..space].trim_ascii();
        at += 1;
        spaces(text, &mut at);
        if text.get(at).is_some_and(|b| b.is_ascii_alphabetic() || *b == b'.') {
            // A column of flags.
            at += memchr::memchr(b' ', &text[at..]).ok_or((at, "expected a time stamp"))?;
            spaces(text, &mut at);
        }
        let seconds = decimal(text, &mut at).ok_or((at, "expected a time stamp"))?;
        if text.get(at) != Some(&b'.') {
            return Err((at, "expected a time stamp"));
        }
        at += 1;
        let from = at;
        let fraction = decimal(text, &mut at).ok_or((at, "expected a time stamp"))?;
        let digits = at - from;
        if digits > 9 || text.get(at) != Some(&b':') {
            return Err((at, "expected `:` behind the time stamp"));
        }
        let at_ns = seconds
            .checked_mul(1_000_000_000)
            .and_then(|s| s.checked_add(fraction * 10u64.pow(9 - digits as u32)))
            .ok_or((from, "time stamp does not fit 64 bits of nanoseconds"))?;
        at += 1;
        spaces(text, &mut at);
        // A count may stand before the event (`1 csd:csd_queue_cpu:`).
        let counted = at;
        if decimal(text, &mut at).is_none() || text.get(at) != Some(&b' ') {
            at = counted;
        }
        spaces(text, &mut at);
        let rest = &text[at..];
        let token = &rest[..memchr::memchr(b' ', rest).unwrap_or(rest.len())];
        let token = token.strip_suffix(b":").ok_or((at, "expected `system:event:`"))?;
        let colon = memchr::memchr(b':', token);
        if nobody && colon.is_none() {
            return Err((at, "expected `system:event:`")); // of any log
        }
        let name = colon.map_or(token, |colon| &token[colon + 1..]);
        let body = rest[token.len() + 1..].trim_ascii_start();
        let what = body_of(name, body).map_err(|why| (text.len() - body.len(), why))?;
        let task =
            Task { comm: if comm.is_empty() || comm == b":-1" { b"<...>" } else { comm }, pid, tgid: None };
        let cpu = cpu as u32;
        return Ok(Event { at_ns, cpu, task, in_interrupt: None, line: 0, what });
    }
    Err((0, WANT))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[derive(Default)]
    struct Seen(Vec<String>);

    impl Sink for Seen {
        fn event(&mut self, e: &Event<'_>) {
            let comm = String::from_utf8_lossy(e.task.comm);
            let what = match e.what {
                What::CsdQueue { cpu, func, .. } => {
                    format!("queue {} for {cpu}", String::from_utf8_lossy(func))
                }
                What::Stack { frames } => String::from_utf8_lossy(frames).trim().replace('\n', "<"),
                What::Probe { name, args, .. } => {
                    format!("probe {} {}", String::from_utf8_lossy(name), String::from_utf8_lossy(args))
                }
                other => format!("{other:?}"),
            };
            self.0.push(format!("{comm}/{} cpu{} {}: {what}", e.task.pid, e.cpu, e.at_ns));
        }
        fn hole(&mut self, hole: &Hole) {
            self.0.push(format!("lost {:?} on {:?}", hole.events, hole.cpu));
        }
    }

    #[test]
    fn what_perf_lost_is_a_hole_and_a_column_of_flags_is_skipped() {
        let text = "\
             app     5 [002] d.h.  10.000000:          irq_vectors:local_timer_entry: vector=236
             app     5 [002]    15.000000: PERF_RECORD_LOST lost 42
";
        let (mut seen, mut perf) = (Seen::default(), Perf::default());
        for (n, line) in text.lines().enumerate() {
            perf.line(line.as_bytes(), n as u64 + 1, &mut seen).expect("parses");
        }
        assert!(seen.0[0].starts_with("app/5 cpu2 10000000000: IrqEntry"), "{}", seen.0[0]);
        assert_eq!(seen.0[1], "lost Some(42) on Some(2)");
    }

    #[test]
    fn events_and_call_chains_are_read() {
        let text = "\
     kworker/1:0  2282 [001]   473.182882:              csd:csd_queue_cpu: cpu=2 callsite=on_each_cpu_cond_mask+0x24 func=do_flush_tlb_all csd=0xffff8aaa
\tffffffff8faae744 flush_tlb_kernel_range+0x4 ([kernel.kallsyms])
\tffffffff8fbb0000 drain_vmap_area_work+0x10 ([kernel.kallsyms])

  my prog-1 [y]  77/78 [002] 1.500000123: probe:flush_tlb_kernel_range: (ffffffff8faae744) start=0x1 end=0x2
            spin   636 [002]     1.600000:     1 context_tracking:user_exit:
";
        let (mut seen, mut perf) = (Seen::default(), Perf::default());
        for (n, line) in text.lines().enumerate() {
            perf.line(line.as_bytes(), n as u64 + 1, &mut seen).expect("parses");
        }
        perf.finish(&mut seen);
        assert_eq!(
            seen.0,
            [
                "kworker/1:0/2282 cpu1 473182882000: queue do_flush_tlb_all for 2",
                "kworker/1:0/2282 cpu1 473182882000: flush_tlb_kernel_range<drain_vmap_area_work",
                "my prog-1 [y]/78 cpu2 1500000123: probe flush_tlb_kernel_range start=0x1 end=0x2",
                "spin/636 cpu2 1600000000: UserExit",
            ]
        );
    }

    #[test]
    fn columns_of_the_task_may_be_left_out() {
        let text = "\
[003] 100.000000: irq_vectors:local_timer_entry: vector=236
  700 [003] 100.000004: irq_vectors:local_timer_exit: vector=236
";
        let (mut seen, mut perf) = (Seen::default(), Perf::default());
        for (n, line) in text.lines().enumerate() {
            perf.line(line.as_bytes(), n as u64 + 1, &mut seen).expect("parses");
        }
        assert!(seen.0[0].starts_with("<...>/4294967292 cpu3 100000000000: IrqEntry"), "{}", seen.0[0]);
        assert!(seen.0[1].starts_with("<...>/700 cpu3 100000004000: IrqExit"), "{}", seen.0[1]);
        assert!(Perf::default().line(b"[003] 100.5: something: failed", 1, &mut Seen::default()).is_err());
    }

    #[test]
    fn prose_is_no_event() {
        assert!(Perf::default().line(b"see [1] for more", 1, &mut Seen::default()).is_err());
    }
}
