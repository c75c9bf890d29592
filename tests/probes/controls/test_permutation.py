"""The permutation test: which labellings it compares, its statistic, and that it is exact."""

import numpy as np
import pytest
import torch
from scipy.stats import binom
from sklearn.linear_model import RidgeClassifier
from sklearn.preprocessing import StandardScaler

from signbridge.errors import ProbeError
from signbridge.probes import fit_logistic, make_split
from signbridge.probes.controls.permutation import number_of_draws, p_value, summarise
from signbridge.probes.controls.relabelling import Labellings, Relabelling, size_class
from signbridge.probes.controls.score_probe import held_out_hits
from signbridge.probes.dataset.splits import Split


def data(rng, *, classes=3, groups=18, largest=4):
    """Groups of one label and of random sizes."""
    sizes = rng.integers(1, largest + 1, groups)
    label = rng.permutation(np.arange(groups) % classes)
    group = np.repeat(np.arange(groups), sizes)
    return label[group], group


def hits_of(X, y, g, split, draws=39, C=(1.0,), **options):
    labellings = Labellings(Relabelling.of(y, g, split), draws)
    return np.stack(
        [held_out_hits(torch.from_numpy(x), labellings, split, C, **options) for x in X]
    )


# -- which labellings -------------------------------------------------------------------------


def test_groups_of_one_label_change_places_as_wholes_within_their_fold_and_size():
    rng = np.random.default_rng(0)
    y, g = data(rng, groups=60, largest=12)
    split = make_split(y, g, folds=4)
    relabelling = Relabelling.of(y, g, split)
    assert relabelling.structure == "between groups"
    fold, size = split.fold_of_sample, np.bincount(g)
    seen = set()
    for number in range(50):
        drawn = relabelling.labels(number)[relabelling.unit]
        seen.add(drawn.tobytes())
        per_group = [np.unique(drawn[g == k]) for k in range(60)]
        assert all(len(labels) == 1 for labels in per_group)
        for part in range(4):
            for kind in {size_class(int(n)) for n in size}:
                here = [
                    k
                    for k in range(60)
                    if size_class(int(size[k])) == kind and fold[g == k][0] == part
                ]
                before = sorted(y[g == k][0] for k in here)
                assert sorted(per_group[k][0] for k in here) == before
    assert len(seen) == 50
    np.testing.assert_array_equal(relabelling.labels(0)[relabelling.unit], y)


def test_images_of_a_signer_change_places_within_the_signer():
    rng = np.random.default_rng(1)
    y, g = rng.integers(0, 4, 80), np.repeat(np.arange(8), 10)
    split = make_split(y, g, folds=4)
    relabelling = Relabelling.of(y, g, split)
    assert relabelling.structure == "within groups"
    drawn = np.stack([relabelling.labels(number)[relabelling.unit] for number in range(1, 20)])
    assert (drawn != y).any()
    for signer in range(8):
        np.testing.assert_array_equal(
            np.sort(drawn[:, g == signer], axis=1), [np.sort(y[g == signer])] * 19
        )


def test_both_kinds_of_groups_side_by_side():
    y = np.array([0, 1, 0, 1, *[0, 0, 1, 1] * 4])
    g = np.array([0, 0, 1, 1, *np.repeat(np.arange(2, 10), 2)])
    relabelling = Relabelling.of(y, g, make_split(y, g, folds=2))
    assert relabelling.structure == "between and within groups"
    assert relabelling.moving == 4 + 8


def test_groups_that_a_random_split_parts_swap_only_with_their_like():
    rng = np.random.default_rng(2)
    y, g = data(rng, groups=80, largest=2)
    split = make_split(y, g, split="random", folds=4)
    fold = split.fold_of_sample
    relabelling = Relabelling.of(y, g, split)
    for number in range(1, 20):
        drawn = relabelling.labels(number)[relabelling.unit]
        for part in range(4):
            np.testing.assert_array_equal(
                np.bincount(drawn[fold == part], minlength=3),
                np.bincount(y[fold == part], minlength=3),
            )


def test_sizes_of_a_class_differ_by_less_than_the_root_of_two():
    sizes = np.arange(1, 2000)
    kinds = np.array([size_class(int(n)) for n in sizes])
    assert (np.diff(kinds) >= 0).all()
    assert len(set(kinds[:3])) == 3
    for kind in np.unique(kinds):
        own = sizes[kinds == kind]
        assert own[-1] < own[0] * np.sqrt(2)


