"""Autoencoders in SAELens' format (version 6): a folder with cfg.json and sae_weights.safetensors.

Reading keeps the weights as they are and says the rest in our terms: whether the decoder's bias is taken from the input
(`b_in`), the two normalisations that are made at each vector; top-k of activations times the lengths of their rows has
these folded. Writing folds `dimension` and `whiten` into weights and biases; what only trains (topk within a batch,
nested units) is written as what it is afterwards, units with a threshold.
"""

import json
import math
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from benchkit.errors import BenchkitError, StoreError
from benchkit.machine.files import make_folder, write_atomic
from benchkit.machine.times import now
from benchkit.sae.config import Activation, Normalisation, SAEConfig
from benchkit.scorers.saved import read_record, read_tensors, write_tensors

WEIGHTS, CONFIG = "sae_weights.safetensors", "cfg.json"
ARCHITECTURES: dict[str, Activation] = {
    "standard": "relu", "topk": "topk", "jumprelu": "jumprelu", "gated": "gated", "transcoder": "relu",
    "jumprelu_transcoder": "jumprelu",
}  # fmt: skip
NORMS: dict[str, Normalisation] = {"none": "none", "layer_norm": "standardise", "constant_norm_rescale": "rescale"}
UNFOLDED = {
    "expected_average_only_in": "divides its input by an average norm",
    "covariance_whitening": "whitens its input",
}  # fmt: skip
"""Normalisations by what a training knew, which SAELens writes only where they were not folded into the weights."""
NEEDED = ("W_enc", "W_dec", "b_dec")


def is_folder(path: Path) -> bool:
    """Whether this is an autoencoder in SAELens' format."""
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def read(
    folder: Path, *, scale: float | None = None
) -> tuple[SAEConfig, dict[str, Float32[np.ndarray, "..."]], dict[str, Any]]:
    """The autoencoder, its tensors as ours are named, and what cfg.json says.

    scale: what the input is multiplied by before it is encoded, where that was not folded. Raises StoreError for a file
    that is missing or damaged, BenchkitError for an architecture that is not known here or a normalisation that the
    folder does not bring.
    """
    path = folder / CONFIG
    try:
        given = json.loads(path.read_text())
        if not isinstance(given, dict):
            raise ValueError("it holds no object")
    except OSError as e:
        raise StoreError(f"cannot read '{path}': {e.strerror}") from e
    except ValueError as e:
        raise StoreError(f"'{path}' is damaged: {e}") from e
    raw = read_tensors(folder / WEIGHTS)
    if missing := [name for name in NEEDED if name not in raw]:
        raise StoreError(f"'{folder / WEIGHTS}' has no {', '.join(missing)}: it is no autoencoder of SAELens' format")
    w = {name: np.asarray(tensor, np.float32) for name, tensor in raw.items()}
    architecture = _architecture(given, folder)
    activation = ARCHITECTURES[architecture]
    width = w["W_enc"].shape[1]
    tensors = {
        "w_enc": w["W_enc"], "w_dec": w["W_dec"], "b_dec": w["b_dec"],
        "b_enc": w["b_gate" if activation == "gated" else "b_enc"] if "b_gate" in w or "b_enc" in w
        else np.zeros(width, np.float32),
        "threshold": np.zeros((), np.float32),
    }  # fmt: skip
    for name in ("threshold", "r_mag", "b_mag"):
        if name in w:
            tensors[name] = w[name]
    if "log_threshold" in w:  # as SAELens wrote it before version 6
        tensors["threshold"] = np.exp(w["log_threshold"])
    if "scaling_factor" in w and not np.all(w["scaling_factor"] == 1):
        raise BenchkitError(f"'{folder}' was finetuned with a scaling factor, which is not known here")
    if not given.get("apply_b_dec_to_input", "transcoder" not in architecture):
        tensors["b_in"] = np.zeros(len(w["W_enc"]), np.float32)
    k = _k(given, folder) if activation == "topk" else None
    if activation == "topk" and given.get("rescale_acts_by_decoder_norm"):
        lengths = np.linalg.norm(tensors["w_dec"].astype(np.float64), axis=1)
        tensors |= {
            "w_enc": (tensors["w_enc"] * lengths).astype(np.float32),
            "b_enc": (tensors["b_enc"] * lengths).astype(np.float32),
            "w_dec": (tensors["w_dec"] / np.maximum(lengths, 1e-30)[:, None]).astype(np.float32),
        }
    norm = given.get("normalize_activations", "none")
    if norm in UNFOLDED and scale is None:
        raise BenchkitError(
            f"'{folder}' {UNFOLDED[norm]}, by what the folder does not have: fold it in SAELens and save it again"
            + (", or give --input-scale" if norm == "expected_average_only_in" else "")
        )
    if norm not in NORMS and norm not in UNFOLDED:
        raise BenchkitError(f"'{folder}' normalises its input as '{norm}', which is not known here")
    if scale is not None:
        tensors |= {
            "w_enc": tensors["w_enc"] * np.float32(scale), "w_dec": tensors["w_dec"] / np.float32(scale),
            "b_dec": tensors["b_dec"] / np.float32(scale),
        }  # fmt: skip
    config = SAEConfig(activation, width, NORMS.get(norm, "none"), k=k)
    return config, tensors, given


def _architecture(given: Mapping[str, Any], folder: Path) -> str:
    named = given.get("architecture", "standard")
    function = given.get("activation_fn_str", given.get("activation_fn", "relu"))
    if named == "standard" and function == "topk":  # as SAELens wrote it before version 6
        return "topk"
    if named not in ARCHITECTURES or function not in ("relu", "topk"):
        known = ", ".join(ARCHITECTURES)
        what = named if named not in ARCHITECTURES else f"{named} with {function}"
        raise BenchkitError(f"'{folder}' is of architecture '{what}', which is not known here ({known})")
    return named


