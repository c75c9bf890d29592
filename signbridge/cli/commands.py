"""The commands, as typed functions: signatures are the options, docstrings are the help.

Nothing heavy is imported until a command runs, so that ``signbridge --help`` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from signbridge.demo.command import demo
from signbridge.errors import ModelError, ProbeError, StoreError
from signbridge.runtime.processes import is_first_process
from signbridge.runtime.terminal import as_text, say


def extract(
    images: str = "sample",
    model: str = "tiny",
    weights: Literal["pretrained", "random"] = "pretrained",
    weights_seed: int = 0,
    output: str | None = None,
    layers: Literal["all"] | list[int] = "all",
    quantization: Literal["nf4", "none"] = "nf4",
    compute_dtype: Literal["auto", "float16", "bfloat16", "float32"] = "auto",
    position: Literal["last_prompt", "last_generated", "image_mean"] = "last_prompt",
    prompt: str = "sign",
    max_new_tokens: int = 0,
    forced_choice: bool = False,
    classes: int | list[str] | None = None,
    per_class: int | None = None,
    seed: int = 42,
    groups: str = "near_duplicates",
    max_bad_share: float = 0.05,
    store_dtype: Literal["float16", "float32"] = "float16",
    batch_size: int | Literal["auto"] = "auto",
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
        weights: 'pretrained', or 'random' for the same architecture freshly initialised: the
            control that train_probes --control takes.
        weights_seed: seed of random weights.
        output: the HDF5 file to make; activations/MODEL-IMAGES.h5 by default.
        layers: 'all', or 0-based decoder layers such as '[8,16,24,31]'.
        quantization: 'nf4' (4 bits, double quantised) or 'none'.
        compute_dtype: dtype of the forward pass; 'auto' is float16 on a GPU, float32 on a CPU.
        position: the token whose vector is kept; 'last_generated' needs max_new_tokens above 0.
        prompt: the question about each image: a text with <image> exactly once, or the name of a
            bundled question (sign, letter, gesture, describe), put as its chat template has it.
        max_new_tokens: length of the greedy answer that is stored; 0 asks for no answer.
        forced_choice: store how probable each class name is as the whole answer.
        classes: the number of most common classes to keep, or their names; all by default.
        per_class: how many images of each class, chosen by the seed; all by default.
        seed: seed of that choice.
        groups: which images are not independent: 'near_duplicates' (found), 'none', 'signer' where
            the folders are CLASS/SIGNER, 'signer/class' where they are SIGNER/CLASS, or a CSV file
            with sample_id,group.
        max_bad_share: the largest share of unreadable images that is survived.
        store_dtype: dtype of the stored vectors.
        batch_size: the most images of one forward pass; 'auto' goes by the device's memory. When
            that runs out, the run goes on with half as many.
        num_workers: processes that decode images; chosen by the number of images by default.
        accelerator: as Lightning's Trainer takes it.
        devices: as Lightning's Trainer takes it.
        num_nodes: as Lightning's Trainer takes it.
        strategy: 'auto' or 'ddp', one copy of the model in every process.
        keep_shards: make a file that refers to the shards instead of a single file.
        overwrite: replace a store that is there already.
    """
    from signbridge.extraction.arguments import check_arguments, check_model
    from signbridge.images import open_images
    from signbridge.model.files import check_weights
    from signbridge.runtime.progress import Counting

    # What costs nothing to look at goes first; torch and transformers take seconds to load.
    check_arguments(
        layers=layers,
        position=position,
        prompt=prompt,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        num_workers=num_workers,
        num_nodes=num_nodes,
        output=output,
    )
    check_weights(weights, weights_seed)
    check_model(model, weights)
    with Counting("reading images") as progress:
        image_set = open_images(
            images,
            classes=classes,
            per_class=per_class,
            seed=seed,
            max_bad_share=max_bad_share,
            groups=groups,
            progress=progress,
        )
    from signbridge.extraction.extract import extract_activations
    from signbridge.model.description import describe_model

    description = describe_model(model, weights=weights, weights_seed=weights_seed)
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
        forced_choice=forced_choice,
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
    split: Literal["grouped", "random", "source", "file"] | None = None,
    split_file: str | None = None,
    folds: int = 5,
    C: float | list[float] = 1.0,
    seed: int = 42,
    layers: Literal["all"] | list[int] = "all",
    baselines: bool = True,
    control: str | None = None,
    inner_folds: int = 3,
    compare_random: bool = True,
    control_task: bool = True,
    permutations: int | Literal["auto"] = "auto",
    description_length: bool = False,
    bootstrap: int = 1000,
    device: str = "auto",
    memory_gb: float = 4.0,
    batch_size: int = 256,
    max_steps: int | None = None,
    learning_rate: float | list[float] | None = None,
    devices: str | int = 1,
    num_nodes: int = 1,
    strategy: Literal["auto", "ddp"] = "auto",
    overwrite: bool = False,
) -> Path:
    """Probe every layer and baseline of a store; write scores, figures, probes and a report.

    The same command again continues where it was stopped.

    Args:
        store: an activation store made by extract.
        output: the folder for the results; results/STORE by default.
        solver: 'exact' (L2 logistic regression to its optimum) or 'sgd' (the Lightning probe).
        split: 'grouped' (the default) keeps images that are not independent on one side; 'random'
            does not; 'source' trains on the data's own training part and tests on its test part;
            'file' is that of split_file, which says so by itself.
        split_file: a split of your own: a CSV with the columns sample_id,fold, where fold is a
            number, or train or test, or ignore.
        folds: number of folds; 1 holds out one image in five, once.
        C: inverse strength of the L2 penalty, as scikit-learn's; from a list such as '[0.01,0.1,1]'
            one is chosen inside each training part.
        seed: seed of the splits, of the intervals and of the order of batches.
        layers: 'all', or 0-based decoder layers among those of the store.
        baselines: probe the store's baselines (pixels, vision, projector) as well.
        control: a store of the same samples made by extract --weights random, probed beside.
        inner_folds: folds inside a training part, by which C and the best layer are chosen.
        compare_random: score a grouped run under the random split too; the difference is leakage.
        control_task: score random labels, one for each group, under the random split too: what a
            probe reaches there is recognition of images it was trained on (memorisation).
        permutations: how many permutations of the labels test the best layer; 0 makes no test,
            'auto' makes 999, or fewer where the data are large.
        description_length: also measure the bits that the labels cost if they are sent block by
            block, each with a probe of those before it.
        bootstrap: number of draws behind each interval.
        device: 'auto', 'cpu' or 'cuda'.
        memory_gb: memory for features and solver, in GiB.
        batch_size: images of a batch, over all devices (sgd).
        max_steps: most steps of a fold, before and again after the learning rate is chosen (sgd);
            1,500 or 20 passes by default.
        learning_rate: shares of a Newton step, of which the best is taken for each layer and C
            (sgd); '[0.03,0.1,0.3,1]' by default.
        devices: number of devices, as Lightning takes it (sgd).
        num_nodes: number of machines (sgd).
        strategy: 'auto' or 'ddp' (sgd).
        overwrite: replace results of another protocol in the same folder.
    """
    arguments = dict(locals())
    from signbridge.probes.config import SweepConfig
    from signbridge.probes.progress import SweepProgress
    from signbridge.report.figures.embedding import warm_up
    from signbridge.store import open_store

    config = SweepConfig(**arguments)
    _check_results_folder("--output", output)
    for path in (store, control):
        if path == "":
            raise StoreError("--store or --control is empty: give the file of a store.")
        if path is not None:
            open_store(path).close()  # what is wrong with it is said before torch is loaded
    if is_first_process():
        warm_up()
    from signbridge.probes.sweep import run_sweep
    from signbridge.runtime.heap import keep_freed_memory

    keep_freed_memory()
    with SweepProgress() as progress:
        results = run_sweep(config, progress)
    if is_first_process():
        _report(results, store)
    return results


