//! Small recordings, written by hand: CPU 0 asks, CPU 1 is isolated.

use super::*;
use crate::hw::Preset;
use crate::kernel::policy::{POLICIES, builtin, load_with};
use crate::kernel::program::{Code, Feature, Features};
use crate::kernel::text::{File, parse};
use crate::sim::cost::{Bound, Times};
use crate::sim::draw::Draws;

const US: u64 = 1_000;

fn features(file: &File) -> Features {
    let needed = file.needs.iter().filter_map(|n| Feature::named(n));
    needed.fold(Features::PTI_PCID, Features::with)
}

pub(super) fn costs_and_code(file: &File) -> (Code, Costs) {
    let features = features(file);
    let code = load_with(file, &["flush_mm"], features).unwrap();
    let preset = Preset::builtin("skylake-sp").unwrap();
    let times = Times::new(&code, &preset, features, Bound::Best);
    (code, Costs { times, features })
}

pub(super) fn run_file(w: &Workload, file: &File, variant: Variant) -> Played {
    let (code, costs) = costs_and_code(file);
    play(w, &code, costs, variant)
}

fn run_text(w: &Workload, file: &File, favour: bool) -> Played {
    run_file(w, file, Variant { favour, unknown: Ask::Purge, tables: false, levels: false })
}

fn run(w: &Workload, policy: &str) -> [Played; 2] {
    let file = builtin(policy).unwrap();
    [true, false].map(|favour| run_text(w, &file, favour))
}

fn spared(w: &Workload, policy: &str) -> [usize; 2] {
    run(w, policy).map(|p| p.spared.iter().filter(|s| **s).count())
}

fn at(us: u64, mark: Mark) -> Marked {
    Marked { at_ns: us * US, counted: true, mark }
}

fn calls(us: u64, irq: u32, end: u64) -> Marked {
    at(us, Mark::Calls { irq, end_ns: end * US })
}

/// A recording of CPU 1 with requests of one call each: what, queued when, run by which interrupt.
fn recording(marks: Vec<Marked>, requests: &[(Ask, u64, u32)]) -> Workload {
    let call = |(_, us, irq): &(Ask, u64, u32)| Call {
        cpu: 1,
        queued_ns: us * US,
        guessed: false,
        irq: *irq,
        counted: true,
    };
    Workload {
        cpus: 2,
        targets: vec![Target { cpu: 1, housekeeping: false, marks }],
        requests: (0..)
            .zip(requests)
            .map(|(i, (ask, ..))| Request {
                sender: Some(0),
                ask: *ask,
                full: true,
                complete: true,
                line: i as u64 + 1,
                calls: i..i + 1,
            })
            .collect(),
        calls: requests.iter().map(call).collect(),
        begin_ns: 0,
        end_ns: 10_000 * US,
        margin_ns: 2 * US,
        idle_known: true,
    }
}

/// In user mode, but for one interrupt.
fn one_interrupt(ask: Ask) -> Workload {
    let marks = vec![
        at(1, Mark::Exit),
        at(5, Mark::Enter),
        at(1010, Mark::Exit),
        calls(1011, 1, 1015),
        at(1016, Mark::Enter),
        at(5000, Mark::Exit),
        at(5000, Mark::Own),
        at(5010, Mark::Enter),
    ];
    recording(marks, &[(ask, 1000, 1)])
}

/// Call B finds the CPU in the handler of call A.
fn in_the_handler() -> Workload {
    let marks = vec![
        at(1, Mark::Exit),
        at(5, Mark::Enter),
        at(1010, Mark::Exit),
        calls(1011, 1, 1030),
        calls(1031, 2, 1040),
        at(1041, Mark::Enter),
    ];
    recording(marks, &[(Ask::Purge, 1000, 1), (Ask::Purge, 1020, 2)])
}

