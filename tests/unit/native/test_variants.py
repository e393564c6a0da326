"""Which engines there are for a machine, and why one is of no use there."""

import ctypes
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import pytest

from appliance.native import build, variants
from appliance.native.distribution import NAME
from appliance.native.variants import called, current, distributions


class Installed:
    def __init__(self, *files):
        self.files = [PurePosixPath(file) for file in files]


PREBUILT = Installed("llama_cpp/lib/libggml-cpu-haswell.so", "llama_cpp/lib/libllama.so")
COMPILED = Installed("llama_cpp/lib/libggml-cpu.so", "llama_cpp/lib/libllama.so")


@pytest.fixture
def machine(monkeypatch):
    """A machine of Linux with a compiler and nothing else; what is set here is there."""

    machine = SimpleNamespace(libraries={}, here={})

    def load(name):
        if name not in machine.libraries:
            raise OSError(name)
        return machine.libraries[name]

    monkeypatch.setattr(variants.sys, "platform", "linux")
    monkeypatch.setattr(variants.ctypes, "CDLL", load)
    monkeypatch.setattr(build.shutil, "which", lambda name: name == "c++")
    monkeypatch.setattr(variants, "installed", machine.here.get)
    monkeypatch.setattr(variants, "CARDS", Path("/nowhere"))
    return machine


def driver(version, result=0):
    class Driver:
        @staticmethod
        def cuDriverGetVersion(pointer):  # noqa: N802 - CUDA's name
            ctypes.cast(pointer, ctypes.POINTER(ctypes.c_int))[0] = version
            return result

    return Driver


def reasons(environment=None):
    return {each.name: each.reason for each in variants.variants(environment or {})}


def test_without_a_card_there_are_the_prebuilt_one_and_the_compiled_one(machine):
    usable = [name for name, reason in reasons().items() if not reason]
    assert usable == ["cpu", "native"]
    assert called("cuda", {}) == ""
    assert called("cpu", {}) == "cpu"
    assert called("vulkan", {}) == "vulkan"
    assert called("none of ours", {}) == ""
    assert "no NVIDIA driver" in reasons()["cuda13"]


@pytest.mark.parametrize(
    ("version", "newest"), [(12080, "cuda12"), (13000, "cuda13"), (13020, "cuda13"), (11040, "")]
)
def test_the_driver_decides_which_cuda(machine, version, newest):
    machine.libraries["libcuda.so.1"] = driver(version)
    assert called("cuda", {}) == newest
    if newest != "cuda13":
        assert reasons()["cuda13"] == f"the driver knows CUDA {version // 1000}"


def test_a_driver_that_does_not_answer_is_none(machine):
    machine.libraries["libcuda.so.1"] = driver(13000, result=100)
    assert called("cuda", {}) == ""


def test_without_a_compiler_nothing_is_compiled(machine, monkeypatch):
    monkeypatch.setattr(build.shutil, "which", lambda _: None)
    assert "compiler" in reasons()["native"]


def test_a_mac_has_metal_in_the_prebuilt_one(machine, monkeypatch):
    monkeypatch.setattr(variants.sys, "platform", "darwin")
    monkeypatch.setattr(variants.platform, "machine", lambda: "arm64")
    assert list(reasons()) == ["metal", "native"]
    assert called("cpu", {}) == "metal"


def test_what_is_installed_is_told_by_its_libraries(machine):
    assert current() == ""
    machine.here[NAME] = COMPILED
    assert current() == "native"
    machine.here[NAME] = PREBUILT
    assert current() == "cpu"
    machine.here[f"{NAME}-vulkan"] = Installed("llama_cpp/lib/libggml-vulkan.so")
    assert current() == "vulkan"
    assert [each.name for each in variants.variants({}) if each.is_installed] == ["vulkan"]


def test_a_card_adds_a_distribution():
    assert distributions("cpu") == (NAME,)
    assert distributions("native") == ()
    assert distributions("cuda13") == (NAME, f"{NAME}-cuda13")
