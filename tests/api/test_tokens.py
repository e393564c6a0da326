"""Tokens and segments: what each client reads is there, ids come back as they went, nothing is paid."""

import asyncio
import json
from itertools import pairwise

import pytest

from appliance import tokenizing
from appliance.core.limits import Limits
from tests.api.test_held_bytes import LIMITS as HELD
from tests.api.test_held_bytes import Caller, held_of
from tests.appliance import bench
from tests.server import EMBED, RERANK


def asked(tmp_path, story, *, limits=None, preload=False, **order):
    """Run a story with a poster and the bench; no model is loaded, unless the story says so."""

    async def run():
        async with bench(tmp_path / "data", limits=limits, preload=preload) as on:
            auth = await on.key(**order)

            async def post(path, **body):
                return await on.client.post(path, json=body, headers=auth)

            await story(post, on)

    asyncio.run(run())


def error_of(answer):
    return answer.status_code, answer.json()["error"]["code"], answer.json()["error"]["param"]


# -- tokenize -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/tokenize", "/tokenize"])
@pytest.mark.parametrize("field", ["input", "text", "content", "inputs", "prompt"])
def test_every_clients_field_and_reader_works(tmp_path, path, field):
    async def story(post, on):
        answer = await post(path, model=EMBED, **{field: "Hello, brave world!"})
        assert answer.status_code == 200
        told = answer.json()
        member = {"object": "tokens", "index": 0, "tokens": told["tokens"], "count": 7}
        assert told["data"] == [member]
        assert told["tokens"][0] == 101
        assert told["tokens"][-1] == 102
        assert told["token_strings"] == ["[CLS]", "hello", ",", "brave", "world", "!", "[SEP]"]
        assert (told["object"], told["model"]) == ("list", EMBED)
        assert told["usage"] == {"total_tokens": 7}
        assert (told["count"], told["max_model_len"]) == (7, 256)
        assert answer.headers["x-cost"] == "0"
        assert not on.appliance.residency.engines(), "no model is loaded for it"

    asked(tmp_path, story)


def test_lists_pieces_and_special_tokens_are_as_asked(tmp_path):
    async def story(post, _):
        body = {"model": "all-minilm-l6-v2", "input": ["resetting", "a b"], "return_tokens": True}
        told = (await post("/v1/tokenize", **body, add_special_tokens=False)).json()
        assert [each["index"] for each in told["data"]] == [0, 1]
        assert [each["pieces"] for each in told["data"]] == [["reset", "##ting"], ["a", "b"]]
        assert [each["count"] for each in told["data"]] == [2, 2]
        assert told["usage"] == {"total_tokens": 4}
        assert "tokens" not in told
        told = (await post("/v1/tokenize", **body)).json()
        assert told["data"][0]["pieces"] == ["[CLS]", "reset", "##ting", "[SEP]"]
        llama = {"content": "a b", "with_pieces": True, "add_special": False}
        told = (await post("/tokenize", model=EMBED, **llama)).json()
        assert [each["piece"] for each in told["tokens"]] == ["a", "b"]
        assert [each["id"] for each in told["tokens"]] == told["data"][0]["tokens"]

    asked(tmp_path, story)


def test_a_text_is_counted_whole_however_long_it_is(tmp_path):
    async def story(post, on):
        for words in (300, 150_000):
            told = (await post("/v1/tokenize", model=EMBED, input="a " * words)).json()
            assert told["usage"]["total_tokens"] == words + 2
            assert len(told["data"][0]["tokens"]) == words + 2
        answer = await post("/v1/tokenize", model=EMBED, input=["a"] * 2_049)
        assert error_of(answer) == (400, "invalid_request", "input")

    asked(tmp_path, story)


def test_what_is_counted_is_what_an_embedding_is_billed(tmp_path):
    async def story(post, _):
        texts = ["Hello, brave world!", "été 東京 ok", "x" * 99]
        paid = (await post("/v1/embeddings", model=EMBED, input=texts)).json()
        told = (await post("/v1/tokenize", model=EMBED, input=texts)).json()
        assert told["usage"]["total_tokens"] == paid["usage"]["total_tokens"]

    asked(tmp_path, story, preload=True)


# -- TEI ----------------------------------------------------------------------------------------


