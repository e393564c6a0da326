"""Who may do what: every registered route, with every kind of credential, sent in every way."""

import asyncio
import itertools
import json
import logging
import random
import re
import string
import traceback
from dataclasses import dataclass
from itertools import count

import pytest

from appliance.accounts import credential
from appliance.accounts.keyring import Keyring
from appliance.api.error_responses import TABLE
from appliance.api.guard import hmac
from appliance.api.page import assets
from appliance.core import errors
from appliance.wire.keys import ExpireOrder, RotateOrder
from tests.appliance import bench
from tests.server import EMBED

# -- the matrix ---------------------------------------------------------------------------------

PUBLIC, INFER, HOLDER, OPERATOR, THIS_MACHINE = "public", "infer", "holder", "operator", "machine"

DECLARED = {
    ("GET", "/"): PUBLIC,
    ("GET", "/v1/models"): PUBLIC,
    ("GET", "/v1/models/{model_id:path}"): PUBLIC,
    ("GET", "/models"): PUBLIC,
    ("GET", "/models/{model_id:path}"): PUBLIC,
    ("GET", "/openai/models"): PUBLIC,
    ("GET", "/openai/v1/models"): PUBLIC,
    ("GET", "/info"): PUBLIC,
    ("GET", "/tei/{name:str}/info"): PUBLIC,
    ("GET", "/tei/{owner:str}/{name:str}/info"): PUBLIC,
    ("GET", "/tei/{name:str}/health"): PUBLIC,
    ("GET", "/tei/{owner:str}/{name:str}/health"): PUBLIC,
    ("GET", "/api/tags"): PUBLIC,
    ("GET", "/api/version"): PUBLIC,
    ("GET", "/v1/openapi.json"): PUBLIC,
    ("GET", "/health"): PUBLIC,
    ("POST", "/v1/embeddings"): INFER,
    ("POST", "/embeddings"): INFER,
    ("POST", "/v1/rerank"): INFER,
    ("POST", "/rerank"): INFER,
    ("POST", "/v2/rerank"): INFER,
    ("POST", "/v1/v2/rerank"): INFER,
    ("POST", "/v1/reranking"): INFER,
    ("POST", "/reranking"): INFER,
    ("POST", "/v1/v1/rerank"): INFER,
    ("POST", "/openai/v1/embeddings"): INFER,
    ("POST", "/openai/deployments/{name:str}/embeddings"): INFER,
    ("POST", "/openai/deployments/{owner:str}/{name:str}/embeddings"): INFER,
    ("POST", "/v1/embed"): INFER,
    ("POST", "/v1/v1/embed"): INFER,
    ("POST", "/v2/embed"): INFER,
    ("POST", "/v1/v2/embed"): INFER,
    ("POST", "/"): INFER,
    ("POST", "/embed"): INFER,
    ("POST", "/tei/{name:str}"): INFER,
    ("POST", "/tei/{owner:str}/{name:str}"): INFER,
    ("POST", "/tei/{name:str}/embed"): INFER,
    ("POST", "/tei/{owner:str}/{name:str}/embed"): INFER,
    ("POST", "/similarity"): INFER,
    ("POST", "/tei/{name:str}/similarity"): INFER,
    ("POST", "/tei/{owner:str}/{name:str}/similarity"): INFER,
    ("POST", "/predict"): INFER,
    ("POST", "/tei/{name:str}/predict"): INFER,
    ("POST", "/tei/{owner:str}/{name:str}/predict"): INFER,
    ("POST", "/tei/{name:str}/rerank"): INFER,
    ("POST", "/tei/{owner:str}/{name:str}/rerank"): INFER,
    ("POST", "/api/embed"): INFER,
    ("POST", "/api/embeddings"): INFER,
    ("POST", "/v1/tokenize"): INFER,
    ("POST", "/tokenize"): INFER,
    ("POST", "/v1/detokenize"): INFER,
    ("POST", "/detokenize"): INFER,
    ("POST", "/decode"): INFER,
    ("POST", "/v1/segment"): INFER,
    ("POST", "/tei/{name:str}/tokenize"): INFER,
    ("POST", "/tei/{owner:str}/{name:str}/tokenize"): INFER,
    ("POST", "/tei/{name:str}/decode"): INFER,
    ("POST", "/tei/{owner:str}/{name:str}/decode"): INFER,
    ("POST", "/v1/files"): INFER,
    ("GET", "/v1/files"): INFER,
    ("GET", "/v1/files/{file_id:str}"): INFER,
    ("DELETE", "/v1/files/{file_id:str}"): INFER,
    ("GET", "/v1/files/{file_id:str}/content"): INFER,
    ("POST", "/v1/batches"): INFER,
    ("GET", "/v1/batches"): INFER,
    ("GET", "/v1/batches/{batch_id:str}"): INFER,
    ("POST", "/v1/batches/{batch_id:str}/cancel"): INFER,
    ("GET", "/account"): HOLDER,
    ("GET", "/account/usage"): HOLDER,
    ("GET", "/account/calls"): HOLDER,
    ("POST", "/account/rotate"): HOLDER,
    ("GET", "/v1/key"): HOLDER,
    ("GET", "/metrics"): THIS_MACHINE,
    ("GET", "/admin"): THIS_MACHINE,
    ("GET", "/docs"): PUBLIC,
    ("GET", "/playground"): PUBLIC,
    ("GET", "/static/{name:str}"): PUBLIC,
}
"""Every route outside the operator's, and who may use it: a route that is not here fails."""

