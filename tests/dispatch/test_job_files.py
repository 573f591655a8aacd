"""A job file says exactly one job, or is refused in one line."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchkit.errors import BenchkitError
from benchkit.jobs.job import Job, JobCell, JobOptions
from benchkit.records.report import Cell

JOB = Job(
    "digits", "pixels", (JobCell("knn,k=3", Cell("digits", "pixels", "knn,k=3", -1, 0)),),
    JobOptions("/x/r.sqlite.d", "/cache", batch_size=4),
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def test_a_job_is_equal_after_json() -> None:
    assert Job.from_json(JOB.to_json()) == JOB


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(p for k, v in inner for p in places(v, (*path, k)))]


@given(st.data(), JSON)
def test_a_job_file_with_a_wrong_value_is_refused_or_means_what_it_says(data: st.DataObject, value: Any) -> None:
    record = json.loads(JOB.to_json())
    path = data.draw(st.sampled_from(places(record)[1:]))
    spot = record
    for key in path[:-1]:
        spot = spot[key]
    spot[path[-1]] = value
    read = read_or_refused(json.dumps(record))
    if isinstance(read, str):
        assert "\n" not in read
    else:
        assert json.loads(read.to_json()) == record


def read_or_refused(text: str) -> Job | str:
    try:
        return Job.from_json(text)
    except BenchkitError as e:
        return str(e)


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", "{" * 10_000])
def test_what_is_no_job_is_one_line(text: str) -> None:
    with pytest.raises(BenchkitError, match="this is no job file"):
        Job.from_json(text)
