"""A folder of class folders: what lies in it and where.

Layouts, each optionally below ``train``, ``val`` and ``test`` folders (the source's own split):
``class/…/image`` (default), ``class/signer/…/image`` and ``signer/class/…/image``.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from signbridge.errors import ImagesError
from signbridge.images.decode import EXTENSIONS, KINDS, OTHER_IMAGE_EXTENSIONS
from signbridge.images.sources.source import Candidates
from signbridge.runtime.words import listed, some

WHAT = "a folder of class folders"

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Names of split folders, in lower case, and what the split is then called."""

_GROUPS = {"class": "near_duplicates", "class/signer": "signer", "signer/class": "signer/class"}
"""What ``--groups`` is called that reads a layout."""

_SYSTEM = frozenset({"thumbs.db", "desktop.ini", "__macosx"})

# Names that number people, as hand1, signer_03 and p12 do.
_PERSON = re.compile(
    r"(signer|subject|subj|user|person|participant|volunteer|actor|speaker|hand|id|[psu])[ _-]*\d+",
    re.IGNORECASE,
)
# So many different letters are an alphabet. Fewer may be people, and numbers may be either.
_ALPHABET = 10
# What stands beside the letters in data sets of finger spelling.
_BESIDE_LETTERS = frozenset({"space", "del", "delete", "nothing", "blank", "unknown"})


def matches(spec: str, path: Path) -> bool:
    """Whether this is a folder."""
    return path.is_dir()


def read(root: Path, layout: str = "class") -> Candidates:
    """List the images of a folder, in a fixed order; opens no image.

    The order is by split (train, val, test), class and path. Hidden and system files are
    passed over in silence, other files that are no images with a note. Links are followed, except
    where they lead back to a folder above.

    Args:
        root: Folder that holds the class folders.
        layout: ``"class"``, ``"class/signer"`` or ``"signer/class"``.

    Raises:
        ImagesError: No class folders with images, or not the layout asked for.
    """
    name = os.fsencode(root.resolve().name).decode("utf-8", "backslashreplace")
    found = Candidates(name=name or "images", root=root)
    walk = _Walk(root, found)
    levels = layout.split("/")
    if len(levels) == 2:
        found.signer = []
    tops = _split_folders(walk)
    seen: dict[str, set[str]] = defaultdict(set)  # by name of the first level, those below it
    for split, top in tops:
        for parts in walk.files(top):
            folders = parts[len(top) : -1]
            if len(folders) < len(levels):
                if not folders:
                    walk.loose.append("/".join(parts))
                    continue
                raise ImagesError(
                    f"{'/'.join(parts)} in {root} has no signer folder, as {layout} asks for; "
                    "move it into one or choose other groups."
                )
            seen[folders[0]].add(folders[1] if len(folders) > 1 else "")
            found.sample_id.append("/".join(parts))
            found.source_split.append(split)
            found.label.append(folders[levels.index("class")])
            if found.signer is not None:
                found.signer.append(folders[levels.index("signer")])
    if layout == "signer/class":
        _sort_by_class(found)
    walk.add_notes()
    _check_layout(root, found, walk)
    if seen and not any("" in below for below in seen.values()):
        _check_levels(root, layout, seen)
        found.notes.insert(0, _levels_in_words(layout, seen, is_below_split=tops[0][1] != ()))
    return found


def _split_folders(walk: _Walk) -> list[tuple[str, tuple[str, ...]]]:
    """Return (split, path parts) of the folders that hold class folders."""
    names = walk.folders(())
    splits = [name for name in names if name.lower() in SPLITS]
    if not any(walk.folders((name,)) for name in splits):
        return [("", ())]  # a class may be called "test"
    for name in names:
        beside = _Walk(walk.root, Candidates(name=""))  # keeps its remarks to itself
        if name not in splits and any(True for _ in beside.files((name,))):
            raise ImagesError(
                f"{walk.root} holds the split folder {splits[0]!r} beside images in {name!r}; "
                "keep either split folders (train, val, test) or class folders there."
            )
    order = list(SPLITS)
    splits.sort(key=lambda name: (order.index(name.lower()), name))
    return [(SPLITS[name.lower()], (name,)) for name in splits]


