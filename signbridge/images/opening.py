"""From what the user names to an :class:`~signbridge.images.ImageSet`."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from signbridge.errors import ImagesError
from signbridge.images.decode import EXTENSIONS, OTHER_IMAGE_EXTENSIONS
from signbridge.images.groups import (
    DEFAULT_THRESHOLD,
    consecutive,
    near_duplicate_groups,
    read_groups,
)
from signbridge.images.imageset import ImageSet
from signbridge.images.sampling import choose_classes, notes_on_counts, queues
from signbridge.images.scan import scan_files
from signbridge.images.sources import SOURCES, Candidates
from signbridge.runtime.progress import Progress
from signbridge.runtime.words import counted, listed, some

_LAYOUTS = {"signer": "class/signer", "signer/class": "signer/class"}


def open_images(
    spec: str | Path,
    *,
    classes: int | Sequence[str] | None = None,
    per_class: int | None = None,
    seed: int = 42,
    max_bad_share: float = 0.05,
    groups: str | Path = "near_duplicates",
    duplicate_threshold: float = DEFAULT_THRESHOLD,
    progress: Progress | None = None,
) -> ImageSet:
    """Find labelled images and choose among them.

    The choice follows the original study: the most common ``classes``, then sorted; with
    ``per_class``, each class shuffled by ``random.Random(seed)`` in sorted class order and its
    first ``per_class`` kept, class by class. Without ``per_class`` the order is the source's.

    Args:
        spec: ``"sample"`` (bundled), a CSV file of the Kaggle layout, a folder with
            ``sign_mnist_train.csv`` and/or ``sign_mnist_test.csv`` (other CSV files in it are left
            out), or a folder of class folders, optionally below ``train``, ``val``, ``test``.
        classes: How many of the most common classes, or which; all by default.
        per_class: How many images of each class; all by default. A class that has fewer keeps
            all it has.
        seed: Seed of the choice.
        max_bad_share: Largest share of image files that may be unusable (they are skipped and
            listed in ``skipped``); a single one is always survived, unless this is 0.
        groups: ``"near_duplicates"``; ``"signer"`` for folders ``class/signer/image``;
            ``"signer/class"`` for folders ``signer/class/image``, both refused where the folders'
            names say the opposite; ``"none"``, every image
            its own group; or a CSV file with the columns ``sample_id,group``.
        duplicate_threshold: Correlation from which two images are near-duplicates. In a CSV source
            they are looked for among all rows, so that a group does not depend on the choice; in a
            folder among the chosen images, the only ones that are read.
        progress: Called with (files read, files to read) while a folder is scanned.

    Returns:
        The images in their final order.

    Raises:
        ImagesError: The source, an argument or too many of the images cannot be used.
    """
    spec, groups = str(spec), str(groups)
    _check_groups(groups, duplicate_threshold)
    found = _find(spec, _LAYOUTS.get(groups, "class"))
    if found.root is None and groups in _LAYOUTS:
        raise ImagesError(
            f"groups is {groups!r}, but {spec} says nothing of signers; choose near_duplicates, "
            "none or a CSV file with the columns sample_id,group."
        )
    if isinstance(classes, str):
        classes = [classes]
    if not 0 <= max_bad_share <= 1:
        raise ImagesError(f"--max_bad_share is {max_bad_share}; give a share from 0 to 1.")
    if not 0 <= seed < 2**32:
        raise ImagesError(f"--seed is {seed}; give a number from 0 to 4294967295.")
    class_names = choose_classes(found.label, classes)
    members = queues(found.label, class_names, per_class, seed)
    skipped = list(found.unsupported)
    whole: NDArray[np.uint8] | None = None
    dark_notes: list[str] = []
    if found.pixels is not None:
        order = [i for rows in members.values() for i in rows[:per_class]]
        if per_class is None:
            order.sort()
        whole, pixels = found.pixels, found.pixels[order]
        checksums = [hashlib.sha256(row.tobytes()).hexdigest() for row in pixels]
    else:
        scan = scan_files(found, members, per_class, max_bad_share, progress)
        order = scan.order
        pixels = np.stack([scan.pixels[i] for i in order])
        checksums = [scan.sha256[i] for i in order]
        skipped += scan.skipped
        dark_notes = _notes_on_depth([found.sample_id[i] for i in order if i in scan.dark])
    labels = [found.label[i] for i in order]
    counts = Counter(labels)
    notes = found.notes + notes_on_counts({name: counts[name] for name in class_names}, per_class)
    notes += dark_notes
    sample_id = [found.sample_id[i] for i in order]
    named: list[str] | None = None
    if groups == "near_duplicates":
        if whole is None:
            group = near_duplicate_groups(pixels, duplicate_threshold)
        else:
            group = consecutive(near_duplicate_groups(whole, duplicate_threshold)[order].tolist())
        notes += _notes_on_groups(group)
        grouping = f"near_duplicates {duplicate_threshold:g}"
    elif found.signer is not None:
        named, grouping = [found.signer[i] for i in order], _LAYOUTS[groups]
    elif groups == "none":
        group, grouping = np.arange(len(order), dtype=np.int64), "none"
    else:
        named, grouping = read_groups(Path(groups), sample_id), Path(groups).name
    if named is not None:
        group = consecutive(named)
    return ImageSet(
        name=found.name,
        class_names=class_names,
        sample_id=sample_id,
        label=np.array([class_names.index(label) for label in labels], dtype=np.int64),
        source_split=[found.source_split[i] for i in order],
        image_sha256=checksums,
        pixels=pixels,
        group=group,
        group_names=None if named is None else tuple(dict.fromkeys(named)),
        root=found.root,
        seed=seed,
        classes=classes if classes is None or isinstance(classes, int) else class_names,
        per_class=per_class,
        grouping=grouping,
        skipped=skipped,
        notes=notes,
    )


def _check_groups(groups: str, duplicate_threshold: float) -> None:
    known = {"near_duplicates", "none", *_LAYOUTS}
    if groups not in known and not Path(groups).is_file():
        raise ImagesError(
            f"groups is {groups!r}, which is neither a CSV file nor one of "
            f"{', '.join(sorted(known))}."
        )
    if not 0 < duplicate_threshold <= 1:
        raise ImagesError(
            f"duplicate_threshold is {duplicate_threshold}; give a correlation above 0 and up to "
            f"1, such as {DEFAULT_THRESHOLD}."
        )


def _find(spec: str, layout: str) -> Candidates:
    try:
        path = Path(spec).expanduser()
        exists, is_file = bool(spec) and path.exists(), path.is_file()
    except (OSError, RuntimeError, ValueError) as error:
        raise ImagesError(f"{spec!r} cannot be looked up ({error}); check the path.") from None
    if is_file and path.suffix.lower() in {".zip", ".gz", ".tar", ".7z"}:
        raise ImagesError(f"{spec} is an archive; unpack it and give the folder or CSV file.")
    if is_file and path.suffix.lower() in EXTENSIONS | OTHER_IMAGE_EXTENSIONS:
        raise ImagesError(
            f"{spec} is a single image; give the folder that holds one folder of images for each "
            "class."
        )
    for source in SOURCES:
        if spec and source.matches(spec, path):
            return source.read(path, layout)
    if not exists:
        known = listed([source.WHAT for source in SOURCES], "or")
        raise ImagesError(f"{spec!r} does not exist; give {known}.")
    raise ImagesError(f"{spec} is neither a file nor a folder; give one of them.")


def _notes_on_depth(dark: list[str]) -> list[str]:
    if not dark:
        return []
    has = "image has" if len(dark) == 1 else "images have"
    return [
        f"{len(dark):,} {has} 16 bits a value and none above 4,095 ({some(dark, 1)}), and so come "
        "out with little contrast: if they hold 12 bits, save them again with values times 16."
    ]


def _notes_on_groups(group: NDArray[np.int64]) -> list[str]:
    sizes = np.bincount(group)
    if len(sizes) == len(group):
        return []
    return [
        f"{len(group):,} images in {counted(len(sizes), 'group')} of near-duplicates, the largest "
        f"of {sizes.max():,}."
    ]