TEI_TOKENS = [
    {"id": 101, "text": "[CLS]", "special": True, "start": None, "stop": None},
    {"id": 25141, "text": "Reset", "special": False, "start": 0, "stop": 5},
    {"id": 3436, "text": "ting", "special": False, "start": 5, "stop": 9},
    {"id": 102, "text": "[SEP]", "special": True, "start": None, "stop": None},
]


@pytest.mark.parametrize("base", ["", f"/tei/{EMBED}", "/tei/all-minilm-l6-v2"])
def test_teis_tokenize_and_decode_have_its_shapes(tmp_path, base):
    async def story(post, _):
        told = (await post(f"{base}/tokenize", inputs=["Resetting", "é b"])).json()
        assert told[0] == TEI_TOKENS
        assert [(each["text"], each["start"], each["stop"]) for each in told[1][1:3]] == [
            ("é", 0, 1),
            ("b", 2, 3),
        ]
        told = (await post(f"{base}/tokenize", inputs="a", add_special_tokens=False)).json()
        assert [each["text"] for each in told[0]] == ["a"]
        ids = [each["id"] for each in TEI_TOKENS]
        assert (await post(f"{base}/decode", ids=ids)).json() == ["resetting"]
        told = await post(f"{base}/decode", ids=[ids, ids[1:2]], skip_special_tokens=False)
        assert told.json() == ["[CLS] resetting [SEP]", "reset"]

    asked(tmp_path, story)


def test_llama_servers_clients_name_no_model(tmp_path):
    async def story(post, _):
        told = (await post("/tokenize", content="hello world", add_special=False)).json()
        assert told["model"] == EMBED
        back = (await post("/detokenize", tokens=told["tokens"])).json()
        assert back["content"] == "hello world"

    asked(tmp_path, story)


# -- detokenize ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/detokenize", "/detokenize"])
def test_ids_give_a_text_that_gives_the_same_ids(tmp_path, path):
    async def story(post, _):
        texts = ["Hello, brave world!", "don't (do) it: 3.14% [x] 'y'", "été 東京 ok"]
        told = (await post("/v1/tokenize", model=EMBED, input=texts)).json()
        ids = [each["tokens"] for each in told["data"]]
        back = (await post(path, model=EMBED, tokens=ids)).json()
        assert back["data"][0] == {"object": "text", "index": 0, "text": "hello, brave world!"}
        again = [each["text"] for each in back["data"]]
        told = (await post("/v1/tokenize", model=EMBED, input=again)).json()
        assert [each["tokens"] for each in told["data"]] == ids
        one = (await post(path, model=EMBED, tokens=ids[0])).json()
        assert one["text"] == one["content"] == one["prompt"] == "hello, brave world!"

    asked(tmp_path, story)


def test_an_id_outside_the_vocabulary_is_named_with_its_place(tmp_path):
    async def story(post, _):
        for tokens, where in (([5, 30_522], "tokens[1]"), ([[5], [6, 7, 10**9]], "tokens[1][2]")):
            answer = await post("/v1/detokenize", model=EMBED, tokens=tokens)
            assert error_of(answer) == (400, "invalid_request", "tokens")
            assert answer.json()["detail"].startswith(f"{where} is ")
            assert "0 to 30521" in answer.json()["detail"]
        for tokens in ([-1], [1.5], ["a"], [[1], 2], [2**40], [], [[]], "a", [[[1]]]):
            answer = await post("/v1/detokenize", model=EMBED, tokens=tokens)
            assert error_of(answer) == (400, "invalid_request", "tokens"), tokens

    asked(tmp_path, story)


# -- segment ------------------------------------------------------------------------------------

TEXT = "# One\n\nFirst things first. Second things after.\n\n## Two\n\n" + "More words here. " * 40


