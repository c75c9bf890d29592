"""The fingerprint of provenance."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signbridge.errors import StoreError
from signbridge.store import StoreWriter, open_store
from signbridge.store.provenance import (
    checked_provenance,
    differing_keys,
    provenance_sha256,
    refuse_difference,
)

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)
VALUE = st.one_of(
    TEXT,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(TEXT, max_size=4),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4),
)
KEYS = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True).filter(lambda k: k != "format")


def test_the_fingerprint_is_that_of_the_specification():
    values = {"seed": 42, "prompt": "é", "on": True, "modules": ["a"], "none": None}
    text = '{"modules":["a"],"on":true,"prompt":"é","seed":42}'
    expected = hashlib.sha256(text.encode()).hexdigest()
    assert provenance_sha256(checked_provenance(values)) == expected


@settings(deadline=None, max_examples=25)
@given(values=st.dictionaries(KEYS, VALUE, max_size=6))
def test_every_value_comes_back_from_a_file(values, tmp_path_factory, producer):
    path = tmp_path_factory.mktemp("p") / "s.h5"
    spec, samples, _, data = producer.inputs(n=2, layers=(0,), hidden=1)
    with StoreWriter(path, spec, samples, values) as writer:
        writer.write_shard(0, data)
        writer.consolidate()
    with open_store(path, verify="quick") as store:
        assert store.provenance == values
        assert differing_keys(store.provenance, checked_provenance(values)) == []
        assert store.fingerprint == provenance_sha256(values)


def test_numpy_values_are_plain():
    assert checked_provenance({"a": np.int64(3), "b": np.array([1.5]), "c": ("x",)}) == {
        "a": 3,
        "b": [1.5],
        "c": ["x"],
    }


def test_remarks_on_the_source_are_not_compared():
    """Stores of version 0.1.0 have none; what follows from a layout, labels and groups, is."""
    old = {"model": "m", "groups": "signer/class"}
    new = {**old, "layout": "signer/class: 3 classes", "signers": 5}
    assert differing_keys(old, new) == differing_keys({**new, "signers": 4}, new) == []
    assert differing_keys(old, {**new, "groups": "none"}) == ["groups"]


def test_all_differing_keys_are_named():
    with pytest.raises(StoreError, match=r"a = '1', but now a is '2' \(also b, c\)"):
        refuse_difference({"a": 1, "b": 1}, {"a": 2, "c": 1}, "The store s.h5")


@pytest.mark.parametrize("at", [0, 30, 81, 500, 999])
def test_long_values_are_shown_where_they_differ(at):
    """Two prompts that begin alike would otherwise be shown as the same."""
    old = "".join("abcdefghij"[i % 10] for i in range(1000))
    new = f"{old[:at]}X{old[at + 1 :]}"
    with pytest.raises(StoreError) as error:
        refuse_difference({"prompt": old}, {"prompt": new}, "It")
    said = str(error.value)
    assert "X" in said.split("but now")[1]
    assert "X" not in said.split("but now")[0]
    assert len(said) < 400
    with pytest.raises(StoreError, match=r"prompt = 'abc.*but now prompt is nothing"):
        refuse_difference({"prompt": old}, {}, "It")


@pytest.mark.parametrize("key", ["weights_sha256", "image_fingerprint", "seed"])
def test_the_key_and_both_values_are_named(key):
    with pytest.raises(StoreError) as error:
        refuse_difference({key: "11aa", "model": "m"}, {key: "22bb", "model": "m"}, "It")
    for words in (key, "'11aa'", "'22bb'"):
        assert words in str(error.value)
