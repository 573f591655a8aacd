"""attributes/image_attribute_labels.txt: what workers said of every image and attribute.

A line is `<image_id> <attribute_id> <is_present> <certainty_id> <time>`. The published file also has lines with one or
two whole numbers more before the time, which its documentation does not explain; their first four fields are as usual.
Nothing is taken from a line's place in the file: images and attributes are found by their ids.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from benchkit import DataError
from benchkit_cub.layout import ATTRIBUTES, CERTAINTIES
from benchkit_cub.lines import at, fields, whole

_USUAL, _MOST = 5, 7


@dataclass(frozen=True)
class Answers:
    """One row an image, in the order of the ids given; one column an attribute, that of id 1 first.

    present: 0 or 1. certainty: 1 to 4. longer: numbers of the lines with more than the five fields documented.
    """

    present: UInt8[np.ndarray, "N A"]
    certainty: UInt8[np.ndarray, "N A"]
    longer: tuple[int, ...]


def read_answers(path: Path, images: Mapping[int, str]) -> Answers:
    """Raises DataError, naming the line, for a line that is not as documented (or one of the longer ones), ids that are
    not there, and a pair of image and attribute that comes twice or not at all."""
    ids = sorted(images)
    begins = {str(key): row * ATTRIBUTES for row, key in enumerate(ids)}
    columns = {str(a + 1): a for a in range(ATTRIBUTES)}
    codes = {(str(p), str(c)): 2 * c + p for p in (0, 1) for c in CERTAINTIES}
    cells = bytearray(len(ids) * ATTRIBUTES)  # 0 where no line was seen
    longer = []
    for number, parts in fields(path):
        if len(parts) != _USUAL:
            _check_longer(parts, path, number)
            longer.append(number)
        try:
            cell = begins[parts[0]] + columns[parts[1]]
            code = codes[parts[2], parts[3]]
            float(parts[-1])
        except (KeyError, ValueError):
            raise _fault(parts, path, number, images) from None
        if cells[cell]:
            raise DataError(f"{at(path, number)} image {parts[0]} has attribute {parts[1]} a second time")
        cells[cell] = code
    code_na = np.frombuffer(cells, np.uint8).reshape(len(ids), ATTRIBUTES)
    if not code_na.all():
        row, column = np.argwhere(code_na == 0)[0]
        raise DataError(
            f"'{path}' has no line for image {ids[row]} and attribute {column + 1}, and lacks "
            f"{np.count_nonzero(code_na == 0):,} of {code_na.size:,}: every image has exactly {ATTRIBUTES}"
        )
    return Answers(code_na % 2, code_na // 2, tuple(longer))


def _check_longer(parts: list[str], path: Path, number: int) -> None:
    if not _USUAL < len(parts) <= _MOST:
        raise DataError(f"{at(path, number)} it has {len(parts)} fields: image, attribute, present, certainty and time")
    for extra in parts[_USUAL - 1 : -1]:
        whole(extra, "a field before the time", path, number)


def _fault(parts: list[str], path: Path, number: int, images: Mapping[int, str]) -> DataError:
    """What is wrong with the line."""
    where = at(path, number)
    image, attribute, present, certainty = (
        whole(text, what, path, number)
        for text, what in zip(parts, ("image", "attribute", "is_present", "certainty"), strict=False)
    )
    if image not in images:
        return DataError(f"{where} image is {image}, which images.txt does not have")
    if not 1 <= attribute <= ATTRIBUTES:
        return DataError(f"{where} attribute is {attribute}, outside of 1 to {ATTRIBUTES}")
    if present not in (0, 1):
        return DataError(f"{where} is_present is {present}, not 0 or 1")
    if certainty not in CERTAINTIES:
        return DataError(f"{where} certainty is {certainty}, not 1 to {len(CERTAINTIES)}")
    return DataError(f"{where} '{' '.join(parts)}' is no image, attribute, is_present, certainty and time")
