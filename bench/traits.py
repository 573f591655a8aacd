"""Choosing prototypes for traits against a loop over scikit-learn's average_precision_score, in one run.

    python bench/traits.py                   8,192 prototypes, 312 traits, 5,994 images, as CUB-200-2011 has them
    python bench/traits.py --prototypes 512  fewer, for a quick look

The loop would take over an hour, so scikit-learn is timed on a sample of (prototype, trait) pairs and that time is
scaled to all of them; every pair of the sample is compared. Scores are random: without ties, and with most of
them tied, as those of a ReLU are. Traits are on 0.3 % to 60 % of the images, 10 % on average. scikit-learn runs in one
thread, as it is usually called; ours uses every core that this process may use. Processor time, beside wall time, says
what both would be on a machine that does nothing else.
"""

import argparse
import os
import resource
import sys
import time

import numpy as np

from benchkit.progress import Lines
from benchkit.traits import average_precisions, choose

IMAGES, TRAITS = 5_994, 312


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prototypes", type=int, default=8_192)
    parser.add_argument("--pairs", type=int, default=400, help="that scikit-learn is timed on")
    args = parser.parse_args()
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}, numpy {np.__version__}")
    rng = np.random.default_rng(0)
    prevalence = np.clip(rng.lognormal(np.log(0.06), 1, TRAITS), 0.003, 0.6)
    labels = (rng.random((IMAGES, TRAITS)) < prevalence).astype(np.uint8)
    total = args.prototypes * TRAITS
    print(f"{args.prototypes:,} prototypes x {TRAITS} traits x {IMAGES:,} images ({labels.mean():.1%} positive)")
    print(f"scikit-learn timed on {args.pairs:,} of {total:,} pairs and scaled")
    print(f"{'':12}{'':11}{'scikit-learn':>14}{'ours':>10}{'ratio':>9}{'largest difference':>21}")
    for name in ("no ties", "mostly ties"):
        scores = rng.standard_normal((IMAGES, args.prototypes), np.float32)
        if name == "mostly ties":
            np.maximum(scores - 1, 0, out=scores)
        pairs = rng.integers(0, [args.prototypes, TRAITS], (args.pairs, 2))
        theirs, *each = against(scores, labels, pairs)
        began = time.perf_counter(), time.process_time()
        choose(scores, labels, Lines(sys.stderr))
        ours = time.perf_counter() - began[0], time.process_time() - began[1]
        sample = np.unique(pairs[:, 0])
        values = average_precisions(np.ascontiguousarray(scores[:, sample]), labels)
        difference = np.abs(values[np.searchsorted(sample, pairs[:, 0]), pairs[:, 1]] - theirs).max()
        for what, a, b, shown in zip(("wall", "processor"), each, ours, (f"{difference:.1e}", ""), strict=True):
            scaled = a * total
            print(f"{name:12}{what:11}{scaled:>12,.0f} s{b:>8.1f} s{scaled / b:>8,.0f}x{shown:>21}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")


def against(scores: np.ndarray, labels: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, float, float]:
    """scikit-learn's value for each pair of prototype and trait; seconds for one, of wall and of processor time."""
    from sklearn.metrics import average_precision_score

    average_precision_score(labels[:, 0], scores[:, 0])  # what is imported and prepared once
    began = time.perf_counter(), time.process_time()
    values = [average_precision_score(labels[:, t], scores[:, k]) for k, t in pairs]
    wall, processor = time.perf_counter() - began[0], time.process_time() - began[1]
    return np.array(values), wall / len(pairs), processor / len(pairs)


if __name__ == "__main__":
    main()
