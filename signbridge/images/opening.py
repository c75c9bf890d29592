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
    check_complete,
    consecutive,
    groups_by_pattern,
    near_duplicate_groups,
    read_groups,
)
from signbridge.images.imageset import ImageSet
from signbridge.images.layout import differing_in_case
from signbridge.images.sampling import choose_classes, notes_on_counts, queues
from signbridge.images.scan import Clashes, check_share, scan_files
from signbridge.images.sources import SOURCES, Asked, Candidates
from signbridge.runtime.progress import Progress
from signbridge.runtime.words import composed, counted, listed, some

_SIGNERS = ("signer", "signer/class")


def open_images(
    spec: str | Path,
    *,
    classes: int | Sequence[str] | None = None,
    per_class: int | None = None,
    seed: int = 42,
    max_bad_share: float = 0.05,
    groups: str | Path = "near_duplicates",
    layout: str | None = None,
    duplicate_threshold: float = DEFAULT_THRESHOLD,
    progress: Progress | None = None,
) -> ImageSet:
    r"""Find labelled images and choose among them.

    The choice follows the original study: the most common ``classes``, then sorted; with
    ``per_class``, each class shuffled by ``random.Random(seed)`` in sorted class order and its
    first ``per_class`` kept, class by class. Without ``per_class`` the order is the source's.

    Args:
        spec: ``"sample"`` (bundled), a CSV file of the Kaggle layout, a folder with
            ``sign_mnist_train.csv`` and/or ``sign_mnist_test.csv`` (other CSV files in it are left
            out), or a folder of folders of images.
        classes: How many of the most common classes, or which; all by default.
        per_class: How many images of each class; all by default. A class that has fewer keeps
            all it has.
        seed: Seed of the choice.
        max_bad_share: Largest share of image files that may be unusable (they are skipped and
            listed in ``skipped``); a single one is always survived, unless this is 0.
        groups: ``"near_duplicates"``; ``"signer"``, of whatever layout; ``"signer/class"`` for
            folders ``signer/class/image``, refused where the folders' names say otherwise;
            ``"none"``, every image its own group; a CSV file with the columns ``sample_id,group``;
            or a regular expression that finds the group in the ids, such as ``hand(\d+)_``.
        layout: What each level of a folder is, such as ``split/signer/class``, or how the files
            are named, ``hand{signer}_{class}_*``, as :mod:`signbridge.images.layout` has it; found
            by the names by default.
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
    found = _find(spec, Asked(layout, groups))
    if found.root is None and (layout or groups in _SIGNERS):
        raise ImagesError(
            f"--layout is {layout!r}, but {spec} has no folders; leave it out."
            if layout
            else f"groups is {groups!r}, but {spec} says nothing of signers; choose "
            "near_duplicates, none or a CSV file with the columns sample_id,group."
        )
    if isinstance(classes, str):
        classes = [classes]
    if classes is not None and not isinstance(classes, int):
        classes = [composed(name) for name in classes]
    if not 0 <= max_bad_share <= 1:
        raise ImagesError(f"--max_bad_share is {max_bad_share}; give a share from 0 to 1.")
    if not 0 <= seed < 2**32:
        raise ImagesError(f"--seed is {seed}; give a number from 0 to 4294967295.")
    class_names = choose_classes(found.label, classes)
    named, grouping = _named_groups(groups, found)
    members = queues(found.label, class_names, per_class, seed, named or found.signer)
    skipped = list(found.unsupported)
    whole: NDArray[np.uint8] | None = None
    dark_notes: list[str] = []
    if found.pixels is not None:
        skipped += _leave_out_contradictions(found, members, max_bad_share, spec)
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
    group_names: tuple[str, ...] | None = None
    if groups == "near_duplicates":
        if whole is None:
            group = near_duplicate_groups(pixels, duplicate_threshold)
        else:
            group = consecutive(near_duplicate_groups(whole, duplicate_threshold)[order].tolist())
        notes += _notes_on_groups(group)
        grouping = f"near_duplicates {duplicate_threshold:g}"
    elif groups == "none":
        group, grouping = np.arange(len(order), dtype=np.int64), "none"
    else:
        if named is None:  # a file that need not name what is not used
            of_sample = check_complete(
                read_groups(Path(groups), sample_id), Path(groups), sample_id
            )
        else:
            of_sample = [named[i] for i in order]
        group, group_names = consecutive(of_sample), tuple(dict.fromkeys(of_sample))
        for same in differing_in_case(group_names):
            notes.append(f"The groups {same} differ in case alone: each is one of its own.")
    signers = len(group_names) if group_names is not None else None
    if found.signer is not None:
        names = sorted({found.signer[i] for i in order})
        signers = signers or len(names)
        if group_names is None and len(names) > 1:
            notes.append(
                f"The images are of {counted(len(names), 'signer')} ({some(names)}), and --groups "
                f"{groups} does not keep them apart: held-out images are of signers that a probe "
                "was trained on; give --groups signer to see how it reads others."
            )
    return ImageSet(
        name=found.name,
        class_names=class_names,
        sample_id=sample_id,
        label=np.array([class_names.index(label) for label in labels], dtype=np.int64),
        source_split=[found.source_split[i] for i in order],
        image_sha256=checksums,
        pixels=pixels,
        group=group,
        group_names=group_names,
        root=found.root,
        files=None if found.files is None else tuple(found.files[i] for i in order),
        seed=seed,
        classes=classes if classes is None or isinstance(classes, int) else class_names,
        per_class=per_class,
        grouping=grouping,
        layout=found.layout,
        signers=signers,
        skipped=skipped,
        notes=notes,
    )


def _check_groups(groups: str, duplicate_threshold: float) -> None:
    known = {"near_duplicates", "none", *_SIGNERS}
    if groups not in known and not _is_pattern(groups) and not Path(groups).is_file():
        raise ImagesError(
            f"groups is {groups!r}, which is neither a CSV file, nor a regular expression with a "
            f"group in brackets, nor one of {', '.join(sorted(known))}."
        )
    if not 0 < duplicate_threshold <= 1:
        raise ImagesError(
            f"duplicate_threshold is {duplicate_threshold}; give a correlation above 0 and up to "
            f"1, such as {DEFAULT_THRESHOLD}."
        )


def _is_pattern(groups: str) -> bool:
    return "(" in groups and not Path(groups).is_file()


def _named_groups(groups: str, found: Candidates) -> tuple[list[str] | None, str]:
    """Names of the groups of all candidates, where something gives them, and how it is called."""
    if groups in _SIGNERS:
        return found.signer, found.grouping
    if groups in ("near_duplicates", "none"):
        return None, groups
    if _is_pattern(groups):
        return groups_by_pattern(groups, found.sample_id), f"pattern {groups}"
    path = Path(groups)
    given = read_groups(path, found.sample_id)
    complete = all(sample in given for sample in found.sample_id)
    return [given[sample] for sample in found.sample_id] if complete else None, path.name


def _leave_out_contradictions(
    found: Candidates, members: dict[str, list[int]], max_bad_share: float, spec: str
) -> list[tuple[str, str]]:
    """Take rows that stand in a table under several labels out of the classes' queues.

    Raises:
        ImagesError: They are too many, or all of a class.
    """
    assert found.pixels is not None
    rows = [i for queue in members.values() for i in queue]
    clashes = Clashes()
    for i in sorted(rows):
        clashes.add(i, found.label[i], hashlib.sha256(found.pixels[i].tobytes()).hexdigest())
    bad = clashes.found(found.sample_id)
    unusable = [(found.sample_id[i], bad[i]) for i in bad]
    check_share(spec, unusable, len(rows), max_bad_share, "rows")
    for name, queue in members.items():
        queue[:] = [i for i in queue if i not in bad]
        if not queue:
            raise ImagesError(f"Every image of the class {name} in {spec} has another label too.")
    return unusable


def _find(spec: str, asked: Asked) -> Candidates:
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
            return source.read(path, asked)
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
