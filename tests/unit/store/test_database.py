import hashlib
import os
import shutil
import sqlite3
from contextlib import closing

import pytest

from appliance.core.errors import StoreFailed
from appliance.ledger.schema import MIGRATIONS
from appliance.store.database import APPLICATION_ID, connect, execute_statements

PAGE = 4_096


@pytest.fixture(autouse=True)
def _ordinary_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def path(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return folder / "gigarouter.db"


def fingerprints(path):
    return {
        each.name: hashlib.sha256(each.read_bytes()).hexdigest()
        for each in path.parent.iterdir()
        if not each.name.endswith("-shm")  # an index over the log, never data
    }


def ours(path, *, crashed=False):
    """Write a store with something in it; `crashed` leaves its log behind, as kill -9 does."""
    connection = connect(path, MIGRATIONS)
    connection.execute("BEGIN")
    connection.execute(
        "INSERT INTO keys (id, name, digest, hint, unlimited, created_us)"
        " VALUES ('key_a', 'n', randomblob(32), 'h', 0, 0)"
    )
    connection.execute(
        "INSERT INTO accounts (id, key_id, kind) VALUES ('key_a', 'key_a', 'prepaid')"
    )
    connection.executemany(
        "INSERT INTO transfers (kind, debit, credit, amount, at_us, hash)"
        " VALUES ('grant', 'issued', 'key_a', ?, 0, zeroblob(32))",
        [(amount,) for amount in range(2_000)],
    )
    connection.execute("COMMIT")
    if crashed:
        keep(path)
    connection.close()
    if crashed:
        restore(path)


def keep(path):
    shutil.copytree(path.parent, path.parent.with_name("copy"))


def restore(path):
    shutil.rmtree(path.parent)
    path.parent.with_name("copy").rename(path.parent)


def spill(connection, first, many):
    """Begin a transaction larger than the cache: half of it is in the file, with its undoing."""
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN")
    connection.execute(first)
    connection.executemany(many, [()] * 50)


def pragma(connection, name):
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


# -- a store of ours --------------------------------------------------------------------------


def test_a_new_store_carries_our_mark_and_the_safe_settings(path):
    with closing(connect(path, MIGRATIONS)) as connection:
        assert pragma(connection, "application_id") == APPLICATION_ID
        assert pragma(connection, "journal_mode") == "wal"
        assert pragma(connection, "synchronous") == 2
        assert pragma(connection, "foreign_keys") == 1
        assert pragma(connection, "secure_delete") == 1
        assert pragma(connection, "fullfsync") == 1
        assert pragma(connection, "checkpoint_fullfsync") == 1


def test_every_file_of_the_store_is_readable_by_its_owner_only(path):
    for _ in range(2):  # when it is made, and when it is opened again
        with closing(connect(path, MIGRATIONS)) as connection:
            connection.execute(
                "INSERT INTO prices (model, unit, realtime, batch, since_us)"
                " VALUES ('m', 'token', 0, 0, 0)"
            )
            files = list(path.parent.iterdir())
            assert {each.name for each in files} >= {"gigarouter.db", "gigarouter.db-wal"}
            for each in files:
                assert each.stat().st_mode & 0o777 == 0o600, each


def test_what_was_written_is_there_after_reopening_and_no_step_runs_twice(path):
    ours(path)
    runs = []
    again = (*MIGRATIONS, ("m999_more", lambda _: runs.append(1)))
    for _ in range(3):
        with closing(connect(path, again)) as connection:
            count = connection.execute("SELECT count(*) FROM transfers").fetchone()[0]
            assert count == 2_000
    assert runs == [1]


def test_what_a_killed_process_left_in_the_log_is_there(path):
    ours(path, crashed=True)
    assert (path.parent / "gigarouter.db-wal").stat().st_size > 0
    with closing(connect(path, MIGRATIONS)) as connection:
        assert connection.execute("SELECT count(*) FROM transfers").fetchone()[0] == 2_000


def test_an_empty_file_is_a_new_store(path):
    path.touch()
    with closing(connect(path, MIGRATIONS)) as connection:
        assert pragma(connection, "application_id") == APPLICATION_ID


def test_a_store_whose_making_was_cut_off_is_made_anew(path):
    """Its first page is in the file, and beside it the note that there was nothing before."""
    first_page = path.with_name("first")
    with closing(sqlite3.connect(first_page, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection = sqlite3.connect(path, isolation_level=None)
    spill(connection, "CREATE TABLE big (x)", "INSERT INTO big VALUES (zeroblob(3000))")
    keep(path)
    connection.close()
    restore(path)
    path.write_bytes(first_page.read_bytes())
    assert path.with_name("gigarouter.db-journal").stat().st_size > 0
    ours(path)
    with closing(connect(path, MIGRATIONS)) as connection:
        assert connection.execute("SELECT count(*) FROM transfers").fetchone()[0] == 2_000


def test_a_step_that_fails_leaves_nothing_of_itself(path):
    ours(path)

    def half(connection):
        execute_statements(connection, ("CREATE TABLE half (x)", "CREATE TABLE keys (x)"))

    with pytest.raises(StoreFailed, match="keys already exists"):
        connect(path, (*MIGRATIONS, ("m002_half", half)))
    with closing(connect(path, MIGRATIONS)) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    assert "half" not in tables


# -- files that are not ours, or not whole ----------------------------------------------------


def foreign(path, *, wal=False, crashed=False):
    connection = sqlite3.connect(path)
    if wal:
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE precious (x)")
    connection.execute("INSERT INTO precious VALUES (1)")
    connection.commit()
    if crashed:
        keep(path)
    connection.close()
    if crashed:
        restore(path)


def foreign_cut_off(path):
    """Another program was killed inside a transaction that is half in the file."""
    foreign(path)
    connection = sqlite3.connect(path, isolation_level=None)
    spill(connection, "SELECT 1", "INSERT INTO precious VALUES (zeroblob(3000))")
    keep(path)
    connection.close()
    restore(path)
    assert path.with_name("gigarouter.db-journal").stat().st_size > 0


def overwrite(path, offset, content):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def newer(path):
    ours(path)
    connect(path, (*MIGRATIONS, ("m999_from_the_future", lambda _: None))).close()


def damaged_page(path, *, crashed=False):
    ours(path, crashed=False)
    if crashed:
        connection = connect(path, MIGRATIONS)
        connection.execute("UPDATE keys SET name = 'changed'")
        keep(path)
        connection.close()
        restore(path)
    size = path.stat().st_size
    for page in range(3, size // PAGE):
        overwrite(path, page * PAGE, b"\xa5" * 64)


def cut_off(path):
    ours(path)
    os.truncate(path, path.stat().st_size // 2)


def other_rules(path):
    ours(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"OR posted >= 0", b"OR posted >= 1"))


def no_header(path):
    ours(path)
    overwrite(path, 0, b"\x00" * 100)


def cut_within_header(path):
    ours(path)
    os.truncate(path, 60)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (foreign, "not a gigarouter database"),
        (lambda path: foreign(path, wal=True), "not a gigarouter database"),
        (lambda path: foreign(path, wal=True, crashed=True), "not a gigarouter database"),
        (foreign_cut_off, "not a gigarouter database"),
        (lambda path: path.write_text("Dear diary,\n" * 100), "not a database"),
        (lambda path: path.write_bytes(b"x"), "not a gigarouter database"),
        (lambda path: path.write_bytes(os.urandom(20_000)), "not a database"),
        (lambda path: path.write_bytes(b"SQLite format 3\x00"), "."),
        (newer, "newer gigarouter"),
        (damaged_page, "damaged|malformed"),
        (lambda path: damaged_page(path, crashed=True), "damaged|malformed"),
        (cut_off, "damaged|malformed"),
        (other_rules, "tables are not as they were made"),
        (no_header, "not a database|not a gigarouter"),
        (cut_within_header, "."),
    ],
    ids=[
        "foreign",
        "foreign-wal",
        "foreign-crashed",
        "foreign-cut-off",
        "text",
        "one-byte",
        "noise",
        "magic-only",
        "newer",
        "damaged",
        "damaged-crashed",
        "cut-off",
        "rules",
        "no-header",
        "cut-within-header",
    ],
)
def test_what_we_cannot_trust_is_refused_by_name_and_not_a_byte_of_it_changes(path, make, reason):
    make(path)
    before = fingerprints(path)
    for _ in range(2):
        with pytest.raises(StoreFailed, match=reason) as refusal:
            connect(path, MIGRATIONS).close()
        assert str(path) in refusal.value.message
    after = fingerprints(path)
    empty = hashlib.sha256(b"").hexdigest()
    assert {name: digest for name, digest in after.items() if digest != empty} == before


def test_a_folder_in_the_place_of_the_file_is_refused(path):
    path.mkdir()
    with pytest.raises(StoreFailed, match=r"gigarouter\.db"):
        connect(path, MIGRATIONS)
    assert path.is_dir()
