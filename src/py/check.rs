//! The checker for Python: a question as plain values in, a verdict as a dictionary out.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use pyo3::{prelude::*, types::PyDict};

use crate::check::cases::{self, Named};
use crate::check::edit::{self, Ask, Bounds};
use crate::check::litmus::{self, Litmus, Observed};
use crate::check::{
    self, Answer, Assume, CheckError, Counts, Move, Question, Rest, Role, Scope, Status, Touches, UNBOUNDED,
    report, schedule,
};
use crate::hw::Preset;
use crate::kernel::program::{Code, Feature, Features};
use crate::kernel::step::Violation;
use crate::kernel::world::{self, Use, World};
use crate::kernel::{policy, text};
use crate::twin::{self, Twin};

/// Values of a scope and assumptions as they cross the boundary.
#[derive(Clone, FromPyObject)]
#[pyo3(from_item_all)]
pub(super) struct Request {
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
    confirm: u64,
    threads: usize,
    trace: bool,
    roles: String,
    initiator: String,
    world: String,
    beside: String,
}

impl Request {
    fn scope(&self) -> Result<Scope, CheckError> {
        let mut scope = Scope::standard(self.cpus.clamp(1, 6), self.nmis);
        scope.roles[0] = Role::initiator(&self.initiator, 1);
        if !self.beside.is_empty() {
            for role in &mut scope.roles[1..] {
                *role = Role::isolated_in(&self.beside, self.entries.max(1));
            }
        }
        if !self.roles.is_empty() {
            scope.roles = litmus::roles(&self.roles)?;
        }
        scope.mces = self.mces;
        scope.every_path = self.plain;
        scope.asids = self.asids;
        scope.pages = self.pages;
        scope.global = !self.features()?.has(Feature::Pti);
        for r in scope.roles.iter_mut().filter(|_| self.roles.is_empty()) {
            if r.rest == Rest::User {
                *r = Role::isolated(self.entries);
            } else if !r.isolated {
                r.left = if self.rounds == UNBOUNDED { UNBOUNDED } else { self.rounds.saturating_sub(1) };
            }
        }
        scope.validate()?;
        Ok(scope)
    }

    /// What the world offers.
    fn features(&self) -> Result<Features, CheckError> {
        World::parse(&self.world).map(|w| w.features).map_err(CheckError::Assumption)
    }

    /// The policy's text.
    fn policy(&self) -> Result<Arc<text::File>, text::PolicyError> {
        let file = policy::shared(&self.file, &self.text)?;
        if file.kind == "litmus" {
            let message = "a litmus test, not a policy: `tlbcore litmus` runs it".into();
            return Err(text::PolicyError {
                file: file.file.clone(),
                at: text::Loc { line: 1, col: 1 },
                message,
            });
        }
        Ok(file)
    }

    /// The policy, with the programs that its roles run and what is asked of it.
    fn code(&self) -> PyResult<Code> {
        let file = policy::with_question(&*self.policy()?, &self.initiator);
        let roles = self.scope()?.roles;
        let wants: Vec<&str> = roles.iter().flat_map(|r| [r.first.as_str(), r.again.as_str()]).collect();
        Ok(policy::load_with(&file, &wants, self.features()?)?)
    }

    fn assumptions(&self) -> Result<Assume, CheckError> {
        Assume::named(&self.assume)
    }
}

