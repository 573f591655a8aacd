"""BEANS, the benchmark of animal sounds (arXiv 2210.12300): twelve tasks."""

from benchkit import Entry, hookimpl

_TASKS = {
    "watkins": ("Watkins", "BEANS: marine mammals, 31 classes"),
    "bats": ("Bats", "BEANS: Egyptian fruit bats, 10 individuals"),
    "cbi": ("CBI", "BEANS: Cornell bird identification, 264 classes"),
    "dogs": ("Dogs", "BEANS: dogs, 10 individuals"),
    "humbugdb": ("HumBugDB", "BEANS: mosquitoes, 14 classes"),
    "esc50": ("ESC50", "BEANS: environmental sounds, 50 classes"),
    "sc": ("SpeechCommands", "BEANS: spoken words, 35 classes"),
    "dcase": ("DCASE", "BEANS: detection of 18 sorts of mammals and birds"),
    "enabirds": ("ENABirds", "BEANS: detection of 34 birds in dawn choruses"),
    "hiceas": ("HICEAS", "BEANS: detection of minke whales"),
    "rfcx": ("RFCX", "BEANS: detection of 24 birds and frogs"),
    "gibbons": ("Gibbons", "BEANS: detection of 3 sorts of gibbons' calls"),
}


@hookimpl
def benchkit_tasks() -> dict[str, Entry]:
    return {f"beans-{name}": Entry(summary, f"benchkit_beans.task:{cls}") for name, (cls, summary) in _TASKS.items()}
