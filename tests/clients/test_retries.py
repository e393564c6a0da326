"""Retries as SDKs make them by themselves: restarts and deaths under load, and refusals that stay."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import cohere
import httpx
import openai
import pytest
from cohere.core.api_error import ApiError

from appliance.core.units import picocredits
from tests.money.audit import Books
from tests.server import EMBED, Server, child_of

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecationWarning")
CLIENTS = 3
"""Threads of each SDK, each with a client of its own."""
BACK_S = 60.0
CUT = (httpx.RemoteProtocolError, httpx.ReadError)
"""How Cohere's SDK says that a connection ended without an answer; it does not try again then."""


Call = Callable[[], Mapping[str, str]]
"""Embeds two texts; returns the headers of the answer."""


@contextmanager
def by_openai(server: Server, key: str) -> Iterator[Call]:
    def call():
        answer = sdk.embeddings.with_raw_response.create(model=EMBED, input=["a cat", "a dog"])
        assert len(answer.parse().data) == 2
        return answer.headers

    with openai.OpenAI(api_key=key, base_url=f"{server.url}/v1") as sdk:
        assert sdk.max_retries == 2
        yield call


@contextmanager
def by_cohere(server: Server, key: str) -> Iterator[Call]:
    def call():
        answer = sdk.with_raw_response.embed(
            model=EMBED,
            texts=["a cat", "a dog"],
            input_type="search_document",
            embedding_types=["float"],
        )
        assert len(answer.data.embeddings.float_) == 2
        return answer.headers

    with cohere.ClientV2(key, base_url=server.url) as sdk:
        yield call


SDKS = {"openai": by_openai, "cohere": by_cohere}


@dataclass
class Calls:
    """Clients of one SDK, which call until they are told to stop."""

    sdk: str
    server: Server
    key: str
    stop: threading.Event = field(default_factory=threading.Event)
    costs: dict[str, int] = field(default_factory=dict)
    """What each answered call cost, by its id."""
    errors: list[Exception] = field(default_factory=list)
    """What the SDK gave up with."""
    threads: list[threading.Thread] = field(default_factory=list)

    def begin(self) -> "Calls":
        self.threads = [threading.Thread(target=self._call) for _ in range(CLIENTS)]
        for thread in self.threads:
            thread.start()
        return self

    def end(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(BACK_S)
            assert not thread.is_alive()

    def wait_for(self, more: int) -> None:
        """Return once so many more calls were answered."""
        wanted, deadline = len(self.costs) + more, time.monotonic() + BACK_S
        while len(self.costs) < wanted:
            assert time.monotonic() < deadline, self.errors
            time.sleep(0.02)

    def _call(self) -> None:
        with SDKS[self.sdk](self.server, self.key) as call:
            while not self.stop.is_set():
                try:
                    headers = call()
                except Exception as error:  # noqa: BLE001 - each is looked at
                    self.errors.append(error)
                    continue
                self.costs[headers["x-request-id"]] = picocredits(headers["x-cost"])


@pytest.fixture
def server(make_server):
    return make_server().start("--fake", supervise=True)


def begin(server: Server) -> dict[str, Calls]:
    found = {}
    for name in SDKS:
        found[name] = Calls(name, server, str(server.mint(name, credit="1000")["key"])).begin()
    for calls in found.values():
        calls.wait_for(20)
    return found


def test_a_rolling_restart_loses_nothing_and_charges_nothing_twice(server):
    found = begin(server)
    for _ in range(2):
        assert server.stop() == 0
        server.start("--fake", supervise=True)
        for calls in found.values():
            calls.wait_for(20)
    for calls in found.values():
        calls.end()
    assert {name: calls.errors for name, calls in found.items()} == {"openai": [], "cohere": []}
    assert server.stop() == 0
    books = Books(server.data_dir)
    assert books.problems == []
    assert books.charged == found["openai"].costs | found["cohere"].costs
    assert books.refunded == {}


def test_a_death_of_the_server_loses_nothing_that_was_answered_and_charges_nothing_twice(server):
    found, deaths = begin(server), 3
    for _ in range(deaths):
        child = child_of(server.process.pid)
        assert child is not None
        os.kill(child, signal.SIGKILL)
        for calls in found.values():
            calls.wait_for(20)
    for calls in found.values():
        calls.end()
    assert found["openai"].errors == []
    # A call that was cut is tried again by one SDK, and given up by the other.
    assert [each for each in found["cohere"].errors if not isinstance(each, CUT)] == []
    assert len(found["cohere"].errors) <= deaths * CLIENTS
    assert server.stop() == 0
    books = Books(server.data_dir)
    assert books.problems == []
    delivered = found["openai"].costs | found["cohere"].costs
    kept = {call: cost for call, cost in books.charged.items() if call not in books.refunded}
    assert kept.items() <= delivered.items()
    # What was answered is charged, but for the last calls before a death, which are given back.
    assert delivered.items() <= books.charged.items()


def refused(call: Call, monkeypatch) -> tuple[int, list[float]]:
    """Return the status that an SDK gives up with, and how long it slept before that."""
    sleeps: list[float] = []
    with monkeypatch.context() as patched:
        patched.setattr(time, "sleep", sleeps.append)
        with pytest.raises((openai.APIStatusError, ApiError)) as error:
            call()
    return int(error.value.status_code), sleeps


@pytest.mark.parametrize("sdk", SDKS)
def test_without_credit_no_sdk_tries_again(server, monkeypatch, sdk):
    with SDKS[sdk](server, str(server.mint(credit="0")["key"])) as call:
        assert refused(call, monkeypatch) == (402, [])


@pytest.mark.parametrize("sdk", SDKS)
@pytest.mark.parametrize("status", [402, 429])
def test_a_daily_budget_that_is_spent_lets_no_sdk_sleep_where_it_can_be_told(
    make_server, monkeypatch, sdk, status
):
    env = {"GIGAROUTER_DAILY_BUDGET_STATUS": str(status)}
    server = make_server().start("--fake", env=env)
    with SDKS[sdk](server, str(server.mint(daily_budget="0.000000001")["key"])) as call:
        answered, sleeps = refused(call, monkeypatch)
    assert answered == status
    if (sdk, status) == ("cohere", 429):
        # It heeds Retry-After alone, and of that a minute at most: 402 is the setting for it.
        assert len(sleeps) == 2
        assert max(sleeps) <= 60
    else:
        assert sleeps == []
