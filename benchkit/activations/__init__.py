"""Activations: recorded once into sharded files, with statistics, and read in random order by whatever is fitted."""

from benchkit.activations.fitting import fit
from benchkit.activations.moments import Moments, Statistics
from benchkit.activations.recorder import record
from benchkit.activations.recording import RecordedPoint, Recording
from benchkit.activations.stream import TOKENS, PointBatch, prefix_tokens, stream_points

__all__ = [
    "TOKENS", "Moments", "PointBatch", "RecordedPoint", "Recording", "Statistics", "fit", "prefix_tokens", "record",
    "stream_points",
]  # fmt: skip
