"""The sweep: every layer and baseline of a store probed under one protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from signbridge.errors import ProbeError
from signbridge.probes.config import SweepConfig
from signbridge.probes.controls.measurement import (
    FITS,
    SCORES,
    Batch,
    Measurement,
    Stages,
    Sweep,
    measure,
)
from signbridge.probes.controls.random_weights import open_control
from signbridge.probes.controls.registry import MEASUREMENTS
from signbridge.probes.dataset.features import select_features
from signbridge.probes.dataset.plan import FEWER_GROUPS, folds_of, make_plan
from signbridge.probes.dataset.split_file import file_sha256
from signbridge.probes.engines import (
    Joining,
    Recorded,
    is_small,
    not_converged,
    records_of,
    work_of,
)
from signbridge.probes.feature_result import FeatureResult
from signbridge.probes.selection import evaluate, lower_median
from signbridge.probes.sgd import COPIES
from signbridge.probes.summary import write_results
from signbridge.results.features import RANDOM_WEIGHTS, RESID_POST, SAID, Feature
from signbridge.results.folder import ResultsFolder
from signbridge.results.probes import Probe
from signbridge.runtime.progress import StageProgress
from signbridge.runtime.threads import side_by_side

if TYPE_CHECKING:
    from signbridge.probes.dataset.splits import Split
    from signbridge.probes.engines import Engine
    from signbridge.store import Store

T = TypeVar("T")

SIDE_BY_SIDE = 4
"""Most batches of small features that are worked on at once, each by a thread of its own."""
LAYERS_AT_ONCE = 2
"""Layers in such a batch: enough that calls are long, few enough for a core's cache."""


def train_probes(*arguments: Any, **options: Any) -> Path:
    """Train a linear probe on every layer of a store and score it on images it has not seen.

    Running the same command again continues it, or returns at once when it is complete.

    Args:
        *arguments: the store and the folder of the results.
        **options: the fields of :class:`~signbridge.probes.config.SweepConfig`.

    Returns:
        The results folder.

    Raises:
        ProbeError: an argument, the store or the folder cannot be used.
        StoreError: the store cannot be read.
    """
    return run_sweep(SweepConfig(*arguments, **options))


def run_sweep(config: SweepConfig, progress: StageProgress | None = None) -> Path:
    """As :func:`train_probes`, with the arguments in one object and a progress callback.

    ``progress`` may be called from other threads, by one at a time.
    """
    from signbridge.store import open_store

    with (
        open_store(config.store) as store,
        open_control(config.control, store) as control,
        _processes_of(config) as group,
    ):
        folds = folds_of(config, store.groups)
        fewer = folds == "groups" != config.folds
        features = select_features(store, config.layers, baselines=config.baselines)
        identity = _identity(replace(config, folds=folds), store)
        if control is not None:
            identity["control"] = control.content_sha256
            features += control.features(features)[0]
        plan = make_plan(config, store)
        folder = ResultsFolder(config.output or f"results/{Path(config.store).stem}", identity)
        workers, memory = _share(config, store)
        engine = make_engine(config, memory)
        try:
            if group.first(lambda: folder.prepare(overwrite=config.overwrite)) == "complete":
                return folder.path
            if isinstance(engine, Joining):
                engine.join(group, folder)
            parts = group.share(folder)
            stages = Stages(progress if group.is_first else None, len(features), workers)
            sweep = Sweep(
                config,
                store,
                plan,
                None if control is None else control.store,
                features,
                engine,
                parts,
                workers,
                memory,
                stages,
            )
            planned = [kind.planned(sweep) for kind in MEASUREMENTS]
            measurements = [one for one, _ in planned if one is not None]
            warnings = [
                *((FEWER_GROUPS,) if fewer else ()),
                *plan.warnings,
                *(note for _, notes in planned for note in notes),
            ]
            engine.worked = partial(stages.did, FITS)
            work = _work(sweep)
            _expect(sweep, measurements, work)
            results = _probe(sweep, work)
            missed = [record for result in results for record in result.not_converged]
            missed += measure(sweep, measurements, work, results)
            stages("scores and intervals")

            def write() -> None:
                write_results(sweep, results, measurements, missed, warnings)
                folder.remove_parts()

            group.first(write)
        finally:
            folder.unlock()
    return folder.path


