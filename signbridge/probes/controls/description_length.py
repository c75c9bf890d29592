r"""Online description length: what it costs to send the labels to someone who has the features.

The samples come in blocks. The first block's labels are sent with a code in which all K classes are
alike; those of each other block with the probabilities of a probe trained on all blocks before it.
A feature from which few images suffice to learn the labels gives a short code.

.. math:: L = t_1 \log_2 K - \sum_{i \ge 1} \log_2 p_{\theta_i}(y_{t_i + 1 : t_{i + 1}} \mid x)

Source: Voita & Titov 2020, "Information-Theoretic Probing with Minimum Description Length"
(arXiv 2003.12298), section 2.2. Here blocks are whole groups, they double in size, and none is
smaller than a group per class.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from signbridge.probes.controls.measurement import FITS, Measurement, Part, Sweep
from signbridge.probes.dataset.splits import IntArray
from signbridge.probes.engines import Record, not_converged, records_of, work_of
from signbridge.results.summary import DescriptionLength
from signbridge.runtime.words import counted
from signbridge.statistics.bootstrap import Interval, mean_interval
from signbridge.statistics.few_groups import FEW_GROUPS

if TYPE_CHECKING:
    from typing_extensions import Self

    from signbridge.probes.dataset.features import FeatureSource
    from signbridge.probes.engines import Engine
    from signbridge.probes.feature_result import FeatureResult
    from signbridge.probes.scoring import Row, ScoredSweep

FINEST = 10
"""The first block holds at least this power of a half of the groups: their 0.1 %."""

_STREAM = 3  # keeps these draws apart from others of the same seed
_TINY = float(np.finfo(np.float32).tiny)  # what a probability rounds to at least


@dataclass(frozen=True, eq=False)
class OnlineOrder:
    """Samples in the order in which they are sent.

    Attributes:
        blocks: sample indices of each block, sorted within it.
        n_groups: number of groups in each block.
        n_classes: number of classes that occur, K.
    """

    blocks: tuple[IntArray, ...]
    n_groups: tuple[int, ...]
    n_classes: int

    @property
    def folds(self) -> list[tuple[IntArray, IntArray]]:
        """For each block but the first what is trained on, and the block."""
        return [
            (np.sort(np.concatenate(self.blocks[:k])), self.blocks[k])
            for k in range(1, len(self.blocks))
        ]

    @property
    def rows(self) -> IntArray:
        """All samples that are sent, sorted."""
        return np.sort(np.concatenate(self.blocks))


@dataclass(frozen=True, eq=False)
class CodeLength:
    """Code lengths of several features.

    Attributes:
        bits: bits of each sample's label, shape (n_layers, n_sent), samples as in
            :attr:`OnlineOrder.rows`. The choice of C is paid for in equal parts by all.
        C: the value that gives the shortest code, shape (n_layers,).
        not_converged: a record for each fit that missed its tolerance.
    """

    bits: npt.NDArray[np.float64]
    C: npt.NDArray[np.float64]
    not_converged: list[Record] = field(default_factory=list)


def online_order(
    labels: npt.ArrayLike,
    groups: npt.ArrayLike,
    rows: npt.ArrayLike | None = None,
    *,
    seed: int = 42,
) -> OnlineOrder | None:
    """Put groups in random order and cut them into blocks that double in size.

    Blocks end after 1/2, 1/4, 1/8, ... of the groups (at most ten halvings), as long as a block
    before the first end holds as many groups as there are classes.

    Args:
        labels: class indices, shape (n_samples,).
        groups: group of each sample, shape (n_samples,).
        rows: the samples to send; all by default.
        seed: seed of the order.

    Returns:
        The order, or None where half of the groups hold fewer than two classes.
    """
    y, g = np.asarray(labels, dtype=np.int64), np.asarray(groups)
    rows = np.arange(len(y)) if rows is None else np.sort(np.asarray(rows, dtype=np.int64))
    g = np.unique(g[rows], return_inverse=True)[1]
    n_groups, n_classes = int(g.max()) + 1, len(np.unique(y[rows]))
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_STREAM,)))
    place = np.empty(n_groups, dtype=np.int64)
    place[generator.permutation(n_groups)] = np.arange(n_groups)
    ends = [n_groups]
    for power in range(1, FINEST + 1):
        end = math.ceil(n_groups / 2**power)
        enough = power == 1 or end >= n_classes
        if not enough or end >= ends[0] or len(np.unique(y[rows[place[g] < end]])) < 2:
            break
        ends.insert(0, end)
    if len(ends) < 2:
        return None
    starts = [0, *ends[:-1]]
    blocks = [
        rows[(place[g] >= start) & (place[g] < end)]
        for start, end in zip(starts, ends, strict=True)
    ]
    counts = [end - start for start, end in zip(starts, ends, strict=True)]
    return OnlineOrder(tuple(blocks), tuple(counts), n_classes)


def code_lengths(
    engine: Engine,
    source: FeatureSource,
    labels: IntArray,
    n_classes: int,
    order: OnlineOrder,
    penalties: Sequence[float],
) -> CodeLength:
    """Send the labels with each feature.

    A class of which the probe has seen nothing has probability 0, and a code must be able to name
    it. With A such classes of the K, and G groups trained on, each of them has the share
    1 / (G + A) and the probe's probabilities are multiplied by G / (G + A), as a compressor escapes
    to new symbols; where A = 0 they are the probe's.

    Of several values of C the one whose code is shortest is taken for the whole code, which costs
    the bits that name it.

    Args:
        engine: what fits.
        source: the features.
        labels: class indices of all samples, shape (n_samples,).
        n_classes: number of classes of the store.
        order: the blocks.
        penalties: values of C.
    """
    rows = order.rows
    bits = np.empty((len(source), len(penalties), len(rows)))
    bits[:, :, np.searchsorted(rows, order.blocks[0])] = math.log2(order.n_classes)
    folds, missed = order.folds, []
    for held in engine.held_out(source, labels, n_classes, folds, penalties):
        train, block = folds[held.fold]
        y = labels[block]
        own = np.take_along_axis(held.probability, y[None, None, :, None], axis=3)[..., 0]
        cost = -np.log2(np.maximum(own.astype(np.float64), _TINY))
        seen = np.isin(y, labels[train])
        absent = order.n_classes - len(np.unique(labels[train]))
        before = sum(order.n_groups[: held.fold + 1])
        cost[..., ~seen] = 0.0
        cost[..., seen] -= math.log2(before / (before + absent))
        cost[..., ~seen] += math.log2(before + absent)
        bits[:, :, np.searchsorted(rows, block)] = cost
        for layer, penalty in np.argwhere(~held.converged):
            missed.append(
                not_converged(
                    source.features[layer],
                    split=None,
                    fold=held.fold,
                    part="description length",
                    C=penalties[penalty],
                    relative_tolerance=held.relative_tolerance[layer, penalty],
                )
            )
    pick = bits.sum(-1).argmin(-1)
    chosen = bits[np.arange(len(source)), pick] + math.log2(len(penalties)) / len(rows)
    return CodeLength(chosen, np.asarray(penalties, dtype=np.float64)[pick], missed)


class OnlineCode(Measurement):
    """The online description length of every feature.

    Args:
        sweep: the sweep that it belongs to.
        order: the blocks in which the labels are sent.
    """

    name = "description_length"

    def __init__(self, sweep: Sweep, order: OnlineOrder) -> None:
        super().__init__(sweep)
        self.order = order

    @classmethod
    def planned(cls, sweep: Sweep) -> tuple[Self | None, list[str]]:
        """See :class:`Measurement`."""
        if not sweep.config.description_length:
            return None, []
        plan = sweep.plan
        n_groups = len(np.unique(plan.groups[plan.main.used]))
        if n_groups < FEW_GROUPS:
            return None, [
                "the description length was not measured: labels are sent by whole groups, and of "
                f"{counted(n_groups, 'group')} a code has too few blocks to tell how fast a probe "
                f"learns; {FEW_GROUPS} or more are needed."
            ]
        order = online_order(plan.labels, plan.groups, plan.main.used, seed=sweep.config.seed)
        if order is not None:
            return cls(sweep, order), []
        return None, [
            "the description length was not measured: half of the groups hold fewer than two "
            "classes; add groups."
        ]

    def work(self, width: int) -> tuple[str, float]:
        """See :class:`Measurement`."""
        parts, n_classes = (
            [train for train, _ in self.order.folds],
            len(self.sweep.store.class_names),
        )
        return FITS, work_of(parts, width, n_classes, len(self.sweep.config.penalties))

    def compute(self, source: FeatureSource, results: Sequence[FeatureResult]) -> Iterable[Part]:
        """See :class:`Measurement`."""
        found = code_lengths(
            self.sweep.engine,
            source,
            self.sweep.plan.labels,
            len(self.sweep.store.class_names),
            self.order,
            self.sweep.config.penalties,
        )
        for number, feature in enumerate(source.features):
            arrays = {"bits": found.bits[number], "C": np.asarray(found.C[number])}
            yield arrays, records_of(feature, found.not_converged)

    def rows(self, scored: ScoredSweep) -> Iterator[Row]:
        """Bits a label, and how much shorter that is than the uniform code."""
        uniform, config = math.log2(self.order.n_classes), self.sweep.config
        groups = self.sweep.plan.groups[self.order.rows]
        cells = {
            "n_train": None,
            "n_test": len(self.order.rows),
            "n_classes": self.order.n_classes,
        }
        for feature, part in self.parts.items():
            bits = mean_interval(
                part["bits"], groups, repetitions=config.bootstrap, seed=config.seed
            )
            shorter = Interval(uniform / bits.value, uniform / bits.high, uniform / bits.low)
            for metric, interval in (("description_length", bits), ("compression", shorter)):
                yield scored.main.row(feature, metric, interval, float(part["C"].item()), **cells)

    def summary(self, scored: ScoredSweep) -> Mapping[str, Any]:
        """See :class:`Measurement`."""
        return {
            "description_length": DescriptionLength(
                blocks=tuple(len(block) for block in self.order.blocks),
                groups=tuple(self.order.n_groups),
                uniform=math.log2(self.order.n_classes),
                order="whole groups in random order; the first block is sent with a uniform code, "
                "each other with the probabilities of a probe of all blocks before it",
            )
        }
