"""What bodies and answers may take in memory: in all, for each key, and nothing kept afterwards."""

import random
from contextlib import suppress

import pytest

from appliance.accounts.held_bytes import HeldBytes
from appliance.core.errors import QueueFull
from appliance.core.limits import HELD_BYTES_LEAST, HELD_BYTES_MOST, Limits


def test_a_key_holds_no_more_than_its_share():
    held = HeldBytes(bytes_max=1000, per_key_max=400)
    first, second = held.of_call("a"), held.of_call("a")
    first.take(300)
    with pytest.raises(QueueFull) as refused:
        second.take(101)
    assert refused.value.retry_after_s > 0
    second.take(100)
    held.of_call("b").take(400)
    assert held.total == 800


def test_all_keys_together_hold_no_more_than_the_whole():
    held = HeldBytes(bytes_max=1000, per_key_max=400)
    calls = [held.of_call(name) for name in "abc"]
    for call in calls[:2]:
        call.take(400)
    with pytest.raises(QueueFull):
        calls[2].take(201)
    calls[0].release()
    calls[2].take(400)
    assert held.total == 800


def test_a_call_alone_is_answered_however_large_it_is():
    held = HeldBytes(bytes_max=1000, per_key_max=400)
    large = held.of_call("a")
    large.take(900)
    large.take(5000)
    with pytest.raises(QueueFull):
        held.of_call("a").take(1)
    with pytest.raises(QueueFull):
        held.of_call("b").take(1)
    large.release()
    held.of_call("b").take(1)


def test_what_is_refused_is_not_counted_and_what_is_released_is_forgotten():
    chance = random.Random(20_261_126)
    held = HeldBytes(bytes_max=1000, per_key_max=400)
    for _ in range(50):
        calls = [held.of_call(chance.choice("abcd")) for _ in range(20)]
        for call in calls:
            for _ in range(3):
                with suppress(QueueFull):
                    call.take(chance.randrange(300))
            assert held.total <= 1000
        for call in calls:
            call.release()
            call.release()
        assert held.total == 0
        assert "0 keys" in repr(held)


@pytest.mark.parametrize("memory", [0, 10**8, 2 * 10**9, 10**10, 10**13])
def test_the_bound_follows_the_memory_of_the_machine(memory):
    limits = Limits.of_machine(memory)
    assert HELD_BYTES_LEAST <= limits.held_bytes_max <= HELD_BYTES_MOST
    assert limits.held_bytes_per_key_max == limits.held_bytes_max // 4
    assert limits.held_bytes_per_key_max >= limits.body_bytes_max
