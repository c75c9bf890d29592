"""The measurements of a sweep."""

from __future__ import annotations

from signbridge.probes.controls.answers import Answers
from signbridge.probes.controls.control_task import GroupControl
from signbridge.probes.controls.description_length import OnlineCode
from signbridge.probes.controls.measurement import Measurement
from signbridge.probes.controls.nested import NestedSelection
from signbridge.probes.controls.permutation import LabelPermutations
from signbridge.probes.controls.random_split import RandomSplit
from signbridge.probes.controls.random_weights import RandomWeights
from signbridge.probes.controls.references import References
from signbridge.probes.controls.sklearn_default import SklearnComparison

MEASUREMENTS: tuple[type[Measurement], ...] = (
    RandomWeights,
    RandomSplit,
    References,
    Answers,
    GroupControl,
    LabelPermutations,
    OnlineCode,
    NestedSelection,
    SklearnComparison,
)
"""In the order of their rows in ``scores.csv`` and of their warnings."""
