"""BirdSet for benchkit: eight tasks that differ in their data alone."""

from benchkit import Entry, hookimpl

_TASKS = {
    "pow": ("POW", "bird sounds, Powdermill, Pennsylvania: 14,911 recordings, 4,560 windows, 48 classes"),
    "per": ("PER", "bird sounds, Amazon Basin, Peru: 16,802 recordings, 15,120 windows, 132 classes"),
    "nes": ("NES", "bird sounds, farms in Colombia and Costa Rica: 16,117 recordings, 24,480 windows, 89 classes"),
    "uhh": ("UHH", "bird sounds, Hawaii: 3,626 recordings, 36,637 windows, 25 classes"),
    "hsn": ("HSN", "bird sounds, High Sierra Nevada: 5,460 recordings, 12,000 windows, 21 classes"),
    "nbp": ("NBP", "bird sounds, France and Spain: 24,327 recordings, 563 windows, 51 classes"),
    "ssw": ("SSW", "bird sounds, Sapsucker Woods, New York: 28,403 recordings, 205,200 windows, 81 classes"),
    "sne": ("SNE", "bird sounds, Sierra Nevada: 19,390 recordings, 23,756 windows, 56 classes"),
}


@hookimpl
def benchkit_tasks() -> dict[str, Entry]:
    return {name: Entry(summary, f"benchkit_birdset.task:{cls}") for name, (cls, summary) in _TASKS.items()}
