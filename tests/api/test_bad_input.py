"""Anything may be sent: it is refused in words, or cut and served, and the server stays up."""

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.core.limits import Limits
from appliance.store.datadir import ServerNote
from tests.api import contract
from tests.appliance import bench
from tests.server import EMBED, RERANK, Server

EMBEDDINGS, RERANKING = "/v1/embeddings", "/v1/rerank"
MODEL = json.dumps(EMBED).encode()
RANKER = json.dumps(RERANK).encode()
LIMITS = Limits()
DEEP = 5_000
MILLIONS = 3_000_000
TOKENS_MAX = 256


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx2.Client]:
    with contract.watch(server.client(name="bad input")) as client:
        yield client


@pytest.fixture(scope="module", autouse=True)
def _serves_afterwards(server: Server, client: httpx2.Client) -> Iterator[None]:
    yield
    assert len(embed(client, "a").json()["data"]) == 1


@pytest.fixture(autouse=True)
def _same_process_answers_after_each(server: Server, client: httpx2.Client) -> Iterator[None]:
    yield
    assert client.get("/health").json()["status"] == "ok"
    dry = client.post(EMBEDDINGS, content=_with_input(b'"a"'), headers={"x-dry-run": "true"})
    assert dry.json()["units"] == 3
    assert server.process is not None
    assert server.process.poll() is None
    note = msgspec.json.decode((server.data_dir / "server.json").read_bytes(), type=ServerNote)
    assert note.pid == server.process.pid


def embed(client: httpx2.Client, texts: Any, **more: Any) -> httpx2.Response:
    answer = client.post(EMBEDDINGS, json={"model": EMBED, "input": texts, **more})
    assert answer.status_code == 200, answer.text
    return answer


def tokens(answer: httpx2.Response) -> int:
    return int(answer.json()["usage"]["prompt_tokens"])


def refused(
    answer: httpx2.Response, param: str | None = None, code: str = "invalid_request"
) -> str:
    assert answer.status_code == 400, answer.text[:500]
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (code, param)
    return str(error["message"])


# -- bytes that are not the JSON we want --------------------------------------------------------


def _with_input(text: bytes) -> bytes:
    return b'{"model":%s,"input":%s}' % (MODEL, text)


def _with_unknown(text: bytes) -> bytes:
    return b'{"model":%s,"input":"a","unknown":%s}' % (MODEL, text)


