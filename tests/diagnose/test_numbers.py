"""The statistics against scipy, scikit-learn and random matrices."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats as reference
from sklearn.neighbors import KNeighborsClassifier

from benchkit.diagnose import remedies, weights
from benchkit.diagnose.gather import Stats, _Sums
from benchkit.diagnose.judge import RULE, find_outliers, judge
from benchkit.diagnose.places import Place, places
from benchkit.diagnose.record import point_rows


def gathered(x_btd: np.ndarray, point: str = "blocks.0.resid_post", batches: int = 3) -> Stats:
    sums = _Sums(Place.of(point), *x_btd.shape, sampled=10**6)
    for batch in np.array_split(x_btd.astype(np.float32), batches):
        sums.add(batch, np.ones(len(batch), bool), None)
    return sums.stats()


def test_moments_and_distance_are_scipys_whatever_the_batches() -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_t(5, (12, 7, 20)) + 3).astype(np.float32)
    s = gathered(x)
    assert s.mean == pytest.approx(x.mean(), rel=1e-5)
    assert s.std == pytest.approx(x.std(), rel=1e-5)
    assert s.kurtosis == pytest.approx(reference.kurtosis(x.ravel().astype(float)), rel=1e-4)
    z = (x - x.mean()) / x.std()
    assert s.gaussian_distance() == pytest.approx(reference.kstest(z.ravel(), "norm").statistic, abs=2e-3)
    np.testing.assert_allclose(s.rms_d, np.sqrt((x.astype(float) ** 2).mean((0, 1))), rtol=1e-5)
    np.testing.assert_allclose(s.position_rms_td, np.sqrt((x.astype(float) ** 2).mean(0)), rtol=1e-4)
    np.testing.assert_allclose(s.pooled_ed, x.mean(1), rtol=1e-4, atol=1e-5)
    assert len(s.sample_nd) == 12 * 7


def test_a_gaussian_has_neither_kurtosis_nor_distance() -> None:
    s = gathered(np.random.default_rng(1).normal(5, 3, (20, 50, 40)))
    assert abs(s.kurtosis) < 0.1
    assert s.gaussian_distance() < 0.01
    assert judge(s).healthy


def test_nan_and_infinity_are_counted_and_left_out() -> None:
    x = np.ones((4, 3, 5))
    x[0, 0, 0], x[1, 2, 3], x[2, 0, 1] = np.nan, np.inf, -np.inf
    s = gathered(x)
    assert (s.n_nan, s.n_infinite) == (1, 2)
    assert judge(s).problems == ("1 NaN and 2 infinite values (5.0%)",)


@pytest.mark.parametrize(("factor", "found"), [(8.0, ()), (12.0, (4,))])
def test_the_rule_is_ten_times_the_median_dimension(factor: float, found: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).choice([-1.0, 1.0], (8, 6, 32))
    x[..., 4] *= factor
    assert tuple(o.dim for o in find_outliers(gathered(x))) == found


def test_a_token_that_is_large_in_every_dimension_has_no_outlier() -> None:
    x = np.random.default_rng(0).normal(0, 1, (8, 6, 64))
    x[:, 0] *= 50
    assert find_outliers(gathered(x)) == ()
    x[:, 0, 3] = 50 * 30
    (outlier,) = find_outliers(gathered(x))
    assert (outlier.dim, outlier.where, outlier.positions) == (3, "at some positions", 1)


def test_what_a_norm_leaves_of_an_outlier_is_none() -> None:
    """Behind a norm that suppresses it the others are small, for they were divided by its size."""
    x = np.random.default_rng(0).normal(0.1, 0.02, (8, 6, 64))
    x[..., 5] = 1.3
    assert [o.dim for o in find_outliers(gathered(x))] == [5]
    assert find_outliers(gathered(x, "blocks.0.norm2"), 1.0) == ()
    x[..., 5] = 7.0
    assert [o.dim for o in find_outliers(gathered(x, "blocks.0.norm2"), 1.0)] == [5]


def test_the_spectrum_of_a_random_matrix_is_marchenko_and_pasturs() -> None:
    rng = np.random.default_rng(0)
    for shape, sigma in (((64, 256), 0.05), ((192, 64), 1.0), ((300, 300), 2.0)):
        noise = rng.normal(0, sigma, shape)
        found = weights.spectrum(noise)
        assert found.sigma == pytest.approx(sigma, rel=0.02)
        assert found.values[0] == pytest.approx(np.linalg.norm(noise, 2), rel=1e-6)
        assert found.values[0] == pytest.approx(found.edge, rel=0.05)
        assert found.outside == 0
        spike = np.outer(rng.normal(size=shape[0]), rng.normal(size=shape[1])) * sigma
        assert weights.spectrum(noise + spike).outside == pytest.approx(1 / min(shape))


def test_the_density_has_the_mass_that_it_should_have() -> None:
    rng = np.random.default_rng(0)
    values = np.linalg.svd(rng.normal(size=(400, 1600)), compute_uv=False) ** 2 / 1600
    grid = np.linspace(0.2, 2.3, 2000)
    density = weights.density(grid, 0.25)
    mass = np.cumsum(density) * (grid[1] - grid[0])
    ours = np.interp([0.6, 1.0, 1.6], grid, mass)
    np.testing.assert_allclose(ours, [(values < x).mean() for x in (0.6, 1.0, 1.6)], atol=0.01)


def test_participation_counts_directions() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 12))
    assert remedies.participation(x) == pytest.approx(12, rel=0.02)
    x[:, 3] *= 1000
    assert remedies.participation(x) == pytest.approx(1, rel=0.01)
    assert remedies.participation(remedies.whitener(x)(x)) == pytest.approx(12, rel=1e-6)
    assert remedies.participation(remedies.standardiser(x)(x)) == pytest.approx(12, rel=0.02)


def test_neighbours_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 5)).astype(np.float32), rng.integers(0, 4, 60)
    x[:, 0] += y
    right = 0
    for i in range(60):
        rest = np.arange(60) != i
        knn = KNeighborsClassifier(1, metric="cosine").fit(x[rest], y[rest])
        right += int(knn.predict(x[i : i + 1])[0] == y[i])
    assert remedies.neighbours(x, remedies.matching(y)) == pytest.approx(right / 60)
    assert remedies.matching(np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]])).tolist() == [
        [True, True, False],
        [True, True, False],
        [False, False, True],
    ]


def test_places_come_in_the_order_of_computation_and_each_once() -> None:
    names = ("norm", "blocks.1.resid_pre", "blocks.1.resid_post", "blocks.0.mlp_out", "blocks.0.resid_pre",
             "blocks.0.resid_post", "blocks.1.norm1", "embeddings", "blocks.0.attn_out")  # fmt: skip
    assert [p.point for p in places(names)] == [
        "blocks.0.resid_pre", "blocks.0.attn_out", "blocks.0.mlp_out", "blocks.0.resid_post", "blocks.1.norm1",
        "blocks.1.resid_post", "norm",
    ]  # fmt: skip
    assert Place.of("something.else").kind == "other"


def test_the_guide_states_the_rule_and_every_statistic() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "diagnose.md").read_text()
    assert " ".join(RULE.split()) in " ".join(guide.split())
    names = {name for _, name, _ in point_rows(judge(gathered(np.random.default_rng(0).normal(0, 1, (4, 3, 16)))))}
    assert {name for name in names if f"`{name}`" not in guide} == set()
