"""What an extraction costs beside the forward pass, and whether its memory grows with the images.

    python benchmarks/extraction.py --case overhead
    python benchmarks/extraction.py --case questions --images 64
    python benchmarks/extraction.py --case memory

``overhead`` takes a random LLaVA of 58 million parameters. It runs prepared batches in turn as a
bare forward pass of the inner model and with every layer captured and copied to arrays, batch by
batch, so that both meet the machine in the same state. Then it runs the whole extraction but for
loading the model, and sums what was spent inside the forward passes (hooks included), in preparing
images, and otherwise: start, gathering, shards, the verified store. Ratios are by the clock and by
the processor's time of all threads, which is less sensitive to what else the machine does.

``questions`` takes the same model with images of 576 tokens, as LLaVA-1.5's. In turns, batch by
batch, it runs one question alone and two questions, the second of which continues from the images'
end, and then the whole extraction with one question and with two.

``memory`` runs the command twice, each in a process of its own, on CSVs of 3,462 and of 34,627 rows
(the bundled rows repeated with noise) and prints the resident memory of each: its peak while the
images were read and grouped, what was left of that, and the peak while they were run through the
model and stored.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from counts import count
from numpy.typing import NDArray

MIDDLE_SIZE: dict[str, dict[str, Any]] = {
    "text": {
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_hidden_layers": 16,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "head_dim": 64,
    },
    "vision": {
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_hidden_layers": 6,
        "image_size": 112,
        "patch_size": 14,
    },
}


def middle_sized_model(folder: Path, image_size: int = 112) -> None:
    """Write a random LLaVA whose forward pass takes far longer than anything around it."""
    import torch
    from full_size_model import write_model_folder
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    vision = MIDDLE_SIZE["vision"] | {"image_size": image_size}
    write_model_folder(folder, MIDDLE_SIZE | {"vision": vision})
    torch.manual_seed(0)
    model: Any = LlavaForConditionalGeneration
    model(LlavaConfig.from_pretrained(folder)).save_pretrained(folder)


def overhead(repeats: int, n_images: int) -> list[dict[str, Any]]:
    """Time both passes batch by batch, then the whole extraction, ``repeats`` times."""
    import torch
    from rich.console import Console

    from signbridge.extraction import module
    from signbridge.extraction.data import BatchDataset, split_rows
    from signbridge.extraction.extract import extract_activations
    from signbridge.extraction.module import HostCopy
    from signbridge.images import open_images
    from signbridge.model.description import describe_model
    from signbridge.model.forward import CaptureRequest, run_batch
    from signbridge.model.load import load_model
    from signbridge.model.prompts import DEFAULT_PROMPT
    from signbridge.model.sites import SITES

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        middle_sized_model(root / "model")
        description = describe_model(str(root / "model"))
        model = load_model(description, "cpu", quantization="none")
        images = open_images("sample")
        dataset = BatchDataset(images, description.processor, DEFAULT_PROMPT)
        batches: list[Any] = [dataset[rows] for rows in split_rows(range(n_images), 8)]
        request = CaptureRequest(tuple(range(description.n_layers)), sites=tuple(SITES))

        def bare(batch: Any) -> None:
            with torch.inference_mode():  # prompts of one length, so nothing is padded
                model.model(**batch.inputs, use_cache=False)

        def captured(batch: Any) -> None:
            read = run_batch(model, batch.inputs, description.image_token_id, request)
            HostCopy({"resid_post": read.resid_post}).arrays()

        def whole() -> None:
            extract_activations(
                replace_images(images, n_images),
                description,
                root / "store.h5",
                quantization="none",
                num_workers=0,
                overwrite=True,
                console=Console(quiet=True),
            )

        clocks: dict[str, Stopwatch] = {
            name: Stopwatch() for name in ("bare", "captured", "forward", "prepared", "whole")
        }
        # The module imports the loader by name for itself.
        vars(module)["load_model"] = lambda *_, **__: model
        bare(batches[0])  # once without a clock
        whole()
        for number in range(repeats * len(batches)):
            batch = batches[number % len(batches)]
            ways = [("bare", bare), ("captured", captured)]
            for name, way in ways if number % 2 else ways[::-1]:
                clocks[name].timed(way)(batch)
        # With the vision tower, which generation runs before the forward pass.
        model.generate = clocks["forward"].timed(model.generate)
        prepare = vars(BatchDataset)["__getitem__"]
        BatchDataset.__getitem__ = clocks["prepared"].timed(prepare)  # type: ignore[method-assign]
        for _ in range(repeats):
            clocks["whole"].timed(whole)()
    seconds = {name: clock.seconds for name, clock in clocks.items()}
    other = seconds["whole"] - seconds["forward"] - seconds["prepared"]
    hooks = seconds["captured"] / seconds["bare"]
    total = hooks * seconds["whole"] / seconds["forward"]
    return [
        row("layers captured and copied, to the bare forward pass", hooks),
        row(
            "images prepared, to the extraction's passes", seconds["prepared"] / seconds["forward"]
        ),
        row("start, shards, verified store, to the same", other / seconds["forward"]),
        row("the whole extraction, to the bare forward pass (bar: at most 1.05)", total),
        {"bare passes, images/s": repeats * n_images / float(seconds["bare"][0])},
    ]


def questions(repeats: int, n_images: int) -> list[dict[str, Any]]:
    """Time one question and two, batch by batch and in whole extractions."""
    from rich.console import Console

    from signbridge.extraction import module
    from signbridge.extraction.data import BatchDataset, split_rows
    from signbridge.extraction.extract import extract_activations
    from signbridge.images import open_images
    from signbridge.model.description import describe_model
    from signbridge.model.forward import CaptureRequest, run_batch
    from signbridge.model.load import load_model
    from signbridge.model.prompts import prompt_for_processor, resolve_prompt
    from signbridge.model.questions import run_questions, shared_prefix
    from signbridge.model.sites import SITES

    names = ["sign", "letter"]
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        middle_sized_model(root / "model", image_size=336)
        description = describe_model(str(root / "model"))
        processor, token = description.processor, description.image_token_id
        model = load_model(description, "cpu", quantization="none")
        images = replace_images(open_images("sample"), n_images)
        prompts = [prompt_for_processor(resolve_prompt(q, processor), processor) for q in names]
        dataset = BatchDataset(images, processor, prompts[0])
        batches: list[Any] = [dataset[rows] for rows in split_rows(range(n_images), 8)]
        request = CaptureRequest(tuple(range(description.n_layers)), sites=tuple(SITES))
        both = [request] * 2
        endings, off = shared_prefix(model, description, prompts, images.load(0), both, pads=True)
        lengths = [len(ending) for ending in endings]
        shared = batches[0].inputs["input_ids"].shape[1] - lengths[0]

        def one(batch: Any) -> None:
            run_batch(model, batch.inputs, token, request)

        def two(batch: Any) -> None:
            run_questions(model, batch.inputs, token, endings, both)

        def whole(asked: str | list[str]) -> None:
            extract_activations(
                images,
                description,
                root / "store.h5",
                prompt=asked,
                quantization="none",
                num_workers=0,
                overwrite=True,
                console=Console(quiet=True),
            )

        clocks = {name: Stopwatch() for name in ("one", "two", "whole one", "whole two")}
        vars(module)["load_model"] = lambda *_, **__: model
        one(batches[0])
        for number in range(repeats * len(batches)):
            batch = batches[number % len(batches)]
            ways = [("one", one), ("two", two)]
            for name, way in ways if number % 2 else ways[::-1]:
                clocks[name].timed(way)(batch)
        for _ in range(repeats):
            clocks["whole one"].timed(whole)(names[0])
            clocks["whole two"].timed(whole)(names)
    seconds = {name: clock.seconds for name, clock in clocks.items()}
    return [
        {"tokens up to the image's end": shared, "of the questions": str(lengths)},
        {"difference from whole passes": f"{off:.1e}"},
        row(
            "passes: a second question, to the first (bar: under 0.15)",
            seconds["two"] / seconds["one"] - 1,
        ),
        row(
            "whole extraction, tried at load: a second question, to the first",
            seconds["whole two"] / seconds["whole one"] - 1,
        ),
    ]


class Stopwatch:
    """Sums the seconds of a function's calls, by the clock and by the processor in all threads."""

    def __init__(self) -> None:
        self.seconds = np.zeros(2)

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function with its time taken, however it ends."""

        @functools.wraps(function)  # generation looks at the signature of a forward pass
        def run(*arguments: Any, **options: Any) -> Any:
            start = np.array([time.perf_counter(), time.process_time()])
            try:
                return function(*arguments, **options)
            finally:
                self.seconds += np.array([time.perf_counter(), time.process_time()]) - start

        return run


def row(what: str, ratio: NDArray[np.float64]) -> dict[str, Any]:
    """A line of the table."""
    return {"what": what, "by the clock": float(ratio[0]), "by the processor": float(ratio[1])}


def replace_images(images: Any, n_images: int) -> Any:
    """The first ``n_images`` of a set."""
    return replace(
        images,
        sample_id=images.sample_id[:n_images],
        label=images.label[:n_images],
        source_split=images.source_split[:n_images],
        image_sha256=images.image_sha256[:n_images],
        pixels=images.pixels[:n_images],
        group=images.group[:n_images],
    )


PEAK = """
import json, sys
from signbridge.cli.main import main
from signbridge.extraction import extract

