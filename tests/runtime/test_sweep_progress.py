from __future__ import annotations

import io

from rich.console import Console

from signbridge.runtime import progress as progress_module
from signbridge.runtime.progress import SweepProgress


def test_a_log_gets_a_line_at_most_every_thirty_seconds_and_none_at_once(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    text = io.StringIO()
    with SweepProgress(Console(file=text, width=40)) as progress:
        for seconds, what in ((0, "a"), (20, "b"), (45, "c [bold]"), (60, "d"), (190, "e")):
            now[0] = 100.0 + seconds
            progress(what, 1 if seconds < 100 else 3, 4)
    assert text.getvalue().splitlines() == [
        "1 of 4 features done after 45 s; now c [bold]",
        "3 of 4 features done after 3 min; now e",
    ]


def test_a_terminal_gets_a_bar_that_is_taken_down():
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=100)
    progress = SweepProgress(console)
    with progress:
        progress("resid_post/3 [x]", 3, 11)
        progress("scores", 11, 11)
        assert progress._bar is not None
    assert progress._bar is None
    assert "11/11" in text.getvalue()
    assert "probing" not in text.getvalue()


def test_nothing_to_do_shows_nothing():
    text = io.StringIO()
    with SweepProgress(Console(file=text, force_terminal=True)):
        pass
    assert text.getvalue() == ""
