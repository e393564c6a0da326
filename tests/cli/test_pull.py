"""`gigarouter models pull`, `add`, `verify` and `remove` against a hub that stands in."""

import json
import os
import time
import tomllib

import pytest

from appliance.cli import progress
from tests import encoders
from tests.cli.in_process import at_once
from tests.hub import TOKEN, standing_in
from tests.models import write_tiny_bert_folder, write_tiny_gguf

REPO = "owner/tiny-GGUF"
FILE = "sub/tiny-Q8_0.gguf"
FOLDER = "owner/tiny-cross"
STAGES = (*progress.STAGES.values(), "waiting", "fetching", "checking", "trying")
"""How the lines end that say how far it is."""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with standing_in() as (hub, endpoint):
        monkeypatch.setenv("GIGAROUTER_HUB_ENDPOINT", endpoint)
        gguf = write_tiny_gguf(tmp_path / "tiny.gguf", seed=1).read_bytes()
        hub.put(REPO, FILE, gguf)
        hub.put(REPO, "README.md", b"# tiny", large=False)
        folder = tmp_path / "tiny-cross"
        write_tiny_bert_folder(folder, seed=2, labels=1)
        for path in folder.iterdir():
            hub.put(FOLDER, path.name, path.read_bytes(), large=path.suffix == ".safetensors")
        yield hub


@pytest.fixture
def server(make_server):
    return make_server()


def document(end):
    assert end.returncode == 0, end.stderr
    return json.loads(end.stdout)


def refused(end):
    assert end.returncode == 1, end.stdout + end.stderr
    assert "Traceback" not in end.stderr
    *stages, line = end.stderr.splitlines()
    assert all(stage.endswith(STAGES) for stage in stages)
    return line


def entry(server, name):
    [found] = [
        each
        for each in tomllib.loads((server.data_dir / "models.toml").read_text())["model"]
        if each["id"] == name
    ]
    return found


def model_files(server):
    """Return what is in the folder of models, but for what is known of files that were there."""
    known = {"digests.json", "trials"}
    return sorted(
        path.name for path in (server.data_dir / "models").iterdir() if path.name not in known
    )


@pytest.mark.parametrize("with_server", [True, False])
def test_a_repository_is_added_pulled_called_verified_and_removed(hub, server, with_server):
    if with_server:
        server.start("--fake")
    added = document(server.cli("models", "add", REPO, "--id", "tiny", "--json"))
    assert (added["task"], added["dimensions"], added["available"]) == ("embeddings", 32, False)
    assert hub.sent < 2 * len(hub.files[REPO, FILE])
    source = entry(server, "tiny")["source"]
    assert (source["repo"], source["file"]) == (REPO, FILE)
    assert source["sha256"] == hub.digest(REPO, FILE)

    done = document(server.cli("models", "pull", "tiny", "--json"))
    assert (done["state"], done["bytes"]) == ("done", len(hub.files[REPO, FILE]))
    assert (server.data_dir / "models" / "tiny.gguf").read_bytes() == hub.files[REPO, FILE]
    assert document(server.cli("models", "show", "tiny", "--json"))["available"]
    if with_server:
        with server.client(server.mint()["key"]) as client:
            answer = client.post(
                "/v1/embeddings",
                json={"model": "tiny", "input": "the cat"},
                headers={"prefer": "wait=30"},
            )
        assert answer.status_code == 200
        assert len(answer.json()["data"][0]["embedding"]) == 32
        assert "is loaded; unload it first" in refused(server.cli("models", "remove", "tiny"))
        assert server.stop() == 0

    seen = len(hub.seen)
    assert document(server.cli("models", "pull", "tiny", "--json"))["state"] == "done"
    assert len(hub.seen) == seen  # it is here, and right
    assert document(server.cli("models", "verify", "tiny", "--json"))["matches"] is True
    with (server.data_dir / "models" / "tiny.gguf").open("r+b") as file:
        file.seek(1000)
        file.write(b"\0\1\2\3")
    assert "is not the file that the catalogue names" in refused(
        server.cli("models", "verify", "tiny")
    )
    assert document(server.cli("models", "pull", "tiny", "--json"))["state"] == "done"
    assert document(server.cli("models", "verify", "tiny", "--json"))["matches"] is True
    removed = document(server.cli("models", "remove", "tiny", "--json"))
    assert removed == {"id": "tiny", "freed": done["bytes"], "in_catalog": True}
    assert model_files(server) == []


