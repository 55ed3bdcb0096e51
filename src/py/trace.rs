//! Recordings cross the boundary as JSON figures and as columns.

use std::sync::OnceLock;

use numpy::PyArray1;
use pyo3::{
    prelude::*,
    types::{PyDict, PyList, PyString},
};
use rustc_hash::FxHashMap;

use super::errors::PolicyError;
use crate::kernel::policy::shared;
use crate::order;
use crate::trace::{
    TraceError,
    analysis::{
        Analysis, Isolated, Span, poisson_95,
        row::{NEVER, Row},
    },
    cause::{self, Cause},
    import::{ReadStats, Reader, Sink},
    live, noise, replay,
    shootdown::Shootdowns,
};

/// A recording after its pass.
#[pyclass(frozen, module = "tlbcore._core")]
pub struct TraceData {
    pass: Analysis,
    stats: ReadStats,
    machine_cpus: Option<u32>,
    error: Option<String>,
    /// What a replay needs, once one was asked for.
    recorded: OnceLock<replay::Recorded>,
}

/// Reads a recording, or several of one machine in the order of time, to its end, or to where it is damaged (then `error` says so).
#[pyfunction]
#[pyo3(signature = (paths, isolated=None, progress=None, between=None))]
pub fn trace_read(
    py: Python<'_>,
    paths: Vec<String>,
    isolated: Option<Vec<u32>>,
    progress: Option<&Bound<'_, PyAny>>,
    between: Option<(String, String)>,
) -> PyResult<TraceData> {
    let mut reader = open(&paths)?;
    let mut pass = Analysis::new(isolated.map_or(Isolated::Deduce, Isolated::Given));
    if let Some((begin, end)) = between {
        pass = pass.between(&begin, &end);
    }
    let error = run(py, &mut reader, &mut pass, progress)?;
    py.detach(|| pass.finish());
    let machine_cpus = reader.machine_cpus();
    Ok(TraceData { pass, stats: reader.stats, machine_cpus, error, recorded: OnceLock::new() })
}

fn open(paths: &[String]) -> Result<Reader, TraceError> {
    match paths {
        [one] => Reader::open(one),
        several => Reader::open_merged(several),
    }
}

/// Reads to the end; the text of what damaged the recording, if that ended it.
fn run(
    py: Python<'_>,
    reader: &mut Reader,
    pass: &mut (impl Sink + Send),
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<Option<String>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let progress = progress.map(|progress| progress.clone().unbind());
    let mut stopped = None;
    let outcome = py.detach(|| {
        reader.run_on(threads, pass, &mut |bytes, lines| {
            let told = Python::attach(|py| {
                py.check_signals()?;
                progress.as_ref().map_or(Ok(()), |progress| progress.call1(py, (bytes, lines)).map(drop))
            });
            stopped = told.err();
            stopped.is_none()
        })
    });
    if let Some(error) = stopped {
        return Err(error);
    }
    match outcome {
        Ok(_) => Ok(None),
        Err(e @ TraceError::Damaged { .. }) => Ok(Some(e.to_string())),
        Err(e) => Err(e.into()),
    }
}

/// Flushes of user ranges in a recording, as JSON (`error` in it says where it is damaged, if it is), and the first of
/// them one by one, as columns.
#[pyfunction]
#[pyo3(signature = (paths, progress=None, between=None, batches=Vec::new()))]
pub fn trace_shootdowns<'py>(
    py: Python<'py>,
    paths: Vec<String>,
    progress: Option<&Bound<'py, PyAny>>,
    between: Option<(String, String)>,
    batches: Vec<u32>,
) -> PyResult<(String, Bound<'py, PyDict>)> {
    let mut reader = open(&paths)?;
    let markers = between.as_ref().map(|(begin, end)| (begin.as_str(), end.as_str()));
    let mut pass = Shootdowns::new(markers, &batches);
    let error = run(py, &mut reader, &mut pass, progress)?;
    py.detach(|| pass.finish());
    let document = serde_json::json!({
        "error": error,
        "lines": reader.stats.lines,
        "broken_lines": reader.stats.broken,
        "machine_cpus": reader.machine_cpus(),
        "notes": reader.stats.notes,
        "report": pass.report(),
    });
    Ok((document.to_string(), spans_of(py, &pass)?))
}

