"""What a source of images is, and what it offers before classes and samples are chosen."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Asked:
    """What the user says of a source's folders.

    Attributes:
        layout: What each level is, as :meth:`signbridge.images.layout.Layout.parse` takes it.
        groups: What images are to be grouped by; ``signer`` and ``signer/class`` concern folders.
    """

    layout: str | None = None
    groups: str = ""


@dataclass
class Candidates:
    """All samples of a source, in its order.

    Attributes:
        name: Short name of the source.
        sample_id: Stable ids.
        label: Class names, one a sample.
        source_split: The source's own part, or ``""``.
        pixels: uint8 (samples, 784) where the source is a table of pixels, else ``None``.
        root: Folder of the files, else ``None``.
        files: Paths of each sample's images, where a sample is a folder of several; else ``None``,
            and the sample's id is its path.
        signer: Signer of each sample, where the folders or file names tell it, else ``None``.
        layout: In one line what was read where; empty for sources without levels.
        grouping: The levels that tell the signers, as the provenance names them.
        unsupported: (id, reason) of images in formats that are not read.
        notes: Sentences that the user should see once.
    """

    name: str
    sample_id: list[str] = field(default_factory=list)
    label: list[str] = field(default_factory=list)
    source_split: list[str] = field(default_factory=list)
    pixels: NDArray[np.uint8] | None = None
    root: Path | None = None
    files: list[tuple[str, ...]] | None = None
    signer: list[str] | None = None
    layout: str = ""
    grouping: str = ""
    unsupported: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Source(Protocol):
    """A module that knows one kind of source."""

    @property
    def WHAT(self) -> str:  # noqa: N802  (a module's constant)
        """What ``--images`` takes for it, as messages list it."""

    def matches(self, spec: str, path: Path) -> bool:
        """Whether this is such a source.

        Args:
            spec: what the user has named.
            path: the same as a path, which need not exist.
        """

    def read(self, path: Path, asked: Asked) -> Candidates:
        """List all that the source holds.

        Args:
            path: the source.
            asked: what is said of the levels of its folders, where it has such.

        Raises:
            ImagesError: It cannot be read, or is not what it looks like.
        """
