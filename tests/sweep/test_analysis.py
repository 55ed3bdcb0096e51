"""Effects, Pareto front and break-even against answers known beforehand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlbcore import ConfigError, SweepError, _core, analysis


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
    with pytest.raises(SweepError, match=r"no change of sign of cost_ns .* is 2 at 1, 10 at 9"):
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


@pytest.mark.parametrize("turned", [False, True])
def test_each_value_has_the_interval_of_its_own_spread(turned: bool):
    """Spread 1, 10 and 100, from four, three and five replications: Student's t of 3, 2 and 4 degrees of freedom."""
    some = {
        "a": [0.0, 2.0, 4.0, 6.0],
        "b": [100.0, 120.0, 140.0],
        "c": [3000.0, 3200.0, 3400.0, 3600.0, 3800.0],
    }
    rows = [(x, turn, y) for x, values in some.items() for turn, y in enumerate(values)]
    x, replication, y = (np.array(column) for column in zip(*(rows[::-1] if turned else rows), strict=True))
    found = analysis.effects({"x": x, "replication": replication, "y": y}, ["x"], "y")
    assert found["value"].tolist() == ["a", "b", "c"]
    assert found["mean"].tolist() == [3.0, 120.0, 3400.0]
    assert found["replications"].tolist() == [4, 3, 5]
    # Spacings of 2, 20 and 200 have standard deviations of 2 sqrt(5/3), 20 and 200 sqrt(5/2).
    half = [
        3.182446 * 2 * math.sqrt(5 / 3) / math.sqrt(4),
        4.302653 * 20 / math.sqrt(3),
        2.776445 * 200 * math.sqrt(5 / 2) / math.sqrt(5),
    ]
    np.testing.assert_allclose(found["high"] - found["mean"], half, rtol=1e-6)
    np.testing.assert_allclose(found["mean"] - found["low"], half, rtol=1e-6)


def test_two_parameters_of_unlike_effects_are_not_taken_for_each_other():
    """`x` adds 1, `other` adds 100; replications spread by 1 where `x` is 2, and by 10 where it is 4."""
    apart = {2: 1.0, 4: 10.0}
    rows = [
        (x, other, turn, x + other + apart[x] * (turn - 1))
        for x in (2, 4)
        for other in (100, 200)
        for turn in range(3)
    ]
    x, other, replication, y = (np.array(column) for column in zip(*rows, strict=True))
    table = {"x": x, "other": other, "replication": replication, "y": y}
    found = analysis.effects(table, ["x", "other"], "y")
    assert found["parameter"].tolist() == ["x", "x", "other", "other"]
    assert found["value"].tolist() == ["2", "4", "100", "200"]
    assert found["mean"].tolist() == [152.0, 154.0, 103.0, 203.0]
    assert found["count"].tolist() == [2, 2, 2, 2]
    # Of each replication the mean over the other parameter: spacings of 1 and 10; over both x, of 5.5.
    half = [4.302653 * spacing / math.sqrt(3) for spacing in (1.0, 10.0, 5.5, 5.5)]
    np.testing.assert_allclose(found["high"] - found["mean"], half, rtol=1e-6)


@pytest.mark.parametrize("loud", [1.0, 9.0])
def test_a_break_even_whose_ends_are_not_equally_certain(loud: float):
    """Noise of 8 at one end and hardly any at the other: replications go where it is, and the zero is inside."""
    fixed = np.random.default_rng(3).standard_normal(400)

    def differences(x: float, count: int) -> np.ndarray:
        near = 1 - abs(x - loud) / 8
        return (x - 4.1) * 2 + 8 * near**4 * fixed[:count]

    found = find(differences)
    assert found.low <= 4.1 <= found.high
    used = dict(zip(found.points["value"].tolist(), found.points["replications"].tolist(), strict=True))
    assert used[loud] >= used[10.0 - loud]


@pytest.mark.parametrize(
    ("options", "asked", "confidence"),
    [
        ({}, [5, 10, 20, 40], 1 - 0.05 / 4),
        ({"replications": 6, "most_replications": 20}, [6, 12, 20], 1 - 0.05 / 3),
        ({"replications": 2, "most_replications": 2}, [2], 0.95),
        ({"replications": 3, "most_replications": 6}, [3, 6], 1 - 0.05 / 2),
    ],
)
def test_each_look_doubles_the_replications_and_spends_its_share_of_the_doubt(options, asked, confidence):
    looks: dict[float, list[int]] = {}

    def differences(x: float, count: int) -> np.ndarray:
        looks.setdefault(x, []).append(count)
        return (x - 5) * 100 + np.arange(count) - (count - 1) / 2

    found = find(differences, **options)
    assert looks[5.0] == asked, "in the middle no number of them decides"
    assert looks[1.0] == asked[:1]
    last = asked[-1]
    values = np.arange(last) - (last - 1) / 2
    at = found.points["value"].tolist().index(5.0)
    mean, low, high = analysis.interval(values, confidence)
    assert [found.points[name][at] for name in ("mean", "low", "high", "replications")] == [
        mean, low, high, last,
    ]  # fmt: skip
    assert found.points["value"].tolist() == sorted(looks)
    assert found.value == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("low", "high", "middle"),
    [(1.0, 10.0, 5.5), (1.0, 10.1, 10.1**0.5), (0.0, 100.0, 50.0), (-1.0, 99.0, 49.0), (4.0, 400.0, 40.0)],
)
def test_a_range_of_more_than_ten_times_is_halved_by_its_logarithm(low: float, high: float, middle: float):
    order: list[float] = []

    def differences(x: float, count: int) -> np.ndarray:
        order.append(x)
        return np.full(count, x - middle * 1.01)

    found = find(differences, low, high, tolerance=0.1)
    assert order[:3] == [low, high, pytest.approx(middle)]
    logarithmic = low > 0 and high / low > 10
    width = math.log(found.high / found.low) if logarithmic else (found.high - found.low) / (high - low)
    assert 0.05 < width <= 0.1, "halved until it is no wider than that, and no further"


