"""What fits the probes of a sweep, and the exact solver as such an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, overload, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from signbridge.probes.dataset.features import MEMORY_BYTES, FeatureSource
from signbridge.probes.dataset.splits import IntArray
from signbridge.results.features import Feature

if TYPE_CHECKING:
    from signbridge.probes.exact.result import LogisticFit
    from signbridge.results.folder import ResultsFolder

Fold = tuple[IntArray, IntArray]
"""Training and test part, indices of samples."""
Record = dict[str, Any]
"""A fit that missed its tolerance, as ``not_converged`` of ``summary.json`` lists it."""

_MANY_NUMBERS = 2**25  # 8,192 samples of width 4,096


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Predictions of one fold's test part by probes of its training part.

    Attributes:
        fold: number of the fold among those asked for.
        probability: shape (n_layers, n_penalties, n_test, n_classes), float32.
        converged: whether each fit reached its tolerance, shape (n_layers, n_penalties).
        relative_tolerance: gradient norm over the norm of the penalty's gradient, same shape.
    """

    fold: int
    probability: npt.NDArray[np.float32]
    converged: npt.NDArray[np.bool_]
    relative_tolerance: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Fitted:
    """Probes of all samples asked for, on standardised features.

    Attributes:
        weight: shape (n_layers, n_penalties, n_classes, n_features), float64.
        bias: shape (n_layers, n_penalties, n_classes); -inf for classes without a sample.
        mean: shape (n_layers, n_features).
        deviation: shape (n_layers, n_features).
        converged: shape (n_layers, n_penalties).
        relative_tolerance: shape (n_layers, n_penalties).
    """

    weight: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    deviation: npt.NDArray[np.float64]
    converged: npt.NDArray[np.bool_]
    relative_tolerance: npt.NDArray[np.float64]


class Engine(Protocol):
    """Fits the probes of a :class:`FeatureSource`; standardisation is refitted in every fold.

    Attributes:
        fitted: how a probe is fitted, in words for the protocol.
        worked: to be called with the amount of work done, see :func:`work_of`.
    """

    fitted: str
    worked: Callable[[float], None]

    def held_out(
        self,
        source: FeatureSource,
        labels: IntArray,
        n_classes: int,
        folds: Sequence[Fold],
        penalties: Sequence[float],
    ) -> Iterator[HeldOut]:
        """Train on each fold's training part and predict its test part."""

    def refit(
        self,
        source: FeatureSource,
        labels: IntArray,
        n_classes: int,
        penalties: Sequence[float],
        rows: IntArray | None = None,
    ) -> Fitted:
        """Train on some samples, or on all."""


@runtime_checkable
class Recorded(Protocol):
    """An engine that says by feature's name what it did, a record for every C."""

    records: dict[str, list[dict[str, Any]]]


@runtime_checkable
class Joining(Protocol):
    """An engine that several processes train together."""

    def join(self, group: Any, folder: ResultsFolder) -> None:
        """Train with these processes, and keep what is done among the parts of this folder."""


def not_converged(
    feature: Feature,
    *,
    split: str | None,
    fold: int | None,
    part: str,
    C: float,
    relative_tolerance: float,
) -> Record:
    """The record of a fit that missed its tolerance.

    Args:
        feature: what was fitted.
        split: the split's name, None where the fit belongs to none.
        fold: the fold's number, None where there are no folds.
        part: what the fit was for: ``outer``, ``inner``, ``refit`` and so on.
        C: its inverse penalty.
        relative_tolerance: gradient norm over the norm of the penalty's gradient.
    """
    return {
        "feature": feature.kind,
        "layer": feature.layer,
        "split": split,
        "fold": fold,
        "part": part,
        "C": float(C),
        "relative_tolerance": float(relative_tolerance),
    }


def records_of(feature: Feature, records: Iterable[Record]) -> list[Record]:
    """Those of one feature."""
    return [r for r in records if (r["feature"], r["layer"]) == (feature.kind, feature.layer)]


