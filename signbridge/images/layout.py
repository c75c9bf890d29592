"""Which level of a tree of folders is the split, the signer, the class: as said, or by the names.

A layout is spelt level by level, ``split/signer/class``, from the folder that was given inwards:
``*`` stands for a level that means nothing, and a last part with ``{...}`` or a ``*`` among other
characters for the name of the file, as in ``hand{signer}_{class}_*``. Each folder of the level
``sample`` is one sample, its images in order of their names. Folders below the last level are not
looked at.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from signbridge.errors import ImagesError
from signbridge.runtime.words import composed, counted, listed, some

ROLES = ("split", "signer", "class")
LEVELS = (*ROLES, "sample")

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""Names of split folders, in lower case, and what the split is then called."""

# Names that number people, as hand1, signer_03 and p12 do.
_PERSON = re.compile(
    r"(signer|subject|subj|user|person|participant|volunteer|actor|speaker|hand|id|[psu])[ _-]*\d+",
    re.IGNORECASE,
)
# Names that number parts of a collection, as session2 and clip-07 do.
_PART = re.compile(
    r"(session|sess|take|clip|video|vid|seq|sequence|rep|repetition|trial|scene|set|part|batch"
    r"|cam|camera|view|frames?|round|day|folder|dir|v)[ _-]*\d+([ _-]+\d+)*",
    re.IGNORECASE,
)
# So many different letters are an alphabet. Fewer may be people, and numbers may be either.
_ALPHABET = 10
# What stands beside the letters in data sets of finger spelling.
_BESIDE_LETTERS = frozenset({"space", "del", "delete", "nothing", "blank", "unknown"})

_NAMED = 3  # names of a level that a message shows
Folders = tuple[str, ...]


def split_named(name: str) -> str | None:
    """Return the split that a folder's name says: ``test`` for ``asl_alphabet_test``; or ``None``.

    >>> split_named("Training"), split_named("ASL-train_v2"), split_named("contest")
    ('train', 'train', None)
    """
    words = re.findall(r"[^\W\d_]+", name.lower())
    found = {SPLITS[word] for word in words if word in SPLITS}
    return found.pop() if len(found) == 1 else None


@dataclass(frozen=True)
class Layout:
    """What each level of a tree of folders is.

    Attributes:
        levels: From the outermost folder inwards: a role, ``*``, or a pattern of the folder's name.
        file: Pattern of the file's name, with or without its extension, if it matters.
    """

    levels: tuple[str, ...]
    file: str | None = None

    @staticmethod
    def parse(text: str) -> Layout:
        """Read a layout as a user spells it.

        Raises:
            ImagesError: It is none; the message says what one is.
        """
        parts = composed(text).strip().strip("/").split("/")
        for part in parts:
            _check_part(part, text)
        file = parts.pop() if parts[-1] not in (*LEVELS, "*") else None
        layout = Layout(tuple(parts), file)
        bare = [part for part in parts if part in LEVELS]
        if "class" not in layout.roles or len(set(bare)) < len(bare):
            raise ImagesError(
                f"--layout is {text!r}: name the level of the classes, and each level once, such "
                "as 'split/signer/class' or 'hand{signer}_{class}_*'."
            )
        return layout

    def __str__(self) -> str:
        return "/".join([*self.levels, *([self.file] if self.file else [])])

    @cached_property
    def roles(self) -> frozenset[str]:
        """The roles that some level or pattern gives."""
        return frozenset(role for part in self._parts for role in _roles_of(part))

    @property
    def _parts(self) -> tuple[str, ...]:
        return (*self.levels, *([self.file] if self.file else []))

    @cached_property
    def _patterns(self) -> list[re.Pattern[str]]:
        return [_compiled(part) for part in self._parts]

    @property
    def without_splits(self) -> str:
        """The levels that tell signers and classes: of ``split/signer/class`` the last two."""
        return "/".join(part for part in self._parts if _roles_of(part) - {"split", "sample"})

    def where(self, role: str) -> str:
        """Say where a role is read: ``level 2``, ``file name``, or both."""
        places = [f"level {k}" for k, part in enumerate(self.levels, 1) if role in _roles_of(part)]
        places += ["file name"] if self.file and role in _roles_of(self.file) else []
        return " and ".join(places)

    def fields(self, path: Folders) -> dict[str, str] | str:
        """Read one image's path.

        Args:
            path: Names of the folders and of the file.

        Returns:
            What it says of each role, or why it does not fit: words that complete "FILE ...".
            A path with fewer folders than levels says what those that are there say.
        """
        *folders, name = (composed(part) for part in path)
        found: dict[str, str] = {}
        places = [
            (pattern, part, [folder])
            for pattern, part, folder in zip(self._patterns, self.levels, folders, strict=False)
        ]
        if self.file is not None and len(folders) >= len(self.levels):
            places.append((self._patterns[-1], self.file, [PurePosixPath(name).stem, name]))
        for pattern, part, texts in places:
            match = next(filter(None, map(pattern.fullmatch, texts)), None)
            if match is None:
                return f"is not named as {part} says"
            for role, value in match.groupdict().items():
                value = _split(value, part) if role == "split" else value
                if value is None:
                    return f"names no split (train, val or test) where {self} says one"
                if found.setdefault(role, value) != value:
                    return f"names two of one {role}, {found[role]} and {value}"
        return found


