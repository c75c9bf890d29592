"""summary.json is written from one type and read back as it, whatever is not there."""

from __future__ import annotations

import inspect
import json
import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from signbridge.results.records import from_json, to_json
from signbridge.results.summary import (
    BestLayer,
    Difference,
    LayerTest,
    Nested,
    NotConverged,
    PermutationTest,
    Protocol,
    StoreRecord,
    Summary,
    read_summary,
    write_summary,
)

LEAST = Summary(
    store=StoreRecord(), protocol=Protocol(split="grouped"), best_layer=BestLayer(layer=3)
)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    summary = Summary(
        store=StoreRecord(n_samples=4, class_names=("A", "B"), provenance={"seed": 42}),
        protocol=Protocol(split="grouped", C=(0.1, 1.0), split_file={"path": "a", "sha256": "b"}),
        best_layer=BestLayer(layer=3, accuracy=0.5, ci=(0.25, 0.75)),
        against_baselines={"pixels": Difference(0.1, (-0.1, 0.3))},
        nested=Nested(accuracy=0.4, ci=(0.2, 0.6), layers_chosen=(3, 1)),
        permutation_test=PermutationTest(m=9, p=0.1, by_layer={10: LayerTest(p=0.1)}, null_mean=0),
        not_converged=(NotConverged(feature="pixels", C=1.0, relative_tolerance=0.1),),
        C_chosen={"pixels": (1.0, 0.1)},
        chance=0.5,
        majority=0.5,
    )
    write_summary(path, summary)
    read = read_summary(path)
    assert to_json(read) == to_json(summary)
    assert read.nested == summary.nested
    assert read.store == summary.store
    assert read.permutation_test is not None
    assert list(read.permutation_test.by_layer) == [10]
    assert math.isnan(read.permutation_test.by_layer[10].accuracy)


def test_absent_and_null_are_the_same(tmp_path: Path) -> None:
    """What a sweep did not measure reads as what an older one did not know."""
    write_summary(tmp_path / "summary.json", LEAST)
    content = json.loads((tmp_path / "summary.json").read_text())
    assert content["nested"] is content["chance"] is content["best_layer"]["ci"][0] is None
    shorter = {key: value for key, value in content.items() if value is not None}
    shorter["later"] = {"a key": "of a later minor version"}
    (tmp_path / "summary.json").write_text(json.dumps(shorter))
    assert to_json(read_summary(tmp_path / "summary.json")) == to_json(LEAST)


def test_every_part_is_documented() -> None:
    import signbridge.results.summary as module

    for name in module.__all__:
        part = getattr(module, name)
        names = [field.name for field in fields(part)] if isinstance(part, type) else []
        text = inspect.cleandoc(part.__doc__ or "")
        if names and "Attributes:" in text:
            assert [n for n in names if f"\n    {n}: " not in text] == [], name


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float32(0.5), 0.5),
        (np.arange(3), [0, 1, 2]),
        (math.inf, None),
        ({1: (math.nan, True)}, {"1": [None, True]}),
        (Path("a"), "a"),
    ],
)
def test_plain_json(value: object, plain: object) -> None:
    assert to_json(value) == plain


def test_a_penalty_is_a_number_or_a_list() -> None:
    assert from_json(Protocol, {"split": "random", "C": 1}).C == 1.0
    assert from_json(Protocol, {"split": "random", "C": [1, 0.1]}).C == (1.0, 0.1)
    with pytest.raises(ValueError, match=r"gives 'strong' as protocol\.C, not a list"):
        from_json(Protocol, {"split": "random", "C": "strong"}, "protocol")
