import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from appliance.core.clock import SystemClock
from appliance.core.errors import (
    ApplianceError,
    InvalidRequest,
    LedgerUnavailable,
    QueueFull,
    StorageFull,
)
from appliance.store.checkpointer import FRAMES_MAX
from appliance.store.database import execute_statements
from appliance.store.error_class import numbers_of_64_bits
from appliance.store.reserve import Reserve
from appliance.store.writer import BATCH_MAX, Writer
from tests.appliance import HandClock

PATIENCE_S = 30


def reserve_in(folder):
    return Reserve(folder / "reserve", 64 * 1024, SystemClock())


def _tables(connection):
    execute_statements(
        connection,
        (
            "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT",
            "CREATE TABLE replies (note INTEGER REFERENCES notes (id)) STRICT",
        ),
    )


MIGRATIONS = (("m001_notes", _tables),)


@pytest.fixture
def writer(tmp_path):
    made = Writer(tmp_path / "notes.db", MIGRATIONS, writes_max=2_000, reserve=reserve_in(tmp_path))
    yield made
    made.close()


def note(text):
    return lambda connection: (
        connection.execute("INSERT INTO notes (text) VALUES (?)", (text,)).lastrowid
    )


def note_then(text, problem):
    def write(connection):
        note(text)(connection)
        problem(connection)

    return write


def throw(error):
    def problem(_):
        raise error

    return problem


def texts(connection):
    return [row[0] for row in connection.execute("SELECT text FROM notes ORDER BY id")]


def on_disk(path):
    """What another process would see now."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as other:
        return texts(other)


class Gate:
    """An operation that stands in the writer's way until it is opened."""

    def __init__(self, writer):
        self.entered = threading.Event()
        self.open = threading.Event()
        self.thread = threading.Thread(target=writer.call, args=(self._operation,))
        self.thread.start()
        assert self.entered.wait(PATIENCE_S)

    def _operation(self, _):
        self.entered.set()
        assert self.open.wait(PATIENCE_S)

    def pass_through(self):
        self.open.set()
        self.thread.join(PATIENCE_S)


def statements_of(writer):
    seen = []
    writer.call(lambda connection: connection.set_trace_callback(seen.append))
    seen.clear()
    return seen


async def all_of(writer, operations, *, durable=True):
    """Post operations so that they share one transaction, and return what each came to."""
    gate = await asyncio.to_thread(Gate, writer)
    tasks = [asyncio.create_task(writer.run(each, durable=durable)) for each in operations]
    await asyncio.sleep(0)  # each task runs up to its await: all of them are posted now
    gate.open.set()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.to_thread(gate.pass_through)
    return ends


# -- group commit -----------------------------------------------------------------------------


def test_what_waits_during_one_commit_shares_the_next(writer):
    seen = statements_of(writer)
    ends = asyncio.run(all_of(writer, [note(f"n{index}") for index in range(100)]))
    assert ends == list(range(1, 101))
    assert writer.call(texts) == [f"n{index}" for index in range(100)]
    # The gate's own, the hundred's, and the one that reads.
    assert seen.count("COMMIT") == 3


def test_a_transaction_takes_a_bounded_number_of_operations(writer):
    seen = statements_of(writer)
    asyncio.run(all_of(writer, [note(f"n{index}") for index in range(2 * BATCH_MAX + 1)]))
    assert seen.count("COMMIT") == 4
    assert len(writer.call(texts)) == 2 * BATCH_MAX + 1


def test_an_answer_comes_only_after_its_commit(writer, tmp_path):
    inside = []

    async def scenario():
        seen_by_others = lambda _: inside.append(on_disk(tmp_path / "notes.db"))  # noqa: E731
        await all_of(writer, [note("a"), seen_by_others, note("b")])

    asyncio.run(scenario())
    assert inside == [[]]
    assert on_disk(tmp_path / "notes.db") == ["a", "b"]


def test_many_threads_lose_nothing(writer):
    def work(name):
        for index in range(25):
            writer.call(note(f"{name}-{index}"), durable=False)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(writer.call(texts)) == sorted(f"{n}-{i}" for n in range(16) for i in range(25))


