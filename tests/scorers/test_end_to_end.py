"""From recordings to one table: record, fit each scorer, train an autoencoder, score traits."""

import csv
import os
from pathlib import Path

import pytest

import benchkit
from benchkit.activations import fit, record
from benchkit.sae import SAEConfig, TrainConfig, train


@pytest.mark.slow
def test_every_scorer_is_judged_on_real_traits_in_one_table(shared: Path, tmp_path: Path) -> None:
    esc10 = shared / "data" / "esc10"
    files = {path.stem: path for path in (esc10 / "audio").iterdir()}
    with open(esc10 / "meta" / "esc50.csv") as f:
        clips = [row for row in csv.DictReader(f) if Path(row["filename"]).stem in files]
    root = tmp_path / "traits"
    (root / "audio").mkdir(parents=True)
    taken: dict[tuple[str, bool], int] = {}
    with open(root / "traits.csv", "w") as f:
        table = csv.writer(f)
        table.writerow(["path", "split", "animal", "rain"])
        for row in clips:
            test, path = row["fold"] == "1", files[Path(row["filename"]).stem]
            taken[row["category"], test] = taken.get((row["category"], test), 0) + 1
            if taken[row["category"], test] > (1 if test else 2):
                continue
            os.link(path, root / "audio" / path.name)
            animal = row["category"] in ("dog", "rooster")
            table.writerow(
                [f"audio/{path.name}", "test" if test else "train", int(animal), int(row["category"] == "rain")]
            )
    task, model, point = (
        f"traits,root={root}",
        f"bird-mae,path={shared / 'fixtures' / 'bird_mae_tiny'}",
        "blocks.1.norm2",
    )
    on, file = tmp_path / "recording", tmp_path / "kmeans.safetensors"
    record(task, model, [point], on, workers=0)
    fit("kmeans,k=16", on, file)
    (sae,) = train(
        on, tmp_path / "sae", [SAEConfig("topk", 32, "dimension", k=4, lr=3e-3)], TrainConfig(batch_size=256, epochs=2)
    ).trained
    scorers = [
        f"random,k=16,point={point}", f"kmeans,k=16,point={point}", f"pca,k=16,point={point}", f"fitted:{file}",
        f"sae:{sae.path}",
    ]  # fmt: skip
    db = tmp_path / "r.sqlite"
    reports = benchkit.run(task=task, model=model, classifier=scorers, n_train=[16, -1], db=db)
    assert len(reports) == 10
    assert all(r.chance <= r.value <= 1 for r in reports if r.cell.n_train == -1)
    with benchkit.open(db) as results:
        shown = results.table(rows=["classifier"], columns=["n_train"])
    assert shown.shape[0] == 5
    assert [name.split(",")[0].split(":")[0] for name in sorted(shown.index)] == [
        "fitted", "kmeans@3", "pca", "random@2", "sae",
    ]  # fmt: skip
    assert shown.notna().all().all()
