"""The folder of a training: whose it is, what is done in it, and what the training came to.

<to>/training.json          what is trained on what, and each autoencoder that is done
<to>/checkpoint.pt          those that are under way; written now and then and at Ctrl-C, removed when they are done
<to>/<name>.safetensors     one an autoencoder, when it is done
<to>/states/<name>.pt       the optimiser's state at its end, for more epochs
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchkit.activations.shards import read_json, sha256_of
from benchkit.errors import BenchkitError, FitError, StoreError
from benchkit.machine import files
from benchkit.machine.files import write_atomic
from benchkit.sae.config import SAEConfig
from benchkit.scorers.saved import read_record


@dataclass(frozen=True)
class Trained:
    """One autoencoder that is done. record: the file's metadata. history: rows of (steps done, name, value)."""

    path: Path
    sha256: str
    record: dict[str, Any]
    history: list[tuple[int, str, float]]


@dataclass(frozen=True)
class Outcome:
    """failed: name -> why, of those whose training went wrong. wall_s: over all sessions. fresh: some of it was trained
    just now."""

    trained: list[Trained]
    failed: dict[str, str]
    wall_s: float
    fresh: bool


@dataclass
class Folder:
    """A training's folder, read. identity: what all of its autoencoders share. done: by name, {"steps", "wall_s",
    "history"} or {"steps", "failed"}."""

    to: Path
    identity: dict[str, Any]
    done: dict[str, dict[str, Any]]

    @staticmethod
    def open(to: Path, identity: Mapping[str, Any]) -> "Folder":
        """Makes the folder where it is missing. Raises BenchkitError where it is of another training, of which there
        is something; StoreError where it cannot be used."""
        plain = json.loads(json.dumps(dict(identity)))
        try:
            files.make_folder(to)
        except OSError as e:
            raise StoreError(f"cannot use the folder '{to}': {e.strerror}") from e
        path = to / "training.json"
        if not path.exists():
            return Folder(to, plain, {})
        there = read_json(path)
        done: dict[str, dict[str, Any]] = there.pop("done", {})
        if there != plain and not (done or _begun(to)):
            return Folder(to, plain, {})
        if there != plain:
            old, new = ({**r, **r.get("shared", {}), "shared": None} for r in (there, plain))
            what = [k for k in new if old.get(k) != new[k]]
            raise BenchkitError(
                f"'{to}' is another training (of another {', '.join(what)}): choose another folder, or remove this one"
            )
        return Folder(to, plain, done)

    def claim(self) -> None:
        """Says whose it is, under its lock, and removes what a kill has left half-written."""
        for half in self.to.glob(".*.part"):
            files.remove(half)
        self.write()

    def write(self) -> None:
        write_atomic(self.to / "training.json", json.dumps({**self.identity, "done": self.done}).encode())

    def state(self, name: str) -> Path:
        return self.to / "states" / f"{name}.pt"

    def left(self, configs: Sequence[SAEConfig], steps: int) -> dict[int, list[SAEConfig]]:
        """By the step that they go on from, the autoencoders that are not done. Raises BenchkitError for one that was
        trained for longer."""
        found: dict[int, list[SAEConfig]] = {}
        for config in configs:
            done = self.done.get(config.name, {})
            if "failed" in done:
                continue
            at = done.get("steps", 0)
            if at > steps:
                raise BenchkitError(
                    f"'{config.name}' in '{self.to}' was trained for {at:,} steps, and {steps:,} are fewer: choose "
                    "another folder"
                )
            if at < steps:
                if at and not self.state(config.name).exists():
                    raise BenchkitError(
                        f"'{config.name}' cannot be trained for more than its {at:,} steps: "
                        f"'{self.state(config.name)}' is gone; choose another folder"
                    )
                found.setdefault(at, []).append(config)
        return dict(sorted(found.items()))

    def outcome(self, configs: Sequence[SAEConfig], fresh: bool) -> Outcome:
        """Of these autoencoders, each of which is done. Raises StoreError where a file is gone, FitError where every
        one went wrong."""
        trained, failed, wall = [], {}, 0.0
        for name in (c.name for c in configs):
            done = self.done[name]
            wall = max(wall, done.get("wall_s", 0.0))
            if "failed" in done:
                failed[name] = done["failed"]
                continue
            path = self.to / f"{name}.safetensors"
            if not path.exists():
                raise StoreError(f"'{path}' is gone: remove '{self.to / 'training.json'}' to train it anew")
            history = [(step, metric, value) for step, metric, value in done["history"]]
            trained.append(Trained(path, sha256_of(path), read_record(path, "sae"), history))
        if not trained:
            raise FitError("; ".join(f"{name}: {why}" for name, why in failed.items()))
        return Outcome(trained, failed, wall, fresh)


def _begun(to: Path) -> bool:
    """Whether there is anything that a training has made."""
    return (to / "checkpoint.pt").exists() or any(to.glob("*.safetensors"))


def group_of(configs: Sequence[SAEConfig], start: int, steps: int) -> dict[str, Any]:
    """What a checkpoint is of, beside the folder's identity."""
    return {"autoencoders": [asdict(c) for c in configs], "start": start, "steps": steps}
