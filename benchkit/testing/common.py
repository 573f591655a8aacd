"""What the four suites share: making components, looking at them from a fresh process, saying what is wrong."""

import json
import os
import pickle
import random
import shlex
import subprocess
import sys
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from benchkit.catalog.discovery import discover, one_line
from benchkit.catalog.params import hints_of
from benchkit.catalog.resolve import resolve
from benchkit.catalog.spec import Kind, RawSpec, Spec, parse_params
from benchkit.errors import BenchkitError

HEAVY = ("torch", "jax", "transformers", "datasets", "sklearn", "tensorflow")
"""What importing a plugin's module must not import."""


def expect(ok: object, message: str) -> None:
    """Raises AssertionError with `message`; unlike the statement, also under `python -O`."""
    if not ok:
        raise AssertionError(message)


def expect_same(a: np.ndarray, b: np.ndarray, tolerance: float, message: str) -> None:
    """Equal shapes, and no difference above `tolerance` times the largest magnitude."""
    expect(a.shape == b.shape, f"{message}: the shapes are {list(a.shape)} and {list(b.shape)}")
    scale = max(float(np.abs(a).max(initial=0)), float(np.abs(b).max(initial=0)))
    gap = float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0))
    expect(gap <= tolerance * scale, f"{message}: they differ by {gap:.3g}, where the largest value is {scale:.3g}")


def expect_array(x: object, shape: tuple[int | None, ...], what: str, dtype: str = "float32") -> None:
    """A finite numpy array of this type and shape; None in `shape` is any length above 0."""
    expect(isinstance(x, np.ndarray), f"{what} must be a numpy array, and is of type {type(x).__name__}")
    assert isinstance(x, np.ndarray)
    wanted = "[" + ", ".join("any" if n is None else str(n) for n in shape) + "]"
    fits = x.ndim == len(shape) and all(n == m or (m is None and n > 0) for n, m in zip(x.shape, shape, strict=True))
    expect(fits, f"{what} must be of shape {wanted}, and is {list(x.shape)}")
    expect(x.dtype == dtype, f"{what} must be {dtype}, and is {x.dtype}")
    expect(np.isfinite(x).all(), f"{what} holds NaN or infinity")


def frozen(x: np.ndarray) -> np.ndarray:
    """A copy that cannot be written to, so that code which modifies its input fails."""
    x = np.array(x)
    x.flags.writeable = False
    return x


def unharmed(function: Callable[..., Any], x: np.ndarray, *others: Any, **options: Any) -> Any:
    """What `function` makes of `x`, which it must leave as it was (torch writes even to an array that is read-only)."""
    before = x.copy()
    made = function(x, *others, **options)
    expect(np.array_equal(before, x), f"{getattr(function, '__name__', 'a call')} modifies what it is given")
    return made


def disturb_global_generators() -> None:
    """Moves on the generators that nobody may rely on."""
    random.random()
    np.random.rand(3)
    if "torch" in sys.modules:
        sys.modules["torch"].rand(3)


