import hashlib
import os
import shutil
import sqlite3
import stat
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from appliance.core.errors import InvalidRequest, StoreFailed
from appliance.core.limits import Limits
from appliance.ledger import backup
from appliance.ledger.backup import back_up, restore
from appliance.ledger.books import open_books
from appliance.store.datadir import DataDir
from tests.appliance import HandClock

LIMITS = Limits(reserve_bytes=4_096)


@pytest.fixture(autouse=True)
def _ordinary_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def directory(tmp_path):
    made = DataDir(tmp_path / "data")
    made.create()
    return made


@contextmanager
def opened(directory, clock):
    with directory.locked(), open_books(directory, clock, LIMITS) as books:
        yield books


def add_key(books, name):
    """Write a key with an account of its own: what a backup must bring back."""
    from appliance.accounts import credential
    from appliance.accounts.key import Key, KeyLimits
    from appliance.core import ids
    from appliance.core.units import Picocredits
    from appliance.ledger import books as operations

    text = credential.mint()
    key = Key(
        id=ids.key_id(),
        name=name,
        digest=credential.digest(text),
        hint=credential.hint(text),
        unlimited=False,
        limits=KeyLimits(rpm=None, tpm=None, concurrency=None, daily_budget=None, models=None),
        created_us=1,
        expires_us=None,
        revoked_us=None,
    )
    books.writer.call(operations.mint(key, Picocredits(5_000), 1))


def names(directory, clock):
    with opened(directory, clock) as books:
        return sorted(key.name for key in books.keyring)


def fingerprints(folder):
    return {
        each.name: hashlib.sha256(each.read_bytes()).hexdigest()
        for each in folder.iterdir()
        if each.is_file() and each.name != "lock"
    }


@pytest.fixture
def saved(directory, clock, tmp_path):
    """A backup that holds `alice`, of books that hold `bob` too."""
    target = tmp_path / "saved.db"
    with opened(directory, clock) as books:
        add_key(books, "alice")
        back_up(directory, target)
        add_key(books, "bob")
    return target


# -- making -----------------------------------------------------------------------------------


def test_a_backup_of_books_in_use_is_one_private_file_that_holds_everything(
    directory, clock, tmp_path
):
    folder = tmp_path / "safe"
    folder.mkdir()
    target = folder / "saved.db"
    with opened(directory, clock) as books:
        add_key(books, "alice")
        assert directory.database.with_name("gigarouter.db-wal").stat().st_size > 0
        size = back_up(directory, target)
    assert [each.name for each in folder.iterdir()] == ["saved.db"]
    assert target.stat().st_size == size
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with closing(sqlite3.connect(target)) as copy:
        assert copy.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
        assert copy.execute("SELECT name FROM keys").fetchall() == [("alice",)]
    assert [each.name for each in folder.iterdir()] == ["saved.db"]


def test_a_backup_changes_nothing_of_the_books(directory, clock, tmp_path, saved):
    before = fingerprints(directory.path)
    back_up(directory, tmp_path / "again.db")
    after = {
        n: d for n, d in fingerprints(directory.path).items() if not n.endswith(("-shm", "-wal"))
    }
    assert after == before


def test_a_file_that_exists_is_never_overwritten_unless_asked(directory, saved):
    before = saved.read_bytes()
    with pytest.raises(InvalidRequest, match="exists; choose another name") as refusal:
        back_up(directory, saved)
    assert refusal.value.param == "path"
    assert saved.read_bytes() == before
    back_up(directory, saved, overwrite=True)
    assert saved.read_bytes() != before


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("nowhere/saved.db", "there is no directory"),
        ("", "exists; choose another name"),
        ("data/gigarouter.db", "among the server's own files"),
        ("data/new.db", "among the server's own files"),
        ("link/gigarouter.db", "among the server's own files"),
    ],
)
def test_a_place_that_cannot_be_one_is_refused_and_nothing_is_made(
    directory, saved, tmp_path, where, reason
):
    (tmp_path / "link").symlink_to(directory.path)
    before = fingerprints(directory.path)
    for overwrite in (False, True):
        with pytest.raises(InvalidRequest, match=reason) as refusal:
            back_up(directory, tmp_path / where, overwrite=overwrite)
        assert refusal.value.param == "path"
    assert fingerprints(directory.path) == before


def test_a_path_must_be_absolute_because_the_servers_folder_is_nobodys_business(directory, saved):
    from pathlib import Path

    with pytest.raises(InvalidRequest, match="not an absolute path"):
        back_up(directory, Path("saved.db"))


def test_a_copy_whose_books_do_not_add_up_gets_no_name(
    directory, clock, tmp_path, saved, monkeypatch
):
    monkeypatch.setattr(backup.audit, "problems", lambda _: ["alice: owes what she has"])
    folder = tmp_path / "safe"
    folder.mkdir()
    with pytest.raises(StoreFailed, match=r"do not add up .alice: owes what she has"):
        back_up(directory, folder / "again.db")
    assert list(folder.iterdir()) == []


def test_a_copy_that_fails_half_way_leaves_nothing(directory, tmp_path, saved, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup, "sync_file", full)
    before = saved.read_bytes()
    with pytest.raises(StoreFailed, match="No space left on device"):
        back_up(directory, saved, overwrite=True)
    assert saved.read_bytes() == before
    assert not list(tmp_path.glob("*.part*")) + list(tmp_path.glob(".*.part*"))


def test_a_disk_that_the_books_need_themselves_takes_no_copy(
    directory, tmp_path, saved, monkeypatch
):
    monkeypatch.setattr(backup, "KEPT_FREE_BYTES", 10**15)
    with pytest.raises(StoreFailed, match="must be free"):
        back_up(directory, tmp_path / "again.db")


