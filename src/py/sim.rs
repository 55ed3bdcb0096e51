//! `tlbcore._core` of the timed machine: JSON and text in, dictionaries of arrays out.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use numpy::PyArray1;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::errors::{ConfigError, PolicyError, SimError};
use crate::hw::Preset;
use crate::kernel::config::Config;
use crate::kernel::policy::builtin;
use crate::kernel::text::{File, parse};
use crate::sim::cost;
use crate::sim::figures::{Class, FIGURES, Latency, Sums};
use crate::sim::run::{Input, Output, Run};
use crate::sim::scenario::Scenario;
use crate::sim::stats::{CAUSES, TABLE};
use crate::sim::timeline::KINDS;
use crate::sim::{self};

impl From<sim::SimError> for PyErr {
    fn from(error: sim::SimError) -> Self {
        let text = error.to_string();
        match error {
            sim::SimError::Scenario(_) => SimError::new_err(text),
            sim::SimError::Config(_) => ConfigError::new_err(text),
            sim::SimError::Policy(_) => PolicyError::new_err(text),
        }
    }
}

/// A policy by name, or its text.
pub(super) fn policy_of(text: &str) -> Result<File, crate::kernel::text::PolicyError> {
    policy_from(text, "policy")
}

/// A policy by name, or its text and where that stands.
fn policy_from(text: &str, file: &str) -> Result<File, crate::kernel::text::PolicyError> {
    if text.contains('\n') { parse(file, text) } else { builtin(text) }
}

/// A built-in machine by name, or a preset's text.
pub(super) fn machine_of(text: &str) -> Result<Arc<Preset>, crate::hw::TlbError> {
    if text.contains('\n') { Preset::parse(text, "machine").map(Arc::new) } else { Preset::builtin(text) }
}

