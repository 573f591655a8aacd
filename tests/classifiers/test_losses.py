"""The losses of many heads at once against their plain formulas, and against torch's where it has them."""

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax

from benchkit.classifiers.losses import asymmetric, binary_cross_entropy, cross_entropy, make_loss
from benchkit.classifiers.params import TrainParams
from benchkit.errors import FitError
from benchkit.interfaces import Problem

S, L, C, B = 2, 3, 5, 7


def logits() -> torch.Tensor:
    return 4 * torch.from_numpy(np.random.default_rng(0).normal(size=(S, L, C, B))).float()


def one_label() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, C, (S, B)))


def several_labels() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, 2, (S, B, C)).astype(np.uint8))


def each(labels: torch.Tensor) -> list[tuple[tuple[int, int, int], np.ndarray, np.ndarray]]:
    """Every stream, head and example with its logits and labels."""
    z = logits().double().numpy()
    return [((s, h, b), z[s, h, :, b], labels[s, b].numpy()) for s in range(S) for h in range(L) for b in range(B)]


def test_cross_entropy_is_minus_the_log_probability_of_the_right_class() -> None:
    found = cross_entropy(logits(), one_label())
    assert found.shape == (S, L, B)
    for place, z, y in each(one_label()):
        assert found[place].item() == pytest.approx(-log_softmax(z)[y], abs=1e-5)


def test_binary_cross_entropy_is_torchs() -> None:
    found = binary_cross_entropy(logits(), several_labels())
    for place, z, y in each(several_labels()):
        expected = torch.nn.functional.binary_cross_entropy_with_logits(torch.tensor(z), torch.tensor(y).double())
        assert found[place].item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize(
    ("gamma_neg", "gamma_pos", "clip"), [(4.0, 1.0, 0.05), (0.0, 0.0, 0.0), (2.0, 0.5, 0.0), (0.5, 3.0, 0.3)]
)
def test_asymmetric_loss_is_its_papers_formula(gamma_neg: float, gamma_pos: float, clip: float) -> None:
    found = asymmetric(logits(), several_labels(), gamma_neg, gamma_pos, clip)
    for place, z, y in each(several_labels()):
        p = expit(z)
        q = np.maximum(p - clip, 0)
        expected = np.where(y == 1, -((1 - p) ** gamma_pos) * np.log(p), -(q**gamma_neg) * np.log(1 - q))
        assert found[place].item() == pytest.approx(expected.mean(), abs=1e-4)


def test_asymmetric_loss_without_focusing_or_margin_is_binary_cross_entropy() -> None:
    plain = binary_cross_entropy(logits(), several_labels())
    torch.testing.assert_close(asymmetric(logits(), several_labels(), 0.0, 0.0, 0.0), plain)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_extreme_logits_give_finite_losses_and_gradients(gamma: float, clip: float) -> None:
    z = torch.tensor([-200.0, -20.0, 0.0, 20.0, 200.0]).repeat(2, 1)[None, None].transpose(2, 3).requires_grad_()
    y = torch.stack([torch.zeros(5), torch.ones(5)])[None].to(torch.uint8)
    loss = asymmetric(z, y, gamma, gamma, clip)
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(gradient).all()


def test_one_label_an_example_is_one_against_the_rest_for_the_losses_of_several() -> None:
    as_several = torch.nn.functional.one_hot(one_label(), C).to(torch.uint8)
    torch.testing.assert_close(binary_cross_entropy(logits(), one_label()), binary_cross_entropy(logits(), as_several))


def test_the_loss_is_chosen_by_name_or_by_what_the_task_is() -> None:
    one, many = Problem("multiclass", C), Problem("multilabel", C)
    assert make_loss(TrainParams(), one) is cross_entropy
    assert make_loss(TrainParams(), many) is binary_cross_entropy
    chosen = make_loss(TrainParams(loss="asymmetric", gamma_neg=2.0), many)
    torch.testing.assert_close(
        chosen(logits(), several_labels()), asymmetric(logits(), several_labels(), 2.0, 1.0, 0.05)
    )
    with pytest.raises(FitError, match="give loss=bce or loss=asymmetric"):
        make_loss(TrainParams(loss="cross-entropy"), many)
