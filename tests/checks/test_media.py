"""The check `media` names what is silent, clipped or cancels, and what may be cut off."""

import numpy as np

from benchkit.checks import check_media
from benchkit.media.notes import CANCELS, CLIPPED, SILENT, UNVERIFIED, hashes_and_notes, with_notes


def check(notes: dict[int, int], n: int = 300):
    of = np.zeros(n, np.uint64)
    for row, note in notes.items():
        of[row] = note
    ids = [f"call {i}" for i in range(n)]
    return check_media({"train": of[:100], "test": of[100:]}, {"train": ids[:100], "test": ids[100:]}, "recordings")


def test_nothing_noticed_is_ok() -> None:
    assert (check({}).status, check({}).summary) == ("ok", "300 recordings hold what they say")


def test_one_recording_whose_channels_cancel_is_a_warning_with_its_name_and_the_way_out() -> None:
    found = check({7: CANCELS, 150: CANCELS})
    assert found.status == "warn"
    assert found.summary == (
        "the channels of 2 of 300 cancel in their mix ('call 7', 'call 150'): choose one with the task's parameter "
        "channel (left, right or loudest)"
    )
    assert found.details["cancel"] == {"n": 2, "examples": ["call 7", "call 150"]}


def test_a_little_silence_and_clipping_is_named_and_much_of_it_is_a_warning() -> None:
    few = check({3: SILENT, 200: CLIPPED})
    assert (few.status, few.summary) == ("ok", "1 of 300 silent ('call 3'); 1 of 300 clipped ('call 200')")
    many = check(dict.fromkeys(range(4), SILENT))
    assert many.status == "warn"
    assert many.summary == "4 of 300 silent ('call 0', 'call 1', 'call 2', 'call 3')"
    loud = check(dict.fromkeys(range(16), CLIPPED) | {290: SILENT})
    assert loud.status == "warn"
    assert loud.summary.startswith("16 of 300 clipped ('call 0',")
    assert loud.summary.endswith("; 1 of 300 silent ('call 290')")


def test_lengths_that_could_not_be_verified_are_said() -> None:
    found = check({299: UNVERIFIED | SILENT})
    assert found.status == "ok"
    assert "1 of 300 with a length that could not be verified, for the file states none ('call 299')" in found.summary
    assert found.details["unverified"]["n"] == found.details["silent"]["n"] == 1


def test_a_hash_and_its_notes_are_kept_in_one_number() -> None:
    media = np.array([with_notes(0xABC00, CANCELS | UNVERIFIED), 0x100, 0], np.uint64)
    hashes, notes = hashes_and_notes(media)
    assert hashes.tolist() == [0xABC00, 0x100, 0]
    assert notes.tolist() == [CANCELS | UNVERIFIED, 0, 0]
