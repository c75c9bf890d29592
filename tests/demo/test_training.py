import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from signbridge.demo.training import SHOWN, Training, training_of

rng = np.random.default_rng(0)
VECTORS = rng.normal(size=(60, 8))


def test_distances_are_those_of_the_nearest_image_of_another_group():
    copies = np.concatenate([VECTORS, VECTORS + 1e-6])  # near-duplicates make no image near
    group = np.tile(np.arange(60), 2)
    training = Training(copies, group, ["a"] * 120, [f"data:{k}" for k in range(120)])
    own = NearestNeighbors(n_neighbors=2).fit(VECTORS).kneighbors()[0][:, 0]
    picture = rng.normal(size=8)
    near = training.near(picture)
    wanted = np.linalg.norm(VECTORS - picture, axis=1).min()
    assert near.distance == pytest.approx(wanted, abs=1e-5)
    assert near.usual == pytest.approx(np.median(own), abs=1e-4)
    assert near.share == pytest.approx((own < wanted).mean(), abs=0.02)
    assert len(near.images) == SHOWN


def test_what_lies_far_out_is_far_and_what_was_trained_on_is_not():
    training = Training(VECTORS, np.arange(60), ["a"] * 60, [""] * 60)
    assert training.near(np.full(8, 10.0)).is_far
    assert not training.near(VECTORS[3] + 0.01).is_far


def test_where_nothing_can_be_compared_nothing_is_said(tmp_path):
    assert Training(VECTORS, np.zeros(60, int), ["a"] * 60, [""] * 60).near(VECTORS[0]) is None
    assert training_of(tmp_path, 0, np.zeros(8), np.ones(8)) is None
