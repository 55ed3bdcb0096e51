//! Measurements of this machine, made by a thread of their own while Python waits for signals.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::calibrate::{STAGES, Settings, run, sample::Stop};

/// Names of the stages of `calibrate_run`, in order.
#[pyfunction]
pub(super) fn calibrate_stages() -> Vec<&'static str> {
    STAGES.to_vec()
}

/// Measures this machine for about `seconds`. `stage` is called with the number of each stage that begins. Returns
/// measurements as (key, value, unit, spread, stable, runs, preempted, how), the curve, the CPUs used, and what was not measured.
#[pyfunction]
#[pyo3(signature = (seconds, cpu=None, stage=None))]
pub(super) fn calibrate_run<'py>(
    py: Python<'py>,
    seconds: f64,
    cpu: Option<u32>,
    stage: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let stop = Arc::new(Stop::default());
    let (begins, begun) = mpsc::channel();
    // The measuring thread is bound to its CPU; the caller's stays free.
    let worker = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            run(Settings { seconds, cpu }, &stop, &mut |stage| {
                let _ = begins.send(stage);
            })
        })
    };
    let waited = wait(py, &begun, stage.as_ref());
    if waited.is_err() {
        stop.stop();
    }
    let result = py.detach(|| worker.join());
    waited?;
    let report = result.expect("calibration does not panic: its tests run every stage")?;

    let found = PyDict::new(py);
    let rows: Vec<_> = report
        .measurements
        .iter()
        .map(|m| (m.key, m.value, m.unit, m.spread, m.stable, m.runs, m.preempted, m.how.as_str()))
        .collect();
    found.set_item("measurements", rows)?;
    found.set_item("pages", report.curve.pages)?;
    found.set_item("ns", report.curve.ns)?;
    found.set_item("cpu", report.cpu)?;
    found.set_item("others", report.others)?;
    found.set_item("missing", report.missing)?;
    found.set_item("taken_share", report.taken_share)?;
    found.set_item("steal_share", report.steal_share)?;
    Ok(found)
}

/// Hands stages on until the worker is done; an error if a signal handler or `stage` raised.
fn wait(py: Python<'_>, begun: &mpsc::Receiver<usize>, stage: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    loop {
        match begun.try_recv() {
            Ok(number) => {
                if let Some(call) = stage {
                    call.call1((number,))?;
                }
            }
            Err(mpsc::TryRecvError::Empty) => py.detach(|| std::thread::sleep(Duration::from_millis(20))),
            Err(mpsc::TryRecvError::Disconnected) => return Ok(()),
        }
        py.check_signals()?;
    }
}
