//! Every figure's value, worked out in its row.
//!
//! The run has three CPUs, of which 1 and 2 are isolated, and lasts half a second: the two isolated CPUs have 1 CPU second
//! together, the housekeeping CPU 0.5, all 1.5. A row sets the statistics that its figure is made of as (CPU 0; CPU 1; CPU 2);
//! every other statistic has a value that would show.

use super::*;

const OTHERS: u64 = 777_777_777_777;

fn run(stats: &[(Stat, [u64; 3])]) -> Output {
    let mut rows = vec![[OTHERS; STATS]; 3];
    for (stat, values) in stats {
        for (row, value) in rows.iter_mut().zip(values) {
            row[*stat as usize] = *value;
        }
    }
    Output {
        stats: rows,
        by_cause: vec![],
        isolated: vec![false, true, true],
        events: vec![],
        levels: vec![],
        dropped: 0,
        purges: vec![],
        latencies: latencies(),
        runs: 0,
        reached_ps: 500_000_000_000,
        interrupted: false,
        notes: vec![],
        inert: vec![],
        costs: vec![],
        unsourced: vec![],
        violation: None,
    }
}

/// On isolated CPUs 10,000 of each kind: 5,100 of k us, 4,000 of 2k, 850 of 4k, 45 of 8k and 5 of 16k. Among the first 50, 90,
/// 99 and 99.9 % the longest are k, 2k, 4k and 8k; the mean is (5,100 + 8,000 + 3,400 + 360 + 80) k / 10,000 = 1.694 k.
/// On the housekeeping CPU 30,000 of 100k us: of all 40,000 the mean is (16,940 + 3,000,000) k / 40,000 = 75.4235 k.
/// k is 1 for entries, 3 for system calls, 5 for interruptions, 7 for waits.
fn latencies() -> Latencies {
    let mut all = Latencies::default();
    let Latencies { entry, syscall, interruption, wait, .. } = &mut all;
    for (kind, k) in [(entry, 1_000_000), (syscall, 3_000_000), (interruption, 5_000_000), (wait, 7_000_000)]
    {
        for (times, count) in [(1, 5100), (2, 4000), (4, 850), (8, 45), (16, 5)] {
            kind[0].record_n(times * k, count);
        }
        kind[1].record_n(100 * k, 30_000);
    }
    all
}

type Row = (&'static str, &'static [(Stat, [u64; 3])], [f64; 3]);

