"""SignBridge beside the other ways to read every decoder layer at the prompt's last token.

    python benchmarks/peers.py

On the CPU, a random LLaVA of 58 million parameters in float32, the same prepared images in the same
batches for all. Peers that are not installed are left out and named. They are never a dependency of
SignBridge: give them an environment of their own, in which the project's own pins hold too,

    python3.11 -m venv ../peers
    ../peers/bin/pip install -c constraints.txt -e . nnsight==0.8.1 transformer-lens==4.3.0
    ../peers/bin/python benchmarks/peers.py

Every way runs in a process of its own, one after the other. Its first pass gives its vectors as one
array (images, layers, hidden), to be compared, and its memory: the peak of the resident memory
(Linux alone), and what there was before the first image, both above what the process held when it
had read the model and prepared the batches. Then it takes turns with SignBridge's capture in the
same process, batch by batch, so that both meet the machine in the same state: the same forward pass
was seen to take 6 % longer in one process than in another. Ratios are medians over these pairs, by
the clock and by the processor's time of all threads. The first row is SignBridge's capture beside
itself: how far it is from 1 shows what a ratio is worth here.

The ways are written as their own documentation writes them:

- SignBridge's capture, which also reads the means of image tokens and of patches, and stops
  after the last decoder layer; then the whole extraction, which prepares the images too and makes
  the verified store (of float32, to be compared), all but loading the model;
- forward hooks, as most people write them: the model is called as it is (it computes logits of
  every token and keeps a cache of keys and values), and each hook takes ``output[:, -1].cpu()``.
  On a CPU, ``cpu()`` copies nothing, so every layer's whole output stays alive until the batch is
  done; nnsight and TransformerLens keep views in the same way;
- forward hooks by someone who minds: the inner model, no cache, copies of the one token;
- ``output_hidden_states=True``, of which the last token is kept. Its last entry has passed the
  decoder's final norm, so it is not the last layer's residual stream; that is shown apart;
- nnsight: a trace that saves the layers' outputs at the last token;
- TransformerLens: ``TransformerBridge``, ``run_with_cache`` with ``pos_slice``. It replaces
  attention by its eager form, whose rounding differs. ``HookedTransformer``, which was made for
  text models, is no longer part of it from version 4 on.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from counts import count
from extraction import middle_sized_model
from numpy.typing import NDArray
from ways import WAYS, Setting, Vectors, Workbench, as_array, capture


@dataclass
class First:
    """What a first pass over all images gave; megabytes are None where they cannot be had."""

    vectors: Vectors
    before: float | None
    peak: float | None


Seconds = NDArray[np.float64]


class Player(Protocol):
    """A way at work, here or in another process."""

    def first(self) -> First:
        """Run all images once and measure memory."""

    def pairs(self, repeats: int) -> Seconds:
        """Take turns with SignBridge's capture.

        Returns:
            Seconds, shape (pairs, 2, 2): of our capture and of this way, by the clock and by the
            processor.
        """


class Here:
    """A way at work in this process."""

    def __init__(self, name: str, setting: Setting) -> None:
        self._way = WAYS[name]
        self._bench = Workbench(setting)
        self._loaded = resident("VmRSS")
        self._read = self._way.begin(self._bench)

    def first(self) -> First:
        """Run all images once and measure memory."""
        before = resident("VmRSS")
        forget_peak()
        passes = 1 if self._way.at_once else len(self._bench.inputs)
        vectors = np.concatenate([self._read(batch) for batch in range(passes)])
        peak = resident("VmHWM")
        if before is None or peak is None or self._loaded is None:
            return First(vectors, None, None)
        return First(vectors, before - self._loaded, peak - self._loaded)

    def pairs(self, repeats: int) -> Seconds:
        """Take turns with SignBridge's capture."""
        bench = self._bench if self._way.package is None else Workbench(self._bench.setting)
        ours = capture(bench)
        batches = list(range(len(bench.inputs)))
        parts = [batches] if self._way.at_once else [[batch] for batch in batches]
        ours(0)  # once without a clock
        # A whole extraction is a single pair a repeat: twice as many, to have a median at all.
        rounds = 2 * repeats if self._way.at_once else repeats
        seconds = np.zeros((rounds * len(parts), 2, 2))
        for number, pair in enumerate(seconds):
            part = parts[number % len(parts)]
            turns = [(ours, part), (self._read, part[:1])]
            for side in (0, 1) if number % 2 else (1, 0):
                read, wanted = turns[side]
                start = np.array([time.perf_counter(), time.process_time()])
                for batch in wanted:
                    read(batch)
                pair[side] = np.array([time.perf_counter(), time.process_time()]) - start
        return seconds


class Elsewhere:
    """A way at work in a process of its own, which ends with the ``with`` block."""

    def __init__(self, name: str, setting: Setting) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, name, setting), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Elsewhere:
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.close()
        self._process.join()

    def first(self) -> First:
        """Run all images once and measure memory."""
        answer: First = self._ask("first")
        return answer

    def pairs(self, repeats: int) -> Seconds:
        """Take turns with SignBridge's capture."""
        answer: Seconds = self._ask("pairs", repeats)
        return answer

    def _ask(self, *question: Any) -> Any:
        try:
            self._ours.send(question)
            answer = self._ours.recv()
        except (EOFError, OSError):
            raise PeerError("its process ended without an answer") from None
        if isinstance(answer, PeerError):
            raise answer
        return answer


class PeerError(Exception):
    """Says why a way does not run here."""


def serve(connection: Connection, name: str, setting: Setting) -> None:
    """Answer questions to a way until the other side closes."""
    player: Here | None = None
    try:
        while True:
            method, *arguments = connection.recv()
            try:
                player = player or Here(name, setting)
                answer = getattr(player, method)(*arguments)
            except Exception as error:  # whatever a peer raises is its row's text
                lines = str(error).strip().splitlines() or [""]
                answer = PeerError(f"{type(error).__name__}: {lines[0]}")
            connection.send(answer)
    except EOFError:
        pass


