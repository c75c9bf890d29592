"""The built wheel, installed where no source tree is near."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command, cwd):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of the tracked and untracked source files, built outside the work tree."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    files = run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).splitlines()
    for name in files:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    run(
        sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w",
        str(folder), str(source), cwd=folder,
    )  # fmt: skip
    return next(folder.glob("signbridge-*.whl"))


def test_the_wheel_holds_code_and_assets_alone(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "signbridge/assets/sample/sheet.png" in names
    assert "signbridge/assets/sample/README.txt" in names
    assert any(name.startswith("signbridge/report/templates/") for name in names)
    assert "signbridge/py.typed" in names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"signbridge"}
    assert wheel.stat().st_size < 10_000_000


@pytest.mark.slow
def test_the_installed_wheel_extracts_and_probes(wheel, tmp_path):
    """Installed into a folder of its own, so that neither checkout nor editable install helps."""
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:  # all that pip does with a wheel of plain Python
        archive.extractall(site)
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "import signbridge; print(signbridge.__file__)\n"
        "from signbridge.cli.main import main\n"
        "options = ['--classes', '3', '--per_class', '6', '--quantization', 'none']\n"
        "status = main(['extract', *options, '--layers', '[1,6]', '--output', 'a.h5'])\n"
        "from signbridge.report import html\n"
        "from signbridge.results.results import load_results\n"
        "from signbridge.probes import train_probes\n"
        "folder = train_probes('a.h5', 'results', folds=2, bootstrap=20, permutations=0)\n"
        "print(load_results(folder).path)\n"
        "sys.exit(status)"
    )
    said = run(sys.executable, "-I", "-c", code, cwd=tmp_path)
    assert said.splitlines()[0].startswith(str(site))
    assert (tmp_path / "a.h5").is_file()
    assert (tmp_path / "results" / "scores.csv").is_file()
