from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from signbridge.errors import ImagesError
from signbridge.extraction.batch_size import BatchLimit
from signbridge.extraction.data import (
    BatchDataset,
    ExtractionDataModule,
    ShardBatchSampler,
    split_rows,
)
from signbridge.model.prompts import DEFAULT_PROMPT
from signbridge.store import Shard


def batches_of(shards, batch_size):
    return list(ShardBatchSampler(shards, BatchLimit(batch_size)))


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=8), batch_size=st.integers(1, 60))
def test_batches_cover_every_shard_once_and_never_cross_its_edge(sizes, batch_size):
    shards, start = [], 0
    for index, size in enumerate(sizes):
        shards.append(Shard(index, start, start + size))
        start += size
    batches = batches_of(shards, batch_size)
    assert [row for rows in batches for row in rows] == list(range(start))
    for rows in batches:
        (shard,) = [shard for shard in shards if rows.start in range(shard.start, shard.stop)]
        assert rows.stop <= shard.stop
        assert len(rows) <= batch_size


def test_batches_of_a_shard_do_not_depend_on_the_others():
    shards = [Shard(0, 0, 10), Shard(1, 10, 20), Shard(2, 20, 25)]
    assert batches_of(shards, 4)[3:6] == batches_of(shards[1:2], 4)


def test_a_lowered_limit_holds_from_the_next_batch_on():
    limit = BatchLimit(8)
    sampler = iter(ShardBatchSampler([Shard(0, 0, 20), Shard(1, 20, 30)], limit))
    batches = [next(sampler)]
    limit.lower(8)
    assert [len(rows) for rows in [*batches, *sampler]] == [8, 4, 4, 4, 4, 4, 2]


@given(start=st.integers(0, 99), size=st.integers(1, 99), images=st.integers(1, 120))
def test_pieces_of_rows_are_the_rows(start, size, images):
    rows = range(start, start + size)
    pieces = split_rows(rows, images)
    assert [row for piece in pieces for row in piece] == list(rows)
    assert max(map(len, pieces)) <= images


class Vanished:
    def load_all(self, row):
        raise ImagesError(f"image {row} has vanished")


TRAINER = SimpleNamespace(num_devices=1, strategy=SimpleNamespace(root_device=torch.device("cpu")))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_one_sentence_even_from_a_loader_process(tiny, workers):
    data = ExtractionDataModule(
        Vanished(),
        tiny.processor,
        [DEFAULT_PROMPT],
        BatchLimit(4),
        lambda _: [[Shard(0, 0, 8)]],
        workers,
    )
    data.trainer = TRAINER
    data.setup("predict")
    batch = next(iter(data.predict_dataloader()))
    with pytest.raises(ImagesError, match=r"^image 0 has vanished$"):
        data.transfer_batch_to_device(batch, "cpu", 0)


def test_items_are_the_processors_tensors(tiny, images):
    dataset = BatchDataset(images, tiny.processor, DEFAULT_PROMPT)
    batch = dataset[batches_of([Shard(0, 0, 6)], 4)[1]]
    assert batch.rows == range(4, 6)
    assert batch.inputs["pixel_values"].shape == (2, 3, 28, 28)
