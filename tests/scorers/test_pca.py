"""Principal components from a stream, against scikit-learn on the whole."""

import numpy as np
import pytest
from sklearn.decomposition import PCA as Reference

from benchkit.catalog.resolve import resolve
from benchkit.errors import FitError, SpecError
from benchkit.scorers.pca import PCA, PCAParams


def data() -> np.ndarray:
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((3000, 12)) * np.geomspace(5, 0.1, 12) @ np.linalg.qr(rng.standard_normal((12, 12)))[0]
    return (mixed + 300).astype(np.float32)


def fitted(x: np.ndarray, **given) -> PCA:
    scorer = PCA(PCAParams(**given))
    scorer.fit(iter(np.array_split(x, [1, 2, 700, 701, 2000])))
    return scorer


@pytest.mark.parametrize("whiten", [False, True])
def test_scores_are_those_of_scikit_learn_but_for_signs(whiten: bool) -> None:
    x = data()
    reference = Reference(6, whiten=whiten, svd_solver="full").fit(x.astype(np.float64))
    expected, found = reference.transform(x[:40].astype(np.float64)), fitted(x, k=6, whiten=whiten)
    signs = np.sign((found.tensors()["components"] * reference.components_).sum(axis=1))
    np.testing.assert_allclose(found(x[:40]) * signs, expected, rtol=1e-3, atol=2e-3)
    np.testing.assert_allclose(found.tensors()["variance"], reference.explained_variance_, rtol=1e-4)


def test_the_largest_entry_of_a_component_is_positive() -> None:
    components = fitted(data(), k=12).tensors()["components"]
    assert (components[np.arange(12), abs(components).argmax(axis=1)] > 0).all()


def test_both_signs_are_prototypes_when_asked_for() -> None:
    x = data()
    one, both = fitted(x, k=3), fitted(x, k=6, signs="both")
    assert (one.n_prototypes, both.n_prototypes) == (3, 6)
    np.testing.assert_allclose(both(x[:9]), np.concatenate([one(x[:9]), -one(x[:9])], axis=1), rtol=1e-5)
    with pytest.raises(SpecError, match="signs=both needs an even k, not 5"):
        resolve("scorer", "pca,k=5,signs=both")


def test_too_many_components_are_named() -> None:
    with pytest.raises(FitError, match=r"13 components need as many dimensions .* 3000 vectors of 12 dimensions"):
        fitted(data(), k=13)
