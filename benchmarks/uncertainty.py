"""Do the intervals cover, and do the tests keep their level? A simulation with known answers.

    python benchmarks/uncertainty.py                    # 500 repetitions of everything
    python benchmarks/uncertainty.py --case intervals --repetitions 2000

Predictions are drawn from a population whose scores are known: groups of unequal sizes, whose
images share most of what makes them hard, several classes that are read unequally well, layers
whose errors are alike. `end_to_end` trains real probes in grouped folds instead, on features from a
known population; there the answer is what these very probes would score on 8,000 fresh images.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from counts import count
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from signbridge.probes.comparisons import ALPHA
from signbridge.probes.controls.permutation import summarise
from signbridge.probes.controls.relabelling import Labellings, Relabelling
from signbridge.probes.controls.score_probe import held_out_hits
from signbridge.probes.dataset.splits import make_split
from signbridge.probes.exact.logistic import fit_logistic
from signbridge.statistics.bootstrap import ClusterBootstrap, Scored, paired_difference
from signbridge.statistics.few_groups import paired_tests
from signbridge.statistics.intervals import share_intervals
from signbridge.statistics.metrics import METRICS, group_sums, metrics_of_sums, outcomes

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Row = dict[str, str]


@dataclass(frozen=True)
class Design:
    """How images come in groups.

    Attributes:
        classes: number of classes.
        groups: groups of each class; of all classes together where groups are mixed.
        images: mean number of images in a group.
        spread: of the groups' sizes; the smaller, the more unequal (negative binomial).
        image_noise: how images of a group differ; 0 makes them copies.
        mixed: whether a group holds images of all classes, as a signer does.
    """

    classes: int
    groups: int
    images: float
    spread: float = 2.0
    image_noise: float = 0.7
    mixed: bool = False

    @property
    def name(self) -> str:
        """In words."""
        groups = self.groups * (1 if self.mixed else self.classes)
        kind = "signers" if self.mixed else "copies" if self.image_noise == 0 else "groups"
        return f"{groups * self.images:.0f} images, {groups} {kind}, {self.classes} classes"

    def classes_of_groups(self, times: int = 1) -> Ints:
        """Class of each group (of mixed ones it says nothing)."""
        return np.repeat(np.arange(1 if self.mixed else self.classes), self.groups * times)


DESIGNS = (
    Design(4, 5, 5),
    Design(4, 10, 5),
    Design(5, 20, 6, image_noise=0),
    Design(10, 10, 2.5, spread=1),
    Design(10, 6, 17),
    Design(24, 10, 4, spread=1),
    Design(10, 20, 20, spread=4, mixed=True),
)
FEW = tuple(
    Design(10, signers, 20, spread=spread, mixed=True)
    for signers in (3, 5, 8)
    for spread in (1000, 4, 1)
)
"""Few signers, of about as many images each, of unequal and of very unequal numbers."""
LEVELS = {"hard": (0.2, 1.0), "middling": (1.0, 3.0), "easy": (3.5, 5.0)}
"""How far the own class's logit is raised, in the worst and the best class."""


def signal(design: Design, low: float, high: float) -> Floats:
    """How far each class's logit is raised."""
    return np.linspace(low, high, design.classes) + 0.35 * math.log(design.classes / 4)


def predict(
    rng: np.random.Generator, design: Design, signals: Sequence[Floats], times: int = 1
) -> tuple[list[Floats], Ints, Ints]:
    """Probabilities of several features whose errors correlate, labels and groups."""
    K, of_group = design.classes, design.classes_of_groups(times)
    n_groups, more = len(of_group), design.images - 1
    share = design.spread / (design.spread + more)
    g = np.repeat(np.arange(n_groups), 1 + rng.negative_binomial(design.spread, share, n_groups))
    y = rng.integers(K, size=len(g)) if design.mixed else of_group[g]
    between, within = rng.normal(size=(n_groups, K)), rng.normal(size=(len(g), K))
    skill = 0.7 * rng.normal(size=(n_groups, K))[g, y] if design.mixed else 0.0
    common, own = math.sqrt(0.7), math.sqrt(0.3)
    found = []
    for raised in signals:
        z = (common * between + own * rng.normal(size=between.shape))[g]
        if design.image_noise:
            z += design.image_noise * (common * within + own * rng.normal(size=within.shape))
        z[np.arange(len(g)), y] += raised[y] + skill
        z = np.exp(1.2 * (z - z.max(1, keepdims=True)))
        found.append(z / z.sum(1, keepdims=True))
    return found, y, g


