"""`gigarouter backup`, `restore` and `prove`, with a server and without one."""

import asyncio
import json
import sqlite3
import time
from contextlib import closing

import httpx2
import pytest

from appliance.core.clock import MICROSECONDS_PER_DAY
from appliance.core.limits import Limits
from appliance.ledger.books import open_books
from appliance.ledger.retention_schedule import RetentionSchedule
from appliance.store.datadir import DataDir
from tests.appliance import HandClock
from tests.money.audit import Books
from tests.server import EMBED


@pytest.fixture
def server(make_server):
    return make_server()


def document(end):
    assert end.returncode == 0, end.stderr
    return json.loads(end.stdout)


def refused(end):
    assert end.returncode == 1, end.stdout
    assert "Traceback" not in end.stderr
    [line] = end.stderr.splitlines()
    return line


def keys_in(path):
    with closing(sqlite3.connect(path)) as books:
        return sorted(name for (name,) in books.execute("SELECT name FROM keys"))


def call(server, key):
    with server.client(key) as client:
        return client.post("/v1/embeddings", json={"model": EMBED, "input": "a text"})


def test_a_backup_of_a_running_server_is_restored_without_one_and_serves_again(server, tmp_path):
    server.start("--fake")
    alice = server.mint("alice", credit="1")
    assert call(server, alice["key"]).status_code == 200
    target = tmp_path / "saved.db"
    view = document(server.cli("backup", str(target), "--json"))
    assert view == {"path": str(target), "bytes": target.stat().st_size, "created": view["created"]}
    bob = server.mint("bob", credit="1")
    assert keys_in(target) == ["alice"]

    # Neither over a file that exists, nor under a server that runs.
    assert "exists; choose another name" in refused(server.cli("backup", str(target)))
    assert f"process {server.process.pid}" in refused(server.cli("restore", str(target)))
    assert call(server, bob["key"]).status_code == 200
    assert server.stop() == 0

    began = time.monotonic()
    done = document(server.cli("restore", str(target), "--json"))
    server.start("--fake")
    assert time.monotonic() - began < 10
    assert done["restored"] == str(target)
    assert keys_in(done["replaced"]) == ["alice", "bob"]
    assert call(server, bob["key"]).status_code == 401
    answer = call(server, alice["key"])
    assert answer.status_code == 200
    paid = 1 - 2 * float(answer.headers["x-cost"])
    assert float(answer.headers["x-balance"]) == pytest.approx(paid, abs=1e-12)
    assert server.stop() == 0


def test_the_same_commands_work_on_the_directory_itself_and_speak_to_people(server, tmp_path):
    assert server.cli("keys", "mint", "alice").returncode == 0
    target = tmp_path / "saved.db"
    end = server.cli("backup", str(target))
    assert end.returncode == 0, end.stderr
    assert "its books add up" in end.stdout
    assert server.cli("backup", str(target), "--overwrite").returncode == 0
    end = server.cli("restore", str(target))
    assert end.returncode == 0, end.stderr
    assert "what was there before is kept in" in end.stdout
    assert "revoke them anew" in end.stdout
    assert keys_in(server.data_dir / "gigarouter.db") == ["alice"]


def test_a_relative_path_is_the_callers_own_not_the_servers(server, tmp_path, monkeypatch):
    from click.testing import CliRunner

    from appliance.cli.main import cli

    server.start("--fake")
    monkeypatch.chdir(tmp_path)
    end = CliRunner().invoke(cli, ["backup", "here.db", "--data-dir", str(server.data_dir)])
    assert end.exit_code == 0, end.stderr
    assert keys_in(tmp_path / "here.db") == []
    assert server.stop() == 0


def test_the_servers_own_backups_are_listed(server):
    server.start("--fake", env={"GIGAROUTER_BACKUP_EVERY_H": "6", "GIGAROUTER_BACKUP_KEEP": "2"})
    found = document(server.cli("backup", "--json"))
    assert found == {"every_h": 6, "keep": 2, "last_error": None, "data": []}
    assert server.stop() == 0
    (server.data_dir / "config.toml").write_text("[backup]\nevery_h = 3\n")
    assert document(server.cli("backup", "--json"))["every_h"] == 3


def test_backups_are_the_operators_alone(server):
    server.start("--fake")
    key = server.mint()["key"]
    for bearer, status in (({}, 401), ({"authorization": f"Bearer {key}"}, 403)):
        answer = httpx2.post(
            f"{server.url}/admin/v1/backup", json={"name": "stolen.db"}, headers=bearer
        )
        assert answer.status_code == status
    assert list(server.data_dir.rglob("stolen.db")) == []
    assert server.stop() == 0


def test_what_is_no_backup_is_refused_in_one_line(server, tmp_path):
    assert server.cli("keys", "mint", "alice").returncode == 0
    before = (server.data_dir / "gigarouter.db").read_bytes()
    wrong = tmp_path / "diary.txt"
    wrong.write_text("Dear diary,\n" * 100)
    for path in (wrong, tmp_path / "nothing.db"):
        assert str(path) in refused(server.cli("restore", str(path)))
    assert (server.data_dir / "gigarouter.db").read_bytes() == before


def test_a_server_that_keeps_calls_for_days_removes_older_ones_and_a_backup_proves_them(
    server, tmp_path
):
    server.start("--fake")
    alice = server.mint("alice", credit="1")
    for _ in range(3):
        assert call(server, alice["key"]).status_code == 200
    before = tmp_path / "before.db"
    document(server.cli("backup", str(before), "--json"))
    said = server.cli("prove", str(before))
    assert said.stdout == "nothing was removed\n"
    # As if three days had gone by: the rules of the next step are the server's own.
    assert server.stop() == 0
    with closing(sqlite3.connect(server.data_dir / "gigarouter.db")) as books:
        [(last, at_us)] = books.execute("SELECT MAX(seq), MAX(at_us) FROM transfers").fetchall()
    directory, clock = DataDir(server.data_dir), HandClock(at_us + 3 * MICROSECONDS_PER_DAY)
    with directory.locked(), open_books(directory, clock, Limits()) as opened:
        asyncio.run(RetentionSchedule(opened, keep_days=1).once())
    assert document(server.cli("prove", str(before), "--json")) == {
        "removed": last - 1,
        "problems": [],
    }
    said = server.cli("prove", str(before))
    assert said.stdout == f"what was removed up to transfer {last - 1} is what {before} has\n"
    server.start("--fake")
    assert call(server, alice["key"]).status_code == 200
    assert server.stop() == 0
    found = Books(server.data_dir)
    assert found.problems == []
    other = tmp_path / "other.db"
    assert refused(server.cli("prove", str(tmp_path / "nothing.db")))
    with closing(sqlite3.connect(before)) as old, closing(sqlite3.connect(other)) as copy:
        old.backup(copy)
        copy.execute("DROP TRIGGER transfers_never_change")
        copy.execute("UPDATE transfers SET at_us = at_us + 1 WHERE seq = 2")
        copy.commit()
    assert "transfer 2 of the backup is not what was written" in refused(
        server.cli("prove", str(other))
    )
