//! Address traces cross the boundary as columns, a piece at a time.

use std::sync::{Mutex, PoisonError};

use numpy::PyArray1;
use pyo3::prelude::*;

use super::errors::TraceError;
use crate::addresses::{Chunk, Format, Reader, text};

/// Addresses (uint64), kinds (uint8) and CPUs (uint16) of some accesses.
type Columns<'py> = (Bound<'py, PyArray1<u64>>, Bound<'py, PyArray1<u8>>, Bound<'py, PyArray1<u16>>);

/// Accesses that are read between looks for signals.
const BETWEEN_SIGNALS: usize = 1 << 20;

/// The formats that are told by content.
#[pyfunction]
pub(super) fn address_formats() -> Vec<&'static str> {
    Format::ALL.map(Format::name).to_vec()
}

/// Names that a column of addresses, kinds or CPUs may have.
#[pyfunction]
pub(super) fn address_columns() -> Vec<(&'static str, Vec<&'static str>)> {
    [("address", text::ADDRESS), ("kind", text::KIND), ("cpu", text::CPU)]
        .map(|(what, names)| (what, names.to_vec()))
        .to_vec()
}

/// Words for kinds, and their numbers.
#[pyfunction]
pub(super) fn address_kinds() -> Vec<(&'static str, u8)> {
    text::KINDS.iter().map(|&(word, kind)| (word, kind as u8)).collect()
}

/// An address trace that is being read.
#[pyclass(module = "tlbcore._core")]
pub(super) struct AddressReader {
    /// Only reached by `&mut self`, but what Python holds must be Sync.
    reader: Mutex<Reader>,
    /// To be said after the accesses before it.
    fault: Option<PyErr>,
}

#[pymethods]
impl AddressReader {
    #[new]
    #[pyo3(signature = (path, format=None))]
    fn new(py: Python<'_>, path: &str, format: Option<&str>) -> PyResult<Self> {
        let format = match format {
            None => None,
            Some(name) => Some(Format::from_name(name).ok_or_else(|| {
                let known = Format::ALL.map(Format::name).join(", ");
                TraceError::new_err(format!("format must be one of {known}: got {name:?}"))
            })?),
        };
        let reader = Mutex::new(py.detach(|| Reader::open(path, format))?);
        Ok(Self { reader, fault: None })
    }

    /// The name of its format.
    #[getter]
    fn format(&mut self) -> &'static str {
        self.reader.get_mut().unwrap_or_else(PoisonError::into_inner).format().name()
    }

    /// About `count` further accesses, or None at the end.
    fn next<'py>(&mut self, py: Python<'py>, count: usize) -> PyResult<Option<Columns<'py>>> {
        let mut chunk = Chunk::default();
        let reader = self.reader.get_mut().unwrap_or_else(PoisonError::into_inner);
        while self.fault.is_none() && chunk.addresses.len() + 16 < count {
            let piece = BETWEEN_SIGNALS.min(count - chunk.addresses.len());
            match py.detach(|| reader.read(&mut chunk, piece)) {
                Ok(true) => py.check_signals()?,
                Ok(false) => break,
                Err(e) => self.fault = Some(e.into()),
            }
        }
        if chunk.addresses.is_empty() {
            return self.fault.take().map_or(Ok(None), Err);
        }
        Ok(Some((
            PyArray1::from_vec(py, chunk.addresses),
            PyArray1::from_vec(py, chunk.kinds),
            PyArray1::from_vec(py, chunk.cpus),
        )))
    }
}
