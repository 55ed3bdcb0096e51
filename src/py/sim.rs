//! `tlbcore._core` of the timed machine: JSON and text in, dictionaries of arrays out.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use numpy::PyArray1;
use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use super::columns::Columns;
use super::errors::{self, ConfigError, SimError};
use crate::bounded::{RATIO, bounded};
use crate::hw::Preset;
use crate::kernel::config::Config;
use crate::kernel::policy::{shared, shared_builtin};
use crate::kernel::text::{File, PolicyError};
use crate::pool::{self, Stop};
use crate::sim::Input;
use crate::sim::cost;
use crate::sim::figures::{Class, FIGURES, Latency};
use crate::sim::levels::LEVELS;
use crate::sim::run::{Output, Run, contradiction};
use crate::sim::scenario::Scenario;
use crate::sim::stats::{CAUSES, TABLE};
use crate::sim::timeline::KINDS;
use crate::sim::{self};

impl From<sim::SimError> for PyErr {
    fn from(error: sim::SimError) -> Self {
        let text = error.to_string();
        match error {
            sim::SimError::Scenario(_) | sim::SimError::Memory(_) => SimError::new_err(text),
            sim::SimError::Config(_) => ConfigError::new_err(text),
            sim::SimError::Policy(_) => errors::PolicyError::new_err(text),
        }
    }
}

/// A policy by name, or its text.
pub(super) fn policy_of(text: &str) -> Result<Arc<File>, PolicyError> {
    policy_from(text, "policy")
}

/// A policy by name, or its text and where that stands.
fn policy_from(text: &str, file: &str) -> Result<Arc<File>, PolicyError> {
    if text.contains('\n') { shared(file, text) } else { shared_builtin(text) }
}

/// A built-in machine by name, or a preset's text.
pub(super) fn machine_of(text: &str) -> Result<Arc<Preset>, crate::hw::TlbError> {
    if text.contains('\n') { Preset::shared(text, "machine") } else { Preset::builtin(text) }
}

/// What is simulated, as it crosses the boundary.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Request {
    /// As JSON.
    scenario: String,
    /// By name or as text.
    machine: String,
    /// As JSON.
    kernel: String,
    /// Policy, its file, seed.
    jobs: Vec<(String, String, u64)>,
    skip: bool,
    keep: usize,
    full: bool,
    bound: String,
    threads: usize,
}

/// What happens meanwhile and where it goes on, as it crosses the boundary.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Course {
    /// Called with (seconds done, in all).
    progress: Option<Py<PyAny>>,
    /// A checkpoint to go on from.
    resume: Option<Vec<u8>>,
    /// Whether an interrupted run gives one.
    checkpoint: bool,
    /// How often, in seconds, a function takes one.
    every: Option<(f64, Py<PyAny>)>,
    /// The simulated time, in picoseconds, at which each run stops as Ctrl-C would stop it.
    until: Option<u64>,
}

impl Request {
    fn runs(&self, resume: Option<&[u8]>) -> PyResult<Vec<Run>> {
        let scenario = Scenario::parse(&self.scenario)?;
        let machine = machine_of(&self.machine)?;
        let kernel = kernel_of(&self.kernel)?;
        let bound = match self.bound.as_str() {
            "best" => cost::Bound::Best,
            "low" => cost::Bound::Low,
            "high" => cost::Bound::High,
            other => return Err(SimError::new_err(format!("costs are best, low or high: got {other:?}"))),
        };
        let run = |(policy, file, seed): &(String, String, u64)| {
            let mut run = Run::new(Input {
                scenario: scenario.clone(),
                machine: Arc::clone(&machine),
                kernel: kernel.clone(),
                policy: policy_from(policy, file).map_err(sim::SimError::from)?,
                seed: *seed,
                skip: self.skip,
                keep: self.keep,
                full: self.full,
                bound,
            })?;
            if let Some(bytes) = resume {
                run.resume(bytes)?;
            }
            Ok(run)
        };
        self.jobs.iter().map(run).collect()
    }
}

