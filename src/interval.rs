//! Confidence intervals, from a statistics library: the one place for their quantiles.

use statrs::distribution::{Beta, ContinuousCDF, Gamma, StudentsT};

/// Two-sided quantile of Student's t: a mean of `values` values of a normal distribution is within so many standard
/// errors of the true one with the given confidence. Infinite for fewer than two values.
pub fn student_t(values: u64, confidence: f64) -> f64 {
    if values < 2 {
        return f64::INFINITY;
    }
    let t = StudentsT::new(0.0, 1.0, (values - 1) as f64).expect("degrees of freedom are positive");
    t.inverse_cdf(f64::midpoint(1.0, confidence))
}

/// The exact interval of a Poisson mean of which `events` were counted (Garwood, 1936), with the given confidence.
pub fn poisson(events: u64, confidence: f64) -> (f64, f64) {
    let tail = (1.0 - confidence) / 2.0;
    let quantile =
        |shape: u64, p: f64| Gamma::new(shape as f64, 1.0).expect("a shape of at least one").inverse_cdf(p);
    (if events == 0 { 0.0 } else { quantile(events, tail) }, quantile(events + 1, 1.0 - tail))
}

/// The exact interval of the ratio of two Poisson rates, the second by the first: given both counts together, the second is
/// binomial (Przyborowski and Wilenski, 1940), whose limits are Clopper and Pearson's. The upper end is infinite if the
/// first count is 0.
pub fn rate_ratio(first: (u64, f64), second: (u64, f64), confidence: f64) -> (f64, f64) {
    let ((a, time_a), (b, time_b)) = (first, second);
    let tail = (1.0 - confidence) / 2.0;
    let quantile = |x: u64, y: u64, p: f64| {
        Beta::new(x as f64, y as f64).expect("shapes of at least one").inverse_cdf(p)
    };
    let odds = |share: f64| share / (1.0 - share) * time_a / time_b;
    let low = if b == 0 { 0.0 } else { odds(quantile(b, a + 1, tail)) };
    let high = if a == 0 { f64::INFINITY } else { odds(quantile(b + 1, a, 1.0 - tail)) };
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NIST/SEMATECH e-Handbook 1.3.6.7.2, upper critical values for 0.975 and 0.995.
    #[test]
    fn quantiles_of_t_are_those_of_the_tables() {
        for (values, confidence, table) in [
            (2, 0.95, 12.706),
            (3, 0.95, 4.303),
            (6, 0.95, 2.571),
            (31, 0.95, 2.042),
            (101, 0.95, 1.984),
            (2, 0.99, 63.657),
            (11, 0.99, 3.169),
        ] {
            let t = student_t(values, confidence);
            assert!((t - table).abs() < 5.1e-4, "{values} values: {t}, the table says {table}");
        }
        assert!(student_t(1, 0.95).is_infinite());
    }

    /// Garwood (1936), table as in Ulm, Am J Epidemiol 131 (1990).
    #[test]
    fn limits_of_a_count_are_garwoods() {
        for (events, low, high) in [
            (0, 0.0, 3.689),
            (1, 0.0253, 5.572),
            (2, 0.2422, 7.225),
            (5, 1.6235, 11.668),
            (10, 4.7954, 18.390),
            (100, 81.36, 121.63),
        ] {
            let (l, h) = poisson(events, 0.95);
            assert!(
                (l - low).abs() <= 1e-3 * high && (h - high).abs() <= 1e-3 * high,
                "{events}: {l} to {h}"
            );
        }
    }

    /// Clopper-Pearson limits of 4 in 10 (0.1216 to 0.7376) and of 0 in 10 (to 0.3085), from tables, as odds.
    #[test]
    fn limits_of_a_ratio_are_those_of_the_binomial_share() {
        let near = |x: f64, y: f64| (x - y).abs() <= 2e-3 * y;
        let (low, high) = rate_ratio((6, 1.0), (4, 1.0), 0.95);
        assert!(near(low, 0.1216 / 0.8784) && near(high, 0.7376 / 0.2624), "{low} to {high}");
        let (low, high) = rate_ratio((10, 2.0), (0, 1.0), 0.95);
        assert!(low.abs() < 1e-12 && near(high, 2.0 * 0.3085 / 0.6915), "{low} to {high}");
        assert!(rate_ratio((0, 1.0), (3, 1.0), 0.95).1.is_infinite());
    }
}
