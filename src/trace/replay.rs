//! The same recording under another policy: which of its remote calls its programs would not have sent, which
//! interrupts remain, and for how long an isolated CPU would have kept stale translations.
//!
//! The policy's programs run over the recorded workload ([`crate::sim::recorded`]): twice, since a recording leaves
//! things open (the mode of a CPU, the order within the resolution of the time stamps, the caller of a flush). Each
//! figure spans both runs.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    analysis::{Range, row::Row, sender::Op},
    cause::{Cause, Class},
};
use crate::hw::Preset;
use crate::kernel::{
    policy::{builtin, load_with, mainline as mainline_of},
    program::{Code, Feature, Features, Op as MicroOp},
    text::{File, LAZY_MAX_FACTOR, PolicyError},
};
use crate::sim::cost::{Bound, Times};
use crate::sim::recorded::{Ask, Costs, Levels, Played, Variant, Workload, play};

/// The built-in policies that are shown unless others are asked for.
pub const HEADLINE: [&str; 4] = ["ipi", "ct-late", "coalesce-v7", "coalesce-v7-fixed"];

/// Name, unit and sentence of each figure of [`CpuOutcome`], in the order of its fields: columns of tables and pages. All
/// are per isolated CPU, over the whole recording, and span what it leaves open.
pub const FIGURES: &[(&str, &str, &str)] = &[
    ("deferred", "count", "Recorded calls that are not sent."),
    ("remaining", "count", "Recorded calls that still run there."),
    ("interrupts", "count", "Interrupts of any vector that still happen."),
    ("entries", "count", "Entries into the kernel that still happen."),
    ("entry_flushes", "count", "Flushes in entry and exit code."),
    ("exposure_s", "s", "Time during which something deferred was pending."),
    ("exposure_longest_s", "s", "The longest such stretch."),
    ("call_interrupts_ms", "ms", "Recorded time of the call interrupts that still happen."),
    ("entry_cost_ms", "ms", "What entry and exit code takes beyond mainline's; only with a machine."),
];

/// What a replay needs of a recording.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// What happened.
    pub workload: Workload,
    /// What each of its calls was for.
    pub causes: Vec<Cause>,
    /// The isolated CPUs, in the order of the workload's targets.
    pub bases: Vec<Base>,
}

/// What was counted on one CPU.
#[derive(Clone, Copy, Debug)]
pub struct Base {
    /// CPU.
    pub cpu: u32,
    /// Interrupts.
    pub interrupts: u64,
    /// Entries into the kernel.
    pub entries: u64,
}

/// What one policy makes of one isolated CPU.
#[derive(Clone, Debug, Serialize)]
pub struct CpuOutcome {
    /// CPU.
    pub cpu: u32,
    /// Recorded calls that are not sent.
    pub deferred: Range<u64>,
    /// Recorded calls that still run there.
    pub remaining: Range<u64>,
    /// Interrupts of any vector that still happen.
    pub interrupts: Range<u64>,
    /// Entries into the kernel that still happen.
    pub entries: Range<u64>,
    /// Flushes in entry and exit code.
    pub entry_flushes: Range<u64>,
    /// Seconds during which something deferred was pending.
    pub exposure_s: Range<f64>,
    /// The longest such stretch.
    pub exposure_longest_s: Range<f64>,
    /// Recorded time of the call interrupts that still happen, milliseconds.
    pub call_interrupts_ms: Range<f64>,
    /// What entry and exit code takes beyond mainline's, milliseconds; null without a machine.
    pub entry_cost_ms: Option<Range<f64>>,
}

/// What one policy makes of the recording.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Policy.
    pub policy: String,
    /// One sentence.
    pub title: String,
    /// What the machine must have for the policy to be active.
    pub needs: String,
    /// Remote calls that are not sent, by class.
    pub deferred_by_class: BTreeMap<&'static str, Range<u64>>,
    /// Remote calls that still run, by class.
    pub remaining_by_class: BTreeMap<&'static str, Range<u64>>,
    /// Sums over the isolated CPUs.
    pub deferred: Range<u64>,
    /// As above.
    pub remaining: Range<u64>,
    /// As above.
    pub interrupts: Range<u64>,
    /// Calls to isolated CPUs that the recording has not got. Under mainline: what is not explained.
    pub more_calls: Range<u64>,
    /// Lines of the requests that made them; the first hundred.
    pub more_lines: Vec<u64>,
    /// Time that senders waited for isolated CPUs and their programs took, milliseconds; null without a machine.
    pub wait_ms: Option<Range<f64>>,
    /// Why it does nothing here; its figures are then mainline's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inert: Option<String>,
    /// What the replay does not say.
    pub not_modelled: Vec<String>,
    /// Per isolated CPU.
    pub cpus: Vec<CpuOutcome>,
}

