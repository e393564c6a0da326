"""Every thread of a call on a core of its own, whatever size the team had before.

Most stories are told over an OpenMP that is made up and keeps the real one's rules: each calling
thread has a team; threads that are missing are made, with the cores of the thread that makes them;
those that are too many end; and a thread that a pool has a row for moves to the core in that row.
One is told over the real one.
"""

import itertools
import os
import threading
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from appliance.engine.llama.affinity import CoreAllocator, process_cores
from appliance.engine.llama.team import POOLS_MAX, ThreadTeam
from appliance.engine.tuning import WORKERS_MAX, default_tuning

SIZES = [2, 8, 16, 64, 128]


class Machine:
    """A made-up system with OpenMP, seen from one calling thread."""

    can_place = True

    def __init__(self, size):
        self.all = frozenset(range(size))
        self.caller = self.all
        self.others = []
        """The cores of each thread that OpenMP has made for this caller."""
        self.pools = {}
        self.attached = None
        self.count = 1
        self.numbers = itertools.count(1)

    def allowed(self):
        return self.caller

    def allow(self, cores):
        self.caller = cores

    def set_count(self, _context, threads):
        self.count = threads

    def open_pool(self, cores):
        number = next(self.numbers)
        self.pools[number] = sorted(cores)
        return number

    def attach(self, _context, pool):
        self.attached = pool

    def free_pool(self, pool):
        assert pool != self.attached or self.is_freed
        del self.pools[pool]

    is_freed = False

    def compute(self):
        """Run one parallel region; return the cores of each of its threads."""
        if self.count == 1:
            return [self.caller]
        missing = self.count - 1 - len(self.others)
        self.others = self.others[: self.count - 1] + [self.caller] * missing
        if self.attached is not None:
            rows = self.pools[self.attached]
            assert len(rows) >= self.count, "the library would read past the end of the pool"
            self.caller = frozenset({rows[0]})
            self.others = [frozenset({rows[row]}) for row in range(1, self.count)]
        return [self.caller, *self.others]