def test_a_transaction_is_flushed_if_any_operation_in_it_asks_for_that(writer):
    def flushes(connection):
        return connection.execute("PRAGMA synchronous").fetchone()[0]

    full, normal = 2, 1
    assert writer.call(flushes) == full
    assert writer.call(flushes, durable=False) == normal
    assert writer.call(flushes) == full
    assert asyncio.run(all_of(writer, [flushes, flushes], durable=False)) == [normal, normal]

    async def mixed():
        gate = await asyncio.to_thread(Gate, writer)
        tasks = [
            asyncio.create_task(writer.run(flushes, durable=durable))
            for durable in (False, True, False)
        ]
        await asyncio.sleep(0)
        gate.open.set()
        ends = await asyncio.gather(*tasks)
        await asyncio.to_thread(gate.pass_through)
        return ends

    assert asyncio.run(mixed()) == [full, full, full]


# -- failures ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        (throw(InvalidRequest("no")), InvalidRequest),
        (throw(KeyError("a bug")), KeyError),
        (throw(AssertionError("an invariant")), AssertionError),
        (note("before"), sqlite3.IntegrityError),
        (lambda c: c.execute("INSERT INTO notes (text) VALUES (x'00')"), sqlite3.IntegrityError),
        (lambda c: c.execute("INSERT INTO replies VALUES (99)"), sqlite3.IntegrityError),
    ],
)
def test_an_operation_that_raises_is_undone_alone(writer, problem, kind):
    ends = asyncio.run(
        all_of(writer, [note("before"), note_then("undone", problem), note("after")])
    )
    assert ends[0] == 1
    assert isinstance(ends[1], kind)
    assert isinstance(ends[2], int)
    assert writer.call(texts) == ["before", "after"]


