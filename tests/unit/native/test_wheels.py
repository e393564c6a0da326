"""Wheels that are written from what is installed, and new ones."""

import subprocess
import sys
import zipfile
from importlib.metadata import distributions

import pytest

from appliance.native import wheels
from appliance.native.pip import BuildFailed


def put(wheel, folder):
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", str(folder), str(wheel)], check=True, timeout=120)
    [found] = distributions(path=[str(folder)])
    return found


@pytest.fixture
def made(tmp_path):
    return wheels.write(
        tmp_path,
        "some-engine",
        "0.3",
        "py3-none-any",
        summary="An engine.",
        needs=("numpy>=1", "other==2"),
        files={"some/library.so": b"\x7fELF" * 1000, "some/__init__.py": b"X = 1\n"},
    )


def test_what_is_installed_becomes_the_same_wheel_again(made, tmp_path):
    first = put(made, tmp_path / "first")
    (tmp_path / "again").mkdir()
    packed = wheels.pack(first, tmp_path / "again")
    assert packed.name == made.name
    with zipfile.ZipFile(made) as one, zipfile.ZipFile(packed) as two:
        assert set(one.namelist()) == set(two.namelist())
        for name in one.namelist():
            if not name.endswith("RECORD"):
                assert one.read(name) == two.read(name)
    second = put(packed, tmp_path / "second")
    assert second.name == "some-engine"
    assert (tmp_path / "second/some/library.so").read_bytes() == b"\x7fELF" * 1000


def test_a_file_that_is_gone_makes_no_wheel(made, tmp_path):
    found = put(made, tmp_path / "first")
    (tmp_path / "first/some/library.so").unlink()
    with pytest.raises(BuildFailed, match=r"some/library\.so"):
        wheels.pack(found, tmp_path)


def test_what_a_wheel_needs_is_read(made):
    assert wheels.requirements(made) == ["numpy>=1", "other==2"]


def test_several_tags_are_one_name():
    assert wheels._compressed(["py3-none-linux_x86_64"]) == "py3-none-linux_x86_64"
    tags = ["py3-none-manylinux_2_34_x86_64", "py3-none-manylinux_2_35_x86_64"]
    assert wheels._compressed(tags) == "py3-none-manylinux_2_34_x86_64.manylinux_2_35_x86_64"


def test_a_distribution_that_is_not_there_is_none():
    assert wheels.installed("no-such-distribution") is None
    assert wheels.installed("gigarouter").name == "gigarouter"
