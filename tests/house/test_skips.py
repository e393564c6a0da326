"""What may be skipped in CI, and that anything else fails the run."""

import ast
import os
import subprocess
import sys
from pathlib import Path

from hypothesis import settings

from tests import skips

ROOT = Path(__file__).resolve().parents[2]


def reasons_of(path: Path) -> set[str]:
    """The beginnings of the reasons of every skip in a file."""
    found = set()
    text = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)) if "skip" in text else ():
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr not in {"skip", "skipif", "importorskip"}:
            continue
        given = [each.value for each in node.keywords if each.arg == "reason"]
        [reason] = given or node.args[:1]
        if isinstance(reason, ast.JoinedStr):
            reason = reason.values[0]
        assert isinstance(reason, ast.Constant), f"{path}:{node.lineno}"
        found.add(str(reason.value).partition(":")[0])
    return found


def test_every_reason_in_the_tests_is_expected_and_every_expected_one_is_given():
    paths = [path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    assert set().union(*map(reasons_of, paths)) == set(skips.EXPECTED)


def run(folder: Path, *reasons: str, ci: str) -> subprocess.CompletedProcess[str]:
    """Run a module that is skipped and a test that is, each for one of two reasons."""
    whole, single = reasons
    (folder / "test_whole.py").write_text(
        f"import pytest\n\npytest.skip({whole!r}, allow_module_level=True)\n"
    )
    (folder / "test_single.py").write_text(
        f"import pytest\n\ndef test_it():\n    pytest.skip({single!r})\n\n"
        "def test_other():\n    assert True\n"
    )
    options = ["-q", "-p", "tests.skips", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(folder)],
        cwd=ROOT,
        env={**os.environ, "CI": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed, 2 skipped" in ended.stdout, ended.stdout + ended.stderr
    return ended


def test_skips_that_are_expected_pass_in_ci(tmp_path):
    ended = run(tmp_path, "there is no tmux here", "no disk can be mounted here: EPERM", ci="true")
    assert ended.returncode == 0
    assert "does not expect" not in ended.stdout


def test_a_skip_that_nobody_expects_fails_a_run_in_ci_and_is_named(tmp_path):
    ended = run(tmp_path, "the data is gone", "the moon: it is full", ci="true")
    assert ended.returncode == 1
    for reason in ("the data is gone", "the moon: it is full"):
        assert f"does not expect it: {reason}\n" in ended.stdout


def test_a_skip_that_nobody_expects_passes_on_a_persons_machine(tmp_path):
    assert run(tmp_path, "the data is gone", "the moon", ci="").returncode == 0


def test_hypothesis_tries_new_examples_in_ci_too():
    assert settings.default is not None
    assert not settings.default.derandomize
