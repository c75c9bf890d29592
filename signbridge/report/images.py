"""Image by image: small pictures, and what is known and said of each."""

from __future__ import annotations

import base64
import io
import math
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from signbridge.report.figures import style
from signbridge.report.figures.chart import embedded
from signbridge.results.answers import class_words, names_class
from signbridge.store.provenance import grouping

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from markupsafe import Markup

    from signbridge.report.figures.plot import Plot
    from signbridge.report.inputs import Inputs
    from signbridge.store import Store

__all__ = ["Browser", "Kind", "Said", "browser", "pictures"]

_MOST = 600  # images: some 2 MB of photographs
_MORE = 60  # that figures show besides
_EXAMPLES = 5
_LONGEST_ANSWER = 120
# A thumbnail has 128 pixels a side and some thousand bytes; a stranger's may have what it likes.
_LARGEST = 1 << 16  # characters of base64
_WIDEST = 256  # pixels


def pictures(store: Store, rows: Sequence[int]) -> dict[int, str]:
    """Small pictures of some images, as data URIs by row.

    Those that the store keeps are headed by what a browser will decode, which is looked at here:
    what is no JPEG, or a large one, is left out. A store without any gives its grey images.

    Args:
        store: The activation store.
        rows: Rows of it.
    """
    from PIL import Image

    if "thumbnail" in store:
        texts = store.texts("thumbnail", rows)
        return {
            row: f"data:image/jpeg;base64,{text}"
            for row, text in zip(rows, texts, strict=True)
            if _is_small_jpeg(text)
        }
    found: dict[int, str] = {}
    if "pixels" in store.baselines:
        for row, values in zip(rows, store.feature("pixels", rows), strict=True):
            edge = math.isqrt(values.size)
            buffer = io.BytesIO()
            Image.fromarray(values[: edge * edge].reshape(edge, edge)).save(buffer, "PNG")
            content = base64.b64encode(buffer.getvalue()).decode()
            found[row] = f"data:image/png;base64,{content}"
    return found


def _is_small_jpeg(text: str) -> bool:
    from PIL import Image

    try:
        if len(text) > _LARGEST:
            return False
        content = base64.b64decode(text, validate=True)
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:  # reads its head alone
            return max(image.size) <= _WIDEST
    except Exception:  # whatever Pillow finds in bytes that are no JPEG
        return False


def squares(store: Store, rows: Sequence[int]) -> dict[int, npt.NDArray[np.uint8]]:
    """The middle square of small pictures, (side, side, 3), by row; without those that are damaged.

    Args:
        store: The activation store.
        rows: Rows of it.
    """
    from PIL import Image, ImageOps

    found: dict[int, npt.NDArray[np.uint8]] = {}
    for row, uri in pictures(store, rows).items():
        with suppress(Exception), Image.open(_content(uri)) as image:
            side = min(image.size)
            found[row] = np.asarray(ImageOps.fit(image.convert("RGB"), (side, side)))
    return found


def _content(uri: str) -> io.BytesIO:
    return io.BytesIO(base64.b64decode(uri.partition(",")[2]))


@dataclass(frozen=True)
class Kind:
    """Images that are alike in whether they are known and said.

    Attributes:
        name: What the page calls them.
        count: How many there are, shown or not.
        number: The ``kind`` of an image, empty for all.
    """

    name: str
    count: int
    number: int | str = ""


@dataclass(frozen=True)
class Browser:
    """The images of the page.

    Attributes:
        rows: Rows of the predictions that are shown, ascending.
        kinds: What one click chooses, the first of them all images.
        caption: Which images these are, and what known and said mean.
        spec: What ``images.js`` reads.
        pictures: Small pictures as data URIs, by row; those of the figures too.
        examples: Known and not said, of different classes, the surest first: entries of ``spec``.
        group_word: What a group is.
    """

    rows: tuple[int, ...]
    kinds: tuple[Kind, ...]
    caption: str
    spec: dict[str, Any]
    pictures: dict[int, str]
    examples: tuple[dict[str, Any], ...]
    group_word: str

    @property
    def json(self) -> Markup:
        """``spec`` as the page holds it."""
        from markupsafe import Markup

        return Markup(embedded(self.spec))


