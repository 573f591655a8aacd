"""benchkit: how well does a frozen model's representation solve this task?

The names below are the public API: plugins import from `benchkit` and `benchkit.testing` alone, and what lies behind
may move. They are imported when first used, so that `import benchkit` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_NAMES = {
    "benchkit.activations": "Recording",
    "benchkit.api": "Results open run",
    "benchkit.catalog.resolve": "resolve",
    "benchkit.catalog.spec": "format_value local_path param",
    "benchkit.errors": (
        "BenchkitError DataError FitError MediaError MissingDependency PluginError SpecError did_you_mean require"
    ),
    "benchkit.hookspecs": "Entry hookimpl",
    "benchkit.interfaces": (
        "Answer Asked Backbone Classifier Encoded Example Fitted Fold Labels Layout Modality NoParams Objective "
        "Precomputed Problem Published Question Rows Scorer StatedInputs Subset Task Trainable WeightRole Weights"
    ),
    "benchkit.machine.cpus": "available_cpus=available",
    "benchkit.machine.files": (
        "atomic_file=writing make_folder move_file=move point_link=point remove_file=remove remove_folder=remove_tree "
        "scratch_folder=scratch append_file=adding sync_folder=fsync_folder"
    ),
    "benchkit.machine.names": "on_disk",
    "benchkit.machine.version": "__version__",
    "benchkit.media.channels": "Channel",
    "benchkit.media.cut": "cut",
    "benchkit.media.decode": "Audio Image",
    "benchkit.media.fetch": "MANIFEST copy_from_hub=copy read_manifest",
    "benchkit.media.fingerprint": "cache_dir file_digests fingerprint fingerprint_path fingerprint_tensors",
    "benchkit.media.frontends.kaldi": "Fbank fbank",
    "benchkit.media.frontends.mel": "FLOOR MelSettings hann log_mel mel_filterbank",
    "benchkit.media.hub": "Blocks Hub HubFile OfflineError RemoteError reach_hub=reach",
    "benchkit.media.recording": "OpenAudio",
    "benchkit.media.samples": "Samples",
    "benchkit.media.windows": "WindowRule=Rule window_labels window_starts",
    "benchkit.progress": "Progress",
    "benchkit.records.report": "Cell Report",
    "benchkit.machine.times": "now",
    "benchkit.reading.tables": "text_table",
    "benchkit.store.database": "store_path",
    "benchkit.store.trainings": "Pretraining keep_training pretrainings training_claimed training_curves",
}
"""Of each module its public names; `public=inner` where it goes by another name here."""

_WHERE = {
    name.partition("=")[0]: (module, name.rpartition("=")[2])
    for module, names in _NAMES.items()
    for name in names.split()
}

if TYPE_CHECKING:
    from benchkit.activations import Recording
    from benchkit.api import Results, open, run
    from benchkit.catalog.resolve import resolve
    from benchkit.catalog.spec import format_value, local_path, param
    from benchkit.errors import (
        BenchkitError,
        DataError,
        FitError,
        MediaError,
        MissingDependency,
        PluginError,
        SpecError,
        did_you_mean,
        require,
    )
    from benchkit.hookspecs import Entry, hookimpl
    from benchkit.interfaces import (
        Answer,
        Asked,
        Backbone,
        Classifier,
        Encoded,
        Example,
        Fitted,
        Fold,
        Labels,
        Layout,
        Modality,
        NoParams,
        Objective,
        Precomputed,
        Problem,
        Published,
        Question,
        Rows,
        Scorer,
        StatedInputs,
        Subset,
        Task,
        Trainable,
        WeightRole,
        Weights,
    )
    from benchkit.machine.cpus import available as available_cpus
    from benchkit.machine.files import adding as append_file
    from benchkit.machine.files import fsync_folder as sync_folder
    from benchkit.machine.files import make_folder
    from benchkit.machine.files import move as move_file
    from benchkit.machine.files import point as point_link
    from benchkit.machine.files import remove as remove_file
    from benchkit.machine.files import remove_tree as remove_folder
    from benchkit.machine.files import scratch as scratch_folder
    from benchkit.machine.files import writing as atomic_file
    from benchkit.machine.names import on_disk
    from benchkit.machine.times import now
    from benchkit.machine.version import __version__
    from benchkit.media.channels import Channel
    from benchkit.media.cut import cut
    from benchkit.media.decode import Audio, Image
    from benchkit.media.fetch import MANIFEST, read_manifest
    from benchkit.media.fetch import copy as copy_from_hub
    from benchkit.media.fingerprint import cache_dir, file_digests, fingerprint, fingerprint_path, fingerprint_tensors
    from benchkit.media.frontends.kaldi import Fbank, fbank
    from benchkit.media.frontends.mel import FLOOR, MelSettings, hann, log_mel, mel_filterbank
    from benchkit.media.hub import Blocks, Hub, HubFile, OfflineError, RemoteError
    from benchkit.media.hub import reach as reach_hub
    from benchkit.media.recording import OpenAudio
    from benchkit.media.samples import Samples
    from benchkit.media.windows import Rule as WindowRule
    from benchkit.media.windows import window_labels, window_starts
    from benchkit.progress import Progress
    from benchkit.reading.tables import text_table
    from benchkit.records.report import Cell, Report
    from benchkit.store.database import store_path
    from benchkit.store.trainings import Pretraining, keep_training, pretrainings, training_claimed, training_curves

__all__ = [
    "FLOOR",
    "MANIFEST",
    "Answer",
    "Asked",
    "Audio",
    "Backbone",
    "BenchkitError",
    "Blocks",
    "Cell",
    "Channel",
    "Classifier",
    "DataError",
    "Encoded",
    "Entry",
    "Example",
    "Fbank",
    "FitError",
    "Fitted",
    "Fold",
    "Hub",
    "HubFile",
    "Image",
    "Labels",
    "Layout",
    "MediaError",
    "MelSettings",
    "MissingDependency",
    "Modality",
    "NoParams",
    "Objective",
    "OfflineError",
    "OpenAudio",
    "PluginError",
    "Precomputed",
    "Pretraining",
    "Problem",
    "Progress",
    "Published",
    "Question",
    "Recording",
    "RemoteError",
    "Report",
    "Results",
    "Rows",
    "Samples",
    "Scorer",
    "SpecError",
    "StatedInputs",
    "Subset",
    "Task",
    "Trainable",
    "WeightRole",
    "Weights",
    "WindowRule",
    "__version__",
    "append_file",
    "atomic_file",
    "available_cpus",
    "cache_dir",
    "copy_from_hub",
    "cut",
    "did_you_mean",
    "fbank",
    "file_digests",
    "fingerprint",
    "fingerprint_path",
    "fingerprint_tensors",
    "format_value",
    "hann",
    "hookimpl",
    "keep_training",
    "local_path",
    "log_mel",
    "make_folder",
    "mel_filterbank",
    "move_file",
    "now",
    "on_disk",
    "open",
    "param",
    "point_link",
    "pretrainings",
    "reach_hub",
    "read_manifest",
    "remove_file",
    "remove_folder",
    "require",
    "resolve",
    "run",
    "scratch_folder",
    "store_path",
    "sync_folder",
    "text_table",
    "training_claimed",
    "training_curves",
    "window_labels",
    "window_starts",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'benchkit' has no attribute '{name}'")
    module, inner = _WHERE[name]
    value = globals()[name] = getattr(import_module(module), inner)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
