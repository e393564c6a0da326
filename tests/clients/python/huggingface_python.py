"""Hugging Face's InferenceClient, pointed at a URL as at its own inference endpoints."""

from typing import Any

import check
from check import (
    BASE,
    KEY,
    MODEL,
    NO_MODEL,
    QUERY,
    TEXTS,
    WRONG_KEY,
    refused,
    same,
    same_query,
    step,
)
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError

check.client("huggingface_hub InferenceClient")
FULL = "sentence-transformers/all-MiniLM-L6-v2"
for path in (f"/tei/{MODEL}", f"/tei/{MODEL}/", f"/tei/{MODEL}/embed", f"/tei/{FULL}"):
    hub = InferenceClient(model=BASE + path, token=KEY)
    with step(f"feature_extraction of several texts, model {path}"):
        same(hub.feature_extraction(TEXTS))
hub = InferenceClient(model=f"{BASE}/tei/{MODEL}", token=KEY)
with step("feature_extraction of one text"):
    same_query(hub.feature_extraction(QUERY))
with step("normalize, truncate and truncation_direction"):
    same(hub.feature_extraction(TEXTS, normalize=True, truncate=True, truncation_direction="right"))
with step("base_url and api_key in OpenAI's way"):
    same(InferenceClient(base_url=f"{BASE}/tei/{MODEL}", api_key=KEY).feature_extraction(TEXTS))
with step("sentence_similarity"):
    got = hub.sentence_similarity(TEXTS[0], other_sentences=TEXTS[1:])
    wanted = check.VECTORS[1:] @ check.VECTORS[0]
    assert abs(got - wanted).max() < 1e-3, f"{got} instead of {wanted}"
with step("asynchronously"):

    async def embed() -> Any:
        async with AsyncInferenceClient(model=f"{BASE}/tei/{MODEL}", token=KEY) as asynchronous:
            return await asynchronous.feature_extraction(TEXTS)

    same(check.waited(embed))
with refused("wrong key", HfHubHTTPError, "401"):
    InferenceClient(model=f"{BASE}/tei/{MODEL}", token=WRONG_KEY).feature_extraction(QUERY)
with refused("unknown model", HfHubHTTPError, "404"):
    InferenceClient(model=f"{BASE}/tei/{NO_MODEL}", token=KEY).feature_extraction(QUERY)
