"""Old engines go from the cache, and nothing else does."""

import os

import pytest

from appliance.native import build, engine_cache
from appliance.native.engine_cache import KEPT, in_use, remove_all, remove_old

HOUR_S = 3600


@pytest.fixture
def cache(tmp_path):
    folder = tmp_path / "engine"
    folder.mkdir()
    return folder


def engine(cache, number, *, wheel=True):
    """Make the folder of an engine that was used so many hours ago."""
    folder = cache / f"{number:020x}"
    folder.mkdir()
    if wheel:
        (folder / "gigarouter_engine-9-py3-none-any.whl").write_bytes(b"w" * 1000)
    used = 1_700_000_000 - number * HOUR_S
    os.utime(folder, (used, used))
    return folder


def test_the_one_in_use_and_the_last_two_beside_it_are_kept(cache):
    folders = [engine(cache, number) for number in range(6)]
    used = folders[4]
    assert remove_old(used) == 3 * 1000
    assert KEPT == 2
    assert [folder.exists() for folder in folders] == [True, True, False, False, True, False]


def test_what_an_unfinished_build_left_goes_first(cache):
    used, young = engine(cache, 1), engine(cache, 0, wheel=False)
    (young / "building.x").mkdir()
    (young / "building.x" / "part").write_bytes(b"p" * 10)
    remove_old(used)
    assert used.exists()
    assert not young.exists()


def test_one_that_a_process_builds_or_installs_stays(cache):
    folders = [engine(cache, number) for number in range(5)]
    with in_use(folders[4]):
        os.utime(folders[4], (1, 1))
        remove_old(folders[0])
        assert folders[4].exists()
    assert not folders[3].exists()
    os.utime(folders[4], (1, 1))
    remove_old(folders[0])
    assert not folders[4].exists()


def test_what_is_not_this_users_or_no_engine_stays(cache, monkeypatch, tmp_path):
    used = engine(cache, 0)
    others = [engine(cache, number) for number in range(1, 6)]
    (cache / "notes").mkdir()
    (cache / f"{99:020x}").write_text("a file")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("x")
    (cache / f"{98:020x}").symlink_to(elsewhere)
    real = os.geteuid()
    monkeypatch.setattr(engine_cache.os, "geteuid", lambda: real + 1)
    assert remove_old(used) == 0
    assert all(folder.exists() for folder in others)
    monkeypatch.setattr(engine_cache.os, "geteuid", lambda: real)
    remove_old(used)
    assert [folder.exists() for folder in others] == [True, True, False, False, False]
    assert (cache / "notes").is_dir()
    assert (cache / f"{99:020x}").is_file()
    assert (elsewhere / "precious").exists()


def test_use_keeps_an_engine_young(cache):
    old, used = engine(cache, 90), engine(cache, 0)
    for number in range(1, 4):
        engine(cache, number)
    with in_use(old):
        pass
    remove_old(used)
    assert old.exists()


def test_a_folder_that_is_removed_while_somebody_waits_for_it_is_made_again(cache):
    folder = cache / f"{7:020x}"
    with in_use(folder):
        assert folder.is_dir()


def test_an_install_removes_old_engines(tmp_path, monkeypatch):
    cache = tmp_path / "gigarouter" / "engine"
    cache.mkdir(parents=True)
    old = [engine(cache, number) for number in range(5)]
    monkeypatch.setattr(build.sys, "prefix", str(tmp_path))
    monkeypatch.setattr(build, "installed", lambda _: None)
    monkeypatch.setattr(build.pip, "run", lambda *_: None)
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    mine = cache / build.key_of(environment)
    mine.mkdir()
    (mine / "gigarouter_engine-9-py3-none-any.whl").write_bytes(b"w")
    said = []
    assert build.install(said.append, environment=environment)
    assert [folder.exists() for folder in old] == [True, True, False, False, False]
    assert mine.exists()
    assert any("removed engines" in line for line in said)


def test_all_go_when_asked_for_but_the_one_in_use(cache):
    folders = [engine(cache, number) for number in range(4)]
    with in_use(folders[1]):
        assert remove_all(cache) == 3 * 1000
    assert [folder.exists() for folder in folders] == [False, True, False, False]
    assert remove_all(cache / "absent") == 0
