"""OpenAI's own SDK with its defaults, synchronous and asynchronous, and its Azure client."""

import check
import openai
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


def vectors(answer: openai.types.CreateEmbeddingResponse) -> list[list[float]]:
    assert [each.index for each in answer.data] == list(range(len(answer.data)))
    return [each.embedding for each in answer.data]


check.client("openai")
for base in (f"{BASE}/v1", f"{BASE}/v1/", BASE):
    sdk = openai.OpenAI(base_url=base, api_key=KEY)
    with step(f"embeds several texts, base URL {base.removeprefix(BASE) or 'without /v1'}"):
        same(vectors(sdk.embeddings.create(model=MODEL, input=TEXTS)))
sdk = openai.OpenAI(base_url=f"{BASE}/v1", api_key=KEY)
with step("embeds one text"):
    got = sdk.embeddings.create(model=MODEL, input=QUERY)
    same_query(got.data[0].embedding)
    assert (got.object, got.data[0].object) == ("list", "embedding")
    assert got.usage.prompt_tokens == got.usage.total_tokens > 0
with step("embeds as floats"):
    same(vectors(sdk.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")))
with step("dimensions of the model"):
    same(vectors(sdk.embeddings.create(model=MODEL, input=TEXTS, dimensions=384)))
with refused("dimensions that it does not have", openai.BadRequestError, "dimensions", "384"):
    sdk.embeddings.create(model=MODEL, input=TEXTS, dimensions=64)
with step("lists and shows models"):
    listed = {model.id for model in sdk.models.list()}
    assert sdk.models.retrieve(MODEL).id in listed
with step("asynchronously"):

    async def embed() -> openai.types.CreateEmbeddingResponse:
        async with openai.AsyncOpenAI(base_url=f"{BASE}/v1", api_key=KEY) as asynchronous:
            return await asynchronous.embeddings.create(model=MODEL, input=TEXTS)

    same(vectors(check.waited(embed)))
with refused("wrong key", openai.AuthenticationError, "key"):
    openai.OpenAI(base_url=f"{BASE}/v1", api_key=WRONG_KEY).embeddings.create(
        model=MODEL, input=QUERY
    )
with refused("unknown model", openai.NotFoundError, NO_MODEL):
    sdk.embeddings.create(model=NO_MODEL, input=QUERY)

check.client("openai AzureOpenAI")
VERSION = "2024-10-21"
azure = openai.AzureOpenAI(azure_endpoint=BASE, api_key=KEY, api_version=VERSION)
with step("embeds several texts"):
    same(vectors(azure.embeddings.create(model=MODEL, input=TEXTS)))
with step("a model whose name has a slash"):
    got = azure.embeddings.create(model="sentence-transformers/all-MiniLM-L6-v2", input=TEXTS)
    same(vectors(got))
with step("a deployment given once"):
    deployed = openai.AzureOpenAI(
        azure_endpoint=BASE, azure_deployment=MODEL, api_key=KEY, api_version=VERSION
    )
    same(vectors(deployed.embeddings.create(model=MODEL, input=TEXTS)))
with refused("wrong key", openai.AuthenticationError, "key"):
    openai.AzureOpenAI(
        azure_endpoint=BASE, api_key=WRONG_KEY, api_version=VERSION
    ).embeddings.create(model=MODEL, input=QUERY)
with refused("unknown model", openai.NotFoundError, NO_MODEL):
    azure.embeddings.create(model=NO_MODEL, input=QUERY)
