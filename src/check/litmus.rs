//! Litmus tests: one shape per file, programs in the policy language, the verdict inside.
//!
//! A test is a `litmus` file. Its columns are sections `cpu 0`, `cpu 1`, ...; without columns its CPUs play roles
//! (`cpus "purge; isolated 2"`). Header lines: `verdict "..."`, and where they differ from the standard
//! `exists "CONDITION"` (is such an end reachable?), `forall "CONDITION"` (holds in every end), `never "CONDITION"`,
//! `locations "x 0:r"` (also listed of each end), `assume "D=recycled N=none"`,
//! `nmis "1"`, `mces "1"`, `asids "2"`, `deaf "1"` (that CPU takes no interrupts), `unflushed "1"` (that CPU is not in
//! the mask the entry flush tests), `frames "a: x y"` (page `a`
//! maps variable `x`, after its next change `y`), `tops "a: t"` (a walk to page `a` needs `t` of the loaded mm to be set), `features "pti pcid"`.

use std::ops::RangeInclusive;

use super::herd;
use super::machine::{Model, Seen};
use super::property::{Condition, ENTRIES, Names, Quantity};
use super::scope::{Assume, CheckError, MAX_CPUS, Role, Scope, UNBOUNDED, USER_ENTRIES};
use super::{Answer, Cut, End, Question, Status, check};
use crate::kernel::policy::load_keeping;
use crate::kernel::program::{Code, Copies, Feature, Features, Op, PageKind};
use crate::kernel::step::Violation;
use crate::kernel::text::{self, File, Loc, PolicyError, Section};
use crate::order;

mod questions;

use questions::Asked;

/// What can be wrong with a litmus file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LitmusError {
    /// Its text.
    #[error(transparent)]
    Text(#[from] PolicyError),
    /// Its header.
    #[error(transparent)]
    Header(#[from] CheckError),
}

/// Header lines beside those every text has.
const KEYS: [&str; 18] = [
    "linux",
    "verdict",
    "exists",
    "forall",
    "never",
    "locations",
    "assume",
    "nmis",
    "mces",
    "asids",
    "cpus",
    "deaf",
    "unflushed",
    "frames",
    "tops",
    "features",
    "states",
    "note",
];

/// What a `verdict` line can start with.
const VERDICTS: [&str; 5] = ["verified", "violated", "inconclusive", "allowed", "forbidden"];

/// The header of a litmus file. Errors name the line.
struct Header<'a> {
    file: &'a File,
}

impl<'a> Header<'a> {
    /// Look at the keys; `note` alone may stand more than once.
    fn new(file: &'a File) -> Result<Self, PolicyError> {
        let header = Header { file };
        if file.kind != "litmus" {
            return Err(header.at(Loc { line: 1, col: 1 }, "a litmus test starts with `litmus NAME`"));
        }
        for (i, fact) in file.facts.iter().enumerate() {
            let key = fact.key.as_str();
            if !KEYS.contains(&key) {
                let known = KEYS.join(", ");
                let why = format!("`{key}` is no header line of a litmus test; these are: {known}");
                return Err(header.at(fact.at, why));
            }
            if key != "note" && file.facts[..i].iter().any(|f| f.key == key) {
                return Err(header.at(fact.at, format!("`{key}` stands here a second time")));
            }
        }
        let verdict = header.text("verdict").unwrap_or("verified");
        if !VERDICTS.contains(&verdict.split(':').next().unwrap_or("")) {
            let known = VERDICTS.join(", ");
            let why = format!("`{verdict}` is no verdict; it starts with one of: {known}");
            return Err(header.bad("verdict", why));
        }
        Ok(header)
    }

    fn at(&self, at: Loc, why: impl Into<String>) -> PolicyError {
        PolicyError { file: self.file.file.clone(), at, message: why.into() }
    }

    /// What is wrong with the line of a key, or with the file if it has none.
    fn bad(&self, key: &str, why: impl Into<String>) -> PolicyError {
        let fact = self.file.facts.iter().find(|f| f.key == key);
        self.at(fact.map_or(Loc { line: 1, col: 1 }, |f| f.at), why)
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.file.facts.iter().find(|f| f.key == key).map(|f| f.text.as_str())
    }

    fn number(&self, key: &str, default: u8, range: RangeInclusive<u8>) -> Result<u8, PolicyError> {
        let Some(text) = self.text(key) else { return Ok(default) };
        text.trim().parse().ok().filter(|n| range.contains(n)).ok_or_else(|| {
            self.bad(key, format!("`{key}` is a number, {} to {}: got `{text}`", range.start(), range.end()))
        })
    }

