import os
import stat

import pytest

from appliance.store import reserve
from appliance.store.reserve import PAUSE_S, Reserve
from tests.appliance import HandClock

SIZE = 1_000_000


@pytest.fixture
def path(tmp_path):
    return tmp_path / "reserve"


@pytest.fixture
def clock():
    return HandClock()


def disk_with(monkeypatch, free):
    """Let the disk say that so many bytes are free."""
    real = os.statvfs

    def statvfs(path):
        found = list(real(path))
        found[1], found[4] = 1, free  # f_frsize, f_bavail
        return os.statvfs_result(found)

    monkeypatch.setattr(reserve.os, "statvfs", statvfs)


def test_the_space_is_really_the_servers_and_nobody_elses(path, clock):
    assert Reserve(path, SIZE, clock).prepare()
    found = path.stat()
    assert found.st_size == SIZE
    assert found.st_blocks * 512 >= SIZE
    assert stat.S_IMODE(found.st_mode) == 0o600


def test_without_the_systems_call_the_space_is_written(path, clock, monkeypatch):
    monkeypatch.delattr(reserve.os, "posix_fallocate")
    assert Reserve(path, SIZE, clock).prepare()
    assert path.stat().st_size == SIZE
    assert path.stat().st_blocks * 512 >= SIZE


def test_a_reserve_that_is_there_is_left_alone(path, clock):
    assert Reserve(path, SIZE, clock).prepare()
    before = path.stat()
    assert Reserve(path, SIZE, clock).prepare()
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("content", [b"", b"x" * 10, b"x" * (2 * SIZE)])
def test_what_is_no_whole_reserve_is_made_one(path, clock, content):
    path.write_bytes(content)
    assert Reserve(path, SIZE, clock).prepare()
    assert path.stat().st_size == SIZE


def test_a_file_with_a_hole_in_it_is_no_reserve(path, clock):
    with path.open("wb") as file:
        file.truncate(SIZE)
    assert Reserve(path, SIZE, clock).prepare()
    assert path.stat().st_blocks * 512 >= SIZE


def test_on_a_full_disk_there_is_none_and_nothing_is_left_of_the_try(path, clock, monkeypatch):
    disk_with(monkeypatch, 1.2 * SIZE)  # enough for it, and too little beside it
    assert not Reserve(path, SIZE, clock).prepare()
    assert not path.exists()


def test_at_a_start_on_a_full_disk_the_reserve_gives_its_room_to_the_database(
    path, clock, monkeypatch
):
    assert Reserve(path, SIZE, clock).prepare()
    disk_with(monkeypatch, 0)
    assert not Reserve(path, SIZE, clock).prepare()
    assert not path.exists()


def test_an_allocation_that_fails_half_way_leaves_nothing(path, clock, monkeypatch):
    def full(handle, size):
        os.write(handle, b"x" * 1_000)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reserve, "allocate", full)
    assert not Reserve(path, SIZE, clock).prepare()
    assert not path.exists()


def test_taking_it_back_is_tried_every_few_seconds_at_most(path, clock, monkeypatch):
    made = Reserve(path, SIZE, clock)
    assert made.prepare()
    made.give_up()
    assert not path.exists()
    disk_with(monkeypatch, 0)
    assert not made.take_back()
    monkeypatch.undo()
    clock.advance(PAUSE_S - 0.01)
    assert not made.take_back()
    clock.advance(0.01)
    assert made.take_back()
    assert path.stat().st_size == SIZE


def test_giving_up_twice_is_no_error_and_leaves_nothing(path, clock):
    made = Reserve(path, SIZE, clock)
    assert made.prepare()
    assert path.exists()
    made.give_up()
    made.give_up()
    assert not path.exists()