OPERATORS = "/admin/v1/"
"""Whatever lies below is the operator's, without being listed."""
PEOPLES = {"/docs", "/playground", "/admin"}
"""Pages that nobody gets who does not ask for HTML."""
BY_QUERY = {"/account"}
"""Where `?key=` counts as a credential."""

VALID = {"infer", "usage", "admin", "admin token"}
KINDS = ("none", "bad", "expired", "revoked", "rotated-out", *sorted(VALID))
CHANNELS = ("authorization", "x-api-key", "api-key", "?key=")
ALLOWED = {
    PUBLIC: set(KINDS),
    INFER: {"infer"},
    HOLDER: {"infer", "usage"},
    OPERATOR: {"admin", "admin token"},
    THIS_MACHINE: set(KINDS),
}


def routes(app):
    """Return (method, path) of everything that is registered; OPTIONS is Litestar's own."""
    found = set()
    for route in app.routes:
        found |= {(method, route.path) for method in route.methods if method != "OPTIONS"}
    return found


def audience(method, path):
    return OPERATOR if path.startswith(OPERATORS) else DECLARED.get((method, path))


def concrete(path):
    """Return a path that the route has: a file of the pages is there by its whole name alone."""
    if path.startswith("/static/"):
        return assets().url("site.css")
    return re.sub(r"\{[^}]*\}", "nothing", path)


@dataclass(frozen=True)
class Told:
    status: int
    headers: dict
    body: dict

    @property
    def code(self):
        error = self.body.get("error", {})
        return self.body.get("code") if isinstance(error, str) else error.get("code")


