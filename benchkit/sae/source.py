"""What is trained on: one point of a recording, or two of one recording whose vectors pair, for transcoders."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from benchkit.activations.pairing import paired_batches
from benchkit.activations.recording import RecordedPoint
from benchkit.errors import BenchkitError


@dataclass(frozen=True)
class Source:
    """sides: the input; behind it a transcoder's target."""

    sides: tuple[RecordedPoint, ...]

    @staticmethod
    def of(data: RecordedPoint, target: RecordedPoint | None) -> "Source":
        """Raises BenchkitError where the target's vectors are not of the same tokens of the same examples."""
        if target is None:
            return Source((data,))
        for what, a, b in (
            ("examples", data.metadata["rows"], target.metadata["rows"]), ("tokens", data.tokens, target.tokens),
            ("first tokens that are no patches", data.prefix_tokens, target.prefix_tokens),
            ("numbers of tokens that are no padding", data.real_tokens.tolist(), target.real_tokens.tolist()),
        ):  # fmt: skip
            if a != b:
                raise BenchkitError(
                    f"--target '{target.point}' does not pair with '{data.point}': they are of other {what}"
                )
        if data.point == target.point:
            raise BenchkitError(f"--target '{target.point}' is the input itself: leave it out to train an autoencoder")
        return Source((data, target))

    @property
    def paired(self) -> bool:
        return len(self.sides) == 2

    @property
    def name(self) -> str:
        return " -> ".join(side.point for side in self.sides)

    @property
    def n_examples(self) -> int:
        return self.sides[0].n_examples

    def vectors_of(self, examples: Int[np.ndarray, " n"], *, patches: bool) -> int:
        return self.sides[0].vectors_of(examples, patches=patches)

    def batches(
        self, batch_size: int, *, seed: int, epochs: int | None, patches: bool, skip: int,
        examples: Int[np.ndarray, " n"], use: int = 0,
    ) -> Generator[Float32[np.ndarray, "B D"], None, None]:  # fmt: skip
        """As those of a RecordedPoint; a transcoder's target stands behind its input, [B, D + E]."""
        if self.paired:
            return paired_batches(
                self.sides[0], self.sides[1], batch_size, seed=seed, epochs=epochs, patches=patches, skip=skip,
                examples=examples, use=use,
            )  # fmt: skip
        return self.sides[0].batches(
            batch_size, seed=seed, epochs=epochs, patches=patches, skip=skip, examples=examples, use=use
        )

    def split(self, batch: Float32[np.ndarray, "B D"]) -> tuple[Float32[np.ndarray, "B _"], ...]:
        if not self.paired:
            return (batch,)
        at = self.sides[0].dim
        return np.ascontiguousarray(batch[:, :at]), np.ascontiguousarray(batch[:, at:])

    def identity(self) -> dict[str, Any]:
        """Of a training on it."""
        data, *rest = self.sides
        target = {"target": rest[0].point, "target_recording": rest[0].fingerprint} if rest else {}
        return {"recording": data.fingerprint, "point": data.point, **target}

    def record(self) -> dict[str, Any]:
        """In the file of what was trained on it."""
        data = self.sides[0]
        return {
            "task": data.task, "split": data.split, "model": data.model,
            "data_fingerprint": data.metadata["data_fingerprint"],
            "model_fingerprint": data.metadata["model_fingerprint"], **self.identity(),
        }  # fmt: skip
