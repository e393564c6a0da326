"""Files in the data directory that somebody else put there are not adopted."""

import os
import stat

import pytest

from appliance.core.errors import InvalidSettings
from appliance.store.datadir import DataDir

PLANTED = "planted-token-of-somebody-else-0123456789abcdef"


@pytest.fixture
def server(make_server):
    made = make_server()
    made.data_dir.mkdir(mode=0o755, parents=True)
    return made


def refused(end):
    assert end.returncode == 1, end.stdout + end.stderr
    assert "Traceback" not in end.stderr
    [line] = end.stderr.splitlines()
    return line


def a_link(path, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine\n")
    path.symlink_to(victim)


def gives_away(path, user, group):
    if os.geteuid():
        pytest.skip("only root gives files away")
    os.chown(path, user, group)


def of_another_user(path, _):
    path.write_text(PLANTED)
    path.chmod(0o644)
    gives_away(path, 12345, 12345)


def writable(path, _):
    path.write_text(PLANTED)
    path.chmod(0o666)


def writable_by_the_group(path, _):
    path.write_text(PLANTED)
    path.chmod(0o660)


def another_name(path, tmp_path):
    other = tmp_path / "other"
    other.write_text(PLANTED)
    other.chmod(0o600)
    os.link(other, path)


def a_pipe(path, _):
    os.mkfifo(path, 0o600)


NAMES = ("admin.token", "lock", "config.toml", "models.toml", "ledger.head", "gigarouter.db-wal")
HOW = (a_link, of_another_user, writable, writable_by_the_group, another_name, a_pipe)


@pytest.mark.parametrize("how", HOW, ids=lambda how: how.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_a_planted_file_is_refused_with_its_name_and_is_not_touched(server, tmp_path, name, how):
    path = server.data_dir / name
    how(path, tmp_path)
    before = path.lstat()
    with pytest.raises(InvalidSettings) as refusal, DataDir(server.data_dir).locked():
        pass
    assert refusal.value.message.startswith(f"data directory: {path}: ")
    after = path.lstat()
    assert (after.st_ino, after.st_size, after.st_mode) == (
        before.st_ino,
        before.st_size,
        before.st_mode,
    )
    victim = tmp_path / "victim"
    assert not victim.exists() or victim.read_text() == "mine\n"


@pytest.mark.parametrize("folder", ["models", "backups", "logs", "incoming", "tls"])
def test_a_folder_of_another_user_is_refused_and_a_link_to_ones_own_is_followed(
    server, tmp_path, folder
):
    elsewhere = tmp_path / "large-disk"
    elsewhere.mkdir(mode=0o700)
    (server.data_dir / folder).symlink_to(elsewhere)
    directory = DataDir(server.data_dir)
    with directory.locked():
        pass
    gives_away(elsewhere, 12345, 12345)
    with pytest.raises(InvalidSettings, match=str(server.data_dir / folder)):
        directory.require_own()
    os.chown(elsewhere, os.geteuid(), os.getegid())
    elsewhere.chmod(0o777)
    with pytest.raises(InvalidSettings, match="other users may change it"):
        directory.require_own()


def test_a_data_directory_may_be_a_link(make_server, tmp_path):
    server = make_server()
    elsewhere = tmp_path / "large-disk"
    elsewhere.mkdir(mode=0o700)
    server.data_dir.symlink_to(elsewhere)
    server.start("--fake")
    assert server.cli("keys", "mint", "a").returncode == 0
    assert server.stop() == 0


def test_a_directory_that_is_shared_with_its_group_on_purpose_is_served(server):
    # What a Kubernetes volume with `fsGroup` looks like after each mount.
    server.data_dir.chmod(0o2770)
    gives_away(server.data_dir, -1, 4711)
    assert server.cli("keys", "mint", "a").returncode == 0
    for path in server.data_dir.rglob("*"):
        os.chown(path, -1, 4711)
        path.chmod(0o2770 if path.is_dir() else 0o660)
    listed = server.cli("keys", "list")
    assert listed.returncode == 0, listed.stderr
    (server.data_dir / "admin.token").write_text(PLANTED)
    (server.data_dir / "admin.token").chmod(0o666)
    assert "admin.token" in refused(server.cli("keys", "list"))


def test_a_token_that_was_planted_lets_nobody_in(server):
    (server.data_dir / "admin.token").write_text(PLANTED)
    (server.data_dir / "admin.token").chmod(0o666)
    ended = server.cli("serve", "--fake", "--port", str(server.port))
    assert ended.returncode == 1
    assert "admin.token: other users may change it" in ended.stderr.splitlines()[-1]


def test_a_new_token_is_its_owners_alone_even_where_a_link_waits_for_its_draft(server, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (server.data_dir / "admin.token.part").symlink_to(victim)
    server.start("--fake")
    token = server.data_dir / "admin.token"
    assert stat.S_IMODE(token.lstat().st_mode) == 0o600
    assert victim.read_text() == "mine"
    assert server.stop() == 0


def test_a_server_log_that_is_a_link_is_not_written_to(server, tmp_path):
    from appliance.client.errors import DidNotStart
    from appliance.client.local_server import LocalServer

    victim = tmp_path / "victim"
    victim.write_text("mine")
    (server.data_dir / "logs").mkdir(mode=0o700)
    (server.data_dir / "logs" / "server.log").symlink_to(victim)
    with pytest.raises(DidNotStart, match="symbolic link"):
        LocalServer(server.data_dir)._spawn()
    assert victim.read_text() == "mine"
