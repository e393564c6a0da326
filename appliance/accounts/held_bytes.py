"""HeldBytes: the memory that bodies and answers of calls may take, in all and for each key.

Owns the counting. A body is counted while it arrives and until its answer has left; an answer is
counted, as far as its size is known beforehand, before anything is computed for it.
"""

from collections import Counter

from appliance.core.errors import QueueFull

RETRY_S = 5


class HeldBytes:
    """Counts what the calls of one server hold."""

    def __init__(self, *, bytes_max: int, per_key_max: int) -> None:
        assert 0 < per_key_max <= bytes_max
        self._bytes_max = bytes_max
        self._per_key_max = per_key_max
        self.total = 0
        self._by_key: Counter[str] = Counter()

    def __repr__(self) -> str:
        """Say how much is held."""
        return f"<HeldBytes [{self.total} of {self._bytes_max}, {len(self._by_key)} keys]>"

    def of_call(self, key_id: str) -> "CallBytes":
        """Return the count of one call, which must be released."""
        return CallBytes(self, key_id)

    def require_room(self, key_id: str, count: int, *, own: int) -> None:
        """Refuse a call that would hold `count` bytes more than its `own`.

        Beside no other call there is always room: else one that is larger would never be answered.

        Raises:
            QueueFull: as said.
        """
        of_key = self._by_key.get(key_id, 0)
        if of_key > own and of_key + count > self._per_key_max:
            raise QueueFull(retry_after_s=RETRY_S)
        if self.total > own and self.total + count > self._bytes_max:
            raise QueueFull(retry_after_s=RETRY_S)

    def add(self, key_id: str, count: int) -> None:
        """Count bytes, or with a negative count no longer."""
        self.total += count
        self._by_key[key_id] += count
        if not self._by_key[key_id]:
            del self._by_key[key_id]


class CallBytes:
    """What one call holds."""

    def __init__(self, held: HeldBytes, key_id: str) -> None:
        self._held = held
        self._key_id = key_id
        self._count = 0

    def take(self, count: int) -> None:
        """Hold so many bytes more until `release`.

        Raises:
            QueueFull: all calls, or those of this key, hold too much already.
        """
        self._held.require_room(self._key_id, count, own=self._count)
        self._held.add(self._key_id, count)
        self._count += count

    def release(self) -> None:
        """Hold nothing any more; the second time does nothing."""
        self._held.add(self._key_id, -self._count)
        self._count = 0
