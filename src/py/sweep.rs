//! Sweeps: identities of points.

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1};
use pyo3::prelude::*;

use crate::sweep::identity::{Column, Values, identify};

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
