"""The published JSON Schemas and the commands whose output they describe.

`python -m tests.schemas` writes python/tlbcore/data/schemas anew: it runs the commands below and keeps what all their
outputs have in common. A schema promises what is `required` and of which type it is; a version may add keys.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tlbcore
from tlbcore.cli import main

ROOT = Path(__file__).parent.parent
FOLDER = Path(tlbcore.__file__).parent / "data" / "schemas"
DATA = "tests/data"

# Schema -> what it describes, and the commands that print it; a command's exit status is not looked at.
COMMANDS: dict[str, tuple[str, list[list[str]]]] = {
    "calibrate": (
        "Costs and TLB sizes measured on this machine.",
        [["calibrate", "--seconds", "0.3", "--base", "zen4-epyc"]],
    ),
    "causes": ("The catalogue of what interrupts isolated CPUs.", [["causes"], ["causes", "vmalloc_purge"]]),
    "census-difference": (
        "What one kernel's entry paths add to another's, and drop.",
        [
            [
                "census",
                f"{DATA}/linux-6.1.192.census.json.xz",
                "--against",
                f"{DATA}/linux-6.12.117.census.json.xz",
            ],
            [
                "census",
                f"{DATA}/linux-6.12.117.census.json.xz",
                "--since",
                f"{DATA}/linux-6.1.192.census.json.xz",
            ],
        ],
    ),
    "check": (
        "The verdict of a check; its exit status is 0 for verified, 1 for violated, 3 for inconclusive.",
        [
            ["check", "ipi"],
            ["check", "coalesce-v7"],
            ["check", "coalesce-v7-fixed", "--nmis", "1"],
            ["check", "ct-late", "--memory", "1K"],
            ["check", "ipi", "--roles", "purge; isolated 1"],
        ],
    ),
    "compare": (
        "One scenario simulated under several policies.",
        [
            ["compare", "--scenario", "trading", "--duration", "1"],
            [
                "compare",
                "--scenario",
                "rteval",
                "--duration",
                "100",
                "--replications",
                "2",
                "--policy",
                "ipi",
            ],
            ["compare", "--scenario", "syscall-heavy", "--duration", "0.001", "--policy", "BROKEN"],
        ],
    ),
    "comparison": (
        "Recordings explained one by one and compared, the first with the last.",
        [["explain", f"{DATA}/p4.w3i.trace.txt.xz", f"{DATA}/p4.w3j.trace.txt.xz"]],
    ),
    "doctor": ("What is installed, and what this machine is.", [["doctor"]]),
    "explain": (
        "Who interrupted the isolated CPUs of a recording, and why.",
        [
            ["explain", f"{DATA}/p4.w7.trace.txt.xz", "--between", "GT_BEGIN", "GT_END"],
            ["explain", f"{DATA}/v2.w1idle.trace.txt.xz"],
            ["explain", f"{DATA}/q4.w8lost.trace.txt.xz"],
            ["explain", f"{DATA}/rt4.w4spin.trace.txt.xz"],
            ["explain", f"{DATA}/dat.p73.us8.v7.trace.dat"],
            ["explain", f"{DATA}/sums/rtla-osnoise-top.txt", "--isolated", "2-3"],
            ["explain", f"{DATA}/sums/rtla-timerlat-top.txt", "--isolated", "2"],
            ["explain", f"{DATA}/sums/perf-stat.txt", "--isolated", "2-3"],
        ],
    ),
    "inspect": (
        "What each policy would do on a machine, and how well its isolated CPUs are isolated.",
        [
            ["inspect", "--root", f"{DATA}/host-p4"],
            ["inspect", "--root", f"{DATA}/host-zen4-guest"],
            ["inspect", "--cmdline", "nohz_full=2-3 isolcpus=2-3", "--kernel", "6.12.0", "--cpus", "4"],
        ],
    ),
    "litmus": (
        "Litmus tests with the verdict found and the verdict stated.",
        [["litmus", "tests/litmus/contexts"], ["litmus", f"{DATA}/herd/SB.litmus", "nonsense.litmus"]],
    ),
    "machine": (
        "One CPU preset, each number with its mark and source.",
        [["machines", "zen4-epyc"], ["machines", "skylake-sp"]],
    ),
    "machines": ("The CPU presets.", [["machines"]]),
    "miss-curve": (
        "Misses of an address trace in every LRU TLB up to so many ways.",
        [
            ["miss-curve", f"{DATA}/addresses/walk.lackey.txt.xz", "--sets", "32", "--ways", "3"],
            ["miss-curve", f"{DATA}/addresses/walk.lackey.txt.xz", "--ways", "9", "--sample", "0.5"],
        ],
    ),
    "necessary": ("Which ops of a policy are needed.", [["check", "--necessary", "coalesce-v7-fixed"]]),
    "policies": ("The built-in policies.", [["policy", "list"]]),
    "repair": (
        "The smallest edits that make a policy pass its check.",
        [["repair", "coalesce-v7", "--edits", "1"], ["repair", "coalesce-v7", "--edits", "2"]],
    ),
    "replay": (
        "A recording under other policies.",
        [
            ["replay", f"{DATA}/p4.w7.trace.txt.xz"],
            ["replay", f"{DATA}/p4.w7.trace.txt.xz", "--machine", "skylake-sp"],
        ],
    ),
    "shootdowns": (
        "What shootdowns of user ranges cost a process, or all of them.",
        [
            [
                "explain",
                f"{DATA}/user.p73.us1.trace.txt.xz",
                "--process",
                "shoot",
                "--between",
                "GT_BEGIN",
                "GT_END",
            ],
            ["explain", f"{DATA}/user.p612.us1.trace.txt.xz", "--all-cpus"],
        ],
    ),
    "sweep": ("A grid of configurations that was simulated.", [["sweep", "GRID", "--out", "OUT"]]),
    "tlb": (
        "An address trace run through a machine's TLBs.",
        [
            ["tlb", f"{DATA}/addresses/walk.lackey.txt.xz"],
            ["tlb", f"{DATA}/addresses/walk.lackey.txt.xz", "--smt"],
        ],
    ),
    "validate": ("The published experiments, with the published and the computed figure.", [["validate"]]),
    "words": ("What the words of reports mean.", [["words"], ["words", "purge"]]),
}


def _verdicts() -> list[dict[str, Any]]:
    """What `check --all` prints: as its rows would be, for the table itself takes minutes."""
    from tlbcore.checker import Cell, Row

    passed = Row(
        policy="ipi", world="pti", defers="purge", cpus=2, nmis=0, asids=1, danger="none", bodies="none",
        text="instr", invpcid="ordered", status="verified", rule=None, states=10, unseen=(), stated=None,
    )  # fmt: skip
    broken = {**vars(passed), "rule": "stale_access", "unseen": ["x"], "stated": "violated"}
    cells = [vars(Cell(policy="ipi", world="pti", linux="6.12", status="verified", inert="pti"))]
    tables = {"rows": [vars(passed), broken], "cells": cells}
    return [json.loads(json.dumps({"schema": "tlbcore.verdicts", "version": 1, **tables, "differing": 0}))]


def _watch() -> list[dict[str, Any]]:
    """What `top --json` prints each interval: readings in which every kind was recorded, and none."""
    from tlbcore.trace.recorder.watch import KINDS, Reading, Row, json_line

    rows = tuple(Row(cpu=2, kind=kind, name="x", count=1, seconds=0.1, longest_s=0.1) for kind in KINDS)
    readings = [
        Reading(time=1.0, seconds=1.0, cpus=(2,), rows=kept, recorded=dict.fromkeys(KINDS, bool(kept)))
        for kept in (rows, ())
    ]
    return [json.loads(json_line(reading)) for reading in readings]


# Not printed by a command that ends by itself in seconds.
OTHERS: dict[str, tuple[str, Callable[[], list[dict[str, Any]]]]] = {
    "verdicts": (
        "Every policy under every standard assumption, and in every world on every version of Linux.",
        _verdicts,
    ),
    "watch": ("What took isolated CPUs from their tasks so far: one line of `top --json`.", _watch),
}

GRID = """\
scenario = "syscall-heavy"
policies = ["ipi", "ct-late"]
replications = 2
[fixed]
duration_s = 0.01
[grid]
spawn_hz = [100, 1000]
"""

# Breaks a rule: what it reads in an entry is in no table of user mode.
BROKEN = """\
policy p
  based on coalesce-v7
  page x : vmalloc

