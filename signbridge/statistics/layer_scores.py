"""The metrics of several layers at once, accumulated on a device by torchmetrics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from signbridge.statistics.metrics import METRICS, Outcomes, outcomes, score_outcomes

_OF_A_LAYER = ("answer", "rank", "own", "confidence")


class _Predictions(Metric):
    """Keeps on the device what the metrics need of every sample, and gathers all processes'."""

    full_state_update = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("label", *_OF_A_LAYER):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        found = outcomes(probabilities, labels[:, None], torch)
        self.label.append(labels)  # type: ignore[operator, union-attr]
        for name in _OF_A_LAYER:
            column = getattr(found, name)
            getattr(self, name).append(column if column.is_floating_point() else column.int())

    def compute(self) -> dict[str, Tensor]:
        return {name: dim_zero_cat(getattr(self, name)) for name in ("label", *_OF_A_LAYER)}


class LayerScores(nn.Module):
    """All metrics of :data:`signbridge.statistics.metrics.METRICS` for each of several layers.

    Of each sample it keeps four numbers a layer (16 bytes) on the device of the probabilities.

    Args:
        n_layers: number of layers.
        n_classes: number of classes.
    """

    def __init__(self, n_layers: int, n_classes: int) -> None:
        super().__init__()
        self.n_layers, self.n_classes = n_layers, n_classes
        self.predictions = _Predictions()

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Add samples.

        Args:
            probabilities: shape (n_samples, n_layers, n_classes).
            labels: class indices, shape (n_samples,).
        """
        self.predictions.update(probabilities, labels)

    def compute(self) -> dict[str, Tensor]:
        """Each metric's value for every layer, float64, shape (n_layers,)."""
        kept = {name: value.numpy(force=True) for name, value in self.predictions.compute().items()}
        label = kept.pop("label").reshape(-1)
        # torchmetrics drops the dimensions of a single number.
        columns = {name: value.reshape(-1, self.n_layers) for name, value in kept.items()}
        rows = [
            score_outcomes(
                Outcomes(
                    label=label,
                    n_classes=self.n_classes,
                    **{name: values[:, layer] for name, values in columns.items()},
                )
            )
            for layer in range(self.n_layers)
        ]
        kind: dict[str, Any] = {"dtype": torch.float64, "device": self.predictions.device}
        return {name: torch.tensor([row[name] for row in rows], **kind) for name in METRICS}

    def reset(self) -> None:
        """Forget all samples."""
        self.predictions.reset()
