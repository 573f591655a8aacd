"""The five interfaces: Backbone, Task, Classifier, Scorer, Objective, and the small records between them.

The core only ever sees numpy arrays; torch, JAX, ONNX and plain numpy live behind these methods. Each class is built
from an instance of its frozen `Params` dataclass, cheaply: weights and data are loaded when they are first needed.
Shapes: N examples, B of a batch, D features, T tokens, C classes, K prototypes.

`version` belongs to the identity of every result: raise it whenever a change to the class can change a number.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Int64, Shaped, UInt8, UInt16

from benchkit.errors import BenchkitError, FitError
from benchkit.media.decode import Audio, Image, Media
from benchkit.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor, nn

Modality = Literal["image", "audio"]
TaskKind = Literal["multiclass", "multilabel", "detection", "traits"]
Needs = Literal["pooled", "tokens", "raw"]
"""What a probe is given: features, or preprocessed examples and, before them, the backbone that it trains."""
Labels = Int64[np.ndarray, " N"] | UInt8[np.ndarray, "N C"]
"""multiclass: the class's number, [N]. Every other kind: 0 or 1 for each class, [N, C]."""


@dataclass(frozen=True)
class NoParams:
    """The parameters of a plugin class that has none."""


class Component:
    """What the five have in common."""

    Params: ClassVar[type] = NoParams
    """A frozen dataclass (see benchkit.param); its field `checkpoint`, if any, is written `name:checkpoint`."""
    version: ClassVar[int] = 1

    def __init__(self, params: Any = None) -> None:
        self.params = self.Params() if params is None else params


# ---------------------------------------------------------------------------------------------------------------- tasks


@dataclass(frozen=True)
class Example:
    """One item of a split.

    index: its row in the split, from 0.
    id: its name, unique in the split and the same on every machine; predictions carry it.
    """

    index: int
    id: str
    media: Media


@dataclass(frozen=True)
class Fold:
    """One fit and one evaluation: rows of a split to train on and rows of a split to test on.

    val: rows of `val_split` that nothing is fitted to and nothing is tested on: what a probe chooses by (when to stop,
    which penalty), where it chooses. None, for both: such a probe holds a part of its training rows out. They are none
    of the rows of `train` and `test`.
    """

    train_split: str
    train: Int[np.ndarray, " n"]
    test_split: str
    test: Int[np.ndarray, " m"]
    val_split: str | None = None
    val: Int[np.ndarray, " v"] | None = None

    @property
    def parts(self) -> "tuple[tuple[str, str, Int[np.ndarray, ' r']], ...]":
        """What there is of it, as (what it is for, split, rows): "train", "test", and "validate" where it has that."""
        parts = (("train", self.train_split, self.train), ("test", self.test_split, self.test))
        return parts if self.val_split is None or self.val is None else (*parts, ("validate", self.val_split, self.val))


@dataclass(frozen=True)
class Published:
    """A number from a paper for one cell of this task.

    model, classifier: specs as a user would type them; n_train as in a cell (-1 is all).
    value: in the units of our metric (0.1637, not 16.37).
    source: what a reader needs to check it: arXiv number and table.
    """

    model: str
    classifier: str
    n_train: int
    metric: str
    value: float
    source: str


class Task(Component, ABC):
    """Labelled examples, how they are split, and how an answer is judged."""

    kind: ClassVar[TaskKind]
    """A class whose files decide makes it, and `metrics`, a property, which is asked for as early as `ids`."""
    modality: ClassVar[Modality]
    """A class whose files decide makes it a property, which is asked for as early as `ids`."""
    metrics: ClassVar[tuple[str, ...]]
    """Names from benchkit.metrics, the primary one first."""
    published: ClassVar[tuple[Published, ...]] = ()
    group: ClassVar[str] = "recording"
    """What a group is, in one word, for reports: "recording", "site", "individual"."""

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""

    @abstractmethod
    def ids(self, split: str) -> Sequence[str]:
        """The examples' names, one a row. Decodes no media. Raises DataError."""

    @abstractmethod
    def labels(self, split: str) -> Labels:
        """One row an example, in the order of `ids`. Decodes no media. Raises DataError."""

    def groups(self, split: str) -> Sequence[str] | None:
        """Of each example, in the order of `ids`, the name of what it shares with others that were taken together: the
        recording or site that windows are cut from, the individual that was photographed. Decodes no media.

        Examples of one group are not independent, so intervals are over groups (docs/reading.md). One that shares
        with none has a name of its own. None: not known, and examples count as independent; reports say so. Raises
        DataError.
        """
        return None

    @abstractmethod
    def examples(self, split: str, indices: Sequence[int]) -> Iterator[Example]:
        """The examples of these rows, in any order, as a stream: a split may be larger than memory."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Of the data itself (see benchkit.media.fingerprint): the same data anywhere gives the same string."""

    def media_key(self, split: str) -> str | None:
        """What names the media of a split in the feature cache, where that is less than the whole spec: leave out
        parameters that change only folds or labels, and features are shared. None: the whole spec counts."""
        return None

    def fetch(self, to: Path, progress: Progress) -> Mapping[str, str | None]:
        """Copies the data into the folder `to`, complete and checked, for machines without a network; `benchkit fetch`.

        The parameters that make this task read the copy, as in {"repo": "/data/birdset"}; None drops one. Raises
        BenchkitError, as here, where a task has nothing to copy.
        """
        raise BenchkitError(f"{type(self).__name__} has nothing to fetch: its data is local, or comes with a package")

    def folds(self) -> tuple[Fold, ...]:
        """Fits and evaluations that make one result; their test rows do not overlap. By default: train, then test."""
        train, test = len(self.ids("train")), len(self.ids("test"))
        return (Fold("train", np.arange(train), "test", np.arange(test)),)


