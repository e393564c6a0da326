import logging

from appliance.observe import log_buffer as module
from appliance.observe.log_buffer import LogBuffer


def logger(log_buffer):
    log = logging.Logger("gigarouter.test")  # noqa: LOG001 - no other test's
    log.addHandler(log_buffer)
    return log


def said(log_buffer, *messages):
    log = logger(log_buffer)
    for message in messages:
        log.warning("%s", message)


def test_lines_are_numbered_and_asked_for_after_a_number():
    log_buffer = LogBuffer()
    said(log_buffer, "one", "two", "three")
    view = log_buffer.after(f"{log_buffer._run}-1")
    assert [(line.number, line.message) for line in view.data] == [(2, "two"), (3, "three")]
    assert view.cursor == f"{log_buffer._run}-3" == log_buffer.cursor(view.data[-1])
    assert (view.data[0].level, view.data[0].logger) == ("warning", "gigarouter.test")
    assert log_buffer.after(view.cursor).data == []
    # Of an earlier run, or of none: whoever asks knows nothing yet.
    for cursor in (
        "",
        "x",
        LogBuffer().after("").cursor,
        f"{log_buffer._run}-x",
        f"{log_buffer._run}-{'9' * 40}",
    ):
        assert [line.number for line in log_buffer.after(cursor).data] == [1, 2, 3]


def test_what_is_kept_is_bounded(monkeypatch):
    log_buffer = LogBuffer()
    said(log_buffer, *map(str, range(module.LINES_KEPT + 5)))
    kept = log_buffer.after("").data
    assert len(kept) == module.LINES_KEPT
    assert kept[0].number == 6
    said(log_buffer, "x" * 100_000)
    assert len(log_buffer.after("").data[-1].message) == module.LINE_CHARS_MAX


def test_an_exception_is_kept_with_its_lines():
    log_buffer = LogBuffer()
    try:
        int("of old")
    except ValueError:
        logger(log_buffer).exception("it failed")
    assert "it failed\nTraceback" in log_buffer.after("").data[0].message
    assert log_buffer.after("").data[0].message.endswith("'of old'")


def test_a_record_that_cannot_be_written_fails_nobody(monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    log_buffer = LogBuffer()
    logger(log_buffer).warning("%d things", "no number")
    said(log_buffer, "good")
    assert [(line.number, line.message) for line in log_buffer.after("").data] == [(1, "good")]