async def ask(app, method, path, *, headers=(), query="", host="127.0.0.1", body=b"{}"):
    """Return how an answer begins: one that streams for ever is left after its head."""
    head, chunks, done = {}, [], asyncio.Event()

    async def receive():
        if head.get("asked"):
            await done.wait()
            return {"type": "http.disconnect"}
        head["asked"] = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        if message["type"] == "http.response.start":
            head.update(message)
        else:
            chunks.append(message.get("body", b""))
        if message["type"] != "http.response.start" or message["status"] < 400:
            done.set()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "server": ("127.0.0.1", 8642),
        "client": (host, 50_000),
        "headers": [
            *([] if "host" in dict(headers) else [(b"host", b"127.0.0.1:8642")]),
            *([(b"accept", b"text/html")] if path in PEOPLES else []),
            *((k.encode(), v.encode()) for k, v in headers),
        ],
    }
    call = asyncio.ensure_future(app(scope, receive, send))
    told = asyncio.ensure_future(done.wait())
    async with asyncio.timeout(20):
        await asyncio.wait({call, told}, return_when=asyncio.FIRST_COMPLETED)
    for task in (told, call):
        task.cancel()
    await asyncio.gather(call, told, return_exceptions=True)
    text = b"".join(chunks)
    is_json = head["status"] >= 400 and text.startswith(b"{")
    named = {k.decode().lower(): v.decode() for k, v in head["headers"]}
    return Told(head["status"], named, json.loads(text) if is_json else {})


async def credentials(on):
    """Return one plaintext of each kind."""
    keys = on.appliance.admin.keys
    expired, revoked, rotated = [await on.mint() for _ in range(3)]
    await keys.revoke(revoked.id)
    await keys.rotate(rotated.id, RotateOrder(overlap="0"))
    await keys.expire(expired.id, ExpireOrder(expires="1m"))
    on.clock.advance(60)
    minted = {scope: (await on.mint(scopes=[scope])).key for scope in ("infer", "usage", "admin")}
    return {
        "none": None,
        "bad": credential.mint(),
        "expired": expired.key,
        "revoked": revoked.key,
        "rotated-out": rotated.key,
        "admin token": on.directory.admin_token(),
        **minted,
    }


def sent(channel, text):
    """Return the headers and the query that carry a credential."""
    if text is None:
        return (), ""
    if channel == "?key=":
        return (), f"key={text}"
    return ((channel, f"Bearer {text}" if channel == "authorization" else text),), ""


def addresses():
    """Yield addresses of this machine: each failure of a matrix comes from one of its own."""
    return (f"127.0.{number // 250}.{number % 250 + 1}" for number in count())


def expected(who, path, kind, channel):
    """Return the code of the refusal, or None if the credential lets in."""
    if kind in ALLOWED[who] and (
        channel != "?key=" or path in BY_QUERY or who not in (INFER, HOLDER, OPERATOR)
    ):
        return None
    if kind == "none" or (channel == "?key=" and path not in BY_QUERY):
        return "missing_api_key"
    # To a route for keys the operator's token is not one.
    is_key = kind in VALID and (kind != "admin token" or who == OPERATOR)
    return "insufficient_scope" if is_key else "invalid_api_key"


DOORS = {"missing_api_key": 401, "invalid_api_key": 401, "insufficient_scope": 403}


def test_every_route_is_declared_and_nothing_is_declared_that_is_not_there(tmp_path):
    async def story():
        async with bench(tmp_path / "data", preload=False) as on:
            registered = routes(on.appliance.app)
            assert {each for each in registered if audience(*each) is None} == set()
            assert set(DECLARED) - registered == set()
            assert sum(path.startswith(OPERATORS) for _, path in registered) >= 10

    asyncio.run(story())


def test_every_route_lets_in_exactly_who_may_use_it_however_the_credential_is_sent(tmp_path):
    async def story():
        wrong, asked = [], 0
        hosts = addresses()
        async with bench(tmp_path / "data", preload=False) as on:
            texts = await credentials(on)
            for method, path in sorted(routes(on.appliance.app)):
                who, there = audience(method, path), concrete(path)
                for kind in KINDS:
                    for channel in CHANNELS:
                        headers, query = sent(channel, texts[kind])
                        told = await ask(
                            on.appliance.app,
                            method,
                            there,
                            headers=headers,
                            query=query,
                            host=next(hosts),
                        )
                        asked += 1
                        refusal = expected(who, path, kind, channel)
                        found = told.code if told.code in DOORS else None
                        if found != refusal or (refusal and told.status != DOORS[refusal]):
                            wrong.append((method, path, kind, channel, told.status, told.code))
        assert wrong == []
        assert asked >= 27 * len(KINDS) * len(CHANNELS)

    asyncio.run(story())


