import os
from dataclasses import fields

import pytest
import yaml

from signbridge.cli.commands import COMMANDS, CONFIGS
from signbridge.cli.main import main
from signbridge.cli.usage import allowed, nearest, options_of
from signbridge.errors import SignBridgeError
from signbridge.extraction.config import CaptureConfig


def said(capsys, *arguments):
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err.removeprefix("error: ").rstrip("\n")


LISTED = "'signbridge extract --help' lists them"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("extract --layers 9", "--layers is '9': give 'all' or a list of whole numbers"),
        ("extract --layers [1,a]", "--layers is [1, 'a']: give 'all' or a list of whole numbers"),
        ("extract --classes A", "--classes is 'A': give a whole number or a list of names such as"),
        ("extract --seed=", "--seed is '': give a whole number."),
        ("extract --seed null", "--seed is null: give a whole number."),
        ("extract --per_class x", "--per_class is 'x': give a whole number."),
        ("extract --keep_shards maybe", "--keep_shards is 'maybe': give true or false."),
        ("extract --keep_shards", "--keep_shards needs a value: true or false."),
        ("extract --images", "--images needs a value."),
        ("extract --config", "--config needs a value: the path of a YAML file."),
        (
            "extract --quantization NF4",
            "give one of 'auto', 'nf4', 'int8', 'none'; did you mean 'nf4'?",
        ),
        ("train_probes --C abc", "--C is 'abc': give a number or a list of numbers such as '[0.01"),
        ("train_probes --C [1,x]", "'x']: give a number or a list of numbers"),
        (
            "train_probes --folds 2.5",
            "--folds is '2.5': give a whole number or one of 'auto', 'groups'.",
        ),
        ("run --position last", "--position is 'last': give one of 'last_prompt', 'last_gen"),
        ("extract --layers+", "--layers needs a value: 'all' or a list of whole numbers"),
        ("extract --imagse x", "--imagse is no option of extract: did you mean --images?"),
        ("extract --max-new-tokens 3", "of extract: did you mean --max_new_tokens?"),
        ("extract --see 3", "--see is no option of extract: did you mean --seed?"),
        ("extract -x", f"-x is no option of extract: {LISTED}."),
        ("extract --C 1", "--C is no option of extract but of run and train_probes."),
        ("extract x.csv", "'x.csv' is more than extract takes: options are written --NAME VALUE"),
        ("extract --config {sed:3}", "{sed:3} sets sed:3, which is no option of extract: did you"),
        ("info", "STORE is missing: signbridge info STORE."),
        ("merge", "STORES is missing: signbridge merge A B -o C."),
        ("compare", "RESULTS is missing: signbridge compare A B -o C."),
        ("merge a.h5", "merge needs the name of the store to make"),
        ("trian_probes", "'trian_probes' is no command: did you mean train_probes?"),
        ("train-probes", "'train-probes' is no command: did you mean train_probes?"),
        ("walk", "'walk' is no command: there are run, extract, "),
        ("--images x extract", "'x' is no command: there are run, extract, "),
        ("--foo", "'--foo' is no command: there are run, "),
        ("", "Give a command, one of run, extract, "),
    ],
)
def test_arguments_that_cannot_be_taken_are_one_sentence(arguments, message, capsys):
    assert message in said(capsys, *arguments.split())


