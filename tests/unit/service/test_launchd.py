"""The calls of launchctl, with a stand-in for it on PATH."""

import os
from dataclasses import replace

from appliance.service.launchd import Launchd
from tests.service_managers import LAUNCHCTL, stand_in
from tests.unit.service.test_definition import PLAIN


def test_a_job_of_launchd_is_loaded_again_shown_and_removed(tools, calls, tmp_path):
    stand_in(tools, "launchctl", LAUNCHCTL)
    launchd = Launchd("user", tmp_path / "agents")
    assert launchd.state().file == ""
    definition = replace(PLAIN, scope="user", data_dir=tmp_path / "data")
    launchd.install(definition)
    domain = f"gui/{os.getuid()}"
    assert calls()[-3:] == [
        f"launchctl bootout {domain}/gigarouter",
        f"launchctl print {domain}/gigarouter",
        f"launchctl bootstrap {domain} {launchd.file}",
    ]
    assert (tmp_path / "data/logs").is_dir()
    state = launchd.state()
    assert (state.active, state.pid, state.restarts) == ("running", 4321, 2)
    assert state.data_dir == str(tmp_path / "data")
    # One that drains is waited for: launchd would refuse the new one beside it.
    launchd.install(definition)
    assert launchd.state().pid == 4321
    launchd.remove()
    assert not launchd.file.exists()
