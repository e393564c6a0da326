"""Fixtures: a real server for the session, an appliance with a fake engine for each test."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import skips
from tests.server import Server

pytest_sessionfinish = skips.pytest_sessionfinish
# Where CI is set, Hypothesis would try the same examples each time; a busy machine is no failure.
settings.register_profile("gigarouter", derandomize=False, deadline=None, print_blob=True)
settings.load_profile("gigarouter")
# Under nohup, or in the background of a script, these are ignored, and so in every process that a
# test starts; one that has a handler is a default there.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A really started server with the starter model; tests must not stop it."""
    running = Server(tmp_path_factory.mktemp("server") / "data").start()
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log.read_text()


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Make servers of the test's own; they are ended with it."""
    made: list[Server] = []

    def make(name: str = "data") -> Server:
        made.append(Server(tmp_path / name))
        return made[-1]

    yield make
    for each in made:
        each.close()