def resident(name: str) -> float | None:
    """Megabytes of this process's resident memory now (VmRSS) or at its peak (VmHWM)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    line = next(each for each in status.read_text().splitlines() if each.startswith(name))
    return int(line.split()[1]) * 1024e-6


def forget_peak() -> None:
    """Let the peak of this process's resident memory begin anew, where Linux allows it."""
    switch = Path("/proc/self/clear_refs")
    if switch.exists():
        switch.write_text("5")


@dataclass
class Result:
    """What was found about a way.

    Attributes:
        reason: why it could not be run, else None.
        first: its first pass.
        seconds: as :meth:`Player.pairs` gives them.
    """

    reason: str | None = None
    first: First | None = None
    seconds: Seconds = field(default_factory=lambda: np.zeros((0, 2, 2)))


def measure(player: Player, repeats: int) -> Result:
    """Run a way once, then beside SignBridge's capture."""
    try:
        return Result(None, player.first(), player.pairs(repeats))
    except PeerError as error:
        return Result(str(error))


def table(results: Mapping[str, Result], setting: Setting) -> list[str]:
    """The lines of a Markdown table, one row a way.

    Args:
        results: what :func:`measure` found of each way, ``capture`` among them.
        setting: what the ways were given.
    """
    ours = results["capture"].first
    assert ours is not None
    sizes = np.array([len(rows) for rows in setting.batches()], np.float64)
    lines = [
        "| way | images/s | SignBridge's capture beside it | ratio | by processor time "
        "| MB before the first image | MB at the peak | largest difference |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, result in results.items():
        label = WAYS[name].title()
        if result.first is None:
            lines.append(f"| {label} | does not run: {result.reason} | | | | | | |")
            continue
        images = sizes.sum(keepdims=True) if WAYS[name].at_once else sizes
        rounds = len(result.seconds) // len(images)
        rates = np.median(np.tile(images, rounds)[:, None] / result.seconds[..., 0], axis=0)
        ratio = np.median(result.seconds[:, 0] / result.seconds[:, 1], axis=0)
        gap = np.abs(result.first.vectors - ours.vectors).max(axis=(0, 2))
        difference = f"{gap.max():.2g}"
        if name == "hidden_states":
            difference = f"{gap[:-1].max():.2g}, last layer {gap[-1]:.2g}"
        cells = [label, f"{rates[1]:.2f}", f"{rates[0]:.2f}", f"{ratio[0]:.3f}", f"{ratio[1]:.3f}"]
        cells += [megabytes(result.first.before), megabytes(result.first.peak), difference]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def megabytes(value: float | None) -> str:
    """A whole number of megabytes."""
    return "not measured" if value is None else f"{value:.0f}"


def normed(vectors: Vectors, setting: Setting) -> Vectors:
    """The decoder's final norm of vectors, shape (images, hidden)."""
    import torch

    from signbridge.model.description import describe_model
    from signbridge.model.load import load_model

    model: Any = load_model(describe_model(setting.model), "cpu", quantization="none")
    with torch.inference_mode():
        return as_array(model.get_decoder().norm(torch.from_numpy(vectors)))


def about_last_hidden_state(results: Mapping[str, Result], setting: Setting) -> str:
    """A sentence on what ``output_hidden_states`` gives for the last layer."""
    ours, theirs = results["capture"].first, results["hidden_states"].first
    assert ours is not None
    assert theirs is not None
    last = theirs.vectors[:, -1]
    plain = np.abs(last - ours.vectors[:, -1]).max()
    after = np.abs(last - normed(ours.vectors[:, -1], setting)).max()
    return (
        f"`hidden_states[-1]` has passed the final norm: it is up to {plain:.2g} from the last "
        f"layer's output and {after:.2g} from the norm of that. The largest value in any vector "
        f"is {np.abs(ours.vectors).max():.3g}."
    )


def installed(names: Sequence[str]) -> list[str]:
    """Those ways whose package is there; the others are named on standard error."""
    found = []
    for name in names:
        package = WAYS[name].package
        try:
            if package is not None:
                version(package)
            found.append(name)
        except PackageNotFoundError:
            print(f"{package} is not installed and is left out.", file=sys.stderr)
    return found


def main() -> None:
    """Measure all ways that are installed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--images", type=count, default=48)
    parser.add_argument("--batch_size", type=count, default=8)
    parser.add_argument("--repeats", type=count, default=2)
    parser.add_argument("--model", help="another model than the random one, such as tiny")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    options = parser.parse_args()
    names = installed(list(dict.fromkeys(["capture", *options.ways])))
    with tempfile.TemporaryDirectory() as temporary:
        if options.model is None:
            middle_sized_model(Path(temporary))
        setting = Setting(options.model or temporary, options.images, options.batch_size)
        results = {}
        for name in names:
            with Elsewhere(name, setting) as player:
                results[name] = measure(player, options.repeats)
        if results["capture"].reason is not None:
            sys.exit(f"SignBridge itself does not run: {results['capture'].reason}")
        import torch

        print(
            f"{platform.machine()}, {torch.get_num_threads()} threads, Python "
            f"{platform.python_version()}, torch {version('torch')}, transformers "
            f"{version('transformers')}, {date.today()}; {options.images} images in batches of "
            f"{options.batch_size}, {options.repeats} repeats\n"
        )
        print("\n".join(table(results, setting)))
        if "hidden_states" in results and results["hidden_states"].reason is None:
            print("\n" + about_last_hidden_state(results, setting))


if __name__ == "__main__":
    main()
