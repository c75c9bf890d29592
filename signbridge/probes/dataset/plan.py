"""The splits of a sweep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from signbridge.errors import ProbeError
from signbridge.probes.config import SplitName, SweepConfig
from signbridge.probes.dataset.drawn_splits import inner_split, make_split
from signbridge.probes.dataset.features import store_labels
from signbridge.probes.dataset.given_splits import split_by_file
from signbridge.probes.dataset.splits import Split
from signbridge.runtime.words import counted

if TYPE_CHECKING:
    from signbridge.store import Store


@dataclass(frozen=True, eq=False)
class Plan:
    """The splits of a sweep: the main one, the random comparison, and their inner folds."""

    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    main: Split
    inner: tuple[Split | None, ...]
    random: Split | None
    random_inner: tuple[Split | None, ...]
    warnings: tuple[str, ...]


def make_plan(config: SweepConfig, store: Store) -> Plan:
    """Split a store as the config says.

    Raises:
        ProbeError: the store cannot be split so.
    """
    labels = store_labels(store)
    groups = np.asarray(store.groups, dtype=np.int64)

    def inner(split: Split) -> tuple[Split | None, ...]:
        return tuple(
            inner_split(
                train,
                labels,
                groups,
                split=split.name,
                folds=config.inner_folds,
                seed=config.seed,
            )
            for train, _ in split
        )

    def split(kind: SplitName) -> Split:
        if kind == "file":
            file = config.split_file or ""
            return split_by_file(file, store.sample_ids, labels, groups, store.class_names)
        return make_split(
            labels,
            groups,
            split=kind,
            folds=config.folds,
            seed=config.seed,
            class_names=store.class_names,
            source_splits=store.source_splits,
        )

    main = split(config.split)
    notes = list(main.warnings)
    comparison: Split | None = None
    if config.split == "grouped" and config.compare_random:
        try:
            comparison = split("random")
        except ProbeError as error:
            notes.append(f"no random split to compare with: {error}")
    n_groups = len(np.unique(groups[main.fold_of_sample >= 0]))
    if n_groups < 20:
        notes.append(
            f"the intervals are too narrow: {counted(n_groups, 'group')} to draw from are few for "
            "a bootstrap over groups; add groups."
        )
    return Plan(
        labels=labels,
        groups=groups,
        main=main,
        inner=inner(main),
        random=comparison,
        # The comparison chooses no layer, so a single C leaves nothing to choose in it.
        random_inner=(
            ()
            if comparison is None
            else inner(comparison)
            if len(config.penalties) > 1
            else (None,) * len(comparison)
        ),
        warnings=tuple(notes),
    )