/// What a row was for: its operation's cause, else what its function says.
pub fn cause_of(row: &Row, ops: &[Op], by_function: impl Fn(&Row) -> Cause) -> Cause {
    ops.get(row.op as usize).map_or_else(|| by_function(row), |op| op.cause)
}

/// Why a policy cannot be replayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// Its text is wrong.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// What it does is not in the recording.
    #[error("policy '{0}': {1}")]
    NotModelled(String, &'static str),
}

/// What the machine is taken to have: all that the policy needs, beside what the machine of the recordings has.
pub fn features_for(needs: &[String], pti: bool, machine: Option<&Preset>) -> Features {
    let mut features = Features::PTI_PCID;
    if let Some(m) = machine {
        for (has, feature) in [(m.features.pcid, Feature::Pcid), (m.features.invpcid, Feature::Invpcid)] {
            features = if has { features } else { features.without(feature) };
        }
    }
    if !pti {
        features = features.without(Feature::Pti);
    }
    let needed = needs.iter().filter_map(|n| Feature::named(n));
    let features = needed.fold(features, Features::with);
    // The kernel uses neither while page-table isolation is on.
    let broadcasts = features.has(Feature::Invlpgb) || features.has(Feature::Rar);
    if broadcasts && !needs.iter().any(|n| n == "pti") { features.without(Feature::Pti) } else { features }
}

/// Why a policy does nothing on a machine (SEMANTICS L7).
fn inert(file: &File, pti: bool, machine: Option<&Preset>) -> Option<String> {
    let needs = |feature: &str| file.needs.iter().any(|n| n == feature);
    if needs("pti") && !pti {
        return Some("PTI is off".into());
    }
    let features = &machine?.features;
    let lacks = [("invlpgb", features.invlpgb.is_none()), ("rar", !features.rar)];
    let lacking = lacks.into_iter().find(|(feature, lacks)| *lacks && needs(feature))?;
    Some(format!("the machine has no {}", word(lacking.0)))
}

/// Replays the four policies that are shown by default.
pub fn headline(recorded: &Recorded) -> Vec<Outcome> {
    let outcome = |name: &&str| {
        let file = builtin(name).expect("it is in the table");
        replay(recorded, &file, true, None).expect("built-in policies assemble: tested")
    };
    HEADLINE.iter().map(outcome).collect()
}

fn programs(workload: &Workload) -> Vec<&'static str> {
    let user = workload.requests.iter().any(|r| matches!(r.ask, Ask::User | Ask::Unknown));
    if user { vec!["flush_mm"] } else { Vec::new() }
}

/// Which kinds of requests a policy treats differently from mainline.
fn replaced(code: &Code, mainline: &Code) -> Vec<Ask> {
    [(Ask::Purge, "purge"), (Ask::Sync, "text_breakpoint"), (Ask::User, "flush_mm")]
        .into_iter()
        .filter(|(_, name)| code.lines_of(name) != mainline.lines_of(name))
        .map(|(ask, _)| ask)
        .collect()
}

/// Does a text, or one that it is based on, change how often the lazy list is purged?
fn tunes_the_list(file: &File) -> bool {
    let mut file = file.clone();
    for _ in 0..64 {
        if file.facts.iter().any(|f| f.key == LAZY_MAX_FACTOR && f.text != "1") {
            return true;
        }
        let Some(base) = file.based_on.as_deref().and_then(|name| builtin(name).ok()) else { return false };
        file = base;
    }
    false
}

/// Refuses what no recording tells anything about.
pub fn not_modelled(file: &File) -> Result<(), ReplayError> {
    if tunes_the_list(file) {
        let why = "a recording does not tell how often a longer list is purged";
        return Err(ReplayError::NotModelled(file.name.clone(), why));
    }
    Ok(())
}

/// Replays a recording under a policy. `pti`: page-table isolation is on. With a machine it also gives times.
pub fn replay(
    recorded: &Recorded,
    file: &File,
    pti: bool,
    machine: Option<&Preset>,
) -> Result<Outcome, ReplayError> {
    let Ran { runs, inert, mainline, preset, features } = ran(recorded, file, pti, machine, false)?;
    let mut outcome = outcome(recorded, file, &runs);
    outcome.inert = inert;
    if machine.is_some() {
        times(&mut outcome, &runs, &mainline, &preset, features);
    }
    Ok(outcome)
}

