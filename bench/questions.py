"""Questions without a probe on random features with classes in them, and scikit-learn doing the same on a few queries.

    python bench/questions.py [--rows 200000] [--dim 1024] [--queries 50000] [--theirs 100]

Prints processor and wall seconds and the peak of this process's memory, features (a memory map) apart.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from benchkit.classifiers.clustering import Clustering, ClusteringParams
from benchkit.classifiers.retrieval import Retrieval, RetrievalParams
from benchkit.interfaces import Asked, Problem, Rows

CLASSES = 100


def features(path: Path, rows: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, rows)
    means = rng.standard_normal((CLASSES, dim), np.float32)
    x = np.memmap(path, np.float32, "w+", shape=(rows, dim))
    for at in range(0, rows, 8192):
        part = y[at : at + 8192]
        x[at : at + 8192] = 0.15 * means[part] + rng.standard_normal((len(part), dim), np.float32)
    x.flush()
    return np.memmap(path, np.float32, "r", shape=(rows, dim)), y


def theirs(x: np.ndarray, y: np.ndarray, queries: np.ndarray) -> float:
    """Processor seconds of scikit-learn's cosines, AUROC and nearest neighbours, and MAP@R in numpy, a query each."""
    from sklearn.metrics import roc_auc_score
    from sklearn.metrics.pairwise import cosine_similarity

    began = time.process_time()
    found = []
    for i in queries:
        near = cosine_similarity(x[i : i + 1], x)[0]
        others = np.arange(len(x)) != i
        kind, near = (y == y[i])[others], near[others]
        hits = kind[np.argsort(-near)]
        r = int(kind.sum())
        precision = np.cumsum(hits[:r]) / np.arange(1, r + 1)
        found.append((roc_auc_score(kind, near), hits[0], (precision * hits[:r]).sum() / r))
    print("  scikit-learn: AUROC, R@1, MAP@R of these queries", np.round(np.mean(found, axis=0), 4))
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("rows", 200_000), ("dim", 1024), ("queries", 50_000), ("theirs", 100)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        x, y = features(Path(folder) / "x", given.rows, given.dim)
        asked = Asked(Rows(x), y, np.arange(len(y)))
        problem = Problem("multiclass", CLASSES, tuple(map(str, range(CLASSES))))
        for name, question in (
            ("retrieval", Retrieval(RetrievalParams(queries=given.queries))),
            ("clustering", Clustering(ClusteringParams())),
        ):
            began, wall = time.process_time(), time.perf_counter()
            answer = question.ask(asked, None, problem, seed=0)
            took, seconds = time.process_time() - began, time.perf_counter() - wall
            values = {n: round(float(answer.values(n, *_once(answer))[0]), 4) for n in type(question).metrics}
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print(f"{name}: {took:.0f} s of processor, {seconds:.0f} s, peak {peak:.2f} GB with the map: {values}")
            if name == "retrieval" and given.theirs:
                n = answer.record["queries"]
                each = theirs(x, y, np.flatnonzero(~np.isnan(answer.table[:, 0]))[: given.theirs]) / given.theirs
                print(f"  a query: {1e3 * took / n:.1f} ms of processor, scikit-learn {1e3 * each:.1f} ms")


def _once(answer: object) -> tuple[np.ndarray, np.ndarray]:
    from benchkit.metrics.cumulative import ones

    return ones(len(answer.table)), ones(answer.repeats)  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