# ------------------------------------------------------------------------------------------------------------ backbones


@dataclass(frozen=True)
class Encoded:
    """What a backbone makes of a batch. tokens: only where asked for, and only where the backbone has them."""

    pooled: Float32[np.ndarray, "B D"]
    tokens: Float32[np.ndarray, "B T D2"] | None = None


@dataclass(frozen=True)
class Trainable:
    """A torch backbone's copy of itself, in float32 and in evaluation mode, for training to change.

    pooled: preprocessed examples on the module's device, [B, ...], as pooled features, [B, D]: those of `encode`, with
    gradients down to the module's parameters.
    depth_of: for each parameter, by its name in the module, how far from the input it is: 0 in the embedding, i + 1 in
    block i, `top` behind the last block. One that is not named here is not trained.
    """

    module: "nn.Module"
    pooled: "Callable[[Tensor], Tensor]"
    depth_of: Mapping[str, int]
    top: int


@dataclass(frozen=True)
class StatedInputs:
    """What a model's processor states of the numbers that the model is given (`Backbone.model_inputs`).

    low, high: between which they must lie; None: it says nothing of that. normalised: whether they should be centred
    near 0 at a deviation near 1. doubts: what is wrong with the statement itself, a sentence each.
    """

    low: float | None = None
    high: float | None = None
    normalised: bool = False
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """Where a backbone's patches lie in what it is shown, so that a token can be found again there.

    axes: of the grid of patches, the slowest first, as tokens are numbered: ("row", "column"), ("time", "mel"),
    ("time",). grid: patches along each. size: what the grid covers along each, in `units`: "px" of the image or "mel"
    bands as the model is given them, "s" of the recording. crop: how an image or a recording is brought to that, in
    words.
    """

    axes: tuple[str, ...]
    grid: tuple[int, ...]
    size: tuple[int | float, ...]
    units: tuple[str, ...]
    crop: str


WeightRole = Literal[
    "patches", "positions", "token", "norm1", "attn_in", "attn_out", "norm2", "mlp_in", "mlp_out", "norm", "pool_norm"
]
"""What a layer is in a pre-norm transformer. `attn_in` and `mlp_in` read the residual stream through norm1 and norm2,
`attn_out` and `mlp_out` write to it; `patches`, `positions` and `token` (class tokens and registers) make the
embedding; `norm` follows the last block, `pool_norm` the pooling."""


@dataclass(frozen=True)
class Weights:
    """One layer's weights, for `benchkit diagnose`.

    name: of the layer in the state dict, 'blocks.0.mlp.fc2'. block: counted from 0; None outside of the blocks.
    weight, bias: of y = weight @ x + bias, [out, in] and [out]; of a norm its scale and shift, [D]; of positions and
    tokens the vectors themselves, [T, D]. What writes does so as it is added to the residual stream: a layer scale is
    multiplied in.
    """

    name: str
    role: WeightRole
    block: int | None
    weight: Float32[np.ndarray, "..."]
    bias: Float32[np.ndarray, " D"] | None = None