/// How many deferred requests wait on each isolated CPU, in the order of the workload's targets, from when on: first
/// with what the recording leaves open taken as the policy would like it, then the other way.
pub fn levels(recorded: &Recorded, file: &File, pti: bool) -> Result<[Levels; 2], ReplayError> {
    let mut runs = ran(recorded, file, pti, None, true)?.runs;
    let against = runs.pop().expect("the run against the policy is the last");
    Ok([runs.swap_remove(0).levels, against.levels])
}

/// The runs of a policy and what they were made with.
struct Ran {
    /// In favour of it, one or several; then against it.
    runs: Vec<Played>,
    inert: Option<String>,
    mainline: Code,
    preset: Preset,
    features: Features,
}

fn ran(
    recorded: &Recorded,
    file: &File,
    pti: bool,
    machine: Option<&Preset>,
    levels: bool,
) -> Result<Ran, ReplayError> {
    not_modelled(file)?;
    let w = &recorded.workload;
    let inert = inert(file, pti, machine);
    let none = Vec::new();
    let features = features_for(if inert.is_some() { &none } else { &file.needs }, pti, machine);
    let wants = programs(w);
    let mainline = load_with(&*mainline_of(file)?, &wants, features)?;
    let code = if inert.is_some() { mainline.clone() } else { load_with(file, &wants, features)? };
    let preset = machine
        .cloned()
        .unwrap_or_else(|| Preset::clone(&Preset::builtin("skylake-sp").expect("it is among the presets")));
    let costs = |bound| Costs { times: Times::new(&code, &preset, features, bound), features };
    let mut kinds = replaced(&code, &mainline);
    if kinds.is_empty() || !w.requests.iter().any(|r| r.ask == Ask::Unknown) {
        kinds = vec![Ask::Purge];
    }
    let mut runs = Vec::new();
    for unknown in kinds {
        let variant = Variant { favour: true, unknown, tables: false, levels };
        runs.push(play(w, &code, costs(Bound::Low), variant));
    }
    // Of a flush of a user range nobody recorded whether it freed page tables, which a policy may leave to mainline.
    let tables = code.lines_of("flush_mm") != mainline.lines_of("flush_mm");
    let variant = Variant { favour: false, unknown: Ask::Other, tables, levels };
    runs.push(play(w, &code, costs(Bound::High), variant));
    if runs.iter().any(|r| r.endless) {
        let why = "its entry code runs without end, or waits for others in a loop";
        return Err(ReplayError::NotModelled(file.name.clone(), why));
    }
    Ok(Ran { runs, inert, mainline, preset, features })
}

/// Both ends of a figure over all runs.
fn span<T: PartialOrd + Copy>(runs: &[Played], of: impl Fn(&Played) -> T) -> Range<T> {
    let mut values = runs.iter().map(of);
    let first = values.next().expect("there is a run");
    values.fold(Range { low: first, high: first }, |r, v| Range {
        low: if v < r.low { v } else { r.low },
        high: if v > r.high { v } else { r.high },
    })
}

