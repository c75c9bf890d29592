"""Reads chosen image files once each: checksum, validity and grey pixels from one decode."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from signbridge.errors import ImagesError
from signbridge.images.decode import (
    NO_VALUE_ABOVE_12_BITS,
    BadImageError,
    checksum_of,
    decode,
    grey_pixels,
    read_image_bytes,
)
from signbridge.images.sources.source import Candidates
from signbridge.runtime.progress import Progress


@dataclass
class Scan:
    """What reading the files gave.

    Attributes:
        order: Indices of the usable candidates, in final order.
        sha256: Checksum of each file's bytes, by candidate.
        pixels: Grey 28 × 28 image, uint8 (784,), by candidate.
        skipped: (id, reason) of each file that cannot be used.
        dark: Candidates whose files have 16 bits a value, none of them above 4,095.
    """

    order: list[int] = field(default_factory=list)
    sha256: dict[int, str] = field(default_factory=dict)
    pixels: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    dark: set[int] = field(default_factory=set)


def scan_files(
    found: Candidates,
    queues: dict[str, list[int]],
    per_class: int | None,
    max_bad_share: float,
    progress: Progress | None = None,
) -> Scan:
    """Read the files of each class's queue until the class has enough of them.

    A file that cannot be used is replaced by the next of its class's queue.

    Args:
        found: The candidates of a folder.
        queues: Indices of each class in the order to take them.
        per_class: How many of each class; ``None`` for all, in the order of the source.
        max_bad_share: Largest share of unusable files, of all files looked at; one bad file alone
            is never too many, unless this is 0.
        progress: Told how many files are read.

    Raises:
        ImagesError: Too many files, or all of a class, cannot be used.
    """
    assert found.root is not None
    scan = Scan()
    good: dict[str, list[int]] = {name: [] for name in queues}
    taken = dict.fromkeys(queues, 0)
    bad: dict[int, str] = {}
    clashes = Clashes()
    while True:
        batch: list[int] = []
        for name, queue in queues.items():
            wanted = len(queue) if per_class is None else per_class - len(good[name])
            batch += queue[taken[name] : taken[name] + wanted]
            taken[name] += wanted
        if not batch:
            break
        paths = (
            [found.root / name for name in found.files[index]]
            if found.files is not None
            else [found.root / found.sample_id[index]]
            for index in batch
        )
        for done, (index, result) in enumerate(zip(batch, _read_all(paths), strict=True), start=1):
            if isinstance(result, str):
                bad[index] = result
            else:
                good[found.label[index]].append(index)
                scan.sha256[index], scan.pixels[index], dark = result
                if dark:
                    scan.dark.add(index)
                clashes.add(index, found.label[index], scan.sha256[index])
            if progress is not None:
                progress(done, len(batch))
        for index, reason in clashes.found(found.sample_id).items():
            if index not in bad:
                bad[index] = reason
                good[found.label[index]].remove(index)
    scan.order = [index for members in good.values() for index in members]
    if per_class is None:
        scan.order.sort()
    scan.skipped = [(found.sample_id[index], bad[index]) for index in sorted(bad)]
    unusable = found.unsupported + scan.skipped
    check_share(found.root, unusable, len(scan.order) + len(unusable), max_bad_share)
    for name, members in good.items():
        if not members:
            raise ImagesError(
                f"No image of the class {name} in {found.root} can be used "
                f"({len(queues[name])} looked at); repair them or leave the class out."
            )
    return scan


class Clashes:
    """Finds images of equal content under different labels: nobody knows which is right."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, list[int]]] = {}

    def add(self, index: int, label: str, digest: str) -> None:
        """Note an image: its index, its label and a hash of its content."""
        self._seen.setdefault(digest, {}).setdefault(label, []).append(index)

    def found(self, sample_id: Sequence[str]) -> dict[int, str]:
        """Return why each image of several labels cannot be used, by its index, ascending.

        Args:
            sample_id: Ids by index.
        """
        reasons = {}
        for labels in self._seen.values():
            for label, indices in labels.items() if len(labels) > 1 else ():
                other = next(name for name in labels if name != label)
                reason = f"({label}) is the same image as {sample_id[labels[other][0]]} ({other})"
                reasons.update(dict.fromkeys(indices, reason))
        return dict(sorted(reasons.items()))


def check_share(
    root: Path | str,
    unusable: list[tuple[str, str]],
    looked_at: int,
    max_bad_share: float,
    what: str = "image files",
) -> None:
    """Refuse a source of which too much cannot be used.

    Args:
        root: The source.
        unusable: (id, reason) of each such image.
        looked_at: Images that were looked at.
        max_bad_share: The largest share of them; a single one is survived, unless this is 0.
        what: What the images are.

    Raises:
        ImagesError: They are more.
    """
    allowed = max(1.0, max_bad_share * looked_at) if max_bad_share > 0 else 0
    if len(unusable) > allowed:
        shown = "; ".join(f"{name} {reason}" for name, reason in unusable[:3])
        more = f"; and {len(unusable) - 3:,} more" if len(unusable) > 3 else ""
        raise ImagesError(
            f"{len(unusable):,} of {looked_at:,} {what} in {root} cannot be used, more than "
            f"the share of {max_bad_share:g} allowed by max_bad_share: {shown}{more}."
        )


def _read_all(paths: Iterable[list[Path]]) -> Iterator[tuple[str, NDArray[np.uint8], bool] | str]:
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        # Size is checked by decode(); Pillow's other warnings concern metadata that is not used.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield from pool.map(_read_sample, paths)


def _read_sample(paths: list[Path]) -> tuple[str, NDArray[np.uint8], bool] | str:
    """What :func:`_read` returns of an image; of several the mean of their grey pixels."""
    read = [_read(path) for path in paths]
    good = [one for one in read if not isinstance(one, str)]
    if len(good) < len(read):
        number = next(k for k, one in enumerate(read) if isinstance(one, str))
        return f"{f'({paths[number].name}) ' if len(paths) > 1 else ''}{read[number]}"
    checksums, pixels, dark = zip(*good, strict=True)
    mean = pixels[0] if len(pixels) == 1 else np.rint(np.mean(pixels, axis=0)).astype(np.uint8)
    return checksum_of(checksums), mean, any(dark)


def _read(path: Path) -> tuple[str, NDArray[np.uint8], bool] | str:
    """Return checksum, grey pixels and whether they are dark, or why there are none."""
    try:
        data = read_image_bytes(path)
        image = decode(data)
        checksum = hashlib.sha256(data).hexdigest()
        return checksum, grey_pixels(image), NO_VALUE_ABOVE_12_BITS in image.info
    except BadImageError as error:
        return str(error)
