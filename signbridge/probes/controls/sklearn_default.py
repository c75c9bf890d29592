"""What scikit-learn's LogisticRegression says at its default settings, beside the optimum."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from signbridge.probes.controls.measurement import Measurement, Sweep
from signbridge.results.summary import SklearnDefault

if TYPE_CHECKING:
    from typing_extensions import Self

    from signbridge.probes.scoring import ScoredSweep

WORK = 2.5e8
"""Most samples x features x classes x folds that the comparison takes on (seconds)."""


class SklearnComparison(Measurement):
    """The best layer's accuracy where the solver stops at scikit-learn's default tolerance."""

    @classmethod
    def planned(cls, sweep: Sweep) -> tuple[Self | None, list[str]]:
        """Made where it is cheap, and the optimum is there to be compared with."""
        size = sweep.store.n_samples * sweep.store.hidden_size * len(sweep.store.class_names)
        cheap = sweep.config.solver == "exact" and size * len(sweep.plan.main) <= WORK
        return cls(sweep) if cheap else None, []

    def summary(self, scored: ScoredSweep) -> Mapping[str, Any]:
        """See :class:`Measurement`."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler
        from threadpoolctl import threadpool_limits

        labels, best = self.sweep.plan.labels, scored.best
        X = np.asarray(self.sweep.store.feature(best.feature.name), dtype=np.float64)
        answer = np.full(len(labels), -1)
        steps = []
        for number, (train, test) in enumerate(self.sweep.plan.main):
            scaler = StandardScaler().fit(X[train])
            model = LogisticRegression(C=float(best.C[number]))
            # One thread: on small problems BLAS threads have been measured 20 times slower.
            with warnings.catch_warnings(), threadpool_limits(1):
                warnings.simplefilter("ignore")  # n_iter tells where max_iter stopped it
                model.fit(scaler.transform(X[train]), labels[train])
            answer[test] = model.predict(scaler.transform(X[test]))
            steps.append(int(np.max(model.n_iter_)))
        tested = np.flatnonzero(answer >= 0)
        ours = best.probability[tested].argmax(1)
        return {
            "sklearn_default": SklearnDefault(
                layer=best.feature.layer,
                accuracy=float(np.mean(answer[tested] == labels[tested])),
                optimum_accuracy=float(np.mean(ours == labels[tested])),
                agreement=float(np.mean(answer[tested] == ours)),
                tol=float(model.tol),
                max_iter=int(model.max_iter),
                n_iter=tuple(steps),
            )
        }
