"""A torchvision of another build of torch, as many have installed, raises when it is imported."""

import os
import subprocess
import sys

import pytest

SAYS = "operator torchvision::nms does not exist"
LOOKS = """
import signbridge, sys
assert "torch" not in sys.modules  # nothing is tried before it is needed
import lightning
from signbridge.runtime import torchvision
print(torchvision.fault)
"""
USER = """
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
assert find_spec("torchvision") is None
try:
    version("torchvision")
except PackageNotFoundError:
    print("none is there")
try:
    import torchvision
except ImportError:
    print("none is imported")
"""


@pytest.fixture
def environment(tmp_path):
    """Of a process that finds such a torchvision."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("from . import ops\n")
    (package / "ops.py").write_text(f"raise RuntimeError('{SAYS}')\n")
    described = tmp_path / "torchvision-0.29.1.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: torchvision\nVersion: 0.29.1\n"
    )
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def said(code, environment, *arguments, **options):
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("fits", [False, True])
def test_it_is_hidden_from_those_who_would_import_it(environment, tmp_path, fits):
    (tmp_path / "lightning.py").write_text("import torchvision" if fits else USER)
    if fits:
        (tmp_path / "torchvision" / "ops.py").write_text("")
    lines = said(LOOKS, environment).splitlines()
    if fits:
        assert lines == ["None"]
    else:
        assert lines[:2] == ["none is there", "none is imported"]
        assert lines[2].startswith("torchvision 0.29.1 does not load beside torch ")
        assert SAYS in lines[2]


def test_one_without_a_version_is_hidden_too(environment, tmp_path):
    (tmp_path / "torchvision-0.29.1.dist-info" / "METADATA").unlink()
    (tmp_path / "torchvision-0.29.1.dist-info").rmdir()
    (tmp_path / "lightning.py").write_text(USER)
    assert "torchvision does not load beside torch" in said(LOOKS, environment)


@pytest.mark.slow
def test_stills_are_extracted_beside_it(environment, tmp_path):
    run = "import sys; from signbridge.cli.main import main; sys.exit(main(sys.argv[1:]))"
    options = ["--classes", "2", "--per_class", "2", "--layers", "[0]", "--output", "a.h5"]
    said(run, environment, "extract", *options, cwd=tmp_path)
    assert (tmp_path / "a.h5").is_file()
