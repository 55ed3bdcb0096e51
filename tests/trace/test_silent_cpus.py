"""An isolated CPU of which nothing was recorded: quiet, or not traced, and what others sent it decides."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_trace_kinds import line

import tlbcore as tc

ARM_IPIS = (
    "Function call interrupts",
    "Rescheduling interrupts",
    "IRQ work interrupts",
    "Timer broadcast interrupts",
)


def shown_by_cpu_0(*, calls: bool = True, reschedules: bool = True, arm: bool = False) -> str:
    """What CPU 0 shows from 1 s to 10 s: timers, and interrupts of others by choice."""
    vectors = [
        "local_timer",
        *(["call_function_single"] if calls else []),
        *(["reschedule"] if reschedules else []),
    ]
    names = [f"{vector}_{end}: vector=1" for vector in vectors for end in ("entry", "exit")]
    if arm:
        names = [f"ipi_{end}: ({what})" for what in ARM_IPIS[:2] for end in ("entry", "exit")]
    return "".join(line(1.0 + i / 1e6, name, cpu=0) for i, name in enumerate(names))


END = line(10.0, "user_enter: ", cpu=1)
NOTED = "# tlbcore isolated | 2\n# tlbcore event | irq_vectors/call_function_single_entry\n"


def sent(at: float, event: str) -> str:
    return line(at, event, cpu=1, task="x-9")


CALL = "csd_queue_cpu: cpu=2 callsite=x+0x1/0x2 func=ipi_mb csd=aa"
IPI = "ipi_send_cpu: cpu={} callsite={} callback={}"
KICK = IPI.format(2, "native_smp_send_reschedule+0x1/0x2", "0x0")
CALL_IPI = IPI.format(2, "x+0x1/0x2", "generic_smp_call_function_single_interrupt+0x0/0x20")
MASK_IPI = CALL_IPI.replace("ipi_send_cpu: cpu=2", "ipi_send_cpumask: cpumask=00000006")


def raised(what: str, mask: str = "00000004") -> str:
    return f"ipi_raise: target_mask={mask} ({what})"


def known(tmp_path: Path, text: str) -> tuple[dict[str, str], str]:
    path = tmp_path / "trace.txt"
    path.write_text("# tracer: nop\n" + text)
    explanation = tc.explain(tc.read_trace(path, isolated="2"))
    (cpu,) = explanation.trace.figures["report"]["isolated"]
    states = {kind: cpu["knowledge"][kind]["state"] for kind in ("calls", "reschedules", "timers")}
    return {**states, "interrupts": cpu["interrupts_known"]}, " ".join(str(explanation).split())


@pytest.mark.parametrize("event", [CALL, KICK, CALL_IPI, MASK_IPI])
@pytest.mark.parametrize("notes", ["", NOTED])
def test_a_silent_cpu_that_was_sent_what_others_show_is_not_recorded(tmp_path: Path, event: str, notes: str):
    states, said = known(tmp_path, notes + shown_by_cpu_0() + sent(5.0, event) + END)

    assert set(states.values()) == {"not_recorded"}
    assert "CPU 2: whether it was interrupted is not recorded" in said
    assert "not interrupted" not in said


@pytest.mark.parametrize("what", ARM_IPIS)
def test_an_ipi_of_arm64_is_a_call_or_a_reschedule_or_neither(tmp_path: Path, what: str):
    states, _ = known(tmp_path, shown_by_cpu_0(arm=True) + sent(5.0, raised(what)) + END)

    assert states["calls"] == ("not_recorded" if what in ARM_IPIS[:2] else "in_part")


@pytest.mark.parametrize(
    ("at", "events"),
    [
        (5.0, ()),
        (
            5.0,
            (CALL.replace("cpu=2", "cpu=3"), KICK.replace("cpu=2", "cpu=3"), raised(ARM_IPIS[0], "00000008")),
        ),
        (5.0, (IPI.format(2, "x+0x1/0x2", "irq_work_run+0x0/0x20"),)),  # what else one CPU may send another
        (9.9, (CALL, KICK)),  # on its way when the recording ends
        (9.999, (CALL_IPI,)),
    ],
)
@pytest.mark.parametrize("notes", ["", NOTED])
def test_a_silent_cpu_that_was_sent_nothing_was_quiet_or_not_traced(
    tmp_path: Path, at: float, events: tuple[str, ...], notes: str
):
    """Where the recorder noted whom it recorded, it was quiet."""
    states, said = known(tmp_path, notes + shown_by_cpu_0() + "".join(sent(at, e) for e in events) + END)

    assert set(states.values()) == {"recorded" if notes else "in_part"}
    assert "CPU 2: no event of any kind was recorded there: not interrupted" in said


def test_the_first_of_each_kind_decides(tmp_path: Path):
    """A call 0.1 s and a microsecond before the end was to arrive; what is sent behind it changes nothing."""
    for at, state in ((9.899999, "not_recorded"), (9.9, "in_part")):
        states, _ = known(
            tmp_path, shown_by_cpu_0() + sent(at, CALL) + sent(9.95, CALL) + sent(9.95, KICK) + END
        )
        assert states["timers"] == state
    early = sent(5.0, CALL) + sent(9.95, KICK)
    assert known(tmp_path, shown_by_cpu_0() + early + END)[0]["timers"] == "not_recorded"


@pytest.mark.parametrize(
    ("event", "shown"),
    [(CALL, {"calls": False}), (CALL_IPI, {"calls": False}), (KICK, {"reschedules": False})],
)
def test_what_no_cpu_shows_would_not_have_shown_there(tmp_path: Path, event: str, shown: dict[str, bool]):
    states, _ = known(tmp_path, shown_by_cpu_0(**shown) + sent(5.0, event) + END)

    (absent,) = shown
    assert states == {
        "calls": "in_part",
        "reschedules": "in_part",
        "timers": "in_part",
        "interrupts": "in_part",
    } | {absent: "not_recorded"}


@pytest.mark.parametrize("event", [CALL, KICK])
def test_a_cpu_with_any_event_was_traced(tmp_path: Path, event: str):
    text = shown_by_cpu_0() + line(2.0, "user_enter: ") + sent(5.0, event) + END

    assert set(known(tmp_path, text)[0].values()) == {"recorded"}


def test_a_recording_without_times_cannot_tell_what_came_last(tmp_path: Path):
    notes = "# tlbcore clock | none\n"
    assert known(tmp_path, notes + shown_by_cpu_0() + sent(9.99, CALL) + END)[0]["calls"] == "not_recorded"