def truth(design: Design, signals: Sequence[Floats]) -> list[tuple[dict[str, float], Floats]]:
    """Scores and recalls over 40,000 groups."""
    times = 40_000 // len(design.classes_of_groups())
    found, y, g = predict(np.random.default_rng(99), design, signals, times)
    answers = []
    for p in found:
        whole = group_sums(outcomes(p, y), g).whole
        metrics = metrics_of_sums(whole)
        recall = whole["hits"] / whole["support"]
        answers.append(({name: float(value) for name, value in metrics.items()}, recall))
    return answers


class Covered:
    """Counts how often intervals hold the truth."""

    def __init__(self) -> None:
        self.count: dict[str, list[float]] = {}

    def add(self, name: str, low: float, high: float, known: float) -> None:
        """Count an interval; rounding is no miss."""
        self.count.setdefault(name, []).append(low - 1e-12 <= known <= high + 1e-12)

    def row(self) -> Row:
        """Percentages."""
        return {name: f"{100 * float(np.mean(hit)):.1f}" for name, hit in self.count.items()}


def add_scores(covered: Covered, scored: Scored, known: dict[str, float]) -> None:
    """Count the intervals of all metrics; bits are those of the sample's own class shares."""
    for metric in METRICS:
        if metric != "usable_information":  # minus the cross-entropy, so covered with it
            interval = scored.intervals[metric]
            covered.add(metric, interval.low, interval.high, known[metric])


def intervals(
    repetitions: int, draws: int, designs: Sequence[Design], levels: Sequence[str] = tuple(LEVELS)
) -> Iterator[Row]:
    """Coverage with the predictors held fixed, and of a difference from a slightly better one."""
    for design in designs:
        for low, high in (LEVELS[level] for level in levels):
            signals = [signal(design, low, high), signal(design, low + 0.4, high + 0.3)]
            known, rng, covered = truth(design, signals), np.random.default_rng(0), Covered()
            for repetition in range(repetitions):
                found, y, g = predict(rng, design, signals)
                bootstrap = ClusterBootstrap(g, repetitions=draws, seed=repetition)
                first, second = (bootstrap.scored(p, y) for p in found)
                add_scores(covered, first, known[0][0])
                lows, highs = share_intervals(found[0].argmax(1) == y, y, g, design.classes)
                for ends in zip(lows, highs, known[0][1], strict=True):
                    covered.add("class recall", *ends)
                for metric, name in (("accuracy", "difference"), ("cross_entropy", "of CE")):
                    gap = paired_difference(first, second, metric)
                    covered.add(name, gap.low, gap.high, known[0][0][metric] - known[1][0][metric])
            yield {
                "data": design.name,
                "accuracy is": f"{known[0][0]['accuracy']:.2f}",
                **covered.row(),
            }


def null(
    repetitions: int,
    flips: int,
    designs: Sequence[Design],
    kinds: Sequence[str] = ("alike", "unlike", "one best"),
) -> Iterator[Row]:
    """Share of p < 0.05 where all of 8 layers and a baseline do equally well, and the peak's set.

    "unlike": equal accuracies, but every other feature reads the classes well that its neighbour
    reads badly. "one best": the sixth of 8 layers is the best, by some points of accuracy.
    """
    layers = list(range(8))
    for design in designs:
        for kind in kinds:
            flat = signal(design, *LEVELS["middling"])
            signals = [flat[::-1] if kind == "unlike" and k % 2 else flat for k in range(9)]
            if kind == "one best":
                signals = [flat + 1.0 - 0.2 * abs(k - 5) for k in range(9)]
            rng = np.random.default_rng(0)
            hits: dict[str, list[float]] = {}
            for repetition in range(repetitions):
                found, y, g = predict(rng, design, signals)
                sums = [group_sums(outcomes(p, y), g).groups for p in found]
                correct, log_probability = (
                    np.stack([one[name] for one in sums], axis=1)
                    for name in ("correct", "log_probability")
                )
                size = sums[0]["samples"]
                test = paired_tests(correct, size, flips=flips, seed=repetition)
                bits = paired_tests(log_probability, size, flips=flips, seed=repetition)
                peak = int(correct[:, :8].sum(0).argmax())
                candidate = test.best(layers) >= ALPHA
                one = {"candidates": float(candidate.sum()), "hold the best": candidate[5]}
                if kind != "one best":
                    # Any of them is the best: each must be covered.
                    one["hold the best"] = float(candidate.mean())
                    one |= {
                        "p": test.family([0], [1]).p[0] < ALPHA,
                        "p, bits": bits.family([0], [1]).p[0] < ALPHA,
                        "family: peak": (test.against(peak, layers).corrected < ALPHA).any(),
                        "adjacent": (test.family(layers[1:], layers[:-1]).corrected < ALPHA).any(),
                        "baseline": (test.family(layers, [8] * 8).corrected < ALPHA).any(),
                    }
                for name, value in one.items():
                    hits.setdefault(name, []).append(float(value))
            order = ("p", "p, bits", "family: peak", "adjacent", "baseline", "hold the best")
            row = {
                name: f"{100 * np.mean(hits[name]):.1f}" if name in hits else "" for name in order
            }
            number = f"{np.mean(hits['candidates']):.1f}"
            yield {"data": design.name, "layers": kind, **row, "candidates of 8": number}


