"""The files of a results folder."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from signbridge.errors import ProbeError
from signbridge.results.comparisons import Comparison
from signbridge.results.format import (
    ANSWERS_FILE,
    COMPARISONS_FILE,
    FIGURES_FOLDER,
    FORMAT,
    PREDICTIONS_FILE,
    REPORT_FILE,
    SCORES_FILE,
    SUMMARY_FILE,
    TASK,
)
from signbridge.results.predictions import write_predictions
from signbridge.results.probes import TENSORS_FILE, WORDS_FILE
from signbridge.results.results import Score
from signbridge.results.summary import Summary, read_summary, write_summary
from signbridge.results.tables import write_rows
from signbridge.runtime.files import refusal, replace_file, try_to_write
from signbridge.runtime.reading import parse_json, read_bytes, read_json

PARTS_FOLDER = ".parts"
LOCK_FILE = "lock"
RUN_FILE = "run.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PART = re.compile(r"run\.json|.*\.(safetensors|ckpt)|sgd-.*\.tmp|\..*\.[0-9]+\.tmp")


class ResultsFolder:
    """A folder that is either empty, under way or complete, for one protocol.

    ``summary.json`` is written last, so a folder that has one is complete. Work under way lies in
    ``.parts``, one file for each feature.

    Args:
        path: the folder.
        identity: what makes two runs the same: store, protocol and arguments, JSON-able.
    """

    def __init__(self, path: str | os.PathLike[str], identity: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.identity = json.loads(json.dumps(identity))
        self._lock: Any = None

    @property
    def parts(self) -> Path:
        """Where finished features wait for the others."""
        return self.path / PARTS_FOLDER

    def prepare(self, *, overwrite: bool = False) -> Literal["new", "continue", "complete"]:
        """Look at the folder, take it for this process until :meth:`unlock`, and make it ready.

        A complete folder is not taken.

        Args:
            overwrite: remove what another protocol has written there.

        Raises:
            ProbeError: the folder belongs to another protocol, holds something else, cannot be
                written, or another process works on it.
        """
        if self._look(overwrite) == "complete":
            return "complete"
        try:
            self.lock()
            # Another process may have finished while this one came for the lock.
            found = self._look(overwrite)
            if found == "complete":
                self.remove_parts()
            anew = overwrite or (found == "new" and (self.path / SUMMARY_FILE).exists())
            if anew:
                self._clear_parts()
            if found == "new":
                text = json.dumps(self.identity, indent=2)
                replace_file(self.parts / RUN_FILE, (text + "\n").encode())
            if anew:  # from here on the folder tells by its parts that it is one of ours
                self._clear()
        except OSError as error:
            raise ProbeError(
                f"{refusal(error, self.path)}, or give another output folder."
            ) from error
        return found

    def check(self, *, overwrite: bool = False) -> None:
        """Refuse an output that could not be written in the end, before the work.

        Args:
            overwrite: as of :meth:`prepare`.

        Raises:
            ProbeError: the folder holds what is not results, or cannot be written.
        """
        try:
            self._refuse_foreign(self._found(), overwrite)
            try_to_write(self.path / SUMMARY_FILE)
        except OSError as error:
            raise ProbeError(
                f"{refusal(error, self.path)}, or give another output folder."
            ) from error

    def _look(self, overwrite: bool) -> Literal["new", "continue", "complete"]:
        found = self._found()
        self._refuse_foreign(found, overwrite)
        if found == "damaged" and not overwrite:
            raise ProbeError(
                f"{self.path} holds a {SUMMARY_FILE} that cannot be read; give another output or "
                "overwrite=true."
            )
        if isinstance(found, tuple):
            kind, identity = found
            if identity == self.identity and not overwrite:
                # One that has lost a file is made again: the summary alone cannot be reported.
                return "new" if kind == "complete" and self._lost() else kind
            if not overwrite:
                raise ProbeError(
                    f"{self.path} holds results of another run ({self._difference(identity)}); "
                    "give another output or overwrite=true."
                )
        return "new"

    def _refuse_foreign(self, found: object, overwrite: bool) -> None:
        if found == "foreign":
            but = ", which --overwrite does not replace" if overwrite else ""
            raise ProbeError(
                f"{self.path} holds files that are not results{but}; give another output folder."
            )

    def _lost(self) -> bool:
        files = (SCORES_FILE, PREDICTIONS_FILE, TENSORS_FILE, WORDS_FILE)
        return not all((self.path / name).is_file() for name in files)

    def lock(self) -> None:
        """Take the folder for this process until :meth:`unlock`.

        Raises:
            ProbeError: another process works on it.
            OSError: it cannot be made.
        """
        from filelock import FileLock, Timeout

        for _ in range(10):
            self.parts.mkdir(parents=True, exist_ok=True)
            lock = FileLock(str(self.parts / LOCK_FILE), blocking=False, thread_local=False)
            try:
                lock.acquire()
            except Timeout:
                raise ProbeError(
                    f"another train_probes is writing {self.path}; wait until it has finished, "
                    "stop it, or give another output folder."
                ) from None
            except NotImplementedError:  # a file system without locks
                return
            if (self.parts / LOCK_FILE).exists():
                self._lock = lock
                return
            lock.release()  # its former owner removed the file while it was opened here
        raise ProbeError(f"{self.parts} keeps vanishing; stop what removes it, then try again.")

    def unlock(self) -> None:
        """Give the folder free, if this process has it."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _found(
        self,
    ) -> tuple[Literal["continue", "complete"], Any] | Literal["damaged", "foreign"] | None:
        if self.path.is_symlink() and not self.path.exists():
            raise ProbeError(
                f"{self.path} is a link to {self.path.readlink()}, which is not there; make that "
                "folder or give another."
            )
        if self.path.exists() and not self.path.is_dir():
            raise ProbeError(f"{self.path} is a file; give a folder as output.")
        if not self.path.exists() or not any(self.path.iterdir()):
            return None
        summary, run = self.path / SUMMARY_FILE, self.parts / RUN_FILE
        try:
            if summary.exists():
                try:
                    return "complete", read_summary(summary).run
                except ProbeError:
                    return "damaged" if FORMAT.encode() in read_bytes(summary) else "foreign"
            if run.exists():
                return "continue", read_json(run)
            if [file.name for file in self.path.iterdir()] == [PARTS_FOLDER]:
                return None  # stopped before its first file
        except (ValueError, OSError):
            return "foreign"
        return "foreign"

    def _difference(self, other: Any) -> str:
        if not isinstance(other, dict):
            return "it records no arguments"
        keys = [key for key in self.identity if other.get(key) != self.identity[key]]
        hashed = [key for key in keys if _SHA256.fullmatch(str(self.identity[key]))]
        shown = [
            f"{key} {other.get(key)!r} there, {self.identity[key]!r} here"
            for key in keys
            if key not in hashed
        ]
        shown += [f"of a {key} with other content" for key in hashed]
        return "; ".join(shown[:3]) or "more arguments there"

    def _clear(self) -> None:
        """Remove what this module and the report write, and nothing else; the summary first."""
        for name in (
            SUMMARY_FILE,
            SCORES_FILE,
            COMPARISONS_FILE,
            PREDICTIONS_FILE,
            TENSORS_FILE,
            WORDS_FILE,
            ANSWERS_FILE,
            REPORT_FILE,
        ):
            (self.path / name).unlink(missing_ok=True)
        for picture in (self.path / FIGURES_FOLDER).glob("*.png"):
            if _is_our_figure(picture):
                picture.unlink()
                picture.with_suffix(".csv").unlink(missing_ok=True)

    def _clear_parts(self) -> None:
        for file in self._part_files():
            file.unlink()

    def _part_files(self) -> list[Path]:
        """All but the lock, and what a killed process had not yet given its name."""
        found = [file for file in self.parts.glob("*") if _PART.fullmatch(file.name)]
        return [*found, *self.path.glob(".*.[0-9]*.tmp")]

    def remove_parts(self) -> None:
        """Remove the work under way, and give the folder free."""
        self._clear_parts()
        if os.name == "nt":  # where an open file cannot be removed
            self.unlock()
        (self.parts / LOCK_FILE).unlink(missing_ok=True)
        self.unlock()
        with contextlib.suppress(OSError):  # gone, or the next process waits in it
            self.parts.rmdir()

    def save_part(self, name: str, arrays: Mapping[str, npt.NDArray[Any]], words: Any) -> None:
        """Keep a finished feature: its arrays and JSON-able words."""
        from safetensors.numpy import save

        values = {key: np.ascontiguousarray(value) for key, value in arrays.items()}
        data = save(values, metadata={"words": json.dumps(words)})
        replace_file(self.parts / f"{_file_name(name)}.safetensors", data)

    def has_part(self, name: str) -> bool:
        """Whether there is a file of a feature, finished or damaged."""
        return (self.parts / f"{_file_name(name)}.safetensors").exists()

    def load_part(self, name: str) -> tuple[dict[str, npt.NDArray[Any]], Any] | None:
        """A finished feature, or None where there is none or its file is damaged."""
        from safetensors import SafetensorError, safe_open

        file = self.parts / f"{_file_name(name)}.safetensors"
        try:
            with safe_open(file, framework="np") as tensors:
                words = parse_json(tensors.metadata()["words"])
                return {key: tensors.get_tensor(key) for key in tensors.keys()}, words  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return None

    def write_scores(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write ``scores.csv``; None and NaN are left empty, the task is ``label`` if not given."""
        write_rows(self.path / SCORES_FILE, Score, ({"task": TASK, **row} for row in rows))

    def write_comparisons(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write ``comparisons.csv``, see :class:`~signbridge.results.comparisons.Comparison`."""
        write_rows(self.path / COMPARISONS_FILE, Comparison, rows)

    def write_predictions(
        self,
        feature_names: Sequence[str],
        class_names: Sequence[str],
        samples: Mapping[str, Sequence[Any] | npt.NDArray[Any]],
        splits: Mapping[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]],
        group_names: Sequence[str] | None = None,
    ) -> None:
        """Write ``predictions.h5``, see :mod:`signbridge.results.predictions`."""
        path = self.path / PREDICTIONS_FILE
        write_predictions(path, feature_names, class_names, samples, splits, group_names)

    def write_summary(self, summary: Summary) -> None:
        """Write ``summary.json``, which makes the folder complete."""
        write_summary(self.path / SUMMARY_FILE, replace(summary, run=self.identity))


def _is_our_figure(picture: Path) -> bool:
    """Whether a PNG file names us as the software that made it, as all our figures do."""
    if picture.is_symlink() or not picture.is_file():
        return False
    with picture.open("rb") as file:
        return b"tEXtSoftware\0SignBridge" in file.read(4096)


def _file_name(name: str) -> str:
    return name.replace("/", "-")
