"""What is installed is bounded, under licences that we may use, and listed; no network is needed."""

import hashlib
import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from appliance.native.distribution import BINDING, binding_version
from tests.house.test_dependencies import EXTRAS, ROOT, RUN, locked

PTH = {
    "_editable_impl_gigarouter.pth": "the project itself, installed as editable",
    "distutils-precedence.pth": "setuptools' own",
    "_virtualenv.pth": "of a virtual environment that virtualenv made",
}
"""Files that Python runs at each start, and whose they are."""


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "packaging" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def has_ceiling(requirement):
    return any(each.operator in ("<", "<=", "==", "~=") for each in requirement.specifier)


@pytest.mark.parametrize("requirement", RUN + EXTRAS, ids=str)
def test_every_dependency_has_a_floor_and_a_ceiling(requirement):
    assert has_ceiling(requirement)
    assert any(each.operator in (">=", "==", "~=") for each in requirement.specifier)


def test_a_dependency_without_a_ceiling_is_found():
    assert not has_ceiling(Requirement("click>=8"))
    assert not has_ceiling(Requirement("click"))


def test_everything_that_the_program_runs_with_has_a_licence_that_we_may_use():
    ended = subprocess.run(
        [sys.executable, "packaging/licences.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.splitlines()) > 40


@pytest.mark.parametrize(
    ("licence", "is_known"),
    [
        ("MIT", True),
        ("MPL-2.0 AND MIT", True),
        ("Apache-2.0 OR BSD-3-Clause", True),
        ("GPL-3.0-only AND MIT", False),
        ("GNU Lesser General Public License v3 (LGPLv3)", False),
        ("AGPL-3.0", False),
        ("Other/Proprietary License", False),
        ("unknown", False),
        ("", False),
    ],
)
def test_a_licence_that_nobody_looked_at_is_refused_even_beside_a_known_one(licence, is_known):
    assert script("licences").is_known(licence) == is_known


def test_the_bill_of_materials_lists_every_locked_version_with_its_hashes(tmp_path):
    target = tmp_path / "sbom.json"
    for _ in range(2):
        subprocess.run(
            [sys.executable, "packaging/sbom.py", str(target)], cwd=ROOT, check=True, timeout=60
        )
        made = json.loads(target.read_text())
        before = target.read_bytes()
    assert target.read_bytes() == before
    assert (made["bomFormat"], made["specVersion"]) == ("CycloneDX", "1.6")
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", made["serialNumber"])
    libraries = [each for each in made["components"] if each["type"] == "library"]
    of_python = [each for each in libraries if each["purl"].startswith("pkg:pypi/")]
    assert [each["name"] for each in libraries if each not in of_python] == ["swagger-ui-dist"]
    assert {(each["name"], each["version"]) for each in of_python} == {
        *((name, pin.version) for name, pins in locked("run").items() for pin in pins),
        (BINDING, binding_version()),
    }
    assert all(each["hashes"] for each in made["components"])
    refs = [each["bom-ref"] for each in made["components"]]
    assert len(refs) == len(set(refs)) > 50
    [model] = {
        each["hashes"][0]["content"]
        for each in made["components"]
        if each["type"] == "machine-learning-model"
    }
    assert model in (ROOT / "appliance/starter/ORIGIN.md").read_text()
    assert "://" not in target.read_text()


def test_what_others_wrote_for_browsers_is_here_bit_for_bit_with_its_licence():
    vendor = script("vendor")
    copies = [copy for package in vendor.PACKAGES for copy in package.copies]
    found = {copy.path: hashlib.sha256(copy.path.read_bytes()).hexdigest() for copy in copies}
    assert found == {copy.path: copy.sha256 for copy in copies}
    for package in vendor.PACKAGES:
        assert script("licences").is_known(package.licence)
        assert any(copy.path.name.endswith("LICENSE") for copy in package.copies)
    bundled = {each for each in vendor.STATIC.iterdir() if b"license" in each.read_bytes()[:300]}
    assert {each for each in bundled if each.suffix == ".js"} <= set(found), "not listed"


def test_no_distribution_brings_a_file_that_runs_at_each_start():
    folder = Path(sysconfig.get_path("purelib"))
    assert {path.name for path in folder.glob("*.pth")} - set(PTH) == set()
    carried = {
        str(file)
        for each in importlib.metadata.distributions()
        for file in each.files or ()
        if str(file).endswith(".pth")
    }
    assert {Path(each).name for each in carried} - set(PTH) == set()


@pytest.mark.parametrize(
    ("dependencies", "code", "said"),
    [
        ([{"name": "a", "version": "1", "vulns": []}], 0, "none of 1"),
        ([{"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1"}]}], 1, "a 1: PYSEC-1"),
        ([{"name": "a", "skip_reason": "not found"}], 0, "not looked up: 1 of 1"),
        ([], 0, "not looked up: 0 of 0"),
    ],
)
def test_what_was_not_looked_up_is_not_called_free_of_vulnerabilities(dependencies, code, said):
    found, lines = script("vulnerabilities").verdict({"dependencies": dependencies, "fixes": []})
    assert found == code
    assert any(line.startswith(said) for line in lines)
    assert not any(line.startswith("none of") for line in lines) or said == "none of 1"


def test_one_command_audits_all_of_it():
    text = (ROOT / "packaging/audit.sh").read_text()
    subprocess.run(["sh", "-n", "packaging/audit.sh"], cwd=ROOT, check=True)
    named = (
        "test_dependencies.py",
        "test_supply.py",
        "test_packaging.py",
        "licences.py",
        "sbom.py",
    )
    assert all(each in text for each in (*named, "pip-audit"))