/// A number that two questions share where they run the same programs over the same pages and tables.
#[pyfunction]
pub fn check_programs(request: &Bound<'_, PyAny>) -> PyResult<u64> {
    let request: Request = request.extract()?;
    let (code, features) = (request.code()?, request.features()?);
    let tables = [Feature::Pti, Feature::Pcid, Feature::Fred].map(|f| features.has(f));
    let mut hash = DefaultHasher::new();
    format!("{:?}", (&code.ops, &code.programs, &code.vars, &code.fields, &code.pages, tables))
        .hash(&mut hash);
    Ok(hash.finish())
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
    let code = request.code()?;
    let question = Question {
        code: &code,
        features: request.features()?,
        scope: request.scope()?,
        assume: request.assumptions()?,
        memory: request.memory,
        plain: request.plain,
        trace: request.trace,
        threads: request.threads,
    };
    let mut interrupted = None;
    let answer = py.detach(|| {
        check::check_confirmed(
            &question,
            request.confirm,
            &mut |counts| match tick(counts, progress.as_ref()) {
                Ok(()) => true,
                Err(error) => {
                    interrupted = Some(error);
                    false
                }
            },
        )
    });
    match interrupted {
        Some(error) => Err(error),
        None => verdict(py, &answer?, request.trace),
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

fn verdict<'py>(py: Python<'py>, answer: &Answer, traced: bool) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    out.set_item("status", answer.status().name())?;
    out.set_item("world", World { features: answer.model.features }.name())?;
    out.set_item("rule", answer.violation().map(|v| v.0.name()))?;
    out.set_item("sentence", report::sentence(answer))?;
    out.set_item("states", answer.counts.states)?;
    out.set_item("transitions", answer.counts.transitions)?;
    out.set_item("depth", answer.counts.depth)?;
    out.set_item("second", answer.second)?;
    let any_number = answer.stands.is_some() && answer.status() == Status::Verified;
    out.set_item("any_number", any_number)?;
    out.set_item("bytes", answer.bytes)?;
    out.set_item("store_buffer", answer.buffer)?;
    out.set_item("bits_per_cpu", &answer.model.layout.bits.0)?;
    out.set_item("bits_shared", answer.model.layout.bits.1)?;
    out.set_item("witnesses", report::witnesses(answer))?;
    let found = match answer.violation() {
        Some((rule, moves)) if traced => Some(counterexample(py, answer, moves, rule)?),
        _ => None,
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
    rule: Violation,
) -> PyResult<Bound<'py, PyDict>> {
    let x = report::explain(&answer.model, moves, rule)?;
    let out = PyDict::new(py);
    out.set_item("rule", rule.name())?;
    out.set_item("schedule", &x.schedule)?;
    out.set_item("text", x.text())?;
    out.set_item("closing", &x.closing)?;
    out.set_item("kernel", format!("Linux {}", answer.model.code.linux))?;
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
    let code = request.code()?;
    let features = request.features()?;
    let model = check::Model::new(&code, features, &request.scope()?, request.assumptions()?, store_buffer)?;
    let moves = schedule::parse(&model, moves)?;
    Ok(schedule::replay(&model, &moves)?.violation.map(Violation::name))
}

/// The same through the timed machine: (rule, picoseconds, moves, why it cannot).
#[pyfunction]
pub fn check_replay_timed(
    request: &Bound<'_, PyAny>,
    store_buffer: usize,
    moves: &str,
    machine: &str,
) -> PyResult<(Option<&'static str>, u64, usize, Option<&'static str>)> {
    let request: Request = request.extract()?;
    let features = request.features()?;
    let code = request.code()?;
    let model = check::Model::new(&code, features, &request.scope()?, request.assumptions()?, store_buffer)?;
    let preset = Preset::builtin(machine)?;
    let twin =
        twin::timed(&model, features, &preset, moves).map_err(|e| CheckError::Schedule(e.to_string()))?;
    Ok(match twin {
        Twin::Played(p) => (p.violation.map(Violation::name), p.time_ps, p.moves, None),
        Twin::NotTimed(why) => (None, 0, 0, Some(why)),
    })
}

/// Initiators whose promises a policy's check looks at: `purge`, `text_poke`, or both.
#[pyfunction]
pub fn check_initiators(text: &str, file: &str) -> PyResult<Vec<&'static str>> {
    Ok(policy::initiators(&*policy::shared(file, text)?))
}

/// The worlds a policy is asked about where none is named.
#[pyfunction]
pub fn check_worlds(text: &str, file: &str) -> PyResult<Vec<String>> {
    let worlds = world::standard(&*policy::shared(file, text)?)?;
    Ok(worlds.into_iter().map(World::name).collect())
}

/// A world's one name, and the features that make the policy inert there (none: it runs).
#[pyfunction]
pub fn check_world(text: &str, file: &str, name: &str) -> PyResult<(String, Vec<String>)> {
    let world = World::parse(name).map_err(CheckError::Assumption)?;
    let file = policy::shared(file, text)?;
    let stands_on = policy::kernels(&file)?.version;
    if let Some((_, version)) = name.split_once('@')
        && version != stands_on
    {
        let why =
            format!("world `{name}`: {} stands on Linux {stands_on}; put it on {version} first", file.name);
        return Err(CheckError::Assumption(why).into());
    }
    match world::used(&file, world)? {
        Use::Runs => Ok((world.name(), Vec::new())),
        Use::Inert(lacks) => Ok((world.name(), lacks)),
        Use::NoUserTable => Err(CheckError::Assumption(format!(
            "world `{}`: {} writes the user CR3, and without PTI there is none: it needs pti (say so in its header), or \
             an `if feature pti` around it",
            world.name(),
            file.name
        ))
        .into()),
    }
}

