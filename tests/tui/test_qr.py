"""The QR code of the address: whole at every size, and dark on light in every theme."""

import pytest
import segno
from textual.color import Color

from tests.tui.fake import FakeServer
from tests.tui.test_stories import drawn, play, settled
from tui.screens.dialogs import Confirm
from tui.screens.lan import Lan
from tui.screens.qr import QUIET, Code, qr

DARK = {"\u2588": (1, 1), "\u2580": (1, 0), "\u2584": (0, 1), " ": (0, 0)}


def squares(lines):
    """What a camera sees of half blocks: rows of dark (1) and light (0)."""
    for line in lines:
        halves = [DARK[char] for char in line]
        yield [upper for upper, _ in halves]
        yield [lower for _, lower in halves]


def wanted(address):
    code = segno.make(address, micro=False, error="l")
    return [[int(dark) for dark in row] for row in code.matrix_iter(border=QUIET)]


def of_network():
    server = FakeServer()
    server.url = "https://192.168.100.100:18799"
    return server


@pytest.mark.parametrize("theme", ["textual-dark", "textual-light", "high-contrast"])
@pytest.mark.parametrize("size", [(80, 24), (160, 48)])
def test_the_code_is_whole_on_the_terminal_and_black_on_white(size, theme):
    async def story(app, pilot, _):
        app.theme = theme
        await pilot.press("4")
        await settled(pilot, lambda: "QR code" in drawn(app))
        await pilot.press("r")
        await settled(pilot, lambda: isinstance(app.screen, Code) and "\u2580" in drawn(app))
        await pilot.pause(0.1)
        address = app.screen._address
        matrix = wanted(address)
        region = app.screen.query_one("#qr").content_region
        assert address in drawn(app)
        rows = app.screen._compositor.render_strips()
        shown = [strip.crop(region.x, region.x + len(matrix[0])) for strip in rows]
        shown = shown[region.y : region.y + (len(matrix) + 1) // 2]
        seen = list(squares(strip.text for strip in shown))
        assert seen[: len(matrix)] == matrix
        for strip in shown:
            for segment in strip:
                ink, paper = segment.style.color, segment.style.bgcolor
                assert Color.from_rich_color(ink).brightness < 0.05
                assert Color.from_rich_color(paper).brightness > 0.95
        await pilot.press("escape")
        await settled(pilot, lambda: len(app.screen_stack) == 1)

    play(story, of_network(), size=size)


@pytest.mark.parametrize("height", range(24, 36))
def test_the_code_stands_on_the_page_where_there_is_room_for_all_of_it(height, tmp_path):
    async def story(app, pilot, _):
        app.query_one(Lan)._data_dir = tmp_path
        await pilot.press("4")
        await settled(pilot, lambda: "Teammates use" in drawn(app))
        code = qr(app.query_one(Lan)._address).plain.splitlines()

        def is_whole():
            seen = drawn(app)
            return all(line in seen for line in code)

        # The page is laid out again once it knows the address.
        await settled(pilot, lambda: is_whole() != ("r shows the QR code" in drawn(app)))
        if height >= 30:
            await settled(pilot, is_whole)
        assert is_whole() == ("\u2580" in drawn(app))

    play(story, of_network(), size=(80, height))


def test_a_server_for_this_machine_offers_no_code_and_nothing_to_close():
    async def story(app, pilot, _):
        await pilot.press("4")
        await settled(pilot, lambda: "o opens it" in drawn(app))
        assert "QR code" not in drawn(app)
        assert "Back to this machine" not in drawn(app)
        await pilot.press("r", "x")
        assert len(app.screen_stack) == 1

    play(story)


def test_closing_asks_first(tmp_path):
    async def story(app, pilot, _):
        app.query_one(Lan)._data_dir = tmp_path
        await pilot.press("4")
        await settled(pilot, lambda: "Back to this machine" in drawn(app))
        await pilot.press("x")
        await settled(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("escape")
        await settled(pilot, lambda: len(app.screen_stack) == 1)
        assert not (tmp_path / "config.toml").exists()

    play(story, of_network())


@pytest.mark.parametrize(
    "address", ["http://10.0.0.1:1/v1", "https://" + "a" * 60 + ".lan:8642/v1"]
)
def test_a_code_is_the_squares_of_its_address(address):
    matrix = wanted(address)
    assert list(squares(qr(address).plain.splitlines()))[: len(matrix)] == matrix
