"""Ownership: whether a file or folder of ours can be trusted: whose it is, and who may change it.

Owns the rule. A file that another user put into the data directory would be taken for our own: a
planted token would let its author in, and a link would send what we write to another file.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Owners:
    """Who may own, and change, what lies in a folder."""

    users: frozenset[int]
    group: int | None
    """Group that may write as well; None: none may."""

    @classmethod
    def of(cls, folder: Path) -> "Owners":
        """Return those of a folder: this user, and root.

        Root itself serves anybody's folder, as a container does with a mounted one. A folder with
        the set-group-id bit is shared with its group on purpose (a Kubernetes volume's `fsGroup`).
        """
        found, user = folder.stat(), os.geteuid()
        users = {0, user} if user else {0, found.st_uid}
        return cls(frozenset(users), found.st_gid if found.st_mode & stat.S_ISGID else None)

    def fault(self, found: os.stat_result) -> str | None:
        """Return in words why a file or folder cannot be trusted; None: it can."""
        mode = stat.S_IMODE(found.st_mode)
        if found.st_uid not in self.users:
            return f"it belongs to user {found.st_uid}; chown it to the user of the server"
        is_shared = mode & stat.S_IWGRP and found.st_gid != self.group
        if is_shared or mode & stat.S_IWOTH:
            return f"other users may change it (mode {mode:04o}); chmod go-w"
        return None


def fault_of_file(path: Path, owners: Owners, *, links_max: int = 1) -> str | None:
    """Return why a file of ours is not to be used; None: it may be, or there is none."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(found.st_mode):
        return "it is a symbolic link; put the file itself there"
    if not stat.S_ISREG(found.st_mode):
        return "it is no regular file; remove it"
    if found.st_nlink > links_max:
        return "it has another name elsewhere (a hard link); put a copy in its place"
    return owners.fault(found)


def fault_of_folder(path: Path, owners: Owners) -> str | None:
    """Return why a folder of ours is not to be used; None: it may be, or there is none.

    A link to a folder is followed, as to a larger disk, if both are ours or root's.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(found.st_mode):
        if found.st_uid not in owners.users:
            return f"it is a symbolic link of user {found.st_uid}; remove it"
        try:
            found = path.stat()
        except OSError as error:
            return f"it is a symbolic link to nothing ({error.strerror}); remove it"
    if not stat.S_ISDIR(found.st_mode):
        return "it is no folder; remove it"
    return owners.fault(found)
