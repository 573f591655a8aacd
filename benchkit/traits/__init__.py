"""Trait tasks: which prototype of a scorer stands for which trait, and how well.

Every patch of an image is scored with each of K prototypes; an image's score is the maximum over its patches. For each
trait the prototype with the highest average precision on n_train training images is chosen, and its average precision
on the test images is what counts. docs/traits.md has the whole protocol.
"""

from benchkit.traits.choosing import Choice, average_precisions, choose
from benchkit.traits.pooling import image_scores

__all__ = ["Choice", "average_precisions", "choose", "image_scores"]
