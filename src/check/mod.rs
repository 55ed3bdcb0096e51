//! The abstract machine: every interleaving of the same programs, within stated bounds.
//!
//! Reading order: [`scope`] (what is explored and assumed), [`layout`] (the packed state), [`machine`] (what an
//! op does to it), [`model`] (what can happen next), [`explore`] (breadth-first search; on [`parts`], a state as one
//! number, [`answers`], what is known of a CPU's moves, and [`visited`], the set of states), [`endless`] (loops that
//! nothing ends), [`schedule`] (a run as text, and its replay), [`report`] (counterexamples and verdicts for people), [`reduce`] (symmetry),
//! [`litmus`] (tests with their verdict inside), [`cases`] (which assumptions are tried for which question).

pub mod answers;
pub mod cases;
pub mod edit;
pub mod embed;
pub mod endless;
pub mod explore;
pub mod herd;
pub mod layout;
pub mod litmus;
pub mod machine;
pub mod model;
pub mod parts;
pub mod promela;
pub mod property;
pub mod reduce;
pub mod report;
pub mod schedule;
pub mod scope;
pub mod star;
pub mod visited;
mod zone;

pub use explore::{Counts, Cut, End};
pub use machine::{Model, Seen};
pub use model::{Action, Move};
pub use scope::{Assume, CheckError, Fills, InvpcidOrder, Patched, Rest, Role, Scope, Touches, UNBOUNDED};

use crate::kernel::program::{Code, Features};
use crate::kernel::step::Violation;
use crate::pool;
use crate::room::room;
use endless::Ends;
use explore::{Pause, Search};

/// What is checked.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// Programs.
    pub code: &'a Code,
    /// The machine they were assembled for.
    pub features: Features,
    /// Bounds.
    pub scope: Scope,
    /// Assumptions.
    pub assume: Assume,
    /// Bytes the search may hold.
    pub memory: usize,
    /// Every op a transition of its own; otherwise ops that commute with everything are fused.
    pub plain: bool,
    /// The run of a violation is told: every op a move of its own, and the shortest where that costs little.
    pub trace: bool,
    /// Threads; 0 for as many as there are CPUs. They change no result.
    pub threads: usize,
}

/// The three outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// No violation within the bounds.
    Verified,
    /// A violation, with a schedule.
    Violated,
    /// Neither: a limit was met.
    Inconclusive,
}

impl Status {
    /// The word of reports.
    pub fn name(self) -> &'static str {
        match self {
            Status::Verified => "verified",
            Status::Violated => "violated",
            Status::Inconclusive => "inconclusive",
        }
    }
}

/// The answer to one question.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The model that was explored.
    pub model: Model,
    /// How it ended.
    pub end: End,
    /// What was counted.
    pub counts: Counts,
    /// Depth of the store buffers, enough for every run.
    pub buffer: usize,
    /// Bytes held at the end.
    pub bytes: usize,
    /// A run in which a %gs-relative access meets the user's GSBASE.
    pub wrong_gs: Option<Vec<Move>>,
    /// What the scope observes of the ends found, each once, in order; all of them if the search is complete.
    pub ends: Vec<Vec<u64>>,
    /// No run that ends in a violation is shorter; otherwise nobody looked.
    pub shortest: bool,
    /// States of the search without reductions that came to the same, if there was one.
    pub confirmed: Option<u64>,
    /// States of that search, also where it was given up.
    pub second: u64,
    /// Of which CPUs one stands for any number of its kind ([`star`]): how many a pass was searched with.
    pub stands: Option<usize>,
    /// The search with reductions had missed this violation: a fault of the checker.
    pub missed: bool,
}

impl Answer {
    /// Which outcome.
    pub fn status(&self) -> Status {
        match self.end {
            End::Complete if self.is_empty().is_some() => Status::Inconclusive,
            End::Complete => Status::Verified,
            End::Violated(..) => Status::Violated,
            End::Cut(_) => Status::Inconclusive,
        }
    }

