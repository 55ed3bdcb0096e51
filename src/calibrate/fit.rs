//! Fits of a cost against a number of pages: where does it step, from what to what?
//!
//! Invariant: nothing here measures; the same points give the same fit.

/// One step of a cost curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Last number of pages at the lower level.
    pub last_low: f64,
    /// First number of pages at the upper level.
    pub first_high: f64,
    /// Cost below.
    pub low: f64,
    /// Cost above.
    pub high: f64,
    /// Root mean square distance of the points from the fit, in the unit of the cost.
    pub residual: f64,
}

impl Step {
    /// Half way up.
    pub fn middle(&self) -> f64 {
        f64::midpoint(self.last_low, self.first_high)
    }

    /// Whether there is a step at all: it must exceed the scatter clearly, and a fifth of the cost below.
    pub fn is_clear(&self) -> bool {
        let rise = self.high - self.low;
        rise > 4.0 * self.residual && rise > 0.2 * self.low
    }
}

/// Fits `low` up to one point, a straight ramp, and from a later point on a level that may go on rising (walks get
/// dearer as their tables fall out of the caches), by least squares over all pairs of points. Needs at least five
/// points in rising order of pages; `None` with fewer, or when the cost falls.
pub fn step(pages: &[f64], cost: &[f64]) -> Option<Step> {
    let n = pages.len();
    if n < 5 || cost.len() != n {
        return None;
    }
    let mut best: Option<(f64, Step)> = None;
    for from in 0..n - 2 {
        for to in from + 1..n - 1 {
            let columns = |page: f64| {
                let ramp = ((page - pages[from]) / (pages[to] - pages[from])).clamp(0.0, 1.0);
                [1.0, ramp, ((page - pages[to]) / pages[to]).max(0.0)]
            };
            let Some([low, rise, slope]) = least_squares(pages.iter().map(|&page| columns(page)), cost)
            else {
                continue;
            };
            let error: f64 = pages
                .iter()
                .zip(cost)
                .map(|(&page, &c)| {
                    let [one, ramp, after] = columns(page);
                    (c - low * one - rise * ramp - slope * after).powi(2)
                })
                .sum();
            let residual = (error / n as f64).sqrt();
            let fit = Step { last_low: pages[from], first_high: pages[to], low, high: low + rise, residual };
            // Of equal fits the steeper one: it says more.
            if rise > 0.0 && slope > -0.5 * rise && best.is_none_or(|(least, _)| error < least * (1.0 - 1e-9))
            {
                best = Some((error, fit));
            }
        }
    }
    best.map(|(_, fit)| fit)
}

/// Where a total that first stays at zero begins to rise in proportion: the hinge of `slope * max(0, pages - hinge)`,
/// by least squares over all places between the points. `None` with fewer than five points or when nothing rises.
pub fn hinge(pages: &[f64], total: &[f64]) -> Option<Hinge> {
    if pages.len() < 5 || pages.len() != total.len() {
        return None;
    }
    let (first, last) = (pages[0], pages[pages.len() - 1]);
    (0..=2000)
        .map(|i| first + (last - first) * f64::from(i) / 2000.0)
        .filter_map(|at| {
            let over = || pages.iter().map(move |&page| (page - at).max(0.0));
            let square: f64 = over().map(|x| x * x).sum();
            let slope = over().zip(total).map(|(x, &y)| x * y).sum::<f64>() / square;
            let error: f64 = over().zip(total).map(|(x, &y)| (y - slope * x).powi(2)).sum();
            (square > 0.0 && slope > 0.0).then_some((error, Hinge { at, slope }))
        })
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, hinge)| hinge)
}

/// A hinge: see [`hinge`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hinge {
    /// Pages at which it bends.
    pub at: f64,
    /// Cost per page beyond.
    pub slope: f64,
}

