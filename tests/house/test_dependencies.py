"""pyproject.toml, the lock and the imports agree about what is installed; no network is needed."""

import ast
import re
import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from appliance.native import distribution

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "packaging/lock"
AGAIN = "run `sh packaging/lock.sh` and commit packaging/lock"

MODULES = {
    "huggingface_hub": "huggingface-hub",
    "llama_cpp": "gigarouter-engine",  # carries the binding, under its own name
    "opentelemetry": "opentelemetry-sdk",
    "prometheus_client": "prometheus-client",
    "sqlite_utils": "sqlite-utils",
    "textual_serve": "textual-serve",
    "uvloop": "granian",  # the extra `uvloop`
}
"""Distributions whose modules have another name."""

UNSTABLE = {
    "granian._granian": "a listening socket of ours is given to it by its private SocketHolder",
    "granian.server.embed": "its authors call it experimental",
    "huggingface_hub.file_download": "repo_folder_name is not in the documented surface",
    "huggingface_hub.utils": "of it we use the private `_http`",
    "llama_cpp": "bindings of a C interface that changes with each release",
    "textual_serve.server": "our application is made by overriding its private `_make_app`",
    "tokenizers": "tokens must stay the reference's, bit for bit",
    "gguf": "files are written in its writer's own steps",
}
"""Modules of others whose next release may change what we use, and how."""

ENVIRONMENTS = [
    {"sys_platform": system, "platform_machine": machine, "python_full_version": python}
    for system, machine in (
        ("linux", "x86_64"),
        ("linux", "aarch64"),
        ("darwin", "arm64"),
    )
    for python in ("3.11.0", "3.12.0", "3.13.0", "3.14.0")
]


@dataclass(frozen=True)
class Locked:
    version: str
    marker: Marker | None
    hashes: frozenset[str]


@cache
def locked(name: str) -> dict[str, list[Locked]]:
    """What a lock file pins: by name, each version with its marker and hashes."""
    found: dict[str, list[Locked]] = {}
    for entry in (LOCK / f"{name}.txt").read_text().replace("\\\n", " ").splitlines():
        text, *hashes = re.split(r"\s+--hash=", entry.strip())
        requirement = Requirement(text)
        [pin] = requirement.specifier
        assert pin.operator == "==", entry
        found.setdefault(canonicalize_name(requirement.name), []).append(
            Locked(pin.version, requirement.marker, frozenset(hashes))
        )
    return found


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUN = [
    Requirement(text)
    for text in (*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"])
]
EXTRAS = [
    Requirement(text)
    for texts in PROJECT["project"]["optional-dependencies"].values()
    for text in texts
]


def disagreements(wanted: list[Requirement], lock: dict[str, list[Locked]]) -> list[str]:
    """What is wanted and not locked within its range, in any environment that we support."""
    wrong = []
    for requirement in wanted:
        pins = lock.get(canonicalize_name(requirement.name), [])
        for environment in ENVIRONMENTS:
            here = {**environment, "platform_python_implementation": "CPython"}
            here["python_version"] = here["python_full_version"].rpartition(".")[0]
            versions = [p.version for p in pins if p.marker is None or p.marker.evaluate(here)]
            if len(versions) != 1 or not requirement.specifier.contains(versions[0]):
                wrong.append(f"{requirement}: locked {versions} for {environment}")
    return wrong


@pytest.mark.parametrize(
    ("name", "wanted"), [("run", RUN), ("test", RUN + EXTRAS)], ids=["run", "test"]
)
def test_every_dependency_is_locked_once_and_within_its_range(name, wanted):
    assert len(wanted) > 15
    # The engine is built, or installed from a wheel of ours: packaging/engine.py.
    wanted = [each for each in wanted if each.name != distribution.NAME]
    assert disagreements(wanted, locked(name)) == [], AGAIN


def test_a_range_that_moved_and_a_dependency_that_is_new_are_found():
    lock = locked("run")
    assert disagreements([Requirement("click<8")], lock)
    assert disagreements([Requirement("no-such-thing")], lock)
    assert disagreements([Requirement("click>=8")], lock) == []


def test_both_locks_have_the_same_versions():
    run, test = locked("run"), locked("test")
    assert len(run) > 40
    assert {name: pins for name, pins in run.items() if test.get(name) != pins} == {}, AGAIN


def test_everything_locked_has_hashes_and_no_place_where_it_is_fetched():
    for name in ("run", "test"):
        pins = [pin for pins in locked(name).values() for pin in pins]
        assert all(pin.hashes for pin in pins)
        assert all(
            re.fullmatch(r"sha256:[0-9a-f]{64}", each) for pin in pins for each in pin.hashes
        )
        text = (LOCK / f"{name}.txt").read_text()
        assert re.findall(r"://|--(?:extra-)?index-url|--find-links|file:", text) == []


def test_the_engine_is_declared_as_it_is_built_and_what_it_needs_is_locked():
    [declared] = [each for each in RUN if each.name == distribution.NAME]
    assert str(declared) == f"{distribution.NAME}=={distribution.binding_version()}.*"
    for name in ("run", "test"):
        lock = locked(name)
        assert distribution.NAME not in lock
        assert distribution.BINDING not in lock
        assert disagreements([Requirement(need) for need in distribution.NEEDS], lock) == []


# -- what the code imports ----------------------------------------------------------------------


@cache
def imported() -> dict[str, set[str]]:
    """Modules of others, by the distribution that has them: every import in the shipped code."""
    ours, found = {"appliance", "tui"}, {}
    for path in (path for package in ours for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                top = name.partition(".")[0]
                if top not in ours and top not in sys.stdlib_module_names:
                    found.setdefault(MODULES.get(top, top), set()).add(name)
    return found


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    declared = {each.name for each in RUN + EXTRAS}
    needed = {Requirement(text).name for text in PROJECT["project"]["dependencies"]}
    assert set(imported()) - declared == set()
    assert needed - set(imported()) == set()


def test_a_private_name_of_somebody_elses_is_among_the_unstable_ones():
    private = {
        name
        for names in imported().values()
        for name in names
        if any(part.startswith("_") for part in name.split("."))
    }
    assert {name for name in private if not name.startswith(tuple(UNSTABLE))} == set()


@pytest.mark.parametrize("module", UNSTABLE)
def test_what_is_unstable_is_used_and_has_a_floor_and_a_tested_ceiling(module):
    top = module.partition(".")[0]
    name = MODULES.get(top, top)
    assert [used for used in imported()[name] if (used + ".").startswith(module + ".")]
    if name == distribution.NAME:
        version = distribution.VERSION
    else:
        [pin] = locked("test")[name]
        version = pin.version
    for requirement in (each for each in RUN + EXTRAS if each.name == name):
        operators = {each.operator for each in requirement.specifier}
        assert operators in ({"=="}, {">=", "<"}), str(requirement)
        major, minor, *_ = Version(version).release
        # The lock's version is what the tests ran with: the ceiling is the next minor one.
        assert not requirement.specifier.contains(f"{major}.{minor + 1}.0"), str(requirement)
