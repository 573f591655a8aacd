"""BirdJEPA encoders as benchkit backbones."""

from benchkit import Entry, hookimpl


@hookimpl
def benchkit_models() -> dict[str, Entry]:
    return {
        "birdjepa": Entry(
            "ViT on spectrogram patches from a folder, computed in JAX or torch; or untrained, as a control",
            "benchkit_birdjepa.backbone:BirdJEPA",
        )
    }
