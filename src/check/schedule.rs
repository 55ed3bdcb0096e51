//! A run as text: `1.step*3 1.fill:va 0.step 1.nmi`, and its replay.
//!
//! A token is a CPU, an action and, after a colon, what the action is about; `*n` repeats it. A schedule replays
//! only if every action is enabled when its turn comes.

use super::layout::MAX_WORDS;
use super::machine::Model;
use super::model::{Action, Move};
use super::scope::CheckError;
use crate::kernel::step::Violation;

/// The text of a schedule.
pub fn format(model: &Model, moves: &[Move]) -> String {
    let page = |p: u8| model.layout.pages[usize::from(p)].name.clone();
    let mut out: Vec<(String, usize)> = Vec::new();
    for &(cpu, action) in moves {
        let word = match action {
            Action::Step => "step".into(),
            Action::Pick(c) => format!("pick:{c}"),
            Action::Pass(c) => format!("pass:{c}"),
            Action::Take(first) => format!("take:{}", if first { "yes" } else { "no" }),
            Action::Drain => "drain".into(),
            Action::Enter => "enter".into(),
            Action::EnterBy(i) => {
                format!("enter:{}", model.paths[usize::from(cpu)][usize::from(i)].name)
            }
            Action::Device => "device".into(),
            Action::Use => "use".into(),
            Action::Switch => "switch".into(),
            Action::Irq => "irq".into(),
            Action::Later => "later".into(),
            Action::Nmi => "nmi".into(),
            Action::Mce => "mce".into(),
            Action::Fill(p) => format!("fill:{}", page(p)),
            Action::FillUpper(p) => format!("fill-upper:{}", page(p)),
            Action::Drop(p) => format!("drop:{}", page(p)),
            Action::Line(p) => format!("line:{}", page(p)),
            Action::WriteBack(p) => format!("write-back:{}", page(p)),
        };
        let token = format!("{cpu}.{word}");
        match out.last_mut() {
            Some((t, n)) if *t == token => *n += 1,
            _ => out.push((token, 1)),
        }
    }
    let words: Vec<String> =
        out.into_iter().map(|(t, n)| if n == 1 { t } else { format!("{t}*{n}") }).collect();
    words.join(" ")
}

/// Read a schedule.
pub fn parse(model: &Model, text: &str) -> Result<Vec<Move>, CheckError> {
    let mut out = Vec::new();
    for (i, token) in text.split_whitespace().enumerate() {
        let bad =
            |why: &str| CheckError::Schedule(format!("token {} of the schedule, `{token}`: {why}", i + 1));
        let (body, times) = match token.split_once('*') {
            Some((b, n)) => (b, n.parse::<usize>().map_err(|_| bad("a count stands after `*`"))?),
            None => (token, 1),
        };
        if times > 10_000 {
            return Err(bad("at most 10000 repetitions"));
        }
        let (cpu, word) = body.split_once('.').ok_or_else(|| bad("expected CPU.ACTION"))?;
        let cpu: u8 = cpu.parse().map_err(|_| bad("a CPU is a number"))?;
        if usize::from(cpu) >= model.layout.cpus.len() {
            return Err(bad(&format!("there are {} CPUs", model.layout.cpus.len())));
        }
        let (name, about) = word.split_once(':').unwrap_or((word, ""));
        let page = || {
            model
                .layout
                .pages
                .iter()
                .position(|p| p.name == about)
                .map(|p| p as u8)
                .ok_or_else(|| bad("no such page"))
        };
        let action = match name {
            "step" => Action::Step,
            "pick" => Action::Pick(about.parse().map_err(|_| bad("a CPU stands after `pick:`"))?),
            "pass" => Action::Pass(about.parse().map_err(|_| bad("a CPU stands after `pass:`"))?),
            "take" => match about {
                "yes" => Action::Take(true),
                "no" => Action::Take(false),
                _ => return Err(bad("`yes` or `no` stands after `take:`")),
            },
            "drain" => Action::Drain,
            "enter" if about.is_empty() => Action::Enter,
            "enter" => {
                let paths = &model.paths[usize::from(cpu)];
                match paths.iter().position(|p| p.name == about) {
                    Some(0) => Action::Enter,
                    Some(i) => Action::EnterBy(i as u8),
                    None => {
                        let names: Vec<&str> = paths.iter().map(|p| p.name.as_str()).collect();
                        return Err(bad(&format!("CPU {cpu} enters by: {}", names.join(", "))));
                    }
                }
            }
            "device" => Action::Device,
            "use" => Action::Use,
            "switch" => Action::Switch,
            "irq" => Action::Irq,
            "later" => Action::Later,
            "nmi" => Action::Nmi,
            "mce" => Action::Mce,
            "fill" => Action::Fill(page()?),
            "fill-upper" => Action::FillUpper(page()?),
            "drop" => Action::Drop(page()?),
            "line" => Action::Line(page()?),
            "write-back" => Action::WriteBack(page()?),
            _ => {
                return Err(bad(
                    "actions are step, pick, take, drain, enter, device, use, switch, irq, later, nmi, mce, fill, fill-upper, drop, line and write-back",
                ));
            }
        };
        out.extend(std::iter::repeat_n((cpu, action), times));
    }
    Ok(out)
}

/// How a replay went: the states, first to last, and the violation of the last move if it is one.
#[derive(Clone, Debug)]
pub struct Replay {
    /// One more than moves carried out.
    pub states: Vec<Vec<u64>>,
    /// What the last move breaks; a deadlock is what the last state shows.
    pub violation: Option<Violation>,
}

/// Carry out a schedule.
pub fn replay(model: &Model, moves: &[Move]) -> Result<Replay, CheckError> {
    let mut s: [u64; MAX_WORDS] = model.initial();
    let mut states = vec![s.to_vec()];
    let mut violation = None;
    for (i, &mv) in moves.iter().enumerate() {
        let mut found = None;
        model.each_successor(&s, &mut |m, next| {
            if m == mv {
                found = Some(next);
            }
            found.is_none()
        });
        match found {
            Some(Ok(n)) => {
                s = n;
                states.push(s.to_vec());
            }
            Some(Err(v)) => {
                if i + 1 != moves.len() {
                    let rest = moves.len() - i - 1;
                    return Err(CheckError::Schedule(format!(
                        "move {} breaks a rule ({}), yet {rest} more follow",
                        i + 1,
                        v.name()
                    )));
                }
                violation = Some(v);
            }
            None => {
                return Err(CheckError::Schedule(format!(
                    "move {} is not possible there: {}",
                    i + 1,
                    format(model, &[mv])
                )));
            }
        }
    }
    if violation.is_none() {
        let e = model.each_successor(&s, &mut |_, _| true);
        violation = model.asked(&s, &e).or(e.deadlock.then_some(Violation::Deadlock));
        if violation.is_none() && model.spins() && model.is_endless(&s) {
            violation = Some(Violation::Livelock);
        }
    }
    Ok(Replay { states, violation })
}
