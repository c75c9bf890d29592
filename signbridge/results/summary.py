"""``summary.json`` of a results folder: what a sweep found, beside the tables.

Each part is a dataclass; its fields are the keys of the file. An interval is a pair of ends, NaN
where there is none. What a sweep did not measure is None. Older folders lack some of the parts and
keys; then the defaults say that they are not known.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from signbridge.errors import ProbeError, first_line
from signbridge.results.format import AGAIN, FORMAT, VERSION, require_file
from signbridge.results.records import from_json, to_json
from signbridge.runtime.files import replace_file
from signbridge.runtime.reading import read_json

__all__ = [
    "BestLayer",
    "Bits",
    "DescriptionLength",
    "Difference",
    "ForcedChoice",
    "LayerTest",
    "Leakage",
    "Memorisation",
    "Nested",
    "NotConverged",
    "Peak",
    "PermutationTest",
    "Protocol",
    "Said",
    "SaidText",
    "Sgd",
    "SklearnDefault",
    "StoreRecord",
    "Summary",
    "Value",
    "read_summary",
    "write_summary",
]

Ends = tuple[float, float]
"""Lower and upper end of a 95 % interval."""

NAN = math.nan
NO_ENDS: Ends = (NAN, NAN)


@dataclass(frozen=True, kw_only=True)
class StoreRecord:
    """The activation store that the probes were trained on.

    Attributes:
        path: Where it lay.
        name: Its file name without suffix.
        fingerprint: Hash of its provenance, samples and shapes.
        content_sha256: Hash of its content.
        n_samples: Samples that it holds.
        n_groups: Groups among them; None where they were not recorded.
        class_names: Names of the classes, in the order of the labels.
        layers: Decoder layers that it holds.
        provenance: Model, prompt, images and so on, as the store records them.
        commands: The commands that make it, and the control beside it; empty where not recorded.
    """

    path: str = ""
    name: str = ""
    fingerprint: str = ""
    content_sha256: str = ""
    n_samples: int | None = None
    n_groups: int | None = None
    class_names: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How the probes were trained and scored.

    Attributes:
        solver: ``exact`` or ``sgd``.
        split: The main split: ``grouped``, ``random``, ``source`` or ``file``.
        split_file: Path and SHA-256 of the file that gives the split.
        folds: Number of folds.
        C: Inverse penalties, among which one is chosen in each training part.
        seed: Seed of splits, batches and intervals.
        inner_folds: Folds inside a training part.
        bootstrap: Draws behind each interval.
        confidence: Level of the intervals.
        compare_random: Whether the random split was scored beside the main one.
        description: All of this in words.
    """

    solver: str = ""
    split: str
    split_file: Mapping[str, str] | None = None
    folds: int | None = None
    C: float | tuple[float, ...] | None = None
    seed: int = 42
    inner_folds: int | None = None
    bootstrap: int | None = None
    confidence: float | None = None
    compare_random: bool | None = None
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class BestLayer:
    """The decoder layer of the highest held-out accuracy."""

    layer: int
    accuracy: float = NAN
    ci: Ends = NO_ENDS
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Peak:
    """Where the curve is highest, and how sure that is.

    Attributes:
        layer: The layer of the highest held-out accuracy.
        accuracy: The accuracy there.
        ci: Its interval.
        layers: First and last layer of the interval of the peak's place.
        candidates: Layers that are not excluded from being the peak, ascending.
        p: P-value of the hypothesis that no other layer is higher, by layer.
        share: Share of bootstrap draws in which a layer is the highest, by layer.
        note: What to know about it.
    """

    layer: int
    accuracy: float = NAN
    ci: Ends = NO_ENDS
    layers: tuple[int, int]
    candidates: tuple[int, ...] = ()
    p: Mapping[int, float] = field(default_factory=dict)
    share: Mapping[int, float] = field(default_factory=dict)
    note: str = ""

    @property
    def low(self) -> int:
        """First layer of the interval."""
        return self.layers[0]

    @property
    def high(self) -> int:
        """Last layer of the interval."""
        return self.layers[1]


@dataclass(frozen=True)
class Difference:
    """The best layer's accuracy minus that of a baseline, on the same images and draws."""

    difference: float = NAN
    ci: Ends = NO_ENDS


@dataclass(frozen=True, kw_only=True)
class Nested:
    """The accuracy with the layer chosen inside each training part.

    Attributes:
        accuracy: The accuracy.
        ci: Its interval.
        layers_chosen: The layer of each fold.
        note: How it was chosen.
    """

    accuracy: float
    ci: Ends = NO_ENDS
    layers_chosen: tuple[int, ...] = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Leakage:
    """Accuracy of the best layer under the random split, minus that under the main one.

    Attributes:
        layer: The layer.
        random: Accuracy under the random split, on all images that it scores.
        grouped: Accuracy under the main split, likewise.
        difference: Their difference on the images that both score.
        ci: Its interval.
    """

    layer: int
    random: float = NAN
    grouped: float = NAN
    difference: float = NAN
    ci: Ends = NO_ENDS


