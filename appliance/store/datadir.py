"""Data directory: where one server keeps everything, and the lock that makes it the only one.

Owns file names and modes (0600; a directory that it makes is 0700), the lock, and the note that
tells commands where the server listens.
"""

import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from appliance.core.errors import DataDirBusy, InvalidSettings
from appliance.core.redaction import conceal
from appliance.store.ownership import Owners, fault_of_file, fault_of_folder
from appliance.store.regular_file import open_private, read_private

SIDES = ("-wal", "-shm", "-journal")
"""What SQLite makes beside a database."""
HANDED_OVER = "handed-over-"
"""How names in `backups/` begin that a command makes and moves to where the user wants them."""
LOCK_ATTEMPTS = 10
LEFT_ATTEMPTS = 500
"""For the lock of a supervisor that was killed: until the kernel has ended its server, too."""
LOCK_PAUSE_S = 0.01
"""A process that calls `is_locked` holds the lock for a moment: that is no reason to refuse."""
LOCKS = Path("/proc/locks")
PID_NAMESPACE = Path("/proc/self/ns/pid")
WHERE = 5
"""Which field of its lines names device and file."""


class ServerNote(msgspec.Struct, frozen=True):
    """`server.json`: how to reach the running server."""

    url: str
    """What the server is bound to, which may be a wildcard address."""
    pid: int
    started: str
    connect_url: str = ""
    """Where this machine reaches it; empty in the note of an older server."""
    version: str = ""
    """Of the server; empty in the note of one that is too old to say it."""
    pid_namespace: str = ""
    """In which `pid` is a process (Linux); empty: of the whole machine."""


