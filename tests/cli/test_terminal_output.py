"""Nothing that a data set, a path or an answer says can steer the terminal, whatever prints it."""

import unicodedata

import h5py
import numpy as np
import pytest
from fixtures.hostile import reseal
from fixtures.results import build_results
from PIL import Image

from signbridge.cli import commands
from signbridge.cli.main import main
from signbridge.store import SampleTable, StoreSpec, StoreWriter

# An escape code, a bell, C1's short escape, a bidirectional override, a line of its own, markup.
EVIL = ("\x1b[31mred\x1b]0;title\x07", "b\x9b2Jb\x85\u2028", "c\u202ed\nerror: e", "[red]f")
PLAIN = (r"\x1b[31mred", r"b\x9b2Jb\x85\u2028", r"c\u202ed\nerror: e", "[red]f")


def steering(text):
    """The characters of a command's output that a terminal would not just show."""
    return {
        char
        for char in text.replace("\n", "")
        if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    }


@pytest.fixture
def says(capsys):
    """Run a command; what it printed, once that is known to be harmless."""

    def run(*arguments, status=0):
        assert main([str(argument) for argument in arguments]) == status
        out, err = capsys.readouterr()
        assert steering(out + err) == set()
        assert not any(line.startswith("error: e") for line in (out + err).splitlines())
        return out + err

    return run


def write_tree(root):
    generator = np.random.default_rng(0)
    for name in EVIL:
        for number in range(6):
            path = root / name / f"{number}\x1b[1m.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            values = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(values).save(path)
    (root / EVIL[0] / "damaged\x9b.png").write_bytes(b"none")
    (root / EVIL[0] / "other\u202e.txt").write_text("none")
    return root


def write_store(path, layers=(0,)):
    count = 24
    spec = StoreSpec(layers, 4, responses=True)
    samples = SampleTable(
        [f"{EVIL[0]}/{i}" for i in range(count)],
        np.arange(count) % len(EVIL),
        EVIL,
        np.arange(count),
        [""] * count,
        ["0" * 64] * count,
    )
    provenance = {"model": EVIL[1], "prompt": EVIL[2]}
    with StoreWriter(path, spec, samples, provenance) as writer:
        rows = {"resid_post": np.ones((count, len(layers), 4)), "response": list(EVIL) * 6}
        writer.write_shard(0, rows)
        writer.consolidate()
    return path


def test_a_tree_of_images(tmp_path, monkeypatch, says):
    monkeypatch.chdir(tmp_path)
    tree = write_tree(tmp_path / f"tree{EVIL[0]}")
    said = says("extract", "--images", tree, "--layers", "[3]", "--quantization", "none")
    assert r"damaged\x9b.png" in said
    assert r"other\u202e.txt" in said
    store = tmp_path / "activations" / f"tiny-{tree.name}.h5"
    said = "".join(says("info", store).split())
    assert all(name.replace(" ", "") in said for name in PLAIN)
    monkeypatch.setattr(commands, "report", lambda results, *others: results)  # see below
    fast = ("--permutations", "0", "--control_task", "false", "--layers", "[3]")
    says("train_probes", "--store", store, "--folds", "2", *fast)


def test_stores(tmp_path, says):
    first = write_store(tmp_path / f"a{EVIL[0]}.h5")
    second = write_store(tmp_path / f"b{EVIL[1]}.h5", layers=(1,))
    said = says("info", first).replace("\n", "")
    assert PLAIN[0] in said
    says("verify", first)
    says("merge", first, second, "-o", tmp_path / f"c{EVIL[2]}.h5")
    with h5py.File(first, "r+") as file:
        file["class_name"][0] = EVIL[2]
    with h5py.File(second, "r+") as file:
        file["extra\x1b[1m"] = [1]
    assert "class_name" in says("verify", first, status=1)
    assert r"extra\x1b[1m" in says("verify", second, status=1)


@pytest.mark.slow
def test_results(tmp_path, says):
    folders = [
        build_results(tmp_path / name, class_names=EVIL, store_path=f"{name}.h5", seed=seed)
        for seed, name in enumerate(EVIL[:2])
    ]
    says("report", folders[0], "--umap", "none")
    says("compare", *folders, "-o", tmp_path / EVIL[2])


@pytest.mark.parametrize(
    "arguments",
    [
        *[(command, EVIL[0]) for command in ("info", "verify", "report")],
        ("merge", *EVIL[:2], "-o", "c.h5"),
        ("compare", *EVIL[:2]),
        ("train_probes", "--store", EVIL[0]),
        ("extract", "--images", EVIL[0]),
        ("extract", "--model", EVIL[0]),
        ("extract", "--layers", EVIL[1]),
        ("extract", f"--{EVIL[1]}", "1"),
        ("extract", "--config", EVIL[0]),
        ("extract", "--classes", '["\\u001b[31mred", "\\u202e"]'),
        ("demo", "--probes", EVIL[0]),
        (EVIL[0],),
    ],
)
def test_errors(arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    says(*arguments, status=2)


def test_warnings(tmp_path, says):
    """A store of a newer minor version is read with a warning that names it."""
    path = write_store(tmp_path / f"{EVIL[0]}.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = "1.7"
    reseal(path)
    assert r"title\x07.h5 has format version 1.7, newer" in says("info", path)
