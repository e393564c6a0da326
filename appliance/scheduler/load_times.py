"""Load times: how long each model took to load on this machine, over restarts.

Owns a small file beside the models. What is lost or damaged is replaced by a guess, which only
makes a `Retry-After` less exact.
"""

import logging
from contextlib import suppress
from pathlib import Path

import msgspec

from appliance.catalog.spec import ModelSpec
from appliance.core.histogram import Histogram
from appliance.store.datadir import write_private

log = logging.getLogger("gigarouter.residency")

LOAD_BYTES_PER_S = 200_000_000
"""Bytes of a file that are loaded in a second: a first guess, which real loads replace."""
BOUNDS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class LoadTimes:
    """Seconds by file and pooling."""

    def __init__(self, path: Path | None) -> None:
        """Read what is kept at `path`; None: nothing is kept."""
        self._path = path
        self.seconds = Histogram(BOUNDS_S)
        """Of the loads of this process."""
        self._known: dict[str, float] = {}
        if path is not None:
            with suppress(OSError, msgspec.MsgspecError):
                self._known = msgspec.json.decode(path.read_bytes(), type=dict[str, float])

    def expected_s(self, spec: ModelSpec) -> float:
        """Return the seconds that the next load will take, as far as is known."""
        size = spec.path.stat().st_size if spec.path.exists() else 0
        return self._known.get(_key(spec), size / LOAD_BYTES_PER_S)

    def learn(self, spec: ModelSpec, seconds: float) -> None:
        """Remember a load."""
        self.seconds.add(seconds)
        self._known[_key(spec)] = round(seconds, 3)
        if self._path is None:
            return
        try:
            write_private(self._path, msgspec.json.encode(self._known))
        except OSError as error:
            log.warning("load times are not kept: %s", error)


def _key(spec: ModelSpec) -> str:
    return f"{spec.path.name}|{spec.entry.pooling}"
