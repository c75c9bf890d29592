"""An activation store as a LightningDataModule: split, standardisation, batches of all layers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, get_worker_info

from signbridge.errors import ProbeError
from signbridge.probes.features import MEMORY_BYTES, Feature, FeatureSource, select_features
from signbridge.probes.splits import IntArray, Split, SplitName, inner_split, make_split
from signbridge.probes.standardise import Standardisation
from signbridge.store import CHUNK_ROWS

if TYPE_CHECKING:
    from signbridge.store import Store

_STEPS_PER_EPOCH = 100


class Batch(TypedDict):
    """What the loaders give out.

    ``x``: standardised features, float32, shape (B, n_layers, n_features); ``y``: class indices,
    shape (B,); ``row``: sample indices in the store, shape (B,).
    """

    x: Tensor
    y: Tensor
    row: Tensor


class ActivationDataModule(LightningDataModule):
    """Serves one fold of a store to :class:`signbridge.probes.LinearProbes`.

    All layers of a sample come together. Features are standardised with mean and deviation of the
    fold's training part alone. Each layer is read once and kept as float32 where all fit into
    ``memory_bytes``; otherwise batches are made from shuffled chunks of 64 samples, read anew in
    every pass, through a buffer of a quarter of that memory.

    An epoch of the training loader is at least 100 batches: small stores pass through their
    samples several times in it, newly shuffled each time.

    Args:
        store: path of a store, or an open one.
        features: layer numbers or names (``resid_post/5``, ``pixels``), all of one width;
            ``all`` takes every layer of the store.
        split: ``grouped``, ``random``, or a split of one's own.
        folds: number of folds.
        fold: which of them.
        seed: seed of the split and of the order of the batches.
        batch_size: samples per batch.
        validation: hold out one in five of the training part (grouped as the split is) and serve
            it as the validation loader. What it chooses has not seen the test part.
        memory_bytes: bound on the features kept in memory.
        source: where features come from, instead of reading ``store`` anew.

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
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ProbeError(f"batch_size must be 1 or more, not {batch_size}.")
        self.batch_size = batch_size
        self.seed = seed
        self.memory_bytes = memory_bytes
        self._validation = validation
        if isinstance(store, (str, os.PathLike)):
            from signbridge.store import open_store

            store = open_store(os.fspath(store))
        self.store = store
        self.labels = store_labels(store)
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
            )
        if not 0 <= fold < len(self.split):
            raise ProbeError(
                f"there is no fold {fold}: the split has folds 0 to {len(self.split) - 1}."
            )
        self.train_rows, self.test_rows = self.split.folds[fold]
        self.validation_rows: IntArray = np.empty(0, dtype=np.int64)
        if validation:
            inner = inner_split(
                self.train_rows,
                self.labels,
                np.asarray(store.groups),
                split=self.split.name,
                folds=5,
                seed=seed,
            )
            if inner is None:
                raise ProbeError(
                    f"the training part of fold {fold} is too small for a validation part; "
                    "use validation=False."
                )
            self.train_rows, self.validation_rows = inner.folds[0]
        if source is None:
            chosen = (
                select_features(store, baselines=False)
                if isinstance(features, str) and features == "all"
                else [Feature.parse(name) for name in features]
            )
            source = FeatureSource(store, chosen, memory_bytes)
        self.source = source
        float_bytes = 4 * source.n_samples * len(source) * source.n_features
        self.in_memory = float_bytes <= memory_bytes
        self._standardisation: Standardisation | None = None
        self._values: Tensor | None = None

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
        """Which classes have training samples, n_classes of them."""
        counts = np.bincount(self.labels[self.train_rows], minlength=self.n_classes)
        return [bool(count) for count in counts]

    @property
    def n_train(self) -> int:
        """Number of samples trained on."""
        return len(self.train_rows)

    @property
    def standardisation(self) -> Standardisation:
        """Mean and deviation of the training part, each of shape (n_layers, n_features)."""
        if self._standardisation is None:
            self._standardisation = self.source.moments(self.train_rows)
        return self._standardisation

    def setup(self, stage: str | None = None) -> None:
        """Read, measure the training part, and standardise what is kept."""
        if self._values is not None or not self.in_memory:
            _ = self.standardisation
            return
        values = torch.empty(self.source.n_samples, self.n_layers, self.n_features)
        for number, feature in enumerate(self.features):
            part = self._part(number)
            values[:, number] = part.apply(
                torch.from_numpy(self.source.array(feature)), torch.float32
            )
        self._values = values

    def _part(self, number: int) -> Standardisation:
        whole = self.standardisation
        return Standardisation(whole.mean[number], whole.deviation[number])

    def _loader(self, rows: IntArray, *, shuffle: bool) -> DataLoader[Batch]:
        self.setup()
        if self._values is None:
            stream = _Stream(self, rows, shuffle=shuffle)
            return DataLoader(stream, batch_size=None)
        kept = _Kept(self._values, torch.as_tensor(self.labels), torch.as_tensor(rows))
        order = _Batches(len(rows), self.batch_size, self.seed if shuffle else None)
        return DataLoader(kept, batch_sampler=order, collate_fn=_as_is)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches of the training part."""
        return self._loader(self.train_rows, shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Batches of the validation part; none unless asked for."""
        return self._loader(self.validation_rows, shuffle=False) if self._validation else []

    def test_dataloader(self) -> DataLoader[Batch]:
        """Batches of the fold's test part, in the order of the store."""
        return self._loader(self.test_rows, shuffle=False)

    def rows_dataloader(self, rows: IntArray) -> DataLoader[Batch]:
        """Batches of any samples, in the order of the store, standardised as the others."""
        return self._loader(np.sort(rows), shuffle=False)

    def predict_dataloader(self) -> DataLoader[Batch]:
        """As :meth:`test_dataloader`."""
        return self.test_dataloader()

    def standardised_block(self, start: int, stop: int) -> Tensor:
        """Consecutive samples, float32, shape (stop - start, n_layers, n_features)."""
        block = torch.from_numpy(self.source.block(start, stop)).transpose(0, 1)
        return self.standardisation.apply(block, torch.float32).transpose(0, 1)


