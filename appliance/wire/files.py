"""Files: what the routes of uploaded files say, in OpenAI's shapes."""

import msgspec


class FileView(msgspec.Struct, frozen=True):
    """One file."""

    id: str
    bytes: int
    created_at: int
    """Seconds since 1970, like all `_at`."""
    expires_at: int
    filename: str
    purpose: str
    """`batch`: uploaded; `batch_output`: the results of a batch."""
    object: str = "file"
    status: str = "processed"


class FileList(msgspec.Struct, frozen=True):
    """`GET /v1/files`."""

    data: list[FileView]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: str = "list"


class FileDeleted(msgspec.Struct, frozen=True):
    """`DELETE /v1/files/{id}`."""

    id: str
    object: str = "file"
    deleted: bool = True
