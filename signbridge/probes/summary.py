"""From held-out predictions to the files of a results folder."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from signbridge.probes.comparisons import Comparisons
from signbridge.probes.dataset.split_file import split_file_record
from signbridge.probes.description import describe
from signbridge.probes.scoring import score
from signbridge.probes.sgd.summary import sgd_summary
from signbridge.results.features import TEXT
from signbridge.results.folder import ResultsFolder
from signbridge.results.probes import save_probes
from signbridge.results.records import to_json
from signbridge.results.summary import (
    BestLayer,
    NotConverged,
    Protocol,
    StoreRecord,
    Summary,
)

if TYPE_CHECKING:
    from signbridge.probes.controls.measurement import Measurement, Sweep
    from signbridge.probes.dataset.plan import Plan
    from signbridge.probes.engines import Record
    from signbridge.probes.feature_result import FeatureResult
    from signbridge.store import Store


def write_results(
    sweep: Sweep,
    results: Sequence[FeatureResult],
    measurements: Sequence[Measurement],
    missed: Sequence[Record],
    warnings: Sequence[str],
) -> None:
    """Score a finished sweep and write its folder, the summary last.

    Args:
        sweep: the sweep.
        results: one for each feature, layers in ascending order before baselines.
        measurements: what was measured besides.
        missed: fits that missed their tolerance.
        warnings: sentences for the user.
    """
    config, store, plan, folder = sweep.config, sweep.store, sweep.plan, sweep.folder
    predictions = {name: p for one in measurements for name, p in one.predictions().items()}
    scored = score(config, plan, results, predictions, warnings)
    rows = [*scored.rows(), *(row for one in measurements for row in one.rows(scored))]
    folder.write_scores(rows)
    compared = Comparisons(scored.scores, seed=config.seed)
    folder.write_comparisons(compared.rows())
    filled: dict[str, Any] = {}
    for measurement in measurements:
        filled |= measurement.summary(scored)
    best, notes = scored.best, scored.warnings
    if missed and config.solver == "exact":
        notes.append(
            f"{len(missed)} fits missed their tolerance (not_converged lists them); "
            "their C may be too large."
        )
    sgd, said = sgd_summary(config, results, missed)
    notes += said
    found = scored.scores[best.feature.name].intervals
    if len(config.penalties) == 1:
        notes += _negative_bits(best, found["usable_information"].value)
    top = found["accuracy"]
    summary = Summary(
        store=_store_record(sweep),
        protocol=_protocol(sweep),
        versions=_versions(),
        best_layer=BestLayer(
            layer=int(best.feature.layer or 0),
            accuracy=top.value,
            ci=(top.low, top.high),
            note="highest held-out accuracy; chosen on the data that scores it",
        ),
        peak=compared.peak_summary(),
        against_baselines=compared.against_baselines(best.feature.name),
        C_chosen={result.feature.name: tuple(result.C.tolist()) for result in results},
        warnings=tuple(notes),
        command=config.command,
        not_converged=tuple(NotConverged(**record) for record in missed),
        sgd=sgd,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **filled,
    )
    kept = {name: to_json(getattr(summary, name)) for name in ("store", "protocol", "versions")}
    kept["best_layer"] = summary.best_layer.layer
    # A probe of the answers' words would need those words to be of use to anybody.
    usable = [r.probe for r in results if r.feature.kind != TEXT]
    save_probes(folder.path, usable, store.class_names, kept)
    _write_predictions(store, plan, results, folder)
    folder.write_summary(summary)


def _negative_bits(best: FeatureResult, bits: float) -> list[str]:
    """A warning where a single C gave probabilities worse than the class shares."""
    if bits >= 0:
        return []
    return [
        f"layer {best.feature.layer} has −{-bits:.2f} bits of usable information, below 0: with "
        f"C = {best.C[0]:g} its probe is wrong with too much confidence; pass a list such as "
        "--C '[0.0001,0.001,0.01,0.1,1]', of which each training part takes the C whose "
        "probabilities are best on inner folds."
    ]


def _write_predictions(
    store: Store, plan: Plan, results: Sequence[FeatureResult], folder: ResultsFolder
) -> None:
    splits = {"/": (np.stack([r.probability for r in results]), plan.main.fold_of_sample)}
    other = [result.random for result in results if result.random is not None]
    if plan.random is not None and len(other) == len(results):
        splits["/random"] = (np.stack(other), plan.random.fold_of_sample)
    folder.write_predictions(
        [result.feature.name for result in results],
        store.class_names,
        {"label": plan.labels, "group": plan.groups, "sample_id": store.sample_ids},
        splits,
        store.group_names,
    )


def _store_record(sweep: Sweep) -> StoreRecord:
    store, plan, control = sweep.store, sweep.plan, sweep.control
    made = commands_of(store.info, str(store.path))
    if control is not None:
        made += commands_of(control.info, str(control.path))
    return StoreRecord(
        path=str(store.path),
        name=store.path.stem,
        fingerprint=store.fingerprint,
        content_sha256=store.content_sha256,
        n_samples=store.n_samples,
        n_groups=len(np.unique(plan.groups)),
        class_names=store.class_names,
        layers=tuple(store.layers),
        provenance=store.provenance,
        commands=tuple(dict.fromkeys(made)),
    )


_DEEPEST = 16  # merges of merges that are looked into


def commands_of(info: Mapping[str, Any], path: str, deep: int = 0) -> list[str]:
    """The commands that make a store, as it and what it was merged from record them.

    Args:
        info: what the store records besides its provenance.
        path: where it lies.
        deep: how many merges lie above.

    Returns:
        Empty where they are not known.
    """
    if isinstance(info.get("command"), str):
        # A store may come from a stranger: whatever it says is quoted anew, and is an extraction.
        try:
            words = shlex.split(info["command"])
        except ValueError:
            return []
        return [shlex.join(words)] if words[:2] == ["signbridge", "extract"] else []
    parts = [info[f"info_{k}"] for k in range(len(info)) if f"info_{k}" in info]
    parts = [part for part in parts if isinstance(part, Mapping)]
    found = [commands_of(part, "", deep + 1) for part in parts] if deep < _DEEPEST else []
    if not all(found):
        return []  # an older store, or one of another program
    places = [_output(one[-1]) for one in found]
    commands = [command for one in found for command in one]
    if len(set(places)) > 1:
        if not path or not all(places):
            return []
        commands.append(shlex.join(["signbridge", "merge", *places, "-o", path]))
    return commands


def _output(command: str) -> str:
    """Where a command writes, empty where it is the default."""
    words = shlex.split(command)
    return dict(pairwise(words)).get("--output", "")


def _protocol(sweep: Sweep) -> Protocol:
    config, plan = sweep.config, sweep.plan
    return Protocol(
        solver=config.solver,
        split=config.split,
        split_file=split_file_record(config.split_file),
        folds=len(plan.main),
        C=tuple(config.penalties),
        seed=config.seed,
        inner_folds=config.inner_folds,
        bootstrap=config.bootstrap,
        confidence=0.95,
        compare_random=plan.random is not None,
        description=describe(config, plan, sweep.store.provenance, sweep.engine.fitted),
    )


def _versions() -> dict[str, str]:
    import h5py
    import sklearn
    import torch

    from signbridge import __version__

    return {
        "signbridge": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "h5py": h5py.__version__,
    }
