"""Arguments of a sweep."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from signbridge.errors import ProbeError
from signbridge.probes.dataset.given_splits import choose_split, file_sha256
from signbridge.probes.dataset.splits import SplitName
from signbridge.probes.sgd import LEARNING_RATES

if TYPE_CHECKING:
    from signbridge.store import Store

SolverName = Literal["exact", "sgd"]


@dataclass(frozen=True)
class SweepConfig:
    """Arguments of :func:`signbridge.probes.train_probes`, checked when made.

    Raises:
        ProbeError: an argument that cannot be used.
    """

    store: str = "activations/tiny-sample.h5"
    output: str | None = None
    solver: SolverName = "exact"
    split: SplitName = None  # type: ignore[assignment]  # grouped, or file with split_file, once made
    split_file: str | None = None
    folds: int = 5
    C: float | tuple[float, ...] = 1.0
    seed: int = 42
    layers: Literal["all"] | tuple[int, ...] = "all"
    baselines: bool = True
    control: str | None = None
    inner_folds: int = 3
    compare_random: bool = True
    control_task: bool = True
    permutations: int | Literal["auto"] = "auto"
    description_length: bool = False
    bootstrap: int = 1000
    device: str = "auto"
    memory_gb: float = 4.0
    batch_size: int = 256
    max_steps: int | None = None
    learning_rate: float | tuple[float, ...] | None = None
    devices: int | str = 1
    num_nodes: int = 1
    strategy: Literal["auto", "ddp"] = "auto"
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("C", "layers", "learning_rate"):
            value = getattr(self, name)
            if not isinstance(value, (str, tuple)) and isinstance(value, Sequence):
                object.__setattr__(self, name, tuple(value))
        if isinstance(self.layers, tuple):
            if not self.layers or len(set(self.layers)) < len(self.layers):
                given = list(self.layers)
                raise ProbeError(f"layers is {given}: give at least one layer, and each once.")
            object.__setattr__(self, "layers", tuple(sorted(self.layers)))
        if self.solver not in get_args(SolverName):
            raise ProbeError(f"solver {self.solver!r} is not known; use exact or sgd.")
        if self.split is not None and self.split not in get_args(SplitName):
            raise ProbeError(
                f"split {self.split!r} is not known; use grouped, random, source or file."
            )
        object.__setattr__(self, "split", choose_split(self.split, self.split_file))
        values = self.penalties
        if not values or not all(math.isfinite(C) and C > 0 for C in values):
            raise ProbeError(f"C must be above 0 and finite, not {self.C}.")
        for name, least in (
            ("folds", 1),
            ("inner_folds", 2),
            ("bootstrap", 1),
            ("batch_size", 1),
            ("max_steps", 1),
            ("num_nodes", 1),
        ):
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise ProbeError(f"{name} must be {least} or more, not {getattr(self, name)}.")
        if self.permutations != "auto" and (
            isinstance(self.permutations, (bool, str)) or self.permutations < 0
        ):
            raise ProbeError(f"permutations must be auto or 0 or more, not {self.permutations!r}.")
        for name, numbers in (
            ("memory_gb", [self.memory_gb]),
            ("learning_rate", self.learning_rates),
        ):
            if not numbers or not all(math.isfinite(value) and value > 0 for value in numbers):
                raise ProbeError(f"{name} must be above 0, not {getattr(self, name)}.")
        if self.strategy not in ("auto", "ddp"):
            raise ProbeError(f"strategy {self.strategy!r} is not known; use auto or ddp.")
        several = str(self.devices) not in ("1", "auto") or self.num_nodes > 1
        if self.solver == "exact" and (several or self.strategy == "ddp"):
            raise ProbeError(
                "the exact solver uses one device; leave out devices, num_nodes and strategy, or "
                "use solver=sgd."
            )
        if not 0 <= self.seed < 2**32:
            raise ProbeError(f"seed must lie between 0 and 4294967295, not {self.seed}.")

    @property
    def penalties(self) -> tuple[float, ...]:
        """Values of C, ascending, without repetition."""
        given = (self.C,) if isinstance(self.C, (int, float)) else self.C
        return tuple(sorted({float(C) for C in given}))

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """Learning rates that sgd tries, ascending, without repetition."""
        given = LEARNING_RATES if self.learning_rate is None else self.learning_rate
        given = (given,) if isinstance(given, (int, float)) else given
        return tuple(sorted({float(rate) for rate in given}))

    @property
    def memory_bytes(self) -> int:
        """Bound on the memory that features and solver take."""
        return int(self.memory_gb * 2**30)

    @property
    def command(self) -> str:
        """A command that makes the results again."""
        words = ["signbridge", "train_probes"]
        for item in fields(self):
            value = getattr(self, item.name)
            default = item.default
            if item.name == "split":
                default = choose_split(None, self.split_file)
            if (item.name != "store" and value == default) or item.name == "overwrite":
                continue
            if isinstance(value, tuple):
                value = str(list(value)).replace(" ", "")
            text = str(value).lower() if isinstance(value, bool) else str(value)
            words += [f"--{item.name}", shlex.quote(text)]
        return " ".join(words)

    def identity(self, store: Store) -> dict[str, Any]:
        """What makes two runs the same: the store's content and every argument that scores."""
        arguments = asdict(self)
        # Where it runs and where it writes changes nothing that is measured.
        for name in ("output", "overwrite", "device", "memory_gb", "store"):
            del arguments[name]
        for name in ("devices", "num_nodes", "strategy"):
            del arguments[name]
        arguments["learning_rate"] = list(self.learning_rates)
        if self.solver == "exact":
            for name in ("batch_size", "max_steps", "learning_rate"):
                del arguments[name]
        arguments["C"] = list(self.penalties)
        # The content counts, not the place; and without them results made before are found again.
        del arguments["control"], arguments["split_file"]
        if self.split_file is not None:
            arguments["split_file"] = file_sha256(self.split_file)
        return {"store": str(store.content_sha256), **arguments}
