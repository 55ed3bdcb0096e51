"""Policies on another version of Linux: its sections stand in place of the oldest ones, and every answer says which."""

from __future__ import annotations

import json

import pytest

import tlbcore as tc
from tlbcore import _core
from tlbcore.checker.table import FLUSH_SCOPES, row_of
from tlbcore.cli import main
from tlbcore.reference.explorer import explore_litmus

NEWER = [version for version in _core.policy_versions() if version != "6.12"]


def test_a_policy_stands_on_the_oldest_version_until_it_says_another() -> None:
    policy = tc.policies["latr"]
    newer = policy.on("7.3")

    assert (policy.linux, newer.linux, newer.on("6.12").linux) == ("6.12", "7.3", "6.12")
    assert newer.name == "latr"
    assert '  linux "7.3"\n' in newer.text
    assert newer != policy
    assert tc.Policy(text=newer.canonical).linux == "7.3"


def test_what_is_based_on_a_policy_of_a_version_may_say_another() -> None:
    derived = 'policy p\n  "p"\n  based on ipi\n'
    assert tc.Policy(text=derived).linux == "6.12"
    assert tc.Policy(text=derived + '  linux "7.3"\n').linux == "7.3"


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: tc.policies["ipi"].on("7.4"), r"no programs of Linux 7\.4; these are: 6\.12, 7\.3"),
        (lambda: tc.Policy(text='policy p\n  "p"\n  linux "seven"\n'), "p.*3:3.*no programs of Linux seven"),
        (lambda: tc.check("ipi", world="nopti@5.4"), r"no programs of Linux 5\.4"),
        (
            lambda: _core.check_world(tc.policies["ipi"].text, "ipi.policy", "pti@7.3"),
            r"world `pti@7\.3`: ipi stands on Linux 6\.12",
        ),
    ],
)
def test_a_version_that_there_is_not_is_refused(ask, message: str) -> None:
    with pytest.raises((tc.PolicyError, tc.CheckError), match=message):
        ask()


@pytest.mark.parametrize("version", ["6.12", *NEWER])
def test_a_verdict_and_its_run_name_the_version(version: str) -> None:
    verdict = tc.check(tc.policies["coalesce-v7"].on(version))

    assert verdict.status == "violated"
    assert f"of Linux {version}" in verdict.sentence
    assert f"(*.kernel: Linux {version})" in str(verdict)
    assert tc.check("coalesce-v7", world=f"pti@{version}").sentence == verdict.sentence


def test_mainline_broadcasts_flushes_of_the_kernel_range_since_invlpgb_came() -> None:
    worlds = {v: _core.check_worlds(tc.policies["ipi"].on(v).text, "ipi.policy") for v in ("6.12", "7.3")}
    assert worlds == {"6.12": ["pti", "nopti"], "7.3": ["pti", "nopti", "nopti+invlpgb"]}

    kernel = tc.Kernel(pti=False, broadcast_tlb_flush=True)
    load = tc.scenarios.spawn_storm(duration_s=60.0)
    totals = {
        version: tc.simulate(load, machine="zen4-epyc", kernel=kernel, policy=tc.policies["ipi"].on(version))
        for version in ("6.12", "7.3")
    }
    assert totals["6.12"].total("ipis_received") > 0
    assert totals["7.3"].total("ipis_received") == 0


def test_a_cpu_that_has_switched_away_may_still_be_told() -> None:
    """K7: 7.3 keeps it in `mm_cpumask`, and a trim, which nothing in the model decides, interrupts it for nothing."""
    text = """litmus told
  {linux}exists "told == 1"
  page u : user of 2
  var told : 1 bit, shared, starts 0
  var left : 1 bit, shared, starts 0
  asids "2"

cpu 0
  await left == 1
  let mm = 2
  pte range = none locked
  request range
  flush_tlb_mm_range
  promise range

cpu 1
  cli
  let next = 2
  switch_mm_irqs_off
  sti
  cli
  let next = 0
  switch_mm_irqs_off
  sti
  xchg left, 1

flush_tlb_func
  told = 1
"""
    for line, found in (("", "forbidden"), ('linux "7.3"\n  ', "allowed")):
        assert tc.litmus(text.format(linux=line)).found == found


def test_stated_verdicts_hold_on_a_newer_version() -> None:
    """Of three policies here, of all by `tlbcore check --all --kernel-version 7.3`."""
    worlds = set()
    for name in ("ipi", "coalesce-v7-fixed", "invlpgb"):
        policy = tc.policies[name].on("7.3")
        for world in _core.check_worlds(policy.text, policy.file):
            worlds.add((name, world))
            for scope in FLUSH_SCOPES:
                if scope[0] == 2 and scope[2] == 1:
                    row = row_of(name, "purge", scope, 1 << 30, f"{world}@7.3")
                    assert row.stated in (None, row.status), row
    assert ("ipi", "nopti+invlpgb") in worlds
    assert len(worlds) == 5


def test_the_command_line_takes_a_version(capsys) -> None:
    assert main(["check", "coalesce-v7-fixed", "--kernel-version", "7.3", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert "Linux 7.3" in shown["sentence"]
    assert main(["check", "ipi", "--kernel-version", "7.4"]) == 2
    assert "--kernel-version takes 6.12 or 7.3: got '7.4'" in capsys.readouterr().err
    assert (
        main(
            [
                "compare",
                "--scenario",
                "spawn-storm",
                "--duration",
                "1",
                "--policy",
                "ipi",
                "--kernel-version",
                "7.3",
            ]
        )
        == 0
    )


def test_a_litmus_test_may_stand_on_a_newer_version() -> None:
    text = """litmus v
  {linux}exists "told == 1"
  features "pcid invlpgb"
  var told : 1 bit, shared, starts 0
  page k : vmalloc

cpu 0
  pte k = none locked
  request range
  flush_kernel_now
  promise range

cpu 1
  fence

flush_handler
  told = 1
  flush_here
"""
    for line, found in (("", "allowed"), ('linux "7.3"\n  ', "forbidden")):
        assert tc.litmus(text.format(linux=line)).found == found
        assert explore_litmus(text.format(linux=line)).found == found
