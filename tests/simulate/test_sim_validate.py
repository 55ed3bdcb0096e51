"""Published and measured results, computed again (NUMBERS)."""

from __future__ import annotations

import json
import math
import re
from itertools import islice
from pathlib import Path

import pytest
from tests.geometry import one_tlb

import tlbcore as tc
from tlbcore import scenarios
from tlbcore.cli import main
from tlbcore.validation import geometry
from tlbcore.validation import published as published_rows
from tlbcore.validation.row import Row, Validation

AGREED = Path(__file__).parents[1] / "data" / "published.json"


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return [row.to_dict() for row in tc.validate().rows]


def one(rows, text):
    (found,) = [row for row in rows if text in row["name"]]
    return found


def test_the_patched_getpid_totals_follow_from_the_published_base(rows):
    for part in ("E5-2699", "E7-8890", "pti=auto"):
        row = one(rows, f"getpid on isolated CPUs under v7, {'Gold 6248, ' * (part == 'pti=auto')}{part}")
        assert row["role"] == "prediction"
        assert row["within"], row


def test_call_queue_identities_are_exact(rows):
    identities = [row for row in rows if row["number"] == 12]
    assert len(identities) == 8
    assert all(row["computed"] == row["published"] for row in identities)


def test_traced_purges_are_predicted_from_the_workload(rows):
    traced = [row for row in rows if row["number"] == 11 and "per threshold purge" in row["name"]]
    assert len(traced) == 6
    assert all(row["within"] and row["role"] == "prediction" for row in traced), traced


def test_traced_workloads_last_as_long_as_the_recordings_and_fork_as_often(monkeypatch):
    """What they count does not tell: the same forks in another time have the same purges."""
    runs = []

    def noted(load, **options):
        runs.append(tc.simulate(load, **options))
        return runs[-1]

    monkeypatch.setattr(published_rows, "simulate", noted)
    rows = list(islice(published_rows._traces(), 9))
    assert [row.name for row in rows[::3]] == [
        f"areas per threshold purge, {name}" for name in ("p4.w1", "p4.w2", "v2.w1idle")
    ]
    loads = [run.scenario for run in runs[:3]]
    assert [load.duration_s for load in loads] == [151.56, 121.276, 9.918]
    forking = [(0, 1), (0,), (0,)]
    for load, on, forks in zip(loads, forking, (30_018, 12_008, 9014), strict=True):
        (actor,) = (actor for actor in load.actors if actor.kind == "forks")
        assert actor.on == on
        each_s = actor.params["gap"]["mean_ps"] * 1e-12
        assert load.duration_s / each_s * len(on) == pytest.approx(forks, rel=1e-9)
    recorded = tc.read_trace(Path(__file__).parents[1] / "data" / "v2.w1idle.trace.txt.xz", isolated="1")
    assert round(recorded.seconds, 3) == loads[2].duration_s
    assert (
        one([row.to_dict() for row in rows], "areas per threshold purge, v2")["published"]
        == recorded.purges["areas"].mean()
    )


def test_knees_steps_victims_and_contexts_of_presets_come_out_of_access_streams(rows):
    shapes = [row for row in rows if row["number"] == 9]
    assert len(shapes) == 16
    assert all(row["within"] for row in shapes), shapes


def test_the_victims_of_another_policy_come_in_another_order():
    lru = one_tlb(4, more='replacement = "lru"')
    assert geometry._order(lru, 0, 4, 1) == [1, 2, 3, 4]
    assert geometry._order("skylake-sp", 0, 4, 16) == [1, 3, 2, 4]


def test_a_page_of_a_madvise_under_pti_costs_what_two_flushes_cost(rows):
    slope = one(rows, "each further page of a madvise under PTI, Skylake (AMITPTI)")
    assert slope["within"]
    assert slope["computed"] == pytest.approx(200 + 350)  # INVLPG, INVPCID of one address: HAN17
    calls = [one(rows, f"madvise of {n} under PTI, Skylake (AMITPTI)") for n in ("1 page", "10 pages")]
    assert [row["computed"] for row in calls] == [None, None]
    assert ["its flush takes 866" in row["note"] for row in calls] == [True, False]


