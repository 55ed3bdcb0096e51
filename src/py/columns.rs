//! A run's tables for Python: arrays are made of the columns that somebody looks at.
//!
//! A run of nothing has some 160 columns, which took a fifth of its time when each became an array.

use numpy::{PyArray1, ToPyArray};
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyIterator, PyTuple};

use crate::sim::figures::{Class, FIGURES, Sums};
use crate::sim::run::Output;
use crate::sim::stats::{CAUSES, TABLE};

/// A mapping from names to columns of one length, in the order of its names.
#[pyclass(frozen, mapping, module = "tlbcore._core")]
pub struct Columns {
    names: &'static PyOnceLock<Py<PyTuple>>,
    /// Columns that say what a row is of.
    first: [Py<PyAny>; 2],
    rest: Rest,
    rows: usize,
}

/// The other columns, one after the other.
enum Rest {
    Counts(Vec<u64>),
    Figures(Vec<f64>),
}

static OF_CPUS: PyOnceLock<Py<PyTuple>> = PyOnceLock::new();
static OF_CLASSES: PyOnceLock<Py<PyTuple>> = PyOnceLock::new();

#[pymethods]
impl Columns {
    fn __len__(&self, py: Python<'_>) -> usize {
        self.names(py).len()
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.names(py).try_iter()
    }

    fn __getitem__<'py>(&self, py: Python<'py>, name: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let Ok(place) = self.names(py).index(name) else {
            return Err(PyKeyError::new_err(name.clone().unbind()));
        };
        Ok(match (self.first.get(place), &self.rest) {
            (Some(column), _) => column.bind(py).clone(),
            (None, Rest::Counts(all)) => all[self.place(place)].to_pyarray(py).into_any(),
            (None, Rest::Figures(all)) => all[self.place(place)].to_pyarray(py).into_any(),
        })
    }
}

impl Columns {
    /// The statistics of each CPU.
    pub(super) fn of_cpus(py: Python<'_>, out: &Output) -> PyResult<Self> {
        let rows = out.stats.len();
        OF_CPUS.get_or_try_init(py, || {
            let plain = TABLE.iter().map(|(name, ..)| (*name).to_string());
            let causes = CAUSES.iter().map(|(name, _)| format!("interrupts_{name}"));
            names(py, ["cpu", "isolated"], plain.chain(causes))
        })?;
        let counted = (0..TABLE.len()).flat_map(|i| out.stats.iter().map(move |row| row[i]));
        let caused = (0..CAUSES.len()).flat_map(|i| out.by_cause.iter().map(move |row| row[i]));
        let cpu = PyArray1::from_iter(py, 0..rows as u32).into_any().unbind();
        let isolated = PyArray1::from_iter(py, out.isolated.iter().copied()).into_any().unbind();
        let rest = Rest::Counts(counted.chain(caused).collect());
        Ok(Self { names: &OF_CPUS, first: [cpu, isolated], rest, rows })
    }

    /// The figures of each class that has a CPU.
    pub(super) fn of_classes(py: Python<'_>, out: &Output) -> PyResult<Self> {
        let classes = Class::EACH.map(|class| (class, Sums::new(out, class)));
        let classes: Vec<_> = classes.into_iter().filter(|(_, sums)| sums.cpus() > 0).collect();
        OF_CLASSES.get_or_try_init(py, || {
            names(py, ["cpu_class", "cpus"], FIGURES.iter().map(|figure| figure.name.to_string()))
        })?;
        let of = classes.iter().map(|(class, _)| class.name()).collect::<Vec<_>>();
        let cpus = PyArray1::from_iter(py, classes.iter().map(|(_, sums)| sums.cpus())).into_any().unbind();
        let figures = FIGURES.iter().flat_map(|f| classes.iter().map(|(_, sums)| sums.figure(f.how)));
        let first = [of.into_pyobject(py)?.into_any().unbind(), cpus];
        Ok(Self { names: &OF_CLASSES, first, rest: Rest::Figures(figures.collect()), rows: classes.len() })
    }

    fn names<'py>(&self, py: Python<'py>) -> Bound<'py, PyTuple> {
        self.names.get(py).expect("made before any column").bind(py).clone()
    }

    fn place(&self, column: usize) -> std::ops::Range<usize> {
        let start = (column - self.first.len()) * self.rows;
        start..start + self.rows
    }
}

fn names(py: Python<'_>, first: [&str; 2], others: impl Iterator<Item = String>) -> PyResult<Py<PyTuple>> {
    let all: Vec<_> = first.map(String::from).into_iter().chain(others).collect();
    Ok(PyTuple::new(py, all)?.unbind())
}
