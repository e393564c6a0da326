"""An engine takes the place of another one, or leaves everything as it was: real pip, real wheels."""

import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from appliance.native import wheels
from appliance.native.distribution import NAME
from tests.server import ROOT

STEPS = """\
import json, os, shutil, sys, tempfile
sys.path.insert(0, {root!r})
from pathlib import Path
from appliance.native import staging
from appliance.native.pip import BuildFailed
staging.CHECK = "enginecheck"
if os.environ.get("KILLED"):
    run = staging.pip.run

    def cut_off(arguments, say, environment):
        run(arguments, say, environment)
        if arguments[0] == "uninstall":
            os._exit(9)

    staging.pip.run = cut_off
said = []
try:
    engine = [Path(name) for name in sys.argv[1:]]
    if not engine:
        folder = Path(tempfile.mkdtemp())
        engine = [Path(shutil.copy(wheel, folder)) for wheel in staging.before()]
    found = staging.switch(engine, said.append, dict(os.environ))
    print(json.dumps({{"cosine": found.cosine, "facts": dict(found.facts), "said": said}}))
except BuildFailed as failure:
    print(json.dumps({{"failed": str(failure), "said": said}}))
"""
CHECK = """\
import json, os, sys, sysconfig
import fake_engine
installed = fake_engine.__file__.startswith(sysconfig.get_path("purelib"))
cosine = fake_engine.ANSWER(installed)
print(json.dumps({"cosine": cosine, "facts": {"kernels": fake_engine.NAME}}))
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """An environment with pip, and with a check that asks the module that stands for an engine."""
    folder = tmp_path_factory.mktemp("staging")
    venv.create(folder / "venv", with_pip=True)
    [packages] = (folder / "venv/lib").glob("python*/site-packages")
    (packages / "enginecheck.py").write_text(CHECK)
    return folder


def wheel(folder, version, answer, *, name=NAME, module="fake_engine"):
    """Write a wheel of an engine that answers so; `answer` is told whether it is installed."""
    content = f"NAME = {version!r}\nimport os, signal\nANSWER = {answer}\n"
    return wheels.write(
        folder,
        name,
        version,
        "py3-none-any",
        summary="stands for an engine",
        needs=(),
        files={f"{module}/__init__.py": content.encode()},
    )


def run(program, *given):
    command = [program / "venv/bin/python", "-c", STEPS.format(root=str(ROOT)), *given]
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, timeout=300
    )


def killed(program, *given):
    """Return the exit code of a switch that ends in the middle."""
    return run(program, *given).returncode


def switch(program, *given):
    ran = run(program, *given)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def installed(program):
    """Return the version of the engine that this environment imports; None: there is none."""
    code = "import importlib.util as u; print(u.find_spec('fake_engine') is not None)"
    python = program / "venv/bin/python"
    ran = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    if ran.stdout.strip() == "False":
        return None
    code = "import fake_engine; print(fake_engine.NAME)"
    ran = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def leftovers(program):
    return [
        path.name for path in (program / "venv").glob(".engine.*") if path.name[-6:] != "before"
    ]


def test_an_engine_replaces_another_and_leaves_a_way_back(program, tmp_path):
    switch(program, wheel(tmp_path, "1.0", "lambda installed: 0.99999"))
    assert installed(program) == "1.0"
    found = switch(program, wheel(tmp_path, "2.0", "lambda installed: 0.9999"))
    assert found == {"cosine": 0.9999, "facts": {"kernels": "2.0"}, "said": []}
    assert installed(program) == "2.0"
    switch(program)  # the one before
    assert installed(program) == "1.0"
    switch(program)
    assert installed(program) == "2.0"
    assert leftovers(program) == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("lambda installed: 0.9", "cosine 0.9000"),
        ("lambda installed: float('nan')", "cosine nan"),
        ("lambda installed: os.kill(os.getpid(), signal.SIGILL)", "signal 4"),
        ("lambda installed: 1 / 0", "ZeroDivisionError"),
    ],
)
def test_one_that_is_wrong_is_not_installed(program, tmp_path, answer, reason):
    switch(program, wheel(tmp_path, "3.0", "lambda installed: 1.0"))
    assert reason in switch(program, wheel(tmp_path, "4.0", answer))["failed"]
    assert installed(program) == "3.0"


def test_one_that_is_wrong_where_it_is_installed_is_taken_back(program, tmp_path):
    switch(program, wheel(tmp_path, "5.0", "lambda installed: 1.0"))
    found = switch(program, wheel(tmp_path, "6.0", "lambda installed: 0.0 if installed else 1.0"))
    assert "cosine 0.0000" in found["failed"]
    assert any("going back" in line for line in found["said"])
    assert installed(program) == "5.0"
    assert leftovers(program) == []


def test_a_switch_that_was_killed_can_be_gone_back_on(program, tmp_path, monkeypatch):
    switch(program, wheel(tmp_path, "11.0", "lambda installed: 1.0"))
    monkeypatch.setenv("KILLED", "1")
    assert killed(program, wheel(tmp_path, "12.0", "lambda installed: 1.0")) == 9
    assert installed(program) is None
    monkeypatch.delenv("KILLED")
    switch(program)
    assert installed(program) == "11.0"
    assert leftovers(program) == []


def test_parts_that_the_next_one_does_not_have_are_removed(program, tmp_path):
    switch(
        program,
        wheel(tmp_path, "7.0", "lambda installed: 1.0"),
        wheel(tmp_path, "7.0", "None", name=f"{NAME}-vulkan", module="fake_card"),
    )
    [packages] = (program / "venv/lib").glob("python*/site-packages")
    assert (packages / "fake_card").is_dir()
    switch(program, wheel(tmp_path, "8.0", "lambda installed: 1.0"))
    assert not (packages / "fake_card").exists()
    switch(program)
    assert (packages / "fake_card").is_dir()


def test_what_is_no_wheel_of_this_machine_is_refused(program, tmp_path):
    switch(program, wheel(tmp_path, "9.0", "lambda installed: 1.0"))
    other = tmp_path / "gigarouter_engine-10-py3-none-win_amd64.whl"
    other.write_bytes(Path(wheel(tmp_path, "10", "None")).read_bytes())
    assert "not a supported wheel" in switch(program, other)["failed"]
    assert installed(program) == "9.0"
    assert sys.platform != "win32"