def _sort_by_class(found: Candidates) -> None:
    """Bring signer/class into the order of the other layouts: split, class, path."""
    order = list(dict.fromkeys(found.source_split))
    rows = sorted(
        range(len(found.sample_id)),
        key=lambda i: (order.index(found.source_split[i]), found.label[i]),
    )
    found.sample_id = [found.sample_id[i] for i in rows]
    found.source_split = [found.source_split[i] for i in rows]
    found.label = [found.label[i] for i in rows]
    found.signer = [found.signer[i] for i in rows] if found.signer is not None else None


def _check_layout(root: Path, found: Candidates, walk: _Walk) -> None:
    kinds = f"{listed(KINDS, 'or')} images"
    if not found.sample_id:
        if walk.loose:
            raise ImagesError(
                f"{root} holds images but no class folders; put the images of each class into a "
                "folder named after it."
            )
        if found.unsupported:
            name, reason = found.unsupported[0]
            raise ImagesError(
                f"{root} holds no {kinds}; {name} {reason}, so convert the images first."
            )
        tables = sorted(path.name for path in root.glob("*.csv"))
        if tables:
            raise ImagesError(
                f"{root} holds neither class folders nor sign_mnist_train.csv or "
                f"sign_mnist_test.csv; to read {tables[0]} give its own path."
            )
        raise ImagesError(f"{root} holds no {kinds} in class folders; check the path.")
    names = set(found.label)
    if len(names) == 1 and found.signer is None:
        (name,) = names
        below = {sample.rpartition("/")[0] for sample in found.sample_id}
        if all("/" in path for path in below) and len(below) > 1 and not found.source_split[0]:
            raise ImagesError(
                f"{root} holds the single class folder {name!r}, which holds folders itself; give "
                f"{root / name} if those are the classes."
            )


def _check_levels(root: Path, layout: str, seen: dict[str, set[str]]) -> None:
    """Refuse a layout that the names of its levels contradict.

    Where every signer has signed every class, both levels repeat their names, so their kind alone
    can tell: people who are numbered above names that are not, or an alphabet where the signers
    should be.
    """
    first, second = set(seen), set().union(*seen.values())
    if layout == "class":
        return
    labels, signers = (first, second) if layout == "class/signer" else (second, first)
    everywhere = all(2 * len(below) >= len(second) for below in seen.values())
    people_as_classes = _are_people(labels) and not _are_people(signers)
    if (people_as_classes and everywhere) or (_is_alphabet(signers) and not _are_short(labels)):
        other = "signer/class" if layout == "class/signer" else "class/signer"
        raise ImagesError(
            f"{root} does not look like {layout}, as --groups {_GROUPS[layout]} reads it: its "
            f"first level of folders is {some(sorted(first))}, its second "
            f"{some(sorted(second))}; give --groups {_GROUPS[other]}, or if it is as you say, "
            "a CSV file with the columns sample_id,group."
        )


def _are_people(names: Iterable[str]) -> bool:
    return all(_PERSON.fullmatch(name) for name in names)


def _are_short(names: Iterable[str]) -> bool:
    """Whether all are single letters or digits, or what stands beside them."""
    return all(
        (len(name) == 1 and name.isalnum()) or name.lower() in _BESIDE_LETTERS for name in names
    )


def _is_alphabet(names: set[str]) -> bool:
    letters = {name.lower() for name in names if len(name) == 1 and name.isalpha()}
    return len(letters) >= _ALPHABET and _are_short(names)


