from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from signbridge.errors import ImagesError
from signbridge.store import Shard
from signbridge.vlm.batches import SpanDataModule, SpanDataset, spans_of
from signbridge.vlm.prompts import DEFAULT_PROMPT


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=8), batch_size=st.integers(1, 60))
def test_spans_cover_every_shard_once_and_never_cross_its_edge(sizes, batch_size):
    shards, start = [], 0
    for index, size in enumerate(sizes):
        shards.append(Shard(index, start, start + size))
        start += size
    spans = spans_of(shards, batch_size)
    assert [row for span in spans for row in range(span.start, span.stop)] == list(range(start))
    for span in spans:
        shard = shards[span.shard]
        assert shard.start <= span.start < span.stop <= shard.stop
        assert span.stop - span.start <= batch_size


def test_batches_of_a_shard_do_not_depend_on_the_others():
    shards = [Shard(0, 0, 10), Shard(1, 10, 20), Shard(2, 20, 25)]
    assert spans_of(shards, 4)[3:6] == spans_of(shards[1:2], 4)


class Vanished:
    def load(self, row):
        raise ImagesError(f"image {row} has vanished")


TRAINER = SimpleNamespace(num_devices=1, strategy=SimpleNamespace(root_device=torch.device("cpu")))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_one_sentence_even_from_a_loader_process(tiny, workers):
    data = SpanDataModule(
        Vanished(), tiny.processor, DEFAULT_PROMPT, 4, lambda _: [Shard(0, 0, 8)], workers
    )
    data.trainer = TRAINER
    data.setup("predict")
    batch = next(iter(data.predict_dataloader()))
    with pytest.raises(ImagesError, match=r"^image 0 has vanished$"):
        data.transfer_batch_to_device(batch, "cpu", 0)


def test_items_are_the_processors_tensors(tiny, images):
    dataset = SpanDataset(images, tiny.processor, DEFAULT_PROMPT, spans_of([Shard(0, 0, 6)], 4))
    assert len(dataset) == 2
    batch = dataset[1]
    assert (batch.span.start, batch.span.stop) == (4, 6)
    assert batch.inputs["pixel_values"].shape == (2, 3, 28, 28)
