import json

import numpy as np
import pytest

from appliance.catalog import safetensors
from appliance.catalog.safetensors import read_safetensors
from appliance.core.errors import InvalidModelFile
from tests.models import safetensors_bytes

ARRAYS = {
    "b": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.array([1.5, -2.0], dtype=np.float32),
}


def write(path, header, body=b"", *, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + text + body)
    return path


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_floats_of_every_supported_width_are_read_as_float32(tmp_path, dtype):
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors_bytes(ARRAYS, dtype=dtype))
    found = read_safetensors(path)
    for name, array in ARRAYS.items():
        read = found.read_f32(name)
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, array)


def test_tensors_are_listed_by_name_whatever_their_order_in_the_file(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors_bytes(ARRAYS))
    assert list(read_safetensors(path).tensors) == ["a", "b"]


def test_a_bfloat16_is_the_upper_half_of_a_float32(tmp_path):
    path = write(tmp_path / "m", {"x": entry("BF16", (2,))}, b"\x80\x3f\x49\xc0")
    np.testing.assert_array_equal(read_safetensors(path).read_f32("x"), [1.0, -3.140625])


def test_an_integer_buffer_is_listed_but_not_read_as_floats(tmp_path):
    path = write(tmp_path / "m", {"x": entry("I64", (1,), (0, 8))}, bytes(8))
    with pytest.raises(InvalidModelFile, match="x: is I64; F32, F16 and BF16 are supported"):
        read_safetensors(path).read_f32("x")


def test_an_absent_tensor_is_named(tmp_path):
    path = write(tmp_path / "m", {"x": entry()}, bytes(4))
    with pytest.raises(InvalidModelFile, match="y: there is no such tensor"):
        read_safetensors(path).read_f32("y")


def test_a_file_that_shrinks_after_its_header_was_read_is_refused(tmp_path):
    path = write(tmp_path / "m", {"x": entry()}, bytes(4))
    found = read_safetensors(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InvalidModelFile, match="shorter"):
        found.read_f32("x")


REFUSALS = [
    ("an empty header object with a body", {}, b"1234", "end at byte"),
    ("no JSON", b"{nope", b"", "not JSON"),
    ("bytes that are no text", b"\xff\xfe", b"", "not JSON"),
    ("an array", b"[]", b"", "not a JSON object"),
    ("deep nesting", b"[" * 100_000, b"", "not JSON"),
    ("an endless number", b'{"x": ' + b"9" * 10_000 + b"}", b"", "not JSON"),
    ("a repeated name", b'{"x": 1, "x": 2}', b"", "twice"),
    ("a tensor that is no object", {"x": 3}, b"", "not described"),
    ("an unknown dtype", {"x": entry("F99")}, bytes(4), "unknown dtype"),
    ("a dtype that is no string", {"x": entry(["F32"])}, bytes(4), "unknown dtype"),
    ("a negative dimension", {"x": entry(shape=(-1,))}, bytes(4), "natural numbers"),
    ("a fraction as dimension", {"x": entry(shape=(1.0,))}, bytes(4), "natural numbers"),
    ("a bool as dimension", {"x": entry(shape=(True,))}, bytes(4), "natural numbers"),
    ("too many dimensions", {"x": entry(shape=(1,) * 9)}, bytes(4), "9 dimensions"),
    ("no shape", {"x": {"dtype": "F32", "data_offsets": [0, 4]}}, bytes(4), "natural numbers"),
    ("three offsets", {"x": entry(offsets=(0, 4, 8))}, bytes(8), "do not hold"),
    ("a span of another size", {"x": entry(shape=(2,))}, bytes(4), "do not hold 8 bytes"),
    ("an end before the begin", {"x": entry(offsets=(4, 0))}, bytes(4), "do not hold"),
    ("a hole at the start", {"x": entry(offsets=(4, 8))}, bytes(8), "begins at byte"),
    ("an overlap", {"x": entry(), "y": entry()}, bytes(4), "begins at byte"),
    ("bytes after the last tensor", {"x": entry()}, bytes(5), "end at byte"),
    ("a tensor past the end", {"x": entry()}, bytes(3), "end at byte"),
    ("an astronomical shape", {"x": entry(shape=(1 << 60, 1 << 60))}, b"", "do not hold"),
]


@pytest.mark.parametrize(
    ("header", "body", "reason"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS]
)
def test_a_broken_header_is_refused_with_its_reason(tmp_path, header, body, reason):
    path = write(tmp_path / "m", header, body)
    with pytest.raises(InvalidModelFile, match=reason):
        read_safetensors(path)


@pytest.mark.parametrize("raw", [b"", b"1234567", b"\x40" + bytes(7) + b"{}", b"\xff" * 16])
def test_a_file_that_ends_inside_its_header_is_refused(tmp_path, raw):
    path = tmp_path / "m"
    path.write_bytes(raw)
    with pytest.raises(InvalidModelFile, match="ends inside its header"):
        read_safetensors(path)


def test_a_header_over_the_bound_is_refused_unread(tmp_path, monkeypatch):
    path = write(tmp_path / "m", {"x": entry()}, bytes(4))
    monkeypatch.setattr(safetensors, "HEADER_BYTES_MAX", 10)
    with pytest.raises(InvalidModelFile, match="at most 10 are read"):
        read_safetensors(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InvalidModelFile, match="cannot be read"):
        read_safetensors(tmp_path / "absent")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(InvalidModelFile, match="cannot be read"):
        read_safetensors(tmp_path)
