"""Batch marks: a crash mark for each batch while it is computed."""

from appliance.engine.crash_marker import KEYS_MAX, CrashMarker, Mark, digest_of
from appliance.scheduler.worker import Batch

MARKED_MAX = 32
"""Items of a batch whose keys are looked at for its mark."""


class BatchMarks:
    """The marks of one engine's batches; called under its lock."""

    def __init__(self, model: str, marker: CrashMarker | None) -> None:
        """Prepare; without a marker nothing is marked."""
        self._model = model
        self._marker = marker
        self._slots: dict[Batch, int] = {}

    def __repr__(self) -> str:
        """Count them."""
        return f"<BatchMarks [{len(self._slots)}]>"

    def begin(self, batch: Batch) -> None:
        """Mark a batch that is about to be computed."""
        if self._marker is None:
            return
        items = batch.items
        keys = {item.waiters[0][0].key for item in items[:MARKED_MAX] if item.waiters}
        mark = Mark(
            self._model,
            len(items),
            batch.tokens,
            max(map(len, items)),
            digest_of([item.digest for item in items]),
            tuple(sorted(keys)[:KEYS_MAX]),
        )
        self._slots[batch] = self._marker.begin(mark)

    def end(self, batch: Batch) -> None:
        """Take the mark of a batch away."""
        if self._marker is not None:
            self._marker.end(self._slots.pop(batch))
