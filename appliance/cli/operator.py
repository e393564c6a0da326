"""Operator: how commands reach an appliance, with a running server or without one.

Owns the choice between the two: the admin API of the server that runs, or the data directory under
its lock. The results are the same.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Protocol, TypeVar

import click
import msgspec

from appliance.cli.local import opened
from appliance.client.verbs import Verb
from appliance.client.watch import Watch
from appliance.core.errors import DataDirBusy, ServerUnreachable
from appliance.core.version import program_version, skew
from appliance.store.datadir import DataDir

T = TypeVar("T")

STARTING_ATTEMPTS = 50
"""Tries, 0.1 s apart, while another command works or a server does not listen yet."""


class Operator(Protocol):
    """Carries out the verbs of `appliance.client.verbs`."""

    def do(
        self,
        verb: Verb[T],
        *names: str,
        order: msgspec.Struct | None = None,
        watch: Watch[Any] | None = None,
    ) -> T:
        """Return what the verb answers; `watch` is looked at meanwhile.

        Raises:
            ApplianceError: the verb was refused, or the server does not answer.
        """
        ...


@contextmanager
def reach(directory: DataDir) -> Iterator[Operator]:
    """Yield the operator of a data directory.

    Raises:
        ServerUnreachable: a process owns the directory and serves nothing.
        StoreFailed: no server runs and the database cannot be opened.
    """
    with ExitStack() as stack:
        yield _enter(directory, stack)


def _enter(directory: DataDir, stack: ExitStack) -> Operator:
    """Wait until the directory is free or its server listens, whichever comes first."""
    for _ in range(STARTING_ATTEMPTS):
        if not directory.is_locked():
            # Another command may take the lock first.
            with suppress(DataDirBusy):
                return stack.enter_context(opened(directory))
        note = directory.server()
        if note is not None:
            # Imported late: the HTTP client takes a tenth of a second.
            from appliance.client.caller import Caller  # noqa: PLC0415
            from appliance.client.local_server import LocalServer  # noqa: PLC0415

            if said := skew(note.version, program_version()):
                click.echo(f"gigarouter: {said}", err=True)
            token = LocalServer(directory.path).token()
            return stack.enter_context(Caller(note.url, token, connect_url=note.connect_url))
        time.sleep(0.1)
    raise ServerUnreachable(f"a process owns {directory.path} but serves nothing; is it starting?")