class DataDir:
    """The paths of one data directory; `create` makes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = path / "gigarouter.db"
        self.rollback_guard = path / "ledger.head"
        self.reserve = path / "reserve"
        self.backups = path / "backups"
        self.models = path / "models"
        self.catalog = path / "models.toml"
        self.incoming = path / "incoming"
        self.files = path / "files"
        """What keys have uploaded, and the results of their batches."""
        self.tls = path / "tls"
        self.log = path / "logs" / "server.log"
        """Of a server that the console started."""
        self.audit_log = path / "logs" / "audit.log"
        self.last_words = path / "logs" / "last-words"
        """What a server wrote that native code ended."""
        self._lock = path / "lock"
        self._note = path / "server.json"
        self._token = path / "admin.token"

    def create(self) -> None:
        """Make the directories that are not there, for their owner alone.

        The mode of a directory that exists is its owner's choice and is never changed.
        """
        for directory in (self.path, self.models, self.incoming, self.files):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def exposure(self) -> str:
        """Return in words how the directory is open to other users; empty: it is not."""
        found = self.path.stat()
        mode = stat.S_IMODE(found.st_mode)
        words = []
        if found.st_uid != os.geteuid():
            words.append(f"it belongs to user {found.st_uid}")
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            words.append(f"others on this machine may open it (mode {mode:04o})")
        return " and ".join(words)

    def is_of_another_user(self) -> bool:
        """Say whether another user, who is not root, could replace what is in the directory.

        Root itself uses directories of others, as a container does with a mounted one.
        """
        user = os.geteuid()
        return user != 0 and self.path.stat().st_uid not in (0, user)

    def require_own(self) -> None:
        """Refuse files and folders of ours that other users may have put here, or may change.

        The directory itself, and its folders, may be links to another disk; files may not.

        Raises:
            InvalidSettings: names the first of them and the fix.
        """
        owners = Owners.of(self.path)
        folders = (self.models, self.backups, self.incoming, self.files, self.tls, self.log.parent)
        for folder in folders:
            if fault := fault_of_folder(folder, owners):
                raise InvalidSettings("data directory", str(folder), fault)
        sides = [self.database.with_name(self.database.name + side) for side in SIDES]
        single = (self._token, self._lock, self._note, self.rollback_guard, self.reserve, *sides)
        written = (self.log, self.audit_log, self.path / "load-times.json")
        edited = (self.catalog, self.path / "config.toml")
        for file in (*single, *written, *edited):
            if fault := fault_of_file(file, owners):
                raise InvalidSettings("data directory", str(file), fault)
        # A restore that was cut off leaves two names of the books.
        if fault := fault_of_file(self.database, owners, links_max=2):
            raise InvalidSettings("data directory", str(self.database), fault)

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Hold the directory's lock until the block ends, and yield its descriptor.

        The kernel frees it when every process that has the descriptor is dead.

        Raises:
            DataDirBusy: another process holds it.
            InvalidSettings: a file in it is not ours, or a link.
        """
        self.create()
        self.require_own()
        handle = open_private(self._lock, os.O_RDWR | os.O_CREAT)
        try:
            if not (_take(handle) or (self._is_being_left() and _take(handle, LEFT_ATTEMPTS))):
                raise self.busy()
            os.ftruncate(handle, 0)
            os.write(handle, f"{os.getpid()}\n".encode())
            with suppress(OSError):
                self.remove_note()  # of a server that was killed
            yield handle
        finally:
            os.close(handle)

    def _is_being_left(self) -> bool:
        """Say whether the process that took the lock is dead: its server follows it in a moment."""
        owner = self.owner()
        if owner is None:
            return True
        try:
            os.kill(owner, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False

    def is_locked(self) -> bool:
        """Return whether a process holds the directory's lock now."""
        if not os.path.lexists(self._lock):
            return False
        handle = open_private(self._lock, os.O_RDWR)
        try:
            # Shared: two concurrent calls of this function do not block each other.
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        else:
            return False
        finally:
            os.close(handle)

    def busy(self) -> DataDirBusy:
        """Return the error that names the process which holds the lock."""
        owner = self.owner()
        return DataDirBusy(self.path, "" if owner is None else f" (process {owner})")

    def owner(self) -> int | None:
        """Return the pid of the process that owns the directory now; None: none is known.

        Where the kernel names the holder of a lock (Linux), its word counts, and not the file's.
        """
        if not self.is_locked():
            return None
        written: int | None = None
        with suppress(OSError, ValueError):
            written = int(self._lock.read_text().strip())
        holders = _holders(self._lock)
        if holders is None or written in holders:
            return written
        return min(holders)

    def server(self) -> ServerNote | None:
        """Return where the server listens that owns the directory now, or None.

        A note that a killed server left behind, and one that names another process, are no server.
        The pid in the note of a container cannot be compared; there the lock alone counts, and
        whoever takes it removes the note of the server before.
        """
        note = self.read_note()
        if note is None:
            return None
        if is_of_here(note):
            return note if note.pid == self.owner() else None
        return note if self.is_locked() else None

    def admin_token(self) -> str:
        """Return the operator's secret, made on first use.

        Raises:
            OSError: the file that is there cannot be read, or is not ours: it is not adopted.
        """
        self.create()
        with suppress(FileNotFoundError):
            token = read_private(self._token).decode("ascii").strip()
            if token:
                conceal(token)
                return token
        token = secrets.token_urlsafe(32)
        write_private(self._token, f"{token}\n".encode())
        conceal(token)
        return token

    def write_note(self, note: ServerNote) -> None:
        """Write where the server listens, for commands."""
        write_private(self._note, msgspec.json.encode(note) + b"\n")

    def read_note(self) -> ServerNote | None:
        """Return where the server listens, or None if there is no readable `server.json`."""
        with suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode(self._note.read_bytes(), type=ServerNote)
        return None

    def remove_note(self) -> None:
        """Remove `server.json`: the server is stopping."""
        self._note.unlink(missing_ok=True)


def pid_namespace() -> str:
    """Return which numbering of processes this one belongs to; empty: the system has but one."""
    with suppress(OSError):
        return str(PID_NAMESPACE.readlink())
    return ""


def is_of_here(note: ServerNote) -> bool:
    """Say whether a note's pid means the same process to us as to the server."""
    return note.pid_namespace in ("", pid_namespace())


def _holders(path: Path) -> set[int] | None:
    """Return the pids that the kernel names as holders of a lock; None: it does not say."""
    try:
        found = path.stat()
        lines = LOCKS.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    # Like `1: FLOCK  ADVISORY  WRITE 4711 fd:00:1234 0 EOF`; one that waits has `->` in it.
    rows = (line.split() for line in lines)
    pids = {
        int(row[4])
        for row in rows
        if len(row) > WHERE and row[1] == "FLOCK" and row[3] == "WRITE" and row[WHERE] == device
    }
    return pids or None


def _take(handle: int, attempts: int = LOCK_ATTEMPTS) -> bool:
    for _ in range(attempts):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(LOCK_PAUSE_S)
        else:
            return True
    return False


def write_private(path: Path, content: bytes) -> None:
    """Replace a file in one step, 0600, durable before this returns."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)  # of a process that was killed, or a link that somebody put there
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(part, flags, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)  # all of it: os.write may write a part, as on a disk that fills
        file.flush()
        os.fsync(handle)
    part.replace(path)
    sync_directory(path.parent)


def sync_file(path: Path) -> None:
    """Make a file's content durable."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_directory(path: Path) -> None:
    """Make the directory's own entries durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
