"""Digests: a file is read once for as long as it is the same file."""

import hashlib
import os

import pytest

from appliance.store import digests as module
from appliance.store.digests import Digests

CONTENT = b"a model" * 1000


@pytest.fixture
def reads(monkeypatch):
    """The files that were read."""
    found = []
    original = module.sha256_of

    def noted(path, progress=None):
        found.append(path)
        return original(path, progress)

    monkeypatch.setattr(module, "sha256_of", noted)
    return found


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(CONTENT)
    return path


def test_a_file_is_read_once_even_after_a_restart_and_under_another_name(tmp_path, file, reads):
    kept = tmp_path / "digests.json"
    wanted = hashlib.sha256(CONTENT).hexdigest()
    digests = Digests(kept)
    assert [digests.sha256(file), digests.sha256(file)] == [wanted, wanted]
    renamed = file.rename(tmp_path / "other.gguf")
    assert Digests(kept).sha256(renamed) == wanted
    assert reads == [file]


def test_a_file_that_was_written_to_is_read_again(file, reads):
    digests = Digests(None)
    digests.sha256(file)
    with file.open("r+b") as stream:
        stream.write(b"b")
    stat = file.stat()
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))  # a coarse clock may not have moved
    assert digests.sha256(file) == hashlib.sha256(b"b" + CONTENT[1:]).hexdigest()


def test_a_file_that_takes_the_place_of_another_is_read(tmp_path, file):
    digests = Digests(None)
    digests.sha256(file)
    new = tmp_path / "new"
    new.write_bytes(b"x" * len(CONTENT))
    os.utime(new, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    new.replace(file)
    assert digests.sha256(file) == hashlib.sha256(b"x" * len(CONTENT)).hexdigest()


def test_what_is_written_while_it_is_read_is_not_kept(file, reads):
    digests = Digests(None)

    def write(_):
        file.write_bytes(b"less")

    digests.sha256(file, write)
    digests.sha256(file)
    assert len(reads) == 2


def test_progress_is_told_and_may_end_it(file):
    seen = []
    Digests(None).sha256(file, seen.append)
    assert seen == [len(CONTENT)]

    def cancel(_):
        raise InterruptedError

    file.write_bytes(b"other")
    with pytest.raises(InterruptedError):
        Digests(None).sha256(file, cancel)


@pytest.mark.parametrize("kept", [b"", b"[]", b"{"])
def test_a_damaged_record_costs_one_more_reading(tmp_path, file, kept):
    path = tmp_path / "digests.json"
    path.write_bytes(kept)
    assert Digests(path).sha256(file) == hashlib.sha256(CONTENT).hexdigest()


def test_as_many_are_kept_as_are_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "KEPT_MAX", 2)
    digests = Digests(tmp_path / "digests.json")
    for name in "abc":
        (tmp_path / name).write_text(name)
        digests.sha256(tmp_path / name)
    assert repr(digests) == "<Digests [2 files]>"
