import io

import pytest
from rich.console import Console

from signbridge import progress as progress_module
from signbridge.progress import Counting


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
