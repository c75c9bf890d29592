"""The sweep: every layer and baseline of a store probed under one protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from signbridge.errors import ProbeError
from signbridge.probes.config import SolverName, SweepConfig
from signbridge.probes.controls.random_weights import Control, open_control
from signbridge.probes.dataset.features import (
    RANDOM_WEIGHTS,
    RESID_POST,
    Feature,
    FeatureSource,
    select_features,
)
from signbridge.probes.dataset.plan import Plan, make_plan
from signbridge.probes.dataset.splits import SplitName
from signbridge.probes.feature_result import FeatureResult
from signbridge.probes.missed import missed_record, records_of
from signbridge.probes.processes import Recorded, processes_of
from signbridge.probes.selection import Evaluation, evaluate, lower_median
from signbridge.probes.sgd import COPIES
from signbridge.results.folder import ResultsFolder
from signbridge.results.probes import Probe

if TYPE_CHECKING:
    from signbridge.probes.engines import Engine
    from signbridge.store import Store

Progress = Callable[[str, int, int], None]
"""Called with what is under way, how many features are done, and how many there are."""


def train_probes(
    store: str = "activations/tiny-sample.h5",
    output: str | None = None,
    solver: SolverName = "exact",
    split: SplitName | None = None,
    split_file: str | None = None,
    folds: int = 5,
    C: float | list[float] = 1.0,
    seed: int = 42,
    layers: Literal["all"] | list[int] = "all",
    baselines: bool = True,
    control: str | None = None,
    inner_folds: int = 3,
    compare_random: bool = True,
    control_task: bool = True,
    permutations: int | Literal["auto"] = "auto",
    description_length: bool = False,
    bootstrap: int = 1000,
    device: str = "auto",
    memory_gb: float = 4.0,
    batch_size: int = 256,
    max_steps: int | None = None,
    learning_rate: float | list[float] | None = None,
    devices: int | str = 1,
    num_nodes: int = 1,
    strategy: Literal["auto", "ddp"] = "auto",
    overwrite: bool = False,
) -> Path:
    """Train a linear probe on every layer of a store and score it on images it has not seen.

    Running the same command again continues it, or returns at once when it is complete.

    Args:
        store: Path of the activation store.
        output: Folder of the results; results/STORE by default.
        solver: exact finds the optimum of the L2 logistic regression, sgd approaches it in batches.
        split: grouped (the default) keeps images that are not independent together, random does
            not, source is the data's own training and test part, file that of split_file.
        split_file: CSV with the columns sample_id,fold: a split of one's own.
        folds: Number of folds; 1 holds out one image in five.
        C: Inverse L2 penalty; of several, one is chosen inside each training part.
        seed: Seed of the splits, of the order of batches and of the intervals.
        layers: Decoder layers to probe, or all.
        baselines: Also probe the store's baselines (pixels, vision, projector).
        control: Store of the same samples by the same model with random weights, probed beside.
        inner_folds: Folds inside a training part, by which C and the best layer are chosen.
        compare_random: Score a grouped run under the random split too; the difference is leakage.
        control_task: Score random labels of the groups under the random split too (memorisation).
        permutations: Permutations of the labels that test the best layer; 0 makes no test, auto
            makes 999, or fewer where the data are large.
        description_length: Also measure the online description length of the labels.
        bootstrap: Number of draws behind each interval.
        device: auto, cpu or cuda.
        memory_gb: Memory for features and solver, in GiB.
        batch_size: Images per batch, over all devices (sgd).
        max_steps: Most steps of each fold, before and again after the choice of the learning rate
            (sgd); 1,500 or 20 passes by default.
        learning_rate: Shares of a Newton step, of which the best is taken for each layer and C
            (sgd); 0.03, 0.1, 0.3 and 1 by default.
        devices: Number of devices, as Lightning takes it (sgd).
        num_nodes: Number of machines (sgd).
        strategy: auto or ddp (sgd).
        overwrite: Replace the results of another run in the same folder.

    Returns:
        The results folder.

    Raises:
        ProbeError: an argument, the store or the folder cannot be used.
        StoreError: the store cannot be read.
    """
    arguments = dict(locals())
    return run_sweep(SweepConfig(**arguments))


def run_sweep(config: SweepConfig, progress: Progress | None = None) -> Path:
    """As :func:`train_probes`, with the arguments in one object and a progress callback."""
    from signbridge.store import open_store

    with (
        open_store(config.store) as store,
        open_control(config.control, store) as control,
        processes_of(config) as team,
    ):
        progress = progress if team.is_first else None
        chosen = select_features(store, config.layers, baselines=config.baselines)
        target = config.output or f"results/{Path(config.store).stem}"
        identity = config.identity(store)
        plan = make_plan(config, store)
        if control is not None:
            identity["control"] = control.content_sha256
            features, notes = control.features(chosen)
            chosen += features
            words = control.summary(features)
            plan = replace(plan, warnings=(*plan.warnings, *notes), control=words)
        folder = ResultsFolder(target, identity)
        engine = make_engine(config)
        try:
            if team.first(lambda: folder.prepare(overwrite=config.overwrite)) == "complete":
                return folder.path
            parts = team.share(engine, folder)
            work = _work(config, store, control, chosen)
            results = _probe(config, engine, work, plan, chosen, parts, progress)
            from signbridge.probes.controls.extras import measure_extras
            from signbridge.probes.summary import write_results

            def stage(what: str, batch: Sequence[Feature]) -> None:
                if progress is not None:
                    progress(f"{what}, {_names(batch)}", len(chosen), len(chosen))

            extras = measure_extras(config, engine, plan, work, results, parts, stage)

            if progress is not None:
                progress("scores and intervals", len(chosen), len(chosen))

            def write() -> None:
                write_results(config, store, plan, results, extras, folder)
                folder.remove_parts()

            team.first(write)
        finally:
            folder.unlock()
    return folder.path


def _work(
    config: SweepConfig, store: Store, control: Control | None, chosen: list[Feature]
) -> list[tuple[Store, list[Feature]]]:
    """The features in batches, each with the store that holds it."""
    own = [feature for feature in chosen if feature.kind != RANDOM_WEIGHTS]
    work = [(store, batch) for batch in _batches(config, store, own)]
    if control is not None:
        theirs = [feature for feature in chosen if feature.kind == RANDOM_WEIGHTS]
        held = _batches(config, control.store, theirs)
        work += [(control.store, batch) for batch in held]
    return work


def _probe(
    config: SweepConfig,
    engine: Engine,
    work: list[tuple[Store, list[Feature]]],
    plan: Plan,
    chosen: list[Feature],
    folder: ResultsFolder,
    progress: Progress | None,
) -> list[FeatureResult]:
    """Probe what the folder does not hold yet, layers in turn."""
    done = {feature: FeatureResult.load(folder, feature) for feature in chosen}
    for where, batch in work:
        # A batch is done again as a whole, so that stopping changes not even the last digit.
        if all(done[feature] is not None for feature in batch):
            continue
        ready = sum(result is not None for result in done.values())

        def stage(what: str, batch: list[Feature] = batch, ready: int = ready) -> None:
            if progress is not None:
                progress(f"{_names(batch)}, {what}", ready, len(chosen))

        for result in _probe_batch(config, engine, where, plan, batch, stage):
            result.save(folder)
            done[result.feature] = result
    return [result for result in done.values() if result is not None]


def _names(batch: Sequence[Feature]) -> str:
    first, last = batch[0].name, batch[-1].name
    return first if len(batch) == 1 else f"{first} to {last}"


def make_engine(config: SweepConfig) -> Engine:
    """The engine of a config, on its device.

    Raises:
        ProbeError: the device is not known or not there.
    """
    import torch

    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device not in ("cpu", "cuda"):
        raise ProbeError(f"device {config.device!r} is not known; use auto, cpu or cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise ProbeError("there is no CUDA device that torch can use; use device=cpu.")
    if config.solver == "exact":
        from signbridge.probes.engines import ExactEngine

        return ExactEngine(device, config.memory_bytes)
    from signbridge.probes.sgd.engine import SgdEngine

    return SgdEngine(
        device,
        config.memory_bytes // 2,
        seed=config.seed,
        batch_size=config.batch_size,
        max_steps=config.max_steps,
        learning_rates=config.learning_rates,
    )


def _batches(config: SweepConfig, store: Store, features: list[Feature]) -> list[list[Feature]]:
    """Layers together as far as a quarter of the memory holds what they need; baselines alone.

    The exact solver holds features as float32, sgd reads them in passes and holds parameters.
    """
    layers = [feature for feature in features if feature.layer is not None]
    numbers = store.n_samples
    if config.solver == "sgd":
        settings = len(config.learning_rates) * len(config.penalties)
        numbers = COPIES * settings * len(store.class_names)
    size = max(1, config.memory_bytes // 4 // (4 * numbers * store.hidden_size))
    batches = [layers[start : start + size] for start in range(0, len(layers), size)]
    return batches + [[feature] for feature in features if feature.layer is None]


def _probe_batch(
    config: SweepConfig,
    engine: Engine,
    store: Store,
    plan: Plan,
    batch: list[Feature],
    stage: Callable[[str], None],
) -> list[FeatureResult]:
    source = FeatureSource(store, batch, config.memory_bytes // 4)
    labels, n_classes, values = plan.labels, len(store.class_names), config.penalties
    # Only the model's own layers are chosen among: with a single C the others choose nothing.
    needs_inner = len(values) > 1 or batch[0].kind == RESID_POST
    inner = plan.inner if needs_inner else (None,) * len(plan.main)
    stage(f"{plan.main.name} split")
    main = evaluate(engine, source, labels, n_classes, plan.main, inner, values)
    other: Evaluation | None = None
    if plan.random is not None:
        stage("random split")
        other = evaluate(engine, source, labels, n_classes, plan.random, plan.random_inner, values)
    final_C = [lower_median(row) for row in main.C]
    stage("all images")
    fitted = engine.refit(source, labels, n_classes, values, plan.main.used)
    results = []
    for number, feature in enumerate(batch):
        pick = values.index(final_C[number])
        missed = main.not_converged + ([] if other is None else other.not_converged)
        records = records_of(feature, missed)
        if not fitted.converged[number, pick]:
            records.append(
                missed_record(
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
