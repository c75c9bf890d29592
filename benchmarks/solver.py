"""The exact solver against scikit-learn: one thread each, same data, medians, in one run.

    python benchmarks/solver.py --case layers --repeats 3
    python benchmarks/solver.py --case scaling --plot solver-scaling.png
    python benchmarks/solver.py --case kernels

The features imitate a residual stream: class centres, a shared low-rank part, features of unequal
scale with a few outlier dimensions, then standardised.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from counts import count
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch.utils._python_dispatch import TorchDispatchMode

from signbridge.probes.exact.logistic import fit_logistic

Floats = NDArray[np.float64]
BASE = {"layers": 8, "samples": 240, "features": 2048, "classes": 10}
PATH = [10.0**power for power in range(-4, 6)]


def make(
    layers: int, samples: int, features: int, classes: int, seed: int = 0
) -> tuple[Floats, NDArray[np.int64]]:
    """Standardised residual-like features (layers, samples, features) and labels (samples,)."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(samples) % classes)
    X = np.empty((layers, samples, features))
    for layer in X:
        centres = 0.12 * rng.normal(size=(classes, features))
        scale = np.exp(rng.normal(size=features))
        scale[rng.choice(features, min(4, features), replace=False)] *= 100
        shared = rng.normal(size=(samples, 40)) @ rng.normal(size=(40, features)) * 0.5
        layer[:] = (centres[y] + 0.7 * rng.normal(size=(samples, features)) + shared) * scale
        layer -= layer.mean(0)
        layer /= layer.std(0)
    return X, y


def timed(function: Callable[[], Any]) -> tuple[float, float, Any]:
    """CPU seconds, wall seconds and the result of a call on one thread."""
    with threadpool_limits(1):
        wall, cpu = time.perf_counter(), time.process_time()
        result = function()
        return time.process_time() - cpu, time.perf_counter() - wall, result


def by_sklearn(X: Floats, y: NDArray[Any], path: Sequence[float], tol: float) -> Floats:
    """Coefficients (penalties, layers, classes, features + 1) by scikit-learn, warm-started."""
    out = np.empty((len(path), len(X), int(y.max()) + 1, X.shape[2] + 1))
    for layer, data in enumerate(X):
        model = LogisticRegression(tol=tol, max_iter=1_000_000, warm_start=len(path) > 1)
        for i, C in enumerate(path):
            model.set_params(C=C).fit(data, y)
            out[i, layer] = np.column_stack([model.coef_, model.intercept_])
    return out


def quality(found: Floats, best: Floats, X: Floats, y: NDArray[Any], C: float) -> dict[str, float]:
    """Distance of coefficients (layers, classes, features + 1) from the best ones known."""

    def look(solution: Floats) -> tuple[Floats, NDArray[Any]]:
        values, predictions = [], []
        for data, both in zip(X, solution, strict=True):
            logits = data @ both[:, :-1].T + both[:, -1]
            loss = -log_softmax(logits, 1)[np.arange(len(y)), y].mean()
            values.append(loss + (both[:, :-1] ** 2).sum() / (2 * C * len(y)))
            predictions.append(logits.argmax(1))
        return np.array(values), np.array(predictions)

    mine, _ = look(found)
    other, _ = look(best)
    W, W_best = found[..., :-1], best[..., :-1]
    error = np.linalg.norm(W - W_best, axis=(1, 2)) / np.linalg.norm(W_best, axis=(1, 2))
    return {
        "objective_excess": float((mine / other - 1).max()),
        "coefficient_error": float(error.max()),
    }


def compare(
    name: str,
    shape: tuple[int, int, int, int],
    path: Sequence[float],
    tolerances: Sequence[float],
    repeats: int,
    sklearn_layers: int,
) -> dict[str, Any]:
    """Time both sides; scikit-learn on ``sklearn_layers`` layers, scaled up to all."""
    X, y = make(*shape)
    share = shape[0] / sklearn_layers
    C: float | list[float] = list(path) if len(path) > 1 else path[0]
    ours: list[tuple[float, float]] = []
    theirs: dict[float, list[tuple[float, float]]] = {tol: [] for tol in tolerances}
    solutions: dict[float, Floats] = {}
    fit: Any = None
    for _ in range(repeats):  # in turn, so that a busy spell of the machine hits both sides
        cpu, wall, fit = timed(lambda: fit_logistic(X, y, C))
        ours.append((cpu, wall))
        for tol in tolerances:
            part = X[:sklearn_layers]
            cpu, wall, solutions[tol] = timed(
                lambda part=part, tol=tol: by_sklearn(part, y, path, tol)  # type: ignore[misc]
            )
            theirs[tol].append((cpu * share, wall * share))
    coef = np.concatenate([fit.coef, fit.intercept[..., None]], -1)
    coef = coef.swapaxes(0, 1) if len(path) > 1 else coef[None]
    row: dict[str, Any] = {
        "case": name,
        "layers,samples,features,classes": shape,
        "penalties": len(path),
        "ours_cpu_s": round(statistics.median(t[0] for t in ours), 2),
        "iterations_mean": round(float(np.mean(fit.n_iter)), 1),
        "all_converged": bool(np.all(fit.converged)),
        "sklearn": {},
    }
    for tol in tolerances:
        cpu = statistics.median(t[0] for t in theirs[tol])
        entry: dict[str, Any] = {
            "cpu_s": round(cpu, 2),
            "times_ours": round(
                statistics.median(t[0] / o[0] for t, o in zip(theirs[tol], ours, strict=True)),
                1,
            ),
            "measured_layers": sklearn_layers,
        }
        worst = [
            quality(solutions[tol][i], coef[i, :sklearn_layers], X[:sklearn_layers], y, c)
            for i, c in enumerate(path)
        ]
        for key in worst[0]:
            entry[key] = float(f"{max(w[key] for w in worst):.2g}")
        row["sklearn"][f"{tol:g}"] = entry
    return row


