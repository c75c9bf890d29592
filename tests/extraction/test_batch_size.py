import io
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from signbridge.errors import ModelError
from signbridge.extraction import module
from signbridge.extraction.batch_size import (
    CPU_IMAGES,
    BatchLimit,
    images_that_fit,
)
from signbridge.extraction.extract import extract_activations
from signbridge.images import open_images
from signbridge.model import certificate
from signbridge.model.forward import is_out_of_memory
from signbridge.store import open_store


@given(
    weights=st.integers(0, 10**10),
    each=st.integers(1, 10**9),
    room=st.integers(0, 10**11),
    most=st.integers(1, 300),
)
def test_the_largest_power_of_two_that_fits_is_found(weights, each, room, most):
    def peak(images):
        if weights + images * each > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")
        return weights + images * each

    # Collecting is slow, and there is nothing to collect.
    with patch("signbridge.extraction.batch_size.garbage_collection_cuda"):
        found = images_that_fit(peak, room, most)
    fitting = [n for n in (2**k for k in range(10)) if n <= most and weights + n * each <= room]
    assert found == max(fitting, default=1)


def test_another_error_of_a_trial_is_not_taken_for_a_full_memory():
    def peak(_images):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        images_that_fit(peak, 10**9, 64)


def test_on_a_cpu_no_batch_is_tried():
    limit = BatchLimit("auto")
    limit.choose(lambda _: pytest.fail("tried"), torch.device("cpu"), most=256)
    assert limit.images == CPU_IMAGES


def test_the_cpus_own_words_for_a_full_memory_are_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("a defect"))


@pytest.fixture(scope="module")
def some():
    return open_images("sample", classes=10, per_class=4)


def small_memory(monkeypatch, most, failures=None, place=module):
    """Let every forward pass of more than ``most`` images run out of memory."""
    run_batch = place.run_batch

    def run(model, inputs, *arguments):
        size = len(inputs["input_ids"])
        if size > most:
            if failures is not None:
                failures.append(size)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return run_batch(model, inputs, *arguments)

    monkeypatch.setattr(place, "run_batch", run)


def extract(images, tiny, path, **options):
    said = io.StringIO()
    settings = {"quantization": "none", "shard_size": 20, "max_new_tokens": 3} | options
    extract_activations(images, tiny, path, console=Console(file=said, width=1000), **settings)
    return said.getvalue()


@pytest.mark.parametrize(
    "options", [{}, pytest.param({"batch_size": 16, "num_workers": 2}, marks=pytest.mark.slow)]
)
def test_a_memory_that_runs_out_costs_no_sample(some, tiny, tmp_path, monkeypatch, options):
    extract(some, tiny, tmp_path / "whole.h5", batch_size=3)
    failures = []
    small_memory(monkeypatch, 3, failures)
    said = extract(some, tiny, tmp_path / "halved.h5", **options)
    first = options.get("batch_size", CPU_IMAGES)
    wanted = [first] if first == 8 else [first, first // 2]
    assert failures == [*wanted, 4]  # each size fails once, not for every batch
    assert "did not fit into the memory: going on with batches of 2" in said
    with open_store(tmp_path / "whole.h5") as whole, open_store(tmp_path / "halved.h5") as halved:
        assert halved.info["batch_size"] == 2
        assert list(halved.sample_ids) == list(whole.sample_ids)
        assert halved.responses == whole.responses
        for layer in whole.layers:
            # float16 rounding of what batches of another size sum in another order
            np.testing.assert_allclose(
                halved.layer(layer).astype(float), whole.layer(layer), rtol=2e-3, atol=2e-3
            )


@pytest.mark.slow
def test_one_image_too_many_is_one_sentence_and_keeps_the_shards(some, tiny, tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    with monkeypatch.context() as patch:
        small_memory(patch, 0)
        with pytest.raises(ModelError, match="has not the memory for one image: try"):
            extract(some, tiny, path)
    extract(some, tiny, path)
    with open_store(path) as store:
        assert len(store.sample_ids) == len(some)


def test_a_memory_that_holds_one_image_is_met_when_the_model_is_tried(
    some, tiny, tmp_path, monkeypatch
):
    small_memory(monkeypatch, 1, place=certificate)
    said = extract(some, tiny, tmp_path / "a.h5", layers=[0])
    assert "a batch of 2 images did not fit into the memory: going on with batches of 1" in said
    with open_store(tmp_path / "a.h5") as store:
        assert store.info["batch_size"] == 1
        assert "check_padding" not in store.info
    small_memory(monkeypatch, 0, place=certificate)
    with pytest.raises(ModelError, match="has not the memory for one image: try"):
        extract(some, tiny, tmp_path / "b.h5", layers=[0])