/// What a policy is asked: (initiator, what it is about, what runs beside it or nothing), and its own sections that no
/// question and no entry path runs.
#[pyfunction]
#[allow(clippy::type_complexity)] // a row of plain values
pub fn check_questions(
    text: &str,
    file: &str,
) -> PyResult<(Vec<(&'static str, &'static str, &'static str)>, Vec<String>)> {
    let file = policy::shared(file, text)?;
    let rows = policy::questions(&file).into_iter();
    let rows = rows.map(|a| (a.initiator, a.about, a.beside.unwrap_or("")));
    Ok((rows.collect(), policy::not_asked(&file)))
}

/// What is tried for the question of an initiator where nothing is fixed: the values of D, N and T.
#[pyfunction]
pub fn check_tried(initiator: &str) -> PyResult<Vec<(&'static str, Vec<&'static str>)>> {
    let none = || CheckError::Assumption(format!("no question has the initiator `{initiator}`"));
    let row = cases::tried(initiator).ok_or_else(none)?;
    Ok(vec![
        ("D", std::iter::once(row.danger).chain(row.hypothesis).map(Touches::name).collect()),
        ("N", row.bodies.iter().map(|b| b.name()).collect()),
        ("T", row.text.iter().map(|t| t.name()).collect()),
    ])
}

/// The cases of the question of an initiator, or of roles: what each assumes, and whether today's kernel does not do it.
#[pyfunction]
pub fn check_cases(initiator: &str, given: Named, nmis: bool) -> PyResult<Vec<(Named, bool)>> {
    let cases = cases::cases(initiator, &given, nmis)?;
    Ok(cases.into_iter().map(|case| (case.assume, case.hypothetical)).collect())
}

/// The initiator whose question it is what CPUs with these roles are asked.
#[pyfunction]
pub fn check_initiator_of(roles: &str) -> PyResult<&'static str> {
    Ok(cases::initiator_of(&litmus::roles(roles)?))
}

/// Is what is verified under `known` verified under `other`?
#[pyfunction]
pub fn check_implies(known: Named, other: Named) -> PyResult<bool> {
    Ok(Assume::named(&known)?.implies(&Assume::named(&other)?))
}

/// How much code touches under some assumptions: D, N and T, each from 0 for the fewest accesses.
#[pyfunction]
pub fn check_accesses(assume: Named) -> PyResult<[usize; 3]> {
    Ok(Assume::named(&assume)?.accesses())
}

/// The accesses of all that are like the first, as values of D, N and T; `None` if one of those has them all.
#[pyfunction]
pub fn check_joined(assumes: Vec<Named>) -> PyResult<Option<Vec<(&'static str, &'static str)>>> {
    let all = assumes.iter().map(|a| Assume::named(a)).collect::<Result<Vec<_>, _>>()?;
    let most = cases::joined(&all);
    Ok(most.map(|m| vec![("D", m.danger.name()), ("N", m.nmi.name()), ("T", m.text.name())]))
}

/// Names and values of the assumption flags.
#[pyfunction]
pub fn check_assumptions() -> Vec<(&'static str, Vec<&'static str>)> {
    Assume::FLAGS.iter().map(|(n, v)| (*n, v.to_vec())).collect()
}

/// Run one litmus test; a dictionary with its name, stated and found verdicts, and the counterexample.
#[pyfunction]
pub fn litmus_run<'py>(
    py: Python<'py>,
    text: &str,
    file: &str,
    memory: usize,
    plain: bool,
    ends: bool,
) -> PyResult<Bound<'py, PyDict>> {
    let test = Litmus::new(file, text)?;
    let outcome = py.detach(|| if ends { test.ends(memory, plain) } else { test.run(memory, plain) })?;
    let out = verdict(py, &outcome.answer, true)?;
    out.set_item("name", &test.name)?;
    out.set_item("doc", &test.doc)?;
    out.set_item("source", &test.source)?;
    out.set_item("stated", &test.verdict)?;
    out.set_item("stated_states", test.states)?;
    out.set_item("found", &outcome.found)?;
    out.set_item("note", &outcome.note)?;
    out.set_item("herd", test.herd)?;
    let ends = match &outcome.ends {
        None => None,
        Some(ends) => {
            let rows = ends.rows.iter().map(|row| {
                let d = PyDict::new(py);
                for (name, value) in ends.names.iter().zip(row) {
                    match *value {
                        Observed::Number(n) => d.set_item(name, n)?,
                        Observed::Word(word) => d.set_item(name, word)?,
                        Observed::Truth(on) => d.set_item(name, on)?,
                    }
                }
                Ok(d)
            });
            Some((rows.collect::<PyResult<Vec<_>>>()?, ends.complete))
        }
    };
    out.set_item("ends", ends)?;
    Ok(out)
}

