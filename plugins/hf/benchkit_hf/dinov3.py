"""DINOv3's image processor, which transformers has on torchvision alone: the same arithmetic on torch.

Pixels are scaled to 0 to 1, resized then (bilinear, with antialiasing), and normalised at the end.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from benchkit import BenchkitError

MODES = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""By PIL's number of the filter."""


@dataclass(frozen=True)
class Processor:
    """As transformers' DINOv3ViTImageProcessor, with the defaults of its class."""

    size: Mapping[str, int]
    resample: int = 2
    image_mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    image_std: tuple[float, ...] = (0.229, 0.224, 0.225)
    rescale_factor: float = 1 / 255
    do_resize: bool = True
    do_rescale: bool = True
    do_normalize: bool = True

    @staticmethod
    def of(said: Mapping[str, Any]) -> "Processor":
        """Of a preprocessor_config.json. Raises BenchkitError for what is not done here."""
        given = {k: said[k] for k in Processor.__dataclass_fields__ if said.get(k) is not None}
        given |= {k: tuple(given[k]) for k in ("image_mean", "image_std") if k in given}
        size = given.get("size", {"height": 224, "width": 224})
        size = {"height": size, "width": size} if isinstance(size, int) else size
        made = Processor(**given | {"size": size})
        if said.get("do_center_crop") or set(size) != {"height", "width"} or made.resample not in MODES:
            raise BenchkitError(
                "a DINOv3ViTImageProcessor that crops, or resizes to another size than height and width, needs "
                "torchvision, and is not supported"
            )
        return made

    def __call__(self, images: UInt8[np.ndarray, "H W C"], **_: Any) -> dict[str, np.ndarray]:
        import torch
        from torch.nn import functional as F

        x = torch.from_numpy(np.ascontiguousarray(images)).permute(2, 0, 1).float()
        if self.do_rescale:
            x = x * self.rescale_factor
        if self.do_resize:
            mode = MODES[self.resample]
            size = (self.size["height"], self.size["width"])
            smooth = {} if mode == "nearest" else {"antialias": True, "align_corners": False}
            x = F.interpolate(x[None], size, mode=mode, **smooth)[0]  # type: ignore[arg-type]
        if self.do_normalize:
            mean, std = (torch.tensor(v)[:, None, None] for v in (self.image_mean, self.image_std))
            x = (x - mean) / std
        return {"pixel_values": x.numpy()[None]}