/// Name, statistics, and the figure of isolated CPUs, of housekeeping CPUs and of all.
#[rustfmt::skip]
fn table() -> Vec<Row> {
    use Stat::*;
    vec![
        // 3 + 4 in 1 s of isolated CPUs, 2 in 0.5 s, 9 in 1.5 s: times 3600, 7200 and 2400.
        ("ipis_per_hour", &[(ipis_received, [2, 3, 4])], [25_200.0, 14_400.0, 21_600.0]),
        ("calls_per_hour", &[(calls_executed, [1, 0, 5])], [18_000.0, 7_200.0, 14_400.0]),
        ("coalescing_factor", &[(calls_executed, [6, 7, 8]), (ipis_received, [4, 2, 3])], [3.0, 1.5, 21.0 / 9.0]),
        ("interference_per_hour", &[(interference, [0, 2, 1])], [10_800.0, 0.0, 7_200.0]),
        // 3 us in 1 s, 1 us in 0.5 s, 4 us in 1.5 s.
        ("interference_us_per_hour", &[(interference_ps, [1_000_000, 2_000_000, 1_000_000])], [10_800.0, 7_200.0, 9_600.0]),
        ("interruption_mean_ns", &[], [8_470.0, 500_000.0, 377_117.5]),
        ("interruption_p50_ns", &[], [5_000.0, 500_000.0, 500_000.0]),
        ("interruption_p90_ns", &[], [10_000.0, 500_000.0, 500_000.0]),
        ("interruption_p99_ns", &[], [20_000.0, 500_000.0, 500_000.0]),
        ("interruption_p999_ns", &[], [40_000.0, 500_000.0, 500_000.0]),
        ("interruption_max_ns", &[], [80_000.0, 500_000.0, 500_000.0]),
        // CPU 0: 0.25 s, CPU 1: 0.5 s, CPU 2: 0.4 s.
        ("shortest_longest_quiet_s", &[(longest_quiet_ps, [250_000_000_000, 500_000_000_000, 400_000_000_000])], [0.4, 0.25, 0.25]),
        ("deferrals_per_hour", &[(deferrals, [1, 1, 1])], [7_200.0, 7_200.0, 7_200.0]),
        ("entry_flushes_needed_per_hour", &[(entry_flushes_needed, [0, 10, 1])], [39_600.0, 0.0, 26_400.0]),
        ("entry_flushes_unneeded_per_hour", &[(entry_flushes_unneeded, [3, 0, 2])], [7_200.0, 21_600.0, 12_000.0]),
        ("entry_mean_ns", &[], [1_694.0, 100_000.0, 75_423.5]),
        ("entry_p50_ns", &[], [1_000.0, 100_000.0, 100_000.0]),
        ("entry_p90_ns", &[], [2_000.0, 100_000.0, 100_000.0]),
        ("entry_p99_ns", &[], [4_000.0, 100_000.0, 100_000.0]),
        ("entry_p999_ns", &[], [8_000.0, 100_000.0, 100_000.0]),
        ("entry_max_ns", &[], [16_000.0, 100_000.0, 100_000.0]),
        // 300 ns in 4 calls, 50 ns in 1, 350 ns in 5.
        ("entry_flush_ns", &[(entry_flush_ps, [50_000, 100_000, 200_000]), (syscalls, [1, 1, 3])], [75.0, 50.0, 70.0]),
        ("syscalls_per_s", &[(syscalls, [2, 3, 4])], [7.0, 4.0, 6.0]),
        ("syscall_mean_ns", &[], [5_082.0, 300_000.0, 226_270.5]),
        ("syscall_p50_ns", &[], [3_000.0, 300_000.0, 300_000.0]),
        ("syscall_p90_ns", &[], [6_000.0, 300_000.0, 300_000.0]),
        ("syscall_p99_ns", &[], [12_000.0, 300_000.0, 300_000.0]),
        ("syscall_p999_ns", &[], [24_000.0, 300_000.0, 300_000.0]),
        ("syscall_max_ns", &[], [48_000.0, 300_000.0, 300_000.0]),
        ("refill_ns", &[(refill_ps, [8_000, 1_000, 2_000]), (syscalls, [4, 1, 1])], [1.5, 2.0, 11.0 / 6.0]),
        ("refill_misses_per_hour", &[(refill_misses, [1, 2, 0])], [7_200.0, 7_200.0, 7_200.0]),
        ("exposures_per_hour", &[(exposures, [0, 0, 1])], [3_600.0, 0.0, 2_400.0]),
        ("exposure_mean_ns", &[(exposure_ps, [0, 5_000, 1_000]), (exposures, [0, 2, 1])], [2.0, f64::NAN, 2.0]),
        ("hazards_per_hour", &[(hazards, [1, 0, 0])], [0.0, 7_200.0, 2_400.0]),
        ("sync_deferrals_per_hour", &[(sync_deferrals, [0, 5, 6])], [39_600.0, 0.0, 26_400.0]),
        ("text_hazards_per_hour", &[(text_hazards, [2, 1, 0])], [3_600.0, 14_400.0, 7_200.0]),
        ("flush_requests_per_hour", &[(flush_requests, [5, 1, 0])], [3_600.0, 36_000.0, 14_400.0]),
        ("flush_request_mean_us", &[(flush_request_ps, [9_000_000, 4_000_000, 2_000_000]), (flush_requests, [2, 1, 1])], [3.0, 4.5, 3.75]),
        ("user_flush_requests_per_hour", &[(user_flush_requests, [7, 2, 3])], [18_000.0, 50_400.0, 28_800.0]),
        ("user_flush_request_mean_us", &[(user_flush_request_ps, [2_000_000, 1_000_000, 0]), (user_flush_requests, [1, 1, 3])], [0.25, 2.0, 0.6]),
        ("user_pcid_flushes_per_hour", &[(user_pcid_flushes, [0, 3, 3])], [21_600.0, 0.0, 14_400.0]),
        ("lazy_skips_per_hour", &[(lazy_skips, [4, 0, 0])], [0.0, 28_800.0, 9_600.0]),
        ("purges_per_hour", &[(purges, [3, 0, 0])], [0.0, 21_600.0, 7_200.0]),
        // 6 us for 1 + 2 + 0 requests; 10 us for 2 + 1 + 2; 16 us for 8.
        ("wait_mean_us", &[(wait_ps, [10_000_000, 4_000_000, 2_000_000]), (flush_requests, [2, 1, 0]), (user_flush_requests, [1, 0, 2]), (sync_requests, [2, 0, 0])], [2.0, 2.0, 2.0]),
        ("wait_p50_us", &[], [7.0, 700.0, 700.0]),
        ("wait_p90_us", &[], [14.0, 700.0, 700.0]),
        ("wait_p99_us", &[], [28.0, 700.0, 700.0]),
        ("wait_p999_us", &[], [56.0, 700.0, 700.0]),
        ("wait_max_us", &[], [112.0, 700.0, 700.0]),
        ("wait_share", &[(wait_ps, [5_000_000_000, 1_000_000_000, 2_000_000_000])], [0.003, 0.01, 0.016 / 3.0]),
        ("mm_switches_per_hour", &[(mm_switches, [9, 1, 1])], [7_200.0, 64_800.0, 26_400.0]),
        ("migration_share", &[(migrations, [1, 0, 1]), (mm_switches, [4, 1, 1])], [0.5, 0.25, 1.0 / 3.0]),
        ("mm_switch_flush_share", &[(mm_switches_flushed, [2, 1, 0]), (mm_switches, [8, 2, 3])], [0.2, 0.25, 3.0 / 13.0]),
        ("user_share", &[(user_ps, [100_000_000_000, 500_000_000_000, 250_000_000_000])], [0.75, 0.2, 0.85 / 1.5]),
        ("kernel_share", &[(user_ps, [100_000_000_000, 500_000_000_000, 250_000_000_000])], [0.25, 0.8, 0.65 / 1.5]),
        ("violations_per_hour", &[(violations, [0, 1, 0])], [3_600.0, 0.0, 2_400.0]),
    ]
}

