"""Forward hooks that read the residual stream at one position of every wanted decoder layer.

Nothing but the wanted position leaves a hook, so a capture of 32 layers holds 32 vectors per
image, not 32 activations of every token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import nn

from signbridge.errors import ModelError
from signbridge.model import Position


class DeepestLayerReached(Exception):  # noqa: N818  (control flow, not an error)
    """Ends a forward pass once the deepest wanted decoder layer has been read."""


def last_token_index(attention_mask: torch.Tensor) -> torch.Tensor:
    """Return each row's index of its last real token, whichever side is padded.

    Args:
        attention_mask: shape (batch, tokens), 1 for a real token.

    Returns:
        int64, shape (batch,).
    """
    places = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    return (places * (attention_mask != 0)).argmax(dim=1)


def masked_mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean over the marked tokens, accumulated in float32.

    Args:
        hidden: shape (batch, tokens, hidden).
        mask: bool, shape (batch, tokens).

    Returns:
        float32, shape (batch, hidden).
    """
    marked = torch.where(mask[..., None], hidden, 0)  # an infinity elsewhere must not become NaN
    total = marked.sum(dim=1, dtype=torch.float32)
    return total / mask.sum(dim=1, keepdim=True).clamp_min(1)


class ResidualCapture:
    """Hooks on decoder layers, active inside ``with``.

    The first forward pass is the prefill; later ones (generation) carry one new token a row.

    Args:
        decoder_layers: the model's decoder layers, first to last.
        layers: 0-based indices of the layers to read, ascending.
        position: which token to read, see :data:`Position`.
        attention_mask: of the prompt, shape (batch, tokens).
        image_mask: which prompt tokens are image tokens, bool, shape (batch, tokens).
        stop_after_deepest: raise :class:`DeepestLayerReached` after the deepest wanted layer, so
            that nothing above it runs.

    Attributes:
        unfinished: bool, shape (batch,): rows whose answer had not ended before the current pass.
            The owner of a generation loop clears it; ``last_generated`` reads only those rows.
        paused: whether forward passes go by unread.
    """

    def __init__(
        self,
        decoder_layers: nn.ModuleList,
        layers: Sequence[int],
        *,
        position: Position,
        attention_mask: torch.Tensor,
        image_mask: torch.Tensor,
        stop_after_deepest: bool,
    ) -> None:
        self._modules = [decoder_layers[index] for index in layers]
        self._first = decoder_layers[0]
        self._layers = list(layers)
        self._position = position
        self._image_mask = image_mask
        self._last = last_token_index(attention_mask)
        self._rows = torch.arange(len(self._last), device=self._last.device)
        self._stop = stop_after_deepest
        self._passes = 0
        self._vectors: list[torch.Tensor | None] = [None] * len(layers)
        self._handles: list[Any] = []
        self.unfinished = torch.ones_like(self._last, dtype=torch.bool)
        self.paused = False

    def __enter__(self) -> ResidualCapture:
        # The counter is hooked first, so it has moved on before any layer of the pass is read.
        self._handles.append(self._first.register_forward_pre_hook(self._on_entry))
        for slot, module in enumerate(self._modules):
            self._handles.append(module.register_forward_hook(self._reader(slot)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        return kind is DeepestLayerReached

    def vectors(self) -> torch.Tensor:
        """Return what was read, shape (batch, layers, hidden), in the compute dtype or float32.

        Raises:
            ModelError: if a wanted layer never ran.
        """
        missing = [k for k, read in zip(self._layers, self._vectors, strict=True) if read is None]
        if missing:
            raise ModelError(f"Decoder layer {missing[0]} never ran in this model's forward pass.")
        return torch.stack([read for read in self._vectors if read is not None], dim=1)

    def _on_entry(self, _module: nn.Module, _args: tuple[Any, ...]) -> None:
        self._passes += not self.paused

    def _reader(self, slot: int) -> Callable[[nn.Module, Any, Any], None]:
        def read(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if self.paused:
                return
            hidden = output if isinstance(output, torch.Tensor) else output[0]
            self._check(hidden, f"The output of decoder layer {self._layers[slot]}")
            self._vectors[slot] = self._read(hidden, self._vectors[slot])
            if self._stop and slot == len(self._modules) - 1:
                raise DeepestLayerReached

        return read

    def _check(self, hidden: torch.Tensor, what: str) -> None:
        if hidden.ndim != 3 or hidden.shape[0] != len(self._last):
            raise ModelError(
                f"{what} has shape {tuple(hidden.shape)}, not (batch {len(self._last)}, tokens, "
                "hidden), so this model's residual stream cannot be read."
            )

    def _read(self, hidden: torch.Tensor, before: torch.Tensor | None) -> torch.Tensor:
        if before is None:
            if self._position == "image_mean":
                return masked_mean(hidden, self._image_mask)
            return hidden[self._rows, self._last]
        if self._position == "last_generated":
            return torch.where(self.unfinished[:, None], hidden[:, -1], before)
        return before