/// System calls that flushed, flushes and handlers, a row each.
fn spans_of<'py>(py: Python<'py>, pass: &Shootdowns) -> PyResult<Bound<'py, PyDict>> {
    let rows: Vec<_> = pass.spans().collect();
    let number = |id: Option<u32>| id.filter(|id| *id != u32::MAX).map_or(-1, i64::from);
    let out = PyDict::new(py);
    out.set_item("kind", words(py, rows.iter().map(|s| s.what.words().0))?)?;
    out.set_item("what", words(py, rows.iter().map(|s| s.what.words().1))?)?;
    out.set_item("at_s", PyArray1::from_iter(py, rows.iter().map(|s| seconds(s.at_ns))))?;
    let length = |ns: Option<u64>| ns.map_or(f64::NAN, |ns| ns as f64 / 1e3);
    out.set_item("length_us", PyArray1::from_iter(py, rows.iter().map(|s| length(s.length_ns))))?;
    out.set_item("cpu", PyArray1::from_iter(py, rows.iter().map(|s| i64::from(s.cpu))))?;
    out.set_item("thread", PyArray1::from_iter(py, rows.iter().map(|s| number(Some(s.thread)))))?;
    let asked = |of: fn((u64, u32, u32)) -> u32| {
        PyArray1::from_iter(py, rows.iter().map(move |s| number(s.asked.map(of))))
    };
    let asked_s = rows.iter().map(|s| s.asked.map_or(f64::NAN, |(at, ..)| seconds(at)));
    out.set_item("asked_s", PyArray1::from_iter(py, asked_s))?;
    out.set_item("sender_cpu", asked(|(_, cpu, _)| cpu))?;
    out.set_item("sender", asked(|(_, _, thread)| thread))?;
    Ok(out)
}

impl TraceData {
    fn causes(&self, rows: &[Row]) -> Vec<Cause> {
        let (_, ops, symbols) = self.pass.calls();
        rows.iter()
            .map(|row| replay::cause_of(row, ops, |r| cause::of_function(symbols.bytes(r.func))))
            .collect()
    }
}

/// A column of words, each different one made once.
fn words<'py>(
    py: Python<'py>,
    column: impl Iterator<Item = impl AsRef<str>>,
) -> PyResult<Bound<'py, PyList>> {
    let mut made: FxHashMap<String, Bound<'py, PyString>> = FxHashMap::default();
    let mut out = Vec::new();
    for word in column {
        let word = word.as_ref();
        let known = made.get(word).cloned();
        out.push(known.unwrap_or_else(|| {
            let one = PyString::new(py, word);
            made.insert(word.to_owned(), one.clone());
            one
        }));
    }
    PyList::new(py, out)
}

fn seconds(ns: u64) -> f64 {
    if ns == NEVER { f64::NAN } else { ns as f64 / 1e9 }
}

