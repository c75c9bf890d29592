"""Files of format 1.0 open for ever."""

from pathlib import Path

import numpy as np
import pytest

from signbridge.store import open_store

DATA = Path(__file__).parent / "data"
CONTENT_1_0 = "57ec977dc11cab36a723ab5310b8f86066d0dc40572f621885233abbb91fdeab"


@pytest.mark.parametrize("name", ["v1.0.h5", "v1.0-shards.h5"])
def test_files_of_version_1_0_open_for_ever(name):
    """The files are never written again; the numbers here are formulas, not the code under test."""
    n, layers, hidden = 70, (1, 4), 6
    i, k, j = np.ogrid[:n, : len(layers), :hidden]
    with open_store(DATA / name, verify="full") as store:
        assert store.format_version == "1.0"
        assert store.layers == layers
        for position, layer in enumerate(layers):
            expected = ((i - 2 * k + j) / 8)[:, position].astype(np.float16)
            np.testing.assert_array_equal(store.layer(layer), expected)
        np.testing.assert_array_equal(store.labels, np.arange(n) % 3)
        np.testing.assert_array_equal(store.groups, np.arange(n) // 4)
        assert store.class_names == ("A", "B", "É")
        assert store.sample_ids == [f"test/{i}" for i in range(n)]
        assert store.source_splits == ["test"] * n
        assert store.responses == [f"sign {i} ✋" for i in range(n)]
        np.testing.assert_array_equal(
            store.feature("pixels"), (np.arange(n)[:, None] * 3 + np.arange(4)) % 256
        )
        np.testing.assert_array_equal(
            store.class_logprob, -(np.arange(n)[:, None] + 1.0 / 2 ** np.arange(3))
        )
        assert store.provenance == {
            "model": "stand-in",
            "prompt": "USER: <image>\nWhich sign?",
            "quantized_modules": ["a", "b"],
            "seed": 42,
            "trust_remote_code": False,
        }
        assert store.info == {"batch_size": 4, "note": "format 1.0, kept for ever"}
        assert store.content_sha256 == CONTENT_1_0
