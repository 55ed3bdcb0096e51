//! How many pages the TLBs reach: load latency against the number of pages, with its two steps, and what lies beyond.
//!
//! The same number of cache lines in few pages is subtracted, so that what is left is translation.

use std::io;
use std::time::{Duration, Instant};

use super::chase::{Arena, LINE, PAGE, lines, one_per_page};
use super::fit::{self, Step};
use super::sample::{AGREE, Stop};
use super::{Curve, Measurement, Report, left};

/// Most pages in a chain: twice the largest second level known (4,096), and half as many again.
const MOST: usize = 12_288;
/// Between the largest first level known (96 entries, 128 in clients) and the smallest second (512).
const BETWEEN: usize = 320;

/// A range of chain lengths, measured again and again in turn, so that a disturbance hits all a little and none much.
///
/// Within a pass the lowest of many short runs counts: those that no other task broke into. Over passes, each with
/// another order of the chain, the lower quartile counts: an order that suits the replacement by luck must not.
struct Sweep {
    pages: Vec<usize>,
    stride: usize,
    zigzag: bool,
    net: Vec<Vec<f64>>,
    passes: u32,
}

impl Sweep {
    fn new(pages: Vec<usize>, stride: usize) -> Sweep {
        let net = vec![Vec::new(); pages.len()];
        Sweep { pages, stride, zigzag: false, net, passes: 0 }
    }

    fn pass(&mut self, apart: &mut Arena, packed: &mut Arena, stop: &Stop) {
        for (i, &count) in self.pages.iter().enumerate() {
            if stop.is_set() {
                return;
            }
            let seed = u64::from(self.passes) * 1000 + i as u64;
            let loads = (2 * count as u32).max(6_000).next_multiple_of(2 * count as u32);
            let nodes = one_per_page((0..count).map(|page| page * self.stride));
            let start = if self.zigzag { apart.link_zigzag(nodes, seed) } else { apart.link(nodes, seed) };
            let start_packed = packed.link_in_blocks(lines(count << u32::from(self.zigzag), 1), seed);
            let runs = if count > BETWEEN { RUNS } else { 3 * RUNS };
            let lowest = |arena: &Arena, start: usize| {
                (0..runs).map(|_| arena.run(start, loads)).fold(f64::INFINITY, f64::min)
            };
            self.net[i].push(lowest(apart, start) - lowest(packed, start_packed));
        }
        self.passes += 1;
    }

    /// Nanoseconds of translation at each point.
    fn translation(&self) -> Vec<f64> {
        self.net.iter().map(|passes| typical(passes)).collect()
    }

    fn points(&self) -> Vec<f64> {
        self.pages.iter().map(|&count| count as f64).collect()
    }

    fn step(&self) -> Option<Step> {
        fit::step(&self.points(), &self.translation())
    }

    /// Passes until the capacities of the last four agree (to a page, or to [`AGREE`]), or the time is up.
    fn until_stable(
        &mut self,
        apart: &mut Arena,
        packed: &mut Arena,
        capacity: impl Fn(&Sweep, &Step) -> f64,
        budget: Duration,
        stop: &Stop,
    ) -> Option<Reach> {
        let began = Instant::now();
        let mut seen: Vec<f64> = Vec::new();
        loop {
            self.pass(apart, packed, stop);
            let step = self.step();
            if let Some(step) = step {
                seen.push(capacity(self, &step));
            }
            let last = &seen[seen.len().saturating_sub(4)..];
            let (least, most) = last.iter().fold((f64::INFINITY, 0.0_f64), |(a, b), &x| (a.min(x), b.max(x)));
            let agree = self.passes >= PASSES && (most - least <= 1.0 || most <= least * (1.0 + AGREE));
            if agree || left(began, budget).is_zero() || stop.is_set() {
                let step = step?;
                return Some(Reach {
                    step,
                    capacity: *seen.last()?,
                    spread: (most - least) / least,
                    stable: agree,
                });
            }
        }
    }
}

/// Runs of each chain in a pass, and passes at least.
const RUNS: u32 = 10;
const PASSES: u32 = 8;

/// What a sweep settled on.
struct Reach {
    step: Step,
    capacity: f64,
    spread: f64,
    stable: bool,
}

