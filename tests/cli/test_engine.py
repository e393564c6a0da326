"""`gigarouter engine`: what there is, what is installed, and what takes its place."""

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from appliance.bench.workload import WORKLOADS
from appliance.cli import engine as command
from appliance.cli.main import cli
from appliance.native import build, staging, wheels
from appliance.native.distribution import NAME
from appliance.native.pip import BuildFailed
from appliance.native.staging import Checked
from tests.kernels import supported


def gigarouter(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "appliance", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture
def switched(monkeypatch, tmp_path):
    """Engines are put nowhere: what would be installed is kept here."""
    found = []

    def switch(engine, _say, _environment):
        found.append([(path.name, path.read_bytes()) for path in engine])
        return Checked(cosine=0.99999, facts={"kernels": "gigarouter's (avx2)"})

    @contextmanager
    def built(_say, *, environment, force=False):
        path = tmp_path / f"native-{force}.whl"
        path.write_bytes(b"native")
        yield path

    monkeypatch.setattr(staging, "switch", switch)
    monkeypatch.setattr(build, "built", built)
    monkeypatch.setattr(build.sys, "prefix", str(tmp_path))
    return found


@pytest.fixture
def folder(tmp_path):
    """A folder of prebuilt wheels: the engine, one for cards, and what that one needs."""
    there = tmp_path / "wheels"
    there.mkdir()
    for name, version, needs in (
        (NAME, "0.3.36", ()),
        (f"{NAME}-vulkan", "0.3.36", (f"{NAME}==0.3.36", "some-driver>=2")),
        ("some-driver", "2.1", ()),
        ("some-driver", "1.0", ()),
    ):
        wheels.write(
            there, name, version, "py3-none-any", summary=name, needs=needs, files={"x/y": b""}
        )
    return there


def run(*arguments):
    done = CliRunner().invoke(cli, ["engine", *map(str, arguments)])
    return done.exit_code, done.output


def test_the_installed_engine_is_shown():
    done = gigarouter("engine", "show", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    facts = json.loads(done.stdout)
    assert set(facts) == {
        *("engine", "llama-cpp-python", "kernels", "memory", "features", "library", "processor")
    }
    assert facts["engine"] in {"native", "cpu"}
    assert Path(facts["library"]).with_name(facts["processor"]).exists()
    assert facts["kernels"] in {f"gigarouter's ({supported()[0]})", "llama.cpp's own"}
    shown = gigarouter("engine", "show").stdout
    assert all(name in shown for name in facts)
    assert facts["kernels"] in shown


def test_engines_are_listed_with_the_installed_one_and_why_one_is_of_no_use():
    listed = json.loads(run("list", "--json")[1])
    assert [each["name"] for each in listed][-2:] == ["cpu", "native"]
    assert len([each for each in listed if each["is_installed"]]) == 1
    code, table = run("list")
    assert code == 0
    for each in listed:
        [row] = [line for line in table.splitlines() if line.startswith(each["name"] + " ")]
        assert ("installed" if each["is_installed"] else each["reason"] or "usable") in row


def test_one_that_is_compiled_here_is_compiled_once(switched, monkeypatch):
    monkeypatch.setattr(build, "is_installed", lambda _: False)
    code, output = run("install", "native")
    assert code == 0
    assert "native is installed (gigarouter's (avx2) kernels, cosine 0.99999)" in output
    monkeypatch.setattr(build, "is_installed", lambda _: True)
    assert run("install", "native") == (0, "up to date\n")
    assert run("install", "native", "--force")[0] == 0
    assert [name for [(name, _)] in switched] == ["native-False.whl", "native-True.whl"]


def test_a_prebuilt_one_comes_from_a_folder(switched, folder, monkeypatch):
    monkeypatch.setattr(command, "current", lambda: "native")
    code, output = run("install", "cpu", "--from", folder)
    assert code == 0, output
    assert "cpu is installed" in output
    [engine] = switched
    assert [name for name, _ in engine] == ["gigarouter_engine-0.3.36-py3-none-any.whl"]


def test_one_for_cards_brings_what_its_library_needs(switched, folder, monkeypatch):
    monkeypatch.setattr(command, "current", lambda: "cpu")
    code, output = run("install", "vulkan", "--from", folder)
    assert code == 0, output
    assert [name for name, _ in switched[0]] == [
        "gigarouter_engine-0.3.36-py3-none-any.whl",
        "gigarouter_engine_vulkan-0.3.36-py3-none-any.whl",
        "some_driver-2.1-py3-none-any.whl",
    ]


def test_without_a_name_it_is_compiled_where_nothing_prebuilt_is_to_be_had(
    switched, tmp_path, monkeypatch
):
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(command, "current", lambda: "")
    monkeypatch.setattr(build, "is_installed", lambda _: False)
    code, output = run("install", "--from", tmp_path / "empty")
    assert code == 0, output
    assert "cpu: " in output
    assert "native is installed" in output


def test_a_name_that_is_none_says_which_there_are(switched):
    code, output = run("install", "tpu")
    assert code == 1
    assert "no engine 'tpu' for this machine; there are: " in output
    assert "native" in output
    assert switched == []


def test_without_an_engine_before_there_is_no_way_back(switched):
    code, output = run("rollback")
    assert code == 1
    assert "none to go back to" in output


def test_the_one_before_comes_back(switched, tmp_path):
    kept = tmp_path / staging.KEPT
    kept.mkdir()
    (kept / "gigarouter_engine-0.3.35-py3-none-any.whl").write_bytes(b"before")
    assert run("rollback")[0] == 0
    assert switched == [[("gigarouter_engine-0.3.35-py3-none-any.whl", b"before")]]


def test_a_failure_is_one_line_of_reason_and_exit_code_1(monkeypatch):
    def fail(*_arguments, **_options):
        raise BuildFailed("needs a C++ compiler")

    monkeypatch.setattr(build, "built", fail)
    code, output = run("install", "native", "--force")
    assert code == 1
    assert "gigarouter: needs a C++ compiler" in output


def test_engines_are_compared_in_turn(tmp_path):
    done = gigarouter(
        "engine", "bench", "--rounds", "1", "--seconds", "0.2", "--workloads", "short-1"
    )
    assert done.returncode == 0, done.stderr
    [header, row] = done.stdout.splitlines()
    assert header.split() == ["ENGINE", "WORKLOAD", "TOKENS/S", "RATIO"]
    name, workload, rate, ratio = row.split()
    assert (name, workload, ratio) == ("installed", "short-1", "1.00")
    assert int(rate) > 0
    missing = gigarouter("engine", "bench", tmp_path / "absent.whl")
    assert missing.returncode == 1
    assert "there are: installed, before, native or a wheel's path" in missing.stderr


def test_what_is_measured_without_being_asked_for_exists():
    [given] = [each for each in command.bench_engines.params if each.name == "workloads"]
    assert set(given.default.split(",")) <= {workload.name for workload in WORKLOADS}


def test_the_cache_is_cleaned(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    old = tmp_path / "gigarouter/engine" / ("0" * 20)
    old.mkdir(parents=True)
    (old / "gigarouter_engine-9-py3-none-any.whl").write_bytes(b"w" * 2_000_000)
    assert run("clean") == (0, "2 MB were freed\n")
    assert not old.exists()
