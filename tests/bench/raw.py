"""Raw: ONNX Runtime and torch on token ids in their own process, without HTTP or tokenizing.

Runs under a peer's interpreter (`engines.py` starts it), so it knows nothing of this project. Reads
`{"model": folder, "fused": path, "threads": n, "seconds": s, "rounds": n, "shapes": {name: [texts,
tokens]}}` from standard input and writes `{engine: {shape: ms a batch}}` to standard output.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

VOCABULARY = 30_000
Compute = Callable[[Any], object]


def onnx(path: str, threads: int) -> Compute:
    """Return what computes a batch with ONNX Runtime."""
    import numpy as np
    import onnxruntime  # type: ignore[import-not-found]  # only the peer has it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def compute(ids: Any) -> object:
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": ids * 0}
        return session.run(None, {name: given[name] for name in names})

    return compute


def torch_model(folder: str, threads: int) -> Compute:
    """Return what computes a batch with torch in float32."""
    import torch  # type: ignore[import-not-found]  # as above
    from transformers import AutoModel  # type: ignore[import-not-found]  # as above

    torch.set_num_threads(threads)
    model = AutoModel.from_pretrained(folder).eval()

    def compute(ids: Any) -> object:
        with torch.inference_mode():
            return model(torch.from_numpy(ids))

    return compute


def milliseconds(compute: Compute, shape: list[int], seconds: float, rounds: int) -> float:
    """Return the median of the rounds' best times of a batch."""
    import numpy as np

    ids = np.random.default_rng(1).integers(1000, VOCABULARY, shape).astype(np.int64)
    best = []
    for _ in range(rounds + 1):
        ends, times = time.perf_counter() + seconds, []
        while not times or time.perf_counter() < ends:
            began = time.perf_counter()
            compute(ids)
            times.append(time.perf_counter() - began)
        best.append(statistics.median(times))
    return 1000 * statistics.median(best[1:])


def main() -> None:
    from onnxruntime.quantization import (  # type: ignore[import-not-found]  # as above
        QuantType,
        quantize_dynamic,
    )

    asked: dict[str, Any] = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as folder:
        small = str(Path(folder, "int8.onnx"))
        quantize_dynamic(
            str(Path(asked["model"], "model.onnx")), small, weight_type=QuantType.QInt8
        )
        engines = {
            "onnx float32": onnx(asked["fused"], asked["threads"]),
            "onnx int8": onnx(small, asked["threads"]),
            "torch float32": torch_model(asked["model"], asked["threads"]),
        }
        found = {
            name: {
                shape: milliseconds(compute, size, asked["seconds"], asked["rounds"])
                for shape, size in asked["shapes"].items()
            }
            for name, compute in engines.items()
        }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
