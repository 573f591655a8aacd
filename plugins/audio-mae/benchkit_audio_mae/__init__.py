"""Audio-MAE (arXiv 2207.06405) as a benchkit backbone."""

from benchkit import Entry, hookimpl


@hookimpl
def benchkit_models() -> dict[str, Entry]:
    return {
        "audio-mae": Entry(
            "masked autoencoder of AudioSet, ViT-B, 5 or 10 s at 16 kHz (arXiv 2207.06405)",
            "benchkit_audio_mae.backbone:AudioMAE",
        )
    }
