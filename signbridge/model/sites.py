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
from functools import partial
from typing import Any

import torch
from torch import nn

from signbridge.errors import ModelError, SiteError
from signbridge.model import DECODER_LAYERS
from signbridge.model.capture import masked_mean
from signbridge.model.families import (
    answer_layers,
    class_tokens,
    decoder_layers,
    image_tokens_enter,
    pixels_of,
    projector,
    tiles_per_image,
    vision_size,
    vision_tower,
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
    """The mean of the patch features that enter the projector, or that the vision tower gives."""

    def __enter__(self) -> PatchFeatures:
        part = projector(self._model)
        if part is not None:
            self._handle = part.register_forward_pre_hook(self._entering)
        else:
            tower = vision_tower(self._model)
            assert tower is not None
            self._handle = tower.register_forward_hook(self._leaving, with_kwargs=True)
        return self

    def _entering(self, _module: nn.Module, args: tuple[Any, ...]) -> None:
        if self.value is None:
            self._average(self._unpacked(args[0]))

    def _leaving(
        self, _module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        if self.value is not None:
            return
        features = output if isinstance(output, torch.Tensor) else output[0]
        counts = None
        if features.ndim == 5 and "aspect_ratio_mask" in self._inputs:
            # (batch, images, tiles, patches, width); empty tiles fill the batch up.
            real = self._inputs["aspect_ratio_mask"].bool()
            features, counts = features[real], real.flatten(1).sum(dim=1).tolist()
        elif features.ndim == 4:  # maps of channels: (images, channels, height, width)
            features = features.flatten(2).transpose(1, 2)
        features = self._unpacked(features)
        if features.ndim == 3:
            before = class_tokens(self._model, self._inputs, features.shape[1])
            features = features[:, before:]
        # (tiles, height, width) or (tiles, patches): what an image fills.
        masks = [kwargs.get(name) for name in ("patch_attention_mask", "pixel_attention_mask")]
        mask = next((found.flatten(1).bool() for found in masks if found is not None), None)
        self._average(features, counts, mask)

    def _unpacked(self, features: torch.Tensor) -> torch.Tensor:
        """Drop the first axis of features that hold all images' patches in one row."""
        packed = features.ndim == 3 and len(features) < len(pixels_of(self._inputs))
        return features[0] if packed else features

    def _average(
        self,
        features: torch.Tensor,
        counts: list[int] | None = None,
        mask: torch.Tensor | None = None,
    ) -> None:
        """Average over the patches of a tile, then over the tiles of an image.

        Args:
            features: (tiles, patches, width), with what other axes there are between, or
                (patches, width) of all images.
            counts: tiles of each image, where they are known.
            mask: which patches are an image's, bool, (tiles, patches); None where all are.
        """
        width = vision_size(self._model)
        if features.shape[-1] != width or (mask is not None and mask.shape != features.shape[:2]):
            shape = tuple(features.shape)
            raise SiteError("vision", f"its features of shape {shape} are not of width {width}")
        if features.ndim == 2:
            features = features[:, None]
        features = features.to(torch.float32).flatten(1, -2)
        per_row = features.mean(dim=1) if mask is None else masked_mean(features, mask)
        counts = counts or tiles_per_image(self._model, self._inputs)
        counts = counts or self._by_tokens(len(per_row))
        if sum(counts) != len(per_row):
            raise SiteError(
                "vision",
                f"its {len(per_row)} rows of patches for {self._batch} images cannot be told apart",
            )
        self.value = torch.stack([rows.mean(dim=0) for rows in per_row.split(counts)])

    def _by_tokens(self, rows: int) -> list[int]:
        """Rows of each image, as its share of the image tokens; fewer where that is no number."""
        tokens = self._image_mask.sum(dim=1)
        return [int(count) for count in tokens * rows // tokens.sum().clamp_min(1)]


class AnswerLayer(Reading):
    """The output of an encoder-decoder's decoder layer where the answer is about to begin.

    That is the decoder's first position, from which the answer's first token is told.

    Args:
        layer: 0-based number of the layer.
    """

    def __init__(self, layer: int, model: Any, inputs: Inputs, image_mask: torch.Tensor) -> None:
        super().__init__(model, inputs, image_mask)
        self._layer = layer

    def __enter__(self) -> AnswerLayer:
        stack = answer_layers(self._model)
        assert stack is not None
        self._handle = stack[self._layer].register_forward_hook(self._read)
        return self

    def _read(self, _module: nn.Module, _args: Any, output: Any) -> None:
        if self.value is not None:
            return
        hidden = output if isinstance(output, torch.Tensor) else output[0]
        if hidden.ndim != 3 or hidden.shape[0] != self._batch:
            raise ModelError(
                f"The output of decoder layer {self._layer} has shape {tuple(hidden.shape)}, not "
                f"(batch {self._batch}, tokens, hidden), so it cannot be read."
            )
        self.value = hidden[:, -1].float()


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


def _hidden(model: Any) -> int:
    return int(model.config.get_text_config().hidden_size)


SITES = {
    "projector": Site(
        "mean of the image tokens entering the decoder",
        lambda model: _hidden(model) if image_tokens_enter(model) else None,
        ImageTokensIn,
    ),
    "vision": Site("mean of the vision tower's patch features", vision_size, PatchFeatures),
}
"""The sites by the name of their variable in a store, which is the name of their feature."""


def sites_of(model: Any) -> dict[str, Site]:
    """Return the sites to look for in a model: :data:`SITES` and the layers of a second stack.

    Of an encoder-decoder, whose ``resid_post`` is the encoder's, each decoder layer is a site.
    """
    layers = range(len(answer_layers(model) or ()))
    about = "decoder layer {} where the answer is about to begin"
    return {
        **SITES,
        **{
            f"{DECODER_LAYERS}_{layer}": Site(
                about.format(layer), _hidden, partial(AnswerLayer, layer)
            )
            for layer in layers
        },
    }


def site_widths(model: Any) -> dict[str, int]:
    """Return the sites that a model has, with the length of their vectors."""
    found = {name: site.width(model) for name, site in sites_of(model).items()}
    return {name: width for name, width in found.items() if width is not None}
