"""Files and batches: OpenAI's API, over a really started server and with the real client."""

import json
import subprocess
import time

import openai
import pytest
from openai import OpenAI

from tests.money.audit import Books
from tests.server import EMBED, RERANK

ENDED = ("completed", "failed", "expired", "cancelled")
DEADLINE_S = 60


@pytest.fixture(scope="module")
def holder(server):
    minted = server.mint("batches", credit="1")
    return OpenAI(base_url=f"{server.url}/v1", api_key=str(minted["key"]), max_retries=0)


def request(custom_id, body, url="/v1/embeddings"):
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def embed(custom_id, text="a text", **more):
    return request(custom_id, {"model": EMBED, "input": text, **more})


def content_of(*lines):
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def order(client, *lines, endpoint="/v1/embeddings", **more):
    sent = client.files.create(file=("requests.jsonl", content_of(*lines)), purpose="batch")
    return client.batches.create(
        input_file_id=sent.id, endpoint=endpoint, completion_window="24h", **more
    )


def ended(client, batch):
    deadline = time.monotonic() + DEADLINE_S
    while batch.status not in ENDED:
        assert time.monotonic() < deadline, batch
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)
    return batch


def results(client, file_id):
    lines = client.files.content(file_id).text.splitlines()
    return {found["custom_id"]: found for found in map(json.loads, lines)}


def test_a_file_is_kept_listed_read_and_deleted(holder):
    content = content_of(embed("a"))
    sent = holder.files.create(file=("requests.jsonl", content), purpose="batch")
    assert sent.id.startswith("file-")
    assert (sent.object, sent.bytes, sent.filename) == ("file", len(content), "requests.jsonl")
    assert (sent.purpose, sent.status) == ("batch", "processed")
    assert sent.expires_at - sent.created_at == 30 * 86_400
    assert holder.files.retrieve(sent.id) == sent
    assert sent in holder.files.list(purpose="batch").data
    assert sent not in holder.files.list(purpose="batch_output").data
    assert holder.files.content(sent.id).read() == content
    assert holder.files.delete(sent.id).deleted
    for verb in (holder.files.retrieve, holder.files.content, holder.files.delete):
        with pytest.raises(openai.NotFoundError, match="no file"):
            verb(sent.id)


def test_lists_are_paged(holder):
    sent = [holder.files.create(file=("x", b"x"), purpose="batch") for _ in range(5)]
    paged = [file.id for file in holder.files.list(limit=2)]
    assert paged[:5] == [file.id for file in reversed(sent)]
    page = holder.files.list(limit=2, after=sent[3].id)
    assert [file.id for file in page.data] == [sent[2].id, sent[1].id]
    assert page.has_more
    for file in sent:
        holder.files.delete(file.id)


def test_a_batch_answers_every_line_as_the_endpoint_does_at_the_batch_price(server):
    minted = server.mint("answers", credit="1")
    client = OpenAI(base_url=f"{server.url}/v1", api_key=str(minted["key"]))
    lines = [embed(f"line {number}", f"text {number}") for number in range(300)]
    batch = order(client, *lines, metadata={"for": "a test"})
    assert (batch.status, batch.output_file_id) == ("validating", None)
    batch = ended(client, batch)
    assert batch.status == "completed"
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (300, 300, 0)
    assert batch.metadata == {"for": "a test"}
    assert batch.error_file_id is None
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
    assert batch.expires_at == batch.created_at + 86_400
    found = results(client, batch.output_file_id)
    assert found.keys() == {line["custom_id"] for line in lines}
    assert len({each["id"] for each in found.values()}) == 300
    one = found["line 7"]["response"]
    assert (one["status_code"], found["line 7"]["error"]) == (200, None)
    with server.client(str(minted["key"])) as http:
        direct = http.post(
            "/v1/embeddings",
            json={"model": EMBED, "input": "text 7"},
            headers={"x-tier": "batch"},
        )
        assert one["body"]["usage"] == direct.json()["usage"]
        ours = one["body"]["data"][0]["embedding"]
        theirs = direct.json()["data"][0]["embedding"]
        assert sum(a * b for a, b in zip(ours, theirs, strict=True)) > 0.999
        # Each line costs the same as that call: as many tokens, at the price of a batch.
        spent = http.get("/account").json()["spent_today"]
    tokens = sum(each["response"]["body"]["usage"]["total_tokens"] for each in found.values())
    tokens += direct.json()["usage"]["total_tokens"]
    assert spent == pytest.approx(tokens * 0.004 / 1e6, rel=1e-9)
    books = Books(server.data_dir)
    asked = [each["response"]["request_id"] for each in found.values()]
    assert [books.charges[request_id] for request_id in asked] == [1] * 300
    assert not books.refunded.keys() & set(asked)
    file = client.files.retrieve(batch.output_file_id)
    assert (file.purpose, file.filename) == ("batch_output", f"{batch.id}_output.jsonl")
    assert file.bytes == len(client.files.content(file.id).read())


