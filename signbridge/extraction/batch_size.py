"""How many images go through the model at once: by its memory, lowered when that runs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from lightning.pytorch.utilities.memory import garbage_collection_cuda

from signbridge.errors import ModelError
from signbridge.model.forward import is_out_of_memory
from signbridge.runtime.words import counted

BatchSize = int | Literal["auto"]

CPU_IMAGES = 8
"""What ``auto`` is where memory is not asked: on a CPU larger batches are not faster."""

MOST_IMAGES = 64
"""The most that ``auto`` takes: prompts of some 600 tokens then fill any device's arithmetic."""

# Of the memory that could be had; the rest is for what the allocator cannot use in one piece.
_SHARE = 0.85


class BatchLimit:
    """The most images of a forward pass in this process, which may fall as the run goes on.

    Args:
        asked: a number, or ``auto``.
        say: told in one sentence what was chosen, and when it is lowered.

    Attributes:
        images: the limit now.
    """

    def __init__(self, asked: BatchSize, say: Callable[[str], object] | None = None) -> None:
        self._asked = asked
        self._say = say or (lambda _: None)
        self.images = CPU_IMAGES if asked == "auto" else asked

    def choose(self, run: Callable[[int], object], device: torch.device, most: int) -> None:
        """Set the limit by the memory of a GPU; on other devices it stays what it is.

        Args:
            run: runs a batch of that many images.
            device: where it runs.
            most: images that there are for a batch.
        """
        if self._asked != "auto" or device.type != "cuda":
            return

        def peak(images: int) -> int:
            torch.cuda.reset_peak_memory_stats(device)
            run(images)
            torch.cuda.synchronize(device)
            return torch.cuda.max_memory_allocated(device)

        # What our own allocator holds without using it can be had as well.
        room = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
        self.images = images_that_fit(peak, int(_SHARE * room), min(most, MOST_IMAGES))
        self._say(f"batches of {counted(self.images, 'image')}, by the memory of {device}")

    def one_by_one(self, spec: str) -> None:
        """Take one image at a time, for a model whose vectors depend on a batch's padding.

        Raises:
            ModelError: if more were asked for.
        """
        if self._asked not in ("auto", 1):
            raise ModelError(
                f"{spec} gives an image other vectors in a padded batch than alone: use "
                "--batch_size 1."
            )
        self._asked = self.images = 1
        self._say(f"one image at a time: {spec} gives other vectors in a padded batch")

    def lower(self, failed: int) -> None:
        """Halve the limit after a batch of ``failed`` images did not fit."""
        self.images = min(self.images, max(1, failed // 2))
        self._say(
            f"a batch of {counted(failed, 'image')} did not fit into the memory: going on with "
            f"batches of {self.images}"
        )


def images_that_fit(peak: Callable[[int], int], room: int, most: int) -> int:
    """Return a power of two of images whose batch fits, from two batches that were tried.

    What a batch needs beside the weights grows in proportion to its images, so two sizes tell the
    rest. A power of two, so that small changes of what is free do not change the batches, and with
    them the last bits of what is stored.

    Args:
        peak: runs a batch of that many images; returns the most bytes in use meanwhile, those of
            the weights included.
        room: bytes that may be in use.
        most: the most images that are wanted.
    """
    fits = 1
    needed: dict[int, int] = {}
    full = False
    try:
        for images in (2, 2, 4):  # the first time, libraries set up their workspaces
            if images > most:
                break
            needed[images] = peak(images)
            fits = images
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        full = True
    if full:  # only now does the error hold the batch's tensors no longer
        garbage_collection_cuda()
        return fits
    if len(needed) < 2:
        return fits
    each = max(1, (needed[4] - needed[2]) // 2)
    while 2 * fits <= most and needed[2] + (2 * fits - 2) * each <= room:
        fits *= 2
    return fits
