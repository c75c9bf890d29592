"""The batch-trained probes as an engine of a sweep."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from signbridge.errors import ProbeError
from signbridge.probes.dataset.data_module import ActivationDataModule
from signbridge.probes.dataset.features import MEMORY_BYTES, FeatureSource
from signbridge.probes.dataset.splits import IntArray, Split
from signbridge.probes.engines import Fitted, Fold, HeldOut, unheard, work_of
from signbridge.probes.sgd import LEARNING_RATES
from signbridge.probes.sgd.checkpoint import Checkpoints, SaveCheckpoint, fit_key
from signbridge.probes.sgd.distributed import STOPPED, ProcessGroup
from signbridge.probes.sgd.module import LinearProbes
from signbridge.probes.sgd.optimizer import PreconditionedMomentum
from signbridge.probes.sgd.optimum import affordable, optima
from signbridge.probes.sgd.schedule import REASONS
from signbridge.results.folder import ResultsFolder
from signbridge.runtime.stopping import stoppable
from signbridge.runtime.terminal import quiet_lightning

_ARRAYS = ("probability", "converged", "relative_tolerance")


class SgdEngine:
    """:class:`signbridge.probes.LinearProbes` under a Lightning Trainer, a fold at a time.

    Its fits come close to the optimum and do not certify it; a fit counts as converged where the
    gradient norm over the training part is below ``tolerance`` times that of the penalty.

    Args:
        device: ``cpu`` or ``cuda``.
        memory_bytes: bound on the features kept.
        seed: seed of the order of the batches.
        batch_size: samples per batch, over all devices.
        max_steps: most steps of a fold, before and again after the learning rate is chosen.
        learning_rates: tried side by side.
        tolerance: relative gradient norm that counts as converged.
        group: the processes; only this one by default.
        checkpoints: where finished folds and checkpoints lie; nowhere by default.

    Attributes:
        records: by feature, a record for every value of C of the first fold that was trained on
            it: what was chosen, when it stopped, and how far from the optimum.
    """

    fitted = (
        f"trained in batches by {PreconditionedMomentum.words} along variance-reduced gradients"
    )

    def __init__(
        self,
        device: str = "cpu",
        memory_bytes: int = MEMORY_BYTES,
        *,
        seed: int = 42,
        batch_size: int = 256,
        max_steps: int | None = None,
        learning_rates: Sequence[float] = LEARNING_RATES,
        tolerance: float = 0.1,
        group: ProcessGroup | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self.memory_bytes = memory_bytes
        self.seed = seed
        self.batch_size = batch_size
        self.max_steps = max_steps
        self.learning_rates = tuple(learning_rates)
        self.tolerance = tolerance
        self.device = device
        self.checkpoints = checkpoints
        self._group = group
        self.worked: Callable[[float], None] = unheard
        self.records: dict[str, list[dict[str, Any]]] = {}

    def join(self, group: ProcessGroup, folder: ResultsFolder) -> None:
        """Train with these processes, and keep what is done among the parts of this folder."""
        self._group, self.checkpoints, self.device = group, Checkpoints(folder), str(group.device)

    @property
    def group(self) -> ProcessGroup:
        """The processes."""
        if self._group is None:
            self._group = ProcessGroup(self.device.partition(":")[0])
        return self._group

    def held_out(
        self,
        source: FeatureSource,
        labels: IntArray,
        n_classes: int,
        folds: Sequence[Fold],
        penalties: Sequence[float],
    ) -> Iterator[HeldOut]:
        """See :class:`signbridge.probes.engines.Engine`."""
        for number, fold in enumerate(folds):
            key = self._key(source, labels, fold, penalties)
            found = self._finished_fold(key)
            if found is None:
                found = self._held_out(source, labels, fold, penalties, key)
            self._count(source, fold, n_classes, penalties)
            arrays, records = found
            for name, record in records.items():
                self.records.setdefault(name, record)
            yield HeldOut(number, *(arrays[name] for name in _ARRAYS))

    def _finished_fold(self, key: str) -> tuple[dict[str, npt.NDArray[Any]], Any] | None:
        checkpoints = self.checkpoints
        return None if checkpoints is None else self.group.first(lambda: checkpoints.load(key))

    def _held_out(
        self,
        source: FeatureSource,
        labels: IntArray,
        fold: Fold,
        penalties: Sequence[float],
        key: str,
    ) -> tuple[dict[str, npt.NDArray[Any]], dict[str, list[dict[str, Any]]]]:
        module, data, relative = self._train(source, labels, fold, penalties, key)
        probability = self._predict(module, data, fold[1])
        arrays = {
            "probability": probability,
            "converged": relative <= self.tolerance,
            "relative_tolerance": relative,
        }
        records: dict[str, list[dict[str, Any]]] = {}
        if source.features[0].name not in self.records:
            answers = probability.argmax(-1)
            records = self.group.first(
                lambda: self._records(source, labels, fold, module, relative, answers)
            )
        if self.checkpoints is not None:
            checkpoints = self.checkpoints
            self.group.first(lambda: checkpoints.save(key, arrays, records))
        return arrays, records

    def refit(
        self,
        source: FeatureSource,
        labels: IntArray,
        n_classes: int,
        penalties: Sequence[float],
        rows: IntArray | None = None,
    ) -> Fitted:
        """See :class:`signbridge.probes.engines.Engine`."""
        every = np.arange(source.n_samples) if rows is None else rows
        fold = (every, every[:0])
        key = self._key(source, labels, fold, penalties)
        module, data, relative = self._train(source, labels, fold, penalties, key)
        self._count(source, fold, n_classes, penalties)
        return Fitted(
            module.weight.double().cpu().numpy(),
            module.bias.double().cpu().numpy(),
            data.standardisation.mean.numpy(),
            data.standardisation.deviation.numpy(),
            relative <= self.tolerance,
            relative,
        )

    # -- training ---------------------------------------------------------------------------------

    def _count(
        self, source: FeatureSource, fold: Fold, n_classes: int, penalties: Sequence[float]
    ) -> None:
        self.worked(work_of(fold[:1], source.n_features, n_classes, len(penalties), len(source)))

    def _key(
        self, source: FeatureSource, labels: IntArray, fold: Fold, penalties: Sequence[float]
    ) -> str:
        names = ",".join(feature.name for feature in source.features)
        return fit_key(names, str(list(penalties)), np.asarray(labels), *map(np.asarray, fold))

    def _train(
        self,
        source: FeatureSource,
        labels: IntArray,
        fold: Fold,
        penalties: Sequence[float],
        key: str,
    ) -> tuple[LinearProbes, ActivationDataModule, npt.NDArray[np.float64]]:
        """The trained probes, their data, and their relative gradients (layers, penalties)."""
        data = ActivationDataModule(
            source.store,
            split=Split("random", (fold,), source.n_samples),
            seed=self.seed,
            batch_size=self.batch_size,
            validation=True,
            memory_bytes=self.memory_bytes,
            source=source,
            labels=np.asarray(labels),
        )
        module = LinearProbes.of(data, penalties, self.learning_rates, self.max_steps)
        callbacks, goes_on = [], None
        if self.checkpoints is not None:
            path = self.checkpoints.checkpoint(key)
            callbacks = [SaveCheckpoint(path, self.checkpoints.seconds)]
            goes_on = str(path) if self.group.first(path.exists) else None
        with quiet_lightning(every_warning=True), stoppable(STOPPED), warnings.catch_warnings():
            trainer = self.group.trainer(callbacks)
            trainer.fit(module, datamodule=data, ckpt_path=goes_on, weights_only=True)
        if int(module.schedule.samples) == 0:
            raise ProbeError("the probes were not trained; this is a defect of SignBridge.")
        module.to(self.group.device)
        return module, data, module.schedule.chosen(module.schedule.relative).cpu().numpy()

    @torch.no_grad()
    def _predict(
        self, module: LinearProbes, data: ActivationDataModule, rows: IntArray
    ) -> npt.NDArray[np.float32]:
        """Probabilities (layers, penalties, len(rows), classes), in every process."""
        place = np.empty(data.source.n_samples, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        shape = module.bias.shape
        out = torch.zeros(*shape[:2], len(rows), shape[2])
        for batch in data.blocks(rows):
            p = module(batch["x"].to(self.group.device)).softmax(-1)
            out[:, :, torch.as_tensor(place[batch["row"].numpy()])] = p.permute(1, 2, 0, 3).cpu()
        out = self.group.total(out)
        if not bool(torch.isfinite(out).all()):
            layer, _, row, _ = (~torch.isfinite(out)).nonzero()[0].tolist()
            data.source.refuse(data.features[layer], int(rows[row]))
        return np.asarray(out.numpy())

    # -- records ----------------------------------------------------------------------------------

    def _records(
        self,
        source: FeatureSource,
        labels: IntArray,
        fold: Fold,
        module: LinearProbes,
        relative: npt.NDArray[np.float64],
        answers: IntArray,
    ) -> dict[str, list[dict[str, Any]]]:
        """How each fit went, with the optimum for the layers where it is affordable."""
        schedule = module.schedule
        rate = (schedule.picked // schedule.n_penalties).cpu()
        steps = (schedule.search_steps + schedule.chosen(schedule.steps)).cpu()
        objective = schedule.chosen(schedule.objective).cpu()
        records: dict[str, list[dict[str, Any]]] = {
            feature.name: [
                {
                    "feature": feature.name,
                    "C": C,
                    "learning_rate": module.learning_rates[int(rate[k, p])],
                    "search_steps": int(schedule.search_steps[k, p]),
                    "steps": int(steps[k, p]),
                    "search_stopped_by": REASONS[int(schedule.search_reason[k, p])],
                    "stopped_by": REASONS[int(schedule.chosen(schedule.reason)[k, p])],
                    "relative_gradient": float(relative[k, p]),
                    "objective": float(objective[k, p]),
                    "optimum": None,
                    "gap": None,
                    "agreement": None,
                }
                for p, C in enumerate(module.penalties)
            ]
            for k, feature in enumerate(source.features)
        }
        n_classes, memory = module.model.bias.shape[-1], self.memory_bytes // 2
        layers = affordable(source, len(fold[0]), n_classes, len(module.penalties), memory)
        if not layers:
            return records
        optimum, best = optima(
            source,
            labels,
            n_classes,
            fold,
            module.penalties,
            layers,
            device=self.group.device,
            memory_bytes=memory,
        )
        for m, number in enumerate(layers):
            for p, record in enumerate(records[source.features[number].name]):
                record["optimum"] = float(optimum[m, p])
                record["gap"] = record["objective"] / record["optimum"] - 1
                if len(fold[1]):
                    record["agreement"] = float((answers[number, p] == best[m, p]).mean())
        return records
