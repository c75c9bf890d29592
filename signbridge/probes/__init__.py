"""Linear probes: splits, exact and batched training, scores and intervals.

Names are imported on first use, so that importing this package loads neither torch nor Lightning.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from signbridge.probes.bootstrap import ClusterBootstrap as ClusterBootstrap
    from signbridge.probes.bootstrap import Interval as Interval
    from signbridge.probes.config import SweepConfig as SweepConfig
    from signbridge.probes.data import ActivationDataModule as ActivationDataModule
    from signbridge.probes.estimator import LogisticProbe as LogisticProbe
    from signbridge.probes.features import Feature as Feature
    from signbridge.probes.io import Probe as Probe
    from signbridge.probes.io import Probes as Probes
    from signbridge.probes.io import load_probes as load_probes
    from signbridge.probes.io import save_probes as save_probes
    from signbridge.probes.logistic import fit_logistic as fit_logistic
    from signbridge.probes.module import LinearProbes as LinearProbes
    from signbridge.probes.result import LogisticFit as LogisticFit
    from signbridge.probes.scores import LayerScores as LayerScores
    from signbridge.probes.scores import score as score
    from signbridge.probes.splits import Split as Split
    from signbridge.probes.splits import make_split as make_split
    from signbridge.probes.sweep import run_sweep as run_sweep
    from signbridge.probes.sweep import train_probes as train_probes

_HOMES = {
    "ActivationDataModule": "data",
    "ClusterBootstrap": "bootstrap",
    "Feature": "features",
    "Interval": "bootstrap",
    "LayerScores": "scores",
    "LinearProbes": "module",
    "LogisticFit": "result",
    "LogisticProbe": "estimator",
    "Probe": "io",
    "Probes": "io",
    "Split": "splits",
    "SweepConfig": "config",
    "fit_logistic": "logistic",
    "load_probes": "io",
    "make_split": "splits",
    "run_sweep": "sweep",
    "save_probes": "io",
    "score": "scores",
    "train_probes": "sweep",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"signbridge.probes.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
