"""Numbers that no benchmark can use are one sentence, whichever script and option."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
NUMBER = re.compile(r'add_argument\("(--\w+)", type=(?:count|above_zero)')
OPTIONS = [
    (path.name, option)
    for path in sorted(FOLDER.glob("*.py"))
    for option in NUMBER.findall(path.read_text())
]


def test_every_number_is_checked():
    assert {"--samples", "--repeats"} <= {option for _, option in OPTIONS}
    for path in FOLDER.glob("*.py"):
        assert not re.search(r"type=(int|float)\b", path.read_text()), path


@pytest.fixture(scope="module")
def told():
    """What each script says, all of one script in one process."""
    code = (
        "import contextlib, io, runpy, sys\n"
        "script, *options = sys.argv[1:]\n"
        "sys.path.insert(0, script.rpartition('/')[0])\n"
        "for option in options:\n"
        "    for value in ('0', '-3', 'x'):\n"
        "        sys.argv = [script, f'{option}={value}']\n"
        "        err = io.StringIO()\n"
        "        try:\n"
        "            with contextlib.redirect_stderr(err):\n"
        "                runpy.run_path(script, run_name='__main__')\n"
        "        except SystemExit as ended:\n"
        "            print(option, value, ended.code, err.getvalue().splitlines()[-1], sep='|')\n"
    )
    lines = {}
    for script in dict(OPTIONS):
        options = [option for name, option in OPTIONS if name == script]
        command = [sys.executable, "-c", code, str(FOLDER / script), *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        lines[script] = [line.split("|") for line in done.stdout.splitlines()]
    return lines


@pytest.mark.slow
def test_what_cannot_be_counted_is_one_sentence(told):
    for script, options in told.items():
        assert len(options) == 3 * sum(name == script for name, _ in OPTIONS)
        for option, value, status, said in options:
            assert status == "2"
            assert f"argument {option}: {value!r} is no " in said
            assert said.endswith(("whole number of 1 or more", "number above 0"))
