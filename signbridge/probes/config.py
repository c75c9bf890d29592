"""Options of a sweep, each written once: name, type, default and help."""

# Annotations are not postponed: the parser reads those of inherited fields too.
import math
from dataclasses import KW_ONLY, dataclass
from inspect import signature
from pathlib import Path
from typing import Literal, get_args

from signbridge.errors import ProbeError, refuse_empty
from signbridge.probes.sgd import LEARNING_RATES
from signbridge.runtime.commands import command_line

SolverName = Literal["exact", "sgd"]
SplitName = Literal["grouped", "random", "source", "file"]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What a probe is and what it is scored on: the options that ``signbridge run`` has too.

    Args:
        solver: 'exact' (L2 logistic regression to its optimum) or 'sgd' (the Lightning probe).
        split: 'grouped' (the default) keeps images that are not independent on one side; 'random'
            does not; 'source' trains on the data's own training part and tests on its test part;
            'file' is that of split_file, which says so by itself.
        split_file: a split of your own: a CSV with the columns sample_id,fold, where fold is a
            number, or train or test, or ignore.
        folds: number of folds; 1 holds out one image in five, once; 'groups' holds out each group
            in turn, such as each signer; 'auto' is 5, or 'groups' where there are fewer groups.
        C: inverse strength of the L2 penalty, as scikit-learn's; from a list such as '[0.01,0.1,1]'
            one is chosen inside each training part.
    """

    solver: SolverName = "exact"
    split: SplitName = None  # type: ignore[assignment]  # grouped, or file with split_file, once made
    split_file: str | None = None
    folds: int | Literal["auto", "groups"] = "auto"
    C: float | list[float] = 1.0


@dataclass(frozen=True)
class SweepConfig(Protocol):
    """All options of ``signbridge train_probes``, each written once; checked when made.

    The command line, :func:`signbridge.probes.train_probes` and the sweep take them from here.
    Nothing heavy is imported, so that ``--help`` answers at once.

    Args:
        store: an activation store made by extract.
        output: the folder for the results; results/STORE by default.
        seed: seed of the splits, of the intervals and of the order of batches.
        layers: 'all', or 0-based decoder layers among those of the store.
        baselines: probe the store's baselines (pixels, vision, projector) as well.
        control: a store of the same samples made by extract --weights random, probed beside.
        inner_folds: folds inside a training part, by which C and the best layer are chosen.
        compare_random: score a grouped run under the random split too; the difference is leakage.
        control_task: score random labels, one for each group, under the random split too: what a
            probe reaches there is recognition of images it was trained on (memorisation).
        permutations: how many permutations of the labels test the best layer; 0 makes no test,
            'auto' makes 999, or fewer where the data are large.
        description_length: also measure the bits that the labels cost if they are sent block by
            block, each with a probe of those before it.
        bootstrap: number of draws behind each interval.
        device: 'auto', 'cpu' or 'cuda'.
        memory_gb: memory for features and solver, in GiB.
        batch_size: images of a batch, over all devices (sgd).
        max_steps: most steps of a fold, before and again after the learning rate is chosen (sgd);
            1,500 or 20 passes by default.
        learning_rate: shares of a Newton step, of which the best is taken for each layer and C
            (sgd); '[0.03,0.1,0.3,1]' by default.
        devices: number of devices, as Lightning takes it (sgd).
        num_nodes: number of machines (sgd).
        strategy: 'auto' or 'ddp' (sgd).
        overwrite: replace results of another protocol in the same folder.

    Raises:
        ProbeError: an option that cannot be used, or ``output`` is a file.
    """

    store: str = "activations/tiny-sample.h5"
    output: str | None = None
    _: KW_ONLY
    seed: int = 42
    layers: Literal["all"] | list[int] = "all"
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
    learning_rate: float | list[float] | None = None
    devices: str | int = 1
    num_nodes: int = 1
    strategy: Literal["auto", "ddp"] = "auto"
    overwrite: bool = False

    def __post_init__(self) -> None:
        refuse_empty(vars(self))
        if self.output is not None and Path(self.output).is_file():
            raise ProbeError(f"{self.output} is a file: give the name of a folder for the results.")
        if not isinstance(self.layers, str):
            chosen = sorted(self.layers)
            if not chosen or len(set(chosen)) < len(chosen):
                given = list(self.layers)
                raise ProbeError(f"layers is {given}: give at least one layer, and each once.")
            object.__setattr__(self, "layers", chosen)
        if self.solver not in get_args(SolverName):
            raise ProbeError(f"solver {self.solver!r} is not known; use exact or sgd.")
        if self.split is not None and self.split not in get_args(SplitName):
            raise ProbeError(
                f"split {self.split!r} is not known; use grouped, random, source or file."
            )
        object.__setattr__(self, "split", _choose_split(self.split, self.split_file))
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
            value = getattr(self, name)
            if name == "folds" and value == "auto":
                continue
            if name == "folds" and value == "groups":
                if self.split != "grouped":
                    raise ProbeError(
                        f"folds=groups holds out whole groups; use it with split=grouped, not "
                        f"split={self.split}."
                    )
            elif value is not None and (isinstance(value, str) or value < least):
                also = ", auto or groups" if name == "folds" else ""
                raise ProbeError(f"{name} must be {least} or more{also}, not {value}.")
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
        return tuple(sorted({float(C) for C in _listed(self.C)}))

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """Learning rates that sgd tries, ascending, without repetition."""
        given = self.learning_rate
        if given is None:
            return LEARNING_RATES
        return tuple(sorted({float(rate) for rate in _listed(given)}))

    @property
    def memory_bytes(self) -> int:
        """Bound on the memory that features and solver take."""
        return int(self.memory_gb * 2**30)

    @property
    def command(self) -> str:
        """A command that makes the results again."""
        given = {}
        for name, option in signature(type(self)).parameters.items():
            value, default = getattr(self, name), option.default
            if name == "split":
                default = _choose_split(None, self.split_file)
            if (name == "store" or value != default) and name != "overwrite":
                given[name] = value
        return command_line("train_probes", given)


def _listed(values: float | list[float]) -> list[float]:
    return [values] if isinstance(values, (int, float)) else values


def _choose_split(split: SplitName | None, split_file: str | None) -> SplitName:
    """The split that two arguments ask for: ``file`` with a file, else ``grouped`` by default.

    Raises:
        ProbeError: they contradict each other.
    """
    if split_file is None:
        if split == "file":
            raise ProbeError("split=file needs a file with sample_id,fold; give it as split_file.")
        return split or "grouped"
    if split not in (None, "file"):
        raise ProbeError(f"split={split} and split_file={split_file} contradict; give one of them.")
    return "file"
