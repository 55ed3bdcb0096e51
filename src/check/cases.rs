//! Which assumptions about code that is not modelled are tried for which question, and which of them imply which.
//!
//! Three classes of code are assumed about: D, the kernel's own between the CR3 switch and the flush; N, bodies of NMIs
//! and machine checks; T, patched instructions by where they stand. [`TABLE`] is the only list of what is tried:
//! `check`, edited policies and the table of verdicts ask by it.
//!
//! What code touches and where text is patched only adds accesses: an access reads, changes no entry, no variable and
//! no buffer, and caches nothing that could not be cached at that moment anyway (SEMANTICS H2). So every run under
//! fewer accesses is one under more, but for those that break a rule earlier, and what is verified under more,
//! everything else being the same, is verified under less. With `fills=demand` an access does cache, and nothing is
//! implied.

use super::scope::{Assume, CheckError, Fills, Patched, Role, Touches};

/// What is tried for the questions of some initiators, where a user fixes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Initiators of the questions.
    pub initiators: &'static [&'static str],
    /// D of the kernel as it is.
    pub danger: Touches,
    /// D asked beside it: what a future change of the kernel might touch.
    pub hypothesis: Option<Touches>,
    /// N where NMIs or machine checks arrive, from the fewest accesses on; without any it is the first.
    pub bodies: &'static [Touches],
    /// T, from the fewest accesses on; empty where no text is patched.
    pub text: &'static [Patched],
}

/// One row for each kind of question.
pub const TABLE: [Tried; 4] = [
    Tried {
        initiators: &["purge", "vunmap", "table_free", "flush_all_asked"],
        danger: Touches::None,
        hypothesis: Some(Touches::Recycled),
        bodies: &[Touches::None, Touches::Recycled],
        text: &[],
    },
    // Pages of the direct map are never recycled.
    Tried {
        initiators: &["set_memory"],
        danger: Touches::None,
        hypothesis: None,
        bodies: &[Touches::None, Touches::DirectMap],
        text: &[],
    },
    // User memory is no business of the entry code and of NMIs.
    Tried {
        initiators: &["flush_mm", "flush_mm_tables"],
        danger: Touches::None,
        hypothesis: None,
        bodies: &[Touches::None],
        text: &[],
    },
    // No memory is unmapped.
    Tried {
        initiators: &["text_poke", "text_breakpoint"],
        danger: Touches::None,
        hypothesis: None,
        bodies: &[Touches::None],
        text: &[Patched::Instrumentable, Patched::Danger, Patched::Noinstr],
    },
];

/// What is tried for an initiator's question.
pub fn tried(initiator: &str) -> Option<&'static Tried> {
    TABLE.iter().find(|row| row.initiators.contains(&initiator))
}

/// The initiator whose question it is what CPUs with these roles are asked.
pub fn initiator_of(roles: &[Role]) -> &'static str {
    if roles.iter().any(|r| r.first.starts_with("text_")) { "text_poke" } else { "purge" }
}

/// Assumptions of one case by name, as they were given and after them what is tried.
pub type Named = Vec<(String, String)>;

/// One case of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// What is assumed.
    pub assume: Named,
    /// The kernel of today does not do that: it is asked beside the verdict.
    pub hypothetical: bool,
}

/// The cases of an initiator's question: what is `given` stays as it is, and the rest is tried. `nmis` says whether
/// NMIs or machine checks arrive.
pub fn cases(initiator: &str, given: &[(String, String)], nmis: bool) -> Result<Vec<Case>, CheckError> {
    let Some(row) = tried(initiator) else {
        return Err(CheckError::Assumption(format!("no question has the initiator `{initiator}`")));
    };
    let fixed = |name: &str| given.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let danger = fixed("D").unwrap_or(row.danger.name());
    let bodies: Vec<&str> = match fixed("N") {
        Some(body) => vec![body],
        None => row.bodies[..if nmis { row.bodies.len() } else { 1 }].iter().map(|b| b.name()).collect(),
    };
    let text: Vec<&str> = match fixed("T") {
        Some(text) if !row.text.is_empty() => vec![text],
        _ => row.text.iter().map(|t| t.name()).collect(),
    };
    let case = |danger: &str, body: &str, text: Option<&str>, hypothetical| {
        let mut assume: Named = given.iter().filter(|(n, _)| text.is_some() || n != "T").cloned().collect();
        let values = [("D", Some(danger)), ("N", Some(body)), ("T", text)];
        for (name, value) in values.into_iter().filter_map(|(n, v)| Some((n, v?))) {
            match assume.iter_mut().find(|(n, _)| n == name) {
                Some(known) => known.1 = value.into(),
                None => assume.push((name.into(), value.into())),
            }
        }
        Case { assume, hypothetical }
    };
    let mut out = Vec::new();
    for (i, body) in bodies.into_iter().enumerate() {
        out.extend(text.iter().map(|text| case(danger, body, Some(text), false)));
        if text.is_empty() {
            out.push(case(danger, body, None, false));
        }
        // With the bodies that touch least: what such a change alone would break.
        if let (Some(beyond), None, 0) = (row.hypothesis, fixed("D"), i) {
            out.push(case(beyond.name(), body, None, true));
        }
    }
    Ok(out)
}