def test_the_published_curves_of_shootdowns_are_met_in_shape_and_their_levels_said_apart(rows):
    found = {
        text: (one(rows, text)["computed"], one(rows, text)["ratio"])
        for text in (
            "what 2 threads add", "what 4 threads add", "3 victims cost over", "each further victim on one socket",
            "munmap on 16 cores", "munmap on 120 cores", "shape: 120 cores",
        )
    }  # fmt: skip
    computed = [value for value, _ in found.values()]
    assert computed == pytest.approx([649, 883, 1.362, 117.4, 5527, 51_050, 9.236], rel=1e-3)
    assert [round(ratio, 2) for _, ratio in found.values()] == [1.15, 1.17, 1.01, 1.2, 0.92, 0.64, 0.69]
    assert all(one(rows, text)["within"] for text in found)
    # The published level lies within what the costs' intervals allow.
    assert "25918 to 93243" in one(rows, "munmap on 120")["note"]
    page = (Path(__file__).parents[2] / "docs" / "simulation.md").read_text()
    for ratio, figure in zip(
        (r for _, r in found.values()), ("649", "883", "1.36", "117", "5.5", "51", "9.2"), strict=True
    ):
        assert re.search(rf"\| {re.escape(figure)}( \([^|]*\))? \| {ratio:.2f} \|", page), figure


