"""The four numbers of a model on a machine: where they come from and how they are remembered."""

import os
import stat
from contextlib import contextmanager
from dataclasses import replace

import msgspec
import pytest

from appliance.engine.backend import EngineLimits
from appliance.engine.tuning import (
    Tuning,
    default_tuning,
    fingerprint,
    read,
    recall,
    remember,
)

LIMITS = EngineLimits(ubatch_tokens_max=512, max_batch_tokens=256, sequences_max=64)
LONG = EngineLimits(ubatch_tokens_max=8192, max_batch_tokens=256, sequences_max=64)
NOBODY = 65_534
FOUND = Tuning(
    workers=3,
    threads=2,
    threads_alone=5,
    max_batch_tokens=128,
    flash_attention=False,
    origin="calibrated",
)


@pytest.mark.parametrize(
    ("cores", "workers", "threads"), [(1, 1, 1), (2, 2, 1), (8, 8, 1), (16, 8, 2), (128, 8, 16)]
)
def test_unless_it_is_measured_each_core_has_a_worker_and_workers_are_bounded(
    cores, workers, threads
):
    assert default_tuning(cores) == Tuning(
        workers=workers,
        threads=threads,
        threads_alone=cores,
        max_batch_tokens=256,
        flash_attention=None,
        origin="default",
    )


# -- what a worker may take -----------------------------------------------------------------------


def test_workers_take_every_text_where_contexts_are_small():
    for worker in range(4):
        assert default_tuning(4).worker_limits(LIMITS, worker=worker) == LIMITS


def test_only_the_first_worker_takes_texts_that_are_longer_than_the_others_have_room_for():
    tuning = default_tuning(4)
    limits = replace(LONG, side_tokens_max=512)
    assert tuning.worker_limits(limits, worker=0) == LONG
    for worker in (1, 2, 3):
        assert tuning.worker_limits(limits, worker=worker) == replace(LONG, ubatch_tokens_max=512)


def test_every_worker_has_room_for_a_batch():
    tuning = msgspec.structs.replace(FOUND, max_batch_tokens=1024)
    found = tuning.worker_limits(replace(LONG, side_tokens_max=512), worker=1)
    assert (found.max_batch_tokens, found.ubatch_tokens_max) == (1024, 1024)


@pytest.mark.parametrize("chosen", [None, True, False])
def test_the_plain_attention_is_left_to_contexts_of_short_sequences(chosen):
    tuning = msgspec.structs.replace(FOUND, flash_attention=chosen)
    assert tuning.attention(LIMITS) is chosen
    assert tuning.attention(LONG) is (None if chosen is False else chosen)


@pytest.mark.parametrize(("wanted", "given"), [(64, 64), (512, 512), (1024, 512)])
def test_a_batch_is_the_tunings_as_far_as_a_call_can_hold_it(wanted, given):
    tuning = msgspec.structs.replace(FOUND, max_batch_tokens=wanted)
    found = tuning.worker_limits(LIMITS, worker=0)
    assert (found.max_batch_tokens, found.ubatch_tokens_max) == (given, 512)


# -- remembering --------------------------------------------------------------------------------


def test_what_was_found_is_read_back(tmp_path):
    path = tmp_path / "models" / "m.gguf.tuning.json"
    remember(path, FOUND, "here")
    assert recall(path, "here") == read(path) == FOUND
    assert [each.name for each in path.parent.iterdir()] == ["m.gguf.tuning.json"]


def test_a_later_one_replaces_it(tmp_path):
    path = tmp_path / "tuning.json"
    remember(path, FOUND, "here")
    remember(path, default_tuning(2), "there")
    assert recall(path, "here") is None
    assert recall(path, "there") == default_tuning(2)


def test_what_was_found_elsewhere_does_not_hold_here(tmp_path):
    path = tmp_path / "tuning.json"
    remember(path, FOUND, "elsewhere")
    assert recall(path, "here") is None
    assert read(path) == FOUND


def test_nothing_is_remembered_of_a_model_that_is_new(tmp_path):
    assert recall(tmp_path / "none.json", "here") is None
    assert read(tmp_path) is None


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda raw: raw[:-2], id="cut"),
        pytest.param(lambda raw: b"\xff\xfe" + raw, id="not text"),
        pytest.param(lambda _: b"[]", id="another shape"),
        pytest.param(lambda raw: raw.replace(b'"workers":3', b'"workers":"3"'), id="another type"),
        pytest.param(lambda raw: raw.replace(b'"workers":3,', b""), id="a number less"),
        pytest.param(lambda raw: raw.replace(b'"schema":1', b'"schema":99'), id="from the future"),
        pytest.param(lambda raw: raw.replace(b'"schema"', b'"more":1,"schema"'), id="a field more"),
        pytest.param(lambda raw: raw.replace(b"calibrated", b"guessed"), id="another origin"),
        pytest.param(lambda raw: raw.replace(b'"workers":3', b'"workers":0'), id="no worker"),
        pytest.param(lambda raw: raw.replace(b'"threads":2', b'"threads":-1'), id="no thread"),
        pytest.param(
            lambda raw: raw.replace(b'"max_batch_tokens":128', b'"max_batch_tokens":0'), id="no bin"
        ),
    ],
)
def test_a_damaged_file_is_as_good_as_none(tmp_path, damage):
    path = tmp_path / "tuning.json"
    remember(path, FOUND, "here")
    damaged = damage(path.read_bytes())
    assert damaged != path.read_bytes()
    path.write_bytes(damaged)
    assert recall(path, "here") is None


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        remember(tmp_path / "file" / "tuning.json", FOUND, "here")


@contextmanager
def somebody_elses(folder):
    """Take the right to write to a folder from this process; root's by being nobody for a moment."""
    is_root = os.geteuid() == 0
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(stat.S_IRWXU)


def test_a_folder_of_somebody_elses_is_said(tmp_path):
    with somebody_elses(tmp_path), pytest.raises(PermissionError):
        remember(tmp_path / "tuning.json", FOUND, "here")
    assert list(tmp_path.iterdir()) == []


def test_a_calibration_holds_for_one_file_pooling_number_of_cores_and_library(tmp_path):
    model = tmp_path / "m.gguf"
    model.write_bytes(b"weights")
    os.utime(model, ns=(1, 1))
    facts = {"pooling": "mean", "cores": 2, "library": "1.0"}
    found = fingerprint(model, **facts)
    assert fingerprint(model, **facts) == found
    changes = [{"pooling": "cls"}, {"cores": 3}, {"library": "1.1"}]
    others = [fingerprint(model, **{**facts, **change}) for change in changes]
    os.utime(model, ns=(1, 2))
    others.append(fingerprint(model, **facts))
    model.write_bytes(b"other weights")
    os.utime(model, ns=(1, 1))
    others.append(fingerprint(model, **facts))
    assert len({found, *others}) == 6
