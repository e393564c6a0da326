"""Bytes that a disk flipped or lost: the books are refused as they are, or nothing is missing.

`COPIES` says how many damaged copies are tried of each kind (200 unless the environment says
otherwise), `DAMAGE_SEED` which bytes.
"""

import hashlib
import os
import random
import shutil
import sqlite3
from contextlib import closing
from decimal import Decimal

import pytest

from appliance.accounts.key import Key, KeyLimits
from appliance.core.errors import StoreFailed
from appliance.core.limits import Limits
from appliance.ledger import audit, books, delivery_acks, ledger, prices
from appliance.ledger.backup import back_up, restore
from appliance.ledger.books import open_books
from appliance.ledger.entry import Purchase
from appliance.pricing.tariff import Tariff
from appliance.store.datadir import DataDir
from tests.appliance import HandClock
from tests.money.audit import ROW
from tests.server import EMBED

COPIES = int(os.environ.get("COPIES", "200"))
SEED = int(os.environ.get("DAMAGE_SEED", "5"))
LIMITS = Limits(reserve_bytes=4096)
TARIFF = Tariff("embeddings", realtime=Decimal(1), batch=Decimal(1))
CHARGES = 300
WAL_HEADER = 32
PAGE = 4096
FRAME = 24 + PAGE


def key(number):
    return Key(
        id=f"key_{number}",
        name=f"member {number}",
        hint="h",
        unlimited=number % 4 == 3,
        digest=hashlib.sha256(bytes([number])).digest(),
        limits=KeyLimits(),
        created_us=0,
        expires_us=None,
        revoked_us=None,
    )


def history(directory, clock):
    """Keys, grants, charges and refunds; every tenth charge in a commit of its own."""

    def buy(connection, number, balances):
        price = prices.publish(connection, "m", TARIFF, clock.wall_us())
        purchase = Purchase(
            key_id=f"key_{number % 12}",
            request_id=f"req_{number}",
            model="m",
            tier="realtime",
            units=1 + number,
            each=TARIFF.each("realtime"),
            price=price,
            daily_budget=None,
        )
        hold = balances.hold(purchase, clock.wall_us())
        charge = ledger.settle_hold(connection, hold, clock.wall_us())
        if number % 30:
            delivery_acks.mark(connection, [charge.seq])
        else:
            ledger.refund(connection, charge.seq, "refund", clock.wall_us())

    with open_books(directory, clock, LIMITS) as opened:
        for number in range(12):
            opened.writer.call(books.mint(key(number), 10**12, clock.wall_us()))
        for number in range(CHARGES):
            opened.writer.call(lambda c, n=number: buy(c, n, opened.balances), durable=False)
            clock.advance(600)


def entries(database):
    """Return every transfer, and what each account has."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as reader:
        return (
            reader.execute(f"SELECT {ROW}, hash FROM transfers ORDER BY seq").fetchall(),
            reader.execute("SELECT id, posted FROM accounts ORDER BY id").fetchall(),
        )


def contents(path):
    """Return the bytes of what holds data: the index over the log is none, nor is an empty log."""
    return {
        file.name: file.read_bytes()
        for file in path.iterdir()
        if file.name in {"gigarouter.db", "gigarouter.db-wal", "ledger.head"}
        and file.stat().st_size
    }


def outcome(directory, clock, whole):
    """Open damaged books as a start does; return `refused` or `served`, proven to be right."""
    before = contents(directory.path)
    try:
        with directory.locked(), open_books(directory, clock, LIMITS) as opened:
            found = opened.writer.call(audit.problems, durable=False)
    except StoreFailed as refusal:
        text = str(refusal)
        assert "gigarouter restore FILE" in text or "is not a gigarouter database" in text, text
        assert "\n" not in text
        assert contents(directory.path) == before
        return "refused"
    if found:
        # What the hourly audit adds to the one at the start: it closes the books.
        return "closed by the audit"
    assert entries(directory.database) == whole
    return "served"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Books that were closed well, a backup of them, and what they hold."""
    directory = DataDir(tmp_path_factory.mktemp("sound") / "data")
    clock = HandClock()
    with directory.locked():
        history(directory, clock)
    backup = directory.path.parent / "backup.db"
    back_up(directory, backup)
    return directory, clock, backup, entries(directory.database)


