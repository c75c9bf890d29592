r"""A permutation test of the best layer: could labels that mean nothing have scored as much?

Labels are permuted among groups, never among images of one group, and only in ways that leave the
split what it is: within each of its parts, and among groups of about one size. So every permuted
labelling has as many groups of each class in every part as the true one, and under the null
hypothesis all of them were equally likely.

The statistic is the largest held-out accuracy over the layers, so that the choice of the layer is
part of what is repeated ("max T", Westfall & Young 1993, "Resampling-Based Multiple Testing"). The
p-value counts the true labelling among the permuted ones, (b + 1) / (m + 1) (Phipson & Smyth 2010,
"Permutation P-values Should Never Be Zero").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from signbridge.errors import ProbeError
from signbridge.probes.controls.measurement import PERMUTATIONS, Measurement, Part, Sweep
from signbridge.probes.controls.relabelling import Labellings, Relabelling
from signbridge.probes.controls.score_probe import held_out_hits
from signbridge.probes.dataset.splits import Split
from signbridge.results.features import RESID_POST
from signbridge.results.summary import LayerTest, PermutationTest

if TYPE_CHECKING:
    from typing_extensions import Self

    from signbridge.probes.dataset.features import FeatureSource
    from signbridge.probes.feature_result import FeatureResult
    from signbridge.probes.scoring import ScoredSweep
    from signbridge.results.features import Feature

DRAWS = 999
"""Permutations that ``permutations=auto`` makes where they are affordable."""
FEW_DRAWS = 99
"""Permutations that it makes where :data:`DRAWS` of them are not."""
WORK = 1e14
"""Most multiplications that it takes on: about an hour of one CPU core, seconds of a GPU."""

LEAST_BYTES = 8 << 20
"""What permutations take at least, however little memory there is."""

_FEW_ARRANGEMENTS = 20  # below this many no p-value is under 0.05


def number_of_draws(
    wanted: int | str, relabelling: Relabelling, split: Split, *, n_classes: int, n_fits: int
) -> tuple[int, str | None]:
    """How many permutations to make, and why there are none where there are none.

    Args:
        wanted: the number, or ``auto``.
        relabelling: the labellings.
        split: the split that scores.
        n_classes: number of classes that occur.
        n_fits: layers times values of C.

    Returns:
        The number and, where a test was wanted and is not made, a sentence for the user.
    """
    if wanted == 0:
        return 0, None
    if relabelling.moving == 0:
        return 0, (
            "the permutation test was not made: no group can take another group's label, since "
            "none of another class is as large and lies in the same part of the split; "
            + ("use split=grouped." if split.name == "random" else "lower folds or add groups.")
        )
    if relabelling.arrangements < _FEW_ARRANGEMENTS - 0.5:
        return 0, (
            f"the permutation test was not made: there are only {relabelling.arrangements:.0f} "
            "labellings to compare, so its p-value cannot be below 0.05; lower folds or add groups."
        )
    if wanted != "auto":
        return int(wanted), None
    work = _work(relabelling, split, n_classes) * n_fits
    for draws in (DRAWS, FEW_DRAWS):
        if work * draws <= WORK:
            return draws, None
    hours = work * FEW_DRAWS / WORK
    return 0, (
        f"the permutation test was not made: {FEW_DRAWS} permutations of data of this size take "
        f"some {hours:.0f} hours of a CPU core; permutations={FEW_DRAWS} makes them."
    )


def _work(relabelling: Relabelling, split: Split, n_classes: int) -> float:
    """Multiplications of one labelling at one layer and C."""
    units = [len(np.unique(relabelling.unit[train])) * len(test) for train, test in split]
    return 2.0 * n_classes * sum(units)


def p_value(observed: float, null: npt.ArrayLike) -> float:
    """(b + 1) / (m + 1), with b the number of permutations that reach the observed value.

    Source: Phipson & Smyth 2010, Statistical Applications in Genetics and Molecular Biology 9.

    Args:
        observed: the statistic of the true labels.
        null: the statistic of each permutation, shape (m,).
    """
    values = np.asarray(null)
    return float((np.sum(values >= observed) + 1) / (len(values) + 1))


def summarise(
    hits: Mapping[int, npt.NDArray[np.int64]],
    n_scored: int,
    relabelling: Relabelling,
    statistic: str,
) -> PermutationTest:
    """The test from each layer's correct answers.

    Args:
        hits: for each layer the number of correct answers in every labelling, shape (m + 1,), the
            true one first.
        n_scored: number of images that were scored.
        relabelling: the labellings.
        statistic: what was computed, in words.

    Returns:
        ``permutation_test`` of ``summary.json``: p-values of the largest accuracy (``p``) and of
        each layer, alone and corrected for the number of layers (single-step max T).

    Raises:
        ProbeError: there are no layers or no permutations.
    """
    if not hits or min(len(column) for column in hits.values()) < 2:
        raise ProbeError("a permutation test needs at least one layer and one permutation.")
    layers = list(hits)
    table = np.stack([hits[layer] for layer in layers])  # whole numbers, so that ties are ties
    largest = table.max(0)
    null = largest[1:]
    return PermutationTest(
        m=len(null),
        statistic=statistic,
        structure=relabelling.structure,
        n_moving=relabelling.moving,
        layer=layers[int(table[:, 0].argmax())],
        observed=float(largest[0] / n_scored),
        p=p_value(largest[0], null),
        null_mean=float(table[:, 1:].mean() / n_scored),
        null_quantile_95=float(np.quantile(null, 0.95) / n_scored),
        by_layer={
            layer: LayerTest(
                accuracy=float(column[0] / n_scored),
                p=p_value(column[0], column[1:]),
                p_corrected=p_value(column[0], null),
            )
            for layer, column in zip(layers, table, strict=True)
        },
    )


class LabelPermutations(Measurement):
    """The permutation test of the decoder layers.

    Args:
        sweep: the sweep that it belongs to.
        labellings: the true labelling and its permutations.
    """

    name = "permutations"

    def __init__(self, sweep: Sweep, labellings: Labellings) -> None:
        super().__init__(sweep)
        self.labellings = labellings

    @classmethod
    def planned(cls, sweep: Sweep) -> tuple[Self | None, list[str]]:
        """See :class:`Measurement`."""
        config, plan = sweep.config, sweep.plan
        layers = sum(feature.kind == RESID_POST for feature in sweep.features)
        if config.permutations == 0 or not layers:
            return None, []
        relabelling = Relabelling.of(plan.labels, plan.groups, plan.main, seed=config.seed)
        draws, note = number_of_draws(
            config.permutations,
            relabelling,
            plan.main,
            n_classes=len(np.unique(plan.labels)),
            n_fits=layers * len(config.penalties),
        )
        notes = [note] if note else []
        if not draws:
            return None, notes
        kept = Labellings(relabelling, draws, max(LEAST_BYTES, config.memory_bytes // 8))
        return cls(sweep, kept), notes

    def takes(self, feature: Feature) -> bool:
        """See :class:`Measurement`."""
        return feature.kind == RESID_POST

    def work(self, width: int) -> tuple[str, float]:
        """See :class:`Measurement`."""
        plan = self.sweep.plan
        one = _work(self.labellings.relabelling, plan.main, len(np.unique(plan.labels)))
        return PERMUTATIONS, one * len(self.labellings) * len(self.sweep.config.penalties)

    def compute(self, source: FeatureSource, results: Sequence[FeatureResult]) -> Iterable[Part]:
        """See :class:`Measurement`."""
        import torch

        from signbridge.probes.engines import solver_threads
        from signbridge.runtime.threads import cpu_threads

        device = getattr(self.sweep.engine, "device", "cpu")
        for feature in source.features:
            values = np.require(source.array(feature), requirements="W")
            with torch.no_grad(), cpu_threads(solver_threads(source)):
                hits = held_out_hits(
                    torch.from_numpy(values).to(device),
                    self.labellings,
                    self.sweep.plan.main,
                    self.sweep.config.penalties,
                    memory_bytes=max(LEAST_BYTES, self.sweep.memory_bytes // 4),
                )
            self.sweep.stages.did(*self.work(source.n_features))
            yield {"hits": hits}, []

    def summary(self, scored: ScoredSweep) -> Mapping[str, Any]:
        """See :class:`Measurement`."""
        of_C = " and C" if len(self.sweep.config.penalties) > 1 else ""
        test = summarise(
            {int(feature.layer or 0): arrays["hits"] for feature, arrays in self.parts.items()},
            len(scored.main.scored),
            self.labellings.relabelling,
            f"largest accuracy of a layer{of_C} with a one-step probe",
        )
        n_groups = len(np.unique(self.sweep.plan.groups))
        return {"permutation_test": replace(test, split=scored.main.split.name, n_groups=n_groups)}
