"""What the operator set stands in the place of what was found."""

import msgspec
import pytest

from appliance.engine.tuning_choice import overridden
from appliance.settings import EngineSettings
from tests.unit.engine.test_tuning import FOUND


def test_what_the_operator_does_not_choose_stays():
    assert overridden(FOUND, EngineSettings(), cores=6) is FOUND


@pytest.mark.parametrize(
    ("chosen", "changes"),
    [
        pytest.param({"workers": 2}, {"workers": 2, "threads": 3}, id="workers share the cores"),
        pytest.param({"workers": 9}, {"workers": 9, "threads": 1}, id="more workers than cores"),
        pytest.param({"max_batch_tokens": 300}, {"max_batch_tokens": 300}, id="batches"),
        pytest.param({"flash_attention": "on"}, {"flash_attention": True}, id="flash attention"),
        pytest.param(
            {"workers": 1, "max_batch_tokens": 64, "flash_attention": "on"},
            {"workers": 1, "threads": 6, "max_batch_tokens": 64, "flash_attention": True},
            id="everything",
        ),
    ],
)
def test_what_the_operator_chooses_replaces_what_was_found(chosen, changes):
    found = overridden(FOUND, EngineSettings(**chosen), cores=6)
    assert found == msgspec.structs.replace(FOUND, **changes, origin="settings")


def test_choosing_what_was_found_changes_nothing():
    same = EngineSettings(workers=3, max_batch_tokens=128, flash_attention="off")
    assert overridden(FOUND, same, cores=6) is FOUND
