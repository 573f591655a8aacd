"""Trainings in the registry: sealed into its inbox, and listed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchkit.records.environment import describe
from benchkit.records.others import Training
from benchkit.records.sealing import seal
from benchkit.sae.outcome import Outcome
from benchkit.store import Store


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
    listed = []
    for number, text, task, model, point, path, finished in found:
        params: dict[str, Any] = json.loads(text)
        rows = store.execute(
            "SELECT name, value FROM training_metrics WHERE training_id = ? AND step = ?", (number, params["steps"])
        ).fetchall()
        name = SAEConfig(**{k: params[k] for k in SAEConfig.__dataclass_fields__ if k in params}).name
        listed.append(Listed(number, name, task, model, point, path, params["steps"], finished, dict(rows)))
    return listed
