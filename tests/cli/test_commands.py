"""Commands as a shell takes them."""

from __future__ import annotations

import shlex

import pytest

from signbridge.cli.main import main
from signbridge.extraction.config import ExtractConfig
from signbridge.probes.config import SweepConfig
from signbridge.runtime.commands import command_line


def test_values_are_quoted_for_a_shell():
    line = command_line(
        "extract", {"a": "it's $HOME", "b": [1, 2], "c": None, "d": False, "e": ["x y"]}
    )
    assert shlex.split(line) == [
        *("signbridge", "extract", "--a", "it's $HOME", "--b", "[1,2]", "--d", "false"),
        *("--e", '["x y"]'),
    ]


@pytest.mark.parametrize(
    "config",
    [
        ExtractConfig(),
        ExtractConfig(images="my images", classes=["yes", "b c", "ü"], layers=[0, 3], per_class=2),
        ExtractConfig(prompt="USER: <image>\nWhich?", max_new_tokens=3, keep_shards=True),
        SweepConfig("a b.h5", folds="groups", C=[0.1, 1.0]),
        SweepConfig("a.h5", "out", layers=[2], permutations=7, split="source", baselines=False),
    ],
)
def test_a_command_gives_back_the_options_it_was_made_of(config, monkeypatch):
    """Read by the command line's own parser."""
    got = {}
    name = config.command.split()[1]
    target = "_extract" if name == "extract" else "_train_probes"
    monkeypatch.setattr("signbridge.cli.commands._open_images", lambda config: None)
    monkeypatch.setattr(
        f"signbridge.cli.commands.{target}", lambda config, *rest: got.update(config=config)
    )
    main(shlex.split(config.command)[1:])
    assert got["config"] == config