/// Simulates each job of `request` on its threads. The main thread waits, looks at signals and calls `progress` every
/// 50 ms; Ctrl-C stops the workers and gives what there is, with `interrupted` set. With `every` = (seconds, save) the
/// state of one run is handed to `save` that often.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // extracted from Python by value
pub fn simulate(py: Python<'_>, request: Request, course: Course) -> PyResult<Py<PyList>> {
    let runs = request.runs(course.resume.as_deref())?;
    let total: f64 = runs.iter().map(|run| run.duration() as f64 * 1e-12).sum();
    let done: Vec<AtomicU64> = runs.iter().map(|_| AtomicU64::new(0)).collect();
    let runs: Vec<Mutex<Option<Run>>> = runs.into_iter().map(|run| Mutex::new(Some(run))).collect();
    let latest: Mutex<Option<Vec<u8>>> = Mutex::new(None);
    let finish = |i: usize, cancel: &dyn Stop| {
        let mut run = runs[i].lock().expect("taken by one").take().expect("taken once");
        let mut saved = Instant::now();
        let stopped = course.until.is_some_and(|at| run.advance(at, cancel) && run.now() < run.duration());
        let at_once = AtomicBool::new(true);
        let cancel: &dyn Stop = if stopped { &at_once } else { cancel };
        run.finish(cancel, |run| {
            done[i].store(run.now(), Ordering::Relaxed);
            if let Some((seconds, _)) = &course.every
                && saved.elapsed().as_secs_f64() >= *seconds
            {
                *latest.lock().expect("no worker panics") = Some(run.checkpoint());
                saved = Instant::now();
            }
        });
        done[i].store(run.now(), Ordering::Relaxed);
        if let Some(why) = run.starved() {
            return Err(why.to_string());
        }
        // The whole state as bytes takes longer than Ctrl-C may: only where somebody asked for it.
        let state = (course.checkpoint && run.interrupted()).then(|| run.checkpoint());
        Ok((run.into_output(), state))
    };
    let look = || {
        Python::attach(|py| -> PyResult<()> {
            py.check_signals()?;
            if let Some((_, save)) = &course.every
                && let Some(state) = latest.lock().expect("no worker panics").take()
            {
                save.call1(py, (PyBytes::new(py, &state),))?;
            }
            if let Some(call) = &course.progress {
                let now: u64 = done.iter().map(|d| d.load(Ordering::Relaxed)).sum();
                call.call1(py, (now as f64 * 1e-12, total))?;
            }
            Ok(())
        })
    };
    let mut stopped: Option<PyErr> = None;
    let ends = py.detach(|| {
        let keep_going = || {
            stopped = stopped.take().or(look().err());
            stopped.is_none()
        };
        pool::run(runs.len(), request.threads, |i, cancel| Some(finish(i, cancel)), keep_going)
    });
    if stopped.is_none() {
        stopped = look().err();
    }
    if let Some(error) = stopped.filter(|error| !error.is_instance_of::<PyKeyboardInterrupt>(py)) {
        return Err(error);
    }
    let list = PyList::empty(py);
    for (i, end) in ends.into_iter().enumerate() {
        // One that had not begun when Ctrl-C came stands at its beginning.
        let end = end.unwrap_or_else(|| Ok(finish(i, &AtomicBool::new(true))));
        let end = end.map_err(|panic| match &course.resume {
            Some(_) => contradiction(&panic).into(),
            None => PyRuntimeError::new_err(panic), // a fault of ours, not of the input
        })?;
        let (out, state) = end.map_err(SimError::new_err)?;
        list.append(output(py, &out, state.as_deref())?)?;
    }
    Ok(list.unbind())
}

/// What a run gives Python.
pub(super) fn output<'py>(
    py: Python<'py>,
    out: &Output,
    state: Option<&[u8]>,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("table", Columns::of_cpus(py, out)?)?;
    let events = PyDict::new(py);
    let e = &out.events;
    events.set_item("time_ps", PyArray1::from_iter(py, e.iter().map(|e| e.time_ps)))?;
    events.set_item("duration_ps", PyArray1::from_iter(py, e.iter().map(|e| e.duration_ps)))?;
    events.set_item("cpu", PyArray1::from_iter(py, e.iter().map(|e| u32::from(e.cpu))))?;
    events.set_item("kind", e.iter().map(|e| KINDS[e.kind as usize]).collect::<Vec<_>>())?;
    events.set_item("cause", e.iter().map(|e| CAUSES[e.cause as usize].0).collect::<Vec<_>>())?;
    events.set_item("other", PyArray1::from_iter(py, e.iter().map(|e| e.other)))?;
    dict.set_item("timeline", events)?;
    dict.set_item("timeline_dropped", out.dropped)?;
    let levels = PyDict::new(py);
    let l = &out.levels;
    levels.set_item("time_ps", PyArray1::from_iter(py, l.iter().map(|c| c.time_ps)))?;
    levels.set_item("cpu", PyArray1::from_iter(py, l.iter().map(|c| c.cpu.map_or(-1, i32::from))))?;
    levels.set_item("level", l.iter().map(|c| LEVELS[c.what]).collect::<Vec<_>>())?;
    levels.set_item("value", PyArray1::from_iter(py, l.iter().map(|c| c.value)))?;
    dict.set_item("levels", levels)?;
    let purges = PyDict::new(py);
    let p = &out.purges;
    purges.set_item("time_ps", PyArray1::from_iter(py, p.iter().map(|p| p.time_ps)))?;
    purges.set_item("cpu", PyArray1::from_iter(py, p.iter().map(|p| u32::from(p.cpu))))?;
    purges.set_item("areas", PyArray1::from_iter(py, p.iter().map(|p| p.areas)))?;
    purges.set_item("hull_pages", PyArray1::from_iter(py, p.iter().map(|p| p.hull)))?;
    purges.set_item("forks", PyArray1::from_iter(py, p.iter().map(|p| p.forks)))?;
    purges.set_item("tail", PyArray1::from_iter(py, p.iter().map(|p| p.tail)))?;
    dict.set_item("purges", purges)?;
    let latencies = PyDict::new(py);
    for (of, class) in Latency::EACH.iter().flat_map(|of| Class::EACH.map(|class| (of, class))) {
        let d = of.of(&out.latencies, class);
        let one = PyDict::new(py);
        one.set_item("count", d.count())?;
        one.set_item("mean_ps", d.mean())?;
        for (key, q) in
            [("p50_ps", 0.5), ("p90_ps", 0.9), ("p99_ps", 0.99), ("p999_ps", 0.999), ("max_ps", 1.0)]
        {
            one.set_item(key, d.quantile(q))?;
        }
        latencies.set_item(format!("{}_{}", of.name(), class.name()), one)?;
    }
    dict.set_item("latencies", latencies)?;
    dict.set_item("figures", Columns::of_classes(py, out)?)?;
    let costs: Vec<_> = out.costs.iter().map(|(n, f)| (*n, f.cycles, f.low, f.high, f.mark.name())).collect();
    dict.set_item("costs", costs)?;
    dict.set_item("unsourced", out.unsourced.clone())?;
    dict.set_item("program_runs", out.runs)?;
    dict.set_item("reached_ps", out.reached_ps)?;
    dict.set_item("interrupted", out.interrupted)?;
    dict.set_item("notes", &out.notes)?;
    dict.set_item("inert", &out.inert)?;
    let violation = out
        .violation
        .as_ref()
        .map(|(time, cpu, place, rule)| format!("{rule} on CPU {cpu} at {time} ps: {place}"));
    dict.set_item("violation", violation)?;
    dict.set_item("checkpoint", state.map(|bytes| PyBytes::new(py, bytes)))?;
    Ok(dict)
}