def _identity(config: SweepConfig, store: Store) -> dict[str, Any]:
    """What makes two runs the same: the store's content and every option that scores."""
    options = asdict(config)
    # Where it runs and where it writes changes nothing that is measured.
    for name in ("output", "overwrite", "device", "memory_gb", "store"):
        del options[name]
    for name in ("devices", "num_nodes", "strategy"):
        del options[name]
    options["learning_rate"] = list(config.learning_rates)
    if config.solver == "exact":
        for name in ("batch_size", "max_steps", "learning_rate"):
            del options[name]
    options["C"] = list(config.penalties)
    # The content counts, not the place; and without them results made before are found again.
    del options["control"], options["split_file"]
    if config.split_file is not None:
        options["split_file"] = file_sha256(config.split_file)
    return {"store": str(store.content_sha256), **options}


class _Processes(Protocol):
    """What a sweep asks of its processes, each of which runs the whole of it."""

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes."""

    def first(self, work: Callable[[], T]) -> T:
        """Have the first process do something while the others wait; all get what it returns."""

    def share(self, folder: ResultsFolder) -> ResultsFolder:
        """The folder as every process may use it for parts."""

    def __enter__(self) -> _Processes: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object, /) -> None: ...


class _SingleProcess:
    """A single process."""

    is_first = True

    def first(self, work: Callable[[], T]) -> T:
        """Do it."""
        return work()

    def share(self, folder: ResultsFolder) -> ResultsFolder:
        """The folder itself."""
        return folder

    def __enter__(self) -> _SingleProcess:
        return self

    def __exit__(self, *exc: object) -> None: ...


def _processes_of(config: SweepConfig) -> _Processes:
    """The processes that a config asks for; entering them starts the others.

    Raises:
        ProbeError: they cannot be had on this machine.
    """
    if config.solver == "exact":
        return _SingleProcess()
    from signbridge.probes.sgd.distributed import ProcessGroup

    return ProcessGroup(config.device, config.devices, config.num_nodes, config.strategy)


def _is_side_by_side(config: SweepConfig, store: Store) -> bool:
    """Whether features are so small that each is solved by one thread, and several at a time."""
    small = config.solver == "exact" and is_small(store.n_samples, store.hidden_size)
    return small and device_of(config) == "cpu"


def _share(config: SweepConfig, store: Store) -> tuple[int, int]:
    """Batches of features worked on at once, and the bytes that each of them may take.

    The share of the memory does not depend on the number of cores, so that no number does.
    """
    import torch

    if not _is_side_by_side(config, store):
        return 1, config.memory_bytes
    return min(SIDE_BY_SIDE, torch.get_num_threads()), config.memory_bytes // SIDE_BY_SIDE


def _work(sweep: Sweep) -> list[Batch]:
    """The features in batches, each with the store that holds it."""
    own = [feature for feature in sweep.features if feature.kind != RANDOM_WEIGHTS]
    work = [(sweep.store, batch) for batch in _batches(sweep.config, sweep.store, own)]
    if sweep.control is not None:
        theirs = [feature for feature in sweep.features if feature.kind == RANDOM_WEIGHTS]
        held = _batches(sweep.config, sweep.control, theirs)
        work += [(sweep.control, batch) for batch in held]
    return work


def _expect(sweep: Sweep, measurements: Sequence[Measurement], work: list[Batch]) -> None:
    """Tell the stages how much there is to do."""
    folder, n_classes, penalties = (
        sweep.folder,
        len(sweep.store.class_names),
        sweep.config.penalties,
    )
    n_groups = len(np.unique(sweep.plan.groups))
    for store, batch in work:
        # How many words answers hold is known only when they are read.
        said = batch[0].kind in SAID
        width = n_classes if said else sweep.source(store, batch[:1]).n_features
        parts = [sweep.plan.main.used]
        for split, inner in _splits(sweep, batch[0]):
            for made in (split, *inner):
                parts += [] if made is None else [train for train, _ in made]
        for feature in batch:
            sweep.stages.expect(SCORES, n_groups)
            if not folder.has_part(feature.name):
                sweep.stages.expect(FITS, work_of(parts, width, n_classes, len(penalties)))
            for one in measurements:
                wanted = one.name and one.takes(feature)
                if wanted and not folder.has_part(f"{one.name}/{feature.name}"):
                    sweep.stages.expect(*one.work(width))


def _probe(sweep: Sweep, work: list[Batch]) -> list[FeatureResult]:
    """Probe what the folder does not hold yet."""
    found = {feature: FeatureResult.load(sweep.folder, feature) for feature in sweep.features}

    def count() -> None:
        sweep.stages.done = sum(result is not None for result in found.values())

    count()

    def probe(where: Store, batch: list[Feature]) -> None:
        for result in _probe_batch(sweep, where, batch):
            result.save(sweep.folder)
            found[result.feature] = result
        count()

    # A batch is done again as a whole, so that stopping changes not even the last digit.
    side_by_side(
        [
            partial(probe, where, batch)
            for where, batch in work
            if any(found[feature] is None for feature in batch)
        ],
        sweep.workers,
    )
    return [result for result in found.values() if result is not None]


def device_of(config: SweepConfig) -> str:
    """The device of a config: cpu or cuda.

    Raises:
        ProbeError: it is not known or not there.
    """
    import torch

    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device not in ("cpu", "cuda"):
        raise ProbeError(f"device {config.device!r} is not known; use auto, cpu or cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise ProbeError("there is no CUDA device that torch can use; use device=cpu.")
    return device


def make_engine(config: SweepConfig, memory_bytes: int) -> Engine:
    """The engine of a config, on its device.

    Args:
        config: the sweep's arguments.
        memory_bytes: bound on the memory that it and its features take.

    Raises:
        ProbeError: the device is not known or not there.
    """
    device = device_of(config)
    if config.solver == "exact":
        from signbridge.probes.engines import ExactEngine

        return ExactEngine(device, memory_bytes)
    from signbridge.probes.sgd.engine import SgdEngine

    return SgdEngine(
        device,
        memory_bytes // 2,
        seed=config.seed,
        batch_size=config.batch_size,
        max_steps=config.max_steps,
        learning_rates=config.learning_rates,
    )


def _batches(config: SweepConfig, store: Store, features: list[Feature]) -> list[list[Feature]]:
    """Layers together as far as a quarter of the memory holds what they need; baselines alone.

    The exact solver holds features as float32, sgd reads them in passes and holds parameters. What
    is probed side by side is cut finer, so that all workers have something to do.
    """
    layers = [feature for feature in features if feature.layer is not None]
    numbers = store.n_samples
    if config.solver == "sgd":
        settings = len(config.learning_rates) * len(config.penalties)
        numbers = COPIES * settings * len(store.class_names)
    size = max(1, config.memory_bytes // 4 // (4 * numbers * store.hidden_size))
    if _is_side_by_side(config, store):
        size = min(size, LAYERS_AT_ONCE)
    batches = [
        stack[start : start + size]
        for kind in dict.fromkeys(feature.kind for feature in layers)
        for stack in [[feature for feature in layers if feature.kind == kind]]
        for start in range(0, len(stack), size)
    ]
    return batches + [[feature] for feature in features if feature.layer is None]


def _splits(sweep: Sweep, feature: Feature) -> list[tuple[Split, Sequence[Split | None]]]:
    """The splits that score a feature, each with the inner ones of its training parts."""
    plan = sweep.plan
    # Only the model's own layers are chosen among: with a single C the others choose nothing.
    needs_inner = len(sweep.config.penalties) > 1 or feature.kind == RESID_POST
    inner = plan.inner if needs_inner else (None,) * len(plan.main)
    random = [] if plan.random is None else [(plan.random, plan.random_inner)]
    return [(plan.main, inner), *random]


def _probe_batch(sweep: Sweep, store: Store, batch: list[Feature]) -> list[FeatureResult]:
    plan, engine, source = sweep.plan, sweep.engine, sweep.source(store, batch)
    labels, n_classes, values = plan.labels, len(store.class_names), sweep.config.penalties
    splits = _splits(sweep, batch[0])
    sweep.stages(" and ".join(f"{split.name} split" for split, _ in splits), batch)
    main, *others = evaluate(engine, source, labels, n_classes, splits, values)
    other = others[0] if others else None
    final_C = [lower_median(row) for row in main.C]
    sweep.stages("all images", batch)
    fitted = engine.refit(source, labels, n_classes, values, plan.main.used)
    results = []
    for number, feature in enumerate(batch):
        pick = values.index(final_C[number])
        missed = main.not_converged + ([] if other is None else other.not_converged)
        records = records_of(feature, missed)
        if not fitted.converged[number, pick]:
            records.append(
                not_converged(
                    feature,
                    split="all",
                    fold=None,
                    part="refit",
                    C=final_C[number],
                    relative_tolerance=fitted.relative_tolerance[number, pick],
                )
            )
        results.append(
            FeatureResult(
                feature,
                main.probability[number],
                main.C[number],
                main.inner_accuracy[number],
                main.inner_cross_entropy[number],
                None if other is None else other.probability[number],
                None if other is None else other.C[number],
                Probe(
                    feature,
                    fitted.weight[number, pick],
                    fitted.bias[number, pick],
                    fitted.mean[number],
                    fitted.deviation[number],
                    final_C[number],
                ),
                records,
                engine.records.get(feature.name, []) if isinstance(engine, Recorded) else [],
            )
        )
    return results
