//! Sweeps: identities of points, and their simulation on threads.

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::errors::SweepError;
use super::sim::{self, machine_of, policy_of};
use crate::interval;
use crate::pool;
use crate::sim::Scenario;
use crate::sim::figures::Metric;
use crate::sweep::identity::{Column, Values, identify};
use crate::sweep::point::{Choice, Parts, metrics};

/// One parameter from Python: numbers as a float64 array, names as a list.
#[derive(FromPyObject)]
pub(super) enum PyValues<'py> {
    Numbers(PyReadonlyArray1<'py, f64>),
    Names(Vec<String>),
}

/// Keys, shape (n, 2), and seeds, shape (n,), of points; `columns` are (name, paired, values).
#[pyfunction]
#[allow(clippy::type_complexity)] // two arrays, said in the stub
pub(super) fn sweep_identify<'py>(
    py: Python<'py>,
    base: &str,
    seed: u64,
    columns: Vec<(String, bool, PyValues<'py>)>,
    replications: Vec<u32>,
) -> PyResult<(Bound<'py, PyArray2<u64>>, Bound<'py, PyArray1<u64>>)> {
    let columns = columns
        .into_iter()
        .map(|(name, paired, values)| {
            let values = match values {
                PyValues::Numbers(numbers) => Values::Numbers(numbers.as_slice()?.to_vec()),
                PyValues::Names(names) => Values::Names(names),
            };
            Ok(Column { name, paired, values })
        })
        .collect::<PyResult<Vec<Column>>>()?;
    let points = py.detach(|| identify(base, seed, &columns, &replications));
    let keys: Vec<u64> = points.iter().flat_map(|point| point.key).collect();
    let seeds: Vec<u64> = points.iter().map(|point| point.seed).collect();
    Ok((keys.into_pyarray(py).reshape([points.len(), 2])?, seeds.into_pyarray(py)))
}

/// A digest of the sources of the engine.
#[pyfunction]
pub(super) fn engine() -> &'static str {
    env!("TLBCORE_ENGINE")
}

/// Two-sided quantile of Student's t for a mean of so many values; refuses a confidence that is none.
#[pyfunction]
pub(super) fn student_t(values: u64, confidence: f64) -> PyResult<f64> {
    if !(confidence > 0.0 && confidence < 1.0) {
        return Err(SweepError::new_err(format!("confidence must be between 0 and 1: got {confidence}")));
    }
    Ok(interval::student_t(values, confidence))
}

/// The units of metrics; refuses what is none.
#[pyfunction]
pub(super) fn metric_units(names: Vec<String>) -> PyResult<Vec<&'static str>> {
    let named = |name: &String| Metric::named(name).map(|metric| metric.figure.how.unit());
    names.iter().map(|name| named(name).map_err(SweepError::new_err)).collect()
}

/// Compute points on `threads` threads.
///
/// The first four lists are the distinct parts: scenarios and kernels as JSON, machines and policies by name or as
/// text; `choices`, shape (n, 4), picks one of each per point. Returns the metrics named by `wanted`, shape (metrics, n), an
/// error or none per point, which points are done (all, unless Ctrl-C came), where the policy was inert, and if `whole` what
/// [`super::sim::simulate`] gives of each point.
#[pyfunction]
#[allow(clippy::type_complexity, clippy::too_many_arguments)] // said in the stub
pub(super) fn sweep_run<'py>(
    py: Python<'py>,
    scenarios: Vec<String>,
    machines: Vec<String>,
    kernels: Vec<String>,
    policies: Vec<String>,
    choices: PyReadonlyArray2<'py, u32>,
    seeds: Vec<u64>,
    wanted: Vec<String>,
    whole: bool,
    threads: usize,
) -> PyResult<(
    Bound<'py, PyArray2<f64>>,
    Vec<Option<String>>,
    Bound<'py, PyArray1<bool>>,
    Bound<'py, PyArray1<bool>>,
    Option<Vec<Option<Bound<'py, PyDict>>>>,
)> {
    let wanted: Vec<Metric> = wanted
        .iter()
        .map(|name| Metric::named(name))
        .collect::<Result<_, _>>()
        .map_err(SweepError::new_err)?;
    let choices: Vec<Choice> = choices
        .as_slice()?
        .chunks_exact(4)
        .zip(&seeds)
        .map(|(of, &seed)| Choice {
            scenario: of[0] as usize,
            machine: of[1] as usize,
            kernel: of[2] as usize,
            policy: of[3] as usize,
            seed,
        })
        .collect();
    let mut signal = None;
    let results = py.detach(|| {
        fn each<T, E: ToString>(
            texts: &[String],
            parse: impl Fn(&str) -> Result<T, E>,
        ) -> Vec<Result<T, String>> {
            texts.iter().map(|text| parse(text).map_err(|error| error.to_string())).collect()
        }
        let parts = Parts {
            scenarios: each(&scenarios, Scenario::parse),
            machines: each(&machines, machine_of),
            kernels: each(&kernels, |text| serde_json::from_str(text)),
            policies: each(&policies, policy_of),
        };
        pool::run(
            choices.len(),
            threads,
            |index, cancel| match parts.simulate(choices[index], cancel) {
                Ok(output) => output.map(|output| {
                    let row = metrics(&output, &wanted);
                    Ok((row, !output.inert.is_empty(), whole.then_some(output)))
                }),
                Err(error) => Some(Err(error)),
            },
            #[allow(clippy::redundant_closure_for_method_calls)] // the method alone is not general enough
            || match Python::attach(|py| py.check_signals()) {
                Ok(()) => true,
                Err(error) => {
                    signal = Some(error);
                    false
                }
            },
        )
    });
    if let Some(error) = signal
        && !error.is_instance_of::<PyKeyboardInterrupt>(py)
    {
        return Err(error);
    }
    let mut values = vec![f64::NAN; wanted.len() * results.len()];
    let mut errors = Vec::with_capacity(results.len());
    let mut inert = vec![false; results.len()];
    let count = results.len();
    let mut outputs = Vec::with_capacity(if whole { count } else { 0 });
    let done: Vec<bool> = results.iter().map(Option::is_some).collect();
    for (point, result) in results.into_iter().enumerate() {
        errors.push(match result.map(Result::flatten) {
            Some(Ok((row, of_no_effect, output))) => {
                inert[point] = of_no_effect;
                outputs.push(output.map(|output| sim::output(py, &output, None)).transpose()?);
                for (metric, value) in row.into_iter().enumerate() {
                    values[metric * count + point] = value;
                }
                None
            }
            Some(Err(error)) => Some(error),
            None => None,
        });
        outputs.resize(point + 1, None);
    }
    Ok((
        values.into_pyarray(py).reshape([wanted.len(), count])?,
        errors,
        done.into_pyarray(py),
        inert.into_pyarray(py),
        whole.then_some(outputs),
    ))
}
