"""Cross-entropy of linear probes and its gradient, summed over the samples of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from signbridge.probes.sgd.torch_model import logits_of, losses

_BYTES = 64 * 2**20


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
