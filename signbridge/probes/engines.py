"""Two ways to fit the probes of a sweep: the exact solver and the Lightning module."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, overload

import numpy as np
import numpy.typing as npt
import torch

from signbridge.probes.features import MEMORY_BYTES, FeatureSource
from signbridge.probes.splits import IntArray, Split

Fold = tuple[IntArray, IntArray]

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
    """Probes of all samples, on standardised features.

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
    """Fits the probes of a :class:`FeatureSource`; standardisation is refitted in every fold."""

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
    ) -> Fitted:
        """Train on all samples."""


class _Arrays(Sequence[npt.NDArray[Any]]):
    """A source's features as a lazy sequence, so that the solver takes layers in turn."""

    def __init__(self, source: FeatureSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    @overload
    def __getitem__(self, index: int) -> npt.NDArray[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[npt.NDArray[Any]]: ...
    def __getitem__(self, index: int | slice) -> npt.NDArray[Any] | list[npt.NDArray[Any]]:
        if isinstance(index, slice):
            return [self.source.array(feature) for feature in self.source.features[index]]
        return self.source.array(self.source.features[index])


def _given(values: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64]:
    """What the solver was asked for; its optional results are None only where it was not."""
    assert values is not None
    return values


def solver_threads(source: FeatureSource) -> int | None:
    """CPU threads for the exact solver on a source's features (without effect on a GPU).

    Small fits are chains of small products, in which threads wait for each other more than they
    work, so they get one. From some 33 million numbers a layer each product is long enough to be
    shared, and the fits get torch's own number: all cores, or ``OMP_NUM_THREADS``.

    Returns:
        1, or None for torch's own number.
    """
    return None if source.n_samples * source.n_features >= _MANY_NUMBERS else 1


class ExactEngine:
    """The exact solver, :func:`signbridge.probes.fit_logistic`, over folds and layers at once.

    :func:`solver_threads` chooses the CPU threads.

    Args:
        device: torch device of the solver.
        memory_bytes: bound on the logits and on the solver's own arrays.
    """

    def __init__(self, device: str = "cpu", memory_bytes: int = MEMORY_BYTES) -> None:
        self.device = device
        self.memory_bytes = memory_bytes

    def held_out(
        self,
        source: FeatureSource,
        labels: IntArray,
        n_classes: int,
        folds: Sequence[Fold],
        penalties: Sequence[float],
    ) -> Iterator[HeldOut]:
        """See :class:`Engine`."""
        from signbridge.probes.logistic import fit_logistic

        per_fold = 8 * len(source) * len(penalties) * source.n_samples * n_classes
        step = max(1, self.memory_bytes // 4 // per_fold)
        for start in range(0, len(folds), step):
            part = folds[start : start + step]
            masks = np.zeros((len(part), source.n_samples), dtype=bool)
            for number, (train, _) in enumerate(part):
                masks[number, train] = True
            fit = fit_logistic(
                _Arrays(source),
                labels,
                list(penalties),
                train=masks,
                classes=np.arange(n_classes),
                standardise=True,
                coef=False,
                decision=True,
                device=self.device,
                threads=solver_threads(source),
                memory_limit=self.memory_bytes // 2,
            )
            for number, (_, test) in enumerate(part):
                logits = torch.from_numpy(_given(fit.decision)[:, number][:, :, test])
                yield HeldOut(
                    start + number,
                    logits.softmax(-1).float().numpy(),
                    fit.converged[:, number],
                    fit.relative_tolerance[:, number],
                )

    def refit(
        self,
        source: FeatureSource,
        labels: IntArray,
        n_classes: int,
        penalties: Sequence[float],
    ) -> Fitted:
        """See :class:`Engine`."""
        from signbridge.probes.logistic import fit_logistic

        fit = fit_logistic(
            _Arrays(source),
            labels,
            list(penalties),
            classes=np.arange(n_classes),
            standardise=True,
            device=self.device,
            threads=solver_threads(source),
            memory_limit=self.memory_bytes // 2,
        )
        return Fitted(
            _given(fit.coef),
            _given(fit.intercept),
            _given(fit.mean),
            _given(fit.deviation),
            fit.converged,
            fit.relative_tolerance,
        )


class SgdEngine:
    """:class:`signbridge.probes.LinearProbes` under a Lightning Trainer, a fold at a time.

    Its fits come close to the optimum and do not certify it; a fit counts as converged where the
    gradient norm over the training part is below ``tolerance`` times that of the penalty.

    Args:
        device: ``cpu`` or ``cuda``.
        memory_bytes: bound on the features kept.
        seed: seed of the order of the batches.
        batch_size: samples per batch.
        max_steps: optimiser steps of each fold.
        learning_rate: first learning rate.
        tolerance: relative gradient norm that counts as converged.
    """

    def __init__(
        self,
        device: str = "cpu",
        memory_bytes: int = MEMORY_BYTES,
        *,
        seed: int = 42,
        batch_size: int = 256,
        max_steps: int = 1500,
        learning_rate: float = 0.03,
        tolerance: float = 0.1,
    ) -> None:
        self.device = device
        self.memory_bytes = memory_bytes
        self.seed = seed
        self.batch_size = batch_size
        self.max_steps = max_steps
        self.learning_rate = learning_rate
        self.tolerance = tolerance

    def held_out(
        self,
        source: FeatureSource,
        labels: IntArray,
        n_classes: int,
        folds: Sequence[Fold],
        penalties: Sequence[float],
    ) -> Iterator[HeldOut]:
        """See :class:`Engine`."""
        for number, fold in enumerate(folds):
            trainer, module, data = self._train(source, fold, n_classes, penalties)
            with _quiet():
                parts = trainer.predict(module, datamodule=data)
            rows = torch.cat([part[0] for part in parts])
            order = torch.argsort(rows)
            probability = torch.cat([part[1] for part in parts])[order].permute(1, 2, 0, 3)
            relative = self._gradient(module, data)
            yield HeldOut(
                number,
                probability.float().cpu().contiguous().numpy(),
                relative <= self.tolerance,
                relative,
            )

    def refit(
        self,
        source: FeatureSource,
        labels: IntArray,
        n_classes: int,
        penalties: Sequence[float],
    ) -> Fitted:
        """See :class:`Engine`."""
        every = np.arange(source.n_samples)
        _, module, data = self._train(source, (every, every), n_classes, penalties)
        relative = self._gradient(module, data)
        model = module.model
        return Fitted(
            model.weight.detach().double().cpu().numpy(),
            (model.bias + model.absent).detach().double().cpu().numpy(),
            data.standardisation.mean.numpy(),
            data.standardisation.deviation.numpy(),
            relative <= self.tolerance,
            relative,
        )

    def _train(
        self, source: FeatureSource, fold: Fold, n_classes: int, penalties: Sequence[float]
    ) -> tuple[Any, Any, Any]:
        import lightning.pytorch as pl

        from signbridge.probes.data import ActivationDataModule
        from signbridge.probes.module import LinearProbes

        data = ActivationDataModule(
            source.store,
            split=Split("random", (fold,), source.n_samples),
            seed=self.seed,
            batch_size=self.batch_size,
            memory_bytes=self.memory_bytes,
            source=source,
        )
        module = LinearProbes(
            data.n_layers,
            data.n_features,
            n_classes,
            data.n_train,
            penalties=list(penalties),
            learning_rate=self.learning_rate,
            max_steps=self.max_steps,
            layer_names=[feature.name for feature in source.features],
            present=data.present,
        )
        with _quiet():
            trainer = pl.Trainer(
                accelerator="gpu" if self.device.startswith("cuda") else "cpu",
                devices=1,
                max_steps=self.max_steps,
                max_epochs=-1,
                limit_val_batches=0,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(module, datamodule=data)
        return trainer, module, data

    def _gradient(self, module: Any, data: Any) -> npt.NDArray[np.float64]:
        """Gradient norm over the training part relative to the penalty's, shape (L, P)."""
        model = module.model.to(self.device)
        model.zero_grad()
        for batch in data.rows_dataloader(data.train_rows):
            x, y = batch["x"].to(self.device), batch["y"].to(self.device)
            (model.objective(x, y, data.n_train).sum() * (len(y) / data.n_train)).backward()
        share = model.penalty_factor / (data.n_train * model.penalties)
        pull = (share[:, None, None] * model.weight.detach()).flatten(2).norm(dim=-1)
        norm = torch.hypot(model.weight.grad.flatten(2).norm(dim=-1), model.bias.grad.norm(dim=-1))
        model.zero_grad()
        relative = norm / pull.clamp_min(1e-30)
        return np.asarray(relative.double().cpu().numpy())


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's remarks on devices and workers from the user, who asked for neither."""
    names = ("lightning.pytorch", "lightning.fabric")
    levels = [logging.getLogger(name).level for name in names]
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            yield
    finally:
        for name, level in zip(names, levels, strict=True):
            logging.getLogger(name).setLevel(level)
