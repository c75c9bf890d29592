"""Copies from the device to the host that overlap the next batch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray


class HostCopy:
    """A copy of some tensors to the host, under way until :meth:`arrays` is called.

    On a GPU the copy runs in the background into page-locked buffers that this object owns, and
    an event marks its end: reading such a buffer before the event is a race that no error shows.

    Args:
        tensors: named tensors, all on one device.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._event: torch.cuda.Event | None = None
        self._host: dict[str, torch.Tensor] = {}
        stream: torch.cuda.Stream | None = None
        for name, tensor in tensors.items():
            # NumPy has no bfloat16; every bfloat16 is a float32.
            value = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
            if value.device.type == "cuda":
                buffer = torch.empty(value.shape, dtype=value.dtype, device="cpu", pin_memory=True)
                self._host[name] = buffer.copy_(value, non_blocking=True)
                stream = torch.cuda.current_stream(value.device)
            else:
                self._host[name] = value.cpu()
        if stream is not None:
            self._event = torch.cuda.Event()
            self._event.record(stream)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Wait for the copy to end and return it as arrays."""
        if self._event is not None:
            self._event.synchronize()
        return {name: tensor.numpy() for name, tensor in self._host.items()}
