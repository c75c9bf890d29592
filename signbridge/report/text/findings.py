"""What a results folder says, in plain sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from signbridge.report.figures import style
from signbridge.report.groups import groups_of
from signbridge.report.text import evidence
from signbridge.report.text.first_screen import interval_text
from signbridge.results.results import Results
from signbridge.results.summary import NotConverged
from signbridge.runtime.words import counted
from signbridge.store.provenance import grouping

__all__ = ["Findings", "describe_data", "find"]


@dataclass(frozen=True)
class Findings:
    """The sentences below the first screen.

    Attributes:
        notes: What a section adds to its figure, by the section's name.
        warnings: What the reader should know before believing it.
    """

    notes: Mapping[str, str]
    warnings: tuple[str, ...]


def find(results: Results) -> Findings:
    """Say what was found.

    Args:
        results: A results folder.

    Returns:
        Sentences without markup. They hold class names and other text from data as it is.
    """
    notes = {
        "peak": (evidence.peak_sentence(results), _nested(results)),
        "leakage": (_leakage(results),),
        "description_length": (evidence.description_sentence(results),),
        "permutation": (evidence.permutation_sentence(results),),
        "fits": (evidence.solver_sentence(results), evidence.default_sentence(results)),
    }
    joined = {name: " ".join(filter(None, sentences)) for name, sentences in notes.items()}
    return Findings({name: text for name, text in joined.items() if text}, _warnings(results))


def describe_data(results: Results) -> str:
    """How many images and groups there are; what the protocol says too is left to it."""
    store = results.store
    n = store.n_samples or len(results.predictions.sample_id)
    words = grouping(results.provenance)
    text = f"{n:,} images"
    if not store.n_groups:
        return f"{text}; their groups were not recorded."
    if words.kind == "none":
        return f"{text}, each counted as independent: near-duplicates were not looked for."
    detail = "" if results.protocol.description else words.detail
    of = "of" if words.kind == "signers" else "in"
    text += f" {of} {store.n_groups:,} {words.many}{detail}, {n / store.n_groups:.3g} each"
    if words.kind == "unknown":
        return f"{text}; what makes a group was not recorded."
    found = groups_of(results)
    if found.too_few:
        return f"{text}: {found.permit_nothing} no interval and no test of a difference."
    if found.few:
        return (
            f"{text}: {'intervals' if found.flips else 'intervals and tests'} are Student's, with "
            f"{len(found.number) - 1} degrees of freedom at most, and take the scores of the "
            f"{found.words} as a normal sample."
        )
    return f"{text}: intervals rest on the number of groups."


def _nested(results: Results) -> str:
    """That the choice of the layer favours it, and what it scores where training chose it."""
    if len(results.layers) < 2:
        return ""
    text = "The layer was chosen on the images that score it, which favours it"
    nested = results.summary.nested
    if nested is not None:
        text += (
            f"; chosen inside training it reads {style.format_value('accuracy', nested.accuracy)}"
        )
        if interval := interval_text(*nested.ci):
            text += f" ({interval})"
        if nested.layers_chosen and results.summary.peak is None:
            text += f", in layers {', '.join(map(str, sorted(set(nested.layers_chosen))))}"
    return f"{text}."


def _parted(results: Results) -> str:
    """What a random split does to the groups."""
    words = grouping(results.provenance)
    return "which ignores groups" if words.kind == "none" else f"which may part {words.one}"


def _leakage(results: Results) -> str:
    """Why a random split scores less, where it does: leakage cannot be below 0."""
    leakage = results.summary.leakage
    if leakage is None or not leakage.ci[1] < 0:
        return ""
    return f"The random split scores less here, which is no leakage: {_why_below(results)}."


def _why_below(results: Results) -> str:
    """What makes a random split score less than one that keeps groups whole."""
    p = results.predictions
    number = np.unique(p.group, return_inverse=True)[1]
    low, high = np.full(number.max() + 1, p.label.max()), np.zeros(number.max() + 1, np.int64)
    np.minimum.at(low, number, p.label)
    np.maximum.at(high, number, p.label)
    mixed = int((low != high)[number].sum())
    if not mixed:
        return "the splits differ in something else"
    words = grouping(results.provenance)
    what = f"{words.one} with images of several classes"
    text = f"{counted(mixed, 'image')} belong to {what}, whose other images teach another class"
    if words.kind == "near_duplicates":
        text += "; look for copies of an image under two classes"
    return text


def _warnings(results: Results) -> tuple[str, ...]:
    warnings = list(results.summary.warnings)
    fits = results.summary.not_converged
    if fits and not any("not_converged" in text for text in warnings):
        names = sorted({_feature_of(fit) for fit in fits})
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        warnings.append(
            f"{counted(len(fits), 'fit')} ended short of the tolerance, listed as not_converged in "
            f"summary.json: {', '.join(names[:8])}{more}."
        )
    unscored = int((results.predictions.fold < 0).sum())
    if unscored:
        warnings.append(
            f"{unscored:,} of {len(results.predictions.fold):,} images were never scored."
        )
    if results.split == "random":
        warnings.append(
            f"The main split is random, {_parted(results)}: where it does, a probe can score by "
            "recognising what it was trained on."
            if grouping(results.provenance).kind != "none"
            else "The main split is random, and no groups are known: a probe can score by "
            "recognising near-duplicates of what it was trained on, if there are any."
        )
    return tuple(warnings)


def _feature_of(fit: NotConverged) -> str:
    return fit.feature if fit.layer is None else f"{fit.feature}/{fit.layer}"
