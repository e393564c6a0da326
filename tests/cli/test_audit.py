"""What an operator did is written down: who, what, when, from where, and how it ended."""

import json
import os
import re
import stat

import httpx2
import pytest


@pytest.fixture
def server(make_server):
    return make_server()


def lines(server):
    path = server.data_dir / "logs" / "audit.log"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_each_action_over_http_leaves_one_line_with_who_what_where_and_how_it_ended(server):
    server.start("--fake")
    admin_key = server.mint("boss", scopes=["admin"])
    with server.admin() as admin:
        made = admin.post("/keys", json={"name": "Alice Smith", "credit": "5"}).json()
        admin.post(f"/keys/{made['id']}/topup", json={"credit": "7"})
        admin.post("/keys/nobody/topup", json={"credit": "7"})
        admin.get("/keys")
    bearer = {"authorization": f"Bearer {admin_key['key']}"}
    httpx2.post(f"{server.url}/admin/v1/keys/{made['id']}/revoke", headers=bearer)
    mint_boss, mint, top_up, missing, revoke = lines(server)
    assert mint_boss["what"] == "mint"
    assert mint["who"] == "admin token"
    assert mint["origin"] == "127.0.0.1"
    assert mint["target"] == [made["id"]]
    assert mint["order"]["credit"] == "5"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", mint["at"])
    assert (top_up["what"], top_up["order"]) == ("top_up", {"credit": "7"})
    assert (top_up["outcome"], missing["outcome"]) == ("done", "refused (404)")
    assert revoke["who"] == f"key {admin_key['id']}"
    text = (server.data_dir / "logs" / "audit.log").read_text()
    assert "Alice" not in text  # `keys forget` could not remove it
    assert made["key"] not in text
    assert server.stop() == 0


def test_the_same_line_is_left_without_a_server_and_the_command_shows_it(server):
    minted = json.loads(server.cli("keys", "mint", "a", "--credit", "2", "--json").stdout)
    assert server.cli("keys", "topup", minted["id"], "3").returncode == 0
    assert server.cli("keys", "topup", "nobody", "3").returncode == 1
    assert server.cli("keys", "list").returncode == 0
    who = f"command line (user {os.getuid()})"
    assert [(each["who"], each["what"]) for each in lines(server)] == [
        (who, "mint"),
        (who, "top_up"),
        (who, "top_up"),
    ]
    assert lines(server)[0]["target"] == [minted["id"]]
    assert "key_not_found" in lines(server)[2]["outcome"]
    shown = server.cli("audit")
    assert shown.returncode == 0
    assert f"top_up {minted['id']} credit=3" in shown.stdout
    assert [each["what"] for each in json.loads(server.cli("audit", "--json").stdout)] == [
        "mint",
        "top_up",
        "top_up",
    ]
    assert len(json.loads(server.cli("audit", "--lines", "1", "--json").stdout)) == 1


def test_a_flood_of_refused_credentials_leaves_a_line_for_address_and_minute(server):
    server.start("--fake")
    for number in range(100):
        httpx2.get(f"{server.url}/account", headers={"authorization": f"Bearer wrong-{number}"})
    httpx2.get(f"{server.url}/admin/v1/keys")
    assert server.stop() == 0  # the minute that runs is told at the end
    [line] = lines(server)
    assert (line["who"], line["what"], line["outcome"]) == ("nobody", "access", "refused")
    assert line["origin"] == "127.0.0.1"
    assert line["order"] == {"invalid_api_key": 100, "missing_api_key": 1}
    log = server.log.read_text()
    assert log.count("refused within a minute") == 1
    assert "wrong-" not in log


def test_the_audit_log_is_its_owners_alone_and_a_link_in_its_place_is_not_followed(
    server, tmp_path
):
    assert server.cli("keys", "mint", "a").returncode == 0
    path = server.data_dir / "logs" / "audit.log"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    victim = tmp_path / "victim"
    victim.write_text("mine")
    path.unlink()
    path.symlink_to(victim)
    ended = server.cli("keys", "mint", "b")
    assert ended.returncode == 1
    assert "symbolic link" in ended.stderr
    assert victim.read_text() == "mine"


def test_the_restoration_of_a_backup_is_an_action_too(server, tmp_path):
    target = tmp_path / "saved.db"
    assert server.cli("keys", "mint", "a").returncode == 0
    assert server.cli("backup", str(target)).returncode == 0
    assert server.cli("restore", str(target)).returncode == 0
    assert [each["what"] for each in lines(server)] == ["mint", "back_up", "restore"]
    assert lines(server)[2]["target"] == [str(target)]
