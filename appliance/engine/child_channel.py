"""Child channel: how a server and the process of one model talk.

Owns the frames on their sockets, and the memory in which a batch goes there and its rows come back.
The process may have been taken over by the file that it computes, so that nothing of what it says
is trusted: frames are bounded, and it cannot shrink the memory under the server.
"""

import fcntl
import mmap
import os
import socket
import struct
import tempfile
from collections.abc import Sequence
from itertools import islice
from typing import cast

import msgspec
import numpy as np

from appliance.engine.backend import EngineLimits, ModelFacts
from appliance.engine.vectors import Matrix
from appliance.engine.weights_order import WeightsOrder
from appliance.sequences.sequence import Tokens, TokenSequence

FRAME_BYTES_MAX = 65_536
_LENGTH = struct.Struct("<I")
_BATCH = struct.Struct("<III")


class Ready(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a process says while it loads; one of its fields is set."""

    progress: float | None = None
    """The share of the weights that is in memory, 0 to 1."""
    facts: ModelFacts | None = None
    """They are loaded."""
    refused: str | None = None
    """Why they cannot be."""


class Opening(msgspec.Struct, frozen=True):
    """One more context is wanted; its socket and its memory come with it."""

    limits: EngineLimits
    flash_attention: bool | None


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of an opening or of a batch; without any field: it is done."""

    refused: str | None = None
    """Why this one is not; the next may be."""
    fatal: str | None = None
    """Why nothing more can be computed."""


Message = WeightsOrder | Ready | Opening | Answer


def _frame(message: Message) -> bytes:
    content = msgspec.json.encode(message)
    return _LENGTH.pack(len(content)) + content


_DONE = _frame(Answer())


def limit_silence(channel: socket.socket, seconds: float) -> None:
    """Let a read fail after so many seconds in which nothing came.

    The kernel counts them: a time-out of Python's would take one more system call for each read.
    """
    channel.setblocking(True)
    whole, rest = divmod(int(seconds * 1_000_000), 1_000_000)
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", whole, rest))


def receive_answer(channel: socket.socket) -> Answer:
    """Return the answer to what was sent last, the only one on its way.

    Raises:
        BlockingIOError: there is none within the seconds of `limit_silence`.
        OSError: the other side is gone, or says something else.
    """
    frame = _some(channel.recv(_LENGTH.size + FRAME_BYTES_MAX))
    if frame == _DONE:
        return Answer()
    while len(frame) < _LENGTH.size or len(frame) < _LENGTH.size + _LENGTH.unpack_from(frame)[0]:
        frame += _some(channel.recv(FRAME_BYTES_MAX))
        if len(frame) > _LENGTH.size + FRAME_BYTES_MAX:
            raise ConnectionError("it sent more than it may")
    return cast("Answer", _decoded(frame[_LENGTH.size :], Answer))


def send(channel: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """Send one message, and open files with it.

    Raises:
        OSError: the other side is gone.
    """
    frame = _DONE if message == Answer() else _frame(message)
    sent = socket.send_fds(channel, [frame], list(descriptors)) if descriptors else 0
    if sent < len(frame):
        channel.sendall(frame[sent:])


def receive(
    channel: socket.socket, kind: type, *, descriptors: int = 0
) -> tuple[object, list[int]]:
    """Return the next message and the open files that came with it.

    Raises:
        OSError: the other side is gone, or says something else; `TimeoutError` if it says nothing.
    """
    found: list[int] = []
    head = b""
    while len(head) < _LENGTH.size:
        piece, more, _, _ = socket.recv_fds(channel, _LENGTH.size - len(head), descriptors)
        found += more
        head += _some(piece)
    (left,) = _LENGTH.unpack(head)
    if left > FRAME_BYTES_MAX:
        raise ConnectionError("it sent more than it may")
    content = b""
    while len(content) < left:
        content += _some(channel.recv(left - len(content)))
    return _decoded(content, kind), found


def send_batch(channel: socket.socket, *, sequences: int, tokens: int, threads: int) -> None:
    """Say that a batch is in the memory.

    Raises:
        OSError: the other side is gone.
    """
    channel.sendall(_BATCH.pack(sequences, tokens, threads))


def receive_batch(channel: socket.socket) -> tuple[int, int, int] | None:
    """Return (sequences, tokens, threads) of the next batch; None: there will be no more."""
    head = b""
    while len(head) < _BATCH.size:
        piece = channel.recv(_BATCH.size - len(head))
        if not piece:
            return None
        head += piece
    sequences, tokens, threads = _BATCH.unpack(head)
    return sequences, tokens, threads


def _decoded(content: bytes, kind: type) -> object:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.MsgspecError as error:
        raise ConnectionError(f"it sent something else: {error}") from None


def _some(piece: bytes) -> bytes:
    if not piece:
        raise ConnectionError("it closed")
    return piece


class Exchange:
    """Memory that both processes see, with room for the largest batch of one context."""

    def __init__(self, descriptor: int, limits: EngineLimits, width: int) -> None:
        """Map it."""
        count = limits.sequences_max
        memory = mmap.mmap(descriptor, _bytes(limits, width))
        numbers = np.frombuffer(memory, np.int32)
        self._tokens = numbers[: limits.ubatch_tokens_max]
        tokens = limits.ubatch_tokens_max
        heads = numbers[2 * tokens :][: 3 * count].reshape(3, count)
        self._parts = numbers[tokens : 2 * tokens]
        """The tokens of each part of each sequence that has any."""
        self._lengths, self._segments, self._counts = heads
        start = 4 * (2 * tokens + 3 * count)
        # A row for each token at the most. What is not written takes no memory.
        self._rows = np.frombuffer(memory, np.float32, offset=start).reshape(tokens, width)

    def put(self, sequences: Sequence[TokenSequence], tokens: Tokens) -> None:
        """Write a batch; `tokens` are those of all its sequences, int32[n_tokens]."""
        count = len(sequences)
        self._tokens[: len(tokens)] = tokens
        self._lengths[:count] = [len(sequence) for sequence in sequences]
        self._segments[:count] = [sequence.segment_b for sequence in sequences]
        self._counts[:count] = [len(sequence.parts) for sequence in sequences]
        parts = [part for sequence in sequences for part in sequence.parts]
        self._parts[: len(parts)] = parts

    def sequences(self, count: int) -> list[TokenSequence]:
        """Return a batch of so many sequences, in place."""
        ends = np.cumsum(self._lengths[:count]).tolist()
        starts = [0, *ends[:-1]]
        parts = iter(self._parts.tolist() if self._counts[:count].any() else ())
        return [
            TokenSequence(
                self._tokens[start:end], segment, truncated=False, parts=tuple(islice(parts, of))
            )
            for start, end, segment, of in zip(
                starts,
                ends,
                self._segments[:count].tolist(),
                self._counts[:count].tolist(),
                strict=True,
            )
        ]

    def put_rows(self, rows: Matrix) -> None:
        """Write the result, float32[n_rows, width]."""
        self._rows[: len(rows)] = rows

    def rows(self, count: int) -> Matrix:
        """Return a copy of the result, float32[count, width]."""
        return self._rows[:count].copy()


def open_memory(limits: EngineLimits, width: int) -> int:
    """Return a descriptor of new memory for an `Exchange`; nobody can change its size."""
    size = _bytes(limits, width)
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("gigarouter", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.truncate(descriptor, size)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        return descriptor
    with tempfile.TemporaryFile() as file:
        file.truncate(size)
        return os.dup(file.fileno())


def _bytes(limits: EngineLimits, width: int) -> int:
    return 4 * (limits.ubatch_tokens_max * (2 + width) + 3 * limits.sequences_max)
