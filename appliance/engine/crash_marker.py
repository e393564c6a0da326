"""Crash marker: what native code computes now, in a file that outlives the process.

Owns the file: slots in memory that the kernel keeps when the process dies, so that the next one can
say what the last one died of. Nothing is flushed to the disk: a machine that crashes is another
matter. A slot holds the model, how much was computed for which keys, and a hash of the tokens;
never a text.
"""

import mmap
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import msgspec

from appliance import machine

SLOTS, SLOT_BYTES = 128, 512
KEYS_MAX = 4
"""Keys that a slot names, of those whose sequences are in a batch."""


class Mark(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that native code does."""

    model: str
    sequences: int = 0
    """0: the model is being loaded."""
    tokens: int = 0
    longest: int = 0
    digest: str = ""
    """Of the tokens."""
    keys: tuple[str, ...] = ()
    """Ids of keys that the sequences were computed for."""
    thread: int = 0
    """That called native code."""

    @property
    def words(self) -> str:
        """Say what was done."""
        if not self.sequences:
            return f"loading {self.model}"
        return (
            f"computing {self.sequences} sequences ({self.tokens} tokens, the longest "
            f"{self.longest}, digest {self.digest}) with {self.model} for {', '.join(self.keys)}"
        )


class CrashMarker:
    """The slots of one server; safe from every thread."""

    def __init__(self, path: Path) -> None:
        """Read what a process left that died, and begin anew.

        Raises:
            OSError: the file cannot be made.
        """
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        handle = os.open(path, flags, 0o600)
        try:
            size = SLOT_BYTES * (SLOTS + 1)
            content = os.pread(handle, size, 0)
            os.ftruncate(handle, 0)
            os.ftruncate(handle, size)
            if hasattr(os, "posix_fallocate"):  # a page without a place on the disk would be SIGBUS
                os.posix_fallocate(handle, 0, size)
            self._memory = mmap.mmap(handle, size)
        finally:
            os.close(handle)
        self.left = _marks(content)
        """What the process before died over; empty if it ended in good order."""
        boot = machine.boot_id().encode()[: SLOT_BYTES - 1]
        self._memory[: len(boot)] = boot
        self._lock = threading.Lock()
        self._free = list(range(SLOTS, 0, -1))

    def __repr__(self) -> str:
        """Count what is marked."""
        return f"<CrashMarker [{SLOTS - len(self._free)} marks]>"

    @contextmanager
    def loading(self, model: str) -> Iterator[None]:
        """Mark that a model is being loaded."""
        slot = self.begin(Mark(model))
        try:
            yield
        finally:
            self.end(slot)

    def begin(self, mark: Mark) -> int:
        """Mark what begins; return its slot, 0 if there is none left."""
        mark = msgspec.structs.replace(mark, thread=threading.get_ident())
        text = msgspec.json.encode(mark)
        if len(text) >= SLOT_BYTES:
            bare = Mark(mark.model[:200], mark.sequences, mark.tokens, thread=mark.thread)
            text = msgspec.json.encode(bare)
        with self._lock:
            slot = self._free.pop() if self._free else 0
        if slot and len(text) < SLOT_BYTES:
            at = slot * SLOT_BYTES
            self._memory[at : at + len(text) + 1] = text + b"\0"
        return slot

    def end(self, slot: int) -> None:
        """Take the mark away."""
        if slot:
            self._memory[slot * SLOT_BYTES] = 0
            with self._lock:
                self._free.append(slot)


def culprits(marks: Sequence[Mark], last_words: Sequence[str]) -> tuple[Mark, ...]:
    """Return what the thread did that died, by the stacks that faulthandler wrote.

    A thread of native code's own has no name there: then whatever was done is returned.
    """
    dying = [line for line in last_words if line.startswith("Current thread 0x")]
    known = tuple(mark for mark in marks if any(f"{mark.thread:016x}" in line for line in dying))
    return known or tuple(marks)


def digest_of(tokens: Sequence[bytes | memoryview]) -> str:
    """Return what the same sequences give again."""
    content = blake2b(digest_size=8)
    for each in tokens:
        content.update(each)
    return content.hexdigest()


def _marks(content: bytes) -> tuple[Mark, ...]:
    """Return the marks in a file that a process of this start of the machine left."""
    if content[:SLOT_BYTES].split(b"\0", 1)[0] != machine.boot_id().encode()[: SLOT_BYTES - 1]:
        return ()
    found = []
    for at in range(SLOT_BYTES, len(content), SLOT_BYTES):
        text = content[at : at + SLOT_BYTES].split(b"\0", 1)[0]
        if text:
            try:
                found.append(msgspec.json.decode(text, type=Mark))
            except msgspec.DecodeError:
                continue  # half written
    return tuple(found)
