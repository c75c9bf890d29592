"""Many linear probes as one batched weight, in torch alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from signbridge.errors import ProbeError


class BatchedLinearProbes(nn.Module):
    r"""Multinomial logistic regressions of every layer and penalty at once.

    For layer :math:`l` and penalty :math:`C_k` the objective, as scikit-learn's divided by
    :math:`C_k N`, is

    .. math:: \frac{1}{N} \sum_i -\ln \mathrm{softmax}(W x_i + b)_{y_i}
              + \frac{1}{2 C_k N} \lVert W \rVert^2

    with features :math:`x` already standardised and the intercept unpenalised. The fits share no
    parameter, so the sum of their objectives is minimised by each fit's own minimum.

    With two classes the penalty counts twice: scikit-learn then has one row of coefficients, the
    difference of the two rows here, and the minimum is the same. A class without training samples
    has probability 0.

    Args:
        n_layers: number of layers L.
        n_features: width D of a feature.
        n_classes: number of classes K.
        penalties: values of C, one fit for each; P of them.
        present: which classes have training samples, K of them; all by default.

    Raises:
        ProbeError: no penalty, or one that is not above 0.

    Attributes:
        weight: shape (L, P, K, D).
        bias: shape (L, P, K).
        penalties: shape (P,).
    """

    penalties: Tensor
    absent: Tensor

    def __init__(
        self,
        n_layers: int,
        n_features: int,
        n_classes: int,
        penalties: Sequence[float] = (1.0,),
        present: Sequence[bool] | None = None,
    ) -> None:
        super().__init__()
        if not penalties or min(penalties) <= 0:
            raise ProbeError(f"C must be above 0, not {', '.join(map(str, penalties)) or 'empty'}.")
        # The objective is convex, so zeros are as good a start as any and need no seed.
        self.weight = nn.Parameter(torch.zeros(n_layers, len(penalties), n_classes, n_features))
        self.bias = nn.Parameter(torch.zeros(n_layers, len(penalties), n_classes))
        self.register_buffer("penalties", torch.tensor(penalties, dtype=torch.float32))
        seen = torch.tensor([True] * n_classes if present is None else list(present))
        self.register_buffer("absent", torch.where(seen, 0.0, -torch.inf))
        self.penalty_factor = 2.0 if int(seen.sum()) == 2 else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every fit.

        Args:
            x: standardised features, shape (B, L, D).

        Returns:
            Shape (B, L, P, K).
        """
        return logits_of(x, self.weight, self.bias) + self.absent

    def objective(self, x: Tensor, y: Tensor, n_train: int) -> Tensor:
        """Objective of every fit, estimated on a batch.

        Args:
            x: standardised features, shape (B, L, D).
            y: class indices, shape (B,).
            n_train: number of samples N of the whole training part.

        Returns:
            Shape (L, P).
        """
        loss = losses(self(x), y).mean(0)
        norm = self.penalty_factor * self.weight.square().sum((-2, -1))
        return loss + norm / (2 * n_train * self.penalties)


def logits_of(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Logits of every fit.

    Args:
        x: features, shape (B, L, D).
        weight: shape (L, P, K, D).
        bias: shape (L, P, K).

    Returns:
        Shape (B, L, P, K).
    """
    product = torch.baddbmm(bias.flatten(1)[:, None], x.transpose(0, 1), weight.flatten(1, 2).mT)
    return product.transpose(0, 1).reshape(len(x), *weight.shape[:3])


def losses(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of every sample and fit, (B, L, S), of logits (B, L, S, K)."""
    target = y[:, None, None].expand(logits.shape[:3])
    loss = nn.functional.cross_entropy(logits.flatten(0, 2), target.flatten(), reduction="none")
    return loss.view(logits.shape[:3])
