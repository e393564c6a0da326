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
    view = journal.after(1)
    assert [(line.number, line.message) for line in view.data] == [(2, "two"), (3, "three")]
    assert view.last == 3
    assert (view.data[0].level, view.data[0].logger) == ("warning", "gigarouter.test")
    assert journal.after(3).data == []
    # Of an earlier run: whoever asks has missed everything.
    assert [line.number for line in journal.after(4).data] == [1, 2, 3]


def test_what_is_kept_is_bounded(monkeypatch):
    journal = Journal()
    said(journal, *map(str, range(module.LINES_KEPT + 5)))
    kept = journal.after(0).data
    assert len(kept) == module.LINES_KEPT
    assert kept[0].number == 6
    said(journal, "x" * 100_000)
    assert len(journal.after(0).data[-1].message) == module.LINE_CHARS_MAX


def test_an_exception_is_kept_with_its_lines():
    journal = Journal()
    try:
        int("of old")
    except ValueError:
        logger(journal).exception("it failed")
    assert "it failed\nTraceback" in journal.after(0).data[0].message
    assert journal.after(0).data[0].message.endswith("'of old'")