#[test]
fn mainline_gives_the_recording_back() {
    for ask in
        [Ask::Purge, Ask::Unmap, Ask::Tables, Ask::Rights, Ask::Kernel, Ask::Sync, Ask::User, Ask::Other]
    {
        for played in run(&one_interrupt(ask), "ipi") {
            let nothing = CpuPlayed { entry_ps: 0, entered: [0; 2], calls_ns: 0, ..played.cpus[0] };
            assert_eq!(nothing, CpuPlayed::default(), "{ask:?}");
            assert_eq!((played.more_calls, played.broken, played.postponed), (0, 0, 0), "{ask:?}");
            assert_eq!(played.spared, [false], "{ask:?}");
        }
    }
}

#[test]
fn a_purge_in_user_mode_goes_with_its_interrupt_and_its_entry_and_is_pending_until_the_next_one() {
    for played in run(&one_interrupt(Ask::Purge), "coalesce-v7-fixed") {
        let cpu = played.cpus[0];
        assert_eq!(played.spared, [true]);
        assert_eq!((cpu.gone_interrupts, cpu.gone_entries, cpu.more_entries), (1, 1, 0));
        assert_eq!(cpu.entry_flushes, 2, "of the two entries that are left");
        assert!(cpu.pending_ns.abs_diff(4000 * US) <= 3 * US, "{cpu:?}");
    }
}

#[test]
fn a_call_in_the_handler_of_one_that_is_not_sent_finds_user_mode() {
    let w = in_the_handler();
    assert_eq!(spared(&w, "ipi"), [0, 0]);
    for policy in ["coalesce-v7", "pending-bit", "ct-late", "noinstr-c", "track-cr3-invpcid"] {
        assert_eq!(spared(&w, policy), [2, 2], "{policy}");
        for played in run(&w, policy) {
            assert_eq!((played.cpus[0].gone_interrupts, played.cpus[0].gone_entries), (2, 1), "{policy}");
        }
    }
    // If the first one stays, the second finds its handler.
    let mut w = in_the_handler();
    w.requests[0].ask = Ask::Tables;
    assert_eq!(spared(&w, "coalesce-v7"), [0, 0]);
}

#[test]
fn what_the_cpu_does_of_its_own_accord_stays_and_holds_it_in_the_kernel() {
    let mut w = in_the_handler();
    // A timer interrupt comes after the first call's handler, and the third call during it.
    let timer = at(1029, Mark::OwnIrq { end_ns: 1040 * US });
    w.targets[0].marks.insert(4, timer);
    w.calls.push(Call { cpu: 1, queued_ns: 1035 * US, guessed: false, irq: 2, counted: true });
    w.requests.push(Request { calls: 2..3, line: 3, ..w.requests[0].clone() });
    for played in run(&w, "coalesce-v7") {
        assert_eq!(played.spared, [true, true, false]);
        assert_eq!((played.cpus[0].gone_interrupts, played.cpus[0].gone_entries), (1, 0));
    }
}

#[test]
fn table_frees_and_rights_are_never_deferred() {
    for ask in [Ask::Tables, Ask::Rights, Ask::Other] {
        assert_eq!(spared(&one_interrupt(ask), "coalesce-v7-fixed"), [0, 0], "{ask:?}");
    }
    // Hardware does them.
    assert_eq!(spared(&one_interrupt(Ask::Tables), "invlpgb"), [1, 1]);
    assert_eq!(spared(&one_interrupt(Ask::Other), "invlpgb"), [0, 0]);
}

#[test]
fn what_is_not_recorded_gives_two_results() {
    assert_eq!(spared(&one_interrupt(Ask::Kernel), "coalesce-v7"), [1, 0]);
    assert_eq!(spared(&one_interrupt(Ask::Sync), "text-defer-v7"), [1, 0]);
    assert_eq!(spared(&one_interrupt(Ask::Sync), "coalesce-v7"), [0, 0]);
    let mut w = one_interrupt(Ask::Purge);
    w.calls[0].guessed = true;
    assert_eq!(spared(&w, "coalesce-v7"), [1, 0]);
    // Nothing shows in which mode it was.
    let mut w = one_interrupt(Ask::Purge);
    w.targets[0].marks.retain(|m| matches!(m.mark, Mark::Calls { .. }));
    assert_eq!(spared(&w, "coalesce-v7"), [1, 0]);
    assert_eq!(spared(&w, "ipi"), [0, 0]);
    assert_eq!(spared(&w, "invlpgb"), [1, 1]);
    // Events are missing from just before the call.
    let mut w = one_interrupt(Ask::Purge);
    w.targets[0].marks.insert(2, at(900, Mark::Lost));
    assert_eq!(spared(&w, "coalesce-v7"), [1, 0]);
    // A system call began within the resolution of the clock.
    for (us, found) in [(998, [1, 0]), (1002, [1, 0]), (990, [0, 0])] {
        let mut w = one_interrupt(Ask::Purge);
        w.targets[0].marks[2] = at(us, Mark::Exit);
        w.targets[0].marks.insert(3, at(us, Mark::Own));
        assert_eq!(spared(&w, "coalesce-v7"), found, "{us}");
    }
}

