"""The labelled images of one run, in their final order."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from signbridge.errors import ImagesError
from signbridge.images.decode import (
    GREY_SIDE,
    BadImageError,
    checksum_of,
    decode,
    read_image_bytes,
    side_by_side,
)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images with stable ids, in a fixed order.

    Made by :func:`signbridge.images.open_images`. It holds no open file, so it can be shared
    between threads, survives a fork and can be pickled for spawned data-loader workers.

    Attributes:
        name: Short name of the source, used in default file names.
        class_names: Class names, sorted.
        sample_id: One id a sample: path relative to the root, or split and 0-based row number.
        label: int64, shape (samples,): index into ``class_names``.
        source_split: ``"train"``, ``"val"``, ``"test"`` or ``""``, as the source says.
        image_sha256: SHA-256 of the file's bytes, or of the row's 784 bytes; of a sample of several
            images that over theirs.
        pixels: uint8, shape (samples, 784): the grey 28 × 28 image, row by row, 0 is black; of a
            sample of several images their mean.
        group: int64, shape (samples,): images that are not independent share a number; numbers are
            consecutive from 0 in order of first appearance.
        group_names: Names of the groups by number, such as those of signers; ``None`` where they
            have none.
        root: Folder that the ids are relative to; ``None`` where ``pixels`` is the image itself.
        files: Paths of each sample's images, as many of each, where a sample has several.
        seed: Seed of the subsampling.
        classes: The ``classes`` asked for.
        per_class: The ``per_class`` asked for.
        grouping: How the groups were made, in words.
        layout: In one line what each level of folders was read as; empty for other sources.
        signers: How many signers folders, file names or a file of groups name; ``None`` if nothing
            does.
        skipped: (id, reason) of each image file that was left out as unusable.
        notes: Sentences that the user should see once.
    """

    name: str
    class_names: tuple[str, ...]
    sample_id: list[str]
    label: NDArray[np.int64]
    source_split: list[str]
    image_sha256: list[str]
    pixels: NDArray[np.uint8]
    group: NDArray[np.int64]
    group_names: tuple[str, ...] | None = None
    root: Path | None = None
    files: tuple[tuple[str, ...], ...] | None = None
    seed: int = 42
    classes: int | tuple[str, ...] | None = None
    per_class: int | None = None
    grouping: str = "none"
    layout: str = ""
    signers: int | None = None
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.sample_id)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over class names, ids, labels and image hashes, in order."""
        content = [self.class_names, self.sample_id, self.label.tolist(), self.image_sha256]
        return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()

    @property
    def images_per_sample(self) -> int:
        """How many images each sample has, which stand in one prompt."""
        return len(self.files[0]) if self.files else 1

    def load(self, index: int) -> Image.Image:
        """Return one sample's image, or its images in one row; otherwise as :meth:`load_all`."""
        return side_by_side(self.load_all(index))

    def load_all(self, index: int) -> list[Image.Image]:
        """Return the images of one sample in mode RGB, turned upright.

        Args:
            index: Position in this set.

        Returns:
            The images at their own sizes (28 × 28 for rows of a CSV).

        Raises:
            ImagesError: A file has vanished or is not the one that was listed.
        """
        if self.root is None:
            square = self.pixels[index].reshape(GREY_SIDE, GREY_SIDE)
            return [Image.fromarray(square).convert("RGB")]
        path = self.root / self.sample_id[index]
        try:
            names = (self.sample_id[index],) if self.files is None else self.files[index]
            data = [read_image_bytes(path := self.root / name) for name in names]
            checksums = [hashlib.sha256(one).hexdigest() for one in data]
            if checksum_of(checksums) != self.image_sha256[index]:
                raise BadImageError("has changed since it was listed")
            return [decode(one) for one in data]
        except BadImageError as error:
            raise ImagesError(
                f"{path} {error}; leave the images alone during a run, then start it again."
            ) from None

    def describe(self) -> dict[str, str | int | list[str]]:
        """Return what identifies these images, for the provenance of a store.

        The values are the same wherever the images lie: no path is among them.
        """
        read: dict[str, str | int] = {"layout": self.layout} if self.layout else {}
        if self.images_per_sample > 1:
            read["images_per_sample"] = self.images_per_sample
        if self.signers is not None:
            read["signers"] = self.signers
        return {
            "image_source": self.name,
            "image_fingerprint": self.fingerprint,
            "seed": self.seed,
            "classes": "all"
            if self.classes is None
            else self.classes
            if isinstance(self.classes, int)
            else list(self.classes),
            "per_class": "all" if self.per_class is None else self.per_class,
            "groups": self.grouping,
            **read,
        }
