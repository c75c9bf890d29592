"""The code that runs on a GPU alone, walked through with a stand-in for the device."""

import gc
import io
import weakref

import numpy as np
import pytest
import torch
from rich.console import Console

from signbridge.errors import ModelError
from signbridge.extraction import data, module
from signbridge.extraction.extract import extract_activations
from signbridge.extraction.module import HostCopy
from signbridge.store import open_store

OPTIONS = {
    "quantization": "none",
    "compute_dtype": "float32",
    "store_dtype": "float32",
    "shard_size": 20,
}
ANSWERS = {"max_new_tokens": 2, "forced_choice": True}


def extract(images, tiny, path, **options):
    said = io.StringIO()
    console = Console(file=said, width=1000)
    extract_activations(images, tiny, path, console=console, **OPTIONS | options)
    return said.getvalue()


def assert_equal_vectors(path, wanted):
    with open_store(path) as ours, open_store(wanted) as theirs:
        assert ours.sample_ids == theirs.sample_ids
        assert ours.responses == theirs.responses
        if theirs.class_logprob is not None:
            np.testing.assert_array_equal(ours.class_logprob, theirs.class_logprob)
        for layer in theirs.layers:
            np.testing.assert_array_equal(ours.layer(layer), theirs.layer(layer))
        for name in theirs.baselines:
            np.testing.assert_array_equal(ours.feature(name), theirs.feature(name))


def test_an_extraction_on_a_gpu_gives_what_the_cpu_gives(few, tiny, tmp_path, stand_in_gpu):
    extract(few, tiny, tmp_path / "cpu.h5", batch_size=16, **ANSWERS)
    gpu = stand_in_gpu(room=17)
    with gpu:
        said = extract(few, tiny, tmp_path / "gpu.h5", accelerator="gpu", devices=1, **ANSWERS)
    assert gpu.tried == [2, 2, 4, 16, 4, 16, 4]  # the trials, then both shards
    assert "batches of 16 images, by the memory of cuda:0" in said
    assert gpu.waited == 4  # once for every batch, when its shard is written
    assert gpu.pinned >= 4 * 4
    assert_equal_vectors(tmp_path / "gpu.h5", tmp_path / "cpu.h5")


@pytest.mark.slow
def test_a_gpu_that_is_full_half_way_costs_no_image(few, tiny, tmp_path, stand_in_gpu):
    extract(few, tiny, tmp_path / "cpu.h5", batch_size=4)
    gpu = stand_in_gpu(room=4)
    with gpu:
        options = {"accelerator": "gpu", "devices": 1, "batch_size": 8}
        said = extract(few, tiny, tmp_path / "gpu.h5", **options)
    assert gpu.tried == [8] + [4] * 10
    assert "did not fit into the memory: going on with batches of 4" in said
    assert gpu.freed >= 2  # after the failure, and at the end
    assert_equal_vectors(tmp_path / "gpu.h5", tmp_path / "cpu.h5")


def test_no_default_of_lightning_is_in_force_when_an_image_runs(
    few, tiny, tmp_path, stand_in_gpu, monkeypatch
):
    seen = []

    def watched(run):
        def watching(*args, **kwargs):
            seen.append((torch.get_default_device(), torch.get_default_dtype()))
            return run(*args, **kwargs)

        return watching

    gpu = stand_in_gpu()
    for place, name in (
        (module, "load_model"),
        (module, "run_batch"),
        (data.BatchDataset, "__getitem__"),
    ):
        monkeypatch.setattr(place, name, watched(getattr(place, name)))
    with gpu:
        extract(few, tiny, tmp_path / "a.h5", accelerator="gpu", devices=1)
    assert gpu.tried == [2, 2, 4, 16, 4, 16, 4]
    assert len(seen) == 1 + 2 * len(gpu.tried)
    assert set(seen) == {(torch.device("cpu"), torch.float32)}


def test_copies_are_made_on_the_host_whatever_the_default_device(stand_in_gpu):
    with stand_in_gpu() as gpu, torch.device("cuda:0"):
        vectors = torch.arange(6.0).reshape(2, 3)
        copy = HostCopy({"a": vectors, "b": vectors.bfloat16()})
    assert gpu.pinned == 2
    assert gpu.waited == 0
    for found in copy.arrays().values():
        np.testing.assert_array_equal(found, np.arange(6, dtype=np.float32).reshape(2, 3))
    assert gpu.waited == 1


@pytest.mark.parametrize("fails", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_model_leaves_the_gpu_with_the_run(
    few, tiny, tmp_path, stand_in_gpu, monkeypatch, fails
):
    gpu, loaded = stand_in_gpu(), []
    load = module.load_model

    def loading(*args, **kwargs):
        model = load(*args, **kwargs)
        loaded.append(weakref.ref(model))
        return model

    monkeypatch.setattr(module, "load_model", loading)
    with gpu:
        if fails:
            gpu.room = 0
            with pytest.raises(ModelError, match="has not the memory for one image"):
                extract(few, tiny, tmp_path / "a.h5", accelerator="gpu", devices=1)
        else:
            extract(few, tiny, tmp_path / "a.h5", accelerator="gpu", devices=1)
    gc.collect()
    assert [model() for model in loaded] == [None]
