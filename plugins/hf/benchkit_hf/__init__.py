"""Encoders of the Hugging Face hub as benchkit backbones."""

from benchkit import Entry, hookimpl


@hookimpl
def benchkit_models() -> dict[str, Entry]:
    return {"hf": Entry("any audio or image encoder that transformers knows: hf:ORG/NAME", "benchkit_hf.backbone:HF")}