def _k(given: Mapping[str, Any], folder: Path) -> int:
    kwargs = given.get("activation_fn_kwargs") or {}
    k = given.get("k", kwargs.get("k"))
    if not isinstance(k, int | float) or not k >= 1:
        raise BenchkitError(f"'{folder}' is of top-k, and its {CONFIG} names no k")
    return int(k)


def import_(
    folder: Path, to: Path, *, model: str, point: str, scale: float | None = None, target: str | None = None
) -> Path:
    """Writes it as a file of ours, for the place of a backbone that it was trained on. model: canonical spec. target:
    of a transcoder. Raises what `read` raises, StoreError where no file can be written there."""
    config, tensors, given = read(folder, scale=scale)
    record = {
        "kind": "sae", "uuid": uuid.uuid4().hex, "task": "", "model": model, "point": point,
        "autoencoder": {name: getattr(config, name) for name in config.__dataclass_fields__},
        "dim": len(tensors["w_enc"]), "metrics": {}, "imported": given, "finished_at": now(),
        **({"target": target} if target else {}),
    }  # fmt: skip
    write_tensors(to, tensors, record)
    return to


def export(file: Path, folder: Path) -> Path:
    """Writes one of ours in SAELens' format. Its inputs and reconstructions are x, whatever it was normalised by.

    A `layernorm` becomes SAELens' own, whose deviation has N - 1 below the root and 1e-5 beside it: the same to about
    1e-5 / deviation. Raises StoreError where the file cannot be read or the folder not written.
    """
    record, tensors = read_record(file, "sae"), read_tensors(file)
    config = SAEConfig(**record["autoencoder"])
    t = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    tied = "b_in" not in t
    b_in = t["b_dec"] if tied else t["b_in"]
    linear_in, shift_in = _linear(config.normalise, t, "normalise.", len(t["w_enc"]))
    paired = "target" in record
    linear_out, shift_out = _linear(config.normalise, t, "target." if paired else "normalise.", len(t["b_dec"]))
    # pre = ((x - shift) A - b_in) W + c = (x - b') (A W) + c', whatever b' is
    w_enc = linear_in @ t["w_enc"]
    inverse = np.linalg.inv(linear_out)
    w_dec = t["w_dec"] @ inverse
    b_dec = (t["b_dec"] @ inverse + shift_out).astype(np.float32)
    centre = b_dec.astype(np.float64) if tied else np.zeros(len(w_enc))
    b_enc = t["b_enc"] + (centre - shift_in) @ w_enc - b_in @ t["w_enc"]
    made: dict[str, Float64[np.ndarray, "..."]] = {"W_enc": w_enc, "W_dec": w_dec, "b_dec": b_dec}
    given: dict[str, Any] = {
        "d_in": len(w_enc), "d_sae": config.width, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": tied, "reshape_activations": "none",
        "normalize_activations": {v: k for k, v in NORMS.items()}.get(
            "standardise" if config.normalise == "layernorm" else config.normalise, "none"
        ),
        "metadata": {
            "model_name": record["model"], "hook_name": record["point"], "benchkit_uuid": record["uuid"],
            "dataset": record.get("task", ""),
        },
    }  # fmt: skip
    if config.activation == "gated":
        made |= {"b_gate": b_enc, "r_mag": t["r_mag"], "b_mag": t["b_mag"]}
    else:
        made["b_enc"] = b_enc
    architecture: str = config.activation
    if config.activation in ("relu", "topk"):
        architecture = "standard" if config.activation == "relu" else "topk"
    elif config.activation != "gated":
        architecture = "jumprelu"
        made["threshold"] = np.broadcast_to(t["threshold"].reshape(-1), config.width)
    if config.activation == "topk":
        given |= {"k": config.k, "rescale_acts_by_decoder_norm": False}
    if paired:
        if architecture not in ("standard", "jumprelu"):
            raise BenchkitError(f"SAELens has no transcoder of '{config.activation}': it has relu and jumprelu")
        architecture = "transcoder" if architecture == "standard" else "jumprelu_transcoder"
        given["d_out"] = len(b_dec)
    given["architecture"] = architecture
    _write(folder, made, given)
    return folder


def _linear(
    how: Normalisation, t: Mapping[str, np.ndarray], prefix: str, dim: int
) -> tuple[Float64[np.ndarray, "D D"], Float64[np.ndarray, " D"]]:
    """A and s of z = (x - s) A, where it is of that form; of layernorm, what ours is times SAELens' own."""
    if how == "dimension":
        return np.diag(1 / t[f"{prefix}std"]), t[f"{prefix}mean"]
    if how == "whiten":
        return t[f"{prefix}whitening"], t[f"{prefix}mean"]
    factor = math.sqrt(dim / (dim - 1)) if how == "layernorm" and dim > 1 else 1.0
    return np.eye(dim) * factor, np.zeros(dim)


def _write(folder: Path, tensors: Mapping[str, np.ndarray], given: Mapping[str, Any]) -> None:
    from safetensors.numpy import save

    plain = {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in tensors.items()}
    try:
        make_folder(folder)
    except OSError as e:
        raise StoreError(f"cannot make the folder '{folder}': {e.strerror}") from e
    other = sorted(e.name for e in folder.iterdir() if e.name not in (WEIGHTS, CONFIG))
    if other:
        raise StoreError(f"'{folder}' holds '{other[0]}': choose a folder that is empty or not there")
    write_atomic(folder / WEIGHTS, save(plain))
    write_atomic(folder / CONFIG, (json.dumps(given, indent=1) + "\n").encode())
