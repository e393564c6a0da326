"""Files: `/v1/files`: what a key has uploaded, and the results of its batches; OpenAI's shapes."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import BinaryIO

from litestar import Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Stream

from appliance.api.keyed import asked_limit, require_key
from appliance.api.request import AnyRequest
from appliance.api.routes.public import answer
from appliance.api.services import Services
from appliance.api.upload import receive, upload_limits
from appliance.core.errors import InvalidRequest
from appliance.ledger.files import StoredFile
from appliance.wire.files import FileDeleted, FileList, FileView

PIECE_BYTES = 256 * 1024
PURPOSES = ("batch", "batch_output")
US_PER_S = 1_000_000


@post("/v1/files", status_code=200)
async def create_file(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Take a file of requests for a batch."""
    key = await require_key(request, services, upload_limits(services.limits))
    kept = await receive(request, services.limits, services.offline.files, key)
    return answer(file_view(kept))


@get("/v1/files")
async def list_files(request: AnyRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """List a key's files, the newest first."""
    limits = services.limits
    key = await require_key(request, services, limits)
    purpose = request.query_params.get("purpose")
    if purpose is not None and purpose not in PURPOSES:
        raise InvalidRequest(f"purpose is one of {', '.join(PURPOSES)}", param="purpose")
    found, has_more = await services.offline.files.page(
        key,
        purpose=purpose,
        after=request.query_params.get("after"),
        limit=asked_limit(request, usual=limits.files_per_key_max, most=10_000),
    )
    views = [file_view(file) for file in found]
    first, last = (views[0].id, views[-1].id) if views else (None, None)
    return answer(FileList(views, first, last, has_more))


@get("/v1/files/{file_id:str}")
async def show_file(
    file_id: FromPath[str], request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Show one file."""
    key = await require_key(request, services, services.limits)
    return answer(file_view(await services.offline.files.find(key, file_id)))


@get("/v1/files/{file_id:str}/content")
async def read_file(
    file_id: FromPath[str], request: AnyRequest, services: NamedDependency[Services]
) -> Stream:
    """Send what is in a file."""
    key = await require_key(request, services, services.limits)
    store = services.offline.files
    found = await store.find(key, file_id)
    opened = store.open(found)
    # The head promises what is sent: not a byte more than the books know, nor than the disk has.
    length = min(found.bytes, os.fstat(opened.fileno()).st_size)
    headers = {
        "content-length": str(length),
        "content-disposition": f'attachment; filename="{found.id}.jsonl"',
        "x-content-type-options": "nosniff",
    }
    return Stream(_pieces(opened, length), headers=headers, media_type="application/jsonl")


async def _pieces(file: BinaryIO, left: int) -> AsyncIterator[bytes]:
    with file:
        while piece := await asyncio.to_thread(file.read, min(PIECE_BYTES, left)):
            left -= len(piece)
            yield piece


@delete("/v1/files/{file_id:str}", status_code=200)
async def delete_file(
    file_id: FromPath[str], request: AnyRequest, services: NamedDependency[Services]
) -> Response[bytes]:
    """Delete a file."""
    key = await require_key(request, services, services.limits)
    await services.offline.files.delete(key, file_id)
    return answer(FileDeleted(file_id))


def file_view(file: StoredFile) -> FileView:
    """Return what a key's holder is shown of a file."""
    return FileView(
        id=file.id,
        bytes=file.bytes,
        created_at=file.created_us // US_PER_S,
        expires_at=file.expires_us // US_PER_S,
        filename=file.filename,
        purpose=file.purpose,
    )
