"""Options of an extraction, each written once: name, type, default and help.

The command line, :func:`~signbridge.extraction.extract.extract_activations` and the extraction
itself take them from here. Nothing heavy is imported, so that ``--help`` answers at once and a
typing error is refused before torch is loaded.
"""

# Annotations are not postponed: the parser reads those of inherited fields too.
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from signbridge.errors import ModelError, StoreError, refuse_empty
from signbridge.model import ComputeDtype, Position, Quantization, Weights
from signbridge.model.prompts import DEFAULT_TEMPLATE, check_prompt, question_name
from signbridge.runtime.commands import command_line


@dataclass(frozen=True, kw_only=True)
class CaptureConfig:
    """What is read from the model about each image, and how; checked when made.

    Args:
        output: the HDF5 file to make; activations/MODEL-IMAGES.h5 by default.
        layers: 'all', or 0-based decoder layers such as '[8,16,24,31]'.
        quantization: 'nf4' (4 bits, double quantised), 'int8' or 'none'; 'auto' is nf4, or what a
            checkpoint that is quantised already holds.
        compute_dtype: dtype of the forward pass; 'auto' is float16 on a GPU, float32 on a CPU, or
            what a 4-bit checkpoint names.
        position: the token whose vector is kept; 'last_generated' needs max_new_tokens above 0.
        prompt: the question about each image: a text with <image> exactly once (for each image of
            a sample of several), or the name of a bundled question (sign, letter, gesture,
            describe), put as its chat template has it. A list such as '[sign,letter]' makes a
            store of each, named OUTPUT-QUESTION, and runs each image once.
        max_new_tokens: length of the greedy answer that is stored; 0 asks for no answer.
        forced_choice: store how probable each class name is as the whole answer; 'auto' leaves it
            out, with a note, where the model has no way to write a name.
        answers: a CSV file with class,answer: the words that stand for the classes in answers,
            instead of their names.
        store_dtype: dtype of the stored vectors.
        thumbnails: keep each image too, as a JPEG of at most 128 pixels a side, for the report.
        batch_size: the most images of one forward pass; 'auto' goes by the device's memory. When
            that runs out, the run goes on with half as many.
        num_workers: processes that decode images; chosen by the number of images by default.
        accelerator: as Lightning's Trainer takes it.
        devices: as Lightning's Trainer takes it.
        num_nodes: as Lightning's Trainer takes it.
        strategy: 'auto' or 'ddp', one copy of the model in every process.
        keep_shards: make a file that refers to the shards instead of a single file.
        overwrite: replace a store that is there already.

    Raises:
        ModelError: an option that makes no sense for any model.
        StoreError: ``output`` names no file.
    """

    output: str | None = None
    layers: Literal["all"] | list[int] = "all"
    quantization: Quantization = "auto"
    compute_dtype: ComputeDtype = "auto"
    position: Position = "last_prompt"
    prompt: str | list[str] = DEFAULT_TEMPLATE
    max_new_tokens: int = 0
    forced_choice: bool | Literal["auto"] = False
    answers: str | None = None
    store_dtype: Literal["float16", "float32"] = "float16"
    thumbnails: bool = True
    batch_size: int | Literal["auto"] = "auto"
    num_workers: int | None = None
    accelerator: str = "auto"
    devices: str | int = "auto"
    num_nodes: int = 1
    strategy: Literal["auto", "ddp"] = "auto"
    keep_shards: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        refuse_empty(vars(self))
        for name, value, least in (
            ("batch_size", 1 if self.batch_size == "auto" else self.batch_size, 1),
            ("max_new_tokens", self.max_new_tokens, 0),
            ("num_workers", self.num_workers or 0, 0),
            ("num_nodes", self.num_nodes, 1),
        ):
            if value < least:
                raise ModelError(f"--{name} is {value}: give at least {least}.")
        if self.position == "last_generated" and self.max_new_tokens == 0:
            raise ModelError(
                "Position last_generated needs an answer to be generated: give --max_new_tokens, "
                "for instance 20."
            )
        for prompt in self.prompts:
            check_prompt(prompt)
        if not self.prompts:
            raise ModelError("--prompt is []: give at least one question.")
        again = next((one for one in self.prompts if self.prompts.count(one) > 1), None)
        if again is not None:
            raise ModelError(f"--prompt asks {again!r} twice: give each question once.")
        if self.answers is not None:
            from signbridge.model.words import read_words

            if not self.forced_choice and self.max_new_tokens == 0:
                raise ModelError(
                    "--answers names the words of answers, and none are asked for: give "
                    "--forced_choice true or --max_new_tokens too."
                )
            read_words(self.answers)
        if self.layers != "all":
            if isinstance(self.layers, str):
                raise ModelError(
                    f"--layers is {self.layers!r}: give 'all' or a list such as '[8,16,24,31]'."
                )
            chosen = list(self.layers)
            if not chosen or len(set(chosen)) < len(chosen):
                raise ModelError(f"--layers is {chosen}: give at least one layer, and each once.")
        if self.output and (self.output.endswith("/") or Path(self.output).is_dir()):
            raise StoreError(f"{self.output} is a folder: give the name of a file for the store.")

    @property
    def prompts(self) -> list[str]:
        """The questions, mostly one."""
        return [self.prompt] if isinstance(self.prompt, str) else list(self.prompt)

    def outputs(self, default: str) -> list[str]:
        """The store of each question: the output, with the question's name where a list is given.

        Args:
            default: the output where none is given.
        """
        output = self.output or default
        if isinstance(self.prompt, str):
            return [output]
        place = Path(output)
        return [
            str(place.with_name(f"{place.stem}-{question_name(prompt)}{place.suffix}"))
            for prompt in self.prompt
        ]


