//! Litmus tests: one shape per file, programs in the policy language, the verdict inside.
//!
//! A test is a `litmus` file. Its columns are sections `cpu 0`, `cpu 1`, ...; without columns its CPUs play roles
//! (`cpus "purge; isolated 2"`). Header lines: `verdict "..."`, and where they differ from the standard
//! `exists "CONDITION"` (is such an end reachable?), `never "CONDITION"`, `assume "D=recycled N=none"`,
//! `nmis "1"`, `mces "1"`, `asids "2"`, `deaf "1"` (that CPU takes no interrupts), `unflushed "1"` (that CPU is not in
//! the mask the entry flush tests), `frames "a: x y"` (page `a`
//! maps variable `x`, after its next change `y`), `features "pti pcid"`.

use super::property::Condition;
use super::scope::{Assume, CheckError, Rest, Role, Scope, UNBOUNDED};
use super::{Answer, Cut, End, Question, Status, check};
use crate::kernel::policy::load;
use crate::kernel::program::{Code, Feature, Features};
use crate::kernel::text::{self, File, PolicyError};

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
const KEYS: [&str; 14] = [
    "verdict",
    "exists",
    "never",
    "assume",
    "nmis",
    "mces",
    "asids",
    "cpus",
    "deaf",
    "unflushed",
    "frames",
    "features",
    "states",
    "note",
];

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
}

/// How a test ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was found, in the words of the `verdict` line.
    pub found: String,
    /// The search.
    pub answer: Answer,
}

/// Paths a task in user mode enters the kernel by, and that `isolated ENTRIES by ENTRY` takes.
pub const USER_ENTRIES: [&str; 6] =
    ["syscall", "syscall_compat", "sysenter_compat", "exception", "exception_espfix", "exception_bad_iret"];

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
                return Ok(Role { isolated: true, name: "isolated".into(), ..Role::initiator(rest, 1) });
            }
            let (program, rounds) = match word.split_once('*') {
                Some((p, n)) if n.trim() == "unbounded" => (p.trim(), UNBOUNDED),
                Some((p, n)) => (p.trim(), n.trim().parse::<u8>().map_err(|_| bad(word))?),
                None => (word, 1),
            };
            if program.is_empty()
                || program.contains(' ')
                || !(1..=15).contains(&rounds) && rounds != UNBOUNDED
            {
                return Err(bad(word));
            }
            Ok(Role::initiator(program, rounds))
        })
        .collect()
}

impl Litmus {
    /// Parse and assemble.
    pub fn new(file_name: &str, text: &str) -> Result<Litmus, LitmusError> {
        let file = text::parse(file_name, text)?;
        Self::of(&file)
    }

