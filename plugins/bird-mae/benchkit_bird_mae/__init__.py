"""Bird-MAE (arXiv 2504.12880) as benchkit backbones."""

from benchkit import Entry, hookimpl


@hookimpl
def benchkit_models() -> dict[str, Entry]:
    return {
        "bird-mae": Entry(
            "masked autoencoder of bird sound, ViT base, large or huge, 5 s at 32 kHz (arXiv 2504.12880)",
            "benchkit_bird_mae.backbone:BirdMAE",
        )
    }
