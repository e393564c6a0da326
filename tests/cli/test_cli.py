"""The command line, as a person and as a script use it: in processes of its own."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException

import httpx2
import pytest

from appliance.cli import printing
from appliance.core.text import cells
from appliance.wire.keys import KeyView
from appliance.wire.models import TuningView
from tests.appliance import bench
from tests.cli.in_process import at_once
from tests.models import write_tiny_gguf
from tests.money.audit import Books
from tests.server import EMBED, ROOT, Server, free_port

SCANNER = re.compile(rb"\bgr-[0-9A-Za-z]{38}\b")
NO_KEY = "key_0000000000"


def gigarouter(*arguments, data_dir=None, env=None, **options):
    """Run a command to its end."""
    where = [] if data_dir is None else ["--data-dir", str(data_dir)]
    return subprocess.run(
        [sys.executable, "-m", "appliance", *map(str, arguments), *where],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **(env or {})},
        **options,
    )


def done(*arguments, **options):
    """Run a command that must succeed, and return its one JSON document."""
    end = gigarouter(*arguments, "--json", **options)
    assert end.returncode == 0, end.stderr
    assert end.stdout.endswith("\n")
    return json.loads(end.stdout)


def refused(end, *, code=1):
    """Return the one line on standard error that a mistake gets."""
    assert end.returncode == code, end.stderr
    assert "Traceback" not in end.stderr
    assert end.stdout == ""
    [line] = end.stderr.splitlines()
    assert line.startswith("gigarouter: ")
    return line


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    """A server over the fake engine, for every test that leaves it running."""
    running = Server(tmp_path_factory.mktemp("cli") / "data").start("--fake")
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log.read_text()


@pytest.fixture(scope="module")
def idle(tmp_path_factory):
    """A data directory whose server does not run, with one key in it."""
    data_dir = tmp_path_factory.mktemp("idle") / "data"
    key = done("keys", "mint", "first", "--credit", "1", data_dir=data_dir)
    return data_dir, key


# -- the same result with and without a server ------------------------------------------------

MINT = (
    "keys",
    "mint",
    "Zoë's key",
    "--credit",
    "1.000000000001",
    "--daily-budget",
    "0.5",
    "--rpm",
    "60",
    "--tpm",
    "1000",
    "--concurrency",
    "4",
    "--models",
    f"{EMBED}, starter-rerank",
    "--expires",
    "30d",
)


def story(data_dir, gguf):
    """Do everything an operator does once, and return each document."""
    told = {}

    def do(name, *arguments):
        told[name] = done(*arguments, data_dir=data_dir)
        return told[name]

    key = do("mint", *MINT)["id"]
    do("mint unlimited", "keys", "mint", "free", "--credit", "unlimited")
    do("mint with nothing", "keys", "mint", "empty")
    do("list", "keys", "list")
    do("show", "keys", "show", key)
    do("topup", "keys", "topup", key, "0.000000000002")
    do("rotate", "keys", "rotate", key)
    do("rotate at once", "keys", "rotate", key, "--overlap", "0")
    do("rotate again", "keys", "rotate", key, "--overlap", "7d")
    do("rotated", "keys", "show", key)
    do("expire", "keys", "expire", key, "90d")
    do("expire never", "keys", "expire", key, "never")
    do("limit", "keys", "limit", key, "--rpm", "30", "--tpm", "none", "--models", EMBED)
    do("mint with scopes", "keys", "mint", "books", "--scopes", "usage, admin")
    do("revoke", "keys", "revoke", key)
    do("revoke again", "keys", "revoke", key)
    do("forget", "keys", "forget", key)
    do("models", "models", "list")
    do("model", "models", "show", "all-minilm-l6-v2")
    do("add", "models", "add", gguf, "--id", "mine/tiny")
    do("added", "models", "show", "mine/tiny")
    return told


def without_what_differs(document):
    """Leave out what is new each time, and what is known of loaded models: only a server loads."""
    if isinstance(document, list):
        return [without_what_differs(each) for each in document]
    if isinstance(document, dict):
        new = {
            "id",
            "key",
            "hint",
            "created",
            "expires",
            "revoked",
            "loaded",
            "replaced_until",
            "retiring",
            "forgotten",
        }
        return {
            name: type(value).__name__ if name in new else without_what_differs(value)
            for name, value in document.items()
            if name != "tuning"
        }
    return document


def test_commands_give_the_same_documents_with_and_without_a_server(tmp_path, make_server):
    gguf = write_tiny_gguf(tmp_path / "tiny.gguf", seed=1)
    server = make_server("with").start("--fake")
    with ThreadPoolExecutor(2) as pool:
        alone, served = pool.map(story, [tmp_path / "without", server.data_dir], [gguf, gguf])
    assert alone["added"].pop("trial")["reason"] is None, "the fake engine tries nothing"
    assert without_what_differs(alone) == without_what_differs(served)

    minted = served["mint"]
    assert list(minted) == [
        "id",
        "name",
        "key",
        "credit",
        "daily_budget",
        "rpm",
        "tpm",
        "concurrency",
        "models",
        "created",
        "expires",
        "scopes",
    ]
    assert re.fullmatch(r"key_[0-9a-z]{10}", minted["id"])
    assert SCANNER.fullmatch(minted["key"].encode())
    assert (minted["name"], minted["credit"], minted["daily_budget"]) == (
        "Zoë's key",
        1.000000000001,
        0.5,
    )
    assert (minted["rpm"], minted["tpm"], minted["concurrency"]) == (60, 1000, 4)
    assert minted["models"] == [EMBED, "gigarouter/starter-rerank"]
    assert minted["expires"] > minted["created"]
    assert served["mint unlimited"]["credit"] is None
    assert served["mint unlimited"]["expires"] is None
    assert served["mint with nothing"]["credit"] == 0

    assert {key["name"] for key in served["list"]} >= {"Zoë's key", "free", "empty"}
    assert served["show"]["hint"] == f"{minted['key'][:7]}…{minted['key'][-4:]}"
    assert served["topup"]["credit"] == 1.000000000003
    limits = ("rpm", "tpm", "concurrency", "daily_budget", "models")
    assert [served["limit"][name] for name in limits] == [30, None, 4, 0.5, [EMBED]]
    assert served["show"]["revoked"] is None
    assert served["revoke"]["revoked"] is not None
    assert served["revoke again"] == served["revoke"]
    assert [model["id"] for model in served["models"]["data"]][:2] == [
        EMBED,
        "gigarouter/starter-rerank",
    ]
    assert served["model"]["id"] == EMBED
    assert served["add"]["id"] == "mine/tiny"
    assert served["added"]["available"] is True


def test_amounts_are_printed_to_the_last_picocredit(idle):
    data_dir, _ = idle
    end = gigarouter(
        "keys", "mint", "exact", "--credit", "999999.999999999999", "--json", data_dir=data_dir
    )
    assert '"credit":999999.999999999999,' in end.stdout


def test_what_one_process_wrote_the_next_one_reads(idle):
    data_dir, key = idle
    before = done("keys", "show", key["id"], data_dir=data_dir)
    done("keys", "topup", key["id"], "0.25", data_dir=data_dir)
    after = done("keys", "show", key["id"], data_dir=data_dir)
    assert after["credit"] == before["credit"] + 0.25


def test_people_get_tables_and_a_new_key_is_alone_on_standard_output(idle):
    data_dir, key = idle
    end = gigarouter("keys", "mint", "piped", data_dir=data_dir)
    assert (end.returncode, SCANNER.fullmatch(end.stdout.strip().encode()) is not None) == (0, True)
    assert "shown this once" in end.stderr
    made = done("keys", "mint", "turned", data_dir=data_dir)["id"]
    end = gigarouter("keys", "rotate", made, data_dir=data_dir)
    assert SCANNER.fullmatch(end.stdout.strip().encode())
    assert "shown once" in end.stderr
    assert "until 20" in end.stderr
    end = gigarouter("keys", "forget", made, data_dir=data_dir)
    assert "forgotten 20" in end.stdout
    listed = gigarouter("keys", "list", data_dir=data_dir).stdout
    assert listed.splitlines()[0].split() == [
        "ID",
        "NAME",
        "KEY",
        "CREDIT",
        "SPENT",
        "TODAY",
        "STATE",
    ]
    assert key["id"] in listed
    shown = gigarouter("models", "list", data_dir=data_dir).stdout
    assert EMBED in shown
    assert "$0.008 for 1M tokens" in shown


@pytest.mark.parametrize(
    ("expires", "revoked", "state"),
    [
        (None, None, "live"),
        ("2999-01-01T00:00:00Z", None, "live"),
        ("2001-01-01T00:00:00Z", None, "expired 2001-01-01T00:00:00Z"),
        ("2001-01-01T00:00:00Z", "2000-01-01T00:00:00Z", "revoked 2000-01-01T00:00:00Z"),
    ],
)
def test_people_see_whether_a_key_works(expires, revoked, state):
    view = KeyView(
        id="key_a",
        name="n",
        hint="h",
        credit=None,
        spent_today=0,
        daily_budget=None,
        rpm=None,
        tpm=None,
        concurrency=None,
        models=None,
        created="",
        expires=expires,
        revoked=revoked,
    )
    assert printing.state(view) == state


def test_a_name_of_wide_characters_keeps_the_columns_of_a_table(capsys):
    printing.table(
        ("ID", "NAME", "STATE"), [("1", "\u65e5\u672c\u8a9e", "live"), ("2", "abc", "live")]
    )
    head, wide, narrow = capsys.readouterr().out.splitlines()
    at = head.index("STATE")
    assert narrow.index("live") == at
    assert cells(wide[: wide.index("live")]) == at
    printing.pairs({"name": "x", "\u5168\u89d2": "y"})
    assert capsys.readouterr().out.splitlines() == ["name  x", "\u5168\u89d2  y"]


def test_what_a_model_is_tuned_to_is_said_in_words():
    view = TuningView(2, 1, 2, 512, None, "calibrated")
    said = printing.tuning(view)
    assert said.startswith("2 workers with 1 thread each, 2 threads for a call alone, ")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("keys", "--help"), ("serve", "--help")])
def test_help_is_printed_and_nothing_is_made(tmp_path, arguments):
    end = gigarouter(*arguments, env={"GIGAROUTER_DATA_DIR": str(tmp_path / "data")})
    assert end.returncode == 0
    assert end.stdout.startswith("Usage: gigarouter")
    assert end.stderr == ""
    assert not (tmp_path / "data").exists()


def test_the_data_directory_can_come_from_the_environment(idle):
    data_dir, key = idle
    listed = done("keys", "list", env={"GIGAROUTER_DATA_DIR": str(data_dir)})
    assert key["id"] in [each["id"] for each in listed]


# -- mistakes ---------------------------------------------------------------------------------

MISTAKES = {
    "an amount that is none": (("keys", "mint", "x", "--credit", "abc"), "'abc'"),
    "a negative amount": (("keys", "mint", "x", "--credit", "-1"), "credit"),
    "an amount too fine": (("keys", "mint", "x", "--credit", "1e-13"), "finer"),
    "an amount too large": (("keys", "mint", "x", "--credit", "1000001"), "1000000"),
    "a budget that is none": (("keys", "mint", "x", "--daily-budget", "lots"), "daily_budget"),
    "a name of nothing": (("keys", "mint", " "), "name"),
    "a name that steers a terminal": (("keys", "mint", "a\x1b[2J"), "control"),
    "a rate of nothing": (("keys", "mint", "x", "--rpm", "0"), "rpm"),
    "an expiry that is none": (("keys", "mint", "x", "--expires", "soon"), "'soon'"),
    "a model that is none": (("keys", "mint", "x", "--models", "gpt-9"), "'gpt-9'"),
    "no models at all": (("keys", "mint", "x", "--models", ","), "models"),
    "a name that is no text": (("keys", "mint", "\udcff"), ""),
    "a key id that is no text": (("keys", "show", "\udcff"), ""),
    "a path that is no text": (("models", "add", "/tmp/\udcff"), ""),
    "a scope that is none": (("keys", "mint", "x", "--scopes", "root"), "infer, usage, admin"),
    "scopes that exclude each other": (("keys", "mint", "x", "--scopes", "infer,admin"), "admin"),
    "an overlap that is none": (("keys", "rotate", "KEY", "--overlap", "soon"), "'soon'"),
    "an overlap too long": (("keys", "rotate", "KEY", "--overlap", "31d"), "30d"),
    "a moved expiry that is none": (("keys", "expire", "KEY", "soon"), "'soon'"),
    "a limit that is none": (("keys", "limit", "KEY", "--rpm", "0"), "rpm"),
    "a limit for no model": (("keys", "limit", "KEY", "--models", ","), "models"),
    "no limit at all": (("keys", "limit", "KEY"), "daily_budget"),
    "an unknown key limited": (("keys", "limit", NO_KEY, "--rpm", "1"), NO_KEY),
    "an unknown key rotated": (("keys", "rotate", NO_KEY), NO_KEY),
    "an unknown key forgotten": (("keys", "forget", NO_KEY), NO_KEY),
    "an unknown key shown": (("keys", "show", NO_KEY), NO_KEY),
    "an unknown key revoked": (("keys", "revoke", NO_KEY), NO_KEY),
    "an unknown key topped up": (("keys", "topup", NO_KEY, "1"), NO_KEY),
    "a key id with a path in it": (("keys", "show", "../../etc"), "../../etc"),
    "an empty key id": (("keys", "show", ""), "key"),
    "a top-up that is none": (("keys", "topup", "KEY", "ten"), "'ten'"),
    "a top-up beyond the books": (("keys", "topup", "KEY", "1e7"), "1000000"),
    "an unknown model": (("models", "show", "all-minilm"), "all-minilm"),
    "a model file that is not there": (("models", "add", "/nowhere.gguf"), "/nowhere.gguf"),
    "a model file that is none": (
        ("models", "add", str(ROOT / "pyproject.toml")),
        "pyproject.toml",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_one_line_that_names_it_with_and_without_a_server(fake, idle, name):
    arguments, named = MISTAKES[name]
    data_dir, key = idle
    for where, known in ((data_dir, key["id"]), (fake.data_dir, fake.mint()["id"])):
        words = [known if each == "KEY" else each for each in arguments]
        assert named in refused(at_once(*words, data_dir=where))


def test_a_mistake_is_the_same_in_a_process_of_its_own(fake, idle):
    for where in (idle[0], fake.data_dir):
        line = refused(gigarouter("keys", "topup", NO_KEY, "1", data_dir=where))
        assert line == refused(at_once("keys", "topup", NO_KEY, "1", data_dir=where))


@pytest.mark.parametrize(
    "arguments",
    [
        ("key",),
        ("keys", "mnt"),
        ("keys", "mint"),
        ("keys", "mint", "x", "--rpm", "many"),
        ("keys", "mint", "x", "--colour", "red"),
        ("keys", "topup", NO_KEY),
        ("keys", "topup", NO_KEY, "-5"),
        ("models", "add", "x.gguf", "--task", "chat"),
        ("serve", "--port", "http"),
        ("serve", "--log-format", "xml"),
    ],
)
def test_wrong_usage_ends_with_2_and_touches_nothing(tmp_path, arguments):
    end = at_once(*arguments, data_dir=tmp_path / "data")
    assert (end.returncode, end.stdout) == (2, "")
    assert "Usage: gigarouter" in end.stderr
    assert "Traceback" not in end.stderr
    assert not (tmp_path / "data").exists()


def test_a_file_in_the_place_of_the_data_directory_gets_one_line(tmp_path):
    (tmp_path / "file").write_text("precious")
    for where in (tmp_path / "file", tmp_path / "file" / "below"):
        assert "file" in refused(at_once("keys", "list", data_dir=where))
    assert (tmp_path / "file").read_text() == "precious"


def test_a_damaged_database_gets_one_line_and_stays_as_it_is(tmp_path):
    (tmp_path / "gigarouter.db").write_bytes(b"not a database, but dear to someone" * 200)
    before = (tmp_path / "gigarouter.db").read_bytes()
    assert "gigarouter.db" in refused(at_once("keys", "list", data_dir=tmp_path))
    assert "gigarouter.db" in refused(gigarouter("serve", "--fake", data_dir=tmp_path))
    assert (tmp_path / "gigarouter.db").read_bytes() == before


@pytest.mark.parametrize(
    ("config", "env", "words"),
    [
        ("prot = 1", {}, ["config.toml", "prot"]),
        ("[admin]\nallow = true", {}, ["config.toml", "allow"]),
        ('port = "8642"', {}, ["config.toml", "port"]),
        ("port = ", {}, ["config.toml"]),
        ("", {"GIGAROUTER_PROT": "1"}, ["GIGAROUTER_PROT"]),
        ("", {"GIGAROUTER_PORT": "70000"}, ["port", "65535"]),
    ],
)
def test_a_wrong_setting_stops_the_start_and_is_named(tmp_path, config, env, words):
    (tmp_path / "config.toml").write_text(config)
    line = refused(at_once("serve", "--fake", data_dir=tmp_path, env=env))
    assert all(word in line for word in words), line


# -- one data directory and one port, one server ----------------------------------------------


def test_a_second_server_on_the_same_directory_is_refused_at_once_and_named_the_first(fake):
    began = time.monotonic()
    line = refused(gigarouter("serve", "--fake", "--port", free_port(), data_dir=fake.data_dir))
    took_s = time.monotonic() - began
    assert f"(process {fake.process.pid})" in line
    assert str(fake.data_dir) in line
    # Half a second on an idle machine; most of it is Python reading its libraries.
    assert took_s < 5
    assert httpx2.get(f"{fake.url}/health").status_code == 200


def test_a_second_server_on_the_same_port_is_refused(fake, tmp_path):
    line = refused(gigarouter("serve", "--fake", "--port", fake.port, data_dir=tmp_path / "other"))
    assert f"127.0.0.1:{fake.port}" in line
    assert not (tmp_path / "other" / "server.json").exists()


def test_a_port_that_another_program_holds_is_refused(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        line = refused(gigarouter("serve", "--fake", "--port", port, data_dir=tmp_path / "data"))
    assert f"127.0.0.1:{port}" in line


def test_an_address_open_to_the_network_needs_a_key(tmp_path):
    data_dir = tmp_path / "data"
    serve = ("serve", "--fake", "--host", "0.0.0.0", "--lan", "--insecure-http")
    serve = (*serve, "--port", free_port())
    assert "mint a key first" in refused(gigarouter(*serve, data_dir=data_dir))
    key = done("keys", "mint", "x", data_dir=data_dir)
    done("keys", "revoke", key["id"], data_dir=data_dir)
    assert "mint a key first" in refused(gigarouter(*serve, data_dir=data_dir))


def test_an_address_that_is_not_ours_is_refused(tmp_path):
    end = gigarouter("serve", "--fake", "--host", "203.0.113.7", data_dir=tmp_path / "data")
    assert "203.0.113.7" in refused(end)


def test_commands_side_by_side_on_an_idle_directory_all_succeed(tmp_path):
    data_dir = tmp_path / "data"
    with ThreadPoolExecutor(4) as pool:
        ends = list(
            pool.map(lambda name: gigarouter("keys", "mint", name, data_dir=data_dir), "abcd")
        )
    assert [end.returncode for end in ends] == [0] * 4, [end.stderr for end in ends]
    assert {key["name"] for key in done("keys", "list", data_dir=data_dir)} == set("abcd")


# -- keys on a running server -----------------------------------------------------------------


def embed(server, key, text="hello"):
    headers = {"authorization": f"Bearer {key}"}
    body = {"model": EMBED, "input": text}
    return httpx2.post(f"{server.url}/v1/embeddings", json=body, headers=headers, timeout=60)


def test_a_revoked_key_is_refused_from_the_moment_the_command_ends(fake):
    key = done("keys", "mint", "x", "--credit", "1", data_dir=fake.data_dir)
    other = done("keys", "mint", "y", "--credit", "unlimited", data_dir=fake.data_dir)
    assert embed(fake, key["key"]).status_code == 200
    done("keys", "revoke", key["id"], data_dir=fake.data_dir)
    assert embed(fake, key["key"]).status_code == 401
    assert embed(fake, other["key"]).status_code == 200


def test_a_key_revoked_under_load_serves_nothing_after_the_answer(fake):
    key = fake.mint(credit="unlimited")
    revoked = threading.Event()
    late, before = [], []

    def client():
        connection = HTTPConnection("127.0.0.1", fake.port, timeout=60)
        headers = {"authorization": f"Bearer {key['key']}"}
        while True:
            was_revoked = revoked.is_set()
            body = json.dumps({"model": EMBED, "input": "x"})
            try:
                connection.request("POST", "/v1/embeddings", body, headers)
                answer = connection.getresponse()
                answer.read()
            except ConnectionError:
                # Who is refused before its body is read may find the connection closed.
                connection.close()
                continue
            (late if was_revoked else before).append(answer.status)
            if was_revoked:
                break
        connection.close()

    with ThreadPoolExecutor(8) as pool:
        ends = [pool.submit(client) for _ in range(8)]
        deadline = time.monotonic() + 30
        while len(before) < 20 and time.monotonic() < deadline:
            time.sleep(0.005)
        with fake.admin() as admin:
            assert admin.post(f"/keys/{key['id']}/revoke").status_code == 200
        revoked.set()
        for end in ends:
            end.result(60)
    assert len(late) == 8
    assert set(late) <= {401, 429}  # 429: an address that tries an invalid key again and again
    assert before.count(200) >= 20


def test_a_top_up_opens_an_empty_key_at_once(fake):
    key = done("keys", "mint", "x", data_dir=fake.data_dir)
    assert embed(fake, key["key"]).status_code == 402
    done("keys", "topup", key["id"], "1", data_dir=fake.data_dir)
    answer = embed(fake, key["key"])
    assert answer.status_code == 200
    left = done("keys", "show", key["id"], data_dir=fake.data_dir)["credit"]
    assert f"{left}" == answer.headers["x-balance"]


def test_a_key_works_until_the_second_of_its_expiry(tmp_path):
    async def scenario():
        async with bench(tmp_path / "data") as on:
            header = await on.key(expires="90m")
            body = {"model": EMBED, "input": "x"}
            for wait_s, status in ((0, 200), (5_399, 200), (1, 401)):
                on.clock.advance(wait_s)
                answer = await on.client.post("/v1/embeddings", json=body, headers=header)
                assert answer.status_code == status

    asyncio.run(scenario())


def test_an_unlimited_key_is_metered_and_never_refused(fake):
    key = done("keys", "mint", "x", "--credit", "UNLIMITED", data_dir=fake.data_dir)
    assert embed(fake, key["key"]).headers["x-balance"] == "unlimited"
    shown = done("keys", "show", key["id"], data_dir=fake.data_dir)
    assert shown["credit"] is None
    assert shown["spent_today"] > 0


def test_a_key_minted_without_a_server_works_on_the_server_started_later(make_server):
    server = make_server()
    key = done("keys", "mint", "x", "--credit", "1", "--models", EMBED, data_dir=server.data_dir)
    server.start("--fake")
    assert embed(server, key["key"]).status_code == 200
    # Nor does a note of a server that was killed mislead the next command.
    server.kill()
    assert (server.data_dir / "server.json").exists()
    assert done("keys", "show", key["id"], data_dir=server.data_dir)["name"] == "x"


def test_the_plaintext_stands_in_the_answer_to_mint_and_nowhere_else(make_server):
    server = make_server().start("--fake", "--log-format", "json")
    keys = [
        done("keys", "mint", "by command", "--credit", "1", data_dir=server.data_dir)["key"],
        str(server.mint("by api", credit="1")["key"]),
    ]
    rotated = done("keys", "mint", "twice", "--credit", "1", data_dir=server.data_dir)
    again = done("keys", "rotate", rotated["id"], data_dir=server.data_dir)
    keys += [rotated["key"], again["key"]]
    shown = []
    for key in keys:
        assert embed(server, key).status_code == 200
        assert embed(server, key[:-1]).status_code == 401
        for path in ("/account", f"/account?key={key}", f"/nowhere/{key}", f"/v1/models/{key}"):
            answer = httpx2.get(f"{server.url}{path}", headers={"authorization": f"Bearer {key}"})
            if key not in path:
                shown.append(answer.content)
        httpx2.post(f"{server.url}/v1/embeddings", content=b"{", headers={"x-api-key": key})
    for arguments in (("keys", "list"), ("models", "list")):
        for flag in ([], ["--json"]):
            end = gigarouter(*arguments, *flag, data_dir=server.data_dir)
            shown.append((end.stdout + end.stderr).encode())

    def on_disk():
        files = [path for path in server.data_dir.rglob("*") if path.is_file()]
        return {str(path): path.read_bytes() for path in (*files, server.log)}

    while_it_runs = on_disk()
    assert any(name.endswith("-wal") and content for name, content in while_it_runs.items())
    assert server.stop() == 0
    places = {**{f"{name} (running)": each for name, each in while_it_runs.items()}, **on_disk()}
    for name, content in (*places.items(), *(("shown", each) for each in shown)):
        for key in keys:
            assert key.encode() not in content, name
            assert key[3:35].encode() not in content, name
        assert not SCANNER.search(content), name


# -- stopping ---------------------------------------------------------------------------------


def test_sigterm_under_load_lets_calls_in_flight_finish_and_charges_exactly_those(make_server):
    server = make_server().start("--fake", env={"GIGAROUTER_BATCH_DELAY_S": "200"})
    key = server.mint(credit="1000")["key"]
    content = json.dumps({"model": EMBED, "input": ["some words to embed " * 20] * 50})
    heard, others, broken = [], [], []

    def client(tier):
        headers = {"authorization": f"Bearer {key}", "x-tier": tier}
        connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
        try:
            while True:
                connection.request("POST", "/v1/embeddings", content, headers)
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    others.append(answer.status)
                    return
                heard.append(answer.headers["x-request-id"])
        except (OSError, HTTPException) as error:
            broken.append(error)
        finally:
            connection.close()

    # However quick the others are, the one of the batch tier is in flight when the signal comes.
    threads = [threading.Thread(target=client, args=["batch"])]
    threads += [threading.Thread(target=client, args=["realtime"]) for _ in range(8)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 30
    while len(heard) < 8 and time.monotonic() < deadline:
        time.sleep(0.005)
    with server.admin() as admin:
        while not admin.get("/stats").json()["in_flight"] and time.monotonic() < deadline:
            time.sleep(0.005)
    assert server.stop() == 0
    for thread in threads:
        thread.join(60)
    log = server.log.read_text()
    in_flight = int(re.search(r"stopping: (\d+) calls in flight", log)[1])
    assert in_flight > 0
    assert "Traceback" not in log
    assert set(others) <= {503}
    books = Books(server.data_dir)
    assert books.problems == []
    # Every call that was charged was answered whole, and the other way round.
    assert sorted(books.charges.elements()) == sorted(heard)
    assert not (server.data_dir / "server.json").exists()


def test_sigterm_with_a_client_that_never_finishes_its_body_ends_all_the_same(make_server):
    server = make_server().start("--fake")
    key = server.mint()["key"]
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as stalled:
        stalled.sendall(
            b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
            b"Authorization: Bearer " + str(key).encode() + b"\r\n\r\n{"
        )
        assert httpx2.get(f"{server.url}/health").status_code == 200
        began = time.monotonic()
        assert server.stop() == 0
        took_s = time.monotonic() - began
    assert took_s < 15
    assert "Traceback" not in server.log.read_text()
    assert Books(server.data_dir).problems == []


def test_sigterm_while_nobody_calls_ends_at_once_and_leaves_no_log_behind(make_server):
    server = make_server().start("--fake")
    assert server.stop() == 0
    assert not (server.data_dir / "server.json").exists()
    assert not (server.data_dir / "gigarouter.db-wal").exists()
    server.start("--fake")
    assert server.stop() == 0
