"""Bad input to the checker: one error that names the value, where it stands and the rule it breaks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import tlbcore as tc

WRONG_NUMBERS = [-1, 10**30, math.nan, math.inf, 2.5, "x", "", None, True, [], {}]


@pytest.mark.parametrize(
    "name", ["cpus", "nmis", "mces", "asids", "pages", "entries", "rounds", "memory", "threads"]
)
@pytest.mark.parametrize("value", WRONG_NUMBERS, ids=repr)
def test_a_wrong_number_is_named_with_its_bounds(name: str, value: Any) -> None:
    if (name, value) == ("threads", None):
        assert tc.check("ipi", threads=None).status == tc.check("ipi", threads=1).status  # all CPUs
        return
    with pytest.raises(tc.CheckError) as error:
        tc.check("ipi", **{name: value})  # type: ignore[arg-type]
    said = str(error.value)
    assert said.startswith(f"{name} must be an integer ")
    assert said.endswith(f"got {value!r}")


@pytest.mark.parametrize("value", [0, 4, *WRONG_NUMBERS], ids=repr)
def test_a_wrong_number_of_edits_is_named(value: Any) -> None:
    with pytest.raises(tc.CheckError, match="edits must be an integer from 1 to 3: got "):
        tc.repair("coalesce-v7", edits=value)


@pytest.mark.parametrize("value", [0, *WRONG_NUMBERS], ids=repr)
def test_a_wrong_number_of_bytes_is_named(value: Any) -> None:
    with pytest.raises(tc.CheckError, match="memory must be an integer of at least 1: got"):
        tc.litmus(LITMUS, memory=value)


@pytest.mark.parametrize("value", [0, 1, "no", None], ids=repr)
def test_what_is_true_or_false_is_nothing_else(value: Any) -> None:
    with pytest.raises(tc.CheckError, match="reduce must be True or False: got"):
        tc.check("ipi", reduce=value)
    with pytest.raises(tc.CheckError, match="bless must be True or False: got"):
        tc.litmus(LITMUS, bless=value)


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        (
            {"roles": "purge; isolated 1; isolated 1", "cpus": 2},
            "cpus=2 contradicts roles='purge; isolated 1; isolated 1', which name 3",
        ),
        (
            {"roles": "purge; isolated 2", "cpus": 3},
            "cpus=3 contradicts roles='purge; isolated 2', which name 2",
        ),
        ({"roles": "purge; isolated 2", "entries": 3}, "entries=3 beside roles='purge; isolated 2'"),
        ({"roles": "purge; isolated 2", "rounds": "unbounded"}, "rounds='unbounded' beside roles="),
        ({"roles": " ; "}, "roles name a CPU each"),
        ({"roles": ["purge"]}, "roles is a text"),
        ({"roles": None}, "roles is a text"),
        ({"roles": "purge; isolated -1"}, "`isolated -1` is no role"),
        ({"roles": "purge*0; isolated 1"}, "`purge*0` is no role"),
        ({"roles": "nosuch; isolated 1"}, "no program `nosuch`"),
        ({"roles": "purge; isolated 99"}, "is 0 to 15: got 99"),
        ({"roles": "purge; isolated 2 by nosuch"}, "`nosuch` is no entry path"),
        ({"assume": "D=recycled"}, "assume is names and values"),
        ({"assume": {"D": 1}}, "assume is names and values"),
        ({"assume": {"D": "maybe"}}, "no assumption `D=maybe`"),
    ],
)
@pytest.mark.parametrize("ask", [tc.check, tc.repair, tc.necessary])
def test_contradictions_name_both_sides(ask: Any, bounds: dict[str, Any], said: str) -> None:
    with pytest.raises(tc.CheckError) as error:
        ask("ipi", **bounds)
    assert said in str(error.value)


@pytest.mark.parametrize("ask", [tc.check, tc.repair, tc.necessary])
def test_what_is_no_bound_is_said_with_those_that_are(ask: Any) -> None:
    with pytest.raises(TypeError, match="'cpu' is no bound; these are: cpus, nmis"):
        ask("ipi", cpu=3)


def test_a_machine_that_is_none_is_found_before_the_search() -> None:
    with pytest.raises(tc.TlbError, match="nosuch"):
        tc.repair("coalesce-v7", edits=1, machine="nosuch")


LITMUS = """litmus x
  verdict "verified"
  page k : vmalloc

