"""Imports go down the stairs, and nothing loads what it does not need."""

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import tui

ROOT = Path(__file__).resolve().parents[2]
CONSOLE = [
    module.name
    for module in pkgutil.walk_packages(tui.__path__, "tui.")
    if not module.name.endswith("__main__")
]

PROBE = """
import importlib, sys
modules, unwanted = sys.argv[1].split(","), sys.argv[2].split(",")
for module in modules:
    importlib.import_module(module)
print(",".join(name for name in unwanted if name in sys.modules))
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_staircase_and_every_door_are_kept():
    done = run(str(Path(sys.executable).with_name("lint-imports")))
    assert done.returncode == 0, done.stdout
    assert ", 0 broken." in done.stdout


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [
        pytest.param(["tui"], "llama_cpp,litestar,sqlite_utils,numpy", id="the console"),
        pytest.param(
            ["tui", *CONSOLE], "llama_cpp,litestar,sqlite_utils,numpy", id="all of the console"
        ),
        pytest.param(
            [
                "appliance.client.caller",
                "appliance.client.local_server",
            ],
            "llama_cpp,litestar,granian,sqlite3,sqlite_utils,numpy,textual,tokenizers,gguf",
            id="the client",
        ),
        pytest.param(["appliance.api.app"], "textual,llama_cpp", id="the application"),
        pytest.param(["appliance.compose"], "textual,llama_cpp,granian", id="the appliance"),
        pytest.param(
            ["appliance.cli.main"],
            "numpy,litestar,granian,llama_cpp,textual,tokenizers,gguf,sqlite_utils",
            id="the command line",
        ),
        pytest.param(
            ["appliance.admin.operator_api"], "litestar,granian,llama_cpp,textual", id="admin"
        ),
    ],
)
def test_an_import_loads_nothing_that_it_does_not_need(modules, unwanted):
    done = run(sys.executable, "-c", PROBE, ",".join(modules), unwanted)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
