"""Encoders of the Hugging Face hub as benchkit backbones."""

from benchkit import Entry, hookimpl


@hookimpl
def benchkit_models() -> dict[str, Entry]:
    summary = "audio and image encoders of the Hugging Face hub, 36 types: hf:ORG/NAME"
    return {"hf": Entry(summary, "benchkit_hf.backbone:HF")}