class Arrays(Sequence[npt.NDArray[Any]]):
    """A source's features, or some, as a lazy sequence, so that the solver takes layers in turn."""

    def __init__(self, source: FeatureSource, features: Sequence[Feature] | None = None) -> None:
        self.source = source
        self.features = source.features if features is None else features

    def __len__(self) -> int:
        return len(self.features)

    @overload
    def __getitem__(self, index: int) -> npt.NDArray[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[npt.NDArray[Any]]: ...
    def __getitem__(self, index: int | slice) -> npt.NDArray[Any] | list[npt.NDArray[Any]]:
        if isinstance(index, slice):
            return [self.source.array(feature) for feature in self.features[index]]
        return self.source.array(self.features[index])


def _given(values: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64]:
    """What the solver was asked for; its optional results are None only where it was not."""
    assert values is not None
    return values


def work_of(
    parts: Iterable[IntArray], width: int, n_classes: int, n_penalties: int, n_layers: int = 1
) -> float:
    """What it takes to fit training parts: samples times features times classes times fits."""
    samples = sum(map(len, parts))
    return float(samples) * width * n_classes * n_penalties * n_layers


def unheard(work: float) -> None:
    """Tells nobody of the work done."""


def solver_threads(source: FeatureSource) -> int | None:
    """CPU threads for the exact solver on a source's features (without effect on a GPU).

    Small fits are chains of small products, in which threads wait for each other more than they
    work, so they get one. From some 33 million numbers a layer each product is long enough to be
    shared, and the fits get torch's own number: all cores, or ``OMP_NUM_THREADS``.

    Returns:
        1, or None for torch's own number.
    """
    return 1 if is_small(source.n_samples, source.n_features) else None


def is_small(n_samples: int, n_features: int) -> bool:
    """Whether one thread is best for the fits of a feature; see :func:`solver_threads`."""
    return n_samples * n_features < _MANY_NUMBERS


def solve(
    source: FeatureSource,
    labels: IntArray,
    n_classes: int,
    parts: Sequence[IntArray],
    penalties: Sequence[float],
    *,
    device: str | torch.device,
    memory_bytes: int,
    features: Sequence[Feature] | None = None,
    coef: bool = False,
    decision: bool = False,
    worked: Callable[[float], None] = unheard,
) -> LogisticFit:
    """Solve the probes of a source's features, standardised in each training part.

    Args:
        source: the features.
        labels: class indices of all samples.
        n_classes: number of classes, also those without a sample.
        parts: sample indices of the training parts.
        penalties: values of C.
        device: torch device of the solver.
        memory_bytes: bound on the solver's own arrays.
        features: those of the source to fit; all by default.
        coef: whether the coefficients are wanted.
        decision: whether the logits of all samples are wanted.
        worked: told of the work done.

    Returns:
        The fits, with the axes layer, fold and C.
    """
    from signbridge.probes.exact.logistic import fit_logistic

    layers = Arrays(source, features)
    work = work_of(parts, source.n_features, n_classes, len(penalties), len(layers))
    return fit_logistic(
        layers,
        labels,
        list(penalties),
        train=list(parts),
        classes=np.arange(n_classes),
        standardise=True,
        coef=coef,
        decision=decision,
        device=device,
        threads=solver_threads(source),
        memory_limit=memory_bytes,
        solved=lambda share: worked(share * work),
    )


def _of_one_size(folds: Sequence[Fold], most: int) -> Iterator[list[int]]:
    """Numbers of folds to be solved at once: ``most`` whose training parts are about as large.

    Those of one batch are padded to the largest, which costs as much as solving it.
    """
    batch: list[int] = []
    for number in sorted(range(len(folds)), key=lambda k: len(folds[k][0])):
        smallest = len(folds[batch[0]][0]) if batch else 0
        if batch and (len(batch) == most or len(folds[number][0]) > 1.1 * smallest):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


class ExactEngine:
    """The exact solver, :func:`signbridge.probes.fit_logistic`, over folds and layers at once.

    Args:
        device: torch device of the solver.
        memory_bytes: bound on the logits and on the solver's own arrays.
    """

    fitted = "solved to its optimum"

    def __init__(self, device: str = "cpu", memory_bytes: int = MEMORY_BYTES) -> None:
        self.device = device
        self.memory_bytes = memory_bytes
        self.worked: Callable[[float], None] = unheard

    def held_out(
        self,
        source: FeatureSource,
        labels: IntArray,
        n_classes: int,
        folds: Sequence[Fold],
        penalties: Sequence[float],
    ) -> Iterator[HeldOut]:
        """See :class:`Engine`."""
        per_fold = 8 * len(source) * len(penalties) * source.n_samples * n_classes
        for part in _of_one_size(folds, max(1, self.memory_bytes // 4 // per_fold)):
            fit = solve(
                source,
                labels,
                n_classes,
                [folds[number][0] for number in part],
                penalties,
                device=self.device,
                memory_bytes=self.memory_bytes // 2,
                decision=True,
                worked=self.worked,
            )
            for position, number in enumerate(part):
                logits = _given(fit.decision)[:, position][:, :, folds[number][1]]
                yield HeldOut(
                    number,
                    torch.from_numpy(logits).softmax(-1).float().numpy(),
                    fit.converged[:, position],
                    fit.relative_tolerance[:, position],
                )

    def refit(
        self,
        source: FeatureSource,
        labels: IntArray,
        n_classes: int,
        penalties: Sequence[float],
        rows: IntArray | None = None,
    ) -> Fitted:
        """See :class:`Engine`."""
        fit = solve(
            source,
            labels,
            n_classes,
            [np.arange(source.n_samples) if rows is None else rows],
            penalties,
            device=self.device,
            memory_bytes=self.memory_bytes // 2,
            coef=True,
            worked=self.worked,
        )
        return Fitted(
            _given(fit.coef)[:, 0],
            _given(fit.intercept)[:, 0],
            _given(fit.mean)[:, 0],
            _given(fit.deviation)[:, 0],
            fit.converged[:, 0],
            fit.relative_tolerance[:, 0],
        )
