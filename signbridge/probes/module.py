"""Every layer's linear probe in one LightningModule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from signbridge.probes.data import Batch
from signbridge.probes.scores import LayerScores
from signbridge.probes.torch_model import BatchedLinearProbes


class LinearProbes(LightningModule):
    """Trains the probes of all layers and penalties together, on batches.

    For what the exact solver cannot hold. The objective is that of
    :class:`signbridge.probes.torch_model.BatchedLinearProbes`, whose minimum is scikit-learn's;
    Adam (Kingma & Ba 2015) with a cosine decay to zero (Loshchilov & Hutter 2017) approaches it.
    Adam scales each parameter's step by itself, so probes trained together do not influence one
    another. The intercept has no penalty.

    Args:
        n_layers: number of layers L of a batch.
        n_features: width D of a feature.
        n_classes: number of classes K.
        n_train: number of training samples N, which the penalty is measured against.
        penalties: values of C, P of them, all trained in the same pass.
        learning_rate: first learning rate.
        max_steps: steps of the decay; give the Trainer the same.
        layer_names: names for the log; numbers by default.
        present: which classes have training samples, K of them; all by default.

    Attributes:
        model: the probes, a :class:`~signbridge.probes.torch_model.BatchedLinearProbes`.
    """

    def __init__(
        self,
        n_layers: int,
        n_features: int,
        n_classes: int,
        n_train: int,
        penalties: Sequence[float] = (1.0,),
        learning_rate: float = 0.03,
        max_steps: int = 1500,
        layer_names: Sequence[str] | None = None,
        present: Sequence[bool] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.n_train = n_train
        self.learning_rate = learning_rate
        self.max_steps = max_steps
        self.penalties = tuple(float(C) for C in penalties)
        names = layer_names or [str(number) for number in range(n_layers)]
        self.fit_names = [
            name if len(self.penalties) == 1 else f"{name}/C={C:g}"
            for name in names
            for C in self.penalties
        ]
        self.model = BatchedLinearProbes(n_layers, n_features, n_classes, self.penalties, present)
        n_fits = n_layers * len(self.penalties)
        self.validation_scores = LayerScores(n_fits, n_classes)
        self.test_scores = LayerScores(n_fits, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (B, L, P, K), of standardised features, shape (B, L, D)."""
        return cast(Tensor, self.model(x))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Sum of all fits' objectives on the batch; its mean is logged as ``train/objective``."""
        values = self.model.objective(batch["x"], batch["y"], self.n_train)
        self.log("train/objective", values.detach().mean(), batch_size=len(batch["y"]))
        return values.sum()

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

    def configure_optimizers(self) -> Any:
        """Adam with a cosine decay to zero over ``max_steps``."""
        optimiser = torch.optim.Adam(self.model.parameters(), lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.max_steps)
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _probabilities(self, batch: Batch) -> Tensor:
        return cast(Tensor, self(batch["x"])).softmax(-1)

    def _log_scores(self, stage: str, scores: LayerScores) -> None:
        for metric, values in scores.compute().items():
            for name, value in zip(self.fit_names, values, strict=True):
                self.log(f"{stage}/{name}/{metric}", value.float())
        scores.reset()
