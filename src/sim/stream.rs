//! Access streams: which user pages a task touches, one after the other. Data; the TLB is elsewhere.
//!
//! A stream is a list of phases that repeats; a phase is a number of touches of one [`Pattern`]. Draws come from the
//! actor's own generator, so a stream does not depend on what else happens.

use serde::{Deserialize, Serialize};

use super::draw::Draws;

/// Most pages of a pattern.
pub const MAX_PAGES: u32 = 1 << 24;

/// Which page comes next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Pattern {
    /// Page after page, or every `stride`-th of them, and again from the first.
    Sequential {
        /// Pages.
        pages: u32,
        /// Distance of two touches.
        #[serde(default = "one")]
        stride: u32,
    },
    /// One cycle through all pages in random order (Sattolo's algorithm): each address comes from the page before, so
    /// nothing overlaps.
    Chase {
        /// Pages.
        pages: u32,
    },
    /// Independent draws; page `i` has this weight (Zipf: `1 / (i + 1)^s`).
    Weighted {
        /// By page.
        weights: Vec<u32>,
    },
    /// These page numbers, in this order.
    Array {
        /// Virtual addresses shifted right by 12.
        pages: Vec<u64>,
    },
}

fn one() -> u32 {
    1
}

/// Touches of one pattern.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// How many; without a number the only phase never ends.
    #[serde(default)]
    pub touches: Option<u64>,
    /// Of what.
    pub pattern: Pattern,
}

/// The rule that the phases of a stream break, if they break one.
pub fn check(phases: &[Phase]) -> Result<(), String> {
    if phases.is_empty() {
        return Err("a stream has at least one phase".into());
    }
    for (i, phase) in phases.iter().enumerate() {
        let fail = |rule: String| Err(format!("phase {i} of the stream: {rule}"));
        if phase.touches == Some(0) {
            return fail("touches must be at least 1: got 0".into());
        }
        if phase.touches.is_none() && phases.len() > 1 {
            return fail("one of several phases needs a number of touches".into());
        }
        let pages = match &phase.pattern {
            Pattern::Sequential { pages, .. } | Pattern::Chase { pages } => *pages as usize,
            Pattern::Weighted { weights } => weights.len(),
            Pattern::Array { pages } => pages.len(),
        };
        if pages == 0 || pages > MAX_PAGES as usize {
            return fail(format!("pages must be 1 to {MAX_PAGES}: got {pages}"));
        }
        match &phase.pattern {
            Pattern::Sequential { stride: 0, .. } => return fail("stride must be at least 1: got 0".into()),
            Pattern::Weighted { weights } if weights.iter().all(|w| *w == 0) => {
                return fail("some page must have a weight above 0".into());
            }
            Pattern::Array { pages } => {
                if let Some(page) = pages.iter().find(|page| **page >= 1 << 44) {
                    return fail(format!("a user page number is below 2^44: got {page}"));
                }
            }
            Pattern::Sequential { .. } | Pattern::Chase { .. } | Pattern::Weighted { .. } => {}
        }
    }
    Ok(())
}

/// One phase, ready to be drawn from.
#[derive(Clone, Debug)]
enum Source {
    Sequential {
        pages: u32,
        stride: u32,
    },
    /// The page after each page.
    Chase(Vec<u32>),
    /// Sums of the weights.
    Weighted(Vec<u64>),
    /// Indices into the table of page numbers.
    Array(Vec<u32>),
}

/// A stream and where it is.
#[derive(Clone, Debug)]
pub struct Stream {
    phases: Vec<(Option<u64>, Source)>,
    /// Page numbers by index: known pages come first, so that a page has one index in all phases.
    numbers: Vec<u64>,
    phase: usize,
    done: u64,
    /// By phase: the last page index, or the position in the array.
    at: Vec<u32>,
}

impl Stream {
    /// Of checked phases. Patterns without page numbers of their own get the ones from `first` on.
    pub fn new(phases: &[Phase], first: u64, draws: &mut Draws) -> Self {
        let mut relative = 0_u32;
        let mut named: Vec<u64> = Vec::new();
        for phase in phases {
            match &phase.pattern {
                Pattern::Sequential { pages, .. } | Pattern::Chase { pages } => {
                    relative = relative.max(*pages);
                }
                Pattern::Weighted { weights } => relative = relative.max(weights.len() as u32),
                Pattern::Array { pages } => named.extend(pages),
            }
        }
        named.sort_unstable();
        named.dedup();
        let sources: Vec<_> = phases
            .iter()
            .map(|phase| {
                let source = match &phase.pattern {
                    Pattern::Sequential { pages, stride } => {
                        Source::Sequential { pages: *pages, stride: *stride }
                    }
                    Pattern::Chase { pages } => Source::Chase(cycle(*pages, draws)),
                    Pattern::Weighted { weights } => Source::Weighted(
                        weights
                            .iter()
                            .scan(0, |sum, weight| {
                                *sum += u64::from(*weight);
                                Some(*sum)
                            })
                            .collect(),
                    ),
                    Pattern::Array { pages } => Source::Array(
                        pages
                            .iter()
                            .map(|page| {
                                relative + named.binary_search(page).expect("it is in the table") as u32
                            })
                            .collect(),
                    ),
                };
                (phase.touches, source)
            })
            .collect();
        let numbers = (0..u64::from(relative)).map(|page| first + page).chain(named).collect();
        Stream { at: vec![0; sources.len()], phases: sources, numbers, phase: 0, done: 0 }
    }