def features(
    rng: np.random.Generator, y: Ints, g: Ints, centres: Floats, repetitions: int
) -> Floats:
    """Class centres with noise of groups and of images, shape (repetitions, samples, features)."""
    n_groups, width = int(g.max()) + 1, centres.shape[1]
    between = rng.normal(size=(repetitions, n_groups, width))[:, g]
    return centres[y] + between + 0.7 * rng.normal(size=(repetitions, len(y), width))


def end_to_end(repetitions: int, draws: int, cases: Sequence[tuple[Design, int]]) -> Iterator[Row]:
    """Probes trained in 5 grouped folds: coverage of what they, and what others, would score."""
    for design, width in cases:
        rng = np.random.default_rng(0)
        K, of_group = design.classes, design.classes_of_groups()
        g = np.repeat(np.arange(len(of_group)), 1 + rng.poisson(design.images - 1, len(of_group)))
        y = of_group[g]
        centres = 0.9 * math.sqrt(16 / width) * rng.normal(size=(K, width))
        split = make_split(y, g, folds=5, seed=0)
        train = np.stack([np.isin(np.arange(len(y)), part) for part, _ in split])
        fold, covered = split.fold_of_sample, Covered()
        answers, ends = [], []
        for repetition in range(repetitions):
            X = features(rng, y, g, centres, 1)
            # A second layer, with the same photographs and a little more to be read from them.
            X = np.concatenate([X, X + 0.15 * centres[y] + 0.5 * rng.normal(size=X.shape)])
            fit = fit_logistic(X, y, C=0.1, train=train, standardise=True, decision=True, tol=1e-5)
            held_out = np.asarray(fit.decision)[:, fold, np.arange(len(y))]
            p = np.exp(held_out - held_out.max(-1, keepdims=True))
            p /= p.sum(-1, keepdims=True)
            known = fresh_scores(fit, 0, centres, 1.49, y, fold, repetition)
            better = fresh_scores(fit, 1, 1.15 * centres, 1.74, y, fold, repetition)
            bootstrap = ClusterBootstrap(g, repetitions=draws, seed=repetition)
            first, second = bootstrap.scored(p[0], y), bootstrap.scored(p[1], y)
            for column, metric in enumerate(("accuracy", "balanced_accuracy", "cross_entropy")):
                one = first.intervals[metric]
                covered.add(metric, one.low, one.high, known[column])
            gap = paired_difference(first, second)
            covered.add("difference", gap.low, gap.high, known[0] - better[0])
            answers.append(known[0])
            ends.append((first.intervals["accuracy"].low, first.intervals["accuracy"].high))
        mean = float(np.mean(answers))
        for low, high in ends:
            covered.add("accuracy of any such probes", low, high, mean)
        yield {
            "data": f"{len(y)} images, {len(of_group)} groups, {K} classes, {width} features",
            "accuracy is": f"{mean:.2f}",
            **covered.row(),
        }


