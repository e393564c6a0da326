import asyncio
import sqlite3
import threading
from contextlib import closing

import pytest

from appliance.core.errors import ApplianceError, InvalidRequest, QueueFull, StoreFailed
from appliance.store.database import execute_statements
from appliance.store.writer import BATCH_MAX, Writer

PATIENCE_S = 30


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
    made = Writer(tmp_path / "notes.db", MIGRATIONS, writes_max=2_000)
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


def test_a_full_disk_fails_everyone_in_the_transaction_and_writes_nothing(writer, tmp_path):
    writer.call(note("kept"))
    pages = writer.call(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    writer.call(lambda c: c.execute(f"PRAGMA max_page_count = {pages}").fetchone())
    ends = asyncio.run(all_of(writer, [note("small"), note("x" * 1_000_000), note("later")]))
    for end in ends:
        assert isinstance(end, StoreFailed)
        assert "full" in end.message
        assert "nothing was written" in end.message
    assert on_disk(tmp_path / "notes.db") == ["kept"]
    # Room again: service goes on without a restart.
    writer.call(lambda c: c.execute("PRAGMA max_page_count = 100000").fetchone())
    assert writer.call(note("again")) == 2
    assert writer.call(texts) == ["kept", "again"]


def test_a_commit_that_is_refused_fails_everyone_in_it_and_writes_nothing(writer, tmp_path):
    def dangling(connection):
        connection.execute("PRAGMA defer_foreign_keys = ON")
        connection.execute("INSERT INTO replies VALUES (99)")

    ends = asyncio.run(all_of(writer, [note("a"), dangling, note("b")]))
    assert [type(end) for end in ends] == [StoreFailed] * 3
    assert on_disk(tmp_path / "notes.db") == []
    assert writer.call(note("again")) == 1


class Disk:
    """A connection whose second commit from now meets a broken disk, and no other."""

    def __init__(self, connection, errorname):
        self._connection = connection
        self._errorname = errorname
        self._commits = 0

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def execute(self, sql, *parameters):
        self._commits += sql == "COMMIT"
        if self._commits == 2 and sql == "COMMIT":
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorname = self._errorname
            raise error
        return self._connection.execute(sql, *parameters)


@pytest.mark.parametrize(
    "errorname", ["SQLITE_IOERR_FSYNC", "SQLITE_IOERR_WRITE", "SQLITE_CORRUPT", "SQLITE_NOTADB"]
)
def test_after_a_failed_flush_or_damage_nothing_is_acknowledged_ever_again(tmp_path, errorname):
    path = tmp_path / "notes.db"
    writer = Writer(path, MIGRATIONS, writes_max=100)
    writer.call(note("kept"))
    writer._connection = Disk(writer._connection, errorname)
    ends = asyncio.run(all_of(writer, [note("a"), note("b")]))
    # The disk says that all is well now, as a kernel does after a flush that failed.
    assert [type(end) for end in ends] == [StoreFailed, StoreFailed]
    for _ in range(3):
        with pytest.raises(StoreFailed, match="the books are closed"):
            writer.call(note("c"))
    assert repr(writer) == "<Writer [0 waiting | broken]>"
    writer.close()
    assert on_disk(path) == ["kept"]


def test_a_busy_commit_is_a_failure_of_that_transaction_only(tmp_path):
    path = tmp_path / "notes.db"
    writer = Writer(path, MIGRATIONS, writes_max=100)
    writer._connection = Disk(writer._connection, "SQLITE_BUSY")
    writer.call(note("a"))
    with pytest.raises(StoreFailed, match="nothing was written"):
        writer.call(note("b"))
    assert writer.call(note("c")) == 2
    writer.close()
    assert on_disk(path) == ["a", "c"]


# -- bounds, cancelling, closing --------------------------------------------------------------


def test_a_full_mailbox_refuses_and_says_when_to_come_back(tmp_path):
    writer = Writer(tmp_path / "notes.db", MIGRATIONS, writes_max=5)
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
    writer = Writer(path, MIGRATIONS, writes_max=1_000)
    gate = Gate(writer)

    async def scenario():
        waiting = [asyncio.create_task(writer.run(note(f"n{index}"))) for index in range(700)]
        await asyncio.sleep(0)
        closing_ = asyncio.create_task(asyncio.to_thread(writer.close))
        gate.open.set()
        await asyncio.gather(*waiting, closing_)

    asyncio.run(scenario())
    gate.pass_through()
    assert [each.name for each in tmp_path.iterdir()] == ["notes.db"]
    assert len(on_disk(path)) == 700


def test_a_closed_writer_refuses_instead_of_waiting_for_ever(tmp_path):
    writer = Writer(tmp_path / "notes.db", MIGRATIONS, writes_max=10)
    writer.close()
    writer.close()
    with pytest.raises(StoreFailed, match="is closed"):
        writer.call(note("a"))
    with pytest.raises(ApplianceError, match="is closed"):
        asyncio.run(writer.run(note("a")))
    assert repr(writer) == "<Writer [0 waiting | closed]>"