@dataclass(frozen=True)
class ExtractConfig(CaptureConfig):
    """All options of ``signbridge extract``: which images, which model, and what is read.

    Args:
        images: 'sample' (bundled), a Kaggle CSV file or a folder with sign_mnist_train.csv and/or
            sign_mnist_test.csv, or a folder of folders of images.
        layout: what each level of folders is, from the outermost: 'class', 'signer/class',
            'split/signer/class', with * for a level that means nothing; 'class/sample' where each
            folder in a class folder holds the images of one prompt; a last part with {class},
            {signer} or {split} reads file names, as 'hand{signer}_{class}_*'. By default the
            names tell, and what they do not tell is refused.
        model: 'tiny' (bundled), a hub id such as llava-hf/llava-1.5-7b-hf, or a local folder.
        weights: 'pretrained', or 'random' for the same architecture freshly initialised: the
            control that train_probes --control takes.
        weights_seed: seed of random weights.
        classes: the number of most common classes to keep, or their names; all by default.
        per_class: how many images of each class, chosen by the seed, of each signer in turn where
            signers are known; all by default.
        seed: seed of that choice.
        groups: which images are not independent: 'near_duplicates' (found), 'none', 'signer' of
            whatever layout, 'signer/class' where the folders are SIGNER/CLASS, a CSV file with
            sample_id,group, or a regular expression that finds the group in the path, as
            'hand([0-9]+)_'.
        max_bad_share: the largest share of unreadable images that is survived.

    Raises:
        ModelError: as of :class:`CaptureConfig`, and for weights that cannot be had.
        StoreError: as of :class:`CaptureConfig`.
    """

    images: str = "sample"
    layout: str | None = None
    model: str = "tiny"
    weights: Weights = "pretrained"
    weights_seed: int = 0
    classes: int | list[str] | None = None
    per_class: int | None = None
    seed: int = 42
    groups: str = "near_duplicates"
    max_bad_share: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if "sample" not in (self.layout or "").split("/"):
            for prompt in self.prompts:
                check_prompt(prompt, 1)
        from signbridge.model.files import check_weights

        check_weights(self.weights, self.weights_seed)

    @property
    def command(self) -> str:
        """A command that makes the store again."""
        given = {one.name: getattr(self, one.name) for one in fields(ExtractConfig)}
        defaults = {one.name: one.default for one in fields(ExtractConfig)}
        del given["overwrite"]
        told = {name: value for name, value in given.items() if value != defaults[name]}
        return command_line("extract", {"images": self.images, "model": self.model} | told)
