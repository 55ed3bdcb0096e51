use super::*;
use crate::trace::event::Hole;

#[derive(Default)]
struct Seen(Vec<String>);

impl Sink for Seen {
    fn event(&mut self, e: &Event<'_>) {
        let What::Sum(sum) = e.what else { panic!("sums only") };
        let what = match sum {
            Sum::Noise(s) => format!(
                "{} {} {} {} {} {:?}",
                s.periods, s.runtime_ns, s.noise_ns, s.max_period_ns, s.max_single_ns, s.counts
            ),
            Sum::Latency { context, n, mean_ns, max_ns, over_ns } => {
                format!("{} {n:?} {mean_ns:?} {max_ns} in {over_ns}", String::from_utf8_lossy(context))
            }
            Sum::Count { vector, name, n, over_ns } => {
                format!("{} {vector:?} {n} in {over_ns}", String::from_utf8_lossy(name))
            }
        };
        self.0.push(format!("{}: {what}", e.cpu));
    }
    fn hole(&mut self, _: &Hole) {}
}

fn read(text: &str) -> Vec<String> {
    let mut sums = Sums::recognise(text.lines().next().unwrap().as_bytes()).expect("known");
    for (n, line) in text.lines().enumerate() {
        assert_eq!(sums.line(line.as_bytes(), n as u64 + 1), Ok(()), "{line}");
    }
    let mut seen = Seen::default();
    sums.finish(&mut seen);
    seen.0
}

#[test]
fn of_a_table_printed_again_and_again_the_last_counts() {
    let table = |noise: u32| {
        format!(
            "\x1bc\x1b[2;37;40m            Operating System Noise            \x1b[0;0;0m
duration:   0 00:01:00 | time is in us
\x1b[2;30;47mCPU Period       Runtime        Noise  % CPU Aval   Max Noise   Max Single          HW          NMI          IRQ      Softirq       Thread\x1b[0;0;0m
  3 #59         53100000       {noise}    99.42580        6978           56         549            0        53111         1590           13
"
        )
    };
    let text = table(1) + &table(304_896);
    assert_eq!(
        read(&text),
        ["3: 59 53100000000 304896000 6978000 56000 [Some(549), Some(0), Some(53111), Some(1590), Some(13)]"]
    );
}

#[test]
fn hardware_noise_counts_no_interrupts() {
    let text = "\
                                          Hardware-related Noise
duration:   0 00:10:00 | time is in us
CPU Period       Runtime        Noise  % CPU Aval   Max Noise   Max Single          HW          NMI
  0 #599       599000000          138    99.99997           3            3           4           74
";
    assert_eq!(read(text), ["0: 599 599000000000 138000 3000 3000 [Some(4), Some(74), None, None, None]"]);
}

#[test]
fn latencies_of_top_are_in_its_unit_and_only_the_interrupts_are_counted() {
    let text = "\
                                     Timer Latency
  0 00:00:59   |          IRQ Timer Latency (us)        |         Thread Timer Latency (us)
CPU COUNT      |      cur       min       avg       max |      cur       min       avg       max
  1 #58634     |        1         0         1        10 |        -         -         -         -
  2 #58634     |        1         0         1         9 |       12         2         9        23
---------------|----------------------------------------|---------------------------------------
ALL #117268 e0 |                  0         1        10 |                  2         9        23
rtla timerlat hit stop tracing
## CPU 2 hit stop tracing, analyzing it ##
  Blocking thread:                                           3.79 us (9.03 %)
";
    assert_eq!(
        read(text),
        [
            "1: irq Some(58634) Some(1000) 10000 in 59000000000",
            "2: irq Some(58634) Some(1000) 9000 in 59000000000",
            "2: thread None Some(9000) 23000 in 59000000000",
        ]
    );
    let nanoseconds = text.replace("(us)", "(ns)");
    assert_eq!(read(&nanoseconds)[2], "2: thread None Some(9) 23 in 59000000000");
}

#[test]
fn a_histogram_of_latencies_has_its_number_its_mean_and_its_longest() {
    let text = "\
# RTLA timerlat histogram
# Time unit is microseconds (us)
# Duration:   0 00:10:00
Index   IRQ-000   Thr-000   IRQ-005   Thr-005
0        58572         0     59373         0
over:        0         0         0         0
count:   60000     60000     60000         0
min:         0         2         0         -
avg:         0      7.25         1         -
max:         2        22        22         -
ALL:        IRQ       Thr
count:   120000    120000
";
    assert_eq!(
        read(text),
        [
            "0: irq Some(60000) Some(0) 2000 in 600000000000",
            "0: thread Some(60000) Some(7000) 22000 in 600000000000",
            "5: irq Some(60000) Some(1000) 22000 in 600000000000",
        ]
    );
    let mut noise = Sums::recognise(b"# RTLA osnoise histogram").expect("known");
    assert_eq!(noise.line(b"# RTLA osnoise histogram", 1), Err((0, NOISE_HISTOGRAM)));
}

#[test]
fn perf_stat_counts_per_cpu_over_the_time_it_prints() {
    let text = "\
 Performance counter stats for 'system wide':

CPU2                  1,234      irq_vectors:local_timer_entry     #  0.1 K/sec
CPU3                      0      irq_vectors:local_timer_entry
CPU3          <not counted>      irq_vectors:reschedule_entry
CPU3              10,003.12 msec cpu-clock

      10.000000000 seconds time elapsed
";
    assert_eq!(
        read(text),
        [
            "2: local_timer_entry Some(LocalTimer) 1234 in 10000000000",
            "3: local_timer_entry Some(LocalTimer) 0 in 10000000000",
        ]
    );
    let one = "\
 Performance counter stats for 'CPU(s) 7':

                 5      irq_vectors:reschedule_entry

       2.500000000 seconds time elapsed
";
    assert_eq!(read(one), ["7: reschedule_entry Some(Reschedule) 5 in 2500000000"]);
    let whole = "Performance counter stats for 'system wide':";
    let mut all = Sums::recognise(whole.as_bytes()).expect("known");
    all.line(whole.as_bytes(), 1).expect("a header");
    assert!(all.line(b"   1,234      irq_vectors:local_timer_entry", 2).is_err(), "of all CPUs together");
}

#[test]
fn intervals_of_perf_stat_are_summed() {
    let text = "\
Performance counter stats for 'system wide':
     1.000282713 CPU0                  4      irq_vectors:local_timer_entry
     2.000282713 CPU0                  3      irq_vectors:local_timer_entry
";
    assert_eq!(read(text), ["0: local_timer_entry Some(LocalTimer) 7 in 2000282713"]);
    let csv = "\
     1.000282713,CPU0,4,,irq_vectors:local_timer_entry,1000000000,100.00,,
     2.000282713,CPU0,3,,irq_vectors:local_timer_entry,1000000001,100.00,,
";
    assert_eq!(read(csv), ["0: local_timer_entry Some(LocalTimer) 7 in 2000000001"]);
}

#[test]
fn prose_is_no_table() {
    for text in ["Noise", "CPU2 is slow, 5 times", "a, b, c, d, e", "Timer Latency was high"] {
        assert!(Sums::recognise(text.as_bytes()).is_none(), "{text}");
    }
}
