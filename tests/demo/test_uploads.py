import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from signbridge.demo.uploads import PREFIX, UPLOADS, demo_folder, own_upload, remove_abandoned
from signbridge.errors import Interrupted

HOLDS = """
import sys, time
from signbridge.demo.uploads import demo_folder
from signbridge.runtime.stopping import stoppable
with stoppable("Stopped."), demo_folder() as folder:
    (folder / "uploads" / "picture.png").write_bytes(b"x")
    print(folder, flush=True)
    while True:
        time.sleep(0.02)
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def other_demo(tmp_path):
    """A process with a folder of its own, and the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    yield process, Path(process.stdout.readline().strip())
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, Interrupted("Stopped.", 143), OSError])
def test_what_was_uploaded_goes_with_the_demo(temporary, error):
    before = dict(os.environ)
    try:
        with demo_folder() as folder:
            assert folder.parent == temporary
            assert os.environ["GRADIO_TEMP_DIR"] == str(folder / UPLOADS)
            (folder / UPLOADS / "a").mkdir()
            (folder / UPLOADS / "a" / "picture.png").write_bytes(b"x")
            if error:
                raise error
    except (KeyboardInterrupt, Interrupted, OSError):
        pass
    assert list(temporary.iterdir()) == []
    assert dict(os.environ) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_goes_when_the_demo_is_stopped(other_demo, number):
    process, folder = other_demo
    assert (folder / UPLOADS / "picture.png").exists()
    process.send_signal(number)
    process.wait(20)
    assert not folder.exists()


def test_what_a_killed_demo_has_left_goes_with_the_next(other_demo, temporary):
    process, folder = other_demo
    with demo_folder() as mine:
        assert folder.exists()  # it is in use
        assert mine != folder
    process.kill()
    process.wait()
    assert (folder / UPLOADS / "picture.png").exists()
    with demo_folder():
        assert not folder.exists()


def test_what_is_not_ours_stays(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lock").touch()
    (tmp_path / f"{PREFIX}link").symlink_to(elsewhere)
    (tmp_path / f"{PREFIX}file").touch()
    (tmp_path / f"{PREFIX}unlocked").mkdir()
    for name in ("linked", "pipe"):
        (tmp_path / f"{PREFIX}{name}").mkdir()
    (tmp_path / f"{PREFIX}linked" / "lock").symlink_to(elsewhere / "lock")
    os.mkfifo(tmp_path / f"{PREFIX}pipe" / "lock")
    before = sorted(tmp_path.rglob("*"))
    remove_abandoned(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_upload_is_a_file_in_the_folder(tmp_path):
    uploads = tmp_path / UPLOADS
    uploads.mkdir()
    (uploads / "a.png").write_bytes(b"x")
    (tmp_path / "b.png").write_bytes(b"x")
    (uploads / "out.png").symlink_to(tmp_path / "b.png")
    (uploads / "in.png").symlink_to(uploads / "a.png")
    (uploads / "round.png").symlink_to(uploads / "round.png")
    os.mkfifo(uploads / "pipe")
    (tmp_path / "through").symlink_to(uploads)
    for path in (uploads / "a.png", uploads / "in.png", tmp_path / "through" / "a.png"):
        assert own_upload(str(path), uploads) == uploads / "a.png"
    for name in ("out.png", "round.png", "pipe", "none.png", "../b.png", ".", "a.png/x", "a\0"):
        assert own_upload(f"{uploads}/{name}", uploads) is None
    for path in (None, 5, b"a", [str(uploads / "a.png")], "", "uploads/a.png"):
        assert own_upload(path, uploads) is None
