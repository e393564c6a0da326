"""Token ids in the place of texts: OpenAI's are turned back into text, others are refused."""

import asyncio

import pytest

from appliance import token_inputs
from appliance.sequences.byte_pairs import Encoding
from tests.appliance import bench
from tests.server import EMBED
from tests.unit.sequences.test_byte_pairs import RAW, encoding_of

CACHED = "f" * 40
TINY = Encoding("cl100k_base", CACHED, encoding_of(RAW).sha256, frozenset({300}))
HELLO = [256, 257]
"""hello, world"""


@pytest.fixture(autouse=True)
def vocabulary(monkeypatch):
    """A small vocabulary in the place of the published one, and none where they usually are."""
    monkeypatch.setitem(token_inputs.ENCODINGS, "cl100k_base", TINY)
    monkeypatch.setattr(token_inputs, "CARRIERS", ())
    for name in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)


def asked(tmp_path, story, **settings):
    async def run():
        async with bench(tmp_path / "data", **settings) as on:
            auth = await on.key()

            async def post(**body):
                body = {"model": EMBED, **body}
                return await on.client.post("/v1/embeddings", json=body, headers=auth)

            await story(post, on)

    asyncio.run(run())


def put(folder, raw=RAW, name=CACHED):
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(raw)
    return folder


async def same(post, ids, text):
    """Assert that ids are answered and billed as the text is."""
    by_ids, by_text = [(await post(input=sent)) for sent in (ids, text)]
    assert by_ids.status_code == 200, by_ids.text
    assert by_ids.json() == by_text.json()
    assert by_ids.headers["x-cost"] == by_text.headers["x-cost"]


def test_langchains_ids_give_the_vectors_of_the_texts(tmp_path):
    async def story(post, _):
        await same(post, [HELLO, [258, 259]], ["hello world", " café"])
        await same(post, HELLO, "hello world")
        await same(post, [[*"東京".encode()] * 2_000], "東京" * 2_000)

    asked(tmp_path, story, tiktoken_dir=str(put(tmp_path / "vocabularies")))


def test_a_vocabulary_is_found_where_it_usually_is_and_as_soon_as_it_is_there(
    tmp_path, monkeypatch
):
    async def story(post, on):
        refused = await post(input=[HELLO])
        assert refused.json()["error"]["code"] == "token_input_unsupported"
        put(on.directory.path / "tiktoken", name="cl100k_base.tiktoken")
        await same(post, [HELLO], ["hello world"])

    asked(tmp_path, story)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(put(tmp_path / "cache")))

    async def cached(post, _):
        await same(post, [HELLO], ["hello world"])

    (tmp_path / "other").mkdir()
    asked(tmp_path / "other", cached)


def test_without_a_vocabulary_both_fixes_are_said(tmp_path, caplog):
    async def story(post, _):
        for _ in range(2):
            answer = await post(input=[HELLO])
            assert answer.status_code == 400
            error = answer.json()["error"]
            assert (error["code"], error["param"]) == ("token_input_unsupported", "input")
            assert "check_embedding_ctx_length=False" in error["message"]
            assert "tiktoken_dir" in error["message"]

    # A file that is not the published one is not used, and the log says so, once.
    asked(tmp_path, story, tiktoken_dir=str(put(tmp_path / "wrong", RAW + b"IQ== 900\n")))
    assert len([each for each in caplog.records if "sha256" in each.getMessage()]) == 1


def test_ids_may_be_refused_whatever_is_here(tmp_path):
    async def story(post, _):
        answer = await post(input=[HELLO])
        assert answer.json()["error"]["code"] == "token_input_unsupported"
        assert "tiktoken_dir" not in answer.json()["detail"]

    folder = str(put(tmp_path / "vocabularies"))
    asked(tmp_path, story, token_ids="reject", tiktoken_dir=folder)


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ([[1], [256, 300]], "input[1][1] is 300: a special token of cl100k_base"),
        ([999], "input[0] is 999: no token of cl100k_base"),
        ([[]], "input[0] is empty"),
        ([[1], "a"], "input[1]: Expected `array`"),
        ([[1]] * 2_049, "input has more than 2048 items"),
    ],
)
def test_wrong_ids_are_named_with_their_place(tmp_path, sent, message):
    async def story(post, _):
        answer = await post(input=sent)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert (error["code"], error["param"]) == ("invalid_request", "input")
        assert error["message"].startswith(message)

    asked(tmp_path, story, tiktoken_dir=str(put(tmp_path / "vocabularies")))


def test_the_models_own_ids_are_framed_and_cut_as_a_texts_tokens_are(tmp_path):
    async def story(post, on):
        texts = ["hello, world", "a " * 300]
        auth = await on.key()
        body = {"model": EMBED, "input": texts, "add_special_tokens": False}
        told = (await on.client.post("/v1/tokenize", json=body, headers=auth)).json()
        ids = [each["tokens"] for each in told["data"]]
        await same(post, ids, texts)
        await same(post, ids[0], texts[0])
        assert (await post(input=ids)).headers["x-truncated"] == "1"
        answer = await post(input=ids, truncate=False)
        assert answer.json()["error"]["code"] == "input_too_long"
        for sent, message in (
            ([[101, 7592]], "input[0][0] is 101: a special token"),
            ([7592, 30_522], "input[1] is 30522: the model has ids 0 to 30521"),
        ):
            answer = await post(input=sent)
            assert answer.status_code == 400
            assert answer.json()["error"]["message"].startswith(message)

    asked(tmp_path, story, token_ids="own")


def test_a_models_entry_has_its_own_word(tmp_path):
    async def story(post, _):
        await same(post, [[7592, 2088]], ["hello world"])

    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "models.toml").write_text(f'schema = 1\n[[model]]\nid = "{EMBED}"\ntoken_ids = "own"\n')
    asked(tmp_path, story, token_ids="reject")
