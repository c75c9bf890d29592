"""From held-out predictions to the files of a results folder."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from signbridge.probes.comparisons import Comparisons
from signbridge.probes.controls.extra_scores import ExtraScores
from signbridge.probes.controls.said import said_against_known, write_answers, zero_shot
from signbridge.probes.dataset.given_splits import split_file_record
from signbridge.probes.description import describe
from signbridge.probes.selection import choose_layers, lower_median
from signbridge.probes.sgd.summary import sgd_summary
from signbridge.results.features import RESID_POST, TEXT, ZERO_SHOT
from signbridge.results.folder import ResultsFolder
from signbridge.results.format import ANSWERS_FILE
from signbridge.results.probes import save_probes
from signbridge.results.records import to_json
from signbridge.results.summary import (
    BestLayer,
    Difference,
    Leakage,
    Nested,
    NotConverged,
    Protocol,
    SklearnDefault,
    StoreRecord,
    Summary,
)
from signbridge.statistics.bootstrap import ClusterBootstrap, Interval, Scored, paired_difference
from signbridge.statistics.metrics import METRICS

if TYPE_CHECKING:
    from signbridge.probes.config import SweepConfig
    from signbridge.probes.controls.extras import Extras
    from signbridge.probes.dataset.plan import Plan
    from signbridge.probes.dataset.splits import Split
    from signbridge.probes.feature_result import FeatureResult
    from signbridge.store import Store

SKLEARN_WORK = 2.5e8
"""Most samples x features x classes x folds that the scikit-learn comparison takes on (seconds)."""


def write_results(
    config: SweepConfig,
    store: Store,
    plan: Plan,
    results: list[FeatureResult],
    extras: Extras,
    folder: ResultsFolder,
) -> None:
    """Score a finished sweep and write its folder, the summary last.

    Args:
        config: the sweep's arguments.
        store: the open store.
        plan: its splits.
        results: one for each feature, layers in ascending order before baselines.
        extras: what was measured besides.
        folder: where to write.
    """
    main = _Scorer(config, plan, plan.main)
    other = None if plan.random is None else _Scorer(config, plan, plan.random)
    scores = {r.feature.name: main.score(r.probability) for r in results}
    intervals = {name: scored.intervals for name, scored in scores.items()}
    rows: list[dict[str, Any]] = []
    for result in results:
        rows += main.rows(result, lower_median(result.C), intervals[result.feature.name])
    if other is not None:
        for result in results:
            if result.random is not None and result.C_random is not None:
                scored = other.intervals(result.random)
                rows += other.rows(result, lower_median(result.C_random), scored)
    for scorer in (main, other):
        if scorer is not None:
            rows += scorer.reference_rows()
    if store.class_logprob is not None:
        scores[ZERO_SHOT] = main.score(zero_shot(store.class_logprob, plan.labels))
        rows += main.given_rows(ZERO_SHOT, scores[ZERO_SHOT].intervals)
    besides = ExtraScores(config, plan, extras, results)
    rows += besides.rows()
    folder.write_scores(rows)
    compared = Comparisons({**scores, "majority": main.majority}, seed=config.seed)
    folder.write_comparisons(compared.rows())
    answers = write_answers(store, folder.path / ANSWERS_FILE)

    layers = [result for result in results if result.feature.kind == RESID_POST]
    accuracy = [intervals[result.feature.name]["accuracy"].value for result in layers]
    best = layers[int(np.argmax(accuracy))]
    notes = [*plan.warnings, *extras.warnings]
    nested = _nested(main, layers, several_C=len(config.penalties) > 1)
    if nested is None:
        notes.append(
            "the best layer was not chosen by nested selection, because a training part is too "
            "small to be divided; lower folds or add groups."
        )
    missed = [record for result in results for record in result.not_converged]
    missed += extras.not_converged
    if missed and config.solver == "exact":
        notes.append(
            f"{len(missed)} fits missed their tolerance (not_converged lists them); "
            "their C may be too large."
        )
    sgd, said = sgd_summary(config, results, missed)
    notes += said
    if len(config.penalties) == 1:
        notes += _negative_bits(best, intervals[best.feature.name]["usable_information"].value)
    top = intervals[best.feature.name]["accuracy"]
    summary = Summary(
        store=_store_record(store, plan),
        protocol=_protocol(config, plan, store.provenance),
        versions=_versions(),
        best_layer=BestLayer(
            layer=int(best.feature.layer or 0),
            accuracy=top.value,
            ci=(top.low, top.high),
            note="highest held-out accuracy; chosen on the data that scores it",
        ),
        peak=compared.peak_summary(),
        against_baselines=_against_baselines(compared.scored, best),
        nested=nested,
        leakage=_leakage(main, other, best),
        said=said_against_known(answers, main.labels, scores, best.feature),
        **besides.summary(best.feature),
        chance=1 / main.n_present,
        majority=main.majority.intervals["accuracy"].value,
        C_chosen={result.feature.name: tuple(result.C.tolist()) for result in results},
        warnings=tuple(notes),
        command=config.command,
        not_converged=tuple(NotConverged(**record) for record in missed),
        sklearn_default=_sklearn_default(config, store, plan, best),
        control=plan.control,
        sgd=sgd,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    kept = {name: to_json(getattr(summary, name)) for name in ("store", "protocol", "versions")}
    kept["best_layer"] = summary.best_layer.layer
    # A probe of the answers' words would need those words to be of use to anybody.
    usable = [r.probe for r in results if r.feature.kind != TEXT]
    save_probes(folder.path, usable, store.class_names, kept)
    _write_predictions(store, plan, results, folder)
    folder.write_summary(summary)


class _Scorer:
    """Scores predictions of one split over the samples that are in a test part."""

    def __init__(self, config: SweepConfig, plan: Plan, split: Split) -> None:
        self.solver = config.solver
        self.split = split
        self.scored = np.flatnonzero(split.fold_of_sample >= 0)
        self.labels = plan.labels[self.scored]
        self.groups = plan.groups[self.scored]
        self.n_train = round(float(np.mean([len(train) for train, _ in split])))
        self.n_present = len(np.unique(plan.labels[split.used]))
        self.bootstrap = ClusterBootstrap(
            self.groups, repetitions=config.bootstrap, seed=config.seed
        )
        shares = np.bincount(self.labels, minlength=int(plan.labels.max()) + 1) / len(self.labels)
        self.constant = np.broadcast_to(shares, (len(self.labels), len(shares)))
        self.majority = self.bootstrap.scored(self.constant, self.labels)

    def score(self, probability: npt.NDArray[np.float32]) -> Scored:
        return self.bootstrap.scored(probability[self.scored], self.labels)

    def intervals(self, probability: npt.NDArray[np.float32]) -> Mapping[str, Interval]:
        return self.bootstrap.intervals(probability[self.scored], self.labels)

    def rows(
        self, result: FeatureResult, C: float, scored: Mapping[str, Interval]
    ) -> Iterator[dict[str, Any]]:
        for metric in METRICS:
            interval = scored[metric]
            yield {
                **self._row(result.feature.kind, metric, interval.value),
                "layer": result.feature.layer,
                "ci_low": interval.low,
                "ci_high": interval.high,
                "C": C,
            }

    def given_rows(self, name: str, scored: Mapping[str, Interval]) -> Iterator[dict[str, Any]]:
        """Rows of probabilities that no probe made."""
        for metric in METRICS:
            interval = scored[metric]
            ends = {"ci_low": interval.low, "ci_high": interval.high}
            yield {**self._row(name, metric, interval.value), **ends}

    def reference_rows(self) -> Iterator[dict[str, Any]]:
        """Chance (all classes alike) and majority (the scored labels' own class shares)."""
        count = np.bincount(self.labels)
        for name, entry in METRICS.items():
            if entry.chance is not None:
                yield self._row("chance", name, entry.chance(self.n_present, count))
        for metric in METRICS:
            interval = self.majority.intervals[metric]
            ends = {"ci_low": interval.low, "ci_high": interval.high}
            # Its confidence is its accuracy: what is left of such differences is rounding.
            value = 0.0 if abs(interval.value) < 1e-12 else interval.value
            yield {**self._row("majority", metric, value), **ends}

    def _row(self, feature: str, metric: str, value: float) -> dict[str, Any]:
        return {
            "feature": feature,
            "solver": self.solver,
            "split": self.split.name,
            "metric": metric,
            "value": value,
            "n_train": self.n_train,
            "n_test": len(self.scored),
            "n_classes": self.n_present,
        }


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


def _against_baselines(scores: Mapping[str, Scored], best: FeatureResult) -> dict[str, Difference]:
    """Accuracy of the best layer minus that of each baseline, on the same samples and draws."""
    found = {}
    for name, other in scores.items():
        if "/" not in name:  # layers, of the model or of its control, are compared elsewhere
            difference = paired_difference(scores[best.feature.name], other)
            found[name] = Difference(difference.value, (difference.low, difference.high))
    return found


def _nested(main: _Scorer, layers: list[FeatureResult], *, several_C: bool) -> Nested | None:
    """Accuracy of the layer that each fold's training part would have chosen."""
    chosen = choose_layers(
        np.stack([result.inner_accuracy for result in layers]),
        np.stack([result.inner_cross_entropy for result in layers]),
    )
    if chosen is None:
        return None
    probability = np.full_like(layers[0].probability, np.nan)
    for number, (_, test) in enumerate(main.split):
        probability[test] = layers[chosen[number]].probability[test]
    interval = main.intervals(probability)["accuracy"]
    return Nested(
        accuracy=interval.value,
        ci=(interval.low, interval.high),
        layers_chosen=tuple(int(layers[k].feature.layer or 0) for k in chosen),
        note=f"each fold's layer{' and C' if several_C else ''} chosen by inner folds of its "
        "training part",
    )


def _leakage(main: _Scorer, other: _Scorer | None, best: FeatureResult) -> Leakage | None:
    """Random minus grouped accuracy of the best layer, on the samples that both score."""
    if other is None or best.random is None:
        return None
    both = np.intersect1d(main.scored, other.scored)
    difference = ClusterBootstrap(
        main.groups[np.searchsorted(main.scored, both)],
        repetitions=main.bootstrap.repetitions,
        seed=main.bootstrap.seed,
    ).difference(
        best.random[both],
        best.probability[both],
        main.labels[np.searchsorted(main.scored, both)],
    )
    return Leakage(
        layer=int(best.feature.layer or 0),
        random=other.intervals(best.random)["accuracy"].value,
        grouped=main.intervals(best.probability)["accuracy"].value,
        difference=difference.value,
        ci=(difference.low, difference.high),
    )


def _sklearn_default(
    config: SweepConfig, store: Store, plan: Plan, best: FeatureResult
) -> SklearnDefault | None:
    """What scikit-learn's LogisticRegression says at its default settings, if that is cheap."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    labels, n_classes = plan.labels, len(store.class_names)
    work = len(labels) * store.hidden_size * n_classes * len(plan.main)
    if config.solver != "exact" or work > SKLEARN_WORK:
        return None
    X = np.asarray(store.feature(best.feature.name), dtype=np.float64)
    answer = np.full(len(labels), -1)
    steps = []
    for number, (train, test) in enumerate(plan.main):
        scaler = StandardScaler().fit(X[train])
        model = LogisticRegression(C=float(best.C[number]))
        # One thread: on small problems BLAS threads have been measured 20 times slower.
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore")  # n_iter tells where max_iter stopped it
            model.fit(scaler.transform(X[train]), labels[train])
        answer[test] = model.predict(scaler.transform(X[test]))
        steps.append(int(np.max(model.n_iter_)))
    scored = np.flatnonzero(answer >= 0)
    ours = best.probability[scored].argmax(1)
    return SklearnDefault(
        layer=best.feature.layer,
        accuracy=float(np.mean(answer[scored] == labels[scored])),
        optimum_accuracy=float(np.mean(ours == labels[scored])),
        agreement=float(np.mean(answer[scored] == ours)),
        tol=float(model.tol),
        max_iter=int(model.max_iter),
        n_iter=tuple(steps),
    )


def _write_predictions(
    store: Store, plan: Plan, results: list[FeatureResult], folder: ResultsFolder
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
    )


def _store_record(store: Store, plan: Plan) -> StoreRecord:
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
    )


def _protocol(config: SweepConfig, plan: Plan, provenance: Mapping[str, Any]) -> Protocol:
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
        description=describe(config, plan, provenance),
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
