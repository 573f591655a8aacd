"""Which seconds of a recording are used."""

import io
import pickle

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from benchkit import MediaError, OpenAudio
from benchkit_birdset.clips import FocalClip, Window, first_event

RATE = 8000
NOISE = np.random.default_rng(0).normal(0, 0.01, 12 * RATE).astype(np.float32)


def recording(wave=NOISE, rate=RATE, format="WAV"):
    f = io.BytesIO()
    soundfile.write(f, wave, rate, format=format, subtype="FLOAT" if format == "WAV" else None)
    return f.getvalue()


def clip(rule, event=None, source=None, seconds=5.0):
    return FocalClip(source or recording(), duration=seconds, rule=rule, event=event)


def begin(medium):
    with OpenAudio(medium.source) as opened:
        return medium.part(opened)[0]


@pytest.mark.parametrize(
    ("rule", "event", "begin"),
    [
        ("first", (9.0, 10.0), 0.0),
        ("centre", (9.0, 10.0), 3.5),
        ("event", (6.0, 7.0), 4.0),
        ("event", (0.2, 0.6), 0.0),  # the clip stays within the recording
        ("event", (11.0, 12.0), 7.0),
        ("event", (2.0, 10.0), 3.5),  # longer than the clip: its middle
        ("event", None, 0.0),
    ],
)
def test_the_rule_decides_which_samples_are_used(rule, event, begin):
    wave = clip(rule, event).load(RATE)
    first = round(begin * RATE)
    np.testing.assert_array_equal(wave, NOISE[first : first + 5 * RATE])


@pytest.mark.parametrize("rule", ["first", "centre", "event", "loudest"])
def test_a_recording_that_is_shorter_is_used_whole(rule):
    short = NOISE[: 3 * RATE]
    np.testing.assert_array_equal(clip(rule, (1.0, 2.0), recording(short)).load(RATE), short)


@given(st.integers(0, 1100), st.integers(1, 40), st.floats(0.2, 8))
def test_the_loudest_part_is_the_one_that_brute_force_finds(start, length, seconds):
    wave = NOISE.copy()
    wave[start * 80 : (start + length) * 80] += 0.3
    width = max(1, round(seconds * 100)) * 80  # on the grid of 10 ms
    energy = [np.square(wave[s : s + width], dtype=np.float64).sum() for s in range(0, len(wave) - width + 1, 80)]
    found = begin(clip("loudest", source=recording(wave), seconds=seconds))
    assert found == pytest.approx(np.argmax(energy) * 80 / RATE)


def test_the_loudest_part_is_looked_for_in_the_mean_of_the_channels():
    left = np.zeros(12 * RATE, np.float32)
    left[RATE : 2 * RATE] = 0.5  # cancelled by the other channel
    stereo = np.stack([left, -left], axis=1)
    stereo[9 * RATE : 10 * RATE] = 0.1
    assert 4.9 <= begin(clip("loudest", source=recording(stereo))) <= 9.0


def test_ogg_recordings_are_cut_where_wav_recordings_are():
    tone = np.sin(np.arange(12 * 32_000) * 0.1).astype(np.float32) * 0.01
    tone[6 * 32_000 : 11 * 32_000] *= 50
    for rule, event in (("loudest", None), ("event", (8.0, 9.0)), ("centre", None)):
        ogg = clip(rule, event, recording(tone, 32_000, "OGG"))
        wav = clip(rule, event, recording(tone, 32_000))
        assert begin(ogg) == pytest.approx(begin(wav), abs=0.03)
        assert len(ogg.load(32_000)) == 5 * 32_000
        assert np.abs(ogg.load(32_000)).max() == pytest.approx(np.abs(wav.load(32_000)).max(), rel=0.1)


def test_a_clip_is_resampled_and_survives_the_way_to_a_worker():
    medium = pickle.loads(pickle.dumps(clip("event", (6.0, 7.0))))
    assert medium.load(16_000).shape == (80_000,)


@pytest.mark.parametrize("rule", ["first", "centre", "event", "loudest"])
def test_what_is_no_recording_is_a_media_error(rule):
    with pytest.raises(MediaError, match="does not decode as audio"):
        clip(rule, (1.0, 2.0), b"OggS, or so it says").load(RATE)


def test_a_window_is_its_whole_file_or_its_place_in_a_longer_one():
    five = NOISE[: 5 * RATE]
    np.testing.assert_array_equal(Window(recording(five), 35.0, 5.0).load(RATE), five)
    np.testing.assert_array_equal(Window(recording(five)).load(RATE), five)
    np.testing.assert_array_equal(Window(recording(), 5.0, 5.0).load(RATE), NOISE[5 * RATE : 10 * RATE])


@pytest.mark.parametrize(
    ("events", "clusters", "expected"),
    [
        (None, None, None),
        ([], [], None),
        ([[1.0, 2.0]], [0], (1.0, 2.0)),
        ([[1.0, 2.0]], [-1], (1.0, 2.0)),  # noise alone is better than nothing
        ([[1.0, 2.0], [3.0, 4.0]], [-1, -1], None),  # only noise: BirdSet takes the first five seconds
        ([[1.0, 2.0], [3.0, 4.0]], [-1, 0], (3.0, 4.0)),
        ([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [1, 0, 0], (3.0, 4.0)),  # the larger cluster
        ([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]], [1, 0, 1, 0], (3.0, 4.0)),  # a tie: the lower number
        ([[5.0, 6.0], [1.0, 2.0]], [0, 0], (1.0, 2.0)),  # first in time
        ([[1.0, 2.0], [3.0, 4.0]], None, (1.0, 2.0)),
    ],
)
def test_the_first_event_is_the_one_that_birdset_would_begin_with(events, clusters, expected):
    assert first_event(events, clusters) == expected


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(-1, 3)), max_size=12))
def test_the_first_event_agrees_with_birdsets_own_steps(found):
    """XCEventMapping with biggest_cluster, written with numpy as BirdSet's readers know it."""
    events = [[begin, begin + 1] for begin, _ in found]
    clusters = [number for _, number in found]
    ours = first_event(events, clusters)
    left, numbers = np.array(events).reshape(-1, 2), np.array(clusters)
    if len(numbers) != 1:
        left, numbers = left[numbers != -1], numbers[numbers != -1]
    if not len(left):
        assert ours is None
        return
    values, counts = np.unique(numbers, return_counts=True)
    kept = left[numbers == values[counts.argmax()]]
    assert ours == tuple(kept[kept[:, 0].argmin()])
