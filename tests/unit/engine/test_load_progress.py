"""How far a load is, is heard of llama.cpp; who wants the model no longer ends the load."""

import pytest

from appliance.core.clock import SystemClock
from appliance.core.errors import LoadFailed
from appliance.engine.load_progress import LoadProgress
from appliance.engine.loader import LlamaLoader
from appliance.settings import EngineSettings
from tests.models import write_tiny_gguf
from tests.unit.engine.test_screening import spec_of


class Noted(LoadProgress):
    """Notes what it hears; it can be cancelled at the first word."""

    def __init__(self, *, cancels=False):
        super().__init__()
        self.heard = []
        self._cancels = cancels

    def __call__(self, fraction):
        self.heard.append(fraction)
        if self._cancels:
            self.cancel()
        return super().__call__(fraction)


@pytest.fixture
def spec(tmp_path):
    return spec_of(write_tiny_gguf(tmp_path / "tiny.gguf", seed=1))


@pytest.fixture
def loader():
    settings = EngineSettings(calibrate=False)
    return LlamaLoader(settings, cores=1, tunings=None, clock=SystemClock())


def test_the_share_that_is_loaded_grows_to_all_of_it(spec, loader):
    progress = Noted()
    loader.open_model(spec, progress).weights.close()
    assert len(progress.heard) > 3
    assert progress.heard == sorted(progress.heard)
    assert 0 <= progress.heard[0] < 1
    assert progress.fraction == 1
    assert repr(progress) == "<LoadProgress [100%]>"


def test_a_load_that_nobody_wants_any_more_ends(spec, loader):
    progress = Noted(cancels=True)
    with pytest.raises(LoadFailed):
        loader.open_model(spec, progress)
    assert progress.fraction < 1
    assert "cancelled" in repr(progress)
