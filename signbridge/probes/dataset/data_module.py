"""An activation store as a LightningDataModule: split, standardisation, batches of all layers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from signbridge.errors import ProbeError
from signbridge.probes.config import SplitName
from signbridge.probes.dataset.batches import Batch, BatchOrder, own_rows, spans
from signbridge.probes.dataset.features import (
    MEMORY_BYTES,
    FeatureSource,
    select_features,
    store_labels,
)
from signbridge.probes.dataset.splits import IntArray, Split, make_split, validation_part
from signbridge.probes.dataset.standardise import Standardisation, alone, standardisation_of
from signbridge.results.features import Feature
from signbridge.store import CHUNK_ROWS

if TYPE_CHECKING:
    from signbridge.store import Store

_ROUND_STEPS = 20
"""Fewest batches between two measurements of the whole training part."""
_EPOCH_STEPS = 500
"""Most batches of a Lightning epoch, after which a checkpoint may be written."""
_BLOCK_BYTES = 64 * 2**20


class ActivationDataModule(LightningDataModule):
    """Serves one fold of a store to :class:`signbridge.probes.LinearProbes`.

    All layers of a sample come together. Features are standardised with mean and deviation of the
    fold's training part alone. They are read once and kept as float32 where they fit into
    ``memory_bytes``; otherwise batches are made from shuffled chunks of 64 samples, read anew in
    every pass, through a buffer of a quarter of that memory.

    On several devices ``batch_size`` is the size of the whole batch. Each process reads, keeps and
    trains on the samples in its own chunks (r, r + n, r + 2 n, ... for process r of n); which
    samples make a batch does not depend on the number of processes, so the results do not either,
    but for rounding.

    An epoch of the training loader ends with a *round* (whole passes, at least 20 batches, after
    which :class:`~signbridge.probes.LinearProbes` measures the whole training part) or after 500
    batches.

    Args:
        store: path of a store, or an open one.
        features: layer numbers or names (``resid_post/5``, ``pixels``), all of one width;
            ``all`` takes every layer of the store.
        split: ``grouped``, ``random``, ``source``, or a split of one's own.
        folds: number of folds.
        fold: which of them.
        seed: seed of the split and of the order of the batches.
        batch_size: samples per batch, over all processes.
        validation: hold out a part of the training part, about one in five and without parting a
            group, by which training stops early. It has not seen the test part. Where the training
            part cannot be divided there is none.
        memory_bytes: bound on the features that a process keeps in memory.
        source: where features come from, instead of reading ``store`` anew.
        labels: class indices of all samples, instead of the store's.

    Raises:
        ProbeError: the store cannot be split so, or holds no such fold or feature.
    """

    def __init__(
        self,
        store: str | os.PathLike[str] | Store,
        *,
        features: Literal["all"] | Sequence[str | int] = "all",
        split: SplitName | Split = "grouped",
        folds: int = 5,
        fold: int = 0,
        seed: int = 42,
        batch_size: int = 256,
        validation: bool = False,
        memory_bytes: int = MEMORY_BYTES,
        source: FeatureSource | None = None,
        labels: IntArray | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ProbeError(f"batch_size must be 1 or more, not {batch_size}.")
        self.batch_size = batch_size
        self.seed = seed
        self.memory_bytes = memory_bytes
        if isinstance(store, (str, os.PathLike)):
            from signbridge.store import open_store

            store = open_store(os.fspath(store))
        self.store = store
        self.labels = store_labels(store) if labels is None else labels
        self.class_names = tuple(str(name) for name in store.class_names)
        if isinstance(split, Split):
            self.split = split
        else:
            self.split = make_split(
                self.labels,
                store.groups,
                split=split,
                folds=folds,
                seed=seed,
                class_names=self.class_names,
                source_splits=store.source_splits,
            )
        if not 0 <= fold < len(self.split):
            raise ProbeError(
                f"there is no fold {fold}: the split has folds 0 to {len(self.split) - 1}."
            )
        self.training_part, self.test_rows = self.split.folds[fold]
        self.train_rows, self.validation_rows = self.training_part, np.empty(0, dtype=np.int64)
        if validation:
            groups = np.asarray(store.groups, dtype=np.int64)
            self.train_rows, self.validation_rows = validation_part(
                self.training_part, self.labels, groups, seed
            )
        if source is None:
            chosen = (
                select_features(store, baselines=False)
                if isinstance(features, str) and features == "all"
                else [Feature.parse(name) for name in features]
            )
            source = FeatureSource(store, chosen, memory_bytes)
        self.source = source
        self.row_bytes = 4 * len(source) * source.n_features
        # Blocks are standardised in float64.
        self._block_rows = max(1, _BLOCK_BYTES // (2 * self.row_bytes * CHUNK_ROWS)) * CHUNK_ROWS
        self._standardisation: Standardisation | None = None
        self._values: Tensor | None = None
        self._kept_rows: IntArray = np.empty(0, dtype=np.int64)
        self._next = [0, 0]  # pass, and batch in it
        self.steps_left: Callable[[], int] | None = None

    @property
    def features(self) -> tuple[Feature, ...]:
        """The features of a batch, in order."""
        return self.source.features

    @property
    def n_layers(self) -> int:
        """Number of features of a batch (layers, or one baseline)."""
        return len(self.source)

    @property
    def n_features(self) -> int:
        """Width of each."""
        return self.source.n_features

    @property
    def n_classes(self) -> int:
        """Number of classes, also those without a sample."""
        return len(self.class_names)

    @property
    def present(self) -> list[bool]:
        """Which classes have samples in the training part, n_classes of them."""
        counts = np.bincount(self.labels[self.training_part], minlength=self.n_classes)
        return [bool(count) for count in counts]

    @property
    def n_train(self) -> int:
        """Number of samples trained on at present."""
        return len(self.train_rows)

    @property
    def standardisation(self) -> Standardisation:
        """Mean and deviation of the training part, each of shape (n_layers, n_features)."""
        if self._standardisation is None:
            self._standardisation = standardisation_of(
                self.source, self._raw_blocks(self.training_part), self.reduce
            )
        return self._standardisation

    @property
    def in_memory(self) -> bool:
        """Whether this process keeps its samples."""
        _, processes = self._place
        return self.row_bytes * self.source.n_samples <= self.memory_bytes * processes

    @property
    def _place(self) -> tuple[int, int]:
        """Number of this process, and of all."""
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    def reduce(self, values: Tensor, how: str) -> Tensor:
        """Sum (``sum``) or maximum (``max``) of a tensor over the processes."""
        if self.trainer is None or self.trainer.world_size == 1:
            return alone(values, how)
        strategy = self.trainer.strategy
        done = strategy.reduce(values.to(strategy.root_device), reduce_op=how)
        return torch.as_tensor(done).to(values.device)

    def _own(self, rows: IntArray) -> IntArray:
        return own_rows(rows, *self._place)

    def use_all(self) -> None:
        """Train on the validation part too from the next epoch on."""
        self.train_rows, self.validation_rows = self.training_part, np.empty(0, dtype=np.int64)
        passes = self.passes_of_a_round
        self._next = [-(-(self._next[0] + 1) // passes) * passes, 0]  # the start of a round

    @property
    def order(self) -> BatchOrder:
        """The batches of the training part."""
        held = max(self.batch_size, self.memory_bytes // 4 // self.row_bytes)
        return BatchOrder(
            self.train_rows, self.batch_size, self.seed, None if self.in_memory else held
        )

    @property
    def passes_of_a_round(self) -> int:
        """Passes between two measurements."""
        return -(-_ROUND_STEPS // self.order.batches)

    @property
    def round_is_over(self) -> bool:
        """Whether the next batch is the first of a round."""
        number, batch = self._next
        return batch == 0 and number % self.passes_of_a_round == 0

    def state_dict(self) -> dict[str, Any]:
        """Where the training stands, for a checkpoint."""
        return {
            "next": list(self._next),
            "all": len(self.validation_rows) == 0,
            "mean": self.standardisation.mean,
            "deviation": self.standardisation.deviation,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        if state_dict["all"]:
            self.use_all()
        self._next = list(state_dict["next"])
        self._standardisation = Standardisation(state_dict["mean"], state_dict["deviation"])

    def setup(self, stage: str | None = None) -> None:
        """Read, measure the training part, and standardise what is kept."""
        if self._values is not None or not self.in_memory:
            _ = self.standardisation
            return
        for feature in self.features:
            if self.source.in_memory:
                self.source.array(feature)  # a layer as a whole is read faster than in blocks
        rows = self._own(np.arange(self.source.n_samples))
        values = torch.empty(len(rows), self.n_layers, self.n_features)
        done = 0
        for _, block in self._raw_blocks(np.arange(self.source.n_samples)):
            values[done : done + len(block)] = self._standardised(block)
            done += len(block)
        self._kept_rows, self._values = rows, values

    # -- reading ----------------------------------------------------------------------------------

    def _raw_blocks(self, rows: IntArray) -> Iterator[tuple[IntArray, Tensor]]:
        """This process's share of some samples, ascending, as stored, (samples, layers, width)."""
        rows = self._own(np.sort(rows))
        for start, stop in spans(rows, CHUNK_ROWS, self._block_rows):
            part = rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)]
            block = self.source.block(start, min(stop, self.source.n_samples))
            yield part, torch.from_numpy(block)[torch.as_tensor(part - start)]

    def _standardised(self, block: Tensor) -> Tensor:
        return self.standardisation.apply(block.transpose(0, 1), torch.float32).transpose(0, 1)

    def _blocks(self, rows: IntArray) -> Iterator[tuple[IntArray, Tensor]]:
        """This process's share of some samples, ascending, standardised."""
        self.setup()
        if self._values is None:
            for part, block in self._raw_blocks(rows):
                yield part, self._standardised(block)
            return
        rows = self._own(np.sort(rows))
        for start in range(0, len(rows), self._block_rows):
            part = rows[start : start + self._block_rows]
            yield part, self._values[torch.as_tensor(np.searchsorted(self._kept_rows, part))]

    def standardised_block(self, start: int, stop: int) -> Tensor:
        """Consecutive samples, float32, shape (stop - start, n_layers, n_features)."""
        return self._standardised(torch.from_numpy(self.source.block(start, stop)))

    def batch(self, rows: IntArray, x: Tensor, size: int) -> Batch:
        """A batch of samples whose features are at hand."""
        y = torch.as_tensor(self.labels[rows])
        return {"x": x, "y": y, "row": torch.as_tensor(rows), "size": size}

    def blocks(self, rows: IntArray) -> Iterator[Batch]:
        """This process's share of any samples, in the order of the store, in large batches."""
        for part, x in self._blocks(rows):
            yield self.batch(part, x, len(part))

    def training_batches(self) -> Iterator[Batch]:
        """This process's share of the batches up to the end of the epoch."""
        self.setup()
        number, first = self._next
        made, most = 0, _EPOCH_STEPS
        if self.steps_left is not None:
            most = max(1, min(most, self.steps_left()))
        while True:
            done = 0
            for stretch in self.order.passage(number):
                if done + len(stretch) <= first:
                    done += len(stretch)
                    continue
                values, places = self._values, self._kept_rows
                if values is None:
                    places = np.sort(self._own(np.concatenate(stretch)))
                    read = [block for _, block in self._blocks(places)]
                    values = torch.cat([torch.empty(0, self.n_layers, self.n_features), *read])
                for rows in stretch[max(0, first - done) :]:
                    if made == most:
                        self._next = [number, first]
                        return
                    own = self._own(rows)
                    x = values[torch.as_tensor(np.searchsorted(places, own))]
                    yield self.batch(own, x, len(rows))
                    made, first = made + 1, first + 1
                done += len(stretch)
            number, first = number + 1, 0
            if number % self.passes_of_a_round == 0:
                self._next = [number, 0]
                return

    def _in_order(self, rows: IntArray) -> Iterator[Batch]:
        for own, x in self._blocks(rows):
            for start in range(0, len(own), self.batch_size):
                part = slice(start, start + self.batch_size)
                yield self.batch(own[part], x[part], len(own[part]))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches of the training part, up to the end of the epoch."""
        return DataLoader(_Stream(self.training_batches), batch_size=None)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Batches of the validation part; none without one."""
        rows = self.validation_rows
        return self._ordered(rows) if len(rows) else []

    def test_dataloader(self) -> DataLoader[Batch]:
        """Batches of the fold's test part, in the order of the store."""
        return self._ordered(self.test_rows)

    def predict_dataloader(self) -> DataLoader[Batch]:
        """As :meth:`test_dataloader`."""
        return self.test_dataloader()

    def _ordered(self, rows: IntArray) -> DataLoader[Batch]:
        return DataLoader(_Stream(lambda: self._in_order(rows)), batch_size=None)


class _Stream(IterableDataset[Batch]):
    """Batches from where they are made, anew in every epoch."""

    def __init__(self, batches: Callable[[], Iterator[Batch]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()