def copy_of(directory, number, tmp_path):
    copied = DataDir(tmp_path / f"copy-{number}")
    shutil.copytree(directory.path, copied.path)
    return copied


def test_flipped_bytes_are_refused_untouched_or_change_no_entry(sound, tmp_path):
    directory, clock, backup, whole = sound
    chance = random.Random(SEED)
    ends = []
    for number in range(COPIES):
        copied = copy_of(directory, number, tmp_path)
        content = bytearray(copied.database.read_bytes())
        for _ in range(chance.choice((1, 1, 4, 64))):
            content[chance.randrange(len(content))] ^= chance.choice((1, 0x80, 0xFF))
        copied.database.write_bytes(content)
        ends.append(outcome(copied, clock, whole))
        if ends[-1] == "refused" and number % 10 == 0:
            with copied.locked():
                restore(copied, backup, clock.wall_us())
            assert outcome(copied, clock, whole) == "served"
        shutil.rmtree(copied.path)
    print(f"\nflipped: { ({end: ends.count(end) for end in sorted(set(ends))}) }")  # noqa: T201
    assert ends.count("refused") > COPIES // 4
    assert ends.count("served") > 0


@pytest.fixture
def killed(make_server):
    """A data directory whose server was killed with charges in its log, and what it had said."""
    server = make_server().start("--fake")
    secret = server.mint(credit="1")["key"]
    heard = {}
    with server.client(secret) as client:
        for number in range(40):
            answer = client.post("/v1/embeddings", json={"model": EMBED, "input": f"{number}"})
            assert answer.status_code == 200
            heard[answer.headers["x-request-id"]] = answer.headers["x-cost"]
    server.kill()
    directory = DataDir(server.data_dir)
    log = directory.database.with_name("gigarouter.db-wal")
    assert log.stat().st_size > WAL_HEADER + 20 * FRAME
    return directory, log.name, heard


def start(directory):
    """Open and close the books; return why not."""
    try:
        with directory.locked(), open_books(directory, HandClock(), LIMITS):
            return ""
    except StoreFailed as refusal:
        return str(refusal)


def charges(directory):
    with closing(sqlite3.connect(f"{directory.database.as_uri()}?mode=ro", uri=True)) as reader:
        return {row[0] for row in reader.execute("SELECT request_id FROM transfers")}


def test_a_log_that_was_cut_off_or_damaged_is_refused_or_lacks_nothing(killed, tmp_path):
    directory, name, heard = killed
    chance = random.Random(SEED)
    size = (directory.path / name).stat().st_size
    cuts = [0, 1, WAL_HEADER, WAL_HEADER + FRAME, size - FRAME, size - 1]
    cuts += [chance.randrange(size) for _ in range(COPIES // 4)]
    ends = []
    for number, cut in enumerate(cuts * 2):
        copied = copy_of(directory, number, tmp_path)
        content = bytearray((copied.path / name).read_bytes())
        if number < len(cuts):
            del content[cut:]
        else:
            content[min(cut, size - 1)] ^= 0x10
        (copied.path / name).write_bytes(content)
        before = contents(copied.path)
        said = start(copied)
        if said:
            assert "was cut off" in said or "damaged" in said
            assert "gigarouter restore FILE" in said
            assert contents(copied.path) == before
        else:
            assert heard.keys() <= charges(copied)
        ends.append("refused" if said else "served")
        shutil.rmtree(copied.path)
    print(f"\nlogs: {ends.count('refused')} refused, {ends.count('served')} whole")  # noqa: T201
    assert ends.count("refused") > COPIES // 4
    with directory.locked(), open_books(directory, HandClock(), LIMITS) as opened:
        # The log as the kill left it: nothing that was heard of is missing.
        assert heard.keys() <= charges(directory)
        assert opened.balances.holds_open == 0
