"""Downloads: what the operator's API says of models on their way here."""

import msgspec


class HubModelOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A repository of the hub to put into the user's catalogue."""

    repo: str
    """`owner/name`."""
    file: str | None = None
    """A GGUF file of it; None: the only one, else the Q8_0, else safetensors."""
    id: str | None = None
    task: str | None = None
    pooling: str | None = None
    """`mean`, `cls` or `last`; None: what the repository's files say, or what is usual."""
    replace: bool = False
    """Whether a model with this id is replaced; what the operator said of it stays."""


class DownloadView(msgspec.Struct, frozen=True):
    """One download."""

    id: str
    model: str
    state: str
    """`waiting`, `fetching`, `checking`, `trying`, `done`, `failed` or `cancelled`."""
    bytes: int
    """Here already; while `checking`, read again so far."""
    bytes_total: int
    """0: not known yet."""
    rate: float
    """Bytes a second of late."""
    eta_s: int | None
    error: str | None


class DownloadList(msgspec.Struct, frozen=True):
    """Every download that is known, oldest first."""

    data: list[DownloadView]


class CheckView(msgspec.Struct, frozen=True):
    """What became of checking a model's file against the catalogue."""

    id: str
    file: str
    bytes: int
    sha256: str
    matches: bool | None
    """None: the catalogue names no sha256."""


class RemovedView(msgspec.Struct, frozen=True):
    """A model whose file was removed."""

    id: str
    freed: int
    """Bytes that the disk has more; 0 if another model has the same file."""
    in_catalog: bool
    """True: its entry stays, and it can be pulled again."""
