"""A value of the wrong kind for every argument of every public function: refused in a sentence, never a slip."""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from tests.package.test_bad_input import survives

import tlbcore as tc
from tlbcore._input.door import door
from tlbcore._input.kinds import refusal, unaliased

RECORDING = Path(__file__).parents[1] / "data" / "p4.w3i.trace.txt.xz"
LOAD = tc.scenarios.quiet(duration_s=0.001, cpus=2, isolated="1")
# What stands for the arguments that a function must have, while another one is wrong.
GIVEN: dict[str, Any] = {
    "machine": "skylake-sp",
    "pages": [1, 2, 3],
    "policy": "ipi",
    "scenario": LOAD,
    "base": LOAD,
}
WRONG = [
    None,
    "no such thing",
    5,
    -1.5,
    math.nan,
    b"x",
    [None],
    {"a": object()},
    object(),
    np.array(["a"]),
    len,
]
NOT_CALLED = {
    "calibrate",  # takes minutes of the machine
    "inspect_host",  # reads the machine that tests run on
    "validate",  # has no argument but progress
    "verdict_table",  # seconds a call
    "world_table",  # a minute for all
}
AS_THEY_ARE = {"progress", "threads"}  # tests of their own; a number of threads is any number


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every public function, class and function of a public module."""
    for name in sorted(set(tc.__all__) - NOT_CALLED):
        thing = getattr(tc, name)
        if inspect.ismodule(thing):
            for inner in getattr(thing, "__all__", dir(thing)):
                function = getattr(thing, inner)
                if (
                    callable(function)
                    and not inner.startswith("_")
                    and function.__module__.startswith(thing.__name__)
                ):
                    yield f"{name}.{inner}", function
        elif callable(thing):
            yield name, thing


def methods() -> Iterator[tuple[str, Callable[..., Any]]]:
    trace = tc.read_trace(RECORDING)
    run = tc.simulate(LOAD)
    things = [trace, run, tc.explain(trace), tc.as_policy("ipi"), tc.Kernel(), tc.machine("skylake-sp")]
    things += [tc.check("coalesce-v7", cpus=2, confirm=False), tc.compare(LOAD), tc.miss_curve(np.arange(99))]
    things += [tc.replay(trace), tc.Tlb("skylake-sp")]
    for thing in things:
        for name in dir(thing):
            if not name.startswith("_") and inspect.ismethod(function := getattr(thing, name)):
                yield f"{type(thing).__name__}.{name}", function


def each_wrong(function: Callable[..., Any]) -> Iterator[tuple[str, Callable[[], object]]]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a type of the language's
        return
    single = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    needed = {p.name: GIVEN.get(p.name, 1) for p in single if p.default is p.empty}
    for parameter in single:
        for value in WRONG:
            if parameter.name not in AS_THEY_ARE:
                given = needed | {parameter.name: value}
                at_place = [
                    given.pop(p.name) for p in single if p.kind is p.POSITIONAL_ONLY and p.name in given
                ]
                what = f"{parameter.name}={value!r:.40}"
                yield what, lambda given=given, at_place=at_place: function(*at_place, **given)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("of", [functions, methods])
def test_no_argument_of_the_wrong_kind_is_a_slip(of, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)  # a file of such a name is written here
    calls, slips = 0, []
    for name, function in of():
        for what, call in each_wrong(function):
            calls += 1
            try:
                survives(call)
            except Exception as slip:
                slips.append(f"{name}({what}): {slip}")
    assert not slips, "\n".join(slips)
    assert calls > 1000


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: tc.explain("recording.txt"), "explain: trace must be Trace: got 'recording.txt' (str)"),
        (lambda: tc.user_flushes(None), "user_flushes: trace must be Trace: got None (NoneType)"),
        (lambda: tc.op.loop([3]), "loop: body must be Sequence[str]: got [3] (list)"),
        (
            lambda: tc.as_policy("ipi").replace(name="mine", coalesce=5),
            "replace: coalesce must be Sequence[str] | str: got 5 (int)",
        ),
        (lambda: tc.op.mov_cr3("user", noflush="no"), "mov_cr3: noflush must be bool | None: got 'no' (str)"),
        (
            lambda: tc.break_even(LOAD, "cpus", 2, 4, policies=5),
            "break_even: policies must be tuple[str | Policy, str | Policy]: got 5 (int)",
        ),
        (
            lambda: tc.as_policy("ipi").listing(object),
            "listing: features must be Sequence[str]: got <class 'object'> (type)",
        ),
    ],
)
def test_the_sentence_names_function_argument_kind_and_value(call, says):
    with pytest.raises(TypeError) as refused:
        call()
    assert str(refused.value) == says
    assert refused.value.__cause__ is not None  # where it ended, should the slip be ours


def as_numpy(value: object) -> list[Any]:
    """What a user who counts with NumPy has in the place of a value."""
    if isinstance(value, bool):
        return [np.bool_(value)]
    if isinstance(value, int):
        return [np.int64(value), np.uint16(value)] if 0 <= value < 1 << 16 else []
    return [np.float64(value)] if isinstance(value, float) else []


def outcome(function: Callable[..., Any], given: dict[str, Any]) -> str:
    try:
        function(**given)
    except Exception as error:
        return type(error).__name__
    return "taken"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("of", [functions, methods])
def test_numbers_of_numpy_are_taken_where_those_of_python_are(of, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    differ, tried = [], 0
    for name, function in of():
        try:
            parameters = inspect.signature(function).parameters.values()
        except ValueError:
            continue
        single = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        needed = {p.name: GIVEN.get(p.name, 1) for p in single if p.default is p.empty}
        for parameter in single:
            usual = needed.get(parameter.name, parameter.default)
            for value in as_numpy(usual) if parameter.name not in AS_THEY_ARE else []:
                tried += 1
                plain = outcome(function, needed | {parameter.name: usual})
                if (got := outcome(function, needed | {parameter.name: value})) != plain:
                    differ.append(f"{name}({parameter.name}={value!r}): {got}, not {plain}")
    assert differ == []
    assert tried > (100 if of is functions else 10)


def test_numbers_of_numpy_mean_the_same():
    assert tc.Kernel(flush_ceiling=np.int64(9), pti=np.bool_(False)) == tc.Kernel(flush_ceiling=9, pti=False)
    assert tc.Kernel(flush_ceiling=np.int64(9)).to_json() == tc.Kernel(flush_ceiling=9).to_json()
    assert tc.op.invpcid(np.uint8(2)) == tc.op.invpcid(2)
    plain, counted = (tc.scenarios.user_shootdown(pages=kind(3)) for kind in (int, np.uint32))
    assert counted.to_json() == plain.to_json()
    odd = tc.scenarios.tasks([{"do": "unmap", "pages": object()}], rate_hz=1.0)
    with pytest.raises(tc.SimError, match=r"^scenario 'quiet': a number, .* expected in a step: got <object"):
        LOAD.replace(actors=(odd,))


def test_a_column_that_is_not_there_is_named_with_the_nearest():
    run = tc.simulate(LOAD)
    with pytest.raises(KeyError, match="unknown column 'ipis_recieved', did you mean 'ipis_received'"):
        run.table["ipis_recieved"]
    assert run.table.get("ipis_recieved", 7) == 7


@pytest.mark.parametrize(
    ("kind", "fitting", "wrong"),
    [
        ("int", [1, True, np.int64(3)], [1.0, "1", None]),
        ("float", [1, 0.5, np.float32(1)], ["1", None, 1j]),
        ("int | None", [None, 2], ["x", 0.5]),
        ("Sequence[str]", ["abc", ["a"], ("a", "b"), []], [5, [1], {"a"}, b"x"]),
        ("Mapping[str, float]", [{}, {"a": 1}], [{1: 1}, {"a": "x"}, []]),
        ("Literal['a', 1]", ["a", 1], ["b", True, 1.0]),
        ("Trace | None", [None], ["Trace"]),
        ("Callable[[], int]", [len, int], [3]),
        ("NDArray[Any]", [np.arange(2), [1, 2]], [3, "ab"]),
        ("ArrayLike", [3, [1, [2]], "ab", None], []),
        ("Unheard", [1, "x", None], []),
        ("Unheard[int]", [1, "x", None], []),
    ],
)
def test_kinds(kind, fitting, wrong):
    def f(x):
        raise AssertionError

    f.__annotations__["x"] = kind
    for value in fitting:
        assert refusal(f, (value,), {}) is None, value
    for value in wrong:
        assert refusal(f, (), {"x": value}) == f"f: x must be {kind}: got {value!r} ({type(value).__name__})"
    assert refusal(f, (), {}) is None  # the language says what is missing


def test_what_a_function_says_itself_stands():
    with pytest.raises(ValueError, match=r"^invpcid type must be 1, 2 or 3 here: got x$"):
        tc.op.invpcid("x")
    with pytest.raises(TypeError, match=r"^events must have dtype tlbcore.EVENT: got <U1$"):
        tc.Tlb("skylake-sp").run(np.array(["a"]))
    with pytest.raises(tc.PolicyError, match=r"^policies are a list of names, files or policies: got 5$"):
        tc.compare(LOAD, policies=5)


def test_what_is_not_of_the_arguments_stands_as_it_is():
    @door
    def f(x: int, *others: object, **more: object) -> int:
        if x:
            raise tc.ConfigError("ours")
        return {}["a slip of our own"]

    with pytest.raises(KeyError, match="a slip of our own"):
        f(0, "others", more="of any kind")
    with pytest.raises(tc.ConfigError, match=r"^ours$"):
        f("x")
    with pytest.raises(TypeError, match=r"missing 1 required positional argument: 'x'"):
        f()

    def g(*cpus: int) -> None: ...

    assert refusal(g, (1, "2"), {}) == "g: cpus[1] must be int: got '2' (str)"
    assert refusal(f, ("x" * 99,), {}) == f"f: x must be int: got {('x' * 99)!r:.59}… (str)"


def test_the_name_of_a_type_stands_for_the_type():
    class Name:  # what a `type` statement of Python 3.12 makes
        def __init__(self, value: Any) -> None:
            self.__value__ = value

    item = TypeVar("item")
    listed: Any = Name(list[item])  # type: ignore[valid-type]
    assert unaliased(types.GenericAlias(listed, (int,))) == list[int]
    assert unaliased(Name(Name(dict[str, int]))) == dict[str, int]
    assert (unaliased(int), unaliased(list[int])) == (int, list[int])

    def f(x: Any) -> None: ...

    f.__annotations__["x"] = types.GenericAlias(Name(np.ndarray[Any, np.dtype[item]]), (Any,))  # type: ignore[type-var]
    assert refusal(f, (np.arange(3),), {}) is None
    assert refusal(f, (3,), {}).endswith("got 3 (int)")
