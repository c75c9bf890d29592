from __future__ import annotations

import io

from rich.console import Console

from signbridge.runtime import progress as progress_module
from signbridge.runtime.progress import SweepProgress, TimeLeft


def test_a_log_gets_a_line_in_the_first_seconds_and_then_one_every_thirty(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    text = io.StringIO()
    with SweepProgress(Console(file=text, width=40)) as progress:
        for seconds, what in ((0, "a"), (3, "b"), (30, "c"), (45, "d [bold]"), (60, "e")):
            now[0] = 100.0 + seconds
            progress.seconds_left = 400 - seconds
            progress(what, 1, 4)
        now[0] = 290.0
        progress.seconds_left = None
        progress("f", 3, 4)
    assert text.getvalue().splitlines() == [
        "1 of 4 features done after 3.0 s, about 7 min left; now b",
        "1 of 4 features done after 45 s, about 6 min left; now d [bold]",
        "3 of 4 features done after 3 min; now f",
    ]


def test_the_time_left_is_that_of_every_kind_of_work(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    left = TimeLeft({"fits": 1.0, "scores": 0.5}, workers=2)
    left.expect("fits", 10)
    left.expect("fits", 2)
    left.expect("scores", 4)
    assert left.seconds() == (12 * 1.0 + 4 * 0.5) / 2
    left.begin()
    now[0] = 6.0
    left.did("fits", 2)  # three seconds each
    assert left.seconds() == (10 * 3.0 + 4 * 0.5) / 2
    now[0] = 8.0
    left.did("scores", 4)
    assert left.seconds() == 10 * 3.0 / 2


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
