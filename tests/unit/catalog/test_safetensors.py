import json
import tracemalloc

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


TWICE = b'{"x": %b, "x": %b}' % ((b'{"dtype":"F32","shape":[1],"data_offsets":[0,4]}',) * 2)

REFUSALS = [
    ("an empty header object with a body", {}, b"1234", "not fully covered"),
    ("no JSON", b"{nope", b"", "invalid JSON"),
    ("bytes that are no text", b"\xff\xfe", b"", "invalid UTF-8"),
    ("an array", b"[]", b"", "invalid type: sequence"),
    ("deep nesting", b"[" * 100_000, b"", "invalid type: sequence"),
    ("deep nesting inside", b'{"x": ' * 100_000, b"", "invalid JSON"),
    ("an endless number", b'{"x": ' + b"9" * 10_000 + b"}", b"", "number out of range"),
    ("a repeated name", TWICE, bytes(4), "twice"),
    (
        "a repeated field",
        TWICE.replace(b'"dtype":', b'"dtype":"F32","dtype":'),
        bytes(4),
        "duplicate field",
    ),
    ("a tensor that is no object", {"x": 3}, b"", "expected struct TensorInfo"),
    ("an unknown dtype", {"x": entry("F99")}, bytes(4), "unknown variant `F99`"),
    ("a dtype that is no string", {"x": entry(["F32"])}, bytes(4), "expected string"),
    ("a negative dimension", {"x": entry(shape=(-1,))}, bytes(4), "`-1`, expected usize"),
    ("a fraction as dimension", {"x": entry(shape=(1.0,))}, bytes(4), "`1.0`, expected usize"),
    ("a bool as dimension", {"x": entry(shape=(True,))}, bytes(4), "`true`, expected usize"),
    ("too many dimensions", {"x": entry(shape=(1,) * 9)}, bytes(4), "9 dimensions"),
    (
        "no shape",
        {"x": {"dtype": "F32", "data_offsets": [0, 4]}},
        bytes(4),
        "missing field `shape`",
    ),
    ("three offsets", {"x": entry(offsets=(0, 4, 8))}, bytes(8), "invalid length 3"),
    (
        "a span of another size",
        {"x": entry(shape=(2,))},
        bytes(4),
        "invalid shape, data type, or offset",
    ),
    (
        "an end before the begin",
        {"x": entry(offsets=(4, 0))},
        bytes(4),
        "invalid offset for tensor `x`",
    ),
    (
        "a hole at the start",
        {"x": entry(offsets=(4, 8))},
        bytes(8),
        "invalid offset for tensor `x`",
    ),
    (
        "a hole between",
        {"x": entry(), "y": entry(offsets=(5, 9))},
        bytes(9),
        "invalid offset for tensor `y`",
    ),
    ("an overlap", {"x": entry(), "y": entry()}, bytes(4), "invalid offset for tensor `[xy]`"),
    ("bytes after the last tensor", {"x": entry()}, bytes(5), "not fully covered"),
    ("a tensor past the end", {"x": entry()}, bytes(3), "not fully covered"),
    ("an astronomical shape", {"x": entry(shape=(1 << 60, 1 << 60))}, b"", "overflow"),
    (
        "an offset beyond 64 bits",
        {"x": entry(offsets=(1 << 70, (1 << 70) + 4))},
        bytes(4),
        "expected",
    ),
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
    with pytest.raises(
        InvalidModelFile,
        match=r"header too small|invalid header length|header of 18446744073709551615 bytes",
    ):
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


def test_metadata_is_no_tensor(tmp_path):
    path = write(tmp_path / "m", {"__metadata__": {"format": "pt"}, "x": entry()}, bytes(4))
    assert list(read_safetensors(path).tensors) == ["x"]


def test_tensors_are_found_whatever_the_order_of_the_header(tmp_path):
    body = np.array([1, 2], "<f4").tobytes() + b"\x80\x3f"
    header = {"z": entry("BF16", (1,), (8, 10)), "a": entry("F32", (1, 1), (4, 8)), "m": entry()}
    found = read_safetensors(write(tmp_path / "m", header, body))
    assert [found.read_f32(name).tolist() for name in ("a", "m", "z")] == [[[2.0]], [1.0], [1.0]]


def test_an_empty_tensor_and_a_scalar_are_read(tmp_path):
    header = {"none": entry(shape=(0, 3), offsets=(0, 0)), "one": entry(shape=(), offsets=(0, 4))}
    found = read_safetensors(write(tmp_path / "m", header, np.float32(7).tobytes()))
    assert found.read_f32("none").shape == (0, 3)
    assert found.read_f32("one").shape == ()
    assert found.read_f32("one") == 7


def test_a_file_that_is_replaced_between_the_looks_at_its_header_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "m", {"x": entry()}, bytes(4))
    real = safetensors._offsets

    def replaced(asked):
        write(asked, {"y": entry()}, bytes(4))
        return real(asked)

    monkeypatch.setattr(safetensors, "_offsets", replaced)
    with pytest.raises(InvalidModelFile, match="changed while"):
        read_safetensors(path)


@pytest.mark.parametrize(
    "header", [b"", b"[]", b"{nope", b'{"x": 1}', b'{"x": {"data_offsets": []}}', b"[" * 100_000]
)
def test_a_file_that_is_damaged_between_the_looks_at_its_header_is_refused(
    tmp_path, monkeypatch, header
):
    path = write(tmp_path / "m", {"x": entry()}, bytes(4))
    real = safetensors._offsets
    monkeypatch.setattr(safetensors, "_offsets", lambda asked: real(write(asked, header)))
    with pytest.raises(InvalidModelFile, match="changed while"):
        read_safetensors(path)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_memory_holds_one_tensor_and_not_the_file(tmp_path, dtype):
    path = tmp_path / "m"
    each = np.ones((512, 1024), np.float32)
    path.write_bytes(safetensors_bytes({f"t{number}": each for number in range(16)}, dtype=dtype))
    tracemalloc.start()
    try:
        found = read_safetensors(path)
        for name in found.tensors:
            found.read_f32(name)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3.1 * each.nbytes
