//! The checker for Python: a question as plain values in, a verdict as a dictionary out.

use pyo3::{prelude::*, types::PyDict};

use crate::check::{
    self, Answer, Assume, CheckError, Counts, Move, Question, Scope, Status, report, schedule,
};
use crate::kernel::{policy, program::Features, text};

/// Values of a scope and assumptions as they cross the boundary.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Request {
    text: String,
    file: String,
    cpus: usize,
    nmis: u8,
    mces: u8,
    asids: usize,
    pages: usize,
    entries: u8,
    rounds: u8,
    assume: Vec<(String, String)>,
    memory: usize,
    plain: bool,
}

impl Request {
    fn scope(&self) -> Result<Scope, CheckError> {
        let mut scope = Scope::standard(self.cpus.clamp(1, 6), self.nmis);
        scope.mces = self.mces;
        scope.asids = self.asids;
        scope.pages = self.pages;
        for r in &mut scope.roles {
            r.left = if r.isolated { self.entries } else { self.rounds.saturating_sub(1) };
        }
        scope.validate()?;
        Ok(scope)
    }

    fn assumptions(&self) -> Result<Assume, CheckError> {
        let mut assume = Assume::default();
        for (name, value) in &self.assume {
            assume.set(name, value)?;
        }
        Ok(assume)
    }
}

/// Explore one question. `progress` is called with (states, depth) now and then.
#[pyfunction]
#[pyo3(signature = (request, progress=None))]
pub fn check_run<'py>(
    py: Python<'py>,
    request: &Bound<'py, PyAny>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let request: Request = request.extract()?;
    let code = policy::load(&text::parse(&request.file, &request.text)?, Features::PTI_PCID)?;
    let question = Question {
        code: &code,
        features: Features::PTI_PCID,
        scope: request.scope()?,
        assume: request.assumptions()?,
        memory: request.memory,
        plain: request.plain,
    };
    let mut interrupted = None;
    let answer = py.detach(|| {
        check::check(&question, &mut |counts| match tick(counts, progress.as_ref()) {
            Ok(()) => true,
            Err(error) => {
                interrupted = Some(error);
                false
            }
        })
    });
    match interrupted {
        Some(error) => Err(error),
        None => verdict(py, &answer?),
    }
}

fn tick(counts: &Counts, progress: Option<&Py<PyAny>>) -> PyResult<()> {
    Python::attach(|py| {
        py.check_signals()?;
        match progress {
            Some(f) => f.call1(py, (counts.states, counts.depth)).map(drop),
            None => Ok(()),
        }
    })
}

fn verdict<'py>(py: Python<'py>, answer: &Answer) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    out.set_item("status", answer.status().name())?;
    out.set_item("sentence", report::sentence(answer))?;
    out.set_item("states", answer.counts.states)?;
    out.set_item("transitions", answer.counts.transitions)?;
    out.set_item("depth", answer.counts.depth)?;
    out.set_item("bytes", answer.bytes)?;
    out.set_item("store_buffer", answer.buffer)?;
    out.set_item("bits_per_cpu", &answer.model.layout.bits.0)?;
    out.set_item("bits_shared", answer.model.layout.bits.1)?;
    out.set_item("witnesses", report::witnesses(answer))?;
    let found = match answer.violation() {
        Some((rule, moves)) => Some(counterexample(py, answer, moves, rule)?),
        None => None,
    };
    out.set_item("counterexample", found)?;
    let gs = match (&answer.wrong_gs, answer.status()) {
        (Some(moves), Status::Verified | Status::Violated) => Some(schedule::format(&answer.model, moves)),
        _ => None,
    };
    out.set_item("wrong_gs", gs)?;
    Ok(out)
}

fn counterexample<'py>(
    py: Python<'py>,
    answer: &Answer,
    moves: &[Move],
    rule: crate::kernel::step::Violation,
) -> PyResult<Bound<'py, PyDict>> {
    let x = report::explain(&answer.model, moves, rule)?;
    let out = PyDict::new(py);
    out.set_item("rule", rule.name())?;
    out.set_item("schedule", &x.schedule)?;
    out.set_item("text", x.text())?;
    out.set_item("closing", &x.closing)?;
    out.set_item("lanes", &x.lanes)?;
    let mut steps = Vec::new();
    for s in &x.steps {
        let d = PyDict::new(py);
        d.set_item("number", s.number)?;
        d.set_item("cpu", s.cpu)?;
        d.set_item("what", &s.what)?;
        d.set_item("source", &s.source)?;
        d.set_item("changes", &s.changes)?;
        d.set_item("shown", s.shown)?;
        steps.push(d);
    }
    out.set_item("steps", steps)?;
    Ok(out)
}

/// Carry out a schedule; the rule its last move breaks, if any.
#[pyfunction]
pub fn check_replay(
    request: &Bound<'_, PyAny>,
    store_buffer: usize,
    moves: &str,
) -> PyResult<Option<&'static str>> {
    let request: Request = request.extract()?;
    let code = policy::load(&text::parse(&request.file, &request.text)?, Features::PTI_PCID)?;
    let model = check::Model::new(
        &code,
        Features::PTI_PCID,
        &request.scope()?,
        request.assumptions()?,
        store_buffer,
    )?;
    let moves = schedule::parse(&model, moves)?;
    Ok(schedule::replay(&model, &moves)?.violation.map(super::super::kernel::step::Violation::name))
}

/// Names and values of the assumption flags.
#[pyfunction]
pub fn check_assumptions() -> Vec<(&'static str, Vec<&'static str>)> {
    Assume::FLAGS.iter().map(|(n, v)| (*n, v.to_vec())).collect()
}