@pytest.mark.parametrize("by", ["tokens", "sentences", "markdown"])
@pytest.mark.parametrize("repeats", [1, 300])
def test_segments_are_the_text_and_fit_the_model(tmp_path, by, repeats):
    async def story(post, _):
        text = TEXT * repeats
        told = (await post("/v1/segment", model=EMBED, text=text, by=by, tokens_max=50)).json()
        assert "".join(each["text"] for each in told["data"]) == text
        for index, each in enumerate(told["data"]):
            assert each["index"] == index
            assert each["text"] == text[each["start"] : each["end"]]
            assert each["tokens"] <= 50
        total = sum(each["tokens"] for each in told["data"])
        assert told["usage"] == {"total_tokens": total}
        texts = [each["text"] for each in told["data"][:2_000]]
        counted = (await post("/v1/tokenize", model=EMBED, input=texts)).json()["data"]
        assert [each["count"] for each in counted] == [each["tokens"] for each in told["data"]][
            :2_000
        ]

    asked(tmp_path, story)


def test_segments_are_as_long_as_the_model_takes_and_may_overlap_or_lack_their_text(tmp_path):
    async def story(post, _):
        body = {"model": EMBED, "text": "word " * 1_000, "return_text": False}
        told = (await post("/v1/segment", **body)).json()["data"]
        assert [each["tokens"] for each in told] == [256, 256, 256, 240]
        assert "text" not in told[0]
        told = (await post("/v1/segment", **body, overlap=20, by="tokens")).json()["data"]
        for before, after in pairwise(told):
            assert before["end"] - after["start"] == 20 * len("word ")
        assert told[-1]["end"] == 5_000

    asked(tmp_path, story)


def test_jinas_clients_read_chunks_and_their_places(tmp_path):
    async def story(post, _):
        text = "One sentence here. Another one there."
        body = {"model": EMBED, "content": text, "return_chunks": True, "max_chunk_length": 20}
        told = (await post("/v1/segment", **body)).json()
        assert told["chunks"] == ["One sentence here. ", "Another one there."]
        assert told["chunk_positions"] == [[0, 19], [19, 37]]
        assert told["num_chunks"] == 2
        assert told["num_tokens"] == told["usage"]["total_tokens"]

    asked(tmp_path, story)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "text"),
        ({"text": ""}, "text"),
        ({"text": "a", "by": "pages"}, "by"),
        ({"text": "a", "tokens_max": 15}, "tokens_max"),
        ({"text": "a", "tokens_max": 20, "overlap": 11}, "overlap"),
        ({"text": "a", "overlap": 129}, "overlap"),
        ({"text": "a", "overlap": -1}, "overlap"),
        ({"text": ["a"]}, "text"),
    ],
)
def test_wrong_orders_for_segments_name_the_field(tmp_path, body, param):
    async def story(post, _):
        assert error_of(await post("/v1/segment", model=EMBED, **body)) == (
            400,
            "invalid_request",
            param,
        )

    asked(tmp_path, story)


# -- what all of them share -----------------------------------------------------------------------

BODIES = {
    "/v1/tokenize": {"input": "one two"},
    "/v1/detokenize": {"tokens": [5, 6]},
    "/v1/segment": {"text": "one two"},
}


@pytest.mark.parametrize("path", BODIES)
def test_nothing_is_charged_and_a_key_without_credit_may_ask(tmp_path, path):
    async def story(post, on):
        assert (await post(path, model=EMBED, **BODIES[path])).status_code == 200
        assert (await on.appliance.admin.usage.report("day", "all", "all", "all")).data == []

    asked(tmp_path, story, credit="0")


@pytest.mark.parametrize("path", BODIES)
def test_they_count_against_the_keys_requests_a_minute(tmp_path, path):
    async def story(post, _):
        answers = [await post(path, model=EMBED, **BODIES[path]) for _ in range(3)]
        assert [each.status_code for each in answers] == [200, 200, 429]
        assert answers[1].headers["x-ratelimit-remaining-requests"] == "0"

    asked(tmp_path, story, rpm=2)


@pytest.mark.parametrize("path", BODIES)
def test_a_key_sees_its_own_models_alone_and_a_model_must_be_named(tmp_path, path):
    async def story(post, on):
        assert (await post(path, model=RERANK, **BODIES[path])).status_code == 200
        answer = await post(path, model=EMBED, **BODIES[path])
        assert error_of(answer)[:2] == (404, "model_not_found")
        answer = await post(path, **BODIES[path])
        assert error_of(answer)[:2] == (400, "invalid_request")
        assert "model" in answer.json()["detail"]
        usage = await on.key(scopes=["usage"])
        answer = await on.client.post(path, content=json.dumps(BODIES[path]), headers=usage)
        assert error_of(answer)[:2] == (403, "insufficient_scope")

    asked(tmp_path, story, models=[RERANK])