    /// Why a search without a violation says nothing: what it asks about never happened.
    pub fn is_empty(&self) -> Option<&'static str> {
        let seen = |bits| self.counts.seen & bits != 0;
        if seen(Seen::UNREQUESTED) {
            Some("on some run a `promise` is reached without a `request` before it, so it promises nothing")
        } else if self.model.scope.asks_flush && !seen(Seen::ASKED | Seen::HANDED_ON | Seen::BREAKPOINT) {
            Some(if seen(Seen::PROMISED) {
                "what was promised is used by nobody afterwards: no program accesses it, and on no run it was mapped again, \
                 so nothing was asked"
            } else {
                "on no run a flush was completed or an address handed on, so nothing was asked"
            })
        } else {
            None
        }
    }

    /// The broken rule and the schedule.
    pub fn violation(&self) -> Option<(Violation, &[Move])> {
        match &self.end {
            End::Violated(v, path) => Some((*v, path)),
            _ => None,
        }
    }
}

/// Depths of store buffers to try: a search that finds one full is repeated with the next.
const BUFFERS: [usize; 10] = [2, 3, 4, 5, 6, 8, 10, 12, 16, 24];
/// How many of them a first search may have.
const AT_FIRST: usize = 8;

/// Explore. `go_on` sees the counters now and then and may stop the search by returning `false`.
///
/// Where one CPU stands for others ([`star`]), a pass with one of each kind is the answer.
pub fn check(question: &Question<'_>, go_on: &mut dyn FnMut(&Counts) -> bool) -> Result<Answer, CheckError> {
    let Some(star) = (if question.plain { None } else { star::star(question)? }) else {
        return search(question, go_on);
    };
    let stands = Some(star.scope.roles.len());
    if star.fewer
        && let Some(answer) = with_fewer(question, star, go_on)?
    {
        return Ok(Answer { stands, ..answer });
    }
    Ok(Answer { stands, ..search(question, go_on)? })
}

/// What one CPU of each kind shows, told of all of them; `None` if its runs are none of theirs that we could find.
fn with_fewer(
    question: &Question<'_>,
    star: star::Star,
    go_on: &mut dyn FnMut(&Counts) -> bool,
) -> Result<Option<Answer>, CheckError> {
    let few = Question { scope: star.scope, ..question.clone() };
    let answer = search(&few, go_on)?;
    let model =
        |scope: &Scope| Model::new(question.code, question.features, scope, question.assume, answer.buffer);
    let all = model(&Scope { every_path: answer.model.scope.every_path, ..question.scope.clone() })?;
    let one = model(&answer.model.scope)?;
    let told = |path: &[Move], rule| embed::embed(&one, &all, &star.kept, path, rule);
    let wrong_gs = answer.wrong_gs.as_ref().map(|path| told(path, None));
    if wrong_gs == Some(None) {
        return Ok(None);
    }
    let wrong_gs = wrong_gs.flatten();
    let deepest = answer.model.deepest;
    Ok(match &answer.end {
        End::Violated(..) if question.scope.is_unbounded() => None,
        End::Violated(v, path) => told(path, Some(*v)).map(|moves| Answer {
            shortest: answer.shortest && moves.len() == path.len(),
            end: End::Violated(*v, moves),
            model: Model { deepest, ..all },
            wrong_gs,
            ..answer
        }),
        _ => {
            let fuse = answer.model.fuse;
            Some(Answer { model: Model { fuse, deepest, ..all }, wrong_gs, ..answer })
        }
    })
}

