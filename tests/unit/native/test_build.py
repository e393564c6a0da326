"""How the engine is built and remembered, with a stand-in for pip."""

import subprocess
import sys
from pathlib import Path

import pytest

from appliance.native import build, distribution
from appliance.native.distribution import UnknownSource
from appliance.native.pip import BuildFailed
from tests.unit.native.test_distribution import binding


class Pip:
    """Stands in for pip: writes the wheel that it is asked for, or fails."""

    def __init__(self, monkeypatch, tmp_path):
        self.calls = []
        self.fails = False
        self.prefix = tmp_path / "venv"
        self.prefix.mkdir()
        monkeypatch.setattr(sys, "prefix", str(self.prefix))
        monkeypatch.setattr(build.subprocess, "run", self.run)
        monkeypatch.setattr(build, "installed", lambda _: None)

    def run(self, command, *, env=None, **_options):
        if command[1:4] != ["-P", "-m", "pip"]:
            return subprocess.CompletedProcess(command, 0, "yes", "")
        self.calls.append((command[5], env))
        if "-r" in command:
            wanted = Path(command[command.index("-r") + 1])
            self.wanted, self.is_hashed = wanted.read_text(), "--require-hashes" in command
        if self.fails:
            lines = "".join(f"line {number}\n" for number in range(100))
            return subprocess.CompletedProcess(command, 1, lines, "error: no such compiler")
        if "--dest" in command:
            binding(Path(command[command.index("--dest") + 1]))
        if "--wheel-dir" in command:
            folder = Path(command[command.index("--wheel-dir") + 1])
            (folder / "gigarouter_engine-9-py3-none-any.whl").write_bytes(b"wheel")
        return subprocess.CompletedProcess(command, 0, "", "")

    @property
    def verbs(self):
        return [verb for verb, _ in self.calls]


@pytest.fixture
def pip(monkeypatch, tmp_path):
    return Pip(monkeypatch, tmp_path)


@pytest.fixture
def environment(tmp_path):
    return {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin"}


def install(environment, **options):
    said = []
    return build.install(said.append, environment=environment, **options), said


def test_it_is_compiled_once_and_then_taken_from_the_cache(pip, environment):
    changed, said = install(environment)
    assert changed
    assert "compiling" in said[0]
    assert pip.verbs == ["download", "wheel", "install"]
    assert install(environment) == (False, [])
    assert pip.verbs == ["download", "wheel", "install"]
    (pip.prefix / build.STAMP).unlink()  # another environment
    assert install(environment) == (True, [])
    assert pip.verbs == ["download", "wheel", "install", "install"]


def test_force_compiles_again(pip, environment):
    install(environment)
    changed, said = install(environment, force=True)
    assert changed
    assert "compiling" in said[0]
    assert pip.verbs == ["download", "wheel", "install"] * 2


def test_what_the_user_asks_of_cmake_stays(pip, environment):
    install({**environment, "CMAKE_ARGS": "-DGGML_CUDA=on"})
    [compiling] = [env for verb, env in pip.calls if verb == "wheel"]
    assert compiling["CMAKE_ARGS"] == "-DGGML_CUDA=on"


def test_a_binding_of_another_distribution_makes_room(pip, environment, monkeypatch):
    monkeypatch.setattr(build, "installed", lambda name: name)
    install(environment)
    assert pip.verbs == ["download", "wheel", "uninstall", "install"]


def test_a_source_that_is_not_what_we_change_is_refused(pip, environment, monkeypatch):
    def refuse(_archive, _folder):
        raise UnknownSource("CMakeLists.txt is another")

    monkeypatch.setattr(build, "unpack", refuse)
    with pytest.raises(BuildFailed, match="is another"):
        install(environment)
    assert pip.verbs == ["download"]


def test_a_build_that_fails_says_why_and_leaves_nothing_behind(pip, environment, tmp_path):
    pip.fails = True
    with pytest.raises(BuildFailed, match="no such compiler") as failed:
        install(environment)
    assert len(str(failed.value).splitlines()) == 30
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []
    assert not (pip.prefix / build.STAMP).exists()
    pip.fails = False
    assert install(environment)[0]


@pytest.mark.parametrize(
    "change", [{"CMAKE_ARGS": "-DGGML_CUDA=on"}, {"CXX": "clang++"}, {"CFLAGS": "-O2"}]
)
def test_another_way_of_building_is_another_engine(environment, change):
    assert build.key_of({**environment, **change}) != build.key_of(environment)


def test_the_key_is_the_same_every_time_and_knows_the_sources(environment, monkeypatch, tmp_path):
    before = build.key_of(environment)
    assert build.key_of(environment) == before
    for source in build.SOURCES.iterdir():
        if source.is_file():
            (tmp_path / source.name).write_bytes(source.read_bytes())
    monkeypatch.setattr(build, "SOURCES", tmp_path)
    assert build.key_of(environment) == before
    (tmp_path / "panels.h").write_text("// another kernel\n")
    assert build.key_of(environment) != before


def test_without_a_compiler_it_says_what_to_install(pip, environment, monkeypatch):
    monkeypatch.setattr(build.shutil, "which", lambda _: None)
    with pytest.raises(BuildFailed, match=r"apt install g\+\+"):
        install(environment)
    assert pip.calls == []


def test_pip_is_told_the_version_and_the_digest_of_what_is_compiled(pip, environment):
    install(environment)
    assert pip.is_hashed
    version = f"{distribution.BINDING}=={distribution.binding_version()}"
    assert pip.wanted == f"{version} --hash=sha256:{distribution.BINDING_SHA256}\n"


def test_no_more_is_compiled_at_once_than_the_process_has_cores(pip, environment, monkeypatch):
    """A container with a quota of 3 cores on a machine of 64 has memory for few compilers."""
    monkeypatch.setattr("appliance.machine.cores", lambda: 3)
    install(environment)
    [compiling] = [env for verb, env in pip.calls if verb == "wheel"]
    assert compiling["CMAKE_BUILD_PARALLEL_LEVEL"] == "3"