def test_an_official_cross_encoder_is_pulled_converted_and_ranks(hub, server):
    server.start()
    added = document(server.cli("models", "add", FOLDER, "--json"))
    assert (added["id"], added["task"], added["max_input_tokens"]) == (FOLDER, "rerank", 64)
    assert document(server.cli("models", "pull", FOLDER, "--json"))["state"] == "done"
    pinned = entry(server, FOLDER)
    assert pinned["source"]["sha256"] == hub.digest(FOLDER, "model.safetensors")
    assert len(pinned["sha256"]) == 64
    assert document(server.cli("models", "verify", FOLDER, "--json"))["matches"] is True
    with server.client(server.mint()["key"]) as client:
        answer = client.post(
            "/v1/rerank",
            json={"model": FOLDER, "query": "the cat", "documents": ["sat on", "the mat"]},
            headers={"prefer": "wait=30"},
        )
    assert answer.status_code == 200
    assert {hit["index"] for hit in answer.json()["results"]} == {0, 1}
    assert model_files(server) == ["owner--tiny-cross.gguf"]


def test_what_the_hub_says_otherwise_than_the_catalogue_is_not_fetched(hub, server):
    document(server.cli("models", "add", REPO, "--id", "tiny", "--json"))
    hub.files[REPO, FILE] += b"another"
    line = refused(server.cli("models", "pull", "tiny"))
    assert "the hub says sha256" in line
    assert hub.asked(method="GET")[-1][2] is not None  # the header's range; the file never
    assert not (server.data_dir / "models" / "tiny.gguf").exists()


def test_a_file_of_another_architecture_than_said_never_gets_its_name(hub, server):
    document(server.cli("models", "add", REPO, "--id", "tiny", "--json"))
    own = server.data_dir / "models.toml"
    own.write_text(own.read_text().replace('architecture = "bert"', 'architecture = "qwen3"'))
    assert "the file is of bert, the catalogue says qwen3" in refused(
        server.cli("models", "pull", "tiny")
    )
    assert model_files(server) == []


