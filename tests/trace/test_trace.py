"""Figures of recordings of real kernels equal those another program computed from them."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tlbcore as tc
from tlbcore.trace import replayed

DATA = Path(__file__).parents[1] / "data"
EXPECTED = json.loads((DATA / "expected.json").read_text())["traces"]
FOLDER = Path(os.environ.get("TLBCORE_TRACES", Path(__file__).parents[2] / ".." / "shared" / "traces"))
SUMMARY = FOLDER / "summary.json"
FLUSHES = ("do_flush_tlb_all", "do_kernel_range_flush")


def read(name: str, isolated: object = None, *, folder: Path = DATA) -> tc.Trace:
    """Read a recording between the markers that frame its load; the ring of w8lost has lost the first one."""
    begin = "" if name.startswith("q4.w8lost") else "GT_BEGIN"
    return tc.read_trace(folder / name, isolated=isolated, between=(begin, "GT_END"))


def figures(trace: tc.Trace) -> dict:
    report = trace.figures["report"]
    cpus = {str(cpu["cpu"]): cpu for cpu in report["isolated"]}
    return {
        "isolated": list(trace.isolated),
        "events": report["events"],
        "forks": report["forks"],
        "flush_tlb_kernel_range": report["flush_tlb_kernel_range"],
        "purges": {key: report["purges"][key] for key in ("events", "effective", "empty")},
        "flush_tlb_all": report["flush_tlb_all"],
        "handler_runs": {
            name: {f: cpu["calls_by_function"].get(f, 0) for f in FLUSHES} for name, cpu in cpus.items()
        },
        "ipis": {name: cpu["ipis_by_function"] for name, cpu in cpus.items()},
        "interrupts": {name: cpu["interrupts_by_vector"] for name, cpu in cpus.items()},
        "entries": {name: cpu["entries"] for name, cpu in cpus.items()},
    }


def consistent(trace: tc.Trace) -> None:
    """Laws that hold for every recording."""
    for cpu in trace.figures["report"]["isolated"]:
        assert sum(cpu["interrupts_by_cause"].values()) == (cpu["interrupts"] or 0)
        assert cpu["baseline"]["executions_equal"]
        assert cpu["baseline"]["unexplained"] == 0, cpu["baseline"]["unexplained_first"]
        if cpu["baseline"]["derived_ipis"] is not None:
            assert cpu["baseline"]["derived_ipis"] == cpu["baseline"]["recorded_ipis"]
    p = trace.purges
    assert sum(o["areas"] for o in trace.figures["report"]["purges"]["charged"]) + trace.figures["report"][
        "purges"
    ]["unknown_areas"] == sum(p["areas"])
    assert (p["charged_areas"] + p["unknown_areas"] == p["areas"]).all()
    baseline, *others = tc.replay(trace, replayed.replayable()).outcomes
    assert baseline["deferred"] == {"low": 0, "high": 0}
    for outcome in others:
        for end, other in (("low", "high"), ("high", "low")):
            assert outcome["deferred"][end] + outcome["remaining"][other] == baseline["remaining"]["low"]
        assert outcome["interrupts"]["low"] <= outcome["interrupts"]["high"] <= baseline["interrupts"]["low"]


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_figures_of_a_recording_equal_the_independent_ones(name: str):
    want = EXPECTED[name]

    trace = read(name, want["isolated"])

    assert figures(trace) == want
    assert trace.figures["broken_lines"] == 0
    assert trace.figures["unknown_events"] == {}
    consistent(trace)


@pytest.mark.skipif(not SUMMARY.exists(), reason="the folder of full recordings is not here")
def test_every_recording_of_the_folder_equals_its_summary():
    runs = json.loads(SUMMARY.read_text())["runs"]
    assert len(runs) > 10
    for name, run in runs.items():
        files = [FOLDER / f"{name}{end}" for end in (".report.txt.xz", ".txt.xz", ".trace.txt.xz")]
        trace = read(next(f.name for f in files if f.exists()), run["isolated_cpus"], folder=FOLDER)

        got = figures(trace)

        flushes = run["flush_tlb_kernel_range"]
        assert got["flush_tlb_kernel_range"] == {key: flushes[key] for key in ("calls", "full", "ranged")}, (
            name
        )
        assert got["flush_tlb_all"] == run["flush_tlb_all_calls"], name
        assert got["purges"] == {key: run["lazy_purge"][key] for key in got["purges"]}, name
        assert (got["events"], got["forks"]) == (run["trace_events"], run["forks"]), name
        for cpu in map(str, run["isolated_cpus"]):
            executed = run["tlb_flush_csds_executed_per_isolated_cpu"].get(cpu, {})
            if name.startswith("k61"):  # no csd events; probes on the handlers count instead
                runs_of = run["flush_handler_runs_per_cpu"].get(cpu, {})
                executed = dict(
                    zip(FLUSHES, (runs_of.get(p, 0) for p in ("tlbk_all_h", "tlbk_range_h")), strict=True)
                )
            assert got["handler_runs"][cpu] == {f: executed.get(f, 0) for f in FLUSHES}, name
            assert got["ipis"][cpu] == run["ipis_sent_to_isolated_by_function"].get(cpu, {}), name
            assert got["entries"][cpu] == run["user_exit_isolated"][cpu], name
        consistent(trace)


def test_isolated_cpus_are_deduced_from_context_tracking():
    trace = read("p4.w7.trace.txt.xz")

    assert trace.isolated == (2, 3)
    assert trace.isolated_from == "context_tracking"


def test_module_loading_is_classed_as_aliases_and_rights():
    cpu = read("p4.w7.trace.txt.xz").figures["report"]["isolated"][0]

    # 127 range flushes come from _vm_unmap_aliases, 70 flush_tlb_all from set_memory_*.
    assert cpu["calls_by_class"]["alias"] == 127
    assert cpu["calls_by_class"]["set_memory"] == 70
    assert "purge" not in cpu["calls_by_class"]


def test_a_stack_or_the_shape_of_the_range_shows_a_page_table_free():
    trace = read("q4.w1st.trace.txt.xz")
    calls = trace.calls

    freed = calls["class"] == "table_free"
    assert freed.sum() == 2 * 25
    assert set(calls["evidence"][freed]) == {"stack"}
    assert (calls["class"] == "purge").sum() == 2 * 7
    assert all(name.startswith("kworker/") for name in calls["initiator"][calls["class"] == "purge"])


def test_each_purge_is_charged_to_the_process_that_forked():
    trace = read("p4.w1.head.trace.txt.xz")

    assert trace.purges["areas"].tolist() == [4964, 4922]
    assert set(trace.purges["largest_owner"]) == {"forkstorm"}
    assert set(trace.purges["by"]) != {"forkstorm"}, "kworkers run them"
    # Everything the second purge took was allocated after the recording began.
    assert trace.purges["charged_areas"][1] == 4922


def test_no_deferral_covers_a_page_table_free_and_every_purge_in_user_mode_goes():
    trace = read("q4.w1st.trace.txt.xz")
    outcome = tc.replay(trace, ["coalesce-v7-fixed"]).outcomes[0]

    assert outcome["remaining_by_class"]["table_free"] == {"low": 50, "high": 50}
    purges = trace.calls["class"] == "purge"
    in_user = purges & (trace.calls["mode"] == "user") & trace.calls["mode_sure"]
    assert outcome["deferred_by_class"]["purge"]["low"] == in_user.sum() > 0


def test_without_context_tracking_a_decision_is_an_interval():
    trace = read("v2.w1idle.trace.txt.xz", "1")
    table = tc.replay(trace, ["coalesce-v7"]).table

    assert table["deferred_low"].tolist() == [0]
    assert table["deferred_high"].tolist() == [2]
    assert table["remaining_low"].tolist() == [0]
    assert table["remaining_high"].tolist() == [2]


def test_lost_events_are_holes_with_their_places():
    trace = read("q4.w8lost.trace.txt.xz")

    kinds = [(hole["kind"], hole["cpu"]) for hole in trace.figures["holes"]]
    assert kinds == [
        ("overwritten", None),
        ("buffer_started", 3),
        ("buffer_started", 0),
        ("buffer_started", 1),
    ]
    assert trace.figures["holes"][0]["events"] == 15169 - 3792
    assert "The trace has holes" in str(tc.explain(trace))


def test_a_cut_last_line_is_tolerated(tmp_path: Path):
    import lzma

    text = lzma.decompress((DATA / "p4.w7.trace.txt.xz").read_bytes()).decode()
    cut = tmp_path / "cut.txt"
    cut.write_text(text[: len(text) // 2 - 7])

    trace = tc.read_trace(cut)

    assert trace.figures["broken_lines"] == 0
    assert [hole["kind"] for hole in trace.figures["holes"]] == ["cut"]


def test_task_names_with_spaces_brackets_and_dashes_are_whole():
    trace = read("q4.w9local.trace.txt.xz")

    # The program is called "my prog-1 [y]"; it is the one that forks.
    assert trace.figures["report"]["forks"] == 301
    comms = set(tc.explain(trace).initiators["comm"])
    assert any("my prog-1 [y]" in comm for comm in comms), comms


def test_every_packing_gives_the_same_figures(tmp_path: Path):
    import gzip
    import lzma

    raw = lzma.decompress((DATA / "p4.w6.trace.txt.xz").read_bytes())
    (tmp_path / "plain").write_bytes(raw)
    (tmp_path / "named.wrongly.zst").write_bytes(gzip.compress(raw))

    want = figures(read("p4.w6.trace.txt.xz"))

    assert figures(read("plain", folder=tmp_path)) == want
    assert figures(read("named.wrongly.zst", folder=tmp_path)) == want


def test_tables_are_columns_of_one_length_that_cannot_be_written():
    trace = read("p4.w7.trace.txt.xz")
    explanation = tc.explain(trace)

    for table in (
        trace.calls,
        trace.purges,
        explanation.table,
        explanation.initiators,
        tc.replay(trace).table,
    ):
        assert len({len(column) for column in table.values()}) == 1
        for column in table.values():
            assert isinstance(column, np.ndarray)
            with pytest.raises(ValueError, match="read-only"):
                column[:] = 0


def test_rates_carry_an_interval_that_holds_them():
    table = tc.explain(read("p4.w7.trace.txt.xz")).table

    assert (table["per_hour_low"] <= table["per_hour"]).all()
    assert (table["per_hour"] <= table["per_hour_high"]).all()
    assert np.nanmax(table["max_us"]) > 10


def test_a_preset_prices_entry_flushes_and_pti_off_makes_the_series_inert():
    from types import SimpleNamespace

    trace = read("p4.w7.trace.txt.xz")
    v7 = ["coalesce-v7-fixed"]

    priced = tc.replay(trace, v7, machine="broadwell-ep-e5-2699v4").table
    cheaper = tc.replay(trace, v7, kernel=SimpleNamespace(pti=False)).table

    assert (priced["entry_cost_ms_low"] > 0).all()
    assert (priced["entry_cost_ms_low"] <= priced["entry_cost_ms_high"]).all()
    assert priced["deferred_low"].sum() > 0
    assert cheaper["deferred_high"].sum() == 0
    with pytest.raises(tc.TlbError):
        tc.replay(trace, machine="pentium")


def test_policies_a_recording_cannot_judge_are_refused():
    trace = read("p4.w4spin.trace.txt.xz")

    with pytest.raises(tc.PolicyError, match="does not tell how often a longer list is purged"):
        tc.replay(trace, ["lazy-tune"])
    with pytest.raises(tc.PolicyError, match="did you mean `coalesce-v7`"):
        tc.replay(trace, ["coalesce-v8"])


def test_every_column_of_an_explanation_has_its_value():
    usual = {"p50_us": 1.0, "p95_us": 2.0, "max_us": 3.0, "total_ms": 4.0}
    unknown = dict.fromkeys(usual)
    isolated = [
        {"cpu": 2, "seconds": 1800.0, "initiators": [
            {"comm": "kworker", "in_interrupt": True, "cause": "vmalloc_purge", "calls": 7, "stacks": []}],
         "interference": [
            {"cause": "tick", "kind": "interrupt", "n": 1, **usual},
            {"cause": "vmalloc_purge", "kind": "interrupt", "n": 4, **unknown},
            {"cause": "kworker", "kind": "task", "n": 4, **usual}]},
        {"cpu": 3, "seconds": 0.5, "initiators": [], "interference": [
            {"cause": "tick", "kind": "interrupt", "n": 2, **usual}]},
    ]  # fmt: skip
    trace: Any = SimpleNamespace(figures={"report": {"isolated": isolated, "cannot_say": []}})
    found = tc.explain(trace)
    table = {name: column.tolist() for name, column in found.table.items()}
    assert table["cpu"] == [2, 2, 2, 3]
    assert table["cause"] == ["kworker", "vmalloc_purge", "tick", "tick"], "by count, then by name"
    assert table["kind"] == ["task", "interrupt", "interrupt", "interrupt"]
    assert table["class"][1] == "purge"
    assert (table["n"], table["interrupts"]) == ([4, 4, 1, 2], [0, 4, 1, 2])
    assert table["per_hour"][:3] == [8.0, 8.0, 2.0], "of half an hour"
    assert math.isnan(table["per_hour"][3]), "of half a second"
    # Poisson at 95 %: 4 events may be 1.09 to 10.24, 1 event 0.0253 to 5.57.
    assert table["per_hour_low"][1:3] == pytest.approx([2 * 1.0899, 2 * 0.02532], rel=1e-3)
    assert table["per_hour_high"][1:3] == pytest.approx([2 * 10.2416, 2 * 5.5716], rel=1e-3)
    assert [table[name][0] for name in usual] == [1.0, 2.0, 3.0, 4.0]
    assert all(math.isnan(table[name][1]) for name in usual)
    assert {name: column.tolist() for name, column in found.initiators.items()} == {
        "cpu": [2], "comm": ["kworker"], "in_interrupt": [True], "cause": ["vmalloc_purge"], "calls": [7],
    }  # fmt: skip
    with pytest.raises(ValueError, match="read-only"):
        found.table["n"][0] = 5
    isolated[1]["seconds"] = 1.0
    assert tc.explain(trace).table["per_hour"][3] == 7200.0, "a whole second is enough"


def test_the_rankings_of_a_recording_are_by_time_and_by_count():
    rankings = tc.explain(tc.read_trace(DATA / "p4.w7.trace.txt.xz")).to_json()["rankings"]
    table = tc.explain(tc.read_trace(DATA / "p4.w7.trace.txt.xz")).table
    counts = {cause: int(table["n"][table["cause"] == cause].sum()) for cause in rankings["by_count"]}
    assert set(counts) == set(table["cause"].tolist()) == set(rankings["by_time"])
    assert rankings["by_count"] == sorted(counts, key=lambda cause: (-counts[cause], cause))
    assert len(set(counts.values())) > 1