/// Simulates each (policy, its file, seed) of `jobs` on `threads` threads. The main thread waits, looks at signals every
/// 50 ms and calls `progress(done, total)`; Ctrl-C stops the workers and returns what there is, with
/// `interrupted` set. With `every` = (seconds, save) the state of one run is handed to `save` that often.
#[pyfunction]
#[pyo3(signature = (scenario, machine, kernel, jobs, *, skip=true, keep=256, full=false, bound="best", resume=None, checkpoint=false, every=None, threads=1, progress=None))]
#[allow(clippy::too_many_arguments, clippy::fn_params_excessive_bools)]
pub fn simulate(
    py: Python<'_>,
    scenario: &str,
    machine: &str,
    kernel: &str,
    jobs: Vec<(String, String, u64)>,
    skip: bool,
    keep: usize,
    full: bool,
    bound: &str,
    resume: Option<&[u8]>,
    checkpoint: bool,
    every: Option<(f64, Py<PyAny>)>,
    threads: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<Py<PyList>> {
    let scenario = Scenario::parse(scenario)?;
    let machine = machine_of(machine)?;
    let kernel = kernel_of(kernel)?;
    let bound = match bound {
        "best" => cost::Bound::Best,
        "low" => cost::Bound::Low,
        "high" => cost::Bound::High,
        _ => return Err(SimError::new_err(format!("costs are best, low or high: got {bound:?}"))),
    };
    let mut runs = Vec::new();
    for (policy, file, seed) in jobs {
        let policy = policy_from(&policy, &file).map_err(sim::SimError::from)?;
        let input = Input {
            scenario: scenario.clone(),
            machine: Arc::clone(&machine),
            kernel: kernel.clone(),
            policy,
            seed,
            skip,
            keep,
            full,
            bound,
        };
        let mut run = Run::new(input)?;
        if let Some(bytes) = resume {
            run.resume(bytes)?;
        }
        runs.push(Mutex::new((Some(run), None)));
    }
    let total = scenario.duration_ps.saturating_mul(runs.len() as u64);
    let (cancel, next, left) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(runs.len()));
    let done: Vec<AtomicU64> = runs.iter().map(|_| AtomicU64::new(0)).collect();
    let latest: Mutex<Option<Vec<u8>>> = Mutex::new(None);
    let work = || {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(slot) = runs.get(i) else { return };
            let mut run = slot.lock().expect("no worker panics").0.take().expect("taken once");
            let mut saved = Instant::now();
            run.finish(&cancel, |run| {
                done[i].store(run.now(), Ordering::Relaxed);
                if let Some((seconds, _)) = &every
                    && saved.elapsed().as_secs_f64() >= *seconds
                {
                    *latest.lock().expect("no worker panics") = Some(run.checkpoint());
                    saved = Instant::now();
                }
            });
            let out = run.output();
            // The whole state as bytes takes longer than Ctrl-C may: only where somebody asked for it.
            let state = (checkpoint && out.interrupted).then(|| run.checkpoint());
            slot.lock().expect("no worker panics").1 = Some((out, state));
            left.fetch_sub(1, Ordering::Relaxed);
        }
    };
    let mut failure = None;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.clamp(1, runs.len().max(1))).map(|_| scope.spawn(work)).collect();
        while workers.iter().any(|w| !w.is_finished()) {
            py.detach(|| {
                let mut slept = 0;
                while slept < 50 && workers.iter().any(|w| !w.is_finished()) {
                    std::thread::sleep(Duration::from_millis(1));
                    slept += 1;
                }
            });
            if let Err(error) = py.check_signals() {
                cancel.store(true, Ordering::Relaxed);
                if !error.is_instance_of::<pyo3::exceptions::PyKeyboardInterrupt>(py) {
                    failure = Some(error);
                }
            }
            if let Some((_, save)) = &every
                && let Some(state) = latest.lock().expect("no worker panics").take()
                && let Err(error) = save.call1(py, (pyo3::types::PyBytes::new(py, &state),))
            {
                cancel.store(true, Ordering::Relaxed);
                failure.get_or_insert(error);
            }
            if let Some(call) = &progress {
                let now: u64 = done.iter().map(|d| d.load(Ordering::Relaxed)).sum();
                if let Err(error) = call.call1(py, (now as f64 * 1e-12, total as f64 * 1e-12)) {
                    cancel.store(true, Ordering::Relaxed);
                    if !error.is_instance_of::<pyo3::exceptions::PyKeyboardInterrupt>(py) {
                        failure.get_or_insert(error);
                    }
                }
            }
        }
    });
    if let Some(error) = failure {
        return Err(error);
    }
    let list = PyList::empty(py);
    for slot in runs {
        let done = slot.into_inner().expect("no worker panics").1;
        let (out, state) = done.expect("every run was finished or stopped");
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
    let table = PyDict::new(py);
    let n = out.stats.len();
    table.set_item("cpu", PyArray1::from_iter(py, 0..n as u32))?;
    table.set_item("isolated", PyArray1::from_iter(py, out.isolated.iter().copied()))?;
    for (i, (name, ..)) in TABLE.iter().enumerate() {
        table.set_item(name, PyArray1::from_iter(py, out.stats.iter().map(|row| row[i])))?;
    }
    for (i, (name, _)) in CAUSES.iter().enumerate() {
        let column = PyArray1::from_iter(py, out.by_cause.iter().map(|row| row[i]));
        table.set_item(format!("interrupts_{name}"), column)?;
    }
    dict.set_item("table", table)?;
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
    let figures = PyDict::new(py);
    let classes: Vec<_> = Class::EACH.map(|class| (class, Sums::new(out, class))).into();
    let classes: Vec<_> = classes.into_iter().filter(|(_, sums)| sums.cpus() > 0).collect();
    figures.set_item("cpu_class", classes.iter().map(|(class, _)| class.name()).collect::<Vec<_>>())?;
    figures.set_item("cpus", PyArray1::from_iter(py, classes.iter().map(|(_, sums)| sums.cpus())))?;
    for figure in FIGURES {
        let column = classes.iter().map(|(_, sums)| sums.figure(figure.how));
        figures.set_item(figure.name, PyArray1::from_iter(py, column))?;
    }
    dict.set_item("figures", figures)?;
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
    dict.set_item("checkpoint", state.map(|bytes| pyo3::types::PyBytes::new(py, bytes)))?;
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
        flate2::read::MultiGzDecoder::new(data).read_to_string(&mut text)
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
