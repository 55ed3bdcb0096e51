//! Marks of one CPU and their steps, by hand. What the clock cannot tell is 2 ns: in favour the kernel begins 2 ns late and
//! ends 3 ns early, against it begins 3 ns early and ends 2 ns late.

use super::*;
use Mark::{Enter, Exit, Idle, Lost, Own};

const FAVOUR: bool = true;

fn steps(favour: bool, marks: &[(u64, Mark)], served: &[(u32, u64, u64)]) -> Vec<(u64, Step)> {
    let marks =
        marks.iter().map(|(at_ns, mark)| Marked { at_ns: *at_ns, counted: true, mark: *mark }).collect();
    let target = Target { cpu: 1, housekeeping: false, marks };
    let workload = Workload { margin_ns: 2, idle_known: true, ..Workload::default() };
    let served =
        served.iter().map(|(irq, first, last)| ((1, *irq), Served { queued: (*first, *last) })).collect();
    Timeline::of(&target, &workload, favour, &served)
}

fn calls(irq: u32, end_ns: u64) -> Mark {
    Mark::Calls { irq, end_ns }
}

fn own_irq(end_ns: u64) -> Mark {
    Mark::OwnIrq { end_ns }
}

fn enter(stay: u32, irq: bool, counted: bool) -> Step {
    Step::Enter { stay, irq, counted }
}

fn arm(stay: u32, irq: u32) -> Step {
    Step::Arm { stay, irq, counted: true }
}

fn take(irq: u32, stay: u32, length_ns: u32) -> Step {
    Step::Take { irq, stay, counted: true, length_ns }
}

fn leave(stay: u32, counted: bool) -> Step {
    Step::Leave { stay, counted }
}

#[test]
fn interrupts_out_of_idle_begin_and_end_within_it() {
    let rows = [
        (
            "one by itself, one with calls, both over before idle ends",
            vec![
                (200, Idle(true)),
                (250, own_irq(260)),
                (300, calls(7, 320)),
                (400, Idle(false)),
                (500, Enter),
            ],
            vec![
                (197, Step::Idle(true)),
                (250, Step::IdleIrq(true)),
                (260, Step::IdleIrq(false)),
                (300, take(7, 0, 20)),
                (320, Step::IdleIrq(false)),
                (402, Step::Idle(false)),
                (497, leave(0, true)),
            ],
        ),
        (
            "one that idle ends with",
            vec![(200, Idle(true)), (250, own_irq(450)), (400, Idle(false)), (500, Enter)],
            vec![
                (197, Step::Idle(true)),
                (250, Step::IdleIrq(true)),
                (400, Step::IdleIrq(false)),
                (402, Step::Idle(false)),
                (497, leave(0, true)),
            ],
        ),
        (
            "one that the stay ends with, and idle too",
            vec![(200, Idle(true)), (450, own_irq(600)), (500, Enter)],
            vec![
                (197, Step::Idle(true)),
                (450, Step::IdleIrq(true)),
                (500, Step::IdleIrq(false)),
                (500, Step::Idle(false)),
                (500, leave(0, true)),
            ],
        ),
        (
            "one within another, and one that is said twice",
            vec![
                (200, Idle(true)),
                (210, Idle(true)),
                (250, own_irq(300)),
                (270, own_irq(280)),
                (500, Enter),
            ],
            vec![
                (197, Step::Idle(true)),
                (250, Step::IdleIrq(true)),
                (300, Step::IdleIrq(false)),
                (500, Step::Idle(false)),
                (500, leave(0, true)),
            ],
        ),
        (
            "none out of idle",
            vec![(250, own_irq(300)), (260, calls(4, 290)), (500, Enter)],
            vec![(260, take(4, 0, 30)), (497, leave(0, true))],
        ),
    ];
    for (what, marks, expected) in rows {
        let marks = [vec![(100, Exit), (100, Own)], marks].concat();
        let expected = [vec![(102, enter(0, false, true))], expected].concat();
        assert_eq!(steps(FAVOUR, &marks, &[]), expected, "{what}");
    }
}

