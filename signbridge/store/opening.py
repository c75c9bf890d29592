"""HDF5 files that strangers have made: opened only where all they hold lies plainly in them.

HDF5 follows links and virtual datasets into any other file that this process may read, runs plugins
as filters, and ends the process where a virtual dataset leads to itself. So before any value of a
file is read its objects are looked at, one by one, without following anything.
"""

from __future__ import annotations

import errno
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5s, h5t, h5z

from signbridge.store.checksums import DIMENSION_ONLY
from signbridge.store.schema import SHARDS

# Whatever HDF5 was built with can undo these; any other is a plugin, code that it would load.
_FILTERS = {
    h5z.FILTER_DEFLATE,
    h5z.FILTER_SHUFFLE,
    h5z.FILTER_FLETCHER32,
    h5z.FILTER_SZIP,
    h5z.FILTER_NBIT,
    h5z.FILTER_SCALEOFFSET,
}
_MOST_PACKED = 1100  # bytes that one byte may hold: deflate comes to 1,032
_MOST_OBJECTS = 20_000
_MOST_ATTRIBUTES = 5_000  # of one object
_LARGEST_ATTRIBUTE = 1 << 20  # bytes
_DEEPEST = 6
_LINKS = {
    h5l.TYPE_SOFT: "is a link to another place",
    h5l.TYPE_EXTERNAL: "is a link to another file",
}
_TYPES = {
    h5t.REFERENCE: "references",
    h5t.COMPOUND: "compounds",
    h5t.OPAQUE: "opaque bytes",
    h5t.VLEN: "lists of unequal length",
    h5t.ARRAY: "arrays as values",
    h5t.BITFIELD: "bit fields",
    h5t.TIME: "times",
}


class ForeignPartError(ValueError):
    """A file holds what no file of ours does; the message is a clause whose subject is the part."""


def open_reading(path: Path) -> h5py.File:
    """Open a finished file for reading, also where the file system has no locks.

    A finished file is never written to, so it can do without a lock, which read-only and network
    file systems may not have. It is no default, since the library refuses to open a file twice in
    one process, here and by the user, with and without.

    Raises:
        BlockingIOError: If another program has the file open for writing.
        OSError: If it cannot be opened as HDF5.
    """
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK):
            raise BlockingIOError(error.errno, os.strerror(error.errno), str(path)) from error
        if "lock" not in str(error):
            raise
        return h5py.File(path, "r", locking=False)


def open_plain(path: Path) -> h5py.File:
    """Open a finished file for reading if all that it holds lies in it.

    Raises:
        ForeignPartError: If it is no regular file, or holds something else.
        BlockingIOError: If another program has the file open for writing.
        OSError: If it cannot be opened as HDF5.
    """
    if path.exists() and not path.is_file():
        raise ForeignPartError("it is not a regular file")
    h5 = open_reading(path)
    try:
        refuse_foreign_parts(h5)
    except BaseException:
        h5.close()
        raise
    return h5


def refuse_foreign_parts(h5: h5py.File, *, in_shards: bool = False) -> None:
    """Look at every object of a file, and follow nothing; takes milliseconds.

    What is allowed are groups and datasets that hang together as a tree, numbers, texts and truth
    values, the filters that every HDF5 has, and no more values than the file can hold.

    Args:
        h5: The file.
        in_shards: Whether datasets of its root may lie in the shards that it lists.

    Raises:
        ForeignPartError: If it holds anything else.
    """
    found = _Found(h5.id.get_filesize())
    queue: list[tuple[h5g.GroupID, str]] = [(h5g.open(h5.id, b"/"), "")]
    seen = {h5o.get_info(queue[0][0]).addr}
    _check_attributes(queue[0][0], "")
    while queue:
        group, prefix = queue.pop()
        for name in group:
            path = prefix + _decoded(name, prefix)
            kind = group.links.get_info(name).type
            if kind != h5l.TYPE_HARD:
                raise ForeignPartError(f"{path} {_LINKS.get(kind, 'is a link of another kind')}")
            about = h5o.get_info(group, name)
            if about.addr in seen:
                raise ForeignPartError(f"{path} is a second name of something else in it")
            seen.add(about.addr)
            if len(seen) > _MOST_OBJECTS:
                raise ForeignPartError(f"it holds more than {_MOST_OBJECTS:,} objects")
            if about.type == h5o.TYPE_GROUP:
                if path.count("/") >= _DEEPEST:
                    raise ForeignPartError(f"{path} lies deeper than any group of ours")
                inner = h5g.open(group, name)
                _check_attributes(inner, path)
                queue.append((inner, f"{path}/"))
            elif about.type == h5o.TYPE_DATASET:
                found.add(h5d.open(group, name), path)
            else:
                raise ForeignPartError(f"{path} is neither a group nor a dataset")
    if found.virtual:
        _check_virtual(h5, found, in_shards=in_shards)
    found.check_size()