def run(
    results: str | None = None,
    solver: Literal["exact", "sgd"] = "exact",
    split: Literal["grouped", "random", "source", "file"] | None = None,
    split_file: str | None = None,
    folds: int = 5,
    C: float | list[float] = 1.0,
    seed: int = 42,
    max_new_tokens: int = 20,
    forced_choice: bool = True,
    random_weights_control: bool = False,
    overwrite: bool = False,
    **options: Any,
) -> Path:
    """Do the whole job: extract, train_probes and report, one after the other.

    Args:
        results: the folder for the results; results/STORE by default.
        solver: see train_probes.
        split: see train_probes.
        split_file: see train_probes.
        folds: see train_probes.
        C: see train_probes.
        seed: seed of the choice of images, of splits, bootstrap and stochastic training.
        max_new_tokens: length of the greedy answer, compared with what the layers know; 0 asks for
            none.
        forced_choice: see extract; compared with what the layers know.
        random_weights_control: extract the same images with random weights too, and probe those
            beside the model's own; weights_seed is their seed.
        overwrite: replace a store or results that are there already.
        **options: see extract.
    """
    from signbridge.probes.config import SweepConfig
    from signbridge.report.figures.embedding import warm_up

    # Refuses arguments that make no sense before hours of extraction, not after.
    SweepConfig(
        output=results,
        solver=solver,
        split=split,  # type: ignore[arg-type]
        split_file=split_file,
        folds=folds,
        C=C,  # type: ignore[arg-type]
        seed=seed,
    )
    if split_file is not None:
        from signbridge.probes.dataset.given_splits import file_sha256

        file_sha256(split_file)  # it can be read
    _check_results_folder("--results", results)
    control_options: dict[str, Any] | None = None
    if random_weights_control:
        control_options = _control_options(options) | {
            "seed": seed,
            "overwrite": overwrite,
            "max_new_tokens": max_new_tokens,
            "forced_choice": forced_choice,
        }
    if is_first_process():
        warm_up()  # the report's maps, compiled while images run through the model
    store = extract(
        seed=seed,
        overwrite=overwrite,
        max_new_tokens=max_new_tokens,
        forced_choice=forced_choice,
        **options,
    )
    control = str(extract(**control_options)) if control_options is not None else None
    # The other processes of a distributed extraction have done their part.
    if not is_first_process():
        return store
    return train_probes(
        store=str(store),
        output=results,
        solver=solver,
        split=split,
        split_file=split_file,
        control=control,
        folds=folds,
        C=C,
        seed=seed,
        overwrite=overwrite,
    )


