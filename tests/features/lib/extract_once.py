"""python extract_once.py '{"root": ..., "cache": ..., "bands": {...}, "options": {...}, "out": ...}'"""

import json
import sys
from pathlib import Path

import numpy as np
from feature_samples import Bands, BandsParams, FolderParams, Recordings

from benchkit.errors import BenchkitError
from benchkit.features import Options, extract
from benchkit.progress import Lines

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    task = Recordings(FolderParams(given["root"]))
    try:
        features = extract(
            task,
            Bands(BandsParams(**given.get("bands", {}))),
            "test",
            np.arange(len(task.ids("test"))),
            {"task": "recordings"},
            Options(Path(given["cache"]), **given.get("options", {})),
            Lines(sys.stdout, every=0.0),
        )
    except BenchkitError as e:
        sys.exit(f"Error: {e}")
    np.savez(given["out"], pooled=features.pooled, hashes=features.hashes)
