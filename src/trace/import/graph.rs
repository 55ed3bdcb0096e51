//! The function_graph tracer: ` 2)   1.234 us    |  do_flush_tlb_all();`, nested calls with their durations.
//!
//! Interrupt entry functions become interrupts, functions that CPUs are asked to run become calls, and trace events
//! stand in comments. Without the `funcgraph-abstime` option there is no clock: lengths are known, rates are not.

use super::{
    Sink,
    body::body_of,
    ftrace::Fault,
    scan::{decimal, plain_function, spaces},
};
use crate::trace::{
    MAX_CPUS,
    cause::signature::origin,
    event::{Event, Task, Vector, What},
};

const MAX_DEPTH: usize = 4096;
const INTERRUPTS: &[&[u8]] =
    &[b"hrtimer_interrupt", b"__hrtimer_run_queues", b"irq_enter_rcu", b"handle_irq_event"];

/// The importer: per CPU how deep the calls are, and at which depth an interrupt began.
#[derive(Default)]
pub struct Graph {
    cpus: Vec<Cpu>,
    told: bool,
}

#[derive(Clone, Default)]
struct Cpu {
    /// Names of the calls that are open, one behind the other, and where each begins.
    names: Vec<u8>,
    starts: Vec<usize>,
    irq: Option<(usize, Vector, u64)>,
    clock_ns: u64,
}

impl Cpu {
    fn enter(&mut self, name: &[u8]) {
        self.starts.push(self.names.len());
        self.names.extend_from_slice(name);
        if self.starts.len() > MAX_DEPTH {
            (self.names, self.starts) = (Vec::new(), Vec::new()); // closing braces were lost
        }
    }

    fn leave(&mut self) {
        if let Some(start) = self.starts.pop() {
            self.names.truncate(start);
        }
    }

    /// The calls that are open, innermost first.
    fn frames(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let ends = self.starts.iter().skip(1).copied().chain([self.names.len()]);
        self.starts.iter().zip(ends.collect::<Vec<_>>()).map(|(&from, to)| &self.names[from..to]).rev()
    }

    /// In an interrupt or the function of a timer, so that the task is only who was interrupted.
    fn in_interrupt(&self) -> bool {
        self.irq.is_some()
            || self.frames().any(|f| vector(f).is_some() || INTERRUPTS.contains(&f) || f.ends_with(b"_timer"))
    }
}

struct Line<'a> {
    at_ns: Option<u64>,
    cpu: u32,
    duration_ns: u64,
    call: &'a [u8],
}

impl Graph {
    /// Is this text the output of the tracer? Its lines have `N) ` in front of a bar.
    pub fn recognises(text: &[u8]) -> bool {
        memchr::memchr(b'|', text).is_some() && parse(text).is_ok()
    }

    /// Reads one line and delivers what it says.
    pub fn line(&mut self, text: &[u8], number: u64, to: &mut impl Sink) -> Result<(), Fault> {
        let inner = text.trim_ascii();
        if inner.is_empty() || inner.starts_with(b"#") || inner.starts_with(b"------") || has(inner, b" => ")
        {
            return Ok(());
        }
        let line = parse(text)?;
        if line.at_ns.is_none() && !self.told {
            to.note(b"clock", b"none");
            self.told = true;
        }
        let index = line.cpu as usize;
        if index >= self.cpus.len() {
            self.cpus.resize_with(index + 1, Cpu::default);
        }
        let cpu = &mut self.cpus[index];
        let at_ns = line.at_ns.unwrap_or(cpu.clock_ns);
        cpu.clock_ns = at_ns;
        let mut tell = |at_ns: u64, in_interrupt: Option<bool>, what: What<'_>| {
            // The tracer names no task; each CPU counts as one.
            let task = Task { comm: b"", pid: u32::MAX - line.cpu, tgid: None };
            to.event(&Event { at_ns, cpu: line.cpu, task, in_interrupt, line: number, what });
        };
        let call = line.call;
        if let Some(comment) = call.strip_prefix(b"/* ").and_then(|c| c.strip_suffix(b" */")) {
            // `/* csd_queue_cpu: cpu=1 ... */`
            if let Some(colon) = memchr::memchr(b':', comment) {
                let body = comment[colon + 1..].trim_ascii_start();
                if let Ok(what) = body_of(&comment[..colon], body) {
                    let origin = origin(&cpu.frames());
                    tell(at_ns, cpu.in_interrupt().then_some(true), from_place(what, origin));
                }
            }
        } else if call.starts_with(b"}") {
            cpu.leave();
            if let Some((depth, vector, began)) = cpu.irq
                && depth == cpu.starts.len()
            {
                cpu.irq = None;
                // With a clock this line has its own time; the duration is exact either way.
                cpu.clock_ns = began + line.duration_ns;
                tell(cpu.clock_ns, None, What::IrqExit { vector });
            }
        } else if let Some(paren) = memchr::memchr(b'(', call) {
            let name = plain_function(&call[..paren]);
            let opens = call.ends_with(b"{");
            if cpu.irq.is_none()
                && let Some(vector) = vector(name)
            {
                tell(at_ns, None, What::IrqEntry { vector, name });
                if opens {
                    cpu.irq = Some((cpu.starts.len(), vector, at_ns));
                } else {
                    cpu.clock_ns = at_ns + line.duration_ns;
                    tell(cpu.clock_ns, None, What::IrqExit { vector });
                }
            } else {
                tell(at_ns, None, What::Probe { name, function: name, returns: false, args: b"" });
            }
            if opens {
                cpu.enter(name);
            }
        }
        Ok(())
    }
}