def test_what_is_too_large_for_the_model_or_an_answer_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizing, "TEI_TOKENS_MAX", 5)

    async def story(post, on):
        answer = await post("/v1/segment", model=EMBED, text=TEXT, by="tokens", tokens_max=5_000)
        assert error_of(answer) == (400, "invalid_request", "tokens_max")
        answer = await post("/tokenize", inputs="one two three four five six")
        assert error_of(answer) == (400, "invalid_request", "inputs")
        monkeypatch.setattr(tokenizing, "COPIES", 32_000_000 // 100)
        answer = await post("/v1/detokenize", model=EMBED, tokens=[2000] * 300)
        assert error_of(answer) == (400, "invalid_request", "tokens")
        assert "more than 100 characters" in answer.json()["detail"]

    asked(tmp_path, story)


def test_without_a_model_the_default_one_is_meant(tmp_path):
    async def story(post, on):
        for path in ("/v1/tokenize", "/tokenize"):
            answer = await post(path, input="a")
            assert (answer.status_code, answer.json()["model"]) == (200, EMBED)
        for path, body in BODIES.items():
            answer = await post(path, **body)
            assert (answer.status_code, answer.json()["model"]) == (200, EMBED)

    asked(tmp_path, story)


def test_a_draining_server_refuses_and_a_crowd_waits_its_turn(tmp_path):
    async def story(post, on):
        limits = on.limits
        assert limits.request_tokens_max == 1_000
        answer = await post("/v1/tokenize", model=EMBED, input="a " * 1_001)
        assert error_of(answer)[:2] == (400, "invalid_request")
        answer = await post("/v1/detokenize", model=EMBED, tokens=[1] * 1_001)
        assert error_of(answer) == (400, "invalid_request", "tokens")
        many = [post("/v1/segment", model=EMBED, text=TEXT, by="tokens") for _ in range(40)]
        told = await asyncio.gather(*many)
        assert {each.status_code for each in told} == {200}
        on.appliance.pipeline.draining = True
        answer = await post("/v1/tokenize", model=EMBED, input="a")
        assert error_of(answer)[:2] == (503, "draining")
        assert on.appliance.pipeline.in_flight == 0

    asked(tmp_path, story, limits=Limits(request_tokens_max=1_000))


@pytest.mark.parametrize("path", BODIES)
def test_bodies_of_a_key_are_held_within_its_bounds(tmp_path, path):
    async def story(_, on):
        key = await on.key()
        app = on.appliance.app
        held = [Caller(app, key, declares=True, path=path) for _ in range(4)]
        for each in held:
            await each.settled()
        refused = Caller(app, key, declares=True, path=path)
        refused.piece(b"{}", is_last=True)
        assert await refused.answer() == 429
        answered = []
        for each in held:
            each.piece(json.dumps({"model": EMBED, **BODIES[path]}).encode(), is_last=True)
            answered.append(await each.answer())
        assert answered == [429, 200, 200, 200], "the answers are held, too"
        assert held_of(on).total == 0

    asked(tmp_path, story, limits=HELD)


@pytest.mark.parametrize("path", BODIES)
def test_what_takes_too_long_is_given_up(tmp_path, path, monkeypatch):
    """The deadline is that of paid calls, and so is the refusal."""

    async def story(post, on):
        async def forever(*_, **__):
            await asyncio.Event().wait()

        monkeypatch.setattr(on.appliance.residency, "encoder", forever)
        answer = await asyncio.wait_for(post(path, model=EMBED, **BODIES[path]), 60)
        assert error_of(answer)[:2] == (500, "inference_failed")
        assert "too long" in answer.json()["detail"]
        assert on.appliance.pipeline.in_flight == 0
        asked = {"model": EMBED, "input": "a"}
        quote = await asyncio.wait_for(
            on.client.post(
                "/v1/embeddings", json=asked, headers={**await on.key(), "x-dry-run": "true"}
            ),
            60,
        )
        assert error_of(quote)[:2] == (500, "inference_failed"), "a price is asked for nothing, too"

    asked(tmp_path, story, limits=Limits(call_seconds_max=0.05))
