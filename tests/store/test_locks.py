"""Files that are open elsewhere, cannot be locked, or cannot be written: with real processes."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import pytest

from signbridge.errors import StoreError
from signbridge.store import StoreWriter, open_store, verify_store
from signbridge.store.merge import extend_store
from signbridge.store.verify import check_store

pytestmark = pytest.mark.skipif(os.name == "nt", reason="locks and permissions as POSIX has them")

READER = """
import sys, h5py, numpy as np
from signbridge.store import open_store
with h5py.File(sys.argv[1], sys.argv[2]) as h5:
    before = h5["resid_post"][:]
    store = open_store(sys.argv[1]) if sys.argv[2] == "r" else None
    print("open", flush=True)
    sys.stdin.readline()
    assert (h5["resid_post"][:] == before).all()
    if store is not None:
        assert (store.layer(store.layers[0]) == before[:, 0]).all()
    print("the same", flush=True)
"""


@contextlib.contextmanager
def opened_elsewhere(path, mode="r"):
    """Another process has the file open, and finds it unchanged at the end."""
    child = subprocess.Popen(
        [sys.executable, "-c", READER, str(path), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout.readline() == "open\n"
        yield
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "the same\n"
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def test_a_reader_in_another_process_keeps_the_old_file(producer, make_store):
    path = make_store("s.h5", n=40)
    more = make_store("more.h5", n=30, first=40)
    with opened_elsewhere(path):
        extend_store(path, more)
        with open_store(path, verify="full") as store:
            assert store.n_samples == 70
        with opened_elsewhere(path):
            spec, samples, provenance, data = producer.inputs(n=50)
            with StoreWriter(path, spec, samples, provenance, overwrite=True) as writer:
                writer.write_shard(0, data)
                writer.consolidate()
            assert open_store(path, verify="full").n_samples == 50
    assert sorted(p.name for p in path.parent.iterdir()) == ["more.h5", "s.h5"]


def test_a_file_that_is_open_for_writing_is_one_sentence(producer, make_store, tmp_path):
    path = make_store("s.h5", n=40)
    with opened_elsewhere(path, "r+"):
        for call in (
            lambda: open_store(path),
            lambda: verify_store(path),
            lambda: extend_store(path, path.with_name("other.h5")),
            lambda: producer.produce(str(path), n=40),
        ):
            with pytest.raises(StoreError, match="open for writing in another program") as error:
                call()
            assert "\n" not in str(error.value)
    assert verify_store(path) == []
    assert [p.name for p in tmp_path.iterdir()] == ["s.h5"]


@pytest.fixture(scope="module")
def no_locks(tmp_path_factory):
    """A library that lets every lock fail, as some network file systems do."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("a C compiler is needed to make a system without locks")
    folder = tmp_path_factory.mktemp("no-locks")
    source, library = folder / "no_locks.c", folder / "no_locks.so"
    source.write_text(
        "#include <errno.h>\n#include <stdlib.h>\n"
        'int flock(int f, int how) { errno = atoi(getenv("LOCK_ERROR")); return -1; }\n'
    )
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return library


@pytest.mark.parametrize("code", ["ENOLCK", "EOPNOTSUPP"])
def test_a_file_system_without_locks(code, no_locks, make_store, tmp_path):
    import errno

    path = make_store("s.h5", n=100, keep_shards=True)
    script = (
        "import importlib.util, sys, warnings\n"
        "spec = importlib.util.spec_from_file_location('producer', sys.argv[1])\n"
        "producer = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(producer)\n"
        "from signbridge.store import open_store, verify_store\n"
        "assert verify_store(sys.argv[2]) == []\n"
        "with warnings.catch_warnings(record=True) as said:\n"
        "    warnings.simplefilter('always')\n"
        "    producer.produce(sys.argv[3], n=100)\n"
        "assert 'has no locks' in str(said[0].message)\n"
        "print(producer.snapshot(sys.argv[2]) == producer.snapshot(sys.argv[3]))\n"
    )
    environment = {
        **os.environ,
        "LD_PRELOAD": str(no_locks),
        "LOCK_ERROR": str(getattr(errno, code)),
    }
    producer_file = Path(__file__).with_name("producer.py")
    out = subprocess.run(
        [sys.executable, "-c", script, producer_file, path, tmp_path / "other.h5"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (out.stdout, out.stderr) == ("True\n", "")


@contextlib.contextmanager
def as_nobody():
    """Root may write everywhere, so become nobody where we are root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def public_folder():
    """A folder that others may look into, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def chmod_all(folder, files, folders):
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            os.chmod(os.path.join(place, name), files)
        os.chmod(place, folders)


@pytest.mark.parametrize("keep_shards", [False, True])
def test_a_read_only_file_in_a_read_only_folder(keep_shards, producer, public_folder):
    path = public_folder / "s.h5"
    producer.produce(str(path), n=100, keep_shards=keep_shards)
    with open_store(path) as store:
        expected = store.layer(2)
    spec, samples, provenance, _ = producer.inputs(n=100)
    chmod_all(public_folder, 0o444, 0o555)
    try:
        with as_nobody():
            for call in (lambda: (public_folder / "new").touch(), lambda: os.open(path, os.O_RDWR)):
                with pytest.raises(PermissionError):
                    call()
            with open_store(path) as store:
                assert (store.layer(2) == expected).all()
                assert store.class_names[0] == "A"
            with h5py.File(path) as h5:
                assert (h5["resid_post"][:, 1] == expected).all()
            assert check_store(path) == []
            with pytest.raises(StoreError, match="permission"):
                StoreWriter(path, spec, samples, provenance, overwrite=True)
    finally:
        chmod_all(public_folder, 0o644, 0o755)
