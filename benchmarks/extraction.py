"""What an extraction costs beside the forward pass, and whether its memory grows with the images.

    python benchmarks/extraction.py --case overhead
    python benchmarks/extraction.py --case memory

``overhead`` times a random LLaVA of 58 million parameters three ways, in turn and repeatedly: the
bare forward pass of the inner model over prepared batches; the same with every layer captured and
copied to arrays; and the whole extraction but for loading the model, which also decodes and
prepares the images and writes and verifies the store. It prints medians of times and of the ratios
to the bare forward pass beside them.

``memory`` runs the command twice, each in a process of its own, on CSVs of 3,462 and of 34,627 rows
(the bundled rows repeated with noise) and prints the peak resident memory of each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np


def middle_sized_model(folder: Path) -> Any:
    """Write a random LLaVA whose forward pass takes far longer than anything around it."""
    import torch
    from transformers import AutoProcessor, LlavaConfig, LlavaForConditionalGeneration

    from signbridge.vlm.tiny import make_tiny_llava

    make_tiny_llava(folder)
    config: Any = LlavaConfig.from_pretrained(folder)
    text, vision = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 512, 1408, 16
    text.num_attention_heads = text.num_key_value_heads = 8
    text.head_dim = 64
    vision.hidden_size, vision.intermediate_size, vision.num_hidden_layers = 256, 1024, 6
    vision.image_size, vision.patch_size = 112, 14
    processor: Any = AutoProcessor.from_pretrained(folder, backend="pil")
    processor.patch_size = 14
    processor.image_processor.size = {"shortest_edge": 112}
    processor.image_processor.crop_size = {"height": 112, "width": 112}
    torch.manual_seed(0)
    for old in folder.glob("*.safetensors"):
        old.unlink()
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)


def overhead(repeats: int, n_images: int) -> list[dict[str, Any]]:
    """Time the four ways in turn, ``repeats`` times."""
    import torch
    from rich.console import Console

    from signbridge.images import open_images
    from signbridge.store import Shard
    from signbridge.vlm.batches import SpanDataset, spans_of
    from signbridge.vlm.description import describe_model
    from signbridge.vlm.extract import extract_activations
    from signbridge.vlm.families import position_ids
    from signbridge.vlm.forward import CaptureRequest, run_batch
    from signbridge.vlm.host import HostCopy
    from signbridge.vlm.load import load_model
    from signbridge.vlm.prompts import DEFAULT_PROMPT

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        middle_sized_model(root / "model")
        description = describe_model(str(root / "model"))
        model = load_model(description, "cpu", quantization="none")
        images = open_images("sample", per_class=n_images // 24 + 1)
        spans = spans_of([Shard(0, 0, n_images)], 8)
        dataset = SpanDataset(images, description.processor, DEFAULT_PROMPT, spans)
        batches = [dataset[k] for k in range(len(spans))]
        request = CaptureRequest(tuple(range(description.n_layers)))

        def bare() -> None:
            for batch in batches:
                mask = batch.inputs["attention_mask"]
                with torch.inference_mode():
                    model.model(**batch.inputs, **position_ids(model, mask), use_cache=False)

        def captured() -> None:
            for batch in batches:
                read = run_batch(model, batch.inputs, description.image_token_id, request)
                HostCopy({"resid_post": read.resid_post}).arrays()

        subset = replace_images(images, n_images)

        def whole(name: str) -> float:
            """The predict loop's own time, without loading the model."""
            from signbridge.vlm import module

            loader, module.load_model = module.load_model, lambda *_, **__: model
            start = time.perf_counter()
            try:
                extract_activations(
                    subset,
                    description,
                    root / f"{name}.h5",
                    quantization="none",
                    shard_size=64,
                    overwrite=True,
                    console=Console(quiet=True),
                )
            finally:
                module.load_model = loader
            return time.perf_counter() - start

        times: dict[str, list[float]] = {"bare": [], "captured": [], "whole": []}
        bare()
        for _ in range(repeats):
            for name, way in (("bare", bare), ("captured", captured)):
                start = time.perf_counter()
                way()
                times[name].append(time.perf_counter() - start)
            times["whole"].append(whole("store"))
    return [
        {
            "what": name,
            "seconds": statistics.median(values),
            "images/s": n_images / statistics.median(values),
            "ratio to bare": statistics.median(
                value / bare for value, bare in zip(values, times["bare"], strict=True)
            ),
        }
        for name, values in times.items()
    ]


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
import json, resource, sys
from signbridge.cli import main
status = main(sys.argv[1:], command="extract")
print(json.dumps({"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
sys.exit(status)
"""


def memory(sizes: tuple[int, int]) -> list[dict[str, Any]]:
    """Peak resident memory of the whole command for two numbers of images."""
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
            peak = json.loads(done.stdout.splitlines()[-1])["peak"]
            rows.append({"images": size, "peak MB": peak / 1e6})
    return rows


def main() -> None:
    """Run one case and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--case", choices=["overhead", "memory"], default="overhead")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--sizes", type=int, nargs=2, default=[3_462, 34_627])
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    if options.case == "overhead":
        rows = overhead(options.repeats, options.images)
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
