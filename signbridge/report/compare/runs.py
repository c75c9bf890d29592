"""Which results are compared, what differs between them, and what speaks against comparing them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signbridge.errors import ProbeError
from signbridge.report.figures import style
from signbridge.results.format import MOST_COMPARED
from signbridge.results.records import to_json
from signbridge.results.results import Results, load_results
from signbridge.statistics.metrics import METRICS
from signbridge.store.settings import comparable

__all__ = [
    "DEPTH_LABEL",
    "Difference",
    "Run",
    "depth_axis",
    "layer_words",
    "layers_by_depth",
    "legend_texts",
    "load_runs",
    "relative_depth",
    "warnings_of",
    "what_differs",
]

DEPTH_LABEL = "relative depth of the decoder layer (0 = first, 1 = last)"

_ABSENT = "–"
# These follow from others that are shown, or differ between any two stores.
_DERIVED = frozenset(
    {"weights_sha256", "image_fingerprint", "quantized_modules", "quantization_skipped"}
)
_NOT_IN_PROTOCOL = frozenset({"description"})


@dataclass(frozen=True)
class Run:
    """One results folder of a comparison.

    Attributes:
        name: What it is called, different from every other run's name.
        results: The folder's content.
    """

    name: str
    results: Results


@dataclass(frozen=True)
class Difference:
    """A setting that is not the same in all runs.

    Attributes:
        key: Its name.
        values: Its value in each run, in words.
    """

    key: str
    values: tuple[str, ...]


def load_runs(paths: Sequence[str | Path]) -> list[Run]:
    """Read the results folders of a comparison.

    Args:
        paths: Two to eight results folders.

    Returns:
        The runs, in this order.

    Raises:
        ProbeError: Fewer than two folders or more than eight, one given twice, or one that is not
            a whole results folder.
    """
    if len(paths) < 2:
        raise ProbeError(
            f"compare needs two or more results folders, not {len(paths)}: signbridge compare "
            "results/A results/B."
        )
    if len(paths) > MOST_COMPARED:
        raise ProbeError(
            f"compare draws at most {MOST_COMPARED} results folders on one curve, not "
            f"{len(paths)}: leave some out."
        )
    seen: dict[Path, str | Path] = {}
    for path in paths:
        place = Path(path).resolve()
        if place in seen:
            also = f" (also as {seen[place]})" if str(seen[place]) != str(path) else ""
            raise ProbeError(f"{path} is given twice{also}: give each results folder once.")
        seen[place] = path
    found = [load_results(path) for path in paths]
    return [Run(n, r) for n, r in zip(_names([r.path for r in found]), found, strict=True)]


def _names(paths: Sequence[Path]) -> list[str]:
    """The shortest tails of the paths that differ."""
    parts = [Path(path).resolve().parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-length:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def legend_texts(runs: Sequence[Run]) -> list[str]:
    """Each run's name, with the settings that tell it from the others where these are few."""
    told = [d for d in what_differs(runs) if d.key not in {"seed", "image source"}][:2]
    telling = sorted(((d.key, _telling(d.values)) for d in told), key=lambda x: max(map(len, x[1])))
    texts = []
    for number, run in enumerate(runs):
        words = [f"{key} {style.short(values[number], 40)}" for key, values in telling]
        texts.append(f"{run.name} ({', '.join(words)})" if words else run.name)
    return texts


def _telling(values: Sequence[str]) -> list[str]:
    """The values without the words that all of them begin or end with."""
    words = [value.split() for value in values]
    least = min(map(len, words))
    start = next((i for i in range(least) if len({w[i] for w in words}) > 1), least)
    rest = [w[start:] for w in words]
    least = min(map(len, rest))
    stop = next((i for i in range(least) if len({w[-1 - i] for w in rest}) > 1), least)
    if start + stop < 3:
        return list(values)
    return [
        ("…" if start else "") + " ".join(w[: len(w) - stop]) + ("…" if stop else "") for w in rest
    ]


def what_differs(runs: Sequence[Run]) -> list[Difference]:
    """Settings of model, images and protocol that are not the same in all runs.

    Args:
        runs: The runs.

    Returns:
        Only what differs, provenance before protocol. Checksums are left out where a name beside
        them differs as well.
    """
    found = _differing(comparable([run.results.provenance for run in runs]), frozenset())
    named = [d for d in found if d.key not in {_words(k) for k in _DERIVED}]
    found = named or found
    protocol = [to_json(run.results.protocol) for run in runs]
    return found + _differing(protocol, _NOT_IN_PROTOCOL)


def _differing(mappings: Sequence[Mapping[str, Any]], left_out: frozenset[str]) -> list[Difference]:
    keys = dict.fromkeys(key for mapping in mappings for key in mapping)
    found = []
    for key in keys:
        values = [mapping.get(key) for mapping in mappings]
        if key not in left_out and any(value != values[0] for value in values):
            found.append(Difference(_words(key), tuple(_value(value) for value in values)))
    return found


def _words(key: str) -> str:
    return str(key).replace("_", " ")