#[test]
fn only_what_says_so_spares_idle_cpus() {
    let mut w = one_interrupt(Ask::Purge);
    let marks = &mut w.targets[0].marks;
    *marks = vec![
        at(1, Mark::Exit),
        at(2, Mark::Own),
        at(2, Mark::Idle(true)),
        calls(1011, 1, 1015),
        at(3000, Mark::Idle(false)),
        at(4000, Mark::Enter),
    ];
    assert_eq!(spared(&w, "ct-late"), [1, 1]);
    assert_eq!(spared(&w, "coalesce-v7"), [0, 0]);
    for played in run(&w, "ct-late") {
        let longest = played.cpus[0].pending_longest_ns;
        assert!(longest.abs_diff(2000 * US) <= 3 * US, "until it wakes: {longest}");
    }
}

#[test]
fn a_policy_is_what_its_text_says() {
    let text = "policy edited\n  \"The sender always interrupts.\"\n  needs pti\n  based on coalesce-v7\n\n\
                flush_kernel_range\n  ipi others, flush_handler\n  flush_here\n  await acks\n";
    let file = parse("edited.policy", text).unwrap();
    let w = in_the_handler();
    for favour in [true, false] {
        let played = run_text(&w, &file, favour);
        assert_eq!(played.spared, [false, false]);
        assert_eq!(played.cpus[0].entry_flushes, 2, "its entries flush all the same");
    }
}

#[test]
fn a_policy_for_user_ranges_spares_what_its_text_spares() {
    let text = "policy broadcast\n  \"User ranges by INVLPGB.\"\n  needs invlpgb\n  based on invlpgb\n\n\
                flush_tlb_mm_range\n  inc_mm_tlb_gen\n  flush info mm, gen\n  invlpgb range\n  tlbsync\n";
    let file = parse("broadcast.policy", text).unwrap();
    let w = one_interrupt(Ask::User);
    for favour in [true, false] {
        let played = run_text(&w, &file, favour);
        assert_eq!(played.spared, [true]);
        assert_eq!((played.cpus[0].gone_interrupts, played.cpus[0].pending_ns), (1, 0));
    }
    assert_eq!(spared(&w, "coalesce-v7"), [0, 0]);
}

#[test]
fn calls_that_were_not_recorded_are_more_interrupts() {
    let text = "policy twice\n  \"A sync for every flush.\"\n\nflush_kernel_range\n  flush_kernel_now\n  flush_kernel_now\n";
    let file = parse("twice.policy", text).unwrap();
    let w = one_interrupt(Ask::Purge);
    for favour in [true, false] {
        let played = run_text(&w, &file, favour);
        let cpu = played.cpus[0];
        assert_eq!((played.more_calls, played.more_lines.as_slice()), (1, [1].as_slice()));
        assert_eq!((cpu.more_interrupts, cpu.gone_interrupts), (1, 0));
        assert_eq!(cpu.more_entries, 1);
        // The first is taken 11 microseconds after it was queued, and so is the one that was not recorded; it finds user mode.
        assert_eq!(cpu.entered, [2, 2]);
        assert!((22..25).contains(&(played.wait_ps / 1_000_000)), "{}", played.wait_ps);
    }
}

