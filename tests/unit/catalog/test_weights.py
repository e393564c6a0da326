"""Weights of every type that has a float form are read as the gguf package reads them."""

import gguf
import numpy as np
import pytest

from appliance.catalog import weights
from appliance.catalog.header_parser import read_header
from appliance.catalog.weights import read_tensor_f32
from appliance.core.errors import InvalidModelFile
from tests.unit.catalog.test_header_parser import gguf_bytes, tensor


@pytest.fixture
def read(tmp_path):
    def read(raw):
        path = tmp_path / "model.gguf"
        path.write_bytes(raw)
        return read_header(path)

    return read


def one_tensor(read, kind, dims, data):
    return read(gguf_bytes(tensors=[tensor(dims=dims, kind=kind)], data=data))


@pytest.mark.parametrize(("kind", "dtype"), [(0, "<f4"), (1, "<f2")])
def test_floats_are_read_in_numpy_order(read, kind, dtype):
    values = np.arange(6).reshape(2, 3)
    found = read_tensor_f32(one_tensor(read, kind, (3, 2), values.astype(dtype).tobytes()), "t")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values)


def test_bfloat16_is_read(read):
    found = read_tensor_f32(one_tensor(read, 30, (2,), b"\x80\x3f\x00\xc0"), "t")
    np.testing.assert_array_equal(found, [1.0, -2.0])


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0"])
def test_quantized_weights_are_read_as_the_gguf_package_reads_them(read, name):
    kind = gguf.GGMLQuantizationType[name]
    values = np.random.default_rng(1).standard_normal((4, 64)).astype(np.float32)
    packed = gguf.quants.quantize(values, kind)
    found = read_tensor_f32(one_tensor(read, int(kind), (64, 4), packed.tobytes()), "t")
    np.testing.assert_array_equal(found, gguf.quants.dequantize(packed, kind))
    assert found.shape == (4, 64)


def test_a_type_that_has_no_float_form_is_refused(read):
    with pytest.raises(InvalidModelFile, match="type 26 has no float32 form"):
        read_tensor_f32(one_tensor(read, 26, (4,), bytes(16)), "t")


def test_an_absent_tensor_is_refused(read):
    with pytest.raises(InvalidModelFile, match="nope: there is no such tensor"):
        read_tensor_f32(one_tensor(read, 0, (4,), bytes(16)), "nope")


def test_a_tensor_over_the_bound_is_refused(read, monkeypatch):
    monkeypatch.setattr(weights, "FLOAT32_BYTES_MAX", 15)
    with pytest.raises(InvalidModelFile, match="too large"):
        read_tensor_f32(one_tensor(read, 0, (4,), bytes(16)), "t")


def test_a_file_that_shrinks_after_its_header_was_read_is_refused(read):
    found = one_tensor(read, 0, (4,), bytes(16))
    found.path.write_bytes(found.path.read_bytes()[:-1])
    with pytest.raises(InvalidModelFile, match="shorter"):
        read_tensor_f32(found, "t")