#[test]
fn every_figure_has_the_value_of_its_row() {
    for (name, stats, expected) in table() {
        let output = run(stats);
        let figure = FIGURES.iter().find(|f| f.name == name).expect("rows are of figures");
        let near = if matches!(figure.how, How::Quantile(..)) { 0.01 } else { 1e-12 }; // two digits
        for (class, value) in Class::EACH.into_iter().zip(expected) {
            let found = Sums::new(&output, class).figure(figure.how);
            assert!(
                found.is_nan() && value.is_nan() || (found - value).abs() <= near * value.abs(),
                "{name} of {} CPUs: {found}, worked out: {value}",
                class.name()
            );
        }
    }
}

#[test]
fn every_figure_has_a_row() {
    let rows: Vec<_> = table().into_iter().map(|row| row.0).collect();
    let figures: Vec<_> = FIGURES.iter().map(|f| f.name).collect();
    assert_eq!(rows, figures);
}

#[test]
fn what_has_no_meaning_is_not_a_number() {
    let mut output = run(&[]);
    output.isolated = vec![false; 3];
    let none = Sums::new(&output, Class::Isolated);
    assert_eq!(none.cpus(), 0);
    for figure in FIGURES.iter().filter(|f| !matches!(f.how, How::Mean(..) | How::Quantile(..))) {
        assert!(none.figure(figure.how).is_nan(), "{}", figure.name);
    }
    output.reached_ps = 0;
    output.latencies = Latencies::default();
    let at_once = Sums::new(&output, Class::All);
    for figure in FIGURES.iter().filter(|f| {
        matches!(f.how, How::PerHour(_) | How::Share(_) | How::Rest(_) | How::Mean(..) | How::Quantile(..))
    }) {
        assert!(at_once.figure(figure.how).is_nan(), "{}", figure.name);
    }
}

#[test]
fn a_name_says_its_unit() {
    for figure in FIGURES {
        let end = match figure.how.unit() {
            "1/h" => "_per_hour",
            "us/h" => "_us_per_hour",
            "1/s" => "_per_s",
            "ns" => "_ns",
            "us" => "_us",
            "s" => "_s",
            _ => "",
        };
        assert!(figure.name.ends_with(end), "{} is in {}", figure.name, figure.how.unit());
        assert!(figure.text.ends_with('.'), "{}", figure.name);
    }
}

#[test]
fn a_metric_is_a_figure_of_a_class() {
    for class in Class::EACH {
        for figure in FIGURES {
            let name = Metric { class, figure }.name();
            let found = Metric::named(&name).unwrap();
            assert_eq!((found.class, found.figure.name), (class, figure.name), "{name}");
        }
    }
    assert_eq!(Metric::named("ipis_per_hour").unwrap().class, Class::Isolated);
    let error = Metric::named("ipis_per_hours").unwrap_err();
    assert_eq!(error, "unknown metric `ipis_per_hours`; did you mean `ipis_per_hour`?");
    for name in ["", "all", "all_", "housekeeping_all_user_share", "isolated_user_share"] {
        assert!(Metric::named(name).is_err(), "{name}");
    }
}
