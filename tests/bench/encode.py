"""Encode: sentence-transformers in its own process, without HTTP: its ceiling on the same texts.

Runs under a peer's interpreter (`peers.py` starts it), so it knows nothing of this project. Reads
`{"model": folder, "seconds": s, "rounds": n, "loads": {name: [texts]}}` from standard input and
writes `{name: {"texts_per_s": …, "tokens_per_s": …}}` to standard output.
"""

import json
import statistics
import sys
import time
from typing import Any

BATCH = 32
"""The library's own default."""


def main() -> None:
    from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found]  # only the peer has it

    asked: dict[str, Any] = json.load(sys.stdin)
    # The library's own choice: a graphics card where torch finds one.
    model = SentenceTransformer(asked["model"])
    found = {}
    for name, texts in asked["loads"].items():
        rows = model.tokenizer(texts, truncation=True, max_length=model.max_seq_length)
        tokens = sum(map(len, rows["input_ids"]))
        rates = []
        for number in range(asked["rounds"] + 1):
            began, passes = time.perf_counter(), 0
            # The first round warms up.
            while not passes or time.perf_counter() - began < asked["seconds"] * bool(number):
                model.encode(texts, batch_size=BATCH, normalize_embeddings=True)
                passes += 1
            rates.append(passes / (time.perf_counter() - began))
        rate = statistics.median(rates[1:])
        found[name] = {"texts_per_s": rate * len(texts), "tokens_per_s": rate * tokens}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
