"""Adding layers to a store that is there."""

from dataclasses import replace

import numpy as np
import pytest

from signbridge import open_store
from signbridge.errors import StoreError
from signbridge.extraction import module as module_of_batches
from signbridge.extraction.module import ExtractionModule
from signbridge.store.merge import extend_store


def test_adding_layers_extracts_only_what_is_missing(
    finished, few, tiny, tmp_path, monkeypatch, extract, assert_same_content
):
    path = tmp_path / "a.h5"
    options = {"max_new_tokens": 3, "store_dtype": "float32"}
    extract(few, tiny, path, layers=[1, 4], **options)
    asked = []
    run = module_of_batches.run_batch
    monkeypatch.setattr(
        module_of_batches,
        "run_batch",
        lambda model, inputs, token, request: (
            asked.append(request),
            run(model, inputs, token, request),
        )[1],
    )
    extract(few, tiny, path, **options)
    assert {request.layers for request in asked} == {(0, 2, 3, 5, 6, 7)}
    assert {request.max_new_tokens for request in asked} == {0}  # the answers are there
    assert_same_content(path, finished)
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]
    asked.clear()
    extract(few, tiny, path, layers=[3], **options)  # all of it is there
    assert asked == []
    with open_store(path) as store:
        assert store.layers == tuple(range(8))


def test_layers_of_another_protocol_are_not_added(few, tiny, tmp_path, extract):
    path = extract(few, tiny, tmp_path / "a.h5", layers=[1])
    with pytest.raises(StoreError, match="position"):
        extract(few, tiny, path, layers=[1, 2], position="image_mean")
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_adding_refuses_other_samples_before_the_model_runs(
    few, tiny, tmp_path, monkeypatch, extract
):
    path = extract(few, tiny, tmp_path / "a.h5", layers=[1])
    regrouped = replace(few, group=np.arange(len(few)))
    monkeypatch.setattr(ExtractionModule, "predict_step", lambda *_: pytest.fail("ran"))
    with pytest.raises(StoreError, match="group"):
        extract(regrouped, tiny, path, layers=[1, 2])


class Stop(Exception):
    pass


def join_and_die(base, added, progress):
    extend_store(base, added)
    raise Stop


def test_a_run_killed_while_adding_leaves_nothing_behind_in_the_end(
    few, tiny, tmp_path, monkeypatch, extract
):
    path = extract(few, tiny, tmp_path / "a.h5", layers=[1])
    with monkeypatch.context() as patch:
        patch.setattr("signbridge.extraction.output.extend_store", join_and_die)
        with pytest.raises(Stop):
            extract(few, tiny, path, layers=[2])
    assert len(list(tmp_path.iterdir())) == 2
    extract(few, tiny, path, layers=[1, 2])
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]
