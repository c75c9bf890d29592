"""Linear probes: splits, exact and batched training, scores and intervals.

Names are imported on first use, so that importing this package loads neither torch nor Lightning.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from signbridge.probes.config import SweepConfig as SweepConfig
    from signbridge.probes.dataset.data_module import ActivationDataModule as ActivationDataModule
    from signbridge.probes.dataset.splits import Split as Split
    from signbridge.probes.dataset.splits import make_split as make_split
    from signbridge.probes.exact.estimator import LogisticProbe as LogisticProbe
    from signbridge.probes.exact.logistic import fit_logistic as fit_logistic
    from signbridge.probes.exact.result import LogisticFit as LogisticFit
    from signbridge.probes.sgd.module import LinearProbes as LinearProbes
    from signbridge.probes.sweep import run_sweep as run_sweep
    from signbridge.probes.sweep import train_probes as train_probes
    from signbridge.results.features import Feature as Feature
    from signbridge.results.probes import Probe as Probe
    from signbridge.results.probes import Probes as Probes
    from signbridge.results.probes import load_probes as load_probes
    from signbridge.results.probes import save_probes as save_probes
    from signbridge.statistics.bootstrap import ClusterBootstrap as ClusterBootstrap
    from signbridge.statistics.bootstrap import Interval as Interval
    from signbridge.statistics.layer_scores import LayerScores as LayerScores
    from signbridge.statistics.metrics import score as score

_HOMES = {
    "ActivationDataModule": "signbridge.probes.dataset.data_module",
    "ClusterBootstrap": "signbridge.statistics.bootstrap",
    "Feature": "signbridge.results.features",
    "Interval": "signbridge.statistics.bootstrap",
    "LayerScores": "signbridge.statistics.layer_scores",
    "LinearProbes": "signbridge.probes.sgd.module",
    "LogisticFit": "signbridge.probes.exact.result",
    "LogisticProbe": "signbridge.probes.exact.estimator",
    "Probe": "signbridge.results.probes",
    "Probes": "signbridge.results.probes",
    "Split": "signbridge.probes.dataset.splits",
    "SweepConfig": "signbridge.probes.config",
    "fit_logistic": "signbridge.probes.exact.logistic",
    "load_probes": "signbridge.results.probes",
    "make_split": "signbridge.probes.dataset.splits",
    "run_sweep": "signbridge.probes.sweep",
    "save_probes": "signbridge.results.probes",
    "score": "signbridge.statistics.metrics",
    "train_probes": "signbridge.probes.sweep",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