@dataclass(frozen=True)
class Bits:
    """Usable information in bits (Xu et al. 2020), or a difference of two."""

    bits: float = NAN
    ci: Ends = NO_ENDS


@dataclass(frozen=True)
class Value:
    """A score and its interval."""

    value: float = NAN
    ci: Ends = NO_ENDS


@dataclass(frozen=True, kw_only=True)
class SaidText:
    """What the words of the generated answer tell of the label.

    Attributes:
        bits: Usable information of the words.
        ci: Its interval.
        known_minus_said: Bits of the layer minus these.
        names_class: Share of the images whose answer names their class; NaN where not counted.
        distinct_answers: Number of different answers; None where not counted.
    """

    bits: float = NAN
    ci: Ends = NO_ENDS
    known_minus_said: Bits = Bits()
    names_class: float = NAN
    distinct_answers: int | None = None


@dataclass(frozen=True, kw_only=True)
class ForcedChoice:
    """What the log-probabilities of the class names as the answer tell of the label.

    Attributes:
        bits: Usable information of a probe of them.
        ci: Its interval.
        known_minus_said: Bits of the layer minus these.
        zero_shot: Scores of the choice by itself, without any probe: ``accuracy`` and
            ``usable_information``.
    """

    bits: float = NAN
    ci: Ends = NO_ENDS
    known_minus_said: Bits = Bits()
    zero_shot: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Said:
    """What the model says of the label, beside what a layer knows of it.

    Attributes:
        layer: The layer.
        known: Its usable information.
        class_entropy: Entropy of the scored labels in bits.
        text: The generated answer; None where the store holds none.
        forced_choice: The choice among the class names; None where the store holds none.
        sentence: The sentence that the numbers support.
    """

    layer: int | None = None
    known: Bits = Bits()
    class_entropy: float = NAN
    text: SaidText | None = None
    forced_choice: ForcedChoice | None = None
    sentence: str = ""


@dataclass(frozen=True, kw_only=True)
class LayerTest:
    """The permutation test of one layer: its accuracy, p-value, and p-value for all layers."""

    accuracy: float = NAN
    p: float = NAN
    p_corrected: float = NAN


@dataclass(frozen=True, kw_only=True)
class PermutationTest:
    """What probes reach on permuted labels.

    Attributes:
        m: Number of permutations.
        statistic: What was computed of each, in words.
        structure: ``between groups`` or ``within groups``.
        n_moving: What was permuted: number of groups or images.
        layer: The layer of the largest observed value.
        observed: The statistic for the true labels.
        p: (b + 1) / (m + 1) with b permutations that reach it.
        null_mean: Mean accuracy over the permutations.
        null_quantile_95: Their 95 % quantile.
        by_layer: The test of each layer.
        split: The split that scored it.
        n_groups: Number of groups.
    """

    m: int
    statistic: str = "highest accuracy"
    structure: str = ""
    n_moving: int | None = None
    layer: int | None = None
    observed: float = NAN
    p: float
    null_mean: float = NAN
    null_quantile_95: float = NAN
    by_layer: Mapping[int, LayerTest] = field(default_factory=dict)
    split: str = ""
    n_groups: int | None = None


@dataclass(frozen=True, kw_only=True)
class Memorisation:
    """What a probe scores by recognising groups: the control task (Hewitt & Liang 2019).

    Attributes:
        layer: The layer.
        control_accuracy: Accuracy on labels drawn at random for each group, under the random split.
        ci: Its interval.
        selectivity: Accuracy of the true labels under the same split, minus the control's.
        selectivity_ci: Its interval.
        n_groups: Number of groups that drew a label.
        shared: Share of the images whose group has images in the training part.
        majority: Share of the most frequent random label, which a guess reaches.
        note: What to know about it.
    """

    layer: int
    control_accuracy: float
    ci: Ends = NO_ENDS
    selectivity: float = NAN
    selectivity_ci: Ends = NO_ENDS
    n_groups: int | None = None
    shared: float = NAN
    majority: float = NAN
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class DescriptionLength:
    """How the labels were sent for the online description length (Voita & Titov 2020).

    Attributes:
        blocks: Images of each block.
        groups: Groups of each block.
        uniform: Bits an image of the uniform code.
        order: The order of the blocks, in words.
    """

    blocks: tuple[int, ...] = ()
    groups: tuple[int, ...] = ()
    uniform: float = NAN
    order: str = ""


