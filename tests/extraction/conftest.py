import os

import numpy as np
import pytest
from rich.console import Console

from signbridge import open_store
from signbridge.extraction.extract import extract_activations


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
