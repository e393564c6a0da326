"""The clients that people have: OpenAI's own SDK with its defaults, curl, and LangChain's habits."""

import json
import subprocess
from collections.abc import Iterator
from decimal import Decimal

import httpx2
import openai
import pytest

from appliance.api.error_responses import TABLE
from tests.api import contract
from tests.server import EMBED, RERANK, ROOT, Server

GOLDEN = json.loads((ROOT / "tests/golden/all-minilm-l6-v2.json").read_text())["items"]


@pytest.fixture(scope="module")
def sdk(server: Server) -> Iterator[openai.OpenAI]:
    with sdk_of(server, str(server.mint(name="sdk")["key"]), []) as client:
        yield client


def sdk_of(server: Server, key: str, sent: list[httpx2.Request]) -> openai.OpenAI:
    """OpenAI's client with its defaults; `sent` gets each attempt, the contract each answer."""
    http = contract.watch(openai.DefaultHttpxClient())
    http.event_hooks["request"].append(sent.append)
    return openai.OpenAI(api_key=key, base_url=f"{server.url}/v1", http_client=http)


def alike(one: list[float], other: list[float]) -> float:
    """The cosine of two vectors of length 1."""
    return sum(a * b for a, b in zip(one, other, strict=True))


# -- OpenAI's SDK -------------------------------------------------------------------------------


def test_the_openai_sdk_embeds_a_string_with_its_defaults(sdk: openai.OpenAI) -> None:
    got = sdk.embeddings.create(model=EMBED, input=GOLDEN[0]["text"])
    assert alike(got.data[0].embedding, GOLDEN[0]["embedding"]) >= 0.999
    assert (got.object, got.model, got.data[0].object) == ("list", EMBED, "embedding")
    assert got.usage.prompt_tokens == got.usage.total_tokens == GOLDEN[0]["tokens"]


def test_the_openai_sdk_embeds_a_list_in_its_order(sdk: openai.OpenAI) -> None:
    items = GOLDEN[:5]
    got = sdk.embeddings.create(model=EMBED, input=[item["text"] for item in items])
    assert [each.index for each in got.data] == [0, 1, 2, 3, 4]
    for each, item in zip(got.data, items, strict=True):
        assert alike(each.embedding, item["embedding"]) >= 0.999


def test_the_openai_sdk_asks_for_base64_and_gets_what_floats_would_be(sdk: openai.OpenAI) -> None:
    text = GOLDEN[1]["text"]
    raw = sdk.embeddings.with_raw_response.create(model=EMBED, input=text)
    assert b'"base64"' in raw.http_request.content
    as_floats = sdk.embeddings.create(model=EMBED, input=text, encoding_format="float")
    assert raw.parse().data[0].embedding == pytest.approx(as_floats.data[0].embedding, abs=1e-7)


def test_the_openai_sdk_may_say_what_we_ignore(sdk: openai.OpenAI) -> None:
    got = sdk.embeddings.create(
        model=EMBED, input="a", user="u-1", dimensions=384, extra_body={"priority": [1, {}]}
    )
    assert len(got.data[0].embedding) == 384


def test_the_openai_sdk_lists_and_shows_models(sdk: openai.OpenAI) -> None:
    listed = {model.id: model for model in sdk.models.list()}
    assert {EMBED, RERANK} <= set(listed)
    shown = sdk.models.retrieve(EMBED)
    assert shown == listed[EMBED]
    assert (shown.object, shown.owned_by) == ("model", "sentence-transformers")
    assert shown.created > 0
    assert sdk.models.retrieve("all-minilm-l6-v2").id == EMBED


def test_a_bad_key_is_the_sdks_authentication_error(server: Server) -> None:
    sent: list[httpx2.Request] = []
    sdk = sdk_of(server, "gr-nothing", sent)
    with sdk, pytest.raises(openai.AuthenticationError) as caught:
        sdk.embeddings.create(model=EMBED, input="a")
    assert caught.value.code == "invalid_api_key"
    assert caught.value.type == "authentication_error"
    assert len(sent) == 1


