"""Training under 4-bit rounding, since the product loads its models in NF4 by default.

NF4 (Dettmers et al. 2023, "QLoRA", arXiv 2305.14314, appendix E) rounds each weight, divided by the
largest magnitude of its block of 64, to one of 16 levels. Gradients are taken at the rounded
weights and applied to the exact ones (the straight-through estimator: Bengio et al. 2013,
arXiv 1308.3432).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

BLOCK = 64
LEVELS = torch.tensor(
    [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ]
)
_BORDERS = (LEVELS[1:] + LEVELS[:-1]) / 2


def nf4(weight: Tensor) -> Tensor:
    """Round a weight as NF4 does, but for the rounding of the blocks' scales.

    Args:
        weight: float32, a multiple of 64 elements.

    Returns:
        Tensor of the same shape.
    """
    blocks = weight.reshape(-1, BLOCK)
    scale = blocks.abs().amax(1, keepdim=True).clamp(min=1e-12)
    return (LEVELS[torch.bucketize(blocks / scale, _BORDERS)] * scale).view_as(weight)


@contextmanager
def rounded(modules: list[nn.Module]) -> Iterator[None]:
    """Give all linear layers in ``modules`` NF4 weights, and their own back afterwards."""
    layers = [
        layer for module in modules for layer in module.modules() if isinstance(layer, nn.Linear)
    ]
    exact = [layer.weight.data for layer in layers]
    try:
        for layer in layers:
            layer.weight.data = nf4(layer.weight.data)
        yield
    finally:
        for layer, weight in zip(layers, exact, strict=True):
            layer.weight.data = weight
