"""Load times: how long each model took to load on this machine, over restarts.

Owns a small file beside the models. It forgets quietly: a first guess costs nobody much.
"""

import logging
from contextlib import suppress
from pathlib import Path

import msgspec

from appliance.catalog.spec import ModelSpec
from appliance.store.datadir import write_private

log = logging.getLogger("gigarouter.residency")

LOAD_BYTES_PER_S = 200_000_000
"""The first guess of how fast a file is loaded; real loads replace it."""


class LoadTimes:
    """Seconds by the name of the file."""

    def __init__(self, path: Path | None) -> None:
        """`path` is where they are kept; None: they are not."""
        self._path = path
        self._known: dict[str, float] = {}
        if path is not None:
            with suppress(OSError, msgspec.MsgspecError):
                self._known = msgspec.json.decode(path.read_bytes(), type=dict[str, float])

    def expected_s(self, spec: ModelSpec) -> float:
        """Return how long the next load will take, as far as can be told."""
        size = spec.path.stat().st_size if spec.path.exists() else 0
        return self._known.get(_key(spec), size / LOAD_BYTES_PER_S)

    def learn(self, spec: ModelSpec, seconds: float) -> None:
        """Remember a load."""
        self._known[_key(spec)] = round(seconds, 3)
        if self._path is None:
            return
        try:
            write_private(self._path, msgspec.json.encode(self._known))
        except OSError as error:
            log.warning("load times are not kept: %s", error)


def _key(spec: ModelSpec) -> str:
    return f"{spec.path.name}|{spec.entry.pooling}"