HOSTS = {"known": (), "foreign": (("host", "evil.test:8642"),)}
PAGES = {
    "no page": (),
    "own": (("origin", "http://127.0.0.1:8642"), ("sec-fetch-site", "same-origin")),
    "foreign": (("origin", "http://evil.test"), ("sec-fetch-site", "cross-site")),
}
WAYS = {"straight": (), "forwarded": (("x-forwarded-for", "127.0.0.1"),)}


def test_route_by_credential_by_host_by_page_by_way_the_first_wall_in_order_refuses(tmp_path):
    """A foreign name, then a foreign page, then what is not this machine, then the credential."""

    async def story():
        wrong, asked = [], 0
        hosts = addresses()
        async with bench(tmp_path / "data", preload=False) as on:
            texts = await credentials(on)
            cells = itertools.product(
                sorted(routes(on.appliance.app)), KINDS, HOSTS.items(), PAGES.items(), WAYS.items()
            )
            for (method, path), kind, (host, named), (page, origin), (way, forwarded) in cells:
                who = audience(method, path)
                refusal = DOORS.get(code := expected(who, path, kind, "authorization")), code
                if way == "forwarded" and who in (OPERATOR, THIS_MACHINE):
                    refusal = 404, "unknown_path"
                if page == "foreign":
                    refusal = 403, "foreign_origin"
                if host == "foreign":
                    refusal = 421, "unknown_host"
                told = await ask(
                    on.appliance.app,
                    method,
                    concrete(path),
                    headers=(*sent("authorization", texts[kind])[0], *named, *origin, *forwarded),
                    host=next(hosts),
                )
                asked += 1
                walls = {*DOORS, "unknown_path", "foreign_origin", "unknown_host"}
                found = (told.status, told.code) if told.code in walls else (None, None)
                if found != refusal:
                    wrong.append((method, path, kind, host, page, way, told.status, told.code))
        assert wrong == []
        assert asked >= 27 * len(KINDS) * len(HOSTS) * len(PAGES) * len(WAYS)

    asyncio.run(story())


def test_from_another_machine_the_operators_routes_are_not_there_for_anybody(tmp_path):
    async def story():
        async with bench(tmp_path / "data", preload=False) as on:
            texts = await credentials(on)
            hidden = [
                (method, path)
                for method, path in sorted(routes(on.appliance.app))
                if audience(method, path) in (OPERATOR, THIS_MACHINE)
            ]
            assert len(hidden) >= 20
            for method, path in hidden:
                for kind in KINDS:
                    headers, _ = sent("authorization", texts[kind])
                    told = await ask(
                        on.appliance.app,
                        method,
                        concrete(path),
                        headers=headers,
                        host="192.0.2.7",
                    )
                    assert (told.status, told.code) == (404, "unknown_path"), (method, path, kind)

    asyncio.run(story())