BOMB = [b"a0: &a0 [x]\n"]
BOMB += [b"a%d: &a%d [%s]\n" % (k, k, b",".join([b"*a%d" % (k - 1)] * 10)) for k in range(1, 11)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no configuration {file}: give --config the path of a YAML file."),
        (b"seed: [oops\n", "{file} is no YAML file that can be read (line 2, column 1: "),
        (b"\xff\xfe\x00junk", "{file} is no YAML file: it is not plain text."),
        (b"- a\n", "{file} holds no settings: write one a line"),
        (b"sed: 3\n", "{file} sets sed, which is no option of extract: did you mean seed?"),
        (b"extract: {sed: 3}\n", "{file} sets sed, which is no option of extract"),
        (b"extract: 3\n", "The section extract of {file} holds no settings"),
        (b"extract: {seed: 3}\ntrian_probes: {}\n", "outside of them: did you mean train_probes?"),
        (b"extract: {seed: 3}\nclasses: 4\n", "and classes outside of them: put it into one"),
        (b"extract: {layers: 9}\n", "--layers is '9' in the configuration: give 'all' or"),
        (b"layers: nine\n", "--layers is 'nine' in the configuration: give 'all' or"),
        (b"seed: 1\nseed: 2\n", "(line 2, column 1: seed is set twice: keep one)"),
        (b"extract: {seed: 1, seed: 2}\n", "seed is set twice: keep one)"),
        (b"seed: &a 1\nper_class: *a\n", "(line 2, column 12: an alias stands for another part"),
        (b"a: &a [x]\nb: {<<: *a}\n", "an alias stands for another part"),
        (b"".join(BOMB), "(line 2, column 10: an alias stands for another part: write that out)"),
        (b"layers: " + b"[" * 100_000, "(line 1, column 16: it nests deeper than settings do)"),
        (b"a: " + b"{a: " * 9 + b"1" + b"}" * 9, "it nests deeper than settings do"),
        (b"- " * 5000 + b"1\n", "it nests deeper than settings do"),
        (
            b"prompt: " + b"x" * 1_000_000,
            "{file} cannot be read (it has 1,000,008 bytes and ",
        ),
        (b"prompt: \x00\n", "{file} is no YAML file: it is not plain text."),
        (b"prompt: caf\xe9\n", "{file} is no YAML file: it is not plain text."),
        (b"prompt: 2026-02-31\n", "cannot be read as YAML (day is out of range for month)"),
        (b"output: ''\n", "--output is empty: give it a value, or leave it out."),
        (b"seed: null\n", "--seed is null in the configuration: give a whole number."),
        (b"extract: {seed: }\n", "--seed is null in the configuration: give a whole number."),
        (b"C: 3\n", "{file} sets C, which is no option of extract but of run and train_probes."),
    ],
)
def test_configurations_that_cannot_be_taken_are_one_sentence(content, message, tmp_path, capsys):
    file = tmp_path / "c.yaml"
    if content is not None:
        file.write_bytes(content)
    for written in (["--config", str(file)], [f"--config={file}"]):
        assert message.format(file=file) in said(capsys, "extract", *written)


def test_a_folder_is_no_configuration(tmp_path, capsys):
    message = said(capsys, "extract", "--config", str(tmp_path))
    assert message.startswith(f"The configuration {tmp_path} cannot be read (Is a directory)")


