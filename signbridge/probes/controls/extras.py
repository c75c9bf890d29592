"""What a sweep measures besides held-out scores: control task, permutations, description length.

Each is computed for a batch of features at a time and kept among the folder's parts, so a sweep
that was stopped goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from signbridge.probes.controls.control_task import ControlTask, evaluate_control, make_control_task
from signbridge.probes.controls.description_length import OnlineOrder, code_lengths, online_order
from signbridge.probes.controls.measurement import Sweep, names
from signbridge.probes.controls.permutation import Labellings, Relabelling, number_of_draws
from signbridge.probes.dataset.features import FeatureSource
from signbridge.probes.engines import Record, records_of
from signbridge.results.features import RESID_POST, Feature
from signbridge.runtime.threads import side_by_side

if TYPE_CHECKING:
    from signbridge.probes.config import SweepConfig
    from signbridge.probes.dataset.plan import Plan
    from signbridge.probes.dataset.splits import Split
    from signbridge.probes.engines import Engine
    from signbridge.probes.feature_result import FeatureResult
    from signbridge.store import Store

Arrays = dict[str, npt.NDArray[Any]]
Records = list[Record]

LEAST_BYTES = 8 << 20
"""What permutations take at least, however little memory there is."""


@dataclass(frozen=True, eq=False)
class Extras:
    """What to measure and, by feature, what was measured.

    Attributes:
        task: the control task, or None.
        relabelling: the labellings of the permutation test, or None.
        draws: number of permutations.
        order: the order of the description length, or None.
        control: held-out probabilities of the random labels, shape (n_samples, n_classes).
        hits: correct answers in every labelling, shape (draws + 1,).
        bits: bits of every label that is sent, shape (n_sent,).
        code_penalty: the C of the shortest code.
        warnings: sentences for the user.
        not_converged: a record for each fit that missed its tolerance.
    """

    task: ControlTask | None = None
    relabelling: Relabelling | None = None
    draws: int = 0
    order: OnlineOrder | None = None
    control: dict[Feature, npt.NDArray[np.float32]] = field(default_factory=dict)
    hits: dict[Feature, npt.NDArray[np.int64]] = field(default_factory=dict)
    bits: dict[Feature, npt.NDArray[np.float64]] = field(default_factory=dict)
    code_penalty: dict[Feature, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    not_converged: Records = field(default_factory=list)


def measure_extras(
    sweep: Sweep,
    work: Sequence[tuple[Store, list[Feature]]],
    results: Sequence[FeatureResult],
) -> Extras:
    """Measure what the config asks for, as far as the folder does not hold it yet.

    Args:
        sweep: the sweep.
        work: batches of features, each with the store that holds them.
        results: what was measured of each feature.
    """
    config, plan = sweep.config, sweep.plan
    extras = _prepare(config, plan, [feature for _, batch in work for feature in batch])
    task, order = extras.task, extras.order
    of = {result.feature: result for result in results}
    labellings = None
    if extras.relabelling is not None:
        labellings = Labellings(
            extras.relabelling, extras.draws, max(LEAST_BYTES, config.memory_bytes // 8)
        )
    found: dict[tuple[int, str], list[tuple[Arrays, Records]]] = {}

    def measure(number: int) -> None:
        store, batch = work[number]
        source = sweep.source(store, batch)
        n_classes = len(store.class_names)
        measured: list[tuple[str, Callable[[], Iterable[tuple[Arrays, Records]]]]] = []
        if task is not None:
            C = np.stack([control_penalties(of[feature]) for feature in batch])
            measured.append(("control_task", _Control(sweep.engine, source, n_classes, task, C)))
        if labellings is not None and batch[0].kind == RESID_POST:
            tests = _Permutations(sweep, source, labellings)
            measured.append(("permutations", tests))
        if order is not None:
            lengths = _Lengths(sweep.engine, source, plan, n_classes, order, config)
            measured.append(("description_length", lengths))
        for kind, compute in measured:
            found[number, kind] = _kept(sweep, kind, batch, compute)

    side_by_side([partial(measure, number) for number in range(len(work))], sweep.workers)
    for number, (_, batch) in enumerate(work):
        for kind in ("control_task", "permutations", "description_length"):
            parts = found.get((number, kind), [])
            for feature, (arrays, missed) in zip(batch, parts, strict=False):
                extras.not_converged.extend(missed)
                if kind == "control_task":
                    extras.control[feature] = arrays["probability"]
                elif kind == "permutations":
                    extras.hits[feature] = arrays["hits"]
                else:
                    extras.bits[feature] = arrays["bits"]
                    extras.code_penalty[feature] = float(arrays["C"].item())
    return extras


def control_split(plan: Plan) -> Split | None:
    """The random split: the comparison of a grouped run, or the main split of a random one."""
    return plan.main if plan.main.name == "random" else plan.random


def control_penalties(result: FeatureResult) -> npt.NDArray[np.float64]:
    """What C the true labels took in each fold of the random split, shape (n_folds,)."""
    return result.C if result.C_random is None else result.C_random


def _prepare(config: SweepConfig, plan: Plan, features: Sequence[Feature]) -> Extras:
    """What can be measured, with a sentence for each thing that cannot."""
    notes: list[str] = []
    task, order, split = None, None, control_split(plan)
    if config.control_task and split is not None:
        task, note = make_control_task(plan.labels, plan.groups, split, seed=config.seed)
        notes += [note] if note else []
    relabelling, draws = None, 0
    layers = sum(feature.kind == RESID_POST for feature in features)
    if config.permutations != 0 and layers:
        relabelling = Relabelling.of(plan.labels, plan.groups, plan.main, seed=config.seed)
        draws, note = number_of_draws(
            config.permutations,
            relabelling,
            plan.main,
            n_classes=len(np.unique(plan.labels)),
            n_fits=layers * len(config.penalties),
        )
        notes += [note] if note else []
    if config.description_length:
        order = online_order(plan.labels, plan.groups, plan.main.used, seed=config.seed)
        if order is None:
            notes.append(
                "the description length was not measured: half of the groups hold fewer than two "
                "classes; add groups."
            )
    return Extras(task, relabelling if draws else None, draws, order, warnings=notes)


def _kept(
    sweep: Sweep,
    kind: str,
    batch: Sequence[Feature],
    compute: Callable[[], Iterable[tuple[Arrays, Records]]],
) -> list[tuple[Arrays, Records]]:
    """A batch's parts from the folder, or computed and put there; always the batch as a whole."""
    parts = [f"{kind}/{feature.name}" for feature in batch]
    found = [sweep.folder.load_part(name) for name in parts]
    whole = [part for part in found if part is not None]
    if len(whole) == len(parts):
        return whole
    sweep.stages(f"{kind.replace('_', ' ')}, {names(batch)}")
    made = list(compute())
    for name, (arrays, missed) in zip(parts, made, strict=True):
        sweep.folder.save_part(name, arrays, missed)
    return made


