"""LLaVA-1.5-7B at full size, in NF4 on one GPU: what an extraction costs beside the other ways.

    python benchmarks/full_size.py                  # one GPU with 24 GB or more; some 20 minutes
    python benchmarks/full_size.py --config small   # the same code on a CPU, in a minute

The architecture is built from its configuration with random weights (speed and memory do not depend
on their values) and quantised as a loaded checkpoint is; nothing is downloaded. While it is built,
the temporary folder holds 28 GB. The bundled photographs are repeated; each is enlarged to the
model's size as any image is. No answer ends early, so every way generates as many tokens.

Ways, each timed by the clock, after one batch without a clock:

- *SignBridge*: ``extract_activations``, images to verified store, all layers or as deep as it says.
- *the study's loop*: one image at a time through processor and ``generate``, hooks that copy the
  last token of every layer whenever it passes. What the original study did.
- *output_hidden_states*: prepared batches, all states returned, last tokens copied.
- *bare forward pass*: the inner model on prepared batches, nothing read.
- *bare answers*: ``generate`` on prepared batches, nothing read.
- *floor*: multiplications and additions that a forward pass needs, over the rate at which this
  device multiplies two matrices of the size of the decoder's.

A ratio is a speed over the speed of another way in the same run. The busy share is the mean of what
``nvidia-smi`` reports every quarter of a second, where there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from counts import count
from full_size_model import CONFIGS, multiply_adds, repeated, write_model_folder
from rich.console import Console
from torch import nn

from signbridge.extraction import module
from signbridge.extraction.batch_size import is_out_of_memory
from signbridge.extraction.data import BatchDataset, split_rows
from signbridge.extraction.extract import extract_activations
from signbridge.images import open_images
from signbridge.model.description import ModelDescription, describe_model
from signbridge.model.families import decoder_layers
from signbridge.model.load import load_model
from signbridge.model.prompts import DEFAULT_PROMPT

ANSWER = 20


@dataclass
class Row:
    """What one way took.

    Attributes:
        way: its name.
        batch: images of a forward pass, or ``auto``.
        speed: images per second; None where the memory did not hold it.
        gigabytes: peak of the GPU's memory.
        busy: the GPU's busy share, 0 to 1.
        written: bytes.
    """

    way: str
    batch: int | str
    speed: float | None
    gigabytes: float | None = None
    busy: float | None = None
    written: int | None = None


# -- measuring ------------------------------------------------------------------------------------


class Bench:
    """A model on a device, images for it, and the ways of running them.

    Args:
        folder: where model folder and stores go.
        config: one of :data:`CONFIGS`.
        device: ``cuda`` or ``cpu``.
    """

    def __init__(self, folder: Path, config: dict[str, Any], device: torch.device) -> None:
        write_model_folder(folder / "model", config)
        self.folder, self.device = folder, device
        self.description: ModelDescription = describe_model(str(folder / "model"), weights="random")
        self.model: Any = load_model(self.description, device, quantization="nf4")
        self.model.generation_config.eos_token_id = None  # no answer ends early
        self.images = open_images("sample")
        self.layers = decoder_layers(self.model)

    # -- the ways ---------------------------------------------------------------------------------

    def signbridge(
        self, n_images: int, batch: int | str, tokens: int = 0, deepest: int | None = None
    ) -> int:
        """Extract to a store; returns its size in bytes."""
        path = self.folder / "store.h5"
        options: dict[str, Any] = {"batch_size": batch, "max_new_tokens": tokens}
        if deepest is not None:
            options["layers"] = list(range(deepest + 1))
        with patch.object(module, "load_model", lambda *_, **__: self.model):
            extract_activations(
                repeated(self.images, n_images),
                self.description,
                path,
                accelerator="gpu" if self.device.type == "cuda" else "cpu",
                devices=1,
                overwrite=True,
                console=Console(quiet=True),
                **options,
            )
        return path.stat().st_size

    def study(self, n_images: int, tokens: int) -> None:
        """One image after the other, with an answer, hooks copying what passes last."""
        kept: dict[int, torch.Tensor] = {}

        def reader(layer: int) -> Callable[..., None]:
            def read(_module: nn.Module, _inputs: object, output: Any) -> None:
                hidden = output if isinstance(output, torch.Tensor) else output[0]
                kept[layer] = hidden[:, -1, :].detach().cpu()

            return read

        handles = [layer.register_forward_hook(reader(k)) for k, layer in enumerate(self.layers)]
        try:
            for row in range(n_images):
                inputs = self._on_device(
                    self.description.processor(
                        text=DEFAULT_PROMPT,
                        images=self.images.load(row % len(self.images)),
                        return_tensors="pt",
                    )
                )
                with torch.inference_mode():
                    self.model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
                torch.stack([kept[k] for k in range(len(self.layers))]).numpy()
        finally:
            for handle in handles:
                handle.remove()

    def hidden_states(self, batches: list[dict[str, torch.Tensor]]) -> None:
        """What transformers returns when asked for all states."""
        for inputs in batches:
            with torch.inference_mode():
                states = self.model.model(
                    **inputs, output_hidden_states=True, use_cache=False
                ).hidden_states
            torch.stack([state[:, -1] for state in states[1:]], dim=1).cpu().numpy()

    def bare(self, batches: list[dict[str, torch.Tensor]]) -> None:
        """Nothing but the forward pass."""
        for inputs in batches:
            with torch.inference_mode():  # prompts of one length, so nothing is padded
                self.model.model(**inputs, use_cache=False)

    def generated(self, batches: list[dict[str, torch.Tensor]]) -> None:
        """Nothing but the answers."""
        for inputs in batches:
            with torch.inference_mode():
                self.model.generate(**inputs, max_new_tokens=ANSWER, do_sample=False)

    # -- what they need ---------------------------------------------------------------------------

    def batches(self, n_images: int, batch: int) -> list[dict[str, torch.Tensor]]:
        """Prepared batches on the device; eight different ones at most, repeated."""
        dataset, parts = self._dataset(n_images), split_rows(range(n_images), batch)
        made: list[dict[str, torch.Tensor]] = []
        for rows in parts[:8]:
            prepared: Any = dataset[rows]
            made.append(self._on_device(prepared.inputs))
        return [made[k % len(made)] for k in range(len(parts))]

    def _dataset(self, n_images: int) -> BatchDataset:
        images = repeated(self.images, n_images)
        return BatchDataset(images, self.description.processor, DEFAULT_PROMPT)

    def _on_device(self, inputs: Any) -> dict[str, torch.Tensor]:
        return {
            name: tensor.to(self.device, self.model.dtype if tensor.is_floating_point() else None)
            for name, tensor in inputs.items()
        }

    def prepared_per_second(self, n_images: int) -> float:
        """Images that one process decodes and prepares in a second."""
        dataset, parts = self._dataset(n_images), split_rows(range(n_images), 16)
        dataset[parts[0]]
        began = time.perf_counter()
        for rows in parts:
            dataset[rows]
        return n_images / (time.perf_counter() - began)

    def operations(self) -> int:
        """Floating-point operations of one image's forward pass."""
        batch = self.batches(1, 1)
        return multiply_adds(self.model, lambda: self.bare(batch))

    def matrix_rate(self) -> float:
        """Operations per second of a product as large as those of the decoder's feed-forward."""
        text = self.description.config.get_text_config()
        rows = 16_384 if self.device.type == "cuda" else 1024
        left = torch.randn(rows, text.hidden_size, device=self.device).to(self.model.dtype)
        right = torch.randn(text.hidden_size, text.intermediate_size, device=self.device).to(left)
        rates: list[float] = []
        for _ in range(10):
            self._wait()
            began = time.perf_counter()
            for _ in range(5):
                left @ right
            self._wait()
            seconds = (time.perf_counter() - began) / 5
            rates.append(2 * rows * text.hidden_size * text.intermediate_size / seconds)
        return statistics.median(rates)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def row(self, way: str, batch: int | str, n_images: int, run: Callable[[], int | None]) -> Row:
        """Time one way; a way that the memory does not hold has no speed."""
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        with busy_share(on_gpu) as shares:
            began = time.perf_counter()
            try:
                written = run()
                self._wait()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                return Row(way, batch, None)
            seconds = time.perf_counter() - began
        peak = torch.cuda.max_memory_allocated(self.device) / 1e9 if on_gpu else None
        busy = statistics.mean(shares) if shares else None
        return Row(way, batch, n_images / seconds, peak, busy, written)