def test_a_wrong_request_is_the_sdks_bad_request_error(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.embeddings.create(model=EMBED, input=[])
    assert (caught.value.code, caught.value.param) == ("invalid_request", "input")
    assert "input is empty" in str(caught.value)
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.embeddings.create(model=EMBED, input="a", dimensions=128)
    assert (caught.value.code, caught.value.param) == ("unsupported_dimensions", "dimensions")


def test_an_unknown_model_is_the_sdks_not_found_error(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.embeddings.create(model="text-embedding-3-small", input="a")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("nothing")
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.chat.completions.create(model=EMBED, messages=[])
    assert caught.value.code == "unknown_path"


def test_a_key_without_credit_is_a_status_error_that_the_sdk_does_not_retry(
    server: Server,
) -> None:
    sent: list[httpx2.Request] = []
    with sdk_of(server, str(server.mint(credit="0")["key"]), sent) as sdk:
        with pytest.raises(openai.APIStatusError) as caught:
            sdk.embeddings.create(model=EMBED, input="a")
        assert (caught.value.status_code, caught.value.code) == (402, "insufficient_credit")
        assert len(sent) == 1


def test_a_days_budget_is_a_rate_limit_error_that_the_sdk_does_not_retry(server: Server) -> None:
    sent: list[httpx2.Request] = []
    with sdk_of(server, str(server.mint(daily_budget="0")["key"]), sent) as sdk:
        with pytest.raises(openai.RateLimitError) as caught:
            sdk.embeddings.create(model=EMBED, input="a")
        assert caught.value.code == "daily_budget_exceeded"
        assert len(sent) == 1


def test_the_sdks_request_id_is_ours(sdk: openai.OpenAI) -> None:
    got = sdk.embeddings.create(model=EMBED, input="a", extra_headers={"x-request-id": "mine-7"})
    assert got._request_id == "mine-7"
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.embeddings.create(model=EMBED, input="")
    assert str(caught.value.request_id).startswith("req_")


def test_token_ids_are_refused_with_langchains_way_out(sdk: openai.OpenAI) -> None:
    # LangChain's OpenAIEmbeddings sends tiktoken's ids unless it is told not to.
    for tokens in ([[3923, 374, 264]], [3923, 374, 264]):
        with pytest.raises(openai.BadRequestError) as caught:
            sdk.embeddings.create(model=EMBED, input=tokens)
        assert caught.value.code == "token_input_unsupported"
        assert "check_embedding_ctx_length=False" in str(caught.value)


# -- curl ---------------------------------------------------------------------------------------


def curl(server: Server, path: str, body: str, *flags: str) -> tuple[int, dict[str, object]]:
    """Post with curl, which calls a body form-urlencoded unless it is told otherwise."""
    done = subprocess.run(
        [
            "curl",
            "-sS",
            "-m",
            "60",
            "-w",
            "\n%{http_code}",
            f"{server.url}{path}",
            *flags,
            "--data-binary",
            "@-",
        ],
        input=body,
        capture_output=True,
        text=True,
        check=True,
    )
    content, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(content)


@pytest.fixture(scope="module")
def bearer(server: Server) -> str:
    return f"Authorization: Bearer {server.mint(name='curl')['key']}"


def test_curl_without_a_content_type_embeds_and_ranks(server: Server, bearer: str) -> None:
    status, got = curl(
        server, "/v1/embeddings", json.dumps({"model": EMBED, "input": "a"}), "-H", bearer
    )
    assert (status, got["object"]) == (200, "list")
    body = json.dumps({"model": RERANK, "query": "a", "documents": ["b", "a"]})
    status, got = curl(server, "/v1/rerank", body, "-H", bearer)
    assert status == 200
    assert [result["index"] for result in got["results"]] == [1, 0]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/json; charset=utf-8", "multipart/form-data", "x", "", ";;/,="],
)
def test_a_body_is_json_whatever_its_content_type_says(
    server: Server, bearer: str, kind: str
) -> None:
    flags = ("-H", bearer, "-H", f"content-type: {kind}" if kind else "content-type;")
    body = json.dumps({"model": EMBED, "input": "a"})
    assert curl(server, "/v1/embeddings", body, *flags)[0] == 200


def test_curl_reads_why_a_body_of_40_mb_is_refused(server: Server, bearer: str) -> None:
    # Above a megabyte curl asks first ("Expect: 100-continue"), and sends in chunks when told to.
    body = json.dumps({"model": EMBED, "input": "a" * 40_000_000})
    for flags in ((), ("-H", "expect:"), ("-H", "transfer-encoding: chunked")):
        status, got = curl(server, "/v1/embeddings", body, "-H", bearer, *flags)
        assert (status, got["error"]["code"]) == (413, "body_too_large")  # type: ignore[index]


# -- what a client can look up ------------------------------------------------------------------


def test_the_openapi_document_has_everything_that_the_contract_has(server: Server) -> None:
    document = httpx2.get(f"{server.url}/v1/openapi.json").json()
    assert contract.missing(contract.CONTRACT, document, document) == []


def test_the_openapi_document_names_every_status_that_may_be_answered(server: Server) -> None:
    document = httpx2.get(f"{server.url}/v1/openapi.json").json()
    # A path with another method is no operation of the document, and the hub is the operator's.
    paid = {str(row.status) for row in TABLE.values()} - {"405", "502"}
    for path, told in document["paths"].items():
        for method, operation in contract.resolved(told, document).items():
            done = next(each for name, each in operation["responses"].items() if name[0] == "2")
            costs = "x-balance" in contract.resolved(done, document).get("headers", {})
            expected = paid if costs else {"403", "421"}
            assert expected <= set(operation["responses"]), f"{method} {path}"
            for status, answer in operation["responses"].items():
                named = contract.resolved(answer, document)
                assert named["description"], f"{method} {path} {status}"


def test_prices_are_listed_as_exact_numbers(server: Server) -> None:
    with contract.watch(httpx2.Client(base_url=server.url)) as anyone:
        listed = json.loads(anyone.get("/v1/models").content, parse_float=Decimal)["data"]
    prices = {model["id"]: model["pricing"] for model in listed}
    assert prices[EMBED] == {
        "realtime": Decimal("0.008"),
        "batch": Decimal("0.004"),
        "unit": "1M tokens",
    }
    assert prices[RERANK]["unit"] == "1k documents"


def test_a_key_can_look_up_what_it_has_left(server: Server) -> None:
    minted = server.mint(name="holder", credit="0.5", rpm=100)
    with contract.watch(server.client(str(minted["key"]))) as client:
        spent = Decimal(
            client.post("/v1/embeddings", json={"model": EMBED, "input": "a"}).headers["x-cost"]
        )
        account = json.loads(client.get("/account").content, parse_float=Decimal)
        assert account["balance"] == Decimal("0.5") - spent
        assert account["spent_today"] == spent
        assert account["limits"]["requests_per_minute"] == 100
    with contract.watch(httpx2.Client(base_url=server.url)) as anyone:
        asked = anyone.get("/account", params={"key": str(minted["key"])})
        assert json.loads(asked.content, parse_float=Decimal) == account
        assert str(minted["key"]) not in asked.text
        for wrong in ("", "?key=", "?key=%ff%00", "?key=gr-nothing", "?%ff=%fe&&==&key"):
            assert anyone.get(f"/account{wrong}").status_code == 401