def test_labellings_do_not_depend_on_what_is_kept():
    y, g = data(np.random.default_rng(3))
    relabelling = Relabelling.of(y, g, make_split(y, g, folds=3), seed=7)
    kept, drawn = Labellings(relabelling, 9), Labellings(relabelling, 9, memory_bytes=0)
    np.testing.assert_array_equal(kept[range(3, 8)], drawn[range(3, 8)])
    other = Labellings(Relabelling.of(y, g, make_split(y, g, folds=3), seed=8), 9)
    assert (other[range(1, 10)] != kept[range(1, 10)]).any()


def test_number_of_labellings():
    y, g = np.array([0, 0, 1, 1] * 2), np.arange(8)
    split = make_split(y, g, folds=2)
    assert Relabelling.of(y, g, split).arrangements == pytest.approx(36)  # (4 over 2) in each fold


# -- the statistic ----------------------------------------------------------------------------


@pytest.mark.parametrize("width", [5, 90])
@pytest.mark.parametrize("classes", [2, 4])
def test_answers_are_those_of_a_ridge_classifier(width, classes):
    """Against scikit-learn, labelling by labelling: fewer features than samples, and more."""
    rng = np.random.default_rng(width + classes)
    y, g = data(rng, classes=classes, groups=30)
    X = rng.normal(size=(len(y), width)) + rng.normal(size=(30, width))[g]
    X[:, 0] = 3.0  # constant
    split = make_split(y, g, folds=3)
    (found,) = hits_of([X.astype(np.float32)], y, g, split, 12, [0.05])
    relabelling = Relabelling.of(y, g, split)
    for number in range(13):
        drawn, right = relabelling.labels(number)[relabelling.unit], 0
        for train, test in split:
            scaler = StandardScaler().fit(X[train])
            ridge = RidgeClassifier(alpha=(4 if classes == 2 else classes) / 0.05)
            ridge.fit(scaler.transform(X[train]), drawn[train])
            right += (ridge.predict(scaler.transform(X[test])) == drawn[test]).sum()
        assert found[number] == right


def test_the_probe_is_one_newton_step_of_the_logistic_objective():
    """Against torch's derivatives of the objective itself, at zero."""
    rng = np.random.default_rng(5)
    y, g = np.arange(45) % 3, np.arange(45)
    X = rng.normal(size=(45, 4)) + np.eye(3, 4)[y]
    split, C = make_split(y, g, folds=3), 0.3
    right = 0
    for train, test in split:
        scaler = StandardScaler().fit(X[train])
        Z, labels = torch.from_numpy(scaler.transform(X[train])), torch.from_numpy(y[train])

        def objective(theta, Z=Z, labels=labels):
            W, b = theta[:12].view(3, 4), theta[12:]
            loss = torch.nn.functional.cross_entropy(Z @ W.T + b, labels)
            return loss + W.square().sum() / (2 * C * len(Z))

        zero = torch.zeros(15, dtype=torch.float64, requires_grad=True)
        gradient = torch.autograd.functional.jacobian(objective, zero)
        hessian = torch.autograd.functional.hessian(objective, zero)
        step = (-torch.linalg.pinv(hessian, hermitian=True) @ gradient).numpy()
        logits = scaler.transform(X[test]) @ step[:12].reshape(3, 4).T + step[12:]
        right += (logits.argmax(1) == y[test]).sum()
    (found,) = hits_of([X], y, g, split, 1, [C])
    assert found[0] == right > 20


def test_of_several_penalties_each_labelling_has_its_best():
    rng = np.random.default_rng(6)
    y, g = data(rng, groups=40)
    X = rng.normal(size=(len(y), 30))
    split = make_split(y, g, folds=3)
    several = hits_of([X], y, g, split, 20, [1e-3, 1.0, 1e3])
    alone = [hits_of([X], y, g, split, 20, [C]) for C in (1e-3, 1.0, 1e3)]
    np.testing.assert_array_equal(several, np.max(alone, axis=0))
    assert len({hits.tobytes() for hits in alone}) == 3


