"""Lines: the input of a batch, read line by line and checked before anything is computed.

Owns the form of a line. A file is never in memory as a whole: one line of it is, and of all lines
what tells their custom_ids apart.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import msgspec

from appliance.core.errors import InvalidRequest
from appliance.core.limits import Limits
from appliance.ledger.batches import BatchError
from appliance.wire.json import decode

ERRORS_MAX = 100
"""Errors of one file that are told."""
BLANK = b""
"""What stands for a line of spaces: not a request, and a line to whoever counts."""
CHUNK_LINES = 256
CHUNK_BYTES = 1_000_000
"""What is read of a file at one time, and one line more."""
DIGEST_BYTES = 12
"""Enough that two of 200,000 custom_ids are not mistaken for one another."""


class _Line(msgspec.Struct):
    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Line:
    """One request of a batch."""

    number: int
    """Of the line in the file, from 1."""
    custom_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found in a file."""

    total: int
    """Requests in it."""
    errors: list[BatchError]


class WrongLine(Exception):
    """A line is not a request of this batch."""

    def __init__(self, number: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.error = BatchError(code, message, param, number)


def raw_lines(file: BinaryIO, bytes_max: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield each line with its number; `BLANK` for a blank one, None for one that is too long."""
    number = 0
    while piece := file.readline(bytes_max + 2):
        number += 1
        if len(piece.rstrip(b"\r\n")) > bytes_max:
            while piece and not piece.endswith(b"\n"):
                piece = file.readline(bytes_max)
            yield number, None
        else:
            yield number, piece if piece.strip() else BLANK


def read_line(number: int, raw: bytes | None, endpoint: str, limits: Limits) -> Line:
    """Return a line as a request.

    Raises:
        WrongLine: it is none, or not one to this endpoint.
    """
    if raw is None:
        raise WrongLine(
            number, "line_too_long", f"the line is longer than {limits.body_bytes_max} bytes"
        )
    try:
        sent = decode(raw, _Line)
    except InvalidRequest as error:
        code = "missing_required_parameter" if "required field" in str(error) else "invalid_json"
        raise WrongLine(number, code, error.message, error.param) from None
    if not 1 <= len(sent.custom_id) <= limits.custom_id_chars_max:
        message = f"custom_id has 1 to {limits.custom_id_chars_max} characters"
        raise WrongLine(number, "invalid_custom_id", message, "custom_id")
    if sent.method != "POST":
        raise WrongLine(number, "invalid_method", "method is POST", "method")
    if sent.url != endpoint:
        message = f"url is the endpoint of the batch, {endpoint}, not {sent.url[:100]!r}"
        raise WrongLine(number, "invalid_url", message, "url")
    body = bytes(sent.body)
    if not body.startswith(b"{"):
        raise WrongLine(number, "invalid_body", "body is a JSON object", "body")
    return Line(number, sent.custom_id, body)


def check(
    file: BinaryIO, endpoint: str, limits: Limits, is_over: Callable[[], bool] = lambda: False
) -> Checked:
    """Return how many requests are in a file, and what is wrong with it: `ERRORS_MAX` at most.

    Gives up, with what was found, once `is_over`. Takes seconds: not for the loop's thread.
    """
    seen: dict[bytes, int] = {}
    errors: list[BatchError] = []
    total = 0
    for number, raw in raw_lines(file, limits.body_bytes_max):
        if len(errors) >= ERRORS_MAX or is_over():
            break
        if number > limits.batch_lines_max:
            most = limits.batch_lines_max
            message = f"a batch has {most} lines at most, blank ones included: split the file"
            errors.append(BatchError("too_many_lines", message, None, number))
            break
        if raw == BLANK:
            continue
        total += 1
        try:
            line = read_line(number, raw, endpoint, limits)
        except WrongLine as wrong:
            errors.append(wrong.error)
            continue
        digest = hashlib.blake2b(line.custom_id.encode(), digest_size=DIGEST_BYTES).digest()
        first = seen.setdefault(digest, number)
        if first != number:
            message = f"custom_id {line.custom_id[:100]!r} is that of line {first}, too"
            errors.append(BatchError("duplicate_custom_id", message, "custom_id", number))
    if not total and not errors:
        errors.append(BatchError("empty_file", "the file has no lines"))
    return Checked(total, errors)


def unanswered_lines(
    file: BinaryIO, endpoint: str, limits: Limits, done: bytearray
) -> Iterator[list[Line]]:
    """Yield the lines of a checked file that are not answered, some at a time."""
    some: list[Line] = []
    size = 0
    for number, raw in raw_lines(file, limits.body_bytes_max):
        if raw == BLANK or number >= len(done) or done[number]:
            continue
        line = read_line(number, raw, endpoint, limits)
        some.append(line)
        size += len(line.body)
        if len(some) >= CHUNK_LINES or size >= CHUNK_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some
