"""Every layer's linear probe, at several learning rates and penalties, in one LightningModule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from signbridge.probes.dataset.batches import Batch
from signbridge.probes.dataset.data_module import ActivationDataModule
from signbridge.probes.sgd import LEARNING_RATES
from signbridge.probes.sgd.linear import (
    BatchedLinearProbes,
    Gradients,
    logits_of,
    loss_sum,
    losses,
)
from signbridge.probes.sgd.optimizer import PreconditionedMomentum, Preconditioner
from signbridge.probes.sgd.schedule import DONE, SEARCH, Schedule
from signbridge.statistics.layer_scores import LayerScores

FEWEST_STEPS = 1500
FEWEST_PASSES = 20


class LinearProbes(LightningModule):
    """Trains the probes of all layers, learning rates and penalties together, in batches.

    For what the exact solver cannot hold. The objective is that of
    :class:`signbridge.probes.sgd.linear.BatchedLinearProbes`, whose minimum is scikit-learn's,
    and more steps come closer to it: :mod:`signbridge.probes.sgd.schedule` says how, and when a fit
    stops. The fits share the data and nothing else, so those trained together are those trained
    alone.

    It is trained by a Lightning Trainer on an :class:`~signbridge.probes.ActivationDataModule`,
    with ``max_epochs=-1``: it stops by itself. With the data module's ``validation`` a fit stops
    once the validation part's cross-entropy has settled, and the best learning rates then go on
    with the validation part among the rest.

    Args:
        n_layers: number of layers L of a batch.
        n_features: width D of a feature.
        n_classes: number of classes K.
        penalties: values of C, P of them, all trained in the same pass.
        learning_rates: R of them, for every penalty; the one that comes to the lowest objective is
            taken.
        max_steps: most steps, before and again after the best learning rates are known; by default
            1,500, or as many as make 20 passes.
        layer_names: names for the log; numbers by default.
        present: which classes have training samples, K of them; all by default.

    Attributes:
        model: the probes, one for each layer and each of the R x P settings.
    """

    def __init__(
        self,
        n_layers: int,
        n_features: int,
        n_classes: int,
        penalties: Sequence[float] = (1.0,),
        learning_rates: Sequence[float] = LEARNING_RATES,
        max_steps: int | None = None,
        layer_names: Sequence[str] | None = None,
        present: Sequence[bool] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.penalties = tuple(float(C) for C in penalties)
        self.learning_rates = tuple(float(rate) for rate in learning_rates)
        self.max_steps = max_steps
        names = layer_names or [str(number) for number in range(n_layers)]
        self.fit_names = [
            name if len(self.penalties) == 1 else f"{name}/C={C:g}"
            for name in names
            for C in self.penalties
        ]
        settings = self.penalties * len(self.learning_rates)
        self.model = BatchedLinearProbes(n_layers, n_features, n_classes, settings, present)
        schedule = Schedule(
            self.model, self.learning_rates, len(self.penalties), max_steps or FEWEST_STEPS
        )
        self.add_module("course", schedule)  # its name in checkpoints
        self.preconditioner = Preconditioner(n_layers, n_features)
        n_fits = n_layers * len(self.penalties)
        self.validation_scores = LayerScores(n_fits, n_classes)
        self.test_scores = LayerScores(n_fits, n_classes)

    @classmethod
    def of(
        cls,
        data: ActivationDataModule,
        penalties: Sequence[float] = (1.0,),
        learning_rates: Sequence[float] = LEARNING_RATES,
        max_steps: int | None = None,
    ) -> LinearProbes:
        """Probes for what a data module serves."""
        return cls(
            data.n_layers,
            data.n_features,
            data.n_classes,
            penalties,
            learning_rates,
            max_steps,
            layer_names=[feature.name for feature in data.features],
            present=data.present,
        )

    @property
    def schedule(self) -> Schedule:
        """State of every fit, and when each of them stops."""
        return cast(Schedule, self.course)

    @property
    def weight(self) -> Tensor:
        """Weights at the chosen learning rates, shape (L, P, K, D)."""
        return self.schedule.chosen(self.model.weight.detach())

    @property
    def bias(self) -> Tensor:
        """Intercepts, shape (L, P, K); -inf for a class without training samples."""
        return self.schedule.chosen(self.model.bias.detach()) + self.model.absent

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (B, L, P, K), of standardised features, shape (B, L, D)."""
        return logits_of(x, self.weight, self.bias)

    # -- training ---------------------------------------------------------------------------------

    @property
    def _data(self) -> ActivationDataModule:
        return cast(ActivationDataModule, self.trainer.datamodule)  # type: ignore[attr-defined]

    def configure_optimizers(self) -> PreconditionedMomentum:
        """Preconditioned heavy ball, see :mod:`signbridge.probes.sgd.optimizer`."""
        return PreconditionedMomentum(self.model, self.schedule, self.preconditioner)

    def setup(self, stage: str) -> None:
        """Tell the data module how many steps are left."""
        if stage == "fit":
            if self.max_steps is None:
                passes = FEWEST_PASSES * self._data.order.batches
                self.schedule.max_steps = max(FEWEST_STEPS, passes)
            self._data.steps_left = lambda: self.schedule.max_steps - int(self.schedule.step)

    def on_train_start(self) -> None:
        """Measure the start, unless training goes on from a checkpoint."""
        self.schedule.forget_index()
        if int(self.schedule.samples) == 0:
            data = self._data
            blocks = (batch["x"] for batch in data.blocks(data.training_part))
            self.preconditioner.measure(blocks, len(data.training_part), data.seed, data.reduce)
            self.schedule.samples.fill_(data.n_train)
            self._measure()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Sum of all fits' objectives, whose gradient is corrected by that at the anchors."""
        schedule, (layers, settings) = self.schedule, self.schedule.index
        at = layers, settings
        x, y = batch["x"][:, layers[:, 0]], batch["y"]
        # The mean over processes of what each computes of its samples is that of the whole batch.
        share = self.trainer.world_size / batch["size"]
        absent, samples = self.model.absent, int(schedule.samples)
        weight, bias = self.model.weight[at], self.model.bias[at]
        loss = share * losses(logits_of(x, weight, bias + absent), y).sum()
        norm = weight.square().sum((-2, -1))
        loss = loss + 0.5 * (schedule.decay[settings].to(norm) * norm).sum()
        if batch["size"] == samples:  # the gradient is the whole part's own
            return loss
        with torch.no_grad():
            known = Gradients.zeros(weight)
            known.add(x, y, schedule.anchor_weight[at], schedule.anchor_bias[at] + absent)
            slope_weight = schedule.slope_weight[at] - share * known.weight
            slope_bias = schedule.slope_bias[at] - share * known.bias
        return loss + (weight * slope_weight).sum() + (bias * slope_bias).sum()

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Count the step."""
        self.schedule.step += 1

    def on_train_epoch_end(self) -> None:
        """At the end of a round measure, stop what is at rest, and see what comes next."""
        schedule, data = self.schedule, self._data
        if not data.round_is_over and int(schedule.step) < schedule.max_steps:
            return
        self._measure()
        while schedule.at_rest and int(schedule.stage) != DONE:
            if int(schedule.stage) == SEARCH:
                schedule.pick()
            if len(data.validation_rows) > 0:
                data.use_all()
                schedule.samples.fill_(data.n_train)
                schedule.finish(self.model)
                self._measure()
            else:
                schedule.stage.fill_(DONE)
                self.trainer.should_stop = True

    def on_train_end(self) -> None:
        """Where the Trainer has stopped early, take what there is."""
        if int(self.schedule.stage) == DONE:
            return
        self._measure()
        if int(self.schedule.stage) == SEARCH:
            self.schedule.pick()

    def _measure(self) -> None:
        """Measure the training part at the present point, and judge it."""
        schedule, data, at = self.schedule, self._data, self.schedule.index
        layers = at[0][:, 0]
        weight = self.model.weight.detach()[at]
        bias = self.model.bias.detach()[at] + self.model.absent
        gradients, held = Gradients.zeros(weight), torch.zeros_like(schedule.objective[at])
        everything = np.union1d(data.train_rows, data.validation_rows)
        trained = torch.zeros(data.source.n_samples, dtype=torch.bool)
        trained[torch.as_tensor(data.train_rows)] = True
        with torch.no_grad():
            for batch in data.blocks(everything):
                mask = trained[batch["row"]]
                x, y = batch["x"].to(self.device)[:, layers], batch["y"].to(self.device)
                if bool(mask.all()):
                    gradients.add(x, y, weight, bias)
                    continue
                mask = mask.to(self.device)
                gradients.add(x[mask], y[mask], weight, bias)
                held += loss_sum(x[~mask], y[~mask], weight, bias)
        parts = (gradients.loss, gradients.weight, gradients.bias, gradients.spread)
        means = Gradients(*(data.reduce(part, "sum") / data.n_train for part in parts))
        n_held = len(data.validation_rows)
        validation = (
            data.reduce(held, "sum") / n_held if n_held else torch.full_like(held, torch.nan)
        )
        with torch.no_grad():
            schedule.judge(self.model, means, validation)
        optimiser = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimiser, PreconditionedMomentum)
        optimiser.reset_momentum()
        best = schedule.objective.unflatten(1, schedule.grid).min(1).values
        self.log("train/objective", best.mean().float())

    # -- scores -----------------------------------------------------------------------------------

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the batch to the validation scores."""
        self.validation_scores.update(self._probabilities(batch).flatten(1, 2), batch["y"])

    def on_validation_epoch_end(self) -> None:
        """Log every fit's validation scores."""
        self._log_scores("val", self.validation_scores)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the batch to the test scores."""
        self.test_scores.update(self._probabilities(batch).flatten(1, 2), batch["y"])

    def on_test_epoch_end(self) -> None:
        """Log every fit's test scores."""
        self._log_scores("test", self.test_scores)

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> tuple[Tensor, Tensor]:
        """Sample indices, shape (B,), and class probabilities, shape (B, L, P, K)."""
        return batch["row"], self._probabilities(batch)

    def _probabilities(self, batch: Batch) -> Tensor:
        return cast(Tensor, self(batch["x"])).softmax(-1)

    def _log_scores(self, stage: str, scores: LayerScores) -> None:
        for metric, values in scores.compute().items():
            for name, value in zip(self.fit_names, values, strict=True):
                self.log(f"{stage}/{name}/{metric}", value.float())
        scores.reset()
