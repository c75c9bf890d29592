from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from signbridge.errors import ProbeError
from signbridge.probes import ActivationDataModule
from signbridge.probes.features import Feature, FeatureSource, select_features
from signbridge.probes.splits import Split
from signbridge.store import open_store

SMALL = 64 * 3 * 24 * 4  # a chunk of float32 features: nothing larger is kept


@pytest.fixture(scope="module")
def many(make_store):
    """300 samples, five chunks of a store."""
    return make_store(n_classes=5, groups_per_class=20, per_group=3, dtype="float16")


def collect(loader):
    batches = list(loader)
    return {name: torch.cat([batch[name] for batch in batches]) for name in ("x", "y", "row")}


@pytest.mark.parametrize("memory_bytes", [2**30, SMALL])
def test_standardised_with_the_training_part_alone(many, memory_bytes):
    data = ActivationDataModule(many, fold=2, memory_bytes=memory_bytes)
    assert data.in_memory == (memory_bytes > SMALL)
    store = open_store(many)
    test = collect(data.test_dataloader())
    np.testing.assert_array_equal(test["row"], data.test_rows)
    np.testing.assert_array_equal(test["y"], store.labels[data.test_rows])
    for number, layer in enumerate(store.layers):
        X = store.layer(layer).astype(np.float64)
        scaler = StandardScaler().fit(X[data.train_rows])
        np.testing.assert_allclose(
            test["x"][:, number], scaler.transform(X[data.test_rows]), rtol=1e-5, atol=1e-6
        )


def test_streamed_test_batches_equal_those_from_memory(many):
    kept, streamed = (
        collect(ActivationDataModule(many, memory_bytes=m, batch_size=32).test_dataloader())
        for m in (2**30, SMALL)
    )
    for name in ("x", "y", "row"):
        assert torch.equal(kept[name], streamed[name])


@pytest.mark.parametrize("batch_size", [1, 50, 1000])
def test_a_streamed_pass_gives_every_training_sample_once(many, batch_size):
    data = ActivationDataModule(many, memory_bytes=SMALL, batch_size=batch_size)
    loader = data.train_dataloader()
    first, second = (list(loader) for _ in range(2))
    rows = np.concatenate([batch["row"] for batch in first])
    np.testing.assert_array_equal(np.sort(rows), data.train_rows)
    assert max(len(batch["row"]) for batch in first) <= batch_size
    again = np.concatenate([batch["row"] for batch in second])
    assert (rows != again).any()  # shuffled anew
    np.testing.assert_array_equal(np.sort(again), data.train_rows)
    batch = first[-1]
    expected = data.standardised_block(0, 300)[batch["row"]]
    assert torch.equal(batch["x"], expected)


def test_batches_from_memory_are_shuffled_passes(many):
    data = ActivationDataModule(many, batch_size=100)
    loader = data.train_dataloader()
    batches = list(loader)
    assert len(batches) == len(loader) >= 100
    once = -(-data.n_train // 100)
    passes = [torch.cat([b["row"] for b in batches[k : k + once]]) for k in (0, once)]
    for rows in passes:
        np.testing.assert_array_equal(np.sort(rows), data.train_rows)
    assert (passes[0] != passes[1]).any()


@pytest.mark.parametrize("memory_bytes", [2**30, SMALL])
def test_order_of_batches_is_the_seeds(many, memory_bytes):
    def rows(seed):
        data = ActivationDataModule(many, fold=0, memory_bytes=memory_bytes, seed=seed)
        split = Split("random", ((np.arange(200), np.arange(200, 300)),), 300)
        data = ActivationDataModule(many, split=split, memory_bytes=memory_bytes, seed=seed)
        return collect(data.train_dataloader())["row"]

    assert torch.equal(rows(1), rows(1))
    assert not torch.equal(rows(1), rows(2))


def test_each_layer_is_read_once(many, monkeypatch):
    store = open_store(many)
    whole = []
    original = type(store).feature

    def counting(self, name, rows=None, torch=False):
        if rows is None:
            whole.append(name)
        return original(self, name, rows, torch)

    monkeypatch.setattr(type(store), "feature", counting)
    data = ActivationDataModule(store)
    data.setup("fit")
    collect(data.train_dataloader())
    data.setup("test")
    collect(data.test_dataloader())
    assert whole == ["resid_post/0", "resid_post/1", "resid_post/2"]


def test_validation_part_lies_inside_the_training_part(many):
    plain = ActivationDataModule(many)
    data = ActivationDataModule(many, validation=True)
    groups = data.store.groups
    np.testing.assert_array_equal(data.test_rows, plain.test_rows)
    np.testing.assert_array_equal(
        np.sort(np.r_[data.train_rows, data.validation_rows]), plain.train_rows
    )
    assert not set(groups[data.train_rows]) & set(groups[data.validation_rows])
    assert torch.equal(collect(data.val_dataloader())["row"], torch.as_tensor(data.validation_rows))
    assert plain.val_dataloader() == []


def test_baseline_of_whole_numbers(many):
    data = ActivationDataModule(many, features=["pixels"])
    assert (data.n_layers, data.n_features) == (1, 9)
    x = data.standardised_block(0, 300)[data.train_rows]
    torch.testing.assert_close(x.mean(0), torch.zeros(1, 9), atol=1e-5, rtol=0)


def test_what_it_says_of_itself(many):
    data = ActivationDataModule(many, features=[2, "resid_post/0"])
    assert data.features == (Feature("resid_post", 2), Feature("resid_post", 0))
    assert (data.n_classes, data.class_names) == (5, tuple("ABCDE"))
    assert data.n_train == len(data.train_rows)
    assert data.present == [True] * 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fold": 5}, "no fold 5"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"features": [0, "pixels"]}, "must have one width"),
        ({"features": []}, "at least one feature"),
        ({"features": ["resid_post"]}, "needs a layer number"),
        ({"features": ["a/b"]}, "is not known"),
    ],
)
def test_arguments_that_cannot_be_used(many, arguments, message):
    with pytest.raises(ProbeError, match=message):
        ActivationDataModule(many, **arguments)


def test_too_small_for_a_validation_part(make_store):
    path = make_store(labels=np.array([0, 0, 1, 1]), layers=(0,), n_classes=2)
    with pytest.raises(ProbeError, match="too small for a validation part"):
        ActivationDataModule(path, folds=2, split="random", validation=True)


def test_select_features(many):
    store = open_store(many)
    names = [feature.name for feature in select_features(store)]
    assert names == ["resid_post/0", "resid_post/1", "resid_post/2", "pixels"]
    assert select_features(store, [2, 0, 2], baselines=False) == [
        Feature("resid_post", 0),
        Feature("resid_post", 2),
    ]
    with pytest.raises(ProbeError, match=r"holds no layer 7, 9; it holds 0, 1, 2"):
        select_features(store, [7, 0, 9])
    with pytest.raises(ProbeError, match="no layer to probe"):
        select_features(store, [])


def test_value_that_is_not_finite_is_named(many):
    store = open_store(many)
    source = FeatureSource(store, [Feature("resid_post", 1)])
    bad = store.layer(1).copy()
    bad[17, 3] = np.inf
    source._read = lambda feature, rows=None: bad
    with pytest.raises(ProbeError, match=r"resid_post/1 of sample train/17"):
        source.array(Feature("resid_post", 1))


def test_a_streaming_dataset_reaches_workers(many):
    data = ActivationDataModule(many, memory_bytes=SMALL)
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(collect(copy.test_dataloader())["x"], collect(data.test_dataloader())["x"])
