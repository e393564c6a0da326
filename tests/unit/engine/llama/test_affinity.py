"""Which cores a call gets: its own, as far as there are free ones, for every tuning there can be."""

import random
import threading

import pytest

from appliance.engine.llama.affinity import CoreAllocator, process_cores

SIZES = [2, 8, 16, 64, 128]


def test_a_call_gets_cores_of_its_own_until_it_gives_them_back():
    cores = CoreAllocator({})
    allowed = frozenset(range(8))
    one = cores.claim(3, allowed, last=frozenset())
    two = cores.claim(3, allowed, last=frozenset())
    assert (len(one), len(two)) == (3, 3)
    assert not one & two
    cores.release(one)
    assert cores.claim(3, allowed, last=frozenset()) == one


@pytest.mark.parametrize("count", [0, 1, 5])
def test_one_thread_and_more_threads_than_cores_are_left_to_the_kernel(count):
    assert CoreAllocator({}).claim(count, frozenset(range(4)), last=frozenset()) == frozenset()


def test_a_worker_keeps_its_cores_from_call_to_call():
    cores, allowed = CoreAllocator({}), frozenset(range(8))
    mine = frozenset({5, 6})
    for _ in range(3):
        assert cores.claim(2, allowed, last=mine) == mine
        cores.release(mine)


def test_threads_that_would_share_a_physical_core_come_last():
    ranks = {core: core % 2 for core in range(8)}
    cores = CoreAllocator(ranks)
    claimed = cores.claim(4, frozenset(range(8)), last=frozenset({0, 1, 2, 3}))
    assert claimed == {0, 2, 4, 6}
    assert cores.claim(4, frozenset(range(8)), last=frozenset()) == {1, 3, 5, 7}


def test_only_cores_that_the_process_may_use_are_given():
    assert CoreAllocator({}).claim(2, frozenset({3, 90}), last=frozenset({0, 1})) == {3, 90}


def test_cores_that_other_processes_use_too_are_not_given():
    cores = CoreAllocator({}, is_shared=True)
    assert cores.claim(2, frozenset(range(64)), last=frozenset()) == frozenset()


@pytest.mark.parametrize("size", SIZES)
def test_no_two_calls_share_a_core_while_another_one_is_free(size):
    chance, cores, allowed = random.Random(size), CoreAllocator({}), frozenset(range(size))
    running = []
    for _ in range(2_000):
        if running and chance.random() < 0.5:
            cores.release(running.pop(chance.randrange(len(running))))
            continue
        busy = frozenset().union(*running)
        claimed = cores.claim(chance.randint(2, size), allowed, last=frozenset())
        running.append(claimed)
        assert not claimed & busy or claimed | busy == allowed


def test_many_threads_claim_and_release_and_in_the_end_all_is_free():
    cores, allowed = CoreAllocator({}), frozenset(range(16))
    ready, ended = threading.Barrier(8), []

    def work():
        ready.wait()
        for _ in range(200):
            cores.release(cores.claim(2, allowed, last=frozenset()))
        ended.append(True)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(ended) == 8
    assert repr(cores) == "<CoreAllocator [busy: []]>"


def test_the_process_has_one_allocator():
    assert process_cores() is process_cores()
