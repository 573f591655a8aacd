"""BirdNET and Perch as benchkit backbones, through the models that the package `birdnet` publishes and runs."""

from benchkit import Entry, hookimpl


@hookimpl
def benchkit_models() -> dict[str, Entry]:
    return {
        "birdnet": Entry(
            "BirdNET's embeddings of 3-second windows: birdnet:2.4 or :3.0", "benchkit_birdnet.birdnet:BirdNET"
        ),
        "perch": Entry("Perch v2's embeddings of 5-second windows", "benchkit_birdnet.perch:Perch"),
    }
