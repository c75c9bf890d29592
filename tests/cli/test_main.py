import contextlib
import errno
import inspect
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import h5py
import pytest
import yaml
from PIL import Image

from signbridge import open_store
from signbridge.cli import commands, config_file
from signbridge.cli.main import main
from signbridge.extraction.extract import extract_activations
from signbridge.model.prompts import DEFAULT_PROMPT
from signbridge.probes import train_probes

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))

CODES = ("ENOSPC", "EDQUOT", "EFBIG", "EIO", "EROFS", "ESTALE", "EACCES", "EMFILE", "ETIMEDOUT")


def python(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, timeout=120
    )


HELP = [
    ("", "train_probes"),
    ("run", "--folds"),
    ("extract", "--per_class"),
    ("train_probes", "--solver"),
]


@pytest.mark.parametrize(("command", "shown"), HELP)
def test_help_and_import_load_nothing_heavy(command, shown):
    heavy = "{'torch', 'lightning', 'transformers', 'h5py', 'matplotlib', 'PIL', 'numpy'}"
    code = (
        "import sys, signbridge\nfrom signbridge.cli.main import main\n"
        f"try: main([*{command.split()}, '--help'])\nexcept SystemExit: pass\n"
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert shown in done.stdout


@pytest.mark.parametrize("command", ["run", "extract", "train_probes"])
def test_an_option_is_written_once(command):
    """Every option of the command is a field of its dataclass; the functions name none."""
    config = commands.CONFIGS[command]
    shown = yaml.safe_load(_printed([command, "--print_config"]))
    defaults = {one.name: one.default for one in fields(config)}
    assert shown == defaults
    for function in (commands.COMMANDS[command], train_probes):
        kinds = {one.kind for one in inspect.signature(function).parameters.values()}
        assert kinds <= {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
    named = set(inspect.signature(extract_activations).parameters)
    assert named & set(defaults) <= {"images", "output"}


def test_the_help_of_run_begins_with_what_one_looks_for():
    shown = re.findall(r"^  --(\w+)", _printed(["run", "--help"]), re.MULTILINE)
    wanted = ["images", "model", "results", "folds", "output", "layers", "batch_size", "strategy"]
    assert [name for name in shown if name in wanted] == wanted


def _printed(arguments):
    with contextlib.redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit):
        main(arguments)
    return out.getvalue()


@pytest.mark.parametrize("config", commands.CONFIGS.values())
def test_every_option_has_its_help_once(config):
    """A class says what its own fields are, or, as run does, what is other about inherited ones."""
    for one in config.__mro__[:-1]:
        own = set(one.__annotations__) - {"_"}
        section = inspect.cleandoc(one.__doc__).partition("Args:")[2].partition("Raises:")[0]
        said = re.findall(r"^ {4}(\w+):", section, re.MULTILINE)
        assert len(said) == len(set(said))
        assert own <= set(said)
        assert set(said) - own <= ({"seed", "overwrite"} if one is commands.RunConfig else set())


def test_verify_and_info(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["--quantization", "none", "--per_class", "2", "--layers", "[3]"]
    assert main(["extract", *arguments, "--output", "a.h5"]) == 0
    assert main(["verify", "a.h5"]) == 0
    assert main(["info", "a.h5"]) == 0
    assert "resid_post" in capsys.readouterr().out
    with h5py.File("a.h5", "r+") as file:
        file["resid_post"][7, 0, 5] += 1
    assert main(["verify", "a.h5"]) == 1
    assert "resid_post" in capsys.readouterr().out
    assert main(["extract", *arguments[:-1], "[5]", "--output", "b.h5"]) == 0
    assert main(["extract", *arguments, "--output", "a.h5", "--overwrite", "true"]) == 0
    assert main(["merge", "a.h5", "b.h5", "-o", "c.h5"]) == 0
    with open_store("c.h5") as store:
        assert store.layers == (3, 5)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("signbridge 0.")


@pytest.mark.parametrize("script", ["extract.py", "train_probes.py"])
def test_the_scripts_show_their_commands_help(script):
    done = python(str(ROOT / script), "--help")
    assert done.returncode == 0
    assert script in done.stdout
    assert "--config" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["extract", "--images", "no/such/place"], "no/such/place"),
        (["extract", "--model", "./no-model"], "./no-model"),
        (["extract", "--layers", "[40]"], "Layer 40"),
        (["extract", "--classes", "0"], "classes"),
        (["extract", "--position", "last_generated"], "max_new_tokens"),
        (["train_probes", "--store", "no-store.h5"], "no-store.h5"),
        (["train_probes", "--store", str(ROOT / "setup.cfg")], "setup.cfg"),
        (["report", "no-results"], "no-results"),
        (["info", "no-store.h5"], "no-store.h5"),
    ],
)
def test_wrong_input_is_one_sentence_and_status_2(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert lines[-1].startswith("error: ")
    assert said in lines[-1]
    assert "Traceback" not in "\n".join(lines)
    assert os.listdir(tmp_path) == []


def test_a_traceback_never_reaches_the_user_of_the_script(tmp_path):
    done = python(str(ROOT / "extract.py"), "--images", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")


WRONG = [
    "extract --images no/such/place",
    "extract --model ./no-model",
    "extract --model no-model",
    "extract --output /",
    "extract --output=",
    "extract --batch_size 0",
    "extract --layers [1,1]",
    "extract --layers []",
    "extract --prompt hello",
    "extract --position last_generated",
    "extract --classes 1",
    "extract --groups no-groups.csv",
    "train_probes --store no-store.h5",
    "train_probes --store {setup}",
    "train_probes --output=",
    "train_probes --output {setup}",
    "train_probes --layers [1,1]",
    "train_probes --C 0",
    "run --images no/such/place",
    "run --results {setup}",
    "run --folds 0",
    "report no-results",
    "info no-store.h5",
    "verify no-store.h5",
    "merge a.h5 b.h5 -o c.h5",
    "merge -o c.h5 a.h5 b.h5",
]

ONE_BY_ONE = """
import contextlib, io, json, sys
sys.modules |= dict.fromkeys(("torch", "transformers", "lightning"))  # importing them raises
from signbridge.cli.main import main
told = []
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as err:
        told.append((main(arguments.split()), err.getvalue()))
print(json.dumps(told))
"""


def test_what_is_wrong_is_said_before_anything_heavy_is_loaded(tmp_path):
    """Loading torch and transformers takes seconds; none of these needs them."""
    cases = [arguments.format(setup=ROOT / "setup.cfg") for arguments in WRONG]
    done = python("-c", ONE_BY_ONE, json.dumps(cases), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for arguments, (status, err) in zip(cases, json.loads(done.stdout)):
        assert status == 2, arguments
        assert err.startswith("error: "), arguments
        assert err.count("\n") == 1, err
    assert os.listdir(tmp_path) == []


def test_a_closed_pipe_is_no_error(tmp_path):
    command = f"{sys.executable} -m signbridge extract --help | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux alone has a disk that is full")
def test_a_full_disk_under_a_command_is_one_sentence(tmp_path):
    code = "import os\nfrom signbridge.cli import commands, main\n"
    code += "def full(store: str): os.write(os.open('/dev/full', os.O_WRONLY), b'x')\n"
    code += "commands.COMMANDS['info'] = full\nraise SystemExit(main.main(['info', 'a.h5']))"
    done = python("-c", code, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="another system has another limit")
@pytest.mark.parametrize(
    "command",
    [
        ["extract", "--output", "a.h5"],
        ["extract"],
        ["run"],
        ["run", "--output", "new/a.h5", "--results", "new/r"],
    ],
)
def test_no_file_may_be_written_is_said_first(tmp_path, monkeypatch, capsys, command):
    """As under ``ulimit -f 0``."""
    import resource

    monkeypatch.chdir(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        assert main(command) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert "File too large" in said.err
    assert said.err.count("\n") == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("command", ["extract", "run"])
def test_an_output_that_is_not_ours_is_refused_before_anything_is_read(
    tmp_path, monkeypatch, capsys, command
):
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("mine")
    arguments = ["--images", "nowhere", "--output", "notes.txt", "--overwrite", "true"]
    assert main([command, *arguments]) == 2
    assert "notes.txt is not an activation store" in capsys.readouterr().err
    assert Path("notes.txt").read_text() == "mine"


def test_results_that_could_not_be_written_are_refused_before_the_extraction(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("paper").mkdir()
    Path("paper/scores.csv").write_text("mine")
    assert main(["run", "--images", "nowhere", "--results", "paper", "--overwrite", "true"]) == 2
    assert "paper holds files that are not results" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["paper"]


@pytest.mark.parametrize(
    "error",
    [
        *(OSError(getattr(errno, name), os.strerror(getattr(errno, name))) for name in CODES),
        OSError(errno.EIO, "Input/output error", "results/scores.csv"),
        OSError("Can't write data (file write failed: errno = 27, error message = 'too large')"),
        RuntimeError("Unable to flush the file (errno = 5, error message = 'I/O error')"),
    ],
    ids=str,
)
def test_what_the_system_refuses_under_a_command_is_one_sentence(monkeypatch, capsys, error):
    from signbridge.cli import commands

    def refused(store: str):
        raise error

    monkeypatch.setitem(commands.COMMANDS, "info", refused)
    assert main(["info", "a.h5"]) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"error: .*: (free|raise|choose|change|bring|check)[^\n]*\.\n", said)


def test_what_is_wrong_in_us_is_no_sentence_of_the_system(monkeypatch):
    from signbridge.cli import commands

    def wrong(store: str):
        raise RuntimeError("a fault")

    monkeypatch.setitem(commands.COMMANDS, "info", wrong)
    with pytest.raises(RuntimeError, match="a fault"):
        main(["info", "a.h5"])


def test_a_current_folder_that_is_gone_is_one_sentence(tmp_path):
    command = f"mkdir gone && cd gone && rmdir ../gone && {sys.executable} -m signbridge info a.h5"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: The current folder is there no longer")
    assert done.stderr.count("\n") == 1


def test_two_folders_of_one_name_are_told_apart(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for shade, parent in enumerate(("one", "two")):
        for label in ("a", "b"):
            folder = tmp_path / parent / "images" / label
            folder.mkdir(parents=True)
            for number in range(2):
                colour = 10 * shade + 100 * number + (50 if label == "a" else 0)
                Image.new("RGB", (8, 8), (colour, 0, 0)).save(folder / f"{number}.png")
    options = ["--quantization", "none", "--layers", "[0]"]
    assert main(["extract", "--images", "one/images", *options]) == 0
    said = capsys.readouterr().err
    assert "4 images of 2 classes, 1 decoder layer of width 128: about " in said
    assert " kB to activations/tiny-images.h5 (" in said
    assert main(["extract", "--images", "two/images", *options]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "was made from other images, though they too are called 'images' (" in said
    assert said.endswith(": give another output file (--output), or --overwrite true.")


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("command", ["run", "extract", "train_probes"])
def test_every_config_is_accepted_by_every_command(config, command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--config", str(config), "--print_config"])
    assert ended.value.code == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    content = yaml.safe_load(config.read_text())
    wanted = {
        "run": content["extract"] | content["train_probes"],
        "extract": content["extract"],
        "train_probes": content["train_probes"],
    }[command]
    assert {key: shown[key] for key in wanted} == wanted


def test_the_original_study_is_what_was_published(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--config", str(ROOT / "configs/original-study.yaml"), "--print_config"])
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["prompt"] == DEFAULT_PROMPT
    assert shown["layers"] == [8, 16, 24, 31]
    assert (shown["classes"], shown["per_class"], shown["seed"]) == (20, 15, 42)
    assert (shown["split"], shown["folds"], shown["C"]) == ("random", 1, 1.0)
    assert shown["position"] == "last_generated"
    assert shown["max_new_tokens"] == 20
    assert shown["compute_dtype"] == "float16"
    assert shown["model"] == "llava-hf/llava-1.5-7b-hf"


def test_options_after_a_config_win(capsys):
    with pytest.raises(SystemExit):
        main(
            [
                "run",
                "--config",
                str(ROOT / "configs/original-study.yaml"),
                "--per_class=3",
                "--print_config",
            ]
        )
    assert yaml.safe_load(capsys.readouterr().out)["per_class"] == 3


@pytest.mark.parametrize("content", ["seed: 3\n", "extract: {seed: 3}\n"])
def test_a_config_is_read_once(tmp_path, monkeypatch, content):
    """What is checked is what is used: the parser does not open the file again."""
    config = tmp_path / "config.yaml"
    config.write_text(content)
    read = config_file.read_settings

    def read_and_remove(file):
        settings = read(file)
        Path(file).unlink()
        return settings

    monkeypatch.setattr(config_file, "read_settings", read_and_remove)
    shown = yaml.safe_load(_printed(["extract", "--config", str(config), "--print_config"]))
    assert shown["seed"] == 3


def test_sections_that_disagree_are_refused_by_run_alone(tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text("extract: {batch_size: 4}\ntrain_probes: {batch_size: 256}\n")
    assert main(["run", "--config", str(config)]) == 2
    assert "batch_size" in capsys.readouterr().err
    shown = yaml.safe_load(_printed(["extract", "--config", str(config), "--print_config"]))
    assert shown["batch_size"] == 4


@pytest.mark.parametrize("option", [["--folds", "0"], ["--C", "0"], ["--results", "afile"]])
def test_run_refuses_probe_options_before_it_extracts(tmp_path, monkeypatch, capsys, option):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "afile").touch()
    monkeypatch.setattr(commands, "_extract", lambda **_: pytest.fail("extracted first"))
    assert main(["run", *option]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.slow
def test_a_notebooks_environment_and_a_narrow_encoding_do_no_harm(tmp_path):
    odd = {"MPLBACKEND": "module://no.such.backend", "PYTHONIOENCODING": "latin-1"}
    # four images: so few get a map without UMAP, which compiles for seconds
    options = ["--classes", "2", "--per_class", "2", "--quantization", "none", "--folds", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "signbridge", "run", *options, "--layers", "[3]"],
        cwd=tmp_path,
        env=os.environ | odd,
        capture_output=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results" / "tiny-sample" / "report.html").is_file()
