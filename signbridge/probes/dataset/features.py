"""What a probe can be trained on, and how it is read from a store.

Two features stand for what the model *says*, to be measured like any layer:

``text``
    which words the generated answer holds, 0 or 1 for each word;
``forced_choice``
    the log-probability of each class name as the whole answer.

A probe on them learns which answer goes with which class ("fist" may mean A, E, M, N, S or T), so
it credits the answer with everything that can be told from it, not only with naming the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn, cast

import numpy as np
import numpy.typing as npt

from signbridge.errors import ProbeError
from signbridge.results.features import FORCED_CHOICE, RESID_POST, SAID, TEXT, Feature
from signbridge.results.predictions import too_many_classes
from signbridge.runtime.words import counted

if TYPE_CHECKING:
    from signbridge.store import Store

MEMORY_BYTES = 4 * 2**30
"""Default bound on the memory that features take."""
MAX_WORDS = 1000
"""Most words of the feature ``text``: the commonest, in alphabetical order."""


def store_labels(store: Store) -> npt.NDArray[np.int64]:
    """The store's labels as int64, shape (n_samples,).

    Raises:
        ProbeError: the store has no labels, or names many more classes than its samples have.
    """
    if store.labels is None or len(store.labels) == 0:
        raise ProbeError(
            f"{store.path} holds no labels; extract again from images whose class is known."
        )
    labels = np.asarray(store.labels, dtype=np.int64)
    named, found = len(store.class_names), len(np.unique(labels))
    if too_many_classes(named, labels):
        raise ProbeError(
            f"{store.path} names {counted(named, 'class', 'classes')} and its "
            f"{counted(len(labels), 'sample')} are of {found:,}; extract again with the classes "
            "that there are images of."
        )
    return labels


def select_features(
    store: Store, layers: Literal["all"] | Sequence[int] = "all", *, baselines: bool = True
) -> list[Feature]:
    """The features of a sweep: layers in ascending order, the store's baselines, what was said.

    Of an encoder-decoder the decoder's layers, of the same numbers, follow those of the encoder.

    Args:
        store: an open store.
        layers: decoder layers, or ``all`` that the store holds.
        baselines: whether to take the store's baselines and answers too.

    Raises:
        ProbeError: a layer that the store does not hold, or none at all.
    """
    held = [int(layer) for layer in store.layers]
    if isinstance(layers, str):
        if layers != "all":
            raise ProbeError(f"layers must be all or a list of layer numbers, not {layers!r}.")
        wanted = held
    else:
        wanted = sorted({int(layer) for layer in layers})
    missing = [layer for layer in wanted if layer not in held]
    if missing:
        raise ProbeError(
            f"{store.path} holds no layer {', '.join(map(str, missing))}; "
            f"it holds {', '.join(map(str, held))}."
        )
    if not wanted:
        raise ProbeError("no layer to probe: give at least one with layers, or all.")
    chosen = [Feature(RESID_POST, layer) for layer in wanted]
    if not baselines:
        return chosen
    said = ((TEXT, store.responses), (FORCED_CHOICE, store.class_logprob))
    besides = [Feature.stored(str(name)) for name in store.baselines]
    behind = sorted(f for f in besides if f.layer is not None)
    return [
        *chosen,
        *(f for f in behind if layers == "all" or f.layer in wanted),
        *(f for f in besides if f.layer is None),
        *(Feature(name) for name, values in said if values is not None),
    ]


def answer_words(
    responses: Sequence[str], max_words: int = MAX_WORDS
) -> tuple[npt.NDArray[np.uint8], tuple[str, ...]]:
    """Which words each answer holds.

    The vocabulary is that of all answers: it knows no labels, so nothing leaks into a test part.

    Args:
        responses: the answers.
        max_words: most words to count, the commonest.

    Returns:
        0 or 1, shape (answers, words), and the words. Where no answer holds a word, one column of
        zeros for the word ``""``.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(
        binary=True, token_pattern=r"\w+", max_features=max_words, dtype=np.uint8
    )
    try:
        table = counter.fit_transform(responses)
    except ValueError:  # scikit-learn's way to say that there is no word at all
        return np.zeros((len(responses), 1), dtype=np.uint8), ("",)
    return np.asarray(table.toarray(), dtype=np.uint8), tuple(counter.get_feature_names_out())


class FeatureSource:
    """Features of one width, read from a store within a memory bound.

    What fits is read once, a layer at a time, and kept in the stored dtype. What does not is read
    again in blocks of consecutive samples that are aligned to the store's chunks.

    Args:
        store: an open store.
        features: features to serve together; all of one width.
        memory_bytes: bound on what is kept.

    Raises:
        ProbeError: no features, features of different width, or none that the store holds.
    """

    def __init__(
        self, store: Store, features: Sequence[Feature], memory_bytes: int = MEMORY_BYTES
    ) -> None:
        if not features:
            raise ProbeError("give at least one feature to read.")
        self.store = store
        self.features = tuple(features)
        self.n_samples = int(store.n_samples)
        self._kept: dict[Feature, npt.NDArray[Any]] = {}
        heads = [self._read(feature, slice(0, 1)) for feature in self.features]
        widths = {
            feature.name: head.shape[1] for feature, head in zip(features, heads, strict=True)
        }
        if len(set(widths.values())) > 1:
            listed = ", ".join(f"{name} {width}" for name, width in widths.items())
            raise ProbeError(f"features served together must have one width ({listed}).")
        self.n_features = int(heads[0].shape[1])
        self.dtype = heads[0].dtype
        size = self.n_samples * self.n_features * sum(head.itemsize for head in heads)
        self.in_memory = size <= memory_bytes

    def __len__(self) -> int:
        return len(self.features)

    def _read(self, feature: Feature, rows: slice | None = None) -> npt.NDArray[Any]:
        if feature.kind in SAID:
            # Small, and the words of one answer are known only beside all others.
            if feature not in self._kept:
                if feature.kind == TEXT:
                    values, _ = answer_words(self.store.responses or [])
                else:
                    values = np.asarray(self.store.class_logprob)
                self._kept[feature] = values
            return self._kept[feature][slice(None) if rows is None else rows]
        return cast("npt.NDArray[Any]", self.store.feature(feature.stored_name, rows=rows))

    def array(self, feature: Feature) -> npt.NDArray[Any]:
        """A whole feature, shape (n_samples, n_features), as stored; not to be changed."""
        if feature in self._kept:
            return self._kept[feature]
        values = self._read(feature)
        if not np.issubdtype(values.dtype, np.integer) and not np.isfinite(values).all():
            self.refuse(feature, int(np.flatnonzero(~np.isfinite(values).all(1))[0]))
        if self.in_memory:
            self._kept[feature] = values
        return values

    def refuse(self, feature: Feature, sample: int) -> NoReturn:
        """Say that a feature of a sample is not finite.

        Raises:
            ProbeError: always.
        """
        raise ProbeError(
            f"{feature.name} of sample {self.store.sample_ids[sample]} in {self.store.path} is "
            "not finite; run signbridge verify on the store and extract it again."
        )

    def block(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Consecutive samples, float32, shape (stop - start, len(self), n_features)."""
        rows = slice(start, stop)
        out = np.empty((stop - start, len(self), self.n_features), dtype=np.float32)
        for number, feature in enumerate(self.features):
            kept = self._kept.get(feature)
            out[:, number] = self._read(feature, rows) if kept is None else kept[rows]
        return out