def tunings(size):
    """Every (workers, threads, threads alone) that calibration can give for so many cores."""
    usual = default_tuning(size)
    alone = sorted({size, *(n for n in (1, 2, 4, 8, 16, 32, 64, 128) if n < size)})
    for workers in sorted({1, max(1, usual.workers // 2), min(usual.workers, WORKERS_MAX)}):
        for threads_alone in alone:
            yield workers, max(1, size // workers), threads_alone


CASES = [(size, *tuning) for size in SIZES for tuning in tunings(size)]


def teams_of(size, workers):
    machines = [Machine(size) for _ in range(workers)]
    cores = CoreAllocator({})
    return machines, [ThreadTeam(0, cores, machine) for machine in machines]


@pytest.mark.parametrize(("size", "workers", "threads", "alone"), CASES)
def test_a_busy_engine_has_every_thread_on_a_core_of_its_own(size, workers, threads, alone):
    machines, teams = teams_of(size, workers)
    for machine, team in zip(machines, teams, strict=True):  # each was alone before
        with team.computing(alone):
            check_apart(machine.compute(), size)
        assert machine.caller == machine.all
    for _ in range(3):
        with ExitStack() as together:
            placed = []
            for machine, team in zip(machines, teams, strict=True):
                together.enter_context(team.computing(threads))
                placed += machine.compute()
            check_apart(placed if threads > 1 else [], size)
        assert all(machine.caller == machine.all for machine in machines)


def check_apart(placed, size):
    """No two threads share a core: they have one each, and all are different."""
    if len(placed) > 1:
        assert [len(cores) for cores in placed] == [1] * len(placed)
        assert len(frozenset().union(*placed)) == len(placed) <= size


@pytest.mark.parametrize("size", SIZES)
def test_a_team_that_grows_and_shrinks_is_placed_each_time(size):
    [machine], [team] = teams_of(size, 1)
    counts = [n for n in (2, 1, 3, 2, size, 2, size + 1, 2, 1, size, 4, 2) if n <= size + 1]
    for count in counts:
        with team.computing(count):
            placed = machine.compute()
            assert len(placed) == count
            if count <= size:
                check_apart(placed, size)
        assert machine.caller == machine.all


def test_more_threads_than_cores_are_left_to_the_kernel():
    [machine], [team] = teams_of(4, 1)
    with team.computing(4):
        machine.compute()
    with team.computing(6):
        assert machine.attached is None
        assert machine.caller == machine.all


def test_a_call_that_fails_gives_its_cores_back():
    [machine, other], [team, second] = teams_of(4, 2)

    def fail():
        with team.computing(2):
            machine.compute()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert machine.caller == machine.all
    with second.computing(4):
        check_apart(other.compute(), 4)


def test_cores_that_were_taken_away_meanwhile_are_not_used():
    [machine], [team] = teams_of(8, 1)
    with team.computing(4):
        machine.compute()
    machine.all = machine.caller = frozenset({6, 7})
    with team.computing(2):
        assert frozenset().union(*machine.compute()) == {6, 7}


def test_pools_are_few_and_all_are_freed():
    [machine], [team] = teams_of(128, 1)
    for count in range(2, 40):
        with team.computing(count):
            machine.compute()
        assert len(machine.pools) <= POOLS_MAX
    machine.is_freed = True
    team.close()
    assert machine.pools == {}


def test_where_nothing_can_be_placed_only_the_count_is_set():
    [machine], [team] = teams_of(4, 1)
    machine.can_place = False
    with team.computing(4):
        assert (machine.count, machine.pools) == (4, {})


# -- the real one -------------------------------------------------------------------------------

TASKS = Path("/proc/self/task")
ALL = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


@pytest.fixture
def weights():
    from appliance.catalog.catalog import load, shipped_path
    from appliance.core.clock import SystemClock
    from appliance.engine.loader import LlamaLoader
    from appliance.settings import EngineSettings

    folder = Path(__file__).parent  # no models but the built-in one
    spec = load(shipped_path(), folder / "none.toml", folder).find("all-minilm-l6-v2")
    loader = LlamaLoader(EngineSettings(), cores=len(ALL), tunings=None, clock=SystemClock())
    opened = loader.open_weights(spec)
    yield opened
    opened.close()


def threads_now():
    return {int(task.name) for task in TASKS.iterdir()}


@pytest.mark.skipif(len(ALL) < 2, reason="one core has no other")
def test_threads_of_the_real_openmp_have_cores_of_their_own_whatever_the_team_was(weights):
    """The first call has more threads than cores: it leaves threads that nobody placed."""
    if not process_cores().claim(2, frozenset(ALL), last=frozenset()):
        pytest.skip("other processes use the cores")
    process_cores().release(frozenset(sorted(ALL)[:2]))
    sequence = paragraph(weights)
    seen = {}

    def work():
        backend = weights.open_backend(weights.limits, flash_attention=None)
        before = threads_now()
        for count in (len(ALL) + 1, 2, len(ALL) + 1, len(ALL), 2, 1, 2):
            backend.compute([sequence], threads=count)
            made = threads_now() - before
            seen[len(seen), count] = [os.sched_getaffinity(thread) for thread in made]
            assert os.sched_getaffinity(0) == ALL
        backend.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert len(seen) == 7
    for (_, count), placed in seen.items():
        if 1 < count <= len(ALL):
            assert len(placed) == count - 1
            assert [len(cores) for cores in placed] == [1] * len(placed)
            assert len(set().union(*placed)) == len(placed)


@pytest.mark.skipif(len(ALL) < 2, reason="one core has no other")
def test_no_two_threads_of_a_busy_call_share_a_core_while_another_is_free(weights):
    sequence, ready, ended = paragraph(weights), threading.Event(), threading.Event()
    team = []

    def work():
        backend = weights.open_backend(weights.limits, flash_attention=None)
        before = threads_now()
        backend.compute([sequence], threads=2)
        team.extend([threading.get_native_id(), *(threads_now() - before)])
        ready.set()
        while not ended.is_set():
            backend.compute([sequence] * 16, threads=2)
        backend.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert ready.wait(30)
        assert len(team) == 2
        both = shared = 0
        for _ in range(1_000_000):
            states = [state_of(each) for each in team]
            if all(running for running, _ in states):
                both += 1
                shared += states[0][1] == states[1][1]
            if both == 300:
                break
    finally:
        ended.set()
        thread.join(60)
    assert both > 0
    # Between calls the caller has all cores, for the time of a little Python.
    assert shared <= both * 0.1


def state_of(thread):
    """Return whether a thread runs, and the core it is on."""
    fields = (TASKS / str(thread) / "stat").read_text().rpartition(") ")[2].split()
    return fields[0] == "R", int(fields[36])


def paragraph(weights):
    from appliance.sequences.sequence import TokenSequence

    tokens = np.random.default_rng(0).integers(1000, 20_000, 16, dtype=np.int32)
    return TokenSequence(tokens, 16, truncated=False)
