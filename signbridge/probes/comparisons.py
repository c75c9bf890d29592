"""Which layers differ, and from what: paired differences with corrected p-values.

Every difference is one of the same samples, its interval from the same draws
(:func:`signbridge.statistics.bootstrap.paired_difference`), its p-value from sign flips of whole
groups (:mod:`signbridge.statistics.sign_flips`), or from Student's t over groups that are too few
for these (:mod:`signbridge.statistics.few_groups`). The intervals are those of one difference
alone; what is corrected for the number of comparisons in a family are the p-values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from signbridge.results.features import DECODER_LAYERS, RESID_POST
from signbridge.results.summary import Difference, Peak
from signbridge.statistics.bootstrap import Scored, paired_difference
from signbridge.statistics.few_groups import ALPHA, LEAST_GROUPS, paired_tests
from signbridge.statistics.metrics import COMPARED
from signbridge.statistics.sign_flips import FLIPS, Family


class Comparisons:
    """Layers and baselines that were scored on the same samples and draws.

    Args:
        scored: by feature name: layers in ascending order (``resid_post/3``), then baselines;
            ``random_weights/3`` belongs to the same layer.
        seed: seed of the sign flips.
        flips: number of them.
    """

    def __init__(self, scored: Mapping[str, Scored], *, seed: int = 42, flips: int = FLIPS) -> None:
        self.scored = scored
        size = next(iter(scored.values())).size
        self.n_groups = len(size)
        self._tests = {
            metric: paired_tests(
                np.stack([one.totals[metric] for one in scored.values()], axis=1),
                size,
                flips=flips,
                seed=seed,
            )
            for metric in COMPARED
        }

    @property
    def names(self) -> list[str]:
        """All features."""
        return list(self.scored)

    @property
    def layers(self) -> list[str]:
        """The decoder layers."""
        return [name for name in self.names if name.startswith(f"{RESID_POST}/")]

    @property
    def peak(self) -> str:
        """The layer with the highest accuracy, the earlier of equal ones."""
        return max(self.layers, key=lambda name: self.scored[name].intervals["accuracy"].value)

    def rows(self) -> list[dict[str, Any]]:
        """Rows of ``comparisons.csv``."""
        rows = []
        for metric, tests in self._tests.items():
            for family, pairs in self._families().items():
                first, second = ([self.names.index(pair[k]) for pair in pairs] for k in (0, 1))
                if family == "layers_vs_peak":
                    columns = [self.names.index(name) for name in self.layers]
                    found = tests.against(self.names.index(self.peak), columns)
                    count = len(columns) * (len(columns) - 1) // 2
                else:
                    found, count = tests.family(first, second), len(pairs)
                rows += self._rows(family, pairs, metric, found, count)
        return rows

    def _families(self) -> dict[str, list[tuple[str, str]]]:
        layers = self.layers
        families = {
            "layers_vs_peak": [(name, self.peak) for name in layers if name != self.peak],
            "adjacent_layers": list(zip(layers[1:], layers[:-1], strict=True)),
        }
        kinds: dict[str, None] = {}
        for name in self.names:
            # The layers of two stacks share no more than their numbers.
            if name not in layers and not name.startswith(f"{DECODER_LAYERS}/"):
                kinds[name.partition("/")[0]] = None
        for kind in kinds:
            pairs = []
            for name in layers:
                same = f"{kind}/{name.partition('/')[2]}"
                other = kind if kind in self.names else same
                if other in self.names:
                    pairs.append((name, other))
            families[f"layers_vs_{kind}"] = pairs
        return {name: pairs for name, pairs in families.items() if pairs}

    def _rows(
        self,
        family: str,
        pairs: Sequence[tuple[str, str]],
        metric: str,
        found: Family,
        count: int,
    ) -> list[dict[str, Any]]:
        rows = []
        for (a, b), p, corrected in zip(pairs, found.p, found.corrected, strict=True):
            difference = paired_difference(self.scored[a], self.scored[b], metric)
            rows.append(
                {
                    "family": family,
                    "a": a,
                    "b": b,
                    "metric": metric,
                    "difference": difference.value,
                    "ci_low": difference.low,
                    "ci_high": difference.high,
                    "p": float(p),
                    "p_corrected": float(corrected),
                    "n_comparisons": count,
                }
            )
        return rows

    def peak_summary(self) -> Peak | None:
        """Where the best layer may be: the entry ``peak`` of ``summary.json``.

        None where there are too few groups for any test. ``candidates`` are the layers whose
        hypothesis "no other layer has a higher accuracy" is not rejected at 5 %
        (:meth:`signbridge.statistics.few_groups.PairedTests.best`): they hold the best layer with a
        probability of 95 %, over photographs to be scored, the trained probes held fixed.
        ``layers`` are the first and the last of them. ``share`` says how often a layer comes out
        first in the draws; equal ones share.
        """
        if self.n_groups < LEAST_GROUPS:
            return None
        layers = self.layers
        numbers = [int(name.partition("/")[2]) for name in layers]
        p = self._tests["accuracy"].best([self.names.index(name) for name in layers])
        drawn = np.stack([self.scored[name].drawn["accuracy"] for name in layers], axis=1)
        first = drawn >= drawn.max(1, keepdims=True) - 1e-12
        share = (first / first.sum(1, keepdims=True)).mean(0)
        candidates = [k for k, value in zip(numbers, p, strict=True) if value >= ALPHA]
        top = self.scored[self.peak].intervals["accuracy"]
        return Peak(
            layer=int(self.peak.partition("/")[2]),
            accuracy=top.value,
            ci=(top.low, top.high),
            layers=(min(candidates), max(candidates)),
            candidates=tuple(candidates),
            p=dict(zip(numbers, p.tolist(), strict=True)),
            share=dict(zip(numbers, share.tolist(), strict=True)),
            note="candidates hold the best layer with 95 % confidence; the accuracy of the peak "
            "is flattered by its choice, nested is not",
        )

    def against_baselines(self, layer: str) -> dict[str, Difference]:
        """Accuracy of a layer minus that of each baseline, on the same samples and draws."""
        found = {}
        for name, other in self.scored.items():
            if "/" not in name:  # layers, of the model or of its control, are compared elsewhere
                difference = paired_difference(self.scored[layer], other)
                found[name] = Difference(difference.value, (difference.low, difference.high))
        return found
