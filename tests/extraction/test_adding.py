"""Adding layers to a store that is there."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from signbridge import open_store
from signbridge.errors import StoreError
from signbridge.extraction import module as module_of_batches
from signbridge.extraction.extract import extract_activations
from signbridge.extraction.module import ExtractionModule
from signbridge.images import open_images
from signbridge.model.description import TINY_FOLDER, describe_model
from signbridge.store.merge import extend_store, merge_stores


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


RELEASED = Path(__file__).parents[1] / "data" / "released"
EDITED = r"image_mean in processor_config\.json = '\[0\.6, 0\.6, 0\.6\]', but now"


@pytest.fixture
def edited(tmp_path):
    """The bundled model with other settings of its processor and the same weights."""
    folder = shutil.copytree(TINY_FOLDER, tmp_path / "edited")
    content = json.loads((folder / "processor_config.json").read_text())
    content["image_processor"]["image_mean"] = [0.48, 0.46, 0.41]
    (folder / "processor_config.json").write_text(json.dumps(content))
    return describe_model(str(folder))


def test_layers_of_edited_settings_are_not_added(few, tiny, edited, tmp_path, extract):
    path = extract(few, tiny, tmp_path / "a.h5", layers=[1])
    with pytest.raises(StoreError, match=EDITED):
        extract(few, replace(edited, spec="tiny", kind="tiny"), path, layers=[1, 2])
    other = extract(few, edited, tmp_path / "b.h5", layers=[2])
    with pytest.raises(StoreError, match=r"image_mean in processor_config\.json"):
        merge_stores([path, other], tmp_path / "c.h5")


def test_parts_of_edited_settings_are_not_continued(
    few, tiny, edited, tmp_path, monkeypatch, extract
):
    with monkeypatch.context() as patch:
        patch.setattr("signbridge.store.StoreWriter.consolidate", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            extract(few, tiny, tmp_path / "a.h5", layers=[1])
    with pytest.raises(StoreError, match=r"unfinished extraction.*image_mean"):
        extract(few, edited, tmp_path / "a.h5", layers=[1])


def test_the_same_model_in_another_folder_goes_on(few, tiny, tmp_path, extract):
    path = extract(few, tiny, tmp_path / "a.h5", layers=[1])
    moved = describe_model(str(shutil.copytree(TINY_FOLDER, tmp_path / "moved")))
    extract(few, moved, path, layers=[1, 2])
    with open_store(path) as store:
        assert store.layers == (1, 2)
        assert store.provenance["model"] == "tiny"


def test_a_released_store_is_joined_and_what_cannot_be_compared_is_said(tiny, tmp_path):
    path = tmp_path / "a.h5"
    shutil.copy(RELEASED / "unfinished-store" / "finished.h5", path)
    images = open_images("sample", classes=4, per_class=4)
    with (tmp_path / "said").open("w") as said:
        console = Console(file=said, width=1000)
        extract_activations(images, tiny, path, layers=[0, 3, 7], num_workers=0, console=console)
    assert f"{path} does not record the settings of model" in (tmp_path / "said").read_text()
    with open_store(path) as store:
        assert store.layers == (0, 3, 7)
        assert "model_config" not in store.provenance  # layers 0 and 7 may be of others