def _roles_of(part: str) -> set[str]:
    return {part} if part in LEVELS else set(re.findall(r"\{(\w+)\}", part)) & set(ROLES)


def _check_part(part: str, text: str) -> None:
    if part in (*LEVELS, "*"):
        return
    known = "split, signer, class, sample or *"
    wrong = [name for name in re.findall(r"\{(.*?)\}", part) if name not in ROLES]
    rest = re.sub(r"\{\w+\}", "", part)
    if not part or wrong or "{" in rest or "}" in rest or not ("{" in part or "*" in part):
        shown = f"{{{wrong[0]}}}" if wrong else repr(part)
        raise ImagesError(
            f"--layout is {text!r}: {shown} is no level; give {known}, or a pattern of names with "
            "{split}, {signer} or {class}, such as 'hand{signer}_{class}_*'."
        )
    if re.search(r"[}*][{*]", part) or len(set(re.findall(r"\{\w+\}", part))) < part.count("{"):
        raise ImagesError(
            f"--layout is {text!r}: in {part!r} nothing stands between two unknown parts, or one "
            "is named twice, so where one ends cannot be told."
        )


def _compiled(part: str) -> re.Pattern[str]:
    """The regular expression of a level; an unknown part is as short as can be."""
    if part in LEVELS:
        part = f"{{{part}}}"
    pieces = re.split(r"(\{\w+\}|\*)", part)
    return re.compile(
        "".join(
            ".*"
            if piece == "*"
            else f"(?P<{piece[1:-1]}>.+?)"
            if re.fullmatch(r"\{\w+\}", piece)
            else re.escape(piece)
            for piece in pieces
        ),
        re.DOTALL,
    )


def _split(name: str, part: str) -> str | None:
    """The split of a folder's name, or of the part of a name that a pattern has cut out."""
    return split_named(name) if part == "split" else SPLITS.get(name.lower())


class UnclearLayoutError(ImagesError):
    """The names allow more than one reading, or none; the message completes "ROOT ..."."""


def infer_layout(paths: Sequence[Folders], *, signers_wanted: bool = False) -> Layout | None:
    """Find out by the names which level of folders is what.

    Outer levels of one name, and folders within a folder of their own name, mean nothing; names of
    splits, also inside longer names, make a split. Of the levels below, one that numbers people
    (``hand1``) holds the signers, one that numbers parts (``session2``) means nothing, an alphabet
    is the classes, and a single level that is left is the classes too. Whatever allows another
    reading is refused.

    Args:
        paths: Names of the folders of each image, in composed form.
        signers_wanted: Whether a level that nothing else is known of may be the signers.

    Returns:
        The layout; ``None`` where no image lies in a folder that could be a class.

    Raises:
        UnclearLayoutError: Several readings are possible; the message names them.
    """
    trees = sorted(set(paths))
    outer = _outer_levels(trees)
    below = [folders[len(outer) :] for folders in trees if len(folders) > len(outer)]
    if not below:
        return None
    depth = min(map(len, below))
    if depth == 1:
        _check_uneven(outer, [f[len(outer) :] for f in paths if len(f) > len(outer)])
        return Layout((*outer, "class"))
    inner = _inner_levels(outer, below, depth, signers_wanted)
    while inner[-1] == "*":
        inner.pop()
    return Layout((*outer, *inner))


def outer_levels(paths: Sequence[Folders]) -> tuple[str, ...]:
    """Return the levels above signers and classes, as :func:`infer_layout` finds them."""
    return tuple(_outer_levels(sorted(set(paths))))


def _outer_levels(trees: Sequence[Folders]) -> list[str]:
    """What stands above signers and classes: wrappers, splits, a single signer."""
    levels: list[str] = []
    while True:
        k = len(levels)
        here = [folders for folders in trees if len(folders) > k]
        names = {folders[k] for folders in here}
        deeper = [folders for folders in here if len(folders) > k + 1]
        if not names:
            return levels
        if "split" not in levels and _is_split_level(names, deeper, k):
            levels.append("split")
        elif k and len(names) > 1 and all(f[k] == f[k - 1] for f in here):
            levels.append("*")
        elif len(names) == 1 and len(deeper) == len(here):
            people = "signer" not in levels and _are_people(names)
            levels.append("signer" if people else "*")
        else:
            return levels