@dataclass(frozen=True)
class _Control:
    engine: Engine
    source: FeatureSource
    n_classes: int
    task: ControlTask
    C: npt.NDArray[np.float64]

    def __call__(self) -> Iterable[tuple[Arrays, Records]]:
        found = evaluate_control(self.engine, self.source, self.task, self.n_classes, self.C)
        for feature, probability in zip(self.source.features, found.probability, strict=True):
            yield {"probability": probability}, records_of(feature, found.not_converged)


@dataclass(frozen=True)
class _Permutations:
    sweep: Sweep
    source: FeatureSource
    labellings: Labellings

    def __call__(self) -> Iterable[tuple[Arrays, Records]]:
        import torch

        from signbridge.probes.controls.score_probe import held_out_hits
        from signbridge.probes.engines import solver_threads
        from signbridge.runtime.threads import cpu_threads

        device = getattr(self.sweep.engine, "device", "cpu")
        for feature in self.source.features:
            values = np.require(self.source.array(feature), requirements="W")
            with torch.no_grad(), cpu_threads(solver_threads(self.source)):
                hits = held_out_hits(
                    torch.from_numpy(values).to(device),
                    self.labellings,
                    self.sweep.plan.main,
                    self.sweep.config.penalties,
                    memory_bytes=max(LEAST_BYTES, self.sweep.memory_bytes // 4),
                )
            yield {"hits": hits}, []


@dataclass(frozen=True)
class _Lengths:
    engine: Engine
    source: FeatureSource
    plan: Plan
    n_classes: int
    order: OnlineOrder
    config: SweepConfig

    def __call__(self) -> Iterable[tuple[Arrays, Records]]:
        found = code_lengths(
            self.engine,
            self.source,
            self.plan.labels,
            self.n_classes,
            self.order,
            self.config.penalties,
        )
        for number, feature in enumerate(self.source.features):
            arrays = {"bits": found.bits[number], "C": np.asarray(found.C[number])}
            yield arrays, records_of(feature, found.not_converged)
