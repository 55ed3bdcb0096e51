//! Tools that print sums and no events: `rtla osnoise top`, `rtla hwnoise`, `rtla timerlat top` and `hist`, `perf stat -A`.
//!
//! A tool without `-q` prints its table again and again; the last one counts. Sums are delivered when the text ends,
//! because the time they cover may stand behind them. Shapes are those of tools/tracing/rtla and tools/perf (stat-display)
//! of Linux 5.17 to 7.0.

use rustc_hash::FxHashMap;

use super::{
    Sink,
    ftrace::Fault,
    other::{NOISE_HISTOGRAM as NOISE_HISTOGRAM_OF_RTLA, PERF_STAT, RTLA, Refusal},
    scan::{decimal, number},
};
use crate::trace::{
    MAX_CPUS,
    event::{Event, NoiseSums, Sum, Task, Vector, What},
};

/// Buckets of noise cannot be summed, and how long was measured is not printed.
pub(super) const NOISE_HISTOGRAM: &str = "a histogram of noise, without the time that was measured";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    /// Columns HW, NMI, IRQ, softirq, thread behind six of times.
    Osnoise,
    /// Only the first two of them: interrupts were off.
    Hwnoise,
    Timerlat,
    TimerlatHist,
    OsnoiseHist,
    PerfStat,
}

/// One row of a table.
#[derive(Clone, Debug)]
enum Row {
    Noise(NoiseSums),
    /// Context, how many, mean and longest in the tool's unit.
    Latency(&'static [u8], Option<u64>, Option<u64>, u64),
    /// Event, how many, and for how many nanoseconds it was counted, if the row says.
    Count(Vec<u8>, u64, Option<u64>),
}

/// CPU and context of a column of a histogram, and what its rows say: number, mean, longest.
type Column = (u32, &'static [u8], [Option<u64>; 3]);

/// The importer.
#[derive(Debug)]
pub struct Sums {
    tool: Tool,
    rows: Vec<(u32, u64, Row)>,
    over_ns: u64,
    /// What the tool's times are multiples of.
    unit_ns: u64,
    /// Of a histogram.
    columns: Vec<Column>,
    /// `perf stat -C 2` counts one CPU and prints no column for it.
    only_cpu: Option<u32>,
    /// What follows is not about tables.
    over: bool,
    delivered: usize,
}

fn has(text: &[u8], what: &[u8]) -> bool {
    memchr::memmem::find(text, what).is_some()
}

/// Colours and the order to clear the screen, which rtla prints on a terminal, left out.
fn plain(text: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    if memchr::memchr(0x1b, text).is_none() {
        return text.into();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        at += 1;
        if byte != 0x1b {
            out.push(byte);
        } else if text.get(at) == Some(&b'[') {
            at += 1;
            while text.get(at).is_some_and(|b| !b.is_ascii_alphabetic()) {
                at += 1;
            }
            at += 1;
        } else {
            at += 1;
        }
    }
    out.into()
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    text.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty())
}

/// `CPU2`, or `S0-D0-C1`-like names of sockets and cores, which are no CPU.
fn cpu_of(word: &[u8]) -> Option<u32> {
    number(word.strip_prefix(b"CPU")?).and_then(|n| u32::try_from(n).ok()).filter(|n| *n < MAX_CPUS)
}

/// `0 00:01:00`: days, hours, minutes, seconds.
fn days_and_clock(text: &[u8]) -> Option<u64> {
    let mut found = words(text);
    let days = number(found.next()?)?;
    let clock = found.next()?;
    let mut parts = clock.split(|b| *b == b':');
    let [h, m, s] = [parts.next()?, parts.next()?, parts.next()?].map(number);
    days.checked_mul(24)?.checked_add(h?)?.checked_mul(60)?.checked_add(m?)?.checked_mul(60)?.checked_add(s?)
}

/// `12.345678` in nanoseconds.
fn fraction_ns(word: &[u8]) -> Option<u64> {
    let mut at = 0;
    let whole = decimal(word, &mut at)?.checked_mul(1_000_000_000)?;
    if at == word.len() {
        return Some(whole);
    }
    let digits = &word[at..].strip_prefix(b".")?;
    let nine: Vec<u8> = digits.iter().chain(b"000000000").take(9).copied().collect();
    digits.iter().all(u8::is_ascii_digit).then(|| number(&nine)).flatten().map(|ns| whole + ns)
}

/// `1,234`; a fraction is no count.
fn count_of(word: &[u8]) -> Option<u64> {
    let digits: Vec<u8> = word.iter().copied().filter(|b| *b != b',').collect();
    number(&digits)
}

impl Sums {
    /// The importer for a text that begins with such a line.
    pub fn recognise(text: &[u8]) -> Option<Self> {
        let text = plain(text);
        let inner = text.trim_ascii();
        let tool = if inner == b"Operating System Noise" {
            Tool::Osnoise
        } else if inner == b"Hardware-related Noise" {
            Tool::Hwnoise
        } else if inner == b"Timer Latency" || has(inner, b"|          IRQ Timer Latency (") {
            Tool::Timerlat
        } else if inner == b"# RTLA timerlat histogram" {
            Tool::TimerlatHist
        } else if inner.starts_with(b"# RTLA ") && inner.ends_with(b"noise histogram") {
            Tool::OsnoiseHist
        } else if inner.starts_with(b"Performance counter stats for ") || csv(inner).is_some() {
            Tool::PerfStat
        } else {
            return None;
        };
        let (over_ns, unit_ns) = (0, 1000);
        Some(Self {
            tool,
            rows: vec![],
            over_ns,
            unit_ns,
            columns: vec![],
            only_cpu: None,
            over: false,
            delivered: 0,
        })
    }

