"""The folder of an unfinished store: the plan, the shards and a record for each.

``OUTPUT.parts/`` holds ``plan.json`` (what is being made), ``shard-00012.h5`` (a finished shard)
and ``shard-00012.json`` (its size and SHA-256, written after it). No two processes write the same
record, so several workers share the folder without talking to each other.
"""

from __future__ import annotations

import contextlib
import errno
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from signbridge.errors import StoreError
from signbridge.runtime.files import file_sha256, fsync_folder
from signbridge.runtime.reading import read_json
from signbridge.store import files
from signbridge.store.checksums import block_sha256
from signbridge.store.opening import open_plain
from signbridge.store.provenance import plain, refuse_difference
from signbridge.store.schema import SampleTable, Shard, StoreSpec, block_edges

# What the system says where files cannot be locked, as on some network file systems.
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_LARGEST_RECORD = 10_000  # bytes
PARTS_FORMAT = "signbridge-parts"
PARTS_VERSION = "1.0"
_OURS = re.compile(r"(lock|plan\.json|shard-\d{5,}\.(h5|json))(\.tmp-[^/]*)?")
_GROUP_NAMES = "group_names (SHA-256)"


def _is_ours(path: Path) -> bool:
    """Whether what lies in a folder of parts is one, or on its way to be one."""
    return bool(_OURS.fullmatch(path.name)) and (path.is_symlink() or not path.is_dir())


def parts_folder(path: Path) -> Path:
    """The folder of parts that belongs to the output file ``path``."""
    return path.with_name(path.name + ".parts")


def spec_identity(spec: StoreSpec) -> dict[str, Any]:
    """What of a spec must be equal for samples to belong together; thumbnails are but a picture."""
    return {
        "layers": list(spec.layers),
        "hidden_size": int(spec.hidden_size),
        "store_dtype": spec.store_dtype,
        "baselines": [f"{k} ({v[0]} x {v[1]})" for k, v in sorted(spec.baselines.items())],
        "responses": bool(spec.responses),
        "class_logprob": bool(spec.class_logprob),
    }


def samples_identity(samples: SampleTable) -> dict[str, Any]:
    """What identifies the samples, their order included."""
    identity: dict[str, Any] = {"number of samples": len(samples)}
    for name in ("sample_id", "label", "class_names", "group", "source_split", "image_sha256"):
        values = getattr(samples, name)
        digest = block_sha256(values if hasattr(values, "dtype") else list(values))
        identity[f"{name} (SHA-256)"] = digest
    if samples.group_names is not None:
        identity[_GROUP_NAMES] = block_sha256(list(samples.group_names))
    return identity


