"""Cache: the vectors of texts that may come again.

Owns a bounded number of bytes; what was used least recently goes first. Keeps hashes of token ids
and the rows computed from them, never a text. Off unless the operator gives it memory.
"""

import threading
from collections import OrderedDict

from appliance.engine.vectors import Matrix
from appliance.scheduler.job import Digest

ENTRY_BYTES = 400
"""Bytes that Python needs beside a row: the key, the array's header and the dictionary's slot."""


class VectorCache:
    """Rows by load of weights and content; safe from every thread."""

    def __init__(self, bytes_max: int) -> None:
        """`bytes_max` of 0 keeps nothing."""
        self._bytes_max = bytes_max
        self._bytes = 0
        self._rows: OrderedDict[tuple[int, Digest], Matrix] = OrderedDict()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """Say how much is in it."""
        return f"<VectorCache [{len(self._rows)} rows | {self._bytes}/{self._bytes_max} bytes]>"

    def find(self, load: int, digest: Digest) -> Matrix | None:
        """Return what was kept, or None; `load` is the number of the load of weights."""
        if not self._bytes_max:
            return None
        with self._lock:
            row = self._rows.get((load, digest))
            if row is not None:
                self._rows.move_to_end((load, digest))
            return row

    def keep(self, load: int, digest: Digest, row: Matrix) -> None:
        """Keep a copy of a sequence's row or rows, and drop the oldest ones for it."""
        if not self._bytes_max:
            return
        with self._lock:
            if (load, digest) in self._rows:
                return
            self._rows[load, digest] = row.copy()
            self._bytes += row.nbytes + ENTRY_BYTES
            while self._bytes > self._bytes_max:
                _, oldest = self._rows.popitem(last=False)
                self._bytes -= oldest.nbytes + ENTRY_BYTES