def test_rerank_lines_and_lines_that_are_refused(holder):
    body = {"model": RERANK, "query": "q", "documents": ["a", "b"]}
    url = "/v1/rerank"
    batch = ended(
        holder,
        order(
            holder,
            request("good", body, url),
            request("no model", {**body, "model": "nobody/nothing"}, url),
            request("no documents", {"model": RERANK, "query": "q"}, url),
            endpoint=url,
        ),
    )
    assert batch.status == "completed"
    assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 2)
    good = results(holder, batch.output_file_id)["good"]["response"]
    assert {each["index"] for each in good["body"]["results"]} == {0, 1}
    wrong = results(holder, batch.error_file_id)
    told = {
        name: (each["response"]["status_code"], each["response"]["body"]["error"]["code"])
        for name, each in wrong.items()
    }
    assert told == {
        "no model": (404, "model_not_found"),
        "no documents": (400, "invalid_request"),
    }


def test_a_wrong_file_fails_with_its_lines_and_costs_nothing(holder):
    batch = ended(holder, order(holder, embed("a"), {"custom_id": "b"}, embed("a")))
    assert batch.status == "failed"
    assert [(each.code, each.line) for each in batch.errors.data] == [
        ("missing_required_parameter", 2),
        ("duplicate_custom_id", 3),
    ]
    assert batch.failed_at
    assert batch.output_file_id is batch.error_file_id is None


def test_lines_without_credit_are_told_so(server):
    minted = server.mint("poor", credit="0.00000003")
    client = OpenAI(base_url=f"{server.url}/v1", api_key=str(minted["key"]))
    batch = ended(client, order(client, *[embed(str(number)) for number in range(5)]))
    assert (batch.status, batch.request_counts.total) == ("completed", 5)
    assert batch.request_counts.completed == 1
    for each in results(client, batch.error_file_id).values():
        assert each["response"]["status_code"] == 402
        assert each["response"]["body"]["error"]["code"] == "insufficient_credit"


def test_keys_do_not_see_each_others_files_and_batches(server, holder):
    batch = order(holder, embed("a"))
    stranger = OpenAI(
        base_url=f"{server.url}/v1", api_key=str(server.mint("stranger")["key"]), max_retries=0
    )
    asked = (
        lambda: stranger.files.retrieve(batch.input_file_id),
        lambda: stranger.files.content(batch.input_file_id),
        lambda: stranger.files.delete(batch.input_file_id),
        lambda: stranger.batches.retrieve(batch.id),
        lambda: stranger.batches.cancel(batch.id),
    )
    for verb in asked:
        with pytest.raises(openai.NotFoundError):
            verb()
    with pytest.raises(openai.BadRequestError) as refused:
        stranger.batches.create(
            input_file_id=batch.input_file_id,
            endpoint="/v1/embeddings",
            completion_window="24h",
        )
    assert refused.value.param == "input_file_id"
    assert stranger.batches.list().data == stranger.files.list().data == []
    assert ended(holder, batch).status == "completed"


