"""What is in the wheel, and what is not."""

import hashlib
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
STARTER = "appliance/starter/all-MiniLM-L6-v2-F16.gguf"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [path] = folder.glob("gigarouter-*.whl")
    with zipfile.ZipFile(path) as opened:
        yield opened


def text(wheel, suffix):
    [name] = [name for name in wheel.namelist() if name.endswith(suffix)]
    return wheel.read(name).decode()


@pytest.mark.parametrize(
    "name",
    [
        "appliance/models.toml",
        STARTER,
        "appliance/starter/LICENSE",
        "appliance/starter/ORIGIN.md",
        "appliance/api/openapi.json",
        "appliance/pages/html/base.html",
        "appliance/pages/static/site.css",
        "appliance/pages/static/swagger-ui.parts.LICENSE",
        "appliance/cli/main.py",
        "tui/__init__.py",
    ],
)
def test_the_wheel_carries_what_the_program_reads(wheel, name):
    assert name in wheel.namelist()


def test_the_wheel_carries_every_source_file_and_nothing_else(wheel):
    carried = {n for n in wheel.namelist() if ".dist-info/" not in n} - {"appliance/models.toml"}
    sources = {
        str(path.relative_to(ROOT))
        for package in ("appliance", "tui")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert carried == sources


def test_the_wheel_carries_neither_tests_nor_paths(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" not in name}
    assert tops == {"appliance", "tui"}
    assert [name for name in wheel.namelist() if name.endswith((".pth", ".pyc"))] == []


def test_the_catalogue_in_the_wheel_is_the_shipped_one(wheel):
    assert wheel.read("appliance/models.toml") == (ROOT / "models.toml").read_bytes()


def test_the_starter_model_in_the_wheel_is_the_one_that_the_catalogue_names(wheel):
    found = hashlib.sha256(wheel.read(STARTER)).hexdigest()
    models = tomllib.loads((ROOT / "models.toml").read_text())["model"]
    built_in = [model for model in models if "source" not in model]
    assert {model["sha256"] for model in built_in} == {found}
    assert found in (ROOT / "appliance/starter/ORIGIN.md").read_text()


def test_installing_makes_the_command(wheel):
    points = text(wheel, ".dist-info/entry_points.txt")
    assert points == "[console_scripts]\ngigarouter = appliance.cli.main:main\n"


def test_the_licence_travels_with_the_metadata(wheel):
    metadata = text(wheel, ".dist-info/METADATA")
    assert "License-Expression: Apache-2.0\n" in metadata
    assert "License-File: LICENSE\n" in metadata
    assert "License-File: appliance/starter/LICENSE\n" in metadata
    assert "License-File: appliance/pages/static/swagger-ui.LICENSE\n" in metadata
    assert "Requires-Python: >=3.11\n" in metadata


def test_the_wheel_fits_every_platform(wheel):
    assert "Tag: py3-none-any" in text(wheel, ".dist-info/WHEEL")