@dataclass
class _Found:
    """The datasets of a file, and the bytes that their values take or are said to take."""

    file_size: int
    plain: int = 0
    packed: int = 0
    virtual: dict[str, h5d.DatasetID] = field(default_factory=dict)

    def add(self, dataset: h5d.DatasetID, path: str) -> None:
        """Check one dataset without reading any value of it."""
        properties = dataset.get_create_plist()
        if properties.get_external_count():
            raise ForeignPartError(f"the values of {path} lie in another file")
        names = _check_attributes(dataset, path)
        _check_type(dataset.get_type(), path)
        if properties.get_layout() == h5d.VIRTUAL:
            self.virtual[path] = dataset  # whose extent HDF5 may seek in other files
            return
        filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
        for number in filters:
            if number not in _FILTERS:
                raise ForeignPartError(f"{path} is packed with filter {number}, a plugin")
        if dataset.get_space().get_simple_extent_type() == h5s.NULL:
            raise ForeignPartError(f"{path} has no extent")
        if b"CLASS" in names and b"NAME" in names and _is_dimension_only(dataset):
            return  # it has a length and no value, and none is ever read
        if filters:
            self.packed += _n_bytes(dataset)
        else:
            self.plain += _n_bytes(dataset)

    def check_size(self) -> None:
        """Refuse more values than there can be in a file of this size.

        Else a file of some kilobytes could ask for any amount of memory.
        """
        if self.plain > self.file_size or self.packed > _MOST_PACKED * self.file_size:
            raise ForeignPartError("its shapes speak of more values than it holds")


def _n_bytes(values: h5d.DatasetID | h5a.AttrID) -> int:
    if values.get_space().get_simple_extent_type() == h5s.NULL:
        return 0
    # Python's integers do not overflow.
    return math.prod(int(n) for n in values.shape) * int(values.get_type().get_size())


def _is_dimension_only(dataset: h5d.DatasetID) -> bool:
    if dataset.rank != 1 or dataset.dtype.kind != "f":
        return False
    name = h5py.Dataset(dataset).attrs["NAME"]
    text = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
    return text.startswith(DIMENSION_ONLY)


def _decoded(name: bytes, prefix: str) -> str:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        raise ForeignPartError(f"a name in {prefix or 'the root'} is not UTF-8") from None


def _check_type(kind: h5t.TypeID, path: str) -> None:
    number = kind.get_class()
    if number in (h5t.INTEGER, h5t.FLOAT, h5t.STRING):
        return
    if number == h5t.ENUM and kind.dtype == np.dtype(bool):
        return
    what = _TYPES.get(number, "values of a kind that is not ours")
    raise ForeignPartError(f"{path} holds {what}")


def _check_attributes(item: h5g.GroupID | h5d.DatasetID, path: str) -> set[bytes]:
    """Check the attributes of an object; returns their names."""
    count = h5a.get_num_attrs(item)
    shown = path or "the file"
    if count > _MOST_ATTRIBUTES:
        raise ForeignPartError(f"{shown} has more than {_MOST_ATTRIBUTES:,} attributes")
    names = set()
    for index in range(count):
        attribute = h5a.open(item, index=index)
        names.add(attribute.name)
        where = f"attribute '{attribute.name.decode('utf-8', 'replace')}' of {shown}"
        if _n_bytes(attribute) > _LARGEST_ATTRIBUTE:
            raise ForeignPartError(f"{where} has more than {_LARGEST_ATTRIBUTE:,} bytes")
        kind = attribute.get_type()
        if attribute.name == b"DIMENSION_LIST" and kind.get_class() == h5t.VLEN:
            kind = kind.get_super()
            if kind.equal(h5t.STD_REF_OBJ):
                continue
        if attribute.name != b"REFERENCE_LIST":  # which is never read
            _check_type(kind, where)
    return names


def _check_virtual(h5: h5py.File, found: _Found, *, in_shards: bool) -> None:
    """Allow datasets of the root whose values lie in the shards that the file itself lists."""
    first = min(found.virtual)
    if not in_shards or f"{SHARDS}/name" in found.virtual or f"{SHARDS}/size" in found.virtual:
        raise ForeignPartError(f"the values of {first} lie elsewhere, as a virtual dataset")
    if SHARDS not in h5:
        raise ForeignPartError(f"the values of {first} lie in files that it does not list")
    names = shard_names(h5)
    sources = {name.replace("%", "%%") for name in names}  # as HDF5 writes them
    for path, dataset in found.virtual.items():
        if "/" in path:
            raise ForeignPartError(f"the values of {path} lie elsewhere, as a virtual dataset")
        properties = dataset.get_create_plist()
        for index in range(properties.get_virtual_count()):
            name = properties.get_virtual_filename(index)
            if name not in sources or properties.get_virtual_dsetname(index).strip("/") != path:
                raise ForeignPartError(f"{path} takes values from {name}, which is no shard of it")
    size = sum(int(size) for size in h5[SHARDS]["size"][:])
    if sum(_n_bytes(dataset) for dataset in found.virtual.values()) > size:
        raise ForeignPartError("its shapes speak of more values than its shards hold")


def shard_names(h5: h5py.File) -> list[str]:
    """The names of the shards that a store lists, relative to its folder.

    Raises:
        ForeignPartError: If one of them does not lie in that folder.
    """
    dataset = h5[SHARDS]["name"]
    names = [str(name) for name in dataset.asstr()[: dataset.shape[0]]]
    for name in names:
        there = Path(name)
        if there.is_absolute() or there.drive or ".." in there.parts or not there.name:
            raise ForeignPartError(f"it names {name!r} as a shard, which is not in its own folder")
    return names