/// The tracer replaces return addresses, so events print `return_to_handler` as the place they come from.
fn from_place<'a>(what: What<'a>, origin: Option<&'a [u8]>) -> What<'a> {
    let place = |callsite: &'a [u8]| {
        if callsite == b"return_to_handler" { origin.unwrap_or(callsite) } else { callsite }
    };
    match what {
        What::CsdQueue { cpu, func, callsite, csd } => {
            What::CsdQueue { cpu, func, callsite: place(callsite), csd }
        }
        What::IpiSend { cpu, callsite, callback } => {
            What::IpiSend { cpu, callsite: place(callsite), callback }
        }
        What::IpiSendMask { mask, callsite, callback } => {
            What::IpiSendMask { mask, callsite: place(callsite), callback }
        }
        other => other,
    }
}

fn has(text: &[u8], what: &[u8]) -> bool {
    memchr::memmem::find(text, what).is_some()
}

/// Vectors by their entry functions (`arch/x86/include/asm/idtentry.h`), whichever of its wrappers is traced.
fn vector(name: &[u8]) -> Option<Vector> {
    let stem = name.strip_prefix(b"asm_").unwrap_or(name);
    let stem = stem.strip_prefix(b"__").unwrap_or(stem).strip_prefix(b"sysvec_")?;
    Some(Vector::of_x86(stem).unwrap_or(Vector::Platform))
}

/// `[time |] CPU) [task-pid |] [mark] [duration us] | call`
fn parse(text: &[u8]) -> Result<Line<'_>, Fault> {
    let mut at = 0;
    spaces(text, &mut at);
    let mut at_ns = None;
    let start = at;
    let mut first = decimal(text, &mut at).ok_or((at, "expected `CPU)`"))?;
    if text.get(at) == Some(&b'.') {
        let from = at + 1;
        at = from;
        let fraction =
            decimal(text, &mut at).filter(|_| at - from <= 9).ok_or((from, "expected a time stamp"))?;
        let scale = 10u64.pow(9 - (at - from) as u32);
        at_ns = first.checked_mul(1_000_000_000).and_then(|s| s.checked_add(fraction * scale));
        spaces(text, &mut at);
        if text.get(at) != Some(&b'|') || at_ns.is_none() {
            return Err((start, "expected a time stamp and `|`"));
        }
        at += 1;
        spaces(text, &mut at);
        first = decimal(text, &mut at).ok_or((at, "expected `CPU)`"))?;
    }
    if text.get(at) != Some(&b')') || first >= u64::from(MAX_CPUS) {
        return Err((at, "expected `CPU)`"));
    }
    let bar =
        memchr::memrchr(b'|', text).filter(|&bar| bar > at).ok_or((at, "expected `|` in front of a call"))?;
    let before = &text[at + 1..bar];
    let duration_ns = memchr::memmem::find(before, b" us").map_or(0, |us| micros(&before[..us]));
    let mut call = text[bar + 1..].trim_ascii();
    // Who called it, what it returned, or which call a brace ends: `f() { /* <-g */`, `} /* f */`.
    if !call.starts_with(b"/*")
        && let Some(comment) = memchr::memmem::find(call, b" /*")
    {
        call = call[..comment].trim_ascii_end();
    }
    Ok(Line { at_ns, cpu: first as u32, duration_ns, call })
}