/// A question of edited policies, and the assumptions under each set of which it must hold.
type Asked = (Request, Vec<Named>);

/// The policy that is edited, and all that is asked of what it becomes.
fn bounds(asked: &[Asked]) -> PyResult<(Arc<text::File>, Bounds)> {
    let Some((first, _)) = asked.first() else {
        return Err(CheckError::Assumption("nothing is asked of the edited policies".into()).into());
    };
    let asks = asked.iter().map(|(request, assume)| ask(request, assume)).collect::<Result<_, _>>()?;
    Ok((first.policy()?, Bounds { asks, memory: first.memory }))
}

fn ask(request: &Request, assume: &[Named]) -> Result<Ask, CheckError> {
    Ok(Ask {
        initiator: request.initiator.clone(),
        features: request.features()?,
        scope: request.scope()?,
        assume: assume.iter().map(|named| Assume::named(named)).collect::<Result<_, _>>()?,
    })
}

/// Run a long search that Ctrl-C can stop.
fn interruptible<T: Send>(
    py: Python<'_>,
    progress: Option<&Py<PyAny>>,
    work: impl Send + FnOnce(&mut dyn FnMut(&Counts) -> bool) -> Result<T, CheckError>,
) -> PyResult<T> {
    let mut interrupted = None;
    let done = py.detach(|| {
        work(&mut |counts| match tick(counts, progress) {
            Ok(()) => true,
            Err(error) => {
                interrupted = Some(error);
                false
            }
        })
    });
    match interrupted {
        Some(error) => Err(error),
        None => Ok(done?),
    }
}

/// Each op and order of a policy, and the verdict without it.
#[pyfunction]
#[pyo3(signature = (asked, progress=None))]
pub fn check_necessary(
    py: Python<'_>,
    asked: Vec<Asked>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Vec<Bound<'_, PyDict>>> {
    let (file, bounds) = bounds(&asked)?;
    let needs = interruptible(py, progress.as_ref(), |go_on| edit::necessary(&file, &bounds, go_on))?;
    needs
        .into_iter()
        .map(|n| {
            let d = PyDict::new(py);
            d.set_item("section", n.section)?;
            d.set_item("place", n.place)?;
            d.set_item("what", n.what)?;
            d.set_item("supplied_by", n.supplied_by)?;
            d.set_item("status", n.judged.status.name())?;
            d.set_item("rule", n.judged.rule.map(Violation::name))?;
            d.set_item("states", n.judged.states)?;
            Ok(d)
        })
        .collect()
}

/// Every policy that is one small step weaker and assembles: (section, what is weaker, what supplies it today, text).
#[pyfunction]
pub fn check_mutants(text: &str, file: &str) -> PyResult<Vec<(String, String, &'static str, String)>> {
    let mutants = edit::mutants(&*policy::shared(file, text)?);
    Ok(mutants
        .into_iter()
        .filter(|m| policy::load(&m.file, Features::PTI_PCID).is_ok())
        .map(|m| (m.section, m.what, m.supplied_by, text::print(&m.file)))
        .collect())
}

/// The smallest sets of edits that make a policy pass.
#[pyfunction]
#[pyo3(signature = (asked, most, progress=None))]
pub fn check_repair(
    py: Python<'_>,
    asked: Vec<Asked>,
    most: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<Vec<Bound<'_, PyDict>>> {
    let (file, bounds) = bounds(&asked)?;
    let found = interruptible(py, progress.as_ref(), |go_on| edit::repair(&file, &bounds, most, go_on))?;
    found
        .into_iter()
        .map(|r| {
            let d = PyDict::new(py);
            d.set_item("edits", r.edits)?;
            d.set_item("text", r.text)?;
            d.set_item("verdict", report::verified(&bounds.asks[0].scope))?;
            d.set_item("states", r.judged.states)?;
            Ok(d)
        })
        .collect()
}
