"""Which samples of a source are used: classes, number a class, and their order.

The procedure is the original study's, to the letter: classes in the order of
``collections.Counter.most_common`` (ties by first appearance), the first ``classes`` of them, then
sorted; one ``random.Random(seed)``; each class's list shuffled in sorted class order; the first
``per_class`` kept. Where signers are known, which the study's data do not tell, they take turns.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from signbridge.errors import ImagesError
from signbridge.runtime.words import some

_NAMED = 30  # classes that a message lists


def choose_classes(labels: Sequence[str], classes: int | Sequence[str] | None) -> tuple[str, ...]:
    """Return the sorted names of the classes to use.

    Args:
        labels: Class name of every sample of the source, in its order.
        classes: How many of the most common classes, or which; ``None`` for all.

    Raises:
        ImagesError: There are not so many classes, no such class, or fewer than two in the end.
    """
    counts = Counter(labels)
    if classes is None:
        chosen = sorted(counts)
    elif isinstance(classes, int):
        if not 2 <= classes <= len(counts):
            if len(counts) < 2:
                return choose_classes(labels, None)  # says that one class is not enough
            raise ImagesError(
                f"--classes is {classes}, but the images have {len(counts)} classes; "
                f"give a number from 2 to {len(counts)}."
            )
        chosen = sorted(name for name, _ in counts.most_common(classes))
    else:
        chosen = sorted(set(classes))
        unknown = [name for name in chosen if name not in counts]
        if unknown:
            raise ImagesError(
                f"There are no images of the class {some(unknown, _NAMED)}; "
                f"there are {some(sorted(counts), _NAMED)}."
            )
    if len(chosen) < 2:
        left = f"Only 1 class is left ({chosen[0]})" if chosen else "No class is chosen"
        raise ImagesError(f"{left}; at least two are needed to tell apart.")
    return tuple(chosen)


def queues(
    labels: Sequence[str],
    class_names: Sequence[str],
    per_class: int | None,
    seed: int,
    signers: Sequence[str] | None = None,
) -> dict[str, list[int]]:
    """Return, for each class in order, the indices of its samples in the order to take them.

    Args:
        labels: Class name of every sample of the source.
        class_names: Classes to use, sorted.
        per_class: Number to be kept of each class; ``None`` keeps the order of the source.
        seed: Seed of the shuffling.
        signers: Signer of every sample, where they are known: with ``per_class`` one of each signer
            is taken in turn, so that a class has each of them as often as can be.

    Raises:
        ImagesError: ``per_class`` is below 1.
    """
    if per_class is not None and not 1 <= per_class < 2**31:
        raise ImagesError(
            f"--per_class is {per_class}; give 1 or more (not billions), or leave it out to use "
            "every image."
        )
    lists: dict[str, list[int]] = {name: [] for name in class_names}
    for index, label in enumerate(labels):
        if label in lists:
            lists[label].append(index)
    if per_class is not None:
        generator = random.Random(seed)
        for members in lists.values():
            generator.shuffle(members)
            if signers is not None:
                members[:] = _in_turn(members, signers)
    return lists


def _in_turn(members: Sequence[int], signers: Sequence[str]) -> list[int]:
    """Order samples so that every signer's first comes before any signer's second, and so on."""
    seen: Counter[str] = Counter()
    turn = []
    for index in members:
        turn.append(seen[signers[index]])
        seen[signers[index]] += 1
    return [index for _, index in sorted(zip(turn, members, strict=True), key=lambda one: one[0])]


def notes_on_counts(kept: dict[str, int], per_class: int | None) -> list[str]:
    """Say which classes have fewer images than asked for, and which have only one."""
    notes = []
    if per_class is not None:
        short = [f"{name} ({count})" for name, count in kept.items() if count < per_class]
        if short:
            notes.append(
                f"Fewer than {per_class} images a class: {some(short, _NAMED)}; all of them are "
                "used."
            )
    single = [name for name, count in kept.items() if count == 1]
    if single and per_class != 1:
        whose = "of the class" if len(single) == 1 else "each of the classes"
        notes.append(
            f"A single image {whose} {some(single, _NAMED)}: it cannot be both trained on and "
            "tested on."
        )
    return notes
