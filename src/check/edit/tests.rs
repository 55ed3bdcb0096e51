//! The words of an edit against what it does, on the lines of the text: what stood there, what stands there now.

use super::*;
use crate::kernel::policy::{POLICIES, builtin};

/// The statements of a body, one line each, with the depth at which they stand.
fn lines(body: &[Stmt]) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    walk(body, &mut Vec::new(), &mut |path, s| out.push((path.len(), statement(&s.kind))));
    // An `else` has no statement of its own: it is told by a mark in front of its first line.
    out
}

fn body(file: &File, section: &str) -> Vec<(usize, String)> {
    let found = sections(file).into_iter().find(|(_, s)| s.name == section);
    lines(&found.unwrap_or_else(|| panic!("there is a `{section}`")).1.body)
}

/// What stands before line `at` in the same block: nothing if it is the first.
fn beside(all: &[(usize, String)], at: usize) -> Option<&str> {
    let before = all[..at].iter().rev().find(|l| l.0 <= all[at].0)?;
    (before.0 == all[at].0).then_some(before.1.as_str())
}

fn without(all: &[(usize, String)], at: usize) -> Vec<(usize, String)> {
    let mut all = all.to_vec();
    all.remove(at);
    all
}

/// Does the change of a section's lines come from what the words say?
fn is_as_said(what: &str, before: &[(usize, String)], after: &[(usize, String)]) -> bool {
    let quoted: Vec<&str> = what.split('`').skip(1).step_by(2).collect();
    let verb = what.split('`').next().unwrap_or("").trim();
    match (verb, &quoted[..]) {
        ("move", [moved, rest @ ..]) => (0..after.len()).any(|to| {
            let place = match rest {
                [] => what.ends_with("` to the top of its block") && beside(after, to).is_none(),
                [behind] => {
                    what.ends_with(&format!("behind `{behind}`")) && beside(after, to) == Some(behind)
                }
                _ => false,
            };
            let left = without(after, to);
            let from = |at: &usize| before[*at] == after[to] && without(before, *at) == left;
            place && after[to].1 == *moved && (0..before.len()).any(|at| from(&at))
        }),
        ("insert", [new, next]) => (0..after.len()).any(|to| {
            let there = after[to].1 == *new && after.get(to + 1) == Some(&(after[to].0, (*next).to_string()));
            there && without(after, to) == before
        }),
        ("", [was]) => {
            let (name, value) = was.split_once(" = ").expect("a store");
            let differ: Vec<usize> = (0..before.len()).filter(|&at| before[at] != after[at]).collect();
            let locked = format!("xchg {name}, {value}");
            what.ends_with("` as XCHG")
                && before.len() == after.len()
                && matches!(differ[..], [at] if before[at].1 == *was && after[at] == (before[at].0, locked))
        }
        _ => panic!("unknown words: {what}"),
    }
}

#[test]
fn an_edit_of_a_repair_does_what_its_words_say_and_none_is_left_out() {
    let entry = ["purge", "flush_here", "flush_all_here", "flush_handler", "flush_kernel_now", "nmi"];
    let (mut moves, mut nested) = (0, 0);
    for row in POLICIES {
        let file = builtin(row.id).unwrap();
        let edits = single_edits(&file, false);
        let mut wanted = 0;
        for (_, section) in sections(&file).iter().filter(|(_, s)| !entry.contains(&s.name.as_str())) {
            let all = lines(&section.body);
            for (at, (depth, text)) in all.iter().enumerate() {
                let store = text.contains(" = ")
                    && !["let ", "if ", "pte ", "text ", "while ", "table "]
                        .iter()
                        .any(|w| text.starts_with(w));
                let locked = ["xchg ", "or ", "and ", "add ", "sub ", "inc ", "dec ", "bts ", "btr ", "cas "]
                    .iter()
                    .any(|w| text.starts_with(w));
                if (store || locked) && *depth == 1 {
                    wanted += all.iter().filter(|l| l.0 == 1).count() - 1;
                    moves += 1;
                } else if store || locked {
                    nested += 1;
                    let block = siblings(&section.body, at);
                    wanted += block - 1;
                }
                wanted += 2 - usize::from(["fence", "flush_all_here"].contains(&text.as_str()))
                    + usize::from(store);
            }
        }
        for (what, edited) in &edits {
            let (section, words) = what.split_once(": ").unwrap();
            let (before, after) = (body(&file, section), body(edited, section));
            assert!(is_as_said(words, &before, &after), "{}: {what}\n{before:#?}\n{after:#?}", row.id);
        }
        assert_eq!(edits.len(), wanted, "{}", row.id);
    }
    assert!(moves > 40 && nested > 20, "{moves} {nested}");
}