@pytest.mark.parametrize("width", [5, 90])
def test_little_memory_changes_no_answer(width):
    rng = np.random.default_rng(7)
    y, g = data(rng, groups=30)
    X = rng.normal(size=(len(y), width))
    split = make_split(y, g, folds=3)
    plenty = hits_of([X], y, g, split, 20)
    np.testing.assert_array_equal(hits_of([X], y, g, split, 20, memory_bytes=5000), plenty)


def test_a_class_without_a_training_image_is_never_the_answer():
    y = np.r_[np.arange(20) % 2, 2]
    X = np.random.default_rng(8).normal(size=(21, 3))
    split = make_split(y, np.arange(21), folds=2)
    (found,) = hits_of([X], y, np.arange(21), split, 5)
    assert (found <= 20).all()


# -- the p-values -----------------------------------------------------------------------------


def test_p_counts_the_true_labelling():
    assert p_value(3, [1, 2, 3, 4]) == 3 / 5
    assert p_value(9, np.zeros(999)) == 1 / 1000


def test_correction_is_for_the_largest_of_all_layers():
    y, g = np.arange(20) % 2, np.arange(20)
    relabelling = Relabelling.of(y, g, make_split(y, g, folds=2))
    hits = {3: np.array([15, 10, 9, 11, 8]), 5: np.array([12, 9, 13, 16, 7])}
    found = summarise(hits, 20, relabelling, "words")
    assert (found.m, found.layer, found.observed) == (4, 3, 0.75)
    assert found.p == found.by_layer[3].p_corrected == 2 / 5
    assert found.by_layer[3].p == 1 / 5
    assert (found.by_layer[5].p, found.by_layer[5].p_corrected) == (3 / 5, 3 / 5)
    assert found.null_mean == pytest.approx(83 / 8 / 20)
    with pytest.raises(ProbeError, match="one permutation"):
        summarise({}, 20, relabelling, "words")


def test_a_planted_signal_is_found_and_its_layer_alone():
    rng = np.random.default_rng(9)
    y, g = data(rng, groups=40)
    X = rng.normal(size=(3, len(y), 10))
    X[1] += 4 * np.eye(3, 10)[y]
    split = make_split(y, g, folds=4)
    hits = dict(enumerate(hits_of(X, y, g, split, 199)))
    found = summarise(hits, len(y), Relabelling.of(y, g, split), "words")
    assert (found.layer, found.p) == (1, 1 / 200)
    assert found.by_layer[1].p_corrected == 1 / 200
    assert min(found.by_layer[k].p_corrected for k in (0, 2)) > 0.05


NULL = {
    # Vectors are alike within a group: strong duplicates.
    "duplicates": {"groups": 24, "largest": 5},
    # One class has the large groups, so the size of a group gives its label away.
    "sizes": {"groups": 24, "largest": 1, "first": 4},
    "independent": {"groups": 40, "largest": 1},
}


def null_p(kind, repetitions, by_image=False):
    """The p-values of null data sets, for the largest of three layers."""
    rng = np.random.default_rng(10)
    found = []
    for _ in range(repetitions):
        groups = NULL[kind]["groups"]
        label = rng.permutation(np.arange(groups) % 3)
        sizes = rng.integers(1, NULL[kind]["largest"] + 1, groups)
        sizes[label == 0] = NULL[kind].get("first", 1) * sizes[label == 0]
        g = np.repeat(np.arange(groups), sizes)
        y = label[g]
        X = rng.normal(size=(3, groups, 6))[:, g] + 0.01 * rng.normal(size=(3, len(g), 6))
        split = make_split(y, g, folds=3, seed=int(rng.integers(2**31)))
        seed = int(rng.integers(2**31))
        units = np.arange(len(y)) if by_image else g
        labellings = Labellings(Relabelling.of(y, units, split, seed=seed), 39)
        hits = np.stack(
            [held_out_hits(torch.from_numpy(x), labellings, split, [1.0]) for x in X]
        ).max(0)
        found.append(p_value(hits[0], hits[1:]))
    return np.array(found)