/// Of several passes the lower quartile: a neighbour on the core may hold entries in most of them.
fn typical(passes: &[f64]) -> f64 {
    let mut sorted = passes.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 4).copied().unwrap_or(f64::NAN)
}

impl Curve {
    fn add(&mut self, sweep: &Sweep) {
        self.pages.extend(sweep.pages.iter().map(|&count| count as f64));
        self.ns.extend(sweep.translation());
    }
}

/// Points between `from` and `to`, each larger than the last by a factor, whole pages.
fn geometric(from: usize, to: usize, factor: f64) -> Vec<usize> {
    let mut points = vec![from];
    while let Some(&last) = points.last() {
        let next = ((last as f64 * factor).round() as usize).max(last + 1);
        if next > to {
            break;
        }
        points.push(next);
    }
    points
}

pub(super) fn measure(report: &mut Report, budget: Duration, stop: &Stop) -> io::Result<()> {
    let mut arena = Arena::small(MOST * PAGE)?;
    let mut packed = Arena::huge((2 * MOST * LINE).next_multiple_of(1 << 21))?;

    // The whole range once, roughly: where to look, and the curve to show.
    let mut all = Sweep::new(geometric(16, MOST, 1.12), 1);
    for _ in 0..4 {
        all.pass(&mut arena, &mut packed, stop);
    }
    report.curve =
        Curve { pages: all.pages.iter().map(|&count| count as f64).collect(), ns: all.translation() };
    if stop.is_set() {
        return Ok(());
    }
    let split = all.pages.partition_point(|&count| count <= BETWEEN);
    let first = fit::step(&report.curve.pages[..split], &report.curve.ns[..split]);
    let second = fit::step(&report.curve.pages[split..], &report.curve.ns[split..]);

    match first.filter(Step::is_clear) {
        Some(rough) => first_level(report, &rough, &mut arena, &mut packed, budget.mul_f64(0.4), stop),
        None => report.missing.push(("l1.entries", format!("no clear step below {BETWEEN} pages"))),
    }
    match second.filter(Step::is_clear) {
        Some(rough) => second_level(report, &rough, &mut arena, &mut packed, budget.mul_f64(0.4), stop),
        None => report.missing.push(("l2.entries", format!("no clear step up to {MOST} pages"))),
    }
    Ok(())
}

fn first_level(
    report: &mut Report,
    rough: &Step,
    arena: &mut Arena,
    packed: &mut Arena,
    budget: Duration,
    stop: &Stop,
) {
    let about = rough.last_low;
    let around = |about: f64, stride: usize| {
        let from = (about * 0.8) as usize;
        Sweep::new((from.max(2)..=(about * 1.35) as usize + 4).collect(), stride)
    };
    let mut fine = around(about, 1);
    // To the page: the end of the lower level, not of the fitted one, which a slow start of the ramp moves.
    let end = |sweep: &Sweep, step: &Step| fit::last_low(&sweep.points(), &sweep.translation(), step);
    let Some(Reach { step, capacity, spread, stable }) =
        fine.until_stable(&mut *arena, &mut *packed, end, budget.mul_f64(0.5), stop)
    else {
        return;
    };
    let runs = fine.passes;
    let found = |key, value: f64, unit, spread: f64, how: String| Measurement {
        key,
        value,
        unit,
        spread,
        stable,
        runs,
        preempted: 0,
        how,
    };
    report.curve.add(&fine);
    let how = format!(
        "step from {:.2} to {:.2} ns between {} and {} pages",
        step.low, step.high, step.last_low, step.first_high
    );
    report.measurements.push(found("l1.entries", capacity, "entries", spread, how));
    let hit = step.high - step.low;
    report.measurements.push(found(
        "costs.stlb_hit",
        hit,
        "ns",
        step.residual / hit,
        "height of that step".to_owned(),
    ));

    // Every second, fourth, ... page only: with linear indexing fewer sets are used, and the step comes earlier.
    let mut by_stride = vec![(1, capacity)];
    for stride in [2, 4, 8, 16, 32] {
        let reach = (MOST / stride).min((about * 1.35) as usize + 4);
        let mut sweep = Sweep::new(geometric(2, reach, 1.08), stride);
        for _ in 0..4 {
            sweep.pass(arena, packed, stop);
        }
        if let Some(step) = sweep.step().filter(Step::is_clear) {
            by_stride.push((stride as u32, end(&sweep, &step)));
        }
        if stop.is_set() {
            return;
        }
    }
    let seen: Vec<String> =
        by_stride.iter().map(|(stride, entries)| format!("{stride}: {entries}")).collect();
    let how = format!("step by stride in pages: {}", seen.join(", "));
    let (sets, ways) = fit::sets_and_ways(&by_stride).unwrap_or((1, capacity as u32));
    report.measurements.push(found("l1.sets", f64::from(sets), "sets", 0.0, how.clone()));
    report.measurements.push(found("l1.ways", f64::from(ways), "ways", 0.0, how));
}

