"""The file of a finished store: opening, checking, and all of its content but the vectors."""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
import weakref
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from signbridge.errors import StoreError, first_line
from signbridge.runtime.progress import Progress
from signbridge.store import hdf
from signbridge.store.check import (
    fingerprint_problems,
    identity_problem,
    is_newer_minor,
    quick_problems,
)
from signbridge.store.checked import CheckedBlocks
from signbridge.store.checksums import dimension_names, dtype_name, structure
from signbridge.store.rules import SMALL, shard_sizes, value_problems
from signbridge.store.schema import (
    CHECKSUMS,
    CHUNK_ROWS,
    CLASS_LOGPROB,
    GROUP_VARIABLE,
    RESID_POST,
    RESPONSE,
    THUMBNAIL,
    SampleTable,
    StoreSpec,
    Values,
)

if TYPE_CHECKING:
    from typing_extensions import Self

Verify = Literal["none", "quick", "read", "full"]
_OPEN_STORES: weakref.WeakSet[StoreFile] = weakref.WeakSet()


class StoreFile:
    """The file of a store: opening it anew in every process, and all that is small.

    Args:
        path: The store's file.
        verify: As in :func:`signbridge.store.open_store`.
        progress: As in :func:`signbridge.store.open_store`.

    Attributes:
        path: The store's file.

    Raises:
        StoreError: As in :func:`signbridge.store.open_store`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        verify: Verify = "read",
        progress: Progress | None = None,
    ) -> None:
        if verify not in ("none", "quick", "read", "full"):
            raise StoreError(
                f"verify={verify!r} is not known: use 'none', 'quick', 'read' or 'full'."
            )
        self.path = Path(path)
        self._checks = CheckedBlocks(self.path) if verify in ("read", "full") else None
        self._columns: dict[str, Values] = {}  # what is small and has been read
        self._opened: str | None = None  # the content that this object speaks of
        self._absolute = self.path.absolute()  # the working directory may change
        self._lock = threading.Lock()  # for opening; HDF5 itself has one for reading
        self._file: h5py.File | None = None
        self._pid = -1
        self._closed = False
        _OPEN_STORES.add(self)
        try:
            self._check(verify, progress)
        except BaseException:
            self.close()
            raise

    def _check(self, verify: Verify, progress: Progress | None) -> None:
        with self._reading():
            h5 = self._handle()
            problem = identity_problem(h5, str(self.path))
            if problem:
                raise StoreError(problem)
            if is_newer_minor(h5):
                warnings.warn(
                    f"{self.path} has format version {h5.attrs['format_version']}, newer than this "
                    "SignBridge knows: what it adds is ignored.",
                    stacklevel=4,
                )
            if verify == "none":
                return
            described = structure(h5)
            found = quick_problems(h5, self._absolute, described)
            if not found and verify == "full":
                from signbridge.store.verify import verify_store

                found = verify_store(self.path, progress)
            elif not found:
                values = {name: self._column(name) for name in SMALL if name in h5}
                found = [*value_problems(values), *fingerprint_problems(h5, described)]
            if found:
                raise StoreError(
                    f"{self.path} is damaged: {found[0]}; run 'signbridge verify {self.path}' for "
                    "all that is wrong, and restore the file or make it again."
                )

    # -- the file ---------------------------------------------------------------------------------

    def _handle(self) -> h5py.File:
        """The file, opened for this process."""
        with self._lock:
            if self._closed:
                raise StoreError(f"The store {self.path} has been closed: open it again.")
            if self._file is None or self._pid != os.getpid():
                self._file = self._opened_again(hdf.open_hdf5(self._absolute))
                self._pid = os.getpid()
            return self._file

    def _opened_again(self, h5: h5py.File) -> h5py.File:
        """Refuse another store that has taken the place of the one that was opened first."""
        with contextlib.suppress(*hdf.DAMAGE):
            content = str(hdf.read_attribute(h5[CHECKSUMS].attrs["content_sha256"]))
            self._opened = self._opened or content
            if content != self._opened:
                h5.close()
                raise self._replaced()
        return h5

    def _replaced(self) -> StoreError:
        return StoreError(
            f"{self.path} has been replaced by another store since it was opened: open it again."
        )

    def _forget_after_fork(self) -> None:
        """Let a forked child open the file anew, whatever other threads did during the fork."""
        self._lock = threading.Lock()
        self._file = None

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except MemoryError:
            raise
        except hdf.DAMAGE as error:
            raise StoreError(
                f"{self.path} cannot be read ({first_line(error)}): run 'signbridge verify "
                f"{self.path}'."
            ) from error

    def close(self) -> None:
        """Close the file; the store cannot be read any more."""
        with self._lock:
            if self._file is not None:
                with contextlib.suppress(*hdf.DAMAGE):
                    self._file.close()
            self._file = None
            self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        if self._closed:
            raise StoreError(f"The store {self.path} has been closed: open it again.")
        checks = self._checks is not None
        return {"path": self._absolute, "checks": checks, "opened": self._opened}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"], verify="none")  # type: ignore[misc]
        self._checks = CheckedBlocks(self.path) if state["checks"] else None
        if state["opened"] not in (None, self._opened):
            self.close()
            raise self._replaced()

    def __repr__(self) -> str:
        return (
            f"Store('{self.path}': {self.n_samples} samples, layers "
            f"{', '.join(map(str, self.layers))}, hidden size {self.hidden_size})"
        )

    # -- what is in it ----------------------------------------------------------------------------

    def _rows(self, name: str, start: int, stop: int, layer: int | None = None) -> Values:
        """Rows ``start`` to ``stop`` of a variable, at position ``layer`` if it has layers."""
        with self._reading():
            h5 = self._handle()
            if self._checks is not None:
                return self._checks.read(h5, name, start, stop, layer)
            return hdf.get_rows(h5[name], start, max(start, stop), layer)

    def _column(self, name: str) -> Values:
        with self._reading():
            if name not in self._columns:
                dataset = self._handle()[name]
                if dataset.is_virtual:
                    self._refuse_missing_shards()
                self._columns[name] = self._rows(name, 0, int(dataset.shape[0]))
            return self._columns[name]

    def _numbers(self, name: str) -> NDArray[np.int64]:
        with self._reading():
            return np.asarray(self._column(name), np.int64)

    def _texts(self, name: str) -> list[str]:
        with self._reading():
            texts = [str(text) for text in self._column(name)]
            "".join(texts).encode("utf-8")  # what is not UTF-8 came back as surrogates
            return texts

    def __contains__(self, name: object) -> bool:
        with self._reading():
            return isinstance(name, str) and name in self._handle()

    def __len__(self) -> int:
        return self.n_samples

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """Decoder layer numbers (0-based) that are stored."""
        return tuple(int(layer) for layer in self._numbers("layer"))

    @cached_property
    def _shape(self) -> tuple[int, int, int]:
        with self._reading():
            n, layers, hidden = self._handle()[RESID_POST].shape
        return int(n), int(layers), int(hidden)

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return self._shape[0]

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        return self._shape[2]

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The stored type of ``resid_post``."""
        with self._reading():
            dtype: np.dtype[Any] = self._handle()[RESID_POST].dtype
        return dtype

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; labels are indices into them."""
        return tuple(self._texts("class_name"))

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Label of each sample, shape ``(n,)``, indices into :attr:`class_names`."""
        return self._numbers("label")

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """Group of each sample, shape ``(n,)``; samples of one group are not independent."""
        return self._numbers("group")

    @cached_property
    def group_names(self) -> tuple[str, ...] | None:
        """Names of the groups by their number, such as those of signers; ``None`` without names."""
        if GROUP_VARIABLE.name not in self:
            return None
        names = tuple(self._texts(GROUP_VARIABLE.name))
        if self.groups.max(initial=-1) >= len(names):
            raise StoreError(
                f"{self.path} is damaged: group {self.groups.max()} has no name, there are "
                f"{len(names)}; restore the file or make it again."
            )
        return names

    @cached_property
    def sample_ids(self) -> list[str]:
        """Unique id of each sample."""
        return self._texts("sample_id")

    @cached_property
    def source_splits(self) -> list[str]:
        """Split of each sample in its source, or ``""``."""
        return self._texts("source_split")

    @cached_property
    def image_sha256(self) -> list[str]:
        """SHA-256 of each image."""
        return self._texts("image_sha256")

    @cached_property
    def responses(self) -> list[str] | None:
        """The model's answer to each sample, or ``None`` if none were generated."""
        return self._texts(RESPONSE.name) if RESPONSE.name in self else None

    def texts(self, name: str, rows: ArrayLike) -> list[str]:
        """Read some texts of a variable of samples, such as ``"response"`` or ``"thumbnail"``.

        Args:
            name: The variable.
            rows: Sample indices, in any order.

        Raises:
            StoreError: If reading fails.
        """
        wanted = np.asarray(rows, np.int64).tolist()
        found: dict[int, str] = {}
        for block in sorted({row // CHUNK_ROWS for row in wanted}):
            start, stop = block * CHUNK_ROWS, min((block + 1) * CHUNK_ROWS, self.n_samples)
            found |= enumerate(self._rows(name, start, stop), start)
        with self._reading():
            texts = [str(found[row]) for row in wanted]
            "".join(texts).encode("utf-8")
            return texts

    @cached_property
    def class_logprob(self) -> NDArray[np.float32] | None:
        """Log-probability (nats) of each class as the answer, ``(n, classes)``, or ``None``."""
        if CLASS_LOGPROB.name not in self:
            return None
        with self._reading():
            return np.asarray(self._column(CLASS_LOGPROB.name), np.float32)

    @cached_property
    def baselines(self) -> tuple[str, ...]:
        """Names of the baseline features that are stored, such as ``"pixels"``."""
        with self._reading():
            h5 = self._handle()
            return tuple(
                name
                for name in sorted(h5)
                if isinstance(h5[name], h5py.Dataset)
                and dimension_names(h5[name]) == ["sample", f"{name}_feature"]
            )

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """How the vectors came about: the guarded values, readable."""
        with self._reading():
            attrs = self._handle().attrs
            keys = hdf.read_attribute(attrs["provenance_keys"])
            return {key: hdf.read_attribute(attrs[key]) for key in keys}

    @cached_property
    def info(self) -> dict[str, Any]:
        """What was recorded besides, such as dates, devices, versions and skipped images."""
        with self._reading():
            return hdf.read_info(self._handle())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the guarded provenance."""
        with self._reading():
            return str(hdf.read_attribute(self._handle().attrs["provenance_sha256"]))

    @cached_property
    def content_sha256(self) -> str:
        """SHA-256 over all content: equal for equal stores, however often they were interrupted."""
        with self._reading():
            return str(hdf.read_attribute(self._handle()[CHECKSUMS].attrs["content_sha256"]))

    @cached_property
    def format_version(self) -> str:
        """Version of the format the file was written in."""
        with self._reading():
            return str(hdf.read_attribute(self._handle().attrs["format_version"]))

    @property
    def spec(self) -> StoreSpec:
        """What was captured for every sample."""
        baselines = {}
        with self._reading():
            for name in self.baselines:
                dataset = self._handle()[name]
                attrs = {
                    key: hdf.read_attribute(dataset.attrs[key])
                    for key in sorted(dataset.attrs)
                    if key not in ("DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME")
                }
                baselines[name] = (int(dataset.shape[1]), dtype_name(dataset.dtype), attrs)
            return StoreSpec(
                self.layers,
                self.hidden_size,
                "float32" if self.dtype == np.float32 else "float16",
                baselines,
                responses=RESPONSE.name in self,
                class_logprob=CLASS_LOGPROB.name in self,
                thumbnails=THUMBNAIL.name in self,
            )

    @property
    def samples(self) -> SampleTable:
        """The table of the samples."""
        return SampleTable(
            self.sample_ids,
            self.labels,
            self.class_names,
            self.groups,
            self.source_splits,
            self.image_sha256,
            self.group_names,
        )

    @cached_property
    def _shard_sizes(self) -> list[tuple[Path, int]]:
        with self._reading():
            return shard_sizes(self._handle(), self._absolute)

    def _refuse_missing_shards(self) -> None:
        """HDF5 silently reads a shard that has gone as NaN or 0."""
        for path, size in self._shard_sizes:
            if not path.is_file() or path.stat().st_size != size:
                raise StoreError(
                    f"The shard {path} of the store {self.path} is missing or damaged: bring it "
                    "back or make the store again."
                )


def _forget_all_after_fork() -> None:
    for store in list(_OPEN_STORES):
        store._forget_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all_after_fork)
