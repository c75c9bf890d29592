from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from signbridge.errors import ProbeError
from signbridge.probes import ActivationDataModule
from signbridge.probes.dataset.features import FeatureSource, select_features
from signbridge.probes.dataset.splits import Split, validation_part
from signbridge.results.features import Feature
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


@pytest.mark.parametrize("memory_bytes", [2**30, SMALL])
@pytest.mark.parametrize("batch_size", [1, 50, 1000])
def test_a_round_is_whole_passes_shuffled_anew(many, batch_size, memory_bytes):
    data = ActivationDataModule(many, memory_bytes=memory_bytes, batch_size=batch_size)
    loader = data.train_dataloader()
    batches = list(loader)
    assert len(batches) >= 20
    assert data.round_is_over
    assert max(len(batch["row"]) for batch in batches) <= batch_size
    rows = np.concatenate([batch["row"] for batch in batches]).reshape(-1, data.n_train)
    assert len(rows) == data.passes_of_a_round
    np.testing.assert_array_equal(np.sort(rows), np.tile(data.train_rows, (len(rows), 1)))
    again = np.concatenate([batch["row"] for batch in loader])[: data.n_train]
    assert (again != rows[0]).any()
    batch = batches[-1]
    assert batch["size"] == len(batch["row"])
    assert torch.equal(batch["x"], data.standardised_block(0, 300)[batch["row"]])


@pytest.mark.parametrize("memory_bytes", [2**30, SMALL])
def test_an_epoch_ends_where_it_is_told_and_the_next_goes_on(many, memory_bytes):
    whole, cut = (
        ActivationDataModule(many, memory_bytes=memory_bytes, batch_size=16) for _ in range(2)
    )
    cut.steps_left = lambda: 7
    wanted = collect(whole.train_dataloader())["row"]
    parts = [collect(cut.train_dataloader())["row"]]
    assert not cut.round_is_over
    other = ActivationDataModule(many, memory_bytes=memory_bytes, batch_size=16)
    other.load_state_dict(cut.state_dict())
    parts.append(collect(other.train_dataloader())["row"])
    assert other.round_is_over
    assert torch.equal(torch.cat(parts), wanted)


@pytest.mark.parametrize("memory_bytes", [2**30, SMALL])
def test_processes_share_the_batches_of_one(many, memory_bytes):
    """Each row of a batch, and each of the samples in order, is at exactly one process."""

    class Place(ActivationDataModule):
        place = (0, 1)
        _place = property(lambda self: self.place)

    alone = ActivationDataModule(many, memory_bytes=memory_bytes, batch_size=40)
    several = []
    for rank in range(3):
        data = Place(many, memory_bytes=memory_bytes // 3, batch_size=40)
        data.place = (rank, 3)
        # What the others would add to the sums.
        data._standardisation = alone.standardisation
        several.append(data)
    for batches in zip(*(d.training_batches() for d in (alone, *several)), strict=True):
        rows = torch.cat([batch["row"] for batch in batches[1:]])
        assert torch.equal(rows.sort().values, batches[0]["row"].sort().values)
        assert {batch["size"] for batch in batches} == {len(rows)}
    for rows in (alone.test_rows, alone.train_rows):
        found = np.concatenate([b["row"] for data in several for b in data.blocks(rows)])
        np.testing.assert_array_equal(np.sort(found), rows)
    for data in several:
        for batch in data.blocks(data.test_rows):
            assert torch.equal(batch["x"], alone.standardised_block(0, 300)[batch["row"]])


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
    assert 0.1 < len(data.validation_rows) / len(plain.train_rows) < 0.3
    assert not set(groups[data.train_rows]) & set(groups[data.validation_rows])
    assert torch.equal(collect(data.val_dataloader())["row"], torch.as_tensor(data.validation_rows))
    assert plain.val_dataloader() == []


def test_the_random_split_too_is_validated_by_groups(many):
    """A group lies in training and test part there, but stops no fit that has seen it."""
    data = ActivationDataModule(many, split="random", validation=True)
    groups = data.store.groups
    assert set(groups[data.test_rows]) & set(groups[data.train_rows])
    assert not set(groups[data.train_rows]) & set(groups[data.validation_rows])


def test_the_validation_part_is_trained_on_in_the_end(many):
    data = ActivationDataModule(many, validation=True)
    data.use_all()
    rows = collect(data.train_dataloader())["row"][: data.n_train]
    np.testing.assert_array_equal(np.sort(rows), data.training_part)
    assert len(data.validation_rows) == 0


def test_a_class_of_one_group_is_not_held_out(make_store):
    labels = np.r_[np.repeat(np.arange(3), 12), [3, 3, 3]]
    groups = np.r_[np.arange(36), [36] * 3]
    path = make_store(labels=labels, groups=groups, layers=(0,))
    for seed in range(8):
        whole = np.arange(39)
        train, held = validation_part(whole, labels, groups, seed)
        assert 3 in labels[train]
        assert set(labels[held]) <= set(labels[train])
        np.testing.assert_array_equal(np.sort(np.r_[train, held]), whole)
    data = ActivationDataModule(
        path, split=Split("grouped", ((np.arange(39), np.arange(0)),), 39), validation=True
    )
    assert data.present == [True] * 4


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
    data = ActivationDataModule(path, folds=2, split="random", validation=True)
    assert len(data.validation_rows) == 0
    assert data.n_train == 2


def test_other_labels_than_the_stores(many):
    labels = np.arange(300) % 5
    data = ActivationDataModule(many, labels=labels, validation=True)
    batch = next(iter(data.train_dataloader()))
    np.testing.assert_array_equal(batch["y"], labels[batch["row"]])


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
    for memory_bytes in (2**30, SMALL):
        source = FeatureSource(store, [Feature("resid_post", k) for k in (0, 1)], memory_bytes)
        read = source._read

        def spoilt(feature, rows=None, read=read):
            values = read(feature, rows).copy()
            place = 17 - (rows.start if rows is not None else 0)
            if feature.layer == 1 and 0 <= place < len(values):
                values[place, 3] = np.inf
            return values

        source._read = spoilt
        with pytest.raises(ProbeError, match=r"resid_post/1 of sample train/17"):
            source.array(Feature("resid_post", 1))
        every = Split("grouped", ((np.arange(300), np.arange(0)),), 300)
        data = ActivationDataModule(store, source=source, split=every, memory_bytes=memory_bytes)
        with pytest.raises(ProbeError, match=r"resid_post/1 of sample train/17"):
            data.setup()


def test_a_streaming_dataset_reaches_workers(many):
    data = ActivationDataModule(many, memory_bytes=SMALL)
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(collect(copy.test_dataloader())["x"], collect(data.test_dataloader())["x"])
