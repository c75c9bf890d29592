"""What the model says of the label, beside what a layer knows of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from signbridge.probes.controls.measurement import Measurement
from signbridge.results.answers import class_words, names_class, normalise
from signbridge.results.features import FORCED_CHOICE, SAID, TEXT, ZERO_SHOT
from signbridge.results.format import ANSWERS_FILE
from signbridge.results.results import AnswerCount
from signbridge.results.summary import Bits, ForcedChoice, Said, SaidText, Value
from signbridge.results.tables import columns_of
from signbridge.runtime.files import replace_file
from signbridge.runtime.tables import csv_text
from signbridge.runtime.terminal import visible
from signbridge.statistics.bootstrap import paired_difference

if TYPE_CHECKING:
    from pathlib import Path

    from signbridge.probes.scoring import Row, ScoredSweep
    from signbridge.results.features import Feature
    from signbridge.statistics.bootstrap import Interval, Scored
    from signbridge.store import Store

BITS = "usable_information"


def zero_shot(
    class_logprob: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """The forced choice as probabilities of the classes that occur, which share all of it.

    Args:
        class_logprob: shape (samples, classes).
        labels: class indices of the samples, shape (samples,).

    Returns:
        Shape (samples, classes); 0 for classes without a sample.
    """
    present = np.unique(labels[labels >= 0])
    shares = np.zeros(class_logprob.shape, dtype=np.float32)
    shares[:, present] = zero_shot_shares(class_logprob[:, present])
    return shares


def zero_shot_shares(class_logprob: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Log-probabilities of the class names as shares that add up to 1, same shape."""
    logits = class_logprob.astype(np.float64)
    share = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(share / share.sum(axis=1, keepdims=True))


def count_answers(
    responses: Sequence[str],
    labels: npt.NDArray[np.int64],
    class_names: Sequence[str],
    words: Sequence[str] | None = None,
) -> list[AnswerCount]:
    """Count the answers of every class, commonest first.

    Args:
        responses: the answers, one an image.
        labels: class indices, shape (images,); negative ones are left out.
        class_names: names by class index.
        words: what stands for each class in an answer; its name by default.
    """
    found: list[AnswerCount] = []
    for index, name in enumerate(class_names):
        rows = np.flatnonzero(np.asarray(labels) == index).tolist()
        word = name if words is None else words[index]
        answers = Counter(
            (normalise(responses[row]), names_class(responses[row], word)) for row in rows
        )
        for (answer, named), count in sorted(answers.items(), key=lambda item: (-item[1], item[0])):
            found.append(AnswerCount(name, answer, count, count / len(rows), named))
    return found


def write_answers(store: Store, path: Path) -> list[AnswerCount]:
    """Write the answers of every class, commonest first, as CSV.

    Returns:
        The rows; none, and no file, where the store holds no answers.
    """
    if store.responses is None:
        return []
    counts = count_answers(
        store.responses, np.asarray(store.labels), store.class_names, class_words(store)
    )
    rows = (
        (
            *map(visible, (row.class_name, row.answer)),
            *(row.count, row.share, str(row.names_class).lower()),
        )
        for row in counts
    )
    replace_file(path, csv_text(columns_of(AnswerCount), rows).encode())
    return counts


def said_against_known(
    answers: Sequence[AnswerCount],
    labels: npt.NDArray[np.int64],
    scores: Mapping[str, Scored],
    layer: Feature,
) -> Said | None:
    """Bits that a layer knows, that the answers say, and the differences.

    Args:
        answers: of every class, counted; empty where the store holds none.
        labels: class indices of the samples that were scored.
        scores: of every feature, by its name; of :data:`ZERO_SHOT` too where there is a choice.
        layer: the decoder layer to speak of.

    Returns:
        ``said`` of the summary, or None where the store holds nothing that was said.
    """
    if not any(name in scores for name in SAID):
        return None
    known = scores[layer.name]

    def bits_of(name: str) -> dict[str, Any]:
        more = paired_difference(known, scores[name], BITS)
        return {
            "bits": scores[name].intervals[BITS].value,
            "ci": _ends(scores[name].intervals[BITS]),
            "known_minus_said": Bits(more.value, _ends(more)),
        }

    text, choice = None, None
    if TEXT in scores:
        text = SaidText(**bits_of(TEXT))
        if answers:
            n = sum(row.count for row in answers)
            text = replace(
                text,
                names_class=sum(row.count for row in answers if row.names_class) / n,
                distinct_answers=len({row.answer for row in answers}),
            )
    if FORCED_CHOICE in scores:
        choice = ForcedChoice(**bits_of(FORCED_CHOICE))
        if ZERO_SHOT in scores:
            alone = {name: scores[ZERO_SHOT].intervals[name] for name in ("accuracy", BITS)}
            choice = replace(
                choice, zero_shot={name: Value(i.value, _ends(i)) for name, i in alone.items()}
            )
    found = Said(
        layer=layer.layer,
        known=Bits(known.intervals[BITS].value, _ends(known.intervals[BITS])),
        class_entropy=_entropy(labels),
        text=text,
        forced_choice=choice,
    )
    return replace(found, sentence=sentence(found))


def _ends(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


def sentence(said: Said) -> str:
    """The one sentence that the numbers support.

    Args:
        said: what :func:`said_against_known` found: the answer, the forced choice or both.
    """
    told = [
        (words, part)
        for words, part in (
            ("the answer says", said.text),
            ("the forced choice tells", said.forced_choice),
        )
        if part is not None
    ]
    known, entropy = _bits(said.known.bits), said.class_entropy
    parts = ", ".join(f"{words} {_bits(part.bits)}" for words, part in told)
    text = f"Layer {said.layer} knows {known} of {entropy:.1f} bits; {parts}."
    more = told[0][1].known_minus_said
    low, high = more.ci
    if low > 0:
        return f"{text} The layer knows more than is said: {_span(more.bits, low, high)} bits."
    if high < 0:
        return f"{text} More is said than a linear probe finds in the layer."
    if math.isnan(low):
        return f"{text} So few groups permit no test of the difference, {_bits(more.bits)} bits."
    return f"{text} The difference, {_span(more.bits, low, high)} bits, may be chance."


def _bits(value: float) -> str:
    return f"{value:.1f}".replace("-", "−")


def _span(value: float, low: float, high: float) -> str:
    return f"{_bits(value)} ({_bits(low)} to {_bits(high)})"


def _entropy(labels: npt.NDArray[np.int64]) -> float:
    share = np.bincount(labels) / len(labels)
    share = share[share > 0]
    return float(-(share * np.log2(share)).sum())


class Answers(Measurement):
    """What the model says, from the store: its answers, and its choice among the class names."""

    def predictions(self) -> Mapping[str, npt.NDArray[np.floating[Any]]]:
        """The forced choice as the model makes it."""
        store = self.sweep.store
        if store.class_logprob is None:
            return {}
        return {ZERO_SHOT: zero_shot(store.class_logprob, self.sweep.plan.labels)}

    def rows(self, scored: ScoredSweep) -> Iterator[Row]:
        """See :class:`Measurement`."""
        if ZERO_SHOT in scored.scores:
            yield from scored.main.rows(ZERO_SHOT, scored.scores[ZERO_SHOT].intervals)

    def summary(self, scored: ScoredSweep) -> Mapping[str, Any]:
        """What is said beside what the best layer knows; ``answers.csv`` is written too."""
        counts = write_answers(self.sweep.store, self.sweep.folder.path / ANSWERS_FILE)
        layer, labels = scored.best.feature, scored.main.labels
        return {"said": said_against_known(counts, labels, scored.scores, layer)}
