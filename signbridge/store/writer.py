"""Writing a store so that a kill at any moment loses at most the shards in the making."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from signbridge.errors import StoreError
from signbridge.runtime.progress import Progress, StageProgress, stage
from signbridge.store import files
from signbridge.store.final import Content, NewStoreFile, ShardFile, publish_store
from signbridge.store.guarded import Opener
from signbridge.store.leftovers import unfinished
from signbridge.store.output import is_store, refuse_link, refuse_what_is_no_store
from signbridge.store.parts import Parts, comparable_samples, samples_identity, spec_identity
from signbridge.store.provenance import checked_provenance, refuse_difference
from signbridge.store.reader import Store, open_store
from signbridge.store.schema import SHARDS, SampleTable, Shard, StoreSpec
from signbridge.store.shards import ShardRows, checked_shard, shard_space, write_shard_file

_KEPT = "what was finished is kept, and the same command continues from there"


class StoreWriter:
    """Writes one store, shard by shard, alone or together with other workers.

    The worker of rank 0 is constructed first (the others after a barrier) and holds the output
    until it is closed; the others only need the plan. Shards may be written in any order, by any
    worker; the finished file's content depends on neither. Use it as a context manager.

    Args:
        path: The output file; while unfinished, its parts lie in ``path + ".parts"``.
        spec: What is captured for every sample.
        samples: The samples.
        provenance: Guarded facts: continuing with another value is refused. Texts, numbers, truth
            values and lists of them; ``None`` is the same as absent.
        info: Facts recorded but not guarded.
        shard_size: Samples in a shard; an unfinished extraction keeps the size it began with.
        overwrite: Whether an existing store, or parts begun with other settings, may be replaced.
            The old store stays until the new one is whole. Parts with the same settings are
            continued even so.
        rank: Number of this worker.
        keep_shards: Whether the store will refer to its shards rather than copy them.
        progress: Told how far verifying and making the file have come, which take minutes for a
            large store.

    Attributes:
        complete: Whether the output is already there with the same provenance and samples.

    Raises:
        StoreError: If another process writes the same output, it was made with other settings, the
            folder cannot be written, or there is not enough room.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        spec: StoreSpec,
        samples: SampleTable,
        provenance: Mapping[str, Any],
        info: Mapping[str, Any] | None = None,
        shard_size: int = 256,
        overwrite: bool = False,
        rank: int = 0,
        keep_shards: bool = False,
        progress: StageProgress | None = None,
    ) -> None:
        if shard_size < 1:
            raise StoreError(f"The shard size {shard_size} makes no sense: give at least 1.")
        self.path = Path(path).absolute()
        self.spec, self.samples = spec, samples
        self.provenance = checked_provenance(provenance)
        self.info = dict(info or {})
        self.rank, self.keep_shards = rank, keep_shards
        self.complete = False
        self._progress = progress
        self._parts = Parts(self.path)
        self._shards: list[Shard] = []
        self._growing: _Growing | None = None
        with files.clear_errors(self.path):
            self._begin(shard_size, overwrite)
        if rank == 0 and not keep_shards and self.shards:
            self._growing = _Growing(self)

    def _begin(self, shard_size: int, overwrite: bool) -> None:
        if self.rank != 0:
            # What lies at the path is for the first worker to judge; it has laid the plan by now.
            self._shards = self._planned(shard_size, overwrite)
            return
        there = refuse_what_is_no_store(self.path, overwrite=overwrite) and not overwrite
        if there and self._finish_at_once():
            return
        refuse_link(self.path)
        self._parts.lock()
        try:
            finished_meanwhile = not overwrite and not there and self.path.exists()
            if finished_meanwhile and self._finish_at_once():
                return
            self._tidy(overwrite)
            if there or finished_meanwhile:  # to be mended, from a plan that must be ours
                self._shards = self._follow_plan(shard_size)
            else:
                self._shards = self._planned(shard_size, overwrite)
            # Those of the first shards: what they do not record, the whole does not either.
            self.provenance = checked_provenance(self._parts.read_plan()["provenance"])
            self._check_space()
        except BaseException:
            self.close()
            raise

    def _planned(self, shard_size: int, overwrite: bool) -> list[Shard]:
        try:
            return self._follow_plan(shard_size)
        except StoreError:
            # Parts without one finished shard hold nothing that could be lost.
            if self.rank != 0 or not (overwrite or self._parts.is_without_shards()):
                raise
            self._discard_parts()
            return self._follow_plan(shard_size)

    def _follow_plan(self, shard_size: int) -> list[Shard]:
        shards = self._parts.make_plan(self.spec, self.samples, self.provenance, shard_size)
        # What was begun with or without thumbnails goes on so; version 0.1 knew none.
        begun = self._parts.read_plan().get("thumbnails") is True
        self.spec = replace(self.spec, thumbnails=begun)
        return shards

    def _check_space(self) -> None:
        n_classes = len(self.samples.class_names)
        have = [s for s in self._shards if self._parts.record(s) is not None]
        missing = len(self.samples) - sum(len(s) for s in have)
        needed = shard_space(self.spec, missing, n_classes)
        if not self.keep_shards:
            needed += shard_space(self.spec, len(self.samples), n_classes)
        try:
            files.check_space(self.path, needed)
        except StoreError:
            if not have and not self.path.exists():
                self._discard_parts()
                self._shards = []
            raise

    def _finish_at_once(self) -> bool:
        """Whether the file that is there is ours and whole; if not, its shards can mend it.

        Raises:
            StoreError: If it is another store, or damaged and cannot be mended.
        """
        try:
            telling = stage(self._progress, "verifying what is there")
            store = open_store(self.path, "full", telling)
        except StoreError as error:
            if self._has_shards_to_mend_it():
                return False
            advice = "choose another output file"
            if is_store(self.path):
                advice += " or give --overwrite true"
            raise StoreError(f"{str(error).rstrip('.')}; to replace it, {advice}.") from error
        self._refuse_another(store)
        self.complete = True
        if self._parts.folder.is_dir():
            with suppress(OSError, StoreError):  # tidying up can wait
                self._parts.lock()
                self._tidy_finished()
        return True

    def _has_shards_to_mend_it(self) -> bool:
        """Whether the damaged store refers to shards whose plan is there."""
        try:
            with open_store(self.path, verify="none") as store:
                return SHARDS in store and self._parts.has_plan()
        except StoreError:
            return False

    def _refuse_another(self, store: Store) -> None:
        with store:
            where = f"The finished store {self.path}"
            refuse_difference(store.provenance, self.provenance, where)
            refuse_difference(spec_identity(store.spec), spec_identity(self.spec), where)
            known = samples_identity(store.samples), samples_identity(self.samples)
            refuse_difference(*comparable_samples(*known), where)

    def _tidy_finished(self) -> None:
        """Remove what a run killed between its last rename and its clean-up has left."""
        files.remove_stale_temporaries(self.path.parent, f"{self.path.name}.tmp-")
        with open_store(self.path, verify="none") as store:
            if SHARDS in store:
                return
            left = unfinished(self.path)
            # Parts of another plan are the work of an --overwrite that was stopped.
            useless = self._parts.is_without_shards() if left is None else left.is_within(store)
            if useless:
                self._parts.remove()

    def _tidy(self, overwrite: bool) -> None:
        files.remove_stale_temporaries(self.path.parent, f"{self.path.name}.tmp-")
        files.remove_stale_temporaries(self._parts.folder, "")
        if overwrite and self.path.exists():
            self._forget_virtual_store()

    def _forget_virtual_store(self) -> None:
        """A store of virtual datasets goes before its shards do, never the other way round."""
        try:
            with open_store(self.path, verify="none") as store:
                virtual = SHARDS in store
        except StoreError:
            return
        if virtual:
            self.path.unlink()
            self._discard_parts()

    def _discard_parts(self) -> None:
        self._parts.remove(keep=[self._parts.folder / "lock"])

    # -- shards -----------------------------------------------------------------------------------

    @property
    def shards(self) -> tuple[Shard, ...]:
        """All shards, finished or not; empty if the store is complete."""
        return () if self.complete else tuple(self._shards)

    def pending(self, rank: int = 0, world_size: int = 1) -> list[Shard]:
        """The shards still to be made, after verifying size and SHA-256 of those that are there.

        Args:
            rank: Number of this worker.
            world_size: Number of workers. Each is given the shards whose index leaves its rank when
                divided by this, so workers need not ask at the same moment.

        Returns:
            Shards in ascending order; none if the store is complete.

        Raises:
            StoreError: If the parts cannot be read.
        """
        mine = [s for s in self.shards if s.index % world_size == rank]
        pending: list[Shard] = []
        with files.clear_errors(self._parts.folder):
            for number, shard in enumerate(mine, 1):
                if not self._parts.is_whole(shard):
                    pending.append(shard)
                if self._progress:
                    self._progress("verifying finished shards", number, len(mine))
        return pending

    def write_shard(self, index: int, data: Mapping[str, Any]) -> None:
        """Store one shard, durably; several threads may store different shards at once.

        Args:
            index: Index of the shard.
            data: For each captured variable its rows: ``resid_post`` of shape
                ``(rows, layers, hidden)``, baselines ``(rows, features)``, ``response`` a list of
                texts, ``class_logprob`` ``(rows, classes)``.

        Raises:
            StoreError: If a value is NaN, infinite or too large for the stored type (naming sample,
                layer and site), shapes are wrong, or the disk refuses; then nothing of the shard is
                stored, and what was finished stays.
        """
        if not 0 <= index < len(self.shards):
            raise StoreError(f"There is no shard {index} to write to {self.path}: see 'pending'.")
        shard = self._shards[index]
        checked = checked_shard(shard, data, self.spec, len(self.samples.class_names))
        with files.clear_errors(self._parts.folder, finished=_KEPT):
            write_shard_file(self._parts, shard, checked, self.spec, self.samples, self._opener)
        if self._growing is not None:
            self._growing.go_on()

    _opener: Opener | None = None  # replaced in tests

    # -- the end ----------------------------------------------------------------------------------

    def consolidate(self, keep_shards: bool | None = None) -> Path:
        """Make the one file out of verified shards, verify it, and only then remove the shards.

        Args:
            keep_shards: Whether to keep the shards and write a file of virtual datasets that refers
                to them; by default what the writer was made with.

        Returns:
            The path of the finished store.

        Raises:
            StoreError: If a shard is missing or damaged, the disk refuses, or the written file does
                not verify; the shards stay.
        """
        if self.complete:
            return self.path
        keep = self.keep_shards if keep_shards is None else keep_shards
        self._require_all()
        growing = self._growing
        if keep or growing is None or not growing.publish():
            self._close_growing()
            source = ShardRows(self._parts, self._shards)
            try:
                content = self._content(source, self._shard_files() if keep else ())
                publish_store(
                    self.path,
                    content,
                    opener=self._opener,
                    progress=self._progress,
                    finished=_KEPT,
                )
            finally:
                source.close()
        self.complete = True
        self._clean_up(keep)
        return self.path

    def _content(self, source: ShardRows, shards: Sequence[ShardFile] = ()) -> Content:
        return Content(self.spec, self.samples, self.provenance, self.info, source, shards)

    def _require_all(self) -> None:
        missing = [s for s in self._shards if self._parts.record(s) is None]
        if missing:
            raise StoreError(
                f"{len(missing)} of {len(self._shards)} shards of {self.path} are missing: run the "
                "same command again to make them."
            )

    def _shard_files(self) -> list[ShardFile]:
        found = []
        for shard in self._shards:
            size, sha256 = self._parts.record(shard) or (0, "")
            name = f"{self._parts.folder.name}/{self._parts.shard_path(shard.index).name}"
            found.append(ShardFile(name, shard.start, shard.stop, size, sha256))
        return found

    def _clean_up(self, keep: bool) -> None:
        if keep:
            files.remove_stale_temporaries(self._parts.folder, "", everyone=True)
            return
        # Whatever cannot be removed now is removed when the output is opened next.
        with suppress(OSError):
            self._parts.remove()

    def close(self) -> None:
        """Give the output free for other processes; unfinished parts stay."""
        self._close_growing()
        folder = self._parts.folder
        with suppress(OSError):
            if self._parts.is_locked and not self._shards and folder.is_dir():
                self._parts.drop_if_empty()
        self._parts.unlock()

    def _close_growing(self) -> None:
        growing, self._growing = self._growing, None
        if growing is not None:
            growing.close()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Growing:
    """Adds finished shards to the one file while others are made, in a thread of its own.

    What goes wrong here is no error: the file is then made at the end, from the same shards.
    """

    def __init__(self, writer: StoreWriter) -> None:
        self._writer = writer
        self._source: ShardRows | None = None
        self._file: NewStoreFile | None = None
        self._next = 0  # the first shard that the file lacks
        there = (writer._parts.record(shard) is not None for shard in writer.shards)
        self._there = sum(there)  # shards of an earlier run, which new ones need not wait for
        self._is_wanted = True
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-file")
        self._adding: Future[None] | None = None
        self._lock = threading.Lock()

    def go_on(self) -> None:
        """A shard was finished. Waits for those before it, lest more and more is left to do."""
        with self._lock:
            before = self._adding
            if before is not None and not before.done():
                if self._next < self._there:
                    return
                before.result()
            self._adding = self._thread.submit(self._add)

    def _add(self) -> None:
        try:
            self._add_shards()
        except Exception:
            self._is_wanted = False
            self._discard()

    def _add_shards(self, progress: Progress | None = None) -> None:
        writer = self._writer
        shards, parts = writer._shards, writer._parts
        while self._is_wanted and self._next < len(shards) and parts.record(shards[self._next]):
            if self._file is None:
                self._source = ShardRows(parts, shards)
                content = writer._content(self._source)
                self._file = NewStoreFile(writer.path, content, writer._opener)
            self._file.add(shards[self._next].stop, progress, lambda: self._is_wanted)
            self._next += 1

    def publish(self) -> bool:
        """Add what is lacking and give the file its name; False if it is to be made anew."""
        if self._adding is not None:
            self._adding.result()
        if self._file is None:
            return False
        try:
            self._add_shards(stage(self._writer._progress, "making the file"))
            self._file.publish(stage(self._writer._progress, "verifying the file"))
        except (OSError, StoreError):
            return False
        finally:
            self.close()
        return True

    def close(self) -> None:
        """Discard the file, unless it has been published."""
        self._is_wanted = False
        self._thread.shutdown()
        self._discard()

    def _discard(self) -> None:
        file, self._file = self._file, None
        source, self._source = self._source, None
        with suppress(OSError):
            if file is not None:
                file.__exit__(None, None, None)
        if source is not None:
            source.close()


def estimated_bytes(spec: StoreSpec, n_samples: int, n_classes: int) -> int:
    """The size a finished store will have, roughly; while it is made, twice as much is needed."""
    return shard_space(spec, n_samples, n_classes)
