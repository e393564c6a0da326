import base64
import json
from types import SimpleNamespace

import numpy as np
import pytest

from appliance.engine import vectors
from appliance.shapes.rows import SLICE_ROWS, json_list, slices

ROWS = vectors.l2_normalise(np.random.default_rng(1).normal(size=(SLICE_ROWS + 3, 16)).astype("f4"))
FOUND = SimpleNamespace(rows=ROWS)
DTYPES = {
    "float": "<f4",
    "float16": "<f2",
    "int8": "i1",
    "uint8": "u1",
    "binary": "i1",
    "ubinary": "u1",
}


@pytest.mark.parametrize("kind", DTYPES)
def test_every_row_is_written_once_in_its_order(kind):
    expected = vectors.in_type(ROWS, kind)
    found = json.loads(json_list(FOUND, kind))
    np.testing.assert_allclose(np.array(found), expected, rtol=1e-3)
    coded = json.loads(json_list(FOUND, kind, base64=True))
    assert [base64.b64decode(row) for row in coded] == [
        row.astype(DTYPES[kind]).tobytes() for row in expected
    ]


def test_slices_say_where_they_begin():
    assert [(first, len(rows)) for first, rows in slices(FOUND, "float")] == [
        (0, SLICE_ROWS),
        (SLICE_ROWS, 3),
    ]