def _levels_in_words(layout: str, seen: dict[str, set[str]], *, is_below_split: bool) -> str:
    """Say which level was taken as what, with its first names."""
    where = " below the split folders" if is_below_split else ""
    first, second = sorted(seen), sorted(set().union(*seen.values()))
    if layout == "class":
        return (
            f"Classes are the first level of folders{where} ({some(first)}); the folders in "
            f"them ({some(second)}) are not looked at: if they are the classes or the signers, "
            f"give --groups signer/class or --groups signer."
        )
    labels, signers = ("first", "second") if layout == "class/signer" else ("second", "first")
    names = {"first": first, "second": second}
    return (
        f"Classes are the {labels} level of folders{where} ({some(names[labels])}), signers the "
        f"{signers} ({some(names[signers])})."
    )


class _Walk:
    """Lists folders in sorted order and collects what there is to say about them."""

    def __init__(self, root: Path, found: Candidates) -> None:
        self.root = root
        self.found = found
        self.loose: list[str] = []
        self.other: dict[str, list[str]] = defaultdict(list)
        self.loops: list[str] = []
        self.empty: list[str] = []

    def folders(self, parts: tuple[str, ...]) -> list[str]:
        """Names of the visible folders in a folder."""
        return [name for name, is_folder in self._entries(parts) if is_folder]

    def files(self, parts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        """Path parts of the image files below a folder, in sorted order."""
        yield from self._below(parts, frozenset({self._identity(parts)}))

    def _identity(self, parts: tuple[str, ...]) -> tuple[int, int]:
        status = self.root.joinpath(*parts).stat()
        return status.st_dev, status.st_ino

    def _below(
        self, parts: tuple[str, ...], above: frozenset[tuple[int, int]]
    ) -> Iterator[tuple[str, ...]]:
        any_file = False
        for name, is_folder in self._entries(parts):
            path = (*parts, name)
            if not is_folder:
                if self._is_image(path):
                    any_file = True
                    yield path
                continue
            identity = self._identity(path)
            if identity in above:
                self.loops.append("/".join(path))
                continue
            any_below = False
            for file in self._below(path, above | {identity}):
                any_below = True
                yield file
            any_file |= any_below
            if not any_below:
                self.empty.append("/".join(path))

    def _entries(self, parts: tuple[str, ...]) -> list[tuple[str, bool]]:
        folder = self.root.joinpath(*parts)
        try:
            with os.scandir(folder) as listing:
                entries = [(entry.name, _is_folder(entry)) for entry in listing]
        except OSError as error:
            raise ImagesError(
                f"The folder {folder} cannot be listed ({error.strerror}); check its permissions."
            ) from None
        return sorted(
            entry
            for entry in entries
            if not entry[0].startswith(".") and entry[0].lower() not in _SYSTEM
        )

    def _is_image(self, path: tuple[str, ...]) -> bool:
        name = "/".join(path)
        extension = PurePosixPath(name).suffix.lower()
        try:
            name.encode()
        except UnicodeEncodeError:  # HDF5 and JSON could not hold such an id
            readable = os.fsencode(name).decode("utf-8", "backslashreplace")
            self.found.unsupported.append((readable, "has a name that is not UTF-8"))
            return False
        if extension in EXTENSIONS:
            return True
        if extension in OTHER_IMAGE_EXTENSIONS:
            reason = f"is a {extension} file, and only {listed(KINDS)} are read"
            self.found.unsupported.append((name, reason))
        else:
            self.other[extension or "no extension"].append(name)
        return False

    def add_notes(self) -> None:
        """Turn what was passed over into notes."""
        notes = self.found.notes
        for extension, names in sorted(self.other.items()):
            notes.append(f"Left out as no images ({extension}): {some(names)}.")
        if self.loose:
            notes.append(f"Left out as outside any class folder: {some(self.loose)}.")
        if self.empty:
            notes.append(f"Folders without images: {some(self.empty)}.")
        if self.loops:
            notes.append(f"Links not followed, because they lead back: {some(self.loops)}.")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads nowhere is judged when it is read
        return False
