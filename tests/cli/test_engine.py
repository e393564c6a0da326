"""`gigarouter engine`: what is installed, and that it is not built twice."""

import json
import subprocess
import sys
from pathlib import Path

from appliance.native import build
from tests.kernels import supported


def gigarouter(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "appliance", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_installed_engine_is_shown():
    done = gigarouter("engine", "show", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert set(facts) == {"llama-cpp-python", "kernels", "memory", "features", "library"}
    assert Path(facts["library"]).exists()
    assert facts["kernels"] in {f"gigarouter's ({supported()[0]})", "llama.cpp's own"}
    shown = gigarouter("engine", "show").stdout
    assert all(name in shown for name in facts)
    assert facts["kernels"] in shown


def test_an_engine_that_is_up_to_date_is_left_alone(monkeypatch, tmp_path, capsys):
    from click.testing import CliRunner

    from appliance.cli.main import cli

    asked = []
    monkeypatch.setattr(build, "install", lambda _say, **options: asked.append(options["force"]))
    assert CliRunner().invoke(cli, ["engine", "install"]).output == "up to date\n"
    assert CliRunner().invoke(cli, ["engine", "install", "--force"]).exit_code == 0
    assert asked == [False, True]


def test_a_build_that_fails_is_one_line_of_reason_and_exit_code_1(monkeypatch):
    from click.testing import CliRunner

    from appliance.cli.main import cli

    def fail(_say, **_options):
        raise build.BuildFailed("needs a C++ compiler")

    monkeypatch.setattr(build, "install", fail)
    done = CliRunner().invoke(cli, ["engine", "install"])
    assert done.exit_code == 1
    assert "gigarouter: needs a C++ compiler" in done.output
