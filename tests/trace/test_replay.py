"""Replay is simulation with a recorded workload: a policy is what its programs do (issue 15)."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import tlbcore as tc
from tlbcore.cli import main
from tlbcore.trace import replayed

DATA = Path(__file__).parents[1] / "data"
W7 = DATA / "p4.w7.trace.txt.xz"
RECORDINGS = sorted(path for path in DATA.glob("*.trace*.xz"))

ALWAYS = ["ipi others, flush_handler", "flush_here", "await acks"]


class Text:
    """A recording as ftrace text: CPU 2 is isolated, CPU 0 asks."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, us: float, cpu: int, what: str, task: str = "app-102") -> None:
        at = f"{1 + us / 1e6:.6f}"
        self.lines.append(f"  {task:>20} [{cpu:03d}] d..1. {at}: {what}\n")

    def queue(self, us: float, function: str, call: int, *, task: str = "kworker/0:1-50") -> None:
        where = "callsite=smp_call_function_many_cond+0x12/0x500"
        self.add(us, 0, f"csd_queue_cpu: cpu=2 {where} func={function}+0x0/0x30 csd={call:016x}", task)
        handler = "callback=generic_smp_call_function_single_interrupt+0x0/0x20"
        self.add(us, 0, f"ipi_send_cpu: cpu=2 {where} {handler}", task)

    def purged(self, us: float) -> None:
        # Without a probe a worker that finds the list full is what shows the drain.
        self.add(us - 20, 0, "free_vmap_area_noflush: va_start=0xffffc90000000000 nr_lazy=9 nr_lazy_max=8")
        areas = "start=0xffffc90000000000 end=0xffffc90000100000 num_purged=32"
        self.add(us, 0, f"purge_vmap_area_lazy: {areas}", "kworker/0:1-50")

    def run(self, us: float, function: str, call: int, *, length: float = 4) -> None:
        self.add(us, 2, "call_function_entry: vector=252")
        self.add(us + 1, 2, f"csd_function_entry: func={function}+0x0/0x30 csd={call:016x}")
        self.add(us + length - 1, 2, f"csd_function_exit: func={function}+0x0/0x30 csd={call:016x}")
        self.add(us + length, 2, "call_function_exit: vector=252")

    def read(self, path: Path) -> tc.Trace:
        path.write_text("# tracer: nop\n#\n" + "".join(sorted(self.lines, key=lambda line: line[30:])))
        return tc.read_trace(path, isolated=[2])


FULL = "do_flush_tlb_all"


def purge_in_user_mode(path: Path, function: str = FULL, *, modes: bool = True) -> tc.Trace:
    text = Text()
    if modes:
        for us, what in [(0, "user_exit: "), (5, "user_enter: "), (1004, "user_exit: ")]:
            text.add(us, 2, what)
    text.queue(1000, function, 0xA)
    text.run(1005, function, 0xA)
    if modes:
        text.add(1010, 2, "user_enter: ")
    text.purged(1015)
    for us, what in [(5000, "user_exit: "), (5005, "user_enter: ")] if modes else []:
        text.add(us, 2, what)
    text.add(6000, 0, "sched_process_fork: comm=a pid=5 child_comm=a child_pid=6", "a-5")
    return text.read(path)


def figures(outcome: dict) -> dict:
    same = ("deferred", "remaining", "interrupts", "deferred_by_class", "cpus")
    return {key: outcome[key] for key in same}


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name.removesuffix(".xz"))
def test_mainline_gives_the_recording_back(path: Path):
    trace = tc.read_trace(path)

    (outcome,) = tc.replay(trace, ["ipi"]).outcomes

    assert (outcome["deferred"]["high"], outcome["more_calls"]["high"]) == (0, 0)
    assert outcome["not_modelled"] == []
    recorded = trace.figures["report"]["isolated"]
    for cpu, was in zip(outcome["cpus"], recorded, strict=True):
        for figure in ("interrupts", "entries"):
            assert cpu[figure] == {"low": was[figure], "high": was[figure]}
        calls = sum(was["calls_by_class"].values()) + was["interrupts_by_cause"].get("call_unknown", 0)
        assert cpu["remaining"] == {"low": calls, "high": calls}
        assert cpu["exposure_s"]["high"] == 0


def test_every_policy_is_replayed_but_the_one_that_recordings_say_nothing_about():
    assert set(tc.policies) - {"lazy-tune"} == set(replayed.replayable())


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name.removesuffix(".xz"))
def test_low_is_never_above_high(path: Path):
    table = tc.replay(tc.read_trace(path), replayed.replayable()).table

    for name in table:
        if name.endswith(("_low", "_low_s")):
            assert (table[name] <= table[name.replace("_low", "_high")]).all(), name


