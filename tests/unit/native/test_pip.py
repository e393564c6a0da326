"""How pip is run, and found where an environment has none of its own."""

import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from appliance.native import pip
from appliance.native.pip import BuildFailed


@pytest.fixture
def ran(monkeypatch):
    commands = []

    def run(command, **options):
        commands.append((command, options["env"]))
        code = 1 if "refuse" in command else 0
        return subprocess.CompletedProcess(command, code, "line\n" * 50, "error: no such thing")

    monkeypatch.setattr(pip.subprocess, "run", run)
    return commands


def test_it_is_this_interpreters_and_runs_with_what_it_is_given(ran):
    pip.run(["install", "x"], lambda _: None, {"CXX": "g++"})
    [(command, environment)] = ran
    assert command[:4] == [sys.executable, "-P", "-m", "pip"]
    assert command[-2:] == ["install", "x"]
    assert environment == {"CXX": "g++"}


def test_its_last_lines_are_the_reason_of_a_failure(ran):
    with pytest.raises(BuildFailed) as failed:
        pip.run(["refuse"], lambda _: None, {})
    lines = str(failed.value).splitlines()
    assert len(lines) == pip.LINES
    assert lines[-1] == "error: no such thing"


def test_an_environment_without_it_uses_the_one_that_travels_with_python(
    ran, monkeypatch, tmp_path
):
    bundling = ModuleSpec("ensurepip", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(pip, "find_spec", {"pip": None, "ensurepip": bundling}.get)
    monkeypatch.setattr(pip, "DEBIAN", tmp_path / "wheels")
    with pytest.raises(BuildFailed, match="needs pip"):
        pip.run(["install"], lambda _: None, {})
    for folder in (tmp_path / "wheels", tmp_path / "_bundled"):
        folder.mkdir()
        (folder / "pip-26.0-py3-none-any.whl").write_bytes(b"")
        pip.run(["install"], lambda _: None, {})
        assert Path(ran[-1][0][2]) == folder / "pip-26.0-py3-none-any.whl/pip"


def test_a_python_whose_distributor_took_ensurepip_out_runs_the_program():
    """As Debian's, where the package for virtual environments is not installed."""
    script = """
import sys
sys.modules["ensurepip"] = None
import appliance.native.pip as pip
pip.find_spec = {}.get
from pathlib import Path
pip.DEBIAN = Path("/nowhere")
try:
    pip.run(["install"], print, {})
except pip.BuildFailed as error:
    print(error)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert ended.stdout.startswith("needs pip in this environment")
