"""A captured site is one entry: the extraction, the store and the sweep take it from there."""

import numpy as np
import pytest
import torch

from signbridge import open_store
from signbridge.extraction.extract import extract_activations
from signbridge.model.sites import SITES, ImageTokensIn, Site, site_widths
from signbridge.probes.dataset.features import select_features


class LargestImageToken(ImageTokensIn):
    """The entry-wise largest of what ``projector`` averages."""

    def _read(self, _module, args, kwargs):
        if self.value is None:
            hidden = args[0] if args else kwargs["hidden_states"]
            outside = ~self._image_mask[..., None]
            self.value = hidden.float().masked_fill(outside, -torch.inf).amax(dim=1)


def test_a_site_that_is_registered_is_stored_and_probed(tmp_path, monkeypatch, few, tiny):
    site = Site("largest of the image tokens", lambda model: tiny.hidden_size, LargestImageToken)
    monkeypatch.setitem(SITES, "largest", site)
    path = tmp_path / "store.h5"
    options = {"quantization": "none", "num_workers": 0, "layers": [0]}
    extract_activations(few, tiny, path, **options)
    with open_store(path) as store:
        assert set(store.baselines) == {"pixels", "projector", "vision", "largest"}
        largest, mean = store.feature("largest"), store.feature("projector")
        assert largest.shape == (len(few.label), tiny.hidden_size)
        assert np.all(largest >= mean - 1e-2)
        assert np.any(largest > mean + 0.1)
        assert "largest" in [feature.name for feature in select_features(store, "all")]
    data = pytest.importorskip("xarray").open_dataset(path, engine="h5netcdf")
    with data:
        assert data["largest"].attrs["long_name"] == "largest of the image tokens"


def test_a_model_without_a_place_leaves_the_site_out(monkeypatch, tiny):
    monkeypatch.setitem(SITES, "nowhere", Site("nothing", lambda model: None, ImageTokensIn))
    assert site_widths(tiny.skeleton) == {"projector": 128, "vision": 128}
