"""The splits of a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from signbridge.errors import ProbeError
from signbridge.probes.config import SplitName, SweepConfig
from signbridge.probes.dataset.features import store_labels
from signbridge.probes.dataset.splits import Split, inner_split, make_split
from signbridge.runtime.words import counted
from signbridge.statistics.few_groups import LEAST_GROUPS

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


def check_split(
    config: SweepConfig,
    labels: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
    class_names: Sequence[str],
    sample_ids: Sequence[str],
    source_splits: Sequence[str],
) -> None:
    """Refuse images that cannot be split as the config says, before anything is extracted.

    Raises:
        ProbeError: as :func:`make_plan` and the choice of C would of the store made from them.
    """
    main = _split(config, config.split, labels, groups, class_names, sample_ids, source_splits)
    if len(config.penalties) > 1:
        for number, inner in enumerate(_inner(config, main, labels, groups)):
            if inner is None:
                raise too_small(number)


def folds_of(config: SweepConfig, groups: npt.NDArray[np.int64]) -> int | Literal["groups"]:
    """Return the number of folds, or ``groups``, where ``auto`` may have been asked for.

    Args:
        config: what was asked for.
        groups: the group of each sample.
    """
    if isinstance(config.folds, int) or config.folds == "groups":
        return config.folds
    few = config.split == "grouped" and 1 < len(np.unique(groups)) < _FOLDS
    return "groups" if few else _FOLDS


def too_small(fold: int) -> ProbeError:
    """The error of a training part in which no inner fold can be made to choose C."""
    return ProbeError(
        f"the training part of fold {fold} is too small to choose C inside it; give one value of C."
    )


_FOLDS = 5
FEWER_GROUPS = f"there are fewer groups than {_FOLDS} folds, so each is held out in turn."
"""What is said where ``auto`` makes a fold of each group."""


def make_plan(config: SweepConfig, store: Store) -> Plan:
    """Split a store as the config says.

    Raises:
        ProbeError: the store cannot be split so.
    """
    labels = store_labels(store)
    groups = np.asarray(store.groups, dtype=np.int64)
    samples = labels, groups, store.class_names, store.sample_ids, store.source_splits
    main = _split(config, config.split, *samples)
    notes = [*main.warnings, *_notes_on_store(store)]
    comparison: Split | None = None
    random_inner: tuple[Split | None, ...] = ()
    if config.split == "grouped" and config.compare_random:
        try:
            comparison = _split(config, "random", *samples)
        except ProbeError as error:
            notes.append(f"no random split to compare with: {error}")
    if comparison is not None:
        # The comparison chooses no layer, so a single C leaves nothing to choose in it.
        random_inner = (None,) * len(comparison)
        if len(config.penalties) > 1:
            random_inner = _inner(config, comparison, labels, groups)
    n_groups = len(np.unique(groups[main.fold_of_sample >= 0]))
    if n_groups < LEAST_GROUPS:
        notes.append(
            f"{counted(n_groups, 'group')} {'permits' if n_groups == 1 else 'permit'} no interval "
            "and no test of a difference: what is told holds for these images alone; add groups."
        )
    inner = _inner(config, main, labels, groups)
    return Plan(labels, groups, main, inner, comparison, random_inner, tuple(notes))


def _notes_on_store(store: Store) -> Iterator[str]:
    """What of a store's images and model makes its scores say less than they seem to."""
    names = store.class_names
    seen: dict[str, dict[int, int]] = {}
    rows = zip(store.image_sha256, store.labels.tolist(), strict=True)
    for row, (digest, label) in enumerate(rows):
        if digest:
            seen.setdefault(digest, {}).setdefault(label, row)
    double = [list(labels.values())[:2] for labels in seen.values() if len(labels) > 1]
    if double:
        places = [f"{store.sample_ids[k]} ({names[store.labels[k]]})" for k in double[0]]
        stand = "stands" if len(double) == 1 else "stand"
        yield (
            f"{counted(len(double), 'image')} {stand} under two classes, such as "
            f"{' and '.join(places)}: no probe can have both right; extract again, which leaves "
            "such images out."
        )
    left_out = store.provenance.get("forced_choice_left_out")
    if isinstance(left_out, str):
        yield left_out
    notes = store.info.get("model_notes")
    yield from map(str, notes if isinstance(notes, list) else ())
    signers = store.provenance.get("signers")
    if isinstance(signers, int) and signers > 1 and store.group_names is None:
        yield (
            f"the images are of {signers:,} signers, whom the groups do not keep apart: held-out "
            "images are of signers that a probe was trained on; extract with --groups signer to "
            "see how it reads others."
        )


def _split(
    config: SweepConfig,
    kind: SplitName,
    labels: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
    class_names: Sequence[str],
    sample_ids: Sequence[str],
    source_splits: Sequence[str],
) -> Split:
    """Split as the config says; ``kind`` is its split or the one to compare with."""
    folds = folds_of(config, groups)
    if folds == "groups" and kind != "grouped":
        # As many folds, so that training parts are as large.
        folds = max(2, min(len(np.unique(groups)), int(np.bincount(labels).max())))
    return make_split(
        labels,
        groups,
        split=kind,
        folds=folds,
        seed=config.seed,
        class_names=class_names,
        source_splits=source_splits,
        sample_ids=sample_ids,
        split_file=config.split_file,
    )


def _inner(
    config: SweepConfig,
    split: Split,
    labels: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
) -> tuple[Split | None, ...]:
    """The inner folds of each training part, or None where it is too small for any."""
    return tuple(
        inner_split(
            train, labels, groups, split=split.name, folds=config.inner_folds, seed=config.seed
        )
        for train, _ in split
    )