    /// What each CPU does: the roles of `cpus`, then the columns.
    fn roles(&self) -> Result<Vec<Role>, PolicyError> {
        let mut list = match self.text("cpus") {
            Some(text) => roles(text).map_err(|e| self.bad("cpus", e.to_string()))?,
            None => Vec::new(),
        };
        let column = |s: &'a Section| Some((s.name.strip_prefix("cpu ")?.parse::<usize>().ok()?, s.at));
        let mut columns: Vec<_> = self.file.sections.iter().filter_map(column).collect();
        order::by_key(&mut columns, |c| c.0);
        for (n, at) in columns {
            let next = list.len();
            if n != next {
                return Err(self.at(at, format!("the next CPU is `cpu {next}`: found `cpu {n}`")));
            }
            list.push(Role::column("", &format!("cpu {n}")));
        }
        if list.is_empty() {
            let why = "no CPU does anything: columns `cpu 0`, `cpu 1`, ... or a header line `cpus`";
            return Err(self.at(Loc { line: 1, col: 1 }, why));
        }
        if list.len() > MAX_CPUS {
            return Err(self.bad("cpus", format!("there are at most {MAX_CPUS} CPUs: got {}", list.len())));
        }
        for key in ["deaf", "unflushed"] {
            for word in self.text(key).unwrap_or("").split_whitespace() {
                let cpu = word.parse::<usize>().ok().and_then(|n| list.get_mut(n));
                let role = cpu.ok_or_else(|| self.bad(key, format!("`{key}` names CPUs, not `{word}`")))?;
                if key == "deaf" {
                    role.deaf = true;
                    role.name = "deaf".into();
                } else {
                    role.flushes = false;
                }
            }
        }
        Ok(list)
    }

    /// For each page the fields it maps in turn.
    fn frames(&self, code: &Code) -> Result<Vec<Vec<u8>>, PolicyError> {
        let bad = |why: String| self.bad("frames", why);
        let Some(text) = self.text("frames") else { return Ok(Vec::new()) };
        let mut frames = vec![Vec::new(); code.pages.len()];
        for part in text.split(';') {
            let (page, vars) =
                part.split_once(':').ok_or_else(|| bad("`frames` is PAGE: VAR VAR ...".into()))?;
            let p = code.pages.iter().position(|p| p.name == page.trim());
            let p = p.ok_or_else(|| bad(format!("`{}` is no page", page.trim())))?;
            for v in vars.split_whitespace() {
                let field = code.fields.iter().position(|f| f.name == v);
                let field = field.ok_or_else(|| bad(format!("`{v}` is no variable")))? as u8;
                if code.counts(field).is_some() {
                    return Err(bad(format!("`{v}` counts: no page maps it")));
                }
                frames[p].push(field);
            }
        }
        Ok(frames)
    }

    /// For each page the variable that says which top-level tables lead to it.
    fn tops(&self, code: &Code) -> Result<Vec<Option<u8>>, PolicyError> {
        let bad = |why: String| self.bad("tops", why);
        let Some(text) = self.text("tops") else { return Ok(Vec::new()) };
        let mut tops = vec![None; code.pages.len()];
        for part in text.split(';') {
            let (page, var) = part.split_once(':').ok_or_else(|| bad("`tops` is PAGE: VAR".into()))?;
            let (page, var) = (page.trim(), var.trim());
            let p = code.pages.iter().position(|p| p.name == page);
            let p = p.ok_or_else(|| bad(format!("`{page}` is no page")))?;
            let kind = code.pages[p].kind;
            if code.pages[p].user_mapped || matches!(kind, PageKind::User(_) | PageKind::Text) {
                return Err(bad(format!("`{page}` is not of the kernel's half alone")));
            }
            let v = code.vars.iter().position(|v| v.name == var && v.copies == Copies::Mm);
            tops[p] = Some(v.ok_or_else(|| bad(format!("`{var}` is no variable with a copy per mm")))? as u8);
        }
        Ok(tops)
    }

    fn assume(&self) -> Result<Assume, PolicyError> {
        let mut assume = Assume::default();
        let mut given: Vec<(&str, &str)> = Vec::new();
        for word in self.text("assume").unwrap_or("").split_whitespace() {
            let bad = |why: String| self.bad("assume", why);
            let (name, value) =
                word.split_once('=').ok_or_else(|| bad(format!("`assume` is NAME=VALUE, not `{word}`")))?;
            if let Some((_, other)) = given.iter().find(|g| g.0 == name && g.1 != value) {
                return Err(bad(format!("`{name}` is assumed to be `{other}` and `{value}`")));
            }
            given.push((name, value));
            assume.set(name, value).map_err(|e| bad(e.to_string()))?;
        }
        Ok(assume)
    }
}

