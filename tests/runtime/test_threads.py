import threading
import time

import pytest
import torch

from signbridge.runtime.threads import end_if_stopped, side_by_side


def test_tasks_run_side_by_side_each_with_one_torch_thread():
    before = torch.get_num_threads()
    meet, seen = threading.Barrier(2, timeout=20), []

    def task():
        meet.wait()  # would time out if the other came later
        seen.append(torch.get_num_threads())

    side_by_side([task, task], 2)
    assert seen == [1, 1]
    assert torch.get_num_threads() == before


def test_a_failed_task_ends_the_others():
    ended, begun = threading.Event(), threading.Event()

    def fails():
        begun.wait(20)
        raise ValueError("this one")

    def endless():
        begun.set()
        try:
            for _ in range(2000):
                end_if_stopped()
                time.sleep(0.01)
        except BaseException:
            ended.set()
            raise

    with pytest.raises(ValueError, match="this one"):
        side_by_side([endless, fails, lambda: pytest.fail("begun after the failure")], 2)
    assert ended.is_set()
    end_if_stopped()  # nothing stops the caller


def test_one_thread_does_them_in_turn():
    order = []
    side_by_side([lambda k=k: order.append((k, threading.current_thread())) for k in range(3)], 1)
    assert order == [(k, threading.current_thread()) for k in range(3)]
