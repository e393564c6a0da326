"""Books: what the operator's API and the command line's `--json` say of backups and proofs."""

import msgspec


class BackupOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a backup shall be called, which is written into the data directory's `backups/`."""

    name: str
    """Of the file, without a folder."""
    overwrite: bool = False
    """True: a file of this name is replaced."""


class BackupView(msgspec.Struct, frozen=True):
    """One backup: whole, and its books add up."""

    path: str
    bytes: int
    created: str


class BackupList(msgspec.Struct, frozen=True):
    """The backups that the server makes by itself."""

    every_h: int
    """0: it makes none."""
    keep: int
    last_error: str | None
    """Why the last one failed; None: it did not."""
    data: list[BackupView]
    """Oldest first."""


class RestoredView(msgspec.Struct, frozen=True):
    """What `restore` did."""

    restored: str
    replaced: str | None
    """Where the books are that were there before; None: there were none."""


class ProofView(msgspec.Struct, frozen=True):
    """What `prove` found."""

    removed: int
    """How many transfers were removed."""
    problems: list[str]
    """How they differ from the backup's; empty: they do not."""