def clear():
    with open("/proc/self/clear_refs", "w") as file:  # 5: forget the peak so far
        file.write("5")

def memory(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024e-6 for line in file if line.startswith(name))

found = {}
run = extract.run_extraction
def measured(*arguments, **options):
    found["reading MB"], found["then MB"] = memory("VmHWM"), memory("VmRSS")
    clear()
    return run(*arguments, **options)
extract.run_extraction = measured
status = main(sys.argv[1:], command="extract")
found["extracting MB"] = memory("VmHWM")
print(json.dumps(found))
sys.exit(status)
"""


def memory(sizes: tuple[int, int]) -> list[dict[str, Any]]:
    """Peak resident memory of the whole command for two numbers of images (Linux alone)."""
    from signbridge.images import open_images

    sample = open_images("sample")
    letters = [ord(sample.class_names[k]) - ord("A") for k in sample.label]
    generator = np.random.default_rng(0)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for size in sizes:
            chosen = generator.integers(0, len(sample), size)
            noise = generator.integers(-20, 20, (size, 784))
            pixels = np.clip(sample.pixels[chosen] + noise, 0, 255)
            table = np.column_stack([np.array(letters)[chosen], pixels])
            path = Path(temporary) / f"rows_{size}.csv"
            header = ",".join(["label", *(f"pixel{k}" for k in range(1, 785))])
            np.savetxt(path, table, fmt="%d", delimiter=",", header=header, comments="")
            done = subprocess.run(
                [
                    sys.executable,
                    "-c",
                    PEAK,
                    *("--images", str(path), "--output", f"{temporary}/{size}.h5"),
                    *("--quantization", "none", "--num_workers", "0", "--batch_size", "32"),
                ],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                env=os.environ | {"OMP_NUM_THREADS": "2"},
            )
            rows.append({"images": size, **json.loads(done.stdout.splitlines()[-1])})
    few, many = (row["extracting MB"] - row["then MB"] for row in rows)
    rows.append({"running and storing adds, many images / few (bar: flat)": many / few})
    return rows


def main() -> None:
    """Run one case and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--case", choices=["overhead", "questions", "memory"], default="overhead")
    parser.add_argument("--repeats", type=count, default=3)
    parser.add_argument("--images", type=count, default=256)
    parser.add_argument("--sizes", type=count, nargs=2, default=[3_462, 34_627])
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    if options.case == "overhead":
        rows = overhead(options.repeats, options.images)
    elif options.case == "questions":
        rows = questions(options.repeats, options.images)
    else:
        rows = memory((options.sizes[0], options.sizes[1]))
    for row in rows:
        print(
            "  ".join(
                f"{k} {v:,.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()
            )
        )


if __name__ == "__main__":
    main()
