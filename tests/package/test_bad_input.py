"""Nonsense to every public function: an error of ours or the language's own, never a panic, and never a hang."""

from __future__ import annotations

import lzma
import math
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tlbcore as tc

# What a wrong value may raise: ours (all are ValueError), and a file that is not there. pyo3's PanicException is a
# BaseException and none of these.
ALLOWED = (tc.TlbcoreError, OSError)

NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1, 33, 63, 64, 4095, 4096, 1 << 31, 1 << 32, 1 << 63, 1 << 64, -(1 << 63)]),
    st.sampled_from([0.0, -1.0, 0.5, 1e-300, 1e300, math.inf, -math.inf, math.nan]),
)
WORDS = st.one_of(
    st.sampled_from(["", " ", "ipi", "skylake-sp", "\x00", "é", "a\nb", "-" * 300]), st.text(max_size=20)
)
ANYTHING = st.one_of(st.none(), st.booleans(), NUMBERS, WORDS, st.lists(NUMBERS, max_size=3))
ARRAYS = st.sampled_from(
    [
        np.array([], dtype=np.uint64),
        np.array([1, 2, 3], dtype=np.uint64),
        np.array([1 << 63, (1 << 64) - 1], dtype=np.uint64),
        np.array([-1, 5], dtype=np.int64),
        np.array([1.5, math.nan, math.inf]),
        np.array(["a"]),
        np.array([None, 3], dtype=object),
        np.arange(12, dtype=np.uint64).reshape(3, 4),
        np.arange(12, dtype=np.uint64)[::2],
        np.arange(4, dtype=">u8"),
        np.array([True, False]),
        np.zeros(2, dtype=tc.EVENT),
        np.full(3, 255, dtype=np.uint8).repeat(16)[:48].view(tc.EVENT),
    ]
)
DATA = Path(__file__).parents[1] / "data"
LOAD = tc.scenarios.quiet(duration_s=0.001, cpus=2, isolated="1")


def deliberate(error: BaseException) -> bool:
    """Whether a line of ours, or the language at a function's door, refused: no slip further in.

    A line of ours says `raise`. At the door stand Python, for arguments that a signature has not got, and PyO3, for
    values that do not convert: then the last frame is the test's, the one that keeps calls, or one of ours that calls
    the core.
    """
    last = traceback.extract_tb(error.__traceback__)[-1]
    line = (last.line or "").strip()
    inside = Path(tc.__file__).parent in Path(last.filename).parents
    door = line == "result = function(*arguments, **named)"  # tlbcore._output.calls.kept
    core = ("_core.", "_state.", "TlbState(")
    return line.startswith("raise ") or door or not inside or any(word in line for word in core)


def survives(call: Callable[[], object]) -> None:
    with suppress(*ALLOWED):
        try:
            call()
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            if not isinstance(error, ALLOWED) and not deliberate(error):
                raise AssertionError(f"no refusal but a slip: {error!r}") from error


def test_a_slip_is_no_refusal():
    from tlbcore.simulation import run

    with pytest.raises(AssertionError, match="no refusal but a slip: KeyError"):
        survives(lambda: run._result({}))  # a line of the package that looks up what is not there
    with pytest.raises(MemoryError):
        survives(lambda: (_ for _ in ()).throw(MemoryError()))
    survives(lambda: tc.simulate(LOAD, nonsense=1))
    survives(lambda: tc.simulate(LOAD, seed=-1))


@given(ARRAYS, ANYTHING, ANYTHING)
def test_tlb_takes_any_array(pages, pcid, flags):
    survives(lambda: tc.Tlb("skylake-sp").access(pages, pcid=pcid))
    survives(lambda: tc.Tlb("skylake-sp").access([1, 2], pcid=pages))
    survives(lambda: tc.Tlb("skylake-sp", cpus=flags))
    survives(lambda: tc.Tlb("skylake-sp").run(pages))


@given(ARRAYS, ANYTHING, ANYTHING)
def test_miss_curve_takes_anything(pages, sets, ways):
    # A million ways would be computed, as asked; what is refused here is nonsense, not size.
    big = isinstance(ways, int) and 4096 < ways <= 1 << 32
    survives(lambda: tc.miss_curve(pages, sets=16, ways=8))
    survives(lambda: tc.miss_curve([1, 2, 1], sets=sets, ways=8))
    survives(lambda: None if big else tc.miss_curve([1, 2, 1], sets=16, ways=ways))
    survives(lambda: tc.miss_curve([1, 2, 1], flushes=pages))