def _value(value: object) -> str:
    if value is None or value == "":
        return _ABSENT
    if isinstance(value, list):
        return ", ".join(map(str, value)) or _ABSENT
    return style.printable(str(value))


def depth_axis(runs: Sequence[Run]) -> bool:
    """Whether the runs are drawn over relative depth, because their layer counts differ."""
    return len({run.results.n_layers for run in runs}) > 1


def relative_depth(run: Run, layer: int) -> float:
    """How deep a layer lies in its model: 0 for the first, 1 for the last."""
    return layer / max(1, run.results.n_layers - 1)


def layer_words(run: Run, layer: int | None, runs: Sequence[Run]) -> str:
    """A layer in words, with its relative depth where the runs are drawn over it."""
    words = f"layer {layer}"
    if layer is not None and depth_axis(runs):
        words += f", relative depth {relative_depth(run, layer):.2f}"
    return words


def layers_by_depth(one: Run, two: Run) -> list[tuple[int, int]]:
    """Pair the probed layers of two runs: by number, or by relative depth where depths differ.

    Of models of different depth, each layer of the one with fewer is paired with the layer of the
    other that is nearest by relative depth (of two as near, the earlier).

    Args:
        one: A run.
        two: Another one.

    Returns:
        Pairs of a layer of ``one`` and a layer of ``two``, ascending.
    """
    if not depth_axis([one, two]):
        return [(k, k) for k in one.results.layers if k in two.results.layers]
    if one.results.n_layers > two.results.n_layers:
        return [(a, b) for b, a in layers_by_depth(two, one)]
    return [
        (
            k,
            min(
                two.results.layers,
                key=lambda other: abs(relative_depth(two, other) - relative_depth(one, k)),
            ),
        )
        for k in one.results.layers
    ]


def warnings_of(runs: Sequence[Run]) -> list[str]:
    """Why the runs may not be comparable, in sentences.

    Args:
        runs: The runs.

    Returns:
        Empty where nothing speaks against it.
    """
    found = []
    first = runs[0]
    for run in runs[1:]:
        a, b = first.results, run.results
        if set(a.class_names) != set(b.class_names):
            found.append(
                f"{run.name} has {_classes(b)} where {first.name} has {_classes(a)}: "
                f"{_other_classes(a, b)}."
            )
        stacks = [r.provenance.get("stack", "decoder") for r in (b, a)]
        if stacks[0] != stacks[1]:
            found.append(
                f"The layers of {run.name} are those of its {stacks[0]} and the layers of "
                f"{first.name} those of its {stacks[1]}."
            )
        if a.split != b.split:
            found.append(
                f"{run.name} is scored with {style.split_label(b.split)} and {first.name} with "
                f"{style.split_label(a.split)}: the difference holds the leakage of the splits."
            )
        elif a.protocol.folds != b.protocol.folds:
            found.append(
                f"{run.name} has {b.protocol.folds} folds and {first.name} {a.protocol.folds}: "
                "their probes were trained on different numbers of images."
            )
        elif a.protocol.seed != b.protocol.seed:
            found.append(
                f"{run.name} and {first.name} have different seeds, so other folds: part of a "
                "difference is the choice of folds."
            )
        found += _samples(first, run)
        for key in ("solver", "C"):
            mine, theirs = (to_json(getattr(r.protocol, key)) for r in (b, a))
            if mine != theirs:
                found.append(
                    f"{run.name} has {key} {_value(mine)} and {first.name} {_value(theirs)}: the "
                    "probes differ, not only what they read."
                )
        missing = sorted(
            name
            for name in (set(a.metrics) ^ set(b.metrics)) & set(METRICS)
            if METRICS[name].shown(len(a.class_names))
        )
        if missing:
            found.append(
                f"{run.name} and {first.name} do not share the metrics {', '.join(missing)}."
            )
    return found


def _other_classes(a: Results, b: Results) -> str:
    """What follows from other classes."""
    if not math.isclose(_chance(a), _chance(b), rel_tol=1e-6):
        return "their accuracies have different chance levels and are not comparable"
    names = [{name.strip().casefold() for name in r.class_names} for r in (a, b)]
    if names[0] == names[1]:
        return "if these are the same classes, write their names alike; then they can be compared"
    return "other classes may be easier or harder to tell apart, so they are not comparable"


def _chance(results: Results) -> float:
    chance = results.summary.chance
    return chance if math.isfinite(chance) else 1 / len(results.class_names)


def _classes(results: Results) -> str:
    n = len(results.class_names)
    return f"{n} classes ({style.short(', '.join(results.class_names), 60)})"


def _samples(first: Run, run: Run) -> list[str]:
    a, b = first.results.predictions, run.results.predictions
    if set(a.sample_id) == set(b.sample_id):
        return []
    common = len(set(a.sample_id) & set(b.sample_id))
    return [
        f"{run.name} and {first.name} score different images ({len(b.sample_id):,} and "
        f"{len(a.sample_id):,}, {common:,} ids in common): their curves differ by the images as "
        "well."
    ]