def scaling(repeats: int) -> list[dict[str, Any]]:
    """Our cost over one size at a time."""
    rows = []
    steps = {
        "layers": [1, 2, 4, 8, 16, 32],
        "samples": [60, 120, 240, 480, 960, 1920, 3840],
        "features": [256, 512, 1024, 2048, 4096],
        "classes": [2, 5, 10, 20, 40],
    }
    for axis, values in steps.items():
        for value in values:
            X, y = make(**{**BASE, axis: value})
            runs = [timed(lambda X=X, y=y: fit_logistic(X, y))[0] for _ in range(repeats)]  # type: ignore[misc]
            rows.append({"axis": axis, "value": value, "cpu_s": statistics.median(runs)})
    return rows


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the cost over every size, with the numbers in a CSV file beside it."""
    from matplotlib.figure import Figure

    axes_names = list(dict.fromkeys(row["axis"] for row in rows))
    figure = Figure(figsize=(10, 3), layout="constrained")
    figure.suptitle(
        "Cost of exact probes on one CPU thread; where not varied: "
        + ", ".join(f"{value:,} {name}" for name, value in BASE.items()),
        fontsize="medium",
    )
    for axis, name in zip(
        figure.subplots(1, len(axes_names), sharey=True), axes_names, strict=True
    ):
        points = [(row["value"], row["cpu_s"]) for row in rows if row["axis"] == name]
        axis.loglog(*zip(*points, strict=True), marker="o", base=10)
        values = [value for value, _ in points]
        axis.set_xticks(values, [f"{value:,}" for value in values], rotation=45)
        axis.minorticks_off()
        axis.set_xlabel(name)
        axis.grid(alpha=0.3)
    figure.axes[0].set_ylabel("CPU seconds")
    figure.savefig(path, dpi=150)
    lines = ["axis,value,cpu_s", *(f"{r['axis']},{r['value']},{r['cpu_s']:.4f}" for r in rows)]
    path.with_suffix(".csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


class KernelCounter(TorchDispatchMode):
    """Counts torch's operations, each a kernel's launch on a card; views launch nothing.

    Attributes:
        launched: how many there were.
        waited: how many of them made the host wait for a number.
    """

    def __init__(self) -> None:
        super().__init__()
        self.launched = self.waited = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count one and do it."""
        name = function.name()
        if not (function.is_view or "empty" in name or "alias" in name):
            self.launched += 1
            self.waited += "local_scalar_dense" in name or "nonzero" in name
        return function(*args, **(kwargs or {}))


def kernels() -> list[dict[str, Any]]:
    """Launches of one layer's five folds, solved and predicted all at once as on a card."""
    from signbridge.probes.exact import fitter

    fitter._CACHE_BYTES = 1 << 40  # a card solves what its memory holds, a core what its cache does
    rows = []
    for samples, features, C in ((2000, 256, 0.1), (2000, 256, 1.0), (4000, 512, 0.1)):
        X, y = make(1, samples, features, 24)
        place = np.random.default_rng(0).integers(5, size=samples)
        folds = [np.flatnonzero(place != k) for k in range(5)]
        with KernelCounter() as counter:
            fit = fit_logistic(X[0], y, C, train=folds, standardise=True, coef=False, decision=True)
        rows.append(
            {
                "samples": samples,
                "features": features,
                "C": C,
                "kernels": counter.launched,
                "waits": counter.waited,
                "iterations": int(fit.n_iter.max()),
                "all_converged": bool(fit.converged.all()),
            }
        )
    return rows


def main() -> None:
    """Run the chosen case and print its result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--case", choices=["layers", "path", "tall", "scaling", "kernels"], default="layers"
    )
    parser.add_argument("--repeats", type=count, default=3)
    parser.add_argument("--sklearn_layers", type=count, help="layers that scikit-learn fits")
    parser.add_argument("--plot", type=Path, help="with scaling: the picture to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    machine = {
        "cpu": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "sklearn": sklearn.__version__,
        "load": os.getloadavg()[0],
    }
    repeats = arguments.repeats
    given = arguments.sklearn_layers
    if arguments.case == "kernels":
        rows: Any = kernels()
    elif arguments.case == "scaling":
        rows = scaling(repeats)
        if arguments.plot:
            plot(rows, arguments.plot)
    elif arguments.case == "layers":
        rows = compare("layers", (32, 240, 4096, 20), [1.0], [1e-4, 1e-10], repeats, given or 32)
    elif arguments.case == "path":
        rows = compare("path", (32, 240, 4096, 20), PATH, [1e-4, 1e-10], repeats, given or 32)
    else:
        rows = compare("tall", (4, 5000, 4096, 24), [1.0], [1e-4, 1e-10], repeats, given or 4)
    print(json.dumps({"machine": machine, "result": rows}, indent=1))


if __name__ == "__main__":
    main()
