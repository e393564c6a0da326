"""Beyond loopback a server is opened on purpose, and never silently without TLS."""

import subprocess
import sys

import httpx2
import pytest

from tests.server import ROOT, free_port


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A data directory with a live key and a certificate."""
    path = tmp_path_factory.mktemp("lan") / "data"
    for words in (("keys", "mint", "x"), ("tls", "make", "127.0.0.1")):
        done = run(*words, "--data-dir", path)
        assert done.returncode == 0, done.stderr
    return path


def run(*words):
    return subprocess.run(
        [sys.executable, "-m", "appliance", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


LAN, INSECURE, TLS = ("--lan",), ("--insecure-http",), ("tls",)


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ((), ("--lan", "--insecure-http", "a certificate")),
        (INSECURE, ("--lan",)),
        (LAN, ("--insecure-http", "a certificate")),
        (TLS, ("--lan",)),
        ((*TLS, *INSECURE), ("--lan",)),
    ],
    ids=["nothing", "insecure alone", "lan alone", "tls alone", "tls and insecure"],
)
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_server_is_not_opened_by_an_address_alone(data_dir, host, flags, wanted):
    every = ["serve", "--fake", "--host", host, "--port", free_port(), "--data-dir", data_dir]
    for flag in flags:
        pair = ["--tls-cert", data_dir / "tls/cert.pem", "--tls-key", data_dir / "tls/key.pem"]
        every += pair if flag == "tls" else [flag]
    ended = run(*every)
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert all(word in line for word in wanted)
    assert ("--lan" in line) == ("--lan" not in flags)
    assert ("--insecure-http" in line) == (not {"--insecure-http", "tls"} & set(flags))


def test_an_open_server_without_a_key_names_everything_that_is_missing(tmp_path):
    ended = run(
        *("serve", "--fake", "--host", "0.0.0.0"),
        *("--port", free_port(), "--data-dir", tmp_path / "data"),
    )
    [line] = ended.stderr.splitlines()
    assert all(word in line for word in ("--lan", "--insecure-http", "keys mint"))
    assert not (tmp_path / "data" / "gigarouter.db").exists()  # before anything is opened


@pytest.mark.parametrize("how", ["flags", "file", "environment"])
def test_an_open_server_without_tls_warns_and_one_with_tls_does_not(make_server, how):
    server = make_server()
    assert server.cli("keys", "mint", "x").returncode == 0
    flags, env = ("--fake", "--host", "0.0.0.0"), {}
    if how == "flags":
        flags = (*flags, "--lan", "--insecure-http")
    elif how == "file":
        (server.data_dir / "config.toml").write_text("lan = true\ninsecure_http = true\n")
    else:
        env = {"GIGAROUTER_LAN": "true", "GIGAROUTER_INSECURE_HTTP": "true"}
    server.start(*flags, env=env)
    assert server.log.read_text().count("without TLS") == 1
    assert server.stop() == 0


def test_loopback_needs_neither_flag_nor_key_and_says_nothing(make_server):
    server = make_server()
    server.start("--fake")
    assert "TLS" not in server.log.read_text()
    assert server.stop() == 0


def test_a_certificate_that_ends_soon_is_renewed_at_a_start_and_trusted_as_before(make_server):
    import ssl
    from datetime import UTC, datetime, timedelta

    from appliance.local_ca import DAYS, LocalCa

    server = make_server()
    assert server.cli("keys", "mint", "x").returncode == 0
    authority, now = LocalCa(server.data_dir / "tls"), datetime.now(UTC)
    authority.make(["127.0.0.1"], now - timedelta(days=DAYS - 10))
    before = authority.show(authority.cert, now)
    ca = authority.ca.read_bytes()
    assert before.days_left < 30
    lines = server.start_read("--tls-cert", str(authority.cert), "--tls-key", str(authority.key))
    assert any("was renewed" in line for line in lines), lines
    trusted = ssl.create_default_context(cafile=authority.ca)
    url = f"https://127.0.0.1:{server.port}/health"
    assert httpx2.get(url, verify=trusted, timeout=20).status_code == 200
    assert authority.ca.read_bytes() == ca
    assert authority.show(authority.cert, now).days_left > 300
    server.process.terminate()
    server.process.communicate(timeout=40)
    assert server.process.returncode == 0