class Backbone(Component, ABC):
    """A frozen model.

    Life: `__init__` is cheap and the instance is picklable; `preprocess` runs in worker processes, on an instance that
    was never set up; `setup(device)` loads the weights once, and `encode` runs after it.
    """

    modalities: ClassVar[tuple[Modality, ...]]
    sample_rate: ClassVar[int | None] = None
    """Of the waveforms it takes, in Hz; None for images. An instance may set its own."""
    seconds: float | None = None
    """Of a recording, from its beginning, that `preprocess` uses: no more is decoded, and memory does not grow with a
    file's length. None: all of it, and recordings of more than 33 million samples are refused. An instance may set its
    own."""
    prefix_tokens: int = 0
    """Tokens that come before the patches or frames in `activations`: the class token, registers. In `Encoded.tokens`
    there are none. An instance may set its own; known once `setup` has run."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """D of `Encoded.pooled`; known once `setup` has run (before, where that costs nothing)."""

    @abstractmethod
    def preprocess(self, raw: Float32[np.ndarray, " samples"] | UInt8[np.ndarray, "H W C"]) -> np.ndarray:
        """One decoded example as an array of a fixed shape, ready to be stacked into a batch. Runs on the CPU.

        raw: a waveform at `sample_rate` of any length, or an image with C = 1 or 3.
        """

    def setup(self, device: str) -> None:
        """Loads the weights onto `device` ("cpu", "cuda", "cuda:1"). Raises BenchkitError where there are none."""

    @abstractmethod
    def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        """Features of a batch of preprocessed examples, [B, ...]; an example's do not depend on its neighbours, and its
        pooled features not on what it was padded with."""

    def real_tokens(self, batch: np.ndarray, n_tokens: int) -> Bool[np.ndarray, "B T"] | None:
        """Which tokens are of the example itself: False where they are of what it was padded with. None: all are.

        batch: preprocessed examples, [B, ...]. n_tokens: T of `Encoded.tokens`, or of `activations` at a place without
        the first `prefix_tokens`. An example has one real token at least, in any order; runs after `setup`, and should
        cost nothing beside `encode`. A model whose `preprocess` pads short examples overrides it: probes on tokens,
        prototypes and recordings leave the others out.
        """
        return None

    def model_inputs(self, batch: np.ndarray) -> np.ndarray:
        """The numbers that the network itself is given of preprocessed examples, in any shape, without padding.
        Override it where `preprocess` puts other things into its array."""
        return batch

    def stated_inputs(self) -> StatedInputs | None:
        """What these numbers should look like, after `setup`; the check `inputs` compares. None: nothing is stated."""
        return None

    def layout(self, modality: Modality) -> Layout | None:
        """Of the patches of `activations`, behind the prefix tokens; known once `setup` has run. None: there is no
        grid, or it is not known. Recordings keep it."""
        return None

    def trainable(self) -> Trainable:
        """A new copy to be fine-tuned, after `setup`. Raises BenchkitError, as here, where that cannot be."""
        raise BenchkitError(f"{type(self).__name__} cannot be fine-tuned: it is no torch model")

    @abstractmethod
    def fingerprint(self) -> str:
        """Of the weights, after `setup`: other weights, other fingerprint."""

    def feature_key(self) -> Mapping[str, str]:
        """What else can change a feature and is neither in the spec nor in the fingerprint, by name; after `setup`. The
        version of a library whose own preprocessing is used, say. Cached features of another key are not taken."""
        return {}

    def points(self) -> tuple[str, ...]:
        """Names of the places inside the model that `activations` can show, as in 'blocks.11.norm2'."""
        return ()

    def activations(self, batch: np.ndarray, points: Sequence[str]) -> Mapping[str, Float32[np.ndarray, "B T D"]]:
        """Token activations at named places. Raises BenchkitError for a place that `points()` does not name."""
        raise BenchkitError(f"{type(self).__name__} names no places inside the model, so '{', '.join(points)}' is none")

    def spliced(
        self,
        batch: np.ndarray,
        point: str,
        replace: Callable[[Float32[np.ndarray, "B T D"]], Float32[np.ndarray, "B T D"]],
    ) -> Encoded:
        """As `encode`, but the activations at a place, which `replace` is given as `activations` shows them, go on as
        what it makes of them. Raises BenchkitError, as here, where nothing can be put there."""
        raise BenchkitError(f"{type(self).__name__} cannot go on from other activations at '{point}'")

    def anatomy(self) -> Iterator[Weights]:
        """The layers of a pre-norm transformer in the order of computation, after `setup`, one at a time: their copies
        may be large. By default none: then `benchkit diagnose` looks at activations alone."""
        return iter(())


class Precomputed(Backbone):
    """Features that were computed elsewhere, and are looked up by the example's name: no media is decoded.

    Both modalities suit it, whatever they were made of.
    """

    modalities = ("image", "audio")

    @abstractmethod
    def look_up(self, split: str, example: Example) -> Float32[np.ndarray, " D"]:
        """The features of this example, after `setup`, which gives the same each time. Raises MediaError where there
        are none."""

    def preprocess(self, raw: Float32[np.ndarray, " samples"] | UInt8[np.ndarray, "H W C"]) -> np.ndarray:
        raise BenchkitError(f"{type(self).__name__} has features of a task's examples alone: it can encode nothing new")

    def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        """Of a batch of looked-up features, [B, D]: themselves."""
        return Encoded(np.ascontiguousarray(batch, np.float32))


# --------------------------------------------------------------------------------------------------------------- probes


@dataclass(frozen=True)
class Problem:
    """What a classifier has to know of the task."""

    kind: TaskKind
    n_classes: int
    classes: tuple[str, ...] = ()
    """Names, for error messages."""


@dataclass(frozen=True)
class Subset:
    """One fit among many on the same features: rows to train on, and the seed of everything random in it."""

    rows: Int[np.ndarray, " n"]
    seed: int


class Fitted(ABC):
    """A classifier after fitting."""

    record: Mapping[str, Any] = {}
    """What the report should tell of the fit (chosen regularisation, final loss), as JSON takes it."""

    @abstractmethod
    def scores(self, x: Shaped[np.ndarray, "N ..."]) -> Float32[np.ndarray, "N C"]:
        """Higher is more likely; only the order within a class (and, for multiclass, within a row) has a meaning."""


class Classifier(Component, ABC):
    """A probe: fitted on a frozen backbone's features."""

    needs: ClassVar[Needs] = "pooled"
    kinds: ClassVar[tuple[TaskKind, ...]] = ("multiclass", "multilabel")
    backbone: Backbone | None = None
    """What `bind` was given."""

    @classmethod
    def trains(cls, params: Any) -> bool:
        """Whether training examples play a part, with these parameters. Where they do not, a cell's n_train is 0,
        whatever was asked for."""
        return True

    def bind(self, backbone: Backbone) -> None:
        """The backbone, set up on the device to fit on; called once, before any fit, where `needs` is "raw".

        Raises BenchkitError where the probe cannot be used with it.
        """
        self.backbone = backbone

    @abstractmethod
    def fit(
        self,
        features: Shaped[np.ndarray, "N ..."],
        labels: Labels,
        problem: Problem,
        *,
        seed: int,
        device: str = "cpu",
    ) -> Fitted:
        """Fits on all rows, as `needs` says: pooled features [N, D] or tokens [N, T, D], float32; or preprocessed
        examples [N, ...] of any type. A token that is padding (`Backbone.real_tokens`) is a row of NaN.

        The same arguments give the same result on the same machine. Raises FitError, in one line, for data it cannot
        be fitted on.
        """

    def fit_many(
        self,
        features: Shaped[np.ndarray, "N ..."],
        labels: Labels,
        problem: Problem,
        subsets: Sequence[Subset],
        *,
        device: str = "cpu",
    ) -> Iterator[Fitted]:
        """One Fitted for each subset, in order, each as `fit` would give it. Override it to train them together."""
        for subset in subsets:
            yield self.fit(features[subset.rows], labels[subset.rows], problem, seed=subset.seed, device=device)