def fresh_scores(
    fit: Any, layer: int, centres: Floats, variance: float, y: Ints, fold: Ints, seed: int
) -> Floats:
    """Accuracy, balanced accuracy and cross-entropy of one layer's fold probes on new images.

    Every fold's probe counts as its test part does, every class as in the sample. Of an image of
    normal noise the logits are normal too, so these are drawn, and not its features.
    """
    K, images = len(centres), 8_000 // len(centres)
    noise = np.random.default_rng([7, seed]).normal(size=(K, images, K))
    share = np.bincount(y, minlength=K) / len(y)
    total = np.zeros(3)
    for k, weight in enumerate(np.bincount(fold) / len(fold)):
        W = fit.coef[layer, k] / fit.deviation[layer, k]
        middle = (centres - fit.mean[layer, k]) @ W.T + fit.intercept[layer, k]
        values, vectors = np.linalg.eigh(variance * W @ W.T)
        root = vectors * np.sqrt(np.maximum(values, 0))
        z = middle[:, None] + noise @ root.T
        z -= z.max(-1, keepdims=True)
        own = z[np.arange(K), :, np.arange(K)]
        loss = (np.log(np.exp(z).sum(-1)) - own).mean(1)
        right = (own == 0).mean(1)
        total += weight * np.array([right @ share, right.mean(), loss @ share])
    return total


def permutation(
    repetitions: int, draws: int, cases: Sequence[Design], layers: int = 4
) -> Iterator[Row]:
    """Share of p < 0.05 of the permutation test, on labels that mean nothing."""
    for design in cases:
        rng, rejected, alone = np.random.default_rng(0), [], []
        for repetition in range(repetitions):
            of_group = rng.permutation(design.classes_of_groups())
            g = np.repeat(
                np.arange(len(of_group)), 1 + rng.poisson(design.images - 1, len(of_group))
            )
            y = of_group[g]
            split = make_split(y, g, folds=5, seed=repetition)
            relabelling = Relabelling.of(y, g, split, seed=repetition)
            X = features(rng, y, g, np.zeros((design.classes, 32)), layers)
            X += 0.7 * X[:1]  # layers are alike
            labellings = Labellings(relabelling, draws)
            hits = {
                layer: held_out_hits(torch.tensor(X[layer]), labellings, split, [1.0])
                for layer in range(layers)
            }
            found = summarise(hits, len(y), relabelling, "accuracy")
            rejected.append(found.p < ALPHA)
            alone.append(found.by_layer[0].p < ALPHA)
        yield {
            "data": design.name,
            f"largest of {layers} layers": f"{100 * np.mean(rejected):.1f}",
            "one layer": f"{100 * np.mean(alone):.1f}",
        }


def table(rows: list[Row]) -> str:
    """Markdown."""
    names = list(rows[0])
    lines = [" | ".join(names), " | ".join(["---"] * 1 + ["---:"] * (len(names) - 1))]
    lines += [" | ".join(row[name] for name in names) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def main() -> None:
    """Run the cases and print their tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    small = (DESIGNS[0], DESIGNS[1], DESIGNS[3], DESIGNS[4])
    trained = [(DESIGNS[k], width) for k, width in ((0, 16), (1, 16), (3, 16), (1, 400), (3, 400))]
    trained.append((Design(10, 30, 2.5), 400))
    cases: dict[str, Callable[[int], Iterator[Row]]] = {
        "intervals": lambda n: intervals(n, 1000, DESIGNS),
        "null": lambda n: null(n, 499, DESIGNS),
        "few": lambda n: intervals(n, 300, FEW, levels=("middling", "easy")),
        "few_null": lambda n: null(n, 499, FEW, kinds=("alike", "one best")),
        "end_to_end": lambda n: end_to_end(n, 1000, trained),
        "permutation": lambda n: permutation(n, 199, small),
    }
    parser.add_argument("--case", choices=[*cases, "all"], default="all")
    parser.add_argument("--repetitions", type=count, default=500)
    parser.add_argument("--quick", action="store_true", help="40 repetitions, to see that it runs")
    arguments = parser.parse_args()
    repetitions = 40 if arguments.quick else arguments.repetitions
    torch.set_num_threads(1)
    with threadpool_limits(1):
        for name, case in cases.items():
            if arguments.case in (name, "all"):
                start = time.perf_counter()
                rows = list(case(repetitions))
                seconds = time.perf_counter() - start
                print(
                    f"\n{name}: {repetitions} repetitions, {seconds:.0f} s\n\n{table(rows)}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