/// CPU 0 asks CPUs 1 and 2 twice: queued when, for the first request and for the second.
fn two_requests(queued: [[u64; 2]; 2]) -> Workload {
    let marks = vec![
        at(1, Mark::Exit),
        at(5, Mark::Enter),
        at(50, Mark::Exit),
        calls(51, 1, 55),
        at(56, Mark::Enter),
        at(70, Mark::Exit),
        calls(71, 2, 75),
        at(76, Mark::Enter),
    ];
    let mut w = recording(marks.clone(), &[]);
    w.cpus = 3;
    w.targets.push(Target { cpu: 2, housekeeping: false, marks });
    for (r, of) in queued.iter().enumerate() {
        let calls = 2 * r..2 * r + 2;
        w.requests.push(Request {
            sender: Some(0),
            ask: Ask::Tables,
            full: true,
            complete: true,
            line: 1,
            calls,
        });
        w.calls.extend((1..).zip(of).map(|(cpu, us)| Call {
            cpu,
            queued_ns: us * US,
            guessed: false,
            irq: r as u32 + 1,
            counted: true,
        }));
    }
    w
}

#[test]
fn a_sender_begins_its_next_request_when_its_loop_is_over_and_waits_for_the_first_one_no_longer() {
    for (queued, waited) in [
        // The second one comes amid the loop of the first: it begins when the first has its acknowledgements.
        ([[10, 30], [20, 40]], (51 - 10) + (71 - 51)),
        // It comes when the first waits: that is given up, and its calls run all the same.
        ([[10, 20], [40, 45]], (40 - 10) + (71 - 40)),
        // It comes when the first is over.
        ([[10, 20], [60, 65]], (51 - 10) + (71 - 60)),
    ] {
        let w = two_requests(queued);
        for policy in ["ipi", "coalesce-v7-fixed"] {
            for played in run(&w, policy) {
                assert_eq!(played.spared, [false; 4], "{policy} {queued:?}");
                assert_eq!(
                    (played.more_calls, played.unfinished, played.broken),
                    (0, 0, 0),
                    "{policy} {queued:?}"
                );
                // Beside it the programs take a microsecond or so each.
                let more = (played.wait_ps / 1_000_000).checked_sub(waited);
                assert!(more.is_some_and(|us| us <= 3), "{policy} {queued:?}: {more:?}");
                for cpu in played.cpus {
                    assert_eq!((cpu.gone_interrupts, cpu.gone_entries, cpu.more_interrupts), (0, 0, 0));
                    assert_eq!((cpu.entered, cpu.calls_ns), ([1, 2], 8 * US), "{policy} {queued:?}");
                }
            }
        }
    }
}

#[test]
fn who_leaves_for_user_mode_is_idle_no_more() {
    // The idle task runs to the end of the stay, or events are missing from within it.
    let mut w = one_interrupt(Ask::Purge);
    w.targets[0].marks = vec![
        at(1, Mark::Exit),
        at(2, Mark::Own),
        at(3, Mark::Idle(true)),
        at(900, Mark::Enter),
        at(1500, Mark::Exit),
        at(1500, Mark::Own),
        at(1600, Mark::Enter),
    ];
    w.calls[0].irq = 0;
    for (queued, pending) in [(500, 400), (1000, 500)] {
        w.calls[0].queued_ns = queued * US;
        for played in run(&w, "ct-late") {
            assert_eq!(played.spared, [true], "{queued}");
            // From idle it comes into the kernel on its way out.
            let found = played.cpus[0].pending_ns;
            assert!(found.abs_diff(pending * US) <= 3 * US, "{queued}: {found}");
        }
    }
}

#[test]
fn entry_code_that_never_ends_is_said_and_not_waited_for() {
    let text = "policy stuck\n  \"Never comes in.\"\n  var v : 1 bit, per cpu, starts 0\n\n\
                ct_enter\n  while v == 0\n    lfence\n";
    let played = run_text(&one_interrupt(Ask::Purge), &parse("stuck.policy", text).unwrap(), true);
    assert!(played.endless);
    // IPI everybody and wait, in entry code: nobody could answer.
    let text = "policy waits\n  \"Asks everybody.\"\n\nct_enter\n  ipi others, flush_handler\n  await acks\n";
    let refused = load_with(&parse("waits.policy", text).unwrap(), &[], Features::PTI_PCID).unwrap_err();
    assert!(refused.to_string().contains("waits here for other CPUs"), "{refused}");
}

