"""The report of reliability: it names what is there, and it counts what breaks."""

import os
import subprocess
import sys

import pytest

from tests.bench import report
from tests.bench.promises import PROMISES, Promise
from tests.server import ROOT


def proven(promise, run, *, large=False):
    return report.prove(promise, large=large, seed=7, run=run)


def pytest_in(folder):
    """Return what runs the tests of a folder, whatever paths it is given."""

    def run(arguments, variables):
        words = [each for each in arguments if not each.startswith("tests/")]
        return subprocess.run(
            [sys.executable, *words, "-p", "no:cacheprovider", str(folder)],
            cwd=folder,
            env={**os.environ, **variables},
            capture_output=True,
            check=False,
        ).returncode

    return run


def test_every_promise_names_tests_and_commands_that_exist():
    assert len({promise.id for promise in PROMISES}) == len(PROMISES)
    for path in {path for promise in PROMISES for path in promise.tests}:
        file, _, name = path.partition("::")
        text = (ROOT / "tests" / file).read_text()
        assert f"\ndef {name or 'test_'}" in text, path
    for promise in PROMISES:
        assert [bool(promise.tests), bool(promise.bench), bool(promise.untried)].count(True) == 1
        if promise.bench:
            assert (ROOT / "tests/bench" / f"{promise.bench[0]}.py").is_file()
        if promise.variable:
            files = {path.partition("::")[0] for path in promise.tests}
            texts = [(ROOT / "tests" / file).read_text() for file in files]
            assert any(f'"{promise.variable}"' in text for text in texts)
            assert 0 < promise.small <= promise.large


def test_trials_violations_and_skips_are_counted(tmp_path):
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('n', range(5))\n"
        "def test_holds(n): assert n != 3\n"
        "@pytest.mark.skip\n"
        "def test_skipped(): pass\n"
    )
    row = proven(Promise("X", "it holds", tests=("some.py",)), pytest_in(tmp_path))
    assert (row.trials, row.violations, row.skipped) == (5, 1, 1)
    assert row.text().startswith("| X | it holds | `pytest tests/some.py` | 5 | 1 | 1 | ")


@pytest.mark.parametrize(("large", "size"), [(False, 3), (True, 9)])
def test_the_size_and_the_seed_reach_the_tests(tmp_path, large, size):
    (tmp_path / "test_some.py").write_text(
        "import os\n"
        f"def test_size(): assert os.environ['TIMES'] == '{size}'\n"
        "def test_seed(): assert os.environ['KILL_SEED'] == '7'\n"
    )
    promise = Promise("X", "it", tests=("some.py",), variable="TIMES", small=3, large=9)
    row = proven(promise, pytest_in(tmp_path), large=large)
    assert (row.trials, row.violations) == (size, 0)
    assert f"`TIMES={size} pytest" in row.text()


def test_a_run_that_cannot_begin_is_no_proof(tmp_path):
    (tmp_path / "test_some.py").write_text("import nothing_of_this_name\n")
    row = proven(Promise("X", "it holds", tests=("some.py",)), pytest_in(tmp_path))
    assert row.violations == 1


@pytest.mark.parametrize(("code", "violations"), [(0, 0), (1, 1), (-9, 1)])
def test_a_command_that_fails_has_broken_its_promise(code, violations):
    ran = []

    def run(arguments, _variables):
        ran.append(list(arguments))
        return code

    row = proven(Promise("X", "it", bench=("fuzz", "--requests", "{}"), small=4, large=8), run)
    assert ran == [["-m", "tests.bench.fuzz", "--requests", "4"]]
    assert (row.trials, row.violations) == (4, violations)
    assert "`python -m tests.bench.fuzz --requests 4`" in row.text()


def test_what_nothing_tries_to_break_is_said():
    row = proven(Promise("X", "it", untried="no such disk"), None)
    assert row.text() == "| X | it | no such disk | - | - | - | - |"


def test_some_promises_can_be_asked_for():
    assert [each.id for each in report.chosen(["S3", "R2"])] == ["K4, K5, K6, S3", "R1, R2, H2"]
    assert list(report.chosen([])) == list(PROMISES)
    assert "commit " in report.preamble(large=False, seed=7)
