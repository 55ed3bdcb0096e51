//! Measuring loops for Python: arrays in, nanoseconds out.

use std::sync::Mutex;

use numpy::PyReadonlyArray1;
use pyo3::{prelude::*, types::PyAny};

use super::errors::ConfigError;
use crate::calibrate;

/// Nanoseconds per dependent load along a chain of indices, for a small number of steps (a few milliseconds).
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // a readonly borrow is taken by value
pub fn calibrate_chase(
    py: Python<'_>,
    chain: PyReadonlyArray1<'_, u32>,
    start: u32,
    steps: u64,
) -> PyResult<f64> {
    let chain = chain.as_slice()?;
    Ok(py.detach(|| calibrate::chase(chain, start, steps)))
}

/// Nanoseconds per round of a named loop: `four_cycles`, `getpid`, `getppid` or `thread_round`.
#[pyfunction]
pub fn calibrate_loop(py: Python<'_>, name: &str, steps: u64) -> PyResult<f64> {
    let run = match name {
        "four_cycles" => calibrate::four_cycles,
        "getpid" => calibrate::getpid,
        "getppid" => calibrate::getppid,
        "thread_round" => calibrate::thread_round,
        _ => return Err(ConfigError::new_err(format!("no measuring loop is called `{name}`"))),
    };
    Ok(py.detach(|| run(steps)))
}

/// Threads that stay in user mode until the `with` block ends.
#[pyclass(frozen, module = "tlbcore._core")]
pub struct Spinners {
    count: usize,
    running: Mutex<Option<calibrate::Spinners>>,
}

#[pymethods]
impl Spinners {
    #[new]
    fn new(count: usize) -> Self {
        Self { count, running: Mutex::new(None) }
    }

    fn __enter__(slf: Py<Self>, py: Python<'_>) -> Py<Self> {
        let count = slf.get().count;
        let started = py.detach(|| {
            let spinners = calibrate::Spinners::start(count);
            while spinners.running() < count as u64 {
                std::thread::yield_now();
            }
            spinners
        });
        if let Ok(mut running) = slf.get().running.lock() {
            *running = Some(started);
        }
        slf
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _kind: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _trace: &Bound<'_, PyAny>,
    ) {
        let taken = self.running.lock().ok().and_then(|mut running| running.take());
        py.detach(|| drop(taken));
    }
}
