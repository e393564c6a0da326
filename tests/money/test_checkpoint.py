"""A checkpoint that ends anywhere: the file alone is not whole then, and with its log it is."""

import shutil
import sqlite3
import struct
from contextlib import closing

from appliance.core.limits import Limits
from appliance.ledger.books import mint, open_books
from appliance.store.checkpointer import Checkpointer
from appliance.store.datadir import DataDir
from tests.appliance import HandClock
from tests.money.audit import problems
from tests.unit.ledger.test_audit import NOON, key

PAGE_BYTES, FRAME_HEAD_BYTES, LOG_HEAD_BYTES = 4096, 24, 32
KEYS = 300


def pages_of(log):
    """Return the newest content of each page in a log, as a checkpoint copies it."""
    content = log.read_bytes()
    salt, pages = content[16:24], {}
    for at in range(LOG_HEAD_BYTES, len(content), FRAME_HEAD_BYTES + PAGE_BYTES):
        number, _, *_ = struct.unpack(">II", content[at : at + 8])
        if content[at + 8 : at + 16] != salt:
            break
        pages[number] = content[at + FRAME_HEAD_BYTES :][:PAGE_BYTES]
    return pages


def killed(directory, path, monkeypatch):
    """Copy books that grew since the last checkpoint as they are while their server runs."""
    with directory.locked(), open_books(directory, HandClock(NOON), Limits()) as opened:
        opened.writer.call(lambda connection: connection.execute("SELECT 1").fetchone())
        with closing(sqlite3.connect(directory.database, isolation_level=None)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        monkeypatch.setattr(Checkpointer, "run_if_due", lambda *_: False)
        for number in range(KEYS):
            opened.writer.call(mint(key(f"key_{number}"), 1000, NOON))
        shutil.copytree(directory.path, path)
    return DataDir(path)


def test_books_whose_server_was_killed_in_a_checkpoint_open_with_every_entry(tmp_path, monkeypatch):
    left = killed(DataDir(tmp_path / "data"), tmp_path / "left", monkeypatch)
    pages = pages_of(left.database.with_name("gigarouter.db-wal"))
    grown = left.database.stat().st_size // PAGE_BYTES
    assert min(pages) == 1
    assert max(pages) > grown
    # A checkpoint writes pages in the order of their numbers.
    written = sorted(pages)
    for count in range(len(written) + 1):
        part = DataDir(tmp_path / f"part-{count}")
        shutil.copytree(left.path, part.path)
        with part.database.open("r+b") as file:
            for number in written[:count]:
                file.seek((number - 1) * PAGE_BYTES)
                file.write(pages[number])
        with part.locked(), open_books(part, HandClock(NOON), Limits()) as opened:
            assert opened.writer.call(problems) == [], count
            [[found]] = opened.writer.call(
                lambda c: c.execute("SELECT COUNT(*) FROM transfers").fetchall()
            )
            assert found == KEYS, count
        shutil.rmtree(part.path)