@dataclass(frozen=True, kw_only=True)
class SklearnDefault:
    """What scikit-learn's logistic regression says at its default settings.

    Attributes:
        layer: The layer it was fitted to.
        accuracy: Its held-out accuracy.
        optimum_accuracy: The accuracy at the optimum.
        agreement: Share of the images with the same answer from both.
        tol: Its tolerance.
        max_iter: Its most steps.
        n_iter: Its steps in each fold.
    """

    layer: int | None = None
    accuracy: float = NAN
    optimum_accuracy: float = NAN
    agreement: float = NAN
    tol: float = NAN
    max_iter: int | None = None
    n_iter: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class NotConverged:
    """A fit that missed its tolerance.

    Attributes:
        feature: Kind of the feature.
        layer: Its decoder layer, None for a baseline.
        split: The split's name, None where the fit belongs to none.
        fold: The fold's number, None where there are no folds.
        part: What the fit was for: ``outer``, ``inner``, ``refit`` and so on.
        C: Its inverse penalty.
        relative_tolerance: Gradient norm over the norm of the penalty's gradient.
    """

    feature: str = ""
    layer: int | None = None
    split: str | None = None
    fold: int | None = None
    part: str = ""
    C: float = NAN
    relative_tolerance: float = NAN


@dataclass(frozen=True, kw_only=True)
class Sgd:
    """How the probes were trained in batches, and how far they came.

    Attributes:
        note: What the fits are.
        learning_rates: Those that were tried, as shares of a Newton step.
        batch_size: Images of a batch.
        n_compared: Fits that were compared with the exact solver.
        largest_gap: Largest relative distance of an objective from its optimum.
        least_agreement: Least share of held-out images with the optimum's answer.
        fits: A record for each fit.
    """

    note: str = ""
    learning_rates: tuple[float, ...] = ()
    batch_size: int | None = None
    n_compared: int | None = None
    largest_gap: float = NAN
    least_agreement: float = NAN
    fits: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The content of ``summary.json``.

    Attributes:
        store: The activation store.
        protocol: How the probes were trained and scored.
        versions: Versions of the libraries.
        best_layer: The layer of the highest accuracy.
        peak: Where the peak is.
        against_baselines: The best layer against each baseline, by its name.
        nested: The accuracy with the layer chosen inside training.
        leakage: What the random split adds.
        said: What the model says, where the store holds it.
        permutation_test: The permutation test.
        memorisation: The control task.
        description_length: The online description length.
        chance: 1 / number of classes.
        majority: Share of the largest class.
        C_chosen: The inverse penalty of each fold, by feature.
        warnings: Sentences for the reader.
        command: The command that makes the folder again.
        not_converged: Fits that missed their tolerance.
        sklearn_default: What scikit-learn says at its default settings.
        control: The store of the same model with random weights.
        sgd: Training in batches.
        created: When, in ISO 8601.
        run: What makes two runs the same: store and arguments.
    """

    store: StoreRecord
    protocol: Protocol
    versions: Mapping[str, str] = field(default_factory=dict)
    best_layer: BestLayer
    peak: Peak | None = None
    against_baselines: Mapping[str, Difference] = field(default_factory=dict)
    nested: Nested | None = None
    leakage: Leakage | None = None
    said: Said | None = None
    permutation_test: PermutationTest | None = None
    memorisation: Memorisation | None = None
    description_length: DescriptionLength | None = None
    chance: float = NAN
    majority: float = NAN
    C_chosen: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    command: str = ""
    not_converged: tuple[NotConverged, ...] = ()
    sklearn_default: SklearnDefault | None = None
    control: Mapping[str, Any] | None = None
    sgd: Sgd | None = None
    created: str = ""
    run: Mapping[str, Any] | None = None


def write_summary(path: Path, summary: Summary) -> None:
    """Write ``summary.json`` by way of a temporary name."""
    content = {"format": FORMAT, "version": VERSION, **to_json(summary)}
    text = json.dumps(content, indent=2, allow_nan=False)
    replace_file(path, (text + "\n").encode())


def read_summary(path: Path) -> Summary:
    """Read and check ``summary.json``.

    A part that is incomplete or holds something else is left out, and a warning names it.

    Raises:
        ProbeError: The file is missing or damaged, of another kind or version, or lacks what every
            summary has (store, protocol and best layer) or gives it wrongly; the message names
            file and key.
    """
    require_file(path)
    try:
        content = read_json(path)
    except OSError as error:
        raise ProbeError(f"{path} cannot be read ({error.strerror}): {AGAIN}.") from error
    except ValueError as error:
        raise ProbeError(f"{path} is not readable JSON ({first_line(error)}): {AGAIN}.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ProbeError(
            f"{path} does not say format {FORMAT!r}: give a folder that train_probes wrote."
        )
    version = str(content.get("version", ""))
    if version.split(".")[0] != VERSION.split(".")[0]:
        raise ProbeError(
            f"{path} is of format version {version or 'unknown'}, this SignBridge reads "
            f"{VERSION.split('.')[0]}.x: use the SignBridge that wrote it, or run train_probes "
            "again."
        )
    left_out: list[str] = []
    try:
        summary = from_json(Summary, content, left_out=left_out)
    except ValueError as error:
        raise ProbeError(f"{path} {error}: {AGAIN}.") from error
    notes = (f"{path.name} {clause}; that part is left out." for clause in left_out)
    return replace(summary, warnings=(*summary.warnings, *notes))
