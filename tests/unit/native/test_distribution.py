"""What our distribution of the engine changes in the binding's source."""

import io
import tarfile
import tomllib

import pytest

from appliance.native import distribution
from appliance.native.distribution import NAME, NEEDS, SOURCES, VERSION, UnknownSource, unpack

PYPROJECT = """\
[project]
name = "llama_cpp_python"
dynamic = ["version"]
description = "Python bindings for the llama.cpp library"
dependencies = [
{needs}]
[tool.scikit-build]
wheel.py-api = "py3"
[tool.scikit-build.metadata.version]
provider = "scikit_build_core.metadata.regex"
input = "llama_cpp/__init__.py"

[project.urls]
Homepage = "https://example.org"
"""
CMAKE = "cmake_minimum_required(VERSION 3.21)\nproject(llama_cpp)\noption(LLAMA_BUILD ON)\n"


GGML = """\
            ggml_add_cpu_backend_variant(armv8.6_1    DOTPROD)
            ggml_add_cpu_backend_variant(armv9.2_1    DOTPROD SME)
            ggml_add_cpu_backend_variant(armv9.2_2    DOTPROD SVE2 SME)
"""


def binding(folder, *, needs=NEEDS, cmake=CMAKE, ggml=GGML, outside=""):
    """Write what stands in for the binding's source distribution."""
    written = PYPROJECT.format(needs="".join(f'    "{need}",\n' for need in needs))
    path = folder / "llama_cpp_python-9.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in (
            ("pyproject.toml", written),
            ("CMakeLists.txt", cmake),
            ("vendor/llama.cpp/ggml/src/CMakeLists.txt", ggml),
        ):
            info = tarfile.TarInfo(f"{outside}llama_cpp_python-9/{name}")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


def test_it_has_our_name_our_kernels_and_nothing_for_programs_in_c(tmp_path):
    source = unpack(binding(tmp_path), tmp_path / "source")
    told = tomllib.loads((source / "pyproject.toml").read_text())
    assert told["project"]["name"] == NAME
    assert told["project"]["version"] == VERSION
    assert "dynamic" not in told["project"]
    assert told["project"]["dependencies"] == list(NEEDS)
    assert told["tool"]["scikit-build"]["wheel"]["exclude"] == ["bin/**", "include/**", "lib/**"]
    assert "metadata" not in told["tool"]["scikit-build"]
    assert told["project"]["urls"] == {"Homepage": "https://example.org"}
    lines = (source / "CMakeLists.txt").read_text().splitlines()
    assert lines[2] == 'include("${CMAKE_CURRENT_SOURCE_DIR}/gigarouter/engine.cmake")'
    ours = {path.name: path.read_bytes() for path in (source / "gigarouter").iterdir()}
    assert "engine.cmake" in ours
    assert "kernels.cpp" in ours
    assert all((SOURCES / name).read_bytes() == content for name, content in ours.items())


def test_processors_that_a_compiler_does_not_know_are_left_out(tmp_path):
    source = unpack(binding(tmp_path), tmp_path / "source")
    lines = (source / "vendor/llama.cpp/ggml/src/CMakeLists.txt").read_text().split("\n")
    assert [line.split()[0] for line in lines if line] == [
        "ggml_add_cpu_backend_variant(armv8.6_1",
        *("if", "ggml_add_cpu_backend_variant(armv9.2_1", "endif()"),
        *("if", "ggml_add_cpu_backend_variant(armv9.2_2", "endif()"),
    ]


@pytest.mark.parametrize(
    "different",
    [
        {"needs": ["numpy>=2"]},
        {"cmake": "project(llama)\n"},
        {"cmake": CMAKE + CMAKE},
        {"ggml": GGML.replace("armv9.2_2", "armv9.3")},
    ],
)
def test_a_source_that_is_not_what_we_change_is_refused(tmp_path, different):
    with pytest.raises(UnknownSource):
        unpack(binding(tmp_path, **different), tmp_path / "source")


def test_nothing_is_unpacked_beside_the_folder(tmp_path):
    (tmp_path / "in").mkdir()
    archive = binding(tmp_path / "in", outside="../")
    with pytest.raises(tarfile.FilterError):
        unpack(archive, tmp_path / "in" / "source")
    assert not list(tmp_path.glob("llama*"))


def test_a_post_release_carries_the_same_binding(monkeypatch):
    monkeypatch.setattr(distribution, "VERSION", "0.3.36.post2")
    assert distribution.binding_version() == "0.3.36"