#[pymethods]
impl TraceData {
    /// Why reading ended early, if it did.
    #[getter]
    fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// All figures, as JSON.
    fn figures(&self) -> String {
        let s = &self.stats;
        let mut unknown: Vec<_> =
            s.unknown.iter().map(|(n, c)| (String::from_utf8_lossy(n).into_owned(), *c)).collect();
        order::by(&mut unknown, |a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let holes: Vec<_> = s
            .holes
            .iter()
            .map(|h| serde_json::json!({"kind": h.kind.name(), "cpu": h.cpu, "events": h.events, "line": h.line}))
            .collect();
        serde_json::json!({
            "lines": s.lines,
            "bytes": s.bytes,
            "events_read": s.events,
            "unknown_events": unknown.into_iter().map(|(n, c)| (n, c.into())).collect::<serde_json::Map<String, _>>(),
            "broken_lines": s.broken,
            "broken_first": s.broken_first,
            "hole_count": s.hole_count,
            "holes": holes,
            "machine_cpus": self.machine_cpus,
            "notes": s.notes,
            "report": self.pass.report(),
        })
        .to_string()
    }

    /// The recording under the policies that are shown by default, as JSON.
    fn policies(&self, py: Python<'_>) -> String {
        let outcomes = py.detach(|| replay::headline(self.recorded.get_or_init(|| self.pass.recorded())));
        serde_json::json!(outcomes).to_string()
    }

    /// The recording under a policy's text, as JSON; with a machine's text, times too.
    #[pyo3(signature = (text, file, pti=true, machine=None))]
    fn replay(
        &self,
        py: Python<'_>,
        text: &str,
        file: &str,
        pti: bool,
        machine: Option<&str>,
    ) -> PyResult<String> {
        let policy = shared(file, text)?;
        let machine = machine.map(super::sim::machine_of).transpose()?;
        let outcome = py.detach(|| {
            let recorded = self.recorded.get_or_init(|| self.pass.recorded());
            replay::replay(recorded, &policy, pti, machine.as_deref())
        });
        match outcome {
            Ok(outcome) => Ok(serde_json::json!(outcome).to_string()),
            Err(error) => Err(PolicyError::new_err(error.to_string())),
        }
    }

    /// Deferred requests that wait on each isolated CPU under a policy's text, a row per change: what the recording
    /// leaves open is taken in the policy's favour, then against it.
    fn levels<'py>(
        &self,
        py: Python<'py>,
        text: &str,
        file: &str,
        pti: bool,
    ) -> PyResult<Bound<'py, PyDict>> {
        let policy = shared(file, text)?;
        let found = py.detach(|| {
            let recorded = self.recorded.get_or_init(|| self.pass.recorded());
            let cpus: Vec<u32> = recorded.bases.iter().map(|base| base.cpu).collect();
            replay::levels(recorded, &policy, pti).map(|both| (cpus, both))
        });
        let (cpus, [favour, against]) = found.map_err(|error| PolicyError::new_err(error.to_string()))?;
        let mut rows: Vec<(u64, u32, bool, u32)> = Vec::new();
        for (in_favour, levels) in [(true, favour), (false, against)] {
            for (cpu, changes) in cpus.iter().zip(levels) {
                rows.extend(changes.into_iter().map(|(at, value)| (at, *cpu, in_favour, value)));
            }
        }
        let out = PyDict::new(py);
        out.set_item("at_s", PyArray1::from_iter(py, rows.iter().map(|r| seconds(r.0))))?;
        out.set_item("cpu", PyArray1::from_iter(py, rows.iter().map(|r| r.1)))?;
        out.set_item("in_favour", PyArray1::from_iter(py, rows.iter().map(|r| r.2)))?;
        out.set_item("value", PyArray1::from_iter(py, rows.iter().map(|r| r.3)))?;
        Ok(out)
    }

    /// Pages on the lazy list after each free.
    fn lazy_pages<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let rows = self.pass.lazy_pages();
        let out = PyDict::new(py);
        out.set_item("at_s", PyArray1::from_iter(py, rows.iter().map(|r| seconds(r.0))))?;
        out.set_item("pages", PyArray1::from_iter(py, rows.iter().map(|r| r.1)))?;
        Ok(out)
    }

    /// Remote calls to isolated CPUs: one row per call, in the order they were queued.
    fn calls<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (rows, ops, symbols) = self.pass.calls();
        let causes = self.causes(&rows);
        let op = |r: &Row| ops.get(r.op as usize);
        let out = PyDict::new(py);
        let float = |f: &dyn Fn(&Row) -> f64| PyArray1::from_iter(py, rows.iter().map(f));
        out.set_item("queued_s", float(&|r| seconds(r.queued_ns)))?;
        out.set_item("ran_s", float(&|r| seconds(r.ran_ns)))?;
        out.set_item("other_entry_s", float(&|r| seconds(r.other_ns)))?;
        out.set_item("cpu", PyArray1::from_iter(py, rows.iter().map(|r| r.cpu)))?;
        out.set_item("function", words(py, rows.iter().map(|r| symbols.text(r.func)))?)?;
        out.set_item("cause", words(py, causes.iter().map(|c| c.entry().id))?)?;
        out.set_item("class", words(py, causes.iter().map(|c| c.entry().class.name()))?)?;
        let evidence = rows.iter().map(|r| op(r).map_or("none", |o| o.evidence.name()));
        out.set_item("evidence", words(py, evidence)?)?;
        let comm = rows.iter().map(|r| op(r).map_or_else(|| "unknown".into(), |o| self.pass.initiator(o)));
        out.set_item("initiator", words(py, comm)?)?;
        let sender = rows.iter().map(|r| op(r).map_or(-1, |o| i64::from(o.cpu)));
        out.set_item("sender_cpu", PyArray1::from_iter(py, sender))?;
        let inside = rows.iter().map(|r| op(r).is_some_and(|o| o.in_interrupt));
        out.set_item("in_interrupt", PyArray1::from_iter(py, inside))?;
        out.set_item("mode", words(py, rows.iter().map(|r| r.mode.name()))?)?;
        out.set_item("mode_sure", PyArray1::from_iter(py, rows.iter().map(|r| r.mode_sure)))?;
        out.set_item("traced", PyArray1::from_iter(py, rows.iter().map(|r| r.traced)))?;
        out.set_item("interrupt", PyArray1::from_iter(py, rows.iter().map(|r| r.irq)))?;
        let lines = rows.iter().map(|r| op(r).map_or(0, |o| o.line));
        out.set_item("queued_line", PyArray1::from_iter(py, lines))?;
        out.set_item("ran_line", PyArray1::from_iter(py, rows.iter().map(|r| r.ran_line)))?;
        Ok(out)
    }

    /// What took isolated CPUs from their tasks, one row each, by time.
    fn spans<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (rows, ..) = self.pass.calls();
        let spans = self.pass.spans(&self.causes(&rows));
        let out = PyDict::new(py);
        out.set_item("at_s", PyArray1::from_iter(py, spans.iter().map(|s| seconds(s.at_ns))))?;
        let length = |s: &Span| s.length_ns.map_or(f64::NAN, |ns| ns as f64 / 1e3);
        out.set_item("length_us", PyArray1::from_iter(py, spans.iter().map(length)))?;
        out.set_item("cpu", PyArray1::from_iter(py, spans.iter().map(|s| s.cpu)))?;
        out.set_item("cause", words(py, spans.iter().map(|s| s.cause.entry().id))?)?;
        Ok(out)
    }

    /// Purges that purged something, in order.
    fn purges<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (rows, symbols) = self.pass.purges();
        let out = PyDict::new(py);
        out.set_item("at_s", PyArray1::from_iter(py, rows.iter().map(|p| seconds(p.at_ns))))?;
        out.set_item("areas", PyArray1::from_iter(py, rows.iter().map(|p| p.areas)))?;
        out.set_item("span_pages", PyArray1::from_iter(py, rows.iter().map(|p| p.span_pages)))?;
        let charged = rows.iter().map(|p| p.areas - p.unknown.min(p.areas));
        out.set_item("charged_areas", PyArray1::from_iter(py, charged))?;
        out.set_item("unknown_areas", PyArray1::from_iter(py, rows.iter().map(|p| p.unknown)))?;
        out.set_item("by", rows.iter().map(|p| symbols.text(p.by)).collect::<Vec<_>>())?;
        let first =
            rows.iter().map(|p| p.charged.first().map_or_else(|| "unknown".into(), |c| symbols.text(c.0)));
        out.set_item("largest_owner", first.collect::<Vec<_>>())?;
        let largest = rows.iter().map(|p| p.charged.first().map_or(0, |c| c.1.areas));
        out.set_item("largest_owner_areas", PyArray1::from_iter(py, largest))?;
        let group =
            rows.iter().map(|p| p.cgroups.first().map_or_else(|| "unknown".into(), |c| symbols.text(c.0)));
        out.set_item("largest_cgroup", group.collect::<Vec<_>>())?;
        let grouped = rows.iter().map(|p| p.cgroups.first().map_or(0, |c| c.1.areas));
        out.set_item("largest_cgroup_areas", PyArray1::from_iter(py, grouped))?;
        out.set_item("line", PyArray1::from_iter(py, rows.iter().map(|p| p.line)))?;
        Ok(out)
    }
}

