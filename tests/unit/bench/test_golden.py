"""The check of an engine computes the model's own vectors, and tells when they are others."""

import json
import subprocess
import sys

import pytest

from appliance.bench import golden
from tests.server import ROOT

TESTS = ROOT / "tests/golden/all-minilm-l6-v2.json"


def test_the_engine_that_is_installed_computes_what_the_authors_did():
    command = [sys.executable, "-P", "-m", "appliance.bench.golden"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert 0.9999 < found["cosine"] <= 1.0001
    assert found["facts"]["llama-cpp-python"]
    assert ran.stderr == ""


def test_vectors_that_are_others_are_told(tmp_path):
    reference = json.loads(golden.VECTORS.read_text())
    first, second = reference["items"][:2]
    first["embedding"], second["embedding"] = second["embedding"], first["embedding"]
    path = tmp_path / "golden.json"
    path.write_text(json.dumps(reference))
    assert golden.check(path).cosine < 0.9


def test_the_package_has_a_part_of_the_reference_that_the_tests_have():
    ours = json.loads(golden.VECTORS.read_text())
    whole = json.loads(TESTS.read_text())
    assert ours["model"] == whole["model"]
    vectors = {item["text"]: item["embedding"] for item in whole["items"]}
    assert len(ours["items"]) == 7
    for item in ours["items"]:
        assert item["embedding"] == pytest.approx(vectors[item["text"]], abs=1e-6)