def test_a_second_credential_never_opens_what_the_first_one_did_not(tmp_path):
    async def story():
        async with bench(tmp_path / "data", preload=False) as on:
            texts = await credentials(on)
            good, bad, token = texts["infer"], texts["revoked"], texts["admin token"]
            for headers in (
                (("authorization", f"Bearer {bad}"), ("x-api-key", good)),
                (("authorization", f"Bearer {good}, Bearer {bad}"),),
                (("authorization", ""), ("x-api-key", good)),
                (("authorization", f"Basic {good}"),),
                (("x-api-key", bad), ("api-key", good)),
                (("cookie", f"key={good}"),),
            ):
                told = await ask(on.appliance.app, "POST", "/v1/embeddings", headers=headers)
                assert told.status == 401, headers
            for first, second in ((bad, good), (good, bad), (good, good)):
                for channel, prefix in (("authorization", "Bearer "), ("x-api-key", "")):
                    twice = ((channel, prefix + first), (channel, prefix + second))
                    told = await ask(on.appliance.app, "POST", "/v1/embeddings", headers=twice)
                    assert (told.status, told.code) == (400, "invalid_request")
                    told = await ask(on.appliance.app, "GET", "/admin/v1/keys", headers=twice)
                    assert told.status == 400
            for headers in (
                (("authorization", f"Bearer {texts['usage']}"), ("x-api-key", token)),
                (("x-api-key", bad), ("api-key", token)),
                (("authorization", token[:-1]),),
            ):
                told = await ask(on.appliance.app, "GET", "/admin/v1/keys", headers=headers)
                assert told.status in (401, 403), headers
            told = await ask(
                on.appliance.app,
                "GET",
                "/account",
                query=f"key={good}",
                headers=(("authorization", f"Bearer {bad}"),),
            )
            assert told.code == "invalid_api_key"

    asyncio.run(story())


# -- scopes -------------------------------------------------------------------------------------


def test_a_key_without_the_scope_is_told_which_it_lacks_as_rfc_6750_says(tmp_path):
    async def story():
        async with bench(tmp_path / "data", preload=False) as on:
            texts = await credentials(on)
            for path, kind, lacks in (
                ("/v1/embeddings", "usage", "infer"),
                ("/v1/embeddings", "admin", "infer"),
                ("/v1/key", "admin", "usage"),
                ("/admin/v1/keys", "infer", "admin"),
            ):
                method = "POST" if path.endswith("embeddings") else "GET"
                headers, _ = sent("authorization", texts[kind])
                told = await ask(on.appliance.app, method, path, headers=headers)
                challenge = f'Bearer error="insufficient_scope", scope="{lacks}"'
                assert (told.status, told.code) == (403, "insufficient_scope")
                assert told.headers["www-authenticate"] == challenge
                assert lacks in told.body["detail"]

    asyncio.run(story())


def test_an_admin_key_is_the_operator_until_it_is_revoked(tmp_path):
    async def story():
        async with bench(tmp_path / "data", preload=False) as on:
            minted = await on.mint(scopes=["usage", "admin"])
            assert minted.scopes == ("usage", "admin")
            auth = {"authorization": f"Bearer {minted.key}"}
            made = await on.client.post("/admin/v1/keys", json={"name": "x"}, headers=auth)
            assert made.status_code == 201
            assert made.json()["scopes"] == ["infer", "usage"]
            assert (await on.client.get("/v1/key", headers=auth)).status_code == 200
            body = {"model": EMBED, "input": "x"}
            assert (
                await on.client.post("/v1/embeddings", json=body, headers=auth)
            ).status_code == 403
            own = f"/admin/v1/keys/{minted.id}/revoke"
            assert (await on.client.post(own, headers=auth)).status_code == 200
            assert (await on.client.get("/admin/v1/keys", headers=auth)).status_code == 401

    asyncio.run(story())


@pytest.mark.parametrize("scopes", [[], ["infer", "admin"], ["Infer"], ["infer", "root"], [""]])
def test_scopes_that_are_unknown_or_do_not_go_together_are_refused(tmp_path, scopes):
    async def story():
        async with bench(tmp_path / "data", preload=False) as on:
            token = {"authorization": f"Bearer {on.directory.admin_token()}"}
            order = {"name": "x", "scopes": scopes}
            told = await on.client.post("/admin/v1/keys", json=order, headers=token)
            assert told.status_code == 400
            assert told.json()["error"]["param"] == "scopes"
            assert list(on.books.keyring) == []

    asyncio.run(story())


# -- what a credential can reach ----------------------------------------------------------------