def test_ends_that_are_open_or_of_one_sign_are_refused():
    for differences in (
        lambda x, n: np.full(n, 0.0 if x < 2 else 1.0),
        lambda x, n: np.full(n, 0.0 if x > 8 else -1.0),
        lambda _, n: np.full(n, -1.0),
    ):
        with pytest.raises(
            SweepError,
            match=r"no (change of sign|break-even) of cost_ns .*rate_hz = 1 (to|and) 9: ipi minus ct-late is",
        ):
            find(differences)
    for options in ({"replications": 1}, {"replications": 6, "most_replications": 5}):
        with pytest.raises(SweepError, match=r"replications must be"):
            find(line(1, 4, 0), **options)
    for low, high in ((1.0, 1.0), (math.nan, 2.0), (1.0, math.inf)):
        with pytest.raises(SweepError, match=r"low (must be below high|and high must be finite)"):
            find(line(1, 4, 0), low, high)


def test_who_is_cheaper_where_follows_the_sign():
    rising, falling = find(line(1.0, 4.0, 0.0)), find(line(-1.0, 4.0, 0.0))
    assert (rising.cheaper_below, rising.cheaper_above) == ("ipi", "ct-late")
    assert (falling.cheaper_below, falling.cheaper_above) == ("ct-late", "ipi")


def test_a_front_is_in_order_of_its_first_metric_and_needs_whole_rows():
    table = {
        "p": np.array(["a", "b", "c", "d", "e"]),
        "x": np.array([3.0, 1.0, 2.0, 1.0, math.nan]),
        "y": np.array([1.0, 3.0, 2.0, 4.0, 0.0]),
    }
    front = analysis.pareto(table, ["x", "y"], ["p"])
    assert front["p"].tolist() == ["b", "c", "a"]
    assert (front["x"].tolist(), front["y"].tolist()) == ([1.0, 2.0, 3.0], [3.0, 2.0, 1.0])
    assert analysis.pareto(table, ["y"], ["p"])["p"].tolist() == ["e"]
    with pytest.raises(SweepError, match="at least one metric"):
        analysis.pareto(table, [], ["p"])


def test_an_interval_of_none_one_and_two():
    assert np.isnan(analysis.interval(np.array([]))).all()
    assert analysis.interval(np.array([3.0])) == (3.0, -math.inf, math.inf)
    mean, low, high = analysis.interval(np.array([0.0, 2.0]))
    assert (mean, high - mean, mean - low) == pytest.approx((1.0, 12.7062, 12.7062), rel=1e-5)


def test_rows_of_one_configuration_and_replication_are_averaged():
    # The mean of y at x = 1 over both z, and not the row that stands last.
    table = {"x": np.array([1, 1, 2, 2]), "z": np.array([0, 1, 0, 1]), "y": np.array([1.0, 3.0, 5.0, 8.0])}
    shown = analysis.effects(table | {"replication": np.zeros(4)}, ["x"], "y")
    assert shown["mean"].tolist() == [2.0, 6.5]
    assert shown["count"].tolist() == shown["replications"].tolist() == [1, 1]
    three = analysis.effects({"x": np.ones(3), "y": np.full(3, 0.1), "replication": np.zeros(3)}, ["x"], "y")
    assert three["mean"].tolist() == [0.1]  # not 0.1 + 0.1 + 0.1 by three, which is a bit more
    torn = analysis.effects(
        table | {"y": np.array([1, math.nan, 5, 8.0]), "replication": np.zeros(4)}, ["x"], "y"
    )
    assert torn["mean"][1] == 6.5
    assert math.isnan(torn["mean"][0])
    assert torn["replications"].tolist() == [0, 1]


def test_a_front_of_nothing_told_apart_is_one_row_and_of_no_rows_none():
    table = {"x": np.array([1.0, 3.0]), "y": np.array([2.0, 6.0]), "replication": np.array([0, 1])}
    assert {k: v.tolist() for k, v in analysis.pareto(table, ["y"], []).items()} == {"y": [4.0]}
    assert {k: v.tolist() for k, v in analysis.pareto(table, ["y"], ["replication"]).items()} == {"y": [4.0]}
    none = {"x": np.array([]), "y": np.array([])}
    assert {k: v.tolist() for k, v in analysis.pareto(none, ["y"], ["x"]).items()} == {"x": [], "y": []}


