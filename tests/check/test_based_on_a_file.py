"""A policy or test that is based on a file: by its path, with places, in one text that goes wherever it goes."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tlbcore as tc
from tlbcore.reference.explorer import explore, explore_litmus

BASE = """# What others build on.
policy base
  "Flushes through a section of its own."
  based on coalesce-v7

coalesce
  kernel_cr3_loaded = 1
  announced

announced
  if me in flush_mask
    fence
    invpcid all-including-global
"""
MINE = """policy mine
  "The base without its fence."
  based on "../lib/base.policy"

announced
  if me in flush_mask
    invpcid all-including-global
"""
SMALL = "purge; isolated 1 by syscall"
DEMAND = {"fills": "demand"}  # a third of the states


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "lib").mkdir()
    (tmp_path / "own").mkdir()
    (tmp_path / "lib" / "base.policy").write_text(BASE, encoding="utf-8")
    (tmp_path / "own" / "mine.policy").write_text(MINE, encoding="utf-8")
    return tmp_path


def test_sections_of_the_file_are_taken_over_and_replaced(folder: Path) -> None:
    base, mine = tc.Policy.read(folder / "lib/base.policy"), tc.Policy.read(folder / "own/mine.policy")

    for policy, found in ((base, "verified"), (mine, "violated")):
        asked = {"roles": SMALL, "assume": {"D": "none", **DEMAND}, "world": "pti"}
        assert tc.check(policy, **asked).status == found
        assert tc.check(policy, **asked, reduce=False).status == found
        assert explore(policy, roles=SMALL, assume=DEMAND).status == found
    listing = mine.listing()
    assert not any(op == "Fence" and "announced" in at for *_, op, _, at in listing)
    assert any(at.startswith("../lib/base.policy:") for *_, at in listing), "lines are the base's own"
    assert any(at.startswith(f"{folder}/own/mine.policy:") for *_, at in listing)


def test_it_goes_along_when_the_file_is_gone(folder: Path) -> None:
    mine = tc.Policy.read(folder / "own/mine.policy")
    where = mine.file
    (folder / "lib/base.policy").unlink()

    again = pickle.loads(pickle.dumps(mine))
    assert again == mine
    assert hash(again) == hash(mine)
    assert tc.Policy(text=mine.canonical, file=where).digest == mine.digest
    edited = mine.replace(
        name="edited", announced="if me in flush_mask\n  fence\n  invpcid all-including-global"
    )
    assert tc.check(edited, roles=SMALL, assume={"D": "none"}, world="pti").status == "verified"
    assert explore(edited, roles=SMALL, assume=DEMAND).status == "verified"
    assert "proctype" in mine.promela(isolated=1, entries=1)
    with pytest.raises(
        tc.PolicyError, match=re.escape(f'{where}:3:12: based on "../lib/base.policy": ') + ".*no such file"
    ):
        tc.Policy.read(where)


def test_the_text_is_the_same_in_whatever_folder_it_was_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = tc.Policy.read(folder / "own/mine.policy")
    monkeypatch.chdir(folder / "own")
    near = tc.Policy.read("mine.policy")

    assert near == far
    assert near.digest == far.digest


def test_another_base_is_another_policy(folder: Path) -> None:
    before = tc.Policy.read(folder / "own/mine.policy")
    (folder / "lib/base.policy").write_text(BASE.replace("= 1", "= 0"), encoding="utf-8")

    assert tc.Policy.read(folder / "own/mine.policy") != before


def test_both_are_compared_simulated_and_swept(folder: Path) -> None:
    load = tc.scenarios.syscall_heavy(duration_s=0.01)
    base, mine = folder / "lib/base.policy", folder / "own/mine.policy"
    found = tc.compare(load, machine="broadwell-ep", policies=["ipi", base, mine])
    mean = {
        str(policy): float(ns)
        for policy, cpus, ns in zip(
            *(found.table[n] for n in ("policy", "cpu_class", "syscall_mean_ns")), strict=True
        )
        if cpus == "isolated"
    }
    assert mean["ipi"] < mean["mine"] < mean["base"], "a flush more; a flush and a fence more"
    run = tc.simulate(load, machine="broadwell-ep", policy=mine)
    assert run.total("entry_flushes_needed") + run.total("entry_flushes_unneeded") > 0
    swept = tc.sweep(load, {"cpus": [4]}, policies=[base, mine], replications=2)
    assert {str(name).split("@")[0] for name in swept.table["policy"]} == {"base", "mine"}


def test_a_litmus_test_is_based_on_a_file_too(folder: Path) -> None:
    text = """litmus told
  verdict "violated: stale_access (reused)"
  based on "lib/base.policy"
  cpus "purge; isolated 1 by syscall"
  assume "D=recycled fills=demand"

