import base64
import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from appliance.engine import vectors

finite = st.floats(-(2.0**50), 2.0**50, width=32)
matrices = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(2, 8)),
    elements=finite.map(lambda x: 0.0 if abs(x) < 1e-12 else x),
)


@given(matrices)
def test_every_row_has_length_one_and_a_row_of_zeros_stays_zeros(matrix):
    unit = vectors.l2_normalise(matrix)
    assert unit.dtype == np.float32
    assert unit.shape == matrix.shape
    for before, after in zip(matrix, unit, strict=True):
        expected = 1.0 if before.any() else 0.0
        assert np.linalg.norm(after.astype(np.float64)) == pytest.approx(expected, abs=1e-5)


def test_normalising_keeps_the_direction_and_leaves_its_input_alone():
    matrix = np.array([[3, 4], [0, 0], [-5, 0]], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unit = vectors.l2_normalise(matrix)
    np.testing.assert_allclose(unit, [[0.6, 0.8], [0, 0], [-1, 0]], rtol=1e-6)
    assert matrix[0].tolist() == [3, 4]


@given(matrices, st.integers(1, 8))
def test_a_shortened_vector_is_its_beginning_with_length_one(matrix, dimensions):
    short = vectors.truncate_dimensions(matrix, dimensions)
    assert short.flags.c_contiguous
    assert short.shape == (len(matrix), min(dimensions, matrix.shape[1]))
    np.testing.assert_allclose(short, vectors.l2_normalise(matrix[:, :dimensions]), atol=1e-6)


def test_the_cosine_is_with_the_first_row():
    matrix = np.array([[2, 0], [1, 0], [0, 3], [-4, 0], [1, 1], [0, 0]], np.float32)
    found = vectors.cosine_to_first(matrix)
    np.testing.assert_allclose(found, [1, 0, -1, math.sqrt(0.5), 0], atol=1e-6)
    assert vectors.cosine_to_first(matrix[:1]).shape == (0,)


@given(st.floats(-80, 80, width=32))
def test_the_sigmoid_is_the_sigmoid(logit):
    [found] = vectors.sigmoid(np.array([logit], np.float32))
    assert found == pytest.approx(1 / (1 + math.exp(-logit)), rel=1e-9, abs=1e-12)


def test_the_sigmoid_of_huge_logits_neither_overflows_nor_leaves_zero_to_one():
    logits = np.array([-3e38, -1000, 0, 1000, 3e38], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = vectors.sigmoid(logits)
    assert found.tolist() == [0, 0, 0.5, 1, 1]
    assert found.dtype == np.float64


@given(arrays.arrays(np.float32, st.integers(0, 20), elements=st.floats(width=32)))
def test_base64_is_little_endian_float32_as_the_openai_sdk_reads_it(row):
    text = vectors.to_base64(row)
    assert np.frombuffer(base64.b64decode(text), "<f4").tobytes() == row.tobytes()


def test_a_row_of_another_byte_order_is_written_the_same():
    row = np.array([1.5, -2.25], np.float32)
    assert vectors.to_base64(row.astype(">f4")) == vectors.to_base64(row) == "AADAPwAAEMA="


# -- kinds of numbers ---------------------------------------------------------------------------

UNIT = vectors.l2_normalise(np.random.default_rng(7).normal(size=(50, 384)).astype(np.float32))


def test_int8_has_one_scale_for_all_rows_of_a_width():
    found = vectors.in_type(UNIT, "int8")
    assert found.dtype == np.int8
    expected = np.clip(np.round(UNIT.astype(np.float64) * 127 * math.sqrt(384) / 6), -127, 127)
    assert np.abs(found - expected).max() <= 1  # a half may be rounded either way
    products = found.astype(np.int32) @ found.astype(np.int32).T
    np.testing.assert_allclose(products * (6 / 127) ** 2 / 384, UNIT @ UNIT.T, atol=5e-3)
    assert (vectors.in_type(UNIT, "uint8") == found.astype(np.int16) + 128).all()


def test_a_number_beyond_the_range_is_the_largest_and_small_rows_fit_whole():
    peak = np.zeros((1, 384), np.float32)
    peak[0, 3] = -1
    assert vectors.in_type(peak, "int8")[0, 3] == -127
    assert vectors.in_type(peak, "uint8")[0, 3] == 1
    assert vectors.in_type(np.array([[1, 0]], np.float32), "int8").tolist() == [[127, 0]]


def test_bits_are_packed_as_numpy_packs_them():
    found = vectors.in_type(UNIT[:, :20], "ubinary")
    assert (found.dtype, found.shape) == (np.uint8, (50, 3))
    assert (np.unpackbits(found, axis=1)[:, :20] == (UNIT[:, :20] > 0)).all()
    signed = vectors.in_type(UNIT[:, :20], "binary")
    assert signed.dtype == np.int8
    assert (signed.astype(np.int16) + 128 == found).all()


def test_float16_is_the_nearest_of_each():
    found = vectors.in_type(UNIT, "float16")
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, UNIT, rtol=1e-3, atol=1e-7)
    assert vectors.in_type(UNIT, "float") is UNIT


def test_a_text_of_several_windows_has_their_mean_by_tokens():
    rows = np.array([[2, 0], [0, 5], [3, 4], [0, 0]], np.float32)
    found = vectors.mean_of_windows(rows, weights=[3, 1, 7, 0], counts=[2, 1, 1])
    assert found[0] == pytest.approx(np.array([3, 1]) / math.sqrt(10), abs=1e-6)
    assert found[1] == pytest.approx([0.6, 0.8])
    assert found[2].tolist() == [0, 0]
    assert found.dtype == np.float32


def test_a_single_window_keeps_its_direction_whatever_it_weighs():
    rows = np.array([[1, 2, 2]], np.float32)
    for weight in (0, 1, 511):
        found = vectors.mean_of_windows(rows, weights=[weight], counts=[1])
        assert found[0] == pytest.approx(np.array([1, 2, 2]) / 3, abs=1e-6)
