"""Many linear probes as one batched weight, their losses and gradients, in torch alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from signbridge.errors import ProbeError

_BYTES = 64 * 2**20


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


@dataclass
class Gradients:
    """Loss, gradient and spread, summed over samples, for every fit.

    Attributes:
        loss: cross-entropy in nats, (L, S), float64.
        weight: its gradient, (L, S, K, D).
        bias: its gradient, (L, S, K).
        spread: p (1 - p) of every class, (L, S, K).
    """

    loss: Tensor
    weight: Tensor
    bias: Tensor
    spread: Tensor

    @classmethod
    def zeros(cls, weight: Tensor) -> Gradients:
        """Of no sample, for parameters of the shape of ``weight``."""
        return cls(
            torch.zeros(weight.shape[:2], dtype=torch.float64, device=weight.device),
            weight.new_zeros(weight.shape),
            weight.new_zeros(weight.shape[:3]),
            weight.new_zeros(weight.shape[:3]),
        )

    def add(self, x: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> None:
        """Add a batch, in pieces whose logits stay small.

        Args:
            x: standardised features, (B, L, D).
            y: class indices, (B,).
            weight: (L, S, K, D).
            bias: (L, S, K), -inf for a class without training samples.
        """
        for part in _parts(len(y), bias):
            self._add(x[part], y[part], weight, bias)

    def _add(self, x: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> None:
        logits = logits_of(x, weight, bias)
        self.loss += losses(logits, y).double().sum(0)
        p = logits.softmax(-1)
        self.spread += (p * (1 - p)).sum(0)
        index = y[:, None, None, None].expand(*p.shape[:3], 1)
        residual = p.scatter_add_(3, index, -torch.ones_like(p[..., :1]))
        self.bias += residual.sum(0)
        rows = residual.flatten(2).permute(1, 2, 0)  # (L, S K, B)
        self.weight += torch.bmm(rows, x.transpose(0, 1)).view(self.weight.shape)


def loss_sum(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Cross-entropy summed over a batch, (L, S), float64; arguments of :meth:`Gradients.add`."""
    total = torch.zeros(weight.shape[:2], dtype=torch.float64, device=weight.device)
    for part in _parts(len(y), bias):
        total += losses(logits_of(x[part], weight, bias), y[part]).double().sum(0)
    return total


def _parts(n_samples: int, bias: Tensor) -> Iterator[slice]:
    """A batch in pieces whose logits stay small."""
    size = max(1, _BYTES // (12 * bias.numel()))
    return (slice(start, start + size) for start in range(0, n_samples, size))