def store_labels(store: Store) -> IntArray:
    """The store's labels as int64, shape (n_samples,).

    Raises:
        ProbeError: the store has no labels.
    """
    if store.labels is None or len(store.labels) == 0:
        raise ProbeError(
            f"{store.path} holds no labels; extract again from images whose class is known."
        )
    return np.asarray(store.labels, dtype=np.int64)


def _as_is(batch: Any) -> Any:
    return batch


class _Kept(Dataset[Batch]):
    """Standardised samples in memory, fetched a batch at a time."""

    def __init__(self, values: Tensor, labels: Tensor, rows: Tensor) -> None:
        self.values, self.labels, self.rows = values, labels, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        rows = self.rows[torch.as_tensor(indices)]
        return {"x": self.values[rows], "y": self.labels[rows], "row": rows}


class _Batches(Sampler[list[int]]):
    """Batches of indices: one pass in order, or shuffled passes until an epoch is filled."""

    def __init__(self, size: int, batch_size: int, seed: int | None) -> None:
        self.size, self.batch_size = size, batch_size
        self.generator = None if seed is None else torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        once = -(-self.size // self.batch_size)
        return once if self.generator is None else once * -(-_STEPS_PER_EPOCH // max(1, once))

    def __iter__(self) -> Iterator[list[int]]:
        once = max(1, -(-self.size // self.batch_size))
        for _ in range(len(self) // once):
            if self.generator is None:
                order = list(range(self.size))
            else:
                order = torch.randperm(self.size, generator=self.generator).tolist()
            for start in range(0, self.size, self.batch_size):
                yield order[start : start + self.batch_size]


class _Stream(IterableDataset[Batch]):
    """Batches made from chunk-aligned reads, for stores that do not fit in memory."""

    def __init__(self, module: ActivationDataModule, rows: IntArray, *, shuffle: bool) -> None:
        self.module, self.shuffle, self.rows = module, shuffle, rows
        self.wanted = np.zeros(module.source.n_samples, dtype=bool)
        self.wanted[rows] = True
        per_row = 4 * module.n_layers * module.n_features
        # Stores are often sorted by class, so a batch is drawn from chunks of many places.
        self.buffer_rows = max(module.batch_size, module.memory_bytes // 4 // per_row)
        self.generator = np.random.default_rng(module.seed)

    def __iter__(self) -> Iterator[Batch]:
        step = CHUNK_ROWS if self.shuffle else self.module.source.block_rows
        starts = np.arange(0, len(self.wanted), step)
        worker = get_worker_info()
        if worker is not None:
            starts = starts[worker.id :: worker.num_workers]
        if self.shuffle:
            self.generator.shuffle(starts)
        size = self.module.batch_size
        held: list[tuple[Tensor, IntArray]] = []
        for start in starts.tolist():
            stop = min(start + step, len(self.wanted))
            rows = start + np.flatnonzero(self.wanted[start:stop])
            if not len(rows):
                continue
            block = self.module.standardised_block(start, stop)
            held.append((block[torch.as_tensor(rows - start)], rows))
            if sum(len(part[1]) for part in held) >= (self.buffer_rows if self.shuffle else size):
                x, rows = self._mixed(held)
                whole = len(rows) // size * size
                yield from self._cut(x[:whole], rows[:whole])
                held = [(x[whole:].clone(), rows[whole:])] if whole < len(rows) else []
        if held:
            yield from self._cut(*self._mixed(held))

    def _mixed(self, held: list[tuple[Tensor, IntArray]]) -> tuple[Tensor, IntArray]:
        x = torch.cat([part[0] for part in held])
        rows = np.concatenate([part[1] for part in held])
        if not self.shuffle:
            return x, rows
        order = self.generator.permutation(len(rows))
        return x[torch.as_tensor(order)], rows[order]

    def _cut(self, x: Tensor, rows: IntArray) -> Iterator[Batch]:
        size = self.module.batch_size
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            yield {
                "x": x[start : start + size],
                "y": torch.as_tensor(self.module.labels[part]),
                "row": torch.as_tensor(part),
            }
