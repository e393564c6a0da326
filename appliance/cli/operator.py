"""Operator: the verbs of the command line, done by the running server or without one.

Owns the choice between the two: with a server running, its admin API; without one, the data
directory under its lock. The result is the same.
"""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import msgspec

from appliance.cli.verbs import Verb
from appliance.core.errors import ApplianceError, DataDirBusy, ServerUnreachable
from appliance.store.datadir import DataDir

if TYPE_CHECKING:
    from appliance.admin.operator_api import OperatorApi

T = TypeVar("T")

ANSWER_SECONDS = 600.0
"""Adding a model copies or converts gigabytes."""
CONNECT_SECONDS = 5.0
STARTING_ATTEMPTS = 50
"""Tries, a tenth of a second apart, while another command works or a server does not listen yet."""


class Operator(Protocol):
    """Does verbs."""

    def do(self, verb: Verb[T], *names: str, order: Any = None) -> T:
        """Return what the verb answers.

        Raises:
            ApplianceError: it was refused.
        """
        ...


@contextmanager
def reach(directory: DataDir) -> Iterator[Operator]:
    """Yield the operator of a data directory.

    Raises:
        ServerUnreachable: a server owns the directory and does not answer.
        StoreFailed: no server runs and the database cannot be opened.
    """
    with ExitStack() as stack:
        yield _enter(directory, stack)


def _enter(directory: DataDir, stack: ExitStack) -> Operator:
    """Wait until the directory is free or its server listens, whichever comes first."""
    import time  # noqa: PLC0415 - only here

    for _ in range(STARTING_ATTEMPTS):
        if not directory.is_locked():
            # Another command may be quicker.
            with suppress(DataDirBusy):
                return stack.enter_context(_locally(directory))
        note = directory.read_note()
        # A server that was killed leaves its note behind.
        if note is not None and note.pid == directory.owner():
            return stack.enter_context(
                Remote(note.connect_url or note.url, directory.admin_token())
            )
        time.sleep(0.1)
    raise ServerUnreachable(f"a process owns {directory.path} but serves nothing; is it starting?")


@contextmanager
def _locally(directory: DataDir) -> "Iterator[Local]":
    # Imported late: these bring numpy and SQLite, which a remote command does not need.
    from appliance import settings  # noqa: PLC0415
    from appliance.admin.models import Models  # noqa: PLC0415
    from appliance.admin.operator_api import OperatorApi  # noqa: PLC0415
    from appliance.core.clock import SystemClock  # noqa: PLC0415
    from appliance.core.limits import Limits  # noqa: PLC0415
    from appliance.engine.screening import Screening, trusted  # noqa: PLC0415
    from appliance.hub.downloads import Downloads  # noqa: PLC0415
    from appliance.ledger.backup_schedule import BackupSchedule  # noqa: PLC0415
    from appliance.ledger.books import open_books  # noqa: PLC0415

    limits = Limits()
    with directory.locked(), open_books(directory, SystemClock(), limits) as books:
        chosen = settings.load(directory.path, {})
        schedule, downloads = (
            BackupSchedule(directory, chosen.backup, books.clock),
            Downloads(books.clock),
        )
        models = Models.read(directory)
        try:
            screen = trusted if chosen.fake_engine else Screening(directory.models).require
            yield Local(
                OperatorApi.over(
                    directory, books, models, schedule, limits, downloads, chosen, screen=screen
                )
            )
        finally:
            downloads.close()


class Local:
    """Acts on the data directory itself."""

    def __init__(self, admin: "OperatorApi") -> None:
        self._admin = admin

    def do(self, verb: Verb[T], *names: str, order: Any = None) -> T:
        """Call the operator's API."""
        arguments = names if order is None else (*names, order)
        return asyncio.run(verb.act(self._admin)(*arguments))


class Remote:
    """Asks the running server."""

    def __init__(self, url: str, token: str) -> None:
        import httpx2  # noqa: PLC0415 - a tenth of a second that other commands need not wait

        self._errors = httpx2.HTTPError
        self._client = httpx2.Client(
            base_url=f"{url.replace('0.0.0.0', '127.0.0.1')}/admin/v1",  # noqa: S104 - as bound
            headers={"authorization": f"Bearer {token}"},
            timeout=httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            trust_env=False,  # a proxy from the environment must not see the admin token
            verify=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def do(self, verb: Verb[T], *names: str, order: Any = None) -> T:
        """Send the verb to the server."""
        content = None if order is None else msgspec.json.encode(order)
        path = verb.path.format(*map(_quoted, names))
        try:
            answer = self._client.request(verb.method, path, content=content)
        except self._errors as error:
            raise ServerUnreachable(f"the server does not answer: {error}") from None
        if answer.status_code >= 400:  # noqa: PLR2004 - every refusal
            raise _as_error(answer.content)
        try:
            return msgspec.json.decode(answer.content, type=verb.answer)
        except msgspec.MsgspecError:
            raise ServerUnreachable(
                "the server is of another version of gigarouter; start it again"
            ) from None


class _ErrorBody(msgspec.Struct):
    detail: str


def _as_error(content: bytes) -> ApplianceError:
    try:
        return ServerUnreachable(msgspec.json.decode(content, type=_ErrorBody).detail)
    except msgspec.DecodeError:
        return ServerUnreachable("the server answered something that is not ours")


def _quoted(name: str) -> str:
    from urllib.parse import quote  # noqa: PLC0415

    return quote(name, safe="") or "-"