/// The statistics table: (name, unit, sentence) of each, causes included.
#[pyfunction]
pub fn statistics() -> Vec<(String, &'static str, String)> {
    let plain =
        TABLE.iter().map(|(name, unit, text)| ((*name).to_string(), unit.name(), (*text).to_string()));
    let causes = CAUSES.iter().map(|(name, text)| {
        (format!("interrupts_{name}"), "count", format!("Interrupts taken because of: {text}"))
    });
    plain.chain(causes).collect()
}

/// The name among `known` that is nearest to `name`, if one is near enough to be meant.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // extracted from Python by value
pub fn nearest(name: &str, known: Vec<String>) -> Option<String> {
    crate::names::nearest(name, known.iter().map(String::as_str)).map(Into::into)
}

/// The table of figures: (name, unit, sentence, how, brief) of each.
#[pyfunction]
pub fn figures() -> Vec<(&'static str, &'static str, &'static str, String, bool)> {
    FIGURES.iter().map(|f| (f.name, f.how.unit(), f.text, f.how.text(), f.how.brief())).collect()
}

/// Refuses what no scenario may be.
#[pyfunction]
pub fn scenario_check(json: &str) -> PyResult<()> {
    Scenario::parse(json)?;
    Ok(())
}

fn kernel_of(json: &str) -> PyResult<Config> {
    serde_json::from_str(json).map_err(|e| ConfigError::new_err(format!("kernel: {e}")))
}

/// Refuses what Kconfig would refuse.
#[pyfunction]
pub fn kernel_check(json: &str) -> PyResult<()> {
    kernel_of(json)?.check().map_err(|e| ConfigError::new_err(e.to_string()))
}

/// Why a policy has no effect.
#[pyfunction]
pub fn kernel_inert(json: &str, policy: &str, machine: &str, isolated: bool) -> PyResult<Vec<String>> {
    let (kernel, policy, machine) = (kernel_of(json)?, policy_of(policy)?, machine_of(machine)?);
    Ok(kernel.inert(&policy.name, &policy.needs, &machine.features, isolated))
}

/// The largest kernel's `.config` has some 300 KiB.
const MOST_CONFIG: u64 = 16 << 20;

/// A `.config` (plain or gzip), a command line and a meltdown state as (JSON, remarks); who is isolated, `_input/boot_line.py` reads.
#[pyfunction]
pub fn kernel_parse(
    data: &[u8],
    name: &str,
    cmdline: &str,
    meltdown: Option<&str>,
) -> PyResult<(String, Vec<String>)> {
    use std::io::Read;
    let mut text = String::new();
    let read = if data.starts_with(&[0x1f, 0x8b]) {
        bounded(data, RATIO, MOST_CONFIG, |raw| Ok(flate2::read::MultiGzDecoder::new(raw)))
            .and_then(|mut decoder| decoder.read_to_string(&mut text))
    } else {
        let mut plain = data;
        plain.read_to_string(&mut text)
    };
    read.map_err(|e| ConfigError::new_err(format!("{name}: {e}")))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text); // an editor's byte order mark
    let parsed =
        Config::parse(text, name, cmdline, meltdown).map_err(|e| ConfigError::new_err(e.to_string()))?;
    let json = serde_json::to_string(&parsed.config).expect("plain data");
    Ok((json, parsed.remarks))
}
