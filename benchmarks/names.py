"""What scoring class names as answers costs beside the prompt's pass, in each of its three ways.

    python benchmarks/names.py                  # 24 names in every way, 2,731 in one pass
    python benchmarks/names.py --names 24 256

A random LLaVA of 58 million parameters, 576 image tokens a prompt, whose unembedding takes as small
a share of a pass as that of a model of 7 billion. The names are made up: a list of 2,731 in which
1,300 beginnings are shared as words share theirs, of one to four tokens; fewer names are drawn
from it. The first 24 are one token each, as letters are. Batches without names and with names take
turns; what the names add is given as a share of the batch without them, in processor seconds of all
threads. ``forced`` is timed on fewer names and scaled: its cost is one prompt's pass for each.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
from counts import count
from extraction import MIDDLE_SIZE

Names = tuple[tuple[int, ...], ...]
ALL_NAMES = 2731
LETTERS: Names = tuple((100 + k,) for k in range(24))
_BEGINNINGS = 1300
_FORCED_AT_MOST = 3  # names that are timed: each costs the same


def names_of(number: int, vocabulary: int) -> Names:
    """So many different names as token ids, fewer drawn from the whole list."""
    generator = np.random.default_rng(0)
    ids = generator.permutation(np.arange(100, vocabulary))
    known: dict[tuple[int, ...], None] = {}
    while len(known) < ALL_NAMES:
        length = generator.choice([1, 2, 3, 4], p=[0.3, 0.4, 0.2, 0.1])
        # Few beginnings are those of many names, as "open" is of "open hand" and "open palm".
        begin = ids[int(_BEGINNINGS * generator.random() ** 1.5)]
        known[(int(begin), *map(int, generator.choice(ids[:300], length - 1)))] = None
    drawn = generator.permutation(ALL_NAMES)[:number]
    listed = list(known)
    return tuple(listed[k] for k in sorted(drawn))


def measure(
    numbers: list[int], ways: list[str], images: int, repeats: int
) -> Iterator[dict[str, Any]]:
    """Time batches without and with names in turns."""
    import torch

    from signbridge.extraction.data import BatchDataset
    from signbridge.images import open_images
    from signbridge.model.description import describe_model
    from signbridge.model.forward import CaptureRequest, run_batch
    from signbridge.model.load import load_model
    from signbridge.model.prompts import DEFAULT_PROMPT
    from signbridge.runtime.heap import keep_freed_memory

    keep_freed_memory()  # as the command does
    with tempfile.TemporaryDirectory() as folder:
        model, description = _model(Path(folder), describe_model, load_model)
        dataset: Any = BatchDataset(open_images("sample"), description.processor, DEFAULT_PROMPT)
        inputs = dataset[range(images)].inputs
    layers = tuple(range(description.n_layers))
    vocabulary = description.config.get_text_config().vocab_size
    print(f"{images} images of {inputs['input_ids'].shape[1]} tokens, {torch.__version__}")

    def run(names: Names | None, way: Any) -> None:
        request = CaptureRequest(layers, answers=names, scoring=way)
        run_batch(model, inputs, description.image_token_id, request)

    for way in ways:
        for number in numbers:
            names = names_of(number, vocabulary) if number else LETTERS
            timed = names[:_FORCED_AT_MOST] if way == "forced" else names
            if number > 64 and way != "one_pass":
                continue
            bare, named = _in_turns(
                lambda: run(None, "one_pass"),
                lambda timed=timed, way=way: run(timed, way),  # type: ignore[misc]
                repeats,
            )
            added = (named - bare) / bare * len(names) / len(timed)
            first = len({name[0] for name in names})
            nodes = len({name[: k + 1] for name in names for k in range(len(name))})
            row = {"way": way.replace("_", " "), "names": len(names), "first tokens": first}
            row |= {"tokens": nodes, "added / bare pass": added}
            yield row | {"added / bare pass a first token": added / first}


def _model(folder: Path, describe: Any, load: Any) -> tuple[Any, Any]:
    import torch
    from full_size_model import write_model_folder
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    vision = {**MIDDLE_SIZE["vision"], "image_size": 336}
    text = {**MIDDLE_SIZE["text"], "vocab_size": 2048}
    write_model_folder(folder, {"text": text, "vision": vision})
    torch.manual_seed(0)
    made: Any = LlavaForConditionalGeneration
    made(LlavaConfig.from_pretrained(folder)).save_pretrained(folder)
    description = describe(str(folder))
    return load(description, "cpu", quantization="none"), description


def _in_turns(
    one: Callable[[], None], two: Callable[[], None], repeats: int
) -> tuple[float, float]:
    """Processor seconds of both, the least of several turns."""
    seconds: list[list[float]] = [[], []]
    for turn in range(repeats + 1):
        for which, way in enumerate((one, two)):
            before = time.process_time()
            way()
            if turn:  # the first turn warms up
                seconds[which].append(time.process_time() - before)
    return min(seconds[0]), min(seconds[1])


def main() -> None:
    """Measure and print the table."""
    from signbridge.model.answers import Scoring

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--names", type=count, nargs="+", default=[24, ALL_NAMES])
    parser.add_argument("--ways", nargs="+", default=get_args(Scoring), choices=get_args(Scoring))
    parser.add_argument("--images", type=count, default=2)
    parser.add_argument("--repeats", type=count, default=3)
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for row in measure([0, *options.names], list(options.ways), options.images, options.repeats):
        print(
            "  ".join(
                f"{k} {v:,.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
