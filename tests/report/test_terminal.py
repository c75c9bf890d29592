from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from signbridge.report.terminal import print_table
from signbridge.results.results import load_results


@pytest.mark.parametrize("width", [24, 30, 45, 60, 79, 200])
def test_no_terminal_is_too_narrow_for_the_accuracies(results_dir: Path, width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    print_table(results_dir, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    table = text[: text.index("A linear probe")] if "A linear probe" in text else text
    assert max(map(len, table.splitlines())) <= width
    results = load_results(results_dir)
    for layer in results.layers:
        score = results.score("resid_post", layer, "accuracy")
        assert score is not None
        line = next(s for s in table.splitlines() if s.split()[:2] == ["layer", str(layer)])
        numbers = [word for word in line.split() if word[0].isdigit()]
        assert f"{100 * score.value:.1f}" in numbers
        assert "…" not in line.removeprefix("layer").replace("(be…", "").replace("(b…", "")