def test_a_batch_is_cancelled_and_keeps_what_was_answered(server):
    minted = server.mint("cancels", credit="1")
    client = OpenAI(base_url=f"{server.url}/v1", api_key=str(minted["key"]))
    batch = order(client, *[embed(str(n), "some words " * 100) for n in range(3_000)])
    while not client.batches.retrieve(batch.id).request_counts.completed:
        time.sleep(0.05)
    with pytest.raises(openai.BadRequestError, match="reads this file"):
        client.files.delete(batch.input_file_id)
    told = client.batches.cancel(batch.id)
    assert told.status in ("cancelling", "cancelled")
    batch = ended(client, told)
    assert batch.status == "cancelled"
    assert batch.cancelling_at <= batch.cancelled_at
    assert 0 < batch.request_counts.completed < 3_000
    found = results(client, batch.output_file_id)
    assert len(found) == batch.request_counts.completed
    books = Books(server.data_dir)
    charged = sum(
        amount
        for request_id, amount in books.charged.items()
        if request_id in {each["response"]["request_id"] for each in found.values()}
    )
    spent = 10**12 - books.posted[minted["id"]]
    assert spent == charged
    assert client.batches.cancel(batch.id).status == "cancelled"
    assert client.files.delete(batch.input_file_id).deleted


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"endpoint": "/v1/chat/completions"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"input_file_id": "file-nothing"}, "input_file_id"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
        ({"metadata": {"x": "y" * 513}}, "metadata"),
        ({"metadata": {"x": 1}}, "metadata"),
        ({"input_file_id": None}, "input_file_id"),
    ],
)
def test_a_wrong_order_names_its_field(server, change, param):
    with server.client() as client:
        sent = client.post(
            "/v1/files", data={"purpose": "batch"}, files={"file": ("x.jsonl", b"x")}
        ).json()
        good = {
            "input_file_id": sent["id"],
            "endpoint": "/v1/embeddings",
            "completion_window": "24h",
        }
        answer = client.post("/v1/batches", json={**good, **change})
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["param"] == param


def test_wrong_forms_are_refused_with_the_field(server):
    file = {"file": ("x.jsonl", b"x")}
    with server.client() as client:
        for how, param in (
            ({"data": {"purpose": "fine-tune"}, "files": file}, "purpose"),
            ({"files": file}, "purpose"),
            ({"data": {"purpose": "batch"}, "files": {"other": ("x", b"x")}}, "file"),
            ({"json": {"purpose": "batch"}}, "Content-Type"),
        ):
            answer = client.post("/v1/files", **how)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
        boundary = {"content-type": "multipart/form-data; boundary=x"}
        for content in (b"", b"nothing", b"--x\r\n\r\nno end", b"--x--\r\n" * 2):
            answer = client.post("/v1/files", content=content, headers=boundary)
            assert answer.status_code == 400, content
        for query in ("limit=0", "limit=x", "limit=1e2", "limit=99999", "purpose=x"):
            assert client.get(f"/v1/files?{query}").status_code == 400, query
            if not query.startswith("purpose"):
                assert client.get(f"/v1/batches?{query}").status_code == 400, query
        assert client.get("/v1/files?after=file-x").status_code == 404
        assert client.get("/v1/files").json()["data"] == []
    assert not list((server.data_dir / "files").glob("*.part"))


def test_curl_uploads_more_than_a_body_may_have_and_reads_why_a_larger_file_is_refused(
    server, tmp_path
):
    key = server.mint("curl")["key"]
    large = tmp_path / "large.jsonl"

    def upload():
        run = subprocess.run(
            [
                *("curl", "-s", "-w", "\n%{http_code}", f"{server.url}/v1/files"),
                *("-H", f"authorization: Bearer {key}", "-F", "purpose=batch"),
                *("-F", f"file=@{large}"),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        body, _, status = run.stdout.rpartition("\n")
        return int(status), json.loads(body)

    with large.open("wb") as file:
        file.truncate(40_000_000)
    status, told = upload()
    assert (status, told["bytes"]) == (200, 40_000_000)
    path = server.data_dir / "files" / told["id"]
    assert path.stat().st_size == 40_000_000
    assert path.stat().st_mode & 0o777 == 0o600
    with large.open("wb") as file:
        file.truncate(210_000_000)
    status, told = upload()
    assert (status, told["error"]["code"]) == (413, "body_too_large")
    assert [each.name for each in path.parent.iterdir() if each.stat().st_size > 10**8] == []
    with server.client(str(key)) as client:
        assert client.delete(f"/v1/files/{path.name}").status_code == 200
    assert not path.exists()
