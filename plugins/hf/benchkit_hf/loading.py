"""Configuration, processor and weights from a folder; transformers' many errors, as one line each."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchkit import BenchkitError, fingerprint, fingerprint_path
from benchkit_hf.families import Family

PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
UNSAID = ("_name_or_path", "architectures", "transformers_version")
"""Of a configuration's file: what changes no feature."""


COMPUTED = ("position_ids", "inv_freq", "relative_position_index", "num_batches_tracked")
"""Tables that older checkpoints hold, and that models compute now."""


def config_of(name: str, folder: Path, code: bool) -> Any:
    """Raises BenchkitError."""
    from transformers import AutoConfig

    with readable(name, "configuration"):
        return AutoConfig.from_pretrained(folder, trust_remote_code=code)


def stated(folder: Path) -> dict[str, Any]:
    """What the processor's file says, whichever of its names it has; the newer file nests it. {}: nothing."""
    for file in PROCESSOR_FILES:
        try:
            record = json.loads((folder / file).read_text())
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as e:
            raise BenchkitError(f"cannot read '{folder / file}': {e}") from e
        for part in ("feature_extractor", "image_processor"):
            if isinstance(record.get(part), dict):
                record = record[part]
        return dict(record)
    return {}


def processor_of(name: str, folder: Path, code: bool, how: str) -> Any:
    """how: of the family. Image processors run on Pillow where they can, so that a machine with torchvision gives the
    same. Raises BenchkitError."""
    from transformers import AutoFeatureExtractor, AutoImageProcessor

    said = stated(folder)
    kind = str(said.get("image_processor_type", said.get("feature_extractor_type", "")))
    images, unknown = how in ("image", "patches"), how == "unknown"
    if kind and not unknown and ("Image" in kind) != images and how != "clap":
        what = "images" if "Image" in kind else "audio"
        raise BenchkitError(
            f"the processor that lies beside 'hf:{name}' is a {kind}, which is for {what}: put the model's own "
            "preprocessor_config.json there"
        )
    if kind.startswith("DINOv3ViTImageProcessor"):
        from benchkit_hf.dinov3 import Processor

        return Processor.of(said)
    with readable(name, "processor"):
        if not images:
            try:
                return AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=code)
            except (ValueError, KeyError, AttributeError, OSError):  # no audio model: transformers says so in many ways
                if not unknown:
                    raise
        return AutoImageProcessor.from_pretrained(folder, trust_remote_code=code, backend="pil")


def files_fingerprint(folder: Path, code: bool) -> str:
    """Of the files beside the weights that can change a feature: configuration and processor, whatever their layout;
    with remote code, which may read anything, everything that lies there."""
    if code:
        return fingerprint_path(folder)
    found: dict[str, Any] = {}
    for file in ("config.json", *PROCESSOR_FILES):
        path = folder / file
        if path.is_file():
            record = json.loads(path.read_text())
            found[file] = {k: v for k, v in record.items() if k not in UNSAID} if isinstance(record, dict) else record
    return fingerprint(found)


def random_model(name: str, config: Any, code: bool, family: Family, seed: int) -> Any:
    """Drawn in float32, whatever the checkpoint's type is. Raises BenchkitError."""
    import torch
    import transformers

    made = getattr(transformers, family.model)
    with readable(name, "architecture"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if family.model != "AutoModel":
            return made._from_config(config, dtype=torch.float32)
        return made.from_config(config, dtype=torch.float32, trust_remote_code=code)


def pretrained_model(name: str, folder: Path, config: Any, code: bool, family: Family) -> tuple[Any, list[str]]:
    """The model in float32, and the tensors of its encoder that the checkpoint lacks.

    Raises BenchkitError for weights that cannot be read, and for tensors of the encoder that it does not know.
    """
    import torch
    import transformers

    code_too = {"trust_remote_code": code} if family.model == "AutoModel" else {}
    with readable(name, "weights"), _quiet():
        model, info = getattr(transformers, family.model).from_pretrained(
            folder, config=config, dtype=torch.float32, output_loading_info=True, **code_too
        )
    inside = f"{family.part}." if family.part else ""
    unknown = sorted(k for k in info["unexpected_keys"] if not k.endswith(COMPUTED))
    extra = [k for k in unknown if _of_encoder(k, model, inside)]
    if extra:
        raise BenchkitError(f"the checkpoint '{name}' has an unknown tensor '{extra[0]}'{_more(extra)}")
    missing = [k.removeprefix(inside) for k in sorted(info["missing_keys"]) if k.startswith(inside)]
    return model, [k for k in missing if not k.endswith("num_batches_tracked")]


def lacks(name: str, missing: list[str]) -> BenchkitError:
    return BenchkitError(f"the checkpoint '{name}' lacks '{missing[0]}'{_more(missing)}")


def cast(model: Any, dtype: Any) -> Any:
    """In this precision, but tables that are computed and not stored (rotary frequencies), as from_pretrained does."""
    import torch

    stored = model.state_dict(keep_vars=True)
    with torch.no_grad():
        for tensor in stored.values():
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(dtype)
    return model


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _of_encoder(key: str, model: Any, part: str) -> bool:
    """Whether a tensor the model does not know would belong to its encoder: heads trained on top are no concern."""
    base = key.removeprefix(f"{model.base_model_prefix}.")
    top = {name for name, _ in model.named_children()}
    return base.startswith(part) if part else base.split(".")[0] in top - {"pooler"}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own report of tensors, for what matters of it is said in a line, and its progress bar."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def readable(name: str, what: str) -> Iterator[None]:
    """transformers' many errors, as one line. Its messages for tensors of the wrong shape name them."""
    try:
        yield
    except BenchkitError:
        raise
    except Exception as e:
        text = " ".join(str(e).split())
        if "trust_remote_code" in text:
            raise BenchkitError(
                f"'hf:{name}' needs Python code that it brings: allow_remote_code=true executes it"
            ) from e
        if "torchvision" in text.lower():
            raise BenchkitError(
                f"the {what} of 'hf:{name}' exists on torchvision alone: pip install 'benchkit-hf[torchvision]'"
            ) from e
        raise BenchkitError(f"cannot load the {what} of 'hf:{name}': {text[:400]}") from e


def doubts_of(said: Mapping[str, Any], sampling_rate: int | None, trained: int | None) -> list[str]:
    """What is strange in a processor's file before any input is seen. said: the file. trained: the model's own rate."""
    found = []
    if said.keys().isdisjoint(
        {"image_processor_type", "feature_extractor_type", "size", "image_mean", "sampling_rate"}
    ):
        found.append("its processor's file states nothing: these are transformers' defaults")
    if sampling_rate and trained and sampling_rate != trained:
        found.append(f"its processor states {sampling_rate:,} Hz, and models of its type are of {trained:,} Hz")
    return found
