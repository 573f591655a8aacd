"""Embeddings computed elsewhere, so that a model with dependencies of its own can be benchmarked like any other."""

from benchkit import Entry, hookimpl


@hookimpl
def benchkit_models() -> dict[str, Entry]:
    return {
        "vectors": Entry(
            "embeddings computed elsewhere: Parquet, npz, HDF5 or a folder of .npy", "benchkit_vectors.backbone:Vectors"
        ),
    }
