"""Which images two runs have both scored, and in which groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from signbridge.report.compare.runs import Run
from signbridge.statistics.few_groups import LEAST_GROUPS

__all__ = ["Pairing", "pair_up"]

_LEAST_GROUPS = 2


@dataclass(frozen=True)
class Pairing:
    """The images that two runs share.

    Attributes:
        rows: Rows of the two runs' predictions, each shape (n,), the same images in order.
        label: (n,) labels, in the first run's classes.
        group: (n,) groups; images that either run holds together are together.
        columns: Columns of the second run's probabilities in the order of the first's classes.
        note: What the reader should know, empty where all images are shared.
    """

    rows: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
    label: npt.NDArray[np.int64]
    group: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    note: str = ""


def pair_up(one: Run, two: Run) -> Pairing | str:
    """Find the images that two runs have both scored.

    Ids alone do not make images the same: two folders may both hold ``A/1.png``. So the runs must
    name the same source of images, the same classes, and the same label for each shared id.

    Args:
        one: A run.
        two: Another one.

    Returns:
        The pairing, or a sentence that says why there is none.
    """
    a, b = one.results.predictions, two.results.predictions
    both = f"{one.name} and {two.name}"
    if set(a.class_names) != set(b.class_names):
        return f"{both} have different classes: no paired differences."
    source_a, source_b = (r.results.provenance.get("image_source") for r in (one, two))
    same_images = (
        one.results.provenance.get("image_fingerprint")
        == two.results.provenance.get("image_fingerprint")
        is not None
    )
    if not same_images and source_a != source_b:
        return f"{both} come from different images ({source_a}, {source_b}): no paired differences."
    place = {sample: i for i, sample in enumerate(b.sample_id)}
    shared = [(i, place[s]) for i, s in enumerate(a.sample_id) if s in place]
    rows_a = np.array([i for i, _ in shared], dtype=np.int64)
    rows_b = np.array([j for _, j in shared], dtype=np.int64)
    scored = (a.fold[rows_a] >= 0) & (b.fold[rows_b] >= 0)
    rows_a, rows_b = rows_a[scored], rows_b[scored]
    if not len(rows_a):
        return f"{both} have scored no image in common: no paired differences."
    columns = np.array([b.class_names.index(name) for name in a.class_names], dtype=np.int64)
    label = a.label[rows_a]
    if (columns[label] != b.label[rows_b]).any():
        return f"{both} give the same images different labels: no paired differences."
    group = _joined(a.group[rows_a], b.group[rows_b])
    if len(np.unique(group)) < _LEAST_GROUPS:
        return f"{both} share images of a single group: no paired differences."
    notes = []
    n = len(rows_a)
    if n < max(int((a.fold >= 0).sum()), int((b.fold >= 0).sum())):
        notes.append(f"on the {n:,} images that both have scored")
    if len(np.unique(group)) < max(
        len(np.unique(a.group[rows_a])), len(np.unique(b.group[rows_b]))
    ) or not _same_partition(a.group[rows_a], b.group[rows_b]):
        notes.append("their groups differ, and images that either holds together are kept together")
    n_groups = len(np.unique(group))
    if n_groups < LEAST_GROUPS:
        notes.append(f"their {n_groups} groups permit no interval and no test")
    note = f"{both}: {'; '.join(notes)}." if notes else ""
    return Pairing((rows_a, rows_b), label, group, columns, note)


def _same_partition(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> bool:
    pairs = np.unique(np.stack([a, b]), axis=1).shape[1]
    return bool(pairs == len(np.unique(a)) == len(np.unique(b)))


def _joined(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Groups that are unions of the groups of both."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first = np.unique(a, return_inverse=True)[1]
    second = np.unique(b, return_inverse=True)[1]
    n, m = int(first.max()) + 1, int(second.max()) + 1
    graph = coo_array((np.ones(len(a)), (first, second + n)), shape=(n + m, n + m))
    component = connected_components(graph, directed=False)[1]
    return np.asarray(component[first], dtype=np.int64)
