"""What stands at the top of the project."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOP = {
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "models.toml",
    "appliance",
    "tui",
    "tests",
    "packaging",
}


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("this is no checkout")
    return listed.stdout.splitlines()


def test_the_top_holds_what_it_should_and_nothing_else(tracked):
    top = {path.partition("/")[0] for path in tracked}
    assert {name for name in top if not name.startswith(".")} == TOP


def test_nothing_that_a_run_leaves_behind_is_tracked(tracked):
    leftovers = (".pyc", ".db", ".db-wal", ".log", ".pth", ".part", ".orig", ".rej")
    assert [path for path in tracked if path.endswith(leftovers) or "__pycache__" in path] == []


def test_only_the_starter_model_is_large(tracked):
    large = {
        path
        for path in tracked
        if (ROOT / path).exists() and (ROOT / path).stat().st_size > 5_000_000
    }
    assert large == {"appliance/starter/all-MiniLM-L6-v2-F16.gguf"}