#[test]
fn a_stay_is_brought_by_its_first_call_if_that_was_queued_before_it() {
    let stay = |at, end, leaves| vec![(100, Exit), (at, calls(3, end)), (leaves, Enter)];
    let rows = [
        ("nothing is known of its queueing", vec![], vec![(102, arm(0, 3)), (102, take(3, 0, 19))]),
        ("queued before", vec![(3, 90, 95)], vec![(102, arm(0, 3)), (102, take(3, 0, 19))]),
        ("queued at its beginning", vec![(3, 100, 100)], vec![(102, arm(0, 3)), (102, take(3, 0, 19))]),
        ("another's", vec![(4, 110, 110)], vec![(102, arm(0, 3)), (102, take(3, 0, 19))]),
        ("queued amid it", vec![(3, 101, 101)], vec![(102, enter(0, false, true)), (102, take(3, 0, 19))]),
        ("its last amid the interrupt", vec![(3, 90, 110)], vec![(102, arm(0, 3)), (110, take(3, 0, 19))]),
        ("its last behind the interrupt", vec![(3, 90, 140)], vec![(102, arm(0, 3)), (120, take(3, 0, 19))]),
        ("never queued", vec![(3, NEVER, NEVER)], vec![(102, arm(0, 3)), (102, take(3, 0, 19))]),
    ];
    for (what, served, expected) in rows {
        let expected = [expected, vec![(127, leave(0, true))]].concat();
        assert_eq!(steps(FAVOUR, &stay(101, 120, 130), &served), expected, "{what}");
    }
    // Behind the call it has a reason of its own: from then on it is there in any case.
    for (mark, irq) in [(Own, false), (own_irq(150), true), (Idle(true), false)] {
        let found =
            steps(FAVOUR, &[(100, Exit), (101, calls(3, 120)), (125, mark), (126, Own), (200, Enter)], &[]);
        let enters: Vec<_> = found.iter().filter(|s| matches!(s.1, Step::Enter { .. })).collect();
        assert_eq!(enters, [&(127, enter(0, irq, true))], "{mark:?}");
    }
    // By an interrupt of its own.
    let found = steps(FAVOUR, &[(100, Exit), (101, own_irq(120)), (130, Enter)], &[]);
    assert_eq!(found, [(102, enter(0, true, true)), (127, leave(0, true))]);
}

#[test]
fn what_is_not_known_is_user_mode_in_favour_and_the_kernel_against() {
    let rows = [
        (
            "two stays",
            vec![(100, Exit), (100, Own), (200, Enter), (300, Exit), (300, Own), (400, Enter)],
            vec![
                (102, enter(0, false, true)),
                (197, leave(0, true)),
                (302, enter(1, false, true)),
                (397, leave(1, true)),
            ],
            vec![
                (0, enter(0, false, false)),
                (102, leave(0, false)),
                (102, enter(1, false, true)),
                (202, leave(1, true)),
                (297, enter(2, false, true)),
                (402, leave(2, true)),
            ],
        ),
        (
            "no end",
            vec![(100, Exit), (100, Own)],
            vec![(102, enter(0, false, true))],
            vec![(0, enter(0, false, false)), (102, leave(0, false)), (102, enter(1, false, true))],
        ),
        (
            "events are lost amid a stay",
            vec![(100, Exit), (100, Own), (150, Lost), (300, Exit), (300, Own), (400, Enter)],
            vec![
                (102, enter(0, false, false)),
                (147, leave(0, false)),
                (302, enter(1, false, true)),
                (397, leave(1, true)),
            ],
            vec![
                (0, enter(0, false, false)),
                (102, leave(0, false)),
                (102, enter(1, false, true)),
                (302, leave(1, true)),
                (302, enter(2, false, true)),
                (402, leave(2, true)),
            ],
        ),
        (
            "events are lost in user mode",
            vec![(50, Enter), (150, Lost), (300, Exit), (300, Own), (400, Enter)],
            vec![(302, enter(0, false, true)), (397, leave(0, true))],
            vec![
                (0, enter(0, false, false)),
                (52, leave(0, false)),
                (147, enter(1, false, false)),
                (302, leave(1, false)),
                (302, enter(2, false, true)),
                (402, leave(2, true)),
            ],
        ),
        (
            "entries are not recorded",
            vec![(20, own_irq(40)), (60, Own), (80, calls(5, 95))],
            vec![
                (22, enter(0, true, true)),
                (37, leave(0, false)),
                (62, enter(1, false, true)),
                (62, leave(1, false)),
                (82, arm(2, 5)),
                (82, take(5, 2, 15)),
                (92, leave(2, false)),
            ],
            vec![(0, enter(0, true, false)), (80, take(5, 0, 15))],
        ),
        (
            "idle in what is not known",
            vec![(20, Idle(true)), (60, Idle(false)), (80, Own)],
            vec![
                (22, enter(0, false, false)),
                (22, Step::Idle(true)),
                (62, Step::Idle(false)),
                (62, leave(0, false)),
                (82, enter(1, false, true)),
                (82, leave(1, false)),
            ],
            vec![(0, enter(0, false, false)), (22, Step::Idle(true)), (57, Step::Idle(false))],
        ),
    ];
    for (what, marks, favour, against) in rows {
        assert_eq!(steps(FAVOUR, &marks, &[]), favour, "in favour, {what}");
        assert_eq!(steps(!FAVOUR, &marks, &[]), against, "against, {what}");
    }
}
