"""Perch v2 (arXiv 2508.04665): a classifier of animal sounds whose embedding serves for 5 seconds at 32 kHz.

The model is published as a TensorFlow SavedModel, one export for CPUs and one for GPUs, and `benchkit-birdnet[perch]`
brings TensorFlow. An ONNX conversion with the output `embedding`, such as perch_v2.onnx of justinchuby/Perch-onnx on
the Hugging Face hub, needs none: give it as `path`.

Google's own code for the model (github.com/google-research/perch-hoplite, zoo_interface.py, taxonomy_model_tf.py) takes
the mean off each window and scales it to a peak of 0.25; the package `birdnet` hands windows over as they are. `peak`
says which.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, UInt8

from benchkit import BenchkitError, MissingDependency, available_cpus, fingerprint_path, param, require
from benchkit_birdnet.files import Release, load_package, locate
from benchkit_birdnet.runtime import backend, device_name, in_batches, loaded
from benchkit_birdnet.windows import Encoder, Window, WindowBackbone, WindowParams

SAVED_MODEL = ("saved_model.pb", "variables/*")
WINDOW = Window(32_000, 5.0, 1536)


@dataclass(frozen=True)
class Params(WindowParams):
    peak: float | None = param(
        0.25, low=1e-3, high=1.0, help="each window without its mean and scaled to this peak; none: as it is"
    )
    export: Literal["cpu", "gpu"] = param("cpu", help="of the SavedModel: gpu runs on a GPU only, cpu on CPUs only")
    path: Path | None = param(
        None, place=SAVED_MODEL, help="a folder with a SavedModel, or an .onnx file, instead of the published model"
    )

    def __post_init__(self) -> None:
        if self.export != "cpu" and self.path is not None and self.path.suffix == ".onnx":
            raise ValueError("export is of the SavedModel: an .onnx file runs on either")
        self.check()

    @property
    def window(self) -> Window:
        return WINDOW


class Perch(WindowBackbone):
    Params = Params
    params: Params

    def preprocess(
        self, raw: Float32[np.ndarray, " samples"] | UInt8[np.ndarray, "H W C"]
    ) -> Float32[np.ndarray, "windows samples2"]:
        windows = super().preprocess(raw)
        return windows if self.params.peak is None else scaled(windows, self.params.peak)

    def load(self, device: str) -> tuple[Encoder, str]:
        load_package()
        given = self.params.path
        if given is not None and given.suffix == ".onnx":
            encoder = loaded(lambda: _onnx(given, device), given, "Perch v2", WINDOW)
            return encoder, fingerprint_path(given)
        on = device_name(device, gpu=self.params.export == "gpu")
        if self.params.export == "gpu" and on == "CPU":
            raise BenchkitError("perch,export=gpu runs on a GPU only, not on the device 'cpu': leave out export=gpu")
        _require_tensorflow()
        folder = given or locate(release(self.params.export))
        if not (folder / SAVED_MODEL[0]).is_file():
            raise BenchkitError(f"'{folder}' is no folder with a {SAVED_MODEL[0]}, nor an .onnx file")
        encoder = loaded(lambda: _tensorflow(folder, on), folder, "Perch v2", WINDOW)
        return encoder, fingerprint_path(folder, SAVED_MODEL)


def scaled(windows: Float32[np.ndarray, "N samples"], peak: float) -> Float32[np.ndarray, "N samples"]:
    """Each window without its mean, its largest absolute value at `peak`; silence stays silence."""
    centred = windows - windows.mean(axis=1, keepdims=True)
    largest = np.abs(centred).max(axis=1, keepdims=True)
    return centred * np.divide(np.float32(peak), largest, out=np.zeros_like(largest), where=largest > 0)


def release(export: Literal["cpu", "gpu"]) -> Release:
    """The published SavedModel."""
    from birdnet.acoustic.models.perch_v2.pb import AcousticPBDownloaderPerchV2 as Published
    from birdnet.utils.helper import check_protobuf_model_files_exist, check_source_marker
    from birdnet.utils.local_data import APP_DIR

    if export == "cpu":
        url, size = Published.MODEL_DOWNLOAD_URL_CPU, Published.MODEL_DOWNLOAD_SIZE_CPU
    else:
        url, size = Published.MODEL_DOWNLOAD_URL_GPU, Published.MODEL_DOWNLOAD_SIZE_GPU
    name = f"perch-v2-{export}"
    place = APP_DIR / "acoustic-models" / "perch-v2" / name

    def whole(path: Path) -> bool:
        """The package marks its own with where it came from, because an older release has the same files."""
        return check_protobuf_model_files_exist(path) and (path != place or check_source_marker(path, url))

    return Release("Perch v2", name, url, size, place, whole, member="")


def _onnx(path: Path, device: str) -> Encoder:
    """By the output's name: conversions differ in their order, and some leave out all but this one."""
    require("onnxruntime", "onnxruntime")
    import onnxruntime
    from birdnet.core.backends import load_onnx_model

    gpu = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    session: Any = load_onnx_model(path, device_name(device, gpu), available_cpus())
    given = session.get_inputs()[0].name
    outputs = [output.name for output in session.get_outputs()]
    if "embedding" not in outputs:
        raise ValueError(f"it has no output 'embedding', but {', '.join(outputs)}")
    return in_batches([lambda windows: session.run(["embedding"], {given: windows})[0]])


def _tensorflow(folder: Path, device: str) -> Encoder:
    from birdnet.acoustic.models.perch_v2.pb import AcousticPBBackendFP32PerchV2, check_tf_version_for_perch_v2

    with _environment_kept("CUDA_VISIBLE_DEVICES"):
        check_tf_version_for_perch_v2()
        return in_batches([backend(AcousticPBBackendFP32PerchV2, folder, device, cpu_threads=available_cpus())])


def _require_tensorflow() -> None:
    try:
        require("tensorflow", "benchkit-birdnet[perch]")
    except MissingDependency as e:
        raise MissingDependency(f"{e} (or give path= of an .onnx conversion of Perch v2, which needs none)") from None


@contextmanager
def _environment_kept(name: str) -> Iterator[None]:
    """The package hides GPUs from the whole process to hide them from TensorFlow; torch is to find them again."""
    before = os.environ.get(name)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before
