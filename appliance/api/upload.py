"""Upload: a file in a multipart/form-data body, on its way to the disk.

Owns the form's fields and bounds. The file is parsed while it arrives and never wholly in memory.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from appliance.accounts.key import Key
from appliance.api.request import AnyRequest, body_pieces, discard_rest
from appliance.batches.file_store import FileStore, Upload
from appliance.core.errors import ApplianceError, BodyTooLarge, InvalidRequest
from appliance.core.limits import Limits
from appliance.ledger.files import StoredFile

FORM_BYTES_MAX = 64 * 1024
"""Of the form beside the file."""
FIELDS_MAX = 32
FILENAME_CHARS_MAX = 255
PURPOSE = "batch"


def upload_limits(limits: Limits) -> Limits:
    """Return the bounds with those of an upload's body."""
    return replace(limits, text_bytes_max=1, body_bytes_max=limits.file_bytes_max + FORM_BYTES_MAX)


async def receive(request: AnyRequest, limits: Limits, store: FileStore, key: Key) -> StoredFile:
    """Return the file of a form, which is kept for its key.

    Raises:
        InvalidRequest: the form is wrong, or the key has too many files; `param` names the field.
        BodyTooLarge: the file, or the form around it, has more bytes than allowed.
        StorageFull, LedgerUnavailable, QueueFull: it cannot be kept now.
    """
    bounds = upload_limits(limits)
    try:
        parser = PushMultipartParser(
            _boundary(request), max_segment_count=FIELDS_MAX, max_header_count=FIELDS_MAX
        )
        async with store.arriving(key, await store.used(key)) as (file_id, upload):
            form = _Form(upload)
            async for piece in body_pieces(request, bounds):
                for event in _events(parser, piece):
                    await form.take(event)
            for event in _events(parser, b""):  # its end
                await form.take(event)
            return await store.keep(key, file_id, upload, form.filename())
    except ApplianceError as error:
        await discard_rest(request, limits)
        if isinstance(error, BodyTooLarge):
            raise BodyTooLarge(bytes_max=limits.file_bytes_max) from None
        raise


def _boundary(request: AnyRequest) -> str:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != "multipart/form-data" or not options.get("boundary"):
        raise InvalidRequest(
            "send the file as multipart/form-data with a boundary (curl: -F purpose=batch -F "
            "file=@requests.jsonl)",
            param="Content-Type",
        )
    return str(options["boundary"])


def _events(parser: PushMultipartParser, piece: bytes) -> Iterator[Any]:
    """Yield what the parser finds: a field's beginning, its content, and None at its end."""
    try:
        yield from parser.parse(piece)
    except MultipartError as error:
        raise InvalidRequest(f"The form is not valid multipart/form-data: {error}.") from None


class _Form:
    """The fields of one form, as they come."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload
        self._fields: dict[str, bytearray] = {}
        self._bytes = 0
        self._filename: str | None = None
        self._now: MultipartSegment | None = None
        """The field whose content comes."""

    async def take(self, event: Any) -> None:
        """Take an event of the parser."""
        if event is None:
            self._now = None
        elif isinstance(event, MultipartSegment):
            self._begin(event)
        elif self._now is not None and self._now.name == "file":
            await self._upload.write(event)
        elif self._now is not None:
            self._bytes += len(event)
            if self._bytes > FORM_BYTES_MAX:
                raise InvalidRequest("The form's fields are too long.")
            self._fields[self._now.name or ""] += event

    def _begin(self, segment: MultipartSegment) -> None:
        self._now = segment
        if segment.name != "file":
            self._fields[segment.name or ""] = bytearray()
            return
        if self._filename is not None:
            raise InvalidRequest("file is there twice; send one", param="file")
        name = (segment.filename or "").replace("\\", "/").rpartition("/")[2]
        self._filename = name[:FILENAME_CHARS_MAX] or "file.jsonl"

    def filename(self) -> str:
        """Return the name of the file, once the form has ended.

        Raises:
            InvalidRequest: a field is missing or wrong.
        """
        purpose = bytes(self._fields.get("purpose", b"")).decode(errors="replace")
        if purpose != PURPOSE:
            raise InvalidRequest(f"purpose is {PURPOSE!r}", param="purpose")
        if self._filename is None:
            raise InvalidRequest("file is missing", param="file")
        return self._filename