/// Header lines with a condition.
/// A litmus test, ready to run.
#[derive(Clone, Debug)]
pub struct Litmus {
    /// Name.
    pub name: String,
    /// One sentence.
    pub doc: String,
    /// Sources.
    pub source: Vec<String>,
    /// The verdict its file states.
    pub verdict: String,
    /// The number of states it states, with reductions.
    pub states: Option<u64>,
    /// Programs.
    pub code: Code,
    /// Machine.
    pub features: Features,
    /// Bounds.
    pub scope: Scope,
    /// Assumptions.
    pub assume: Assume,
    /// Its file is one of herd's, which state no verdict.
    pub herd: bool,
}

/// How a test ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was found, in the words of the `verdict` line.
    pub found: String,
    /// The search; the last one where conditions are asked one after the other.
    pub answer: Answer,
    /// What is in the way of a verdict.
    pub note: String,
    /// What is observed: names; of each end its values. None unless ends are asked for.
    pub ends: Option<Ends>,
}

/// Ends of a test.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    /// What is observed.
    pub names: Vec<String>,
    /// Values, by end.
    pub rows: Vec<Vec<Observed>>,
    /// There are no others.
    pub complete: bool,
}

/// A value at an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// Of a variable or local.
    Number(u64),
    /// Of an entry.
    Word(&'static str),
    /// Whether a column faulted.
    Truth(bool),
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphabetic())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Read roles: `purge; isolated 2; isolated purge; PROGRAM*3`.
pub fn roles(text: &str) -> Result<Vec<Role>, CheckError> {
    let bad = |what: &str| {
        CheckError::Litmus(format!(
            "`{what}` is no role: a role is PROGRAM, PROGRAM*ROUNDS, `isolated ENTRIES`, `isolated ENTRIES by ENTRY` or \
             `isolated PROGRAM`"
        ))
    };
    let count = |entries: u8| match entries {
        0..=15 => Ok(entries),
        _ => Err(CheckError::Bound {
            what: "the number of entries of an isolated CPU",
            least: 0,
            most: 15,
            got: usize::from(entries),
        }),
    };
    text.split([';', ','])
        .map(str::trim)
        .filter(|w| !w.is_empty())
        .map(|word| {
            if let Some(rest) = word.strip_prefix("isolated") {
                let rest = rest.trim();
                if rest.is_empty() {
                    return Ok(Role::isolated(2));
                }
                if let Some((entries, by)) = rest.split_once(" by ") {
                    let entries = count(entries.trim().parse::<u8>().map_err(|_| bad(word))?)?;
                    if !USER_ENTRIES.contains(&by.trim()) {
                        return Err(CheckError::Litmus(format!(
                            "`{}` is no entry path from user mode; these are: {}",
                            by.trim(),
                            USER_ENTRIES.join(", ")
                        )));
                    }
                    return Ok(Role::isolated_by(entries, by.trim()));
                }
                if rest == "unbounded" {
                    return Ok(Role::isolated(UNBOUNDED));
                }
                if let Ok(entries) = rest.parse::<u8>() {
                    return Ok(Role::isolated(count(entries)?));
                }
                if !is_name(rest) {
                    return Err(bad(word));
                }
                return Ok(Role::isolated_in(rest, 1));
            }
            let (program, rounds) = match word.split_once('*') {
                Some((p, n)) if n.trim() == "unbounded" => (p.trim(), UNBOUNDED),
                Some((p, n)) => (p.trim(), n.trim().parse::<u8>().map_err(|_| bad(word))?),
                None => (word, 1),
            };
            if !is_name(program) || !(1..=15).contains(&rounds) && rounds != UNBOUNDED {
                return Err(bad(word));
            }
            Ok(Role::initiator(program, rounds))
        })
        .collect()
}

/// Is a test about promises: do its programs change entries, and does no condition ask about something else?
fn asks_flush(code: &Code, scope: &Scope) -> bool {
    let programs = scope.roles.iter().flat_map(|r| [&r.first, &r.again]);
    let mut ops = programs.flat_map(|name| code.ops_of(name));
    let about = |op: &Op| matches!(op, Op::Pte { .. } | Op::Request(_) | Op::Promise(_) | Op::FreeTable(_));
    scope.exists.is_none() && scope.forall.is_none() && scope.never.is_none() && ops.any(about)
}

