//! Policies cross the boundary as their text.

use pyo3::{prelude::*, types::PyDict};

use super::errors::PolicyError;
use crate::check::promela;
use crate::kernel::{
    policy,
    program::{Feature, Features},
    text::{self, File},
};

fn features(names: &[String]) -> PyResult<Features> {
    names.iter().try_fold(Features::NONE, |all, name| {
        Feature::named(name)
            .map(|f| all.with(f))
            .ok_or_else(|| PolicyError::new_err(format!("`{name}` is no feature")))
    })
}

/// Names of the built-in policies, in the order of the policy table.
#[pyfunction]
pub fn policy_names() -> Vec<&'static str> {
    policy::all().map(|p| p.id).collect()
}

/// A built-in policy's text as it stands in its file, comments included.
#[pyfunction]
pub fn policy_text(name: &str) -> PyResult<&'static str> {
    policy::builtin(name)?;
    Ok(policy::all().find(|p| p.id == name).expect("builtin looked").text)
}

/// How many policy texts this process has parsed so far.
#[pyfunction]
pub fn policy_parsed() -> u64 {
    text::parsed()
}

/// The files of the kernel's own paths, by name.
#[pyfunction]
pub fn policy_kernel() -> Vec<(&'static str, &'static str)> {
    policy::KERNEL_FILES.into_iter().chain(policy::other_files()).collect()
}

/// The versions of Linux that policies can stand on, oldest first.
#[pyfunction]
pub fn policy_versions() -> Vec<&'static str> {
    policy::versions().collect()
}

/// A policy's text on another version of Linux.
#[pyfunction]
pub fn policy_on_linux(text: &str, file: &str, version: &str) -> PyResult<String> {
    Ok(text::print(&policy::on_linux(&*policy::shared(file, text)?, version)?))
}

/// The file that a text is based on, and the line and column that say so; none if that is no file.
#[pyfunction]
pub fn policy_based_on(text: &str, file: &str) -> Option<(String, u16, u16)> {
    text::based_on(file, text).map(|(path, at)| (path, at.line, at.col))
}

/// A file's text behind that of the one that is based on it.
#[pyfunction]
pub fn policy_behind(path: &str, text: &str) -> String {
    text::behind(path, text)
}

/// The version of Linux that a text stands on.
#[pyfunction]
pub fn policy_linux(text: &str, file: &str) -> PyResult<&'static str> {
    Ok(policy::kernels(&*policy::shared(file, text)?)?.version)
}

/// Parse and assemble a text, some of whose sections are programs of roles; returns its header and canonical form.
#[pyfunction]
#[pyo3(signature = (text, file="policy", programs=Vec::new()))]
#[allow(clippy::needless_pass_by_value)] // extracted from Python by value
pub fn policy_parse<'py>(
    py: Python<'py>,
    text: &str,
    file: &str,
    programs: Vec<String>,
) -> PyResult<Bound<'py, PyDict>> {
    let parsed = policy::shared(file, text)?;
    let run: Vec<&str> = programs.iter().map(String::as_str).collect();
    policy::all_used(&parsed, &run)?;
    policy::code(&parsed, &[], Features::PTI_PCID)?;
    let out = PyDict::new(py);
    out.set_item("name", &parsed.name)?;
    out.set_item("doc", &parsed.doc)?;
    out.set_item("source", &parsed.source)?;
    out.set_item("limits", &parsed.limits)?;
    out.set_item("needs", &parsed.needs)?;
    out.set_item("based_on", &parsed.based_on)?;
    let replaces_nothing = policy::bases(&parsed).iter().all(|f| f.sections.is_empty());
    out.set_item("mainline", parsed.sections.is_empty() && replaces_nothing)?;
    out.set_item("sections", parsed.sections.iter().map(|s| s.name.as_str()).collect::<Vec<_>>())?;
    out.set_item("text", text::print(&parsed))?;
    Ok(out)
}