/// Tells what keeps CPUs from their tasks for longer than a threshold, from trace text in pieces.
#[pyclass(module = "tlbcore._core")]
pub struct NoiseMeter {
    meter: noise::Meter,
}

#[pymethods]
impl NoiseMeter {
    #[new]
    fn new(threshold_us: f64, cpus: Vec<u32>) -> Self {
        Self { meter: noise::Meter::new((threshold_us * 1000.0) as u64, &cpus) }
    }

    /// The next piece of text: (cpu, seconds of the trace clock, microseconds, what) of each hit.
    fn feed(&mut self, text: &[u8]) -> Vec<(u32, f64, f64, String)> {
        let hits = self.meter.feed(text).into_iter();
        hits.map(|h| (h.cpu, seconds(h.at_ns), h.length_ns as f64 / 1000.0, h.what)).collect()
    }
}

/// Counts what keeps CPUs from their tasks, from trace text in pieces.
#[pyclass(module = "tlbcore._core")]
pub struct LiveMeter {
    meter: live::Live,
}

#[pymethods]
impl LiveMeter {
    #[new]
    fn new(cpus: Vec<u32>) -> Self {
        Self { meter: live::Live::new(&cpus) }
    }

    /// The next piece of text.
    fn feed(&mut self, py: Python<'_>, text: &[u8]) {
        py.detach(|| self.meter.feed(text));
    }

