"""The commands, as typed functions: their docstrings are the help.

The options of ``extract``, ``train_probes`` and ``run`` are the fields of one dataclass each, which
says their types, defaults and help. Nothing heavy is imported until a command runs, so that
``signbridge --help`` answers at once.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from signbridge.demo.command import demo
from signbridge.errors import ModelError, StoreError
from signbridge.extraction.config import ExtractConfig
from signbridge.model.prompts import question_name
from signbridge.probes.config import Protocol, SweepConfig
from signbridge.results.format import MOST_COMPARED
from signbridge.runtime.processes import is_first_process
from signbridge.runtime.terminal import as_text, say


def extract(**options: Any) -> list[Path]:
    """Run labelled images through a model and write the residual stream of its decoder layers.

    The same command again continues where it was stopped.
    """
    config = ExtractConfig(**options)
    _check_stores([config])
    return _extract(config, _open_images(config))


def train_probes(**options: Any) -> Path:
    """Probe every layer and baseline of a store; write scores, figures, probes and a report.

    The same command again continues where it was stopped.
    """
    return _train_probes(SweepConfig(**options))


@dataclass(frozen=True)
class RunConfig(ExtractConfig, Protocol):
    """All options of ``signbridge run``: those of extract and the protocol of the probes.

    Args:
        results: the folder for the results, of several questions one folder a question inside;
            results/STORE by default.
        random_weights_control: extract the same images with random weights too, and probe those
            beside the model's own; weights_seed is their seed.
        max_new_tokens: length of the greedy answer, compared with what the layers know; 0 asks for
            none.
        forced_choice: see extract; compared with what the layers know.
        seed: seed of the choice of images, of splits, bootstrap and stochastic training.
        overwrite: replace a store or results that are there already.

    Raises:
        ModelError: as of :class:`~signbridge.extraction.config.ExtractConfig`.
        StoreError: as of :class:`~signbridge.extraction.config.ExtractConfig`.
        ProbeError: as of :class:`~signbridge.probes.config.SweepConfig`.
    """

    results: str | None = None
    random_weights_control: bool = False
    _: KW_ONLY
    max_new_tokens: int = 20
    forced_choice: bool | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        # What makes no sense for a step is refused here, before the first of them.
        self.probing()
        self.extractions()
        if len(self.prompts) > MOST_COMPARED:
            raise ModelError(
                f"run compares at most {MOST_COMPARED} questions, not {len(self.prompts)}: give "
                "fewer, or use extract, train_probes and compare."
            )

    def extractions(self) -> list[ExtractConfig]:
        """What to extract: with the model's own weights, and for the control with random ones."""
        own = {one.name: getattr(self, one.name) for one in fields(ExtractConfig)}
        if not self.random_weights_control:
            return [ExtractConfig(**own)]
        if self.weights == "random":
            raise ModelError(
                "--random_weights_control sets random weights beside a model's own: leave out "
                "--weights random."
            )
        output = self.output
        if output is not None:
            place = Path(output)
            output = str(place.with_name(f"{place.stem}-random{place.suffix}"))
        return [
            ExtractConfig(**own | {"weights_seed": 0}),
            ExtractConfig(**own | {"weights": "random", "output": output}),
        ]

    def probings(self) -> list[SweepConfig]:
        """How to probe the store of each question, in a folder of its own inside the results."""
        probing = self.probing()
        if isinstance(self.prompt, str) or self.results is None:
            return [probing] * len(self.prompts)
        return [
            replace(probing, output=str(Path(self.results) / question_name(prompt)))
            for prompt in self.prompt
        ]

    def probing(self) -> SweepConfig:
        """How to probe; the stores are not known yet."""
        protocol = {one.name: getattr(self, one.name) for one in fields(Protocol)}
        return SweepConfig(
            output=self.results, seed=self.seed, overwrite=self.overwrite, **protocol
        )