class Suite:
    """The checks that all four kinds share. Subclass one of the four."""

    kind: ClassVar[Kind]
    attribute: ClassVar[str]
    """The name of the attribute that holds the class or instance, where no `spec` is given."""

    spec: str | None = None
    """As a user types it, where the plugin is installed."""
    device: str = "cpu"

    teardown_class: ClassVar[Callable[[], None]]
    """pytest calls it after the last check: large models are let go."""
    _memo: ClassVar[dict[str, Any]]

    def __init_subclass__(cls) -> None:
        memo: dict[str, Any] = {}
        cls._memo = memo
        cls.teardown_class = staticmethod(lambda: memo.clear())  # pytest looks at how many arguments a function takes

    def make(self) -> Any:
        """A new instance, not set up. Override it for what `spec` or a class cannot say."""
        if self.spec is not None:
            return resolve(self.kind, self.spec).build()
        return self._make(getattr(self, self.attribute))

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, made once for all checks of this suite."""
        if name not in self._memo:
            self._memo[name] = make()
        return self._memo[name]

    def _make(self, what: Any) -> Any:
        if isinstance(what, str):
            return resolve(self.kind, what).build()
        expect(what is not None, f"{type(self).__name__} tests nothing yet: set spec = '...' or {self.attribute} = ...")
        return what() if isinstance(what, type) else type(what)(what.params)

    # ------------------------------------------------------------------------------------------------------ checks

    def test_params_are_a_frozen_dataclass_that_specs_can_spell(self) -> None:
        component = self.make()
        hints_of(component.Params)
        expect(
            type(component.params) is component.Params,
            f"{type(component).__name__} is built with params of type {type(component.params).__name__}, "
            f"not {component.Params.__name__}",
        )

    def test_its_spec_round_trips_and_needs_no_quoting(self) -> None:
        component = self.make()
        if self.spec is not None:
            spec = resolve(self.kind, self.spec)
            again = resolve(self.kind, spec.portable)
        else:
            spec = Spec(self.kind, "x", "x", type(component), component.params)
            params = parse_params(self.kind, RawSpec.parse(spec.portable), component.Params)
            again = Spec(self.kind, "x", "x", type(component), params)
        expect(again.canonical == spec.canonical, f"'{spec.canonical}' is read back as '{again.canonical}'")
        expect(shlex.quote(spec.canonical) == spec.canonical, f"'{spec.canonical}' needs quoting in a shell")

    def test_its_version_is_a_number_from_1(self) -> None:
        version = self.make().version
        expect(type(version) is int and version >= 1, f"version is {version!r}, not a whole number from 1")

    def test_importing_it_imports_no_framework(self) -> None:
        cls = type(self.make())
        module = cls.__module__
        if self.spec is not None:
            raw = RawSpec.parse(self.spec)
            module = discover().find(self.kind, raw.name, raw.dist).entry.target.partition(":")[0]
        found = _ask(cls, f"import sys; answer = [m for m in {HEAVY!r} if m in sys.modules]", module=module)
        expect(
            not found,
            f"importing {module} imports {', '.join(found)}: import it inside the methods that need it, so that "
            "listing plugins stays fast",
        )

    def expect_same_in_a_fresh_process(self, component: Any, expression: str, here: Any) -> None:
        """That `expression` (of `x`, a new instance) gives `here` in another process, with other hash seeds."""
        there = _ask(type(component), f"x = cls(params); answer = {expression}", component.params)
        expect(
            there == here,
            f"{expression} is {here!r} here and {there!r} in another process: it must come from the contents alone "
            "(not from hash(), id(), times or paths)",
        )


_FRESH = """
import importlib, importlib.util, json, pickle, sys
path, name, file, module = pickle.load(sys.stdin.buffer)
sys.path[:] = path
try:
    importlib.import_module(name)
except ModuleNotFoundError:  # a test module that pytest imported by its file
    spec = importlib.util.spec_from_file_location(name, file)
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
if module != name:
    importlib.import_module(module)
"""
_UNPICKLE = "cls, params = pickle.load(sys.stdin.buffer)\n"
_MARK = "answer of the fresh process: "


def _ask(cls: type, program: str, params: Any = None, module: str | None = None) -> Any:
    """Runs `program` in a new process that has imported the module of `cls`; gives what it leaves in `answer`."""
    importable = cls.__module__ != "__main__" and "<locals>" not in cls.__qualname__
    expect(importable, f"{cls.__qualname__} must stand at the top level of a module that can be imported")
    file = getattr(sys.modules[cls.__module__], "__file__", None)
    header = pickle.dumps((sys.path, cls.__module__, file, module or cls.__module__))
    body = pickle.dumps((cls, params))
    source = f"{_FRESH}{_UNPICKLE}{program}\nprint({_MARK!r} + json.dumps(answer))\n"
    done = subprocess.run(
        [sys.executable, "-c", source],
        input=header + body,
        capture_output=True,
        env={**os.environ, "PYTHONHASHSEED": "271828"},
    )
    answers = [line for line in done.stdout.decode().splitlines() if line.startswith(_MARK)]
    expect(answers, f"a new process could not use {cls.__qualname__}: {done.stderr.decode().strip()[-2000:]}")
    return json.loads(answers[-1].removeprefix(_MARK))


def run_all(suite: type[Suite]) -> None:
    """Every check of a suite, without pytest. Raises AssertionError that lists those that failed, and those that could
    not end for an exception of another kind, the first of which is its cause; BenchkitError, as of a mistyped name,
    goes through."""
    checks = [name for name in dir(suite) if name.startswith("test_")]
    failed = []
    raised: dict[str, list[str]] = {}
    cause: BaseException | None = None
    for name in checks:
        try:
            getattr(suite(), name)()
        except AssertionError as e:
            failed.append(f"- {name.removeprefix('test_').replace('_', ' ')}: {e}")
        except BenchkitError:
            raise
        except (Exception, SystemExit) as e:  # noqa: BLE001  (it is listed, and the first is raised from)
            raised.setdefault(one_line(e), []).append(name.removeprefix("test_").replace("_", " "))
            cause = cause or e
        finally:
            if name == checks[-1]:
                suite.teardown_class()
    failed += [f"- {'; '.join(names)}: could not go on: {what}" for what, names in raised.items()]
    if failed:
        n = len(failed) - len(raised) + sum(map(len, raised.values()))
        raise AssertionError(f"{n} of {len(checks)} checks failed:\n" + "\n".join(failed)) from cause
