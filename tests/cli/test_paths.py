"""What the operator's API does with files of this machine: it writes into its own folder alone, and
tells nobody which paths exist."""

import json
import os
import stat

import pytest

from tests.models import write_tiny_gguf
from tests.server import QUICK


@pytest.fixture
def server(make_server):
    return make_server()


def refusal(answer):
    assert answer.status_code == 400, answer.text
    return answer.json()["error"]


def test_a_backup_over_http_has_a_name_and_no_path(server, tmp_path):
    server.start("--fake")
    victim = tmp_path / "victim"
    victim.write_text("mine")
    with server.admin() as admin:
        for path in (victim, tmp_path / "new.db"):
            refusal(admin.post("/backup", json={"path": str(path), "overwrite": True}))
        for name in (
            str(victim),
            "../admin.token",
            "..",
            ".hidden",
            "",
            "a/b",
            "a\x00b",
            "x" * 200,
        ):
            error = refusal(admin.post("/backup", json={"name": name, "overwrite": True}))
            assert error["param"] == "name"
        made = admin.post("/backup", json={"name": "today.db"})
        assert made.status_code == 201, made.text
        assert "exists" in refusal(admin.post("/backup", json={"name": "today.db"}))["message"]
        again = admin.post("/backup", json={"name": "today.db", "overwrite": True})
        assert again.status_code == 201
    assert made.json()["path"] == str(server.data_dir / "backups" / "today.db")
    assert victim.read_text() == "mine"
    assert list(tmp_path.glob("new.db*")) == []
    assert stat.S_IMODE((server.data_dir / "backups" / "today.db").stat().st_mode) == 0o600
    assert server.stop() == 0


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_backup_over_http_replaces_no_link_and_no_device_that_lies_at_its_name(
    server, tmp_path, kind
):
    server.start("--fake")
    victim, backups = tmp_path / "victim", server.data_dir / "backups"
    victim.write_text("mine")
    backups.mkdir(exist_ok=True)
    target = backups / "there.db"
    {
        "link": lambda: target.symlink_to(victim),
        "pipe": lambda: os.mkfifo(target),
        "folder": target.mkdir,
    }[kind]()
    before = target.lstat()
    with server.admin() as admin:
        error = refusal(admin.post("/backup", json={"name": "there.db", "overwrite": True}))
    assert "no regular file" in error["message"]
    assert target.lstat().st_ino == before.st_ino
    assert victim.read_text() == "mine"
    assert server.stop() == 0


@pytest.mark.parametrize("runs", [True, False], ids=["with a server", "without one"])
def test_the_command_puts_a_backup_anywhere_and_leaves_nothing_behind(server, tmp_path, runs):
    if runs:
        server.start("--fake")
    else:
        assert server.cli("keys", "list").returncode == 0
    target = tmp_path / "saved.db"
    done = server.cli("backup", str(target), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["path"] == str(target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert server.cli("backup", str(target)).returncode == 1
    assert server.cli("backup", str(target), "--overwrite").returncode == 0
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "elsewhere.db")
    ended = server.cli("backup", str(link), "--overwrite")
    assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1)
    assert "no regular file" in ended.stderr
    assert not (tmp_path / "elsewhere.db").exists()
    assert list((server.data_dir / "backups").iterdir()) == []
    if runs:
        assert server.stop() == 0


def test_adding_a_model_over_http_tells_nothing_about_paths(server, tmp_path):
    server.start("--fake")
    kinds = {
        "missing": tmp_path / "missing.gguf",
        "text": tmp_path / "text.gguf",
        "model": write_tiny_gguf(tmp_path / "model.gguf", seed=1),
        "folder": tmp_path / "folder",
        "device": "/dev/null",
        "secret": "/etc/shadow",
    }
    kinds["text"].write_text("a text")
    kinds["folder"].mkdir()
    notes = (None, "0" * 32, "../models", "../admin.token", "")
    with server.admin() as admin:
        said = {
            admin.post("/models", json={"path": str(path), "id": "m", "note": note}).text
            for path in kinds.values()
            for note in notes
        }
        listed = {model["id"] for model in admin.get("/models").json()["data"]}
    assert len(said) == 1
    assert '"param":"path"' in said.pop()
    assert "m" not in listed
    assert server.stop() == 0


def test_a_note_serves_one_request_for_the_path_that_it_names(server, tmp_path):
    server.start("--fake")
    source = write_tiny_gguf(tmp_path / "tiny.gguf", seed=1)
    note = server.data_dir / "incoming" / ("a" * 32)
    note.symlink_to(source)
    with server.admin() as admin:
        other = {"path": str(tmp_path / "other.gguf"), "id": "m", "note": note.name}
        assert "models add" in refusal(admin.post("/models", json=other))["message"]
        assert not note.is_symlink()
        note.symlink_to(source)
        order = {"path": str(source), "id": "m", "note": note.name}
        added = admin.post("/models", json=order)
        assert added.status_code == 201, added.text
        assert not note.is_symlink()
        refusal(admin.post("/models", json={**order, "id": "n"}))
    assert server.stop() == 0


def test_the_command_adds_a_model_with_a_server_and_leaves_no_note(server, tmp_path):
    server.start("--fake", env=QUICK)
    source = write_tiny_gguf(tmp_path / "tiny.gguf", seed=1)
    done = server.cli("models", "add", str(source), "--id", "m", "--json")
    assert done.returncode == 0, done.stderr
    missing = server.cli("models", "add", str(tmp_path / "none.gguf"))
    assert "there is no such file" in missing.stderr
    assert list((server.data_dir / "incoming").iterdir()) == []
    assert server.stop() == 0
