"""Effects, Pareto front and break-even against answers known beforehand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlbcore import SweepError, analysis


def line(slope: float, zero: float, noise: float):
    """Differences that are a line through zero at `zero`, with noise that a seed fixes."""

    def differences(x: float, count: int) -> np.ndarray:
        return slope * (x - zero) + noise * np.random.default_rng(int(1000 * x)).standard_normal(count)

    return differences


def find(differences, low: float = 1.0, high: float = 9.0, **options: object) -> analysis.BreakEven:
    return analysis.bisect(
        differences, low, high, parameter="rate_hz", metric="cost_ns", policies=("ipi", "ct-late"), **options
    )


@given(st.floats(1.5, 8.5), st.floats(0.5, 10), st.sampled_from([-1, 1]))
def test_break_even_without_noise_is_the_zero(zero: float, slope: float, sense: int):
    found = find(line(sense * slope, zero, 0.0))
    assert found.value == pytest.approx(zero, abs=1e-6)
    assert found.low <= zero <= found.high
    assert found.high - found.low <= 2 * 0.02 * 8
    assert found.cheaper_above == ("ct-late" if sense > 0 else "ipi")


def test_noise_widens_the_interval_and_it_still_holds_the_zero():
    calm, noisy = find(line(1.0, 4.1, 0.01)), find(line(1.0, 4.1, 1.0))
    assert calm.high - calm.low < noisy.high - noisy.low
    assert noisy.low < 4.1 < noisy.high
    assert max(noisy.points["replications"]) == 40


def test_wide_ranges_are_searched_on_a_logarithmic_scale():
    found = find(lambda x, n: np.full(n, math.log(x / 300.0)), 1.0, 1e6)
    assert found.value == pytest.approx(300.0, rel=1e-6)
    assert len(found.points["value"]) < 15


def test_the_sentence_names_the_cheaper_policy_on_each_side():
    assert str(find(line(1.0, 4.0, 0.0))).startswith("cost_ns: ipi below and ct-late above rate_hz = 4 (")


def test_no_change_of_sign_is_an_error_with_both_ends():
    with pytest.raises(SweepError, match=r"no break-even of cost_ns .* is 2 at 1, 10 at 9"):
        find(lambda x, n: np.full(n, x + 1.0))


def test_limits_in_the_wrong_order_are_refused():
    with pytest.raises(SweepError, match="low must be below high: got 9 and 1"):
        find(line(1, 4, 0), 9.0, 1.0)


def test_interval_covers_the_mean_in_95_of_100_samples():
    rng = np.random.default_rng(1)
    for count in (3, 10, 60):
        covered = 0
        for _ in range(2000):
            _, low, high = analysis.interval(rng.standard_normal(count))
            covered += low < 0 < high
        assert 0.93 < covered / 2000 < 0.97


def test_effects_leave_out_what_is_missing():
    table = {"x": np.array(["a", "a", "b"]), "y": np.array([1.0, np.nan, 3.0])}
    found = analysis.effects(table, ["x"], "y")
    assert found["mean"].tolist() == [1.0, 3.0]
    assert found["count"].tolist() == [1, 1]


def test_other_parameters_widen_no_interval():
    """A metric that another parameter multiplies by a thousand, and that repeating varies by 1 %."""
    rng = np.random.default_rng(5)
    x, other, replication = (a.ravel() for a in np.meshgrid([1, 2], [1.0, 1000.0], range(8), indexing="ij"))
    table = {"x": x, "other": other, "replication": replication}
    table["y"] = x * other * rng.normal(1.0, 0.01, len(x))
    found = analysis.effects(table, ["x"], "y", cells=["x", "other"])
    np.testing.assert_allclose(found["mean"], [500.5, 1001.0], rtol=0.02)
    assert (found["high"] - found["low"] < 0.03 * found["mean"]).all()
    assert found["count"].tolist() == [2, 2]
    assert found["replications"].tolist() == [8, 8]
    one = {name: column[replication == 0] for name, column in table.items()}
    assert np.isnan(analysis.effects(one, ["x"], "y", cells=["x", "other"])["low"]).all()


def test_effects_cover_the_mean_in_95_of_100_studies_though_policies_share_their_draws():
    rng = np.random.default_rng(6)
    x, policy, replication = (a.ravel() for a in np.meshgrid([0, 1], [0, 1, 2], range(5), indexing="ij"))
    covered = 0
    for _ in range(1000):
        draws = rng.standard_normal((2, 5))  # one per point and replication; its policies share it
        table = {"x": x, "policy": policy, "replication": replication}
        table["y"] = 3.0 + policy + draws[x, replication]
        found = analysis.effects(table, ["x"], "y", cells=["x", "policy"])
        covered += found["low"][0] < 4.0 < found["high"][0]
    assert 930 < covered < 970


def test_a_constant_is_itself_and_no_interval():
    for value in (0.1, 1e-9, 34.83, 0.0):
        assert analysis.interval(np.full(7, value)) == (value, value, value)


def test_looking_again_does_not_buy_certainty():
    """Two policies that cost the same: their difference is called certain at 5 % of points at most, in all looks."""
    rng = np.random.default_rng(8)
    wrong = asked = 0
    for _ in range(300):
        draws: dict[float, np.ndarray] = {}

        def differences(x: float, count: int, draws=draws) -> np.ndarray:
            # At the ends the sign is certain; between them there is no difference at all.
            kept = draws.setdefault(x, rng.standard_normal(40))[:count]
            return kept + (-100.0 if x <= 0 else 100.0 if x >= 1 else 0.0)

        found = analysis.bisect(
            differences, 0.0, 1.0, parameter="x", metric="m", policies=("a", "b"), tolerance=0.4
        )
        points = found.points
        middle = (points["value"] > 0) & (points["value"] < 1)
        asked += int(middle.sum())
        wrong += int((middle & ((points["low"] > 0) | (points["high"] < 0))).sum())
    assert asked > 500
    assert wrong / asked < 0.06


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=20))
def test_the_front_is_what_nothing_dominates(points: list[tuple[int, int]]):
    points = sorted(set(points))
    table = {
        "p": np.arange(len(points)),
        "x": np.array([p[0] for p in points], float),
        "y": np.array([p[1] for p in points], float),
    }
    front = analysis.pareto(table, ["x", "y"], ["p"])
    slow = [
        i
        for i, (x, y) in enumerate(points)
        if not any((a <= x and b <= y) and (a, b) != (x, y) for a, b in points)
    ]
    assert sorted(front["p"].tolist()) == slow


def test_replications_are_averaged_before_they_are_compared():
    table = {
        "p": np.array(["a", "a", "b", "b"]),
        "replication": np.array([0, 1, 0, 1]),
        "x": np.array([0.0, 4.0, 1.0, 1.0]),
    }
    front = analysis.pareto(table, ["x"], ["p", "replication"])
    assert front["p"].tolist() == ["b"]


def test_an_unknown_column_gets_the_nearest():
    with pytest.raises(SweepError, match="unknown column 'cots', did you mean 'cost'"):
        analysis.effects({"cost": np.ones(2)}, ["cost"], "cots")
