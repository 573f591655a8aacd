"""Backbones without training: what every learnt model must beat."""

from benchkit import Entry, hookimpl


@hookimpl
def benchkit_models() -> dict[str, Entry]:
    return {
        "pixels": Entry("an image's pixels, flattened", "benchkit_baselines.pixels:Pixels"),
        "logmel": Entry("statistics over time of a log-mel spectrogram", "benchkit_baselines.logmel:LogMel"),
        "mfcc": Entry("statistics over time of MFCCs and the zero-crossing rate", "benchkit_baselines.mfcc:MFCC"),
        "random-vit": Entry(
            "an untrained ViT over pixels or log-mel patches", "benchkit_baselines.random_vit:RandomViT"
        ),
    }