def _control_options(options: dict[str, Any]) -> dict[str, Any]:
    """How to extract the control of what ``options`` extract; takes its seed out of them."""
    if options.get("weights", "pretrained") == "random":
        raise ModelError(
            "--random_weights_control sets random weights beside a model's own: leave out "
            "--weights random."
        )
    seed = options.pop("weights_seed", 0)
    output = options.get("output")
    if output is not None:
        place = Path(output)
        output = str(place.with_name(f"{place.stem}-random{place.suffix}"))
    return {**options, "weights": "random", "weights_seed": seed, "output": output}


def report(
    results: str,
    store: str | None = None,
    umap: Literal["best", "all", "none"] | int = "best",
) -> Path:
    """Draw the figures and the report of a results folder again.

    Args:
        results: a folder made by train_probes.
        store: the activation store, if it has moved since.
        umap: the layer that is drawn as a map: 'best', a layer's number, 'none', or 'all' (the
            best one and a strip of small maps of every layer, a few seconds a layer).
    """
    return _report(Path(results), store, umap)


def compare(
    results: list[str],
    output: str = "",
    metric: Literal["accuracy", "usable_information"] = "accuracy",
) -> None:
    """Draw several results on one curve, with paired differences: compare A B -o C.

    Args:
        results: two to eight folders made by train_probes.
        output: the folder to write (-o); A-vs-B beside the first by default.
        metric: what is compared.
    """
    from signbridge.report.compare import write_comparison

    say(f"comparison: {write_comparison(results, output or None, metric)}")


def info(store: str) -> None:
    """Say what is in an activation store.

    Args:
        store: an activation store made by extract.
    """
    from signbridge.store.info import print_info

    print_info(store)


def verify(store: str) -> int:
    """Check every value, name and size of an activation store against its checksums.

    Exits with status 0 if the store is whole, with 1 if anything is wrong with it, with 2 if it
    cannot be checked: it is no store, of a newer version, unfinished, or may not be read.

    Args:
        store: an activation store made by extract.
    """
    from signbridge.runtime.progress import Counting
    from signbridge.runtime.words import counted
    from signbridge.store.verify import verify_store

    with Counting("verifying") as progress:
        problems = verify_store(store, progress)
    for problem in problems:
        say(problem)
    say(f"{store}: {counted(len(problems), 'problem') if problems else 'whole'}")
    return int(bool(problems))


def merge(stores: list[str], output: str = "", overwrite: bool = False) -> None:
    """Join stores of the same samples but other layers, or of other samples: merge A B -o C.

    Args:
        stores: two or more stores of equal provenance.
        output: the store to make (-o).
        overwrite: replace a file that is there already.
    """
    from signbridge.runtime.progress import CountingStages
    from signbridge.store.info import merged_line
    from signbridge.store.merge import merge_stores

    if not output:
        raise StoreError("merge needs the name of the store to make: signbridge merge A B -o C.")
    with CountingStages() as progress:
        merged = merge_stores(stores, output, overwrite, progress)
    say(merged_line(merged, len(stores)))


def _check_results_folder(option: str, folder: str | None) -> None:
    if folder is None:
        return
    if not folder.strip():
        raise ProbeError(
            f"{option} is empty: give the name of a folder for the results, or leave it out."
        )
    if Path(folder).is_file():
        raise ProbeError(f"{folder} is a file: give the name of a folder for the results.")


def _report(
    results: Path, store: str | None = None, umap: Literal["best", "all", "none"] | int = "best"
) -> Path:
    from rich.console import Console

    from signbridge.report import print_table, write_report

    page = write_report(results, store, umap=umap)
    console = Console()
    print_table(results, console)
    console.print(as_text(f"report: {page}"), soft_wrap=True)
    return page


COMMANDS: dict[str, Any] = {
    "run": run,
    "extract": extract,
    "train_probes": train_probes,
    "report": report,
    "compare": compare,
    "info": info,
    "verify": verify,
    "merge": merge,
    "demo": demo,
}
