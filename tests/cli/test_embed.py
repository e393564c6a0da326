"""`gigarouter embed` against a started server: what goes in, what comes out, what is kept."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import httpx2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.server import EMBED, ROOT, Server

TEXTS = [f"text number {number}" for number in range(150)] + ["with, a comma\tand a tab", "ü"]
DIMENSIONS = 384


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("embed") / "data").start()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def key(own):
    return str(own.mint("embed", credit="5")["key"])


@pytest.fixture(scope="module")
def expected(own, key):
    with own.client(key) as client:
        answer = client.post("/v1/embeddings", json={"model": EMBED, "input": TEXTS})
    return np.array([each["embedding"] for each in answer.json()["data"]], dtype=np.float32)


def run(own, key, *arguments, stdin=None, **variables):
    environment = {**os.environ, "GIGAROUTER_KEY": key or "", **variables}
    return subprocess.run(
        [sys.executable, "-m", "appliance", "embed", *map(str, arguments)]
        + (["--data-dir", str(own.data_dir)] if "--url" not in arguments else []),
        cwd=ROOT,
        env=environment,
        input=stdin,
        capture_output=True,
        timeout=120,
        check=False,
    )


def alike(found, expected):
    assert found.shape == expected.shape
    assert ((found * expected).sum(axis=1) > 0.999).all()


def written(folder, kind):
    path = folder / f"texts.{kind}"
    if kind == "jsonl":
        path.write_text(
            "".join(json.dumps({"id": n, "text": t}) + "\n" for n, t in enumerate(TEXTS))
        )
    elif kind in ("csv", "tsv"):
        with path.open("w", newline="") as file:
            rows = csv.writer(file, delimiter="\t" if kind == "tsv" else ",")
            rows.writerows([("id", "text"), *enumerate(TEXTS)])
    elif kind == "parquet":
        pq.write_table(pa.table({"id": list(range(len(TEXTS))), "text": TEXTS}), path)
    else:
        path.write_text("\n".join(TEXTS))
    return path


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "parquet", "txt"])
def test_every_kind_of_file_is_read(own, key, expected, tmp_path, kind):
    source = written(tmp_path, kind)
    done = run(own, key, source, "--model", EMBED, "--batch-size", 20, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["rows"], told["dimensions"], told["format"]) == (len(TEXTS), DIMENSIONS, "npy")
    assert told["tokens"] > len(TEXTS)
    alike(np.load(tmp_path / "texts.npy"), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({source.name, "texts.npy"})


@pytest.mark.parametrize("kind", ["npy", "jsonl", "parquet"])
def test_every_kind_of_file_is_written(own, key, expected, tmp_path, kind):
    out = tmp_path / f"vectors.{kind}"
    done = run(own, key, written(tmp_path, "txt"), "--model", EMBED, "--out", out)
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"152 vectors of 384 dimensions" in done.stderr
    if kind == "npy":
        found = np.load(out)
    elif kind == "jsonl":
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        assert [line["index"] for line in lines] == list(range(len(TEXTS)))
        found = np.array([line["embedding"] for line in lines], dtype=np.float32)
    else:
        table = pq.read_table(out)
        assert table["index"].to_pylist() == list(range(len(TEXTS)))
        found = np.array(table["embedding"].to_pylist(), dtype=np.float32)
    alike(found, expected)


def test_standard_input_the_batch_price_and_a_server_by_its_address(own, key, expected, tmp_path):
    out = tmp_path / "out.npy"
    flags = ("--model", EMBED, "--out", out, "--tier", "batch", "--url", own.url, "--json")
    lines = "".join(json.dumps(text) + "\n" for text in TEXTS).encode()
    done = run(own, key, "-", *flags, "--input-format", "jsonl", stdin=lines)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert float(told["cost"]) == pytest.approx(told["tokens"] * 0.004 / 1e6)
    alike(np.load(out), expected)


def test_a_run_that_was_cut_off_goes_on_and_pays_for_the_rest_alone(own, expected, tmp_path):
    source = written(tmp_path, "jsonl")
    with httpx2.Client() as _:
        poor = own.mint("poor", credit="0.000003")
    flags = (source, "--model", EMBED, "--batch-size", 20, "--concurrency", 1)
    done = run(own, str(poor["key"]), *flags)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 2
    assert b"goes on with them" in done.stderr
    assert b"This call costs" in done.stderr
    assert not (tmp_path / "texts.npy").exists()
    part = tmp_path / "texts.npy.part"
    with part.open("ab") as file:
        file.write(b"half a row")
    refused = run(own, str(poor["key"]), *flags, "--dimensions", 7)
    assert refused.returncode == 1
    assert b"--restart" in refused.stderr
    done = run(own, str(own.mint("rich")["key"]), *flags, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert 0 < told["resumed_rows"] < told["rows"] == len(TEXTS)
    alike(np.load(tmp_path / "texts.npy"), expected)
    assert not part.exists()


@pytest.mark.parametrize(
    ("name", "content", "flags", "said"),
    [
        ("a.csv", "x,y\n1,2\n", (), b"--column is one of x, y"),
        ("a.jsonl", '{"x": 1}\n', (), b"line 1 has no 'text'"),
        ("a.jsonl", '{"x": 1}\n', ("--column", "x"), b"row 1 has no text"),
        ("a.jsonl", "{\n", (), b"line 1 is not JSON"),
        ("a.txt", "a\n\nb\n", (), b"row 2 is empty"),
        ("a.txt", "", (), b"has no texts"),
        ("a.txt", b"\xff", (), b"line 1 is not UTF-8"),
        ("a.txt", "a", ("--model", "nobody/nothing"), b"There is no model"),
        ("a.txt", "a", ("--out", "vectors.xyz"), b"say --format"),
        ("a.parquet", "no parquet", (), b"a.parquet"),
    ],
)
def test_what_is_wrong_is_one_line(own, key, tmp_path, name, content, flags, said):
    source = tmp_path / name
    source.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = run(own, key, source, *(() if "--model" in flags else ("--model", EMBED)), *flags)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_wrong_usage_is_told_before_anything_is_done(own, key, tmp_path):
    source = written(tmp_path, "txt")
    assert run(own, key, source).returncode == 2
    assert run(own, None, source, "--model", EMBED).returncode == 2
    assert run(own, key, "-", "--model", EMBED, stdin=b"a").returncode == 2
    no_scheme = run(own, key, source, "--model", EMBED, "--url", "localhost:8642")
    assert (no_scheme.returncode, b"http://" in no_scheme.stderr) == (2, True)
    (tmp_path / "texts.npy").write_bytes(b"mine")
    done = run(own, key, source, "--model", EMBED)
    assert (done.returncode, b"--overwrite" in done.stderr) == (1, True)
    assert run(own, key, tmp_path / "nothing.txt", "--model", EMBED).returncode == 1
    assert (tmp_path / "texts.npy").read_bytes() == b"mine"
    wrong = run(own, "gr-nothing", source, "--model", EMBED, "--overwrite")
    assert (wrong.returncode, b"not valid here" in wrong.stderr) == (1, True)


def test_a_row_without_text_is_found_before_anything_is_paid_for(own, key, tmp_path):
    source = tmp_path / "texts.txt"
    source.write_text("a text\n" * 400 + "\nlast\n")
    done = run(own, key, source, "--model", EMBED, "--batch-size", 1)
    assert (done.returncode, b"row 401 is empty" in done.stderr) == (1, True)
    assert not (tmp_path / "texts.npy.part").exists()


def test_a_run_from_the_beginning_pays_nothing_a_second_time(own, key, tmp_path):
    source = tmp_path / "texts.txt"
    source.write_text("paid once\n" * 50)
    flags = (source, "--model", EMBED, "--batch-size", 10, "--overwrite", "--json")
    costs = [float(json.loads(run(own, key, *flags).stdout)["cost"]) for _ in range(2)]
    assert costs[0] > 0
    assert costs[1] == 0


def test_an_interrupt_ends_it_while_standard_input_is_silent(own, key, tmp_path):
    flags = ("--model", EMBED, "--batch-size", "1", "--concurrency", "1")
    command = [sys.executable, "-m", "appliance", "embed", "-", *flags]
    out = tmp_path / "out.npy"
    with subprocess.Popen(
        [*command, "--out", str(out), "--data-dir", str(own.data_dir)],
        cwd=ROOT,
        env={**os.environ, "GIGAROUTER_KEY": key},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdin.write(b"a text\nanother\n")
        process.stdin.flush()
        part = tmp_path / "out.npy.part"
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not (part.exists() and part.stat().st_size):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(10) != 0
        finally:
            process.kill()
        assert b"Fatal" not in process.stderr.read()


def test_without_pyarrow_parquet_is_one_line_that_says_how_to_install_it(own, key, tmp_path):
    hidden = tmp_path / "hidden" / "pyarrow"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError")
    source = written(tmp_path, "txt")
    flags = ("--model", EMBED, "--out", tmp_path / "x.parquet")
    done = run(own, key, source, *flags, PYTHONPATH=str(hidden.parent))
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert b"pip install 'gigarouter[parquet]'" in done.stderr


def test_a_server_that_restarts_meanwhile_is_waited_for(make_server, tmp_path):
    server = make_server().start("--fake")
    minted = server.mint("patient")
    source = tmp_path / "texts.txt"
    source.write_text("\n".join(f"text {number}" for number in range(20_000)))
    command = [sys.executable, "-m", "appliance", "embed", str(source), "--model", EMBED, "--json"]
    with subprocess.Popen(
        [*command, "--data-dir", str(server.data_dir)],
        cwd=ROOT,
        env={**os.environ, "GIGAROUTER_KEY": str(minted["key"])},
        stdout=subprocess.PIPE,
    ) as process:
        part = tmp_path / "texts.npy.part"
        while process.poll() is None and not (part.exists() and part.stat().st_size > 100_000):
            pass
        server.kill()
        server.start("--fake")
        told = json.loads(process.communicate(timeout=100)[0])
    assert told["rows"] == 20_000
    assert np.load(tmp_path / "texts.npy").shape == (20_000, DIMENSIONS)
