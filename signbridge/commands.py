"""The commands, as typed functions: signatures are the options, docstrings are the help.

Nothing heavy is imported until a command runs, so that ``signbridge --help`` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from signbridge.errors import ProbeError, StoreError

# Spelled out here, not imported from signbridge.vlm: that import would load torch for --help.
DEFAULT_PROMPT = (
    "USER: <image>\nWhat sign is being made in this image? Answer with one word.\nASSISTANT:"
)


def extract(
    images: str = "sample",
    model: str = "tiny",
    output: str | None = None,
    layers: Literal["all"] | list[int] = "all",
    quantization: Literal["nf4", "none"] = "nf4",
    compute_dtype: Literal["auto", "float16", "bfloat16", "float32"] = "auto",
    position: Literal["last_prompt", "last_generated", "image_mean"] = "last_prompt",
    prompt: str = DEFAULT_PROMPT,
    max_new_tokens: int = 0,
    classes: int | list[str] | None = None,
    per_class: int | None = None,
    seed: int = 42,
    groups: str = "near_duplicates",
    max_bad_share: float = 0.05,
    store_dtype: Literal["float16", "float32"] = "float16",
    batch_size: int = 8,
    num_workers: int | None = None,
    accelerator: str = "auto",
    devices: str | int = "auto",
    num_nodes: int = 1,
    strategy: Literal["auto", "ddp"] = "auto",
    keep_shards: bool = False,
    overwrite: bool = False,
) -> Path:
    """Run labelled images through a model and write the residual stream of its decoder layers.

    The same command again continues where it was stopped.

    Args:
        images: 'sample' (bundled), a Kaggle CSV file or a folder with sign_mnist_train.csv and/or
            sign_mnist_test.csv, or a folder of class folders.
        model: 'tiny' (bundled), a hub id such as llava-hf/llava-1.5-7b-hf, or a local folder.
        output: the HDF5 file to make; activations/MODEL-IMAGES.h5 by default.
        layers: 'all', or 0-based decoder layers such as '[8,16,24,31]'.
        quantization: 'nf4' (4 bits, double quantised) or 'none'.
        compute_dtype: dtype of the forward pass; 'auto' is float16 on a GPU, float32 on a CPU.
        position: the token whose vector is kept; 'last_generated' needs max_new_tokens above 0.
        prompt: the question about each image, with <image> exactly once.
        max_new_tokens: length of the greedy answer that is stored; 0 asks for no answer.
        classes: the number of most common classes to keep, or their names; all by default.
        per_class: how many images of each class, chosen by the seed; all by default.
        seed: seed of that choice.
        groups: which images are not independent: 'near_duplicates' (found), 'none', 'signer' or
            'signer/class' (a level of the folders), or a CSV file with sample_id,group.
        max_bad_share: the largest share of unreadable images that is survived.
        store_dtype: dtype of the stored vectors.
        batch_size: the most images of one forward pass.
        num_workers: processes that decode images; chosen by the number of images by default.
        accelerator: as Lightning's Trainer takes it.
        devices: as Lightning's Trainer takes it.
        num_nodes: as Lightning's Trainer takes it.
        strategy: 'auto' or 'ddp', one copy of the model in every process.
        keep_shards: make a file that refers to the shards instead of a single file.
        overwrite: replace a store that is there already.
    """
    from signbridge.images import open_images
    from signbridge.vlm.description import describe_model
    from signbridge.vlm.extract import extract_activations

    image_set = open_images(
        images,
        classes=classes,
        per_class=per_class,
        seed=seed,
        max_bad_share=max_bad_share,
        groups=groups,
    )
    description = describe_model(model)
    path = Path(output or f"activations/{description.name}-{image_set.name}.h5")
    return extract_activations(
        image_set,
        description,
        path,
        layers=layers,
        quantization=quantization,
        compute_dtype=compute_dtype,
        position=position,
        prompt=prompt,
        max_new_tokens=max_new_tokens,
        store_dtype=store_dtype,
        batch_size=batch_size,
        num_workers=num_workers,
        accelerator=accelerator,
        devices=devices,
        num_nodes=num_nodes,
        strategy=strategy,
        keep_shards=keep_shards,
        overwrite=overwrite,
    )


def train_probes(
    store: str = "activations/tiny-sample.h5",
    output: str | None = None,
    solver: Literal["exact", "sgd"] = "exact",
    split: Literal["grouped", "random"] = "grouped",
    folds: int = 5,
    C: float | list[float] = 1.0,
    seed: int = 42,
    layers: Literal["all"] | list[int] = "all",
    baselines: bool = True,
    inner_folds: int = 3,
    compare_random: bool = True,
    bootstrap: int = 1000,
    device: str = "auto",
    memory_gb: float = 4.0,
    batch_size: int = 256,
    max_steps: int = 1500,
    learning_rate: float = 0.03,
    overwrite: bool = False,
) -> Path:
    """Probe every layer and baseline of a store; write scores, figures, probes and a report.

    The same command again continues where it was stopped.

    Args:
        store: an activation store made by extract.
        output: the folder for the results; results/STORE by default.
        solver: 'exact' (L2 logistic regression to its optimum) or 'sgd' (the Lightning probe).
        split: 'grouped' keeps images that are not independent on one side; 'random' does not.
        folds: number of folds; 1 holds out one image in five, once.
        C: inverse strength of the L2 penalty, as scikit-learn's; from a list such as '[0.01,0.1,1]'
            one is chosen inside each training part.
        seed: seed of the splits, of the intervals and of the order of batches.
        layers: 'all', or 0-based decoder layers among those of the store.
        baselines: probe the store's baselines (pixels, vision, projector) as well.
        inner_folds: folds inside a training part, by which C and the best layer are chosen.
        compare_random: score a grouped run under the random split too; the difference is leakage.
        bootstrap: number of draws behind each interval.
        device: 'auto', 'cpu' or 'cuda'.
        memory_gb: memory for features and solver, in GiB.
        batch_size: images of a batch (sgd).
        max_steps: optimiser steps of a fold (sgd).
        learning_rate: first learning rate (sgd).
        overwrite: replace results of another protocol in the same folder.
    """
    arguments = dict(locals())
    from signbridge.probes.config import SweepConfig
    from signbridge.probes.progress import SweepProgress
    from signbridge.probes.sweep import run_sweep

    with SweepProgress() as progress:
        results = run_sweep(SweepConfig(**arguments), progress)
    _report(results, store)
    return results


def run(
    results: str | None = None,
    solver: Literal["exact", "sgd"] = "exact",
    split: Literal["grouped", "random"] = "grouped",
    folds: int = 5,
    C: float | list[float] = 1.0,
    seed: int = 42,
    overwrite: bool = False,
    **options: Any,
) -> Path:
    """Do the whole job: extract, train_probes and report, one after the other.

    Args:
        results: the folder for the results; results/STORE by default.
        solver: see train_probes.
        split: see train_probes.
        folds: see train_probes.
        C: see train_probes.
        seed: seed of the choice of images, of splits, bootstrap and stochastic training.
        overwrite: replace a store or results that are there already.
        **options: see extract.
    """
    from signbridge.probes.config import SweepConfig

    # Refuses arguments that make no sense before hours of extraction, not after.
    SweepConfig(output=results, solver=solver, split=split, folds=folds, C=C, seed=seed)  # type: ignore[arg-type]
    if results is not None and Path(results).is_file():
        raise ProbeError(f"{results} is a file: give the name of a folder for the results.")
    store = extract(seed=seed, overwrite=overwrite, **options)
    from lightning.pytorch.utilities import rank_zero_only

    # The other processes of a distributed extraction have done their part.
    if getattr(rank_zero_only, "rank", 0) != 0:
        return store
    return train_probes(
        store=str(store),
        output=results,
        solver=solver,
        split=split,
        folds=folds,
        C=C,
        seed=seed,
        overwrite=overwrite,
    )


def report(results: str, store: str | None = None) -> Path:
    """Draw the figures and the report of a results folder again.

    Args:
        results: a folder made by train_probes.
        store: the activation store, if it has moved since.
    """
    return _report(Path(results), store)


def info(store: str) -> None:
    """Say what is in an activation store.

    Args:
        store: an activation store made by extract.
    """
    from signbridge.store.info import print_info

    print_info(store)


def verify(store: str) -> int:
    """Check every value, name and size of an activation store against its checksums.

    Exits with status 0 if the store is whole, with 1 if anything is wrong with it.

    Args:
        store: an activation store made by extract.
    """
    from signbridge.store.verify import verify_store

    problems = verify_store(store)
    for problem in problems:
        print(problem)
    print(f"{store}: {f'{len(problems)} problems' if problems else 'whole'}")
    return int(bool(problems))


def merge(stores: list[str], output: str = "", overwrite: bool = False) -> None:
    """Join stores of the same samples but other layers, or of other samples: merge A B -o C.

    Args:
        stores: two or more stores of equal provenance.
        output: the store to make (-o).
        overwrite: replace a file that is there already.
    """
    from signbridge.store.merge import merge_stores

    if not output:
        raise StoreError("merge needs the name of the store to make: signbridge merge A B -o C.")
    merge_stores(stores, output, overwrite=overwrite)


def _report(results: Path, store: str | None = None) -> Path:
    from rich.console import Console

    from signbridge.report import print_table, write_report

    page = write_report(results, store)
    console = Console()
    print_table(results, console)
    console.print(f"report: {page}", soft_wrap=True)
    return page


COMMANDS: dict[str, Any] = {
    "run": run,
    "extract": extract,
    "train_probes": train_probes,
    "report": report,
    "info": info,
    "verify": verify,
    "merge": merge,
}