def _is_split_level(names: set[str], deeper: Sequence[Folders], k: int) -> bool:
    """Whether folders are splits by their names; a class may be called test.

    Raises:
        UnclearLayoutError: Some are and hold folders, others are not; or all are and hold none.
    """
    exact = {name for name in names if name.lower() in SPLITS}
    longer = {name for name in names if split_named(name) is not None}
    if not exact and len({_around_split(name) for name in longer}) > 1:
        longer = set()  # unlike each other but for that word: blood_test, dog-train
    if exact == {"dev"} and names != exact:
        exact = set()  # short for development, or a word
    splits = exact or longer
    several = len({split_named(name) for name in splits}) > 1
    if not splits or not (exact or several or len(names) == 1):
        return False
    holds_folders = {folders[k] for folders in deeper}
    if not splits & holds_folders:
        if several and splits == names:
            raise UnclearLayoutError(
                f"holds folders that are splits by their names ({some(sorted(names))}) and no "
                "class folders in them; if the file names tell the class say how, such as "
                "--layout 'split/{class}_*', and if these are the classes give --layout class."
            )
        return False
    others = sorted(names - splits)
    if others:
        raise UnclearLayoutError(
            f"holds the split folder {sorted(splits & holds_folders)[0]!r} beside images in "
            f"{others[0]!r}; keep either split folders (train, val, test) or class folders there, "
            "or say with --layout what each level is."
        )
    return True


def _around_split(name: str) -> str:
    return re.sub(r"[^\W\d_]+", lambda word: "" if word[0] in SPLITS else word[0], name.lower())


def _check_uneven(outer: Sequence[str], below: Sequence[Folders]) -> None:
    """Refuse to take folders for classes where most images lie deeper, or their names repeat."""
    deeper = [folders for folders in below if len(folders) > 1]
    if not deeper:
        return
    first = {folders[0] for folders in below}
    direct = {folders[0] for folders in below if len(folders) == 1}
    inside: dict[str, set[str]] = defaultdict(set)
    for folders in deeper:
        inside[folders[0]].add(folders[1])
    for name, children in sorted(inside.items()):
        if name not in direct and len(children) > 1 and children <= first - {name}:
            raise UnclearLayoutError(
                f"holds the folders {some(sorted(children))} twice, once beside and once in the "
                f"folder {name!r}, as archives do that hold everything twice; give that folder as "
                f"--images, or if it is a class too give --layout {_spelt(outer, ['class'])}."
            )
    second = set().union(*inside.values())
    repeated = sum(map(len, inside.values())) > len(second)
    if 2 * len(deeper) >= len(below) or repeated or _is_alphabet(second):
        raise _unclear(outer, [first, second], (0, 1), crossed=repeated)


def _inner_levels(
    outer: Sequence[str], below: Sequence[Folders], depth: int, signers_wanted: bool
) -> list[str]:
    """What the levels are that all images have and that hold several names."""
    names = [{folders[k] for folders in below} for k in range(depth)]
    roles = ["*"] * depth
    left = []
    for k in range(depth):
        repeats_parent = k > 0 and all(f[k] == f[k - 1] for f in below)
        if "split" not in (*outer, *roles) and all(n.lower() in SPLITS for n in names[k]):
            roles[k] = "split"
        elif len(names[k]) > 1 and not repeats_parent:
            left.append(k)
    if len(left) > 1:
        left = [k for k in left if not _are_parts(k, names[k], below)] or left
    people = [k for k in left if _are_people(names[k])]
    others = [k for k in left if k not in people]
    alphabets = [k for k in others if _is_alphabet(names[k])]
    if len(left) == 1:
        the_class = left[0]
    elif len(others) == 1 and (len(people) == 1 or not signers_wanted):
        the_class = others[0]
    elif len(alphabets) == 1:
        the_class = alphabets[0]
    else:
        raise _unclear(outer, names, _two(left, depth), _crossed(_two(left, depth), below))
    rest = [k for k in left if k != the_class]
    # People who share no class, above names that are no alphabet: both may be the classes.
    if people and people[0] < the_class and the_class not in alphabets:
        pair = people[0], the_class
        if not _crossed(pair, below):
            raise _unclear(outer, names, pair, crossed=False)
    roles[the_class] = "class"
    signers = [k for k in people if k != the_class]
    signers += [k for k in range(depth) if len(names[k]) == 1 and _are_people(names[k])]
    if not signers and signers_wanted and "signer" not in outer:
        signers = rest
    if len(signers) == 1 and "signer" not in outer:
        roles[signers[0]] = "signer"
    elif signers_wanted and len(signers) > 1:
        shown = [roles.copy() for _ in signers]
        for one, k in zip(shown, signers, strict=True):
            one[k] = "signer"
        spelt = [_spelt(outer, one) for one in shown]
        raise UnclearLayoutError(
            f"has {len(signers)} levels of folders that may be the signers; say which with "
            f"--layout {listed(spelt, 'or')}."
        )
    return roles


