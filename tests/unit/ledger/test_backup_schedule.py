import asyncio
import sqlite3
from contextlib import closing

import pytest

from appliance.core.limits import Limits
from appliance.ledger import backup_schedule as module
from appliance.ledger.backup_schedule import START_PAUSE_S, BackupSchedule
from appliance.ledger.books import open_books
from appliance.settings import BackupSettings
from appliance.store.datadir import DataDir
from tests.appliance import HandClock


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def directory(tmp_path, clock):
    made = DataDir(tmp_path / "data")
    with made.locked(), open_books(made, clock, Limits(reserve_bytes=4_096)):
        yield made


def scheduled(directory, clock, **settings):
    return BackupSchedule(directory, BackupSettings(**settings), clock)


def test_backups_are_kept_up_to_their_number_and_the_oldest_go(directory, clock):
    schedule = scheduled(directory, clock, keep=3)
    for _ in range(5):
        asyncio.run(schedule.once())
        clock.advance(3_600)
    assert [path.name for path in schedule.files()] == [
        "gigarouter-20260921T161320Z.db",
        "gigarouter-20260921T171320Z.db",
        "gigarouter-20260921T181320Z.db",
    ]
    for path in schedule.files():
        assert path.stat().st_mode & 0o777 == 0o600
        with closing(sqlite3.connect(path)) as copy:
            assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert schedule.last_error is None


def test_what_the_schedule_did_not_make_stays(directory, clock):
    directory.backups.mkdir()
    kept = [directory.backups / name for name in ("mine.db", "gigarouter-old.db", "notes.txt")]
    for path in kept:
        path.write_text("precious")
    left = directory.backups / ".gigarouter-20260101T000000Z.db.deadbeef.part"
    left.write_text("half of one, cut off by a crash")
    schedule = scheduled(directory, clock, keep=1)
    for _ in range(3):
        asyncio.run(schedule.once())
        clock.advance(1)
    assert len(schedule.files()) == 1
    assert [path.read_text() for path in kept] == ["precious"] * 3
    assert not left.exists()


def test_a_backup_that_fails_is_told_and_costs_none_of_the_old_ones(
    directory, clock, caplog, monkeypatch
):
    schedule = scheduled(directory, clock, keep=1)
    asyncio.run(schedule.once())
    before = schedule.files()
    clock.advance(3_600)
    with monkeypatch.context() as patch:
        patch.setattr("appliance.ledger.backup.KEPT_FREE_BYTES", 10**15)
        asyncio.run(schedule.once())
    assert "must be free" in schedule.last_error
    assert schedule.failures == 1
    assert "the scheduled backup failed" in caplog.text
    assert schedule.files() == before
    asyncio.run(schedule.once())
    assert schedule.last_error is None


def test_a_place_that_cannot_be_made_is_told_as_well(directory, clock):
    directory.backups.write_text("in the way")
    schedule = scheduled(directory, clock)
    asyncio.run(schedule.once())
    assert schedule.last_error
    assert schedule.files() == []


@pytest.mark.parametrize(
    ("age_s", "wait_s"),
    [
        (0, 24 * 3_600.0),
        (3_600, 23 * 3_600.0),
        (10**9, START_PAUSE_S),
        (24 * 3_600, START_PAUSE_S),
        (-3_600, 24 * 3_600.0),  # the clock was set back: not two in a row, and not none for long
        (-(10**9), 24 * 3_600.0),
    ],
)
def test_a_server_that_starts_goes_on_where_the_last_one_ended(directory, clock, age_s, wait_s):
    schedule = scheduled(directory, clock)
    asyncio.run(schedule.once())
    clock.advance(age_s)
    assert schedule.due_in_s() == wait_s


def test_the_first_backup_comes_soon_after_the_first_start(directory, clock):
    assert scheduled(directory, clock).due_in_s() == START_PAUSE_S


def test_zero_hours_make_none(directory, clock):
    asyncio.run(asyncio.wait_for(scheduled(directory, clock, every_h=0).run(), 10))
    assert not directory.backups.exists()


def test_it_runs_until_it_is_cancelled(directory, clock, monkeypatch):
    monkeypatch.setattr(module, "START_PAUSE_S", 0.0)
    schedule = scheduled(directory, clock, every_h=24)

    async def story():
        running = asyncio.create_task(schedule.run())
        async with asyncio.timeout(30):
            while not schedule.files():  # noqa: ASYNC110 - another thread makes it
                await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(story())
    assert len(schedule.files()) == 1


def test_failures_are_counted_and_forgotten_by_the_next_success(directory, clock, monkeypatch):
    schedule = scheduled(directory, clock)
    monkeypatch.setattr(module, "back_up", lambda *_: (_ for _ in ()).throw(OSError("no disk")))
    for count in (1, 2):
        asyncio.run(schedule.once())
        assert (schedule.failures, schedule.last_error) == (count, "no disk")
    monkeypatch.undo()
    asyncio.run(schedule.once())
    assert (schedule.failures, schedule.last_error) == (2, None)
    assert directory.backups.stat().st_mode & 0o777 == 0o700
    assert repr(schedule) == "<BackupSchedule [every 24 h | ok]>"


def test_digits_that_are_no_date_do_not_end_the_schedule(directory, clock):
    directory.backups.mkdir()
    (directory.backups / "gigarouter-99999999T999999Z.db").touch()
    assert START_PAUSE_S <= scheduled(directory, clock).due_in_s() <= 24 * 3_600


def test_any_error_of_a_backup_is_counted_and_the_schedule_goes_on(directory, clock, monkeypatch):
    schedule = scheduled(directory, clock)
    monkeypatch.setattr(module, "back_up", lambda *_: (_ for _ in ()).throw(RuntimeError("a bug")))
    asyncio.run(schedule.once())
    assert (schedule.failures, schedule.last_error) == (1, "RuntimeError('a bug')")
    monkeypatch.undo()
    asyncio.run(schedule.once())
    assert schedule.last_error is None