/// A random recording that a kernel could have made.
fn random(draws: &mut Draws) -> Workload {
    let mut w = recording(Vec::new(), &[]);
    let (mut now, mut irq) = (10_u64, 0);
    for _ in 0..draws.below(40) {
        now += 1 + draws.below(8);
        let begin = now;
        let mut inner = Vec::new();
        let asks =
            [Ask::Purge, Ask::Unmap, Ask::Tables, Ask::Rights, Ask::Kernel, Ask::Sync, Ask::User, Ask::Other];
        for _ in 0..=draws.below(3) {
            if draws.below(2) == 0 {
                inner.push(at(now, Mark::Own));
                now += draws.below(5);
                continue;
            }
            irq += 1;
            let queued = now.saturating_sub(draws.below(4));
            let place = w.calls.len();
            w.calls.push(Call { cpu: 1, queued_ns: queued * US, guessed: false, irq, counted: true });
            w.requests.push(Request {
                sender: (draws.below(4) > 0).then_some(0),
                ask: asks[draws.below(8) as usize],
                full: draws.below(2) == 0,
                complete: true,
                line: place as u64,
                calls: place..place + 1,
            });
            let end = now + draws.below(4);
            inner.push(calls(now, irq, end));
            now = end;
        }
        w.targets[0].marks.push(at(begin, Mark::Exit));
        w.targets[0].marks.extend(inner);
        now += draws.below(3);
        w.targets[0].marks.push(at(now, Mark::Enter));
        if draws.below(12) == 0 {
            w.targets[0].marks.push(at(now, Mark::Lost));
        }
    }
    w
}

#[test]
fn mainline_gives_random_recordings_back_and_figures_of_every_policy_agree_with_themselves() {
    let mut spared = [0_usize; 2];
    for seed in 0..60 {
        let w = random(&mut Draws::new(seed, 0, 0));
        for row in POLICIES {
            for (i, played) in run(&w, row.id).into_iter().enumerate() {
                let cpu = played.cpus[0];
                let gone = played.spared.iter().filter(|s| **s).count();
                assert_eq!((played.broken, played.endless), (0, false), "{} {seed}", row.id);
                assert!(cpu.gone_interrupts as usize <= gone, "{} {seed}", row.id);
                assert!(cpu.gone_entries as usize <= w.targets[0].marks.len() / 2);
                assert!(cpu.pending_longest_ns <= cpu.pending_ns);
                if row.id == "ipi" || row.id == "lazy-tune" {
                    assert_eq!((gone, cpu.gone_interrupts, cpu.gone_entries), (0, 0, 0), "{seed}");
                    assert_eq!((played.more_calls, cpu.more_interrupts, cpu.pending_ns), (0, 0, 0), "{seed}");
                } else {
                    spared[i] += gone;
                }
            }
        }
    }
    assert!(spared[0] > spared[1] && spared[1] > 1000, "{spared:?}");
}

#[test]
fn a_flush_out_of_idle_counts_for_a_request_that_is_not_over_yet() {
    // CPU 1 is idle and left out by the purge, which waits for CPU 2; meanwhile a call that cannot be deferred wakes it.
    let idle = vec![
        at(1, Mark::Exit),
        at(2, Mark::Own),
        at(10, Mark::Idle(true)),
        calls(130, 1, 140),
        at(1000, Mark::Idle(false)),
        at(1010, Mark::Enter),
    ];
    let busy = vec![at(50, Mark::Exit), at(50, Mark::Own), calls(200, 1, 210), at(220, Mark::Enter)];
    let mut w = recording(idle, &[(Ask::Purge, 100, 0), (Ask::Purge, 101, 1), (Ask::Tables, 120, 1)]);
    w.cpus = 4;
    w.targets.push(Target { cpu: 2, housekeeping: false, marks: busy });
    w.calls[1].cpu = 2;
    w.requests.remove(1);
    w.requests[0].calls = 0..2;
    (w.requests[1].sender, w.requests[1].complete) = (Some(3), false);
    for played in run(&w, "ct-late") {
        assert_eq!(played.spared, [true, false, false]);
        assert_eq!((played.cpus[0].pending_ns, played.cpus[0].calls_ns), (0, 10 * US));
    }
    // Without it the purge is over at 200, and CPU 1 owes its flush from when it was left out until it wakes.
    w.requests.pop();
    for played in run(&w, "ct-late") {
        assert!(played.cpus[0].pending_ns.abs_diff(900 * US) <= 3 * US, "{}", played.cpus[0].pending_ns);
        assert_eq!(played.cpus[0].gone_interrupts, 1);
    }
}

