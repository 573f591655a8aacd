"""The maximum over patches is that of all patches, however few images are scored at a time."""

from collections.abc import Callable

import numpy as np
import pytest

from benchkit.errors import FitError, PluginError
from benchkit.scorers.random import Random, RandomParams
from benchkit.traits import image_scores


def fitted(k: int) -> Random:
    scorer = Random(RandomParams(k=k, similarity="dot"))
    scorer.fit(iter([np.random.default_rng(1).standard_normal((100, 8)).astype(np.float32)]))
    return scorer


@pytest.mark.parametrize("at_once", [1, 200, 1 << 20])
def test_an_images_score_is_the_highest_of_its_patches(at_once: int) -> None:
    tokens = np.random.default_rng(0).standard_normal((7, 5, 8)).astype(np.float32)
    scorer = fitted(16)
    expected = (tokens @ scorer.tensors()["prototypes"].T).max(axis=1)
    np.testing.assert_allclose(image_scores(scorer, tokens, at_once=at_once), expected, rtol=1e-5, atol=1e-6)


def test_patches_of_a_memory_map_are_read_a_part_at_a_time(tmp_path) -> None:
    tokens = np.random.default_rng(0).standard_normal((9, 4, 8)).astype(np.float32)
    tokens.tofile(tmp_path / "tokens")
    mapped = np.memmap(tmp_path / "tokens", np.float32, "r", shape=tokens.shape)
    scorer = fitted(4)
    np.testing.assert_array_equal(image_scores(scorer, mapped, at_once=32), image_scores(scorer, tokens, at_once=32))


def test_activations_that_are_not_numbers_are_refused() -> None:
    tokens = np.zeros((3, 2, 8), np.float32)
    tokens[1, 1, 3] = np.nan
    with pytest.raises(FitError, match="Random gives scores that are not numbers"):
        image_scores(fitted(4), tokens)


@pytest.mark.parametrize("scores", [lambda x: x[:, :3], lambda x: x[1:, :4], lambda x: None])
def test_scores_of_another_shape_are_refused(scores: Callable[[np.ndarray], np.ndarray]) -> None:
    class Odd(Random):
        def __call__(self, activations: np.ndarray) -> np.ndarray:
            return scores(activations)

    with pytest.raises(PluginError, match=r"Odd gave scores .* for 6 vectors and 4 prototypes \(n_prototypes\)"):
        image_scores(Odd(RandomParams(k=4)), np.zeros((3, 2, 8), np.float32))