coalesce
  mov cr3, user
  read x
  mov cr3, kernel
"""


def outputs(name: str) -> Iterator[dict[str, Any]]:
    """What the commands of a schema print."""
    with TemporaryDirectory() as scratch:
        grid = Path(scratch) / "grid.toml"
        grid.write_text(GRID)
        broken = Path(scratch) / "broken.policy"
        broken.write_text(BROKEN)
        files = {"GRID": str(grid), "OUT": f"{scratch}/out", "BROKEN": str(broken)}
        for arguments in COMMANDS[name][1]:
            words = [files.get(word, word) for word in arguments]
            out, err = io.StringIO(), io.StringIO()
            with chdir(ROOT), redirect_stdout(out), redirect_stderr(err):
                main([*words, "--json"])
            assert out.getvalue(), f"{words}: {err.getvalue()}"
            document = json.loads(out.getvalue())
            yield document
            if name == "doctor":  # what this machine has, or does not tell, others do not tell, or have
                machine = document["machine"]
                yield document | {
                    "machine": machine | dict.fromkeys(UNTOLD),
                    "python": document["python"] | {"libc": None},
                    "tlbcore": document["tlbcore"] | {"version": None, "file": None},
                    "packages": [each | {"version": None} for each in document["packages"]],
                }
                yield document | {"machine": machine | dict.fromkeys(UNTOLD[:5], "2-3") | {"root": False}}


# Facts that `doctor` may have to leave open; the first five are text.
UNTOLD = ("isolated", "nohz_full", "cpu", "signature", "cpus", "allowed_cpus", "memory_left_mib", "root")


def common(values: list[Any]) -> dict[str, Any]:
    """The schema of these values: types that occur, keys that all objects have, items of all arrays."""
    kinds: dict[str, list[Any]] = {}
    for value in values:
        kinds.setdefault(kind(value), []).append(value)
    if "number" in kinds:
        kinds.setdefault("null", [])  # what is not a number is printed as null
    schema: dict[str, Any] = {"type": sorted(kinds) if len(kinds) > 1 else next(iter(kinds), "null")}
    if objects := kinds.get("object"):
        names = list(dict.fromkeys(name for each in objects for name in each))
        schema["required"] = [name for name in names if all(name in each for each in objects)]
        schema["properties"] = {name: common([o[name] for o in objects if name in o]) for name in names}
        # Objects whose keys are data (causes, CPUs) promise nothing but their values.
        if not schema["required"] or any(not name.isidentifier() for name in names):
            shape = common([value for each in objects for value in each.values()])
            del schema["required"], schema["properties"]
            schema["additionalProperties"] = shape
    if (items := [item for each in kinds.get("array", []) for item in each]) or "array" in kinds:
        schema["items"] = common(items) if items else {}
    return schema


def kind(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", type(None): "null", bool: "boolean"}
    return names.get(type(value), "number")


def document(name: str, what: str, values: list[Any]) -> dict[str, Any]:
    schema = common(values)
    schema["properties"]["schema"] = {"const": f"tlbcore.{name}"}
    (version,) = {value["version"] for value in values}
    schema["properties"]["version"] = {"const": version}
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"tlbcore.{name}",
        "description": what,
    }
    return {**head, **schema}


def write(name: str, schema: dict[str, Any]) -> None:
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(schema, indent=1) + "\n")


if __name__ == "__main__":
    for each in sys.argv[1:] or [*COMMANDS, *OTHERS]:
        if each in OTHERS:
            write(each, document(each, OTHERS[each][0], OTHERS[each][1]()))
        elif each != "causes":  # `tlbcore causes --schema` says more
            write(each, document(each, COMMANDS[each][0], list(outputs(each))))