    /// Reads one line.
    pub fn line(&mut self, text: &[u8], line: u64) -> Result<(), Fault> {
        let text = plain(text);
        let inner = text.trim_ascii();
        if inner.is_empty() || self.over {
            return Ok(());
        }
        match self.tool {
            Tool::Osnoise | Tool::Hwnoise => self.noise(inner, line),
            Tool::Timerlat => self.timerlat(inner, line),
            Tool::TimerlatHist => self.histogram(inner),
            Tool::OsnoiseHist => Err((0, NOISE_HISTOGRAM)),
            Tool::PerfStat => self.perf(inner, line),
        }
    }

    fn noise(&mut self, inner: &[u8], line: u64) -> Result<(), Fault> {
        const WANT: &str = "expected `CPU #periods runtime noise ...`";
        if inner.ends_with(b"Noise") {
            self.rows.clear();
            return Ok(());
        }
        if let Some(rest) = inner.strip_prefix(b"duration:") {
            self.over_ns = days_and_clock(rest).ok_or((9, "expected a duration"))? * 1_000_000_000;
            return Ok(());
        }
        if inner.starts_with(b"CPU ") || inner.starts_with(b"rtla") || inner.starts_with(b"Saving") {
            return Ok(());
        }
        let mut found = words(inner);
        let cpu = found.next().and_then(number).filter(|c| *c < u64::from(MAX_CPUS)).ok_or((0, WANT))?;
        let periods = found.next().and_then(|w| number(w.strip_prefix(b"#")?)).ok_or((0, WANT))?;
        let rest: Vec<&[u8]> = found.collect();
        let counts = if self.tool == Tool::Osnoise { 5 } else { 2 };
        if rest.len() != 5 + counts {
            return Err((0, WANT));
        }
        let us = |at: usize| number(rest[at]).and_then(|us| us.checked_mul(1000)).ok_or((0, WANT));
        let mut of = [None; 5];
        for (i, count) in of.iter_mut().enumerate().take(counts) {
            *count = Some(number(rest[5 + i]).ok_or((0, WANT))?);
        }
        let sums = NoiseSums {
            periods,
            runtime_ns: us(0)?,
            noise_ns: us(1)?,
            max_period_ns: us(3)?,
            max_single_ns: us(4)?,
            counts: of,
        };
        self.rows.push((cpu as u32, line, Row::Noise(sums)));
        Ok(())
    }

    fn timerlat(&mut self, inner: &[u8], line: u64) -> Result<(), Fault> {
        const WANT: &str = "expected `CPU #count | cur min avg max | ...`";
        if inner == b"Timer Latency" {
            self.rows.clear();
            return Ok(());
        }
        if has(inner, b"hit stop tracing") {
            self.over = true; // what follows analyses one wakeup
            return Ok(());
        }
        let mut columns = inner.split(|b| *b == b'|');
        let first = columns.next().unwrap_or_default();
        if let Some(seconds) = days_and_clock(first) {
            self.rows.clear();
            self.over_ns = seconds * 1_000_000_000;
            self.unit_ns = if has(inner, b"(ns)") { 1 } else { 1000 };
            return Ok(());
        }
        if ["CPU ", "ALL ", "---", "rtla", "Saving"].iter().any(|w| inner.starts_with(w.as_bytes())) {
            return Ok(());
        }
        let mut found = words(first);
        let cpu = found.next().and_then(number).filter(|c| *c < u64::from(MAX_CPUS)).ok_or((0, WANT))?;
        let n = found.next().and_then(|w| number(w.strip_prefix(b"#")?)).ok_or((0, WANT))?;
        for (i, (column, context)) in columns.zip([&b"irq"[..], b"thread", b"user-ret"]).enumerate() {
            let mut values = words(column).skip(2);
            let (Some(mean), Some(longest)) = (values.next(), values.next()) else {
                return Err((0, WANT));
            };
            // `-` where nothing was measured. Only the interrupt's count is printed.
            if let (Some(mean), Some(longest)) = (number(mean), number(longest)) {
                let row = Row::Latency(context, (i == 0).then_some(n), Some(mean), longest);
                self.rows.push((cpu as u32, line, row));
            }
        }
        Ok(())
    }

