"""BirdJEPA encoders as benchkit backbones, and the objectives of their pretraining."""

from benchkit import Entry, hookimpl


@hookimpl
def benchkit_models() -> dict[str, Entry]:
    return {
        "birdjepa": Entry(
            "ViT on spectrogram patches from a folder, computed in JAX or torch; or untrained, as a control",
            "benchkit_birdjepa.backbone:BirdJEPA",
        )
    }


@hookimpl
def benchkit_objectives() -> dict[str, Entry]:
    where = "benchkit_birdjepa.objectives"
    return {
        "supervised": Entry(
            "cross-entropy of a linear head, of one label or several", f"{where}.supervised:Supervised"
        ),
        "lejepa": Entry("views predict their centre, isotropic Gaussian embeddings", f"{where}.lejepa:LeJEPA"),
        "pixio": Entry("a decoder paints hidden patches", f"{where}.pixio:Pixio"),
    }


@hookimpl
def benchkit_commands() -> dict[str, Entry]:
    return {
        "pretrain": Entry("Trains encoders of one's own, and lists trainings.", "benchkit_birdjepa.pretraining.cli:app")
    }