/// Explore with as many CPUs as were asked about.
pub fn search(question: &Question<'_>, go_on: &mut dyn FnMut(&Counts) -> bool) -> Result<Answer, CheckError> {
    let fuse = !question.plain;
    // A run through a path that is not followed has its like through one that is, at most a few touches longer.
    let scope = Scope { every_path: question.plain || question.scope.every_path, ..question.scope.clone() };
    let mut deepest = false;
    let model = |depth: usize, fuse: bool, deepest: bool| {
        Model::new(question.code, question.features, &scope, question.assume, BUFFERS[depth])
            // Where a task migrates, what is a CPU's own is not its task's: nothing is fused.
            .map(|m| Model { fuse: fuse && !m.layout.migrates, deepest, ..m })
    };
    // Depth costs bits, not states: start with the deepest that leaves each CPU one word.
    let code = layout::narrow(question.code, &question.scope, question.assume)?;
    let fits = |&b: &usize| {
        let layout = Model::layout(&code, &scope, question.assume, b);
        layout.is_ok_and(|l| l.words == scope.roles.len() + 1)
    };
    let mut depth = BUFFERS[..AT_FIRST].iter().rposition(fits).unwrap_or(0);
    loop {
        let mut answer = explore(model(depth, fuse, deepest)?, BUFFERS[depth], question, go_on);
        match answer.end {
            End::Cut(Cut::Buffer) if !deepest => {
                // Where no state holds more, runs that need more are left out: what the others show is so all the same.
                if depth + 1 < BUFFERS.len() && model(depth + 1, fuse, false).is_ok() {
                    depth += 1;
                } else {
                    deepest = true;
                }
            }
            End::Violated(..) if question.trace => {
                if fuse {
                    let most = (answer.counts.states * 4).max(SHORTEST);
                    let mut few = |c: &Counts| c.states < most && go_on(c);
                    let again = explore(model(depth, false, deepest)?, BUFFERS[depth], question, &mut few);
                    answer = if matches!(again.end, End::Violated(..)) {
                        again
                    } else {
                        // Its moves are single ops already: fused ones were taken apart where they were found.
                        Answer { model: Model { fuse: false, ..answer.model }, shortest: false, ..answer }
                    };
                }
                if question.scope.is_unbounded() {
                    return Ok(Answer { model: counted(question, &answer)?, ..answer });
                }
                return Ok(answer);
            }
            _ => return Ok(answer),
        }
    }
}

/// States among which a shortest violation is looked for in any case, op by op. The run of the reduced search is a
/// run of the machine as it stands, and so is told where this many do not do.
const SHORTEST: u64 = 1 << 20;

/// States of an unreduced search that take about a second.
pub const SECOND: u64 = 1 << 20;

/// The same, and a pass of the reduced search is confirmed by one without reductions if that has no more than `most`
/// states. What the search without reductions finds is the answer.
pub fn check_confirmed(
    question: &Question<'_>,
    most: u64,
    go_on: &mut dyn FnMut(&Counts) -> bool,
) -> Result<Answer, CheckError> {
    let answer = check(question, go_on)?;
    if question.plain || answer.end != End::Complete || answer.counts.states >= most {
        return Ok(answer);
    }
    let (mut over, plain) = (false, Question { plain: true, ..question.clone() });
    let second = check(&plain, &mut |c| {
        over |= c.states > most;
        !over && go_on(c)
    })?;
    let states = second.counts.states;
    Ok(match second.end {
        End::Complete => {
            let seen = answer.counts.seen | second.counts.seen;
            let counts = Counts { seen, ..answer.counts };
            Answer { confirmed: Some(states), second: states, counts, ..answer }
        }
        End::Violated(..) => Answer { missed: true, second: states, ..second },
        End::Cut(Cut::Stopped) if !over => second,
        End::Cut(_) => Answer { second: states, ..answer },
    })
}

