"""A folder of folders of images: what lies in it, and which of its levels is what.

See :mod:`signbridge.images.layout` for how that is said or found out.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from signbridge.errors import ImagesError
from signbridge.images.decode import EXTENSIONS, KINDS, OTHER_IMAGE_EXTENSIONS
from signbridge.images.layout import (
    SPLITS,
    Layout,
    UnclearLayoutError,
    class_in_file_name,
    differing_in_case,
    infer_layout,
    layout_in_words,
    outer_levels,
)
from signbridge.images.sources.source import Asked, Candidates
from signbridge.runtime.words import composed, counted, listed, some

WHAT = "a folder of class folders"

_PLAIN = Asked()
_Row = tuple[str, str, str, tuple[str, ...]]  # split, class, signer, path

# How file names number people, as in hand1_a_bot.jpeg; single letters may number anything.
_SIGNER_IN_NAME = re.compile(
    r"(?<![^\W_])(hand|signer|subject|subj|user|person|participant|volunteer)[_-]?\d+(?![^\W_])",
    re.IGNORECASE,
)
_SYSTEM = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


def matches(spec: str, path: Path) -> bool:
    """Whether this is a folder."""
    return path.is_dir()


def read(root: Path, asked: Asked = _PLAIN) -> Candidates:
    """List the images of a folder, in a fixed order; opens no image.

    The order is by split (train, val, test), class and path. Hidden and system files are
    passed over in silence, other files that are no images with a note. Links are followed, except
    where they lead back to a folder above. Names are in Unicode's composed form; ids are the paths
    as they are. Images of a split that lie in no class folder belong to the class that their names
    begin with, where that is so of all of them.

    Args:
        root: Folder that holds the images.
        asked: The layout, if it is given, and what is to be grouped by.

    Raises:
        ImagesError: No images of classes, not the layout asked for, or none that the names tell.
    """
    name = os.fsencode(root.resolve().name).decode("utf-8", "backslashreplace")
    found = Candidates(name=composed(name) or "images", root=root)
    walk = _Walk(root, found)
    paths = list(walk.files(()))
    folders = [tuple(composed(part) for part in path[:-1]) for path in paths]
    layout = _layout(root, folders, asked)
    if layout is None:
        walk.loose += ["/".join(path) for path in paths]
    else:
        _fill(found, walk, layout, paths)
    walk.add_notes()
    _check_images(root, found, walk)
    assert layout is not None
    found.layout += _not_looked_at(layout, folders)
    if asked.layout is None and "signer" not in layout.roles and _may_have_signers(folders):
        found.layout += ", which --groups signer takes for the signers"
    if "signer" not in layout.roles:
        found.notes += _signers_in_names(found.sample_id)
    for role, names in (("class", found.label), ("signer", found.signer or [])):
        for same in differing_in_case(names):
            noun = "classes" if role == "class" else "signers"
            found.notes.append(f"The {noun} {same} differ in case alone: each is one of its own.")
    return found


def _layout(root: Path, folders: Sequence[tuple[str, ...]], asked: Asked) -> Layout | None:
    """The layout that was asked for, or that the names tell."""
    if asked.layout is not None:
        given = Layout.parse(asked.layout)
        if asked.groups == "signer/class" or (
            asked.groups == "signer" and "signer" not in given.roles
        ):
            raise ImagesError(
                f"--layout {asked.layout} and --groups {asked.groups} do not go together; name the "
                "level of the signers in --layout and give --groups signer."
            )
        return given
    inside = [levels for levels in folders if levels]
    layout: Layout | None = None
    try:
        layout = infer_layout(inside, signers_wanted=asked.groups in ("signer", "signer/class"))
    except UnclearLayoutError as error:
        if asked.groups != "signer/class":
            raise ImagesError(f"{root} {error}") from None
    if asked.groups == "signer/class" and inside:
        outer = ["*" if level == "signer" else level for level in outer_levels(inside)]
        ordered = Layout((*outer, "signer", "class"))
        if layout is not None and layout.without_splits != "signer/class":
            raise ImagesError(
                f"{root} does not look like signer/class but like {layout}: "
                f"{_levels_in_words(layout, inside)}; leave --groups signer/class out or give "
                f"--groups signer, or if it is as you say give --layout '{ordered}' too."
            )
        return layout or ordered
    if layout is not None and asked.groups == "signer" and "signer" not in layout.roles:
        raise ImagesError(
            f"--groups is 'signer', but the folders of {root} name no signers: they are read as "
            f"{layout} ({_levels_in_words(layout, inside)}); say with --layout where they are, "
            "or give other groups."
        )
    return layout


def _levels_in_words(layout: Layout, folders: Sequence[tuple[str, ...]]) -> str:
    most = max(map(len, folders), default=0)
    return ", ".join(
        f"level {k + 1} is {some(sorted({f[k] for f in folders if len(f) > k}))}"
        for k in range(min(most, len(layout.levels) + 1))
    )


def _signers_in_names(sample_ids: Sequence[str]) -> list[str]:
    """Say that file names number several people, where all of them do."""
    matches = [_SIGNER_IN_NAME.search(PurePosixPath(sample).stem) for sample in sample_ids]
    people = sorted({match[0] for match in matches if match})
    if not all(matches) or not 1 < len(people) <= len(sample_ids) // 2:
        return []
    kind = re.match(r"\D+", people[0])
    pattern = f"({kind[0] if kind else ''}[0-9]+)"
    return [
        f"The file names seem to number {counted(len(people), 'signer')} ({some(people)}): if they "
        f"do, --groups '{pattern}' keeps them apart."
    ]


def _may_have_signers(folders: Sequence[tuple[str, ...]]) -> bool:
    try:
        layout = infer_layout([levels for levels in folders if levels], signers_wanted=True)
    except UnclearLayoutError:
        return False
    return layout is not None and "signer" in layout.roles


def _not_looked_at(layout: Layout, folders: Sequence[tuple[str, ...]]) -> str:
    """Name the first level below the layout's, and those within it that mean nothing."""
    unread = [k for k, level in enumerate(layout.levels) if level == "*"] + [len(layout.levels)]
    said = []
    for k in unread:
        names = sorted({f[k] for f in folders if len(f) > k})
        if names and (k == len(layout.levels) or len(names) > 1):
            said.append(f"level {k + 1} ({some(names)})")
    return f"; not looked at: {listed(said)}" if said else ""