/// A text with another name, more header lines and some sections replaced or added; canonical form.
#[pyfunction]
pub fn policy_replace(
    text: &str,
    name: &str,
    header: &str,
    sections: Vec<(String, String)>,
) -> PyResult<String> {
    let mut file = text::parse("policy", text)?;
    let extra = text::parse(name, &format!("policy {name}\n{header}"))?;
    name.clone_into(&mut file.name);
    let File { vars, fields, pages, sites, doc, source, limits, needs, facts, .. } = extra;
    file.vars.retain(|v| vars.iter().all(|new| new.name != v.name));
    file.vars.extend(vars);
    file.fields.extend(fields);
    file.pages.extend(pages);
    file.sites.extend(sites);
    file.source.extend(source);
    file.limits.extend(limits);
    file.needs.retain(|n| !needs.contains(n));
    file.needs.extend(needs);
    file.facts.retain(|f| facts.iter().all(|new| new.key != f.key));
    file.facts.extend(facts);
    if !doc.is_empty() {
        file.doc = doc;
    }
    let given: Vec<String> = sections.iter().map(|(section, _)| section.clone()).collect();
    for (section, body) in sections {
        let body = text::statements(&format!("{name}.{section}"), &body)?;
        match file.sections.iter_mut().find(|s| s.name == section) {
            Some(old) => {
                old.body = body;
                old.place = None;
            }
            None => file.sections.push(text::Section {
                at: text::Loc::default(),
                name: section,
                place: None,
                body,
            }),
        }
    }
    // What only the replaced sections used goes with them.
    loop {
        let left: Vec<String> = policy::unused(&file)?.into_iter().filter(|n| !given.contains(n)).collect();
        if left.is_empty() {
            break;
        }
        file.sections.retain(|s| !left.contains(&s.name));
    }
    let out = text::print(&file);
    policy::load(&text::parse(name, &out)?, Features::PTI_PCID)?;
    Ok(out)
}

/// A policy's text on the paths of a kernel text, such as `binary_extract` writes.
#[pyfunction]
pub fn policy_on_kernel(text: &str, file: &str, kernel: &str, kernel_file: &str) -> PyResult<String> {
    let (policy, paths) = (text::parse(file, text)?, text::parse(kernel_file, kernel)?);
    Ok(text::print(&policy::on_kernel(&policy, &paths)?))
}

/// (program, index, op, canonical line, source).
type Row = (String, usize, String, String, String);

/// The ops both drivers run: rows of (program, index, op, canonical line, source).
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // extracted from Python by value
pub fn policy_listing(text: &str, file: &str, feature_names: Vec<String>) -> PyResult<Vec<Row>> {
    let code = policy::code(&policy::shared(file, text)?, &[], features(&feature_names)?)?;
    let mut rows = Vec::new();
    for p in &code.programs {
        for pc in p.start..p.end {
            let i = usize::from(pc);
            let op = format!("{:?}", code.ops[i]);
            rows.push((p.name.clone(), i, op, code.text[i].clone(), code.source(pc)));
        }
    }
    Ok(rows)
}

/// A policy as Promela for Spin; see `check::promela` for its scope.
#[pyfunction]
pub fn policy_promela(
    text: &str,
    file: &str,
    isolated: u8,
    entries: u8,
    danger_recycled: bool,
) -> PyResult<String> {
    let code = policy::code(&policy::shared(file, text)?, &[], Features::PTI_PCID)?;
    Ok(promela::export(&code, promela::Scope { targets: isolated, entries, danger_recycled })?)
}

/// The assembled code as JSON, for tools that run or translate it themselves; with sections that roles run.
#[pyfunction]
#[pyo3(signature = (text, file, feature_names, programs=Vec::new()))]
#[allow(clippy::needless_pass_by_value)] // extracted from Python by value
pub fn policy_code(
    text: &str,
    file: &str,
    feature_names: Vec<String>,
    programs: Vec<String>,
) -> PyResult<String> {
    let run: Vec<&str> = programs.iter().map(String::as_str).collect();
    let code = policy::code(&policy::shared(file, text)?, &run, features(&feature_names)?)?;
    Ok(serde_json::to_string(&*code).expect("plain data"))
}

/// What a policy would do on a machine with these features, as JSON: whom it spares, and what a system call costs more.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // extracted from Python by value
pub fn policy_outlook(
    py: Python<'_>,
    text: &str,
    file: &str,
    feature_names: Vec<String>,
    machine: &str,
) -> PyResult<String> {
    let (policy, features) = (policy::shared(file, text)?, features(&feature_names)?);
    let preset = super::sim::machine_of(machine)?;
    let outlook = py.detach(|| crate::sim::outlook::outlook(&policy, features, &preset))?;
    Ok(serde_json::to_string(&outlook).expect("plain data"))
}

/// What the policy table states of a built-in policy at the standard scope: whether the checker verifies it
/// without NMI (D=N=none), without NMI (D=recycled), and with one NMI (N=recycled).
#[pyfunction]
pub fn policy_stated(name: &str) -> PyResult<[bool; 3]> {
    policy::builtin(name)?;
    let row = policy::all().find(|p| p.id == name).expect("builtin looked");
    Ok(row.stated.map(|s| s == policy::Stated::Verified))
}
