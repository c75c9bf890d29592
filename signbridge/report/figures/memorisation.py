"""What probes score by recognising groups: the control task under a random split."""

from __future__ import annotations

import math

from signbridge.report.figures import style
from signbridge.report.figures.curve_drawing import Line, curve_plot
from signbridge.report.figures.layer_curve import BASELINE_STYLES, subtitle
from signbridge.report.figures.plot import Plot
from signbridge.results.features import RESID_POST, UNTRAINED
from signbridge.results.format import CONTROL_TASK
from signbridge.results.results import Results, Score
from signbridge.store.provenance import grouping

__all__ = ["memorisation_figure", "selectivity_figure"]

_COLUMNS = ("feature", "layer", "split", "task", "metric", "value", "ci_low", "ci_high")
_HEIGHT = (4.3, 4.8)


def memorisation_figure(results: Results) -> Plot | None:
    """Draw the accuracy on the control task beside that on the true labels, over the layers.

    Args:
        results: A results folder.

    Returns:
        The figure, or None where the control task (Hewitt & Liang 2019) was not run. Columns of its
        data: feature, layer, split, task, metric, value, ci_low, ci_high.
    """
    control = tuple(results.curve(RESID_POST, "accuracy", "random", CONTROL_TASK))
    if not control:
        return None
    label = tuple(results.curve(RESID_POST, "accuracy", "random"))
    grouped = tuple(results.curve(RESID_POST, "accuracy", results.split))
    words = grouping(results.provenance)
    new = "new images" if words.kind == "none" else f"new {words.many.split(' of ')[0]}"
    curves = []
    if results.split != "random" and grouped:
        name = f"true labels, {new} ({style.split_label(results.split)})"
        curves.append(Line(name, style.COLOURS["blue"], "-", grouped))
    if label:
        curves.append(
            Line("true labels, random split", style.COLOURS["vermillion"], (0, (5, 2)), label)
        )
    curves.append(Line("random labels, random split", style.INK, "-", control, main=True))
    baselines = [
        Line(
            f"{style.feature_label(s.feature)}, random labels",
            *BASELINE_STYLES.get(s.feature, (style.COLOURS["sky"], (0, (5, 1)))),
            (s,),
        )
        for s in results.baselines("accuracy", "random", CONTROL_TASK)
        if s.feature not in UNTRAINED
    ]
    chance = next(
        (s for s in results.baselines("accuracy", "random", CONTROL_TASK) if s.feature == "chance"),
        results.score("chance", None, "accuracy"),
    )
    guess = results.summary.memorisation
    if guess is not None and math.isfinite(guess.majority):
        often = Score("majority", None, "", "random", CONTROL_TASK, "accuracy", guess.majority)
        name = "most frequent random label"
        baselines.append(Line(name, *BASELINE_STYLES["majority"], (often,)))
    elif chance is not None:
        baselines.append(Line("chance", *BASELINE_STYLES["chance"], (chance,)))
    best = results.score(RESID_POST, results.best_layer, "accuracy", "random", CONTROL_TASK)
    at_best = "" if best is None else (
        f": {style.format_value('accuracy', best.value)} at layer {results.best_layer}"
    )  # fmt: skip
    return curve_plot(
        "memorisation",
        curves,
        baselines,
        "accuracy",
        heading="Accuracy on the control task: random labels",
        subtitle=subtitle(results, None),
        axis=f"{results.stack} layer (0 = first)",
        title="Memorisation",
        caption=(
            f"Control task: one random label for {_one(results)}. What lies above a guess is "
            "recognition of images seen in training." + _note(results)
        ),
        alt=f"Accuracy on the control task under a random split{at_best}.",
        height=_HEIGHT,
        columns=_COLUMNS,
    )


def selectivity_figure(results: Results) -> Plot | None:
    """Draw the selectivity over the layers: accuracy on true labels minus that on random ones.

    Args:
        results: A results folder.

    Returns:
        The figure, or None where it was not measured. Columns as of :func:`memorisation_figure`.
    """
    scores = tuple(results.curve(RESID_POST, "selectivity", "random"))
    if not scores:
        return None
    baselines = [
        Line(
            style.feature_label(s.feature),
            *BASELINE_STYLES.get(s.feature, (style.COLOURS["sky"], (0, (5, 1)))),
            (s,),
        )
        for s in results.baselines("selectivity", "random")
        if s.feature not in UNTRAINED
    ]
    return curve_plot(
        "selectivity",
        [Line(f"{results.stack} layers", style.COLOURS["blue"], "-", scores, main=True)],
        baselines,
        "selectivity",
        heading="True minus random labels, both under a random split",
        subtitle=subtitle(results, None),
        axis=f"{results.stack} layer (0 = first)",
        title="Selectivity",
        caption=(
            "Accuracy on the true labels minus that on the control task, paired (Hewitt & "
            "Liang 2019). Near 0 it is recognition alone."
        ),
        alt=f"Selectivity by {results.stack} layer: "
        + ", ".join(
            f"layer {s.layer} {style.format_value('selectivity', s.value)}" for s in scores[:40]
        )
        + ".",
        height=_HEIGHT,
        columns=_COLUMNS,
    )


def _one(results: Results) -> str:
    words = grouping(results.provenance)
    return "each image" if words.kind == "none" else f"all images of {words.one}"


def _note(results: Results) -> str:
    """The note on the control task in the results' own words, as a further sentence."""
    found = results.summary.memorisation
    if found is None or not found.note:
        return ""
    return f" {found.note[0].upper()}{found.note[1:].rstrip('.')}."