# ------------------------------------------------------------------------------------------------------------ questions


@dataclass(frozen=True)
class Asked:
    """Examples that a question is asked about. Features may be more than memory holds: take them in parts.

    features: rows in order, by `features[start:stop]`. labels: as a task's. groups: a number for each example, the same
    for those that were taken together (windows of one recording); each its own where the task knows of none.
    """

    features: "Rows"
    labels: Labels
    groups: Int64[np.ndarray, " N"]


class Rows:
    """Some rows of an array that may be a memory map; `rows[start:stop]` reads these alone, as float32 [n, D]."""

    def __init__(self, values: Shaped[np.ndarray, "M D"], rows: Int[np.ndarray, " N"] | None = None) -> None:
        self.values, self.rows = values, rows

    def __len__(self) -> int:
        return len(self.values if self.rows is None else self.rows)

    @property
    def dim(self) -> int:
        return int(self.values.shape[1])

    def __getitem__(self, part: slice | Int[np.ndarray, " n"]) -> Float32[np.ndarray, "n D"]:
        return np.asarray(self.values[part if self.rows is None else self.rows[part]], np.float32)


class Answer(ABC):
    """What a question found, in one fold of n examples, and what it is worth on any resample of them.

    columns, table: what is kept of each example, [n, K]; NaN where it was not asked about. repeats: of the question, of
    which an interval is over as well. chance: of each metric, for features that know nothing. record: as a Fitted's.
    """

    columns: tuple[str, ...]
    table: Float32[np.ndarray, "n K"]
    repeats: int = 1
    chance: Mapping[str, float]
    record: Mapping[str, Any] = {}

    @abstractmethod
    def values(
        self, name: str, weights: UInt16[np.ndarray, "n1 R"], repeats: UInt16[np.ndarray, "k1 R"]
    ) -> Float64[np.ndarray, " R"]:
        """The metric of this name on R resamples, NaN where it is undefined; n1 is n + 1, k1 is `self.repeats` + 1.

        weights, repeats: how often a resample draws each example, and each repeat; the last row of both is of zeros.
        """


