import io

import pytest
from rich.console import Console

from signbridge.runtime import progress as progress_module
from signbridge.runtime.progress import Counting, CountingStages


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_sparse_lines(clock):
    text = io.StringIO()
    with Counting("reading images", Console(file=text)) as progress:
        for second in range(0, 100, 5):
            clock[0] = 100.0 + second
            progress(1000 + 100 * second, 20_000)
    assert text.getvalue().splitlines() == [
        "reading images: 4,000 of 20,000, about 2 min left",
        "reading images: 7,000 of 20,000, about 2 min left",
        "reading images: 10,000 of 20,000, about 90 s left",
    ]


def test_a_terminal_gets_a_bar_for_what_takes_time(clock):
    text = io.StringIO()
    with Counting("verifying", Console(file=text, force_terminal=True, width=100)) as progress:
        progress(1, 10)
        assert text.getvalue() == ""
        clock[0] += 1
        progress(2, 10)
        progress(10, 10)
    assert "verifying" in text.getvalue()
    assert "10/10" in text.getvalue()


def test_what_is_over_at_once_shows_nothing(clock):
    text = io.StringIO()
    with Counting("verifying", Console(file=text, force_terminal=True)) as progress:
        progress(10, 10)
        clock[0] += 1
        progress(10, 10)
    assert text.getvalue() == ""


def test_every_stage_has_its_own_clock(clock):
    text = io.StringIO()
    with CountingStages(Console(file=text)) as progress:
        for what, first in (("making the file", 100.0), ("verifying the file", 200.0)):
            for second in range(0, 80, 20):
                clock[0] = first + second
                progress(what, 10 + second, 100)
    assert text.getvalue().splitlines() == [
        "making the file: 50 of 100, about 40 s left",
        "verifying the file: 50 of 100, about 40 s left",
    ]


def test_the_bar_of_a_stage_that_is_over_is_taken_down(clock):
    text = io.StringIO()
    with CountingStages(Console(file=text, force_terminal=True, width=100)) as progress:
        for what in ("one", "two"):
            progress(what, 1, 10)
            clock[0] += 1
            progress(what, 5, 10)
    assert "one" in text.getvalue()
    assert text.getvalue().index("one") < text.getvalue().index("two")
    with CountingStages(Console(file=text)):  # nothing was begun
        pass
