"""Where each check begins to warn and to fail: a little below nothing, a little above something."""

from typing import Any

import numpy as np
import pytest

from benchkit.checks import alignment, check_chance, check_features, check_labels, check_published, check_shuffled
from benchkit.checks.alignment import align
from benchkit.checks.chance import gain_of_random_order
from benchkit.interfaces import Problem, Published
from benchkit.records.report import Metric

# -------------------------------------------------------------------------------------------------------------- chance

RARE, OTHERS = ("cmap", "micro_map"), ("top1", "balanced_accuracy", "macro_f1", "auroc")
LEVELS = [(m, *levels) for group, levels in ((RARE, (0.6, 0.75)), (OTHERS, (0.75, 0.9))) for m in group]


@pytest.mark.parametrize(("metric", "warn", "fail"), LEVELS)
def test_chance_that_is_good_already_warns_and_fails_from_its_levels_on(metric: str, warn: float, fail: float) -> None:
    perfect = Metric(metric, 0.999, 0.998, 1.0)
    for chance, status in (
        (0.5, "ok"), (warn - 0.001, "ok"), (warn, "ok"), (warn + 0.001, "warn"), (fail, "warn"), (fail + 0.001, "fail"),
        (0.99, "fail"),
    ):  # fmt: skip
        check = check_chance(perfect, chance)
        assert check.status == status, chance
        assert ("a constant scorer already gets" in check.summary) == (status != "ok")
    assert (check.details["warn_above"], check.details["fail_above"]) == (warn, fail)


def test_of_cmap_065_warns_and_08_fails() -> None:
    assert check_chance(Metric("cmap", 0.9, 0.88, 0.92), 0.65).status == "warn"
    assert check_chance(Metric("cmap", 0.9, 0.88, 0.92), 0.8).status == "fail"
    assert check_chance(Metric("top1", 0.9, 0.88, 0.92), 0.65).status == "ok"
    assert check_chance(Metric("top1", 0.9, 0.88, 0.92), 0.8).status == "warn"


def test_it_is_the_low_end_of_the_interval_that_must_lie_above_chance() -> None:
    for low, status in ((0.199, "warn"), (0.2, "warn"), (0.201, "ok")):
        check = check_chance(Metric("top1", 0.3, low, 0.4), 0.2)
        assert check.status == status
        assert ("is not above the 0.2000" in check.summary) == (status == "warn")


def test_what_random_order_gains_counts_for_cmap_alone_and_only_where_the_test_set_is_known() -> None:
    gain = gain_of_random_order("cmap", 50)
    assert gain == pytest.approx((np.log(50) - 0.42) / 50)
    measured = Metric("cmap", 0.2, 0.1 + gain / 2, 0.3)
    assert check_chance(measured, 0.1).status == "ok"
    assert check_chance(measured, 0.1, n_test=50).status == "warn"
    assert check_chance(Metric("cmap", 0.2, 0.1 + 1.01 * gain, 0.3), 0.1, n_test=50).status == "ok"
    assert check_chance(Metric("auroc", 0.6, 0.501, 0.7), 0.5, n_test=50).status == "ok"
    assert gain_of_random_order("micro_map", 50) == gain_of_random_order("top1", 50) == 0
    assert gain_of_random_order("cmap", 1) == 0, "never below 0"


def test_the_gain_of_random_order_is_about_what_random_scores_gain() -> None:
    rng = np.random.default_rng(0)
    for n in (20, 200):
        ranks = rng.integers(1, n + 1, 200_000)  # of the one positive
        assert (1 / ranks).mean() - 1 / n == pytest.approx(gain_of_random_order("cmap", n), abs=0.3 / n)


# ------------------------------------------------------------------------------------------------------------ shuffled


def test_a_permuted_fit_fails_above_the_margin_the_noise_and_half_of_the_gain_whichever_is_most() -> None:
    def status(permuted: Metric, true: float, chance: float = 0.1, n: int = 10**6) -> str:
        return check_shuffled(permuted, Metric(permuted.name, true), chance, n).status

    assert [status(Metric("top1", 0.1 + d), 0.1) for d in (0.029, 0.031)] == ["ok", "fail"]
    assert [status(Metric("top1", v, v - 0.05, 1.0), 0.1) for v in (0.199, 0.201)] == ["ok", "fail"]
    assert [status(Metric("top1", v), 0.9) for v in (0.499, 0.501)] == ["ok", "fail"]
    gain = gain_of_random_order("cmap", 40)
    assert [status(Metric("cmap", 0.1 + 0.03 + gain + d), 0.1, n=40) for d in (-0.001, 0.001)] == ["ok", "fail"]


# ----------------------------------------------------------------------------------------------------------- published


def paper(value: float, metric: str = "cmap") -> Published:
    return Published("bird-mae", "linear", -1, metric, value, "arXiv 0000.00000, table 1")


@pytest.mark.parametrize(
    ("value", "status"), [(0.379, "warn"), (0.381, "ok"), (0.45, "ok"), (0.519, "ok"), (0.521, "warn")]
)
def test_a_paper_may_lie_002_outside_of_the_interval_on_either_side(value: float, status: str) -> None:
    assert check_published([Metric("cmap", 0.45, 0.4, 0.5)], [paper(value)]).status == status


