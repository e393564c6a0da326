"""A header answers what it is asked, or refuses by the name of the key."""

from pathlib import Path
from types import MappingProxyType

import pytest

from appliance.catalog.header import Header
from appliance.core.errors import InvalidModelFile


def header_of(metadata):
    return Header(Path("model.gguf"), 0, MappingProxyType(metadata), MappingProxyType({}))


@pytest.fixture
def found():
    return header_of(
        {
            "general.architecture": "bert",
            "bert.context_length": 512,
            "flag": True,
            "epsilon": 0.5,
            "words": ("a", "b"),
            "numbers": (1, 2),
        }
    )


def test_getters_return_the_value_or_the_default(found):
    assert (found.architecture, found.arch_int("context_length")) == ("bert", 512)
    assert (found.get_int("bert.context_length"), found.get_int("x"), found.get_int("x", 3)) == (
        512,
        None,
        3,
    )
    assert (found.get_str("general.architecture"), found.get_str("x"), found.get_str("x", "y")) == (
        "bert",
        None,
        "y",
    )
    assert (found.get_bool("flag"), found.get_bool("x"), found.get_bool("x", default=False)) == (
        True,
        None,
        False,
    )
    assert (found.get_float("epsilon"), found.get_float("x"), found.get_float("x", 1.0)) == (
        0.5,
        None,
        1.0,
    )
    assert (found.get_strings("words"), found.get_ints("numbers"), found.get_list("x")) == (
        ("a", "b"),
        (1, 2),
        (),
    )


@pytest.mark.parametrize(
    ("getter", "name"),
    [
        ("get_int", "flag"),
        ("get_int", "epsilon"),
        ("get_int", "words"),
        ("get_str", "flag"),
        ("get_bool", "epsilon"),
        ("get_float", "bert.context_length"),
        ("get_list", "flag"),
        ("get_strings", "numbers"),
        ("get_ints", "words"),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_key(found, getter, name):
    with pytest.raises(InvalidModelFile, match=f"{name}: expected"):
        getattr(found, getter)(name)


def test_an_architecture_key_must_be_there(found):
    with pytest.raises(InvalidModelFile, match=r"bert\.block_count is missing"):
        found.arch_int("block_count")


def test_a_file_without_architecture_says_so():
    with pytest.raises(InvalidModelFile, match=r"general\.architecture is missing"):
        _ = header_of({}).architecture


def test_a_header_cannot_be_changed(found):
    with pytest.raises(TypeError):
        found.metadata["flag"] = False
