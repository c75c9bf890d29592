from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from signbridge.errors import ProbeError
from signbridge.probes.dataset.features import answer_words, select_features, store_labels
from signbridge.results.features import Feature


def test_words_are_those_of_scikit_learn():
    answers = ["A fist.", "two fingers up", "Fist", "", "up, UP and away"]
    table, words = answer_words(answers)
    reference = CountVectorizer(binary=True, token_pattern=r"\w+").fit(answers)
    assert words == tuple(reference.get_feature_names_out())
    np.testing.assert_array_equal(table, reference.transform(answers).toarray())
    assert table.dtype == np.uint8


def test_only_the_commonest_words_are_kept():
    table, words = answer_words(["x y", "x z", "x y"], max_words=2)
    assert words == ("x", "y")
    assert table.tolist() == [[1, 1], [1, 0], [1, 1]]


@pytest.mark.parametrize("answers", [["", ""], ["...", "!"]])
def test_no_word_at_all_is_a_feature_that_tells_nothing(answers):
    table, words = answer_words(answers)
    assert words == ("",)
    assert table.tolist() == [[0], [0]]


@pytest.mark.parametrize(
    ("named", "n", "refused"),
    [(26, 2, False), (1003, 24, False), (1004, 24, True), (4003, 4000, False)],
)
def test_far_more_classes_than_samples_are_refused(named, n, refused):
    labels, names = np.arange(n) % 3, tuple(map(str, range(named)))
    store = SimpleNamespace(path="s.h5", labels=labels, class_names=names)
    if not refused:
        np.testing.assert_array_equal(store_labels(store), labels)
        return
    with pytest.raises(ProbeError, match=r"s.h5 names 1,004 classes and its 24 samples are of 3"):
        store_labels(store)


def test_a_second_stack_follows_the_first_by_its_numbers():
    stored = ("decoder_resid_post_10", "decoder_resid_post_2", "pixels")
    store = SimpleNamespace(
        path="s.h5", layers=(0, 2), baselines=stored, responses=None, class_logprob=None
    )
    names = [feature.name for feature in select_features(store)]
    behind = ["decoder_resid_post/2", "decoder_resid_post/10"]
    assert names == ["resid_post/0", "resid_post/2", *behind, "pixels"]
    assert [f.name for f in select_features(store, [2])] == ["resid_post/2", behind[0], "pixels"]
    assert [f.name for f in select_features(store, baselines=False)] == names[:2]
    for name in stored:
        assert Feature.parse(Feature.stored(name).name).stored_name == name