cpu 0
  read k
"""


def header(line: str) -> str:
    return LITMUS.replace("  page", f"  {line}\n  page")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a litmus test is a file or its text: got ''"),
        ("\n", "litmus:1:1: an empty text: it starts with `policy NAME` or `litmus NAME`"),
        ("policy p\n", "litmus:1:1: a litmus test starts with `litmus NAME`"),
        ("litmus x\n", "litmus:1:1: no CPU does anything"),
        (LITMUS.replace("verified", "maybe"), "litmus:2:3: `maybe` is no verdict"),
        (header('states "few"'), "litmus:3:3: `states` takes a number, not `few`"),
        (header('nmis "99"'), "litmus:3:3: `nmis` is a number, 0 to 7: got `99`"),
        (header('mces "-1"'), "litmus:3:3: `mces` is a number, 0 to 3: got `-1`"),
        (header('asids "9"'), "litmus:3:3: `asids` is a number, 1 to 2: got `9`"),
        (header('nmis "1"\n  nmis "2"'), "litmus:4:3: `nmis` stands here a second time"),
        (header('cpus "3"'), "litmus:3:3: `3` is no role"),
        (header('cpus "purge"'), "litmus:6:1: the next CPU is `cpu 1`: found `cpu 0`"),
        (header('deaf "7"'), "litmus:3:3: `deaf` names CPUs, not `7`"),
        (header('unflushed "x"'), "litmus:3:3: `unflushed` names CPUs, not `x`"),
        (header('exists "nosuch == 1"'), "litmus:3:3: the condition `nosuch == 1`: `nosuch` is no variable"),
        (header('never "k =="'), "litmus:3:3: the condition `k ==`: expected a value"),
        (header('frames "k: nosuch"'), "litmus:3:3: `nosuch` is no variable"),
        (header('frames "k"'), "litmus:3:3: `frames` is PAGE: VAR VAR ..."),
        (header('features "nosuch"'), "litmus:3:3: `nosuch` is no feature"),
        (header('nosuch "1"'), "litmus:3:3: `nosuch` is no header line of a litmus test"),
        (header('assume "D"'), "litmus:3:3: `assume` is NAME=VALUE, not `D`"),
        (header('assume "D=maybe"'), "litmus:3:3: no assumption `D=maybe`"),
        (header('assume "D=none D=recycled"'), "litmus:3:3: `D` is assumed to be `none` and `recycled`"),
        (LITMUS + "\ncpu 2\n  fence\n", "litmus:8:1: the next CPU is `cpu 1`: found `cpu 2`"),
        (LITMUS + "".join(f"\ncpu {n}\n  fence\n" for n in range(1, 8)), "there are at most 5 CPUs: got 8"),
        (LITMUS + "\ncpu 1\n  loop\n    lfence\n", "litmus:9:3: this loop cannot end"),
        (LITMUS + "\ncpu 1\n  gosub\n", "litmus:9:3: `gosub` is neither an op nor a section"),
    ],
)
def test_a_broken_litmus_test_is_named_by_line_and_column(text: str, said: str) -> None:
    with pytest.raises(tc.PolicyError) as error:
        tc.litmus(text)
    assert str(error.value).startswith(said) or said in str(error.value)


@pytest.mark.parametrize("ask", [tc.check, tc.repair, tc.necessary])
def test_a_litmus_test_is_no_policy(ask: Any, tmp_path: Path) -> None:
    file = tmp_path / "x.policy"
    file.write_text(LITMUS, encoding="utf-8")
    with pytest.raises(tc.PolicyError, match=r"x\.policy:1:1: a litmus test, not a policy"):
        ask(file)
