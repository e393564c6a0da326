"""State: what a service manager says of a service, and what it is asked to do."""

from pathlib import Path
from typing import Protocol

import msgspec

from appliance.service.definition import Definition


class ServiceState(msgspec.Struct, frozen=True):
    """What a service manager says of the service."""

    file: str
    """Where its definition is; empty: it is not installed."""
    data_dir: str
    """What its definition says; empty: nothing, or there is none."""
    enabled: str
    """Whether it starts by itself."""
    active: str
    pid: int
    since: str
    restarts: int
    """How often the service manager started it again."""
    log: list[str]
    """Its last lines."""


class ServiceManager(Protocol):
    """Runs a server as a service."""

    @property
    def file(self) -> Path:
        """Where the definition is written."""

    @property
    def settings_file(self) -> str:
        """Where more settings of the service are read from; empty: in its `config.toml` alone."""

    def text(self, definition: Definition) -> bytes:
        """Return what is written there."""

    def install(self, definition: Definition) -> None:
        """Write the definition, start the server, and again whenever the machine or user does.

        Raises:
            ServiceRefused: the manager is not there or refuses, or another's file is in the place.
        """

    def state(self) -> ServiceState:
        """Return how the service is.

        Raises:
            ServiceRefused: the manager is not there or refuses.
        """

    def remove(self) -> None:
        """Stop the server and take the definition away.

        Raises:
            ServiceRefused: the manager is not there or refuses, or the file is another's.
        """