    /// Distinct pages.
    pub fn pages(&self) -> usize {
        self.numbers.len()
    }

    /// Where it is: the phase, touches made in it, and the place in each phase.
    pub fn place(&self) -> (usize, u64, Vec<u32>) {
        (self.phase, self.done, self.at.clone())
    }

    /// Back to a place. `false`: this stream has none such.
    pub fn go_to(&mut self, (phase, done, at): (usize, u64, Vec<u32>)) -> bool {
        let inside = |(at, source): (&u32, &Source)| match source {
            Source::Sequential { pages, .. } => at < pages,
            Source::Chase(after) => (*at as usize) < after.len(),
            Source::Weighted(_) => true,
            Source::Array(pages) => (*at as usize) < pages.len(),
        };
        if phase >= self.phases.len()
            || at.len() != self.at.len()
            || !at.iter().zip(self.phases.iter().map(|p| &p.1)).all(inside)
        {
            return false;
        }
        (self.phase, self.done, self.at) = (phase, done, at);
        true
    }

    /// The page number of an index.
    pub fn number(&self, page: u32) -> u64 {
        self.numbers[page as usize]
    }

    /// The index of the page touched next, and whether its address came from the page before.
    #[inline]
    pub fn next(&mut self, draws: &mut Draws) -> (u32, bool) {
        let (touches, source) = &self.phases[self.phase];
        let at = &mut self.at[self.phase];
        let (page, dependent) = match source {
            Source::Sequential { pages, stride } => {
                let page = *at;
                *at = ((u64::from(page) + u64::from(*stride)) % u64::from(*pages)) as u32;
                (page, false)
            }
            Source::Chase(after) => {
                let page = *at;
                *at = after[page as usize];
                (page, true)
            }
            Source::Weighted(sums) => {
                let draw = draws.below(*sums.last().expect("at least one page"));
                (sums.partition_point(|sum| *sum <= draw) as u32, false)
            }
            Source::Array(pages) => {
                let page = pages[*at as usize];
                *at = (*at + 1) % pages.len() as u32;
                (page, false)
            }
        };
        self.done += 1;
        if touches.is_some_and(|touches| self.done >= touches) {
            self.done = 0;
            self.phase = (self.phase + 1) % self.phases.len();
        }
        (page, dependent)
    }
}

/// A random permutation that is one cycle (Sattolo 1986): the page after each page.
fn cycle(pages: u32, draws: &mut Draws) -> Vec<u32> {
    let mut order: Vec<u32> = (0..pages).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, draws.below(i as u64) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touched(phases: &[Phase], count: usize) -> Vec<u64> {
        check(phases).unwrap();
        let mut draws = Draws::new(1, 0, 0);
        let mut stream = Stream::new(phases, 100, &mut draws);
        (0..count)
            .map(|_| {
                let (page, _) = stream.next(&mut draws);
                stream.number(page)
            })
            .collect()
    }

    fn endless(pattern: Pattern) -> [Phase; 1] {
        [Phase { touches: None, pattern }]
    }

    #[test]
    fn a_chase_visits_every_page_once_before_it_repeats() {
        for pages in [1, 2, 3, 64, 1000] {
            let n = pages as usize;
            let seen = touched(&endless(Pattern::Chase { pages }), 2 * n);
            let mut once = seen[..n].to_vec();
            once.sort_unstable();
            assert_eq!(once, (100..100 + u64::from(pages)).collect::<Vec<_>>());
            assert_eq!(seen[..n], seen[n..]);
        }
    }

    #[test]
    fn weights_are_the_shares_of_touches() {
        let seen = touched(&endless(Pattern::Weighted { weights: vec![6, 0, 3, 1] }), 100_000);
        let share = |page| seen.iter().filter(|p| **p == page).count();
        assert!(share(100).abs_diff(60_000) < 600, "{}", share(100));
        assert_eq!(share(101), 0);
        assert!(share(103).abs_diff(10_000) < 400, "{}", share(103));
    }

    #[test]
    fn phases_follow_each_other_and_remember_where_they_were() {
        let phases = [
            Phase { touches: Some(2), pattern: Pattern::Sequential { pages: 3, stride: 1 } },
            Phase { touches: Some(3), pattern: Pattern::Array { pages: vec![7, 9] } },
        ];
        assert_eq!(touched(&phases, 10), [100, 101, 7, 9, 7, 102, 100, 9, 7, 9]);
    }

    #[test]
    fn what_cannot_be_a_stream_is_named() {
        let rule = |phases: &[Phase]| check(phases).unwrap_err();
        assert!(rule(&[]).contains("at least one phase"));
        assert!(rule(&endless(Pattern::Chase { pages: 0 })).contains("1 to 16777216: got 0"));
        assert!(rule(&endless(Pattern::Weighted { weights: vec![0, 0] })).contains("weight above 0"));
        assert!(
            rule(&endless(Pattern::Array { pages: vec![1 << 44] }))
                .contains("below 2^44: got 17592186044416")
        );
        let two = [endless(Pattern::Chase { pages: 2 }), endless(Pattern::Chase { pages: 2 })].concat();
        assert!(rule(&two).contains("phase 0"));
    }
}