announced
  if me in flush_mask
    invpcid all-including-global
"""
    file = folder / "told.litmus"
    file.write_text(text, encoding="utf-8")

    assert tc.litmus(file).ok
    assert tc.litmus(file, reduce=False).ok
    file.write_text(
        text.replace("    invpcid", "    fence\n    invpcid").replace("recycled", "none"), encoding="utf-8"
    )
    assert tc.litmus(file, bless=True).found == "verified"
    assert 'verdict "verified"' in file.read_text(encoding="utf-8")
    assert "policy base" not in file.read_text(encoding="utf-8"), "what it is based on stays where it is"
    whole = file.read_text(encoding="utf-8") + '\nfile "lib/base.policy"\n' + BASE
    assert explore_litmus(whole).found == tc.litmus(whole).found == "verified"


def test_the_command_line_takes_it(folder: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tlbcore", "check", "own/mine.policy", "--roles", SMALL, "--assume", "D=none"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1, run.stderr
    assert "violated" in run.stdout


def told(folder: Path, **files: str) -> str:
    for name, text in files.items():
        (folder / f"{name}.policy").write_text(text, encoding="utf-8")
    with pytest.raises(tc.PolicyError) as error:
        tc.Policy.read(folder / "a.policy")
    return str(error.value)


def test_a_chain_that_comes_back_is_refused_with_its_place(tmp_path: Path) -> None:
    on = 'policy {}\n  "x"\n  based on "{}.policy"\n'
    assert told(tmp_path, a=on.format("a", "a")).startswith(f'{tmp_path}/a.policy:3:12: based on "a.policy"')
    round_trip = {"a": on.format("a", "b"), "b": on.format("b", "c")}
    round_trip["c"] = on.format("c", f"../{tmp_path.name}/a")
    said = told(tmp_path, **round_trip)
    assert said.startswith(f'c.policy:3:12: based on "../{tmp_path.name}/a.policy": ')
    assert said.endswith("is one of those that are based on it")


def test_what_is_wrong_in_the_base_is_said_with_its_own_line(tmp_path: Path) -> None:
    mine = 'policy a\n  "x"\n  based on "b.policy"\n'
    base = 'policy b\n  "x"\n  based on ipi\n\n'
    assert told(tmp_path, a=mine, b=base + "to_kernel\n  mov cr9, kernel\n").startswith("b.policy:6:")
    assert told(tmp_path, a=mine, b=base + "to_kernal\n  fence\n").startswith(
        "b.policy:5:1: nothing uses section `to_kernal`; did you mean `to_kernel`"
    )
    said = told(tmp_path, a=mine, b="litmus b\n\ncpu 0\n  fence\n")
    assert said.startswith(f'{tmp_path}/a.policy:3:12: "b.policy" is no policy: it is the litmus `b`')
    assert told(tmp_path, a=mine.replace("b.policy", "b")).startswith(
        f"{tmp_path}/a.policy:3:12: a file that"
    )
    (tmp_path / "b.policy").write_bytes(b"policy \xff")
    (tmp_path / "a.policy").write_text(mine, encoding="utf-8")
    with pytest.raises(tc.PolicyError, match=r"b\.policy: not a text file"):
        tc.Policy.read(tmp_path / "a.policy")


def test_a_text_that_came_from_no_file_says_so() -> None:
    with pytest.raises(
        tc.PolicyError, match=r'3:12: "\.\./lib/base\.policy" is a file .* was read from none'
    ):
        tc.Policy(text=MINE)


# -- elsewhere -----------------------------------------------------------------------------------------------------

RECORDING = Path(__file__).parents[1] / "data" / "p4.w7.trace.txt.xz"


def tlbcore(folder: Path, *arguments: str, status: int = 0) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "tlbcore", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert run.returncode == status, run.stderr
    return run.stdout


def test_a_recording_is_replayed_under_it(folder: Path) -> None:
    policies = [word for name in ("coalesce-v7", "own/mine.policy") for word in ("--policy", name)]
    said = tlbcore(folder, "replay", str(RECORDING), *policies, "--json")
    built_in, mine = json.loads(said)["policies"]
    assert (mine["policy"], mine["deferred"]) == ("mine", built_in["deferred"])
    assert mine["deferred"]["low"] > 200
    # One that is based on a policy that interrupts everybody defers nothing.
    always = BASE.replace("based on coalesce-v7", "based on ipi").replace("coalesce\n", "ct_enter\n", 1)
    always = always.replace("  kernel_cr3_loaded = 1\n", "")
    (folder / "lib" / "base.policy").write_text(always, encoding="utf-8")
    said = tlbcore(folder, "replay", str(RECORDING), "--policy", "own/mine.policy", "--json")
    assert json.loads(said)["policies"][0]["deferred"] == {"low": 0, "high": 0}


def test_the_command_line_compares_it(folder: Path) -> None:
    scenario = ["--scenario", "syscall-heavy", "--duration", "0.002"]
    policies = [word for name in ("lib/base.policy", "own/mine.policy") for word in ("--policy", name)]
    by_file = json.loads(tlbcore(folder, "compare", *scenario, *policies, "--json"))
    mine = tc.Policy.read(folder / "own/mine.policy")
    load = tc.scenarios.syscall_heavy(duration_s=0.002)
    by_text = tc.compare(load, policies=[folder / "lib/base.policy", mine])
    assert by_file["table"]["policy"][::3] == ["base", "mine"]
    means = [by_file["table"]["syscall_mean_ns"][at] for at in (0, 3)]
    assert means == [float(by_text.table["syscall_mean_ns"][at]) for at in (0, 3)]
    assert means[1] < means[0], "a fence less"


def test_a_new_litmus_test_may_be_based_on_it(folder: Path) -> None:
    """A file from `tlbcore new litmus`, in another folder than where it is run."""
    tlbcore(folder, "new", "litmus", "mine", "--folder", "own")
    file = folder / "own" / "mine.litmus"
    assert "1 as stated" in tlbcore(folder, "litmus", "own/mine.litmus")
    lines = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join([lines[0], '  based on "../lib/base.policy"', *lines[1:]]), encoding="utf-8")
    assert "1 as stated" in tlbcore(folder, "litmus", "own/mine.litmus")
    # Its columns run sections of the base.
    column = 'litmus runs\n  verdict "forbidden"\n  exists "x == 1"\n  based on "../lib/base.policy"\n'
    column += "  var x : 1 bit, shared\n\ncpu 0\n  coalesce\n  if kernel_cr3_loaded == 0\n    x = 1\n"
    file.write_text(column, encoding="utf-8")
    assert "1 as stated" in tlbcore(folder, "litmus", "own/mine.litmus")
    (folder / "lib" / "base.policy").write_text(BASE.replace("= 1", "= 0"), encoding="utf-8")
    assert "allowed" in tlbcore(folder, "litmus", "own/mine.litmus", status=1)


def test_a_sweep_takes_up_the_points_of_the_same_text_and_of_no_other(folder: Path) -> None:
    mine, out = folder / "own" / "mine.policy", folder / "out"
    asked = {"replications": 1, "out": out}
    load = tc.scenarios.syscall_heavy(duration_s=0.001)
    first = tc.sweep(load, {"cpus": [4]}, policies=[mine], **asked)
    assert str(first.table["policy"][0]) == f"mine@{tc.Policy.read(mine).digest[:8]}"
    parts = sorted(out.rglob("*.parquet"))
    again = tc.sweep(load, {"cpus": [4]}, policies=[mine], **asked)
    assert sorted(out.rglob("*.parquet")) == parts, "nothing is computed twice"
    assert again.table["policy"].tolist() == first.table["policy"].tolist()
    (folder / "lib" / "base.policy").write_text(BASE.replace("    fence\n", ""), encoding="utf-8")
    assert tc.Policy.read(mine).digest[:8] != str(first.table["policy"][0])[5:], "the base is part of it"
    other = tc.sweep(load, {"cpus": [4]}, policies=[mine], **asked)
    assert sorted(out.rglob("*.parquet")) != parts, "another base is computed anew"
    assert str(other.table["policy"][0]) == f"mine@{tc.Policy.read(mine).digest[:8]}"