NOT_JSON = {
    "nothing": b"",
    "spaces": b"  \r\n\t ",
    "half an object": b'{"model":',
    "half a string": _with_input(b'"abc'),
    "two documents": _with_input(b'"a"') * 2,
    "trailing bytes": _with_input(b'"a"') + b"\x00",
    "a trailing comma": _with_input(b'["a",]'),
    "a comment": b"// hi\n" + _with_input(b'"a"'),
    "single quotes": b"{'model':'x','input':'a'}",
    "a byte order mark": b"\xef\xbb\xbf" + _with_input(b'"a"'),
    "utf-16": _with_input(b'"a"').decode().encode("utf-16"),
    "form fields": b"model=x&input=a",
    "NaN": _with_input(b"NaN"),
    "NaN elsewhere": _with_unknown(b"NaN"),
    "Infinity": _with_input(b"[Infinity]"),
    "-Infinity elsewhere": _with_unknown(b"-Infinity"),
    "a lone high surrogate": _with_input(rb'"\ud800"'),
    "a lone low surrogate": _with_input(rb'"\udc00 and more text"'),
    "surrogates the wrong way round": _with_input(rb'["\udc00\ud800"]'),
    "a lone surrogate elsewhere": _with_unknown(rb'"\ud800"'),
    "a bad escape": _with_input(rb'"\x41"'),
    "a line feed in a string": _with_input(b'"a\nb"'),
    "5,000 lists in each other": _with_input(b"[" * DEEP + b"]" * DEEP),
    "5,000 lists elsewhere": _with_unknown(b"[" * DEEP + b"]" * DEEP),
    "5,000 objects elsewhere": _with_unknown(b'{"a":' * DEEP + b"1" + b"}" * DEEP),
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_json_is_refused(client: httpx2.Client, body: bytes) -> None:
    assert refused(client.post(EMBEDDINGS, content=body)).startswith("The body is")
    refused(client.post(RERANKING, content=body))


@pytest.mark.parametrize(
    "text", [b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf", b"a\xe2\x82"]
)
def test_text_that_is_not_utf_8_is_refused(client: httpx2.Client, text: bytes) -> None:
    for body in (_with_input(b'"%s"' % text), _with_input(b'["a","%s"]' % text)):
        assert "UTF-8" in refused(client.post(EMBEDDINGS, content=body), "input")
    query = b'{"model":%s,"query":"%s","documents":["a"]}' % (RANKER, text)
    assert "UTF-8" in refused(client.post(RERANKING, content=query))
    documents = b'{"model":%s,"query":"a","documents":[{"text":"%s"}]}' % (RANKER, text)
    assert "UTF-8" in refused(client.post(RERANKING, content=documents), "documents")


@pytest.mark.parametrize("body", [b"null", b"[]", b'"a"', b"1", b"true", b"{}", b"[" * 1_000_000])
def test_json_that_is_no_request_is_refused(client: httpx2.Client, body: bytes) -> None:
    for path in (EMBEDDINGS, RERANKING):
        refused(client.post(path, content=body))


def test_of_a_key_that_is_there_twice_the_last_counts(client: httpx2.Client) -> None:
    body = b'{"input":5,"model":"x","input":["a","b"],"model":%s}' % MODEL
    answer = client.post(EMBEDDINGS, content=body)
    assert answer.status_code == 200
    assert len(answer.json()["data"]) == 2


def test_numbers_of_any_size_in_unknown_fields_are_ignored(client: httpx2.Client) -> None:
    for number in (b"9" * 400, b"-" + b"9" * 400, b"1e999", b"0." + b"1" * 5_000):
        assert client.post(EMBEDDINGS, content=_with_unknown(number)).status_code == 200


# -- fields of the wrong kind -------------------------------------------------------------------

ANYTHING: list[Any] = [
    0,
    -1,
    1.5,
    "",
    "x",
    True,
    [],
    {},
    [None],
    {"a": 1},
    10**400,
    2**63,
    -(10**400),
]
TEXT = [value for value in ANYTHING if not isinstance(value, str)] + [None]
FLAG = [value for value in ANYTHING if not isinstance(value, bool)]
COUNT = [value for value in ANYTHING if value != 0 or isinstance(value, bool)]
WRONG_EMBEDDINGS: dict[str, list[Any]] = {
    "model": [*TEXT, "", "x" * 501],
    "input": [
        0,
        -1,
        1.5,
        True,
        None,
        {},
        {"text": "a"},
        [],
        [None],
        [True],
        [{}],
        ["a", None],
        ["a", 1],
        ["a", ["b"]],
        ["a", {"text": "b"}],
        "",
        [""],
        ["a", ""],
        10**400,
    ],
    "encoding_format": [*TEXT[:-1], "", "FLOAT", "int8", "base64 "],
    "dimensions": [*COUNT, 0, "384", 384.0, 1_000_001],
    "truncate": [*FLAG, "true", "END"],
}
WRONG_RERANKING: dict[str, list[Any]] = {
    "model": [*TEXT, "", "x" * 501],
    "query": [*TEXT, "", ["a"]],
    "documents": [
        0,
        1.5,
        True,
        "a",
        {},
        {"text": "a"},
        [],
        [None],
        [1],
        [True],
        [[]],
        [["a"]],
        [{}],
        None,
        [{"text": None}],
        [{"text": 1}],
        [{"Text": "a"}],
        ["a", {}],
        ["a", None],
        10**400,
    ],
    "top_n": [*COUNT, "1", 1.0, 1_000_001],
    "top_k": [*COUNT, "1", 1.0, 1_000_001],
    "return_documents": FLAG,
    "return_text": FLAG,
    "raw_scores": FLAG,
    "truncate": FLAG,
    "truncation": FLAG,
    "max_tokens_per_doc": [*COUNT, 0],
    "max_doc_length": [*COUNT, 0],
    "rank_fields": [0, "text", True, {}, [1], [None], [["text"]]],
}


@pytest.mark.parametrize("field", WRONG_EMBEDDINGS)
def test_a_wrong_field_of_embeddings_is_refused_by_name(client: httpx2.Client, field: str) -> None:
    for value in WRONG_EMBEDDINGS[field]:
        body = {"model": EMBED, "input": "a", field: value}
        refused(client.post(EMBEDDINGS, json=body), field)


@pytest.mark.parametrize("field", WRONG_RERANKING)
def test_a_wrong_field_of_rerank_is_refused_by_name(client: httpx2.Client, field: str) -> None:
    for value in WRONG_RERANKING[field]:
        body = {"model": RERANK, "query": "a", "documents": ["a"], field: value}
        refused(client.post(RERANKING, json=body), field)


def test_null_in_an_optional_field_is_as_if_it_were_left_out(tmp_path: Path) -> None:
    embeddings = {"model": EMBED, "input": "a"}
    reranking = {"model": RERANK, "query": "a", "documents": ["a"]}
    cases = [
        *((EMBEDDINGS, {field: None, **embeddings}) for field in [*WRONG_EMBEDDINGS, "user"]),
        *((RERANKING, {field: None, **reranking}) for field in [*WRONG_RERANKING, "unknown"]),
        (RERANKING, {**reranking, "documents": None, "texts": ["a"]}),
    ]

    async def story() -> None:
        async with bench(tmp_path / "data") as made:
            contract.watch(made.client)
            key = await made.key()
            for path, body in cases:
                assert (await made.client.post(path, json=body, headers=key)).status_code == 200

    asyncio.run(story())


def test_rank_fields_that_no_document_has_are_refused(client: httpx2.Client) -> None:
    for document in ({}, {"c": "x"}, {"a": 1}, {"a": None}, {"a": "x", "b": ["y"]}):
        body = {"model": RERANK, "query": "q", "documents": [document], "rank_fields": ["a", "b"]}
        assert "documents[0]" in refused(client.post(RERANKING, json=body), "documents")


# -- many, and large ----------------------------------------------------------------------------

CROWDS = {
    "strings": (b'["a"' + b',"a"' * (MILLIONS - 1) + b"]", "invalid_request"),
    "empty strings": (b'[""' + b',""' * (MILLIONS - 1) + b"]", "invalid_request"),
    "numbers": (b"[1" + b",1" * (MILLIONS - 1) + b"]", "invalid_request"),
    "numbers after many spaces": (
        b"[" + b" " * 200 + b"1" + b",1" * (MILLIONS - 1) + b"]",
        "invalid_request",
    ),
    "empty lists": (b"[[]" + b",[]" * (MILLIONS - 1) + b"]", "invalid_request"),
    "empty objects": (b"[{}" + b",{}" * (MILLIONS - 1) + b"]", "invalid_request"),
    "nulls": (b"[null" + b",null" * (MILLIONS - 1) + b"]", "invalid_request"),
    "strings, and one brace": (b'["{"' + b',"a"' * (MILLIONS - 1) + b"]", "invalid_request"),
}


@pytest.mark.parametrize("crowd", CROWDS)
def test_a_list_of_three_million_is_refused(client: httpx2.Client, crowd: str) -> None:
    items, code = CROWDS[crowd]
    refused(client.post(EMBEDDINGS, content=_with_input(items)), "input", code)
    body = b'{"model":%s,"query":"a","documents":%s}' % (RANKER, items)
    refused(client.post(RERANKING, content=body), "documents")


def test_300_000_objects_with_a_text_are_refused(client: httpx2.Client) -> None:
    items = b'[{"text":"a"}' + b',{"text":"a"}' * 299_999 + b"]"
    body = b'{"model":%s,"query":"a","documents":%s}' % (RANKER, items)
    assert "more than 2048 items" in refused(client.post(RERANKING, content=body), "documents")
    fielded = body[:-1] + b',"rank_fields":["text"]}'
    refused(client.post(RERANKING, content=fielded), "documents")


def test_2048_texts_are_served_and_2049_are_refused(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path / "data") as made:
            contract.watch(made.client)
            key = await made.key()

            async def post(path: str, body: Any) -> httpx2.Response:
                return await made.client.post(path, json=body, headers=key)

            for count in (LIMITS.inputs_max, LIMITS.inputs_max + 1):
                texts = [f"a{number}" for number in range(count)]
                answers = [
                    (await post(EMBEDDINGS, {"model": EMBED, "input": texts}), "input", "data"),
                    (
                        await post(RERANKING, {"model": RERANK, "query": "a", "documents": texts}),
                        "documents",
                        "results",
                    ),
                ]
                for answer, param, listed in answers:
                    if count > LIMITS.inputs_max:
                        refused(answer, param)
                    else:
                        assert len(answer.json()[listed]) == count

    asyncio.run(story())


def test_one_text_may_have_a_megabyte_and_no_byte_more(client: httpx2.Client) -> None:
    for text, counted in [("word " * 200_000, TOKENS_MAX), ("é" * 500_000, 3)]:
        assert len(text.encode()) == LIMITS.text_bytes_max
        assert tokens(embed(client, text)) == counted
        for texts in (text + ".", ["a", text + "."]):
            answer = client.post(EMBEDDINGS, json={"model": EMBED, "input": texts})
            assert "larger than 1000000 bytes" in refused(answer, "input")
        body = {"model": RERANK, "query": text + ".", "documents": ["a"]}
        refused(client.post(RERANKING, json=body), "query")
        body = {"model": RERANK, "query": "a", "documents": ["a", {"text": text + "."}]}
        assert "documents[1]" in refused(client.post(RERANKING, json=body), "documents")


@pytest.mark.parametrize("chunked", [False, True])
def test_why_40_mb_are_refused_can_be_read(client: httpx2.Client, *, chunked: bool) -> None:
    body = _with_input(b'"%s"' % (b"a" * 40_000_000))
    pieces = (body[at : at + 65_536] for at in range(0, len(body), 65_536))
    for path in (EMBEDDINGS, RERANKING):
        answer = client.post(path, content=pieces if chunked else body)
        assert ("transfer-encoding" in answer.request.headers) == chunked
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "body_too_large"
        pieces = (body[at : at + 65_536] for at in range(0, len(body), 65_536))


@pytest.mark.parametrize("chunked", [False, True])
def test_why_a_large_body_with_a_wrong_key_is_refused_can_be_read(
    server: Server, client: httpx2.Client, *, chunked: bool
) -> None:
    body = _with_input(b'"%s"' % (b"a" * 20_000_000))
    pieces = (body[at : at + 65_536] for at in range(0, len(body), 65_536))
    with contract.watch(server.client("gr-nothing")) as stranger:
        answer = stranger.post(EMBEDDINGS, content=pieces if chunked else body)
    assert answer.status_code == 401


# -- texts that are hard to tokenize ------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "counted", "cut"), [(253, 255, False), (254, 256, False), (255, 256, True)]
)
def test_a_text_is_cut_from_the_first_token_above_the_limit(
    client: httpx2.Client, words: int, counted: int, *, cut: bool
) -> None:
    answer = embed(client, "word " * words)
    assert tokens(answer) == counted
    assert answer.headers.get("x-truncated") == ("1" if cut else None)
    assert answer.json()["usage"].get("truncated") == (1 if cut else None)
    whole = {"model": EMBED, "input": "word " * words, "truncate": False}
    refusal = client.post(EMBEDDINGS, json=whole)
    if cut:
        assert "input[0] has 257 tokens" in refused(refusal, "input", "input_too_long")
    else:
        assert refusal.status_code == 200


@pytest.mark.parametrize(
    ("text", "counted"),
    [
        ("a" * 50_000, 3),  # one word of more than 100 letters is one unknown token
        (" " * 50_000, 2),
        ("!" * 50_000, TOKENS_MAX),
        ("a b" * 50_000, TOKENS_MAX),
        ("\u0301" * 50_000, 2),  # accents with nothing under them
        ("\U0001f600" * 20_000, 3),
        ("\u3042" * 20_000, 3),
        ("\u4e00" * 20_000, TOKENS_MAX),  # each ideograph is a word of its own
        ("\x00", 2),
        ("a\x00b", 3),
        ("\ufffd\ufeff\u202e\u200b", None),
        ("\u0000\u0001\u001f\u007f\u0080", 2),
        ("\ufdfa" * 10_000, None),  # becomes 18 characters each, where it is normalised so
    ],
)
def test_a_strange_text_is_served(client: httpx2.Client, text: str, counted: int | None) -> None:
    answer = embed(client, text)
    assert 2 <= tokens(answer) <= TOKENS_MAX
    assert counted in (None, tokens(answer))
    body = {"model": RERANK, "query": text, "documents": [""]}
    assert client.post(RERANKING, json=body).status_code == 200


def test_special_tokens_in_a_text_are_ordinary_ones(client: httpx2.Client) -> None:
    # "[SEP]" is three pieces like any other word in brackets; as a special token it were one.
    assert tokens(embed(client, "[SEP]")) == tokens(embed(client, "[cat]")) == 5
    text = "[CLS] a [SEP] b [PAD] [MASK] [UNK]"
    assert tokens(embed(client, text)) == tokens(embed(client, text.lower())) == 21
    rows = embed(client, ["[SEP]", "[sep]"]).json()["data"]
    assert rows[0]["embedding"] == pytest.approx(rows[1]["embedding"], abs=1e-3)


# -- headers and connections --------------------------------------------------------------------


def raw(server: Server, *pieces: bytes, half_close: bool = False) -> bytes:
    """Send bytes as they are; return all that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            return b""  # refused before all of it was sent
        received = b""
        try:
            while piece := connection.recv(65_536):
                received += piece
        except ConnectionResetError:
            pass
        return received


def head(client: httpx2.Client, *lines: bytes, length: int | None = None) -> bytes:
    key = client.headers["authorization"].encode()
    named = [b"POST /v1/embeddings HTTP/1.1", b"host: localhost", b"authorization: " + key, *lines]
    if length is not None:
        named.append(b"content-length: %d" % length)
    return b"\r\n".join([*named, b"connection: close", b"", b""])


def status(received: bytes) -> int:
    assert received.startswith(b"HTTP/1.1 "), received[:200]
    return int(received[9:12])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"x: " + b"a" * 2_000_000, {400, 431}),
        (b"\r\n".join(b"x-%d: a" % number for number in range(500)), {400, 431}),
        (b"x-request-id: " + b"a" * 10_000, {200}),
        (b"x: " + b"a" * 300_000, {431}),
        (b"x-request-id: \xff\xfe", {200}),
        (b"prefer: wait=\xff", {200}),
        (b"prefer: " + b"wait=," * 1_000, {200}),
        (b"x-tier: \xff", {400}),
        (b"x-tier: " + b"batch" * 1_000, {400}),
        (b"x-dry-run: \xe9", {400}),
        (b"content-type: \xff/\xff", {200}),
        (b"content-type: \xff/\xff; charset=\xff", {415}),
        (b"content-type: application/json\r\ncontent-type: text/plain", {400}),
        (b"content-encoding: gzip", {415}),
        (b"accept: \xff", {200}),
        (b"cookie: \xff=\xff; ;;=", {200}),
        (b"x: a\x00b", {400}),
        (b"x\xff: a", {400}),
        (b"content-length: -1", {400}),
        (b"content-length: 99999999999999999999999", {400}),
        (b"content-length: abc", {400}),
    ],
)
def test_strange_headers_are_ignored_or_refused(
    server: Server, client: httpx2.Client, line: bytes, expected: set[int]
) -> None:
    body = _with_input(b'"a"')
    length = None if line.startswith(b"content-length") else len(body)
    received = raw(server, head(client, line, length=length), body)
    assert received == b"" or status(received) in expected


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/%ff",
        "/v1/models/%00",
        "/v1/models/%ed%a0%80",
        "/%2e%2e/%2f",
        "/v1/models/" + "x" * 5_000,
        "/v1/models/a%0d%0ab",
        "/v1/models//",
        "/account?key=%ff",
        "/account?" + "key=a&" * 1_000,
    ],
)
def test_strange_paths_are_not_found_or_refused(client: httpx2.Client, path: str) -> None:
    for method in ("GET", "POST"):
        assert client.request(method, path).status_code in (200, 401, 404, 405)


def test_a_body_that_breaks_off_is_refused_or_forgotten(
    server: Server, client: httpx2.Client
) -> None:
    for cut in (b"", b'{"model"'):
        received = raw(server, head(client, length=1_000), cut, half_close=True)
        assert received == b"" or status(received) == 400
    chunked = head(client, b"transfer-encoding: chunked")
    for broken in (b"zz\r\n", b"5\r\nab", b"ffffffffffffffffff\r\n", b"-1\r\n"):
        received = raw(server, chunked, broken, half_close=True)
        assert received == b"" or status(received) == 400


def test_a_client_that_vanishes_within_its_body_is_forgotten(
    server: Server, client: httpx2.Client
) -> None:
    for sent in (b"", b'{"model"', b"a" * 1_000_000):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(head(client, length=2_000_000) + sent)
    assert client.get("/health").status_code == 200


def test_what_is_not_http_is_refused_or_closed(server: Server, client: httpx2.Client) -> None:
    for noise in (
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"hello\r\n\r\n",
        b"\x00" * 1_000,
        b"GET / HTTP/9.9\r\n\r\n",
    ):
        received = raw(server, noise, half_close=True)
        assert received == b"" or status(received) in (400, 505)


# -- everything else ----------------------------------------------------------------------------

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=20)  # lone surrogates too
    | st.sampled_from([10**400, "a", EMBED, RERANK, "batch", "base64", "float", 384]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
FIELDS = sorted({*WRONG_EMBEDDINGS, *WRONG_RERANKING, "texts", "user", "unknown"})
BASES = st.sampled_from(
    [
        {},
        {"model": EMBED, "input": "a"},
        {"model": EMBED, "input": ["a", "b"]},
        {"model": RERANK, "query": "a", "documents": ["b", {"text": "c"}]},
    ]
)
BODIES = (
    st.tuples(BASES, st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3)).map(
        lambda pair: json.dumps({**pair[0], **pair[1]}).encode()
    )
    | VALUES.map(
        lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    )
    | st.binary(max_size=60)
)
PLAIN = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "x-tier": PLAIN | st.sampled_from(["batch", "realtime"]),
        "prefer": PLAIN | st.integers().map("wait={}".format),
        "x-dry-run": PLAIN | st.sampled_from(["true", "1", "0"]),
        "x-request-id": PLAIN,
        "content-type": PLAIN,
    },
)


def test_no_body_and_no_header_makes_the_server_fail(tmp_path: Path) -> None:
    with asyncio.Runner() as runner:
        opened = bench(tmp_path / "data")
        made = runner.run(opened.__aenter__())
        contract.watch(made.client)
        key = runner.run(made.key())

        @settings(
            max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), database=None
        )
        @given(
            path=st.sampled_from(contract.EMBEDDINGS_PATHS + contract.RERANK_PATHS),
            body=BODIES,
            headers=HEADERS,
        )
        def answers_in_words(path: str, body: bytes, headers: dict[str, str]) -> None:
            answer = runner.run(made.client.post(path, content=body, headers={**headers, **key}))
            assert answer.status_code in (200, 400, 404)

        try:
            answers_in_words()
        finally:
            runner.run(opened.__aexit__(None, None, None))
