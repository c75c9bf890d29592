import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def _load_producer():
    spec = importlib.util.spec_from_file_location("store_producer", HERE / "producer.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_PRODUCER = _load_producer()


@pytest.fixture(scope="session")
def producer():
    """The stand-in extraction: its inputs, and a function that writes a store of them."""
    return _PRODUCER


@pytest.fixture(scope="session")
def path(producer, tmp_path_factory):
    """A store of 200 samples; no test may change it."""
    path = tmp_path_factory.mktemp("reader") / "store.h5"
    producer.produce(str(path), n=200)
    return path


@pytest.fixture(scope="session")
def whole(producer, tmp_path_factory):
    """A store of 70 samples to make faulty copies of; no test may change it."""
    path = tmp_path_factory.mktemp("whole") / "store.h5"
    producer.produce(str(path), n=70)
    return path


@pytest.fixture(scope="session")
def written(producer):
    """What was written to it: spec, samples, provenance, data."""
    return producer.inputs(n=200)


@pytest.fixture
def make_store(producer, tmp_path):
    """Write a store and return its path."""

    def make(name="store.h5", **what):
        path = tmp_path / name
        producer.produce(str(path), **what)
        return path

    return make


class Server:
    """Runs producers in processes of their own, which may be killed."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "producer.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, **request):
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def wait(self):
        return json.loads(self._process.stdout.readline())["status"]

    def run(self, **request):
        """Run a request, SIGKILLed after ``kill_after`` seconds if given; its exit status."""
        self.start(**request)
        return self.wait()

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()


@pytest.fixture(scope="session")
def server():
    running = Server()
    yield running
    running.close()


@pytest.fixture
def servers():
    """Start several servers, for producers that run at the same time."""
    started = []

    def start(count):
        started.extend(Server() for _ in range(count))
        return started[-count:]

    yield start
    for running in started:
        running.close()