/// The model a violation is told in: with as many rounds and entries as it needs where there was no bound, so that
/// versions keep the numbers they are given.
fn counted(question: &Question<'_>, answer: &Answer) -> Result<Model, CheckError> {
    let mut scope = answer.model.scope.clone();
    let moves = answer.violation().map_or(&[][..], |(_, moves)| moves);
    for (cpu, role) in scope.roles.iter_mut().enumerate().filter(|(_, r)| r.left == UNBOUNDED) {
        let devices = role.rest == Rest::User;
        let enters =
            |a: Action| matches!(a, Action::Enter | Action::EnterBy(_)) || devices && a == Action::Device;
        let entered = moves.iter().filter(|&&(c, a)| usize::from(c) == cpu && enters(a)).count();
        role.left = u8::try_from(entered).unwrap_or(UNBOUNDED);
    }
    Model::new(question.code, question.features, &scope, question.assume, answer.buffer)
}

/// Run `$body` with `W` bound to the number of words of the model.
macro_rules! with_words {
    ($model:expr, $w:ident => $body:expr) => {
        match $model.layout.words {
            0..=3 => {
                const $w: usize = 3;
                $body
            }
            4 => {
                const $w: usize = 4;
                $body
            }
            5 => {
                const $w: usize = 5;
                $body
            }
            6..=8 => {
                const $w: usize = 8;
                $body
            }
            _ => {
                const $w: usize = $crate::check::layout::MAX_WORDS;
                $body
            }
        }
    };
}
pub(crate) use with_words;

fn explore(
    model: Model,
    buffer: usize,
    question: &Question<'_>,
    go_on: &mut dyn FnMut(&Counts) -> bool,
) -> Answer {
    let threads = match question.threads {
        0 => pool::available().min(8),
        n => n,
    };
    let mut narrow: Search<'_, u64> = Search::new(&model, question.memory, !question.plain, threads);
    let ended = match narrow.run(go_on) {
        Pause::Done(end) => ended(narrow, end, question.memory, go_on),
        Pause::Narrow if room(3 * narrow.bytes()).is_err() => ended(narrow, End::Cut(Cut::Memory), 0, go_on),
        Pause::Narrow => {
            let mut wide: Search<'_, u128> = narrow.with_keys();
            match wide.run(go_on) {
                Pause::Done(end) => ended(wide, end, question.memory, go_on),
                Pause::Narrow => ended(wide, End::Cut(Cut::Memory), 0, go_on),
            }
        }
    };
    let (end, counts, bytes, wrong_gs, ends) = ended;
    Answer {
        model,
        end,
        counts,
        buffer,
        bytes,
        wrong_gs,
        ends,
        shortest: true,
        confirmed: None,
        second: 0,
        stands: None,
        missed: false,
    }
}

type Ended = (End, Counts, usize, Option<Vec<Move>>, Vec<Vec<u64>>);

/// How a complete search ends if a program can go round for ever.
fn endless<K: parts::Key>(
    search: &Search<'_, K>,
    limit: usize,
    go_on: &mut dyn FnMut(&Counts) -> bool,
) -> End {
    let counts = search.counts();
    let ends = endless::ends(&search.core(), limit, &mut || go_on(&counts));
    match ends {
        Ends::All => End::Complete,
        Ends::Not(state) => End::Violated(Violation::Livelock, search.path(state)),
        Ends::Memory => End::Cut(Cut::Memory),
        Ends::Stopped => End::Cut(Cut::Stopped),
    }
}

/// What came of a search that came to its `end`.
fn ended<K: parts::Key>(
    search: Search<'_, K>,
    end: End,
    limit: usize,
    go_on: &mut dyn FnMut(&Counts) -> bool,
) -> Ended {
    let spins = end == End::Complete && search.core().m.spins();
    let end = if spins { endless(&search, limit, go_on) } else { end };
    let wrong_gs = search.first_wrong_gs().map(|i| search.path(i));
    let (counts, bytes, ends) = (search.counts(), search.bytes(), search.ends());
    if end == End::Cut(Cut::Stopped) {
        search.abandon();
    }
    (end, counts, bytes, wrong_gs, ends)
}

#[cfg(test)]
mod random;
#[cfg(test)]
mod tests;
