"""Whether a model fits is said for what is free, for what could be, and not at all if unknown."""

import pytest

from appliance.wire.engines import DeviceView, EngineList
from tests.tui.fake import model
from tui.fit import FITS, SLOW, TIGHT, TOO_LARGE, UNKNOWN, explained, fit_of, size_of, suggested

GB = 1_000_000_000


def engines(taken=0, room=8 * GB, memory=0, cores=0, graphics=0):
    devices = [DeviceView("CPU", "", "cpu", memory, 0)]
    devices += [DeviceView("GPU", "", "gpu", graphics, 0)] if graphics else []
    return EngineList([], taken, room, devices, cores)


@pytest.mark.parametrize(
    ("size", "taken", "wanted"),
    [(5 * GB, 0, FITS), (5 * GB, 2 * GB, TIGHT), (7 * GB, 0, TOO_LARGE), (GB, 7 * GB, TIGHT)],
)
def test_room_is_free_or_could_be_or_is_not_there(size, taken, wanted):
    assert fit_of(model("m", size_bytes=size), engines(taken)) == wanted


def test_a_loaded_model_fits_whatever_else_is_there():
    assert fit_of(model("m", size_bytes=5 * GB, loaded=True), engines(7 * GB)) == FITS


def test_without_a_limit_a_device_is_the_room_and_without_both_nobody_knows():
    large = model("m", size_bytes=GB)
    assert fit_of(large, engines(room=None, memory=2 * GB)) == FITS
    assert fit_of(large, engines(room=None, memory=GB)) == TOO_LARGE
    assert fit_of(large, engines(room=None)) == UNKNOWN
    assert fit_of(model("m", params=0), engines()) == UNKNOWN


@pytest.mark.parametrize(
    ("kind", "wanted"), [("F32", 400), ("F16", 200), ("Q8_0", 107), ("Q4_K_M", 70)]
)
def test_a_size_that_nobody_says_is_judged_by_the_weights(kind, wanted):
    assert size_of(model("m", params=100, quantization=kind)) == wanted


def test_what_is_suggested_fits_is_not_here_and_covers_both_tasks():
    gone = {"available": False, "reason": "its file is not on this machine", "missing": True}
    models = [
        model("here"),
        model("small", params=10_000_000, **gone),
        model("large", params=2_000_000_000, **gone),
        model("huge", params=70_000_000_000, **gone),
        model("ranks", task="rerank", params=50_000_000, dimensions=None, **gone),
    ]
    card = engines(graphics=8 * GB)
    assert [m.id for m in suggested(models, card, 4)] == ["large", "ranks", "small"]
    assert [m.id for m in suggested(models, card, 1)] == ["large"]
    assert [m.id for m in suggested(models, engines(cores=2), 4)] == ["small", "ranks"]
    assert suggested(models, engines(room=None), 4) == []


GONE = {"available": False, "reason": "its file is not on this machine", "missing": True}


def test_a_model_of_eight_billion_weights_is_for_a_graphics_card_and_not_for_two_cores():
    large = model("8b", params=7_570_000_000, quantization="Q4_K_M", **GONE)
    room = 18 * GB
    assert fit_of(large, engines(room=room, cores=2)) == SLOW
    assert "2 cores and no graphics card" in explained(large, engines(room=room, cores=2))
    assert fit_of(large, engines(room=room, cores=2, graphics=24 * GB)) == FITS
    assert fit_of(large, engines(room=room, cores=2, graphics=2 * GB)) == SLOW
    assert fit_of(large, engines(room=room, cores=64)) == FITS


def test_why_a_model_does_not_fit_is_said_in_words():
    large = model("m", size_bytes=5 * GB)
    assert explained(large, engines()) == ""
    assert "other models leave" in explained(large, engines(taken=2 * GB))
    assert "models may take 4.0 GB" in explained(large, engines(room=4 * GB))
