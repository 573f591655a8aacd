"""What a model is given, against what its processor states."""

import numpy as np
import pytest

from benchkit.checks import check_inputs
from benchkit.checks.inputs import NOTHING, Measured
from benchkit.interfaces import StatedInputs

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 3, 16, 16)).astype(np.float32)


def measured(x: np.ndarray) -> Measured:
    return sum((Measured.of(one) for one in x), NOTHING)


def test_measurements_of_parts_are_those_of_the_whole() -> None:
    x = np.concatenate([PIXELS, 1e4 + PIXELS[:3]])
    m = measured(x)
    assert (m.n, m.count, m.wrong) == (23, x.size, 0)
    assert m.mean == pytest.approx(x.mean(dtype=np.float64))
    assert m.std == pytest.approx(x.std(dtype=np.float64))
    assert (m.low, m.high) == (x.min(), x.max())
    assert measured(np.full((2, 4), np.nan)) == Measured(2, 0, 8)


@pytest.mark.parametrize(
    ("mean", "std", "scale", "what"),
    [
        (0.5, 0.5, 1 / 255, None),
        (0.45, 0.22, 1 / 255, None),
        (127.5, 127.5, 1.0, None),
        (127.5, 0.5, 1 / 255, "where mean 0 and deviation 1 are meant"),
        (0.5, 0.5, 1.0, "where mean 0 and deviation 1 are meant"),
        (0.5, 0.5, 1 / 255**2, "hardly differ .* scaled twice"),
        (127.5, 127.5, 1 / 255, "hardly differ"),
    ],
)
def test_pixels_in_other_units_than_their_mean_warn(mean: float, std: float, scale: float, what: str | None) -> None:
    stated = StatedInputs((0 - mean) / std, (255 * scale - mean) / std, normalised=True)
    check = check_inputs({"train": measured((PIXELS * scale - mean) / std)}, stated)
    assert check.status == ("ok" if what is None else "warn")
    if what is not None:
        assert pytest.approx(check.details["train"]["mean"], rel=0.01) == ((PIXELS * scale - mean) / std).mean()
        with pytest.raises(AssertionError, match=what):
            raise AssertionError(check.summary)


def test_values_outside_of_the_stated_range_doubts_and_nan_warn() -> None:
    loud = check_inputs({"test": measured(PIXELS)}, StatedInputs(-2.0, 2.0))
    assert loud.status == "warn"
    assert "from 0 to 255, and by the model's processor they should lie between -2 and 2" in loud.summary
    doubt = check_inputs({"test": measured(PIXELS)}, StatedInputs(doubts=("it is of another rate",)))
    assert (doubt.status, doubt.summary) == ("warn", "it is of another rate")
    assert check_inputs({"test": measured(np.array([[np.inf, 1.0]]))}, StatedInputs()).status == "warn"


def test_where_nothing_is_stated_the_numbers_are_shown() -> None:
    check = check_inputs({"train": measured(PIXELS)}, StatedInputs())
    assert check.status == "ok"
    assert "of 20 examples); nothing is stated" in check.summary
    assert check_inputs({"train": NOTHING}, StatedInputs()).summary == "the model's inputs were not looked at"
