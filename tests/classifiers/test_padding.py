"""Tokens that are padding, rows of NaN, have no part in probes; a token that is broken is not taken for one."""

import numpy as np
import pytest
import torch

from benchkit.classifiers.attentive import Attentive, AttentiveParams
from benchkit.classifiers.data import finite_rows
from benchkit.classifiers.params import PrototypicalParams
from benchkit.classifiers.prototypical import Prototypical
from benchkit.classifiers.tokens import TokenProbe
from benchkit.interfaces import Problem

SMALL = {"epochs": 1, "min_steps": 3}
PROBES = [
    Attentive(AttentiveParams(depth=1, **SMALL)),
    Attentive(AttentiveParams(depth=3, **SMALL)),
    Prototypical(PrototypicalParams(prototypes=2, **SMALL)),
]
N, T, D, CLASSES = 12, 7, 8, 3
REAL = np.array([7, 4, 1] * 4)


def tokens(padding: float = np.nan) -> np.ndarray:
    x = np.random.default_rng(3).standard_normal((N, T, D)).astype(np.float32)
    x[np.arange(T)[None] >= REAL[:, None]] = padding
    return x


@pytest.mark.parametrize("probe", PROBES)
def test_logits_are_those_of_the_real_tokens_alone(probe: TokenProbe) -> None:
    net = probe.net((T, D), CLASSES)
    rng = np.random.default_rng(1)
    w = {name: torch.from_numpy(t)[None, None] for name, t in net.init(rng).items()}

    def logits(x: np.ndarray) -> torch.Tensor:
        return net.logits(w, net.form(torch.from_numpy(x.copy()))[None])[0, 0].T  # type: ignore[attr-defined]

    padded = logits(tokens())
    assert padded.isfinite().all()
    for i, n in enumerate(REAL):
        torch.testing.assert_close(padded[i : i + 1], logits(tokens()[i : i + 1, :n]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("norm", ["layer+standard", "none"])
def test_a_fit_and_its_scores_do_not_depend_on_where_the_padding_stands(probe: TokenProbe, norm: str) -> None:
    made = type(probe)(type(probe.params)(**{**vars(probe.params), "norm": norm}))
    problem, y = Problem("multiclass", CLASSES), np.arange(N) % CLASSES
    padded = tokens()
    front = np.stack([np.roll(x, T - n, axis=0) for x, n in zip(padded, REAL, strict=True)])
    ours, theirs = (made.fit(x, y, problem, seed=0).scores(x) for x in (padded, front))
    assert np.isfinite(ours).all()
    np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_a_broken_token_is_not_finite_and_padding_is() -> None:
    x = tokens()
    x[0, 2] = np.inf
    x[1, 0, 3] = np.nan
    x[2] = np.nan
    assert finite_rows(x, np.arange(N)).tolist() == [False, False, False] + [True] * (N - 3)


@pytest.mark.parametrize("probe", PROBES)
def test_an_example_with_a_broken_token_has_no_score_and_the_others_have_theirs(probe: TokenProbe) -> None:
    y = np.arange(N) % CLASSES
    fitted = probe.fit(tokens(), y, Problem("multiclass", CLASSES), seed=0)
    broken = tokens()
    broken[0, 2, 0] = np.inf
    broken[3, 1, 4] = np.nan
    scores = fitted.scores(broken)
    assert np.isnan(scores).all(axis=1).tolist() == [i in (0, 3) for i in range(N)]