@contextmanager
def busy_share(on_gpu: bool) -> Iterator[list[float]]:
    """Collect what ``nvidia-smi`` reports of the first GPU meanwhile; nothing where it is not."""
    shares: list[float] = []
    command = shutil.which("nvidia-smi") if on_gpu else None
    if command is None:
        yield shares
        return
    query = [command, "-i", "0", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    with subprocess.Popen([*query, "-lms", "250"], stdout=subprocess.PIPE, text=True) as process:

        def read() -> None:
            for line in process.stdout or ():
                if line.strip().isdigit():
                    shares.append(int(line) / 100)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            yield shares
        finally:
            process.terminate()
            reader.join(timeout=5)


def measure(bench: Bench, config: dict[str, Any], n_images: int) -> list[Row]:
    """All ways, one after the other, smallest batches first."""
    rows: list[Row] = []

    def add(way: str, batch: int | str, count: int, run: Callable[[], int | None]) -> None:
        rows.append(bench.row(way, batch, count, run))
        print_row(rows[-1])

    def extract(way: str, batch: int | str, count: int, *options: int) -> None:
        add(way, batch, count, lambda: bench.signbridge(count, batch, *options))

    few = max(4, n_images // 16)
    bench.study(1, ANSWER)  # once without a clock
    bench.signbridge(2, 2, ANSWER)
    add("the study's loop, with answers", 1, few, lambda: bench.study(few, ANSWER))
    add("the study's loop, one token", 1, few, lambda: bench.study(few, 1))
    for batch in config["batch_sizes"]:
        count = min(n_images, max(few, 32 * batch))
        batches = bench.batches(count, batch)
        for way, run in (
            ("bare forward pass", bench.bare),
            ("output_hidden_states", bench.hidden_states),
            ("bare answers", bench.generated),
        ):
            add(way, batch, count, partial(run, batches))
        del batches
        extract("SignBridge", batch, count)
        extract("SignBridge, with answers", batch, count, ANSWER)
    extract("SignBridge", "auto", n_images)
    extract("SignBridge, with answers", "auto", n_images, ANSWER)
    best = best_of(rows, "SignBridge").batch
    for deepest in config["deepest"]:
        extract(f"SignBridge, layers 0 to {deepest}", best, n_images, 0, deepest)
    return rows


# -- printing -------------------------------------------------------------------------------------


def best_of(rows: list[Row], way: str) -> Row:
    """The fastest row of a way."""
    return max((row for row in rows if row.way == way), key=lambda row: row.speed or 0)


def print_row(row: Row) -> None:
    """One line of the table of speeds."""
    cells = [
        row.way,
        str(row.batch),
        "out of memory" if row.speed is None else f"{row.speed:.2f}",
        "–" if row.gigabytes is None else f"{row.gigabytes:.1f}",
        "–" if row.busy is None else f"{100 * row.busy:.0f} %",
        "–" if row.written is None else f"{row.written / 1e6:.1f}",
    ]
    print(f"| {' | '.join(cells)} |", flush=True)


def ratios(rows: list[Row], floor: float, deepest: list[int]) -> list[tuple[str, float, str]]:
    """Each promise: what is compared, the ratio of speeds, the bar."""
    ours, answers = best_of(rows, "SignBridge"), best_of(rows, "SignBridge, with answers")
    study = best_of(rows, "the study's loop, with answers")
    bare, spoken = best_of(rows, "bare forward pass"), best_of(rows, "bare answers")
    states = best_of(rows, "output_hidden_states")
    found: list[tuple[str, Row | float, Row | float, str]] = [
        ("capture / the study's loop", ours, study, "7"),
        ("capture with answers / the study's loop", answers, study, "4"),
        ("capture / bare forward pass, each at its best", ours, bare, "0.97"),
        ("capture / output_hidden_states, each at its best", ours, states, ""),
        ("capture with answers / bare answers, each at its best", answers, spoken, ""),
        ("capture / floor by the matrix rate", ours, floor, "0.6"),
    ]
    last = best_of(rows, f"SignBridge, layers 0 to {deepest[-1]}")
    for layer in deepest[:-1]:
        part = best_of(rows, f"SignBridge, layers 0 to {layer}")
        bar = "about 2" if layer == 16 else ""
        found.append((f"layers 0 to {layer} / 0 to {deepest[-1]}", part, last, bar))

    def speed(of: Row | float) -> float:
        return of if isinstance(of, float) else of.speed or float("nan")

    return [(what, speed(a) / speed(b), bar) for what, a, b, bar in found]


def machine(device: torch.device) -> str:
    """The machine and the versions, in one line."""
    import bitsandbytes
    import transformers

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return (
        f"{name or platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, bitsandbytes {bitsandbytes.__version__}"
    )


def main(arguments: list[str] | None = None) -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--config", choices=sorted(CONFIGS), default="full")
    parser.add_argument("--images", type=count, help="images of the longest measurements")
    parser.add_argument("--batch_sizes", type=count, nargs="+")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args(arguments)
    config = dict(CONFIGS[options.config])
    if options.batch_sizes:
        config["batch_sizes"] = options.batch_sizes
    if options.config == "full" and not torch.cuda.is_available():
        sys.exit("The full size needs a CUDA device: give --config small on a CPU.")
    device = torch.device("cuda:0" if options.config == "full" else "cpu")
    print(machine(device))
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        bench = Bench(Path(folder), config, device)
        weights = sum(p.numel() * p.element_size() for p in bench.model.parameters()) / 1e9
        print(f"model built in {time.perf_counter() - began:.0f} s, weights {weights:.2f} GB")
        prepared = bench.prepared_per_second(64)
        operations, rate = bench.operations(), bench.matrix_rate()
        floor = rate / operations
        print(
            f"{operations / 1e12:.3g} million million operations an image, "
            f"{rate / 1e12:.3g} a second: floor {floor:.1f} images/s; one process prepares "
            f"{prepared:.0f} images/s\n"
        )
        print("| way | images of a batch | images/s | GPU memory GB | GPU busy | MB written |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        rows = measure(bench, config, options.images or config["images"])
    print("\n| ratio of speeds | found | bar |\n| --- | ---: | ---: |")
    compared = ratios(rows, floor, config["deepest"])
    for what, value, bar in compared:
        print(f"| {what} | {value:.2f} | {bar} |")
    if options.json:
        found = {"machine": machine(device), "floor": floor, "rows": [vars(row) for row in rows]}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