def _two(left: Sequence[int], depth: int) -> tuple[int, int]:
    """The two levels that a message shows of those that may be the classes."""
    return (left[0], left[1]) if len(left) > 1 else (0, min(1, depth - 1))


def _crossed(pair: tuple[int, int], below: Sequence[Folders]) -> bool:
    """Whether a name of the inner level stands under several of the outer."""
    first, second = pair
    above: dict[str, set[str]] = defaultdict(set)
    for folders in below:
        above[folders[second]].add(folders[first])
    return any(len(parents) > 1 for parents in above.values())


def _unclear(
    outer: Sequence[str],
    names: Sequence[Collection[str]],
    pair: tuple[int, int],
    crossed: bool,
) -> UnclearLayoutError:
    first, second = pair
    one, other = ["*"] * (second + 1), ["*"] * (second + 1)
    one[first], other[second] = "class", "class"
    if crossed:
        one[second], other[first] = "signer", "signer"
    shown = " and ".join(
        f"level {len(outer) + k + 1} of its folders ({some(sorted(names[k]), _NAMED)})"
        for k in pair
    )
    return UnclearLayoutError(
        f"can be read in two ways, since {shown} may both be the classes; give --layout "
        f"{_spelt(outer, one)} or --layout {_spelt(outer, other)} (* is a level that means "
        "nothing)."
    )


def _spelt(outer: Sequence[str], inner: Sequence[str]) -> str:
    levels = [*outer, *inner]
    while levels[-1] == "*":
        levels.pop()
    text = "/".join(levels)
    return f"'{text}'" if "*" in text else text


def _are_people(names: Iterable[str]) -> bool:
    return all(_PERSON.fullmatch(name) for name in names)


def _are_parts(k: int, names: Collection[str], below: Sequence[Folders]) -> bool:
    """Whether folders number parts of what is above them, or repeat its name with a number."""
    if all(_PART.fullmatch(name) for name in names):
        return True
    return k > 0 and all(
        re.fullmatch(rf"{re.escape(f[k - 1])}[ _-]*\d+([ _-]+\d+)*", f[k]) for f in below
    )


def _are_short(names: Iterable[str]) -> bool:
    """Whether all are single letters or digits, or what stands beside them."""
    return all(
        (len(name) == 1 and name.isalnum()) or name.lower() in _BESIDE_LETTERS for name in names
    )


def _is_alphabet(names: Collection[str]) -> bool:
    letters = {name.lower() for name in names if len(name) == 1 and name.isalpha()}
    return len(letters) >= _ALPHABET and _are_short(names)


def layout_in_words(layout: Layout, found: dict[str, Collection[str]], rest: str = "") -> str:
    """Say in one line what was read where, with the first names of each.

    Args:
        layout: The layout.
        found: Names by role: ``class``, ``signer``, ``split``.
        rest: What else there is to say.
    """
    nouns = {"class": ("class", "classes"), "signer": ("signer", None), "split": ("split", None)}
    said = [
        f"{counted(len(found[role]), *noun)} ({layout.where(role)}: "
        f"{some(sorted(found[role]), _NAMED)})"
        for role, noun in nouns.items()
        if role in layout.roles
    ]
    return f"{layout}: {', '.join(said)}{rest}"


def differing_in_case(names: Iterable[str]) -> list[str]:
    """Return names that differ from another in case alone, as ``O and o``."""
    same: dict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        same[name.casefold()].append(name)
    return [listed(group) for group in same.values() if len(group) > 1]


def class_in_file_name(name: str, classes: Collection[str]) -> str | None:
    """Return the class that a file's name begins with, as ``D_test.jpg`` and ``D12.jpg`` do.

    Args:
        name: The file's name.
        classes: Names of the classes.
    """
    stem = composed(PurePosixPath(name).stem)
    fitting = [c for c in classes if re.match(rf"{re.escape(c)}(?![^\W\d_])", stem)]
    return max(fitting, key=len, default=None)
