from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from signbridge.errors import ImagesError
from signbridge.extraction.batch_size import BatchLimit
from signbridge.extraction.batches import Span, SpanDataModule, SpanDataset, SpanSampler
from signbridge.model.prompts import DEFAULT_PROMPT
from signbridge.store import Shard


def spans_of(shards, batch_size):
    return list(SpanSampler(shards, BatchLimit(batch_size)))


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


def test_a_lowered_limit_holds_from_the_next_batch_on():
    limit = BatchLimit(8)
    sampler = iter(SpanSampler([Shard(0, 0, 20), Shard(1, 20, 30)], limit))
    spans = [next(sampler)]
    limit.lower(8)
    assert [len(span) for span in [*spans, *sampler]] == [8, 4, 4, 4, 4, 4, 2]


@given(start=st.integers(0, 99), size=st.integers(1, 99), images=st.integers(1, 120))
def test_pieces_of_a_span_are_the_span(start, size, images):
    pieces = Span(3, start, start + size).pieces(images)
    assert [row for piece in pieces for row in range(piece.start, piece.stop)] == list(
        range(start, start + size)
    )
    assert {piece.shard for piece in pieces} == {3}
    assert max(map(len, pieces)) <= images


class Vanished:
    def load(self, row):
        raise ImagesError(f"image {row} has vanished")


TRAINER = SimpleNamespace(num_devices=1, strategy=SimpleNamespace(root_device=torch.device("cpu")))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_one_sentence_even_from_a_loader_process(tiny, workers):
    data = SpanDataModule(
        Vanished(),
        tiny.processor,
        DEFAULT_PROMPT,
        BatchLimit(4),
        lambda _: [Shard(0, 0, 8)],
        workers,
    )
    data.trainer = TRAINER
    data.setup("predict")
    batch = next(iter(data.predict_dataloader()))
    with pytest.raises(ImagesError, match=r"^image 0 has vanished$"):
        data.transfer_batch_to_device(batch, "cpu", 0)


def test_items_are_the_processors_tensors(tiny, images):
    dataset = SpanDataset(images, tiny.processor, DEFAULT_PROMPT)
    batch = dataset[spans_of([Shard(0, 0, 6)], 4)[1]]
    assert (batch.span.start, batch.span.stop) == (4, 6)
    assert batch.inputs["pixel_values"].shape == (2, 3, 28, 28)
