//! Kernel images cross the boundary as bytes, censuses as JSON.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::binary::image::Image;
use crate::binary::kallsyms::Symbols;
use crate::binary::{BinaryError, census, difference, emit, features, live};

/// The census of an image's entry and exit paths, as JSON.
#[pyfunction]
pub fn binary_census(py: Python<'_>, image: &[u8], features: &str) -> PyResult<String> {
    let image = image.to_vec();
    let found = py.detach(|| census::census(image, features))?;
    Ok(serde_json::to_string(&found).expect("plain data"))
}

/// A census as text that fits so many columns; of one entry, access by access, if it is named.
#[pyfunction]
#[pyo3(signature = (census, entry=None, columns=None))]
pub fn binary_report(census: &str, entry: Option<&str>, columns: Option<usize>) -> PyResult<String> {
    let found = census::Census::parse(census)?;
    Ok(match entry {
        Some(name) => found.entry_text(name)?,
        None => found.text(columns),
    })
}

/// What a census adds to another: as text, as JSON, and whether that is in a danger zone.
#[pyfunction]
pub fn binary_compare(old: &str, new: &str) -> PyResult<(String, String, bool)> {
    let (old, new) = (census::Census::parse(old)?, census::Census::parse(new)?);
    let found = difference::compare(&old, &new);
    let json = serde_json::to_string(&found).expect("plain data");
    Ok((found.text(&old, &new), json, found.danger))
}

/// The paths of an image as a kernel text; `variables` are pairs of a policy's variable and the symbol that holds it.
#[pyfunction]
#[pyo3(signature = (image, features, variables=Vec::new()))]
#[allow(clippy::needless_pass_by_value)] // extracted from Python by value
pub fn binary_extract(
    py: Python<'_>,
    image: &[u8],
    features: &str,
    variables: Vec<(String, String)>,
) -> PyResult<String> {
    let image = image.to_vec();
    Ok(py.detach(|| emit::extract(image, features, &variables))?)
}

/// The running kernel against its file: a report, whether they are the same, and the census of the running text as JSON.
#[pyfunction]
pub fn binary_verify(
    py: Python<'_>,
    image: &[u8],
    features: &str,
    core: &str,
    kallsyms: &str,
) -> PyResult<(String, bool, String)> {
    let image = image.to_vec();
    let found = py.detach(|| {
        let mut file =
            std::fs::File::open(core).map_err(|e| BinaryError(format!("{core} cannot be opened: {e}")))?;
        live::verify(image, features, &mut file, kallsyms)
    })?;
    Ok((found.report, found.same, serde_json::to_string(&found.live).expect("plain data")))
}

/// An image as the ELF that it packs, and the addresses of symbols, `None` for those that it has not.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // extracted from Python by value
pub fn binary_unpack<'py>(
    py: Python<'py>,
    image: &[u8],
    names: Vec<String>,
) -> PyResult<(Bound<'py, PyBytes>, Vec<Option<u64>>)> {
    let image = image.to_vec();
    let (image, found) = py.detach(|| {
        let image = Image::parse(image)?;
        let symbols = Symbols::read(&image)?;
        let found = names.iter().map(|name| symbols.address(name)).collect();
        Ok::<_, BinaryError>((image, found))
    })?;
    Ok((PyBytes::new(py, image.bytes()), found))
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