/// The last point that is still at the lower level, to within a twentieth of the rise. Disturbances only raise a cost,
/// so points above the level before it do not end it.
pub fn last_low(pages: &[f64], cost: &[f64], step: &Step) -> f64 {
    // Not `step.low`, which a slow start of the ramp lifts.
    let low = median(cost.iter().zip(pages).filter(|&(_, &page)| page <= step.last_low).map(|(&c, _)| c));
    let limit = low + 0.05 * (step.high - low);
    let fits = pages.iter().zip(cost).filter(|&(_, &c)| c <= limit).map(|(&page, _)| page);
    fits.fold(pages[0], f64::max)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Solves the normal equations of three columns; `None` if they do not determine the three values.
fn least_squares(rows: impl Iterator<Item = [f64; 3]>, cost: &[f64]) -> Option<[f64; 3]> {
    let mut m = [[0.0; 4]; 3];
    for (row, &y) in rows.zip(cost) {
        for i in 0..3 {
            for j in 0..3 {
                m[i][j] += row[i] * row[j];
            }
            m[i][3] += row[i] * y;
        }
    }
    for i in 0..3 {
        let pivot = (i..3).max_by(|&a, &b| m[a][i].abs().total_cmp(&m[b][i].abs()))?;
        m.swap(i, pivot);
        if m[i][i].abs() < 1e-9 {
            return None;
        }
        for other in 0..3 {
            if other != i {
                let factor = m[other][i] / m[i][i];
                let row = m[i];
                for (left, right) in m[other].iter_mut().zip(row).skip(i) {
                    *left -= factor * right;
                }
            }
        }
    }
    Some([m[0][3] / m[0][0], m[1][3] / m[1][1], m[2][3] / m[2][2]])
}

/// Ways of an array whose capacity seems smaller by which factor when only every `stride`-th page is used: with
/// linear indexing a stride of at least the number of sets leaves one set. `None` if the capacity does not depend on
/// the stride (fully associative, or hashed).
pub fn sets_and_ways(strides: &[(u32, f64)]) -> Option<(u32, u32)> {
    let whole = strides.first()?.1;
    let least = strides.iter().map(|&(_, entries)| entries).fold(f64::INFINITY, f64::min);
    if least > 0.75 * whole {
        return None;
    }
    let ways = least.round().max(1.0) as u32;
    Some(((whole / f64::from(ways)).round() as u32, ways))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(page: f64, from: f64, to: f64, low: f64, high: f64) -> f64 {
        low + (high - low) * ((page - from) / (to - from)).clamp(0.0, 1.0)
    }

    /// Scatter that is always the same.
    fn noise(i: usize) -> f64 {
        ((i * 2_654_435_761) % 1000) as f64 / 1000.0 - 0.5
    }

    #[test]
    fn a_sharp_step_is_found_to_the_page() {
        let pages: Vec<f64> = (56..=96).map(f64::from).collect();
        let cost: Vec<f64> = pages.iter().map(|&p| if p <= 72.0 { 4.0 } else { 11.0 }).collect();
        let fit = step(&pages, &cost).unwrap();
        assert_eq!((fit.last_low, fit.first_high), (72.0, 73.0));
        assert!((fit.low - 4.0).abs() < 1e-9 && (fit.high - 11.0).abs() < 1e-9 && fit.is_clear());
    }

    #[test]
    fn scatter_of_a_tenth_of_the_step_moves_it_by_a_page_at_most() {
        let pages: Vec<f64> = (40..=110).map(f64::from).collect();
        for knee in [48.0, 64.0, 72.0, 96.0] {
            let at = |(i, &p): (usize, &f64)| (if p <= knee { 4.0 } else { 11.0 }) + 0.7 * noise(i);
            let cost: Vec<f64> = pages.iter().enumerate().map(at).collect();
            let fit = step(&pages, &cost).unwrap();
            assert!((fit.last_low - knee).abs() <= 1.0, "{knee}: {fit:?}");
        }
    }

    #[test]
    fn a_ramp_is_found_although_walks_beyond_it_get_dearer() {
        let pages: Vec<f64> = (4..40).map(|i| f64::from(i) * 192.0).collect();
        // Beyond it walks get dearer: the level goes on rising.
        let dearer = |p: f64| 4.0 * (p - 3644.0).max(0.0) / 1000.0;
        let at = |(i, &p): (usize, &f64)| ramp(p, 2500.0, 3644.0, 11.0, 50.0) + dearer(p) + noise(i);
        let cost: Vec<f64> = pages.iter().enumerate().map(at).collect();
        let fit = step(&pages, &cost).unwrap();
        assert!((fit.middle() - 3072.0).abs() < 150.0, "{fit:?}");
        assert!((fit.high - fit.low - 39.0).abs() < 2.0, "{fit:?}");
    }

    #[test]
    fn a_slow_start_of_the_ramp_does_not_hide_the_last_page_that_fits() {
        // As a Zen 4 with 72 entries and no exact LRU gave it.
        let pages: Vec<f64> = (66..=81).map(f64::from).collect();
        let mut cost = vec![0.0, 0.02, 0.0, 0.5, 0.6, 0.0, 0.01, 0.18, 0.29, 0.95, 1.52, 1.7, 1.85];
        cost.extend([1.9; 3]);
        let fit = step(&pages, &cost).unwrap();
        assert!((last_low(&pages, &cost, &fit) - 72.0).abs() < 0.5);
    }

    #[test]
    fn a_hinge_is_found_between_points_and_despite_walks_that_get_dearer() {
        for capacity in [1536.0, 2048.0, 3072.0, 4096.0] {
            let pages: Vec<f64> = (0..30).map(|i| capacity * (0.4 + f64::from(i) * 0.045)).collect();
            let at = |(i, &p): (usize, &f64)| {
                (p - capacity).max(0.0) * (12.0 + 0.4 * (p - capacity) / 1000.0) + 300.0 * noise(i)
            };
            let total: Vec<f64> = pages.iter().enumerate().map(at).collect();
            let found = hinge(&pages, &total).unwrap();
            assert!((found.at / capacity - 1.0).abs() < 0.04, "{capacity}: {found:?}");
        }
        assert_eq!(hinge(&[1.0, 2.0, 3.0, 4.0, 5.0], &[0.0; 5]), None);
    }

    #[test]
    fn noise_alone_is_no_step() {
        let pages: Vec<f64> = (1..60).map(f64::from).collect();
        let cost: Vec<f64> = (0..59).map(|i| 10.0 + noise(i)).collect();
        assert!(step(&pages, &cost).is_none_or(|fit| !fit.is_clear()));
    }

    #[test]
    fn a_falling_curve_and_too_few_points_give_nothing() {
        assert_eq!(step(&[1.0, 2.0, 3.0, 4.0], &[1.0, 1.0, 2.0, 2.0]), None);
        assert_eq!(step(&[1.0, 2.0, 3.0, 4.0, 5.0], &[5.0, 4.0, 3.0, 2.0, 1.0]), None);
    }

    #[test]
    fn strides_tell_sets_and_ways_of_linear_indexing_only() {
        // 16 sets of 4 ways: a stride of 2 halves the sets in use, and so on down to one set.
        let linear = [(1, 64.0), (2, 32.0), (4, 16.0), (8, 8.0), (16, 4.0), (32, 4.0)];
        assert_eq!(sets_and_ways(&linear), Some((16, 4)));
        assert_eq!(sets_and_ways(&[(1, 72.0), (2, 72.0), (16, 71.0)]), None);
    }
}