def test_an_edited_policy_replays_as_its_text_and_not_as_its_name():
    trace = tc.read_trace(W7)
    always = tc.policies["coalesce-v7"].replace(name="coalesce-v7-always", flush_kernel_range=ALWAYS)

    built_in, edited = tc.replay(trace, ["coalesce-v7", always]).outcomes

    assert built_in["deferred"]["low"] > 200
    assert edited["deferred"] == {"low": 0, "high": 0}
    # Its entries still flush, all of them.
    assert [c["entry_flushes"] for c in edited["cpus"]] == [c["entries"] for c in edited["cpus"]]
    simulated = tc.simulate(tc.scenarios.spawn_storm(duration_s=0.2), policy=always, machine="skylake-sp")
    assert simulated.total("deferrals") == 0, "as simulated"


def test_a_file_and_an_object_replay_as_what_their_programs_do(tmp_path: Path, capsys):
    trace = tc.read_trace(W7)
    text = tc.policies["coalesce-v7"].text
    file = tmp_path / "mine.policy"
    file.write_text(text.replace("policy coalesce-v7", "policy mine"))
    renamed = tc.Policy(text=file.read_text())

    by_name, by_path, by_text = (tc.replay(trace, [p]).outcomes[0] for p in ("coalesce-v7", file, renamed))

    assert figures(by_name) == figures(by_path) == figures(by_text)
    assert by_path["policy"] == "mine"
    assert main(["replay", str(W7), "--policy", "ipi", "--policy", str(file), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [p["policy"] for p in document["policies"]] == ["ipi", "mine"]
    assert figures(document["policies"][1]) == figures(by_name)


def test_a_call_in_the_handler_of_a_call_that_is_not_sent_finds_user_mode(tmp_path: Path):
    """Feedback: the interrupts that a policy removes are no time in the kernel."""
    text = Text()
    for us, what in [(0, "user_exit: "), (5, "user_enter: "), (1010, "user_exit: "), (1050, "user_enter: ")]:
        text.add(us, 2, what)
    text.queue(1000, FULL, 0xA)
    text.run(1011, FULL, 0xA, length=15)
    text.purged(1012)
    text.queue(1020, FULL, 0xB, task="kworker/0:2-51")
    text.run(1030, FULL, 0xB, length=15)
    text.add(1044, 0, "free_vmap_area_noflush: va_start=0x1 nr_lazy=9 nr_lazy_max=8")
    text.add(1046, 0, "purge_vmap_area_lazy: start=0x1 end=0x2 num_purged=3", "kworker/0:2-51")
    trace = text.read(tmp_path / "pair.txt")
    assert trace.calls["mode"].tolist() == ["user", "kernel"]

    ipi, v7 = tc.replay(trace, ["ipi", "coalesce-v7"]).outcomes

    assert ipi["remaining"] == {"low": 2, "high": 2}
    assert v7["deferred"] == {"low": 2, "high": 2}
    assert v7["interrupts"] == {"low": 0, "high": 0}


def test_what_the_recording_does_not_tell_is_an_interval(tmp_path: Path):
    known = purge_in_user_mode(tmp_path / "known.txt")
    unknown = purge_in_user_mode(tmp_path / "unknown.txt", modes=False)

    (of_known,) = tc.replay(known, ["coalesce-v7"]).outcomes
    ipi, of_unknown, hardware = tc.replay(unknown, ["ipi", "coalesce-v7", "invlpgb"]).outcomes

    assert of_known["deferred"] == {"low": 1, "high": 1}
    assert of_unknown["deferred"] == {"low": 0, "high": 1}
    assert of_unknown["interrupts"] == {"low": 0, "high": 1}
    assert ipi["deferred"] == {"low": 0, "high": 0}
    assert hardware["deferred"] == {"low": 1, "high": 1}, "in whatever mode it is"


def test_a_policy_for_user_ranges_spares_what_its_text_spares(tmp_path: Path):
    trace = purge_in_user_mode(tmp_path / "user.txt", "flush_tlb_func")
    text = """policy user-broadcast
  "Kernel and user ranges by INVLPGB."
  needs invlpgb
  based on invlpgb

flush_tlb_mm_range
  inc_mm_tlb_gen
  flush info mm, gen
  invlpgb range
  tlbsync
"""

    kernel_only, both = tc.replay(trace, ["coalesce-v7", tc.Policy(text=text)]).outcomes

    assert trace.calls["cause"].tolist() == ["user_shootdown"]
    assert kernel_only["deferred"] == {"low": 0, "high": 0}
    assert both["deferred"] == {"low": 1, "high": 1}
    assert both["deferred_by_class"] == {"user": {"low": 1, "high": 1}}


def test_with_a_machine_there_are_times():
    trace = tc.read_trace(W7)

    result = tc.replay(trace, ["ipi", "coalesce-v7-fixed", "pending-bit"], machine="skylake-sp")

    table = result.table
    of = {name: table["policy"] == name for name in result.policies}
    assert (table["entry_cost_ms_high"][of["ipi"]] == 0).all()
    # An INVPCID of everything at each of some hundred entries, against a locked exchange or two.
    assert (table["entry_cost_ms_low"][of["coalesce-v7-fixed"]] > 0.01).all()
    assert (table["entry_cost_ms_high"][of["pending-bit"]] > 0).all()
    dear, cheap = (table["entry_cost_ms_low"][of[name]] for name in ("coalesce-v7-fixed", "pending-bit"))
    assert (cheap < dear).all()
    waits = [o["wait_ms"]["high"] for o in result.outcomes]
    assert waits[1] < waits[0], "who does not interrupt does not wait"
    assert (
        table["call_interrupts_ms_high"][of["ipi"]] > table["call_interrupts_ms_high"][of["pending-bit"]]
    ).all()
    assert tc.replay(trace, ["ipi"]).outcomes[0]["wait_ms"] is None


def test_a_policy_that_does_nothing_here_is_mainline_and_says_so():
    trace = tc.read_trace(W7)
    off = SimpleNamespace(pti=False)

    (without,) = tc.replay(trace, ["coalesce-v7"], kernel=off).outcomes
    hardware = tc.replay(trace, ["invlpgb"], machine="broadwell-ep-e5-2699v4")

    assert (without["inert"], without["deferred"]["high"]) == ("PTI is off", 0)
    assert hardware.outcomes[0]["inert"] == "the machine has no INVLPGB"
    assert hardware.outcomes[0]["deferred"]["high"] == 0
    assert "inert" in str(hardware)


def test_calls_that_the_recording_has_not_got_are_told(tmp_path: Path):
    trace = purge_in_user_mode(tmp_path / "twice.txt")
    twice = tc.policies["ipi"].replace(
        name="twice", flush_kernel_range=["flush_kernel_now", "flush_kernel_now"]
    )

    result = tc.replay(trace, [twice])

    (outcome,) = result.outcomes
    assert outcome["more_calls"] == {"low": 1, "high": 1}
    assert outcome["interrupts"] == {"low": 2, "high": 2}
    assert "where the recording has no call" in str(result)


def test_what_is_not_modelled_is_said():
    trace = tc.read_trace(W7)

    result = tc.replay(trace, ["quarantine"])

    assert any("not modelled" in note for note in result.outcomes[0]["not_modelled"])
    assert "how long addresses would wait, is not modelled" in " ".join(str(result).split())
    waits = tc.policies["lazy-tune"].replace(name="longer", header=['lazy_max_factor "2"'])
    with pytest.raises(tc.PolicyError, match="'longer': a recording does not tell how often"):
        tc.replay(trace, [waits])
    stuck = tc.policies["ipi"].replace(
        name="stuck", header=["var v : 1 bit, per cpu, starts 0"], ct_enter="while v == 0\n  lfence"
    )
    with pytest.raises(tc.PolicyError, match="'stuck': its entry code runs without end"):
        tc.replay(trace, [stuck])


def test_two_policies_of_one_name_are_refused():
    trace = tc.read_trace(W7)
    other = tc.policies["coalesce-v7"].replace(name="coalesce-v7", flush_kernel_range=ALWAYS)

    with pytest.raises(tc.PolicyError, match="two different policies are called 'coalesce-v7'"):
        tc.replay(trace, ["coalesce-v7", other])
    with pytest.raises(tc.PolicyError, match=r"^the policy 'ipi' is named twice$"):
        tc.replay(trace, ["ipi", "coalesce-v7", tc.policies["ipi"]])


def test_a_replay_gives_the_same_figures_again():
    first, again = (tc.replay(tc.read_trace(W7), machine="skylake-sp") for _ in range(2))

    assert first.outcomes == again.outcomes
    assert all(np.array_equal(first.table[name], again.table[name]) for name in first.table)


@pytest.mark.parametrize("purges", [1, 2, 3])
def test_each_sender_that_waits_for_ever_is_told(tmp_path: Path, purges: int):
    """Its next request ends the one before: that one, too, never got to its end."""
    text = Text()
    text.add(0, 2, "user_exit: ")
    text.add(5, 2, "user_enter: ")
    for number in range(purges):
        at = 1000 * (number + 1)
        text.queue(at, FULL, 0xA + number)
        text.add(at + 4, 2, "user_exit: ")
        text.run(at + 5, FULL, 0xA + number)
        text.add(at + 10, 2, "user_enter: ")
        text.purged(at + 15)
    stuck = tc.policies["ipi"].replace(
        name="stuck",
        header=["var done : 1 bit, shared, starts 0"],
        flush_kernel_range=["flush_kernel_now", "await done == 1"],
    )

    (outcome,) = tc.replay(text.read(tmp_path / "stuck.txt"), [stuck]).outcomes

    assert outcome["not_modelled"] == [f"{purges} senders never got to their end"]
    assert outcome["interrupts"] == {"low": purges, "high": purges}