def fill_up(writer):
    """Leave no room: the database may not grow by a page."""
    pages = writer.call(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    writer.call(lambda c: c.execute(f"PRAGMA max_page_count = {pages}").fetchone())


def empty(writer):
    writer.call(lambda c: c.execute("PRAGMA max_page_count = 100000").fetchone())


class Spare:
    """A reserve that is as many pages of the database as it was told."""

    def __init__(self, pages=100):
        self.pages = pages
        self.held = True
        self.writer = None
        self.may_take_back = False

    def prepare(self):
        return self.held

    def give_up(self):
        self.held = False
        connection = self.writer._connection  # on its own thread
        [(before,)] = connection.execute("PRAGMA page_count")
        connection.execute(f"PRAGMA max_page_count = {before + self.pages}").fetchone()

    def take_back(self):
        self.held = self.held or self.may_take_back
        return self.held


@pytest.fixture
def spare(tmp_path):
    made = Spare()
    made.writer = Writer(tmp_path / "notes.db", MIGRATIONS, writes_max=2_000, reserve=made)
    yield made
    made.writer.close()


def test_a_full_disk_without_any_reserve_left_fails_everyone_and_writes_nothing(writer, tmp_path):
    writer.call(note("kept"))
    fill_up(writer)
    ends = asyncio.run(all_of(writer, [note("small"), note("x" * 1_000_000), note("later")]))
    assert [type(end) for end in ends] == [StorageFull] * 3
    assert on_disk(tmp_path / "notes.db") == ["kept"]
    # Room again: service goes on without a restart.
    empty(writer)
    assert writer.call(note("again")) == 2
    assert writer.call(texts) == ["kept", "again"]


def test_what_was_begun_is_finished_in_the_reserve_and_nothing_new_begins(spare, tmp_path):
    writer = spare.writer
    fill_up(writer)
    ran = []

    def fresh(connection):
        ran.append(connection)

    async def scenario():
        gate = await asyncio.to_thread(Gate, writer)
        finishing = [asyncio.create_task(writer.run(note(f"n{i}" * 1_000))) for i in range(3)]
        beginning = asyncio.create_task(writer.run(fresh, essential=False))
        await asyncio.sleep(0)
        gate.open.set()
        ends = await asyncio.gather(*finishing, beginning, return_exceptions=True)
        await asyncio.to_thread(gate.pass_through)
        return ends

    *finished, refused = asyncio.run(scenario())
    assert finished == [1, 2, 3]
    assert isinstance(refused, StorageFull)
    assert not spare.held
    assert repr(writer) == "<Writer [0 waiting | short of space]>"
    assert len(on_disk(tmp_path / "notes.db")) == 3
    before = len(ran)
    with pytest.raises(StorageFull):
        writer.call(fresh, essential=False)
    assert len(ran) == before
    assert writer.call(note("a settlement")) == 4


def test_service_is_whole_again_once_the_reserve_could_be_taken_back(spare):
    writer = spare.writer
    fill_up(writer)
    writer.call(note("x" * 10_000))
    with pytest.raises(StorageFull):
        writer.call(note("new"), essential=False)
    spare.may_take_back = True
    # Any letter makes the writer try, and so does time.
    writer.call(texts)
    assert writer.call(note("new"), essential=False) == 2
    assert repr(writer) == "<Writer [0 waiting | open]>"


def test_a_writer_with_nothing_to_do_takes_the_reserve_back_by_itself(spare, monkeypatch):
    writer = spare.writer
    monkeypatch.setattr("appliance.store.writer.PAUSE_S", 0.01)
    fill_up(writer)
    writer.call(note("x" * 10_000))
    tried = threading.Event()
    spare.may_take_back = True
    take_back = spare.take_back
    spare.take_back = lambda: (tried.set(), take_back())[1]
    assert tried.wait(PATIENCE_S)
    assert writer.call(note("new"), essential=False) == 2


def test_a_reserve_that_is_too_small_refuses_what_does_not_fit_and_goes_on(spare, tmp_path):
    spare.pages = 3
    writer = spare.writer
    fill_up(writer)
    ends = asyncio.run(all_of(writer, [note("x" * 100_000)]))
    assert [type(end) for end in ends] == [StorageFull]
    assert writer.call(note("small")) == 1
    assert on_disk(tmp_path / "notes.db") == ["small"]


def test_on_a_disk_that_is_full_from_the_start_nothing_new_begins(tmp_path):
    full = Spare()
    full.held = False
    writer = Writer(tmp_path / "notes.db", MIGRATIONS, writes_max=10, reserve=full)
    with pytest.raises(StorageFull) as refusal:
        writer.call(note("new"), essential=False)
    assert refusal.value.retry_after_s > 1
    assert writer.call(note("a release")) == 1
    writer.close()


def test_a_commit_that_is_refused_fails_everyone_in_it_and_writes_nothing(writer, tmp_path):
    def dangling(connection):
        connection.execute("PRAGMA defer_foreign_keys = ON")
        connection.execute("INSERT INTO replies VALUES (99)")

    ends = asyncio.run(all_of(writer, [note("a"), dangling, note("b")]))
    assert [type(end) for end in ends] == [LedgerUnavailable] * 3
    assert on_disk(tmp_path / "notes.db") == []
    assert writer.call(note("again")) == 1


class Disk:
    """A connection that meets a broken disk at its second such statement from now, and no other."""

    def __init__(self, connection, errorname, statement="COMMIT"):
        self._connection = connection
        self._errorname = errorname
        self._statement = statement
        self._seen = 0

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def execute(self, sql, *parameters):
        self._seen += sql == self._statement
        if self._seen == 2 and sql == self._statement:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorname = self._errorname
            raise error
        return self._connection.execute(sql, *parameters)


@pytest.mark.parametrize(
    "errorname", ["SQLITE_IOERR_FSYNC", "SQLITE_IOERR_WRITE", "SQLITE_CORRUPT", "SQLITE_NOTADB"]
)
def test_after_a_failed_flush_or_damage_nothing_is_acknowledged_ever_again(tmp_path, errorname):
    path = tmp_path / "notes.db"
    writer = Writer(path, MIGRATIONS, writes_max=100, reserve=reserve_in(tmp_path))
    writer.call(note("kept"))
    writer._connection = Disk(writer._connection, errorname)
    ends = asyncio.run(all_of(writer, [note("a"), note("b")]))
    # The disk says that all is well now, as a kernel does after a flush that failed.
    assert [type(end) for end in ends] == [LedgerUnavailable] * 2
    for _ in range(3):
        with pytest.raises(LedgerUnavailable, match="disk I/O error"):
            writer.call(note("c"))
    assert writer.broken.result(0) == "disk I/O error"
    assert repr(writer) == "<Writer [0 waiting | broken]>"
    writer.close()
    assert on_disk(path) == ["kept"]


def test_those_who_wait_behind_the_failure_are_refused_as_well(tmp_path):
    writer = Writer(
        tmp_path / "notes.db", MIGRATIONS, writes_max=2_000, reserve=reserve_in(tmp_path)
    )
    writer.call(note("kept"))
    writer._connection = Disk(writer._connection, "SQLITE_IOERR_FSYNC")
    ends = asyncio.run(all_of(writer, [note(f"n{index}") for index in range(2 * BATCH_MAX)]))
    assert {type(end) for end in ends} == {LedgerUnavailable}
    writer.close()
    assert on_disk(tmp_path / "notes.db") == ["kept"]


def test_a_flush_that_fails_while_the_log_is_folded_is_as_final(tmp_path, monkeypatch):
    monkeypatch.setattr("appliance.store.checkpointer.FRAMES_MAX", 1)
    path = tmp_path / "notes.db"
    writer = Writer(path, MIGRATIONS, writes_max=100, reserve=reserve_in(tmp_path))
    fold = "PRAGMA wal_checkpoint(PASSIVE)"
    writer._connection = Disk(writer._connection, "SQLITE_IOERR_FSYNC", fold)
    assert writer.call(note("a")) == 1
    # Its own commit was flushed: it is true. The next would build on what may be lost.
    assert writer.call(note("b")) == 2
    with pytest.raises(LedgerUnavailable, match="disk I/O error"):
        writer.call(note("c"))
    writer.close()
    assert on_disk(path) == ["a", "b"]


def test_an_error_that_is_not_sqlites_breaks_the_writer_and_strands_nobody(tmp_path):
    class Exhausted(Disk):
        def execute(self, sql, *parameters):
            if sql == "COMMIT":
                raise MemoryError
            return self._connection.execute(sql, *parameters)

    writer = Writer(tmp_path / "notes.db", MIGRATIONS, writes_max=100, reserve=reserve_in(tmp_path))
    writer._connection = Exhausted(writer._connection, "")
    with pytest.raises(LedgerUnavailable):
        writer.call(note("a"))
    assert writer.broken.result(0) == "MemoryError"
    writer.close()
    assert on_disk(tmp_path / "notes.db") == []


def test_a_busy_commit_is_a_failure_of_that_transaction_only(tmp_path):
    path = tmp_path / "notes.db"
    writer = Writer(path, MIGRATIONS, writes_max=100, reserve=reserve_in(tmp_path))
    writer._connection = Disk(writer._connection, "SQLITE_BUSY")
    writer.call(note("a"))
    with pytest.raises(LedgerUnavailable, match="disk I/O error"):
        writer.call(note("b"))
    assert not writer.broken.done()
    assert writer.call(note("c")) == 2
    writer.close()
    assert on_disk(path) == ["a", "c"]


def hold_locked(path):
    """Hold the lock of another program that writes."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return closing(other)


def test_while_another_program_holds_the_lock_nothing_is_written_and_then_it_goes_on(
    writer, tmp_path
):
    writer.call(lambda c: c.execute("PRAGMA busy_timeout = 50").fetchone())
    with hold_locked(tmp_path / "notes.db"):
        ends = asyncio.run(all_of_locked(writer))
        assert [type(end) for end in ends] == [LedgerUnavailable] * 3
        assert "database is locked" in ends[0].message
    assert not writer.broken.done()
    assert writer.call(note("after")) == 1
    assert on_disk(tmp_path / "notes.db") == ["after"]


async def all_of_locked(writer):
    tasks = [writer.run(note(f"n{index}")) for index in range(3)]
    return await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("victim", ["notes.db", "notes.db-wal"])
@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_file_that_is_taken_away_breaks_the_writer_instead_of_swallowing_money(
    tmp_path, victim, how
):
    path = tmp_path / "notes.db"
    writer = Writer(path, MIGRATIONS, writes_max=100, reserve=reserve_in(tmp_path))
    writer.call(note("kept"))
    writer.call(note("kept too"))
    other = tmp_path / "other"
    other.write_bytes((tmp_path / victim).read_bytes())
    if how == "removed":
        (tmp_path / victim).unlink()
    else:
        other.replace(tmp_path / victim)
    with pytest.raises(LedgerUnavailable, match="removed or replaced"):
        writer.call(note("lost"))
    assert writer.broken.done()
    writer.close()


def test_closing_does_not_wait_for_ever_for_a_disk_that_never_answers(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("appliance.store.writer.CLOSE_SECONDS", 0.01)
    writer = Writer(tmp_path / "notes.db", MIGRATIONS, writes_max=100, reserve=reserve_in(tmp_path))
    gate = Gate(writer)
    writer.close()
    assert "the disk does not answer" in caplog.text
    gate.pass_through()
    writer._thread.join(PATIENCE_S)


# -- the log ----------------------------------------------------------------------------------


def test_the_log_is_folded_before_it_is_long_whatever_its_size(writer, tmp_path):
    log = tmp_path / "notes.db-wal"
    for index in range(3 * FRAMES_MAX):
        writer.call(note(f"{index}" + "x" * 5_000), durable=False)
    page, header = 4_096, 24
    assert log.stat().st_size < 1.1 * FRAMES_MAX * (page + header)
    assert (tmp_path / "notes.db").stat().st_size > 2 * FRAMES_MAX * page


# -- the thread never ends unseen -----------------------------------------------------------------


def within(seconds, operation):
    """Return what an operation comes to; a writer that is gone would let it wait for ever."""
    ends = []

    def work():
        try:
            ends.append(operation())
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            ends.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    assert ends, "nobody answers"
    return ends[0]


def test_a_disk_that_becomes_read_only_while_it_is_full_does_not_stop_the_thread(
    tmp_path, monkeypatch
):
    """Nothing can be allocated there, and what is there cannot be removed."""
    clock = HandClock()
    real = Reserve(tmp_path / "reserve", 64 * 1024, clock)
    writer = Writer(tmp_path / "notes.db", MIGRATIONS, writes_max=10, reserve=real)
    monkeypatch.setattr("appliance.store.writer.PAUSE_S", 0.01)
    fill_up(writer)
    with pytest.raises(StorageFull):
        writer.call(note("x" * 1_000_000))
    assert "short of space" in repr(writer)

    def read_only(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("appliance.store.reserve.os.open", read_only)
    monkeypatch.setattr(Path, "unlink", read_only)
    clock.advance(60)
    assert within(PATIENCE_S / 10, lambda: writer.call(texts)) == []
    monkeypatch.undo()
    writer.close()
    assert not writer.broken.done()


@pytest.mark.parametrize("error", [OSError(30, "Read-only file system"), SystemExit(1)])
def test_whatever_the_thread_meets_breaks_the_writer_and_refuses_what_waits(spare, error):
    writer = spare.writer
    fill_up(writer)
    writer.call(note("x" * 10_000))

    def fails():
        raise error

    spare.take_back = fails
    assert isinstance(within(PATIENCE_S / 10, lambda: writer.call(note("a"))), LedgerUnavailable)
    assert writer.broken.result(PATIENCE_S)
    assert isinstance(within(PATIENCE_S / 10, lambda: writer.call(note("b"))), LedgerUnavailable)


def test_an_operation_that_ends_its_thread_is_answered_like_every_other_of_its_batch(tmp_path):
    writer = Writer(tmp_path / "notes.db", MIGRATIONS, writes_max=100, reserve=reserve_in(tmp_path))
    ends = within(
        PATIENCE_S / 5,
        lambda: asyncio.run(all_of(writer, [note("a"), throw(SystemExit(3)), note("b")])),
    )
    assert [type(end) for end in ends] == [LedgerUnavailable] * 3
    assert writer.broken.result(0) == "3"
    writer.close()
    assert on_disk(tmp_path / "notes.db") == []


def _bound(connection):
    connection.execute("INSERT INTO notes (id, text) VALUES (?, 'a')", (2**63,))


def _summed(connection):
    with numbers_of_64_bits():
        connection.execute("INSERT INTO replies VALUES (9223372036854775807 + 1)")


@pytest.mark.parametrize("problem", [_bound, _summed])
def test_a_number_of_more_than_64_bits_is_the_requests_fault_and_undone_alone(writer, problem):
    ends = asyncio.run(
        all_of(writer, [note("before"), note_then("undone", problem), note("after")])
    )
    assert isinstance(ends[1], InvalidRequest)
    assert "larger than the books can hold" in ends[1].message
    assert writer.call(texts) == ["before", "after"]


def test_a_log_or_a_database_that_was_replaced_is_written_to_no_more(tmp_path):
    for number, name in enumerate(("notes.db", "notes.db-wal")):
        folder = tmp_path / str(number)
        folder.mkdir()
        writer = Writer(folder / "notes.db", MIGRATIONS, writes_max=9, reserve=reserve_in(folder))
        assert writer.call(note("kept")) == 1
        content = (folder / name).read_bytes()
        (folder / name).rename(folder / "aside")
        (folder / name).write_bytes(content)
        with pytest.raises(LedgerUnavailable, match="removed or replaced"):
            writer.call(note("lost"))
        writer.close()


# -- bounds, cancelling, closing --------------------------------------------------------------


def test_a_full_mailbox_refuses_and_says_when_to_come_back(tmp_path):
    writer = Writer(tmp_path / "notes.db", MIGRATIONS, writes_max=5, reserve=reserve_in(tmp_path))
    gate = Gate(writer)

    async def scenario():
        waiting = [asyncio.create_task(writer.run(note(f"n{index}"))) for index in range(5)]
        await asyncio.sleep(0)
        assert repr(writer) == "<Writer [5 waiting | open]>"
        with pytest.raises(QueueFull) as refusal:
            await writer.run(note("refused"))
        assert refusal.value.retry_after_s >= 1
        with pytest.raises(QueueFull):
            writer.call(note("refused"))
        gate.open.set()
        await asyncio.gather(*waiting)
        await writer.run(note("room again"))

    asyncio.run(scenario())
    gate.pass_through()
    assert writer.call(texts) == ["n0", "n1", "n2", "n3", "n4", "room again"]
    writer.close()


def test_a_cancelled_await_leaves_the_operation_and_everyone_else_alone(writer):
    complaints = []

    async def scenario():
        asyncio.get_running_loop().set_exception_handler(lambda *told: complaints.append(told))
        gate = await asyncio.to_thread(Gate, writer)
        first, cancelled, refused, last = (
            asyncio.create_task(writer.run(operation))
            for operation in (
                note("first"),
                note("cancelled"),
                note_then("undone", throw(InvalidRequest("no"))),
                note("last"),
            )
        )
        await asyncio.sleep(0)
        cancelled.cancel()
        refused.cancel()
        gate.open.set()
        ends = await asyncio.gather(first, cancelled, refused, last, return_exceptions=True)
        await asyncio.to_thread(gate.pass_through)
        return ends

    first, cancelled, refused, last = asyncio.run(scenario())
    assert (first, last) == (1, 3)
    assert isinstance(cancelled, asyncio.CancelledError)
    assert isinstance(refused, asyncio.CancelledError)
    assert complaints == []
    assert writer.call(texts) == ["first", "cancelled", "last"]


def test_a_loop_that_ended_meanwhile_does_not_stop_the_writer(writer):
    gate = Gate(writer)

    async def leave():
        waiting = asyncio.create_task(writer.run(note("nobody waits")))
        await asyncio.sleep(0)
        waiting.cancel()

    asyncio.run(leave())
    gate.pass_through()
    done = threading.Event()
    later = threading.Thread(target=lambda: (writer.call(note("later")), done.set()), daemon=True)
    later.start()
    assert done.wait(PATIENCE_S / 10), repr(writer)
    assert writer.call(texts) == ["nobody waits", "later"]


def test_closing_finishes_what_waits_and_folds_the_log_into_the_file(tmp_path):
    path = tmp_path / "notes.db"
    writer = Writer(path, MIGRATIONS, writes_max=1_000, reserve=reserve_in(tmp_path))
    gate = Gate(writer)

    async def scenario():
        waiting = [asyncio.create_task(writer.run(note(f"n{index}"))) for index in range(700)]
        await asyncio.sleep(0)
        closing_ = asyncio.create_task(asyncio.to_thread(writer.close))
        gate.open.set()
        await asyncio.gather(*waiting, closing_)

    asyncio.run(scenario())
    gate.pass_through()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["notes.db", "reserve"]
    assert len(on_disk(path)) == 700


def test_a_closed_writer_refuses_instead_of_waiting_for_ever(tmp_path):
    writer = Writer(tmp_path / "notes.db", MIGRATIONS, writes_max=10, reserve=reserve_in(tmp_path))
    writer.close()
    writer.close()
    with pytest.raises(LedgerUnavailable, match="is closed"):
        writer.call(note("a"))
    with pytest.raises(ApplianceError, match="is closed"):
        asyncio.run(writer.run(note("a")))
    assert repr(writer) == "<Writer [0 waiting | closed]>"