@given(WORDS, ANYTHING)
def test_names_and_texts_of_policies_and_machines_take_anything(text, value):
    survives(lambda: tc.as_policy(text))
    survives(lambda: tc.as_policy(value))
    survives(lambda: tc.policies["ipi"].replace(name=text))
    survives(lambda: tc.machine(text))
    survives(lambda: tc.Machine(name="x", text=text))
    survives(lambda: tc.litmus(text + "\n"))
    survives(lambda: tc.check(text))


@given(st.sampled_from(["pti", "flush_ceiling", "coalesce_tlbi", "rar", "nopcid"]), ANYTHING)
def test_a_kernel_takes_anything(field, value):
    survives(lambda: tc.Kernel(**{field: value}))


@given(st.sampled_from(["duration_s", "cpus", "isolated", "sockets", "rcu_us"]), ANYTHING)
def test_a_scenario_takes_anything(field, value):
    # Long runs and machines of thousands of CPUs are legal and take their time; they are not nonsense.
    if field in ("duration_s", "cpus") and isinstance(value, (int, float)) and 64 < value < math.inf:
        return
    survives(lambda: tc.simulate(LOAD.replace(**{field: value}), machine="skylake-sp"))


@given(st.sampled_from(["seed", "detail", "costs", "timeline", "policy", "machine"]), ANYTHING)
def test_a_simulation_takes_anything(field, value):
    if field == "timeline" and isinstance(value, int) and value > 1 << 20:
        return  # events to keep: memory is what was asked for
    survives(lambda: tc.simulate(LOAD, **{"machine": "skylake-sp", field: value}))


@given(st.sampled_from(["cpus", "nmis", "pages", "entries", "flushes", "mces", "memory"]), ANYTHING)
def test_a_check_takes_anything(field, value):
    if isinstance(value, (int, float)) and 1 < value < math.inf and field != "memory":
        return  # a larger scope is a longer search
    survives(lambda: tc.check("ipi", **{field: value}))


@given(ANYTHING, ANYTHING, ARRAYS)
def test_a_sweep_takes_anything(value, replications, samples):
    fixed = {"duration_s": 0.001, "cpus": 2, "isolated": "1"}
    few = replications if not isinstance(replications, (int, float)) or replications < 5 else 2
    survives(lambda: tc.sweep("quiet", {"residual_hz": [value]}, fixed=fixed))
    survives(lambda: tc.sweep("quiet", {"residual_hz": [1.0]}, fixed=fixed, replications=few))
    survives(lambda: tc.sweep("quiet", samples=samples, names=["residual_hz"], fixed=fixed))
    survives(lambda: tc.sweep("quiet", {"residual_hz": [1.0]}, fixed=fixed, seed=value))
    survives(lambda: tc.sweep("quiet", value, fixed=fixed))


@given(st.binary(max_size=200))
def test_a_recording_of_any_bytes_is_refused_or_read(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("any") / "trace.txt"
    file.write_bytes(data)
    survives(lambda: tc.read_trace(file))


@pytest.mark.parametrize(
    "missing",
    [
        ("csd_", "ipi_send", "tlbk"),
        ("call_function", "csd_"),
        ("user_",),
        ("vmap_area",),
        ("sched_", "drain_work"),
    ],
    ids=lambda names: "+".join(names),
)
def test_a_recording_without_some_events_is_explained_as_far_as_it_goes(tmp_path, missing):
    whole = lzma.decompress((DATA / "p4.w7.trace.txt.xz").read_bytes()).decode()
    kept = [line for line in whole.splitlines(keepends=True) if not any(name in line for name in missing)]
    (tmp_path / "trace.txt").write_text("".join(kept))
    trace = tc.read_trace(tmp_path / "trace.txt", isolated="2-3")
    explained = str(tc.explain(trace))
    assert "CPU 2" in explained
    assert max(map(len, explained.splitlines())) <= 130
    survives(lambda: str(tc.replay(trace, policies=["ipi", "coalesce-v7-fixed"])))


def test_a_null_byte_in_a_name_and_nothing_to_confirm_are_refused() -> None:
    import tlbcore as tc

    for call, name in ((tc.read_trace, "a\0b"), (tc.addresses, "a\0b"), (tc.check, "a\0b.policy")):
        said = f"^{call.__name__}: no file has a null byte in its name: got {name!r}$".replace("\\", "\\\\")
        with pytest.raises(tc.ConfigError, match=said):
            call(name)
    for confirm in (True, False):
        said = f"^reduce=False leaves nothing to confirm: leave confirm={confirm} out$"
        with pytest.raises(tc.CheckError, match=said):
            tc.check("ipi", reduce=False, confirm=confirm)