impl Litmus {
    /// Parse and assemble.
    pub fn new(file_name: &str, text: &str) -> Result<Litmus, LitmusError> {
        if herd::is_herd(text) {
            let test = Self::of(&herd::parse(file_name, text)?)?;
            return Ok(Litmus { herd: true, ..test });
        }
        let file = text::parse(file_name, text)?;
        Self::of(&file)
    }

    fn of(file: &File) -> Result<Litmus, LitmusError> {
        let header = Header::new(file)?;
        let features = match header.text("features") {
            None => Features::PTI_PCID,
            Some(words) => words.split_whitespace().try_fold(Features::NONE, |all, w| {
                let feature =
                    Feature::named(w).ok_or_else(|| header.bad("features", format!("`{w}` is no feature")));
                feature.map(|f| all.with(f))
            })?,
        };
        if features.has(Feature::Pti) && features.has(Feature::Fred) {
            let why = "Linux switches `fred` off under `pti`: leave one out";
            return Err(header.bad("features", why).into());
        }
        let roles = header.roles()?;
        let run: Vec<&str> = roles.iter().flat_map(|r| [r.first.as_str(), r.again.as_str()]).collect();
        let asked = Asked::of(&header)?;
        let code = load_keeping(file, &run, &asked.keep(), features)?;
        let frames = header.frames(&code)?;
        let tops = header.tops(&code)?;
        let columns = file.sections.iter().filter(|s| s.name.starts_with("cpu ")).count();
        let names = Names { code: &code, roles: roles.len() - columns.min(roles.len()), cpus: roles.len() };
        let mut scope = Scope {
            roles,
            pages: 1,
            asids: usize::from(header.number("asids", 1, 1..=2)?),
            nmis: header.number("nmis", 0, 0..=7)?,
            mces: header.number("mces", 0, 0..=3)?,
            never: None,
            exists: None,
            forall: None,
            observed: Vec::new(),
            lists_ends: false,
            sought: None,
            frames,
            tops,
            rename: false,
            global: !features.has(Feature::Pti),
            every_path: false,
            asks_flush: false,
        };
        scope.observed = header.ask(&asked, names, &mut scope)?;
        scope.asks_flush = asks_flush(&code, &scope);
        scope.validate()?;
        let assume = header.assume()?;
        header.judge(&scope, &Model::new(&code, features, &scope, assume, 2)?)?;
        let states = header.text("states").map(|v| {
            v.parse().map_err(|_| header.bad("states", format!("`states` takes a number, not `{v}`")))
        });
        Ok(Litmus {
            name: file.name.clone(),
            doc: file.doc.clone(),
            source: file.source.clone(),
            verdict: header.text("verdict").unwrap_or("").to_string(),
            states: states.transpose()?,
            code,
            features,
            scope,
            assume,
            herd: false,
        })
    }

    /// Explore. Each condition is asked by itself: `never` first, then `forall`, then `exists`.
    pub fn run(&self, memory: usize, plain: bool) -> Result<Outcome, CheckError> {
        let mut alone = Vec::new();
        let none = Scope { never: None, forall: None, exists: None, ..self.scope.clone() };
        if self.scope.never.is_some() {
            alone.push(Scope { never: self.scope.never.clone(), ..none.clone() });
        }
        if self.scope.forall.is_some() {
            alone.push(Scope { forall: self.scope.forall.clone(), ..none.clone() });
        }
        if self.scope.exists.is_some() {
            alone.push(Scope { exists: self.scope.exists.clone(), ..none.clone() });
        }
        if alone.is_empty() {
            alone.push(none);
        }
        let last = alone.len() - 1;
        for (i, scope) in alone.into_iter().enumerate() {
            let asks = scope.exists.is_some();
            let needs_an_end = scope.forall.is_some();
            let answer = self.search(scope, memory, plain)?;
            let (found, note) = found(&answer, asks, needs_an_end);
            if i == last || found != "verified" {
                let outcome = Outcome { found, answer, note, ends: None };
                return Ok(self.stated_rule(&outcome, memory, plain)?.unwrap_or(outcome));
            }
        }
        unreachable!("the last question returns")
    }

