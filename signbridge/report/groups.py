"""The groups of a results folder by name, and what each of a few of them scores."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from signbridge.runtime.words import counted
from signbridge.statistics.few_groups import FEW_GROUPS, LEAST_GROUPS, flips_can_tell
from signbridge.store.provenance import grouping

if TYPE_CHECKING:
    from signbridge.results.results import Results

__all__ = ["Groups", "few_accuracies", "few_names", "group_name", "groups_of"]


@dataclass(frozen=True, eq=False)
class Groups:
    """The groups of the images that the main split scores.

    Attributes:
        number: group numbers, ascending.
        n_images: images in them.
        rows: rows of the predictions of each, where there are few; else empty.
        words: how many there are: "5 signers".
    """

    number: tuple[int, ...]
    n_images: int
    rows: tuple[npt.NDArray[np.int64], ...]
    words: str

    @property
    def few(self) -> bool:
        """Whether each is to be told by name: few, and not single images."""
        return 1 < len(self.number) < min(FEW_GROUPS, self.n_images)

    @property
    def too_few(self) -> bool:
        """Whether they permit no interval and no test."""
        return len(self.number) < LEAST_GROUPS

    @property
    def flips(self) -> bool:
        """Whether differences are tested by sign flips, and not by Student's t."""
        return flips_can_tell(len(self.number))

    @property
    def permit_nothing(self) -> str:
        """That they are too few, as a clause."""
        return f"{self.words} {'permits' if len(self.number) == 1 else 'permit'}"


def groups_of(results: Results) -> Groups:
    """The groups that the main split scores."""
    p = results.predictions
    scored = np.flatnonzero(p.fold >= 0)
    number = np.unique(p.group[scored])
    few = number if len(number) < FEW_GROUPS else number[:0]
    rows = [scored[p.group[scored] == one] for one in few]
    words = grouping(results.provenance)
    one = words.one.partition(" ")[2]
    many = counted(len(number), one, words.many)
    return Groups(tuple(number.tolist()), len(scored), tuple(rows), many)


def group_name(results: Results, number: int, rows: npt.NDArray[np.int64]) -> str:
    """Name of a group, such as a signer's; empty where it has none.

    Stores made before groups had names have signers in the folders of the ids.

    Args:
        results: A results folder.
        number: The group's number.
        rows: Rows of its images.
    """
    p = results.predictions
    if p.group_names is not None:
        return p.group_names[number]
    levels = str(results.provenance.get("groups") or "").split("/")
    names = set()
    for row in rows.tolist() if sorted(levels) == ["class", "signer"] else ():
        known = results.class_names[p.label[row]]
        # A folder of the data's own split may lie above.
        for pair in itertools.pairwise(p.sample_id[row].split("/")[:3]):
            place = dict(zip(levels, pair, strict=True))
            if place["class"] == known:
                names.add(place["signer"])
                break
    return names.pop() if len(names) == 1 else ""


def few_accuracies(results: Results, feature: str) -> dict[str, float]:
    """Held-out accuracy of each of a few groups, by its name; empty where there are many.

    Args:
        results: A results folder.
        feature: A feature of the predictions, such as ``resid_post/5``.
    """
    found, p = groups_of(results), results.predictions
    if not found.few or feature not in p.feature_names:
        return {}
    right = p.predicted(feature) == p.label
    return {
        name: float(right[rows].mean())
        for name, rows in zip(few_names(results), found.rows, strict=True)
    }


def few_names(results: Results) -> list[str]:
    """Names of a few groups, in the order of their numbers; empty where there are many."""
    found = groups_of(results)
    if not found.few:
        return []
    return [
        group_name(results, number, rows) or f"group {number}"
        for number, rows in zip(found.number, found.rows, strict=True)
    ]
