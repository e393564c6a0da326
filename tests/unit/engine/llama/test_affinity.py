"""A core for each thread of a call: only where it takes all of them, and given back afterwards."""

import os
import threading
from contextlib import nullcontext

import pytest

from appliance.engine.llama.affinity import TASKS, Affinity

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="cores are chosen on Linux alone"
)
ALL = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
several = pytest.mark.skipif(len(ALL) == 1, reason="one core has no other")


def comm():
    return (TASKS / str(threading.get_native_id()) / "comm").read_text()


class Workers:
    """Threads that a library starts from native code: they inherit name and cores."""

    def __init__(self, count):
        self.count = count
        self.ids = []
        self.end = threading.Event()

    def start(self):
        name = comm()
        ready = threading.Barrier(self.count + 1)

        def work():
            me = threading.get_native_id()
            (TASKS / str(me) / "comm").write_text(name.strip())
            self.ids.append(me)
            ready.wait()
            self.end.wait()

        for _ in range(self.count):
            threading.Thread(target=work, daemon=True).start()
        ready.wait()


@several
def test_workers_keep_the_other_cores_and_the_caller_gets_all_of_them_back():
    affinity, workers, before = Affinity(), Workers(len(ALL) - 1), comm()
    bystander = Workers(1)
    bystander.start()
    try:
        with affinity.spread(len(ALL)):
            assert os.sched_getaffinity(0) == {min(ALL)}
            workers.start()
        assert comm() == before
        assert os.sched_getaffinity(0) == ALL
        placed = [os.sched_getaffinity(worker) for worker in workers.ids]
        assert sorted(placed, key=min) == [{core} for core in sorted(ALL)[1:]]
        assert os.sched_getaffinity(bystander.ids[0]) == ALL
        with affinity.spread(len(ALL)):
            assert os.sched_getaffinity(0) == {min(ALL)}
        assert os.sched_getaffinity(0) == ALL
    finally:
        workers.end.set()
        bystander.end.set()


@several
@pytest.mark.parametrize("threads", [1, len(ALL) + 1])
def test_a_call_that_does_not_take_all_cores_is_left_to_the_kernel(threads):
    with Affinity().spread(threads):
        assert os.sched_getaffinity(0) == ALL


@several
def test_a_call_that_fails_gives_the_cores_back():
    affinity = Affinity()
    with pytest.raises(ZeroDivisionError), affinity.spread(len(ALL)):
        raise ZeroDivisionError
    assert os.sched_getaffinity(0) == ALL


@several
def test_without_the_process_file_system_nothing_is_placed(monkeypatch, tmp_path):
    monkeypatch.setattr("appliance.engine.llama.affinity.TASKS", tmp_path)
    with nullcontext(), Affinity().spread(len(ALL)):
        pass
    assert os.sched_getaffinity(0) == ALL
