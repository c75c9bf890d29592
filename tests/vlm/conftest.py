import os

import numpy as np
import pytest
import torch
from rich.console import Console

from signbridge import open_store
from signbridge.images import open_images
from signbridge.vlm.description import describe_model
from signbridge.vlm.extract import extract_activations
from signbridge.vlm.load import load_model
from signbridge.vlm.prompts import DEFAULT_PROMPT


@pytest.fixture(scope="session")
def tiny():
    return describe_model("tiny")


@pytest.fixture(scope="session")
def model(tiny):
    return load_model(tiny, "cpu", quantization="none")


@pytest.fixture(scope="session")
def babbling():
    """The same architecture with random weights: its answers go on and on."""
    return load_model(
        describe_model("tiny", weights="random", weights_seed=4), "cpu", quantization="none"
    )


@pytest.fixture(scope="session")
def images():
    return open_images("sample")


@pytest.fixture(scope="session")
def prepare(tiny, images):
    """Make the processor's inputs for some rows of the sample, with one prompt each."""

    def inputs(rows, prompts=None):
        return dict(
            tiny.processor(
                text=list(prompts or [DEFAULT_PROMPT] * len(rows)),
                images=[images.load(row) for row in rows],
                padding=True,
                return_tensors="pt",
            )
        )

    return inputs


@pytest.fixture(scope="session")
def few():
    """Forty images: ten letters with four each."""
    return open_images("sample", classes=10, per_class=4)


@pytest.fixture(scope="session")
def extract():
    """Extracts without a word, in small shards."""

    def extract(images, tiny, path, **options):
        options = {"quantization": "none", "num_workers": 0, "shard_size": 16} | options
        with open(os.devnull, "w") as nowhere:
            return extract_activations(images, tiny, path, console=Console(file=nowhere), **options)

    return extract


def content(path):
    with open_store(path) as store:
        return {
            "vectors": {k: store.layer(k) for k in store.layers},
            "baselines": {name: store.feature(name) for name in store.baselines},
            "labels": store.labels,
            "ids": store.sample_ids,
            "responses": store.responses,
            "provenance": store.provenance,
        }


@pytest.fixture(scope="session")
def assert_same_content():
    def assert_same_content(ours, wanted):
        np.testing.assert_equal(content(ours), content(wanted))

    return assert_same_content


@pytest.fixture(scope="session")
def finished(tmp_path_factory, few, tiny, extract):
    """A store of the forty images; no test may change it."""
    path = tmp_path_factory.mktemp("store") / "finished.h5"
    return extract(few, tiny, path, max_new_tokens=3, store_dtype="float32")


def pytest_configure():
    torch.set_num_threads(1)