class Said:
    """What is said of every image, as columns."""

    def __init__(self, inputs: Inputs) -> None:
        assert inputs.store is not None
        self._store = inputs.store
        self.results = inputs.results

    @cached_property
    def answers(self) -> list[str] | None:
        """The generated answer of each image."""
        return self._store.responses

    @cached_property
    def choice(self) -> npt.NDArray[np.int64] | None:
        """The class that the forced choice picks among those that occur."""
        values = self._store.class_logprob
        if values is None:
            return None
        present = np.unique(self.results.predictions.label)
        return np.asarray(present[values[:, present].argmax(axis=1)])

    @cached_property
    def says(self) -> npt.NDArray[np.bool_] | None:
        """Whether the answer names the class; without answers, the forced choice picks it."""
        label = self.results.predictions.label
        if self.answers is None:
            return None if self.choice is None else self.choice == label
        words = class_words(self._store) or self.results.class_names
        pairs = list(zip(label.tolist(), self.answers, strict=True))
        told = {(k, text): names_class(text, words[k]) for k, text in set(pairs)}
        return np.array([told[pair] for pair in pairs], bool)


class _Images(Said):
    """What is known too, by the best layer."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        p = self.results.predictions
        probability = p.probability(self.results.best_feature)
        self.scored = np.asarray(np.isfinite(probability).all(axis=1))
        known = np.where(self.scored[:, None], probability, 0)
        self.read = np.where(self.scored, known.argmax(axis=1), -1)
        self.sure = known.max(axis=1)
        self.knows = self.read == p.label

    @cached_property
    def kind(self) -> npt.NDArray[np.int64]:
        """0 known and not said, 1 said and not known, 2 neither, 3 both; unsaid 2 and 3 alone."""
        says = self.knows if self.says is None else self.says
        return np.where(self.knows, np.where(says, 3, 0), np.where(says, 1, 2))


def browser(inputs: Inputs, plots: Iterable[Plot]) -> Browser | None:
    """The images that the page shows one by one; None without a store or without pictures.

    Where there are more than a page should carry, a random choice of each kind and class alike is
    shown, by the seed of the protocol.

    Args:
        inputs: The results and their store.
        plots: The figures of the page, which show images too.
    """
    if inputs.store is None:
        return None
    results, table = inputs.results, _Images(inputs)
    plots = list(plots)
    maps = [plot.chart.map for plot in plots if plot.chart and plot.chart.map]
    on_maps = [row for one in maps for row in one["rows"]]
    rows = _choose(table, results.protocol.seed, on_maps)
    named = {spot.thumbnail for plot in plots for spot in plot.wide.spots}
    more = sorted(row for row in named - {*rows, None} if row is not None)
    small = pictures(inputs.store, [*rows, *(more if len(more) <= _MORE else [])])
    if not small:
        return None
    label, names = results.predictions.label, results.class_names
    answers = [] if table.answers is None else [table.answers[row] for row in rows]
    distinct = {text: place for place, text in enumerate(dict.fromkeys(answers))}
    groups = results.predictions.group if results.predictions.group_names is not None else None
    says = None if table.answers is None else table.says
    entries: list[dict[str, Any]] = [
        {
            "row": row,
            "label": int(label[row]),
            "read": int(table.read[row]),
            "sure": round(float(table.sure[row]), 3),
            "answer": distinct[table.answers[row]] if table.answers is not None else None,
            "choice": None if table.choice is None else int(table.choice[row]),
            "group": None if groups is None else int(groups[row]),
            "kind": int(table.kind[row]),
            "says": None if says is None else bool(says[row]),
        }
        for row in rows
    ]
    mentioned = {entry[key] for entry in entries for key in ("label", "read", "choice")} - {None}
    spec = {
        "layer": results.best_layer,
        "classes": {k: style.printable(names[k]) for k in sorted(mentioned)},
        "groups": _group_names(inputs, entries),
        "answers": [style.short(text or "(nothing)", _LONGEST_ANSWER) for text in distinct],
        "images": entries,
    }
    return Browser(
        rows=tuple(rows),
        kinds=_kinds(table),
        caption=_caption(inputs, table, len(rows)),
        spec=spec,
        pictures=small,
        examples=_examples(entries, small),
        group_word=grouping(results.provenance).one.partition(" ")[2].capitalize(),
    )


def _choose(table: _Images, seed: int, first: Sequence[int]) -> list[int]:
    """At most ``_MOST`` rows: of each kind alike, and in it of each class in turn.

    Those in ``first`` come before others, so that the points of a map have their picture.
    """
    scored = np.flatnonzero(table.scored)
    if len(scored) <= _MOST:
        return [int(row) for row in scored]
    label = table.results.predictions.label
    shuffled = np.random.default_rng(seed).permutation(scored)
    shuffled = shuffled[np.argsort(~np.isin(shuffled, first), kind="stable")]
    chosen: list[list[int]] = []
    for kind in np.unique(table.kind[scored]):
        rows = shuffled[table.kind[shuffled] == kind]
        by_class = np.argsort(label[rows], kind="stable")
        _, start, count = np.unique(label[rows[by_class]], return_index=True, return_counts=True)
        turn = np.arange(len(rows)) - np.repeat(start, count)  # the how many-th of its class
        order = np.empty(len(rows), np.int64)
        order[by_class] = turn
        chosen.append([int(row) for row in rows[np.argsort(order, kind="stable")]])
    found: list[int] = []
    left = _MOST
    for number, rows in enumerate(sorted(chosen, key=len)):  # a small kind leaves room to others
        share = left // (len(chosen) - number)
        found += rows[:share]
        left -= len(rows[:share])
    return sorted(found)


def _group_names(inputs: Inputs, entries: Sequence[dict[str, Any]]) -> dict[int, str] | None:
    names = inputs.results.predictions.group_names
    if names is None:
        return None
    return {g: style.printable(names[g]) for g in sorted({entry["group"] for entry in entries})}


def _kinds(table: _Images) -> tuple[Kind, ...]:
    kind = table.kind[table.scored]
    found = [Kind("All", len(kind))]
    if table.says is not None:
        words = ("Known, not said", "Said, not known", "Neither", "Both")
        found += [Kind(name, int((kind == k).sum()), k) for k, name in enumerate(words)]
    else:
        found += [Kind("Known", int((kind == 3).sum()), 3)]
        found += [Kind("Not known", int((kind == 2).sum()), 2)]
    return tuple(found)


def _caption(inputs: Inputs, table: _Images, shown: int) -> str:
    results = inputs.results
    n = int(table.scored.sum())
    text = (
        "All images. "
        if shown == n
        else f"{shown:,} of {n:,} images, drawn at random from each kind and class alike (seed "
        f"{results.protocol.seed}). "
    )
    layer = results.best_layer
    text += f"Known: the probe of layer {layer}, which never saw the image, reads its class."
    if table.says is not None:
        text += (
            " Said: the answer names it."
            if table.answers is not None
            else " Said: the forced choice picks it."
        )
    return text


def _examples(
    entries: Sequence[dict[str, Any]], small: dict[int, str]
) -> tuple[dict[str, Any], ...]:
    found: dict[int, dict[str, Any]] = {}
    for entry in sorted(entries, key=lambda one: (-one["sure"], one["row"])):
        if entry["kind"] == 0 and entry["row"] in small:
            found.setdefault(entry["label"], entry)
    return tuple(list(found.values())[:_EXAMPLES])
