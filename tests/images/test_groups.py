from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse.csgraph import connected_components

from signbridge.errors import ImagesError
from signbridge.images import groups as module
from signbridge.images import near_duplicate_groups, open_images
from signbridge.images.groups import (
    check_complete,
    consecutive,
    groups_by_pattern,
    read_groups,
)


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    pairs = len(set(zip(one.tolist(), other.tolist(), strict=True)))
    return pairs == len(set(one.tolist())) == len(set(other.tolist()))


def families(count: int, size: int, noise: int, seed: int = 0) -> np.ndarray:
    """Random images, each seen several times with noise, in random order."""
    rng = np.random.default_rng(seed)
    base = rng.integers(30, 220, (count, 784))
    seen = np.repeat(base, size, axis=0) + rng.integers(-noise, noise + 1, (count * size, 784))
    return rng.permutation(np.clip(seen, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("block", [7, 64, 2048])
@pytest.mark.parametrize("threshold", [0.6, 0.9, 0.95, 0.98])
def test_equals_scipy_single_linkage(
    block: int, threshold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    pixels = np.concatenate([families(12, 5, noise) for noise in (4, 15, 30, 60)])
    tree = linkage(pixels.astype(float), method="single", metric="correlation")
    expected = fcluster(tree, t=1 - threshold, criterion="distance")
    assert 1 < len(set(expected)) < len(pixels)
    assert same_partition(near_duplicate_groups(pixels, threshold), expected)


@given(
    st.integers(2, 12).flatmap(
        lambda features: st.lists(
            st.lists(st.integers(0, 4), min_size=features, max_size=features),
            min_size=1,
            max_size=25,
        )
    ),
    st.sampled_from([0.3, 0.5, 0.8, 0.95]),
)
@settings(deadline=None)
def test_equals_components_of_corrcoef(rows: list[list[int]], threshold: float) -> None:
    pixels = np.array(rows, dtype=np.uint8)
    constant = pixels.min(axis=1) == pixels.max(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.nan_to_num(np.atleast_2d(np.corrcoef(pixels)))
    if np.any(np.abs(correlation - threshold) < 1e-12):
        return  # the reference cannot decide a tie; see the test of exact ties
    linked = (correlation >= threshold) | np.logical_and.outer(constant, constant)
    expected = connected_components(linked)[1]
    found = near_duplicate_groups(pixels, threshold)
    assert same_partition(found, expected)
    np.testing.assert_array_equal(found, consecutive(expected.tolist()))


def test_a_tie_is_linked_exactly() -> None:
    # Covariance 1/2 of variances 1 and 1, by hand: the correlation is 0.5 and no less.
    pixels = np.array([[0, 1, 2], [1, 0, 2]], dtype=np.uint8)
    assert near_duplicate_groups(pixels, 0.5).tolist() == [0, 0]
    assert near_duplicate_groups(pixels, np.nextafter(0.5, 1)).tolist() == [0, 1]


def test_threshold_one_joins_only_the_same_up_to_contrast() -> None:
    image = np.random.default_rng(1).integers(0, 100, 784).astype(np.uint8)
    almost = image.copy()
    almost[0] ^= 1
    pixels = np.stack([image, 2 * image + 5, almost, image])
    assert near_duplicate_groups(pixels, 1.0).tolist() == [0, 0, 1, 0]


def test_chains_are_joined_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 3)
    rng = np.random.default_rng(5)
    start, end = rng.integers(0, 256, (2, 784))
    steps = np.linspace(0, 1, 12)[:, None]
    pixels = rng.permutation((start * (1 - steps) + end * steps).astype(np.uint8))
    assert np.corrcoef(start, end)[0, 1] < 0.2
    assert near_duplicate_groups(pixels, 0.95).max() == 0


def test_constant_images_are_one_group_of_their_own() -> None:
    pixels = families(3, 1, 0)
    pixels = np.concatenate([pixels, np.zeros((1, 784), np.uint8), np.full((2, 784), 9, np.uint8)])
    assert near_duplicate_groups(pixels).tolist() == [0, 1, 2, 3, 3, 3]


def test_constant_images_are_linked_to_no_other_at_any_threshold() -> None:
    pixels = np.concatenate([np.full((1, 784), 9, np.uint8), families(1, 1, 0)])
    assert near_duplicate_groups(pixels, 1e-5).tolist() == [0, 1]


def test_the_bound_of_real_images_is_never_too_low(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = open_images("sample", groups="none").pixels
    monkeypatch.setattr(module, "_BLOCK", 64)
    tree = linkage(pixels.astype(float), method="single", metric="correlation")
    for coordinates in (1, 8, 63):
        monkeypatch.setattr(module, "_COORDINATES", coordinates)
        for threshold in (0.5, 0.7, 0.9, 0.95, 0.98):
            expected = fcluster(tree, t=1 - threshold, criterion="distance")
            assert same_partition(near_duplicate_groups(pixels, threshold), expected)


def test_low_contrast_images_are_still_told_apart() -> None:
    pixels = np.full((3, 784), 128, dtype=np.uint8)
    pixels[0, 10], pixels[1, 10], pixels[2, 500] = 129, 131, 129
    assert near_duplicate_groups(pixels).tolist() == [0, 0, 1]


def test_brightness_and_contrast_do_not_matter() -> None:
    pixels = families(4, 1, 0)
    assert near_duplicate_groups(np.concatenate([pixels, pixels // 2 + 10])).tolist() == [
        *range(4),
        *range(4),
    ]


@given(st.permutations(range(24)))
@settings(deadline=None, max_examples=20)
def test_groups_do_not_depend_on_the_order(order: list[int]) -> None:
    pixels = families(6, 4, 10)
    expected = near_duplicate_groups(pixels)[order]
    np.testing.assert_array_equal(
        near_duplicate_groups(pixels[order]), consecutive(expected.tolist())
    )


def test_many_identical_images_stay_within_bounds() -> None:
    pixels = np.repeat(families(1, 1, 0), 5000, axis=0)
    assert near_duplicate_groups(pixels).max() == 0


def test_empty_and_wrong_arguments() -> None:
    assert near_duplicate_groups(np.zeros((0, 784), np.uint8)).tolist() == []
    for threshold in (0, 1.5, float("nan")):
        with pytest.raises(ImagesError, match="above 0 and up to 1"):
            near_duplicate_groups(np.zeros((2, 784), np.uint8), threshold)
    with pytest.raises(TypeError, match="uint8"):
        near_duplicate_groups(np.zeros((2, 784), np.float32))  # type: ignore[arg-type]


def test_bundled_sample_has_the_268_photographs_counted_by_scipy() -> None:
    images = open_images("sample")
    tree = linkage(images.pixels.astype(float), method="single", metric="correlation")
    expected = fcluster(tree, t=0.05, criterion="distance")
    assert len(set(expected)) == 268
    assert same_partition(images.group, expected)
    assert np.bincount(images.group).max() == 2


@pytest.mark.skipif(
    "SIGNBRIDGE_SIGN_MNIST" not in os.environ,
    reason="set SIGNBRIDGE_SIGN_MNIST to a folder with sign_mnist_test.csv",
)
@pytest.mark.parametrize(("threshold", "count"), [(0.95, 333), (0.98, 344)])
def test_official_test_part(threshold: float, count: int) -> None:
    path = Path(os.environ["SIGNBRIDGE_SIGN_MNIST"], "sign_mnist_test.csv")
    images = open_images(path, duplicate_threshold=threshold)
    assert len(images) == 7172
    sizes = np.bincount(images.group)
    assert (len(sizes), sizes.max()) == (count, 42)


@given(st.lists(st.integers(0, 5)))
def test_consecutive_numbers_by_first_appearance(values: list[int]) -> None:
    numbers = consecutive(values).tolist()
    first = list(dict.fromkeys(values))
    assert numbers == [first.index(value) for value in values]


def test_groups_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "groups.csv"
    path.write_text("﻿group,sample_id,remark\nBo,x/2,\nAda,x/1,\nBo,x/3,\nCy,unused,\n", "utf-8")
    assert read_groups(path, ["x/1", "x/2", "x/3"]) == {"x/1": "Ada", "x/2": "Bo", "x/3": "Bo"}


def test_ids_and_groups_of_a_file_are_compared_in_composed_form(tmp_path: Path) -> None:
    path = tmp_path / "groups.csv"
    path.write_text("sample_id,group\ne\u0301/1,Zoe\u0308\n\u00e9/2,Zo\u00eb\n", "utf-8")
    ids = ["\u00e9/1", "e\u0301/2"]
    assert read_groups(path, ids) == dict.fromkeys(ids, "Zo\u00eb")


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [
        (r"hand(\d+)_", ["1", "2"]),
        (r"(\w+)/(?P<signer>hand\d)", ["hand1", "hand2"]),
        (r"(?P<group>\d)_([ab])", ["1", "2"]),
    ],
)
def test_groups_by_a_pattern(pattern: str, groups: list[str]) -> None:
    assert groups_by_pattern(pattern, ["a/hand1_a.png", "b/hand2_b.png"]) == groups


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"hand(\d", "no regular expression"),
        (r"hand\(", "has no group in brackets"),
        (r"hand(\d+)_", r"finds nothing in 'b/2\.png', one of 1 of 2 such samples"),
        (r"(x?)", "finds nothing in"),
    ],
)
def test_patterns_that_cannot_be_used(pattern: str, message: str) -> None:
    with pytest.raises(ImagesError, match=message):
        groups_by_pattern(pattern, ["a/hand1_a.png", "b/2.png"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sample,group\na,1\n", "no header with the columns sample_id,group"),
        ("", "no header with the columns sample_id,group"),
        ("sample_id,group\na,1\n", "no group for 1 of 2 samples, the first of them 'b'"),
        ("sample_id,group\na,1\na,2\nb,1\n", "line 3: sample 'a' has the groups '1' and '2'"),
        ("sample_id,group\na,1\nb\n", "line 3: sample 'b' has no group"),
        ("sample_id,group\na,1\nb, \n", "line 3: sample 'b' has no group"),
    ],
)
def test_wrong_groups_file(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "groups.csv"
    path.write_text(text)
    with pytest.raises(ImagesError, match=message):
        check_complete(read_groups(path, ["a", "b"]), path, ["a", "b"])


def test_groups_file_of_other_bytes(tmp_path: Path) -> None:
    path = tmp_path / "groups.csv"
    path.write_bytes("sample_id,group\nä,1\n".encode("latin-1"))
    with pytest.raises(ImagesError, match="is not a UTF-8 CSV"):
        read_groups(path, ["ä"])
    with pytest.raises(ImagesError, match="cannot be read"):
        read_groups(tmp_path / "none.csv", ["a"])