# -- restoring --------------------------------------------------------------------------------


def test_what_was_backed_up_comes_back_and_what_was_there_is_kept(directory, clock, saved):
    aside = restore(directory, saved, clock.wall_us())
    assert names(directory, clock) == ["alice"]
    assert aside.name == "gigarouter.db.replaced-20260921T141320Z"
    with closing(sqlite3.connect(aside)) as before:
        assert before.execute("SELECT name FROM keys ORDER BY name").fetchall() == [
            ("alice",),
            ("bob",),
        ]
    assert stat.S_IMODE(directory.database.stat().st_mode) == 0o600
    assert not list(directory.path.glob("*.part*"))


def test_the_log_of_a_killed_server_goes_aside_with_its_books(directory, clock, saved, tmp_path):
    """Beside the restored file it would be folded into the wrong books."""
    killed = tmp_path / "killed"
    with opened(directory, clock) as books:
        add_key(books, "carol")
        shutil.copytree(directory.path, killed)
    victim = DataDir(killed)
    assert (killed / "gigarouter.db-wal").stat().st_size > 0
    aside = restore(victim, saved, clock.wall_us())
    assert names(victim, clock) == ["alice"]
    with closing(sqlite3.connect(aside)) as before:
        found = {name for (name,) in before.execute("SELECT name FROM keys")}
    assert found == {"alice", "bob", "carol"}


def test_books_that_can_no_longer_be_opened_are_replaced_and_kept_as_they_are(
    directory, clock, saved
):
    directory.database.write_bytes(b"\xa5" * 10_000)
    broken = directory.database.read_bytes()
    aside = restore(directory, saved, clock.wall_us())
    assert names(directory, clock) == ["alice"]
    assert aside.read_bytes() == broken


def test_a_new_machine_begins_with_a_backup(clock, saved, tmp_path):
    fresh = DataDir(tmp_path / "fresh")
    fresh.create()
    assert restore(fresh, saved, clock.wall_us()) is None
    assert names(fresh, clock) == ["alice"]


def test_restoring_twice_in_a_second_loses_neither(directory, clock, saved):
    restore(directory, saved, clock.wall_us())
    with pytest.raises(StoreFailed, match=r"replaced-.* exists"):
        restore(directory, saved, clock.wall_us())
    assert names(directory, clock) == ["alice"]


def foreign(path):
    path.unlink()
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE precious (x)")


def noise(path):
    path.write_bytes(os.urandom(20_000))


def cut_off(path):
    os.truncate(path, path.stat().st_size // 2)


def damaged(path):
    with path.open("r+b") as file:
        for page in range(2, path.stat().st_size // 4_096):
            file.seek(page * 4_096)
            file.write(b"\xa5" * 64)


def does_not_add_up(path):
    with closing(sqlite3.connect(path, isolation_level=None)) as books:
        books.execute("UPDATE accounts SET posted = posted + 1")


def newer(path):
    from appliance.ledger.schema import MIGRATIONS
    from appliance.store.database import connect

    connect(path, (*MIGRATIONS, ("m999_from_the_future", lambda _: None))).close()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.unlink(), "."),
        (lambda path: path.write_bytes(b""), "not a gigarouter database"),
        (foreign, "not a gigarouter database"),
        (noise, "not a database"),
        (cut_off, "damaged|malformed"),
        (damaged, "damaged|malformed"),
        (does_not_add_up, "do not add up|do not agree"),
        (newer, "newer gigarouter"),
    ],
    ids=["missing", "empty", "foreign", "noise", "cut-off", "damaged", "does-not-add-up", "newer"],
)
def test_what_is_no_good_backup_is_refused_and_nothing_changes(
    directory, clock, saved, spoil, reason
):
    spoil(saved)
    before = fingerprints(directory.path)
    with pytest.raises(StoreFailed, match=reason) as refusal:
        restore(directory, saved, clock.wall_us())
    assert str(saved) in refusal.value.message
    assert fingerprints(directory.path) == before
    assert names(directory, clock) == ["alice", "bob"]


def test_a_refused_place_names_the_field(directory, clock, tmp_path):
    with opened(directory, clock):
        for target in (Path("relative.db"), tmp_path / "none" / "x.db", directory.path / "x.db"):
            with pytest.raises(InvalidRequest) as refusal:
                back_up(directory, target)
            assert refusal.value.param == "path"


def test_a_copy_with_a_row_that_refers_to_nothing_is_refused(directory, clock, tmp_path):
    with opened(directory, clock) as books:
        add_key(books, "alice")
        back_up(directory, tmp_path / "copy.db")
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        copy.execute("INSERT INTO undelivered (seq) VALUES (77)")
        copy.commit()
    with (
        directory.locked(),
        pytest.raises(StoreFailed, match="a row of undelivered refers to nothing"),
    ):
        restore(directory, tmp_path / "copy.db", clock.wall_us())
    assert names(directory, clock) == ["alice"]


def test_a_disk_of_another_machine_needs_room_for_the_copy_alone(
    directory, clock, tmp_path, monkeypatch
):
    with opened(directory, clock):
        size = sum(
            path.stat().st_size
            for path in directory.path.iterdir()
            if "gigarouter.db" in path.name and not path.name.endswith("-shm")
        )
        usage = shutil.disk_usage(tmp_path)
        exact = usage._replace(free=size + backup.KEPT_FREE_BYTES)
        monkeypatch.setattr(backup.shutil, "disk_usage", lambda _: exact)
        back_up(directory, tmp_path / "fits.db")
        monkeypatch.setattr(
            backup.shutil, "disk_usage", lambda _: exact._replace(free=exact.free - 1)
        )
        with pytest.raises(StoreFailed, match="bytes must be free"):
            back_up(directory, tmp_path / "does-not.db")