fn outcome(recorded: &Recorded, file: &File, runs: &[Played]) -> Outcome {
    let w = &recorded.workload;
    let mut out = Outcome {
        policy: file.name.clone(),
        title: file.doc.trim_end_matches('.').to_owned(),
        needs: file.needs.iter().map(|n| word(n)).collect::<Vec<_>>().join(", "),
        deferred_by_class: BTreeMap::new(),
        remaining_by_class: BTreeMap::new(),
        deferred: Range::default(),
        remaining: Range::default(),
        interrupts: Range::default(),
        more_calls: span(runs, |r| r.more_calls),
        more_lines: runs.iter().map(|r| &r.more_lines).max_by_key(|l| l.len()).cloned().unwrap_or_default(),
        wait_ms: None,
        inert: None,
        not_modelled: notes(runs),
        cpus: Vec::new(),
    };
    let classes: Vec<Class> = recorded.causes.iter().map(|c| c.entry().class).collect();
    let mut seen: Vec<Class> = Vec::new();
    for class in &classes {
        if !seen.contains(class) {
            seen.push(*class);
        }
    }
    let calls = |r: &Played, spared: bool, which: &dyn Fn(usize) -> bool| {
        let all = w.calls.iter().zip(&r.spared).enumerate();
        all.filter(|(i, (c, s))| c.counted && **s == spared && which(*i)).count() as u64
    };
    for class in seen {
        let of = |i: usize| classes[i] == class;
        out.deferred_by_class.insert(class.name(), span(runs, |r| calls(r, true, &of)));
        out.remaining_by_class.insert(class.name(), span(runs, |r| calls(r, false, &of)));
    }
    out.deferred_by_class.retain(|_, r| r.high > 0);
    out.remaining_by_class.retain(|_, r| r.high > 0);
    for (t, base) in recorded.bases.iter().enumerate() {
        let here = |i: usize| u32::from(w.calls[i].cpu) == base.cpu;
        let seconds = |ns: u64| ns as f64 / 1e9;
        let one = CpuOutcome {
            cpu: base.cpu,
            deferred: span(runs, |r| calls(r, true, &here)),
            remaining: span(runs, |r| calls(r, false, &here)),
            interrupts: span(runs, |r| {
                (base.interrupts + r.cpus[t].more_interrupts).saturating_sub(r.cpus[t].gone_interrupts)
            }),
            entries: span(runs, |r| {
                (base.entries + r.cpus[t].more_entries).saturating_sub(r.cpus[t].gone_entries)
            }),
            entry_flushes: span(runs, |r| r.cpus[t].entry_flushes),
            exposure_s: span(runs, |r| seconds(r.cpus[t].pending_ns)),
            exposure_longest_s: span(runs, |r| seconds(r.cpus[t].pending_longest_ns)),
            call_interrupts_ms: span(runs, |r| r.cpus[t].calls_ns as f64 / 1e6),
            entry_cost_ms: None,
        };
        out.deferred.add(one.deferred);
        out.remaining.add(one.remaining);
        out.interrupts.add(one.interrupts);
        out.cpus.push(one);
    }
    out
}

/// How people write a feature.
fn word(need: &str) -> String {
    match need {
        "pti" | "pcid" | "invpcid" | "invlpgb" | "rar" => need.to_uppercase(),
        "context_tracking" => "context tracking".into(),
        other => other.into(),
    }
}

fn notes(runs: &[Played]) -> Vec<String> {
    let most = |of: fn(&Played) -> u64| runs.iter().map(of).max().unwrap_or(0);
    let mut out = Vec::new();
    let (postponed, unfinished, broken) = (most(|r| r.postponed), most(|r| r.unfinished), most(|r| r.broken));
    if postponed > 0 {
        out.push(format!(
            "{postponed} requests ended before every CPU had flushed; when they would be tried again, and for how \
             long addresses would wait, is not modelled"
        ));
    }
    if unfinished > 0 {
        out.push(format!("{unfinished} senders never got to their end"));
    }
    if broken > 0 {
        out.push(format!("{broken} steps broke a rule of the machine: see what `tlbcore check` says of it"));
    }
    out
}

/// What entry code takes beyond mainline's, and how long senders wait.
fn times(out: &mut Outcome, runs: &[Played], mainline: &Code, preset: &Preset, features: Features) {
    let plain: Vec<[u64; 2]> = [Bound::Low, Bound::High]
        .map(|bound| once(mainline, &Times::new(mainline, preset, features, bound)))
        .to_vec();
    let last = runs.len() - 1;
    for (t, cpu) in out.cpus.iter_mut().enumerate() {
        let cost = |i: usize, r: &Played| {
            let [call, irq] = plain[usize::from(i == last)];
            let c = &r.cpus[t];
            (c.entry_ps as f64 - (c.entered[0] * call + c.entered[1] * irq) as f64) / 1e9
        };
        let all: Vec<f64> = runs.iter().enumerate().map(|(i, r)| cost(i, r)).collect();
        let low = all.iter().copied().fold(f64::INFINITY, f64::min);
        let high = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        cpu.entry_cost_ms = Some(Range { low, high });
    }
    out.wait_ms = Some(span(runs, |r| r.wait_ps as f64 / 1e9));
}

/// What mainline's entry and exit code takes: of a system call, of an interrupt.
fn once(mainline: &Code, times: &Times) -> [u64; 2] {
    ["syscall", "interrupt"].map(|name| {
        let program = mainline.programs.iter().find(|p| p.name == name).expect("the kernel has it");
        let ops = program.start..program.end;
        ops.filter(|pc| !matches!(mainline.ops[usize::from(*pc)], MicroOp::Body(_) | MicroOp::HandleCalls))
            .map(|pc| times.op[usize::from(pc)])
            .sum()
    })
}
