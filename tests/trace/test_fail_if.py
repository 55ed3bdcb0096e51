"""`--fail-if` at the figure itself and just beside it, by every operator, on the first CPU and on the last.

The recording is made up: on CPU 0 three timer interrupts of 4, 5 and 6 us, on CPU 3 one of 8 us, within 10 s each;
nothing on CPU 1, and CPU 2, which keeps house, shows what else was recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_trace_kinds import irq, line, switch

import tlbcore as tc
from tlbcore.cli import main
from tlbcore.trace.conditions import FIGURES, Condition

TEXT = (
    "".join(line(1.0, "user_enter: ", cpu=cpu) for cpu in (0, 1, 3))
    + "".join(irq(1.5, vector, 3, cpu=2) for vector in ("call_function", "reschedule", "local_timer"))
    + switch(1.6, "app-7", "S", "other-8", cpu=2)
    + line(1.7, "softirq_entry: vec=1 [action=TIMER]", cpu=2)
    + line(1.7, "softirq_exit: vec=1 [action=TIMER]", cpu=2)
    + irq(2.0, "local_timer", 4, cpu=0)
    + irq(3.0, "local_timer", 8, cpu=3)
    + irq(4.0, "local_timer", 5, cpu=0)
    + irq(5.0, "local_timer", 6, cpu=0)
    + "".join(line(11.0, "user_enter: ", cpu=cpu) for cpu in (0, 1, 3))
)
SIGNS = {  # below, at and above the limit
    ">": (False, False, True),
    ">=": (False, True, True),
    "==": (False, True, False),
    "<=": (True, True, False),
    "<": (True, False, False),
}


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "trace.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def trace(recording: Path) -> tc.Trace:
    return tc.read_trace(recording, isolated="0-1,3")


# Figure, and its value on CPUs 0, 1 and 3: counts, 3,600 s / 10 s times as many an hour, times in the figure's unit.
VALUES = {
    "interrupts": (3, 0, 1),
    "per_hour": (1080, 0, 360),
    "timer": (3, 0, 1),
    "timer.per_hour": (1080, 0, 360),
    "timer.ms": (0.015, 0, 0.008),
    "timer.longest_us": (6, 0, 8),
    "longest_us": (6, 0, 8),
    "taken_ms": (0.015, 0, 0.008),
    "taken_percent": (0.00015, 0, 0.00008),
}


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("figure", VALUES)
def test_a_condition_is_met_on_the_cpus_where_it_holds(figure: str, sign: str, trace: tc.Trace) -> None:
    for place in range(3):
        value = VALUES[figure][place]
        for limit, expected in zip(
            (value * 1.01 + 1e-6, value, value * 0.99 - 1e-6), SIGNS[sign], strict=True
        ):
            if limit == value and value % 1:
                continue  # a sum of times is no number that can be written down
            condition = Condition.parse(f"{figure} {sign} {limit:.9g}")
            met = [int(found.split()[1].rstrip(":")) for found in condition.met(trace)]
            wanted = (0, 1, 3)[place]
            assert (wanted in met) is expected, f"{condition} on CPU {wanted}"


@pytest.mark.parametrize(
    ("condition", "status", "said"),
    [
        ("interrupts > 2", 1, "CPU 0: interrupts = 3 > 2"),
        ("interrupts > 3", 0, None),
        ("interrupts >= 3", 1, "CPU 0: interrupts = 3 >= 3"),
        ("longest_us >= 8", 1, "CPU 3: longest_us = 8 >= 8"),
        ("longest_us > 8", 0, None),
        ("interrupts < 1", 1, "CPU 1: interrupts = 0 < 1"),
        ("interrupts < 0", 0, None),
        ("interrupts <= 0", 1, "CPU 1: interrupts = 0 <= 0"),
        ("interrupts == 2", 0, None),
        ("interrupts == 1", 1, "CPU 3: interrupts = 1 == 1"),
        ("taken_percent > 1e-4", 1, "CPU 0: taken_percent = 0.00015 > 0.0001"),
        ("taken_percent > 1.6e-4", 0, None),
        ("per_hour > 1079", 1, "CPU 0: per_hour = 1,080 > 1079"),
        ("per_hour > 1080", 0, None),
    ],
)
def test_the_exit_status_follows(
    condition: str, status: int, said: str | None, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(recording), "--isolated", "0-1,3", "--fail-if", condition]) == status
    shown = [
        one.removeprefix("fail-if: ") for one in capsys.readouterr().out.splitlines() if "fail-if" in one
    ]
    assert len(shown) == status
    assert said is None or said in shown


@pytest.mark.parametrize(
    ("condition", "is_open"),
    [
        ("interrupts == 5", True),  # perhaps it was five
        ("interrupts == 0", True),
        ("interrupts > 5", True),
        ("interrupts >= 0", False),  # whatever it was
        ("interrupts < 0", False),
        ("interrupts == -1", False),
    ],
)
def test_what_was_not_recorded_is_open_where_the_condition_could_hold(
    condition: str, is_open: bool, tmp_path: Path
) -> None:
    """`==` was taken for false wherever it is false at both ends of what the figure may be."""
    path = tmp_path / "trace.txt"
    path.write_text(switch(1.0, "app-7", "R", "backup.sh-900") + switch(9.0, "backup.sh-900", "S", "app-7"))
    found = Condition.parse(condition)
    trace = tc.read_trace(path, isolated="2")
    assert bool(found.open(trace)) is is_open
    assert bool(found.met(trace)) is (condition == "interrupts >= 0")


def decided(text: str, condition: str, tmp_path: Path) -> tuple[bool, str]:
    """Return whether a condition surely holds on CPU 2, and why that is open, if it is."""
    path = tmp_path / "trace.txt"
    path.write_text(text)
    found, trace = Condition.parse(condition), tc.read_trace(path, isolated="2")
    why = found.open(trace)
    return bool(found.met(trace)), why[0] if why else ""


# Everything was recorded, on CPU 0, and CPU 2 is in user mode from 1 s to 11 s.
KNOWN = (
    line(1.0, "user_enter: ")
    + "".join(irq(1.5, vector, 3, cpu=0) for vector in ("call_function", "reschedule", "local_timer"))
    + switch(1.6, "init-1", "S", "other-8", cpu=0)
    + line(11.0, "user_enter: ")
)


@pytest.mark.parametrize(
    ("vague", "condition", "is_open"),
    [
        ("call_function", "user_shootdown == 0", True),  # that call may have been one
        ("call_function", "vmalloc_purge == 0", True),
        ("call_function", "call_unknown == 1", False),
        ("call_function", "timer == 0", False),  # no call is a timer
        ("call_function", "reschedule == 0", False),
        ("call_function", "kworker == 0", False),  # nor a task
        ("reschedule", "wakeup == 0", True),
        ("reschedule", "signal == 0", True),
        ("reschedule", "user_shootdown == 0", False),
        ("local_timer", "scheduler_tick == 0", True),
        ("local_timer", "user_shootdown == 0", False),
        ("local_timer", "timer == 1", False),
    ],
)
def test_a_vaguer_cause_may_be_the_one_that_is_asked_about(
    vague: str, condition: str, is_open: bool, tmp_path: Path
) -> None:
    met, why = decided(
        KNOWN.replace(line(11.0, "user_enter: "), irq(5.0, vague, 3) + line(11.0, "user_enter: ")),
        condition,
        tmp_path,
    )
    assert met is not is_open
    assert bool(why) is is_open
    assert not why or why.endswith("some interrupts have a cause that is not recorded")


def test_less_than_a_second_gives_no_rate(tmp_path: Path) -> None:
    def text(last: float) -> str:
        return (
            KNOWN.replace(line(11.0, "user_enter: "), "")
            + irq(1.7, "local_timer", 3)
            + line(last, "user_enter: ")
        )

    for figure in ("per_hour", "timer.per_hour"):
        met, why = decided(text(1.9), f"{figure} > 1", tmp_path)
        assert (met, why.endswith("less than a second was recorded")) == (False, True), why
        assert decided(text(2.1), f"{figure} > 1", tmp_path) == (True, "")
    assert decided(text(1.9), "interrupts == 1", tmp_path) == (True, ""), "a count needs no second"


SWITCHED = switch(1.6, "init-1", "S", "other-8", cpu=0)
SOFT = "".join(line(1.7, f"softirq_{which}: vec=1 [action=TIMER]", cpu=0) for which in ("entry", "exit"))


@pytest.mark.parametrize(
    ("left_out", "open_by"),
    [
        ("", {}),
        (SWITCHED, {"times": "tasks (sched:sched_switch)", "kworker == 0": "tasks (sched:sched_switch)"}),
        (
            SOFT,
            {
                "times": "soft interrupts (irq:softirq_entry)",
                "softirq == 0": "soft interrupts (irq:softirq_entry)",
            },
        ),
    ],
)
def test_times_are_decided_where_tasks_and_soft_interrupts_were_recorded(
    left_out: str, open_by: dict[str, str], tmp_path: Path
) -> None:
    """Each takes the CPU beside interrupts, and any may be what took it for longest."""
    whole = KNOWN.replace(SWITCHED, SWITCHED + SOFT)
    text = whole.replace(left_out, "") if left_out else whole
    assert SOFT in whole
    for condition in (
        "kworker == 0",
        "softirq == 0",
        "taken_ms == 0",
        "longest_us == 0",
        "taken_percent == 0",
    ):
        missing = open_by.get("times" if condition[0] in "tl" else condition, "")
        met, why = decided(text, condition, tmp_path)
        assert met is not bool(missing), condition
        assert why.endswith(f"no events of {missing}") if missing else not why, why
    assert decided(text, "interrupts == 0", tmp_path) == (True, "")


@pytest.mark.parametrize(
    ("cause", "event", "missing"),
    [
        ("device", "irq_handler_{}: irq=1 name=eth0", "device interrupts (irq:irq_handler_entry)"),
        ("irq_work", "irq_work_{}: vector=246", "interrupt work (irq_vectors:irq_work*, ipi:ipi_entry)"),
        ("platform_ipi", "", ""),  # one of the vectors
    ],
)
def test_interrupts_that_have_an_event_of_their_own_are_decided_by_it(
    cause: str, event: str, missing: str, tmp_path: Path
) -> None:
    for condition in (f"{cause} == 0", f"{cause}.ms == 0"):
        met, why = decided(KNOWN, condition, tmp_path)
        assert met is not bool(missing)
        assert why.endswith(f"no events of {missing}") if missing else not why
        if missing:  # another CPU shows that the event was on
            seen = "".join(line(1.7, event.format(which), cpu=0) for which in ("entry", "exit"))
            assert decided(KNOWN.replace(SWITCHED, SWITCHED + seen), condition, tmp_path) == (True, "")


def test_an_open_condition_says_what_is_known_all_the_same(tmp_path: Path) -> None:
    text = irq(1.0, "call_function", 5) + irq(5.0, "reschedule", 5)
    _, why = decided(text, "interrupts > 5", tmp_path)
    assert "interrupts is not recorded (at least 2): no events of " in why
    _, why = decided(text, "taken_ms > 5", tmp_path)
    assert "taken_ms is not recorded (at least 0.01): " in why
    _, why = decided(KNOWN, "smi == 0", tmp_path)
    assert "smi is not recorded: " in why, "firmware has events of its own"


def test_lost_events_are_counted_where_their_number_is_known(tmp_path: Path) -> None:
    lost = "CPU:2 [LOST 5 EVENTS]\n"
    for condition, met in {
        "lost_events == 5": True,
        "lost_events > 5": False,
        "lost_events >= 5": True,
    }.items():
        assert decided(KNOWN.replace(line(11.0, "user_enter: "), lost + line(11.0, "user_enter: ")), condition,
                       tmp_path) == (met, "")  # fmt: skip
    assert decided(KNOWN, "lost_events == 0", tmp_path) == (True, "")


def test_of_holes_that_are_not_all_kept_the_condition_is_open(tmp_path: Path) -> None:
    text = "".join(f"CPU:2 [LOST 2 EVENTS]\n{line(11.0 + i / 1000, 'user_enter: ')}" for i in range(1001))
    text = KNOWN.replace(line(11.0, "user_enter: "), text)
    met, why = decided(text, "lost_events > 2001", tmp_path)
    assert not met
    assert why.endswith(
        "lost_events is not recorded (at least 2,000): only the first 1,000 of 1,001 holes are kept"
    )
    assert decided(text, "lost_events >= 2000", tmp_path) == (True, "")


@pytest.mark.parametrize(
    ("condition", "trace", "said"),
    [
        ("lost_events > 5", lambda: made_up(holes=[("lost", 5), ("lost", None)]),
         "lost_events is not recorded (at least 5): how many events each hole has lost is not recorded"),
        ("lost_events > 20", lambda: made_up(holes=[("lost", 5)] * 3, more_holes=1),
         "lost_events is not recorded (at least 15): only the first 3 of 4 holes are kept"),
        ("calls > 5", lambda: made_up(),
         "calls is not recorded (at least 5): no events of functions (csd_function_entry)"),
        ("entries > 4", lambda: made_up(),
         "entries is not recorded (at least 4): no events of user mode (user_enter, user_exit)"),
        ("calls > 5", lambda: made_up([("lost", 7)], ["probes"]),
         "calls is not recorded (at least 5): events were lost"),
        ("entries > 4", lambda: made_up([("lost", 7)], ["user"]),
         "entries is not recorded (at least 4): events were lost"),
        ("entries > 4", lambda: made_up(kinds=["user"], events=0, knowledge=UNTRACED),
         "entries is not recorded (at least 4): the CPU was not traced"),
        ("interrupts > 4", lambda: made_up([("lost", 7)], knowledge=dict.fromkeys(KINDS, known("in_part"))),
         "interrupts is not recorded: events were lost"),
    ],
)  # fmt: skip
def test_what_is_open_says_which_events_would_decide_it(condition: str, trace: Any, said: str) -> None:
    assert Condition.parse(condition).open(trace()) == [f"CPU 3: {said}"]


def test_stolen_time_is_not_recorded_without_copies_of_proc_stat(tmp_path: Path) -> None:
    met, why = decided(KNOWN, "stolen_ms > 0", tmp_path)
    assert not met
    assert why.endswith("no copies of /proc/stat (tlbcore record)")


def known(state: str) -> dict[str, Any]:
    return {"state": state, "events": "some"}


KINDS = ("calls", "reschedules", "timers", "tasks", "softirqs", "nmis")
UNTRACED = {kind: known("not_recorded") for kind in KINDS}


def made_up(
    holes: Sequence[tuple[str, int | None]] = (),
    kinds: Sequence[str] = (),
    more_holes: int = 0,
    hole_of: int | None = 3,
    **of_cpu: object,
) -> Any:
    """A recording with one isolated CPU, of which everything is known and nothing was seen, but for what is given."""
    cpu = {
        "cpu": 3, "seconds": 10.0, "events": 5, "sums": False, "interrupts": 0, "interrupts_per_hour": 0.0,
        "entries": 4, "interference": [], "longest": None, "taken_ms": 0.0, "taken_share": 0.0,
        "calls_by_function": {"f": 2, "g": 3}, "stolen_ms": None, "stolen_ms_range": None,
        "knowledge": {kind: known("recorded") for kind in KINDS},
    } | of_cpu  # fmt: skip
    counts = {kind: int(kind in kinds) for kind in ("csd_entry", "probes", "user")}
    return SimpleNamespace(
        figures={
            "report": {"isolated": [cpu], "kinds": counts},
            "holes": [{"kind": kind, "events": events, "cpu": hole_of} for kind, events in holes],
            "hole_count": len(holes) + more_holes,
        }
    )


@pytest.mark.parametrize(
    ("condition", "trace", "met", "is_open"),
    [
        ("stolen_ms < 0", made_up(), False, False),  # whatever was stolen, it was no less than nothing
        ("stolen_ms >= 0", made_up(), True, False),
        ("stolen_ms == 30", made_up(stolen_ms=20, stolen_ms_range=(10.0, 30.0)), False, True),
        ("stolen_ms == 10", made_up(stolen_ms=20, stolen_ms_range=(10.0, 30.0)), False, True),
        ("stolen_ms == 31", made_up(stolen_ms=20, stolen_ms_range=(10.0, 30.0)), False, False),
        ("lost_events == 5", made_up(holes=[("lost", 5), ("cut", 9)]), True, False),
        ("lost_events > 5", made_up(holes=[("lost", 5), ("lost", None)]), False, True),
        ("lost_events == 12", made_up(holes=[("lost", 5), ("dropped", 7)]), True, False),
        ("lost_events > 5", made_up(holes=[("lost", 5), ("dropped", None)]), False, False),
        # Of a thousand holes and more only the first are kept: what they lost is the least there may be.
        ("lost_events == 5", made_up(holes=[("lost", 5)], more_holes=1), False, True),
        ("lost_events > 5", made_up(holes=[("lost", 5)], more_holes=1), False, True),
        ("lost_events >= 5", made_up(holes=[("lost", 5)], more_holes=1), True, False),
        ("lost_events < 5", made_up(holes=[("lost", 5)], more_holes=1), False, False),
        ("calls == 5", made_up(kinds=["csd_entry"]), True, False),
        ("calls == 5", made_up(kinds=["probes"]), True, False),
        ("calls == 5", made_up(), False, True),
        ("entries == 4", made_up(kinds=["user"]), True, False),
        ("entries == 4", made_up(), False, True),
        # Lost events may have been calls and entries: of this CPU, of one that is not named, of holes not kept.
        *((f"{figure} {sign}", made_up([("lost", 7)], ["csd_entry", "user"], hole_of=cpu), met, is_open)
          for figure, least in (("calls", 5), ("entries", 4))
          for sign, cpu, met, is_open in ((f"== {least}", 3, False, True), (f"> {least}", 3, False, True),
                                          (f"> {least - 1}", 3, True, False), (f"< {least}", 3, False, False),
                                          (f"== {least}", None, False, True), (f"== {least}", 2, True, False))),
        ("calls == 5", made_up([("buffer_started", None)], ["csd_entry"]), True, False),
        ("calls == 5", made_up([("lost", 7)], ["csd_entry"], 1, hole_of=2), False, True),
        # A CPU without an event was quiet, unless something was sent to it.
        ("calls == 0", made_up(kinds=["csd_entry"], events=0, calls_by_function={}), True, False),
        ("calls == 0", made_up(kinds=["csd_entry"], events=0, calls_by_function={}, knowledge=UNTRACED), False, True),
        ("entries == 0", made_up(kinds=["user"], events=0, entries=0, knowledge=UNTRACED), False, True),
        # An event that was on for a part of the time: a CPU without any event is quiet, another is not known.
        ("interrupts == 0", made_up(knowledge=made_up().figures["report"]["isolated"][0]["knowledge"]
                                    | {"timers": known("in_part")}), False, True),
        ("interrupts == 0", made_up(events=0, knowledge=made_up().figures["report"]["isolated"][0]["knowledge"]
                                    | {"timers": known("in_part")}), True, False),
        # Of a cause with an event whose length is not known, the time is open and the count is not.
        ("taken_ms == 0", made_up(interference=[{"cause": "timer", "n": 1, "total_ms": None, "max_us": None}]),
         False, True),
        ("timer.ms == 0", made_up(interference=[{"cause": "timer", "n": 1, "total_ms": None, "max_us": None}]),
         False, True),
        ("timer.longest_us > 3", made_up(interference=[{"cause": "timer", "n": 1, "total_ms": 0.004, "max_us": 4.0}]),
         True, False),
        ("timer == 1", made_up(interference=[{"cause": "timer", "n": 1, "total_ms": None, "max_us": None}]),
         True, False),
        # A rate takes one second, not more.
        ("timer.per_hour == 3600", made_up(seconds=1.0, interference=[{"cause": "timer", "n": 1}]), True, False),
        ("timer.per_hour == 0", made_up(seconds=0.99), False, True),
        ("per_hour == 0", made_up(interrupts_per_hour=None), False, True),
        # What osnoise measured is all of it.
        ("longest_us == 7", made_up(sums=True, longest={"us": 7.0}, taken_ms=1.5, taken_share=0.25), True, False),
        ("taken_ms == 1.5", made_up(sums=True, longest={"us": 7.0}, taken_ms=1.5, taken_share=0.25), True, False),
        ("taken_percent == 25", made_up(sums=True, longest={"us": 7.0}, taken_ms=1.5, taken_share=0.25), True, False),
        ("taken_percent == 0", made_up(taken_share=None), False, True),
    ],
)  # fmt: skip
def test_a_figure_is_decided_by_what_is_known_of_it(
    condition: str, trace: Any, met: bool, is_open: bool
) -> None:
    asked = Condition.parse(condition)
    assert (bool(asked.met(trace)), bool(asked.open(trace))) == (met, is_open)


def test_every_figure_is_tried_here_or_where_its_events_are() -> None:
    elsewhere = {"calls", "entries"}  # test_trace, test_shootdowns
    beside = {"lost_events", "stolen_ms"}  # above
    assert {name.partition(".")[0] for name in VALUES} - {"timer"} | beside | elsewhere == set(FIGURES)


@pytest.mark.parametrize(
    ("conditions", "status", "said"),
    [
        (("stolen_ms > 0",), 3, "stolen_ms is not recorded"),
        (("interrupts > 3", "stolen_ms > 0"), 3, "stolen_ms is not recorded"),
        (("interrupts > 2", "stolen_ms > 0"), 1, "CPU 0: interrupts = 3 > 2"),  # one that holds decides
        (("stolen_ms > 0", "interrupts > 2"), 1, "CPU 0: interrupts = 3 > 2"),
        (("interrupts > 3",), 0, None),
    ],
)
@pytest.mark.parametrize("json", [False, True])
def test_what_is_not_recorded_has_a_status_of_its_own(
    conditions: Sequence[str],
    status: int,
    said: str | None,
    json: bool,
    recording: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [word for condition in conditions for word in ("--fail-if", condition)]
    form = ["--json"] if json else []
    assert main(["explain", str(recording), "--isolated", "0-1,3", *form, *words]) == status
    shown = capsys.readouterr()
    told = [line for line in (shown.err if json else shown.out).splitlines() if line.startswith("fail-if: ")]
    assert bool(told) is (status > 0)
    assert all(said in line for line in told if said)
    assert "fail-if" not in (shown.out if json else shown.err), "the document stays one"


def test_an_option_of_isolated_cpus_is_refused_for_shootdowns(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["--isolated", "3"], ["--lines", "timer"], ["--fail-if", "timer > 0"]):
        assert main(["explain", str(recording), "--all-cpus", *words]) == 2
        assert f"{words[0]}: of isolated CPUs, not of shootdowns" in capsys.readouterr().err
    for words, said in (
        (["--process", "x", "--all-cpus"], "leave out --process"),
        (["--batch", "4"], "--batch predicts for --process or --all-cpus"),
        (["--machine", "skylake-sp"], "--machine predicts what --process or --all-cpus count"),
        (["--fail-if", "more"], "condition 'more' compares recordings: give two or more"),
        (["--lines", "tmer"], "did you mean 'timer'"),
        ([str(recording), "--perfetto", "x"], "--perfetto shows one recording: name one"),
        ([str(recording), "--all-cpus"], "shootdowns are counted in one recording"),
    ):
        assert main(["explain", str(recording), *words]) == 2
        assert said in capsys.readouterr().err