def _fill(found: Candidates, walk: _Walk, layout: Layout, paths: Sequence[tuple[str, ...]]) -> None:
    """Read each path by the layout and bring the images into their order."""
    rows: list[_Row] = []
    without: dict[str, list[tuple[dict[str, str], tuple[str, ...]]]] = defaultdict(list)
    wanted = layout.roles - {"split"}
    misnamed = []
    for path in paths:
        fields = layout.fields(path)
        if isinstance(fields, str):
            misnamed.append(("/".join(path), fields))
        elif wanted <= fields.keys():
            row = fields.get("split", ""), fields["class"], fields.get("signer", "")
            rows.append((*row, path))
        elif wanted & fields.keys():
            inwards = ("class", "signer", "sample")
            missing = next(role for role in inwards if role in wanted - fields.keys())
            raise ImagesError(
                f"{'/'.join(path)} in {walk.root} has no {missing} folder, as {layout} asks for; "
                f"move it into one or say with --layout where the {missing} is named."
            )
        else:
            without[fields.get("split", "")].append((fields, path))
    if misnamed and not rows:
        name, reason = misnamed[0]
        raise ImagesError(f"{name} in {walk.root} {reason}, nor is any other; correct --layout.")
    found.unsupported += misnamed
    classes = {row[1] for row in rows}
    named: list[str] = []
    for split, images in without.items():
        of_names = [class_in_file_name(path[-1], classes) for _, path in images]
        if split and wanted == {"class"} and None not in of_names:
            named.append(split)
            rows += [
                (split, label or "", "", path)
                for (_, path), label in zip(images, of_names, strict=True)
            ]
        else:
            walk.loose += ["/".join(path) for _, path in images]
    order = list(dict.fromkeys(SPLITS.values()))
    # Without a split, "" has no place in that order; a layout gives all images one or none.
    rows.sort(key=lambda row: (order.index(row[0]) if row[0] else 0, row[1], row[3]))
    if "sample" in layout.roles:
        rows = _by_sample(found, walk.root, layout, rows)
    found.sample_id = ["/".join(row[3]) for row in rows]
    found.source_split, found.label = [row[0] for row in rows], [row[1] for row in rows]
    found.signer = [row[2] for row in rows] if "signer" in layout.roles else None
    found.grouping = layout.without_splits
    names = {"class": found.label, "signer": found.signer or [], "split": found.source_split}
    found.layout = layout_in_words(
        layout,
        {role: set(values) for role, values in names.items()},
        f"; the classes of {listed(named)} by the beginning of the file name" if named else "",
    )


def _by_sample(found: Candidates, root: Path, layout: Layout, rows: list[_Row]) -> list[_Row]:
    """One row a sample, its path that of its folder; the paths of its images go to ``found``."""
    depth = layout.levels.index("sample") + 1
    samples: dict[_Row, list[str]] = defaultdict(list)
    for split, label, signer, path in rows:
        samples[split, label, signer, path[:depth]].append("/".join(path))
    found.files = [tuple(files) for files in samples.values()]
    most = max(found.files, key=len, default=())
    for (*_, path), files in samples.items():
        if len(files) < len(most):
            raise ImagesError(
                f"{'/'.join(path)} in {root} holds {counted(len(files), 'image')}, but "
                f"{'/'.join(PurePosixPath(most[0]).parts[:depth])} {len(most)}; every sample of "
                f"--layout {layout} has as many images as the others."
            )
    return list(samples)


def _check_images(root: Path, found: Candidates, walk: _Walk) -> None:
    kinds = f"{listed(KINDS, 'or')} images"
    if not found.sample_id:
        if walk.loose:
            raise ImagesError(
                f"{root} holds images but no class folders; put the images of each class into a "
                "folder named after it, or if the file names tell the class say how, such as "
                "--layout 'hand{signer}_{class}_*'."
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