def run(**options: Any) -> list[Path]:
    """Do the whole job: extract, train_probes and report, one after the other.

    Of several questions each is probed, and at the end they are compared on the same images.
    """
    from signbridge.report.figures.embedding import warm_up

    config = RunConfig(**options)
    if config.split_file is not None:
        from signbridge.probes.dataset.split_file import file_sha256

        file_sha256(config.split_file)  # it can be read
    _check_stores(config.extractions())
    for probing, output in zip(config.probings(), config.outputs("store.h5"), strict=True):
        _check_results(probing, output)
    images = _open_images(config)
    from signbridge.probes.dataset.plan import check_split

    check_split(
        config.probing(),
        images.label,
        images.group,
        images.class_names,
        images.sample_id,
        images.source_split,
    )
    if is_first_process():
        warm_up()  # the report's maps, compiled while images run through the model
    own, *controls = [_extract(one, images) for one in config.extractions()]
    # The other processes of a distributed extraction have done their part.
    if not is_first_process():
        return own
    beside = map(str, controls[0]) if controls else [None] * len(own)
    folders = [
        _train_probes(replace(probing, store=str(store), control=control))
        for probing, store, control in zip(config.probings(), own, beside, strict=True)
    ]
    if len(folders) > 1:
        compare([str(folder) for folder in folders])
    return folders


def _check_stores(configs: list[ExtractConfig]) -> None:
    """Refuse outputs that could not be written in the end, before anything is read."""
    from signbridge.store.output import check_output

    for config in configs:
        for output in config.outputs("activations/store.h5"):
            check_output(output, overwrite=config.overwrite)


def _check_results(config: SweepConfig, store: str) -> None:
    from signbridge.results.folder import ResultsFolder

    ResultsFolder(config.output or f"results/{Path(store).stem}", {}).check(
        overwrite=config.overwrite
    )


def _open_images(config: ExtractConfig) -> Any:
    from signbridge.images import open_images
    from signbridge.model.files import check_model
    from signbridge.runtime.progress import Counting

    # What costs nothing to look at goes first; torch and transformers take seconds to load.
    check_model(config.model, config.weights)
    with Counting("reading images") as progress:
        return open_images(
            config.images,
            classes=config.classes,
            per_class=config.per_class,
            seed=config.seed,
            max_bad_share=config.max_bad_share,
            groups=config.groups,
            layout=config.layout,
            progress=progress,
        )


def _extract(config: ExtractConfig, images: Any) -> list[Path]:
    from signbridge.extraction.extract import run_extraction
    from signbridge.model.description import describe_model
    from signbridge.runtime.heap import keep_freed_memory

    description = describe_model(
        config.model, weights=config.weights, weights_seed=config.weights_seed
    )
    keep_freed_memory()
    return run_extraction(images, description, config)


def _train_probes(config: SweepConfig) -> Path:
    from signbridge.report.figures.embedding import warm_up
    from signbridge.runtime.progress import SweepProgress
    from signbridge.store import open_store

    _check_results(config, config.store)
    for path in (config.store, config.control):
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
        report(str(results), config.store)
    return results


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
    from rich.console import Console

    from signbridge.report import print_table, write_report

    page = write_report(results, store, umap=umap)
    console = Console()
    print_table(results, console)
    console.print(as_text(f"report: {page}"), soft_wrap=True)
    return page


def compare(
    results: list[str],
    output: str | None = None,
    metric: Literal["accuracy", "usable_information"] = "accuracy",
) -> None:
    """Draw several results on one curve, with paired differences: compare A B -o C.

    Args:
        results: two to eight folders made by train_probes.
        output: the folder to write (-o); A-vs-B beside the first by default.
        metric: what is compared.
    """
    from signbridge.report.compare import write_comparison

    say(f"comparison: {write_comparison(results, output, metric)}")


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


def merge(stores: list[str], output: str | None = None, overwrite: bool = False) -> None:
    """Join stores of the same samples but other layers, or of other samples: merge A B -o C.

    Args:
        stores: two or more stores of equal provenance.
        output: the store to make (-o).
        overwrite: replace a store that is there already.
    """
    from signbridge.runtime.progress import CountingStages
    from signbridge.store.info import merged_line
    from signbridge.store.merge import merge_stores

    if output is None:
        raise StoreError("merge needs the name of the store to make: signbridge merge A B -o C.")
    with CountingStages() as progress:
        merged = merge_stores(stores, output, overwrite, progress)
    say(merged_line(merged, len(stores)))


COMMANDS: dict[str, Any] = {
    one.__name__: one
    for one in (run, extract, train_probes, report, compare, info, verify, merge, demo)
}
CONFIGS: dict[str, Any] = {"run": RunConfig, "extract": ExtractConfig, "train_probes": SweepConfig}
"""What says the options of a command whose function takes them as they are."""
