"""`benchkit diagnose`: from spec strings to a page and a record in the registry."""

import uuid
from dataclasses import dataclass
from pathlib import Path

from benchkit.catalog.resolve import resolve
from benchkit.diagnose.run import Looked, check_media, diagnose
from benchkit.errors import BenchkitError
from benchkit.features.batches import memory_suffices
from benchkit.machine.environment import Meter, resolve_device
from benchkit.machine.files import write_atomic
from benchkit.machine.times import now
from benchkit.progress import Progress
from benchkit.records.environment import describe
from benchkit.records.sealing import seal
from benchkit.store import check_place, open_store, side_folder
from benchkit.store.opening import refresh


@dataclass(frozen=True)
class Wanted:
    """What the user asked for. page: None is the folder beside the registry."""

    model: str
    task: str
    against: str | None
    against_task: str | None
    examples: int
    pooled: bool
    page: Path | None
    device: str
    db: Path


@dataclass(frozen=True)
class Done:
    looked: Looked
    against: Looked | None
    page: Path


def run(wanted: Wanted, progress: Progress) -> Done:
    """Looks, writes the page, seals the record and has the registry take it in. Raises BenchkitError."""
    from benchkit.diagnose.page import html
    from benchkit.diagnose.record import record

    model, task = resolve("model", wanted.model), resolve("task", wanted.task)
    other = resolve("model", wanted.against) if wanted.against else None
    other_task = resolve("task", wanted.against_task) if wanted.against_task else None
    for one, its in ((model, task), (other or model, other_task or task)):
        check_media(one, its)
    check_place(wanted.db)
    name = uuid.uuid4().hex
    page = (wanted.page or side_folder(wanted.db) / "diagnoses" / f"{name}.html").absolute()
    if wanted.page is not None and not page.parent.is_dir():
        raise BenchkitError(f"the page cannot be written to '{wanted.page}': there is no folder '{page.parent}'")
    if page.is_dir():
        raise BenchkitError(f"the page cannot be written to '{wanted.page}': that is a folder")
    device, began, meter = resolve_device(wanted.device), now(), Meter()
    also = [other_task] if other_task is not None and other is None else []
    against = None
    with memory_suffices(device, "another --device may have more" if wanted.pooled else "--pooled needs less"):
        looked = diagnose(model, task, examples=wanted.examples, device=device, pooled_only=wanted.pooled, also=also,
                          progress=progress)  # fmt: skip
        if other is not None:
            against = diagnose(other, other_task or task, examples=wanted.examples, device=device,
                               pooled_only=wanted.pooled, progress=progress)  # fmt: skip
    with open_store(wanted.db) as store:
        ended = now()
        write_atomic(page, html(looked, against, ended).encode())
        providers = {spec.kind + spec.name: spec.dist for spec in (model, task, other, other_task) if spec is not None}
        environment = describe(providers, device, *meter.read())
        seal(record(looked, against, name, str(page), environment, (began, ended)), store.inbox)
        refresh(store)
    return Done(looked, against, page)
