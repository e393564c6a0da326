"""Our kernels inside the engine against float64: every ragged shape, one to three threads.

Every test runs with the kernels of each instruction set that this processor has.
"""

import ctypes
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize

from tests.kernels import cpu, library, ours, supported, using

GGML_TYPE_F32, GGML_TYPE_F16 = 0, 1
EXACT = 2e-5
"""Greatest error of a product, of the norms of its row and column."""
OF_BFLOAT = 2**-15
"""The same of one pair of numbers that are split into two bfloat16 each; sums of many are nearer."""


def _cpu_flags() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if sys.platform == "linux" else ""


base = library("ggml-base")
# Where packaging/environment.sh built the engine for a processor that they are for, they are in it.
expected = Path(sys.prefix, ".engine").exists() and " avx2 " in _cpu_flags()
pytestmark = pytest.mark.skipif(not (ours or expected), reason="an engine with its own kernels")


class _InitParams(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


P, I64, F = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
for lib, name, result, arguments in (
    (base, "ggml_init", P, (_InitParams,)),
    (base, "ggml_free", None, (P,)),
    (base, "ggml_new_tensor_4d", P, (P, ctypes.c_int, I64, I64, I64, I64)),
    (base, "ggml_get_data", P, (P,)),
    (base, "ggml_nbytes", ctypes.c_size_t, (P,)),
    (base, "ggml_quantize_chunk", ctypes.c_size_t, (ctypes.c_int, P, P, I64, I64, I64, P)),
    (base, "ggml_mul_mat", P, (P, P, P)),
    (base, "ggml_gelu", P, (P, P)),
    (base, "ggml_norm", P, (P, P, F)),
    (base, "ggml_add", P, (P, P, P)),
    (base, "ggml_mul", P, (P, P, P)),
    (base, "ggml_permute", P, (P, P, *[ctypes.c_int] * 4)),
    (base, "ggml_flash_attn_ext", P, (P, P, P, P, P, F, F, F)),
    (base, "ggml_new_graph", P, (P,)),
    (base, "ggml_build_forward_expand", None, (P, P)),
    (cpu, "ggml_graph_compute_with_ctx", ctypes.c_int, (P, P, ctypes.c_int)),
):
    function = getattr(lib, name)
    function.restype, function.argtypes = result, arguments


@pytest.fixture(autouse=True, params=supported())
def kernels(request):
    with using(request.param):
        yield request.param


class Graph:
    """One operation's tensors; numpy shapes are ggml's reversed."""

    def __init__(self, size: int = 64 << 20) -> None:
        self.context = base.ggml_init(_InitParams(size, None, False))

    def tensor(self, array: np.ndarray) -> int:
        shape = (*array.shape[::-1], 1, 1, 1)[:4]
        kind = GGML_TYPE_F16 if array.dtype == np.float16 else GGML_TYPE_F32
        handle = base.ggml_new_tensor_4d(self.context, kind, *shape)
        array = np.ascontiguousarray(array)
        ctypes.memmove(base.ggml_get_data(handle), array.ctypes.data, array.nbytes)
        return handle

    def quantized(self, kind: Type, rows: np.ndarray) -> tuple[int, np.ndarray]:
        """Return a tensor of quantized rows and what their numbers are then."""
        count, depth = rows.shape
        handle = base.ggml_new_tensor_4d(self.context, int(kind), depth, count, 1, 1)
        data = base.ggml_get_data(handle)
        rows = np.ascontiguousarray(rows, np.float32)
        base.ggml_quantize_chunk(int(kind), rows.ctypes.data, data, 0, count, depth, None)
        size = base.ggml_nbytes(handle)
        raw = np.ctypeslib.as_array(ctypes.cast(data, ctypes.POINTER(ctypes.c_uint8)), (size,))
        return handle, dequantize(raw.reshape(count, -1), kind).astype(np.float64)

    def compute(self, result: int, shape: tuple[int, ...], threads: int) -> np.ndarray:
        graph = base.ggml_new_graph(self.context)
        base.ggml_build_forward_expand(graph, result)
        assert cpu.ggml_graph_compute_with_ctx(self.context, graph, threads) == 0
        floats = ctypes.cast(base.ggml_get_data(result), ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(floats, shape).copy()

    def close(self) -> None:
        base.ggml_free(self.context)


@pytest.fixture
def graph():
    made = Graph()
    yield made
    made.close()


def relative_error(got: np.ndarray, inputs: np.ndarray, weights: np.ndarray) -> float:
    """Return the greatest error of a product, of the norms of its row and column."""
    inputs, weights = inputs.astype(np.float64), weights.astype(np.float64)
    scale = np.linalg.norm(inputs, axis=1)[:, None] * np.linalg.norm(weights, axis=1)
    return np.max(np.abs(got - inputs @ weights.T) / scale)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_products_are_exact_to_float32(kernels: str, threads: int) -> None:
    rng = np.random.default_rng(threads)
    for rows, columns, depth in product(
        (1, 7, 16, 23, 24, 32, 49, 50), (1, 2, 3, 4, 7, 8, 16, 17, 33), (1, 8, 15, 33, 384, 513)
    ):
        graph = Graph(4 << 20)
        weights = rng.standard_normal((rows, depth)).astype(np.float16)
        inputs = rng.standard_normal((columns, depth)).astype(np.float32)
        result = base.ggml_mul_mat(graph.context, graph.tensor(weights), graph.tensor(inputs))
        got = graph.compute(result, (columns, rows), threads)
        # One column alone goes to the original, which rounds inputs to float16.
        bound = 2e-3 if columns == 1 else OF_BFLOAT if kernels == "amx" else EXACT
        assert relative_error(got, inputs, weights) < bound, (rows, columns, depth)
        graph.close()


@pytest.mark.parametrize(
    "kind", [Type.F32, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q5_0, Type.Q4_K, Type.Q5_K, Type.Q6_K]
)
@pytest.mark.parametrize(("rows", "depth"), [(50, 256), (16, 768), (33, 1024)])
def test_products_with_weights_of_each_type(kind: Type, rows: int, depth: int) -> None:
    rng = np.random.default_rng(rows)
    for columns, threads in ((2, 1), (7, 3), (12, 1), (17, 2), (64, 1), (130, 3)):
        graph = Graph(8 << 20)
        handle, weights = graph.quantized(kind, rng.standard_normal((rows, depth)))
        inputs = rng.standard_normal((columns, depth)).astype(np.float32)
        result = base.ggml_mul_mat(graph.context, handle, graph.tensor(inputs))
        got = graph.compute(result, (columns, rows), threads)
        # The original rounds inputs too, to bytes or bfloat16, where it is left to it.
        is_ours = kind in (Type.F32, Type.BF16, Type.Q8_0)
        bound = EXACT if is_ours else 2e-3
        assert relative_error(got, inputs, weights) < bound, columns
        graph.close()


def test_product_wider_and_deeper_than_a_block(graph: Graph) -> None:
    rng = np.random.default_rng(9)
    weights = rng.standard_normal((100, 1100)).astype(np.float16)
    inputs = rng.standard_normal((1100, 1100)).astype(np.float32)
    result = base.ggml_mul_mat(graph.context, graph.tensor(weights), graph.tensor(inputs))
    assert relative_error(graph.compute(result, (1100, 100), 2), inputs, weights) < EXACT


def test_small_and_large_numbers_of_float16_are_exact_in_two_parts(graph: Graph) -> None:
    """Every finite float16, those below the least normal one too, times one."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)][: 1024 * 62].reshape(-1, 32)
    inputs = np.eye(32, dtype=np.float32)
    result = base.ggml_mul_mat(graph.context, graph.tensor(halves), graph.tensor(inputs))
    assert np.array_equal(graph.compute(result, (32, len(halves)), 2), halves.T.astype(np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_stays_in_its_own_column_and_row(graph: Graph, bad: float) -> None:
    rng = np.random.default_rng(4)
    weights = rng.standard_normal((40, 70)).astype(np.float16)
    inputs = rng.standard_normal((35, 70)).astype(np.float32)
    weights[3, 9] = bad
    inputs[20, 41] = bad
    result = base.ggml_mul_mat(graph.context, graph.tensor(weights), graph.tensor(inputs))
    got = graph.compute(result, (35, 40), 2)
    touched = np.zeros((35, 40), bool)
    touched[:, 3] = touched[20] = True
    assert np.array_equal(~np.isfinite(got), touched)


def test_batched_products(graph: Graph) -> None:
    rng = np.random.default_rng(8)
    weights = rng.standard_normal((2, 31, 40)).astype(np.float16)
    inputs = rng.standard_normal((6, 9, 40)).astype(np.float32)
    result = base.ggml_mul_mat(graph.context, graph.tensor(weights), graph.tensor(inputs))
    got = graph.compute(result, (6, 9, 31), 2)
    for batch in range(6):
        assert relative_error(got[batch], inputs[batch], weights[batch // 3]) < OF_BFLOAT


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_gelu(graph: Graph, threads: int) -> None:
    x = np.concatenate([np.linspace(-12, 12, 4999), [0.0, -0.0, 1e-30, 90.0, -90.0, 1e30]])
    x = x.astype(np.float32).reshape(5, -1)
    got = graph.compute(base.ggml_gelu(graph.context, graph.tensor(x)), x.shape, threads)
    d = np.clip(x.astype(np.float64), -1e30, 1e30)
    want = 0.5 * d * (1 + np.tanh(np.sqrt(2 / np.pi) * (d + 0.044715 * d**3)))
    assert np.all(np.abs(got - want) <= 1e-6 * np.maximum(1, np.abs(want)))


def test_gelu_keeps_a_nan(graph: Graph) -> None:
    x = np.array([[1, np.nan, 2]], np.float32)
    got = graph.compute(base.ggml_gelu(graph.context, graph.tensor(x)), x.shape, 1)
    assert np.isnan(got[0]).tolist() == [False, True, False]


@pytest.mark.parametrize(("name", "numpy"), [("ggml_add", np.add), ("ggml_mul", np.multiply)])
@pytest.mark.parametrize("other", [(7, 37), (1, 37), (7, 1), (1, 1)])
def test_elementwise(graph: Graph, name: str, numpy: np.ufunc, other: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((7, 37)).astype(np.float32)
    y = rng.standard_normal(other).astype(np.float32)
    result = getattr(base, name)(graph.context, graph.tensor(x), graph.tensor(y))
    assert np.array_equal(graph.compute(result, x.shape, 2), numpy(x, y))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("size", [16, 32, 48, 64, 24])
@pytest.mark.parametrize(
    "lengths", [(1, 1), (5,), (64, 64), (3, 40, 21), (150,), (16,) * 5, (17, 8, 65, 1)]
)
def test_attention(graph: Graph, lengths: tuple[int, ...], size: int, threads: int) -> None:
    rng = np.random.default_rng(len(lengths))
    tokens, heads, kv_heads = sum(lengths), 6, 3
    q = rng.standard_normal((tokens, heads, size)).astype(np.float32)
    k = rng.standard_normal((tokens, kv_heads, size)).astype(np.float16)
    v = rng.standard_normal((tokens, kv_heads, size)).astype(np.float16)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    mask = np.where(owner[:, None] == owner, 0, -np.inf).astype(np.float16)
    mask[rng.random(mask.shape) < 0.1] -= 1.5
    mask[-1] = -np.inf  # a query that sees nothing
    c = graph.context
    qkv = [base.ggml_permute(c, graph.tensor(x), 0, 2, 1, 3) for x in (q, k, v)]
    result = base.ggml_flash_attn_ext(c, *qkv, graph.tensor(mask), size**-0.5, 0, 0)
    got = graph.compute(result, (tokens, heads, size), threads)
    scores = (
        np.einsum("qhd,khd->hqk", q.astype(float), k.astype(float).repeat(2, 1)) * size**-0.5 + mask
    )
    with np.errstate(invalid="ignore"):
        weight = np.exp(scores - scores.max(-1, keepdims=True))
    weight = np.nan_to_num(weight / weight.sum(-1, keepdims=True))
    want = np.einsum("hqk,khd->qhd", weight, v.astype(float).repeat(2, 1))
    # A head that no vector divides goes to the original.
    assert np.abs(got - want).max() < (2e-3 if size == 24 else 2e-6)


def test_layer_norm(graph: Graph) -> None:
    rng = np.random.default_rng(6)
    for width in (1, 8, 24, 37, 384):
        x = (rng.standard_normal((9, width)) * 3 + 1).astype(np.float32)
        got = graph.compute(base.ggml_norm(graph.context, graph.tensor(x), 1e-5), x.shape, 2)
        d = x.astype(np.float64)
        want = (d - d.mean(1, keepdims=True)) / np.sqrt(d.var(1, keepdims=True) + 1e-5)
        assert np.abs(got - want).max() < 1e-5, width


def test_the_engine_was_built_with_our_kernels():
    assert ours


def test_the_widest_kernels_that_the_processor_has_are_in_use(kernels):
    flags = _cpu_flags().split()
    widest = {"amx_bf16": "amx", "avx512bw": "avx512", "avx2": "avx2"}
    assert supported()[0] == next((widest[flag] for flag in widest if flag in flags), "neon")
    assert not cpu.gigarouter_use_kernels(b"sse")
