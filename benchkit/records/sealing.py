"""Sealing a record into a file, and reading it back.

A sealed record is one file that was written whole or not at all: a first line with a magic word for its kind, the
format's number and the SHA-256 of the rest, then the record as JSON. Jobs seal into the inbox beside the store; whoever
opens the store takes the records in (benchkit.store.ingest).
"""

import hashlib
from pathlib import Path

from benchkit.errors import StoreError
from benchkit.machine.files import Strange, read, write_atomic
from benchkit.records.conform import admit
from benchkit.records.gate import SEALED_BYTES, UUID, short
from benchkit.records.others import Diagnosis, Failure, Training
from benchkit.records.report import Report

Sealed = Report | Failure | Training | Diagnosis
KINDS: dict[str, type[Report] | type[Failure] | type[Training] | type[Diagnosis]] = {
    "benchkit-report": Report,
    "benchkit-failure": Failure,
    "benchkit-training": Training,
    "benchkit-diagnosis": Diagnosis,
}
FORMAT = 1


class UnsealError(StoreError):
    """A sealed record is damaged, or no such record, or of a newer benchkit."""


def seal(record: Sealed, inbox: Path) -> Path:
    """Writes the record into `inbox`, whole or not at all. Raises StoreError (a full disk, say) and leaves nothing."""
    if not UUID(record.uuid):
        raise StoreError(f"a record's uuid is {short(record.uuid)}, and must be {UUID.what}")
    magic = next(word for word, kind in KINDS.items() if isinstance(record, kind))
    body = record.to_json()
    digest = hashlib.sha256(body.encode()).hexdigest()
    path = inbox / f"{record.uuid}.json"
    write_atomic(path, f"{magic} {FORMAT} {digest}\n{body}\n".encode(), inbox.parent)
    return path


def unseal(path: Path) -> Sealed:
    """Reads a sealed record. Raises UnsealError, saying why, where it is damaged or from a newer benchkit; OSError
    where it cannot be read."""
    return unsealed(path)[0]


def unsealed(path: Path) -> tuple[Sealed, str]:
    """The record, and the SHA-256 of its sealed form, by which the same uuid with other contents is told from it."""
    try:
        head, _, body = read(path, SEALED_BYTES, path.parent).decode().partition("\n")
        magic, number, digest = head.split(" ")
        if magic not in KINDS:
            raise ValueError("it is no sealed report")
        if int(number) > FORMAT:
            raise ValueError(f"it is of format {number}, and this benchkit reads up to {FORMAT}")
        body = body.removesuffix("\n")
        if hashlib.sha256(body.encode()).hexdigest() != digest:
            raise ValueError("its checksum does not match: it was damaged or altered")
        made: Sealed = KINDS[magic].from_json(body)
        admit(made)
    except Strange as e:
        raise UnsealError(f"sealed report '{path}' cannot be taken in: {e.strerror}") from e
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
        raise UnsealError(f"sealed report '{path}' cannot be taken in: {e}") from e
    return made, digest
