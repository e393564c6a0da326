import os
import threading

import pytest

from appliance.store import bounded_file


def test_a_file_that_is_appended_to_stays_short_and_keeps_the_newest(tmp_path):
    path = tmp_path / "log"
    for number in range(100):
        bounded_file.append(path, f"{number:09}\n".encode(), bytes_max=100, kept=3)
    found = bounded_file.files(path, kept=3)
    assert [each.name for each in found] == ["log.3", "log.2", "log.1", "log"]
    assert all(each.stat().st_size <= 110 for each in found)
    lines = [line for each in found for line in each.read_text().splitlines()]
    assert lines == [f"{number:09}" for number in range(100 - len(lines), 100)]
    assert len(lines) >= 30
    assert {path.stat().st_mode & 0o777 for path in found} == {0o600}


def test_no_line_is_lost_between_threads(tmp_path):
    path = tmp_path / "log"

    def write(name):
        for number in range(50):
            bounded_file.append(path, f"{name}-{number:03}\n".encode(), bytes_max=500, kept=9)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = [
        line for each in bounded_file.files(path, kept=9) for line in each.read_text().splitlines()
    ]
    assert sorted(kept) == sorted(f"{name}-{number:03}" for name in "abcd" for number in range(50))


def test_a_file_that_others_hold_open_is_emptied_and_its_lines_kept(tmp_path):
    path = tmp_path / "server.log"
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    ours, theirs = os.open(path, flags, 0o600), os.open(path, flags, 0o600)
    try:
        os.write(theirs, b"x" * 99 + b"\n")
        assert not bounded_file.shift_if_long(ours, path, bytes_max=101)
        os.write(ours, b"last\n")
        assert bounded_file.shift_if_long(ours, path, bytes_max=101)
        os.write(theirs, b"next\n")
        assert path.read_bytes() == b"next\n"
        assert (tmp_path / "server.log.1").read_bytes().endswith(b"x\nlast\n")
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_file_of_somebody_else_is_never_emptied(tmp_path):
    own, other = tmp_path / "server.log", tmp_path / "other.log"
    own.write_text("")
    other.write_text("x" * 100)
    with other.open("ab") as stream:
        assert not bounded_file.shift_if_long(stream.fileno(), own, bytes_max=10)
    reader, writer = os.pipe()
    assert not bounded_file.shift_if_long(writer, own, bytes_max=10)
    os.close(reader)
    os.close(writer)
    assert other.stat().st_size == 100


@pytest.mark.parametrize("kept", [1, 2])
def test_a_link_among_the_older_files_is_replaced_and_not_written_to(tmp_path, kept):
    path, victim = tmp_path / "log", tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "log.1").symlink_to(victim)
    for _ in range(5):
        bounded_file.append(path, b"0123456789\n", bytes_max=10, kept=kept)
    assert victim.read_text() == "mine"
