"""What in the environment keeps the hub's client from starting: one line, and no password in it."""

import socket
import ssl
import subprocess
import sys

import httpx2
import pytest

from appliance.hub import connection
from appliance.hub.connection import fault, without_secrets
from tests.server import ROOT

SECRET = "s3cret"
PROGRAM = """
import sys
from appliance.core.errors import DownloadFailed
from appliance.hub.remote import Hub
from appliance.settings import HubSettings
try:
    Hub(HubSettings(endpoint="http://127.0.0.1:9")).find("owner/model", "a.gguf", None)
except DownloadFailed as error:
    print(error)
"""


def said(tmp_path, **variables):
    """Return what a process with these variables says when it asks a hub that is not there."""
    end = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={"HF_HOME": str(tmp_path), "HOME": str(tmp_path), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert end.stderr == ""
    assert SECRET not in end.stdout
    [line] = end.stdout.splitlines()
    return line


@pytest.mark.parametrize("name", ["ALL_PROXY", "HTTPS_PROXY", "http_proxy"])
def test_a_socks_proxy_without_its_package_says_what_to_install_or_unset(tmp_path, name):
    line = said(tmp_path, **{name: f"socks5://user:{SECRET}@127.0.0.1:1"})
    assert f"{name} names a SOCKS proxy, which needs the Python package socksio" in line
    assert "unset the variable" in line


@pytest.mark.parametrize(
    "address",
    [f"http://user:{SECRET}@:bad", f"foo://user:{SECRET}@host:1", "http://[::1"],
)
def test_a_proxys_address_that_is_none_names_the_variable(tmp_path, address):
    line = said(tmp_path, HTTPS_PROXY=address)
    assert "HTTPS_PROXY is no address of a proxy" in line


def test_a_proxys_password_is_not_said_when_it_cannot_be_reached(tmp_path):
    line = said(tmp_path, HTTP_PROXY=f"http://user:{SECRET}@127.0.0.1:9")
    assert "owner/model/a.gguf: " in line


def test_a_file_of_certificates_that_is_not_there_or_is_none_is_named(tmp_path):
    missing, other = tmp_path / "none.pem", tmp_path / "other.pem"
    other.write_text("no certificate")
    assert f"SSL_CERT_FILE names {missing}, which is no file; correct or unset it" in said(
        tmp_path, SSL_CERT_FILE=str(missing)
    )
    assert f"SSL_CERT_FILE names {other}, which is no file of certificates" in said(
        tmp_path, SSL_CERT_FILE=str(other)
    )


def test_a_variable_of_the_hubs_own_client_that_is_wrong_is_one_line(tmp_path):
    assert "the hub's client does not start: invalid literal" in said(
        tmp_path, HF_HUB_ETAG_TIMEOUT="soon"
    )


def test_offline_of_the_hubs_own_client_is_final(tmp_path):
    assert "HF_HUB_OFFLINE is set" in said(tmp_path, HF_HUB_OFFLINE="1")


@pytest.mark.parametrize("value", ["localhost,127.0.0.1", "*", "[::1"])
def test_hosts_that_need_no_proxy_are_asked_without_it(tmp_path, value):
    # Nothing listens at either address; the proxy's would be refused in its own words.
    line = said(tmp_path, HTTP_PROXY="http://127.0.0.1:9", NO_PROXY=value)
    assert "refused" in line


def test_secrets_of_addresses_are_taken_out():
    assert without_secrets(f"x http://user:{SECRET}@host:1/p y") == "x http://host:1/p y"
    assert without_secrets("http://host/a@b") == "http://host/a@b"


def test_what_is_not_known_is_said_in_the_clients_words():
    assert fault(ImportError("no idna"), {}) == "the hub's client does not start: no idna"
    assert "does not start" in fault(ValueError("x"), {"HTTP_PROXY": "host:3128"})


def behind(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "can"),
    [
        (httpx2.ConnectError("refused"), True),
        (httpx2.ReadError("reset"), True),
        (httpx2.ReadTimeout("late"), True),
        (httpx2.RemoteProtocolError("ended early"), True),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (socket.gaierror("no such name, for now"), True),
        (httpx2.InvalidURL("no address"), False),
        (httpx2.UnsupportedProtocol("ftp"), False),
        (httpx2.ProxyError("407"), False),
        (FileNotFoundError(2, "no such file"), False),
        (OSError(28, "no space"), False),
        (
            behind(httpx2.ConnectError("tls"), behind(OSError(), ssl.SSLCertVerificationError())),
            False,
        ),
    ],
    ids=repr,
)
def test_only_what_passes_by_itself_is_worth_another_attempt(error, can):
    assert connection.passes(error) is can


def test_a_hub_that_is_not_reached_is_named_with_what_to_do():
    where = "http://user:s3cret@127.0.0.1:9"
    found = connection.unreached(socket.gaierror(-2, "Name or service not known"), where)
    assert found.startswith("http://127.0.0.1:9 cannot be reached: ")
    assert "Name or service not known" in found
    assert "network" in found
    assert "hub.endpoint" in found
    assert SECRET not in found
    # A redirect leads elsewhere: what failed is named.
    request = httpx2.Request("GET", "https://user:s3cret@cdn.example/file")
    found = connection.unreached(httpx2.ConnectError("refused", request=request), where)
    assert found.startswith("https://cdn.example cannot be reached: refused")