def test_the_admin_token_and_keys_are_compared_in_ways_that_tell_no_time(tmp_path, monkeypatch):
    """By structure, since a measured difference would be noise: a digest of the whole text is
    looked up in a table, whatever the text; and the token is compared by `compare_digest`.
    """
    compared, looked_up = [], []

    class Table(dict):
        def get(self, digest):
            looked_up.append(digest)
            return super().get(digest)

    def compare(one, other):
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)

    async def story():
        async with bench(tmp_path / "data", preload=False) as on:
            texts = await credentials(on)
            on.books.keyring._by_digest = Table(on.books.keyring._by_digest)
            for kind in ("bad", "expired", "revoked", "rotated-out", "infer"):
                looked_up.clear()
                headers, _ = sent("authorization", texts[kind])
                await ask(on.appliance.app, "GET", "/v1/key", headers=headers)
                assert looked_up == [credential.digest(texts[kind])], kind
            token = texts["admin token"]
            for text in (token, token[:-1], "x" + token[1:], texts["infer"]):
                compared.clear()
                headers, _ = sent("authorization", text)
                await ask(on.appliance.app, "GET", "/admin/v1/keys", headers=headers)
                assert compared == [(text.encode(), token.encode())]

    asyncio.run(story())


HOSTILE = [
    "'; DROP TABLE keys; --",
    '" OR 1=1 --',
    "gr-' UNION SELECT digest FROM keys --",
    "%s%n%x",
    "${jndi:ldap://x}",
    "{0.__class__}",
    "\x1b[2J\x1b]52;c;x\x07",
    "a\tb",
    "\x7f\x9b31m",
    "é" * 40,
    "gr-" + "٣" * 38,
    "Bearer " * 50,
    "[bold]x[/]",
    "\u202e".encode().decode("latin-1"),
]


def test_what_stands_in_a_credential_reaches_neither_the_database_nor_the_log(tmp_path, caplog):
    source = random.Random(6)
    alphabet = string.printable.replace("\r", "").replace("\n", "") + "\x00\x1b\x7f\x80\xff"
    fuzz = ["".join(source.choices(alphabet, k=source.randrange(1, 60))) for _ in range(300)]
    caplog.set_level(logging.DEBUG)

    async def story():
        async with bench(tmp_path / "data", preload=False) as on:
            minted, spoken, said = await on.mint(), [], set()
            run, call = on.books.writer.run, on.books.writer.call
            on.books.writer.run = lambda *a, **k: (spoken.append(a), run(*a, **k))[1]
            on.books.writer.call = lambda *a, **k: (spoken.append(a), call(*a, **k))[1]
            for number, text in enumerate((*HOSTILE, *fuzz)):
                host = f"127.1.{number // 250}.{number % 250 + 1}"
                for channel in ("authorization", "x-api-key", "api-key"):
                    for path in ("/v1/embeddings", "/v1/key", "/admin/v1/keys"):
                        told = await ask(
                            on.appliance.app,
                            "POST" if "embed" in path else "GET",
                            path,
                            headers=((channel, text),),
                            host=host,
                        )
                        assert told.status in (401, 429)
                        said.add(told.body["detail"])
            assert spoken == []
            assert len(said) <= len(("missing", "invalid")), said
            del on.books.writer.run, on.books.writer.call
            assert [key.id for key in on.books.keyring] == [minted.id]

    asyncio.run(story())
    said = [each for each in caplog.records if each.name.startswith("gigarouter")]
    # Who was refused how often, in a line a minute for each address, and nothing of what was sent.
    form = re.compile(
        r"refused within a minute, from (127\.1\.\d+\.\d+|other addresses): \d+ x [a-z_]+(, \d+ x [a-z_]+)*"
    )
    assert [each.getMessage() for each in said if not form.fullmatch(each.getMessage())] == []


