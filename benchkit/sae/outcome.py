"""The folder of a training: whose it is, and what the training came to."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchkit.activations.shards import read_json, sha256_of
from benchkit.errors import BenchkitError, FitError, StoreError
from benchkit.machine.files import write_atomic
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
    """failed: name -> why, of those whose training went wrong. wall_s: over all sessions. fresh: trained just now."""

    trained: list[Trained]
    failed: dict[str, str]
    wall_s: float
    fresh: bool


def claim(to: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Makes the folder, which is locked, one of this training, and removes what a kill has left half-written. Gives
    what `done_before` does."""
    done = done_before(to, identity)
    for half in to.glob(".*.part"):
        half.unlink()
    path = to / "training.json"
    if not done and not (path.exists() and _begun(to)):
        write_atomic(path, json.dumps(identity).encode())
    return done


def done_before(to: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """What training.json says of the end of this training; None where it is not done. Raises BenchkitError where the
    folder is of another, of which there is something."""
    path = to / "training.json"
    plain = json.loads(json.dumps(identity))
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise StoreError(f"cannot use the folder '{to}': {e.strerror}") from e
    if not path.exists():
        return None
    there = read_json(path)
    done: dict[str, Any] | None = there.pop("done", None)
    if there != plain and not (done or _begun(to)):
        return None
    if there != plain:
        old, new = ({**r, **r.get("shared", {}), "shared": None} for r in (there, plain))
        what = [k for k in new if old.get(k) != new[k]]
        raise BenchkitError(
            f"'{to}' is another training (of another {', '.join(what)}): choose another folder, or remove this one"
        )
    return done


def _begun(to: Path) -> bool:
    """Whether there is anything that a training has made."""
    return (to / "checkpoint.pt").exists() or any(to.glob("*.safetensors"))


def again(to: Path, done: dict[str, Any]) -> Outcome:
    """The outcome of a training that was done before."""
    (to / "checkpoint.pt").unlink(missing_ok=True)  # where a kill came between the end and that
    trained = []
    for name in done["autoencoders"]:
        if not (to / name).exists():
            raise StoreError(f"'{to / name}' is gone: remove '{to / 'training.json'}' to train it anew")
        history = [(step, metric, value) for step, metric, value in done["history"][name]]
        trained.append(Trained(to / name, sha256_of(to / name), read_record(to / name, "sae"), history))
    return some_trained(Outcome(trained, done["failed"], done["wall_s"], False))


def some_trained(outcome: Outcome) -> Outcome:
    """Raises FitError where every one went wrong."""
    if not outcome.trained:
        raise FitError("; ".join(f"{name}: {why}" for name, why in outcome.failed.items()))
    return outcome