    fn of(file: &File) -> Result<Litmus, LitmusError> {
        let bad = |m: String| CheckError::Litmus(format!("{}: {m}", file.file));
        if let Some((key, _)) = file.facts.iter().find(|(k, _)| !KEYS.contains(&k.as_str())) {
            return Err(bad(format!(
                "`{key}` is no header line of a litmus test; these are: {}",
                KEYS.join(", ")
            ))
            .into());
        }
        let fact = |key: &str| file.facts.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        let number = |key: &str, default: u8| -> Result<u8, CheckError> {
            fact(key).map_or(Ok(default), |v| {
                v.trim().parse().map_err(|_| bad(format!("`{key}` takes a number, not `{v}`")))
            })
        };
        let features = match fact("features") {
            None => Features::PTI_PCID,
            Some(words) => words.split_whitespace().try_fold(Features::NONE, |all, w| {
                Feature::named(w).map(|f| all.with(f)).ok_or_else(|| bad(format!("`{w}` is no feature")))
            })?,
        };
        let code = load(file, features)?;
        let mut columns: Vec<usize> = file
            .sections
            .iter()
            .filter_map(|s| s.name.strip_prefix("cpu ").and_then(|n| n.parse().ok()))
            .collect();
        columns.sort_unstable();
        let mut list = match fact("cpus") {
            Some(text) => roles(text).map_err(|e| bad(e.to_string()))?,
            None => Vec::new(),
        };
        for (i, &n) in columns.iter().enumerate() {
            let expected = list.len();
            if n != expected {
                return Err(bad(format!(
                    "columns are numbered from {expected} on: found `cpu {n}` as number {i}"
                ))
                .into());
            }
            list.push(Role::column("", &format!("cpu {n}")));
        }
        if let Some(deaf) = fact("deaf") {
            for word in deaf.split_whitespace() {
                let cpu = word.parse::<usize>().ok().and_then(|n| list.get_mut(n));
                let role = cpu.ok_or_else(|| bad(format!("`deaf` names CPUs, not `{word}`")))?;
                role.deaf = true;
                role.name = "deaf".into();
            }
        }
        for word in fact("unflushed").unwrap_or("").split_whitespace() {
            let cpu = word.parse::<usize>().ok().and_then(|n| list.get_mut(n));
            cpu.ok_or_else(|| bad(format!("`unflushed` names CPUs, not `{word}`")))?.flushes = false;
        }
        let mut scope = Scope {
            roles: list,
            pages: 1,
            asids: usize::from(number("asids", 1)?),
            nmis: number("nmis", 0)?,
            mces: number("mces", 0)?,
            never: None,
            exists: None,
            frames: Vec::new(),
            rename: false,
        };
        scope.validate().map_err(|e| bad(e.to_string()))?;
        if let Some(text) = fact("frames") {
            scope.frames = vec![Vec::new(); code.pages.len()];
            for part in text.split(';') {
                let (page, vars) =
                    part.split_once(':').ok_or_else(|| bad("`frames` is PAGE: VAR VAR ...".into()))?;
                let p = code
                    .pages
                    .iter()
                    .position(|p| p.name == page.trim())
                    .ok_or_else(|| bad(format!("`{}` is no page", page.trim())))?;
                for v in vars.split_whitespace() {
                    let field = code.fields.iter().position(|f| f.name == v);
                    scope.frames[p].push(field.ok_or_else(|| bad(format!("`{v}` is no variable")))? as u8);
                }
            }
        }
        scope.never = fact("never").map(|t| Condition::parse(&code, t)).transpose()?;
        scope.exists = fact("exists").map(|t| Condition::parse(&code, t)).transpose()?;
        let mut assume = Assume::default();
        for word in fact("assume").unwrap_or("").split_whitespace() {
            let (name, value) =
                word.split_once('=').ok_or_else(|| bad(format!("`assume` is NAME=VALUE, not `{word}`")))?;
            assume.set(name, value).map_err(|e| bad(e.to_string()))?;
        }
        let verdict = fact("verdict").unwrap_or("").to_string();
        let states = fact("states")
            .map(|v| v.parse().map_err(|_| bad(format!("`states` takes a number, not `{v}`"))))
            .transpose()?;
        Ok(Litmus {
            name: file.name.clone(),
            doc: file.doc.clone(),
            source: file.source.clone(),
            verdict,
            states,
            code,
            features,
            scope,
            assume,
        })
    }

    /// Explore.
    pub fn run(&self, memory: usize, plain: bool) -> Result<Outcome, CheckError> {
        let question = Question {
            code: &self.code,
            features: self.features,
            scope: self.scope.clone(),
            assume: self.assume,
            memory,
            plain,
            trace: true,
            threads: 0,
        };
        let answer = check(&question, &mut |_| true)?;
        let asks = self.scope.exists.is_some();
        let found = match (answer.status(), &answer.end) {
            (Status::Verified, _) if asks => "forbidden".into(),
            (Status::Verified, _) => "verified".into(),
            (_, End::Violated(v, _)) if asks && *v == crate::kernel::step::Violation::Invariant => {
                "allowed".into()
            }
            (_, End::Violated(v, _)) => format!("violated: {}", v.name()),
            (_, End::Cut(Cut::Memory)) => "inconclusive: memory".into(),
            (_, End::Cut(Cut::Overflow)) => "inconclusive: overflow".into(),
            _ => "inconclusive".into(),
        };
        Ok(Outcome { found, answer })
    }
}

/// Is a role one that enters user mode? Reports name lanes by it.
pub fn enters_user(role: &Role) -> bool {
    role.rest == Rest::User
}
