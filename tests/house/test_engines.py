"""The recipe of the prebuilt engines: what each wheel is, and what the command knows of them."""

import importlib.util
import subprocess
import sys
import zipfile

import pytest

from appliance.native.distribution import NAME, VERSION
from appliance.native.variants import GRAPHICS
from appliance.native.wheels import requirements
from tests.server import ROOT

RECIPE = ROOT / "packaging/engines"


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPE))
    spec = importlib.util.spec_from_file_location("make", RECIPE / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_is_a_recipe_for_each_engine_that_the_command_offers(recipe):
    names = [target.name for target in recipe.TARGETS]
    assert len(names) == len(set(names))
    assert set(GRAPHICS) == {target.name for target in recipe.TARGETS if target.added}
    assert {"cpu", "metal", "aarch64"} <= set(names)
    for target in recipe.TARGETS:
        assert "-DGGML_BACKEND_DL=ON" in target.arguments
        assert ("-DGGML_CPU=OFF" in target.arguments) == bool(target.added)


def test_a_library_for_cards_is_a_distribution_of_its_own(recipe, tmp_path):
    whole = tmp_path / f"gigarouter_engine-{VERSION}-py3-none-linux_x86_64.whl"
    with zipfile.ZipFile(whole, "w") as archive:
        for name in ("libggml-cuda.so", "libggml-base.so", "libllama.so"):
            archive.writestr(f"llama_cpp/lib/{name}", name)
    [target] = [each for each in recipe.TARGETS if each.name == "cuda13"]
    made = recipe.added(target, whole, tmp_path)
    assert made.name == f"gigarouter_engine_cuda13-{VERSION}-py3-none-linux_x86_64.whl"
    assert requirements(made) == [f"{NAME}=={VERSION}", *target.requires]
    with zipfile.ZipFile(made) as archive:
        libraries = [name for name in archive.namelist() if name.startswith("llama_cpp/")]
        assert libraries == ["llama_cpp/lib/libggml-cuda.so"]
        assert archive.read(libraries[0]) == b"libggml-cuda.so"


def test_one_that_is_unknown_is_refused_with_the_names():
    command = [sys.executable, RECIPE / "make.py", "tpu"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 2
    assert "'cuda13'" in ran.stderr or "cuda13" in ran.stderr


def test_the_check_for_cards_is_a_script_that_a_shell_reads():
    subprocess.run(["sh", "-n", ROOT / "packaging/gpu_check.sh"], check=True, timeout=60)
    refused = subprocess.run(
        ["sh", ROOT / "packaging/gpu_check.sh", "tpu"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert refused.returncode == 1
    assert "unknown argument: tpu" in refused.stderr