fn second_level(
    report: &mut Report,
    rough: &Step,
    arena: &mut Arena,
    packed: &mut Arena,
    budget: Duration,
    stop: &Stop,
) {
    let about = rough.middle();
    let from = (about * 0.4).max(BETWEEN as f64) as usize;
    let to = ((about * 1.7) as usize).min(MOST);

    // What all of them miss costs: the height of the ramp.
    let mut ramp = Sweep::new(geometric(from, to, 1.06), 1);
    let settled =
        ramp.until_stable(&mut *arena, &mut *packed, |_, step| step.middle(), budget.mul_f64(0.5), stop);
    let Some(Reach { step, spread, stable, .. }) = settled else { return };
    report.curve.add(&ramp);
    let found = |key, value: f64, unit, spread: f64, stable, runs, how: String| Measurement {
        key,
        value,
        unit,
        spread,
        stable,
        runs,
        preempted: 0,
        how,
    };
    let walk = step.high - step.low;
    let how = format!(
        "ramp from {:.2} to {:.2} ns between {} and {} pages, second-level hit and all",
        step.low, step.high, step.last_low, step.first_high
    );
    let off = spread.max(step.residual / walk);
    report.measurements.push(found("walk", walk, "ns", off, stable, ramp.passes, how));
    let last = ramp.translation().last().copied().unwrap_or(0.0) - step.low;
    let how = format!("the same at {to} pages");
    report.measurements.push(found("walk_far", last, "ns", spread, stable, ramp.passes, how));

    let mut fine = Sweep::new(geometric(from, to, 1.045), 1);
    fine.zigzag = true;
    let bend = |sweep: &Sweep, _: &Step| {
        let pages = sweep.points();
        let missed: Vec<f64> = pages
            .iter()
            .zip(sweep.translation())
            .map(|(&page, ns)| page * (ns - step.low).max(0.0))
            .collect();
        fit::hinge(&pages, &missed).map_or(0.0, |hinge| hinge.at)
    };
    let kept = fine.until_stable(arena, packed, bend, budget.mul_f64(0.5), stop);

    // Readings of one capacity. At the end of a short ramp no page is found: consecutive pages are dealt evenly to the
    // sets, and all of them overflow. A long ramp says that they are not; then half are found in its middle. Forth and
    // back as many are found as are kept, a little less than there are where walks, the kernel and other tasks hold
    // entries too. So the two bracket the number.
    let kept = kept.filter(|kept| kept.stable && kept.capacity > 0.0);
    let all_stable = stable && kept.is_some();
    let mut readings = match step.first_high / step.last_low {
        sharp if sharp <= 1.125 => vec![step.last_low],
        short if short <= 1.4 => vec![step.first_high],
        _ => vec![step.middle()],
    };
    readings.push(kept.map_or(step.middle(), |kept| kept.capacity));
    let mean = readings.iter().sum::<f64>() / readings.len() as f64;
    let (least, most) = readings.iter().fold((f64::INFINITY, 0.0_f64), |(a, b), &x| (a.min(x), b.max(x)));
    let how = format!(
        "mean of {} readings, {least:.0} to {most:.0}: end of the ramp (its middle if it is long), pages kept forth and back",
        readings.len()
    );
    let off = (most - least) / (2.0 * mean);
    report.measurements.push(found(
        "l2.entries",
        mean,
        "entries",
        off,
        all_stable,
        ramp.passes + fine.passes,
        how,
    ));
}
