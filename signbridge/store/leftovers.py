"""What stopped runs have left beside a store: parts of it, of its replacement, of further layers.

Layers that a finished store ``OUTPUT`` lacks are extracted into ``OUTPUT.adding-XXXXXXXX`` (with
parts of its own) and then joined. Such a leftover goes only when the store holds all of it already;
what could still be continued stays, and is named.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signbridge.errors import StoreError
from signbridge.store.parts import Parts, comparable_samples, samples_identity
from signbridge.store.provenance import differing_keys
from signbridge.store.reader import Store, open_store


@dataclass(frozen=True)
class Unfinished:
    """An unfinished store.

    Attributes:
        path: The file that it is to become.
        folder: Where its parts lie.
        provenance: What it is made with.
        layers: Decoder layer numbers.
        n_samples: Samples it will hold.
        samples_done: Samples of the shards that are recorded; not verified here.
        shards: Number of shards.
        shards_done: How many of them are recorded.
        last_written: When the newest record was written (seconds since 1970), or ``None``.
    """

    path: Path
    folder: Path
    provenance: Mapping[str, Any]
    layers: tuple[int, ...]
    n_samples: int
    samples_done: int
    shards: int
    shards_done: int
    last_written: float | None
    _plan: Mapping[str, Any]

    @property
    def baselines(self) -> set[str]:
        """Names of the baselines that it will hold."""
        return {str(text).partition(" (")[0] for text in self._plan["spec"]["baselines"]}

    def is_of(self, store: Store) -> bool:
        """Whether it is made of the same samples in the same way."""
        mine, its = comparable_samples(self._plan["samples"], samples_identity(store.samples))
        return not differing_keys(self.provenance, store.provenance) and bool(mine == its)

    def is_within(self, store: Store) -> bool:
        """Whether a finished store holds all that this one would."""
        spec = self._plan["spec"]
        have = {f"{k} ({v[0]} x {v[1]})" for k, v in store.spec.baselines.items()}
        return bool(
            self.is_of(store)
            and set(self.layers) <= set(store.layers)
            and spec["store_dtype"] == store.dtype.name
            and set(spec["baselines"]) <= have
            and spec["responses"] <= (store.responses is not None)
            and spec["class_logprob"] <= (store.class_logprob is not None)
        )

    def __str__(self) -> str:
        return (
            f"{self.samples_done:,} of {self.n_samples:,} samples at {_named(self.layers)}, in "
            f"{self.folder}"
        )


def _named(layers: Sequence[int]) -> str:
    return f"layer{'' if len(layers) == 1 else 's'} {', '.join(map(str, layers))}"


def unfinished(path: Path) -> Unfinished | None:
    """What lies in the folder of parts of ``path``, or ``None`` if there is no usable plan."""
    parts = Parts(path)
    try:
        plan = parts.read_plan()
        layers = tuple(int(layer) for layer in plan["spec"]["layers"])
        edges = plan["edges"]
        provenance, _ = dict(plan["provenance"]), dict(plan["samples"])
    except (OSError, StoreError, KeyError, TypeError, ValueError):
        return None
    done, times = [], []
    for index, (start, stop) in enumerate(edges):
        with suppress(OSError):
            times.append(parts.record_path(index).stat().st_mtime)
            parts.shard_path(index).stat()
            done.append(stop - start)
    return Unfinished(
        path,
        parts.folder,
        provenance,
        layers,
        max((stop for _, stop in edges), default=0),
        sum(done),
        len(edges),
        len(done),
        max(times, default=None),
        plan,
    )


def adding_path(output: Path, layers: Sequence[int]) -> Path:
    """Where layers that the finished store ``output`` lacks lie until they are joined."""
    name = hashlib.sha256(repr(tuple(layers)).encode()).hexdigest()[:8]
    return output.with_name(f"{output.name}.adding-{name}")


def addings(output: Path) -> list[Path]:
    """The files or future files of layers on their way to ``output``."""
    found = output.parent.glob(f"{glob.escape(output.name)}.adding-????????*")
    names = {path.name.removesuffix(".parts") for path in found}
    wanted = len(output.name) + len(".adding-") + 8
    return [output.with_name(name) for name in sorted(names) if len(name) == wanted]


def tidy_addings(output: Path, current: Path | None = None) -> list[str]:
    """Remove what a finished store holds already; say what else was left.

    Args:
        output: A finished store.
        current: What is to be added now; it goes only if it began for another store at ``output``,
            so that it could never be continued.

    Returns:
        For each other adding that stays a description of it.

    Raises:
        StoreError: If the store cannot be read.
    """
    stays = []
    for path in addings(output):
        parts = Parts(path)
        try:
            parts.lock()
        except (OSError, StoreError):  # another process is at work on it
            continue
        try:
            with open_store(output) as store:
                if path == current:
                    _forget_if_outdated(path, parts, store)
                else:
                    stays += _tidy_adding(path, parts, store)
        finally:
            parts.drop_if_empty()
            parts.unlock()
    return stays


def _forget_if_outdated(path: Path, parts: Parts, store: Store) -> None:
    left = unfinished(path)
    if left is not None and not left.is_of(store):
        with suppress(OSError):
            parts.remove()


def _tidy_adding(path: Path, parts: Parts, store: Store) -> list[str]:
    if path.exists():
        try:
            with open_store(path) as added:
                within = set(added.layers) <= set(store.layers)
                layers = _named(added.layers)
        except StoreError:
            return [f"{path}, which cannot be read"]
        if not within:
            return [f"{layers}, finished but not joined, in {path}"]
        with suppress(OSError):
            path.unlink()
            parts.remove()
        return []
    left = unfinished(path)
    if left is None:
        return []
    if left.is_within(store):
        with suppress(OSError):
            parts.remove()
        return []
    return [str(left)]
