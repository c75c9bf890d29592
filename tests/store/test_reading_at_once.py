"""Several readers at once: threads, forked and spawned processes, workers of a loader."""

import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import warnings

import h5py
import numpy as np
import pytest

from signbridge.store import open_store


def _sum(store):
    return float(sum(store.layer(layer).astype(np.float64).sum() for layer in store.layers))


def _answer(store, queue):
    queue.put(_sum(store))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_for_themselves(method, path):
    store = open_store(path)
    expected = _sum(store)
    queue_code = (
        "import pickle, sys, numpy as np\n"
        "store = pickle.load(sys.stdin.buffer)\n"
        "print(repr(float(sum(store.layer(k).astype(np.float64).sum() for k in store.layers))))\n"
    )
    if method == "spawn":
        out = subprocess.run(
            [sys.executable, "-c", queue_code],
            input=pickle.dumps(store),
            capture_output=True,
            check=True,
        )
        assert float(out.stdout) == expected
        return
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_answer, args=(store, queue)) for _ in range(4)]
    for worker in workers:
        worker.start()
    answers = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert answers == [expected] * 4
    assert _sum(store) == expected


def test_forking_while_threads_read(path):
    store = open_store(path)
    expected = _sum(store)
    stop = threading.Event()
    wrong = []

    def read():
        while not stop.is_set():
            if _sum(store) != expected:
                wrong.append(1)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: fork, threads
                pid = os.fork()
            if pid == 0:
                os._exit(0 if _sum(store) == expected else 1)
            for _ in range(600):
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    break
                stop.wait(0.05)
            else:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
                pytest.fail("the forked child hung")
            assert status == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong


def test_dataloader_workers(path):
    data = pytest.importorskip("torch.utils.data")
    store = open_store(path)
    expected = store.layer(5)[::20]

    class Rows(data.Dataset):
        def __len__(self):
            return 10

        def __getitem__(self, i):
            return store.layer(5, [20 * i])[0]

    loader = data.DataLoader(Rows(), num_workers=2, batch_size=5, multiprocessing_context="fork")
    np.testing.assert_array_equal(np.concatenate([b.numpy() for b in loader]), expected)


def test_the_same_file_may_be_open_elsewhere(path):
    with h5py.File(path) as h5, open_store(path) as store:
        np.testing.assert_array_equal(h5["resid_post"][:, 0], store.layer(0))
    with open_store(path) as store, h5py.File(path) as h5:
        np.testing.assert_array_equal(h5["resid_post"][:, 0], store.layer(0))