def test_a_gated_repository_says_what_to_do(hub, server, monkeypatch):
    hub.faults.gated = True
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "is gated: accept its terms" in refused(server.cli("models", "add", f"{REPO}:{FILE}"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert document(server.cli("models", "add", f"{REPO}:{FILE}", "--json"))["id"] == REPO


def test_what_is_no_source_is_one_line(hub, server):
    hub.put("owner/many", "a-Q4_K_M.gguf", b"x")
    hub.put("owner/many", "a-Q5_K_M.gguf", b"x")
    hub.put("owner/none", "README.md", b"x")
    hub.put("owner/noise", "noise.gguf", os.urandom(10_000))

    def said(*arguments, env=None):
        return refused(at_once("models", *arguments, data_dir=server.data_dir, env=env))

    assert "2 GGUF files; name one: a-Q4_K_M.gguf" in said("add", "owner/many")
    assert "neither GGUF" in said("add", "owner/none")
    assert "GGUF" in said("add", "owner/noise")
    assert "no such repository" in said("add", "owner/absent")
    assert "built in" in said("pull", "starter-rerank")
    assert "built in" in said("remove", "starter-rerank")
    assert "offline is set" in said("add", REPO, env={"HF_HUB_OFFLINE": "1"})
    # The same line from a process of its own.
    assert "neither GGUF" in refused(server.cli("models", "add", "owner/none"))


def test_a_pull_is_watched_cancelled_and_goes_on_through_the_api(hub, server):
    document(server.cli("models", "add", REPO, "--id", "tiny", "--json"))
    hub.put(REPO, FILE, hub.files[REPO, FILE] + os.urandom(3_000_000))
    document(server.cli("models", "add", REPO, "--id", "tiny", "--replace", "--json"))
    hub.faults.pause_s, hub.sent = 0.05, 0
    server.start("--fake")
    with server.admin() as admin:
        begun = admin.post("/downloads", json={"id": "tiny"})
        assert begun.status_code == 202
        view = begun.json()
        # The same model is fetched once.
        assert admin.post("/downloads", json={"id": "tiny"}).json()["id"] == view["id"]
        while view["bytes"] < 1_000_000:
            time.sleep(0.02)
            view = admin.get(f"/downloads/{view['id']}").json()
        assert view["state"] == "fetching"
        assert view["bytes_total"] == len(hub.files[REPO, FILE])
        assert view["rate"] > 0
        assert view["eta_s"] >= 0
        admin.delete(f"/downloads/{view['id']}")
        while view["state"] == "fetching":
            view = admin.get(f"/downloads/{view['id']}").json()
        assert view["state"] == "cancelled"
        hub.faults.pause_s = 0.0
        again = admin.post("/downloads", json={"id": "tiny"}).json()
        assert again["id"] != view["id"]
        while again["state"] not in {"done", "failed"}:
            again = admin.get(f"/downloads/{again['id']}").json()
        assert again["state"] == "done"
        assert [each["state"] for each in admin.get("/downloads").json()["data"]] == [
            "cancelled",
            "done",
        ]
        assert admin.get("/downloads/dl_none").status_code == 404
    assert hub.sent < len(hub.files[REPO, FILE]) + 4 * 65_536
    assert server.stop() == 0


@pytest.mark.parametrize("with_server", [True, False])
def test_a_model_that_is_here_is_replaced_from_the_hub_by_one_command(
    hub, server, tmp_path, with_server
):
    if with_server:
        server.start()
    first = write_tiny_gguf(tmp_path / "first.gguf", seed=7)
    document(server.cli("models", "add", str(first), "--id", "tiny", "--json"))
    document(server.cli("models", "price", "tiny", "--realtime", "0.25", "--json"))
    line = refused(server.cli("models", "add", REPO, "--id", "tiny"))
    assert "there is a model tiny already; use --replace or another --id" in line
    weights = encoders.xlmr_weights(seed=1)
    weights["cls.output.weight"] *= 0
    hub.put("owner/bad", "bad.gguf", encoders.write_xlmr(tmp_path / "bad", weights).read_bytes())
    end = server.cli("models", "add", "owner/bad", "--id", "tiny", "--replace")
    assert "it scores everything alike" in refused(end)
    assert document(server.cli("models", "verify", "tiny", "--json"))["matches"] is True
    assert "source" not in entry(server, "tiny")
    end = server.cli(
        "models", "add", REPO, "--id", "tiny", "--replace", "--pooling", "cls", "--json"
    )
    shown = document(end)
    assert (shown["available"], shown["pricing"]["realtime"]) == (True, 0.25)
    assert "Note: pooling is cls, as asked for; the file says mean" in end.stderr
    assert entry(server, "tiny")["pooling"] == "cls"
    assert entry(server, "tiny")["source"]["sha256"] == hub.digest(REPO, FILE)
    [name] = model_files(server)
    assert (server.data_dir / "models" / name).read_bytes() == hub.files[REPO, FILE]


@pytest.mark.parametrize("with_server", [True, False])
def test_a_model_that_scores_everything_alike_is_not_added_with_a_server_or_without(
    server, tmp_path, with_server
):
    if with_server:
        server.start()
    weights = encoders.xlmr_weights(seed=1)
    weights["cls.output.weight"] *= 0
    path = encoders.write_xlmr(tmp_path / "alike.gguf", weights)
    assert "it scores everything alike" in refused(server.cli("models", "add", str(path)))
    listed = document(server.cli("models", "list", "--json"))
    assert "alike" not in [model["id"] for model in listed["data"]]
    assert model_files(server) == []
