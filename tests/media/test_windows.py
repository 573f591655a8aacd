"""Windows over recordings, and the events that label them."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchkit.errors import DataError, MediaError
from benchkit.media.cut import cut
from benchkit.media.decode import Audio
from benchkit.media.windows import Rule, window_labels, window_starts


def spinetail(shared: Path) -> list[tuple[float, float, int]]:
    lines = (shared / "data" / "spinetail" / "spinetail.txt").read_text().splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("\\")]
    return [(float(a), float(b), ["SP", "CRER"].index(name)) for a, b, name in rows]


@pytest.mark.parametrize(
    ("width", "shift", "rule", "counts"),
    [
        (2.0, 2.0, "any", (9, 8, 7, 0)),
        (2.0, 2.0, "beans", (9, 8, 7, 0)),
        (1.0, 0.5, "any", (38, 29, 28, 3)),
        (1.0, 0.5, "beans", (38, 27, 25, 5)),
    ],
)
def test_a_recording_annotated_by_hand_has_the_windows_that_were_counted(
    shared: Path, width: float, shift: float, rule: str, counts: tuple[int, ...]
) -> None:
    starts = window_starts(19.542, width, shift)
    labels = window_labels(starts, width, spinetail(shared), 2, Rule.parse(rule))
    assert (len(labels), *labels.sum(axis=0), (labels.sum(axis=1) == 0).sum()) == counts


def test_windows_and_labels_are_those_of_the_published_code(shared: Path) -> None:
    for case in json.loads((shared / "fixtures" / "beans" / "windows.json").read_text()):
        numbers = {name: i for i, name in enumerate(case["classes"])}
        for recording in case["recordings"]:
            for chunk in recording["chunks"]:
                starts = window_starts(chunk["length"], case["width"], case["shift"], "beans")
                np.testing.assert_allclose(starts, chunk["starts"], rtol=0, atol=1e-9)
                events = [
                    (e["st"], e["ed"], numbers.get(e["label"], numbers.get(case["unknown"], -1)))
                    for e in chunk["annotations"]
                ]
                made = window_labels(starts, case["width"], events, len(numbers))
                np.testing.assert_array_equal(made, np.array(chunk["labels"]).reshape(made.shape))


def test_starts_are_counted_without_rounding_errors() -> None:
    assert len(window_starts(1.2, 0.3, 0.1)) == 10
    assert window_starts(0.6, 0.3, 0.1).tolist() == [0.0, 0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("length", "final", "n"),
    [(4.5, "drop", 2), (4.5, "pad", 3), (4.0, "pad", 2), (1.0, "pad", 1), (1.0, "drop", 0)],
)
def test_the_rest_at_the_end_is_left_out_or_padded(length: float, final: str, n: int) -> None:
    assert len(window_starts(length, 2.0, 2.0, final)) == n


@pytest.mark.parametrize(
    ("rule", "event", "labelled"),
    [
        ("any", (2.0, 2.0), [0, 1]),  # a point counts where it lies: windows are half-open
        ("any", (1.9, 2.1), [1, 1]),
        ("any", (0.0, 2.0), [1, 0]),
        ("beans", (2.0, 2.0), [0, 0]),
        ("seconds:0.25", (1.8, 2.3), [0, 1]),
        ("seconds:0.25", (2.0, 2.0), [0, 0]),
        ("share:0.5", (1.5, 2.5), [1, 1]),
        ("share:0.6", (1.5, 2.5), [0, 0]),
    ],
)  # fmt: skip
def test_each_rule_labels_what_it_says(rule: str, event: tuple[float, float], labelled: list[int]) -> None:
    assert window_labels([0.0, 2.0], 2.0, [(*event, 0)], 1, Rule.parse(rule))[:, 0].tolist() == labelled


@pytest.mark.parametrize("text", ["none", "any:3", "seconds", "seconds:x", "share:2", "share:0"])
def test_what_is_no_rule_is_refused_with_those_that_there_are(text: str) -> None:
    with pytest.raises(DataError, match="is no rule"):
        Rule.parse(text)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_windows_from_one_pass_are_to_the_bit_what_each_is_alone(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (22050 * 20, 2)).astype(np.float32)
    soundfile.write(tmp_path / name, noise, 22050)
    starts = [0.0, 0.5, 1.0, 3.3, 17.0, 17.9, 2.0, 2.5]
    for start, window in zip(starts, cut(tmp_path / name, starts, 2.0), strict=True):
        np.testing.assert_array_equal(window.load(16_000), Audio(tmp_path / name, start, 2.0).load(16_000))


def test_a_window_over_the_end_is_padded_where_that_is_asked_for(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(8000, 0.5), 8000)
    (window,) = cut(tmp_path / "a.wav", [0.0], 2.0, pad=True)
    assert window.load(8000).shape == (16_000,)
    assert not window.load(8000)[8000:].any()


def test_a_damaged_recording_costs_its_own_windows_alone(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    windows = list(cut(tmp_path / "a.wav", [0.0, 1.0], 1.0))
    assert len(windows) == 2
    with pytest.raises(MediaError):
        windows[0].load(8000)
