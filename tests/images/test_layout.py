"""Which level of folders is what: got back from trees of a known layout, or refused."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from signbridge.images.layout import (
    Layout,
    UnclearLayoutError,
    class_in_file_name,
    differing_in_case,
    infer_layout,
    split_named,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"
DIGITS = "0123456789"
HANDS = [f"hand{number}" for number in range(1, 6)]
WORDS, NAMES = ["bye", "hello", "thanks"], ["ada", "ben"]
SPLIT = ["train", "test"]
KAGGLE = ["asl_alphabet_train", "asl_alphabet_test"]
SESSIONS = ["session1", "session_02"]


def tree(*levels):
    return list(product(*levels))


@pytest.mark.parametrize(
    ("paths", "layout"),
    [
        (tree(WORDS), "class"),
        (tree(HANDS), "class"),  # handshapes: nothing else could be the classes
        (tree(SESSIONS), "class"),
        (tree(SPLIT, WORDS), "split/class"),
        (tree(["Train"], WORDS), "split/class"),
        (tree(KAGGLE, LETTERS), "split/class"),
        ([(x, x, c) for x, c in product(KAGGLE, LETTERS)], "split/*/class"),
        ([(KAGGLE[0],) * 2 + (c,) for c in LETTERS] + [(KAGGLE[1],) * 2], "split/*/class"),
        (tree(["archive"], SPLIT, WORDS), "*/split/class"),
        (tree(["asl_dataset"], ["asl_dataset"], LETTERS), "*/*/class"),
        (tree(WORDS, SPLIT), "class/split"),
        (tree(WORDS, ["images"]), "class"),
        (tree(["images"], WORDS), "*/class"),
        (tree(HANDS, LETTERS + DIGITS), "signer/class"),
        (tree(LETTERS + DIGITS, HANDS), "class/signer"),
        (tree(HANDS, DIGITS), "signer/class"),
        (tree(DIGITS, HANDS), "class/signer"),
        (tree(WORDS, ["P01", "P02", "P12"]), "class/signer"),
        (tree(["User 3", "Subject-4"], WORDS), "signer/class"),
        (tree(["hand1"], LETTERS), "signer/class"),
        (tree(SPLIT, HANDS, LETTERS), "split/signer/class"),
        (tree(HANDS, SPLIT, WORDS), "signer/split/class"),
        (tree(HANDS, SESSIONS, WORDS), "signer/*/class"),
        (tree(SESSIONS, HANDS, WORDS), "*/signer/class"),
        (tree(WORDS, SESSIONS), "class"),
        (tree(HANDS, SESSIONS), "class"),
        (tree(SESSIONS, WORDS), "*/class"),
        ([(w, f"{w}_{k}") for w in WORDS for k in range(3)], "class"),
        (tree("ABCDE", LETTERS), "*/class"),  # Pugeault & Bowden: signers A to E
        (tree(LETTERS, NAMES), "class"),
        (tree([*LETTERS, "space", "del", "nothing"], NAMES), "class"),
        ([("a", "deep", "er"), ("a",), ("b",), ("c",)], "class"),
    ],
)
def test_layouts_that_the_names_tell(paths, layout):
    found = infer_layout(paths)
    assert str(found) == layout
    assert Layout.parse(layout) == found


@pytest.mark.parametrize(
    ("paths", "layout"),
    [
        (tree("ABCDE", LETTERS), "signer/class"),
        (tree(LETTERS, NAMES), "class/signer"),
        (tree(SPLIT, NAMES, LETTERS), "split/signer/class"),
        (tree(LETTERS, HANDS), "class/signer"),
    ],
)
def test_signers_that_are_asked_for_are_the_level_beside_an_alphabet(paths, layout):
    assert str(infer_layout(paths, signers_wanted=True)) == layout


EITHER = "give --layout class/signer or --layout signer/class"


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (tree(NAMES, WORDS), EITHER),
        (tree(WORDS, [str(number) for number in range(1, 13)]), EITHER),
        (tree(WORDS, "ABC"), EITHER),
        (tree("AB", DIGITS), EITHER),
        (tree(HANDS, HANDS), EITHER),
        (tree(SPLIT, NAMES, WORDS), "--layout split/class/signer or --layout split/signer/class"),
        (tree(["x"], NAMES, WORDS), r"--layout '\*/class/signer' or --layout '\*/signer/class'"),
        ([("animals", "cat"), ("plants", "oak")], r"--layout class or --layout '\*/class'"),
        ([("hand1", "bye"), ("hand2", "hello")], r"--layout class or --layout '\*/class'"),
        ([*tree(HANDS, LETTERS), ("hand1",)], EITHER),  # one image beside the class folders
        ([*tree(["x"], "ab"), ("y",)], r"give --layout class or --layout '\*/class'"),
        (tree(["blood_test", "eye_test"], "pq"), EITHER),
        ([*tree("def"), *tree(["all"], "def")], "the folders d, e, f twice, .* folder 'all'"),
        ([*tree(SPLIT), *tree(SPLIT)], "no class folders in them; .* 'split/{class}_\\*'"),
        (tree(KAGGLE), "no class folders in them"),
        ([("train", "a"), ("b",)], "split folder 'train' beside images in 'b'"),
        ([("x_train", "a"), ("x_test", "a"), ("b", "a")], "split folder 'x_test' beside images"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused_with_both(paths, words):
    with pytest.raises(UnclearLayoutError, match=words):
        infer_layout(paths)


def test_images_without_folders_have_no_layout():
    assert infer_layout([()]) is None
    assert infer_layout([]) is None


pools = {
    "split": [SPLIT, KAGGLE, ["Training", "Validation", "Testing"]],
    "signer": [HANDS, ["P01", "P02"], NAMES, list("ABC"), ["hand1"]],
    "class": [list(LETTERS), list(DIGITS), WORDS, list("ab"), ["sign1", "sign2"], HANDS],
    "*": [SESSIONS, ["images"], ["left", "right"], ["1", "2", "3"]],
}
LAYOUTS = """class split/class class/signer signer/class split/signer/class split/class/signer
    */class class/* signer/*/class split/*/class */signer/class class/signer/* */split/class"""


@given(layout=st.sampled_from(LAYOUTS.split()), data=st.data(), wanted=st.booleans())
@settings(max_examples=300, deadline=None)
def test_a_tree_of_any_layout_is_read_right_or_refused(layout, data, wanted):
    """Nothing but the classes may be taken for the classes, unless its names are those of classes.

    Every second path may be missing, as people have not signed everything.
    """
    roles = layout.split("/")
    names = [data.draw(st.sampled_from(pools[role])) for role in roles]
    true = roles.index("class")
    # What no names could tell: hands that are classes beside sessions that are words, and such.
    assume(not (names[true] is HANDS and len(roles) > 1))
    assume(not any(role == "*" and names[k] == HANDS for k, role in enumerate(roles)))
    paths = tree(*names)
    some = data.draw(st.lists(st.sampled_from(paths), unique=True))
    for present in (paths, some):
        try:
            found = infer_layout(present, signers_wanted=wanted)
        except UnclearLayoutError:
            continue
        if found is None or len({path[true] for path in present}) < 2:
            continue
        assert found.levels.index("class") == true, f"{found} of {present}"
        if "signer" in found.levels and "signer" in roles:
            assert found.levels.index("signer") == roles.index("signer")


@pytest.mark.parametrize(
    ("layout", "path", "fields"),
    [
        ("hand{signer}_{class}_*", "hand3_q_bot_seg_1_cropped.jpeg", {"signer": "3", "class": "q"}),
        ("split/class", "Testing/a/1.png", {"split": "test", "class": "a"}),
        ("class/{signer}_*.png", "a/Jo_1.png", {"class": "a", "signer": "Jo"}),
        ("{split}-{class}", "x/train-y.png", {"split": "train", "class": "y"}),
        ("class/x_{class}", "a/x_a.png", {"class": "a"}),
        ("class/x_{class}", "a/x_b.png", "names two of one class, a and b"),
        ("split/class", "fold1/a/1.png", "names no split (train, val or test) where "),
        ("{class}.{signer}", "a.b.png", {"class": "a", "signer": "b"}),
        ("signer/class", "ada/1.png", {"signer": "ada"}),
        ("sign_{class}/*.png", "sign_e\u0301/1.png", {"class": "\u00e9"}),
        ("sign_{class}/*.png", "other/1.png", "is not named as sign_{class} says"),
    ],
)
def test_what_a_layout_reads(layout, path, fields):
    found = Layout.parse(layout).fields(tuple(path.split("/")))
    assert found == fields or (isinstance(fields, str) and str(found).startswith(fields))


def test_names():
    assert [split_named(x) for x in ("ASL-test_2", "contest", "train_test", "VALID")] == [
        "test",
        None,
        None,
        "val",
    ]
    assert [class_in_file_name(x, ["A", "del", "de"]) for x in ("A1.x", "Al.x", "del_test.x")] == [
        "A",
        None,
        "del",
    ]
    assert differing_in_case(["o", "O", "x", "Anna", "anna", "O"]) == ["Anna and anna", "O and o"]