    fn histogram(&mut self, inner: &[u8]) -> Result<(), Fault> {
        if let Some(rest) = inner.strip_prefix(b"# Duration:") {
            self.over_ns = days_and_clock(rest).unwrap_or(0) * 1_000_000_000;
        } else if inner.starts_with(b"# Time unit") {
            self.unit_ns = if has(inner, b"(ns)") { 1 } else { 1000 };
        } else if inner.starts_with(b"Index") {
            self.columns.clear();
            for word in words(inner).skip(1) {
                let context: &[u8] = match word.get(..4) {
                    Some(b"IRQ-") => b"irq",
                    Some(b"Thr-") => b"thread",
                    Some(b"Usr-") => b"user-ret",
                    _ => return Err((0, "expected columns IRQ-, Thr- and Usr-")),
                };
                let cpu = number(&word[4..]).filter(|c| *c < u64::from(MAX_CPUS));
                let cpu = cpu.ok_or((0, "expected a CPU number"))?;
                self.columns.push((cpu as u32, context, [None; 3]));
            }
        } else if inner.starts_with(b"ALL:") || has(inner, b"hit stop tracing") {
            self.over = true;
        } else if let Some(place) =
            [&b"count:"[..], b"avg:", b"max:"].iter().position(|k| inner.starts_with(k))
        {
            for (column, word) in self.columns.iter_mut().zip(words(inner).skip(1)) {
                let mut at = 0;
                column.2[place] = decimal(word, &mut at); // newer ones print a mean with decimals
            }
        } else if !inner.starts_with(b"#")
            && !inner.starts_with(b"over:")
            && !inner.starts_with(b"min:")
            && words(inner).next().and_then(number).is_none()
        {
            return Err((0, "expected a row of the histogram"));
        }
        Ok(())
    }

    fn perf(&mut self, inner: &[u8], line: u64) -> Result<(), Fault> {
        if let Some(rest) = inner.strip_prefix(b"Performance counter stats for ") {
            let one = rest.strip_prefix(b"'CPU(s) ").and_then(|r| r.strip_suffix(b"':"));
            self.only_cpu =
                one.and_then(number).and_then(|c| u32::try_from(c).ok()).filter(|c| *c < MAX_CPUS);
            return Ok(());
        }
        if let Some(end) = memchr::memmem::find(inner, b" seconds time elapsed") {
            // `10.0034 +- 0.0012 seconds time elapsed` of several runs: their mean.
            let word = words(&inner[..end]).next().unwrap_or_default();
            self.over_ns = fraction_ns(word).ok_or((0, "expected seconds"))?;
            return Ok(());
        }
        if let Some((cpu, n, event, ns)) = csv(inner) {
            if let Some(n) = n {
                self.rows.push((cpu, line, Row::Count(event.to_vec(), n, ns)));
            }
            return Ok(());
        }
        if inner.starts_with(b"#")
            || [&b" seconds user"[..], b" seconds sys"].iter().any(|e| inner.ends_with(e))
            || inner.starts_with(b"CPU ")
        {
            return Ok(());
        }
        let mut found = words(inner).peekable();
        // With -I each row begins with the time since the beginning.
        let first = found.peek().copied().unwrap_or_default();
        if memchr::memchr(b'.', first).is_some()
            && let Some(ns) = fraction_ns(first)
            && found.clone().nth(1).is_some_and(|w| cpu_of(w).is_some())
        {
            self.over_ns = self.over_ns.max(ns);
            found.next();
        }
        let cpu = match found.peek().and_then(|w| cpu_of(w)) {
            Some(cpu) => {
                found.next();
                cpu
            }
            None => self.only_cpu.ok_or((0, "expected `CPUn` in front of the count (perf stat -A)"))?,
        };
        let value = found.next().ok_or((0, "expected a count"))?;
        let event = found.next().ok_or((0, "expected an event"))?;
        // `<not counted> event`, and values with a unit such as `10,003.12 msec cpu-clock`, say nothing here.
        if let Some(n) = count_of(value) {
            self.rows.push((cpu, line, Row::Count(event.to_vec(), n, None)));
        }
        Ok(())
    }

