"""`gigarouter export` and `import`: keys, balances, usage, settings and catalogue move as they are."""

import json
import sqlite3
import zipfile
from contextlib import closing

import pytest

from tests.money.audit import Books
from tests.server import EMBED

CATALOGUE = (
    f'schema = 1\n[[model]]\nid = "{EMBED}"\nprice = {{ unit = "1M tokens", realtime = 7 }}\n'
)
SETTINGS = "host = '127.0.0.1'\ndaily_budget_status = 402\n[engine]\nmemory_mb = 900\n"


@pytest.fixture
def moved(make_server, tmp_path):
    """A server with keys, calls, settings and a catalogue of its own, and its archive."""
    server = make_server()
    server.data_dir.mkdir(parents=True, exist_ok=True)
    (server.data_dir / "models.toml").write_text(CATALOGUE)
    (server.data_dir / "config.toml").write_text(SETTINGS)
    server.start("--fake")
    keys = [server.mint("alice", credit="1"), server.mint("bob", credit="unlimited")]
    for key in keys:
        assert called(server, key["key"]).status_code == 200
    archive = tmp_path / "all.zip"
    done = server.cli("export", str(archive))
    assert done.returncode == 0, done.stderr
    return server, keys, archive


def called(server, key):
    with server.client(key) as client:
        return client.post("/v1/embeddings", json={"model": EMBED, "input": "a text"})


def refused(end):
    assert end.returncode == 1, end.stdout
    assert "Traceback" not in end.stderr
    [line] = end.stderr.splitlines()
    return line


def balances(server):
    with closing(sqlite3.connect(server.data_dir / "gigarouter.db")) as books:
        return books.execute("SELECT * FROM keys ORDER BY id").fetchall()


def test_another_machine_goes_on_where_the_first_one_was(moved, make_server):
    first, keys, archive = moved
    assert archive.stat().st_mode & 0o777 == 0o600
    listed = json.loads(first.cli("keys", "list", "--json").stdout)
    used = json.loads(first.cli("usage", "--json").stdout)
    assert first.stop() == 0
    second = make_server("other")
    done = second.cli("import", str(archive))
    assert done.returncode == 0, done.stderr
    assert "look at these settings of the other machine: host, engine.memory_mb" in done.stdout
    assert balances(second) == balances(first)
    assert (second.data_dir / "config.toml").read_text() == SETTINGS
    assert (second.data_dir / "models.toml").read_text() == CATALOGUE
    second.start("--fake")
    assert json.loads(second.cli("keys", "list", "--json").stdout) == listed
    assert json.loads(second.cli("usage", "--json").stdout) == used
    answer = called(second, keys[0]["key"])
    assert answer.status_code == 200
    assert answer.json()["usage"]["prompt_tokens"] > 0
    assert second.stop() == 0
    assert Books(second.data_dir).problems == []
    assert "import" in (second.data_dir / "logs/audit.log").read_text()


def test_what_is_secret_stays_and_what_does_not_travel_is_said(moved):
    server, keys, archive = moved
    with zipfile.ZipFile(archive) as inside:
        assert set(inside.namelist()) == {
            *("manifest.json", "gigarouter.db", "config.toml", "models.toml")
        }
        content = b"".join(inside.read(name) for name in inside.namelist())
        manifest = json.loads(inside.read("manifest.json"))
    assert (manifest["format"], manifest["version"]) == (1, "0.1.0")
    for secret in (keys[0]["key"], (server.data_dir / "admin.token").read_text().strip()):
        assert secret.encode() not in content
    assert [path.name for path in (server.data_dir / "backups").glob("handed-over-*")] == []


def test_books_that_are_there_are_replaced_only_on_demand_and_kept(moved, make_server):
    _, _, archive = moved
    second = make_server("other").start("--fake")
    second.mint("carol", credit="1")
    assert "in use by another gigarouter" in refused(second.cli("import", str(archive)))
    assert second.stop() == 0
    before = balances(second)
    assert "has gigarouter.db already" in refused(second.cli("import", str(archive)))
    assert balances(second) == before
    done = second.cli("import", str(archive), "--replace")
    assert done.returncode == 0, done.stderr
    [kept] = second.data_dir.glob("gigarouter.db.replaced-*")
    assert str(kept) in done.stdout
    assert balances(second) != before


def rewritten(archive, target, change):
    """Copy an archive with some members changed; a member that becomes None is left out."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(target, "w") as made:
        members = {name: source.read(name) for name in source.namelist()}
        for name, content in change(members).items():
            if content is not None:
                made.writestr(name, content)
    return target


def manifest_with(members, **changes):
    told = json.loads(members["manifest.json"]) | changes
    return {**members, "manifest.json": json.dumps(told).encode()}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: {**m, "config.toml": b"port = 1"}, "other files than its manifest says"),
        (lambda m: {**m, "models.toml": m["models.toml"].replace(b"7", b"8")}, "is not what its"),
        (lambda m: {**m, "more": b"x"}, "other files than its manifest says"),
        (lambda m: {**m, "../evil": b"x"}, "other files than its manifest says"),
        (lambda m: {**m, "gigarouter.db": None}, "other files than its manifest says"),
        (lambda m: {**m, "manifest.json": None}, "has no manifest.json"),
        (lambda m: {**m, "manifest.json": b"{}"}, "its manifest.json cannot be read"),
        (lambda m: manifest_with(m, format=2, version="9.9"), "written by gigarouter 9.9"),
    ],
)
def test_an_archive_that_is_not_as_it_was_written_changes_nothing(
    moved, make_server, tmp_path, change, said
):
    _, _, archive = moved
    bad = rewritten(archive, tmp_path / "bad.zip", change)
    second = make_server("other")
    assert said in refused(second.cli("import", str(bad)))
    assert not (second.data_dir / "gigarouter.db").exists()
    assert not (second.data_dir / "config.toml").exists()
    assert list((second.data_dir / "incoming").iterdir()) == []


def test_what_is_no_archive_and_what_is_not_there_are_one_line(make_server, tmp_path):
    server = make_server()
    (tmp_path / "text").write_text("no zip")
    assert "no archive of `gigarouter export`" in refused(
        server.cli("import", str(tmp_path / "text"))
    )
    assert "No such file" in refused(server.cli("import", str(tmp_path / "absent")))


def test_models_that_do_not_travel_are_named(make_server, tmp_path):
    from tests.models import write_tiny_gguf

    server = make_server()
    path = write_tiny_gguf(tmp_path / "mine.gguf", seed=1)
    added = server.cli("models", "add", str(path), "--id", "x/mine", "--task", "embeddings")
    assert added.returncode == 0, added.stderr
    assert server.cli("keys", "mint", "anna").returncode == 0
    archive = tmp_path / "all.zip"
    assert server.cli("export", str(archive)).returncode == 0
    second = make_server("other")
    done = second.cli("import", str(archive))
    assert done.returncode == 0, done.stderr
    assert "x/mine: copy models/" in done.stdout