def comparable_samples(
    old: Mapping[str, Any], new: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Two of :func:`samples_identity` as they are compared.

    Work that was begun before group names were kept has none, and is continued.
    """
    if (_GROUP_NAMES in old) == (_GROUP_NAMES in new):
        return old, new
    first, second = ({k: v for k, v in x.items() if k != _GROUP_NAMES} for x in (old, new))
    return first, second


def _checked_edges(plan: Mapping[str, Any]) -> list[tuple[int, int]]:
    """The edges of a plan's shards, which follow one another and hold every sample.

    Raises:
        ValueError: If they do not, or a part of the plan is of another kind.
    """
    if not all(isinstance(plan[key], dict) for key in ("provenance", "spec", "samples")):
        raise ValueError("a part of the plan is no object")
    edges = [(int(a), int(b)) for a, b in plan["edges"]]
    ends = [0, *(b for _, b in edges)]
    if [a for a, _ in edges] != ends[:-1] or any(a >= b for a, b in edges):
        raise ValueError("the shards do not follow one another")
    if ends[-1] != plan["samples"]["number of samples"]:
        raise ValueError("the shards do not hold every sample")
    return edges


class Parts:
    """The parts of one output file.

    Args:
        path: The output file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = parts_folder(path)
        self._lock: Any = None

    # -- the lock ---------------------------------------------------------------------------------

    def lock(self) -> None:
        """Take the output for this process until :meth:`unlock`.

        Raises:
            StoreError: If another process works on the same output.
        """
        from filelock import FileLock, Timeout  # readers do without

        lock_path = self.folder / "lock"
        for _ in range(10):
            files.make_folder(self.folder)
            lock = FileLock(str(lock_path), blocking=False, thread_local=False)
            try:
                lock.acquire()
            except Timeout:
                raise StoreError(
                    f"Another process is writing {self.path}: wait until it has finished, stop it, "
                    "or choose another output file."
                ) from None
            except NotImplementedError:
                self._warn_of_no_locks()
                return
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                self._warn_of_no_locks()
                return
            if lock_path.exists():
                self._lock = lock
                return
            lock.release()  # its former owner removed the folder while we opened the file
        raise StoreError(f"{self.folder} keeps vanishing: is another process removing it?")

    def _warn_of_no_locks(self) -> None:
        warnings.warn(
            f"The file system of {self.path} has no locks: take care that no second process "
            "writes the same output.",
            stacklevel=4,
        )

    @property
    def is_locked(self) -> bool:
        """Whether this process holds the output."""
        return self._lock is not None

    def unlock(self) -> None:
        """Give the output free."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def is_without_shards(self) -> bool:
        """Whether no shard has been finished."""
        return not any(self.folder.glob("shard-*"))

    def drop_if_empty(self) -> None:
        """Remove the folder if nothing but the lock is in it and the system allows it."""
        with contextlib.suppress(OSError):
            if {path.name for path in self.folder.iterdir()} <= {"lock"}:
                self.remove()

    # -- the plan ---------------------------------------------------------------------------------

    @property
    def plan_path(self) -> Path:
        """Where the plan lies."""
        return self.folder / "plan.json"

    def has_plan(self) -> bool:
        """Whether a run has begun here."""
        return self.plan_path.exists()

    def read_plan(self) -> dict[str, Any]:
        """The plan.

        Raises:
            StoreError: If it is damaged or of another version.
        """
        try:
            plan = read_json(self.plan_path)
            known = plan["format"] == PARTS_FORMAT and plan["version"] == PARTS_VERSION
            plan["edges"] = _checked_edges(plan)
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{self.plan_path} is damaged: remove the folder {self.folder} or give "
                "--overwrite true, and the extraction begins anew."
            ) from error
        if not known:
            raise StoreError(
                f"{self.folder} was begun by another version of SignBridge: finish with that "
                "version, or give --overwrite true."
            )
        return dict(plan)

    def make_plan(
        self,
        spec: StoreSpec,
        samples: SampleTable,
        provenance: Mapping[str, Any],
        shard_size: int,
    ) -> list[Shard]:
        """Write the plan unless there is one, check that it is ours, return its shards.

        Raises:
            StoreError: If the parts were begun with other settings; names the key and both values.
        """
        files.make_folder(self.folder)
        if not self.has_plan():
            mine = {
                "format": PARTS_FORMAT,
                "version": PARTS_VERSION,
                "provenance": plain(provenance),
                "spec": spec_identity(spec),
                "samples": samples_identity(samples),
                "edges": block_edges(len(samples), shard_size),
                "thumbnails": spec.thumbnails,
            }
            files.write_json(self.plan_path, mine)
        plan = self.read_plan()  # ours, or that of a worker who came at the same moment
        where = f"The unfinished extraction in {self.folder}"
        refuse_difference(plan["provenance"], plain(provenance), where)
        refuse_difference(plan["spec"], spec_identity(spec), where)
        known = comparable_samples(plan["samples"], samples_identity(samples))
        refuse_difference(*known, where)
        return [Shard(i, start, stop) for i, (start, stop) in enumerate(plan["edges"])]

    # -- the shards -------------------------------------------------------------------------------

    def shard_path(self, index: int) -> Path:
        """Where a shard lies."""
        return self.folder / f"shard-{index:05d}.h5"

    def record_path(self, index: int) -> Path:
        """Where a shard's record lies."""
        return self.folder / f"shard-{index:05d}.json"

    def write_record(self, shard: Shard, size: int, sha256: str) -> None:
        """Record a shard that lies in place."""
        record = {
            "index": shard.index,
            "start": shard.start,
            "stop": shard.stop,
            "size": size,
            "sha256": sha256,
        }
        files.write_json(self.record_path(shard.index), record)

    def record(self, shard: Shard) -> tuple[int, str] | None:
        """Size and SHA-256 of a recorded shard, or ``None`` if there is no usable record."""
        try:
            record = read_json(self.record_path(shard.index), _LARGEST_RECORD)
            place = (record["index"], record["start"], record["stop"])
            if place != (shard.index, shard.start, shard.stop):
                return None
            return int(record["size"]), str(record["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def is_whole(self, shard: Shard) -> bool:
        """Whether a shard is there with the recorded size and SHA-256, and holds all its values."""
        record = self.record(shard)
        path = self.shard_path(shard.index)
        try:
            if record is None or path.stat().st_size != record[0] or file_sha256(path) != record[1]:
                return False
            open_plain(path).close()  # the record may be as foreign as the file
            return True
        except (OSError, RuntimeError, KeyError, TypeError, ValueError):
            return False

    # -- the end ----------------------------------------------------------------------------------

    def remove(self, keep: Sequence[Path] = ()) -> None:
        """Remove the folder, or all of it but ``keep``; the plan goes last but the lock.

        What is not ours stays, and the folder with it.
        """
        if not self.folder.is_dir():
            return
        kept = {p.name for p in keep}
        last = {self.plan_path.name, "lock"}
        found = sorted(self.folder.iterdir(), key=lambda p: (p.name in last, p.name == "lock"))
        for path in found:
            if path.name in kept or (path.name == "lock" and kept) or not _is_ours(path):
                continue
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        if not kept:
            with contextlib.suppress(OSError):
                self.folder.rmdir()
            if self.folder.parent.is_dir():
                fsync_folder(self.folder.parent)
