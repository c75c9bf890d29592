"""Settings of a model in provenance: what counts as a difference, and how it is named."""

import json

import pytest

from signbridge.errors import StoreError
from signbridge.store.provenance import differing_keys, not_compared, refuse_difference
from signbridge.store.settings import comparable, summary_of_settings

HERE = "transformers 5.23.0"


def record(file="config.json", made_by=HERE, **settings):
    return json.dumps({**settings, "_file": file, "_made_by": made_by})


def provenance(model="a", weights="11", **records):
    return {"model": model, "weights_sha256": weights, "model_config": record(), **records}


def test_the_file_the_key_and_both_values_are_named():
    old = provenance(image_processor=record("processor_config.json", image_mean=[0.6], size=28))
    new = provenance(image_processor=record("processor_config.json", image_mean=[0.5], size=30))
    says = (
        r"image_mean in processor_config.json = '\[0.6\]', but now .* is '\[0.5\]' "
        r"\(also size in processor_config.json\)"
    )
    with pytest.raises(StoreError, match=says):
        refuse_difference(old, new, "It")


@pytest.mark.parametrize(
    ("old", "new", "differ"),
    [
        ({"a": 1}, {"a": 2}, ["a in config.json"]),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, ["a.c in config.json"]),
        ({"a": 1}, {}, ["a in config.json"]),
        ({"a": 1}, {"a": 1.0}, []),
        ({"a": [0, 1]}, {"a": [0.0, 1.0]}, []),
        ({"a": True}, {"a": 1}, ["a in config.json"]),
    ],
)
def test_settings_are_compared_by_value(old, new, differ):
    old, new = ({"model_config": record(**one)} for one in (old, new))
    assert differing_keys(old, new) == differ


def test_of_two_versions_only_the_common_settings_are_compared():
    old = {"model_config": record(a=1, gone=1)}
    new = {"model_config": record(a=1, new=1, made_by="transformers 6.0.0")}
    assert differing_keys(old, new) == []
    new = {"model_config": record(a=2, new=1, made_by="transformers 6.0.0")}
    assert differing_keys(old, new) == ["a in config.json"]


def test_another_folder_of_the_same_content_is_the_same_model():
    assert differing_keys(provenance("a"), provenance("/b")) == []
    assert differing_keys(provenance("a", "11"), provenance("/b", "22")) == [
        "model",
        "weights_sha256",
    ]
    bare = {"model": "a", "weights_sha256": "11"}
    assert differing_keys(bare, bare | {"model": "b"}) == ["model"]


def test_a_store_without_settings_is_compared_without_them_and_that_is_said():
    old, new = {"model": "a"}, {"model": "a", "model_config": record(a=1)}
    assert differing_keys(old, new) == differing_keys(new, old) == []
    assert not_compared({"old.h5": old, "this run": new}).startswith("old.h5 does not record")
    assert not_compared({"a": new, "b": new}) == not_compared({"a": old, "b": old}) == ""


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000, 3])
def test_a_record_that_is_none_is_compared_as_it_is(text):
    assert differing_keys({"model_config": text}, {"model_config": text}) == []
    assert differing_keys({"model_config": text}, {"model_config": record(a=1)})
    assert comparable([{"model_config": text}]) == [{"content in model_config": text}]


def test_a_record_is_summed_up_in_one_line():
    said = summary_of_settings(record(a=1, b={"c": 2, "d": 3}))
    assert said == "3 settings of config.json, read by transformers 5.23.0"
