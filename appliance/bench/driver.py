"""Driver: closed-loop clients that send one workload to one server.

Owns a minimal HTTP/1.1 client: on a small machine the client shares the cores with the server, so
it must take next to no time itself.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from urllib.parse import urlsplit

import msgspec

from appliance.core.clock import Clock
from appliance.core.errors import ServerUnreachable

ANSWER_SECONDS_MAX = 300.0
NS_PER_S = 1_000_000_000


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    total_tokens: int = 0


class _Answer(msgspec.Struct):
    usage: _Usage = field(default_factory=_Usage)


@dataclass(frozen=True, slots=True)
class Target:
    """One server under measurement."""

    url: str
    path: str
    key: str

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        if parts.scheme != "http" or parts.hostname is None:
            raise ServerUnreachable(f"{self.url} is not an http:// address")
        return parts.hostname, parts.port or 80


@dataclass(slots=True)
class Sample:
    """What was measured in one run of one workload."""

    latencies_ns: list[int] = field(default_factory=list)
    tokens: int = 0
    errors: int = 0
    first_error: str = ""
    elapsed_ns: int = 1

    def percentile_ms(self, share: float) -> float:
        """Return the latency that `share` of the requests did not exceed, in milliseconds."""
        if not self.latencies_ns:
            return float("nan")
        ordered = sorted(self.latencies_ns)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1e6

    @property
    def requests_per_s(self) -> float:
        """Answered requests for each second."""
        return len(self.latencies_ns) * NS_PER_S / self.elapsed_ns

    @property
    def tokens_per_s(self) -> float:
        """Tokens, as the server counts them, for each second; 0 when it does not count."""
        return self.tokens * NS_PER_S / self.elapsed_ns


async def drive(
    target: Target, bodies: Sequence[bytes], *, connections: int, seconds: float, clock: Clock
) -> Sample:
    """Send bodies in turn over keep-alive connections for some seconds.

    Raises:
        ServerUnreachable: no connection could be made.
    """
    sample = Sample()
    began_ns = clock.monotonic_ns()
    until_ns = began_ns + int(seconds * NS_PER_S)
    turns = cycle([_request(target, body) for body in bodies])

    async def client() -> None:
        while clock.monotonic_ns() < until_ns:
            try:
                reader, writer = await asyncio.open_connection(*target.address)
            except OSError as error:
                raise ServerUnreachable(f"{target.url}: {error}") from None
            try:
                while clock.monotonic_ns() < until_ns:
                    await _exchange(reader, writer, next(turns), sample, clock)
            except (OSError, EOFError, ValueError, TimeoutError) as error:
                sample.errors += 1
                sample.first_error = sample.first_error or repr(error)
            finally:
                writer.close()

    await asyncio.gather(*(client() for _ in range(connections)))
    sample.elapsed_ns = clock.monotonic_ns() - began_ns
    return sample


def _request(target: Target, body: bytes) -> bytes:
    host, port = target.address
    head = (
        f"POST {target.path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {target.key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body


async def _exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    request: bytes,
    sample: Sample,
    clock: Clock,
) -> None:
    began_ns = clock.monotonic_ns()
    async with asyncio.timeout(ANSWER_SECONDS_MAX):
        writer.write(request)
        status, body = await _answer(reader)
    if status != 200:  # noqa: PLR2004 - OK
        sample.errors += 1
        sample.first_error = sample.first_error or f"{status}: {body[:200]!r}"
        return
    sample.latencies_ns.append(clock.monotonic_ns() - began_ns)
    usage = msgspec.json.decode(body, type=_Answer).usage
    sample.tokens += usage.prompt_tokens or usage.total_tokens


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head[9:12])
    length = head.find(b"content-length:")
    if length >= 0:
        size = int(head[length + 15 : head.index(b"\r\n", length)])
        return status, await reader.readexactly(size)
    if b"transfer-encoding: chunked" not in head:
        raise ValueError("an answer without a length")
    chunks: list[bytes] = []
    while True:
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
        chunk = await reader.readexactly(size + 2)
        if not size:
            return status, b"".join(chunks)
        chunks.append(chunk[:-2])