#[test]
fn an_interrupt_out_of_idle_is_over_at_its_end() {
    let marks = vec![
        at(1, Mark::Exit),
        at(2, Mark::Own),
        at(10, Mark::Idle(true)),
        at(100, Mark::OwnIrq { end_ns: 120 * US }),
        at(300, Mark::OwnIrq { end_ns: 320 * US }),
        at(900, Mark::Idle(false)),
        at(910, Mark::Enter),
    ];
    for (queued, left_out) in [(50, true), (110, false), (200, true), (310, false), (400, true), (905, false)]
    {
        let w = recording(marks.clone(), &[(Ask::Purge, queued, 0)]);
        assert_eq!(spared(&w, "ct-late"), [usize::from(left_out); 2], "{queued}");
        assert_eq!(spared(&w, "coalesce-v7"), [0, 0], "{queued}");
    }
}

#[test]
fn an_entry_at_the_moment_of_an_interrupt_that_was_not_recorded_comes_first() {
    let text = "policy twice\n  \"A sync for every flush.\"\n\nflush_kernel_range\n  flush_kernel_now\n  flush_kernel_now\n";
    let file = parse("twice.policy", text).unwrap();
    // The second call is queued at 1011 and taken at 1022; in favour an entry is when it was recorded.
    for (entry, entries) in [(1021, 0), (1022, 0), (1023, 1)] {
        let mut w = one_interrupt(Ask::Purge);
        w.margin_ns = 0;
        let stay = [at(entry, Mark::Exit), at(entry, Mark::Own), at(entry + 9, Mark::Enter)];
        w.targets[0].marks.splice(5..5, stay);
        let cpu = run_text(&w, &file, true).cpus[0];
        assert_eq!((cpu.more_interrupts, cpu.more_entries), (1, entries), "{entry}");
    }
}

#[test]
fn a_request_waits_where_its_own_flush_or_sync_is_owed_and_not_where_another_is() {
    let text = "policy both\n  \"Syncs wait, flushes are broadcast.\"\n  needs invlpgb\n  needs context_tracking\n  \
                based on text-defer-v7\n\nflush_kernel_range\n  if range is full\n    invlpgb all\n  else\n    \
                invlpgb range\n  tlbsync\n";
    let file = parse("both.policy", text).unwrap();
    let marks = vec![
        at(1, Mark::Exit),
        at(5, Mark::Enter),
        at(1010, Mark::Exit),
        calls(1011, 1, 1015),
        at(1016, Mark::Enter),
        at(2010, Mark::Exit),
        calls(2011, 2, 2015),
        at(2016, Mark::Enter),
        at(5000, Mark::Exit),
        at(5000, Mark::Own),
        at(5010, Mark::Enter),
    ];
    let (one, two) =
        (vec![(1000 * US, 1), (5000 * US, 0)], vec![(1000 * US, 1), (2000 * US, 2), (5000 * US, 0)]);
    for (second, full, levels) in
        [(Ask::Purge, true, &one), (Ask::Purge, false, &one), (Ask::Sync, true, &two)]
    {
        let mut w = recording(marks.clone(), &[(Ask::Sync, 1000, 1), (second, 2000, 2)]);
        w.requests[1].full = full;
        w.margin_ns = 0;
        let variant = Variant { favour: true, unknown: Ask::Purge, tables: false, levels: true };
        let played = run_file(&w, &file, variant);
        assert_eq!(played.spared, [true, true], "{second:?}");
        assert_eq!(played.levels, std::slice::from_ref(levels), "{second:?} {full}");
    }
}
