"""What a batch of samples holds."""

from __future__ import annotations

from typing import TypedDict

from torch import Tensor


class Batch(TypedDict):
    """What the loaders give out.

    ``x``: standardised features, float32, shape (B, n_layers, n_features); ``y``: class indices,
    shape (B,); ``row``: sample indices in the store, shape (B,); ``size``: number of samples of the
    batch over all processes.
    """

    x: Tensor
    y: Tensor
    row: Tensor
    size: int
