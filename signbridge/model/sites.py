"""What is read of every image beside the residual stream: the baselines inside the model.

To add a captured site:

1. Write a class like :class:`ImageTokensIn` here: hooks inside ``with``, ``value`` afterwards.
2. Put a :class:`Site` into :data:`SITES`; extraction, store and probes take it from there.
3. Give it a label and a line style in ``signbridge/report/figures`` (both have a default).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from signbridge.errors import ModelError
from signbridge.model.capture import masked_mean
from signbridge.model.families import (
    decoder_layers,
    image_tokens_enter,
    projector,
    tiles_per_image,
    vision_size,
)

Inputs = dict[str, torch.Tensor]


class Reading(AbstractContextManager["Reading"]):
    """Reads one vector an image from the first forward pass inside ``with``.

    Args:
        model: the model that will run.
        inputs: the processor's tensors of the batch.
        image_mask: which prompt tokens are image tokens, bool, shape (batch, tokens).

    Attributes:
        value: float32, shape (batch, width of the site), on the model's device; None before.
    """

    _handle: Any

    def __init__(self, model: Any, inputs: Inputs, image_mask: torch.Tensor) -> None:
        self._model = model
        self._inputs = inputs
        self._image_mask = image_mask
        self._batch = len(image_mask)
        self.value: torch.Tensor | None = None

    def __exit__(self, *_: object) -> None:
        self._handle.remove()


class ImageTokensIn(Reading):
    """The mean of the image tokens that enter the first decoder layer."""

    def __enter__(self) -> ImageTokensIn:
        first = decoder_layers(self._model)[0]
        self._handle = first.register_forward_pre_hook(self._read, with_kwargs=True)
        return self

    def _read(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.value is not None:
            return
        hidden = args[0] if args else kwargs["hidden_states"]
        if hidden.ndim != 3 or hidden.shape[0] != self._batch:
            raise ModelError(
                f"The input of decoder layer 0 has shape {tuple(hidden.shape)}, not (batch "
                f"{self._batch}, tokens, hidden), so this model's residual stream cannot be read."
            )
        self.value = masked_mean(hidden, self._image_mask)


class PatchFeatures(Reading):
    """The mean of the patch features that enter the projector."""

    def __enter__(self) -> PatchFeatures:
        part = projector(self._model)
        assert part is not None
        self._handle = part.register_forward_pre_hook(self._read)
        return self

    def _read(self, _module: nn.Module, args: tuple[Any, ...]) -> None:
        if self.value is not None:
            return
        features = args[0].to(torch.float32)
        per_row = features.flatten(1, -2).mean(dim=1)
        counts = tiles_per_image(self._model, self._inputs) or self._by_tokens(len(per_row))
        if sum(counts) != len(per_row):
            raise ModelError(
                f"The projector of this model takes {len(per_row)} rows of patches for "
                f"{self._batch} images, so they cannot be told apart: try --batch_size 1."
            )
        self.value = torch.stack([rows.mean(dim=0) for rows in per_row.split(counts)])

    def _by_tokens(self, rows: int) -> list[int]:
        """Rows of patches of each image, where every row becomes as many image tokens."""
        tokens = self._image_mask.sum(dim=1)
        each = int(tokens.sum()) // rows
        return [int(count) for count in tokens // max(1, each)]


@dataclass(frozen=True)
class Site:
    """A place in the model that gives one vector an image.

    Attributes:
        long_name: what it is, as the store says it.
        width: the vector's length for a model (its weights need not be there), or None where the
            model has no such place, so that the site is left out.
        read: makes the reading of one batch.
    """

    long_name: str
    width: Callable[[Any], int | None]
    read: Callable[[Any, Inputs, torch.Tensor], Reading]


SITES = {
    "projector": Site(
        "mean of the image tokens entering the decoder",
        lambda model: (
            int(model.config.get_text_config().hidden_size) if image_tokens_enter(model) else None
        ),
        ImageTokensIn,
    ),
    "vision": Site("mean of the vision tower's patch features", vision_size, PatchFeatures),
}
"""The sites by the name of their variable in a store, which is the name of their feature."""


def site_widths(model: Any) -> dict[str, int]:
    """Return the sites that a model has, with the length of their vectors."""
    found = {name: site.width(model) for name, site in SITES.items()}
    return {name: width for name, width in found.items() if width is not None}