@pytest.mark.parametrize(("value", "status"), [(0.429, "warn"), (0.431, "ok"), (0.469, "ok"), (0.471, "warn")])
def test_without_an_interval_it_may_lie_002_from_the_value(value: float, status: str) -> None:
    assert check_published([Metric("cmap", 0.45)], [paper(value)]).status == status


def test_each_published_number_is_held_against_its_own_metric_and_all_are_told() -> None:
    ours = [Metric("cmap", 0.45, 0.4, 0.5), Metric("auroc", 0.9), Metric("top1", 0.7)]
    check = check_published(ours, [paper(0.46), paper(0.8, "auroc"), paper(0.1, "macro_f1")])
    assert check.status == "warn"
    assert check.summary == "auroc 0.9000, published 0.8000 (arXiv 0000.00000, table 1): gap +0.1000"
    gaps = {g["metric"]: (g["value"], g["published"], pytest.approx(g["gap"])) for g in check.details["gaps"]}
    assert gaps == {"cmap": (0.45, 0.46, -0.01), "auroc": (0.9, 0.8, 0.1)}
    fine = check_published(ours[:1], [paper(0.46), paper(0.44)])
    assert fine.summary.count("published") == 2


# ------------------------------------------------------------------------------------------------------------ features


def features(n: int = 400, dim: int = 40) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, dim))


def found(x: np.ndarray) -> str:
    check = check_features(x.astype(np.float32))
    return check.summary if check.status == "warn" else check.status


@pytest.mark.parametrize(("times", "marked"), [(9.5, False), (10.5, True)])
def test_one_dimension_is_an_outlier_from_ten_times_the_next_on(times: float, marked: bool) -> None:
    x = features()
    x /= np.sqrt((x**2).mean(axis=0))
    x[:, 3] *= times
    assert ("dimension 3 carries" in found(x)) == marked


@pytest.mark.parametrize(("times", "marked"), [(190, False), (210, True)])
def test_two_dimensions_are_outliers_from_two_hundred_times_the_median_on(times: float, marked: bool) -> None:
    x = features()
    x /= np.sqrt((x**2).mean(axis=0))
    x[:, 3:5] *= times
    assert ("2 dimensions (" in found(x)) == marked


@pytest.mark.parametrize(("dim", "marked"), [(7, False), (8, True)])
def test_of_few_dimensions_one_may_carry_most(dim: int, marked: bool) -> None:
    x = features(dim=dim)
    x[:, 3] *= 1000
    assert ("dimension 3 carries" in found(x)) == marked


def test_an_outlier_that_carries_less_than_half_of_the_norm_is_left_alone() -> None:
    x = features(dim=400)
    x /= np.sqrt((x**2).mean(axis=0))
    x[:, 3] *= 15  # 225 of 624
    assert found(x) == "ok"
    x[:, 3] *= 1.5  # 506 of 905
    assert "dimension 3 carries 55.9% of the mean squared norm" in found(x)


@pytest.mark.parametrize(("n", "marked"), [(4, False), (5, True)])
def test_more_than_one_row_in_a_hundred_of_zeros_warns(n: int, marked: bool) -> None:
    x = features()
    x[:n] = 0
    assert ("rows are all zero" in found(x)) == marked


def test_rows_of_zeros_nan_and_constant_dimensions_are_looked_for_in_all_rows() -> None:
    """8,192 at a time; closely looked at are 2,048."""
    x = features(n=20_000, dim=8).astype(np.float32)
    x[:, 3] = 1
    x[10_000, 3] = 2
    x[[5, 9000, 19_999], 1] = np.nan
    x[17, 2], x[18_000, 2] = np.inf, -np.inf
    x[100:220] = x[9100:9220] = 0
    found = check_features(x)
    assert found.summary.startswith("train: 3 NaN and 2 infinite values")
    assert "1.2% of the rows are all zero" in found.summary
    anatomy = found.details["train"]
    assert (anatomy["n"], anatomy["n_constant"], anatomy["n_nan"], anatomy["n_infinite"]) == (20_000, 0, 3, 2)


@pytest.mark.parametrize(("distinct", "marked"), [(199, True), (200, False)])
def test_less_than_half_of_the_rows_distinct_warns(distinct: int, marked: bool) -> None:
    x = features()
    x = x[np.minimum(np.arange(400), distinct - 1)]
    assert ("of the rows are distinct" in found(x)) == marked


@pytest.mark.parametrize(("constant", "marked"), [(20, False), (21, True)])
def test_more_than_half_of_the_dimensions_constant_warns(constant: int, marked: bool) -> None:
    x = features()
    x[:, :constant] = 0.5
    assert ("dimensions are constant" in found(x)) == marked


@pytest.mark.parametrize(("second", "marked"), [(0.2, True), (1.0, False)])
def test_an_effective_rank_below_2_warns(second: float, marked: bool) -> None:
    """Three directions of strengths 1, `second` and 0.1: 1.9 and 2.4 of them."""
    q = np.linalg.qr(features(40, 3))[0].T
    x = features(400, 3) @ (np.array([[1], [second], [0.1]]) * q)
    assert ("collapsed" in found(x)) == marked