class Question(Classifier):
    """Asks the features themselves, without a probe: a cell as any other, in a classifier's place, with metrics of its
    own. `trains` says whether it asks about training examples too."""

    metrics: ClassVar[tuple[str, ...]]
    """Names, the primary one first: with letters, digits and _, and none of benchkit.metrics'."""

    @abstractmethod
    def ask(self, test: Asked, train: Asked | None, problem: Problem, *, seed: int) -> Answer:
        """train: where `trains`. Raises FitError, in one line, where these examples cannot be asked."""

    def fit(
        self,
        features: Shaped[np.ndarray, "N ..."],
        labels: Labels,
        problem: Problem,
        *,
        seed: int,
        device: str = "cpu",
    ) -> Fitted:
        """None is: raises FitError."""
        raise FitError(f"{type(self).__name__} asks the features themselves: there is nothing to fit")


# -------------------------------------------------------------------------------------------------------------- scorers


class Scorer(Component, ABC):
    """Prototypes in activation space: K scores for every activation vector.

    seeded: whether another seed, or the same vectors in another order, gives other prototypes. One for which it is
    False is fitted once for all seeds.
    """

    seeded: bool = True

    @property
    @abstractmethod
    def n_prototypes(self) -> int:
        """K."""

    @property
    def point(self) -> str | None:
        """Where the activations it wants come from: a name of `Backbone.points()`; None: the backbone's own tokens.

        By default its parameter `point`, where it has one.
        """
        return getattr(self.params, "point", None)

    @abstractmethod
    def fit(self, activations: Iterator[Float32[np.ndarray, "B D"]], *, seed: int = 0, device: str = "cpu") -> None:
        """Fits on a stream of mini-batches of activation vectors."""

    @abstractmethod
    def __call__(self, activations: Float32[np.ndarray, "B D"]) -> Float32[np.ndarray, "B K"]:
        """The score of each prototype for each activation vector."""

    @abstractmethod
    def tensors(self) -> Mapping[str, np.ndarray]:
        """What was fitted, by name: what is saved as safetensors."""

    @abstractmethod
    def restore(self, tensors: Mapping[str, np.ndarray]) -> None:
        """The inverse of `tensors`, on a scorer built from the same Params."""


__all__ = [
    "Answer",
    "Asked",
    "Audio",
    "Backbone",
    "Classifier",
    "Component",
    "Encoded",
    "Example",
    "Fitted",
    "Fold",
    "Image",
    "Labels",
    "Layout",
    "Media",
    "Modality",
    "Needs",
    "Problem",
    "Published",
    "Question",
    "Rows",
    "Scorer",
    "StatedInputs",
    "Subset",
    "Task",
    "TaskKind",
    "Trainable",
    "WeightRole",
    "Weights",
]  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- objectives


class Objective(Component, ABC):
    """What pretraining minimises. Arrays here are those of the training's framework, parameters flat dictionaries.

    A training takes the gradient of `loss` with respect to `params`, which hold the encoder's parameters and those of
    `init` side by side, so the names of `init` begin with `objective.`.
    """

    @property
    def views(self) -> int:
        """V: how many independent crops of each example a batch holds."""
        return 1

    @property
    def labels(self) -> Literal["none", "single", "multi"]:
        """What the loss itself reads of a label: nothing, the class [B], or 0 and 1 for each class [B, C]."""
        return "none"

    @abstractmethod
    def init(self, key: Any, context: Any) -> dict[str, Any]:
        """Its own first parameters, float32, the same for the same key. Raises BenchkitError where the encoder or the
        number of classes does not fit, in one line."""

    @abstractmethod
    def loss(
        self, params: Mapping[str, Any], batch: Mapping[str, Any], key: Any, step: Any, context: Any
    ) -> tuple[Any, Any]:
        """The scalar, and what else the step gives: the parts of the loss by name, and what the encoder made.

        batch: `x`, levels [B, V, ...] as the encoder's patchify takes them, B the global batch; `labels`, where it
        reads them. key: of this step alone, the same on every device. step: its number, from 0.
        """
