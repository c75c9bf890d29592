import csv
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import accuracy_score, log_loss

from signbridge.probes.controls.answers import (
    count_answers,
    said_against_known,
    sentence,
    write_answers,
    zero_shot,
)
from signbridge.results.features import ZERO_SHOT, Feature
from signbridge.results.summary import Bits, Said, SaidText
from signbridge.statistics.bootstrap import ClusterBootstrap

N, K = 120, 4


@pytest.fixture
def store():
    rng = np.random.default_rng(0)
    labels = np.arange(N) % K
    return SimpleNamespace(
        labels=labels,
        class_names=("A", "B", "C", "up"),
        responses=[("fist", "Fist.", "A", "up")[label] for label in labels],
        class_logprob=rng.normal(size=(N, K)).astype(np.float32) - 3,
        provenance={},
    )


def noisy(labels, sharpness, seed=1):
    logits = np.random.default_rng(seed).normal(size=(len(labels), K))
    logits[np.arange(len(labels)), labels] += sharpness
    return softmax(logits, axis=1).astype(np.float32)


@pytest.fixture
def scores(store):
    bootstrap = ClusterBootstrap(np.arange(N), repetitions=200, seed=0)
    made = {
        "resid_post/2": noisy(store.labels, 4),
        "text": noisy(store.labels, 1, seed=2),
        "forced_choice": noisy(store.labels, 0.5, seed=3),
        ZERO_SHOT: zero_shot(store.class_logprob, store.labels),
    }
    return {name: bootstrap.scored(values, store.labels) for name, values in made.items()}


def test_zero_shot_shares_all_among_the_classes_that_occur(store):
    labels = np.where(store.labels == 3, 0, store.labels)
    got = zero_shot(store.class_logprob, labels)
    np.testing.assert_allclose(got[:, :3], softmax(store.class_logprob[:, :3], axis=1), rtol=1e-5)
    assert (got[:, 3] == 0).all()


def test_bits_are_entropy_less_cross_entropy(store, scores, tmp_path):
    answers = write_answers(store, tmp_path / "answers.csv")
    said = said_against_known(answers, store.labels, scores, Feature("resid_post", 2))
    known = noisy(store.labels, 4).astype(float)
    bits = 2 - log_loss(store.labels, known / known.sum(1, keepdims=True)) / np.log(2)
    assert said.class_entropy == pytest.approx(2)
    assert said.known.bits == pytest.approx(bits, abs=1e-5)
    assert said.text.known_minus_said.bits == pytest.approx(said.known.bits - said.text.bits)
    reference = softmax(store.class_logprob, axis=1)
    choice = said.forced_choice.zero_shot
    assert choice["accuracy"].value == accuracy_score(store.labels, reference.argmax(1))
    assert choice["usable_information"].value == pytest.approx(
        2 - log_loss(store.labels, reference.astype(float)) / np.log(2), abs=1e-4
    )
    assert said.text.names_class == 0.25  # "up"; "A" is said of C
    assert said.text.distinct_answers == 3
    assert said.sentence.startswith("Layer 2 knows ")
    assert "The layer knows more than is said" in said.sentence


def test_nothing_said_is_nothing_to_compare(store, scores):
    only = {"resid_post/2": scores["resid_post/2"]}
    assert said_against_known([], store.labels, only, Feature("resid_post", 2)) is None


@pytest.mark.parametrize(
    ("ci", "ending"),
    [
        ([0.2, 1.1], "The layer knows more than is said: 0.6 (0.2 to 1.1) bits."),
        ([-0.2, 1.1], "The difference, 0.6 (−0.2 to 1.1) bits, may be chance."),
        ([np.nan, np.nan], "So few groups permit no test of the difference, 0.6 bits."),
        ([-1.1, -0.2], "More is said than a linear probe finds in the layer."),
    ],
)
def test_the_sentence_claims_no_more_than_the_interval(ci, ending):
    said = Said(
        layer=5,
        class_entropy=4.58,
        known=Bits(2.9),
        text=SaidText(bits=1.2, known_minus_said=Bits(0.62, tuple(ci))),
    )
    assert sentence(said) == f"Layer 5 knows 2.9 of 4.6 bits; the answer says 1.2. {ending}"


def test_answers_are_counted_in_a_file(store, tmp_path):
    write_answers(store, tmp_path / "answers.csv")
    with (tmp_path / "answers.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["class_name"], row["answer"], row["count"]) for row in rows] == [
        ("A", "fist", "30"),
        ("B", "fist", "30"),
        ("C", "a", "30"),
        ("up", "up", "30"),
    ]
    assert [row["names_class"] for row in rows] == ["false", "false", "false", "true"]


def test_a_store_without_answers_gets_no_file(tmp_path):
    assert write_answers(SimpleNamespace(responses=None), tmp_path / "answers.csv") == []
    assert not list(tmp_path.iterdir())


def test_the_same_answer_is_counted_once_however_it_is_written():
    counts = count_answers(
        ["Fist", "fist.", "A", "peace", "x"], np.array([0, 0, 0, 1, -1]), ["A", "B", "C"]
    )
    assert [(c.class_name, c.answer, c.count, c.names_class) for c in counts] == [
        ("A", "fist", 2, False),
        ("A", "a", 1, True),
        ("B", "peace", 1, False),
    ]
    assert counts[0].share == pytest.approx(2 / 3)


def test_answers_are_judged_by_the_words_that_stand_for_classes():
    counts = count_answers(["a fist", "zebra"], np.array([0, 0]), ["zebra"], ["fist"])
    assert [(row.answer, row.names_class) for row in counts] == [("a fist", True), ("zebra", False)]
    assert {row.class_name for row in counts} == {"zebra"}