/// The first with the accesses of all that are like it; `None` if one of those has them all.
pub fn joined(all: &[Assume]) -> Option<Assume> {
    let first = all.first()?;
    let like = || all.iter().filter(|a| a.is_like(first));
    let most = like().fold(*first, |most, a| Assume {
        danger: most.danger.max(a.danger),
        nmi: most.nmi.max(a.nmi),
        text: most.text.max(a.text),
        ..most
    });
    like().all(|a| *a != most).then_some(most)
}

impl Assume {
    /// Assumptions by name; the rest as they are where nothing is said.
    pub fn named(named: &[(String, String)]) -> Result<Assume, CheckError> {
        let mut assume = Assume::default();
        for (name, value) in named {
            assume.set(name, value)?;
        }
        Ok(assume)
    }

    /// How much code touches: D, N and T, each from 0 for the fewest accesses.
    pub fn accesses(&self) -> [usize; 3] {
        [self.danger as usize, self.nmi as usize, self.text as usize]
    }

    /// Do they differ in what is accessed alone?
    pub fn is_like(&self, other: &Assume) -> bool {
        let Assume { danger, nmi, text, .. } = *self;
        *self == Assume { danger, nmi, text, ..*other }
    }

    /// Is what is verified under these assumptions verified under the others?
    pub fn implies(&self, other: &Assume) -> bool {
        let more = self.accesses().into_iter().zip(other.accesses()).all(|(mine, other)| mine >= other);
        *self == *other || self.fills != Fills::Demand && more && self.is_like(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::policy;

    fn given(text: &str) -> Named {
        let pair = |word: &str| word.split_once('=').map(|(n, v)| (n.to_string(), v.to_string()));
        text.split_whitespace().filter_map(pair).collect()
    }

    fn shown(initiator: &str, fixed: &str, nmis: bool) -> Vec<String> {
        let cases = cases(initiator, &given(fixed), nmis).unwrap();
        let case = |c: &Case| {
            let words: Vec<String> = c.assume.iter().map(|(n, v)| format!("{n}={v}")).collect();
            words.join(" ") + if c.hypothetical { " ?" } else { "" }
        };
        cases.iter().map(case).collect()
    }

    #[test]
    fn every_question_has_one_row() {
        let mut known: Vec<&str> = policy::initiators_asked().collect();
        let mut rows: Vec<&str> = TABLE.iter().flat_map(|row| row.initiators).copied().collect();
        known.sort_unstable();
        known.dedup();
        rows.sort_unstable();
        assert_eq!(rows, known);
    }

    #[test]
    fn what_is_given_is_not_tried() {
        assert_eq!(shown("purge", "", false), ["D=none N=none", "D=recycled N=none ?"]);
        assert_eq!(
            shown("purge", "stores=sc", true),
            ["stores=sc D=none N=none", "stores=sc D=recycled N=none ?", "stores=sc D=none N=recycled"]
        );
        assert_eq!(
            shown("purge", "D=recycled T=danger", true),
            ["D=recycled N=none", "D=recycled N=recycled"]
        );
        assert_eq!(shown("purge", "N=recycled", true), ["N=recycled D=none", "N=recycled D=recycled ?"]);
        assert_eq!(shown("set_memory", "", true), ["D=none N=none", "D=none N=directmap"]);
        assert_eq!(shown("flush_mm", "", true), ["D=none N=none"]);
        let text = ["D=none N=none T=instr", "D=none N=none T=danger", "D=none N=none T=noinstr"];
        assert_eq!(shown("text_poke", "", true), text);
        assert_eq!(shown("text_poke", "T=danger N=recycled", true), ["T=danger N=recycled D=none"]);
        assert!(cases("nobody", &[], false).is_err());
    }

    #[test]
    fn words_stand_from_the_fewest_accesses_to_the_most() {
        for (i, name) in ["D", "N", "T"].into_iter().enumerate() {
            let words = Assume::FLAGS.iter().find(|(n, _)| *n == name).unwrap().1;
            for (level, word) in words.iter().enumerate() {
                let assume = Assume::named(&given(&format!("{name}={word}"))).unwrap();
                assert_eq!(assume.accesses()[i], level, "{name}={word}");
            }
        }
    }

    #[test]
    fn more_accesses_imply_fewer_and_nothing_else_does() {
        let of = |text: &str| Assume::named(&given(text)).unwrap();
        let implies = |a: &str, b: &str| of(a).implies(&of(b));
        assert!(
            implies("D=recycled", "D=directmap")
                && implies("T=noinstr", "")
                && implies("N=recycled", "N=none")
        );
        assert!(!implies("D=recycled", "N=recycled") && !implies("", "D=directmap"));
        assert!(!implies("D=recycled", "stores=sc") && !implies("D=recycled fills=demand", "fills=demand"));
    }

    #[test]
    fn what_is_joined_has_the_accesses_of_all_that_are_alike() {
        let of = |text: &str| Assume::named(&given(text)).unwrap();
        let all = [of("D=recycled"), of("N=directmap T=danger"), of("N=recycled stores=sc")];
        assert_eq!(joined(&all), Some(of("D=recycled N=directmap T=danger")));
        assert_eq!(joined(&all[1..]), None);
        assert_eq!(joined(&[of("D=recycled"), of("D=recycled N=recycled")]), None);
    }
}
