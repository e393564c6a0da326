"""Keys that are typed before a form is there land in it, in order, and are no commands of the tab."""

import pytest
from textual import events
from textual.widgets import DataTable, Input

from tests.tui.test_stories import play, settled
from tui.screens.form import Form

NAMES = {"\n": "enter", "\t": "tab", "\x1b": "escape", " ": "space", ",": "comma"}


def type_at_once(app, text):
    """Press keys without a pause between them, as a paste of a terminal or a fast hand does."""
    for letter in text:
        app.post_message(events.Key(NAMES.get(letter, letter), letter if letter > "\x1f" else None))


def form_is_there(app):
    return isinstance(app.screen, Form) and app.screen.query(Input)


def value(app, field):
    return app.screen.query_one(f"#field-{field}", Input).value


@pytest.mark.parametrize(
    ("tab", "key", "field", "typed", "found"),
    [
        ("3", "m", "name", "mallet", "mallet"),
        ("3", "m", "name", "l t b,o", "l t b,o"),
        ("3", "t", "credit", "25", "25"),
        ("3", "e", "daily_budget", "125", "125"),
        ("3", "x", "expires", "30d", "30d"),
        ("2", "a", "repo", "pad/later", "pad/later"),
        ("2", "e", "price", "3", "3"),
    ],
)
def test_what_is_typed_after_the_key_of_a_form_is_in_its_first_field(tab, key, field, typed, found):
    async def story(app, pilot, _):
        await pilot.press(tab)
        table = "#keys" if tab == "3" else "#models"
        await settled(pilot, lambda: app.query_one(table, DataTable).row_count > 1)
        type_at_once(app, key + typed)
        await settled(pilot, lambda: form_is_there(app))
        first = app.screen.query(Input).first()
        assert first.id == f"field-{field}"
        await settled(pilot, lambda: value(app, field).endswith(found))
        assert len(app.screen_stack) == 2

    play(story)


def test_a_form_that_is_filled_and_sent_in_one_go_is_sent():
    async def story(app, pilot, gateway):
        await pilot.press("3")
        await settled(pilot, lambda: app.query_one("#keys", DataTable).row_count > 1)
        type_at_once(app, "mzoe\n")
        await settled(pilot, lambda: any(path.endswith("/keys") for _, path, *_ in gateway.sent))
        [order] = [body for _, path, body, *_ in gateway.sent if path.endswith("/keys")]
        assert order["name"] == "zoe"

    play(story)


def test_a_form_that_is_left_before_it_is_there_is_left():
    async def story(app, pilot, _):
        await pilot.press("3")
        await settled(pilot, lambda: app.query_one("#keys", DataTable).row_count > 1)
        type_at_once(app, "mx\x1b")
        await settled(pilot, lambda: isinstance(app.screen, Form))
        await settled(pilot, lambda: len(app.screen_stack) == 1)
        type_at_once(app, "manna")
        await settled(pilot, lambda: form_is_there(app))
        await settled(pilot, lambda: value(app, "name") == "anna")

    play(story)
