"""Joining stores of equal provenance: more samples, or more layers and baselines."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from signbridge.errors import StoreError
from signbridge.runtime.progress import StageProgress, stage
from signbridge.runtime.words import composed, some
from signbridge.store import files
from signbridge.store.final import Content, publish_store
from signbridge.store.output import (
    check_output,
    is_store,
    refuse_link,
    refuse_what_is_no_store,
)
from signbridge.store.parts import Parts, spec_identity
from signbridge.store.provenance import differing_keys, in_common, not_compared, plain
from signbridge.store.reader import Store, open_store
from signbridge.store.schema import (
    RESID_POST,
    RESPONSE,
    THUMBNAIL,
    SampleTable,
    StoreSpec,
    Values,
    Variable,
)
from signbridge.store.settings import SETTINGS

# Where the images came from may differ between stores of different samples.
SAMPLE_KEYS = frozenset(
    {
        "image_source",
        "image_fingerprint",
        "layout",
        "signers",
        "groups",
        "seed",
        "classes",
        "per_class",
    }
)
# What was captured may differ between stores of the same samples.
SITE_KEYS = frozenset({"site"})


def merge_stores(
    paths: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    overwrite: bool = False,
    progress: StageProgress | None = None,
) -> Path:
    """Join stores of equal provenance into one.

    Stores with the same samples are joined by their layers and baselines; the rows of the first
    decide the order. Stores with no sample in common are joined by their samples, in the order
    given: class names are united, and groups of different stores stay apart unless they share an
    identical image or have the same name: a signer of that name may be the same person, whom no
    split may part.

    Args:
        paths: Two or more finished stores.
        output: The file to write.
        overwrite: Whether ``output`` may be replaced.
        progress: Told how far verifying the stores, making the file and verifying it have come.

    Returns:
        The path of the new store.

    Raises:
        StoreError: If a store cannot be read or is named twice, stores conflict (named), ``output``
            is one of them, exists, is no store to overwrite or cannot be written, or another
            process is writing it.
    """
    target = Path(output).absolute()
    if len(paths) < 2:
        raise StoreError("Merging needs at least two stores: name two or more.")
    _refuse_the_same_file(paths)
    for path in paths:
        if _is_same_file(path, target):
            raise StoreError(
                f"{target} is one of the stores to merge: choose another output file, so that "
                "none of them is lost."
            )
    with files.clear_errors(target):
        if refuse_what_is_no_store(target, overwrite=overwrite) and not overwrite:
            refuse_link(target)
            replace_it = " or give --overwrite true" if is_store(target) else ""
            raise StoreError(f"{target} exists already: choose another output file{replace_it}.")
    check_output(target, overwrite=overwrite)
    _join(paths, target, progress)
    return target


def extend_store(
    base: str | os.PathLike[str],
    extra: str | os.PathLike[str],
    progress: StageProgress | None = None,
) -> None:
    """Put what ``extra`` holds of the same samples, or other samples, into ``base``, atomically.

    Whoever reads ``base`` meanwhile keeps the old file.

    Args:
        base: The store to extend.
        extra: The store to take from; it stays.
        progress: As in :func:`merge_stores`.

    Raises:
        StoreError: As :func:`merge_stores` does; then ``base`` is as it was.
    """
    _refuse_the_same_file([base, extra])
    _join([base, extra], Path(base).absolute(), progress)


def _is_same_file(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> bool:
    try:
        return Path(a).samefile(b)
    except OSError:
        return Path(a).absolute() == Path(b).absolute()


def _refuse_the_same_file(paths: Sequence[str | os.PathLike[str]]) -> None:
    for number, path in enumerate(paths):
        for other in paths[:number]:
            if _is_same_file(path, other):
                which = f"{other} is named twice" if path == other else f"{path} is {other}"
                raise StoreError(f"{which}: name every store once to merge them.")


def _join(
    paths: Sequence[str | os.PathLike[str]], target: Path, progress: StageProgress | None
) -> None:
    with ExitStack() as stack:
        # A second process that joins to the same file would lose what this one joins.
        parts = Parts(target)
        with files.clear_errors(target):
            parts.lock()
        stack.callback(parts.unlock)
        stack.callback(parts.drop_if_empty)
        # Copying would give what is damaged new checksums that match.
        stores = [
            stack.enter_context(open_store(p, "full", stage(progress, f"verifying {p}")))
            for p in paths
        ]
        same = [set(s.sample_ids) == set(stores[0].sample_ids) for s in stores]
        content = _join_columns(stores) if all(same) else _join_rows(stores)
        with files.clear_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            files.remove_stale_temporaries(target.parent, f"{target.name}.tmp-")
        publish_store(target, content, progress=progress)


# -- the same samples, other layers or baselines --------------------------------------------------


def _join_columns(stores: Sequence[Store]) -> Content:
    first = stores[0]
    provenance = _recorded_by_all(stores)
    permutations: list[NDArray[np.int64] | None] = []
    for store in stores:
        _refuse(first, store, SITE_KEYS)
        permutations.append(_permutation(first, store))
        _refuse_samples(first, store, permutations[-1])
    for key in SITE_KEYS:
        values = _united([s.provenance.get(key) for s in stores])
        if values is not None:
            provenance[key] = values
    owner: dict[str, int] = {}  # which store gives a feature
    for number, store in enumerate(stores):
        names = [f"{RESID_POST}/{layer}" for layer in store.layers] + list(store.baselines)
        names += [name for name in ("response", "class_logprob") if name in store]
        for name in names:
            if name in owner:
                _refuse_other_values(stores[owner[name]], store, name, permutations[number])
            else:
                owner[name] = number
        if store.spec.thumbnails:
            owner.setdefault(THUMBNAIL.name, number)
    spec = StoreSpec(
        tuple(sorted({layer for s in stores for layer in s.layers})),
        first.hidden_size,
        first.spec.store_dtype,
        {name: value for s in reversed(stores) for name, value in s.spec.baselines.items()},
        responses="response" in owner,
        class_logprob="class_logprob" in owner,
        thumbnails=THUMBNAIL.name in owner,
    )
    source = _Columns(stores, permutations, owner, spec)
    named = next((s.group_names for s in stores if s.group_names is not None), None)
    samples = replace(first.samples, group_names=named)
    return Content(spec, samples, provenance, _merged_info(stores), source)


def _permutation(first: Store, store: Store) -> NDArray[np.int64] | None:
    if store.sample_ids == first.sample_ids:
        return None
    place = {sample: i for i, sample in enumerate(store.sample_ids)}
    return np.array([place[sample] for sample in first.sample_ids], np.int64)


def _refuse_samples(first: Store, store: Store, permutation: NDArray[np.int64] | None) -> None:
    order = np.arange(first.n_samples) if permutation is None else permutation
    if store.class_names != first.class_names:
        raise StoreError(
            f"{store.path} and {first.path} have the same samples but other class names: "
            f"{some(store.class_names, 10)} and {some(first.class_names, 10)}."
        )
    names = first.group_names, store.group_names
    if None not in names and names[0] != names[1]:
        raise StoreError(
            f"{store.path} and {first.path} have the same samples but other group names: "
            f"{some(names[1] or ())} and {some(names[0] or ())}."
        )
    for name in ("labels", "groups", "image_sha256", "source_splits"):
        mine, theirs = getattr(first, name), getattr(store, name)
        for i, j in enumerate(order):
            if mine[i] != theirs[j]:
                raise StoreError(
                    f"Sample '{first.sample_ids[i]}' has {name} {mine[i]!s} in {first.path} but "
                    f"{theirs[j]!s} in {store.path}: the stores are not of the same samples."
                )


def _refuse_other_values(
    owner: Store, store: Store, name: str, permutation: NDArray[np.int64] | None
) -> None:
    """The same feature in two stores is fine only where it has the same values."""
    step = 1024
    for start in range(0, owner.n_samples, step):
        rows = np.arange(start, min(start + step, owner.n_samples))
        other = rows if permutation is None else permutation[rows]
        if not np.array_equal(_captured(owner, name, rows), _captured(store, name, other)):
            raise StoreError(
                f"{name} is in both {owner.path} and {store.path}, with different values: leave "
                "one of the stores out."
            )


def _captured(store: Store, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
    if name in (RESPONSE.name, THUMBNAIL.name):
        return np.array(store.texts(name, rows), dtype=object)
    if name == "class_logprob":
        assert store.class_logprob is not None
        return store.class_logprob[rows]
    values: NDArray[Any] = store.feature(name, rows)
    return values


class _Columns:
    """Rows of one set of samples, gathered from several stores."""

    def __init__(
        self,
        stores: Sequence[Store],
        permutations: Sequence[NDArray[np.int64] | None],
        owner: Mapping[str, int],
        spec: StoreSpec,
    ) -> None:
        self._stores, self._permutations = stores, permutations
        self._owner, self._spec = owner, spec

    def rows(self, variable: Variable, start: int, stop: int, layer: int | None) -> Values:
        name = variable.name
        if layer is not None:
            name = f"{RESID_POST}/{self._spec.layers[layer]}"
        number = self._owner[name]
        permutation = self._permutations[number]
        rows = np.arange(start, stop) if permutation is None else permutation[start:stop]
        values = _captured(self._stores[number], name, rows)
        return list(values) if variable.dtype == "string" else values


# -- the same layers, other samples ---------------------------------------------------------------


def _join_rows(stores: Sequence[Store]) -> Content:
    first = stores[0]
    seen: dict[str, Store] = {}
    for store in stores:
        _refuse(first, store, SAMPLE_KEYS)
        _refuse_spec(first, store)
        for sample in store.sample_ids:
            if sample in seen:
                raise StoreError(
                    f"Sample '{sample}' is in both {seen[sample].path} and {store.path}, which do "
                    "not have all samples in common: stores must share all samples or none."
                )
            seen[sample] = store
    class_names = first.class_names
    if any(s.class_names != class_names for s in stores):
        # On some systems folders have names in another form of Unicode, which are the same names.
        united = tuple(sorted({composed(name) for s in stores for name in s.class_names}))
        same = all(tuple(map(composed, s.class_names)) == united for s in stores)
        if "class_logprob" in first and not same:
            raise StoreError(
                "The stores have other class names and log-probabilities for each class, which "
                "cannot be joined: extract them again with the same classes."
            )
        class_names = united
    provenance = _recorded_by_all(stores)
    for key in SAMPLE_KEYS:
        chosen = [s.provenance.get(key) for s in stores]
        # "all", a number or a list of names: what stores that differ in it have chosen is a list.
        differ = key == "classes" and any(value != chosen[0] for value in chosen)
        values = list(class_names) if differ else _united(chosen)
        if values is not None:
            provenance[key] = values
    group, group_names = joined_groups(
        [s.groups for s in stores],
        [s.image_sha256 for s in stores],
        [s.group_names for s in stores],
    )
    samples = SampleTable(
        [x for s in stores for x in s.sample_ids],
        np.concatenate([_relabelled(s, class_names) for s in stores]),
        class_names,
        group,
        [x for s in stores for x in s.source_splits],
        [x for s in stores for x in s.image_sha256],
        group_names,
    )
    spec = replace(first.spec, thumbnails=all(s.spec.thumbnails for s in stores))
    return Content(spec, samples, provenance, _merged_info(stores), _Rows(stores, spec))


def _refuse_spec(first: Store, store: Store) -> None:
    old, new = spec_identity(first.spec), spec_identity(store.spec)
    for key in differing_keys(old, new):
        raise StoreError(
            f"{first.path} and {store.path} have different samples and also different {key}: "
            f"{old[key]} and {new[key]}; only one of the two can be joined at a time."
        )


def _relabelled(store: Store, class_names: tuple[str, ...]) -> NDArray[np.int64]:
    if store.class_names == class_names:
        return store.labels
    place = {name: number for number, name in enumerate(class_names)}
    number = np.array([place[composed(name)] for name in store.class_names], np.int64)
    relabelled: NDArray[np.int64] = number[store.labels]
    return relabelled


def joined_groups(
    groups: Sequence[NDArray[np.int64]],
    hashes: Sequence[Sequence[str]],
    names: Sequence[tuple[str, ...] | None],
) -> tuple[NDArray[np.int64], tuple[str, ...] | None]:
    """Number the groups of several stores so that identical images and names join them.

    Args:
        groups: For each store the group of each sample.
        hashes: For each store the SHA-256 of each sample's image.
        names: For each store the names of its groups, if they have any.

    Returns:
        Group of each sample of all stores in turn, consecutive from 0 in order of appearance, and
        their names: where an image has joined several, all of these; ``None`` unless every store
        has names.
    """
    keys = [(number, int(g)) for number, column in enumerate(groups) for g in column]
    parent = {key: key for key in keys}

    def root(key: tuple[int, int]) -> tuple[int, int]:
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    first_with: dict[str, tuple[int, int]] = {}
    for key, digest in zip(keys, (h for column in hashes for h in column), strict=True):
        if digest:
            parent[root(key)] = root(first_with.setdefault(digest, key))
    named: dict[tuple[int, int], str] = {}
    for key in dict.fromkeys(keys):
        if (its := names[key[0]]) is not None:
            named[key] = composed(its[key[1]])
            same = first_with.setdefault(f"name {named[key]}", key)
            parent[root(key)] = root(same)
    number_of: dict[tuple[int, int], int] = {}
    group = np.array([number_of.setdefault(root(key), len(number_of)) for key in keys], np.int64)
    if None in names:
        return group, None
    together: dict[int, dict[str, None]] = {}
    for key, number in zip(keys, group.tolist(), strict=True):
        together.setdefault(number, {})[named[key]] = None
    return group, tuple(" and ".join(together[number]) for number in range(len(together)))


class _Rows:
    """Rows of several stores, one after the other."""

    def __init__(self, stores: Sequence[Store], spec: StoreSpec) -> None:
        self._stores, self._spec = stores, spec
        self._edges = np.cumsum([0, *(s.n_samples for s in stores)])

    def rows(self, variable: Variable, start: int, stop: int, layer: int | None) -> Values:
        name = variable.name
        if layer is not None:
            name = f"{RESID_POST}/{self._spec.layers[layer]}"
        pieces = []
        for number, store in enumerate(self._stores):
            low = max(start, int(self._edges[number])) - int(self._edges[number])
            high = min(stop, int(self._edges[number + 1])) - int(self._edges[number])
            if low < high:
                pieces.append(_captured(store, name, np.arange(low, high)))
        values = np.concatenate(pieces)
        return list(values) if variable.dtype == "string" else values


# -- both -----------------------------------------------------------------------------------------


def _refuse(first: Store, store: Store, allowed: frozenset[str]) -> None:
    old = {k: v for k, v in first.provenance.items() if k not in allowed}
    new = {k: v for k, v in store.provenance.items() if k not in allowed}
    keys = differing_keys(old, new)
    if keys:
        old, new = in_common(old, new)
        key = keys[0]
        others = f" (also {some(keys[1:], 5)})" if len(keys) > 1 else ""
        raise StoreError(
            f"{first.path} and {store.path} cannot be joined, since {key} is "
            f"{old.get(key)!r} in the one and {new.get(key)!r} in the other{others}."
        )
    if store.hidden_size != first.hidden_size or store.dtype != first.dtype:
        raise StoreError(
            f"{first.path} and {store.path} cannot be joined: their vectors have "
            f"{first.hidden_size} values of {first.dtype} and {store.hidden_size} of {store.dtype}."
        )


def _recorded_by_all(stores: Sequence[Store]) -> dict[str, Any]:
    """The provenance of the first, without settings that another store does not record."""
    return {
        key: value
        for key, value in stores[0].provenance.items()
        if key not in SETTINGS or all(key in store.provenance for store in stores)
    }


def _united(values: Sequence[Any]) -> Any:
    """One value where all agree, else the list of all, as texts if their types differ."""
    flat: list[Any] = []
    for value in values:
        for v in value if isinstance(value, list) else [value]:
            if v not in flat:
                flat.append(v)
    if len(flat) == 1:
        return values[0]
    if len({type(v) for v in flat}) > 1:
        flat = ["none" if v is None else str(v) for v in flat]
    return plain(flat)


def _merged_info(stores: Sequence[Store]) -> dict[str, Any]:
    names = [s.path.name for s in stores]
    note = not_compared({str(s.path): s.provenance for s in stores})
    unnamed = [s.path.name for s in stores if s.group_names is None]
    some_named = 0 < len(unnamed) < len(stores)
    model_notes = dict.fromkeys(n for s in stores for n in s.info.get("model_notes") or [])
    return {
        "merged_from": names,
        "without_group_names": unnamed if some_named else None,
        "not_compared": [note] if note else [],
        "model_notes": list(model_notes) or None,
        **{f"info_{i}": s.info for i, s in enumerate(stores)},
    }
