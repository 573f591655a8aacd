"""Features: each (split, model) is extracted once, into a cache that proves every row that it gives back."""

from benchkit.features.maintain import CacheEntry, Verdict, ls, prune, verify
from benchkit.features.pipeline import (
    FEATURES_VERSION,
    Features,
    Options,
    cache_key,
    extract,
    is_cached,
    set_up,
)
from benchkit.features.raw import RawBatch, extract_raw, stream_raw
from benchkit.features.scratch import Kept
from benchkit.features.tokens import TokenBatch, extract_tokens, stream_tokens

__all__ = [
    "FEATURES_VERSION", "CacheEntry", "Features", "Kept", "Options", "RawBatch", "TokenBatch", "Verdict", "cache_key",
    "extract", "extract_raw", "extract_tokens", "is_cached", "ls", "prune", "set_up", "stream_raw", "stream_tokens",
    "verify",
]  # fmt: skip
