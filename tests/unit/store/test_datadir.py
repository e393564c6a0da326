import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.core.errors import DataDirBusy
from appliance.store.datadir import DataDir, ServerNote, write_private

ROOT = Path(__file__).resolve().parents[3]
HOLDER = """
import sys
from pathlib import Path
from appliance.store.datadir import DataDir
with DataDir(Path(sys.argv[1])).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _open_umask():
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def directory(tmp_path):
    return DataDir(tmp_path / "deep" / "data")


@pytest.fixture
def holder(directory):
    """Another process that owns the directory."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory.path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"locked\n"
    yield process
    process.kill()
    process.communicate()


def mode(path):
    return path.stat().st_mode & 0o777


def test_everything_in_it_is_for_its_owner_only_whatever_the_umask(directory):
    with directory.locked():
        directory.admin_token()
        directory.write_note(ServerNote("http://127.0.0.1:1", 1, "now"))
    assert mode(directory.path) == mode(directory.models) == 0o700
    files = [path for path in directory.path.iterdir() if path.is_file()]
    assert {path.name for path in files} == {"lock", "admin.token", "server.json"}
    for path in files:
        assert mode(path) == 0o600, path


@pytest.mark.parametrize("chosen", [0o700, 0o750, 0o755, 0o2770])
def test_the_mode_of_a_directory_that_exists_is_never_changed(directory, chosen):
    directory.path.mkdir(parents=True)
    directory.path.chmod(chosen)
    directory.create()
    directory.admin_token()
    assert stat.S_IMODE(directory.path.stat().st_mode) == chosen
    assert mode(directory.models) == 0o700, "what we make is ours alone"
    assert ("others on this machine" in directory.exposure()) == (chosen != 0o700)


def test_a_directory_of_another_user_is_said_and_roots_own_is_no_strangers(directory, monkeypatch):
    directory.create()
    owner = directory.path.stat().st_uid
    assert directory.exposure() == ""
    assert not directory.is_of_another_user()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert f"belongs to user {owner}" in directory.exposure()
    assert directory.is_of_another_user() == (owner != 0)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert not directory.is_of_another_user(), "root serves what was mounted for it"


def test_one_process_owns_it_and_the_other_learns_which(directory, holder):
    assert directory.is_locked()
    with (
        pytest.raises(DataDirBusy, match=rf"process {holder.pid}\)") as refusal,
        directory.locked(),
    ):
        pass
    assert str(directory.path) in refusal.value.message


def test_the_death_of_its_owner_frees_it(directory, holder):
    holder.kill()
    holder.wait()
    assert not directory.is_locked()
    with directory.locked():
        assert directory.is_locked()
    assert not directory.is_locked()


def test_the_end_of_its_owner_frees_it(directory, holder):
    holder.communicate(b"")
    assert holder.returncode == 0
    assert not directory.is_locked()


def test_one_process_cannot_own_it_twice(directory):
    with directory.locked():
        with pytest.raises(DataDirBusy, match=rf"process {os.getpid()}\)"), directory.locked():
            pass
        assert directory.is_locked()


def test_an_error_inside_frees_it(directory):
    with pytest.raises(ZeroDivisionError), directory.locked():
        _ = 1 / 0
    assert not directory.is_locked()


def test_a_directory_nobody_made_is_not_locked_and_asking_makes_nothing(directory):
    assert not directory.is_locked()
    assert not directory.path.exists()


def test_asking_whether_it_is_locked_never_takes_it_from_its_owner(directory, holder):
    for _ in range(100):
        assert directory.is_locked()
    with pytest.raises(DataDirBusy), directory.locked():
        pass


def test_the_servers_note_comes_back_and_goes(directory):
    directory.create()
    assert directory.read_note() is None
    note = ServerNote("http://127.0.0.1:8642", 4242, "2026-01-01T00:00:00Z")
    directory.write_note(note)
    assert directory.read_note() == note
    directory.remove_note()
    directory.remove_note()
    assert directory.read_note() is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"url": 1}', b"\xff\xfe", b"{}"])
def test_a_note_that_cannot_be_read_counts_as_none(directory, content):
    directory.create()
    (directory.path / "server.json").write_bytes(content)
    assert directory.read_note() is None


def test_the_operators_secret_is_made_once_and_is_long(directory):
    first = directory.admin_token()
    assert len(first) >= 43
    assert DataDir(directory.path).admin_token() == first
    other = DataDir(directory.path.with_name("other"))
    assert other.admin_token() != first


def test_an_empty_secret_is_never_accepted_as_one(directory):
    directory.create()
    token = directory.path / "admin.token"
    token.write_text("\n")
    token.chmod(0o600)
    assert len(directory.admin_token()) >= 43


def test_a_private_file_is_replaced_as_a_whole_and_closed_to_others(tmp_path):
    path = tmp_path / "note"
    path.write_text("old and much longer than the new one")
    path.chmod(0o644)
    part = tmp_path / "note.part"
    part.write_text("left by a crash and longer too")
    part.chmod(0o600)
    write_private(path, b"new")
    assert path.read_bytes() == b"new"
    assert mode(path) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["note"]