@pytest.mark.parametrize(("noise", "dead"), [(3e-6, True), (3e-5, False)])
def test_features_are_dead_where_they_vary_no_more_than_rounding(noise: float, dead: bool) -> None:
    x = 1 + noise * features()
    assert (check_features(x).status == "fail") == dead


# -------------------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize(("share", "status"), [(0.5, "ok"), (0.51, "fail")])
def test_more_than_half_of_several_labels_set_is_taken_for_inverted(share: float, status: str) -> None:
    y = (np.arange(100)[:, None] < 100 * share * np.ones(3)).astype(np.uint8)
    assert check_labels(Problem("multilabel", 3), [(y, y)]).status == status
    assert check_labels(Problem("multilabel", 2), [(y[:, :2], y[:, :2])]).status == ("ok" if share == 0.5 else "warn")
    assert check_labels(Problem("traits", 3), [(y, y)]).status == ("ok" if share == 0.5 else "warn")


@pytest.mark.parametrize(("n", "warns"), [(50, False), (51, True)])
def test_a_class_on_more_than_half_of_the_examples_is_named(n: int, warns: bool) -> None:
    y = np.zeros((100, 4), np.uint8)
    y[:n, 0], y[:10, 1:] = 1, 1
    check = check_labels(Problem("multilabel", 4), [(y, y)])
    assert ("1 of 4 classes are on more than half of train: '0'" in check.summary) == warns


# ----------------------------------------------------------------------------------------------------------- alignment


def pairs(n: int, right: int, shifted: int) -> tuple[np.ndarray, np.ndarray]:
    """Features in `n` pairs of twins, and labels that agree in `right` pairs at their own rows and in `shifted` other
    ones one row later."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(n, 30))
    first, second = 3 + 8 * np.arange(n), 7 + 8 * np.arange(n)  # so far apart that no offset meets another pair
    x = rng.normal(size=(8 * n + 10, 30)) * 5
    x[first], x[second] = 100 * points, 100 * points + 0.01
    y = np.arange(len(x)) % 10**6  # all different
    y[second[:right]] = y[first[:right]]
    later = slice(right, right + shifted)
    y[second[later] + 1] = y[first[later] + 1]
    rows = np.sort(np.concatenate([first, second]))
    return x[rows].astype(np.float32), y


def aligned(n: int, right: int, shifted: int) -> alignment.Alignment:
    x, y = pairs(n, right, shifted)
    rows = np.sort(np.concatenate([3 + 8 * np.arange(n), 7 + 8 * np.arange(n)]))
    made = align(x, y, rows)
    assert made.n == n
    return made


@pytest.mark.parametrize(("shifted", "offset"), [(24, 0), (25, 0), (26, 1), (40, 1)])
def test_an_offset_counts_from_five_standard_deviations_on(shifted: int, offset: int) -> None:
    """None agree at their own rows: z is the root of how many agree one row later."""
    made = aligned(200, 0, shifted)
    assert made.offset == offset
    assert made.by_offset[1] == pytest.approx(shifted / 200)
    assert made.by_offset[0] == 0
    if offset:
        assert made.z == pytest.approx(shifted**0.5)


@pytest.mark.parametrize(("n", "offset"), [(960, 1), (1000, 0)])
def test_an_offset_counts_only_where_it_gains_three_in_a_hundred(n: int, offset: int) -> None:
    made = aligned(n, 0, 29)  # z is 5.4 with either
    assert made.offset == offset


def test_what_agrees_at_its_own_rows_speaks_against_an_offset() -> None:
    """z is the sum of gains over the root of their squares: (60 - 20) / sqrt(80)."""
    made = aligned(200, 20, 60)
    assert made.offset == 0
    made = aligned(200, 20, 90)
    assert made.offset == 1
    assert made.z == pytest.approx(70 / 110**0.5)
    assert made.by_offset == pytest.approx({0: 0.1, 1: 0.45, **dict.fromkeys((-3, -2, -1, 2, 3), 0.0)})


def test_of_several_offsets_the_one_that_fits_best_is_named() -> None:
    x, y = pairs(200, 0, 40)
    first, second = 3 + 8 * np.arange(200), 7 + 8 * np.arange(200)
    y[second[50:150] - 2] = y[first[50:150] - 2]
    made: Any = align(x, y, np.sort(np.concatenate([first, second])))
    assert made.offset == -2
    assert made.z == pytest.approx(10)


def test_sets_of_labels_agree_by_what_they_share_of_what_they_have() -> None:
    x = np.array([[0, 1], [0, 1.01], [5, 0], [5.01, 0]] * 1, np.float32)
    rows = np.array([3, 4, 5, 6])
    y = np.zeros((10, 4), np.uint8)
    y[3], y[4] = [1, 1, 0, 0], [0, 1, 1, 0]  # one of three
    assert align(x, y, rows).by_offset[0] == pytest.approx((1 / 3 + 0) / 2), "two without any label do not agree"