def test_every_row_of_numbers_is_shown_and_misses_are_not_hidden(rows):
    assert {row["number"] for row in rows} == {2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
    assert {row["role"] for row in rows} == {"input", "fitted", "prediction", "consistency"}
    missed = [row for row in rows if row["within"] is False]
    assert [row["name"] for row in missed] == [
        "getpid on isolated CPUs under v7, Gold 6248, pti=on",
    ]
    assert all(row["note"] for row in missed)


def test_validate_as_json_has_the_fields_a_script_needs(capsys):
    assert main(["validate", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "tlbcore.validate"
    for row in document["rows"]:
        assert {"name", "role", "published", "computed", "ratio", "tolerance", "within"} <= set(row)


def test_looked_up_pages_cost_about_what_the_sum_after_a_flush_says():
    load = scenarios.syscall_heavy(duration_s=0.05)
    means = {}
    for detail in ("summary", "full"):
        run = tc.simulate(load, machine="broadwell-ep-e5-2699v4", policy="coalesce-v7", detail=detail)
        means[detail] = run.total("kernel_ps", isolated=True) / run.total("syscalls", isolated=True)
        assert run.total("refill_misses", isolated=True) > 10 * run.total("syscalls", isolated=True)
    assert means["full"] == pytest.approx(means["summary"], rel=0.1)


def test_the_ends_of_a_costs_interval_bound_the_result():
    load = scenarios.syscall_heavy(duration_s=0.05)
    low, best, high = (
        tc.simulate(load, machine="broadwell-ep", policy="coalesce-v7", costs=costs).total("syscalls")
        for costs in ("low", "best", "high")
    )
    assert high <= best <= low
    assert high < low


def test_results_that_rest_on_unsourced_costs_say_so():
    run = tc.simulate(
        "quiet", machine="zen4-epyc", policy="invlpgb", kernel=tc.Kernel(broadcast_tlb_flush=True)
    )
    assert any("unsourced costs (invlpgb, tlbsync)" in note for note in run.notes)
    assert "unsourced" in run.costs["mark"]


def agreed_on(rows) -> dict[str, list]:
    """Return of each row what a source says, what is accepted, and what comes out, to seven digits."""
    names = ("number", "unit", "role", "published", "tolerance", "absolute")
    found = {}
    for row in rows:
        values = [row[name] for name in names]  # null in the file: not published, or no tolerance
        values = [None if isinstance(value, float) and math.isnan(value) else value for value in values]
        computed = row["computed"]
        found[row["name"]] = [*values, None if computed is None else float(f"{computed:.7g}")]
    return found


def test_figures_and_tolerances_are_those_that_were_agreed_on(rows):
    """A tolerance that is widened, a row that goes, or a figure that moves within its tolerance, is seen in the list.

    `python -m tests.simulate.test_sim_validate` writes it anew.
    """
    agreed = json.loads(AGREED.read_text())
    assert agreed_on(rows) == agreed
    assert list(agreed) == [row["name"] for row in rows]


def test_what_a_note_says_of_a_figure_is_the_figure(rows):
    for name, base, published in (
        ("v7, E5-2699", 770, 570), ("v7, E7-8890", 1040, 280), ("pti=auto", 270, 3), ("pti=on", 270, 3),
    ):  # fmt: skip
        row = one([row for row in rows if row["number"] == 14], name)
        added = row["computed"] - base
        assert row["note"].split(";")[0] == f"difference {added:+.0f} ns, published {published:+d} ns"
        assert ("INVPCID of type 2 alone is 376 ns" in row["note"]) is (name == "pti=on")
    gettid = one(rows, "gettid")
    added = gettid["computed"] - 698.64
    assert gettid["note"] == f"difference {added:+.2f} ns, published +3.96 +- 3.4 ns"
    assert one(rows, "512 touched pages")["note"].endswith(
        "without flushes 1800 ns"
    )  # the base that is given
    purges = {text: one(rows, text) for text in ("threshold purges, p4.w6", "tail purges included, p4.w6")}
    tails = purges["tail purges included, p4.w6"]["computed"] - purges["threshold purges, p4.w6"]["computed"]
    for row in purges.values():
        assert (
            row["note"] == f"mean of 90 runs, {tails:.1f} tail purges; the host's delays are measured inputs"
        )
    ten = one(rows, "madvise of 10 pages")["note"]
    assert ten.endswith(f"its flush takes {866 + 9 * 550}")  # the first page, and nine further ones
    noise = {text: one(rows, f"6 h of rteval, {text}")["note"] for text in ("ipi", "coalesce-v7")}
    assert noise["coalesce-v7"] == "patched: zero"
    hours = tc.simulate(scenarios.rteval(), machine="broadwell-ep-e5-2699v4", policy="ipi")
    assert hours.duration_s == 6 * 3600
    areas = hours.total("areas_purged")
    assert noise["ipi"].startswith(f"uncached stack frees {areas / 21_600:.0f}/s; ")
    assert noise["ipi"].endswith(f"200 interrupts mean one purge in {21_600 / 200:.0f} s")


@pytest.mark.parametrize(
    ("published", "computed", "tolerance", "absolute", "ratio", "within"),
    [
        (100.0, 125.0, 0.25, False, 1.25, True),
        (100.0, 125.1, 0.25, False, 1.251, False),
        (100.0, 75.0, 0.25, False, 0.75, True),
        (100.0, 74.9, 0.25, False, 0.749, False),
        (-4.0, -5.0, 0.25, False, 1.25, True),
        (-4.0, -5.1, 0.25, False, 1.275, False),
        (100.0, 100.25, 0.25, True, 1.0025, True),
        (100.0, 100.26, 0.25, True, 1.0026, False),
        (0.0, 0.0, 0.0, True, None, True),
        (0.0, 1.0, 0.5, True, None, False),
        (0.0, 0.1, 0.5, False, None, False),
        (100.0, None, 0.25, False, None, None),
    ],
)
def test_a_figure_is_within_its_tolerance_up_to_the_last_of_it(
    published, computed, tolerance, absolute, ratio, within
):
    row = Row(
        number=1, name="n", unit="ns", role="input", published=published, computed=computed, tolerance=tolerance,
        absolute=absolute,
    )  # fmt: skip
    assert row.ratio == (None if ratio is None else pytest.approx(ratio))
    assert row.within is within
    assert Validation(rows=(row,)).misses == ((row,) if within is False else ())


def test_rows_that_are_arithmetic_on_published_figures(rows):
    """A line of 1050 + 227 cycles a page; the cost of one page, and the preset's slope for each further one."""
    by_name = {row["name"]: row["computed"] for row in rows}
    for pages in (1, 2, 4, 8, 16, 33):
        assert by_name[f"flush of {pages} pages, Ivy Bridge"] == 1050 + 227 * pages
    costs = tc.machines["skylake-sp"].costs
    invlpg = costs["invlpg"].cycles
    both = invlpg + costs["invpcid_address"].cycles
    for title, first, slope in (("INVLPG only", 692, invlpg), ("with INVPCID", 1094, both)):
        for pages in (1, 4, 33, 129):
            assert by_name[f"flush of {pages} pages, Skylake, {title}"] == first + slope * (pages - 1)


if __name__ == "__main__":
    whole = agreed_on([row.to_dict() for row in tc.validate().rows])
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in whole.items())
    AGREED.write_text(f"{{\n{lines}\n}}\n")
