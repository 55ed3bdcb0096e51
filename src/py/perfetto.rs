//! `tlbcore._core.perfetto_write`.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::PathBuf,
};

use numpy::{PyReadonlyArray1, PyUntypedArrayMethods as _};
use pyo3::{exceptions::PyValueError, prelude::*};

use crate::perfetto::{Form, Happening, Track, write};

/// Write a Perfetto trace, as JSON if the file's name ends in `.json`: tracks as `(name, parent or -1, is a counter)`, and one row per slice, instant or value.
#[pyfunction]
#[allow(clippy::too_many_arguments)] // one column each
pub fn perfetto_write(
    py: Python<'_>,
    path: PathBuf,
    tracks: Vec<(String, i64, bool)>,
    names: Vec<String>,
    at_ns: PyReadonlyArray1<'_, u64>,
    length_ns: PyReadonlyArray1<'_, i64>,
    track: PyReadonlyArray1<'_, u32>,
    name: PyReadonlyArray1<'_, u32>,
    flow: PyReadonlyArray1<'_, u64>,
    value: PyReadonlyArray1<'_, f64>,
) -> PyResult<()> {
    let rows = at_ns.len();
    if [length_ns.len(), track.len(), name.len(), flow.len(), value.len()].iter().any(|n| *n != rows) {
        return Err(PyValueError::new_err("columns of different lengths"));
    }
    let tracks: Vec<Track> = tracks
        .into_iter()
        .map(|(name, parent, counter)| Track { name, parent: usize::try_from(parent).ok(), counter })
        .collect();
    let (at_ns, length_ns, track) = (at_ns.as_slice()?, length_ns.as_slice()?, track.as_slice()?);
    let (name, flow, value) = (name.as_slice()?, flow.as_slice()?, value.as_slice()?);
    let happenings: Vec<Happening> = (0..rows)
        .map(|i| Happening {
            at_ns: at_ns[i],
            length_ns: u64::try_from(length_ns[i]).ok(),
            track: track[i] as usize,
            name: name[i] as usize,
            flow: flow[i],
            value: value[i],
        })
        .collect();
    if happenings.iter().any(|h| h.track >= tracks.len() || h.name >= names.len()) {
        return Err(PyValueError::new_err("a row names a track or a name that is not there"));
    }
    py.detach(|| {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&path)?);
        let json = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("json"));
        let form = if json { Form::Json } else { Form::Protobuf };
        write(&mut out, form, &tracks, &names, happenings)?;
        out.flush()
    })?;
    Ok(())
}