def test_what_is_no_regular_file_is_no_configuration(tmp_path, capsys):
    os.mkfifo(tmp_path / "fifo")
    for file in (tmp_path / "fifo", "/dev/zero"):
        for arguments in (["extract", "--config", str(file)], ["--config", str(file), "extract"]):
            message = said(capsys, *arguments)
            assert message.startswith(
                f"The configuration {file} cannot be read (it is a pipe or a device)"
            )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_configuration_that_may_not_be_read(tmp_path, capsys):
    (tmp_path / "c.yaml").touch(mode=0)
    assert "cannot be read (Permission denied)" in said(
        capsys, "run", "--config", f"{tmp_path}/c.yaml"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("extract: {seed: x}\n", "--seed is 'x' in the configuration: give a whole number."),
        ("extract: {sed: 3}\n", "sed is no option of extract: did you mean seed?"),
    ],
)
def test_a_configuration_before_the_command(content, message, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(content)
    assert said(capsys, "--config", str(tmp_path / "c.yaml"), "extract") == message


@pytest.mark.parametrize(
    "text", ["caf\xe9 \U0001f600", "a\x1b\x85\x9b\u2028b", "true", "1e3", "null"]
)
@pytest.mark.parametrize("section", [True, False])
def test_a_text_in_a_configuration_arrives_as_it_is(text, section, tmp_path, monkeypatch):
    settings = {"model": text, "classes": [text, "b"]}
    content = yaml.safe_dump({"extract": settings} if section else settings)
    (tmp_path / "c.yaml").write_text(content)
    taken = []
    monkeypatch.setitem(COMMANDS, "extract", _taking(taken))
    assert main(["extract", "--config", str(tmp_path / "c.yaml")]) == 0
    assert taken == [settings]


NAMES = [
    ("[yes,no]", ["yes", "no"]),
    ("[0, 1,2]", ["0", "1", "2"]),
    ("[on,null,1.0,2020-01-01]", ["on", "null", "1.0", "2020-01-01"]),
    ("""["yes",'a b',\xe9]""", ["yes", "a b", "\xe9"]),
    ("3", 3),
]


@pytest.mark.parametrize(("value", "classes"), NAMES)
def test_names_in_a_list_are_names_whatever_they_look_like(
    value, classes, tmp_path, monkeypatch, capsys
):
    taken = []
    monkeypatch.setitem(COMMANDS, "extract", _taking(taken))
    assert main(["extract", "--classes", value]) == 0
    assert main([f"--classes={value}"], command="extract") == 0
    (tmp_path / "c.yaml").write_text(f"extract:\n  classes: {value}\n", "utf-8")
    assert main(["extract", "--config", str(tmp_path / "c.yaml")]) == 0
    assert main(["--config", str(tmp_path / "c.yaml"), "extract", "--classes", value]) == 0
    assert [one["classes"] for one in taken] == [classes] * 4
    assert main(["extract", "--classes", "[yes"]) == 2
    assert "--classes is" in capsys.readouterr().err


def _taking(taken):
    def extract(model: str = "m", classes: int | list[str] | None = None) -> None:
        """Take two options."""
        taken.append({"model": model, "classes": classes})

    return extract


def test_an_alias_bomb_before_the_command(tmp_path, capsys):
    (tmp_path / "c.yaml").write_bytes(b"".join(BOMB))
    assert "an alias" in said(capsys, "--config", str(tmp_path / "c.yaml"), "extract")


def _texts():
    """Every option of every command that takes a text, and needs nothing else to be parsed."""
    needed = {"report": ["r"], "compare": ["a", "b"], "merge": ["a", "b"]}
    needed_name = {"report": "results", "info": "store", "verify": "store"}
    for command in COMMANDS:
        for name, hint in options_of(command).items():
            if name == needed_name.get(command):
                yield command, [""], name
            elif hint in (str, str | None, str | int):
                yield command, [*needed.get(command, []), f"--{name}", " "], name


@pytest.mark.parametrize(("command", "words", "name"), list(_texts()))
def test_a_text_that_is_empty_is_refused(command, words, name, capsys):
    assert f"{name} is empty: give it a value, or leave it out." in said(capsys, command, *words)


@pytest.mark.parametrize("config", [CaptureConfig, *CONFIGS.values()])
def test_a_text_that_is_empty_is_refused_from_python_in_the_same_words(config):
    texts = [one.name for one in fields(config) if isinstance(one.default, str)]
    for name in ["output", *texts]:
        with pytest.raises(SignBridgeError, match=f"^--{name} is empty: give it a value, or leave"):
            config(**{name: ""})


def test_an_empty_configuration_changes_nothing(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("# nothing yet\n")
    shown = []
    for arguments in ([], ["--config", str(tmp_path / "c.yaml")]):
        with pytest.raises(SystemExit) as ended:
            main(["extract", *arguments, "--print_config"])
        assert ended.value.code == 0
        shown.append(yaml.safe_load(capsys.readouterr().out))
    assert shown[0] == shown[1]


def test_run_writes_the_results_where_the_probing_section_says(tmp_path, capsys):
    sections = {"extract": {"output": "a.h5"}, "train_probes": {"output": "out", "store": "a.h5"}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(sections))
    with pytest.raises(SystemExit):
        main(["run", "--config", str(tmp_path / "c.yaml"), "--print_config"])
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["output"], shown["results"]) == ("a.h5", "out")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_every_command_can_be_explained(command):
    for name, hint in options_of(command).items():
        assert allowed(hint) != "a value", name


def test_the_nearest_word_or_none():
    assert nearest("Max-New-Token", ["max_new_tokens", "seed"]) == "max_new_tokens"
    assert nearest("x", ["max_new_tokens", "seed"]) == ""