    /// The shortest violation may break another rule than the verdict states: whether that one is broken too is asked
    /// by itself.
    fn stated_rule(
        &self,
        found: &Outcome,
        memory: usize,
        plain: bool,
    ) -> Result<Option<Outcome>, CheckError> {
        let stated = self.verdict.strip_prefix("violated: ");
        let Some(stated) = stated.filter(|_| found.found.starts_with("violated: ")) else { return Ok(None) };
        let Some(rule) = Violation::ALL.into_iter().find(|v| v.name() == stated) else { return Ok(None) };
        if found.found == self.verdict {
            return Ok(None);
        }
        let asks =
            (rule == Violation::Invariant).then(|| (self.scope.never.clone(), self.scope.forall.clone()));
        let (never, forall) = asks.unwrap_or_default();
        let none = Scope { never, forall, exists: None, ..self.scope.clone() };
        let answer = self.search(Scope { sought: Some(rule), ..none }, memory, plain)?;
        let is_broken = answer.violation().is_some_and(|(v, _)| v == rule);
        Ok(is_broken.then(|| Outcome {
            found: self.verdict.clone(),
            answer,
            note: String::new(),
            ends: None,
        }))
    }

    /// Explore once and list every end; `exists` and `forall` are judged by them.
    pub fn ends(&self, memory: usize, plain: bool) -> Result<Outcome, CheckError> {
        let observed = &self.scope.observed;
        let listed = Scope { forall: None, exists: None, lists_ends: true, ..self.scope.clone() };
        let answer = self.search(listed, memory, plain)?;
        let complete = answer.end == End::Complete;
        let some = |c: &Condition, wanted: bool| {
            answer.ends.iter().any(|end| {
                let value = |q: Quantity| observed.iter().position(|o| *o == q).map(|i| end[i]);
                c.eval(&value) == Some(wanted)
            })
        };
        let (mut word, mut note) = found(&answer, false, self.scope.forall.is_some());
        let broken = matches!(answer.end, End::Violated(..));
        if !broken && self.scope.forall.as_ref().is_some_and(|c| some(c, false)) {
            (word, note) = (format!("violated: {}", Violation::Invariant.name()), String::new());
        } else if let Some(c) = &self.scope.exists {
            if !broken && some(c, true) {
                (word, note) = ("allowed".into(), String::new());
            } else if complete {
                word = "forbidden".into();
            }
        }
        let value = |q: Quantity, v: u64| match q {
            Quantity::Field(_) | Quantity::Register(..) => Observed::Number(v),
            Quantity::Leaf(_) => Observed::Word(ENTRIES.get(v as usize).copied().unwrap_or_default()),
            Quantity::Table(_) => Observed::Word(if v == 0 { "none" } else { "present" }),
            Quantity::Fault(..) => Observed::Truth(v != 0),
        };
        let ends = Ends {
            names: observed.iter().map(|q| q.name(&self.code)).collect(),
            rows: answer
                .ends
                .iter()
                .map(|row| observed.iter().zip(row).map(|(&q, &v)| value(q, v)).collect())
                .collect(),
            complete,
        };
        Ok(Outcome { found: word, answer, note, ends: Some(ends) })
    }

    fn search(&self, scope: Scope, memory: usize, plain: bool) -> Result<Answer, CheckError> {
        let question = Question {
            code: &self.code,
            features: self.features,
            scope,
            assume: self.assume,
            memory,
            plain,
            trace: true,
            threads: 0,
        };
        check(&question, &mut |_| true)
    }
}

/// What an answer says in the words of the `verdict` line, and what is in the way if it says nothing.
fn found(answer: &Answer, asks: bool, needs_an_end: bool) -> (String, String) {
    let inconclusive = |what: &str, note: String| (format!("inconclusive: {what}"), note);
    match (answer.status(), &answer.end) {
        (Status::Verified, _) if needs_an_end && answer.counts.seen & Seen::ENDED == 0 => {
            inconclusive("no end", "no run comes to an end, so nothing is said of ends".into())
        }
        (Status::Verified, _) if asks => ("forbidden".into(), String::new()),
        (Status::Verified, _) => ("verified".into(), String::new()),
        (Status::Inconclusive, End::Complete) => inconclusive("nothing was asked", String::new()),
        (_, End::Violated(Violation::Invariant, _)) if asks => ("allowed".into(), String::new()),
        (_, End::Violated(v, _)) => (format!("violated: {}", v.name()), String::new()),
        (_, End::Cut(Cut::Memory)) => {
            inconclusive("memory", format!("more than {} bytes are needed", answer.bytes))
        }
        (_, End::Cut(Cut::Overflow)) => {
            inconclusive("overflow", "a value outgrows the bits of its variable in some run".into())
        }
        (_, End::Cut(Cut::Buffer)) => inconclusive(
            "store buffer",
            format!(
                "some run has more than {} stores of one CPU waiting; without these runs nothing was found",
                answer.buffer
            ),
        ),
        _ => ("inconclusive".into(), String::new()),
    }
}
