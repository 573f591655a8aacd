"""What holds for tokens and for preprocessed examples alike."""

import os
from pathlib import Path

import numpy as np
import pytest
from feature_samples import Bands, FolderParams, Recordings

from benchkit.errors import MediaError, StoreError
from benchkit.features import Options, extract_for, stream_for
from benchkit.interfaces import Needs
from benchkit.progress import Silent

both = pytest.mark.parametrize(
    ("needs", "what"), [("tokens", "tokens"), ("raw", "preprocessed examples")], ids=["tokens", "raw"]
)


@both
def test_rows_that_do_not_decode_are_left_out(task: Recordings, tmp_path: Path, needs: Needs, what: str) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    for path in sorted(Path(task.params.root).iterdir())[:10]:
        os.link(path, folder / path.name)
    (folder / "003.ogg").unlink()
    (folder / "003.ogg").write_bytes(b"nothing")
    damaged, rows = Recordings(FolderParams(str(folder))), np.arange(10)
    with pytest.raises(MediaError, match="1 of 10 examples"):
        extract_for(needs, damaged, Bands(), "test", rows, Options(tmp_path / "cache", workers=0), Silent())
    options = Options(tmp_path / "cache", workers=0, skip_bad=1)
    found = extract_for(needs, damaged, Bands(), "test", rows, options, Silent(), {"data": "d1"})
    assert found.rows.tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert list(found.skipped) == [3]
    whole = extract_for(needs, task, Bands(), "test", found.rows, options, Silent())
    np.testing.assert_array_equal(found.values, whole.values)
    (passed,) = stream_for(needs, damaged, Bands(), "test", rows, options, Silent())
    assert passed.rows.tolist() == found.rows.tolist()


@both
def test_a_scratch_folder_that_is_not_there_is_named(task: Recordings, tmp_path: Path, needs: Needs, what: str) -> None:
    options = Options(tmp_path / "cache", workers=0, scratch=tmp_path / "gone")
    with pytest.raises(StoreError, match=rf"cannot keep {what} in '.*/gone': No such file or directory.*TMPDIR"):
        extract_for(needs, task, Bands(), "test", np.arange(3), options, Silent())


@both
def test_of_no_rows_there_is_nothing(task: Recordings, tmp_path: Path, needs: Needs, what: str) -> None:
    options, none = Options(tmp_path, workers=0), np.array([], np.int64)
    found = extract_for(needs, task, Bands(), "test", none, options, Silent())
    assert len(found.values) == len(found.rows) == 0
    assert list(stream_for(needs, task, Bands(), "test", none, options, Silent())) == []
