import logging

from appliance.observe import journal as module
from appliance.observe.journal import Journal


def logger(journal):
    log = logging.Logger("gigarouter.test")  # noqa: LOG001 - no other test's
    log.addHandler(journal)
    return log


def said(journal, *messages):
    log = logger(journal)
    for message in messages:
        log.warning("%s", message)


def test_lines_are_numbered_and_asked_for_after_a_number():
    journal = Journal()
    said(journal, "one", "two", "three")
    view = journal.after(f"{journal._run}-1")
    assert [(line.number, line.message) for line in view.data] == [(2, "two"), (3, "three")]
    assert view.cursor == f"{journal._run}-3" == journal.cursor(view.data[-1])
    assert (view.data[0].level, view.data[0].logger) == ("warning", "gigarouter.test")
    assert journal.after(view.cursor).data == []
    # Of an earlier run, or of none: whoever asks knows nothing yet.
    for cursor in (
        "",
        "x",
        Journal().after("").cursor,
        f"{journal._run}-x",
        f"{journal._run}-{'9' * 40}",
    ):
        assert [line.number for line in journal.after(cursor).data] == [1, 2, 3]


def test_what_is_kept_is_bounded(monkeypatch):
    journal = Journal()
    said(journal, *map(str, range(module.LINES_KEPT + 5)))
    kept = journal.after("").data
    assert len(kept) == module.LINES_KEPT
    assert kept[0].number == 6
    said(journal, "x" * 100_000)
    assert len(journal.after("").data[-1].message) == module.LINE_CHARS_MAX


def test_an_exception_is_kept_with_its_lines():
    journal = Journal()
    try:
        int("of old")
    except ValueError:
        logger(journal).exception("it failed")
    assert "it failed\nTraceback" in journal.after("").data[0].message
    assert journal.after("").data[0].message.endswith("'of old'")


def test_a_record_that_cannot_be_written_fails_nobody(monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    journal = Journal()
    logger(journal).warning("%d things", "no number")
    said(journal, "good")
    assert [(line.number, line.message) for line in journal.after("").data] == [(1, "good")]
