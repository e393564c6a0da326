"""Result files: what stands in them after a crash, and what does not."""

import json

import pytest

from appliance.batches.results import ResultFile, answered, line_id, unanswered
from appliance.core.errors import StorageFull, StoreFailed

BATCH = "batch_abc"


def line(number, custom_id="id", body=b'{"x":1}'):
    return answered(BATCH, number, custom_id, request_id="req_1", status=200, body=body)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file-1"


def recovered(path, known):
    file = ResultFile(path)
    try:
        return list(file.recover(BATCH, known))
    finally:
        file.close()


def test_an_answer_is_one_line_in_the_shape_that_clients_read():
    assert json.loads(line(7, 'a "quoted"\nid')) == {
        "id": "batch_req_abc_7",
        "custom_id": 'a "quoted"\nid',
        "response": {"status_code": 200, "request_id": "req_1", "body": {"x": 1}},
        "error": None,
    }
    assert line(7, "a\nb").count(b"\n") == 1
    late = json.loads(unanswered(BATCH, 7, "x", code="batch_expired", message="too late"))
    assert late["id"] == line_id(BATCH, 7)
    assert (late["response"], late["error"]["code"]) == (None, "batch_expired")


def test_lines_are_found_again_and_the_file_is_its_owners_alone(path):
    file = ResultFile(path)
    file.append([line(3), line(1)], free_min=0)
    file.append([line(2)], free_min=0)
    size = file.size
    file.close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert recovered(path, size) == recovered(path, 0) == [3, 1, 2]


@pytest.mark.parametrize(
    "rest", [line(9)[:-20], b"\0" * 50, b"\0" * 50 + b"\n", line(9)[:-5] + b"\0}\n", b"x\n"]
)
def test_what_a_crash_left_half_written_is_cut_off(path, rest):
    path.write_bytes(line(1) + line(2) + rest)
    path.chmod(0o600)
    assert recovered(path, len(line(1))) == [1, 2]
    assert path.read_bytes() == line(1) + line(2)


def test_whole_lines_that_the_books_do_not_know_yet_are_kept(path):
    path.write_bytes(line(1) + line(2))
    assert recovered(path, 0) == [1, 2]


@pytest.mark.parametrize("left", [line(1), line(1) + b"x" * 200])
def test_a_file_that_lost_what_was_durable_is_not_believed(path, left):
    path.write_bytes(left)
    with pytest.raises(StoreFailed):
        recovered(path, len(line(1)) + 100)


def test_an_empty_file_goes_when_it_is_closed(path):
    ResultFile(path).close()
    assert not path.exists()


def test_the_books_keep_their_room_on_the_disk(path):
    file = ResultFile(path)
    with pytest.raises(StorageFull):
        file.append([line(1)], free_min=2**60)
    assert file.size == path.stat().st_size == 0


def test_a_write_that_fails_leaves_nothing(path, monkeypatch):
    file = ResultFile(path)
    file.append([line(1)], free_min=0)

    def fails(_):
        raise OSError(28, "no space")

    monkeypatch.setattr("appliance.batches.results.os.fsync", fails)
    with pytest.raises(OSError, match="no space"):
        file.append([line(2)], free_min=0)
    assert path.read_bytes() == line(1)
