"""Arguments of a sweep."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from signbridge.errors import ProbeError
from signbridge.probes.splits import SplitName

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
    split: SplitName = "grouped"
    folds: int = 5
    C: float | tuple[float, ...] = 1.0
    seed: int = 42
    layers: Literal["all"] | tuple[int, ...] = "all"
    baselines: bool = True
    inner_folds: int = 3
    compare_random: bool = True
    bootstrap: int = 1000
    device: str = "auto"
    memory_gb: float = 4.0
    batch_size: int = 256
    max_steps: int = 1500
    learning_rate: float = 0.03
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("C", "layers"):
            value = getattr(self, name)
            if not isinstance(value, (str, tuple)) and isinstance(value, Sequence):
                object.__setattr__(self, name, tuple(value))
        if self.solver not in get_args(SolverName):
            raise ProbeError(f"solver {self.solver!r} is not known; use exact or sgd.")
        if self.split not in get_args(SplitName):
            raise ProbeError(f"split {self.split!r} is not known; use grouped or random.")
        values = self.penalties
        if not values or not all(math.isfinite(C) and C > 0 for C in values):
            raise ProbeError(f"C must be above 0 and finite, not {self.C}.")
        for name, least in (
            ("folds", 1),
            ("inner_folds", 2),
            ("bootstrap", 1),
            ("batch_size", 1),
            ("max_steps", 1),
        ):
            if getattr(self, name) < least:
                raise ProbeError(f"{name} must be {least} or more, not {getattr(self, name)}.")
        for name in ("memory_gb", "learning_rate"):
            value = getattr(self, name)
            if not math.isfinite(value) or value <= 0:
                raise ProbeError(f"{name} must be above 0, not {value}.")
        if not 0 <= self.seed < 2**32:
            raise ProbeError(f"seed must lie between 0 and 4294967295, not {self.seed}.")

    @property
    def penalties(self) -> tuple[float, ...]:
        """Values of C, ascending, without repetition."""
        given = (self.C,) if isinstance(self.C, (int, float)) else self.C
        return tuple(sorted({float(C) for C in given}))

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
            if (item.name != "store" and value == item.default) or item.name == "overwrite":
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
        if self.solver == "exact":
            for name in ("batch_size", "max_steps", "learning_rate"):
                del arguments[name]
        arguments["C"] = list(self.penalties)
        return {"store": str(store.content_sha256), **arguments}
