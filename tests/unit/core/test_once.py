"""A value that is made once, whichever threads ask for it."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from appliance.core.once import once

THREADS = 8


def asked_together(ask):
    """Return what each of eight threads gets that ask at the same moment."""
    gate = threading.Barrier(THREADS)

    def one():
        gate.wait(30)
        return ask()

    with ThreadPoolExecutor(THREADS) as threads:
        return [each.result() for each in [threads.submit(one) for _ in range(THREADS)]]


def test_threads_that_ask_together_get_the_same_value_of_one_call():
    calls, waiting = [], threading.Event()

    @once
    def make():
        calls.append(1)
        waiting.wait(0.05)
        return object()

    assert len(set(map(id, asked_together(make)))) == 1
    assert len(calls) == 1
    assert make() is make()
    assert len(calls) == 1


def test_an_error_is_not_kept():
    outcomes = [OSError("not yet"), "made"]

    @once
    def make():
        outcome = outcomes.pop(0)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    with pytest.raises(OSError, match="not yet"):
        make()
    assert make() == "made"
    assert make() == "made"
