//! Kernel images cross the boundary as bytes, censuses as JSON.

use pyo3::prelude::*;

use crate::binary::{census, emit, features};

/// The census of an image's entry and exit paths, as JSON.
#[pyfunction]
pub fn binary_census(py: Python<'_>, image: &[u8], features: &str) -> PyResult<String> {
    let image = image.to_vec();
    let found = py.detach(|| census::census(image, features))?;
    Ok(serde_json::to_string(&found).expect("plain data"))
}

/// A census as text; of one entry, access by access, if it is named.
#[pyfunction]
#[pyo3(signature = (census, entry=None))]
pub fn binary_report(census: &str, entry: Option<&str>) -> PyResult<String> {
    let found = census::Census::parse(census)?;
    Ok(match entry {
        Some(name) => found.entry_text(name)?,
        None => found.text(),
    })
}

/// What a census adds to another: as text, as JSON, and whether that is in a danger zone.
#[pyfunction]
pub fn binary_compare(old: &str, new: &str) -> PyResult<(String, String, bool)> {
    let (old, new) = (census::Census::parse(old)?, census::Census::parse(new)?);
    let found = census::compare(&old, &new);
    let json = serde_json::to_string(&found).expect("plain data");
    Ok((found.text(&old, &new), json, found.danger))
}

/// The paths of an image as a kernel text.
#[pyfunction]
pub fn binary_extract(py: Python<'_>, image: &[u8], features: &str) -> PyResult<String> {
    let image = image.to_vec();
    Ok(py.detach(|| emit::extract(image, features))?)
}

/// The features to walk for, as a list of names: those of this machine's /proc/cpuinfo and vulnerability files, those
/// of a preset, or those that the census was measured with.
#[pyfunction]
#[pyo3(signature = (cpu=None, cpuinfo=None, vulnerabilities=Vec::new()))]
pub fn binary_features(
    cpu: Option<&str>,
    cpuinfo: Option<&str>,
    vulnerabilities: Vec<(String, String)>,
) -> PyResult<String> {
    Ok(match (cpu, cpuinfo) {
        (Some(cpu), _) => {
            let preset = super::sim::machine_of(cpu)?;
            features::of_preset(&preset)
        }
        (None, Some(text)) => features::of_machine(text, &vulnerabilities),
        (None, None) => features::DEFAULT.to_owned(),
    })
}
