from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signbridge.probes.dataset.batches import BatchOrder, own_rows, spans


@settings(deadline=None, max_examples=50)
@given(
    rows=st.sets(st.integers(0, 500), min_size=1),
    batch_size=st.integers(1, 90),
    buffer_rows=st.one_of(st.none(), st.integers(1, 400)),
    processes=st.integers(1, 5),
)
def test_every_sample_once_and_in_one_process(rows, batch_size, buffer_rows, processes):
    every = np.array(sorted(rows))
    order = BatchOrder(every, batch_size, 7, buffer_rows)
    stretches = order.passage(3)
    batches = [batch for stretch in stretches for batch in stretch]
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), every)
    assert max(map(len, batches)) <= batch_size
    for stretch in stretches:
        sizes = [len(batch) for batch in stretch]
        assert max(sizes) - min(sizes) <= 1  # a tiny last batch would be all noise
        if buffer_rows is not None:
            assert len({row // 64 for batch in stretch for row in batch}) <= max(
                1, buffer_rows // 64
            )
    for batch in batches:
        shares = [own_rows(batch, rank, processes) for rank in range(processes)]
        np.testing.assert_array_equal(np.sort(np.concatenate(shares)), np.sort(batch))
    chunks = [set(own_rows(every, rank, processes) // 64) for rank in range(processes)]
    assert sum(map(len, chunks)) == len(set.union(*chunks))


@pytest.mark.parametrize("buffer_rows", [None, 128])
def test_passes_differ_and_follow_from_the_seed(buffer_rows):
    def rows(seed, number):
        order = BatchOrder(np.arange(300), 50, seed, buffer_rows)
        return np.concatenate([b for stretch in order.passage(number) for b in stretch]).tolist()

    assert rows(1, 0) == rows(1, 0)
    assert len({tuple(rows(seed, number)) for seed in (1, 2) for number in (0, 1)}) == 4


def test_spans_join_neighbouring_chunks():
    rows = np.array([3, 64, 65, 130, 300, 640, 700])
    assert spans(rows, 64, 64) == [(0, 64), (64, 128), (128, 192), (256, 320), (640, 704)]
    assert spans(rows, 64, 128) == [(0, 128), (128, 192), (256, 320), (640, 704)]
    assert spans(rows, 64, 1000) == [(0, 192), (256, 320), (640, 704)]
    assert spans(rows[:0], 64, 64) == []