    /// (cpu, kind, name, count, nanoseconds, longest) of everything counted, in a fixed order.
    fn rows(&self) -> Vec<(u32, &'static str, String, u64, u64, u64)> {
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        let rows = self.meter.rows().into_iter();
        rows.map(|(cpu, kind, name, t)| (cpu, kind.name(), text(name), t.count, t.ns, t.longest_ns)).collect()
    }

    /// Events lost, and how often an unknown number was.
    fn lost(&self) -> (u64, u64) {
        self.meter.lost()
    }
}

/// The text of some lines of a recording, by number from 1.
#[pyfunction]
pub fn trace_lines(py: Python<'_>, path: &str, mut lines: Vec<u64>) -> PyResult<Vec<(u64, String)>> {
    order::natural(&mut lines);
    lines.dedup();
    py.detach(|| Ok(crate::trace::source::lines(path, &lines)?))
}

/// The catalogue of causes: one dict per entry.
#[pyfunction]
pub fn trace_causes(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyDict>>> {
    Cause::ALL
        .iter()
        .map(|cause| {
            let e = cause.entry();
            let d = PyDict::new(py);
            d.set_item("id", e.id)?;
            d.set_item("class", e.class.name())?;
            d.set_item("kind", cause.kind().name())?;
            d.set_item("title", e.title)?;
            d.set_item("signature", e.signature)?;
            d.set_item("chain", e.chain)?;
            d.set_item("meaning", e.meaning)?;
            d.set_item("deferral", e.deferral.name())?;
            d.set_item("because", e.because)?;
            d.set_item("helps", e.helps)?;
            d.set_item("kernels", e.kernels)?;
            let remedies: Vec<_> = e.remedies.iter().map(|r| (r.kernels, r.helps)).collect();
            d.set_item("remedies", remedies)?;
            Ok(d)
        })
        .collect()
}

/// The 95 % interval of a Poisson mean of which `events` were seen.
#[pyfunction]
pub fn trace_poisson_95(events: u64) -> (f64, f64) {
    let range = poisson_95(events);
    (range.low, range.high)
}

/// The 95 % interval of the ratio of two Poisson rates, the second by the first, from counts and times.
#[pyfunction]
pub fn trace_rate_ratio_95(first: u64, first_s: f64, second: u64, second_s: f64) -> (f64, f64) {
    crate::interval::rate_ratio((first, first_s), (second, second_s), 0.95)
}

/// Raises `PolicyError` for a policy that no recording can be replayed under.
#[pyfunction]
pub fn trace_replayable(text: &str, file: &str) -> PyResult<()> {
    let policy = shared(file, text)?;
    replay::not_modelled(&policy).map_err(|e| PolicyError::new_err(e.to_string()))
}

/// Name, unit and sentence of each figure of a replay.
#[pyfunction]
pub fn replay_figures() -> Vec<(&'static str, &'static str, &'static str)> {
    replay::FIGURES.to_vec()
}

/// The policies that a recording is replayed under unless others are asked for.
#[pyfunction]
pub fn trace_headline() -> [&'static str; replay::HEADLINE.len()] {
    replay::HEADLINE
}
