"""Trainings in the registry: sealed into its inbox, and listed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchkit.activations.shards import sha256_of
from benchkit.errors import StoreError
from benchkit.records.environment import describe
from benchkit.records.others import Training
from benchkit.records.sealing import seal
from benchkit.sae.outcome import Outcome
from benchkit.scorers.saved import read_record
from benchkit.store import Store
from benchkit.store.columns import gate


def seal_trainings(outcome: Outcome, inbox: Path, device: str) -> None:
    """One record for each autoencoder that was trained; one that is in the store already is passed over there."""
    environment = describe({}, device, outcome.wall_s, 0.0)
    for t in outcome.trained:
        r = t.record
        seal(
            Training(
                uuid=r["uuid"], kind="sae", task=r["task"], model=r["model"], point=r["point"],
                data_fingerprint=r["data_fingerprint"], model_fingerprint=r["model_fingerprint"],
                params={**r["autoencoder"], **{f"training.{k}": v for k, v in r["training"].items()},
                        "steps": r["steps"], "dim": r["dim"], "recording": r["recording"],
                        "split": r["split"], **{k: r[k] for k in ("target", "target_recording") if k in r},
                        "measured_on": r["measured_on"], "held_out_examples": r["held_out_examples"],
                        "held_out_measured_on": r["held_out_measured_on"]},
                path=str(t.path.absolute()), sha256=t.sha256, environment=environment,
                started_at=r["started_at"], finished_at=r["finished_at"], metrics=t.history,
            ),
            inbox,
        )  # fmt: skip


def seal_metrics(file: Path, found: Mapping[str, float], inbox: Path, device: str) -> None:
    """More metrics of a training, at its last step. One that the store does not have yet, as of an autoencoder that was
    published, becomes one."""
    r = read_record(file, "sae")
    step = r.get("steps", 0)
    seal(
        Training(
            uuid=r["uuid"], kind="sae", task=r["task"], model=r["model"], point=r["point"],
            data_fingerprint=r.get("data_fingerprint", ""), model_fingerprint=r.get("model_fingerprint", ""),
            params={**r["autoencoder"], "steps": step, "dim": r["dim"]}, path=str(file.absolute()),
            sha256=sha256_of(file), environment=describe({}, device, 0.0, 0.0),
            started_at=r.get("started_at", r["finished_at"]), finished_at=r["finished_at"],
            metrics=[(step, name, value) for name, value in found.items() if math.isfinite(value)],
        ),
        inbox,
    )  # fmt: skip


@dataclass(frozen=True)
class Listed:
    """A training as the registry has it. metrics: of the result, at its last step."""

    id: int
    name: str
    task: str
    model: str
    point: str
    path: str
    steps: int
    finished_at: str
    metrics: Mapping[str, float]


def trainings(store: Store) -> list[Listed]:
    """All of them, the newest first."""
    import json

    from benchkit.sae.config import SAEConfig

    found = store.execute(
        "SELECT id, params, task, model, point, path, finished_at FROM trainings WHERE kind = 'sae' ORDER BY id DESC"
    ).fetchall()
    gate(store.path, "trainings", ("id", "params", "task", "model", "point", "path", "finished_at"), found)
    listed = []
    for number, text, task, model, point, path, finished in found:
        params: dict[str, Any] = json.loads(text)
        try:
            steps = int(params["steps"])
            name = SAEConfig(**{k: params[k] for k in SAEConfig.__dataclass_fields__ if k in params}).name
        except (KeyError, TypeError, ValueError) as e:
            raise StoreError(
                f"registry '{store.path}': training {number} is damaged ({e!r}); see `benchkit check`"
            ) from e
        rows = store.execute(
            "SELECT name, value FROM training_metrics WHERE training_id = ? AND step = ?", (number, steps)
        ).fetchall()
        gate(store.path, "training_metrics", ("name", "value"), rows)
        listed.append(Listed(number, name, task, model, point, path, steps, finished, dict(rows)))
    return listed
