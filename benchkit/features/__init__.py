"""Features: each (split, model) is extracted once, into a cache that proves every row that it gives back."""

from benchkit.features.maintain import CacheEntry, Verdict, ls, prune, verify
from benchkit.features.passes import extract_for, stream_for
from benchkit.features.pipeline import (
    FEATURES_VERSION,
    Features,
    Options,
    cache_key,
    extract,
    forget,
    is_cached,
    set_up,
)
from benchkit.features.scratch import Kept, Passing

__all__ = [
    "FEATURES_VERSION", "CacheEntry", "Features", "Kept", "Options", "Passing", "Verdict", "cache_key", "extract",
    "extract_for", "forget", "is_cached", "ls", "prune", "set_up", "stream_for", "verify",
]  # fmt: skip