/// How many statements the block has in which the nth statement stands, counted from the outside in.
fn siblings(body: &[Stmt], nth: usize) -> usize {
    let (mut at, mut found) = (0, 0);
    let mut whole = body.to_vec();
    let mut paths = Vec::new();
    walk(body, &mut Vec::new(), &mut |path, _| paths.push(path.clone()));
    for path in paths {
        if at == nth {
            found = block(&mut whole, &path).len();
        }
        at += 1;
    }
    found
}

#[test]
fn a_mutant_takes_away_what_it_says() {
    let mut count = 0;
    for row in POLICIES {
        let file = builtin(row.id).unwrap();
        for m in mutants(&file) {
            let (before, after) = (body(&file, &m.section), body(&m.file, &m.section));
            let quoted: Vec<&str> = m.what.split('`').skip(1).step_by(2).collect();
            let at: Vec<usize> = (0..before.len())
                .filter(|&at| before[at].1 == quoted[usize::from(m.what.contains(" instead of "))])
                .collect();
            let replaced = |by: &str| {
                at.iter().any(|&at| {
                    let mut all = before.clone();
                    all[at].1 = by.into();
                    all == after
                })
            };
            let fits = if m.what.starts_with("the order ") {
                let [a, b] = quoted[..] else { panic!("{}", m.what) };
                (0..before.len()).any(|i| {
                    let depth = before[i].0;
                    let next = (i + 1..before.len())
                        .take_while(|j| before[*j].0 >= depth)
                        .find(|j| before[*j].0 == depth);
                    let next = next.filter(|&j| before[i].1 == a && before[j].1 == b);
                    // Each with what stands in it.
                    let end = |j: usize| {
                        (j + 1..before.len()).find(|k| before[*k].0 <= depth).unwrap_or(before.len())
                    };
                    next.is_some_and(|j| {
                        let parts = [&before[..i], &before[j..end(j)], &before[i..j], &before[end(j)..]];
                        parts.concat() == after
                    })
                })
            } else if m.what.ends_with(" as a plain store") {
                let was = quoted[0];
                let plain = match was.strip_prefix("xchg ").and_then(|w| w.split_once(", ")) {
                    Some((name, value)) => format!("{name} = {value}"),
                    None => was.strip_suffix(" locked").unwrap().to_string(),
                };
                replaced(&plain)
            } else if m.what.ends_with(" as a plain load") {
                let (to, exchange) = quoted[0].split_once(" = ").unwrap();
                let name = exchange.strip_prefix("xchg ").unwrap().split(',').next().unwrap();
                replaced(&format!("{to} = {name}"))
            } else if m.what.contains(" instead of ") {
                replaced(quoted[0])
            } else {
                assert_eq!(m.what, format!("no `{}`", quoted[0]));
                let alone = |at: usize| {
                    siblings(&sections(&file).iter().find(|(_, s)| s.name == m.section).unwrap().1.body, at)
                        == 1
                };
                // A block is never empty.
                at.iter()
                    .any(|&at| if alone(at) { replaced("lfence") } else { without(&before, at) == after })
            };
            assert!(fits, "{}: {} of {}\n{before:#?}\n{after:#?}", row.id, m.what, m.section);
            let (source, line) = m.place.rsplit_once(':').unwrap();
            assert!(source.ends_with(".policy") || source.ends_with(".kernel"), "{}", m.place);
            assert!(line.parse::<usize>().unwrap() > 0);
            count += 1;
        }
    }
    assert!(count > 300, "{count}");
}