def test_the_plaintext_stands_in_no_log_line_and_no_traceback(tmp_path, caplog, monkeypatch):
    """Whatever breaks, and wherever: with the key sent in each way that there is."""
    caplog.set_level(logging.DEBUG)

    def broken(*_, **__):
        raise ZeroDivisionError

    async def story():
        async with bench(tmp_path / "data", preload=False) as on:
            minted = await on.mint()
            keys = on.appliance.admin.keys
            token = {"authorization": f"Bearer {on.directory.admin_token()}"}
            rotated = await keys.rotate(minted.id, RotateOrder())
            plaintexts = [minted.key, rotated.key]
            for place, name in (
                (Keyring, "authenticate"),
                (type(keys), "mint"),
                (type(keys), "rotate"),
            ):
                with monkeypatch.context() as patch:
                    patch.setattr(place, name, broken)
                    for text in plaintexts:
                        for channel in CHANNELS:
                            headers, query = sent(channel, text)
                            for method, path in (("POST", "/v1/embeddings"), ("GET", "/account")):
                                await ask(
                                    on.appliance.app, method, path, headers=headers, query=query
                                )
                    order = {"overlap": "0"}
                    path = f"/admin/v1/keys/{minted.id}/rotate"
                    await on.client.post(path, json=order, headers=token)
            # The answer is lost on its way out: the plaintext exists by then.
            with monkeypatch.context() as patch:
                patch.setattr("appliance.api.routes.admin_keys.answer", broken)
                told = await on.client.post("/admin/v1/keys", json={"name": "x"}, headers=token)
                assert told.status_code == 500
            return plaintexts

    plaintexts = asyncio.run(story())
    traces = "".join(
        "".join(traceback.format_exception(*record.exc_info))
        for record in caplog.records
        if record.exc_info
    )
    assert "ZeroDivisionError" in traces
    for text in (caplog.text, traces):
        assert credential.PATTERN.search(text) is None
        for plaintext in plaintexts:
            assert plaintext[3:35] not in text


# -- floods of invalid keys ---------------------------------------------------------------------


def test_an_address_that_tries_too_many_keys_is_told_to_wait_and_valid_ones_still_work(tmp_path):
    async def story():
        async with bench(tmp_path / "data") as on:
            good = await on.key()
            wrong = {"authorization": f"Bearer {credential.mint()}"}
            body = {"model": EMBED, "input": "x"}
            most = on.limits.failed_keys_per_minute_max
            asked = [
                await on.client.request(method, path, headers=wrong)
                for _ in range(most // 3)
                for method, path in (
                    ("POST", "/v1/embeddings"),
                    ("GET", "/account"),
                    ("GET", "/admin/v1/keys"),
                )
            ]
            assert {answer.status_code for answer in asked} == {401}
            for method, path in (
                ("POST", "/v1/rerank"),
                ("GET", "/v1/key"),
                ("GET", "/admin/v1/keys"),
            ):
                told = await on.client.request(method, path, headers=wrong)
                assert told.status_code == 429
                assert told.json()["error"]["code"] == "rate_limited"
                assert told.headers["x-should-retry"] == "false"
                wait = int(told.headers["retry-after"])
                assert 1 <= wait <= 60
            served = await on.client.post("/v1/embeddings", json=body, headers=good)
            assert served.status_code == 200
            assert (await on.client.get("/account", headers=good)).status_code == 200
            token = {"authorization": f"Bearer {on.directory.admin_token()}"}
            assert (await on.client.get("/admin/v1/keys", headers=token)).status_code == 200
            # No key at all is not a guess.
            assert (await on.client.post("/v1/embeddings", json=body)).status_code == 401
            on.clock.advance(wait)
            assert (await on.client.get("/v1/key", headers=wrong)).status_code == 401

    asyncio.run(story())


def test_the_table_tells_those_who_guess_not_to_retry_and_those_who_may_pay_to():
    assert TABLE[errors.TooManyInvalidKeys].should_retry is False
    assert TABLE[errors.RateLimited].should_retry is True