    /// Why the whole says nothing, if no row did.
    pub(super) fn refused(&self) -> Option<&'static Refusal> {
        if self.delivered > 0 {
            return None;
        }
        Some(match self.tool {
            Tool::Osnoise | Tool::Hwnoise | Tool::Timerlat | Tool::TimerlatHist => &RTLA,
            Tool::OsnoiseHist => &NOISE_HISTOGRAM_OF_RTLA,
            Tool::PerfStat => &PERF_STAT,
        })
    }

    /// Delivers the sums.
    pub fn finish(&mut self, to: &mut impl Sink) {
        let of_columns = std::mem::take(&mut self.columns).into_iter().filter_map(|(cpu, context, says)| {
            Some((cpu, 0, Row::Latency(context, says[0].filter(|n| *n > 0), says[1], says[2]?)))
        });
        let mut rows: Vec<_> = std::mem::take(&mut self.rows).into_iter().chain(of_columns).collect();
        // One row per CPU and event: with -I there is one per interval.
        let mut whole: FxHashMap<(u32, Vec<u8>), usize> = FxHashMap::default();
        let mut kept: Vec<(u32, u64, Row)> = Vec::with_capacity(rows.len());
        for (cpu, line, row) in rows.drain(..) {
            if let Row::Count(event, n, ns) = &row {
                if let Some(&at) = whole.get(&(cpu, event.clone())) {
                    if let Row::Count(_, sum, over) = &mut kept[at].2 {
                        *sum = sum.saturating_add(*n);
                        *over = over.zip(*ns).map(|(a, b)| a.saturating_add(b));
                    }
                    continue;
                }
                whole.insert((cpu, event.clone()), kept.len());
            }
            kept.push((cpu, line, row));
        }
        self.delivered = kept.len();
        let over_ns = self.over_ns;
        for (cpu, line, row) in &kept {
            let sum = match row {
                Row::Noise(sums) => Sum::Noise(*sums),
                Row::Latency(context, n, mean, longest) => Sum::Latency {
                    context,
                    n: *n,
                    mean_ns: mean.map(|m| m.saturating_mul(self.unit_ns)),
                    max_ns: longest.saturating_mul(self.unit_ns),
                    over_ns,
                },
                Row::Count(event, n, ns) => {
                    let name = memchr::memchr(b':', event).map_or(&event[..], |colon| &event[colon + 1..]);
                    Sum::Count { vector: counted(name), name, n: *n, over_ns: ns.unwrap_or(over_ns) }
                }
            };
            let at_ns = match &sum {
                Sum::Noise(noise) => noise.runtime_ns,
                Sum::Latency { over_ns, .. } | Sum::Count { over_ns, .. } => *over_ns,
            };
            let task = Task { comm: b"", pid: u32::MAX - cpu, tgid: None };
            to.event(&Event {
                at_ns,
                cpu: *cpu,
                task,
                in_interrupt: None,
                line: *line,
                what: What::Sum(&sum),
            });
        }
    }
}

/// The vector whose entries an event counts.
fn counted(name: &[u8]) -> Option<Vector> {
    match name {
        b"irq_handler_entry" => Some(Vector::Device),
        b"ipi_entry" => Some(Vector::IpiOther),
        _ => Vector::of_x86(name.strip_suffix(b"_entry")?),
    }
}

type Csv<'a> = (u32, Option<u64>, &'a [u8], Option<u64>);

/// `CPU2,1234,,irq_vectors:local_timer_entry,10003456789,100.00,,` of `perf stat -x,`.
fn csv(inner: &[u8]) -> Option<Csv<'_>> {
    let separator = inner.iter().copied().find(|b| b",;".contains(b))?;
    let mut fields = inner.split(|b| *b == separator);
    let mut first = fields.next()?.trim_ascii();
    if memchr::memchr(b'.', first).is_some() {
        first = fields.next()?.trim_ascii(); // the time of -I
    }
    let cpu = cpu_of(first)?;
    let value = fields.next()?.trim_ascii();
    let unit = fields.next()?;
    let event = fields.next()?;
    let ns = fields.next().and_then(number);
    let known = unit.is_empty() && !event.is_empty() && (value.starts_with(b"<") || number(value).is_some());
    known.then(|| (cpu, number(value), event, ns))
}

#[cfg(test)]
mod tests;