def test_columns_of_words_have_no_means():
    table = {"x": np.array([1, 2]), "word": np.array(["a", "b"])}
    for ask in (
        lambda: analysis.effects(table, ["x"], "word"),
        lambda: analysis.pareto(table, ["word"], ["x"]),
    ):
        with pytest.raises(SweepError, match=r"^the column 'word' does not hold numbers$"):
            ask()


@pytest.mark.parametrize("confidence", [0, 1, 1.5, -0.1, math.nan])
def test_a_confidence_is_a_share_between_none_and_all(confidence: float):
    with pytest.raises(ConfigError, match="confidence must be above 0 and below 1"):
        analysis.interval(np.array([1.0, 2.0]), confidence)


@pytest.mark.parametrize("confidence", [1.0, 1.5, 0.0, -0.5, float("nan"), float("inf")])
def test_the_core_refuses_a_confidence_that_is_none(confidence: float):
    for values in (1, 2, 10):
        with pytest.raises(SweepError, match="confidence must be between 0 and 1: got "):
            _core.student_t(values, confidence)
    # NIST/SEMATECH e-Handbook 1.3.6.7.2: the upper critical value for 0.975 with one degree of freedom.
    assert _core.student_t(2, 0.95) == pytest.approx(12.706, abs=5e-4)
    assert _core.student_t(1, 0.95) == float("inf")


def test_an_interval_is_of_a_row_of_numbers():
    with pytest.raises(ConfigError, match=r"got an array of shape \(2, 1\)"):
        analysis.interval(np.ones((2, 1)))


@pytest.mark.parametrize(("low", "high"), [(0.0, 4.0), (1.0, 400.0), (-1e308, 1e308), (1e-200, 1e200)])
def test_the_finest_tolerance_ends_at_neighbouring_numbers(low: float, high: float):
    found = find(lambda x, n: np.full(n, x - 1.2345), low, high, tolerance=0)
    assert found.low <= 1.2345 <= found.high
    assert found.high - found.low < 1e-12


@pytest.mark.parametrize("tolerance", [-0.1, math.nan, math.inf, "narrow"])
def test_a_tolerance_that_no_width_can_meet_is_refused(tolerance: object):
    with pytest.raises(SweepError, match="tolerance must be a finite number of at least 0"):
        find(line(1.0, 4.0, 0.0), tolerance=tolerance)


@pytest.mark.parametrize(
    ("low", "high", "zero"),
    [(1, 9, 4.3), (1, 64, 7.5), (1, 3, 1.5), (1, 2, 1.5), (1, 40, 39.5), (-9, 4, -2.5)],
)
def test_whole_numbers_only_are_tried_and_the_interval_is_two_neighbours(low: int, high: int, zero: float):
    tried = []

    def differences(x: float, count: int) -> np.ndarray:
        tried.append(x)
        return np.full(count, x - zero)

    found = find(differences, low, high, tolerance=0, whole=True)
    assert all(x.is_integer() for x in map(float, tried))
    assert (found.low, found.high) == (math.floor(zero), math.ceil(zero))
    assert len(set(tried)) == len(tried) <= 2 + 8  # halves of the logarithm, not one after the other


@pytest.mark.parametrize("sense", [1, -1])
def test_whole_numbers_between_which_the_sign_is_open(sense: int):
    open_at_five = lambda x, n: sense * np.sign(x - 5) * (abs(x - 5) > 1) * np.ones(n)  # noqa: E731
    found = find(open_at_five, tolerance=0, whole=True)
    assert (found.low, found.high) == (3, 7)


@pytest.mark.parametrize(("low", "high"), [(1.5, 9), (1, 8.5)])
def test_ends_that_are_not_whole_are_refused_where_only_whole_numbers_are_taken(low: float, high: float):
    with pytest.raises(SweepError, match=f"rate_hz takes whole numbers: .* got {low:g} and {high:g}"):
        find(line(1.0, 4.0, 0.0), low, high, whole=True)


@pytest.mark.parametrize(("low", "high"), [(1, math.inf), (-math.inf, 2), (math.nan, 2)])
def test_ends_must_be_finite(low: float, high: float):
    with pytest.raises(SweepError, match=f"low and high must be finite: got {low:g} and {high:g}"):
        find(line(1.0, 4.0, 0.0), low, high)


def test_an_end_whose_sign_is_open_is_not_called_one_without_a_break_even():
    both = "its sign is not certain at 1 after 5 replications and at 9 after 5 replications$"
    with pytest.raises(SweepError, match=f"no break-even of cost_ns can be told between .*, and {both}"):
        find(line(0.0, 0.0, 0.0))
    with pytest.raises(
        SweepError, match=r"is 0 at 1, 8 at 9, and its sign is not certain at 1 after 5 replications$"
    ):
        find(lambda x, n: np.full(n, x - 1))
    with pytest.raises(
        SweepError, match=r"is -8 at 1, 0 at 9, and its sign is not certain at 9 after 5 replications$"
    ):
        find(lambda x, n: np.full(n, x - 9))
