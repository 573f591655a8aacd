"""Features: each (split, model) is extracted once, into a cache that proves every row that it gives back."""

from benchkit.features.maintain import CacheEntry, Verdict, ls, prune, verify
from benchkit.features.pipeline import (
    FEATURES_VERSION,
    Features,
    Options,
    cache_key,
    extract,
)
from benchkit.features.tokens import TokenBatch, Tokens, extract_tokens, stream_tokens

__all__ = [
    "FEATURES_VERSION", "CacheEntry", "Features", "Options", "TokenBatch", "Tokens", "Verdict", "cache_key", "extract",
    "extract_tokens", "ls", "prune", "stream_tokens", "verify",
]  # fmt: skip
