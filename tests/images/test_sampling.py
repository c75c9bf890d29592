from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signbridge.errors import ImagesError
from signbridge.images import open_images
from signbridge.images.sampling import choose_classes, notes_on_counts, queues


def original_study(labels: list[str], classes: int, per_class: int, seed: int) -> list[int]:
    """Transcribed from the protocol's description, with the global generator as it says."""
    kept = sorted([letter for letter, _ in Counter(labels).most_common()][:classes])
    by_letter: dict[str, list[int]] = {letter: [] for letter in kept}
    for index, letter in enumerate(labels):
        if letter in by_letter:
            by_letter[letter].append(index)
    random.seed(seed)
    chosen = []
    for letter in kept:
        random.shuffle(by_letter[letter])
        chosen += by_letter[letter][:per_class]
    return chosen


@given(
    labels=st.lists(st.sampled_from("ABCDEFGH"), min_size=2).filter(lambda x: len(set(x)) > 1),
    per_class=st.integers(1, 12),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_the_original_protocol(
    labels: list[str], per_class: int, seed: int, data: st.DataObject
) -> None:
    classes = data.draw(st.integers(2, len(set(labels))))
    lists = queues(labels, choose_classes(labels, classes), per_class, seed)
    chosen = [index for members in lists.values() for index in members[:per_class]]
    assert chosen == original_study(labels, classes, per_class, seed)


def test_the_original_protocol_on_kaggle_files(write_csv: Callable[..., Path]) -> None:
    rng = np.random.default_rng(11)
    letters = [number for number in range(25) if number != 9]
    train, test = (rng.choice(letters, size, p=rng.dirichlet([20] * 24)) for size in (600, 300))
    write_csv(train.tolist(), name="sign_mnist_train.csv")
    folder = write_csv(test.tolist(), name="sign_mnist_test.csv").parent
    images = open_images(folder, classes=20, per_class=15, seed=42, groups="none")
    both = ["ABCDEFGHIJKLMNOPQRSTUVWXY"[number] for number in [*train, *test]]
    ids = [f"train/{row}" for row in range(600)] + [f"test/{row}" for row in range(300)]
    rows = original_study(both, 20, 15, 42)
    assert images.sample_id == [ids[row] for row in rows]
    assert [images.class_names[number] for number in images.label] == [both[row] for row in rows]
    assert len(images) == 300


def test_the_global_generator_is_left_alone() -> None:
    random.seed(1)
    expected = random.random()
    random.seed(1)
    queues(["a", "b"] * 9, ("a", "b"), 2, 42)
    assert random.random() == expected


def test_without_per_class_the_order_is_the_source_s() -> None:
    labels = list("cabbac")
    assert queues(labels, ("a", "b"), None, 42) == {"a": [1, 4], "b": [2, 3]}


def test_ties_go_to_the_class_seen_first() -> None:
    assert choose_classes(list("zzyyxxx"), 2) == ("x", "z")


def test_classes_by_name_are_sorted_and_counted_once() -> None:
    assert choose_classes(list("abc"), ["c", "a", "c"]) == ("a", "c")


@pytest.mark.parametrize("classes", [-1, 0, 1, 4])
def test_a_wrong_number_of_classes(classes: int) -> None:
    with pytest.raises(ImagesError, match=f"classes is {classes}, but .* number from 2 to 3"):
        choose_classes(list("abc"), classes)


def test_unknown_and_too_few_classes() -> None:
    with pytest.raises(ImagesError, match="no images of the class J, Z; there are a, b"):
        choose_classes(list("ab"), ["a", "Z", "J"])
    with pytest.raises(ImagesError, match=r"Only 1 class is left \(a\)"):
        choose_classes(list("ab"), ["a"])
    with pytest.raises(ImagesError, match="Only 1 class is left"):
        choose_classes(list("aa"), None)


@pytest.mark.parametrize("per_class", [0, -3])
def test_a_wrong_number_a_class(per_class: int) -> None:
    with pytest.raises(ImagesError, match=f"per_class is {per_class}; give 1 or more"):
        queues(list("ab"), ("a", "b"), per_class, 42)


def test_what_is_said_of_small_classes() -> None:
    assert notes_on_counts({"a": 5, "b": 5}, 5) == []
    short, single = notes_on_counts({"a": 5, "b": 2, "c": 1}, 5)
    assert "b (2), c (1)" in short
    assert "class c:" in single
    assert notes_on_counts({"a": 1, "b": 1}, 1) == []
    (single,) = notes_on_counts({"a": 5, "b": 1}, None)
    assert "class b:" in single