@pytest.mark.parametrize("kind", NULL)
def test_labels_that_mean_nothing_are_rejected_in_five_percent(kind):
    """Exact up to ties of whole numbers, which only make it cautious."""
    p = null_p(kind, 120)
    assert (p <= 0.05).sum() <= binom.ppf(0.999, len(p), 0.05)
    # Uniform p-values have the deviation 0.29.
    assert p.mean() == pytest.approx(0.5, abs=4 * 0.29 / np.sqrt(len(p)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", NULL)
def test_five_percent_in_many_repetitions(kind):
    rejected = (null_p(kind, 1000) <= 0.05).mean()
    assert 0.03 <= rejected <= 0.07


def test_permuting_images_instead_of_groups_would_reject_too_often():
    assert (null_p("duplicates", 50, by_image=True) <= 0.05).sum() > 8


def even_split(y, g, folds):
    """Every fold holds as many groups of each class, which scikit-learn before 1.8 misses."""
    place = np.empty(len(y), dtype=int)
    for k in np.unique(y):
        _, number = np.unique(g[y == k], return_inverse=True)
        place[y == k] = number % folds
    parts = [(np.flatnonzero(place != k), np.flatnonzero(place == k)) for k in range(folds)]
    return Split("grouped", tuple(parts), len(y), parts=folds)


@pytest.mark.parametrize("per_group", [1, 4])
def test_shuffled_labels_are_at_chance_under_the_grouped_split(per_group):
    """Also of strong duplicates, which the random split recognises; both probes."""
    rng = np.random.default_rng(11)
    g = np.repeat(np.arange(60), per_group)
    y = g % 4
    X = rng.normal(size=(60, 30))[g] + 0.01 * rng.normal(size=(len(g), 30))
    split = even_split(y, g, folds=5)
    (hits,) = hits_of([X], y, g, split, 999)
    # Each fold holds every class alike, so that chance is 1/4 of each. Groups are the trials.
    deviation = np.sqrt(0.25 * 0.75 / 60)
    assert hits[1:].mean() / len(y) == pytest.approx(0.25, abs=4 * deviation / np.sqrt(999))

    relabelling = Relabelling.of(y, g, split)
    drawn = np.stack([relabelling.labels(k)[relabelling.unit] for k in range(1, 31)])

    def accuracy(chosen):
        fold = chosen.fold_of_sample
        masks = np.stack([fold != k for k in range(5)])
        fit = fit_logistic(
            X, drawn, train=masks, standardise=True, coef=False, decision=True, tol=1e-4
        )
        answer = fit.decision[fold, :, np.arange(len(y))].argmax(-1).T
        return float((answer == drawn).mean())

    assert accuracy(split) == pytest.approx(0.25, abs=4 * deviation / np.sqrt(30))
    if per_group > 1:
        assert accuracy(make_split(y, g, split="random", folds=5)) > 0.9


# -- how many ---------------------------------------------------------------------------------


def test_number_of_permutations(monkeypatch):
    y, g = data(np.random.default_rng(12), groups=40)
    split = make_split(y, g, folds=4)
    relabelling = Relabelling.of(y, g, split)

    def wanted(number):
        return number_of_draws(number, relabelling, split, n_classes=3, n_fits=8)

    assert wanted("auto") == (999, None)
    assert wanted(0) == (0, None)
    assert wanted(17) == (17, None)
    monkeypatch.setattr(
        "signbridge.probes.controls.permutation.WORK", 2.0 * 3 * 8 * len(y) * 40 * 100
    )
    assert wanted("auto") == (99, None)
    monkeypatch.setattr("signbridge.probes.controls.permutation.WORK", 1000.0)
    draws, note = wanted("auto")
    assert draws == 0
    assert "permutations=99 makes them" in note
    assert wanted(500) == (500, None)


def test_few_labellings_make_no_test():
    y, g = np.arange(8) % 2, np.arange(8)
    split = even_split(y, g, folds=4)  # one group of each class in every fold: 2^4 labellings
    relabelling = Relabelling.of(y, g, split)
    for wanted in ("auto", 7):
        found, note = number_of_draws(wanted, relabelling, split, n_classes=2, n_fits=1)
        assert found == 0
        assert "only 16 labellings to compare, so its p-value cannot be below 0.05" in note


def test_where_no_label_can_move_it_says_so():
    rng = np.random.default_rng(13)
    g = np.repeat(np.arange(12), 25)
    y = g % 3
    split = make_split(y, g, split="random", folds=5, seed=int(rng.integers(100)))
    relabelling = Relabelling.of(y, g, split)
    draws, note = number_of_draws("auto", relabelling, split, n_classes=3, n_fits=1)
    assert draws == 0
    assert "use split=grouped" in note
