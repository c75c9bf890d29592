"""Vectors placed on a plane (UMAP; McInnes, Healy and Melville 2018, arXiv 1802.03426).

UMAP's functions are compiled when they are first called, which takes longer than the embedding of
some thousand vectors. So they run in a process of their own, which :func:`warm_up` can start ahead
of its work and which compiles no more than what is called.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import subprocess
import sys
import threading
import warnings
from multiprocessing.spawn import get_executable
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["embed", "spread_out", "warm_up"]

_SPECTRAL_FROM = 30
_UMAP_FROM = 5


def embed(
    vectors: npt.NDArray[np.floating[Any]],
    seed: int = 42,
    start: npt.NDArray[np.float64] | None = None,
) -> tuple[npt.NDArray[np.float64], str]:
    """Place vectors on a plane.

    Features are standardised first (residual streams have a few dimensions of huge variance), then
    UMAP with a fixed seed in one thread, so that a machine gives the same map again. Fewer than
    five distinct vectors are placed by their two principal components.

    Args:
        vectors: (n, d) feature vectors.
        seed: Seed of UMAP.
        start: (n, 2) positions that UMAP starts from, as of the layer before; its own if None.

    Returns:
        (n, 2) positions and the name of the method, ``UMAP`` or ``PCA``.
    """
    x = np.asarray(vectors, dtype=np.float64)
    x = x - x.mean(axis=0)
    deviation = x.std(axis=0)
    x /= np.where(deviation > 0, deviation, 1.0)
    n = len(x)
    if n < _UMAP_FROM or len(np.unique(x, axis=0)) < _UMAP_FROM:
        u, s, _ = np.linalg.svd(x, full_matrices=False)
        plane = np.zeros((n, 2))
        plane[:, : min(2, len(s))] = (u * s)[:, :2]
        return plane, "PCA"
    single = x.astype(np.float32)
    first = np.zeros((0, 2), np.float32) if start is None else start.astype(np.float32)
    position = _elsewhere(single, seed, first)
    if position is None:
        position = _umap(single, seed, first)
    return np.asarray(position, dtype=np.float64), "UMAP"


def _umap(
    x: npt.NDArray[np.float32], seed: int, start: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    import umap
    from sklearn.metrics import pairwise_distances
    from umap.distances import euclidean

    n = len(x)
    k = min(15, n - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The neighbours are those that UMAP itself finds below 4,096 vectors, to the last bit. Its
        # function for that is compiled for 4 s, NumPy's is there.
        distance = pairwise_distances(x, metric=euclidean)
        nearest = np.argsort(distance, axis=1, kind="stable")[:, :k].astype(np.int32)
        position = umap.UMAP(
            n_neighbors=k,
            min_dist=0.15,
            # The spectral start needs more samples than it has eigenvectors to find.
            init=start if len(start) else "spectral" if n >= _SPECTRAL_FROM else "random",
            random_state=seed,
            n_jobs=1,
            precomputed_knn=(nearest, np.take_along_axis(distance, nearest, axis=1), None),
        ).fit_transform(x)
    return np.asarray(position, dtype=np.float32)


_process: subprocess.Popen[bytes] | None = None
_lock = threading.Lock()


def warm_up() -> None:
    """Start the process that embeddings run in, if it does not run already.

    It compiles at a low priority, then sleeps until it is given vectors, and ends with this
    process. What it compiled is kept in numba's cache where that can be written. Where no process
    can be started, UMAP runs in this one.
    """
    global _process
    if _process is None:
        # The child finds this package wherever this process found it.
        code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve()"
        with contextlib.suppress(OSError):
            _process = subprocess.Popen(
                [os.fsdecode(get_executable()), "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            atexit.register(_stop)


def _stop() -> None:
    global _process
    if _process is not None:
        _process.kill()
        _process.communicate()
        _process = None
        atexit.unregister(_stop)


def _elsewhere(
    x: npt.NDArray[np.float32], seed: int, start: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32] | None:
    """:func:`_umap` in the other process; None where that failed."""
    with _lock:
        warm_up()
        if _process is None:
            return None
        assert _process.stdin is not None
        assert _process.stdout is not None
        try:
            _send(_process.stdin, vectors=x, seed=np.int64(seed), start=start)
            position: npt.NDArray[np.float32] = _receive(_process.stdout)["position"]
        except (OSError, EOFError):
            _stop()
            return None
        except BaseException:  # stopped in between: its answer would be taken for the next one's
            _stop()
            raise
        return position


def serve() -> None:
    """Compile, then embed what comes on standard input and answer on standard output."""
    # What a library prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    import numba

    if hasattr(os, "nice"):
        os.nice(5)
    # UMAP imports pynndescent for larger data than are drawn here: it would be compiled for 10 s
    # and not called.
    config: Any = numba.config
    config.DISABLE_JIT = True
    import pynndescent  # noqa: F401

    config.DISABLE_JIT = False
    from umap import distances, layouts, umap_

    for function in (
        distances.euclidean,
        umap_.smooth_knn_dist,
        umap_.compute_membership_strengths,
        layouts._nb_optimize_layout_euclidean_single_epoch,
    ):
        with contextlib.suppress(RuntimeError):  # no folder for numba's cache can be written
            function.enable_caching()
    _umap(
        np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32),
        0,
        np.zeros((0, 2), np.float32),
    )
    with contextlib.suppress(OSError, EOFError):  # the other process has ended
        while True:
            question = _receive(sys.stdin.buffer)
            position = _umap(question["vectors"], int(question["seed"]), question["start"])
            _send(answers, position=position)


def _send(stream: Any, **arrays: Any) -> None:
    """Write arrays to a pipe, their size first."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    stream.write(len(buffer.getbuffer()).to_bytes(8, "little"))
    stream.write(buffer.getbuffer())
    stream.flush()


def _receive(stream: Any) -> dict[str, Any]:
    size = int.from_bytes(_read(stream, 8), "little")
    with np.load(io.BytesIO(_read(stream, size)), allow_pickle=False) as file:
        return dict(file)


def _read(stream: Any, size: int) -> bytes:
    content: bytes = stream.read(size)
    if len(content) < size:
        raise EOFError
    return content


def spread_out(position: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Places from 0 to 1 along each axis, three tenths by position and seven by rank.

    The order along each axis stays. A map's clusters lie far apart, at distances that mean little;
    by position alone most of the plane would be empty.

    Args:
        position: (n, 2) positions.
    """
    from scipy.stats import rankdata

    low, extent = position.min(axis=0), np.ptp(position, axis=0)
    by_position = (position - low) / np.where(extent > 0, extent, 1)
    by_rank = (rankdata(position, axis=0) - 1) / max(1, len(position) - 1)
    return np.asarray(0.3 * by_position + 0.7 * by_rank)
