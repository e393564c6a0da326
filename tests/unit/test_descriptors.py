"""The limit of open descriptors: raised at start, and connections stay below it."""

import resource

import pytest

from appliance import descriptors
from appliance.core.errors import InvalidSettings
from appliance.descriptors import CONNECTIONS_MAX, SOFT_MAX, Descriptors


@pytest.fixture
def limits(monkeypatch):
    """The limit of a made-up process: (soft, hard)."""
    held = {"now": (1024, 4096)}

    def change(_, wanted):
        hard = held["now"][1]
        if wanted[0] > hard >= 0:
            raise ValueError("not allowed to raise maximum limit")
        held["now"] = wanted

    monkeypatch.setattr(descriptors.resource, "getrlimit", lambda _: held["now"])
    monkeypatch.setattr(descriptors.resource, "setrlimit", change)
    return held


@pytest.mark.parametrize(
    ("soft", "hard", "after"),
    [
        (1024, 4096, 4096),
        (1024, 1_048_576, SOFT_MAX),
        (1024, resource.RLIM_INFINITY, SOFT_MAX),
        (1_000_000, 1_048_576, 1_000_000),  # never lowered
        (256, 256, 256),
    ],
)
def test_the_soft_limit_is_raised_to_the_hard_one_within_a_bound(limits, soft, hard, after):
    limits["now"] = (soft, hard)
    assert descriptors.current().soft == after, "doctor says what a server would have"
    assert limits["now"] == (soft, hard)
    assert descriptors.raise_limit().soft == after
    assert limits["now"] == (after, hard)


def test_a_system_that_refuses_keeps_its_limit(limits, monkeypatch):
    def refuse(*_):
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(descriptors.resource, "setrlimit", refuse)
    assert descriptors.raise_limit().soft == 1024


@pytest.mark.parametrize("soft", [56, 64, 100, 256, 1024, 4096, 5000, SOFT_MAX])
def test_connections_stay_below_the_limit_with_a_reserve_for_files(soft):
    found = Descriptors(soft, soft)
    assert 8 <= found.connections <= CONNECTIONS_MAX
    assert soft - found.connections >= descriptors.RESERVE_MIN
    assert found.are_few == (found.connections < 512)


def test_a_limit_without_room_for_connections_is_refused_by_its_name(limits):
    limits["now"] = (40, 40)
    with pytest.raises(InvalidSettings, match=r"ulimit -n: is 40; a server needs 56"):
        descriptors.raise_limit()