/// `... ! 123.456` in nanoseconds.
fn micros(text: &[u8]) -> u64 {
    let from = text.iter().rposition(|b| !(b.is_ascii_digit() || *b == b'.')).map_or(0, |i| i + 1);
    let number = &text[from..];
    let mut at = 0;
    let whole = decimal(number, &mut at).unwrap_or(0);
    let mut thousandths = 0;
    if number.get(at) == Some(&b'.') {
        let digits = number[at + 1..].iter().chain(b"000").take(3);
        thousandths = digits.fold(0, |v, b| v * 10 + u64::from(b.wrapping_sub(b'0')));
    }
    whole.saturating_mul(1000).saturating_add(thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::event::Hole;

    #[derive(Default)]
    struct Seen(Vec<String>);

    impl Sink for Seen {
        fn event(&mut self, e: &Event<'_>) {
            let what = match e.what {
                What::IrqEntry { vector, .. } => format!("{} begins", vector.name()),
                What::IrqExit { vector } => format!("{} ends", vector.name()),
                What::Probe { function, .. } => String::from_utf8_lossy(function).into_owned(),
                What::CsdEntry { func, .. } => format!("csd {}", String::from_utf8_lossy(func)),
                other => format!("{other:?}"),
            };
            self.0.push(format!("{} {}: {what}", e.cpu, e.at_ns));
        }
        fn hole(&mut self, _: &Hole) {}
        fn note(&mut self, key: &[u8], value: &[u8]) {
            self.0.push(format!("{}={}", String::from_utf8_lossy(key), String::from_utf8_lossy(value)));
        }
    }

    fn read(text: &str) -> Vec<String> {
        let (mut seen, mut graph) = (Seen::default(), Graph::default());
        for (n, line) in text.lines().enumerate() {
            graph.line(line.as_bytes(), n as u64 + 1, &mut seen).expect(line);
        }
        seen.0
    }

    #[test]
    fn nested_entry_functions_are_one_interrupt_with_its_length() {
        let text = "\
# tracer: function_graph
 2)               |  sysvec_call_function() {
 2)               |    __sysvec_call_function() {
 2)               |      /* csd_function_entry: func=do_flush_tlb_all, csd=00000000d32e82b2 */
 2)   0.500 us    |      do_flush_tlb_all();
 2) + 11.250 us   |    }
 2) + 12.345 us   |  }
";
        assert_eq!(
            read(text),
            [
                "clock=none",
                "2 0: call_function begins",
                "2 0: __sysvec_call_function",
                "2 0: csd do_flush_tlb_all",
                "2 0: do_flush_tlb_all",
                "2 12345: call_function ends",
            ]
        );
    }

    #[test]
    fn comments_behind_a_call_change_nothing() {
        let text = "\
 2)   app-5   |               |  sysvec_call_function_single() { /* <-asm_sysvec_call_function_single */
 2)   app-5   |   3.000 us    |  } /* sysvec_call_function_single ret=0x0 */
";
        assert_eq!(
            read(text),
            ["clock=none", "2 0: call_function_single begins", "2 3000: call_function_single ends"]
        );
    }

    #[test]
    fn absolute_times_are_used_where_the_option_gives_them() {
        let text = "   10.000005 |   3)   1.000 us    |  sysvec_apic_timer_interrupt();\n";
        assert_eq!(read(text), ["3 10000005000: local_timer begins", "3 10000006000: local_timer ends"]);
    }

    #[test]
    fn prose_and_switches_are_no_calls() {
        assert!(!Graph::recognises(b"a table | of prose"));
        assert!(!Graph::recognises(b"            init-1       [000] .....   443.5: user_exit: "));
        assert_eq!(read(" 0)  bash-123 => kworker-12\n"), [""; 0]);
    }
}
